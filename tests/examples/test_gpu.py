"""AlexNet on a GPU against the same on the host."""

import numpy as np
import pytest
from model import AlexNet

import minidl
import minidl.nn.functional as F
from minidl import Device, DeviceError

STEPS, CLASSES = 20, 10


def trained(devices, profile):
    """The losses of 20 steps in float64, at a tenth of the width: weights, images and dropout's masks are the same."""
    minidl.manual_seed(0)
    data = np.random.default_rng(0)
    net = AlexNet(CLASSES, devices, profile, width=0.1).double()
    optimizer = minidl.optim.SGD(net.parameter_groups(0.003, 5e-4), lr=0.003, momentum=0.9, rule="2012")
    losses = []
    for _ in range(STEPS):
        images, labels = data.uniform(-120, 130, (4, 3, 224, 224)), data.integers(0, CLASSES, 4)
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
