"""Plain sequential nets of Keras, convolutions, then dense layers, and batch norms among them, from HDF5 files. Needs h5py.

    .h5          a group for each layer; its attribute weight_names says which data sets are its kernel and its bias, and
                 layer_names of the group above which layers there are. In a file of the whole model that is model_weights
    .weights.h5  layers/conv2d/vars/0 the kernel, .../1 the bias; layers/conv2d_1, ...: a name has the layer's kind and number.
                 Which kind comes before which is not in the file

A batch norm has gamma, beta, the moving mean and the moving variance, in this order.

Keras has maps in channels-last order, kernels (KH, KW, C, O), dense weights (I, O). What a dense layer after a flatten sees is
in the order (H, W, C) there and (C, H, W) here, so that its weights change places.

Source: keras-team/keras, src/legacy/saving/legacy_h5_format.py and src/saving/saving_lib.py.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.errors import BadFileError


def from_keras(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{"conv2d.weight": (O, C, KH, KW), "conv2d.bias": (O,), "dense.weight": (O, I), ...}, in the net's order; of a
    .weights.h5 convolutions, dense layers, batch norms. These have "weight", "bias", "running_mean" and "running_var", (C,).

    BadFileError: it is no such file, a layer is of another kind, shapes don't follow from each other, or arrays are packed, in
    other files, or larger than the file together. ImportError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("from_keras: needs h5py: pip install 'minidl[keras]'") from error
    path = Path(path)
    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            reader = _Reader(h5py, path, size)
            layers = reader.layers(file)
    except BadFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError) as error:
        raise BadFileError(path, size, f"not a whole HDF5 file of Keras: {error}") from error
    return _converted(path, size, layers, reader.in_order)


class _Reader:
    """Arrays of a file by layers. No link out of the file is followed, and nothing is unpacked."""

    def __init__(self, h5py: Any, path: Path, size: int) -> None:
        self.h5py, self.path, self.size = h5py, path, size
        self.taken = 0  # bytes
        self.in_order = True  # are layers in the net's order?

    def wrong(self, what: str) -> BadFileError:
        return BadFileError(self.path, self.size, what)

    def layers(self, file: Any) -> list[tuple[str, list[np.ndarray]]]:
        """[(name, [kernel, bias]), ...]; layers without arrays are left out."""
        root = self.member(file, "model_weights") if "model_weights" in file else file
        if b"channels_first" in bytes(str(file.attrs.get("model_config", "")), "utf-8"):
            raise self.wrong("maps must be in channels_last order, got channels_first")
        if "layer_names" in root.attrs:
            groups = [(name, self.member(root, name)) for name in self.names(root, "layer_names")]
            found = [(name, [self.array(group, key) for key in self.names(group, "weight_names")]) for name, group in groups]
        elif "layers" in root:
            found, self.in_order = self.of_weights(self.member(root, "layers")), False
        else:
            raise self.wrong("must have layer_names or a group layers, as Keras writes them")
        return [(name, arrays) for name, arrays in found if arrays]

    def of_weights(self, group: Any) -> list[tuple[str, list[np.ndarray]]]:
        """Of layers/NAME/vars/0, ...: convolutions by their numbers, then dense layers, then batch norms."""
        found = []
        for name in group:
            variables = self.member(self.member(group, name), "vars")
            keys = sorted(variables, key=lambda key: (len(key), key))
            found.append((name, [self.array(variables, key) for key in keys]))

        def place(layer: tuple[str, list[np.ndarray]]) -> tuple[int, int]:
            number = re.search(r"_(\d{1,9})$", layer[0])
            return -max((array.ndim for array in layer[1]), default=0), int(number[1]) if number else 0

        return sorted(found, key=place)

    def names(self, group: Any, attribute: str) -> list[str]:
        values = [*np.atleast_1d(group.attrs[attribute])]
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]

    def member(self, group: Any, name: str) -> Any:
        """What lies under a name in this file. `name` may have parts, as dense/kernel:0."""
        for part in name.split("/"):
            if not isinstance(group, self.h5py.Group) or part in ("", ".", ".."):
                raise self.wrong(f"{name[:80]!r} must be a name of groups and data sets")
            if not isinstance(group.get(part, getlink=True), self.h5py.HardLink):
                raise self.wrong(f"{name[:80]!r} must lie in this file, got a link to elsewhere or nothing")
            group = group[part]
        return group

    def array(self, group: Any, name: str) -> np.ndarray:
        data = self.member(group, name)
        if not isinstance(data, self.h5py.Dataset) or data.dtype.kind != "f" or data.shape is None:
            raise self.wrong(f"{data.name} must be an array of floating point numbers")
        if data.is_virtual or data.external or data.id.get_storage_size() != data.nbytes or data.chunks is not None:
            raise self.wrong(f"{data.name} must be stored as it is in this file, {data.nbytes} bytes")
        self.taken += data.nbytes
        if self.taken > self.size:
            raise self.wrong(f"arrays must lie in the {self.size} bytes of the file, got {self.taken} bytes of them")
        return np.asarray(data)


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _converted(path: Path, size: int, layers: list[tuple[str, list[np.ndarray]]], in_order: bool) -> dict[str, np.ndarray]:
    """The arrays as minidl has them. Each layer must fit to the one before; where that is not known, a batch norm to any."""
    result: dict[str, np.ndarray] = {}
    inputs: int | None = None  # channels, or units
    was_map = False
    before: set[int] = set()  # outputs of layers
    for name, arrays in layers:
        if len(arrays) == len(_BATCH_NORM) and all(array.ndim == 1 and len(array) == len(arrays[0]) for array in arrays):
            channels = len(arrays[0])
            if inputs is not None and channels not in ({inputs} if in_order else before):
                raise BadFileError(
                    path, size, f"{name} must have the {inputs} outputs of the layer before, got {channels} channels"
                )
            result |= {f"{name}.{part}": array for part, array in zip(_BATCH_NORM, arrays, strict=True)}
            continue
        kernel = arrays[0]
        outputs = kernel.shape[-1] if kernel.ndim else 0
        if kernel.ndim not in (2, 4) or len(arrays) > 2 or (len(arrays) == 2 and arrays[1].shape != (outputs,)):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise BadFileError(path, size, f"{name} must be a Conv2D, a Dense or a whole BatchNormalization, got {shapes}")
        if kernel.ndim == 4:
            fits = inputs is None or (was_map and kernel.shape[2] == inputs)
            weight = kernel.transpose(3, 2, 0, 1)
        elif was_map and inputs:
            places, rest = divmod(kernel.shape[0], inputs)
            fits = rest == 0
            if fits:
                weight = kernel.reshape(places, inputs, outputs).transpose(2, 1, 0).reshape(outputs, -1)
        else:
            fits, weight = inputs is None or kernel.shape[0] == inputs, kernel.T
        if not fits:
            raise BadFileError(path, size, f"{name} must take the {inputs} outputs of the layer before, got {kernel.shape}")
        result[f"{name}.weight"] = np.ascontiguousarray(weight)
        if len(arrays) == 2:
            result[f"{name}.bias"] = arrays[1]
        inputs, was_map = outputs, kernel.ndim == 4
        before.add(outputs)
    if not result:
        raise BadFileError(path, size, "must have layers with weights, got none")
    return result
