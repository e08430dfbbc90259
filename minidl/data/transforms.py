"""Transforms: what happens to an image between the file and the network.

An image is an (H, W, C) array, RGB, on the scale 0 to 255. A transform is called `transform(image, key)`, and the key says
which draw this is: seed, epoch, index of the image in the data set, position in the epoch's order. Random transforms draw
from a generator made from the key alone. So the augmentation of an image never depends on which worker made it, on what was
drawn before, or on whether the run was resumed.

The names are torchvision's (transforms.v2). The training pipeline of the paper is

    Compose([Resize(256), CenterCrop(256), RandomCrop(224), RandomHorizontalFlip(),
             SubtractMean(mean), PCAColorNoise(stdevs, components)])

Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, sections 2
and 4.1; where the paper is silent, the program that produced its figures (computerhistory/AlexNet-Source-Code,
convdata_jpeg.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minidl.random import Generator

ORDER, CROP, FLIP, NOISE = 1, 2, 3, 4  # what a draw is for; distinct, so that crop and flip are independent

# Standard deviations (levels of 255) along the principal components of ImageNet's RGB pixels, and the components: column i
# belongs to stdev i, rows are R, G, B. Source: akrizhevsky/cuda-convnet2, make-data/input_meta, key color_pca.
IMAGENET_STDEVS = np.array([19.72083305, 37.09388853, 121.78006099])
IMAGENET_COMPONENTS = np.array(
    [
        [0.41795513, -0.71257945, -0.56351045],
        [-0.81698062, -0.02354167, -0.57618440],
        [0.39731118, 0.70119634, -0.59200296],
    ]
)


@dataclass(frozen=True)
class SampleKey:
    """Which draw this is: image `index` of the data set, at place `position` in the order of `epoch`."""

    seed: int
    epoch: int
    index: int
    position: int

    def generator(self, purpose: int, shared_by: int = 1) -> Generator:
        """The generator for one purpose: this image's own, or one that `shared_by` consecutive images share."""
        which = self.index if shared_by == 1 else self.position // shared_by
        return Generator(self.seed, purpose, self.epoch, which)


Transform = Callable[[np.ndarray, SampleKey], np.ndarray]


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, key)
        return image


class Resize:
    """(H, W, 3) uint8 -> uint8 whose shorter side is `size`; the longer side keeps the ratio, rounded down.

    Upwards with Pillow's bicubic filter; downwards with its bilinear filter widened to the step, so that every source pixel
    counts (no aliasing). An image that has the size already is returned as it is.
    """

    def __init__(self, size: int) -> None:
        self.size = _positive("Resize: size", size)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        from PIL import Image

        _check_rgb_bytes("Resize", image)
        height, width = image.shape[:2]
        short = min(height, width)
        if short == self.size:
            return image
        resample = Image.Resampling.BICUBIC if short < self.size else Image.Resampling.BILINEAR
        new_size = (width * self.size // short, height * self.size // short)
        return np.asarray(Image.fromarray(image).resize(new_size, resample))


class CenterCrop:
    """(H, W, C) -> (size, size, C): the middle, rounded towards the top left. A view."""

    def __init__(self, size: int) -> None:
        self.size = _positive("CenterCrop: size", size)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        _check_room("CenterCrop", self.size, image)
        return _center(image, self.size, self.size)


class RandomCrop:
    """(H, W, C) -> (size, size, C), at each of the (H - size + 1) (W - size + 1) places with the same probability. A view.

    With `shared_by` n, n consecutive images of an epoch are cut at one place, as in the program of 2012 (n = 32).
    """

    def __init__(self, size: int, shared_by: int = 1) -> None:
        self.size = _positive("RandomCrop: size", size)
        self.shared_by = _positive("RandomCrop: shared_by", shared_by)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        _check_room("RandomCrop", self.size, image)
        generator = key.generator(CROP, self.shared_by)
        top, left = (int(generator.integers(0, side - self.size + 1)) for side in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]


class RandomHorizontalFlip:
    """The image or, with probability p, its mirror image; `shared_by` as in RandomCrop."""

    def __init__(self, p: float = 0.5, shared_by: int = 1) -> None:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"RandomHorizontalFlip: p must be in [0, 1], got {p}")
        self.p, self.shared_by = p, _positive("RandomHorizontalFlip: shared_by", shared_by)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        mirrored = key.generator(FLIP, self.shared_by).bernoulli(self.p, 1)[0]
        return _mirror(image) if mirrored else image


class TenCrop:
    """(H, W, C) -> (10, size, size, C): the ten views that are averaged at test time.

    Views 0 to 4 are top left, top right, bottom left, bottom right and centre; view 5 + i is the mirror of view i.
    (torchvision crops the mirrored image instead: the same ten views, its left and right ones swapped in the second half.)
    """

    def __init__(self, size: int) -> None:
        self.size = _positive("TenCrop: size", size)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        size = self.size
        _check_room("TenCrop", size, image)
        top, bottom = image[:size], image[image.shape[0] - size :]
        corners = [part for rows in (top, bottom) for part in (rows[:, :size], rows[:, rows.shape[1] - size :])]
        views = np.stack([*corners, _center(image, size, size)])
        return np.concatenate([views, _mirror(views)])


