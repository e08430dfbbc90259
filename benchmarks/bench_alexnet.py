"""AlexNet's training step and inference against PyTorch: images/s, the ratio, and how near each comes to the floor.

    python benchmarks/bench_alexnet.py [--batch 1 32 128] [--peers torch torch-channels-last torch-no-lrn] [--repeats 3]
    python benchmarks/bench_alexnet.py --profile [--batch 128]

minidl's network is the one that examples/alexnet/train.py trains, in two towers on two logical devices. `--nets towers merged`
also times the one-device network that the peers are. The peer without local response normalisation does less work; PyTorch
composes that layer from other ops, and this peer shows the rest. It is tried in both memory formats, and the faster counts.
A training step is forward, loss, backward and the update of SGD with momentum.

The floor is the network's multiplications and additions alone, at the best rate of NumPy's matrix product that was measured
between the rounds. `--profile` shows minidl's step op by op instead.
Needs torch, unless `--peers` is empty.
"""

import argparse
import importlib
from functools import partial
from typing import Any

import nets
from common import Sgemm, machine_line, median_seconds, print_table, use_threads
from minidl_programs import ALEXNETS
from profiling import print_profile

from minidl import get_num_threads

NETS = {"towers": "minidl, two towers", "merged": "minidl, one device"}
PEERS = {  # of the ways in which a peer is tried, the fastest counts
    "torch": ["PyTorch, contiguous"],
    "torch-channels-last": ["PyTorch, channels_last"],
    "torch-no-lrn": ["PyTorch without LRN, contiguous", "PyTorch without LRN, channels_last"],
}
MACS = {"training step": 2_067_805_248, "inference": 724_406_816}  # multiply-adds an image; conv1's input needs no gradient


def make_programs(chosen: list[str], peers: list[str]) -> dict[str, Any]:
    """The chosen programs by name, minidl's first."""
    programs: dict[str, Any] = {NETS[net]: ALEXNETS[NETS[net]]() for net in chosen}
    if peers:
        theirs = importlib.import_module("torch_programs").ALEXNETS
        programs |= {name: theirs[name]() for peer in peers for name in PEERS[peer]}
    return programs


def compare(programs: dict[str, Any], batch: int, repeats: int, sgemm: Sgemm) -> None:
    """A table for the training step and one for inference."""
    data = nets.random_images(batch)
    inputs = {name: program.inputs(*data) for name, program in programs.items()}
    for kind, macs in MACS.items():
        steps = {
            name: partial(program.train if kind == "training step" else program.infer, *inputs[name])
            for name, program in programs.items()
        }
        times = without_slower(median_seconds(steps, repeats, sgemm.measure))
        floor = batch * 2e-9 * macs / sgemm.gflops
        own = next(iter(times.values()))
        rows = [[name, f"{batch / t:.1f}", f"{t / own:.2f}", f"{floor / t:.0%}"] for name, t in times.items()]
        rows.append([f"the floor, at {sgemm.gflops:.0f} GFLOP/s", f"{batch / floor:.1f}", f"{floor / own:.2f}", ""])
        print_table([f"{kind}, batch {batch}", "images/s", "minidl / this", "of the floor"], rows)


def without_slower(times: dict[str, float]) -> dict[str, float]:
    """Of the ways in which a peer was tried, only the fastest."""
    tried = [{name: times[name] for name in names} for names in PEERS.values() if names[0] in times]
    slower = {name for ways in tried for name in ways if ways[name] > min(ways.values())}
    return {name: t for name, t in times.items() if name not in slower}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["towers"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    programs = make_programs(args.nets, [] if args.profile else args.peers)
    use_threads(get_num_threads())
    print(machine_line())
    sgemm = Sgemm()
    for batch in args.batch:
        if not args.profile:
            compare(programs, batch, args.repeats, sgemm)
            continue
        for name, program in programs.items():
            print(f"{name}, batch {batch}")
            print_profile(partial(program.train, *program.inputs(*nets.random_images(batch))))


if __name__ == "__main__":
    main()
