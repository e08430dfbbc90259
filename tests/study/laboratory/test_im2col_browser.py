"""The im2col section in Chromium: its script computes what Python does; mouse, keys and touch reach everything."""

import itertools
import json
import re

import numpy as np
import pytest

from minidl import shapes
from minidl.study.laboratory import im2col

pytestmark = pytest.mark.browser

DEFAULT = {"height": 5, "width": 5, "channels": 1, "kernel": 3, "stride": 1, "padding": 1, "dilation": 1}
NAMES = ["kernel", "stride", "padding", "dilation", "channels"]
SETTINGS = list(itertools.product((1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2), (1, 2)))

# Every number that the tables show, in the order of numbers(): what a reader sees, not what the script holds. null where the
# tables are hidden and the reason is shown instead.
READ = """() => {
  const [tables, reason] = ['.ic-all', '.ic-none'].map((name) => document.querySelector(name).checkVisibility());
  if (tables === reason) throw new Error(`tables shown: ${tables}, the reason for none shown: ${reason}`);
  if (reason) return null;
  const whole = (td) => Number(td.querySelector('.ic-v').textContent.replace('−', '-'));
  const cells = (selector) => [...document.querySelectorAll(selector)];
  const matrix = (name, from, to) => cells(`[data-table=${name}] tbody tr`).map(
    (row) => [...row.querySelectorAll('td')].map(whole).slice(from, to));
  const image = (name) => {  // tables of channels -> pixels, channels last
    const tables = cells(`[data-planes=${name}] table`).map((t) => [...t.querySelectorAll('td')]);
    return tables[0].flatMap((_, n) => tables.map((t) => t[n]));
  };
  return {
    col: matrix('col', 0, -1), y: image('y').map(whole), gy: image('gy').map(whole), gcol: matrix('gcol', 1),
    gw: image('gw').map(whole), gx: image('gx').map(whole),
    copies: image('gx').map((td) => Number(td.querySelector('.ic-copies').textContent.split('/')[1])),
    beside: {y: matrix('col', -1).flat(), gy: matrix('gcol', 0, 1).flat()},
    x: image('x').map(whole), w: cells('[data-table=col] thead td').map(whole),
  };
}"""
CHANGE = """(settings) => {
  for (const [name, value] of Object.entries(settings)) {
    const select = document.querySelector(`[data-setting=${name}]`);
    if (select.value === String(value)) continue;
    select.value = value;
    select.dispatchEvent(new Event('change', {bubbles: true}));
  }
}"""


@pytest.fixture
def open_page(browser, tmp_path):
    """open_page(html=None, clock=False, **context): the section's page in a browser window; fails at the end on anything in the
    console. With a clock, time stands still unless the test advances it."""
    contexts, complaints = [], []

    def open_page(html=None, clock=False, **context):
        file = tmp_path / "im2col.html"
        file.write_text(im2col.page() if html is None else html, "utf-8")
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        if clock:
            page.clock.install(time=0)
            page.clock.pause_at(1)
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def cell(page, where, row, column):
    """A cell of a table's body, rows and columns without headings."""
    return page.locator(f"{where} tbody tr").nth(row).locator("td").nth(column)


def marked(page, where, name="ic-on"):
    """(row, column) of the marked cells of a table's body."""
    return page.evaluate(
        """([where, name]) => [...document.querySelectorAll(`${where} tbody tr`)].flatMap((tr, r) =>
        [...tr.querySelectorAll('td')].flatMap((td, c) => td.classList.contains(name) ? [[r, c]] : []))""",
        [where, name],
    )


X, COL, Y = "[data-planes=x]", "[data-table=col]", "[data-planes=y]"
GX, GCOL, GY, GW = "[data-planes=gx]", "[data-table=gcol]", "[data-planes=gy]", "[data-planes=gw]"


