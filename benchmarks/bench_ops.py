"""Each layer's forward and backward against PyTorch's, at AlexNet's shapes on one device.

    python benchmarks/bench_ops.py [--batch 128] [--repeats 3] [--only conv2d relu ...]

Both sides go through their autograd engine: the forward records a graph, the backward starts from a given gradient of the
output. The images of conv1 need no gradient, everything else does. minidl's 4-D arrays have channels-last memory, as they have
in a network. PyTorch's are tried contiguous and channels_last, and the faster counts, forward and backward each. For SGD
PyTorch's three implementations are tried; minidl's rule 2012 is the one by which its AlexNet is trained. A ratio above 1 means
that minidl is faster. Functions that AlexNet has none of are timed when --only names them, if they need no more than an input:
leaky_relu, tanh, ... Needs torch.
"""

import argparse
import inspect
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import nets
import numpy as np
import torch
from common import in_turn, machine_line, print_table, seconds, use_threads

import minidl.nn.functional as F
from minidl import Tensor, get_num_threads, nn, optim
from minidl.layout import channels_last

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
THEIRS = {"conv2d_relu": lambda *given, **settings: torch.nn.functional.conv2d(*given, **settings).relu_()}
Programs = dict[str, Callable[[], tuple[float, float]]]  # each returns its seconds forward and backward


@dataclass
class Layer:
    """One call of a function that minidl and PyTorch have under the same name."""

    function: str
    shapes: list[tuple[int, ...]]  # of the input, and of weight and bias if it has them
    settings: dict[str, Any] = field(default_factory=dict)
    labels: np.ndarray | None = None
    input_needs_grad: bool = True

    @property
    def title(self) -> str:
        return " ".join([self.function, *(str(shape) for shape in self.shapes[:2])])

    def programs(self) -> Programs:
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(shape, np.float32) for shape in self.shapes]
        formats = FORMATS if len(self.shapes[0]) == 4 else {"contiguous": torch.contiguous_format}
        theirs = {f"PyTorch, {name}": self._torch_program(arrays, memory) for name, memory in formats.items()}
        return {"minidl": self._minidl_program(arrays), **theirs}

    def _minidl_program(self, arrays: list[np.ndarray]) -> Callable[[], tuple[float, float]]:
        tensors = [Tensor(channels_last(a) if a.ndim == 4 else a, requires_grad=True) for a in arrays]
        tensors[0].requires_grad = self.input_needs_grad
        constants = [] if self.labels is None else [self.labels]
        function = getattr(F, self.function)
        gradient = np.ones_like(function(*tensors, *constants, **self.settings).data)

        def program() -> tuple[float, float]:
            for tensor in tensors:
                tensor.grad = None
            y = None

            def forward() -> None:
                nonlocal y
                y = function(*tensors, *constants, **self.settings)

            return seconds(forward), seconds(lambda: y.backward(gradient))

        return program

    def _torch_program(self, arrays: list[np.ndarray], memory: torch.memory_format) -> Callable[[], tuple[float, float]]:
        given = [torch.from_numpy(a) for a in arrays]
        tensors = [(t.contiguous(memory_format=memory) if t.ndim == 4 else t).requires_grad_() for t in given]
        tensors[0].requires_grad_(self.input_needs_grad)
        needed = [t for t in tensors if t.requires_grad]
        constants = [] if self.labels is None else [torch.from_numpy(self.labels)]
        function = THEIRS.get(self.function) or getattr(torch.nn.functional, self.function)
        gradient = torch.ones_like(function(*tensors, *constants, **self.settings))

        def program() -> tuple[float, float]:
            y = None

            def forward() -> None:
                nonlocal y
                y = function(*tensors, *constants, **self.settings)

            return seconds(forward), seconds(lambda: torch.autograd.grad(y, needed, gradient))

        return program


