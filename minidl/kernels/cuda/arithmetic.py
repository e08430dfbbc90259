"""The matrix product of minidl/ops/arithmetic.py, in the precision that set_float32_matmul_precision asks for."""

import math

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels.cuda.gemm import gemm


def matrix_product(x: Array, y: Array) -> Array:
    """x (..., N, K) @ y (..., K, M) as one call of cuBLAS; a 1-d operand is a row or a column. Integers, and operands of two
    dtypes, are multiplied by CuPy."""
    if x.dtype != y.dtype or x.dtype.kind != "f":
        return x @ y
    rows = x[None, :] if x.ndim == 1 else x
    columns = y[:, None] if y.ndim == 1 else y
    stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    sizes = rows.shape[-2], columns.shape[-1]
    out = array_module(x).empty((*stack, *sizes), x.dtype)
    if columns.ndim == 2:  # one tall matrix
        gemm(
            rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1]), columns, out.reshape(math.prod(out.shape[:-1]), sizes[1])
        )
    else:
        gemm(_stacked(rows, stack), _stacked(columns, stack), out.reshape(math.prod(stack), *sizes))
    return out.reshape((*stack, *sizes[x.ndim == 1 : 2 - (y.ndim == 1)]))


def _stacked(x: Array, stack: tuple[int, ...]) -> Array:
    """(..., R, C) -> (S, R, C), repeated where it is broadcast."""
    whole = array_module(x).broadcast_to(x, (*stack, *x.shape[-2:]))
    return whole.reshape(math.prod(stack), *x.shape[-2:])
