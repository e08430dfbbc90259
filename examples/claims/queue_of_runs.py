"""The queue: which runs there are, in which order, and who does which. The program of run.py.

Every claim first gets seed 0 in all of its arms, then seed 1, and so on: whenever the work stops, each claim has as many
seeds as was possible. A run that ended is never done again, whichever claim asked for it. A run that was stopped, or killed
at any moment, goes on from its checkpoint. Several processes may share the work and results folders: each run is locked by
the one that does it.
"""

import argparse
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claim import Claim, claims
from filelock import FileLock, Timeout
from guards import Signals
from networks import cost
from pictures import Pictures, cifar10, patterns, photographs
from settings import Run, Settings
from store import Results
from training import Training

from minidl import pipe

HERE = Path(__file__).parent
WORK, RESULTS = HERE / "work", HERE / "results"
SMALL_IMAGES, SMALL_PHOTOGRAPHS, SMALL_EPOCHS, SMALL_BATCH = 1280, 128, 3, 32  # of a run in its small form
STOPPED = 130  # the exit code of a program that Ctrl-C ended


# ------------------------------------------------------------------------------------------------------------ what to do


def small(settings: Settings) -> Settings:
    """The same run on a few embedded images: it shows that everything works, and nothing about the claim."""
    fewer = min(SMALL_EPOCHS, settings.epochs)
    return settings.but(
        data="small photographs" if settings.data == "photographs" else "patterns",
        images=min(settings.images, SMALL_IMAGES) if settings.images else 0,
        epochs=fewer,
        drops=(fewer - 1,) if settings.drops else (),
        test_every=1,
        batch_size=SMALL_BATCH,
    )


class Sets:
    """The data sets by the names that settings use, each read when it is first asked for.

    small : how many images the sets of small forms have, in place of CIFAR-10's and of photographs
    """

    def __init__(self, data: str | None, photos: str | None, cache: Path, small: tuple[int, int]) -> None:
        self.data, self.photos, self.cache, self.small = data, photos, cache, small
        self._read: dict[str, Pictures] = {}

    def has(self, name: str) -> bool:
        return {"cifar10": self.data, "photographs": self.photos}.get(name, "") is not None

    def __getitem__(self, name: str) -> Pictures:
        if name not in self._read:
            self._read[name] = self._open(name)
        return self._read[name]

    def _open(self, name: str) -> Pictures:
        if name == "cifar10":
            return cifar10(Path(self.data or ""), self.cache)
        if name == "photographs":
            return photographs(Path(self.photos or ""))
        small_images, small_photographs = self.small
        return patterns(small_images, 32) if name == "patterns" else patterns(small_photographs, 256)


def plan(wanted: Mapping[str, Claim], seeds: int | None, sets: Sets, form: Callable[[Settings], Settings]) -> list[Run]:
    """The runs in the order of the queue, each once. A claim whose data is not there has none.

    seeds : of every claim; None for its own number
    form  : what is made of an arm's settings before it is run
    """
    runs: dict[str, Run] = {}
    for seed in range(max((seeds or claim.seeds for claim in wanted.values()), default=0)):
        for name, claim in wanted.items():
            for arm, declared in claim.arms.items() if seed < (seeds or claim.seeds) else ():
                settings = form(declared)
                if sets.has(settings.data):
                    run = Run(settings, seed, sets[settings.data].fingerprint, f"{name}: {arm}, seed {seed}")
                    runs.setdefault(run.identity, run)
    return list(runs.values())


# ------------------------------------------------------------------------------------------------------------- doing it


@dataclass
class Worker:
    """Does runs, one after the other, as long as nobody says stop.

    tell : is told of what happens: ("images", run, amount), ("begins", run, None), ("ends", run, record)
    """

    runs: list[Run]
    sets: Mapping[str, Pictures] | Sets
    work: Path
    results: Results
    stop: Callable[[], bool]
    tell: Callable[[str, Run, Any], None]

    def go(self) -> None:
        for run in self.runs:
            if self.stop():
                return
            if run.identity not in self.results.all():
                self._try(run)

    def _try(self, run: Run) -> None:
        """Do a run, unless another process does it."""
        folder = self.work / run.identity
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                if run.identity in self.results.all():
                    return
                training = Training(run, self.sets[run.settings.data], folder)
                self.tell("begins", run, training.state["step"] * run.settings.batch_size)
                record = training.go(self.stop, lambda images: self.tell("images", run, images))
                if record is not None:
                    self.results.add(record)
                    self.tell("ends", run, record)
        except Timeout:
            return


def _child(runs: list[Run], sets: Sets, work: Path, results: Path, minutes: float | None, messages: Any, parent: int) -> None:
    """A worker in a process of its own, which ends when its parent does."""
    deadline = None if minutes is None else time.monotonic() + minutes * 60
    signals = Signals()
    with signals:

        def stop() -> bool:
            late = deadline is not None and time.monotonic() >= deadline
            return signals.received is not None or late or os.getppid() != parent

        Worker(runs, sets, work, Results(results), stop, lambda *message: messages.put(message)).go()


# -------------------------------------------------------------------------------------------------------------- progress


