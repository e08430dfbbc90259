"""Absolute error whose tip is rounded off: a parabola where input and target are nearer than beta.

Forward, with d = x - t
    loss = d^2 / (2 beta)      where |d| < beta
    loss = |d| - beta / 2      elsewhere

Backward
    gx = gloss * c(d) / beta        gt = -gx        c(d) is d cut off at -beta and beta: the slope goes from -1 to 1

Saved
    d   gx = gloss * c(d) / beta: the difference is all that backward needs, and less than x and t.

With beta = 0 nothing is rounded off: this is l1_loss then. With beta = 1, the default, it is Huber's loss.
Reduction: 'mean' divides the sum of the losses by their number, 'sum' adds, 'none' keeps them apart. A target of another size
is broadcast, with a warning; what was broadcast gets the sum of its gradients.
Source: Girshick, "Fast R-CNN", ICCV 2015, section 2.3; Huber, Annals of Mathematical Statistics 35, 1964.
"""

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.loss import Loss, check_reduction, operands, reduced
from minidl.ops.arithmetic import unbroadcast
from minidl.ops.l1_loss import L1LossFunction
from minidl.tensor import Function, Tensor


def smooth_l1_loss_forward(x: Array, t: Array, beta: float) -> tuple[Array, Array]:
    """x, t that broadcast -> losses and differences.

    A distance is cut in two at beta: its near part m takes m^2 / (2 beta), which is beta / 2 where it is cut, and the rest
    counts as it is. So no large distance is squared.
    """
    d = x - t
    distance = abs(d)
    near = array_module(d).minimum(distance, beta)
    return near * (near / (2 * beta)) + (distance - near), d


def smooth_l1_loss_backward(gy: Array, d: Array, beta: float) -> Array:
    """gy, d of one shape -> gx, before what was broadcast is summed."""
    xp = array_module(gy)
    return gy * (xp.maximum(xp.minimum(d, beta), -beta) / beta)


class SmoothL1LossFunction(Function):
    name = "smooth_l1_loss"

    def forward(ctx, x: Array, t: Array, beta: float) -> Array:
        ctx.shapes, ctx.beta = (x.shape, t.shape), beta
        losses, d = fastest(smooth_l1_loss_forward, x)(x, t, beta)
        ctx.save(d)
        return losses

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        (d,) = ctx.saved
        g = fastest(smooth_l1_loss_backward, gy)(gy, d, ctx.beta)
        gx = unbroadcast(g, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gt = unbroadcast(-g, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gt


def smooth_l1_loss(
    input: Tensor,
    target: Tensor | np.ndarray,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """|input - target| with its tip rounded off, reduced. The formulas are at the top of this file.

    input, target : of one size; floats, of which one may be ints. Two sizes that broadcast give a UserWarning.
    beta : where the parabola ends, at least 0.
    reduction : 'mean', 'sum' or 'none'. (size_average and reduce are PyTorch's old names for it, and must be None.)

    RuntimeError: sizes that don't broadcast, ints alone, a negative beta. ValueError: a bad reduction.
    """
    check_reduction("smooth_l1_loss", size_average, reduce, reduction)
    if not beta >= 0:
        raise RuntimeError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    x, t = operands("smooth_l1_loss", input, target)
    losses = SmoothL1LossFunction.apply(x, t, beta=float(beta)) if beta else L1LossFunction.apply(x, t)
    return reduced(losses, reduction)


class SmoothL1Loss(Loss):
    """smooth_l1_loss."""

    def __init__(self, size_average: None = None, reduce: None = None, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, self.size_average, self.reduce, self.reduction, self.beta)
