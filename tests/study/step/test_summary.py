"""summary: figures that can be done by hand, measured bytes, towers in one row, and a model that is left as it was."""

import json
import re
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

import minidl
import minidl.nn.functional as F
from minidl import nn, random
from minidl.study import summary
from minidl.study.step.summary import JSON_VERSION

FLOAT = 4  # bytes


class Small(nn.Module):
    def __init__(self, device="cpu:0"):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1, device=device)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8 * 4 * 4, 10, device=device)

    def forward(self, x):
        return self.fc(F.flatten(self.pool(self.relu(self.conv(x))), 1))


class Towers(nn.Module):
    """Two linear layers, each on a device of its own, and one that sees both."""

    def __init__(self):
        super().__init__()
        self.tower0 = nn.Sequential(nn.Linear(6, 4))
        self.tower1 = nn.Sequential(nn.Linear(6, 4, device="cpu:1"))
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        low, high = self.tower0(x), self.tower1(x.to("cpu:1"))
        return self.last(F.cat([low, high.to("cpu:0")], 1))


def test_figures_that_can_be_done_by_hand():
    result = summary(Small(), (2, 3, 8, 8))
    assert [r.name for r in result.rows] == ["conv", "relu", "pool", "(reshape)", "fc"]
    conv, _, pool, _, fc = result.rows
    assert (conv.kernel, conv.outputs) == ("8 x 3 x 3 x 3", [(8, 8, 8)])
    assert (conv.parameters, conv.neurons) == (8 * 27 + 8, 8 * 8 * 8)
    assert (conv.macs_forward, conv.macs_backward) == (8 * 8 * 8 * 27, 8 * 8 * 8 * 27)  # no gradient of the images
    assert (fc.kernel, fc.outputs, fc.parameters, fc.neurons) == ("10 x 128", [(10,)], 1290, 10)
    assert (fc.macs_forward, fc.macs_backward) == (1280, 2 * 1280)
    assert (pool.outputs, pool.parameters, pool.neurons, pool.macs_forward) == ([(8, 4, 4)], 0, 0, 0)
    batch = 2 * FLOAT
    assert [r.activation for r in result.rows] == [batch * n for n in (512, 512, 128, 128, 10)]  # flatten copies, to C order
    # conv keeps the images, relu its output, pool a byte for each output, fc its input; nothing is counted twice
    assert [r.saved for r in result.rows] == [batch * 192, batch * 512, 2 * 128, 0, batch * 128]
    assert result.totals["parameters"] == 224 + 1290 and result.totals["neurons"] == 522
    assert result.totals["activation"] == batch * (512 + 512 + 128 + 128 + 10)
    assert result.totals["workspace"] == max(r.workspace for r in result.rows)


def test_what_two_layers_keep_is_counted_once():
    """The second layer keeps the first one's output, which that one kept already."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    result = summary(model, (3, 6))
    assert [r.saved for r in result.rows] == [3 * 6 * FLOAT, 3 * 5 * FLOAT, 0]


def test_a_parameter_that_is_used_twice_is_counted_once():
    shared = nn.Linear(4, 4)
    result = summary(nn.Sequential(shared, nn.ReLU(), shared), (1, 4))
    assert result.totals["parameters"] == 20
    assert result.totals["neurons"] == 8 and result.totals["macs_forward"] == 32


def test_workspace_is_what_is_needed_beside_inputs_and_results():
    """The plain convolution makes its columns, of OH OW KH KW C numbers; they are measured, with little around them."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3))
    with minidl.plain_kernels():
        (conv,) = summary(model, (1, 4, 34, 34)).rows
    columns = 32 * 32 * 9 * 4 * FLOAT
    assert columns <= conv.workspace < 4 * columns
    (relu,) = summary(nn.Sequential(nn.ReLU()), (1, 3000)).rows
    assert relu.workspace < 3000 * FLOAT


