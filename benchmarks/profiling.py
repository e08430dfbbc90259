"""Where a training step of minidl goes: op by op, and how much of it is the interpreter's.

An upper bound on the interpreter's share. Python code runs only in the thread that holds the interpreter's lock. NumPy
releases it inside its loops, copies and products. So whenever any thread is interpreting, the lock is held, and the share of
a step in which it is held is at least the interpreter's share. It is more by all that happens under the lock and is not
Python: NumPy checks arguments and prepares its loops, runs loops of up to 500 elements, draws random words, and gives the
memory of large arrays back to the system, which shows in small batches.

How the share is measured. A sampling thread sleeps for a random time, and then needs the lock. If somebody holds it, the
thread has to wait, and the kernel counts one more voluntary context switch than the one for the sleep: no clock's precision
is involved. The part of the samples that had to wait estimates the share. A thread that waits takes no samples; that time is
counted as held in full. Two standard errors are added. What a sample can miss is a lock that is released in the fraction of
a microsecond between finding it held and falling asleep; NumPy's preparations for a loop, which are counted, take longer.
"""

import random
import resource
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from common import print_table, seconds

from minidl.optim.optimizer import Optimizer
from minidl.tensor import Function

LONGEST_SLEEP = 0.5e-3


def print_profile(step: Callable[[], object], repeats: int) -> None:
    """One training step op by op, and the interpreter's share of some more."""
    step()  # warms up
    with op_times() as times:
        total = seconds(step)
    rows = [
        [name, f"{1e3 * t.forward:.1f}", f"{1e3 * t.backward:.1f}", str(t.calls), f"{t.both() / total:.1%}"]
        for name, t in sorted(times.items(), key=lambda item: -item[1].both())
    ]
    rest = total - sum(t.both() for t in times.values())
    rows.append(["the engine and the rest", f"{1e3 * rest:.1f}", "", "", f"{rest / total:.1%}"])
    print_table([f"a step of {1e3 * total:.0f} ms", "forward ms", "backward ms", "calls", "of the step"], rows)
    print(f"Upper bound on the interpreter's share of a step: {lock_share(step, repeats):.2%}\n")


# ------------------------------------------------------------------------------------------------------------ op by op


@dataclass
class OpTime:
    """Seconds in one op's forward and backward, over all of its calls."""

    forward: float = 0.0
    backward: float = 0.0
    calls: int = 0

    def both(self) -> float:
        return self.forward + self.backward

    def add_forward(self, taken: float) -> None:
        self.forward += taken
        self.calls += 1

    def add_backward(self, taken: float) -> None:
        self.backward += taken


@contextmanager
def op_times() -> Iterator[dict[str, OpTime]]:
    """Inside the block, the time in each op's forward and backward is added up, by name and output shape; the update's too."""
    times: dict[str, OpTime] = defaultdict(OpTime)
    add = {
        "forward": lambda node, _, y, taken: times[f"{node.name} {_shape(y)}"].add_forward(taken),
        "backward": lambda node, gy, _, taken: times[f"{node.name} {_shape(gy)}"].add_backward(taken),
        "step": lambda *given: times["update"].add_forward(given[-1]),
    }
    owners = [Optimizer, *_subclasses(Function)]
    originals = [(owner, name, vars(owner)[name]) for owner in owners for name in add if name in vars(owner)]
    for owner, name, method in originals:
        setattr(owner, name, _timed(method, add[name]))
    try:
        yield times
    finally:
        for owner, name, method in originals:
            setattr(owner, name, method)


def _subclasses(base: type) -> list[type]:
    return [found for child in base.__subclasses__() for found in (child, *_subclasses(child))]


def _timed(method: Callable, add: Callable) -> Callable:
    def timed(self: Any, *given: Any, **settings: Any) -> Any:
        started = time.perf_counter()
        result = method(self, *given, **settings)
        add(self, given, result, time.perf_counter() - started)
        return result

    return timed


def _shape(output: Any) -> tuple[int, ...]:
    """Of an array, or of the first of a tuple of arrays."""
    return output[0].shape if isinstance(output, tuple) else output.shape


# ------------------------------------------------------------------------------------------------- the interpreter's lock


def lock_share(step: Callable[[], object], repeats: int) -> float:
    """The share of `repeats` steps in which the interpreter's lock was held, at most: see the top of this file (Linux)."""
    samples: list[tuple[bool, float]] = []
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(samples, done))
    sampler.start()
    try:
        total = sum(seconds(step) for _ in range(repeats))
    finally:
        done.set()
        sampler.join()
    usual = statistics.median(late for waited, late in samples if not waited)
    waiting = sum(max(late - usual, 0.0) for waited, late in samples if waited) / total
    waits = sum(waited for waited, _ in samples)
    return min((waits + 2 * (waits + 1) ** 0.5) / len(samples) * (1 - waiting) + waiting, 1.0)


def _sample(samples: list[tuple[bool, float]], done: threading.Event) -> None:
    """After every sleep: did this thread have to wait for the lock, and how late was it?"""
    rng = random.Random(0)
    while not done.is_set():
        sleep = rng.uniform(0, LONGEST_SLEEP)
        before, started = _switches(), time.perf_counter()
        time.sleep(sleep)
        late, switches = time.perf_counter() - started - sleep, _switches() - before
        samples.append((switches > 1, late))


def _switches() -> int:
    """How often this thread has gone to sleep."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
