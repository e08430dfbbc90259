"""What several ranks would do: a step's time, predicted from a step measured here and from the bytes that must be sent.

    print(scaling(model, (128, 3, 224, 224), [8, 64], bandwidth=12.5e9))

Three ways to share the work among N ranks, each with b images of its own, so N b in a batch. Bytes are what one rank sends:

    data parallel   every rank has the whole net; gradients of P parameters are summed
                        2 (N - 1)/N * 4 P                                   however many images there are
    towers          the net is cut in two, as in 2012, for 2 b images; activations cross, c bytes an image in all
                        c b
    hybrid          data parallel below; of each fully connected layer a rank has 1/N of the outputs, for all ranks' images
                        2 (N - 1)/N * 4 P_conv  +  2 (N - 1) * 4 b * (the inputs of these layers)

So data parallel (N = 2) sends less than towers from b = 4 P / c images on, and less than the hybrid from a batch N b of
P_fc / inputs on, whatever N is. The time of a step is simulated: buckets of gradients get full while backward goes down the
layers, and are sent one after the other; each takes 2 (N - 1) messages' latency, and its bytes over the bandwidth. The layers'
backward is measured in all, and shared out by their multiply-adds. The hybrid's activations are waited for.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import minidl.nn.functional as F
from minidl.nn import Module
from minidl.study.models import left_as_it_was, random_batch
from minidl.study.step.summary import Row, Summary, summary
from minidl.study.step.table import fitted, terminal_width, wrapped

BUCKET = 25 << 20  # bytes, as DistributedDataParallel's
FLOAT = 4  # bytes
LATENCY = 20e-6  # seconds a message, if none is given
_EXPENDABLE = ("efficiency", "waited", "MB sent", "batch")  # the first to go where the terminal is too narrow


@dataclass(frozen=True)
class Layer:
    """What a layer is to those who share the work: numbers of parameters, bytes, and its share of backward."""

    name: str
    parameters: int
    backward: float  # of all of backward's multiply-adds
    inputs: int  # of a fully connected layer; 0 for others


@dataclass(frozen=True)
class Measured:
    """A step of one rank: b images, seconds, and the layers in the order of forward."""

    images: int
    forward: float
    backward: float
    layers: tuple[Layer, ...]
    crosses: int  # bytes an image that the towers exchange, forward and backward

    @property
    def parameters(self) -> int:
        """P."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def connected(self) -> tuple[int, int]:
        """P_fc, and the inputs of these layers."""
        those = [layer for layer in self.layers if layer.inputs]
        return sum(layer.parameters for layer in those), sum(layer.inputs for layer in those)


@dataclass(frozen=True)
class Prediction:
    """A step of N ranks. waited: the seconds of it in which a rank only waits for messages."""

    seconds: float
    waited: float
    sent: float  # bytes, by one rank


def data_parallel(step: Measured, ranks: int, bandwidth: float, latency: float, layers: Sequence[Layer] = ()) -> Prediction:
    """layers: those whose gradients are summed; all of them if none are named."""
    summed = {layer.name for layer in layers or step.layers}
    now = free = float(step.forward)
    sent, full = 0.0, 0
    for i, layer in enumerate(reversed(step.layers)):
        now += step.backward * layer.backward
        full += FLOAT * layer.parameters if layer.name in summed else 0
        last = i == len(step.layers) - 1
        if ranks > 1 and full and (full >= BUCKET or last):
            through = 2 * (ranks - 1) / ranks * full
            free = max(free, now) + through / bandwidth + 2 * (ranks - 1) * latency
            sent, full = sent + through, 0
    return Prediction(max(now, free), max(free - now, 0.0), sent)


def hybrid(step: Measured, ranks: int, bandwidth: float, latency: float) -> Prediction:
    """Data parallel for what is not fully connected; activations and their gradients are exchanged for what is."""
    connected = [layer for layer in step.layers if layer.inputs]
    others = [layer for layer in step.layers if not layer.inputs]
    below = data_parallel(step, ranks, bandwidth, latency, others)
    exchanged = 2 * (ranks - 1) * FLOAT * step.images * sum(layer.inputs for layer in connected)
    waited = exchanged / bandwidth + 2 * len(connected) * (ranks - 1) * latency
    return Prediction(below.seconds + waited, below.waited + waited, below.sent + exchanged)


