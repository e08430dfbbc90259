"""Two ranks on one machine, a GPU each: what goes by NCCL is right, and two ranks take the steps of one.

    python benchmarks/two_ranks.py

The ranks meet over TCP, as torchrun's variables say. It prints the largest difference of the weights from one process's.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "alexnet"))
import checkout  # noqa: F401  before minidl

import minidl
import minidl.distributed as dist
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.optim import SGD
from minidl.random import Generator

BATCH, STEPS, SECONDS = 12, 5, 60


def net(device: str) -> nn.Module:
    """In float64, with the same weights everywhere."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10)).to(device)
    generator = Generator(3)
    for p in model.parameters():
        nn.init.copy_(p, 0.2 * generator.normal(p.shape, np.float64))
    return model.to(np.float64)


def train(model: nn.Module, trained: nn.Module, device: str, part: slice) -> dict[str, np.ndarray]:
    """The weights after a few steps, each on a part of its batch."""
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        generator = Generator(9, step)
        images, labels = generator.normal((BATCH, 3, 6, 6), np.float64)[part], generator.integers(0, 10, BATCH)[part]
        optimizer.zero_grad()
        F.cross_entropy(trained(Tensor(images, device=device)), Tensor(labels, device=device)).backward()
        optimizer.step()
    return model.state_dict()


def one_rank() -> None:
    """What each of the two does. AssertionError: a number is wrong."""
    dist.init_process_group("nccl", timeout=SECONDS)
    rank = dist.get_rank()
    device = f"cuda:{dist.get_node_local_rank()}"
    x = Tensor(np.full(1000, 1.0 + rank, np.float32), device=device)
    dist.all_reduce(x)
    assert x.numpy().tolist() == [3.0] * 1000, f"rank {rank}: all_reduce"
    x = Tensor(np.full(1000, 1.0 + rank, np.float32), device=device)
    dist.broadcast(x, 1)
    assert x.numpy().tolist() == [2.0] * 1000, f"rank {rank}: broadcast"
    alone, model = net(device), net(device)
    ours = train(model, nn.parallel.DistributedDataParallel(model), device, slice(rank, None, 2))
    theirs = train(alone, alone, device, slice(None))
    worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
    assert worst < 1e-12, f"rank {rank}: weights differ by {worst:.1e} from one process's"
    if rank == 0:
        print(f"two ranks by NCCL are one: weights differ by {worst:.1e}")
    dist.destroy_process_group()


def main() -> int:
    if "RANK" in os.environ:
        minidl.manual_seed(0)
        one_rank()
        return 0
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    meeting = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [subprocess.Popen([sys.executable, __file__], env={**meeting, "RANK": str(rank)}) for rank in range(2)]
    return max(abs(rank.wait()) for rank in ranks)


if __name__ == "__main__":
    sys.exit(main())
