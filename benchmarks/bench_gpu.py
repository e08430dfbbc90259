"""AlexNet's training step on a GPU against PyTorch eager with cuDNN: images/s, the floor, the host's time, two contexts.

    python benchmarks/bench_gpu.py [--batch 128 1024] [--precisions highest high] [--repeats 5] [--steps 10]

minidl's nets are the one that examples/alexnet/train.py trains, in two towers on cuda:0 and cuda:1, which share the GPU where
there is one, the same layers on one device, and the two towers by train.py's own loop, but for its images. PyTorch's net is
tried in both memory formats. Both sides multiply float32 with the same precision ("high" is TF32), and PyTorch lets cuDNN
choose its fastest kernels. The batch lies on the GPU already; a training step is forward, loss, backward and the update of
SGD with momentum. A second table has the convolutions alone, by Winograd's tiles and by patches: which of them is used was
chosen by counting, not by measuring.

Each program takes `--steps` steps between two synchronisations, all programs in turn, `--repeats` times. The floor is the
larger of two times: the step's multiply-adds at the rate of a large matrix product, and the bytes that a step by patches must
read and write at the rate of a copy, both measured in the same run. Winograd's tiles take less of both, so in float32 it can be
passed. The host's time is that of launching the steps.
Needs CuPy and a GPU, and PyTorch with CUDA unless `--peers` is empty.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import nets
import numpy as np
from bench_alexnet import MACS
from common import gpu_line, in_turn, print_table, seconds
from minidl_programs import GPU_ALEXNETS

import minidl
from minidl import shapes
from minidl.device import Device
from minidl.kernels.cuda import conv2d, winograd
from minidl.kernels.cuda.gemm import gemm

KINDS = {"highest": "float32", "high": "TF32", "medium": "bfloat16 products"}
PEERS = ["contiguous", "channels_last"]


def patch_values(size: tuple[int, int, int], filters: tuple[int, int, int, int], stride: int, padding: int, groups: int) -> int:
    """The values of an image's patches."""
    around = (padding, padding)
    out = shapes.out_size("conv2d", size[:2], filters[1:3], (stride, stride), (around, around), (1, 1))
    return math.prod(out) * math.prod(filters[1:]) * groups


# Images (H, W, C), filters (O, KH, KW, C / groups), stride, padding and groups of the one-device net
CONVOLUTIONS = {
    "conv1": ((227, 227, 3), (96, 11, 11, 3), 4, 0, 1),
    "conv2": ((27, 27, 96), (256, 5, 5, 48), 1, 2, 2),
    "conv3": ((13, 13, 256), (384, 3, 3, 256), 1, 1, 1),
    "conv4": ((13, 13, 384), (384, 3, 3, 192), 1, 1, 2),
    "conv5": ((13, 13, 384), (256, 3, 3, 192), 1, 1, 2),
}

# Values that a step by patches reads or writes for each image: patches, written and read, forward and again for the weights'
# gradient, and the patches' gradients where the input needs one; activations and their gradients, about six passes in all.
PATCHES = {name: patch_values(*sizes) for name, sizes in CONVOLUTIONS.items()}
VALUES = 4 * sum(PATCHES.values()) + 2 * (sum(PATCHES.values()) - PATCHES["conv1"]) + 6 * 659_272
WEIGHTS = 5 * 60_965_224  # read, its gradient written and read, the velocity read and written, the weight written


class Rates:
    """The GPU's best rates seen: multiply-adds of a large product at the precision set, and bytes of a copy."""

    SIZE = 8192

    def __init__(self, device: Device) -> None:
        self.device, self.xp = device, device.xp
        with device.active():
            rng = np.random.default_rng(0)
            self.a = self.xp.asarray(rng.standard_normal((self.SIZE, self.SIZE), np.float32))
            self.product, self.copy = self.xp.empty_like(self.a), self.xp.empty_like(self.a)

    def measure(self) -> tuple[float, float]:
        """Multiply-adds and bytes in a second."""
        with self.device.active():
            product = self._best(lambda: gemm(self.a, self.a, self.product))
            copy = self._best(lambda: self.xp.copyto(self.copy, self.a))
        return self.SIZE**3 / product, 2 * self.a.nbytes / copy

    def _best(self, work: Callable[[], None], times: int = 10, repeats: int = 5) -> float:
        """Seconds of one, of `times` that are waited for together."""

        def waited_for() -> None:
            for _ in range(times):
                work()
            self.device.synchronize()

        waited_for()
        return min(seconds(waited_for) for _ in range(repeats)) / times


