"""Layers in which outputs share inputs: norms, softmax, losses of a row; and dropout, in which they do not."""

from collections.abc import Callable

import numpy as np

import minidl
import minidl.nn.functional as F
from draw.svg import Figure, number
from draw.windows import step
from minidl import Tensor


def local_response_norm() -> Figure:
    x = np.array([1.0, 3, 1, 2, 3, 1, 2])
    gy = (np.arange(7) == 3).astype(float)
    settings = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 1.0}
    y, (gx,) = step(lambda t: F.local_response_norm(t.reshape(1, 7, 1), **settings).reshape(-1), gy, x)  # type: ignore[arg-type]
    direct = gy * y / x  # y = x * d^-beta
    figure = Figure("A gradient of 1 at one channel: a direct term there, and a term across the window", 510)
    figure.text(24, 30, "Forward: a channel is divided by its window's size", "forward")
    for top, name, row, kind in ((44, "x", x, "cell"), (90, "y", y, "on")):
        figure.text(24, top + 21, name, "name")
        figure.cells(52, top, row, np.where(gy, kind, "cell"), size=(58, 32), digits=2)
    figure.line([(52 + 58 + 3, 83), (52 + 58 * 6 - 3, 83)], "fline")
    figure.text(24, 156, "Backward, with gy = 1 at channel 3 and 0 elsewhere", "backward")
    for top, words, row, kind in (
        (252, "direct: gy * d^\u2212beta", direct, "on"),
        (316, "across: by way of d, which the window's x make", gx - direct, "on"),
        (440, "gx: the sum of both", gx, "back"),
    ):
        figure.text(24, top - (70 if kind == "on" and row is direct else 34 if kind == "on" else 46), words, "note")
        figure.bars(52, top, row.round(12), kind, unit=110, step=58)
    figure.text(24, 496, "Channels 0 to 6 from left to right.", "note")
    return figure


def batch_norm() -> Figure:
    x, gy = np.array([1.0, 2, 4, 5, 7, 11]), np.array([1.0, 0, 0, 0, 0, 0])

    def of(t: Tensor) -> Tensor:
        return F.batch_norm(t.reshape(6, 1), None, None, training=True).reshape(-1)

    z, (gx,) = step(of, gy, x)
    _, (still,) = step(
        lambda t: F.batch_norm(t.reshape(6, 1), Tensor(x.mean(keepdims=True)), Tensor(x.var(keepdims=True))).reshape(-1), gy, x
    )
    r = still[0]
    figure = Figure("One gradient goes back on three paths: the value itself, the mean, the variance", 590)
    figure.text(24, 30, "Forward: six values of a channel", "forward")
    for top, name, row, kind in ((44, "x", x, "cell"), (84, "y = z", z, "on")):
        figure.text(24, top + 21, name, "name")
        figure.cells(96, top, row, kind, size=(60, 32), digits=2)
    figure.text(24, 148, "Backward, gy = 1 at the first value, 0 elsewhere", "backward")
    bars_by_row(
        figure,
        {
            "itself: r * gy": still,
            "mean: \u2212r * gb/m": np.full(6, -r * gy.sum() / 6),
            "variance: \u2212r * z * gw/m": -r * z * (gy * z).sum() / 6,
            "gx: the sum": gx,
        },
        top=232,
        unit=90,
    )
    return figure


def bars_by_row(figure: Figure, terms: dict[str, np.ndarray], *, top: float, unit: float) -> None:
    """Rows of bars, of which the last is the sum of the others."""
    *parts, whole = terms.values()
    assert np.allclose(sum(parts), whole, atol=1e-4)
    for words, row in terms.items():
        high = 20 + unit * max(0.0, row.max())
        figure.text(24, top - high - 6, words, "note")
        figure.bars(96, top, row, "back" if row is whole else "on", unit=unit, step=60)
        top += 96


def layer_norm() -> Figure:
    x = np.array([[1.0, 2, 4, 5], [10, 30, 20, 40]])
    gy = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    y, (gx,) = step(lambda t: F.layer_norm(t, (4,)), gy, x)
    z, r = y[0], 1 / np.sqrt(x[0].var() + 1e-5)
    figure = Figure("Each sample has its own mean and variance; its gradient takes three paths", 620)
    figure.text(24, 30, "Forward: mean and variance of each row, a sample", "forward")
    figure.cells(24, 66, x, [["on"], ["cell"]], size=(46, 32), name="x")
    figure.cells(272, 66, y, [["on"], ["cell"]], size=(50, 32), name="y = z", digits=2)
    for i in range(2):
        figure.arrow((212, 82 + 32 * i), (268, 82 + 32 * i))
    figure.text(
        24,
        154,
        f"means {number(x[0].mean())} and {number(x[1].mean())}, variances {number(x[0].var())} and {number(x[1].var())}",
        "note",
    )
    figure.text(24, 190, "Backward, gy = 1 at the first feature, else 0", "backward")
    bars_by_row(
        figure,
        {
            "itself: r * gz": r * gy[0],
            "mean: \u2212r * mean of gz": np.full(4, -r * gy[0].mean()),
            "variance: \u2212r * z * mean of gz * z": -r * z * (gy[0] * z).mean(),
            "gx: the sum": gx[0],
        },
        top=286,
        unit=60,
    )
    return figure


