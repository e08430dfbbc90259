"""Clipping of gradients against PyTorch's."""

import math

import numpy as np
import pytest

from minidl.nn import utils
from minidl.tensor import Tensor

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (5,), (), (2, 3, 4, 4)]


def gradients(dtypes, special=None):
    """The same gradients for both libraries; one without."""
    rng = np.random.default_rng(0)
    mine, their = [Tensor([1.0], requires_grad=True)], [torch.nn.Parameter(torch.ones(1))]
    for i, shape in enumerate(SHAPES):
        g = np.asarray(rng.standard_normal(shape).astype(dtypes[i % len(dtypes)]))
        if special is not None and i == 1:
            g[2] = special
        mine.append(Tensor(np.zeros_like(g), requires_grad=True))
        their.append(torch.nn.Parameter(torch.zeros(shape, dtype=torch.tensor(g).dtype)))
        mine[-1].grad, their[-1].grad = Tensor(g.copy()), torch.tensor(g)
    return mine, their


def same(mine, their, rtol):
    for p, q in zip(mine[1:], their[1:], strict=True):
        assert p.grad.dtype == q.grad.numpy().dtype
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=rtol)


@pytest.mark.parametrize("dtypes", [(np.float32,), (np.float64,), (np.float32, np.float64)])
@pytest.mark.parametrize("order", [2.0, 1, 3, math.inf, -math.inf, 0.5, 0])
@pytest.mark.parametrize("max_norm", [0.5, 1e4, 0])
def test_norm(dtypes, order, max_norm):
    """Sums of some hundred terms in float32, in any order: at most about 100 * 6e-8."""
    mine, their = gradients(dtypes)
    rtol = 1e-12 if dtypes == (np.float64,) else 1e-5
    a, b = utils.clip_grad_norm_(mine, max_norm, order), torch.nn.utils.clip_grad_norm_(their, max_norm, order)
    assert a.shape == tuple(b.shape) and a.dtype == b.numpy().dtype
    np.testing.assert_allclose(a.item(), b.item(), rtol=rtol)
    same(mine, their, rtol)


@pytest.mark.parametrize("special", [math.nan, math.inf, 1e30])
def test_norm_of_special_values(special):
    mine, their = gradients([np.float32], special)
    a, b = utils.clip_grad_norm_(mine, 1.0), torch.nn.utils.clip_grad_norm_(their, 1.0)
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-5)
    same(mine, their, 1e-5)


@pytest.mark.parametrize("special", [None, math.nan, math.inf])
@pytest.mark.parametrize("limit", [0.5, 0, 10.0])
def test_values(special, limit):
    mine, their = gradients([np.float32, np.float64], special)
    utils.clip_grad_value_(mine, limit)
    torch.nn.utils.clip_grad_value_(their, limit)
    same(mine, their, 0)
