"""minidl.ops.arithmetic against loops, broadcasting of any shapes, gradcheck, errors, memory layouts."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marks import on_host

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops import arithmetic
from minidl.ops.arithmetic import abs_, add, cast, div, exp, log, matmul, mul, neg, pow, sqrt, sub, unbroadcast

# op, its value, its slopes along x and y; operands are positive, so that all are defined
BINARY = {
    "add": (add, lambda x, y: x + y, lambda x, y: (1, 1)),
    "sub": (sub, lambda x, y: x - y, lambda x, y: (1, -1)),
    "mul": (mul, lambda x, y: x * y, lambda x, y: (y, x)),
    "div": (div, lambda x, y: x / y, lambda x, y: (1 / y, -x / y**2)),
    "pow": (pow, lambda x, y: x**y, lambda x, y: (y * x ** (y - 1), x**y * math.log(x))),
}
UNARY = {
    "neg": (neg, lambda x: -x, lambda x: -1),
    "exp": (exp, math.exp, math.exp),
    "log": (log, math.log, lambda x: 1 / x),
    "sqrt": (sqrt, math.sqrt, lambda x: 0.5 / math.sqrt(x)),
    "abs": (abs_, abs, lambda x: math.copysign(1, x)),
}
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # a few roundings each, and sums of at most 27 of them


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


# ----------------------------------------------------------------------------------------------------- against a loop


def check_binary(run, name, x, y):
    """Element by element: where an operand was broadcast, `at` says which of its elements took part."""
    op, value, slopes = BINARY[name]
    z, gz, gradients = run(op, x, y)
    shape = np.broadcast_shapes(x.shape, y.shape)
    assert z.shape == shape and [g.shape for g in gradients] == [x.shape, y.shape]
    x_at, y_at = (np.broadcast_to(np.arange(a.size).reshape(a.shape), shape) for a in (x, y))
    gx, gy = np.zeros(x.size), np.zeros(y.size)
    for at in np.ndindex(shape):
        a, b = x.flat[x_at[at]], y.flat[y_at[at]]
        np.testing.assert_allclose(z[at], value(a, b), **CLOSE)
        gx[x_at[at]] += gz[at] * slopes(a, b)[0]
        gy[y_at[at]] += gz[at] * slopes(a, b)[1]
    np.testing.assert_allclose(gradients[0].ravel(), gx, **CLOSE)
    np.testing.assert_allclose(gradients[1].ravel(), gy, **CLOSE)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((3, 4), (3, 4)), ((2, 3, 4), (3, 1)), ((1, 4), (3, 1)), ((), (2, 3)), ((2, 3, 4, 5), (3, 1, 1)), ((0, 3), (3,))],
)
def test_two_operands_against_a_loop(name, x_shape, y_shape, run, rng):
    check_binary(run, name, positive(rng, x_shape), positive(rng, y_shape))
    check_binary(run, name, positive(rng, y_shape), positive(rng, x_shape))


@settings(max_examples=60)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, min_side=0, max_side=3),
    name=st.sampled_from(sorted(BINARY)),
)
def test_any_shapes_that_broadcast(run, shapes, name):
    rng = np.random.default_rng(0)
    check_binary(run, name, *(positive(rng, shape) for shape in shapes.input_shapes))


@settings(max_examples=60)
@given(
    x_shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    y_shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
def test_shapes_are_refused_exactly_where_numpy_refuses_them(device, x_shape, y_shape):
    x, y = Tensor(np.zeros(x_shape), device=device), Tensor(np.zeros(y_shape), device=device)
    try:
        expected = np.broadcast_shapes(x_shape, y_shape)
    except ValueError:
        with pytest.raises(RuntimeError, match=r"^add: sizes must be equal or 1,"):
            add(x, y)
    else:
        assert add(x, y).shape == expected


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (0, 2)])
def test_one_operand_against_a_loop(name, shape, run, rng):
    op, value, slope = UNARY[name]
    x = positive(rng, shape) * (rng.choice([-1, 1], shape) if name in ("neg", "exp", "abs") else 1)
    y, gy, (gx,) = run(op, x)
    assert y.shape == gx.shape == shape
    for at in np.ndindex(shape):
        np.testing.assert_allclose(y[at], value(x[at]), **CLOSE)
        np.testing.assert_allclose(gx[at], gy[at] * slope(x[at]), **CLOSE)


MATMUL_SHAPES = [
    ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((0, 3), (3, 4)), ((2, 0), (0, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("x_shape", "y_shape"), MATMUL_SHAPES)
def test_matmul_against_a_loop(x_shape, y_shape, run, rng):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    z, gz, (gx, gy) = run(matmul, x, y)
    # 1-d operands as a row and a column
    x2, y2 = x.reshape(1, -1) if x.ndim == 1 else x, y.reshape(-1, 1) if y.ndim == 1 else y
    batch = np.broadcast_shapes(x2.shape[:-2], y2.shape[:-2])
    shape = (*batch, x2.shape[-2], y2.shape[-1])
    assert z.shape == (*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.ndim > 1 else ()))
    expected, expected_gx, expected_gy = np.zeros(shape), np.zeros(x2.shape), np.zeros(y2.shape)
    x_at, y_at = (np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (x2, y2))
    gx_at, gy_at = np.zeros(x_at.shape), np.zeros(y_at.shape)
    for *b, i, j in np.ndindex(shape):
        g = gz.reshape(shape)[(*b, i, j)]
        for k in range(x2.shape[-1]):
            expected[(*b, i, j)] += x_at[(*b, i, k)] * y_at[(*b, k, j)]
            gx_at[(*b, i, k)] += g * y_at[(*b, k, j)]
            gy_at[(*b, k, j)] += g * x_at[(*b, i, k)]
    expected_gx, expected_gy = unbroadcast(gx_at, x2.shape), unbroadcast(gy_at, y2.shape)
    np.testing.assert_allclose(z, expected.reshape(z.shape), **CLOSE)
    np.testing.assert_allclose(gx, expected_gx.reshape(x.shape), **CLOSE)
    np.testing.assert_allclose(gy, expected_gy.reshape(y.shape), **CLOSE)


def test_unbroadcast_sums_over_what_was_stretched():
    g = np.arange(24.0).reshape(2, 3, 4)
    assert unbroadcast(g, (2, 3, 4)) is g
    np.testing.assert_array_equal(unbroadcast(g, (3, 1)), g.sum(axis=(0, 2))[:, None])
    np.testing.assert_array_equal(unbroadcast(g, ()), g.sum())
    np.testing.assert_array_equal(unbroadcast(g, (1, 1, 4)), g.sum(axis=(0, 1), keepdims=True))
    assert unbroadcast(np.ones((1, 1, 2)), (1, 2)).shape == (1, 2)
    assert unbroadcast(np.ones((0, 3)), (3,)).tolist() == [0, 0, 0]


def test_the_gradients_of_a_sum_share_no_memory(device):
    x, y = (Tensor(np.zeros(3), True, device) for _ in range(2))
    add(x, y).backward(np.ones(3))
    x.grad += 1
    assert y.grad.tolist() == [1, 1, 1]


def test_a_tensor_used_twice_gets_both_gradients(device):
    x = Tensor(np.array([2.0, 3.0]), True, device)
    (x * x + x).backward(np.ones(2))
    assert x.grad.tolist() == [5, 7]


def test_abs_has_no_slope_at_0_nor_at_nan(run):
    _, _, (gx,) = run(abs_, np.array([0.0, -0.0, np.nan]))
    assert gx.tolist() == [0, 0, 0]


def test_a_rounded_quotient_is_flat(run):
    for mode, expected in (("floor", [3, -4, -4]), ("trunc", [3, -3, -3])):
        z, _, gradients = run(
            lambda x, y, mode=mode: div(x, y, rounding_mode=mode), np.array([7.0, -7.0, 7.0]), np.array([2.0, 2, -2])
        )
        assert z.tolist() == expected and [g.tolist() for g in gradients] == [[0, 0, 0], [0, 0, 0]]


def test_integers_rounded_towards_0(device):
    x, y = (np.array(values) for values in zip(*((a, b) for a in range(-7, 8) for b in (-3, -2, 1, 3)), strict=True))
    z = div(Tensor(x, device=device), Tensor(y, device=device), rounding_mode="trunc")
    assert z.dtype == np.int64 and z.tolist() == [int(a / b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]


def test_each_bound_of_clamp_gets_the_gradient_where_it_is_the_output(run):
    x, low, high = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 2, 2, 5, 2]), np.array([4.0, 4, 4, 4, 4])
    y, gy, gradients = run(arithmetic.clamp, x, low, high)
    assert y.tolist() == [2, 2, 3, 4, 4]
    picked = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(np.array(gradients), gy * picked)


@pytest.mark.parametrize("p", [0, 0.0, np.zeros(3)])
def test_the_power_0_has_no_slope_along_x_not_even_at_0(p, device):
    x = Tensor(np.array([0.0, 2.0, -3.0]), True, device)
    with np.errstate(all="raise"):
        pow(x, p).backward(np.ones(3))
    assert x.grad.tolist() == [0, 0, 0]


def test_a_power_of_0_has_no_slope_along_the_exponent(device):
    p = Tensor(np.array([2.0, 0.5, 0.0]), True, device)
    with np.errstate(all="raise"):
        pow(np.zeros(3), p).backward(np.ones(3))
    assert p.grad.tolist() == [0, 0, 0]


def test_negative_numbers_have_whole_powers(run):
    y, gy, (gx,) = run(lambda t: pow(t, 3), np.array([-2.0, 0.0, 2.0]))
    np.testing.assert_allclose(y, [-8, 0, 8], rtol=1e-15)  # CUDA's pow may be a unit or two off
    np.testing.assert_allclose(gx, gy * [12, 0, 12], rtol=1e-14)


@pytest.mark.parametrize("wanted", [np.float32, "float64", np.float16])
def test_cast_converts_and_the_gradient_comes_back_in_the_old_dtype(wanted, device):
    x = Tensor(np.array([1.5, 2.5], np.float32), True, device)
    y = cast(x, wanted)
    y.sum().backward()
    assert y.dtype == wanted and x.grad.dtype == np.float32
    assert x.grad.tolist() == [1, 1]
    assert (y is x) == (wanted is np.float32)


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(("x_shape", "y_shape"), [((3, 4), (3, 4)), ((2, 3, 4), (3, 1)), ((), (2, 3)), ((1, 4), (3, 1))])
def test_gradcheck_of_two_operands(name, x_shape, y_shape, device, rng):
    x, y = (Tensor(positive(rng, shape), True, device) for shape in (x_shape, y_shape))
    gradcheck(BINARY[name][0], [x, y])
    gradcheck(BINARY[name][0], [y, x])
    gradcheck(BINARY[name][0], [x, y.detach()])
    gradcheck(BINARY[name][0], [x.detach(), y])
    gradcheck(BINARY[name][0], [x, 1.5])
    gradcheck(BINARY[name][0], [1.5, x])


@pytest.mark.parametrize("name", UNARY)
def test_gradcheck_of_one_operand(name, device, rng):
    gradcheck(UNARY[name][0], [Tensor(positive(rng, (3, 4)), True, device)])


@pytest.mark.parametrize(("x_shape", "y_shape"), MATMUL_SHAPES[:-2])
def test_gradcheck_of_matmul(x_shape, y_shape, leaves):
    gradcheck(matmul, leaves(x_shape, y_shape))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", BINARY)
def test_shapes_that_do_not_broadcast(name, device):
    x, y = Tensor(np.zeros((2, 3)), device=device), Tensor(np.zeros(2), device=device)
    text = f"{name}: sizes must be equal or 1, counted from the last axis, got x (2, 3), y (2,)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        BINARY[name][0](x, y)


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "text"),
    [
        ((2, 3), (4, 5), "matmul: x has 3 columns, y has 4 rows, got x (2, 3), y (4, 5)"),
        ((3,), (4,), "matmul: x has 3 columns, y has 4 rows, got x (3,), y (4,)"),
        ((2, 3), (), "matmul: both need at least 1 axis, got x (2, 3), y ()"),
        (
            (2, 2, 3),
            (4, 3, 2),
            "matmul: axes before the last two must be equal or 1, got x (2, 2, 3), y (4, 3, 2)",
        ),
    ],
)
def test_matrices_that_do_not_fit(x_shape, y_shape, text, device):
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        matmul(Tensor(np.zeros(x_shape), device=device), Tensor(np.zeros(y_shape), device=device))


def test_a_number_is_no_matrix(device):
    with pytest.raises(RuntimeError, match=re.escape("matmul: both need at least 1 axis, got x (), y (2,)")):
        matmul(2.0, Tensor(np.zeros(2), device=device))


@pytest.mark.parametrize("wanted", [np.int64, bool])
def test_the_graph_ends_at_a_dtype_that_has_no_gradient(wanted, device):
    y = cast(Tensor(np.zeros(2), True, device), wanted)
    assert y.dtype == wanted and not y.requires_grad and y.is_leaf


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: x // 0, RuntimeError, "floor_divide: integers can't be divided by 0, got x (2,), y () with a 0"),
        (lambda x: x % (x * 0), RuntimeError, "remainder: integers can't be divided by 0, got x (2,), y (2,) with a 0"),
        (lambda x: x.div(0, rounding_mode="trunc"), RuntimeError, "div: integers can't be divided by 0, got x (2,), y () with"),
        (lambda x: x.div(2, rounding_mode="up"), RuntimeError, "div: rounding_mode must be None, 'trunc' or 'floor', got 'up'"),
        (lambda x: (x > 0).div(x > 0, rounding_mode="floor"), RuntimeError, "div: x and y are bools, which can't be rounded"),
        (lambda x: x.clamp(x, 3), TypeError, "clamp: min and max must be two numbers or two tensors, got one of each"),
        (lambda x: x.clamp(Tensor(np.ones(3))), RuntimeError, "clamp: sizes must be equal or 1, counted from the last axis"),
    ],
)
def test_errors_of_rounded_quotients_and_of_bounds(call, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        call(Tensor(np.array([1, 2])))


def test_an_operand_must_be_numbers(device):
    with pytest.raises(TypeError, match=re.escape("Tensor: the dtype must be of real numbers, got <U3")):
        add(Tensor([1.0], device=device), "one")


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_memory_order_of_the_inputs_changes_nothing(name, arrange, device, rng):
    op, operands = (BINARY[name][0], 2) if name in BINARY else (UNARY[name][0], 1)
    arrays, gz = [positive(rng, (2, 3, 4, 5)) for _ in range(operands)], rng.standard_normal((2, 3, 4, 5))
    results = []
    for tensors in ([Tensor(a, True, device) for a in arrays], [arrange(a) for a in arrays]):
        z = op(*tensors)
        z.backward(gz)
        results.append([z.detach().numpy(), *(t.grad.numpy() for t in tensors)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)  # vector code for contiguous memory may differ in the last bits


@on_host
@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_channels_last_stays_channels_last(name, channels_last_leaf):
    x, gz, received = channels_last_leaf
    x.data = abs(x.data) + 0.5
    z = BINARY[name][0](x, x.detach()) if name in BINARY else UNARY[name][0](x)
    z.backward(gz)
    assert is_channels_last(z.data) and received == [True]


@on_host
def test_a_bias_for_each_channel_keeps_channels_last(channels_last_leaf, device):
    x, gz, received = channels_last_leaf
    z = add(x, Tensor(np.arange(3.0).reshape(3, 1, 1), device=device))
    z.backward(gz)
    assert is_channels_last(z.data) and received == [True]


@pytest.mark.parametrize("name", [*BINARY, *UNARY])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(name, dtype, run, rng):
    x = positive(rng, (3, 4)).astype(dtype)
    if name in UNARY:
        y, _, gradients = run(UNARY[name][0], x)
    else:
        y, _, gradients = run(BINARY[name][0], x, x.copy())
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_takes_the_tensors_dtype(name, dtype, number, device):
    op, value, _ = BINARY[name]
    x = Tensor(np.array([1.0, 4.0], dtype), True, device)
    left, right = [value(a, 2.0) for a in (1.0, 4.0)], [value(2.0, a) for a in (1.0, 4.0)]
    for z, expected in ((op(x, number), left), (op(number, x), right)):
        assert z.dtype == dtype
        np.testing.assert_allclose(z.detach().numpy(), expected, rtol=1e-6)


def test_an_array_operand_goes_to_the_tensors_device(device):
    x = Tensor(np.array([1.0, 2.0]), True, device)
    z = arithmetic.mul(np.array([3.0, 4.0]), x)
    assert z.device is device and z.detach().numpy().tolist() == [3, 8]
    assert arithmetic.mul(x, [3.0, 4.0]).detach().numpy().tolist() == [3, 8]


def test_an_int_tensor_takes_the_floats_dtype_beside_it():
    ids, x = Tensor(np.array([1, 2, 3])), Tensor(np.ones(3, np.float32), True)
    assert (ids * x).dtype == (x + ids).dtype == np.float32
    (ids * x).sum().backward()
    assert x.grad.tolist() == [1, 2, 3]
    assert (ids + ids).dtype == (ids + 1).dtype == np.int64
    assert (ids * Tensor(np.ones(3, np.float16))).dtype == np.float16


@pytest.mark.parametrize("op", [lambda x: x + 0.5, lambda x: 0.5 * x, lambda x: x / 2, lambda x: x / x, exp, log, sqrt])
def test_ints_become_float32_where_the_result_is_no_int(op):
    ids = Tensor(np.array([1, 2, 3]))
    y, expected = op(ids), op(ids.to("float64"))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)
