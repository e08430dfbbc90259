"""The types of layers: what each reads from its section, the sizes that follow, its weights and its formula.

A layer is a module. `shape` is that of its output without the images' axis: (C, H, W) for maps, which are square, (F,) for the
units of an `fc` layer.

Source: `layer.py` of the 2012 program, and its kernels for the norms.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import ClassVar, NamedTuple

import numpy as np

import minidl.nn.functional as F
from minidl.cfg.neurons import read_neuron
from minidl.cfg.sections import Section
from minidl.device import Device
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.nn.weighted import empty_parameter
from minidl.ops.arithmetic import maximum
from minidl.ops.local2d import AS_NAMED, AS_STORED
from minidl.random import default_generator
from minidl.shapes import ceil_padding
from minidl.tensor import Tensor

Shape = tuple[int, ...]


class Setting(NamedTuple):
    """What no file says: the images' (C, H, W), and the devices that `gpu=0`, `gpu=1`, ... are."""

    image_shape: Shape
    devices: Sequence[Device]


class Layer(Module):
    """A section, read.

    before : the layers of the sections above it, by name.
    """

    takes: ClassVar[tuple[int, int | None]] = 1, 1  # how many inputs: at least, at most
    has_neuron: ClassVar[bool] = True
    has_params: ClassVar[bool] = False  # is there a section of the parameter file for it?
    has_output: bool = True  # that layers other than a cost may read
    shape: Shape
    gpu: int

    def __init__(self, section: Section, before: Mapping[str, "Layer"], setting: Setting) -> None:
        super().__init__()
        self.name, self.type = section.name, section.text("type")
        self.inputs = self._read_inputs(section, before)
        self.input_shapes = [before[name].shape for name in self.inputs]
        self.gpu = section.integer("gpu", before[self.inputs[0]].gpu, 0) if self.inputs else 0
        self.device = self._device(section, setting.devices)
        self.neuron = read_neuron(section, section.text("neuron", "ident")) if self.has_neuron else None
        self.shape = self.read(section, before, setting)
        section.done()

    def _read_inputs(self, section: Section, before: Mapping[str, "Layer"]) -> list[str]:
        least, most = self.takes
        if most == 0:
            return []
        names = [name.strip() for name in section.text("inputs").split(",")]
        for name in names:
            if name not in before:
                raise section.error("inputs", "must be layers that stand above this one", name)
            if not before[name].has_output and not isinstance(self, Cost):
                raise section.error(
                    "inputs", "must be images, maps or units; labels are for a cost alone, and a cost has no output", name
                )
        if len(names) < least or (most is not None and len(names) > most):
            count = f"at least {least}" if most is None else str(least)
            raise section.error("inputs", f"must be {count} for type {self.type}", f"{len(names)}: {', '.join(names)}")
        return names

    def _device(self, section: Section, devices: Sequence[Device]) -> Device:
        if len(devices) == 1:
            return devices[0]
        if self.gpu >= len(devices):
            raise section.error("gpu", f"must be below {len(devices)}, the number of devices", self.gpu)
        return devices[self.gpu]

    def read(self, section: Section, before: Mapping[str, "Layer"], setting: Setting) -> Shape:
        """Read the type's own keys, make the weights; returns the shape of the output."""
        raise NotImplementedError(f"{type(self).__name__}: read is missing")

    def read_params(self, section: Section) -> None:
        """Read the parameter file's section, again with each further file."""
        raise NotImplementedError(f"{type(self).__name__}: read_params is missing")

    def compute(self, *inputs: Tensor) -> Tensor:
        """The output before the neuron."""
        raise NotImplementedError(f"{type(self).__name__}: compute is missing")

    def forward(self, *inputs: Tensor) -> Tensor:
        y = self.compute(*inputs)
        return y if self.neuron is None else self.neuron(y)

    def extra_repr(self) -> str:
        reads = ", ".join(f"{name} {_by(shape)}" for name, shape in zip(self.inputs, self.input_shapes, strict=True))
        return f"{reads} -> {_by(self.shape)}"


