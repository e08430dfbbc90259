"""docs/pytorch.md says what the tests count, and where minidl differs."""

import re
from io import BytesIO
from math import inf

import pytest

import minidl

pytest.importorskip("torch")

import torch

from . import count_samples

PAGE = count_samples.PAGE


def test_the_counts_of_samples():
    assert count_samples.text() in PAGE.read_text(), "`make samples` writes the counts"


def differences():
    """The lines of the page's tables, each with what PyTorch and minidl make of it."""
    return re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| .+ \|$", PAGE.read_text().partition("## What differs")[2], re.M)


def made_of(line, library):
    """The value of a line as the page writes it, or the kind of error."""
    names = {"torch": library, "nn": library.nn, "F": library.nn.functional, "BytesIO": BytesIO, "inf": inf}
    names["t"] = library.tensor([[1.0, -2.0], [3.0, 4.0]])
    names["w"] = library.ones(2, 2, requires_grad=True)
    names["images"] = library.zeros(2, 3, 4, 4)
    try:
        return f"`{eval(line, names)!r}`"
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize(("line", "pytorchs", "minidls"), [pytest.param(*row, id=row[0]) for row in differences()])
def test_a_difference_is_what_the_page_says(line, pytorchs, minidls):
    assert (made_of(line, torch), made_of(line, minidl)) == (pytorchs, minidls)


def test_every_row_is_tried():
    """A row that the pattern does not match would be no test."""
    rows = PAGE.read_text().partition("## What differs")[2].count("\n| `")
    assert len(differences()) == rows > 20
