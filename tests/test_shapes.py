"""Shape rules against counting, and the text of every error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import shapes

SIDE = st.integers(1, 12)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def count_windows(size, kernel, stride, before, after, dilation):
    """How many windows lie inside the padded input, one after the other."""
    last = dilation * (kernel - 1)
    return sum(1 for start in range(0, size + before + after, stride) if start + last < size + before + after)


# ----------------------------------------------------------------------------------------------------------------- pair


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, (3, 3)),
        ((2, 5), (2, 5)),
        ([2, 5], (2, 5)),
        ((4,), (4, 4)),
        (np.int64(3), (3, 3)),
        ((np.int32(1), 2), (1, 2)),
    ],
)
def test_pair(value, expected):
    result = shapes.pair("op", "stride", value, 1)
    assert result == expected and all(type(v) is int for v in result)


@pytest.mark.parametrize("value", [1.0, "3", None, (1, 2.0), True, (True, 1), {1, 2}])
def test_pair_of_what_is_not_ints(value):
    with pytest.raises(TypeError) as error:
        shapes.pair("max_pool2d", "kernel_size", value, 1)
    assert str(error.value) == f"max_pool2d: kernel_size must be an int or two ints, got {value!r}"


@pytest.mark.parametrize("value", [(1, 2, 3), ()])
def test_pair_of_another_length(value):
    with pytest.raises(RuntimeError) as error:
        shapes.pair("max_pool2d", "kernel_size", value, 1)
    assert str(error.value) == f"max_pool2d: kernel_size must be an int or two ints, got {len(value)}: {value!r}"


@pytest.mark.parametrize("value, least", [(0, 1), ((1, 0), 1), (-1, 0), ([0, -3], 0)])
def test_pair_of_too_small_ones(value, least):
    with pytest.raises(RuntimeError) as error:
        shapes.pair("conv2d", "stride", value, least)
    assert str(error.value) == f"conv2d: stride must be at least {least}, got {value!r}"


def test_is_int():
    assert all(shapes.is_int(v) for v in (0, -3, np.int8(1), np.uint64(2)))
    assert not any(shapes.is_int(v) for v in (True, np.bool_(True), 1.0, np.float32(1), "1", None))


# ------------------------------------------------------------------------------------------------------------- out_size


def test_span():
    assert [shapes.span(k, d) for k, d in ((1, 1), (1, 9), (3, 1), (3, 2), (11, 4))] == [1, 1, 3, 5, 41]


@given(pairs(1, 12), pairs(1, 4), pairs(1, 4), st.tuples(pairs(0, 3), pairs(0, 3)), pairs(1, 3))
def test_out_size_counts_the_windows(size, kernel, stride, padding, dilation):
    expected = tuple(count_windows(size[i], kernel[i], stride[i], *padding[i], dilation[i]) for i in range(2))
    if min(expected) == 0:
        with pytest.raises(RuntimeError, match=r"^op: kernel spans \d+ along [HW], padded input has \d+, got kernel "):
            shapes.out_size("op", size, kernel, stride, padding, dilation)
    else:
        assert shapes.out_size("op", size, kernel, stride, padding, dilation) == expected


@pytest.mark.parametrize(
    "size, kernel, stride, padding, expected",
    [
        (227, 11, 4, 0, 55),
        (224, 11, 4, 2, 55),
        (55, 3, 2, 0, 27),
        (27, 5, 1, 2, 27),
        (27, 3, 2, 0, 13),
        (13, 3, 1, 1, 13),
    ],
)
def test_alexnets_sizes(size, kernel, stride, padding, expected):
    pads = ((padding, padding),) * 2
    assert shapes.out_size("op", (size, size), (kernel, kernel), (stride, stride), pads, (1, 1)) == (expected, expected)


def test_a_kernel_that_does_not_fit():
    with pytest.raises(RuntimeError) as error:
        shapes.out_size("conv2d", (5, 2), (3, 3), (1, 1), ((0, 0), (0, 0)), (2, 1))
    assert str(error.value) == (
        "conv2d: kernel spans 3 along W, padded input has 2, "
        "got kernel (3, 3), dilation (2, 1), input (5, 2), padding ((0, 0), (0, 0))"
    )


@given(SIDE, SIDE, st.integers(1, 5))
def test_ceil_padding_gives_the_2012_codes_size(extra, kernel, stride):
    size = kernel + extra - 1
    pad = shapes.ceil_padding(size, kernel, stride)
    expected = int(np.ceil((size - kernel) / stride)) + 1
    assert 0 <= pad < stride
    assert shapes.out_size("op", (size, size), (kernel,) * 2, (stride,) * 2, ((0, pad),) * 2, (1, 1)) == (expected,) * 2


def test_ceil_padding_of_the_2012_net():
    assert shapes.ceil_padding(224, 11, 4) == 3


# --------------------------------------------------------------------------------------------------------- conv_padding


@pytest.mark.parametrize(
    "padding, expected",
    [
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        ("valid", ((0, 0), (0, 0))),
    ],
)
def test_conv_padding(padding, expected):
    assert shapes.conv_padding("conv2d", padding, (4, 3), (2, 2), (1, 1)) == expected


@given(pairs(1, 10), pairs(1, 5), pairs(1, 3))
def test_same_keeps_the_size_and_puts_the_odd_pixel_last(size, kernel, dilation):
    padding = shapes.conv_padding("conv2d", "same", kernel, (1, 1), dilation)
    assert shapes.out_size("conv2d", size, kernel, (1, 1), padding, dilation) == size
    assert all(after - before in (0, 1) for before, after in padding)


def test_wrong_conv_padding():
    with pytest.raises(RuntimeError) as error:
        shapes.conv_padding("conv2d", "full", (3, 3), (1, 1), (1, 1))
    assert str(error.value) == "conv2d: padding must be an int, two ints, 'valid' or 'same', got 'full'"
    with pytest.raises(RuntimeError) as error:
        shapes.conv_padding("conv2d", "same", (3, 3), (2, 1), (1, 1))
    assert str(error.value) == "conv2d: padding='same' needs stride 1, got stride (2, 1)"
    with pytest.raises(RuntimeError, match=r"^conv2d: padding must be at least 0, got -1$"):
        shapes.conv_padding("conv2d", -1, (3, 3), (1, 1), (1, 1))


# -------------------------------------------------------------------------------------------------------- pool_out_size


def count_pool_windows(size, kernel, stride, padding, dilation, ceil_mode):
    """Windows that start inside the image or the padding before it and end inside the padded image, or hang over its end if
    ceil_mode says so and some of what the stride left over is still to be seen."""
    last = dilation * (kernel - 1)
    inside = count_windows(size, kernel, stride, padding, padding, dilation)
    start = inside * stride  # where the next window would start, counted from the padding's first pixel
    hangs_over = ceil_mode and start - stride + last < size + 2 * padding - 1 and start < size + padding
    return inside + (1 if hangs_over else 0)


@settings(max_examples=300)
@given(pairs(1, 10), pairs(1, 4), pairs(1, 5), pairs(0, 2), st.booleans())
def test_pool_out_size_counts_the_windows(size, kernel, stride, padding, ceil_mode):
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    if any(n + 2 * p < k for n, p, k in zip(size, padding, kernel, strict=True)):
        return  # below
    expected = tuple(count_pool_windows(size[i], kernel[i], stride[i], padding[i], 1, ceil_mode) for i in range(2))
    assert shapes.pool_out_size("op", size, kernel, stride, padding, (1, 1), ceil_mode) == expected


@pytest.mark.oracle
def test_pool_out_size_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for _ in range(300):
        size, kernel, stride, dilation = (tuple(rng.integers(1, n, 2).tolist()) for n in (12, 5, 5, 3))
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        ceil_mode = bool(rng.integers(2))
        try:
            x = torch.zeros(1, 1, *size)
            expected = tuple(torch.nn.functional.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode).shape[2:])
        except RuntimeError:
            with pytest.raises(RuntimeError):
                shapes.pool_out_size("op", size, kernel, stride, padding, dilation, ceil_mode)
        else:
            assert shapes.pool_out_size("op", size, kernel, stride, padding, dilation, ceil_mode) == expected


def test_ceil_mode_drops_a_window_that_would_start_in_the_padding_after_the_image():
    # 3 pixels, kernel 2, stride 2, padding 1: windows at -1 and 1; one at 3 would see padding only
    assert shapes.pool_out_size("op", (3, 3), (2, 2), (2, 2), (1, 1), (1, 1), True) == (2, 2)
    assert shapes.pool_out_size("op", (4, 4), (2, 2), (2, 2), (1, 1), (1, 1), True) == (3, 3)


def test_pool_errors():
    with pytest.raises(RuntimeError) as error:
        shapes.pool_out_size("max_pool2d", (9, 9), (3, 2), (1, 1), (2, 1), (1, 1), False)
    assert str(error.value) == "max_pool2d: padding must be at most half the kernel, got padding (2, 1), kernel (3, 2)"
    with pytest.raises(RuntimeError) as error:
        shapes.pool_out_size("avg_pool2d", (9, 2), (3, 3), (1, 1), (0, 0), (1, 1), False)
    assert str(error.value) == (
        "avg_pool2d: output size is too small: 0 along W, "
        "got input (9, 2), kernel (3, 3), stride (1, 1), padding (0, 0), dilation (1, 1)"
    )


# ----------------------------------------------------------------------------------------------------------- check_conv


@pytest.mark.parametrize(
    "x, weight, bias, groups",
    [
        ((2, 4, 9, 9), (6, 4, 3, 3), (6,), 1),
        ((4, 9, 9), (6, 2, 3, 3), None, 2),
        ((0, 4, 1, 1), (4, 1, 1, 1), (4,), 4),
    ],
)
def test_operands_that_fit(x, weight, bias, groups):
    shapes.check_conv("conv2d", x, weight, bias, groups)


X, W = (2, 4, 9, 9), (6, 2, 3, 3)


@pytest.mark.parametrize(
    "x, weight, bias, groups, kind, text",
    [
        ((4, 4), W, None, 2, RuntimeError, "x must be (C, H, W) or (N, C, H, W), got (4, 4)"),
        (X, (6, 2, 3), None, 2, RuntimeError, "weight must be (O, C / groups, KH, KW), got (6, 2, 3)"),
        (X, W, None, 0, RuntimeError, "groups must be an int of at least 1, got 0"),
        (X, W, None, 2.0, RuntimeError, "groups must be an int of at least 1, got 2.0"),
        (X, W, None, True, RuntimeError, "groups must be an int of at least 1, got True"),
        (X, W, None, 1, RuntimeError, "weight takes 2 x 1 group = 2 channels, x has 4 (x (2, 4, 9, 9), weight (6, 2, 3, 3))"),
        (X, W, None, 3, RuntimeError, "weight takes 2 x 3 groups = 6 channels, x has 4 (x (2, 4, 9, 9), weight (6, 2, 3, 3))"),
        (
            X,
            (5, 2, 3, 3),
            None,
            2,
            RuntimeError,
            "output channels must be divisible by groups, got 5 and 2 (x (2, 4, 9, 9), weight (5, 2, 3, 3))",
        ),
        (X, W, (4,), 2, RuntimeError, "bias must be (6,), got (4,) (x (2, 4, 9, 9), weight (6, 2, 3, 3))"),
        (X, W, (6, 1), 2, RuntimeError, "bias must be (6,), got (6, 1) (x (2, 4, 9, 9), weight (6, 2, 3, 3))"),
    ],
)
def test_operands_that_do_not_fit(x, weight, bias, groups, kind, text):
    with pytest.raises(kind) as error:
        shapes.check_conv("conv2d", x, weight, bias, groups)
    assert str(error.value) == f"conv2d: {text}"


# ----------------------------------------------------------------------------------------------------------------- dims


@given(st.integers(1, 5), st.integers(-6, 6))
def test_normalize_dim_is_pythons_indexing(ndim, dim):
    try:
        expected = list(range(ndim))[dim]
    except IndexError:
        with pytest.raises(IndexError) as error:
            shapes.normalize_dim("sum", dim, ndim)
        assert str(error.value) == f"sum: dim must be in [{-ndim}, {ndim - 1}], got {dim}"
    else:
        assert shapes.normalize_dim("sum", dim, ndim) == expected


def test_dims_of_a_0d_tensor():
    assert [shapes.normalize_dim("sum", d, 0) for d in (0, -1)] == [0, 0]
    with pytest.raises(IndexError, match=r"^sum: dim must be in \[-1, 0\], got 1$"):
        shapes.normalize_dim("sum", 1, 0)
    assert shapes.normalize_dims("sum", None, 0) == shapes.normalize_dims("sum", 0, 0) == ()


@pytest.mark.parametrize("dim", [1.0, "0", True, None])
def test_a_dim_that_is_no_int(dim):
    with pytest.raises(TypeError) as error:
        shapes.normalize_dim("softmax", dim, 2)
    assert str(error.value) == f"softmax: dim must be an int, got {dim!r}"


@pytest.mark.parametrize(
    "dim, expected", [(None, (0, 1, 2)), (-1, (2,)), ((2, 0), (0, 2)), ([-1, -3], (0, 2)), ((), (0, 1, 2))]
)
def test_normalize_dims(dim, expected):
    assert shapes.normalize_dims("sum", dim, 3) == expected


def test_a_dim_named_twice():
    with pytest.raises(RuntimeError) as error:
        shapes.normalize_dims("sum", (0, -3), 3)
    assert str(error.value) == "sum: each dim may be named once, got (0, -3)"
