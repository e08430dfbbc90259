"""Layers with windows: where each output looks, and where each gradient goes."""

from collections.abc import Callable
from typing import Any

import numpy as np

import minidl.nn.functional as F
from draw.svg import Figure
from minidl import Tensor
from minidl.ops.adaptive_avg_pool2d import parts


def step(of: Callable[..., Tensor], gy: Any, *values: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output, and the gradients of the inputs."""
    inputs = [Tensor(np.asarray(value, dtype=float), requires_grad=True) for value in values]
    y = of(*inputs)
    y.backward(np.asarray(gy, dtype=float).reshape(y.shape))
    return y.detach().numpy(), [x.grad.numpy() for x in inputs if x.grad is not None]


def max_pool2d() -> Figure:
    x = np.array([[1, 2, 0, 3, 1], [4, 5, 9, 0, 2], [0, 3, 1, 2, 6], [2, 1, 4, 8, 0], [7, 0, 3, 1, 5]], dtype=float)
    gy = np.array([[1.0, 2], [3, 4]])
    y, (gx,) = step(lambda t: F.max_pool2d(t[None, None], 3, 2)[0, 0], gy, x)
    figure = Figure("Which pixel wins each window, and how the gradients go back to the winners", 640)
    size = (32, 26)
    figure.text(24, 30, "Forward: the largest of each window", "forward")
    figure.cells(24, 66, x, np.where(gx, "on", "cell"), size=size, name="x")
    figure.cells(280, 92, y, "on", size=(44, 34), name="y")
    figure.text(24, 336, "Backward: each gradient goes to its winner", "backward")
    for k, (i, j) in enumerate(np.ndindex(2, 2)):
        left = 24 + 112 * k
        window = x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        _, (alone,) = step(lambda t: F.max_pool2d(t[None, None], 3)[0, 0], gy[i, j], window)
        figure.text(left + 48, 226, f"y[{i},{j}]", "fnum", "middle")
        figure.cells(left, 234, window, np.where(alone, "on", "cell"), size=size)
        figure.text(left + 48, 364, f"gy[{i},{j}]", "bnum", "middle")
        figure.cells(left, 372, alone, np.where(alone, "back", "cell"), size=size)
    figure.cells(24, 496, gx, np.where(gx, "back", "cell"), size=size, name="gx")
    figure.cells(280, 522, gy, "back", size=(44, 34), name="gy")
    figure.text(206, 618, "The 9 won two windows: 1 + 2 = 3.", "note")
    return figure


def avg_pool2d() -> Figure:
    x, gy = np.arange(1.0, 10).reshape(3, 3), np.array([[4.0, 8], [12, 16]])
    figure = Figure("Windows over a padded image, their means, and the shares that go back", 520)
    figure.text(24, 30, "Forward: the mean of each 2 x 2 window", "forward")
    padded = np.pad(x, ((1, 0), (1, 0)))
    figure.cells(24, 66, padded, np.where(padded, "cell", "off"), name="x, padded by zeros", size=(40, 34))
    for i, j in np.ndindex(2, 2):
        figure.rect(27 + 80 * j, 69 + 68 * i, 74, 62, "fline")
    for k, include in enumerate((True, False)):
        y, (gx,) = step(lambda t, i=include: F.avg_pool2d(t[None, None], 2, padding=1, count_include_pad=i)[0, 0], gy, x)
        left = 216 + 128 * k
        figure.text(left, 222, "zeros count" if include else "pixels only", "note")
        figure.cells(left, 118, y, "on", size=(56, 34), name="y")
        left = 168 + 152 * k
        figure.text(left, 470, "zeros count" if include else "pixels only", "note")
        figure.cells(left, 338, gx, "back", size=(44, 34), name="gx")
    figure.text(24, 270, "Backward: each window shares its gradient", "backward")
    figure.cells(24, 338, gy, "back", size=(44, 34), name="gy")
    figure.text(24, 500, "A window divides by 4, or by the pixels that it holds.", "note")
    return figure


def adaptive_avg_pool2d() -> Figure:
    x, gy = np.array([[1.0, 2, 3, 4, 8]]), np.array([[3.0, 6]])
    y, (gx,) = step(lambda t: F.adaptive_avg_pool2d(t[None], (1, 2))[0], gy, x)
    figure = Figure("Five pixels in two parts, which share the third", 436)
    figure.text(24, 30, "Forward: five pixels in two parts", "forward")
    for top, row, below, kind in ((66, x, y, "on"), (222, gx, gy, "back")):
        names = ("x", "y") if kind == "on" else ("gx", "gy")
        figure.text(32, top + 21, names[0], "name")
        figure.text(32, top + 99, names[1], "name")
        figure.cells(80, top, row, np.where(np.arange(5) == 2, kind, "cell"), size=(60, 32))
        for i, (start, end) in enumerate(parts(5, 2)):
            figure.cells(140 + 120 * i, top + 78, below[:, i : i + 1], kind, size=(60, 32))
            for j in range(start, end):
                ends = (110 + 60 * j + (6 if i else -6) * (j == 2), top + 34), (170 + 120 * i + 8 * (j - start - 1), top + 76)
                figure.arrow(*(ends if kind == "on" else ends[::-1]), "f" if kind == "on" else "b")
    figure.text(24, 206, "Backward: a third of gy to each pixel of the part", "backward")
    figure.text(24, 362, "Seven pixels in three parts share two pixels", "note")
    figure.cells(80, 376, np.arange(7), size=(50, 28))
    for i, (start, end) in enumerate(parts(7, 3)):
        figure.line([(80 + 50 * start + 4, 412 + 8 * (i % 2)), (80 + 50 * end - 4, 412 + 8 * (i % 2))], "fline")
    return figure


def conv2d() -> Figure:
    x, w, gy = np.arange(1.0, 10).reshape(3, 3), np.array([[1.0, 2], [3, -1]]), np.array([[1.0, 2], [3, 4]])
    y, (gx, _) = step(lambda t, v: F.conv2d(t[None, None], v[None, None])[0, 0], gy, x, w)
    figure = Figure("A patch times the filter is an output; a pixel's gradient is a sum over the outputs that used it", 500)
    figure.text(24, 30, "Forward: a patch times the filter, added up", "forward")
    figure.cells(24, 68, x, [["cell", "on", "on"]] * 2 + [["cell"] * 3], size=(42, 34), name="x")
    figure.text(168, 108, "*", "", "middle")
    figure.cells(188, 76, w, "on", size=(42, 34), name="w")
    figure.text(290, 108, "=", "", "middle")
    figure.cells(322, 76, y, [["cell", "on"], ["cell"] * 2], size=(48, 34), name="y")
    products = [f"{int(x[u, 1 + v])}*{int(w[u, v])}".replace("-", "\u2212") for u, v in np.ndindex(2, 2)]
    figure.text(24, 204, f"y[0,1] = {' + '.join(products)} = {int(y[0, 1])}")
    figure.text(24, 246, "Backward: a pixel's sum over the outputs it is in", "backward")
    figure.cells(24, 284, gx, [["cell"] * 3, ["cell", "back", "cell"], ["cell"] * 3], size=(42, 34), name="gx")
    figure.text(168, 324, "=", "", "middle")
    figure.cells(188, 292, gy, "back", size=(42, 34), name="gy")
    figure.text(290, 324, "*", "", "middle")
    figure.cells(322, 292, w[::-1, ::-1], "on", size=(48, 34), name="w turned")
    products = [f"{int(gy[i, j])}*{int(w[1 - i, 1 - j])}".replace("-", "\u2212") for i, j in np.ndindex(2, 2)]
    figure.text(24, 420, f"gx[1,1] = {' + '.join(products)} = {int(gx[1, 1])}")
    figure.text(24, 452, "Output (0,0) saw the pixel through w[1,1], output (1,1)", "note")
    figure.text(24, 474, "through w[0,0]: so the filter stands upside down.", "note")
    return figure


def conv_transpose2d() -> Figure:
    x, w, gy = np.array([1.0, 2]), np.array([3.0, 4, 5]), np.array([1.0, 2, 0, 1])

    def of(t: Tensor, v: Tensor, padding: int = 1) -> Tensor:
        settings = {"stride": (1, 2), "padding": (0, padding), "output_padding": (0, padding)}
        return F.conv_transpose2d(t.reshape(1, 1, 1, -1), v.reshape(1, 1, 1, -1), **settings).reshape(-1)  # type: ignore[arg-type]

    y, (gx, _) = step(of, gy, x, w)
    whole = of(Tensor(x), Tensor(w), 0).numpy()
    figure = Figure("Each pixel puts the filter, times itself, onto the canvas; backward each pixel looks there again", 480)
    figure.text(24, 30, "Forward: each pixel puts w times itself, 2 further on", "forward")
    size = (52, 32)
    figure.cells(140, 66, x, "on", size=size, name="x")
    figure.cells(280, 66, w, "on", size=size, name="w")
    for k in range(2):
        put = of(Tensor(np.where(np.arange(2) == k, x, 0)), Tensor(w), 0).numpy()
        figure.text(24, 138 + 40 * k, f"{int(x[k])} * w", "")
        figure.cells(140, 117 + 40 * k, put, np.where(put, "on", ""), size=size)
    figure.text(24, 223, "canvas", "name")
    figure.cells(140, 202, whole, size=size)
    figure.text(24, 263, "y", "name")
    figure.cells(192, 242, y, "on", size=size)
    figure.text(24, 312, "Backward: each pixel looks where it has put w", "backward")
    figure.text(24, 354, "gy", "name")
    figure.cells(192, 333, gy, "back", size=size)
    figure.text(164, 354, "0", "", "middle")
    figure.text(24, 437, "gx", "name")
    for k in range(2):
        left = 166 + 104 * k
        figure.line([(140 + 104 * k + 4, 372 + 8 * k), (140 + 104 * k + 152, 372 + 8 * k)], "bline")
        figure.arrow((left + 52, 372 + 8 * k), (left + 52, 412), "b")
        figure.cells(left + 26, 416, gx[k : k + 1], "back", size=size)
    figure.text(24, 468, "The 0 is what padding took off the canvas.", "note")
    return figure


def local2d() -> Figure:
    x, gy = np.array([1.0, 2, 3]), np.array([1.0, 2])
    shared, own = np.array([1.0, 2]), np.array([[1.0, 2], [3, 4]])  # own: position, tap
    y, (_, gw) = step(lambda t, v: F.conv2d(t.reshape(1, 1, 1, 3), v.reshape(1, 1, 1, 2)).reshape(-1), gy, x, shared)
    apart, (_, gown) = step(
        lambda t, v: F.local2d(t.reshape(1, 1, 1, 3), v.T.reshape(1, 1, 1, 2, 1, 2)).reshape(-1), gy, x, own
    )
    figure = Figure("A convolution has one filter for all places, local2d one for each", 340)
    for left, name, out, weights, grads in (
        (24, "conv2d", y, np.stack([shared] * 2), [gw]),
        (256, "local2d", apart, own, gown),
    ):
        figure.text(left, 30, f"{name}: {'one filter' if name == 'conv2d' else 'a filter a place'}", "forward")
        figure.cells(left, 66, x, size=(66, 32), name="x")
        figure.cells(left + 33, 184, out, "on", size=(66, 32))
        for i, v in np.ndindex(2, 2):
            a, b = (left + 33 + 66 * (i + v), 100), (left + 66 + 66 * i, 182)
            second = i == 1 and name == "local2d"
            figure.line([a, b], "fdash" if second else "fline")
            near = 0.7
            figure.text(
                a[0] + (b[0] - a[0]) * near + (-13 if v == 0 else 13),
                a[1] + 82 * near + 5,
                str(int(weights[i, v])),
                "fnum",
                "middle",
            )
        figure.text(left, 206, "y", "name")
        figure.text(left, 250, "gy = 1, 2", "bnum")
        for k, grad in enumerate(grads):
            words = (
                "gw" if name == "conv2d" else f"gw at {'first' if k == 0 else 'second'}"
            ) + f" = {int(grad[0])}, {int(grad[1])}"
            figure.text(left, 276 + 24 * k, words, "bnum")
        if name == "conv2d":
            figure.text(left, 300, "summed over places", "note")
    figure.text(24, 328, "A number on a line is the weight between two pixels.", "note")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "local2d": local2d,
}
