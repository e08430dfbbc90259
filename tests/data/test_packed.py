"""PackedImages: what it reads, and that whatever else lies there is refused with a BadFileError."""

import hashlib
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.data import BadFileError, ImageLoader, PackedImages
from minidl.data.packed import index_bytes, shard_name

SHAPE = (4, 5, 3)
LABELS = [0, 0, 2, 1, 2, 2]
NAMES = [f"{'abc'[label]}/{i}.png" for i, label in enumerate(LABELS)]
SIZES = [2, 0, 3, 1]  # images of each shard; one has none, as when a block had no readable image


def drawn():
    return np.random.default_rng(0).integers(0, 256, (6, *SHAPE), np.uint8)


def write(folder, **changes):
    """Four shards with six images; returns the images."""
    folder.mkdir(exist_ok=True)
    images, shards, first = drawn(), [], 0
    for number, size in enumerate(SIZES):
        content = images[first : first + size].tobytes()
        (folder / shard_name(number)).write_bytes(content)
        shards.append((size, hashlib.sha256(content).hexdigest()))
        first += size
    about = {"shape": SHAPE, "classes": ["a", "b", "c"], "shards": shards, "labels": LABELS, "names": NAMES, **changes}
    (folder / "index.json").write_bytes(index_bytes(**about))
    return images


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def sealed(index):
    """The bytes of an index with a checksum that is right, whatever else is wrong."""
    body = (json.dumps({key: value for key, value in index.items() if key != "sha256"})[:-1] + ",\n").encode()
    return body + f'"sha256": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def bad(folder):
    """The reason that is given for refusing it."""
    with pytest.raises(BadFileError) as caught:
        PackedImages(folder)
    return caught.value.reason


# ------------------------------------------------------------------------------------------------------------ what it reads


def test_images_labels_and_names(folder):
    dataset = PackedImages(folder)
    assert len(dataset) == 6 and dataset.shape == SHAPE and dataset.root == folder
    assert dataset.classes == ["a", "b", "c"] and dataset.class_to_idx == {"a": 0, "b": 1, "c": 2}
    assert dataset.targets == LABELS and dataset.samples == list(zip(NAMES, LABELS, strict=True))
    for index, expected in enumerate(drawn()):
        image, label = dataset[index]
        assert np.array_equal(image, expected) and image.dtype == np.uint8 and label == LABELS[index] and type(label) is int


@pytest.mark.parametrize("index", [-1, 6, 100])
def test_an_index_outside(folder, index):
    with pytest.raises(IndexError) as caught:
        PackedImages(folder)[index]
    assert str(caught.value) == f"PackedImages: index must be in [0, 6), got {index}"


def test_a_shard_is_plain_bytes(folder):
    assert np.array_equal(np.memmap(folder / "images-00002.bin", np.uint8).reshape(-1, *SHAPE), drawn()[2:5])


def test_the_index_is_json_with_what_the_module_says(folder):
    index = json.loads((folder / "index.json").read_bytes())
    assert list(index) == ["format", "version", "shape", "classes", "images", "shards", "labels", "names", "sha256"]
    assert (index["format"], index["version"], index["images"], index["shape"]) == ("minidl packed images", 1, 6, [4, 5, 3])
    digest = hashlib.sha256(drawn()[2:5].tobytes()).hexdigest()
    assert index["shards"][2] == {"file": "images-00002.bin", "images": 3, "bytes": 180, "sha256": digest}


def test_no_images_at_all(tmp_path):
    write(tmp_path, labels=[], names=[], shards=[])
    assert len(PackedImages(tmp_path)) == 0


def test_names_that_are_no_utf8_or_look_like_the_index(tmp_path):
    names = ["a/\udcff.png", "sha256", 'a/"sha256": "0.png', "a/new\nline.png", "a/ü.png", ""]
    write(tmp_path, names=names)
    assert [name for name, _ in PackedImages(tmp_path).samples] == names


