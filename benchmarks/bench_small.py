"""The nets and layers that people learn with, against PyTorch: a training step, and layers forward and backward.

    python benchmarks/bench_small.py [--batch 1 32 128] [--repeats 15] [--only steps layers] [--profile NET]

A step is forward, loss, backward and SGD with momentum. PyTorch runs with in-place ReLU and its fused SGD, contiguous and
channels_last, and the faster counts. Steps of a millisecond are timed many at once. A ratio above 1 means that minidl is
faster. Needs torch.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import bench_ops
import minidl_programs
import nets
import numpy as np
import torch
import torch_programs
from bench_ops import Layer
from common import in_turn, machine_line, print_table, seconds, use_threads
from profiling import print_profile

from minidl import get_num_threads, nn

TIMED = 0.05  # seconds that one timing takes at least


@dataclass
class Net:
    """A network of nets.py, and the shape of what it takes, without the batch."""

    title: str
    make: Callable[[Any], Any]
    shape: tuple[int, ...]

    def programs(self, batch: int) -> dict[str, Callable[[], None]]:
        """A training step of minidl, and of PyTorch in each memory format."""
        rng = np.random.default_rng(0)
        shape = (batch, *self.shape[1:], self.shape[0]) if len(self.shape) == 3 else (batch, *self.shape)
        data = rng.standard_normal(shape, np.float32)
        images = data.transpose(0, 3, 1, 2) if data.ndim == 4 else data
        labels = rng.integers(0, 10, batch)
        programs: dict[str, Any] = {"minidl": minidl_programs.Program(self.make(nn))}
        for layout in torch_programs.LAYOUTS if data.ndim == 4 else ["contiguous"]:
            programs[f"PyTorch, {layout}"] = torch_programs.Program(self.make(torch.nn), layout)
        return {name: partial(program.train, *program.inputs(images, labels)) for name, program in programs.items()}


NETS = {
    "80sec": Net('CIFAR net "80sec"', nets.cifar_80sec, (3, 32, 32)),
    "mnist": Net("MNIST example's net", nets.mnist, (1, 28, 28)),
    "six": Net("6 conv 3x3, 64-256 channels, 32x32", nets.six_convs, (3, 32, 32)),
    "mlp": Net("MLP 784-256-128-10", nets.mlp, (784,)),
}


def layers(n: int) -> Iterator[Layer]:
    """What these nets are made of, for a batch of n."""
    for channels, size, filters, kernel, padding in (
        *((3, 32, 32, 5, 2), (1, 28, 32, 3, 0), (32, 16, 32, 5, 2)),
        *((32, 26, 64, 3, 0), (3, 32, 64, 3, 1), (128, 16, 128, 3, 1)),
    ):
        shapes: list[tuple[int, ...]] = [(n, channels, size, size), (filters, channels, kernel, kernel), (filters,)]
        yield Layer("conv2d", shapes, {"padding": padding}, input_needs_grad=channels > 3)
    for shape in ((n, 32, 32, 32), (n, 32, 16, 16)):
        yield Layer("relu", [shape])
    yield Layer("max_pool2d", [(n, 32, 32, 32)], {"kernel_size": 3, "stride": 2, "ceil_mode": True})
    yield Layer("max_pool2d", [(n, 64, 24, 24)], {"kernel_size": 2})
    yield Layer("avg_pool2d", [(n, 32, 16, 16)], {"kernel_size": 3, "stride": 2, "ceil_mode": True})
    yield Layer("linear", [(n, 784), (256, 784), (256,)])
    yield Layer("linear", [(n, 9216), (128, 9216), (128,)])
    yield Layer("dropout", [(n, 64, 12, 12)], {"p": 0.25})
    yield Layer("cross_entropy", [(n, 10)], labels=np.arange(n) % 10)


def step_times(net: Net, batch: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a step: minidl's, and PyTorch's in the faster format."""
    programs = net.programs(batch)
    many = {name: _as_many_as_can_be_timed(program) for name, program in programs.items()}
    timed = {
        name: (lambda program=program, n=many[name]: seconds(lambda: [program() for _ in range(n)]) / n)
        for name, program in programs.items()
    }
    medians = {name: statistics.median(found) for name, found in in_turn(timed, repeats).items()}
    own = medians.pop("minidl")
    return own, min(medians.values())


def _as_many_as_can_be_timed(program: Callable[[], None]) -> int:
    """How often a program is to run, for the clock to see it."""
    program()
    return max(int(TIMED / max(seconds(program), 1e-6)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=["steps", "layers"], default=["steps", "layers"])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--profile", choices=NETS, help="show where this net's step goes instead")
    args = parser.parse_args()
    use_threads(get_num_threads())
    print(machine_line())
    if args.profile:
        for batch in args.batch:
            print(f"{NETS[args.profile].title}, batch {batch}")
            print_profile(NETS[args.profile].programs(batch)["minidl"])
        return
    if "steps" in args.only:
        steps(args.batch, args.nets, args.repeats)
    if "layers" in args.only:
        for batch in args.batch:
            rows = [bench_ops.row(layer.title, layer.programs(), args.repeats) for layer in layers(batch)]
            way = ["minidl ms", "PyTorch ms", "which", "ratio"]
            print_table([f"op, batch {batch}", *(f"{name} {cell}" for name in ("fwd", "bwd") for cell in way)], rows)


def steps(batches: list[int], names: list[str], repeats: int) -> None:
    """Images a second of both, and the ratio, for every net and batch; the geometric mean of the ratios at each batch."""
    rows, ratios = [], {batch: [] for batch in batches}
    for name in names:
        cells = [NETS[name].title]
        for batch in batches:
            own, peer = step_times(NETS[name], batch, repeats)
            ratios[batch].append(peer / own)
            cells += [f"{batch / own:,.0f}", f"{batch / peer:,.0f}", f"{peer / own:.2f}"]
        rows.append(cells)
    means = [cell for batch in batches for cell in ("", "", f"{statistics.geometric_mean(ratios[batch]):.2f}")]
    rows.append(["geometric mean", *means])
    columns = [f"{batch}: {cell}" for batch in batches for cell in ("minidl", "PyTorch", "ratio")]
    print_table(["training step, images/s, batch", *columns], rows)


if __name__ == "__main__":
    main()
