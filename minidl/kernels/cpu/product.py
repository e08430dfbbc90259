"""Products of a tall matrix and a small one, in pieces that BLAS multiplies as they lie in memory.

BLAS first copies large matrices into an order of its own, which for a long thin one takes longer than to multiply it. OpenBLAS
has kernels for AVX-512 that copy nothing, for products of at most a million multiplications. Where these are, a tall matrix is
cut into pieces of so many rows.
Source: OpenBLAS, kernel/x86_64/sgemm_small_kernel_permit_skylakex.c (which products).
"""

from functools import cache

import numpy as np

from minidl.kernels.cpu.sum_along import sum_along
from minidl.parallel import blas_architectures, scratch

_MOST = 1_000_000  # multiplications of a product that BLAS does without copying
_ROWS, _SUMMED_ROWS = (16, 256), (128, 256)  # at least and at most in a piece


@cache
def _small_kernels() -> bool:
    """Has BLAS kernels for small matrices?"""
    return bool(blas_architectures() & {"SkylakeX", "Cooperlake", "SapphireRapids"})


def rows_at_once(small: int, dtype: np.dtype, limits: tuple[int, int] = _ROWS) -> int:
    """Rows in a piece when the other matrix has `small` numbers, a power of 2; 0 where the whole is faster."""
    if dtype != np.float32 or not _small_kernels():
        return 0
    least, most = limits
    rows = most
    while rows * small > _MOST:
        rows //= 2
    return rows if rows >= least else 0


def tall_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (M, N) = a (M, K) @ b (K, N). Rows of out may lie apart."""
    rows = rows_at_once(b.size, a.dtype)
    whole = len(a) - len(a) % rows if rows else 0
    if whole:
        pieces = whole // rows
        np.matmul(a[:whole].reshape(pieces, rows, -1), b, out=out[:whole].reshape(pieces, rows, -1))
    if whole < len(a):
        np.matmul(a[whole:], b, out=out[whole:])


def add_sum_of_products(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> None:
    """total (M, N) += a^T @ b for tall a (K, M) and b (K, N): the sum over their rows."""
    rows = rows_at_once(total.size, a.dtype, _SUMMED_ROWS)
    whole = len(a) - len(a) % rows if rows else 0
    if whole:
        pieces = whole // rows
        products = scratch("products", (pieces, *total.shape), total.dtype)
        np.matmul(a[:whole].reshape(pieces, rows, -1).swapaxes(1, 2), b[:whole].reshape(pieces, rows, -1), out=products)
        total += sum_along(products, 0)
    if whole < len(a):
        total += np.matmul(a[whole:].T, b[whole:], out=scratch("product", total.shape, total.dtype))
