"""docs/errata.md: every figure in its columns "right" is computed here, from the network or from its definition.

A row is known by its first cell. It has an entry in FIGURES (the numbers in "right", in order), in WORDS (the layers or
ops that "right" names), or in CITED, where the paper's text is the only source.
"""

import ast
import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.data import IMAGENET_COMPONENTS, IMAGENET_STDEVS, PCAColorNoise, RandomCrop, SampleKey
from minidl.study import summary

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "alexnet"))

import model as alexnet  # noqa: E402

PAGE = (ROOT / "docs" / "errata.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| [^|]", line)]
ROWS = [row for row in ROWS if not set("".join(row)) <= set("-: ")]

CITED = [
    "two GPUs",
    "without ReLU",
    "without one of the conv layers",
    "AlexNet's top-5 error",
    "dropout",
    "overlapping max-pooling",
]
SIDE, STORED = 224, 256  # of the image, and of the one that it is cut out of


def numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)]


# ------------------------------------------------------------------------------------------------------------ the network


@pytest.fixture(scope="module")
def net():
    """The network of the paper, all weights alike: drawing 60 million of them takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for layer in (nn.Conv2d, nn.Linear):
            patch.setattr(layer, "reset_parameters", lambda self: None)
        patch.setattr(nn.init, "normal_", lambda tensor, mean, std: nn.init.constant_(tensor, 1e-3))
        return alexnet.AlexNet()


@pytest.fixture(scope="module")
def step(net):
    """What `minidl.study.summary` measures in a training step."""
    return summary(net, (1, 3, SIDE, SIDE))


@pytest.fixture(scope="module")
def rows(step):
    """The rows of layers, by name."""
    return {row.name: row for row in step.rows if not row.name.startswith("(")}


@pytest.fixture(scope="module")
def words(net, rows, step):
    """What a row's first cell says -> the ops or layers that its "right" names, in order."""
    assert layer_ops(net, rows, 1) == layer_ops(net, rows, 2)
    return {
        "layers 1 and 2": layer_ops(net, rows, 1),
        "layer 5": layer_ops(net, rows, 5),
        "layers that see both towers": [
            after.name for before, after in itertools.pairwise(step.rows) if before.crosses_forward
        ],
        "layer 8": layer_ops(net, rows, 8),
    }


def output(row) -> list[int]:
    """Height, width and channels of both towers."""
    channels, height, width = row.outputs[0]
    return [height, width, channels * len(row.outputs)]


def kernel(layer) -> list[int]:
    _, channels, height, width = layer.weight.shape
    return [height, width, channels]


@pytest.fixture(scope="module")
def figures(net, rows):
    """What a row's first cell says -> the numbers that must stand in its "right"."""
    t = net.tower0
    of = {
        "227 − 11": [rows["conv1"].outputs[0][1] * t.conv1.stride[0] - t.conv1.stride[0]],
        "side of conv1's output": [output(rows["conv1"])[0]],
        "side of an image": [net.profile.image_size],
        "conv1, kernels": [2 * t.conv1.out_channels],
        "conv1, connections with biases": [rows["conv1"].macs_forward + rows["conv1"].neurons],
        "pool1, pool2, pool5, parameters": [rows[f"pool{i}"].parameters for i in (1, 2, 5)],
        "conv2, input": output(rows["pool1"]),
        "conv2, kernels and biases": [len(net.merged_state_dict()[f"conv2.{kind}"]) for kind in ("weight", "bias")],
        "conv2, output": output(rows["conv2"]),
        "side of pool2's output": [output(rows["pool2"])[0]],
        "conv3, padding": [t.conv3.padding[0]],
        "conv4, padding": [t.conv4.padding[0]],
        "conv4, kernels in each tower": [len(t.conv4.weight)],
        "conv5, input": output(rows["conv4"]),
        "fc8, outputs": [rows["fc8"].neurons],
        "the network, parameters": [sum(p.numel() for p in net.parameters())],
        "the norm's window": window_of(t.norm1),
        "relu": [relu_slope(2.0), 0, relu_slope(-3.0), 0],
        "crops and mirrors of an image": [crops_and_mirrors()],
        "colour noise": [net.profile.color_noise],
    }
    for i in range(1, 6):
        of[f"conv{i}, kernel"] = kernel(getattr(t, f"conv{i}"))
    for name in alexnet.LAYERS:
        of[f"{name}, neurons"] = [rows[name].neurons]
        of[f"{name}, parameters"] = [rows[name].parameters]
        of[f"{name}, connections"] = [rows[name].macs_forward]
    return {**of, **figures_of_the_paper(net, rows)}


