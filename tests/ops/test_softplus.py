"""minidl.ops.softplus against a loop, beside the threshold, far from 0, errors, memory layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.softplus import softplus

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
CLOSE = {"rtol": 1e-14, "atol": 0}  # a few roundings of 1e-16, moved by exponents of up to 10
LAYER_CASES = {
    "softplus": LayerCase(
        lambda F, x: F.softplus(x, 0.5, 30.0), IMAGES, module=lambda nn: nn.Softplus(0.5, 30.0), elementwise=True
    ),
    "softplus default": LayerCase(lambda F, x: F.softplus(x), IMAGES, module=lambda nn: nn.Softplus(), elementwise=True),
    "softplus below -x": LayerCase(lambda F, x: F.softplus(x, -2.0), IMAGES, elementwise=True),
    "softplus cut": LayerCase(lambda F, x: F.softplus(x, 3, 0.6), IMAGES),
}


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("beta", [1.0, 3, -0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, beta, run, rng):
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: softplus(t, beta), x)
    for at in np.ndindex(shape):
        e = math.exp(beta * x[at])
        np.testing.assert_allclose(y[at], math.log1p(e) / beta, **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] * e / (1 + e), **CLOSE)
    assert y.shape == gx.shape == shape


def test_above_the_threshold_it_is_x(run):
    """Where beta * x is above it: 5 is not."""
    y, gy, (gx,) = run(lambda t: softplus(t, 2.0, 5.0), np.array([2.5, 2.500001]))
    np.testing.assert_allclose(y, [math.log1p(math.exp(5)) / 2, 2.500001], rtol=1e-15)
    np.testing.assert_allclose(gx, [gy[0] / (1 + math.exp(-5)), gy[1]], rtol=1e-15)


@pytest.mark.parametrize("threshold", [20.0, math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_0_it_is_0_or_x_and_nothing_overflows(dtype, threshold, device):
    x = Tensor(np.array([-1e30, -1000, 1000, 1e30], dtype), True, device)
    with np.errstate(all="raise", under="ignore"):
        y = softplus(x, threshold=threshold)
        y.backward(np.ones(4, dtype))
    assert (y.detach().numpy() == [0, 0, 1000, dtype(1e30)]).all()
    assert x.grad.tolist() == [0, 0, 1, 1]


def test_small_values_keep_their_digits(run):
    """Below -40 value and slope are e^x to a part in 1e17, where 1 + e^x is 1."""
    x = np.array([-50.0, -600.0])
    y, gy, (gx,) = run(softplus, x)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(gx, gy * np.exp(x), rtol=1e-15)


# -------------------------------------------------------------------------------------------------------------- errors


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError) as error:
        softplus(Tensor(np.array([-3, 3]), device=device))
    assert str(error.value) == "softplus: x must be of floats, got int64 (x (2,))"


def test_a_beta_of_0_is_refused(device):
    with pytest.raises(ValueError) as error:
        softplus(Tensor([1.0], device=device), 0)
    assert str(error.value) == "softplus: beta must not be 0, by which the logarithm is divided, got 0"


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = softplus(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(lambda t: softplus(t, np.float64(0.5)), rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
