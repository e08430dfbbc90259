"""minidl.ops.local2d against conv2d at each pixel, PyTorch's unfold and einsum, errors, memory layouts, initial values."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import LayerCase, uniform
from marks import on_host

import minidl.nn as nn
from minidl import Tensor, manual_seed
from minidl.layout import is_channels_last
from minidl.ops.conv2d import conv2d
from minidl.ops.local2d import local2d, local2d_backward

ARRAYS = uniform((2, 4, 5, 4), (6, 2, 3, 3, 2, 4), (6, 2, 4))


def unfolded(F, x, w, b=None, stride=1, padding=0, groups=1):
    """In PyTorch, which has no such layer: patches, and a sum over each with its own filters."""
    import torch

    filters, channels, kh, kw, oh, ow = w.shape
    col = F.unfold(x, (kh, kw), padding=padding, stride=stride).reshape(len(x), groups, channels * kh * kw, oh, ow)
    by_group = w.reshape(groups, filters // groups, channels * kh * kw, oh, ow)
    y = torch.einsum("ngkij,gokij->ngoij", col, by_group).reshape(len(x), filters, oh, ow)
    return y if b is None else y + b


LAYER_CASES = {
    "local2d": LayerCase(
        lambda F, x, w, b: F.local2d(x, w, b, (3, 1), (1, 1), 2),
        ARRAYS,
        module=lambda nn: nn.Local2d(4, 6, (5, 4), 3, (3, 1), 1, 2),
        theirs=lambda F, x, w, b: unfolded(F, x, w, b, (3, 1), (1, 1), 2),
    ),
    "local2d no bias": LayerCase(
        lambda F, x, w: F.local2d(x, w),
        uniform((2, 3, 4, 5), (2, 3, 2, 3, 3, 3)),
        module=lambda nn: nn.Local2d(3, 2, (4, 5), (2, 3), bias=False),
        theirs=unfolded,
    ),
    "local2d one image": LayerCase(
        lambda F, x, w: F.local2d(x, w, padding="same"),
        uniform((3, 4, 3), (2, 3, 3, 3, 4, 3)),
        theirs=lambda F, x, w: unfolded(F, x[None], w, padding=1)[0],
    ),
}

CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # sums of some 50 products of size about 1, in another order


# ------------------------------------------------------------------------------------------------- against convolutions


def check_against_conv2d(run, x, w, b, **kwargs):
    """Pixel (i, j) is what a conv2d with filters w[..., i, j] has there; so are the gradients."""
    y, gy, gradients = run(lambda *ts: local2d(*ts, **kwargs), x, w, b)
    expected = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for i, j in np.ndindex(y.shape[2:]):
        image, filters, biases = (Tensor(a, requires_grad=True) for a in (x, w[..., i, j], b[..., i, j]))
        shared = conv2d(image, filters, biases, **kwargs)
        np.testing.assert_allclose(y[..., i, j], shared.detach().numpy()[..., i, j], **CLOSE)
        only = np.zeros_like(gy)
        only[..., i, j] = gy[..., i, j]
        shared.backward(only)
        expected[0][...] += image.grad.data
        expected[1][..., i, j], expected[2][..., i, j] = filters.grad.data, biases.grad.data
    for got, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(got, wanted, **CLOSE)


@st.composite
def sides(draw):
    """Size, kernel, stride and padding of one side, with room for a patch, and how many patches there are."""
    kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    size = max(kernel - 2 * padding, 1) + draw(st.integers(0, 4))
    return size, kernel, stride, padding, (size + 2 * padding - kernel) // stride + 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # none changes
@given(rows=sides(), columns=sides(), channels=st.tuples(*[st.integers(1, 2)] * 4))
def test_any_shape_is_conv2d_at_each_pixel(run, rows, columns, channels):
    size, kernel, stride, padding, out = zip(rows, columns, strict=True)
    n, groups, cg, og = channels
    rng = np.random.default_rng(0)
    shapes = (n, groups * cg, *size), (groups * og, cg, *kernel, *out), (groups * og, *out)
    x, w, b = (rng.standard_normal(shape) for shape in shapes)
    check_against_conv2d(run, x, w, b, stride=stride, padding=padding, groups=groups)


def test_empty_batch(run):
    x, w, b = np.zeros((0, 4, 5, 4)), *ARRAYS[1:]
    y, _, (gx, gw, gb) = run(lambda *ts: local2d(*ts, stride=(3, 1), padding=1, groups=2), x, w, b)
    assert y.shape == (0, 6, 2, 4) and gx.shape == x.shape
    assert not gw.any() and not gb.any()


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_backward_leaves_out_what_is_not_needed(needs):
    gy, x, w = np.ones((1, 2, 2, 3)), np.ones((1, 4, 4, 2)), np.ones((2, 2, 3, 3, 3, 2))
    gradients = local2d_backward(gy, x, w, (1, 1), ((0, 0), (0, 0)), 1, needs)
    assert tuple(g is not None for g in gradients) == needs


# ----------------------------------------------------------------------------------------------------------- the module


def test_initial_values_fill_conv2ds_range():
    layer = nn.Local2d(16, 32, 12, 5, groups=2)
    bound = 1 / (8 * 25) ** 0.5
    for values, filled in ((layer.weight.data, 0.999), (layer.bias.data, 0.99)):  # 409,600 and 2,048 numbers
        assert filled * bound < values.max() <= np.float32(bound)
        assert filled * bound < -values.min() <= np.float32(bound)
    before = layer.weight.data.copy()
    layer.reset_parameters()
    assert (layer.weight.data != before).any()


def test_devices_dtypes_and_memory():
    manual_seed(5)
    exact = nn.Local2d(2, 4, (5, 6), (3, 2), dtype="float64")
    manual_seed(5)
    layer = nn.Local2d(2, 4, (5, 6), (3, 2), device="cpu:1")
    assert layer.weight.shape == (4, 2, 3, 2, 3, 5) and layer.bias.shape == (4, 3, 5)
    for ours, wide in zip(layer.parameters(), exact.parameters(), strict=True):
        assert str(ours.device) == "cpu:1" and wide.dtype == np.float64
        np.testing.assert_array_equal(ours.data, wide.data.astype(np.float32))
    assert layer.weight.data.transpose(4, 5, 0, 2, 3, 1).flags.c_contiguous  # (OH, OW, O, KH, KW, C/groups)


def test_repr():
    assert repr(nn.Local2d(4, 6, 5, 3)) == "Local2d(4, 6, input_size=(5, 5), kernel_size=(3, 3), stride=(1, 1))"
    assert repr(nn.Local2d(4, 6, (5, 7), 3, 2, 1, 2, False)) == (
        "Local2d(4, 6, input_size=(5, 7), kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=2, bias=False)"
    )


MODULE_ERRORS = [
    ({"groups": 3}, ValueError, "in_channels must be divisible by groups, got 4 and 3"),
    ({"padding": "full"}, RuntimeError, "padding must be an int, two ints, 'valid' or 'same', got 'full'"),
    ({"input_size": 0}, RuntimeError, "input_size must be at least 1, got 0"),
    ({"stride": 0}, RuntimeError, "stride must be at least 1, got 0"),
    (
        {"input_size": (2, 5)},
        RuntimeError,
        "kernel spans 3 along H, padded input has 2, got kernel (3, 3), dilation (1, 1), input (2, 5), "
        "padding ((0, 0), (0, 0))",
    ),
]


@pytest.mark.parametrize(("given", "error", "text"), MODULE_ERRORS)
def test_the_modules_errors(given, error, text):
    with pytest.raises(error, match=f"^{re.escape(f'Local2d: {text}')}$"):
        nn.Local2d(4, 6, **{"input_size": 5, "kernel_size": 3, **given})


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    ({"x": (5, 5)}, "x must be (C, H, W) or (N, C, H, W), got (5, 5)"),
    ({"w": (2, 3, 3, 3)}, "weight must be (O, C / groups, KH, KW, OH, OW), got (2, 3, 3, 3)"),
    ({"x": (1, 4, 5, 5)}, "weight takes 3 x 1 group = 3 channels, x has 4 (x (1, 4, 5, 5), weight (2, 3, 3, 3))"),
    (
        {"padding": 1},
        "weight has filters for (3, 3) pixels, the output has (5, 5) (x (1, 3, 5, 5), weight (2, 3, 3, 3, 3, 3))",
    ),
    ({"b": (2,)}, "bias must be (2, 3, 3), got (2,) (weight (2, 3, 3, 3, 3, 3))"),
    ({"stride": 0}, "stride must be at least 1, got 0"),
    ({"padding": -1}, "padding must be at least 0, got -1"),
]


@pytest.mark.parametrize(("given", "text"), ERRORS)
def test_errors(given, text, device):
    given = {"x": (1, 3, 5, 5), "w": (2, 3, 3, 3, 3, 3), "b": (2, 3, 3), **given}
    operands = [Tensor(np.ones(given.pop(name)), device=device) for name in "xwb"]
    with pytest.raises(RuntimeError, match=f"^{re.escape(f'local2d: {text}')}$"):
        local2d(*operands, **given)


def test_all_operands_have_one_dtype(device):
    x = Tensor(np.ones((1, 3, 5, 5)), device=device)
    w = Tensor(np.ones((2, 3, 3, 3, 3, 3), np.float32), device=device)
    with pytest.raises(RuntimeError, match=r"^local2d: weight must have x's dtype float64, got float32$"):
        local2d(x, w)


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_results_are_channels_last(channels_last_leaf, rng):
    x, _, received = channels_last_leaf
    w = Tensor(rng.standard_normal((2, 3, 2, 2, 3, 4)), device=x.device)
    y = local2d(x, w)
    y.backward(np.ones(y.shape))
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run):
    arrays = [a.astype(dtype) for a in ARRAYS]
    y, _, gradients = run(lambda *ts: local2d(*ts, stride=(3, 1), padding=1, groups=2), *arrays)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)
