"""Clipping of gradients, by hand. PyTorch's numbers are in tests/oracle/test_clip_grad.py."""

import math

import numpy as np
import pytest

from minidl import nn
from minidl.nn.utils import clip_grad_norm_, clip_grad_value_
from minidl.tensor import Tensor


def with_gradient(*values, dtype=np.float32):
    p = Tensor(np.zeros(len(values), dtype), requires_grad=True)
    p.grad = Tensor(np.array(values, dtype))
    return p


def test_the_norm_is_that_of_all_gradients_together():
    p, q, without = with_gradient(3.0, 0.0), with_gradient(0.0, 4.0), Tensor([1.0], requires_grad=True)
    arrays = p.grad, q.grad
    norm = clip_grad_norm_([p, without, q], max_norm=1.0)
    assert isinstance(norm, Tensor) and norm.shape == () and norm.item() == 5.0
    np.testing.assert_allclose(p.grad, [0.6, 0], rtol=1e-6)  # 1e-6 / 5, and two roundings of float32
    np.testing.assert_allclose(q.grad, [0, 0.8], rtol=1e-6)
    assert (p.grad is arrays[0], q.grad is arrays[1], without.grad) == (True, True, None)


def test_small_gradients_stay():
    p = with_gradient(3.0, 4.0)
    assert clip_grad_norm_(p, 6.0).item() == 5.0
    assert p.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("order", "norm"), [(1, 7.0), (math.inf, 4.0), ("inf", 4.0), (3, 91 ** (1 / 3))])
def test_other_norms(order, norm):
    p = with_gradient(-3.0, 4.0, dtype=np.float64)
    assert clip_grad_norm_([p], norm / 2, norm_type=order).item() == pytest.approx(norm)
    np.testing.assert_allclose(p.grad, [-1.5, 2.0], rtol=1e-6)


def test_without_gradients_the_norm_is_0():
    assert clip_grad_norm_([Tensor([1.0], requires_grad=True)], 1.0).item() == 0
    with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping will occur"):
        clip_grad_norm_((p for p in ()), 1.0)
    with pytest.warns(UserWarning, match="empty generator"):
        clip_grad_value_(iter(()), 1.0)


def test_a_norm_that_is_not_finite():
    p = with_gradient(math.nan, 1.0)
    with pytest.raises(RuntimeError, match=r"The total norm of order 2.0 .* is non-finite, nan, so it cannot be clipped"):
        clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert p.grad[1] == 1.0
    assert math.isnan(clip_grad_norm_([p], 1.0).item()) and np.isnan(p.grad.data).all()
    q = with_gradient(math.inf, 1.0)
    clip_grad_norm_(q, 1.0)
    assert math.isnan(q.grad[0]) and q.grad[1] == 0


def test_values_are_limited_in_place():
    p = with_gradient(-3.0, 0.5, 2.0, math.nan)
    array = p.grad
    clip_grad_value_(p, 1.5)
    assert p.grad is array
    np.testing.assert_array_equal(p.grad, [-1.5, 0.5, 1.5, np.nan])


def test_the_parameters_of_a_module_on_two_devices():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1).to("cpu:1"))
    for p in net.parameters():
        p.grad = Tensor(np.ones_like(p.data), device=p.device)
    assert clip_grad_norm_(net.parameters(), 1.5).item() == 3.0  # of 4 + 2 + 2 + 1 ones
    for p in net.parameters():
        np.testing.assert_allclose(p.grad, 0.5, rtol=1e-6)


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_what_is_no_tensor_is_refused(clip):
    with pytest.raises(TypeError, match=f"{clip.__name__}: parameters must be Tensors, got ndarray"):
        clip([np.ones(2)], 1.0)
