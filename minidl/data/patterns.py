"""Patterns: a data set that is drawn, not downloaded.

Ten classes: five shapes (disc, square, triangle, ring, cross), each filled with one of two textures (stripes, checker). Place,
size, rotation and all colours are drawn independently of the class, so a network has to see both outline and texture; the
mean colour of an image says next to nothing. The background is a smooth gradient, with noise over everything.

An image is a pure function of (seed, train or test, index): nothing is stored, any image can be drawn in any order, in any
thread. It is also the same to the byte on every machine, since only operations that IEEE 754 defines exactly are used
(+ - * / sqrt, comparisons, floor): a rotation is a rational point of the circle, cos = (1 - t^2) / (1 + t^2) and
sin = 2t / (1 + t^2).
"""

from collections.abc import Callable

import numpy as np

from minidl.data.dataset import Dataset
from minidl.random import Generator

_STREAM = 0x7061747465726E73  # the letters "patterns": keeps these draws apart from every other use of the same seed
_SMALLEST = 32  # pixels; below that a stripe is no longer told from a checker
_NOISE = 10.0  # the noise is uniform in [-10, 10) of 255 levels


def _disc(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    return r - np.sqrt(u * u + v * v)


def _square(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    return r * 0.7071 - np.maximum(np.abs(u), np.abs(v))  # corners at distance r


def _triangle(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    return r * 0.5 - np.maximum(v, np.abs(u) * 0.8660 - v * 0.5)  # equilateral, corners at distance r


def _ring(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    return r * 0.25 - np.abs(np.sqrt(u * u + v * v) - r * 0.75)  # between r / 2 and r


def _cross(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    long, narrow = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.minimum(r * 0.95 - long, r * 0.3 - narrow)  # two bars, 1.9 r by 0.6 r; corners at distance 0.996 r


def _striped(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return _bars(u, period)


def _checkered(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    a, b = _bars(u, period), _bars(v, period)
    return a + b - 2.0 * a * b  # exclusive or


SHAPES: dict[str, Callable[..., np.ndarray]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
}
TEXTURES: dict[str, Callable[..., np.ndarray]] = {"striped": _striped, "checkered": _checkered}


class Patterns(Dataset[tuple[np.ndarray, int]]):
    """Drawn images of ten classes; `dataset[i]` is (image, label) with label i % 10.

    length     : number of images, at least 0
    train      : the training images or the held-out ones; they share none
    seed       : another seed, other images
    image_size : height and width in pixels, at least 32

    image is (image_size, image_size, 3) uint8 RGB, label an int. The shape lies wholly inside every crop that takes 7/8 of
    each side (224 of 256). ValueError for bad arguments, IndexError for an index outside [0, length).
    """

    classes = [f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES]  # noqa: RUF012
    class_to_idx = {name: label for label, name in enumerate(classes)}  # noqa: RUF012

    def __init__(self, length: int = 6000, train: bool = True, seed: int = 0, image_size: int = 256) -> None:
        if length < 0:
            raise ValueError(f"Patterns: length must be at least 0, got {length}")
        if image_size < _SMALLEST:
            raise ValueError(f"Patterns: image_size must be at least {_SMALLEST}, got {image_size}")
        Generator(seed)  # refuses a seed that is out of range here rather than at the first image
        self.length, self.train, self.seed, self.image_size = length, train, seed, image_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < self.length:
            raise IndexError(f"Patterns: index must be in [0, {self.length}), got {index}")
        label = int(index) % len(self.classes)
        generator = Generator(self.seed, _STREAM, int(self.train), index)
        return _draw(label, self.image_size, generator), label

    @property
    def targets(self) -> list[int]:
        """Every label, in order; balanced to within one image a class."""
        return [i % len(self.classes) for i in range(self.length)]


def _draw(label: int, size: int, generator: Generator) -> np.ndarray:
    shape, texture = divmod(label, len(TEXTURES))
    x0, y0, radius = _place(size, generator)
    columns, rows = _span(x0, radius), _span(y0, radius)
    inside = _cover(list(SHAPES)[shape], columns, rows, (x0, y0, radius), generator)
    weave = _weave(list(TEXTURES)[texture], columns, rows, size, generator)
    corners = generator.integers(48, 208, (3, 4)).tolist()
    colors = _contrasting_colors(generator)
    noise = generator.words(size * size * 3 // 4 + 1).view(np.uint8)[: size * size * 3].reshape(3, size, size)
    image = np.empty((size, size, 3), np.uint8)
    for c, (first, second) in enumerate(colors):
        plane = _gradient(corners[c], size)
        ground = plane[rows, columns]
        ground += (weave * float(second - first) + float(first) - ground) * inside
        plane += noise[c] * np.float32(_NOISE / 128.0) - np.float32(_NOISE)
        image[:, :, c] = np.clip(plane, 0.0, 255.0, out=plane)
    return image


def _place(size: int, generator: Generator) -> tuple[float, float, float]:
    """Centre x0, y0 and radius, in pixels, of the circle around the shape.

    The radius is 27 to 35 % of the image. The circle keeps size / 8 pixels from every border: the most that a crop of 7/8
    can cut off there.
    """
    a, b, c = generator.uniform(3).tolist()
    margin = -(-size // 8)
    room = size - 2 * margin
    radius = room * (0.36 + 0.11 * a)
    nearest, free = margin + 0.5 + radius, room - 1.0 - 2.0 * radius
    return nearest + free * b, nearest + free * c, radius


def _span(center: float, radius: float) -> slice:
    """The pixels that the circle touches along one axis."""
    return slice(int(center - radius - 0.5), int(center + radius + 0.5) + 1)


def _cover(shape: str, columns: slice, rows: slice, circle: tuple[float, float, float], generator: Generator) -> np.ndarray:
    """(rows, columns) float32: how much of each pixel the shape covers, 0 to 1."""
    x0, y0, radius = circle
    u, v = _rotated(columns, rows, x0, y0, generator)
    return _edge(SHAPES[shape](u, v, radius))


def _weave(texture: str, columns: slice, rows: slice, size: int, generator: Generator) -> np.ndarray:
    """(rows, columns) float32: 0 where the first colour is, 1 where the second is. One period is 16 to 24 of 256 pixels."""
    a, b, c = generator.uniform(3).tolist()
    period = max(size / 256.0 * (16.0 + 8.0 * a), 4.0)
    u, v = _rotated(columns, rows, period * b, period * c, generator)
    return TEXTURES[texture](u, v, period)


def _rotated(columns: slice, rows: slice, x0: float, y0: float, generator: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates u, v (rows, columns) of the pixels' centres about (x0, y0), turned by 2 atan(t), t uniform in [-1, 1)."""
    t = 2.0 * float(generator.uniform()) - 1.0
    cos, sin = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x0)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    return x * cos + y * sin, y * cos - x * sin


def _bars(u: np.ndarray, period: float) -> np.ndarray:
    """0 in one half of each period of u, 1 in the other, with a soft edge one pixel wide."""
    turn = u * (1.0 / period)
    turn -= np.floor(turn)
    return _edge((np.abs(turn - 0.5) - 0.25) * period)


def _edge(distance: np.ndarray) -> np.ndarray:
    """Signed distance from an edge in pixels -> coverage: 0 outside, 1 inside, a ramp one pixel wide between them."""
    return np.clip(distance + 0.5, 0.0, 1.0)


def _contrasting_colors(generator: Generator) -> list[list[int]]:
    """A dark and a light RGB colour as three [dark, light]: 64 to 255 levels apart in every channel."""
    dark, light = generator.integers(0, 96, 3), generator.integers(160, 256, 3)
    return np.stack([dark, light], axis=1).tolist()


def _gradient(corners: list[int], size: int) -> np.ndarray:
    """(size, size) float32: one channel that runs evenly between the values at the four corners."""
    top_left, top_right, bottom_left, bottom_right = corners
    way = np.arange(size, dtype=np.float32) / np.float32(size)
    top = top_left + (top_right - top_left) * way
    bottom = bottom_left + (bottom_right - bottom_left) * way
    return top + (bottom - top) * way[:, None]
