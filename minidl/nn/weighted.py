"""What Conv2d and Linear share: a weight, a bias or None, and their initial values.

They start from PyTorch's default, Kaiming-uniform with a = sqrt(5). With it the gain is sqrt(2 / (1 + 5)) and the bound
sqrt(3) * gain / sqrt(fan_in) = 1 / sqrt(fan_in), the same as the bias's.
"""

import math
from typing import Any

import numpy as np

from minidl.layout import nchw
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


def _empty(shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """A parameter to be filled; a 4-D one has channels-last memory."""
    dtype = np.float32 if dtype is None else dtype
    if len(shape) == 4:
        o, c, kh, kw = shape
        return Parameter(Tensor(nchw(np.empty((o, kh, kw, c), dtype)), device=device))
    return Parameter(Tensor(np.empty(shape, dtype), device=device))


class Weighted(Module):
    """A module with a weight (O, ...) and a bias (O,) or None."""

    weight: Parameter
    bias: Parameter | None

    def _make_parameters(self, shape: tuple[int, ...], bias: bool, device: Any, dtype: Any) -> None:
        self.weight = _empty(shape, device, dtype)
        self.register_parameter("bias", _empty(shape[:1], device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: weight and bias uniform in [-1/sqrt(fan_in), 1/sqrt(fan_in))."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fan_in_and_fan_out(self.weight.shape)
            bound = 1 / math.sqrt(max(fan_in, 1))
            init.uniform_(self.bias, -bound, bound)
