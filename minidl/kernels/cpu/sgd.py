"""The updates of SGD in blocks that stay in cache, shared by threads: every array is read and written once.

Blocks follow the order of w's memory. They are as large as the outer cache allows, because NumPy takes the interpreter's lock
between two loops: in small blocks, threads mostly wait for each other.
"""

import math
from collections.abc import Callable

import numpy as np

from minidl.device import memory_order
from minidl.parallel import grain, run, scratch, slabs

_BLOCK = 1 << 17  # elements: w, g, v and one temporary array fill two megabytes


def sgd_update(
    w: np.ndarray,
    g: np.ndarray,
    v: np.ndarray | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """As the plain function in minidl/optim/sgd.py."""

    def update(w: np.ndarray, g: np.ndarray, v: np.ndarray | None) -> None:
        d = _direction(w, g, weight_decay, maximize)
        if v is not None:
            v *= momentum
            if dampening != 0:
                d *= 1 - dampening
            v += d
        if v is None:
            d *= lr
        elif nesterov:
            d += np.multiply(v, momentum, out=scratch("sgd momentum", v.shape, v.dtype))
            d *= lr
        else:
            np.multiply(v, lr, out=d)
        w -= d

    _in_blocks(update, w, g, v)


def sgd_update_2012(
    w: np.ndarray, g: np.ndarray, v: np.ndarray | None, lr: float, momentum: float, weight_decay: float
) -> None:
    """As the plain function in minidl/optim/sgd.py."""

    def update(w: np.ndarray, g: np.ndarray, v: np.ndarray | None) -> None:
        d = _direction(w, g, weight_decay, maximize=False)
        d *= lr
        if v is None:
            w -= d
        else:
            v *= momentum
            v -= d
            w += v

    _in_blocks(update, w, g, v)


def _direction(w: np.ndarray, g: np.ndarray, weight_decay: float, maximize: bool) -> np.ndarray:
    """g + weight_decay w, with -g to maximize, in scratch."""
    d = scratch("sgd direction", w.shape, w.dtype)
    if weight_decay != 0:
        np.multiply(w, weight_decay, out=d)
        (np.subtract if maximize else np.add)(d, g, out=d)
    elif maximize:
        np.negative(g, out=d)
    else:
        d[...] = g
    return d


def _in_blocks(
    update: Callable[[np.ndarray, np.ndarray, np.ndarray | None], None], w: np.ndarray, g: np.ndarray, v: np.ndarray | None
) -> None:
    """update(w, g, v) on blocks of all three, which threads share."""
    order = memory_order(w)
    arrays = [array.transpose(order) for array in (w, g, v) if array is not None]
    if all(array.flags.c_contiguous for array in arrays):
        arrays = [array.reshape(-1) for array in arrays]
    row = math.prod(arrays[0].shape[1:])

    def work(first: int, stop: int) -> None:
        for part in slabs(first, stop, max(_BLOCK // max(row, 1), 1)):
            blocks = [array[part] for array in arrays]
            update(blocks[0], blocks[1], blocks[2] if v is not None else None)

    run(work, len(arrays[0]), grain(6 * row))
