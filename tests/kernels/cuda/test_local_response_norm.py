"""minidl.kernels.cuda.local_response_norm against the plain functions."""

import numpy as np
import pytest

from minidl.kernels.cuda import local_response_norm as ours
from minidl.ops import local_response_norm as plain

# alpha ~ k ~ 1, where the window counts as much as the element itself. A tile has 1024 floats or 512 doubles.
CASES = {
    "AlexNet's": ((2, 3, 5, 96), 5, 1e-4, 0.75, 2.0),
    "several tiles": ((5, 7, 96), 5, 1.3, 0.75, 1.1),
    "even": ((40, 67), 4, 1.3, 0.75, 1.1),
    "size 2": ((3, 401), 2, 0.9, 0.75, 1.0),
    "size 1": ((3, 7), 1, 0.9, 0.75, 1.0),
    "size over C, odd": ((700, 3), 9, 1.3, 0.75, 1.1),
    "size over C, even": ((700, 3), 8, 1.3, 0.75, 1.1),
    "one channel": ((1100, 1), 5, 1.3, 0.75, 1.1),
    "one element": ((1,), 5, 1.3, 0.75, 1.1),
    "one pixel over several tiles": ((1, 2500), 7, 1.3, 0.75, 1.1),
    "windows over several tiles": ((1, 1300), 1400, 1.3, 0.75, 1.1),
    "a tile exactly": ((4, 256), 5, 1.3, 0.75, 1.1),
    "one more than a tile": ((41, 25), 6, 1.3, 0.75, 1.1),
    "more channels than threads": ((5, 300), 5, 1.3, 0.75, 1.1),
    "another beta": ((13, 83), 3, 0.7, 0.6, 1.2),
    "beta 1": ((13, 83), 6, 0.7, 1, 1),
    "no pixel": ((0, 5), 3, 1.0, 0.75, 1.0),
    "no channel": ((5, 0), 3, 1.0, 0.75, 1.0),
    "no pixel of many axes": ((2, 0, 3, 5), 3, 1.0, 0.75, 1.0),
}


def arrays(rng, dtype, shape):
    return [rng.standard_normal(shape).astype(dtype) for _ in range(2)]


def tolerance(dtype, size, channels, beta):
    """Relative to the sum of absolute values: one rounding for each term of a window, and 16 for the powers, products and
    quotients (a GPU's reciprocal root is right to 2 units, a power to 8), beta of which d hands on."""
    return (min(size, channels) * (1 + beta) + 16) * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(gpu, rng, dtype, case):
    shape, size, alpha, beta, k = CASES[case]
    x, gy = arrays(rng, dtype, shape)
    near = tolerance(dtype, size, shape[-1], beta)
    on_gpu = gpu.put(x)
    y, kept = ours.local_response_norm_forward(on_gpu, size, alpha, beta, k)
    plain_y, plain_d = plain.local_response_norm_forward(x, size, alpha, beta, k)
    assert kept is None
    np.testing.assert_allclose(gpu.get(y), plain_y, rtol=near)
    gx = ours.local_response_norm_backward(gpu.put(gy), on_gpu, None, size, alpha, beta, k)
    expected = plain.local_response_norm_backward(gy, x, plain_d, size, alpha, beta)
    np.testing.assert_array_equal(plain.local_response_norm_backward(gy, x, None, size, alpha, beta, k), expected)
    summed = np.abs(gy) * plain_d**-beta + np.abs(
        2 * alpha / size * beta * x * plain.window_sum(np.abs(gy * x) * plain_d ** (-beta - 1), (size - 1) // 2, size // 2)
    )
    assert (np.abs(gpu.get(gx) - expected) <= near * summed).all()
    assert y.dtype == gx.dtype == dtype
    assert y.shape == gx.shape == shape
    np.testing.assert_array_equal(gpu.get(on_gpu), x)


def test_sliced_inputs(gpu, rng):
    wide, gwide = arrays(rng, np.float64, (7, 6, 10))
    x, gy = wide[::2, :, ::2], gwide[::2, :, ::2]
    y, _ = ours.local_response_norm_forward(gpu.put(wide)[::2, :, ::2], 3, 1.0, 0.75, 1.3)
    plain_y, plain_d = plain.local_response_norm_forward(x, 3, 1.0, 0.75, 1.3)
    np.testing.assert_allclose(gpu.get(y), plain_y, rtol=1e-14)
    assert y.flags.c_contiguous
    gx = ours.local_response_norm_backward(gpu.put(gwide)[::2, :, ::2], gpu.put(wide)[::2, :, ::2], None, 3, 1.0, 0.75, 1.3)
    expected = plain.local_response_norm_backward(gy, x, plain_d, 3, 1.0, 0.75)
    np.testing.assert_allclose(gpu.get(gx), expected, rtol=1e-13, atol=1e-14)
    assert gx.flags.c_contiguous


def test_a_nan_or_infinity_spoils_the_channels_around_it_and_no_other_pixel(gpu):
    x = np.ones((3, 8))
    x[1, 3] = np.nan
    y, _ = ours.local_response_norm_forward(gpu.put(x), 3, 1.0, 0.75, 1.0)
    bad = np.zeros((3, 8), bool)
    bad[1, 2:5] = True
    assert (np.isnan(gpu.get(y)) == bad).all()
    x[1, 3] = np.inf
    y = gpu.get(ours.local_response_norm_forward(gpu.put(x), 3, 1.0, 0.75, 1.0)[0])
    assert y[1, 2] == y[1, 4] == 0 and np.isnan(y[1, 3])
