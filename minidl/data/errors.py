"""Reading data files within bounds, and what can be wrong with them.

An exception says which file, how large it is, and why. A file that is not there is a FileNotFoundError; one that the disk
cannot deliver is another OSError.
"""

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterable

import numpy as np

_BLOCK = 1 << 20  # bytes; nothing larger is set aside on the word of a header


class BadFileError(RuntimeError):
    """A data file that is truncated, mislabelled or altered. `path`, `size` in bytes and `reason` say which and why."""

    path: str
    size: int
    reason: str
    _what = "does not hold what it should"

    def __init__(self, path: str | os.PathLike[str], size: int, reason: str) -> None:
        super().__init__(f"{type(self).__name__}: {os.fspath(path)} ({size} bytes) {self._what}: {reason}")
        self.path, self.size, self.reason = os.fspath(path), size, reason

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[str, int, str]]:
        return type(self), (self.path, self.size, self.reason)


class BadImageError(BadFileError):
    """A file that does not hold a whole image."""

    _what = "is not a readable image"


def read_first(path: str | os.PathLike[str], most: int) -> bytearray:
    """The first `most` bytes of a file, or all if it has fewer; of a name that ends in .gz, of what is packed in it.

    Memory is taken for what is there, not for what is asked for. BadFileError: .gz content that is truncated or altered before
    that, or no gzip at all. An OSError of the file system passes through.
    """
    content = bytearray()
    packed = os.fspath(path).endswith(".gz")
    try:
        with gzip.open(path) if packed else open(path, "rb") as stream:
            while block := stream.read(min(most - len(content), _BLOCK)):
                content += block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFileError(path, os.path.getsize(path), f"not a whole gzip file: {error}") from error
    return content


def npz_arrays(content: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names from the content of a .npz file, as `np.savez` writes it.

    No pickle is read, and nothing packed, so that no array is larger than the file. ValueError for a packed one; a file that is
    damaged gives whatever zipfile, zlib and NumPy raise.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"arrays must be stored as they are, got packed ones: {packed}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}
