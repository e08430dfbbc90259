"""AlexNet on a GPU against the same on the host; and train.py, on the stand-in for a GPU too."""

import json

import data as alexnet_data
import fake_cupy
import numpy as np
import pytest
import train
from emulator import emulator
from model import AlexNet

import minidl
import minidl.nn.functional as F
from minidl import Device, DeviceError
from minidl.checkpoint import load_checkpoint

STEPS, CLASSES = 20, 10


def trained(devices, profile, batch=4):
    """The losses of 20 steps in float64, at a tenth of the width: weights, images and dropout's masks are the same."""
    minidl.manual_seed(0)
    data = np.random.default_rng(0)
    net = AlexNet(CLASSES, devices, profile, width=0.1).double()
    optimizer = minidl.optim.SGD(net.parameter_groups(0.003, 5e-4), lr=0.003, momentum=0.9, rule="2012")
    losses = []
    for _ in range(STEPS):
        images, labels = data.uniform(-120, 130, (batch, 3, 224, 224)), data.integers(0, CLASSES, batch)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("profile", ["paper", "original"])
@pytest.mark.parametrize("devices", [["cuda:0"], ["cuda:0", "cuda:1"]], ids=["one device", "two devices"])
@pytest.mark.parametrize("gpu", ["cuda:0"])
def test_twenty_steps_are_the_hosts(gpu, devices, profile):
    """A rounding is 1e-16 of a value and training multiplies it: 20 steps leave seven digits for that."""
    try:
        Device(gpu)
    except DeviceError as error:
        pytest.skip(str(error))
    host = trained(["cpu:0", "cpu:1"][: len(devices)], profile)
    np.testing.assert_allclose(trained(devices, profile), host, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_twenty_steps_of_the_kernels_are_the_hosts(monkeypatch):
    """The kernels themselves, run by the CPU; only cuBLAS is NumPy. A rounding is 1e-16 of a value; sums of a hundred terms in
    another order, tiles and 20 steps of training leave three digits for that."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch)
    host = trained(["cpu:0", "cpu:1"], "paper", batch=2)
    np.testing.assert_allclose(trained(["cuda:0", "cuda:1"], "paper", batch=2), host, rtol=1e-13)
    assert {"mdl_winograd_output", "mdl_im2col", "mdl_winograd_filter_gradient"} <= set(fake_cupy.launches)
    assert fake_cupy.errors == []


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("towers_devices", [1, 2])
def test_a_run_on_the_stand_in_is_the_hosts(towers_devices, tmp_path, monkeypatch, call_main):
    """From images that go over as bytes to the checkpoint. A float32 rounding is 6e-8; sums of some thousand terms, through
    eight layers, in two steps, may multiply it by a hundred: 1e-5 of a layer's largest weight."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch)
    for name, value in (("PATTERNS_TRAIN", 8), ("PATTERNS_HELD_OUT", 2), ("STATISTICS_IMAGES", 4)):
        monkeypatch.setattr(alexnet_data, name, value)
    weights, devices = [], ",".join(["cuda:0", "cuda:1"][:towers_devices])
    for where, out in ((devices, "gpu"), ("cpu:0,cpu:1", "host")):
        arguments = ["--width", 0.05, "-b", 2, "-j", 1, "--steps", 2, "--device", where, "--out", tmp_path / out]
        code, printed, errors = call_main(train.main, *arguments)
        assert code == 0, errors
        saved = load_checkpoint(tmp_path / out / "checkpoints" / "step-000002")
        weights.append(saved.model_state)
        hardware = "a stand-in, CUDA 13.0 by its driver, 13.2 by CuPy 14.2.0"
        assert (f"; float32; {hardware}; NumPy" in printed) == (out == "gpu")
        assert json.loads((tmp_path / out / "arguments.json").read_text())["versions"] == saved.state["versions"]
        assert saved.state["versions"].get("gpu") == (hardware if out == "gpu" else None)
    there, here = weights
    for name, expected in here.items():
        np.testing.assert_allclose(there[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)
    assert "mdl_input_step" in fake_cupy.launches and fake_cupy.errors == []
