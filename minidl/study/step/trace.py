"""What the ops of a step did: an observer that keeps a record of each, with measured bytes.

Bytes are those of memory, not of arrays: views share their memory with what they are views of, and an array that two ops save
is kept once. The first op that makes or saves a piece of memory is the one it is counted for.

Workspace is the memory that an op needs for a while beyond what it was given and what it leaves. On the host it is measured by
Python's tracemalloc, which NumPy reports to, on one thread and with no memory left over from before; on a GPU by CuPy's memory
hook, in bytes as they were asked for.
"""

import math
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl import memory, parallel
from minidl.device import Array, Device, GpuMemory, count_traffic, watch_gpu_memory
from minidl.observer import Observer
from minidl.tensor import Tensor


@dataclass
class OpRecord:
    """One op of a step. Bytes of arrays in memory; shapes as in the API, images (N, C, H, W)."""

    number: int
    op: str
    layer: str | None  # the innermost module's name; None outside modules
    is_layer: bool  # that module has no modules inside: the op is what a layer does, not what happens between layers
    device: str
    inputs: list[tuple[str, tuple[int, ...]]]  # parameters by name, others as x, y, ...
    output: tuple[int, ...]
    settings: dict[str, Any]
    parameters: dict[int, int] = field(default_factory=dict)  # id of each parameter among the inputs -> its elements
    weighted: bool = False  # its outputs are a network's neurons
    needs_gradient: bool = False  # False for what happens to the batch alone
    macs_forward: int = 0  # multiply-adds
    macs_backward: int = 0
    output_bytes: int = 0  # of new memory that the output is in; 0 for a view
    saved_bytes: int = 0  # of memory kept for backward, which no op before kept, parameters left out
    workspace_forward: int = 0
    workspace_backward: int = 0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    forward_event: int = 0  # its number among the trace's events
    backward_event: int | None = None  # None if no gradient reached it
    freed_event: int | None = None  # the event after which what it saved was dropped; None if it was kept
    crossing_forward: dict[tuple[str, str], int] = field(default_factory=dict)  # (from, to) -> bytes
    crossing_backward: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The layer's name, where there is one, and the op's."""
        return self.op if self.layer is None else f"{self.layer} ({self.op})"


@dataclass
class Piece:
    """Memory that ops handed over: from the event in which it was seen first to the one in which, or after which, it went."""

    owner: str
    nbytes: int
    born: int
    gone: int | None = None

    def alive(self, event: int) -> bool:
        return self.born <= event and (self.gone is None or event <= self.gone)


class Trace(Observer):
    """Records every op that runs inside the block, forward and backward.

        with Trace() as trace:
            model(images).sum().backward()

    records : an OpRecord for each op, in the order of forward
    events  : "conv1 forward", "relu1 forward", ..., "conv1 backward": every op's runs, in order
    pieces  : the memory of inputs, outputs, gradients and of what was saved
    workspace : measure it too, with what `alone()` around the block gave. It is slower.
    """

    def __init__(self, workspace: "Meter | None" = None) -> None:
        self.records: list[OpRecord] = []
        self.events: list[str] = []
        self.pieces: list[Piece] = []
        self._workspace = workspace
        self._of_node: weakref.WeakKeyDictionary[Any, OpRecord] = weakref.WeakKeyDictionary()
        self._known: dict[int, weakref.ref[Any]] = {}  # id of a piece of memory that is alive
        self._saved: set[int] = set()  # ids of those that a node saved
        self._made_to_save = 0  # bytes that the present op made and saved, beside its output

    def forward_begins(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
        modules = node.layer.modules
        tensors = [(name, x) for name, x in zip(node.layer.names_of(inputs), inputs, strict=True) if isinstance(x, Tensor)]
        record = OpRecord(
            number=len(self.records),
            op=node.name,
            layer=node.layer.name(),
            is_layer=bool(modules) and next(modules[-1].children(), None) is None,
            device="",
            inputs=[(name, x.shape) for name, x in tensors],
            output=(),
            settings=dict(settings),
            weighted=node.weighted,
            parameters={id(x): x.data.size for _, x in tensors if _is_parameter(x, modules)},
        )
        record.forward_event = self._new_event(record.title, "forward")
        for name, x in tensors:
            self._meet(x.data, name if id(x) in record.parameters else "the batch")
        self.records.append(record)
        self._of_node[node] = record
        self._begin(node)

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        record = self._of_node[node]
        record.forward_seconds, peak, record.crossing_forward = self._end(node)
        record.output, record.device, record.needs_gradient = out.shape, str(out.device), any(node.needs_grad)
        record.output_bytes = self._meet(out.data, f"{record.title}: output")
        weights = {id(memory.owner(x.data)) for x in inputs if isinstance(x, Tensor) and id(x) in record.parameters}
        record.saved_bytes = self._newly_saved(record, node.saved, weights)
        record.workspace_forward = max(peak - record.output_bytes - self._made_to_save, 0)
        product = _multiply_adds(node, inputs, out)
        record.macs_forward, record.macs_backward = product, product * sum(node.needs_grad[:2])

    def backward_begins(self, node: Any, gy: Array) -> None:
        record = self._of_node.get(node)
        event = self._new_event(node.name if record is None else record.title, "backward")
        self._meet(gy, "the gradient that backward began with")
        if record is not None:
            record.backward_event = event
        self._begin(node)

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        seconds, peak, crossing = self._end(node)
        record = self._of_node.get(node)
        title = node.name if record is None else record.title
        named = zip(node.layer.names_of(node._edges), gradients, strict=True)
        made = sum(self._meet(gx, f"{title}: gradient of {name}") for name, gx in named if gx is not None)
        if record is not None:
            record.backward_seconds, record.crossing_backward = seconds, crossing
            record.workspace_backward = max(peak - made, 0)

    def saved_is_freed(self, node: Any) -> None:
        if node in self._of_node and node.saved:
            self._of_node[node].freed_event = len(self.events) - 1

    def leaf_has_gradient(self, tensor: Tensor) -> None:
        if tensor.grad is not None:
            self._meet(tensor.grad.data, "gradient of a leaf")

    def _new_event(self, title: str, phase: str) -> int:
        self.events.append(f"{title} {phase}")
        return len(self.events) - 1

    def _begin(self, node: Any) -> None:
        self._traffic = count_traffic()
        self._seen = self._traffic.__enter__()
        if self._workspace:
            self._workspace.begin()
        node.device.synchronize()
        self._started = time.perf_counter()

    def _end(self, node: Any) -> tuple[float, int, dict[tuple[str, str], int]]:
        """Seconds and the peak of the memory since _begin, and what crossed between devices."""
        node.device.synchronize()
        seconds = time.perf_counter() - self._started
        peak = self._workspace.peak(node.device) if self._workspace else 0
        self._traffic.__exit__(None, None, None)
        return seconds, peak, dict(self._seen)

    def _meet(self, array: Array, owner: str) -> int:
        """The bytes of an array's memory if it was not seen before, else 0."""
        block = memory.owner(array)
        if id(block) in self._known or isinstance(block, np.generic):  # a NumPy number is no array
            return 0
        piece = Piece(owner, block.nbytes, len(self.events) - 1)
        self.pieces.append(piece)
        self._known[id(block)] = weakref.ref(block, self._forget(id(block), piece))
        return block.nbytes

    def _forget(self, key: int, piece: Piece) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            piece.gone = len(self.events) - 1
            del self._known[key]
            self._saved.discard(key)

        return forget

    def _newly_saved(self, record: OpRecord, saved: Sequence[Any], weights: set[int]) -> int:
        """The bytes that the op keeps and no op before it kept; notes those that it made beside its output."""
        total = self._made_to_save = 0
        for array in saved:
            if not hasattr(array, "nbytes"):
                continue
            block = memory.owner(array)
            self._made_to_save += self._meet(array, f"{record.title}: saved")
            if id(block) not in self._saved and id(block) not in weights:
                self._saved.add(id(block))
                total += block.nbytes
        return total


