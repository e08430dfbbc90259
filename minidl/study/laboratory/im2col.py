"""im2col made visible: a small convolution, forward and backward, with every number shown.

    section()    an HTML fragment for a page: tables that answer to pointing, and col2im step by step
    page()       a whole document around it
    figure()     one example as a picture, SVG; docs/figures/im2col.svg

The fragment is self-contained: style, script and numbers are inside, nothing is fetched. The script computes what other
settings give; for the first one Python's numbers, from minidl/ops/conv2d.py, are inside too, and the page compares. Colours are
those of the page around it where it sets --bg --fg --muted --line --forward --backward --accent; --bar is the height of a bar
that stays at its top.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minidl import shapes
from minidl.ops.conv2d import col2im, conv2d_forward, im2col, pad_images

_ASSETS = Path(__file__).with_name("im2col_page")
_RANGES = {
    "height": (1, 8),
    "width": (1, 8),
    "channels": (1, 2),
    "kernel": (1, 3),
    "stride": (1, 3),
    "padding": (0, 2),
    "dilation": (1, 2),
}
# (kernel row, kernel column, channel): small, and no two alike side by side; none is zero, which would hide what it meets
_WEIGHT = np.array([[[1, 2], [2, -1], [-1, 1]], [[3, -2], [-1, 1], [2, 3]], [[-2, 1], [1, 2], [4, -1]]])


def section(
    height: int = 5,
    width: int = 5,
    channels: int = 1,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
) -> str:
    """The fragment, <section id="im2col">, beginning with these settings. The kernel is square, there is one filter.

    ValueError: a setting out of its range. RuntimeError: a kernel that does not fit, as conv2d says it.
    """
    settings = {
        "height": height,
        "width": width,
        "channels": channels,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }
    for name, value in settings.items():
        least, most = _RANGES[name]
        if not shapes.is_int(value) or not least <= value <= most:
            raise ValueError(f"im2col section: {name} must be an int from {least} to {most}, got {value!r}")
    parts = {
        "style": (_ASSETS / "im2col.css").read_text("utf-8"),
        "script": (_ASSETS / "im2col.js").read_text("utf-8"),
        "numbers": json.dumps(_embedded(settings)),
    }
    return Template((_ASSETS / "im2col.html").read_text("utf-8")).substitute(parts)


def page(**settings: int) -> str:
    """A document that holds the section alone."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>im2col, number by number</title>\n'
        "<style>:root { color-scheme: light dark; } body { margin: 0; } "
        "main { max-width: 76rem; margin: 0 auto; padding: 1rem; }\n"
        "body { background: #ffffff; } @media (prefers-color-scheme: dark) { body { background: #15181c; } }</style>\n"
        f"</head>\n<body>\n<main>\n{section(**settings)}</main>\n</body>\n</html>\n"
    )


def numbers(settings: dict[str, int]) -> dict[str, list[Any]]:
    """What minidl/ops/conv2d.py computes for the section's image, weights and gradient: lists of whole numbers.

    col (rows, columns)   gcol likewise   y, gy (rows,)   gw (columns,)   gx, copies (pixels of the padded image,)
    """
    s = settings
    k, c = s["kernel"], s["channels"]
    pads = ((s["padding"], s["padding"]),) * 2
    strides, dilations = (s["stride"], s["stride"]), (s["dilation"], s["dilation"])
    x, w = _image(s)[None, :, :, :c], _WEIGHT[None, :k, :k, :c]
    y = conv2d_forward(x, w, None, strides, pads, dilations, 1)
    gy = _gradient(s)[None, : y.shape[1], : y.shape[2], None]
    padded = pad_images(x, pads)
    col = im2col(padded, (k, k), strides, dilations).reshape(-1, k * k * c)
    gcol = gy[..., None, None] * w
    found = {
        "col": col,
        "y": y.ravel(),
        "gy": gy.ravel(),
        "gcol": gcol.reshape(-1, k * k * c),
        "gw": gy.ravel() @ col,
        "gx": col2im(gcol, padded.shape, strides, dilations).ravel(),
        "copies": col2im(np.ones_like(gcol), padded.shape, strides, dilations).ravel(),
    }
    return {name: array.tolist() for name, array in found.items()}


def _embedded(settings: dict[str, int]) -> dict[str, Any]:
    """What the script reads: settings and their ranges, the largest image, kernel and gradient, and Python's results."""
    return {
        "settings": settings,
        "ranges": _RANGES,
        "image": _image(settings).tolist(),
        "weight": _WEIGHT.tolist(),
        "gy": _gradient(settings).tolist(),
        "python": numbers(settings),
    }


def _image(settings: dict[str, int]) -> np.ndarray:
    """Digits (H, W, 2): neighbours differ."""
    a, b, c = np.ogrid[: settings["height"], : settings["width"], :2]
    return (3 * a * a + 5 * b + 2 * a * b + 4 * c + 1) % 10


def _gradient(settings: dict[str, int]) -> np.ndarray:
    """Whole numbers from -2 to 3, as many as the largest output has: (H + 4, W + 4)."""
    most = 2 * _RANGES["padding"][1]
    i, j = np.ogrid[: settings["height"] + most, : settings["width"] + most]
    return (5 * i + 3 * j + i * j + 3) % 6 - 2


# -------------------------------------------------------------------------------------------------------------- the figure

