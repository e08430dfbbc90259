"""why: a number by its name, its terms in lines, and a line for every mistake."""

import re

import numpy as np
import pytest
from study_nets import SHAPE, Towers

import minidl
from minidl import Function, nn
from minidl.study import why
from minidl.study.__main__ import main
from minidl.study.step.why import Step, recorded_step


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(5).normal(size=SHAPE).astype("f4")


@pytest.fixture(scope="module")
def step(image):
    minidl.manual_seed(8)
    return Step(recorded_step(Towers(), image, 2))


def numbers(text, word):
    """The number in front of a word, as it is printed."""
    return re.search(rf"^ *(\S+)  {re.escape(word)}$", text, re.MULTILINE)[1]


@pytest.mark.parametrize(
    "name, gradient, of",
    [
        ("conv1.weight[3,2,1,0]", True, (1, "g1")),
        ("tower1.conv1.weight[3,2,1,0]", True, (4, "g1")),
        ("conv1.bias[2]", True, (1, "g2")),
        ("conv1.output[0,3,5,6]", False, (1, "y")),
        ("conv1.output[0,3,5,6]", True, (2, "g0")),
        ("tower1.norm1.input[0,3,5,6]", False, (4, "y")),
        ("fc3.output[0,4]", False, (19, "y")),
        ("fc3.weight[4,11]", True, (19, "g1")),
        ("1.y[0,3,5,6]", False, (1, "y")),
        ("1.gy[0,3,5,6]", False, (2, "g0")),
        ("loss", False, (24, "y")),
    ],
)
def test_names(step, name, gradient, of):
    answer = step.why(name, gradient)
    number, slot = of
    index = tuple(int(i) for i in re.findall(r"\d+", name.partition("[")[2]))
    assert answer.value == float(step.ops[number].array(slot)[index])
    assert answer.name.endswith(
        f"op {number}, {step.ops[number].op}" + (f" of {step.ops[number].layer}" if step.ops[number].is_layer else "")
    )
    assert abs(answer.value - answer.found.sum) <= answer.found.bound


def test_a_slot_s_gradient_is_called_one(step):
    assert step.why("1.gy[0,3,5,6]").name.startswith("gradient of 1.y[0,3,5,6], op 2, ")
    assert step.why("2.g0[0,3,5,6]").name.startswith("gradient by op 2 of 2.x0[0,3,5,6], op 2, ")


def test_what_is_printed(step):
    answer = step.why("fc3.weight[1,3]", gradient=True)
    assert len(answer.found.terms) == 1
    text = step.why("conv1.weight[0,0,1,1]", gradient=True).text(3)
    value = re.match(r"gradient of conv1.weight\[0,0,1,1\], op 1, conv2d_relu of tower0.conv1 = (\S+)\n", text)[1]
    assert numbers(text, "sum") == numbers(text, "minidl's number") == value
    count = int(re.search(r"(\d+) terms, the largest first:", text)[1])
    lines = text.split("the largest first:\n")[1].splitlines()
    assert re.search(rf"{count - 3} others together", lines[3])
    shown = [abs(float(line.split()[0])) for line in lines[:3]]
    assert shown == sorted(shown, reverse=True) and all("gy[0, 0, " in line and "* x0[0, 0, " in line for line in lines[:3])
    whole = step.why("conv1.weight[0,0,1,1]", gradient=True).text(None)
    assert whole.count("* x0[") == count and "others" not in whole
    assert "Equal to" in text and "also of tower1.conv1" in text and "x0: what the model was given" in text


def test_the_relu_is_off(step):
    off = np.argwhere(step.ops[1].y == 0)[0].tolist()
    text = str(step.why(f"conv1.output{off}"))
    assert numbers(text, "max(0, sum)") == numbers(text, "minidl's number") == "0" and numbers(text, "sum").startswith("-")


def test_a_pixel_s_gradient_comes_from_both_towers(step, image):
    answer = step.why("input[0,1,4,5]", gradient=True)
    assert [f.slot for term in answer.found.terms for f in term.factors] == ["0.g0", "1.g0"]
    assert answer.value == pytest.approx(answer.found.sum, rel=1e-6) and answer.value != 0
    assert step.why("input[0,1,4,5]").value == image[0, 1, 4, 5]


