"""The explorer in Chromium: every layer is reached, figures are the model's, it fits a phone, it is legible in the dark."""

import importlib
import itertools
import re

import numpy as np
import pytest
from legible import low_contrast
from study_nets import SHAPE, Towers

import minidl
from minidl.study.explorer.steps import steps_page
from minidl.study.models import load_model

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LARGEST = 15_000_000  # bytes of the full AlexNet's page

TOO_WIDE = "() => document.documentElement.scrollWidth - innerWidth"


@pytest.fixture
def folder(small):
    return small.folder, small.data


@pytest.fixture
def alexnet(full_alexnet):
    return full_alexnet.folder


def is_at(window, title):
    """The page shows this heading, or will in a moment: a link's effect comes after its click."""
    importlib.import_module("playwright.sync_api").expect(window.locator("#view h1")).to_have_text(title)


def hash_of(window):
    return window.evaluate("location.hash")


def shown(window, key):
    """A figure on the page as a number; 0 where it is not there."""
    found = window.locator(f"#view .facts [data-figure={key}]")
    return int(re.sub(r"\D", "", found.inner_text())) if found.count() else 0


def press(window, key, times=1):
    for _ in range(times):
        window.keyboard.press(key)


# ------------------------------------------------------------------------------------------------------- getting there


def test_every_layer_by_hash(open_page, folder):
    path, data = folder
    window = open_page(path)
    is_at(window, "Towers, one step")
    for station in data["stations"]:
        for suffix, wanted in (("", "forward"), ("/backward", "backward")):
            window.evaluate("hash => { location.hash = hash }", f"#{station['id']}{suffix}")
            window.wait_for_function("title => document.title.startsWith(title)", arg=f"{station['title']}, {wanted} ")
            is_at(window, station["title"])
            assert wanted in window.locator(".direction [aria-current]").inner_text()
            assert window.evaluate("document.activeElement.tagName") == "H1"


def test_a_link_from_outside(open_page, folder):
    path, data = folder
    number = next(s for s in data["stations"] if s["id"] == "conv1")["ops"][1]
    window = open_page(path, f"#conv1/backward/{number}")
    event = data["events"].index([number, "backward"]) + 1
    assert window.locator("#where").inner_text() == f"{event} of {len(data['events'])}: conv1, tower 1, backward"
    assert window.locator(".op.now").count() == window.locator(".op[aria-current=step]").count() == 1
    assert f"step {event}" in window.locator(".op.now").inner_text()
    is_at(open_page(path, "#no-such-layer"), "Towers, one step")


def test_every_layer_by_click(open_page, folder):
    path, data = folder
    window = open_page(path)
    for station in data["stations"]:
        window.locator(f'#view .network a[href="#{station["id"]}"]').first.click()
        is_at(window, station["title"])
        assert window.locator(".stations [aria-current]").all_inner_texts() == [station["title"]]
        window.locator(".direction a").nth(1).click()
        assert "/backward" in hash_of(window)
        window.locator(".brand").click()
        is_at(window, "Towers, one step")
    links = window.locator(".stations a")
    assert [links.nth(i).inner_text() for i in range(links.count())][1:-1] == [s["title"] for s in data["stations"]]


def test_every_step_by_keyboard(open_page, folder):
    """Right goes through all steps in their order, forward and then backward; left goes back to the overview."""
    path, data = folder
    window = open_page(path)
    titles = {op: s["title"] for s in data["stations"] for op in s["ops"]}
    for i, (op, direction) in enumerate(data["events"], 1):
        press(window, "ArrowRight")
        assert window.locator("#where").inner_text().startswith(f"{i} of {len(data['events'])}: ")
        is_at(window, titles[op])
        assert window.evaluate("document.documentElement.dataset.direction") == direction
    press(window, "ArrowRight")
    assert window.locator("#next").is_disabled()
    press(window, "ArrowLeft", len(data["events"]))
    is_at(window, "Towers, one step")
    assert window.locator("#previous").is_disabled()


