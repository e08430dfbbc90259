"""The images of the runs as arrays: CIFAR-10 in one of three forms, photographs, or the embedded patterns.

    a tar.gz, or a folder, with train/CLASS/NAME.jpg and test/CLASS/NAME.jpg        a copy of CIFAR-10 as image files
    a folder that minidl.data.CIFAR10 reads                                          the batches as they are published
    a tar, or a folder, of other images                                              photographs, each a class of its own

Each set has a fingerprint, a hash of its content that is the same whether it is packed or unpacked.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from minidl.checkpoint import write_whole
from minidl.data import CIFAR10, CenterCrop, Patterns, Resize

SUFFIXES = (".jpg", ".jpeg", ".png")
PHOTOGRAPH_SIZE = 256  # pixels; of each photograph the centre square, as in 2012
PATTERNS_TEST = 500


@dataclass(frozen=True)
class Pictures:
    """Training and test images of one size.

    name          : what the data is, in words
    fingerprint   : 16 hexadecimal digits
    train, test   : (N, H, W, 3) uint8; `test` may be empty
    train_labels, test_labels : (N,) int64
    classes       : how many there are
    """

    name: str
    fingerprint: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    classes: int


def patterns(images: int, size: int) -> Pictures:
    """The embedded set: `images` training images of size x size pixels and PATTERNS_TEST test images."""
    sets = Patterns(images, train=True, image_size=size), Patterns(min(images, PATTERNS_TEST), train=False, image_size=size)
    arrays = [(np.stack([part[i][0] for i in range(len(part))]), np.array(part.targets)) for part in sets]
    return Pictures("embedded patterns", f"patterns-{images}-{size}", *arrays[0], *arrays[1], len(Patterns.classes))


def cifar10(place: Path, cache: Path) -> Pictures:
    """CIFAR-10 from a tar.gz or a folder; `cache` is a folder where decoded images are kept for the next time.

    FileNotFoundError: nothing there. ValueError: image files of other sizes, classes or splits than CIFAR-10's.
    """
    if not place.exists():
        raise FileNotFoundError(f"{place}: must be a folder or a tar.gz of CIFAR-10, got nothing by that name")
    if place.is_dir() and not (place / "train").is_dir():
        return _published(place)
    files = dict(_files(place))
    fingerprint = _fingerprint(files.items())
    kept = cache / f"cifar10-{fingerprint}.npz"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".cifar10.lock"):
        if not kept.exists():
            content = io.BytesIO()
            np.savez(content, **_decoded(place, files))
            write_whole(kept, content.getvalue())
    with np.load(kept, allow_pickle=False) as arrays:
        train, train_labels, test, test_labels = (arrays[name] for name in _ARRAYS)
    return Pictures("CIFAR-10, JPEG copy", fingerprint, train, train_labels, test, test_labels, 10)


_ARRAYS = ("train", "train_labels", "test", "test_labels")


def _published(place: Path) -> Pictures:
    sets = [CIFAR10(place, train=train) for train in (True, False)]
    digest = hashlib.sha256()
    for part in sets:
        digest.update(part.data.tobytes() + bytes(part.targets))
    arrays = [(part.data, np.array(part.targets)) for part in sets]
    return Pictures("CIFAR-10", digest.hexdigest()[:16], *arrays[0], *arrays[1], 10)


def photographs(place: Path) -> Pictures:
    """Each image file is a class of its own, and its centre square 256 x 256 the only image of it; there is no test set.

    FileNotFoundError: no image there.
    """
    files = dict(_files(place))
    if not files:
        raise FileNotFoundError(f"{place}: must hold image files ({', '.join(SUFFIXES)}), got none")
    resize, crop = Resize(PHOTOGRAPH_SIZE), CenterCrop(PHOTOGRAPH_SIZE)
    images = np.stack([crop(resize(_rgb(files[name]))) for name in sorted(files)])
    labels, none = np.arange(len(images)), images[:0]
    return Pictures("photographs", _fingerprint(files.items()), images, labels, none, labels[:0], len(images))


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of each image file in a folder or an archive."""
    if place.is_dir():
        for path in place.rglob("*"):
            if path.suffix.lower() in SUFFIXES:
                yield path.relative_to(place).as_posix(), path.read_bytes()
        return
    with tarfile.open(place) as tar:
        for member in tar:
            if member.isreg() and Path(member.name).suffix.lower() in SUFFIXES:
                file = tar.extractfile(member)
                assert file is not None
                yield member.name.removeprefix("./"), file.read()


def _fingerprint(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _decoded(place: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """The arrays of Pictures, in the order of the names."""
    parts = {name: Path(name).parts for name in files}
    bad = next((name for name, path in parts.items() if len(path) != 3 or path[0] not in ("train", "test")), None)
    if bad is not None:
        raise ValueError(f"{place}: image files must be train/CLASS/NAME or test/CLASS/NAME, got {bad}")
    classes = sorted({path[1] for path in parts.values()})
    if len(classes) != 10:
        raise ValueError(f"{place}: CIFAR-10 has 10 classes, got {len(classes)} ({', '.join(classes[:12])})")
    arrays: dict[str, Any] = {}
    for split in ("train", "test"):
        names = sorted(name for name, path in parts.items() if path[0] == split)
        arrays[split] = np.stack([_pixels(place, name, files[name]) for name in names])
        arrays[f"{split}_labels"] = np.array([classes.index(parts[name][1]) for name in names])
    return arrays


def _pixels(place: Path, name: str, content: bytes) -> np.ndarray:
    image = _rgb(content)
    if image.shape != (32, 32, 3):
        raise ValueError(f"{place}: images must be 32 x 32, got {image.shape} ({name})")
    return image


def _rgb(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
