"""Transforms: what happens to an image between the file and the network.

An image is an (H, W, C) array, RGB, on the scale 0 to 255. A transform is called `transform(image, key)`, and the key says
which draw this is: seed, epoch, index of the image in the data set, position in the epoch's order. Random transforms draw
from a generator made from the key alone. So the augmentation of an image never depends on which worker made it, on what was
drawn before, or on whether the run was resumed.

The names are torchvision's (transforms.v2). The training pipeline of the paper is

    Compose([Resize(256), CenterCrop(256), RandomCrop(224), RandomHorizontalFlip(),
             SubtractMean(mean), PCAColorNoise(stdevs, components)])

What is drawn can be asked for apart from the work (`places`, `mirrored`, `color`): InputStep does the work of the last four for
a whole batch. Caffe subtracts the mean that lies under the crop, and mirrors it with the image: that is SubtractMean(mean)
before RandomCrop.

Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, sections 2
and 4.1; where the paper is silent, the program that produced its figures (computerhistory/AlexNet-Source-Code,
convdata_jpeg.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minidl.layout import center
from minidl.random import Generator
from minidl.shapes import is_int

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ORDER, CROP, FLIP, NOISE = 1, 2, 3, 4  # what a draw is for; distinct, so that crop and flip are independent

IMAGENET_STDEVS = np.array([19.72083305, 37.09388853, 121.78006099])
"""(3,) float64: standard deviations, in levels of 255, along the principal components of ImageNet's RGB pixels.

Source: akrizhevsky/cuda-convnet2, make-data/input_meta, key color_pca.
"""
IMAGENET_COMPONENTS = np.array(
    [
        [0.41795513, -0.71257945, -0.56351045],
        [-0.81698062, -0.02354167, -0.57618440],
        [0.39731118, 0.70119634, -0.59200296],
    ]
)
"""(3, 3) float64: the components. Column i belongs to IMAGENET_STDEVS[i], rows are R, G, B. Source: as there."""


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


class Place(NamedTuple):
    """Where a crop is taken: its first row and column, and whether it is mirrored then."""

    top: int
    left: int
    mirrored: bool = False


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, key)
        return image

    def __repr__(self) -> str:
        return "\n".join(["Compose(", *(f"    {transform!r}" for transform in self.transforms), ")"])


class Resize:
    """(H, W, 3) uint8 -> uint8 of another size.

    size n: the shorter side becomes n, the longer side keeps the ratio, rounded down. size (h, w): the sides become h and w.
    Where the shorter side grows, with Pillow's bicubic filter; else with its bilinear filter widened to the step, so that every
    source pixel counts (no aliasing). An image that has the size already is returned as it is.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _size("Resize", size)
        self.keeps_ratio = is_int(size)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        from PIL import Image

        check_rgb_bytes("Resize", image)
        if self.new_size(*image.shape[:2]) == image.shape[:2]:
            return image
        return np.asarray(self.of_picture(Image.fromarray(image)))

    def of_picture(self, picture: "Picture", part: tuple[int, int, int, int] | None = None) -> "Picture":
        """The same for a Pillow picture; with `part`, only those pixels (left, top, right, bottom) of the new picture.

        Of a picture that shrinks no other pixel is made. Pillow keeps the part's corners, in pixels of the old picture, in
        float32, which moves its weights by some 1e-7: a sum next to the middle between two levels may go to the other one.
        """
        from PIL import Image

        old, new = (picture.height, picture.width), self.new_size(picture.height, picture.width)
        resample = Image.Resampling.BICUBIC if min(old) < min(new) else Image.Resampling.BILINEAR
        if part is not None and min(old) > min(new):
            (down, across), (left, top, right, bottom) = (old[0] / new[0], old[1] / new[1]), part
            box = (left * across, top * down, right * across, bottom * down)
            return picture.resize((right - left, bottom - top), resample, box)
        resized = picture if old == new else picture.resize(new[::-1], resample)
        return resized if part is None else resized.crop(part)

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what an image of this size becomes."""
        if not self.keeps_ratio:
            return self.size
        size, short = self.size[0], min(height, width)
        return height * size // short, width * size // short

    def __repr__(self) -> str:
        return f"Resize(size={self.size[0] if self.keeps_ratio else self.size})"


class _Crop:
    """Crops of `size` (height, width), an int n being (n, n). `places` says where."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _size(type(self).__name__, size)

    def places(self, shape: Sequence[int], key: SampleKey) -> list[Place]:
        """The places in an image of this shape (H, W, ...). ValueError if it is smaller than the crop."""
        room = shape[0] - self.size[0], shape[1] - self.size[1]
        if min(room) < 0:
            name, (height, width) = type(self).__name__, self.size
            raise ValueError(f"{name}: size must be at most the image's sides {shape[0]} x {shape[1]}, got {height} x {width}")
        return self._places_in(*room, key)

    def _places_in(self, down: int, across: int, key: SampleKey) -> list[Place]:
        """Of places whose top is in 0 ... down and left in 0 ... across, those that are taken."""
        raise NotImplementedError

    def _cut(self, image: np.ndarray, place: Place) -> np.ndarray:
        height, width = self.size
        crop = image[place.top : place.top + height, place.left : place.left + width]
        return _mirror(crop) if place.mirrored else crop

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class CenterCrop(_Crop):
    """(H, W, C) -> (*size, C): the middle, rounded towards the top left. A view."""

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        return self._cut(image, *self.places(image.shape, key))

    def _places_in(self, down: int, across: int, key: SampleKey) -> list[Place]:
        return [Place(down // 2, across // 2)]


class RandomCrop(_Crop):
    """(H, W, C) -> (*size, C), at each of the (H - h + 1) (W - w + 1) places with the same probability. A view.

    With `shared_by` n, n consecutive images of an epoch are cut at one place, as in the program of 2012 (n = 32).
    """

    def __init__(self, size: int | Sequence[int], shared_by: int = 1) -> None:
        super().__init__(size)
        self.shared_by = _positive("RandomCrop: shared_by", shared_by)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        return self._cut(image, *self.places(image.shape, key))

    def _places_in(self, down: int, across: int, key: SampleKey) -> list[Place]:
        generator = key.generator(CROP, self.shared_by)
        top, left = (int(generator.integers(0, room + 1)) for room in (down, across))
        return [Place(top, left)]

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}{_shared(self.shared_by)})"


