"""What each operator of ONNX is in minidl: a table from its name to a function that reads a node's attributes once, when the
file is loaded, and gives the function that runs it.

The rules are those of the operators' pages (https://onnx.ai/onnx/operators/) for opsets 7 to 28. An attribute that is not read
here, or a value of one that minidl cannot follow, is refused with its name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import minidl.nn.functional as F
from minidl.device import Array, array_module
from minidl.nn.module import Module
from minidl.onnx.errors import OnnxError
from minidl.ops import arithmetic, reduce, reshape, select
from minidl.ops.arithmetic import cast
from minidl.ops.gelu import normal_cdf
from minidl.shapes import span
from minidl.tensor import Function, Tensor

OLDEST_OPSET, NEWEST_OPSET = 7, 28
MOST_ELEMENTS = 2**28  # of an array that a file can ask for by its shape alone: 1 GiB of float32

Inputs = list[Any]  # tensors, None where an optional one is left out
Run = Callable[[Module, Inputs], Tensor]


@dataclass
class Node:
    """A node that is being read. Attributes that are asked for are ticked off."""

    proto: onnx.NodeProto
    opset: int
    used: frozenset[str] = frozenset()  # all values that something takes
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = {a.name: helper.get_attribute_value(a) for a in self.proto.attribute}

    @property
    def title(self) -> str:
        """For errors."""
        return f"{self.proto.op_type} ({self.proto.name})" if self.proto.name else self.proto.op_type

    def take(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        value = self.attributes.pop(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def only(self, name: str, default: Any, *allowed: Any) -> None:
        """OnnxError unless the attribute has its default, or another value that makes no difference here."""
        value = self.take(name, default)
        if value != default and value not in allowed:
            raise self.refuse(f"attribute {name} must be {default!r}, got {value!r}")

    def refuse(self, why: str) -> OnnxError:
        """The error to raise."""
        return OnnxError(f"load: {self.title}: {why}")


READERS: dict[str, Callable[[Node], Run]] = {}


def reads(*names: str) -> Callable[[Callable[[Node], Run]], Callable[[Node], Run]]:
    """The function reads the operators of these names."""

    def enter(function: Callable[[Node], Run]) -> Callable[[Node], Run]:
        for name in names:
            READERS[name] = function
        return function

    return enter


def _simple(function: Callable[..., Tensor]) -> Callable[[Node], Run]:
    return lambda node: lambda model, x: function(*x)


def _folded(function: Callable[[Any, Any], Tensor]) -> Callable[[Node], Run]:
    def run(model: Module, x: Inputs) -> Tensor:
        y = x[0]
        for other in x[1:]:
            y = function(y, other)
        return y

    return lambda node: run


def _div(x: Tensor, y: Tensor) -> Tensor:
    """Of integers rounded towards 0."""
    return arithmetic.div(x, y) if x.dtype.kind == "f" else arithmetic.div(x, y, rounding_mode="trunc")


READERS |= {
    **{"Add": _simple(arithmetic.add), "Sub": _simple(arithmetic.sub), "Mul": _simple(arithmetic.mul), "Div": _simple(_div)},
    **{"Neg": _simple(arithmetic.neg), "Exp": _simple(arithmetic.exp), "Log": _simple(arithmetic.log)},
    **{"Sqrt": _simple(arithmetic.sqrt), "Abs": _simple(arithmetic.abs_), "Sin": _simple(arithmetic.sin)},
    **{"Cos": _simple(arithmetic.cos), "MatMul": _simple(arithmetic.matmul), "Relu": _simple(F.relu)},
    **{"Tanh": _simple(F.tanh), "Sigmoid": _simple(F.sigmoid), "Softplus": _simple(F.softplus)},
    **{"Where": _simple(select.where), "Identity": _simple(lambda x: x)},
    **{"Max": _folded(arithmetic.maximum), "Min": _folded(arithmetic.minimum), "Sum": _folded(arithmetic.add)},
}


class ErfFunction(Function):
    """y = 2 P(sqrt(2) x) - 1, P the standard normal's cumulative distribution, as gelu has it; gx = gy 2/sqrt(pi) e^(-x^2)."""

    name = "erf"

    def forward(ctx, x: Array) -> Array:
        ctx.save(x)
        return (2 * normal_cdf(math.sqrt(2) * x) - 1).astype(x.dtype)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (gy * (2 / math.sqrt(math.pi)) * array_module(x).exp(-x * x),)


READERS["Erf"] = _simple(lambda x: ErfFunction.apply(x))


