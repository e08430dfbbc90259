"""Dropout in training: y = x * mask / (1 - p).

x, y : any shape; mask : of that shape, bool, drawn for you, False where an element is dropped
backward gets gy, of y's shape, and returns gx, of x's.

Grade it: python -m minidl.study grade 06_dropout.py
"""

import numpy as np  # noqa: F401 - for your backward

ASSIGNMENT = "dropout"


def forward(x, mask, p):
    return x * mask / (1 - p), (mask, p)


def backward(gy, saved):
    """gy, and mask, p -> gx."""
    raise NotImplementedError("backward")
