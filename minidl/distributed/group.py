"""A process group: ranks that add up arrays, in a fixed order.

A *rank* is one of the processes that train together, 0 ... size - 1. Each holds a copy of the parameters and sees a share of
every batch. The gradients are summed over the ranks in three steps, at a ring's cost but without a ring's order:

    1. swap    every array is cut into `size` parts; rank r gets part r of all ranks
    2. sum     rank r adds its parts up: ((x[0] + x[1]) + x[2]) + ..., in the order of the ranks
    3. gather  every rank gets the sums of all parts

A rank sends size - 1 parts in step 1 and as many in step 3: 2 (size - 1) / size times the array, the least that an all-reduce
can do. The order of the sum does not depend on the network, on timing, nor on how arrays are put into buckets: so results are
bit-equal from run to run with as many ranks; and each part is summed once and then copied, so all ranks hold the same bits.

What the ranks send one another runs on a thread of its own, first come first served, while the program computes. A subclass has
the transport: `_swap`, `_gather`, `_spread` and `_gather_bytes`, which that thread alone calls.

That is for arrays on the host. Those on GPUs go from GPU to GPU where the group has NCCL (nccl.py), in an order that NCCL
chooses.
"""

import enum
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.device import Array, Device, count_exchange
from minidl.distributed.message import decode, encode

if TYPE_CHECKING:
    from minidl.distributed.nccl import NCCL

NOBODY = -1
SHORTEST, LONGEST = 20e-6, 0.5e-3  # seconds between two looks at what others must do
ROLL = 2.0  # seconds for the others to answer, or for the one that speaks to do so


class ReduceOp(enum.Enum):
    """How all_reduce puts the ranks' elements together."""

    SUM = "add"
    PRODUCT = "multiply"
    MIN = "minimum"
    MAX = "maximum"


class DistributedError(RuntimeError):
    """The ranks can't go on together; the text names the rank, its host and the cause.

    ranks   : those at fault, where that is known
    speaker : the one rank that should say so; the others have the same error and can end silently. NOBODY if whoever is to
              blame may say more
    """

    def __init__(self, text: str, ranks: Sequence[int] = (), speaker: int = 0) -> None:
        super().__init__(text)
        self.ranks, self.speaker = tuple(ranks), speaker


class Work:
    """Something that the ranks do together while the program goes on.

    seconds : how long it took from its turn to its end, once it is done
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run, self._done = run, Future[Any]()
        self.seconds = 0.0

    def wait(self) -> bool:
        """Until it is done; what went wrong is raised here. True, as PyTorch's."""
        self._done.result()
        return True

    def result(self) -> Any:
        """Wait, and return what came."""
        return self._done.result()

    def is_completed(self) -> bool:
        """Is it done?"""
        return self._done.done()

    def perform(self, broken: BaseException | None) -> BaseException | None:
        """On the group's thread: do it, unless the group is broken. What went wrong."""
        started = time.perf_counter()
        try:
            if broken is not None:
                raise broken
            result = self._run()
        except BaseException as error:
            self._done.set_exception(error)
            return error
        self.seconds = time.perf_counter() - started
        self._done.set_result(result)
        return None