def test_other_keys(open_page, folder):
    path, _ = folder
    window = open_page(path, "#norm1")
    press(window, "b")
    assert "/backward" in hash_of(window)
    is_at(window, "norm1")
    press(window, "]")
    is_at(window, "pool1")
    assert "/backward" in hash_of(window)
    press(window, "[")
    press(window, "f")
    is_at(window, "norm1")
    assert "/forward" in hash_of(window)
    press(window, "?")
    assert window.locator("#help").is_visible()
    press(window, "ArrowRight")
    is_at(window, "norm1")  # the dialog has the keys
    press(window, "Escape")
    press(window, "o")
    is_at(window, "Towers, one step")
    window.keyboard.press("Control+ArrowRight")
    is_at(window, "Towers, one step")


def test_keys_in_im2col_are_its_own(open_page, folder):
    window = open_page(folder[0], "#im2col")
    assert window.locator("#im2col").is_visible() and not window.locator("#view").is_visible()
    window.locator("#im2col select").first.focus()
    press(window, "b")
    press(window, "ArrowRight")
    assert hash_of(window) == "#im2col"
    window.locator("#content").focus()
    press(window, "ArrowRight")
    is_at(window, "input")


def test_the_timeline(open_page, folder):
    path, data = folder
    window = open_page(path)
    timeline = window.locator("#timeline")
    assert timeline.get_attribute("max") == str(len(data["events"]))
    timeline.focus()
    press(window, "End")
    is_at(window, "conv1")
    assert window.locator("#next").is_disabled()
    assert timeline.get_attribute("aria-valuetext") == f"step {len(data['events'])}, conv1, backward"
    press(window, "Home")
    is_at(window, "Towers, one step")


def test_touch(open_page, folder):
    window = open_page(folder[0], **PHONE)
    window.locator("#next").tap()
    is_at(window, "input")
    window.locator("#next").tap()
    is_at(window, "conv1")
    box = window.locator("#next").bounding_box()
    assert min(box["width"], box["height"]) >= 44 and box["y"] > 600


def test_back_leads_to_where_a_link_was_followed(open_page, folder):
    window = open_page(folder[0])
    window.locator('#view .network a[href="#pool1"]').first.click()
    press(window, "ArrowRight", 2)
    window.go_back()
    is_at(window, "Towers, one step")


# -------------------------------------------------------------------------------------------------------- what is shown


def test_figures_on_the_page_are_the_model_s(open_page, folder):
    path, data = folder
    window = open_page(path)
    keys = (
        "parameters",
        "neurons",
        "macs_forward",
        "macs_backward",
        "activation",
        "saved",
        "crosses_forward",
        "crosses_backward",
    )
    assert {key: shown(window, key) for key in keys} == {key: data["totals"][key] for key in keys}
    assert shown(window, "parameters") == sum(p.numel() for p in Towers().parameters())
    assert re.search(r"multiply-adds\s+[\d,]+ forward, [\d,]+ backward", window.locator("#view .facts").inner_text())
    for station in data["stations"][1:]:
        window.goto(f"{(path / 'index.html').as_uri()}#{station['id']}")
        is_at(window, station["title"])
        assert {key: shown(window, key) for key in keys} == {key: station[key] for key in keys}
        assert window.locator("#view .facts dd:empty").count() == 0


def test_blobs_code_saved_and_checks(open_page, folder):
    window = open_page(folder[0], "#conv1/backward")
    flow = window.locator(".flow").first.inner_text()
    for text in ("1×3×10×10", "weight", "4×3×3×3", "432 B", "gradient of weight", "cpu:0"):
        assert text in flow
    code = window.locator(".code", has_text="conv2d_backward minidl/ops/conv2d.py")
    short = window.locator(".code.key", has_text="conv2d_backward").last.inner_text()
    assert "gyg.T @ col" in short and short.count("\u25b8") <= 3 and not code.locator("pre").is_visible()
    code.locator("summary").click()
    lines, ran = ("".join(code.locator(lines).all_inner_texts()) for lines in (".line", ".line.ran"))
    assert "gyg.T @ col" in ran and "col2im(gcol" in lines and "col2im(gcol" not in ran  # no gradient of the image
    assert "gcol = gy @ w^T" in window.locator(".formula").inner_text()
    saved = window.locator("#view tbody tr")
    assert saved.count() == 6 and "that of tower1.conv1.weight" in saved.nth(5).inner_text()
    badges = window.locator(".badges li").all_inner_texts()
    assert len(badges) >= 4 and all("relative error" in text and "8 directions, float64" in text for text in badges)
    assert any("tower1.conv1.weight: relative error" in text for text in badges)


