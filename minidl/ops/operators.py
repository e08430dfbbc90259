"""What tensors can do with operators and methods: one visible list."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from minidl.device import Device
from minidl.ops import arithmetic, reduce, relu, reshape, sigmoid, softmax, tanh
from minidl.ops.arithmetic import Operand
from minidl.ops.reduce import Dims
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


def to_float32(x: Tensor) -> Tensor:
    """The same numbers as float32."""
    return to(x, np.float32)


def to_float64(x: Tensor) -> Tensor:
    """The same numbers as float64."""
    return to(x, np.float64)


def axes_reversed(x: Tensor) -> Tensor:
    """The axes in the opposite order: a matrix transposed."""
    return reshape.permute(x, *range(x.ndim)[::-1])


METHODS: dict[str, Callable[..., Any]] = {
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
    "float": to_float32,
    "double": to_float64,
}

PROPERTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "T": axes_reversed,
}

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)
for _name, _function in PROPERTIES.items():
    setattr(Tensor, _name, property(_function))

if TYPE_CHECKING:

    class Operators:
        """The same list as type checkers and editors see it, as a base of Tensor. A test compares the two."""

        def __add__(self, y: Operand) -> Tensor: ...
        def __radd__(self, x: Operand) -> Tensor: ...
        def __sub__(self, y: Operand) -> Tensor: ...
        def __rsub__(self, x: Operand) -> Tensor: ...
        def __mul__(self, y: Operand) -> Tensor: ...
        def __rmul__(self, x: Operand) -> Tensor: ...
        def __truediv__(self, y: Operand) -> Tensor: ...
        def __rtruediv__(self, x: Operand) -> Tensor: ...
        def __pow__(self, y: Operand) -> Tensor: ...
        def __rpow__(self, x: Operand) -> Tensor: ...
        def __matmul__(self, y: Operand) -> Tensor: ...
        def __rmatmul__(self, x: Operand) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def matmul(self, y: Operand) -> Tensor: ...
        def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor: ...
        def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor: ...
        @overload
        def max(self, dim: None = None, keepdim: bool = False) -> Tensor: ...
        @overload
        def max(self, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]: ...
        def max(self, dim: int | None = None, keepdim: bool = False) -> Tensor | tuple[Tensor, Tensor]: ...
        @overload
        def min(self, dim: None = None, keepdim: bool = False) -> Tensor: ...
        @overload
        def min(self, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]: ...
        def min(self, dim: int | None = None, keepdim: bool = False) -> Tensor | tuple[Tensor, Tensor]: ...
        def amax(self, dim: Dims = None, keepdim: bool = False) -> Tensor: ...
        def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor: ...
        def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor: ...
        def relu(self, inplace: bool = False) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def softmax(self, dim: int | None = None, dtype: Any = None) -> Tensor: ...
        def log_softmax(self, dim: int | None = None, dtype: Any = None) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def view(self, *shape: Any) -> Tensor: ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor: ...
        def squeeze(self, dim: int | None = None) -> Tensor: ...
        def unsqueeze(self, dim: int) -> Tensor: ...
        def permute(self, *dims: Any) -> Tensor: ...
        def transpose(self, dim0: int, dim1: int) -> Tensor: ...
        def to(self, *args: Any, device: Device | str | None = None, dtype: Any = None) -> Tensor: ...
        def float(self) -> Tensor: ...
        def double(self) -> Tensor: ...
        @property
        def T(self) -> Tensor: ...  # noqa: N802  NumPy's name
