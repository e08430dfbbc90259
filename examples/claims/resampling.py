"""Intervals by the bootstrap, over seeds and test images.

A difference between two arms is a number for each seed: both arms of a seed began with the same weights and saw the same
batches. The bootstrap draws as many seeds with replacement, again and again, and looks at how much their mean varies. Where
each number is itself a mean over test images, the images are drawn too: of d[s, i], the difference for seed s and image i,
let m[s] be the mean over images and C[s, t] the covariance over images. A draw of seeds with weights w has the mean w m,
and drawing images moves that by a normal number of variance w C w / images, to which the draw of thousands of images comes
so close that it need not be made.

Percentiles of a few seeds' means are too close together: the seeds' own spread underestimates by (n - 1) / n, and it is
itself uncertain. So the percentile of 2.5 % is moved outwards, to the one at which a normal distribution's interval of n
numbers would be Student's. With very few seeds that ends at the outermost draw. An interval of one seed is of its images
alone.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

DRAWS = 20_000
MOST_SEEDS = 1000  # more than that nobody will run


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval around it; `seeds` went into it."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def side(self) -> int:
        """1 above 0, -1 below 0, 0 if 0 is inside."""
        return int(self.low > 0) - int(self.high < 0)


def student(df: int, p: float = 0.975) -> float:
    """Student's t with df degrees of freedom: the point below which a share p > 1/2 lies. By adding up its density."""
    a = np.linspace(0.0, math.pi / 2, 400_001)[:-1]  # t = sqrt(df) tan a: the density over a is cos^(df - 1), up to a factor
    density = np.cos(a) ** (df - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    at = np.interp((2 * p - 1) * (below[-1] + density[-1] / 2), below, a)
    return math.sqrt(df) * math.tan(at)


def outwards(n: int, p: float = 0.025) -> float:
    """The percentile, as a fraction, that stands for p with n seeds."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student(n - 1, 1 - p))


def of_seeds(values: np.ndarray) -> Interval:
    """The mean of one number a seed, (S,)."""
    return _interval(np.asarray(values, float), np.zeros((len(values), len(values))))


def of_seeds_and_images(values: np.ndarray) -> Interval:
    """The mean of (S, I): a number for each seed and test image."""
    values = np.asarray(values, float)
    return _interval(values.mean(1), image_covariance(values))


def image_covariance(values: np.ndarray) -> np.ndarray:
    """(S, I) -> (S, S): of the seeds' means, when other images might have been drawn."""
    centred = values - values.mean(1, keepdims=True)
    return centred @ centred.T / values.shape[1] ** 2


def _interval(means: np.ndarray, covariance: np.ndarray) -> Interval:
    n = len(means)
    mean = float(means.mean())
    if n == 1:
        half = 1.96 * math.sqrt(covariance[0, 0])
        return Interval(mean, mean - half, mean + half, 1)
    random = np.random.default_rng(0)
    weights = random.multinomial(n, np.full(n, 1 / n), DRAWS) / n
    spread = np.sqrt(np.maximum(np.einsum("bs,st,bt->b", weights, covariance, weights), 0.0))
    draws = weights @ means + spread * random.standard_normal(DRAWS)
    p = outwards(n)
    low, high = np.quantile(draws, (p, 1 - p))
    return Interval(mean, float(low), float(high), n)


def seeds_needed(means: np.ndarray, covariance: np.ndarray | None = None) -> int | None:
    """With how many seeds the interval would leave 0 out, if mean and spread stay as they are.

    None: with none, as the test images alone leave it open; or with more than MOST_SEEDS; or there are not two seeds to tell.
    """
    n = len(means)
    if n < 2:
        return None
    images = 0.0 if covariance is None else max((covariance.sum() - np.trace(covariance)) / (n * (n - 1)), 0.0)
    variance, mean = float(means.var(ddof=1)), abs(float(means.mean()))
    for wanted in range(2, MOST_SEEDS + 1):
        t = student(wanted - 1) if wanted < 60 else 1.96
        if t * math.sqrt(variance / wanted + images) < mean:
            return wanted
    return None
