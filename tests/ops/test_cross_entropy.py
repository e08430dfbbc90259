"""minidl.ops.cross_entropy: both losses against a loop, confident mistakes, gradcheck, errors, memory layouts."""

import math
import re

import numpy as np
import pytest
from layer_cases import IMAGES, ROWS, LayerCase

from minidl import Tensor, gradcheck
from minidl.ops.cross_entropy import cross_entropy, nll_loss
from minidl.ops.softmax import log_softmax

IDS = np.array([0, 3, -100, 1, 2])
PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4]] * 5)
LAYER_CASES = {
    "cross_entropy": LayerCase(lambda F, x, t: F.cross_entropy(x, t, label_smoothing=0.1), ROWS, (IDS,)),
    "cross_entropy weighted": LayerCase(lambda F, x, t, w: F.cross_entropy(x, t, weight=w), ROWS, (IDS, np.arange(1.0, 5.0))),
    "cross_entropy probabilities": LayerCase(lambda F, x, t: F.cross_entropy(x, t, reduction="none"), [*ROWS, PROBABILITIES]),
    "cross_entropy maps": LayerCase(lambda F, x, t: F.cross_entropy(x, t, reduction="sum"), IMAGES, (np.ones((2, 7, 6), int),)),
    "nll_loss": LayerCase(lambda F, x, t: F.nll_loss(x, t), ROWS, (IDS,)),
}

CLOSE = {"rtol": 1e-13, "atol": 1e-13}  # sums of some 40 terms of size about 1

WEIGHT = np.array([0.5, 2.0, 1.0, 3.0])
SETTINGS = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "ignore_index": {"ignore_index": 2},
    "weight and ignore_index": {"weight": WEIGHT, "ignore_index": 2},
    "label_smoothing": {"label_smoothing": 0.3},
    "everything": {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
}
REDUCTIONS = ["mean", "sum", "none"]
SHAPES = [(5, 4), (4,), (3, 4, 2), (2, 4, 2, 3)]  # of x: four classes


