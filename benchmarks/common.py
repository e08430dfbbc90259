"""What the benchmarks share: naming the machine, equal threads, timing programs in turn, the floor, and tables.

Machines are noisy and differ, so a time alone says little. Every benchmark times minidl and its peer in turn in one run, and
prints the ratio of their medians.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "alexnet"))
import checkout  # noqa: F401  before minidl

from minidl import Device, get_num_threads, parallel, set_num_threads

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
PAUSE = 0.05  # seconds, in which the other program's idle threads stop spinning and sleep


# ---------------------------------------------------------------------------------------------------------- the machine


def use_threads(n: int) -> None:
    """minidl, NumPy's BLAS and PyTorch (where it is imported) compute with n threads each."""
    set_num_threads(n)
    threadpool_limits(n, user_api="blas")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_line() -> str:
    """Processor, cores, threads, versions and commit, in one line."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    kernels = next((f" ({pool['architecture']})" for pool in threadpool_info() if "architecture" in pool), "")
    return (
        f"{_processor()}, {cores()} cores, {get_num_threads()} threads each; Python {platform.python_version()}, "
        f"NumPy {np.__version__} with {blas['name']} {blas['version']}{kernels}, PyTorch {_torch_version()}, "
        f"minidl at {_commit()}\n"
    )


def gpu_line(device: Device) -> str:
    """GPU, versions and commit, in one line."""
    return (
        f"{device.hardware()}; Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {_torch_version()}, "
        f"minidl at {_commit()}\n"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + (" with local changes" if _git("status", "--porcelain", "minidl") else "")
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout.strip()


# --------------------------------------------------------------------------------------------------------------- timing


def seconds(program: Callable[[], object]) -> float:
    started = time.perf_counter()
    program()
    return time.perf_counter() - started


def in_turn(
    programs: Mapping[str, Callable[[], T]], repeats: int, between: Callable[[], object] = lambda: None
) -> dict[str, list[T]]:
    """What each program returned in each of `repeats` rounds. A round runs every program once, in turn, and then `between`.

    A first round, whose results are dropped, warms up.
    """
    results: dict[str, list[T]] = {name: [] for name in programs}
    for _ in range(repeats + 1):
        for name, program in programs.items():
            time.sleep(PAUSE)
            results[name].append(program())
        between()
    return {name: found[1:] for name, found in results.items()}


def median_seconds(
    programs: Mapping[str, Callable[[], object]], repeats: int, between: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """The median time of each program, run in turn."""
    timed = {name: (lambda program=program: seconds(program)) for name, program in programs.items()}
    return {name: statistics.median(times) for name, times in in_turn(timed, repeats, between).items()}


class Sgemm:
    """The best rate at which NumPy multiplies float32 matrices here: the floor under whatever is made of such products.

    Every thread multiplies matrices of its own, 2048 x 2048, all at the same time. `measure` keeps the best rate seen: call
    it between other timings, so that it meets the same machine.
    """

    SIZE = 2048

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.a = rng.standard_normal((self.SIZE, self.SIZE), np.float32)
        self.products = np.zeros((get_num_threads(), self.SIZE, self.SIZE), np.float32)
        self.gflops = 0.0

    def measure(self) -> None:
        for _ in range(2):
            time.sleep(PAUSE)
            taken = seconds(lambda: parallel.run(self._multiply, len(self.products)))
            self.gflops = max(self.gflops, len(self.products) * 2e-9 * self.SIZE**3 / taken)

    def _multiply(self, first: int, stop: int) -> None:
        for i in range(first, stop):
            np.matmul(self.a, self.a, out=self.products[i])


# ---------------------------------------------------------------------------------------------------------------- memory


def resident_bytes() -> int:
    """The memory that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --------------------------------------------------------------------------------------------------------------- tables


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, in columns of equal width. The first column is text, the others are numbers."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (header, rule, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)
