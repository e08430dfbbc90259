"""CIFAR-10: every published layout gives the same images, and a file that is no such batch is refused, with nothing run.

How arbitrary bytes fare is tested in tests/fuzz.
"""

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile

import numpy as np
import pytest

from minidl.data import CIFAR10, BadFileError, ImageLoader, cifar10
from minidl.data.cifar10 import CLASSES, TEST, TRAIN
from minidl.data.pickles import Call

IMAGES = 12  # in a batch of these tests
FEW = pytest.mark.usefixtures("small")


@pytest.fixture
def small(monkeypatch):
    """Batches of 12 images instead of 10,000."""
    monkeypatch.setattr(cifar10, "_BATCH_IMAGES", IMAGES)


def batch_of(number, images=IMAGES):
    """(N, 3072) uint8 pixels, channels first, and labels, of a batch."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (images, 3072), np.uint8), rng.integers(0, 10, images).tolist()


def python2(pixels, labels):
    """The bytes that Python 2's cPickle and its NumPy wrote, instruction by instruction, in protocol 2."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    items = [
        *(text(b"batch_label") + b"q\x02", text(b"training batch 1 of 5") + b"q\x03"),
        *(text(b"labels") + b"q\x04", b"]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"),
        text(b"data") + b"q\x06",
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\x09"
        b"(K\x01M"
        + struct.pack("<H", len(pixels))
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0a"
        + text(b"u1")
        + b"K\x00K\x01\x87Rq\x0b"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<I", pixels.nbytes) + pixels.tobytes() + b"tb",
        text(b"filenames") + b"q\x0c",
        b"]q\x0d(" + b"".join(text(b"a_%d.png" % i) + b"r" + struct.pack("<I", 256 + i) for i in range(len(labels))) + b"e",
    ]
    return b"\x80\x02}q\x01(" + b"".join(items) + b"u."


def python3(pixels, labels, protocol, binary_keys=True):
    content = {"batch_label": b"x", "labels": labels, "data": pixels, "filenames": ["a.png"] * len(pixels), "fine": True}
    return pickle.dumps({key.encode() if binary_keys else key: value for key, value in content.items()}, protocol)


def binary(pixels, labels):
    return np.column_stack([np.array(labels, np.uint8), pixels]).tobytes()


def numpy1(data):
    """What NumPy 1 would have written: its names of two modules, with their length in protocol 4 and 5."""
    if data[2:3] == b"\x95":  # the length of all, which changes; it may be left out
        data = data[:2] + data[11:]
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + module, b"numpy.core." + module
        data = data.replace(b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old).replace(new, old)
    return data


LAYOUTS = {
    "python 2": python2,
    **{f"protocol {p}": lambda pixels, labels, p=p: python3(pixels, labels, p) for p in (2, 3, 4, 5)},
    **{f"protocol {p}, NumPy 1": lambda pixels, labels, p=p: numpy1(python3(pixels, labels, p)) for p in (2, 4, 5)},
    "text keys": lambda pixels, labels: python3(pixels, labels, 5, binary_keys=False),
}


def write_all(folder, write=python2, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*TRAIN, *TEST]):
        (folder / f"{name}{suffix}").write_bytes(write(*batch_of(number)))
    return folder


