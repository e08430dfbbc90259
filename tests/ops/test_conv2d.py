"""minidl.ops.conv2d against a loop over output pixels, gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import LayerCase, uniform

import minidl
import minidl.ops.conv2d as conv2d_module
from minidl import Tensor, gradcheck
from minidl.device import memory_order
from minidl.layout import is_channels_last
from minidl.ops.conv2d import col2im, conv2d, conv2d_backward, im2col, pad_images
from minidl.ops.linear import linear

CONV = [*uniform((2, 4, 7, 6), (6, 2, 3, 3)), *uniform((6,))]
LAYER_CASES = {
    "conv2d": LayerCase(
        lambda F, x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=2),
        CONV,
        module=lambda nn: nn.Conv2d(4, 6, 3, (2, 1), (1, 2), (1, 3), 2),
    ),
    "conv2d dilated": LayerCase(
        lambda F, x, w: F.conv2d(x, w, dilation=2, padding="same", groups=2),
        CONV[:2],
        module=lambda nn: nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2, bias=False),
    ),
    "conv2d no bias, no padding": LayerCase(lambda F, x, w: F.conv2d(x, w, groups=2), CONV[:2]),
    "conv2d one image": LayerCase(lambda F, x, w: F.conv2d(x, w), uniform((2, 7, 6), (6, 2, 3, 3))),
}

# A sum of up to 400 products of size about 1, added in another order: error below 400 * 400 * 2^-53 = 2e-11 at the very
# worst, and its square root in practice.
CLOSE = {"rtol": 1e-11, "atol": 1e-11}

# x, weight, settings, ((top, bottom), (left, right)) that the padding stands for
SETTINGS = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}, ((0, 0), (0, 0))),
    "odd sizes": ((2, 3, 7, 5), (4, 3, 3, 2), {}, ((0, 0), (0, 0))),
    "stride leaves columns over": ((2, 2, 8, 9), (3, 2, 3, 3), {"stride": (2, 4)}, ((0, 0), (0, 0))),
    "stride over kernel": ((1, 2, 7, 7), (3, 2, 2, 2), {"stride": 3}, ((0, 0), (0, 0))),
    "padding": ((2, 2, 4, 5), (3, 2, 3, 3), {"padding": (2, 1)}, ((2, 2), (1, 1))),
    "padding and stride": ((1, 2, 5, 6), (2, 2, 3, 3), {"padding": 1, "stride": 2}, ((1, 1), (1, 1))),
    "dilation": ((1, 2, 7, 8), (3, 2, 2, 3), {"dilation": (3, 2)}, ((0, 0), (0, 0))),
    "dilation, padding and stride": ((2, 2, 7, 7), (2, 2, 3, 3), {"dilation": 2, "padding": 2, "stride": 3}, ((2, 2), (2, 2))),
    "groups": ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2}, ((0, 0), (0, 0))),
    "groups = channels": ((2, 3, 5, 4), (3, 1, 3, 3), {"groups": 3, "padding": 1}, ((1, 1), (1, 1))),
    "groups = channels, two filters each": ((1, 3, 4, 4), (6, 1, 2, 2), {"groups": 3}, ((0, 0), (0, 0))),
    "nine images, worked on a few at a time": ((9, 4, 3, 4), (6, 2, 2, 3), {"groups": 2, "padding": 1}, ((1, 1), (1, 1))),
    "valid": ((1, 2, 4, 5), (3, 2, 2, 2), {"padding": "valid"}, ((0, 0), (0, 0))),
    "same, even kernel": ((1, 2, 4, 5), (3, 2, 2, 4), {"padding": "same"}, ((0, 1), (1, 2))),
    "same, dilation": ((1, 1, 5, 5), (2, 1, 3, 2), {"padding": "same", "dilation": 3}, ((3, 3), (1, 2))),
    "kernel = image": ((3, 2, 4, 3), (5, 2, 4, 3), {}, ((0, 0), (0, 0))),
    "conv1 of AlexNet, cropped": ((1, 3, 20, 23), (2, 3, 11, 11), {"stride": 4, "padding": 2}, ((2, 2), (2, 2))),
}


def pairs(kwargs):
    stride, dilation = kwargs.get("stride", 1), kwargs.get("dilation", 1)
    as_pair = lambda v: v if isinstance(v, tuple) else (v, v)
    return as_pair(stride), as_pair(dilation), kwargs.get("groups", 1)


def patches(x_shape, w_shape, pads, stride, dilation, groups):
    """For every output (n, o, i, j): itself and the slice of the padded image under it."""
    n, _, *size = x_shape
    o, cg, *kernel = w_shape
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = [(m + sum(p) - k) // s + 1 for m, p, k, s in zip(size, pads, span, stride, strict=True)]
    for at in np.ndindex(n, o, *out):
        first = at[1] // (o // groups) * cg  # the first channel of this filter's group
        sides = [slice(i * s, i * s + k, d) for i, s, k, d in zip(at[2:], stride, span, dilation, strict=True)]
        yield at, (at[0], slice(first, first + cg), *sides)


def loop_forward(x, w, b, pads, kwargs):
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    values = {at: (padded[under] * w[at[1]]).sum() + b[at[1]] for at, under in patches(x.shape, w.shape, pads, *pairs(kwargs))}
    shape = np.max(list(values), axis=0) + 1
    return np.array(list(values.values())).reshape(shape)


def loop_backward(gy, x, w, pads, kwargs):
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    gx, gw = np.zeros_like(padded), np.zeros_like(w)
    for at, under in patches(x.shape, w.shape, pads, *pairs(kwargs)):
        gx[under] += gy[at] * w[at[1]]
        gw[at[1]] += gy[at] * padded[under]
    (top, _), (left, _) = pads
    return gx[:, :, top : top + x.shape[2], left : left + x.shape[3]], gw, gy.sum(axis=(0, 2, 3))


def check_against_loops(run, rng, x_shape, w_shape, kwargs, pads):
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[:1]))
    y, gy, gradients = run(lambda *tensors: conv2d(*tensors, **kwargs), x, w, b)
    np.testing.assert_allclose(y, loop_forward(x, w, b, pads, kwargs), **CLOSE)
    for got, expected in zip(gradients, loop_backward(gy, x, w, pads, kwargs), strict=True):
        np.testing.assert_allclose(got, expected, **CLOSE)


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("setting", SETTINGS)
def test_forward_and_backward_against_loops(setting, run, rng):
    x_shape, w_shape, kwargs, pads = SETTINGS[setting]
    check_against_loops(run, rng, x_shape, w_shape, kwargs, pads)


@st.composite
def sides(draw):
    """Size, kernel, stride, padding and dilation of one side, with room for a patch."""
    kernel, stride, dilation = (draw(st.integers(1, 3)) for _ in range(3))
    padding = draw(st.integers(0, 2))
    size = max(dilation * (kernel - 1) + 1 - 2 * padding, 1) + draw(st.integers(0, 4))
    return size, kernel, stride, padding, dilation


@settings(max_examples=60)
@given(rows=sides(), columns=sides(), channels=st.tuples(*[st.integers(1, 2)] * 4))
def test_any_shape_against_loops(run, rows, columns, channels):
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    n, groups, cg, og = channels
    kwargs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x_shape, w_shape = (n, groups * cg, *size), (groups * og, cg, *kernel)
    check_against_loops(run, np.random.default_rng(0), x_shape, w_shape, kwargs, [(p, p) for p in padding])


def test_without_bias(run, rng):
    x, w = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 3, 3, 2))
    y, gy, (gx, gw) = run(conv2d, x, w)
    pads = ((0, 0), (0, 0))
    np.testing.assert_allclose(y, loop_forward(x, w, np.zeros(4), pads, {}), **CLOSE)
    expected_gx, expected_gw, _ = loop_backward(gy, x, w, pads, {})
    np.testing.assert_allclose(gx, expected_gx, **CLOSE)
    np.testing.assert_allclose(gw, expected_gw, **CLOSE)


def test_the_kernel_is_not_flipped(device):
    """Cross-correlation: a kernel that is 1 at its right end takes the pixel to the right."""
    x = Tensor(np.arange(5.0).reshape(1, 1, 1, 5), device=device)
    w = Tensor(np.array([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3), device=device)
    assert conv2d(x, w).numpy().tolist() == [[[[2.0, 3.0, 4.0]]]]


def test_one_image_without_a_batch_axis(run, rng):
    x, w, b = rng.standard_normal((3, 6, 5)), rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(4)
    y, _, gradients = run(lambda *tensors: conv2d(*tensors, stride=2, padding=1), x, w, b)
    batched, _, batched_gradients = run(lambda *tensors: conv2d(*tensors, stride=2, padding=1), x[None], w, b)
    assert y.shape == (4, 3, 3)
    np.testing.assert_array_equal(y, batched[0])
    for got, expected in zip(gradients, batched_gradients, strict=True):
        np.testing.assert_array_equal(got, expected.reshape(got.shape))


@pytest.mark.parametrize("groups", [1, 2])
def test_empty_batch(groups, run):
    x, w, b = np.zeros((0, 4, 6, 5)), np.ones((2, 4 // groups, 3, 3)), np.ones(2)
    y, _, (gx, gw, gb) = run(lambda *tensors: conv2d(*tensors, padding=1, groups=groups), x, w, b)
    assert y.shape == (0, 2, 6, 5) and gx.shape == x.shape
    assert not gw.any() and not gb.any()


def test_groups_are_a_dense_convolution_with_a_block_diagonal_weight(run, rng):
    x, w, b = rng.standard_normal((2, 6, 5, 5)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    dense = np.zeros((4, 6, 3, 3))
    dense[:2, :3], dense[2:, 3:] = w[:2], w[2:]
    y, _, (gx, gw, gb) = run(lambda *tensors: conv2d(*tensors, padding=1, groups=2), x, w, b)
    y_dense, _, (gx_dense, gw_dense, gb_dense) = run(lambda *tensors: conv2d(*tensors, padding=1), x, dense, b)
    np.testing.assert_allclose(y, y_dense, **CLOSE)
    np.testing.assert_allclose(gx, gx_dense, **CLOSE)
    np.testing.assert_allclose(gw, np.concatenate([gw_dense[:2, :3], gw_dense[2:, 3:]]), **CLOSE)
    np.testing.assert_allclose(gb, gb_dense, **CLOSE)


def test_a_fully_connected_layer_is_a_convolution_with_a_kernel_as_large_as_its_input(run, rng):
    """AlexNet's fc6 is a 6x6 convolution: the same numbers in the same order as flatten and linear."""
    x, w, b = rng.standard_normal((3, 4, 6, 6)), rng.standard_normal((5, 4, 6, 6)), rng.standard_normal(5)
    y, _, gradients = run(conv2d, x, w, b)
    fc = lambda x, w, b: linear(x.flatten(1), w.flatten(1), b).reshape(3, 5, 1, 1)
    y_fc, _, gradients_fc = run(fc, x, w, b)
    np.testing.assert_allclose(y, y_fc, **CLOSE)
    for got, expected in zip(gradients, gradients_fc, strict=True):
        np.testing.assert_allclose(got, expected, **CLOSE)


