"""Transforms: what happens to an image between the file and the network.

An image is an array, a picture of Pillow's or a Tensor (minidl/data/images.py), and comes back as what it was unless a
transform says otherwise.

A data set calls `transform(image)`, as torchvision's do, and random transforms draw from minidl's default generator
(`manual_seed`). ImageLoader calls `transform(image, key)`, and the key says which draw this is: seed, epoch, index of the image
in the data set, position in the epoch's order. Random transforms then draw from a generator made from the key alone. So the
augmentation of an image never depends on which worker made it, on what was drawn before, or on whether the run was resumed.

Names and arguments are torchvision's, of `transforms` and of `transforms.v2`. The training pipeline of the paper is

    Compose([Resize(256), CenterCrop(256), RandomCrop(224), RandomHorizontalFlip(),
             SubtractMean(mean), PCAColorNoise(stdevs, components)])

What is drawn can be asked for apart from the work (`places`, `mirrored`, `color`): InputStep does the work of the last four for
a whole batch. Caffe subtracts the mean that lies under the crop, and mirrors it with the image: that is SubtractMean(mean)
before RandomCrop.

Source: the documentation of torchvision.transforms; Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep
convolutional neural networks", 2012, sections 2 and 4.1; where the paper is silent, the program that produced its figures
(computerhistory/AlexNet-Source-Code, convdata_jpeg.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minidl import random
from minidl.create import as_tensor
from minidl.data.images import Image, by_pillow, check_for_pillow, chw, hwc, is_picture, mirror, pad, sides_of
from minidl.layout import center
from minidl.random import Generator
from minidl.shapes import is_int
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ORDER, CROP, FLIP, NOISE, JITTER = 1, 2, 3, 4, 5  # what a draw is for; distinct, so that crop and flip are independent

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
"""What ImageLoader takes. Those here can be called without a key too."""


class InterpolationMode(Enum):
    """How pixels between pixels are made; Pillow's filters of these names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Place(NamedTuple):
    """Where a crop is taken: its first row and column, and whether it is mirrored then."""

    top: int
    left: int
    mirrored: bool = False


class Compose:
    """One transform after the other. Without a key any function of one argument is a transform too."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any, key: SampleKey | None = None) -> Any:
        for transform in self.transforms:
            image = transform(image) if key is None else transform(image, key)
        return image

    def __repr__(self) -> str:
        return "\n".join(["Compose(", *(f"    {transform!r}" for transform in self.transforms), ")"])


class Lambda:
    """A function of the image as a transform. TypeError if it cannot be called."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Lambda: lambd must be a function, got {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any, key: SampleKey | None = None) -> Any:
        return self.lambd(image)

    def __repr__(self) -> str:
        return "Lambda()"


# -------------------------------------------------------------------------------------------------------------- tensors


class ToTensor:
    """A picture of Pillow's or an array (H, W, C) or (H, W) -> a Tensor (C, H, W), uint8 as float32 in [0, 1].

    What is not uint8 keeps its numbers: arrays keep their dtype, Pillow's modes F and I become float32 and int32. Mode 1
    becomes 0.0 and 1.0; I;16 becomes int32, where torchvision's int16 has no room for half of its values. TypeError for
    anything else, also for a Tensor; ValueError for an array of other dimensions.
    """

    def __call__(self, pic: Any, key: SampleKey | None = None) -> Tensor:
        array = hwc("ToTensor", pic)
        if array.dtype == bool and is_picture(pic):
            return as_tensor(chw(array, np.float32))
        if array.dtype != np.uint8:
            return as_tensor(chw(array, array.dtype))
        scaled = np.empty((array.shape[2], *array.shape[:2]), np.float32)
        return as_tensor(np.divide(array.transpose(2, 0, 1), np.float32(255), out=scaled))

    def __repr__(self) -> str:
        return "ToTensor()"


