"""2-d average pooling: the mean under each window.

Shapes
    x (N, C, H, W)   y (N, C, OH, OW)

Forward
    y[n,c,i,j] = 1/m[i,j] * sum over u,v of  x[n, c, i*s + u - p, j*s + v - p]        (x is 0 outside)

    m counts the pixels of the window: padding counts too with count_include_pad (but never what ceil_mode hangs over beyond
    the padding), else only pixels of the image. divisor_override replaces m.

Backward
    gx[n,c,h,w] = sum of gy[n,c,i,j] / m[i,j] over the windows (i,j) that hold (h,w)

Saved
    counts   Every pixel gets gy divided by the number of pixels in the window, which differs at the edges.
Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998 (subsampling).
"""

from collections.abc import Sequence
from types import ModuleType

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.module import Module
from minidl.ops.conv2d import pad_images, tap
from minidl.ops.max_pool2d import pool_arguments
from minidl.shapes import Pair
from minidl.tensor import Function, Tensor


def _lengths(xp: ModuleType, size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool) -> Array:
    """How many pixels of each window count along one side: (out,)."""
    starts = xp.arange(out) * stride - padding
    ends = xp.minimum(starts + kernel, size + padding)
    if not include_pad:
        starts, ends = xp.maximum(starts, 0), xp.minimum(ends, size)
    return ends - starts


def window_counts(
    x: Array, out: Pair, kernel: Pair, stride: Pair, padding: Pair, include_pad: bool, divisor: int | None
) -> Array:
    """m: (OH, OW, 1) in the dtype of x (N, H, W, C)."""
    xp = array_module(x)
    if divisor is not None:
        return xp.full((*out, 1), divisor, x.dtype)
    rows, columns = (_lengths(xp, x.shape[1 + i], out[i], kernel[i], stride[i], padding[i], include_pad) for i in range(2))
    return (rows[:, None] * columns)[:, :, None].astype(x.dtype)


def avg_pool2d_forward(x: Array, counts: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """x (N, H, W, C), counts (OH, OW, 1) -> y (N, OH, OW, C)."""
    out = counts.shape[:2]
    pads = shapes.pool_padding(x.shape[1:3], out, kernel, stride, padding, (1, 1))
    padded = pad_images(x, pads)
    y = array_module(x).zeros((x.shape[0], *out, x.shape[3]), x.dtype)
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            y += tap(padded, u, v, out, stride, (1, 1))
    y /= counts
    return y


def avg_pool2d_backward(gy: Array, counts: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """gy (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    n, h, w, c = x_shape
    out = gy.shape[1:3]
    (top, bottom), (left, right) = shapes.pool_padding((h, w), out, kernel, stride, padding, (1, 1))
    gx = array_module(gy).zeros((n, h + top + bottom, w + left + right, c), gy.dtype)
    share = gy / counts
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            pixels = tap(gx, u, v, out, stride, (1, 1))
            pixels += share
    return gx[:, top : top + h, left : left + w]


class AvgPool2dFunction(Function):
    name = "avg_pool2d"

    def forward(
        ctx, x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Pair, include_pad: bool, divisor: int | None
    ) -> Array:
        x = nhwc(x)
        ctx.x_shape, ctx.settings = x.shape, (kernel, stride, padding)
        counts = window_counts(x, out, kernel, stride, padding, include_pad, divisor)
        ctx.save(counts)
        return nchw(fastest(avg_pool2d_forward, x)(x, counts, *ctx.settings))

    def backward(ctx, gy: Array) -> tuple[Array]:
        (counts,) = ctx.saved
        return (nchw(fastest(avg_pool2d_backward, gy)(nhwc(gy), counts, ctx.x_shape, *ctx.settings)),)


def avg_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean under each window. The formulas are at the top of this file; arguments and errors as for max_pool2d.

    count_include_pad : do the padding's zeros count in the mean?
    divisor_override  : divide by this instead; RuntimeError for 0.
    """
    if divisor_override == 0:
        raise RuntimeError("avg_pool2d: divisor_override must not be 0, got 0")
    kernel, strides, pads, _, x = pool_arguments("avg_pool2d", input, kernel_size, stride, padding)
    out = shapes.pool_out_size("avg_pool2d", x.shape[2:], kernel, strides, pads, (1, 1), ceil_mode)
    y = AvgPool2dFunction.apply(
        x,
        kernel=kernel,
        stride=strides,
        padding=pads,
        out=out,
        include_pad=count_include_pad,
        divisor=divisor_override,
    )
    return y if input.ndim == 4 else y.reshape(y.shape[1:])


class AvgPool2d(Module):
    """avg_pool2d; `stride=None` is the kernel's size."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
