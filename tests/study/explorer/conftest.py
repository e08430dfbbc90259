"""Pages for the tests in Chromium."""

from types import SimpleNamespace

import numpy as np
import pytest
from study_nets import SHAPE, Towers

import minidl
from minidl.study.__main__ import main
from minidl.study.explorer.explore import explore
from minidl.study.explorer.values import Values
from minidl.study.step.arrays import Recording


def watched(make):
    """What `make` returns, and the Values of the page that it made, with their arrays."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        packed = Values.packed
        patch.setattr(Values, "packed", lambda self, *most: seen.append(self) or packed(self, *most))
        return make(), seen[0]


@pytest.fixture(scope="session")
def explored(tmp_path_factory):
    """explored(model, image, ...): the page that `explore` makes, as its folder, data and values, and its step's arrays."""

    def explored(*arguments, **named):
        with Recording() as recorded:  # the ops of the step come first
            page, values = watched(lambda: explore(*arguments, **named))
        folder = tmp_path_factory.mktemp("page")
        page.save(folder)
        return SimpleNamespace(folder=folder, data=page.data, values=values, recorded=recorded)

    return explored


@pytest.fixture(scope="session")
def small(explored):
    """The page of a small network with two towers."""
    image = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    pixels = np.random.default_rng(6).integers(0, 256, (10, 10, 3), np.uint8)
    minidl.manual_seed(8)
    return explored(Towers(), image, 2, pixels=pixels, check_grads=True)


@pytest.fixture(scope="session")
def full_alexnet(tmp_path_factory):
    """The page of the full AlexNet, as the command makes it."""
    folder = tmp_path_factory.mktemp("alexnet")
    _, values = watched(lambda: main(["explore", "--out", str(folder)]))
    return SimpleNamespace(folder=folder, values=values)


@pytest.fixture
def open_page(browser):
    """open_page(folder, hash, **context): its page in a window; fails at the end if the console said anything or the net was
    asked for something."""
    contexts, complaints = [], []

    def open_page(folder, name="", **context):
        contexts.append(browser.new_context(**context))
        window = contexts[-1].new_page()
        window.on("console", lambda message: complaints.append(message.text))
        window.on("pageerror", lambda error: complaints.append(str(error)))
        window.on("request", lambda request: complaints.extend([request.url] if request.url.startswith("http") else []))
        window.goto(f"{(folder / 'index.html').as_uri()}{name}")
        return window

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
