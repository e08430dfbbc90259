"""Where did a number stop being finite? `with minidl.detect_anomaly():` names the first op that made NaN or infinity.

Both spread: one infinity in the second layer, and every gradient is NaN. What is worth knowing is where it began. Inside the
block every op's output and every gradient that an op passes back is looked at when it is made, and the first that is not finite
ends the program with the op, its layer, and what came in:

    AnomalyError: conv2d_relu in tower0.conv2, forward: 3 of 93312 elements of its output are not finite (0 NaN, 3 infinite; the
    first at [0, 5, 1, 2]); x (1, 48, 27, 27) float32 from -1.2e+19 to 9.8e+18; tower0.conv2.weight ...

Outside the block nothing is looked at. PyTorch's detect_anomaly looks for NaN only, and in backward only.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, nullcontext
from typing import Any

from minidl.device import Array, array_module

FORWARD, BACKWARD = "forward", "backward"
_NOTHING = nullcontext()


class AnomalyError(RuntimeError):
    """The first value that is not finite. `op`, `layer` (None outside modules) and `phase`, "forward" or "backward"."""

    def __init__(self, op: str, layer: str | None, phase: str, text: str) -> None:
        super().__init__(f"{op}{f' in {layer}' if layer else ''}, {phase}: {text}")
        self.op, self.layer, self.phase = op, layer, phase


class _State(threading.local):
    def __init__(self) -> None:
        self.blocks = 0
        self.modules: list[Any] = []  # those whose forward is running, the outermost first


_state = _State()


class detect_anomaly(ContextDecorator):  # noqa: N801  PyTorch's name
    """Inside the block (or the decorated function), on this thread: AnomalyError at the first value that is not finite.

    Backward must run inside the block too, and knows the layers of those ops only whose forward did.
    """

    def __enter__(self) -> None:
        _state.blocks += 1

    def __exit__(self, *exc: object) -> None:
        _state.blocks -= 1


def detecting() -> bool:
    """Is this thread inside a detect_anomaly block?"""
    return _state.blocks > 0


def inside(module: Any) -> AbstractContextManager:
    """A module's forward is running: what goes wrong is in that layer. Costs nothing outside detect_anomaly."""
    return _inside(module) if detecting() else _NOTHING


@contextmanager
def _inside(module: Any) -> Iterator[None]:
    _state.modules.append(module)
    try:
        yield
    finally:
        _state.modules.pop()


class Layer:
    """Where an op was called: the modules that were running. Their names are looked up when they are asked for."""

    def __init__(self) -> None:
        self._modules = tuple(_state.modules)

    def name(self) -> str | None:
        """The innermost module's name in the outermost ("tower0.conv2"), or its class where it is the outermost itself."""
        if not self._modules:
            return None
        names = {id(module): name for name, module in self._modules[0].named_modules()}
        innermost = self._modules[-1]
        return names.get(id(innermost)) or type(innermost).__name__

    def parameter_names(self) -> dict[int, str]:
        """The id of each of the outermost module's parameters -> its name."""
        return {id(p): name for name, p in self._modules[0].named_parameters()} if self._modules else {}


def check_output(op: str, layer: Layer, inputs: Sequence[Any], y: Array) -> None:
    """AnomalyError if an op's output is not finite. `inputs`: what it was applied to, tensors and constants."""
    if _all_finite(y):
        return
    came_in = "; ".join(
        _statistics(name, x.data) for name, x in zip(_names(layer, inputs), inputs, strict=True) if hasattr(x, "data")
    )
    raise AnomalyError(op, layer.name(), FORWARD, f"{_count('its output', y)}; {came_in}")


def check_gradients(op: str, layer: Layer | None, inputs: Sequence[Any], gy: Array, gradients: Sequence[Any]) -> None:
    """AnomalyError if a gradient that arrives at an op, or one that it passes back, is not finite. `inputs`: its edges."""
    layer = layer or Layer()
    if not _all_finite(gy):
        text = "the sum of the gradients that arrive at its output"
        raise AnomalyError(op, layer.name(), BACKWARD, _count(text, gy))
    for name, gx in zip(_names(layer, inputs), gradients, strict=False):
        if gx is not None and not _all_finite(gx):
            text = f"{_count(f'the gradient of {name}', gx)}; {_statistics('the gradient that arrived', gy)}"
            raise AnomalyError(op, layer.name(), BACKWARD, text)


def check_leaf(tensor: Any) -> None:
    """AnomalyError if the sum of a leaf's gradients is not finite, though each of them was."""
    if not _all_finite(tensor.grad):
        raise AnomalyError("accumulation", None, BACKWARD, _count("a leaf's gradient, the sum over its uses", tensor.grad))


def _names(layer: Layer, inputs: Sequence[Any]) -> list[str]:
    """Parameters by their names, other inputs as x, y, z ..."""
    known = layer.parameter_names()
    return [known.get(id(x), letter) for x, letter in zip(inputs, "xyzuvw" + "?" * len(inputs), strict=False)]


def _all_finite(array: Any) -> bool:
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    return kind != "f" or bool(array_module(array).isfinite(array).all())


def _count(what: str, array: Array) -> str:
    xp = array_module(array)
    bad, nan = ~xp.isfinite(array), int(xp.isnan(array).sum())
    number = int(bad.sum())
    first = [int(place[0]) for place in xp.nonzero(bad)]
    return (
        f"{number} of {array.size} elements of {what} are not finite ({nan} NaN, {number - nan} infinite; "
        f"the first at {first}, shape {array.shape})"
    )


def _statistics(name: str, array: Array) -> str:
    """ "x (2, 3) float32 from -1 to 2.5, mean of |x| 0.4", of the finite elements alone."""
    about = f"{name} {array.shape} {array.dtype}"
    if array.dtype.kind != "f" or not array.size:
        return about
    finite = array[array_module(array).isfinite(array)]
    if finite.size < array.size:
        about += f", {array.size - finite.size} elements not finite"
    if not finite.size:
        return about
    low, high, mean = float(finite.min()), float(finite.max()), float(abs(finite).mean(dtype="float64"))
    return f"{about} from {low:.3g} to {high:.3g}, mean magnitude {mean:.3g}"
