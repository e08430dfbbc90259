"""minidl.ops.local_response_norm against a loop over channels, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.local_response_norm import local_response_norm, negative_power, window_sum

LAYER_CASES = {
    "local_response_norm": LayerCase(
        lambda F, x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
        IMAGES,
        module=lambda nn: nn.LocalResponseNorm(3, 0.5, 0.75, 2.0),
    ),
    "local_response_norm power": LayerCase(lambda F, x: F.local_response_norm(x, 4, 1.0, 0.5, 2.0), IMAGES),
}

# alpha ~ k ~ 1, where the window's part of the gradient is as large as the direct part: at the production values it is below
# the rounding of a careless check
SETTINGS = {
    "odd size": ((2, 7, 2, 3), {"size": 5, "alpha": 1.3, "beta": 0.75, "k": 1.1}),
    "even size": ((2, 7, 2, 3), {"size": 4, "alpha": 1.3, "beta": 0.75, "k": 1.1}),
    "size 1": ((2, 3, 2, 2), {"size": 1, "alpha": 0.9, "beta": 0.75, "k": 1.0}),
    "size 2": ((2, 5, 2, 2), {"size": 2, "alpha": 0.9, "beta": 0.5, "k": 0.8}),
    "size over C, odd": ((2, 3, 2, 3), {"size": 9, "alpha": 1.3, "beta": 0.75, "k": 1.1}),
    "size over C, even": ((2, 3, 2, 3), {"size": 8, "alpha": 1.3, "beta": 0.75, "k": 1.1}),
    "one channel": ((2, 1, 2, 3), {"size": 5, "alpha": 1.3, "beta": 0.75, "k": 1.1}),
    "another beta": ((1, 6, 3, 2), {"size": 3, "alpha": 0.7, "beta": 0.6, "k": 1.2}),
    "beta 1": ((1, 6, 3, 2), {"size": 3, "alpha": 0.7, "beta": 1.0, "k": 1.2}),
    "2012": ((2, 7, 3, 3), {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}),
    "3 axes": ((2, 6, 5), {"size": 3, "alpha": 1.0, "beta": 0.75, "k": 1.0}),
    "5 axes": ((1, 5, 2, 2, 3), {"size": 4, "alpha": 1.0, "beta": 0.75, "k": 1.0}),
}


def loop(x, size, alpha=1e-4, beta=0.75, k=1.0):
    y, channels = np.empty_like(x), x.shape[1]
    for c in range(channels):
        first = c - size // 2
        window = x[:, max(first, 0) : min(first + size, channels)]
        y[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(axis=1)) ** beta
    return y


def loop_jacobian(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """dy[c]/dx[a] at one pixel of C channels."""
    channels = len(x)
    jacobian = np.zeros((channels, channels))
    for c in range(channels):
        window = [j for j in range(c - size // 2, c - size // 2 + size) if 0 <= j < channels]
        d = k + alpha / size * sum(x[j] ** 2 for j in window)
        jacobian[c, c] += d**-beta
        for a in window:
            jacobian[c, a] -= 2 * alpha / size * beta * x[c] * x[a] * d ** (-beta - 1)
    return jacobian


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("setting", SETTINGS)
def test_forward_and_backward_against_loops(setting, run, rng):
    shape, kwargs = SETTINGS[setting]
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: local_response_norm(t, **kwargs), x)
    np.testing.assert_allclose(y, loop(x, **kwargs), rtol=1e-13)  # some 20 roundings of 1e-16
    for pixel in np.ndindex(shape[0], *shape[2:]):
        at = (pixel[0], slice(None), *pixel[1:])
        np.testing.assert_allclose(gx[at], gy[at] @ loop_jacobian(x[at], **kwargs), rtol=1e-12, atol=1e-12)


def test_defaults_are_pytorchs(run, rng):
    x = 30 * rng.standard_normal((2, 6, 3, 3))  # large enough for alpha 1e-4 to show
    y, _, _ = run(lambda t: local_response_norm(t, 5), x)
    np.testing.assert_allclose(y, loop(x, 5, 1e-4, 0.75, 1.0), rtol=1e-13)


def test_an_even_window_has_one_channel_more_before_than_after(device):
    y = local_response_norm(Tensor(np.ones((1, 4, 1)), device=device), 2, alpha=2.0, beta=1.0, k=0.0)
    assert y.numpy().ravel().tolist() == [1, 0.5, 0.5, 0.5]  # the first has no neighbour before it


def test_alpha_is_divided_by_size_at_the_edges_too(device):
    x = Tensor(np.ones((1, 5, 1, 1)), device=device)
    y = local_response_norm(x, 5, alpha=5.0, beta=1.0, k=0.0).numpy().ravel()
    np.testing.assert_allclose(y, [1 / 3, 1 / 4, 1 / 5, 1 / 4, 1 / 3], rtol=1e-15)


def test_empty_batch(run):
    y, _, (gx,) = run(lambda t: local_response_norm(t, 5), np.zeros((0, 4, 3, 3)))
    assert y.shape == gx.shape == (0, 4, 3, 3)


def test_window_sum_is_clipped_at_both_ends():
    values = np.array([1.0, 10.0, 100.0, 1000.0])
    assert window_sum(values, 1, 2).tolist() == [111, 1111, 1110, 1100]
    assert window_sum(values, 9, 0).tolist() == [1, 11, 111, 1111]
    assert values.tolist() == [1, 10, 100, 1000]


def test_two_square_roots_are_a_power_of_three_quarters(rng):
    d = 10.0 ** rng.uniform(-3, 6, 1000)
    np.testing.assert_allclose(negative_power(d, 0.75), d**-0.75, rtol=1e-15)  # three roundings, 3.3e-16, and a power's own


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradcheck(setting, leaves):
    shape, kwargs = SETTINGS[setting]
    gradcheck(lambda x: local_response_norm(x, **kwargs), leaves(shape))


# -------------------------------------------------------------------------------------------------------------- errors


def test_errors(device):
    x = Tensor(np.zeros((2, 3)), device=device)
    text = "local_response_norm: x must have at least 3 axes, got 2 (x (2, 3))"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        local_response_norm(x, 5)
    with pytest.raises(ValueError, match=f"^{re.escape('local_response_norm: size must be at least 1, got 0')}$"):
        local_response_norm(x.reshape(1, 2, 3), 0)
    with pytest.raises(RuntimeError, match=r"^local_response_norm: x must be of floats, got int64$"):
        local_response_norm(Tensor(np.zeros((1, 2, 3), np.int64), device=device), 5)


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("size", [4, 5])
def test_memory_order_of_the_input_changes_nothing_and_results_are_channels_last(size, arrange, device, rng):
    array = rng.standard_normal((2, 6, 4, 3))
    expected_x, x = Tensor(array, True, device), arrange(array)
    expected, y = (local_response_norm(t, size, 1.0, 0.75, 1.0) for t in (expected_x, x))
    np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
    assert is_channels_last(y.data)
    received = []
    x.register_hook(lambda g: received.append(is_channels_last(g.data)))
    gy = arrange(rng.standard_normal(y.shape)).data
    y.backward(gy)
    expected.backward(np.ascontiguousarray(device.to_host(gy)))
    np.testing.assert_array_equal(x.grad.numpy(), expected_x.grad.numpy())
    assert received == [True]


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, beta, run, rng):
    x = rng.standard_normal((2, 6, 4, 4)).astype(dtype)
    y, _, (gx,) = run(lambda t: local_response_norm(t, 5, 1.0, beta, 2.0), x)
    assert y.dtype == gx.dtype == dtype
    # some ten roundings of 2^-24 = 6e-8
    np.testing.assert_allclose(y, loop(x.astype(np.float64), 5, 1.0, beta, 2.0), rtol=1e-6 if dtype is np.float32 else 1e-13)
