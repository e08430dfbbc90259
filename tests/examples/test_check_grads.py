"""train.py --check-grads: a row for every gradient, and a wrong backward is found."""

import pytest
import train
from model import PROFILES, AlexNet

from minidl import kernels
from minidl.ops import linear


def rows(text):
    """(layer, gradient of) -> op and what follows."""
    return {tuple(line.split()[:2]): line.split()[2:] for line in text.splitlines()[1:-1] if len(line.split()) > 3}


@pytest.mark.parametrize("profile", ["paper", "original"])
def test_every_layer_of_both_towers_is_checked(profile, capsys):
    model = AlexNet(5, ("cpu:0", "cpu:1"), profile, 0.03)
    assert train.check_grads(model) == 0
    text = capsys.readouterr().out
    assert text.endswith("\nevery backward agrees with its forward\n")
    weighted = [f"conv{i}" for i in range(1, 6)] + ["fc6", "fc7"]
    weighted = [f"tower{t}.{name}" for name in weighted for t in (0, 1)] + ["fc8"]
    plain = ["relu6", "relu7", "norm1", "norm2", "pool1", "pool2", "pool5", "drop6", "drop7"]
    plain += ["relu1"] if PROFILES[profile].norm_first else []
    expected = {(name, part) for name in weighted for part in ("input", "weight", "bias")}
    expected |= {(f"tower{t}.{name}", "input") for name in plain for t in (0, 1)}
    found = rows(text)
    assert expected == {key for key in found if key[0].startswith(("tower", "fc8"))}
    assert all(float(found[key][1]) < 1e-5 and found[key][2] == "8" for key in expected)


def test_a_wrong_backward_is_found(monkeypatch, capsys):
    right = linear.linear_backward

    def linear_backward(*args):
        """The bias's gradient a thousandth too large."""
        gx, gw, gb = right(*args)
        return gx, gw, gb * 1.001

    monkeypatch.setattr(linear, "linear_backward", linear_backward)
    monkeypatch.delitem(kernels.REPLACEMENTS, ("cpu", "linear_backward"))
    monkeypatch.setenv("COLUMNS", "80")
    assert train.check_grads(AlexNet(5, "cpu:0", width=0.03, variant="half")) == 1
    text = capsys.readouterr().out
    failed = [line.split() for line in text.splitlines() if " FAILED (" in line]
    assert [row[:4] for row in failed] == [[name, "bias", "linear", "-"] for name in ("tower0.fc6", "tower0.fc7", "fc8")]
    assert max(map(len, text.splitlines())) <= 80
    for row in failed:
        diagnosis = " ".join(text.split(f"\n{row[-1]} ")[1].split("\n(")[0].split())
        assert diagnosis.startswith("FAILED: linear: backward disagrees with forward for bias") and "ratio 1.001" in diagnosis
    assert text.endswith("\n3 gradients disagree with their forward\n")