def loop(x, target, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Rows of classes one by one: the losses, and the gradient of each with respect to its row, weighed for the reduction."""
    ids_shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    weight = np.ones(4) if weight is None else weight
    losses, rows, total = np.zeros(ids_shape), {}, 0.0
    for at in np.ndindex(ids_shape):
        row = (at[0], slice(None), *at[1:]) if at else slice(None)
        soft = [math.exp(v) / sum(math.exp(u) for u in x[row]) for v in x[row]]
        q = target[row] if target.dtype.kind == "f" else np.eye(4)[target[at]]
        ignored = target.dtype.kind != "f" and target[at] == ignore_index
        t = (weight * ((1 - label_smoothing) * q + label_smoothing / 4)) * (not ignored)
        losses[at] = -sum(t[c] * math.log(soft[c]) for c in range(4))
        rows[at] = row, [soft[c] * sum(t) - t[c] for c in range(4)]
        total += 1 if target.dtype.kind == "f" else (0 if ignored else weight[target[at]])
    if reduction == "none":
        return losses, rows, 1.0
    return losses.sum() / (total if reduction == "mean" else 1), rows, (1 / total if reduction == "mean" else 1)


def loop_gradient(x, gy, rows, share):
    gx = np.zeros_like(x)
    for at, (row, gradient) in rows.items():
        gx[row] = np.array(gradient) * (gy[at] if gy.shape else gy) * share
    return gx


def ids_for(x_shape, rng):
    ids = rng.integers(0, 4, x_shape[:1] + x_shape[2:] if len(x_shape) > 1 else ())
    return np.where(ids == 2, 1, ids) if ids.size < 2 else ids  # a lone row is not to be ignored


def soft_targets(x_shape, rng):
    q = rng.random(x_shape)
    return q / q.sum(axis=1 if len(x_shape) > 1 else 0, keepdims=True)


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_class_ids_against_a_loop(shape, setting, reduction, run, rng):
    x, target, kwargs = rng.standard_normal(shape), ids_for(shape, rng), {**SETTINGS[setting], "reduction": reduction}
    y, gy, (gx,) = run(lambda t: cross_entropy(t, target, **kwargs), x)
    expected, rows, share = loop(x, target, **kwargs)
    np.testing.assert_allclose(y, expected, **CLOSE)
    np.testing.assert_allclose(gx, loop_gradient(x, gy, rows, share), **CLOSE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kwargs", [{}, {"weight": WEIGHT}, {"label_smoothing": 0.2, "weight": WEIGHT}])
@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_against_a_loop(shape, kwargs, reduction, run, rng):
    x, target = rng.standard_normal(shape), soft_targets(shape, rng)
    y, gy, (gx,) = run(lambda t: cross_entropy(t, target, reduction=reduction, **kwargs), x)
    expected, rows, share = loop(x, target, reduction=reduction, **kwargs)
    np.testing.assert_allclose(y, expected, **CLOSE)
    np.testing.assert_allclose(gx, loop_gradient(x, gy, rows, share), **CLOSE)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("setting", ["plain", "weight", "ignore_index", "weight and ignore_index"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fused_equals_log_softmax_and_nll_loss(shape, setting, reduction, run, rng):
    x, target, kwargs = rng.standard_normal(shape), ids_for(shape, rng), {**SETTINGS[setting], "reduction": reduction}
    y, _, (gx,) = run(lambda t: cross_entropy(t, target, **kwargs), x)
    dim = 1 if len(shape) > 1 else 0
    apart, _, (gx_apart,) = run(lambda t: nll_loss(log_softmax(t, dim), target, **kwargs), x)
    np.testing.assert_allclose(y, apart, **CLOSE)
    np.testing.assert_allclose(gx, gx_apart, **CLOSE)


def test_nll_loss_picks_the_target(run):
    logp = np.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
    y, gy, (gx,) = run(lambda t: nll_loss(t, np.array([2, 0]), reduction="none"), logp)
    assert y.tolist() == [3, 4]
    np.testing.assert_array_equal(gx, [[0, 0, -gy[0]], [-gy[1], 0, 0]])


def test_the_gradient_is_what_the_net_believed_minus_what_was_so(device):
    x = Tensor(np.log([[1.0, 2.0, 1.0]]), True, device)
    cross_entropy(x, np.array([1])).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0.25, -0.5, 0.25]], rtol=1e-15)


def test_confident_mistakes_stay_finite(run):
    x = np.array([[1e4, 0.0, -1e4], [0.0, 1e4, 0.0]])
    y, gy, (gx,) = run(lambda t: cross_entropy(t, np.array([2, 0]), reduction="none"), x)
    assert y.tolist() == [2e4, 1e4]
    np.testing.assert_array_equal(gx, [[gy[0], 0, -gy[0]], [-gy[1], gy[1], 0]])


def test_an_impossible_class_that_is_not_the_target_costs_nothing(run):
    y, _, (gx,) = run(lambda t: cross_entropy(t, np.array([0])), np.array([[0.0, -np.inf, 0.0]]))
    np.testing.assert_allclose(y, math.log(2), rtol=1e-15)
    assert np.isfinite(gx).all() and gx[0, 1] == 0


def test_ignored_rows_get_no_gradient_and_may_hold_any_ignore_index(run, rng):
    x, target = rng.standard_normal((3, 4)), np.array([1, -100, 3])
    y, _, (gx,) = run(lambda t: cross_entropy(t, target), x)
    kept, _, (gx_kept,) = run(lambda t: cross_entropy(t, target[[0, 2]]), x[[0, 2]])
    np.testing.assert_allclose(y, kept, **CLOSE)
    np.testing.assert_allclose(gx[[0, 2]], gx_kept, **CLOSE)
    assert not gx[1].any()


@pytest.mark.parametrize(("x", "ids"), [(np.zeros((2, 3)), [-100, -100]), (np.zeros((0, 3)), [])])
def test_the_mean_over_no_row_is_nan_with_gradient_0_and_the_sum_0(x, ids, device):
    target = np.array(ids, np.int64)
    scores = Tensor(x, True, device)
    mean = cross_entropy(scores, target)
    mean.backward()
    assert np.isnan(mean.item()) and not scores.grad.numpy().any()
    assert cross_entropy(scores, target, reduction="sum").item() == 0
    assert cross_entropy(scores, target, reduction="none").detach().numpy().tolist() == [0] * len(ids)


def test_empty_batch_backward(run):
    for reduction in ("sum", "mean"):
        _, _, (gx,) = run(lambda t: cross_entropy(t, np.zeros(0, int), reduction=reduction), np.zeros((0, 3)))  # noqa: B023
        assert gx.shape == (0, 3)


def test_one_hot_probabilities_are_class_ids(device, rng):
    x, ids = Tensor(rng.standard_normal((5, 4)), device=device), rng.integers(0, 4, 5)
    a, b = cross_entropy(x, ids).numpy(), cross_entropy(x, np.eye(4)[ids]).numpy()
    np.testing.assert_allclose(a, b, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_class_ids_of_any_int_dtype_as_tensor_or_array(dtype, device, rng):
    x, ids = Tensor(rng.standard_normal((5, 4)), device=device), rng.integers(0, 4, 5)
    expected = cross_entropy(x, ids).numpy()
    assert cross_entropy(x, ids.astype(dtype)).numpy() == expected
    assert cross_entropy(x, Tensor(ids.astype(dtype), device=device)).numpy() == expected


def test_the_weight_gets_no_gradient(device, rng):
    x, q, w = (Tensor(a, True, device) for a in (rng.standard_normal((5, 4)), soft_targets((5, 4), rng), WEIGHT))
    cross_entropy(x, q, w).backward()
    assert x.grad is not None and w.grad is None


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradcheck_with_class_ids(setting, reduction, leaves, rng):
    for shape in SHAPES:
        target = ids_for(shape, rng)
        gradcheck(lambda x: cross_entropy(x, target, reduction=reduction, **SETTINGS[setting]), leaves(shape))  # noqa: B023


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_probabilities(shape, reduction, device, rng):
    """In their own dtype; - ln p times the class's weight, what smoothing leaves of them, and the loss's share."""
    x = Tensor(rng.standard_normal(shape), device=device)
    q = Tensor(soft_targets(shape, rng).astype(np.float32), True, device)
    y = cross_entropy(x, q, Tensor(WEIGHT, device=device), reduction=reduction, label_smoothing=0.2)
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    axis = 0 if len(shape) == 1 else 1
    logp = log_softmax(x, axis).numpy()
    share = 4 / logp.size if reduction == "mean" else 1.0
    weights = WEIGHT.reshape(-1, *[1] * (len(shape) - 1 - axis))
    expected = -(np.expand_dims(gy, axis) if y.ndim else gy) * share * weights * 0.8 * logp
    assert q.grad.dtype == np.float32
    np.testing.assert_allclose(q.grad.numpy(), expected, rtol=4 * np.finfo(np.float32).eps)


def test_probabilities_have_no_id_to_ignore(device):
    x, q = Tensor(np.zeros((2, 3)), device=device), Tensor(np.full((2, 3), 1 / 3), device=device)
    with pytest.raises(ValueError, match=r"ignore_index is for class ids, not for probabilities \(2, 3\), got 1$"):
        cross_entropy(x, q, ignore_index=1)
    cross_entropy(x, q, ignore_index=-1)  # PyTorch's rule: no class has a negative id


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_with_probabilities(reduction, leaves, rng):
    for shape in SHAPES:
        q = soft_targets(shape, rng)
        fn = lambda x: cross_entropy(x, q, WEIGHT, reduction=reduction, label_smoothing=0.2)  # noqa: B023
        gradcheck(fn, leaves(shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_of_nll_loss(reduction, leaves, rng):
    for shape in SHAPES:
        target = ids_for(shape, rng)
        fn = lambda x: nll_loss(x, target, WEIGHT, ignore_index=2, reduction=reduction)  # noqa: B023
        gradcheck(fn, leaves(shape))


# -------------------------------------------------------------------------------------------------------------- errors

IDS = np.array([1, 0, 2])
ERRORS = [
    ({"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
    ({"size_average": True}, ValueError, "size_average and reduce were replaced by reduction, got True and None"),
    ({"reduce": False}, ValueError, "size_average and reduce were replaced by reduction, got None and False"),
    ({"input": np.zeros(())}, ValueError, "x must be floats of (C,), (N, C) or (N, C, ...), got float64 ()"),
    (
        {"input": np.zeros((3, 4), int)},
        ValueError,
        "x must be floats of (C,), (N, C) or (N, C, ...), got int64 (3, 4)",
    ),
    ({"input": np.zeros((3, 0))}, ValueError, "x must have at least 1 class, got 0 (x (3, 0))"),
    ({"weight": np.ones(3)}, ValueError, "weight must be (4,), got (3,) (x (3, 4))"),
    ({"target": np.array([1, 0])}, ValueError, "class ids must have the shape (3,), got (2,) (x (3, 4))"),
    ({"target": np.zeros((3, 4), int)}, ValueError, "class ids must have the shape (3,), got (3, 4) (x (3, 4))"),
    ({"target": np.zeros(3)}, TypeError, "class ids must be ints of (3,), got float64 (3,) (x (3, 4))"),
    ({"target": np.array([1, 4, 0])}, IndexError, "class ids must be in [0, 3] or -100 (ignored), got 4 at position 1"),
    (
        {"target": np.array([1, 0, -1]), "ignore_index": 9},
        IndexError,
        "class ids must be in [0, 3] or 9 (ignored), got -1 at position 2",
    ),
]


@pytest.mark.parametrize("fn", [cross_entropy, nll_loss])
@pytest.mark.parametrize(("given", "error", "text"), ERRORS)
def test_errors(fn, given, error, text, device):
    kwargs = {"input": np.zeros((3, 4)), "target": IDS, **given}
    x = Tensor(kwargs.pop("input"), device=device)
    with pytest.raises(error, match=f"^{re.escape(f'{fn.__name__}: {text}')}$"):
        fn(x, **kwargs)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1])
def test_label_smoothing_is_a_share(smoothing, device):
    text = f"cross_entropy: label_smoothing must be in [0, 1], got {smoothing}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        cross_entropy(Tensor(np.zeros((3, 4)), device=device), IDS, label_smoothing=smoothing)


def test_nll_loss_takes_no_probabilities(device):
    text = "nll_loss: class ids must be ints of (3,), got float64 (3, 4) (x (3, 4))"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        nll_loss(Tensor(np.zeros((3, 4)), device=device), np.zeros((3, 4)))


def test_all_operands_are_on_one_device():
    x, ids, far = Tensor(np.zeros((3, 4))), Tensor(IDS), Tensor(IDS, device="cpu:1")
    with pytest.raises(RuntimeError, match=re.escape("cross_entropy: x is on cpu:0, y on cpu:1; move one with .to(device)")):
        cross_entropy(x, far)
    text = "cross_entropy: x is on cpu:0, y on cpu:0, z on cpu:1; move one with .to(device)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        cross_entropy(x, ids, Tensor(np.ones(4), device="cpu:1"))


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("target_kind", ["ids", "probabilities"])
def test_memory_order_of_the_inputs_changes_nothing(target_kind, arrange, device, rng):
    array = rng.standard_normal((2, 4, 3, 5))
    soft = soft_targets(array.shape, rng)
    ids = rng.integers(0, 4, (2, 3, 5))
    expected_x, x = Tensor(array, True, device), arrange(array)
    target = ids[:, ::-1][:, ::-1] if target_kind == "ids" else arrange(soft).detach()
    expected = cross_entropy(expected_x, ids if target_kind == "ids" else soft)
    y = cross_entropy(x, target)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    y.backward()
    expected.backward()
    np.testing.assert_allclose(x.grad.numpy(), expected_x.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_the_scores_whatever_the_targets(dtype, reduction, run, rng):
    x = rng.standard_normal((5, 4)).astype(dtype)
    for target in (rng.integers(0, 4, 5), soft_targets((5, 4), rng)):
        for weight in (None, WEIGHT):
            fn = lambda t: cross_entropy(t, target, weight, reduction=reduction, label_smoothing=0.1)  # noqa: B023
            y, _, (gx,) = run(fn, x)
            assert y.dtype == gx.dtype == dtype


def test_target_and_weight_are_left_alone(device, rng):
    x = Tensor(rng.standard_normal((3, 4)), True, device)
    for target in (IDS.copy(), soft_targets((3, 4), rng)):
        kept, weight = target.copy(), WEIGHT.copy()
        cross_entropy(x, target, weight, label_smoothing=0.1, ignore_index=-1).backward()
        np.testing.assert_array_equal(target, kept)
        np.testing.assert_array_equal(weight, WEIGHT)
