"""minidl.ops.conv2d_relu against the two ops that it stands for, bit for bit."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

from minidl import plain_kernels
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
