"""Batch normalisation: each channel gets mean 0 and variance 1 over the batch, then a learned scale and shift.

Shapes
    x, y (N, C, ...)   w, b, running mean and variance (C,)
    Sums run over all axes but C, m = N * ... values for each channel.

Forward
    mean[c] = 1/m * sum of x[c]                           in training; in evaluation the running ones
    var[c]  = 1/m * sum of (x[c] - mean[c])^2
    z[c]    = (x[c] - mean[c]) / sqrt(var[c] + eps)
    y[c]    = w[c] * z[c] + b[c]

    Each batch in training moves the running ones, which evaluation uses, by momentum:
    running <- (1 - momentum) * running + momentum * new            where the new variance has 1/(m-1) in place of 1/m

Backward
    gb[c] = sum of gy[c]
    gw[c] = sum of gy[c] * z[c]
    gx[c] = w[c] / sqrt(var[c] + eps) * (gy[c] - gb[c]/m - z[c] * gw[c]/m)        in training: mean and var are functions of x
    gx[c] = w[c] / sqrt(var[c] + eps) * gy[c]                                     in evaluation: they are constants

Saved
    z         gw = sum of gy * z, and z stands in gx too; x itself is needed nowhere.
    inverse   1 / sqrt(var + eps) is a factor of gx.
    w         w is a factor of gx; it is the parameter's own memory, so this costs nothing.

Numbers: the variance is the mean square of x - mean, in a second pass. mean(x^2) - mean^2 would be cheaper, but for values such
as 10000 +- 1 it is a difference of 1 between two numbers near 10^8, where float32's are 8 apart. Sums are float64's.
Source: Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
ICML 2015, section 3 (algorithm 1 and the derivatives below it).
"""

import math
from typing import Any

import numpy as np

from minidl import changes, shapes
from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.layout import channels_from_end, channels_to_end
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.tensor import Function, Tensor, common_device


def center(x: Array, mean: Array) -> Array:
    """x - mean, in x's dtype: first the mean as that dtype has it, then the rest, which counts where little is left of x."""
    rounded = mean.astype(x.dtype)
    centered = x - rounded
    centered -= (mean - rounded).astype(x.dtype)
    return centered


def batch_norm_forward(
    x: Array, w: Array | None, b: Array | None, mean: Array | None, var: Array | None, eps: float
) -> tuple[Array, Array, Array, Array, Array]:
    """x (M, C); w, b, mean, var (C,); without mean and var those of x -> y and z like x; inverse, mean, var (C,)."""
    m = max(len(x), 1)
    if mean is None:
        mean = x.sum(axis=0, dtype="float64") / m
    z = center(x, mean)
    if var is None:
        var = (z * z).sum(axis=0, dtype="float64") / m
    inverse = (1 / array_module(x).sqrt(var + eps)).astype(x.dtype)
    z *= inverse
    y = z if w is None else w * z
    return y if b is None else y + b, z, inverse, mean, var


def batch_norm_backward(gy: Array, z: Array, inverse: Array, w: Array | None, of_the_batch: bool) -> tuple[Array, Array, Array]:
    """gy, z (M, C), inverse, w (C,) -> gx (M, C), gw, gb (C,). of_the_batch: mean and var were x's own."""
    gb = gy.sum(axis=0, dtype="float64").astype(gy.dtype)
    gw = (gy * z).sum(axis=0, dtype="float64").astype(gy.dtype)
    slope = inverse if w is None else w * inverse
    if not of_the_batch:
        return slope * gy, gw, gb
    m = max(len(gy), 1)
    return slope * (gy - gb / m - z * (gw / m)), gw, gb