class RandomHorizontalFlip:
    """The image or, with probability p, its mirror image; `shared_by` as in RandomCrop."""

    def __init__(self, p: float = 0.5, shared_by: int = 1) -> None:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"RandomHorizontalFlip: p must be in [0, 1], got {p}")
        self.p, self.shared_by = p, _positive("RandomHorizontalFlip: shared_by", shared_by)

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        return _mirror(image) if self.mirrored(key) else image

    def mirrored(self, key: SampleKey) -> bool:
        """Is this draw's image mirrored?"""
        return bool(key.generator(FLIP, self.shared_by).bernoulli(self.p, 1)[0])

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p}{_shared(self.shared_by)})"


class TenCrop(_Crop):
    """(H, W, C) -> (10, *size, C): the ten views that are averaged at test time.

    Views 0 to 4 are top left, top right, bottom left, bottom right and centre; view 5 + i is the mirror of view i.
    (torchvision gives a tuple, and crops the mirrored image instead: the same ten views, its left and right ones swapped in
    the second half.)
    """

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        return np.stack([self._cut(image, place) for place in self.places(image.shape, key)])

    def _places_in(self, down: int, across: int, key: SampleKey) -> list[Place]:
        views = [Place(top, left) for top in (0, down) for left in (0, across)]
        views.append(Place(down // 2, across // 2))
        return [*views, *(Place(top, left, True) for top, left, _ in views)]


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
        return np.subtract(image, center(self.mean, height, width), dtype=np.float32)

    def __repr__(self) -> str:
        return f"SubtractMean(mean={self.mean.shape})"


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
        self.scale, self.divide = scale, divide

    def __call__(self, image: np.ndarray, key: SampleKey) -> np.ndarray:
        noisy = np.add(image, _row_of(self.color(key), image), dtype=np.float32)
        return np.divide(noisy, np.float32(self.divide), out=noisy)

    def color(self, key: SampleKey) -> np.ndarray:
        """n, (3,) float32."""
        return (self.axes * key.generator(NOISE).normal(3)).sum(axis=1)

    def __repr__(self) -> str:
        return f"PCAColorNoise(scale={self.scale}, divide={self.divide})"


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

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


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

    def add(self, image: np.ndarray) -> None:
        """One (H, W, 3) uint8 image more. ValueError if its size differs from the others'."""
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


def color_statistics(images: Iterable[np.ndarray]) -> ColorStatistics:
    """Mean image and principal components of the RGB pixels, in one pass over (H, W, 3) uint8 images of one size.

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


def _mirror(image: np.ndarray) -> np.ndarray:
    return image.take(np.arange(image.shape[-2] - 1, -1, -1), axis=-2)  # a copy: passes over a reversed view are slow


def _row_of(color: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(C,) -> (W, C), one row of the image in that colour: NumPy then runs over whole rows, not over three numbers."""
    return np.tile(color, (image.shape[-2], 1))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """An int n -> (n, n); (height, width) as it is."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(is_int(side) for side in sides):
        raise TypeError(f"{name}: size must be an int or (height, width), got {size!r}")
    height, width = (_positive(f"{name}: size", int(side)) for side in sides)
    return height, width


def _shared(by: int) -> str:
    return f", shared_by={by}" if by > 1 else ""


def check_rgb_bytes(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{name}: takes (H, W, 3) uint8 images, got {image.shape} {image.dtype}")
