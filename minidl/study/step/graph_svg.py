"""The drawing of a graph: boxes in rows, wires between them that cross no box and no text.

Each box stands a row below all that it takes. Where a wire passes a row on its way, it gets a place of its own among that row's
boxes; between two rows there are wires alone. So nothing lies on anything, whatever the graph is.
"""

import html
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# pixels: a character's width at 12 px (monospaced fonts have up to 0.602 em), a line's height, the room around text
_CHAR, _LINE, _PAD = 7.3, 17.0, 10.0
_LABELS, _BETWEEN = 24.0, 38.0  # below a box: where its bytes stand, then wires alone
_GAP, _MARGIN, _HEAD = 26.0, 24.0, 84.0  # between boxes, around all, above the first row
_APART = 4.0  # of forward's line from the middle, and of backward's
_SWEEPS = 6

_STYLE = """
.panel { fill: #ffffff; stroke: #d3d9e0; }
.lane { fill: #f5f6f8; }
.box { fill: #ffffff; stroke: #8b96a2; }
.box.input, .box.output { stroke-width: 2; }
.box.constant { stroke-dasharray: 4 3; }
.forward { stroke: #1b5cc2; stroke-width: 2; fill: none; }
.backward { stroke: #a8410a; stroke-width: 2; fill: none; stroke-dasharray: 5 3; }
.tip-forward, text.down, text.bytes-forward { fill: #1b5cc2; }
.tip-backward, text.up, text.bytes-backward { fill: #a8410a; }
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #3d4651; }
text.title { font-weight: 700; fill: #1a1e24; }
text.bytes-forward { text-anchor: end; }
@media (prefers-color-scheme: dark) {
  .panel { fill: #14171b; stroke: #39414b; }
  .lane { fill: #1c2026; }
  .box { fill: #14171b; stroke: #7a8590; }
  .forward { stroke: #82b6ff; }
  .backward { stroke: #ffa868; }
  .tip-forward, text.down, text.bytes-forward { fill: #82b6ff; }
  .tip-backward, text.up, text.bytes-backward { fill: #ffa868; }
  text { fill: #b9c1ca; }
  text.title { fill: #e7eaee; }
}
"""


@dataclass(frozen=True)
class Box:
    """Lines of text, the first of them the title; which column it is in; its kind, a class of the style sheet. Boxes of the
    same `beside`, unless that is "", stand in one row if they can."""

    lines: Sequence[str]
    lane: int
    kind: str
    beside: str = ""


@dataclass(frozen=True)
class Wire:
    """From a box to another: their places in the list of boxes. nbytes forward, gradient backward (None: nothing came back)."""

    source: int
    target: int
    nbytes: int
    gradient: int | None


@dataclass
class _Item:
    """What has a place in a row: a box, or a wire that passes (`box` is None)."""

    box: Box | None
    lane: int
    row: int
    width: float
    height: float
    above: list[int] = field(default_factory=list)  # items
    below: list[int] = field(default_factory=list)
    x: float = 0.0  # its middle, from the lane's middle at first


def drawing(title: str, boxes: Sequence[Box], wires: Sequence[Wire], lanes: Sequence[str]) -> str:
    """The graph as SVG. boxes : each after those that it takes something from."""
    return _Drawing(title, boxes, wires, lanes).svg()