def test_im2col_copies_nothing_and_col2im_adds_where_patches_overlap():
    x = np.arange(4.0).reshape(1, 1, 4, 1)
    col = im2col(x, (1, 3), (1, 1), (1, 1))
    assert np.shares_memory(col, x)
    assert col.reshape(2, 3).tolist() == [[0, 1, 2], [1, 2, 3]]
    assert col2im(np.ones_like(col), x.shape, (1, 1), (1, 1)).ravel().tolist() == [1, 2, 2, 1]


def test_pad_images_takes_another_value_and_adds_nothing_for_no_padding():
    x = np.ones((1, 1, 1, 1))
    assert pad_images(x, ((0, 0), (0, 0))) is x
    assert pad_images(x, ((1, 0), (0, 2)), -3.0).reshape(2, 3).tolist() == [[-3, -3, -3], [1, -3, -3]]


def test_gradients_that_nobody_needs_are_not_computed(device, rng, monkeypatch):
    def refuse(*args):
        raise AssertionError("col2im ran although the images need no gradient")

    monkeypatch.setattr(conv2d_module, "col2im", refuse)
    x = Tensor(rng.standard_normal((1, 2, 4, 4)), device=device)
    w = Tensor(rng.standard_normal((3, 2, 3, 3)), True, device)
    with minidl.plain_kernels():
        conv2d(x, w).sum().backward()
    assert w.grad is not None and x.grad is None


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_plain_backward_leaves_out_what_is_not_needed(needs):
    gy, x, w = np.ones((1, 2, 2, 3)), np.ones((1, 4, 4, 2)), np.ones((3, 3, 3, 2))
    gradients = conv2d_backward(gy, x, w, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, needs)
    assert tuple(g is not None for g in gradients) == needs