def test_many_threads_read_the_same_set(folder):
    dataset, wrong = PackedImages(folder), []
    start = threading.Barrier(8)

    def read(seed):
        start.wait()
        for index in np.random.default_rng(seed).integers(0, 6, 200).tolist():
            if not np.array_equal(dataset[index][0], drawn()[index]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_loader_takes_it(folder):
    (batch,) = list(ImageLoader(PackedImages(folder), 6, num_workers=2))
    assert np.array_equal(batch[0].transpose(0, 2, 3, 1), drawn()) and batch[1].tolist() == LABELS


def test_no_file_stays_open(folder):
    dataset = PackedImages(folder)
    image, _ = dataset[0]
    (folder / "images-00000.bin").unlink()
    (folder / "images-00000.bin").write_bytes(bytes(120))
    assert image.any() and not dataset[0][0].any()


# ------------------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize("name", ["index.json", "images-00002.bin"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        PackedImages(folder)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_shard_of_another_length(folder, change):
    path = folder / "images-00002.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadFileError) as caught:
        PackedImages(folder)
    assert caught.value.path == str(path) and caught.value.size == path.stat().st_size
    assert caught.value.reason == "must be a file of 180 bytes"


def test_a_shard_that_is_no_file(folder):
    (folder / "images-00001.bin").unlink()
    (folder / "images-00001.bin").symlink_to("/dev/null")
    assert bad(folder) == "must be a file of 0 bytes"


def test_a_shard_that_is_cut_short_after_opening(folder):
    dataset, path = PackedImages(folder), folder / "images-00002.bin"
    path.write_bytes(path.read_bytes()[:130])
    assert np.array_equal(dataset[3][0], drawn()[3])
    with pytest.raises(BadFileError) as caught:
        dataset[4]
    assert (caught.value.path, caught.value.size) == (str(path), 130)
    assert caught.value.reason == "image 2 must have 60 bytes, got 10"


def test_verify_finds_every_changed_byte(folder):
    dataset = PackedImages(folder)
    dataset.verify()
    for number in (0, 2, 3):
        path = folder / shard_name(number)
        good = path.read_bytes()
        for place in range(len(good)):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with pytest.raises(BadFileError, match=r"its sha256 must be [0-9a-f]{64}, got [0-9a-f]{64}") as caught:
                dataset.verify()
            assert caught.value.path == str(path)
        path.write_bytes(good)
    dataset.verify()


def test_an_index_with_a_byte_changed_or_cut_off(folder):
    path = folder / "index.json"
    good = path.read_bytes()
    for place in range(len(good) - 1):  # the last byte is the line end
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert bad(folder)
        path.write_bytes(good[:place])
        assert bad(folder)


CHECKSUM_TEXT = "the index's own sha256 must be "
WRONG = {
    "format": [
        ("tar", "format must be 'minidl packed images', got 'tar'"),
        (None, "format must be 'minidl packed images', got None"),
    ],
    "version": [(2, "version must be 1, got 2"), ([], "version must be 1, got []")],
    "shape": [
        (shape, f"shape must be [H, W, 3] with sides from 1 to 65535, got {shape!r}")
        for shape in (
            [],
            [4, 5],
            [4, 5, 4],
            [0, 5, 3],
            [4, -5, 3],
            [4, 65536, 3],
            [4.0, 5, 3],
            [True, 5, 3],
            "453",
            None,
            {"4": 5},
        )
    ],
    "classes": [
        (classes, f"classes must be a list of distinct names, at least one, got {classes!r}")
        for classes in ([], ["a", "a", "b"], ["a", 1], [None], "abc", 7, [["a"]])
    ],
    "images": [
        ("6", "images must be an integer, got '6'"),
        (5, "labels and names must be 5, got (6, 6)"),
        (-1, "labels and names must be -1, got (6, 6)"),
        (6.0, "images must be an integer, got 6.0"),
    ],
    "labels": [
        ([0, 0, 2, 1, 2, 3], "labels must be in [0, 3), got [3]"),
        ([0, 0, 2, -1, 2, 2], "labels must be in [0, 3), got [-1]"),
        ([0, 0, 2, True, 2, 2], "labels must be a list of integers, got [0, 0, 2, True, 2, 2]"),
        ([0, 0, 2, 1.0, 2, 2], "labels must be a list of integers, got [0, 0, 2, 1.0, 2, 2]"),
        ([0, 0, 2, 1, 2], "labels and names must be 6, got (5, 6)"),
        ("002122", "labels must be a list of integers, got '002122'"),
        (None, "labels must be a list of integers, got None"),
    ],
    "names": [
        (NAMES[:5], "labels and names must be 6, got (6, 5)"),
        ([1] * 6, "names must be a list of strings, got [1, 1, 1, 1, 1, 1]"),
        ("abcdef", "names must be a list of strings, got 'abcdef'"),
    ],
    "shards": [({}, "shards must be a list of objects, got {}"), ([1], "shards must be a list of objects, got [1]")],
}


@pytest.mark.parametrize(("key", "value", "text"), [(key, *case) for key, cases in WRONG.items() for case in cases])
def test_an_index_with_a_wrong_value(folder, key, value, text):
    index = json.loads((folder / "index.json").read_bytes())
    (folder / "index.json").write_bytes(sealed({**index, key: value}))
    assert bad(folder) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("file", "../images-00002.bin", "shard 2 must be {"),
        ("file", "/etc/passwd", "shard 2 must be {"),
        ("file", "images-00003.bin", "shard 2 must be {"),
        ("file", None, "shard 2 must be {"),
        ("images", -1, "shard 2: images must be an integer of at least 0, got -1"),
        ("images", 2.0, "shard 2: images must be an integer of at least 0, got 2.0"),
        ("images", True, "shard 2: images must be an integer of at least 0, got True"),
        ("images", 10**4000, "shard 2 must be "),
        ("images", 10**4299, ""),  # times the bytes of an image, it has more digits than Python prints
        ("bytes", 181, "shard 2 must be {"),
        ("bytes", 10**30, "shard 2 must be {"),
        ("sha256", "0" * 63, "shard 2: sha256 must be 64 hexadecimal digits, got '000"),
        ("sha256", "A" * 64, "shard 2: sha256 must be 64 hexadecimal digits, got 'AAA"),
        ("sha256", 7, "shard 2: sha256 must be 64 hexadecimal digits, got 7"),
        ("more", 1, "shard 2 must be {"),
    ],
)
def test_an_index_with_a_wrong_shard(folder, key, value, text):
    index = json.loads((folder / "index.json").read_bytes())
    index["shards"][2][key] = value
    (folder / "index.json").write_bytes(sealed(index))
    assert bad(folder).startswith(text)


