"""2-d transposed convolution: every pixel puts down its value times a filter, and where filters overlap they add up.

Shapes
    x (N, C, H, W)   weight (C, O/groups, KH, KW)   bias (O,)   y (N, O, OH, OW)
    OH = (H - 1) * stride + dilation*(KH-1) + 1 - 2 * padding + output_padding, OW likewise

Forward
    y[n,o,i,j] = b[o] + sum of w[c,o,u,v] * x[n,c,h,k]   over all c,h,k,u,v with h*s + u*d - p = i, k*s + v*d - p = j

    That is what conv2d's backward does: a convolution of images like y with the filters w has outputs like x, and the gradient
    of the images for gy = x is this sum. So conv2d's functions compute it, groups and all, on a canvas of all that the filters
    reach; y is cut out of the canvas.

Backward
    gb = sum of gy over n,i,j
    gx = conv2d(gy, w)          a pixel was put down where the convolution's patch for it lies
    gw = conv2d's gw            with gy for its images and x for the gradient of its outputs

    where gy lies on the canvas, with zeros around it.

Saved
    x   gw[c,o,u,v] = sum of x * gy over the places where this weight took x to y.
    w   gx = conv2d(gy, w); the weights are the parameter's own memory, so this costs nothing.

Padding takes pixels off the output, where a convolution's adds some to the input. With a stride, images of several sizes have
convolutions of one size; output_padding says which of them is meant. It adds pixels at the bottom and right, which padding
would have taken off, or which no filter reaches: these hold the bias alone.
Source: Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 3.3.
"""

from collections.abc import Sequence
from typing import Any

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.weighted import Weighted
from minidl.ops.arithmetic import sum_along
from minidl.ops.conv2d import check_channels, conv2d_backward, conv2d_forward
from minidl.shapes import Padding, Pair
from minidl.tensor import Function, Tensor

NO_PADDING: Padding = ((0, 0), (0, 0))  # of the convolution of the canvas


def canvas_shape(x: Array, w: Array, stride: Pair, dilation: Pair, groups: int) -> tuple[int, int, int, int]:
    """(N, rows, columns, O): all that the filters of x's pixels reach."""
    (_, h, k, _), (_, kh, kw, per_group) = x.shape, w.shape
    rows, columns = (h - 1) * stride[0] + shapes.span(kh, dilation[0]), (k - 1) * stride[1] + shapes.span(kw, dilation[1])
    return len(x), rows, columns, per_group * groups


def window(x: Array, corner: Pair, size: Pair) -> Array:
    """x (N, H, W, C) through a window of `size` whose first pixel is `corner` of x, which may be negative; 0 outside."""
    (top, left), (h, w) = corner, size
    y = array_module(x).zeros((len(x), h, w, x.shape[3]), x.dtype)
    seen = x[:, max(top, 0) : max(top + h, 0), max(left, 0) : max(left + w, 0)]
    above, before = max(-top, 0), max(-left, 0)
    y[:, above : above + seen.shape[1], before : before + seen.shape[2]] = seen
    return y


def conv_transpose2d_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Pair
) -> Array:
    """x (N, H, W, C), w (C, KH, KW, O/groups), b (O,) or None -> y (N, *out, O)."""
    empty = array_module(x).empty(canvas_shape(x, w, stride, dilation, groups), x.dtype)  # what is on it matters to gw only
    canvas, _, _ = fastest(conv2d_backward, x)(x, empty, w, stride, NO_PADDING, dilation, groups, (True, False, False))
    y = window(canvas, padding, out)
    if b is not None:
        y += b
    return y


