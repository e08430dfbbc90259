"""Winograd's tiles on a CPU; the mathematics and the matrices are in minidl/kernels/winograd.py.

Multiplying by the small matrices is left to BLAS as well, one axis at a time: a tile's t rows of pixels, as they lie in memory,
are the t rows of a matrix. A pass of additions over the arrays for each term took two to four times as long.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import memory
from minidl.kernels.cpu.im2col import AT_ONCE
from minidl.kernels.cpu.tiles import Assembly, Canvas, Layout, Tiles, layout
from minidl.kernels.winograd import LONGEST, TILE, Transforms, block_kernel, tile_numbers, transforms
from minidl.parallel import run, scratch
from minidl.shapes import Pair


class Winograd:
    """The convolution of one group by tiles: the same methods as `Im2col`. For one thread.

    shape (O, KH, KW, C) : of the group's filters.
    """

    unit = TILE  # rows of output that go together

    def __init__(self, shape: tuple[int, ...], stride: Pair, dtype: np.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype
        self.kernel = block_kernel((shape[1], shape[2]), stride)
        self.down, self.across = (Transforms(*(m.astype(dtype) for m in transforms(r))) for r in self.kernel)
        self._latest: tuple[tuple[Any, ...], Any] = (), None

    def units_at_once(self, out: Pair) -> int:
        """As many rows of tiles as leave V and M in the outer cache; at least a hundred tiles, for the products to be large;
        whole mosaics if that is more than one."""
        height, width = tile_numbers(out)
        points = len(self.down.BT) * len(self.across.BT)
        values = points * width * (self.shape[0] + math.prod(self.stride) * self.shape[3])
        units = max(AT_ONCE // (values * self.dtype.itemsize), -(-_TILES_AT_LEAST // width))
        return units - units % (4 * height) if units > 4 * height else units

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """Filters (O, KH, KW, C) -> U (t * t, SH * SW * C, O)."""
        u = both_axes(self.down.G, self.across.G, np.ascontiguousarray(blocks(w, self.stride).swapaxes(2, 3)))
        return u.reshape(-1, *u.shape[2:])

    def forward(self, x: np.ndarray, corner: Pair, u: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
        """Images (n, H, W, C), with `corner` rows and columns of zeros before them, and bias (OW, O) into y (n, OH, OW, O)."""
        canvas, v, m = self._plan(self._plan_forward, x, corner, y)
        canvas.put(x)
        np.matmul(v.cut(), u, out=m.values)
        m.write(bias, y)

    def no_gradient(self) -> np.ndarray:
        """Zeros for `add_gradient`: gU (t * t, O, SH * SW * C)."""
        gu = memory.empty((len(self.down.BT) * len(self.across.BT), self.shape[0], self._channels()), self.dtype)
        gu[...] = 0
        return gu

    def add_gradient(self, gu: np.ndarray, x: np.ndarray, corner: Pair, gy: np.ndarray) -> None:
        """gU += what images x (n, H, W, C) and gy (n, OH, OW, O) add."""
        canvas, v, upstream, gm, part = self._plan(self._plan_gradient, x, corner, gy)
        canvas.put(x)
        upstream.put(gy)
        gu += np.matmul(gm.cut().swapaxes(1, 2), v.cut(), out=part)

    def gradient(self, gu: np.ndarray) -> np.ndarray:
        """The sum of gU -> gw (O, KH, KW, C)."""
        points = len(self.down.BT), len(self.across.BT)
        return unblocks(both_axes(self.down.G.T, self.across.G.T, gu.reshape(*points, *gu.shape[1:])), self.shape, self.stride)

    def _channels(self) -> int:
        return math.prod(self.stride) * self.shape[3]

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
        size = TILE * plan.number[0], TILE * plan.number[1]
        upstream = Canvas("gy", gy, (0, 0), (1, 1), size, plan, self.dtype)
        gm = Tiles("gy tiles", upstream, self.down.AT.T, self.across.AT.T, plan.number)
        part = scratch("winograd gu", (gm.values.shape[0], self.shape[0], self._channels()), self.dtype)
        return canvas, v, upstream, gm, part

    def _plan_input(self, x: tuple[int, ...], corner: Pair, y: tuple[int, ...]) -> tuple[Layout, Canvas, Tiles]:
        alone = self.stride != (1, 1)
        plan = layout(1 if alone else x[0], (x[1], x[2]), corner, self.kernel, (y[1], y[2]))
        size = TILE * plan.number[0] + self.kernel[0] - 1, TILE * plan.number[1] + self.kernel[1] - 1
        canvas = Canvas("x", x, corner, self.stride, size, plan, self.dtype)
        return plan, canvas, Tiles("x tiles", canvas, self.down.BT, self.across.BT, plan.number)


_TILES_AT_LEAST = 128


# What a value costs beside multiplications, in multiply-adds of a large product: measured at AlexNet's layers, 1 to 64 images
_FILTER_VALUE = 140  # of U or gU: filters transformed, and gradients back
_TILE_VALUE = 30  # of V or M: tiles cut and put together
_PATCH_VALUE = 18  # of the patches that are gathered otherwise


def pays(shape: tuple[int, ...], stride: Pair, dilation: Pair, images: int, out: Pair) -> bool:
    """Is a convolution with filters of `shape` (O, KH, KW, C) faster by tiles?

    Small batches do not repay the filters' transform, few channels or filters not the tiles'.
    """
    kernel = block_kernel((shape[1], shape[2]), stride)
    channels, filters = math.prod(stride) * shape[3], shape[0]
    if dilation != (1, 1) or min(kernel) < 2 or max(kernel) > LONGEST or min(channels, filters) < 16:
        return False
    points, tiles = math.prod(TILE + r - 1 for r in kernel), images * math.prod(tile_numbers(out))
    by_tiles = points * (channels * filters * (tiles + _FILTER_VALUE) + (channels + filters) * tiles * _TILE_VALUE)
    by_patches = images * math.prod(out) * math.prod(shape[1:]) * (filters + _PATCH_VALUE)
    return by_tiles < by_patches


# -------------------------------------------------------------------------------------------------------------- filters


def blocks(w: np.ndarray, stride: Pair) -> np.ndarray:
    """Filters (O, KH, KW, C) -> (RH, RW, O, SH * SW * C): filters over blocks of pixels, with zeros up to a whole block."""
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
