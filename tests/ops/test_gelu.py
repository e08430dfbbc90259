"""minidl.ops.gelu against a loop, the normal distribution function against math.erfc, far from 0, errors, memory layouts."""

import math

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.gelu import gelu, normal_cdf

SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3)]
LAYER_CASES = {
    "gelu": LayerCase(lambda F, x: F.gelu(x), IMAGES, module=lambda nn: nn.GELU(), elementwise=True),
    "gelu tanh": LayerCase(
        lambda F, x: F.gelu(x, approximate="tanh"), IMAGES, module=lambda nn: nn.GELU("tanh"), elementwise=True
    ),
}


def exact(x):
    """The value and the slope."""
    below, density = math.erfc(-x / math.sqrt(2)) / 2, math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * below, below + x * density


def approximate(x):
    inner, slope = (math.sqrt(2 / math.pi) * s for s in (x + 0.044715 * x**3, 1 + 3 * 0.044715 * x**2))
    t = math.tanh(inner)
    return x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) * slope / 2


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize(("name", "loop"), [("none", exact), ("tanh", approximate)])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_against_a_loop(shape, name, loop, run, rng):
    x = 2 * rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: gelu(t, approximate=name), x)
    for at in np.ndindex(shape):
        value, slope = loop(x[at])
        np.testing.assert_allclose(y[at], value, rtol=1e-13, atol=1e-15)  # 1 + tanh keeps absolute accuracy only
        np.testing.assert_allclose(gx[at], gy[at] * slope, rtol=1e-13, atol=1e-14)
    assert y.shape == gx.shape == shape


# --------------------------------------------------------------------------------------- the normal distribution function


def cdf(x, dtype, device):
    with device.active():
        return device.to_host(normal_cdf(Tensor(x.astype(dtype), device=device).data))


def test_the_distribution_function_is_that_of_erfc(device):
    """Within 3e-16, from where it is 1e-149 to where it is 1, and around 0 where the two halves meet."""
    x = np.concatenate([np.linspace(-26, 26, 5201), [-1e-300, -0.0, 1e-17, 5e-324]])
    expected = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    found = cdf(x, np.float64, device)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-16)
    # the argument of erfc, and the exponent x^2 / 2 here, are rounded: of e^(-x^2 / 2) that moves x^2 parts in 1e16 or two
    assert (abs(found / expected - 1) <= 4e-16 * (4 + x * x)).all()


def test_the_distribution_function_in_float32(device):
    """Some ten roundings of 6e-8, of values up to 1; of a small value x^2 / 2 times as many."""
    x = np.linspace(-8, 8, 1601).astype(np.float32)
    expected = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(np.float64)])
    found = cdf(x, np.float32, device)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
    np.testing.assert_allclose(found, expected, rtol=4e-6)


# ---------------------------------------------------------------------------------------------------------- far from 0


@pytest.mark.parametrize("name", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_0_it_is_0_or_x_and_nothing_overflows(dtype, name, device):
    x = Tensor(np.array([-1e30, -100, 100, 1e30], dtype), True, device)
    with np.errstate(all="raise", under="ignore"):
        y = gelu(x, approximate=name)
        y.backward(np.ones(4, dtype))
    assert (y.detach().numpy() == [0, 0, 100, dtype(1e30)]).all()
    assert x.grad.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["none", "tanh"])
def test_small_values_keep_their_digits(name, run):
    """At -9 the value is 1e-18: from 1 + erf or 1 + tanh it would be 0."""
    y, gy, (gx,) = run(lambda t: gelu(t, approximate=name), np.array([-9.0]))
    if name == "none":
        value, slope = exact(-9.0)
    else:
        inner, rise = (math.sqrt(2 / math.pi) * s for s in (-9 - 0.044715 * 729, 1 + 3 * 0.044715 * 81))
        below = 1 / (1 + math.exp(-2 * inner))
        value, slope = -9 * below, below - 9 * 2 * below * rise
    np.testing.assert_allclose(y, [value], rtol=1e-13)
    np.testing.assert_allclose(gx, gy * slope, rtol=1e-13)


# -------------------------------------------------------------------------------------------------------------- errors


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError) as error:
        gelu(Tensor(np.array([-3, 3]), device=device))
    assert str(error.value) == "gelu: x must be of floats, got int64 (x (2,))"


def test_a_formula_that_is_none(device):
    with pytest.raises(RuntimeError) as error:
        gelu(Tensor([1.0], device=device), approximate="erf")
    assert str(error.value) == "gelu: approximate must be 'none' or 'tanh', got 'erf'"


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = gelu(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("name", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, name, run, rng):
    y, _, (gx,) = run(lambda t: gelu(t, approximate=name), rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
