"""PackedImages: images of one size, decoded once, in a few large files that no decoder stands in front of.

folder/
  images-00000.bin   the first images: one byte each for R, G and B, pixel by pixel, row by row, image by image
  images-00001.bin   the next ones, and so on
  index.json         what they are; written last, so a folder that has it is complete

index.json holds, in this order,
  format, version    "minidl packed images", 1
  shape              [H, W, 3]
  classes            the classes' names; a label is a place in this list
  images             how many there are
  shards             for each images-*.bin: file, images, bytes, sha256
  labels, names      for each image: its label, and the file that it was made from
  sha256             of all bytes of index.json before this key

examples/alexnet/prepare.py writes such folders. A shard is also np.memmap(file, np.uint8).reshape(-1, H, W, 3).
"""

import hashlib
import json
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from reprlib import repr as short_repr
from stat import S_ISREG
from typing import Any

import numpy as np

from minidl.data.dataset import Dataset
from minidl.data.errors import BadFileError

INDEX, FORMAT, VERSION = "index.json", "minidl packed images", 1
LONGEST_SIDE = 65535  # JPEG's limit: no image is larger
_KEYS = ["format", "version", "shape", "classes", "images", "shards", "labels", "names", "sha256"]


class PackedImages(Dataset[tuple[np.ndarray, int]]):
    """The images of a packed folder; `dataset[i]` is (image, label), image (H, W, 3) uint8 RGB, label an int.

    shape        : (H, W, 3), of every image
    classes      : the classes' names; the label is the place in this list
    class_to_idx : name -> label
    samples      : (name of the file it was made from, label) of every image
    targets      : the labels alone

    FileNotFoundError if the index or a shard is missing; BadFileError if the index is not what the top of this module says,
    or a shard has another length than the index gives. Only `verify` compares the shards' bytes with their checksums.
    Indexing raises IndexError outside [0, len), BadFileError for a shard that was cut short since.

    Reading is safe from several threads: every read opens its shard, so no state is shared. That costs microseconds; a memory
    map would save them, but ends the program with a bus error where a file is cut short or a disk fails.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.root = Path(folder)
        index = _read_index(self.root / INDEX)
        self.shape: tuple[int, int, int] = tuple(index["shape"])
        self.classes: list[str] = index["classes"]
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets: list[int] = index["labels"]
        self.samples = list(zip(index["names"], self.targets, strict=True))
        self._shards: list[dict[str, Any]] = index["shards"]
        self._ends = list(accumulate(shard["images"] for shard in self._shards))
        for shard in self._shards:
            _check_length(self.root / shard["file"], shard["bytes"])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"PackedImages: index must be in [0, {len(self)}), got {index}")
        number = bisect_right(self._ends, index)
        return self._read(number, index - (self._ends[number] - self._shards[number]["images"])), self.targets[index]

    def _read(self, number: int, place: int) -> np.ndarray:
        """Image `place` of a shard."""
        path = self.root / self._shards[number]["file"]
        size = int(np.prod(self.shape))
        with path.open("rb") as file:
            file.seek(place * size)
            data = file.read(size)
        if len(data) != size:
            raise BadFileError(path, path.stat().st_size, f"image {place} must have {size} bytes, got {len(data)}")
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    def verify(self) -> None:
        """Read every shard. BadFileError for the first that differs from what was written."""
        for shard in self._shards:
            path = self.root / shard["file"]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard["sha256"]:
                raise BadFileError(path, path.stat().st_size, f"its sha256 must be {shard['sha256']}, got {digest}")


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"images-{number:05d}.bin"


def index_bytes(
    shape: Sequence[int], classes: Sequence[str], shards: Sequence[tuple[int, str]], labels: Sequence[int], names: Sequence[str]
) -> bytes:
    """The content of index.json; `shards` has (images, sha256) of each."""
    bytes_each = int(np.prod(shape))
    index = {
        "format": FORMAT,
        "version": VERSION,
        "shape": list(shape),
        "classes": list(classes),
        "images": len(labels),
        "shards": [_shard(number, images, bytes_each, sha256) for number, (images, sha256) in enumerate(shards)],
        "labels": list(labels),
        "names": list(names),
    }
    body = (json.dumps(index)[:-1] + ",\n").encode()
    return body + f'"sha256": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def _shard(number: int, images: int, bytes_each: int, sha256: str) -> dict[str, Any]:
    return {"file": shard_name(number), "images": images, "bytes": images * bytes_each, "sha256": sha256}


def _read_index(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    try:
        index = json.loads(content)
        _check_keys(index)
        _check_checksum(index["sha256"], content)
        _check_values(index)
        _check_shards(index)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested a thousand deep
        raise BadFileError(path, len(content), str(error)) from error
    return index


def _check_keys(index: Any) -> None:
    _check(isinstance(index, dict), "the index must be a JSON object", index)
    _check(index.get("format") == FORMAT, f"format must be {FORMAT!r}", index.get("format"))
    _check(index.get("version") == VERSION, f"version must be {VERSION}", index.get("version"))
    _check(list(index) == _KEYS, f"the keys must be {', '.join(_KEYS)}", list(index))


def _check_checksum(given: Any, content: bytes) -> None:
    digest = hashlib.sha256(content.rpartition(b'"sha256"')[0]).hexdigest()
    _check(given == digest, f"the index's own sha256 must be {digest}", given)


def _check_values(index: dict[str, Any]) -> None:
    shape, classes, labels, names = (index[key] for key in ("shape", "classes", "labels", "names"))
    sides = _is_list(shape, int) and len(shape) == 3 and shape[2] == 3 and all(1 <= n <= LONGEST_SIDE for n in shape[:2])
    _check(sides, f"shape must be [H, W, 3] with sides from 1 to {LONGEST_SIDE}", shape)
    distinct = _is_list(classes, str) and len(set(classes)) == len(classes) > 0
    _check(distinct, "classes must be a list of distinct names, at least one", classes)
    _check(_is_list(labels, int), "labels must be a list of integers", labels)
    outside = [label for label in labels if not 0 <= label < len(classes)]
    _check(not outside, f"labels must be in [0, {len(classes)})", outside)
    _check(_is_list(names, str), "names must be a list of strings", names)
    _check(type(index["images"]) is int, "images must be an integer", index["images"])
    _check(
        index["images"] == len(labels) == len(names), f"labels and names must be {index['images']}", (len(labels), len(names))
    )


def _check_shards(index: dict[str, Any]) -> None:
    """Every entry must be the one that its number of images and its place make: no other file can be named."""
    shards, bytes_each = index["shards"], int(np.prod(index["shape"]))
    _check(_is_list(shards, dict), "shards must be a list of objects", shards)
    for number, shard in enumerate(shards):
        images, sha256 = shard.get("images"), shard.get("sha256")
        _check(type(images) is int and images >= 0, f"shard {number}: images must be an integer of at least 0", images)
        hexadecimal = type(sha256) is str and re.fullmatch("[0-9a-f]{64}", sha256) is not None
        _check(hexadecimal, f"shard {number}: sha256 must be 64 hexadecimal digits", sha256)
        expected = _shard(number, images, bytes_each, sha256)
        _check(shard == expected, f"shard {number} must be {expected}", shard)
    total = sum(shard["images"] for shard in shards)
    _check(total == index["images"], f"the shards' images must be {index['images']} together", total)


def _is_list(value: Any, kind: type) -> bool:
    """A list of nothing but this type; True and False are no integers here."""
    return type(value) is list and all(type(item) is kind for item in value)


def _check(holds: bool, rule: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {short_repr(got)}")


def _check_length(path: Path, expected: int) -> None:
    about = path.stat()
    if not S_ISREG(about.st_mode) or about.st_size != expected:
        raise BadFileError(path, about.st_size, f"must be a file of {expected} bytes")
