"""The laboratory's pages in Chromium: their script computes what minidl does; mouse, keys and touch reach everything."""

import itertools
import re

import numpy as np
import pytest
from legible import low_contrast

from minidl.study.laboratory import pages
from minidl.study.laboratory.pages import LAYERS

pytestmark = pytest.mark.browser
every_layer = pytest.mark.parametrize("name", LAYERS)

# For each of the settings what the tables show, tensor by tensor, or null where the page refuses; and the page's word on it.
READ_ALL = """(all) => all.map((settings) => {
  for (const [name, place] of Object.entries(settings)) {
    const select = document.querySelector(`[data-setting=${name}]`);
    if (select.value === String(place)) continue;
    select.value = place;
    select.dispatchEvent(new Event('change', {bubbles: true}));
  }
  if (!document.querySelector('[data-refused]').hidden) return null;
  const texts = (td) => [td.dataset.value, td.querySelector('.number').textContent.replaceAll('−', '-')];
  const boxes = [...document.querySelectorAll('[data-tensor]')];
  return Object.fromEntries(boxes.map((box) => [box.dataset.tensor, [...box.querySelectorAll('td')].map(texts)]));
})"""


@pytest.fixture
def open_page(browser, tmp_path):
    """open_page(name, **context): a layer's page in a window; fails at the end on anything in the console or fetched."""
    contexts, complaints = [], []

    def open_page(name, **context):
        file = tmp_path / f"{name}.html"
        file.write_text(pages.page(name), "utf-8")
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def cell(page, tensor, n):
    return page.locator(f"[data-tensor='{tensor}'] td").nth(n)


def check(seen, expected, settings):
    """Sums of some 40 terms, their order another one than Python's: 40 roundings of 1e-16 are far below 1e-12."""
    assert set(expected) <= set(seen), settings
    for tensor, numbers in expected.items():
        exact, text = zip(*seen[tensor], strict=True)
        np.testing.assert_allclose([float(v) for v in exact], numbers.ravel(), 1e-12, 1e-12, err_msg=f"{tensor}, {settings}")
        np.testing.assert_allclose([float(v) for v in text], numbers.ravel(), 5.1e-5, 1e-12, err_msg=f"{tensor}, {settings}")


@every_layer
def test_the_script_computes_what_python_does_for_every_setting(open_page, name):
    layer = LAYERS[name]
    combinations = list(itertools.product(*layer.choices.values()))
    places = itertools.product(*(range(len(choices)) for choices in layer.choices.values()))
    page = open_page(name)
    all_seen = page.evaluate(READ_ALL, [dict(zip(layer.choices, chosen, strict=True)) for chosen in places])
    refused = 0
    for values, seen in zip(combinations, all_seen, strict=True):
        settings = dict(zip(layer.choices, values, strict=True))
        try:
            expected = layer.numbers(settings, layer.values)
        except RuntimeError:
            assert seen is None, settings
            refused += 1
        else:
            check(seen, expected, settings)
    assert (refused > 0) == name.endswith("pool2d")


@every_layer
def test_an_edited_number_changes_all_that_follows_and_the_gradients_pass_the_numeric_check(open_page, name):
    layer, page = LAYERS[name], open_page(name)
    tensor = EDITED.get(name, "x")
    same = page.inner_text("[data-checked]")
    assert same.endswith("this page computed them again and got the same.")
    cell(page, tensor, 0).click()
    page.fill("[data-field]", "2.75")
    values = {key: value.copy() for key, value in layer.values.items()}
    values[tensor].flat[0] = 2.75
    (seen,) = page.evaluate(READ_ALL, [{}])
    check(seen, layer.numbers(layer.settings, values), "edited")
    assert page.inner_text("[data-checked]").startswith("Computed on this page")
    page.click("[data-do=measure]")
    lines = page.locator("[data-measured] p").all_inner_texts()
    assert lines and all(": agrees. The largest difference is " in line for line in lines), lines
    assert page.locator(".differs").count() == 0
    page.locator("[data-do=again]").last.click()
    assert page.inner_text("[data-checked]") == same


