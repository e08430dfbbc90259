"""minidl.ops.select: the errors. Values and gradients are compared with PyTorch's in tests/oracle/test_tensor_methods.py."""

import re

import numpy as np
import pytest

from minidl import Tensor
from minidl.ops.select import where

X = Tensor(np.arange(6.0).reshape(2, 3))
MASK = Tensor(np.ones((2, 3), bool))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: where(X, X, X), "where: condition must be of bools, got float64"),
        (
            lambda: where(MASK, X, Tensor(np.ones(2))),
            "where: sizes must be equal or 1, counted from the last axis, got condition (2, 3), input (2, 3), other (2,)",
        ),
        (lambda: X.masked_fill(X, 0), "masked_fill: mask must be of bools, got float64"),
        (lambda: X.masked_fill(MASK, X), "masked_fill: value must be a number or a 0-d tensor, got the shape (2, 3)"),
        (lambda: X.gather(0, X), "gather: index must be of int64 or int32, got float64"),
        (
            lambda: X.gather(0, Tensor(np.zeros((1, 4), int))),
            "gather: index must fit into x but along dim 0, got x (2, 3), index (1, 4)",
        ),
        (lambda: X.gather(0, Tensor(np.full((1, 1), 2))), "gather: positions must be in [0, 1], got 2 to 2"),
        (lambda: X.gather(1, Tensor(np.full((1, 1), -1))), "gather: positions must be in [0, 2], got -1 to -1"),
        (lambda: X.topk(4), "topk: k must be in [0, 3], got 4 (x (2, 3), dim -1)"),
    ],
)
def test_errors(call, text):
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        call()
