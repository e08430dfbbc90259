"""Operators and methods of Tensor: results and gradients equal PyTorch's. Most code here reads the same in both."""

import itertools

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor

from .compare import LAYOUTS, arrange, assert_same, compare, compare_method

torch = pytest.importorskip("torch")


def away_from_zero(shape, rng):
    return rng.choice([-1, 1], shape) * (rng.random(shape) + 0.5)


# ------------------------------------------------------------------------------------------------------------ arithmetic

BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
}
BROADCAST = [
    ((), ()),
    ((3,), ()),
    ((), (2, 3)),
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 3), (2, 1)),
    ((2, 1), (1, 3)),
    ((1,), (2, 3)),
    ((1, 1), (3,)),
    ((2, 1, 4), (3, 1)),
    ((4, 1, 2, 1), (3, 1, 5)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((0, 3), (3,)),
    ((0, 3), (1, 3)),
    ((1, 0), (3, 1)),
]


@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_arithmetic(name, shapes, rng):
    x, y = (away_from_zero(shape, rng) for shape in shapes)
    compare_method(BINARY[name], x, y)
    compare_method(BINARY[name], y, x)


@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_pow_of_two_tensors(shapes, rng):
    x, p = rng.random(shapes[0]) + 0.3, rng.standard_normal(shapes[1]) * 2
    compare_method(lambda x, p: x**p, x, p)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2, 0.3, -1.5, 0.1])
def test_arithmetic_with_a_number(name, number, rng):
    x = away_from_zero((2, 3), rng)
    compare_method(lambda t: BINARY[name](t, number), x)
    compare_method(lambda t: BINARY[name](number, t), x)


@pytest.mark.parametrize("number", [np.float64(0.3), np.float32(0.5), np.int64(3)], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_numpy_number_takes_the_tensors_dtype(dtype, number, rng):
    # float32 results: one rounding of 6e-8.
    for op in BINARY.values():
        compare_method(lambda t, op=op: op(t, number), away_from_zero((2, 3), rng).astype(dtype))
        compare(
            lambda t, op=op: op(number, t),
            lambda t, op=op: op(number.item(), t),
            away_from_zero((2, 3), rng).astype(dtype),
            value=1e-6,
            gradient=1e-6,
        )


@pytest.mark.parametrize("p", [0, 1, 2, 3, -1, -2, 0.5, 1.5, -0.75, 2.0, 0.0])
def test_pow_of_a_number(p, rng):
    x = rng.random((2, 3)) + 0.2
    compare_method(lambda t: t**p, x)
    if p == int(p):
        compare_method(lambda t: t**p, -x)
    compare_method(lambda t: 2.5**t, x)
    compare_method(lambda t: t**-t, x)


@pytest.mark.parametrize("p", [0, 1, 2, 3, 1.5, 0.0])
def test_pow_of_zero(p):
    compare_method(lambda t: t**p, np.array([0.0, -0.0, 2.0, 0.0]))


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("p", [0.5, -1, -0.5])
def test_pow_of_zero_with_an_infinite_slope(p):
    compare_method(lambda t: t**p, np.array([0.0, 2.0]))


def test_pow_of_zero_by_a_tensor():
    """x = 0 with p > 0 and p = 0; then every gradient is finite."""
    compare_method(lambda x, p: x**p, np.array([0.0, 0.0, 0.0, 2.0, 2.0]), np.array([2.0, 1.0, 0.0, 0.0, 3.0]))
    compare_method(lambda x, p: x**p, np.zeros((2, 1)), np.array([0.0, 1.0, 3.0]))
    compare_method(lambda p: 0.0**p, np.array([0.0, 1.0, 2.0]))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_pow_of_a_negative_base_by_a_tensor():
    """A whole power has a slope in x; there is none in p."""
    compare_method(lambda x, p: x**p, np.array([-2.0, -3.0]), np.array([2.0, -1.0]))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 2)])
@pytest.mark.parametrize("name", ["neg", "abs", "exp", "log", "sqrt"])
def test_functions(name, shape, rng):
    functions = {
        "neg": lambda t: -t,
        "abs": lambda t: abs(t) + t.abs(),
        "exp": lambda t: t.exp(),
        "log": lambda t: t.log(),
        "sqrt": lambda t: t.sqrt(),
    }
    x = rng.random(shape) + 0.1 if name in ("log", "sqrt") else rng.standard_normal(shape)
    compare_method(functions[name], x)