class ToImage:
    """A picture of Pillow's or an array (H, W, C) or (H, W) -> a Tensor (C, H, W) of the same numbers; a Tensor as it is.

    `ToDtype(float32, scale=True)` after it makes what ToTensor makes. Errors as ToTensor's.
    """

    def __call__(self, pic: Any, key: SampleKey | None = None) -> Tensor:
        if isinstance(pic, Tensor):
            return pic
        array = hwc(type(self).__name__, pic)
        return as_tensor(chw(array, array.dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class PILToTensor(ToImage):
    """ToImage by its older name."""


class ToDtype:
    """A Tensor -> one of another dtype. With `scale`, each dtype's whole range becomes the other's.

    The range is [0, 1] for floats, [0, largest number] for integers. From an integer to a float: x / largest. From a float to
    an integer: x * (largest + 0.999), rounded down, so that each integer gets an equal share of [0, 1]. From one integer to
    another: bits are shifted. RuntimeError, with `scale`, for an integer with more digits than the float has. TypeError for
    what is no Tensor.
    """

    def __init__(self, dtype: Any, scale: bool = False) -> None:
        self.dtype, self.scale = np.dtype(dtype), scale

    def __call__(self, image: Tensor, key: SampleKey | None = None) -> Tensor:
        if not isinstance(image, Tensor):
            raise TypeError(f"ToDtype: takes a Tensor, got {type(image).__name__}; ToImage makes one")
        old, new = np.dtype(image.dtype), self.dtype
        if old == new or not self.scale or old.kind == new.kind == "f":
            return image.to(new)
        if old.kind == "f":
            if new.itemsize >= 4 and new.itemsize >= old.itemsize:
                raise RuntimeError(f"ToDtype: {old} cannot hold all of {new}'s numbers, so it cannot be scaled to it")
            wide = image.to(np.float32) if old.itemsize == 2 else image  # float16 has no 255.999
            return (wide * (_largest(new) + 1.0 - 1e-3)).to(new)
        if new.kind == "f":
            return image.to(new) * (1.0 / _largest(old))
        bits = _largest(new).bit_length() - _largest(old).bit_length()
        return image.to(new) * 2**bits if bits > 0 else (image // 2**-bits).to(new)

    def __repr__(self) -> str:
        return f"ToDtype({self.dtype}, scale={self.scale})"


class ConvertImageDtype(ToDtype):
    """ToDtype(dtype, scale=True) by its older name."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(dtype, scale=True)


def _largest(dtype: np.dtype) -> int:
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


# ------------------------------------------------------------------------------------------------------ sizes and places


class Resize:
    """Another size. Takes pictures of Pillow's, arrays (H, W, 3) uint8, and Tensors (1 or 3, H, W) uint8.

    size n: the shorter side becomes n, the longer side keeps the ratio, rounded down. size (h, w): the sides become h and w.
    An image that has the size already is returned as it is.

    interpolation : an InterpolationMode, its name, or Pillow's number of it; None is bilinear, as in torchvision, but bicubic
                    for an array whose shorter side grows, as for read_image
    antialias     : Pillow's filters are as wide as the step, so that every source pixel counts; False is refused for Tensors

    Tensors go through Pillow; torchvision's own resizing of uint8 may differ by one level.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: InterpolationMode | str | int | None = None,
        *,
        antialias: bool | None = True,
    ) -> None:
        self.size = _size("Resize", size)
        self.keeps_ratio = is_int(size)
        self.interpolation = None if interpolation is None else _interpolation("Resize", interpolation)
        self.antialias = antialias

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        if self.new_size(*sides_of(image)) == sides_of(image):
            check_for_pillow("Resize", image, self.antialias)
            return image
        bicubic = isinstance(image, np.ndarray)
        return by_pillow("Resize", image, lambda picture: self.of_picture(picture, bicubic=bicubic), self.antialias)

    def of_picture(
        self, picture: "Picture", part: tuple[int, int, int, int] | None = None, *, bicubic: bool = True
    ) -> "Picture":
        """The same for a Pillow picture; with `part`, only those pixels (left, top, right, bottom) of the new picture.
        `bicubic`: where the shorter side grows and no interpolation was asked for.

        Of a picture that shrinks no other pixel is made. Pillow keeps the part's corners, in pixels of the old picture, in
        float32, which moves its weights by some 1e-7: a sum next to the middle between two levels may go to the other one.
        """
        old, new = (picture.height, picture.width), self.new_size(picture.height, picture.width)
        mode = InterpolationMode.BICUBIC if bicubic and min(old) < min(new) else InterpolationMode.BILINEAR
        resample = _resample(self.interpolation or mode)
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
        interpolation = f", interpolation={self.interpolation.value}" if self.interpolation else ""
        return f"Resize(size={self.size[0] if self.keeps_ratio else self.size}{interpolation})"


class RandomResizedCrop:
    """A part of random area and shape, at a random place, resized to `size`. Takes what Resize takes.

    The part's area is uniform in `scale` times the image's, the logarithm of its width : height is uniform between the
    logarithms of `ratio`, its place is uniform among those where it fits. If none of ten draws fits into the image, the part is
    in the middle, as large as `ratio` allows.

    interpolation, antialias : as for Resize; bilinear

    Source: torchvision.transforms.RandomResizedCrop; C. Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: InterpolationMode | str | int = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        self.size = _size("RandomResizedCrop", size)
        for name, (low, high) in (("scale", scale), ("ratio", ratio)):
            if not 0 < low <= high:
                raise ValueError(f"RandomResizedCrop: {name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.interpolation, self.antialias = _interpolation("RandomResizedCrop", interpolation), antialias

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        top, left, height, width = self.part(*sides_of(image), key)
        new = self.size[::-1]

        def work(picture: "Picture") -> "Picture":
            crop = picture.crop((left, top, left + width, top + height))
            return crop if crop.size == new else crop.resize(new, _resample(self.interpolation))

        return by_pillow("RandomResizedCrop", image, work, self.antialias)

    def part(self, height: int, width: int, key: SampleKey | None = None) -> tuple[int, int, int, int]:
        """(top, left, height, width) of this draw's part of an image of this size."""
        generator = _generator(key, CROP)
        low, high = (math.log(ratio) for ratio in self.ratio)
        for _ in range(10):
            u, v = generator.uniform(2, np.float64).tolist()
            area = height * width * (self.scale[0] + u * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + v * (high - low))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                top, left = (int(generator.integers(0, room + 1)) for room in (height - h, width - w))
                return top, left, h, w
        h = min(height, round(width / self.ratio[0]))
        w = min(width, round(height * self.ratio[1]))
        return (height - h) // 2, (width - w) // 2, h, w

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(x, 4) for x in pair) for pair in (self.scale, self.ratio))
        return f"RandomResizedCrop(size={self.size}, scale={scale}, ratio={ratio}, interpolation={self.interpolation.value})"