EDITED = {"SGD": "w", "chain": "w1"}  # others have an x


def test_the_numeric_check_finds_a_wrong_gradient(open_page, tmp_path):
    page = open_page("max_pool2d")
    wrong = pages.page("max_pool2d").replace("return noted(sum(won.map(", "return noted(sum(won.slice(1).map(")
    assert wrong != pages.page("max_pool2d")
    (tmp_path / "max_pool2d.html").write_text(wrong, "utf-8")
    page.reload()
    page.click("[data-do=measure]")
    assert " numbers differ. " in page.inner_text("[data-measured]")
    assert page.locator(".differs").count() > 0
    assert page.inner_text("[data-checked]").endswith("do not trust it.")


def test_at_a_tie_the_numeric_check_says_what_it_measured(open_page):
    page = open_page("max_pool2d")
    cell(page, "x", 0).click()
    page.fill("[data-field]", "23")  # as x[2,0]
    page.click("[data-do=measure]")
    said = page.inner_text("[data-measured]")
    assert re.match(r"gx: (\d+) of (\d+) numbers agree\. ", said), said
    assert "At 2 of them, a tie or a corner, the function has a kink" in said and page.locator(".bends").count() == 2


def test_where_no_row_counts_the_loss_is_nan_the_gradient_0_and_nothing_is_measured(open_page):
    page = open_page("cross_entropy")
    page.select_option("[data-setting=ignore_index]", label="2")
    for row in (0, 2):
        cell(page, "target", row).click()
        page.fill("[data-field]", "2")
    assert cell(page, "loss", 0).inner_text() == "NaN"
    assert set(page.locator("[data-tensor=gx] td").all_inner_texts()) == {"0"}
    page.click("[data-do=measure]")
    assert page.inner_text("[data-measured]") == "It is NaN: there is no slope to measure."


# ------------------------------------------------------------------------------------------------------------ selection


def test_pointing_writes_the_sum_out_and_marks_where_it_comes_from(open_page):
    page = open_page("max_pool2d")
    cell(page, "y", 0).hover()
    assert page.inner_text("[data-say=made]").startswith("y[0,0] = max(x[0,0], x[0,1], x[0,2], x[1,0], x[1,1], ")
    assert page.inner_text("[data-say=made]").endswith("= max(3, 10, 17, 13, 20, 2, 23, 5, 12) = 23.")
    assert page.locator("[data-tensor=x] .source").count() == 9
    cell(page, "x", 5).hover()
    assert page.inner_text("[data-say=used]") == "It goes into y[0,0]."
    assert page.locator("[data-tensor=y] .reader").count() == 1
    cell(page, "x", 5).click()  # holds it
    cell(page, "y", 3).hover()
    assert page.inner_text("[data-say=made]") == "x[1,0] = 13, given."
    page.keyboard.press("Escape")
    cell(page, "y", 2).hover()
    assert page.inner_text("[data-say=made]").startswith("y[1,0] = ")


def test_by_keyboard_alone(open_page):
    page = open_page("max_pool2d")
    page.locator("[data-setting=ceil_mode]").focus()
    page.keyboard.press("Tab")
    assert page.inner_text("[data-say=made]") == "x[0,0] = 3, given."
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.inner_text("[data-say=made]") == "x[2,0] = 23, given."
    page.keyboard.press("-")  # goes into the field
    page.keyboard.type("7.5")
    page.keyboard.press("Enter")
    assert page.inner_text("[data-say=made]") == "x[2,0] = −7.5, given."
    assert page.evaluate("document.activeElement.tagName") == "TD"
    page.keyboard.press("Enter")
    page.keyboard.type("5000")
    assert page.get_attribute("[data-field]", "aria-invalid") == "true"
    assert page.inner_text("[data-limits]") == "a number from −1000 to 1000"
    page.keyboard.press("Escape")
    assert page.inner_text("[data-say=made]").startswith("Point at a number")
    cell(page, "x", 9).hover()
    assert page.inner_text("[data-say=made]") == "x[1,4] = 16, given."
    page.keyboard.press("Enter")  # the cell has the focus still
    assert page.input_value("[data-field]") == "500"  # the last that was a number in the limits
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('[data-tensor]').dataset.tensor") == "y"


