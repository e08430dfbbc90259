"""Training by several processes, each with a share of every batch: PyTorch's `torch.distributed`, as far as that takes.

    mpiexec -n 4 python program.py

    import minidl.distributed as dist

    dist.init_process_group()                      # which of the four am I?
    model = nn.parallel.DistributedDataParallel(model)
    sampler = data.DistributedSampler(dataset)     # this rank's samples
    ...                                            # as with one process
    dist.destroy_process_group()

How ranks add up, and why the sum is bit-equal from run to run, is in minidl/distributed/group.py; MPI is in mpi.py. What is on
GPUs goes by NCCL, in nccl.py; ranks that torchrun started meet in rendezvous.py and tcp.py. The page docs/distributed.md has
the rest.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from minidl import changes, parallel
from minidl.device import Array, Device, DeviceError, load_nccl
from minidl.distributed import rendezvous
from minidl.distributed.group import DistributedError as DistributedError
from minidl.distributed.group import ProcessGroup as ProcessGroup
from minidl.distributed.group import ReduceOp as ReduceOp
from minidl.distributed.group import Work as Work
from minidl.distributed.mpi import MPIGroup
from minidl.distributed.nccl import NCCL
from minidl.distributed.tcp import TCPGroup
from minidl.tensor import Tensor

TIMEOUT = 600.0  # seconds
MPIEXEC = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")  # what MPICH and Intel MPI, PRRTE, Open MPI set

_world: ProcessGroup | None = None


def init_process_group(backend: str | None = None, timeout: timedelta | float | None = None) -> None:
    """Meet the other ranks. Every rank must call it, once, before anything else here.

    backend : "mpi": what is on GPUs is copied to the host, and back. "nccl": it goes from GPU to GPU; what is on the host goes
              as before. None: "nccl" if every rank has a GPU and NCCL, else "mpi"
    timeout : how long a rank waits for the others, 600 seconds by default; then DistributedError, in all that wait

    Ranks meet by MPI; if torchrun started them and mpiexec did not, where its variables say, unless the backend is "mpi".
    Each rank takes GPUs of its own: cuda:r for its get_node_local_rank() r, or with two towers cuda:2r and cuda:(2r+1).

    Ranks on one host share its cores: each gets its part as `minidl.set_num_threads`, unless OMP_NUM_THREADS says otherwise.
    An exception that ends one rank's program ends all of them.
    ValueError: another backend, torchrun's variables are wrong, or ranks that it started are to meet by MPI. RuntimeError: it
    was called before. ModuleNotFoundError: no mpi4py. DeviceError: "nccl" without a GPU or NCCL on a rank. DistributedError:
    the ranks do not meet.
    """
    global _world
    if backend not in (None, "mpi", "nccl"):
        raise ValueError(f"init_process_group: backend must be 'mpi', 'nccl' or None, got {backend!r}")
    if _world is not None:
        raise RuntimeError("init_process_group: was called before; destroy_process_group ends a group")
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else TIMEOUT if timeout is None else timeout
    if seconds <= 0:
        raise ValueError(f"init_process_group: timeout must be above 0 seconds, got {seconds}")
    by_mpi = (
        backend == "mpi" or not rendezvous.is_asked_for() or (_has_mpi4py() and any(name in os.environ for name in MPIEXEC))
    )
    world = MPIGroup(seconds) if by_mpi else TCPGroup(seconds)
    expected = os.environ.get("WORLD_SIZE", "1")
    if by_mpi and world.size == 1 and expected != "1":
        world.close()
        raise ValueError(
            f"init_process_group: WORLD_SIZE is {expected}, MPI knows 1 rank: start the program with mpiexec, or, for ranks "
            "that torchrun started, leave the backend out"
        )
    if backend != "mpi":
        _take_nccl(world, backend == "nccl")
    _world = world
    if "OMP_NUM_THREADS" not in os.environ:
        parallel.set_num_threads(max(parallel.get_num_threads() // _world.local_size, 1))


def _take_nccl(world: ProcessGroup, must: bool) -> None:
    """Give the group NCCL if every rank has it. DeviceError on all ranks if one has not, but must."""
    lacking = ""
    try:
        load_nccl()
    except DeviceError as error:
        lacking = str(error)
    told = world.gather(lacking)
    rank = next((rank for rank, text in enumerate(told) if text), None)
    if rank is None:
        world.nccl = NCCL(world)
    elif must:
        world.close()
        raise DeviceError(f"init_process_group: backend 'nccl' needs NCCL on every rank, {world.name(rank)} says: {told[rank]}")


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Wait for all ranks, and leave the group. RuntimeError without one."""
    global _world
    group, was_world = _group(group), group is None or group is _world
    barrier(group)
    group.close()
    if was_world:
        _world = None


def is_available() -> bool:
    """Could init_process_group work: is mpi4py installed, or has torchrun set its variables?"""
    return _has_mpi4py() or rendezvous.is_asked_for()