# ----------------------------------------------------------------------------------------------------------- gradcheck

SMALL = [name for name, (x_shape, *_) in SETTINGS.items() if np.prod(x_shape) <= 450]


@pytest.mark.parametrize("setting", SMALL)
def test_gradcheck(setting, leaves):
    x_shape, w_shape, kwargs, _ = SETTINGS[setting]
    gradcheck(lambda *tensors: conv2d(*tensors, **kwargs), leaves(x_shape, w_shape, w_shape[:1]), exhaustive=60)


def test_gradcheck_of_one_image_without_bias(leaves):
    gradcheck(lambda x, w: conv2d(x, w, stride=2, groups=2), leaves((4, 5, 5), (2, 2, 3, 3)))


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "2 axes": ({"x": (3, 8)}, RuntimeError, "conv2d: x must be (C, H, W) or (N, C, H, W), got (3, 8)"),
    "weight of 3 axes": ({"w": (4, 3, 3)}, RuntimeError, "conv2d: weight must be (O, C / groups, KH, KW), got (4, 3, 3)"),
    "channels": (
        {"w": (4, 2, 3, 3)},
        RuntimeError,
        "conv2d: weight takes 2 x 1 group = 2 channels, x has 3 (x (1, 3, 8, 8), weight (4, 2, 3, 3))",
    ),
    "channels in groups": (
        {"w": (4, 2, 3, 3), "groups": 2},
        RuntimeError,
        "conv2d: weight takes 2 x 2 groups = 4 channels, x has 3 (x (1, 3, 8, 8), weight (4, 2, 3, 3))",
    ),
    "filters in groups": (
        {"w": (4, 1, 3, 3), "groups": 3},
        RuntimeError,
        "conv2d: output channels must be divisible by groups, got 4 and 3 (x (1, 3, 8, 8), weight (4, 1, 3, 3))",
    ),
    "groups 0": ({"groups": 0}, RuntimeError, "conv2d: groups must be an int of at least 1, got 0"),
    "bias": ({"b": (3,)}, RuntimeError, "conv2d: bias must be (4,), got (3,) (x (1, 3, 8, 8), weight (4, 3, 3, 3))"),
    "stride 0": ({"stride": (1, 0)}, RuntimeError, "conv2d: stride must be at least 1, got (1, 0)"),
    "stride 1.5": ({"stride": 1.5}, TypeError, "conv2d: stride must be an int or two ints, got 1.5"),
    "dilation 0": ({"dilation": 0}, RuntimeError, "conv2d: dilation must be at least 1, got 0"),
    "padding -1": ({"padding": -1}, RuntimeError, "conv2d: padding must be at least 0, got -1"),
    "padding of three": ({"padding": (1, 1, 1)}, RuntimeError, "conv2d: padding must be an int or two ints, got 3: (1, 1, 1)"),
    "padding word": (
        {"padding": "full"},
        RuntimeError,
        "conv2d: padding must be an int, two ints, 'valid' or 'same', got 'full'",
    ),
    "same with a stride": (
        {"padding": "same", "stride": 2},
        RuntimeError,
        "conv2d: padding='same' needs stride 1, got stride (2, 2)",
    ),
    "kernel too large": (
        {"w": (4, 3, 3, 3), "dilation": (1, 5), "padding": 1},
        RuntimeError,
        "conv2d: kernel spans 11 along W, padded input has 10, got kernel (3, 3), dilation (1, 5), input (8, 8), "
        "padding ((1, 1), (1, 1))",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, device):
    given, error, text = ERRORS[case]
    kwargs = {"x": (1, 3, 8, 8), "w": (4, 3, 3, 3), "b": (4,), **given}
    x, w, b = (Tensor(np.zeros(kwargs.pop(name)), device=device) for name in "xwb")
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        conv2d(x, w, b, **kwargs)


def test_all_operands_have_one_dtype(device):
    single, double = (Tensor(np.zeros((4, 3, 3, 3), dtype), device=device) for dtype in (np.float32, np.float64))
    with pytest.raises(RuntimeError, match=re.escape("conv2d: weight must have x's dtype float32, got float64")):
        conv2d(single, double)
    with pytest.raises(RuntimeError, match=re.escape("conv2d: bias must have x's dtype float64, got float32")):
        conv2d(double, double, Tensor(np.zeros(4, np.float32), device=device))


def test_all_operands_are_on_one_device():
    x, w = Tensor(np.zeros((1, 3, 4, 4))), Tensor(np.zeros((2, 3, 3, 3)), device="cpu:1")
    with pytest.raises(RuntimeError, match=re.escape("conv2d: x is on cpu:0, y on cpu:1; move one with .to(device)")):
        conv2d(x, w)


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("kwargs", [{}, {"padding": 1, "stride": 2, "groups": 2}])
def test_memory_order_of_the_inputs_changes_nothing_and_results_are_channels_last(kwargs, arrange, device, rng):
    w_shape = (6, 4 // kwargs.get("groups", 1), 3, 3)
    arrays = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal(w_shape), rng.standard_normal(6)
    expected_leaves = [Tensor(a, True, device) for a in arrays]
    expected = conv2d(*expected_leaves, **kwargs)
    x, w, b = (arrange(a) for a in arrays)
    y = conv2d(x, w, b, **kwargs)
    np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
    assert is_channels_last(y.data)

    received = {}
    for name, leaf in (("x", x), ("w", w)):
        leaf.register_hook(lambda g, name=name: received.update({name: g.data}))
    gy = arrange(rng.standard_normal(y.shape)).data
    y.backward(gy)
    expected.backward(np.ascontiguousarray(device.to_host(gy)))
    for leaf, other in zip((x, w, b), expected_leaves, strict=True):
        np.testing.assert_array_equal(leaf.grad.numpy(), other.grad.numpy())
    assert is_channels_last(received["w"])
    assert memory_order(received["x"]) == [0, 2, 3, 1]  # the inside of a padded array: not contiguous
    assert kwargs or is_channels_last(received["x"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 5, 5), (4, 3, 3, 3), (4,)))
    y, _, gradients = run(conv2d, x, w, b)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)
    # float32: 27 products of size about 1, each rounded by 2^-24, and their sum 27 times: below 1e-5
    exact = loop_forward(x.astype(np.float64), w.astype(np.float64), b.astype(np.float64), ((0, 0), (0, 0)), {})
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-5 if dtype is np.float32 else 1e-12)
