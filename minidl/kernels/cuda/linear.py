"""linear as matrix products that read their operands where they are; the mathematics is in minidl/ops/linear.py."""

from minidl.device import Array, array_module
from minidl.kernels.cuda.gemm import gemm
from minidl.kernels.cuda.rows import add_bias, column_sums


def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """As the plain function in minidl/ops/linear.py."""
    y = _product(x, w.T)
    if b is not None:
        add_bias(y, b)
    return y


def linear_backward(gy: Array, x: Array, w: Array, needs: tuple[bool, ...]) -> tuple[Array | None, Array | None, Array | None]:
    """As the plain function in minidl/ops/linear.py."""
    gy = array_module(gy).ascontiguousarray(gy)
    gx = _product(gy, w) if needs[0] else None
    gw = _product(gy.T, x) if needs[1] else None
    gb = column_sums(gy) if needs[2] else None
    return gx, gw, gb


def _product(a: Array, b: Array) -> Array:
    """a (M, K) @ b (K, N) -> (M, N)."""
    out = array_module(a).empty((a.shape[0], b.shape[1]), a.dtype)
    gemm(a, b, out)
    return out
