"""Checkpoints: what comes back, what is refused, and what is on the disk after every failure."""

import errno
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minidl import checkpoint
from minidl.checkpoint import CheckpointError, keep_last, latest_checkpoint, load_checkpoint, save_checkpoint
from minidl.optim import SGD, Adam
from minidl.tensor import Tensor


def model_state(offset=0):
    return {
        "features.0.weight": np.arange(offset, offset + 8, dtype=np.float32).reshape(2, 1, 2, 2),
        "features.0.bias": np.array([math.pi, offset]),
    }


def optimizer_state():
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = Tensor(np.ones(2, np.float32))
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    optimizer.step()
    return optimizer.state_dict()


def save(path, offset=0, **state):
    save_checkpoint(path, model_state(offset), optimizer_state(), step=offset, **state)


def offset_of(path):
    return load_checkpoint(path).state["step"]


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# ----------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4, 5)])
def test_arrays_come_back_bit_for_bit(tmp_path, dtype, shape):
    array = np.asarray(np.random.default_rng(0).standard_normal(shape) * 10).astype(dtype)
    save_checkpoint(tmp_path / "c", {"x": array})
    (found,) = load_checkpoint(tmp_path / "c").model_state.values()
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_nan_infinity_and_minus_zero_come_back_bit_for_bit(tmp_path):
    array = np.array([np.nan, -np.inf, -0.0, 5e-324])
    save_checkpoint(tmp_path / "c", {"x": array}, best=math.inf)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.model_state["x"].tobytes() == array.tobytes()
    assert loaded.state == {"best": math.inf}


def test_channels_last_arrays_are_stored_in_the_order_of_their_shape(tmp_path):
    memory = np.arange(120, dtype=np.float32).reshape(2, 4, 5, 3)
    array = memory.transpose(0, 3, 1, 2)
    save_checkpoint(tmp_path / "c", {"x": array})
    found = load_checkpoint(tmp_path / "c").model_state["x"]
    assert found.flags.c_contiguous and (found == array).all()


