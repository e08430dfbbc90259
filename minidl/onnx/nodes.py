"""What each op of minidl is in ONNX: a table from its name to a function that adds its nodes to a graph.

Such a function gets the graph and a `Step`, and gives the name of the value that is the op's output. ONNX's rules are those of
its operators' pages for opset 18 (https://onnx.ai/onnx/operators/). Where two rules differ, the function says how it bridges
them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import shapes
from minidl.onnx.errors import OnnxError
from minidl.onnx.graph import Graph, onnx_dtype
from minidl.onnx.record import Call
from minidl.ops.avg_pool2d import window_counts

LARGEST, SMALLEST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass
class Step:
    """An op of the recorded forward, and the same op in a forward of another batch."""

    call: Call
    again: Call
    inputs: list[str]  # the values' names; "" where there is none
    batch: str | None  # the value that holds the batch's size, (1,) int64; None if that is fixed
    batch_sizes: tuple[int, int]  # of the two forwards

    @property
    def shape(self) -> tuple[int, ...]:
        """The first input's."""
        shape: tuple[int, ...] = self.call.inputs[0].shape
        return shape

    @property
    def dtype(self) -> np.dtype:
        """The first input's."""
        return np.dtype(self.call.inputs[0].dtype)

    def __getattr__(self, name: str) -> Any:
        """The op's settings."""
        settings = self.call.settings
        if name not in settings:
            raise AttributeError(f"{self.call.title} has no setting {name!r}")
        return settings[name]

    def refuse(self, why: str) -> OnnxError:
        """The error to raise."""
        return OnnxError(f"export: {self.call.title}: {why}")


Writer = Callable[[Graph, Step], str]
WRITERS: dict[str, Writer] = {}


def writes(*names: str) -> Callable[[Writer], Writer]:
    """The function writes the ops of these names."""

    def enter(function: Writer) -> Writer:
        for name in names:
            WRITERS[name] = function
        return function

    return enter


def _plain(op_type: str) -> Writer:
    return lambda graph, step: graph.add(op_type, step.inputs)


for _name, _type in {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "neg": "Neg", "exp": "Exp", "log": "Log"},
    **{"sqrt": "Sqrt", "abs": "Abs", "sin": "Sin", "cos": "Cos", "matmul": "MatMul", "relu": "Relu", "tanh": "Tanh"},
    **{"sigmoid": "Sigmoid", "where": "Where"},
}.items():
    WRITERS[_name] = _plain(_type)


@writes("to_device", "clone")
def same_value(graph: Graph, step: Step) -> str:
    """A copy is the same value: ONNX has neither devices nor memory."""
    return step.inputs[0]


@writes("cast")
def cast(graph: Graph, step: Step) -> str:
    return graph.add("Cast", step.inputs, to=onnx_dtype(step.call.title, step.call.settings["dtype"]))


@writes("dropout", "dropout2d")
def dropout(graph: Graph, step: Step) -> str:
    raise step.refuse("it drops units although the model is in evaluation; call it with training=self.training")


# --------------------------------------------------------------------------------------------------------------- elementwise


@writes("leaky_relu")
def leaky_relu(graph: Graph, step: Step) -> str:
    return graph.add("LeakyRelu", step.inputs, alpha=float(step.negative_slope))


@writes("elu")
def elu(graph: Graph, step: Step) -> str:
    return graph.add("Elu", step.inputs, alpha=float(step.alpha))


@writes("silu")
def silu(graph: Graph, step: Step) -> str:
    """x * sigmoid(x); opset 18 has no operator for it."""
    return graph.add("Mul", [step.inputs[0], graph.add("Sigmoid", step.inputs)])


@writes("gelu")
def gelu(graph: Graph, step: Step) -> str:
    """x/2 * (1 + erf(x / sqrt 2)), or x/2 * (1 + tanh(sqrt(2/pi) (x + .044715 x^3))); opset 18 has no operator for it."""
    (x,) = step.inputs

    def number(value: float) -> str:
        return graph.constant(value, step.dtype)

    if step.approximate == "tanh":
        cube = graph.add("Mul", [number(0.044715), graph.add("Pow", [x, number(3)])])
        bent = graph.add("Tanh", [graph.add("Mul", [number(math.sqrt(2 / math.pi)), graph.add("Add", [x, cube])])])
    else:
        bent = graph.add("Erf", [graph.add("Mul", [x, number(math.sqrt(0.5))])])
    return graph.add("Mul", [graph.add("Mul", [x, number(0.5)]), graph.add("Add", [bent, number(1)])])


@writes("softplus")
def softplus(graph: Graph, step: Step) -> str:
    """ln(1 + e^(beta x)) / beta. x itself above the threshold differs from it by less than float32 can hold, at 20."""
    if step.threshold < 20:
        raise step.refuse(f"threshold must be at least 20, where ln(1 + e^x) is x in float32, got {step.threshold}")
    if step.beta == 1:
        return graph.add("Softplus", step.inputs)
    beta = graph.constant(step.beta, step.dtype)
    return graph.add("Div", [graph.add("Softplus", [graph.add("Mul", [step.inputs[0], beta])]), beta])


@writes("clamp")
def clamp(graph: Graph, step: Step) -> str:
    x, low, high = step.inputs
    x = graph.add("Max", [x, low]) if low else x
    return graph.add("Min", [x, high]) if high else x


@writes("maximum")
def maximum(graph: Graph, step: Step) -> str:
    return graph.add("Max" if step.largest else "Min", step.inputs)


@writes("softmax")
def softmax(graph: Graph, step: Step) -> str:
    return graph.add("Softmax", step.inputs, axis=step.axis)


@writes("log_softmax")
def log_softmax(graph: Graph, step: Step) -> str:
    return graph.add("LogSoftmax", step.inputs, axis=step.axis)


# --------------------------------------------------------------------------------------------------------- weighted, normed


@writes("linear")
def linear(graph: Graph, step: Step) -> str:
    """Gemm for rows (N, I), and MatMul for other shapes, which Gemm does not take."""
    x, w, b = (*step.inputs, "")[:3]
    if len(step.shape) == 2:
        return graph.add("Gemm", [x, w, b], transB=1)
    y = graph.add("MatMul", [x, graph.add("Transpose", [w], perm=[1, 0])])
    return graph.add("Add", [y, b]) if b else y


@writes("conv2d")
def conv2d(graph: Graph, step: Step) -> str:
    (top, bottom), (left, right) = step.padding
    return graph.add(
        "Conv",
        step.inputs,
        kernel_shape=step.call.inputs[1].shape[2:],
        strides=step.stride,
        pads=[top, left, bottom, right],
        dilations=step.dilation,
        group=step.groups,
    )


@writes("conv2d_relu")
def conv2d_relu(graph: Graph, step: Step) -> str:
    return graph.add("Relu", [conv2d(graph, step)])


@writes("conv_transpose2d")
def conv_transpose2d(graph: Graph, step: Step) -> str:
    kernel = step.call.inputs[1].shape[2:]
    sides = zip(step.shape[2:], kernel, step.stride, step.padding, step.dilation, step.out, strict=True)
    more = [out - ((n - 1) * s + shapes.span(k, d) - 2 * p) for n, k, s, p, d, out in sides]
    return graph.add(
        "ConvTranspose",
        step.inputs,
        kernel_shape=kernel,
        strides=step.stride,
        pads=[*step.padding, *step.padding],
        dilations=step.dilation,
        group=step.groups,
        output_padding=more,
    )


@writes("batch_norm")
def batch_norm(graph: Graph, step: Step) -> str:
    """With the running numbers: those of the batch itself are for training."""
    x, w, b, mean, var = step.inputs
    if not mean:
        raise step.refuse("it normalises by the batch's own numbers; export needs track_running_stats=True")
    channels = step.shape[1:2]
    w = w or graph.constant(np.ones(channels), step.dtype)
    b = b or graph.constant(np.zeros(channels), step.dtype)
    return graph.add("BatchNormalization", [x, w, b, mean, var], epsilon=float(step.eps))


