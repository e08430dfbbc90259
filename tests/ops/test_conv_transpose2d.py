"""minidl.ops.conv_transpose2d against a loop that puts pixels down, conv2d's backward, output sizes, errors, memory layouts."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import LayerCase, uniform
from marks import on_host

import minidl.nn as nn
from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.conv2d import conv2d
from minidl.ops.conv_transpose2d import conv_transpose2d, conv_transpose2d_backward, window

ARRAYS = uniform((2, 4, 4, 3), (4, 3, 3, 3), (6,))
LAYER_CASES = {
    "conv_transpose2d": LayerCase(
        lambda F, x, w, b: F.conv_transpose2d(x, w, b, (3, 4), (1, 3), (2, 1), 2, (1, 2)),
        ARRAYS,
        module=lambda nn: nn.ConvTranspose2d(4, 6, 3, (3, 4), (1, 3), (2, 1), 2, dilation=(1, 2)),
    ),
    "conv_transpose2d no bias": LayerCase(
        lambda F, x, w: F.conv_transpose2d(x, w),
        ARRAYS[:2],
        module=lambda nn: nn.ConvTranspose2d(4, 3, 3, bias=False),
    ),
    "conv_transpose2d one image": LayerCase(
        lambda F, x, w: F.conv_transpose2d(x, w, stride=2, padding=1), uniform((4, 4, 3), (4, 3, 3, 3))
    ),
}

CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # sums of some 100 products of size about 1, in another order


def places(shape, kernel, stride, dilation):
    """For each pixel of x (N, C, H, W): where it is and the slices of the uncut output that its filter is put down on."""
    for at in np.ndindex(shape):
        yield (
            at,
            tuple(
                slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in zip(at[2:], stride, dilation, kernel, strict=True)
            ),
        )


def loop(x, w, b, gy, stride, padding, dilation, groups, out):
    """y, gx, gw, gb."""
    cg, og = x.shape[1] // groups, w.shape[1]
    reached = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], stride, dilation, w.shape[2:], strict=True)]
    size = [max(r, p + o) for r, p, o in zip(reached, padding, out, strict=True)]
    full, gfull = np.zeros((len(x), groups * og, *size)), np.zeros((len(x), groups * og, *size))
    inside = (..., *(slice(p, p + o) for p, o in zip(padding, out, strict=True)))
    gfull[inside] = gy
    gx, gw = np.zeros_like(x), np.zeros_like(w)
    for at, under in places(x.shape, w.shape[2:], stride, dilation):
        n, c = at[:2]
        there = (n, slice(c // cg * og, (c // cg + 1) * og), *under)
        full[there] += x[at] * w[c]
        gx[at] = (gfull[there] * w[c]).sum()
        gw[c] += x[at] * gfull[there]
    return full[inside] + b[:, None, None], gx, gw, gy.sum(axis=(0, 2, 3))


def check_against_a_loop(run, x, w, b, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)):
    y, gy, gradients = run(lambda *ts: conv_transpose2d(*ts, stride, padding, output_padding, groups, dilation), x, w, b)
    expected = loop(x, w, b, gy, stride, padding, dilation, groups, y.shape[2:])
    for got, wanted in zip((y, *gradients), expected, strict=True):
        np.testing.assert_allclose(got, wanted, **CLOSE)


# ------------------------------------------------------------------------------------------------------ against a loop


@st.composite
def sides(draw):
    """Size, kernel, stride, padding, dilation and output padding of one side, with an output of at least one pixel."""
    size, kernel, stride, dilation = (draw(st.integers(1, 4)) for _ in range(4))
    output_padding = draw(st.integers(0, max(stride, dilation) - 1))
    room = (size - 1) * stride + dilation * (kernel - 1) + output_padding
    return size, kernel, stride, draw(st.integers(0, min(room // 2, 4))), dilation, output_padding


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # none changes
@given(rows=sides(), columns=sides(), channels=st.tuples(*[st.integers(1, 2)] * 4))
def test_any_shape_against_a_loop(run, rows, columns, channels):
    size, kernel, stride, padding, dilation, output_padding = zip(rows, columns, strict=True)
    n, groups, cg, og = channels
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in ((n, groups * cg, *size), (groups * cg, og, *kernel), (groups * og,)))
    check_against_a_loop(run, x, w, b, stride, padding, output_padding, groups, dilation)


def test_what_no_filter_reaches_is_the_bias(run):
    """All of it here: the pixel's filter is cut off, and the output lies beyond."""
    x, w, b = np.ones((1, 1, 1, 1)), np.ones((1, 2, 1, 1)), np.array([3.0, -2.0])
    check_against_a_loop(run, x, w, b, (5, 5), (2, 2), (4, 4))
    y, _, (gx, gw, _) = run(lambda *ts: conv_transpose2d(*ts, 5, 2, 4), x, w, b)
    assert y.ravel().tolist() == [3, -2] and not gx.any() and not gw.any()


