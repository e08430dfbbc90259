"""MNIST: 70,000 handwritten digits, 28 x 28 grey pixels, from the four files as they are published; and Fashion-MNIST, which
comes in four files of the same form.

The idx format, all numbers big-endian:

    byte 0, 1    zero
    byte 2       the kind of number: 8 uint8, 9 int8, 11 int16, 12 int32, 13 float32, 14 float64
    byte 3       the number of dimensions, d
    4 d bytes    each dimension, as uint32
    the numbers  the last dimension runs fastest

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; arguments, names of the classes and
of the folders as in torchvision.datasets.
"""

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.errors import BadFileError, read_first
from minidl.data.vision import Transform, VisionDataset
from minidl.tensor import Tensor

_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_LARGEST = 1 << 30  # bytes; EMNIST's largest file has 0.55e9
_SIDE = 28


class MNIST(VisionDataset):
    """`dataset[i]` is (image, label): a picture of Pillow's, mode L, 0 for paper and 255 for ink, and an int from 0 to 9.

    root     : where the files lie, plain or as .gz: in root/MNIST/raw or in root itself
    train    : the training images or the test images, 60,000 and 10,000 as published
    transform, target_transform : functions of the image and of the label
    download : nothing is downloaded. Where the files are there it has no effect, else the error says which to put where.

    data         : a Tensor (N, 28, 28) uint8
    targets      : the labels, a Tensor (N,) int64
    classes      : "0 - zero" to "9 - nine"
    class_to_idx : name -> label

    FileNotFoundError: no such file, and where it was looked for. NotADirectoryError: root is a file. BadFileError: a file is
    truncated, altered, or another than its name says, or images and labels differ in number. IndexError for an index outside
    [-len, len).
    """

    page = "http://yann.lecun.com/exdb/mnist/"
    classes = [  # noqa: RUF012
        *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
        *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
    ]

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform, target_transform)
        self.train = train
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        part = "train" if train else "t10k"
        images = _images(self._find(f"{part}-images-idx3-ubyte"))
        self.data = Tensor(images)
        self.targets = Tensor(_labels(self._find(f"{part}-labels-idx1-ubyte"), len(images), len(self.classes)))

    def __len__(self) -> int:
        return len(self.data)

    def _load(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return Image.fromarray(np.asarray(self.data[index])), int(self.targets[index])

    def _find(self, file: str) -> Path:
        name, root = type(self).__name__, self.root
        if root.is_file():
            raise NotADirectoryError(f"{name}: root must be the folder where the files lie, got the file {root}")
        raw = root / name / "raw"
        places = [folder / packed for folder in (raw, root) for packed in (file, f"{file}.gz")]
        for place in places:
            if place.is_file():
                return place
        raise FileNotFoundError(
            f"{name}: {file} must be there, plain or as .gz; nothing is downloaded: put the four files of {self.page} into "
            f"{raw}; looked for {', '.join(map(str, places))}"
        )


class FashionMNIST(MNIST):
    """Pictures of clothes in MNIST's format: `dataset[i]` is (image, label), as MNIST's; the files lie in root/FashionMNIST/raw
    or in root itself.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    2017.
    """

    page = "https://github.com/zalandoresearch/fashion-mnist"
    classes = [  # noqa: RUF012
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ]


def _images(path: Path) -> np.ndarray:
    data = read_idx(path)
    if data.dtype != np.uint8 or data.shape[1:] != (_SIDE, _SIDE):
        raise _bad(path, f"images must be uint8 of (N, {_SIDE}, {_SIDE}), got {data.dtype} of {data.shape}")
    return data


def _labels(path: Path, images: int, classes: int) -> np.ndarray:
    labels = read_idx(path)
    if labels.dtype != np.uint8 or labels.shape != (images,):
        raise _bad(path, f"labels must be uint8 of ({images},), one for each image, got {labels.dtype} of {labels.shape}")
    if images and labels.max() >= classes:
        raise _bad(path, f"labels must be in [0, {classes}), got {labels.max()} for image {labels.argmax()}")
    return labels.astype(np.int64)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an idx file, or in one packed as .gz: uint8, int8, int16, int32, float32 or float64, of any shape.

    BadFileError: no idx file, more or fewer bytes than its header says, or more than 2**30. FileNotFoundError and other
    errors of the file system pass through.
    """
    shape, dtype, begin = _header(path)
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > _LARGEST:  # of no numbers, too: NumPy refuses (0, 2**31, 2**31)
        raise _bad(path, f"may hold at most {_LARGEST} bytes of numbers, its header says {shape} of {dtype.name}")
    end = begin + math.prod(shape) * dtype.itemsize
    content = read_first(path, end + 1)  # one more, which must not be there
    if len(content) != end:
        got = "more" if len(content) > end else str(len(content))
        raise _bad(path, f"must have {end} bytes by its header ({shape}, {dtype.name}), got {got}")
    return np.frombuffer(content, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _header(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, big-endian dtype, and where the numbers begin."""
    start = read_first(path, 4 + 4 * 255)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES:
        raise _bad(path, f"an idx file must begin with 0, 0 and one of {sorted(_DTYPES)}, got {list(start[:3])}")
    dimensions, begin = start[3], 4 + 4 * start[3]
    if not 1 <= dimensions <= 32 or len(start) < begin:
        raise _bad(path, f"must have 1 to 32 dimensions of 4 bytes each, got {dimensions} in {len(start[4:])} bytes")
    return struct.unpack_from(f">{dimensions}I", start, 4), np.dtype(_DTYPES[start[2]]), begin


def _bad(path: str | os.PathLike[str], reason: str) -> BadFileError:
    return BadFileError(path, os.path.getsize(path), reason)
