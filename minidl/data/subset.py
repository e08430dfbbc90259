"""Some of a data set's images, and a cut of it into training and held-out images."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from minidl.data.packed import PackedImages


class Subset:
    """Images of a data set, by their places in it: `subset[i]` is `dataset[indices[i]]`.

    dataset, indices : what it was made from; indices are kept as int64
    classes, class_to_idx : the data set's, also where a class has no image here
    targets          : the labels of these images
    samples          : (path, label) of these images, if the data set has samples

    IndexError outside [0, len), and for an index that is not in the data set.
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(dataset))]
        if outside.size:
            raise IndexError(f"Subset: indices must be in [0, {len(dataset)}), got {outside[0]}")
        self.classes: list[str] = dataset.classes
        self.class_to_idx: dict[str, int] = dataset.class_to_idx
        targets = dataset.targets
        self.targets: list[int] = [targets[i] for i in self.indices.tolist()]
        if hasattr(dataset, "samples"):
            self.samples = _Picked(dataset.samples, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"Subset: index must be in [0, {len(self)}), got {index}")
        return self.dataset[int(self.indices[index])]


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
        yield from map(names.__getitem__, dataset.indices.tolist())
    elif not hasattr(dataset, "samples"):
        yield from map(str, range(len(dataset)))
    elif isinstance(dataset, PackedImages):
        yield from (name for name, _ in dataset.samples)
    else:
        start = len(os.path.join(dataset.root, ""))
        below = (path[start:] for path, _ in dataset.samples)
        yield from below if os.sep == "/" else (path.replace(os.sep, "/") for path in below)


def hold_out(dataset: Any, fraction: float) -> tuple[Subset, Subset]:
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
