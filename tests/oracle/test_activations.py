"""softmax, log_softmax, dropout (given its mask) and linear: outputs and gradients equal PyTorch's."""

import warnings

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl.random import default_generator

from .compare import LAYOUTS, arrange, compare

torch = pytest.importorskip("torch")
T = torch.nn.functional

SHAPES = [(), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3)]


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax(name, shape, rng):
    x = rng.standard_normal(shape) * 3
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        compare(lambda t, d=dim: getattr(F, name)(t, d), lambda t, d=dim: getattr(T, name)(t, d), x)
        compare(lambda t, d=dim: getattr(t, name)(dim=d), lambda t, d=dim: getattr(t, name)(dim=d), x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_softmax_guesses_the_same_dim(name, shape, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        compare(getattr(F, name), getattr(T, name), rng.standard_normal(shape))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "x",
    [
        [[1000.0, 999.0, -1000.0]],
        [[-1e4, -1e4 - 1, -1e4 + 1]],
        [[0.0, -np.inf, 1.0]],
        [[2.0, 2.0, 2.0]],
        [[1e300, 0.0, 0.0]],
    ],
)
def test_softmax_at_the_edges(name, x):
    compare(lambda t: getattr(F, name)(t, 1), lambda t: getattr(T, name)(t, 1), np.array(x))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_in_another_dtype(name, rng):
    # The output is float64 from equal float32 inputs; the gradient is rounded to float32 in both, to 6e-8 of each element.
    x = rng.standard_normal((3, 4)).astype(np.float32)
    compare(
        lambda t: getattr(F, name)(t, 1, dtype=np.float64),
        lambda t: getattr(T, name)(t, 1, dtype=torch.float64),
        x,
        gradient=1e-7,
    )


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_softmax_in_any_memory(name, layout, rng):
    x = arrange(rng.standard_normal((2, 3, 4, 5)), layout)
    compare(lambda t: getattr(F, name)(t, 1), lambda t: getattr(T, name)(t, 1), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_dropout_given_its_mask(shape, p, scale_at, rng):
    minidl.manual_seed(7)
    mask = torch.tensor(default_generator.bernoulli(1 - p, shape))
    scale = 1 / (1 - p) if scale_at == "train" and p < 1 else 1.0
    minidl.manual_seed(7)
    compare(lambda t: F.dropout(t, p, scale_at=scale_at), lambda t: t * mask * scale, rng.standard_normal(shape) + 3)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_in_evaluation(p, rng):
    x = rng.standard_normal((3, 4))
    compare(lambda t: F.dropout(t, p, training=False) * 2, lambda t: T.dropout(t, p, training=False) * 2, x)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("leading", [(), (1,), (4,), (0,), (2, 3), (2, 0, 3), (2, 3, 2)])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (1, 1), (3, 0), (0, 3)])
def test_linear(leading, inputs, outputs, bias, rng):
    arrays = [rng.standard_normal(shape) for shape in [(*leading, inputs), (outputs, inputs), (outputs,)][: 2 + bias]]
    compare(F.linear, T.linear, *arrays)


def test_linear_of_alexnet(rng):
    """fc6 of one tower at an eighth of its width: 9216 terms a sum."""
    compare(F.linear, T.linear, *(rng.standard_normal(shape) for shape in [(2, 9216), (256, 9216), (256,)]))


@pytest.mark.parametrize("layout", ["fortran", "sliced", "reversed"])
def test_linear_in_any_memory(layout, rng):
    def arranged(array):
        if layout == "fortran":
            return np.asfortranarray(array)
        return arrange(array, layout) if layout == "sliced" else array[::-1, ::-1]

    compare(
        F.linear, T.linear, arranged(rng.standard_normal((4, 5))), arranged(rng.standard_normal((3, 5))), rng.standard_normal(3)
    )
