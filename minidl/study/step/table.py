"""Tables and sentences of text that fit the terminal."""

import shutil
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

LONG_NAME = 28  # characters; longer names are shortened where the table is too wide


def terminal_width() -> int:
    """The columns of the terminal: those of COLUMNS if it is set; 80 for a pipe or a file."""
    return shutil.get_terminal_size((80, 24)).columns


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """A line for each row, columns two spaces apart; those whose places are in `right` end in line, the others begin so."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_filled(cells, widths, right)).rstrip() for cells in rows]


def _filled(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    return [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]


@dataclass(frozen=True)
class Fitted:
    """A table that was made to fit.

    lines   : a line for each row
    note    : which columns were left out, in lines to be written below the table; empty if none were
    compact : were cells written in their compact form?
    """

    lines: list[str]
    note: list[str]
    compact: bool


def fitted(
    rows: Sequence[Sequence[str]],
    right: Collection[int],
    expendable: Sequence[str],
    width: int | None,
    names: Collection[str] = (),
    compact: Mapping[str, Callable[[str], str]] | None = None,
    rest: str = "--wide shows all; in Python: .text(None)",
) -> Fitted:
    """`aligned`, in at most `width` characters; None for as many as the table needs.

    rows       : the first has the headings
    expendable : headings of the columns that may go, the least important first
    names      : headings of columns whose longest cells may be shortened
    compact    : heading -> how a cell of the column is written if the table is too wide
    rest       : how a reader gets the columns that were left out

    Numbers are never cut. If columns must go, they go one by one until the rest fits. A table of which nothing more may go
    stays too wide.
    """
    if _width(rows) <= (width or _width(rows)):
        return Fitted(aligned(rows, right), [], False)
    head = list(rows[0])
    columns = [list(column) for column in zip(*rows, strict=True)]
    for heading, write in (compact or {}).items():
        columns[head.index(heading)][1:] = map(write, columns[head.index(heading)][1:])
    for heading in names:
        columns[head.index(heading)][1:] = shortened(columns[head.index(heading)][1:], LONG_NAME)
    kept, going = list(range(len(head))), [head.index(heading) for heading in expendable if heading in head]
    while going and width is not None and _width([[columns[i][r] for i in kept] for r in range(len(rows))]) > width:
        kept.remove(going.pop(0))
    lines = aligned([[columns[i][r] for i in kept] for r in range(len(rows))], [kept.index(i) for i in right if i in kept])
    gone = [heading for i, heading in enumerate(head) if i not in kept]
    text = f"Left out, to fit {width} columns: {', '.join(gone)}. {rest}."
    return Fitted(lines, wrapped(text, width).splitlines() if gone else [], True)


def _width(rows: Sequence[Sequence[str]]) -> int:
    return max(map(len, aligned(rows)))


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Names of more characters have ".." for their middle. All are given more room where two would become the same."""
    for room in range(longest, max(map(len, names), default=0)):
        short = {name: name if len(name) <= room else f"{name[: room // 3]}..{name[room // 3 + 2 - room :]}" for name in names}
        if len(set(short.values())) == len(short):
            return [short[name] for name in names]
    return list(names)


def wrapped(text: str, width: int | None) -> str:
    """The text with its long lines broken between words; what goes on is four spaces further in. None: as it is."""
    return text if width is None else "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def shape(sizes: Sequence[int]) -> str:
    """ "48 x 55 x 55"; "1" for a number."""
    return " x ".join(map(str, sizes)) or "1"


def tight(shape_text: str) -> str:
    """The same shape in fewer characters: "48x55x55"."""
    return shape_text.replace(" x ", "x")


def number(value: int) -> str:
    """With commas; nothing for 0, which is what most cells hold."""
    return f"{value:,}" if value else ""
