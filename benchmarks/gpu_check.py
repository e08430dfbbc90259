"""Everything that only a GPU can show, in one command that installs nothing and ends within nine minutes.

    python3 benchmarks/gpu_check.py [OUT] [--seconds 540] [--only tests bench_gpu]
    make gpu-check [OUT=gpu-check] [PYTHON=python3]

With the Python that runs it, and its NumPy, CuPy, pytest and PyTorch, in this order:

tests      the tests' `gpu` half
train      AlexNet's training on cuda:0,cuda:1
two_ranks  benchmarks/two_ranks.py: two processes by NCCL, on two GPUs
bench_gpu  benchmarks/bench_gpu.py
memcheck, racecheck  compute-sanitizer on a small step

`--only` runs some of them. `--seconds` is for all together: each part may take its own limit, or what is left, and one that
needs more than that is left out. Each part's output goes to a file of OUT as it comes, OUT/tests.txt and so on, and its end is
printed; the table of all parts goes to OUT/summary.txt and is printed last. OUT has nothing else.

A part is *unavailable*, not failed, where the machine lacks what it needs: pytest, two GPUs, NCCL, compute-sanitizer, or the
right to use that, which is tried with one sum after the step failed under it. Exit code 1 if a part failed or ran out of time.
`--step` and `--sum` are what runs under compute-sanitizer.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import gpu_line

from minidl import Device, DeviceError, nn
from minidl.device import gpu_count, load_nccl

ROOT = Path(__file__).parents[1]
SECONDS = 9 * 60
LAST_WORDS = 5  # seconds after Ctrl-C
DONE = "under the sanitizer: one sum, right"


class Part(NamedTuple):
    """A program, and what it is given.

    limit   : seconds that it may take
    least   : seconds without which it is not begun
    shown   : characters of its output's end that are printed
    probe   : a program that prints DONE where the tool works that runs `command`
    missing : why the machine can't run it, or ""
    """

    command: list[str]
    limit: int
    least: int
    shown: int
    probe: list[str] | None = None
    missing: str = ""


def parts(scratch: Path) -> dict[str, Part]:
    """By name, the most valuable first. What a part writes beside its output goes to `scratch`."""
    python = [sys.executable, "-u"]
    pytest = [*python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *_if_there("xdist", ["-n", "6"]), "tests"]
    lacks = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    train = [*python, "examples/alexnet/train.py", "--device", "cuda:0,cuda:1", "--steps", "60", "--out", str(scratch / "run")]
    bench = [*python, "benchmarks/bench_gpu.py", *([] if importlib.util.find_spec("torch") else ["--peers"])]
    return {
        "tests": Part(pytest, 200, 30, 2500, missing=f"not installed: {', '.join(lacks)}" if lacks else ""),
        "train": Part(train, 40, 20, 700),
        "two_ranks": Part([*python, "benchmarks/two_ranks.py"], 30, 20, 300, missing=_lack_of_two()),
        "bench_gpu": Part(bench, 160, 60, 5500),
        "memcheck": _sanitized("memcheck", 60),
        "racecheck": _sanitized("racecheck", 50, "--kernel-regex", "kns=mdl_"),
    }


def _if_there(module: str, options: list[str]) -> list[str]:
    return options if importlib.util.find_spec(module) else []


def _lack_of_two() -> str:
    """Why two ranks can't have a GPU each here, and NCCL between them; "" if they can."""
    try:
        if (found := gpu_count()) < 2:
            return f"needs 2 GPUs, found {found}"
        load_nccl()
    except DeviceError as error:
        return str(error)
    return ""


def _sanitized(tool: str, limit: int, *options: str) -> Part:
    """The small step under compute-sanitizer."""
    own = sorted(map(str, Path("/usr/local").glob("cuda*/bin/compute-sanitizer")))
    sanitizer = shutil.which("compute-sanitizer") or (own or [""])[-1]
    # CuPy's runtime asks a driver that is older than itself for functions that it lacks, which is no error
    under = [sanitizer, "--tool", tool, "--error-exitcode", "1", "--report-api-errors", "no", "--print-limit", "50", *options]
    program = [sys.executable, "-u", __file__]
    missing = "" if sanitizer else "not installed: compute-sanitizer"
    return Part([*under, *program, "--step"], limit, 30, 1000, [*under, *program, "--sum"], missing)


