"""explore: what the page holds is what the step did, everything in one file; and one line for every mistake."""

import html.parser
import json
import os
import re
import sys
from collections import Counter

import fake_cupy
import numpy as np
import pytest
from study_nets import SHAPE, Towers

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, nn, random
from minidl.device import count_traffic
from minidl.observer import Observer
from minidl.study import Trace, summary
from minidl.study.__main__ import main
from minidl.study.explorer.explore import Page, explore, prepare_folder
from minidl.study.explorer.pictures import limit
from minidl.study.explorer.steps import steps_page
from minidl.study.explorer.values import from_text, inflate
from minidl.study.models import ALEXNET_FILE, module_from
from minidl.study.step.why import recorded_step

NETWORK = """
from minidl import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
"""


class Arrays(Observer):
    """Copies of all that passes, by the op's number."""

    def __init__(self):
        self.numbers, self.outputs, self.arriving, self.leaving = {}, [], {}, {}

    def forward_ends(self, node, inputs, settings, out):
        self.numbers[node] = len(self.outputs)
        self.outputs.append(out.detach().numpy())

    def backward_begins(self, node, gy):
        self.arriving[self.numbers[node]] = gy.copy()

    def backward_ends(self, node, gy, gradients):
        self.leaving[self.numbers[node]] = [None if gx is None else gx.copy() for gx in gradients]


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    minidl.manual_seed(3)
    return Towers()


@pytest.fixture(scope="module")
def page(model, image):
    minidl.manual_seed(7)
    return explore(model, image, 2, notes=["A note."])


@pytest.fixture(scope="module")
def step(page):
    return page.data


@pytest.fixture(scope="module")
def arrays(model, image):
    """The same step, with the same dropout masks, seen by another observer."""
    minidl.manual_seed(7)
    model.train()
    with Arrays() as arrays, Trace() as arrays.trace:
        F.cross_entropy(model(Tensor(image)), np.array([2])).backward()
    model.zero_grad()
    return arrays


def station(step, name):
    """The station, and its ops."""
    found = next(s for s in step["stations"] if s["id"] == name)
    return found, [step["ops"][n] for n in found["ops"]]


def whole(data):
    """The data of a page, where an op's output is there once: also as the input that it is of other ops."""
    for op in data["ops"]:
        for x in op["inputs"]:
            if x["from"] is not None:
                x["blob"] = data["ops"][x["from"]]["output"]
    return data


def agrees(blob, array):
    """Shape, dtype, bytes, and a distribution that no other array of the step has."""
    spread = blob["distribution"]
    assert (blob["shape"], blob["dtype"], blob["bytes"]) == (list(array.shape), str(array.dtype), array.nbytes)
    numbers = [spread["low"], spread["high"], spread["mean"], spread["std"], spread["zeros"]]
    wanted = [array.min(), array.max(), array.mean(dtype=np.float64), array.std(dtype=np.float64), (array == 0).sum()]
    np.testing.assert_allclose(numbers, wanted, rtol=1e-4, atol=1e-7)


# --------------------------------------------------------------------------------------------------- what the step did


def test_figures_are_summary_s(model, step):
    wanted = summary(model, SHAPE)
    totals = {
        **wanted.totals,
        "batch_copied": wanted.batch_copied,
        "workspace": step["totals"]["workspace"],
    }  # that is measured
    assert step["totals"] == totals and wanted.totals["macs_forward"] > 0
    *layers, loss = step["stations"]
    for name in ("parameters", "neurons", "macs_forward", "macs_backward", "activation", "saved", "crosses_backward"):
        assert [s[name] for s in layers] == [getattr(row, name) for row in wanted.rows] and loss[name] == 0


def test_stations_are_layers_and_what_is_between_them(step):
    titles = ["input", "conv1", "norm1", "pool1", "exchange after pool1", "fc2", "drop2", "gather after drop2", "fc3", "loss"]
    assert [s["title"] for s in step["stations"]] == titles
    assert [s["id"] for s in step["stations"]][4] == "exchange-after-pool1"
    assert sorted(n for s in step["stations"] for n in s["ops"]) == list(range(len(step["ops"])))
    assert [op["layer"] for op in station(step, "conv1")[1]] == ["tower0.conv1", "tower1.conv1"]
    assert [op["op"] for op in station(step, "loss")[1]][2] == "cross_entropy"


def test_towers_are_lanes(step):
    assert step["lanes"] == [{"name": "tower 0", "devices": ["cpu:0"]}, {"name": "tower 1", "devices": ["cpu:1"]}]
    assert [op["lane"] for op in station(step, "conv1")[1]] == [0, 1]
    assert {(op["op"], op["lane"]) for op in station(step, "exchange-after-pool1")[1]} >= {("to_device", 0), ("cat", 1)}
    assert {op["lane"] for op in station(step, "fc3")[1] + station(step, "loss")[1]} == {0}


def test_events_are_in_the_order_in_which_they_ran(step, arrays):
    named = [f"{arrays.trace.records[op].title} {direction}" for op, direction in step["events"]]
    assert named == arrays.trace.events and len(named) > len(step["ops"])


def test_arrays_are_those_that_passed(step, arrays):
    assert len(step["ops"]) == len(arrays.outputs)
    for number, op in enumerate(step["ops"]):
        agrees(op["output"], arrays.outputs[number])
        assert (number in arrays.arriving) == (op["arriving"] is not None and "extra" not in op["arriving"])
        if number in arrays.arriving:
            agrees(op["arriving"], arrays.arriving[number])
            gradients = arrays.leaving[number][: len(op["inputs"])]
            assert [blob is None or "extra" in blob for blob in op["leaving"]] == [gx is None for gx in gradients]
            for blob, gx in zip(op["leaving"], gradients, strict=True):
                if gx is not None:
                    agrees(blob, gx)


def test_inputs_are_parameters_outputs_of_ops_or_the_image(model, image, step):
    _, (conv, _) = station(step, "conv1")
    x, weight, bias = conv["inputs"]
    assert (x["name"], x["parameter"], x["needs_gradient"]) == ("x", False, False)
    assert (weight["name"], weight["parameter"], bias["name"]) == ("tower0.conv1.weight", True, "tower0.conv1.bias")
    agrees(x["blob"], image)
    agrees(weight["blob"], model.tower0.conv1.weight.detach().numpy())
    _, (norm, _) = station(step, "norm1")
    assert step["ops"][norm["inputs"][0]["from"]] is conv or norm["inputs"][0]["from"] == step["ops"].index(conv)
    cat = next(op for op in station(step, "exchange-after-pool1")[1] if op["op"] == "cat")
    assert [x["name"] for x in cat["inputs"]] == ["x1", "x2"]


def test_the_image_s_gradient_is_asked_for_after_the_step(model, image, step):
    """It is that of a step that computes it too; the step's own figures know nothing of it."""
    minidl.manual_seed(7)
    asked = recorded_step(model, image, 2).ops
    inputs = [n for n in station(step, "input")[0]["ops"]]
    for number in (*inputs, *station(step, "conv1")[0]["ops"]):
        op, wanted = step["ops"][number], asked[number]
        assert op["leaving"][0]["extra"] and all("extra" not in blob for blob in op["leaving"][1:])
        agrees(op["leaving"][0], wanted.gx[0])
    assert [("extra" in (step["ops"][n]["arriving"] or {})) for n in inputs] == [True] * len(inputs)
    assert not any(
        "extra" in (blob or {})
        for op in step["ops"]
        for blob in (op["arriving"], *op["leaving"])
        if op["is_layer"] and "conv1" not in op["layer"]
    )
    assert [(asked[n].op, i) for n, i in step["of_batch"]["uses"]] == [("to_device", 0), ("conv2d_relu", 0)]
    total = sum(asked[n].gx[i] for n, i in step["of_batch"]["uses"])
    agrees(step["of_batch"]["total"], total)
    assert not any(number in inputs and direction == "backward" for number, direction in step["events"])


@pytest.mark.parametrize("frozen", [False, True])
def test_the_image_s_gradient_goes_through_layers_that_are_not_trained(frozen):
    minidl.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    for p in model[0].parameters():
        p.requires_grad = not frozen
    image = np.random.default_rng(4).normal(size=(1, 1, 6, 6)).astype("f4")
    first = explore(model, image, 1).data["ops"][0]
    assert ("extra" in first["arriving"]) == frozen and first["leaving"][0]["extra"]
    agrees(first["leaving"][0], recorded_step(model, image, 1).ops[0].gx[0])


