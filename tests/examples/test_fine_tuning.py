"""train.py --init, --freeze and --lr-scale: what begins with which weights, and what is trained at which rate."""

import json

import data as alexnet_data
import numpy as np
import pytest
from model import LAYERS, AlexNet
from run_checks import TINY

import minidl
from minidl.checkpoint import load_checkpoint
from minidl.convert import save_weights

pytestmark = pytest.mark.usefixtures("no_curves")
WIDTH = float(TINY[TINY.index("--width") + 1])


@pytest.fixture
def weights(tmp_path):
    """Of the tests' narrow net, for five classes; the images have two."""
    path = tmp_path / "w.safetensors"
    minidl.manual_seed(99)  # other weights than a run draws
    net = AlexNet(5, width=WIDTH)
    save_weights(path, net.merged_state_dict(), {"variant": "two_towers", "profile": "paper"})
    return path, net.merged_state_dict()


def after_steps(folder, step):
    """A run's parameters, by merged names."""
    net = AlexNet(2, width=WIDTH)
    net.load_state_dict(load_checkpoint(folder / "checkpoints" / f"step-{step:06d}").model_state)
    return net.merged_state_dict()


def test_a_run_begins_with_the_weights_and_leaves_frozen_layers_alone(call, images, weights, tmp_path):
    path, before = weights
    frozen = "conv1,conv2,conv3,conv4,conv5,fc6"
    arguments = [
        images,
        *TINY,
        "--steps",
        2,
        "--init",
        path,
        "--freeze",
        frozen,
        "--lr-scale",
        "fc8=10",
        "--out",
        tmp_path / "run",
    ]
    code, out, err = call(*arguments)
    assert code == 0, err
    assert f"{path}: has 5 classes, the data 2: fc8 is new\n" in out
    assert "fc8 10 times as much" in out and "fc6 frozen" in out
    after = after_steps(tmp_path / "run", 2)
    for name in LAYERS[:-1]:
        same = np.array_equal(before[f"{name}.weight"], after[f"{name}.weight"])
        assert same == (name in frozen), name
    assert not np.array_equal(before["fc7.bias"], after["fc7.bias"])
    assert json.loads((tmp_path / "run" / "arguments.json").read_text())["arguments"]["init"] == str(path)
    code, out, err = call("--resume", tmp_path / "run", "--steps", 3)
    assert code == 0, err
    resumed = after_steps(tmp_path / "run", 3)
    np.testing.assert_array_equal(resumed["conv1.weight"], before["conv1.weight"])
    assert not np.array_equal(resumed["fc7.weight"], after["fc7.weight"])


def test_groups_of_scaled_layers():
    net = AlexNet(5, width=0.05)
    net.freeze(["conv1", "conv2"])
    groups = net.parameter_groups(0.01, 0.0005, {"fc8": 10.0, "conv3": 0.5, "fc7": 10.0})
    rates = [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    assert rates == [
        *((0.01, 0.0005, 6), (0.02, 0.0, 6)),  # conv4, conv5 and fc6, of two towers
        *((0.005, 0.0005, 2), (0.01, 0.0, 2)),
        *((0.1, 0.0005, 3), (0.2, 0.0, 3)),
    ]
    assert {p for group in groups for p in group["params"]} == {p for p in net.parameters() if p.requires_grad}


def test_variant_and_profile_are_those_of_the_weights(call, images, tmp_path):
    net = AlexNet(2, "cpu:0", variant="torchvision", width=WIDTH)
    about = {"variant": "torchvision", "profile": "torchvision"}
    save_weights(tmp_path / "w.safetensors", net.merged_state_dict(), about)
    code, out, _ = call(images, *TINY, "--init", tmp_path / "w.safetensors", "--dry-run")
    assert code == 0 and "profile torchvision, variant torchvision" in out and "fc8 is new" not in out
    code, _, err = call(images, *TINY, "--init", tmp_path / "w.safetensors", "--variant", "half", "--dry-run")
    assert code == 2 and "its weights are for --variant torchvision, got half" in err


def test_the_mean_image_that_comes_with_the_weights_is_subtracted(call, images, weights, tmp_path):
    path, arrays = weights
    mean = np.random.default_rng(3).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    save_weights(path, {**arrays, "mean": mean})
    code, out, err = call(images, *TINY, "--steps", 1, "--init", path, "--out", tmp_path / "run")
    assert code == 0 and f"{path}: its mean image is subtracted" in out, err
    statistics = alexnet_data.load_statistics(tmp_path / "run" / "statistics.npz")
    np.testing.assert_array_equal(statistics.mean, mean)
    assert statistics.components.shape == (3, 3)  # these are of the data
    save_weights(path, {**arrays, "mean": mean[:200]})
    code, _, err = call(images, *TINY, "--init", path, "--dry-run")
    assert code == 2 and "its mean image must have the shape (256, 256, 3) of the images, got (200, 256, 3)" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv2.bias": None}, "w.safetensors: must have the tensors of AlexNet, 1 are missing: conv2.bias"),
        ({"x": np.zeros(1)}, "must have the tensors of AlexNet, 1 are too many: x"),
        ({"fc7.bias": np.zeros(3)}, "fc7.bias must have the shape"),
    ],
)
def test_weights_that_do_not_fit(call, images, weights, tmp_path, changes, message):
    path, arrays = weights
    save_weights(path, {name: array for name, array in {**arrays, **changes}.items() if array is not None})
    code, _, err = call(images, *TINY, "--init", path, "--dry-run")
    assert code == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--freeze", "conv9"], "must be of conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8, got 'conv9'"),
        (["--freeze", ",".join(LAYERS)], "at least 1 layer must be trained"),
        (["--lr-scale", "fc8"], "must be a number above 0, got ''"),
        (["--lr-scale", "fc9=2"], "got 'fc9'"),
        (["--layers", "x.cfg", "--params", "y.cfg", "--freeze", "conv1"], "--freeze can't be given with --layers"),
        (["--init", "none.safetensors"], "No such file"),
        (["--init", __file__], "must be in the safetensors format"),
    ],
)
def test_flags_that_make_no_sense(call, images, arguments, message):
    tiny = [] if "--layers" in arguments else TINY
    code, _, err = call(images, *tiny, *arguments, "--dry-run")
    assert code == 2 and message in err


def test_a_run_keeps_its_rates(call, images, weights, tmp_path):
    assert call(images, *TINY, "--steps", 1, "--out", tmp_path / "run")[0] == 0
    code, _, err = call("--resume", tmp_path / "run", "--init", weights[0])
    assert code == 2 and "--init can't be given with --resume" in err
