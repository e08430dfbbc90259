"""minidl.kernels.cpu.max_pool2d against the plain functions, on random windows full of ties, NaN and infinities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import parallel, shapes
from minidl.kernels.cpu import max_pool2d as fast
from minidl.ops import max_pool2d as plain

SIDE = st.tuples(st.integers(1, 13), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3))


def compare(x, kernel, stride, padding, dilation, out):
    window = kernel, stride, padding, dilation
    expected = plain.max_pool2d_forward(x, *window, out)
    for got, want in zip(fast.max_pool2d_forward(x, *window, out), expected, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype and got.flags.c_contiguous
    gy = (np.arange(expected[0].size) % 19 - 9.0).reshape(expected[0].shape).astype(x.dtype)  # sums of them are exact
    gx = fast.max_pool2d_backward(gy, expected[1], x.shape, *window)
    np.testing.assert_array_equal(gx, plain.max_pool2d_backward(gy, expected[1], x.shape, *window))
    assert gx.dtype == x.dtype and gx.flags.c_contiguous


@pytest.mark.filterwarnings("error")
@settings(max_examples=400)
@given(
    SIDE,
    SIDE,
    st.integers(0, 4),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from(["ties", "-inf", "NaN", "both"]),
    st.sampled_from([1, 60, 1 << 19]),
    st.sampled_from([np.float32, np.float64]),
)
def test_forward_and_backward(rows, columns, n, c, ceil_mode, values, slab, dtype):
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    try:
        out = shapes.pool_out_size("max_pool2d", size, kernel, stride, padding, dilation, ceil_mode)
    except RuntimeError:
        return
    rng = np.random.default_rng(sum(size) + n)
    x = rng.integers(-2, 3, (n, *size, c)).astype(dtype)
    if values in ("-inf", "both"):
        x[rng.random(x.shape) < 0.5] = -np.inf
    if values in ("NaN", "both"):
        x[rng.random(x.shape) < 0.2] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "SLAB", slab)
        compare(x, kernel, stride, padding, dilation, out)


@pytest.mark.parametrize("size", [55, 27, 13])
def test_alexnets_windows_whatever_was_in_scratch(size, rng, monkeypatch):
    fill = lambda dtype: np.nan if np.dtype(dtype).kind == "f" else 1
    monkeypatch.setattr(parallel, "scratch", lambda name, shape, dtype: np.full(shape, fill(dtype), dtype))
    x = np.maximum(rng.standard_normal((2, size, size, 3)), 0).astype(np.float32)
    compare(x, (3, 3), (2, 2), (0, 0), (1, 1), (size // 2, size // 2))


@pytest.mark.parametrize("kernel", [16, 17])
def test_the_winner_is_one_byte_while_256_window_elements_allow_it(kernel):
    x = np.arange(18.0 * 18).reshape(1, 18, 18, 1)  # the last pixel of each window wins
    compare(x, (kernel, kernel), (1, 1), (0, 0), (1, 1), (19 - kernel, 19 - kernel))


def test_sliced_and_transposed_images(rng):
    x = rng.integers(-2, 3, (2, 9, 18, 8)).astype(np.float32)
    compare(x[:, :, ::2, ::2], (3, 3), (2, 2), (1, 1), (1, 1), (5, 5))
    compare(x.transpose(0, 2, 1, 3), (3, 2), (2, 1), (0, 0), (1, 1), (8, 8))
