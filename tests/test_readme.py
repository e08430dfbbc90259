"""The README and the documents are true: their Python runs and prints what they say, their links and the files they name exist.

A block that starts with ```python runs, in the page's order, with the names of the page's earlier blocks. A ```text block right
after it is what it prints, to the letter. Blocks of another kind, ```python title="..." among them, are for reading only.
"""

import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
READMES = [ROOT / "examples" / name / "README.md" for name in ("alexnet", "claims")]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *READMES, ROOT / "benchmarks/RESULTS.md", *PAGES]

FENCE = re.compile(r"^( *)(```+)(.*)\n((?:.*\n)*?)\1\2 *$", re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
FILE = re.compile(r"`((?:minidl|examples|docs|tests|benchmarks)/[\w/.]+\.\w+)`")


class Block(NamedTuple):
    """A fenced block. `follows`: nothing but blank lines stands between it and the block before."""

    kind: str
    body: str
    line: int  # of the body's first line, from 1
    follows: bool


def blocks(text: str) -> list[Block]:
    found, end = [], 0
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start(4)) + 1
        found.append(Block(match[3].strip(), match[4], line, bool(found) and not text[end : match.start()].strip()))
        end = match.end()
    return found


def run(document: Path, text: str) -> None:
    """Run the Python of a document; AssertionError where a block prints something else than the document says."""
    names: dict = {"__name__": "__main__"}
    for block, after in pairwise([*blocks(text), None]):
        if block.kind != "python":
            continue
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.body, str(document), "exec"), names)  # tracebacks name the page's line
        if after is not None and after.kind == "text" and after.follows:
            assert printed.getvalue() == after.body, f"{document.name}, line {block.line}"


def anchors(text: str) -> set[str]:
    """What `#...` can name on a page: its headings, as GitHub and MkDocs spell them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", word) for word in words}


def dead_links(document: Path, text: str) -> list[str]:
    """The relative links that lead to no file, to no heading, or out of the repository."""
    links = [link for link in LINK.findall(FENCE.sub("", text)) if not re.match(r"[a-z]+:", link)]
    return [link for link in links if not leads_somewhere(document, text, link)]


def leads_somewhere(document: Path, text: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    if not path:
        return anchor in anchors(text)
    target = (document.parent / path).resolve()
    if not target.is_file() or ROOT not in target.parents:
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text()))


# ----------------------------------------------------------------------------------------------------------- the documents


def test_the_python_in_the_readme_runs(capsys):
    text = README.read_text()
    names: dict = {}
    for block in blocks(text):
        if block.kind == "python":
            exec(block.body, names)
    assert capsys.readouterr().out == "(16, 3, 5, 5)\n"
    assert names["minidl"].gradcheck(lambda x: names["F"].local_response_norm(x, 5, alpha=1.0, k=1.0), names["x"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_python_in_the_documents_runs_and_prints_what_they_say(page, tmp_path, monkeypatch):
    """In an empty folder, beside the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run(page, page.read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(document):
    text = document.read_text()
    assert dead_links(document, text) == []
    assert [path for path in FILE.findall(text) if not (ROOT / path).exists()] == []


def test_every_text_block_after_python_is_compared():
    """A ```text block that stands apart from its Python by a sentence would never be compared."""
    for page in PAGES:
        found = blocks(page.read_text())
        apart = [b.line for before, b in pairwise(found) if b.kind == "text" and before.kind == "python"]
        assert apart == [b.line for b in found if b.kind == "text" and b.follows], page.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_products_are_code(document):
    """Elsewhere Markdown takes the two asterisks of N*OH*OW for emphasis, and shows NOHOW."""
    prose = re.sub(r"`[^`]*`|^    .*$", "", FENCE.sub("", document.read_text()), flags=re.MULTILINE)
    assert re.findall(r"\w+\*\w+", prose) == []


# ---------------------------------------------------------------------------------------------------- the checks themselves

PAGE = ROOT / "docs" / "page.md"  # need not exist


def page(*parts: str) -> str:
    """Blocks given as "kind|body", anything else as it is."""
    return "\n".join(f"```{p.split('|')[0]}\n{p.split('|')[1]}\n```\n" if "|" in p else p for p in parts)


def test_blocks_share_names_and_must_print_their_text():
    run(PAGE, page("python|a = 1", "words", "python|print(a + 1)", "text|2"))
    run(PAGE, page("python|a = 1", "text|", "python|pass")[:-1].replace("```text\n\n", "```text\n"))
    with pytest.raises(AssertionError, match="line 2"):
        run(PAGE, page("python|print(1)", "text|2"))
    with pytest.raises(AssertionError, match="line 2"):
        run(PAGE, page("python|pass", "text|2"))


def test_only_plain_python_blocks_run():
    run(PAGE, page('python title="minidl/x.py"|raise SystemExit', "text|x", "sh|raise", "|raise SystemExit"))


def test_text_elsewhere_is_not_compared():
    run(PAGE, page("python|print(1)", "words", "text|2", "python|print(1)", "|2"))


def test_errors_name_the_pages_line():
    with pytest.raises(ZeroDivisionError) as caught:
        run(PAGE, page("words", "python|a = 0\n1 / a"))
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(PAGE), 4)


def test_an_indented_block_and_one_with_a_longer_fence():
    text = "- item\n\n  ```sh\n  ls\n  ```\n\n````text\n```python\nraise\n```\n````\n"
    assert [block.kind for block in blocks(text)] == ["sh", "text"]


@pytest.mark.parametrize(
    ("link", "alive"),
    [
        ("data.md", True),
        ("data.md#data-sets", True),
        ("data.md#no-such-heading", False),
        ("../minidl/ops/relu.py", True),
        ("../minidl/ops/relu.py#L3", False),  # lines move
        ("../minidl/ops", False),  # a folder is nothing that the site can show
        ("nowhere.md", False),
        ("../../outside.md", False),
        ("#own-heading-no-2", True),
        ("#other", False),
        ("https://example.org/x", True),  # others' pages are not asked for
    ],
)
def test_dead_links(link, alive):
    text = f"# Page\n\n## Own *heading*, no. `2`\n\nsee [this]({link})\n"
    assert (dead_links(PAGE, text) == []) == alive


def test_a_link_out_of_the_repository_is_dead(tmp_path):
    (tmp_path / "notes.md").touch()
    link = os.path.relpath(tmp_path / "notes.md", PAGE.parent)
    assert dead_links(PAGE, f"[notes]({link})") == [link]


def test_headings_and_links_in_code_are_neither():
    text = "# Page\n\n```sh\n# a-comment\nx[0](nowhere)\n```\n\n[dead](#a-comment)\n"
    assert dead_links(PAGE, text) == ["#a-comment"]