def figures_of_the_paper(net, rows) -> dict[str, list[float]]:
    everything = sum(p.numel() for p in net.parameters())
    noise = PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, scale=net.profile.color_noise)
    conv1 = net.tower0.conv1
    return {
        "conv1, neurons (figure 2)": [rows["conv1"].neurons],
        "neurons (abstract)": [sum(row.neurons for row in rows.values())],
        "crops and mirrors (section 4.1)": [crops_and_mirrors()],
        "share of the parameters in conv3 and conv4 (section 1)": [
            round(100 * rows[name].parameters / everything, 2) for name in ("conv3", "conv4")
        ],
        "deviation of the colour noise in R, G, B, levels (section 4.1)": [
            round(float(deviation), 2) for deviation in np.sqrt((noise.axes.astype(np.float64) ** 2).sum(axis=1))
        ],
        "side of an image (section 3.5)": [(rows["conv1"].outputs[0][1] - 1) * conv1.stride[0] + conv1.kernel_size[0]],
        '"N is the total number of kernels in the layer" (section 3.3)': [rows[f"norm{i}"].outputs[0][0] for i in (1, 2)],
        "α of a term of the norm (section 3.3)": [net.tower0.norm1.alpha / net.tower0.norm1.size],
        "initial σ of conv3, conv4, conv5 (section 5)": [*set(net.profile.sigma[2:5])],
    }


def window_of(norm: nn.LocalResponseNorm) -> list[int]:
    """Height, width and channels of the inputs that one output depends on."""
    x = minidl.randn(1, 9, 7, 7, requires_grad=True)
    norm(x)[0, 4, 3, 3].backward()
    channels, rows, columns = (len(set(places)) for places in np.nonzero(x.grad.data[0]))
    return [rows, columns, channels]


def relu_slope(x: float) -> float:
    leaf = Tensor(x, requires_grad=True)
    F.relu(leaf).backward()
    return float(leaf.grad)


def crops_and_mirrors() -> int:
    """Different images that the training crop of 224 in 256, and its mirror, give."""
    crop = RandomCrop(SIDE)
    image = np.zeros((STORED, STORED, 3), np.uint8)
    drawn = [crop.places(image.shape, SampleKey(0, 0, i, i))[0] for i in range(600)]
    assert (min(p.top for p in drawn), min(p.left for p in drawn)) == (0, 0)
    return (max(p.top for p in drawn) + 1) * (max(p.left for p in drawn) + 1) * 2


def layer_ops(net, rows, number: int) -> list[str]:
    """The ops of a layer in the order in which they ran: ["conv", "relu", "pool"]."""
    names = [name for name in rows if re.fullmatch(rf"[a-z]+{number}", name)]
    ops = [name.rstrip("0123456789").replace("fc", "linear") for name in names]
    fused = isinstance(getattr(net.tower0, f"conv{number}", None), nn.ConvReLU2d)
    return [ops[0], "relu", *ops[1:]] if fused else ops


# --------------------------------------------------------------------------------------------------------------- the page


def test_every_row_is_checked_by_figures_by_words_or_rests_on_the_paper(figures, words):
    firsts = [row[0] for row in ROWS]
    assert len(firsts) == len(set(firsts)) > 50
    used = [first for first in firsts if first in figures]
    assert sorted(firsts) == sorted([*used, *words, *CITED])
    assert all(len(row) == 4 for row in ROWS)
    for row in ROWS:
        assert row[0] not in CITED or "section" in row[3] or "reference" in row[3], row[0]


def test_the_right_figures_are_those_of_the_network(figures):
    for first, _, right, _ in ROWS:
        if first in figures:
            assert numbers(right) == pytest.approx(figures[first], abs=0), first


def test_the_right_order_and_connections_are_those_of_the_network(words):
    for first, _, right, _ in ROWS:
        if first in words:
            assert right.split(", ") == words[first], first


def test_what_is_written_is_not_right():
    """A row whose two columns hold the same figures is no error, and one says that it is none."""
    same = [first for first, written, right, _ in ROWS if numbers(written) == numbers(right) and numbers(right)]
    assert same == ["fc7, parameters"]


