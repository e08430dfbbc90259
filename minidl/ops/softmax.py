"""Softmax and log-softmax along one axis.

Forward
    softmax      y[i] = e^x[i] / sum over j of e^x[j]
    log_softmax  y[i] = x[i] - ln sum over j of e^x[j]

    The largest x is subtracted first: it changes nothing in exact arithmetic and keeps e^x from overflowing.

Backward
    softmax      dy[j]/dx[i] = y[j] * ((i == j) - y[i])      so  gx[i] = y[i] * (gy[i] - sum over j of gy[j] * y[j])
    log_softmax  dy[j]/dx[i] = (i == j) - softmax(x)[i]      so  gx[i] = gy[i] - softmax(x)[i] * sum over j of gy[j]
"""

import warnings
from typing import Any

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.arithmetic import sum_along
from minidl.tensor import Function, Tensor


def softmax_forward(x: Array, axis: int) -> Array:
    """x of any shape -> y, which sums to 1 along `axis`."""
    y = array_module(x).exp(x - x.max(axis=axis, keepdims=True))
    y /= fastest(sum_along, y)(y, axis, keepdims=True)
    return y


def softmax_backward(gy: Array, y: Array, axis: int) -> Array:
    """gy, y of one shape -> gx."""
    return y * (gy - fastest(sum_along, y)(gy * y, axis, keepdims=True))


def log_softmax_forward(x: Array, axis: int) -> Array:
    """x of any shape -> y, whose exponentials sum to 1 along `axis`."""
    xp = array_module(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(fastest(sum_along, x)(xp.exp(shifted), axis, keepdims=True))


def log_softmax_backward(gy: Array, y: Array, axis: int) -> Array:
    """gy, y of one shape -> gx."""
    return gy - array_module(y).exp(y) * fastest(sum_along, y)(gy, axis, keepdims=True)


class SoftmaxFunction(Function):
    """softmax, as at the top of this file.

    Saved
        y   gx = y * (gy - sum of gy * y): the probabilities are all that backward needs, x is not.
    """

    name = "softmax"

    def forward(ctx, x: Array, axis: int) -> Array:
        ctx.axis = axis
        y = fastest(softmax_forward, x)(x, axis)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(softmax_backward, gy)(gy, y, ctx.axis),)


class LogSoftmaxFunction(Function):
    """log_softmax, as at the top of this file.

    Saved
        y   gx = gy - e^y * sum of gy, and e^y is the softmax: x is not needed.
    """

    name = "log_softmax"

    def forward(ctx, x: Array, axis: int) -> Array:
        ctx.axis = axis
        y = fastest(log_softmax_forward, x)(x, axis)
        ctx.save(y)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (y,) = ctx.saved
        return (fastest(log_softmax_backward, gy)(gy, y, ctx.axis),)


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """e^input / sum of e^input along `dim`. dim=None guesses as PyTorch does (0 for 0, 1 or 3 axes, else 1), with a warning.

    dtype : convert input to it first. RuntimeError unless floats, IndexError for a dim out of range.
    """
    return _apply(SoftmaxFunction, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """ln softmax(input), more exact than the logarithm of softmax. Arguments as softmax's."""
    return _apply(LogSoftmaxFunction, input, dim, dtype)


def _apply(op: type[Function], x: Tensor, dim: int | None, dtype: Any) -> Tensor:
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(f"{op.name}: dim was not given, took {dim}; say which axis", stacklevel=3)
    x = x if dtype is None else x.to(dtype)
    if x.dtype.kind != "f":
        raise RuntimeError(f"{op.name}: x must be of floats, got {x.dtype}")
    axis = shapes.normalize_dim(op.name, dim, x.ndim)
    if x.numel() == 0:
        return x * 1  # no largest element to subtract
    return op.apply(x, axis=axis) if x.ndim else op.apply(x.reshape(1), axis=0).reshape(())


class Softmax(Module):
    """softmax along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log_softmax along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