def test_loaded_arrays_can_be_written(tmp_path):
    save(tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    loaded.model_state["features.0.bias"] += 1
    shutil.rmtree(tmp_path / "c")
    assert loaded.model_state["features.0.weight"].sum() == 28


def test_state_comes_back(tmp_path):
    state = {"step": 3, "rng": {"seed": 2**64 - 1, "draws": 7}, "lr": 0.1, "names": ["a", None, True], "text": "Größe"}
    save_checkpoint(tmp_path / "c", {}, **state)
    assert load_checkpoint(str(tmp_path / "c")).state == state


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p, amsgrad=True)])
def test_an_optimizer_continues_bit_for_bit(tmp_path, make):
    start = np.random.default_rng(0).standard_normal((4, 5, 5, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    gradients = np.random.default_rng(1).standard_normal((6, *start.shape)).astype(np.float32)

    def train(p, optimizer, steps):
        for g in steps:
            p.grad = Tensor(g)
            optimizer.step()

    p = Tensor(start.copy(order="K"), requires_grad=True)
    optimizer = make([p])
    train(p, optimizer, gradients[:3])
    save_checkpoint(tmp_path / "c", {"p": p.data}, optimizer.state_dict())
    train(p, optimizer, gradients[3:])

    loaded = load_checkpoint(tmp_path / "c")
    q = Tensor(loaded.model_state["p"], requires_grad=True)
    resumed = make([q])
    resumed.load_state_dict(loaded.optimizer_state)
    train(q, resumed, gradients[3:])
    assert (p.data == q.data).all()


def test_without_optimizer_there_is_no_file_for_it(tmp_path):
    save_checkpoint(tmp_path / "c", model_state())
    assert names(tmp_path / "c") == ["model.safetensors", "state.json"]
    assert load_checkpoint(tmp_path / "c").optimizer_state is None


def test_equal_contents_give_equal_bytes(tmp_path):
    save(tmp_path / "a")
    save_checkpoint(tmp_path / "b", dict(reversed(model_state().items())), optimizer_state(), step=0)
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_state_json_is_plain_json_that_describes_the_files(tmp_path):
    save(tmp_path / "c", 4)
    content = json.loads((tmp_path / "c" / "state.json").read_text())
    assert content["format"] == "minidl checkpoint" and content["version"] == 1
    assert content["state"] == {"step": 4}
    assert content["versions"]["numpy"] == np.__version__
    assert content["files"]["model.safetensors"]["bytes"] == (tmp_path / "c" / "model.safetensors").stat().st_size


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save(tmp_path / "c")
    modes = {(tmp_path / "c" / name).stat().st_mode for name in names(tmp_path / "c")}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_parents_are_made(tmp_path):
    save(tmp_path / "runs" / "first" / "step-1", 1)
    assert offset_of(tmp_path / "runs" / "first" / "step-1") == 1


# -------------------------------------------------------------------------------------------------------------- refused


def test_every_64th_byte_flipped_in_turn_is_refused(tmp_path):
    save(tmp_path / "c", 4, history=list(range(40)))
    flipped = 0
    for name in names(tmp_path / "c"):
        file = tmp_path / "c" / name
        good = file.read_bytes()
        for i in range(0, len(good), 64):
            for bit in (0, 5):  # bit 5 turns a letter's case and a space into NUL: text that may still be JSON
                bad = bytearray(good)
                bad[i] ^= 1 << bit
                file.write_bytes(bad)
                with pytest.raises(CheckpointError):
                    load_checkpoint(tmp_path / "c")
                flipped += 1
        file.write_bytes(good)
    assert flipped > 40
    assert offset_of(tmp_path / "c") == 4


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_truncated_and_lengthened_arrays_are_refused(tmp_path, name):
    save(tmp_path / "c")
    good = (tmp_path / "c" / name).read_bytes()
    for size in (0, 1, 8, len(good) // 2, len(good) - 1, len(good) + 1):
        (tmp_path / "c" / name).write_bytes((good + b"\0")[:size])
        with pytest.raises(CheckpointError, match=f"{name}: must have {len(good)} bytes, got {size}$"):
            load_checkpoint(tmp_path / "c")


def test_a_truncated_state_is_refused(tmp_path):
    save(tmp_path / "c")
    good = (tmp_path / "c" / "state.json").read_bytes()
    for size in (0, 1, len(good) // 2, len(good) - 1):
        (tmp_path / "c" / "state.json").write_bytes(good[:size])
        with pytest.raises(CheckpointError, match=rf"state\.json: must be JSON, got {size} bytes that are not"):
            load_checkpoint(tmp_path / "c")


def test_altered_arrays_are_named_with_both_checksums(tmp_path):
    save(tmp_path / "c")
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: altered: its SHA-256 must be \w{64}, got \w{64}$"):
        load_checkpoint(tmp_path / "c")


def edit(path, **changes):
    file = path / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=1))


def test_an_edited_state_is_refused(tmp_path):
    save(tmp_path / "c", 4)
    edit(tmp_path / "c", state={"step": 5})
    with pytest.raises(CheckpointError, match=r"state\.json: altered: its \d+ bytes must have the SHA-256 that"):
        load_checkpoint(tmp_path / "c")


def test_an_unknown_format_version_is_refused(tmp_path):
    save(tmp_path / "c")
    edit(tmp_path / "c", version=2)
    with pytest.raises(CheckpointError, match=r"state\.json: its format version must be 1, got 2$"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "another"}'])
def test_json_of_something_else_is_refused(tmp_path, text):
    save(tmp_path / "c")
    (tmp_path / "c" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a checkpoint: its format must be 'minidl checkpoint', got"):
        load_checkpoint(tmp_path / "c")


def sign(path, **changes):
    """state.json with these changes (... deletes) and the checksum that belongs to them, as somebody may write it."""
    file = path / "state.json"
    content = {**json.loads(file.read_text()), **changes}
    content.pop("sha256")
    file.write_bytes(checkpoint._render({name: value for name, value in content.items() if value is not ...}))


def digest_of(file):
    return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"files": ...}, "must have files, optimizer and state, got no files"),
        ({"optimizer": ..., "state": ...}, "must have files, optimizer and state, got no optimizer and no state"),
        ({"files": []}, r"its files must be \['model.*'\], got \[\]"),
        ({"files": {"../outside": {"bytes": 0, "sha256": ""}}}, r"its files must be .*, got \{'\.\./outside'"),
        ({"files": {"model.safetensors": 3, "optimizer.safetensors": {}}}, "of model.* it must state bytes and sha256, got 3"),
        (
            {"files": {"model.safetensors": {}, "optimizer.safetensors": {}}},
            "of model.* it must state bytes and sha256, got {}",
        ),
        ({"optimizer": None}, r"its files must be \['model.safetensors'\], got"),
        ({"optimizer": [1]}, "optimizer must be an object, got list"),
        ({"state": None}, "state must be an object, got NoneType"),
        ({"state": "text"}, "state must be an object, got str"),
        ({"optimizer": {}}, r"optimizer\.safetensors must fit state\.json, got KeyError\('state'\)"),
        ({"optimizer": {"state": {"x": {}}}}, r"optimizer\.safetensors must fit state\.json, got ValueError"),
        ({"optimizer": {"state": {"0": 3}}}, r"optimizer\.safetensors must fit state\.json, got TypeError"),
        ({"optimizer": {"state": 3}}, r"optimizer\.safetensors must fit state\.json, got AttributeError"),
    ],
)
def test_a_state_of_another_shape_with_its_checksum_is_refused(tmp_path, changes, text):
    save(tmp_path / "c")
    sign(tmp_path / "c", **changes)
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"not safetensors at all"])
def test_arrays_in_another_format_with_their_checksum_are_refused(tmp_path, content):
    save_checkpoint(tmp_path / "c", {})
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(content)
    sign(tmp_path / "c", files={file.name: digest_of(file)})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: must be in the safetensors format, got "):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    "tensors",
    [
        '{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}',  # NumPy has no such type
        '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,1099511627776]}}',  # beyond the end
        '{"w":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,4]}}',
        # one on another
        '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    ],
)
def test_arrays_that_can_not_be_what_the_header_says_are_refused(tmp_path, tensors):
    save_checkpoint(tmp_path / "c", {})
    file = tmp_path / "c" / "model.safetensors"
    file.write_bytes(len(tensors).to_bytes(8, "little") + tensors.encode() + bytes(4))
    sign(tmp_path / "c", files={file.name: digest_of(file)})
    with pytest.raises(CheckpointError, match="must be in the safetensors format, got "):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '"\\ud800', "\udcff"])
