"""Winograd's matrices: the identity behind them, how tiles are chosen, and the switch that turns them off."""

import math
import threading
from fractions import Fraction

import numpy as np
import pytest

import minidl
from minidl.kernels import winograd
from minidl.kernels.winograd import LONGEST, OUTPUTS, POINTS, block_kernel, has_tiles, tile_numbers, tile_size, transforms

LENGTHS = range(2, LONGEST + 1)


@pytest.mark.parametrize("r", LENGTHS)
def test_the_transforms_give_correlation(r, rng):
    AT, G, BT = transforms(r)
    m = OUTPUTS[r]
    t = m + r - 1
    assert AT.shape == (m, t) and G.shape == (t, r) and BT.shape == (t, t)
    d, g = rng.standard_normal(t), rng.standard_normal(r)
    expected = [d[i : i + r] @ g for i in range(m)]
    # sums of at most 7 terms below 100
    np.testing.assert_allclose(AT @ ((G @ g) * (BT @ d)), expected, atol=1e-12)


@pytest.mark.parametrize("r", LENGTHS)
def test_input_and_output_transforms_are_exact_in_float32(r):
    AT, _, BT = transforms(r)
    for matrix in (AT, BT):
        np.testing.assert_array_equal(matrix, matrix.astype(np.float32))


@pytest.mark.parametrize("r", LENGTHS)
def test_the_transforms_are_the_identity_in_fractions(r):
    """Output i is the sum of g[j] d[i + j], to the last digit: BT and AT as they are, G as the fractions that it rounds."""
    AT, G, BT = (np.array([[Fraction(v) for v in row] for row in matrix.tolist()]) for matrix in transforms(r))
    points = [Fraction(p) for p in POINTS[len(BT)].split()]
    exact = [[p**j / math.prod(p - q for q in points if q != p) for j in range(r)] for p in points]
    exact.append([Fraction(j == r - 1) for j in range(r)])
    assert [[float(v) for v in row] for row in exact] == G.astype(float).tolist()
    for i in range(OUTPUTS[r]):
        for j in range(r):
            assert list((AT[i] * [row[j] for row in exact]) @ BT) == [n == i + j for n in range(len(BT))]


def test_tiles_have_as_many_values_as_there_are_points():
    assert {r: m + r - 1 for r, m in OUTPUTS.items()} == {2: 5, 3: 6, 4: 6, 5: 7}
    assert all(len(points.split()) == t - 1 for t, points in POINTS.items())


def test_how_many_tiles_and_blocks():
    assert tile_numbers((1, 4), (3, 2)) == (1, 1) and tile_numbers((5, 13), (3, 3)) == (2, 4)
    assert tile_numbers((0, 8), (2, 2)) == (0, 2) and tile_numbers((27, 27), (5, 4)) == (9, 9)
    assert tile_size((2, 3)) == (5, 6) and tile_size((4, 5)) == (6, 7)
    assert block_kernel((11, 11), (4, 4)) == (3, 3) and block_kernel((3, 5), (1, 2)) == (3, 3)


def test_which_filters_have_tiles():
    assert has_tiles((2, LONGEST), (1, 1))
    for kernel, dilation in (((1, 3), (1, 1)), ((3, LONGEST + 1), (1, 1)), ((3, 3), (1, 2))):
        assert not has_tiles(kernel, dilation)


def test_im2col_convolutions_turns_tiles_off_inside_the_block():
    with minidl.im2col_convolutions():
        assert not has_tiles((3, 3), (1, 1))
        with minidl.im2col_convolutions():
            assert not has_tiles((3, 3), (1, 1))
        assert not has_tiles((3, 3), (1, 1))
        found = []
        thread = threading.Thread(target=lambda: found.append(has_tiles((3, 3), (1, 1))))
        thread.start()
        thread.join()
        assert found == [False]
    assert has_tiles((3, 3), (1, 1))


def test_im2col_convolutions_ends_with_an_error():
    with pytest.raises(KeyError), minidl.im2col_convolutions():
        raise KeyError
    assert has_tiles((3, 3), (1, 1)) and not winograd._patches_only
