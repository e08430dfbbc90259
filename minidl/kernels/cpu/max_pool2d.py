"""2-d max pooling without masked copies; the mathematics is in minidl/ops/max_pool2d.py.

Forward: the largest of a window is the largest of its columns' largest, so KH + KW comparisons do instead of KH * KW. Down the
columns whole rows of the image are compared. What is left is sorted by column modulo the stride: then each kernel element meets
runs of memory as long as a row, where NumPy is several times faster than on every second pixel. Windows that hang over an edge
are compared by themselves. Where backward will ask for winners, they travel along as one byte for each value.

Backward: one indexed addition for each slab. The winner's number says how far it lies from its window's first pixel.
"""

import math
from functools import lru_cache

import numpy as np

from minidl import memory, parallel, shapes
from minidl.kernels.cpu.windows import Axis
from minidl.shapes import Padding, Pair

SLAB = 1 << 19  # values of x at once: with fewer, the time between NumPy's loops counts for more than the cache


def max_pool2d_forward(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, H, W, C) -> y (N, OH, OW, C) and argmax, y's shape: which of the KH*KW window elements won (uint8, or int32
    above 256)."""
    argmax = memory.empty((len(x), *out, x.shape[3]), np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    return _forward(x, kernel, stride, padding, dilation, out, argmax), argmax


def max_pool2d_values(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> np.ndarray:
    """x (N, H, W, C) -> y (N, OH, OW, C)."""
    return _forward(x, kernel, stride, padding, dilation, out, None)


def _forward(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair, argmax: np.ndarray | None
) -> np.ndarray:
    """y; the winners' numbers too, where there is an array for them."""
    n, h, w, c = x.shape
    y = memory.empty((n, *out, c), x.dtype)
    x = np.ascontiguousarray(x)
    down, across = Axis.pair(kernel, stride, padding, dilation, (h, w))

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, SLAB // (h * w * c)):
            for rows in parallel.slabs(0, out[0], SLAB // (stride[0] * w * c)):
                numbers = None if argmax is None else argmax[images, rows]
                _across(*_down(x[images], down, rows, kernel[1], numbers), across, y[images, rows], numbers)
            if argmax is not None and not y[images].min() > -np.inf:
                pads = shapes.pool_padding((h, w), out, kernel, stride, padding, dilation)
                _fix_exceptions(_pad_images(x[images], pads), y[images], argmax[images], kernel, stride, padding, dilation)

    parallel.run(work, n if c else 0, parallel.grain((10 if argmax is None else 20) * h * w * c // 4))
    return y


def _down(x: np.ndarray, axis: Axis, rows: slice, kw: int, argmax: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The largest of every column of the windows in some rows of output, (n, rows, W, C); and, if argmax is given,
    u * KW for the first of the window's rows u that has it."""
    n, _, w, c = x.shape
    shape = n, rows.stop - rows.start, w, c
    largest = parallel.scratch("down largest", shape, x.dtype)
    winner = None if argmax is None else parallel.scratch("down winner", shape, argmax.dtype)
    for outputs, elements in axis.groups(rows.start, rows.stop):
        part = slice(outputs.start - rows.start, outputs.stop - rows.start)
        taps = [x[:, pixels] for _, pixels in elements]
        if winner is not None:
            _first_largest(taps, [u * kw for u, _ in elements], largest[:, part], winner[:, part])
        else:
            _largest(taps, largest[:, part])
    return largest, winner


def _largest(taps: list[np.ndarray], out: np.ndarray) -> None:
    """The largest of arrays of one shape, element by element; -infinity of none."""
    if len(taps) < 2:
        out[...] = taps[0] if taps else -np.inf
        return
    np.maximum(taps[0], taps[1], out=out)
    for tap in taps[2:]:
        np.maximum(out, tap, out=out)


def _first_largest(taps: list[np.ndarray], numbers: list[int], out: np.ndarray, winner: np.ndarray) -> None:
    """The same, and the number, which ascend, of the first that has it."""
    winner[...] = numbers[0] if numbers else 0
    if len(taps) < 2:
        return _largest(taps, out)
    better, candidate = _scratches("first largest", out.shape, np.dtype(bool), winner.dtype)
    so_far = taps[0]
    for tap, number in zip(taps[1:], numbers[1:], strict=True):
        np.greater(tap, so_far, out=better)
        so_far = np.maximum(so_far, tap, out=out)
        np.multiply(better.view(np.uint8), winner.dtype.type(number), out=candidate)
        np.maximum(winner, candidate, out=winner)
    return None


def _across(largest: np.ndarray, winner: np.ndarray | None, axis: Axis, y: np.ndarray, argmax: np.ndarray | None) -> None:
    """The largest of a window's columns, and the smallest number u * KW + v of those that have it."""
    for outputs, elements in axis.groups(0, y.shape[2]):
        target = y[:, :, outputs]
        numbers = None if argmax is None else argmax[:, :, outputs]
        if len(elements) == axis.kernel:
            _inside(largest, winner, axis, elements[0][1], target, numbers)
            continue
        taps = [largest[:, :, pixels] for _, pixels in elements]
        _largest(taps, target)
        if winner is not None and numbers is not None:
            _smallest_number(taps, [(v, winner[:, :, pixels]) for v, pixels in elements], target, numbers)


def _inside(
    largest: np.ndarray, winner: np.ndarray | None, axis: Axis, starts: slice, y: np.ndarray, argmax: np.ndarray | None
) -> None:
    """For windows that lie inside the image and begin at the pixels `starts`."""
    reach = (axis.kernel - 1) * axis.dilation + 1
    columns = slice(starts.start, starts.stop - 1 + reach)
    places = [(v * axis.dilation % axis.stride, v * axis.dilation // axis.stride) for v in range(axis.kernel)]
    needed = sorted({residue for residue, _ in places})
    planes = _by_residue(largest[:, :, columns], axis.stride, needed, "values")
    taps = [planes[residue][:, :, first : first + y.shape[2]] for residue, first in places]
    _largest(taps, y)
    if winner is not None and argmax is not None:
        numbers = _by_residue(winner[:, :, columns], axis.stride, needed, "winners")
        candidates = [numbers[residue][:, :, first : first + y.shape[2]] for residue, first in places]
        _smallest_number(taps, list(enumerate(candidates)), y, argmax)


def _by_residue(x: np.ndarray, stride: int, needed: list[int], name: str) -> dict[int, np.ndarray]:
    """(n, H, W, C) -> for each residue that is needed, the columns that have it modulo the stride: (n, H, ceil(W / stride), C),
    in scratch. The last column of some planes is not written; no window reads it."""
    n, h, w, c = x.shape
    if stride == 1:
        return {0: x}
    pixel = np.dtype((np.void, c * x.itemsize))  # NumPy copies one long item faster than many short ones
    planes = {r: parallel.scratch(f"{name} {r}", (n, h, -(-w // stride), c), x.dtype) for r in needed}
    for residue, plane in planes.items():
        columns = x[:, :, residue::stride]
        np.copyto(plane[:, :, : columns.shape[2]].view(pixel), columns.view(pixel))
    return planes


def _smallest_number(
    taps: list[np.ndarray], candidates: list[tuple[int, np.ndarray]], largest: np.ndarray, out: np.ndarray
) -> None:
    """The smallest u * KW + v, from v and u * KW, of the taps that have the largest value."""
    smaller, handicap, candidate = _scratches("smallest number", out.shape, np.dtype(bool), out.dtype, out.dtype)
    highest = out.dtype.type(np.iinfo(out.dtype).max)
    out[...] = highest
    for tap, (v, number) in zip(taps, candidates, strict=True):
        np.not_equal(tap, largest, out=smaller)
        np.multiply(smaller.view(np.uint8), highest, out=handicap)
        np.add(number, out.dtype.type(v), out=candidate)
        np.maximum(candidate, handicap, out=candidate)
        np.minimum(out, candidate, out=out)


def _scratches(name: str, shape: tuple[int, ...], *dtypes: np.dtype) -> list[np.ndarray]:
    return [parallel.scratch(f"{name} {i}", shape, dtype) for i, dtype in enumerate(dtypes)]


# --------------------------------------------------------------------------------------------------------- exceptions


def _fix_exceptions(
    x: np.ndarray, y: np.ndarray, argmax: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """Of nothing but -infinity the first pixel inside the image wins, of NaNs the last. Padded x (n, H, W, C)."""
    rows, columns = (_first_inside(*sides) for sides in zip(y.shape[1:3], stride, padding, dilation, strict=True))
    np.copyto(argmax, (rows[:, None] * kernel[1] + columns)[:, :, None], where=y == -np.inf, casting="unsafe")
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            np.copyto(argmax, argmax.dtype.type(u * kernel[1] + v), where=np.isnan(_tap(x, u, v, y.shape, stride, dilation)))


def _pad_images(x: np.ndarray, padding: Padding) -> np.ndarray:
    """(n, H, W, C) -> (n, H + top + bottom, W + left + right, C) with -infinity around."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-np.inf)


def _first_inside(out: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """For each window, the first kernel element that is not in the padding before the image."""
    return np.maximum(-((np.arange(out) * stride - padding) // dilation), 0)


def _tap(x: np.ndarray, u: int, v: int, out: tuple[int, ...], stride: Pair, dilation: Pair) -> np.ndarray:
    """The pixels of padded x (n, H, W, C) that kernel element (u, v) meets: a view of the shape `out` (n, OH, OW, C)."""
    return x[:, u * dilation[0] :: stride[0], v * dilation[1] :: stride[1]][:, : out[1], : out[2]]


# ------------------------------------------------------------------------------------------------------------ backward


def max_pool2d_backward(
    gy: np.ndarray, argmax: np.ndarray, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """gy, argmax (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    n, h, w, c = x_shape
    out = gy.shape[1:3]
    axes = Axis.pair(kernel, stride, padding, dilation, (h, w))
    if any(axis.misses(windows) for axis, windows in zip(axes, out, strict=True)):  # their winners lie outside
        (top, bottom), (left, right) = shapes.pool_padding((h, w), out, kernel, stride, padding, dilation)
        padded = n, h + top + bottom, w + left + right, c
        whole = max_pool2d_backward(gy, argmax, padded, kernel, stride, (0, 0), dilation)
        return np.ascontiguousarray(whole[:, top : top + h, left : left + w])
    gy, gx = np.ascontiguousarray(gy), memory.empty(x_shape, gy.dtype)
    at_once = max(min(SLAB // max(h * w * c, 1), n), 1)
    starts = _window_starts(at_once, x_shape[1:], out, stride, padding)
    distances = _element_distances(kernel, dilation, w, c)
    apart = all(s > (k - 1) * d for s, k, d in zip(stride, kernel, dilation, strict=True))  # no pixel wins twice

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, at_once):
            winners = parallel.scratch("winners", argmax[images].shape, np.intp)
            np.take(distances, argmax[images], out=winners, mode="clip")  # another mode would copy the result
            winners += starts[: len(winners)]
            g = gx[images].reshape(-1)
            g.fill(0)
            if apart:
                g[winners.reshape(-1)] = gy[images].reshape(-1)
            else:
                np.add.at(g, winners.reshape(-1), gy[images].reshape(-1))

    parallel.run(work, n, parallel.grain(10 * math.prod(gy.shape[1:])))
    return gx


@lru_cache(maxsize=32)
def _window_starts(n: int, image: tuple[int, ...], out: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """Where in images (n, H, W, C) each window's first pixel lies: (n, OH, OW, C) places in flat memory. Read-only.

    A place may be outside, in the padding; its window's winner is not.
    """
    h, w, c = image
    rows, columns = (np.arange(o) * s - p for o, s, p in zip(out, stride, padding, strict=True))
    starts = ((np.arange(n)[:, None, None] * h + rows[:, None]) * w + columns)[..., None] * c + np.arange(c)
    starts.flags.writeable = False
    return starts.astype(np.intp, copy=False)


@lru_cache(maxsize=32)
def _element_distances(kernel: Pair, dilation: Pair, width: int, c: int) -> np.ndarray:
    """How far kernel element number u * KW + v lies from its window's first pixel, in flat memory. Read-only."""
    rows, columns = (np.arange(k) * d for k, d in zip(kernel, dilation, strict=True))
    distances = ((rows[:, None] * width + columns) * c).reshape(-1).astype(np.intp)
    distances.flags.writeable = False
    return distances
