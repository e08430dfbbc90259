"""SGD against its formulas, and the two rules against each other."""

import numpy as np
import pytest

from minidl.device import Device
from minidl.optim import SGD
from minidl.tensor import Tensor

MOMENTUM, DECAY = 0.9, 5e-4


def gradients(steps, n=50):
    return np.random.default_rng(3).standard_normal((steps, n))


def run(rates, rule, at_drop=lambda optimizer, ratio: None):
    """The parameter after each step, with the learning rate of each step given."""
    p = Tensor(np.random.default_rng(2).standard_normal(50), requires_grad=True)
    optimizer = SGD([p], lr=rates[0], momentum=MOMENTUM, weight_decay=DECAY, rule=rule)
    path = []
    for i, (lr, g) in enumerate(zip(rates, gradients(len(rates)), strict=True)):
        if i and lr != rates[i - 1]:
            at_drop(optimizer, rates[i - 1] / lr)
        optimizer.param_groups[0]["lr"] = lr
        p.grad = Tensor(g)
        optimizer.step()
        path.append(p.data.copy())
    return np.array(path)


def rescale_velocity(optimizer, ratio):
    for state in optimizer.state.values():
        state["momentum_buffer"] *= ratio


# Both rules do about 6 roundings a step, each relative to numbers below 4; 30 steps: 6 * 30 * 4 * 1.1e-16 = 8e-14.
ROUNDING = 8e-14


def test_the_2012_rule_is_the_papers_formula():
    rates = [0.1] * 5 + [0.01] * 5
    w, v = np.random.default_rng(2).standard_normal(50), 0.0
    for lr, g, got in zip(rates, gradients(10), run(rates, "2012"), strict=True):
        v = MOMENTUM * v - DECAY * lr * w - lr * g
        w = w + v
        np.testing.assert_allclose(got, w, rtol=0, atol=ROUNDING)


def test_the_pytorch_rule_is_its_formula():
    rates = [0.1] * 5 + [0.01] * 5
    w, v = np.random.default_rng(2).standard_normal(50), 0.0
    for lr, g, got in zip(rates, gradients(10), run(rates, "pytorch"), strict=True):
        v = MOMENTUM * v + g + DECAY * w
        w = w - lr * v
        np.testing.assert_allclose(got, w, rtol=0, atol=ROUNDING)


def test_the_rules_agree_while_the_rate_is_constant():
    rates = [0.01] * 30
    np.testing.assert_allclose(run(rates, "2012"), run(rates, "pytorch"), rtol=0, atol=ROUNDING)


def test_the_rules_differ_at_a_rate_drop():
    rates = [0.01] * 15 + [0.001] * 15
    difference = np.abs(run(rates, "2012") - run(rates, "pytorch")).max(axis=1)
    assert (difference[:15] < ROUNDING).all()
    assert (difference[15:] > 1e-3).all()


def test_rescaling_pytorchs_velocity_at_the_drop_gives_the_2012_rule():
    rates = [0.01] * 15 + [0.001] * 15
    np.testing.assert_allclose(run(rates, "2012"), run(rates, "pytorch", rescale_velocity), rtol=0, atol=ROUNDING)


def test_the_2012_rule_leaves_everything_at_rate_0():
    p = Tensor([1.0, 2.0], requires_grad=True)
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1, rule="2012")
    p.grad = Tensor(np.ones(2, np.float32))
    optimizer.step()
    w, v = p.data.copy(), optimizer.state[p]["momentum_buffer"].copy()
    optimizer.param_groups[0]["lr"] = 0
    optimizer.step()
    assert (p.data == w).all() and (optimizer.state[p]["momentum_buffer"] == v).all()


def test_without_momentum_there_is_no_state():
    for rule in ("pytorch", "2012"):
        p = Tensor([1.0], requires_grad=True)
        p.grad = Tensor(np.full(1, 2.0, np.float32))
        optimizer = SGD([p], lr=0.25, weight_decay=1.0, rule=rule)
        optimizer.step()
        assert p.item() == 1 - 0.25 * (2 + 1)
        assert optimizer.state_dict()["state"] == {}


def test_without_decay_an_infinite_parameter_stays_infinite():
    p = Tensor([np.inf], requires_grad=True)
    p.grad = Tensor(np.ones(1, np.float32))
    SGD([p], lr=0.1).step()
    assert p.item() == np.inf


@pytest.mark.parametrize("options", [{}, {"rule": "2012"}, {"nesterov": True}, {"maximize": True}])
def test_the_gradient_is_not_changed(options):
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = Tensor(np.array([3.0, 4.0], np.float32))
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1, **options)
    for _ in range(3):
        optimizer.step()
    assert p.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -0.5}, "SGD: Invalid learning rate: lr must be at least 0, got -0.5"),
        ({"lr": float("nan")}, "SGD: Invalid learning rate: lr must be at least 0, got nan"),
        ({"momentum": -1}, "SGD: Invalid momentum value: momentum must be at least 0, got -1"),
        ({"weight_decay": -2}, "SGD: Invalid weight_decay value: weight_decay must be at least 0, got -2"),
        ({"nesterov": True}, "SGD: Nesterov momentum requires a momentum and zero dampening, got momentum 0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.5}, "got momentum 0.9, dampening 0.5"),
        ({"rule": "1986"}, "SGD: rule must be 'pytorch' or '2012', got '1986'"),
        ({"rule": "2012", "momentum": 0.9, "nesterov": True}, "SGD: the 2012 rule has no .*got nesterov True"),
        ({"rule": "2012", "dampening": 0.5}, "SGD: the 2012 rule has no .*dampening 0.5"),
        ({"rule": "2012", "maximize": True}, "SGD: the 2012 rule has no .*maximize True"),
    ],
)
def test_errors_of_options(options, text):
    with pytest.raises(ValueError, match=text):
        SGD([Tensor([1.0], requires_grad=True)], **options)


@pytest.mark.parametrize("rule", ["pytorch", "2012"])
def test_a_device_s_parameters_stay_where_found_inf_says_so(rule):
    """Those of another device go on; and all of them when the note is gone."""
    here, there = (Tensor(np.ones(3), True, device) for device in ("cpu:0", "cpu:1"))
    optimizer = SGD([here, there], lr=0.1, momentum=0.9, rule=rule)
    optimizer.found_inf = {Device("cpu:0"): Tensor(np.ones(1, np.int32))}
    for p in (here, there):
        p.grad = Tensor(np.ones(3), device=p.device)
    optimizer.step()
    assert here.tolist() == [1, 1, 1] and there.tolist() == [0.9, 0.9, 0.9]
    optimizer.found_inf[Device("cpu:0")].data[0] = 0
    optimizer.step()
    assert here.tolist() == [0.9, 0.9, 0.9]
