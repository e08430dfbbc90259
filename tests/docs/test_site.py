"""docs/ as a site: every page is in the navigation, the strict build is silent, no link is dead, nothing comes from elsewhere.

What builds the site is marked `docs`, as it needs mkdocs-material: make docs. mkdocs.yml's names are compared without it.
"""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from test_readme import anchors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FETCHED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}


def test_every_page_is_in_the_navigation_once():
    """The names after `nav:`, which need no YAML parser, and the ops' pages, which the hook adds. Files outside docs/ may be in
    it under the names that the hook gives them."""
    _, _, nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    listed = re.findall(r"^ *- .+: (\S+\.md)$", nav, re.MULTILINE)
    assert len(re.findall(r"\.md$", nav, re.MULTILINE)) == len(listed)
    ops = [f"{path.stem}.md" for path in (ROOT / "minidl/ops").glob("*.py") if (DOCS / f"{path.stem}.md").exists()]
    outside = [f"source/{name}.md" for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    assert sorted(listed + ops) == sorted([*outside, *(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])


# ------------------------------------------------------------------------------------------------------------- the build


class Document(HTMLParser):
    """What a page of the site refers to, its ids, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[tuple[str, str, str]] = []  # tag, attribute, address
        self.ids: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.references.append((tag, name, value))
            elif name in ("id", "name") and value:
                self.ids.add(value)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(built):
    """Path in the site -> Document, for every page but the 404, which is served for addresses that nobody knows."""
    pages = {str(path.relative_to(built)): Document(path.read_text()) for path in built.rglob("*.html")}
    return {path: document for path, document in pages.items() if path != "404.html"}


@pytest.mark.docs
def test_every_document_is_a_page_and_nothing_else_is_published(built, site):
    assert {f"{path.relative_to(DOCS).with_suffix('')}.html" for path in DOCS.rglob("*.md")} <= site.keys()
    assert [path for path in built.rglob("*") if path.suffix in (".py", ".pyc", ".md")] == []


@pytest.mark.docs
def test_no_link_in_the_site_is_dead(built, site):
    folder = built.resolve()
    dead = []
    for path, document in site.items():
        for _, _, address in document.references:
            parts = urlsplit(address)
            if parts.scheme:
                continue
            target = (folder / path).parent / unquote(parts.path) if parts.path else folder / path
            name = str(target.resolve().relative_to(folder))
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in site[name].ids | {"__skip"}):
                dead.append((path, address))
    assert dead == []


@pytest.mark.docs
def test_headings_have_the_anchors_that_a_repositorys_file_view_gives_them(site):
    for page in DOCS.rglob("*.md"):
        assert anchors(page.read_text()) <= site[f"{page.relative_to(DOCS).with_suffix('')}.html"].ids, page.name


@pytest.mark.docs
def test_nothing_is_fetched_from_elsewhere(built, site):
    fetched = [(p, a) for p, d in site.items() for tag, name, a in d.references if (tag, name) in FETCHED]
    assert [(p, a) for p, a in fetched if urlsplit(a).scheme or a.startswith("//")] == []
    styles = "".join(path.read_text() for path in built.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\s)]+", styles) == []


@pytest.mark.docs
def test_files_outside_docs_that_pages_link_to_are_pages(site):
    """Each with its text, to the letter."""
    shown = {path.removeprefix("source/").removesuffix(".html") for path in site if path.startswith("source/")}
    linked = set()
    for page in DOCS.rglob("*.md"):
        links = re.findall(r"\]\((\.\./[^)#\s]+)", page.read_text())
        linked |= {str((page.parent / link).resolve().relative_to(ROOT)) for link in links}
    assert linked and linked <= shown
    for path in shown:
        if not path.endswith(".md"):
            assert (ROOT / path).read_text().strip() in site[f"source/{path}.html"].text, path


@pytest.mark.docs
def test_search_finds_documents_and_no_listings(built):
    index = (built / "search" / "search_index.js").read_text()
    assert '"first-hour.html' in index and '"source/minidl/' not in index


# ------------------------------------------------------------------------------------------------------------- the hooks


class Page:
    """What on_page_markdown asks of a page."""

    def __init__(self, src_uri: str) -> None:
        self.file = self
        self.src_uri = src_uri


@pytest.mark.docs
@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("relu.md", "[a](../minidl/ops/relu.py)", "[a](source/minidl/ops/relu.py.md)"),
        ("relu.md", "[a](../README.md#speed), [b](cpu.md)", "[a](source/README.md.md#speed), [b](cpu.md)"),
        ("relu.md", "[a](nowhere.md) [b](../nowhere.py)", "[a](nowhere.md) [b](../nowhere.py)"),  # MkDocs reports them
        ("relu.md", "[a](../../outside) [b](https://example.org)", "[a](../../outside) [b](https://example.org)"),
        ("source/README.md.md", "[a](docs/cpu.md#threads)", "[a](../cpu.md#threads)"),
        ("source/README.md.md", "[a](benchmarks/RESULTS.md)", "[a](benchmarks/RESULTS.md.md)"),
        ("source/examples/alexnet/README.md.md", "[a](model.py)", "[a](model.py.md)"),
        ("relu.md", "```\n[a](../README.md)\n```\n[a](../README.md)", "```\n[a](../README.md)\n```\n[a](source/README.md.md)"),
    ],
)
def test_links_out_of_docs_and_into_it(hooks, page, markdown, expected):
    assert hooks.on_page_markdown(markdown, Page(page), None, None) == expected


@pytest.mark.docs
def test_links_out_of_the_repository_are_left_alone(hooks, tmp_path):
    (tmp_path / "notes.md").touch()
    link = os.path.relpath(tmp_path / "notes.md", DOCS)
    assert hooks.target_of("docs/relu.md", link) is None


@pytest.mark.docs
@pytest.mark.parametrize(("text", "fence"), [("x\n", "```"), ('"""\n```sh\nls\n```\n"""\n', "````"), ("`````", "``````")])
def test_a_listing_keeps_fences_in_the_text(hooks, text, fence):
    shown = hooks.listing("minidl/x.py", text)
    assert shown.endswith(f"\n# minidl/x.py\n\n{fence}python\n{text.rstrip()}\n{fence}\n")
