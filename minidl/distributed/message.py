"""What ranks tell one another, as bytes and back, without pickles: reading a message runs no code.

8 bytes      the length of the text, little-endian
text         JSON. Lists are ["list", ...], tuples ["tuple", ...], dicts ["dict", [key, value], ...], arrays
             ["array", dtype, shape], bytes ["bytes", length]; all else is itself
the rest     the arrays' and bytes' own, in order
"""

import json
import math
from typing import Any

import numpy as np

_HEAD = 8  # bytes


def encode(message: Any) -> bytes:
    """None, bools, numbers, strings, bytes, arrays without objects, and lists, tuples and dicts of them. TypeError: others."""
    blobs: list[bytes] = []
    text = json.dumps(_written(message, blobs)).encode()
    return b"".join([len(text).to_bytes(_HEAD, "little"), text, *blobs])


def decode(payload: bytes) -> Any:
    """What was encoded; arrays are in C order."""
    length = int.from_bytes(payload[:_HEAD], "little")
    return _Reader(payload, _HEAD + length).read(json.loads(payload[_HEAD : _HEAD + length]))


def _written(value: Any, blobs: list[bytes]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, bytes):
        blobs.append(value)
        return ["bytes", len(value)]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub":
        blobs.append(value.tobytes())
        return ["array", value.dtype.str, list(value.shape)]
    if isinstance(value, (list, tuple)):
        return ["tuple" if isinstance(value, tuple) else "list", *(_written(inner, blobs) for inner in value)]
    if isinstance(value, dict):
        return ["dict", *([_written(key, blobs), _written(inner, blobs)] for key, inner in value.items())]
    raise TypeError(
        "minidl.distributed: a message is made of None, bools, numbers, strings, bytes, arrays, lists, tuples and dicts, "
        f"got {type(value).__name__}"
    )


class _Reader:
    """Takes blobs from the payload as they come."""

    def __init__(self, payload: bytes, start: int) -> None:
        self.payload, self.start = payload, start

    def read(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        kind, *rest = value
        if kind == "bytes":
            return self._take(rest[0])
        if kind == "array":
            dtype, shape = np.dtype(rest[0]), rest[1]
            return np.frombuffer(self._take(dtype.itemsize * math.prod(shape)), dtype).reshape(shape).copy()
        if kind == "dict":
            return {self.read(key): self.read(inner) for key, inner in rest}
        parts = [self.read(inner) for inner in rest]
        return tuple(parts) if kind == "tuple" else parts

    def _take(self, size: int) -> bytes:
        self.start += size
        return self.payload[self.start - size : self.start]
