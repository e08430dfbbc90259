"""python -m minidl.study: the commands, the networks that it takes, and one line for every mistake."""

import json
import subprocess
import sys

import pytest

from minidl.study.__main__ import main
from minidl.study.models import load_model

NET = """
from dataclasses import dataclass
from beside import UNITS
from minidl import nn

@dataclass
class Sizes:
    units: int = UNITS

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, Sizes().units), nn.ReLU(), nn.Linear(Sizes().units, 5))

def number():
    return 3

not_a_function = 3
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("UNITS = 7\n")
    return tmp_path / "net.py"


def test_a_network_of_one_s_own(net, capsys):
    assert main(["summary", f"{net}:make", "--input", "2x3x8x8", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["totals"]["parameters"] == 192 * 7 + 7 + 7 * 5 + 5 and content["input_shape"] == [2, 3, 8, 8]


@pytest.mark.parametrize("form, start", [("text", "Sequential, input 1 x 3 x 8 x 8; "), ("markdown", "| layer | output |")])
def test_the_forms_of_a_summary(net, capsys, form, start):
    main(["summary", f"{net}:make", "--input", "1x3x8x8", "--format", form])
    assert capsys.readouterr().out.startswith(start)


def test_the_ledger(net, capsys):
    assert main(["ledger", f"{net}:make", "--input", "6x3x8x8"]) == 0
    text = capsys.readouterr().out
    assert "cross_entropy" in text and "at the peak, " in text and "1 (linear) backward" in text


@pytest.mark.parametrize(
    "name, message",
    [
        ("net", "a model is alexnet or file.py:function, got 'net'"),
        ("net.txt:make", "a model is alexnet or file.py:function, got 'net.txt:make'"),
        ("missing.py:make", "missing.py is not a file"),
        ("{net}:other", "net.py must have a function 'other', which returns the model"),
        ("{net}:not_a_function", "must have a function 'not_a_function'"),
        ("{net}:number", "must return a minidl.nn.Module, got int"),
    ],
)
def test_what_is_no_model(net, capsys, name, message):
    with pytest.raises(SystemExit) as end:
        main(["summary", name.format(net=net)])
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("minidl.study: error: load_model: ") and message in errors and errors.count("\n") == 1


def test_a_batch_that_does_not_fit(net, capsys):
    with pytest.raises(SystemExit) as end:
        main(["summary", f"{net}:make", "--input", "1x3x9x8"])
    assert end.value.code == 2 and "linear: " in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["", "3x", "0x3", "a"])
def test_what_is_no_shape(capsys, shape):
    with pytest.raises(SystemExit) as end:
        main(["summary", "--input", shape])
    assert end.value.code == 2 and f"as 1x3x224x224, got '{shape}'" in capsys.readouterr().err


def test_importing_a_model_leaves_the_path_alone(net):
    before = list(sys.path)
    load_model(f"{net}:make")
    assert sys.path == before


def test_it_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "minidl.study", "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "summary" in result.stdout and "ledger" in result.stdout


def test_alexnet_is_found():
    assert type(load_model("alexnet")).__name__ == "AlexNet"
