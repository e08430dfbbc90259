"""minidl.ops.l1_loss against a loop, at its kink. What it shares with other losses is in test_mse_loss.py."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

from minidl.ops.l1_loss import l1_loss

PAIR = uniform((2, 3, 4, 5), (2, 3, 4, 5))
WEIGHT = uniform((2, 3, 4, 5), low=-0.5)
LAYER_CASES = {
    "l1_loss": LayerCase(lambda F, x, t: F.l1_loss(x, t), PAIR, module=lambda nn: nn.L1Loss()),
    "l1_loss sum": LayerCase(
        lambda F, x, t: F.l1_loss(x, t, reduction="sum"), PAIR, module=lambda nn: nn.L1Loss(reduction="sum")
    ),
    "l1_loss none": LayerCase(lambda F, x, t: F.l1_loss(x, t, reduction="none"), PAIR),
    "l1_loss weighted": LayerCase(lambda F, x, t, w: F.l1_loss(x, t, weight=w + 1), [*PAIR, *WEIGHT]),
}


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    y, gy, (gx, gt) = run(lambda x, t: l1_loss(x, t, reduction="none"), x, t)
    for at in np.ndindex(shape):
        assert y[at] == abs(x[at] - t[at])
        assert gx[at] == -gt[at] == (gy[at] if x[at] > t[at] else -gy[at])


def test_equal_numbers_and_nan_get_no_gradient(run):
    y, _, (gx, gt) = run(lambda x, t: l1_loss(x, t, reduction="none"), np.array([2.0, np.nan]), np.array([2.0, 1.0]))
    assert y[0] == 0 and np.isnan(y[1])
    assert gx.tolist() == gt.tolist() == [0, 0]


def test_the_weighted_mean_is_divided_by_the_weights(run):
    y, gy, (gx, _, gw) = run(
        lambda x, t, w: l1_loss(x, t, weight=w), np.array([1.0, 2]), np.array([0.0, 5]), np.array([3.0, 1])
    )
    assert y == (3 * 1 + 1 * 3) / 4
    assert gx.tolist() == [gy * 3 / 4, -gy / 4]
    assert gw.tolist() == [gy * (1 - y) / 4, gy * (3 - y) / 4]
