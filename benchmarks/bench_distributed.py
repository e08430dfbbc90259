"""AlexNet's training step by one rank and by two, and by PyTorch's DistributedDataParallel: images/s, and what of the messages
is hidden behind backward.

    python benchmarks/bench_distributed.py [--batch 128] [--repeats 3] [--only minidl-2 torch-2]

The batch is that of all ranks together. One rank has two threads, each of two ranks has one, as a machine with two cores would
be used; `minidl-1-thread` is one rank with one thread and half of the batch: what two ranks would take if messages were free.
PyTorch's ranks are connected by gloo, with the same network, local response normalisation included. Each row is a run of its
own: a warm-up step, then the median of the repeats.

`messages` is how long the sums over the ranks took in all, `waited` what backward waited for at its end, `hidden` the rest's
share. Needs mpi4py and an MPI; torch for PyTorch's row.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAYS = {  # name -> (ranks, threads of each, share of the batch)
    "minidl-1": (1, 2, 1.0),
    "minidl-1-thread": (1, 1, 0.5),
    "minidl-2": (2, 1, 1.0),
    "torch-1": (1, 2, 1.0),
    "torch-2": (2, 1, 1.0),
}
NAMES = {
    "minidl-1": "minidl, 1 rank, 2 threads",
    "minidl-1-thread": "minidl, 1 rank, 1 thread, half of the batch",
    "minidl-2": "minidl, 2 ranks, 1 thread each",
    "torch-1": "PyTorch, 1 rank, 2 threads",
    "torch-2": "PyTorch, DistributedDataParallel with gloo, 2 ranks, 1 thread each",
}


def minidl_rank(batch: int, repeats: int) -> dict[str, Any]:
    """What one of minidl's ranks measures."""
    import nets
    from minidl_programs import ALEXNETS

    from minidl import distributed as dist
    from minidl import nn

    program = ALEXNETS["minidl, two towers"]()
    dist.init_process_group("mpi")
    images, labels = nets.random_images(batch)
    rank, size = dist.get_rank(), dist.get_world_size()
    inputs = program.inputs(images[rank::size].copy(order="K"), labels[rank::size])
    program.net = model = nn.parallel.DistributedDataParallel(program.net)
    program.train(*inputs)
    times, messages, waited = [], [], []
    for _ in range(repeats):
        dist.barrier()
        started = time.perf_counter()
        program.train(*inputs)
        dist.barrier()
        times.append(time.perf_counter() - started)
        messages.append(model.communicated)
        waited.append(model.waited)
    dist.destroy_process_group()
    return {"seconds": times, "messages": messages, "waited": waited, "rank": rank}


def torch_rank(batch: int, repeats: int) -> dict[str, Any]:
    """What one of PyTorch's ranks measures."""
    import nets
    import torch
    from torch_programs import ALEXNETS

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    program = ALEXNETS["PyTorch, channels_last"]()
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
        program.net = torch.nn.parallel.DistributedDataParallel(program.net)
    images, labels = nets.random_images(batch)
    inputs = program.inputs(images[rank::size], labels[rank::size])
    program.train(*inputs)
    times = []
    for _ in range(repeats):
        if size > 1:
            torch.distributed.barrier()
        started = time.perf_counter()
        program.train(*inputs)
        if size > 1:
            torch.distributed.barrier()
        times.append(time.perf_counter() - started)
    return {"seconds": times, "rank": rank}


def measure(way: str, batch: int, repeats: int) -> dict[str, Any]:
    """Start a way's ranks, and take rank 0's figures."""
    ranks, threads, part = WAYS[way]
    worker = [sys.executable, __file__, "--worker", way, "--batch", str(round(batch * part)), "--repeats", str(repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    if way.startswith("torch"):
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "WORLD_SIZE": str(ranks)}
        started = [
            subprocess.Popen(worker, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(ranks)
        ]
        output = "".join(process.communicate()[0] for process in started)
    else:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        mpiexec = shutil.which("mpiexec", path=path)
        if mpiexec is None:
            raise FileNotFoundError('bench_distributed: needs mpiexec: pip install ".[mpi]"')
        command = [mpiexec, "-n", str(ranks), *worker]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (figures,) = found
    return dict(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        rank = torch_rank if args.worker.startswith("torch") else minidl_rank
        figures = rank(args.batch, args.repeats)
        if figures["rank"] == 0:
            print(json.dumps(figures), flush=True)
        return
    from common import machine_line, print_table

    print(machine_line())
    rows = []
    for way in args.only:
        figures = measure(way, args.batch, args.repeats)
        seconds = statistics.median(figures["seconds"])
        row = [NAMES[way], f"{seconds:.2f} s", f"{round(args.batch * WAYS[way][2]) / seconds:.1f}"]
        if WAYS[way][0] > 1 and "messages" in figures:
            messages, waited = statistics.median(figures["messages"]), statistics.median(figures["waited"])
            row += [f"{messages * 1e3:.0f} ms", f"{waited * 1e3:.0f} ms", f"{1 - waited / messages:.0%}"]
        rows.append(row + [""] * (6 - len(row)))
    print_table([f"batch {args.batch}", "step", "images/s", "messages", "waited", "hidden"], rows)


if __name__ == "__main__":
    main()
