"""2-d unshared convolution: windows as a convolution's, but each output pixel has filters and a bias of its own.

Shapes
    x (N, C, H, W)   weight (O, C/groups, KH, KW, OH, OW)   bias (O, OH, OW)   y (N, O, OH, OW)
    OH, OW as conv2d's; weight[..., i, j] and bias[..., i, j] are what a conv2d has for all pixels

Forward
    y[n,o,i,j] = b[o,i,j] + sum over c,u,v of  w[o,c,u,v,i,j] * x[n, c, i*s + u - p, j*s + v - p]        (x is 0 outside)

    With col[i,j] (N, KH*KW*C), the patches that all images have under output pixel (i,j), and its filters w[i,j] (KH*KW*C, O),
    that is a product for each pixel:  y[i,j] = col[i,j] @ w[i,j] + b[i,j].

Backward: as conv2d's, for each pixel
    gb[i,j]   = sum of gy[i,j] over the images
    gw[i,j]   = col[i,j]^T @ gy[i,j]
    gcol[i,j] = gy[i,j] @ w[i,j]^T
    gx        = col2im(gcol)             a pixel's gradient is the sum over the patches that it was copied into

Saved
    x   gw = col^T @ gy needs x's patches: x is kept and they are gathered again, as they take many times its memory.
    w   gcol = gy @ w^T needs the weights; they are the parameter's own memory, so this costs nothing.

A convolution uses each weight OH * OW times for an image, this layer once: as many products, and OH * OW times the memory. The
weight's memory is that of (OH, OW, O, KH, KW, C/groups), so that a pixel's filters lie together.
Source: cuda-convnet's layer type `local`; Taigman, Yang, Ranzato and Wolf, "DeepFace: closing the gap to human-level
performance in face verification", CVPR 2014, section 3.1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.ops.arithmetic import sum_along
from minidl.ops.conv2d import check_channels, col2im, im2col, pad_images
from minidl.shapes import Padding, Pair
from minidl.tensor import Function, Tensor

AS_STORED = 4, 5, 0, 2, 3, 1  # weight (O, C/groups, KH, KW, OH, OW) -> (OH, OW, O, KH, KW, C/groups)
AS_NAMED = 2, 5, 3, 4, 0, 1  # and back


def local2d_forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, groups: int) -> Array:
    """x (N, H, W, C), w (OH, OW, O, KH, KW, C/groups), b (OH, OW, O) or None -> y (N, OH, OW, O)."""
    oh, ow, out = w.shape[:3]
    col, filters = _patches(pad_images(x, padding), w, stride, groups), _filters(w, groups)
    y = (col @ filters.swapaxes(2, 3)).transpose(2, 0, 1, 3).reshape(len(x), oh, ow, out)
    return array_module(x).ascontiguousarray(y) if b is None else y + b


def local2d_backward(
    gy: Array, x: Array, w: Array, stride: Pair, padding: Padding, groups: int, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    """gy (N, OH, OW, O) -> gx like x, gw like w, gb (OH, OW, O); None where `needs` says so."""
    oh, ow, out, kh, kw, group = w.shape
    padded, n = pad_images(x, padding), len(x)
    upstream = gy.reshape(n, oh * ow, groups, out // groups).transpose(1, 2, 0, 3)  # (OH*OW, groups, N, O/groups)
    gx = gw = None
    if needs[0]:
        gcol = (upstream @ _filters(w, groups)).reshape(oh, ow, groups, n, kh, kw, group)
        gcol = gcol.transpose(3, 0, 1, 4, 5, 2, 6).reshape(n, oh, ow, kh, kw, groups * group)
        (top, _), (left, _) = padding
        gx = col2im(gcol, padded.shape, stride, (1, 1))[:, top : top + x.shape[1], left : left + x.shape[2]]
    if needs[1]:
        gw = (upstream.swapaxes(2, 3) @ _patches(padded, w, stride, groups)).reshape(w.shape)
    return gx, gw, fastest(sum_along, gy)(gy, 0) if needs[2] else None


def _patches(padded: Array, w: Array, stride: Pair, groups: int) -> Array:
    """What all images have under each output pixel: (OH*OW, groups, N, KH*KW*C/groups)."""
    oh, ow, _, kh, kw, group = w.shape
    n = len(padded)
    col = im2col(padded, (kh, kw), stride, (1, 1)).reshape(n, oh * ow, kh * kw, groups, group)
    return col.transpose(1, 3, 0, 2, 4).reshape(oh * ow, groups, n, kh * kw * group)


def _filters(w: Array, groups: int) -> Array:
    """Each output pixel's: (OH*OW, groups, O/groups, KH*KW*C/groups)."""
    oh, ow, out, *patch = w.shape
    return w.reshape(oh * ow, groups, out // groups, math.prod(patch))


class Local2dFunction(Function):
    name = "local2d"

    def forward(ctx, x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, groups: int) -> Array:
        x, w = nhwc(x), array_module(w).ascontiguousarray(w.transpose(*AS_STORED))
        b = None if b is None else b.transpose(1, 2, 0)
        ctx.settings = stride, padding, groups
        ctx.save(x, w)
        return nchw(fastest(local2d_forward, x)(x, w, b, *ctx.settings))

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        gx, gw, gb = fastest(local2d_backward, x)(nhwc(gy), x, w, *ctx.settings, ctx.needs_grad)
        return (
            None if gx is None else nchw(gx),
            None if gw is None else gw.transpose(*AS_NAMED),
            None if gb is None else gb.transpose(2, 0, 1),
        )


def local2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    groups: int = 1,
) -> Tensor:
    """Filters of its own for each output pixel. The formulas are at the top of this file; arguments as for conv2d.

    input    : (N, C, H, W), or (C, H, W) for one image; N may be 0.
    weight   : (O, C / groups, KH, KW, OH, OW), of input's dtype.
    bias     : (O, OH, OW) or None.
    returns  : (N, O, OH, OW), or (O, OH, OW) for one image; channels-last memory.

    RuntimeError: channels or sizes that don't fit, different dtypes, stride < 1, padding < 0 and the like.
    """
    if weight.ndim != 6:
        raise RuntimeError(f"local2d: weight must be (O, C / groups, KH, KW, OH, OW), got {weight.shape}")
    shapes.check_conv("local2d", input.shape, weight.shape[:4], None, groups)
    strides, kernel = shapes.pair("local2d", "stride", stride, 1), weight.shape[2:4]
    pads = shapes.conv_padding("local2d", padding, kernel, strides, (1, 1))
    out = shapes.out_size("local2d", input.shape[-2:], kernel, strides, pads, (1, 1))
    if weight.shape[4:] != out:
        raise RuntimeError(
            f"local2d: weight has filters for {weight.shape[4:]} pixels, the output has {out} "
            f"(x {input.shape}, weight {weight.shape})"
        )
    if bias is not None and bias.shape != (weight.shape[0], *out):
        raise RuntimeError(f"local2d: bias must be {(weight.shape[0], *out)}, got {bias.shape} (weight {weight.shape})")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise RuntimeError(f"local2d: {name} must have x's dtype {input.dtype}, got {other.dtype}")
    x = input if input.ndim == 4 else input.reshape(1, *input.shape)
    y = Local2dFunction.apply(x, weight, bias, stride=strides, padding=pads, groups=groups)
    return y if input.ndim == 4 else y.reshape(y.shape[1:])


