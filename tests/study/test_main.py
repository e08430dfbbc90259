"""python -m minidl.study: the commands, the networks that it takes, and one line for every mistake."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minidl.study import summary
from minidl.study.__main__ import main
from minidl.study.log import COLUMNS
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


@pytest.mark.parametrize("form, start", [("text", "Sequential, input 1 x 3 x 8 x 8\n"), ("markdown", "| layer | output |")])
def test_the_forms_of_a_summary(net, capsys, form, start):
    main(["summary", f"{net}:make", "--input", "1x3x8x8", "--format", form])
    assert capsys.readouterr().out.startswith(start)


def test_json_is_a_form_too(net, capsys):
    main(["summary", f"{net}:make", "--input", "1x3x8x8", "--json"])
    assert json.loads(capsys.readouterr().out)["version"] == 1


@pytest.mark.parametrize(
    "form, start", [([], "<svg "), (["--format", "mermaid"], "flowchart TD"), (["--format", "dot"], "digraph")]
)
def test_the_forms_of_a_graph(net, capsys, form, start):
    main(["graph", f"{net}:make", "--input", "2x3x8x8", *form])
    printed = capsys.readouterr().out
    assert printed.startswith(start) and "2 x 7 float32" in printed


def test_a_graph_in_a_file(net, tmp_path, capsys):
    main(["graph", f"{net}:make", "--input", "1x3x8x8", "--out", str(tmp_path / "x.dot")])
    assert capsys.readouterr().out == f"{tmp_path / 'x.dot'}: 6 nodes, 5 edges\n"
    assert (tmp_path / "x.dot").read_text().startswith("digraph")
    for more, message in (
        (["--out", "x.png"], "must end in .svg, .mmd, .dot"),
        (["--out", "x.dot", "--format", "dot"], "--format"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["graph", f"{net}:make", "--input", "1x3x8x8", *more])
        assert end.value.code == 2 and message in capsys.readouterr().err


ROWS = [
    {"step": 10, "epoch": 0, "lr": 0.003, "loss": 1.0625, "top1": 0.5, "skipped": 0, "images_per_second": 21.5, "seconds": 7.4},
    {"step": 12, "illness": "dead units, it seems", "layers": {"conv1": 'a "third"'}, "new": None},
    {"step": 12, "held_out_loss": 0.1 + 0.2, "held_out_top1": 0.9, "held_out_top5": 1.0},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/arguments.json").write_text('{"arguments": {}}')
    (tmp_path / "run/log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 1')  # cut short
    return tmp_path / "run"


def test_a_log_as_csv(run, capsys):
    """Read back by the csv module, every number is what the log has, to the last digit."""
    assert main(["log", str(run), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [*COLUMNS, "new"]
    back = [{name: _read(name, text) for name, text in row.items() if text} for row in rows]
    assert back == [{name: value for name, value in row.items() if value is not None} for row in ROWS]


def _read(name, text):
    return text if name == "illness" else json.loads(text)


def test_a_log_to_read(run, capsys):
    assert main(["log", str(run), "--wide"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [*COLUMNS, "new"] and len(lines) == 3 and "0.3  " in lines[2] and len(lines[0]) <= len(head)


def test_what_is_no_log(run, tmp_path, capsys, monkeypatch):
    (run / "log.jsonl").unlink()
    monkeypatch.chdir(tmp_path)
    for given, message in (
        (str(run), "has no rows in log.jsonl yet"),
        (str(tmp_path), "is neither a run folder"),
        ("last", "there is no run with a checkpoint in runs/"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["log", given])
        errors = capsys.readouterr().err
        assert end.value.code == 2 and message in errors and errors.count("\n") == 1


@pytest.mark.parametrize("command", [["log", "{run}", "--csv"], ["graph", "{net}:make", "--input", "1x3x8x8"]])
def test_whose_reader_leaves_ends_in_silence(run, net, command):
    given = [part.format(run=run, net=net) for part in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "minidl.study", *given], **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == ("", 141)


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


def test_the_page_has_the_columns():
    page = (Path(__file__).parents[2] / "docs" / "tensorboard.md").read_text()
    assert re.findall(r"`(\w+)`", page.split("in this order:")[1].split(". A row")[0]) == list(COLUMNS)


def widest(text):
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize(
    "command",
    [
        "summary {net}:make --input 123456x3x8x8",
        "summary {net}:make --input 2x3x8x8 --ranks 8,1024 --bandwidth 12.5",
        "ledger {net}:make --input 2000x3x8x8",
        "mutations",
        "log {run}",
        "why --model {net}:make --input 1x3x8x8 --gradient 1.weight[3,5]",
    ],
)
def test_the_text_fits_the_terminal_and_wide_shows_all(net, run, capsys, monkeypatch, command):
    def printed(*more):
        assert main([part.format(net=net, run=run) for part in command.split()] + [*more]) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "80")
    narrow, wide = printed(), printed("--wide")
    assert widest(narrow) <= 80 and "--wide shows all" not in wide
    left_out = re.search(r"Left out, to fit 80 columns: ([^.]*)\.", " ".join(narrow.split()))
    if left_out:
        assert all(heading in " ".join(wide.split()) for heading in left_out[1].split(", "))
    monkeypatch.setenv("COLUMNS", "60")
    assert widest(printed()) <= max(60, widest(narrow)) and widest(narrow) <= widest(wide)


def test_alexnet_fits_80_columns_and_grows():
    """About a second: the whole network is measured once."""
    result = summary(load_model("alexnet"), (1, 3, 224, 224))
    narrow, wider, whole = (result.text(width) for width in (80, 120, None))
    assert widest(narrow) <= 80 < widest(wider) <= 120 < widest(whole)
    heads = [text.splitlines()[1] for text in (narrow, wider, whole)]
    assert ["MACs fwd" in head for head in heads] == [True] * 3
    assert ["MACs bwd" in head for head in heads] == [False, True, True]
    assert "crosses bwd B" in heads[2] and "60,965,224" in narrow and "Left out" not in whole


@pytest.mark.parametrize("command", ["summary", "ledger", "graph", "explore", "why", "laboratory", "log", "mutations"])
def test_the_help_fits_80_columns_and_says_what_each_option_does(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "80")
    for given in ([command, "--help"], ["--help"]):
        with pytest.raises(SystemExit) as end:
            main(given)
        text = capsys.readouterr().out
        assert end.value.code == 0 and widest(text) <= 80
        options = re.findall(r"^  -.*\n(?:   .*\n)*", text, re.MULTILINE)
        assert options and all(len(re.findall(r"[a-z]{2,}", re.sub(r"--?[\w-]+", "", each))) > 2 for each in options)
