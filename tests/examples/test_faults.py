"""What a run survives: kill -9, signals and a full disk at any moment, a dead worker, changed bytes in its checkpoints.

Survives means that the run, resumed, ends bit-equal to one that nothing happened to, and that nothing half-written is left.
"""

import errno
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import run as run_module
import train
from run_checks import STEPS, TINY, assert_same_run, checkpoint, contents

from minidl.checkpoint import CheckpointError, load_checkpoint
from minidl.data import ImageFolder
from minidl.data.transforms import ORDER
from minidl.random import Generator

SAVING = [*TINY, "--steps", str(STEPS), "--save-every", "1", "--keep", "2"]  # saving takes as long as training


pytestmark = pytest.mark.usefixtures("no_curves")


class Server:
    """train.py in processes of their own; see fault_server.py."""

    def __init__(self):
        command = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )

    def run(self, *arguments, kill_after=None, **job):
        """-> the exit code, negative for a signal's number, and the points that were passed. kill_after: seconds."""
        self.process.stdin.write(json.dumps({"arguments": [str(a) for a in arguments], **job}) + "\n")
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            select.select([self.process.stdout], [], [], kill_after)  # no longer than the run lasts
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return json.loads(self.process.stdout.readline())

    def start_or_resume(self, images, out, settings=SAVING, **job):
        """As a user would after a crash: without arguments.json nothing was begun."""
        begun = (out / "arguments.json").exists()
        return self.run(*(["--resume", out] if begun else [images, *settings, "--out", out]), **job)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole(images, server, tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert server.run(images, *SAVING, "--out", out)[0] == 0
    return out


def assert_nothing_half_written(out):
    """Right after a crash: whole checkpoints, hidden temporaries, and a log with each row once."""
    folder = out / "checkpoints"
    for entry in folder.iterdir() if folder.exists() else ():
        if not re.fullmatch(r"\.step-\d{6}\.(tmp-\d+|old)|\.writable", entry.name):
            assert load_checkpoint(entry).state["step"] == int(entry.name.removeprefix("step-"))
    log = [(row["step"], "loss" in row) for row in run_module.read_log(out)]
    assert log == sorted(set(log), key=lambda row: (row[0], not row[1]))
    for name in ("arguments.json", "best.json"):
        assert not (out / name).exists() or json.loads((out / name).read_text())


def assert_ended_like(out, whole, step=STEPS):
    """The survivor: the same run, the same checkpoints, and no leftovers."""
    assert_same_run(out, whole, step)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == sorted(
        path.name for path in (whole / "checkpoints").iterdir()
    )
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


# ------------------------------------------------------------------------------------------------------- kill -9, signals


def killed_until_done(server, images, whole, out, jobs):
    """Kill each process of one run as its job says until one ends; returns how many were killed."""
    for kills, job in enumerate(jobs):
        code, _ = server.start_or_resume(images, out, **job)
        assert_nothing_half_written(out)
        if code == 0:
            assert_ended_like(out, whole)
            return kills
        assert code == -signal.SIGKILL
    raise AssertionError(f"still not done after {kills} kills")


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(server, images, whole, tmp_path):
    points = random.Random(5)
    jobs = ({"at": points.randint(1, 110)} for _ in range(40))
    assert killed_until_done(server, images, whole, tmp_path / "run", jobs) >= 4


@pytest.mark.slow
def test_100_kills_at_random_moments(server, images, whole, tmp_path):
    started = time.monotonic()
    assert server.run(images, *SAVING, "--out", tmp_path / "timed")[0] == 0
    seconds, moments, kills = time.monotonic() - started, random.Random(0), 0
    while kills < 100:
        jobs = ({"kill_after": moments.uniform(0, seconds)} for _ in range(1000))
        kills += killed_until_done(server, images, whole, tmp_path / f"run-{kills}", jobs)


@pytest.mark.parametrize(("number", "point"), [(signal.SIGTERM, 60), (signal.SIGTERM, 95), (signal.SIGINT, 71)])
def test_a_signal_ends_a_run_after_its_step(number, point, server, images, whole, tmp_path):
    code, _ = server.start_or_resume(images, tmp_path / "run", signal=number, at=point)
    assert code == 128 + number
    assert_nothing_half_written(tmp_path / "run")
    assert server.start_or_resume(images, tmp_path / "run")[0] == 0
    assert_ended_like(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_every_point(number, server, images, tmp_path):
    """From the first file of the run folder to the last, through every save and every deletion; an epoch ends in between."""
    short, last = [*TINY, "--steps", "4", "--save-every", "1", "--keep", "1"], 4
    code, points = server.run(images, *short, "--out", tmp_path / "whole")
    assert code == 0 and points > 80
    for at in range(1, points + 1):
        out = tmp_path / f"run-{at}"
        code, _ = server.start_or_resume(images, out, short, signal=number, at=at)
        assert code in (0, -number, 128 + number)
        assert_nothing_half_written(out)
        assert server.start_or_resume(images, out, short)[0] == 0
        assert_ended_like(out, tmp_path / "whole", last)
        shutil.rmtree(out)


# ------------------------------------------------------------------------------------------------------------ dead workers


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_killed_while_it_reads_an_image(workers, server, images, whole, tmp_path):
    out = tmp_path / "run"
    assert server.run(images, *SAVING, "-j", workers, "--out", out, read=28)[0] == -signal.SIGKILL
    assert_nothing_half_written(out)
    assert server.run("--resume", out)[0] == 0
    assert_ended_like(out, whole)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_worker_that_raises_ends_the_run_with_everything_saved(workers, images, whole, tmp_path, call, monkeypatch):
    read, out = ImageFolder.__getitem__, tmp_path / "run"
    bad = Generator(0, ORDER, 1).permutation(10)[8]  # of the third batch of the second epoch

    def read_or_raise(self, index):
        if "train" in str(self.root) and (out / "checkpoints" / "step-000003").exists() and index == bad:
            raise OSError(errno.EIO, "the disk of the images is broken")
        return read(self, index)

    settings = [*TINY, "--steps", STEPS, "--save-every", 100, "--keep", 2, "-j", workers]
    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "__getitem__", read_or_raise)
        code, text, errors = call(images, *settings, "--out", out)
    assert code == 2 and "the disk of the images is broken" in errors
    (saved,) = re.findall(r"^saved (\S+);", text, re.MULTILINE)
    assert load_checkpoint(saved).state["step"] == 5
    assert call("--resume", out, "--save-every", 1)[0] == 0
    assert_same_run(out, whole)


# --------------------------------------------------------------------------------------------------------------- disk full


class FullDisk:
    """From sync number `at` of training on there is no room, unless the reserve was given up; or never again."""

    def __init__(self, monkeypatch, out, at, for_good=False):
        self.reserve, self.at, self.for_good, self.syncs = out / ".reserve", at, for_good, 0
        self.fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle):
        self.syncs += self.reserve.exists()
        if self.syncs >= self.at and (self.for_good or self.reserve.exists()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fsync(handle)


def check_full_disk(at, images, whole, out, call, monkeypatch, step=None):
    """Training stops with one line, the step that it had reached is saved, and the run goes on when there is room."""
    with monkeypatch.context() as patch:
        full = FullDisk(patch, out, at)
        code, _, errors = call(images, *SAVING, "--out", out)
    assert full.syncs >= at and code == 1 and errors.count("\n") == 1
    place = re.escape(str(out))
    told = re.fullmatch(
        rf"train\.py: stopped: {place}: the disk is full; step (\d) is saved; free [\d.]+ MB, "
        rf"then continue with: python \S+ --resume {place}\n",
        errors,
    )
    assert told and load_checkpoint(checkpoint(out, int(told[1]))).state["step"] == int(told[1])
    assert step is None or int(told[1]) == step
    assert_nothing_half_written(out)
    assert not (out / ".reserve").exists()
    assert call("--resume", out)[0] == 0
    assert_ended_like(out, whole)


@pytest.mark.parametrize(("at", "step"), [(5, 1), (8, 2), (17, 3)])  # in a checkpoint, in the log, in another checkpoint
def test_a_disk_that_fills_up(at, step, images, whole, tmp_path, call, monkeypatch):
    check_full_disk(at, images, whole, tmp_path / "run", call, monkeypatch, step)


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_sync(images, whole, tmp_path, call, monkeypatch):
    with monkeypatch.context() as patch:
        counted = FullDisk(patch, tmp_path / "counted", 10**9)
        assert call(images, *SAVING, "--out", tmp_path / "counted")[0] == 0
    for at in range(5, counted.syncs + 1):  # before, the run has not begun
        check_full_disk(at, images, whole, tmp_path / f"run-{at}", call, monkeypatch)


def test_a_disk_on_which_not_even_the_reserve_helps(images, whole, tmp_path, call, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        FullDisk(patch, out, 10, for_good=True)
        code, _, errors = call(images, *SAVING, "--out", out)
    assert code == 1 and errors.count("\n") == 1
    told = re.search(rf"the disk is full; step (\d) is not saved, the last checkpoint is {out}/checkpoints/(\S+); free", errors)
    assert told and f"step-00000{int(told[1]) - 1}" == told[2]
    assert_nothing_half_written(out)
    assert call("--resume", out)[0] == 0
    assert_ended_like(out, whole)


@pytest.fixture
def small_disk(tmp_path):
    """mount(megabytes) -> a small disk of its own."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("this machine has no mount")
        if done.returncode:
            pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_that_others_fill(images, whole, small_disk, call, monkeypatch):
    disk = small_disk(16)
    out, filler = disk / "run", disk / "filler"

    def fill(trainer):
        if trainer.step == 4:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass

    step = train.Trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", lambda self, *batch: (fill(self), step(self, *batch))[1])
        code, _, errors = call(images, *SAVING, "--out", out)
    assert code == 1 and f"{out}: the disk is full; step 5 is saved; free " in errors and errors.count("\n") == 1
    assert_nothing_half_written(out)
    code, _, errors = call("--resume", out)
    assert code == 2 and f"train.py: error: {out}: " in errors and "--keep 1 needs less" in errors
    filler.unlink()
    assert call("--resume", out)[0] == 0
    assert_ended_like(out, whole)


def test_a_disk_too_small_from_the_beginning(images, small_disk, call):
    out = small_disk(8) / "run"
    code, text, errors = call(images, *SAVING, "--out", out)
    assert code == 2 and "step 1" not in text
    assert re.fullmatch(
        rf"train\.py: error: {out}: 4 checkpoints and a reserve of 2\.2 MB each need 10\.8 MB free, got 7\.\d MB; "
        r"--keep 1 needs less\n",
        errors,
    )
    assert not (out / ".reserve").exists() and not (out / "checkpoints").exists()


def test_a_disk_that_can_only_be_read(whole, small_disk, call):
    disk = small_disk(32)
    out = shutil.copytree(whole, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = contents(out)
    code, text, errors = call("--resume", out, "--steps", 9)
    assert (code, text) == (2, "") and contents(out) == before
    assert errors == f"train.py: error: {out}: files must be writable in a run folder, got: {os.strerror(errno.EROFS)}\n"
    code, text, _ = call("--resume", out, "--evaluate")
    assert code == 0 and "held out: loss " in text


# ----------------------------------------------------------------------------------------------------------- changed bytes


def flipped(file, places):
    """The file with each of these bytes changed in turn; then as it was."""
    good = file.read_bytes()
    try:
        with file.open("r+b", buffering=0) as stream:
            for place in places:
                stream.seek(place)
                stream.write(bytes([good[place] ^ 1]))
                yield place
                stream.seek(place)
                stream.write(good[place : place + 1])
    finally:
        file.write_bytes(good)


@pytest.mark.slow
def test_every_64th_byte_of_a_runs_checkpoint(copy):
    seen = 0
    for file in sorted(checkpoint(copy, STEPS).iterdir()):
        for _ in flipped(file, range(0, file.stat().st_size, 64)):
            with pytest.raises(CheckpointError):
                load_checkpoint(checkpoint(copy, STEPS))
            seen += 1
    assert seen > 15_000
    load_checkpoint(checkpoint(copy, STEPS))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_changed_bytes_are_refused_and_the_previous_checkpoint_offered(name, copy, call):
    file, previous = checkpoint(copy, STEPS) / name, checkpoint(copy, STEPS - 1)
    offer = f"; the previous whole checkpoint is {previous}: continue from it with --resume {previous}\n"
    for _ in flipped(file, [0, file.stat().st_size // 2, file.stat().st_size - 1]):
        before = contents(copy)
        code, text, errors = call("--resume", copy)
        assert (code, text) == (2, "") and errors.startswith(f"train.py: error: {file}: ") and errors.endswith(offer)
        assert {**contents(copy), Path(".lock"): b""} == {**before, Path(".lock"): b""}
