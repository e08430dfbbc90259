"""Peak memory of AlexNet's training step, minidl and PyTorch each in a process of its own.

    python benchmarks/bench_memory.py [--batch 128] [--programs "minidl, two towers" ...]

`whole process` is the largest resident size that the process ever had, with everything that it imported; `above imports` leaves
out what it had reached when its library was imported. Each process takes two training steps: the first makes the optimiser's
velocities, so the second is like all that follow. A ratio above 1 means that minidl needs less. Needs torch.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys

PROGRAMS = {
    "minidl, two towers": "minidl_programs",
    "minidl, one device": "minidl_programs",
    "PyTorch, contiguous": "torch_programs",
    "PyTorch, channels_last": "torch_programs",
    "PyTorch without LRN, contiguous": "torch_programs",
    "PyTorch without LRN, channels_last": "torch_programs",
}
STEPS = 2


def peak_bytes() -> int:
    """The largest resident size of this process so far. The kernel counts in KiB, on a Mac in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_here(name: str, batch: int, threads: int) -> dict[str, int]:
    """What `measure` starts in a fresh process."""
    programs = importlib.import_module(PROGRAMS[name])
    if PROGRAMS[name] == "torch_programs":
        programs.torch.set_num_threads(threads)
    imported = peak_bytes()
    program = programs.ALEXNETS[name]()
    inputs = program.inputs(*programs.nets.random_images(batch))
    for _ in range(STEPS):
        program.train(*inputs)
    return {"imported": imported, "peak": peak_bytes()}


def measure(name: str, batch: int, threads: int) -> dict[str, int]:
    """Bytes at the peak, and after the imports. A child starts with its parent's peak: this process must stay small."""
    command = [sys.executable, __file__, "--batch", str(batch), "--here", name, str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(names: list[str], batch: int) -> None:
    from common import get_num_threads, machine_line, print_table

    print(machine_line())
    rows: list[list[str]] = []
    own = 0
    for name in names:
        found = measure(name, batch, get_num_threads())
        own = own or found["peak"]
        whole, above = (f"{size / 1e9:.2f}" for size in (found["peak"], found["peak"] - found["imported"]))
        rows.append([name, whole, above, f"{found['peak'] / own:.2f}"])
    print_table([f"training step, batch {batch}", "whole process, GB", "above imports, GB", "this / minidl"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure_here(args.here[0], args.batch, int(args.here[1]))))
    else:
        compare(args.programs, args.batch)


if __name__ == "__main__":
    main()
