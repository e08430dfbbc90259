"""Reading files within bounds, and the exceptions of data files."""

import gzip
import io
import pickle
import tracemalloc

import numpy as np
import pytest

from minidl.data.errors import BadFileError, BadImageError, npz_arrays, read_first


def test_an_error_says_which_file_its_size_and_the_reason(tmp_path):
    error = BadFileError(tmp_path / "a.bin", 12, "must have 13 bytes, got 12")
    assert str(error) == (
        f"BadFileError: {tmp_path / 'a.bin'} (12 bytes) does not hold what it should: must have 13 bytes, got 12"
    )
    assert (error.path, error.size, error.reason) == (str(tmp_path / "a.bin"), 12, "must have 13 bytes, got 12")
    assert str(BadImageError("b.png", 3, "cut")) == "BadImageError: b.png (3 bytes) is not a readable image: cut"


@pytest.mark.parametrize("kind", [BadFileError, BadImageError])
def test_an_error_can_be_sent_to_another_process(kind):
    error = kind("a", 1, "why")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error) and vars(copy) == vars(error)


@pytest.mark.parametrize("name", ["x", "x.gz"])
@pytest.mark.parametrize("most", [0, 1, 9, 10, 11, 1 << 60])
def test_no_more_is_read_than_asked_for(tmp_path, name, most):
    content = b"0123456789"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_first(tmp_path / name, most) == content[:most]


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_long_files_are_read_whole(tmp_path, name):
    content = bytes(range(256)) * 10_000
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    assert read_first(tmp_path / name, 1 << 60) == content
    assert read_first(tmp_path / name, 2_000_001) == content[:2_000_001]


def test_memory_is_taken_for_what_is_there(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    tracemalloc.start()
    read_first(tmp_path / "x", 1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_little_of_a_bomb_takes_little_memory(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    assert len(read_first(tmp_path / "bomb.gz", 1000)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def damaged(whole):
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the checksum
    return {"cut": whole[:-20], "no gzip": b"<html>", "checksum": bytes(flipped), "data": whole[:15] + b"\xff\xff" + whole[17:]}


@pytest.mark.parametrize("damage", ["cut", "no gzip", "checksum", "data"])
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    content = damaged(gzip.compress(bytes(range(256)) * 100))[damage]
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(BadFileError, match=r"x\.gz \(\d+ bytes\) .*: not a whole gzip file: \w") as caught:
        read_first(tmp_path / "x.gz", 1 << 60)
    assert caught.value.size == len(content)


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_a_missing_file_is_not_called_bad(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        read_first(tmp_path / name, 1)


# ------------------------------------------------------------------------------------------------------------------- npz


def npz(save=np.savez, **arrays):
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


def test_arrays_of_an_npz_file_by_name():
    arrays = npz_arrays(npz(a=np.arange(3), b=np.ones((2, 2)), c=np.zeros(1)), ["a", "b"])
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [0, 1, 2], "b": [[1, 1], [1, 1]]}


def test_a_packed_npz_file_is_not_unpacked():
    bomb = npz(np.savez_compressed, a=np.zeros(6_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"arrays must be stored as they are, got packed ones: \['a\.npy'\]"):
        npz_arrays(bomb, ["a"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_no_pickle_in_an_npz_file_is_read():
    with pytest.raises(ValueError, match="allow_pickle=False"):
        npz_arrays(npz(a=np.array([{}], dtype=object)), ["a"])
