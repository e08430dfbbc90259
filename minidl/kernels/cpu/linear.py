"""linear on threads: each takes some columns or rows of the result, and reads only its own part of the weights.

The longer side of a result is shared, so that a batch of one image has work for every core too.
"""

import numpy as np

from minidl import memory
from minidl.kernels.cpu.sum_along import sum_along
from minidl.parallel import grain, run


def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """As the plain function in minidl/ops/linear.py."""
    y = _product(x, w.T)
    if b is not None:
        y += b
    return y


def linear_backward(
    gy: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, ...]
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As the plain function in minidl/ops/linear.py."""
    gx = _product(gy, w) if needs[0] else None
    gw = _product(gy.T, x) if needs[1] else None
    gb = sum_along(gy, 0) if needs[2] else None
    return gx, gw, gb


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N)."""
    (m, k), n = a.shape, b.shape[1]
    result = memory.empty((m, n), a.dtype)
    product = np.multiply if k == 1 else np.matmul  # BLAS takes several times as long where there is nothing to sum

    def some_columns(first: int, stop: int) -> None:
        product(a, b[:, first:stop], out=result[:, first:stop])

    def some_rows(first: int, stop: int) -> None:
        product(a[first:stop], b, out=result[first:stop])

    if n >= m:
        run(some_columns, n, grain(m * (k // 10 + 1)))
    else:
        run(some_rows, m, grain(n * (k // 10 + 1)))
    return result
