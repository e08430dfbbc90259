"""conv2d and conv2d_relu on threads: by tiles with fewer multiplications where that pays, else by patches.

Threads share the rows of output, counted through all images, so that one image has work for every core too. Each goes through
its share in pieces: a few whole images, or some rows of one. Bias and ReLU follow while a piece is in cache. Gradients of the
weights are summed by each thread, then over the threads in order.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minidl import memory, shapes
from minidl.kernels.cpu.im2col import Im2col
from minidl.kernels.cpu.relu import rectify_gradient
from minidl.kernels.cpu.sum_along import sum_along
from minidl.kernels.cpu.winograd import Winograd, pays, tame
from minidl.kernels.geometry import Geometry
from minidl.parallel import grain, run, scratch, slabs
from minidl.shapes import Padding, Pair


def conv2d_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """As the plain function in minidl/ops/conv2d.py."""
    out = shapes.out_size("conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _correlate(x, None, w, b, Geometry.of(stride, padding, dilation, groups), out, relu=False)


def conv2d_relu_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """As the plain function in minidl/ops/conv2d_relu.py."""
    out = shapes.out_size("conv2d_relu", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _correlate(x, None, w, b, Geometry.of(stride, padding, dilation, groups), out, relu=True)


def conv2d_backward(
    gy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As the plain function in minidl/ops/conv2d.py."""
    return conv2d_relu_backward(gy, None, x, w, stride, padding, dilation, groups, needs)