def timed(program: Any, inputs: tuple, steps: int) -> tuple[float, float]:
    """Seconds a step, and of them the host's until all are launched."""
    program.synchronize()
    launched = sum(seconds(lambda: program.train(*inputs)) for _ in range(steps))
    return (launched + seconds(program.synchronize)) / steps, launched / steps


class Convolution:
    """One of AlexNet's convolutions with its ReLU, forward and backward, on random numbers."""

    def __init__(self, name: str, batch: int, device: Device) -> None:
        size, filters, stride, padding, groups = CONVOLUTIONS[name]
        self.device, self.first = device, name == "conv1"
        self.settings = (stride, stride), ((padding, padding), (padding, padding)), (1, 1), groups
        rng = np.random.default_rng(0)
        arrays = (rng.standard_normal(shape, np.float32) for shape in ((batch, *size), filters, filters[:1]))
        self.x, self.w, self.b = map(device.asarray, arrays)

    def train(self) -> None:
        """gy is y: any values do."""
        with self.device.active():
            y = conv2d.conv2d_relu_forward(self.x, self.w, self.b, *self.settings)
            conv2d.conv2d_relu_backward(y, y, self.x, self.w, *self.settings, (not self.first, True, True))

    def synchronize(self) -> None:
        self.device.synchronize()


def compare_ways(batch: int, repeats: int, steps: int, device: Device) -> None:
    """The table of the convolutions in float32, each by tiles and by patches."""
    minidl.set_float32_matmul_precision("highest")

    def run(program: Convolution, by_tiles: bool) -> float:
        chosen = winograd.fits if by_tiles else lambda *_: False
        with mock.patch.object(winograd, "pays", lambda w_shape, stride, dilation, *_: chosen(w_shape, stride, dilation)):
            return timed(program, (), steps)[0]

    rows = []
    for name in CONVOLUTIONS:
        program = Convolution(name, batch, device)
        times = in_turn({way: partial(run, program, way == "tiles") for way in ("tiles", "patches")}, repeats)
        tiles, patches = (statistics.median(times[way]) for way in ("tiles", "patches"))
        rows.append([name, f"{1e3 * tiles:.3f}", f"{1e3 * patches:.3f}", f"{patches / tiles:.2f}"])
    print_table([f"convolution, batch {batch}, float32", "tiles ms", "patches ms", "patches / tiles"], rows)


def programs_for(peers: list[str]) -> dict[str, Callable[[], Any]]:
    """minidl's first."""
    chosen: dict[str, Callable[[], Any]] = dict(GPU_ALEXNETS)
    if peers:
        from torch_programs import gpu_alexnet

        chosen |= {f"PyTorch, {layout}": (lambda layout=layout: gpu_alexnet(layout)) for layout in peers}
    return chosen


def compare(peers: list[str], batch: int, precision: str, repeats: int, steps: int, rates: Rates) -> None:
    """The table for one batch and precision."""
    minidl.set_float32_matmul_precision(precision)
    if peers:
        import torch

        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision == "high"
        torch.backends.cudnn.benchmark = True
    data = nets.random_images(batch)
    programs = {name: make() for name, make in programs_for(peers).items()}
    runs = {name: partial(timed, program, program.inputs(*data), steps) for name, program in programs.items()}
    times = in_turn(runs, repeats)
    multiply_adds, copied = rates.measure()
    floor = max(batch * MACS["training step"] / multiply_adds, 4 * (batch * VALUES + WEIGHTS) / copied)
    step = {name: statistics.median(t for t, _ in found) for name, found in times.items()}
    host = {name: statistics.median(h for _, h in found) for name, found in times.items()}
    own = step["minidl, one device"]
    rows = [
        [name, f"{batch / t:.0f}", f"{1e3 * t:.2f}", f"{t / own:.2f}", f"{floor / t:.0%}", f"{1e3 * host[name]:.2f}"]
        for name, t in step.items()
    ]
    limit = f"{2e-12 * multiply_adds:.0f} TFLOP/s, {1e-12 * copied:.2f} TB/s"
    rows.append([f"the floor, at {limit}", f"{batch / floor:.0f}", f"{1e3 * floor:.2f}", f"{floor / own:.2f}", "", ""])
    kind = f"training step, batch {batch}, {KINDS[precision]}"
    print_table([kind, "images/s", "ms", "minidl / this", "of the floor", "host ms"], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--precisions", nargs="+", choices=list(KINDS), default=["highest", "high"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args(arguments)
    device = Device("cuda:0")
    print(gpu_line(device))
    rates = Rates(device)
    for precision in args.precisions:
        for batch in args.batch:
            compare(args.peers, batch, precision, args.repeats, args.steps, rates)
    for batch in args.batch:
        compare_ways(batch, args.repeats, args.steps, device)
    print(minidl.memory_summary())


if __name__ == "__main__":
    main()
