"""Arrays that go from GPU to GPU, through NCCL as CuPy has it: cupy.cuda.nccl.

Each rank has GPUs of its own, and NCCL a *communicator* for each of them: the first GPU on which a rank exchanges anything
meets the other ranks' first, the second their second. So towers on two GPUs a rank have two communicators. NCCL adds up in an
order of its own, along a ring or a tree of GPUs: all that is said about bits in group.py is for the host.

    compute stream   ... the array is written | record  A ...................... wait for B | the array is read
    copy stream                                 wait for A | all-reduce | record B

The all-reduce is asked for at once, and runs while backward goes on; the group's thread looks whether B has come. If a rank
dies, its partners' GPUs wait for it for ever, so that thread ends all communicators when NCCL reports an error, another rank
has given up, or the time is over. What they left in memory is never used: `Work.wait` raises.

Never run on GPUs so far; tests/fake_nccl.py stands for them.
"""

import time
from collections.abc import Callable
from typing import Any

from minidl.device import Array, Device, load_nccl
from minidl.distributed.group import LONGEST, NOBODY, SHORTEST, DistributedError, ProcessGroup, ReduceOp, Work

# cupy.cuda.nccl's names for what a number is, and for how numbers are put together
DTYPES = {
    **{"int8": "INT8", "uint8": "UINT8", "int32": "INT32", "uint32": "UINT32", "int64": "INT64", "uint64": "UINT64"},
    **{"float16": "FLOAT16", "float32": "FLOAT32", "float64": "FLOAT64"},
}
OPS = {ReduceOp.SUM: "SUM", ReduceOp.PRODUCT: "PROD", ReduceOp.MIN: "MIN", ReduceOp.MAX: "MAX"}


class NCCL:
    """What a group's ranks send one another from GPU to GPU. DeviceError: CuPy finds no NCCL.

    Every rank must ask for the same exchanges in the same order, on its first, second, ... GPU.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group, self._library = group, load_nccl()
        self._communicators: dict[Device, Any] = {}

    def all_reduce(self, flat: Array, op: ReduceOp, device: Device) -> Work:
        """As ProcessGroup.all_reduce. TypeError: a dtype that NCCL does not know."""
        if flat.dtype.name not in DTYPES:
            raise TypeError(f"all_reduce: on a GPU a dtype must be of {', '.join(DTYPES)}, got {flat.dtype}")
        dtype, how = self._code(DTYPES[flat.dtype.name]), self._code(OPS[op])
        return self._begin(
            f"all_reduce of {flat.size} {flat.dtype} on {device}",
            *(flat, device),
            lambda communicator, at, stream: communicator.allReduce(at, at, flat.size, dtype, how, stream),
        )

    def broadcast(self, flat: Array, src: int, device: Device) -> Work:
        """As ProcessGroup.broadcast, of any dtype: bytes are sent."""
        dtype = self._code("UINT8")
        return self._begin(
            f"broadcast of {flat.size} {flat.dtype} on {device}",
            *(flat, device),
            lambda communicator, at, stream: communicator.broadcast(at, at, flat.nbytes, dtype, src, stream),
        )

    def close(self) -> None:
        """Give the communicators back."""
        while self._communicators:
            self._communicators.popitem()[1].destroy()

    def abort(self) -> None:
        """End what the GPUs wait for: the group is broken."""
        for communicator in self._communicators.values():
            communicator.abort()

    def _code(self, name: str) -> int:
        return getattr(self._library, f"NCCL_{name}")

    def _begin(self, what: str, flat: Array, device: Device, call: Callable[[Any, int, int], None]) -> Work:
        communicator = self._communicator(device)
        if flat.size == 0:
            return self._group.begin(lambda: None)
        if self._group.broken is not None:
            raise self._group.broken
        produced = device.record()
        with device.copying():
            device.copy_stream.wait_event(produced)
            try:
                call(communicator, flat.data.ptr, device.copy_stream.ptr)
            except (RuntimeError, KeyError) as error:  # CuPy looks for newer errors' names in a dict that lacks them
                raise DistributedError(f"{what}: NCCL refuses it: {error}", [self._group.rank], NOBODY) from error
            done = device.copy_stream.record()
        work = _OnGpu(lambda: self._watch(what, communicator, done, flat), device, done)
        return self._group.begin(work)

    def _watch(self, what: str, communicator: Any, done: Any, flat: Array) -> None:
        """On the group's thread: until the GPU is done with `flat`, which lives so long. DistributedError: it never will be."""
        pause, until = SHORTEST, time.monotonic() + self._group.timeout
        while not done.done:
            try:
                communicator.check_async_error()
            except (RuntimeError, KeyError) as error:
                text = f"{what}: NCCL reports {error}; another rank may have died"
                raise DistributedError(text, speaker=NOBODY) from error
            if time.monotonic() > until:
                raise self._group.missing(what)
            self._group.notice(what)
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST)

    def _communicator(self, device: Device) -> Any:
        """That of a GPU; at first all ranks meet. DistributedError: two ranks have one GPU, or are at other exchanges."""
        if device in self._communicators:
            return self._communicators[device]
        group, number = self._group, len(self._communicators)
        unique_id = self._library.get_unique_id() if group.rank == 0 else None
        told = group.gather((number, device.bus_id(), unique_id))
        seen: dict[tuple[str, str], int] = {}
        for rank, (theirs, gpu, _) in enumerate(told):
            if theirs != told[0][0]:
                text = f"nccl: rank 0 begins with its GPU number {told[0][0]}, {group.name(rank)} with its number {theirs}"
                raise DistributedError(f"{text}: every rank must use its GPUs in the same order", [rank])
            if (other := seen.setdefault((group.hosts[rank], gpu), rank)) != rank:
                both = f"ranks {other} and {rank} on {group.hosts[rank]} both have {gpu}"
                text = f"nccl: each rank must have a GPU of its own, {both}; see get_node_local_rank"
                raise DistributedError(text, [other, rank])
        with device.active():
            try:
                made = self._library.NcclCommunicator(group.size, told[0][2], group.rank)
            except (RuntimeError, KeyError) as error:
                text = f"nccl: {group.name(group.rank)} can't meet the others on {device}: {error}"
                raise DistributedError(text, [group.rank], NOBODY) from error
        self._communicators[device] = made
        return made


class _OnGpu(Work):
    """Done when the GPU is; whoever waits may then read the array on the device's stream."""

    def __init__(self, run: Callable[[], None], device: Device, done: Any) -> None:
        super().__init__(run)
        self._device, self._event = device, done

    def wait(self) -> bool:
        super().wait()
        with self._device.active():
            self._device.stream.wait_event(self._event)
        return True

    def result(self) -> None:
        self.wait()
