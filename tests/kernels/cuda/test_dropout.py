"""minidl.kernels.cuda.dropout against the plain functions, whose mask NumPy's generator makes: every bit, and memory order."""

import fake_cupy
import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.device import memory_order
from minidl.kernels import REPLACEMENTS, plain_kernels
from minidl.kernels.cuda import dropout as kernels
from minidl.kernels.cuda.dropout import dropout_backward, dropout_forward
from minidl.ops import dropout as plain
from minidl.random import Draw, Generator, words_below

BIG = 2**64 - 1
DRAWS = [
    Draw(0, (0, 0, 0), 0),
    Draw(1, (0, 0, 0), 5),
    Draw(7, (1, 2, 3), 2**40),
    Draw(2**63, (2**63 - 1, 2**63, 5), 3),
    Draw(2**32, (3, 2**63 + 1, 2**63 - 1), 2**63),
    Draw(BIG, (BIG, BIG, BIG), BIG),
]
SIZES = [0, 1, 2, 7, 8, 9, 63, 255, 257, 2047, 2048, 2049, 4099, 10_001]  # a block of threads does 2048 elements at a time
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def normal(rng, dtype, *shape):
    """Normal numbers, a tenth of them odd ones: 0 times infinity is NaN, in both functions."""
    x = rng.standard_normal(shape).astype(dtype)
    where = rng.random(shape) < 0.1
    x[where] = rng.choice(np.array(ODD, dtype), int(where.sum()))
    return x


def same_bits(got, expected):
    """Equal with the zeros' signs; a NaN is a NaN."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got) & (got == 0), np.signbit(expected) & (expected == 0))


@pytest.fixture(autouse=True)
def _infinities_are_multiplied():
    with np.errstate(invalid="ignore"):
        yield


def check(gpu, on_gpu, x, draw, p, scale):
    y, mask = dropout_forward(on_gpu, draw, p, scale)
    expected_y, expected_mask = plain.dropout_forward(x, draw, p, scale)
    same_bits(gpu.get(mask), expected_mask)
    same_bits(gpu.get(y), expected_y)
    return y, mask, expected_mask


@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward(gpu, rng, dtype, size):
    x, gy = normal(rng, dtype, size), normal(rng, dtype, size)
    on_gpu, upstream = gpu.put(x), gpu.put(gy)
    for draw, p, scale in ((DRAWS[1], 0.5, 2.0), (DRAWS[3], 0.3, 1 / 0.7)):
        _, mask, expected = check(gpu, on_gpu, x, draw, p, scale)
        same_bits(gpu.get(dropout_backward(upstream, mask, scale)), plain.dropout_backward(gy, expected, scale))
    np.testing.assert_array_equal(gpu.get(on_gpu), x)
    np.testing.assert_array_equal(gpu.get(upstream), gy)


@pytest.mark.parametrize("draw", DRAWS, ids=str)
def test_the_mask_is_numpys_for_every_draw(gpu, draw):
    for size in (1, 13, 2500):
        ones = np.ones(size, "f")
        for p in (0.1, 0.5, 0.9):
            check(gpu, gpu.put(ones), ones, draw, p, 1.0)


def test_the_mask_is_numpys_for_random_draws(gpu, rng):
    ones = np.ones(41, "f")
    on_gpu = gpu.put(ones)
    for numbers in rng.integers(0, BIG, (50, 5), np.uint64, endpoint=True).tolist():
        check(gpu, on_gpu, ones, Draw(numbers[0], tuple(numbers[1:4]), numbers[4]), rng.random(), 1.0)


def test_the_last_word_that_counts(gpu):
    """Of some words, the mask with exactly this word's share keeps all below and not the word itself."""
    draw, ones = DRAWS[2], np.ones(40, "f")
    words = draw.words(40)
    for word in words[[0, 7, 8, 33]]:
        p = 1 - int(word) / 2**32
        assert words_below(1 - p) == word
        mask = check(gpu, gpu.put(ones), ones, draw, p, 1.0)[1]
        np.testing.assert_array_equal(gpu.get(mask), words < word)


def test_p_0_keeps_everything_and_p_1_nothing(gpu, rng):
    x = rng.standard_normal(3001)
    for p, kept in ((0, True), (0.0, True), (1, False), (1.0, False)):
        y, mask, _ = check(gpu, gpu.put(x), x, DRAWS[0], p, 1)
        assert (gpu.get(mask) == kept).all()
        np.testing.assert_array_equal(gpu.get(y), x * kept)


# -------------------------------------------------------------------------------------------------------- memory orders

ORDERS = {
    "C": (0, 1, 2, 3),
    "channels-last": (0, 2, 3, 1),
    "Fortran": (3, 2, 1, 0),
    "rows and columns swapped": (0, 1, 3, 2),
    "images last": (1, 2, 3, 0),
    "width first": (3, 0, 1, 2),
    "two and two": (2, 3, 0, 1),
    "no transposition": (0, 3, 2, 1),
}
SHAPES = [
    (2, 5, 3, 4),
    (2, 3, 8, 4),
    (1, 5, 7, 3),
    (3, 1, 4, 4),
    (2, 3, 1, 5),
    (2, 9, 1, 1),
    (0, 3, 2, 2),
    (2, 3, 0, 2),
    (3, 17, 11, 9),
]


def lying(x, order):
    """A copy of x whose axes lie in this order in memory."""
    return x.transpose(order).copy().transpose(np.argsort(order))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ORDERS)
