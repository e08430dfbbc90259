"""The input step: a batch of images, from bytes to what a network takes in. On a GPU it is one kernel.

    y[n,c,i,j] = (image[m, top[n] + i, left[n] + j, c] - mean[i,j,c] + noise[n,c]) / divide

where n is one of the crops that are taken of image m, and a mirrored one has width - 1 - j in place of its j: the crop is
mirrored, the mean is not. That is what the transforms RandomCrop, RandomHorizontalFlip, SubtractMean and PCAColorNoise do to an
image, in this order and with the same roundings; here for all images of a batch at once. Images that go to a device as bytes,
whole at 256 x 256, are a third of the floats that would go there if they were made ready on the host at 224 x 224.

Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, sections 2 and 4.1; the 2012 program's convdata_jpeg.py.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minidl.data.images import check_rgb_bytes
from minidl.data.transforms import (
    CenterCrop,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    SampleKey,
    SubtractMean,
    TenCrop,
)
from minidl.device import Array, Device, array_module
from minidl.kernels import fastest
from minidl.layout import center


def input_step(
    images: Array,
    tops: Array,
    lefts: Array,
    flips: Array,
    mean: Array,
    noise: Array,
    divide: float,
    size: tuple[int, int],
    dtype: Any,
) -> Array:
    """Crop, mirror, subtract the mean, add each crop's colour, divide.

    images      : (M, H, W, 3) uint8
    tops, lefts : (N,) ints, where each crop begins; it must lie in the image, which nothing checks on a GPU. N / M crops are
                  taken of each image, those of one image side by side.
    flips       : (N,) bool, which crops are mirrored
    mean        : (Hm, Wm, 3), whose centre of the crops' size is subtracted, wherever a crop was taken; or (3,), a colour
    noise       : (N, 3), a colour for each crop; zeros for none
    divide      : 1.0 to leave the scale alone
    size        : (height, width) of the crops
    dtype       : in which everything is computed

    -> (N, 3, height, width) of dtype, in channels-last memory.
    """
    xp, (height, width) = array_module(images), size
    rows = tops[:, None] + xp.arange(height)  # (N, height)
    across = xp.where(flips[:, None], xp.arange(width - 1, -1, -1), xp.arange(width))
    columns = lefts[:, None] + across  # (N, width)
    source = xp.arange(len(tops)) // (len(tops) // max(len(images), 1))  # (N,), each crop's image
    y = images[source[:, None, None], rows[:, :, None], columns[:, None, :]].astype(dtype)  # (N, height, width, 3)
    y -= (mean if mean.ndim == 1 else center(mean, height, width)).astype(dtype)
    y += noise.astype(dtype)[:, None, None, :]
    y /= divide
    return y.transpose(0, 3, 1, 2)


class Views(NamedTuple):
    """What was drawn for N crops: (N,) ints, (N,) ints, (N,) bool, (N, 3) float32, as `input_step` takes them."""

    tops: np.ndarray
    lefts: np.ndarray
    flips: np.ndarray
    noise: np.ndarray


class InputStep:
    """The end of a pipeline for a whole batch: crop, mirror, subtract the mean, add colour noise.

        InputStep(RandomCrop(224), RandomHorizontalFlip(), SubtractMean(mean), PCAColorNoise(stdevs, components))

    gives bit for bit what Compose of these gives image by image, several times as fast. It is what ImageLoader takes as
    `batch_transform`. Only the crop is needed: InputStep(TenCrop(224), mean=SubtractMean(mean)) makes the ten test views.

    The draws are apart from the work: `draw` for each image, `join` for a batch, and then the step itself on any device.
    TypeError if a transform is of another kind, ValueError if the crop is larger than the mean image.
    """

    def __init__(
        self,
        crop: RandomCrop | CenterCrop | TenCrop,
        flip: RandomHorizontalFlip | None = None,
        mean: SubtractMean | None = None,
        noise: PCAColorNoise | None = None,
    ) -> None:
        _check_kind("crop", crop, RandomCrop, CenterCrop, TenCrop)
        if isinstance(crop, RandomCrop) and crop.pads:
            raise ValueError(f"InputStep: the crop must be one that does not pad, got {crop}")
        _check_kind("flip", flip, RandomHorizontalFlip, type(None))
        _check_kind("mean", mean, SubtractMean, type(None))
        _check_kind("noise", noise, PCAColorNoise, type(None))
        self.crop, self.flip, self.mean, self.noise = crop, flip, mean, noise
        self._mean = np.zeros(3, np.float32) if mean is None else mean.mean
        if mean is not None and (crop.size[0] > mean.mean.shape[0] or crop.size[1] > mean.mean.shape[1]):
            raise ValueError(f"InputStep: the crop must fit into the mean image {mean.mean.shape}, got {crop.size}")
        self._means: dict[Device, Array] = {}

    def draw(self, image: np.ndarray, key: SampleKey) -> Views:
        """Where one image is cropped, and so on: 1 view, 10 for TenCrop.

        ValueError if the image is smaller than the crop, or not (H, W, 3) uint8.
        """
        check_rgb_bytes("InputStep", image)
        places = self.crop.places(image.shape, key)
        mirror = self.flip is not None and self.flip.mirrored(key)
        color = np.zeros(3, np.float32) if self.noise is None else self.noise.color(key)
        tops, lefts, flips = zip(*places, strict=True)
        return Views(np.array(tops), np.array(lefts), np.array(flips) != mirror, np.tile(color, (len(places), 1)))

    @staticmethod
    def draw_none() -> Views:
        """What is drawn for no image at all."""
        return Views(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool), np.empty((0, 3), np.float32))

    @staticmethod
    def join(views: Iterable[Views]) -> Views:
        """Those of several images, one after the other."""
        return Views(*map(np.concatenate, zip(*views, strict=True)))

    def __call__(self, images: np.ndarray, views: Views, device: Device | str = "cpu:0") -> Array:
        """(M, H, W, 3) uint8 on the host, and what was drawn for them -> (M, 3, h, w) float32, channels-last, on the device.

        TenCrop: (M, 10, 3, h, w). On a GPU the copy and the kernel are only begun.
        """
        device = Device(device)
        with device.active():
            there, *drawn = (device.asarray(array) for array in (images, *views))
            tops, lefts, flips, noise = drawn
            step, divide = fastest(input_step, there), 1.0 if self.noise is None else self.noise.divide
            y = step(there, tops, lefts, flips, self._mean_on(device), noise, divide, self.crop.size, np.dtype("f"))
            return _by_image(y, len(images)) if isinstance(self.crop, TenCrop) else y

    def _mean_on(self, device: Device) -> Array:
        if device not in self._means:
            self._means[device] = device.asarray(self._mean)
        return self._means[device]

    def __repr__(self) -> str:
        steps = (step for step in (self.crop, self.flip, self.mean, self.noise) if step is not None)
        return f"InputStep({', '.join(map(repr, steps))})"


def _by_image(y: Array, images: int) -> Array:
    """(M * V, C, H, W) -> (M, V, C, H, W), both channels-last."""
    _, c, h, w = y.shape
    return y.transpose(0, 2, 3, 1).reshape(images, len(y) // images if images else 10, h, w, c).transpose(0, 1, 4, 2, 3)


def _check_kind(name: str, step: object, *kinds: type) -> None:
    if not isinstance(step, kinds):
        names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise TypeError(f"InputStep: {name} must be {names}, got {step!r}")