def conv_transpose2d_backward(
    gy: Array, x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    """gy (N, OH, OW, O) -> gx like x, gw like w, gb (O,); None where `needs` says so."""
    gb = fastest(sum_along, gy)(gy, (0, 1, 2)) if needs[2] else None
    _, rows, columns, _ = canvas_shape(x, w, stride, dilation, groups)
    g = window(gy, (-padding[0], -padding[1]), (rows, columns))
    gx = fastest(conv2d_forward, g)(g, w, None, stride, NO_PADDING, dilation, groups) if needs[0] else None
    _, gw, _ = fastest(conv2d_backward, g)(x, g, w, stride, NO_PADDING, dilation, groups, (False, needs[1], False))
    return gx, gw, gb


class ConvTranspose2dFunction(Function):
    name = "conv_transpose2d"

    def forward(
        ctx, x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Pair
    ) -> Array:
        x, w = nhwc(x), nhwc(w)
        ctx.settings = stride, padding, dilation, groups
        ctx.save(x, w)
        return nchw(fastest(conv_transpose2d_forward, x)(x, w, b, *ctx.settings, out))

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        gx, gw, gb = fastest(conv_transpose2d_backward, x)(nhwc(gy), x, w, *ctx.settings, ctx.needs_grad)
        return None if gx is None else nchw(gx), None if gw is None else nchw(gw), gb


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Put each pixel down, times a filter. The formulas are at the top of this file.

    input    : (N, C, H, W), or (C, H, W) for one image; N may be 0.
    weight   : (C, O / groups, KH, KW), of input's dtype.
    bias     : (O,) or None.
    stride, dilation : an int or (vertical, horizontal), at least 1.
    padding  : pixels that are cut off on each side: an int or (vertical, horizontal).
    output_padding : pixels more at the bottom and right; smaller than stride or dilation.
    returns  : (N, O, OH, OW), or (O, OH, OW) for one image; channels-last memory.

    RuntimeError: channels or sizes that don't fit, different dtypes, stride < 1, padding < 0 and the like.
    """
    op = "conv_transpose2d"
    shapes.check_conv_transpose(op, input.shape, weight.shape, None if bias is None else bias.shape, groups)
    strides, dilations = shapes.pair(op, "stride", stride, 1), shapes.pair(op, "dilation", dilation, 1)
    pads, more = shapes.pair(op, "padding", padding, 0), shapes.pair(op, "output_padding", output_padding, 0)
    out = shapes.transposed_size(op, input.shape[-2:], weight.shape[2:], strides, pads, dilations, more)
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise RuntimeError(f"{op}: {name} must have x's dtype {input.dtype}, got {other.dtype}")
    x = input if input.ndim == 4 else input.reshape(1, *input.shape)
    settings = {"stride": strides, "padding": pads, "dilation": dilations, "groups": groups, "out": out}
    y = ConvTranspose2dFunction.apply(x, weight, bias, **settings)
    return y if input.ndim == 4 else y.reshape(y.shape[1:])


class ConvTranspose2d(Weighted):
    """conv_transpose2d with parameters weight (in_channels, out_channels / groups, KH, KW) and bias (out_channels,).

    Input (N, in_channels, H, W), output (N, out_channels, OH, OW). The weight has channels-last memory.

    ValueError: channels or groups below 1, channels that groups does not divide, a padding_mode other than 'zeros'.
    RuntimeError: kernel_size, stride or dilation below 1, padding or output_padding below 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = "ConvTranspose2d"
        check_channels(name, in_channels, out_channels, groups)
        if padding_mode != "zeros":
            raise ValueError(f"{name}: padding_mode must be 'zeros', got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = shapes.pair(name, "kernel_size", kernel_size, 1)
        self.stride, self.dilation = shapes.pair(name, "stride", stride, 1), shapes.pair(name, "dilation", dilation, 1)
        self.padding = shapes.pair(name, "padding", padding, 0)
        self.output_padding = shapes.pair(name, "output_padding", output_padding, 0)
        weight = (in_channels, out_channels // groups, *self.kernel_size)
        self._make_parameters(weight, (out_channels,) if bias else None, device, dtype)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """output_size : (OH, OW), or the whole shape: chooses the output_padding. ValueError for one that no choice gives."""
        more = self.output_padding if output_size is None else self._output_padding(input, output_size)
        return conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> Pair:
        if len(output_size) not in (2, input.ndim):
            raise ValueError(f"ConvTranspose2d: output_size must be (OH, OW) or a shape of {input.ndim}, got {output_size!r}")
        least = [
            (n - 1) * s + shapes.span(k, d) - 2 * p
            for n, s, k, d, p in zip(input.shape[-2:], self.stride, self.kernel_size, self.dilation, self.padding, strict=True)
        ]
        more = [wanted - size for wanted, size in zip(output_size[-2:], least, strict=True)]
        if not all(0 <= m < s for m, s in zip(more, self.stride, strict=True)):
            most = [size + s - 1 for size, s in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"ConvTranspose2d: output_size must be from {least} to {most}, got {output_size!r} (x {input.shape})"
            )
        return more[0], more[1]

    def extra_repr(self) -> str:
        always = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        unusual = {
            "padding": (self.padding, (0, 0)),
            "dilation": (self.dilation, (1, 1)),
            "output_padding": (self.output_padding, (0, 0)),
            "groups": (self.groups, 1),
        }
        parts = [f"{name}={value}" for name, (value, usual) in unusual.items() if value != usual]
        return ", ".join([always, *parts, *([] if self.bias is not None else ["bias=False"])])
