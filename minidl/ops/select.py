"""Elements chosen by a condition or by positions, and sorting.

Forward
    where    z = x where c, else y
    gather   y[i, j] = x[index[i, j], j]        for dim 0; so for every axis

Backward
    where    gx = gz where c, else 0            gy = gz where not c, else 0
    gather   gx = 0, plus gy at index           added up where an element was taken more than once

sort and topk find the positions and gather. masked_fill is where, with a number in place of x.
"""

from typing import Any, Literal, overload

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.dtypes import result_type
from minidl.kernels import fastest
from minidl.ops.arithmetic import Operand, cast, unbroadcast
from minidl.ops.reduce import ValuesAndIndices
from minidl.ops.reshape import add_at
from minidl.tensor import Function, Tensor, common_device


class WhereFunction(Function):
    """x where c is True, else y.

    Saved
        c   Which side an element came from says who gets its gradient.
    """

    name = "where"

    def forward(ctx, c: Array, x: Array, y: Array) -> Array:
        ctx.shapes = getattr(x, "shape", ()), getattr(y, "shape", ())
        ctx.save(c)
        return array_module(c).where(c, x, y)

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        (c,) = ctx.saved
        gx = unbroadcast(gz * c, ctx.shapes[0]) if ctx.needs_grad[1] else None
        gy = unbroadcast(gz * ~c, ctx.shapes[1]) if ctx.needs_grad[2] else None
        return None, gx, gy


class GatherFunction(Function):
    """The elements at the positions of index along one axis.

    Saved
        index   Where each element came from is where its gradient goes.
    """

    name = "gather"

    def forward(ctx, x: Array, index: Array, axis: int) -> Array:
        ctx.x_shape, ctx.axis = x.shape, axis
        ctx.save(index)
        return x[_places(index, axis)]

    def backward(ctx, gy: Array) -> tuple[Array, None]:
        (index,) = ctx.saved
        xp = array_module(gy)
        gx = xp.zeros(ctx.x_shape, gy.dtype)
        fastest(add_at, gx)(gx, _places(index, ctx.axis), gy)
        return gx, None


def _places(index: Array, axis: int) -> tuple[Array, ...]:
    """Arrays of indices, one an axis: along `axis` the given ones, along the others each its own."""
    if not index.ndim:
        return ()
    xp = array_module(index)
    lengths = [xp.arange(n).reshape([-1 if i == a else 1 for i in range(index.ndim)]) for a, n in enumerate(index.shape)]
    return (*lengths[:axis], index, *lengths[axis + 1 :])


@overload
def where(condition: Tensor, input: None = None, other: None = None) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor, input: Operand, other: Operand) -> Tensor: ...
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor | tuple[Tensor, ...]:
    """input where condition is True, else other; all three broadcast, the dtype is that of both together.

    Without input and other: the positions of what is not 0, a tensor for each axis. RuntimeError for a condition that is not
    of bools.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if condition.dtype != np.bool_:
        raise RuntimeError(f"where: condition must be of bools, got {condition.dtype}")
    if input is None or other is None:
        raise TypeError("where: input and other must be given both or neither, got one")
    x, y = (z if isinstance(z, (Tensor, bool, int, float)) else Tensor(z, device=condition.device) for z in (input, other))
    dtype = result_type(x, y)
    x, y = (cast(z, dtype) if isinstance(z, Tensor) else Tensor(z, device=condition.device, dtype=dtype) for z in (x, y))
    try:
        return WhereFunction.apply(condition, x, y)
    except ValueError:
        text = f"condition {condition.shape}, input {x.shape}, other {y.shape}"
        raise RuntimeError(f"where: sizes must be equal or 1, counted from the last axis, got {text}") from None


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """x with `value`, a number or a 0-d tensor, cast to x's dtype, where mask is True. RuntimeError for a mask of another dtype
    than bool, and for a value with axes."""
    fill = value if isinstance(value, Tensor) else Tensor(np.asarray(value, result_type(value)), device=x.device)
    if fill.ndim:
        raise RuntimeError(f"masked_fill: value must be a number or a 0-d tensor, got the shape {fill.shape}")
    if mask.dtype != np.bool_:
        raise RuntimeError(f"masked_fill: mask must be of bools, got {mask.dtype}")
    return where(mask, cast(fill, x.dtype), x)


@shapes.numpy_names
def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[i, j, k] = x[i, index[i, j, k], k] for dim 1; so for every axis. index has as many axes as x, and is nowhere longer
    than x but along dim.

    RuntimeError: other axes, an index that is not of int64 or int32, a position out of range.
    """
    axis = shapes.normalize_dim("gather", dim, x.ndim)
    common_device("gather", (x, index))
    if index.dtype not in (np.int64, np.int32):
        raise RuntimeError(f"gather: index must be of int64 or int32, got {index.dtype}")
    longer = [a for a, (n, m) in enumerate(zip(x.shape, index.shape, strict=False)) if a != axis and m > n]
    if index.ndim != x.ndim or longer:
        raise RuntimeError(f"gather: index must fit into x but along dim {dim}, got x {x.shape}, index {index.shape}")
    length = x.shape[axis] if x.ndim else 1
    with x.device.active():
        if index.numel() and not (int(index.data.min()) >= 0 and int(index.data.max()) < length):
            raise RuntimeError(f"gather: positions must be in [0, {length - 1}], got {index.data.min()} to {index.data.max()}")
    return GatherFunction.apply(x, index, axis=axis)


