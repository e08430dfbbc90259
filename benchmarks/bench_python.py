"""Where the processor's time goes in AlexNet's training step: the interpreter, NumPy's loops, BLAS.

    python benchmarks/bench_python.py [--batch 128] [--seconds 30]

Trains in a process of its own, and samples its threads a hundred times a second with py-spy (`pip install py-spy`), down to
the C functions. A sample counts for what the innermost function belongs to: a line of Python is the interpreter's, the rest is
told apart by library. Threads that wait are not sampled. py-spy stops the process while it looks, so the step takes longer
than in bench_alexnet.py; the shares are not touched by that. Whoever may not trace processes has to ask for the right.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import machine_line, print_table

OWNERS = [("libscipy_openblas", "BLAS"), ("openblas", "BLAS"), ("mkl", "BLAS"), ("numpy", "NumPy"), ("libc.so", "C library")]


def train_for_ever(batch: int) -> None:
    """What the sampled process does."""
    import nets
    from minidl_programs import ALEXNETS

    program = ALEXNETS["minidl, two towers"]()
    inputs = program.inputs(*nets.random_images(batch))
    program.train(*inputs)
    program.train(*inputs)
    print("ready", flush=True)
    while True:
        program.train(*inputs)


def sample(batch: int, seconds: int) -> list[str]:
    """Lines of `outer;...;inner count`."""
    child = subprocess.Popen([sys.executable, __file__, "--batch", str(batch), "--here"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "samples"
            py_spy = [py_spy_program(), "record", "--native", "--rate", "100", "--duration", str(seconds), "--format", "raw"]
            subprocess.run([*py_spy, "--output", str(found), "--pid", str(child.pid)], check=True, capture_output=True)
            return found.read_text().splitlines()
    finally:
        child.kill()


def py_spy_program() -> str:
    """Beside this Python, where pip puts it, or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("bench_python: py-spy is not installed: pip install py-spy")
    return found


def owner(stack: str) -> str:
    """Whose time a sample is."""
    inner = stack.rpartition(";")[2]
    if ".py:" in inner or "python" in inner.partition("(")[2].partition("/")[0]:
        return "the interpreter"
    return next((name for mark, name in OWNERS if mark in inner), "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        return train_for_ever(args.batch)
    print(machine_line())
    shares: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for line in sample(args.batch, args.seconds):
        stack, _, count = line.rpartition(" ")
        shares[owner(stack)] += int(count)
        if owner(stack) == "the interpreter":
            lines[stack.rpartition(";")[2]] += int(count)
    total = sum(shares.values())
    print_table(
        [f"training step, batch {args.batch}, {total} samples", "share"],
        [[name, f"{count / total:.1%}"] for name, count in shares.most_common()],
    )
    print_table(["the interpreter's lines", "share"], [[name, f"{count / total:.2%}"] for name, count in lines.most_common(5)])


if __name__ == "__main__":
    main()
