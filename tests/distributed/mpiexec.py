"""Programs on several processes, as users start them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
SHARED = Path("/dev/shm")


def skip_without_mpi():
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI: pip install '.[mpi]'")
    if MPIEXEC is None:
        pytest.skip("needs mpi: there is no mpiexec")


def command(ranks, program, *arguments):
    return [MPIEXEC, "-n", str(ranks), sys.executable, str(program), *map(str, arguments)]


def environment(threads=1):
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def run(ranks, program, *arguments, timeout=120, cwd=None):
    """The finished process, with what it printed as text."""
    return subprocess.run(
        command(ranks, program, *arguments), env=environment(), capture_output=True, text=True, timeout=timeout, cwd=cwd
    )


def shared_memory():
    """The names of MPI's shared memory that are there."""
    return {path.name for path in SHARED.glob("mpich*")} if SHARED.is_dir() else set()
