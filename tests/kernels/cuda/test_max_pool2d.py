"""minidl.kernels.cuda.max_pool2d against the plain functions: every bit. Backward adds in the plain function's order."""

import numpy as np
import pytest

from minidl import shapes
from minidl.kernels.cuda import max_pool2d as ours
from minidl.ops import max_pool2d as plain

ONE, NONE = (1, 1), (0, 0)

# x (N, H, W, C), kernel, stride, padding, dilation, ceil_mode. A block has 128 threads; 4 floats or 2 doubles are a pack.
CASES = {
    "AlexNet's, overlapping": ((2, 13, 13, 8), (3, 3), (2, 2), NONE, ONE, False),
    "one channel": ((2, 7, 9, 1), (3, 3), (2, 2), NONE, ONE, False),
    "prime channels": ((3, 5, 7, 5), (2, 3), (1, 2), (1, 1), ONE, False),
    "packs of doubles only": ((2, 5, 6, 6), (3, 2), (1, 1), NONE, ONE, False),
    "rows longer than a block": ((2, 4, 29, 28), (3, 3), (1, 2), (0, 1), ONE, False),
    "packs of pixels longer than a block": ((1, 5, 3, 1100), (2, 2), (2, 1), NONE, ONE, False),
    "one element": ((1, 1, 1, 1), ONE, ONE, NONE, ONE, False),
    "kernel is the image": ((3, 4, 5, 4), (4, 5), (4, 5), NONE, ONE, False),
    "long and narrow kernel": ((2, 4, 17, 3), (1, 10), (1, 3), (0, 4), ONE, False),
    "stride over kernel": ((2, 11, 8, 4), (2, 1), (3, 4), NONE, ONE, False),
    "dilation": ((2, 11, 12, 4), (3, 2), (1, 1), (1, 1), (2, 3), False),
    "dilation and stride": ((1, 12, 11, 3), (3, 3), (2, 3), (1, 1), (3, 2), False),
    "dilation over the padding": ((1, 9, 8, 2), (4, 4), (1, 1), (2, 2), (2, 2), False),
    "hanging over the end": ((2, 6, 8, 4), (3, 3), (2, 2), NONE, ONE, True),
    "hanging over, dilated": ((1, 7, 6, 2), (2, 3), (3, 2), (1, 1), (2, 2), True),
    "a window of nothing": ((1, 1, 1, 4), (2, 2), (2, 2), (1, 1), (3, 3), True),
    "no image": ((0, 5, 5, 4), (3, 3), (2, 2), NONE, ONE, False),
    "no channel": ((2, 5, 5, 0), (3, 3), (2, 2), NONE, ONE, False),
    "numbers of 256 elements": ((1, 17, 17, 4), (16, 16), (1, 1), NONE, ONE, False),
    "numbers of 257 elements": ((2, 1, 260, 3), (1, 257), (1, 1), NONE, ONE, False),
    "numbers over 256": ((2, 18, 19, 4), (17, 16), (1, 1), (8, 8), ONE, False),
}
VALUES = ["normal", "ties", "odd"]


def images(rng, dtype, shape, values):
    """Normal numbers; or whole ones, many of them equal; or infinities of both signs, NaN, zeros of both signs."""
    if values == "ties":
        return rng.integers(-2, 1, shape).astype(dtype)
    x = rng.standard_normal(shape).astype(dtype)
    if values == "odd":
        where = rng.random(shape) < 0.7
        odd = np.array([-np.inf, -np.inf, -np.inf, np.inf, np.nan, 0.0, -0.0], dtype)
        x[where] = rng.choice(odd, int(where.sum()))
    return x


def output_size(shape, kernel, stride, padding, dilation, ceil_mode):
    return shapes.pool_out_size("max_pool2d", shape[1:3], kernel, stride, padding, dilation, ceil_mode)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(gpu, rng, case, values, dtype):
    shape, *window, ceil_mode = CASES[case]
    x = images(rng, dtype, shape, values)
    out = output_size(shape, *window, ceil_mode)
    y, argmax = ours.max_pool2d_forward(gpu.put(x), *window, out)
    plain_y, plain_argmax = plain.max_pool2d_forward(x, *window, out)
    np.testing.assert_array_equal(gpu.get(y), plain_y)
    np.testing.assert_array_equal(gpu.get(argmax), plain_argmax)
    assert argmax.dtype == plain_argmax.dtype
    gy = images(rng, dtype, y.shape, "odd" if values == "odd" else "normal")
    gx = ours.max_pool2d_backward(gpu.put(gy), argmax, shape, *window)
    with np.errstate(invalid="ignore"):  # infinity - infinity
        expected = plain.max_pool2d_backward(gy, plain_argmax, shape, *window)
    np.testing.assert_array_equal(gpu.get(gx), expected)
    assert y.dtype == gx.dtype == dtype and gx.shape == shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_views(gpu, rng, dtype):
    """Images in NCHW order, and contiguous ones that begin between two packs' addresses."""
    window = (3, 3), (2, 2), (1, 1), (1, 1)
    wide = images(rng, dtype, (3, 8, 7, 9), "normal")
    flat = images(rng, dtype, (1 + 2 * 7 * 9 * 8,), "normal")
    for view in (lambda a: a.transpose(0, 2, 3, 1), lambda a: a[::2, ::-1, :, 1:]):
        check_views(gpu, rng, view(gpu.put(wide)), view(wide), *window)
    check_views(gpu, rng, gpu.put(flat)[1:].reshape(2, 7, 9, 8), flat[1:].reshape(2, 7, 9, 8), *window)


def check_views(gpu, rng, on_gpu, x, *window):
    out = output_size(x.shape, *window, False)
    y, argmax = ours.max_pool2d_forward(on_gpu, *window, out)
    plain_y, plain_argmax = plain.max_pool2d_forward(x, *window, out)
    np.testing.assert_array_equal(gpu.get(y), plain_y)
    np.testing.assert_array_equal(gpu.get(argmax), plain_argmax)
    assert y.flags.c_contiguous and argmax.flags.c_contiguous
    flat = images(rng, x.dtype, (1 + y.size,), "normal")
    gy = flat[1:].reshape(y.shape)
    expected = plain.max_pool2d_backward(gy, plain_argmax, x.shape, *window)
    shifted = gpu.put(np.concatenate([plain_argmax.reshape(-1)[:1], plain_argmax.reshape(-1)]))[1:].reshape(y.shape)
    upstream = gpu.put(flat)[1:].reshape(y.shape)
    in_nchw = [gpu.put(a.transpose(0, 3, 1, 2).copy()).transpose(0, 2, 3, 1) for a in (gy, plain_argmax)]
    for g, a in ((upstream, argmax), (gpu.put(gy), shifted), in_nchw):
        np.testing.assert_array_equal(gpu.get(ours.max_pool2d_backward(g, a, x.shape, *window)), expected)
