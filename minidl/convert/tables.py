"""Which tensor of another program is which of minidl's, and of which shape.

A size in a shape is a number, or a letter with a factor that stands for any number, the same wherever it stands.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidl.data.errors import BadFileError

Size = int | tuple[str, int]  # 11, or ("e", 36): 36 times as many as e


class Row(NamedTuple):
    """name : the other program's. ours : minidl's. shape : of both."""

    name: str
    ours: str
    shape: tuple[Size, ...]


def _shapes(groups: int) -> dict[str, tuple[Size, ...]]:
    """AlexNet's parameters in order. groups : in conv2, conv4 and conv5, whose kernels see 1/groups of the channels below."""
    a, b, c, d, e, f, g = ((letter, groups) for letter in "abcdefg")
    half_a, half_c, half_d = ("a", 1), ("c", 1), ("d", 1)
    shapes: dict[str, tuple[Size, ...]] = {}
    layers: dict[str, tuple[Size, ...]] = {
        "conv1": (a, 3, 11, 11),
        "conv2": (b, half_a, 5, 5),
        "conv3": (c, b, 3, 3),
        "conv4": (d, half_c, 3, 3),
        "conv5": (e, half_d, 3, 3),
        "fc6": (f, ("e", 36 * groups)),
        "fc7": (g, f),
        "fc8": (("k", 1), g),
    }
    for name, shape in layers.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


_TORCHVISION_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}

TORCHVISION = [
    Row(f"{theirs}.{kind}", f"{ours}.{kind}", _shapes(1)[f"{ours}.{kind}"])
    for theirs, ours in _TORCHVISION_LAYERS.items()
    for kind in ("weight", "bias")
]

CAFFE = [Row(f"{name.partition('.')[0]} blob {int(name.endswith('bias'))}", name, shape) for name, shape in _shapes(2).items()]
"""Caffe's layers have minidl's names; blob 0 is the weight, 1 the bias."""


def renamed(path: Path, arrays: Mapping[str, np.ndarray], table: list[Row], back: bool = False) -> dict[str, np.ndarray]:
    """The same arrays, in the table's order, under minidl's names; or of minidl's, under the other program's.

    BadFileError: a tensor is missing, is one too many, has another shape, or is not of floating point numbers.
    """
    rows = [Row(ours, name, shape) for name, ours, shape in table] if back else table
    size = path.stat().st_size
    missing = [row for row in rows if row.name not in arrays]
    if missing:
        names = ", ".join(f"{row.name} (-> {row.ours})" for row in missing[:3])
        raise BadFileError(path, size, f"must have {len(rows)} tensors, {len(missing)} are missing: {names}")
    surplus = sorted(set(arrays) - {row.name for row in rows})
    if surplus:
        raise BadFileError(path, size, f"must have {len(rows)} tensors, {len(surplus)} are too many: {', '.join(surplus[:3])}")
    known: dict[str, int] = {}
    for row in rows:
        _check(path, size, row, arrays[row.name], known)
    return {row.ours: arrays[row.name] for row in rows}


def _check(path: Path, size: int, row: Row, array: np.ndarray, known: dict[str, int]) -> None:
    """Does the array have the row's shape? `known` gets the letters that stand for what it has."""
    if array.dtype.kind != "f":
        raise BadFileError(path, size, f"{row.name} (-> {row.ours}) must be of floating point numbers, got {array.dtype}")
    fits = len(array.shape) == len(row.shape)
    for got, wanted in zip(array.shape, row.shape, strict=False):
        if isinstance(wanted, int):
            fits = fits and got == wanted
            continue
        letter, factor = wanted
        whole, rest = divmod(got, factor)
        fits = fits and rest == 0 and whole > 0 and known.setdefault(letter, whole) == whole
    if not fits:
        raise BadFileError(
            path, size, f"{row.name} (-> {row.ours}) must have the shape {in_words(row.shape, known)}, got {array.shape}"
        )


def in_words(shape: tuple[Size, ...], known: Mapping[str, int] | None = None) -> str:
    """(2a, 3, 11, 11); with the numbers of the letters that are known."""
    sizes = []
    for size in shape:
        if isinstance(size, int):
            sizes.append(str(size))
        elif known and size[0] in known:
            sizes.append(str(size[1] * known[size[0]]))
        else:
            sizes.append(f"{size[1] if size[1] > 1 else ''}{size[0]}")
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