class _Crop:
    """Crops of `size` (height, width), an int n being (n, n). `places` says where."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _size(type(self).__name__, size)

    def places(self, shape: Sequence[int], key: SampleKey | None = None) -> list[Place]:
        """The places in an image of this shape (H, W, ...). ValueError if it is smaller than the crop."""
        room = shape[0] - self.size[0], shape[1] - self.size[1]
        if min(room) < 0:
            name, (height, width) = type(self).__name__, self.size
            raise ValueError(f"{name}: size must be at most the image's sides {shape[0]} x {shape[1]}, got {height} x {width}")
        return self._places_in(*room, key)

    def _places_in(self, down: int, across: int, key: SampleKey | None) -> list[Place]:
        """Of places whose top is in 0 ... down and left in 0 ... across, those that are taken."""
        raise NotImplementedError

    def _cut(self, image: Image, place: Place) -> Image:
        (height, width), (top, left, mirrored) = self.size, place
        crop: Any
        if is_picture(image):
            crop = image.crop((left, top, left + width, top + height))
        elif isinstance(image, Tensor):
            crop = image[..., top : top + height, left : left + width]
        else:
            crop = image[top : top + height, left : left + width]  # type: ignore[index]
        return mirror(crop) if mirrored else crop

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class CenterCrop(_Crop):
    """The middle, rounded towards the top left; of an array or a Tensor a view.

    torchvision rounds to the even one of two places equally near, and pads an image that is smaller, which here is a
    ValueError.
    """

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        return self._cut(image, *self.places(sides_of(image), key))

    def _places_in(self, down: int, across: int, key: SampleKey | None) -> list[Place]:
        return [Place(down // 2, across // 2)]


class RandomCrop(_Crop):
    """At each of the (H - h + 1) (W - w + 1) places with the same probability. Of an array or a Tensor a view.

    padding       : pixels that are added first, on all sides; (left and right, top and bottom); or (left, top, right, bottom)
    pad_if_needed : an image that is still smaller than the crop is padded on both sides by what it lacks
    fill          : the value of what is added, or one for each channel
    padding_mode  : "constant", which is `fill`; "edge", "reflect", "symmetric": from the image, as by numpy.pad
    shared_by     : with a key, n consecutive images of an epoch are cut at one place, as in the program of 2012 (n = 32)

    ValueError for an image that is smaller than the crop.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float | Sequence[float] = 0,
        padding_mode: str = "constant",
        *,
        shared_by: int = 1,
    ) -> None:
        super().__init__(size)
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError(f"RandomCrop: padding_mode must be constant, edge, reflect or symmetric, got {padding_mode!r}")
        self.padding, self.pad_if_needed = _padding(padding), pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode
        self.shared_by = _positive("RandomCrop: shared_by", shared_by)

    @property
    def pads(self) -> bool:
        """May the image be padded?"""
        return self.pad_if_needed or any(self.padding)

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        if self.pads:
            image = self._padded(image)
        return self._cut(image, *self.places(sides_of(image), key))

    def _padded(self, image: Image) -> Image:
        left, top, right, bottom = self.padding
        height, width = sides_of(image)
        if self.pad_if_needed:
            down, across = self.size[0] - (height + top + bottom), self.size[1] - (width + left + right)
            top, bottom = top + max(down, 0), bottom + max(down, 0)
            left, right = left + max(across, 0), right + max(across, 0)
        return pad(image, ((top, bottom), (left, right)), self.fill, self.padding_mode)

    def _places_in(self, down: int, across: int, key: SampleKey | None) -> list[Place]:
        generator = _generator(key, CROP, self.shared_by)
        top, left = (int(generator.integers(0, room + 1)) for room in (down, across))
        return [Place(top, left)]

    def __repr__(self) -> str:
        padding = f", padding={self.padding}" if any(self.padding) else ""
        needed = ", pad_if_needed=True" if self.pad_if_needed else ""
        return f"RandomCrop(size={self.size}{padding}{needed}{_shared(self.shared_by)})"


