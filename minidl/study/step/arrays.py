"""The arrays of a step, op by op: an observer that keeps a copy of what each op met and made, forward and backward.

    with Recording() as step:
        F.cross_entropy(model(images), labels).backward()
    step.ops[3].y, step.ops[3].gx[0]

An op's arrays have slots, as the explorer's page has them: x0, x1, ... its inputs that are tensors, y its output, gy the
gradient that arrived at the output, g0, g1, ... those that left to the inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.device import Array, Device
from minidl.nn import Parameter
from minidl.observer import Observer
from minidl.tensor import Tensor


@dataclass
class Input:
    """A tensor that an op was applied to. name : of a parameter in its model, else x, or x1, x2, ... where there are several;
    maker : the number of the op whose output it is, None if no op of the step made it."""

    name: str
    parameter: bool
    needs_gradient: bool
    array: np.ndarray
    device: Device
    maker: int | None = None


@dataclass
class RecordedOp:
    """An op of a step; arrays are the host's, with shapes as in the API, images (N, C, H, W).

    layer    : the innermost module's name; None outside modules
    is_layer : that module has no modules inside
    minidl   : it is minidl's own op, and not one of the same name
    numbers  : its inputs that are plain numbers
    mask     : dropout's, one a unit
    """

    number: int
    op: str
    layer: str | None
    is_layer: bool
    minidl: bool
    settings: Mapping[str, Any]
    inputs: list[Input]
    y: np.ndarray
    numbers: list[float]
    mask: np.ndarray | None = None
    gy: np.ndarray | None = None
    gx: list[np.ndarray | None] = field(default_factory=list)

    def array(self, slot: str) -> np.ndarray | None:
        """Of a slot; None where no gradient came. ValueError: the op has no such slot."""
        kind, place = slot[:1], slot[1:]
        if slot in ("y", "gy"):
            return self.y if slot == "y" else self.gy
        if kind not in ("x", "g") or not place.isdecimal() or int(place) >= len(self.inputs):
            raise ValueError(f"{self.op}: slots are y, gy, and x0 and g0 to those of {len(self.inputs)} inputs, got {slot!r}")
        if kind == "x":
            return self.inputs[int(place)].array
        return self.gx[int(place)] if self.gx else None


class Recording(Observer):
    """Keeps every op of the block, in the order of forward, in `ops`. It takes the memory of all their arrays."""

    def __init__(self) -> None:
        self.ops: list[RecordedOp] = []
        self._numbers: dict[Any, int] = {}  # op -> its number; it keeps the op, so that no other gets its id
        self._makers: dict[Tensor, int] = {}
        self._leaves: dict[Tensor, np.ndarray] = {}
        self._totals: dict[int, np.ndarray] = {}  # id of a leaf's array here -> its gradient

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        modules, known = node.layer.modules, is_known(node)
        tensors = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor)]
        names = input_names(node, inputs)
        self._numbers[node] = self._makers[out] = len(self.ops)
        self.ops.append(
            RecordedOp(
                number=len(self.ops),
                op=node.name,
                layer=node.layer.name(),
                is_layer=bool(modules) and next(modules[-1].children(), None) is None,
                minidl=known,
                settings=dict(settings),
                inputs=[self._input(names[i], x, node.needs_grad[i]) for i, x in tensors],
                y=_copied(out.data, out.device),
                numbers=[float(x) for x in inputs if isinstance(x, (int, float))],
                mask=_copied(node.saved[0], node.device) if known and node.name == "dropout" else None,
            )
        )

    def _input(self, name: str, x: Tensor, needed: bool) -> Input:
        maker = self._makers.get(x)
        if maker is not None:
            return Input(name, False, needed, self.ops[maker].y, x.device, maker)
        if x not in self._leaves:
            self._leaves[x] = _copied(x.data, x.device)
        return Input(name, isinstance(x, Parameter), needed, self._leaves[x], x.device)

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        if node not in self._numbers:
            return
        op = self.ops[self._numbers[node]]
        op.gy = _copied(gy, node.device)
        of_tensors = [gx for gx, (_, dtype) in zip(gradients, node._inputs, strict=True) if dtype is not None]
        op.gx = [None if gx is None else _copied(gx, x.device) for gx, x in zip(of_tensors, op.inputs, strict=True)]

    def leaf_has_gradient(self, tensor: Tensor) -> None:
        if tensor in self._leaves and tensor.grad is not None:
            self._totals[id(self._leaves[tensor])] = _copied(tensor.grad.data, tensor.device)

    def total(self, leaf: Input) -> np.ndarray | None:
        """The whole gradient of a parameter, or of what the model was given: the sum over all ops that used it."""
        return self._totals.get(id(leaf.array))

    def consumers(self, number: int) -> list[tuple[RecordedOp, int]]:
        """Who used an op's output, and as which of their inputs."""
        return [(op, i) for op in self.ops for i, x in enumerate(op.inputs) if x.maker == number]


def _copied(array: Array, device: Device) -> np.ndarray:
    """On the host: what an op made may be changed in place later."""
    return np.array(device.to_host(array), copy=True)


def is_known(node: Any, *names: str) -> bool:
    """Is it minidl's op of one of these names, or of any, and not one of the model's own that is called so?"""
    return type(node).__module__.startswith("minidl.ops.") and (not names or node.name in names)


def input_names(node: Any, inputs: Sequence[Any]) -> list[str]:
    """Parameters by their names in the model; the other input x, or the others x1, x2, ..."""
    names = node.layer.names_of(inputs)
    others = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and not isinstance(x, Parameter)]
    numbered = {i: f"x{n}" if len(others) > 1 else "x" for n, i in enumerate(others, 1)}
    return [numbered.get(i, name) for i, name in enumerate(names)]
