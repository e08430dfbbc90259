"""Logistic sigmoid.

Forward
    y = 1 / (1 + e^-x), computed as (1 + tanh(x/2)) / 2, which cannot overflow

Backward
    gx = gy * y * (1 - y)        at most a quarter of gy: a stack of sigmoids makes gradients vanish
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.tensor import Function, Tensor


def sigmoid_forward(x: Array) -> Array:
    """x of any shape -> y."""
    return 0.5 * array_module(x).tanh(0.5 * x) + 0.5


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """gy, y of any shape -> gx."""
    return gy * y * (1 - y)


class Sigmoid(Function):
    name = "sigmoid"

    def forward(ctx, x: Array) -> Array:
        y = fastest(sigmoid_forward, x)(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(sigmoid_backward, gy)(gy, y),)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-input), element by element."""
    return Sigmoid.apply(input)