def test_shards_with_more_or_fewer_images_than_the_index(folder):
    index = json.loads((folder / "index.json").read_bytes())
    for shards, total in ((index["shards"][:3], 5), ([*index["shards"], {**index["shards"][3], "file": shard_name(4)}], 7)):
        (folder / "index.json").write_bytes(sealed({**index, "shards": shards}))
        assert bad(folder) == f"the shards' images must be 6 together, got {total}"


def test_an_index_without_a_key_or_with_one_more(folder):
    index = json.loads((folder / "index.json").read_bytes())
    keys = "format, version, shape, classes, images, shards, labels, names, sha256"
    for key in ("shape", "names"):
        (folder / "index.json").write_bytes(sealed({k: v for k, v in index.items() if k != key}))
        assert bad(folder).startswith(f"the keys must be {keys}, got [")
    (folder / "index.json").write_bytes(sealed({"more": 1, **index}))
    assert bad(folder).startswith(f"the keys must be {keys}, got [")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"{}", b"[]", b"null", b"1", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"{" + b" " * 100],
)
def test_an_index_that_is_something_else(folder, content):
    (folder / "index.json").write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        PackedImages(folder)
    assert (caught.value.path, caught.value.size) == (str(folder / "index.json"), len(content))


@pytest.mark.parametrize(("at", "text"), [("x", CHECKSUM_TEXT), (None, CHECKSUM_TEXT), (3, CHECKSUM_TEXT)])
def test_an_index_with_another_checksum(folder, at, text):
    content = (folder / "index.json").read_bytes()
    head = content.rpartition(b'"sha256": ')[0]
    (folder / "index.json").write_bytes(head + b'"sha256": ' + json.dumps(at).encode() + b"}")
    assert bad(folder).startswith(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a", "b", "images-00000.bin"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["file", "images", "bytes", "sha256"]), inner),
    max_leaves=8,
)


@settings(max_examples=100)
@given(key=st.sampled_from(["shape", "classes", "images", "shards", "labels", "names"]), value=JSON, data=st.data())
def test_any_value_is_taken_or_refused(tmp_path_factory, key, value, data):
    """Nothing but BadFileError comes out; what is taken can be read to its end."""
    folder = tmp_path_factory.getbasetemp() / "packed-any"
    write(folder)
    index = json.loads((folder / "index.json").read_bytes())
    if key == "shards" and data.draw(st.booleans()):
        index["shards"][data.draw(st.integers(0, 3))] = value
    else:
        index[key] = value
    (folder / "index.json").write_bytes(sealed(index))
    try:
        dataset = PackedImages(folder)
    except BadFileError:
        return
    for i in range(len(dataset)):
        assert dataset[i][0].shape == dataset.shape


def test_a_large_set_opens_in_seconds(tmp_path):
    """A sixth of ImageNet's number; the shard is a hole in the file."""
    n = 200_000
    names = [f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(n)]
    write(tmp_path)
    (tmp_path / "index.json").write_bytes(
        index_bytes((1, 1, 3), [str(i) for i in range(1000)], [(n, "0" * 64)], [i % 1000 for i in range(n)], names)
    )
    with (tmp_path / shard_name(0)).open("wb") as file:
        file.truncate(3 * n)
    started = time.process_time()
    assert len(PackedImages(tmp_path)) == n
    assert time.process_time() - started < 5
