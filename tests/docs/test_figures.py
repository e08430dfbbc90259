"""The figures of the layers' pages: each page shows one, and it is what docs/draw draws now, from minidl's numbers."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_layer_pages import PAGE_OF, read

from minidl import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from draw import FIGURES  # noqa: E402
from draw.svg import SIZE, WIDTH, Figure, number  # noqa: E402

WITHOUT_GRADIENTS = {"dropout2d", "winograd"}


def committed(name: str) -> str:
    return (ROOT / "docs/figures" / f"{name}.svg").read_text()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_is_drawn_now(name):
    drawn = FIGURES[name]().svg()
    ElementTree.fromstring(drawn)
    assert drawn == committed(name), "make figures draws it again"


def test_gradients_in_figures_are_those_of_a_backward(monkeypatch):
    """If every backward had gradients half as large again, every figure that shows some would be another."""
    backward = Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda self, g=None: backward(self, 1.5 if g is None else 1.5 * g))

    def drawn(name):
        try:
            return FIGURES[name]().svg()
        except (AssertionError, ValueError):  # its terms do not add up any more, or the numbers do not fit
            return "none"

    assert {name for name in FIGURES if drawn(name) == committed(name)} == WITHOUT_GRADIENTS


@pytest.mark.parametrize("page", sorted(set(PAGE_OF.values())))
def test_a_page_has_its_figure_and_says_in_words_what_it_shows(page):
    """The words in the alt text are for who can't see it."""
    found = re.findall(r"^!\[([^\]]*)\]\(figures/(\S+)\.svg\)$", read(page), re.MULTILINE)
    words = {name: alt for alt, name in found}
    assert page in FIGURES and len(words[page]) > 40


def test_text_can_be_read_on_a_phone():
    assert SIZE * 358 / WIDTH >= 11  # of 390 pixels the site leaves 358 to a figure


@pytest.mark.parametrize(
    ("x", "y", "rule"), [(2, 40, "inside"), (400, 40, "inside"), (40, 98, "inside"), (60, 52, "other text")]
)
def test_text_that_can_not_be_read_is_not_drawn(x, y, rule):
    figure = Figure("", 100)
    figure.text(40, 50, "a few words")
    with pytest.raises(ValueError, match=rule):
        figure.text(x, y, "more words")
    figure.text(40, 70, "more words")


@pytest.mark.parametrize(("value", "text"), [(2.0, "2"), (-0.5, "−0.5"), (-0.0, "0"), (1 / 3, "0.333"), (17, "17")])
def test_numbers_are_short(value, text):
    assert number(value) == text
