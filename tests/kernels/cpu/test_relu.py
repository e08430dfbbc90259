"""minidl.kernels.cpu.relu against the plain functions: every bit, and memory order."""

import numpy as np
import pytest

from minidl.device import memory_order
from minidl.kernels.cpu import relu
from minidl.ops import relu as plain

SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45]


@pytest.fixture(params=[np.float32, np.float64])
def x(request, rng):
    x = rng.standard_normal((2, 5, 3, 4)).astype(request.param)
    x.flat[: len(SPECIAL)] = SPECIAL
    return x


def arrangements(x):
    return {"C": x, "channels-last": x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), "sliced": x[:, ::2, :, ::2],
            "reversed": x[::-1, :, ::-1], "one image": x[:1], "none": x[:0]}  # fmt: skip


@pytest.mark.parametrize("slab", [7, 1 << 16])
def test_values_and_memory_order(x, slab, monkeypatch):
    monkeypatch.setattr(relu, "SLAB", slab)
    relu._zeros.cache_clear()
    for name, a in arrangements(x).items():
        y = relu.relu_forward(a)
        np.testing.assert_array_equal(y, plain.relu_forward(a), name)
        assert y.dtype == x.dtype
        gy = np.where(np.isnan(a), 3, a + 1)[..., ::-1].astype(x.dtype)
        gx = relu.relu_backward(gy, y)
        np.testing.assert_array_equal(gx, plain.relu_backward(gy, y), name)
        assert gx.dtype == x.dtype and memory_order(gx) == memory_order(y) == memory_order(a)
    relu._zeros.cache_clear()


def test_an_infinite_or_nan_gradient_stops_where_the_output_is_0_and_nan_outputs_pass_it():
    y, gy = np.array([0.0, -0.0, 1.0, np.nan, -np.nan]), np.array([np.inf, np.nan, np.inf, 2.0, 3.0])
    assert relu.relu_backward(gy, y).tolist() == [0, 0, np.inf, 2, 3]
    assert relu.rectify_gradient(gy, y, np.empty(5)).tolist() == [0, 0, np.inf, 2, 3]


def test_a_gradient_in_another_memory_order_leaves_the_outputs(x):
    y = relu.relu_forward(arrangements(x)["channels-last"])
    gy = np.arange(1, x.size + 1, dtype=x.dtype).reshape(x.shape)
    gx = relu.relu_backward(gy, y)
    np.testing.assert_array_equal(gx, plain.relu_backward(gy, y))
    assert memory_order(gx) == memory_order(y) != memory_order(gy)


def test_a_broadcast_gradient(x):
    y, gy = relu.relu_forward(x), np.broadcast_to(x.dtype.type(2), x.shape)
    np.testing.assert_array_equal(relu.relu_backward(gy, y), plain.relu_backward(gy, y))