class Meter:
    """The memory that something takes: of the host, and of GPUs."""

    def __init__(self, gpu: GpuMemory) -> None:
        self._gpu = gpu

    def begin(self) -> None:
        """Peaks count from here on."""
        memory.release()
        parallel.release_scratch()
        tracemalloc.reset_peak()
        self._gpu.reset()
        self._before = tracemalloc.get_traced_memory()[0], self._gpu.in_use

    def peak(self, device: Device) -> int:
        """The most bytes since then that were in use at a time, beyond those of then: of the host, or of all GPUs."""
        on_host, on_gpu = self._before
        return tracemalloc.get_traced_memory()[1] - on_host if device.kind == "cpu" else self._gpu.peak - on_gpu


@contextmanager
def alone() -> Iterator[Meter]:
    """One compute thread, and a meter of the memory that is taken on it."""
    threads, tracing = parallel.get_num_threads(), tracemalloc.is_tracing()
    parallel.set_num_threads(1)
    if not tracing:
        tracemalloc.start()
    try:
        with watch_gpu_memory() as gpu:
            yield Meter(gpu)
    finally:
        if not tracing:
            tracemalloc.stop()
        parallel.set_num_threads(threads)


def _is_parameter(x: Tensor, modules: Sequence[Any]) -> bool:
    return any(x is p for module in modules[-1:] for p in module.parameters(recurse=False))


def _multiply_adds(node: Any, inputs: Sequence[Any], out: Tensor) -> int:
    """Of an op that is a matrix product; an addition of a bias is not counted."""
    if node.weighted:
        return out.data.size * math.prod(inputs[1].shape[1:])
    if node.name == "matmul":
        return out.data.size * inputs[0].shape[-1]
    return 0
