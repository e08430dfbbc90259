"""minidl.ops.sigmoid against a loop, where it is saturated, gradcheck, errors, memory layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.sigmoid import sigmoid

LAYER_CASES = {"sigmoid": LayerCase(lambda F, x: F.sigmoid(x), IMAGES, module=lambda nn: nn.Sigmoid(), elementwise=True)}

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
CLOSE = {"rtol": 1e-14, "atol": 1e-15}  # a few roundings of 1e-16; 1 - y near saturation keeps only absolute accuracy


def value(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slope(x: float) -> float:
    return math.exp(-x) / (1 + math.exp(-x)) ** 2


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(sigmoid, x)
    for at in np.ndindex(shape):
        np.testing.assert_allclose(y[at], value(x[at]), **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] * slope(x[at]), rtol=1e-13, atol=1e-14)
    assert y.shape == gx.shape == shape


def test_saturation_overflows_nowhere(run):
    with np.errstate(all="raise", under="ignore"):
        y, _, (gx,) = run(sigmoid, np.array([-1e4, 0.0, 1e4]))
    assert y.tolist() == [0, 0.5, 1]
    assert gx[0] == gx[2] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_values_keep_their_digits(dtype, device):
    x = Tensor(np.array([-20.0, -50.0, -80.0], dtype), True, device)
    y = sigmoid(x)
    y.backward(np.ones(3, dtype))
    for found in (y.detach().numpy(), x.grad.numpy()):  # below -20 both are e^x to a part in 1e8
        np.testing.assert_allclose(found, np.exp([-20.0, -50.0, -80.0]), rtol=8 * np.finfo(dtype).eps + 1e-8)


def test_nan_stays_nan(run):
    y, _, (gx,) = run(sigmoid, np.array([np.nan]))
    assert np.isnan(y[0]) and np.isnan(gx[0])


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_gradcheck(shape, leaves):
    gradcheck(sigmoid, leaves(shape))


# -------------------------------------------------------------------------------------------------------------- errors


def test_sigmoid_has_no_error_of_its_own(device):
    assert sigmoid(Tensor(np.zeros(2, np.int64), device=device)).dtype == np.float32  # ints become floats, as PyTorch's


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_of_the_input_changes_nothing(arrange, device, rng):
    array, gy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    expected_x, x = Tensor(array, True, device), arrange(array)
    for leaf in (expected_x, x):
        sigmoid(leaf).backward(gy)
    # vector code for contiguous memory may differ in the last bits
    np.testing.assert_allclose(sigmoid(x).detach().numpy(), sigmoid(expected_x).detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), expected_x.grad.numpy(), rtol=1e-12)


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = sigmoid(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(sigmoid, rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
