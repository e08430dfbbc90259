"""CIFAR-10: 60,000 colour photographs of ten classes, 32 x 32 pixels, from the files as they are published.

The binary version has, for each image, a byte with the label and 3 x 32 x 32 bytes of pixels, channels first: 3073 bytes. The
Python version has the same as *pickles*, and loading a pickle may run any program that its author chose. So it is never
loaded here. A pickle is a list of instructions for a machine with a stack; `_Pickle` follows the few that build numbers,
texts, lists and dictionaries. An instruction that would call something is only noted, as a `_Call` with the name of what it
calls, and only the names by which NumPy writes an array may be noted. Anything else is refused.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import math
import os
import pickletools
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.errors import BadFileError, read_first
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
        names = _texts(_read_pickle(path, content).get("label_names"))
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
    batch = _read_pickle(path, content)
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

_MOST_INSTRUCTIONS = 200_000  # a published batch has under 50,000

# NumPy 1 has numpy.core where NumPy 2 has numpy._core. _codecs.encode is how Python 3 writes bytes in protocol 2: as text.
_NAMES = {
    *("numpy ndarray", "numpy dtype", "_codecs encode"),
    *(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")),
    *(f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")),
}


class _RefusedError(ValueError):
    """An instruction that no batch needs, or in a place where it means nothing."""


@dataclass
class _Name:
    """Something that a pickle names in order to call it."""

    name: str


@dataclass
class _Call:
    """What a pickle would call, with what, and what it would then set on the result. Nothing is called."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def _read_pickle(path: Path, content: bytes | bytearray) -> dict[str, Any]:
    """The dictionary in a pickle, as data: numbers, texts, bytes, lists, tuples, dictionaries, and `_Call`s of NumPy's."""
    machine, where = _Pickle(), "at its end"
    try:
        for count, (opcode, arg, position) in enumerate(pickletools.genops(content)):
            where = f"{opcode.name} at byte {position}"
            if count >= _MOST_INSTRUCTIONS:
                raise _RefusedError(f"a batch has at most {_MOST_INSTRUCTIONS} instructions")
            machine.step(opcode.name, arg)
        result = machine.pop()
    except _RefusedError as error:
        raise BadFileError(path, len(content), f"pickle instruction {where}: {error}") from error
    except (ValueError, OverflowError) as error:  # genops: an unknown instruction, or the end before STOP
        raise BadFileError(path, len(content), f"not a whole pickle, after {where}: {error}") from error
    if not isinstance(result, dict):
        raise BadFileError(path, len(content), f"a dictionary must be pickled in it, got {type(result).__name__.strip('_')}")
    return result


