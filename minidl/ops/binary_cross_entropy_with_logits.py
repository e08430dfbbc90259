"""Binary cross-entropy of scores: how wrong is a probability of yes, for each question by itself?

Forward, with s(x) = 1 / (1 + e^-x), the probability of yes, a target t from 0 (no) to 1 (yes), and p = pos_weight, 1 by default
    loss = - p t ln s(x) - (1 - t) ln(1 - s(x))
         = p t softplus(-x) + (1 - t) softplus(x)        softplus(x) = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)

    The logarithm is taken of e^x, never of a probability that may have rounded to 0: a confident mistake costs |x|, and a small
    loss keeps its digits, as both terms are positive.

Backward
    gx = gloss * ((1 - t) s(x) - p t s(-x))              for p = 1 this is s(x) - t: what was believed minus what was so
    gt = gloss * (p softplus(-x) - softplus(x))          for p = 1 this is -x

Saved
    x   gx needs s(x) and s(-x), which are computed again; gt needs the softplus of both.
    t   gx = gloss * ((1 - t) s(x) - p t s(-x)): the target weighs the two slopes.
    p   gx = gloss * ((1 - t) s(x) - p t s(-x)): how much more a yes counts than a no.

Reduction: each loss times `weight`; 'mean' divides the sum by the number of losses, whatever the weights, 'sum' adds, 'none'
keeps them apart.
Source: Goodfellow, Bengio and Courville, "Deep learning", MIT Press 2016, section 6.2.2.2.
"""

from typing import Any

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.loss import Loss, as_tensor, check_reduction, operands, reduced
from minidl.ops.sigmoid import sigmoid_forward
from minidl.tensor import Function, Tensor


def softplus_of_both(x: Array) -> tuple[Array, Array]:
    """softplus(x) and softplus(-x), which share their logarithm."""
    xp = array_module(x)
    log = xp.log1p(xp.exp(-abs(x)))
    return xp.maximum(x, 0) + log, xp.maximum(-x, 0) + log


def binary_cross_entropy_with_logits_forward(x: Array, t: Array, p: Array | float) -> Array:
    """x, t of one shape, p that broadcasts to it -> losses."""
    no, yes = softplus_of_both(x)
    return p * t * yes + (1 - t) * no


def binary_cross_entropy_with_logits_backward(gy: Array, x: Array, t: Array, p: Array | float) -> Array:
    """gy, x, t of one shape, p that broadcasts to it -> gx."""
    return gy * ((1 - t) * sigmoid_forward(x) - p * t * sigmoid_forward(-x))


def binary_cross_entropy_with_logits_target_backward(gy: Array, x: Array, p: Array | float) -> Array:
    """gy, x of one shape, p that broadcasts to it -> gt."""
    no, yes = softplus_of_both(x)
    return gy * (p * yes - no)


class BinaryCrossEntropyWithLogitsFunction(Function):
    name = "binary_cross_entropy_with_logits"

    def forward(ctx, x: Array, t: Array, p: Array | float) -> Array:
        ctx.save(x, t, p)
        return fastest(binary_cross_entropy_with_logits_forward, x)(x, t, p)

    def backward(ctx, gy: Array) -> tuple[Array | None, ...]:
        x, t, p = ctx.saved
        gx = gt = None
        if ctx.needs_grad[0]:
            gx = fastest(binary_cross_entropy_with_logits_backward, gy)(gy, x, t, p)
        if ctx.needs_grad[1]:
            gt = fastest(binary_cross_entropy_with_logits_target_backward, gy)(gy, x, p)
        return gx, gt, None


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | np.ndarray | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | np.ndarray | None = None,
) -> Tensor:
    """The binary cross-entropy of sigmoid(input) against target. The formulas are at the top of this file.

    input, target : scores and probabilities of yes, of one size, floats. Both get a gradient.
    weight : broadcasts to input's size: how much each question counts, or None. No gradient flows to it.
    pos_weight : broadcasts to input's size: how much a yes counts where a no counts 1, or None. No gradient flows to it.
    reduction : 'mean', 'sum' or 'none'. (size_average and reduce are PyTorch's old names for it, and must be None.)

    ValueError: two sizes, a bad reduction. RuntimeError: ints, weights that don't broadcast or require a gradient.
    """
    op = "binary_cross_entropy_with_logits"
    check_reduction(op, size_average, reduce, reduction)
    target = as_tensor(op, target, input)
    if target.shape != input.shape:
        raise ValueError(f"{op}: target must have the shape of x, {input.shape}, got {target.shape}")
    if input.dtype.kind != "f" or target.dtype.kind != "f":
        raise RuntimeError(f"{op}: x and target must be of floats, got {input.dtype} and {target.dtype} (x {input.shape})")
    x, t = operands(op, input, target)
    p = 1.0 if pos_weight is None else _weight(op, "pos_weight", pos_weight, x)
    losses = BinaryCrossEntropyWithLogitsFunction.apply(x, t, p)
    return reduced(losses if weight is None else losses * _weight(op, "weight", weight, x), reduction)


def _weight(op: str, name: str, weight: Any, x: Tensor) -> Tensor:
    """A weight beside x, of its dtype. RuntimeError unless it broadcasts to x's size and requires no gradient."""
    weight = as_tensor(op, weight, x)
    if weight.requires_grad:
        raise RuntimeError(f"{op}: {name} must not require a gradient, as none flows to it; pass {name}.detach()")
    sizes = zip(reversed(weight.shape), reversed(x.shape), strict=False)
    if weight.ndim > x.ndim or any(n not in (1, m) for n, m in sizes):
        raise RuntimeError(f"{op}: {name} must broadcast to the shape of x, {x.shape}, got {weight.shape}")
    return weight.to(x.dtype)


class BCEWithLogitsLoss(Loss):
    """binary_cross_entropy_with_logits. `weight` and `pos_weight` are buffers: they are saved and moved with the module."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input, target, self.weight, self.size_average, self.reduce, self.reduction, self.pos_weight
        )
