"""2-d convolution (cross-correlation, as every framework's) by im2col: gather patches, then one matrix product.

Shapes
    x (N, C, H, W)   weight (O, C/groups, KH, KW)   bias (O,)   y (N, O, OH, OW)
    OH = floor((H + top + bottom - dilation*(KH-1) - 1) / stride) + 1, OW likewise

Forward
    y[n,o,i,j] = b[o] + sum over c,u,v of  w[o,c,u,v] * x[n, c, i*s + u*d - p, j*s + v*d - p]        (x is 0 outside)

    The patch under output pixel (n,i,j) becomes a row of `col`, (N*OH*OW, KH*KW*C), and each filter a column of the weight
    matrix, (KH*KW*C, O). All the sums are then one product:  y = col @ w + b.

Backward: differentiate that product, and undo the gather
    gb   = sum of gy over n,i,j        each output pixel got b[o] once
    gw   = col^T @ gy                  weight (o,c,u,v) touched every patch element (c,u,v)
    gcol = gy @ w^T                    then a pixel's gradient is the sum over the patches that it was copied into:
    gx   = col2im(gcol)                col2im is the transpose of im2col, so it adds where im2col copied

Saved
    x   gw = col^T @ gy needs x's patches: x is kept and they are gathered again, as they take many times its memory.
    w   gx = col2im(gy @ w^T) needs the weights; they are the parameter's own memory, so this costs nothing.

Groups: channels and filters are cut into `groups` equal parts; part g of the filters sees part g of the channels only.

The patches are gathered for a few images at a time, so that they are still in the processor's cache when the product reads
them, and again in backward rather than kept: for AlexNet's conv2 they are 25 times the size of its input.
Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006 (im2col).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.weighted import Weighted
from minidl.shapes import Padding, Pair
from minidl.tensor import Function, Tensor

IMAGES_AT_ONCE = 4  # patches of 4 images: 5 to 14 MB for AlexNet's layers


def pad_images(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """(N, H, W, C) -> (N, H + top + bottom, W + left + right, C), filled with `value`; x itself if there is nothing to add."""
    (top, bottom), (left, right) = padding
    if top == bottom == left == right == 0:
        return x
    n, h, w, c = x.shape
    padded = array_module(x).full((n, h + top + bottom, w + left + right, c), value, x.dtype)
    padded[:, top : top + h, left : left + w] = x
    return padded


def tap(x: Array, u: int, v: int, out: Pair, stride: Pair, dilation: Pair) -> Array:
    """The pixels of padded x (N, H, W, C) that kernel element (u, v) meets: a view (N, OH, OW, C)."""
    (oh, ow), (sh, sw), (top, left) = out, stride, (u * dilation[0], v * dilation[1])
    return x[:, top : top + sh * (oh - 1) + 1 : sh, left : left + sw * (ow - 1) + 1 : sw]


def im2col(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """Padded images (N, H, W, C) -> the patch under every output pixel: (N, OH, OW, KH, KW, C), a view that copies nothing.

    Moving to the next output pixel moves `stride` pixels in the image, to the next kernel element `dilation` pixels.
    """
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    n, h, w, c = x.shape
    oh, ow = (h - shapes.span(kh, dh)) // sh + 1, (w - shapes.span(kw, dw)) // sw + 1
    image, row, pixel, channel = x.strides
    strides = (image, sh * row, sw * pixel, dh * row, dw * pixel, channel)
    return array_module(x).lib.stride_tricks.as_strided(x, (n, oh, ow, kh, kw, c), strides)


def col2im(gcol: Array, shape: tuple[int, ...], stride: Pair, dilation: Pair) -> Array:
    """The transpose of im2col: gradients of patches (N, OH, OW, KH, KW, C) added up in images of `shape` (N, H, W, C)."""
    _, oh, ow, kh, kw, _ = gcol.shape
    gx = array_module(gcol).zeros(shape, gcol.dtype)
    for u in range(kh):
        for v in range(kw):
            pixels = tap(gx, u, v, (oh, ow), stride, dilation)
            pixels += gcol[:, :, :, u, v]
    return gx


def _pieces(n: int, groups: int, channels: int, filters: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut the work: (a few images, a group's channels, a group's filters), for every group and all images."""
    for g in range(groups):
        for first in range(0, n, IMAGES_AT_ONCE):
            yield (
                slice(first, min(first + IMAGES_AT_ONCE, n)),
                slice(g * channels, (g + 1) * channels),
                slice(g * filters, (g + 1) * filters),
            )


