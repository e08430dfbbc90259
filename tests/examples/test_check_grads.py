"""check_grads.py: every layer is checked at its own shapes, and a wrong backward is found."""

import numpy as np
import pytest
from check_grads import check_layers
from model import PROFILES, AlexNet

from minidl import GradcheckError, kernels
from minidl.ops import conv2d_relu, linear, local_response_norm, max_pool2d


def tiny(profile="paper", devices=("cpu:0", "cpu:1")):
    return AlexNet(5, devices, profile, 0.03).double()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_layer_is_checked(profile):
    rows = list(check_layers(tiny(profile), batch_size=1))
    layers = [f"conv{i}" for i in range(1, 6)] + ["fc6", "fc7"]
    layers = [f"tower0.{name}" for name in layers] + ["fc8"]
    expected = {(name, part) for name in layers for part in ("input", "weight", "bias")}
    plain = ["relu6", "relu7", "norm1", "norm2", "pool1", "pool2", "pool5"]
    plain += ["relu1"] if PROFILES[profile].norm_first else []
    expected |= {(f"tower0.{name}", "input") for name in [*plain, "drop6", "drop7"]}
    assert {(name, row.name) for name, row in rows} == expected and len(rows) == len(expected)
    assert max(row.relative_error for _, row in rows) < 1e-5 and all(row.comparisons == 3 for _, row in rows)


def test_the_model_is_as_before():
    model = tiny(devices="cpu:1")
    before = model.state_dict()
    list(check_layers(model, batch_size=1))
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name], name)
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("module", "backward"),
    [
        (conv2d_relu, "conv2d_relu_backward"),
        (linear, "linear_backward"),
        (local_response_norm, "local_response_norm_backward"),
        (max_pool2d, "max_pool2d_backward"),
    ],
)
def test_a_wrong_backward_is_found(module, backward, monkeypatch):
    right = getattr(module, backward)

    def wrong(*args, **settings):
        """A thousandth too large."""
        result = right(*args, **settings)
        if isinstance(result, tuple):
            return tuple(g if g is None else g * 1.001 for g in result)
        return result * 1.001

    wrong.__name__ = backward
    monkeypatch.setattr(module, backward, wrong)
    monkeypatch.delitem(kernels.REPLACEMENTS, ("cpu", backward), raising=False)
    with pytest.raises(GradcheckError, match="backward disagrees with forward"):
        list(check_layers(tiny(), batch_size=1))
