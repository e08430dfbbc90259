"""A figure as SVG text: cells with numbers, bars, curves, arrows. Blue is forward, orange is backward, as in the explorer.

Figures are 480 wide, with text of 15 or more: on a phone, where a page has 358 pixels for them, that is 11. They bring
their own ground and follow the colours of the page or the system. Text that leaves the figure or lies on
other text is an error.
"""

from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

WIDTH, SIZE = 480, 15
HEAD = 7.0  # the length of an arrow's head
Point = tuple[float, float]

STYLE = """
.panel { fill: #ffffff; stroke: #d4d9de; }
.cell { fill: none; stroke: #aab2ba; }
.on { fill: #cfe3f8; stroke: #0a5fb4; }
.back { fill: #fbe0cf; stroke: #a8430a; }
.off { fill: #eceff2; stroke: #aab2ba; stroke-dasharray: 3 3; }
.grid { fill: none; stroke: #e3e7ea; }
.line { fill: none; stroke: #8a939c; stroke-width: 1.5; }
.fline, .fdash { fill: none; stroke: #0a5fb4; stroke-width: 2.5; }
.bline, .bdash { fill: none; stroke: #a8430a; stroke-width: 2.5; }
.fdash, .bdash { stroke-dasharray: 7 5; }
.slope { stroke-width: 5; }
.fhead { fill: #0a5fb4; }
.bhead { fill: #a8430a; }
text { font: 15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1c2024; }
.name { font-weight: 700; }
.note, .forward, .backward { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.note { fill: #5b646e; }
.forward, .backward { font-weight: 700; }
.forward, .fnum { fill: #0a5fb4; }
.backward, .bnum { fill: #a8430a; }
@media (prefers-color-scheme: dark) {
  .panel { fill: #15181c; stroke: #3a4149; }
  .cell { stroke: #59626c; }
  .on { fill: #173a5c; stroke: #74b5f7; }
  .back { fill: #5a3018; stroke: #f2a06a; }
  .off { fill: #22272d; stroke: #59626c; }
  .grid { stroke: #2a3037; }
  .line { stroke: #77818b; }
  .fline, .fdash { stroke: #74b5f7; }
  .bline, .bdash { stroke: #f2a06a; }
  .fhead { fill: #74b5f7; }
  .bhead { fill: #f2a06a; }
  text { fill: #e4e7ea; }
  .note { fill: #9aa4ae; }
  .forward, .fnum { fill: #74b5f7; }
  .backward, .bnum { fill: #f2a06a; }
}
""".strip()


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits, as short as it can be written, with a true minus."""
    text = f"{float(value):.{digits}g}"
    return ("0" if float(text) == 0 else text).replace("-", "\u2212")


def place(value: float) -> str:
    """A coordinate. Half a tenth more or less is not seen."""
    return f"{float(value) + 0.0:.1f}".removesuffix(".0").replace("-0.0", "0")


class Figure:
    """What is drawn lies on what was drawn before."""

    def __init__(self, title: str, height: float) -> None:
        self.title, self.height = title, height
        self._parts: list[str] = []
        self._boxes: list[tuple[float, float, float, float, str]] = []  # left, top, right, bottom of texts

    def svg(self) -> str:
        """The file's text: the same every time."""
        size = f"{WIDTH} {place(self.height)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{place(self.height)}" viewBox="0 0 {size}" '
                'role="img" aria-labelledby="title">',
                f'<title id="title">{escape(self.title)}</title>',
                f"<style>\n{STYLE}\n</style>",
                f'<rect class="panel" x="1" y="1" width="{WIDTH - 2}" height="{place(self.height - 2)}" rx="10"/>',
                *self._parts,
                "</svg>\n",
            ]
        )

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Words on the base line y. Kinds: name, note, forward, backward, fnum, bnum. anchor: start, middle, end.

        ValueError if they leave the figure or lie on others, by an estimate of their width."""
        proportional = kind in ("note", "forward", "backward")
        width = len(words) * SIZE * (0.52 if proportional else 0.61)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, y - 0.72 * SIZE, left + width, y + 0.2 * SIZE, words)
        if box[0] < 8 or box[2] > WIDTH - 6 or box[1] < 6 or box[3] > self.height - 4:
            raise ValueError(f"figure: text must be inside {WIDTH} x {self.height}, got {words!r} in {box[:4]}")
        for other in self._boxes:
            if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
                raise ValueError(f"figure: text must not lie on other text, got {words!r} on {other[4]!r}")
        self._boxes.append(box)
        end = "" if anchor == "start" else f' text-anchor="{anchor}"'
        name = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{name} x="{place(x)}" y="{place(y)}"{end}>{escape(words)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str = "cell") -> None:
        self._parts.append(
            f'<rect class="{kind}" x="{place(x)}" y="{place(y)}" width="{place(width)}" height="{place(height)}"/>'
        )

    def line(self, points: Iterable[Point], kind: str = "line") -> None:
        """Straight from point to point."""
        self._parts.append(f'<path class="{kind}" d="M{"L".join(f"{place(x)} {place(y)}" for x, y in points)}"/>')

    def arrow(self, start: Point, end: Point, kind: str = "f") -> None:
        """kind: f, forward; b, backward."""
        (x, y), (a, b) = start, end
        length = float(np.hypot(a - x, b - y))
        u, v = (a - x) / length, (b - y) / length
        foot = (a - HEAD * u, b - HEAD * v)
        self.line([start, foot], f"{kind}line")
        corners = [end, (foot[0] - 4.5 * v, foot[1] + 4.5 * u), (foot[0] + 4.5 * v, foot[1] - 4.5 * u)]
        path = "L".join(f"{place(p)} {place(q)}" for p, q in corners)
        self._parts.append(f'<path class="{kind}head" d="M{path}z"/>')

    def cells(
        self, x: float, y: float, values: Any, kinds: Any = "cell", *, size: Point = (34, 30), name: str = "", digits: int = 3
    ) -> None:
        """A table of numbers, its name above it. kinds: of all cells, or of each, in a shape that
        broadcasts to that of the values; where it is "", there is no cell."""
        table = np.atleast_2d(np.asarray(values))
        width, height = size
        if name:
            self.text(x + table.shape[1] * width / 2, y - 8, name, "name", "middle")
        kind_of = np.broadcast_to(kinds, table.shape)
        # those with a strong border last, so that no other lies on it
        for i, j in sorted(np.ndindex(*table.shape), key=lambda at: bool(kind_of[at] != "cell")):
            kind = str(kind_of[i, j])
            if kind:
                self.rect(x + j * width, y + i * height, width, height, kind)
        for i, j in np.ndindex(*table.shape):
            if kind_of[i, j]:
                words = number(float(table[i, j]), digits)
                self.text(x + (j + 0.5) * width, y + i * height + height / 2 + 5, words, "", "middle")

    def bars(self, x: float, y: float, values: Any, kind: str, *, unit: float, step: float, labels: bool = True) -> None:
        """Bars up and down from the line at y, `unit` pixels for 1, `step` to the next, their numbers at their ends."""
        for i, value in enumerate(values):
            high = abs(float(value)) * unit
            self.rect(x + (i + 0.15) * step, y - high if value > 0 else y, 0.7 * step, high, kind)
            if labels:
                below = value < 0
                self.text(x + (i + 0.5) * step, y + high + 16 if below else y - high - 5, number(value, 2), "", "middle")
        self.line([(x, y), (x + len(values) * step, y)])