class Local2d(Module):
    """local2d with parameters weight (out_channels, in_channels / groups, KH, KW, OH, OW) and bias (out_channels, OH, OW).

    input_size : an int or (H, W) of the images, which says how many filters there are. Other arguments as for Conv2d, which
                 gives the initial values too: uniform, to 1 / sqrt(in_channels / groups * KH * KW).

    ValueError: channels or groups below 1, channels that groups does not divide. RuntimeError: sizes below 1, padding below 0,
    a kernel that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        groups: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_channels("Local2d", in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.input_size = shapes.pair("Local2d", "input_size", input_size, 1)
        self.kernel_size = shapes.pair("Local2d", "kernel_size", kernel_size, 1)
        self.stride = shapes.pair("Local2d", "stride", stride, 1)
        self.padding = padding if isinstance(padding, str) else shapes.pair("Local2d", "padding", padding, 0)
        pads = shapes.conv_padding("Local2d", self.padding, self.kernel_size, self.stride, (1, 1))
        oh, ow = shapes.out_size("Local2d", self.input_size, self.kernel_size, self.stride, pads, (1, 1))
        dtype = np.float32 if dtype is None else dtype
        stored = np.empty((oh, ow, out_channels, *self.kernel_size, in_channels // groups), dtype)
        self.weight = Parameter(Tensor(stored.transpose(*AS_NAMED), device=device))
        biases = Parameter(Tensor(np.empty((out_channels, oh, ow), dtype), device=device)) if bias else None
        self.register_parameter("bias", biases)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: weight and bias uniform in [-1/sqrt(fan_in), 1/sqrt(fan_in))."""
        bound = 1 / math.sqrt(self.in_channels // self.groups * math.prod(self.kernel_size))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return local2d(input, self.weight, self.bias, self.stride, self.padding, self.groups)

    def extra_repr(self) -> str:
        always = (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        unusual = {"padding": (self.padding, (0, 0)), "groups": (self.groups, 1)}
        parts = [f"{name}={value}" for name, (value, usual) in unusual.items() if value != usual]
        return ", ".join([always, *parts, *([] if self.bias is not None else ["bias=False"])])