def convs(n: int, channels: int, size: int, filters: int, kernel: int, groups: int = 1, **settings: Any) -> Iterator[Layer]:
    """A convolution, and the same with its ReLU, as AlexNet has it: one op in minidl, two in PyTorch."""
    shapes = [(n, channels, size, size), (filters, channels // groups, kernel, kernel), (filters,)]
    for function in ("conv2d", "conv2d_relu"):
        yield Layer(function, shapes, {"groups": groups, **settings}, input_needs_grad=channels > 3)


def layers(n: int) -> Iterator[Layer]:
    """AlexNet's for a batch of n, in the order of the network, kind by kind."""
    yield from convs(n, 3, 227, 96, 11, stride=4)
    yield from convs(n, 96, 27, 256, 5, groups=2, padding=2)
    yield from convs(n, 256, 13, 384, 3, padding=1)
    yield from convs(n, 384, 13, 384, 3, groups=2, padding=1)
    yield from convs(n, 384, 13, 256, 3, groups=2, padding=1)
    for shape in ((n, 96, 55, 55), (n, 256, 27, 27), (n, 384, 13, 13), (n, 256, 13, 13), (n, 4096)):
        yield Layer("relu", [shape])
    for shape in ((n, 96, 55, 55), (n, 256, 27, 27)):
        yield Layer("local_response_norm", [shape], {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0})
    for shape in ((n, 96, 55, 55), (n, 256, 27, 27), (n, 256, 13, 13)):
        yield Layer("max_pool2d", [shape], {"kernel_size": 3, "stride": 2})
    for inputs, units in ((9216, 4096), (4096, 4096), (4096, 1000)):
        yield Layer("linear", [(n, inputs), (units, inputs), (units,)])
    yield Layer("dropout", [(n, 4096)], {"p": 0.5})
    yield Layer("cross_entropy", [(n, 1000)], labels=np.arange(n) % 1000)


def others(n: int) -> Iterator[Layer]:
    """What else of minidl.nn.functional needs no more than an input, at the size of conv1's output."""
    timed = {layer.function for layer in layers(n)}
    for name, function in vars(F).items():
        if name not in timed and inspect.isfunction(function):
            parameters = inspect.signature(function).parameters
            first, *rest = parameters.values()
            if first.name == "input" and all(p.default is not p.empty for p in rest):
                yield Layer(name, [(n, 96, 55, 55)], {"dim": 1} if "dim" in parameters else {})


def sgd_programs(rule: str) -> Programs:
    """One step of SGD with momentum and weight decay on AlexNet's parameters, on which both sides work; it has no backward."""
    arrays = [p.data for p in nets.alexnet(nn).parameters()]
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    for p in ours:
        p.grad = Tensor(np.full_like(p.data, 1e-3))
    theirs = [torch.from_numpy(a).requires_grad_() for a in arrays]
    for p in theirs:
        p.grad = torch.full_like(p, 1e-3)
    options = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    optimizers = {
        "minidl": optim.SGD(ours, **options, rule=rule),
        "PyTorch, for each": torch.optim.SGD(theirs, **options, foreach=False),
        "PyTorch, foreach": torch.optim.SGD(theirs, **options, foreach=True),
        "PyTorch, fused": torch.optim.SGD(theirs, **options, fused=True),
    }
    return {name: (lambda step=optimizer.step: (seconds(step), 0.0)) for name, optimizer in optimizers.items()}


def row(title: str, programs: Programs, repeats: int) -> list[str]:
    """Medians in milliseconds, of minidl and of the fastest of the others, and their ratio; forward and backward."""
    times = in_turn(programs, repeats)
    cells = [title]
    for way in (0, 1):
        medians = {name: statistics.median(pair[way] for pair in pairs) for name, pairs in times.items()}
        own = medians.pop("minidl")
        if own:
            peer = min(medians, key=medians.__getitem__)
            how = peer.partition(", ")[2]
            cells += [f"{1e3 * own:.2f}", f"{1e3 * medians[peer]:.2f}", how, f"{medians[peer] / own:.2f}"]
        else:
            cells += [""] * 4
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=None, help="functions to time: conv2d, relu, ..., sgd")
    args = parser.parse_args()
    chosen = [*layers(args.batch)]
    if args.only is not None:
        chosen += others(args.batch)
        if unknown := set(args.only) - {layer.function for layer in chosen} - {"sgd"}:
            parser.error(f"nothing to time is called {', '.join(sorted(unknown))}")
        chosen = [layer for layer in chosen if layer.function in args.only]
    use_threads(get_num_threads())
    print(machine_line())
    rows = [row(layer.title, layer.programs(), args.repeats) for layer in chosen]
    if args.only is None or "sgd" in args.only:
        for rule in ("pytorch", "2012"):
            rows.append(row(f"SGD, 61 M weights, rule {rule}", sgd_programs(rule), args.repeats))
    way = ["minidl ms", "PyTorch ms", "which", "ratio"]
    print_table(["op", *(f"{name} {cell}" for name in ("fwd", "bwd") for cell in way)], rows)


if __name__ == "__main__":
    main()
