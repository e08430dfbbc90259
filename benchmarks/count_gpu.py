"""What a training step of AlexNet asks of a GPU, counted without one: launches, bytes, multiply-adds.

    python benchmarks/count_gpu.py [--batch 128] [--nets "minidl, one device"] [--kernels]

The step runs on the tests' stand-in for CuPy, whose kernels and products are only counted here: no number is computed. A launch
reads its inputs and writes its outputs, each once, whole: what caches spare and what is read twice is not known. In float32
convolutions go by Winograd's tiles, in TF32 by patches. `--kernels` says which launches move most.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import common  # before the stand-in, which imports minidl
import fake_cublas
import fake_cupy
import nets
from minidl_programs import GPU_ALEXNETS

import minidl


class Counts:
    """Of what was asked of the stand-in since `clear`."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.multiply_adds = 0

    def clear(self) -> None:
        self.launches.clear(), self.bytes.clear()
        self.multiply_adds = 0

    def add(self, name: str, moved: int) -> None:
        self.launches[name] += 1
        self.bytes[name] += moved


counts = Counts()


def install() -> None:
    """`import cupy` finds the stand-in, which counts, and computes nothing that is large."""
    sys.modules["cupy"] = fake_cupy
    fake_cublas.install(fake_cupy)
    fake_cupy._uninitialised = np.empty  # nothing is written, so no page of it is ever touched
    own = fake_cupy._launch, fake_cupy._new

    def call(function: Any, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        arrays = [a for a in args if isinstance(a, fake_cupy.ndarray)]
        counts.add(function._name, sum(a.nbytes for a in arrays))

    def new(host: Any, stream: Any) -> Any:
        counts.add("CuPy's own", np.asarray(host).nbytes)
        return own[1](host, stream)

    def launch(inputs: Any = (), outputs: Any = ()) -> Any:
        inputs, outputs = list(inputs), list(outputs)
        if outputs:  # else `new` is called, too
            counts.add("CuPy's own", sum(a._array.nbytes for a in outputs))
        counts.bytes["CuPy's own"] += sum(a._array.nbytes for a in inputs)
        return own[0](inputs, outputs)

    def gemm(handle: Any, ta: Any, tb: Any, m: int, n: int, k: int, *rest: Any) -> None:
        batch, kind = rest[-3], rest[2]
        counts.multiply_adds += m * n * k * batch
        counts.add("products", (8 if kind == fake_cublas.CUDA_R_64F else 4) * batch * (m * k + k * n + m * n))

    fake_cupy._Function.__call__ = call
    fake_cupy._new, fake_cupy._launch, fake_cublas._gemm = new, launch, gemm
    for name in ("empty", "empty_like"):
        made = getattr(fake_cupy, name)
        setattr(fake_cupy, name, uncounted(made))


def uncounted(make: Any) -> Any:
    """To ask for memory is no launch."""

    def made(*args: Any, **settings: Any) -> Any:
        launches, moved = counts.launches["CuPy's own"], counts.bytes["CuPy's own"]
        array = make(*args, **settings)
        counts.launches["CuPy's own"], counts.bytes["CuPy's own"] = launches, moved
        return array

    return made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--nets", nargs="+", choices=list(GPU_ALEXNETS), default=list(GPU_ALEXNETS))
    parser.add_argument("--kernels", action="store_true")
    args = parser.parse_args(arguments)
    install()
    rows, by_kernel = [], []
    for batch in args.batch:
        data = nets.random_images(batch)
        for precision, title in (("highest", "float32"), ("high", "TF32")):
            minidl.set_float32_matmul_precision(precision)
            for name in args.nets:
                program = GPU_ALEXNETS[name]()
                inputs = program.inputs(*data)
                for _ in range(2):  # the first makes the velocities
                    counts.clear()
                    program.train(*inputs)
                total = sum(counts.bytes.values())
                launches = sum(counts.launches.values())
                work = f"{2e-12 * counts.multiply_adds:.2f}"
                rows.append([f"batch {batch}, {title}, {name}", str(launches), f"{1e-9 * total:.1f}", work])
                by_kernel += [
                    [f"batch {batch}, {title}, {name}: {kernel}", str(counts.launches[kernel]), f"{1e-9 * moved:.2f}"]
                    for kernel, moved in counts.bytes.most_common(8)
                ]
                del program, inputs
    common.print_table(["training step", "launches", "GB", "TFLOP"], rows)
    if args.kernels:
        common.print_table(["kernel", "launches", "GB"], by_kernel)


if __name__ == "__main__":
    main()
