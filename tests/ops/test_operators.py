"""minidl.ops.operators: every operator and method of a tensor does what it says, on either side; gradcheck, errors."""

import operator
import re

import numpy as np
import pytest
from marks import on_host

from minidl import DeviceError, Tensor, gradcheck
from minidl.layout import channels_last, is_channels_last
from minidl.ops.operators import METHODS

# the operator on two operands, and which attributes of Tensor serve it
OPERATORS = {
    "+": (lambda x, y: x + y, ("__add__", "__radd__")),
    "-": (lambda x, y: x - y, ("__sub__", "__rsub__")),
    "*": (lambda x, y: x * y, ("__mul__", "__rmul__")),
    "/": (lambda x, y: x / y, ("__truediv__", "__rtruediv__")),
    "**": (lambda x, y: x**y, ("__pow__", "__rpow__")),
    "@": (lambda x, y: x @ y, ("__matmul__", "__rmatmul__")),
}

IN_PLACE = {
    "+": operator.iadd,
    "-": operator.isub,
    "*": operator.imul,
    "/": operator.itruediv,
    "**": operator.ipow,
    "//": operator.ifloordiv,
    "%": operator.imod,
}
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]

# name, the method on a tensor, the same on a NumPy array
UNARY = {
    "__neg__": (lambda t: -t, lambda a: -a),
    "__abs__": (abs, abs),
    "__getitem__": (lambda t: t[1, :2], lambda a: a[1, :2]),
    "abs": (lambda t: t.abs(), abs),
    "exp": (lambda t: t.exp(), np.exp),
    "log": (lambda t: t.log(), np.log),
    "sqrt": (lambda t: t.sqrt(), np.sqrt),
    "matmul": (lambda t: t.matmul(t), lambda a: a @ a),
    "sum": (lambda t: t.sum(0), lambda a: a.sum(0)),
    "mean": (lambda t: t.mean(dim=1, keepdim=True), lambda a: a.mean(1, keepdims=True)),
    "max": (lambda t: t.max(), lambda a: a.max()),
    "min": (lambda t: t.min(0)[0], lambda a: a.min(0)),
    "amax": (lambda t: t.amax(1), lambda a: a.max(1)),
    "amin": (lambda t: t.amin(1), lambda a: a.min(1)),
    "relu": (lambda t: (t - 1.0).relu(), lambda a: np.maximum(a - 1, 0)),
    "tanh": (lambda t: t.tanh(), np.tanh),
    "sigmoid": (lambda t: t.sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
    "softmax": (lambda t: t.softmax(1), lambda a: np.exp(a) / np.exp(a).sum(1, keepdims=True)),
    "log_softmax": (lambda t: t.log_softmax(1), lambda a: a - np.log(np.exp(a).sum(1, keepdims=True))),
    "reshape": (lambda t: t.reshape(9), lambda a: a.reshape(9)),
    "view": (lambda t: t.view(1, -1), lambda a: a.reshape(1, 9)),
    "flatten": (lambda t: t.flatten(), lambda a: a.reshape(9)),
    "squeeze": (lambda t: t[:1].squeeze(0), lambda a: a[0]),
    "unsqueeze": (lambda t: t.unsqueeze(0), lambda a: a[None]),
    "permute": (lambda t: t.permute(1, 0), lambda a: a.T),
    "transpose": (lambda t: t.transpose(0, 1), lambda a: a.T),
    "T": (lambda t: t.T, lambda a: a.T),
}
# their values are compared with PyTorch's, in tests/oracle/test_tensor_methods.py
GRADCHECKED = {
    "sin": lambda t: t.sin(),
    "cos": lambda t: t.cos(),
    "clamp": lambda t: t.clamp(0.8, 1.7),
    "clamp by tensors": lambda t: t.clamp(t.T + 0.1, t.flip(0) + 0.3),
    "where": lambda t: t.where(t > 1.2, t.T),
    "maximum": lambda t: t.maximum(t.T + 0.01),
    "minimum": lambda t: t.minimum(t.T + 0.01),
    "remainder": lambda t: t.remainder(t.T + 0.31),
    "norm": lambda t: t.norm(dim=1),
    "norm 3": lambda t: t.norm(3, 0),
    "var": lambda t: t.var(1),
    "std": lambda t: t.std(dim=0, keepdim=True),
    "cumsum": lambda t: t.cumsum(1),
    "gather": lambda t: t.gather(0, Tensor(np.array([[2, 0], [2, 1], [2, 2]]), device=t.device)),
    "sort": lambda t: t.sort(0, descending=True).values,
    "topk": lambda t: t.topk(2)[0],
    "masked_fill": lambda t: t.masked_fill(t > 1, 3.0),
    "expand": lambda t: t[:, :1].expand(2, 3, 4),
    "repeat": lambda t: t.repeat(2, 1, 2),
    "flip": lambda t: t.flip(1),
    "roll": lambda t: t.roll(1, 1),
    "split": lambda t: t.split([1, 2], 1)[1],
    "clone": lambda t: t.clone(),
    "contiguous": lambda t: t.T.contiguous(),
    "in place": lambda t: (t * 2).mul_(t).add_(t.T, alpha=0.5),
}


@pytest.fixture
def x(device, rng):
    return Tensor(rng.uniform(0.5, 2, (3, 3)), True, device)


# -------------------------------------------------------------------------------------------------------- against NumPy


def test_every_entry_of_the_list_is_bound():
    """That each is tried on every kind of device, tests/test_device.py asks."""
    assert all(getattr(Tensor, name) is METHODS[name] for name in METHODS)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_between_tensors_and_arrays_on_either_side(operator, x, rng):
    apply, _ = OPERATORS[operator]
    a, b = x.detach().numpy(), rng.uniform(0.5, 2, (3, 3))
    y = Tensor(b, device=x.device)
    for result, expected in ((apply(x, y), apply(a, b)), (apply(x, b), apply(a, b)), (apply(b, x), apply(b, a))):
        assert type(result) is Tensor and result.device is x.device and result.requires_grad
        np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("number", [3, 0.5, np.float32(0.5), np.int64(3)])
@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**"])
def test_operators_with_numbers_on_either_side(operator, number, x):
    apply, _ = OPERATORS[operator]
    a = x.detach().numpy()
    for result, expected in ((apply(x, number), apply(a, number)), (apply(number, x), apply(number, a))):
        assert type(result) is Tensor and result.dtype == np.float64
        np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", UNARY)
def test_methods(name, x):
    method, of_numpy = UNARY[name]
    np.testing.assert_allclose(method(x).detach().numpy(), of_numpy(x.detach().numpy()), rtol=1e-13, atol=1e-15)


def test_max_along_an_axis_has_positions_and_argmax_finds_them(x):
    values, positions = x.max(1)
    np.testing.assert_array_equal(positions.numpy(), x.detach().numpy().argmax(1))
    np.testing.assert_array_equal(x.argmax(1).numpy(), positions.numpy())
    np.testing.assert_array_equal(values.detach().numpy(), x.detach().numpy().max(1))


def test_iterating_gives_the_rows(x):
    rows = list(x)
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[2].detach().numpy(), x.detach().numpy()[2])