def test_abs_at_zero():
    compare_method(lambda t: t.abs(), np.array([0.0, -0.0, -1.0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arithmetic_in_any_memory(layout, rng):
    x, y = (arrange(away_from_zero((2, 3, 4, 5), rng), kind) for kind in (layout, "c_order"))
    for op in BINARY.values():
        compare_method(op, x, y)


# ----------------------------------------------------------------------------------------------------------- the product

MATMUL = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((6, 5, 2, 3), (3,)),
    ((3,), (6, 5, 3, 4)),
    ((6, 5, 2, 3), (3, 4)),
    ((2, 3), (6, 5, 3, 4)),
    ((6, 5, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (1, 5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((0,), (0,)),
    ((0, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 0)),
]


@pytest.mark.parametrize("shapes", MATMUL, ids=str)
def test_matmul(shapes, rng):
    x, y = (rng.standard_normal(shape) for shape in shapes)
    compare_method(lambda x, y: x @ y, x, y)
    compare_method(lambda x, y: x.matmul(y), x, y)


def test_matmul_of_transposed_memory(rng):
    compare_method(lambda x, y: x @ y, rng.standard_normal((3, 2)).T, rng.standard_normal((4, 6))[::-1, ::2].T[:, :3].T)
    compare_method(lambda x, y: x.T @ y.T, rng.standard_normal((3, 2)), rng.standard_normal((4, 3)))


# ------------------------------------------------------------------------------------------------------------ reductions

DIMS = [None, 0, 1, 2, -1, -3, (0,), (0, 2), (2, 0), (-1, 1), (0, 1, 2)]


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin"])
def test_reductions(name, dim, keepdim, rng):
    settings = {} if dim is None else {"dim": dim, "keepdim": keepdim}
    compare_method(lambda t: getattr(t, name)(**settings), rng.standard_normal((2, 3, 4)))


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "max", "min"])
def test_reductions_of_one_number(name, rng):
    compare_method(lambda t: getattr(t, name)(), rng.standard_normal(()))
    compare_method(lambda t: getattr(t, name)(dim=0), rng.standard_normal(()))
    compare_method(lambda t: getattr(t, name)(dim=-1, keepdim=True), rng.standard_normal((1,)))


@pytest.mark.parametrize(
    ("name", "dim"),
    [*itertools.product(["amax", "amin", "max", "min"], [None, 0, 1]), ("amax", (0, 2)), ("amin", (0, 2))],
    ids=str,
)
def test_extremes_with_ties(name, dim, rng):
    settings = {} if dim is None else {"dim": dim}
    compare_method(lambda t: getattr(t, name)(**settings), rng.integers(0, 3, (3, 4, 5)).astype(float))
    compare_method(lambda t: getattr(t, name)(**settings), np.zeros((3, 4, 5)))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_along_an_axis(name, dim, keepdim, rng):
    compare_method(lambda t: tuple(getattr(t, name)(dim, keepdim)), rng.standard_normal((2, 3, 4)))


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_extremes_of_nan(dim):
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 0.0, 5.0]])
    for name in ("max", "min"):
        mine, their = (getattr(t, name)() if dim is None else getattr(t, name)(dim) for t in (Tensor(x), torch.tensor(x)))
        for m, t in [(mine, their)] if dim is None else zip(mine, their, strict=True):
            assert_same(name, m, t, 0)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_argmax(dim, keepdim, rng):
    for x in (rng.standard_normal((3, 4)), rng.integers(0, 2, (3, 4)).astype(float), np.array([[1.0, np.nan], [np.nan, 5.0]])):
        mine, their = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        assert_same("argmax", mine.argmax(dim, keepdim), their.argmax(dim, keepdim), 0)
        assert not mine.argmax(dim, keepdim).requires_grad


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reductions_in_any_memory(layout, rng):
    x = arrange(rng.standard_normal((2, 3, 4, 5)), layout)
    for dim in [None, (2, 3), (0, 2, 3), 1]:
        compare_method(lambda t, dim=dim: t.sum(dim), x)
        compare_method(lambda t, dim=dim: t.mean(dim), x)
    compare_method(lambda t: t.amax((2, 3)), x)
    compare_method(lambda t: tuple(t.max(1)), x)


def test_sums_of_ints_and_bools(rng):
    for x in (rng.integers(0, 9, (3, 4)), rng.integers(0, 9, (3, 4)).astype("int32"), rng.random((3, 4)) < 0.5):
        compare_method(lambda t: t.sum(), x)
        compare_method(lambda t: t.sum(1, keepdim=True), x)


# -------------------------------------------------------------------------------------------------------------- moving

RESHAPES = {
    "reshape": lambda t: t.reshape(6, 4),
    "reshape tuple": lambda t: t.reshape((4, 3, 2)),
    "reshape -1": lambda t: t.reshape(3, -1),
    "reshape all": lambda t: t.reshape(-1),
    "view": lambda t: t.view(2, 12),
    "permute": lambda t: t.permute(2, 0, 1),
    "permute negative": lambda t: t.permute(-1, 0, -2),
    "permute tuple": lambda t: t.permute((1, 2, 0)),
    "transpose": lambda t: t.transpose(0, 2),
    "transpose negative": lambda t: t.transpose(-1, 0),
    "transpose itself": lambda t: t.transpose(1, 1),
    "flatten": lambda t: t.flatten(),
    "flatten from 1": lambda t: t.flatten(1),
    "flatten to -2": lambda t: t.flatten(0, -2),
    "flatten one": lambda t: t.flatten(1, 1),
    "permute then reshape": lambda t: t.permute(2, 1, 0).reshape(4, 6),
    "transpose then flatten": lambda t: t.transpose(0, 1).flatten(),
    "unsqueeze": lambda t: t.unsqueeze(0).unsqueeze(-1).unsqueeze(2),
    "squeeze": lambda t: t.unsqueeze(1).unsqueeze(-1).squeeze(),
    "squeeze one": lambda t: t.unsqueeze(1).unsqueeze(-1).squeeze(1),
    "squeeze one from the end": lambda t: t.unsqueeze(1).unsqueeze(-1).squeeze(-1),
    "squeeze a long axis": lambda t: t.squeeze(1),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_reshapes(name, rng):
    compare_method(RESHAPES[name], rng.standard_normal((2, 3, 4)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reshapes_in_any_memory(layout, rng):
    x = arrange(rng.standard_normal((2, 3, 4, 5)), layout)
    compare_method(lambda t: t.flatten(1), x)
    compare_method(lambda t: t.reshape(6, 20), x)
    compare_method(lambda t: t.permute(0, 2, 3, 1), x)
    compare_method(lambda t: t[:, 1:, ::2], x)


def test_reshapes_of_small_things(rng):
    for fn in (lambda t: t.reshape(1, 1), lambda t: t.reshape(-1), lambda t: t.flatten(), lambda t: t.unsqueeze(0)):
        compare_method(fn, rng.standard_normal(()))
    compare_method(lambda t: t.reshape(()), rng.standard_normal((1, 1)))
    compare_method(lambda t: t.squeeze(), rng.standard_normal((1, 1)))
    compare_method(lambda t: t.squeeze(0), rng.standard_normal(()))
    compare_method(lambda t: t.permute(()) * 1, rng.standard_normal(()))
    compare_method(lambda t: t.transpose(0, -1) * 1, rng.standard_normal(()))
    compare_method(lambda t: t.T, rng.standard_normal((2, 3)))
    compare_method(lambda t: t.reshape(3, 0, 5), np.zeros((0, 2)))
    compare_method(lambda t: t.flatten(1), np.zeros((0, 2, 3)))
    compare_method(lambda t: t.flatten(1), np.zeros((2, 0, 3)))


BASIC = {
    "int": lambda a: 1,
    "negative int": lambda a: -1,
    "ints": lambda a: (1, 2),
    "all ints": lambda a: (1, 2, 3, 0),
    "slice": lambda a: slice(1, 3),
    "slice of nothing": lambda a: slice(2, 2),
    "slice beyond the end": lambda a: slice(-2, 99),
    "steps": lambda a: (slice(None, None, 2), slice(1, None, 3)),
    "ellipsis": lambda a: (..., 1),
    "ellipsis between": lambda a: (0, ..., slice(1, 3)),
    "none": lambda a: None,
    "none between": lambda a: (slice(None), None, 1, None),
    "nothing": lambda a: (),
    "everything": lambda a: slice(None),
}
ARRAYS = {
    "indices": lambda a: a([2, 0]),
    "repeated": lambda a: a([0, 2, 0, 0]),
    "negative": lambda a: a([-1, 0, -1]),
    "two-dimensional": lambda a: a([[0, 1], [1, 1]]),
    "empty": lambda a: a(np.zeros(0, int)),
    "one number": lambda a: a(1),
    "on axis 1": lambda a: (slice(None), a([1, 1, 3])),
    "pairs": lambda a: (a([0, 2, 0]), a([1, 3, 1])),
    "broadcast": lambda a: (a([[0], [2]]), a([1, 1, 3])),
    "pairs, side by side": lambda a: (slice(None), a([0, 0]), a([1, 1])),
    "pairs, apart": lambda a: (a([0, 0]), slice(None), a([1, 1])),
    "with an int": lambda a: (a([0, 0, 1]), 2),
    "with a slice": lambda a: (slice(1, 3), a([0, 0, 1])),
    "with none": lambda a: (None, a([0, 0, 1])),
    "none between arrays": lambda a: (a([0, 0]), None, a([1, 1])),
    "with ellipsis": lambda a: (..., a([0, 0, 1])),
    "mask": lambda a: a(np.arange(3) != 1),
    "mask of nothing": lambda a: a(np.zeros(3, bool)),
    "mask of two axes": lambda a: a(np.arange(12).reshape(3, 4) % 3 == 1),
    "mask of every axis": lambda a: a(np.arange(120).reshape(3, 4, 5, 2) % 7 == 2),
    "mask on axis 1": lambda a: (slice(None), a(np.arange(4) > 1)),
    "mask and indices": lambda a: (a([True, False, True]), a([1, 1])),
    "mask and none": lambda a: (a([True, False, True]), None),
}


@pytest.mark.parametrize("name", BASIC)
def test_indexing(name, rng):
    compare_method(lambda t: t[BASIC[name](None)], rng.standard_normal((3, 4, 5, 2)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(ARRAYS, ["array", "tensor"]), *((n, "list") for n in ARRAYS if n not in ("one number", "empty"))],
)
def test_indexing_by_arrays(name, kind, rng):
    """An integer apart from an array (x[1, :, [0, 0]]) is not here: its axes come out in NumPy's order, not in PyTorch's."""
    ours = {"array": np.array, "tensor": lambda v: Tensor(np.array(v)), "list": lambda v: np.array(v).tolist()}[kind]
    compare(
        lambda t: t[ARRAYS[name](ours)],
        lambda t: t[ARRAYS[name](lambda v: torch.tensor(np.array(v)))],
        rng.standard_normal((3, 4, 5, 2)),
    )


def test_indexing_by_small_ints(rng):
    index = np.array([0, 2, 0], "int32")
    compare(lambda t: t[Tensor(index)], lambda t: t[torch.tensor(index)], rng.standard_normal((3, 4)))


def test_iteration(rng):
    compare_method(lambda t: sum(row * (i + 1) for i, row in enumerate(t)), rng.standard_normal((3, 4)))


CAT = [
    ([(2, 3)], 0),
    ([(2, 3), (4, 3)], 0),
    ([(2, 3), (2, 1), (2, 5)], 1),
    ([(2, 3), (2, 1)], -1),
    ([(3,), (2,)], 0),
    ([(0, 3), (2, 3)], 0),
    ([(2, 3, 4, 5), (2, 6, 4, 5)], 1),
    ([(2, 3, 4, 5), (2, 3, 1, 5)], 2),
    ([(2, 3, 4, 5), (2, 3, 4, 2)], 3),
    ([(1, 3, 4, 5), (2, 3, 4, 5)], 0),
]


@pytest.mark.parametrize(("shapes", "dim"), CAT, ids=str)
def test_cat(shapes, dim, rng):
    compare(lambda *t: F.cat(t, dim), lambda *t: torch.cat(t, dim), *(rng.standard_normal(shape) for shape in shapes))


@pytest.mark.parametrize(
    "layouts", [("channels_last", "c_order"), ("channels_last", "channels_last"), ("sliced", "channels_last")]
)
@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_cat_in_any_memory(layouts, dim, rng):
    arrays = [arrange(rng.standard_normal((2, 3, 4, 5)), layout) for layout in layouts]
    compare(lambda *t: F.cat(t, dim), lambda *t: torch.cat(t, dim), *arrays)


def test_cat_of_a_tensor_with_itself(rng):
    compare(lambda t: F.cat([t, t * 2, t], 1), lambda t: torch.cat([t, t * 2, t], 1), rng.standard_normal((2, 3)))


@pytest.mark.parametrize("value", [None, 0, 1.5, -np.inf])
@pytest.mark.parametrize(
    "widths",
    [(1, 2), (0, 0), (1, 0, 2, 3), (-1, 2), (1, -2), (-1, -1), (-2, 1, 0, -1), (1, 1, 2, 0, -1, 2), (0, 1, 0, 0, 0, 0, 1, 1)],
    ids=str,
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pad(layout, widths, value, rng):
    x = arrange(rng.standard_normal((2, 3, 4, 5)), layout)
    compare(lambda t: F.pad(t, widths, value=value), lambda t: torch.nn.functional.pad(t, widths, value=value), x)


def test_pad_down_to_nothing(rng):
    compare(lambda t: F.pad(t, (-2, -3)), lambda t: torch.nn.functional.pad(t, (-2, -3)), rng.standard_normal((2, 5)))


def test_pad_keeps_ints(rng):
    compare(
        lambda t: F.pad(t, (1, 2), value=7), lambda t: torch.nn.functional.pad(t, (1, 2), value=7), rng.integers(0, 9, (2, 5))
    )