@reads("Pow")
def pow_(node: Node) -> Run:
    """The result has the dtype of the base."""
    return lambda model, x: cast(arithmetic.pow(x[0], x[1]), x[0].dtype)


@reads("LeakyRelu")
def leaky_relu(node: Node) -> Run:
    alpha = node.take("alpha", 0.01)
    return lambda model, x: F.leaky_relu(x[0], alpha)


@reads("Elu")
def elu(node: Node) -> Run:
    alpha = node.take("alpha", 1.0)
    return lambda model, x: F.elu(x[0], alpha)


@reads("Cast")
def cast_(node: Node) -> Run:
    node.only("saturate", 1, 0)
    node.only("round_mode", "up")
    dtype = helper.tensor_dtype_to_np_dtype(node.take("to"))
    return lambda model, x: cast(x[0], dtype)


@reads("Constant")
def constant(node: Node) -> Run:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, dtype in kinds.items():
        if name in node.attributes:
            value = np.array(node.take(name), dtype)
            break
    else:
        given = node.take("value")
        if given is None:
            raise node.refuse(f"attribute value must be a tensor or numbers, got {', '.join(node.attributes) or 'none'}")
        value = array_of(given)
    return lambda model, x: Tensor(value)


@reads("ConstantOfShape")
def constant_of_shape(node: Node) -> Run:
    given = node.take("value")
    value = np.zeros(1, np.float32) if given is None else array_of(given)

    def run(model: Module, x: Inputs) -> Tensor:
        sizes = _ints(x[0])
        if min(sizes, default=0) < 0:
            raise node.refuse(f"sizes must be at least 0, got {sizes}")
        _check_room(node, sizes)
        return Tensor(np.full(sizes, value.reshape(-1)[0], value.dtype))

    return run


@reads("Shape")
def shape(node: Node) -> Run:
    start, end = node.take("start", 0), node.take("end")
    return lambda model, x: Tensor(np.array(x[0].shape[start:end], np.int64))


@reads("Dropout")
def dropout(node: Node) -> Run:
    """The ratio is an attribute, or since opset 12 an input; it acts where the module is in training."""
    node.take("seed")
    ratio = node.take("ratio", 0.5)
    _one_output(node)
    training_mode = len(node.proto.input) > 2 and bool(node.proto.input[2])
    if training_mode:
        raise node.refuse("the input training_mode is not taken: the module's train() and eval() decide")
    return lambda model, x: F.dropout(x[0], float(x[1].item()) if len(x) > 1 and x[1] is not None else ratio, model.training)


# -------------------------------------------------------------------------------------------------------- weighted, normed


@reads("Gemm")
def gemm(node: Node) -> Run:
    alpha, beta = node.take("alpha", 1.0), node.take("beta", 1.0)
    a_turned, b_turned = node.take("transA", 0), node.take("transB", 0)

    def run(model: Module, x: Inputs) -> Tensor:
        a, b, c = (*x, None, None)[:3]
        if a_turned == 0 and b_turned == 1 and alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
            return F.linear(a, b, c)
        y = arithmetic.matmul(reshape.t(a) if a_turned else a, reshape.t(b) if b_turned else b)
        y = y if alpha == 1 else arithmetic.mul(y, alpha)
        return y if c is None else arithmetic.add(y, c if beta == 1 else arithmetic.mul(c, beta))

    return run


