"""What `make gpu-check` runs, on the stand-in for CuPy, so that the first run on a GPU is not the first run at all."""

import contextlib
import importlib
import os
import select
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import fake_cupy
import pytest
from emulator import emulator

from minidl import nn

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:cuda.1 is a second context")


@pytest.fixture
def program(monkeypatch):
    """A program of benchmarks/, imported as when it is run from there."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "examples" / "alexnet")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if not name.startswith("minidl"):
            del sys.modules[name]


@pytest.fixture
def gpu(monkeypatch):
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    yield fake_cupy.install(monkeypatch)
    assert fake_cupy.errors == []


# --------------------------------------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize("gpus, needs", [(1, "needs 2 GPUs, found 1"), (2, "device: CuPy finds no NCCL, libnccl.so.2; ")])
def test_all_parts_fit_into_nine_minutes_and_are_there(program, tmp_path, monkeypatch, gpus, needs):
    check = program("gpu_check")
    fake_cupy.install(monkeypatch, gpus)
    monkeypatch.setattr(check.shutil, "which", lambda name: f"/cuda/bin/{name}")
    parts = check.parts(tmp_path)
    assert list(parts) == ["tests", "train", "two_ranks", "bench_gpu", "memcheck", "racecheck"]  # the most valuable first
    assert sum(part.limit for part in parts.values()) <= check.SECONDS
    for tool in ("memcheck", "racecheck"):
        for command, ends in ((parts[tool].command, "--step"), (parts[tool].probe, "--sum")):
            assert command[:3] == ["/cuda/bin/compute-sanitizer", "--tool", tool] and command[-1] == ends
    scripts = [word for part in parts.values() for word in part.command if word.endswith(".py")]
    assert "kns=mdl_" in parts["racecheck"].command and ("-n" in parts["tests"].command) == bool(find_spec("xdist"))
    assert len(scripts) == 5 and all((ROOT / script).is_file() for script in scripts)
    assert len(parts) + 1 <= 8
    ((lacking, why),) = [(name, part.missing) for name, part in parts.items() if part.missing]
    assert lacking == "two_ranks" and why.startswith(needs)
    # of what is printed of all parts, the summary with them, the last 12,000 characters come back
    assert sum(part.shown for part in parts.values()) <= 11_000


def test_what_the_machine_lacks_is_unavailable_and_costs_nothing(program, gpu, tmp_path, monkeypatch, capsys):
    check = program("gpu_check")
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.setattr(check.Path, "glob", lambda path, pattern: iter(()))
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    parts = check.parts(tmp_path)
    assert parts["bench_gpu"].command[-1] == "--peers" and "-n" not in parts["tests"].command
    assert check.main([str(tmp_path / "out"), "--only", "racecheck", "tests", "memcheck"]) == 0
    lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()[1:]
    assert [line.split(maxsplit=1)[0] for line in lines] == ["tests", "memcheck", "racecheck"]
    assert "unavailable: not installed: pytest, hypothesis" in lines[0]
    assert all("unavailable: not installed: compute-sanitizer" in line for line in lines[1:])
    assert capsys.readouterr().out.endswith("\n".join(lines) + "\n")


SLOW = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
try:
    print(subprocess.Popen([sys.executable, "-c", deaf]).pid, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("what failed so far")
"""


