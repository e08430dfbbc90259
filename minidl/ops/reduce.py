"""Reductions along axes: sum, mean, amax, amin, max, min, and argmax.

    sum     y = sum x        gx = gy, for every x that was summed
    mean    y = mean x       gx = gy / n
    amax    y = amax x       gx = gy / (number of maxima) for each x that equals y, else 0      (PyTorch's rule: ties share)
    max     y, i = max x     gx = gy for x[i], else 0; i is the first maximum                   (PyTorch's rule on the CPU)

amin and min are alike. `max` without a dim is amax over everything. `dim` is an int, or for sum, mean and amax also several;
None is all.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.tensor import Function, Tensor

Dims = int | Sequence[int] | None


def _keepdims_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


class SumFunction(Function):
    name = "sum"

    def forward(ctx, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        ctx.x_shape, ctx.kept = x.shape, _keepdims_shape(x.shape, axes)
        return x.sum(axis=axes, keepdims=keepdim)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (array_module(gy).broadcast_to(gy.reshape(ctx.kept), ctx.x_shape),)


class MeanFunction(Function):
    name = "mean"

    def forward(ctx, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        ctx.x_shape, ctx.kept = x.shape, _keepdims_shape(x.shape, axes)
        ctx.count = 1
        for axis in axes:
            ctx.count *= x.shape[axis]
        wide = np.promote_types(x.dtype, "float32")  # float16 ends at 65504, which a sum passes soon
        return (x.sum(axis=axes, keepdims=keepdim, dtype=wide) / wide.type(ctx.count)).astype(x.dtype, copy=False)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (array_module(gy).broadcast_to((gy / gy.dtype.type(ctx.count)).reshape(ctx.kept), ctx.x_shape),)


class ExtremeFunction(Function):
    """amax or amin: every element that equals the extreme gets an equal share of the gradient.

    Saved
        x   The winners are where x equals y; tied ones share the gradient.
        y   The winners are where x equals y; tied ones share the gradient.
    """

    name = "amax"
    kinked = True

    def forward(ctx, x: Array, axes: tuple[int, ...], keepdim: bool, largest: bool) -> Array:
        ctx.axes = axes
        y = x.max(axis=axes, keepdims=True) if largest else x.min(axis=axes, keepdims=True)
        ctx.save(x, y)
        return y if keepdim else y.squeeze(axis=axes)

    def backward(ctx, gy: Array) -> tuple[Array]:
        x, y = ctx.saved
        winners = x == y
        share = gy.reshape(y.shape) / winners.sum(axis=ctx.axes, keepdims=True).astype(x.dtype)
        return (winners * share,)


class ExtremeAlongFunction(Function):
    """max or min along one axis, with the position of the first one.

    Saved
        index   gy goes to the one element that won, so its position is all that backward needs.
    """

    name = "max"
    kinked = True

    def forward(ctx, x: Array, axis: int, keepdim: bool, largest: bool) -> tuple[Array, Array]:
        xp = array_module(x)
        ctx.x_shape, ctx.axis = x.shape, axis
        if x.ndim == 0:
            ctx.save(xp.zeros((), "int64"))
            return x.copy(), ctx.saved[0]
        index = xp.expand_dims(x.argmax(axis=axis) if largest else x.argmin(axis=axis), axis)
        ctx.save(index)
        y = xp.take_along_axis(x, index, axis)
        return (y, index) if keepdim else (y.squeeze(axis=axis), index.squeeze(axis=axis))

    def backward(ctx, gy: Array) -> tuple[Array]:
        (index,) = ctx.saved
        if not ctx.x_shape:
            return (gy,)
        xp = array_module(gy)
        gx = xp.zeros(ctx.x_shape, gy.dtype)
        xp.put_along_axis(gx, index, gy.reshape(index.shape), ctx.axis)
        return (gx,)


def sum_(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum over `dim` (None: over everything)."""
    return SumFunction.apply(x, axes=shapes.normalize_dims("sum", dim, x.ndim), keepdim=keepdim)


def mean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim` (None: over everything). RuntimeError unless x is of floats."""
    if x.dtype.kind != "f":
        raise RuntimeError(f"mean: x must be of floats, got {x.dtype}")
    return MeanFunction.apply(x, axes=shapes.normalize_dims("mean", dim, x.ndim), keepdim=keepdim)


def amax(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; tied ones share the gradient. IndexError over an axis of no elements."""
    return _extreme("amax", x, dim, keepdim, largest=True)


def amin(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; tied ones share the gradient. IndexError over an axis of no elements."""
    return _extreme("amin", x, dim, keepdim, largest=False)


@overload
def max_(x: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def max_(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]: ...
def max_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """Without dim the largest element; with it (values, indices) along that axis, the first of tied ones."""
    return amax(x) if dim is None else _extreme_along("max", x, dim, keepdim, largest=True)


@overload
def min_(x: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def min_(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]: ...
def min_(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """Without dim the smallest element; with it (values, indices) along that axis, the first of tied ones."""
    return amin(x) if dim is None else _extreme_along("min", x, dim, keepdim, largest=False)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the first largest element along `dim`, or in the flattened tensor; int64, no gradient."""
    axis = None if dim is None else shapes.normalize_dim("argmax", dim, x.ndim)
    _check_not_empty("argmax", x, (axis,) if axis is not None else tuple(range(x.ndim)))
    with x.device.active():
        return Tensor(x.data.argmax(axis=axis, keepdims=keepdim), device=x.device)


def _extreme(op: str, x: Tensor, dim: Dims, keepdim: bool, largest: bool) -> Tensor:
    axes = shapes.normalize_dims(op, dim, x.ndim)
    _check_not_empty(op, x, axes)
    return ExtremeFunction.apply(x, axes=axes, keepdim=keepdim, largest=largest)


def _extreme_along(op: str, x: Tensor, dim: int, keepdim: bool, largest: bool) -> tuple[Tensor, Tensor]:
    axis = shapes.normalize_dim(op, dim, x.ndim)
    _check_not_empty(op, x, (axis,) if x.ndim else ())
    values, indices = ExtremeAlongFunction.apply(x, axis=axis, keepdim=keepdim, largest=largest)
    return values, indices


def _check_not_empty(op: str, x: Tensor, axes: tuple[int, ...]) -> None:
    if any(x.shape[axis] == 0 for axis in axes):
        raise IndexError(f"{op}: an axis of 0 elements has no extreme, got x {x.shape}, dim {axes}")
