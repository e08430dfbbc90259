"""RMSprop, Adagrad, Adadelta and AdamW against their formulas. PyTorch's numbers are in tests/oracle/test_optim.py."""

import numpy as np
import pytest

from minidl.optim import Adadelta, Adagrad, Adam, AdamW, RMSprop
from minidl.tensor import Tensor


def run(optimizer_of, step, count=10):
    """w after each step of an optimizer, beside that of `step(t, w, g) -> w`."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(8)
    p = Tensor(w.copy(), requires_grad=True)
    optimizer = optimizer_of([p])
    for t in range(1, count + 1):
        p.grad = Tensor(rng.standard_normal(8))
        w = step(t, w, p.grad)
        optimizer.step()
        np.testing.assert_allclose(p.data, w, rtol=0, atol=1e-12)  # 10 steps of some 15 roundings of numbers below 10


def test_rmsprop():
    s = 0.0

    def step(t, w, g):
        nonlocal s
        g = g + 0.1 * w
        s = 0.8 * s + 0.2 * g**2
        return w - 0.1 * g / (np.sqrt(s) + 1e-3)

    run(lambda p: RMSprop(p, lr=0.1, alpha=0.8, eps=1e-3, weight_decay=0.1), step)


def test_rmsprop_centered_with_momentum():
    s = m = v = 0.0

    def step(t, w, g):
        nonlocal s, m, v
        s, m = 0.8 * s + 0.2 * g**2, 0.8 * m + 0.2 * g
        v = 0.5 * v + g / (np.sqrt(s - m**2) + 1e-3)
        return w - 0.1 * v

    run(lambda p: RMSprop(p, lr=0.1, alpha=0.8, eps=1e-3, momentum=0.5, centered=True), step)


def test_adagrad():
    s = 0.25

    def step(t, w, g):
        nonlocal s
        g = g + 0.1 * w
        s = s + g**2
        return w - 0.1 / (1 + (t - 1) * 0.5) * g / (np.sqrt(s) + 1e-3)

    run(lambda p: Adagrad(p, lr=0.1, lr_decay=0.5, weight_decay=0.1, initial_accumulator_value=0.25, eps=1e-3), step)


def test_adadelta():
    s = u = 0.0

    def step(t, w, g):
        nonlocal s, u
        g = g + 0.1 * w
        s = 0.8 * s + 0.2 * g**2
        d = g * np.sqrt(u + 1e-3) / np.sqrt(s + 1e-3)
        u = 0.8 * u + 0.2 * d**2
        return w - 0.5 * d

    run(lambda p: Adadelta(p, lr=0.5, rho=0.8, eps=1e-3, weight_decay=0.1), step)


def test_adamw():
    m = s = 0.0

    def step(t, w, g):
        nonlocal m, s
        w = w - 0.1 * 0.5 * w
        m, s = 0.8 * m + 0.2 * g, 0.95 * s + 0.05 * g**2
        return w - 0.1 * m / (1 - 0.8**t) / (np.sqrt(s / (1 - 0.95**t)) + 1e-3)

    run(lambda p: AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5), step)


KINDS = [RMSprop, Adagrad, Adadelta, Adam, AdamW]


@pytest.mark.parametrize("kind", KINDS)
def test_maximize_climbs_by_the_step_of_the_opposite_gradient(kind):
    up, down = (Tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    climb, descend = kind([up], maximize=True), kind([down])
    for seed in range(3):
        down.grad = Tensor(np.random.default_rng(seed).standard_normal(2).astype(np.float32))
        up.grad = -down.grad
        climb.step()
        descend.step()
    assert (up.data == down.data).all() and up.data[0] != 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_not_changed(kind):
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = Tensor(np.array([3.0, 4.0], np.float32))
    kind([p], weight_decay=0.1, maximize=True).step()
    assert p.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("kind", KINDS)
def test_without_decay_an_infinite_parameter_stays_infinite(kind):
    p = Tensor([np.inf], requires_grad=True)
    p.grad = Tensor(np.ones(1, np.float32))
    kind([p], weight_decay=0).step()
    assert p.item() == np.inf


def test_adamw_takes_a_state_of_adam():
    p = Tensor([1.0], requires_grad=True)
    p.grad = Tensor(np.ones(1, np.float32))
    adam = Adam([p])
    adam.step()
    resumed = AdamW([p])
    resumed.load_state_dict(adam.state_dict())
    assert resumed.param_groups[0]["decoupled_weight_decay"] is True
    assert resumed.state[p]["step"] == 1


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (RMSprop, {"lr": -1}, "RMSprop: Invalid learning rate: lr must be at least 0, got -1"),
        (RMSprop, {"alpha": -0.5}, "RMSprop: Invalid alpha value: alpha must be at least 0, got -0.5"),
        (RMSprop, {"momentum": -0.5}, "RMSprop: Invalid momentum value: momentum must be at least 0, got -0.5"),
        (Adagrad, {"lr_decay": -1}, "Adagrad: Invalid lr_decay value: lr_decay must be at least 0, got -1"),
        (Adagrad, {"initial_accumulator_value": -1}, "Adagrad: Invalid initial_accumulator_value value: .* got -1"),
        (Adadelta, {"rho": 1.1}, r"Adadelta: Invalid rho value: rho must be in \[0, 1\], got 1.1"),
        (Adadelta, {"eps": -1}, "Adadelta: Invalid epsilon value: eps must be at least 0, got -1"),
        (AdamW, {"weight_decay": -1}, "AdamW: Invalid weight_decay value: weight_decay must be at least 0, got -1"),
        (AdamW, {"betas": (Tensor([0.9, 0.8]), 0.5)}, r"AdamW: Tensor betas\[0\] must be 1-element, got the shape \(2,\)"),
    ],
)
def test_errors_of_options(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind([Tensor([1.0], requires_grad=True)], **options)