class ProcessGroup:
    """`size` ranks of which this process is `rank`; `hosts` has each rank's machine.

    timeout : seconds that a rank waits for the others, then DistributedError
    nccl    : what takes arrays on GPUs, or None: then they are copied to the host
    broken  : what went wrong, or None

    Every rank must start the same exchanges in the same order. After one that failed, all later ones fail likewise.
    """

    def __init__(self, rank: int, size: int, hosts: Sequence[str], timeout: float) -> None:
        self.rank, self.size, self.hosts, self.timeout = rank, size, list(hosts), timeout
        self.nccl: NCCL | None = None
        self.broken: BaseException | None = None
        self._jobs: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"minidl-rank-{rank}", daemon=True)
        self._thread.start()

    @property
    def local_rank(self) -> int:
        """Which of the ranks on its host this is, 0 at first."""
        return self.hosts[: self.rank].count(self.hosts[self.rank])

    @property
    def local_size(self) -> int:
        """How many ranks are on its host."""
        return self.hosts.count(self.hosts[self.rank])

    def name(self, rank: int) -> str:
        """ "rank 2 on node7"."""
        return f"rank {rank} on {self.hosts[rank]}"

    # ---------------------------------------------------------------------------------------------------- exchanges

    def where(self, device: Device) -> Device:
        """Where arrays of this device must be for all_reduce and broadcast: there, or on the host."""
        return device if device.kind == "cpu" or self.nccl is not None else Device("cpu")

    def all_reduce(self, flat: Array, op: ReduceOp = ReduceOp.SUM, device: Device | None = None) -> Work:
        """Begin to put a 1-d C-contiguous array together with the other ranks', in place. It must be left alone meanwhile.

        device : the GPU that it is on, see `where`; None for the host
        """
        if device is not None and device.kind == "cuda" and self.nccl is not None:
            return self.nccl.all_reduce(flat, op, device)
        return self.begin(lambda: self._all_reduce(flat, op))

    def broadcast(self, flat: Array, src: int, device: Device | None = None) -> Work:
        """Begin to overwrite a 1-d C-contiguous array with that of rank `src`. device: as for all_reduce."""
        if device is not None and device.kind == "cuda" and self.nccl is not None:
            return self.nccl.broadcast(flat, src, device)
        return self.begin(lambda: self._spread(flat, src))

    def all_gather_bytes(self, payload: bytes) -> Work:
        """Begin to collect every rank's bytes: the result is a list, by rank."""
        return self.begin(lambda: self._gather_bytes(payload))

    def gather(self, obj: Any) -> list[Any]:
        """Each rank's object, by rank, on all ranks; what an object is says minidl/distributed/message.py."""
        return [decode(payload) for payload in self.all_gather_bytes(encode(obj)).result()]

    def close(self) -> None:
        """End the thread, after what was begun."""
        self._jobs.put(None)
        self._thread.join(self.timeout)
        if self.nccl is not None:
            self.nccl.close()

    def abort(self, code: int) -> None:
        """End all ranks at once with this exit code. What this process has written must be flushed."""
        raise NotImplementedError(f"{type(self).__name__}: abort is missing")

    def end_all(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """What ends this program's main thread ends all ranks, which would wait for it else: for sys.excepthook."""
        sys.__excepthook__(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(error, DistributedError) and error.speaker != self.rank:
            time.sleep(ROLL)  # the speaker ends all when it has spoken
        self.abort(1)

    def begin(self, work: "Work | Callable[[], Any]") -> Work:
        """Have work done on the group's thread, when its turn comes."""
        work = work if isinstance(work, Work) else Work(work)
        self._jobs.put(work)
        return work

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            self.broken = work.perform(self.broken)
            if self.broken is not None and self.nccl is not None:
                self.nccl.abort()
            del work  # or its arrays would live until the next one comes

    def _all_reduce(self, flat: np.ndarray, op: ReduceOp) -> None:
        if self.size == 1:
            return
        bounds = [share(len(flat), rank, self.size) for rank in range(self.size)]
        parts = self._swap(flat, bounds)
        put_together = getattr(np, op.value)
        total = parts[0]
        for part in parts[1:]:
            put_together(total, part, out=total)
        self._gather(total, flat, bounds)
        own = bounds[self.rank][1] - bounds[self.rank][0]
        count_exchange((flat.size - own + own * (self.size - 1)) * flat.itemsize)

    # ---------------------------------------------------------------------------------------------------- transport

    def _swap(self, flat: np.ndarray, bounds: list[tuple[int, int]]) -> np.ndarray:
        """flat[a:b] goes to rank r for (a, b) = bounds[r] -> (size, own part), what came from each rank."""
        raise NotImplementedError

    def _gather(self, own: np.ndarray, flat: np.ndarray, bounds: list[tuple[int, int]]) -> None:
        """flat[a:b] = `own` of rank r, for (a, b) = bounds[r]."""
        raise NotImplementedError

    def _spread(self, flat: np.ndarray, src: int) -> None:
        """flat = that of rank `src`."""
        raise NotImplementedError

    def _gather_bytes(self, payload: bytes) -> list[bytes]:
        """Each rank's payload."""
        raise NotImplementedError

    def notice(self, what: str) -> None:
        """Looked at now and then by who waits for no message but for NCCL: DistributedError if another rank has given up."""

    def missing(self, what: str) -> DistributedError:
        """Somebody did not come in time."""
        return DistributedError(f"{what}: every rank must come within {self.timeout:g} s", speaker=NOBODY)


def share(n: int, rank: int, size: int) -> tuple[int, int]:
    """Which of n things in a row are a rank's: (first, stop). The shares differ by one thing at most."""
    return n * rank // size, n * (rank + 1) // size
