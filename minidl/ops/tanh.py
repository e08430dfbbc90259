"""Hyperbolic tangent.

Forward
    y = tanh x

Backward
    gx = gy * (1 - y^2)          vanishes where |y| is near 1: the unit is saturated

Saved
    y   The slope is 1 - y^2, from the output alone: x need not be kept, nor tanh computed again.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.arithmetic import as_floats
from minidl.tensor import Function, Tensor


def tanh_forward(x: Array) -> Array:
    """x of any shape -> y."""
    return array_module(x).tanh(x)


def tanh_backward(gy: Array, y: Array) -> Array:
    """gy, y of any shape -> gx."""
    return gy * (1 - y * y)


class TanhFunction(Function):
    name = "tanh"
    relative_slope = staticmethod(lambda y: 1 - y * y)

    def forward(ctx, x: Array) -> Array:
        y = fastest(tanh_forward, x)(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(tanh_backward, gy)(gy, y),)


def tanh(input: Tensor) -> Tensor:
    """tanh, element by element. Ints become float32."""
    return TanhFunction.apply(as_floats(input))


class Tanh(Module):
    """tanh."""

    def forward(self, input: Tensor) -> Tensor:
        return tanh(input)
