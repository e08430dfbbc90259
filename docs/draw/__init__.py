"""The figures of the layers' pages, drawn from numbers that minidl computes: `make figures` writes docs/figures/<op>.svg.

`FIGURES` has a function for each page, which returns the picture. Every number in it is from a forward or a backward pass of
minidl, made when the figure is drawn.
"""

from collections.abc import Callable

from draw import curves, moves, norms, pages, products, windows
from draw.svg import Figure

FIGURES: dict[str, Callable[[], Figure]] = {
    **curves.FIGURES,
    **moves.FIGURES,
    **norms.FIGURES,
    **pages.FIGURES,
    **products.FIGURES,
    **windows.FIGURES,
}