@shapes.numpy_names
def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesAndIndices:
    """(values, indices) in order along `dim`; equal ones stay in their order, NaN counts as the largest. Always stable."""
    axis = shapes.normalize_dim("sort", dim, x.ndim)
    indices = Tensor(_order(x, axis, descending), device=x.device)
    return ValuesAndIndices(gather(x, axis, indices), indices)


@shapes.numpy_names
def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions that sort x along `dim`; int64, no gradient."""
    return Tensor(_order(x, shapes.normalize_dim("argsort", dim, x.ndim), descending), device=x.device)


@shapes.numpy_names
def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesAndIndices:
    """(values, indices) of the k largest, or smallest, along `dim`, always in order. RuntimeError for more than there are."""
    axis = shapes.normalize_dim("topk", dim, x.ndim)
    length = x.shape[axis] if x.ndim else 1
    if not 0 <= k <= length:
        raise RuntimeError(f"topk: k must be in [0, {length}], got {k} (x {x.shape}, dim {dim})")
    order = _order(x, axis, descending=largest)
    indices = Tensor(order[(slice(None),) * axis + (slice(k),)] if x.ndim else order, device=x.device)
    return ValuesAndIndices(gather(x, axis, indices), indices)


@overload
def nonzero(x: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(x: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
def nonzero(x: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """The positions of what is not 0: (how many, ndim), int64, in C order of the indices; no gradient.

    as_tuple : a tensor (how many,) for each axis instead, of which x[...] takes all those elements; a 0-d x has 1 axis then.
    """
    if as_tuple:
        return tuple(Tensor(at, device=x.device) for at in _nonzero(x))
    with x.device.active():
        found = array_module(x.data).stack(_nonzero(x), axis=1) if x.ndim else x.data.reshape(1, 1)[: int(x.data != 0), :0]
        return Tensor(found, device=x.device, dtype=np.int64)


def _nonzero(x: Tensor) -> tuple[Array, ...]:
    with x.device.active():
        return tuple(array_module(x.data).nonzero(x.data.reshape(x.shape or 1)))  # NumPy refuses an array without axes


def _order(x: Tensor, axis: int, descending: bool) -> Array:
    """The positions that sort x, equal ones in their order."""
    with x.device.active():
        xp = array_module(x.data)
        if not x.ndim:
            return xp.zeros((), np.int64)
        if not descending:
            return xp.argsort(x.data, axis=axis, kind="stable")
        # backwards twice: equal ones, which the first turn put in the opposite order, are right again
        backwards = xp.argsort(xp.flip(x.data, axis), axis=axis, kind="stable")
        return xp.flip(x.shape[axis] - 1 - backwards, axis).copy()
