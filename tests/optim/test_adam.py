"""Adam against its formulas."""

import numpy as np
import pytest

from minidl.optim import Adam
from minidl.tensor import Tensor


def test_the_first_step_has_the_length_lr():
    """m = (1 - beta1) g and s = (1 - beta2) g^2, so the corrected ratio is sign(g), whatever the size of g."""
    p = Tensor(np.array([1.0, 1.0, 1.0]), requires_grad=True)
    p.grad = Tensor(np.array([1e-3, -5.0, 1e4]))
    Adam([p], lr=0.25, eps=0).step()
    np.testing.assert_allclose(p.data, [0.75, 1.25, 0.75], rtol=0, atol=1e-15)  # a few roundings of numbers near 1


def test_the_steps_follow_the_formula():
    rng = np.random.default_rng(0)
    w = rng.standard_normal(8)
    p = Tensor(w.copy(), requires_grad=True)
    optimizer = Adam([p], lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    m = s = 0.0
    for t in range(1, 11):
        p.grad = Tensor(rng.standard_normal(8))
        g = p.grad + 0.1 * w
        m, s = 0.8 * m + 0.2 * g, 0.95 * s + 0.05 * g**2
        w = w - 0.1 * m / (1 - 0.8**t) / (np.sqrt(s / (1 - 0.95**t)) + 1e-3)
        optimizer.step()
        np.testing.assert_allclose(p.data, w, rtol=0, atol=1e-13)  # 10 steps of some 15 roundings of numbers below 4


def test_the_gradient_is_not_changed():
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = Tensor(np.array([3.0, 4.0], np.float32))
    Adam([p], weight_decay=0.1).step()
    assert p.grad.tolist() == [3.0, 4.0]


def test_without_decay_an_infinite_parameter_stays_infinite():
    p = Tensor([np.inf], requires_grad=True)
    p.grad = Tensor(np.ones(1, np.float32))
    Adam([p]).step()
    assert p.item() == np.inf


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -0.5}, "Adam: Invalid learning rate: lr must be at least 0, got -0.5"),
        ({"eps": -1e-8}, "Adam: Invalid epsilon value: eps must be at least 0, got -1e-08"),
        ({"betas": (1.0, 0.9)}, r"Adam: Invalid beta parameter at index 0: it must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, -0.1)}, r"Adam: Invalid beta parameter at index 1: it must be in \[0, 1\), got -0.1"),
        ({"weight_decay": -2}, "Adam: Invalid weight_decay value: weight_decay must be at least 0, got -2"),
    ],
)
def test_errors_of_options(options, text):
    with pytest.raises(ValueError, match=text):
        Adam([Tensor([1.0], requires_grad=True)], **options)
