"""`train.py --check-grads`: is every layer's backward right, on this machine, at this network's own shapes?

Each layer is checked by itself, in float64, on random inputs of the shape that it sees in the network: end to end, a nudge of
millions of weights steps over some ReLU's kink, and numeric slopes mean nothing there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from model import AlexNet

from minidl import Tensor, nn, no_grad
from minidl.gradcheck import Comparison, gradcheck_leaves
from minidl.random import Generator

DIRECTIONS = 3
CHECKED = (nn.Conv2d, nn.Linear, nn.LocalResponseNorm, nn.MaxPool2d, nn.ReLU, nn.Dropout)


def check_layers(model: AlexNet, batch_size: int = 2, seed: int = 0) -> Iterator[tuple[str, Comparison]]:
    """Check a float64 model; yields (layer, comparison) for the input and each parameter. GradcheckError at a wrong one.

    Layers of the second tower have the shapes and code of the first's, and are left out.
    """
    for name, (layer, shape) in _shapes_seen(model, batch_size).items():
        values = Generator(seed).normal(shape, np.float64)
        if isinstance(layer, (nn.ReLU, nn.MaxPool2d)):
            values = _spread_out(values)
        x = Tensor(values, requires_grad=True, device=model.devices[0])
        leaves = {"input": x, **dict(layer.named_parameters())}
        with _kinks_out_of_reach(layer, x):
            rows = list(gradcheck_leaves(partial(layer, x), leaves, directions=DIRECTIONS, exhaustive=0))
        for row in rows:
            yield name, row


@contextmanager
def _kinks_out_of_reach(layer: nn.Module, x: Tensor) -> Iterator[None]:
    """Inside the block every unit of a convolution with a ReLU is either on or off by a wide margin: biases see to it."""
    if not isinstance(layer, nn.ConvReLU2d) or layer.bias is None:
        yield
        return
    bias, values = layer.bias, layer.bias.data
    try:
        bias.data = values * 0
        with no_grad():
            margin = 2 * float(np.abs(nn.Conv2d.forward(layer, x).numpy()).max())
        signs = np.where(np.arange(len(bias)) % 2, -1.0, 1.0)
        bias.data = bias.device.asarray(signs * margin)
        yield
    finally:
        bias.data = values


def _spread_out(values: np.ndarray) -> np.ndarray:
    """The same order of sizes at even distances, none near 0: no tie and no kink within a nudge's reach."""
    order = np.empty(values.size)
    order[np.argsort(values.reshape(-1), kind="stable")] = np.arange(values.size) - values.size // 2 + 0.5
    return order.reshape(values.shape) * (4.0 / values.size)


def _shapes_seen(model: AlexNet, batch_size: int) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Each layer of tower 0, and fc8, with the shape of its input."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, CHECKED) and not n.startswith("tower1.")}
    seen: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
    handles = [
        m.register_forward_pre_hook(lambda m, inputs, n=n: seen.setdefault(n, (m, inputs[0].shape)) and None)
        for n, m in layers.items()
    ]
    size = model.profile.image_size
    with no_grad():
        model(np.zeros((batch_size, 3, size, size)))
    for handle in handles:
        handle.remove()
    return seen
