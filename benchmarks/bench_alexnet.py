"""AlexNet's training step and inference against PyTorch, in turn in one process: images/s, and the ratio.

    python benchmarks/bench_alexnet.py [--batch 32] [--repeats 5]

The peer is the one-device grouped net with local response normalisation, dropout and SGD with momentum, channels-last and
contiguous, whichever is faster counts. Needs torch. Both use all cores. Every repeat times each program once, in turn; medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import minidl.nn.functional as F
from minidl import no_grad
from minidl.optim import SGD

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "alexnet"))
from model import AlexNet


def minidl_programs(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], None]]:
    model = AlexNet()
    optimizer = SGD(model.parameter_groups(1e-4, 5e-4), lr=1e-4, momentum=0.9, rule="2012")

    def train() -> None:
        model.train()
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with no_grad():
            model(images)

    return {"training step": train, "inference": infer}


def torch_programs(images: np.ndarray, labels: np.ndarray, channels_last: bool) -> dict[str, Callable[[], None]]:
    import torch
    from torch import nn

    norm = nn.LocalResponseNorm
    model = nn.Sequential(
        *(nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(), norm(5, k=2), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(5, k=2), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, 1000),
    )
    memory = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=memory)
    x, y = torch.from_numpy(np.ascontiguousarray(images)).contiguous(memory_format=memory), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def train() -> None:
        model.train()
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model(x)

    return {"training step": train, "inference": infer}


def seconds(program: Callable[[], None]) -> float:
    started = time.perf_counter()
    program()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, 224, 224, 3), np.float32).transpose(0, 3, 1, 2) * 50
    labels = rng.integers(0, 1000, args.batch)
    programs = {
        "minidl": minidl_programs(images, labels),
        "PyTorch contiguous": torch_programs(images, labels, channels_last=False),
        "PyTorch channels_last": torch_programs(images, labels, channels_last=True),
    }
    print(f"{'':24}{'images/s':>16}{'minidl / peer':>16}")
    for kind in ("training step", "inference"):
        times: dict[str, list[float]] = {name: [] for name in programs}
        for repeat in range(args.repeats + 1):  # the first warms up
            for name in programs:
                t = seconds(programs[name][kind])
                if repeat:
                    times[name].append(t)
        rates = {name: args.batch / statistics.median(t) for name, t in times.items()}
        print(f"{kind}, batch {args.batch}")
        for name, rate in rates.items():
            print(f"  {name:22}{rate:16.1f}{rates['minidl'] / rate:16.2f}")


if __name__ == "__main__":
    main()