class RandomHorizontalFlip:
    """The image or, with probability p, its mirror image; `shared_by` as in RandomCrop."""

    def __init__(self, p: float = 0.5, *, shared_by: int = 1) -> None:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"RandomHorizontalFlip: p must be in [0, 1], got {p}")
        self.p, self.shared_by = p, _positive("RandomHorizontalFlip: shared_by", shared_by)

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        return mirror(image) if self.mirrored(key) else image

    def mirrored(self, key: SampleKey | None = None) -> bool:
        """Is this draw's image mirrored?"""
        return bool(_generator(key, FLIP, self.shared_by).bernoulli(self.p, 1)[0])

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p}{_shared(self.shared_by)})"


class TenCrop(_Crop):
    """The ten views that are averaged at test time: of an array (H, W, C) -> (10, *size, C), of others a tuple.

    Views 0 to 4 are top left, top right, bottom left, bottom right and centre; view 5 + i of an array is the mirror of view i.
    In a tuple, as in torchvision's, views 5 to 9 are those places of the mirrored image: left and right are swapped.
    """

    def __call__(self, image: Any, key: SampleKey | None = None) -> Any:
        views = [self._cut(image, place) for place in self.places(sides_of(image), key)]
        return np.stack(views) if isinstance(image, np.ndarray) else tuple(views[i] for i in (0, 1, 2, 3, 4, 6, 5, 8, 7, 9))

    def _places_in(self, down: int, across: int, key: SampleKey | None) -> list[Place]:
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

    def __call__(self, image: np.ndarray, key: SampleKey | None = None) -> np.ndarray:
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

    def __call__(self, image: np.ndarray, key: SampleKey | None = None) -> np.ndarray:
        noisy = np.add(image, _row_of(self.color(key), image), dtype=np.float32)
        return np.divide(noisy, np.float32(self.divide), out=noisy)

    def color(self, key: SampleKey | None = None) -> np.ndarray:
        """n, (3,) float32."""
        return (self.axes * _generator(key, NOISE).normal(3)).sum(axis=1)

    def __repr__(self) -> str:
        return f"PCAColorNoise(scale={self.scale}, divide={self.divide})"


