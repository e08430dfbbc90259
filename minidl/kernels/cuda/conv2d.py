"""conv2d and conv2d_relu by patches and matrix products, or by Winograd's tiles where they take less: see winograd.py.

By patches, as in minidl/ops/conv2d.py: one kernel gathers those under all windows, a matrix for each group of channels; one
call of cuBLAS multiplies all groups, and writes into y where the groups' channels lie side by side; one kernel adds the bias
and applies the ReLU. Backward the same way round: the ReLU's mask and the bias's gradient in one kernel, one product for each
of gw and gcol, and one kernel that adds gcol up to gx. Padding is never stored.

Where rows of patches would begin at no multiple of 16 bytes, as conv1's 363 floats do, which slows matrix products down, they
and the filters end in zeros, if that is at most a twentieth more. The gradients of these zeros are dropped.

Where the patches of all images would take too much memory, they are those of a few images at a time, in one workspace. The
patches of a 1 x 1 convolution at stride 1 are the pixels themselves.
"""

import math

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels.cuda import winograd
from minidl.kernels.cuda.gemm import gemm
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.relu import bias_relu
from minidl.kernels.cuda.rows import add_bias, column_sums, rectified_gradient
from minidl.kernels.cuda.workspace import pieces
from minidl.kernels.geometry import Geometry
from minidl.shapes import Padding, Pair


