"""Layer normalisation: each sample gets mean 0 and variance 1 over its own features, then a learned scale and shift.

Shapes
    x, y (..., F)   w, b (F,)         F: all features of a sample, the last axes together; sums run over them

Forward
    mean = 1/F * sum of x             one for each sample, the same way in training and evaluation
    var  = 1/F * sum of (x - mean)^2
    z    = (x - mean) / sqrt(var + eps)
    y    = w * z + b

Backward
    gb = sum of gy over the samples
    gw = sum of gy * z over the samples
    gx = (gz - mean of gz - z * mean of gz * z) / sqrt(var + eps)          with gz = w * gy, and means over F

Saved
    z         gw = sum of gy * z, and z stands in gx too; x itself is needed nowhere.
    inverse   1 / sqrt(var + eps) is a factor of gx.
    w         gz = w * gy; it is the parameter's own memory, so this costs nothing.

Numbers: as in batch_norm, the variance is taken of x - mean, and sums are float64's.
Source: Ba, Kiros and Hinton, "Layer normalization", 2016, section 3.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.ops.batch_norm import center
from minidl.tensor import Function, Tensor


def layer_norm_forward(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (R, F), w, b (F,) or None -> y and z like x, inverse (R, 1)."""
    features = max(x.shape[1], 1)
    z = center(x, x.sum(axis=1, dtype="float64", keepdims=True) / features)
    var = (z * z).sum(axis=1, dtype="float64", keepdims=True) / features
    inverse = (1 / array_module(x).sqrt(var + eps)).astype(x.dtype)
    z *= inverse
    y = z if w is None else w * z
    return y if b is None else y + b, z, inverse


def layer_norm_backward(
    gy: Array, z: Array, inverse: Array, w: Array | None, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    """gy, z (R, F), inverse (R, 1), w (F,) or None -> gx (R, F), gw, gb (F,); None where `needs` says so."""
    gw = (gy * z).sum(axis=0, dtype="float64").astype(gy.dtype) if needs[1] else None
    gb = gy.sum(axis=0, dtype="float64").astype(gy.dtype) if needs[2] else None
    if not needs[0]:
        return None, gw, gb
    gz = gy if w is None else w * gy
    features = max(z.shape[1], 1)
    shift = (gz.sum(axis=1, dtype="float64", keepdims=True) / features).astype(gy.dtype)
    scale = ((gz * z).sum(axis=1, dtype="float64", keepdims=True) / features).astype(gy.dtype)
    return (gz - shift - z * scale) * inverse, gw, gb


class LayerNormFunction(Function):
    name = "layer_norm"

    def forward(ctx, x: Array, w: Array | None, b: Array | None, features: tuple[int, ...], eps: float) -> Array:
        ctx.shape, ctx.features = x.shape, features
        rows = x.reshape(math.prod(x.shape[: x.ndim - len(features)]), math.prod(features))
        w, b = (None if a is None else a.reshape(-1) for a in (w, b))
        y, z, inverse = fastest(layer_norm_forward, x)(rows, w, b, eps)
        ctx.save(z, inverse, w)
        return y.reshape(x.shape)

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        z, inverse, w = ctx.saved
        gradients = fastest(layer_norm_backward, gy)(gy.reshape(z.shape), z, inverse, w, ctx.needs_grad)
        like = ctx.shape, ctx.features, ctx.features
        return tuple(None if g is None else g.reshape(shape) for g, shape in zip(gradients, like, strict=True))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each sample over its last axes. The formulas are at the top of this file.

    input            : (..., *normalized_shape), floats.
    normalized_shape : the lengths of the last axes, at least one.
    weight, bias     : of normalized_shape and input's dtype, or None.
    returns          : input's shape, in C order.

    RuntimeError: shapes that don't fit, other dtypes. TypeError: a normalized_shape that is no sequence of ints.
    """
    features = _features("layer_norm", normalized_shape)
    if not features:
        raise RuntimeError("layer_norm: normalized_shape must have at least 1 axis, got ()")
    if input.dtype.kind != "f":
        raise RuntimeError(f"layer_norm: x must be of floats, got {input.dtype} (x {input.shape})")
    if input.shape[-len(features) :] != features:
        raise RuntimeError(f"layer_norm: the last axes of x must be {features}, got x {input.shape}")
    for name, values in (("weight", weight), ("bias", bias)):
        if values is None:
            continue
        if values.shape != features:
            raise RuntimeError(f"layer_norm: {name} must be {features}, got {values.shape}")
        if values.dtype != input.dtype:
            raise RuntimeError(f"layer_norm: {name} must have x's dtype {input.dtype}, got {values.dtype}")
    return LayerNormFunction.apply(input, weight, bias, features=features, eps=eps)


def _features(op: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"{op}: normalized_shape must be a sequence of ints, got {shape!r}")
    return tuple(shapes.size(op, "normalized_shape", n, 0) for n in shape)


class LayerNorm(Module):
    """layer_norm with parameters weight, starting at 1, and bias, starting at 0, of normalized_shape; an int is one axis.

    elementwise_affine : False leaves both out, bias=False the bias.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if shapes.is_int(normalized_shape) else normalized_shape
        self.normalized_shape = _features("LayerNorm", shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine

        def empty() -> Parameter:
            values = np.empty(self.normalized_shape, np.float32 if dtype is None else dtype)
            return Parameter(Tensor(values, device=device))

        self.register_parameter("weight", empty() if elementwise_affine else None)
        self.register_parameter("bias", empty() if elementwise_affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of 1, biases of 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )
