"""Absolute error: the distances between input and target.

Forward, with d = x - t
    loss = |d|

Backward
    gx = gloss * sign(d)        gt = -gx        sign is 0 where d is 0, and where it is NaN, PyTorch's choice

Saved
    d   gx = gloss * sign(d), and gt = -gx: of the difference only the sign is needed, which costs as much to keep.

Reduction: 'mean' divides the sum of the losses by their number, with a weight by the sum of the weights; 'sum' adds, 'none'
keeps them apart. A target of another size is broadcast, with a warning; what was broadcast gets the sum of its gradients.
Source: Goodfellow, Bengio and Courville, "Deep learning", MIT Press 2016, section 6.2.1.2.
"""

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.loss import Loss, check_reduction, operands, reduced, weight_of_each
from minidl.ops.arithmetic import unbroadcast
from minidl.tensor import Function, Tensor


def l1_loss_forward(x: Array, t: Array) -> tuple[Array, Array]:
    """x, t that broadcast -> losses and differences."""
    d = x - t
    return abs(d), d


def l1_loss_backward(gy: Array, d: Array) -> Array:
    """gy, d of one shape -> gx, before what was broadcast is summed."""
    xp = array_module(gy)
    return xp.where(d > 0, gy, xp.where(d < 0, -gy, 0))


class L1LossFunction(Function):
    name = "l1_loss"
    kinked = True

    def forward(ctx, x: Array, t: Array) -> Array:
        ctx.shapes = x.shape, t.shape
        losses, d = fastest(l1_loss_forward, x)(x, t)
        ctx.save(d)
        return losses

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        (d,) = ctx.saved
        g = fastest(l1_loss_backward, gy)(gy, d)
        gx = unbroadcast(g, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gt = unbroadcast(-g, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gt


def l1_loss(
    input: Tensor,
    target: Tensor | np.ndarray,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | np.ndarray | None = None,
) -> Tensor:
    """|input - target|, reduced. Arguments and errors as mse_loss's; the formulas are at the top of this file."""
    check_reduction("l1_loss", size_average, reduce, reduction)
    x, t = operands("l1_loss", input, target)
    return reduced(L1LossFunction.apply(x, t), reduction, weight_of_each("l1_loss", weight, input))


class L1Loss(Loss):
    """l1_loss, without weights."""

    def __init__(self, size_average: None = None, reduce: None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, self.size_average, self.reduce, self.reduction)