def expect_all(root):
    train, test = CIFAR10(root), CIFAR10(root, train=False)
    pixels, labels = zip(*(batch_of(number) for number in range(6)), strict=True)
    assert train.targets == [label for batch in labels[:5] for label in batch] and test.targets == labels[5]
    assert np.array_equal(train.data, np.concatenate(pixels[:5]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert np.array_equal(test.data, pixels[5].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return train, test


# -------------------------------------------------------------------------------------------------------------- layouts


@FEW
def test_the_data_set_has_what_all_data_sets_have(tmp_path):
    write_all(tmp_path)
    dataset, _ = expect_all(tmp_path)
    image, label = dataset[17]
    assert image.mode == "RGB" and np.array_equal(image, dataset.data[17])
    assert type(label) is int and label == dataset.targets[17]
    assert len(dataset) == 60 and dataset.data.shape == (60, 32, 32, 3) and dataset.data.flags.c_contiguous
    assert dataset.classes == CLASSES and dataset.class_to_idx["truck"] == 9
    images, labels = next(iter(ImageLoader(dataset, 4, num_workers=2)))
    assert images.shape == (4, 3, 32, 32) and labels.tolist() == dataset.targets[:4]


@FEW
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_way_to_pickle_a_batch_is_read(tmp_path, layout):
    write_all(tmp_path / "cifar-10-batches-py", LAYOUTS[layout])
    expect_all(tmp_path)
    pickle.loads(LAYOUTS[layout](*batch_of(0)), encoding="bytes")  # the test's own batches are what pickle reads


@FEW
def test_the_binary_version_is_read(tmp_path):
    write_all(tmp_path / "cifar-10-batches-bin", binary, ".bin")
    expect_all(tmp_path)
    expect_all(tmp_path / "cifar-10-batches-bin")


@FEW
@pytest.mark.parametrize("version, write, suffix", [("python", python2, ""), ("binary", binary, ".bin")])
def test_archives_are_read_as_published(tmp_path, version, write, suffix):
    folder = write_all(tmp_path / "made" / "cifar-10-batches", write, suffix)
    with tarfile.open(tmp_path / f"cifar-10-{version}.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches")
    expect_all(tmp_path)


@FEW
def test_an_unpacked_folder_comes_before_the_archive(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not looked at")
    write_all(tmp_path / "cifar-10-batches-bin", binary, ".bin")
    expect_all(tmp_path)


def test_a_batch_of_the_published_size_is_read(tmp_path):
    pixels, labels = batch_of(5, 10_000)
    (tmp_path / "test_batch").write_bytes(python2(pixels, labels))
    dataset = CIFAR10(tmp_path, train=False)
    assert len(dataset) == 10_000 and dataset.targets == labels
    assert np.array_equal(dataset[9_999][0], pixels[9_999].reshape(3, 32, 32).transpose(1, 2, 0))


@FEW
@pytest.mark.parametrize("protocol", [2, 4])
def test_class_names_come_from_the_meta_file(tmp_path, protocol):
    names = [f"class {i}" for i in range(10)]
    write_all(tmp_path / "py")
    (tmp_path / "py" / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in names]}, protocol))
    write_all(tmp_path / "bin", binary, ".bin")
    (tmp_path / "bin" / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    for root in ("py", "bin"):
        dataset = CIFAR10(tmp_path / root)
        assert dataset.classes == names and dataset.class_to_idx["class 3"] == 3


@FEW
def test_a_class_name_that_is_no_text_is_shown_as_well_as_can_be(tmp_path):
    write_all(tmp_path)
    names = [b"\xff", *(b"%d" % i for i in range(9))]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 4))
    assert CIFAR10(tmp_path).classes[0] == "\ufffd"


@FEW
def test_transforms_get_the_picture_and_the_label(tmp_path):
    write_all(tmp_path)
    dataset = CIFAR10(tmp_path, False, lambda picture: picture.size, lambda label: -label, download=True)
    assert dataset[-1] == ((32, 32), -dataset.targets[-1])


# --------------------------------------------------------------------------------------------------------------- errors


def test_nothing_there_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"batches must be in .*nowhere; nothing is downloaded: put cifar.* looked for"):
        CIFAR10(tmp_path / "nowhere", download=True)


@FEW
@pytest.mark.parametrize("write, suffix", [(python2, ""), (binary, ".bin")])
def test_a_missing_batch_is_named(tmp_path, write, suffix):
    (write_all(tmp_path, write, suffix) / f"data_batch_3{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"CIFAR10: data_batch_3{suffix} must be in .*, got no such file"):
        CIFAR10(tmp_path)
    assert len(CIFAR10(tmp_path, train=False)) == IMAGES


def refused(tmp_path, content, match, name="test_batch"):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=match) as caught:
        CIFAR10(tmp_path, train=False)
    assert caught.value.path == str(tmp_path / name) and caught.value.size == len(content)


