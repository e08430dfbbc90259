"""export: a model as an ONNX file, by watching one forward.

The ops that run are what is written, each by its entry in minidl/onnx/nodes.py. A second forward, of other values and a batch
that is larger by one, tells what depends on the batch: sizes stay open, and a value that depends on it but was made by no op
(by NumPy, by a comparison, by argmax) is an error instead of a constant that was right once.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from minidl.checkpoint import write_whole
from minidl.nn.module import Module
from minidl.onnx.errors import OnnxError
from minidl.onnx.graph import IR_VERSION, OPSET, Graph, initializer, onnx_dtype
from minidl.onnx.nodes import WRITERS, Step
from minidl.onnx.record import Call, Forward, another, record, same
from minidl.tensor import Tensor

_ALIGNED = 64  # bytes between the beginnings of arrays in the file of weights: whole vectors of every CPU
_MOST_BYTES = 2**31 - 1  # of a file without external data: protobuf's limit


def export(
    model: Module,
    example: Any,
    path: str | os.PathLike[str],
    *,
    external_data: bool = False,
    dynamic_batch: bool = True,
) -> None:
    """Write the model as an ONNX file, opset 18, as it is in evaluation; the model is afterwards as before.

    example       : what the model takes: a tensor or a NumPy array, or a tuple of them. The first axis is the batch's, and has
                    at least 1 element. Float32 unless the model is of others.
    path          : the file. It is written whole or not at all.
    external_data : keep the weights in a second file beside it, named `path` and ".data"; needed above 2 GiB.
    dynamic_batch : the file takes batches of any size; False: of the example's.

    The file's inputs are "input" (or "input0", "input1", ...), its outputs "output". Weights have the names of parameters.
    Copies between devices are left out, so both towers of a network are one graph. Other sizes are the example's.
    OnnxError: an op or a setting that ONNX cannot say, by its name and layer; what depends on the batch but is not made by ops;
    a model that runs other ops for another batch. TypeError: an example that is neither tensor nor array.
    """
    inputs = _tensors(example)
    first = record(model, [_copy(x) for x in inputs])
    second = record(model, another(inputs, grows=dynamic_batch))
    proto = _Export(model, first, second, dynamic_batch).model()
    onnx.checker.check_model(_without_weights(proto) if external_data else proto, full_check=not external_data)
    _write(proto, Path(path), external_data)


def _tensors(example: Any) -> list[Tensor]:
    given = list(example) if isinstance(example, (tuple, list)) else [example]
    for x in given:
        if not isinstance(x, (Tensor, np.ndarray)):
            raise TypeError(f"export: example must be a tensor, an array or a tuple of them, got {type(x).__name__}")
    tensors = [x if isinstance(x, Tensor) else Tensor(x) for x in given]
    if not tensors or any(0 in x.shape for x in tensors):
        raise OnnxError(
            f"export: example needs at least 1 element in each input, got {', '.join(str(x.shape) for x in tensors)}"
        )
    return tensors


def _copy(x: Tensor) -> Tensor:
    with x.device.active():
        return Tensor(x.data.copy(), device=x.device)


class _Export:
    """Two forwards of a model on their way to a graph."""

    def __init__(self, model: Module, first: Forward, second: Forward, dynamic: bool) -> None:
        self.graph = Graph()
        self.first, self.second, self.dynamic = first, second, dynamic
        self.names = {id(t.data): name for name, t in (*model.named_parameters(), *model.named_buffers())}
        self.values: dict[int, str] = {}  # id of an array of the first forward -> its value
        sizes = [f.inputs[0].shape[0] if f.inputs[0].ndim else 1 for f in (first, second)]
        self.batch_sizes = sizes[0], sizes[1]
        self._batch: str | None = None

    def model(self) -> onnx.ModelProto:
        """The whole as ONNX's message."""
        first, second = self.first, self.second
        several = len(first.inputs) > 1
        input_names = [self.graph.unused(f"input{i}" if several else "input") for i in range(len(first.inputs))]
        for name, x in zip(input_names, first.inputs, strict=True):
            self.values[id(x.data)] = name
        _check_same_ops(first.calls, second.calls)
        for call, again in zip(first.calls, second.calls, strict=True):
            self._write(call, again)
        outputs = [self._output(i) for i in range(len(first.outputs))]
        graph = helper.make_graph(
            self.graph.constants + self.graph.nodes,
            "minidl",
            [self._described(n, x, y) for n, x, y in zip(input_names, first.inputs, second.inputs, strict=True)],
            [self._described(n, x, y) for n, x, y in zip(outputs, first.outputs, second.outputs, strict=True)],
            [initializer(name, array) for name, array in self.graph.weights.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset], producer_name="minidl")

    def _write(self, call: Call, again: Call) -> None:
        writer = WRITERS.get(call.name)
        if writer is None:
            raise OnnxError(f"export: {call.title} has no ONNX form here; those that have: {', '.join(sorted(WRITERS))}")
        if call.name not in ("reshape", "expand"):
            for name, value in call.settings.items():
                if not same(value, again.settings[name]):
                    raise OnnxError(
                        f"export: {call.title}: {name} depends on the batch, got {value!r} and {again.settings[name]!r}"
                    )
        self.graph.place = call.layer or ""
        inputs = [self._value(call, i, x, y) for i, (x, y) in enumerate(zip(call.inputs, again.inputs, strict=True))]
        batch = self._batch_size() if call.name in ("reshape", "expand", "local_response_norm") else None
        self.values[id(call.out.data)] = writer(self.graph, Step(call, again, inputs, batch, self.batch_sizes))

    def _batch_size(self) -> str | None:
        """The value (1,) int64 that is the batch's size. Where nothing takes it, it is dropped at the end."""
        if not self.dynamic or not self.first.inputs[0].ndim:
            return None
        if self._batch is None:
            place, self.graph.place = self.graph.place, ""
            self._batch = self.graph.add("Shape", [self.values[id(self.first.inputs[0].data)]], start=0, end=1)
            self.graph.place = place
        return self._batch

    def _value(self, call: Call, position: int, x: Any, y: Any) -> str:
        """The name of an op's input; "" for None."""
        if x is None:
            return ""
        if isinstance(x, Tensor):
            if id(x.data) not in self.values:
                self.values[id(x.data)] = self._constant(call.title, position, x, y)
            return self.values[id(x.data)]
        if not same(x, y):
            raise OnnxError(f"export: {call.title}: the number {x!r} depends on the batch, with another it is {y!r}")
        return self.graph.constant(x, call.out.dtype)

    def _constant(self, title: str, position: int, x: Tensor, y: Tensor) -> str:
        host, other = x.device.to_host(x.data), y.device.to_host(y.data)
        if not same(host, other):
            raise OnnxError(
                f"export: {title}: input {position} {x.shape} depends on the batch, but was made by no op that can be seen "
                "(NumPy, a comparison or an index of positions made it)"
            )
        name = self.names.get(id(x.data))
        return self.graph.constant(host, host.dtype) if name is None else self.graph.weight(name, host)

    def _output(self, position: int) -> str:
        """An output under its own name, which no other value has."""
        x, y = self.first.outputs[position], self.second.outputs[position]
        value = self.values.get(id(x.data))
        if value is None:
            value = self._constant("the output", position, x, y)
        name = self.graph.unused(f"output{position}" if len(self.first.outputs) > 1 else "output")
        self.graph.nodes.append(helper.make_node("Identity", [value], [name], name))
        return name

    def _described(self, name: str, x: Tensor, y: Tensor) -> onnx.ValueInfoProto:
        """A value's dtype and shape, open where it depends on the batch."""
        sizes: list[int | str | None] = [
            m if m == n else "batch" if (m, n) == self.batch_sizes else None for m, n in zip(x.shape, y.shape, strict=True)
        ]
        return helper.make_tensor_value_info(name, onnx_dtype(name, x.dtype), sizes)


