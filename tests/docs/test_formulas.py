"""Formulas of the pages as MathML: each can be read, one that can't ends the build, and the explorer's page makes the same."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_layer_pages import PAGE_OF

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import formulas  # noqa: E402

PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
DEFINED = re.compile(r"^## Definition\n(?:(?!## ).*\n)*?```formula$", re.MULTILINE)
WITHOUT = {"arithmetic", "dropout", "in_place", "reduce", "reshape", "select"}  # their definitions are tables
HTML = {page: [formulas.block(found["body"]) for found in formulas.FENCE.finditer(text)] for page, text in PAGES.items()}
ARITY = {"msub": 2, "msup": 2, "munder": 2, "msubsup": 3}


def texts() -> list[str]:
    """Every formula of the pages, as plain text."""
    found = [re.findall(r'<math alttext="([^"]*)"', html) for blocks in HTML.values() for html in blocks]
    plain = ElementTree.fromstring(f"<all>{''.join(f'<t>{text}</t>' for row in found for text in row)}</all>")
    return [t.text or "" for t in plain]


def test_every_layer_has_its_definition_as_a_formula():
    assert {page for page in PAGE_OF.values() if not DEFINED.search(PAGES[page])} == WITHOUT
    assert len(texts()) > 100


def test_formulas_are_well_formed():
    for blocks in HTML.values():
        for html in blocks:
            for element in ElementTree.fromstring(html.replace("\u00a0", " ")).iter():
                assert len(element) == ARITY.get(element.tag, len(element)), ElementTree.tostring(element)


def test_a_block_has_its_text_to_be_copied():
    text = "y = x < 2 & 3   where x > 0\n  = z"
    with pytest.raises(formulas.UnreadableError):
        formulas.block(text)
    text = text.replace(" & 3", "")
    element = ElementTree.fromstring(formulas.block(text))
    assert element.findtext("details/pre/code") == text
    assert [math.get("alttext") for math in element.iter("math")] == ["y = x < 2", "= z"]


def test_equals_signs_may_stand_under_each_other():
    element = ElementTree.fromstring(formulas.block("mean[c] = m\nz[c]    = x[c]     for all     y = z"))
    assert [math.get("alttext") for math in element.iter("math")] == ["mean[c] = m", "z[c]    = x[c]", "y = z"]


def sub(name: str, index: str, power: str = "") -> str:
    inside = f"<mi>{name}</mi><mrow><mrow><mi>{index}</mi></mrow></mrow>"
    return f"<msubsup>{inside}{power}</msubsup>" if power else f"<msub>{inside}</msub>"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("y[i] = x[i]^2", f"{sub('y', 'i')}<mo>=</mo>{sub('x', 'i', '<mn>2</mn>')}"),
        ("y = e^-x", "<mi>y</mi><mo>=</mo><msup><mi>e</mi><mrow><mo>\u2212</mo><mi>x</mi></mrow></msup>"),
        ("y = sum of g[i] over i", f"<mi>y</mi><mo>=</mo><munder><mo>\u2211</mo><mtext>i</mtext></munder>{sub('g', 'i')}"),
        ("gb = sum of gy", "<mi>gb</mi><mo>=</mo><mo>\u2211</mo><mi>gy</mi>"),
        ("w <- w' * alpha", "<mi>w</mi><mo>\u2190</mo><mi>w</mi><mo>\u2032</mo><mo>\u00b7</mo><mi>\u03b1</mi>"),
        ("d = i == j", "<mi>d</mi><mo>=</mo><mi>i</mi><mo>=</mo><mi>j</mi>"),
    ],
)
def test_what_the_rules_make(text, inside):
    assert formulas.mathml(text) == f'<math display="block"><mrow>{inside}</mrow></math>'


@pytest.mark.parametrize("text", ["x (N, C)", "y = (x", "y = x[", "y = two words", "y = x ~ z", "y = 2^"])
def test_what_is_no_formula(text):
    assert formulas.mathml(text) is None


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("y = two words", True),
        ("name y = x", True),  # a name too near a formula: it would stay text
        ("y = x  for all", True),
        ("y = x   for z = 1", False),
        ("x (N, C)", True),  # a block without a formula
        ("x (N, C)\ny = x", False),
    ],
)
def test_one_that_can_not_be_read_is_named_with_its_line(line, wrong):
    page = f"# Page\n\n1. A list:\n\n    ```formula\n    a = b\n    ```\n\n```formula\n{line}\n```\n"
    found = formulas.unreadable(page)
    assert (found is not None) == wrong
    assert found is None or (found[0] == 10 and line.split("   ")[0] in found[1])


@pytest.mark.docs
def test_the_build_ends_at_a_formula_that_can_not_be_read(hooks):
    from mkdocs.exceptions import PluginError

    class Page:
        src_uri = "relu.md"
        file = property(lambda self: self)

    with pytest.raises(PluginError, match=re.escape("docs/relu.md, line 2: a formula must be")):
        hooks.on_page_markdown("```formula\ny = two words\n```\n", Page(), None, None)


@pytest.mark.browser
def test_the_explorer_makes_the_same(browser):
    """Of every formula of the pages, and of what is none."""
    page = browser.new_page()
    page.add_script_tag(content=(ROOT / "minidl/study/explorer/page/formulas.js").read_text())
    every = [*texts(), "y = two words", "y = (x", "x", "y = a | b", "y = x \u00b2 ... \u03a3 x"]
    every += ["L[0] <- max over i, j of x[i,j]", "y = <script>"]
    made = page.evaluate("texts => texts.map(Formulas.mathml)", every)
    page.close()
    assert dict(zip(every, made, strict=True)) == {text: formulas.mathml(text) for text in every}
