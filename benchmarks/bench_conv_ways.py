"""A convolution's backward in the four ways of minidl/study/laboratory/conv_ways.py, against the op's.

    python benchmarks/bench_conv_ways.py [--repeats 5] [--images 4]

Each gradient by itself, float32, one thread, AlexNet's layers in one tower; conv1 on a crop of 59 pixels. Beside the ways stand
the op's plain function, which is im2col on a few images at a time, and its replacement for CPUs, which AlexNet runs. The ratio
is to the im2col way, both gradients together. Loops are timed on a layer small enough for them. Products are the forward's, and
those of each gradient; einsum and transposed do some stride * stride times as many for gx, most of them with zeros.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from common import machine_line, median_seconds, print_table, use_threads

from minidl import shapes
from minidl.kernels import fastest
from minidl.ops.conv2d import conv2d_backward
from minidl.study.laboratory.conv_ways import WAYS, conv2d_backward_by

NEEDS = {"gx": (True, False, False), "gw": (False, True, False)}


class Layer(NamedTuple):
    """A square convolution: channels, image, filters and kernel."""

    title: str
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def products(self) -> int:
        """Of one image and one gradient."""
        return self.out**2 * self.filters * self.kernel**2 * self.channels


SMALL = Layer("small", 4, 12, 8, 3, padding=1)
ONE_TOWER = [
    Layer("conv1", 3, 59, 48, 11, stride=4),
    Layer("conv2", 48, 27, 128, 5, padding=2),
    Layer("conv3", 256, 13, 192, 3, padding=1),
]


def backwards(layer: Layer, images: int) -> dict[str, Callable[..., object]]:
    """Each way's backward of random arrays: call it with what is needed."""
    rng = np.random.default_rng(0)
    stride, padding = (layer.stride, layer.stride), ((layer.padding, layer.padding),) * 2
    out = shapes.out_size("conv2d", (layer.size,) * 2, (layer.kernel,) * 2, stride, padding, (1, 1))
    gy = rng.standard_normal((images, *out, layer.filters), np.float32)
    x = rng.standard_normal((images, layer.size, layer.size, layer.channels), np.float32)
    w = rng.standard_normal((layer.filters, layer.kernel, layer.kernel, layer.channels), np.float32)
    given = gy, x, w, stride, padding, (1, 1), 1
    ways = {name: partial(conv2d_backward_by, name, *given) for name in WAYS if name != "loops" or layer is SMALL}
    return {**ways, "the op, plain": partial(conv2d_backward, *given), "the op": partial(fastest(conv2d_backward, x), *given)}


def measure(layer: Layer, images: int, repeats: int) -> None:
    programs = backwards(layer, images)
    calls = {f"{name} {g}": partial(run, needs) for name, run in programs.items() for g, needs in NEEDS.items()}
    times = median_seconds(calls, repeats)
    both = {name: sum(times[f"{name} {g}"] for g in NEEDS) for name in programs}
    rows = [
        [name, *(f"{1e3 * times[f'{name} {g}']:.2f}" for g in NEEDS), f"{both[name] / both['im2col']:.2f}"] for name in programs
    ]
    size = f"{layer.channels} x {layer.size} x {layer.size}, {layer.filters} filters {layer.kernel} x {layer.kernel}"
    title = f"{layer.title}: {size}, stride {layer.stride}, {images} x {layer.products:,} products"
    print_table([title, "gx ms", "gw ms", "/ im2col"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="of AlexNet's layers; the small one has 1")
    args = parser.parse_args()
    use_threads(1)
    print(machine_line())
    measure(SMALL, 1, args.repeats)
    for layer in ONE_TOWER:
        measure(layer, args.images, args.repeats)


if __name__ == "__main__":
    main()
