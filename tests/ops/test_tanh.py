"""minidl.ops.tanh against a loop, where it is saturated, gradcheck, errors, memory layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.tanh import tanh

LAYER_CASES = {"tanh": LayerCase(lambda F, x: F.tanh(x), IMAGES, module=lambda nn: nn.Tanh(), elementwise=True)}

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
CLOSE = {"rtol": 1e-14, "atol": 1e-15}  # a few roundings of 1e-16; 1 - y near saturation keeps only absolute accuracy


def value(x: float) -> float:
    return math.tanh(x)


def slope(x: float) -> float:
    return 1 - math.tanh(x) ** 2


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(tanh, x)
    for at in np.ndindex(shape):
        np.testing.assert_allclose(y[at], value(x[at]), **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] * slope(x[at]), rtol=1e-13, atol=1e-14)
    assert y.shape == gx.shape == shape


def test_saturation_overflows_nowhere(run):
    with np.errstate(all="raise", under="ignore"):
        y, _, (gx,) = run(tanh, np.array([-1e4, 0.0, 1e4]))
    assert y.tolist() == [-1, 0, 1]
    assert gx[0] == gx[2] == 0


def test_nan_stays_nan(run):
    y, _, (gx,) = run(tanh, np.array([np.nan]))
    assert np.isnan(y[0]) and np.isnan(gx[0])


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_gradcheck(shape, leaves):
    gradcheck(tanh, leaves(shape))


# -------------------------------------------------------------------------------------------------------------- errors


def test_tanh_has_no_error_of_its_own(device):
    assert tanh(Tensor(np.zeros(2, np.int64), device=device)).dtype == np.float32  # ints become floats, as PyTorch's


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_of_the_input_changes_nothing(arrange, device, rng):
    array, gy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    expected_x, x = Tensor(array, True, device), arrange(array)
    for leaf in (expected_x, x):
        tanh(leaf).backward(gy)
    # vector code for contiguous memory may differ in the last bits
    np.testing.assert_allclose(tanh(x).detach().numpy(), tanh(expected_x).detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), expected_x.grad.numpy(), rtol=1e-12)


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = tanh(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(tanh, rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