class Progress:
    """How far the whole is, in units of cost; a bar on a terminal, else a line for each run that begins or ends."""

    def __init__(self, runs: list[Run], images: Callable[[Run], int], finished: set[str]) -> None:
        from tqdm import tqdm

        self.cost = {run.identity: run.settings.epochs * images(run) * cost(run.settings) for run in runs}
        self.images = {run.identity: run.settings.epochs * images(run) for run in runs}
        self.seen = {run.identity: self.images[run.identity] if run.identity in finished else 0 for run in runs}
        self.runs, self.finished = len(runs), len(finished)
        done = sum(self.cost[identity] for identity in finished)
        self.bar = tqdm(
            total=sum(self.cost.values()) / 1e3,
            initial=done / 1e3,
            unit="k",
            bar_format="{percentage:3.0f}%|{bar}| {desc}, {elapsed} gone, {remaining} left",
            dynamic_ncols=True,
            smoothing=0.02,
            disable=not sys.stderr.isatty(),
        )
        self.begun = time.monotonic()
        self.here = 0.0

    def tell(self, what: str, run: Run, detail: Any) -> None:
        each = self.cost[run.identity] / self.images[run.identity]
        if what == "begins":
            self._advance(run, detail, each, here=False)
            self.bar.set_description_str(f"run {self.finished + 1} of {self.runs}", refresh=False)
            if self.bar.disable:
                at = f", at {detail / self.images[run.identity]:.0%}" if detail else ""
                print(f"begins {run.label}{at}", flush=True)
        elif what == "images":
            self._advance(run, detail, each)
        else:
            self.finished += 1
            self._advance(run, self.images[run.identity] - self.seen[run.identity], each, here=False)
            line = f"{self.finished}/{self.runs}  {run.label}: {_result(detail)}"
            print(f"{line}; {self._left()} left", flush=True) if self.bar.disable else self.bar.write(line)

    def _advance(self, run: Run, images: int, each: float, here: bool = True) -> None:
        self.seen[run.identity] += images
        self.here += images * each if here else 0
        self.bar.update(images * each / 1e3)

    def _left(self) -> str:
        left = sum(self.cost[i] * (1 - self.seen[i] / self.images[i]) for i in self.cost)
        seconds = left * (time.monotonic() - self.begun) / max(self.here, 1)
        return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"

    def close(self) -> None:
        self.bar.close()


def _result(record: dict[str, Any]) -> str:
    if record["diverged"] is not None:
        return f"diverged at step {record['diverged']}"
    errors = [f"{name.replace('_', ' ')} {value:.2%}" for name, value in record["final"].items() if name.endswith("error")]
    reached = [f"stopped at step {record['reached']}"] if record["reached"] else []
    return ", ".join([*errors, *reached, f"{record['seconds']:.0f} s"])


# ------------------------------------------------------------------------------------------------------- the command line


def main(argv: list[str] | None = None, clock: Callable[[], float] = time.monotonic) -> int:
    """0: everything asked for is done; STOPPED: something is left to do."""
    args = parse(argv)
    known = claims()
    unknown = [name for name in args.names if name not in known]
    if unknown:
        print(f"run.py: NAME must be one of {', '.join(known)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    wanted = {name: known[name] for name in args.names or known}
    embedded = args.data is None and args.photographs is None
    sets = Sets(args.data, args.photographs, args.work, (SMALL_IMAGES, SMALL_PHOTOGRAPHS))
    results = Results(args.results or (args.work / "small" if embedded else RESULTS))
    try:
        runs = plan(wanted, args.seeds or (1 if embedded else None), sets, small if embedded else lambda s: s)
    except (OSError, ValueError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    finished = {run.identity for run in runs} & set(results.all())
    progress = Progress(runs, lambda run: run.settings.images or len(sets[run.settings.data].train), finished)
    deadline = None if args.budget is None else clock() + args.budget * 60
    signals = Signals()
    with signals, pipe.going_on():

        def asked() -> bool:
            return signals.received is not None or pipe.reader_left()

        def stop() -> bool:
            return asked() or (deadline is not None and clock() >= deadline)

        if args.jobs == 1:
            Worker(runs, sets, args.work, results, stop, progress.tell).go()
        else:
            _in_processes(args, runs, sets, results, asked, progress)
    progress.close()
    left = len(runs) - len({run.identity for run in runs} & set(results.all()))
    if left:
        print(f"{left} of {len(runs)} runs are left; the same command goes on", flush=True)
    return STOPPED if left else 0


def _in_processes(
    args: argparse.Namespace, runs: list[Run], sets: Sets, results: Results, asked: Callable[[], bool], progress: Progress
) -> None:
    """`--jobs` workers; each takes the next run that no other has."""
    spawn = multiprocessing.get_context("spawn")
    messages = spawn.Queue()
    fresh = Sets(sets.data, sets.photos, sets.cache, sets.small)  # a child reads its data itself
    common = (runs, fresh, args.work, results.folder, args.budget, messages, os.getpid())
    children = [spawn.Process(target=_child, args=common) for _ in range(args.jobs)]
    for child in children:
        child.start()
    told = False
    while any(child.is_alive() for child in children):
        if asked() and not told:
            told = True
            for child in children:
                child.terminate()  # SIGTERM, which it notes: it saves, and ends
        for message in _waiting(messages, 0.5):
            progress.tell(*message)
    for message in _waiting(messages, 0.0):
        progress.tell(*message)


def _waiting(messages: Any, seconds: float) -> Iterator[Any]:
    """The messages that are there, waiting so long for the first."""
    try:
        while True:
            yield messages.get(timeout=seconds) if seconds else messages.get_nowait()
    except queue.Empty:
        return


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Run the experiments that test the AlexNet paper's claims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which claims; all if none is named")
    parser.add_argument(
        "--data", metavar="DIR", help="CIFAR-10: its batches, or train/CLASS/* and test/CLASS/*, or a tar.gz of these"
    )
    parser.add_argument("--photographs", metavar="DIR", help="a folder or tar of photographs, for the claims that need them")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each arm (default: what each claim says)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="stop after so long; the same command goes on")
    parser.add_argument("--jobs", type=int, default=1, metavar="K", help="so many runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="checkpoints; may be moved to another machine")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help=f"JSON lines (default: {RESULTS.name}/ beside this program)"
    )
    args = parser.parse_args(argv)
    for name in ("seeds", "jobs"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    return args
