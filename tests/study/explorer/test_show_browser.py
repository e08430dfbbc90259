"""show, in Chromium: frames in one page, as in a notebook, answer as the explorer does and leave the page around them alone."""

import numpy as np
import pytest
from study_nets import SHAPE, Towers

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.study import show, watch

pytestmark = pytest.mark.browser


@pytest.fixture
def notebook(open_page, tmp_path):
    """notebook(shown, ...): a page with these outputs one below the other; its window, and their frames."""

    def notebook(*shown, **context):
        cells = "".join(f"<div class=output>{each._repr_html_()}</div>" for each in shown)
        (tmp_path / "index.html").write_text(f"<!doctype html><title>A notebook</title><div id=find></div>{cells}", "utf-8")
        window = open_page(tmp_path, **context)
        frames = [window.frame_locator("iframe").nth(i) for i in range(len(shown))]
        for frame in frames:
            frame.locator("#view h1").wait_for()
        return window, frames

    return notebook


@pytest.fixture(scope="module")
def step():
    minidl.manual_seed(8)
    model = Towers()
    x = Tensor(np.random.default_rng(5).normal(size=SHAPE).astype("f4"))
    with watch() as step:
        step.loss = F.cross_entropy(model(x), np.array([2]))
        step.loss.backward()
    step.model = model
    return step


def ask(frame, slot, place):
    """The answer about the number at `place` of a picture, from the top left in shares of its sides."""
    picture = frame.locator(f".picture[data-slot='{slot}']")
    picture.scroll_into_view_if_needed()
    frame.locator(f".picture[data-slot='{slot}'][data-drawn]").wait_for()
    box = picture.bounding_box()
    picture.click(position={"x": place * box["width"], "y": place * box["height"]})
    frame.locator("#why[data-answered]").wait_for()
    return frame.locator("#why")


def test_layers_and_tensors_side_by_side(notebook, step):
    conv, weight = step.model.tower1.conv1, step.model.tower0.fc2.weight
    alone = Tensor(np.arange(12, dtype="f4").reshape(3, 4))
    window, (first, second, third) = notebook(step.show(conv), step.show(weight), show(alone))
    assert first.locator("#view h1").inner_text() == "conv1" and second.locator("#view h1").inner_text() == "fc2"
    panel = ask(first, "4.y", 0.1)
    assert (
        "28 terms" in panel.inner_text()
        and panel.locator("[data-key=sum]").inner_text() == panel.locator(".answer").inner_text()
    )
    panel.locator(".terms a").first.click()
    first.locator("#why .trail").wait_for()
    first.locator("#why-close").click()
    first.locator(".direction a").nth(1).click()
    assert "gradient" in ask(first, "4.g1", 0.4).inner_text().lower()
    assert "It is a parameter" in ask(second, "12.x1", 0.5).inner_text()
    assert "It is shown alone" in ask(third, "0.y", 0.5).inner_text() and "tensor[1, 2]" in third.locator("#why").inner_text()
    assert window.url.endswith("index.html") and window.locator("iframe").count() == 3 and window.title() == "A notebook"


def test_what_the_view_has_not(notebook, step):
    """The number that came in is known; what made it is in another view."""
    _, (frame,) = notebook(step.show(step.model.tower0.norm1))
    ask(frame, "2.x0", 0.3)
    assert "The view is of tower0.norm1 alone" in frame.locator("#why .unknown").inner_text()
    frame.locator(".stations a", has_text="fc3").or_(frame.locator("#layers")).first.click()
    assert frame.locator("body").evaluate("document.location.href").startswith("about:srcdoc")


def test_steps_by_keys_and_buttons(notebook, step):
    window, (frame,) = notebook(step.show())
    assert "Towers, one step" in frame.locator("#view h1").inner_text()
    intro = frame.locator(".intro").inner_text()
    assert "A batch of 1\u00d73\u00d7" in intro and f"The loss is {step.loss.item():.4g}." in intro
    frame.locator(".intro p a").click()
    frame.locator("#why[data-answered]", has_text="loss").wait_for()
    frame.locator(".brand").click()
    frame.locator(".intro a", has_text="What the network was given").click()
    frame.locator(".picture[data-slot='0.x0'][data-drawn]").wait_for()
    frame.locator(".brand").click()
    frame.locator("#next").click()
    frame.locator("#view h1", has_text="input").wait_for()
    window.keyboard.press("ArrowRight")
    frame.locator("#view h1", has_text="conv1").wait_for()
    frame.locator(".brand").click()
    frame.locator("#view h1", has_text="Towers").wait_for()


def test_a_model_on_an_image_and_a_batch(notebook):
    minidl.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))
    image = np.random.default_rng(1).normal(size=(1, 1, 6, 6)).astype("f4")
    whole = show(model, image, 2)
    with watch():
        out = model(Tensor(np.concatenate([image, image + 1])))
        F.cross_entropy(out, np.array([2, 1])).backward()
    _, (first, second) = notebook(whole, show(out), color_scheme="dark")
    assert "cross-entropy" in first.locator("#view").inner_text()
    panel = ask(second, "3.y", 0.6)
    assert panel.locator("[data-key=sum]").inner_text() == panel.locator(".answer").inner_text()


def test_a_phone(notebook, step):
    _, (frame,) = notebook(step.show(step.model.fc3), viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    assert frame.locator("body").evaluate("document.documentElement.scrollWidth - innerWidth") == 0
