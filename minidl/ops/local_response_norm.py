"""Local response normalisation across channels: bright neighbours dim a pixel.

Shapes
    x, y (N, C, ...): the window runs over channels, at one pixel

Forward
    d[n,c] = k + alpha/size * sum of x[n,j]^2 over the window W(c)
    y[n,c] = x[n,c] * d[n,c]^-beta

    W(c) = c - size//2 ... c - size//2 + size - 1, clipped to the channels there are; still divided by `size` at the edges.

Backward: x[a] acts on y[a] through the numerator, and on every y[c] whose window holds a through the denominator
    gx[a] = gy[a] * d[a]^-beta  -  2 * alpha/size * beta * x[a] * sum over c with a in W(c) of  gy[c] * x[c] * d[c]^(-beta-1)

    {c : a in W(c)} = a - (size-1)//2 ... a + size//2: the window reversed, the same one if size is odd.

Saved
    x   x stands in both terms of gx: it is the numerator, and its squares made the denominator.
    d   gx needs d to the power -beta and -beta - 1; to add up the windows of squares again would take longer. On a GPU it
        would not: there d is computed again.

Conventions: `alpha` is divided by `size`, as in PyTorch, ONNX, Caffe and the 2012 code (scale/size), although the paper's
formula reads as if it were not; k is 2 in 2012's nets, 1 in PyTorch's and Caffe's default. TensorFlow does not divide alpha.
Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.3.
"""

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import channels_from_end, channels_to_end
from minidl.nn.module import Module
from minidl.tensor import Function, Tensor


def window_sum(values: Array, before: int, after: int) -> Array:
    """Sums over the last axis: out[..., c] = values[..., c - before] + ... + values[..., c + after], clipped at the ends."""
    channels = values.shape[-1]
    out = values.copy()
    for shift in range(1, min(before, channels - 1) + 1):
        out[..., shift:] += values[..., :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        out[..., :-shift] += values[..., shift:]
    return out


def negative_power(d: Array, beta: float) -> Array:
    """d^-beta. The usual 3/4 by two square roots, which are many times faster than a power."""
    if beta != 0.75:
        return d**-beta
    root = array_module(d).sqrt(d)
    return 1 / (root * array_module(d).sqrt(root))


def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
    """x (..., C) -> y and d, both of x's shape."""
    d = window_sum(x * x, size // 2, (size - 1) // 2)
    d *= alpha / size
    d += k
    return x * negative_power(d, beta), d


def local_response_norm_backward(
    gy: Array, x: Array, d: Array | None, size: int, alpha: float, beta: float, k: float = 1.0
) -> Array:
    """gy, x, d (..., C) -> gx (..., C). d may be None where forward did not keep it; k is for that."""
    d = local_response_norm_forward(x, size, alpha, beta, k)[1] if d is None else d
    direct = gy * negative_power(d, beta)
    across = window_sum(direct * x / d, (size - 1) // 2, size // 2)
    return direct - (2 * alpha / size * beta) * x * across


class LocalResponseNormFunction(Function):
    name = "local_response_norm"

    def forward(ctx, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        x = channels_to_end(x)
        ctx.settings = size, alpha, beta, k
        y, d = fastest(local_response_norm_forward, x)(x, size, alpha, beta, k)
        ctx.save(x, d)
        return channels_from_end(y)

    def backward(ctx, gy: Array) -> tuple[Array]:
        x, d = ctx.saved
        gx = fastest(local_response_norm_backward, x)(channels_to_end(gy), x, d, *ctx.settings)
        return (channels_from_end(gx),)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Normalise each pixel by its neighbours across channels. The formulas are at the top of this file.

    input   : (N, C, ...) of at least 3 axes (PyTorch's rule, so (C, H, W) counts C as images); floats.
    size    : channels in the window, size//2 of them before, (size-1)//2 after.
    returns : input's shape; channels-last memory in 4-d.

    ValueError: fewer than 3 axes, or size < 1. RuntimeError: input is not of floats.
    """
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: x must have at least 3 axes, got {input.ndim} (x {input.shape})")
    if input.dtype.kind != "f":
        raise RuntimeError(f"local_response_norm: x must be of floats, got {input.dtype}")
    if size < 1:
        raise ValueError(f"local_response_norm: size must be at least 1, got {size}")
    return LocalResponseNormFunction.apply(input, size=size, alpha=alpha, beta=beta, k=k)


class LocalResponseNorm(Module):
    """local_response_norm, with PyTorch's convention: alpha is divided by size, k is 1."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