def test_json_that_python_can_not_read_is_refused(tmp_path, text):
    save(tmp_path / "c")
    (tmp_path / "c" / "state.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"state\.json: must be JSON, got \d+ bytes that are not"):
        load_checkpoint(tmp_path / "c")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match="nowhere: not a checkpoint: a checkpoint is a folder, got nothing"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="file: not a checkpoint: a checkpoint is a folder, got a file"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"not a checkpoint: state\.json must be there, got \['notes.txt'\]"):
        load_checkpoint(tmp_path / "folder")


def test_a_half_written_folder_is_refused(tmp_path):
    save(tmp_path / "c")
    (tmp_path / "c" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"half-written: state\.json must be there, got \['model"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_missing_file_is_refused(tmp_path, name):
    save(tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: must be there with \d+ bytes, got no such file"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("model", "state", "text"),
    [
        ({"w": [1.0]}, {}, r"model_state\['w'\] must be a NumPy array, got list"),
        ({"w": np.zeros(2, object)}, {}, r"model_state\['w'\] must be of bool, .*, got object"),
        ({}, {"a": {"b": [0, np.float64(1)]}}, r"state\['a'\]\['b'\]\[1\] must be None, bool, .*, got float64"),
        ({}, {"a": {3: 0}}, r"the keys of state\['a'\] must be strings, got 3"),
    ],
)
def test_what_can_not_be_stored_is_refused_and_nothing_is_written(tmp_path, model, state, text):
    with pytest.raises(TypeError, match=f"^save_checkpoint: {text}"):
        save_checkpoint(tmp_path / "c", model, **state)
    assert names(tmp_path) == []


def test_only_a_checkpoint_is_replaced(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(CheckpointError, match=r"results: a folder with 0 other files .*got 1 others: \['thesis"):
        save(tmp_path / "results")
    with pytest.raises(CheckpointError, match="file: must be a folder to be replaced by a checkpoint, got a file"):
        save(tmp_path / "file")
    assert (tmp_path / "results" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["file", "results"]


# ------------------------------------------------------------------------------------------------------------- failures


class Failing:
    """Stands in for os functions and raises at call number `at`, over all of them; or `dead` from then on."""

    def __init__(self, monkeypatch, at, dead=False):
        self.calls, self.at, self.dead = 0, at, dead
        for name in ("rename", "replace", "fsync"):
            monkeypatch.setattr(checkpoint.os, name, self.wrap(getattr(os, name)))

    def wrap(self, function):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.at or (self.dead and self.calls > self.at):
                raise OSError("disk full")
            return function(*args, **kwargs)

        return call


def failing_call_count(tmp_path):
    """How many calls a save over an old checkpoint makes when none fails."""
    with pytest.MonkeyPatch.context() as patch:
        counter = Failing(patch, at=-1)
        save(tmp_path / "counted", 1)
        first = counter.calls
        save(tmp_path / "counted", 2)
        return counter.calls - first


def test_after_a_failure_at_any_call_the_old_checkpoint_is_there_and_nothing_else(tmp_path):
    calls = failing_call_count(tmp_path)
    assert calls == 7  # three files and two folders are synced, two renames
    folder = tmp_path / "runs"
    save(folder / "c", 1)
    (folder / ".c.notes").write_text("not ours")
    for at in range(1, calls + 1):
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, at)
            with pytest.raises(OSError, match="disk full"):
                save(folder / "c", 2)
        assert offset_of(folder / "c") == 1
        assert names(folder) == [".c.notes", "c"]
    save(folder / "c", 2)
    assert offset_of(folder / "c") == 2 and names(folder) == [".c.notes", "c"]


def test_after_a_failure_at_any_call_of_a_first_save_nothing_is_there(tmp_path):
    for at in range(1, failing_call_count(tmp_path)):  # one rename fewer: there is nothing to set aside
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, at)
            with pytest.raises(OSError, match="disk full"):
                save(tmp_path / "runs" / "c", 1)
        assert names(tmp_path / "runs") == []


def test_if_even_putting_back_fails_the_old_checkpoint_can_be_read_and_replaced(tmp_path):
    calls = failing_call_count(tmp_path)
    for at in range(1, calls + 1):
        folder = tmp_path / f"runs-{at}"
        save(folder / "c", 1)
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, at, dead=True)
            with pytest.raises(OSError, match="disk full"):
                save(folder / "c", 2)
        assert offset_of(folder / "c") in (1, 2)  # 2 if all but the last sync was done
        assert latest_checkpoint(folder) == folder / "c"
        save(folder / "c", 3)
        assert offset_of(folder / "c") == 3 and names(folder) == ["c"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_errors_of_the_disk_have_their_number_whoever_writes(tmp_path, monkeypatch, number):
    """safetensors reports them as text."""

    def fail(arrays, file):
        raise safetensors.SafetensorError(f"Error while serializing: I/O error: no luck (os error {number})")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError) as caught:
        save(tmp_path / "c")
    assert caught.value.errno == number and caught.value.filename.endswith("model.safetensors")
    assert names(tmp_path) == []


