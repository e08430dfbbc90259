"""PyTorch's .pth files, read and written without PyTorch and without running what is in them; torchvision's AlexNet.

`torch.save` writes a zip archive of entries that are not packed, in one folder:

    data.pkl      a pickle of the object, in which a tensor is a call with its storage's name, offset, shape and strides
    data/0, ...   the storages: numbers, one after the other
    byteorder     little or big

The pickle is followed as data (minidl/data/pickles.py). The only names in it are those of the kinds of storage, of OrderedDict
and of the two functions that put a tensor and a parameter together; they are not called.

Source: files that PyTorch 2.13 wrote; the documentation of its torch.save.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checkpoint import write_whole
from minidl.convert.tables import TORCHVISION, renamed
from minidl.convert.weights import load_weights
from minidl.data.errors import BadFileError
from minidl.data.pickles import Name, PickleMachine, RefusedError, kind_of, read_pickle

_DTYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_TENSOR, _PARAMETER, _ORDERED = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"
_LARGEST_PICKLE = 1 << 26  # bytes, of data.pkl; torchvision's AlexNet has under 4000
_WRAPPED = ("state_dict", "model")  # where training programs put a model's state dict in what they save


def from_torchvision(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The parameters of torchvision's alexnet under minidl's names, from a state dict in a .pth or .safetensors file.

    BadFileError: it is no such file, or its tensors are not those of `tables.TORCHVISION`.
    """
    path = Path(path)
    arrays = load_weights(path)[0] if path.suffix == ".safetensors" else _state_dict(path, read_pth(path))
    return renamed(path, arrays, TORCHVISION)


def to_torchvision(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """minidl's parameters, read from the file `path`, under torchvision's names."""
    return renamed(Path(path), arrays, TORCHVISION, back=True)


def _state_dict(path: Path, content: dict[Any, Any]) -> dict[str, np.ndarray]:
    """The dict of tensors in what was saved: it, or what stands in it under a usual name."""
    found = next((content[name] for name in _WRAPPED if isinstance(content.get(name), dict)), content)
    for name, value in found.items():
        if not isinstance(value, np.ndarray) or not isinstance(name, str):
            raise BadFileError(
                path, path.stat().st_size, f"must be a state dict, of tensors by name, got {name!r}: {kind_of(value)}"
            )
    return found


# -------------------------------------------------------------------------------------------------------------- reading


def read_pth(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """The dict in a .pth file that torch.save wrote: tensors as read-only arrays, numbers, texts, lists, tuples and dicts.

    BadFileError: another kind of file, one that holds anything else (named; nothing of it is run), one that is damaged, or
    whose containers hold themselves.
    """
    path = Path(path)
    content = path.read_bytes()
    if content[:1] == b"\x80":
        raise BadFileError(
            path,
            len(content),
            "is a bare pickle, as PyTorch wrote before 1.6, and minidl reads the zip format alone; in PyTorch, "
            "torch.save(torch.load(path, weights_only=True), path) writes that",
        )
    if content[:4] != b"PK\x03\x04":
        raise BadFileError(path, len(content), "must be the zip archive that torch.save writes")
    try:
        entries = _entries(content)
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        zlib.error,
        struct.error,
    ) as error:
        raise BadFileError(path, len(content), f"not a whole zip archive: {error}") from error
    if "data.pkl" not in entries:
        what = "TorchScript, which is a program" if "constants.pkl" in entries else "no file of torch.save"
        raise BadFileError(path, len(content), f"must have an entry data.pkl, got {what}")
    if entries.get("byteorder", b"little") != b"little":
        raise BadFileError(path, len(content), f"byteorder must be little, got {entries['byteorder'][:20]!r}")
    if len(entries["data.pkl"]) > _LARGEST_PICKLE:
        raise BadFileError(
            path, len(content), f"data.pkl must have at most {_LARGEST_PICKLE} bytes, got {len(entries['data.pkl'])}"
        )
    result = read_pickle(path / "data.pkl", entries["data.pkl"], _TorchPickle(entries))
    if _holds_itself(result):
        raise BadFileError(path, len(content), "a container in it holds itself")
    return result


def _entries(content: bytes) -> dict[str, bytes]:
    """The archive's entries by their names without the folder. Nothing is unpacked, so that all are no larger than the file."""
    found: dict[str, bytes] = {}
    total = 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"entries must be stored as they are, got {entry.filename[:80]!r} packed")
            total += entry.file_size
            if total > len(content):  # entries that lie on each other
                raise ValueError(f"entries must lie in the {len(content)} bytes of the file, got {total} bytes of them")
            name = entry.filename.partition("/")[2]
            if name in found:
                raise ValueError(f"entries must have names of their own, got {name[:80]!r} twice")
            found[name] = archive.read(entry)
    return found


