"""The documents at the repository's root agree with the package, and with each other."""

import inspect
import re
from pathlib import Path

from test_imports import ORDER

import minidl

ROOT = Path(__file__).parents[2]


def test_the_versions_agree():
    newest = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    assert newest and newest[1] == minidl.__version__
    assert f"\nversion: {newest[1]}\n" in citation and f'\ndate-released: "{newest[2]}"\n' in citation


def test_the_oldest_python_is_said_as_it_is():
    oldest = re.search(r'^requires-python = ">=(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert oldest
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        assert re.findall(r"Python (3\.\d+) or newer", (ROOT / name).read_text()) == [oldest[1]], name


# -------------------------------------------------------------------------------------------------------- the architecture

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def test_the_architecture_names_everything_in_the_package():
    parts = [path.name for path in (ROOT / "minidl").iterdir() if path.name[0] not in "._" and path.name != "py.typed"]
    assert parts and [name for name in parts if not re.search(rf"\b{re.escape(name)}(?:/?`|/)", ARCHITECTURE)] == []


def test_the_order_of_imports_is_that_of_its_test():
    section = ARCHITECTURE.split("## Who may import whom")[1]
    assert section.split("```text\n")[1].split("```")[0].split() == ORDER


def test_every_attribute_that_tools_ask_an_op_for_is_in_the_table():
    attributes = [name for name in inspect.get_annotations(minidl.Function) if hasattr(minidl.Function, name)]
    assert attributes and [name for name in attributes if f"\n| `{name} = " not in ARCHITECTURE] == []