def test_errors_of_safetensors_that_are_not_the_disks_stay(tmp_path, monkeypatch):
    def fail(arrays, file):
        raise safetensors.SafetensorError("something else")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(safetensors.SafetensorError, match="something else"):
        save(tmp_path / "c")


def test_an_interrupt_leaves_nothing_temporary(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "c", 1)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_by_the_next_save(tmp_path):
    save(tmp_path / "c", 1)
    (tmp_path / ".c.tmp-99").mkdir()
    (tmp_path / ".c.tmp-99" / "model.safetensors").write_text("half")
    (tmp_path / ".c.tmp-mine").mkdir()
    (tmp_path / ".other.tmp-99").mkdir()
    save(tmp_path / "c", 2)
    assert names(tmp_path) == [".c.tmp-mine", ".other.tmp-99", "c"]


def test_a_checkpoint_set_aside_is_read_until_its_successor_is_in_place(tmp_path):
    save(tmp_path / "c", 1)
    os.rename(tmp_path / "c", tmp_path / ".c.old")  # killed between the two renames
    assert offset_of(tmp_path / "c") == 1
    assert latest_checkpoint(tmp_path) == tmp_path / "c"
    shutil.copytree(tmp_path / ".c.old", tmp_path / "kept")
    save(tmp_path / "c", 2)
    os.rename(tmp_path / "kept", tmp_path / ".c.old")  # killed before the old one was deleted
    assert offset_of(tmp_path / "c") == 2
    save(tmp_path / "c", 3)
    assert names(tmp_path) == ["c"]


