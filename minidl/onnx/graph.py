"""An ONNX graph while it is being made: nodes, and what they take: weights (initializers) and constants (nodes too)."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from minidl.onnx.errors import OnnxError

OPSET = 18
IR_VERSION = 8  # the file format that came with opset 18


class Graph:
    """Nodes in the order in which they were added, and weights by name. Values are strings, their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.constants: list[onnx.NodeProto] = []  # they come before the others
        self.place = ""  # where the op that is being written ran, the first part of its nodes' names
        self._numbers: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._names: set[str] = set()

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """A node of one output, whose name comes back. Missing optional inputs are "", and those at the end are left out."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        name = self.unused(f"{self.place}/{op_type}" if self.place else op_type)
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def unused(self, wanted: str) -> str:
        """A name that nothing has: the wanted one, or with a number."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        """A parameter or buffer of the model: what a program that reads the file may train."""
        name = self.unused(name)
        self.weights[name] = np.array(array, order="C")
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A number, or an array of them, that belongs to the ops and is not trained; equal ones are kept once."""
        array = np.array(value, dtype, order="C")
        key = array.dtype.str, array.tobytes(), array.shape
        if key not in self._numbers:
            name = self._numbers[key] = self.unused("constant")
            self.constants.append(helper.make_node("Constant", [], [name], name, value=initializer(name, array)))
        return self._numbers[key]

    def ints(self, *values: int) -> str:
        """A list of int64: sizes, axes, positions."""
        return self.constant(list(values), np.int64)

    def cast(self, x: str, dtype: Any) -> str:
        """x in another dtype."""
        return self.add("Cast", [x], to=onnx_dtype("cast", dtype))


def onnx_dtype(title: str, dtype: Any) -> int:
    """ONNX's number for a dtype. OnnxError if it has none."""
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (KeyError, ValueError) as error:
        raise OnnxError(f"export: {title}: ONNX has no dtype {dtype}") from error


def initializer(name: str, array: np.ndarray) -> onnx.TensorProto:
    """A constant as ONNX keeps it, its elements in the file."""
    onnx_dtype(name, array.dtype)
    return numpy_helper.from_array(array, name)
