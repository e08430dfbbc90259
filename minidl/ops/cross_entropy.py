"""Softmax with cross-entropy, and negative log-likelihood: how wrong is a distribution over classes?

Shapes
    x (N, C, ...) scores   target (N, ...) class ids, or (N, C, ...) probabilities   loss (N, ...), or a number if reduced

Forward, for each row of C scores, with q the target as a distribution (one-hot for a class id)
    t[c] = weight[c] * ((1 - label_smoothing) * q[c] + label_smoothing / C)
    loss = - sum over c of t[c] * ln softmax(x)[c]

Backward: d ln softmax(x)[j] / dx[c] = (j == c) - softmax(x)[c], so
    gx[c] = gloss * (softmax(x)[c] * sum over j of t[j]  -  t[c])
    gt[c] = - gloss * ln softmax(x)[c]                                    to probabilities that require a gradient

    For a class id without weights this is softmax(x) - onehot: what the net believed minus what was so. Fusing the two
    never divides by a probability, so a confident mistake gives no infinity.

Reduction: 'mean' divides the sum by the sum of weight[target] over rows that are not ignored (by the number of rows for
probabilities), 'sum' adds, 'none' keeps the losses apart. A row whose class id is ignore_index has t = 0.
Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.5; Szegedy et al., CVPR 2016, section 7 (label smoothing).
"""

from typing import Any

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.nn.loss import check_reduction
from minidl.nn.module import Module
from minidl.ops.softmax import log_softmax_forward
from minidl.tensor import Function, Tensor, common_device


def nll_loss_forward(logp: Array, t: Array) -> Array:
    """logp, t (R, C) -> losses (R,). Where t is 0, a log-probability of -infinity does not count."""
    xp = array_module(logp)
    return -(t * xp.where(t == 0, 0, logp)).sum(axis=1)


def nll_loss_backward(gy: Array, t: Array) -> Array:
    """gy (R,), t (R, C) -> gradient of logp (R, C)."""
    return -gy[:, None] * t


def cross_entropy_forward(x: Array, t: Array) -> tuple[Array, Array]:
    """x, t (R, C) -> losses (R,) and log-probabilities (R, C)."""
    logp = log_softmax_forward(x, 1)
    return nll_loss_forward(logp, t), logp


def cross_entropy_backward(gy: Array, logp: Array, t: Array) -> Array:
    """gy (R,), logp and t (R, C) -> gx (R, C)."""
    return gy[:, None] * (array_module(logp).exp(logp) * t.sum(axis=1, keepdims=True) - t)


def cross_entropy_target_backward(gy: Array, logp: Array) -> Array:
    """gy (R,), logp (R, C) -> gt (R, C)."""
    return -gy[:, None] * logp


class NLLLossFunction(Function):
    """For log-probabilities x (R, C), with t as at the top of this file.

    Forward
        loss = - sum over c of t[c] * x[c]

    Backward
        gx[c] = - gloss * t[c]

    Saved
        t   gx = -gloss * t: the target, as a weight for each class, is the gradient but for sign and scale.
    """

    name = "nll_loss"
    scores = True

    def forward(ctx, logp: Array, t: Array) -> Array:
        ctx.save(t)
        return fastest(nll_loss_forward, logp)(logp, t)

    def backward(ctx, gy: Array) -> tuple[Array, None]:
        (t,) = ctx.saved
        return fastest(nll_loss_backward, gy)(gy, t), None


class CrossEntropyFunction(Function):
    """cross_entropy of scores x (R, C), with t as at the top of this file.

    Saved
        logp   gx = gloss * (softmax(x) - t) for targets that sum to 1: softmax(x) is e^logp, which cannot overflow.
        t      gx = gloss * (softmax(x) - t) for targets that sum to 1: t is what the scores should have said.
    """

    name = "cross_entropy"
    scores = True

    def forward(ctx, x: Array, t: Array) -> Array:
        losses, logp = fastest(cross_entropy_forward, x)(x, t)
        ctx.save(logp, t)
        return losses

    def backward(ctx, gy: Array) -> tuple[Array | None, Array | None]:
        logp, t = ctx.saved
        gx = fastest(cross_entropy_backward, gy)(gy, logp, t) if ctx.needs_grad[0] else None
        gt = fastest(cross_entropy_target_backward, gy)(gy, logp) if ctx.needs_grad[1] else None
        return gx, gt


