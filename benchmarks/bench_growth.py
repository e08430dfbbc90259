"""How a training step grows: with the batch, with threads, and over many steps.

    python benchmarks/bench_growth.py [--what batch threads steps] [--largest 256] [--batch 32] [--steps 2000] [--repeats 2]

batch    AlexNet's images/s for batches of 1, 2, 4, ... images: flat from 16 up if time is linear in the batch
threads  AlexNet's images/s at one batch for 1, 2, 4, ... threads up to the number of cores
steps    a small network's time and this process's memory in each hundred of steps: both flat

minidl in two towers and PyTorch (contiguous) in turn. Needs torch.
"""

import argparse
import statistics
from functools import partial
from typing import Any

import minidl_programs
import nets
import numpy as np
import torch
import torch_programs
from common import cores, machine_line, median_seconds, print_table, resident_bytes, seconds, use_threads

from minidl import get_num_threads, nn

OURS, THEIRS = "minidl, two towers", "PyTorch, contiguous"


def doubling(last: int) -> list[int]:
    """1, 2, 4, ... and `last`."""
    return sorted({2**i for i in range(last.bit_length())} | {last})


def alexnets() -> dict[str, Any]:
    return {OURS: minidl_programs.ALEXNETS[OURS](), THEIRS: torch_programs.ALEXNETS[THEIRS]()}


def rates(programs: dict[str, Any], batch: int, repeats: int) -> list[float]:
    """Images/s of each program's training step."""
    data = nets.random_images(batch)
    steps = {name: partial(program.train, *program.inputs(*data)) for name, program in programs.items()}
    return [batch / t for t in median_seconds(steps, repeats).values()]


def print_rates(title: str, found: dict[int, list[float]]) -> None:
    """Images/s, how they compare with the row above, and with PyTorch."""
    rows: list[list[str]] = []
    above: list[float] | None = None
    for key, (own, peer) in found.items():
        growth = ["", ""] if above is None else [f"{own / above[0]:.2f}", f"{peer / above[1]:.2f}"]
        rows.append([str(key), f"{own:.1f}", growth[0], f"{peer:.1f}", growth[1], f"{own / peer:.2f}"])
        above = [own, peer]
    columns = ["minidl images/s", "/ row above", "PyTorch images/s", "/ row above", "minidl / PyTorch"]
    print_table([title, *columns], rows)


def with_batch(largest: int, repeats: int) -> None:
    programs = alexnets()
    print_rates("batch", {batch: rates(programs, batch, repeats) for batch in doubling(largest)})


def with_threads(batch: int, repeats: int) -> None:
    programs, before = alexnets(), get_num_threads()
    found = {}
    for threads in doubling(cores()):
        use_threads(threads)
        found[threads] = rates(programs, batch, repeats)
    use_threads(before)
    print_rates(f"threads, batch {batch}", found)


def over_steps(steps: int) -> None:
    """Each hundred: the median time of a step of both networks, in turn, and the memory at its end."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((16, 3, 16, 16), np.float32), rng.integers(0, 10, 16)
    programs = [minidl_programs.Program(nets.small_convnet(nn)), torch_programs.Program(nets.small_convnet(torch.nn))]
    calls = [partial(program.train, *program.inputs(*data)) for program in programs]
    rows = []
    for hundred in range(steps // 100):
        own, peer = (hundred_steps(call) for call in calls)
        times = [f"{1e3 * own:.3f}", f"{1e3 * peer:.3f}", f"{peer / own:.2f}"]
        rows.append([str(100 * (hundred + 1)), *times, f"{resident_bytes() / 1e6:.1f}"])
    print_table(["steps", "minidl ms a step", "PyTorch ms a step", "ratio", "resident MB, both"], rows)


def hundred_steps(step: Any) -> float:
    """The median time of one."""
    return statistics.median(seconds(step) for _ in range(100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=["steps", "threads", "batch"], default=["steps", "threads", "batch"])
    parser.add_argument("--largest", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    use_threads(get_num_threads())
    print(machine_line())
    if "steps" in args.what:
        over_steps(args.steps)
    if "threads" in args.what:
        with_threads(args.batch, args.repeats)
    if "batch" in args.what:
        with_batch(args.largest, args.repeats)


if __name__ == "__main__":
    main()
