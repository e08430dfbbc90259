"""Dropout of whole channels: in training, each map of each image is silent with probability p.

Shapes
    x, y (N, C, H, W)   m (N, C)

Forward, with m[n,c] = 1 with probability 1 - p, else 0
    y[n,c,h,w] = x[n,c,h,w] * m[n,c] / (1 - p)     in training
    y          = x                                 in evaluation

Backward
    gx = gy times the factor that x was multiplied by: the same mask, drawn once

Saved
    mask   The gradient must pass the very maps that the forward let through; it takes one byte a map.

Neighbouring pixels of a map say nearly the same, so dropping single ones takes little from a net. This is dropout with one draw
for each map in place of one for each pixel.
Source: Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient object localization using convolutional networks", CVPR 2015,
section 3.2.
"""

import warnings

from minidl import random
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.random import Draw
from minidl.tensor import Function, Tensor


def dropout2d_forward(x: Array, draw: Draw, p: float, scale: float) -> tuple[Array, Array]:
    """x (N, C, ...) -> y, and mask (N, C, 1, ...), bool, False with probability p."""
    mask = array_module(x).asarray(draw.bernoulli(1 - p, x.shape[:2])).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return x * (mask * x.dtype.type(scale)), mask


def dropout2d_backward(gy: Array, mask: Array, scale: float) -> Array:
    """gy (N, C, ...), mask (N, C, 1, ...) -> gx like gy."""
    return gy * (mask * gy.dtype.type(scale))


class Dropout2dFunction(Function):
    name = "dropout2d"

    def forward(ctx, x: Array, p: float, scale: float) -> Array:
        y, mask = fastest(dropout2d_forward, x)(x, random.next_mask(), p, scale)
        ctx.scale = scale
        ctx.save(mask)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (mask,) = ctx.saved
        return (fastest(dropout2d_backward, gy)(gy, mask, ctx.scale),)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Silence each map with probability p. The formulas are at the top of this file.

    input    : (N, C, H, W), floats. Any (N, C, ...) is taken, with a warning: three axes are no single image here.
    p        : in [0, 1]; ValueError otherwise.
    training : False returns the input itself, and so does p = 0.
    inplace  : change input itself, and return it.

    The mask comes from minidl's default generator, in C order of (N, C): `manual_seed` repeats it on any device.
    RuntimeError: fewer than two axes, or not of floats.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout2d: p must be in [0, 1], got {p}")
    if input.ndim < 2 or input.dtype.kind != "f":
        raise RuntimeError(f"dropout2d: x must be floats of (N, C, H, W), got {input.dtype} {input.shape}")
    if input.ndim != 4:
        warnings.warn(f"dropout2d: x should be (N, C, H, W); {input.shape} is taken for (N, C, ...)", stacklevel=2)
    if p == 0 or not training:
        return input
    y = Dropout2dFunction.apply(input, p=p, scale=1 / (1 - p) if p < 1 else 1.0)
    return replace("dropout2d_", input, y) if inplace else y


class Dropout2d(Module):
    """dropout2d, which acts in training only: see `Module.train` and `Module.eval`. ValueError for p outside [0, 1]."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout2d: p must be in [0, 1], got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return dropout2d(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
