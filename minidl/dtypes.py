"""The dtype of a result: PyTorch's rule of type promotion.

Operands are of three ranks: tensors with axes, 0-d tensors, and Python's numbers. A lower rank widens the result only if its
kind is higher, in the order bool, integer, float: `float32 tensor * 0-d float64 tensor` stays float32, `int64 tensor * 0-d
float64 tensor` becomes float64, `int64 tensor * 0.5` becomes float32, the default. Within a rank the wider dtype counts, and
a float is never widened by an integer: int64 with float32 is float32, which NumPy would make float64.

Source: https://docs.pytorch.org/docs/2.13/tensor_attributes.html#type-promotion-doc
"""

from typing import Any

import numpy as np

from minidl.tensor import Tensor

DEFAULT_FLOAT = np.dtype("float32")
_OF_NUMBERS = {bool: np.dtype("bool"), int: np.dtype("int64"), float: DEFAULT_FLOAT}


def promote_types(first: Any, second: Any) -> np.dtype:
    """The narrowest dtype that holds both, where a float counts as holding every integer."""
    first, second = np.dtype(first), np.dtype(second)
    if (first.kind == "f") != (second.kind == "f"):
        return first if first.kind == "f" else second
    return np.promote_types(first, second)


def result_type(*operands: Any) -> np.dtype:
    """The dtype of an op on tensors and Python's numbers.

    TypeError for an operand that is neither.
    """
    ranks: dict[int, np.dtype] = {}
    for x in operands:
        rank, dtype = _rank_and_dtype(x)
        ranks[rank] = promote_types(ranks[rank], dtype) if rank in ranks else dtype
    result, *lower = (ranks[rank] for rank in sorted(ranks))
    for dtype in lower:
        if kind(dtype) > kind(result):
            result = dtype
    return result


def _rank_and_dtype(x: Any) -> tuple[int, np.dtype]:
    """0 for a tensor with axes, 1 for a 0-d one, 2 for a number, Python's or NumPy's; and its dtype."""
    x = x.item() if isinstance(x, np.generic) else x
    if isinstance(x, Tensor):
        return (0 if x.ndim else 1), x.dtype
    if type(x) not in _OF_NUMBERS:
        raise TypeError(f"result_type: operands must be tensors or numbers, got {type(x).__name__}")
    return 2, _OF_NUMBERS[type(x)]


def kind(dtype: np.dtype) -> int:
    """0 for bool, 1 for integers, 2 for floats. A value may be written into an array of its own kind or of a higher one."""
    return {"b": 0, "i": 1, "u": 1, "f": 2}[dtype.kind]