class _Pickle:
    """The stack machine of the pickle format, without the instructions that run something.

    A list, tuple or dictionary is made by pushing a mark, then its items, then the instruction that takes all down to the
    mark. `memo` holds what is used again.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def step(self, opcode: str, arg: Any) -> None:
        if opcode in _PUSHED:
            self.stack.append(_PUSHED[opcode](arg))
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, arg)
        else:
            raise _RefusedError("holds more than data, or what no batch needs; nothing of it was run")

    def pop(self, kind: type = object) -> Any:
        """The top of the stack, which must be of a kind and above the last mark."""
        top = self._top(kind)
        self.stack.pop()
        return top

    def _top(self, kind: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _RefusedError("needs something on the stack")
        if not isinstance(self.stack[-1], kind):
            raise _RefusedError(f"needs a {kind.__name__.strip('_')}, got a {type(self.stack[-1]).__name__.strip('_')}")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise _RefusedError("needs a mark")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, arg: None) -> None:
        self.marks.append(len(self.stack))

    def append(self, arg: None) -> None:
        item = self.pop()
        self._top(list).append(item)

    def appends(self, arg: None) -> None:
        items = self.pop_to_mark()
        self._top(list).extend(items)

    def set_item(self, arg: None) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def set_items(self, arg: None) -> None:
        self._set(self.pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        """Python 2's texts are bytes: both kinds of keys become str."""
        target = self._top(dict)
        keys = _texts(items[::2])
        if keys is None or len(items) % 2:
            raise _RefusedError("needs pairs of a text and a value")
        target.update(zip(keys, items[1::2], strict=True))

    def make_tuple(self, arg: None) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def make_short_tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(items[::-1]))

    def name(self, name: str) -> None:
        if name not in _NAMES:
            raise _RefusedError(f"names {name[:80]!r}, which is not NumPy's way to write an array; nothing of it was run")
        self.stack.append(_Name(name))

    def stack_name(self, arg: None) -> None:
        name, module = self.pop(str), self.pop(str)
        self.name(f"{module} {name}")

    def call(self, arg: None) -> None:
        args, name = self.pop(tuple), self.pop(_Name)
        self.stack.append(self._encoded(*args) if name.name == "_codecs encode" else _Call(name.name, args))

    def _encoded(self, text: Any = None, encoding: Any = None, *more: Any) -> bytes:
        """Bytes that Python 3 wrote as text. One long text may be asked for often: what that takes has a bound."""
        if not isinstance(text, str) or encoding != "latin1" or more:
            raise _RefusedError("needs a text and 'latin1'")
        self.encoded += len(text)
        if self.encoded > _LARGEST_FILE:
            raise _RefusedError(f"makes more than {_LARGEST_FILE} bytes")
        try:
            return _latin1(text)
        except UnicodeEncodeError as error:
            raise _RefusedError(f"needs a text whose characters stand for bytes: {error}") from error

    def build(self, arg: None) -> None:
        state = self.pop()
        self._top(_Call).state = state

    def put(self, key: int) -> None:
        self.memo[key] = self._top(object)

    def memoize(self, arg: None) -> None:
        self.put(len(self.memo))

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise _RefusedError(f"needs what was stored as {key}, got nothing")
        self.stack.append(self.memo[key])


def _latin1(text: str) -> bytes:
    """Python 2's texts are bytes; pickletools gives them as text, byte for byte."""
    return text.encode("latin-1")


def _itself(value: Any) -> Any:
    return value


_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE"], _itself),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"], _itself),
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], _latin1),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
}

_ACTIONS: dict[str, Callable[[_Pickle, Any], None]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], lambda machine, arg: None),
    "MARK": _Pickle.mark,
    "APPEND": _Pickle.append,
    "APPENDS": _Pickle.appends,
    "SETITEM": _Pickle.set_item,
    "SETITEMS": _Pickle.set_items,
    "TUPLE": _Pickle.make_tuple,
    "TUPLE1": lambda machine, arg: machine.make_short_tuple(1),
    "TUPLE2": lambda machine, arg: machine.make_short_tuple(2),
    "TUPLE3": lambda machine, arg: machine.make_short_tuple(3),
    "GLOBAL": _Pickle.name,
    "STACK_GLOBAL": _Pickle.stack_name,
    "REDUCE": _Pickle.call,
    "BUILD": _Pickle.build,
    "BINPUT": _Pickle.put,
    "LONG_BINPUT": _Pickle.put,
    "MEMOIZE": _Pickle.memoize,
    "BINGET": _Pickle.get,
    "LONG_BINGET": _Pickle.get,
}


def _texts(values: Any) -> list[str] | None:
    """A list of str, or of bytes in Python 2's way, as str; None for anything else."""
    if not isinstance(values, list) or not all(isinstance(value, (str, bytes)) for value in values):
        return None
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]


def _bytes_array(value: Any) -> np.ndarray | None:
    """The uint8 matrix that a `_Call` stands for; None for anything else. NumPy pickles one in two ways."""
    match value:
        case _Call(name, _, (_, shape, dtype, False, data)) if name.endswith("_reconstruct"):
            pass
        case _Call(name, (data, dtype, shape, "C")) if name.endswith("_frombuffer"):
            pass
        case _:
            return None
    match dtype, shape, data:
        case _Call("numpy dtype", ("u1" | b"u1", *_)), (int(n), int(width)), bytes() | bytearray():
            fits = min(n, width) >= 0 and math.prod(shape) == len(data)
            return np.frombuffer(data, np.uint8).reshape(n, width) if fits else None
    return None
