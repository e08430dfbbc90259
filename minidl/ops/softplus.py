"""Softplus: a smooth ReLU, the logarithm of 1 + e^x.

Forward, with z = beta * x
    y = ln(1 + e^z) / beta     computed as (max(z, 0) + ln(1 + e^-|z|)) / beta: e^-|z| cannot overflow
    y = x where z > threshold, 20 by default: there the two differ by less than e^-20 / beta

Backward
    gx = gy / (1 + e^-z)       the sigmoid of z; gy where z > threshold

Saved
    x   The slope is the sigmoid of beta * x. From y it would be 1 - e^(-beta y), without its digits where y is small.

Source: Glorot, Bordes and Bengio, "Deep sparse rectifier neural networks", AISTATS 2011, section 3.1; Dugas, Bengio, Belisle,
Nadeau and Garcia, "Incorporating second-order functional knowledge for better option pricing", NIPS 2000.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.sigmoid import sigmoid_forward
from minidl.tensor import Function, Tensor


def softplus_forward(x: Array, beta: float, threshold: float) -> Array:
    """x of any shape -> y."""
    xp = array_module(x)
    z = beta * x
    return xp.where(z > threshold, x, (xp.maximum(z, 0) + xp.log1p(xp.exp(-abs(z)))) / beta)


def softplus_backward(gy: Array, x: Array, beta: float, threshold: float) -> Array:
    """gy, x of one shape -> gx."""
    z = beta * x
    return array_module(gy).where(z > threshold, gy, gy * sigmoid_forward(z))


class SoftplusFunction(Function):
    name = "softplus"

    def forward(ctx, x: Array, beta: float, threshold: float) -> Array:
        ctx.beta, ctx.threshold = beta, threshold
        ctx.save(x)
        return fastest(softplus_forward, x)(x, beta, threshold)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (fastest(softplus_backward, gy)(gy, x, ctx.beta, ctx.threshold),)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(beta * input)) / beta, element by element; input itself where beta * input > threshold.

    RuntimeError unless input is of floats, ValueError for a beta of 0.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"softplus: x must be of floats, got {input.dtype} (x {input.shape})")
    if beta == 0:
        raise ValueError(f"softplus: beta must not be 0, by which the logarithm is divided, got {beta}")
    return SoftplusFunction.apply(input, beta=float(beta), threshold=float(threshold))


class Softplus(Module):
    """softplus."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        return softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"
