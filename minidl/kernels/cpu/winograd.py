"""Convolution with fewer multiplications: Winograd's minimal filtering, tile by tile.

One tile gives m = 4 outputs along an axis from t = m + r - 1 inputs d and a filter g of r elements. Done directly that takes
m * r multiplications. But the outputs are coefficients of a product of polynomials, and a polynomial of t coefficients is known
from its values at t points, where multiplying polynomials is multiplying numbers:

    y = AT @ ((G @ g) * (BT @ d))        t multiplications instead of m * r

    G    evaluates the filter at the points; BT and AT are the transposes of "find the coefficients" and "evaluate"
    (Toom and Cook's multiplication, transposed to compute correlations).

In two dimensions each matrix is applied along both axes. The products are per channel, and summing them over the channels,
for every tile and filter, is one matrix product for each of the t * t positions:

    V = BT d B         (t, t, tiles, C)        every tile of every image
    U = G g GT         (t, t, C, O)            every filter
    M = V @ U          (t, t, tiles, O)        all the multiplications: 36 for 16 outputs of a 3x3 filter instead of 144
    y = AT M A                                 every tile's 4 x 4 outputs

The gradient of the weights is the transpose of that: gM = A gy AT, gU = V^T @ gM, gg = GT gU G. The input's gradient is a
convolution of gy with the flipped filters, so it is the same function once more.

Multiplying by the small matrices is left to BLAS as well, one axis at a time: a tile's t rows of pixels, as they lie in memory,
are the t rows of a matrix. A pass of additions over the arrays for each term took two to four times as long.

A stride s is turned into channels: a block of s x s pixels counts as one pixel of s * s * C channels, and the filters' elements
are regrouped alike. AlexNet's first layer (11x11, stride 4) becomes 3x3 over blocks of 4 x 4 pixels.

Rounding, in float32 at AlexNet's shapes: eight times that of a plain product in the mean, twenty times in the worst element,
which is then 1e-5 of the largest value off. An infinity or NaN spreads to the whole tile.
Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from minidl import memory
from minidl.kernels.cpu.im2col import AT_ONCE
from minidl.kernels.cpu.tiles import TILE, Assembly, Canvas, Layout, Tiles, layout, tile_numbers
from minidl.parallel import run, scratch
from minidl.shapes import Pair

POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]  # and infinity
LONGEST = len(POINTS) + 2 - TILE  # elements of the longest filter that the points are enough for


class Transforms(NamedTuple):
    """The matrices for filters of r elements: AT (m, t), G (t, r), BT (t, t), float64."""

    AT: np.ndarray
    G: np.ndarray
    BT: np.ndarray


@cache
def transforms(r: int) -> Transforms:
    """Toom and Cook's matrices, exact until the last step. Each row of BT is scaled to small numbers, and G's the other way."""
    t = TILE + r - 1
    points = POINTS[: t - 1]

    def powers(n: int) -> list[list[Fraction]]:
        """Row p: the point's powers 0 ... n-1. At infinity only the highest counts."""
        return [[p**j for j in range(n)] for p in points] + [[Fraction(j == n - 1) for j in range(n)]]

    BT = [list(row) for row in zip(*_inverse(powers(t)), strict=True)]
    G = powers(r)
    for i, row in enumerate(BT):
        scale = _scale(row)
        BT[i] = [value * scale for value in row]
        G[i] = [value / scale for value in G[i]]
    AT = list(zip(*powers(TILE), strict=True))
    return Transforms(*(np.array(matrix, np.float64) for matrix in (AT, G, BT)))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss and Jordan's elimination, exact."""
    n = len(matrix)
    rows = [row + [Fraction(i == j) for j in range(n)] for i, row in enumerate(matrix)]
    for c in range(n):
        pivot = next(i for i in range(c, n) if rows[i][c] != 0)
        rows[c], rows[pivot] = rows[pivot], rows[c]
        rows[c] = [value / rows[c][c] for value in rows[c]]
        for i in range(n):
            if i != c:
                rows[i] = [a - rows[i][c] * b for a, b in zip(rows[i], rows[c], strict=True)]
    return [row[n:] for row in rows]


def _scale(row: Sequence[Fraction]) -> Fraction:
    """A factor that makes a row integers without a common divisor, or the smallest of them 1 where that is exact in binary."""
    scale = Fraction(np.lcm.reduce([value.denominator for value in row]))
    scale /= np.gcd.reduce([int(value * scale) for value in row])
    smallest = min(abs(int(value * scale)) for value in row if value)
    return scale / smallest if smallest & (smallest - 1) == 0 else scale


class Winograd:
    """The convolution of one group by tiles: the same methods as `Im2col`. For one thread.

    shape (O, KH, KW, C) : of the group's filters.
    """

    unit = TILE  # rows of output that go together

    def __init__(self, shape: tuple[int, ...], stride: Pair, dtype: np.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype
        self.kernel = _block_kernel(shape, stride)
        self.down, self.across = (Transforms(*(m.astype(dtype) for m in transforms(r))) for r in self.kernel)
        self._latest: tuple[tuple, Any] = (), None

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


def _block_kernel(shape: tuple[int, ...], stride: Pair) -> Pair:
    return -(-shape[1] // stride[0]), -(-shape[2] // stride[1])


# What a value costs beside multiplications, in multiply-adds of a large product: measured at AlexNet's layers, 1 to 64 images
_FILTER_VALUE = 140  # of U or gU: filters transformed, and gradients back
_TILE_VALUE = 30  # of V or M: tiles cut and put together
_PATCH_VALUE = 18  # of the patches that are gathered otherwise


def pays(shape: tuple[int, ...], stride: Pair, dilation: Pair, images: int, out: Pair) -> bool:
    """Is a convolution with filters of `shape` (O, KH, KW, C) faster by tiles?

    Small batches do not repay the filters' transform, few channels or filters not the tiles'.
    """
    kernel = _block_kernel(shape, stride)
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
