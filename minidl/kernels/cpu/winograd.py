"""Winograd's tiles on a CPU; the mathematics and the matrices are in minidl/kernels/winograd.py.

Multiplying by the small matrices is left to BLAS as well, one axis at a time: a tile's t rows of pixels, as they lie in memory,
are the t rows of a matrix. A pass of additions over the arrays for each term took two to four times as long.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minidl import memory
from minidl.kernels.cpu.im2col import AT_ONCE, Im2col
from minidl.kernels.cpu.product import rows_at_once
from minidl.kernels.cpu.tiles import Assembly, Canvas, Layout, Tiles, layout
from minidl.kernels.winograd import OUTPUTS, Transforms, block_kernel, has_tiles, tile_numbers, tile_size, transforms
from minidl.parallel import run, scratch, slabs
from minidl.shapes import Pair


class Filters(NamedTuple):
    """Prepared filters."""

    w: np.ndarray  # (O, KH, KW, C)
    u: np.ndarray | None  # (t * t, SH * SW * C, O), if they are tame


class Gradient:
    """Of the weights: gU (t * t, O, SH * SW * C), and what came by patches, gw (O, KH * KW * C), if anything did."""

    def __init__(self, gu: np.ndarray) -> None:
        self.gu = gu
        self.gw: np.ndarray | None = None

    def __iadd__(self, other: "Gradient") -> "Gradient":
        self.gu += other.gu
        if other.gw is not None:
            self.gw = other.gw if self.gw is None else self.gw + other.gw
        return self


class Winograd:
    """The convolution of one group by tiles: the same methods as `Im2col`. For one thread.

    A piece goes by patches if its images, the filters or the gradients are not `tame`.

    shape (O, KH, KW, C) : of the group's filters.
    """

    def __init__(self, shape: tuple[int, ...], stride: Pair, dtype: np.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype
        self.patches = Im2col(shape, stride, (1, 1), dtype)
        self.kernel = block_kernel((shape[1], shape[2]), stride)
        self.unit = OUTPUTS[self.kernel[0]]  # rows of output that go together
        self.down, self.across = (Transforms(*(m.astype(dtype) for m in transforms(r))) for r in self.kernel)
        self._short_sums = max(tile_size(self.kernel)) > 6
        self._latest: tuple[tuple[Any, ...], Any] = (), None

    def units_at_once(self, out: Pair) -> int:
        """As many rows of tiles as leave V and M in the outer cache; at least a hundred tiles, for the products to be large;
        whole mosaics if that is more than one."""
        height, width = tile_numbers(out, self.kernel)
        points = len(self.down.BT) * len(self.across.BT)
        values = points * width * (self.shape[0] + math.prod(self.stride) * self.shape[3])
        units = max(AT_ONCE // (values * self.dtype.itemsize), -(-_TILES_AT_LEAST // width))
        return units - units % (4 * height) if units > 4 * height else units

    def prepare(self, w: np.ndarray) -> Filters:
        """Filters (O, KH, KW, C)."""
        g = blocks(w, self.stride)
        turned = g.strides[2] < g.strides[3]  # as for the input's gradient: transposing takes longer than the products with G
        g = np.ascontiguousarray(g.swapaxes(2, 3) if turned else g)
        if not tame(g):
            return Filters(w, None)
        u = both_axes(self.down.G, self.across.G, g)
        u = u.reshape(-1, *u.shape[2:])
        return Filters(w, u if turned else u.swapaxes(1, 2))

    def forward(self, x: np.ndarray, corner: Pair, filters: Filters, bias: np.ndarray | None, y: np.ndarray) -> None:
        """Images (n, H, W, C), with `corner` rows and columns of zeros before them, and bias (OW, O) into y (n, OH, OW, O)."""
        canvas, v, m = self._plan(self._plan_forward, x, corner, y)
        canvas.put(x)
        if filters.u is None or not tame(canvas.blocks):
            self.patches.forward(x, corner, self.patches.prepare(filters.w), bias, y)
            return
        np.matmul(v.cut(), filters.u, out=m.values)
        m.write(bias, y)

    def no_gradient(self) -> Gradient:
        """Zero, for `add_gradient`."""
        gu = memory.empty(self._gu_shape(), self.dtype)
        gu[...] = 0
        return Gradient(gu)

    def add_gradient(self, total: Gradient, x: np.ndarray, corner: Pair, gy: np.ndarray) -> None:
        """total += what images x (n, H, W, C) and gy (n, OH, OW, O) add."""
        canvas, v, upstream, gm, piece, part = self._plan(self._plan_gradient, x, corner, gy)
        canvas.put(x)
        upstream.put(gy)
        if not (tame(canvas.blocks) and tame(upstream.blocks)):
            if total.gw is None:
                total.gw = self.patches.no_gradient()
            self.patches.add_gradient(total.gw, x, corner, gy)
            return
        left, right = gm.cut().swapaxes(1, 2), v.cut()
        for tiles in slabs(0, right.shape[1], _TILES_AT_ONCE if self._short_sums else right.shape[1]):
            np.matmul(left[:, :, tiles], right[:, tiles], out=part if tiles.start else piece)
            if tiles.start:
                piece += part
        total.gu += piece

    def gradient(self, total: Gradient) -> np.ndarray:
        """The sum -> gw (O, KH, KW, C)."""
        points = len(self.down.BT), len(self.across.BT)
        by_tiles = both_axes(self.down.G.T, self.across.G.T, total.gu.reshape(*points, *total.gu.shape[1:]))
        gw = unblocks(by_tiles, self.shape, self.stride)
        return gw if total.gw is None else gw + self.patches.gradient(total.gw)

    def _gu_shape(self) -> tuple[int, int, int]:
        return len(self.down.BT) * len(self.across.BT), self.shape[0], self._channels()

    def _channels(self) -> int:
        return math.prod(self.stride) * self.shape[3]

    def _apart(self) -> Pair:
        """From one tile's first output to the next one's, along each axis."""
        return OUTPUTS[self.kernel[0]], OUTPUTS[self.kernel[1]]

    def _plan(self, make: Callable[..., Any], x: np.ndarray, corner: Pair, y: np.ndarray) -> Any:
        """What `make` prepares for a piece; the latest is kept, as most pieces are like the one before."""
        piece = x.shape, corner, y.shape, y.flags.c_contiguous
        if self._latest[0] != (make.__name__, piece):
            self._latest = (make.__name__, piece), make(*piece)
        return self._latest[1]

    def _plan_forward(self, x: tuple[int, ...], corner: Pair, y: tuple[int, ...], contiguous: bool) -> Any:
        plan, canvas, v = self._plan_input(x, corner, y)
        return canvas, v, Assembly(self.down.AT, self.across.AT, plan, y, contiguous, self.dtype)

    def _plan_gradient(self, x: tuple[int, ...], corner: Pair, gy: tuple[int, ...], _: bool) -> Any:
        plan, canvas, v = self._plan_input(x, corner, gy)
        apart = self._apart()
        size = apart[0] * plan.number[0], apart[1] * plan.number[1]
        upstream = Canvas("gy", gy, (0, 0), (1, 1), size, plan, self.dtype)
        gm = Tiles("gy tiles", upstream, self.down.AT.T, self.across.AT.T, plan.number, apart)
        piece, part = (scratch(name, self._gu_shape(), self.dtype) for name in ("winograd gu", "winograd part"))
        return canvas, v, upstream, gm, piece, part

    def _plan_input(self, x: tuple[int, ...], corner: Pair, y: tuple[int, ...]) -> tuple[Layout, Canvas, Tiles]:
        alone, apart = self.stride != (1, 1), self._apart()
        plan = layout(1 if alone else x[0], (x[1], x[2]), corner, self.kernel, (y[1], y[2]))
        size = apart[0] * plan.number[0] + self.kernel[0] - 1, apart[1] * plan.number[1] + self.kernel[1] - 1
        canvas = Canvas("x", x, corner, self.stride, size, plan, self.dtype)
        return plan, canvas, Tiles("x tiles", canvas, self.down.BT, self.across.BT, plan.number, apart)


_TILES_AT_LEAST = 128
_TILES_AT_ONCE = 64  # in a sum of gU where a side of a tile has 7 values, so that what it is rounded by counts ten times

# ---------------------------------------------------------------------------------------------------- which numbers are tame

_LARGEST = 1e12  # products of three of them, with images and filters as long as they come, are finite in float32
_PEAK = 30  # times the root mean square: up to that more than one in a thousand is above the largest / 1000, without counting
_FEW, _FAR = 1000, 1000  # at most one in _FEW is above the largest / _FAR
_SAMPLE = 4  # of how many numbers one is squared


def tame(values: np.ndarray) -> bool:
    """Are a contiguous array's numbers finite, not huge, and the largest not alone far above all others?

    Other ones would spoil their whole tile. It is asked for every piece, so that the usual case has as few passes as it can.
    """
    if not values.size:
        return True
    flat = values.reshape(-1)
    largest = _largest(flat)
    if not largest <= _LARGEST:  # nor if it is NaN
        return False
    limit = (largest / _PEAK) ** 2 * flat.size
    # the first test is the second one's, with some of the squares: it holds for nearly all images
    if any(limit <= float(part.dot(part)) for part in (flat[: flat.size // _SAMPLE], flat)):
        return True
    large = np.count_nonzero(np.abs(flat) > largest / _FAR)
    return bool(large * _FEW > np.count_nonzero(flat))


def _largest(flat: np.ndarray) -> float:
    """The largest magnitude; NaN if there is one.

    The bits of floats are in the order of their magnitudes, NaN above infinity, and the sign is the highest bit. Integers are
    compared faster than floats, and once is enough where nothing is negative.
    """
    most = flat.view(f"u{flat.itemsize}").max().view(flat.dtype)
    if not np.signbit(most):
        return float(most)
    return float(np.maximum(-most, abs(flat.view(f"i{flat.itemsize}").max().view(flat.dtype))))


# What a value costs beside multiplications, in multiply-adds of a large product: measured at AlexNet's layers, 1 to 64 images
_FILTER_VALUE = 140  # of U or gU: filters transformed, and gradients back
_TILE_VALUE = 30  # of V or M: tiles cut and put together
_PATCH_VALUE = 18  # of the patches that are gathered otherwise
_CALLS = 20_000_000  # NumPy's many short calls, however little work there is
_WHERE_SMALL = 0.8  # of the time by patches is left where BLAS multiplies them as they lie: see product.py


def pays(shape: tuple[int, ...], stride: Pair, dilation: Pair, images: int, out: Pair) -> bool:
    """Is a convolution with filters of `shape` (O, KH, KW, C) faster by tiles?

    Small batches do not repay the filters' transform, few channels or filters not the tiles'.
    """
    kernel = block_kernel((shape[1], shape[2]), stride)
    channels, filters = math.prod(stride) * shape[3], shape[0]
    if not has_tiles(kernel, dilation) or min(channels, filters) < 16:
        return False
    points, tiles = math.prod(tile_size(kernel)), images * math.prod(tile_numbers(out, kernel))
    by_tiles = points * (channels * filters * (tiles + _FILTER_VALUE) + (channels + filters) * tiles * _TILE_VALUE)
    by_patches = images * math.prod(out) * math.prod(shape[1:]) * (filters + _PATCH_VALUE)
    if rows_at_once(math.prod(shape), np.dtype(np.float32)):
        by_patches = int(by_patches * _WHERE_SMALL)
    return by_tiles + _CALLS < by_patches


# -------------------------------------------------------------------------------------------------------------- filters


def blocks(w: np.ndarray, stride: Pair) -> np.ndarray:
    """Filters (O, KH, KW, C) -> (RH, RW, O, SH * SW * C): filters over blocks of pixels, with zeros up to a whole block."""
    if stride == (1, 1):
        return w.transpose(1, 2, 0, 3)
    (sh, sw), (out, kh, kw, c) = stride, w.shape
    rh, rw = -(-kh // sh), -(-kw // sw)
    whole = np.zeros((out, rh * sh, rw * sw, c), w.dtype)
    whole[:, :kh, :kw] = w
    return whole.reshape(out, rh, sh, rw, sw, c).transpose(1, 3, 0, 2, 4, 5).reshape(rh, rw, out, sh * sw * c)


def unblocks(g: np.ndarray, w_shape: tuple[int, ...], stride: Pair) -> np.ndarray:
    """The inverse: (RH, RW, O, SH * SW * C) -> (O, KH, KW, C)."""
    (sh, sw), (out, kh, kw, c), (rh, rw) = stride, w_shape, g.shape[:2]
    whole = g.reshape(rh, rw, out, sh, sw, c).transpose(2, 0, 3, 1, 4, 5).reshape(out, rh * sh, rw * sw, c)
    return np.ascontiguousarray(whole[:, :kh, :kw])


def both_axes(down: np.ndarray, across: np.ndarray, g: np.ndarray) -> np.ndarray:
    """down @ g @ across^T along the first two axes of g (rows, columns, A, B)."""
    columns, shape = g.shape[1], g.shape[2:]
    result = memory.empty((len(down), len(across), *shape), g.dtype)

    def work(first: int, stop: int) -> None:
        half = down[first:stop] @ g.reshape(len(g), -1)
        np.matmul(
            across, half.reshape(stop - first, columns, -1), out=result[first:stop].reshape(stop - first, len(across), -1)
        )

    run(work, len(down))
    return result