class _Drawing:
    def __init__(self, title: str, boxes: Sequence[Box], wires: Sequence[Wire], lanes: Sequence[str]) -> None:
        self.title, self.boxes, self.wires, self.lanes = title, boxes, wires, lanes
        forward, backward = (
            {w.source: n for w in wires if (n := getattr(w, which)) is not None} for which in ("nbytes", "gradient")
        )
        self.bytes = [(_bytes(forward.get(i)), _bytes(backward.get(i))) for i in range(len(boxes))]
        rows = _rows(boxes, wires)
        self.items = [
            _Item(box, box.lane, row, self._width(i), _LINE * len(box.lines) + _PAD)
            for i, (box, row) in enumerate(zip(boxes, rows, strict=True))
        ]
        self.paths = [self._path(wire) for wire in wires]
        self.rows: list[list[int]] = [[] for _ in range(max(rows, default=-1) + 1)]
        for i, item in enumerate(self.items):
            self.rows[item.row].append(i)
        self._order()
        self._place()

    def _width(self, i: int) -> float:
        text = max(map(len, self.boxes[i].lines)) * _CHAR + 2 * _PAD
        labels = 2 * (max(map(len, self.bytes[i])) * _CHAR + 3 * _APART)
        return max(text, labels, 24.0 * sum(wire.target == i for wire in self.wires))

    def _path(self, wire: Wire) -> list[int]:
        """The items that a wire goes through, one a row. Those between are made here."""
        source, target = self.items[wire.source], self.items[wire.target]
        path = [wire.source]
        for row in range(source.row + 1, target.row):
            self.items.append(_Item(None, source.lane, row, 2 * _APART, 0.0))
            path.append(len(self.items) - 1)
        path.append(wire.target)
        for upper, lower in itertools.pairwise(path):
            self.items[upper].below.append(lower)
            self.items[lower].above.append(upper)
        return path

    def _order(self) -> None:
        """Within a lane's part of a row by the mean place of the neighbours, above and below in turn: wires cross less."""
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            place = {i: n for row in self.rows for n, i in enumerate(row)}
            for row in self.rows if down else reversed(self.rows):

                def key(i: int, down: bool = down, place: dict[int, int] = place) -> tuple[int, float]:
                    near = self.items[i].above if down else self.items[i].below
                    return self.items[i].lane, sum(place[n] for n in near) / len(near) if near else place[i]

                row.sort(key=key)
                place.update({i: n for n, i in enumerate(row)})

    def _place(self) -> None:
        """x of every item: near its neighbours of the same lane, and beside the others of its row; y of every row."""
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                for lane in range(len(self.lanes)):
                    group = [self.items[i] for i in row if self.items[i].lane == lane]
                    wanted = [self._mean(item.above if down else item.below, item) for item in group]
                    for item, x in zip(group, _side_by_side(wanted, [item.width for item in group]), strict=True):
                        item.x = x
        self.spans: list[tuple[float, float]] = []
        left = _MARGIN
        for lane, name in enumerate(self.lanes):
            own = [item for item in self.items if item.lane == lane]
            low = min((item.x - item.width / 2 for item in own), default=0.0) - _GAP / 2
            high = max((item.x + item.width / 2 for item in own), default=0.0) + _GAP / 2
            more = max(len(name) * _CHAR + _GAP - (high - low), 0.0) / 2
            for item in own:
                item.x += left - low + more
            self.spans.append((left, high - low + 2 * more))
            left += high - low + 2 * more + _GAP
        legend = max(len(self.title), len(_DOWN) + len(_UP) + 2) * _CHAR + 2 * _MARGIN
        self.width = max(left - _GAP + _MARGIN, legend)
        self.tops, y = [], _HEAD
        for row in self.rows:
            self.tops.append(y)
            y += max(self.items[i].height for i in row) + _LABELS + _BETWEEN
        self.height = y - _LABELS - _BETWEEN + _MARGIN

    def _mean(self, near: Sequence[int], item: _Item) -> float:
        own = [self.items[i].x for i in near if self.items[i].lane == item.lane]
        return sum(own) / len(own) if own else item.x

    # ---------------------------------------------------------------------------------------------------------- drawing

    def svg(self) -> str:
        w, h = round(self.width), round(self.height)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
            'aria-labelledby="title">',
            f'<title id="title">{html.escape(self.title)}: arrays go down, gradients come up</title>',
            f"<style>{_STYLE}</style>",
            f'<rect class="panel" x=".5" y=".5" width="{w - 1}" height="{h - 1}" rx="10"/>',
            _text(_MARGIN, 28, self.title, "title"),
            *self._legend(),
        ]
        for (left, width), name in zip(self.spans, self.lanes, strict=True):
            size = f'width="{width:.1f}" height="{self.height - 54 - _MARGIN / 2:.1f}"'
            parts.append(f'<rect class="lane" x="{left:.1f}" y="54" {size} rx="8"/>')
            parts.append(_text(left + _GAP / 2, 72, name, "title"))
        for wire, path in zip(self.wires, self.paths, strict=True):
            parts += self._wire(wire, path)
        for i in range(len(self.boxes)):
            parts += self._box(i)
        return "\n".join([*parts, "</svg>"])

    def _legend(self) -> Iterable[str]:
        yield _text(_MARGIN, 46, _DOWN, "down")
        yield _text(_MARGIN + (len(_DOWN) + 2) * _CHAR, 46, _UP, "up")

    def _box(self, i: int) -> Iterable[str]:
        item, box, top = self.items[i], self.boxes[i], self.tops[self.items[i].row]
        text = max(map(len, box.lines)) * _CHAR + 2 * _PAD
        wide = max(text, 24.0 * len(item.above))
        left = item.x - wide / 2
        yield (
            f'<rect class="box {box.kind}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{item.height:.1f}" '
            f'rx="{12 if box.kind in ("input", "output") else 6}"/>'
        )
        for n, line in enumerate(box.lines):
            yield _text(left + _PAD, top + _PAD / 2 + _LINE * (n + 0.75), line, "" if n else "title")
        forward, backward = self.bytes[i]
        y = top + item.height + 15
        if forward:
            yield _text(item.x - 3 * _APART, y, forward, "bytes-forward")
        if backward:
            yield _text(item.x + 3 * _APART, y, backward, "bytes-backward")

    def _wire(self, wire: Wire, path: Sequence[int]) -> Iterable[str]:
        """A line down, and one up if a gradient came back."""
        ends = self._ends(path)
        yield _line("forward", -_APART, ends, down=True)
        if wire.gradient is not None:
            yield _line("backward", _APART, ends, down=False)

    def _ends(self, path: Sequence[int]) -> list[tuple[float, float]]:
        """Points from the source's bottom to the target's top, in pairs: the line is straight between the two of a pair that
        begins with an odd place, and bends between the others."""
        source = self.items[path[0]]
        bottom = self.tops[source.row] + source.height
        points = [(source.x, bottom), (source.x, self._floor(source.row))]
        for i in path[1:-1]:
            item = self.items[i]
            points += [(item.x, self.tops[item.row]), (item.x, self._floor(item.row))]
        target = self.items[path[-1]]
        points.append((target.x + self._port(path), self.tops[target.row]))
        return points

    def _floor(self, row: int) -> float:
        """Where a row ends, labels included: below it there are wires alone."""
        return self.tops[row] + max(self.items[i].height for i in self.rows[row]) + _LABELS

    def _port(self, path: Sequence[int]) -> float:
        """How far from the middle of its target a wire arrives: in the order in which wires come, 24 apart."""
        arriving = [(self.items[other[-2]].x, n) for n, other in enumerate(self.paths) if other[-1] == path[-1]]
        own = next(n for n, other in enumerate(self.paths) if other is path)
        place = sorted(arriving).index((self.items[path[-2]].x, own))
        return 24.0 * (place - (len(arriving) - 1) / 2)


