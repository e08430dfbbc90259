"""Images from bytes to a network's input in one launch; the mathematics is in minidl/data/input_step.py."""

from typing import Any

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch

IMAGES = 8  # crops for each thread, as in input_step.cu


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
    """As the plain function in minidl/data/input_step.py."""
    xp = array_module(images)
    number, (_, height, width, _) = len(tops), images.shape
    y = xp.empty((number, *size, 3), dtype)
    places = (xp.ascontiguousarray(a, kind) for a, kind in ((tops, "int64"), (lefts, "int64"), (flips, bool)))
    colors = xp.ascontiguousarray(mean, dtype), xp.ascontiguousarray(noise, dtype)
    arrays = xp.ascontiguousarray(images), *places, *colors, y
    count = -(-number // IMAGES) * size[0] * size[1] * 3
    sizes = number, number // max(len(images), 1), height, width, *size, *_steps(mean.shape, size)
    launch("input_step", "mdl_input_step", count, *arrays, *sizes, float(divide), real=y.dtype)
    return y.transpose(0, 3, 1, 2)


def _steps(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int]:
    """Where the mean that is subtracted begins in a mean of this shape, and how far it is to the next row and column."""
    if len(shape) == 1:
        return 0, 0, 0
    row = shape[1] * 3
    return (shape[0] - size[0]) // 2 * row + (shape[1] - size[1]) // 2 * 3, row, 3
