"""Caffe's AlexNet: bvlc_alexnet and bvlc_reference_caffenet, from .caffemodel files, without Caffe and without protoc.

A .caffemodel is a message in the wire format of Protocol Buffers: fields, each a number with the kind of its value, then the
value. Of Caffe's messages these fields are read, all others are passed over:

    NetParameter      2 layers (V1LayerParameter)   100 layer (LayerParameter)
    V1LayerParameter  4 name   5 type, a number     6 blobs
    LayerParameter    1 name   2 type, a text       7 blobs
    BlobProto         7 shape  5 data, floats       8 double_data     1 num  2 channels  3 height  4 width, of older files
    BlobShape         1 dim

Caffe's images are BGR, from 0 to 255, minus a mean image: conv1's input channels are turned round, and so are the mean's.

Source: BVLC/caffe, src/caffe/proto/caffe.proto; the encoding page of Protocol Buffers' documentation.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidl.convert.tables import CAFFE, renamed
from minidl.data.errors import BadFileError

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # kinds of values
_TYPES = {4: "Convolution", 14: "InnerProduct"}  # of V1 layers
_DEEPEST = 50  # levels of { in a .prototxt


class _DamagedError(ValueError):
    """Bytes that are no message."""


@dataclass
class _Layer:
    name: str = ""
    type: str = ""
    blobs: list[np.ndarray] = field(default_factory=list)


def from_caffe(
    path: str | os.PathLike[str], deploy: str | os.PathLike[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(the parameters under minidl's names, the variant and profile of AlexNet that they fit), from a .caffemodel file.

    deploy : the net's .prototxt, to be compared with what is in the file.

    The profile is "caffenet" where pool1 stands before norm1, else "caffe". BadFileError: a file is damaged or another kind of
    file, or what is in it is not AlexNet.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        layers = _layers(memoryview(content))
    except _DamagedError as error:
        raise BadFileError(path, len(content), f"not a whole .caffemodel: {error}") from error
    found = {}
    for layer in layers:
        for i, blob in enumerate(layer.blobs):
            key = f"{layer.name} blob {i}"
            if key in found:
                raise BadFileError(path, len(content), f"layers must have names of their own, got {layer.name!r} twice")
            found[key] = blob
    dimensions = {row.name: len(row.shape) for row in CAFFE}
    fitted = {key: _without_ones(blob, dimensions.get(key, blob.ndim)) for key, blob in found.items()}
    arrays = renamed(path, fitted, CAFFE)
    for layer in layers:
        wanted = "InnerProduct" if layer.name.startswith("fc") else "Convolution"
        if layer.blobs and layer.type != wanted:
            raise BadFileError(path, len(content), f"{layer.name} must be of the type {wanted}, got {layer.type[:80]!r}")
    if deploy is not None:
        _check_deploy(Path(deploy), arrays)
    arrays["conv1.weight"] = arrays["conv1.weight"][:, ::-1]
    names = [layer.name for layer in layers]
    pool_first = "norm1" in names and "pool1" in names and names.index("pool1") < names.index("norm1")
    return arrays, {"variant": "two_towers", "profile": "caffenet" if pool_first else "caffe"}


def mean_from_caffe(path: str | os.PathLike[str]) -> np.ndarray:
    """The mean image in a .binaryproto file, (H, W, 3), RGB. BadFileError: it is damaged, or no image of three channels."""
    path = Path(path)
    content = path.read_bytes()
    try:
        mean = _blob(memoryview(content))
    except _DamagedError as error:
        raise BadFileError(path, len(content), f"not a whole .binaryproto: {error}") from error
    mean = _without_ones(mean, 3)
    if mean.ndim != 3 or mean.shape[0] != 3:
        raise BadFileError(path, len(content), f"a mean image must have the shape (3, H, W), got {mean.shape}")
    return np.ascontiguousarray(mean[::-1].transpose(1, 2, 0))


def _without_ones(array: np.ndarray, dimensions: int) -> np.ndarray:
    """Older files have four sizes for everything: (1, 1, 1, 96) is a bias (96,)."""
    more = array.ndim - dimensions
    return array.reshape(array.shape[more:]) if more > 0 and set(array.shape[:more]) == {1} else array


# ------------------------------------------------------------------------------------------------------ the wire format


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """(the number, the place after it): seven bits a byte, lowest first; the top bit says that more follow."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise _DamagedError("it ends within a number")
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return number, place
    raise _DamagedError("a number has more than 10 bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(field's number, kind, value): an int, or for _BYTES, _FOUR and _EIGHT the bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, place = _varint(data, place)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise _DamagedError(f"field {number} is of the kind {kind}, which Caffe does not use")
        if number == 0 or length > len(data) - place:
            raise _DamagedError(f"field {number} has {length} bytes, of which {len(data) - place} are there")
        yield number, kind, data[place : place + length]
        place += length


def _wanted(data: memoryview, fields: dict[int, tuple[int, ...]]) -> Iterator[tuple[int, int, Any]]:
    """The fields with these numbers, which must be of one of these kinds."""
    for number, kind, value in _fields(data):
        if number not in fields:
            continue
        if kind not in fields[number]:
            raise _DamagedError(f"field {number} must be of the kind {fields[number][0]}, got {kind}")
        yield number, kind, value


def _text(value: memoryview) -> str:
    return bytes(value).decode(errors="replace")


def _layers(data: memoryview) -> list[_Layer]:
    return [_layer(value, number) for number, _, value in _wanted(data, {2: (_BYTES,), 100: (_BYTES,)})]


def _layer(data: memoryview, kind_of_layer: int) -> _Layer:
    name, type_, blobs = (4, 5, 6) if kind_of_layer == 2 else (1, 2, 7)
    layer = _Layer()
    kinds: dict[int, tuple[int, ...]] = {name: (_BYTES,), type_: (_VARINT if kind_of_layer == 2 else _BYTES,), blobs: (_BYTES,)}
    for number, _, value in _wanted(data, kinds):
        if number == name:
            layer.name = _text(value)
        elif number == blobs:
            layer.blobs.append(_blob(value))
        else:
            layer.type = _TYPES.get(value, f"V1 type {value}") if kind_of_layer == 2 else _text(value)
    return layer


def _blob(data: memoryview) -> np.ndarray:
    old = [0, 0, 0, 0]
    shape: list[int] | None = None
    parts = {5: bytearray(), 8: bytearray()}
    kinds = {**dict.fromkeys((1, 2, 3, 4), (_VARINT,)), 7: (_BYTES,), 5: (_BYTES, _FOUR), 8: (_BYTES, _EIGHT)}
    for number, _, value in _wanted(data, kinds):
        if number in parts:
            parts[number] += value
        elif number == 7:
            shape = _shape(value)
        else:
            old[number - 1] = value
    used = 8 if parts[8] else 5
    numbers = bytes(parts[used])
    dtype = np.dtype("<f8" if used == 8 else "<f4")
    sizes = old if shape is None else shape
    # a size of 0 would let the others be of any length
    if math.prod(sizes) * dtype.itemsize != len(numbers) or max(sizes, default=1) > max(len(numbers), 1):
        raise _DamagedError(f"a blob of the shape {str(tuple(sizes))[:80]} has {len(numbers)} bytes of {dtype}")
    return np.frombuffer(numbers, dtype).reshape(sizes)


def _shape(data: memoryview) -> list[int]:
    sizes: list[int] = []
    for _, kind, value in _wanted(data, {1: (_BYTES, _VARINT)}):
        if kind == _VARINT:
            sizes.append(value)
            continue
        place = 0
        while place < len(value):
            size, place = _varint(value, place)
            sizes.append(size)
    if len(sizes) > 32:
        raise _DamagedError(f"a blob has {len(sizes)} dimensions")
    return sizes


# ---------------------------------------------------------------------------------------------------------- the prototxt

_TOKEN = re.compile(r"""\s*(?:#[^\n]*\s*)*("[^"\n]*"|'[^'\n]*'|[\w.+-]+|[{}:;,]|\S|$)""")


def _parse(path: Path) -> dict[str, list[Any]]:
    """A .prototxt as {key: [value, ...]}, values being texts or dicts of the same kind."""
    content = path.read_bytes()

    def wrong(what: str) -> BadFileError:
        return BadFileError(path, len(content), f"not a .prototxt: line {text.count(chr(10), 0, place) + 1}: {what}")

    text = content.decode(errors="replace")
    stack: list[dict[str, list[Any]]] = [{}]
    key, colon, place = None, False, 0
    while True:
        match = _TOKEN.match(text, place)
        token, place = (match[1], match.end()) if match else ("", place)
        if not token:
            break
        if token == "{":
            if key is None or len(stack) > _DEEPEST:
                raise wrong(f"{{ needs a name before it, and at most {_DEEPEST} others around it")
            inner: dict[str, list[Any]] = {}
            stack[-1].setdefault(key, []).append(inner)
            stack.append(inner)
            key, colon = None, False
        elif token == "}":
            if key is not None or len(stack) == 1:
                raise wrong("} closes nothing")
            stack.pop()
        elif token == ":":
            if key is None or colon:
                raise wrong("a colon needs a name before it")
            colon = True
        elif token in ";,":
            continue
        elif key is None:
            if not re.fullmatch(r"\w+", token):
                raise wrong(f"a name must stand here, got {token[:20]!r}")
            key = token
        elif not colon:
            raise wrong(f"a colon must stand after {key[:80]!r}, got {token[:20]!r}")
        else:
            stack[-1].setdefault(key, []).append(token.strip("\"'"))
            key, colon = None, False
    if key is not None or len(stack) > 1:
        raise wrong(f"{len(stack) - 1} {{ are not closed, or a value is missing at its end")
    return stack[0]


def _check_deploy(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Are the layers of a .prototxt those of the weights? BadFileError names the first that differs."""
    net, size = _parse(path), path.stat().st_size
    layers = {
        _first(layer, "name"): layer for layer in [*net.get("layer", []), *net.get("layers", [])] if isinstance(layer, dict)
    }
    for key, array in arrays.items():
        name, _, kind = key.partition(".")
        if kind == "bias":
            continue
        if name not in layers:
            raise BadFileError(path, size, f"must have the layer {name}, got {', '.join(map(str, layers))[:200] or 'none'}")
        dense = array.ndim == 2
        settings = _first(layers[name], "inner_product_param" if dense else "convolution_param")
        wanted = {"num_output": len(array)}
        if not dense:
            wanted |= {"kernel_size": array.shape[2], "group": 2 if name in ("conv2", "conv4", "conv5") else 1}
        for setting, number in wanted.items():
            got = _first(settings, setting) if isinstance(settings, dict) else None
            got = "1" if got is None and setting == "group" else got
            if got != str(number):
                raise BadFileError(path, size, f"{name}: {setting} must be {number} as in the weights, got {str(got)[:80]}")


def _first(message: dict[str, list[Any]], key: str) -> Any:
    return message.get(key, [None])[0]
