"""Optimizers against PyTorch's, for every combination of options."""

import itertools

import numpy as np
import pytest

from minidl.optim import SGD, Adam
from minidl.tensor import Tensor

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (5,), ()]

# float64 and some ten roundings a step for 20 steps: 20 * 10 * 1.1e-16 = 2e-14, with room for sums that nearly cancel.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-13}


def compare(ours, theirs, options, steps=20):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    mine = [Tensor(w.copy(), requires_grad=True) for w in start]
    their = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    a = ours([{"params": mine[:2]}, {"params": mine[2:], "lr": 0.02}], **options)
    b = theirs([{"params": their[:2]}, {"params": their[2:], "lr": 0.02}], **options)
    for step in range(steps):
        for i, (p, q) in enumerate(zip(mine, their, strict=True)):
            missing = i == 1 and step % 5 == 3  # a parameter that now and then has no gradient
            g = rng.standard_normal(p.shape)
            p.grad = None if missing else np.asarray(g)
            q.grad = None if missing else torch.tensor(g)
        if step in (7, 12):
            for group in a.param_groups + b.param_groups:
                group["lr"] *= 0.3
        a.step()
        b.step()
        for p, q in zip(mine, their, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), **TOLERANCE)
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
    ours, theirs = compare(SGD, torch.optim.SGD, options)
    mine, their = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert list(mine) == list(their)
    for i in mine:
        assert list(mine[i]) == list(their[i])
        np.testing.assert_allclose(mine[i]["momentum_buffer"], their[i]["momentum_buffer"].numpy(), **TOLERANCE)


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.3, 0.7), 1e-2), ((0.0, 0.0), 1e-3)])
def test_adam(weight_decay, amsgrad, betas, eps):
    options = {"lr": 0.1, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    ours, theirs = compare(Adam, torch.optim.Adam, options)
    mine, their = ours.state_dict()["state"], theirs.state_dict()["state"]
    for i in their:
        assert sorted(mine[i]) == sorted(their[i])
        for name in their[i]:
            np.testing.assert_allclose(mine[i][name], their[i][name].numpy(), **TOLERANCE)