PIXELS, LABELS = batch_of(0)


@FEW
@pytest.mark.parametrize(
    "content, match",
    [
        (python2(PIXELS[:-1], LABELS), "must hold 12 images, got 11"),
        (python2(np.concatenate([PIXELS, PIXELS[:1]]), LABELS), "must hold 12 images, got 13"),
        (python2(PIXELS, LABELS[:-1]), "must hold 12 labels, got 11"),
        (python2(PIXELS, [*LABELS[:-1], 10]), r"labels must be int in \[0, 10\), got 10 for image 11"),
        (python3(PIXELS, [-1, *LABELS[1:]], 4), r"labels must be int in \[0, 10\), got -1 for image 0"),
        (python3(PIXELS, ["1", *LABELS[1:]], 4), r"labels must be int in \[0, 10\), got str for image 0"),
        (python3(PIXELS, [True, *LABELS[1:]], 4), r"labels must be int in \[0, 10\), got bool for image 0"),
        (python3(PIXELS, None, 4), "labels must be a list, got NoneType"),
        (python3(PIXELS[:, :-1], LABELS, 4), r"data must be uint8 of \(12, 3072\), got uint8 of \(12, 3071\)"),
        (python3(PIXELS.astype(np.int8), LABELS, 4), r"data must be uint8 of \(12, 3072\), got Call"),
        (python3(PIXELS.reshape(-1, 3, 32, 32), LABELS, 4), r"data must be uint8 of \(12, 3072\), got Call"),
        (python3(np.asfortranarray(PIXELS), LABELS, 4), r"data must be uint8 of \(12, 3072\), got Call"),
        (python3(np.asfortranarray(PIXELS), LABELS, 5), r"data must be uint8 of \(12, 3072\), got Call"),
        (python3(PIXELS.tolist(), LABELS, 4), r"data must be uint8 of \(12, 3072\), got list"),
        (pickle.dumps({"labels": LABELS}), r"data must be uint8 of \(12, 3072\), got NoneType"),
        (pickle.dumps([PIXELS, LABELS]), "a dictionary must be pickled in it, got list"),
        (python2(PIXELS, LABELS)[:-1], "not a whole pickle, after SETITEMS"),
        (python2(PIXELS, LABELS)[:20_000], "not a whole pickle, after NEWFALSE .*expected 36864 bytes in a string4, but only"),
        (b"", "not a whole pickle, after at its end: pickle exhausted before seeing STOP"),
        (b"<html>404</html>", "not a whole pickle"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused(tmp_path, content, match):
    refused(tmp_path, content, match)


@FEW
@pytest.mark.parametrize(
    "content, match",
    [
        (binary(PIXELS, LABELS)[:-1], r"must hold 12 images of 3073 bytes, got 12.00"),
        (binary(PIXELS, LABELS) + binary(PIXELS[:1], LABELS[:1]), r"must hold 12 images of 3073 bytes, got 13.00"),
        (binary(PIXELS, [*LABELS[:-1], 10]), r"labels must be int in \[0, 10\), got 10 for image 11"),
    ],
)
def test_a_binary_file_that_is_no_batch_is_refused(tmp_path, content, match):
    refused(tmp_path, content, match, "test_batch.bin")


@FEW
@pytest.mark.parametrize(
    "names, got",
    [
        *(([b"a"] * 10, "1 in 10"), ([b"0", *(b"%d" % i for i in range(10))], "10 in 11"), ([b"a", b"b"], "2 in 2")),
        *((None, "none"), ([1] * 10, "none"), ((b"a", b"b"), "none")),
    ],
)
def test_class_names_must_be_ten(tmp_path, names, got):
    write_all(tmp_path)
    refused(
        tmp_path, pickle.dumps({b"label_names": names}), rf"must hold 10 different names of classes, got {got}$", "batches.meta"
    )


@FEW
def test_a_binary_meta_file_must_name_ten_classes(tmp_path):
    write_all(tmp_path, binary, ".bin")
    refused(tmp_path, b"airplane\n\xff\n", "must hold 10 different names of classes, got 2 in 2", "batches.meta.txt")


@FEW
def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_LARGEST_FILE", 1000)
    refused(tmp_path, bytes(1001), "must have at most 1000 bytes")


@FEW
def test_broken_archives_are_refused(tmp_path, monkeypatch):
    folder = write_all(tmp_path / "made")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "x")
    whole = archive.read_bytes()
    for content, match in [
        (whole[:5000], "not a whole gzip file"),
        (b"<html>404</html>", "not a whole gzip file: Not a gzipped file"),
        (gzip.compress(b"not a tar archive"), "not a whole tar archive"),
    ]:
        archive.write_bytes(content)
        with pytest.raises(BadFileError, match=match):
            CIFAR10(tmp_path)
    monkeypatch.setattr(cifar10, "_LARGEST_ARCHIVE", 10_000)
    archive.write_bytes(whole)
    with pytest.raises(BadFileError, match=r"must have at most 10000 bytes when unpacked"):
        CIFAR10(tmp_path)


@FEW
def test_a_sparse_file_in_an_archive_takes_no_memory(tmp_path):
    # An archive may say that a file is 2**40 zeros and store none of them.
    entry = tarfile.TarInfo("x/test_batch")
    entry.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "x/test_batch"}
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO())
    with pytest.raises(FileNotFoundError, match=r"test_batch must be in .*tar\.gz, got no such file"):
        CIFAR10(tmp_path, train=False)


