"""Ops that move numbers: to other places, to other devices, over what was there."""

from collections.abc import Callable

import numpy as np

import minidl
import minidl.nn.functional as F
from draw.svg import Figure
from draw.windows import step
from minidl import Tensor

Move = Callable[[Tensor], Tensor]


def maps(title: str, moves: dict[str, Move], *, x: np.ndarray, gy: np.ndarray) -> Figure:
    """For each move, the positions: forward from x down to y, backward from gy up to gx, where the arrows that meet add up."""
    figure = Figure(title, 20 + 178 * len(moves))
    for k, (name, move) in enumerate(moves.items()):
        y, (gx,) = step(move, gy, x)
        top = 34 + 178 * k
        figure.text(24, top, name, "name")
        for left, upper, lower, names, kind in ((56, x, y, "x y", "f"), (282, gx, gy, "gx gy", "b")):
            fill = "on" if kind == "f" else "back"
            for words, row, line in zip(names.split(), (upper, lower), (top + 16, top + 100), strict=True):
                figure.text(left - 8, line + 20, words, "name", "end")
                figure.cells(left, line, row, fill if row is (lower if kind == "f" else upper) else "cell", size=(50, 30))
            for i, j in sources(move, x, len(gy)):
                a, b = (left + 25 + 50 * j + 6 * (i - j), top + 48), (left + 25 + 50 * i, top + 98)
                figure.arrow(*((a, b) if kind == "f" else (b, a)), kind)
    return figure


def sources(move: Move, x: np.ndarray, outputs: int) -> list[tuple[int, int]]:
    """The pairs (i, j) where output i is a copy of input j: where its gradient goes."""
    ways = np.array([step(move, gy, x)[1][0] for gy in np.eye(outputs)])
    return [(int(i), int(j)) for i, j in np.argwhere(ways)]


def reshape() -> Figure:
    return maps(
        "Where each output comes from, and where its gradient goes: an index, padding, flip",
        {
            "y = x[[0, 0, 2]]": lambda x: x[[0, 0, 2]],
            "y = pad(x, (1, -1), value=9)": lambda x: F.pad(x, (1, -1), value=9.0),
            "y = x.flip(0)": lambda x: x.flip(0),
        },
        x=np.array([1.0, 2, 3]),
        gy=np.array([10.0, 20, 40]),
    )


def select() -> Figure:
    return maps(
        "Where each output comes from, and where its gradient goes: sort, gather, masked_fill",
        {
            "y = x.sort(descending=True)": lambda x: x.sort(descending=True).values,
            "y = x.gather(0, [0, 0, 2])": lambda x: x.gather(0, Tensor(np.array([0, 0, 2]))),
            "y = x.masked_fill(x > 2, 0)": lambda x: x.masked_fill(x > 2, 0),
        },
        x=np.array([3.0, 1, 2]),
        gy=np.array([10.0, 20, 40]),
    )


def embedding() -> Figure:
    w, ids, gy = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([2, 0, 2]), np.array([[10.0, 20], [30, 40], [50, 60]])
    y, (gw,) = step(lambda t: F.embedding(Tensor(ids), t), gy, w)
    figure = Figure("Rows of a table by their ids; their gradients add up in the table's rows", 420)
    figure.text(24, 30, "Forward: each id takes its row", "forward")
    figure.text(24, 218, "Backward: each row's gradient goes back to it", "backward")
    used = np.isin(np.arange(3), ids)[:, None]
    figure.cells(60, 66, w, np.where(used, "on", "cell"), size=(48, 38), name="w")
    figure.cells(230, 66, ids.reshape(3, 1), size=(40, 38), name="ids")
    figure.cells(320, 66, y, "on", size=(48, 38), name="y")
    figure.cells(60, 254, gw, np.where(used, "back", "cell"), size=(48, 38), name="gw")
    figure.cells(320, 254, gy, "back", size=(48, 38), name="gy")
    for i in range(3):
        figure.text(44, 90 + 38 * i, str(i), "note", "middle")
        figure.text(44, 278 + 38 * i, str(i), "note", "middle")
    for r, row in enumerate(ids):
        here, there = 85 + 38 * int(row) + 5 * (r - 1), 85 + 38 * r
        figure.arrow((158, here), (228, there))
        figure.arrow((272, there), (318, there))
        figure.arrow((318, there + 188), (160, here + 188), "b")
    figure.text(24, 400, "Row 2 was taken twice: two gradients. Row 1 has none.", "note")
    return figure


