"""Gaussian error linear unit: x times the probability that a standard normal number is below x.

Forward
    y = x * P(x)             approximate='none': P(x) = 1/2 (1 + erf(x / sqrt 2)), the normal distribution function
                             approximate='tanh': P(x) = 1/2 (1 + tanh v),  v = sqrt(2 / pi) * (x + 0.044715 x^3)

Backward
    gx = gy * (P(x) + x * p(x))
                             approximate='none': p(x) = e^(-x^2 / 2) / sqrt(2 pi), the normal density
                             approximate='tanh': p(x) = 2 P (1 - P) dv/dx,  dv/dx = sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)

Saved
    x   P and p are computed again from x: two arrays less to keep. From y neither can be found, as y falls before it rises.

NumPy has no erf. `normal_cdf` takes an integral for it and sums that at 12 points. At infinities y or its slope is infinity
times 0: NaN, as in PyTorch.
Source: Hendrycks and Gimpel, "Gaussian error linear units (GELUs)", 2016, section 2. The sum of 12: Matta and Reichel,
Mathematics of Computation 25, 1971; Hunter and Regan, Mathematics of Computation 26, 1972.
"""

import math

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.module import Module
from minidl.ops.sigmoid import sigmoid_forward
from minidl.tensor import Function, Tensor

CUBIC = 0.044715
FAR = 40.0  # e^(-FAR^2 / 2) is 0 in float64 too
STEP = 0.7
MIDPOINTS = [(k + 0.5) * STEP for k in range(12)]


def normal_cdf(x: Array) -> Array:
    """The probability that a standard normal number is at most x, in float64 within 3e-16, small ones with 14 digits.

    For u > 0 the probability beyond u is u e^(-u^2/2) / pi times the integral of e^(-t^2/2) / (u^2 + t^2) over t > 0. Midpoints
    STEP apart give that integral within a part of e^(-2 pi^2 / STEP^2), but for what its pole at t = iu adds, which is known. A
    pole further than 2 pi / STEP from the real line adds less than that part: there it is left out.
    """
    xp = array_module(x)
    u = xp.minimum(abs(x), FAR)
    integral = sum(STEP * math.exp(-t * t / 2) / (u * u + t * t) for t in MIDPOINTS)
    pole = xp.exp(-2 * math.pi / STEP * u) * (u < 2 * math.pi / STEP)
    beyond = u * xp.exp(-u * u / 2) / math.pi * integral + pole / (1 + pole)
    return xp.where(x < 0, beyond, 1 - beyond)


def gate(x: Array, approximate: str) -> tuple[Array, Array]:
    """P(x) and its slope p(x)."""
    xp = array_module(x)
    near = xp.maximum(xp.minimum(x, FAR), -FAR)  # further out P is 0 or 1 and p is 0, and nothing is to overflow
    if approximate == "none":
        return normal_cdf(x), xp.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    scale = math.sqrt(2 / math.pi)
    half = sigmoid_forward(
        2 * scale * (near + CUBIC * near * near * near)
    )  # 1/2 (1 + tanh v), where it is small with its digits
    return half, 2 * half * (1 - half) * scale * (1 + 3 * CUBIC * near * near)


def gelu_forward(x: Array, approximate: str) -> Array:
    """x of any shape -> y."""
    return x * gate(x, approximate)[0]


def gelu_backward(gy: Array, x: Array, approximate: str) -> Array:
    """gy, x of one shape -> gx."""
    below, slope = gate(x, approximate)
    return gy * (below + x * slope)


class GELUFunction(Function):
    name = "gelu"

    def forward(ctx, x: Array, approximate: str) -> Array:
        ctx.approximate = approximate
        ctx.save(x)
        return fastest(gelu_forward, x)(x, approximate)

    def backward(ctx, gy: Array) -> tuple[Array]:
        (x,) = ctx.saved
        return (fastest(gelu_backward, gy)(gy, x, ctx.approximate),)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """input * P(a standard normal number <= input), element by element; approximate='tanh' does without erf.

    RuntimeError unless input is of floats and `approximate` is 'none' or 'tanh'.
    """
    if input.dtype.kind != "f":
        raise RuntimeError(f"gelu: x must be of floats, got {input.dtype} (x {input.shape})")
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return GELUFunction.apply(input, approximate=approximate)


class GELU(Module):
    """gelu."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"
