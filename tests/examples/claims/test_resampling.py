"""Intervals against what is known of them: Student's table, normal numbers, the bootstrap made by drawing."""

import math

import numpy as np
import pytest
from resampling import image_covariance, of_seeds, of_seeds_and_images, seeds_needed, student


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (100, 1.984), (1e9, 1.960)]
)
def test_students_t_is_that_of_the_tables(df, t):
    assert student(df) == pytest.approx(t, abs=6e-4)


def test_the_interval_of_seeds_is_students():
    """Mean 3, standard deviation sqrt(2.5), so half the width is 2.776 sqrt(2.5 / 5)."""
    interval = of_seeds(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764 * math.sqrt(0.5)
    assert (interval.low, interval.mean, interval.high, interval.seeds) == pytest.approx((3 - half, 3, 3 + half, 5), abs=1e-3)


def crossed(random, seeds, images):
    """A number for each seed and image, with a part of each seed's, a part of each image's, and a part of both."""
    return random.normal(0, 0.1, (seeds, 1)) + random.normal(0, 1, images) + random.normal(0, 0.5, (seeds, images))


def test_the_standard_error_is_that_of_a_bootstrap_that_draws_seeds_and_images():
    """The drawn one has the part of both twice, 1 / 80 of an image's variance; and its seeds' spread without correction."""
    random = np.random.default_rng(0)
    values = crossed(random, 20, 400)
    drawn = []
    for _ in range(3000):
        seeds, images = random.integers(0, 20, 20), random.integers(0, 400, 400)
        drawn.append(values[seeds].mean(0)[images].mean())
    interval = of_seeds_and_images(values)
    variance = values.mean(1).var(ddof=1) / 20 + image_covariance(values).mean()
    assert math.sqrt(variance) == pytest.approx(np.std(drawn), rel=0.06)
    assert interval.high - interval.mean == pytest.approx(1.98 * math.sqrt(variance), rel=0.03)


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_95_of_100_intervals_hold_the_mean(seeds):
    """Of 2000 draws; the standard error of the share is 0.5 %. Images and seeds matter about alike."""
    random = np.random.default_rng(seeds)
    hits = [i.low <= 0 <= i.high for i in (of_seeds_and_images(crossed(random, seeds, 100)) for _ in range(2000))]
    assert 0.935 < np.mean(hits) < 0.985


def test_the_covariance_over_images_is_that_of_the_seeds_means():
    values = crossed(np.random.default_rng(3), 4, 500)
    np.testing.assert_allclose(image_covariance(values), np.cov(values, bias=True) / 500, rtol=1e-12)


def test_one_seed_has_the_interval_of_its_images():
    image = np.array([1.0] * 30 + [0.0] * 70)
    interval = of_seeds_and_images(image[None])
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert (interval.low, interval.high) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-5)


def test_the_sides_of_an_interval():
    assert of_seeds(np.array([1.0, 1.1, 0.9, 1.0, 1.05])).side == 1
    assert of_seeds(np.array([-1.0, -1.1, -0.9, -1.0, -1.05])).side == -1
    assert of_seeds(np.array([1.0, -1.1, 0.9, -1.0, 0.05])).side == 0


def test_seeds_needed_are_those_whose_interval_is_half_as_wide_as_the_mean_is_large():
    """Mean 1, spread 1: t(n - 1) / sqrt(n) < 1 first at n = 7, 2.447 / 2.646; 6 have 2.571 / 2.449."""
    assert seeds_needed(np.array([0.0, 1.0, 2.0])) == 7


def test_no_number_of_seeds_helps_where_the_images_alone_leave_it_open():
    """A mean of 0.005 with a standard error of 0.03; and the same with a mean of 0.105."""
    image = np.where(np.arange(1000) % 2 == 0, 1.0, -0.99)
    values = np.tile(image, (5, 1)) + 1e-6 * np.arange(5)[:, None]
    assert seeds_needed(values.mean(1), image_covariance(values)) is None
    assert seeds_needed(values.mean(1) + 0.1, image_covariance(values)) == 2


def test_one_seed_does_not_tell_how_many_are_needed():
    assert seeds_needed(np.array([1.0])) is None