def in_place() -> Figure:
    w = np.array([1.0, 2, 3])

    def times(t: Tensor) -> Tensor:
        return t * 10

    def put(t: Tensor) -> Tensor:
        t = t * 1
        t[0] = 7
        return t

    def double(t: Tensor) -> Tensor:
        t = t * 1
        t *= 2
        return t

    steps = {"y = w * 10": times, "y[0] = 7": put, "y *= 2": double}
    values = [w]
    for of in steps.values():
        values.append(of(Tensor(values[-1])).numpy())
    grads = [np.ones(3)]
    for of, value in zip(reversed(steps.values()), reversed(values[:-1]), strict=True):
        grads.insert(0, step(of, grads[0], value)[1][0])
    y = Tensor(w, requires_grad=True).exp()
    y += 1
    try:
        y.sum().backward()
    except RuntimeError as error:
        refused = str(error)
    figure = Figure("One memory with three values in turn, the gradient's way back, and a backward that is refused", 500)
    figure.text(24, 30, "Forward: y changes in place", "forward")
    figure.text(286, 30, "Backward", "backward")
    for k, (value, grad) in enumerate(zip(values, grads, strict=True)):
        top = 48 + 76 * k
        figure.text(24, top + 21, "w" if k == 0 else "y", "name")
        figure.cells(48, top, value, "on" if k else "cell", size=(46, 32))
        figure.text(462, top + 21, "gw" if k == 0 else "gy", "name", "end")
        figure.cells(286, top, grad, np.where(grad, "back", "off"), size=(46, 32))
        if k:
            figure.text(92, top - 17, list(steps)[k - 1], "fnum")
            figure.arrow((70, top - 40), (70, top - 3))
            figure.arrow((308, top - 3), (308, top - 40), "b")
    figure.text(24, 346, "y = w.exp(), then y += 1, then backward:", "backward")
    words, line, lines = refused.split(";")[0].split(": ", 1), "", []
    for word in (words[0] + ": " + words[1]).split():
        if len(line) + len(word) > 44:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    for k, words_ in enumerate([*lines, line][:5]):
        figure.text(24, 374 + 23 * k, words_)
    return figure


def to_device() -> Figure:
    x = Tensor(np.array([1, 2, 3], np.float32), requires_grad=True)
    with minidl.count_traffic() as forward:
        there = x.to("cpu:1")
        doubled = there * 2
        back = doubled.to("cpu:0")
        y = back + x * 3
    for one in (there, doubled, back):
        one.retain_grad()
    with minidl.count_traffic() as backward:
        y.sum().backward()
    figure = Figure("A copy goes to the second device and back; backward its gradient goes the other way", 496)
    for left, name in ((24, "cpu:0"), (268, "cpu:1")):
        figure.rect(left - 8, 14, 212, 430, "grid")
        figure.text(left + 98, 38, name, "name", "middle")
    size = (44, 30)

    for left, top, name, value in (
        (24, 76, "x", x),
        (268, 116, "x.to('cpu:1')", there),
        (268, 236, "times 2", doubled),
        (24, 276, "back on cpu:0", back),
    ):
        figure.text(left, top - 8, name, "fnum")
        figure.cells(left, top, value.detach().numpy(), "on", size=size)
        assert value.grad is not None
        figure.cells(left, top + 32, value.grad.numpy(), "back", size=size)
    figure.text(24, 366, "plus x * 3", "fnum")
    figure.cells(24, 374, y.detach().numpy(), "on", size=size)
    figure.cells(24, 406, np.ones(3), "back", size=size)
    figure.arrow((160, 90), (264, 130))
    figure.arrow((264, 164), (160, 124), "b")
    figure.arrow((264, 252), (160, 292))
    figure.arrow((160, 324), (264, 284), "b")
    figure.text(24, 470, f"{forward['cpu:0', 'cpu:1']} bytes each way forward,", "note")
    figure.text(252, 470, f"{backward['cpu:1', 'cpu:0']} each way backward", "note")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "reshape": reshape,
    "select": select,
    "embedding": embedding,
    "in_place": in_place,
    "to_device": to_device,
}
