"""cross_entropy and nll_loss: losses and gradients equal PyTorch's, for every combination of options."""

import itertools

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor

from .compare import LAYOUTS, arrange, assert_same, compare

torch = pytest.importorskip("torch")
T = torch.nn.functional

C = 5
# input (C,), (N, C), (N, C, d), (N, C, d, e)
SHAPES = [(C,), (4, C), (1, C), (3, C, 2), (2, C, 3, 2)]
REDUCTIONS = ["mean", "sum", "none"]


def ids_shape(shape):
    return (shape[0], *shape[2:]) if len(shape) > 1 else ()


def check(name, x, target, weight, **settings):
    """The gradient of x; the target and the weights are constants, as in training."""
    compare(
        lambda t: getattr(F, name)(t, target, weight, **settings),
        lambda t: getattr(T, name)(t, torch.tensor(target), None if weight is None else torch.tensor(weight), **settings),
        x,
    )


def options(name):
    smoothing = [0.0, 0.1, 1.0] if name == "cross_entropy" else [None]
    for reduction, weighted, smooth in itertools.product(REDUCTIONS, [False, True], smoothing):
        yield weighted, {"reduction": reduction} | ({} if smooth is None else {"label_smoothing": smooth})


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("shape", SHAPES)
def test_class_ids(name, shape, rng):
    for weighted, settings in options(name):
        x, ids = rng.standard_normal(shape) * 2, rng.integers(0, C, ids_shape(shape))
        check(name, x, ids, rng.random(C) + 0.5 if weighted else None, **settings)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, 77])
@pytest.mark.parametrize("shape", [(6, C), (3, C, 4)])
def test_ignored_class(name, shape, ignore_index, rng):
    for weighted, settings in options(name):
        ids = rng.integers(0, C, ids_shape(shape))
        ids.flat[::3] = ignore_index
        weight = rng.random(C) + 0.5 if weighted else None
        check(name, rng.standard_normal(shape), ids, weight, ignore_index=ignore_index, **settings)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("shape", [(3, C), (0, C), (C,)], ids=["all ignored", "no row", "one row, ignored"])
def test_nothing_counts(name, shape, rng):
    """The mean is NaN in both (and its gradient NaN here, 0 in PyTorch); the sum and its gradient are 0."""
    for weighted, settings in options(name):
        x, ids, weight = rng.standard_normal(shape), np.full(ids_shape(shape), -100), np.ones(C) if weighted else None
        if settings["reduction"] != "mean":
            check(name, x, ids, weight, **settings)
            continue
        mine = getattr(F, name)(Tensor(x), ids, weight, **settings)
        their_weight = None if weight is None else torch.tensor(weight)
        assert np.isnan(mine.item())
        assert_same(name, mine, getattr(T, name)(torch.tensor(x), torch.tensor(ids), their_weight, **settings), 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities(shape, rng):
    for weighted, settings in options("cross_entropy"):
        x, q = rng.standard_normal(shape), rng.random(shape)
        q /= q.sum(axis=0 if len(shape) == 1 else 1, keepdims=True)
        check("cross_entropy", x, q, rng.random(C) + 0.5 if weighted else None, **settings)


def test_probabilities_that_do_not_sum_to_one(rng):
    """Taken as they are: the gradient carries their sum."""
    for weighted, settings in options("cross_entropy"):
        check(
            "cross_entropy",
            rng.standard_normal((4, C)),
            rng.random((4, C)) * 3,
            rng.random(C) if weighted else None,
            **settings,
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_get_their_gradient(shape, rng):
    for weighted, settings in options("cross_entropy"):
        weight = rng.random(C) + 0.5 if weighted else None
        compare(
            lambda x, q: F.cross_entropy(x, q, weight, **settings),  # noqa: B023
            lambda x, q: T.cross_entropy(x, q, None if weight is None else torch.tensor(weight), **settings),  # noqa: B023
            rng.standard_normal(shape),
            rng.random(shape),
        )


def test_onehot_probabilities_and_minus_infinity():
    x = np.array([[0.0, -np.inf, 1.0], [3.0, 1.0, 2.0]])
    check("cross_entropy", x, np.array([2, 0]), None)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e300])
def test_confident_scores(scale):
    x = np.array([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0]]) * scale
    check("cross_entropy", x, np.array([0, 2]), None)
    check("cross_entropy", x, np.array([0, 2]), None, reduction="none")


@pytest.mark.parametrize("classes", [1, 2, 1000])
def test_number_of_classes(classes, rng):
    check("cross_entropy", rng.standard_normal((8, classes)), rng.integers(0, classes, 8), None)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_any_memory(name, layout, rng):
    x, ids = arrange(rng.standard_normal((2, C, 3, 4)), layout), rng.integers(0, C, (2, 3, 4))
    check(name, x, ids, rng.random(C))


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_dtypes_of_class_ids(dtype, rng):
    check("nll_loss", rng.standard_normal((4, C)), rng.integers(0, C, 4).astype(dtype), None)


def test_zero_weights(rng):
    weight = np.array([0.0, 1.0, 0.0, 2.0, 1.0])
    for reduction in REDUCTIONS:
        check("cross_entropy", rng.standard_normal((6, C)), np.array([0, 1, 2, 3, 4, 0]), weight, reduction=reduction)
        check("cross_entropy", rng.standard_normal((2, C)), np.array([0, 2]), weight, reduction=reduction)
        check("cross_entropy", rng.standard_normal((2, C)), np.array([-100, -100]), weight, reduction=reduction)
