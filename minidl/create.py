"""Tensors from data and from nothing: PyTorch's factories, for any device.

Each takes `dtype`, `device` and `requires_grad`. Floats are float32 and integers int64 unless a dtype is given. Random ones
draw from minidl's default generator (`manual_seed`), or from `generator`.
"""

import math
from typing import Any

import numpy as np

from minidl.device import Array, Device, array_module
from minidl.dtypes import DEFAULT_FLOAT, result_type
from minidl.random import Generator, default_generator
from minidl.tensor import Tensor

Place = Device | str | None


def tensor(data: Any, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """A copy of numbers, lists, an array or a tensor. A leaf: the copy of a tensor has no graph."""
    if isinstance(data, Tensor):
        device = data.device if device is None else device
        data = data.device.to_host(data.data)
    copy = np.array(data) if hasattr(data, "dtype") else _listed(data, dtype)
    return Tensor(copy, requires_grad, device, dtype)


def as_tensor(data: Any, dtype: Any = None, device: Place = None) -> Tensor:
    """The tensor itself, or one on the array's own memory; a copy only where dtype or device ask for it, and of lists."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    return Tensor(data if hasattr(data, "dtype") else _listed(data, dtype), device=device, dtype=dtype)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the array's own memory: changes of either are seen by both. TypeError for anything else."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: a NumPy array is needed, got {type(ndarray).__name__}")
    return Tensor(ndarray)


def _listed(data: Any, dtype: Any) -> np.ndarray:
    """Numbers in lists, among them tensors of one element, as an array; Python's floats become float32, if dtype is None."""
    array = np.asarray(_numbers(data))
    if dtype is None and array.dtype == np.float64 and not _has_float64(data):
        array = array.astype(DEFAULT_FLOAT)
    return array


def _numbers(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_numbers(item) for item in data]
    return data.device.to_host(data.data) if isinstance(data, Tensor) else data


def _has_float64(data: Any) -> bool:
    """Does an array or a tensor among the data say that it is of float64?"""
    if isinstance(data, (list, tuple)):
        return any(_has_float64(item) for item in data)
    return getattr(data, "dtype", None) == np.float64


def zeros(*size: Any, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """All 0."""
    return Tensor(np.zeros(_sizes("zeros", size), dtype or DEFAULT_FLOAT), requires_grad, device)


def ones(*size: Any, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """All 1."""
    return Tensor(np.ones(_sizes("ones", size), dtype or DEFAULT_FLOAT), requires_grad, device)


def empty(*size: Any, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Whatever is in memory; to be filled."""
    return Tensor(np.empty(_sizes("empty", size), dtype or DEFAULT_FLOAT), requires_grad, device)


def full(
    size: Any, fill_value: float | Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False
) -> Tensor:
    """All `fill_value`, whose dtype counts: of an int int64, of a bool bool, of a float float32."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    kind = dtype or (fill_value.dtype if isinstance(fill_value, Tensor) else result_type(value))
    return Tensor(np.full(_sizes("full", (size,)), value, kind), requires_grad, device)


def rand(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Place = None, requires_grad: bool = False
) -> Tensor:
    """Uniform in [0, 1)."""
    numbers = (generator or default_generator).uniform(_sizes("rand", size), dtype or DEFAULT_FLOAT)
    return Tensor(numbers, requires_grad, device)


def randn(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Place = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal."""
    numbers = (generator or default_generator).normal(_sizes("randn", size), dtype or DEFAULT_FLOAT)
    return Tensor(numbers, requires_grad, device)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Place = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers of [low, high), each as likely: randint(10, (2, 3)) or randint(5, 10, (2, 3)); int64. RuntimeError for none."""
    if size is None:
        low, high, size = 0, low, high
    if not low < high:
        raise RuntimeError(f"randint: low must be below high, got {low} and {high}")
    numbers = (generator or default_generator).integers(low, high, _sizes("randint", (size,)))
    return Tensor(numbers.astype(dtype or np.int64), requires_grad, device)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Place = None) -> Tensor:
    """0 ... n-1 in an order drawn at random; int64."""
    return Tensor((generator or default_generator).permutation(n).astype(dtype or np.int64), device=device)


def arange(
    start: float | Tensor,
    end: float | Tensor | None = None,
    step: float | Tensor = 1,
    *,
    dtype: Any = None,
    device: Place = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... below `end`; arange(end) begins at 0. int64 of ints, float32 as soon as one is a float.

    The three are numbers or 0-d tensors. For an integer dtype they lose their fractions first, as PyTorch's.
    RuntimeError for a step of 0, or one that leads away from `end`.
    """
    bounds = (0, start) if end is None else (start, end)
    first, last, by = (_number("arange", value, dtype) for value in (*bounds, step))
    if by == 0 or (last - first) * by < 0:
        raise RuntimeError(f"arange: step must lead from start to end, got start {first}, end {last}, step {by}")
    numbers = first + by * np.arange(math.ceil((last - first) / by))
    return Tensor(numbers.astype(dtype or result_type(first, last, by)), requires_grad, device)


def linspace(
    start: float | Tensor,
    end: float | Tensor,
    steps: int,
    *,
    dtype: Any = None,
    device: Place = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers from start to end, both included, at equal distances; float32.

    The ends are numbers or 0-d tensors. For an integer dtype they lose their fractions first, as PyTorch's.
    RuntimeError for a negative number of steps, and for an end with axes.
    """
    first, last = (_number("linspace", value, dtype) for value in (start, end))
    if steps < 0:
        raise RuntimeError(f"linspace: steps must be at least 0, got {steps}")
    return Tensor(np.linspace(first, last, steps).astype(dtype or DEFAULT_FLOAT), requires_grad, device)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """1 on the diagonal of n rows and m columns (n if left out), 0 elsewhere."""
    return Tensor(np.eye(n, m, dtype=dtype or DEFAULT_FLOAT), requires_grad, device)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """All 0, in input's shape, and in its dtype, device and memory order unless others are given."""
    return _filled_like(input, 0, dtype, device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """All 1, else as zeros_like."""
    return _filled_like(input, 1, dtype, device, requires_grad)


def full_like(
    input: Tensor, fill_value: float, *, dtype: Any = None, device: Place = None, requires_grad: bool = False
) -> Tensor:
    """All `fill_value`, else as zeros_like."""
    return _filled_like(input, fill_value, dtype, device, requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Whatever is in memory, else as zeros_like."""
    return _filled_like(input, None, dtype, device, requires_grad)


def rand_like(input: Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), else as zeros_like."""
    return rand(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randn_like(input: Tensor, *, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Standard normal, else as zeros_like."""
    return randn(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def _filled_like(input: Tensor, value: float | None, dtype: Any, device: Place, requires_grad: bool) -> Tensor:
    with input.device.active():
        array: Array = array_module(input.data).empty_like(input.data, dtype=dtype)
        if value is not None:
            array[...] = value
    made = Tensor(array, device=input.device)
    return (made if device is None else made.to(device=device)).requires_grad_(requires_grad)


def _number(op: str, value: Any, dtype: Any) -> Any:
    """A number, or that of a 0-d tensor; a whole one for an integer dtype. RuntimeError for a tensor with axes."""
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(f"{op}: start, end and step must be numbers or 0-d tensors, got the shape {value.shape}")
    number = value.item() if isinstance(value, Tensor) else value
    return int(number) if dtype is not None and np.dtype(dtype).kind in "iu" else number


def _sizes(op: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    """zeros(2, 3) and zeros((2, 3)) are the same. RuntimeError for a negative size."""
    sizes = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    if any(n < 0 for n in sizes):
        raise RuntimeError(f"{op}: sizes must be at least 0, got {sizes}")
    return sizes
