"""Fully connected layer.

Shapes
    x (..., I)   weight (O, I)   bias (O,)   y (..., O)

Forward
    y = x @ w^T + b

Backward
    gx = gy @ w
    gw = gy^T @ x          summed over every leading axis: each row of x used the same weights
    gb = sum of gy over every leading axis

Saved
    x   gw = gy^T @ x: a weight's gradient is the product of what came in and what came back.
    w   gx = gy @ w needs the weights; they are the parameter's own memory, so this costs nothing.
"""

import math
from typing import Any

from minidl.device import Array
from minidl.kernels import fastest
from minidl.nn.weighted import Weighted
from minidl.shapes import is_int
from minidl.tensor import Function, Tensor


def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """x (N, I), w (O, I), b (O,) or None -> y (N, O)."""
    y = x @ w.T
    if b is not None:
        y += b
    return y


def linear_backward(gy: Array, x: Array, w: Array, needs: tuple[bool, ...]) -> tuple[Array | None, Array | None, Array | None]:
    """gy (N, O), x (N, I), w (O, I) -> gx, gw, gb; None where `needs` says so."""
    gx = gy @ w if needs[0] else None
    gw = gy.T @ x if needs[1] else None
    gb = gy.sum(axis=0) if needs[2] else None
    return gx, gw, gb


class LinearFunction(Function):
    name = "linear"
    weighted = True

    def forward(ctx, x: Array, w: Array, b: Array | None) -> Array:
        ctx.x_shape = x.shape
        x = x.reshape(math.prod(x.shape[:-1]), w.shape[1])
        ctx.save(x, w)
        return fastest(linear_forward, x)(x, w, b).reshape(*ctx.x_shape[:-1], w.shape[0])

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        x, w = ctx.saved
        gx, gw, gb = fastest(linear_backward, x)(gy.reshape(len(x), len(w)), x, w, ctx.needs_grad)
        return None if gx is None else gx.reshape(ctx.x_shape), gw, gb


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight^T + bias. The formulas are at the top of this file.

    input (..., I), weight (O, I), bias (O,) or None; returns (..., O).
    RuntimeError: sizes that don't fit, different dtypes.
    """
    given = f"x {input.shape}, weight {weight.shape}"
    if weight.ndim != 2:
        raise RuntimeError(f"linear: weight must be (O, I), got {weight.shape}")
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(f"linear: weight takes {weight.shape[1]} features, x has {input.shape[-1:]} ({given})")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(f"linear: bias must be {weight.shape[:1]}, got {bias.shape} ({given})")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise RuntimeError(f"linear: {name} must have x's dtype {input.dtype}, got {other.dtype}")
    return LinearFunction.apply(input, weight, bias)


class Linear(Weighted):
    """linear with parameters weight (out_features, in_features) and bias (out_features,): y = x @ weight^T + bias."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not is_int(size) or size < 0:
                raise ValueError(f"Linear: {name} must be an int of at least 0, got {size!r}")
        self.in_features, self.out_features = in_features, out_features
        self._make_parameters((out_features, in_features), (out_features,) if bias else None, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