def test_what_saves_less_than_the_image_s_gradient_needs():
    """A product saves what the gradients need that are asked for."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return self.linear(x * 2.0)

    product, linear = explore(Scaled(), np.ones((1, 3), "f4"), 1).data["ops"][:2]
    assert product["arriving"] is None and product["leaving"] == [] and linear["leaving"][0] is None


def test_a_gradient_that_is_a_sum_is_there_whole(image):
    """x is used twice: what arrives at the op that made it is the sum, which the engine adds up in place."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(100, 4)

        def forward(self, x):
            y = self.fc(F.flatten(x, 2))
            return (y * 2.0 + y * 3.0).sum((1,))[:, 0]

    data = explore(Twice(), image).data
    (fc,) = [op for op in data["ops"] if op["op"] == "linear"]
    muls = [op for op in data["ops"] if op["layer"] == "Twice" and op["op"] == "mul"]
    means = [op["leaving"][0]["distribution"]["mean"] for op in muls]
    np.testing.assert_allclose(fc["arriving"]["distribution"]["mean"], sum(means), rtol=1e-5)
    assert abs(means[0] - means[1]) > 1e-6


def test_crossings_are_counted_bytes(model, image, step):
    with count_traffic() as seen:
        F.cross_entropy(model(Tensor(image)), np.array([2])).backward()
    model.zero_grad()
    crossed = Counter()
    for op in step["ops"]:
        for direction in ("forward", "backward"):
            crossed.update({(c["from"], c["to"]): c["bytes"] for c in op["crossing"][direction]})
    assert crossed == seen and crossed["cpu:0", "cpu:1"] > 0


def test_saved_arrays_have_names_reasons_and_owners(step):
    _, (conv, _) = station(step, "conv1")
    y, x, w = conv["saved"]
    assert [a["name"] for a in (y, x, w)] == ["y", "x", "w"] and all(len(a["why"]) > 20 for a in (y, x, w))
    assert [a["shared_with"] for a in (y, w)] == ["the output", "tower0.conv1.weight"]
    assert (y["shape"], y["bytes"]) == ([1, 8, 8, 4], 1024)
    (mask,) = station(step, "drop2")[1][0]["saved"]
    assert (mask["name"], mask["dtype"], mask["bytes"], mask["shared_with"]) == ("mask", "bool", 6, "")
    assert station(step, "drop2")[1][0]["saved_bytes"] == 6


def test_saved_is_freed_by_the_op_s_own_backward(step):
    for number, op in enumerate(step["ops"]):
        if op["saved"]:
            assert step["events"][op["freed_after"]] == [number, "backward"]


def test_the_lines_are_those_of_the_plain_functions(step):
    _, ops = station(step, "conv1")
    forward, backward = ([step["passages"][n] for n in ops[0]["source"][d]] for d in ("forward", "backward"))
    assert forward[0]["function"] == "Conv2dReLUFunction.forward" and "conv2d_forward" in [p["function"] for p in forward]
    assert "col2im" not in [p["function"] for p in backward]  # no gradient of the image
    assert all(p["file"].startswith("minidl/ops/") for p in step["passages"])
    conv = next(p for p in forward if p["function"] == "conv2d_forward")
    ran = [conv["lines"][n - conv["first_line"]] for n in conv["ran"]]
    assert any("col @ w[filters]" in line for line in ran) and not any('"""' in line for line in ran)
    assert ops[0]["source"] == ops[1]["source"] and len(step["passages"]) == len({json.dumps(p) for p in step["passages"]})


def test_formulas_are_of_the_op_and_of_those_that_it_calls(step):
    formulas = {op["op"]: op["formulas"] for op in step["ops"]}
    assert formulas["conv2d_relu"] == ["conv2d_relu", "conv2d", "relu"]
    assert formulas["max_pool2d"] == ["max_pool2d"] and formulas["permute"] == ["permute"]
    assert set(step["equations"]) == {name for names in formulas.values() for name in names}
    assert "gcol = gy @ w^T" in step["equations"]["conv2d"]["backward"]
    assert all(e["forward"] and e["file"].startswith("minidl/ops/") for e in step["equations"].values())


def test_each_array_is_there_once(step):
    texts = [text for text in step["texts"] if len(text) > 40]
    assert len(set(texts)) == len(texts) > 15
    blobs = [op["output"] for op in step["ops"]] + [x["blob"] for op in step["ops"] for x in op["inputs"]]
    assert {b["values"] for b in blobs} <= set(range(len(step["values"])))
    _, (copy,) = station(step, "input")
    assert copy["op"] == "to_device" and copy["output"]["values"] == copy["inputs"][0]["blob"]["values"]


