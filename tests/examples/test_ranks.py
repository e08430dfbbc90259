"""train.py by several ranks: the run of one, to rounding; the same bits with as many; and what becomes of it when one fails."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ranks as ranks_module
from image_folders import ALEXNET, make_folder
from run_checks import STEPS, TINY, assert_same_run, checkpoint, killed_after, rows

from minidl.checkpoint import load_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
import mpiexec
from rank_threads import on_ranks

SAVING = [*TINY, "--steps", STEPS, "--save-every", 1, "--keep", 99]
TRAIN = ALEXNET / "train.py"
GO_ON = r"continue with: mpiexec -n \d python \S*train.py --resume \S+"


# ------------------------------------------------------------------------------------------------- without mpiexec


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("lost", [[], [3], [0, 1, 2], [5, 9, 10]])
def test_places_are_those_that_one_rank_gives_to_what_it_could_read(size, lost):
    whole = [place for place in range(11) if place not in lost]
    seen = {}
    for rank in range(size):
        own = [place for place in range(rank, 11, size) if place not in lost]
        where = ranks_module.places(rank, size, lost, len(own)) or range(rank, 11, size)
        seen |= dict(zip(where, own, strict=True))
    assert [seen[place] for place in range(len(whole))] == whole


def test_an_error_of_one_rank_is_all_ranks_with_its_name(monkeypatch):
    monkeypatch.setattr(ranks_module.Ranks, "silence_others", lambda ranks: None)

    def run(group):
        ranks = ranks_module.Ranks(group, 10)

        def open_images():
            if group.rank == 1:
                raise FileNotFoundError("x.png: is not there")
            return group.rank

        with pytest.raises(Exception, match=r"^rank 1 on here: x.png: is not there$") as caught:
            ranks.jointly(open_images)
        assert caught.value.mendable
        with pytest.raises(ZeroDivisionError):  # on all ranks alike
            ranks.jointly(lambda: 1 / 0)
        assert ranks.jointly(lambda: group.rank) == group.rank
        return ranks.from_first(lambda: "of rank 0")

    assert on_ranks(3, run) == ["of rank 0"] * 3


def test_ranks_that_differ_are_named(monkeypatch):
    monkeypatch.setattr(ranks_module.Ranks, "silence_others", lambda ranks: None)

    def run(group):
        ranks = ranks_module.Ranks(group, 10)
        ranks.agree(arguments={"lr": 1}, program="a")
        with pytest.raises(ValueError, match=r"the same arguments, rank 2 on here has another than rank 0: lr 2 and not 1"):
            ranks.agree(arguments={"lr": 1 + (group.rank == 2), "wd": 0}, data_listing="x")
        with pytest.raises(ValueError, match=r"the same data listing, rank 1 on here has another than rank 0$"):
            ranks.agree(arguments={}, data_listing="x" * (1 + group.rank))

    on_ranks(3, run)


@pytest.mark.parametrize(
    "names, own",
    [
        ("cuda:0,cuda:1", ["cuda:0,cuda:1", "cuda:2,cuda:3", "cuda:0,cuda:1", "cuda:4,cuda:5"]),
        ("cuda:0", ["cuda:0", "cuda:1", "cuda:0", "cuda:2"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:0", "cuda:2"]),
        ("cpu:0, cpu:1", ["cpu:0,cpu:1"] * 4),
        ("cpu", ["cpu"] * 4),
    ],
)
def test_ranks_of_a_machine_take_devices_of_their_own(names, own):
    """Ranks 0, 1 and 3 are on one machine, rank 2 on another."""

    def run(group):
        group.hosts = ["a", "a", "b", "a"]
        return ranks_module.Ranks(group, 10).own_devices(names)

    assert on_ranks(4, run) == own


# ---------------------------------------------------------------------------------------------------- with mpiexec


@pytest.fixture
def mpi():
    mpiexec.skip_without_mpi()
    before = mpiexec.shared_memory()
    yield
    assert mpiexec.shared_memory() <= before


def train(ranks, *arguments):
    return mpiexec.run(ranks, TRAIN, *arguments)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run of two ranks that nothing happened to, with all its checkpoints."""
    mpiexec.skip_without_mpi()
    out = tmp_path_factory.mktemp("whole") / "run"
    done = train(2, images, *SAVING, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1 and "2 ranks, 2 on " in done.stdout
    return out


class Ranks:
    """train.py on ranks that can be hit while they run."""

    def __init__(self, number, *arguments):
        self.process = subprocess.Popen(
            mpiexec.command(number, TRAIN, *arguments),
            env=mpiexec.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, folder, step):
        """Until that step was saved."""
        until = time.monotonic() + 100
        while not checkpoint(folder, step).exists():
            assert self.process.poll() is None and time.monotonic() < until, self.end()
            time.sleep(0.01)

    def trainers(self):
        """The processes that train, by rank: the children of those that mpiexec started."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment, parent = (path / "environ").read_bytes(), int((path / "stat").read_text().split(")")[1].split()[1])
                own = re.search(rb"PMI_RANK=(\d+)", environment)
                theirs = re.search(rb"PMI_RANK=(\d+)", Path(f"/proc/{parent}/environ").read_bytes())
                if own and theirs and self._ours(parent):
                    found[int(own[1])] = int(path.name)
            except (OSError, IndexError):
                continue
        return found

    def _ours(self, pid):
        while pid > 1:
            if pid == self.process.pid:
                return True
            pid = int(Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[1])
        return False

    def end(self):
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


def lives(pid):
    """A zombie has no command line; one that ends while it is looked at has no file any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids):
    """No process of these is left; a moment for the system to take them away."""
    until = time.monotonic() + 10
    while any(map(lives, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.mpi
def test_ranks_train_as_one_process_does(mpi, images, whole, tmp_path):
    """In float32, whose eps is 1.2e-7: sums of other orders, in 7 steps, on weights of 0.1."""
    alone = tmp_path / "alone"
    subprocess.run([sys.executable, TRAIN, images, *map(str, SAVING), "--out", alone], check=True, capture_output=True)
    one, two = (load_checkpoint(checkpoint(folder, STEPS)) for folder in (alone, whole))
    for name, values in one.model_state.items():
        np.testing.assert_allclose(two.model_state[name], values, rtol=0, atol=2e-6)
    for name in ("step", "random", "left_out"):
        assert one.state[name] == two.state[name]
    for ours, theirs in zip(rows(alone), rows(whole), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(list(theirs.values()), list(ours.values()), rtol=1e-4)


@pytest.mark.mpi
def test_a_resumed_run_is_bit_equal_with_as_many_ranks_and_goes_on_with_others(mpi, whole, tmp_path):
    out = killed_after(Path(shutil.copytree(whole, tmp_path / "run")), 4)
    other = Path(shutil.copytree(out, tmp_path / "other"))
    done = train(2, "--resume", out)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, out)
    done = train(3, "--resume", other)
    assert done.returncode == 0, done.stderr
    a, b = (load_checkpoint(checkpoint(folder, STEPS)).model_state for folder in (whole, other))
    for name, values in a.items():
        np.testing.assert_allclose(b[name], values, rtol=0, atol=2e-6)


@pytest.mark.mpi
def test_sigterm_on_any_rank_saves_once(mpi, images, tmp_path):
    out = tmp_path / "run"
    ranks = Ranks(2, images, *TINY, "--steps", 3000, "--save-every", 10, "--out", out)
    ranks.until(out, 10)
    pids = ranks.trainers()
    os.kill(pids[1], signal.SIGTERM)
    code, output, errors = ranks.end()
    assert code == 128 + signal.SIGTERM and gone(pids.values())
    assert len(re.findall(rf"saved {out}/checkpoints/step-\d+; {GO_ON}", output)) == 1, errors
    step = load_checkpoint(sorted((out / "checkpoints").iterdir())[-1]).state["step"]
    assert f"step-{step:06d}; continue" in output


def killed_and_resumed(images, out, whole, seconds, victim, number):
    """Kill a rank so long after the first checkpoint; then go on to the end."""
    ranks = Ranks(2, images, *SAVING, "--out", out)
    ranks.until(out, 1)
    pids = ranks.trainers()
    time.sleep(seconds)
    if victim in pids:
        with contextlib.suppress(ProcessLookupError):  # it was done before
            os.kill(pids[victim], number)
    code, _, errors = ranks.end()
    assert gone(pids.values())
    if code == 0:  # it was done before
        assert_same_run(whole, out)
        return
    assert len(re.findall(rf"rank {victim} on \S+ was killed by signal {number:d}", errors)) == 1, errors
    assert re.search(rf"the last checkpoint is \S+; {GO_ON}", errors), errors
    done = train(2, "--resume", out)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, out)


@pytest.mark.mpi
def test_a_rank_that_is_killed_is_named_and_the_run_goes_on_bit_equal(mpi, images, whole, tmp_path):
    killed_and_resumed(images, tmp_path / "run", whole, 0, 1, signal.SIGKILL)


HOLDING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import supervisor
supervisor.supervise()
import minidl.distributed as dist
dist.init_process_group("mpi")
if dist.get_rank() == 1:
    if os.fork() == 0:
        open(sys.argv[2])  # until somebody writes to it
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
dist.barrier()
"""


@pytest.mark.mpi
def test_a_rank_that_dies_ends_all_though_a_process_that_it_began_lives_on(mpi, tmp_path):
    program, fifo = tmp_path / "program.py", tmp_path / "fifo"
    program.write_text(HOLDING)
    os.mkfifo(fifo)
    command = mpiexec.command(2, program, TRAIN.parent, fifo)
    # files, not pipes, which the process that lives on would hold too
    with open(tmp_path / "errors", "w+") as errors:
        ranks = subprocess.Popen(command, env=mpiexec.environment(), stdout=errors, stderr=errors)
        try:
            assert ranks.wait(timeout=60) == 128 + signal.SIGKILL
        finally:
            ranks.kill()
            with open(fifo, "w"):  # the process that lives on waits for this
                pass
        errors.seek(0)
        assert re.search(r"rank 1 on \S+ was killed by signal 9 \(SIGKILL\)", errors.read())


@pytest.mark.slow
def test_20_ranks_killed_at_random_moments(mpi, images, whole, tmp_path):
    moments = random.Random(0)
    for i in range(20):
        killed_and_resumed(images, tmp_path / f"run-{i}", whole, moments.random(), moments.randrange(2), signal.SIGKILL)


@pytest.mark.mpi
def test_a_rank_that_hangs_is_named(mpi, images, tmp_path):
    out = tmp_path / "run"
    ranks = Ranks(3, images, *TINY, "--steps", 3000, "--save-every", 5, "--timeout", 2, "--out", out)
    ranks.until(out, 5)
    pids = ranks.trainers()
    os.kill(pids[1], signal.SIGSTOP)
    code, _, errors = ranks.end()
    assert code != 0 and gone(pids.values())
    assert len(re.findall(r"every rank must come within 2 s, rank 1 on \S+ did not", errors)) == 1, errors
    assert re.search(rf"the last checkpoint is \S+; {GO_ON}", errors), errors
    load_checkpoint(sorted((out / "checkpoints").glob("step-*"))[-1])


@pytest.mark.mpi
def test_an_image_that_one_rank_cannot_read_is_said_once(mpi, tmp_path):
    folder = make_folder(tmp_path / "images")
    broken = folder / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    # the first run measures the mean without it
    done = train(2, folder, *SAVING, "--on-error", "skip", "--out", tmp_path / "skipping")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "skipping")[-2]["skipped"] == 2  # in each of two epochs and a part
    shutil.copytree(killed_after(tmp_path / "skipping", 1), tmp_path / "stopping")
    done = train(2, "--resume", tmp_path / "stopping", "--on-error", "stop")
    assert done.returncode == 2
    assert len(re.findall(r"train.py: error: rank \d on \S+: .*dog/3.png", done.stderr)) == 1, done.stderr
    assert len(re.findall(rf"saved \S+; {GO_ON}", done.stdout)) == 1


@pytest.mark.mpi
def test_numbers_that_are_not_finite_are_said_once(mpi, images, tmp_path):
    done = train(2, images, *TINY, "--steps", 20, "--lr", 1e9, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert len(re.findall(r"stopped: step \d+: .* not finite|stopped: step \d+: the loss is", done.stderr)) == 1, done.stderr


@pytest.mark.mpi
def test_ranks_with_other_arguments_do_not_begin(mpi, images, tmp_path):
    one = mpiexec.command(1, TRAIN, images, *SAVING, "--out", tmp_path / "run")
    other = [*one[1:], "--lr", "0.5"]
    done = subprocess.run([*one, ":", *other], env=mpiexec.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(re.findall(r"the same arguments, rank 1 on \S+ has another than rank 0: lr 0.5 and not 0.01", done.stderr)) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.mpi
def test_what_writes_nothing_is_tried_by_rank_0_and_an_autopsy_is_refused(mpi, images):
    done = train(2, images, *TINY, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dry run: nothing was written") == 1 and "2 ranks, 2 on " in done.stdout
    done = train(2, images, "--autopsy", 1)
    assert done.returncode == 2 and done.stderr.count("error: --autopsy looks at one process") == 1


@pytest.mark.mpi
def test_scoring_is_shared_out(mpi, images, whole):
    found = [train(number, "--resume", whole, "--evaluate") for number in (1, 3)]
    scores = [json.dumps(re.findall(r"held out: .*", done.stdout)) for done in found]
    assert scores[0] == scores[1] and "of 4 images" in scores[0]
