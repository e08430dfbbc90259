"""mse_loss, l1_loss, smooth_l1_loss, binary_cross_entropy_with_logits: PyTorch at edges, of all sizes, dtypes and weights."""

import itertools

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor

from .compare import assert_same, compare

torch = pytest.importorskip("torch")
T = torch.nn.functional

BROADCASTING = {
    "mse_loss": [{}],
    "l1_loss": [{}],
    "smooth_l1_loss": [{}, {"beta": 0.3}, {"beta": 0.0}, {"beta": 50.0}],
}
BCE = "binary_cross_entropy_with_logits"
NAMES = [*BROADCASTING, BCE]
CALLS = [(name, settings) for name, all_settings in [*BROADCASTING.items(), (BCE, [{}])] for settings in all_settings]
REDUCTIONS = ["mean", "sum", "none"]
FLOAT32 = {"value": 1e-6, "gradient": 1e-6}  # a few roundings of 6e-8

calls = pytest.mark.parametrize(("name", "settings"), CALLS, ids=str)


def check(name, *arrays, close=None, **settings):
    def call(functional):
        return lambda *tensors: getattr(functional, name)(*tensors, **settings)

    with np.errstate(invalid="ignore", divide="ignore"):
        compare(call(F), call(T), *arrays, **(close or {}))


# --------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@calls
def test_numbers_at_the_edges(name, settings, dtype):
    """Each by each: equal numbers, a beta apart, tiny and huge, NaN and infinities, whose differences may be NaN."""
    numbers = np.array([0.0, -0.0, 0.3, -0.3, 1, -1, 40, -40, 800, -800, 1e-30, np.nan, np.inf, -np.inf], dtype)
    scores = numbers[:-1]  # minus infinity: see below
    inputs, targets = (scores, np.array([0, 1, 0.25, np.nan], dtype)) if name == BCE else (numbers, numbers)
    x, t = (a.reshape(-1) for a in np.meshgrid(inputs, targets))
    check(name, x, t, close=FLOAT32 if dtype == np.float32 else None, reduction="none", **settings)


def test_a_score_of_minus_infinity():
    """A certain no. To a yes it costs infinity; PyTorch's formula has infinity minus infinity there. The gradients agree."""
    x, t = np.full(2, -np.inf), np.array([1.0, 0.5])
    mine = [Tensor(a, requires_grad=True) for a in (x, t)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    loss, their_loss = (f(*pair, reduction="none") for f, pair in ((getattr(F, BCE), mine), (getattr(T, BCE), theirs)))
    assert np.isinf(loss.detach().numpy()).all() and their_loss.isnan().all()
    loss.backward(np.ones(2))
    their_loss.backward(torch.ones(2, dtype=torch.float64))
    for m, t in zip(mine, theirs, strict=True):
        assert_same("gradient", m.grad, t.grad, 0)


@calls
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_to_compare(name, settings, reduction):
    check(name, np.zeros((0, 3)), np.zeros((0, 3)), reduction=reduction, **settings)


# ---------------------------------------------------------------------------------------------------- sizes and dtypes

SIZES = [((2, 3), (3,)), ((3,), (2, 3)), ((4, 1), (1, 3)), ((), (2,)), ((2, 0), (1,)), ((5,), (5, 1))]


@pytest.mark.filterwarnings("ignore:.*(target size|seldom meant)")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", BROADCASTING)
def test_broadcasting(name, reduction, sizes, rng):
    check(name, *(rng.standard_normal(size) for size in sizes), reduction=reduction)


@pytest.mark.filterwarnings("ignore:.*(target size|seldom meant)")
@pytest.mark.parametrize("name", BROADCASTING)
def test_a_target_without_axes_widens_the_loss(name, rng):
    """Elsewhere float32 with axes beside float64 without stays float32. A loss broadcasts first."""
    check(name, rng.standard_normal(3).astype(np.float32), np.array(0.5), close=FLOAT32)


@pytest.mark.parametrize("dtypes", [*itertools.product(["float32", "float64", "int64", "uint8"], repeat=2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtypes, rng):
    """Where PyTorch refuses, so does minidl.

    In one pair they differ: PyTorch writes the binary cross-entropy into an array of the target's dtype, even a smaller one.
    """
    arrays = [(rng.standard_normal((2, 5)) * 3 + 4).astype(dtype) for dtype in dtypes]
    if not any(a.dtype.kind == "f" for a in arrays) or (name == BCE and not all(a.dtype.kind == "f" for a in arrays)):
        with pytest.raises((RuntimeError, NotImplementedError)):
            getattr(T, name)(*map(torch.tensor, arrays)).backward()
        with pytest.raises(RuntimeError, match=f"^{name}: x (and|or) target must be of floats"):
            getattr(F, name)(*map(Tensor, arrays))
        return
    if name == BCE:
        assert getattr(F, name)(*map(Tensor, arrays)).dtype == max(dtypes)
    if name != BCE or dtypes != ("float64", "float32"):
        check(name, *arrays, close=FLOAT32)


# ------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("sizes", [((4, 3), None), (None, (3,)), ((4, 1), (4, 3)), ((), (1, 3)), ((3,), ())], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_of_binary_cross_entropy(reduction, dtype, sizes, rng):
    """Whatever their dtype, the loss has that of input and target."""
    weights = [None if size is None else (rng.random(size) * 3).astype(dtype) for size in sizes]

    def call(make, f):
        weight, pos_weight = (None if w is None else make(w) for w in weights)
        return lambda x, t: f(x, t, weight, reduction=reduction, pos_weight=pos_weight)

    pair = rng.standard_normal((4, 3)).astype(np.float32), rng.random((4, 3)).astype(np.float32)
    compare(call(Tensor, getattr(F, BCE)), call(torch.tensor, getattr(T, BCE)), *pair, **FLOAT32)


@pytest.mark.parametrize("weight", [np.zeros((2, 3), np.float32), np.full((2, 3), 0.7)], ids=["zeros", "float64"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss"])
def test_weights_that_are_0_or_of_another_dtype(name, weight, rng):
    def call(functional):
        return lambda x, t, w: getattr(functional, name)(x, t, weight=w)

    arrays = [rng.standard_normal((2, 3)).astype(np.float32) for _ in range(2)]
    with np.errstate(invalid="ignore", divide="ignore"):
        compare(call(F), call(T), *arrays, weight, **FLOAT32)
