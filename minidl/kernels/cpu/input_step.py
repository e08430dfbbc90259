"""The input step image by image, in the core's cache; the mathematics is in minidl/data/input_step.py.

The plain function gathers pixels by index, three bytes at a time, and then goes over the whole batch once for each operation. A
cast in long runs costs a fifth of a gather, and an image is still in cache when the next operation comes. It does not share the
batch among threads: the loader's workers, which call it, each have a batch already.
"""

from typing import Any

import numpy as np

from minidl import memory, parallel
from minidl.layout import center


def input_step(
    images: np.ndarray,
    tops: np.ndarray,
    lefts: np.ndarray,
    flips: np.ndarray,
    mean: np.ndarray,
    noise: np.ndarray,
    divide: float,
    size: tuple[int, int],
    dtype: Any,
) -> np.ndarray:
    """As the plain function in minidl/data/input_step.py."""
    (height, width), dtype = size, np.dtype(dtype)
    middle = np.broadcast_to(mean, (height, width, 3)) if mean.ndim == 1 else center(mean, height, width)
    middle, color = middle.astype(dtype), np.empty((width, 3), dtype)
    y = memory.empty((len(tops), height, width, 3), dtype)
    views = len(tops) // max(len(images), 1)
    for n, (top, left, mirrored) in enumerate(zip(tops.tolist(), lefts.tolist(), flips.tolist(), strict=True)):
        crop = images[n // views, top : top + height, left : left + width]
        y[n] = _mirrored(crop) if mirrored else crop
        y[n] -= middle
        color[...] = noise[n]  # a row of it: NumPy then runs over whole rows, not over three numbers
        y[n] += color
        if divide != 1.0:
            y[n] /= divide
    return y.transpose(0, 3, 1, 2)


def _mirrored(crop: np.ndarray) -> np.ndarray:
    """In scratch memory, channel by channel: three long loops, where pixels of three bytes would each be a short one."""
    mirrored = parallel.scratch("mirrored", crop.shape, crop.dtype)
    for channel in range(crop.shape[2]):
        mirrored[..., channel] = crop[:, ::-1, channel]
    return mirrored
