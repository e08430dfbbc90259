"""Tensors as small pictures for a page, and their distributions.

Colours mean the same in every picture, but in images and filters of three channels, which are shown in RGB:

    dark grey     0
    orange        above 0, the brighter the larger
    blue          below 0, the brighter the farther from 0
    magenta       NaN or infinity
    transparent   nothing: what lies between the maps of a mosaic

Brightness carries the size and hue the sign, by blue against orange, which the colour-blind tell apart as well; and grey is
neither the white of a page nor its black. A picture has one pixel for an element and is meant to be enlarged without smoothing
(in CSS, `image-rendering: pixelated`). It is a PNG with a palette, which keeps it small.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minidl.parallel import slabs

KINDS = ("activation", "gradient", "filters", "image")
LEVELS = 63  # of brightness on each side of 0: more are hard to tell apart, and make files larger
MAPS = 256  # in a mosaic at most
PIXELS = 300_000  # of a mosaic's maps at most
SIDE = 256  # pixels of a map's or a matrix's side at most
_AT_ONCE = 65_536  # elements, so that what passes over them stays in the cache

_TRANSPARENT, _NOT_FINITE, _ZERO = 0, 1, 2 + LEVELS  # places in the palette: blue lies below _ZERO, orange above
_GREY = (46, 46, 50)
_ORANGE = (_GREY, (158, 68, 12), (243, 148, 42), (255, 243, 205))  # from 0 to the end of the range, at even distances
_BLUE = (_GREY, (22, 90, 158), (74, 164, 240), (215, 241, 255))
_MAGENTA = (255, 0, 255)


@dataclass(frozen=True)
class Picture:
    """A picture of an array, or of a part of it.

    src           : a PNG as a data: URI
    width, height : its pixels
    low, high     : the values at the ends of the colours; both 0 where every finite element is 0
    shown, of     : how many maps (filters in RGB, elements of a vector or matrix) are in the picture, and in the array
    caption       : all this in words
    """

    src: str
    width: int
    height: int
    low: float
    high: float
    shown: int
    of: int
    caption: str


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


def picture_of(array: Any, kind: str = "activation") -> Picture:
    """A picture of a host array.

    array : numbers of any shape. The last two axes of three or more are the pixels of maps, (N, C, H, W) and (O, C, KH, KW):
            they become a mosaic. A matrix is a picture as it is, anything else a vector, in rows.
    kind  : "activation" shows the first image only; "gradient" and "filters" every row of the first axis, its maps side by
            side; "filters" of 3 channels in RGB, 0 as mid grey; "image", of 1 or 3 channels, in RGB (uint8 as it is, others
            from the smallest element to the largest).

    Of large arrays a part is shown, which the caption states. ValueError: another kind; TypeError: not an array of numbers.
    """
    if kind not in KINDS:
        raise ValueError(f"picture_of: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    array = _of_numbers("picture_of", array)
    if array.size == 0:
        nothing = np.full((1, 1), _TRANSPARENT, np.uint8)
        return _picture(nothing, (0.0, 0.0), (0, 0), f"no elements: the shape is {array.shape}")
    channels = array.shape[-3] if array.ndim >= 3 else 0
    if (kind == "image" and channels in (1, 3)) or (kind == "filters" and array.ndim == 4 and channels == 3):
        return _in_rgb(array.reshape(-1, *array.shape[-3:]), kind)
    return _in_colours(_part_of(array, kind))


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


# ------------------------------------------------------------------------------------------------- what is in a picture


@dataclass(frozen=True)
class _Part:
    """Maps (n, H, W) that a picture consists of, in rows of `columns` maps, and what they are."""

    maps: np.ndarray
    columns: int
    gap: int  # pixels between maps
    shown: int
    of: int
    what: str


def _part_of(array: np.ndarray, kind: str) -> _Part:
    if array.ndim > 3 and array.shape[-2:] == (1, 1):
        array = array[..., 0, 0]  # a map of one pixel is a number
    if array.ndim > 2 and array.ndim - array.shape.count(1) > 1:
        return _maps(array, kind)
    if array.ndim == 2 and min(array.shape) > 1:
        return _matrix(array)
    return _vector(array.reshape(-1))


def _vector(values: np.ndarray) -> _Part:
    """Elements in rows, as near to a square as can be; the end of the last row may be empty."""
    shown = min(values.size, SIDE * SIDE)
    columns = _columns(shown, 1, 1)
    what = _count(shown, values.size, "element") + _rows(shown, columns)
    return _Part(values[:shown].reshape(-1, 1, 1), columns, 0, shown, values.size, what)


def _matrix(array: np.ndarray) -> _Part:
    rows, columns = array.shape
    part = array[:SIDE, :SIDE]
    what = f"a matrix of {rows:,} x {columns:,}"
    if part.size < array.size:
        what = f"rows 1 to {part.shape[0]:,} and columns 1 to {part.shape[1]:,} of {what}"
    return _Part(part[None], 1, 0, part.size, array.size, what)


def _maps(array: np.ndarray, kind: str) -> _Part:
    """The maps of one image; or a few maps of each row of the first axis, side by side."""
    *leading, height, width = array.shape
    step = -(-max(height, width) // SIDE)
    array = array[..., ::step, ::step]
    h, w = array.shape[-2:]
    most = _most(h, w)
    images = array.reshape(leading[0], -1, h, w) if len(leading) > 1 else array[None]
    if kind == "activation" or len(images) == 1:
        maps = images[0, :most]
        columns = _columns(len(maps), h, w)
    else:
        rows, each = _first_few(images.shape[0], images.shape[1], most)
        maps = images[:rows, :each].reshape(-1, h, w)
        columns = each * _columns(rows, h, each * w)
    of = math.prod(leading)
    what = f"{_count(len(maps), of, 'map')} of {height} x {width}{_every(step)}{_rows(len(maps), columns)}"
    return _Part(maps, columns, 1, len(maps), of, what)


def _most(h: int, w: int) -> int:
    """How many maps of h x w a mosaic may have."""
    return min(MAPS, max(PIXELS // (h * w), 1))


def _first_few(rows: int, columns: int, most: int) -> tuple[int, int]:
    """How many rows and columns of maps to show, at most `most` in all: as square a part as there is."""
    side = int(most**0.5)
    if columns <= side:
        return min(rows, max(most // columns, 1)), columns
    few = min(rows, side)
    return few, min(columns, most // few)


def _columns(n: int, h: int, w: int) -> int:
    """In how many columns n tiles of h x w form about a square; or something wider, if fewer places are empty then."""
    square = (n * h / w) ** 0.5
    narrowest = min(math.ceil(square), n)
    widest = max(narrowest, min(int(1.5 * square), n))
    return min(range(narrowest, widest + 1), key=lambda columns: -n % columns)


# -------------------------------------------------------------------------------------------------------------- drawing


def _in_colours(part: _Part) -> Picture:
    """By the palette, over a range that is symmetric if anything is negative."""
    values = part.maps.astype(np.float64)
    finite = np.isfinite(values)
    largest = float(np.abs(values).max(where=finite, initial=0.0))
    signed = bool((values < 0).any(where=finite))
    places = np.full(values.shape, _NOT_FINITE, np.uint8)
    places[finite] = _ZERO + np.rint(values[finite] / (largest or 1.0) * LEVELS).astype(np.int64)
    mosaic = _mosaic(places[..., None], part.columns, part.gap, _TRANSPARENT)[..., 0]
    low = -largest if signed else 0.0
    caption = part.what + _range_in_words(low, largest, finite) + _not_finite_in_words(finite)
    return _picture(mosaic, (low, largest), (part.shown, part.of), caption)


def _in_rgb(array: np.ndarray, kind: str) -> Picture:
    """(n, 1 or 3, H, W): the first of images, or filters beside each other."""
    n, _, h, w = array.shape
    filters = kind == "filters"
    shown, step = (min(n, _most(h, w)), 1) if filters else (1, -(-max(h, w) // SIDE))
    part = array[:shown, :, ::step, ::step].transpose(0, 2, 3, 1).astype(np.float64)
    finite = np.isfinite(part)
    low, high = (0.0, 255.0) if array.dtype == np.uint8 else _rgb_range(part, finite, filters)
    tiles = np.full((*part.shape[:3], 4), 255, np.uint8)
    tiles[..., :3] = np.rint(_levels(np.where(finite, part, low), low, high))
    tiles[~finite.all(axis=-1), :3] = _MAGENTA
    columns = _columns(shown, *part.shape[1:3])
    what = f"{_count(shown, n, kind.removesuffix('s'))} of {h} x {w}{_every(step)}{_rows(shown, columns)} in RGB"
    caption = what + _rgb_in_words(low, high, filters, finite) + _not_finite_in_words(finite)
    return _picture(_mosaic(tiles, columns, 1, 0), (low, high), (shown, n), caption)


def _rgb_range(part: np.ndarray, finite: np.ndarray, symmetric: bool) -> tuple[float, float]:
    """The values of black and of white."""
    low, high = float(part.min(where=finite, initial=np.inf)), float(part.max(where=finite, initial=-np.inf))
    if low > high:
        return 0.0, 0.0
    largest = max(abs(low), abs(high))
    return (0.0 - largest, largest) if symmetric else (low, high)


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 to 255; halfway where all values are equal."""
    if low == high:
        return np.full(values.shape, 127.5)
    scale = 1.0 if math.isfinite(high - low) else 0.5
    return (values * scale - low * scale) / (high * scale - low * scale) * 255