def _by(shape: Sequence[int]) -> str:
    """(3, 32, 32) -> "3x32x32"."""
    return "x".join(map(str, shape))


def maps(section: Section, i: int, layer: Layer, channels: int) -> Shape:
    """Input i as square maps (channels, side, side), which units of an fc layer can be too. ValueError if it can't be that."""
    name, shape = layer.inputs[i], layer.input_shapes[i]
    side = round((shape[0] / channels) ** 0.5)
    if len(shape) == 3 and shape[0] == channels:
        return shape
    if len(shape) == 1 and channels * side * side == shape[0]:
        return channels, side, side
    rule = "must be the number of its channels" if len(shape) == 3 else "must make square maps of its units"
    raise section.error("channels", f"of {name}, {_by(shape)}, {rule}", channels)


def as_maps(x: Tensor, shape: Shape) -> Tensor:
    """(N, F) -> (N, C, H, W); maps stay as they are."""
    return x if x.ndim == 4 else x.reshape(len(x), *shape)


# ------------------------------------------------------------------------------------------------------------------ data


class Data(Layer):
    """The images (`dataIdx=0`), or their labels (`dataIdx=1`), which only a cost reads."""

    takes = 0, 0
    has_neuron = False

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        self.index = section.integer("dataIdx")
        if self.index not in (0, 1):
            raise section.error("dataIdx", "must be 0, the images, or 1, their labels", self.index)
        self.has_output = self.index == 0
        return setting.image_shape if self.index == 0 else (1,)


# ------------------------------------------------------------------------------------------------------ layers with weights