def test_pictures_are_enlarged_by_whole_factors(open_page, folder):
    window = open_page(folder[0], "#exchange-after-pool1", viewport={"width": 1240, "height": 900})
    sizes = window.evaluate(
        "[...document.querySelectorAll('.picture')].map((picture) =>"
        " [picture.clientWidth / picture.dataset.width, picture.clientHeight / picture.dataset.height])"
    )
    assert len(sizes) >= 4 and all(across == down == int(across) > 1 for across, down in sizes)


def test_transfers_are_drawn_with_their_bytes(open_page, folder):
    path, _ = folder
    window = open_page(path, "#exchange-after-pool1")
    one_way = 4 * 4 * 4 * 4
    labels = window.locator(".label").all_inner_texts()
    assert len(labels) == 4 and all(text.endswith(f"{one_way} B") for text in labels)
    assert "tower 0 to tower 1" in labels[0] + labels[1]
    drawings = window.locator(".exchange .drawing svg")
    assert [drawings.nth(i).locator("line").count() for i in range(2)] == [4, 4]
    assert [drawings.nth(i).locator(f"line.{hue}").count() for i, hue in enumerate("fb")] == [4, 4]
    window = open_page(path, "#gather-after-drop2")
    assert len(window.locator(".label").all_inner_texts()) == 2


def test_arrows_go_up_where_a_gradient_goes_on(open_page, folder):
    """Up from conv2's box to conv1's, but not from conv1's to the image."""
    window = open_page(folder[0])

    def arrows(name):
        return window.locator(".network li", has=window.locator(f'a[href="#{name}"]')).locator(".wire.up").count()

    assert window.locator('.drawing[data-station="input"] line').count() == 1  # down, to tower 1
    assert [arrows(name) for name in ("conv1", "norm1", "exchange-after-pool1", "fc3")] == [0, 2, 2, 1]


def test_the_loss_in_words(open_page, folder):
    path, data = folder
    window = open_page(path)
    assert float(window.locator("[data-figure=loss]").inner_text()) == pytest.approx(data["loss"]["value"], rel=1e-3)


# -------------------------------------------------------------------------------------------------- sizes and colours