def test_any_memory_order_stays_and_changes_no_number(gpu, rng, dtype, name, shape):
    x, gy = (lying(normal(rng, dtype, *shape), ORDERS[name]) for _ in range(2))
    y, mask, expected = check(gpu, gpu.put(x), x, DRAWS[1], 0.4, 1 / 0.6)
    for upstream in (gpu.put(gy), gpu.put(gy.copy())):
        gx = dropout_backward(upstream, mask, 1 / 0.6)
        same_bits(gpu.get(gx), plain.dropout_backward(gy, expected, 1 / 0.6))
        if x.size:
            assert memory_order(gx) == memory_order(y) == memory_order(mask) == memory_order(x)


@pytest.mark.parametrize(
    "cut",
    [np.s_[:, ::2, :, ::2], np.s_[::-1, :, ::-1], np.s_[:1], np.s_[:0], np.s_[0, 0, 0, 0], np.s_[1:, 1:, 1:, 1:]],
    ids=str,
)
def test_views(gpu, rng, dtype, cut):
    for order in ORDERS.values():
        x, gy = (lying(normal(rng, dtype, 2, 5, 3, 4), order) for _ in range(2))
        y, mask, expected = check(gpu, gpu.put(x)[cut], x[cut], DRAWS[2], 0.4, 2.0)
        gx = dropout_backward(gpu.put(gy)[cut], mask, 2.0)
        same_bits(gpu.get(gx), plain.dropout_backward(gy[cut], expected, 2.0))
        if y.size:
            dense = plain.dropout_forward(x[cut], DRAWS[2], 0.4, 2.0)[0]
            assert memory_order(gx) == memory_order(y) == memory_order(mask) == memory_order(dense)


def test_a_broadcast_gradient_or_input(gpu, rng, dtype):
    xp, two = gpu.device.xp, gpu.put(np.array([2.0], dtype))
    broadcast, full = xp.broadcast_to(two, (5, 7)), np.full((5, 7), 2, dtype)
    _, mask, expected = check(gpu, broadcast, full, DRAWS[0], 0.5, 2.0)
    same_bits(gpu.get(dropout_backward(broadcast, mask, 2.0)), plain.dropout_backward(full, expected, 2.0))


@pytest.mark.parametrize(
    "shape, order, expected",
    [
        ((), [], (1, 1, 1)),
        ((5,), [0], (5, 1, 1)),
        ((2, 3, 4, 5), [0, 1, 2, 3], (120, 1, 1)),
        ((2, 3, 4, 5), [0, 2, 3, 1], (2, 20, 3)),
        ((2, 3, 4, 5), [1, 2, 3, 0], (1, 60, 2)),
        ((2, 3, 4, 5), [0, 1, 3, 2], (6, 5, 4)),
        ((2, 1, 4, 5), [0, 2, 3, 1], (40, 1, 1)),
        ((2, 3, 4, 1), [3, 0, 2, 1], (2, 4, 3)),
        ((2, 0, 4, 5), [3, 2, 0, 1], (0, 1, 1)),
        ((2, 3, 4, 5), [3, 2, 1, 0], None),
        ((2, 3, 4, 5), [0, 3, 2, 1], None),
    ],
)
def test_memory_orders_that_are_a_transposition(shape, order, expected):
    assert kernels._transposition(shape, order) == expected


# ---------------------------------------------------------------------------------------------------------------- the op


@pytest.fixture
def _replaced(monkeypatch):
    for function in (dropout_forward, dropout_backward):
        monkeypatch.setitem(REPLACEMENTS, ("cuda", function.__name__), function)


def passed(where, x, gy):
    """The op's result and its gradient after two draws of seed 5, as NumPy arrays."""
    minidl.manual_seed(5)
    plain.dropout(Tensor(x, device=where), 0.3)
    leaf = Tensor(x, True, where)
    y = plain.dropout(leaf, 0.3)
    y.backward(gy)
    return y.detach().numpy(), leaf.grad.numpy()


@pytest.mark.usefixtures("_replaced")
@pytest.mark.parametrize("order", ["C", "channels-last"])
def test_the_op_gives_the_same_as_on_a_cpu_with_one_kernel_each_way(gpu, rng, dtype, order):
    x, gy = (lying(rng.standard_normal((3, 4, 5, 2)).astype(dtype), ORDERS[order]) for _ in range(2))
    for got, expected in zip(passed(gpu.device, x, gy), passed("cpu:0", x, gy), strict=True):
        same_bits(got, expected)
    if gpu.device.xp is fake_cupy:
        forward = "mdl_dropout_forward" + ("" if order == "C" else "_transposed")
        assert fake_cupy.launches == [forward, forward, "mdl_dropout_backward"]
        fake_cupy.history.clear()
        plain.dropout(Tensor(x, device=gpu.device), 0.3)
        assert [event for event, *_ in fake_cupy.history] == ["h2d"]  # x; no mask


def test_the_plain_function_makes_the_same_mask_on_a_gpu(gpu, rng, dtype):
    x = lying(normal(rng, dtype, 3, 4, 5, 2), ORDERS["channels-last"])
    draw = Generator(3).next_draw()
    with plain_kernels():
        y, mask = plain.dropout_forward(gpu.put(x), draw, 0.4, 2.0)
    ours, our_mask, _ = check(gpu, gpu.put(x), x, draw, 0.4, 2.0)
    same_bits(gpu.get(y), gpu.get(ours))
    same_bits(gpu.get(mask), gpu.get(our_mask))