class ColorJitter:
    """Brightness, contrast, saturation and hue by random factors, in random order. Takes pictures of mode L and RGB, arrays
    (H, W, 3) uint8 and Tensors (1 or 3, H, W) uint8.

    brightness, contrast, saturation : a factor uniform in [max(0, 1 - x), 1 + x], or in (low, high); 1 leaves the image as it
                                       is
    hue : a turn of the colour circle uniform in [-x, x], or in (low, high); at most 0.5, which is half of it

    What the factors do is Pillow's: ImageEnhance for the first three; the hue is the first channel of mode HSV, in 256 steps. A
    grey image has no saturation and no hue to change. ValueError for other ranges.

    Source: torchvision.transforms.ColorJitter.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] | None = 0,
        contrast: float | Sequence[float] | None = 0,
        saturation: float | Sequence[float] | None = 0,
        hue: float | Sequence[float] | None = 0,
    ) -> None:
        self.brightness = _range("brightness", brightness, 1.0, (0.0, math.inf))
        self.contrast = _range("contrast", contrast, 1.0, (0.0, math.inf))
        self.saturation = _range("saturation", saturation, 1.0, (0.0, math.inf))
        self.hue = _range("hue", hue, 0.0, (-0.5, 0.5))

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        factors = self.factors(key)
        if not factors and not is_picture(image):
            check_for_pillow("ColorJitter", image)
            return image

        def work(picture: "Picture") -> "Picture":
            if picture.mode not in ("L", "RGB"):
                raise TypeError(f"ColorJitter: takes pictures of mode L and RGB, got {picture.mode}")
            for name, factor in factors:
                picture = _recolored(picture, name, factor)
            return picture

        return by_pillow("ColorJitter", image, work)

    def factors(self, key: SampleKey | None = None) -> list[tuple[str, float]]:
        """This draw's (what, factor), in the order in which they are applied; what no range was given for is left out."""
        generator = _generator(key, JITTER)
        names = ("brightness", "contrast", "saturation", "hue")
        order, uniform = generator.permutation(4).tolist(), generator.uniform(4, np.float64).tolist()
        ranges = [(names[i], uniform[i], getattr(self, names[i])) for i in order]
        return [(name, span[0] + u * (span[1] - span[0])) for name, u, span in ranges if span is not None]

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, hue={self.hue})"
        )


