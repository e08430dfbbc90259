"""minidl.ops.avg_pool2d against a loop over windows, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import IMAGES, LayerCase

from minidl import Tensor, gradcheck
from minidl.device import memory_order
from minidl.layout import is_channels_last
from minidl.ops.avg_pool2d import avg_pool2d

LAYER_CASES = {
    "avg_pool2d": LayerCase(
        lambda F, x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        IMAGES,
        module=lambda nn: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    "avg_pool2d divisor": LayerCase(
        lambda F, x: F.avg_pool2d(x, 2, divisor_override=3), IMAGES, module=lambda nn: nn.AvgPool2d(2, divisor_override=3)
    ),
}

CLOSE = {"rtol": 1e-13, "atol": 1e-13}  # at most 16 terms of size about 1, added in another order

# x, kernel_size, settings
SETTINGS = {
    "stride is the kernel": ((2, 2, 6, 4), 2, {}),
    "windows overlap, odd sizes": ((2, 3, 7, 9), 3, {"stride": 2}),
    "columns left over": ((1, 2, 8, 9), 2, {"stride": (3, 4)}),
    "padding counts": ((2, 2, 5, 6), (3, 4), {"stride": 2, "padding": (1, 2)}),
    "padding does not count": ((2, 2, 5, 6), (3, 4), {"stride": 2, "padding": (1, 2), "count_include_pad": False}),
    "ceil_mode": ((1, 2, 6, 8), 3, {"stride": 2, "ceil_mode": True}),
    "ceil_mode and padding": ((1, 2, 6, 5), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil_mode, padding does not count": (
        (1, 2, 6, 5),
        3,
        {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    ),
    "divisor_override": ((1, 2, 5, 5), 3, {"stride": 2, "padding": 1, "divisor_override": 5}),
    "kernel = image": ((2, 3, 3, 4), (3, 4), {}),
}


def windows(size, kernel, stride, padding, ceil_mode):
    """Where the windows along one side start and end, in pixels of the image: the last one may hang over with ceil_mode."""
    starts = [-padding]
    while True:
        start = starts[-1] + stride
        reaches_the_end = starts[-1] + kernel >= size + padding
        if (reaches_the_end or start >= size) if ceil_mode else start + kernel > size + padding:
            return [(start, start + kernel) for start in starts]
        starts.append(start)


def loop(x, kernel, stride, padding, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """y, and for each output (i, j) what its sum is divided by and the slice of x under it."""
    h, w = x.shape[2:]
    rows, columns = (windows(*side, ceil_mode) for side in zip((h, w), kernel, stride, padding, strict=True))
    y, means = np.zeros((*x.shape[:2], len(rows), len(columns))), {}
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            ph, pw = padding if count_include_pad else (0, 0)
            m = divisor_override or (min(bottom, h + ph) - max(top, -ph)) * (min(right, w + pw) - max(left, -pw))
            under = (..., slice(max(top, 0), bottom), slice(max(left, 0), right))
            y[..., i, j], means[i, j] = x[under].sum(axis=(2, 3)) / m, (m, under)
    return y, means


def check_against_loops(run, x, kernel, stride=None, padding=0, **kwargs):
    pair = lambda v: v if isinstance(v, tuple) else (v, v)
    y, gy, (gx,) = run(lambda t: avg_pool2d(t, kernel, stride, padding, **kwargs), x)
    expected, means = loop(x, pair(kernel), pair(kernel if stride is None else stride), pair(padding), **kwargs)
    np.testing.assert_allclose(y, expected, **CLOSE)
    expected_gx = np.zeros_like(x)
    for (i, j), (m, under) in means.items():
        expected_gx[under] += gy[..., i, j][..., None, None] / m
    np.testing.assert_allclose(gx, expected_gx, **CLOSE)


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("setting", SETTINGS)
def test_forward_and_backward_against_a_loop(setting, run, rng):
    shape, kernel, kwargs = SETTINGS[setting]
    check_against_loops(run, rng.standard_normal(shape), kernel, **kwargs)


@st.composite
def sides(draw):
    """Size, kernel, stride and padding of one side, with room for a window."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = draw(st.integers(0, kernel // 2))
    return max(kernel - 2 * padding, 1) + draw(st.integers(0, 6)), kernel, stride, padding