def said(page):
    return page.inner_text(".ic-say-forward"), page.inner_text(".ic-say-backward")


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("height, width, first, every", [(5, 5, 0, 2), (5, 5, 1, 2), (3, 6, 0, 5), (8, 4, 0, 5)])
def test_the_script_computes_what_python_does_for_every_setting(open_page, height, width, first, every):
    """Every setting of one image; of the others every fifth, which meets each value of each setting."""
    page = open_page(im2col.page(height=height, width=width))
    refused = 0
    for values in SETTINGS[first::every]:
        settings = {"height": height, "width": width, **dict(zip(NAMES, values, strict=True))}
        page.evaluate(CHANGE, dict(zip(NAMES, values, strict=True)))
        seen = page.evaluate(READ)
        if shapes.span(settings["kernel"], settings["dilation"]) > min(height, width) + 2 * settings["padding"]:
            assert seen is None, settings
            refused += 1
            continue
        expected = im2col.numbers(settings)
        assert {name: seen[name] for name in expected} == expected, settings
        assert seen["beside"] == {"y": expected["y"], "gy": expected["gy"]}, settings
        assert np.array(expected["col"]) @ seen["w"] == pytest.approx(expected["y"]), settings
    assert (refused > 0) == (min(height, width) < 5)  # the widest kernel spans 5 pixels


def test_a_kernel_that_does_not_fit_is_refused_in_conv2ds_words(open_page):
    page = open_page(im2col.page(height=3, width=6))
    page.evaluate(CHANGE, {"dilation": 2, "padding": 0})
    assert page.inner_text(".ic-none") == "conv2d: the kernel spans 5 along H, the padded input has 3."
    page.evaluate(CHANGE, {"padding": 1})
    assert page.is_visible(".ic-all")


def test_the_page_says_whether_it_computes_what_python_did(open_page):
    page = open_page()
    same = "These numbers were computed in Python by minidl.ops.conv2d; this page computed them again and got the same."
    assert page.inner_text(".ic-checked") == same
    page.select_option("[data-setting=stride]", "2")
    assert page.inner_text(".ic-checked") == "Computed on this page, by the rules of minidl.ops.conv2d."
    page.select_option("[data-setting=stride]", "1")
    assert page.inner_text(".ic-checked") == same


@pytest.mark.parametrize("name", ["col", "y", "gcol", "gw", "gx", "copies"])
def test_the_page_says_when_one_number_differs(open_page, name):
    html = im2col.page()
    (text,) = re.findall(r"data-numbers>(.*?)</script>", html)
    data = json.loads(text)
    values = data["python"][name]
    while isinstance(values[0], list):
        values = values[7]
    values[-1] += 1
    page = open_page(html.replace(text, json.dumps(data)))
    assert page.inner_text(".ic-checked").endswith("do not trust it.")


# ----------------------------------------------------------------------------------------------------------- selection

PATCH = [[r, c] for r in (1, 2, 3) for c in (2, 3, 4)]  # under y[1,2], in the padded image
ROW = 7  # of col, for y[1,2]


def marks_the_patch_of_y12(page):
    return (
        marked(page, X) == marked(page, GX) == PATCH
        and marked(page, COL) == [[ROW, c] for c in range(10)]
        and marked(page, GCOL) == [[ROW, c] for c in range(10)]
        and marked(page, Y) == marked(page, GY) == [[1, 2]]
        and marked(page, GW) == [[u, v] for u in range(3) for v in range(3)]
        and page.locator("thead .ic-on").count() == 2 * 9
    )


@pytest.mark.parametrize("where, row, column", [(Y, 1, 2), (GY, 1, 2), (COL, ROW, 4), (COL, ROW, 9), (GCOL, ROW, 0)])
def test_an_output_pixel_or_its_row_marks_its_patch(open_page, where, row, column):
    page = open_page()
    page.locator("[data-setting=kernel]").hover()
    assert marked(page, X) == []
    cell(page, where, row, column).hover()
    assert marks_the_patch_of_y12(page)
    assert "y[1,2] = 6·1 + 1·2 + 6·(−1) + 1·3 + 8·(−1) + 5·2 + 2·(−2) + 1·1 + 0·4 = 4" in said(page)[0]


