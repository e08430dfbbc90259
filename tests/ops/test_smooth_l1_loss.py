"""minidl.ops.smooth_l1_loss against a loop, where its two pieces meet, huge differences, errors. What it shares with other
losses is in test_mse_loss.py."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

from minidl import Tensor
from minidl.ops.smooth_l1_loss import smooth_l1_loss

PAIR = uniform((2, 3, 4, 5), (2, 3, 4, 5))
LAYER_CASES = {
    "smooth_l1_loss": LayerCase(lambda F, x, t: F.smooth_l1_loss(x, t), PAIR, module=lambda nn: nn.SmoothL1Loss()),
    "smooth_l1_loss sum": LayerCase(
        lambda F, x, t: F.smooth_l1_loss(x, t, reduction="sum", beta=0.5),
        PAIR,
        module=lambda nn: nn.SmoothL1Loss(reduction="sum", beta=0.5),
    ),
    "smooth_l1_loss none": LayerCase(lambda F, x, t: F.smooth_l1_loss(x, t, reduction="none", beta=2), PAIR),
}


@pytest.mark.parametrize("beta", [1.0, 0.3, 0])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_forward_and_backward_against_a_loop(shape, beta, run, rng):
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    y, gy, (gx, gt) = run(lambda x, t: smooth_l1_loss(x, t, reduction="none", beta=beta), x, t)
    for at in np.ndindex(shape):
        d = x[at] - t[at]
        value, slope = (d * d / (2 * beta), d / beta) if abs(d) < beta else (abs(d) - beta / 2, np.sign(d))
        np.testing.assert_allclose(y[at], value, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(gx[at], gy[at] * slope, rtol=1e-14)
        assert gt[at] == -gx[at]


def test_the_pieces_meet(run):
    """At a distance of beta both have the value beta / 2 and the slope 1."""
    x = np.array([np.nextafter(0.25, 0), 0.25, np.nextafter(0.25, 1)])
    y, gy, (gx, _) = run(lambda x, t: smooth_l1_loss(x, t, reduction="none", beta=0.25), x, np.zeros(3))
    np.testing.assert_allclose(y, 0.125, rtol=1e-15)
    np.testing.assert_allclose(gx, gy, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_huge_difference_is_not_squared(dtype, device):
    x = Tensor(np.array([1e30, -1e30], dtype), True, device)
    with np.errstate(all="raise"):
        y = smooth_l1_loss(x, Tensor(np.zeros(2, dtype), device=device), reduction="none", beta=1e-3)
        y.backward(np.ones(2, dtype))
    assert y.detach().numpy().tolist() == [dtype(1e30)] * 2
    assert x.grad.tolist() == [1, -1]


@pytest.mark.parametrize("beta", [-0.5, float("nan")])
def test_a_beta_below_0(beta, device):
    with pytest.raises(RuntimeError) as error:
        smooth_l1_loss(Tensor([1.0], device=device), Tensor([0.0], device=device), beta=beta)
    assert str(error.value) == f"smooth_l1_loss: beta must be at least 0, got {beta}"
