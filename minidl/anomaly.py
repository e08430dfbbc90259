"""Where did a number stop being finite? `with minidl.detect_anomaly():` names the first op that made NaN or infinity.

Both spread: one infinity in the second layer, and every gradient is NaN. What is worth knowing is where it began. Inside the
block every op's output and every gradient that an op passes back is looked at when it is made, and the first that is not finite
ends the program with the op, its layer, and what came in (in backward: the gradient that arrived, and what forward saved):

    AnomalyError: conv2d_relu in tower0.conv2, forward: 3 of 93312 elements of its output are not finite (0 NaN, 3 infinite; the
    first at [0, 5, 1, 2]); x (1, 48, 27, 27) float32 from -1.2e+19 to 9.8e+18; tower0.conv2.weight ...

Outside the block nothing is looked at. PyTorch's detect_anomaly looks for NaN only, and in backward only.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from minidl.device import Array, Device, array_module
from minidl.observer import Observer

FORWARD, BACKWARD = "forward", "backward"


class AnomalyError(RuntimeError):
    """The first value that is not finite. `op`, `layer` (None outside modules) and `phase`, "forward" or "backward"."""

    op: str
    layer: str | None
    phase: str

    def __init__(self, op: str, layer: str | None, phase: str, text: str) -> None:
        super().__init__(f"{op}{f' in {layer}' if layer else ''}, {phase}: {text}")
        self.op, self.layer, self.phase = op, layer, phase


class detect_anomaly(Observer):  # noqa: N801  PyTorch's name
    """Inside the block (or the decorated function), on this thread: AnomalyError at the first value that is not finite.

    Backward must run inside the block too, and knows the layers of those ops only whose forward did.
    """

    def __init__(self) -> None:
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()  # the outermost modules that ran, where leaves have names

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Any) -> None:
        self._models.update(node.layer.modules[:1])
        if _all_finite(out.data):
            return
        names = zip(node.layer.names_of(inputs), inputs, strict=True)
        came_in = "; ".join(_statistics_on(x.device, name, x.data) for name, x in names if hasattr(x, "device"))
        raise AnomalyError(node.name, node.layer.name(), FORWARD, f"{_count('its output', out.data)}; {came_in}")

    def backward_begins(self, node: Any, gy: Array) -> None:
        if not _all_finite(gy):
            text = _count("the sum of the gradients that arrive at its output", gy)
            raise AnomalyError(node.name, node.layer.name(), BACKWARD, text)

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        for i, gx in enumerate(gradients):
            if gx is None:
                continue
            source = node if node._edges[i] is None else node._edges[i]
            with source.device.active():  # not the node's, where the op is one that moves data
                what = "" if _all_finite(gx) else _count(f"the gradient of {node.layer.names_of(node._edges)[i]}", gx)
            if what:
                known = [_statistics("the gradient that arrived", gy)]
                known += [_statistics("saved", array) for array in node.saved if hasattr(array, "strides")]
                raise AnomalyError(node.name, node.layer.name(), BACKWARD, "; ".join([what, *known]))

    def leaf_has_gradient(self, tensor: Any) -> None:
        if not _all_finite(tensor.grad.data):
            names = [name for model in self._models for name, p in model.named_parameters() if p is tensor]
            layer = names[0].rpartition(".")[0] if names else ""
            text = _count(f"the gradient of {names[0] if names else 'a leaf'}, the sum over its uses", tensor.grad.data)
            raise AnomalyError("accumulation", layer or None, BACKWARD, text)


def _all_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(array_module(array).isfinite(array).all())


def _count(what: str, array: Array) -> str:
    xp = array_module(array)
    bad, nan = ~xp.isfinite(array), int(xp.isnan(array).sum())
    number = int(bad.sum())
    first = [int(place[0]) for place in xp.nonzero(bad)] if bad.ndim else []  # a number has no place
    return (
        f"{number} of {array.size} elements of {what} are not finite ({nan} NaN, {number - nan} infinite; "
        f"the first at {first}, shape {array.shape})"
    )


def _statistics_on(device: Device, name: str, array: Array) -> str:
    with device.active():
        return _statistics(name, array)


def _statistics(name: str, array: Array) -> str:
    """ "x (2, 3) float32 from -1 to 2.5, mean magnitude 0.4", of the finite elements alone."""
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
