"""minidl.ops.max_pool2d against a loop over windows, ties, NaN, padding of -infinity, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import IMAGES, LayerCase

from minidl import Tensor, gradcheck
from minidl.device import memory_order
from minidl.layout import is_channels_last
from minidl.ops.max_pool2d import max_pool2d, max_pool2d_forward

LAYER_CASES = {
    "max_pool2d": LayerCase(
        lambda F, x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0), 2, ceil_mode=True),
        IMAGES,
        module=lambda nn: nn.MaxPool2d((3, 2), (2, 1), (1, 0), 2, ceil_mode=True),
    ),
    "max_pool2d padding": LayerCase(lambda F, x: F.max_pool2d(x, 3, 2, padding=1), IMAGES),
    "max_pool2d stride": LayerCase(lambda F, x: F.max_pool2d(x, 3), IMAGES, module=lambda nn: nn.MaxPool2d(3)),
    "max_pool2d ceil": LayerCase(lambda F, x: F.max_pool2d(x, 2, 2, ceil_mode=True), IMAGES),
    "max_pool2d indices": LayerCase(
        lambda F, x: F.max_pool2d(x, 3, 2, return_indices=True),
        IMAGES,
        module=lambda nn: nn.MaxPool2d(3, 2, return_indices=True),
    ),
}

# x, kernel_size, settings
SETTINGS = {
    "AlexNet, windows overlap": ((2, 3, 7, 9), 3, {"stride": 2}),
    "stride is the kernel": ((2, 2, 6, 4), 2, {}),
    "odd sizes": ((1, 2, 7, 5), (2, 3), {}),
    "columns left over": ((1, 2, 8, 9), 2, {"stride": (3, 4)}),
    "padding": ((2, 2, 5, 6), (3, 4), {"stride": 2, "padding": (1, 2)}),
    "dilation": ((1, 2, 7, 8), 2, {"stride": 1, "dilation": (3, 2)}),
    "dilation and padding": ((1, 2, 6, 6), 3, {"stride": 2, "dilation": 2, "padding": 1}),
    "ceil_mode": ((1, 2, 6, 8), 3, {"stride": 2, "ceil_mode": True}),
    "ceil_mode, last window would start in the padding": ((1, 1, 3, 3), 2, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil_mode, stride over kernel": ((1, 1, 5, 7), 1, {"stride": 3, "ceil_mode": True}),
    "kernel = image": ((2, 3, 3, 4), (3, 4), {}),
}


def out_size(n, k, s, p, d, ceil_mode):
    """Count the windows: further ones must fit; with ceil_mode while the last one does not reach the end, and the next one
    starts in the image or in the padding before it."""
    out, span = 1, d * (k - 1) + 1
    while (out * s < n + p and (out - 1) * s + span < n + 2 * p) if ceil_mode else out * s + span <= n + 2 * p:
        out += 1
    return out


def loop(x, kernel, stride, padding, dilation, ceil_mode):
    """y and, for each output, the row and column of the first largest pixel (of the last NaN if there is one)."""
    n, c, *size = x.shape
    out = [out_size(*sides, ceil_mode) for sides in zip(size, kernel, stride, padding, dilation, strict=True)]
    y, winner = np.full((n, c, *out), -np.inf, x.dtype), np.zeros((n, c, *out, 2), int)
    for image, channel, i, j in np.ndindex(y.shape):
        at = (image, channel, i, j)
        for u, v in np.ndindex(*kernel):
            h, w = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[1]
            inside = 0 <= h < size[0] and 0 <= w < size[1]
            if inside and not x[image, channel, h, w] <= y[at]:
                y[at], winner[at] = x[image, channel, h, w], (h, w)
    return y, winner


def loop_backward(gy, winner, x_shape):
    gx = np.zeros(x_shape)
    for at in np.ndindex(gy.shape):
        gx[(*at[:2], *winner[at])] += gy[at]
    return gx


def check_against_loops(run, x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    pair = lambda v: v if isinstance(v, tuple) else (v, v)
    y, gy, (gx,) = run(lambda t: max_pool2d(t, kernel, stride, padding, dilation, ceil_mode), x)
    strides = pair(kernel if stride is None else stride)
    expected, winner = loop(x, pair(kernel), strides, pair(padding), pair(dilation), ceil_mode)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gx, loop_backward(gy, winner, x.shape), rtol=1e-14)  # up to 9 terms in another order


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("setting", SETTINGS)
def test_forward_and_backward_against_a_loop(setting, run, rng):
    shape, kernel, kwargs = SETTINGS[setting]
    check_against_loops(run, rng.standard_normal(shape), kernel, **kwargs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_ties_against_a_loop(setting, run, rng):
    """Few different values, as after a ReLU: most windows have ties."""
    shape, kernel, kwargs = SETTINGS[setting]
    check_against_loops(run, rng.integers(0, 3, shape).astype(np.float64), kernel, **kwargs)


@st.composite
def sides(draw):
    """Size, kernel, stride, padding and dilation of one side: room for a window at least, one of whose pixels is no padding."""
    kernel, stride, dilation = (draw(st.integers(1, most)) for most in (4, 4, 2))
    padding = draw(st.integers(0, kernel // 2)) if dilation == 1 else 0
    size = max(dilation * (kernel - 1) + 1 - 2 * padding, 1) + draw(st.integers(0, 6))
    return size, kernel, stride, padding, dilation


@settings(max_examples=60)
@given(rows=sides(), columns=sides(), ceil_mode=st.booleans(), ties=st.booleans())
def test_any_shape_against_a_loop(run, rows, columns, ceil_mode, ties):
    size, *settings = zip(rows, columns, strict=True)
    rng, shape = np.random.default_rng(0), (2, 2, *size)
    x = rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)
    check_against_loops(run, x, *settings, ceil_mode)


def test_the_first_of_tied_pixels_in_row_major_order_wins(run):
    x = np.array([[1.0, 5.0, 0.0], [5.0, 5.0, 2.0]]).reshape(1, 1, 2, 3)
    y, gy, (gx,) = run(lambda t: max_pool2d(t, 2, stride=1), x)
    assert y.ravel().tolist() == [5, 5]
    assert gx.reshape(2, 3).tolist() == [[0, gy.sum(), 0], [0, 0, 0]]  # the upper right of one, the upper left of the other


def test_padding_is_minus_infinity_not_zero(run):
    x = -np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    y, gy, (gx,) = run(lambda t: max_pool2d(t, 3, stride=2, padding=1), x)
    assert y.reshape(2, 2).tolist() == [[-1, -2], [-4, -5]]
    assert gx.sum() == gy.sum() and np.count_nonzero(gx) == 4


def test_a_window_of_minus_infinities_passes_the_gradient_to_its_first_pixel(run):
    x = np.full((1, 1, 2, 2), -np.inf)
    y, gy, (gx,) = run(lambda t: max_pool2d(t, 2, stride=2, padding=1), x)
    assert np.isneginf(y).all()
    np.testing.assert_array_equal(gx, gy)


def test_nan_in_a_window_is_its_largest(run):
    x = np.array([[1.0, np.nan, 3.0, 4.0, 9.0]]).reshape(1, 1, 1, 5)
    y, gy, (gx,) = run(lambda t: max_pool2d(t, (1, 2), stride=1), x)
    np.testing.assert_array_equal(y.ravel(), [np.nan, np.nan, 4, 9])
    np.testing.assert_array_equal(gx.ravel(), [0, gy.ravel()[:2].sum(), 0, gy.ravel()[2], gy.ravel()[3]])


@pytest.mark.parametrize("kwargs", [{}, {"padding": 1, "ceil_mode": True}])
def test_indices_are_the_winners_positions(kwargs, device, rng):
    x = rng.standard_normal((2, 3, 7, 6))
    y, indices = max_pool2d(Tensor(x, True, device), 3, stride=2, return_indices=True, **kwargs)
    _, winner = loop(x, (3, 3), (2, 2), (kwargs.get("padding", 0),) * 2, (1, 1), kwargs.get("ceil_mode", False))
    assert indices.dtype == np.int64 and not indices.requires_grad and y.requires_grad
    np.testing.assert_array_equal(indices.numpy(), winner[..., 0] * 6 + winner[..., 1])


def test_one_image_without_a_batch_axis(run, device, rng):
    x = rng.standard_normal((3, 7, 5))
    y, _, (gx,) = run(lambda t: max_pool2d(t, 3, 2), x)
    batched, _, (batched_gx,) = run(lambda t: max_pool2d(t, 3, 2), x[None])
    np.testing.assert_array_equal(y, batched[0])
    np.testing.assert_array_equal(gx, batched_gx[0])
    pair = max_pool2d(Tensor(x, device=device), 3, 2, return_indices=True)
    assert [t.shape for t in pair] == [(3, 3, 2), (3, 3, 2)]


def test_empty_batch(run):
    y, _, (gx,) = run(lambda t: max_pool2d(t, 3, 2), np.zeros((0, 4, 7, 9)))
    assert y.shape == (0, 4, 3, 4) and gx.shape == (0, 4, 7, 9)


@pytest.mark.parametrize(("kernel", "dtype"), [(16, np.uint8), (17, np.int32)])
def test_the_winner_is_one_byte_while_256_window_elements_allow_it(kernel, dtype):
    x = np.arange(17.0 * 17).reshape(1, 17, 17, 1)  # the last pixel of each window wins
    _, argmax = max_pool2d_forward(x, (kernel, kernel), (1, 1), (0, 0), (1, 1), (18 - kernel, 18 - kernel))
    assert argmax.dtype == dtype
    assert (argmax == kernel * kernel - 1).all()


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradcheck(setting, leaves):
    shape, kernel, kwargs = SETTINGS[setting]
    gradcheck(lambda x: max_pool2d(x, kernel, **kwargs), leaves(shape))


def test_gradcheck_of_all_negative_pixels_with_padding(device, rng):
    x = Tensor(-1 - rng.random((1, 2, 5, 5)), True, device)
    gradcheck(lambda x: max_pool2d(x, 3, 2, padding=1), [x])


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    (
        {"x": (3, 8)},
        RuntimeError,
        "max_pool2d: x must be floats of (C, H, W) or (N, C, H, W), got float64 (3, 8)",
    ),
    ({"kernel_size": 0}, RuntimeError, "max_pool2d: kernel_size must be at least 1, got 0"),
    ({"kernel_size": 2.0}, TypeError, "max_pool2d: kernel_size must be an int or two ints, got 2.0"),
    ({"stride": (0, 1)}, RuntimeError, "max_pool2d: stride must be at least 1, got (0, 1)"),
    ({"padding": -1}, RuntimeError, "max_pool2d: padding must be at least 0, got -1"),
    ({"dilation": 0}, RuntimeError, "max_pool2d: dilation must be at least 1, got 0"),
    (
        {"padding": (1, 2)},
        RuntimeError,
        "max_pool2d: padding must be at most half the kernel, got padding (1, 2), kernel (3, 3)",
    ),
    (
        {"x": (1, 1, 4, 2)},
        RuntimeError,
        "max_pool2d: output size is too small: 0 along W, got input (4, 2), kernel (3, 3), stride (3, 3), padding (0, 0), "
        "dilation (1, 1)",
    ),
]


@pytest.mark.parametrize(("given", "error", "text"), ERRORS)
def test_errors(given, error, text, device):
    kwargs = {"x": (1, 2, 8, 8), "kernel_size": 3, **given}
    x = Tensor(np.zeros(kwargs.pop("x")), device=device)
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        max_pool2d(x, **kwargs)


def test_only_floats_are_pooled(device):
    text = "max_pool2d: x must be floats of (C, H, W) or (N, C, H, W), got int64 (1, 1, 4, 4)"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        max_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device), 2)


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("kwargs", [{"stride": 2}, {"stride": 2, "padding": 1, "ceil_mode": True}])
def test_memory_order_of_the_input_changes_nothing_and_results_are_channels_last(kwargs, arrange, device, rng):
    array = rng.integers(-3, 3, (2, 4, 6, 8)).astype(np.float64)
    expected_x, x = Tensor(array, True, device), arrange(array)
    expected, y = max_pool2d(expected_x, 3, **kwargs), max_pool2d(x, 3, **kwargs)
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
    max_pool2d(x, 2).sum().backward()
    assert received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x = rng.standard_normal((2, 3, 7, 7)).astype(dtype)
    y, _, (gx,) = run(lambda t: max_pool2d(t, 3, 2), x)
    assert y.dtype == gx.dtype == dtype
    np.testing.assert_array_equal(y, loop(x, (3, 3), (2, 2), (0, 0), (1, 1), False)[0])
