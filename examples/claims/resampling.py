"""95 % intervals over seeds and test images: the bootstrap's standard error, and Student's t.

A difference between two arms is a number for each seed: both arms of a seed began with the same weights and saw the same
batches. Where each of these numbers is itself a mean over test images, they also vary together with the images. Let d[s, i]
be the difference for seed s and image i (0, 1 or -1), m[s] its mean over the n images, C[s, t] the covariance of m[s] and
m[t] when other images are drawn, that of d[s] and d[t] over the images, by n.

The bootstrap draws S of the S seeds with replacement, and n of the n images, again and again, and takes the spread of the
means. What it comes to after endless draws can be written down:

    variance = A + B      A = sum over s of (m[s] - mean)^2 / S^2, seeds drawn and images kept
                          B = sum over s, t of C[s, t] / S^2, images drawn and seeds kept

up to a smaller term, of the images that each seed has drawn for itself alone; the seeds' own spread has that already.
A is corrected by S / (S - 1), as of few seeds it is too small, and so is the normal distribution's 1.96: the interval is
mean +- t sqrt(A + B), with Student's t of (S - 1) (1 + B / A)^2 degrees of freedom (Welch and Satterthwaite's rule: only A has
few). One seed has the interval of its images alone.
"""

import math
from dataclasses import dataclass

import numpy as np

MOST_SEEDS = 1000  # more than that nobody will run
NORMAL = 1.959964  # Student's t with endless degrees of freedom


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


def student(df: float) -> float:
    """The t below which 97.5 % of Student's distribution with df >= 1 degrees of freedom lie: its density, added up."""
    if df > 1000:
        return NORMAL
    a = np.linspace(0.0, math.pi / 2, 20_001)  # t = sqrt(df) tan a: the density over a is cos^(df - 1), up to a factor
    density = np.cos(a) ** (df - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(df) * math.tan(np.interp(0.95 * below[-1], below, a))  # 95 % of the half that is above 0


def of_seeds(values: np.ndarray) -> Interval:
    """The mean of one number a seed, (S,)."""
    return _interval(np.asarray(values, float), 0.0)


def of_seeds_and_images(values: np.ndarray) -> Interval:
    """The mean of (S, n): a number for each seed and test image."""
    values = np.asarray(values, float)
    return _interval(values.mean(1), float(image_covariance(values).mean()))


def image_covariance(values: np.ndarray) -> np.ndarray:
    """C, (S, S), of (S, n)."""
    centred = values - values.mean(1, keepdims=True)
    return centred @ centred.T / values.shape[1] ** 2


def _interval(means: np.ndarray, images: float) -> Interval:
    """`images` is B."""
    n, mean = len(means), float(means.mean())
    seeds = float(means.var(ddof=1)) / n if n > 1 else 0.0
    half = _half(n, seeds, images)
    return Interval(mean, mean - half, mean + half, n)


def _half(n: int, seeds: float, images: float) -> float:
    """Half of an interval's width; `seeds` is A, corrected, and `images` B."""
    df = (n - 1) * (1 + images / seeds) ** 2 if seeds else math.inf
    return student(df) * math.sqrt(seeds + images)


def seeds_needed(means: np.ndarray, covariance: np.ndarray | None = None) -> int | None:
    """With how many seeds the interval would leave 0 out, if mean and spread stay as they are.

    None: with none, as the test images alone leave it open; or with more than MOST_SEEDS; or there are not two seeds to tell.
    """
    n = len(means)
    if n < 2:
        return None
    images = 0.0 if covariance is None else max((covariance.sum() - np.trace(covariance)) / (n * (n - 1)), 0.0)
    variance, mean = float(means.var(ddof=1)), abs(float(means.mean()))
    if NORMAL * math.sqrt(variance / MOST_SEEDS + images) >= mean:
        return None
    return next(wanted for wanted in range(2, MOST_SEEDS + 1) if _half(wanted, variance / wanted, images) < mean)