def conv2d_relu_backward(
    gy: np.ndarray,
    y: np.ndarray | None,
    x: np.ndarray,
    w: np.ndarray,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As the plain function in minidl/ops/conv2d_relu.py; without a ReLU if y is None."""
    geometry = Geometry.of(stride, padding, dilation, groups)
    gx = _input_gradient(gy, y, x.shape, w, geometry) if needs[0] else None
    gw, gb = _parameter_gradients(gy, y, x, w.shape, geometry, needs) if needs[1] or needs[2] else (None, None)
    return gx, gw, gb


# --------------------------------------------------------------------------------------------------------------- pieces


class Piece(NamedTuple):
    """Some whole images, or some rows of one."""

    images: slice
    rows: slice  # of the output


def pieces(first: int, stop: int, rows: int, unit: int, at_once: int) -> Iterator[Piece]:
    """Units first ... stop-1 of all images, each with `rows` rows in units of `unit`, in pieces of at most `at_once` units."""
    each = -(-rows // unit)
    while first < stop:
        image, start = divmod(first, each)
        if start or min(stop - first, at_once) < each:
            end = min(each, start + at_once, start + stop - first)
            yield Piece(slice(image, image + 1), slice(start * unit, min(end * unit, rows)))
            first += end - start
        else:
            number = min(stop - first, at_once) // each
            yield Piece(slice(image, image + number), slice(0, rows))
            first += number * each


def _method(shape: tuple[int, ...], geometry: Geometry, images: int, out: Pair, dtype: np.dtype) -> Winograd | Im2col:
    """The faster way for a group's filters of `shape` (O, KH, KW, C)."""
    if pays(shape, geometry.stride, geometry.dilation, images, out):
        return Winograd(shape, geometry.stride, dtype)
    return Im2col(shape, geometry.stride, geometry.dilation, dtype)


def _reach(rows: slice, stride: int, corner: int, span: int, size: int) -> tuple[slice, int]:
    """The input rows that output rows reach, and how many rows of padding lie before them."""
    first = rows.start * stride - corner
    return slice(min(max(first, 0), size), max((rows.stop - 1) * stride - corner + span, 0)), max(-first, 0)


def _masked(gy: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """gy, or where y is given the gradient before the ReLU that gave y, in scratch."""
    if y is None:
        return gy
    return rectify_gradient(gy, y, scratch("conv2d masked", gy.shape, gy.dtype))


# ------------------------------------------------------------------------------------------------------------- forward


def _correlate(
    x: np.ndarray,
    mask: np.ndarray | None,
    w: np.ndarray,
    b: np.ndarray | None,
    geometry: Geometry,
    out: Pair,
    relu: bool,
) -> np.ndarray:
    """x (N, H, W, C) with w (O, KH, KW, C/groups) -> y (N, *out, O). `mask`, of x's shape, is a ReLU's output: see _masked."""
    stride, corner, dilation, groups = geometry
    filters, kh, _, channels = w.shape
    per_group = filters // groups
    (oh, ow), n = out, len(x)
    y = memory.empty((n, oh, ow, filters), x.dtype)
    new_method = partial(_method, (per_group, *w.shape[1:]), geometry, n, out, x.dtype)
    method = new_method()
    prepared: list[Any] = [method.prepare(w[g * per_group : (g + 1) * per_group]) for g in range(groups)]
    at_once = method.units_at_once(out)
    biases = None if b is None else np.repeat(b.reshape(groups, 1, per_group), ow, axis=1)
    zeros = np.zeros(ow * filters, x.dtype) if relu else None  # a row is several times as fast to compare with as 0

    def work(first: int, stop: int) -> None:
        method = new_method()
        for images, rows in pieces(first, stop, oh, method.unit, at_once):
            reach, top = _reach(rows, stride[0], corner[0], shapes.span(kh, dilation[0]), x.shape[1])
            source = _masked(x[images, reach], None if mask is None else mask[images, reach])
            target = y[images, rows]
            for g in range(groups):
                method.forward(
                    source[..., g * channels : (g + 1) * channels],
                    (top, corner[1]),
                    prepared[g],
                    None if biases is None else biases[g],
                    target[..., g * per_group : (g + 1) * per_group],
                )
            if zeros is not None:
                lines = target.reshape(-1, ow * filters)
                np.maximum(lines, zeros, out=lines)

    run(work, n * -(-oh // method.unit), grain(method.unit * ow * w.size // 10))
    return y


# ------------------------------------------------------------------------------------------------------------ backward


def _input_gradient(
    gy: np.ndarray,
    y: np.ndarray | None,
    x_shape: tuple[int, ...],
    w: np.ndarray,
    geometry: Geometry,
) -> np.ndarray:
    """With stride 1 a convolution of gy with the filters turned round, C and O exchanged; else patches' gradients added up.

    That convolution multiplies filters by the zeros around gy, which would make NaN of what is not finite.
    """
    stride, (top, left), dilation, groups = geometry
    filters, kh, kw, channels = w.shape
    corner = shapes.span(kh, dilation[0]) - 1 - top, shapes.span(kw, dilation[1]) - 1 - left
    if stride != (1, 1) or min(corner) < 0 or not tame(w):
        return _scatter(gy, y, x_shape, w, geometry)
    grouped = w.reshape(groups, filters // groups, kh, kw, channels)
    turned = grouped[:, :, ::-1, ::-1].transpose(0, 4, 2, 3, 1).reshape(groups * channels, kh, kw, filters // groups)
    return _correlate(gy, y, turned, None, geometry._replace(corner=corner), (x_shape[1], x_shape[2]), relu=False)


def _scatter(
    gy: np.ndarray,
    y: np.ndarray | None,
    x_shape: tuple[int, ...],
    w: np.ndarray,
    geometry: Geometry,
) -> np.ndarray:
    """gx (N, H, W, C): the gradient of every patch, gy @ w, added up where the patches were gathered."""
    stride, (top, left), dilation, groups = geometry
    filters, kh, kw, channels = w.shape
    per_group, out = filters // groups, gy.shape[1:3]
    n, h, width, _ = x_shape
    method = Im2col((per_group, *w.shape[1:]), stride, dilation, gy.dtype)
    rows, columns = (max(a, b) for a, b in zip(method.padded_size(out), (h + top, width + left), strict=True))
    gx = memory.empty(x_shape, gy.dtype)

    def work(first: int, stop: int) -> None:
        for images in slabs(first, stop, method.units_at_once(out) // out[0]):
            masked = _masked(gy[images], None if y is None else y[images])
            number = len(masked)
            for g in range(groups):
                own = w[g * per_group : (g + 1) * per_group].reshape(per_group, -1)
                upstream = masked[..., g * per_group : (g + 1) * per_group].reshape(-1, per_group)
                gcol = scratch("im2col col", (len(upstream), kh * kw * channels), gy.dtype)
                np.matmul(upstream, own, out=gcol)
                padded = scratch("im2col padded", (number, rows, columns, channels), gy.dtype)
                padded[...] = 0
                method.add_taps(gcol.reshape(number, *out, kh, kw, channels), padded)
                gx[images, :, :, g * channels : (g + 1) * channels] = padded[:, top : top + h, left : left + width]

    run(work, n, grain(math.prod(out) * w.size // 10))
    return gx


def _parameter_gradients(
    gy: np.ndarray,
    y: np.ndarray | None,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    geometry: Geometry,
    needs: tuple[bool, ...],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """gw (O, KH, KW, C/groups) and gb (O,), None where `needs` says so: summed by each thread, then over the threads."""
    stride, (top, left), dilation, groups = geometry
    filters, kh, _, channels = w_shape
    per_group, (oh, ow) = filters // groups, gy.shape[1:3]
    new_method = partial(_method, (per_group, *w_shape[1:]), geometry, len(x), (oh, ow), x.dtype)
    method = new_method()
    at_once = method.units_at_once((oh, ow))

    def work(first: int, stop: int) -> list[Any]:
        method = new_method()
        gb = [np.zeros(filters, gy.dtype)]
        sums: list[Any] = [method.no_gradient() for _ in range(groups)] if needs[1] else []
        for images, rows in pieces(first, stop, oh, method.unit, at_once):
            reach, above = _reach(rows, stride[0], top, shapes.span(kh, dilation[0]), x.shape[1])
            masked = _masked(gy[images, rows], None if y is None else y[images, rows])
            if needs[2]:
                gb.append(sum_along(masked, (0, 1, 2)))
            for g, total in enumerate(sums):
                own, upstream = slice(g * channels, (g + 1) * channels), slice(g * per_group, (g + 1) * per_group)
                method.add_gradient(total, x[images, reach, :, own], (above, left), masked[..., upstream])
        return [sum_along(np.stack(gb), 0), *sums]

    shares = run(work, len(x) * -(-oh // method.unit), grain(method.unit * ow * math.prod(w_shape) // 10))
    gb, *sums = (_added_up(parts) for parts in zip(*(shares or [work(0, 0)]), strict=True))
    gw = memory.empty(w_shape, x.dtype) if needs[1] else None
    if gw is not None:
        np.concatenate([method.gradient(total) for total in sums], out=gw)
    return gw, gb if needs[2] else None


def _added_up(parts: Sequence[Any]) -> Any:
    """The sum, in the first of them."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
