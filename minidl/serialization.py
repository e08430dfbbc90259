"""save and load: tensors, and dicts and lists of them, in one file of the safetensors format.

A file holds numbers and nothing that runs: no pickle, no objects. A state_dict is stored under its own names, so that any
program that reads safetensors can read it. The dict's order, which the format does not keep, and what else a dict or a list
contains (numbers, words, None, further dicts) stand as JSON in the file's metadata, with the arrays' names in their places.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from minidl.checkpoint import write_whole
from minidl.device import Device
from minidl.tensor import Tensor

_STRUCTURE = "minidl"  # the metadata's entry
_ARRAY = "$tensor"  # stands in the structure for an array: {"$tensor": its name}
_PAIRS = "$dict"  # a dict whose keys are not all words: {"$dict": [[key, value], ...]}


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write a tensor, an array, or dicts and lists of them and of numbers, words, bools and None; whole, or not at all.

    f : a path, or a file that is open for writing bytes.

    TypeError for any other object, with its place.
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray] = {}
    structure = _taken_apart(obj, "", arrays)
    content = to_bytes(arrays, {_STRUCTURE: json.dumps(structure)})
    if isinstance(f, (str, os.PathLike)):
        write_whole(Path(f), content)
    else:
        f.write(content)


def load(f: str | os.PathLike[str] | IO[bytes], map_location: Any = None, weights_only: bool = True) -> Any:
    """What save has written, with tensors on the host; of another program's safetensors file a dict of tensors.

    map_location : put the tensors on this device.
    weights_only : must be True: nothing else can be loaded.

    ValueError: a pickle, as PyTorch's .pt files are; a file in no known format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    if not weights_only:
        raise ValueError(
            "load: weights_only=False asks for arbitrary objects, which are pickles and can run code; minidl reads none"
        )
    content = Path(f).read_bytes() if isinstance(f, (str, os.PathLike)) else f.read()
    name = f"{os.fspath(f)}: " if isinstance(f, (str, os.PathLike)) else ""
    if content[:2] == b"PK" or content[:1] == b"\x80":
        raise ValueError(
            f"load: {name}it is a pickle (PyTorch's torch.save makes them), and reading one can run any code; in PyTorch, "
            "safetensors.torch.save_file(state_dict, path) writes what minidl.load reads"
        )
    try:
        arrays = from_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"load: {name}must be in the safetensors format, got {error!r}") from error
    tensors = {
        key: Tensor(array, device=Device("cpu:0" if map_location is None else map_location)) for key, array in arrays.items()
    }
    return _put_together(json.loads(metadata[_STRUCTURE]), tensors) if _STRUCTURE in metadata else tensors


def _taken_apart(obj: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """obj as JSON can hold it; its arrays go into `arrays`, each under the name of its place."""
    if isinstance(obj, (Tensor, np.ndarray)):
        host = obj.device.to_host(obj.data) if isinstance(obj, Tensor) else obj
        name = place or "tensor"
        while name in arrays:  # {"a.b": x, "a": {"b": y}}
            name += "'"
        arrays[name] = np.array(host, order="C")
        return {_ARRAY: name}
    inside = f"{place}." if place else ""
    if isinstance(obj, Mapping):
        pairs = [(key, _taken_apart(value, f"{inside}{key}", arrays)) for key, value in obj.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in obj):
            return dict(pairs)
        if not all(key is None or isinstance(key, (str, int, float)) for key in obj):
            raise TypeError(
                f"save: keys must be words or numbers, got {next(type(k).__name__ for k in obj)} in {place or 'the dict'}"
            )
        return {_PAIRS: [list(pair) for pair in pairs]}
    if isinstance(obj, (list, tuple)):
        return [_taken_apart(value, f"{inside}{i}", arrays) for i, value in enumerate(obj)]
    if isinstance(obj, np.generic):
        return obj.item()
    if obj is None or isinstance(obj, (str, int, float)):
        return obj
    raise TypeError(
        f"save: tensors, numbers, words, None, dicts and lists can be saved, got {type(obj).__name__} at {place or 'the top'}; "
        "of a model save its state_dict()"
    )


def _put_together(structure: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(structure, list):
        return [_put_together(value, tensors) for value in structure]
    if not isinstance(structure, dict):
        return structure
    if _ARRAY in structure:
        return tensors[structure[_ARRAY]]
    pairs = structure[_PAIRS] if _PAIRS in structure else structure.items()
    return {key: _put_together(value, tensors) for key, value in pairs}
