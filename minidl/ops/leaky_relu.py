"""Leaky rectified linear unit: what is negative is not cut off but made small, so a gradient always passes.

Forward
    y = x where x > 0, else s * x          s = negative_slope, 0.01 by default

Backward
    gx = gy where x > 0, else s * gy       at x = 0 the slope is s, PyTorch's choice

Saved
    x   Which side of 0 a unit was on is read from x; from y it could not be, where s is 0 or negative.

Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013, section 2.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.tensor import Function, Tensor


def leaky_relu_forward(x: Array, negative_slope: float) -> Array:
    """x of any shape -> y; NaN stays NaN."""
    return array_module(x).where(x > 0, x, x * negative_slope)


def leaky_relu_backward(gy: Array, x: Array, negative_slope: float) -> Array:
    """gy, x of one shape -> gx."""
    return array_module(gy).where(x > 0, gy, gy * negative_slope)


class LeakyReLUFunction(Function):
    name = "leaky_relu"
    kinked = True

    def forward(ctx, x: Array, negative_slope: float) -> Array:
        ctx.negative_slope = negative_slope
        ctx.save(x)
        return fastest(leaky_relu_forward, x)(x, negative_slope)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (fastest(leaky_relu_backward, gy)(gy, x, ctx.negative_slope),)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where it is positive, else negative_slope * input, element by element. RuntimeError unless input is of floats.

    inplace : change input itself, and return it. RuntimeError where a graph can't follow that: see in_place.py.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"leaky_relu: x must be of floats, got {input.dtype} (x {input.shape})")
    y = LeakyReLUFunction.apply(input, negative_slope=float(negative_slope))
    return replace("leaky_relu_", input, y) if inplace else y


class LeakyReLU(Module):
    """leaky_relu."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        return leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")
