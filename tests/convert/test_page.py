"""docs/convert.md has the tables that the code has."""

from pathlib import Path

from minidl.convert.tables import TORCHVISION, in_words

PAGE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text()


def test_the_table_of_torchvision_is_on_the_page():
    rows = "\n".join(f"| `{row.name}` | `{row.ours}` | {in_words(row.shape)} |" for row in TORCHVISION)
    assert f"|---|---|---|\n{rows}\n" in PAGE
