"""Memory for large results, used again when they are gone.

Fresh memory costs a page fault for every few kilobytes at its first touch: for an activation of AlexNet about as much time as
computing it. A training step makes arrays of the same sizes every time, so the blocks of the step before are kept. An array
from `empty` is like one from `np.empty`; its block comes back when it and all views of it are gone. A block that lies idle
while a thousand others are asked for goes back to the system, and `release` gives back all that are idle.
"""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

_LARGE = 1 << 20  # bytes; smaller blocks are kept by the C library
_LINE = 64  # bytes: a cache line, and the widest vector; NumPy's loops are up to 1.7 times as fast on whole lines
_IDLE = 1000  # blocks asked for; a training step of AlexNet asks for about a hundred


class Lease:
    """The owner of a block while arrays use it: the `base` of the array from `empty`.

    Leases end whenever Python finds that an array is gone, on any thread and in the middle of anything. So there is no lock:
    every access to `idle` is a single call that the interpreter does not interrupt.
    """

    idle: ClassVar[dict[int, deque[tuple[int, np.ndarray]]]] = {}  # size -> (when it became idle, block), the latest last
    _clock: ClassVar = itertools.count(1)  # blocks asked for
    _now: ClassVar[int] = 0

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        Lease._now = now = next(self._clock)
        self._block = _idle_block(math.prod(shape) * dtype.itemsize)
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (self._block.ctypes.data, False),
        }
        self._ended = self.idle.setdefault(self._block.nbytes, deque())
        if now % _IDLE == 0:
            _drop_idle_since(now - _IDLE)

    def __del__(self) -> None:
        self._ended.append((self._now, self._block))


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An uninitialised array in C order, in memory used before if it is large."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize < _LARGE:
        return np.empty(shape, dtype)
    return np.asarray(Lease(shape, dtype))


def aligned(size: int) -> np.ndarray:
    """`size` uninitialised bytes, uint8, that begin with a cache line."""
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size]


def owner(array: Any) -> Any:
    """The array whose memory an array (NumPy's or CuPy's) is in: itself, or what it is a view of, at last."""
    while hasattr(array.base, "base"):
        array = array.base
    return array


def release() -> None:
    """Give all idle blocks back to the system."""
    _drop_idle_since(Lease._now)


def _idle_block(size: int) -> np.ndarray:
    """An idle block of this size, or up to a quarter larger, or a new one."""
    size = _round_up(size)
    for kept in sorted(kept for kept in list(Lease.idle) if size <= kept <= size * 5 // 4):
        try:
            return Lease.idle[kept].pop()[1]
        except IndexError:  # none, or another thread was faster
            continue
    return aligned(size)


def _drop_idle_since(limit: int) -> None:
    for blocks in list(Lease.idle.values()):
        try:
            while blocks[0][0] <= limit:
                blocks.popleft()
        except IndexError:
            continue


def _round_up(size: int) -> int:
    """To four binary digits, at most an eighth more: batches of nearly the same size share blocks."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step