# ----------------------------------------------------------------------------------------------------------- appearance

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SMALL = """() => [...document.querySelectorAll('button, select, input, td')].filter((e) => e.checkVisibility()).map(
  (e) => [e.offsetWidth, e.offsetHeight, e.outerHTML]).filter(([w, h]) => w < 44 || h < 44)"""


@every_layer
def test_a_phone_in_the_dark_shows_it_and_fingers_reach_it(open_page, name):
    """Nothing scrolls sideways but tables, targets are 44 px, contrast is 4.5, with a number held and the check made."""
    page = open_page(name, color_scheme="dark", **PHONE)
    page.locator("[data-do=measure]").tap()
    last = page.locator("[data-tensor]").last.get_attribute("data-tensor")
    cell(page, last, 0).tap()
    assert page.inner_text("[data-say=made]").startswith(last)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(SMALL) == []
    assert low_contrast(page, "main *") == []
    cell(page, EDITED.get(name, "x"), 0).tap()
    assert page.evaluate(SMALL) == []
    page.locator("[data-field]").tap()
    page.fill("[data-field]", "1.5")
    assert cell(page, EDITED.get(name, "x"), 0).inner_text() == "1.5"
    page.emulate_media(color_scheme="light")
    assert low_contrast(page, "main *") == []
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("button").evaluate_all("all => all.filter((e) => e.checkVisibility()).length") == 0
    assert low_contrast(page, "main *") == []


def test_the_index_on_a_phone(browser, tmp_path):
    (tmp_path / "index.html").write_text(pages.index(), "utf-8")
    context = browser.new_context(color_scheme="dark", **PHONE)
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert low_contrast(page, "main *") == []
    assert page.locator("a").evaluate_all("links => Math.min(...links.map((link) => link.offsetHeight))") >= 43
    context.close()


# ---------------------------------------------------------------------------------------------------------------- chain


def test_a_chain_speaks_of_its_own_tables(open_page):
    """Its layers are those of the other pages, where the tables have the letters of the formulas."""
    page = open_page("chain")
    tables = set(page.locator("[data-tensor]").evaluate_all("boxes => boxes.map((box) => box.dataset.tensor)"))
    captions = page.locator("figcaption").all_inner_texts()
    letters = {word for text in captions for word in re.findall(r"\bg?[a-z]\d?\b", text)} - {"a", "e"}
    assert {"h", "w2", "gr", "ga"} <= letters <= tables
    page.locator("[data-tensor=ga] td").first.click()
    assert "r is above 0" in page.inner_text("[data-say=made]")


def test_a_chain_learns_as_minidls_sgd_does_step_by_step(open_page):
    """Each step's numbers are Python's; after 14 of them the loss is below 0.05, as docs/laboratory.md says."""
    layer, page = LAYERS["chain"], open_page("chain")
    values, losses = dict(layer.values), []
    for _ in range(14):
        expected = layer.numbers(layer.settings, values)
        (seen,) = page.evaluate(READ_ALL, [{}])
        check(seen, expected, "chain")
        losses.append(float(expected["loss"]))
        values |= {name: expected[f"next_{name}"] for name in ("w1", "b1", "w2", "b2")}
        page.click("[data-take=one]")
    assert losses[0] > 0.5 and losses == sorted(losses, reverse=True)
    assert losses[-1] >= 0.05
    final = float(layer.numbers(layer.settings, values)["loss"])
    assert final < 0.05
    assert page.inner_text("[data-progress]").startswith(f"After 14 steps the loss is {float(f'{final:.5g}')}, which is small.")
    page.click("[data-do=again]")
    assert page.inner_text("[data-progress]").startswith("After 0 steps")
    page.click("[data-take=small]")
    assert page.inner_text("[data-progress]").startswith("After 14 steps the loss is ")
    page.click("[data-take=ten]")
    assert page.inner_text("[data-progress]").startswith("After 24 steps the loss is ")
