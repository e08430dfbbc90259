"""MkDocs hooks: the ops' pages are in the menu, and files outside docs/ that a page links to are pages of the site too.

The pages that are named as a file of minidl/ops is make up the menu's section Layers.

A page links to `../minidl/ops/relu.py`, as an editor and a repository's file view resolve it; MkDocs only knows docs/. So each
such file becomes a page `source/minidl/ops/relu.py.md`, Markdown as it is, anything else as a listing, and the link is made to
lead there. Links to what does not exist stay, and MkDocs reports them. All of minidl's Python files are pages, as the reference
of its API, which docs/griffe_docstrings.py prepares, links them.

A block that begins with ```formula is shown as mathematics, by docs/formulas.py. The build ends where one can't be read.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS, SOURCE = "docs/", "source/"
sys.path.insert(0, str(ROOT / DOCS))

import formulas  # noqa: E402

LANGUAGES = {".py": "python", ".cu": "cuda", ".h": "cpp", ".toml": "toml", ".cfg": "ini", ".yml": "yaml"}

# a fenced block, which is skipped, or the target of a link: path, anchor
FENCE_OR_LINK = re.compile(
    r"^ *(?P<fence>```+).*\n(?:.*\n)*? *(?P=fence) *$|(?<=\]\()(?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?(?=\))", re.M
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menu's section Layers; show formulas as mathematics."""
    fence = {"name": "formula", "class": "formula", "format": formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    section = next(entry for entry in config.nav or [] if "Layers" in entry)
    section["Layers"] = [{name: f"{name}.md"} for name in op_pages()]
    return config


def formula(source: str, *args: object, **settings: object) -> str:
    """The HTML of a block of formulas, as pymdownx.superfences asks for it."""
    return formulas.block(source)


def op_pages() -> list[str]:
    """The ops that have a page of their own, by name."""
    ops = (path.stem for path in (ROOT / "minidl/ops").glob("*.py"))
    return sorted(op for op in ops if (ROOT / DOCS / f"{op}.md").exists())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs/ that a page links to, and for those that they link to."""
    unread = [DOCS + file.src_uri for file in files.documentation_pages()]
    unread += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "minidl").rglob("*.py"))]
    known = set(unread)
    while unread:
        path = unread.pop()
        text = (ROOT / path).read_text()
        if not path.startswith(DOCS):
            content = text if path.endswith(".md") else listing(path, text)
            files.append(File.generated(config, place(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
        new = set(linked_files(path, text) if path.endswith(".md") else ()) - known
        known |= new
        unread += sorted(target for target in new if not target.startswith(DOCS))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links out of docs/, or from outside into it, leading to the site's pages. PluginError for a formula
    that can't be read, with the page and the line."""
    here = page.file.src_uri
    path = here.removeprefix(SOURCE).removesuffix(".md") if here.startswith(SOURCE) else DOCS + here

    if wrong := formulas.unreadable(markdown):
        raise PluginError(f"{path}, line {wrong[0]}: {wrong[1]}")

    def moved(match: re.Match) -> str:
        target = match["path"] and target_of(path, match["path"])
        if not target:
            return match[0]
        return posixpath.relpath(place(target), posixpath.dirname(here)) + (match["anchor"] or "")

    return FENCE_OR_LINK.sub(moved, markdown)


def linked_files(path: str, text: str) -> list[str]:
    """The repository's files to which the Markdown file `path` has relative links."""
    targets = (target_of(path, match["path"]) for match in FENCE_OR_LINK.finditer(text) if match["path"])
    return [target for target in targets if target]


def target_of(path: str, link: str) -> str | None:
    """The file to which a relative link in `path` leads, from the repository's root; None if there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("../") and (ROOT / target).is_file() else None


def place(path: str) -> str:
    """Where a file of the repository is in the site, before MkDocs turns .md into .html."""
    return path.removeprefix(DOCS) if path.startswith(DOCS) else f"{SOURCE}{path}.md"


def listing(path: str, text: str) -> str:
    """Markdown that shows a file's text. Its fence is longer than any in the text, and search leaves it out."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = LANGUAGES.get(posixpath.splitext(path)[1], "text")
    front = f"---\ntitle: {path}\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# {path}\n\n"
    return f"{front}{fence}{language}\n{text.rstrip()}\n{fence}\n"
