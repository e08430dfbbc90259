"""How sums round: at most four times PyTorch's error, along every axis, in every layout and length.

The exact sum of float32 is NumPy's in float64, that of float64 `math.fsum`'s. An error is the root of the mean square over all
outputs. PyTorch's may be zero by luck where there are few, so that an error counts as half a spacing of the outputs at least,
which is what writing them down may cost.
"""

import math
import operator

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor

from .compare import arrange, host

torch = pytest.importorskip("torch")

TIMES = 4  # PyTorch's error


def rms(a):
    return float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64)))))


def assert_rounds_like_pytorch(mine, their, exact):
    mine, their, exact = host(mine), host(their), np.asarray(exact)
    assert mine.shape == their.shape == exact.shape and mine.dtype == their.dtype
    least = np.finfo(mine.dtype).eps / 2 * rms(exact)
    error, allowed = rms(mine - exact), TIMES * max(rms(their - exact), least)
    assert error <= allowed, f"error {error:.1e}, PyTorch's {rms(their - exact):.1e}, half a spacing {least:.1e}"


def exact_sum(x, axes):
    if x.dtype == np.float32:
        return x.sum(axis=axes, dtype=np.float64)
    summed = np.moveaxis(x, axes, range(len(axes)))
    columns = summed.reshape(math.prod(summed.shape[: len(axes)]), -1).T
    return np.reshape([math.fsum(column.tolist()) for column in columns], summed.shape[len(axes) :])


def values(kind, shape, dtype):
    rng = np.random.default_rng(5)
    return (rng.random(shape) if kind == "positive" else rng.standard_normal(shape)).astype(dtype)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every second": lambda x: arrange(x, "sliced"),
    "reversed": lambda x: x[(slice(None, None, -1),) * x.ndim].copy()[(slice(None, None, -1),) * x.ndim],
    "rolled": lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),  # channels last, of one image
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["positive", "normal"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33, 255, 257, 1000, 4099, 50_000])
def test_one_axis(n, layout, kind, dtype):
    for shape, axis in (((n, 20), 0), ((20, n), 1), ((4, n, 5), 1)):
        x = LAYOUTS[layout](values(kind, shape, dtype))
        assert_rounds_like_pytorch(Tensor(x).sum(axis), torch.tensor(x.copy()).sum(axis), exact_sum(x, (axis,)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["c_order", "channels_last", "sliced"])
@pytest.mark.parametrize("axes", [(0, 2, 3), (0, 1), (0, 2), (1, 3), (2,), (1, 2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("shape", [(40, 6, 25, 20), (3, 70, 5, 90)])
def test_several_axes(shape, axes, layout, dtype):
    x = arrange(values("positive", shape, dtype), layout)
    theirs = torch.tensor(x.copy())
    assert_rounds_like_pytorch(Tensor(x).sum(axes), theirs.sum(axes), exact_sum(x, axes))
    count = math.prod(shape[a] for a in axes)
    assert_rounds_like_pytorch(Tensor(x).mean(axes), theirs.mean(axes), exact_sum(x, axes) / count)


def test_a_million_rows():
    x = values("positive", (1_000_000, 2), np.float32)
    assert_rounds_like_pytorch(Tensor(x).sum(0), torch.tensor(x).sum(0), exact_sum(x, (0,)))


def test_half_precision_is_summed_in_float32():
    """Added in float16, ones would stop at 2048, and 60,000 twice would be infinity before half of it is taken away."""
    ones = np.ones((3000, 20), np.float16)
    assert (Tensor(ones).sum(0).numpy() == 3000).all()
    large = np.repeat(np.array([6e4, 6e4, -6e4], np.float16)[:, None], 30, 0).reshape(30, 3)
    x = np.concatenate([large, -large, large[:1]])
    np.testing.assert_array_equal(Tensor(x).sum(0).numpy(), torch.tensor(x).sum(0).numpy())


# ---------------------------------------------------------------------------------------------- what else sums along axes


def compare(ours, theirs, *arrays):
    """Outputs and gradients of float32 arrays, against PyTorch's in float64; sums of an upstream gradient that is positive."""
    mine_in = [Tensor(a, requires_grad=True) for a in arrays]
    tensors = [torch.tensor(a.copy(order="C"), requires_grad=True) for a in arrays]
    doubles = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    mine, their, exact = ours(*mine_in), theirs(*tensors), theirs(*doubles)
    gy = values("positive", mine.shape, np.float32)
    mine.backward(gy)
    their.backward(torch.tensor(gy))
    exact.backward(torch.tensor(gy.astype(np.float64)))
    assert_rounds_like_pytorch(mine, their, host(exact))
    for m, t, d in zip(mine_in, tensors, doubles, strict=True):
        assert_rounds_like_pytorch(m.grad, t.grad, host(d.grad))


@pytest.mark.parametrize("layout", ["c_order", "channels_last"])
@pytest.mark.parametrize("shape", [(24,), (24, 1, 1), (100, 1, 1, 1), (1, 24, 1, 30)])
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_the_gradient_of_an_operand_that_was_broadcast(op, shape, layout):
    x = arrange(values("positive", (100, 24, 30, 24 if shape == (24,) else 30), np.float32) + 1, layout)
    compare(op, op, x, values("positive", shape, np.float32) + 1)


def test_the_gradient_of_a_matrix_that_was_broadcast():
    compare(
        operator.matmul, operator.matmul, values("positive", (2000, 6, 5), np.float32), values("positive", (5, 7), np.float32)
    )


@pytest.mark.parametrize("relu", [False, True])
def test_the_gradient_of_a_convolutions_bias(relu):
    x, w = values("positive", (64, 3, 40, 40), np.float32), values("positive", (20, 3, 3, 3), np.float32)
    ours = F.conv2d_relu if relu else F.conv2d
    compare(ours, torch.nn.functional.conv2d, x, w, values("positive", (20,), np.float32))


def test_the_gradient_of_a_linear_layers_bias():
    arrays = (values("positive", shape, np.float32) for shape in ((30_000, 7), (20, 7), (20,)))
    compare(F.linear, torch.nn.functional.linear, *arrays)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_along_an_outer_axis(name, dim):
    shape = (20_000, 10) if dim == 0 else (10, 20_000)
    function = getattr(torch.nn.functional, name)
    compare(lambda x: getattr(F, name)(x, dim), lambda x: function(x, dim), values("normal", shape, np.float32))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cross_entropy_with_probabilities(order, reduction):
    t = values("positive", (50, 20_000), np.float32)
    t = (t / t.sum(1, keepdims=True)).astype(np.float32, order=order)
    given = {name: torch.tensor(t.astype(name)) for name in ("float32", "float64")}
    compare(
        lambda x: F.cross_entropy(x, t, reduction=reduction),
        lambda x: torch.nn.functional.cross_entropy(x, given[str(x.dtype).removeprefix("torch.")], reduction=reduction),
        np.asarray(values("normal", t.shape, np.float32), order=order),
    )
