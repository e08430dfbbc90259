"""minidl.kernels.cpu.local_response_norm against the plain functions: every window, leading axes, slabs, warnings."""

import numpy as np
import pytest

from minidl import parallel
from minidl.kernels.cpu import local_response_norm as fast
from minidl.ops import local_response_norm as plain

SHAPES = [(3, 4, 2, 7), (2, 5), (6,), (2, 3, 1), (0, 3, 3, 4), (2, 1, 1, 1, 6), (2, 5, 5, 48)]


def scratch_of_nan(name, shape, dtype):
    return np.full(shape, np.nan, dtype) if np.dtype(dtype).kind == "f" else np.ones(shape, dtype)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("slab", [1, 30, 1 << 16])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_backward(size, dtype, slab, rng, monkeypatch):
    monkeypatch.setattr(fast, "SLAB", slab)
    monkeypatch.setattr(parallel, "scratch", scratch_of_nan)
    # some 20 roundings and a sum of `size` squares; what is added up in backward is of the size of gy and x, below 10
    tolerance = (20 + size) * np.finfo(dtype).eps
    for shape in SHAPES:
        x, gy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        for beta in (0.75, 0.6):
            y, d = fast.local_response_norm_forward(x, size, 1.3, beta, 1.1)
            for got, expected in zip((y, d), plain.local_response_norm_forward(x, size, 1.3, beta, 1.1), strict=True):
                np.testing.assert_allclose(got, expected, rtol=tolerance)
                assert got.shape == shape and got.dtype == dtype and got.flags.c_contiguous
            gx = fast.local_response_norm_backward(gy, x, d, size, 1.3, beta)
            np.testing.assert_allclose(
                gx, plain.local_response_norm_backward(gy, x, d, size, 1.3, beta), rtol=tolerance, atol=10 * tolerance
            )
            assert gx.shape == shape and gx.dtype == dtype and gx.flags.c_contiguous


def test_sliced_input(rng):
    x, gy = rng.standard_normal((2, 2, 3, 3, 14))[..., ::2]
    y, d = fast.local_response_norm_forward(x, 5, 1.0, 0.75, 2.0)
    expected = fast.local_response_norm_forward(x.copy(), 5, 1.0, 0.75, 2.0)
    np.testing.assert_array_equal(y, expected[0])
    gx = fast.local_response_norm_backward(gy, x, d, 5, 1.0, 0.75)
    np.testing.assert_array_equal(gx, fast.local_response_norm_backward(gy.copy(), x.copy(), d, 5, 1.0, 0.75))
