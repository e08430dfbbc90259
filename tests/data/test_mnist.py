"""MNIST and the idx format: what is written comes back, and a file that is not what it should be is refused.

How arbitrary bytes fare is tested in tests/fuzz.
"""

import gzip
import struct

import numpy as np
import pytest

from minidl.data import MNIST, BadFileError, FashionMNIST, ImageLoader, mnist, read_idx

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx(array):
    """The bytes of an idx file."""
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def images_of(n):
    return np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)


def labels_of(n):
    return np.random.default_rng(n + 100).integers(0, 10, n, np.uint8)


def write(folder, part, n, pack=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{part}-images-idx3-ubyte", images_of(n)), (f"{part}-labels-idx1-ubyte", labels_of(n))):
        data = idx(array)
        (folder / (f"{name}.gz" if pack else name)).write_bytes(gzip.compress(data) if pack else data)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("where", [".", "MNIST/raw"])
def test_images_and_labels_come_back(tmp_path, where, pack):
    write(tmp_path / where, "train", 30, pack)
    write(tmp_path / where, "t10k", 20, pack)
    for dataset, n in ((MNIST(tmp_path), 30), (MNIST(tmp_path, train=False), 20)):
        assert len(dataset) == n and np.array_equal(dataset.data, images_of(n)) and dataset.data.dtype == np.uint8
        assert dataset.targets.dtype == np.int64 and dataset.targets.tolist() == labels_of(n).tolist()
        image, label = dataset[n - 1]
        assert image.mode == "L" and np.array_equal(image, images_of(n)[-1])
        assert type(label) is int and label == labels_of(n)[-1]
        assert dataset[-1][1] == label


def test_the_data_set_has_what_all_data_sets_have(tmp_path):
    write(tmp_path, "train", 30)
    dataset = MNIST(tmp_path)
    assert dataset.classes[0] == "0 - zero" and dataset.classes[9] == "9 - nine" and len(dataset.classes) == 10
    assert dataset.class_to_idx["7 - seven"] == 7
    images, labels = next(iter(ImageLoader(dataset, 4, num_workers=2)))
    assert images.shape == (4, 1, 28, 28) and labels.tolist() == dataset.targets[:4].tolist()


def test_the_names_are_torchvisions():
    import minidl.data
    from minidl.data import datasets, transforms

    assert datasets.MNIST is MNIST and minidl.data.datasets is datasets and minidl.data.transforms is transforms


def test_data_and_targets_may_be_cut_as_programs_do(tmp_path):
    write(tmp_path, "train", 30)
    dataset = MNIST(tmp_path)
    few = dataset.targets == dataset.targets[0]
    dataset.data, dataset.targets = dataset.data[few], dataset.targets[few]
    assert len(dataset) == int(few.sum()) < 30 and {label for _, label in dataset} == {labels_of(30)[0]}


def test_transforms_get_the_picture_and_the_label(tmp_path):
    write(tmp_path, "train", 3)
    dataset = MNIST(tmp_path, True, lambda picture: picture.size, lambda label: -label, download=True)
    assert dataset[2] == ((28, 28), -int(labels_of(3)[2]))
    assert MNIST(tmp_path, transform=len, target_transform=None).transform is len


def test_fashion_mnist_has_its_own_folder_and_classes(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw", "train", 30)
    dataset = FashionMNIST(tmp_path)
    assert dataset.classes[9] == "Ankle boot" and dataset.class_to_idx["Sandal"] == 5 and dataset[3][1] == labels_of(30)[3]
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST: t10k-.* zalandoresearch|FashionMNIST: .*fashion-mnist into"):
        FashionMNIST(tmp_path, train=False)


def test_nothing_is_downloaded_and_the_error_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        MNIST(tmp_path, download=True)
    raw = tmp_path / "MNIST" / "raw"
    assert f"nothing is downloaded: put the four files of http://yann.lecun.com/exdb/mnist/ into {raw};" in str(caught.value)
    assert not raw.exists()


@pytest.mark.parametrize("index", [-31, 30])
def test_an_index_outside_is_refused(tmp_path, index):
    write(tmp_path, "train", 30)
    with pytest.raises(IndexError, match=rf"MNIST: index must be in \[-30, 30\), got {index}"):
        MNIST(tmp_path)[index]


def test_a_missing_file_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MNIST: train-images-idx3-ubyte must be there.*MNIST/raw/.*, .*ubyte\.gz$"):
        MNIST(tmp_path)
    write(tmp_path, "t10k", 3)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"MNIST: t10k-labels-idx1-ubyte must be there"):
        MNIST(tmp_path, train=False)


@pytest.mark.parametrize(
    "images, labels, match",
    [
        (labels_of(5), labels_of(5), r"images-idx3-ubyte .*images must be uint8 of \(N, 28, 28\), got uint8 of \(5,\)"),
        (images_of(5)[:, :27], labels_of(5), r"images must be uint8 of \(N, 28, 28\), got uint8 of \(5, 27, 28\)"),
        (images_of(5).astype(np.int32), labels_of(5), r"images must be uint8 of \(N, 28, 28\), got int32 of \(5, 28, 28\)"),
        (
            images_of(5),
            images_of(5),
            r"idx1-ubyte .*labels must be uint8 of \(5,\), one for .*, got uint8 of \(5, 28, 28\)",
        ),
        (images_of(5), labels_of(4), r"labels must be uint8 of \(5,\), one for each image, got uint8 of \(4,\)"),
        (images_of(5), labels_of(5).astype(np.int8), r"labels must be uint8 of \(5,\), one for each image, got int8 of \(5,\)"),
        (images_of(3), np.array([1, 10, 2], np.uint8), r"labels must be in \[0, 10\), got 10 for image 1"),
    ],
)
def test_files_that_are_not_images_and_labels_are_refused(tmp_path, images, labels, match):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(BadFileError, match=match):
        MNIST(tmp_path)


def test_no_images_are_a_data_set_too(tmp_path):
    write(tmp_path, "train", 0)
    assert len(MNIST(tmp_path)) == 0 and MNIST(tmp_path).targets.tolist() == []


# ------------------------------------------------------------------------------------------------------------------ idx


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 1, 3, 2), (0, 5)])
def test_every_kind_of_number_comes_back(tmp_path, dtype, shape):
    array = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    (tmp_path / "x").write_bytes(idx(array))
    found = read_idx(tmp_path / "x")
    assert found.dtype == array.dtype and found.dtype.isnative and found.shape == shape and np.array_equal(found, array)
    found[...] = 1  # its own memory


