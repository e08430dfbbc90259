"""AlexNet on a GPU against the same on the host; and train.py, on the stand-in for a GPU too."""

import itertools
import json

import data as alexnet_data
import fake_cupy
import numpy as np
import pytest
import train
from emulator import emulator
from model import AlexNet
from run_checks import assert_same_run
from steps import Steps

import minidl
import minidl.nn.functional as F
from minidl import Device, DeviceError
from minidl.checkpoint import load_checkpoint
from minidl.ops.dropout import DropoutFunction

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


@pytest.fixture
def stand_in(monkeypatch):
    """The stand-in, and 8 drawn images to train on."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    for name, value in (("PATTERNS_TRAIN", 8), ("PATTERNS_HELD_OUT", 2), ("STATISTICS_IMAGES", 4)):
        monkeypatch.setattr(alexnet_data, name, value)
    yield fake_cupy.install(monkeypatch)
    assert fake_cupy.errors == []


TINY = ["--width", 0.05, "-b", 2, "-j", 0, "--device", "cuda:0,cuda:1"]


def each_step(monkeypatch, before=lambda trainer: None, after=lambda trainer: None):
    """Call before(trainer) and after(trainer) around every step; the trainers that take them."""
    step, trainers = train.Trainer.train_step, []

    def watched(trainer, *batch):
        if trainer not in trainers:
            trainers.append(trainer)
        before(trainer)
        step(trainer, *batch)
        after(trainer)

    monkeypatch.setattr(train.Trainer, "train_step", watched)
    return trainers


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_no_step_is_waited_for_but_for_a_report(stand_in, tmp_path, call_main, monkeypatch):
    """Each begins one copy to the host. What is waited for is the copy of the step before, never all that was asked for."""
    ends = []
    each_step(monkeypatch, after=lambda trainer: ends.append(len(fake_cupy.history)))
    code, _, errors = call_main(train.main, *TINY, "--steps", 4, "-p", 9, "--out", tmp_path / "run")
    assert code == 0 and len(ends) == 4, errors
    for begin, end in itertools.pairwise(ends):
        kinds = [event[0] for event in fake_cupy.history[begin:end]]
        assert kinds.count("d2h begun") == 1 and "d2h" not in kinds and "synchronize" not in kinds, kinds
        # the loader's upload of two batches before on both devices, and what the step before said
        assert kinds.count("synchronize event") <= 3
        assert kinds[kinds.index("d2h begun") :].count("synchronize event") == 1


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("autopsy", [[], ["--autopsy", 2]], ids=["", "autopsy"])
def test_reports_and_checkpoints_are_those_of_a_run_that_waits(stand_in, autopsy, tmp_path, call_main, monkeypatch):
    for out, late in (("late", 1), ("waits", 0)):
        if not late:
            monkeypatch.setattr(train, "Steps", lambda model, optimizer, late: Steps(model, optimizer, late=0))
        arguments = [*TINY, "--steps", 5, "-p", 2, "--save-every", 3, "--out", tmp_path / out, *autopsy]
        assert call_main(train.main, *arguments)[0] == 0
    assert_same_run(tmp_path / "late", tmp_path / "waits", step=3)
    assert_same_run(tmp_path / "late", tmp_path / "waits", step=5)
    for name in ("autopsy.csv",) if autopsy else ():
        assert (tmp_path / "late" / name).read_text() == (tmp_path / "waits" / name).read_text()


def nan_in_a_weight(trainer):
    weight = trainer.model.tower1.conv3.weight
    with weight.device.active():
        weight.data[1, 0, 2, 2] = np.nan


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context", "ignore::RuntimeWarning")
def test_a_weight_that_is_not_finite_stops_the_run_a_step_late_under_the_right_name(stand_in, tmp_path, call_main, monkeypatch):
    trainers = each_step(monkeypatch, before=lambda trainer: nan_in_a_weight(trainer) if trainer.step == 2 else None)
    code, _, errors = call_main(train.main, *TINY, "--steps", 8, "--save-every", 2, "--out", tmp_path / "run")
    (trainer,) = trainers
    assert trainer.step == 3, "step 4 was asked for, and not counted"
    assert code == 1 and "stopped: step 3: the loss is nan; tower1.conv3.weight is not finite any more; the last" in errors
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context", "ignore::RuntimeWarning")
@pytest.mark.parametrize("save_every", [99, 3])
def test_a_gradient_that_is_not_finite_changes_no_weight_on_either_device(
    stand_in, save_every, tmp_path, call_main, monkeypatch
):
    """It is one tower's, in step 3; step 4, whose gradients are all right, has begun or the checkpoint asks before that."""
    backward, spoiled = DropoutFunction.backward, [None]
    weights = []

    def of_step_3(ctx, gy):
        (mask,) = (array for array in ctx.saved if getattr(array, "dtype", None) == np.dtype(bool))
        if spoiled[0] is True:
            spoiled[0] = mask._array.copy()
        (gx,) = backward(ctx, gy)
        same = isinstance(spoiled[0], np.ndarray) and mask.shape == spoiled[0].shape and (mask._array == spoiled[0]).all()
        return (gx * np.float32(np.inf),) if same else (gx,)

    def before(trainer):
        if trainer.step == 2:
            spoiled[0] = True
            trainer.catch_up()
            weights.append([p.detach().numpy() for p in trainer.model.parameters()])

    monkeypatch.setattr(DropoutFunction, "backward", of_step_3)
    trainers = each_step(monkeypatch, before)
    arguments = [*TINY, "--steps", 8, "--save-every", save_every, "--out", tmp_path / "run"]
    code, _, errors = call_main(train.main, *arguments)
    assert code == 1 and "stopped: step 3: a gradient is not finite; it began in dropout in tower" in errors
    for p, before_it in zip(trainers[0].model.parameters(), weights[0], strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), before_it)
