"""Programs of a checkout where minidl is not installed, or another one is: python -S has the folders that it is told of."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = Path(np.__file__).parents[1]  # where minidl is, at most, by a line in a file that only `site` reads
PROGRAMS = [
    path
    for folder in ("examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text() and path.name != "two_hosts.py"  # which has no use for minidl
]
LATE = ("bench_memory.py", "bench_distributed.py", "peer_programs.py")  # which import it when they run, by minidl_programs


def python(*arguments, cwd, path=()):
    """`python -S` in an empty folder, which finds packages in `path` and in PACKAGES."""
    where = os.pathsep.join(map(str, [*path, PACKAGES]))
    environment = {**os.environ, "PYTHONPATH": where, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def missing(path):
    """What is not installed of the packages that a program begins by importing."""
    names = {
        name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    packages = {
        "torch": "torch",
        "playwright.sync_api": "playwright",
        "onnxruntime": "onnxruntime",
        "minidl.onnx": "onnxruntime",
    }
    return sorted(packages[name] for name in names & packages.keys() if find_spec(packages[name]) is None)


@pytest.fixture(autouse=True)
def _not_installed(tmp_path):
    if python("-c", "import minidl", cwd=tmp_path).returncode == 0:
        pytest.skip("minidl is installed beside NumPy, not as an editable checkout")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_finds_the_checkout_s_minidl(program, tmp_path):
    if missing(program):
        pytest.skip(f"this benchmark needs {', '.join(missing(program))}")
    code = f"import runpy, sys; sys.path.insert(0, {str(program.parent)!r}); runpy.run_path({str(program)!r}, run_name='p')"
    later = "import minidl_programs" if program.name in LATE else "import minidl"
    done = python("-c", f"{code}\n{later}\nprint(sys.modules['minidl'].__file__)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(ROOT / "minidl" / "__init__.py") and done.stderr == ""


def test_train_runs_with_its_worker_processes(tmp_path):
    arguments = ["--width", "0.05", "-b", "2", "-j", "1", "--steps", "1", "--device", "cpu:0,cpu:1", "--dry-run"]
    done = python(ROOT / "examples" / "alexnet" / "train.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0 and "one step: loss" in done.stdout, done.stderr


@pytest.mark.parametrize("program", ["examples/alexnet/evaluate.py", "benchmarks/bench_gpu.py"])
def test_an_installed_one_is_passed_over_with_a_word(program, tmp_path):
    other = tmp_path / "elsewhere" / "minidl"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("__version__ = '0.0.1'\n")
    done = python(ROOT / program, "--help", cwd=tmp_path, path=[other.parent])
    assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr
    expected = f"this checkout's minidl is used, {ROOT / 'minidl'}, not the installed one, {other}\n"
    assert done.stderr == expected


def test_a_copy_of_the_folder_uses_the_installed_one(tmp_path):
    copy = tmp_path / "mine" / "examples" / "alexnet"
    copy.mkdir(parents=True)
    for path in (ROOT / "examples" / "alexnet").glob("*.py"):
        (copy / path.name).write_bytes(path.read_bytes())
    alone = python(copy / "evaluate.py", "--help", cwd=tmp_path)
    assert "No module named 'minidl'" in alone.stderr
    done = python(copy / "evaluate.py", "--help", cwd=tmp_path, path=[ROOT])
    assert done.returncode == 0 and done.stderr == "", done.stderr