def test_several_ops_gave_a_gradient(step):
    """pool1's output goes to both towers."""
    answer = step.why("tower0.pool1.output[0,1,2,3]", gradient=True)
    assert len(answer.found.terms) == 2 and answer.value == step.ops[3].gy[0, 1, 2, 3]


def test_where_terms_end(step):
    assert "It is a parameter" in str(step.why("conv1.weight[0,0,0,0]"))
    assert "nothing in the step made it" in str(step.why("input[0,0,0,0]"))
    assert "Backward begins here" in str(step.why("loss", gradient=True))


def test_an_op_of_one_s_own(image):
    class CubeFunction(Function):
        name = "cube"

        def forward(ctx, x):
            return x * x * x

    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(CubeFunction.apply(x.detach()))

    answer = why(Cube(), np.ones((1, 4), "f4"), "0.y[0,1]")
    assert answer.value == 1.0 and "The terms of cube are not written out. Written out are those of conv2d" in str(answer)
    with pytest.raises(ValueError, match="no gradient came to input"):
        why(Cube(), np.ones((1, 4), "f4"), "input[0,1]", gradient=True)


@pytest.mark.parametrize(
    "name, gradient, error, message",
    [
        (
            "conv11.weight[0,0,0,0]",
            False,
            ValueError,
            "no parameter, input or output has the name 'conv11.weight'; near it: conv1.weight",
        ),
        ("zzz", False, ValueError, "has the name 'zzz'; there are "),
        (
            "conv1.weight[4,0,0,0]",
            False,
            IndexError,
            r"conv1.weight has the shape \(4, 3, 3, 3\), got the index \[4, 0, 0, 0\]: 4 on axis 0 is not below 4",
        ),
        ("conv1.weight[0,0,0]", False, IndexError, r"got the index \[0, 0, 0\]"),
        ("conv1.weight", False, IndexError, r"got the index \[\]"),
        (
            "conv1.weight[0,0,0,-1]",
            False,
            ValueError,
            r"a number is a name and an index, as .*, got 'conv1.weight\[0,0,0,-1\]'",
        ),
        ("1.g7[0]", False, ValueError, "those of 3 inputs, got 'g7'"),
        ("22.g1[0,0]", False, ValueError, "no gradient came to 22.g1"),
        ("1.g1[0,0,0,0]", True, ValueError, r"1.g1\[0,0,0,0\] is a gradient itself"),
    ],
)
def test_mistakes(step, name, gradient, error, message):
    with pytest.raises(error, match=message):
        step.why(name, gradient)


def test_the_model_is_as_it_was(image):
    model, state = Towers(), minidl.random.default_generator.state()
    model.eval()
    first = why(model, image, "drop2.output[0,3]", label=1).value
    assert minidl.random.default_generator.state() == state and not model.training
    assert all(p.grad is None for p in model.parameters()) and why(model, image, "drop2.output[0,3]", label=1).value == first


NETWORK = """
from minidl import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
"""


@pytest.fixture
def command(tmp_path, capsys):
    (tmp_path / "net.py").write_text(NETWORK)

    def command(*arguments):
        minidl.manual_seed(1)
        model = ["--model", f"{tmp_path}/net.py:make", "--input", "1x3x10x10"]
        status = main(["why", *arguments, *model])
        return status, capsys.readouterr().out

    return command


def test_the_command(command):
    status, text = command("0.weight[2,1,0,2]", "--gradient", "--terms", "2", "--label", "3")
    assert status == 0 and "op 0, conv2d of 0 = " in text and "62 others together" in text
    assert numbers(text, "sum") == numbers(text, "minidl's number")
    assert "nothing was trained" in text and "embedded patterns" in text
    assert command("3.weight[2,1]", "--terms", "0")[0] == 0


def test_the_command_s_names(command):
    lines = [line.split() for line in command()[1].splitlines()]
    assert (
        ["0.weight", *["4", "x", "3", "x", "3", "x", "3"]] in lines
        and ["3.output", *["1", "x", "5"]] in lines
        and ["loss", "1"] in lines
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["0.weigth[0,0,0,0]"], "why: no parameter, input or output has the name '0.weigth'; near it: 0.weight"),
        (
            ["0.weight[0,3,0,0]"],
            "why: 0.weight has the shape (4, 3, 3, 3), got the index [0, 3, 0, 0]: 3 on axis 1 is not below 3",
        ),
        (["loss", "--terms", "-1"], "why: --terms must be at least 0, got -1"),
    ],
)
def test_the_command_s_mistakes(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err
