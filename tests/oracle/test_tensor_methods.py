"""Methods of Tensor that are no layer: values, gradients, dtypes and refusals are PyTorch's. Each line runs in both."""

import itertools

import numpy as np
import pytest

from minidl import Tensor
from minidl.ops.operators import METHODS

from .compare import LAYOUTS, arrange, assert_same, compare_method, host

torch = pytest.importorskip("torch")

SHAPE = (2, 3, 4)

ELEMENTWISE = {
    "sin": lambda t: t.sin(),
    "cos": lambda t: t.cos(),
    "clamp": lambda t: t.clamp(-0.5, 0.7),
    "clamp below": lambda t: t.clamp(min=0.2),
    "clamp above": lambda t: t.clamp(max=0.2),
    "clamp by tensors": lambda t: t.clamp(t.flip(0) - 1, t.flip(1)),
    "clamp below by a row": lambda t: t.clamp(min=t[0, 0]),
    "clamp above by a tensor": lambda t: t.clamp(max=t[:, :1].flip(0)),
    "div rounded down": lambda t: t.div(t.flip(0) * 0.3, rounding_mode="floor"),
    "div rounded towards 0": lambda t: t.div(0.3, rounding_mode="trunc"),
    "where": lambda t: t.where(t > 0.3, t.flip(0)),
    "norm": lambda t: t.norm(),
    "norm of rows": lambda t: t.norm(dim=1, keepdim=True),
    "norm of two axes": lambda t: t.norm(p=2, dim=(0, 2)),
    "norm 1": lambda t: t.norm(1, dim=2),
    "norm 3": lambda t: t.norm(3, 0),
    "norm inf": lambda t: t.norm(float("inf"), dim=(1, 2)),
    "var": lambda t: t.var(),
    "var of rows": lambda t: t.var(1, keepdim=True),
    "var biased": lambda t: t.var(dim=(0, 2), unbiased=False),
    "var false": lambda t: t.var(False),
    "var correction": lambda t: t.var(dim=0, correction=0),
    "std": lambda t: t.std(),
    "std of rows": lambda t: t.std(2, keepdim=True),
    "std biased": lambda t: t.std(dim=1, unbiased=False),
    "std correction": lambda t: t.std(dim=2, correction=2),
    "cumsum": lambda t: t.cumsum(1),
    "cumsum last": lambda t: t.cumsum(dim=-1),
    "sizes named": lambda t: t.reshape(shape=(6, 4))[:, :1].expand(size=(6, 3)).repeat(repeats=(1, 2)),
    "dims named": lambda t: t.permute(dims=(2, 0, 1)).flip(dims=(0,)),
    "expand": lambda t: t[:, :1].expand(2, 5, 4),
    "expand in front": lambda t: t.expand(3, -1, 3, -1),
    "expand as": lambda t: t[:1].expand_as(t),
    "repeat": lambda t: t.repeat(2, 1, 3),
    "repeat in front": lambda t: t.repeat((2, 1, 2, 1)),
    "flip": lambda t: t.flip(0, 2),
    "flip list": lambda t: t.flip([1]),
    "roll": lambda t: t.roll(1),
    "roll an axis": lambda t: t.roll(-2, 2),
    "roll two": lambda t: t.roll((1, 2), (0, 2)),
    "split": lambda t: t.split(2, 2)[1],
    "split with a rest": lambda t: t.split(2, dim=1)[-1],
    "split sizes": lambda t: t.split([1, 3], -1)[1],
    "chunk": lambda t: t.chunk(3, 2)[1],
    "clone": lambda t: t.clone() * 2,
    "contiguous": lambda t: t.permute(2, 0, 1).contiguous() * 2,
    "t": lambda t: t[0].t(),
    "mT": lambda t: t.mT,
    "view as": lambda t: t.view_as(t.reshape(6, 4)),
    "squeeze dims": lambda t: t[:, :1, :1].squeeze((1, 2)),
    "squeeze some": lambda t: t[:, :1].squeeze((0, 1)),
    "masked fill": lambda t: t.masked_fill(t > 0.3, 7.0),
    "masked fill of rows": lambda t: t.masked_fill(t[:, :, :1] > 0, float("-inf")).exp(),
    "sort": lambda t: tuple(t.sort()),
    "sort descending": lambda t: tuple(t.sort(1, descending=True)),
    "argsort": lambda t: (t * 1, t.argsort(0)),
    "topk": lambda t: tuple(t.topk(2)),
    "topk smallest": lambda t: tuple(t.topk(2, dim=1, largest=False)),
    "max named": lambda t: (t.max(1).values, t.max(1).indices),
    "min of two": lambda t: t.min(t.flip(0)),
    "max of two": lambda t: t.max(t.flip(0)),
    "axis": lambda t: t.sum(axis=1, keepdims=True) + t.mean(axis=(0, 2), keepdim=True),
    "index": lambda t: t[t.argmax(2)[0, 0] * 0],
    "remainder": lambda t: t.remainder(0.7) + t % -0.3,
    "float and back": lambda t: t.float().double() * t.type_as(t),
    "to": lambda t: t.to(t) + t.to(t.float(), non_blocking=True).double(),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_method(name, rng):
    compare_method(ELEMENTWISE[name], rng.permutation(np.linspace(-2, 2, 24)).reshape(SHAPE))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_methods_in_any_memory(layout, rng):
    x = arrange(rng.standard_normal((2, 3, 4, 5)), layout)
    for name in ("flip", "norm of rows", "std", "cumsum", "sort", "topk", "masked fill", "clone"):
        compare_method(ELEMENTWISE[name], x)
    compare_method(lambda t: t.repeat(1, 2, 1, 1).contiguous(), x)


WITHOUT_GRADIENT = {
    "any": lambda t: t.any(),
    "any of rows": lambda t: t.any(dim=1, keepdim=True),
    "all": lambda t: t.all(0),
    "all of two": lambda t: t.all(dim=(0, 1)),
    "argmin": lambda t: t.argmin(1),
    "argmin of all": lambda t: t.argmin(),
    "floor divide": lambda t: t // 2,
    "floor divide by": lambda t: 7 // (t + 3),
    "floor divide by 0": lambda t: t // (t * 0),
    "remainder by 0": lambda t: t % 0,
    "div rounded down": lambda t: t.div(t * 0 + 2, rounding_mode="floor"),
    "div rounded towards 0": lambda t: t.div(-2, rounding_mode="trunc"),
    "div rounded by 0": lambda t: t.div(t * 0, rounding_mode="trunc"),
    "argmax of a number": lambda t: t[0, 0].argmax(0),
    "argmin of a number": lambda t: t[0, 0].argmin(-1, keepdim=True),
    "nonzero": lambda t: t.nonzero(),
    "nonzero by axes": lambda t: t.nonzero(as_tuple=True)[1],
    "nonzero of a number": lambda t: t[0, 0].nonzero(as_tuple=True)[0],
    "long": lambda t: t.long(),
    "int": lambda t: t.int(),
    "bool": lambda t: t.bool(),
    "half": lambda t: t.half(),
    "clamp": lambda t: t.clamp(-1, 1),
    "clamp by a float": lambda t: t.clamp(min=0.5),
    "cumsum": lambda t: t.cumsum(0),
    "cumsum in another dtype": lambda t: t.cumsum(0, dtype=t.float().dtype),
    "masked fill": lambda t: t.masked_fill(t == 1, 9),
    "masked fill with a float": lambda t: t.masked_fill(t == 1, 0.5),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_a_method_without_a_gradient(name, dtype, rng):
    """But for a bound of -1 for uint8, which PyTorch takes for 255."""
    if (name, dtype) == ("clamp", "uint8"):
        assert Tensor(np.array([0, 1, 2], dtype)).clamp(-1, 1).tolist() == [0, 1, 1]
        return
    a = rng.integers(0 if dtype in ("uint8", "bool") else -2, 3, (3, 4)).astype(dtype)
    outcomes = []
    for t in (Tensor(a), torch.tensor(a)):
        try:
            outcomes.append(WITHOUT_GRADIENT[name](t))
        except RuntimeError:
            outcomes.append(None)
    mine, theirs = outcomes
    assert (mine is None) == (theirs is None)
    if mine is not None:
        assert_same(name, mine, theirs, 0)


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3), (2, 3)), ((2, 1), (3,), ()), ((), (2, 3), (1, 3)), ((3,), (2, 3), (2, 1))], ids=str
)
def test_where(shapes, rng):
    c = rng.random(shapes[0]) < 0.5
    x, y = (rng.standard_normal(shape) for shape in shapes[1:])
    compare_method(lambda c, x, y: (torch.where if isinstance(c, torch.Tensor) else where)(c, x, y), c, x, y)