def test_the_page_has_each_number(step, arrays):
    """What is stored is what passed; what has a recipe is what passed too: test_why_browser.py."""
    stored = 0
    for op, output in zip(step["ops"], arrays.outputs, strict=True):
        how = step["values"][op["output"]["values"]]
        if how["how"] == "stored":
            found = inflate(from_text(step["texts"][how["text"]]), output.size)
            np.testing.assert_allclose(found, output.ravel(), rtol=1e-5, atol=1e-6)  # those of the fast twins
            stored += 1
    assert stored > 10


# ----------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_cross_entropy_of_the_label(model, image, step, arrays):
    loss = step["loss"]
    np.testing.assert_allclose(loss["value"], float(arrays.outputs[-1]), rtol=1e-5)
    np.testing.assert_allclose(loss["probability"], np.exp(-loss["value"]), rtol=1e-5)
    assert (loss["label"], loss["classes"], loss["name"]) == (2, 5, "")
    chances = [c["probability"] for c in loss["best"]]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True) and chances[0] >= loss["probability"]


def test_the_favourite_is_the_label_by_default(model, image):
    loss = explore(model, image, classes=["a", "b", "c", "d", "e"]).data["loss"]
    assert loss["label"] == loss["best"][0]["label"] and loss["name"] == "abcde"[loss["label"]]


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 2, 3), nn.ReLU, lambda: nn.Sequential(nn.Flatten(), nn.Linear(300, 1))])
def test_other_outputs_are_weighted_with_fixed_numbers(image, make):
    """Maps; a model without parameters, where the image has the gradient; and one score, which has no cross-entropy."""
    network = make()
    data = explore(network, image).data
    assert data["loss"]["label"] is None and "best" not in data["loss"]
    assert all(op["arriving"] is not None for op in data["ops"] if op["op"] != "reshape")
    last = next(op for op in reversed(data["ops"]) if op["is_layer"])
    assert last["leaving"][-1] is not None
    assert last["arriving"]["distribution"]["std"] > 0.5 or last["output"]["shape"] == [1, 1]
    minidl.manual_seed(99)
    assert explore(network, image).data["loss"] == data["loss"]


def test_not_finite_numbers_are_null(image):
    network = nn.Sequential(nn.Flatten(), nn.Linear(300, 4))
    network[1].weight.data[0, 0] = np.nan
    data = explore(network, image, 1).data
    assert data["loss"]["value"] is None and data["loss"]["probability"] is None
    json.dumps(data, allow_nan=False)
    (linear,) = [op for op in data["ops"] if op["op"] == "linear"]
    assert linear["output"]["distribution"]["nonfinite"] == 1


@pytest.mark.parametrize(
    "network, shape, label, error, message",
    [
        (Towers(), SHAPE, 5, ValueError, r"label must be in \[0, 4\], a class of the model's 5, got 5"),
        (Towers(), SHAPE, -1, ValueError, r"label must be in \[0, 4\], .*got -1"),
        (Towers(), (2, *SHAPE[1:]), 0, ValueError, r"a batch of 1 image is needed, .*got \(2, 3, 10, 10\)"),
        (Towers(), (), 0, ValueError, r"a batch of 1 image is needed, .*got \(\)"),
        (nn.ReLU(), SHAPE, 1, ValueError, r"got label 1 and an output of \(1, 3, 10, 10\)"),
    ],
)
def test_what_can_not_be_explored(network, shape, label, error, message):
    with pytest.raises(error, match=message):
        explore(network, np.zeros(shape, np.float32), label)


def test_an_output_that_is_no_tensor(image):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match="must return a Tensor, got tuple"):
        explore(Pair(), image)


# ---------------------------------------------------------------------------------------------------- the model and others


def test_the_model_is_left_as_it_was(model, image):
    network = Towers().eval()
    network.tower1.train()
    network.fc3.weight.grad = before = minidl.ones_like(network.fc3.weight)
    modes, state = [m.training for m in network.modules()], random.default_generator.state()
    with pytest.raises(ValueError, match="label"):
        explore(network, image, 99)
    explore(network, image, 1)
    assert [m.training for m in network.modules()] == modes and random.default_generator.state() == state
    assert network.fc3.weight.grad is before and (before == 1).all() and network.tower0.conv1.weight.grad is None
    assert sys.gettrace() is None or "coverage" in str(sys.gettrace())


def test_the_step_is_one_of_training(image):
    _, ops = station(explore(Towers().eval(), image, 1).data, "drop2")
    assert [op["op"] for op in ops] == ["dropout", "dropout"]


def test_towers_on_one_device(image):
    data = explore(Towers(("cpu:0", "cpu:0")), image, 1).data
    assert [lane["name"] for lane in data["lanes"]] == ["tower 0", "tower 1"]
    assert "exchange after pool1" not in [s["title"] for s in data["stations"]]
    assert "concat, reshape after pool1" in [s["title"] for s in data["stations"]] and data["totals"]["crosses_forward"] == 0


def test_names_that_the_page_has_itself(image):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.overview, self.im2col, self.loss = nn.ReLU(), nn.ReLU(), nn.Linear(300, 4)

        def forward(self, x):
            return self.loss(F.flatten(self.im2col(self.overview(x)), 1))

    ids = [s["id"] for s in explore(Named(), image, 1).data["stations"]]
    assert ids == ["overview-2", "im2col-2", "reshape-after-im2col", "loss", "loss-2"]


class Cube(Function):
    """y = x^3

    Forward
        y = x * x * x

    Backward
        gx = 3 * x^2 * gy
    """

    name = "cube_of_this_test"

    def forward(ctx, x):
        ctx.save(x, x * x)
        return x * x * x

    def backward(ctx, gy):
        x, square = ctx.saved
        return (gy * 2 * square + gy * x * x,)


def test_a_model_on_a_gpu_is_explored_as_on_the_host(image, monkeypatch):
    """The lines that are followed are the plain functions', on CuPy's arrays: here on the stand-in's, which is NumPy inside."""
    fake_cupy.install(monkeypatch)
    pages = []
    for device in ("cpu:0", "cuda:0"):
        minidl.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5)).to(device)
        page = explore(model, image[:, :, :8, :8], check_grads=True)
        assert len(page.data["checks"]) == 9 and not any(check["failed"] for check in page.data["checks"])
        own = ("checks", "totals", "values", "texts")  # the page repeats no arithmetic of a GPU: arrays come along instead
        seen = {name: value for name, value in page.data.items() if name not in own}
        pages.append(json.dumps(seen, sort_keys=True).replace(device, "the device"))
    assert pages[0] == pages[1] and "the device" in pages[1] and fake_cupy.errors == []


@pytest.mark.filterwarnings("ignore:cuda:UserWarning")
def test_the_image_s_gradient_from_two_gpus(monkeypatch, image):
    fake_cupy.install(monkeypatch)
    minidl.manual_seed(3)
    model = Towers(("cuda:0", "cuda:1"))
    data = explore(model, image, 1).data
    wanted = recorded_step(model, image, 1).ops
    total = sum(wanted[n].gx[i] for n, i in data["of_batch"]["uses"])
    agrees(data["of_batch"]["total"], total)
    assert fake_cupy.errors == []


def test_an_op_of_one_s_own(image):
    class Own(nn.Module):
        def forward(self, x):
            return Cube.apply(x)

    data = explore(Own(), image).data
    cube = data["ops"][0]
    assert (cube["op"], cube["layer"], cube["is_layer"]) == ("cube_of_this_test", "Own", True)
    assert [a["name"] for a in cube["saved"]] == ["x", "square"] and cube["saved"][1]["shared_with"] == ""
    assert data["equations"][cube["op"]]["backward"] == "gx = 3 * x^2 * gy"
    (passage,) = [data["passages"][n] for n in cube["source"]["backward"]]
    assert passage["function"] == "Cube.backward" and passage["ran"][-1] == passage["first_line"] + 2


def test_an_op_of_one_s_own_with_a_known_name(image):
    class Halved(Function):
        """Not the ReLU.

        Forward
            y = x / 2
        """

        name = "relu"

        def forward(ctx, x):
            return x * np.float32(0.5)

        def backward(ctx, gy):
            return (gy * np.float32(0.5),)

    class Own(nn.Module):
        def forward(self, x):
            return Halved.apply(x)

    assert explore(Own(), image).data["equations"]["relu"]["forward"] == "y = x / 2"


def test_gradient_checks_name_their_ops(image, step):
    assert step["checks"] is None
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(128, 3))
    data = explore(network, image, 1, check_grads=True).data
    found = {(badge["layer"], badge["leaf"]): badge for badge in data["checks"]}
    assert {("0", "weight"), ("0", "bias"), ("2", "weight"), ("2", "input")} <= set(found)
    assert all(data["ops"][badge["number"]]["op"] == badge["op"] for badge in data["checks"])
    assert all(badge["relative_error"] < 1e-6 and not badge["failed"] for badge in data["checks"])


# ------------------------------------------------------------------------------------------------------------ the file


class Links(html.parser.HTMLParser):
    """Every attribute that makes a browser fetch something, and every element's name."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.tags = [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.targets += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action", "poster")]


def test_the_page_needs_nothing_else(page):
    links = Links(page.html)
    assert links.targets and all(target.startswith("#") for target in links.targets)
    assert links.tags["link"] == links.tags["iframe"] == 0 and links.tags["script"] >= 3
    assert re.findall(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", page.html) == []
    assert page.html.startswith("<!doctype html>")
    assert "{{" not in re.sub(r'<script type="text/plain".*?</script>', "", page.html)


def test_the_page_holds_its_data(page):
    def content(name):
        return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.html)[1])

    data = whole(content("data"))
    assert data == {name: value for name, value in page.data.items() if name != "texts"}
    assert re.findall(r'<script type="text/plain" id="text-\d+">(.*?)</script>', page.html) == page.data["texts"]
    assert data["notes"] == ["A note."]


def test_no_text_ends_a_script(model, image):
    name = "</script><script>{{data}}<!--"
    page = explore(model, image, 0, classes=[name], notes=[name])
    assert Links(page.html).tags["script"] == Links(explore(model, image, 0).html).tags["script"]
    assert page.data["loss"]["name"] == name and name not in page.html


def test_im2col_is_there_where_something_convolves(page, image):
    assert page.html.count('<section id="im2col"') == 1
    with_a_relu = nn.Sequential(nn.ConvReLU2d(3, 2, 3), nn.Flatten())
    assert explore(with_a_relu, image, 1).html.count('<section id="im2col"') == 1
    assert '<section id="im2col"' not in explore(nn.Sequential(nn.Flatten(), nn.Linear(300, 3)), image, 1).html


def test_the_image_is_shown(model, image):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    shown = explore(model, image, 1, pixels=pixels).data["image"]
    assert (shown["width"], shown["height"]) == (10, 10) and shown["src"].startswith("data:image/png;base64,")


def test_save(page, tmp_path):
    path = page.save(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "index.html" and path.read_text("utf-8") == page.html
    assert Page("other", {}).save(path.parent) == path and path.read_text() == "other"
    assert os.listdir(path.parent) == ["index.html"]


def test_what_was_there_stays_when_writing_fails(page, tmp_path, monkeypatch):
    path = Page("before", {}).save(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        page.save(tmp_path)
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["index.html"]


def test_what_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file must be a folder, it is a file"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="can't be made, since a part of its path is a file"):
        prepare_folder(tmp_path / "file" / "under")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="can't be written to"):
        prepare_folder(tmp_path)


# ----------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def net(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(NETWORK)
    return f"{file}:make"


def data_of(folder):
    return whole(json.loads(re.search(r'id="data">(.*?)</script>', (folder / "index.html").read_text("utf-8"))[1]))


@pytest.mark.parametrize("option", [[], ["--model"]])
def test_the_command(net, tmp_path, capsys, option):
    assert main(["explore", *option, net, "--input", "1x3x10x10", "--label", "3", "--out", str(tmp_path / "look")]) == 0
    path = tmp_path / "look" / "index.html"
    told = "The network has the weights that it starts with: nothing was trained."
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    assert capsys.readouterr().out == f"{path}: {size}. {told} Open it in a browser: {path.as_uri()}\n"
    data = data_of(path.parent)
    assert (data["model"], data["input"], data["loss"]["label"], data["checks"]) == ("Sequential", [1, 3, 10, 10], 3, None)
    assert "nothing was trained" in data["notes"][0] and "checkered square" in data["notes"][1]
    assert (data["image"]["width"], data["image"]["height"]) == (10, 10)


def test_a_picture_is_prepared_as_in_the_examples(net, tmp_path):
    """Shorter side to 11, which is 8/7 of 10; its centre, without the green sides; minus ImageNet's mean colour."""
    from PIL import Image

    picture = Image.new("RGB", (50, 22), (0, 255, 0))
    picture.paste((255, 0, 100), (10, 0, 40, 22))
    picture.save(tmp_path / "colour.png")
    main(["explore", net, "--input", "1x3x10x10", "--image", str(tmp_path / "colour.png"), "--out", str(tmp_path)])
    data = data_of(tmp_path)
    spread = data["ops"][0]["inputs"][0]["blob"]["distribution"]
    np.testing.assert_allclose([spread["high"], spread["low"]], [255 - 123.675, -116.28], rtol=1e-5)
    assert "colour.png: shorter side to 11 pixels, the centre 10 x 10, minus ImageNet's mean colour" in data["notes"][1]
    assert data["loss"]["label"] == data["loss"]["best"][0]["label"]


