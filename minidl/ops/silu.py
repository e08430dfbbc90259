"""Sigmoid linear unit, also called swish: x times the sigmoid of x.

Forward
    y = x * s(x)                          s(x) = 1 / (1 + e^-x)

Backward
    gx = gy * (s + x * s * (1 - s))       the product rule, with ds/dx = s * (1 - s)

Saved
    x   s is computed again from x: one array to keep instead of two. From y it can't be found, as y falls before it rises.

At infinities y or its slope is infinity times 0: NaN, as in PyTorch.
Source: Hendrycks and Gimpel, "Gaussian error linear units (GELUs)", 2016, section 2; Elfwing, Uchibe and Doya,
"Sigmoid-weighted linear units for neural network function approximation in reinforcement learning", Neural Networks 107, 2018.
"""

from minidl.device import Array
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.ops.sigmoid import sigmoid_forward
from minidl.tensor import Function, Tensor


def silu_forward(x: Array) -> Array:
    """x of any shape -> y."""
    return x * sigmoid_forward(x)


def silu_backward(gy: Array, x: Array) -> Array:
    """gy, x of one shape -> gx."""
    s = sigmoid_forward(x)
    return gy * (s + x * s * (1 - s))


class SiLUFunction(Function):
    name = "silu"

    def forward(ctx, x: Array) -> Array:
        ctx.save(x)
        return fastest(silu_forward, x)(x)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (fastest(silu_backward, gy)(gy, x),)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input), element by element. RuntimeError unless input is of floats.

    inplace : change input itself, and return it. RuntimeError where a graph can't follow that: see in_place.py.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"silu: x must be of floats, got {input.dtype} (x {input.shape})")
    y = SiLUFunction.apply(input)
    return replace("silu_", input, y) if inplace else y


class SiLU(Module):
    """silu."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return silu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""