# -------------------------------------------------------------------------------------------------------------- folders


def test_latest_is_by_step_not_by_name(tmp_path):
    for step, name in [(9, "step-9"), (10, "step-10"), (2, "zebra")]:
        save(tmp_path / name, step)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-10"


def test_latest_passes_over_what_is_not_whole(tmp_path):
    save(tmp_path / "step-1", 1)
    for name in ("no-state", "truncated", "edited", ".step-5.tmp-12"):
        save(tmp_path / name, 5)
    (tmp_path / "no-state" / "state.json").unlink()
    model = tmp_path / "truncated" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    edit(tmp_path / "edited", state={"step": 6})
    save_checkpoint(tmp_path / "no-step", {}, epoch=7)
    (tmp_path / "log.txt").write_text("")
    assert latest_checkpoint(str(tmp_path)) == tmp_path / "step-1"


def test_latest_of_nothing_is_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_keep_last_deletes_the_oldest_and_nothing_unknown(tmp_path):
    for step in (100, 20, 3):
        save(tmp_path / f"step-{step}", step)
    save(tmp_path / "annotated", 1)
    (tmp_path / "annotated" / "notes.txt").write_text("")
    save(tmp_path / "broken", 2)
    (tmp_path / "broken" / "model.safetensors").unlink()
    (tmp_path / "log.txt").write_text("")
    others = ["annotated", "broken", "log.txt"]
    assert keep_last(tmp_path, 3) == []
    assert keep_last(tmp_path, 2) == [tmp_path / "step-3"]
    assert names(tmp_path) == [*others, "step-100", "step-20"]
    assert keep_last(tmp_path, 1) == [tmp_path / "step-20"]
    assert names(tmp_path) == [*others, "step-100"]


def test_keep_last_keeps_others_beside(tmp_path, monkeypatch):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path / f"step-{step}", step)
    monkeypatch.chdir(tmp_path)
    assert keep_last(".", 1, [tmp_path / "step-2", "step-1", "step-5"]) == [Path("step-3"), Path("step-4")]
    assert names(tmp_path) == ["step-1", "step-2", "step-5"]
    assert keep_last(tmp_path, 2, ["nowhere", "step-2"]) == [tmp_path / "step-1"]


def test_leftovers_of_a_whole_folder_are_cleared(tmp_path):
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 2)
    os.rename(tmp_path / "b", tmp_path / ".b.old")  # killed between the two renames
    shutil.copytree(tmp_path / "a", tmp_path / ".a.old")  # killed before the old one was deleted
    for name in (".a.tmp-1", ".deleted.tmp-22", ".c.tmp-mine", ".notes.old.txt"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.tmp-3").write_text("not ours")
    checkpoint.clear_leftovers(tmp_path)
    assert names(tmp_path) == [".c.tmp-mine", ".file.tmp-3", ".notes.old.txt", "a", "b"]
    assert [offset_of(tmp_path / name) for name in "ab"] == [1, 2]
    checkpoint.clear_leftovers(tmp_path / "nowhere")


def test_keep_last_keeps_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep_last: k must be at least 1, got 0"):
        keep_last(tmp_path, 0)