def test_what_is_no_picture_is_random(tmp_path):
    (tmp_path / "net.py").write_text("from minidl import nn\ndef make():\n    return nn.Linear(7, 4)\n")
    main(["explore", f"{tmp_path}/net.py:make", "--input", "1x7", "--out", str(tmp_path)])
    data = data_of(tmp_path)
    assert data["image"] is None and "random numbers" in data["notes"][1] and data["stations"][0]["title"] == "Linear"


def test_gradients_are_checked_if_asked_for(net, tmp_path):
    main(["explore", net, "--input", "1x3x10x10", "--check-grads", "--out", str(tmp_path)])
    assert {badge["leaf"] for badge in data_of(tmp_path)["checks"]} == {"input", "weight", "bias"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--image", "{tmp}/missing.png"], "missing.png"),
        (["--image", "{tmp}/net.py"], "net.py (131 bytes) is not a readable image: "),
        (["--image", "{tmp}/net.py", "--input", "1x1x10x10"], "explore: a picture becomes 1x3xHxW, got --input 1x1x10x10"),
        (["--label", "5"], "study: label must be in [0, 4], a class of the model's 5, got 5"),
        (["--input", "2x3x10x10"], "study: a batch of 1 image is needed, its first axis 1, got (2, 3, 10, 10)"),
        (["--input", "1x3x9x9"], "linear: "),
        (["--out", "{tmp}/net.py"], "net.py must be a folder, it is a file"),
        (["--out", "{tmp}/net.py", "--model", "{tmp}/other.py:make"], "net.py must be a folder"),  # before anything slow
        (["--model", "{tmp}/other.py:make"], "other.py is not a file"),
        (["--run", "{tmp}"], "explore: a run has a model of its own, got --run {tmp} and the model {tmp}/net.py:make"),
    ],
)
def test_mistakes_are_one_line(net, tmp_path, capsys, arguments, message):
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit) as end:
        main(["explore", net, "--input", "1x3x10x10", "--out", str(tmp_path / "out"), *given])
    errors = capsys.readouterr().err
    assert end.value.code == 2 and errors.startswith("minidl.study: error: ") and errors.count("\n") == 1
    assert message.format(tmp=tmp_path) in errors and not (tmp_path / "out" / "index.html").exists()


def narrow_run(folder, steps):
    """A run's folder, with checkpoints of a very narrow AlexNet at these steps, of which nothing was trained."""
    model, run, data = (module_from(ALEXNET_FILE.with_name(name)) for name in ("model.py", "run.py", "data.py"))
    (folder / run.CHECKPOINTS).mkdir(parents=True)
    (folder / run.ARGUMENTS).write_text('{"arguments": {"seed": 5}}')
    mean = np.full((256, 256, 3), 20, np.float32)
    data.save_statistics(folder / run.STATISTICS, minidl.data.ColorStatistics(mean, np.ones(3), np.eye(3)))
    for step in steps:
        minidl.manual_seed(step)
        network = model.AlexNet(10, width=1 / 48)
        state = {"architecture": {"num_classes": 10, "width": 1 / 48}, "classes": minidl.data.Patterns.classes, "step": step}
        minidl.checkpoint.save_checkpoint(run.checkpoint_path(folder, step), network.state_dict(), **state)
    return folder


def test_the_last_run_is_shown_where_there_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["explore", "--run", "last", "--input", "1x3x227x227", "--out", "look"]
    older, newer, empty = (narrow_run(tmp_path / "runs" / name, steps) for name, steps in (("b", [3]), ("a", [7]), ("c", [])))
    for age, folder in enumerate((empty, newer, older)):
        os.utime(folder / "arguments.json", (1e9 - age, 1e9 - age))
    main(arguments)
    assert "step-000007" in data_of(tmp_path / "look")["notes"][0] and "step-000007" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "look")  # here are no runs
    monkeypatch.setattr("minidl.study.__main__.load_model", lambda name: module_from(ALEXNET_FILE).AlexNet(10, width=1 / 48))
    main(arguments)
    assert "nothing was trained" in data_of(tmp_path / "look" / "look")["notes"][0]