def test_each_part_s_output_and_verdict(program, gpu, tmp_path, monkeypatch, capsys):
    check = program("gpu_check")
    python = [sys.executable, "-c"]

    def part(code, limit=60, **settings):
        return check.Part([*python, code], limit, 0, 300, **settings)

    parts = {
        "good": part("print('x' * 299); print('a table')"),
        "bad": part("import sys; print('why', file=sys.stderr); sys.exit(3)"),
        "slow": part(SLOW, 1),
        "long": part("", 60)._replace(least=10**6),
        "refused": part("import sys; sys.exit('Not supported here')", probe=[*python, "import sys; sys.exit('nor this')"]),
        "found": part("import sys; sys.exit('a race')", probe=[*python, f"print({check.DONE!r})"]),
        "away": check.Part([str(tmp_path / "nothing")], 60, 0, 300),
        "last": part("import minidl; print(minidl.__file__)"),
    }

    class Begun(subprocess.Popen):
        """The slow part's second begins when it has said something, however busy the machine is."""

        def wait(self, timeout=None):
            while timeout == 1 and not (tmp_path / "out" / "slow.txt").read_text():
                time.sleep(0.01)
            return super().wait(timeout)

    monkeypatch.setattr(check.subprocess, "Popen", Begun)
    monkeypatch.setattr(check, "LAST_WORDS", 60)
    monkeypatch.setattr(check, "parts", lambda scratch: parts)
    out = tmp_path / "out"
    assert check.main([str(out), "--seconds", "10000"]) == 1
    (gpu_line, *summary), logs = (
        (out / "summary.txt").read_text().splitlines(),
        {n: (out / f"{n}.txt").read_text() for n in parts},
    )
    assert gpu_line.startswith("a stand-in, CUDA 13.0") and sorted(p.stem for p in out.iterdir()) == sorted([*parts, "summary"])
    verdicts = dict(line.split(maxsplit=1) for line in summary)
    assert list(verdicts) == list(parts)
    expected = ["passed", "failed with exit code 3", "ran out of time (1 s)", "left out: needs 1000000 s,"]
    expected += ["unavailable: refused here", "failed with exit code 1", "unavailable: No such file", "passed"]
    for name, verdict in zip(parts, expected, strict=True):
        assert verdicts[name].startswith(verdict)
    assert logs["good"].endswith("a table\n") and logs["bad"] == "why\n" and str(ROOT / "minidl") in logs["last"]
    assert "Not supported here" in logs["refused"] and "nor this" in logs["refused"] and check.DONE in logs["found"]
    child, words = logs["slow"].splitlines()
    assert words == "what failed so far"
    with contextlib.suppress(ProcessLookupError):  # it has ended, or will before long
        assert select.select([os.pidfd_open(int(child))], [], [], 30)[0]
    # the end of every log is printed, and the table last
    printed = capsys.readouterr().out
    assert all(f"== {name}\n" in printed for name in parts) and printed.endswith("\n".join([gpu_line, *summary]) + "\n")
    assert "== good\na table\n" in printed and "== bad\nwhy\n" in printed


def test_parts_by_name_within_the_seconds_that_are_left(program, gpu, tmp_path, monkeypatch):
    """The clock is the test's: each look at it takes a second."""
    check, limits = program("gpu_check"), []
    monkeypatch.setattr(check.time, "monotonic", map(float, range(1000)).__next__)
    monkeypatch.setattr(check, "run", lambda command, log, limit: limits.append((command[0], limit)))
    parts = {name: check.Part([name], limit, least, 9) for name, limit, least in (("a", 20, 5), ("b", 500, 5), ("c", 60, 5))}
    monkeypatch.setattr(check, "parts", lambda scratch: parts)
    assert check.main([str(tmp_path), "--only", "b", "a", "--seconds", "100"]) == 0
    (a, first), (b, second) = limits
    assert (a, first, b) == ("a", 20, "b") and 80 < second < 100 - check.LAST_WORDS