def _mosaic(tiles: np.ndarray, columns: int, gap: int, between: int) -> np.ndarray:
    """Tiles (n, H, W, channels) in rows of `columns`, `gap` pixels apart: one picture; `between` where no tile is."""
    n, h, w, channels = tiles.shape
    rows = -(-n // columns)
    field = np.full((rows * columns, h + gap, w + gap, channels), between, tiles.dtype)
    field[:n, :h, :w] = tiles
    picture = field.reshape(rows, columns, h + gap, w + gap, channels).swapaxes(1, 2)
    height, width = rows * (h + gap), columns * (w + gap)
    return picture.reshape(height, width, channels)[: height - gap, : width - gap]


def _picture(pixels: np.ndarray, colours: tuple[float, float], counts: tuple[int, int], caption: str) -> Picture:
    """From places in the palette (H, W), or from RGBA (H, W, 4)."""
    from PIL import Image

    image = Image.fromarray(pixels)
    options: dict[str, Any] = {}
    if pixels.ndim == 2:
        image.putpalette(_palette())
        options = {"transparency": _TRANSPARENT}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(source, image.width, image.height, *colours, *counts, caption)


@cache
def _palette() -> list[int]:
    """Red, green and blue of every place: transparent, not finite, then from blue over grey to orange."""
    blue = [_between(_BLUE, level / LEVELS) for level in range(LEVELS, 0, -1)]
    orange = [_between(_ORANGE, level / LEVELS) for level in range(LEVELS + 1)]
    return [part for colour in ((0, 0, 0), _MAGENTA, *blue, *orange) for part in colour]


def _between(stops: Sequence[tuple[int, int, int]], position: float) -> tuple[int, ...]:
    """The colour at a position from 0 to 1 along the stops."""
    places = np.linspace(0, 1, len(stops))
    return tuple(round(float(np.interp(position, places, part))) for part in zip(*stops, strict=True))


# ------------------------------------------------------------------------------------------------------------- captions


def _count(shown: int, of: int, noun: str) -> str:
    """ "3 of 12 maps", "12 maps" or "1 map"."""
    plural = "s" if of > 1 else ""
    return f"{shown:,} of {of:,} {noun}{plural}" if shown < of else f"{of:,} {noun}{plural}"


def _rows(shown: int, columns: int) -> str:
    return f" in rows of {columns}" if shown > columns else ""


def _every(step: int) -> str:
    return f", one of {step} x {step} pixels" if step > 1 else ""


def _range_in_words(low: float, high: float, finite: np.ndarray) -> str:
    if not finite.any():
        return ""
    if high == 0:
        return "; 0 (grey) everywhere"
    start = f"{low:.3g} (blue) over 0 (grey)" if low else "0 (grey)"
    return f"; colours from {start} to {high:.3g} (orange)"


def _rgb_in_words(low: float, high: float, symmetric: bool, finite: np.ndarray) -> str:
    if not finite.any():
        return ""
    if low == high:
        return f"; {low:.3g} (grey) everywhere"
    return f"; colours from {low:.3g} (black){' over 0 (grey)' if symmetric else ''} to {high:.3g} (white)"


def _not_finite_in_words(finite: np.ndarray) -> str:
    count = finite.size - int(np.count_nonzero(finite))
    return f"; {count:,} not finite (magenta)" if count else ""