@settings(max_examples=60)
@given(rows=sides(), columns=sides(), ceil_mode=st.booleans(), count_include_pad=st.booleans())
def test_any_shape_against_a_loop(run, rows, columns, ceil_mode, count_include_pad):
    size, *settings = zip(rows, columns, strict=True)
    x = np.random.default_rng(0).standard_normal((2, 2, *size))
    check_against_loops(run, x, *settings, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def test_what_counts_in_the_mean(device):
    x = Tensor(np.full((1, 1, 2, 2), 12.0), device=device)
    assert avg_pool2d(x, 2, padding=1).numpy().ravel().tolist() == [3, 3, 3, 3]
    assert avg_pool2d(x, 2, padding=1, count_include_pad=False).numpy().ravel().tolist() == [12, 12, 12, 12]
    assert avg_pool2d(x, 2, padding=1, divisor_override=3).numpy().ravel().tolist() == [4, 4, 4, 4]


def test_what_ceil_mode_hangs_over_never_counts(device):
    x = Tensor(np.full((1, 1, 1, 3), 6.0), device=device)
    assert avg_pool2d(x, (1, 2), ceil_mode=True).numpy().ravel().tolist() == [6, 6]


def test_nan_stays_in_its_windows(device):
    x = Tensor(np.array([np.nan, 1, 2, 4]).reshape(1, 1, 1, 4), device=device)
    np.testing.assert_array_equal(avg_pool2d(x, (1, 2), stride=1).numpy().ravel(), [np.nan, 1.5, 3])


def test_one_image_without_a_batch_axis(run, rng):
    x = rng.standard_normal((3, 7, 5))
    y, _, (gx,) = run(lambda t: avg_pool2d(t, 3, 2, 1), x)
    batched, _, (batched_gx,) = run(lambda t: avg_pool2d(t, 3, 2, 1), x[None])
    np.testing.assert_array_equal(y, batched[0])
    np.testing.assert_array_equal(gx, batched_gx[0])


def test_empty_batch(run):
    y, _, (gx,) = run(lambda t: avg_pool2d(t, 3, 2), np.zeros((0, 4, 7, 9)))
    assert y.shape == (0, 4, 3, 4) and gx.shape == (0, 4, 7, 9)


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradcheck(setting, leaves):
    shape, kernel, kwargs = SETTINGS[setting]
    gradcheck(lambda x: avg_pool2d(x, kernel, **kwargs), leaves(shape))


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    (
        {"x": (3, 8)},
        RuntimeError,
        "avg_pool2d: x must be floats of (C, H, W) or (N, C, H, W), got float64 (3, 8)",
    ),
    ({"kernel_size": (0, 1)}, RuntimeError, "avg_pool2d: kernel_size must be at least 1, got (0, 1)"),
    ({"kernel_size": "2"}, TypeError, "avg_pool2d: kernel_size must be an int or two ints, got '2'"),
    ({"stride": 0}, RuntimeError, "avg_pool2d: stride must be at least 1, got 0"),
    ({"padding": -1}, RuntimeError, "avg_pool2d: padding must be at least 0, got -1"),
    ({"divisor_override": 0}, RuntimeError, "avg_pool2d: divisor_override must not be 0, got 0"),
    (
        {"padding": 2},
        RuntimeError,
        "avg_pool2d: padding must be at most half the kernel, got padding (2, 2), kernel (3, 3)",
    ),
    (
        {"x": (2, 2, 8)},
        RuntimeError,
        "avg_pool2d: output size is too small: 0 along H, got input (2, 8), kernel (3, 3), stride (3, 3), padding (0, 0), "
        "dilation (1, 1)",
    ),
]


@pytest.mark.parametrize(("given", "error", "text"), ERRORS)
def test_errors(given, error, text, device):
    kwargs = {"x": (1, 2, 8, 8), "kernel_size": 3, **given}
    x = Tensor(np.zeros(kwargs.pop("x")), device=device)
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        avg_pool2d(x, **kwargs)


def test_only_floats_are_pooled(device):
    text = "avg_pool2d: x must be floats of (C, H, W) or (N, C, H, W), got int64 (1, 1, 4, 4)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        avg_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device), 2)


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("kwargs", [{"stride": 2}, {"stride": 2, "padding": 1, "ceil_mode": True}])
def test_memory_order_of_the_input_changes_nothing_and_results_are_channels_last(kwargs, arrange, device, rng):
    array = rng.standard_normal((2, 4, 6, 8))
    expected_x, x = Tensor(array, True, device), arrange(array)
    expected, y = avg_pool2d(expected_x, 3, **kwargs), avg_pool2d(x, 3, **kwargs)
    np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
    assert is_channels_last(y.data)
    received = []
    x.register_hook(lambda g: received.append(g.data))
    gy = arrange(rng.standard_normal(y.shape)).data
    y.backward(gy)
    expected.backward(np.ascontiguousarray(device.to_host(gy)))
    np.testing.assert_array_equal(x.grad.numpy(), expected_x.grad.numpy())
    assert memory_order(received[0]) == [0, 2, 3, 1]


def test_the_gradient_is_contiguous_where_windows_end_with_the_image(device):
    x, received = Tensor(np.ones((2, 3, 6, 6)), True, device), []
    x.register_hook(lambda g: received.append(is_channels_last(g.data)))
    avg_pool2d(x, 2).sum().backward()
    assert received == [True]


@pytest.mark.parametrize("kwargs", [{}, {"padding": 1, "count_include_pad": False}, {"divisor_override": 4}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, kwargs, run, rng):
    y, _, (gx,) = run(lambda t: avg_pool2d(t, 3, 2, **kwargs), rng.standard_normal((2, 3, 7, 7)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
