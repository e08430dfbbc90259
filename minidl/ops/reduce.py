"""Reductions along axes: sum, mean, norm, var, std, amax, amin, max, min, argmax, any, all; and cumsum, the sums on the way.

    sum     y = sum x        gx = gy, for every x that was summed
    mean    y = mean x       gx = gy / n
    norm    y = sqrt(sum x^2)    gx = gy * x / y      (0 where y is 0)
    cumsum  y = x1 + ... + xi    gx = gy from i on, added up
    amax    y = amax x       gx = gy / (number of maxima) for each x that equals y, else 0      (PyTorch's rule: ties share)
    max     y, i = max x     gx = gy for x[i], else 0; i is the first maximum                   (PyTorch's rule on the CPU)

var and std are made of these: the mean square of x - mean x. amin and min are alike. `max` without a dim is amax over
everything.
`dim` is an int, or for sum, mean, norm, var, std, amax, any and all also several; None is all.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.ops import arithmetic
from minidl.ops.arithmetic import sum_along
from minidl.tensor import Function, Tensor

Dims = int | Sequence[int] | None


class ValuesAndIndices(NamedTuple):
    """What max and min along an axis, sort and topk give."""

    values: Tensor
    indices: Tensor


def _keepdims_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


class SumFunction(Function):
    name = "sum"

    def forward(ctx, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        ctx.x_shape, ctx.kept = x.shape, _keepdims_shape(x.shape, axes)
        return fastest(sum_along, x)(x, axes, keepdim)

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
        total = fastest(sum_along, x)(x.astype(wide, copy=False), axes, keepdim)
        return (total / wide.type(ctx.count)).astype(x.dtype, copy=False)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (array_module(gy).broadcast_to((gy / gy.dtype.type(ctx.count)).reshape(ctx.kept), ctx.x_shape),)


class NormFunction(Function):
    """The square root of the sum of squares.

    Saved
        x   gx = gy * x / y.
        y   gx = gy * x / y; where y is 0 the gradient is 0, one of the slopes of the cone's tip.
    """

    name = "norm"
    kinked = True

    def forward(ctx, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
        y = array_module(x).sqrt(fastest(sum_along, x)(x * x, axes, keepdims=True))
        ctx.save(x, y)
        return y if keepdim else y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])

    def backward(ctx, gy: Array) -> tuple[Array]:
        x, y = ctx.saved
        xp = array_module(gy)
        return (x * xp.where(y == 0, 0, gy.reshape(y.shape) / xp.where(y == 0, 1, y)),)


class CumSumFunction(Function):
    name = "cumsum"

    def forward(ctx, x: Array, axis: int) -> Array:
        ctx.axis = axis
        return array_module(x).cumsum(x, axis) if x.ndim else x.copy()

    def backward(ctx, gy: Array) -> tuple[Array]:
        if not gy.ndim:
            return (gy,)
        xp = array_module(gy)
        return (xp.flip(xp.cumsum(xp.flip(gy, ctx.axis), ctx.axis), ctx.axis),)


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


@shapes.numpy_names
def sum_(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum over `dim` (None: over everything)."""
    return SumFunction.apply(x, axes=shapes.normalize_dims("sum", dim, x.ndim), keepdim=keepdim)


@shapes.numpy_names
def mean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean over `dim` (None: over everything). RuntimeError unless x is of floats."""
    if x.dtype.kind != "f":
        raise RuntimeError(f"mean: x must be of floats, got {x.dtype}")
    return MeanFunction.apply(x, axes=shapes.normalize_dims("mean", dim, x.ndim), keepdim=keepdim)


@shapes.numpy_names
def amax(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; tied ones share the gradient. IndexError over an axis of no elements."""
    return _extreme("amax", x, dim, keepdim, largest=True)


