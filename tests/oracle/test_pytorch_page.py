"""docs/pytorch.md says what the tests count."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from . import count_samples

PAGE = Path(__file__).parents[2] / "docs/pytorch.md"


def test_the_counts_of_samples():
    """`make samples` prints the text."""
    assert count_samples.text() in PAGE.read_text()
