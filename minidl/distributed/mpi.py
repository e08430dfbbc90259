"""Ranks that MPI connects, through mpi4py: started by `mpiexec -n 4 python program.py`, on one machine or on several.

All of MPI is called from the group's thread, without blocking: the thread asks whether a message is through, and sleeps a
little if it is not, so that it leaves the cores to the program. That is also what makes MPI go on while the program computes.
Arrays go from rank to rank in single messages: MPICH's non-blocking all-to-all takes a thousand looks where these take five.

A rank that waits too long calls the roll: it writes to all others, and those that wait too answer. Who does not is named.
"""

import contextlib
import os
import platform
import sys
import time
from typing import Any

import numpy as np

from minidl.distributed.group import LONGEST, NOBODY, ROLL, SHORTEST, DistributedError, ProcessGroup

_LONGEST_NAME = 256  # bytes of a host's
_SHARED = "/dev/shm/mpich_shm_"


class MPIGroup(ProcessGroup):
    """The ranks of MPI's world.

    ModuleNotFoundError: mpi4py is not there. RuntimeError, which mpi4py raises: it finds no MPI, or MPI can't be used by
    several threads.
    """

    def __init__(self, timeout: float) -> None:
        try:
            from mpi4py import MPI
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'init_process_group: backend "mpi" needs mpi4py and an MPI: pip install "minidl[mpi]"', name="mpi4py"
            ) from error
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise RuntimeError("init_process_group: MPI must let several threads call it, one at a time; this one does not")
        self._mpi = MPI
        self._world = MPI.COMM_WORLD.Dup()  # a communicator of its own: a program's messages never meet minidl's
        self._roll = MPI.COMM_WORLD.Dup()
        hosts = _names_of_all(self._world, platform.node())
        super().__init__(self._world.rank, self._world.size, hosts, timeout)
        self._others = [(self.rank + i) % self.size for i in range(1, self.size)]  # each rank begins with another one
        self._world.Barrier()
        if self.local_rank == 0:
            _forget_shared_memory()
        if self.size > 1:
            sys.excepthook = self.end_all

    def abort(self, code: int) -> None:
        self._world.Abort(code)

    # MPI moves bytes and computes nothing

    def _swap(self, flat: np.ndarray, bounds: list[tuple[int, int]]) -> np.ndarray:
        first, stop = bounds[self.rank]
        parts = np.empty((self.size, stop - first), flat.dtype)
        parts[self.rank] = flat[first:stop]
        come = [self._world.Irecv(self._bytes(parts[rank]), rank) for rank in self._others]
        go = [self._world.Isend(self._bytes(flat[slice(*bounds[rank])]), rank) for rank in self._others]
        self._finish([*come, *go], "all_reduce")
        return parts

    def _gather(self, own: np.ndarray, flat: np.ndarray, bounds: list[tuple[int, int]]) -> None:
        flat[slice(*bounds[self.rank])] = own
        come = [self._world.Irecv(self._bytes(flat[slice(*bounds[rank])]), rank) for rank in self._others]
        go = [self._world.Isend(self._bytes(own), rank) for rank in self._others]
        self._finish([*come, *go], "all_reduce")

    def _spread(self, flat: np.ndarray, src: int) -> None:
        self._finish([self._world.Ibcast(self._bytes(flat), root=src)], "broadcast")

    def _gather_bytes(self, payload: bytes) -> list[bytes]:
        own, lengths = np.array([len(payload)], np.int64), np.empty(self.size, np.int64)
        self._finish([self._world.Iallgather(own, lengths)], "all_gather")
        stops = np.cumsum(lengths).tolist()
        starts = [0, *stops[:-1]]
        everything = np.empty(stops[-1], np.uint8)
        sent = self._bytes(np.frombuffer(payload, np.uint8))
        parts = [everything, (lengths.tolist(), starts), self._mpi.BYTE]
        self._finish([self._world.Iallgatherv(sent, parts)], "all_gather")
        return [everything[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]

    def _bytes(self, flat: np.ndarray) -> list[Any]:
        """How mpi4py is told of an array."""
        return [flat.view(np.uint8), flat.nbytes, self._mpi.BYTE]

    # ------------------------------------------------------------------------------------------------------- waiting

    def _finish(self, requests: list[Any], what: str) -> None:
        """Until these messages are through. DistributedError: somebody did not come."""
        pause, until = SHORTEST, time.monotonic() + self.timeout
        while not self._through(requests, what):
            if time.monotonic() > until:
                raise self.missing(what)
            if pause >= LONGEST:
                self.notice(what)
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST)

    def _through(self, requests: list[Any], what: str) -> bool:
        try:
            return bool(self._mpi.Request.Testall(requests))
        except self._mpi.Exception as error:  # a rank has just died, and MPI is the first to notice
            text = f"{what}: a message of {self.name(self.rank)} failed, another rank may have died: {error}"
            raise DistributedError(text, speaker=NOBODY) from error

    def notice(self, what: str) -> None:
        """DistributedError if another rank calls the roll."""
        if self._roll.Iprobe():
            raise self.missing(what)

    def missing(self, what: str) -> DistributedError:
        """Call the roll, or answer it; who is missing."""
        here = np.zeros(1, np.int64)
        self._calls = [self._roll.Isend(here, rank) for rank in self._others]  # kept, and never waited for
        seen, until, came = {self.rank}, time.monotonic() + ROLL, np.empty(1, np.int64)
        while len(seen) < self.size and time.monotonic() < until:
            status = self._mpi.Status()
            if self._roll.Iprobe(status=status):
                self._roll.Recv(came, status.source)
                seen.add(status.source)
            else:
                time.sleep(LONGEST)
        missing = [rank for rank in range(self.size) if rank not in seen]
        if missing:
            text = f"{' and '.join(map(self.name, missing))} did not"
        else:
            text = f"all {self.size} wait, so they are at different exchanges"
        return DistributedError(f"{what}: every rank must come within {self.timeout:g} s, {text}", missing, min(seen))


def _names_of_all(world: Any, name: str) -> list[str]:
    """Each rank's name, without mpi4py's pickles."""
    own = np.frombuffer(name.encode()[:_LONGEST_NAME].ljust(_LONGEST_NAME, b"\0"), np.uint8).copy()
    everyone = np.empty((world.size, _LONGEST_NAME), np.uint8)
    world.Allgather(own, everyone)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in everyone]


def _forget_shared_memory() -> None:
    """Take the names of MPICH's shared memory away, now that all ranks have it: it goes with the last of them, even if all are
    killed."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            *_, path = line.rstrip("\n").split(maxsplit=5)
            if path.startswith(_SHARED) and not path.endswith(" (deleted)"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
