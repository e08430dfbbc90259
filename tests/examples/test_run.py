"""run.py: files that are whole or not there, the log, and a run's checkpoints."""

import argparse
import errno
import json
import os

import numpy as np
import pytest
import run
from run import Log, list_checkpoints, read_log, write_json, write_whole

from minidl import checkpoint
from minidl.checkpoint import CheckpointError, save_checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, step):
    save_checkpoint(folder / "checkpoints" / f"step-{step:06d}", {"w": np.full(3, step)}, step=step)


@pytest.fixture
def folder(tmp_path):
    """A run folder with checkpoints of the steps 2, 10 and 1000000."""
    for step in (2, 10, 1_000_000):
        save(tmp_path, step)
    write_json(tmp_path / "arguments.json", {"arguments": {}})
    return tmp_path


# ----------------------------------------------------------------------------------------------------------- whole or not


def test_a_file_and_its_name_are_on_the_disk_before_write_whole_returns(tmp_path, monkeypatch):
    done, sync, replace = [], checkpoint.sync, os.replace
    monkeypatch.setattr(checkpoint, "sync", lambda path: (done.append(path.name), sync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and names(tmp_path) == ["a"]
    assert done == [".a.tmp", "replace", tmp_path.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_error_or_a_signal_leaves_the_old_file_and_nothing_else(failing, error, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(type(error)):
            write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


# ---------------------------------------------------------------------------------------------------------------- the log


def test_a_row_is_one_write_and_synced(tmp_path, monkeypatch):
    log, synced, fsync = Log(tmp_path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append((tmp_path / "log.jsonl").read_text()), fsync(handle)))
    log.write(step=1, loss=0.5)
    log.write(step=2, loss=0.25)
    assert synced == ['{"step": 1, "loss": 0.5}\n', '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n']


class HalfFile:
    """A file that takes only half of what is written, as a disk does that fills up."""

    def __init__(self, file):
        self.file = file
        self.tell, self.truncate, self.fileno = file.tell, file.truncate, file.fileno

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, line):
        return self.file.write(line[: len(line) // 2])


def test_a_row_that_does_not_fit_leaves_no_part_of_it(tmp_path, monkeypatch):
    log, path_open = Log(tmp_path), run.Path.open
    log.write(step=1)
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(run.Path, "open", lambda self, *mode, **how: HalfFile(path_open(self, *mode, **how)))
        log.write(step=2)
    assert caught.value.errno == errno.ENOSPC and (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'

    def fail(handle):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken"):
        patch.setattr(os, "fsync", fail)
        log.write(step=2)
    log.write(step=3)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 3]


def test_opening_the_log_drops_later_rows_and_a_cut_one(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3]
    Log(tmp_path, 2)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


# ------------------------------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_are_listed_by_step_whole_or_not(folder):
    for name in ("step-000011", "step-999999"):
        (folder / "checkpoints" / name).mkdir()
    (folder / "checkpoints" / ".step-000012.old").mkdir()  # waits to be replaced
    for other in (".step-000013.tmp-9", "my-step-000014", "step-15x", "notes"):
        (folder / "checkpoints" / other).mkdir()
    found = ["step-000002", "step-000010", "step-000011", "step-000012", "step-999999", "step-1000000"]
    assert [path.name for path in list_checkpoints(folder)] == found


def test_the_newest_is_by_number(folder):
    assert run.find_checkpoint(str(folder)).name == "step-1000000"
    given = folder / "checkpoints" / "step-000010"
    assert run.find_checkpoint(str(given)) == given and run.find_run(str(given)) == folder
    (folder / "empty").mkdir()
    write_json(folder / "empty" / "arguments.json", {"arguments": {}})
    assert run.find_checkpoint(str(folder / "empty")) is None


def damage(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")


def test_the_offer_is_the_newest_earlier_one_that_verifies(folder):
    first, second, third = list_checkpoints(folder)
    assert run.read_checkpoint(third, "take {}").state == {"step": 1_000_000}
    for path in (second, third):
        damage(path)
    with pytest.raises(CheckpointError) as caught:
        run.read_checkpoint(third, "take {}")
    assert str(caught.value).startswith(f"{third}/model.safetensors: altered: its SHA-256 must be ")
    assert str(caught.value).endswith(f"; the previous whole checkpoint is {first}: take {first}")
    with pytest.raises(CheckpointError, match=f"; the previous whole checkpoint is {first}: take"):
        run.read_checkpoint(second, "take {}")
    damage(first)
    with pytest.raises(CheckpointError, match=r"; of 2 earlier checkpoints none is whole$"):
        run.read_checkpoint(third, "take {}")


def test_the_offer_for_a_checkpoint_given_from_within(folder, monkeypatch):
    damage(folder / "checkpoints" / "step-000010")
    monkeypatch.chdir(folder / "checkpoints" / "step-000010")
    with pytest.raises(CheckpointError, match=r"; the previous whole checkpoint is .*step-000002: take"):
        run.read_checkpoint(run.find_checkpoint("."), "take {}")


def test_later_checkpoints_are_set_aside_from_the_last(folder, monkeypatch):
    moved, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: (moved.append(a.name), rename(a, b)))
    (folder / "set-aside" / "step-000010").mkdir(parents=True)
    (folder / "set-aside" / "step-000010" / "older").touch()
    aside = run.set_aside_later(folder, 2)
    assert aside == [folder / "set-aside" / "step-000010", folder / "set-aside" / "step-1000000"]
    assert moved == ["step-1000000", "step-000010"]  # a kill in between leaves no gap behind the step
    assert names(folder / "checkpoints") == ["step-000002"] and names(aside[0]) == ["model.safetensors", "state.json"]
    assert run.set_aside_later(folder, 2) == []


def test_best_json(folder):
    with pytest.raises(FileNotFoundError, match="no checkpoint was scored yet, so none is the best"):
        run.best_checkpoint(folder)
    run.write_best(folder, {"step": 10, "held_out_top1": 0.5, "held_out_loss": 1.5})
    assert run.best_checkpoint(folder) == folder / "checkpoints" / "step-000010"
    for text in ("[", "[]", "{}", '{"checkpoint": 3}'):
        (folder / "best.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"best\.json: must be the JSON that train\.py wrote, got "):
            run.best_checkpoint(folder)
    run.write_best(folder, None)
    run.write_best(folder, None)
    assert not (folder / "best.json").exists()


# ---------------------------------------------------------------------------------------------------------- command line


def line_of(error, capsys):
    with pytest.raises(SystemExit) as end, run.errors_in_one_line(argparse.ArgumentParser(prog="x.py"), []):
        raise error
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT, errno.EACCES])
def test_errors_of_the_disk_are_one_line(number, capsys):
    error = OSError(number, os.strerror(number), "/a/b")
    assert line_of(error, capsys) == f"x.py: error: [Errno {number}] {os.strerror(number)}: '/a/b'\n"


def test_what_an_error_was_about_is_told(capsys):
    error = OSError(errno.EIO, "broken")
    error.add_note("image 3, a.png")
    assert line_of(error, capsys) == f"x.py: error: [Errno {errno.EIO}] broken; image 3, a.png\n"


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "bad"), RuntimeError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")])
def test_faults_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)), run.errors_in_one_line(argparse.ArgumentParser(), []):
        raise error


def test_arguments_that_are_no_object(folder):
    for content in ("[]", "3", "{}"):
        (folder / "arguments.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"must be the JSON that train\.py wrote"):
            run.arguments_of(folder)
    assert json.loads((folder / "arguments.json").read_text()) == {}
