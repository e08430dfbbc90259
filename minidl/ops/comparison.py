"""Comparisons and logic, element by element: bool tensors without a gradient.

Operands are as in arithmetic: tensors, arrays or numbers, broadcast, compared in the dtype of PyTorch's promotion. NaN equals
nothing, itself neither.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.ops.arithmetic import Operand, operands
from minidl.tensor import Tensor, common_device


def eq(x: Operand, y: Operand) -> Tensor:
    """x == y."""
    return _elementwise("eq", operator.eq, x, y)


def ne(x: Operand, y: Operand) -> Tensor:
    """x != y."""
    return _elementwise("ne", operator.ne, x, y)


def lt(x: Operand, y: Operand) -> Tensor:
    """x < y."""
    return _elementwise("lt", operator.lt, x, y)


def le(x: Operand, y: Operand) -> Tensor:
    """x <= y."""
    return _elementwise("le", operator.le, x, y)


def gt(x: Operand, y: Operand) -> Tensor:
    """x > y."""
    return _elementwise("gt", operator.gt, x, y)


def ge(x: Operand, y: Operand) -> Tensor:
    """x >= y."""
    return _elementwise("ge", operator.ge, x, y)


def bitwise_and(x: Operand, y: Operand) -> Tensor:
    """x & y, of bools or integers. RuntimeError for floats."""
    return _logic("bitwise_and", operator.and_, x, y)


def bitwise_or(x: Operand, y: Operand) -> Tensor:
    """x | y, of bools or integers. RuntimeError for floats."""
    return _logic("bitwise_or", operator.or_, x, y)


def bitwise_xor(x: Operand, y: Operand) -> Tensor:
    """x ^ y, of bools or integers. RuntimeError for floats."""
    return _logic("bitwise_xor", operator.xor, x, y)


def bitwise_not(x: Tensor) -> Tensor:
    """~x, of bools or integers. RuntimeError for floats."""
    _check_no_float("bitwise_not", x)
    with x.device.active():
        return Tensor(~x.data, device=x.device)


def as_operator(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Any]:
    """The function as Python's operator: with what is no operand (None, a string) Python falls back to identity."""

    @functools.wraps(function)
    def compare(x: Tensor, y: Any) -> Any:
        is_operand = isinstance(y, (Tensor, int, float, np.generic)) or hasattr(y, "__array__")
        return function(x, y) if is_operand else NotImplemented

    return compare


def _elementwise(name: str, compare: Callable[[Any, Any], Any], x: Any, y: Any) -> Tensor:
    x, y = operands(name, x, y)
    device = common_device(name, (x, y))
    x, y = (t.data if isinstance(t, Tensor) else t for t in (x, y))
    with device.active():
        return Tensor(compare(x, y), device=device)


def _logic(name: str, logic: Callable[[Any, Any], Any], x: Any, y: Any) -> Tensor:
    for operand in (x, y):
        _check_no_float(name, operand)
    return _elementwise(name, logic, x, y)


def _check_no_float(name: str, x: Any) -> None:
    if isinstance(x, float) or getattr(x, "dtype", np.dtype(int)).kind == "f":
        raise RuntimeError(f"{name}: operands must be bools or integers, got {getattr(x, 'dtype', 'a float')}")
