"""Dropout: in training, each unit is silent with probability p.

Forward, with m[i] = 1 with probability 1 - p, else 0
                     in training              in evaluation
    scale_at="train" y = x * m / (1 - p)      y = x               "inverted", PyTorch's
    scale_at="test"  y = x * m                y = x * (1 - p)     as in 2012

Backward
    gx = gy times the factor that x was multiplied by: the same mask, drawn once

Saved
    mask   The gradient must pass the very units that the forward let through; the mask takes one byte a unit.

Both have the same expectation, but not the same optimisation: at equal function the 2012 form's next weights are 1/(1-p) times
as large, which matters beside a fixed initial sigma, learning rate and weight decay.
Source: Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", 2012;
Krizhevsky, Sutskever and Hinton, NIPS 2012, section 4.2; the 2012 code's layer.cu (DropoutLayer).
"""

from minidl import random
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.random import Draw
from minidl.tensor import Function, Tensor


def dropout_forward(x: Array, draw: Draw, p: float, scale: float) -> tuple[Array, Array]:
    """x of any shape -> y, and mask (bool), False with probability p. Both in x's memory order.

    The mask's numbers are the draw's in C order of the shape, however x lies in memory.
    """
    xp = array_module(x)
    mask = xp.empty_like(x, dtype=bool)
    mask[...] = xp.asarray(draw.bernoulli(1 - p, x.shape))
    return x * mask * x.dtype.type(scale), mask


def dropout_backward(gy: Array, mask: Array, scale: float) -> Array:
    """gy, mask (bool) of one shape -> gx."""
    return gy * mask * gy.dtype.type(scale)


class DropoutFunction(Function):
    name = "dropout"

    def forward(ctx, x: Array, p: float, scale: float) -> Array:
        y, mask = fastest(dropout_forward, x)(x, random.next_mask(), p, scale)
        ctx.scale = scale
        ctx.save(mask)
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        (mask,) = ctx.saved
        return (fastest(dropout_backward, gy)(gy, mask, ctx.scale),)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, scale_at: str = "train") -> Tensor:
    """Silence each element with probability p. The formulas are at the top of this file.

    p        : in [0, 1]; ValueError otherwise.
    training : False evaluates, without a mask. With p = 0 there is none either: the result is the input itself.
    inplace  : change input itself, and return it.
    scale_at : "train" (PyTorch's inverted form) or "test" (2012's); ValueError otherwise.

    The mask comes from minidl's default generator, in C order of the shape: `manual_seed` repeats it on any device, and
    `minidl.random.placed` gives a part of a batch the part of the mask that the whole would have.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    if scale_at not in ("train", "test"):
        raise ValueError(f"dropout: scale_at must be 'train' or 'test', got {scale_at!r}")
    if p == 0 or (scale_at == "train" and not training):
        return input
    if training:
        inverted = scale_at == "train" and p < 1
        y = DropoutFunction.apply(input, p=p, scale=1 / (1 - p) if inverted else 1.0)
    else:
        y = input * (1 - p)
    return replace("dropout_", input, y) if inplace else y


class Dropout(Module):
    """dropout, which acts in training only: see `Module.train` and `Module.eval`.

    scale_at : "train" divides by 1 - p in training (PyTorch's), "test" multiplies by 1 - p in evaluation (2012's).

    ValueError for p outside [0, 1] or another scale_at.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, scale_at: str = "train") -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        if scale_at not in ("train", "test"):
            raise ValueError(f"Dropout: scale_at must be 'train' or 'test', got {scale_at!r}")
        self.p, self.inplace, self.scale_at = p, inplace, scale_at

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace, scale_at=self.scale_at)

    def extra_repr(self) -> str:
        scale_at = "" if self.scale_at == "train" else f", scale_at={self.scale_at!r}"
        return f"p={self.p}, inplace={self.inplace}{scale_at}"
