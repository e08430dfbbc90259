"""Logistic sigmoid.

Forward
    y = 1 / (1 + e^-x)           where x < 0 as e^x / (1 + e^x): e^-|x| cannot overflow, and a small y keeps all its digits

Backward
    gx = gy * y * (1 - y)        at most a quarter of gy: a stack of sigmoids makes gradients vanish

Saved
    y   The slope is y * (1 - y), from the output alone: x need not be kept, nor e^-x computed again.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.arithmetic import as_floats
from minidl.tensor import Function, Tensor


def sigmoid_forward(x: Array) -> Array:
    """x of any shape -> y."""
    xp = array_module(x)
    z = xp.exp(-abs(x))
    return xp.where(x >= 0, 1, z) / (1 + z)


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """gy, y of any shape -> gx."""
    return gy * y * (1 - y)


class SigmoidFunction(Function):
    name = "sigmoid"
    relative_slope = staticmethod(lambda y: 4 * y * (1 - y))

    def forward(ctx, x: Array) -> Array:
        y = fastest(sigmoid_forward, x)(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(sigmoid_backward, gy)(gy, y),)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-input), element by element. Ints become float32."""
    return SigmoidFunction.apply(as_floats(input))


class Sigmoid(Module):
    """sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return sigmoid(input)