def check(out: Path, seconds: float, only: list[str] | None) -> int:
    """Run the parts, and say how each ended. DeviceError if there is no GPU."""
    gpu = gpu_line(Device("cuda:0")).strip()
    out.mkdir(parents=True, exist_ok=True)
    end, table, failed = time.monotonic() + seconds - LAST_WORDS, [gpu], False
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in parts(Path(scratch)).items():
            if only is None or name in only:
                started, log = time.monotonic(), out / f"{name}.txt"
                verdict, bad = judge(part, log, end - started)
                failed |= bad
                table.append(f"{name:12} {verdict:30} {time.monotonic() - started:6.1f} s")
                _print_end(name, log, part.shown)
                (out / "summary.txt").write_text("\n".join(table) + "\n")
    print(f"== summary, in {out}", *table, sep="\n", flush=True)
    return int(failed)


def _print_end(name: str, log: Path, shown: int) -> None:
    """What the part said at last: a line that is cut off at its start is left out."""
    text = log.read_text(errors="replace")
    end = text if len(text) <= shown else text[-shown:].partition("\n")[2]
    print(f"== {name}", end.rstrip(), sep="\n", flush=True)


def judge(part: Part, log: Path, left: float) -> tuple[str, bool]:
    """Run a part, its output into `log`, in at most the seconds that are left: the verdict, and whether it is a bad one."""
    log.write_text("")
    if part.missing:
        return f"unavailable: {part.missing}", False
    if left < part.least:
        return f"left out: needs {part.least} s, {max(left, 0):.0f} s were left", False
    limit = min(part.limit, left)
    began = time.monotonic()
    try:
        fault = run(part.command, log, limit)
        if (
            fault
            and "exit code" in fault
            and part.probe is not None
            and not _works(part.probe, log, left - time.monotonic() + began)
        ):
            return "unavailable: refused here, with one sum too", False
    except OSError as error:  # the program can't be started
        return f"unavailable: {error.strerror}", False
    return fault or "passed", fault is not None


def _works(probe: list[str], log: Path, left: float) -> bool:
    """Does a tool run the smallest of programs?"""
    before = log.read_text(errors="replace")
    run(probe, log, max(min(left, 30), 1))
    said = log.read_text(errors="replace")
    log.write_text(f"{before}\n-- one sum --\n{said}")
    return DONE in said


def run(command: list[str], log: Path, limit: float) -> str | None:
    """What went wrong, or None. After its time a part gets Ctrl-C, on which pytest says what has failed so far, and is then
    killed, with all that it started: nothing of it may be left on the GPU. OSError: it can't be started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code is None:
        return f"ran out of time ({limit:.0f} s)"
    return f"failed with exit code {code}" if code else None


def one_sum() -> None:
    """The smallest program that shows that a GPU computes."""
    device = Device("cuda:0")
    with device.active():
        total = float(device.xp.ones(1000, np.float32).sum())
    print(DONE if total == 1000 else f"1000 ones are {total}")


def small_step() -> None:
    """Two steps of a narrow AlexNet on two logical devices, whose convolutions go by patches, and of convolutions that go by
    tiles. CuPy's pool is off, so that memcheck sees every array's end."""
    import nets
    from minidl_programs import AlexNet, Program

    device = Device("cuda:0")
    device.xp.cuda.set_allocator(None)
    net = AlexNet(devices=("cuda:0", "cuda:1"), width=0.05)
    twice(Program(net, net.parameter_groups(1e-4, 5e-4)), *nets.random_images(2))
    by_tiles = nn.Sequential(
        *(nn.Conv2d(3, 32, 8, stride=4), nn.Conv2d(32, 64, 5, padding=2, groups=2), nn.ConvReLU2d(64, 32, 3, padding=1)),
        *(nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(32 * 2 * 3, 10)),
    )
    images = np.random.default_rng(0).standard_normal((2, 3, 30, 37), np.float32)
    twice(Program(by_tiles.to("cuda:1")), images, np.array([3, 9]))
    print("two steps done of each")


def twice(program: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Two training steps."""
    for _ in range(2):
        program.train(*program.inputs(images, labels))
    program.synchronize()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="gpu-check", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(parts(Path())), metavar="NAME", help="parts by name")
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--sum", action="store_true")
    args = parser.parse_args(arguments)
    if args.step or args.sum:
        small_step() if args.step else one_sum()
        return 0
    try:
        return check(args.out.resolve(), args.seconds, args.only)
    except DeviceError as error:
        parser.exit(2, f"gpu-check: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