@pytest.mark.parametrize(
    "name", ["", "#input", "#conv1", "#conv1/backward", "#exchange-after-pool1", "#fc3", "#loss/backward", "#im2col"]
)
def test_a_phone_scrolls_only_down(open_page, folder, name):
    window = open_page(folder[0], name, **PHONE)
    assert window.evaluate(TOO_WIDE) == 0
    assert window.evaluate("innerWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["", "#conv1", "#conv1/backward", "#exchange-after-pool1/backward", "#im2col"])
def test_text_has_contrast(open_page, folder, scheme, name):
    window = open_page(folder[0], name, color_scheme=scheme)
    dark = window.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert low_contrast(window) == []


def test_headings_names_and_alternatives(open_page, folder):
    window = open_page(folder[0], "#conv1/backward")
    levels = window.evaluate(
        "[...document.querySelectorAll('#view h1, #view h2, #view h3, #view h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert window.locator("img:not([alt])").count() == 0
    assert window.evaluate(
        "[...document.querySelectorAll('button, input, a')].every((e) => /[a-z]/i.test(e.ariaLabel || e.textContent))"
    )
    ids = window.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    press(window, "Tab")
    style = window.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"


# ------------------------------------------------------------------------------------------------------ the full AlexNet


def test_alexnet(open_page, alexnet):
    """The paper's figures, in a page that is not too large."""
    assert (alexnet / "index.html").stat().st_size < LARGEST
    window = open_page(alexnet)
    assert shown(window, "parameters") == sum(p.numel() for p in load_model("alexnet").parameters()) == 60_965_224
    assert (shown(window, "neurons"), shown(window, "macs_forward")) == (659_272, 724_406_816)
    assert shown(window, "macs_forward") + shown(window, "macs_backward") == 2_067_805_248
    assert shown(window, "crosses_forward") == shown(window, "crosses_backward") == 234_496
    assert window.locator('.drawing[data-station="input"] line').count() == 2  # down to each tower, none up
    links = window.locator(".network a")
    names = dict.fromkeys(links.nth(i).get_attribute("href") for i in range(links.count()))
    assert list(names)[1:8] == ["#conv1", "#norm1", "#pool1", "#conv2", "#norm2", "#pool2", "#exchange-after-pool2"]
    for name in names:
        window.evaluate("hash => { location.hash = hash }", f"{name}/backward")
        window.wait_for_function("name => document.querySelector('.stations [aria-current]').hash === name", arg=name)
        assert window.locator(".panel").count() >= 1


@pytest.mark.parametrize("name", ["", "#conv2/backward", "#exchange-after-pool2", "#fc6", "#norm1"])
def test_alexnet_on_a_phone(open_page, alexnet, name):
    assert open_page(alexnet, name, **PHONE).evaluate(TOO_WIDE) == 0


def test_a_number_that_was_left_out_says_so(open_page, alexnet):
    """fc6's weights outside the window: by address, and as the number that a gradient is of."""
    window = open_page(alexnet, "#tower0.fc6.weight[100,5000]")
    window.locator("#unknown", has_text="The page does not carry tower0.fc6.weight[100, 5000]").wait_for()
    window = open_page(alexnet, "#gradient of tower0.fc6.weight[100,5000]")
    panel = window.locator("#why", has_text="Its number: tower0.fc6.weight[100, 5000], which the page does not carry")
    panel.wait_for()
    assert "1 term." in panel.inner_text() and "largest first" not in panel.inner_text()


def test_a_window_moves_over_a_matrix_that_is_too_large(open_page, alexnet):
    """The gradient of fc6's weights is computed number by number; of the weights themselves one window came along."""
    window = open_page(alexnet, "#fc6/backward")
    window.locator(".tensor", has_text="Gradient of tower0.fc6.weight").scroll_into_view_if_needed()
    tensor = window.locator(".tensor", has_text="Gradient of tower0.fc6.weight")
    tensor.locator("[data-drawn]").wait_for()
    tensor.get_by_role("button", name="window right").click()
    tensor.get_by_role("button", name="window down").click()
    tensor.locator("figcaption", has_text="rows 64 to 127 and columns 64 to 127").wait_for()
    tensor.locator(".picture").focus()
    press(window, "Enter")
    window.wait_for_selector("#why[data-answered$='.64.64']")
    assert "gw[o,k] = gy[o]" in window.locator("#why").inner_text()
    tensor.locator("canvas.blocks").click()
    tensor.locator("figcaption", has_text=re.compile("rows 9[89]. to")).wait_for()


# --------------------------------------------------------------------------------------------- finding one's way, and paper


def test_stepping_keeps_the_section(open_page, folder):
    window = open_page(folder[0], "#conv1", viewport={"width": 1300, "height": 700})
    window.locator("section[data-part=Tensors] h2").scroll_into_view_if_needed()
    window.evaluate("document.querySelector('section[data-part=Tensors]').scrollIntoView()")
    press(window, "b")
    is_at(window, "conv1")
    window.wait_for_selector("section[data-part=Gradients]")
    press(window, "]")
    is_at(window, "norm1")
    top = window.evaluate("document.querySelector('section[data-part=Gradients]').getBoundingClientRect().top")
    assert -5 <= top <= 150


@pytest.mark.parametrize("device", [{}, PHONE])
def test_layers_can_be_searched(open_page, folder, device):
    window = open_page(folder[0], "#norm1/backward", **device)
    window.locator("#layers").click()
    assert window.locator("#find-list li").count() == len(folder[1]["stations"]) + 2
    window.locator("#find-text").fill("max_pool")
    assert window.locator("#find-list b").all_inner_texts() == ["pool1"]
    window.locator("#find-list a").click()
    is_at(window, "pool1")
    assert hash_of(window) == "#pool1/backward" and not window.locator("#find").is_visible()
    press(window, "/")
    window.locator("#find-text").fill("no such thing")
    assert window.locator("#find-none").is_visible()


def test_colours_can_be_chosen(open_page, folder):
    window = open_page(folder[0], "#conv1")
    backgrounds = []
    for name in ("light", "dark", "system"):
        window.locator("#theme").click()
        assert name in window.locator("#theme").get_attribute("aria-label")
        backgrounds.append(window.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert backgrounds[0] == backgrounds[2] == "rgb(255, 255, 255)" != backgrounds[1]


@pytest.mark.parametrize("name", ["#no-such-layer", "#conv1/sideways", "#%E0%A4%A", "#conv1/forward/1/why/9"])
def test_an_unknown_address_says_so(open_page, folder, name):
    window = open_page(folder[0], name)
    is_at(window, "Towers, one step")
    assert "Nothing here has the address" in window.locator("#unknown").inner_text()
    window.locator("#view .network a").first.click()
    window.locator("#unknown").wait_for(state="hidden")


def test_buttons_are_large_enough_for_a_finger(open_page, folder):
    window = open_page(folder[0], "#conv1", **PHONE)
    small = window.evaluate(
        """() => [...document.querySelectorAll('button, .direction a')].filter((e) => e.checkVisibility()).filter((e) => {
          const { width, height } = e.getBoundingClientRect();
          return width < 44 || height < 44;
        }).map((e) => e.id || e.textContent)"""
    )
    assert small == []


def test_paper_has_what_is_read_and_no_bar(open_page, folder):
    window = open_page(folder[0], "#conv1")
    window.emulate_media(media="print")
    assert not window.locator(".bar").is_visible() and window.locator(".formula").first.is_visible()
    assert window.evaluate("getComputedStyle(document.querySelector('.tensor')).breakInside") == "avoid"
    assert len(window.pdf()) > 10_000


# -------------------------------------------------------------------------------------------- formulas, the loss, one map


def test_formulas_are_mathematics_and_text(open_page, folder):
    window = open_page(folder[0], "#conv1/backward")
    formula = window.locator(".formula").first
    assert formula.locator("math").count() >= 3 and "gw = col^T @ gy" in " ".join(formula.inner_text().split())
    sum_of = window.evaluate("Formulas.mathml('y[i] = sum over j of a[i,j] * x[j]^2')")
    assert sum_of == (
        '<math display="block"><mrow><msub><mi>y</mi><mrow><mrow><mi>i</mi></mrow></mrow></msub><mo>=</mo>'
        "<munder><mo>\u2211</mo><mtext>j</mtext></munder><msub><mi>a</mi><mrow><mrow><mi>i</mi><mo>,</mo><mi>j</mi></mrow></mrow></msub>"
        "<mo>\u00b7</mo><msubsup><mi>x</mi><mrow><mrow><mi>j</mi></mrow></mrow><mn>2</mn></msubsup></mrow></math>"
    )
    prose = ["gx = the inside of gy", "no formula", "y = x, copied from the source", "y = (x", "y = <script>", "y = x ` z"]
    assert window.evaluate("texts => texts.map(Formulas.mathml)", prose) == [None] * 4 + [prose_in_tags(), None]


def prose_in_tags():
    """What looks like a tag is text."""
    return '<math display="block"><mrow><mi>y</mi><mo>=</mo><mo>&lt;</mo><mi>script</mi><mo>&gt;</mo></mrow></math>'


def test_the_loss_class_by_class(open_page, folder):
    path, data = folder
    window = open_page(path, "#loss")
    rows = window.locator(".classes tbody tr")
    rows.first.wait_for()
    assert rows.count() == 5 and rows.filter(has_text="(true)").locator("th").inner_text() == "class 2 (true)"
    cells = [[text.replace("\u2212", "-") for text in rows.nth(i).locator("td").all_inner_texts()] for i in range(5)]
    p, t, gradient = ([float(row[k]) for row in cells] for k in (1, 2, 3))
    assert p == sorted(p, reverse=True) and sum(p) == pytest.approx(1, abs=1e-3) and sum(gradient) == pytest.approx(0, abs=1e-3)
    assert gradient == pytest.approx([a - b for a, b in zip(p, t, strict=True)], abs=1e-3)
    lse, score = (float(text) for text in (window.locator("[data-key=lse]").inner_text(), cells[t.index(1.0)][0]))
    assert lse - score == pytest.approx(data["loss"]["value"], abs=1e-3)
    lines = window.locator("section[data-part=Data] .plumbing > summary").all_inner_texts()
    assert lines[0] == "permute, reshape: the numbers stay as they are" and "sum of one number, mul by 1" in lines[1]


def test_a_concat_says_what_it_joins(open_page, folder):
    window = open_page(folder[0], "#exchange-after-pool1")
    assert "of pool1, tower 0 and pool1, tower 1" in window.locator(".op", has_text="concat").first.inner_text()


def zoomed(window, slot):
    picture = window.locator(f".picture[data-slot='{slot}']")
    picture.scroll_into_view_if_needed()
    window.locator(f".picture[data-slot='{slot}'][data-drawn]").wait_for()
    picture.focus()
    press(window, "z")
    window.wait_for_selector("#zoom[open]")
    return window.locator("#zoom")


def test_one_map_with_its_numbers(open_page, folder):
    path, data = folder
    op = next(i for i, op in enumerate(data["ops"]) if op["layer"] == "tower0.pool1")
    window = open_page(path, "#pool1")
    zoom = zoomed(window, f"{op}.x0")
    assert "map [0, 0] of 1×4×8×8" in zoom.locator("[data-part=title]").inner_text()
    assert "Arrows" in zoom.locator("[data-part=words]").inner_text()
    size = zoom.locator("canvas").bounding_box()["width"]
    press(window, "-")
    assert zoom.locator("canvas").bounding_box()["width"] < size
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "PageDown"):
        press(window, key)
    assert zoom.locator("[data-part=said]").inner_text().startswith("tower0.norm1.output[0, 1, 2, 1] = ")
    press(window, "Enter")
    window.wait_for_selector("#why[data-answered]")
    assert not zoom.is_visible() and "tower0.norm1.output[0, 1, 2, 1]" in window.locator("#why").inner_text()


@pytest.mark.parametrize(
    ("layer", "slot", "words"),
    [
        ("conv1", "y", "gate is shut"),
        ("drop2", "y", "silenced by the mask"),
        ("norm1", "x0", "3 channels around it"),
        ("pool1", "y", ""),
        ("fc2", "x1", ""),
    ],
)
def test_what_makes_backward_work_is_drawn(open_page, folder, layer, slot, words):
    path, data = folder
    op = next(i for i, op in enumerate(data["ops"]) if op["layer"] == f"tower0.{layer}")
    window = open_page(path, f"#{layer}")
    zoom = zoomed(window, f"{op}.{slot}")
    assert words in zoom.locator("[data-part=words]").inner_text()
    if layer == "norm1":
        zoom.locator("[data-part=side]").click()
        assert "d = " in zoom.locator("[data-part=said]").inner_text()


# ---------------------------------------------------------------------------------------------------- what a machine can judge


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["", "#conv1", "#conv1/backward", "#loss", "#fc2/backward/12/why/12.g0.0.3", "zoom", "find"])
def test_axe_finds_nothing_serious(open_page, folder, scheme, name):
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    window = open_page(folder[0], name if name.startswith("#") else "#norm1", color_scheme=scheme)
    if name == "zoom":
        window.locator(".zoom").first.click()
        window.wait_for_selector("#zoom[open]")
    elif name == "find":
        window.locator("#layers").click()
    elif "why" in name:
        window.wait_for_selector("#why[data-answered]")
    found = [v for v in axe.run(window).response["violations"] if v["impact"] in ("serious", "critical")]
    assert found == [], [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in found]


@pytest.fixture
def compared(tmp_path):
    """A folder whose page is of two steps side by side."""
    networks = []
    for step in (0, 50):
        minidl.manual_seed(step)
        networks.append((f"step {step}", Towers()))
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    steps_page(networks, image, 2, notes=["A note."]).save(tmp_path).rename(tmp_path / "index.html")
    return tmp_path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_steps_side_by_side_are_legible_and_axe_finds_nothing_serious(open_page, compared, scheme):
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    window = open_page(compared, color_scheme=scheme)
    window.wait_for_selector("#view[data-drawn]")
    assert low_contrast(window) == []
    found = [v for v in axe.run(window).response["violations"] if v["impact"] in ("serious", "critical")]
    assert found == [], [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in found]
    box = window.locator(".choice").bounding_box()
    assert box["height"] >= 44


def test_steps_side_by_side(open_page, compared):
    window = open_page(compared, **PHONE)
    window.wait_for_selector("#view[data-drawn]")
    assert window.locator("thead th").all_inner_texts()[1].startswith("step 0")
    assert window.locator("tbody tr").count() == 2 * 4 and window.locator("tbody td > canvas").count() == 16
    assert window.evaluate(TOO_WIDE) == 0
    ramps = window.locator("tbody tr").nth(1).locator(".ramp")
    before = ramps.all_inner_texts()
    window.locator("#shared").check()
    after = ramps.all_inner_texts()
    assert before[0] != before[1] and after[0] == after[1]
