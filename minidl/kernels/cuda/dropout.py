"""Dropout in one pass, which makes the mask too; the mathematics is in minidl/ops/dropout.py."""

import math

from minidl.device import Array, array_module, memory_order
from minidl.kernels.cuda.flat import flatten, unflatten
from minidl.kernels.cuda.launch import launch
from minidl.random import Draw, words_below

WORDS, BATCH = 8, 4  # elements for each thread, forward and backward, as in dropout.cu


def dropout_forward(x: Array, draw: Draw, p: float, scale: float) -> tuple[Array, Array]:
    """x of any shape -> y, and mask (bool), both in x's memory order; the same mask as on a CPU."""
    xp, order = array_module(x), memory_order(x)
    if draw.places is not None:  # the words of its rows lie apart: the host makes them
        mask = xp.empty_like(x, dtype=bool)
        mask[...] = xp.asarray(draw.bernoulli(1 - p, x.shape))
        return x * mask * x.dtype.type(scale), mask
    transposition = _transposition(x.shape, order)
    if transposition is None:
        results = dropout_forward(xp.ascontiguousarray(x), draw, p, scale)
        y, mask = (flatten(result, order) for result in results)
    else:
        y, mask = xp.empty(x.size, x.dtype), xp.empty(x.size, bool)
        _make(flatten(x, order), y, mask, transposition, (*_numbers(draw), words_below(1 - p), float(scale)))
    return unflatten(y, x.shape, order), unflatten(mask, x.shape, order)


def dropout_backward(gy: Array, mask: Array, scale: float) -> Array:
    """gy, mask (bool) of one shape -> gx in the mask's memory order."""
    order = memory_order(mask)
    arrays = flatten(gy, order), flatten(mask, order)
    gx = array_module(gy).empty(gy.size, gy.dtype)
    launch("dropout", "mdl_dropout_backward", -(-gx.size // BATCH), *arrays, gx, gx.size, float(scale), real=gy.dtype)
    return unflatten(gx, gy.shape, order)


def _make(x: Array, y: Array, mask: Array, transposition: tuple[int, int, int], settings: tuple[int | float, ...]) -> None:
    """Fill y and mask, both of x's size, for memory as `_transposition` says."""
    outer, rows, columns = transposition
    if rows == 1:
        launch("dropout", "mdl_dropout_forward", -(-x.size // WORDS), x, y, mask, x.size, *settings, real=x.dtype)
    else:
        count, name = outer * -(-rows // WORDS) * columns, "mdl_dropout_forward_transposed"
        launch("dropout", name, count, x, y, mask, *transposition, *settings, real=x.dtype)


def _transposition(shape: tuple[int, ...], order: list[int]) -> tuple[int, int, int] | None:
    """(outer, rows, columns), as which axes in this order lie in memory, if (outer, columns, rows) is C order; rows are 1 where
    memory is in C order itself. None if there are no such three numbers."""
    if 0 in shape:
        return 0, 1, 1
    axes = [axis for axis in order if shape[axis] > 1]
    same = next((i for i, (a, b) in enumerate(zip(axes, sorted(axes), strict=True)) if a != b), len(axes))
    outer, rest = axes[:same], axes[same:]
    turn = rest.index(min(rest)) if rest else 0
    if rest[turn:] + rest[:turn] != sorted(rest):
        return None
    sizes = (math.prod(shape[axis] for axis in part) for part in (outer, rest[:turn], rest[turn:]))
    return tuple(sizes)  # type: ignore[return-value]  # three of them


def _numbers(draw: Draw) -> list[int]:
    """Key and counter as the kernels take them: 64 bits each, that a GPU is given as a signed number."""
    first, second, third = draw.ids
    unsigned = draw.seed, first, draw.number, second, third
    return [n - 2**64 if n >= 2**63 else n for n in unsigned]
