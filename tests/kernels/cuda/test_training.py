"""Whole training steps with the CUDA kernels, on one and on two logical devices, against the same steps on NumPy."""

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

import minidl
import minidl.nn.functional as F
from minidl import Device, Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:cuda.1 is a second context")


@pytest.fixture(params=[1, 2], ids=["one GPU", "two GPUs"])
def gpus(request, monkeypatch):
    """The stand-in for CuPy on a machine with one GPU, which both logical devices share, or two."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    yield fake_cupy.install(monkeypatch, gpus=request.param)
    assert fake_cupy.errors == []


class Towers(nn.Module):
    """AlexNet's kinds of layers in two towers that exchange what they computed."""

    def __init__(self, devices):
        super().__init__()
        self.devices = [Device(d) for d in devices]
        for i, device in enumerate(self.devices):
            setattr(self, f"conv1_{i}", nn.Conv2d(3, 6, 5, stride=2, device=device))
            setattr(self, f"conv2_{i}", nn.ConvReLU2d(12, 8, 3, padding=1, groups=2, device=device))
            setattr(self, f"fc_{i}", nn.Linear(8 * 3 * 3, 10, device=device))
        self.last = nn.Linear(20, 7, device=self.devices[0])

    def forward(self, images):
        towers = range(2)
        x = [F.relu(getattr(self, f"conv1_{i}")(Tensor(images, device=d))) for i, d in enumerate(self.devices)]
        x = [F.max_pool2d(F.local_response_norm(h, 5, 0.5, 0.75, 2.0), 3, 2, ceil_mode=True) for h in x]
        x = [F.cat([h.to(d) for h in x], 1) for d in self.devices]
        x = [F.flatten(F.max_pool2d(getattr(self, f"conv2_{i}")(x[i]), 2), 1) for i in towers]
        x = [F.dropout(F.relu(getattr(self, f"fc_{i}")(x[i])), 0.5) for i in towers]
        return self.last(F.cat([h.to(self.devices[0]) for h in x], 1))


def trained(devices, rule, steps=4):
    """The losses, the parameters, and after each step the bytes in use on each GPU."""
    minidl.manual_seed(3)
    data = np.random.default_rng(5)
    net = Towers(devices).double()
    optimizer = minidl.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, rule=rule)
    losses, in_use = [], []
    for _ in range(steps):
        images, ids = data.standard_normal((4, 3, 29, 29)), data.integers(0, 7, 4)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), ids)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        del loss
        in_use.append(dict(fake_cupy.in_use))
    return losses, [p.device.to_host(p.data) for p in net.parameters()], in_use


@pytest.mark.parametrize("rule", ["pytorch", "2012"])
def test_two_devices_train_as_numpy_does(gpus, rule):
    """Every copy between streams has its event: the stand-in raises otherwise. In float64 a rounding is 1e-16 of a value; some
    thousand terms are summed in another order, in four steps."""
    losses, parameters, in_use = trained(("cuda:0", "cuda:1"), rule)
    expected, theirs, _ = trained(("cpu:0", "cpu:1"), rule)
    np.testing.assert_allclose(losses, expected, rtol=1e-11)
    for ours, their in zip(parameters, theirs, strict=True):
        np.testing.assert_allclose(ours, their, rtol=1e-9, atol=1e-11)
    launched = {name.split("_forward")[0].split("_backward")[0].removeprefix("mdl_") for name in fake_cupy.launches}
    assert {"im2col", "col2im", "dropout", "local_response_norm", "relu", "cross_entropy"} <= launched
    assert any("max_pool2d" in name for name in launched) and any("sgd_update" in name for name in launched)
    assert in_use[1] == in_use[2] == in_use[3], "memory grows from step to step"


def test_a_step_waits_for_the_gpu_only_for_the_loss(gpus):
    """Nothing in a step asks the GPU for a number before its end: the host would have to wait for all that came before."""
    net = Towers(("cuda:0", "cuda:1"))
    images = np.random.default_rng(5).standard_normal((4, 3, 29, 29)).astype("float32")
    optimizer = minidl.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    fake_cupy.history.clear()
    loss = F.cross_entropy(net(images), np.array([1, 0, 6, 2]))
    loss.backward()
    optimizer.step()
    assert [event for event in fake_cupy.history if event[0] in ("d2h", "synchronize")] == []
    loss.item()
    assert [event[0] for event in fake_cupy.history].count("d2h") == 1


@pytest.mark.parametrize("precision, roundings", [("high", 2.0**-11), ("medium", 2.0**-8)])
def test_products_that_are_rounded_leave_weights_and_sums_in_float32(gpus, precision, roundings):
    """Mixed precision: eight steps have losses near those in float32, and other ones. Each score is off by some of the
    roundings of what it is summed from; ten of them are allowed. A weight moves by less than bfloat16 could tell: it is
    float32's."""
    losses = {}
    for chosen in ("highest", precision):
        minidl.set_float32_matmul_precision(chosen)
        try:
            minidl.manual_seed(3)
            data = np.random.default_rng(5)
            net = Towers(("cuda:0", "cuda:1"))
            optimizer = minidl.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, rule="2012")
            images, ids = data.standard_normal((4, 3, 29, 29)).astype("f"), data.integers(0, 7, 4)
            before = net.last.weight.detach().numpy()
            found = []
            for _ in range(8):
                optimizer.zero_grad()
                loss = F.cross_entropy(net(images), ids)
                loss.backward()
                optimizer.step()
                found.append(loss.item())
            losses[chosen] = np.array(found)
            moved = np.abs(net.last.weight.detach().numpy() - before) / np.abs(before)
            assert net.last.weight.dtype == net.last.weight.grad.dtype == np.float32
            assert 0 < np.median(moved) < 2.0**-8
        finally:
            minidl.set_float32_matmul_precision("highest")
    difference = np.abs(losses[precision] - losses["highest"])
    assert 0 < difference.max() < 10 * roundings * losses["highest"].max()
