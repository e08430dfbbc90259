"""minidl.kernels.cpu.product: the pieces make the whole product, with and without BLAS's kernels for small matrices."""

import numpy as np
import pytest

from minidl.kernels.cpu import product


@pytest.fixture(params=[True, False], ids=["small kernels", "none"])
def small_kernels(request, monkeypatch):
    monkeypatch.setattr(product, "_small_kernels", lambda: request.param)
    return request.param


def integers(rng, *shape, dtype=np.float32):
    """Of which every sum of products here is exact."""
    return rng.integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 700])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_product_of_a_tall_matrix(rows, dtype, small_kernels, rng):
    a, b = integers(rng, rows, 27, dtype=dtype), integers(rng, 27, 16, dtype=dtype)
    wide = np.full((rows, 40), np.nan, dtype)
    product.tall_product(a, b, wide[:, 3:19])
    np.testing.assert_array_equal(wide[:, 3:19], a @ b)
    assert np.isnan(wide[:, :3]).all() and np.isnan(wide[:, 19:]).all()


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 700])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sum_of_tall_matrices_products(rows, dtype, small_kernels, rng):
    a, b, total = (integers(rng, *shape, dtype=dtype) for shape in ((rows, 16), (rows, 27), (16, 27)))
    expected = total + a.T @ b
    product.add_sum_of_products(a, b, total)
    np.testing.assert_array_equal(total, expected)


def test_pieces_are_as_long_as_blas_multiplies_them_without_copying(monkeypatch):
    monkeypatch.setattr(product, "_small_kernels", lambda: True)
    assert product.rows_at_once(75 * 32, np.dtype(np.float32)) == 256  # 75 * 32 * 256 is below a million
    assert product.rows_at_once(800 * 32, np.dtype(np.float32)) == 32
    assert product.rows_at_once(1_000_000 // 15, np.dtype(np.float32)) == 0
    assert product.rows_at_once(75 * 32, np.dtype(np.float64)) == 0
    monkeypatch.setattr(product, "_small_kernels", lambda: False)
    assert product.rows_at_once(75 * 32, np.dtype(np.float32)) == 0
