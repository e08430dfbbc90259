"""DistributedDataParallel: one network on several ranks, each with a share of the batch, and the mean of their gradients.

    forward    each rank computes its own images' loss
    backward   whenever a parameter's gradient is complete, it joins its bucket; a full bucket is summed over the ranks on the
               group's thread, while backward goes on with the layers before it
    at its end the rest is waited for, and every gradient is divided by the number of ranks

If each rank's loss is the mean over its images, and all have as many, then the mean of the gradients is the gradient of the
mean over the whole batch, since a gradient is linear in the loss: N ranks take the step that one with the whole batch takes.
Parameters are rank 0's at the start and get the same gradients, bit for bit, so they stay equal and are never sent again.

A bucket is there because a message costs time however short it is. Buckets are filled in the order in which the first backward
reached the parameters. What is in which bucket makes no difference to a single bit: see minidl/distributed/group.py.

A layer that looks at the whole batch is not this: batch_norm has the statistics of its rank's images, as PyTorch's has.
"""

import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from minidl import changes, random
from minidl import distributed as dist
from minidl.device import Array, Device, memory_order
from minidl.distributed import ProcessGroup, Work
from minidl.grad_mode import is_grad_enabled
from minidl.nn.module import Module, Parameter
from minidl.tensor import Function, Tensor, at_end_of_backward

_FIRST_BUCKET = 1 << 20  # bytes: so that the first message starts early


class DistributedDataParallel(Module):
    """`module`, whose gradients are the mean over the ranks after each backward. See the top of this file.

    bucket_cap_mb : gradients are sent when so many MiB are complete; the first bucket has one at most. A larger gradient has a
                    bucket of its own.
    broadcast_buffers : buffers are rank 0's in each forward that trains
    init_sync     : check that the ranks' modules are alike, and take rank 0's parameters and buffers
    process_group : that of all ranks if None
    find_unused_parameters : some parameters may be unused in a forward. They are found in the graph of its output, and count as
                    zeros; one that no rank used keeps the gradient that it had.

    Each rank's forward takes the images j * size + rank of the whole batch, for j = 0, 1, ..., as DistributedSampler and
    ImageLoader share them out; dropout then makes the masks that one rank with the whole batch would make.

    After a forward every parameter must get its gradient in one backward, or each in one of several; RuntimeError otherwise: by
    the next forward if some got none, by the backward if one gets a second. So two losses of one forward are added up first. In
    `no_sync` gradients are only added up, and the first backward outside sends the sums.

    device_ids, output_device and dim are taken for PyTorch's programs: the module stays on the devices that it is on, and
    device_ids may name the one. ValueError: other devices, no parameter that requires a gradient, ranks whose modules differ.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: ProcessGroup | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
    ) -> None:
        super().__init__()
        group = dist.get_group() if process_group is None else process_group
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not trained:
            raise ValueError("DistributedDataParallel: at least 1 parameter must require a gradient, got none")
        cap = 25.0 if bucket_cap_mb is None else bucket_cap_mb
        if cap <= 0:
            raise ValueError(f"DistributedDataParallel: bucket_cap_mb must be above 0, got {bucket_cap_mb}")
        _check_devices(module, device_ids, output_device)
        self.module, self.process_group, self.bucket_cap_mb = module, group, cap
        self.dim, self.broadcast_buffers, self.find_unused_parameters = dim, broadcast_buffers, find_unused_parameters
        self.require_backward_grad_sync = True
        self.communicated = self.waited = (
            0.0  # seconds of the last backward: what messages took, and what it waited for at its end
        )
        self._names = {p: name for name, p in trained}
        self._put_into_buckets([p for _, p in reversed(trained)])
        self._first = True  # backward's order is not known yet
        self._waiting: set[Parameter] = set()
        self._arrived: list[Parameter] = []
        self._unused: set[Parameter] = set()
        self._expecting = self._reduced = False
        self._next = 0
        if init_sync:
            _check_alike(module, group)
            _take_from(module, group, [*module.parameters(), *module.buffers()])
        for _, p in trained:
            p.register_post_accumulate_grad_hook(self._gradient_is_complete)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module returns for this rank's images."""
        syncs = self.require_backward_grad_sync and is_grad_enabled()
        if syncs:
            self._begin()
        elif not self._arrived:
            self._expecting = False
        self._reduced = False
        if self.broadcast_buffers and self.training and syncs:
            _take_from(self.module, self.process_group, list(self.module.buffers()))
        with self._places():
            output = self.module(*inputs, **kwargs)
        if syncs and self.find_unused_parameters:
            self._count_unused(output)
        return output

    def _places(self) -> AbstractContextManager[None]:
        """Which of the whole batch's images these are, unless it was said already."""
        group = self.process_group
        return random.placed(range(group.rank, sys.maxsize, group.size)) if random.places() is None else nullcontext()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forwards inside the block, and their backwards, send nothing: gradients are added up on each rank."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    # -------------------------------------------------------------------------------------------------- in backward

    def _begin(self) -> None:
        """A forward whose backward sends gradients."""
        if self._expecting and self._arrived:
            names = ", ".join(sorted(self._names[p] for p in self._waiting)[:5])
            raise RuntimeError(
                "DistributedDataParallel: every parameter must get a gradient before the next forward, "
                f"{len(self._waiting)} of {len(self._names)} got none ({names}); find_unused_parameters=True counts those that "
                "a forward does not use as 0"
            )
        self._waiting, self._arrived, self._unused = set(self._names), [], set()
        self._expecting, self._next = True, 0
        for bucket in self._buckets:
            bucket.missing, bucket.work = len(bucket.parameters), None

    def _count_unused(self, output: Any) -> None:
        reached = _leaves(output)
        self._unused = {p for p in self._waiting if p not in reached}
        for p in self._unused:
            self._waiting.discard(p)
            self._bucket_of[p].missing -= 1

    def _put_into_buckets(self, parameters: list[Parameter]) -> None:
        self._buckets = _fill(parameters, self.bucket_cap_mb)
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.parameters}

    def _gradient_is_complete(self, parameter: Any) -> None:
        """The hook of each parameter."""
        if not self.require_backward_grad_sync and not self._expecting:
            return
        if self._reduced or (self._expecting and parameter not in self._waiting):
            raise RuntimeError(
                f"DistributedDataParallel: a parameter must get its gradient once after each forward, {self._names[parameter]} "
                "got a second one after the first was sent; add up the losses of one forward, or run the first in no_sync()"
            )
        if not self._expecting:
            return
        self._waiting.discard(parameter)
        self._arrived.append(parameter)
        self._bucket_of[parameter].missing -= 1
        self._start_what_is_full()
        if not self._waiting:
            at_end_of_backward(self._finish)

    def _start_what_is_full(self) -> None:
        """In order, the same on all ranks."""
        while self._next < len(self._buckets) and self._buckets[self._next].missing == 0:
            bucket = self._buckets[self._next]
            where = self.process_group.where(bucket.device)
            bucket.work = self.process_group.all_reduce(bucket.pack(self._unused, where), device=where)
            self._next += 1

    def _finish(self) -> None:
        """All buckets are on their way: wait for them, and take the means."""
        self._expecting, self._reduced = False, True
        used = self._used_by_any() if self.find_unused_parameters else set(self._names)
        started = time.perf_counter()
        for bucket in self._buckets:
            _sent(bucket.work).wait()
            bucket.unpack(self.process_group.size, used)
        self.waited = time.perf_counter() - started
        self.communicated = sum(_sent(bucket.work).seconds for bucket in self._buckets)
        if self._first and not self.find_unused_parameters:
            self._first = False
            self._order_as_arrived()

    def _used_by_any(self) -> set[Parameter]:
        names = list(self._names)
        flags = np.array([p not in self._unused for p in names], np.uint8)
        self.process_group.all_reduce(flags, dist.ReduceOp.MAX).wait()
        return {p for p, used in zip(names, flags, strict=True) if used}

    def _order_as_arrived(self) -> None:
        """From now on buckets are filled in rank 0's order of this backward."""
        places = {p: i for i, p in enumerate(self._names)}
        order = np.array([places[p] for p in self._arrived], np.int64)
        self.process_group.broadcast(order, 0).wait()
        parameters = list(self._names)
        self._put_into_buckets([parameters[i] for i in order.tolist()])


