"""minidl.ops.softmax: softmax and log_softmax against a loop, huge values, gradcheck, errors, memory layouts."""

import math
import re

import numpy as np
import pytest
from layer_cases import ROWS, LayerCase
from marks import on_host

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.softmax import log_softmax, softmax

LAYER_CASES = {
    "softmax": LayerCase(lambda F, x: F.softmax(x, 1), ROWS, module=lambda nn: nn.Softmax(dim=1)),
    "log_softmax": LayerCase(lambda F, x: F.log_softmax(x, 0), ROWS, module=lambda nn: nn.LogSoftmax(dim=0)),
}

BOTH = pytest.mark.parametrize("fn", [softmax, log_softmax])
DIMS = [((5,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 3, 4), -2), ((2, 3, 2, 2), 1), ((4, 1), 1)]  # shape, dim


def rows(x, dim):
    """Every index of x with a slice at dim."""
    axis = dim % x.ndim
    for at in np.ndindex(x.shape[:axis] + x.shape[axis + 1 :]):
        yield (*at[:axis], slice(None), *at[axis:])


def loop(x, dim):
    y = np.empty_like(x)
    for row in rows(x, dim):
        exponentials = [math.exp(v) for v in x[row]]
        y[row] = [e / sum(exponentials) for e in exponentials]
    return y


def loop_backward(gy, y, dim, of_log):
    """y is the softmax: rows of the Jacobian, written out."""
    gx = np.zeros_like(y)
    for row in rows(y, dim):
        p, n = y[row], len(y[row])
        for i in range(n):
            slopes = [(i == j) - p[i] if of_log else p[j] * ((i == j) - p[i]) for j in range(n)]
            gx[row][i] = sum(g * s for g, s in zip(gy[row], slopes, strict=True))
    return gx


# ------------------------------------------------------------------------------------------------------ against a loop


@BOTH
@pytest.mark.parametrize(("shape", "dim"), DIMS)
def test_forward_and_backward_against_a_loop(fn, shape, dim, run, rng):
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: fn(t, dim), x)
    expected = loop(x, dim)
    # sums of at most 5 terms of size at most 10
    np.testing.assert_allclose(y, expected if fn is softmax else np.log(expected), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(gx, loop_backward(gy, expected, dim, fn is log_softmax), rtol=0, atol=1e-13)


def test_huge_values_stay_exact(run):
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e300, 0.0, -1e300]])
    with np.errstate(all="raise", under="ignore"):
        y, _, (gx,) = run(lambda t: softmax(t, 1), x)
        log_y, _, (log_gx,) = run(lambda t: log_softmax(t, 1), x)
    small = 1 / (1 + math.e)
    np.testing.assert_allclose(y, [[1 - small, small, 0], [0, 1, 0]], rtol=1e-15)
    np.testing.assert_allclose(log_y[0], [math.log(1 - small), math.log(small), -2e4 + math.log(1 - small)], rtol=1e-14)
    np.testing.assert_array_equal(log_y[1], [-1e300, 0, -1e300])
    assert np.isfinite(gx).all() and np.isfinite(log_gx).all()


def test_minus_infinity_is_impossible_not_nan(run):
    y, _, (gx,) = run(lambda t: softmax(t, 0), np.array([0.0, -np.inf, 0.0]))
    assert y.tolist() == [0.5, 0, 0.5] and gx[1] == 0


def test_log_softmax_is_exact_where_the_logarithm_of_softmax_is_not(device):
    x = Tensor(np.array([0.0, 100.0]), device=device)
    y = log_softmax(x, 0).numpy()
    assert y[0] == -100
    assert y[1] == 0


@BOTH
def test_without_dim_the_axis_is_guessed_with_a_warning(fn, device, rng):
    for shape, dim in (((4,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 2, 2), 1)):
        x = Tensor(rng.standard_normal(shape), device=device)
        text = f"{fn.__name__}: dim was not given, took {dim}; say which axis"
        with pytest.warns(UserWarning, match=f"^{re.escape(text)}$") as caught:
            y = fn(x)
        assert caught[0].filename == __file__
        np.testing.assert_array_equal(y.numpy(), fn(x, dim).numpy())


@BOTH
def test_a_number_has_one_possibility(fn, run):
    y, _, (gx,) = run(lambda t: fn(t, 0), np.array(3.0))
    assert y.shape == gx.shape == () and y == (fn is softmax) and gx == 0


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty(fn, shape, run):
    y, _, (gx,) = run(lambda t: fn(t, 1), np.zeros(shape))
    assert y.shape == gx.shape == shape


@BOTH
def test_dtype_converts_first(fn, device):
    y = fn(Tensor(np.array([1, 2], np.int64), device=device), 0, dtype=np.float64)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y.numpy(), fn(Tensor(np.array([1.0, 2.0]), device=device), 0).numpy())


# ----------------------------------------------------------------------------------------------------------- gradcheck


@BOTH
@pytest.mark.parametrize(("shape", "dim"), DIMS[:-1])
def test_gradcheck(fn, shape, dim, leaves):
    gradcheck(lambda x: fn(x, dim), leaves(shape))


@BOTH
def test_gradcheck_of_one_class_is_0(fn, leaves):
    gradcheck(lambda x: fn(x, 1), leaves((4, 1)), allow_zero=True)


# -------------------------------------------------------------------------------------------------------------- errors


@BOTH
def test_errors(fn, device):
    op = fn.__name__
    x = Tensor(np.zeros((2, 3)), device=device)
    with pytest.raises(IndexError, match=f"^{re.escape(f'{op}: dim must be in [-2, 1], got 2')}$"):
        fn(x, 2)
    with pytest.raises(TypeError, match=f"^{re.escape(f'{op}: dim must be an int, got 1.0')}$"):
        fn(x, 1.0)
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'{op}: x must be of floats, got int64')}$"):
        fn(Tensor(np.zeros((2, 3), np.int64), device=device), 1)


# -------------------------------------------------------------------------------------------------------------- layout


@BOTH
def test_memory_order_of_the_input_changes_nothing(fn, arrange, device, rng):
    array, gy = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((2, 5, 4, 3))
    expected_x, x = Tensor(array, True, device), arrange(array)
    ys = []
    for leaf in (expected_x, x):
        ys.append(fn(leaf, 1))
        ys[-1].backward(gy)
    # sums along memory and across it add in another order
    np.testing.assert_allclose(ys[1].detach().numpy(), ys[0].detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), expected_x.grad.numpy(), rtol=1e-12, atol=1e-12)


@on_host
@BOTH
def test_channels_last_stays_channels_last(fn, channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = fn(x, 1)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(fn, dtype, run, rng):
    y, _, (gx,) = run(lambda t: fn(t, 1), rng.standard_normal((3, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