def softmax() -> Figure:
    x, gy = np.log([1.0, 2, 5]), np.array([8.0, 0, 0])
    y, (gx,) = step(lambda t: F.softmax(t, 0), gy, x)
    figure = Figure("Scores, their probabilities, and the gradient of one probability to every score", 400)
    figure.text(24, 30, "Forward: e^x, over the sum of all", "forward")
    for left, name, row, kind in ((24, "x", x, "cell"), (264, "y", y, "on")):
        figure.text(left, 62, name, "name")
        figure.bars(left, 186, row, kind, unit=60 if kind == "cell" else 140, step=62)
    figure.text(24, 226, "Backward: what one gets, the others pay", "backward")
    figure.text(24, 258, "gy", "name")
    figure.text(264, 258, "gx = y * (gy \u2212 1)", "name")
    figure.bars(24, 340, gy, "back", unit=8, step=62)
    figure.bars(264, 340, gx, "back", unit=45, step=62)
    figure.text(24, 386, f"The 1 is the sum of gy * y. The sum of gx is {number(gx.sum().round(12))}.", "note")
    return figure


def cross_entropy() -> Figure:
    x = np.random.default_rng(3).standard_normal(5).round(1)
    loss, (gx,) = step(lambda t: F.cross_entropy(t.reshape(1, 5), np.array([2])), 1.0, x)
    p = F.softmax(Tensor(x), 0).numpy()
    figure = Figure("Probabilities, the target, and their difference, which is the gradient", 458)
    figure.text(24, 30, f"Forward: loss = \u2212ln {number(p[2])} = {number(float(loss))}", "forward")
    figure.text(24, 60, "p, and dashed the target t: 1 at class 2", "note")
    figure.rect(24 + 86 * 2 + 13, 84, 60, 120, "off")
    figure.bars(24, 204, p, "on", unit=120, step=86)
    for j in range(5):
        figure.text(24 + 86 * (j + 0.5), 224, f"x = {number(x[j])}", "note", "middle")
    figure.text(24, 264, "Backward: gx = p \u2212 t", "backward")
    figure.bars(24, 352, gx, "back", unit=60, step=86)
    figure.text(24, 444, "A step down lowers each score that had too much.", "note")
    return figure


def dropout() -> Figure:
    x, gy = np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])
    figure = Figure("Four units in training and in evaluation, with the two places for the scale", 430)
    figure.text(24, 30, "p = 0.5, two are silent", "forward")
    figure.text(250, 30, "so is their gradient", "backward")
    figure.cells(24, 66, x, name="x")
    figure.cells(270, 66, gy, name="gy", size=(46, 30))
    top = 106
    for training in (True, False):
        for scale_at in ("train", "test"):
            minidl.manual_seed(5)
            y, (gx,) = step(lambda t, a=training, b=scale_at: F.dropout(t, 0.5, a, scale_at=b) * 1, gy, x)
            words = f"in {'training' if training else 'evaluation'}, scale_at={scale_at}"
            figure.text(24, top + 17, words, "note")
            figure.cells(24, top + 26, y, np.where(y, "on", "off"))
            figure.cells(270, top + 26, gx, np.where(gx, "back", "off"), size=(46, 30))
            figure.text(216, top + 46, "y", "name", "middle")
            figure.text(250, top + 46, "gx", "name", "middle")
            top += 76
    return figure


def dropout2d() -> Figure:
    figure = Figure("dropout silences single numbers, dropout2d whole maps", 330)
    x = Tensor(np.ones((1, 4, 3, 3)))
    for top, name, of, seed in (
        (56, "dropout: each number by itself", F.dropout, 5),
        (196, "dropout2d: map by map", F.dropout2d, 9),
    ):
        minidl.manual_seed(seed)
        y = of(x, 0.5).numpy()[0]
        figure.text(24, top - 24, name, "forward")
        for c in range(4):
            figure.cells(24 + 112 * c, top, y[c], np.where(y[c], "on", "off"), size=(32, 28))
            if top > 100:
                figure.text(72 + 112 * c, top + 106, f"map {c}", "note", "middle")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "local_response_norm": local_response_norm,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "softmax": softmax,
    "cross_entropy": cross_entropy,
    "dropout": dropout,
    "dropout2d": dropout2d,
}
