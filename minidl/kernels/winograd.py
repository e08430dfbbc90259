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

A stride s is turned into channels: a block of s x s pixels counts as one pixel of s * s * C channels, and the filters' elements
are regrouped alike. AlexNet's first layer (11x11, stride 4) becomes 3x3 over blocks of 4 x 4 pixels.

Rounding, in float32 at AlexNet's shapes: eight times that of a plain product in the mean, twenty times in the worst element,
which is then 1e-5 of the largest value off. An infinity or NaN spreads to the whole tile.
Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016.

Here are the matrices. What multiplies by them is in cpu/winograd.py, and for a GPU in cuda/winograd.cu.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from minidl.shapes import Pair

TILE = 4  # outputs of a tile along an axis
POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]  # and infinity
LONGEST = len(POINTS) + 2 - TILE  # elements of the longest filter that the points are enough for


def tile_numbers(out: Pair) -> Pair:
    """How many tiles cover the outputs along each axis."""
    return -(-out[0] // TILE), -(-out[1] // TILE)


def block_kernel(kernel: Pair, stride: Pair) -> Pair:
    """The filters' elements along each axis, where a block of pixels, the stride, counts as one."""
    return -(-kernel[0] // stride[0]), -(-kernel[1] // stride[1])


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
