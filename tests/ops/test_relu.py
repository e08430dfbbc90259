"""minidl.ops.relu against a loop, at 0 and NaN, gradcheck, errors, memory layouts."""

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase

import minidl
from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.conv2d import conv2d
from minidl.ops.relu import relu

LAYER_CASES = {
    "relu": LayerCase(lambda F, x: F.relu(x), IMAGES, module=lambda nn: nn.ReLU(), elementwise=True),
    "relu inplace": LayerCase(lambda F, x: F.relu(x * 1, inplace=True), IMAGES),
}

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(relu, x)
    for at in np.ndindex(shape):
        assert y[at] == (x[at] if x[at] > 0 else 0)
        assert gx[at] == (gy[at] if x[at] > 0 else 0)
    assert y.shape == gx.shape == shape


def test_the_gradient_at_0_is_0(run):
    y, gy, (gx,) = run(relu, np.array([-1.0, -0.0, 0.0, 5e-324]))
    assert y.tolist() == [0, 0, 0, 5e-324]
    assert gx.tolist() == [0, 0, 0, gy[3]]


def test_nan_stays_nan_and_infinity_infinity(run):
    y, _, _ = run(relu, np.array([np.nan, np.inf, -np.inf]))
    np.testing.assert_array_equal(y, [np.nan, np.inf, 0])


def test_in_place_a_convolution_s_output_is_kept_once():
    """One copy, into the memory of the convolution's output, which is all that the ReLU saves."""
    x, w = Tensor(IMAGES[0]), Tensor(np.ones((3, 4, 3, 3)), requires_grad=True)
    y = conv2d(x, w)
    memory = y.data
    with minidl.no_grad():
        expected = relu(y)
    assert relu(y, inplace=True) is y and y.data is memory
    np.testing.assert_array_equal(memory, expected.data)
    assert len(y._node.saved) == 1 and y._node.saved[0] is memory


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_gradcheck(shape, device, rng):
    x = rng.uniform(0.1, 2, shape) * rng.choice([-1, 1], shape)  # away from the kink at 0
    gradcheck(relu, [Tensor(x + 3 * (x.ndim == 0), True, device)])


# -------------------------------------------------------------------------------------------------------------- errors


def test_relu_has_no_error_of_its_own(device):
    assert relu(Tensor(np.array([-3, 3]), device=device)).numpy().tolist() == [0, 3]  # ints too


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_of_the_input_changes_nothing(arrange, device, rng):
    array, gy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    x = arrange(array)
    y = relu(x)
    np.testing.assert_array_equal(y.detach().numpy(), np.where(array > 0, array, 0))
    y.backward(gy)
    np.testing.assert_array_equal(x.grad.numpy(), np.where(array > 0, gy, 0))


def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = relu(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(relu, rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
