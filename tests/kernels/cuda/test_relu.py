"""minidl.kernels.cuda.relu against the plain functions: every bit, and memory order."""

import numpy as np
import pytest

from minidl.device import memory_order
from minidl.kernels.cuda import relu
from minidl.ops import relu as plain

SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0]  # a GPU takes smaller numbers than the smallest normal one for 0
SIZES = [0, 1, 3, 4, 255, 256, 257, 1023, 1024, 1025, 2049, 5003]  # a block has 256 threads, each with 4 elements


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return np.dtype(request.param)


def normal(rng, dtype, *shape):
    """Normal numbers, a third of them odd ones."""
    x = rng.standard_normal(shape).astype(dtype)
    where = rng.random(shape) < 0.3
    x[where] = rng.choice(np.array(SPECIAL, dtype), int(where.sum()))
    return x


@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward(gpu, rng, dtype, size):
    x, gy = normal(rng, dtype, size), normal(rng, dtype, size)
    on_gpu = gpu.put(x)
    y = relu.relu_forward(on_gpu)
    np.testing.assert_array_equal(gpu.get(y), plain.relu_forward(x))
    gx = relu.relu_backward(gpu.put(gy), y)
    np.testing.assert_array_equal(gpu.get(gx), plain.relu_backward(gy, plain.relu_forward(x)))
    assert y.dtype == gx.dtype == dtype
    np.testing.assert_array_equal(gpu.get(on_gpu), x)


def arrangements(x):
    """Views of an array (N, H, W, C) in other orders."""
    return {
        "C": x,
        "channels-last": x.transpose(0, 3, 1, 2),
        "sliced": x[:, ::2, :, ::2],
        "reversed": x[::-1, :, ::-1],
        "one image": x[:1],
        "none": x[:0],
        "a number": x[0, 0, 0, 0],
    }


@pytest.mark.parametrize("name", arrangements(np.empty((1, 1, 1, 1))))
def test_any_memory_order_stays(gpu, rng, dtype, name):
    x, gy = normal(rng, dtype, 2, 5, 3, 4), normal(rng, dtype, 2, 5, 3, 4)
    a, g = arrangements(x)[name], arrangements(gy)[name]
    y = relu.relu_forward(arrangements(gpu.put(x))[name])
    np.testing.assert_array_equal(gpu.get(y), plain.relu_forward(a))
    in_c_order = gpu.put(g.copy())
    for upstream in (arrangements(gpu.put(gy))[name], in_c_order):
        gx = relu.relu_backward(upstream, y)
        np.testing.assert_array_equal(gpu.get(gx), plain.relu_backward(g, plain.relu_forward(a)))
        assert memory_order(gx) == memory_order(y) == memory_order(a)


def test_a_broadcast_gradient(gpu, rng, dtype):
    x = normal(rng, dtype, 5, 7)
    gy = gpu.device.xp.broadcast_to(gpu.put(np.array([2.0], dtype)), x.shape)
    gx = relu.relu_backward(gy, relu.relu_forward(gpu.put(x)))
    np.testing.assert_array_equal(gpu.get(gx), np.where(x <= 0, 0, dtype.type(2)))


@pytest.mark.parametrize(
    "rows, width", [(0, 5), (3, 0), (1, 1), (1, 3000), (7, 96), (700, 3), (5, 512), (5, 513), (3, 1025), (2, 511)]
)
def test_rows_plus_a_bias(gpu, rng, dtype, rows, width):
    x, b = normal(rng, dtype, rows, width), normal(rng, dtype, 2 * width)
    on_gpu, bias = gpu.put(x), gpu.put(b)[::2]
    relu.bias_relu(on_gpu, bias)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(gpu.get(on_gpu), np.maximum(x + b[::2], 0))
    np.testing.assert_array_equal(gpu.get(bias), b[::2])


def test_rows_without_a_bias(gpu, rng, dtype):
    x = normal(rng, dtype, 7, 33)
    on_gpu = gpu.put(x)
    relu.bias_relu(on_gpu, None)
    np.testing.assert_array_equal(gpu.get(on_gpu), np.maximum(x, 0))
