"""The Python in the README and the documents runs, and says what it says."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_in_the_readme_runs(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out == "(16, 3, 5, 5)\n"
    assert names["minidl"].gradcheck(lambda x: names["F"].local_response_norm(x, 5, alpha=1.0, k=1.0), names["x"])


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_the_python_in_the_documents_runs(document, tmp_path, monkeypatch):
    """In an empty folder, beside the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        exec(block, names)


def test_files_that_the_documents_name_exist():
    for document in [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "examples/alexnet/README.md"]:
        text = document.read_text()
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"
        for path in re.findall(r"`((?:minidl|examples|docs|tests)/[\w/.]+\.\w+)`", text):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