class WeightLayer(Layer):
    """What conv, local and fc share: a weight for each input, one bias; the products are added.

    The weight of a single input is the parameter `weight`; those of several are `weight0`, `weight1`, ... One that
    `weightSource` takes from another layer is that layer's parameter.
    """

    takes = 1, None
    has_params = True
    bias: Parameter

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        n = len(self.inputs)
        texts = section.texts("weightSource", n, "")
        self.sources = [self._source(section, i, text, before) if text else None for i, text in enumerate(texts)]
        deviations, value = section.numbers("initW", n, least=0), section.number("initB", 0)
        weights, bias, shape = self.shapes(section)
        self.weight_names: list[str] = []
        for i, source in enumerate(self.sources):
            weight = self._new(weights[i], deviations[i]) if source is None else source[0].weights[source[1]]
            if weight.shape != weights[i]:
                raise section.error("weightSource", f"{texts[i]} must be {_by(weights[i])}", _by(weight.shape))
            self.weight_names.append("weight" if n == 1 else f"weight{i}")
            self.register_parameter(self.weight_names[i], weight)
        self.bias = empty_parameter(bias, self.device, None)
        init.constant_(self.bias, value)
        return shape

    @property
    def weights(self) -> list[Parameter]:
        """One for each input."""
        return [getattr(self, name) for name in self.weight_names]

    def _source(self, section: Section, i: int, text: str, before: Mapping[str, Layer]) -> tuple["WeightLayer", int]:
        """`layer[j]`, or `layer` for its first: whose weight input i's is."""
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)\])?", text)
        name, index = (text, 0) if match is None else (match[1], int(match[2] or 0))
        source = self if name == self.name else before.get(name)
        if source is None:
            raise section.error("weightSource", "must be this layer or one above it, as conv1 or conv1[0]", text)
        if not isinstance(source, WeightLayer) or type(source) is not type(self):
            raise section.error("weightSource", f"must be a layer of type {self.type}", text)
        count = i if source is self else len(source.weights)
        if index >= count:
            raise section.error("weightSource", f"must be one of the {count} weights that {name} has here", text)
        if source.gpu != self.gpu:
            raise section.error("weightSource", f"must be on gpu {self.gpu} as this layer is", f"{text} on gpu {source.gpu}")
        return source, index

    def _new(self, shape: Shape, deviation: float) -> Parameter:
        weight = self.empty_weight(shape)
        init.normal_(weight, 0.0, deviation)
        return weight

    def empty_weight(self, shape: Shape) -> Parameter:
        return empty_parameter(shape, self.device, None)

    def shapes(self, section: Section) -> tuple[list[Shape], Shape, Shape]:
        """Read the type's own keys; the shapes of the weights, the bias and the output."""
        raise NotImplementedError(f"{type(self).__name__}: shapes is missing")

    def product(self, i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        """Input i with its weight."""
        raise NotImplementedError(f"{type(self).__name__}: product is missing")

    def compute(self, *inputs: Tensor) -> Tensor:
        y = self.product(0, inputs[0], self.bias)
        for i, x in enumerate(inputs[1:], 1):
            y = y + self.product(i, x, None)
        return y

    def read_params(self, section: Section) -> None:
        """The learning rates, momenta and decays. Those of a weight that is another layer's are that layer's."""
        n = len(self.inputs)
        self.rates, self.momenta = section.numbers("epsW", n, least=0), section.numbers("momW", n, least=0)
        self.decays = section.numbers("wc", n, 0, least=0)
        self.bias_rate, self.bias_momentum = section.number("epsB", least=0), section.number("momB", least=0)
        for key in ("wball", "superEps", "superMom"):
            section.zero(key)


class FullyConnected(WeightLayer):
    """`fc`: y = x0 w0^T + x1 w1^T + ... + b on flattened inputs, maps in the order (C, H, W)."""

    def shapes(self, section: Section) -> tuple[list[Shape], Shape, Shape]:
        outputs = section.integer("outputs", least=1)
        return [(outputs, math.prod(shape)) for shape in self.input_shapes], (outputs,), (outputs,)

    def product(self, i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(F.flatten(x, 1), self.weights[i], bias)


class Filters(WeightLayer):
    """What conv and local share: the filters' sizes, with a stride, a padding and a number of groups for each input.

    The side of the output is ceil((side + 2 padding - filterSize) / stride) + 1; what the last windows lack at the right and
    at the bottom is read as 0. `filters` counts those of one group.

    With randSparse a group sees filterChannels channels instead of its share of them: they are dealt out from as many random
    permutations as that takes.
    """

    def shapes(self, section: Section) -> tuple[list[Shape], Shape, Shape]:
        n = len(self.inputs)
        channels, self.groups = section.integers("channels", n, least=1), section.integers("groups", n, 1, 1)
        filters = [f * g for f, g in zip(section.integers("filters", n, least=1), self.groups, strict=True)]
        sizes, self.strides = section.integers("filterSize", n, least=1), section.integers("stride", n, 1, 1)
        self.paddings = section.integers("padding", n, 0, 0)
        self.map_shapes = [maps(section, i, self, c) for i, c in enumerate(channels)]
        self.more: list[int] = []  # zeros at the right and bottom, by the rule of the ceiling
        outputs: list[Shape] = []
        for (_, side, _), size, stride, padding, o in zip(
            self.map_shapes, sizes, self.strides, self.paddings, filters, strict=True
        ):
            padded = side + 2 * padding
            if size > padded:
                raise section.error(
                    "filterSize", f"must be at most {padded} = {side} + 2 x {padding}, the padded map's side", size
                )
            self.more.append(ceil_padding(padded, size, stride))
            out = (padded + self.more[-1] - size) // stride + 1
            outputs.append((o, out, out))
        if len(set(outputs)) > 1:
            raise section.error("inputs", "must all give an output of the same shape", " and ".join(map(_by, outputs)))
        seen = self._read_connections(section, channels)
        weights: list[Shape] = [(o, s // g, k, k) for (o, _, _), s, g, k in zip(outputs, seen, self.groups, sizes, strict=True)]
        return self.with_places(section, weights, outputs[0])

    def with_places(self, section: Section, weights: list[Shape], output: Shape) -> tuple[list[Shape], Shape, Shape]:
        """The shapes of the weights, the bias and the output, where each place may have its own."""
        raise NotImplementedError(f"{type(self).__name__}: with_places is missing")

    def _read_connections(self, section: Section, channels: list[int]) -> list[int]:
        """How many channels the groups of each input see together; `connections0`, ... say which, None all in order."""
        n = len(channels)
        sparse = section.flags("randSparse", n, False)
        widths = section.integers("filterChannels", n, 0, 0)
        seen = []
        for i, (c, groups, width) in enumerate(zip(channels, self.groups, widths, strict=True)):
            if not sparse[i]:
                if c % groups:
                    raise section.error("groups", f"must divide {c}, the channels", groups)
                seen.append(c)
                self.register_buffer(f"connections{i}", None)
                continue
            width = width or c // groups
            if not width or c % width or groups * width % c:
                raise section.error(
                    "filterChannels",
                    f"must divide {c} channels, and {groups} groups of so many must deal them out evenly",
                    width,
                )
            seen.append(groups * width)
            source = self.sources[i]
            if source is None:
                order = np.concatenate([default_generator.permutation(c) for _ in range(groups * width // c)])
                self.register_buffer(f"connections{i}", Tensor(order, device=self.device))
            else:
                self.register_buffer(f"connections{i}", source[0].get_buffer(f"connections{source[1]}"))
        return seen

    def seen(self, i: int, x: Tensor) -> tuple[Tensor, int]:
        """Input i as maps of the channels that the groups see, with zeros for the last windows; and the padding left to do."""
        x = as_maps(x, self.map_shapes[i])
        connections = getattr(self, f"connections{i}")
        if connections is not None:
            x = x[:, connections]
        padding, more = self.paddings[i], self.more[i]
        if not more:
            return x, padding
        return F.pad(x, (padding, padding + more, padding, padding + more)), 0


class Conv(Filters):
    """Filters that all places of a map share."""

    def with_places(self, section: Section, weights: list[Shape], output: Shape) -> tuple[list[Shape], Shape, Shape]:
        places = output[1] * output[2]
        part = section.integer("partialSum", 0, 0)  # how the 2012 kernels added up; numbers are the same
        if part and places % part:
            raise section.error(
                "partialSum", f"must divide {places} = {output[1]} x {output[2]}, the places of the output", part
            )
        self.shared_biases = section.flag("sharedBiases", True)
        return weights, output[:1] if self.shared_biases else output, output

    def product(self, i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        return self._convolved(F.conv2d, i, x, bias)

    def _convolved(self, op: Callable[..., Tensor], i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self.seen(i, x)
        for_all = bias if self.shared_biases else None
        y = op(x, self.weights[i], for_all, self.strides[i], padding, 1, self.groups[i])
        return y if bias is None or self.shared_biases else y + bias

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.neuron is F.relu and len(inputs) == 1 and self.shared_biases:
            return self._convolved(F.conv2d_relu, 0, inputs[0], self.bias)  # the same in one op
        return super().forward(*inputs)


class Local(Filters):
    """Filters and biases of its own for each place of the output."""

    def with_places(self, section: Section, weights: list[Shape], output: Shape) -> tuple[list[Shape], Shape, Shape]:
        return [(*shape, *output[1:]) for shape in weights], output, output

    def empty_weight(self, shape: Shape) -> Parameter:
        return Parameter(
            Tensor(np.empty(tuple(shape[i] for i in AS_STORED), np.float32).transpose(*AS_NAMED), device=self.device)
        )

    def product(self, i: int, x: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self.seen(i, x)
        return F.local2d(x, self.weights[i], bias, self.strides[i], padding, self.groups[i])


# ------------------------------------------------------------------------------------------------------- pools and norms


class Pooling(Layer):
    """The largest (`pool=max`) or mean (`pool=avg`) pixel of windows of sizeX x sizeX, every `stride` pixels from `start` on.

    A window that hangs over the edge, at the end or where start is below 0, has only the pixels that are in the map; the mean
    is that of these. outputsX windows in a row; 0 is as many as cover the map.
    """

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        self.pool = section.choice("pool", ("max", "avg"))
        self.map_shape = c, side, _ = maps(section, 0, self, section.integer("channels", least=1))
        self.size, self.stride = section.integer("sizeX", least=1), section.integer("stride", least=1)
        start, out = section.integer("start", 0), section.integer("outputsX", 0, 0)
        if self.size > side:
            raise section.error("sizeX", f"must be at most {side}, the map's side", self.size)
        if self.stride > self.size:
            raise section.error("stride", f"must be at most sizeX {self.size}", self.stride)
        if not -self.size < start < side:
            raise section.error(
                "start", f"must be above -{self.size} and below {side}, or the first window has no pixel", start
            )
        whole = max(-(-(side - start - self.size) // self.stride), 0) + 1
        out = out or whole
        last = start + (out - 1) * self.stride
        if last >= side:
            raise section.error(
                "outputsX", f"must be at most {(side - start - 1) // self.stride + 1}, or the last window has no pixel", out
            )
        self.plain = start == 0 and out == whole
        self.edges = -start, last + self.size - side  # to be added before and after the map; below 0: to be cut off
        return c, out, out

    def compute(self, *inputs: Tensor) -> Tensor:
        x = as_maps(inputs[0], self.map_shape)
        if self.plain:
            pool = F.max_pool2d if self.pool == "max" else F.avg_pool2d
            return pool(x, self.size, self.stride, ceil_mode=True)
        edges = self.edges * 2
        if self.pool == "max":
            return F.max_pool2d(F.pad(x, edges, value=-math.inf), self.size, self.stride)
        ones = Tensor(np.ones((1, 1, *self.map_shape[1:]), x.dtype), device=self.device)
        total, count = (F.avg_pool2d(F.pad(t, edges), self.size, self.stride, divisor_override=1) for t in (x, ones))
        return total / count


class Norm(Layer):
    """y = x d^-pow, where d = minDiv + scale * the mean square of a window around the pixel, with zeros outside."""

    has_params = True

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        shape = maps(section, 0, self, section.integer("channels", least=1))
        self.size, most = section.integer("size", least=1), self.most(shape)
        if self.size > most:
            raise section.error("size", f"must be at most {most} for {self.inputs[0]}, {_by(shape)}", self.size)
        section.zero("blocked")
        return shape

    def most(self, shape: Shape) -> int:
        """The largest window: the map's side."""
        return shape[1]

    def read_params(self, section: Section) -> None:
        self.scale, self.pow = section.number("scale", least=0), section.number("pow")
        self.min_div = section.number("minDiv", 1, least=0)

    def window_mean(self, x: Tensor) -> Tensor:
        """The mean of size x size pixels of the same map; of an even number more lie above and to the left."""
        side = self.shape[1]
        y = F.avg_pool2d(x, self.size, 1, self.size // 2)
        return y if self.size % 2 else y[:, :, :side, :side]

    def divided(self, x: Tensor, square: Tensor) -> Tensor:
        d = self.min_div + self.scale * self.window_mean(square)
        if self.pow != 0.75:
            return x * d**-self.pow
        root = d.sqrt()
        return x / (root * root.sqrt())  # many times faster than a power


class ResponseNorm(Norm):
    """`rnorm`: squares of the same map."""

    def compute(self, *inputs: Tensor) -> Tensor:
        x = as_maps(inputs[0], self.shape)
        return self.divided(x, x * x)


class ContrastNorm(Norm):
    """`cnorm`: squares of what each pixel differs by from the mean of its own window, of the pixels that are in the map.

    As in the 2012 kernels it is x itself that is divided. Their gradient leaves out that the mean depends on x; here it is
    whole.
    """

    def compute(self, *inputs: Tensor) -> Tensor:
        x = as_maps(inputs[0], self.shape)
        inside = self.window_mean(Tensor(np.ones((1, 1, *self.shape[1:]), x.dtype), device=self.device))
        difference = x - self.window_mean(x) / inside
        return self.divided(x, difference * difference)


class CrossMapNorm(Norm):
    """`cmrnorm`: squares of `size` channels at the same pixel, local response normalisation."""

    def most(self, shape: Shape) -> int:
        return shape[0]

    def compute(self, *inputs: Tensor) -> Tensor:
        return F.local_response_norm(as_maps(inputs[0], self.shape), self.size, self.scale, self.pow, self.min_div)


# ------------------------------------------------------------------------------------------------------------- all others


class NeuronLayer(Layer):
    """A neuron alone."""

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        section.text("neuron")
        return self.input_shapes[0]

    def compute(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


class HiddenDropout(Layer):
    """`hs`: dropout as in 2012. `keep` is the probability to stay; in evaluation, and without `enable`, the factor."""

    has_params = True

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        self.keep = section.number("keep")
        if not 0 < self.keep <= 1:
            raise section.error("keep", "must be above 0 and at most 1", self.keep)
        return self.input_shapes[0]

    def read_params(self, section: Section) -> None:
        self.enable = section.flag("enable")

    def compute(self, *inputs: Tensor) -> Tensor:
        return F.dropout(inputs[0], 1 - self.keep, self.training and self.enable, scale_at="test")


class Elementwise(Layer):
    """Inputs of one shape."""

    takes = 1, None

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        if len(set(self.input_shapes)) > 1:
            raise section.error("inputs", "must have the same shape", " and ".join(map(_by, self.input_shapes)))
        return self.input_shapes[0]


class Sum(Elementwise):
    """`eltsum`: coeffs[0] x0 + coeffs[1] x1 + ..."""

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        self.coeffs = section.numbers("coeffs", len(self.inputs), 1)
        return super().read(section, before, setting)

    def compute(self, *inputs: Tensor) -> Tensor:
        terms = [coeff * x for coeff, x in zip(self.coeffs, inputs, strict=True)]
        return reduce(operator.add, terms)


class Max(Elementwise):
    """`eltmax`: the largest input, element by element."""

    takes = 2, None

    def compute(self, *inputs: Tensor) -> Tensor:
        return reduce(maximum, inputs)


class Softmax(Layer):
    """Probabilities, of all units of an image."""

    has_neuron = False

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        return (math.prod(self.input_shapes[0]),)

    def compute(self, *inputs: Tensor) -> Tensor:
        return F.softmax(F.flatten(inputs[0], 1), 1)


class Cost(Layer):
    """`cost.logreg`: the mean over the images of -log of the class's probability, times coeff. Reads labels and a softmax."""

    takes = 2, 2
    has_neuron = False
    has_params = True
    has_output = False

    def read(self, section: Section, before: Mapping[str, Layer], setting: Setting) -> Shape:
        labels, probabilities = (before[name] for name in self.inputs)
        if not isinstance(labels, Data) or labels.index != 1:
            raise section.error("inputs", "must be the labels first, a data layer with dataIdx=1", labels.name)
        if not isinstance(probabilities, Softmax):
            raise section.error("inputs", "must be a softmax layer second", probabilities.name)
        self.scores = probabilities.inputs[0]
        self.classes = probabilities.shape[0]
        return ()

    def read_params(self, section: Section) -> None:
        self.coeff, self.topk = section.number("coeff", least=0), section.integer("topk", 1, 1)
        if self.topk > self.classes:
            raise section.error("topk", f"must be at most {self.classes}, the classes", self.topk)

    def compute(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError(f"{self.name}: the loss is Net.loss")


TYPES: dict[str, type[Layer]] = {
    "data": Data,
    "conv": Conv,
    "local": Local,
    "fc": FullyConnected,
    "pool": Pooling,
    "rnorm": ResponseNorm,
    "cmrnorm": CrossMapNorm,
    "cnorm": ContrastNorm,
    "neuron": NeuronLayer,
    "hs": HiddenDropout,
    "eltsum": Sum,
    "eltmax": Max,
    "softmax": Softmax,
    "cost.logreg": Cost,
}


def read_layer(section: Section, before: Mapping[str, Layer], setting: Setting) -> Layer:
    """The layer of a section. ValueError: a type that is not read, or a key that does not fit."""
    kind = section.text("type")
    if kind not in TYPES:
        raise section.error("type", f"must be one of those that are read, {', '.join(TYPES)}", kind)
    return TYPES[kind](section, before, setting)
