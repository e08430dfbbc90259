"""Convolution with fewer multiplications: Winograd's minimal filtering, tile by tile.

One tile gives m outputs along an axis from t = m + r - 1 inputs d and a filter g of r elements. Done directly that takes
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
    y = AT M A                                 every tile's m x m outputs

The gradient of the weights is the transpose of that: gM = A gy AT, gU = V^T @ gM, gg = GT gU G. The input's gradient is a
convolution of gy with the flipped filters, so it is the same function once more.

A stride s is turned into channels: a block of s x s pixels counts as one pixel of s * s * C channels, and the filters' elements
are regrouped alike. AlexNet's first layer (11x11, stride 4) becomes 3x3 over blocks of 4 x 4 pixels.

Rounding is that of the sums over channels, times a factor that hardly depends on anything but t. Measured in the error (rms) of
one plain sum it is 3 where t = 5, 5 where t = 6 and 10 where t = 7, with the `POINTS` below; 8 had 20. So `OUTPUTS` has fewer
outputs for longer filters. A number that is not finite, or far larger than others, spoils its whole tile: docs/winograd.md.

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016.

Here are the matrices. What multiplies by them is in cpu/winograd.py, and for a GPU in cuda/winograd.cu.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from minidl.shapes import Pair

OUTPUTS = {2: 4, 3: 4, 4: 3, 5: 3}  # of a tile along an axis, by the filters' elements along it
POINTS = {  # by the tile's values along an axis; and infinity
    5: "1/2 -1/2 5/4 -5/4",
    6: "0 3/4 -3/4 3/2 -3/2",
    7: "1/4 -1/4 7/8 -7/8 7/4 -7/4",
}
LONGEST = max(OUTPUTS)  # elements of the longest filter
_patches_only = False


@contextmanager
def im2col_convolutions() -> Iterator[None]:
    """Inside the block no convolution goes by Winograd's tiles, but by patches (im2col); other ops run as fast as they do.

    It holds for all threads and devices, and for a backward that runs inside the block.
    """
    global _patches_only
    before, _patches_only = _patches_only, True
    try:
        yield
    finally:
        _patches_only = before


def has_tiles(kernel: Pair, dilation: Pair) -> bool:
    """Are there tiles for filters of `kernel` blocks, and are they allowed?"""
    return not _patches_only and dilation == (1, 1) and min(kernel) >= 2 and max(kernel) <= LONGEST


def tile_numbers(out: Pair, kernel: Pair) -> Pair:
    """How many tiles cover the outputs along each axis, with filters of `kernel` blocks."""
    return -(-out[0] // OUTPUTS[kernel[0]]), -(-out[1] // OUTPUTS[kernel[1]])


def tile_size(kernel: Pair) -> Pair:
    """The values of a tile along each axis, with filters of `kernel` blocks."""
    return OUTPUTS[kernel[0]] + kernel[0] - 1, OUTPUTS[kernel[1]] + kernel[1] - 1


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
    """Toom and Cook's matrices, exact until the last step.

    The polynomial that is 1 at a point p and 0 at the others is the product of (x - q) for the others q, divided by its value
    at p. BT has the product's coefficients, G is divided instead: so BT and AT are exact in float32 too.
    """
    m = OUTPUTS[r]
    points = [Fraction(p) for p in POINTS[m + r - 1].split()]

    def powers(n: int) -> list[list[Fraction]]:
        """Row p: the point's powers 0 ... n-1. At infinity only the highest counts."""
        return [[p**j for j in range(n)] for p in points] + [[Fraction(j == n - 1) for j in range(n)]]

    others = [[q for q in points if q != p] for p in points]
    BT = [[*_product(roots), Fraction(0)] for roots in others] + [_product(points)]
    G = [
        [value / math.prod(p - q for q in roots) for value in row]
        for p, roots, row in zip(points, others, powers(r)[:-1], strict=True)
    ]
    G.append(powers(r)[-1])
    AT = list(zip(*powers(m), strict=True))
    return Transforms(*(np.array(matrix, np.float64) for matrix in (AT, G, BT)))


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the product of (x - q) for the roots q, the lowest first."""
    product = [Fraction(1)]
    for q in roots:
        product = [a - q * b for a, b in zip([Fraction(0), *product], [*product, Fraction(0)], strict=True)]
    return product
