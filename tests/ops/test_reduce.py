"""minidl.ops.reduce against loops, ties, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest

from minidl import Tensor, gradcheck
from minidl.ops.reduce import amax, amin, argmax, max_, mean, min_, sum_

CLOSE = {"rtol": 1e-13, "atol": 1e-13}  # sums of at most 60 terms of size about 1
SEVERAL = {"sum": sum_, "mean": mean, "amax": amax, "amin": amin}
ALONG = {"max": max_, "min": min_}
CASES = [((5,), 0), ((3, 4), 1), ((3, 4), -2), ((2, 3, 4, 5), (0, 2, 3)), ((2, 3, 4), None), ((2, 3, 4), (-1, 0)), ((), None)]
CASES += [((), 0), ((3, 1), 1)]


def slices(shape, dim):
    """For every output, which inputs it was made of: (index in the output with lengths 1, slice of the input)."""
    dims = range(len(shape)) if dim is None else [d % max(len(shape), 1) for d in (dim if isinstance(dim, tuple) else (dim,))]
    kept = tuple(1 if i in dims else n for i, n in enumerate(shape))
    for at in np.ndindex(kept):
        yield at, tuple(slice(None) if i in dims else k for i, k in enumerate(at))


def loop(name, x, dim):
    """The value and the slopes of every output: for an extreme, an equal share for each of the tied."""
    for at, under in slices(x.shape, dim):
        values = x[under]
        if name in ("sum", "mean"):
            count = values.size if name == "mean" else 1
            yield at, under, sum(values.ravel()) / count, np.ones_like(values) / count
        else:
            extreme = max(values.ravel()) if name == "amax" else min(values.ravel())
            yield at, under, extreme, (values == extreme) / (values == extreme).sum()


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("shape", "dim"), CASES)
@pytest.mark.parametrize("name", SEVERAL)
def test_against_a_loop(name, shape, dim, keepdim, ties, run, rng):
    x = rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: SEVERAL[name](t, dim, keepdim), x)
    kept = x.sum(axis=dim if x.ndim else None, keepdims=True)
    assert y.shape == (kept.shape if keepdim else x.sum(axis=dim if x.ndim else None).shape)
    expected_gx = np.zeros_like(x)
    for at, under, value, slopes in loop(name, x, dim):
        np.testing.assert_allclose(y.reshape(kept.shape)[at], value, **CLOSE)
        expected_gx[under] += gy.reshape(kept.shape)[at] * slopes
    np.testing.assert_allclose(gx, expected_gx, **CLOSE)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("shape", "dim"), [((5,), 0), ((3, 4), 1), ((3, 4), -2), ((2, 3, 2, 4), 2), ((3, 1), 1)])
@pytest.mark.parametrize("name", ALONG)
def test_with_positions_against_a_loop(name, shape, dim, keepdim, ties, run, rng):
    x = rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)
    found = []
    y, gy, (gx,) = run(lambda t: found.append(ALONG[name](t, dim, keepdim)) or found[0][0], x)
    index = found[0][1]
    expected_gx, kept = np.zeros_like(x), x.sum(axis=dim, keepdims=True).shape
    assert index.dtype == np.int64 and not index.requires_grad
    assert y.shape == index.shape == (kept if keepdim else x.sum(axis=dim).shape)
    for at, under in slices(shape, dim):
        values = list(x[under])
        extreme = max(values) if name == "max" else min(values)
        first = values.index(extreme)
        assert y.reshape(kept)[at] == extreme and index.numpy().reshape(kept)[at] == first
        expected_gx[under][first] = gy.reshape(kept)[at]
    np.testing.assert_array_equal(gx, expected_gx)


@pytest.mark.parametrize(("name", "best"), [("max", max), ("min", min)])
def test_without_dim_the_extreme_of_everything(name, best, run, rng):
    x = rng.standard_normal((3, 4))
    y, gy, (gx,) = run(ALONG[name], x)
    assert y == best(x.ravel())
    np.testing.assert_array_equal(gx, (x == y) * gy)


@pytest.mark.parametrize("name", ALONG)
def test_a_number_is_its_own_extreme(name, run, device):
    y, gy, (gx,) = run(lambda t: ALONG[name](t, 0)[0], np.array(3.0))
    assert y == 3 and gx == gy
    assert ALONG[name](Tensor(np.array(3.0), device=device), 0)[1].numpy() == 0


def test_argmax_is_the_first_maximum(device):
    x = Tensor(np.array([[1.0, 7.0, 7.0], [9.0, 2.0, 9.0]]), True, device)
    assert argmax(x, 1).numpy().tolist() == [1, 0]
    assert argmax(x, 0).numpy().tolist() == [1, 0, 1]
    assert argmax(x, -1, keepdim=True).numpy().tolist() == [[1], [0]]
    assert argmax(x).numpy() == 3
    assert argmax(x).dtype == np.int64 and not argmax(x).requires_grad and argmax(x).device is device


@pytest.mark.parametrize("fn", [sum_, mean])
def test_empty_batch(fn, run):
    y, _, (gx,) = run(lambda t: fn(t, 1), np.zeros((0, 3)))
    assert y.shape == (0,) and gx.shape == (0, 3)


def test_the_sum_over_nothing_is_0(run):
    y, _, (gx,) = run(sum_, np.zeros((0, 3)))
    assert y == 0 and gx.shape == (0, 3)


def test_extremes_over_an_axis_beside_an_empty_one(device):
    x = Tensor(np.zeros((0, 3)), device=device)
    assert amax(x, 1).shape == max_(x, 1)[0].shape == argmax(x, 1).shape == (0,)


def test_ints_can_be_summed_and_compared(device):
    x = Tensor(np.array([3, 1, 2]), device=device)
    assert sum_(x).numpy() == 6 and amax(x).numpy() == 3 and min_(x, 0)[1].numpy() == 1


def test_the_mean_of_float16_does_not_overflow(run):
    y, _, (gx,) = run(mean, np.full(5000, 20, np.float16))
    assert y == 20 and y.dtype == gx.dtype == np.float16


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("shape", "dim"), CASES)
@pytest.mark.parametrize("name", SEVERAL)
def test_gradcheck(name, shape, dim, keepdim, leaves):
    gradcheck(lambda x: SEVERAL[name](x, dim, keepdim), leaves(shape))


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("dim", [None, 0, -1])
def test_gradcheck_with_positions(name, dim, leaves):
    gradcheck(lambda x: ALONG[name](x, dim), leaves((3, 4)))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fn", "name"), [(sum_, "sum"), (mean, "mean"), (amax, "amax"), (amin, "amin"), (max_, "max"), (argmax, "argmax")]
)
def test_axes_that_are_not_there(fn, name, device):
    x = Tensor(np.zeros((2, 3)), device=device)
    with pytest.raises(IndexError, match=f"^{re.escape(f'{name}: dim must be in [-2, 1], got 2')}$"):
        fn(x, 2)
    with pytest.raises(TypeError, match=f"^{re.escape(f'{name}: dim must be an int, got 1.0')}$"):
        fn(x, 1.0)


@pytest.mark.parametrize("name", SEVERAL)
def test_each_axis_is_named_once(name, device):
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'{name}: each dim may be named once, got (0, -2)')}$"):
        SEVERAL[name](Tensor(np.zeros((2, 3)), device=device), (0, -2))


def test_the_mean_of_ints_is_refused(device):
    with pytest.raises(RuntimeError, match=r"^mean: x must be of floats, got int64$"):
        mean(Tensor(np.arange(3), device=device))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: amax(x, 0), "amax: an axis of 0 elements has no extreme, got x (0, 3), dim (0,)"),
        (lambda x: amin(x), "amin: an axis of 0 elements has no extreme, got x (0, 3), dim (0, 1)"),
        (lambda x: max_(x), "amax: an axis of 0 elements has no extreme, got x (0, 3), dim (0, 1)"),
        (lambda x: max_(x, 0), "max: an axis of 0 elements has no extreme, got x (0, 3), dim (0,)"),
        (lambda x: min_(x, 0), "min: an axis of 0 elements has no extreme, got x (0, 3), dim (0,)"),
        (lambda x: argmax(x, 0), "argmax: an axis of 0 elements has no extreme, got x (0, 3), dim (0,)"),
        (lambda x: argmax(x), "argmax: an axis of 0 elements has no extreme, got x (0, 3), dim (0, 1)"),
    ],
)
def test_nothing_has_no_extreme(call, text, device):
    with pytest.raises(IndexError, match=f"^{re.escape(text)}$"):
        call(Tensor(np.zeros((0, 3)), device=device))


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("name", [*SEVERAL, *ALONG])
def test_memory_order_of_the_input_changes_nothing(name, arrange, device, rng):
    array, gy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 4, 5))
    fn = (lambda t: SEVERAL[name](t, 1)) if name in SEVERAL else (lambda t: ALONG[name](t, 1)[0])
    expected_x, x = Tensor(array, True, device), arrange(array)
    ys = []
    for leaf in (expected_x, x):
        ys.append(fn(leaf))
        ys[-1].backward(gy)
    # sums along memory and across it add in another order
    np.testing.assert_allclose(ys[1].detach().numpy(), ys[0].detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x.grad.numpy(), expected_x.grad.numpy())


def test_argmax_of_everything_counts_in_the_order_of_indices_not_of_memory(arrange, rng):
    array = rng.standard_normal((2, 3, 4, 5))
    assert argmax(arrange(array)).numpy() == array.argmax()


@pytest.mark.parametrize("name", [*SEVERAL, *ALONG])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(name, dtype, run, rng):
    fn = SEVERAL.get(name) or ALONG[name]
    for call in (fn, lambda t: fn(t, 1) if name in SEVERAL else fn(t, 1)[0]):
        y, _, (gx,) = run(call, rng.standard_normal((3, 4)).astype(dtype))
        assert y.dtype == gx.dtype == dtype
