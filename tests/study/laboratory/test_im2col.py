"""The section's numbers are conv2d's, the fragment fetches nothing, and the committed figure is the one that is made."""

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor
from minidl.study.laboratory import im2col

ROOT = Path(__file__).parents[3]
FIGURE = ROOT / "docs/figures/im2col.svg"
DEFAULT = {"height": 5, "width": 5, "channels": 1, "kernel": 3, "stride": 1, "padding": 1, "dilation": 1}
OTHERS = [
    {"stride": 2, "padding": 0, "kernel": 2},
    {"channels": 2, "dilation": 2, "padding": 2},
    {"height": 3, "width": 6, "channels": 2, "stride": 3, "padding": 1},
    {"kernel": 1, "stride": 2, "padding": 2},
]


def embedded(html):
    (text,) = re.findall(r'<script type="application/json" data-numbers>(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def entries(s):
    """(row of col, column, row and column in the padded image, channel), from the definition."""
    span = s["dilation"] * (s["kernel"] - 1) + 1
    oh, ow = ((s[side] + 2 * s["padding"] - span) // s["stride"] + 1 for side in ("height", "width"))
    taps = itertools.product(range(s["kernel"]), range(s["kernel"]), range(s["channels"]))
    for (r, (i, j)), (k, (u, v, c)) in itertools.product(
        enumerate(itertools.product(range(oh), range(ow))), list(enumerate(taps))
    ):
        yield r, k, i * s["stride"] + u * s["dilation"], j * s["stride"] + v * s["dilation"], c


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("changes", [{}, *OTHERS])
def test_the_numbers_are_those_of_the_op_and_its_gradients(changes):
    s = {**DEFAULT, **changes}
    data = embedded(im2col.section(**s))
    found, c, k = data["python"], s["channels"], s["kernel"]
    image, weight = np.array(data["image"], float)[:, :, :c], np.array(data["weight"], float)[:k, :k, :c]
    x, w = (Tensor(a.transpose(2, 0, 1)[None], requires_grad=True) for a in (image, weight))
    y = F.conv2d(x, w, stride=s["stride"], padding=s["padding"], dilation=s["dilation"])
    gy = np.array(data["gy"], float)[: y.shape[2], : y.shape[3]]
    y.backward(gy[None, None])

    assert found["y"] == y.detach().numpy().ravel().tolist()
    assert found["gy"] == gy.ravel().tolist()
    assert found["gw"] == w.grad.data[0].transpose(1, 2, 0).ravel().tolist()
    p = s["padding"]
    padded = np.array(found["gx"]).reshape(s["height"] + 2 * p, s["width"] + 2 * p, c)
    inside = padded[p : p + s["height"], p : p + s["width"]]
    np.testing.assert_array_equal(inside, x.grad.data[0].transpose(1, 2, 0))


@pytest.mark.parametrize("changes", [{}, *OTHERS])
def test_col_gcol_and_copies_follow_the_definition(changes):
    s = {**DEFAULT, **changes}
    data = embedded(im2col.section(**s))
    found, p, c = data["python"], s["padding"], s["channels"]
    image = np.pad(np.array(data["image"])[:, :, :c], ((p, p), (p, p), (0, 0)))
    weight = np.array(data["weight"])[: s["kernel"], : s["kernel"], :c].ravel()
    col, gcol = np.array(found["col"]), np.array(found["gcol"])
    gx, copies = np.zeros_like(image), np.zeros_like(image)
    for r, k, a, b, channel in entries(s):
        assert col[r, k] == image[a, b, channel]
        assert gcol[r, k] == found["gy"][r] * weight[k]
        gx[a, b, channel] += gcol[r, k]
        copies[a, b, channel] += 1
    assert found["gx"] == gx.ravel().tolist()
    assert found["copies"] == copies.ravel().tolist()


def test_there_are_numbers_for_every_setting_that_the_page_offers():
    """The largest output comes from the smallest kernel and most padding."""
    data = embedded(im2col.section(height=4, width=7))
    most = {name: limits[1] for name, limits in data["ranges"].items()}
    assert np.shape(data["image"]) == (4, 7, most["channels"])
    assert np.shape(data["weight"]) == (most["kernel"], most["kernel"], most["channels"])
    assert np.shape(data["gy"]) == (4 + 2 * most["padding"], 7 + 2 * most["padding"])


def test_weights_hide_nothing_and_neighbouring_pixels_differ():
    data = embedded(im2col.section(height=8, width=8))
    assert np.all(data["weight"])
    image = np.array(data["image"])
    assert np.all(image[1:] != image[:-1]) and np.all(image[:, 1:] != image[:, :-1])
    assert image.min() >= 0 and image.max() <= 9


# ------------------------------------------------------------------------------------------------------------ fragment


def test_the_section_is_one_element_that_fetches_nothing():
    html = im2col.section()
    assert html.startswith('<section id="im2col"') and html.rstrip().endswith("</section>")
    assert html.count("<section") == html.count("</section>") == 1
    for foreign in ("http:", "https:", "src=", "href=", "@import", "url(", "import(", "fetch("):
        assert foreign not in html
    assert not re.search(r"\$(style|script|numbers)", html)
    assert set(re.findall(r'\bid="([\w-]+)"', html)) == {"im2col", "ic-title"}
    names = {name for names in re.findall(r'class="([^"]*)"', html) for name in names.split()}
    assert names and all(name == "ic" or name.startswith("ic-") for name in names)


def test_every_rule_of_the_style_is_confined_to_the_section():
    style = re.search(r"<style>(.*?)</style>", im2col.section(), re.DOTALL).group(1)
    style = re.sub(r"/\*.*?\*/|\([^()]*\)", "", style, flags=re.DOTALL)  # without comments, and lists in parentheses
    selectors = [s for s in re.findall(r"([^{}]+)\{", style) if not s.strip().startswith("@media")]
    assert len(selectors) > 20
    assert all(part.strip().startswith(".ic") for group in selectors for part in group.split(","))


@pytest.mark.parametrize("name", ["bg", "fg", "muted", "line", "forward", "backward", "accent"])
def test_colours_come_from_the_page_around_in_both_schemes(name):
    assert len(re.findall(rf"var\(--{name}, #", im2col.section())) == 2


def test_the_page_is_a_document_around_the_section():
    html = im2col.page(kernel=2, stride=2)
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    assert im2col.section(kernel=2, stride=2) in html
    assert 'name="viewport"' in html and '<html lang="en">' in html
    assert embedded(html)["settings"] == {**DEFAULT, "kernel": 2, "stride": 2}


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "kernel": (4, "kernel must be an int from 1 to 3, got 4"),
    "stride": (0, "stride must be an int from 1 to 3, got 0"),
    "padding": (-1, "padding must be an int from 0 to 2, got -1"),
    "dilation": (1.5, "dilation must be an int from 1 to 2, got 1.5"),
    "channels": (3, "channels must be an int from 1 to 2, got 3"),
    "height": (9, "height must be an int from 1 to 8, got 9"),
    "width": (True, "width must be an int from 1 to 8, got True"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_settings_out_of_range(name):
    value, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape('im2col section: ' + text)}$"):
        im2col.section(**{name: value})


def test_a_kernel_that_does_not_fit():
    with pytest.raises(RuntimeError, match="conv2d: kernel spans 5 along H, padded input has 3"):
        im2col.section(height=3, dilation=2, padding=0)


# -------------------------------------------------------------------------------------------------------------- figure


def test_the_committed_figure_is_the_one_that_is_made():
    assert FIGURE.read_text("utf-8") == im2col.figure()


def test_the_figure_shows_the_numbers_of_its_convolution():
    x, w = (Tensor(np.array(a, float), True) for a in ([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], [[[[1, 2], [3, -1]]]]))
    y = F.conv2d(x, w)
    gy = np.array([[1.0, 2.0], [3.0, 4.0]])
    y.backward(gy[None, None])
    col = [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]
    image, filters, out = (t.detach().numpy()[0, 0] for t in (x, w, y))
    tables = [image, col, out, out.reshape(4, 1), gy, gy.reshape(4, 1), np.outer(gy, filters), x.grad.data[0, 0]]
    drawn = {place: value for _, place, value in cells()}
    assert len(drawn) == sum(np.size(table) for table in tables)
    for table in tables:
        assert any(holds(drawn, origin, np.array(table)) for origin in drawn), table
    assert "(−1) + 6 + 6 + 4 = 15:" in texts()


def test_the_figure_marks_the_middle_pixel_and_its_copies():
    numbers = {kind: sorted(value for mark, _, value in cells() if mark == kind) for kind in ("copied", "added")}
    assert numbers == {"copied": [5, 5, 5, 5, 5], "added": [-1, 4, 6, 6, 15]}


def test_the_figure_has_a_ground_of_its_own_in_both_schemes():
    style = next(node.text for node in ElementTree.fromstring(im2col.figure()).iter() if node.tag.endswith("style"))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for rule in (".panel { fill", ".cell { ", ".copied { fill", ".added { fill", ".bar { stroke", "text.note { "):
        assert rule in light and rule in dark


def texts():
    return [node.text for node in ElementTree.fromstring(im2col.figure()).iter() if node.tag.endswith("text")]


def cells():
    """(class of the cell, its column and row in units of a cell, the number drawn in it), for every cell."""
    nodes = list(ElementTree.fromstring(im2col.figure()))
    for node, after in itertools.pairwise(nodes):
        if node.tag.endswith("rect") and node.get("class") != "panel":
            x, y, width = (float(node.get(name)) for name in ("x", "y", "width"))
            assert x < float(after.get("x")) < x + width and y < float(after.get("y")) < y + width
            yield node.get("class"), (x / width, y / width), float(after.text.replace("−", "-"))


def holds(drawn, origin, table):
    """Is this table drawn with its corner at origin?"""
    return all(drawn.get((origin[0] + j, origin[1] + i)) == value for (i, j), value in np.ndenumerate(table))
