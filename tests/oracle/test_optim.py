"""Optimizers against PyTorch's, for every combination of options."""

import inspect
import itertools

import numpy as np
import pytest

from minidl import optim
from minidl.optim import SGD
from minidl.tensor import Tensor

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (5,), ()]

# float64 and some ten roundings a step for 20 steps: 20 * 10 * 1.1e-16 = 2e-14, with room for sums that nearly cancel.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-13}


# float32: 20 steps of some ten roundings of 6e-8, of which a quotient of nearly equal numbers makes more.
ROUGH = {"rtol": 1e-4, "atol": 2e-5}


def compare(ours, theirs, options, steps=20, dtype=np.float64):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    tolerance = TOLERANCE if dtype == np.float64 else ROUGH
    mine = [Tensor(w.copy(), requires_grad=True) for w in start]
    their = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    a = ours([{"params": mine[:2]}, {"params": mine[2:], "lr": 0.02}], **options)
    b = theirs([{"params": their[:2]}, {"params": their[2:], "lr": 0.02}], **options)
    for step in range(steps):
        for i, (p, q) in enumerate(zip(mine, their, strict=True)):
            missing = i == 1 and step % 5 == 3  # a parameter that now and then has no gradient
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad = None if missing else Tensor(g)
            q.grad = None if missing else torch.tensor(g)
        if step in (7, 12):
            for group in a.param_groups + b.param_groups:
                group["lr"] *= 0.3
        a.step()
        b.step()
        for p, q in zip(mine, their, strict=True):
            assert p.dtype == dtype
            np.testing.assert_allclose(p.data, q.detach().numpy(), **tolerance)
    mine, their = a.state_dict()["state"], b.state_dict()["state"]
    for i, state in their.items():
        assert sorted(mine[i]) == sorted(state)
        for name, value in state.items():
            np.testing.assert_allclose(mine[i][name], value.numpy(), err_msg=name, **tolerance)
    return a, b


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("dampening", [0, 0.3])
@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize(("nesterov", "maximize"), list(itertools.product([False, True], repeat=2)))
def test_sgd(momentum, dampening, weight_decay, nesterov, maximize):
    options = {
        "lr": 0.1,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
    }
    if nesterov and (momentum == 0 or dampening != 0):
        for kind, p in ((SGD, Tensor([1.0])), (torch.optim.SGD, torch.ones(1))):
            with pytest.raises(ValueError, match="Nesterov momentum requires a momentum and zero dampening"):
                kind([p], **options)
        return
    compare(SGD, torch.optim.SGD, options)


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.3, 0.7), 1e-2), ((0.0, 0.0), 1e-3)])
def test_adam(name, weight_decay, amsgrad, maximize, betas, eps):
    options = {"lr": 0.1, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize}
    compare(getattr(optim, name), getattr(torch.optim, name), options)


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize(("centered", "maximize"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(("alpha", "eps"), [(0.99, 1e-8), (0.3, 1e-2)])
def test_rmsprop(weight_decay, momentum, centered, maximize, alpha, eps):
    options = {"lr": 0.1, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
    compare(optim.RMSprop, torch.optim.RMSprop, {**options, "centered": centered, "maximize": maximize})


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("lr_decay", [0, 0.2])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("initial", "eps"), [(0, 1e-10), (0.5, 1e-2)])
def test_adagrad(weight_decay, lr_decay, maximize, initial, eps):
    options = {"lr": 0.1, "lr_decay": lr_decay, "weight_decay": weight_decay, "maximize": maximize, "eps": eps}
    compare(optim.Adagrad, torch.optim.Adagrad, {**options, "initial_accumulator_value": initial})


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("rho", "eps"), [(0.9, 1e-6), (0.3, 1e-2), (1.0, 1e-3)])
def test_adadelta(weight_decay, maximize, rho, eps):
    compare(
        optim.Adadelta,
        torch.optim.Adadelta,
        {"lr": 0.7, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
    )


NAMES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"]
SOME = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {"lr_decay": 0.1},
}


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    compare(getattr(optim, name), getattr(torch.optim, name), {"weight_decay": 0.1, **SOME.get(name, {})}, dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_that_is_a_tensor(name):
    """PyTorch's Adam computes with it in float32, so a step may be off by some 6e-8 of itself."""
    rng, w = np.random.default_rng(0), np.array([1.0, -2.0, 3.0])
    p, q = Tensor(w.copy(), requires_grad=True), torch.nn.Parameter(torch.tensor(w))
    rate, their_rate = Tensor(0.5), torch.tensor(0.5)
    a, b = getattr(optim, name)([p], lr=rate), getattr(torch.optim, name)([q], lr=their_rate)
    for _ in range(10):
        g = rng.standard_normal(3)
        p.grad, q.grad = Tensor(g), torch.tensor(g)
        a.step()
        b.step()
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-6)
        rate.fill_(rate.item() * 0.75)
        their_rate.fill_(their_rate.item() * 0.75)


def defaults(signature):
    return [(p.name, p.default) for p in list(signature.parameters.values())[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name):
    """Every argument in its place, with its default; SGD's rule is one more."""
    ours, theirs = (inspect.signature(getattr(module, name)) for module in (optim, torch.optim))
    positional = [
        [p.name for p in signature.parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD] for signature in (ours, theirs)
    ]
    assert positional[0] == positional[1]
    assert [d for d in sorted(defaults(ours), key=str) if d[0] != "rule"] == sorted(defaults(theirs), key=str)


def pairs(name, dtype=np.float64):
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    mine, their = [Tensor(w.copy(), requires_grad=True) for w in start], [torch.nn.Parameter(torch.tensor(w)) for w in start]
    options = {"lr": 0.1, **SOME.get(name, {})}
    return mine, their, getattr(optim, name)(mine, **options), getattr(torch.optim, name)(their, **options)


def steps(mine, their, a, b, seed, count=5):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        for p, q in zip(mine, their, strict=True):
            g = rng.standard_normal(p.shape)
            p.grad, q.grad = Tensor(g), torch.tensor(g)
        a.step()
        b.step()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_pytorchs_is_taken(name):
    mine, their, a, b = pairs(name)
    steps(mine, their, a, b, seed=2)
    b.param_groups[0]["lr"] = 0.03
    resumed = getattr(optim, name)(mine)
    resumed.load_state_dict(b.state_dict())
    steps(mine, their, resumed, b, seed=3)
    for p, q in zip(mine, their, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_and_names(name):
    """The loss |w|^2, with the gradient 2 w."""
    mine, their, _, _ = pairs(name)
    options = SOME.get(name, {})
    a = getattr(optim, name)([(f"p{i}", p) for i, p in enumerate(mine)], **options)
    b = getattr(torch.optim, name)([(f"p{i}", p) for i, p in enumerate(their)], **options)
    assert a.state_dict()["param_groups"][0]["param_names"] == b.state_dict()["param_groups"][0]["param_names"]

    def closure(optimizer, params):
        optimizer.zero_grad()
        loss = sum((p * p).sum() for p in params)
        loss.backward()
        return loss

    for _ in range(5):
        ours, theirs = a.step(lambda: closure(a, mine)), b.step(lambda: closure(b, their))
        np.testing.assert_allclose(ours.item(), theirs.item(), **TOLERANCE)