def where(c, x, y):
    from minidl.ops.select import where

    return where(c, x, y)


def test_where_takes_numbers_and_promotes():
    c = np.array([True, False])
    for x, y in (
        (1, 2.0),
        (True, 2),
        (1.5, np.ones(2, "float32")),
        (np.ones(2, "int32"), 0.5),
        (np.ones((), "float64"), np.ones(2, "float32")),
    ):
        mine = where(Tensor(c), *(Tensor(z) if isinstance(z, np.ndarray) else z for z in (x, y)))
        theirs = torch.where(torch.tensor(c), *(torch.tensor(z) if isinstance(z, np.ndarray) else z for z in (x, y)))
        assert_same("where", mine, theirs, 0)
    for mine, theirs in zip(where(Tensor(c), None, None), torch.where(torch.tensor(c)), strict=True):
        assert_same("where", mine, theirs, 0)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather(dim, rng):
    x = rng.standard_normal((3, 4))
    for shape in ((3, 4), (2, 3), (1, 1)):
        index = rng.integers(0, 3, shape)
        compare_method(lambda t, i: t.gather(dim, i), x, index)
    compare_method(lambda t, i: t.gather(0, i), rng.standard_normal(()), np.zeros((), "int64"))
    compare_method(lambda t, i: t.gather(0, i), rng.standard_normal(3), np.array([2, 0], "int32"))


