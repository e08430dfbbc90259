"""The input step for a batch against the transforms that it stands for, image by image and bit for bit."""

import itertools

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

from minidl import Device, plain_kernels
from minidl.data.input_step import InputStep, input_step
from minidl.data.transforms import (
    CROP,
    FLIP,
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    NOISE,
    CenterCrop,
    Compose,
    Normalize,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    SampleKey,
    SubtractMean,
    TenCrop,
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
    steps = [RandomCrop(size, shared_by=shared_by), RandomHorizontalFlip(shared_by=shared_by), SubtractMean(mean), noise]
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


def test_several_crops_of_each_image(rng):
    images = rng.integers(0, 256, (3, 7, 8, 3), np.uint8)
    tops, lefts, flips = rng.integers(0, 4, 12), rng.integers(0, 4, 12), rng.random(12) < 0.5
    rest = rng.uniform(0, 255, (7, 8, 3)).astype("f"), rng.standard_normal((12, 3)).astype("f"), 1.1, (4, 5), "f"
    y = input_step(images, tops, lefts, flips, *rest)
    repeated = input_step(np.repeat(images, 4, axis=0), tops, lefts, flips, *rest)
    assert y.shape == (12, 3, 4, 5)
    np.testing.assert_array_equal(y, repeated)


# ------------------------------------------------------------------------------------------------------------- InputStep


MEAN = SubtractMean(np.random.default_rng(1).uniform(90, 140, (14, 17, 3)))
NOISE_2012 = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, divide=1.1)
STEPS = {
    "paper": (RandomCrop(9), RandomHorizontalFlip(), MEAN, PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)),
    "original": (RandomCrop(9, shared_by=3), RandomHorizontalFlip(shared_by=3), MEAN, NOISE_2012),
    "crops that are not square": (RandomCrop((8, 11)), RandomHorizontalFlip(0.3), MEAN),
    "always mirrored": (CenterCrop(9), RandomHorizontalFlip(1.0), MEAN),
    "centre": (CenterCrop(8), None, MEAN),
    "ten views": (TenCrop((8, 11)), None, MEAN),
    "ten views, mirrored, with noise": (TenCrop(8), RandomHorizontalFlip(1.0), MEAN, NOISE_2012),
    "no mean": (RandomCrop(9), RandomHorizontalFlip(), None, NOISE_2012),
    "the crop alone": (RandomCrop(9),),
}


def expected_batch(steps, images):
    """What Compose of the steps makes of each image, channels first."""
    pipeline = Compose([step for step in steps if step is not None])
    made = [np.asarray(pipeline(image, key), np.float32) for image, key in zip(images, keys(len(images)), strict=True)]
    return np.moveaxis(np.stack(made), -1, -3)


def drawn_for(step, images):
    return InputStep.join(step.draw(image, key) for image, key in zip(images, keys(len(images)), strict=True))


@pytest.mark.parametrize("mode", ["replacement", "plain"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_compose_for_a_batch(name, mode, rng):
    images, step = rng.integers(0, 256, (7, 14, 17, 3), np.uint8), InputStep(*STEPS[name])
    if mode == "plain":
        with plain_kernels():
            y = step(images, drawn_for(step, images))
    else:
        y = step(images, drawn_for(step, images), "cpu:1")
    expected = expected_batch(STEPS[name], images)
    assert y.dtype == np.float32 and y.shape == expected.shape
    assert np.moveaxis(y, -3, -1).flags.c_contiguous
    assert y.tobytes() == expected.tobytes()  # -0.0 is not 0.0 here


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("name", ["original", "ten views", "the crop alone"])
def test_a_step_on_two_gpus_gives_every_bit(name, gpus, rng, monkeypatch):
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch, gpus)
    images, step = rng.integers(0, 256, (5, 14, 17, 3), np.uint8), InputStep(*STEPS[name])
    drawn, expected = drawn_for(step, images), expected_batch(STEPS[name], images)
    for _ in range(2):
        for device in map(Device, ("cuda:0", "cuda:1")):
            before = fake_cupy.history.count(("h2d", device.stream.name))
            y = step(images, drawn, device)
            np.testing.assert_array_equal(device.to_host(y), expected)
            uploads = fake_cupy.history.count(("h2d", device.stream.name)) - before
            assert uploads == 5 + (not before), "bytes, three draws and colours; the mean is there after the first time"
    assert fake_cupy.launches == ["mdl_input_step"] * 4 and fake_cupy.errors == []


def test_no_step_takes_what_it_cannot_do(rng):
    for arguments, text in [
        (
            (Normalize([0], [1]),),
            r"crop must be RandomCrop or CenterCrop or TenCrop, got Normalize\(mean=\[0.0\], std=\[1.0\]\)",
        ),
        ((None,), "crop must be RandomCrop or CenterCrop or TenCrop, got None"),
        ((CenterCrop(9), MEAN), r"flip must be RandomHorizontalFlip or None, got SubtractMean\(mean=\(14, 17, 3\)\)"),
        ((CenterCrop(9), None, NOISE_2012), r"mean must be SubtractMean or None, got PCAColorNoise\("),
        ((CenterCrop(9), None, None, MEAN), r"noise must be PCAColorNoise or None, got SubtractMean\("),
    ]:
        with pytest.raises(TypeError, match="^InputStep: " + text):
            InputStep(*arguments)


@pytest.mark.parametrize("size", [(15, 2), (2, 18)])
def test_a_crop_must_fit_into_the_mean(size):
    with pytest.raises(
        ValueError, match=rf"InputStep: the crop must fit into the mean image \(14, 17, 3\), got \({size[0]}, {size[1]}\)"
    ):
        InputStep(CenterCrop(size), mean=MEAN)


def test_an_image_must_be_bytes_and_large_enough():
    step = InputStep(RandomCrop(9))
    with pytest.raises(ValueError, match=r"InputStep: takes \(H, W, 3\) uint8 images, got \(9, 9, 3\) float32"):
        step.draw(np.zeros((9, 9, 3), np.float32), keys(1)[0])
    with pytest.raises(ValueError, match="RandomCrop: size must be at most the image's sides 9 x 8, got 9 x 9"):
        step.draw(np.zeros((9, 8, 3), np.uint8), keys(1)[0])


def test_a_step_in_words():
    assert repr(InputStep(*STEPS["original"])) == (
        "InputStep(RandomCrop(size=(9, 9), shared_by=3), RandomHorizontalFlip(p=0.5, shared_by=3), "
        "SubtractMean(mean=(14, 17, 3)), PCAColorNoise(scale=0.1, divide=1.1))"
    )
    assert repr(InputStep(TenCrop(8))) == "InputStep(TenCrop(size=(8, 8)))"
