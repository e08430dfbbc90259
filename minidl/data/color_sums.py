"""What a training set says about colour: its mean image and the principal components of its pixels, for SubtractMean and
PCAColorNoise."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minidl.data.images import array_of, check_rgb_bytes


class ColorStatistics(NamedTuple):
    """What a training set says about colour: see color_statistics."""

    mean: np.ndarray
    stdevs: np.ndarray
    components: np.ndarray


@dataclass
class ColorSums:
    """What color_statistics needs to know of the images so far. Sums of whole numbers in int64: exact, so the same whatever the
    order of the images, and however they were divided among sums that are merged. Room for 2^63 / 255^2 = 1.4e14 pixels.

    count    : how many images
    total    : (H, W, 3), their sum
    products : (3, 3), the sum over all pixels p of the outer product p pᵀ
    """

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.int64))
    products: np.ndarray = field(default_factory=lambda: np.zeros((3, 3), np.int64))

    def add(self, image: Any) -> None:
        """One (H, W, 3) uint8 image more, or one of Pillow's. ValueError if its size differs from the others'."""
        image = array_of(image)
        check_rgb_bytes("color_statistics", image)
        self._make_room(image.shape)
        pixels = image.reshape(-1, 3).astype(np.float64)  # whole numbers below 2^53: BLAS multiplies and adds them exactly
        self.count += 1
        self.total += image
        self.products += (pixels.T @ pixels).astype(np.int64)

    def merge(self, other: "ColorSums") -> None:
        """The images of `other` too. ValueError if their size differs."""
        if other.count:
            self._make_room(other.total.shape)
            self.count += other.count
            self.total += other.total
            self.products += other.products

    def _make_room(self, shape: tuple[int, ...]) -> None:
        if not self.count:
            self.total = np.zeros(shape, np.int64)
        if shape != self.total.shape:
            raise ValueError(f"color_statistics: images must have one size, got {self.total.shape} and {shape}")

    def statistics(self) -> ColorStatistics:
        """As color_statistics returns them. ValueError if there was no image."""
        if not self.count:
            raise ValueError("color_statistics: takes at least 1 image, got 0")
        mean = (self.total / self.count).astype(np.float32)
        return ColorStatistics(mean, *_principal_components(self.total, self.products, self.count))


def color_statistics(images: Iterable[Any]) -> ColorStatistics:
    """Mean image and principal components of the RGB pixels, in one pass over (H, W, 3) uint8 images, or Pillow's, of one size.

    mean       : (H, W, 3) float32, for SubtractMean
    stdevs     : (3,) float64, ascending: square roots of the eigenvalues of the pixels' 3 x 3 RGB covariance, 0 to 255 units
    components : (3, 3) float64: column i is the unit eigenvector of stdevs[i], rows R, G, B; its largest entry is positive,
                 which fixes the sign that an eigenvector leaves open

    The result does not depend on the images' order: see ColorSums. ValueError if there is no image or the sizes differ.
    """
    sums = ColorSums()
    for image in images:
        sums.add(image)
    return sums.statistics()


def _principal_components(total: np.ndarray, products: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    mean = total.mean(axis=(0, 1)) / count
    pixels = count * total.shape[0] * total.shape[1]
    eigenvalues, components = np.linalg.eigh(products / pixels - np.outer(mean, mean))
    largest = components[np.abs(components).argmax(axis=0), np.arange(3)]
    return np.sqrt(np.maximum(eigenvalues, 0.0)), components * np.sign(largest)
