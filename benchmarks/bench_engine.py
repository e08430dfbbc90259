"""What the autograd engine costs: microseconds an op, where the arithmetic is next to nothing, against PyTorch.

    python benchmarks/bench_engine.py [--ops 10000] [--repeats 5]

chain  y = y * c, again and again, on 1 element and on 1,000
wide   the sum of as many leaves, each of which gets a gradient
MLP    a whole training step of a network of two small layers on 8 rows: forward, loss, backward, SGD; in this row the unit is
       microseconds a step, in the column of the forward

Needs torch.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import minidl_programs
import nets
import numpy as np
import torch
import torch_programs
from common import in_turn, machine_line, print_table, seconds, use_threads

from minidl import Tensor, get_num_threads, nn

MLP_STEPS = 200  # timed at once


def minidl_leaf(size: int, requires_grad: bool) -> Tensor:
    return Tensor(np.ones(size, np.float32), requires_grad=requires_grad)


def torch_leaf(size: int, requires_grad: bool) -> torch.Tensor:
    return torch.ones(size, requires_grad=requires_grad)


LIBRARIES: dict[str, tuple[Callable[[int, bool], Any], Callable[[Any], Any]]] = {  # how to make a leaf, and a gradient
    "minidl": (minidl_leaf, lambda y: np.ones(y.shape, np.float32)),
    "PyTorch": (torch_leaf, torch.ones_like),
}


def chain(leaf: Callable[[int, bool], Any], make_gradient: Callable[[Any], Any], ops: int, size: int) -> tuple[float, float]:
    """Seconds forward and backward."""
    x, c = leaf(size, True), leaf(size, False)
    return forward_and_backward(lambda: repeated_product(x, c, ops), make_gradient)


def repeated_product(y: Any, c: Any, ops: int) -> Any:
    for _ in range(ops):
        y = y * c
    return y


def wide(leaf: Callable[[int, bool], Any], make_gradient: Callable[[Any], Any], ops: int) -> tuple[float, float]:
    """Seconds forward and backward."""
    leaves = [leaf(1, True) for _ in range(ops + 1)]
    return forward_and_backward(lambda: sum(leaves[1:], start=leaves[0]), make_gradient)


def forward_and_backward(forward: Callable[[], Any], make_gradient: Callable[[Any], Any]) -> tuple[float, float]:
    outputs: list[Any] = []
    ahead = seconds(lambda: outputs.append(forward()))
    gradient = make_gradient(outputs[0])
    return ahead, seconds(lambda: outputs[0].backward(gradient))


def both(graph: Callable[..., tuple[float, float]], *sizes: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """The same graph in both libraries."""
    return {name: partial(graph, *library, *sizes) for name, library in LIBRARIES.items()}


def mlp_steps(step: Callable[[], None]) -> tuple[float, float]:
    """Seconds of MLP_STEPS steps; nothing is counted apart as backward."""
    return seconds(lambda: [step() for _ in range(MLP_STEPS)]), 0.0


def mlp_programs() -> dict[str, Callable[[], tuple[float, float]]]:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, 64), np.float32), rng.integers(0, 10, 8)
    programs = {
        "minidl": minidl_programs.Program(nets.small_mlp(nn)),
        "PyTorch": torch_programs.Program(nets.small_mlp(torch.nn)),
    }
    return {name: partial(mlp_steps, partial(program.train, *program.inputs(*data))) for name, program in programs.items()}


def row(title: str, programs: dict[str, Callable[[], tuple[float, float]]], ops: int, repeats: int) -> Sequence[str]:
    """Microseconds an op, forward and backward, of both, and their ratios."""
    times = in_turn(programs, repeats)
    cells = [title]
    for way in (0, 1):
        own, peer = (1e6 / ops * statistics.median(pair[way] for pair in times[name]) for name in ("minidl", "PyTorch"))
        cells += [f"{own:.2f}", f"{peer:.2f}", f"{peer / own:.2f}"] if own else [""] * 3
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    use_threads(get_num_threads())
    print(machine_line())
    rows = [
        row("chain, 1 element", both(chain, args.ops, 1), args.ops, args.repeats),
        row("chain, 1,000 elements", both(chain, args.ops, 1000), args.ops, args.repeats),
        row("wide, 1 element", both(wide, args.ops), args.ops, args.repeats),
        row("MLP, a step", mlp_programs(), MLP_STEPS, args.repeats),
    ]
    columns = [f"{way} {cell}" for way in ("fwd", "bwd") for cell in ("minidl µs", "PyTorch µs", "ratio")]
    print_table(["graph", *columns], rows)


if __name__ == "__main__":
    main()