class Normalize:
    """(image - mean[c]) / std[c].

    An array (..., C), with both in its units, 0 to 255 for bytes -> float32. A Tensor (..., C, H, W) of floats -> one of its
    dtype; with `inplace` itself.

    torchvision's figures are for the scale 0 to 1, as ToTensor makes it; times 255 they do the same for bytes. ValueError for a
    std that is not above 0, TypeError for a Tensor of integers and for pictures.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = np.asarray(mean, np.float64), np.asarray(std, np.float64), inplace
        if not (self.std > 0.0).all():
            raise ValueError(f"Normalize: std must be above 0 in every channel, got {list(std)}")
        self._row = self.mean.astype(np.float32), self.std.astype(np.float32)
        self._columns: dict[Any, tuple[Tensor, Tensor]] = {}  # for Tensors, by dtype and device

    def __call__(self, image: Image, key: SampleKey | None = None) -> Image:
        if isinstance(image, Tensor):
            return self._of_tensor(image)  # type: ignore[return-value]
        if not isinstance(image, np.ndarray):
            raise TypeError(f"Normalize: takes a Tensor, which ToTensor makes, or an array, got {type(image).__name__}")
        mean, std = self._row
        centered = np.subtract(image, _row_of(mean, image), dtype=np.float32)
        return np.divide(centered, _row_of(std, image), out=centered)

    def _of_tensor(self, image: Tensor) -> Tensor:
        dtype = np.dtype(image.dtype)
        if dtype.kind != "f":
            raise TypeError(f"Normalize: takes a Tensor of floats, got {dtype}; ToDtype(float32, scale=True) makes one")
        if image.ndim < 3:
            raise ValueError(f"Normalize: takes a Tensor (..., C, H, W), got {tuple(image.shape)}")
        if (dtype, image.device) not in self._columns:
            mean, std = (as_tensor(x.astype(dtype)[..., None, None], device=image.device) for x in (self.mean, self.std))
            self._columns[dtype, image.device] = mean, std
        mean, std = self._columns[dtype, image.device]
        return image.sub_(mean).div_(std) if self.inplace else (image - mean) / std

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


# ---------------------------------------------------------------------------------------------------------------- parts


def _generator(key: SampleKey | None, purpose: int, shared_by: int = 1) -> Generator:
    return random.default_generator if key is None else key.generator(purpose, shared_by)


def _recolored(picture: "Picture", name: str, factor: float) -> "Picture":
    from PIL import Image as Pillow
    from PIL import ImageEnhance

    if name == "hue":
        if picture.mode == "L":
            return picture
        hue, saturation, value = picture.convert("HSV").split()
        turned = np.asarray(hue) + np.int32(factor * 255).astype(np.uint8)  # the circle is 256 steps: what is over begins anew
        return Pillow.merge("HSV", (Pillow.fromarray(turned), saturation, value)).convert(picture.mode)
    enhance = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
    return enhance[name](picture).enhance(factor)


def _range(name: str, x: Any, middle: float, bounds: tuple[float, float]) -> tuple[float, float] | None:
    """(low, high) of a factor; None where it changes nothing."""
    if isinstance(x, (int, float)):
        if not 0 <= x <= bounds[1]:
            raise ValueError(f"ColorJitter: {name} must be in [0, {bounds[1]}], got {x}")
        x = max(middle - x, bounds[0]), middle + x
    if x is None or tuple(x) == (middle, middle):
        return None
    if len(x) != 2 or not bounds[0] <= x[0] <= x[1] <= bounds[1]:
        raise ValueError(f"ColorJitter: {name} must be (low, high) in [{bounds[0]}, {bounds[1]}], got {x}")
    return float(x[0]), float(x[1])


def _interpolation(name: str, mode: InterpolationMode | str | int) -> InterpolationMode:
    names = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]  # by Pillow's numbers
    try:
        return InterpolationMode(names[mode] if isinstance(mode, int) else mode)
    except (ValueError, IndexError):
        raise ValueError(f"{name}: interpolation must be one of {', '.join(names)}, or 0 to 5, got {mode!r}") from None


def _resample(mode: InterpolationMode) -> Any:
    from PIL import Image as Pillow

    return Pillow.Resampling[mode.name]


def _padding(padding: int | Sequence[int] | None) -> tuple[int, int, int, int]:
    """(left, top, right, bottom)."""
    match padding:
        case None:
            return 0, 0, 0, 0
        case int(n):
            sides = (n, n, n, n)
        case [across, down]:
            sides = (across, down, across, down)
        case [left, top, right, bottom]:
            sides = (left, top, right, bottom)
        case _:
            raise ValueError(f"RandomCrop: padding must be an int, or 2 or 4 of them, got {padding!r}")
    if min(sides) < 0:
        raise ValueError(f"RandomCrop: padding must be at least 0, got {padding!r}")
    return sides


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
