"""`.grad` is PyTorch's: the same lines read it, change it and assign it, raise errors of the same kinds, and count as changes
in place at the same times."""

from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import Tensor, optim

from .compare import host

torch = pytest.importorskip("torch")

OPTIMIZERS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"]
MINE = SimpleNamespace(
    t=lambda a, grad=False: Tensor(np.array(a), requires_grad=grad),
    no_grad=minidl.no_grad,
    utils=minidl.nn.utils,
    nn=minidl.nn,
    optim=optim,
)
THEIRS = SimpleNamespace(
    t=lambda a, grad=False: torch.tensor(np.array(a), requires_grad=grad),
    no_grad=torch.no_grad,
    utils=torch.nn.utils,
    nn=torch.nn,
    optim=torch.optim,
)

A = np.array([[[1.0, 2.0, -3.0], [0.5, -1.5, 4.0]], [[2.0, 0.25, 1.0], [-2.5, 3.0, 5.0]]])


def with_gradient(m):
    w = m.t(A, True)
    (w * w * w).sum().backward()
    return w


# ----------------------------------------------------------------------------------------------------------------- reading


USES = {
    "norm": lambda w: w.grad.norm(),
    "std": lambda w: w.grad.std(),  # of a sample; an array's is of the whole population
    "var": lambda w: w.grad.var(0),
    "max": lambda w: w.grad.max(0).values,
    "argmax": lambda w: w.grad.max(1).indices,
    "an index beside a list": lambda w: w.grad[0, :, [0, 1]],
    "sum": lambda w: w.grad.sum(dim=-1, keepdim=True),
    "zero_": lambda w: w.grad.zero_(),
    "mul_": lambda w: w.grad.mul_(2).add_(1),
    "clone": lambda w: w.grad.clone(),
    "an op with the leaf": lambda w: w.grad * w,
    "item": lambda w: w.grad[0, 0, 0].item(),
}


@pytest.mark.parametrize("use", USES)
def test_what_tensors_can_do(use):
    mine, theirs = with_gradient(MINE), with_gradient(THEIRS)
    got, expected = (host(x) for x in (USES[use](mine), USES[use](theirs)))
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    np.testing.assert_allclose(host(mine.grad), host(theirs.grad), rtol=1e-14)


def facts(m):
    w = with_gradient(m)
    first, copied = w.grad, host(w.grad).copy()
    yield w.grad is first
    yield (first.requires_grad, first.is_leaf, first.grad is None, type(first) is type(w.detach()))
    (w * 2).sum().backward()
    yield w.grad is first  # a second backward adds to it in place
    yield host(first) - copied
    w.grad *= 2
    w.grad += 1
    yield w.grad is first
    yield host(first)
    inner = w * 3
    inner.retain_grad()
    inner.sum().backward(retain_graph=True)
    retained = inner.grad
    inner.sum().backward()
    yield inner.grad is retained  # a tensor inside the graph gets a new one
    yield host(retained), host(inner.grad)
    del w.grad
    yield w.grad is None
    w.grad = given = m.t(A)
    yield w.grad is given
    w.sum().backward()
    yield w.grad is given
    yield host(given)
    layer = m.nn.Linear(2, 1)
    layer.weight.grad = m.t(np.ones((1, 2), np.float32))
    given = layer.weight.grad
    layer.double()
    yield layer.weight.grad is given
    layer.zero_grad(set_to_none=False)
    yield layer.weight.grad is given
    yield host(given)
    layer.zero_grad()
    yield layer.weight.grad is None


def test_which_tensor_it_is():
    for i, (got, expected) in enumerate(zip(facts(MINE), facts(THEIRS), strict=True)):
        np.testing.assert_allclose(got, expected, rtol=1e-14, err_msg=f"fact {i}")


# --------------------------------------------------------------------------------------------------------------- assigning


GIVEN = {
    "None": lambda m, w: None,
    "a Tensor": lambda m, w: m.t(A),
    "one that requires a gradient": lambda m, w: m.t(A, True),
    "an array": lambda m, w: A,
    "a list": lambda m, w: A.tolist(),
    "a number": lambda m, w: 1.0,
    "itself": lambda m, w: w,
    "another shape": lambda m, w: m.t(A[0]),
    "a shape that broadcasts": lambda m, w: m.t(A[:1, :1, :1]),
    "float32": lambda m, w: m.t(A.astype("float32")),
    "int64": lambda m, w: m.t(A.astype("int64")),
    "another device": lambda m, w: w.detach().to("cpu:1") if m is MINE else w.detach().to("meta"),
}


def outcome(m, given):
    w = m.t(A, True)
    try:
        w.grad = GIVEN[given](m, w)
    except (TypeError, RuntimeError) as error:
        assert w.grad is None
        return type(error)
    return None if w.grad is None else host(w.grad)


@pytest.mark.parametrize("given", GIVEN)
def test_what_may_be_assigned(given):
    mine, theirs = outcome(MINE, given), outcome(THEIRS, given)
    assert mine is theirs or np.array_equal(mine, theirs)


# ----------------------------------------------------------------------------------------------------- changes in place


def half(m, w):
    with m.no_grad():
        w.grad *= 0.5


CHANGES = {
    "nothing": lambda m, w: None,
    "a later backward": lambda m, w: w.sum().backward(),
    "a backward after zero_grad": lambda m, w: (m.optim.SGD([w], lr=0.1).zero_grad(), w.sum().backward()),
    "zero_grad to zeros": lambda m, w: m.optim.SGD([w], lr=0.1).zero_grad(set_to_none=False),
    "clip_grad_norm_": lambda m, w: m.utils.clip_grad_norm_([w], 0.1),
    "clip_grad_norm_ of a small one": lambda m, w: m.utils.clip_grad_norm_([w], 1e6),
    "clip_grad_value_": lambda m, w: m.utils.clip_grad_value_([w], 0.1),
    "by hand": half,
    "by a method": lambda m, w: w.grad.zero_(),
    "a new one": lambda m, w: setattr(w, "grad", m.t(A)),
    **{
        f"{name}.step": lambda m, w, name=name: getattr(m.optim, name)([w], lr=0.1, weight_decay=0.1, maximize=True).step()
        for name in OPTIMIZERS
    },
}


def raises(m, change):
    """Does backward refuse the gradient that it saved?"""
    w, v = with_gradient(m), m.t(A, True)
    y = (w.grad * v).sum()
    CHANGES[change](m, w)
    try:
        y.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return True
    return False


@pytest.mark.parametrize("change", CHANGES)
def test_it_counts_as_a_change_in_place_where_pytorchs_does(change):
    assert raises(MINE, change) == raises(THEIRS, change)


def saved_inside_the_graph(m):
    """The second backward makes a new `.grad` for a tensor inside the graph: what was saved of the first stays."""
    w, v = m.t(A, True), m.t(A, True)
    inner = w * 2
    inner.retain_grad()
    inner.sum().backward(retain_graph=True)
    y = (inner.grad * v).sum()
    inner.sum().backward()
    y.backward()
    return v.grad


def test_a_retained_gradient_is_not_changed():
    np.testing.assert_array_equal(host(saved_inside_the_graph(MINE)), host(saved_inside_the_graph(THEIRS)))
