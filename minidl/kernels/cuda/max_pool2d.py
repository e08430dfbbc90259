"""2-d max pooling, a pixel's windows gathered in backward; the mathematics is in minidl/ops/max_pool2d.py."""

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch
from minidl.shapes import Pair

BLOCK = 128  # threads, as in max_pool2d.cu


def max_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> tuple[Array, Array]:
    """x (N, H, W, C) -> y (N, OH, OW, C) and argmax, y's shape: which of the KH*KW window elements won (uint8, or int32
    above 256)."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y = xp.empty((x.shape[0], *out, x.shape[3]), x.dtype)
    argmax = xp.empty(y.shape, "uint8" if kernel[0] * kernel[1] <= 256 else "int32")
    geometry = *x.shape, *out, *kernel, *stride, *padding, *dilation
    _launch_rows("forward", argmax, x.shape[0] * out[0], x, y, argmax, *geometry)
    return y, argmax


def max_pool2d_values(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Array:
    """x (N, H, W, C) -> y (N, OH, OW, C)."""
    return max_pool2d_forward(x, kernel, stride, padding, dilation, out)[0]


def max_pool2d_backward(
    gy: Array, argmax: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """gy, argmax (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    xp = array_module(gy)
    gy, argmax = xp.ascontiguousarray(gy), xp.ascontiguousarray(argmax)
    gx = xp.empty(x_shape, gy.dtype)
    geometry = *x_shape, *gy.shape[1:3], *kernel, *stride, *padding, *dilation
    _launch_rows("backward", argmax, x_shape[0] * x_shape[1], gy, argmax, gx, *geometry)
    return gx


def _launch_rows(direction: str, argmax: Array, rows: int, first: Array, *args: Array | int) -> None:
    """A block for each row of pixels, of all images."""
    if argmax.size:
        name = f"mdl_max_pool2d_{direction}_{argmax.dtype.name}"
        launch("max_pool2d", name, rows * BLOCK, first, *args, real=first.dtype, block=BLOCK)
