"""2-d convolution and the rectified linear unit after it, as one op.

Forward
    y = max(conv2d(x, w, b), 0)

Backward
    g = 0 where y <= 0, else gy          the ReLU's
    gx, gw, gb from g                    the convolution's, as in conv2d.py

Saved
    y   The ReLU's part needs to know where its output is 0: no gradient passes there.
    x   gw = col^T @ g needs x's patches: x is kept and they are gathered again, as they take many times its memory.
    w   gx = col2im(g @ w^T) needs the weights; they are the parameter's own memory, so this costs nothing.

It gives what `relu(conv2d(...))` gives. One op keeps one array less, and a fast kernel applies the bias and the ReLU, forward
and backward, while the pixels are in the processor's cache.
Source: as for conv2d.py and relu.py.
"""

from collections.abc import Sequence

from minidl.device import Array
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.containers import ONE_OP
from minidl.ops.conv2d import Conv2d, conv2d_backward, conv2d_forward, convolve
from minidl.ops.relu import ReLU, relu_backward, relu_forward
from minidl.shapes import Padding, Pair
from minidl.tensor import Function, Tensor


def conv2d_relu_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """x (N, H, W, C), w (O, KH, KW, C/groups), b (O,) or None -> y (N, OH, OW, O)."""
    return relu_forward(conv2d_forward(x, w, b, stride, padding, dilation, groups))


def conv2d_relu_backward(
    gy: Array,
    y: Array,
    x: Array,
    w: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """gy, y (N, OH, OW, O) -> gx like x, gw like w, gb (O,); None where `needs` says so."""
    return conv2d_backward(relu_backward(gy, y), x, w, stride, padding, dilation, groups, needs)


class Conv2dReLUFunction(Function):
    name = "conv2d_relu"
    kinked = True
    rectifies = True
    weighted = True

    def forward(ctx, x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Array:
        x, w = nhwc(x), nhwc(w)
        ctx.settings = stride, padding, dilation, groups
        y = fastest(conv2d_relu_forward, x)(x, w, b, *ctx.settings)
        ctx.save(y, x, w)
        return nchw(y)

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        y, x, w = ctx.saved
        gx, gw, gb = fastest(conv2d_relu_backward, x)(nhwc(gy), y, x, w, *ctx.settings, ctx.needs_grad)
        return None if gx is None else nchw(gx), None if gw is None else nchw(gw), gb


def conv2d_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """relu(conv2d(input, weight, bias, ...)) in one op. Arguments, shapes and errors as for conv2d."""
    return convolve(Conv2dReLUFunction, input, weight, bias, stride, padding, dilation, groups)


class ConvReLU2d(Conv2d):
    """Conv2d followed by ReLU, in one op: the same numbers, one array less to keep, and faster. Arguments as for Conv2d."""

    def forward(self, input: Tensor) -> Tensor:
        return conv2d_relu(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _conv_and_relu(conv: Conv2d, relu: ReLU, input: Tensor) -> Tensor:
    return conv2d_relu(input, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


ONE_OP[Conv2d, ReLU] = _conv_and_relu