def test_steps_side_by_side(tmp_path, capsys):
    folder = narrow_run(tmp_path / "run", [50, 500])
    main(["explore", "--run", str(folder), "--steps", "0,50,500", "--out", str(tmp_path)])
    assert "steps.html" in capsys.readouterr().out
    page = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "steps.html").read_text("utf-8"))[1])
    assert [column["name"] for column in page["columns"]] == ["step 0", "step 50", "step 500"]
    kinds = ("filters", "output y", "gradient gy", "gradient of filters")
    assert {(row["layer"], row["what"]) for row in page["rows"]} == {
        (f"tower{i}.conv{n}", what) for i in (0, 1) for n in range(1, 6) for what in kinds
    }
    assert all(
        len(row["blobs"]) == 3 and len({blob["values"] for blob in row["blobs"]}) == 3
        for row in page["rows"]
        if "conv1" in row["layer"]
    )
    minidl.manual_seed(5)
    first = module_from(ALEXNET_FILE).AlexNet(10, width=1 / 48).tower0.conv1.weight
    row = next(row for row in page["rows"] if row["layer"] == "tower0.conv1" and row["what"] == "filters")
    assert row["blobs"][0]["limit"] == pytest.approx(limit(first.detach().numpy()))
    with pytest.raises(SystemExit):
        main(["explore", "--run", str(folder), "--steps", "0,7", "--out", str(tmp_path)])
    assert "has checkpoints of steps 0, 50, 500, got --steps [0, 7]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["explore", "--steps", "0,7", "--out", str(tmp_path)])
    assert "--steps needs --run" in capsys.readouterr().err


def test_steps_of_networks_that_have_none():
    with pytest.raises(ValueError, match=r"^steps_page: at least 1 network is needed, got 0$"):
        steps_page([], np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^steps_page: the network must have a convolution, got Linear$"):
        steps_page([("one", nn.Linear(3, 4))], np.ones((1, 3)))


def test_a_run(tmp_path, capsys):
    """A trained AlexNet, here a very narrow one that was not: its weights, classes and mean image."""
    model, run = (module_from(ALEXNET_FILE.with_name(name)) for name in ("model.py", "run.py"))
    data = module_from(ALEXNET_FILE.with_name("data.py"))
    folder = tmp_path / "run"
    (folder / run.CHECKPOINTS).mkdir(parents=True)
    (folder / run.ARGUMENTS).write_text('{"arguments": {}}')
    network = model.AlexNet(10, width=1 / 48)
    network.tower1.conv1.weight.data[...] = 0.25
    network.fc8.bias.data[7] = 100
    mean = np.full((256, 256, 3), 20, np.float32)
    data.save_statistics(folder / run.STATISTICS, minidl.data.ColorStatistics(mean, np.ones(3), np.eye(3)))
    with pytest.raises(SystemExit):
        main(["explore", "--run", str(folder), "--out", str(tmp_path / "out")])
    assert "run has no checkpoint yet" in capsys.readouterr().err
    state = {"architecture": {"num_classes": 10, "width": 1 / 48}, "classes": minidl.data.Patterns.classes, "step": 4}
    minidl.checkpoint.save_checkpoint(run.checkpoint_path(folder, 4), network.state_dict(), **state)
    main(["explore", "--run", str(folder), "--out", str(tmp_path / "out")])
    page = data_of(tmp_path / "out")
    assert "step-000004" in page["notes"][0] and "mean image of its training set" in page["notes"][1]
    assert (page["loss"]["label"], page["loss"]["name"]) == (3, "checkered square")
    _, convolutions = station(page, "conv1")
    assert [op["inputs"][1]["blob"]["distribution"]["low"] == 0.25 for op in convolutions] == [False, True]
    assert page["loss"]["best"][0]["name"] == "checkered ring"
    assert convolutions[0]["inputs"][0]["blob"]["distribution"]["low"] >= -20

    minidl.checkpoint.save_checkpoint(run.checkpoint_path(folder, 9), network.state_dict(), **state)
    main(["explore", "--run", str(folder), "--label", "1", "--out", str(tmp_path / "out")])
    assert data_of(tmp_path / "out")["notes"][0].endswith("step-000009.") and data_of(tmp_path / "out")["loss"]["label"] == 1
    run.write_best(folder, {"step": 4})
    main(["explore", "--run", str(folder), "--out", str(tmp_path / "out")])
    assert data_of(tmp_path / "out")["notes"][0].endswith("step-000004, the best on its held-out images.")