_CELL = 40
_STYLE = """
.panel { fill: #ffffff; stroke: #d4d9de; }
.cell { fill: none; stroke: #aab2ba; }
.copied { fill: #cfe3f8; stroke: #0a5fb4; stroke-width: 3; }
.added { fill: #fbe0cf; stroke: #a8430a; stroke-width: 3; }
.bar { stroke: #1c2024; stroke-width: 2; }
text { font: 16px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; text-anchor: middle; fill: #1c2024; }
text.name { font-weight: 700; }
text.note { font: 14px system-ui, sans-serif; text-anchor: start; fill: #5b646e; }
text.forward, text.backward { font: 700 17px system-ui, sans-serif; text-anchor: start; fill: #0a5fb4; }
text.backward { fill: #a8430a; }
@media (prefers-color-scheme: dark) {
  .panel { fill: #15181c; stroke: #3a4149; }
  .cell { stroke: #59626c; }
  .copied { fill: #173a5c; stroke: #74b5f7; }
  .added { fill: #5a3018; stroke: #f2a06a; }
  .bar { stroke: #e4e7ea; }
  text { fill: #e4e7ea; }
  text.note { fill: #9aa4ae; }
  text.forward { fill: #74b5f7; }
  text.backward { fill: #f2a06a; }
}
"""


def figure() -> str:
    """A 3 x 3 image and a 2 x 2 kernel, forward and backward; where the middle pixel goes is marked.

    An SVG document. It has a ground of its own, light or dark as the reader's system is, and so can be read on any page.
    """
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 690" role="img" aria-labelledby="title">\n'
        '<title id="title">im2col copies a pixel into every patch that holds it; '
        "col2im adds the gradients of the copies</title>\n"
        f'<style>{_STYLE}</style>\n<rect class="panel" x="1" y="1" width="798" height="688" rx="10"/>\n'
        + "\n".join([*_forward_half(), *_backward_half()])
        + "\n</svg>\n"
    )


_X = np.arange(1, 10).reshape(1, 3, 3, 1)
_W, _GY = np.array([1, 2, 3, -1]), np.array([1, 2, 3, 4])  # 2 x 2 each, in rows
_COL = im2col(_X, (2, 2), (1, 1), (1, 1)).reshape(4, 4)
_MIDDLE = _X.reshape(3, 3) == 5
_MIDDLE_COPIES = _COL == 5


def _forward_half() -> Iterator[str]:
    y = _COL @ _W
    yield _text(32, 42, "Forward: im2col copies, then one product", "forward")
    yield from _grid("x", 50, 110, _X.reshape(3, 3), _MIDDLE, "copied")
    yield _text(50, 258, "5 is in four patches of", "note")
    yield _text(50, 278, "2 × 2: four copies", "note")
    yield from _matrix("col", 310, 130, _COL, "copied")
    yield from _grid("y", 490, 130, y[:, None])
    yield _text(310, 318, "a row for each output pixel; y = col @ w", "note")
    yield from _grid("y", 660, 130, y.reshape(2, 2))
    yield _text(660, 238, "y as an image", "note")


def _backward_half() -> Iterator[str]:
    gcol = _GY[:, None] * _W
    patches = gcol.reshape(1, 2, 2, 2, 2, 1)
    gx, copies = (col2im(a, _X.shape, (1, 1), (1, 1)).reshape(3, 3) for a in (patches, np.ones_like(patches)))
    terms = " + ".join(f"({t})" if t < 0 else f"{t}" for t in gcol[_MIDDLE_COPIES])
    yield _text(32, 382, "Backward: one product, then col2im adds", "backward")
    yield from _grid("gy", 70, 475, _GY.reshape(2, 2))
    yield _text(50, 583, "the gradient that arrives", "note")
    yield from _matrix("gcol", 310, 475, gcol, "added")
    yield from _grid("gy", 238, 475, _GY[:, None])
    yield _text(310, 663, "every number is its gy times its w", "note")
    yield from _grid("gx", 630, 475, gx, _MIDDLE, "added")
    yield _text(600, 623, f"{terms} = {gx[1, 1]}:", "note")
    yield _text(600, 643, f"{copies[1, 1]} copies, {copies[1, 1]} terms", "note")


def _text(x: float, y: float, words: object, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:g}" y="{y:g}">{str(words).replace("-", "−")}</text>'


def _grid(
    name: str, left: int, top: int, values: np.ndarray, marked: np.ndarray | None = None, mark: str = ""
) -> Iterator[str]:
    """A table of numbers under its name. The marked ones are drawn last, so that their frames are whole."""
    if name:
        yield _text(left + values.shape[1] * _CELL / 2, top - 12, name, "name")
    marked = np.zeros(values.shape, bool) if marked is None else marked
    for wanted in (False, True):
        for i, j in np.argwhere(marked == wanted):
            x, y = left + _CELL * j, top + _CELL * i
            yield f'<rect class="{mark if wanted else "cell"}" x="{x}" y="{y}" width="{_CELL}" height="{_CELL}"/>'
            yield _text(x + _CELL / 2, y + _CELL / 2 + 6, values[i, j])


def _matrix(name: str, left: int, top: int, values: np.ndarray, mark: str) -> Iterator[str]:
    """col or gcol under a row of weights."""
    width = values.shape[1] * _CELL
    yield _text(left - 16, top - 17, "w", "name")
    for k, weight in enumerate(_W):
        yield _text(left + _CELL * (k + 0.5), top - 17, weight)
    yield f'<path class="bar" d="M{left} {top - 6}h{width}"/>'
    yield _text(left + width / 2, top - 44, name, "name")
    yield from _grid("", left, top, values, _MIDDLE_COPIES, mark)