def test_workspace_on_a_gpu(monkeypatch):
    """What CuPy's pool was asked for beside inputs and results: the patches, and in backward, which multiplies them again."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch)
    conv, relu = summary(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()).to("cuda:0"), (2, 4, 34, 34)).rows
    assert conv.workspace == 2 * 32 * 32 * 9 * 4 * FLOAT
    assert relu.workspace == relu.activation  # its gradient is ones in C order, and is copied to the output's
    assert conv.activation == relu.activation == 2 * 8 * 32 * 32 * FLOAT
    assert fake_cupy.errors == []


def test_towers_share_a_row_and_what_crosses_is_counted():
    result = summary(Towers(), (5, 6))
    assert [r.name for r in result.rows] == ["0", "(to_device, cat)", "last"]
    both, between, last = result.rows
    assert (both.outputs, both.parameters, both.neurons, both.devices) == ([(4,), (4,)], 56, 8, ["cpu:0", "cpu:1"])
    assert (between.crosses_forward, between.crosses_backward) == (5 * 4 * FLOAT, 5 * 4 * FLOAT)
    assert result.totals["crosses_forward"] == result.totals["crosses_backward"] == 5 * 4 * FLOAT
    assert result.batch_copied == 5 * 6 * FLOAT  # tower 1's copy of the batch
    assert last.devices == ["cpu:0"] and last.crosses_forward == 0
    text = result.text(None).splitlines()
    assert text[-1] == "120 bytes of the batch itself are copied to another device."
    assert text[3].split()[:3] == ["0", "4", "(2)"] and text[3].endswith("cpu:0 cpu:1")


def test_layers_act_as_in_training_and_devices_are_sorted():
    class Back(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower0 = nn.Sequential(nn.Linear(4, 4, device="cpu:1"), nn.Dropout(0.5))
            self.tower1 = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

        def forward(self, x):
            return self.tower0(x).to("cpu:0") + self.tower1(x.to("cpu:0"))

    linear, dropout, _ = summary(Back().eval(), (2, 4)).rows
    assert dropout.saved == 2 * 2 * 4  # a byte for each mask
    assert linear.devices == dropout.devices == ["cpu:0", "cpu:1"]


def test_the_workspace_of_a_row_is_the_largest_of_its_ops():
    class Twice(nn.Module):
        """A convolution, then one of a twentieth of its size, by one layer."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.conv(self.conv(x)[:, :, :8, :8])

    once = summary(nn.Sequential(nn.Conv2d(4, 4, 3)), (1, 4, 34, 34)).rows[0].workspace
    conv = summary(Twice(), (1, 4, 34, 34)).rows[0]
    assert conv.ops == ["conv2d", "conv2d"] and conv.workspace > 0.9 * once > 100_000


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    model.eval()
    model[2].train()
    model[0].weight.grad = minidl.ones(3, 4)
    minidl.manual_seed(5)
    before, state, threads = model.state_dict(), random.default_generator.state(), minidl.get_num_threads()
    summary(model, (2, 4))
    assert [m.training for m in model] == [False, False, True]
    assert model[0].weight.grad.sum() == 12 and model[2].weight.grad is None
    assert random.default_generator.state() == state and minidl.get_num_threads() == threads
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_model_without_parameters_and_one_without_layers():
    assert summary(nn.ReLU(), (2, 3)).totals["parameters"] == 0
    assert summary(nn.Sequential(), (2, 3)).rows == []


def test_double_precision_takes_twice_the_bytes():
    single, double = (summary(m, (2, 3, 8, 8)).totals for m in (Small(), Small().double()))
    assert double["activation"] == 2 * single["activation"] and double["parameters"] == single["parameters"]


