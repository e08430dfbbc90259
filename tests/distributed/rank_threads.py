"""A process group whose ranks are threads of this process: everything but the transport is as with MPI."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from minidl.distributed import ProcessGroup

PATIENCE = 60.0  # seconds, for a test that would hang


class Meeting:
    """Where the ranks put down what the others are to see."""

    def __init__(self, size):
        self.things = [None] * size
        self.barrier = Barrier(size, timeout=PATIENCE)

    def swap(self, rank, thing):
        """Every rank's thing, by rank. Nobody leaves before all have looked at what they need: call `leave` then."""
        self.things[rank] = thing
        self.barrier.wait()
        return list(self.things)

    def leave(self):
        self.barrier.wait()


class ThreadGroup(ProcessGroup):
    def __init__(self, meeting, rank, size):
        self.meeting = meeting
        self.reduced = []  # how long each array was that was reduced
        super().__init__(rank, size, ["here"] * size, PATIENCE)

    def _all_reduce(self, flat, op):
        self.reduced.append(flat.size)
        super()._all_reduce(flat, op)

    def _swap(self, flat, bounds):
        arrays = self.meeting.swap(self.rank, flat)
        first, stop = bounds[self.rank]
        parts = np.stack([array[first:stop] for array in arrays])
        self.meeting.leave()
        return parts

    def _gather(self, own, flat, bounds):
        everyone = self.meeting.swap(self.rank, own)
        for (first, stop), part in zip(bounds, everyone, strict=True):
            flat[first:stop] = part
        self.meeting.leave()

    def _spread(self, flat, src):
        arrays = self.meeting.swap(self.rank, flat)
        if self.rank != src:
            flat[...] = arrays[src]
        self.meeting.leave()

    def _gather_bytes(self, payload):
        everyone = self.meeting.swap(self.rank, payload)
        self.meeting.leave()
        return everyone


def on_ranks(size, function):
    """function(group) in a thread for each rank -> what each returned. The first rank's exception is raised."""
    meeting = Meeting(size)
    groups = [ThreadGroup(meeting, rank, size) for rank in range(size)]

    def run(group):
        try:
            return function(group)
        except BaseException:
            meeting.barrier.abort()
            raise

    try:
        with ThreadPoolExecutor(size) as pool:
            futures = [pool.submit(run, group) for group in groups]
        errors = [future.exception() for future in futures if future.exception() is not None]
        if errors:
            raise next((error for error in errors if type(error).__name__ != "BrokenBarrierError"), errors[0])
        return [future.result() for future in futures]
    finally:
        for group in groups:
            group.close()
