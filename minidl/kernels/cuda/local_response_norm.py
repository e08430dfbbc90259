"""Local response normalisation, every array once through memory; the mathematics is in minidl/ops/local_response_norm.py."""

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch


def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    """x (..., C) -> y and d, both of x's shape."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y, d = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)
    window = size // 2, (size - 1) // 2
    sizes = x.size, max(x.shape[-1], 1), *window
    _launch("forward", x, y, d, *sizes, alpha / size, float(beta), float(k))
    return y, d


def local_response_norm_backward(gy: Array, x: Array, d: Array, size: int, alpha: float, beta: float) -> Array:
    """gy, x, d (..., C) -> gx (..., C)."""
    xp = array_module(x)
    gx = xp.empty(x.shape, x.dtype)
    arrays = [xp.ascontiguousarray(a) for a in (gy, x, d)]
    reversed_window = (size - 1) // 2, size // 2
    _launch("backward", *arrays, gx, x.size, max(x.shape[-1], 1), *reversed_window, alpha / size, float(beta))
    return gx


def _launch(direction: str, first: Array, *rest: Array | int | float) -> None:
    each = 16 // first.dtype.itemsize  # elements for each thread, as in local_response_norm.cu
    launch(
        "local_response_norm", f"mdl_local_response_norm_{direction}", -(-first.size // each), first, *rest, real=first.dtype
    )
