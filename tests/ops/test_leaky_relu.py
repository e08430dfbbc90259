"""minidl.ops.leaky_relu against a loop, at 0 and with slopes of every sign, errors, memory layouts."""

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.leaky_relu import leaky_relu

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
LAYER_CASES = {
    "leaky_relu": LayerCase(
        lambda F, x: F.leaky_relu(x, 0.2), IMAGES, module=lambda nn: nn.LeakyReLU(0.2, True), elementwise=True
    ),
    "leaky_relu default": LayerCase(lambda F, x: F.leaky_relu(x), IMAGES, module=lambda nn: nn.LeakyReLU(), elementwise=True),
}


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("slope", [0.01, 0.0, -0.5, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, slope, run, rng):
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: leaky_relu(t, slope), x)
    for at in np.ndindex(shape):
        assert y[at] == (x[at] if x[at] > 0 else slope * x[at])
        assert gx[at] == (gy[at] if x[at] > 0 else slope * gy[at])
    assert y.shape == gx.shape == shape


def test_the_slope_at_0_is_the_negative_one(run):
    y, gy, (gx,) = run(lambda t: leaky_relu(t, 0.25), np.array([-0.0, 0.0, 5e-324]))
    assert y.tolist() == [0, 0, 5e-324]
    assert gx.tolist() == [gy[0] / 4, gy[1] / 4, gy[2]]


# -------------------------------------------------------------------------------------------------------------- errors


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError) as error:
        leaky_relu(Tensor(np.array([-3, 3]), device=device))
    assert str(error.value) == "leaky_relu: x must be of floats, got int64 (x (2,))"


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = leaky_relu(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(leaky_relu, rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
