"""Everything that only a GPU can show, in one command that installs nothing and ends within nine minutes.

    make gpu-check [OUT=gpu-check] [PYTHON=python3]

With the Python that runs it, and its NumPy, CuPy, pytest and PyTorch: the tests' `gpu` half; AlexNet's training on
cuda:0,cuda:1; compute-sanitizer's memcheck and racecheck on a small step, where it is installed; benchmarks/bench_gpu.py. Each
part's output goes to a file of OUT as it comes, and a table of all parts to OUT/summary.txt. Exit code 1 if a part failed or
ran out of time. `--step` is the small step itself.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # minidl need not be installed
from minidl import Device, DeviceError, nn

ROOT = Path(__file__).parents[1]
MINUTES = 9
LAST_WORDS = 5  # seconds after Ctrl-C


def parts(out: Path) -> dict[str, tuple[list[str], int]]:
    """Name -> (command, the most seconds it may take), in order."""
    python = [sys.executable, "-u"]
    train = [*python, "examples/alexnet/train.py", "--device", "cuda:0,cuda:1", "--steps", "60"]
    step = [*python, __file__, "--step"]
    sanitizer = shutil.which("compute-sanitizer") or next(
        iter(map(str, Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))), ""
    )
    processes = ["-n", "6"] if importlib.util.find_spec("xdist") else []
    found: dict[str, tuple[list[str], int]] = {
        "tests": ([*python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *processes, "tests"], 200),
        "train": ([*train, "--out", str(out / "run")], 40),
    }
    if sanitizer:
        # CuPy's runtime asks a driver that is older than itself for functions that it lacks, which is no error
        options = ["--error-exitcode", "1", "--report-api-errors", "no"]
        found["memcheck"] = ([sanitizer, "--tool", "memcheck", *options, *step], 60)
        found["racecheck"] = ([sanitizer, "--tool", "racecheck", *options, "--kernel-regex", "kns=mdl_", *step], 50)
    found["bench_gpu"] = ([*python, "benchmarks/bench_gpu.py"], 190)
    return found


def check(out: Path) -> int:
    """Run the parts, and say how each ended. DeviceError if there is no GPU."""
    Device("cuda:0")
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    end, commands, failed = time.monotonic() + 60 * MINUTES - LAST_WORDS, parts(out), False
    with (out / "summary.txt").open("w") as summary:
        for name, (command, limit) in commands.items():
            started = time.monotonic()
            fault = run(command, out / f"{name}.txt", min(limit, end - started), environment)
            failed |= fault is not None
            line = f"{name:12} {fault or 'passed':30} {time.monotonic() - started:6.1f} s"
            print(line, flush=True)
            print(line, file=summary, flush=True)
    if "memcheck" not in commands:
        print("compute-sanitizer is not installed: memcheck and racecheck were left out")
    return int(failed)


def run(command: list[str], log: Path, limit: float, environment: dict[str, str]) -> str | None:
    """What went wrong, or None. After its time a part gets Ctrl-C, on which pytest says what has failed so far, and is then
    killed, with all that it started: nothing of it may be left on the GPU."""
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
    parser.add_argument("--step", action="store_true")
    args = parser.parse_args(arguments)
    if args.step:
        small_step()
        return 0
    try:
        return check(args.out.resolve())
    except DeviceError as error:
        parser.exit(2, f"gpu-check: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