def conv2d_forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Array:
    """As the plain function in minidl/ops/conv2d.py."""
    out = shapes.out_size("conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _forward(x, w, b, Geometry.of(stride, padding, dilation, groups), out, relu=False)


def conv2d_relu_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """As the plain function in minidl/ops/conv2d_relu.py."""
    out = shapes.out_size("conv2d_relu", x.shape[1:3], w.shape[1:3], stride, padding, dilation)
    return _forward(x, w, b, Geometry.of(stride, padding, dilation, groups), out, relu=True)


def conv2d_backward(
    gy: Array,
    x: Array,
    w: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """As the plain function in minidl/ops/conv2d.py."""
    g = array_module(gy).ascontiguousarray(gy)
    gx, gw = _gradients(g, x, w, Geometry.of(stride, padding, dilation, groups), needs)
    return gx, gw, column_sums(_rows(g)) if needs[2] else None


def conv2d_relu_backward(
    gy: Array,
    y: Array,
    x: Array,
    w: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """As the plain function in minidl/ops/conv2d_relu.py."""
    xp = array_module(gy)
    g, gb = rectified_gradient(_rows(xp.ascontiguousarray(gy)), _rows(xp.ascontiguousarray(y)))
    gx, gw = _gradients(g.reshape(gy.shape), x, w, Geometry.of(stride, padding, dilation, groups), needs)
    return gx, gw, gb if needs[2] else None


# ------------------------------------------------------------------------------------------------------------- products


def _forward(x: Array, w: Array, b: Array | None, geometry: Geometry, out: Pair, relu: bool) -> Array:
    """The convolution, its bias, and the ReLU if asked for: y (N, OH, OW, O)."""
    xp, groups = array_module(x), geometry.groups
    x = xp.ascontiguousarray(x)
    if winograd.pays(w.shape, geometry.stride, geometry.dilation, groups, out, x.dtype):
        return winograd.correlate(x, w, b, geometry.stride, geometry.corner, groups, out, relu)
    y = xp.empty((x.shape[0], *out, w.shape[0]), x.dtype)
    patches = _Patches(x, w.shape, out, geometry)
    filters = _filters(w, groups, patches.length)
    for images in patches.pieces:
        gemm(patches.gather(images), filters.transpose(0, 2, 1), _by_group(y[images], groups))
    if relu:
        bias_relu(_rows(y), b)
    elif b is not None:
        add_bias(_rows(y), b)
    return y


def _gradients(g: Array, x: Array, w: Array, geometry: Geometry, needs: tuple[bool, ...]) -> tuple[Array | None, Array | None]:
    """g (N, OH, OW, O), contiguous -> gx, gw; None where `needs` says so."""
    x = array_module(x).ascontiguousarray(x)
    stride, corner, dilation, groups = geometry
    size, out = x.shape[1:3], g.shape[1:3]
    turned = x.shape[3], *w.shape[1:3], len(w) // groups  # of the filters that gather gx from g
    x_by_tiles = needs[0] and stride == (1, 1) and winograd.pays(turned, stride, dilation, groups, size, x.dtype)
    w_by_tiles = needs[1] and winograd.pays(w.shape, stride, dilation, groups, out, x.dtype)
    gx, gw = _gradients_by_patches(g, x, w, geometry, (needs[0] and not x_by_tiles, needs[1] and not w_by_tiles))
    if x_by_tiles:
        gx = winograd.input_gradient(g, w, corner, groups, size)
    if w_by_tiles:
        gw = winograd.weight_gradient(g, x, w.shape, stride, corner, groups)
    return gx, gw


def _gradients_by_patches(
    g: Array, x: Array, w: Array, geometry: Geometry, needs: tuple[bool, bool]
) -> tuple[Array | None, Array | None]:
    """As _gradients; x is contiguous too."""
    if not any(needs):
        return None, None
    xp, patches = array_module(x), _Patches(x, w.shape, g.shape[1:3], geometry)
    filters = _filters(w, geometry.groups, patches.length)
    gx = xp.empty(x.shape, x.dtype) if needs[0] else None
    gw = xp.empty(filters.shape, x.dtype) if needs[1] else None
    for images in patches.pieces:
        upstream = _by_group(g[images], geometry.groups)
        if gw is not None:
            gemm(upstream.transpose(0, 2, 1), patches.gather(images), gw, accumulate=images.start > 0)
        if gx is not None:
            gcol = patches.gradients(gx[images])
            gemm(upstream, filters, gcol)
            patches.add_up(gcol, gx[images])
    return gx, None if gw is None else gw[..., : math.prod(w.shape[1:])].reshape(w.shape)


def _rows(y: Array) -> Array:
    """(N, OH, OW, O) -> (N * OH * OW, O)."""
    n, oh, ow, filters = y.shape
    return y.reshape(n * oh * ow, filters)


def _by_group(y: Array, groups: int) -> Array:
    """(N, OH, OW, O) -> (groups, N * OH * OW, O / groups), a view."""
    rows = _rows(y)
    return rows.reshape(len(rows), groups, y.shape[3] // groups).transpose(1, 0, 2)


def _filters(w: Array, groups: int, length: int) -> Array:
    """(O, KH, KW, C / groups) -> (groups, O / groups, length): each filter's KH * KW * C / groups numbers, then zeros."""
    rows = w.reshape(groups, len(w) // groups, math.prod(w.shape[1:]))
    if length == rows.shape[2]:
        return rows
    padded = array_module(w).zeros((*rows.shape[:2], length), w.dtype)
    padded[..., : rows.shape[2]] = rows
    return padded


def _length(patch: int, itemsize: int) -> int:
    """Of a patch's row: a multiple of 16 bytes, where that costs little."""
    aligned = -(-patch * itemsize // 16) * 16 // itemsize
    return aligned if aligned <= patch * 21 / 20 else patch


# -------------------------------------------------------------------------------------------------------------- patches


class _Patches:
    """The patches under all windows on x (N, H, W, C), and their gradients.

    Both are matrices (groups, images * OH * OW, length), of the images of one of the `pieces`; `length` is KH * KW * C / groups
    or a little more. One workspace holds either: what is in it is lost when the next matrix is asked for.
    """

    def __init__(self, x: Array, w_shape: tuple[int, ...], out: Pair, geometry: Geometry) -> None:
        (n, h, w, c), (_, kh, kw, group), (stride, corner, dilation, groups) = x.shape, w_shape, geometry
        self.are_pixels = (kh, kw) == stride == (1, 1) and out == (h, w)
        self.length = group if self.are_pixels else _length(kh * kw * group, x.dtype.itemsize)
        self.x, self.groups, self.matrix = x, groups, (math.prod(out), self.length)
        self.sizes = h, w, c, *out, kh, kw, group, *stride, *corner, *dilation, self.length
        image = groups * math.prod(self.matrix)
        self.pieces = pieces(n, 0 if self.are_pixels else image * x.dtype.itemsize)
        size = len(range(n)[self.pieces[0]])
        self.workspace: Array = None if self.are_pixels else array_module(x).empty(size * image, x.dtype)

    def gather(self, images: slice) -> Array:
        """The patches of these images: im2col."""
        x = self.x[images]
        if self.workspace is None:
            return _by_group(x, self.groups)
        col = self._room(len(x))
        launch("conv2d", "mdl_im2col", col.size // self.sizes[4], x, col, len(x), *self.sizes, real=x.dtype)
        return col

    def gradients(self, gx: Array) -> Array:
        """Where the patches' gradients are to be written, before `add_up(gx)`; gx as some of the images."""
        return _by_group(gx, self.groups) if self.workspace is None else self._room(len(gx))

    def add_up(self, gcol: Array, gx: Array) -> None:
        """gx = the gradients of the patches, added up where the patches were gathered: col2im."""
        if self.workspace is not None:
            launch("conv2d", "mdl_col2im", gx.size // self.sizes[1], gcol, gx, len(gx), *self.sizes, real=gx.dtype)

    def _room(self, images: int) -> Array:
        windows, patch = self.matrix
        return self.workspace[: self.groups * images * windows * patch].reshape(self.groups, images * windows, patch)