@FEW
def test_a_link_in_an_archive_is_no_file(tmp_path):
    folder = write_all(tmp_path / "made")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, "x")
        entry = tarfile.TarInfo("x/batches.meta")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    assert CIFAR10(tmp_path).classes == CLASSES


@FEW
@pytest.mark.parametrize("index", [-IMAGES - 1, IMAGES])
def test_an_index_outside_is_refused(tmp_path, index):
    write_all(tmp_path)
    with pytest.raises(IndexError, match=rf"CIFAR10: index must be in \[-{IMAGES}, {IMAGES}\), got {index}"):
        CIFAR10(tmp_path, train=False)[index]


# ------------------------------------------------------------------------------------------------- nothing pickled is run


class Runs:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@FEW
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, open, pickle.loads, np.load, np.zeros, bytearray])
def test_a_call_in_a_pickle_is_refused_and_not_made(tmp_path, function, protocol):
    marker = tmp_path / "ran"
    argument = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    content = pickle.dumps({"data": Runs(function, argument), "labels": LABELS}, protocol)
    refused(tmp_path, content, r"pickle instruction \w+ at byte \d+: (names|holds more than data).*nothing of it was run")
    assert not marker.exists()


@FEW
@pytest.mark.parametrize(
    "content",
    [
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n(tR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x00\x8c\x0dnumpy ndarray\x93)R.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pos.system\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
    ],
)
def test_other_ways_to_a_call_are_refused(tmp_path, content):
    refused(tmp_path, content, r"pickle instruction \w+ at byte \d+: .*nothing of it was run")


@FEW
def test_what_numpy_would_be_asked_to_do_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "ndarray", None)
    monkeypatch.setattr(np, "dtype", None)
    content = pickletools.optimize(b"\x80\x02}U\x04datacnumpy\nndarray\nJ\xff\xff\xff\x7f\x85Rs.")
    refused(tmp_path, content, "data must be uint8 of .*, got Call")