def _sent(work: Work | None) -> Work:
    """The work of a bucket that was sent."""
    if work is None:
        raise RuntimeError("DistributedDataParallel: a bucket was not sent")
    return work


class _Bucket:
    """Parameters of one device and dtype, whose gradients travel together.

    places : where in the flat array each gradient lies
    where  : the device on which that array is: the gradients' own, or the host
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        self.device, self.dtype = parameters[0].device, parameters[0].dtype
        stops = np.cumsum([p.numel() for p in parameters]).tolist()
        self.places = {p: slice(a, b) for p, a, b in zip(parameters, [0, *stops], stops, strict=False)}
        self.size: int = stops[-1]
        self.missing = len(parameters)
        self.work: Work | None = None
        self.where = self.device
        self._flat: Array | None = None
        self._in_place = False  # is the flat array the gradient's own memory?

    def pack(self, unused: set[Parameter], where: Device) -> Array:
        """The gradients, one after the other in memory order: that memory itself if it is a single one's."""
        self.where = where
        here = where is self.device
        with where.active():
            if len(self.parameters) == 1 and here and self.parameters[0] not in unused:
                view = _in_memory_order(_grad(self.parameters[0]), self.parameters[0])
                if view.flags.c_contiguous:
                    self._flat, self._in_place = view.reshape(-1), True
                    return self._flat
            if self._flat is None or self._in_place:
                self._flat, self._in_place = where.xp.empty(self.size, self.dtype), False
            for p, place in self.places.items():
                if p in unused:
                    self._flat[place] = 0
                else:
                    view = _in_memory_order(_grad(p), p)
                    self._flat[place].reshape(view.shape)[...] = view if here else self.device.to_host(view)
        return self._flat

    def unpack(self, ranks: int, used: set[Parameter]) -> None:
        """The sums, divided, into the gradients of those parameters that a rank used."""
        flat = self._flat
        if flat is None:
            raise RuntimeError("DistributedDataParallel: a bucket was not packed")
        with self.where.active():
            flat /= ranks
        for p, place in self.places.items():
            if p not in used:
                continue
            with self.device.active():
                if p.grad is None:
                    p.grad = Tensor(self.device.xp.zeros_like(p.data), device=self.device)
                if not self._in_place:
                    there = _in_memory_order(_grad(p), p)
                    values = flat[place].reshape(there.shape)
                    there[...] = values if self.where is self.device else self.device.asarray(values)
            changes.note(_grad(p), "DistributedDataParallel")


