"""What tensors can do with operators and methods: one visible list."""

from typing import Any

import numpy as np

from minidl.device import Device
from minidl.ops import arithmetic, reduce, relu, reshape, sigmoid, softmax, tanh
from minidl.ops.to_device import to_device
from minidl.tensor import Tensor


def to(x: Tensor, *args: Any, device: Device | str | None = None, dtype: Any = None) -> Tensor:
    """x.to("cpu:1"), x.to("float64"), x.to(device=..., dtype=...): on another device, in another dtype, or both.

    DeviceError: no such device, or a name that is no dtype's either.
    """
    for value in args:
        if isinstance(value, Device) or (isinstance(value, str) and not _names_a_dtype(value)):
            device = value
        else:
            dtype = value
    x = x if dtype is None else arithmetic.cast(x, dtype)
    return x if device is None else to_device(x, device)


def _names_a_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


METHODS = {
    "__add__": arithmetic.add,
    "__radd__": lambda y, x: arithmetic.add(x, y),
    "__sub__": arithmetic.sub,
    "__rsub__": lambda y, x: arithmetic.sub(x, y),
    "__mul__": arithmetic.mul,
    "__rmul__": lambda y, x: arithmetic.mul(x, y),
    "__truediv__": arithmetic.div,
    "__rtruediv__": lambda y, x: arithmetic.div(x, y),
    "__pow__": arithmetic.pow,
    "__rpow__": lambda y, x: arithmetic.pow(x, y),
    "__matmul__": arithmetic.matmul,
    "__rmatmul__": lambda y, x: arithmetic.matmul(x, y),
    "__neg__": arithmetic.neg,
    "__abs__": arithmetic.abs_,
    "__getitem__": reshape.getitem,
    "abs": arithmetic.abs_,
    "exp": arithmetic.exp,
    "log": arithmetic.log,
    "sqrt": arithmetic.sqrt,
    "matmul": arithmetic.matmul,
    "sum": reduce.sum_,
    "mean": reduce.mean,
    "max": reduce.max_,
    "min": reduce.min_,
    "amax": reduce.amax,
    "amin": reduce.amin,
    "argmax": reduce.argmax,
    "relu": relu.relu,
    "tanh": tanh.tanh,
    "sigmoid": sigmoid.sigmoid,
    "softmax": softmax.softmax,
    "log_softmax": softmax.log_softmax,
    "reshape": reshape.reshape,
    "view": reshape.reshape,
    "flatten": reshape.flatten,
    "squeeze": reshape.squeeze,
    "unsqueeze": reshape.unsqueeze,
    "permute": reshape.permute,
    "transpose": reshape.transpose,
    "to": to,
    "float": lambda x: to(x, np.float32),
    "double": lambda x: to(x, np.float64),
}

PROPERTIES = {
    "T": lambda x: reshape.permute(x, *range(x.ndim)[::-1]),
}

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)
for _name, _function in PROPERTIES.items():
    setattr(Tensor, _name, property(_function))
