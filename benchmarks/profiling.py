"""Where a training step of minidl goes, op by op."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from common import print_table, seconds

from minidl.optim.optimizer import Optimizer
from minidl.tensor import Function


def print_profile(step: Callable[[], object]) -> None:
    """One training step op by op."""
    step()  # warms up; the second step finds the memory of the first
    step()
    with op_times() as times:
        total = seconds(step)
    rows = [
        [name, f"{1e3 * t.forward:.1f}", f"{1e3 * t.backward:.1f}", str(t.calls), f"{t.both() / total:.1%}"]
        for name, t in sorted(times.items(), key=lambda item: -item[1].both())
    ]
    rest = total - sum(t.both() for t in times.values())
    rows.append(["the engine and the rest", f"{1e3 * rest:.1f}", "", "", f"{rest / total:.1%}"])
    print_table([f"a step of {1e3 * total:.0f} ms", "forward ms", "backward ms", "calls", "of the step"], rows)


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
