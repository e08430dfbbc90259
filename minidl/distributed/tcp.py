"""Ranks that TCP connects, through rank 0: see rendezvous.py. For what ranks with NCCL tell one another beside it.

Arrays on the host can be exchanged too, and are added up in the order of the ranks, so to the bits that MPI's have; but rank
0 gets and sends all of them, which is slow for large ones.
"""

import os
import platform
import sys
from typing import NoReturn

import numpy as np

from minidl.device import count_exchange
from minidl.distributed import rendezvous
from minidl.distributed.group import DistributedError, ProcessGroup, ReduceOp


class TCPGroup(ProcessGroup):
    """The ranks that MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE speak of.

    ValueError: one of them is missing or wrong. DistributedError: the ranks do not meet.
    """

    def __init__(self, timeout: float) -> None:
        place = rendezvous.place()
        self._meeting = rendezvous.Rendezvous(place, platform.node(), timeout)
        super().__init__(place.rank, place.size, self._meeting.names, timeout)
        if self.size > 1:
            sys.excepthook = self.end_all

    def close(self) -> None:
        super().close()
        self._meeting.close()

    def abort(self, code: int) -> NoReturn:
        """End this rank; the others hear of it when they next wait for it."""
        os._exit(code)

    def notice(self, what: str) -> None:
        self._meeting.notice(what)

    def missing(self, what: str) -> DistributedError:
        return super().missing(f"{what}: {self.name(self.rank)} waits")

    def _all_reduce(self, flat: np.ndarray, op: ReduceOp) -> None:
        everyone = self._exchange(f"all_reduce of {flat.size} {flat.dtype}, {op.name}", flat.tobytes())
        put_together = getattr(np, op.value)
        flat[...] = np.frombuffer(everyone[0], flat.dtype)
        for part in everyone[1:]:
            put_together(flat, np.frombuffer(part, flat.dtype), out=flat)
        count_exchange(flat.nbytes * (self.size * (self.size - 1) if self.rank == 0 else 1))

    def _spread(self, flat: np.ndarray, src: int) -> None:
        own = flat.tobytes() if self.rank == src else b""
        everyone = self._exchange(f"broadcast of {flat.nbytes} bytes from rank {src}", own)
        flat[...] = np.frombuffer(everyone[src], flat.dtype)

    def _gather_bytes(self, payload: bytes) -> list[bytes]:
        return self._exchange("all_gather", payload)

    def _exchange(self, what: str, payload: bytes) -> list[bytes]:
        return self._meeting.exchange(what, payload, self.timeout)
