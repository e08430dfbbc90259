"""Initial values for parameters, with PyTorch's names. Every function writes into its tensor in place and returns it.

Why the scale matters: a layer's output is a sum of fan_in products, so its variance is fan_in * var(w) times the
input's. Weights that are too small shrink the signal from layer to layer until nothing of the image is left at the
top, weights that are too large blow it up. Glorot's (Xavier's) and He's (Kaiming's) rules choose var(w) ~ 1 / fan so
that the variance stays.

    fan_in  = C/g * KH * KW  (convolution)   = in_features   (linear): the inputs that one output sums
    fan_out = O   * KH * KW                  = out_features

Numbers are drawn in float64 in the logical (C) order of the shape and rounded once to the tensor's dtype. So a seed
gives the same values for every memory layout, dtype and device.

The random functions take `generator`, a `minidl.random.Generator`; without one the default generator is used.

Sources: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010,
section 4.2. He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, section 2.2.
"""

import math
from collections.abc import Sequence

import numpy as np

from minidl import changes
from minidl.random import Generator, default_generator
from minidl.tensor import Tensor

_GAINS = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}


def copy_(tensor: Tensor, values: np.ndarray, by: str = "nn.init") -> Tensor:
    """tensor <- values, a NumPy array of its shape: cast to its dtype, on its device, in its memory layout."""
    with tensor.device.active():
        tensor.data[...] = tensor.device.asarray(values.astype(tensor.dtype, copy=False))
    changes.note(tensor.data, by)
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """tensor <- val everywhere."""
    with tensor.device.active():
        tensor.data[...] = val
    changes.note(tensor.data, "nn.init")
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """tensor <- 0."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """tensor <- 1."""
    return constant_(tensor, 1)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Independent normal numbers of this mean and standard deviation.

    TypeError unless the tensor holds floats; ValueError for std < 0.
    """
    _check_float("normal_", tensor)
    if not std >= 0:
        raise ValueError(f"normal_: std must be at least 0, got {std}")
    values = (generator or default_generator).normal(tensor.shape, np.float64)
    values *= std
    values += mean
    return copy_(tensor, values)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Independent uniform numbers in [a, b); rounding to a narrow dtype can reach b itself.

    TypeError unless the tensor holds floats; ValueError for a > b.
    """
    _check_float("uniform_", tensor)
    if not a <= b:
        raise ValueError(f"uniform_: a must be at most b, got a {a}, b {b}")
    values = (generator or default_generator).uniform(tensor.shape, np.float64)
    values *= b - a
    values += a
    return copy_(tensor, values)


def fan_in_and_fan_out(shape: Sequence[int]) -> tuple[int, int]:
    """The fans of a weight (out, in) or (O, C/g, KH, KW). ValueError below two dimensions."""
    if len(shape) < 2:
        raise ValueError(f"fan_in_and_fan_out: a weight needs at least 2 dimensions, got {tuple(shape)}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights must be larger to make up for what the nonlinearity that follows takes away.

    linear, conv2d, sigmoid: 1; tanh: 5/3; relu: sqrt(2); leaky_relu: sqrt(2 / (1 + param**2)), param 0.01 by default.
    ValueError for another name.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: nonlinearity must be one of {[*_GAINS, 'leaky_relu']}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """He's rule with normal numbers: std = gain / sqrt(fan). Keeps the variance through ReLU-like layers.

    a            : the slope of leaky_relu below zero; 0 is relu.
    mode         : "fan_in" keeps the variance forward, "fan_out" keeps the gradient's backward; ValueError otherwise.
    nonlinearity : see `calculate_gain`.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """He's rule with uniform numbers in [-bound, bound), bound = sqrt(3) * gain / sqrt(fan). See `kaiming_normal_`."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's rule with normal numbers: std = gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's rule with uniform numbers in [-bound, bound), bound = gain * sqrt(6 / (fan_in + fan_out))."""
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fan_in_and_fan_out(tensor.shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))  # a weight without elements has fan 0


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / max(sum(fan_in_and_fan_out(tensor.shape)), 1))


def _check_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype.kind != "f":
        raise TypeError(f"{name}: the tensor must hold floats, got {tensor.dtype}")
