"""Layers that multiply or add up: matrix products, broadcasting, reductions."""

from collections.abc import Callable

import numpy as np

import minidl.nn.functional as F
from draw.svg import Figure
from draw.windows import step


def product(
    figure: Figure, x: float, y: float, left: np.ndarray, right: np.ndarray, result: np.ndarray, names: str, kind: str
) -> None:
    """A matrix product: each result stands in its row of the left and its column of the right. Its last entry is shown."""
    rows, columns = result.shape
    size = (34, 30)
    a, b, c = names.split()
    across, down = x + left.shape[1] * 34 + 12, y + len(right) * 30 + 12
    row = np.where(np.arange(rows) == rows - 1, kind, "cell")[:, None]
    column = np.where(np.arange(columns) == columns - 1, kind, "cell")
    figure.cells(across, y, right, column, size=size, name=b)
    figure.text(x + left.shape[1] * 17, down - 8, a, "name", "middle")
    figure.cells(x, down, left, row, size=size)
    figure.cells(across, down, result, np.where(row == column, row, "cell"), size=size)
    figure.text(across + columns * 17, down + rows * 30 + 20, c, "name", "middle")


def linear() -> Figure:
    x, w, b = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [0, 1], [1, 1]]), np.array([0.0, 10, 100])
    gy = np.array([[1.0, 0, 1], [0, 1, 0]])
    y, (gx, gw, gb) = step(F.linear, gy, x, w, b)
    figure = Figure("Three products: the output, and the gradients of the input and of the weight", 516)
    figure.text(24, 30, "Forward: y = x w\u1d40 + b", "forward")
    product(figure, 24, 66, x, w.T, y - b, "x w\u1d40 y\u2212b", "on")
    figure.text(250, 30, "Backward: gx = gy w", "backward")
    product(figure, 250, 66, gy, w, gx, "gy w gx", "back")
    figure.text(24, 288, "Backward: gw = gy\u1d40 x", "backward")
    product(figure, 24, 324, gy.T, x, gw, "gy\u1d40 x gw", "back")
    figure.text(250, 288, "gb: gy summed over rows", "backward")
    figure.cells(250, 324, gy, size=(34, 30), name="gy")
    figure.cells(250, 402, gb, "back", size=(34, 30))
    figure.text(362, 422, "gb", "name")
    figure.text(250, 462, "A number is its row times", "note")
    figure.text(250, 484, "its column, added up.", "note")
    return figure


def arithmetic() -> Figure:
    x, y, gz = np.array([1.0, 2, 3]), np.array([[10.0], [20]]), np.array([[1.0, 1, 1], [1, 1, 1]])
    z, (gx, gy) = step(lambda a, b: a * b, gz, x, y)
    figure = Figure("A row times a column: repeated forward, summed backward", 480)
    size = (52, 34)
    figure.text(24, 30, "Forward: x is repeated down, y to the right", "forward")
    figure.cells(190, 66, x, "on", size=size, name="x")
    figure.text(70, 142, "y", "name")
    figure.cells(88, 120, y, "on", size=size)
    figure.cells(190, 120, z, size=size)
    figure.text(366, 160, "z = x * y", "name")
    for j in range(3):
        figure.arrow((190 + 52 * j + 26, 101), (190 + 52 * j + 26, 118))
    for i in range(2):
        figure.arrow((142, 137 + 34 * i), (186, 137 + 34 * i))
    figure.text(24, 226, "Backward: what was repeated is summed", "backward")
    figure.cells(24, 262, gz * y, size=size, name="gz * y")
    figure.cells(24, 354, gx, "back", size=size)
    figure.text(188, 376, "gx", "name")
    figure.cells(250, 262, gz * x, size=size, name="gz * x")
    figure.cells(420, 262, gy, "back", size=(48, 34), name="gy")
    for j in range(3):
        figure.arrow((24 + 52 * j + 26, 331), (24 + 52 * j + 26, 351), "b")
    for i in range(2):
        figure.arrow((407, 279 + 34 * i), (419, 279 + 34 * i), "b")
    figure.text(24, 426, "x was used in two rows, so two terms add up to each gx.", "note")
    figure.text(24, 450, "y was used in three columns, so three add up to each gy.", "note")
    return figure


def reduce() -> Figure:
    x, gy = np.array([[3.0, 1, 3], [2, 5, 0]]), np.array([10.0, 20])
    figure = Figure("What is left of two rows, and how the gradient goes back to them", 496)
    figure.text(100, 30, "Forward", "forward")
    figure.text(280, 30, "Backward", "backward")
    figure.cells(100, 66, x, size=(44, 30), name="x")
    figure.cells(280, 66, gy.reshape(2, 1), size=(44, 30), name="gy")
    for k, name in enumerate(("sum", "mean", "amax", "max")):
        y, (gx,) = step(lambda t, n=name: t.max(1)[0] if n == "max" else getattr(t, n)(1), gy, x)
        top = 170 + 82 * k
        figure.text(24, top + 35, name, "name")
        figure.cells(100, top, y.reshape(2, 1), "on", size=(56, 30))
        figure.cells(280, top, gx, np.where(gx, "back", "cell"), size=(56, 30))
    figure.text(100, 158, "y", "name")
    figure.text(280, 158, "gx", "name")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {"linear": linear, "arithmetic": arithmetic, "reduce": reduce}
