"""2-d max pooling without masked copies; the mathematics is in minidl/ops/max_pool2d.py.

Forward: the largest of a window is the largest along its columns of what is largest along its rows, so KW + KH comparisons
do instead of KW * KH. Winners travel along as one byte for each value. Pixels are first sorted by column and row modulo the
stride: then each kernel element meets a run of memory as long as the slab, where NumPy is several times faster than on every
second pixel.

Backward: one indexed addition for each slab. The winner's number says how far it lies from its window's first pixel.
"""

import math
from collections.abc import Sequence

import numpy as np

from minidl import memory, parallel, shapes
from minidl.shapes import Padding, Pair

SLAB = 1 << 20  # values of x at once: with fewer, the time between NumPy's loops counts for more than the cache


def max_pool2d_forward(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, H, W, C) -> y (N, OH, OW, C) and argmax, y's shape: which of the KH*KW window elements won (uint8, or int32
    above 256)."""
    n, h, w, c = x.shape
    y = memory.empty((n, *out, c), x.dtype)
    argmax = memory.empty(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    pads = shapes.pool_padding((h, w), out, kernel, stride, padding, dilation)
    right = (out[1] - 1) * stride[1] + shapes.span(kernel[1], dilation[1])
    x = np.ascontiguousarray(x)

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, _images_at_once(h * w * c)):
            padded = _pad_images(x[images], pads)
            for rows in parallel.slabs(0, out[0], SLAB // (stride[0] * w * c)):
                top, bottom = rows.start * stride[0], (rows.stop - 1) * stride[0] + shapes.span(kernel[0], dilation[0])
                _pool(padded[:, top:bottom, :right], kernel, stride, dilation, y[images, rows], argmax[images, rows])
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
    """Padded x (n, H, W, C), no further than the last window -> y and argmax (n, OH, OW, C), if no window holds a NaN or
    nothing but -infinity."""
    planes = _sort_pixels(x, stride)
    shape, number = planes.shape[2:], argmax.dtype.type
    steps, length = _steps(kernel[1], stride[1], dilation[1], shape[3], planes[0].size)
    taps = [planes[b].reshape(-1)[step : step + length] for b, step in steps]
    values, winners = _scratch_pair("lines", planes.shape[1:], x.dtype, argmax.dtype)  # the largest of each window's row
    _largest(taps, [number(v) for v in range(kernel[1])], values.reshape(-1)[:length], winners.reshape(-1)[:length])
    spare = planes[0].size - length  # places at the end of the last plane that no window's row starts at
    steps, length = _steps(kernel[0], stride[0], dilation[0], shape[2] * shape[3], values[0].size - spare)
    taps = [values[a].reshape(-1)[step : step + length] for a, step in steps]
    rows = parallel.scratch("rows", (kernel[0], length), argmax.dtype)  # the window's element in each tap
    for u, (a, step) in enumerate(steps):
        np.add(winners[a].reshape(-1)[step : step + length], number(u * kernel[1]), out=rows[u])
    value, winner = _scratch_pair("windows", shape, x.dtype, argmax.dtype)
    _largest(taps, list(rows), value.reshape(-1)[:length], winner.reshape(-1)[:length])
    _copy_pixels(value[:, : y.shape[1], : y.shape[2]], y)
    _copy_pixels(winner[:, : y.shape[1], : y.shape[2]], argmax)


def _scratch_pair(name: str, shape: tuple[int, ...], *dtypes: np.dtype) -> list[np.ndarray]:
    return [parallel.scratch(f"{name} {i}", shape, dtype) for i, dtype in enumerate(dtypes)]


def _steps(kernel: int, stride: int, dilation: int, pitch: int, length: int) -> tuple[list[Pair], int]:
    """For each kernel element, the residue of its pixels and how far to go along their plane; and how far all of them can."""
    steps = [(i * dilation % stride, i * dilation // stride * pitch) for i in range(kernel)]
    return steps, length - steps[-1][1]


def _sort_pixels(x: np.ndarray, stride: Pair) -> np.ndarray:
    """x (n, H, W, C) -> scratch (SW, SH, n, ceil(H / SH), ceil(W / SW), C): pixels by column and row modulo the stride.

    The last row or column of some planes is not written; no window reads it.
    """
    n, h, w, c = x.shape
    planes = parallel.scratch("planes", (*stride[::-1], n, -(-h // stride[0]), -(-w // stride[1]), c), x.dtype)
    for a in range(stride[0]):
        for b in range(stride[1]):
            pixels = x[:, a :: stride[0], b :: stride[1]]
            _copy_pixels(pixels, planes[b, a, :, : pixels.shape[1], : pixels.shape[2]])
    return planes


def _copy_pixels(source: np.ndarray, target: np.ndarray) -> None:
    """target[...] = source, pixel by pixel: NumPy copies one long item faster than many short ones."""
    pixel = np.dtype((np.void, source.shape[-1] * source.itemsize))
    np.copyto(target.view(pixel), source.view(pixel))


def _largest(taps: list[np.ndarray], numbers: Sequence, largest: np.ndarray, winner: np.ndarray) -> None:
    """Flat arrays of one length, and for each its number or numbers, ascending -> the largest, and the number of the first tap
    that has it."""
    better, candidate = _scratch_pair("tap", largest.shape, np.dtype(bool), winner.dtype)
    np.copyto(winner, numbers[0])
    so_far = taps[0]
    for tap, number in zip(taps[1:], numbers[1:], strict=True):
        np.greater(tap, so_far, out=better)
        so_far = np.maximum(so_far, tap, out=largest)
        np.multiply(better.view(np.uint8), number, out=candidate)
        np.maximum(winner, candidate, out=winner)
    if so_far is not largest:
        np.copyto(largest, so_far)


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
    offset, row_offset = _scratch_pair("offset", argmax.shape, starts.dtype, starts.dtype)
    np.copyto(offset, argmax)
    offset *= dilation[1] * c
    np.copyto(row_offset, np.floor_divide(argmax, argmax.dtype.type(kw), out=row))
    row_offset *= (dilation[0] * w - kw * dilation[1]) * c
    offset += row_offset
    offset += starts[: len(argmax)]
    place = parallel.scratch("place", argmax.shape, np.intp)
    np.copyto(place, offset)
    return place
