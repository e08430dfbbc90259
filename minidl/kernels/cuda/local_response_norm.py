"""Local response normalisation, every array once through memory; the mathematics is in minidl/ops/local_response_norm.py.

Backward computes the denominators again: d is neither written nor kept.
"""

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch


def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, None]:
    """x (..., C) -> y of x's shape, and None in place of d."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y = xp.empty(x.shape, x.dtype)
    _launch("forward", x, y, *_sizes(x, size), alpha / size, float(beta), float(k))
    return y, None


def local_response_norm_backward(
    gy: Array, x: Array, d: Array | None, size: int, alpha: float, beta: float, k: float = 1.0
) -> Array:
    """gy, x (..., C) -> gx (..., C). d is not looked at."""
    xp = array_module(x)
    gx = xp.empty(x.shape, x.dtype)
    arrays = [xp.ascontiguousarray(a) for a in (gy, x)]
    _launch("backward", *arrays, gx, *_sizes(x, size), alpha / size, float(beta), float(k))
    return gx


def _sizes(x: Array, size: int) -> tuple[int, int, int, int]:
    """The elements, those of a pixel, and how many of them a window has before and after its own."""
    return x.size, max(x.shape[-1], 1), size // 2, (size - 1) // 2


def _launch(direction: str, first: Array, *rest: Array | int | float) -> None:
    each = 16 // first.dtype.itemsize  # elements for each thread, as in local_response_norm.cu
    launch(
        "local_response_norm", f"mdl_local_response_norm_{direction}", -(-first.size // each), first, *rest, real=first.dtype
    )
