"""2-d max pooling: the largest pixel under each window.

Shapes
    x (N, C, H, W)   y (N, C, OH, OW)

Forward
    y[n,c,i,j] = max over u,v of  x[n, c, i*s + u*d - p, j*s + v*d - p]               (x is -infinity outside)

Backward
    y is a copy of one pixel, the winner, so dy/dx is 1 there and 0 elsewhere:
    gx[n,c,h,w] = sum of gy[n,c,i,j] over the windows (i,j) whose winner is (h,w)     (windows overlap if s < kernel)

    Remembering which of the KH*KW window elements won takes one byte for each output.

Saved
    argmax   gy goes to the pixel that won its window: its place in the window takes one byte, and x is not kept.

Ties: the first in row-major order wins, as in PyTorch. The 2012 code passed the gradient to every tied pixel
(cuda-convnet2, conv_util.cu); after a ReLU the two agree, as ties are at 0, where the ReLU stops the gradient.
NaN: a window with a NaN gives NaN.
Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.4 (overlapping pooling).
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, overload

from minidl import shapes
from minidl.device import Array, array_module
from minidl.grad_mode import is_grad_enabled
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.module import Module
from minidl.ops.conv2d import pad_images, tap
from minidl.shapes import Pair
from minidl.tensor import Function, Tensor


def _first_inside(xp: ModuleType, out: int, stride: int, padding: int, dilation: int) -> Array:
    """For each window, the first kernel element that is not in the padding before the image."""
    starts = padding - xp.arange(out) * stride
    return xp.maximum(-(-starts // dilation), 0)


def max_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> tuple[Array, Array]:
    """x (N, H, W, C) -> y (N, OH, OW, C) and argmax, y's shape: which of the KH*KW window elements won (uint8, or int32
    above 256)."""
    xp = array_module(x)
    (kh, kw), (oh, ow) = kernel, out
    pads = shapes.pool_padding(x.shape[1:3], out, kernel, stride, padding, dilation)
    padded = pad_images(x, pads, -xp.inf)
    y = xp.full((x.shape[0], oh, ow, x.shape[3]), -xp.inf, x.dtype)
    rows = _first_inside(xp, oh, stride[0], padding[0], dilation[0])
    columns = _first_inside(xp, ow, stride[1], padding[1], dilation[1])
    argmax = xp.empty(y.shape, "uint8" if kh * kw <= 256 else "int32")
    argmax[...] = (rows[:, None] * kw + columns)[:, :, None]  # a window of nothing but -infinity: its first pixel wins
    for u in range(kh):
        for v in range(kw):
            pixels = tap(padded, u, v, out, stride, dilation)
            better = pixels > y
            better |= pixels != pixels  # NaN
            xp.copyto(y, pixels, where=better)
            xp.copyto(argmax, argmax.dtype.type(u * kw + v), where=better)
    return y, argmax


def max_pool2d_values(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Array:
    """x (N, H, W, C) -> y (N, OH, OW, C): what is needed of it where nobody will ask who won."""
    return max_pool2d_forward(x, kernel, stride, padding, dilation, out)[0]


def max_pool2d_backward(
    gy: Array, argmax: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """gy, argmax (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    xp = array_module(gy)
    n, h, w, c = x_shape
    out = gy.shape[1:3]
    (top, bottom), (left, right) = shapes.pool_padding((h, w), out, kernel, stride, padding, dilation)
    gx = xp.zeros((n, h + top + bottom, w + left + right, c), gy.dtype)
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            pixels = tap(gx, u, v, out, stride, dilation)
            pixels += xp.where(argmax == u * kernel[1] + v, gy, 0)
    return gx[:, top : top + h, left : left + w]


def flat_indices(argmax: Array, width: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """argmax (N, OH, OW, C) -> h * W + w of each winner in its plane, int64: what return_indices gives."""
    xp = array_module(argmax)
    _, oh, ow, _ = argmax.shape
    u, v = argmax.astype("int64") // kernel[1], argmax.astype("int64") % kernel[1]
    h = u * dilation[0] + (xp.arange(oh) * stride[0] - padding[0])[:, None, None]
    w = v * dilation[1] + (xp.arange(ow) * stride[1] - padding[1])[:, None]
    return h * width + w


class MaxPool2dFunction(Function):
    name = "max_pool2d"
    kinked = True

    def forward(
        ctx, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair, return_indices: bool
    ) -> Array | tuple[Array, Array]:
        x = nhwc(x)
        ctx.x_shape, ctx.settings = x.shape, (kernel, stride, padding, dilation)
        if not (is_grad_enabled() or return_indices):
            return nchw(fastest(max_pool2d_values, x)(x, *ctx.settings, out))
        y, argmax = fastest(max_pool2d_forward, x)(x, *ctx.settings, out)
        ctx.save(argmax)
        if not return_indices:
            return nchw(y)
        return nchw(y), nchw(flat_indices(argmax, x.shape[2], *ctx.settings))

    def backward(ctx, gy: Array) -> tuple[Array]:
        (argmax,) = ctx.saved
        return (nchw(fastest(max_pool2d_backward, gy)(nhwc(gy), argmax, ctx.x_shape, *ctx.settings)),)


@overload
def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest pixel under each window. The formulas are at the top of this file.

    input     : (N, C, H, W), or (C, H, W) for one image; floats.
    stride    : None is the kernel's size.
    padding   : -infinity on each side, at most half the kernel.
    ceil_mode : the last window may hang over the end, but must start inside the image or the padding before it.
    return_indices : also the winners' positions h * W + w, int64.
    returns   : (N, C, OH, OW), or (C, OH, OW); channels-last memory.

    RuntimeError: windows that don't fit, stride < 1 and the like.
    """
    kernel, strides, pads, dilations, x = pool_arguments("max_pool2d", input, kernel_size, stride, padding, dilation)
    out = shapes.pool_out_size("max_pool2d", x.shape[2:], kernel, strides, pads, dilations, ceil_mode)
    result = MaxPool2dFunction.apply(
        x, kernel=kernel, stride=strides, padding=pads, dilation=dilations, out=out, return_indices=return_indices
    )
    if input.ndim == 4:
        return result
    if not return_indices:
        return result.reshape(result.shape[1:])
    y, indices = result
    return y.reshape(y.shape[1:]), indices.reshape(indices.shape[1:])


def pool_arguments(
    op: str, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> tuple[Pair, Pair, Pair, Pair, Tensor]:
    """The pools' arguments as pairs, and the input with an axis of images."""
    if input.ndim not in (3, 4) or input.dtype.kind != "f":
        raise RuntimeError(f"{op}: x must be floats of (C, H, W) or (N, C, H, W), got {input.dtype} {input.shape}")
    kernel = shapes.pair(op, "kernel_size", kernel_size, 1)
    strides = kernel if stride is None else shapes.pair(op, "stride", stride, 1)
    pads, dilations = shapes.pair(op, "padding", padding, 0), shapes.pair(op, "dilation", dilation, 1)
    x = input if input.ndim == 4 else input.reshape(1, *input.shape)
    return kernel, strides, pads, dilations, x


class MaxPool2d(Module):
    """max_pool2d; `stride=None` is the kernel's size."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """max_pool2d: with `return_indices` two Tensors. Type checkers see one, which too can be unpacked into Tensors."""
        settings = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return max_pool2d(input, *settings)  # type: ignore[call-overload]

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )
