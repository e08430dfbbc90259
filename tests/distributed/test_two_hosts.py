"""Ranks that share no memory: two network namespaces joined by a cable of the kernel's."""

import importlib.util
import json
import sys
from pathlib import Path

import mpiexec
import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "two_hosts.py"


@pytest.fixture(scope="module")
def two_hosts():
    spec = importlib.util.spec_from_file_location("two_hosts", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.mpi
def test_ranks_on_two_hosts_send_what_is_counted_through_the_cable(two_hosts):
    mpiexec.skip_without_mpi()
    try:
        with two_hosts.hosts() as names:
            command = [sys.executable, str(mpiexec.PROGRAMS / "sums.py"), "4000000", "3"]
            done = two_hosts.start(names, 2, command, capture_output=True, timeout=60)
            crossed = two_hosts.crossed(names)
    except two_hosts.NoHostsError as error:
        pytest.skip(f"two network namespaces are not to be had: {error}")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["hosts"] == names and about["sums"] == [3.0]
    assert about["sent"] == 2 * 3 * 4_000_000  # each of 2 ranks sends 2 (N - 1) / N of the array, 3 times
    assert about["sent"] <= crossed < 1.2 * about["sent"]  # with the heads of packets, answers, and how MPI starts
