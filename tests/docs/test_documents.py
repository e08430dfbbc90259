"""The documents at the repository's root agree with the package, and with each other."""

import re
from pathlib import Path

import minidl

ROOT = Path(__file__).parents[2]


def test_the_versions_agree():
    newest = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    assert newest and newest[1] == minidl.__version__
    assert f"\nversion: {newest[1]}\n" in citation and f'\ndate-released: "{newest[2]}"\n' in citation