@dataclass(frozen=True)
class Scaling:
    """The predictions for several numbers of ranks; `str` of it is a table as wide as the terminal, with notes below."""

    model: str
    step: Measured
    ranks: tuple[int, ...]
    bandwidth: float
    latency: float

    def crossovers(self) -> tuple[float, float]:
        """From how many images of a rank on data parallel sends less than the towers, from how large a batch on less than the
        hybrid; infinity for never."""
        towers = FLOAT * self.step.parameters / self.step.crosses if self.step.crosses else float("inf")
        parameters, inputs = self.step.connected
        return towers, parameters / inputs if inputs else float("inf")

    def text(self, width: int | None = None) -> str:
        """The table in lines of at most `width` characters, and below it what was measured, and where one way overtakes
        another; None: all columns."""
        step = self.step
        alone = step.images / (step.forward + step.backward)
        rows = [["ranks", "batch", "way", "MB sent", "step", "waited", "images/s", "efficiency"]]
        for n in self.ranks:
            for way, predict in (("data parallel", data_parallel), ("hybrid", hybrid)):
                found = predict(step, n, self.bandwidth, self.latency)
                speed = n * step.images / found.seconds
                figures = f"{found.sent / 1e6:,.1f}", f"{found.seconds:.3f} s", f"{found.waited:.3f} s", f"{speed:,.0f}"
                rows.append([str(n), f"{n * step.images:,}", way, *figures, f"{speed / (n * alone):.0%}"])
        towers, batch = self.crossovers()
        table = fitted(rows, [0, 1, 3, 4, 5, 6, 7], _EXPENDABLE, width)
        lines = [
            f"{self.model}, {step.parameters:,} parameters",
            *table.lines,
            f"Measured here: {step.images} images take one rank {step.forward:.3f} s forward, {step.backward:.3f} s backward.",
            f"Given: each rank sends and receives {self.bandwidth / 1e9:g} GB/s; a message takes {self.latency * 1e6:g} us.",
            "Efficiency: images/s, over N times what one rank does.",
        ]
        if step.crosses:
            lines.append(f"Two ranks send less than two towers from {towers:,.0f} images a rank on.")
        if step.connected[1]:
            lines.append(f"Data parallel sends less than the hybrid from a batch of {batch:,.0f} on.")
        return "\n".join([*(wrapped(line, width) for line in lines), *table.note])

    def __str__(self) -> str:
        return self.text(terminal_width())


def scaling(
    model: Module, input_shape: Sequence[int], ranks: Sequence[int], bandwidth: float, latency: float = LATENCY
) -> Scaling:
    """Measure a step of this model on this machine, and predict what so many ranks of it would do.

    input_shape : of one rank's batch
    bandwidth   : bytes a second that a rank can send while it receives as many
    latency     : seconds a message

    ValueError: a number of ranks below 1, a bandwidth that is not above 0, or a latency below 0.
    """
    if min(ranks, default=0) < 1 or bandwidth <= 0 or latency < 0:
        raise ValueError(
            f"scaling: ranks must be 1 or more, bandwidth above 0, latency 0 or more, got {list(ranks)}, {bandwidth}, {latency}"
        )
    about = summary(model, (1, *input_shape[1:]))
    return Scaling(about.model, _measured(model, about, tuple(input_shape)), tuple(ranks), bandwidth, latency)


def _measured(model: Module, about: Summary, input_shape: tuple[int, ...]) -> Measured:
    """The step; `about` is of one image."""
    macs = sum(row.macs_backward for row in about.rows) or 1
    layers = [Layer(row.name, row.parameters, row.macs_backward / macs, _inputs(row)) for row in about.rows]
    forward, backward = _times(model, input_shape)
    crosses = sum(row.crosses_forward + row.crosses_backward for row in about.rows)
    return Measured(input_shape[0], forward, backward, tuple(layers), crosses)


def _inputs(row: Row) -> int:
    """Of a fully connected layer how many inputs it has: "4096 x 9216" is its weight."""
    sizes = [int(size) for size in row.kernel.split(" x ")] if row.kernel else []
    return sizes[1] if len(sizes) == 2 else 0


def _times(model: Module, input_shape: Sequence[int], repeats: int = 3) -> tuple[float, float]:
    """Median seconds of forward and backward, after one that does not count."""
    seconds = []
    with left_as_it_was(model):
        images = random_batch(model, tuple(input_shape))
        for _ in range(repeats + 1):
            model.zero_grad()
            started = time.perf_counter()
            scores = model(images)
            loss = F.cross_entropy(scores, np.arange(input_shape[0]) % scores.shape[1])
            between = time.perf_counter()
            loss.backward()
            seconds.append((between - started, time.perf_counter() - between))
    forward, backward = np.median(seconds[1:], axis=0).tolist()
    return forward, backward