def conv2d_forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Array:
    """x (N, H, W, C), w (O, KH, KW, C/groups), b (O,) or None -> y (N, OH, OW, O)."""
    out, kh, kw, cg = w.shape
    oh, ow = shapes.out_size("conv2d", x.shape[1:3], (kh, kw), stride, padding, dilation)
    padded = pad_images(x, padding)
    y = array_module(x).empty((x.shape[0], oh, ow, out), x.dtype)
    for images, channels, filters in _pieces(x.shape[0], groups, cg, out // groups):
        col = im2col(padded[images, :, :, channels], (kh, kw), stride, dilation).reshape(-1, kh * kw * cg)
        y[images, :, :, filters] = (col @ w[filters].reshape(-1, kh * kw * cg).T).reshape(-1, oh, ow, out // groups)
    if b is not None:
        y += b
    return y


def conv2d_backward(
    gy: Array,
    x: Array,
    w: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """gy (N, OH, OW, O) -> gx like x, gw like w, gb (O,); None where `needs` says so."""
    xp = array_module(gy)
    _, oh, ow, out = gy.shape
    _, kh, kw, cg = w.shape
    padded = pad_images(x, padding)
    gpadded = xp.empty(padded.shape, x.dtype) if needs[0] else None
    gw = xp.zeros(w.shape, w.dtype) if needs[1] else None
    for images, channels, filters in _pieces(x.shape[0], groups, cg, out // groups):
        gyg = gy[images, :, :, filters].reshape(-1, out // groups)
        if gw is not None:
            col = im2col(padded[images, :, :, channels], (kh, kw), stride, dilation).reshape(-1, kh * kw * cg)
            gw[filters] += (gyg.T @ col).reshape(-1, kh, kw, cg)
        if gpadded is not None:
            gcol = (gyg @ w[filters].reshape(-1, kh * kw * cg)).reshape(-1, oh, ow, kh, kw, cg)
            gpadded[images, :, :, channels] = col2im(gcol, padded[images, :, :, channels].shape, stride, dilation)
    (top, _), (left, _) = padding
    gx = None if gpadded is None else gpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    gb = gy.sum(axis=(0, 1, 2)) if needs[2] else None
    return gx, gw, gb


class Conv2dFunction(Function):
    name = "conv2d"
    weighted = True

    def forward(ctx, x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Array:
        x, w = nhwc(x), nhwc(w)
        ctx.settings = stride, padding, dilation, groups
        ctx.save(x, w)
        return nchw(fastest(conv2d_forward, x)(x, w, b, *ctx.settings))

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        gx, gw, gb = fastest(conv2d_backward, x)(nhwc(gy), x, w, *ctx.settings, ctx.needs_grad)
        return None if gx is None else nchw(gx), None if gw is None else nchw(gw), gb


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve images with filters. The formulas are at the top of this file.

    input    : (N, C, H, W), or (C, H, W) for one image; N may be 0.
    weight   : (O, C / groups, KH, KW), of input's dtype.
    bias     : (O,) or None.
    stride, dilation : an int or (vertical, horizontal), at least 1.
    padding  : zeros on each side: an int or (vertical, horizontal); 'valid' is 0; 'same' keeps H x W at stride 1, the
               odd pixel going to the bottom and right.
    returns  : (N, O, OH, OW), or (O, OH, OW) for one image; channels-last memory.

    RuntimeError: channels or sizes that don't fit, different dtypes, stride < 1, padding < 0 and the like.
    """
    return convolve(Conv2dFunction, input, weight, bias, stride, padding, dilation, groups)


def convolve(
    function: type[Function],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """Apply an op of this kind to checked arguments, and to an input with an axis of images."""
    op, x_shape = function.name, input.shape
    shapes.check_conv(op, x_shape, weight.shape, None if bias is None else bias.shape, groups)
    strides, dilations = shapes.pair(op, "stride", stride, 1), shapes.pair(op, "dilation", dilation, 1)
    kernel = weight.shape[2:]
    pads = shapes.conv_padding(op, padding, kernel, strides, dilations)
    shapes.out_size(op, x_shape[-2:], kernel, strides, pads, dilations)
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise RuntimeError(f"{op}: {name} must have x's dtype {input.dtype}, got {other.dtype}")
    x = input if input.ndim == 4 else input.reshape(1, *x_shape)
    y = function.apply(x, weight, bias, stride=strides, padding=pads, dilation=dilations, groups=groups)
    return y if input.ndim == 4 else y.reshape(y.shape[1:])


class Conv2d(Weighted):
    """conv2d with parameters weight (out_channels, in_channels / groups, KH, KW) and bias (out_channels,).

    Input (N, in_channels, H, W), output (N, out_channels, OH, OW). The weight has channels-last memory.

    ValueError: channels or groups below 1, channels that groups does not divide, a padding_mode other than 'zeros'.
    RuntimeError: kernel_size, stride or dilation below 1, padding below 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_channels("Conv2d", in_channels, out_channels, groups)
        if padding_mode != "zeros":
            raise ValueError(f"Conv2d: padding_mode must be 'zeros', got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = shapes.pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = shapes.pair("Conv2d", "stride", stride, 1)
        self.padding = _conv_padding(padding)
        self.dilation = shapes.pair("Conv2d", "dilation", dilation, 1)
        weight = (out_channels, in_channels // groups, *self.kernel_size)
        self._make_parameters(weight, (out_channels,) if bias else None, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        always = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        unusual = {"padding": (self.padding, (0, 0)), "dilation": (self.dilation, (1, 1)), "groups": (self.groups, 1)}
        parts = [f"{name}={value}" for name, (value, usual) in unusual.items() if value != usual]
        return ", ".join([always, *parts, *([] if self.bias is not None else ["bias=False"])])


def check_channels(layer: str, in_channels: int, out_channels: int, groups: int) -> None:
    """ValueError unless all are at least 1, and the channels divisible by groups."""
    if not shapes.is_int(groups) or groups < 1:
        raise ValueError(f"{layer}: groups must be an int of at least 1, got {groups!r}")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not shapes.is_int(channels) or channels < 1:
            raise ValueError(f"{layer}: {name} must be an int of at least 1, got {channels!r}")
        if channels % groups:
            raise ValueError(f"{layer}: {name} must be divisible by groups, got {channels} and {groups}")


def _conv_padding(padding: int | Sequence[int] | str) -> Any:
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"Conv2d: padding must be an int, two ints, 'valid' or 'same', got {padding!r}")
        return padding
    return shapes.pair("Conv2d", "padding", padding, 0)
