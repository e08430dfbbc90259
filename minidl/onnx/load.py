"""load: an ONNX file as a Module that trains.

All of the file is checked before anything runs: operators and their attributes, the order of nodes, the sizes of weights, and
that weights in files beside it lie in its folder.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from minidl.nn.module import Module, Parameter
from minidl.onnx.errors import OnnxError
from minidl.onnx.read import MOST_ELEMENTS, NEWEST_OPSET, OLDEST_OPSET, READERS, Node, Run, array_of
from minidl.tensor import Tensor

_RUNNING = {"BatchNormalization": (3, 4)}  # inputs that are moved in training, and have no gradient
# what an operator's attributes and inputs that do not fit raise in NumPy and minidl
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError)


class OnnxModel(Module):
    """A graph of ONNX: call it with the graph's inputs, in their order; it gives its output, or a tuple of them.

    Weights of floats are parameters under their names in the file, with the dots as modules; running means and variances,
    numbers and integers are buffers. Dropout and BatchNormalization follow `train()` and `eval()`.
    """

    def __init__(self, inputs: list[str], outputs: list[str], steps: list[tuple[str, Run, list[str], str]]) -> None:
        super().__init__()
        self.input_names, self.output_names = inputs, outputs
        self._steps = steps
        self._held: dict[str, tuple[Module, str]] = {}  # a weight's name in the file -> the module that has it, and its name

    def hold(self, name: str, array: np.ndarray, trained: bool) -> None:
        """File a weight."""
        owner: Module = self
        *path, last = name.split(".")
        try:
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, Module())
                owner = owner._modules[part]
            _file(owner, last, array, trained)
        except KeyError:  # no name for a module's attribute
            owner, last = self, f"weight{len(self._held)}"
            _file(owner, last, array, trained)
        self._held[name] = owner, last

    def forward(self, *inputs: Any) -> Any:
        """OnnxError, with the operator, where an input does not fit."""
        if len(inputs) != len(self.input_names):
            raise OnnxError(f"OnnxModel: {len(self.input_names)} inputs are needed ({self.input_names}), got {len(inputs)}")
        values: dict[str, Any] = {"": None}
        values |= {name: getattr(owner, last) for name, (owner, last) in self._held.items()}
        for name, x in zip(self.input_names, inputs, strict=True):
            values[name] = x if isinstance(x, Tensor) else Tensor(x)
        for title, run, takes, gives in self._steps:
            try:
                values[gives] = run(self, [values[name] for name in takes])
            except OnnxError:
                raise
            except _MISFITS as error:
                raise OnnxError(f"OnnxModel: {title}: {error}") from error
        results = tuple(values[name] for name in self.output_names)
        return results[0] if len(results) == 1 else results


def _file(owner: Module, name: str, array: np.ndarray, trained: bool) -> None:
    if trained:
        owner.register_parameter(name, Parameter(array))
    else:
        owner.register_buffer(name, Tensor(array))


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read an ONNX file of opset 7 to 28 as a module, in evaluation, on cpu:0.

    Numbers in files beside it are read if these lie in its folder.
    OnnxError: no ONNX file; an operator, an attribute or an opset that is not known here, by its name; nodes out of order, as
    in a loop; weights that do not fill their shapes, or lie outside the folder.
    """
    path = Path(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise OnnxError(f"load: {path} must be an ONNX file: {error}") from error
    if not proto.graph.node and not proto.graph.output:
        raise OnnxError(f"load: {path} must be an ONNX file with a graph, got none")
    return from_proto(proto, path.parent)


def from_proto(proto: onnx.ModelProto, folder: Path | None = None) -> OnnxModel:
    """A message as a module; `folder` is where the files beside it are. Errors as load's."""
    opset = _opset(proto)
    graph = proto.graph
    _check_names(graph)
    weights = {t.name: array_of(_inside(t, folder), "weight") for t in graph.initializer}
    inputs = [put.name for put in graph.input if put.name not in weights]
    known = {"", *weights, *inputs}
    steps: list[tuple[str, Run, list[str], str]] = []
    running: set[str] = set()
    filled = 0  # elements of weights that are no longer in the file than a shape and a number
    used = frozenset({name for node in graph.node for name in node.input if name} | {out.name for out in graph.output})
    for node in graph.node:
        if not node.output:
            raise OnnxError(f"load: operator {node.op_type} has no output")
        read = _attributes(node, opset, used)
        if node.domain not in ("", "ai.onnx") or node.op_type not in READERS:
            raise OnnxError(f"load: operator {node.domain + '.' if node.domain else ''}{node.op_type} is not known here")
        if node.op_type == "ConstantOfShape" and node.input[0] in weights and "value" in read.attributes:
            made = _filled(read, weights[node.input[0]])
            if made is not None:
                filled += made.size
                if filled > MOST_ELEMENTS:
                    raise read.refuse(f"shapes by themselves may ask for at most {MOST_ELEMENTS} elements, got {filled}")
                weights[node.output[0]] = made
                known.add(node.output[0])
                continue
        unknown = [name for name in node.input if name not in known]
        if unknown:
            raise read.refuse(f"input {unknown[0]!r} is made by no node before it; nodes must be in order, without loops")
        try:
            run = READERS[node.op_type](read)
        except OnnxError:
            raise
        except _MISFITS as error:
            raise read.refuse(str(error)) from error
        if read.attributes:
            raise read.refuse(f"attribute {next(iter(read.attributes))} is not known here")
        running |= {node.input[i] for i in _RUNNING.get(node.op_type, ()) if i < len(node.input)}
        steps.append((read.title, run, list(node.input), node.output[0]))
        known.update(node.output[:1])
    outputs = [out.name for out in graph.output]
    for name in outputs:
        if name not in known:
            raise OnnxError(f"load: output {name!r} is made by no node")
    model = OnnxModel(inputs, outputs, steps)
    for name, array in weights.items():
        model.hold(name, array, array.dtype.kind == "f" and array.ndim > 0 and name not in running)
    return model.eval()


def _check_names(graph: onnx.GraphProto) -> None:
    """OnnxError if a name is no UTF-8: protobuf hands such a one over as bytes."""
    names = [*(value.name for value in (*graph.initializer, *graph.input, *graph.output))]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise OnnxError(f"load: names must be text in UTF-8, got {odd[:80]!r}")


def _opset(proto: onnx.ModelProto) -> int:
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        raise OnnxError(f"load: the opset must be from {OLDEST_OPSET} to {NEWEST_OPSET}, got {versions}")
    return int(versions[0])


def _attributes(node: onnx.NodeProto, opset: int, used: frozenset[str]) -> Node:
    try:
        return Node(node, opset, used)
    except _MISFITS as error:
        raise OnnxError(f"load: operator {node.op_type}: its attributes can't be read: {error}") from error


def _filled(node: Node, sizes: np.ndarray) -> np.ndarray | None:
    """The weight that a ConstantOfShape of fixed sizes stands for; None where it is no weight."""
    if sizes.ndim != 1 or array_of(node.attributes["value"]).dtype.kind != "f":
        return None
    run = READERS["ConstantOfShape"](node)
    return np.asarray(run(Module(), [Tensor(sizes)]).data)


def _inside(tensor: onnx.TensorProto, folder: Path | None) -> onnx.TensorProto:
    """The tensor with its numbers in it, read from the file beside where they are there."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    given = {entry.key: entry.value for entry in tensor.external_data}
    title = f"load: weight {tensor.name!r}"
    if folder is None:
        raise OnnxError(f"{title}: its numbers are in another file")
    file = (folder / given.get("location", "")).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise OnnxError(f"{title}: its file must lie in the folder of the model, got {given.get('location')!r}")
    if not file.is_file():
        raise OnnxError(f"{title}: there is no file {given.get('location')!r} beside the model")
    try:
        size = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize * math.prod(tensor.dims)
        offset, length = int(given.get("offset", 0)), int(given.get("length", size))
    except (KeyError, ValueError) as error:
        raise OnnxError(f"{title}: {error}") from error
    if length != size or offset < 0 or min(tensor.dims, default=1) < 0 or offset + length > file.stat().st_size:
        there = file.stat().st_size
        raise OnnxError(f"{title}: {list(tensor.dims)} takes {size} bytes, got {length} at {offset} of a file of {there}")
    with file.open("rb") as stream:
        stream.seek(offset)
        content = stream.read(length)
    filled = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    filled.raw_data = content
    return filled
