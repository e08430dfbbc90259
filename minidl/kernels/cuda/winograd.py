"""conv2d by Winograd's tiles; the mathematics is in minidl/kernels/winograd.py.

One kernel transforms all tiles of the images, one the filters, one call of cuBLAS makes the products for all positions and
groups, and one kernel puts the outputs together, adds the bias and applies the ReLU. Nothing is padded or regrouped in memory:
the kernels read zeros around the images, and a stride's blocks of pixels, where they lie.

Counted, not measured: AlexNet's convolutions take about a third of the multiply-adds that their patches take, and fewer bytes:
of conv2's 27 x 27 pixels a tile of 7 x 7 for each 3 x 3, instead of 25 copies of each.
"""

import math
from functools import cache

import numpy as np

from minidl.device import Array, array_module, get_float32_matmul_precision
from minidl.kernels.cuda.gemm import gemm
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.workspace import pieces
from minidl.kernels.winograd import OUTPUTS, block_kernel, has_tiles, tile_numbers, tile_size, transforms
from minidl.shapes import Pair

BLOCK = 128  # threads, as in winograd.cu

_FEWEST_CHANNELS = 16  # and filters: with fewer the products are too thin for cuBLAS
_VALUE = 50  # multiply-adds for which there is time while a value is written and read: from the data sheets of H200 and A100


def fits(w_shape: tuple[int, ...], stride: Pair, dilation: Pair) -> bool:
    """Can a convolution with filters (O, KH, KW, C / groups) be done by tiles? The same matrices must do for both axes."""
    r = block_kernel((w_shape[1], w_shape[2]), stride)
    return has_tiles(r, dilation) and r[0] == r[1]


def pays(w_shape: tuple[int, ...], stride: Pair, dilation: Pair, groups: int, out: Pair, dtype: np.dtype) -> bool:
    """Does it take less by tiles than by patches?

    Where float32 is multiplied as TF32 or bfloat16, patches: products are cheap then, and the transforms would multiply their
    rounding.
    """
    exact = dtype != np.float32 or get_float32_matmul_precision() == "highest"
    filters, channels, patch = w_shape[0] // groups, math.prod(stride) * w_shape[3], math.prod(w_shape[1:])
    if not exact or not fits(w_shape, stride, dilation) or min(channels, filters) < _FEWEST_CHANNELS:
        return False
    values = _tile_values(out, _elements(w_shape, stride))
    by_tiles = values * (channels * filters + _VALUE * (channels + filters))
    return by_tiles < math.prod(out) * patch * (filters + _VALUE)


def correlate(
    x: Array, w: Array, bias: Array | None, stride: Pair, corner: Pair, groups: int, out: Pair, relu: bool = False
) -> Array:
    """x (N, H, W, C) with w (O, KH, KW, C / groups) -> y (N, *out, O): the convolution and its bias, and the ReLU of it.

    corner : rows and columns of zeros before the images.
    """
    u = _filters(w, stride, groups, turned=False)
    return _multiplied(x, u.transpose(0, 2, 1), bias, stride, corner, groups, out, _elements(w.shape, stride), relu)


def input_gradient(g: Array, w: Array, corner: Pair, groups: int, size: Pair) -> Array:
    """g (N, OH, OW, O), w (O, KH, KW, C / groups) -> gx (N, *size, C), where the stride is 1: g with the filters turned."""
    u, r = _filters(w, (1, 1), groups, turned=True), w.shape[1]
    return _multiplied(g, u, None, (1, 1), (r - 1 - corner[0], r - 1 - corner[1]), groups, size, r, relu=False)


def weight_gradient(g: Array, x: Array, w_shape: tuple[int, ...], stride: Pair, corner: Pair, groups: int) -> Array:
    """g (N, OH, OW, O), x (N, H, W, C) -> gw of w_shape."""
    xp, out, r = array_module(x), g.shape[1:3], _elements(w_shape, stride)
    filters, depth = w_shape[0] // groups, math.prod(stride) * w_shape[3]
    gu = xp.empty((groups * _points(r), filters, depth), x.dtype)
    for images in pieces(len(x), _tile_values(out, r) * groups * (depth + filters) * x.dtype.itemsize):
        v, gm = _cut(x[images], stride, corner, groups, out, r), _cut_upstream(g[images], groups, r)
        gemm(gm.transpose(0, 2, 1), v, gu, accumulate=images.start > 0)
    gw = xp.empty(w_shape, x.dtype)
    sizes = groups, filters, *w_shape[1:], *stride
    _launch("mdl_winograd_filter_gradient", r, groups * filters * depth, gu, gw, *sizes)
    return gw