class SubtractMean:
    """(..., H, W, 3) -> float32: minus the centre (H, W, 3) of a mean image (Hm, Wm, 3).

    The centre is subtracted wherever the crop was taken and whether or not it was mirrored, in the ten test views too: so does
    the program of 2012.
    """

    def __init__(self, mean: np.ndarray) -> None:
        if mean.ndim != 3:
            raise ValueError(f"SubtractMean: mean must be (H, W, C), got {mean.shape}")
        self.mean = np.asarray(mean, np.float32)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        height, width, channels = image.shape[-3:]
        mean_height, mean_width, mean_channels = self.mean.shape
        if height > mean_height or width > mean_width or channels != mean_channels:
            raise ValueError(
                f"SubtractMean: image must fit into the mean image {self.mean.shape}, got {(height, width, channels)}"
            )
        return np.subtract(image, _center(self.mean, height, width), dtype=np.float32)


class PCAColorNoise:
    """(..., 3) -> float32: the same random RGB triple n added to every pixel, then everything divided by `divide`.

        n = scale * sum over i of z_i * stdevs[i] * components[:, i]        z_i standard normal, drawn for each image and epoch

    stdevs are standard deviations (square roots of the covariance's eigenvalues), in the image's units; components are the
    eigenvectors as columns, rows R, G, B. `divide` 1.1 is the program of 2012, which so keeps the overall scale.

    Source: Krizhevsky et al. 2012, section 4.1. The paper writes the eigenvalue in place of the standard deviation; the program
    multiplies by the standard deviation (its array is `color_stdevs`), and only that gives a noise of sensible size.
    """

    def __init__(self, stdevs: np.ndarray, components: np.ndarray, scale: float = 0.1, divide: float = 1.0) -> None:
        stdevs, components = np.asarray(stdevs), np.asarray(components)
        if stdevs.shape != (3,) or components.shape != (3, 3):
            raise ValueError(
                f"PCAColorNoise: stdevs must be (3,) and components (3, 3), got {stdevs.shape} and {components.shape}"
            )
        if divide == 0.0:
            raise ValueError(f"PCAColorNoise: divide must not be 0, got {divide}")
        self.axes = (scale * components * stdevs).astype(np.float32)  # column i: one standard deviation along p_i
        self.divide = np.float32(divide)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        z = key.generator(NOISE).normal(3)
        noisy = np.add(image, _row_of((self.axes * z).sum(axis=1), image), dtype=np.float32)
        return np.divide(noisy, self.divide, out=noisy)


class Normalize:
    """(..., C) -> float32: (image - mean[c]) / std[c], both in the image's units, 0 to 255 for bytes.

    torchvision's figures are for the scale 0 to 1; times 255 they do the same here.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if not (self.std > 0.0).all():
            raise ValueError(f"Normalize: std must be above 0 in every channel, got {list(std)}")

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        centered = np.subtract(image, _row_of(self.mean, image), dtype=np.float32)
        return np.divide(centered, _row_of(self.std, image), out=centered)


class ColorStatistics(NamedTuple):
    """What a training set says about colour: see color_statistics."""

    mean: np.ndarray
    stdevs: np.ndarray
    components: np.ndarray


def color_statistics(images: Iterable[np.ndarray]) -> ColorStatistics:
    """Mean image and principal components of the RGB pixels, in one pass over (H, W, 3) uint8 images of one size.

    mean       : (H, W, 3) float32, for SubtractMean
    stdevs     : (3,) float64, ascending: square roots of the eigenvalues of the pixels' 3 x 3 RGB covariance, 0 to 255 units
    components : (3, 3) float64: column i is the unit eigenvector of stdevs[i], rows R, G, B; its largest entry is positive,
                 which fixes the sign that an eigenvector leaves open

    The sums are whole numbers in float64: exact, so independent of the order, up to 2^53 / 255^2 = 1.4e11 pixels (ImageNet at
    256 x 256 has 8e10). ValueError if there is no image or the sizes differ.
    """
    count, total, products = 0, np.zeros(()), np.zeros((3, 3))
    for image in images:
        _check_rgb_bytes("color_statistics", image)
        if count and image.shape != total.shape:
            raise ValueError(f"color_statistics: images must have one size, got {total.shape} and {image.shape}")
        pixels = image.reshape(-1, 3).astype(np.float64)
        products += pixels.T @ pixels
        total = total + image
        count += 1
    if not count:
        raise ValueError("color_statistics: takes at least 1 image, got 0")
    return ColorStatistics((total / count).astype(np.float32), *_principal_components(total, products, count))


def _principal_components(total: np.ndarray, products: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    mean = total.mean(axis=(0, 1)) / count
    pixels = count * total.shape[0] * total.shape[1]
    eigenvalues, components = np.linalg.eigh(products / pixels - np.outer(mean, mean))
    largest = components[np.abs(components).argmax(axis=0), np.arange(3)]
    return np.sqrt(np.maximum(eigenvalues, 0.0)), components * np.sign(largest)


def _mirror(image: np.ndarray) -> np.ndarray:
    return image.take(np.arange(image.shape[-2] - 1, -1, -1), axis=-2)  # a copy: passes over a reversed view are slow


def _center(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _row_of(color: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(C,) -> (W, C), one row of the image in that colour: NumPy then runs over whole rows, not over three numbers."""
    return np.tile(color, (image.shape[-2], 1))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _check_room(name: str, size: int, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if size > min(height, width):
        raise ValueError(f"{name}: size must be at most the image's sides {height} x {width}, got {size}")


def _check_rgb_bytes(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{name}: takes (H, W, 3) uint8 images, got {image.shape} {image.dtype}")
