"""Ranks that meet over TCP: threads, on ports that the system gives; and processes, as torchrun starts them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mpiexec
import numpy as np
import pytest

from minidl.distributed import DistributedError, ReduceOp, rendezvous, tcp
from minidl.distributed.rendezvous import Place, Rendezvous

PATIENCE = 30.0
VARIABLES = {"MASTER_ADDR": "localhost", "MASTER_PORT": "4000", "RANK": "1", "WORLD_SIZE": "2"}


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def on_ranks(ranks, function, timeout=PATIENCE):
    """function(meeting) on a thread for each (rank, size) -> what each returned, or its error."""
    port = free_port()

    def run(who):
        try:
            meeting = Rendezvous(Place("localhost", port, *who), f"host{who[0]}", timeout)
        except DistributedError as error:
            return error
        try:
            return function(meeting)
        except DistributedError as error:
            return error
        finally:
            meeting.close()

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(run, ranks))


def all_of(size):
    return [(rank, size) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_all_ranks_hear_what_each_says(size):
    """With zeros in it, as a unique id of NCCL's has, and longer than what a socket holds."""
    said = [b"\0" * rank + b"x\0y" * 100_000 for rank in range(size)]

    def run(meeting):
        return meeting.names, [meeting.exchange("greet", said[meeting.place.rank], PATIENCE) for _ in range(2)]

    for names, told in on_ranks(all_of(size), run):
        assert names == [f"host{rank}" for rank in range(size)] and told == [said, said]


@pytest.mark.parametrize(
    "ranks, message",
    [
        ([(0, 3), (1, 3), (1, 3)], "each rank must have a RANK of its own, host1 and host1 both have RANK 1"),
        ([(0, 3), (1, 3), (2, 4)], "WORLD_SIZE must be the same on all ranks, RANK 2 on host2 has 4 and RANK 0 3"),
    ],
)
def test_ranks_that_do_not_fit_are_named_on_all(ranks, message):
    for error in on_ranks(ranks, lambda meeting: None):
        assert isinstance(error, DistributedError) and message in str(error)


def test_who_does_not_come_is_named():
    (first,) = on_ranks([(0, 3)], lambda meeting: None, 0.01)
    assert "within 0.01 s RANK 1, 2 of WORLD_SIZE 3 did not come to MASTER_ADDR localhost, port" in str(first)
    (other,) = on_ranks([(1, 2)], lambda meeting: None, 0.01)
    assert "RANK 1 did not reach rank 0 at MASTER_ADDR localhost, port" in str(other) and "refused" in str(other)


def test_a_port_that_is_taken():
    with socket.create_server(("localhost", 0)) as server:
        place = Place("localhost", server.getsockname()[1], 0, 2)
        with pytest.raises(DistributedError, match=r"RANK 0 can't listen at MASTER_ADDR localhost, port .* is another rank 0"):
            Rendezvous(place, "here", PATIENCE)


def test_a_stranger_is_left_out():
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(Rendezvous, Place("localhost", port, 0, 2), "a", PATIENCE)
        while True:
            try:
                stranger = socket.create_connection(("localhost", port))
                break
            except ConnectionRefusedError:
                continue
        with stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""  # it is hung up on
        other = Rendezvous(Place("localhost", port, 1, 2), "b", PATIENCE)
        assert other.names == first.result().names == ["a", "b"]
        other.close()
        first.result().close()


def test_a_rank_that_ends_or_does_something_else_is_named_on_all():
    def run(meeting):
        if meeting.place.rank == 1:
            return None
        return meeting.exchange("sum", b"", PATIENCE)

    first, _, third = on_ranks(all_of(3), run)
    assert str(first) == str(third) == "sum: rank 1 on host1 has ended, or died" and third.ranks == (1,) and third.speaker == 0

    first, second = on_ranks(all_of(2), lambda meeting: meeting.exchange(f"sum of {meeting.place.rank}", b"", PATIENCE))
    assert str(first) == str(second) == "sum of 0: every rank must do the same, rank 1 on host1 does sum of 1"


