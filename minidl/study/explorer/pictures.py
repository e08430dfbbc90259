"""What is said of an array beside its numbers: how they are spread, and where its colours end. And the image as a picture.

The pictures of arrays are drawn by the page itself, from the numbers: minidl/study/explorer/page/picture.js.
"""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.parallel import slabs

SHARE = 0.99  # of the numbers that are not 0 are within the colours
_AT_ONCE = 65_536  # elements, so that what passes over them stays in the cache
_SAMPLE = 1 << 20  # elements at most from which the end of the colours is found


@dataclass(frozen=True)
class Distribution:
    """How an array's elements are spread. All but the last three are of the finite elements, and 0 where there are none.

    counts         : of elements in equal bins from low to high, both included
    low, high      : the smallest and the largest element
    mean, std      : the mean, and the standard deviation from it, in float64
    zeros          : elements that are 0
    nonfinite      : elements that are NaN or infinite
    size           : all elements
    """

    counts: list[int]
    low: float
    high: float
    mean: float
    std: float
    zeros: int
    nonfinite: int
    size: int


def picture(pixels: np.ndarray) -> dict[str, Any]:
    """An image (H, W, 3) of uint8 as a PNG: {"src": a data: URI, "width", "height"}."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": source, "width": pixels.shape[1], "height": pixels.shape[0]}


def limit(array: Any) -> float:
    """The end of an array's colours: SHARE of the finite numbers that are not 0 are no farther from 0. 0 where there are none.

    Gradients have a few numbers that are far larger than all others: colours up to the largest would leave the rest black.
    Of a large array every k-th number is looked at. TypeError: not an array of numbers.
    """
    flat = _of_numbers("limit", array).reshape(-1)
    sizes = np.abs(flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.quantile(sizes, SHARE, method="inverted_cdf")) if sizes.size else 0.0


def distribution(array: Any, bins: int = 32) -> Distribution:
    """The distribution of a host array. ValueError: bins below 1; TypeError: not an array of numbers."""
    if bins < 1:
        raise ValueError(f"distribution: bins must be at least 1, got {bins}")
    array = _of_numbers("distribution", array)
    flat = array.ravel(order="K")
    is_finite = np.isfinite(flat)
    finite = flat if is_finite.all() else flat[is_finite]
    zeros, nonfinite = int(flat.size - np.count_nonzero(flat)), flat.size - finite.size
    if not finite.size:
        return Distribution([0] * bins, 0.0, 0.0, 0.0, 0.0, zeros, nonfinite, flat.size)
    low, high = float(finite.min()), float(finite.max())
    scale = 1.0 if max(-low, high) < 2.0**500 else 2.0**-600  # squares shall not overflow
    parts = list(slabs(0, finite.size, _AT_ONCE))
    mean = math.fsum(float((finite[some].astype(np.float64) * scale).sum()) for some in parts) / finite.size
    squares, counts = 0.0, np.zeros(bins, np.int64)
    for some in parts:
        values = finite[some].astype(np.float64) * scale
        counts += _histogram(values, low * scale, high * scale, bins)
        values -= mean
        squares += float(values @ values)
    std = math.sqrt(squares / finite.size)
    return Distribution(counts.tolist(), low, high, mean / scale, std / scale, zeros, nonfinite, flat.size)


def _of_numbers(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: the array must be of real numbers, got {array.dtype}")
    return array


def _histogram(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """How many values lie in each bin; in the middle one if all are equal. (np.histogram refuses too narrow a range.)"""
    if low == high:
        return np.bincount([bins // 2], [values.size], bins).astype(np.int64)
    places = np.minimum((values - low) / (high - low) * bins, bins - 1)
    return np.bincount(places.astype(np.int64), minlength=bins)
