"""AlexNet's training step on a GPU against PyTorch eager with cuDNN: images/s, the floor, the host's time, two contexts.

    python benchmarks/bench_gpu.py [--batch 128 1024] [--precisions highest high] [--repeats 5] [--steps 10]

minidl's nets are the one that examples/alexnet/train.py trains, in two towers on cuda:0 and cuda:1, which share the GPU where
there is one, and the same layers on one device. PyTorch's net is tried in both memory formats. Both sides multiply float32 with
the same precision ("high" is TF32), and PyTorch lets cuDNN choose its fastest kernels. The batch lies on the GPU already; a
training step is forward, loss, backward and the update of SGD with momentum.

Each program takes `--steps` steps between two synchronisations, all programs in turn, `--repeats` times. The floor is the
larger of two times: the step's multiply-adds at the rate of a large matrix product, and the bytes that a step by patches must
read and write at the rate of a copy, both measured in the same run. The host's time is that of launching the steps.
Needs CuPy and a GPU, and PyTorch with CUDA unless `--peers` is empty.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import nets
import numpy as np
from bench_alexnet import MACS
from common import gpu_line, in_turn, print_table, seconds
from minidl_programs import GPU_ALEXNETS

import minidl
from minidl.device import Device
from minidl.kernels.cuda.gemm import gemm

PEERS = ["contiguous", "channels_last"]

# Values that a step by patches reads or writes for each image: patches, written and read, forward and again for the weights'
# gradient, and the patches' gradients where the input needs one; activations and their gradients, about six passes in all.
PATCHES = {
    "conv1": 55 * 55 * 363,
    "conv2": 27 * 27 * 2400,
    "conv3": 13 * 13 * 2304,
    "conv4": 13 * 13 * 3456,
    "conv5": 13 * 13 * 3456,
}
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

    def _best(self, work: Callable[[], None], repeats: int = 10) -> float:
        def waited_for() -> None:
            work()
            self.device.synchronize()

        waited_for()
        return min(seconds(waited_for) for _ in range(repeats))


def timed(program: Any, inputs: tuple, steps: int) -> tuple[float, float]:
    """Seconds a step, and of them the host's until all are launched."""
    program.synchronize()
    launched = sum(seconds(lambda: program.train(*inputs)) for _ in range(steps))
    return (launched + seconds(program.synchronize)) / steps, launched / steps


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
    kind = f"training step, batch {batch}, {'TF32' if precision == 'high' else 'float32'}"
    print_table([kind, "images/s", "ms", "minidl / this", "of the floor", "host ms"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--precisions", nargs="+", choices=["highest", "high"], default=["highest", "high"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    device = Device("cuda:0")
    print(gpu_line(device))
    rates = Rates(device)
    for precision in args.precisions:
        for batch in args.batch:
            compare(args.peers, batch, precision, args.repeats, args.steps, rates)
    print(minidl.memory_summary())


if __name__ == "__main__":
    main()
