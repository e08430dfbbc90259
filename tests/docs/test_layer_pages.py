"""Every op has a page: with the same sections, quotes that are in the source to the letter, and an example worked by hand.

tests/test_readme.py runs the pages' Python and compares what it prints. Here is what it cannot know: that a quoted line is
still the code's, and that the figures which Python prints in "By hand" are those which the text arrives at.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from minidl import Function

ROOT = Path(__file__).parents[2]
ON_ANOTHER_PAGE = {"conv2d_relu": "conv2d", "operators": "arithmetic", "comparison": "arithmetic"}
OPS = sorted(path.stem for path in (ROOT / "minidl/ops").glob("*.py") if path.stem != "__init__")
PAGE_OF = {op: ON_ANOTHER_PAGE.get(op, op) for op in OPS}
OF_SCHOOL = {"arithmetic", "reduce", "reshape", "in_place", "select"}  # no paper is needed for these
SECTIONS = ["Definition", "Backward", "By hand", "Rules", "Saved for backward"]

QUOTE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PYTHON_OR_OUTPUT = re.compile(r"^```(?:python|text)\b.*?^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def read(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text()


def sections(text: str) -> dict[str, str]:
    """Heading -> what stands below it."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def stale_quotes(text: str) -> list[str]:
    """Quoted blocks that are not whole lines, one after the other, of the file that they name."""
    return [f"{file}:\n{body}" for file, body in QUOTE.findall(text) if "\n" + body not in "\n" + (ROOT / file).read_text()]


def numbers(text: str) -> set[float]:
    return {float(number) for number in NUMBER.findall(text)}


def not_worked_by_hand(section: str) -> set[float]:
    """Numbers that the section's Python prints, and its prose and formulas do not have."""
    return numbers("\n".join(OUTPUT.findall(section))) - numbers(PYTHON_OR_OUTPUT.sub("", section))


# --------------------------------------------------------------------------------------------------------------- the pages

pages = pytest.mark.parametrize("page", sorted(set(PAGE_OF.values())))


@pytest.mark.parametrize("op", OPS)
def test_an_op_is_on_a_page_that_links_its_file_and_names_its_functions(op):
    text = read(PAGE_OF[op])
    assert f"](../minidl/ops/{op}.py)" in text
    functions = inspect.getmembers(import_module(f"minidl.ops.{op}"), inspect.isclass)
    names = {f.name for _, f in functions if issubclass(f, Function) and f is not Function and f.__module__.endswith(f".{op}")}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


@pages
def test_a_page_has_the_sections_in_order(page):
    assert [heading for heading in sections(read(page)) if heading in SECTIONS] == SECTIONS


@pages
def test_a_page_says_where_it_comes_from(page):
    """A paper and its section."""
    head = read(page).split("\n## ")[0]
    assert page in OF_SCHOOL or re.search(r"\b(?:19|20)\d\d,\s+sections?\s", head)


@pages
def test_quotes_are_in_the_source(page):
    assert stale_quotes(read(page)) == []


@pages
def test_the_derivation_ends_at_the_code(page):
    assert f"minidl/ops/{page}.py" in [file for file, _ in QUOTE.findall(sections(read(page))["Backward"])]


@pages
def test_the_example_prints_what_was_worked_out_by_hand(page):
    section = sections(read(page))["By hand"]
    assert numbers("\n".join(OUTPUT.findall(section)))
    assert not_worked_by_hand(section) == set()


# ---------------------------------------------------------------------------------------------------- the checks themselves


def quote(file: str, body: str, language: str = "python") -> str:
    return f'words\n\n```{language} title="{file}"\n{body}\n```\n'


@pytest.mark.parametrize(
    ("body", "stale"),
    [
        ('"""Rectified linear unit.', False),
        ("    return array_module(x).maximum(x, 0)", False),
        ('    """x of any shape -> y; NaN stays NaN."""\n    return array_module(x).maximum(x, 0)', False),
        ("return array_module(x).maximum(x, 0)", True),  # not as it is indented
        ("    return array_module(x).maximum(x, 1)", True),
        ("    return array_module(x).maximum(x", True),  # half a line
        ("    return array_module(x).maximum(x, 0)\n\n    return gy", True),  # lines that are not neighbours
    ],
)
def test_a_quote_is_whole_lines_of_its_file(body, stale):
    assert bool(stale_quotes(quote("minidl/ops/relu.py", body))) == stale


def test_quotes_of_cuda_are_checked_too():
    assert stale_quotes(quote("minidl/kernels/cuda/relu.cu", "no such line", "cpp"))


def test_a_quote_of_a_file_that_is_gone_is_an_error():
    with pytest.raises(FileNotFoundError):
        stale_quotes(quote("minidl/ops/no_such_op.py", "y = x"))


@pytest.mark.parametrize(
    ("prose", "printed", "missing"),
    [
        ("`y = (0.5, -2)`", "[ 0.5 -2. ]", set()),
        ("y = 1/4 = 0.25", "0.25", set()),
        ("a thousandth, 0.001", "1e-03", set()),
        ("y = 2", "[2. 3.]", {3.0}),
        ("y = 2", "-2", {-2.0}),
        ("float32 and x2", "[32. 2.]", {32.0, 2.0}),  # names are no figures
    ],
)
def test_printed_numbers_must_be_in_the_prose(prose, printed, missing):
    section = f"{prose}\n\n```python\nprint(99, 3, 32, 2)\n```\n\n```text\n{printed}\n```\n"
    assert not_worked_by_hand(section) == missing


def test_numbers_in_a_formula_block_count_as_prose():
    assert not_worked_by_hand("```\ny = 7\n```\n\n```python\nprint(7)\n```\n\n```text\n7\n```\n") == set()


def test_sections_are_split_at_their_headings():
    assert sections("# Page\n\nwords\n\n## A\n1\n\n## B\n2\n### C\n3\n") == {"A": "1\n\n", "B": "2\n### C\n3\n"}
