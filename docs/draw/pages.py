"""Figures of pages that are no layer's: the first hour's graph, Winograd's tiles."""

from collections.abc import Callable

import numpy as np

from draw.svg import Figure, number
from minidl import Tensor
from minidl.kernels.winograd import transforms


def first_hour() -> Figure:
    def run(through_b: bool = True, through_c: bool = True) -> dict[str, Tensor]:
        x = Tensor(2.0, requires_grad=True)
        a = x * 3
        b, c = a * a, a + 1
        loss = (b if through_b else b.detach()) * (c if through_c else c.detach())
        for tensor in (a, b, c, loss):
            tensor.retain_grad()
        loss.backward()
        return {"x": x, "a": a, "b": b, "c": c, "loss": loss}

    tensors = run()
    figure = Figure("The graph with its values, and the gradients that come back: two ways meet in a and add up", 500)
    figure.text(24, 30, "blue: values, down", "forward")
    figure.text(456, 30, "orange: gradients, up", "backward", "end")
    places = {"x": (184, 50), "a": (184, 150), "b": (60, 284), "c": (308, 284), "loss": (184, 420)}
    for start, end, op in (
        ("x", "a", "* 3"),
        ("a", "b", "a * a"),
        ("a", "c", "+ 1"),
        ("b", "loss", ""),
        ("c", "loss", "b * c"),
    ):
        (x, y), (u, v) = places[start], places[end]
        shift = np.sign(u - x)
        figure.arrow((x + 46 + 20 * shift, y + 58), (u + 46 - 20 * shift, v - 2))
        figure.arrow((u + 66 - 20 * shift, v - 2), (x + 66 + 20 * shift, y + 58), "b")
        if op:
            figure.text(
                {"b": 84, "c": 336, "a": 196, "loss": 336}[end],
                (y + v + 56) / 2 + 5,
                op,
                "fnum",
                "end" if end == "a" else "start",
            )
    for name, (x, y) in places.items():
        grad = tensors[name].grad
        assert grad is not None
        figure.rect(x, y, 112, 56, "panel")
        figure.text(x + 10, y + 22, name, "name")
        figure.text(x + 102, y + 22, number(tensors[name].item()), "fnum", "end")
        figure.text(x + 102, y + 46, number(grad.item()), "bnum", "end")
    for left, ways in ((24, {"through_c": False}), (330, {"through_b": False})):
        grad = run(**ways)["a"].grad
        assert grad is not None
        figure.text(left, 196, f"{number(grad.item())} by way of {'b' if left == 24 else 'c'}", "bnum")
    return figure


def winograd() -> Figure:
    at, g_, bt = transforms(3)
    d, g = np.arange(10.0), np.array([1.0, 10, 100])
    tiles = [at @ ((g_ @ g) * (bt @ d[start : start + 6])) for start in (0, 4)]
    figure = Figure("Two tiles of six inputs, which share two, make four outputs each", 330)
    figure.text(24, 30, "Two tiles of 6 inputs, which share two", "forward")
    size = (43, 32)
    figure.text(24, 66, "d", "name")
    figure.cells(24, 76, d, np.where(np.isin(d, (4, 5)), "on", "cell"), size=size)
    for k, y in enumerate(tiles):
        figure.line([(24 + 172 * k + 4, 116 + 9 * k), (24 + 172 * k + 254, 116 + 9 * k)], "fdash" if k else "fline")
        figure.arrow((24 + 172 * k + 129, 116 + 9 * k), (24 + 172 * k + 86, 176))
        figure.cells(24 + 172 * k, 180, y.round(9), "on", size=size, digits=4)
    figure.text(24, 238, "y: 4 outputs a tile", "note")
    taps = len(g)
    for k, (words, count) in enumerate((("by the definition", 4 * taps), ("by a tile", len(bt)))):
        figure.text(24, 272 + 28 * k, f"products {words}", "note")
        figure.rect(250, 260 + 28 * k, 13 * count, 16, "on" if k else "off")
        figure.text(258 + 13 * count, 273 + 28 * k, number(count))
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {"first-hour": first_hour, "winograd": winograd}
