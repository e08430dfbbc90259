"""The input step for a batch against the transforms that it stands for, image by image and bit for bit."""

import itertools

import numpy as np
import pytest

from minidl.data.input_step import input_step
from minidl.data.transforms import (
    CROP,
    FLIP,
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    NOISE,
    CenterCrop,
    Compose,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    SampleKey,
    SubtractMean,
)
from minidl.layout import is_channels_last


def keys(number):
    return [SampleKey(seed=3, epoch=2, index=7 * i, position=100 + i) for i in range(number)]


def drawn(keys, room, shared_by, noise):
    """What RandomCrop, RandomHorizontalFlip and PCAColorNoise draw: tops, lefts, flips, colours."""
    places, flips = [], [key.generator(FLIP, shared_by).bernoulli(0.5, 1)[0] for key in keys]
    for key in keys:
        generator = key.generator(CROP, shared_by)
        places.append([int(generator.integers(0, side + 1)) for side in room])
    colors = [(noise.axes * key.generator(NOISE).normal(3)).sum(axis=1) for key in keys]
    return *np.array(places).T, np.array(flips), np.array(colors)


@pytest.mark.parametrize("scale, divide", [(0.1, 1.1), (0.5, 1.0)])
@pytest.mark.parametrize("shared_by", [1, 4])
@pytest.mark.parametrize("stored, size", [((16, 16), 11), ((9, 14), 9), ((13, 10), 7)])
def test_it_is_the_augmentation_of_2012_for_a_batch(rng, stored, size, shared_by, scale, divide):
    images = rng.integers(0, 256, (9, *stored, 3), np.uint8)
    mean = rng.uniform(90, 140, (*stored, 3)).astype("f")
    noise = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, scale, divide)
    steps = [RandomCrop(size, shared_by), RandomHorizontalFlip(shared_by=shared_by), SubtractMean(mean), noise]
    expected = np.stack([Compose(steps)(image, key) for image, key in zip(images, keys(9), strict=True)])
    tops, lefts, flips, colors = drawn(keys(9), [side - size for side in stored], shared_by, noise)
    assert shared_by > 1 or (0 < flips.sum() < 9 and len({*zip(tops, lefts, strict=True)}) > 2)
    y = input_step(images, tops, lefts, flips, mean, colors, divide, (size, size), "f")
    assert y.dtype == np.float32 and y.shape == (9, 3, size, size) and is_channels_last(y)
    np.testing.assert_array_equal(y, expected.transpose(0, 3, 1, 2))


def test_it_is_the_centre_crop_of_testing(rng):
    images, mean = rng.integers(0, 256, (4, 12, 15, 3), np.uint8), rng.uniform(0, 255, (12, 15, 3)).astype("f")
    steps = Compose([CenterCrop(9), SubtractMean(mean)])
    expected = np.stack([steps(image, key) for image, key in zip(images, keys(4), strict=True)])
    tops, lefts = np.full(4, (12 - 9) // 2), np.full(4, (15 - 9) // 2)
    y = input_step(images, tops, lefts, np.zeros(4, bool), mean, np.zeros((4, 3), "f"), 1.0, (9, 9), np.float32)
    np.testing.assert_array_equal(y, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("color", [True, False])
def test_against_a_loop(rng, dtype, color):
    """Crops that are not square, a mean of another size than the images or a colour."""
    images = rng.integers(0, 256, (5, 6, 9, 3), np.uint8)
    tops, lefts, flips = rng.integers(0, 3, 5), rng.integers(0, 4, 5), np.array([True, False, True, True, False])
    mean = rng.uniform(0, 255, 3 if color else (8, 7, 3)).astype(dtype)
    noise = rng.standard_normal((5, 3)).astype(dtype)
    y = input_step(images, tops, lefts, flips, mean, noise, 1.3, (4, 6), dtype)
    assert y.dtype == dtype and y.shape == (5, 3, 4, 6)
    for n, c, i, j in itertools.product(range(5), range(3), range(4), range(6)):
        byte = images[n, tops[n] + i, lefts[n] + (5 - j if flips[n] else j), c]
        middle = mean[c] if color else mean[2 + i, j, c]  # (8 - 4) // 2 rows and (7 - 6) // 2 columns before it
        assert y[n, c, i, j] == (dtype(byte) - middle + noise[n, c]) / dtype(1.3)


def test_no_image(rng):
    none = np.zeros(0, int)
    y = input_step(
        np.zeros((0, 5, 5, 3), np.uint8), none, none, none.astype(bool), np.zeros(3), np.zeros((0, 3)), 1.0, (2, 3), "f"
    )
    assert y.shape == (0, 3, 2, 3)


def test_the_inputs_stay(rng):
    images, mean, noise = rng.integers(0, 256, (2, 5, 5, 3), np.uint8), rng.random((5, 5, 3)), rng.random((2, 3))
    copies = [a.copy() for a in (images, mean, noise)]
    input_step(images, np.zeros(2, int), np.zeros(2, int), np.ones(2, bool), mean, noise, 2.0, (5, 5), "d")
    for array, copy in zip((images, mean, noise), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
