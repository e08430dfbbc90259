"""Some of a data set's samples, and two cuts: at random, and one into training and held-out images by their names."""

import math
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from typing import Any

import numpy as np

from minidl import random
from minidl.data.dataset import Dataset, Sample
from minidl.data.packed import PackedImages
from minidl.random import Generator
from minidl.tensor import Tensor


class Subset(Dataset[Sample]):
    """Samples of a data set, by their places in it: `subset[i]` is `dataset[indices[i]]`.

    dataset, indices : what it was made from
    classes, class_to_idx : the data set's, if it has them, also where a class has no image here
    targets          : the labels of these images, if the data set has labels
    samples          : (path, label) of these images, if the data set has samples

    IndexError for an index that is not in the data set, or not in the subset; negative ones count from the end.
    """

    classes: list[str]
    class_to_idx: dict[str, int]
    targets: list[int]
    samples: Sequence[tuple[str, int]]

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset, self.indices, n = dataset, indices, len(dataset)
        places = np.asarray(indices, np.int64)
        outside = places[(places < -n) | (places >= n)]
        if outside.size:
            raise IndexError(f"Subset: indices must be in [-{n}, {n}), got {outside[0]}")
        self._places = np.where(places < 0, places + n, places)
        for name in ("classes", "class_to_idx"):
            if hasattr(dataset, name):
                setattr(self, name, getattr(dataset, name))
        if hasattr(dataset, "targets"):
            targets: Any = dataset.targets.tolist() if isinstance(dataset.targets, Tensor) else dataset.targets
            self.targets = [targets[i] for i in self._places.tolist()]
        if hasattr(dataset, "samples"):
            self.samples = _Picked(dataset.samples, self._places)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Subset: index must be in [-{len(self)}, {len(self)}), got {index}")
        return self.dataset[int(self._places[index])]


class _Picked(Sequence[Any]):
    """Some items of a sequence, taken out when asked for."""

    def __init__(self, items: Sequence[Any], indices: np.ndarray) -> None:
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        picked = self._indices[index]
        return [self._items[i] for i in picked.tolist()] if isinstance(index, slice) else self._items[int(picked)]


def image_names(dataset: Any) -> Iterator[str]:
    """Each image's path below the data set's root, with "/" between folders: what PackedImages has for the same image.

    Of a data set without paths, the images' numbers.
    """
    if isinstance(dataset, Subset):
        names = list(image_names(dataset.dataset))
        yield from map(names.__getitem__, dataset._places.tolist())
    elif not hasattr(dataset, "samples"):
        yield from map(str, range(len(dataset)))
    elif isinstance(dataset, PackedImages):
        yield from (name for name, _ in dataset.samples)
    else:
        start = len(os.path.join(dataset.root, ""))
        below = (path[start:] for path, _ in dataset.samples)
        yield from below if os.sep == "/" else (path.replace(os.sep, "/") for path in below)


def random_split(dataset: Any, lengths: Sequence[float], generator: Generator | None = None) -> list[Subset[Any]]:
    """Subsets of these lengths, of different samples each, at random; drawn from minidl's default generator (`manual_seed`).

    lengths : ints that add up to len(dataset), or fractions that add up to 1. What rounding down the fractions leaves over goes
              to the first subsets, one sample to each; UserWarning for one that stays empty.

    ValueError for lengths that do not add up, or that are negative. For images in files see `hold_out`, whose cut does not
    depend on which other images there are.
    """
    n = len(dataset)
    if any(length < 0 for length in lengths):
        raise ValueError(f"random_split: lengths must not be negative, got {list(lengths)}")
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        sizes = [math.floor(n * fraction) for fraction in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        if 0 in sizes:
            warnings.warn(f"random_split: subset {sizes.index(0)} is empty, of fractions {list(lengths)} of {n}", stacklevel=2)
    elif sum(lengths) != n:
        raise ValueError(f"random_split: lengths must add up to {n} (samples), or fractions to 1, got {list(lengths)}")
    else:
        sizes = [int(length) for length in lengths]
    order = (random.default_generator if generator is None else generator).permutation(n).tolist()
    return [Subset(dataset, order[end - size : end]) for end, size in zip(accumulate(sizes), sizes, strict=True)]


def hold_out(dataset: Any, fraction: float) -> tuple[Subset[Any], Subset[Any]]:
    """(training images, held-out images) of a data set of files: each image falls to one of them by its path alone.

    An image is held out if the SHA-256 of its path below the root, with "/" between folders, in Unicode's form NFC and in
    UTF-8, read as a number in [0, 1), is below `fraction`. So the cut is the same on every machine, an image that is added
    moves no other one, and a smaller fraction holds out some of the images of a larger one. Of n images about n fraction are
    held out, with a standard deviation of sqrt(n fraction (1 - fraction)); a class may have none.

    ValueError: fraction outside (0, 1), a data set whose images have no paths, a class of which no image is left for training,
    or not one image held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"hold_out: fraction must be between 0 and 1, got {fraction}")
    if not hasattr(dataset, "samples"):
        raise ValueError(f"hold_out: the images must have paths (samples), got a {type(dataset).__name__}")
    below = int(fraction * 2**64).to_bytes(8, "big")
    held = np.fromiter((_place(name) < below for name in image_names(dataset)), bool, len(dataset))
    labels = np.asarray(dataset.targets, np.int64)
    images = np.bincount(labels, minlength=len(dataset.classes))
    left = np.bincount(labels[~held], minlength=len(dataset.classes))
    gone = [dataset.classes[label] for label in np.flatnonzero((images > 0) & (left == 0))]
    if gone:
        some = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        raise ValueError(f"hold_out: no image of {some} is left for training at fraction {fraction}; take a smaller one")
    if not held.any():
        raise ValueError(f"hold_out: of {len(held)} images none is held out at fraction {fraction}; take a larger one")
    return Subset(dataset, np.flatnonzero(~held)), Subset(dataset, np.flatnonzero(held))


def _place(name: str) -> bytes:
    """A name's number in [0, 2**64), big-endian: bytes of one length compare as numbers do."""
    if not name.isascii():  # macOS may store the same name in another of Unicode's forms
        name = unicodedata.normalize("NFC", name)
    return sha256(name.encode("utf-8", "surrogatepass")).digest()[:8]