# ----------------------------------------------------------------------------------------------------------- the kernels


def _elements(w_shape: tuple[int, ...], stride: Pair) -> int:
    """Of filters that fit, along either axis, in blocks: what is called r."""
    return block_kernel((w_shape[1], w_shape[2]), stride)[0]


def _points(r: int) -> int:
    """T * T, the values of a tile."""
    return math.prod(tile_size((r, r)))


def _numbers(out: Pair, r: int) -> Pair:
    """How many tiles cover the outputs along each axis."""
    return tile_numbers(out, (r, r))


def _tile_values(out: Pair, r: int) -> int:
    """Of all tiles of an image, in one channel."""
    return _points(r) * math.prod(_numbers(out, r))


def _multiplied(
    x: Array, u: Array, bias: Array | None, stride: Pair, corner: Pair, groups: int, out: Pair, r: int, relu: bool
) -> Array:
    """x (N, H, W, C), u (groups * T * T, depth, filters) -> y (N, *out, groups * filters)."""
    xp, filters = array_module(x), u.shape[2]
    y = xp.empty((len(x), *out, groups * filters), x.dtype)
    bias = xp.zeros(groups * filters, x.dtype) if bias is None else xp.ascontiguousarray(bias)
    number = _numbers(out, r)
    for images in pieces(len(x), _tile_values(out, r) * groups * sum(u.shape[1:]) * x.dtype.itemsize):
        v, part = _cut(x[images], stride, corner, groups, out, r), y[images]
        m = xp.empty((*v.shape[:2], filters), x.dtype)
        gemm(v, u, m)
        sizes = len(part), *out, groups, filters, *number, int(relu)
        _launch("mdl_winograd_output", r, v.shape[1] * y.shape[3], m, bias, part, *sizes)
    return y


def _cut(x: Array, stride: Pair, corner: Pair, groups: int, out: Pair, r: int) -> Array:
    """V (groups * T * T, tiles, SH * SW * C / groups) of x (N, H, W, C)."""
    n, height, width, channels = x.shape
    number = _numbers(out, r)
    depth = math.prod(stride) * (channels // groups)
    v = array_module(x).empty((groups * _points(r), n * math.prod(number), depth), x.dtype)
    sizes = n, height, width, groups, channels // groups, *number, *stride, *corner
    _launch("mdl_winograd_input", r, v.shape[1] * groups * depth, x, v, *sizes)
    return v


def _cut_upstream(g: Array, groups: int, r: int) -> Array:
    """gM (groups * T * T, tiles, O / groups) of g (N, OH, OW, O)."""
    n, height, width, filters = g.shape
    number = _numbers((height, width), r)
    gm = array_module(g).empty((groups * _points(r), n * math.prod(number), filters // groups), g.dtype)
    sizes = n, height, width, groups, filters // groups, *number
    _launch("mdl_winograd_upstream", r, gm.shape[1] * filters, g, gm, *sizes)
    return gm


def _filters(w: Array, stride: Pair, groups: int, turned: bool) -> Array:
    """U (groups * T * T, O / groups, SH * SW * C / groups) of w (O, KH, KW, C / groups)."""
    w = array_module(w).ascontiguousarray(w)
    filters, depth = len(w) // groups, math.prod(stride) * w.shape[3]
    r = _elements(w.shape, stride)
    u = array_module(w).empty((groups * _points(r), filters, depth), w.dtype)
    sizes = groups, filters, *w.shape[1:], *stride, int(turned)
    _launch("mdl_winograd_filters", r, groups * filters * depth, w, u, *sizes)
    return u


def _launch(kernel: str, r: int, count: int, source: Array, *rest: Array | int) -> None:
    launch("winograd", kernel, count, source, *rest, real=source.dtype, block=BLOCK, defines=defines(r))


@cache
def defines(r: int) -> tuple[str, ...]:
    """Macros for winograd.cu: the filters' elements along an axis, the tiles' outputs, and the matrices."""
    AT, G, BT = transforms(r)
    matrices = {"BT": BT, "A": AT.T, "AT": AT, "G": G, "GT": G.T}
    return f"-DMDL_R={r}", f"-DMDL_TILE={OUTPUTS[r]}", *(f"-DMDL_{name}={_braces(matrix)}" for name, matrix in matrices.items())


def _braces(matrix: np.ndarray) -> str:
    """A matrix as C++ writes it."""
    return "{" + ",".join("{" + ",".join(map(repr, row)) + "}" for row in matrix.tolist()) + "}"