EQUATIONS = re.findall(r"`([^`=]+) = ([\d.,]+)`", "\n".join(" ".join([row[2], row[3]]) for row in ROWS))


@pytest.mark.parametrize(("expression", "result"), EQUATIONS, ids=[expression for expression, _ in EQUATIONS])
def test_equations(expression, result):
    result = result.replace(",", "")
    decimals = len(result.partition(".")[2])
    assert round(value(ast.parse(expression, mode="eval").body), decimals) == float(result)


def value(node: ast.expr) -> float:
    """Arithmetic, and ceil()."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left, op, right):
            a, b = value(left), value(right)
            return {ast.Add: a + b, ast.Sub: a - b, ast.Mult: a * b, ast.Div: a / b}[type(op)]
        case ast.Call(func=ast.Name("ceil"), args=[inside]):
            return math.ceil(value(inside))
    raise ValueError(f"not arithmetic: {ast.dump(node)}")


def test_the_equations_are_found():
    assert len(EQUATIONS) > 45
    assert len(re.findall("=", "".join(row[2] + row[3] for row in ROWS))) == len(EQUATIONS)


# -------------------------------------------------------------------------------------------- figures in the reasons' text


def test_the_ungrouped_networks_parameters(net):
    """The number that is written, in the net that the reason names."""
    ungrouped = alexnet.VARIANTS["ungrouped"]
    areas = [math.prod(getattr(net.tower0, f"conv{i}").kernel_size) for i in range(1, 6)]
    maps = itertools.pairwise([3, *ungrouped.channels])
    kernels = sum((seen * area + 1) * made for (seen, made), area in zip(maps, areas, strict=True))
    units = itertools.pairwise([ungrouped.channels[-1] * 6 * 6, ungrouped.units, ungrouped.units, 1000])
    row = next(row for row in ROWS if row[0] == "the network, parameters")
    assert ungrouped.towers == 1
    assert numbers(row[1]) == [kernels + sum((seen + 1) * made for seen, made in units)]


def test_the_paper_multiplies_noise_by_the_eigenvalue():
    """The levels of noise with the eigenvalues of pixels from 0 to 255, and with those of pixels from 0 to 1."""
    row = next(row for row in ROWS if row[0].startswith("deviation of the colour noise"))
    levels, fractions = (
        scale * np.sqrt(((0.1 * IMAGENET_COMPONENTS * (IMAGENET_STDEVS / scale) ** 2) ** 2).sum(axis=1)) for scale in (1, 255)
    )
    assert numbers(row[1]) == [round(float(level)) for level in levels]
    assert numbers(row[3])[-3:] == [round(float(level), 2) for level in fractions]


def test_relus_slope_at_0_is_0():
    assert "at 0 itself the program takes 0" in next(row[3] for row in ROWS if row[0] == "relu")
    assert relu_slope(0.0) == 0


def test_the_sum_of_the_papers_figure_2():
    """Its numbers are right but for the first."""
    printed = [253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    row = next(row for row in ROWS if row[0] == "neurons (abstract)")
    assert numbers(row[3])[-1] == sum(printed)


def test_224_pixels_leave_a_part_of_a_step(net):
    conv1 = net.tower0.conv1
    row = next(row for row in ROWS if row[0] == "side of an image (section 3.5)")
    assert (SIDE - conv1.kernel_size[0]) / conv1.stride[0] + 1 == 54.25 and "= 54.25" in row[3]


def test_with_the_printed_sigma_every_unit_of_conv4_and_conv5_is_on():
    """In a net of an eighth of the width, whose initial weights are larger by what it is narrower."""
    minidl.manual_seed(0)
    images = minidl.randn(2, 3, SIDE, SIDE).data * 50
    on = {}
    for literal in (True, False):
        net = alexnet.AlexNet(10, "cpu:0", width=0.125, literal_init=literal).eval()
        handles = [
            layer.register_forward_hook(lambda m, x, y, key=(literal, name): on.update({key: float((y.data > 0).mean())}))
            for name, layer in net.tower0.named_modules()
            if name in ("conv4", "conv5")
        ]
        with minidl.no_grad():
            net(images)
        for handle in handles:
            handle.remove()
    assert on[True, "conv4"] == on[True, "conv5"] == 1.0
    assert max(on[False, "conv4"], on[False, "conv5"]) < 0.95