@dataclass
class _Windows:
    """A convolution's or pool's attributes about windows, for 1 or 2 axes of pixels."""

    kernel: list[int] | None
    strides: list[int] | None
    pads: list[int] | None
    dilations: list[int] | None
    auto_pad: str
    ceil_mode: int

    def sides(self, node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int, int, int, int, int]]:
        """For each axis: kernel, stride, dilation, zeros before, zeros after, outputs."""
        axes = len(size)
        strides, dilations, pads = self.strides or [1] * axes, self.dilations or [1] * axes, self.pads or [0] * 2 * axes
        for name, values, wanted in (
            ("kernel_shape", kernel, axes),
            ("strides", strides, axes),
            ("dilations", dilations, axes),
            ("pads", pads, 2 * axes),
        ):
            if len(values) != wanted or min(values) < (0 if name == "pads" else 1):
                raise node.refuse(f"attribute {name} must have {wanted} sizes for an input of {size}, got {list(values)}")
        result = []
        for i, (n, k, s, d) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
            before, after = pads[i], pads[axes + i]
            if self.auto_pad.startswith("SAME"):
                total = max((-(-n // s) - 1) * s + span(k, d) - n, 0)
                before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
                after = total - before
            elif self.auto_pad == "VALID":
                before = after = 0
            room = n + before + after - span(k, d)
            out = (-(-room // s) if self.ceil_mode else room // s) + 1
            if self.ceil_mode and (out - 1) * s >= n + before:  # a window that begins behind the image is none
                out -= 1
            if out < 1:
                raise node.refuse(f"kernel spans {span(k, d)}, the padded input has {n + before + after} (input {size})")
            result.append((k, s, d, before, after, out))
        return result


def _windows(node: Node) -> _Windows:
    auto_pad = node.take("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise node.refuse(f"attribute auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {auto_pad!r}")
    names = ("kernel_shape", "strides", "pads", "dilations")
    kernel, strides, pads, dilations = (node.take(name) for name in names)
    return _Windows(kernel, strides, pads, dilations, auto_pad, node.take("ceil_mode", 0))


def _as_images(node: Node, x: Tensor) -> tuple[Tensor, bool]:
    """(N, C, L) as images of height 1. OnnxError for volumes."""
    if x.ndim not in (3, 4):
        raise node.refuse(f"inputs of 1 or 2 axes of pixels are taken, got {x.shape}")
    return (reshape.unsqueeze(x, 2), True) if x.ndim == 3 else (x, False)


def _fit(x: Tensor, sides: Sequence[tuple[int, int, int, int, int, int]], value: float = 0.0) -> Tensor:
    """Padded in front, and to the end of the last window, which may be before the image's."""
    widths = []
    for n, (k, s, d, before, _, out) in zip(x.shape[2:], sides, strict=True):
        widths.append((before, (out - 1) * s + span(k, d) - n - before))
    flat = [width for pair in reversed(widths) for width in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


_FLAT = (1, 1, 1, 0, 0, 1)  # the side of an axis of length 1


@reads("Conv")
def conv(node: Node) -> Run:
    windows, groups = _windows(node), node.take("group", 1)

    def run(model: Module, x: Inputs) -> Tensor:
        image, w, b = (*x, None)[:3]
        image, line = _as_images(node, image)
        size = image.shape[3:] if line else image.shape[2:]
        if windows.kernel is not None and list(windows.kernel) != list(w.shape[2:]):
            raise node.refuse(f"attribute kernel_shape must be the weight's, got {windows.kernel} and {w.shape}")
        sides = windows.sides(node, size, w.shape[2:])
        if line:
            sides, w = [_FLAT, *sides], reshape.unsqueeze(w, 2)
        (_, sh, dh, top, bottom, _), (_, sw, dw, left, right, _) = sides
        if (top, left) == (bottom, right):
            y = F.conv2d(image, w, b, (sh, sw), (top, left), (dh, dw), groups)
        else:
            y = F.conv2d(_fit(image, sides), w, b, (sh, sw), 0, (dh, dw), groups)
        return reshape.squeeze(y, 2) if line else y

    return run


@reads("ConvTranspose")
def conv_transpose(node: Node) -> Run:
    """Padding that differs between an axis's ends is cut off afterwards."""
    windows, groups = _windows(node), node.take("group", 1)
    more = node.take("output_padding")
    if windows.auto_pad != "NOTSET":
        raise node.refuse(f"attribute auto_pad must be 'NOTSET', got {windows.auto_pad!r}")
    node.only("output_shape", None)

    def run(model: Module, x: Inputs) -> Tensor:
        image, w, b = (*x, None)[:3]
        image, line = _as_images(node, image)
        axes = 1 if line else 2
        strides, dilations, extra = windows.strides or [1] * axes, windows.dilations or [1] * axes, more or [0] * axes
        pads = windows.pads or [0] * 2 * axes
        if (len(strides), len(dilations), len(extra), len(pads)) != (axes, axes, axes, 2 * axes):
            raise node.refuse(
                f"attributes must have a size for each of {axes} axes of pixels, got pads {pads}, strides {strides}"
            )
        if line:
            w, strides, dilations, extra = reshape.unsqueeze(w, 2), [1, *strides], [1, *dilations], [0, *extra]
            pads = [0, pads[0], 0, pads[1]]
        sides = zip(image.shape[2:], strides, w.shape[2:], dilations, extra, strict=True)
        _check_room(node, [*image.shape[:2], *((n - 1) * s + span(k, d) + e for n, s, k, d, e in sides)])
        if pads[:2] == pads[2:]:
            y = F.conv_transpose2d(image, w, b, strides, pads[:2], extra, groups, dilations)
        else:
            y = F.conv_transpose2d(image, w, b, strides, 0, extra, groups, dilations)
            (top, left, bottom, right), (height, width) = pads, y.shape[2:]
            y = y[:, :, top : height - bottom, left : width - right]
        return reshape.squeeze(y, 2) if line else y

    return run


@reads("MaxPool")
def max_pool(node: Node) -> Run:
    windows = _windows(node)
    node.only("storage_order", 0)
    _one_output(node)

    def run(model: Module, x: Inputs) -> Tensor:
        if x[0].dtype.kind != "f":
            raise node.refuse(f"inputs of floats are taken, got {x[0].dtype}")
        image, line = _as_images(node, x[0])
        sides = windows.sides(node, image.shape[3:] if line else image.shape[2:], windows.kernel or [])
        sides = [_FLAT, *sides] if line else sides
        kernel, strides, dilations = ([side[i] for side in sides] for i in range(3))
        y = F.max_pool2d(_fit(image, sides, -math.inf), kernel, strides, 0, dilations)
        return reshape.squeeze(y, 2) if line else y

    return run


@reads("AveragePool")
def average_pool(node: Node) -> Run:
    windows, with_padding = _windows(node), node.take("count_include_pad", 0)
    if windows.dilations is not None and set(windows.dilations) != {1}:
        raise node.refuse(f"attribute dilations must be 1, got {windows.dilations}")

    def run(model: Module, x: Inputs) -> Tensor:
        image, line = _as_images(node, x[0])
        sides = windows.sides(node, image.shape[3:] if line else image.shape[2:], windows.kernel or [])
        sides = [_FLAT, *sides] if line else sides
        counts = []
        for n, (k, s, _, before, after, out) in zip(image.shape[2:], sides, strict=True):
            starts = np.arange(out) * s - before
            first, last = (-before, n + after) if with_padding else (0, n)
            counts.append(np.minimum(starts + k, last) - np.maximum(starts, first))
        count = Tensor((counts[0][:, None] * counts[1]).astype(image.dtype), device=image.device)
        kernel, strides = ([side[i] for side in sides] for i in range(2))
        total = F.avg_pool2d(_fit(image, sides), kernel, strides, divisor_override=1)
        y = arithmetic.div(total, count)
        return reshape.squeeze(y, 2) if line else y

    return run


@reads("GlobalAveragePool")
def global_average_pool(node: Node) -> Run:
    return lambda model, x: reduce.mean(x[0], tuple(range(2, x[0].ndim)), keepdim=True)


@reads("LRN")
def lrn(node: Node) -> Run:
    """Of an even size ONNX's window has its longer half after the channel, minidl's before: channels are turned round."""
    size, alpha, beta, k = node.take("size"), node.take("alpha", 1e-4), node.take("beta", 0.75), node.take("bias", 1.0)

    def run(model: Module, x: Inputs) -> Tensor:
        if size % 2:
            return F.local_response_norm(x[0], size, alpha, beta, k)
        return reshape.flip(F.local_response_norm(reshape.flip(x[0], 1), size, alpha, beta, k), 1)

    return run


@reads("BatchNormalization")
def batch_normalization(node: Node) -> Run:
    """By the running numbers; where the module is in training, by the batch's own, which move the running ones."""
    node.only("training_mode", 0)
    node.only("spatial", 1)
    _one_output(node)
    eps, momentum = node.take("epsilon", 1e-5), node.take("momentum", 0.9)

    def run(model: Module, x: Inputs) -> Tensor:
        image, w, b, mean, var = x
        return F.batch_norm(image, mean, var, w, b, model.training, 1 - momentum, eps)

    return run


@reads("LayerNormalization")
def layer_normalization(node: Node) -> Run:
    node.only("stash_type", 1)
    _one_output(node)
    axis, eps = node.take("axis", -1), node.take("epsilon", 1e-5)

    def run(model: Module, x: Inputs) -> Tensor:
        rows, w, b = (*x, None)[:3]
        features = rows.shape[axis % rows.ndim :]
        w, b = (None if p is None else reshape.expand(p, features) for p in (w, b))
        return F.layer_norm(rows, features, w, b, eps)

    return run


def _soft(function: Callable[[Tensor, int], Tensor]) -> Callable[[Node], Run]:
    """Along one axis; before opset 13 over all axes from that one on."""

    def read(node: Node) -> Run:
        axis = node.take("axis", -1 if node.opset >= 13 else 1)

        def run(model: Module, x: Inputs) -> Tensor:
            if node.opset >= 13:
                return function(x[0], axis)
            return reshape.reshape(function(_flat(x[0], axis), 1), x[0].shape)

        return run

    return read


READERS |= {"Softmax": _soft(F.softmax), "LogSoftmax": _soft(F.log_softmax)}


# -------------------------------------------------------------------------------------------------------------- reductions


def _reduction(function: Callable[..., Tensor]) -> Callable[[Node], Run]:
    """Axes are an attribute, in later opsets an input; none are all, unless noop_with_empty_axes."""

    def read(node: Node) -> Run:
        given, keepdim, noop = node.take("axes"), bool(node.take("keepdims", 1)), node.take("noop_with_empty_axes", 0)
        if noop and node.proto.op_type == "ReduceL2":
            raise node.refuse("attribute noop_with_empty_axes must be 0, got 1")

        def run(model: Module, x: Inputs) -> Tensor:
            axes = given if len(x) < 2 or x[1] is None else _ints(x[1])
            if not axes and noop:
                return x[0]
            return cast(function(x[0], tuple(axes) if axes else None, keepdim), x[0].dtype)

        return run

    return read


READERS |= {
    "ReduceSum": _reduction(reduce.sum_),
    "ReduceMean": _reduction(reduce.mean),
    "ReduceL2": _reduction(lambda x, dim, keep: reduce.norm(x, 2, dim, keep)),
}
READERS |= {"ReduceMax": _reduction(reduce.amax), "ReduceMin": _reduction(reduce.amin)}


# ----------------------------------------------------------------------------------------------------------------- movements


def _ints(x: Tensor) -> list[int]:
    """A value that is a list of sizes or positions."""
    return [int(n) for n in np.asarray(x.device.to_host(x.data)).reshape(-1)]


def _check_room(node: Node, sizes: Sequence[int]) -> None:
    """OnnxError if an output that is as large as the file's numbers say has too many elements."""
    if math.prod(sizes) > MOST_ELEMENTS:
        raise node.refuse(f"a shape by itself may ask for at most {MOST_ELEMENTS} elements, got {list(sizes)}")


def _flat(x: Tensor, axis: int) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return reshape.reshape(x, math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@reads("Flatten")
def flatten(node: Node) -> Run:
    axis = node.take("axis", 1)
    return lambda model, x: _flat(x[0], axis)


@reads("Reshape")
def reshape_(node: Node) -> Run:
    keeps_zero = node.take("allowzero", 0)

    def run(model: Module, x: Inputs) -> Tensor:
        sizes = _ints(x[1])
        if not keeps_zero:
            sizes = [x[0].shape[i] if n == 0 else n for i, n in enumerate(sizes)]
        return reshape.reshape(x[0], sizes)

    return run


@reads("Transpose")
def transpose(node: Node) -> Run:
    perm = node.take("perm")
    return lambda model, x: reshape.permute(x[0], perm if perm is not None else list(reversed(range(x[0].ndim))))


@reads("Concat")
def concat(node: Node) -> Run:
    axis = node.take("axis")
    return lambda model, x: reshape.cat(x, axis)


@reads("Expand")
def expand(node: Node) -> Run:
    def run(model: Module, x: Inputs) -> Tensor:
        sizes = np.broadcast_shapes(x[0].shape, tuple(_ints(x[1])))
        _check_room(node, sizes)
        return reshape.expand(x[0], sizes)

    return run


@reads("Gather")
def gather(node: Node) -> Run:
    axis = node.take("axis", 0)

    def run(model: Module, x: Inputs) -> Tensor:
        before = (slice(None),) * (axis % x[0].ndim)
        return reshape.getitem(x[0], (*before, cast(x[1], np.int64)))

    return run


@reads("GatherElements")
def gather_elements(node: Node) -> Run:
    """Positions below 0 count from the end."""
    axis = node.take("axis", 0)

    def run(model: Module, x: Inputs) -> Tensor:
        places = np.asarray(x[1].device.to_host(x[1].data))
        places = np.where(places < 0, places + x[0].shape[axis], places)
        return select.gather(x[0], axis, Tensor(places.astype(np.int64), device=x[0].device))

    return run


@reads("CumSum")
def cumsum(node: Node) -> Run:
    node.only("exclusive", 0)
    turned = node.take("reverse", 0)

    def run(model: Module, x: Inputs) -> Tensor:
        axis = int(x[1].item())
        y = reshape.flip(x[0], axis) if turned else x[0]
        y = cast(reduce.cumsum(y, axis), x[0].dtype)
        return reshape.flip(y, axis) if turned else y

    return run


def _axes(node: Node, x: Inputs, given: Any) -> list[int]:
    return _ints(x[1]) if len(x) > 1 and x[1] is not None else list(given or [])


@reads("Unsqueeze")
def unsqueeze(node: Node) -> Run:
    given = node.take("axes")

    def run(model: Module, x: Inputs) -> Tensor:
        axes, y = _axes(node, x, given), x[0]
        for axis in sorted(a % (y.ndim + len(axes)) for a in axes):
            y = reshape.unsqueeze(y, axis)
        return y

    return run


@reads("Squeeze")
def squeeze(node: Node) -> Run:
    given = node.take("axes")
    return lambda model, x: reshape.squeeze(x[0], tuple(_axes(node, x, given)) or None)


@reads("Tile")
def tile(node: Node) -> Run:

    def run(model: Module, x: Inputs) -> Tensor:
        repeats = _ints(x[1])
        _check_room(node, [n * times for n, times in zip(x[0].shape, repeats, strict=True)])
        return reshape.repeat(x[0], repeats)

    return run


@reads("Slice")
def slice_(node: Node) -> Run:
    """Limits are attributes before opset 10, then inputs."""
    attributes = [node.take(name) for name in ("starts", "ends", "axes")]

    def run(model: Module, x: Inputs) -> Tensor:
        limits: list[Any] = attributes if attributes[0] is not None else [None if i is None else _ints(i) for i in x[1:]]
        starts, ends, axes, steps = (*limits, None, None)[:4]
        index = [slice(None)] * x[0].ndim
        for i, start in enumerate(starts):
            axis, step, end = axes[i] if axes else i, steps[i] if steps else 1, ends[i]
            n = x[0].shape[axis]
            start, end = (at + n if at < 0 else at for at in (start, end))
            low, high = (0, n) if step > 0 else (-1, n - 1)
            start, end = max(low if step > 0 else 0, min(start, high)), max(low, min(end, high))
            index[axis] = slice(start, None if end < 0 else end, step)
        return reshape.getitem(x[0], tuple(index))

    return run


@reads("Pad")
def pad(node: Node) -> Run:
    """Widths and value are attributes before opset 11, then inputs."""
    node.only("mode", "constant")
    given, fill = node.take("pads"), node.take("value", 0.0)

    def run(model: Module, x: Inputs) -> Tensor:
        image, pads, value, axes = (*x, None, None, None)[:4]
        widths = given if pads is None else _ints(pads)
        on = list(range(image.ndim)) if axes is None else [a % image.ndim for a in _ints(axes)]
        pairs = [(0, 0)] * image.ndim
        for i, axis in enumerate(on):
            pairs[axis] = widths[i], widths[len(on) + i]
        _check_room(node, [before + n + after for n, (before, after) in zip(image.shape, pairs, strict=True)])
        flat = [width for pair in reversed(pairs) for width in pair]
        return F.pad(image, flat, value=fill if value is None else value.item())

    return run


@reads("Clip")
def clip(node: Node) -> Run:
    given = node.take("min"), node.take("max")

    def run(model: Module, x: Inputs) -> Tensor:
        low, high = (x[i].item() if len(x) > i and x[i] is not None else bound for i, bound in enumerate(given, start=1))
        return x[0] if low is None and high is None else arithmetic.clamp(x[0], low, high)

    return run


def _one_output(node: Node) -> None:
    for name in node.proto.output[1:]:
        if name in node.used:
            raise node.refuse(f"its first output alone is given, but {name!r} is used")


def array_of(tensor: onnx.TensorProto, title: str = "Constant") -> np.ndarray:
    """A tensor's numbers. OnnxError if they do not fill its shape, or are of a kind that NumPy has not."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise OnnxError(f"load: {title} {tensor.name!r}: its numbers must be in the file")
    try:
        array = np.array(numpy_helper.to_array(tensor), order="C")
    except Exception as error:  # protobuf's, NumPy's and ONNX's own
        raise OnnxError(f"load: {title} {tensor.name!r} of shape {list(tensor.dims)} can't be read: {error}") from error
    if array.dtype.kind not in "fiub":
        raise OnnxError(f"load: {title} {tensor.name!r}: numbers of {array.dtype} are not known here")
    return array