class _TorchPickle(PickleMachine):
    """What a state dict is made of."""

    what = "a state dict"
    names = frozenset({*_DTYPES, _TENSOR, _PARAMETER, _ORDERED})
    known_as = "a tensor or a plain container"

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        super().__init__()
        self.entries = entries

    def stored(self, args: tuple[Any, ...]) -> Any:
        """A storage: ("storage", its kind, its name, the device it was on, how many numbers)."""
        match args:
            case ("storage", Name(kind), str(key), str(), int(count)) if kind in _DTYPES:
                pass
            case _:
                raise RefusedError("needs ('storage', kind, name, device, count)")
        numbers, dtype = self.entries.get(f"data/{key}"), np.dtype(_DTYPES[kind])
        if numbers is None:
            raise RefusedError(f"needs the storage data/{key[:80]}, got no such entry")
        if len(numbers) != count * dtype.itemsize:
            raise RefusedError(f"needs {count} numbers of {dtype.itemsize} bytes in data/{key}, got {len(numbers)} bytes")
        return _Storage(np.frombuffer(numbers, dtype))

    def called(self, name: str, args: tuple[Any, ...]) -> Any:
        match name, args:
            case "collections OrderedDict", ():
                return {}
            case "torch._utils _rebuild_parameter", (np.ndarray() as tensor, bool(), dict()):
                return tensor
            case "torch._utils _rebuild_tensor_v2", (
                _Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                bool(),
                dict(),
                *_,
            ):
                return _tensor(storage.numbers, offset, shape, strides)
        raise RefusedError(f"calls {name} with other things than torch.save does: {', '.join(map(kind_of, args))}")

    def attributes(self, state: Any) -> None:
        """A state dict has _metadata as an attribute, which is passed over."""
        if not isinstance(state, dict):
            raise RefusedError("needs a dict of attributes")
        self._top(dict)


@dataclass
class _Storage:
    """The numbers (n,) that tensors share."""

    numbers: np.ndarray


def _tensor(numbers: np.ndarray, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> np.ndarray:
    """A view of the storage, which it must lie in, with no more elements than that has."""
    sizes = (*shape, *strides, offset)
    if len(shape) != len(strides) or len(shape) > 32 or any(type(n) is not int or not 0 <= n < 1 << 40 for n in sizes):
        raise RefusedError(f"needs a shape, strides and an offset of a tensor, got {str((shape, strides, offset))[:200]}")
    count = 1
    for n in shape:
        count *= n
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if count else -1
    if count > len(numbers) or last >= len(numbers):
        raise RefusedError(f"needs a tensor {shape} inside its storage of {len(numbers)} numbers, got the place {last}")
    if not count:
        return np.zeros(shape, numbers.dtype)
    steps = [step * numbers.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)


def _holds_itself(whole: Any) -> bool:
    """Is there a container inside itself? Each is looked into once, without recursion."""
    entered, done = set(), set()
    todo: list[tuple[Any, bool]] = [(whole, False)]
    while todo:
        value, leaving = todo.pop()
        if leaving:
            entered.discard(id(value))
            done.add(id(value))
        elif isinstance(value, (dict, list, tuple)) and id(value) not in done:
            if id(value) in entered:
                return True
            entered.add(id(value))
            todo.append((value, True))
            todo += [(inner, False) for inner in (value.values() if isinstance(value, dict) else value)]
    return False


# -------------------------------------------------------------------------------------------------------------- writing


def write_pth(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """A state dict as `torch.load(path, weights_only=True)` reads it; whole, or not at all.

    TypeError: an array of numbers that have no kind of storage.
    """
    kinds = {np.dtype(code): name for name, code in _DTYPES.items()}
    body, storages = bytearray(), []
    for key, (name, array) in enumerate(arrays.items()):
        if array.dtype not in kinds:
            raise TypeError(f"write_pth: {name} must be of {', '.join(map(str, kinds))}, got {array.dtype}")
        array = np.ascontiguousarray(array).reshape(array.shape)
        strides = tuple(step // array.itemsize for step in array.strides)
        storage = _tuple(_text("storage"), _global(kinds[array.dtype]), _text(str(key)), _text("cpu"), _int(array.size)) + b"Q"
        empty = _global(_ORDERED) + b")R"
        parts = [storage, _int(0), _tuple(*map(_int, array.shape)), _tuple(*map(_int, strides)), b"\x89", empty]
        body += _text(name) + _global(_TENSOR) + _tuple(*parts) + b"R"
        storages.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(_entry("data.pkl"), b"\x80\x02" + _global(_ORDERED) + b")R(" + bytes(body) + b"u.")
        archive.writestr(_entry("byteorder"), b"little")
        for key, numbers in enumerate(storages):
            archive.writestr(_entry(f"data/{key}"), numbers)
        archive.writestr(_entry("version"), b"3\n")
    write_whole(Path(path), content.getvalue())


def _entry(name: str) -> zipfile.ZipInfo:
    """With a fixed time, so that equal arrays give equal bytes."""
    return zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _int(n: int) -> bytes:
    return b"J" + struct.pack("<i", n)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"
