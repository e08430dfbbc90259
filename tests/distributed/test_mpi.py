"""Ranks that are processes."""

import json
import os
import subprocess
import sys

import mpiexec
import numpy as np
import pytest

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def _mpi():
    mpiexec.skip_without_mpi()
    before = mpiexec.shared_memory()
    yield
    assert mpiexec.shared_memory() <= before


def trained(tmp_path, ranks, net, steps):
    out = tmp_path / f"{net}-{ranks}"
    done = mpiexec.run(ranks, mpiexec.PROGRAMS / "equal.py", net, steps, out)
    assert done.returncode == 0, done.stderr
    return json.loads(out.with_suffix(".json").read_text()), dict(np.load(out.with_suffix(".npz")))


def test_ranks_of_torchrun_do_not_each_train_alone():
    """MPI sees one rank in each of them."""
    program = "import minidl.distributed as dist; dist.init_process_group('mpi')"
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ValueError: init_process_group: WORLD_SIZE is 2, MPI knows 1 rank: start the program with mpiexec" in done.stderr


@pytest.mark.parametrize("net, steps, sizes", [("small", 20, (2, 3, 4)), ("alexnet", 3, (2,))])
def test_n_ranks_are_one_rank_with_n_times_the_batch(tmp_path, net, steps, sizes):
    alone, weights = trained(tmp_path, 1, net, steps)
    for size in sizes:
        about, theirs = trained(tmp_path, size, net, steps)
        np.testing.assert_allclose(about["losses"], alone["losses"], rtol=0, atol=1e-12)
        for name, weight in weights.items():
            np.testing.assert_allclose(theirs[name], weight, rtol=0, atol=1e-12)
        assert len(about["digests"]) == size and len(set(about["digests"])) == 1
        assert about["sent"] == size * (2 * (size - 1) / size) * about["bytes"] * steps
    assert net != "small" or len(set(alone["losses"])) == steps