def _grad(parameter: Parameter) -> Array:
    if parameter.grad is None:
        raise RuntimeError("DistributedDataParallel: a gradient was taken away before it was sent")
    return parameter.grad.data


def _in_memory_order(array: Array, like: Parameter) -> Array:
    """A view whose axes are in the parameter's memory order, which is the same on all ranks."""
    return array.transpose(memory_order(like.data))


def _fill(parameters: list[Parameter], cap_mb: float) -> list[_Bucket]:
    """Buckets in this order, each of one device and dtype."""
    buckets: list[list[Parameter]] = []
    open_ones: dict[tuple[Device, np.dtype], tuple[list[Parameter], int]] = {}
    for p in parameters:
        key = p.device, p.dtype
        bucket, size = open_ones.get(key, ([], 0))
        cap = min(_FIRST_BUCKET, cap_mb * 2**20) if bucket and bucket is buckets[0] else cap_mb * 2**20
        if not bucket or size + p.data.nbytes > cap:
            bucket, size = [], 0
            buckets.append(bucket)
        bucket.append(p)
        open_ones[key] = bucket, size + p.data.nbytes
    place = {p: i for i, p in enumerate(parameters)}
    return [_Bucket(bucket) for bucket in sorted(buckets, key=lambda bucket: place[bucket[-1]])]  # as they get full


def _leaves(output: Any) -> set[Any]:
    """The leaves of the graphs behind all tensors in an output: tensors, and lists, tuples and dicts of them."""
    found: set[Any] = set()
    waiting = [output]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, (list, tuple)):
            waiting += thing
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, Tensor) and thing._node is not None:
            waiting.append(thing._node)
        elif isinstance(thing, (Tensor, Function)) and thing not in found:
            found.add(thing)
            waiting += thing._edges if isinstance(thing, Function) else ()
    return found


def _check_devices(module: Module, device_ids: Sequence[Any] | None, output_device: Any) -> None:
    devices = list(dict.fromkeys(p.device for p in module.parameters()))
    for name in [*(device_ids or ()), *([] if output_device is None else [output_device])]:
        if [Device(name)] != devices:
            raise ValueError(
                f"DistributedDataParallel: device_ids and output_device must be the module's one device, got {name} for a "
                f"module on {', '.join(map(str, devices))}; None for a module on several"
            )


def _check_alike(module: Module, group: ProcessGroup) -> None:
    """ValueError unless all ranks have the same parameters and buffers, by name, shape, dtype, memory layout and
    which of its devices they are on."""
    named = [*module.named_parameters(), *module.named_buffers()]
    devices = list(dict.fromkeys(t.device for _, t in named))  # of each rank its own; which of them must be the same
    own = [
        f"{name} {t.dtype} {tuple(t.shape)} in memory order {memory_order(t.data)}, requires_grad {t.requires_grad}, on its "
        f"{t.device.kind} device {devices.index(t.device)}"
        for name, t in named
    ]
    everyone = dist.gather(own, group)
    for rank, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            here, there = next(
                ((a, b) for a, b in zip(everyone[0], theirs, strict=False) if a != b),
                (f"{len(everyone[0])} tensors", f"{len(theirs)} tensors"),
            )
            raise ValueError(
                f"DistributedDataParallel: all ranks must have the same module, rank 0 has {here}, {group.name(rank)} {there}"
            )


def _take_from(module: Module, group: ProcessGroup, tensors: list[Any], src: int = 0) -> None:
    """Overwrite tensors with those of rank `src`, in memory order. DistributedError if a rank then has other bytes."""
    if group.size == 1 or not tensors:
        return
    checksum = 0
    for tensor in tensors:
        device, where = tensor.device, group.where(tensor.device)
        there = _in_memory_order(tensor.data, tensor)
        with where.active():
            flat = where.xp.ascontiguousarray(there if where is device else device.to_host(there)).reshape(-1)
        group.broadcast(flat, src, where).wait()
        with device.active():
            there[...] = flat.reshape(there.shape) if where is device else device.asarray(flat.reshape(there.shape))
        changes.note(tensor.data, "DistributedDataParallel")
        checksum = zlib.crc32(where.to_host(flat).data.cast("B"), checksum)
    differ = [rank for rank, theirs in enumerate(dist.gather(checksum, group)) if theirs != checksum]
    if differ:
        raise dist.DistributedError(
            f"DistributedDataParallel: all ranks must have the same {len(tensors)} tensors after a broadcast, "
            f"{group.name(differ[0])} has others than {group.name(group.rank)}",
            differ,
        )
