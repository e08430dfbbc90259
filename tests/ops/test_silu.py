"""minidl.ops.silu against a loop, far from 0, errors, memory layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.silu import silu

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
CLOSE = {"rtol": 1e-14, "atol": 1e-15}  # a few roundings of 1e-16; where the slope passes 0 only absolute accuracy is left
LAYER_CASES = {
    "silu": LayerCase(lambda F, x: F.silu(x), IMAGES, module=lambda nn: nn.SiLU(True), elementwise=True),
}


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(silu, x)
    for at in np.ndindex(shape):
        e = math.exp(-x[at])
        np.testing.assert_allclose(y[at], x[at] / (1 + e), **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] * (1 + e + x[at] * e) / (1 + e) ** 2, rtol=1e-13, atol=1e-14)
    assert y.shape == gx.shape == shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_0_it_is_0_or_x_and_nothing_overflows(dtype, device):
    x = Tensor(np.array([-1e30, -1000, 1000, 1e30], dtype), True, device)
    with np.errstate(all="raise", under="ignore"):
        y = silu(x)
        y.backward(np.ones(4, dtype))
    assert (y.detach().numpy() == [0, 0, 1000, dtype(1e30)]).all()
    assert x.grad.tolist() == [0, 0, 1, 1]


def test_small_values_keep_their_digits(run):
    """Below -40 the sigmoid is e^x to a part in 1e17."""
    x = np.array([-50.0, -600.0])
    y, gy, (gx,) = run(silu, x)
    np.testing.assert_allclose(y, x * np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(gx, gy * (1 + x) * np.exp(x), rtol=1e-15)


# -------------------------------------------------------------------------------------------------------------- errors


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError) as error:
        silu(Tensor(np.array([-3, 3]), device=device))
    assert str(error.value) == "silu: x must be of floats, got int64 (x (2,))"


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = silu(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(silu, rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
