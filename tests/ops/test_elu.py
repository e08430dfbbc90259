"""minidl.ops.elu against a loop, at 0 and with any alpha, where exponentials overflow or leave no digits, errors, layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.elu import elu

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
CLOSE = {"rtol": 1e-15, "atol": 0}  # a few roundings of 1e-16
LAYER_CASES = {
    "elu": LayerCase(lambda F, x: F.elu(x, 0.7), IMAGES, module=lambda nn: nn.ELU(0.7, True), elementwise=True),
    "elu default": LayerCase(lambda F, x: F.elu(x), IMAGES, module=lambda nn: nn.ELU(), elementwise=True),
}


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("alpha", [1.0, 0.0, -0.5, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, alpha, run, rng):
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: elu(t, alpha), x)
    for at in np.ndindex(shape):
        np.testing.assert_allclose(y[at], x[at] if x[at] > 0 else alpha * math.expm1(x[at]), **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] if x[at] > 0 else gy[at] * alpha * math.exp(x[at]), **CLOSE)
    assert y.shape == gx.shape == shape


def test_the_slope_at_0_is_alpha(run):
    y, gy, (gx,) = run(lambda t: elu(t, 0.25), np.array([-0.0, 0.0, 5e-324]))
    assert y.tolist() == [0, 0, 5e-324]
    assert gx.tolist() == [gy[0] / 4, gy[1] / 4, gy[2]]


def test_small_values_and_small_slopes_keep_their_digits(run):
    """e^x - 1 near 0, and the slope e^x far below it, where y is -1 but for less than a rounding."""
    y, gy, (gx,) = run(elu, np.array([-1e-12, -40.0, -700.0]))
    np.testing.assert_allclose(y, [-1e-12, -1, -1], rtol=1e-12)
    np.testing.assert_allclose(gx, gy * np.exp([-1e-12, -40, -700]), **CLOSE)


def test_nothing_overflows(run):
    with np.errstate(all="raise", under="ignore"):
        y, gy, (gx,) = run(elu, np.array([-1e4, 1e4]))
    assert y.tolist() == [-1, 1e4] and gx.tolist() == [0, gy[1]]


# -------------------------------------------------------------------------------------------------------------- errors


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError) as error:
        elu(Tensor(np.array([-3, 3]), device=device))
    assert str(error.value) == "elu: x must be of floats, got int64 (x (2,))"


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = elu(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(lambda t: elu(t, np.float64(0.5)), rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