def test_a_rank_that_says_nothing_is_waited_for_so_long():
    def run(meeting):
        if meeting.place.rank == 0:
            return meeting.exchange("sum", b"", 0.01)
        return meeting._sockets[0].recv(1)

    error, heard = on_ranks(all_of(2), run)
    assert str(error) == "sum: every rank must come within 0.01 s, rank 1 on host1 did not" and heard == b"F"


def test_who_waits_for_something_else_notices():
    def run(meeting):
        meeting.exchange("begin", b"", PATIENCE)
        if meeting.place.rank == 1:
            return None
        while True:  # it goes on until the other has ended
            meeting.notice("all_reduce")

    error, _ = on_ranks(all_of(2), run)
    assert str(error) == "all_reduce: rank 1 on host1 has ended, or died"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"MASTER_ADDR": None, "RANK": ""}, "needs the variable MASTER_ADDR and RANK, as torchrun sets them"),
        ({"RANK": "2"}, r"RANK must be a whole number in \[0, 1\], got '2'"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE must be a whole number in \[1, 1048576\], got 'two'"),
        ({"MASTER_PORT": "0"}, r"MASTER_PORT must be a whole number in \[1, 65534\], got '0'"),
    ],
)
def test_variables_that_are_wrong_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        rendezvous.place({name: value for name, value in (VARIABLES | changed).items() if value is not None})


def test_where_torchrun_itself_listens_the_ranks_take_the_next_port():
    assert rendezvous.place(VARIABLES) == Place("localhost", 4000, 1, 2)
    assert rendezvous.place({**VARIABLES, "TORCHELASTIC_USE_AGENT_STORE": "True"}).port == 4001


def test_arrays_on_the_host_are_added_up_in_the_order_of_the_ranks(monkeypatch):
    arrays = [np.random.default_rng(rank).standard_normal(1001).astype("f") for rank in range(3)]
    port = free_port()
    monkeypatch.setattr(tcp.sys, "excepthook", sys.excepthook)  # which groups set
    groups = []
    with ThreadPoolExecutor(3) as pool:
        meetings = list(pool.map(lambda rank: Rendezvous(Place("localhost", port, rank, 3), "here", PATIENCE), range(3)))
    for meeting in meetings:
        monkeypatch.setattr(rendezvous, "place", lambda place=meeting.place: place)
        monkeypatch.setattr(rendezvous, "Rendezvous", lambda *args, meeting=meeting: meeting)
        groups.append(tcp.TCPGroup(PATIENCE))
    own = [array.copy() for array in arrays]
    works = [group.all_reduce(array) for group, array in zip(groups, own, strict=True)]
    assert all(work.wait() for work in works)
    highest = [np.array([rank]) for rank in range(3)]
    works = [group.all_reduce(array, ReduceOp.MAX) for group, array in zip(groups, highest, strict=True)]
    assert all(work.wait() for work in works)
    from_last = [np.full(2, rank, np.int64) for rank in range(3)]
    works = [group.broadcast(array, 2) for group, array in zip(groups, from_last, strict=True)]
    assert all(work.wait() for work in works)
    for group, array, high, last in zip(groups, own, highest, from_last, strict=True):
        np.testing.assert_array_equal(array, arrays[0] + arrays[1] + arrays[2])
        assert high.tolist() == [2] and last.tolist() == [2, 2] and group.local_size == 3
        group.close()


def test_processes_as_torchrun_starts_them():
    """Without a GPU they add up on the host."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PMI_SIZE", "PMIX_RANK")}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(mpiexec.PROGRAMS / "sums.py"), "4000", "2"]
    ranks = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True) for rank in (1, 0)
    ]
    printed = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0] and printed[0] == ""
    assert json.loads(printed[1])["sums"] == [3.0]