@FEW
@pytest.mark.parametrize(
    "content, match",
    [
        (b"\x80\x02.", r"STOP at byte 2: needs something on the stack"),
        (b"\x80\x02a.", r"APPEND at byte 2: needs something"),
        (b"\x80\x02}K\x01a.", r"APPEND at byte 5: needs a list, got a dict"),
        (b"\x80\x02](K\x01a.", r"APPEND at byte 6: needs something on the stack"),  # not below the mark
        (b"\x80\x02]e.", r"APPENDS at byte 3: needs a mark"),
        (b"\x80\x02}(K\x01K\x02u.", r"SETITEMS at byte 8: needs pairs of a text and a value"),
        (b"\x80\x02}(U\x01au.", r"SETITEMS at byte 7: needs pairs of a text and a value"),
        (b"\x80\x02}]K\x02s.", r"SETITEM at byte 6: needs pairs of a text and a value"),
        (b"\x80\x02h\x05.", r"BINGET at byte 2: needs what was stored as 5, got nothing"),
        (b"\x80\x02cnumpy\nndarray\nK\x00R.", r"REDUCE at byte 19: needs a tuple, got a int"),
        (b"\x80\x02U\x01a)R.", r"REDUCE at byte 6: needs a Name, got a bytes"),
        (b"\x80\x02c_codecs\nencode\nX\x02\0\0\0\xc4\x80U\x06latin1\x86R.", r"REDUCE at byte 34: needs a text and 'latin1'"),
        (
            b"\x80\x02c_codecs\nencode\nX\x02\0\0\0\xc4\x80X\x06\0\0\0latin1\x86R.",
            r"REDUCE at byte 37: needs a text whose characters stand for bytes: 'latin-1' codec",
        ),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x04\0\0\0utf8\x86R.", r"REDUCE at byte 34: needs a text and 'latin1'"),
        (b"\x80\x02c_codecs\nencode\nU\x01aX\x06\0\0\0latin1\x86R.", r"REDUCE at byte 33: needs a text and 'latin1'"),
        (b"\x80\x02c_codecs\nencode\n)R.", r"REDUCE at byte 19: needs a text and 'latin1'"),
        (b"\x80\x02}Nb.", r"BUILD at byte 4: needs a Call, got a dict"),
        (b"\x80\x04K\x01K\x02\x93.", r"STACK_GLOBAL at byte 6: needs a str, got a int"),
        (b"\x80\x02" + b"]" * 200_000, r"EMPTY_LIST at byte \d+: a batch has at most 200000 instructions"),
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(tmp_path, content, match):
    refused(tmp_path, content, match)


@FEW
def test_one_text_turned_into_bytes_again_and_again_takes_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_LARGEST_FILE", 1000)
    once = b"h\0h\1R"  # 5 bytes that make 300
    content = b"\x80\x02c_codecs\nencode\nq\0X\x2c\1\0\0" + b"a" * 300 + b"X\x06\0\0\0latin1\x86q\1(" + once * 4 + b"t."
    refused(tmp_path, content, "makes more than 1000 bytes")


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x96", b"\x8d"])
def test_a_length_of_two_to_the_sixty_takes_no_memory(tmp_path, opcode):
    (tmp_path / "test_batch").write_bytes(b"\x80\x05" + opcode + struct.pack("<Q", 1 << 60) + b"abc.")
    with pytest.raises(BadFileError, match="but only 4 remain"):
        CIFAR10(tmp_path, train=False)


@pytest.mark.parametrize("shape", [(-12, -3072), (1 << 31, 3072), (6, 3072), (12,), (12, 3072, 1), "ab", (12.0, 3072)])
def test_an_array_whose_shape_does_not_fit_its_bytes_is_refused(shape):
    byte, data = Call("numpy dtype", ("u1", False, True)), PIXELS.tobytes()
    for call in (
        lambda shape: Call("numpy._core.numeric _frombuffer", (data, byte, shape, "C")),
        lambda shape: Call("numpy._core.multiarray _reconstruct", (), (1, shape, byte, False, data)),
    ):
        assert np.array_equal(cifar10._bytes_array(call((12, 3072))), PIXELS)
        assert cifar10._bytes_array(call(shape)) is None
        other = call((12, 3072))
        other.name = "numpy ndarray"
        assert cifar10._bytes_array(other) is None


def test_a_file_in_the_place_of_the_root(tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"CIFAR10: root must be the folder where the .* got the file .*data\.tar\.gz"):
        CIFAR10(tmp_path / "data.tar.gz")
