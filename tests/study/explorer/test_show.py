"""show and watch: what is in a frame, what is left out of it, and a line for every mistake."""

import html
import re

import numpy as np
import pytest
from study_nets import SHAPE, Towers

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.study import Shown, show, watch
from minidl.study.explorer import show as module


@pytest.fixture
def watched():
    minidl.manual_seed(8)
    model = Towers()
    x = Tensor(np.random.default_rng(5).normal(size=SHAPE).astype("f4"))
    with watch() as step:
        loss = F.cross_entropy(model(x), np.array([2]))
        loss.backward()
    return model, x, loss, step


def kept(shown):
    """The numbers of the arrays that are in the page, stored or with a recipe."""
    return {i for i, recipe in enumerate(shown.page.data["values"]) if recipe["how"] != "left out"}


def arrays(op):
    blobs = [x["blob"] for x in op["inputs"]] + [op["output"], op["arriving"], *op["leaving"]]
    return {blob["values"] for blob in blobs if blob}


def test_the_frame_is_one_document(watched):
    model, *_ = watched
    text = show(model.fc3)._repr_html_()
    found = re.fullmatch(r'<iframe title="fc3" style="[^"<>]*height:640px[^"<>]*" srcdoc="([^"]*)"></iframe>', text)
    assert html.unescape(found[1]) == show(model.fc3).page.html
    assert not re.search(r'(?:src|href)="(?!#)(?!data:)', show(model.fc3).page.html.replace('href="#', ""))
    assert "height:300px" in show(model.fc3, height=300)._repr_html_()


def test_a_layer_has_its_arrays_and_no_others(watched):
    model, _, _, step = watched
    shown, whole = show(model.tower0.fc2), step.show()
    ops = shown.page.data["ops"]
    own = next(op for op in ops if op["layer"] == "tower0.fc2")
    assert arrays(own) <= kept(shown) < kept(whole) and len(shown.page.html) < len(whole.page.html)
    assert ops[0]["inputs"][0]["blob"]["values"] in kept(whole) - kept(shown)  # the image
    assert shown.page.data["look"] == f"{ops.index(own)}.y" and shown.page.data["partial"] == "tower0.fc2"


def test_what_an_array_is_computed_from_comes_along(watched):
    """pool1's input is computed from conv1's output, and that is stored."""
    model, *_ = watched
    data = show(model.tower0.pool1).page.data
    recipe = data["values"][next(op for op in data["ops"] if op["layer"] == "tower0.pool1")["inputs"][0]["blob"]["values"]]
    assert recipe["how"] == "forward"
    conv = next(op for op in data["ops"] if op["layer"] == "tower0.conv1")
    assert data["values"][conv["output"]["values"]]["how"] == "stored"


def test_a_module_of_modules(watched):
    model, *_ = watched
    data = show(model.tower1).page.data
    inside = [op for op in data["ops"] if (op["layer"] or "").startswith("tower1.")]
    assert len(inside) == 5
    have = kept(show(model.tower1))
    assert all(arrays(op) <= have for op in inside)


def test_a_tensor_s_maker_and_users(watched):
    model, x, loss, _ = watched
    assert show(loss).page.data["look"] == "24.y"
    data = show(model.fc3.weight).page.data
    assert data["look"] == "19.x1"
    assert show(x).page.data["look"] == "0.x0"


def test_a_tensor_that_no_step_knows():
    tensor = Tensor(np.ones((2, 3), "f4"), requires_grad=True)
    (tensor * tensor).sum().backward()
    data = show(tensor).page.data
    assert data["ops"][0]["op"] == "tensor" and data["ops"][0]["arriving"]["distribution"]["high"] == 2.0
    assert data["events"] == [[0, "forward"], [0, "backward"]]


def test_figures_are_those_of_the_step(watched):
    *_, step = watched
    stations = step.show().page.data["stations"]
    found = {s["id"]: s["parameters"] for s in stations}
    assert found["fc3"] == 65 and found["conv1"] == 2 * 112


def test_the_loss_is_where_backward_began(watched):
    _, _, loss, step = watched
    data = step.show().page.data
    assert data["loss"]["value"] == pytest.approx(loss.item()) and data["ops"][data["loss"]["op"]]["op"] == "mul"  # by 1/N


def test_a_step_without_backward_and_without_layers():
    with watch() as step:
        y = F.relu(Tensor(np.array([[1.0, -2.0]], "f4")))
    data = step.show(y).page.data
    assert [op["op"] for op in data["ops"]] == ["relu"] and data["ops"][0]["arriving"] is None
    assert data["events"] == [[0, "forward"]] and data["loss"] is None


def test_backward_through_what_ran_before_the_block():
    x = Tensor(np.array([1.0, 2.0], "f4"), requires_grad=True)
    before = x * 3.0
    with watch() as step:
        F.relu(before).sum().backward()
    assert [op["op"] for op in step.show().page.data["ops"]] == ["relu", "sum"] and x.grad.tolist() == [3.0, 3.0]


def test_a_model_on_an_image():
    minidl.manual_seed(1)
    shown = show(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), np.ones((1, 2, 2), "f4"), 1)
    assert isinstance(shown, Shown) and shown.page.data["loss"]["label"] == 1 and "look" not in shown.page.data


def test_the_page_can_be_saved(watched, tmp_path):
    model, *_ = watched
    shown = show(model.fc3)
    assert shown.save(tmp_path).read_text("utf-8") == shown.page.html


def test_mistakes(watched, monkeypatch):
    model, x, _, step = watched
    with pytest.raises(TypeError, match="a layer or a tensor is shown, got ndarray"):
        show(np.ones(3))
    with pytest.raises(TypeError, match="an image is for a model"):
        show(x, np.ones((1, 3), "f4"))
    with pytest.raises(ValueError, match="height must be at least 1 pixel, got 0"):
        show(model.fc3, height=0)
    with pytest.raises(ValueError, match="the Linear did not run in the last step under minidl"):
        show(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"this step knows nothing of the tensor \(2,\)"):
        step.show(Tensor(np.ones(2, "f4")))
    with pytest.raises(RuntimeError, match="was watched before"), step:
        pass
    with pytest.raises(ValueError, match="no op ran in this watch"):
        watch().show()
    monkeypatch.setattr(module, "_last", None)
    with pytest.raises(ValueError, match="did not run in the last step"):
        show(model.fc3)