class BatchNormFunction(Function):
    name = "batch_norm"

    def forward(
        ctx, x: Array, w: Array | None, b: Array | None, mean: Array | None, var: Array | None, eps: float
    ) -> tuple[Array, Array, Array]:
        x = channels_to_end(x)
        ctx.shape, ctx.of_the_batch = x.shape, mean is None
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        y, z, inverse, mean, var = fastest(batch_norm_forward, x)(rows, w, b, mean, var, eps)
        ctx.save(z, inverse, w)
        return channels_from_end(y.reshape(x.shape)), mean, var

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        z, inverse, w = ctx.saved
        gy = channels_to_end(gy).reshape(z.shape)
        gx, gw, gb = fastest(batch_norm_backward, gy)(gy, z, inverse, w, ctx.of_the_batch)
        return channels_from_end(gx.reshape(ctx.shape)), gw, gb, None, None


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel over the batch. The formulas are at the top of this file.

    input   : (N, C) or (N, C, ...), floats.
    running_mean, running_var : (C,), without a gradient. In training they are changed in place, or None; in evaluation they
              are what x is normalised by.
    weight, bias : (C,) or None.
    returns : input's shape; channels-last memory in 4-d.

    All are of input's dtype. An empty batch changes no running value.
    ValueError: one value for each channel in training, which has no variance; eps not above 0 in training, below 0 in
    evaluation; one running value without the other in training. RuntimeError: fewer than 2 axes, other shapes or dtypes,
    running values that require a gradient or are missing in evaluation.
    """
    rows = _check(input, running_mean, running_var, weight, bias, training, eps)
    given = (None, None) if training else (running_mean, running_var)
    y, mean, var = BatchNormFunction.apply(input, weight, bias, *given, eps=eps)
    if training and running_mean is not None and running_var is not None and rows:
        with input.device.active():
            _follow(running_mean, mean.data, momentum)
            _follow(running_var, var.data * (rows / (rows - 1)), momentum)
    return y


def _follow(running: Tensor, new: Array, momentum: float) -> None:
    running.data[...] = (1 - momentum) * running.data + momentum * new
    changes.note(running.data, "batch_norm")


def _check(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    eps: float,
) -> int:
    """How many values each channel has."""
    if x.ndim < 2 or x.dtype.kind != "f":
        raise RuntimeError(f"batch_norm: x must be floats of (N, C) or (N, C, ...), got {x.dtype} {x.shape}")
    rows = math.prod(x.shape[:1] + x.shape[2:])
    if training and rows == 1:
        raise ValueError(f"batch_norm: in training each channel must have more than 1 value, got 1 (x {x.shape})")
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm: eps must be {'above' if training else 'at least'} 0, got {eps}")
    running = {"running_mean": running_mean, "running_var": running_var}
    missing = [name for name, values in running.items() if values is None]
    if training and len(missing) == 1:
        raise ValueError(f"batch_norm: running_mean and running_var must be given both or neither, got no {missing[0]}")
    if missing and not training:
        raise RuntimeError(f"batch_norm: evaluation needs running_mean and running_var, got no {' and no '.join(missing)}")
    for name, values in {**running, "weight": weight, "bias": bias}.items():
        if values is None:
            continue
        if values.shape != x.shape[1:2]:
            raise RuntimeError(f"batch_norm: {name} must be {x.shape[1:2]}, got {values.shape} (x {x.shape})")
        if values.dtype != x.dtype:
            raise RuntimeError(f"batch_norm: {name} must have x's dtype {x.dtype}, got {values.dtype}")
        if name in running and values.requires_grad:
            raise RuntimeError(f"batch_norm: {name} has no gradient, but requires one")
    common_device("batch_norm", (x, running_mean, running_var, weight, bias))
    return rows


class _BatchNorm(Module):
    """What BatchNorm1d and BatchNorm2d share: parameters weight and bias (C,), buffers running_mean and running_var (C,), and
    num_batches_tracked, how many batches the running ones have seen."""

    _axes: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = shapes.size(type(self).__name__, "num_features", num_features, 0)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats

        def empty() -> Tensor:
            return Tensor(np.empty(num_features, np.float32 if dtype is None else dtype), device=device)

        self.register_parameter("weight", Parameter(empty()) if affine else None)
        self.register_parameter("bias", Parameter(empty()) if affine and bias else None)
        self.register_buffer("running_mean", empty() if track_running_stats else None)
        self.register_buffer("running_var", empty() if track_running_stats else None)
        batches = Tensor(np.zeros((), np.int64), device=device)
        self.register_buffer("num_batches_tracked", batches if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Weights of 1, biases of 0, and the running values from the start."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self._axes:
            wanted = " or ".join(map(str, self._axes))
            raise ValueError(f"{type(self).__name__}: x must have {wanted} axes, got {input.ndim} (x {input.shape})")
        tracking = self.training and self.track_running_stats
        if tracking:
            with self.num_batches_tracked.device.active():
                self.num_batches_tracked.data[...] += 1
            changes.note(self.num_batches_tracked.data, type(self).__name__)
        momentum = self.momentum
        if momentum is None:  # the mean of all batches so far, each counting the same
            momentum = 1 / self.num_batches_tracked.item() if tracking else 0.0
        mean, var = (self.running_mean, self.running_var) if tracking or not self.training else (None, None)
        training = self.training or (mean is None and var is None)
        return batch_norm(input, mean, var, self.weight, self.bias, training, momentum, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """batch_norm of (N, C) or (N, C, L). Numbers of the batch in training, running ones in evaluation: see `Module.eval`.

    momentum : how far each batch moves the running values; None makes them the mean over all batches so far.
    affine   : is there a weight, starting at 1, and with `bias` a bias, starting at 0?
    track_running_stats : False keeps no running values, and evaluation uses the batch's own.

    ValueError: another number of axes. RuntimeError: another number of channels.
    """

    _axes = 2, 3


class BatchNorm2d(_BatchNorm):
    """batch_norm of images (N, C, H, W). Arguments as for BatchNorm1d."""

    _axes = (4,)
