"""minidl.kernels.cuda.input_step against the plain function: every bit, as no product is added to anything."""

import fake_cupy
import numpy as np
import pytest

from minidl.data.input_step import input_step as plain
from minidl.kernels.cuda.input_step import input_step
from minidl.layout import is_channels_last

# images, their height and width, the crop's
SIZES = [
    (1, 1, 1, 1, 1),
    (0, 5, 4, 3, 2),
    (1, 9, 11, 9, 11),
    (7, 9, 11, 5, 8),
    (8, 6, 5, 3, 3),
    (9, 6, 5, 1, 5),
    (17, 13, 7, 11, 2),
    (3, 40, 31, 29, 31),
]
each_size = pytest.mark.parametrize("size", SIZES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def arguments(rng, dtype, n, h, w, oh, ow, mean="image"):
    """Arrays, and the rest."""
    shape = {"image": (h, w, 3), "a larger image": (oh + 5, ow + 2, 3), "a color": (3,)}[mean]
    tops, lefts = rng.integers(0, h - oh + 1, n), rng.integers(0, w - ow + 1, n)
    images, flips = rng.integers(0, 256, (n, h, w, 3), np.uint8), rng.random(n) < 0.5
    colors = rng.uniform(0, 255, shape).astype(dtype), rng.standard_normal((n, 3)).astype(dtype)
    return [images, tops, lefts, flips, *colors], [1.1, (oh, ow), np.dtype(dtype)]


def check(gpu, arrays, rest, on_gpu=None):
    y, expected = input_step(*(on_gpu or map(gpu.put, arrays)), *rest), plain(*arrays, *rest)
    assert is_channels_last(y) and y.dtype == expected.dtype
    np.testing.assert_array_equal(gpu.get(y), expected)


@each_dtype
@each_size
@pytest.mark.parametrize("mean", ["image", "a larger image", "a color"])
def test_it_gives_every_bit(gpu, rng, dtype, size, mean):
    check(gpu, *arguments(rng, dtype, *size, mean=mean))


def test_all_places_and_both_sides(gpu, rng):
    """Each of the 3 x 4 places of a crop, mirrored or not; the first and last byte of the images count."""
    arrays, rest = arguments(rng, "float32", 24, 6, 7, 4, 4)
    tops, lefts, flips = np.meshgrid(np.arange(3), np.arange(4), [False, True])
    arrays[1:4] = (a.reshape(-1) for a in (tops, lefts, flips))
    check(gpu, arrays, rest)


@each_dtype
def test_views_and_other_dtypes(gpu, rng, dtype):
    """Places as int32, flips as bytes, floats of another dtype; views of larger arrays, which stay as they are."""
    arrays, rest = arguments(rng, "float64" if dtype == "float32" else "float32", 10, 9, 8, 5, 4)
    arrays[1], arrays[2], arrays[3] = arrays[1].astype("int32"), arrays[2].astype("uint8"), arrays[3].astype("uint8") * 2
    arrays[0], rest[2] = np.pad(arrays[0], ((0, 0), (1, 0), (0, 1), (0, 0))), np.dtype(dtype)
    there = [gpu.put(a) for a in arrays]
    cut = [np.s_[::2, 1:, :-1], np.s_[::2], np.s_[::2], np.s_[::2], np.s_[1:, ::-1], np.s_[::2]]
    check(gpu, [a[i] for a, i in zip(arrays, cut, strict=True)], rest, [a[i] for a, i in zip(there, cut, strict=True)])
    for array, before in zip(there, arrays, strict=True):
        np.testing.assert_array_equal(gpu.get(array), before)


def test_the_plain_function_on_a_gpu(gpu, rng):
    arrays, rest = arguments(rng, "float32", 5, 9, 8, 5, 4)
    np.testing.assert_array_equal(gpu.get(plain(*map(gpu.put, arrays), *rest)), plain(*arrays, *rest))


def test_one_launch(gpu, rng):
    arrays, rest = arguments(rng, "float32", 5, 9, 8, 5, 4)
    check(gpu, arrays, rest)
    if gpu.device.xp is fake_cupy:
        assert fake_cupy.launches == ["mdl_input_step"]