def test_a_pixel_marks_every_place_that_it_was_copied_to(open_page):
    page = open_page()
    cell(page, X, 2, 3).hover()
    entries = [[r, k] for r in range(25) for k in range(9) if (r // 5 + k // 3, r % 5 + k % 3) == (2, 3)]
    assert len(entries) == 9
    assert [e for e in marked(page, COL) if e[1] < 9] == entries
    assert [e for e in marked(page, GCOL) if e[1] > 0] == [[r, k + 1] for r, k in entries]
    assert marked(page, X) == marked(page, GX) == [[2, 3]]
    assert marked(page, Y) == marked(page, GY) == [[r, c] for r in (0, 1, 2) for c in (1, 2, 3)]
    forward, backward = said(page)
    assert "x[1,2] = 8 is copied into 9 rows of col, for y[0,1] y[0,2] y[0,3] y[1,1]" in forward
    total = im2col.numbers(DEFAULT)["gx"][2 * 7 + 3]
    assert f" = {total}: one term for each copy.".replace("-", "−") in backward


def test_a_weight_marks_its_column(open_page):
    page = open_page()
    page.select_option("[data-setting=stride]", "2")
    page.locator(f"{COL} thead td").nth(5).hover()
    assert [e for e in marked(page, COL) if e[1] < 9] == [[r, 5] for r in range(9)]
    assert marked(page, X) == [[1 + 2 * i, 2 + 2 * j] for i in range(3) for j in range(3)]
    assert marked(page, GW) == [[1, 2]]
    assert said(page)[0] == "Forward: Column 5 of col: for every output pixel the pixel that meets w[1,2] = 2."
    assert page.locator(f"{GW} .ic-chosen .ic-v").inner_text() in said(page)[1]


def test_an_entry_says_where_it_comes_from_and_goes(open_page):
    page = open_page()
    cell(page, COL, ROW, 4).hover()
    forward, backward = said(page)
    assert forward.startswith("Forward: col[7,4] is a copy of x[1,2] = 8; it meets w[1,1].")
    assert backward == "Backward: gcol[7,4] = gy[1,2]·w[1,1] = 2·(−1) = −2, added to gx[1,2]."
    assert marked(page, X, "ic-chosen") == marked(page, GX, "ic-chosen") == [[2, 3]]
    cell(page, GCOL, 0, 1).hover()
    assert said(page)[0].startswith("Forward: col[0,0] is a copy of x[−1,−1] = 0, padding; it meets w[0,0].")
    assert said(page)[1].endswith("added to gx[−1,−1], padding: cut off at the end.")


def test_a_pixel_that_no_patch_reads_says_so(open_page):
    page = open_page(im2col.page(kernel=2, stride=3, padding=0))
    cell(page, X, 2, 2).hover()
    assert said(page)[0] == "Forward: x[2,2] = 1 is in no patch: no output reads it."
    assert said(page)[1] == "Backward: gx[2,2] = nothing = 0."
    assert marked(page, COL) == []


def test_tables_are_headed_by_what_the_texts_call_their_cells(open_page):
    page = open_page()
    headings = lambda where: page.locator(f"{where} th").all_inner_texts()
    sides = ["−1", *map(str, range(6))]
    assert headings(X) == headings(GX) == ["", *sides, *sides]
    assert headings(Y) == headings(GY) == ["", *map(str, [*range(5), *range(5)])]
    taps = [f"{u},{v}" for u in range(3) for v in range(3)]
    rows = [f"{r}: {r // 5},{r % 5}" for r in range(25)]
    assert headings(COL) == ["u,v", *taps, "", "w", "y", *rows]
    assert headings(GCOL) == ["u,v", "", *taps, "w", "gy", *rows]


def test_channels_have_tables_of_their_own(open_page):
    page = open_page(im2col.page(channels=2, kernel=2))
    assert page.locator(f"{X} table").count() == page.locator(f"{GX} table").count() == 2
    assert page.locator(f"{COL} thead th").nth(2).inner_text() == "0,0,1"
    page.locator(f"{X} table").nth(1).locator("td").nth(8).hover()
    assert "x[0,0,1] = 5 " in said(page)[0]
    assert {c % 2 for _, c in marked(page, COL) if c < 8} == {1}


def test_by_keyboard(open_page):
    page = open_page()
    page.evaluate("document.addEventListener('keydown', (e) => { window.reached = (window.reached ?? '') + e.key + ' '; })")
    page.locator("[data-setting=channels]").focus()
    page.keyboard.press("Tab")  # the table of x
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert "x[1,2] = 8" in said(page)[0]
    assert page.evaluate("document.activeElement.tagName") == "TD"
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert "x[0,1]" in said(page)[0]
    for _ in range(3):
        page.keyboard.press("ArrowUp")  # stops at the border
    assert "x[−1,1]" in said(page)[0]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert said(page)[0].startswith("Forward: Column 1 of col")
    page.keyboard.press("Shift+Tab")
    assert "x[−1,1]" in said(page)[0]  # where it was
    assert page.evaluate("window.reached").split() == ["Tab", "Tab", "Shift", "Tab"]  # arrows stay inside
    page.keyboard.press("Escape")
    assert marked(page, X) == [] and said(page)[0] == "Forward: point at a number of x, col or y."


def test_every_table_is_one_stop_for_the_tabulator(open_page):
    page = open_page()
    stops = page.evaluate("[...document.querySelectorAll('table')].map(t => t.querySelectorAll('[tabindex=\"0\"]').length)")
    assert stops == [1] * 7


def test_by_touch(open_page):
    page = open_page(has_touch=True, viewport={"width": 360, "height": 740})
    cell(page, Y, 1, 2).tap()
    assert marks_the_patch_of_y12(page)
    cell(page, X, 2, 3).tap()
    assert marked(page, X) == [[2, 3]]
    page.keyboard.press("Escape")
    assert marked(page, X) == []
    cell(page, X, 2, 3).tap()  # which still has the focus
    assert marked(page, X) == [[2, 3]]
    page.locator("[data-step=first]").tap()
    assert page.inner_text(".ic-progress") == "Step 0 of 9: gx is zero."


def test_a_matrix_scrolls_to_the_marked_row_and_the_page_does_not(open_page):
    page = open_page()
    box = page.locator(COL)
    assert box.evaluate("box => box.scrollTop") == 0
    cell(page, Y, 4, 4).hover()
    assert box.evaluate("box => box.scrollTop") > 0
    inside = """box => {  // below the head, which stays at the top
        const [b, r, head] = [box, box.querySelector('tbody .ic-on'), box.querySelector('thead')].map(
            e => e.getBoundingClientRect());
        return Math.abs(head.top - b.top) < 1 && r.top >= head.bottom - 1 && r.bottom <= b.bottom + 1;
    }"""
    assert box.evaluate(inside) and page.locator(GCOL).evaluate(inside)
    for row, column in itertools.product(range(5), range(5)):
        cell(page, Y, row, column).hover()
        assert box.evaluate(inside), (row, column)
    assert page.evaluate("scrollY") == 0


# --------------------------------------------------------------------------------------------------------------- steps


def parts(order, rows, columns, channels):
    """For each step the entries (row, column) that it adds."""
    if order == "tap":
        taps = [range(k, k + channels) for k in range(0, columns, channels)]
        return [[(r, k) for r in range(rows) for k in some] for some in taps]
    patches = [[(r, k) for k in range(columns)] for r in range(rows)]
    return patches if order == "patch" else [[entry] for patch in patches for entry in patch]


@pytest.mark.parametrize("order", ["tap", "patch", "number"])
def test_every_step_adds_its_part_of_gcol(open_page, order):
    """Small enough that every one of its steps is looked at: 4 x 4 pixels with padding, 2 channels, 4 patches of 2 x 2."""
    settings = {"height": 2, "width": 2, "channels": 2, "kernel": 2, "stride": 2, "padding": 1, "dilation": 1}
    expected = im2col.numbers(settings)
    page = open_page(im2col.page(**settings))
    page.select_option("[data-order]", order)
    gcol, source = np.array(expected["gcol"]), sources(settings)
    gx, copies = np.zeros(32, int), np.zeros(32, int)
    steps = parts(order, *gcol.shape, channels=2)
    for number, step in enumerate(steps, 1):
        page.click("[data-step=next]")
        for r, k in step:
            gx[source[r, k]] += gcol[r, k]
            copies[source[r, k]] += 1
        seen = page.evaluate(READ)
        assert seen["gx"] == gx.tolist(), number
        assert page.evaluate(COPIES) == copies.tolist(), number
        assert page.inner_text(".ic-progress").startswith(f"Step {number} of {len(steps)}: ")
        if number < len(steps):
            assert [(r, k - 1) for r, k in marked(page, GCOL, "ic-now")] == sorted(step)
            assert len(marked(page, GCOL, "ic-added")) == sum(map(len, steps[:number]))
    assert gx.tolist() == expected["gx"] and copies.tolist() == expected["copies"]


COPIES = """() => {
  const tables = [...document.querySelectorAll('[data-planes=gx] table')].map((t) => [...t.querySelectorAll('.ic-copies')]);
  return tables[0].flatMap((_, n) => tables.map((t) => Number(t[n].textContent.split('/')[0])));
}"""


def sources(s):
    """The number of the padded pixel behind each entry of col."""
    size = s["height"] + 2 * s["padding"]
    numbered = np.arange(size * size * s["channels"]).reshape(1, size, size, s["channels"])
    k = s["kernel"]
    col = im2col.im2col(numbered, (k, k), (s["stride"],) * 2, (s["dilation"],) * 2)
    return col.reshape(-1, k * k * s["channels"])


def test_a_step_says_the_line_of_code_that_it_is(open_page):
    page = open_page(im2col.page(stride=2, dilation=2, padding=2))
    page.click("[data-step=first]")
    for _ in range(6):
        page.click("[data-step=next]")
    assert page.inner_text(".ic-progress") == (
        "Step 6 of 9: gx[:, 2:7:2, 4:9:2] += gcol[:, :, :, 1, 2], rows and columns counted with the padding."
    )
    cells = marked(page, GX, "ic-now")
    assert cells == [[r, c] for r in (2, 4, 6) for c in (4, 6, 8)]
    shown = page.locator(f"{GX} .ic-now .ic-change").all_inner_texts()
    gcol = im2col.numbers({"height": 5, "width": 5, "channels": 1, "kernel": 3, "stride": 2, "padding": 2, "dilation": 2})[
        "gcol"
    ]
    assert [int(text.replace("−", "-")) for text in shown] == [row[5] for row in gcol]
    page.click("[data-step=last]")
    assert page.inner_text(".ic-progress") == "Step 9 of 9: all 81 numbers of gcol are added. A pixel was copied 0 to 9 times."
    assert marked(page, GX, "ic-now") == marked(page, GCOL, "ic-added") == []


def test_the_other_orders_say_what_they_add(open_page):
    page = open_page()
    page.select_option("[data-order]", "patch")
    page.click("[data-step=next]")
    page.click("[data-step=next]")
    assert page.inner_text(".ic-progress") == "Step 2 of 25: row 1 of gcol goes to the patch under y[0,1]."
    page.select_option("[data-order]", "number")
    page.click("[data-step=next]")
    assert page.inner_text(".ic-progress") == "Step 1 of 225: gx[−1,−1] += gcol[0,0], which is 1."


def test_steps_by_keyboard(open_page):
    page = open_page()
    page.evaluate("document.addEventListener('keydown', (e) => { window.reached = (window.reached ?? '') + e.key + ' '; })")
    page.locator("[data-step=first]").focus()
    for key, step in (("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 9)):
        page.keyboard.press(key)
        assert page.inner_text(".ic-progress").startswith(f"Step {step} of 9"), key
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".ic-progress").startswith("Step 9 of 9")
    assert page.evaluate("window.reached") is None
    page.locator("[data-order]").focus()
    page.keyboard.press("End")  # the list's own key: its last entry
    assert page.inner_text(".ic-progress") == "Step 0 of 225: gx is zero."
    page.keyboard.press("Home")
    page.locator("[data-step=last]").click()
    disabled = {name: page.get_attribute(f"[data-step={name}]", "aria-disabled") for name in ("first", "back", "next", "last")}
    assert disabled == {"first": "false", "back": "false", "next": "true", "last": "true"}


def test_play_goes_on_by_itself_pauses_and_ends(open_page):
    page = open_page(clock=True)
    page.click("[data-step=play]")  # from the end it begins again
    assert page.inner_text(".ic-progress") == "Step 0 of 9: gx is zero."
    page.clock.run_for(300 + 2 * 900)
    assert page.inner_text(".ic-progress").startswith("Step 3 of 9")
    page.click("[data-step=play]")
    page.clock.run_for(10_000)
    assert page.inner_text(".ic-progress").startswith("Step 3 of 9")
    assert page.inner_text("[data-step=play]") == "play"
    page.click("[data-step=play]")
    assert page.inner_text("[data-step=play]") == "pause"
    page.click("[data-step=back]")  # whoever steps has stopped it
    page.clock.run_for(10_000)
    assert page.inner_text(".ic-progress").startswith("Step 2 of 9")
    page.click("[data-step=play]")
    page.clock.run_for(10_000)
    assert page.inner_text(".ic-progress").startswith("Step 9 of 9")
    assert page.inner_text("[data-step=play]") == "play"
    page.click("[data-step=play]")
    page.select_option("[data-setting=kernel]", "2")  # stops it
    assert page.inner_text("[data-step=play]") == "play"
    page.clock.run_for(10_000)
    assert page.inner_text(".ic-progress").startswith("Step 4 of 4")


# ---------------------------------------------------------------------------------------------------------- appearance


@pytest.mark.parametrize("settings", [{}, {"channels": 2, "padding": 2, "kernel": 1}])
def test_a_phone_shows_it_without_scrolling_sideways(open_page, settings):
    page = open_page(im2col.page(**settings), viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    small = page.evaluate(
        """[...document.querySelectorAll('button, select, tbody td')].filter(e => e.getBoundingClientRect().height < 24
        || e.getBoundingClientRect().width < 24).length"""
    )
    assert small == 0  # the least size of a target, WCAG 2.2


CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colours) => { // painted one over the other
    canvas.fillStyle = '#ffffff'; canvas.fillRect(0, 0, 1, 1);
    for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (c) => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const grounds = (e) => e ? [...grounds(e.parentElement), getComputedStyle(e).backgroundColor] : [];
  const silent = ['SCRIPT', 'STYLE', 'OPTION', 'NOSCRIPT'];
  const speaks = (e) => e.offsetParent && !silent.includes(e.tagName)
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const found = [...document.querySelectorAll('#im2col *')].filter(speaks);
  return found.map(e => { const [a, b] = [[...grounds(e), getComputedStyle(e).color], grounds(e)].map(c => light(rgb(c)));
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className + ' ' + e.textContent]; });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_to_be_read(open_page, scheme):
    """4.5, WCAG 2.2 AA, with a pixel chosen and a step under way, so that all kinds of cells are there."""
    page = open_page(color_scheme=scheme)
    page.click("[data-step=first]")
    page.click("[data-step=next]")
    page.click("[data-step=next]")
    cell(page, X, 2, 3).hover()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 600
    assert min(found) >= [4.5], min(found)
    ground = page.evaluate("getComputedStyle(document.getElementById('im2col')).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]


def test_marks_are_frames_and_not_colours_alone(open_page):
    page = open_page()
    page.click("[data-step=first]")
    page.click("[data-step=next]")
    page.click("[data-step=next]")
    cell(page, Y, 1, 2).hover()
    style = lambda where, name: page.locator(where).first.evaluate(f"e => getComputedStyle(e).{name}")
    assert "inset" in style(f"{X} .ic-on", "boxShadow")
    assert style(f"{GCOL} .ic-now", "outlineStyle") == "dashed"
    assert "line-through" in style(f"{GCOL} .ic-added", "textDecorationLine")
    assert "repeating-linear-gradient" in style(f"{X} .ic-outside", "backgroundImage")


def test_it_takes_the_colours_and_the_bar_of_the_page_around_it(open_page):
    around = "--bg: rgb(1, 2, 3); --fg: rgb(250, 251, 252); --backward: rgb(200, 100, 50); --bar: 30px;"
    page = open_page(im2col.page().replace("</head>", f"<style>:root {{ {around} }}</style></head>"))
    style = lambda where, name: page.locator(where).first.evaluate(f"e => getComputedStyle(e).{name}")
    assert style("#im2col", "backgroundColor") == "rgb(1, 2, 3)"
    assert style("#im2col", "color") == "rgb(250, 251, 252)"
    assert style("h3.ic-backward", "color") == style(".ic-say-backward", "color") == "rgb(200, 100, 50)"
    assert style(".ic-say", "top") == "30px"


def test_the_page_around_does_not_change_its_tables_and_texts(open_page):
    """What a page says of all its tables and paragraphs."""
    hostile = (
        "tr, td { display: block; } th, td { padding: 2rem; vertical-align: top; border: 9px solid; } p { max-width: 9rem; }"
    )
    hostile += " table { width: 100%; font-size: 2rem; } h2 { margin: 9rem; } figure { width: 9rem; } button { width: 100%; }"
    boxes = """() => [...document.querySelectorAll('#im2col :is(h2, p, figure, table, th, td, label, select, button)')].map(
        (e) => e.getBoundingClientRect().toJSON())"""
    alone, around = (
        open_page(im2col.page().replace("</head>", f"<style>{style}</style></head>")).evaluate(boxes) for style in ("", hostile)
    )
    assert len(alone) > 700 and around == alone