WHOLE = idx(np.arange(6, dtype=np.int16).reshape(2, 3))


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", r"must begin with 0, 0 and one of \[8, 9, 11, 12, 13, 14\], got \[\]"),
        (b"\0\0\x08", r"must begin with 0, 0"),
        (b"\0\1" + WHOLE[2:], r"must begin with 0, 0 .*, got \[0, 1, 11\]"),
        (b"\1\0" + WHOLE[2:], r"must begin with 0, 0 .*, got \[1, 0, 11\]"),
        (b"\0\0\x0a" + WHOLE[3:], r"must begin with 0, 0 .*, got \[0, 0, 10\]"),
        (b"\0\0\x08\0", "must have 1 to 32 dimensions of 4 bytes each, got 0 in 0 bytes"),
        (b"\0\0\x08\x21" + bytes(4 * 33), "must have 1 to 32 dimensions of 4 bytes each, got 33 in 132 bytes"),
        (WHOLE[:11], "must have 1 to 32 dimensions of 4 bytes each, got 2 in 7 bytes"),
        (WHOLE[:-1], r"must have 24 bytes by its header \(\(2, 3\), int16\), got 23"),
        (WHOLE + b"x", r"must have 24 bytes by its header \(\(2, 3\), int16\), got more"),
        (b"\0\0\x08\x02" + b"\xff" * 8, r"at most 1073741824 bytes of numbers, its header says \(4294967295, 4294967295\)"),
        (b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, r"its header says \(0, 4294967295, 4294967295\) of uint8"),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_what_is_no_idx_file_is_refused(tmp_path, content, match, pack):
    path = tmp_path / ("x.gz" if pack else "x")
    path.write_bytes(gzip.compress(content) if pack else content)
    with pytest.raises(BadFileError, match=match) as caught:
        read_idx(path)
    assert caught.value.path == str(path) and caught.value.size == path.stat().st_size


def test_as_much_as_allowed_is_read_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "_LARGEST", 12)
    (tmp_path / "x").write_bytes(WHOLE)
    assert read_idx(tmp_path / "x").size == 6
    monkeypatch.setattr(mnist, "_LARGEST", 11)
    with pytest.raises(BadFileError, match="at most 11 bytes of numbers"):
        read_idx(tmp_path / "x")


def test_a_missing_idx_file_is_not_called_bad(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_idx(tmp_path / "gone")


def test_a_file_in_the_place_of_the_root(tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"MNIST: root must be the folder where the .* got the file .*data\.tar\.gz"):
        MNIST(tmp_path / "data.tar.gz")