def test_gradients_at_kinks():
    compare_method(lambda t: t.clamp(-1, 1), np.array([-1.0, 1.0, 0.0, -2.0]))
    compare_method(lambda t: t.norm(), np.zeros(3))
    compare_method(lambda t: t.norm(dim=1), np.array([[0.0, 0.0], [3.0, 4.0]]))
    compare_method(lambda t: t.std(dim=1), np.array([[2.0, 2.0], [3.0, 4.0]]))
    compare_method(lambda t, u: t.max(u) + 2 * t.min(u), np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 5.0]))


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:Degrees of freedom", "ignore:std")
def test_edges_with_nan():
    x = np.array([[np.nan, 1.0, -np.inf], [np.inf, 0.0, 2.0]])
    for method in (
        abs,
        lambda t: t.clamp(t[1:], t[:1]),
        lambda t: t.clamp(0, 1),
        lambda t: t.max(t.flip(0)),
        lambda t: t.norm(dim=1),
        lambda t: t.cumsum(1),
    ):
        mine, theirs = Tensor(x, True), torch.tensor(x, requires_grad=True)
        for t in (mine, theirs):
            method(t).sum().backward()
        assert_same("values", method(mine), method(theirs), 1e-15)
        assert_same("gradient", mine.grad, theirs.grad, 1e-15)
    for method in (lambda t: t.sort(1), lambda t: t.sort(1, descending=True)):
        for mine, theirs in zip(method(Tensor(x)), method(torch.tensor(x)), strict=True):
            assert_same("sort", mine, theirs, 0)


def test_equal_ones_stay_in_order(rng):
    x = rng.integers(0, 3, (40, 5))
    for descending, dim in itertools.product((False, True), (0, 1)):
        for mine, theirs in zip(
            Tensor(x).sort(dim, descending), torch.tensor(x).sort(dim=dim, descending=descending, stable=True), strict=True
        ):
            assert_same("sort", mine, theirs, 0)


REFUSED = {
    "expand": lambda t: t.expand(2, 5, 4),
    "expand to fewer": lambda t: t.expand(3, 4),
    "expand a new axis": lambda t: t.expand(-1, 2, 3, 4),
    "repeat too few": lambda t: t.repeat(2, 2),
    "split": lambda t: t.split([1, 1], 1),
    "split of 0": lambda t: t.split(0),
    "chunk of 0": lambda t: t.chunk(0),
    "t": lambda t: t.t(),
    "mT": lambda t: t[0, 0].mT,
    "clamp": lambda t: t.clamp(),
    "flip twice": lambda t: t.flip(0, 0),
    "roll": lambda t: t.roll((1, 2), 0),
    "topk": lambda t: t.topk(9),
    "masked fill": lambda t: t.masked_fill(t, 1.0),
    "floor divide": lambda t: (t.clone() // 2).sum().backward(),
    "norm of ints": lambda t: t.long().norm(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pytorch_refuses_is_refused(name):
    for t in (torch.ones(SHAPE, requires_grad=True), Tensor(np.ones(SHAPE, "float32"), True)):
        with pytest.raises(RuntimeError):
            REFUSED[name](t.detach() if "ints" in name or "masked" in name else t)


def test_every_method_has_pytorchs_name():
    ours_alone = [name for name in METHODS if not hasattr(torch.Tensor, name)]
    assert ours_alone == []


def test_python_sees_a_tensor_as_it_sees_pytorchs():
    for t, u in ((Tensor([1.0, 2.5, 3.0]), Tensor(np.array(2))), (torch.tensor([1.0, 2.5, 3.0]), torch.tensor(2))):
        assert f"{t[1]:.4f}" == "2.5000" and f"{u:03d}" == "002"
        assert 2.5 in t and 2.25 not in t and u in u.reshape(1)
        assert ["a", "b", "c"][u] == "c" and list(range(5))[u:] == [2, 3, 4] and hex(u) == "0x2"
        assert t.tolist() == [1.0, 2.5, 3.0] and u.tolist() == 2 and t.dim() == 1 and t.nelement() == 3
        assert t.is_floating_point() and not u.is_floating_point() and t.is_contiguous() and t.element_size() == 4
        with pytest.raises(TypeError):
            ["a"][t[0]]
    assert str(host(Tensor([1.0]))) == "[1.]"