def test_without_a_gpu_it_says_so_in_one_line(program, tmp_path, monkeypatch, capsys):
    check = program("gpu_check")
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(check.Device, "_made", {})
    with pytest.raises(SystemExit) as stopped:
        check.main([str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("gpu-check: device: cuda needs CuPy") and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ what they measure


@pytest.mark.parametrize("gpus", [1, 2])
def test_the_small_step_for_the_sanitizer(program, gpu, monkeypatch, capsys, gpus):
    allocators = []
    monkeypatch.setattr(fake_cupy, "devices", gpus)
    monkeypatch.setattr(fake_cupy.cuda, "set_allocator", allocators.append)
    program("gpu_check").main(["--step"])
    assert allocators == [None] and fake_cupy.launches.count("mdl_cross_entropy_backward") == 4
    assert fake_cupy.history[-1][0] == "synchronize"
    assert capsys.readouterr().out == "two steps done of each\n"
    program("gpu_check").main(["--sum"])
    assert capsys.readouterr().out == f"{program('gpu_check').DONE}\n"
    # the layers' own kernels ran, not CuPy's
    seen = set(fake_cupy.launches)
    assert {"mdl_im2col", "mdl_max_pool2d_backward_uint8", "mdl_local_response_norm_backward", "mdl_sgd_update_2012"} <= seen
    assert {"mdl_winograd_input", "mdl_winograd_upstream", "mdl_winograd_output"} <= seen
    assert {"mdl_winograd_filters", "mdl_winograd_filter_gradient"} <= seen


def test_the_benchmark_from_its_command_to_its_tables(program, gpu, rng, monkeypatch, capsys):
    """With nets and convolutions of a few channels: what is timed is one step, of nothing that matters."""
    bench, programs, nets = program("bench_gpu"), program("minidl_programs"), program("nets")

    def small(device):
        return lambda: programs.Program(nets.small_convnet(nn).to(device))

    class Small(program("model").AlexNet):
        """AlexNet's loss and towers for the loop, but a net of a few channels."""

        def __init__(self, devices):
            super().__init__(10, devices, width=0.05)
            self.net = nets.small_convnet(nn).to(devices[0])

        def forward(self, images):
            return self.net(images[0])

    monkeypatch.setattr(programs, "AlexNet", Small)
    loop = bench.GPU_ALEXNETS["minidl, train.py's loop"]
    own = {"minidl, one device": small("cuda:0"), "minidl, two towers": small("cuda:1"), "minidl, train.py's loop": loop}
    monkeypatch.setattr(bench, "GPU_ALEXNETS", own)
    monkeypatch.setattr(nets, "random_images", lambda n: (rng.standard_normal((n, 3, 16, 16), "f"), rng.integers(0, 10, n)))
    monkeypatch.setattr(bench.Rates, "SIZE", 8)
    convolutions = {"conv1": ((11, 11, 3), (4, 5, 5, 3), 2, 0, 1), "conv2": ((6, 6, 4), (4, 3, 3, 2), 1, 1, 2)}
    monkeypatch.setattr(bench, "CONVOLUTIONS", convolutions)
    monkeypatch.setattr(program("common"), "PAUSE", 0)
    bench.main(["--batch", "2", "3", "--peers", "--repeats", "1", "--steps", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith("a stand-in, CUDA 13.0 by its driver, 13.2 by CuPy 14.2.0; Python")
    tables = [line for line in printed.splitlines() if (line.startswith("| ") and "images/s" in line) or "tiles ms" in line]
    expected = [f"training step, batch {b}, {p}" for p in ("float32", "TF32") for b in (2, 3)]
    expected += [f"convolution, batch {b}, float32" for b in (2, 3)]
    assert [line.split("|")[1].strip() for line in tables] == expected
    assert printed.count("| minidl, one device") == printed.count("| minidl, two towers") == 4
    assert printed.count("| minidl, train.py's loop") == 4 and "mdl_note_not_finite" in fake_cupy.launches
    assert printed.count("| conv2 ") == 2 and "cuda:0, cuda:1: " in printed
    assert {"mdl_im2col", "mdl_winograd_output"} <= set(fake_cupy.launches)


def test_each_way_of_a_convolution_is_timed_under_its_own_name(program, gpu, monkeypatch, capsys):
    bench, ran = program("bench_gpu"), {}

    def in_turn(programs, repeats):
        for name, run in programs.items():
            fake_cupy.launches.clear()
            run()
            ran[name] = set(fake_cupy.launches)
        return {"tiles": [0.002], "patches": [0.003]}

    monkeypatch.setattr(bench, "in_turn", in_turn)
    monkeypatch.setattr(bench, "CONVOLUTIONS", {"conv1": ((6, 6, 4), (4, 3, 3, 2), 1, 1, 2)})
    bench.compare_ways(1, 1, 1, bench.Device("cuda:0"))
    assert "mdl_col2im" not in ran["patches"]  # the first layer's input needs no gradient
    capsys.readouterr()
    monkeypatch.setattr(bench, "CONVOLUTIONS", {"conv2": ((6, 6, 4), (4, 3, 3, 2), 1, 1, 2)})
    bench.compare_ways(1, 1, 1, bench.Device("cuda:0"))
    tiles = {"mdl_winograd_filters", "mdl_winograd_input", "mdl_winograd_output"}
    assert tiles <= ran["tiles"] and not tiles & ran["patches"]
    assert {"mdl_im2col", "mdl_col2im"} <= ran["patches"] and not {"mdl_im2col", "mdl_col2im"} & ran["tiles"]
    assert [cell.strip() for cell in capsys.readouterr().out.splitlines()[2].split("|")[1:-1]] == [
        "conv2",
        "2.000",
        "3.000",
        "1.50",
    ]


def test_what_a_step_asks_of_a_gpu_is_counted_without_one():
    """Of AlexNet at batch 2: every layer's kernels once, and products that are the step's multiply-adds."""
    command = [sys.executable, "benchmarks/count_gpu.py", "--batch", "2", "--nets", "minidl, one device", "--kernels"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = {cells[0]: cells[1:] for line in printed.splitlines() if (cells := [c.strip() for c in line.split("|")[1:-1]])}
    launches, gigabytes, tflop = rows["batch 2, TF32, minidl, one device"]
    assert 100 < int(launches) < 120 and 0.5 < float(gigabytes) < 2
    # 2,067,805,248 multiply-adds an image, two images; conv1's patches are 364 numbers instead of 363
    assert float(tflop) == pytest.approx(2 * 2 * 2.068e-3, abs=0.005)
    assert int(rows["batch 2, TF32, minidl, one device: mdl_sgd_update_2012"][0]) == 16
    assert int(rows["batch 2, float32, minidl, one device: products"][0]) == 23
