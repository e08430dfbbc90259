"""minidl.ops.mse_loss against a loop, broadcasting, errors; and what the losses of elements share (minidl/nn/loss.py)."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

import minidl.nn.functional as F
from minidl import Tensor
from minidl.ops.mse_loss import mse_loss

PAIR = uniform((2, 3, 4, 5), (2, 3, 4, 5))
WEIGHT = uniform((2, 3, 4, 5), low=-0.5)
LAYER_CASES = {
    "mse_loss": LayerCase(lambda F, x, t: F.mse_loss(x, t), PAIR, module=lambda nn: nn.MSELoss()),
    "mse_loss sum": LayerCase(
        lambda F, x, t: F.mse_loss(x, t, reduction="sum"), PAIR, module=lambda nn: nn.MSELoss(reduction="sum")
    ),
    "mse_loss none": LayerCase(lambda F, x, t: F.mse_loss(x, t, reduction="none"), PAIR),
    "mse_loss weighted": LayerCase(lambda F, x, t, w: F.mse_loss(x, t, weight=w + 1), [*PAIR, *WEIGHT]),
    "mse_loss weighted none": LayerCase(lambda F, x, t, w: F.mse_loss(x, t, reduction="none", weight=w + 1), [*PAIR, *WEIGHT]),
}
OF_ELEMENTS = ["mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"]
THAT_BROADCAST = OF_ELEMENTS[:3]


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_forward_and_backward_against_a_loop(shape, run, rng):
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    y, gy, (gx, gt) = run(lambda x, t: mse_loss(x, t, reduction="none"), x, t)
    for at in np.ndindex(shape):
        d = x[at] - t[at]
        assert y[at] == d**2
        assert gx[at] == -gt[at] == 2 * gy[at] * d


def test_the_weighted_mean_is_divided_by_the_weights(run):
    x, t, w = np.array([1.0, 2, 3]), np.array([0.0, 4, 3]), np.array([4.0, 1, 3])
    y, gy, (gx, _, gw) = run(lambda x, t, w: mse_loss(x, t, weight=w), x, t, w)
    assert y == (4 * 1 + 1 * 4 + 3 * 0) / 8
    np.testing.assert_allclose(gx, gy * 2 * w * (x - t) / 8, rtol=1e-15)
    np.testing.assert_allclose(gw, gy * ((x - t) ** 2 - y) / 8, rtol=1e-15)


# ------------------------------------------------------------------------------------- what the losses of elements share


@pytest.mark.parametrize("name", THAT_BROADCAST)
def test_what_was_broadcast_gets_the_sum_of_its_gradients(name, run, rng):
    x, t = rng.standard_normal((4, 1)), rng.standard_normal(3)
    full_x, full_t = (np.broadcast_to(a, (4, 3)).copy() for a in (x, t))
    with pytest.warns(UserWarning) as caught:
        y, _, (gx, gt) = run(lambda x, t: getattr(F, name)(x, t, reduction="none"), x, t)
    assert [str(warning.message) for warning in caught] == [
        f"{name}: x and target are both broadcast to (4, 3), which is seldom meant, got x (4, 1), target (3,)"
    ]
    assert caught[0].filename == __file__
    expected, _, (gx_full, gt_full) = run(lambda x, t: getattr(F, name)(x, t, reduction="none"), full_x, full_t)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gx, gx_full.sum(1, keepdims=True), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gt, gt_full.sum(0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", OF_ELEMENTS)
def test_only_what_requires_a_gradient_gets_one(name, device):
    for which in (0, 1):
        pair = [Tensor([0.25, 0.5], requires_grad=i == which, device=device) for i in range(2)]
        getattr(F, name)(*pair).backward()
        assert [x.grad is not None for x in pair] == [which == 0, which == 1]


@pytest.mark.parametrize("name", OF_ELEMENTS)
def test_the_target_may_be_an_array_or_a_list(name, device):
    x, t = Tensor([0.25, 0.5], device=device), np.array([1, 0], np.float32)
    of_tensor, *others = (getattr(F, name)(x, target) for target in (Tensor(t, device=device), t, [1.0, 0.0]))
    assert all(loss.device is device and loss.item() == of_tensor.item() for loss in others)


@pytest.mark.parametrize("name", [name for name in OF_ELEMENTS if name != "smooth_l1_loss"])
def test_the_weight_may_be_an_array_or_a_list(name, device):
    x, t, w = Tensor([0.25, 0.5], device=device), [1.0, 0.0], np.array([2, 5], np.float32)
    of_tensor, *others = (getattr(F, name)(x, t, weight=weight) for weight in (Tensor(w, device=device), w, [2.0, 5.0]))
    assert all(loss.device is device and loss.item() == of_tensor.item() for loss in others)


@pytest.mark.parametrize("name", OF_ELEMENTS)
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"reduction": "avg"}, "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
        ({"size_average": True}, "size_average and reduce were replaced by reduction, got True and None"),
        ({"reduce": False}, "size_average and reduce were replaced by reduction, got None and False"),
    ],
)
def test_a_bad_reduction(name, settings, text, device):
    with pytest.raises(ValueError) as error:
        getattr(F, name)(Tensor([0.5], device=device), Tensor([0.5], device=device), **settings)
    assert str(error.value) == f"{name}: {text}"


@pytest.mark.parametrize("name", OF_ELEMENTS)
def test_two_devices(name):
    with pytest.raises(RuntimeError) as error:
        getattr(F, name)(Tensor([0.5]), Tensor([0.5], device="cpu:1"))
    assert str(error.value) == f"{name}: x is on cpu:0, y on cpu:1; move one with .to(device)"


@pytest.mark.parametrize("name", [name for name in OF_ELEMENTS if name != "smooth_l1_loss"])
def test_a_weight_on_another_device(name):
    with pytest.raises(RuntimeError) as error:
        getattr(F, name)(Tensor([0.5]), Tensor([0.5]), weight=Tensor([0.5], device="cpu:1"))
    assert str(error.value) == f"{name}: x is on cpu:0, y on cpu:1; move one with .to(device)"


@pytest.mark.parametrize("name", THAT_BROADCAST)
def test_sizes_that_do_not_broadcast(name, device):
    with pytest.raises(RuntimeError) as error:
        getattr(F, name)(Tensor(np.ones((2, 3)), device=device), Tensor(np.ones(2), device=device))
    assert str(error.value) == f"{name}: sizes must be equal or 1, counted from the last axis, got x (2, 3), target (2,)"


@pytest.mark.parametrize("name", THAT_BROADCAST)
def test_ints_alone(name, device):
    with pytest.raises(RuntimeError) as error:
        getattr(F, name)(Tensor(np.ones(2, np.int64), device=device), Tensor(np.ones(2, bool), device=device))
    assert str(error.value) == f"{name}: x or target must be of floats, got int64 and bool (x (2,), target (2,))"


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss"])
def test_a_weight_of_another_size(name, device):
    x = Tensor(np.ones((2, 3)), device=device)
    with pytest.raises(ValueError) as error:
        getattr(F, name)(x, x, weight=np.ones(3))
    assert str(error.value) == f"{name}: weight must have the shape of x, (2, 3), got (3,)"
