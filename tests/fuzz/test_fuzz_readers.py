"""Any bytes, and any edit of a valid file, are read or refused as documented; the fuzzer's own inputs are good ones."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz_readers import TARGETS, cut, glue, try_input
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("PIL")
NEEDED = {"keras": "h5py", "onnx": "onnxruntime"}  # tests/onnx is an `onnx` too
HERE = [target for target in TARGETS if find_spec(NEEDED.get(target, "PIL"))]
SEEDS = {target: TARGETS[target].seeds() for target in HERE}
UNSIGNED = {"checkpoint": [], "packed": [1, 3], "caffe": [0]}  # a checksum that is wrong from the start; a net of one layer
FEW = settings(max_examples=60)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("target", HERE)
def test_every_seed_is_read(target, work):
    read = [try_input(target, seed, work) for seed in SEEDS[target]]
    assert [number for number, good in enumerate(read) if not good] == UNSIGNED.get(target, [])


@pytest.mark.parametrize("target", HERE)
@FEW
@given(data=st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(target, work, data):
    try_input(target, data, work)


EDITS = st.lists(st.tuples(st.integers(-400, 400), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3)


@pytest.mark.parametrize("target", HERE)
@FEW
@given(data=st.data(), edits=EDITS)
def test_an_edited_file_is_read_or_refused(target, work, data, edits):
    """Each edit puts some bytes in the place of others, near the beginning or the end, where the structure is."""
    content = data.draw(st.sampled_from(SEEDS[target]))
    for place, new, gone in edits:
        place %= max(len(content), 1)
        content = content[:place] + new + content[place + gone :]
    try_input(target, content, work)


def test_pieces_come_back():
    pieces = [b"abc", b"", bytes(300)]
    assert cut(glue(*pieces), 3) == pieces
    assert cut(b"\xff\xff1", 3) == [b"1", b"", b""]


def test_one_input_can_be_run_again(tmp_path):
    (tmp_path / "x").write_bytes(SEEDS["idx"][0])
    (tmp_path / "y").write_bytes(b"\0no idx file")
    for name, said in (("x", "read"), ("y", "refused")):
        command = [sys.executable, Path(__file__).with_name("fuzz_readers.py"), "idx", "--input", tmp_path / name]
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == f"{said}\n"
