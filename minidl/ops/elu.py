"""Exponential linear unit: what is negative bends smoothly towards -alpha.

Forward
    y = x where x > 0, else a * (e^x - 1)        a = alpha, 1 by default

Backward
    gx = gy where x > 0, else gy * a * e^x       with a = 1 the two slopes meet at x = 0; with another a they do not, and a is
                                                 taken there, as in PyTorch. NaN passes gy on, PyTorch's choice too

Saved
    x   The slope is a * e^x where x <= 0. From y it would be y + a, which has lost its digits where y is near -a.

Source: Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units (ELUs)", ICLR
2016, section 3.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.in_place import replace
from minidl.tensor import Function, Tensor


def elu_forward(x: Array, alpha: float) -> Array:
    """x of any shape -> y. The exponent is at most 0 everywhere, so nothing overflows on the side that is not used."""
    xp = array_module(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def elu_backward(gy: Array, x: Array, alpha: float) -> Array:
    """gy, x of one shape -> gx."""
    xp = array_module(gy)
    return xp.where(x <= 0, gy * (alpha * xp.exp(xp.minimum(x, 0))), gy)


class ELUFunction(Function):
    name = "elu"
    kinked = True  # unless alpha is 1

    def forward(ctx, x: Array, alpha: float) -> Array:
        ctx.alpha = alpha
        ctx.save(x)
        return fastest(elu_forward, x)(x, alpha)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (fastest(elu_backward, gy)(gy, x, ctx.alpha),)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, else alpha * (e^input - 1), element by element. RuntimeError unless input is of floats.

    inplace : change input itself, and return it. RuntimeError where a graph can't follow that: see in_place.py.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"elu: x must be of floats, got {input.dtype} (x {input.shape})")
    y = ELUFunction.apply(input, alpha=float(alpha))
    return replace("elu_", input, y) if inplace else y


class ELU(Module):
    """elu."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Tensor) -> Tensor:
        return elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")
