"""The data in its forms."""

import tarfile

import numpy as np
import pytest
from pictures import cifar10, patterns, photographs
from PIL import Image

CLASSES = [f"class{i}" for i in range(10)]


def image(seed, size=(32, 32)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images of each class for training, one for testing, as PNG."""
    root = tmp_path_factory.mktemp("cifar")
    for c, name in enumerate(CLASSES):
        for split, count in (("train", 3), ("test", 1)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image(100 * c + 10 * i + (split == "test")).save(root / split / name / f"{i}.png")
    return root


def packed(folder, file, names=("test", "train")):
    with tarfile.open(file, "w:gz") as tar:
        for name in names:
            tar.add(folder / name, name)
    return file


def test_a_folder_and_its_archive_are_the_same_data(folder, tmp_path):
    a, b = cifar10(folder, tmp_path / "a"), cifar10(packed(folder, tmp_path / "x.tar.gz"), tmp_path / "b")
    assert a.fingerprint == b.fingerprint and a.train.shape == (30, 32, 32, 3) and a.test_labels.tolist() == list(range(10))
    for name in ("train", "train_labels", "test", "test_labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.train[4], image(110))


def test_decoded_images_are_kept_for_the_next_time(folder, tmp_path, monkeypatch):
    first = cifar10(folder, tmp_path)
    monkeypatch.setattr("pictures._decoded", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(cifar10(folder, tmp_path).train, first.train)


def test_a_changed_image_is_other_data(folder, tmp_path):
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    image(5).save(other / "train" / "class3" / "1.png")
    assert cifar10(other, tmp_path / "a").fingerprint != cifar10(folder, tmp_path / "b").fingerprint


def test_published_batches_are_read(tmp_path):
    """In the binary version: a byte with the label, then the pixels, channels first."""
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 3073), np.uint8)
    pixels[:, 0] = np.arange(10_000) % 10
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(pixels.tobytes())
    data = cifar10(tmp_path, tmp_path / "cache")
    assert data.name == "CIFAR-10" and data.train.shape == (50_000, 32, 32, 3) and data.test_labels[:3].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(data.test[7], pixels[7, 1:].reshape(3, 32, 32).transpose(1, 2, 0))


def test_what_is_not_cifar10_is_refused(folder, tmp_path):
    import shutil

    with pytest.raises(FileNotFoundError, match=r"nowhere: must be a folder or a tar.gz of CIFAR-10, got nothing by that name"):
        cifar10(tmp_path / "nowhere", tmp_path)
    few = shutil.copytree(folder, tmp_path / "few")
    shutil.rmtree(few / "train" / "class9")
    shutil.rmtree(few / "test" / "class9")
    with pytest.raises(ValueError, match=r"few: CIFAR-10 has 10 classes, got 9 \(class0, class1"):
        cifar10(few, tmp_path / "a")
    large = shutil.copytree(folder, tmp_path / "large")
    image(0, (40, 32)).save(large / "train" / "class0" / "0.png")
    with pytest.raises(ValueError, match=r"large: images must be 32 x 32, got \(40, 32, 3\) \(train/class0/0.png\)"):
        cifar10(large, tmp_path / "b")
    image(0).save(large / "train" / "stray.png")
    with pytest.raises(
        ValueError, match=r"large: image files must be train/CLASS/NAME or test/CLASS/NAME, got train/stray.png"
    ):
        cifar10(large, tmp_path / "c")


def test_each_photograph_is_a_class(tmp_path):
    for i in range(3):
        image(i, (300, 280 + i)).save(tmp_path / f"{i}.jpg")
    data = photographs(tmp_path)
    assert data.train.shape == (3, 256, 256, 3) and data.train_labels.tolist() == [0, 1, 2] and data.classes == 3
    assert len(data.test) == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: must hold image files"):
        photographs(tmp_path / "empty")


def test_patterns_have_test_images_of_their_own():
    data = patterns(20, 32)
    assert data.train.shape == data.test.shape == (20, 32, 32, 3) and not np.array_equal(data.train, data.test)
