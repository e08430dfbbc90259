"""CIFAR-10: 60,000 colour photographs of ten classes, 32 x 32 pixels, from the files as they are published.

The binary version has, for each image, a byte with the label and 3 x 32 x 32 bytes of pixels, channels first: 3073 bytes. The
Python version has the same as *pickles*, which are read as data (minidl/data/pickles.py): only the names by which NumPy
writes an array may stand in them, and nothing is called.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import math
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.errors import BadFileError, read_first
from minidl.data.pickles import Call, PickleMachine, RefusedError, latin1, read_pickle
from minidl.data.vision import Transform, VisionDataset

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
TRAIN, TEST = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]

_BATCH_IMAGES = 10_000
_IMAGE_BYTES = 3 * 32 * 32
_LARGEST_FILE = 1 << 26  # bytes; a batch has 31 million, twice that at most when Python 3 wrote it in protocol 2
_LARGEST_ARCHIVE = 1 << 28  # bytes when unpacked; the published ones have 186 million


class CIFAR10(VisionDataset):
    """`dataset[i]` is (image, label): a picture of Pillow's, 32 x 32 RGB, and an int from 0 to 9.

    root     : the folder where one of these lies, the first that is there: cifar-10-batches-py, cifar-10-batches-bin, the
               batches themselves, cifar-10-python.tar.gz, cifar-10-binary.tar.gz
    train    : the 50,000 training images or the 10,000 test images
    transform, target_transform : functions of the image and of the label
    download : nothing is downloaded. Where the files are there it has no effect, else the error says which to put where.

    data         : an array (N, 32, 32, 3) uint8
    targets      : the labels, a list
    classes      : the ten names, from batches.meta where it is there
    class_to_idx : name -> label

    FileNotFoundError: nothing to read, and what was looked for. NotADirectoryError: root is a file. BadFileError: a file is
    truncated, altered, of another shape or number of images, or a pickle that holds more than data. IndexError for an index
    outside [-len, len).
    """

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
        files = _find(self.root)
        batches = [_batch(files, name) for name in (TRAIN if train else TEST)]
        pixels = np.concatenate([images for images, _ in batches])
        self.data = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        self.targets = [label for _, labels in batches for label in labels]
        self.classes = _class_names(files)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def _load(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return Image.fromarray(self.data[index]), self.targets[index]


# ---------------------------------------------------------------------------------------------------------------- files


@dataclass
class _Files:
    """Where the batches lie: a folder, or an archive that was read into memory."""

    place: Path
    binary: bool
    content: dict[str, bytes] | None = None

    def read(self, name: str) -> tuple[Path, bytes | bytearray] | None:
        """(path, content) of a file, or None if there is none."""
        path = self.place / name
        if self.content is not None:
            return (path, self.content[name]) if name in self.content else None
        if not path.is_file():
            return None
        content = read_first(path, _LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise BadFileError(path, path.stat().st_size, f"must have at most {_LARGEST_FILE} bytes")
        return path, content


def _find(root: Path) -> _Files:
    if root.is_file():
        raise NotADirectoryError(f"CIFAR10: root must be the folder where the batches or an archive lie, got the file {root}")
    for folder, binary in (("cifar-10-batches-py", False), ("cifar-10-batches-bin", True)):
        if (root / folder).is_dir():
            return _Files(root / folder, binary)
    for suffix, binary in (("", False), (".bin", True)):
        if any((root / f"{name}{suffix}").is_file() for name in [*TRAIN, *TEST]):
            return _Files(root, binary)
    for archive, binary in (("cifar-10-python.tar.gz", False), ("cifar-10-binary.tar.gz", True)):
        if (root / archive).is_file():
            return _Files(root / archive, binary, _unpack(root / archive))
    raise FileNotFoundError(
        f"CIFAR10: the batches must be in {root}; nothing is downloaded: put cifar-10-python.tar.gz of {PAGE} there, packed or "
        f"unpacked; looked for cifar-10-batches-py, cifar-10-batches-bin, {TEST[0]}, {TEST[0]}.bin, cifar-10-python.tar.gz, "
        "cifar-10-binary.tar.gz"
    )


def _unpack(archive: Path) -> dict[str, bytes]:
    """The files in an archive by their names without folders. It is unpacked once, within bounds, and only in memory."""
    size = archive.stat().st_size
    content = read_first(archive, _LARGEST_ARCHIVE + 1)
    if len(content) > _LARGEST_ARCHIVE:
        raise BadFileError(archive, size, f"must have at most {_LARGEST_ARCHIVE} bytes when unpacked")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            files = [member for member in tar if member.isreg() and not member.issparse()]  # a sparse one's holes have no bound
    except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: header fields that are no numbers
        raise BadFileError(archive, size, f"not a whole tar archive: {error}") from error
    return {Path(file.name).name: bytes(content[file.offset_data : file.offset_data + file.size]) for file in files}


def _batch(files: _Files, name: str) -> tuple[np.ndarray, list[int]]:
    """One batch's pixels, (N, 3072) uint8 with channels first, and its labels."""
    found = files.read(f"{name}.bin" if files.binary else name)
    if found is None:
        raise FileNotFoundError(f"CIFAR10: {name}{'.bin' * files.binary} must be in {files.place}, got no such file")
    return (_binary_batch if files.binary else _python_batch)(*found)


