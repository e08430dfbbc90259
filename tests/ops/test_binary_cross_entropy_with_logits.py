"""minidl.ops.binary_cross_entropy_with_logits against a loop, confident scores, weights, errors, its module. What it shares
with other losses is in test_mse_loss.py."""

import math

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

import minidl.nn as nn
from minidl import Tensor
from minidl.ops.binary_cross_entropy_with_logits import binary_cross_entropy_with_logits as bce

PAIR = [*uniform((2, 3, 4, 5)), *uniform((2, 3, 4, 5), low=0.1, high=0.9)]
POSITIVE, WEIGHT = np.array([[[0.5]], [[2.0]], [[3.0]]]), np.arange(1.0, 6.0)
LAYER_CASES = {
    "binary_cross_entropy_with_logits": LayerCase(
        lambda F, x, t: F.binary_cross_entropy_with_logits(x, t), PAIR, module=lambda nn: nn.BCEWithLogitsLoss()
    ),
    "binary_cross_entropy_with_logits sum": LayerCase(
        lambda F, x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum"),
        PAIR,
        module=lambda nn: nn.BCEWithLogitsLoss(reduction="sum"),
    ),
    "binary_cross_entropy_with_logits weighted": LayerCase(
        lambda F, x, t, w, p: F.binary_cross_entropy_with_logits(x, t, w, pos_weight=p), PAIR, (WEIGHT, POSITIVE)
    ),
    "binary_cross_entropy_with_logits none": LayerCase(
        lambda F, x, t, p: F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=p), PAIR, (POSITIVE,)
    ),
}


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("positive", [None, 2.5])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_forward_and_backward_against_a_loop(shape, positive, run, rng):
    x, t = rng.standard_normal(shape), rng.random(shape)
    pos_weight = None if positive is None else np.array(positive)
    y, gy, (gx, gt) = run(lambda x, t: bce(x, t, reduction="none", pos_weight=pos_weight), x, t)
    p = positive or 1
    for at in np.ndindex(shape):
        s = 1 / (1 + math.exp(-x[at]))
        np.testing.assert_allclose(y[at], -p * t[at] * math.log(s) - (1 - t[at]) * math.log(1 - s), rtol=1e-14)
        np.testing.assert_allclose(gx[at], gy[at] * ((1 - t[at]) * s - p * t[at] * (1 - s)), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(gt[at], gy[at] * (math.log(1 - s) - p * math.log(s)), rtol=1e-13, atol=1e-14)


def test_weights_by_hand(run):
    """The mean is divided by the number of losses, not by the weights."""
    x, t = np.log([[3.0, 1 / 3]]), np.array([[1.0, 1.0]])  # yes with probabilities 3/4 and 1/4
    y, gy, (gx, _) = run(lambda x, t: bce(x, t, np.array([4.0, 2]), pos_weight=np.array([1.0, 5])), x, t)
    np.testing.assert_allclose(y, (-4 * math.log(3 / 4) - 2 * 5 * math.log(1 / 4)) / 2, rtol=1e-15)
    np.testing.assert_allclose(gx, [[gy * -4 * (1 / 4) / 2, gy * -2 * 5 * (3 / 4) / 2]], rtol=1e-15)


# --------------------------------------------------------------------------------------------------- confident scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_mistakes_stay_finite(dtype, device):
    x = Tensor(np.array([-800, 800, -1e30, 1e30], dtype), True, device)
    t = Tensor(np.array([1, 0, 1, 0], dtype), device=device)
    with np.errstate(all="raise", under="ignore"):
        y = bce(x, t, reduction="none")
        y.backward(np.ones(4, dtype))
    assert y.detach().numpy().tolist() == [800, 800, dtype(1e30), dtype(1e30)]
    assert x.grad.tolist() == [-1, 1, -1, 1]


def test_small_losses_keep_their_digits(run):
    """A confident right answer costs e^-|x|, and that is its slope."""
    y, gy, (gx, _) = run(lambda x, t: bce(x, t, reduction="none"), np.array([50.0, -600.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(y, np.exp([-50.0, -600.0]), rtol=1e-15)
    np.testing.assert_allclose(gx, gy * [-math.exp(-50), math.exp(-600)], rtol=1e-15)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("target", "settings", "error", "text"),
    [
        (np.ones(3), {}, ValueError, "target must have the shape of x, (2, 3), got (3,)"),
        (np.ones((2, 3), int), {}, RuntimeError, "x and target must be of floats, got float64 and int64 (x (2, 3))"),
        (np.ones((2, 3)), {"weight": np.ones(2)}, RuntimeError, "weight must broadcast to the shape of x, (2, 3), got (2,)"),
        (
            np.ones((2, 3)),
            {"pos_weight": np.ones((2, 2, 3))},
            RuntimeError,
            "pos_weight must broadcast to the shape of x, (2, 3), got (2, 2, 3)",
        ),
        (
            np.ones((2, 3)),
            {"pos_weight": Tensor([1.0], requires_grad=True)},
            RuntimeError,
            "pos_weight must not require a gradient, as none flows to it; pass pos_weight.detach()",
        ),
    ],
)
def test_errors(target, settings, error, text):
    with pytest.raises(error) as caught:
        bce(Tensor(np.ones((2, 3))), target, **settings)
    assert str(caught.value) == f"binary_cross_entropy_with_logits: {text}"


# ---------------------------------------------------------------------------------------------------------- the module


def test_its_weights_are_buffers(device):
    """They go where the module goes, and into its state; it does with them what the function does."""
    weight, pos_weight = np.array([1.0, 2.0]), np.array([3.0, 0.5])
    loss = nn.BCEWithLogitsLoss(Tensor(weight), reduction="sum", pos_weight=Tensor(pos_weight)).to(device)
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    x, t = Tensor([[0.5, -1.0]], device=device), Tensor([[1.0, 0.25]], device=device)
    assert loss(x, t).item() == bce(x, t, weight, reduction="sum", pos_weight=pos_weight).item()
    assert list(nn.BCEWithLogitsLoss().state_dict()) == []
