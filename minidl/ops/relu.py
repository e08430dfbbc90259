"""Rectified linear unit.

Forward
    y = max(x, 0)

Backward
    gx = 0 where y <= 0, else gy         at x = 0 the gradient is 0, the choice of PyTorch and of the 2012 code (x > 0)

Saved
    y   gx is gy where y > 0: the output tells all, and the next layer keeps it anyway, so it is kept once.

Source: Nair and Hinton, ICML 2010; Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.1.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.tensor import Function, Tensor


def relu_forward(x: Array) -> Array:
    """x of any shape -> y; NaN stays NaN."""
    return array_module(x).maximum(x, 0)


def relu_backward(gy: Array, y: Array) -> Array:
    """gy, y of any shape -> gx."""
    return array_module(gy).where(y <= 0, 0, gy)


class ReLUFunction(Function):
    name = "relu"
    kinked = True
    rectifies = True

    def forward(ctx, x: Array) -> Array:
        y = fastest(relu_forward, x)(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(relu_backward, gy)(gy, y),)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0), element by element.

    inplace : change input itself, and return it. RuntimeError where a graph can't follow that: see in_place.py.
    """
    y = ReLUFunction.apply(input)
    return replace("relu_", input, y) if inplace else y


class ReLU(Module):
    """relu."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return relu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