def _check_same_ops(first: Sequence[Call], second: Sequence[Call]) -> None:
    for call, again in zip(first, second, strict=False):
        if (call.name, call.layer) != (again.name, again.layer):
            raise OnnxError(
                f"export: the ops depend on the batch: with another batch {again.title} ran in place of {call.title}"
            )
    if len(first) != len(second):
        raise OnnxError(f"export: the ops depend on the batch: {len(first)} ran, and with another batch {len(second)}")


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """For checking what is too large for one message: weights are inputs."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.initializer[:]
    for tensor in proto.graph.initializer:
        bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return bare


def _write(proto: onnx.ModelProto, path: Path, external: bool) -> None:
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if not external:
        if size > _MOST_BYTES:
            raise OnnxError(f"export: a file without external_data holds at most {_MOST_BYTES} bytes, got {size} of weights")
        write_whole(path, proto.SerializeToString())
        return
    content = bytearray()
    data = path.with_name(f"{path.name}.data")
    for tensor in proto.graph.initializer:
        content += bytes(-len(content) % _ALIGNED)
        place = {"location": data.name, "offset": len(content), "length": len(tensor.raw_data)}
        content += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items())
    replaces = data.exists()
    write_whole(data, bytes(content))
    try:
        write_whole(path, proto.SerializeToString())
    except BaseException:
        if not replaces:
            data.unlink()
        raise
