"""Tensors from nothing: PyTorch's factories, for any device."""

from typing import Any

import numpy as np

from minidl.device import Device
from minidl.random import default_generator
from minidl.tensor import Tensor


def zeros(*shape: int, dtype: Any = np.float32, device: Device | str = "cpu:0", requires_grad: bool = False) -> Tensor:
    """All 0."""
    return Tensor(np.zeros(_sizes(shape), dtype), requires_grad, device)


def ones(*shape: int, dtype: Any = np.float32, device: Device | str = "cpu:0", requires_grad: bool = False) -> Tensor:
    """All 1."""
    return Tensor(np.ones(_sizes(shape), dtype), requires_grad, device)


def rand(*shape: int, dtype: Any = np.float32, device: Device | str = "cpu:0", requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), from minidl's default generator."""
    return Tensor(default_generator.uniform(_sizes(shape), dtype), requires_grad, device)


def randn(*shape: int, dtype: Any = np.float32, device: Device | str = "cpu:0", requires_grad: bool = False) -> Tensor:
    """Standard normal, from minidl's default generator."""
    return Tensor(default_generator.normal(_sizes(shape), dtype), requires_grad, device)


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
