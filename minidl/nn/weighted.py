"""What the layers with a weight share: it, a bias or None, and their initial values.

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


def empty_parameter(shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """A parameter to be filled; a 4-D one has channels-last memory."""
    dtype = np.float32 if dtype is None else dtype
    if len(shape) == 4:
        o, c, kh, kw = shape
        return Parameter(Tensor(nchw(np.empty((o, kh, kw, c), dtype)), device=device))
    return Parameter(Tensor(np.empty(shape, dtype), device=device))


class Weighted(Module):
    """A module with a weight and a bias or None."""

    weight: Parameter
    bias: Parameter | None

    def _make_parameters(self, weight: tuple[int, ...], bias: tuple[int, ...] | None, device: Any, dtype: Any) -> None:
        """Both from their shapes; no bias from None."""
        self.weight = empty_parameter(weight, device, dtype)
        self.register_parameter("bias", None if bias is None else empty_parameter(bias, device, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: weight and bias uniform in [-1/sqrt(fan_in), 1/sqrt(fan_in))."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fan_in_and_fan_out(self.weight.shape)
            bound = 1 / math.sqrt(max(fan_in, 1))
            init.uniform_(self.bias, -bound, bound)