@pytest.mark.parametrize("setting", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2}])
def test_it_is_the_backward_of_conv2d(setting, device, rng):
    w = Tensor(rng.standard_normal((4, 4 // setting.get("groups", 1), 3, 3)), device=device)
    image = Tensor(rng.standard_normal((2, 4, 7, 9)), True, device)
    convolved = conv2d(image, w, **setting)
    gy = rng.standard_normal(convolved.shape)
    convolved.backward(gy)
    y = conv_transpose2d(Tensor(gy, device=device), w, **setting)
    np.testing.assert_allclose(y.numpy(), image.grad.numpy(), **CLOSE)


def test_one_image_without_a_batch_axis(run, rng):
    x, w, b = rng.standard_normal((3, 6, 5)), rng.standard_normal((3, 4, 3, 2)), rng.standard_normal(4)
    y, _, gradients = run(lambda *ts: conv_transpose2d(*ts, stride=2, padding=1), x, w, b)
    batched, _, batched_gradients = run(lambda *ts: conv_transpose2d(*ts, stride=2, padding=1), x[None], w, b)
    np.testing.assert_array_equal(y, batched[0])
    for got, expected in zip(gradients, batched_gradients, strict=True):
        np.testing.assert_array_equal(got, expected.reshape(got.shape))


@pytest.mark.parametrize("groups", [1, 2])
def test_empty_batch(groups, run):
    x, w, b = np.zeros((0, 4, 6, 5)), np.ones((4, 3, 3, 3)), np.ones(3 * groups)
    y, _, (gx, gw, gb) = run(lambda *ts: conv_transpose2d(*ts, groups=groups), x, w, b)
    assert y.shape == (0, 3 * groups, 8, 7) and gx.shape == x.shape
    assert not gw.any() and not gb.any()


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_backward_leaves_out_what_is_not_needed(needs):
    gy, x, w = np.ones((1, 4, 4, 2)), np.ones((1, 2, 2, 3)), np.ones((3, 3, 3, 2))
    gradients = conv_transpose2d_backward(gy, x, w, (1, 1), (0, 0), (1, 1), 1, needs)
    assert tuple(g is not None for g in gradients) == needs


def test_a_window_may_lie_beside_what_it_shows():
    x = np.arange(1.0, 7).reshape(1, 2, 3, 1)
    assert window(x, (0, 1), (2, 2))[0, :, :, 0].tolist() == [[2, 3], [5, 6]]
    assert window(x, (-1, 2), (3, 2))[0, :, :, 0].tolist() == [[0, 0], [3, 0], [6, 0]]
    assert not window(x, (2, 0), (2, 2)).any() and not window(x, (0, -5), (2, 2)).any()


# ----------------------------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize(
    ("size", "shape"), [(None, (9, 11)), ((9, 11), (9, 11)), ([10, 11], (10, 11)), ((2, 6, 9, 12), (9, 12))]
)
def test_output_size_chooses_the_output_padding(size, shape):
    layer, x = nn.ConvTranspose2d(4, 6, 3, 2, 1), Tensor(np.ones((2, 4, 5, 6), np.float32))
    assert layer(x, size).shape == (2, 6, *shape)
    assert layer(x[0], None if size is None else size[-2:]).shape == (6, *shape)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((11, 11), "output_size must be from [9, 11] to [10, 12], got (11, 11) (x (2, 4, 5, 6))"),
        ((9, 10), "output_size must be from [9, 11] to [10, 12], got (9, 10) (x (2, 4, 5, 6))"),
        ((10,), "output_size must be (OH, OW) or a shape of 4, got (10,)"),
        ((6, 10, 12), "output_size must be (OH, OW) or a shape of 4, got (6, 10, 12)"),
    ],
)
def test_output_sizes_that_no_output_padding_gives(size, text):
    with pytest.raises(ValueError, match=f"^{re.escape(f'ConvTranspose2d: {text}')}$"):
        nn.ConvTranspose2d(4, 6, 3, 2, 1)(Tensor(np.ones((2, 4, 5, 6), np.float32)), size)


@pytest.mark.parametrize("size", [(8, 11), (9, 11), (10, 12), (11, 11), (9, 13), (10,), (6, 10, 12), (2, 6, 9, 12)])
def test_pytorch_takes_the_same_output_sizes(size, torch):
    def outcome(nn, x):
        try:
            return tuple(nn.ConvTranspose2d(4, 6, 3, 2, 1)(x, size).shape)
        except ValueError:
            return "refused"

    assert outcome(nn, Tensor(np.ones((2, 4, 5, 6), np.float32))) == outcome(torch.nn, torch.ones(2, 4, 5, 6))


def initial_values_fill_the_range(module):
    layer = module(200, 64, 5, groups=2)
    bound = 1 / (32 * 25) ** 0.5  # the weight's second axis counts as its inputs, though it is the outputs'
    for values, filled in ((layer.weight, 0.999), (layer.bias, 0.8)):
        largest = float(abs(values.detach().numpy()).max())
        assert filled * bound < largest <= np.float32(bound)


def test_initial_values_have_pytorchs_range(torch):
    torch.manual_seed(0)
    initial_values_fill_the_range(torch.nn.ConvTranspose2d)


def test_initial_values():
    initial_values_fill_the_range(nn.ConvTranspose2d)
    assert is_channels_last(nn.ConvTranspose2d(6, 9, (3, 2), groups=3).weight.data)


