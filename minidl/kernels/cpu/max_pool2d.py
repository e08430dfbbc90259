"""2-d max pooling without masked copies; the mathematics is in minidl/ops/max_pool2d.py.

Forward: the largest of a window is the largest of its columns' largest, so KH + KW comparisons do instead of KH * KW. Winners
travel along as one byte for each value. Down the columns whole rows of the image are compared. What is left is sorted by column
modulo the stride: then each kernel element meets runs of memory as long as a row, where NumPy is several times faster than on
every second pixel.

Backward: one indexed addition for each slab. The winner's number says how far it lies from its window's first pixel.
"""

import math

import numpy as np

from minidl import memory, parallel, shapes
from minidl.shapes import Padding, Pair

SLAB = 1 << 19  # values of x at once: with fewer, the time between NumPy's loops counts for more than the cache


def max_pool2d_forward(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, H, W, C) -> y (N, OH, OW, C) and argmax, y's shape: which of the KH*KW window elements won (uint8, or int32
    above 256)."""
    n, h, w, c = x.shape
    y = memory.empty((n, *out, c), x.dtype)
    argmax = memory.empty(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    pads = shapes.pool_padding((h, w), out, kernel, stride, padding, dilation)
    x = np.ascontiguousarray(x)

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, _images_at_once(h * w * c)):
            padded = _pad_images(x[images], pads)
            for rows in parallel.slabs(0, out[0], SLAB // (stride[0] * w * c)):
                top, bottom = rows.start * stride[0], (rows.stop - 1) * stride[0] + shapes.span(kernel[0], dilation[0])
                _pool(padded[:, top:bottom], kernel, stride, dilation, y[images, rows], argmax[images, rows])
            _fix_exceptions(padded, y[images], argmax[images], kernel, stride, padding, dilation)

    parallel.run(work, n if c else 0, parallel.grain(10 * h * w * c))
    return y, argmax


def _images_at_once(image_size: int) -> int:
    return max(SLAB // max(image_size, 1), 1)


def _pad_images(x: np.ndarray, padding: Padding) -> np.ndarray:
    """(n, H, W, C) -> scratch (n, H + top + bottom, W + left + right, C) with -infinity around; or x itself."""
    (top, bottom), (left, right) = padding
    if top == bottom == left == right == 0:
        return x
    n, h, w, c = x.shape
    padded = parallel.scratch("padded", (n, h + top + bottom, w + left + right, c), x.dtype)
    padded.fill(-np.inf)
    padded[:, top : top + h, left : left + w] = x
    return padded


def _pool(x: np.ndarray, kernel: Pair, stride: Pair, dilation: Pair, y: np.ndarray, argmax: np.ndarray) -> None:
    """Padded x (n, H, W, C) -> y and argmax (n, OH, OW, C), if no window holds a NaN or nothing but -infinity."""
    largest, winner = _down(x, kernel, stride[0], dilation[0], y.shape[1], argmax.dtype)
    planes, numbers = _by_residue(largest, stride[1], "values"), _by_residue(winner, stride[1], "winners")
    _across(planes, numbers, dilation[1], kernel[1], y, argmax)


def _down(
    x: np.ndarray, kernel: Pair, stride: int, dilation: int, out: int, numbers: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """The largest of every window's columns, (n, OH, W, C), and u * KW for the first of the window's rows u that has it."""
    taps = [x[:, u * dilation : u * dilation + stride * (out - 1) + 1 : stride] for u in range(kernel[0])]
    shape = taps[0].shape
    winner = parallel.scratch("down winner", shape, numbers)
    winner[...] = 0
    if len(taps) == 1:
        return taps[0], winner
    largest, better, candidate = _scratches("down", shape, x.dtype, np.dtype(bool), numbers)
    so_far = taps[0]
    for u, tap in enumerate(taps[1:], 1):
        np.greater(tap, so_far, out=better)
        so_far = np.maximum(so_far, tap, out=largest)
        np.multiply(better.view(np.uint8), numbers.type(u * kernel[1]), out=candidate)
        np.maximum(winner, candidate, out=winner)
    return largest, winner


def _by_residue(x: np.ndarray, stride: int, name: str) -> np.ndarray:
    """(n, H, W, C) -> scratch (stride, n, H, ceil(W / stride), C): pixels by column modulo the stride.

    The last column of some planes is not written; no window reads it.
    """
    n, h, w, c = x.shape
    planes = parallel.scratch(name, (stride, n, h, -(-w // stride), c), x.dtype)
    pixel = np.dtype((np.void, c * x.itemsize))  # NumPy copies one long item faster than many short ones
    for residue in range(stride):
        columns = x[:, :, residue::stride]
        np.copyto(planes[residue, :, :, : columns.shape[2]].view(pixel), columns.view(pixel))
    return planes


def _across(planes: np.ndarray, numbers: np.ndarray, dilation: int, kernel: int, y: np.ndarray, argmax: np.ndarray) -> None:
    """The largest of a window's columns, and the smallest number u * KW + v of those that have it."""
    places = [(v * dilation % len(planes), v * dilation // len(planes)) for v in range(kernel)]
    taps = [planes[residue, :, :, first : first + y.shape[2]] for residue, first in places]
    np.maximum(taps[0], taps[-1], out=y)
    for tap in taps[1:-1]:
        np.maximum(y, tap, out=y)
    smaller, handicap, candidate = _scratches("across", y.shape, np.dtype(bool), argmax.dtype, argmax.dtype)
    highest = np.iinfo(argmax.dtype).max
    argmax[...] = highest
    for v, (tap, (residue, first)) in enumerate(zip(taps, places, strict=True)):
        np.not_equal(tap, y, out=smaller)
        np.multiply(smaller.view(np.uint8), argmax.dtype.type(highest), out=handicap)
        np.add(numbers[residue, :, :, first : first + y.shape[2]], argmax.dtype.type(v), out=candidate)
        np.maximum(candidate, handicap, out=candidate)
        np.minimum(argmax, candidate, out=argmax)


def _scratches(name: str, shape: tuple[int, ...], *dtypes: np.dtype) -> list[np.ndarray]:
    return [parallel.scratch(f"{name} {i}", shape, dtype) for i, dtype in enumerate(dtypes)]


def _fix_exceptions(
    x: np.ndarray, y: np.ndarray, argmax: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """Of nothing but -infinity the first pixel inside the image wins, of NaNs the last. Padded x (n, H, W, C)."""
    if y.min() > -np.inf:
        return
    rows, columns = (_first_inside(*sides) for sides in zip(y.shape[1:3], stride, padding, dilation, strict=True))
    np.copyto(argmax, (rows[:, None] * kernel[1] + columns)[:, :, None], where=y == -np.inf, casting="unsafe")
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            np.copyto(argmax, argmax.dtype.type(u * kernel[1] + v), where=np.isnan(_tap(x, u, v, y.shape, stride, dilation)))


def _first_inside(out: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """For each window, the first kernel element that is not in the padding before the image."""
    return np.maximum(-((np.arange(out) * stride - padding) // dilation), 0)


def _tap(x: np.ndarray, u: int, v: int, out: tuple[int, ...], stride: Pair, dilation: Pair) -> np.ndarray:
    """The pixels of padded x (n, H, W, C) that kernel element (u, v) meets: a view of the shape `out` (n, OH, OW, C)."""
    return x[:, u * dilation[0] :: stride[0], v * dilation[1] :: stride[1]][:, : out[1], : out[2]]


def max_pool2d_backward(
    gy: np.ndarray, argmax: np.ndarray, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """gy, argmax (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    n, h, w, c = x_shape
    (top, bottom), (left, right) = shapes.pool_padding((h, w), gy.shape[1:3], kernel, stride, padding, dilation)
    padded = h + top + bottom, w + left + right, c
    gy, gx = np.ascontiguousarray(gy), memory.empty(x_shape, gy.dtype)
    at_once = _images_at_once(math.prod(padded))
    starts = _window_starts((at_once, *padded), gy.shape, stride)

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, at_once):
            whole = padded == x_shape[1:]
            g = gx[images] if whole else parallel.scratch("gx", (images.stop - images.start, *padded), gx.dtype)
            g.fill(0)
            winners = _winners(argmax[images], starts, padded, kernel[1], dilation)
            np.add.at(g.reshape(-1), winners.reshape(-1), gy[images].reshape(-1))
            if not whole:
                gx[images] = g[:, top : top + h, left : left + w]

    parallel.run(work, n, parallel.grain(10 * math.prod(gy.shape[1:])))
    return gx


def _window_starts(padded: tuple[int, ...], out: tuple[int, ...], stride: Pair) -> np.ndarray:
    """Where in images of shape `padded` (n, H, W, C) each window's first pixel lies: (n, OH, OW, C) places in flat memory."""
    n, h, w, c = padded
    rows, columns = np.arange(out[1]) * stride[0], np.arange(out[2]) * stride[1]
    starts = ((np.arange(n)[:, None, None] * h + rows[:, None]) * w + columns)[..., None] * c + np.arange(c)
    return starts.astype(np.int32 if math.prod(padded) < 2**31 else np.int64)


def _winners(argmax: np.ndarray, starts: np.ndarray, padded: tuple[int, ...], kw: int, dilation: Pair) -> np.ndarray:
    """The place in flat memory of each window's winner: scratch of argmax's shape.

    Element number u * KW + v is number * DW * C + u * (DH * W - KW * DW) * C away from the first.
    """
    _, w, c = padded
    row = parallel.scratch("row", argmax.shape, argmax.dtype)
    offset, row_offset = _scratches("offset", argmax.shape, starts.dtype, starts.dtype)
    np.copyto(offset, argmax)
    offset *= dilation[1] * c
    np.copyto(row_offset, np.floor_divide(argmax, argmax.dtype.type(kw), out=row))
    row_offset *= (dilation[0] * w - kw * dilation[1]) * c
    offset += row_offset
    offset += starts[: len(argmax)]
    place = parallel.scratch("place", argmax.shape, np.intp)
    np.copyto(place, offset)
    return place