def target_rows(ids: Array, classes: int, weight: Array | None, ignore_index: int, label_smoothing: float, dtype: Any) -> Array:
    """Class ids (R,) -> t (R, C) as at the top of this file."""
    xp = array_module(ids)
    counted = ids != ignore_index
    t = xp.full((ids.size, classes), label_smoothing / classes, dtype)
    t[xp.arange(ids.size), xp.where(counted, ids, 0)] += 1 - label_smoothing
    t *= counted[:, None]
    return t if weight is None else t * weight


def mean_divisor(ids: Array, weight: Array | None, ignore_index: int) -> float:
    """What reduction 'mean' divides the sum of the losses of class ids (R,) by: 0 if none counts, NaN if all weigh 0."""
    counted = ids != ignore_index
    if weight is None:
        return float(counted.sum())
    total = float((weight[array_module(ids).where(counted, ids, 0)] * counted).sum())
    return total if total or not counted.any() else np.nan


def cross_entropy(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | np.ndarray | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of softmax(input) against target. The formulas are at the top of this file.

    input  : scores (C,), (N, C) or (N, C, ...), floats.
    target : class ids, ints, of input's shape without C; or probabilities, floats of input's shape, with a gradient if asked.
    weight : (C,), how much each class counts, or None.
    label_smoothing : in [0, 1].
    reduction : 'mean', 'sum' or 'none'. (size_average and reduce are PyTorch's old names for it, and must be None.)

    ValueError: sizes that don't fit, a bad reduction or smoothing, an ignore_index of 0 or more with probabilities. TypeError:
    class ids that are floats.
    IndexError: a class id out of range. All ids ignored, or no row at all, has a mean of NaN and the gradient 0, as in PyTorch.
    """
    _check_arguments("cross_entropy", input, weight, size_average, reduce, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing}")
    return _loss(CrossEntropyFunction, input, target, weight, ignore_index, reduction, label_smoothing)


def nll_loss(
    input: Tensor,
    target: Tensor | np.ndarray,
    weight: Tensor | np.ndarray | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[target]: what cross_entropy does after log_softmax. Arguments and errors as there, class ids only."""
    _check_arguments("nll_loss", input, weight, size_average, reduce, reduction)
    return _loss(NLLLossFunction, input, target, weight, ignore_index, reduction, 0.0)


def _check_arguments(op: str, x: Tensor, weight: Any, size_average: Any, reduce: Any, reduction: str) -> None:
    check_reduction(op, size_average, reduce, reduction)
    if x.dtype.kind != "f" or x.ndim == 0:
        raise ValueError(f"{op}: x must be floats of (C,), (N, C) or (N, C, ...), got {x.dtype} {x.shape}")
    classes = x.shape[0] if x.ndim == 1 else x.shape[1]
    if classes == 0:
        raise ValueError(f"{op}: x must have at least 1 class, got 0 (x {x.shape})")
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"{op}: weight must be ({classes},), got {weight.shape} (x {x.shape})")


def _loss(op: type[Function], x: Tensor, target: Any, weight: Any, ignore_index: int, reduction: str, smooth: float) -> Tensor:
    if weight is not None:
        weight = weight if isinstance(weight, Tensor) else Tensor(np.asarray(weight), device=x.device)
    target = target if isinstance(target, Tensor) else np.asarray(target)
    common_device(op.name, (x, target, weight) if isinstance(target, Tensor) else (x, weight))
    rows, shape = _class_last(x)
    with x.device.active():
        t, divisor = _target_and_divisor(op.name, x, target, weight, ignore_index, smooth)
    losses = op.apply(rows, t)
    if reduction == "none":
        return losses.reshape(shape)
    total = losses.sum()
    if reduction == "sum":
        return total
    return total * (1 / divisor) if divisor else total * 0 + np.nan  # no row counts: nothing to learn from


def _class_last(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """(N, C, ...) -> rows (N * ..., C) and the shape of the losses (N, ...); (C,) is one row and a number."""
    if x.ndim == 1:
        return x.reshape(1, x.shape[0]), ()
    last = x.permute(0, *range(2, x.ndim), 1)
    shape = last.shape[:-1]
    return last.reshape(int(np.prod(shape)), x.shape[1]), shape


def _target_and_divisor(
    op: str, x: Tensor, target: Tensor | np.ndarray, weight: Tensor | None, ignore_index: int, smooth: float
) -> tuple[Tensor, float]:
    """The target as t (R, C), and what reduction 'mean' divides by."""
    classes = x.shape[0] if x.ndim == 1 else x.shape[1]
    if target.dtype.kind == "f" and target.shape == x.shape and op == "cross_entropy":
        if ignore_index >= 0:
            raise ValueError(f"{op}: ignore_index is for class ids, not for probabilities {target.shape}, got {ignore_index}")
        rows, _ = _class_last(target if isinstance(target, Tensor) else Tensor(target, device=x.device))
        q = rows.contiguous().to(x.dtype) * (1 - smooth) + smooth / classes
        return (q if weight is None else q * weight.detach().to(x.dtype)), float(len(q))
    w = None if weight is None else weight.data
    ids = _class_ids(op, x, target, classes, ignore_index)
    # a NumPy array's ids are looked at before they go to the GPU: to look at them there would mean to wait for it
    there = ids if isinstance(target, Tensor) else x.device.asarray(ids)
    t = target_rows(there, classes, w, ignore_index, smooth, x.dtype)
    return Tensor(t, device=x.device, dtype=x.dtype), mean_divisor(ids if w is None else there, w, ignore_index)


def _class_ids(op: str, x: Tensor, target: Tensor | np.ndarray, classes: int, ignore_index: int) -> Array:
    """Checked class ids (R,), int64, where the target is."""
    ids_shape = () if x.ndim == 1 else (x.shape[0], *x.shape[2:])
    if target.dtype.kind not in "iu":
        raise TypeError(f"{op}: class ids must be ints of {ids_shape}, got {target.dtype} {target.shape} (x {x.shape})")
    if target.shape != ids_shape:
        raise ValueError(f"{op}: class ids must have the shape {ids_shape}, got {target.shape} (x {x.shape})")
    ids = (target.data if isinstance(target, Tensor) else target).reshape(-1).astype("int64")
    wrong = ((ids < 0) | (ids >= classes)) & (ids != ignore_index)
    if bool(wrong.any()):
        at = int(wrong.argmax())
        raise IndexError(
            f"{op}: class ids must be in [0, {classes - 1}] or {ignore_index} (ignored), got {int(ids[at])} at position {at}"
        )
    return ids


class _Loss(Module):
    """What the two losses share. `weight` (C,) or None is a buffer, so it is saved and moved with the module."""

    def __init__(self, weight: Tensor | None, ignore_index: int, reduction: str) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction = ignore_index, reduction


class NLLLoss(_Loss):
    """nll_loss: of log-probabilities (N, C) and class ids (N,)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.size_average, self.reduce = size_average, reduce

    def forward(self, input: Tensor, target: Tensor | np.ndarray) -> Tensor:
        return nll_loss(input, target, self.weight, self.size_average, self.ignore_index, self.reduce, self.reduction)


class CrossEntropyLoss(_Loss):
    """cross_entropy: of scores (N, C) and class ids (N,) or probabilities (N, C)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.size_average, self.reduce, self.label_smoothing = size_average, reduce, label_smoothing

    def forward(self, input: Tensor, target: Tensor | np.ndarray) -> Tensor:
        return cross_entropy(
            input,
            target,
            self.weight,
            self.size_average,
            self.ignore_index,
            self.reduce,
            self.reduction,
            self.label_smoothing,
        )