@writes("layer_norm")
def layer_norm(graph: Graph, step: Step) -> str:
    x, w, b = step.inputs
    w = w or graph.constant(np.ones(step.features), step.dtype)
    return graph.add("LayerNormalization", [x, w, b], axis=-len(step.features), epsilon=float(step.eps))


@writes("local_response_norm")
def local_response_norm(graph: Graph, step: Step) -> str:
    """LRN where its window is minidl's: of an odd size. Of an even size ONNX has one channel less before and one more after.

    For these, and for other shapes than images', which runtimes refuse: x * (k + alpha * mean of squares)^-beta, with the mean
    by an average over windows of channels, in which zeros outside count.
    """
    (x,) = step.inputs
    size, alpha, beta, k = step.size, float(step.alpha), float(step.beta), float(step.k)
    if size % 2 and len(step.shape) == 4:
        return graph.add("LRN", [x], size=size, alpha=alpha, beta=beta, bias=k)
    shape = _sizes(graph, step, step.call.inputs[0].shape, step.again.inputs[0].shape)
    rows = graph.add("Reshape", [graph.add("Mul", [x, x]), graph.ints(0, 1, step.shape[1], -1)])
    pads = [size // 2, 0, (size - 1) // 2, 0]
    mean = graph.add("AveragePool", [rows], kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    mean = graph.add("Reshape", [mean, shape])
    d = graph.add("Add", [graph.add("Mul", [mean, graph.constant(alpha, step.dtype)]), graph.constant(k, step.dtype)])
    return graph.add("Mul", [x, graph.add("Pow", [d, graph.constant(-beta, step.dtype)])])


@writes("embedding")
def embedding(graph: Graph, step: Step) -> str:
    return graph.add("Gather", step.inputs, axis=0)


# ----------------------------------------------------------------------------------------------------------------- windows


@writes("max_pool2d")
def max_pool2d(graph: Graph, step: Step) -> str:
    """Windows that hang over the end (ceil_mode) are said as padding: ONNX's ceil_mode has had more than one meaning."""
    (top, bottom), (left, right) = pads = shapes.pool_padding(
        step.shape[2:], step.out, step.kernel, step.stride, step.padding, step.dilation
    )
    x = step.inputs[0]
    if any(after >= k for (_, after), k in zip(pads, step.kernel, strict=True)):  # runtimes refuse such pads in a pool
        lowest = graph.constant(-np.inf, step.dtype)
        x = graph.add("Pad", [x, graph.ints(0, 0, top, left, 0, 0, bottom, right), lowest])
        top = left = bottom = right = 0
    return graph.add(
        "MaxPool",
        [x],
        kernel_shape=step.kernel,
        strides=step.stride,
        pads=[top, left, bottom, right],
        dilations=step.dilation,
    )


@writes("avg_pool2d")
def avg_pool2d(graph: Graph, step: Step) -> str:
    """ONNX divides by a window's pixels, with padding or without. Where minidl divides by another number, as at the windows
    that hang over the end, what comes out is multiplied by the ratio of both."""
    out, kernel, stride, padding = step.out, step.kernel, step.stride, step.padding
    (top, bottom), (left, right) = shapes.pool_padding(step.shape[2:], out, kernel, stride, padding, (1, 1))
    settings = {"kernel_shape": kernel, "strides": stride, "pads": [top, left, bottom, right]}
    if not step.include_pad and step.divisor is None:
        return graph.add("AveragePool", step.inputs, **settings)
    y = graph.add("AveragePool", step.inputs, **settings, count_include_pad=1)
    h, w = step.shape[2:]
    counts = window_counts(np.empty((0, h, w, 0)), out, kernel, stride, padding, step.include_pad, step.divisor)
    ratio = math.prod(kernel) / counts.transpose(2, 0, 1)
    return y if (ratio == 1).all() else graph.add("Mul", [y, graph.constant(ratio, step.dtype)])


@writes("adaptive_avg_pool2d")
def adaptive_avg_pool2d(graph: Graph, step: Step) -> str:
    """The mean of all pixels, or of parts of one size; parts of several sizes have no operator."""
    size, out = step.shape[2:], step.out
    if out == (1, 1):
        return graph.add("GlobalAveragePool", step.inputs)
    if 0 in out or any(n % parts for n, parts in zip(size, out, strict=True)):
        raise step.refuse(f"ONNX has parts of one size alone: the output must divide the input, got input {size}, output {out}")
    part = [n // parts for n, parts in zip(size, out, strict=True)]
    return graph.add("AveragePool", step.inputs, kernel_shape=part, strides=part)


# -------------------------------------------------------------------------------------------------------------- reductions


def _reduction(op_type: str) -> Writer:
    def write(graph: Graph, step: Step) -> str:
        x = step.inputs[0]
        if step.call.out.dtype != step.dtype:  # the sum of bools or small integers is int64
            x = graph.cast(x, step.call.out.dtype)
        return _reduced(graph, op_type, x, step.axes, step.keepdim)

    return write


def _reduced(graph: Graph, op_type: str, x: str, axes: Sequence[int], keepdim: bool) -> str:
    if not axes:  # of a number, for which an empty list of axes would mean all
        return graph.add("Abs", [x]) if op_type == "ReduceL2" else x
    return graph.add(op_type, [x, graph.ints(*axes)], keepdims=int(keepdim))


for _name, _type in {"sum": "ReduceSum", "mean": "ReduceMean", "norm": "ReduceL2"}.items():
    WRITERS[_name] = _reduction(_type)


@writes("amax")
def amax(graph: Graph, step: Step) -> str:
    return _reduced(graph, "ReduceMax" if step.largest else "ReduceMin", step.inputs[0], step.axes, step.keepdim)


@writes("max")
def max_along(graph: Graph, step: Step) -> str:
    axes = [step.axis] if step.shape else []
    return _reduced(graph, "ReduceMax" if step.largest else "ReduceMin", step.inputs[0], axes, step.keepdim)


@writes("cumsum")
def cumsum(graph: Graph, step: Step) -> str:
    return graph.add("CumSum", [step.inputs[0], graph.constant(step.axis, np.int64)]) if step.shape else step.inputs[0]


# ----------------------------------------------------------------------------------------------------------------- movements


def _sizes(graph: Graph, step: Step, first: Sequence[int], second: Sequence[int]) -> str:
    """A shape of two forwards as a value (n,) int64: sizes that follow the batch are the batch's, or once -1."""
    fixed = [m == n for m, n in zip(first, second, strict=True)]
    follows = [(m, n) == step.batch_sizes for m, n in zip(first, second, strict=True)]
    if all(fixed):
        return graph.ints(*first)
    if sum(fixed) == len(fixed) - 1 and 0 not in first:
        return graph.ints(*(n if still else -1 for n, still in zip(first, fixed, strict=True)))
    if step.batch is None or not all(still or f for still, f in zip(fixed, follows, strict=True)):
        raise step.refuse(f"more than one size depends on the batch, got {tuple(first)} and {tuple(second)}")
    parts = [graph.ints(n) if still else step.batch for n, still in zip(first, fixed, strict=True)]
    return graph.add("Concat", parts, axis=0)


@writes("reshape")
def reshape(graph: Graph, step: Step) -> str:
    first, second = step.call.out.shape, step.again.out.shape
    if len(step.shape) > 1 and len(first) == 2 and first[0] == step.shape[0] and second[0] == step.again.inputs[0].shape[0]:
        return graph.add("Flatten", step.inputs, axis=1)
    return graph.add("Reshape", [step.inputs[0], _sizes(graph, step, first, second)], allowzero=int(0 in first))


@writes("permute")
def permute(graph: Graph, step: Step) -> str:
    return graph.add("Transpose", step.inputs, perm=step.dims)


@writes("expand")
def expand(graph: Graph, step: Step) -> str:
    first, second = list(step.call.out.shape), list(step.again.out.shape)
    new = len(first) - len(step.shape)
    for i, n in enumerate(step.shape):  # an axis that is not repeated can be called 1, however long it is
        if n == first[new + i] and step.again.inputs[0].shape[i] == second[new + i]:
            first[new + i] = second[new + i] = 1
    if sum(m != n for m, n in zip(first, second, strict=True)) and step.batch is not None:
        follows = [(m, n) == step.batch_sizes for m, n in zip(first, second, strict=True)]
        if not all(f or m == n for f, m, n in zip(follows, first, second, strict=True)):
            raise step.refuse(f"a size depends on the batch, and is not its size, got {tuple(first)} and {tuple(second)}")
        parts = [step.batch if m != n else graph.ints(m) for m, n in zip(first, second, strict=True)]
        return graph.add("Expand", [step.inputs[0], graph.add("Concat", parts, axis=0)])
    return graph.add("Expand", [step.inputs[0], graph.ints(*first)])


@writes("repeat")
def repeat(graph: Graph, step: Step) -> str:
    new = len(step.times) - len(step.shape)
    x = graph.add("Unsqueeze", [step.inputs[0], graph.ints(*range(new))]) if new else step.inputs[0]
    return graph.add("Tile", [x, graph.ints(*step.times)]) if step.times else x


@writes("flip")
def flip(graph: Graph, step: Step) -> str:
    n = len(step.axes)
    if not n:
        return step.inputs[0]
    limits = [graph.ints(*[-1] * n), graph.ints(*[SMALLEST] * n), graph.ints(*step.axes), graph.ints(*[-1] * n)]
    return graph.add("Slice", [step.inputs[0], *limits])


@writes("cat")
def cat(graph: Graph, step: Step) -> str:
    return graph.add("Concat", step.inputs, axis=step.axis)


@writes("pad")
def pad(graph: Graph, step: Step) -> str:
    """Negative widths crop in both."""
    before, after = zip(*step.widths, strict=True) if step.widths else ((), ())
    return graph.add("Pad", [step.inputs[0], graph.ints(*before, *after), graph.constant(step.value, step.dtype)])


@writes("getitem")
def getitem(graph: Graph, step: Step) -> str:
    """Slices at once, then integers, from the last axis on, then new axes; then an array of positions, if there is one."""
    x = _basic(graph, step)
    if step.arrays is None:
        return x
    places = [i for i, part in enumerate(step.arrays) if hasattr(part, "dtype")]
    array = np.asarray(step.arrays[places[0]])
    if len(places) > 1 or array.dtype.kind not in "iu":
        raise step.refuse(f"one array of integers can be an index, got {len(places)} arrays, the first of {array.dtype}")
    return graph.add("Gather", [x, graph.constant(array, np.int64)], axis=places[0])


def _basic(graph: Graph, step: Step) -> str:
    given = step.basic if isinstance(step.basic, tuple) else (step.basic,)
    rest = len(step.shape) - sum(part is not None and part is not Ellipsis for part in given)
    parts: list[Any] = []
    for part in given:
        parts += [slice(None)] * rest if part is Ellipsis else [part]
    x = step.inputs[0]
    on_axes = [part for part in parts if part is not None]
    on_axes += [slice(None)] * (len(step.shape) - len(on_axes))
    cuts = [(axis, *_limits(part)) for axis, part in enumerate(on_axes) if isinstance(part, slice) and part != slice(None)]
    if cuts:
        axes, starts, ends, steps = zip(*cuts, strict=True)
        x = graph.add("Slice", [x, graph.ints(*starts), graph.ints(*ends), graph.ints(*axes), graph.ints(*steps)])
    for axis, part in reversed(list(enumerate(on_axes))):
        if not isinstance(part, slice):
            x = graph.add("Gather", [x, graph.constant(int(part), np.int64)], axis=axis)
    kept = [part for part in parts if part is None or isinstance(part, slice)]
    new = [i for i, part in enumerate(kept) if part is None]
    return graph.add("Unsqueeze", [x, graph.ints(*new)]) if new else x


def _limits(part: slice) -> tuple[int, int, int]:
    """Start, end and step, where Python may leave them out."""
    step = 1 if part.step is None else int(part.step)
    start = (0 if step > 0 else LARGEST) if part.start is None else int(part.start)
    end = (LARGEST if step > 0 else SMALLEST) if part.stop is None else int(part.stop)
    return start, end, step


@writes("gather")
def gather(graph: Graph, step: Step) -> str:
    return graph.add("GatherElements", step.inputs, axis=step.axis)