MODULE_ERRORS = [
    ({"groups": 3}, ValueError, "in_channels must be divisible by groups, got 4 and 3"),
    ({"groups": 0}, ValueError, "groups must be an int of at least 1, got 0"),
    ({"padding_mode": "reflect"}, ValueError, "padding_mode must be 'zeros', got 'reflect'"),
    ({"padding": "same"}, TypeError, "padding must be an int or two ints, got 'same'"),
    ({"stride": 0}, RuntimeError, "stride must be at least 1, got 0"),
    ({"output_padding": -1}, RuntimeError, "output_padding must be at least 0, got -1"),
]


@pytest.mark.parametrize(("given", "error", "text"), MODULE_ERRORS)
def test_the_modules_errors(given, error, text):
    with pytest.raises(error, match=f"^{re.escape(f'ConvTranspose2d: {text}')}$"):
        nn.ConvTranspose2d(4, 6, 3, **given)


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "2 axes": ({"x": (3, 8)}, "x must be (C, H, W) or (N, C, H, W), got (3, 8)"),
    "weight of 3 axes": ({"w": (4, 3, 3)}, "weight must be (C, O / groups, KH, KW), got (4, 3, 3)"),
    "channels": ({"x": (1, 3, 5, 6)}, "weight takes 4 channels, x has 3 (x (1, 3, 5, 6), weight (4, 3, 3, 2))"),
    "groups": ({"groups": 3}, "channels must be divisible by groups, got 4 and 3 (x (1, 4, 5, 6), weight (4, 3, 3, 2))"),
    "groups 0": ({"groups": 0}, "groups must be an int of at least 1, got 0"),
    "bias": ({"b": (4,)}, "bias must be (3,), got (4,) (x (1, 4, 5, 6), weight (4, 3, 3, 2))"),
    "bias in groups": ({"groups": 2}, "bias must be (6,), got (3,) (x (1, 4, 5, 6), weight (4, 3, 3, 2))"),
    "stride 0": ({"stride": 0}, "stride must be at least 1, got 0"),
    "stride 1.5": ({"stride": 1.5}, "stride must be an int or two ints, got 1.5"),
    "padding -1": ({"padding": -1}, "padding must be at least 0, got -1"),
    "padding word": ({"padding": "same"}, "padding must be an int or two ints, got 'same'"),
    "dilation 0": ({"dilation": 0}, "dilation must be at least 1, got 0"),
    "output padding -1": ({"output_padding": -1}, "output_padding must be at least 0, got -1"),
    "output padding of a stride": (
        {"output_padding": (0, 2), "stride": 2},
        "output_padding must be smaller than stride or dilation, got output_padding (0, 2), stride (2, 2), dilation (1, 1)",
    ),
    "all is cut off": (
        {"padding": (4, 0)},
        "output size is too small: (-1, 7), got input (5, 6), kernel (3, 2), stride (1, 1), padding (4, 0), "
        "output_padding (0, 0), dilation (1, 1)",
    ),
    "no pixels": (
        {"x": (1, 4, 0, 6)},
        "output size is too small: (2, 7), got input (0, 6), kernel (3, 2), stride (1, 1), padding (0, 0), "
        "output_padding (0, 0), dilation (1, 1)",
    ),
}


def call(case, tensor, function):
    given = {"x": (1, 4, 5, 6), "w": (4, 3, 3, 2), "b": (3,), **ERRORS[case][0]}
    operands = [tensor(np.ones(given.pop(name))) for name in "xwb"]
    return function(*operands, **given)


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    with pytest.raises((RuntimeError, TypeError), match=f"^{re.escape(f'conv_transpose2d: {ERRORS[case][1]}')}$"):
        call(case, Tensor, conv_transpose2d)


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_pytorchs(case, torch):
    with pytest.raises((RuntimeError, TypeError)) as ours:
        call(case, Tensor, conv_transpose2d)
    with pytest.raises(ours.type):
        call(case, torch.tensor, torch.nn.functional.conv_transpose2d)


def test_all_operands_have_one_dtype(device):
    single, double = (Tensor(np.zeros((3, 3, 3, 3), dtype), device=device) for dtype in (np.float32, np.float64))
    with pytest.raises(RuntimeError, match=re.escape("conv_transpose2d: weight must have x's dtype float32, got float64")):
        conv_transpose2d(single, double)


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
@pytest.mark.parametrize("bias", [True, False])
def test_results_are_channels_last(bias, channels_last_leaf, rng):
    x, _, received = channels_last_leaf
    w = Tensor(rng.standard_normal((3, 4, 3, 3)), True, x.device)
    w.register_hook(lambda g: received.append(is_channels_last(g.data)))
    y = conv_transpose2d(x, w, Tensor(np.ones(4), device=x.device) if bias else None, stride=2, padding=1, output_padding=1)
    y.backward(np.ones(y.shape))
    assert is_channels_last(y.data) and received == [True, True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 5, 5), (3, 4, 3, 3), (4,)))
    y, _, gradients = run(conv_transpose2d, x, w, b)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)