def _has_mpi4py() -> bool:
    from importlib.util import find_spec

    return find_spec("mpi4py") is not None


def is_initialized() -> bool:
    """Is there a group of all ranks?"""
    return _world is not None


def get_rank(group: ProcessGroup | None = None) -> int:
    """Which rank this process is, 0 ... world size - 1. RuntimeError without a group."""
    return _group(group).rank


def get_node_local_rank(group: ProcessGroup | None = None) -> int:
    """Which of the ranks on its machine this process is, 0 at first; so which GPU it takes. RuntimeError without a group."""
    return _group(group).local_rank


def get_world_size(group: ProcessGroup | None = None) -> int:
    """How many ranks there are. RuntimeError without a group."""
    return _group(group).size


def all_reduce(
    tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: ProcessGroup | None = None, async_op: bool = False
) -> "Work | None":
    """Put a tensor together with those of the other ranks, in place: all ranks then hold the same bits.

    Every rank must call it with the same shape and dtype. Elements are put together in the order of the ranks; by NCCL, in one
    that NCCL chooses.
    async_op : return a Work at once; the tensor is whole after its wait(). RuntimeError without a group.
    """
    group = _group(group)
    return _exchange("all_reduce", tensor, lambda flat, where: group.all_reduce(flat, op, where), group, async_op)


def broadcast(tensor: Tensor, src: int = 0, group: ProcessGroup | None = None, async_op: bool = False) -> "Work | None":
    """Overwrite a tensor with that of rank `src`. Every rank must call it with the same shape and dtype.

    async_op : as for all_reduce. ValueError: there is no such rank.
    """
    group = _group(group)
    if not 0 <= src < group.size:
        raise ValueError(f"broadcast: src must be a rank in [0, {group.size}), got {src}")
    return _exchange("broadcast", tensor, lambda flat, where: group.broadcast(flat, src, where), group, async_op)


def barrier(group: ProcessGroup | None = None) -> None:
    """Wait until every rank is here."""
    _group(group).all_gather_bytes(b"").wait()


def all_gather_object(object_list: list[Any], obj: Any, group: ProcessGroup | None = None) -> None:
    """object_list[r] = rank r's obj, on all ranks.

    Nothing is pickled, so an object is one that minidl/distributed/message.py can write: numbers, strings, arrays, and lists,
    tuples and dicts of them; TypeError otherwise. ValueError unless the list has a place for each rank.
    """
    group = _group(group)
    if len(object_list) != group.size:
        raise ValueError(f"all_gather_object: object_list must have {group.size} places, one a rank, got {len(object_list)}")
    object_list[:] = gather(obj, group)


def gather(obj: Any, group: ProcessGroup | None = None) -> list[Any]:
    """Each rank's object, by rank, on all ranks: all_gather_object with a list of its own."""
    return _group(group).gather(obj)


def abort(code: int = 1, group: ProcessGroup | None = None) -> None:
    """End all ranks at once. What this process has written must be flushed."""
    _group(group).abort(code)


def get_group() -> ProcessGroup:
    """The group of all ranks. RuntimeError without one."""
    return _group(None)


def _group(group: ProcessGroup | None) -> ProcessGroup:
    group = _world if group is None else group
    if group is None:
        raise RuntimeError("minidl.distributed: there is no process group yet; call init_process_group first")
    return group


class _Unpacked(Work):
    """The work on a copy, whose result goes back into the tensor at its end."""

    def __init__(self, work: Work, tensor: Tensor, packed: Array, on_gpu: bool, by: str) -> None:
        self._work, self._tensor, self._packed, self._on_gpu, self._by = work, tensor, packed, on_gpu, by

    def wait(self) -> bool:
        self._work.wait()
        tensor = self._tensor
        if self._packed is not tensor.data:
            with tensor.device.active():
                values = self._packed.reshape(tensor.shape)
                tensor.data[...] = values if self._on_gpu else tensor.device.asarray(values)
        changes.note(tensor.data, self._by)
        return True

    def result(self) -> Any:
        return self.wait()

    def is_completed(self) -> bool:
        return self._work.is_completed()


def _exchange(
    by: str, tensor: Tensor, begin: Callable[[Array, Device], Work], group: ProcessGroup, async_op: bool
) -> Work | None:
    where = group.where(tensor.device)
    there = tensor.data if where is tensor.device else tensor.device.to_host(tensor.data)
    with where.active():
        packed = where.xp.ascontiguousarray(there)
        flat = packed.reshape(-1)
    work = _Unpacked(begin(flat, where), tensor, packed, where.kind == "cuda", by)
    if async_op:
        return work
    work.wait()
    return None


__all__: Sequence[str] = [
    "DistributedError",
    "ProcessGroup",
    "ReduceOp",
    "Work",
    "abort",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "destroy_process_group",
    "gather",
    "get_group",
    "get_node_local_rank",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_initialized",
]
