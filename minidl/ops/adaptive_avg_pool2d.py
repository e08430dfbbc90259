"""2-d average pooling to an output of a given size: the mean of each part of the image.

Shapes
    x (N, C, H, W)   y (N, C, OH, OW)

Forward
    y[n,c,i,j] = mean of x[n, c, h, w] over h in rows(i), w in columns(j)

    rows(i) = floor(i*H/OH) ... ceil((i+1)*H/OH) - 1, columns(j) likewise: OH parts of equal length where OH divides H, else
    neighbours share a row, and lengths differ by one. The mean over a rectangle is the mean of its rows' means.

Backward
    gx[n,c,h,w] = sum of gy[n,c,i,j] / (len rows(i) * len columns(j)) over the parts (i,j) that hold (h,w)

Nothing is saved: where the parts lie follows from the sizes, and the layer is linear.
Source: He, Zhang, Ren and Sun, "Spatial pyramid pooling in deep convolutional networks for visual recognition", ECCV 2014,
section 2.2; one part, the whole image: Lin, Chen and Yan, "Network in network", ICLR 2014, section 3.2.
"""

from collections.abc import Sequence
from typing import Any

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import nchw, nhwc
from minidl.nn.module import Module
from minidl.shapes import Pair
from minidl.tensor import Function, Tensor


def parts(size: int, out: int) -> list[tuple[int, int]]:
    """Where each of `out` parts of a side of `size` pixels starts and ends."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def adaptive_avg_pool2d_forward(x: Array, out: Pair) -> Array:
    """x (N, H, W, C) -> y (N, OH, OW, C)."""
    xp = array_module(x)
    n, h, w, c = x.shape
    rows = xp.empty((n, out[0], w, c), "float64")  # float32 would lose digits in long sums
    for i, (top, bottom) in enumerate(parts(h, out[0])):
        rows[:, i] = x[:, top:bottom].mean(axis=1, dtype="float64")
    y = xp.empty((n, *out, c), x.dtype)
    for j, (left, right) in enumerate(parts(w, out[1])):
        y[:, :, j] = rows[:, :, left:right].mean(axis=2)
    return y


def adaptive_avg_pool2d_backward(gy: Array, x_shape: tuple[int, ...]) -> Array:
    """gy (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    xp = array_module(gy)
    n, h, w, c = x_shape
    rows = xp.zeros((n, gy.shape[1], w, c), gy.dtype)
    for j, (left, right) in enumerate(parts(w, gy.shape[2])):
        rows[:, :, left:right] += gy[:, :, j : j + 1] / (right - left)
    gx = xp.zeros(x_shape, gy.dtype)
    for i, (top, bottom) in enumerate(parts(h, gy.shape[1])):
        gx[:, top:bottom] += rows[:, i : i + 1] / (bottom - top)
    return gx


class AdaptiveAvgPool2dFunction(Function):
    name = "adaptive_avg_pool2d"

    def forward(ctx, x: Array, out: Pair) -> Array:
        x = nhwc(x)
        ctx.x_shape = x.shape
        return nchw(fastest(adaptive_avg_pool2d_forward, x)(x, out))

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (nchw(fastest(adaptive_avg_pool2d_backward, gy)(nhwc(gy), ctx.x_shape)),)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """The mean of each of OH x OW parts. The formulas are at the top of this file.

    input       : (N, C, H, W), or (C, H, W) for one image; floats. H and W at least 1.
    output_size : an int, or (OH, OW); at least 0, and None is the input's. May be larger than the input.
    returns     : (N, C, OH, OW), or (C, OH, OW); channels-last memory.

    RuntimeError: other shapes, sizes below 0, or not one or two of them. TypeError: sizes that are no ints.
    """
    if input.ndim not in (3, 4) or input.dtype.kind != "f":
        raise RuntimeError(
            f"adaptive_avg_pool2d: x must be floats of (C, H, W) or (N, C, H, W), got {input.dtype} {input.shape}"
        )
    if 0 in input.shape[-2:]:
        raise RuntimeError(f"adaptive_avg_pool2d: x must have at least 1 pixel, got {input.shape}")
    out = _out_size(output_size, input.shape[-2:])
    x = input if input.ndim == 4 else input.reshape(1, *input.shape)
    y = AdaptiveAvgPool2dFunction.apply(x, out=out)
    return y if input.ndim == 4 else y.reshape(y.shape[1:])


def _out_size(given: Any, size: Sequence[int]) -> Pair:
    sizes = (given, given) if shapes.is_int(given) else given
    if not isinstance(sizes, (tuple, list)) or not all(s is None or shapes.is_int(s) for s in sizes):
        raise TypeError(f"adaptive_avg_pool2d: output_size must be an int, or two of int and None, got {given!r}")
    if len(sizes) != 2 or any(s is not None and s < 0 for s in sizes):
        raise RuntimeError(f"adaptive_avg_pool2d: output_size must be two sizes of at least 0, got {given!r}")
    oh, ow = (n if s is None else int(s) for s, n in zip(sizes, size, strict=True))
    return oh, ow


class AdaptiveAvgPool2d(Module):
    """adaptive_avg_pool2d. `AdaptiveAvgPool2d(1)` is global average pooling."""

    def __init__(self, output_size: int | Sequence[int | None]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
