"""minidl.ops.layer_norm against batch_norm of the transposed rows, large means, empty inputs, errors."""

import re

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

import minidl.nn as nn
from minidl import Tensor
from minidl.ops.batch_norm import batch_norm
from minidl.ops.layer_norm import layer_norm

LAYER_CASES = {
    "layer_norm": LayerCase(
        lambda F, x, w, b: F.layer_norm(x, (3, 4), w, b, 0.5),
        uniform((2, 5, 3, 4), (3, 4), (3, 4)),
        module=lambda nn: nn.LayerNorm((3, 4), 0.5),
    ),
    "layer_norm no bias": LayerCase(
        lambda F, x, w: F.layer_norm(x, (4,), w), uniform((5, 4), (4,)), module=lambda nn: nn.LayerNorm(4, bias=False)
    ),
    "layer_norm alone": LayerCase(
        lambda F, x: F.layer_norm(x, [4], eps=0.5),
        uniform((2, 3, 4)),
        module=lambda nn: nn.LayerNorm([4], 0.5, elementwise_affine=False),
    ),
    "layer_norm one sample": LayerCase(lambda F, x, w, b: F.layer_norm(x, (6,), w, b), uniform((6,), (6,), (6,))),
}


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (1, 4)])
def test_it_is_batch_norm_of_the_transposed_rows(shape, run, rng):
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(lambda t: layer_norm(t, (4,)), x)
    rows = Tensor(x.reshape(-1, 4).T, requires_grad=True)
    columns = batch_norm(rows, None, None, training=True)
    columns.backward(gy.reshape(-1, 4).T)
    np.testing.assert_allclose(y.reshape(-1, 4), columns.detach().numpy().T, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gx.reshape(-1, 4), rows.grad.T, rtol=1e-12, atol=1e-13)


def test_one_feature_is_nothing_but_its_bias(run):
    y, _, (gx, _, _) = run(lambda x, w, b: layer_norm(x, (1,), w, b), np.array([[3.0], [-7.0]]), np.ones(1), np.array([0.5]))
    assert y.tolist() == [[0.5], [0.5]] and not gx.any()


@pytest.mark.parametrize(("shape", "features"), [((0, 4), (4,)), ((3, 0), (0,)), ((2, 0, 4), (0, 4))])
def test_what_is_empty(shape, features, run):
    arrays = np.ones(shape), np.ones(features), np.ones(features)
    y, _, gradients = run(lambda x, w, b: layer_norm(x, features, w, b), *arrays)
    assert y.shape == shape and [g.shape for g in gradients] == [a.shape for a in arrays]
    assert not gradients[1].any() and not gradients[2].any()


def test_nan_stays_in_its_sample(device):
    x = np.arange(6.0).reshape(2, 3)
    x[0, 1] = np.nan
    y = layer_norm(Tensor(x, device=device), (3,)).numpy()
    np.testing.assert_array_equal(np.isnan(y), [[True] * 3, [False] * 3])


def test_large_means_cost_no_digits(device, rng):
    """1e4 + noise in float32: a few roundings of 2^-24 of numbers up to 6, though the mean itself is known to 5e-4 only."""
    x = (1e4 + rng.standard_normal((64, 1000))).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    y = layer_norm(Tensor(x, device=device), (1000,)).numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_many_samples_cost_the_gradients_no_digits(device, rng):
    """A million float32 terms, whose sum in float32, one after the other, is off by some 1e-5."""
    x = rng.uniform(0, 1, (1_000_000, 2)).astype(np.float32)
    leaf, w, b = (Tensor(a, True, device) for a in (x, np.ones(2, np.float32), np.zeros(2, np.float32)))
    layer_norm(leaf, (2,), w, b, eps=0.1).backward(x)
    exact = x.astype(np.float64)
    z = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 0.1)
    np.testing.assert_allclose(b.grad.numpy(), exact.sum(axis=0), rtol=1.2e-7)  # rounded once, by 6e-8
    # of each term's rounding, by some 1e-7 of it, the sum sees little; gw's terms have both signs
    np.testing.assert_allclose(w.grad.numpy(), (exact * z).sum(axis=0), rtol=5e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 4), (4,), (4,)))
    y, _, gradients = run(lambda x, w, b: layer_norm(x, (4,), w, b), x, w, b)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)


def test_initial_values():
    assert {name: values.tolist() for name, values in nn.LayerNorm(2).state_dict().items()} == {
        "weight": [1, 1],
        "bias": [0, 0],
    }


def test_it_begins_as_pytorchs(torch):
    for settings in ({}, {"bias": False}, {"elementwise_affine": False}):
        ours, theirs = (nn.LayerNorm((2, 3), **settings).state_dict() for nn in (nn, torch.nn))
        assert list(ours) == list(theirs)
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values.numpy(), strict=True)


# x, normalized_shape, weight, bias
ERRORS = [
    (((2, 3), (4,), None, None), "the last axes of x must be (4,), got x (2, 3)"),
    (((3,), (2, 3), None, None), "the last axes of x must be (2, 3), got x (3,)"),
    (((2, 3), (), None, None), "normalized_shape must have at least 1 axis, got ()"),
    (((2, 3), 3, None, None), "normalized_shape must be a sequence of ints, got 3"),
    (((2, 3), (3.0,), None, None), "normalized_shape must be an int, got 3.0"),
    (((2, 3), (3,), (4,), None), "weight must be (3,), got (4,)"),
    (((2, 3), (2, 3), (6,), None), "weight must be (2, 3), got (6,)"),
    (((2, 3), (3,), None, (1,)), "bias must be (3,), got (1,)"),
]


def call(arguments, tensor, function):
    x, shape, *parameters = arguments
    return function(tensor(np.ones(x)), shape, *(None if p is None else tensor(np.ones(p)) for p in parameters))


@pytest.mark.parametrize(("arguments", "text"), ERRORS)
def test_errors(arguments, text):
    with pytest.raises((RuntimeError, TypeError), match=f"^{re.escape(f'layer_norm: {text}')}$"):
        call(arguments, Tensor, layer_norm)


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in ERRORS])
def test_errors_are_pytorchs(arguments, torch):
    with pytest.raises((RuntimeError, TypeError)) as ours:
        call(arguments, Tensor, layer_norm)
    with pytest.raises(ours.type):
        call(arguments, torch.tensor, torch.nn.functional.layer_norm)


def test_all_operands_are_floats_of_one_dtype(device):
    x, w = Tensor(np.ones((2, 3)), device=device), Tensor(np.ones(3, np.float32), device=device)
    with pytest.raises(RuntimeError, match=r"^layer_norm: weight must have x's dtype float64, got float32$"):
        layer_norm(x, (3,), w)
    with pytest.raises(RuntimeError, match=r"^layer_norm: x must be of floats, got int64 \(x \(2,\)\)$"):
        layer_norm(Tensor(np.ones(2, np.int64), device=device), (2,))


def test_the_modules_errors():
    with pytest.raises(RuntimeError, match=r"^LayerNorm: normalized_shape must be at least 0, got -1$"):
        nn.LayerNorm((2, -1))
    with pytest.raises(TypeError, match=r"^LayerNorm: normalized_shape must be a sequence of ints, got 2.5$"):
        nn.LayerNorm(2.5)
