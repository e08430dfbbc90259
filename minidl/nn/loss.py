"""What the losses share that compare input and target element by element: operands that fit, and the reduction."""

import warnings
from typing import Any

import numpy as np

from minidl.dtypes import promote_types
from minidl.nn.module import Module
from minidl.tensor import Tensor, common_device


def check_reduction(op: str, size_average: Any, reduce: Any, reduction: str) -> None:
    """ValueError unless `reduction` is 'mean', 'sum' or 'none', and the two names that PyTorch had before it are None."""
    if size_average is not None or reduce is not None:
        raise ValueError(f"{op}: size_average and reduce were replaced by reduction, got {size_average} and {reduce}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def as_tensor(op: str, value: Any, input: Tensor) -> Tensor:
    """A tensor itself; an array as a tensor on the input's device. RuntimeError for a tensor on another."""
    tensor = value if isinstance(value, Tensor) else Tensor(value, device=input.device)
    common_device(op, (input, tensor))
    return tensor


def operands(op: str, input: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """Input and target as tensors of one float dtype: the larger of two, and ints become what the other is.

    A UserWarning where their sizes differ, as in PyTorch. RuntimeError: sizes that don't broadcast, ints alone, two devices.
    """
    target = as_tensor(op, target, input)
    shapes = f"x {input.shape}, target {target.shape}"
    dtype = promote_types(input.dtype, target.dtype)
    if dtype.kind != "f":
        raise RuntimeError(f"{op}: x or target must be of floats, got {input.dtype} and {target.dtype} ({shapes})")
    try:
        shape = np.broadcast_shapes(input.shape, target.shape)
    except ValueError:
        raise RuntimeError(f"{op}: sizes must be equal or 1, counted from the last axis, got {shapes}") from None
    if input.shape != target.shape:
        warnings.warn(f"{op}: x and target are both broadcast to {shape}, which is seldom meant, got {shapes}", stacklevel=3)
    return input.to(dtype), target.to(dtype)


def weight_of_each(op: str, weight: Any, input: Tensor) -> Tensor | None:
    """A weight for each element of the input, as a tensor; None stays. ValueError for another shape."""
    if weight is None:
        return None
    weight = as_tensor(op, weight, input)
    if weight.shape != input.shape:
        raise ValueError(f"{op}: weight must have the shape of x, {input.shape}, got {weight.shape}")
    return weight


def reduced(losses: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """The losses, each times its weight; or their sum; or their mean, for which the sum of the weights divides."""
    if weight is not None:
        losses = losses * weight
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.mean() if weight is None else losses.sum() / weight.sum()


class Loss(Module):
    """A module of a loss: it keeps the reduction, and the two names that PyTorch had before it."""

    def __init__(self, size_average: None, reduce: None, reduction: str) -> None:
        super().__init__()
        self.size_average, self.reduce, self.reduction = size_average, reduce, reduction
