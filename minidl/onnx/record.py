"""One forward of a model, as the ops that ran: what `export` writes is what it saw, and no source is read.

A value is known by its array: `detach` makes a new Tensor on the same array, and that is the same value. All arrays are kept
until the end, so that no two have one id.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import changes
from minidl.grad_mode import no_grad
from minidl.nn.module import Module
from minidl.observer import Observer
from minidl.onnx.errors import OnnxError
from minidl.tensor import Tensor


@dataclass
class Call:
    """An op that ran: its inputs (tensors, numbers, None), settings and output."""

    name: str
    layer: str | None  # the innermost module's name
    inputs: Sequence[Any]
    settings: Mapping[str, Any]
    out: Tensor

    @property
    def title(self) -> str:
        """For errors: the op, and where it ran."""
        return self.name if self.layer is None else f"{self.name} (in {self.layer})"


class Recorder(Observer):
    """Keeps each op. OnnxError where one gets an array that was changed in place: the graph knows each value by its array."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._since = changes.now()

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        call = Call(node.name, node.layer.name(), inputs, settings, out)
        for x in inputs:
            if isinstance(x, Tensor):
                self.check_unchanged(call.title, x)
        self.calls.append(call)

    def check_unchanged(self, title: str, x: Tensor) -> None:
        """OnnxError if the tensor's memory was changed in place during the forward."""
        by = changes.changed_since(x.data, self._since)
        if by is not None:
            raise OnnxError(
                f"export: {title} gets a tensor {x.shape} that {by} changed in place; ONNX has no such changes, write the op "
                "without inplace"
            )


@dataclass
class Forward:
    """A forward's inputs, ops and outputs."""

    inputs: list[Tensor]
    calls: list[Call]
    outputs: list[Tensor]


def record(model: Module, inputs: Sequence[Tensor]) -> Forward:
    """Run the model in evaluation, without gradients. OnnxError unless it gives a tensor, or a tuple or list of them."""
    with _as_for_use(model), no_grad(), Recorder() as recorder:
        result = model(*inputs)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for output in outputs:
        if not isinstance(output, Tensor):
            raise OnnxError(f"export: the model must give a tensor or a tuple of them, got {type(output).__name__}")
        recorder.check_unchanged("the output", output)
    return Forward(list(inputs), recorder.calls, outputs)


@contextmanager
def _as_for_use(model: Module) -> Iterator[None]:
    """Every module in evaluation, and none in place; afterwards as before."""
    modules = list(model.modules())
    training = [module.training for module in modules]
    in_place = [module for module in modules if getattr(module, "inplace", False) is True]
    try:
        model.eval()
        for module in in_place:
            module.inplace = False
        yield
    finally:
        for module, before in zip(modules, training, strict=True):
            module.training = before
        for module in in_place:
            module.inplace = True


def another(inputs: Sequence[Tensor], grows: bool) -> list[Tensor]:
    """Inputs of other values, and if it `grows` of a batch that is larger by one.

    What differs between the two forwards depends on the batch: sizes that are to stay open, and values that no op has made.
    """
    batch = inputs[0].shape[0] if inputs[0].ndim else None
    others = []
    for x in inputs:
        host = x.device.to_host(x.data)
        if grows and x.ndim and x.shape[0] == batch:
            host = np.concatenate([host, host[:1]])
        moved = np.roll(host.reshape(-1), 1).reshape(host.shape)
        if moved.dtype.kind == "f":
            moved = moved * moved.dtype.type(0.75)
        others.append(Tensor(np.ascontiguousarray(moved), device=x.device))
    return others


def same(x: Any, y: Any) -> bool:
    """Are two settings, or two constants, equal?"""
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and all(same(a, b) for a, b in zip(x, y, strict=True))
    if hasattr(x, "dtype") and hasattr(y, "dtype"):
        return x.shape == y.shape and x.dtype == y.dtype and bool(((x == y) | ((x != x) & (y != y))).all())
    return type(x) is type(y) and bool(x == y or x != x)
