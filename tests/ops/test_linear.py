"""minidl.ops.linear against a loop, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

from minidl import Tensor, gradcheck
from minidl.ops.linear import linear, linear_backward

LAYER_CASES = {
    "linear": LayerCase(lambda F, x, w, b: F.linear(x, w, b), uniform((5, 4), (3, 4), (3,)), module=lambda nn: nn.Linear(4, 3)),
    "linear no bias": LayerCase(
        lambda F, x, w: F.linear(x, w), uniform((2, 5, 4), (3, 4)), module=lambda nn: nn.Linear(4, 3, False)
    ),
}

CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # sums of at most 30 products of size about 1, in another order
SHAPES = [((5, 4), (3, 4)), ((4,), (3, 4)), ((2, 3, 4), (5, 4)), ((1, 1), (1, 1)), ((2, 1, 3, 4), (2, 4))]  # x, weight


def loop(gy, x, w, b):
    y, gx, gw, gb = np.zeros(gy.shape), np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for row in np.ndindex(x.shape[:-1]):
        for o in range(len(w)):
            y[(*row, o)] = sum(x[(*row, i)] * w[o, i] for i in range(w.shape[1])) + b[o]
            gx[row] += gy[(*row, o)] * w[o]
            gw[o] += gy[(*row, o)] * x[row]
            gb[o] += gy[(*row, o)]
    return y, gx, gw, gb


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize(("x_shape", "w_shape"), SHAPES)
def test_forward_and_backward_against_a_loop(x_shape, w_shape, run, rng):
    x, w, b = rng.standard_normal(x_shape), rng.standard_normal(w_shape), rng.standard_normal(w_shape[0])
    y, gy, gradients = run(linear, x, w, b)
    for got, expected in zip((y, *gradients), loop(gy, x, w, b), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, **CLOSE)


def test_without_bias(run, rng):
    x, w = rng.standard_normal((5, 4)), rng.standard_normal((3, 4))
    y, gy, gradients = run(linear, x, w)
    for got, expected in zip((y, *gradients), loop(gy, x, w, np.zeros(3))[:3], strict=True):
        np.testing.assert_allclose(got, expected, **CLOSE)


@pytest.mark.parametrize("x_shape", [(0, 4), (3, 0, 4)])
def test_empty_batch(x_shape, run):
    y, _, (gx, gw, gb) = run(linear, np.zeros(x_shape), np.ones((3, 4)), np.ones(3))
    assert y.shape == (*x_shape[:-1], 3) and gx.shape == x_shape
    assert not gw.any() and not gb.any()


def test_no_input_features_leave_the_bias(run):
    y, gy, (gx, gw, gb) = run(linear, np.zeros((2, 0)), np.zeros((3, 0)), np.arange(3.0))
    assert y.tolist() == [[0, 1, 2], [0, 1, 2]] and gb.tolist() == gy.sum(axis=0).tolist()
    assert gx.shape == (2, 0) and gw.shape == (3, 0)


def test_no_output_features(run):
    y, _, (gx, gw, gb) = run(linear, np.ones((2, 4)), np.zeros((0, 4)), np.zeros(0))
    assert y.shape == (2, 0) and gw.shape == (0, 4) and gb.shape == (0,)
    assert not gx.any()


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_gradients_that_nobody_needs_are_not_computed(needs):
    gradients = linear_backward(np.ones((2, 3)), np.ones((2, 4)), np.ones((3, 4)), needs)
    assert tuple(g is not None for g in gradients) == needs


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize(("x_shape", "w_shape"), SHAPES)
def test_gradcheck(x_shape, w_shape, leaves):
    gradcheck(linear, leaves(x_shape, w_shape, w_shape[:1]))
    gradcheck(linear, leaves(x_shape, w_shape))


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    ((2, 4), (3, 4, 1), (3,), "linear: weight must be (O, I), got (3, 4, 1)"),
    ((2, 4), (3, 5), (3,), "linear: weight takes 5 features, x has (4,) (x (2, 4), weight (3, 5))"),
    ((), (3, 5), (3,), "linear: weight takes 5 features, x has () (x (), weight (3, 5))"),
    ((2, 4), (3, 4), (4,), "linear: bias must be (3,), got (4,) (x (2, 4), weight (3, 4))"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "b_shape", "text"), ERRORS)
def test_errors(x_shape, w_shape, b_shape, text, device):
    x, w, b = (Tensor(np.zeros(shape), device=device) for shape in (x_shape, w_shape, b_shape))
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        linear(x, w, b)


def test_all_operands_have_one_dtype(device):
    single, double = (Tensor(np.zeros((3, 3), dtype), device=device) for dtype in (np.float32, np.float64))
    with pytest.raises(RuntimeError, match=re.escape("linear: weight must have x's dtype float32, got float64")):
        linear(single, double)
    with pytest.raises(RuntimeError, match=re.escape("linear: bias must have x's dtype float64, got float32")):
        linear(double, double, Tensor(np.zeros(3, np.float32), device=device))


def test_all_operands_are_on_one_device():
    x, b = Tensor(np.zeros((1, 3))), Tensor(np.zeros(2), device="cpu:1")
    text = "linear: x is on cpu:0, y on cpu:0, z on cpu:1; move one with .to(device)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        linear(x, Tensor(np.zeros((2, 3))), b)


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_of_the_inputs_changes_nothing(arrange, device, rng):
    arrays, gy = [rng.standard_normal(shape) for shape in ((5, 4), (3, 4), (3,))], rng.standard_normal((5, 3))
    expected, tensors = [Tensor(a, True, device) for a in arrays], [arrange(a) for a in arrays]
    ys = []
    for operands in (expected, tensors):
        ys.append(linear(*operands))
        ys[-1].backward(gy)
    np.testing.assert_allclose(ys[0].detach().numpy(), ys[1].detach().numpy(), rtol=1e-12)
    for a, b in zip(expected, tensors, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((5, 4), (3, 4), (3,)))
    y, _, gradients = run(linear, x, w, b)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)
