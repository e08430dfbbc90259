"""Winograd's matrices: the identity behind them."""

import numpy as np
import pytest

from minidl.kernels.winograd import LONGEST, TILE, block_kernel, tile_numbers, transforms

LENGTHS = range(2, LONGEST + 1)


@pytest.mark.parametrize("r", LENGTHS)
def test_the_transforms_give_correlation(r, rng):
    AT, G, BT = transforms(r)
    t = TILE + r - 1
    assert AT.shape == (TILE, t) and G.shape == (t, r) and BT.shape == (t, t)
    d, g = rng.standard_normal(t), rng.standard_normal(r)
    expected = [d[i : i + r] @ g for i in range(TILE)]
    # sums of at most 8 terms below 100
    np.testing.assert_allclose(AT @ ((G @ g) * (BT @ d)), expected, atol=1e-12)


@pytest.mark.parametrize("r", LENGTHS)
def test_input_and_output_transforms_are_exact_in_float32(r):
    AT, _, BT = transforms(r)
    for matrix in (AT, BT):
        np.testing.assert_array_equal(matrix, matrix.astype(np.float32))


def test_how_many_tiles_and_blocks():
    assert tile_numbers((1, 4)) == (1, 1) and tile_numbers((5, 13)) == (2, 4) and tile_numbers((0, 8)) == (0, 2)
    assert block_kernel((11, 11), (4, 4)) == (3, 3) and block_kernel((3, 5), (1, 2)) == (3, 3)