_DOWN, _UP = "down: arrays, their bytes", "up, dashed: gradients, their bytes"


def _rows(boxes: Sequence[Box], wires: Sequence[Wire]) -> list[int]:
    """Each box's row: below all that it takes; what takes nothing stands right above the first that takes it."""
    together: dict[str, list[int]] = {}
    for i, box in enumerate(boxes):
        if box.beside:
            together.setdefault(box.beside, []).append(i)
    rows = _longest_ways(len(boxes), wires, list(together.values())) or _longest_ways(len(boxes), wires, []) or []
    for i in set(range(len(boxes))) - {wire.target for wire in wires}:
        rows[i] = max(min((rows[wire.target] for wire in wires if wire.source == i), default=1) - 1, 0)
    return rows


def _longest_ways(count: int, wires: Sequence[Wire], together: Sequence[Sequence[int]]) -> list[int] | None:
    """The length of the longest way to each; members of a group wait for each other. None: they would wait for ever."""
    rows = [0] * count
    in_order = sorted(wires, key=lambda wire: wire.target)
    while True:
        before = list(rows)
        for wire in in_order:
            rows[wire.target] = max(rows[wire.target], rows[wire.source] + 1)
        for group in together:
            lowest = max(rows[i] for i in group)
            for i in group:
                rows[i] = lowest
        if rows == before:
            return rows
        if max(rows) >= count:
            return None


def _side_by_side(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Middles of things of these widths in this order, none on another, with the least squares of the ways from where each
    would be. What touches moves as one block."""
    blocks: list[tuple[float, int, list[float]]] = []  # (mean place of the block's first, members, offsets from the first)
    for i, x in enumerate(wanted):
        place, offsets = x, [0.0]
        size = 1
        while blocks:
            before, count, known = blocks[-1]
            first = i - size + 1
            step = known[-1] + (widths[first - 1] + widths[first]) / 2 + _GAP
            if before + step <= place:
                break
            blocks.pop()
            place = (before * count + (place - step) * size) / (count + size)
            offsets = [*known, *(step + offset for offset in offsets)]
            size += count
        blocks.append((place, size, offsets))
    return [place + offset for place, _, offsets in blocks for offset in offsets]


def _line(kind: str, aside: float, points: Sequence[tuple[float, float]], down: bool) -> str:
    """A wire's line, `aside` of its middle, and its tip at the end where it arrives."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    tip = 6.0
    points = [(x + aside, y) for x, y in points]
    points[0] = (points[0][0], y0 if down else y0 + tip)
    points[-1] = (points[-1][0], y1 - tip if down else y1)
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for n, ((_, above), (x, y)) in enumerate(itertools.pairwise(points)):
        if n % 2 == 0:
            path += f" V{y:.1f}"
        else:
            last = points[n][0]
            turn = (x > last) - (x < last)
            middle = (above + y) / 2 - turn * aside  # so that the lines of both directions stay side by side in a bend
            path += f" C{last:.1f} {middle:.1f} {x:.1f} {middle:.1f} {x:.1f} {y:.1f}"
    x, y, base = (x1 + aside, y1, y1 - tip) if down else (x0 + aside, y0, y0 + tip)
    triangle = f"M{x:.1f} {y:.1f} L{x - 4:.1f} {base:.1f} L{x + 4:.1f} {base:.1f} Z"
    return f'<path class="{kind}" d="{path}"/><path class="tip-{kind}" d="{triangle}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{of}>{html.escape(text, quote=False)}</text>'


def _bytes(n: int | None) -> str:
    return "" if n is None else f"{n:,} B"
