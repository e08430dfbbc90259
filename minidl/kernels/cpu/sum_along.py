"""Sums in blocks, so that float32 keeps its digits; the mathematics is a sum: see minidl/ops/arithmetic.py.

A sum of n terms, added one by one to a total, rounds n times, each time by what the total has grown to. NumPy adds pairwise,
with some log2(n) roundings for each term, but only along the axis whose elements are neighbours in memory. Along another one it
adds row after row. Here the rows of such an axis are added BLOCK by BLOCK, then those sums in the same way, until one is left:
a term goes through BLOCK roundings log_BLOCK(n) times.

A block's rows lie far from each other. So that NumPy's loops are long although rows may be short, it adds as many
neighbouring rows at once as make up _WIDTH elements, and that many totals stay in the inner cache.
"""

import math
from itertools import groupby

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from minidl.device import memory_order

BLOCK = 16  # rows added one by one
_WIDTH = 1 << 12  # elements


def sum_along(x: np.ndarray, axis: int | tuple[int, ...], keepdims: bool = False) -> np.ndarray:
    """As the plain function in minidl/ops/arithmetic.py."""
    if x.dtype.kind != "f":
        return x.sum(axis=axis, keepdims=keepdims)
    if x.dtype == np.float16:
        return sum_along(x.astype(np.float32), axis, keepdims).astype(np.float16)
    axes = normalize_axis_tuple(axis, x.ndim)
    neighbours = x.flags.c_contiguous and sorted(axes) == list(range(x.ndim - len(axes), x.ndim))
    if neighbours or math.prod(x.shape[a] for a in axes) <= BLOCK:
        return x.sum(axis=axes, keepdims=keepdims)
    if x.size and x.flags.c_contiguous and sorted(axes) == list(range(len(axes))):  # the usual case, with less ado
        total = _sum(x.reshape(-1, *x.shape[len(axes) :]), 0)
        return total.reshape((1,) * len(axes) + x.shape[len(axes) :]) if keepdims else total[0]
    order = memory_order(x)
    ordered, summed = x.transpose(order), [a in axes for a in order]
    kept = [1 if there else n for n, there in zip(ordered.shape, summed, strict=True)]
    if ordered.flags.c_contiguous:  # neighbouring axes that go the same way are one
        runs = [[n for n, _ in run] for _, run in groupby(zip(ordered.shape, summed, strict=True), key=lambda pair: pair[1])]
        ordered, summed = ordered.reshape([math.prod(run) for run in runs]), [there for there, _ in groupby(summed)]
    for a in reversed(range(ordered.ndim)):
        if summed[a]:
            ordered = _sum(ordered, a)
    total = ordered.reshape(kept).transpose(np.argsort(order))
    return total if keepdims else total.squeeze(axes)


def _sum(x: np.ndarray, axis: int) -> np.ndarray:
    """The sum along one axis, which keeps the length 1; x's axes are in memory order."""
    before, after, n = x.shape[:axis], x.shape[axis + 1 :], x.shape[axis]
    row, every = math.prod(after), (slice(None),) * axis
    while n > BLOCK and row > 1:
        together = max(min(n // BLOCK, _WIDTH // row), 1)
        whole = n - n % (BLOCK * together)
        blocks = x[*every, :whole].reshape(*before, -1, BLOCK, together, *after)
        sums = np.add.reduce(blocks, axis + 1).reshape(*before, whole // BLOCK, *after)
        x = sums if whole == n else np.concatenate([sums, x[*every, whole:]], axis)
        n = x.shape[axis]
    return np.add.reduce(x, axis, keepdims=True)