@shapes.numpy_names
def amin(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; tied ones share the gradient. IndexError over an axis of no elements."""
    return _extreme("amin", x, dim, keepdim, largest=False)


@overload
def max_(x: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def max_(x: Tensor, dim: Tensor, keepdim: bool = False) -> Tensor: ...
@overload
def max_(x: Tensor, dim: int, keepdim: bool = False) -> ValuesAndIndices: ...
@shapes.numpy_names
def max_(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | ValuesAndIndices:
    """Without dim the largest element; with it (values, indices) along that axis, the first of tied ones.

    A second tensor in place of dim: the larger of the two, element by element.
    """
    if isinstance(dim, Tensor):
        return arithmetic.maximum(x, dim)
    return amax(x) if dim is None else _extreme_along("max", x, dim, keepdim, largest=True)


@overload
def min_(x: Tensor, dim: None = None, keepdim: bool = False) -> Tensor: ...
@overload
def min_(x: Tensor, dim: Tensor, keepdim: bool = False) -> Tensor: ...
@overload
def min_(x: Tensor, dim: int, keepdim: bool = False) -> ValuesAndIndices: ...
@shapes.numpy_names
def min_(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | ValuesAndIndices:
    """Without dim the smallest element; with it (values, indices) along that axis, the first of tied ones.

    A second tensor in place of dim: the smaller of the two, element by element.
    """
    if isinstance(dim, Tensor):
        return arithmetic.minimum(x, dim)
    return amin(x) if dim is None else _extreme_along("min", x, dim, keepdim, largest=False)


@shapes.numpy_names
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the first largest element along `dim`, or in the flattened tensor; int64, no gradient."""
    return _position("argmax", x, dim, keepdim)


@shapes.numpy_names
def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the first smallest element along `dim`, or in the flattened tensor; int64, no gradient."""
    return _position("argmin", x, dim, keepdim)


@shapes.numpy_names
def any_(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Is one element over `dim` not 0? bool, no gradient; of uint8 uint8, as PyTorch's."""
    return _truth("any", x, dim, keepdim)


@shapes.numpy_names
def all_(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Is no element over `dim` 0? bool, no gradient; of uint8 uint8, as PyTorch's."""
    return _truth("all", x, dim, keepdim)


@shapes.numpy_names
def cumsum(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The sums of the first 1, 2, ... elements along `dim`, of x in `dtype`; without one ints and bools become int64."""
    axis = shapes.normalize_dim("cumsum", dim, x.ndim)
    x = arithmetic.cast(x, dtype or (x.dtype if x.dtype.kind == "f" else np.int64))
    return CumSumFunction.apply(x, axis=axis)


@shapes.numpy_names
def norm(x: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p) over `dim`; "fro" and None are p = 2. p may be inf: the largest |x|. The gradient at 0 is 0 for p = 2.

    RuntimeError unless x is of floats; ValueError for another word, or p below 1.
    """
    if x.dtype.kind != "f":
        raise RuntimeError(f"norm: x must be of floats, got {x.dtype}")
    power = 2.0 if p in ("fro", None) else p
    if isinstance(power, str) or power < 1:
        raise ValueError(f"norm: p must be 'fro' or a number of at least 1, got {p!r}")
    if power == 2:
        return NormFunction.apply(x, axes=shapes.normalize_dims("norm", dim, x.ndim), keepdim=keepdim)
    size = arithmetic.abs_(x)
    if power == float("inf"):
        return amax(size, dim, keepdim)
    return sum_(size, dim, keepdim) if power == 1 else arithmetic.pow(sum_(size**power, dim, keepdim), 1 / power)


@shapes.numpy_names
def var(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The mean square of x - mean over `dim`, with n - correction in place of n; correction is 1, or 0 if not `unbiased`."""
    d, dim, free = _deviations("var", x, dim, unbiased, correction)
    return arithmetic.div(sum_(arithmetic.mul(d, d), dim, keepdim), free)


@shapes.numpy_names
def std(
    x: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The square root of var; its gradient where it is 0 is 0, as PyTorch's."""
    d, dim, free = _deviations("std", x, dim, unbiased, correction)
    return arithmetic.div(norm(d, 2, dim, keepdim), math.sqrt(free))


def _deviations(op: str, x: Tensor, dim: Dims, unbiased: bool | None, correction: float | None) -> tuple[Tensor, Dims, float]:
    """x - mean over dim, dim, and by how many squares are to be divided. x.var(False) means unbiased=False, as PyTorch's."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise RuntimeError(f"{op}: unbiased and correction are two names for one setting, got {unbiased} and {correction}")
    count = math.prod(x.shape[axis] for axis in shapes.normalize_dims(op, dim, x.ndim))
    less = (1.0 if unbiased is None else float(unbiased)) if correction is None else correction
    return arithmetic.sub(x, mean(x, dim, keepdim=True)), dim, max(count - less, 0.0)


def _position(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if x.dtype == np.bool_:
        raise RuntimeError(f"{op}: x must be of numbers, got bools; use .long()")
    axis = None if dim is None else shapes.normalize_dim(op, dim, x.ndim)
    axis = axis if x.ndim else None
    _check_not_empty(op, x, (axis,) if axis is not None else tuple(range(x.ndim)))
    with x.device.active():
        return Tensor(getattr(x.data, op)(axis=axis, keepdims=keepdim), device=x.device)


def _truth(op: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    axes = shapes.normalize_dims(op, dim, x.ndim)
    with x.device.active():
        y = getattr(x.data != 0, op)(axis=axes, keepdims=keepdim)
        return Tensor(y, device=x.device, dtype=np.uint8 if x.dtype == np.uint8 else None)


def _extreme(op: str, x: Tensor, dim: Dims, keepdim: bool, largest: bool) -> Tensor:
    axes = shapes.normalize_dims(op, dim, x.ndim)
    _check_not_empty(op, x, axes)
    return ExtremeFunction.apply(x, axes=axes, keepdim=keepdim, largest=largest)


def _extreme_along(op: str, x: Tensor, dim: int, keepdim: bool, largest: bool) -> ValuesAndIndices:
    axis = shapes.normalize_dim(op, dim, x.ndim)
    _check_not_empty(op, x, (axis,) if x.ndim else ())
    return ValuesAndIndices(*ExtremeAlongFunction.apply(x, axis=axis, keepdim=keepdim, largest=largest))


def _check_not_empty(op: str, x: Tensor, axes: tuple[int, ...]) -> None:
    if any(x.shape[axis] == 0 for axis in axes):
        raise IndexError(f"{op}: an axis of 0 elements has no extreme, got x {x.shape}, dim {axes}")