def test_text_markdown_and_json_say_the_same():
    result = summary(Small(), (1, 3, 8, 8))
    text = result.text(None).splitlines()
    assert text[0] == "Small, input 1 x 3 x 8 x 8"
    assert text.pop() == "B: bytes, for the whole batch. Neurons and multiply-adds (MACs): for one image."
    assert text[1].split()[:3] == ["layer", "output", "kernel"] and len({len(text[2]), len(text[-2])}) == 1
    assert text[3].split()[:2] == ["conv", "8"] and "13,824" in text[3]
    assert text[-1].startswith("total") and "1,514" in text[-1]
    table = result.markdown().splitlines()
    assert len(table) == 2 + 5 + 1 and all(line.count("|") == table[0].count("|") for line in table)
    assert "| conv | 8 x 8 x 8 | 8 x 3 x 3 x 3 | 224 | 512 | 13,824 | 13,824 |" in table[2]
    content = json.loads(result.json())
    assert content["totals"] == result.totals and content["input_shape"] == [1, 3, 8, 8]
    assert [r["parameters"] for r in content["rows"]] == [224, 0, 0, 0, 1290]


@pytest.mark.parametrize("shape", [(), (0, 3), (2, -1)])
def test_a_shape_that_is_no_batch(shape):
    with pytest.raises(ValueError, match=r"summary: input_shape must be a batch's shape, each axis at least 1, got \("):
        summary(nn.ReLU(), shape)


def test_an_output_that_is_no_tensor():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match="summary: the model must return a Tensor, got tuple"):
        summary(Two(), (1, 2))


# ------------------------------------------------------------------------------------------------------------- the JSON

PAGE = (Path(__file__).parents[3] / "docs" / "summary.md").read_text()
KINDS = {
    "integer": lambda value: type(value) is int,
    "text": lambda value: type(value) is str,
    "object": lambda value: type(value) is dict,
    "list of integers": lambda value: type(value) is list and all(type(v) is int for v in value),
    "list of texts": lambda value: type(value) is list and all(type(v) is str for v in value),
    "list of lists of integers": lambda value: type(value) is list and all(KINDS["list of integers"](v) for v in value),
    "list of objects": lambda value: type(value) is list and all(type(v) is dict for v in value),
}


def schema(part):
    """{entry: kind} of a table of the page."""
    return dict(re.findall(r"^\| `(\w+)` \| ([\w ]+?) \|", part, re.MULTILINE))


@pytest.mark.parametrize("model, shape", [(Small, (2, 3, 8, 8)), (Towers, (3, 6))])
def test_the_json_is_what_the_page_says(model, shape):
    whole, row = (schema(part) for part in PAGE.split("## The JSON")[1].split("\nA row:\n"))
    content = json.loads(summary(model(), shape).json())
    assert {name: KINDS[kind](content.get(name)) for name, kind in whole.items()} == dict.fromkeys(content, True)
    assert content["version"] == JSON_VERSION == int(re.search(r"This is version (\d+):", PAGE)[1])
    for found in content["rows"]:
        assert {name: KINDS[kind](found.get(name)) for name, kind in row.items()} == dict.fromkeys(found, True)
    summed = list(row)[list(row).index("parameters") :]
    assert list(content["totals"]) == summed and all(type(value) is int for value in content["totals"].values())
    assert content["totals"]["parameters"] == sum(found["parameters"] for found in content["rows"])


def test_version_1_stays_as_it_is():
    """Whoever changes what an entry means, or drops one, makes a new version: this list is then another."""
    names = "version model input_shape rows batch_copied totals"
    of_a_row = "name ops outputs kernel devices parameters neurons macs_forward macs_backward activation saved workspace"
    content = json.loads(summary(Small(), (1, 3, 8, 8)).json())
    assert JSON_VERSION == 1
    assert set(content) >= set(names.split())
    assert set(content["rows"][0]) >= {*of_a_row.split(), "crosses_forward", "crosses_backward"}


def test_running_means_are_left_as_they_were():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: values.copy() for name, values in model.state_dict().items()}
    summary(model, (5, 3))
    assert all(np.array_equal(values, before[name]) for name, values in model.state_dict().items())
