"""Tables of text, as summary and ledger print them."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """A line for each row, columns two spaces apart; those whose places are in `right` end in line, the others begin so."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_filled(cells, widths, right)).rstrip() for cells in rows]


def _filled(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    return [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]


def shape(sizes: Sequence[int]) -> str:
    """ "48 x 55 x 55"; "1" for a number."""
    return " x ".join(map(str, sizes)) or "1"


def number(value: int) -> str:
    """With commas; nothing for 0, which is what most cells hold."""
    return f"{value:,}" if value else ""
