"""Watching ops run: what looks inside a step stands beside the engine, not in it.

An `Observer` is told of every op that its thread runs while it is entered, forward and backward, with the arrays as they are at
that moment. `detect_anomaly` is one, `minidl.study` has more. Where none is entered, an op pays one look for them.

    class Names(Observer):
        def forward_ends(self, node, inputs, settings, out):
            print(node.name, out.shape)

    with Names():
        model(images)

Modules say when their forward begins and ends, so an observer can ask for an op's layer: `node.layer.name()`.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, nullcontext
from typing import Any, Self

from minidl.device import Array

_NOTHING = nullcontext()


class _State(threading.local):
    observers: tuple["Observer", ...] = ()
    modules: tuple[Any, ...] = ()  # those whose forward is running, the outermost first


_state = _State()


class Observer(ContextDecorator):
    """Override what you want to be told of. Nothing that is handed over may be changed.

    node     : the op (a `Function`); `node.name`, `node.device`, `node.saved`, and `node.layer`, where it was called
    inputs   : what the op was applied to: tensors and constants; settings: its keyword arguments
    out      : the output, a Tensor
    gy       : the gradient that arrived at the output, an array
    gradients : one array for each input, or None
    """

    def __enter__(self) -> Self:
        _state.observers = (*_state.observers, self)
        return self

    def __exit__(self, *exc: object) -> None:
        _state.observers = _state.observers[:-1]

    def forward_begins(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
        """An op is about to compute."""

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Any) -> None:
        """An op has computed, and saved what it needs for backward."""

    def backward_begins(self, node: Any, gy: Array) -> None:
        """An op's backward is about to compute."""

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        """An op's backward has computed."""

    def saved_is_freed(self, node: Any) -> None:
        """What an op saved is about to be dropped."""

    def leaf_has_gradient(self, tensor: Any) -> None:
        """A leaf's `grad` is complete for this backward."""


def present_layer() -> "Layer":
    """Where an op that is called now would be."""
    return Layer(_state.modules)


def observers() -> tuple[Observer, ...]:
    """Those that are entered on this thread, the outermost first."""
    return _state.observers


def inside(module: Any) -> AbstractContextManager[None]:
    """A module's forward is running. Costs next to nothing where nobody observes."""
    return _inside(module) if _state.observers else _NOTHING


@contextmanager
def _inside(module: Any) -> Iterator[None]:
    before, _state.modules = _state.modules, (*_state.modules, module)
    try:
        yield
    finally:
        _state.modules = before


class Layer:
    """Where an op was called: in which modules, the outermost first. Names are looked up only when they are asked for."""

    def __init__(self, modules: tuple[Any, ...] = ()) -> None:
        self.modules = modules

    def name(self) -> str | None:
        """The innermost module's name in the outermost ("tower0.conv2"), or its class where it is the outermost itself; None
        outside modules."""
        if not self.modules:
            return None
        innermost = self.modules[-1]
        names = {id(module): name for name, module in self.modules[0].named_modules()}
        return names.get(id(innermost)) or type(innermost).__name__

    def names_of(self, inputs: Sequence[Any]) -> list[str]:
        """Parameters by their names in the outermost module, other inputs as x, y, z, ..."""
        known = {id(p): name for name, p in self.modules[0].named_parameters()} if self.modules else {}
        letters = "xyzuvw" + "?" * len(inputs)
        return [known.get(id(x), letter) for x, letter in zip(inputs, letters, strict=False)]


NOWHERE = Layer()
