"""ReLU in long runs of memory, without a branch for each element; the mathematics is in minidl/ops/relu.py.

Forward: NumPy compares two arrays three times as fast as an array and a number. Backward: a comparison, and a product of the
gradient's bits, as integers, with 1 or 0. (As floats, infinity * 0 would be NaN.)
"""

from functools import cache

import numpy as np

from minidl import memory, parallel
from minidl.device import memory_order

SLAB = 1 << 17  # elements at once


def relu_forward(x: np.ndarray) -> np.ndarray:
    """x of any shape -> y; NaN stays NaN."""
    order = memory_order(x)
    flat = x.transpose(order).reshape(-1)
    y = memory.empty(flat.shape, x.dtype)
    zeros = _zeros(x.dtype)

    def work(first: int, stop: int) -> None:
        for slab in parallel.slabs(first, stop, SLAB):
            np.maximum(flat[slab], zeros[: slab.stop - slab.start], out=y[slab])

    parallel.run(work, flat.size, parallel.grain(1))
    return _unflatten(y, x.shape, order)


def relu_backward(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """gy, y of any shape -> gx in y's memory order."""
    order = memory_order(y)
    outputs, upstream = (np.ascontiguousarray(a.transpose(order)).reshape(-1) for a in (y, gy))
    gx = memory.empty(upstream.shape, upstream.dtype)

    def work(first: int, stop: int) -> None:
        for slab in parallel.slabs(first, stop, SLAB):
            rectify_gradient(upstream[slab], outputs[slab], gx[slab])

    parallel.run(work, gx.size, parallel.grain(1))
    return _unflatten(gx, gy.shape, order)


def rectify_gradient(gy: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out = 0 where y <= 0, else gy; contiguous arrays of one shape -> out."""
    keep = np.less_equal(y, 0, out=parallel.scratch("keep", y.shape, bool))
    np.logical_not(keep, out=keep)  # so that NaN passes
    bits = np.dtype(f"i{gy.dtype.itemsize}")
    factors = parallel.scratch("keep factors", y.shape, bits)
    np.copyto(factors, keep)  # apart: a ufunc that casts as it goes takes twice as long
    np.multiply(gy.view(bits), factors, out=out.view(bits))
    return out


@cache
def _zeros(dtype: np.dtype) -> np.ndarray:
    zeros = np.zeros(SLAB, dtype)
    zeros.flags.writeable = False
    return zeros


def _unflatten(flat: np.ndarray, shape: tuple[int, ...], order: list[int]) -> np.ndarray:
    """A flat array in the memory order `order` of its axes -> the array of `shape`."""
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