def test_to_takes_a_device_a_dtype_or_both_in_any_form(x):
    for call in (
        lambda: x.to("cpu:1", np.float32),
        lambda: x.to("float32", "cpu:1"),
        lambda: x.to(device="cpu:1", dtype="float32"),
        lambda: x.to(np.dtype("float32"), device="cpu:1"),
    ):
        y = call()
        assert str(y.device) == "cpu:1" and y.dtype == np.float32 and y.requires_grad
    assert x.to(np.float32).device is x.device
    assert x.to(x.device) is x.to(dtype=np.float64) is x.to() is x
    assert x.to("f4").dtype == np.float32
    with pytest.raises(DeviceError, match="gpu"):
        x.to("gpu")


def test_float_and_double(x):
    assert x.float().dtype == np.float32
    assert x.double() is x
    assert x.float().double().dtype == np.float64


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradcheck_of_operators(operator, x, rng):
    apply, _ = OPERATORS[operator]
    array = rng.uniform(0.5, 2, (3, 3))
    gradcheck(apply, [x, Tensor(array, True, x.device)])
    gradcheck(lambda t: apply(array, t), [x])
    gradcheck(lambda t: apply(t, array), [x])


@pytest.mark.parametrize("name", UNARY)
def test_gradcheck_of_methods(name, x):
    gradcheck(UNARY[name][0], [x])