def _class_names(files: _Files) -> list[str]:
    found = files.read("batches.meta.txt" if files.binary else "batches.meta")
    if found is None:
        return list(CLASSES)
    path, content = found
    if files.binary:
        names: Any = [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
    else:
        names = _texts(read_pickle(path, content, _CIFARPickle()).get("label_names"))
    if names is None or len(set(names)) != len(CLASSES) or len(names) != len(CLASSES):
        got = "none" if names is None else f"{len(set(names))} in {len(names)}"
        raise BadFileError(path, len(content), f"must hold {len(CLASSES)} different names of classes, got {got}")
    return names


def _binary_batch(path: Path, content: bytes | bytearray) -> tuple[np.ndarray, list[int]]:
    record = 1 + _IMAGE_BYTES
    if len(content) != _BATCH_IMAGES * record:
        raise BadFileError(
            path, len(content), f"must hold {_BATCH_IMAGES} images of {record} bytes, got {len(content) / record:.2f}"
        )
    records = np.frombuffer(content, np.uint8).reshape(_BATCH_IMAGES, record)
    return records[:, 1:], _checked_labels(path, len(content), records[:, 0].tolist())


def _python_batch(path: Path, content: bytes | bytearray) -> tuple[np.ndarray, list[int]]:
    batch = read_pickle(path, content, _CIFARPickle())
    pixels, labels = _bytes_array(batch.get("data")), batch.get("labels")
    if pixels is None or pixels.shape[1] != _IMAGE_BYTES:
        got = f"{type(batch.get('data')).__name__.strip('_')}" if pixels is None else f"uint8 of {pixels.shape}"
        raise BadFileError(path, len(content), f"data must be uint8 of ({_BATCH_IMAGES}, {_IMAGE_BYTES}), got {got}")
    if len(pixels) != _BATCH_IMAGES:
        raise BadFileError(path, len(content), f"must hold {_BATCH_IMAGES} images, got {len(pixels)}")
    return pixels, _checked_labels(path, len(content), labels)


def _checked_labels(path: Path, size: int, labels: Any) -> list[int]:
    if not isinstance(labels, list):
        raise BadFileError(path, size, f"labels must be a list, got {type(labels).__name__.strip('_')}")
    if len(labels) != _BATCH_IMAGES:
        raise BadFileError(path, size, f"must hold {_BATCH_IMAGES} labels, got {len(labels)}")
    for image, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            got = label if type(label) is int else type(label).__name__.strip("_")
            raise BadFileError(path, size, f"labels must be int in [0, {len(CLASSES)}), got {got} for image {image}")
    return labels


# -------------------------------------------------------------------------------------------------------------- pickles


class _CIFARPickle(PickleMachine):
    """What a batch is made of. NumPy 1 has numpy.core where NumPy 2 has numpy._core."""

    what = "a batch"
    most_instructions = 200_000  # a published batch has under 50,000
    names = {  # noqa: RUF012  _codecs.encode is how Python 3 writes bytes in protocol 2: as text
        *("numpy ndarray", "numpy dtype", "_codecs encode"),
        *(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")),
        *(f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")),
    }
    known_as = "NumPy's way to write an array"

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0

    def keys(self, keys: list[Any]) -> list[Any]:
        """Python 2's texts are bytes: both kinds of keys become str."""
        texts = _texts(keys)
        if texts is None:
            raise RefusedError("needs pairs of a text and a value")
        return texts

    def called(self, name: str, args: tuple[Any, ...]) -> Any:
        return self._encoded(*args) if name == "_codecs encode" else Call(name, args)

    def _encoded(self, text: Any = None, encoding: Any = None, *more: Any) -> bytes:
        """Bytes that Python 3 wrote as text. One long text may be asked for often: what that takes has a bound."""
        if not isinstance(text, str) or encoding != "latin1" or more:
            raise RefusedError("needs a text and 'latin1'")
        self.encoded += len(text)
        if self.encoded > _LARGEST_FILE:
            raise RefusedError(f"makes more than {_LARGEST_FILE} bytes")
        try:
            return latin1(text)
        except UnicodeEncodeError as error:
            raise RefusedError(f"needs a text whose characters stand for bytes: {error}") from error


def _texts(values: Any) -> list[str] | None:
    """A list of str, or of bytes in Python 2's way, as str; None for anything else."""
    if not isinstance(values, list) or not all(isinstance(value, (str, bytes)) for value in values):
        return None
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]


def _bytes_array(value: Any) -> np.ndarray | None:
    """The uint8 matrix that a `Call` stands for; None for anything else. NumPy pickles one in two ways."""
    match value:
        case Call(name, _, (_, shape, dtype, False, data)) if name.endswith("_reconstruct"):
            pass
        case Call(name, (data, dtype, shape, "C")) if name.endswith("_frombuffer"):
            pass
        case _:
            return None
    match dtype, shape, data:
        case Call("numpy dtype", ("u1" | b"u1", *_)), (int(n), int(width)), bytes() | bytearray():
            fits = min(n, width) >= 0 and math.prod(shape) == len(data)
            return np.frombuffer(data, np.uint8).reshape(n, width) if fits else None
    return None
