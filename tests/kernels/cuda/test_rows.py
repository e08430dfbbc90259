"""Bias and column sums. Sums are of small whole numbers, which floats add exactly, in whatever order."""

import fake_cupy
import numpy as np
import pytest

from minidl.kernels.cuda import rows as kernels
from minidl.kernels.cuda.rows import add_bias, column_sums, rectified_gradient
from minidl.ops.relu import relu_backward

DTYPES = ["float32", "float64"]
SHAPES = [(1, 1), (0, 3), (0, 0), (3, 0), (1, 33), (2, 32), (7, 31), (8, 5), (9, 64), (255, 2), (256, 3), (257, 33), (1000, 7)]


def whole_numbers(rng, shape, dtype):
    return rng.integers(-100, 101, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bias(gpu, rng, shape, dtype):
    rows, bias = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[1]).astype(dtype)
    on_gpu, own = gpu.put(rows), gpu.put(np.repeat(bias, 2))[::2]
    add_bias(on_gpu, own)
    np.testing.assert_array_equal(gpu.get(on_gpu), rows + bias)
    np.testing.assert_array_equal(gpu.get(own), bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_column_sums(gpu, rng, shape, dtype):
    rows = whole_numbers(rng, shape, dtype)
    sums = gpu.get(column_sums(gpu.put(rows)))
    assert (sums.shape, sums.dtype) == (shape[1:], dtype)
    np.testing.assert_array_equal(sums, rows.sum(axis=0))


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_chunks_of_any_size(gpu, rng, monkeypatch, chunk):
    """`chunk` rows each, or more where that would be over `chunk` chunks; so a sum of sums may take a few launches."""
    monkeypatch.setattr(kernels, "CHUNK", max(chunk, 2))
    for number in (1, 2, 3, 9, 16, 17, 40):
        gy, y = whole_numbers(rng, (number, 35), "f"), rng.standard_normal((number, 35)).astype("f")
        np.testing.assert_array_equal(gpu.get(column_sums(gpu.put(gy))), gy.sum(axis=0))
        g, sums = rectified_gradient(gpu.put(gy), gpu.put(y))
        np.testing.assert_array_equal(gpu.get(g), relu_backward(gy, y))
        np.testing.assert_array_equal(gpu.get(sums), relu_backward(gy, y).sum(axis=0))


def test_more_rows_than_the_most_chunks_of_the_least_size(gpu, rng):
    rows = whole_numbers(rng, (256 * 256 + 300, 2), "d")
    np.testing.assert_array_equal(gpu.get(column_sums(gpu.put(rows))), rows.sum(axis=0))
    if isinstance(gpu.put(rows), fake_cupy.ndarray):
        assert fake_cupy.launches == ["mdl_column_sums"] * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rectified_gradient(gpu, rng, shape, dtype):
    gy, y = whole_numbers(rng, shape, dtype), np.maximum(rng.standard_normal(shape), 0).astype(dtype)
    g, sums = rectified_gradient(gpu.put(gy), gpu.put(y))
    np.testing.assert_array_equal(gpu.get(g), relu_backward(gy, y))
    np.testing.assert_array_equal(gpu.get(sums), relu_backward(gy, y).sum(axis=0))


def test_zeros_and_what_is_no_number(gpu):
    y = np.array([[0.0, -0.0, np.nan, np.inf, -np.inf, 1e-30]])
    gy = np.array([[1.0, 2.0, 3.0, 4.0, np.inf, np.nan]])
    g, sums = rectified_gradient(gpu.put(gy), gpu.put(y))
    np.testing.assert_array_equal(gpu.get(g), relu_backward(gy, y))
    np.testing.assert_array_equal(gpu.get(sums), relu_backward(gy, y)[0])


def test_a_gradient_is_not_changed(gpu, rng):
    gy, y = rng.standard_normal((2, 40, 3))
    there = gpu.put(gy), gpu.put(y)
    rectified_gradient(*there)
    column_sums(there[0])
    for array, before in zip(there, (gy, y), strict=True):
        np.testing.assert_array_equal(gpu.get(array), before)


def test_sums_do_not_depend_on_the_grid(gpu, rng):
    rows = gpu.put(rng.standard_normal((1000, 70)).astype("f"))
    seen = []
    for threads in (256, 1024, 1 << 24):
        gpu.few_threads(threads)
        seen.append(gpu.get(column_sums(rows)).tobytes())
    assert len(set(seen)) == 1
