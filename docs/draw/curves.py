"""Functions of one number: the value in blue, the slope in orange, and both as numbers at some points."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

import minidl.nn.functional as F
from draw.svg import Figure, number
from minidl import Tensor


class Curve(NamedTuple):
    """A function to draw: what it is called, and how it is drawn."""

    name: str
    of: Callable[[Tensor], Tensor]
    slope: str = "dy/dx"
    dashed: bool = False


LEFT, RIGHT, TALL = 44, 462, 210


def curve(of: Callable[[Tensor], Tensor], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes, as minidl computes them, forward and backward."""
    x = Tensor(at, requires_grad=True)
    y = of(x)
    y.backward(np.ones(y.shape))
    assert x.grad is not None
    return y.detach().numpy(), x.grad.numpy()


def pieces(slopes: np.ndarray) -> list[np.ndarray]:
    """The positions, cut where the slope jumps."""
    return np.split(np.arange(len(slopes)), 1 + np.flatnonzero(abs(np.diff(slopes)) > 0.3))


def plot(title: str, *curves: Curve, reach: float = 4, low: float, high: float, at: tuple[float, ...], x: str = "x") -> Figure:
    """The curves from -reach to reach, and a table of their numbers at some places."""
    top, bottom = 28 + 24 * len(curves), 28 + 24 * len(curves) + TALL
    figure = Figure(title, bottom + 64 + 48 * len(curves))

    def across(value: float) -> float:
        return LEFT + (value + reach) / (2 * reach) * (RIGHT - LEFT)

    def up(value: float) -> float:
        return bottom - (value - low) / (high - low) * TALL

    for mark in np.arange(-reach, reach + 1, reach / 2):
        figure.line([(across(mark), top), (across(mark), bottom)], "line" if mark == 0 else "grid")
        figure.text(across(mark), bottom + 19, number(mark), "note", "end" if mark == reach else "middle")
    for mark in np.arange(np.ceil(low), np.floor(high) + 1):
        figure.line([(LEFT, up(mark)), (RIGHT, up(mark))], "line" if mark == 0 else "grid")
        figure.text(LEFT - 8, up(mark) + 5, number(mark), "note", "end")
    places = np.linspace(-reach, reach, 401)
    for i, one in enumerate(curves):
        y, slope = curve(one.of, places)
        ending = "dash" if one.dashed else "line"
        for part in pieces(slope):
            figure.line([(across(places[j]), up(slope[j])) for j in part if low <= slope[j] <= high], f"b{ending} slope")
        figure.line([(across(v), up(w)) for v, w in zip(places, y, strict=True) if low <= w <= high], f"f{ending}")
        line = 28 + 24 * i
        figure.line([(LEFT, line - 5), (LEFT + 34, line - 5)], f"f{ending}")
        figure.text(LEFT + 42, line, one.name, "fnum")
        figure.line([(310, line - 5), (344, line - 5)], f"b{ending}")
        figure.text(352, line, one.slope, "bnum")
    rows = bottom + 50
    figure.text(24, rows, x, "name")
    columns = [204 + 256 / max(len(at) - 1, 1) * j for j in range(len(at))]
    for column, value in zip(columns, at, strict=True):
        figure.text(column, rows, number(value), "name", "end")
    for i, one in enumerate(curves):
        first = one.name.split(" = ")[0]
        for k, (words, kind, numbers) in enumerate(
            zip((one.name if "," in first else first, one.slope), ("fnum", "bnum"), curve(one.of, np.array(at)), strict=True)
        ):
            line = rows + 24 * (2 * i + k + 1)
            figure.text(24, line, words, kind)
            for column, value in zip(columns, numbers, strict=True):
                figure.text(column, line, number(value.round(3)), kind, "end")
    return figure


AT = (-2.0, -0.5, 0.0, 1.0, 3.0)


def loss(of: Callable[..., Tensor], target: float = 0.0, **settings: float) -> Callable[[Tensor], Tensor]:
    """A loss of each number, against the same target."""
    return lambda x: of(x, np.full(x.shape, target), reduction="none", **settings)


FIGURES: dict[str, Callable[[], Figure]] = {
    "relu": partial(plot, "ReLU and its slope", Curve("y = relu(x)", F.relu), low=-0.5, high=4, at=AT),
    "leaky_relu": partial(
        plot,
        "Leaky ReLU with the slope 0.1, and its slope",
        Curve("y = leaky_relu(x, 0.1)", lambda x: F.leaky_relu(x, 0.1)),
        low=-0.7,
        high=4,
        at=AT,
    ),
    "elu": partial(plot, "ELU and its slope", Curve("y = elu(x)", F.elu), low=-1.3, high=4, at=AT),
    "gelu": partial(plot, "GELU and its slope", Curve("y = gelu(x)", F.gelu), low=-0.5, high=4, at=AT),
    "silu": partial(plot, "SiLU and its slope", Curve("y = silu(x)", F.silu), low=-0.5, high=4, at=AT),
    "softplus": partial(plot, "Softplus and its slope", Curve("y = softplus(x)", F.softplus), low=-0.3, high=4, at=AT),
    "sigmoid": partial(plot, "The sigmoid and its slope", Curve("y = sigmoid(x)", F.sigmoid), low=-0.2, high=1.2, at=AT),
    "tanh": partial(plot, "tanh and its slope", Curve("y = tanh(x)", F.tanh), low=-1.2, high=1.2, at=AT),
    "mse_loss": partial(
        plot,
        "The squared error and its slope, over d = x - t",
        Curve("loss = mse_loss", loss(F.mse_loss), "dloss/dx"),
        reach=2,
        low=-4.1,
        high=4.1,
        at=(-2, -0.5, 0, 0.5, 2),
        x="d",
    ),
    "l1_loss": partial(
        plot,
        "The absolute error and its slope, over d = x - t",
        Curve("loss = l1_loss", loss(F.l1_loss), "dloss/dx"),
        reach=2,
        low=-1.3,
        high=2.1,
        at=(-2, -0.5, 0, 0.5, 2),
        x="d",
    ),
    "smooth_l1_loss": partial(
        plot,
        "The smooth absolute error for two values of beta, and its slopes, over d = x - t",
        Curve("loss, beta 1", loss(F.smooth_l1_loss), "slope, 1"),
        Curve("loss, beta 0.5", loss(F.smooth_l1_loss, beta=0.5), "slope, 0.5", dashed=True),
        reach=2,
        low=-1.3,
        high=2.1,
        at=(-2, -0.5, 0, 0.5, 2),
        x="d",
    ),
    "binary_cross_entropy_with_logits": partial(
        plot,
        "The loss of a score whose answer is yes, or no, and its slope",
        Curve("loss, t = 1", loss(F.binary_cross_entropy_with_logits, 1.0), "slope, 1"),
        Curve("loss, t = 0", loss(F.binary_cross_entropy_with_logits, 0.0), "slope, 0", dashed=True),
        low=-1.3,
        high=4.1,
        at=AT,
    ),
}
