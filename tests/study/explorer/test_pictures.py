"""What is said of an array beside its numbers: distributions, the end of the colours; and the image as a PNG."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from minidl.study.explorer.pictures import Distribution, distribution, limit, picture

# ----------------------------------------------------------------------------------------------------------- distributions


def test_distribution_equals_numpy_s():
    x = np.random.default_rng(0).normal(2.0, 3.0, (7, 11, 13)).astype(np.float32)
    x[x < 0] = 0
    found = distribution(x)
    counts, _ = np.histogram(x.astype(np.float64), 32)
    assert found.counts == counts.tolist() and all(type(n) is int for n in found.counts)
    assert (found.low, found.high) == (float(x.min()), float(x.max()))
    np.testing.assert_allclose([found.mean, found.std], [x.mean(dtype=np.float64), x.std(dtype=np.float64)], rtol=1e-12)
    assert (found.zeros, found.nonfinite, found.size) == (int((x == 0).sum()), 0, x.size)


def test_bins_include_both_ends():
    assert distribution(np.arange(9), 4).counts == [2, 2, 2, 3]
    assert distribution(np.arange(3.0), 1).counts == [3]


def test_distribution_of_what_is_finite():
    found = distribution(np.array([np.nan, 0.0, 4.0, -np.inf, np.inf, 0.0]), 4)
    assert found == Distribution([2, 0, 0, 1], 0.0, 4.0, 4 / 3, found.std, 2, 3, 6)
    assert found.std == pytest.approx(np.std([0, 4, 0]))
    assert distribution(np.array([np.nan, np.inf]), 2) == Distribution([0, 0], 0.0, 0.0, 0.0, 0.0, 0, 2, 2)
    assert distribution(np.zeros((0, 3)), 2) == Distribution([0, 0], 0.0, 0.0, 0.0, 0.0, 0, 0, 0)


def test_distribution_of_a_constant_is_in_the_middle():
    assert distribution(np.full(5, 3.0), 4) == Distribution([0, 0, 5, 0], 3.0, 3.0, 3.0, 0.0, 0, 0, 5)
    assert distribution(np.full(5, 3.0), 1).counts == [5]


def test_extreme_ranges():
    assert distribution(np.array([-1e308, 0.0, 1e308]), 2).counts == [1, 2]
    assert distribution(np.array([1.0, np.nextafter(1.0, 2)]), 2).counts == [1, 1]
    found = distribution(np.array([-1e308, 1e308]))
    assert found.std == pytest.approx(1e308) and found.mean == 0


def test_errors():
    with pytest.raises(TypeError, match=r"^distribution: the array must be of real numbers, got complex128$"):
        distribution(np.ones(3, complex))
    with pytest.raises(TypeError, match=r"^limit: the array must be of real numbers, got complex128$"):
        limit(np.ones(3, complex))
    with pytest.raises(ValueError, match=r"^distribution: bins must be at least 1, got 0$"):
        distribution(np.ones(3), 0)


# ------------------------------------------------------------------------------------------------------- colours and image


def test_the_colours_end_where_99_of_100_numbers_are_nearer_to_0():
    x = np.concatenate([np.arange(1.0, 101), np.zeros(900)]) * np.resize([1, -1], 1000)
    assert limit(x) == 99.0  # zeros do not count
    x[0] = 1e9
    assert limit(x) == 100.0  # one of 100 may be as far away as it likes


def test_the_end_of_the_colours_of_odd_arrays():
    assert limit(np.zeros((2, 3))) == limit(np.zeros((0, 3))) == 0.0
    assert limit(np.array([np.nan, -np.inf, -2.0])) == 2.0
    assert limit(np.array([True, False])) == 1.0


def test_of_a_large_array_a_part_is_looked_at():
    assert limit(np.full(3_000_000, -0.5, np.float32)) == 0.5


def test_the_image_is_a_png_of_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    made = picture(pixels)
    start = "data:image/png;base64,"
    assert made["src"].startswith(start) and (made["width"], made["height"]) == (5, 4)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(made["src"].removeprefix(start))))), pixels)
