"""What the ops of a step did: an observer that keeps a record of each, with measured bytes.

Bytes are those of memory, not of arrays: views share their memory with what they are views of, and an array that two ops save
is kept once. The first op that makes or saves a piece of memory is the one it is counted for.

Workspace is the memory that an op needs for a while beyond what it was given and what it leaves: measured by Python's
tracemalloc, which NumPy reports to, on one thread and with no memory left over from before.
"""

import math
import tracemalloc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from minidl import memory, parallel
from minidl.device import Array, count_traffic
from minidl.observer import Observer
from minidl.tensor import Tensor

WEIGHTED = ("conv2d", "conv2d_relu", "linear")  # the ops whose outputs are a network's neurons


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
    needs_gradient: bool = False  # False for what happens to the batch alone
    macs_forward: int = 0  # multiply-adds
    macs_backward: int = 0
    output_bytes: int = 0  # of new memory that the output is in; 0 for a view
    saved_bytes: int = 0  # of memory kept for backward, which no op before kept, parameters left out
    workspace_forward: int = 0
    workspace_backward: int = 0
    crossing_forward: dict[tuple[str, str], int] = field(default_factory=dict)  # (from, to) -> bytes
    crossing_backward: dict[tuple[str, str], int] = field(default_factory=dict)


class Trace(Observer):
    """Records every op that runs inside the block: `records`, in order, completed by backward.

        with Trace() as trace:
            model(images).sum().backward()

    workspace : measure it too. Needs `alone()` around the block to be exact, and is slower.
    """

    def __init__(self, workspace: bool = False) -> None:
        self.records: list[OpRecord] = []
        self._workspace = workspace
        self._of_node: weakref.WeakKeyDictionary[Any, OpRecord] = weakref.WeakKeyDictionary()
        self._known: dict[int, Any] = {}  # the memory that was seen, held so that its id stays its own
        self._saved: set[int] = set()
        self._traffic: Any = None
        self._seen: Any = None
        self._before = 0  # bytes in use when the present op began
        self._new_extra = 0  # bytes of memory that the present op made and saved, and that is not its output's

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._known.clear()
        self._saved.clear()

    def forward_begins(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        for x in tensors:
            self._is_new(x.data)
        modules = node.layer.modules
        record = OpRecord(
            len(self.records),
            node.name,
            node.layer.name(),
            bool(modules) and not any(True for _ in modules[-1].children()),
            str(node.device),
            [(name, x.shape) for name, x in zip(node.layer.names_of(inputs), inputs, strict=True) if isinstance(x, Tensor)],
            (),
            dict(settings),
            {id(x): x.data.size for x in tensors if _is_parameter(x, modules)},
        )
        self.records.append(record)
        self._of_node[node] = record
        self._begin()

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        record = self._of_node[node]
        peak, record.crossing_forward = self._end()
        record.output, record.device, record.needs_gradient = out.shape, str(out.device), any(node.needs_grad)
        record.output_bytes = self._is_new(out.data)
        weights = {id(memory_of(x.data)) for x in inputs if isinstance(x, Tensor) and id(x) in record.parameters}
        record.saved_bytes = self._newly_saved(node, weights)
        record.workspace_forward = max(peak - record.output_bytes - self._new_extra, 0)
        product = _multiply_adds(node.name, inputs, out)
        record.macs_forward, record.macs_backward = product, product * sum(node.needs_grad[:2])

    def backward_begins(self, node: Any, gy: Array) -> None:
        self._begin()

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        record = self._of_node.get(node)
        peak, crossing = self._end()
        if record is not None:
            made = {id(memory_of(gx)): gx for gx in gradients if gx is not None and memory_of(gx) is not memory_of(gy)}
            record.crossing_backward = crossing
            record.workspace_backward = max(peak - sum(memory_of(gx).nbytes for gx in made.values()), 0)

    def _begin(self) -> None:
        self._traffic = count_traffic()
        self._seen = self._traffic.__enter__()
        if self._workspace:
            memory.release()
            parallel.release_scratch()
            tracemalloc.reset_peak()
            self._before = tracemalloc.get_traced_memory()[0]

    def _end(self) -> tuple[int, dict[tuple[str, str], int]]:
        """The peak of the memory since _begin, and what crossed between devices."""
        peak = tracemalloc.get_traced_memory()[1] - self._before if self._workspace else 0
        self._traffic.__exit__(None, None, None)
        return peak, dict(self._seen)

    def _is_new(self, array: Array) -> int:
        """The bytes of an array's memory if it was not seen before, else 0."""
        block = memory_of(array)
        if id(block) in self._known:
            return 0
        self._known[id(block)] = block
        return block.nbytes

    def _newly_saved(self, node: Any, weights: set[int]) -> int:
        """The bytes that the node keeps and no node before it kept; notes those that it made beside its output."""
        total = self._new_extra = 0
        for array in node.saved:
            if not hasattr(array, "nbytes"):
                continue
            block = memory_of(array)
            self._new_extra += self._is_new(array)
            if id(block) not in self._saved and id(block) not in weights:
                self._saved.add(id(block))
                total += block.nbytes
        return total


def memory_of(array: Array) -> Any:
    """The array whose memory an array is in: itself, or what it is a view of."""
    while isinstance(getattr(array, "base", None), type(array)):
        array = array.base
    return array


@contextmanager
def alone() -> Iterator[None]:
    """One compute thread and tracemalloc, as a Trace with workspace needs."""
    threads, tracing = parallel.get_num_threads(), tracemalloc.is_tracing()
    parallel.set_num_threads(1)
    if not tracing:
        tracemalloc.start()
    try:
        yield
    finally:
        if not tracing:
            tracemalloc.stop()
        parallel.set_num_threads(threads)


def _is_parameter(x: Tensor, modules: Sequence[Any]) -> bool:
    return any(x is p for module in modules[-1:] for p in module.parameters(recurse=False))


def _multiply_adds(op: str, inputs: Sequence[Any], out: Tensor) -> int:
    """Of an op that is a matrix product; an addition of a bias is not counted."""
    if op in WEIGHTED:
        return out.data.size * math.prod(inputs[1].shape[1:])
    if op == "matmul":
        return out.data.size * inputs[0].shape[-1]
    return 0
