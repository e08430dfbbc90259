"""conv2d and conv2d_relu on threads: by tiles with fewer multiplications where that pays, else by patches.

Threads share the rows of output, counted through all images, so that one image has work for every core too. Each goes through
its share in pieces: a few whole images, or some rows of one. Bias and ReLU follow while a piece is in cache. Gradients of the
weights are summed by each thread, then over the threads in order.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minidl import memory, shapes
from minidl.kernels.cpu.im2col import Im2col
from minidl.kernels.cpu.relu import rectify_gradient
from minidl.kernels.cpu.winograd import Winograd, pays
from minidl.parallel import grain, run, scratch, slabs
from minidl.shapes import Padding, Pair


def conv2d_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """As the plain function in minidl/ops/conv2d.py."""
    out = shapes.out_size("conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _correlate(x, None, w, b, stride, _corner(padding), dilation, groups, out, relu=False)


def conv2d_relu_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> np.ndarray:
    """As the plain function in minidl/ops/conv2d_relu.py."""
    out = shapes.out_size("conv2d_relu", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _correlate(x, None, w, b, stride, _corner(padding), dilation, groups, out, relu=True)


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
    return _backward(gy, None, x, w, stride, padding, dilation, groups, needs)


def conv2d_relu_backward(
    gy: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As the plain function in minidl/ops/conv2d_relu.py."""
    return _backward(gy, y, x, w, stride, padding, dilation, groups, needs)


def _corner(padding: Padding) -> Pair:
    return padding[0][0], padding[1][0]


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


def _method(
    shape: tuple[int, ...], stride: Pair, dilation: Pair, images: int, out: Pair, dtype: np.dtype
) -> "Winograd | Im2col":
    if pays(shape, stride, dilation, images, out):
        return Winograd(shape, stride, dtype)
    return Im2col(shape, stride, dilation, dtype)


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
    stride: Pair,
    corner: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    relu: bool,
) -> np.ndarray:
    """x (N, H, W, C) with w (O, KH, KW, C/groups) -> y (N, *out, O). `mask`, of x's shape, is a ReLU's output: see _masked."""
    filters, kh, _, channels = w.shape
    per_group = filters // groups
    (oh, ow), n = out, len(x)
    y = memory.empty((n, oh, ow, filters), x.dtype)
    method = _method((per_group, *w.shape[1:]), stride, dilation, n, out, x.dtype)
    prepared = [method.prepare(w[g * per_group : (g + 1) * per_group]) for g in range(groups)]
    at_once = method.units_at_once(out)
    bias = None if b is None else np.tile(b, ow)

    def work(first: int, stop: int) -> None:
        for images, rows in pieces(first, stop, oh, method.unit, at_once):
            reach, top = _reach(rows, stride[0], corner[0], shapes.span(kh, dilation[0]), x.shape[1])
            source = _masked(x[images, reach], None if mask is None else mask[images, reach])
            target = y[images, rows]
            for g in range(groups):
                method.forward(
                    source[..., g * channels : (g + 1) * channels],
                    (top, corner[1]),
                    prepared[g],
                    target[..., g * per_group : (g + 1) * per_group],
                )
            _finish(target.reshape(-1, ow * filters), bias, relu)

    run(work, n * -(-oh // method.unit), grain(method.unit * ow * w.size // 10))
    return y


def _finish(rows: np.ndarray, bias: np.ndarray | None, relu: bool) -> None:
    """Add the bias to rows of output (number, OW * O), then the ReLU, in place."""
    if bias is not None:
        rows += bias
    if relu:
        zeros = scratch("conv2d zeros", rows.shape[1:], rows.dtype)  # a row is several times as fast to compare with as 0
        zeros[...] = 0
        np.maximum(rows, zeros, out=rows)


# ------------------------------------------------------------------------------------------------------------ backward


def _backward(
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
    gx = _input_gradient(gy, y, x.shape, w, stride, padding, dilation, groups) if needs[0] else None
    gw = _weight_gradient(gy, y, x, w.shape, stride, padding, dilation, groups) if needs[1] else None
    gb = _bias_gradient(gy, y) if needs[2] else None
    return gx, gw, gb


def _input_gradient(
    gy: np.ndarray,
    y: np.ndarray | None,
    x_shape: tuple[int, ...],
    w: np.ndarray,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """With stride 1 a convolution of gy with the filters turned round, C and O exchanged; else patches' gradients added up."""
    filters, kh, kw, channels = w.shape
    top, left = _corner(padding)
    corner = shapes.span(kh, dilation[0]) - 1 - top, shapes.span(kw, dilation[1]) - 1 - left
    if stride != (1, 1) or min(corner) < 0:
        return _scatter(gy, y, x_shape, w, stride, padding, dilation, groups)
    grouped = w.reshape(groups, filters // groups, kh, kw, channels)
    turned = grouped[:, :, ::-1, ::-1].transpose(0, 4, 2, 3, 1).reshape(groups * channels, kh, kw, filters // groups)
    return _correlate(gy, y, turned, None, stride, corner, dilation, groups, (x_shape[1], x_shape[2]), relu=False)


def _scatter(
    gy: np.ndarray,
    y: np.ndarray | None,
    x_shape: tuple[int, ...],
    w: np.ndarray,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """gx (N, H, W, C): the gradient of every patch, gy @ w, added up where the patches were gathered."""
    filters, kh, kw, channels = w.shape
    per_group, out = filters // groups, gy.shape[1:3]
    n, h, width, _ = x_shape
    method = Im2col((per_group, *w.shape[1:]), stride, dilation, gy.dtype)
    top, left = _corner(padding)
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


def _weight_gradient(
    gy: np.ndarray,
    y: np.ndarray | None,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """gw (O, KH, KW, C/groups)."""
    filters, kh, _, channels = w_shape
    per_group, (oh, ow), (top, left) = filters // groups, gy.shape[1:3], _corner(padding)
    method = _method((per_group, *w_shape[1:]), stride, dilation, len(x), (oh, ow), x.dtype)
    at_once = method.units_at_once((oh, ow))

    def work(first: int, stop: int) -> list[np.ndarray]:
        sums = [method.no_gradient() for _ in range(groups)]
        for images, rows in pieces(first, stop, oh, method.unit, at_once):
            reach, above = _reach(rows, stride[0], top, shapes.span(kh, dilation[0]), x.shape[1])
            masked = _masked(gy[images, rows], None if y is None else y[images, rows])
            for g in range(groups):
                own, upstream = slice(g * channels, (g + 1) * channels), slice(g * per_group, (g + 1) * per_group)
                method.add_gradient(sums[g], x[images, reach, :, own], (above, left), masked[..., upstream])
        return sums

    gw = memory.empty(w_shape, x.dtype)
    shares = run(work, len(x) * -(-oh // method.unit), grain(method.unit * ow * math.prod(w_shape) // 10))
    if not shares:
        gw[...] = 0
    for g, parts in enumerate(zip(*shares, strict=True)):
        total = parts[0]
        for part in parts[1:]:
            total += part
        gw[g * per_group : (g + 1) * per_group] = method.gradient(total)
    return gw


def _bias_gradient(gy: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """gb (O,): the sum of gy over images and pixels, by each thread and then over the threads."""

    def work(first: int, stop: int) -> np.ndarray:
        total = np.zeros(gy.shape[3], gy.dtype)
        for images in slabs(first, stop, 1):
            total += _masked(gy[images], None if y is None else y[images]).sum(axis=(0, 1, 2))
        return total

    return np.sum([np.zeros(gy.shape[3], gy.dtype), *run(work, len(gy), grain(math.prod(gy.shape[1:])))], axis=0)
