"""minidl.ops.conv2d_relu against the two ops that it stands for, bit for bit."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

from minidl import Tensor, nn, plain_kernels
from minidl.observer import Observer
from minidl.ops.conv2d import conv2d
from minidl.ops.conv2d_relu import conv2d_relu
from minidl.ops.relu import relu

SETTINGS = {"stride": (2, 1), "padding": 1, "groups": 2}
ARRAYS = [*uniform((2, 4, 7, 6), (6, 2, 3, 3)), *uniform((6,))]
LAYER_CASES = {
    "conv2d_relu": LayerCase(
        lambda F, x, w, b: F.conv2d_relu(x, w, b, **SETTINGS),
        ARRAYS,
        module=lambda nn: nn.ConvReLU2d(4, 6, 3, **SETTINGS),
        theirs=lambda F, x, w, b: F.relu(F.conv2d(x, w, b, **SETTINGS)),
    ),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_it_is_the_two_ops(bias, run):
    arrays = ARRAYS if bias else ARRAYS[:2]
    with plain_kernels():
        y, _, gradients = run(lambda *ts: conv2d_relu(*ts, **SETTINGS), *arrays)
        expected, _, expected_gradients = run(lambda *ts: relu(conv2d(*ts, **SETTINGS)), *arrays)
    assert 0 < (y == 0).mean() < 1
    for a, b in zip([y, *gradients], [expected, *expected_gradients], strict=True):
        np.testing.assert_array_equal(a, b)


class Ops(Observer):
    """The names of the ops that ran."""

    def __init__(self):
        self.names = []

    def forward_ends(self, node, inputs, settings, out):
        self.names.append(node.name)


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(4, 6, 3, **SETTINGS), nn.ReLU(), nn.Conv2d(6, 2, 3), nn.ReLU(), nn.ReLU())


def test_sequential_runs_a_convolution_and_its_relu_as_one_op_with_the_same_numbers(net, device):
    net = net.to(device)
    x = Tensor(ARRAYS[0].astype(np.float32), device=device)
    y = net(x)
    assert [y.grad_fn.name, y.grad_fn._edges[0].name, y.grad_fn._edges[0]._edges[0].name] == ["relu", *["conv2d_relu"] * 2]
    with Ops() as seen:
        apart = net(x)
    assert seen.names == ["conv2d", "relu", "conv2d", "relu", "relu"]
    np.testing.assert_array_equal(y.detach().numpy(), apart.detach().numpy())


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_sequential_keeps_what_a_hook_asks_for(layer, register, net):
    shapes = []
    getattr(net[layer], register)(lambda module, *given: shapes.append(given[0][0].shape))
    net(Tensor(ARRAYS[0].astype(np.float32), requires_grad=True)).sum().backward()
    inputs = [(2, 4, 7, 6), (2, 6, 4, 6)]
    assert shapes == [inputs[layer]]


def test_sequential_leaves_a_subclass_its_own_forward(net):
    class Doubled(nn.ReLU):
        def forward(self, input):
            return 2 * super().forward(input)

    x = Tensor(ARRAYS[0].astype(np.float32))
    expected = 2 * net[:2](x).detach().numpy()
    net[1] = Doubled()
    np.testing.assert_array_equal(net[:2](x).detach().numpy(), expected)
