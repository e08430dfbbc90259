"""Mean squared error: the squares of the differences between input and target.

Forward, with d = x - t
    loss = d^2

Backward
    gx = 2 * gloss * d        gt = -gx

Saved
    d   gx = 2 * gloss * d: the difference is all that backward needs, and less than x and t.

Reduction: 'mean' divides the sum of the losses by their number, with a weight by the sum of the weights; 'sum' adds, 'none'
keeps them apart. A target of another size is broadcast, with a warning; what was broadcast gets the sum of its gradients.
Source: Goodfellow, Bengio and Courville, "Deep learning", MIT Press 2016, section 6.2.1.2.
"""

import numpy as np

from minidl.device import Array
from minidl.kernels import fastest
from minidl.nn.loss import Loss, check_reduction, operands, reduced, weight_of_each
from minidl.ops.arithmetic import unbroadcast
from minidl.tensor import Function, Tensor


def mse_loss_forward(x: Array, t: Array) -> tuple[Array, Array]:
    """x, t that broadcast -> losses and differences."""
    d = x - t
    return d * d, d


def mse_loss_backward(gy: Array, d: Array) -> Array:
    """gy, d of one shape -> gx, before what was broadcast is summed."""
    return 2 * gy * d


class MSELossFunction(Function):
    name = "mse_loss"

    def forward(ctx, x: Array, t: Array) -> Array:
        ctx.shapes = x.shape, t.shape
        losses, d = fastest(mse_loss_forward, x)(x, t)
        ctx.save(d)
        return losses

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        (d,) = ctx.saved
        g = fastest(mse_loss_backward, gy)(gy, d)
        gx = unbroadcast(g, ctx.shapes[0]) if ctx.needs_grad[0] else None
        gt = unbroadcast(-g, ctx.shapes[1]) if ctx.needs_grad[1] else None
        return gx, gt


def mse_loss(
    input: Tensor,
    target: Tensor | np.ndarray,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | np.ndarray | None = None,
) -> Tensor:
    """(input - target)^2, reduced. The formulas are at the top of this file.

    input, target : of one size; floats, of which one may be ints. Two sizes that broadcast give a UserWarning.
    weight : of input's size, how much each element counts, or None. It gets a gradient, as input and target do.
    reduction : 'mean', 'sum' or 'none'. (size_average and reduce are PyTorch's old names for it, and must be None.)

    RuntimeError: sizes that don't broadcast, ints alone. ValueError: a bad reduction, a weight of another size.
    """
    check_reduction("mse_loss", size_average, reduce, reduction)
    x, t = operands("mse_loss", input, target)
    return reduced(MSELossFunction.apply(x, t), reduction, weight_of_each("mse_loss", weight, input))


class MSELoss(Loss):
    """mse_loss, without weights."""

    def __init__(self, size_average: None = None, reduce: None = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, self.size_average, self.reduce, self.reduction)