@pytest.mark.parametrize("name", GRADCHECKED)
def test_gradcheck_of_more_methods(name, x):
    gradcheck(GRADCHECKED[name], [x])


# -------------------------------------------------------------------------------------------------------------- errors


def test_errors_name_the_op(x):
    text = "add: sizes must be equal or 1, counted from the last axis, got x (3, 3), y (2,)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        x + np.ones(2)
    text = "sub: sizes must be equal or 1, counted from the last axis, got x (2,), y (3, 3)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        np.ones(2) - x


def test_operators_refuse_tensors_of_two_devices():
    text = "add: x is on cpu:0, y on cpu:1; move one with .to(device)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        Tensor([1.0], device="cpu:0") + Tensor([1.0], device="cpu:1")


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_a_chain_of_operators_keeps_channels_last_and_float32(device, rng):
    data = channels_last(Tensor(rng.standard_normal((2, 3, 4, 5)).astype(np.float32), device=device).data)
    x = Tensor(data, True, device)
    y = 2 * (x + np.float32(1) - x / 3) ** 2 - x.tanh() * 0.5
    y.sum().backward()
    assert is_channels_last(y.data) and is_channels_last(x.grad.data)
    assert y.dtype == x.grad.dtype == np.float32


def test_operators_leave_their_operands_alone(x, rng):
    before, array = x.detach().numpy(), rng.uniform(0.5, 2, (3, 3))
    kept = array.copy()
    for apply, _ in OPERATORS.values():
        apply(array, x).sum().backward()
    np.testing.assert_array_equal(x.detach().numpy(), before)
    np.testing.assert_array_equal(array, kept)


# ------------------------------------------------------------------------------------- arrays of NumPy or CuPy on the left


@pytest.fixture
def pair(device, rng):
    """An array on the device and a tensor, both near 1.5, and their values."""
    values = rng.uniform(1, 2, (3, 3)), rng.uniform(1, 2, (3, 3))
    with device.active():
        return device.asarray(values[0].copy()), Tensor(values[1], device=device), values


@pytest.mark.parametrize("sign", [*OPERATORS, "//", "%"])
def test_an_array_on_the_left_asks_the_tensor(sign, pair, device):
    array, x, (a, b) = pair
    x.requires_grad_(sign in OPERATORS)
    function = {"//": operator.floordiv, "%": operator.mod}.get(sign) or OPERATORS[sign][0]
    y = function(array, x)
    assert isinstance(y, Tensor) and y.device is device and y.requires_grad == x.requires_grad
    np.testing.assert_allclose(y.detach().numpy(), function(a, b), rtol=1e-14)


@pytest.mark.parametrize("compare", COMPARISONS)
def test_an_array_is_compared_by_the_tensor(compare, pair, device):
    array, x, (a, _) = pair
    x[0] = Tensor(a[0], device=device)
    y = compare(array, x)
    assert isinstance(y, Tensor)
    np.testing.assert_array_equal(y.numpy(), compare(a, x.numpy()))


@pytest.mark.parametrize("sign", IN_PLACE)
def test_an_array_is_changed_in_place_by_a_tensor(sign, pair, device):
    array, x, (a, b) = pair
    changed = IN_PLACE[sign](array, x)
    assert changed is array
    np.testing.assert_allclose(device.to_host(array), IN_PLACE[sign](a, b), rtol=1e-14)


def test_the_data_of_a_leaf_is_changed_by_its_gradient(device):
    w = Tensor(np.array([1.0, 2.0]), True, device)
    (w * w).sum().backward()
    array = w.data
    w.data -= 0.25 * w.grad
    assert w.data is array and w.tolist() == [0.5, 1.0]
    with pytest.raises(RuntimeError, match="subtract: a tensor requires a gradient, which an array can't carry"):
        w.data -= w * 2
