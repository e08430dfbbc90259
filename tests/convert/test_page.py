"""docs/convert.md has the tables that the code has."""

from pathlib import Path

import pytest

from minidl.convert.tables import CAFFE, TORCHVISION, in_words

PAGE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text()


@pytest.mark.parametrize("table", [TORCHVISION, CAFFE], ids=["torchvision", "caffe"])
def test_the_tables_are_on_the_page(table):
    rows = "\n".join(f"| `{row.name}` | `{row.ours}` | {in_words(row.shape)} |" for row in table)
    assert f"|---|---|---|\n{rows}\n" in PAGE
