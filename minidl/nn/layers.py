"""Layers: each one a module that keeps the settings and parameters of one function of `minidl.nn.functional`.

The mathematics is in minidl/ops/<name>.py, where shapes, edge rules and errors are described too. Constructors have
PyTorch's signatures, `repr` shows what PyTorch's would.

Conv2d and Linear start from PyTorch's default, Kaiming-uniform with a = sqrt(5). With it the gain is sqrt(2 / (1 + 5))
and the bound sqrt(3) * gain / sqrt(fan_in) = 1 / sqrt(fan_in), the same as the bias's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import minidl.nn.functional as F
from minidl.layout import nchw
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.shapes import is_int, pair
from minidl.tensor import Tensor

IntPair = int | Sequence[int]


def _empty(shape: tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """A parameter to be filled; a 4-D one has channels-last memory."""
    dtype = np.float32 if dtype is None else dtype
    if len(shape) == 4:
        o, c, kh, kw = shape
        return Parameter(Tensor(nchw(np.empty((o, kh, kw, c), dtype)), device=device))
    return Parameter(Tensor(np.empty(shape, dtype), device=device))


class _Weighted(Module):
    """What Conv2d and Linear share: a weight, a bias or None, and PyTorch's initial values."""

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


class Conv2d(_Weighted):
    """conv2d with parameters weight (out_channels, in_channels / groups, KH, KW) and bias (out_channels,).

    Input (N, in_channels, H, W), output (N, out_channels, OH, OW). The weight has channels-last memory.

    ValueError: channels or groups below 1, channels that groups does not divide, a padding_mode other than 'zeros'.
    RuntimeError: kernel_size, stride or dilation below 1, padding below 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_channels(in_channels, out_channels, groups)
        if padding_mode != "zeros":
            raise ValueError(f"Conv2d: padding_mode must be 'zeros', got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.padding = _conv_padding(padding)
        self.dilation = pair("Conv2d", "dilation", dilation, 1)
        self._make_parameters((out_channels, in_channels // groups, *self.kernel_size), bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        always = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        unusual = {"padding": (self.padding, (0, 0)), "dilation": (self.dilation, (1, 1)), "groups": (self.groups, 1)}
        parts = [f"{name}={value}" for name, (value, usual) in unusual.items() if value != usual]
        return ", ".join([always, *parts, *([] if self.bias is not None else ["bias=False"])])


class ConvReLU2d(Conv2d):
    """Conv2d followed by ReLU, in one op: the same numbers, one array less to keep, and faster. Arguments as for Conv2d."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d_relu(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    if not is_int(groups) or groups < 1:
        raise ValueError(f"Conv2d: groups must be an int of at least 1, got {groups!r}")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not is_int(channels) or channels < 1:
            raise ValueError(f"Conv2d: {name} must be an int of at least 1, got {channels!r}")
        if channels % groups:
            raise ValueError(f"Conv2d: {name} must be divisible by groups, got {channels} and {groups}")


def _conv_padding(padding: IntPair | str) -> Any:
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"Conv2d: padding must be an int, two ints, 'valid' or 'same', got {padding!r}")
        return padding
    return pair("Conv2d", "padding", padding, 0)


class Linear(_Weighted):
    """linear with parameters weight (out_features, in_features) and bias (out_features,): y = x @ weight^T + bias."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not is_int(size) or size < 0:
                raise ValueError(f"Linear: {name} must be an int of at least 0, got {size!r}")
        self.in_features, self.out_features = in_features, out_features
        self._make_parameters((out_features, in_features), bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class MaxPool2d(Module):
    """max_pool2d; `stride=None` is the kernel's size."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """avg_pool2d; `stride=None` is the kernel's size."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class LocalResponseNorm(Module):
    """local_response_norm, with PyTorch's convention: alpha is divided by size, k is 1."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class ReLU(Module):
    """relu."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """tanh."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Sigmoid(Module):
    """sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Dropout(Module):
    """dropout, which acts in training only: see `Module.train` and `Module.eval`.

    scale_at : "train" divides by 1 - p in training (PyTorch's), "test" multiplies by 1 - p in evaluation (2012's).

    ValueError for p outside [0, 1] or another scale_at.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, scale_at: str = "train") -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        if scale_at not in ("train", "test"):
            raise ValueError(f"Dropout: scale_at must be 'train' or 'test', got {scale_at!r}")
        self.p, self.inplace, self.scale_at = p, inplace, scale_at

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace, scale_at=self.scale_at)

    def extra_repr(self) -> str:
        scale_at = "" if self.scale_at == "train" else f", scale_at={self.scale_at!r}"
        return f"p={self.p}, inplace={self.inplace}{scale_at}"


class Flatten(Module):
    """flatten; by default everything but the first axis: (N, C, H, W) -> (N, C * H * W), in (C, H, W) order."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Softmax(Module):
    """softmax along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log_softmax along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class _Loss(Module):
    """What the two losses share. `weight` (C,) or None is a buffer, so it is saved and moved with the module."""

    def __init__(self, weight: Tensor | None, ignore_index: int, reduction: str) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction = ignore_index, reduction


class NLLLoss(_Loss):
    """nll_loss: of log-probabilities (N, C) and class ids (N,)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.size_average, self.reduce = size_average, reduce

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, self.size_average, self.ignore_index, self.reduce, self.reduction)


class CrossEntropyLoss(_Loss):
    """cross_entropy: of scores (N, C) and class ids (N,) or probabilities (N, C)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.size_average, self.reduce, self.label_smoothing = size_average, reduce, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            self.size_average,
            self.ignore_index,
            self.reduce,
            self.reduction,
            self.label_smoothing,
        )


class Identity(Module):
    """y = x. Takes and ignores any arguments, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class ZeroPad2d(Module):
    """pad with zeros: one int for all four sides, or (left, right, top, bottom)."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        sides = (padding,) * 4 if is_int(padding) else padding
        if not isinstance(sides, (tuple, list)) or len(sides) != 4 or not all(is_int(side) for side in sides):
            raise ValueError(f"ZeroPad2d: padding must be an int or (left, right, top, bottom), got {padding!r}")
        self.padding = tuple(sides)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding)

    def extra_repr(self) -> str:
        return str(self.padding)
