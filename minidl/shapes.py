"""Every rule about shapes, with its error message. Imports nothing of minidl.

Names: N images, C channels, H x W input, KH x KW kernel, OH x OW output, O output channels.
"""

import functools
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))


def pair(op: str, name: str, value: int | Sequence[int], least: int) -> Pair:
    """An int n -> (n, n); a sequence of two ints -> itself. TypeError unless ints, RuntimeError unless one or two >= least."""
    values = (value, value) if is_int(value) else value
    if not isinstance(values, (tuple, list)) or not all(is_int(v) for v in values):
        raise TypeError(f"{op}: {name} must be an int or two ints, got {value!r}")
    if len(values) not in (1, 2):
        raise RuntimeError(f"{op}: {name} must be an int or two ints, got {len(values)}: {value!r}")
    first, second = int(values[0]), int(values[-1])
    if min(first, second) < least:
        raise RuntimeError(f"{op}: {name} must be at least {least}, got {value!r}")
    return first, second


def size(op: str, name: str, value: object, least: int) -> int:
    """An int that counts something, itself. TypeError unless an int, RuntimeError below `least`."""
    if not is_int(value):
        raise TypeError(f"{op}: {name} must be an int, got {value!r}")
    if value < least:  # type: ignore[operator]
        raise RuntimeError(f"{op}: {name} must be at least {least}, got {value}")
    return int(value)  # type: ignore[call-overload]


def is_int(value: object) -> bool:
    """Python's and NumPy's integers, but not bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def span(kernel: int, dilation: int) -> int:
    """Pixels from a dilated kernel's first tap to its last: dilation * (kernel - 1) + 1."""
    return dilation * (kernel - 1) + 1


def out_size(op: str, size: Sequence[int], kernel: Sequence[int], stride: Pair, padding: Padding, dilation: Pair) -> Pair:
    """(OH, OW) = floor((H + pads - span) / stride) + 1 for each side. RuntimeError where the kernel does not fit."""
    sides = []
    for side, n, k, s, (before, after), d in zip("HW", size, kernel, stride, padding, dilation, strict=True):
        room = n + before + after - span(k, d)
        if room < 0:
            raise RuntimeError(
                f"{op}: kernel spans {span(k, d)} along {side}, padded input has {n + before + after}, "
                f"got kernel {kernel}, dilation {dilation}, input {size}, padding {padding}"
            )
        sides.append(room // s + 1)
    return sides[0], sides[1]


def ceil_padding(size: int, kernel: int, stride: int) -> int:
    """Zeros to add at the end so that out_size equals ceil((size - kernel) / stride) + 1: the 2012 code's rule.

    224 with kernel 11 and stride 4 needs 3. Source: cuda-convnet's layer.py, `ceil((2*pad + N - K) / stride) + 1`.
    """
    return -(size - kernel) % stride


def conv_padding(op: str, padding: int | str | Sequence[int], kernel: Sequence[int], stride: Pair, dilation: Pair) -> Padding:
    """A convolution's padding argument -> ((top, bottom), (left, right)). 'valid' is 0; 'same' keeps H x W at stride 1."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise RuntimeError(f"{op}: padding must be an int, two ints, 'valid' or 'same', got {padding!r}")
        if padding == "same" and stride != (1, 1):
            raise RuntimeError(f"{op}: padding='same' needs stride 1, got stride {stride}")
        totals = [span(k, d) - 1 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    ph, pw = pair(op, "padding", padding, 0)
    return (ph, ph), (pw, pw)


def pool_out_size(
    op: str, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Pair:
    """(OH, OW) of a pool. With ceil_mode the last window may hang over the end, but must start inside input or padding.

    RuntimeError for padding over half the kernel or a kernel that does not fit.
    """
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise RuntimeError(f"{op}: padding must be at most half the kernel, got padding {padding}, kernel {kernel}")
    sides = []
    for side, n, k, s, p, d in zip("HW", size, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - span(k, d)
        out = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        if out < 1:
            raise RuntimeError(
                f"{op}: output size is too small: {out} along {side}, "
                f"got input {size}, kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"
            )
        sides.append(out)
    return sides[0], sides[1]


def pool_padding(size: Sequence[int], out: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Padding:
    """Padding up to the end of the last window, which may hang over (ceil_mode) or stop short of the end."""
    ends = [
        max((o - 1) * s + span(k, d) - p - n, 0)
        for n, o, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True)
    ]
    return (padding[0], ends[0]), (padding[1], ends[1])


def check_conv(op: str, x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, groups: int) -> None:
    """Do the shapes of a convolution's operands fit? RuntimeError with all of them if not."""
    if len(x) not in (3, 4):
        raise RuntimeError(f"{op}: x must be (C, H, W) or (N, C, H, W), got {tuple(x)}")
    if len(weight) != 4:
        raise RuntimeError(f"{op}: weight must be (O, C / groups, KH, KW), got {tuple(weight)}")
    if not is_int(groups) or groups < 1:
        raise RuntimeError(f"{op}: groups must be an int of at least 1, got {groups!r}")
    shapes = f"x {tuple(x)}, weight {tuple(weight)}"
    if weight[1] * groups != x[-3]:
        plural = "group" if groups == 1 else "groups"
        raise RuntimeError(
            f"{op}: weight takes {weight[1]} x {groups} {plural} = {weight[1] * groups} channels, x has {x[-3]} ({shapes})"
        )
    if weight[0] % groups:
        raise RuntimeError(f"{op}: output channels must be divisible by groups, got {weight[0]} and {groups} ({shapes})")
    if bias is not None and tuple(bias) != (weight[0],):
        raise RuntimeError(f"{op}: bias must be ({weight[0]},), got {tuple(bias)} ({shapes})")


def transposed_size(
    op: str, size: Sequence[int], kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair, output_padding: Pair
) -> Pair:
    """Of a transposed convolution: (OH, OW) = (H - 1) * stride + span - 2 * padding + output_padding for each side.

    RuntimeError where nothing is left, and for an output_padding that neither stride nor dilation exceeds.
    """
    sides = []
    for n, k, s, p, d, extra in zip(size, kernel, stride, padding, dilation, output_padding, strict=True):
        if extra >= max(s, d):
            raise RuntimeError(
                f"{op}: output_padding must be smaller than stride or dilation, "
                f"got output_padding {output_padding}, stride {stride}, dilation {dilation}"
            )
        sides.append((n - 1) * s + span(k, d) - 2 * p + extra)
    if min(*sides, *size) < 1:
        raise RuntimeError(
            f"{op}: output size is too small: {tuple(sides)}, got input {tuple(size)}, kernel {tuple(kernel)}, "
            f"stride {stride}, padding {padding}, output_padding {output_padding}, dilation {dilation}"
        )
    return sides[0], sides[1]


def check_conv_transpose(op: str, x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, groups: int) -> None:
    """Do the shapes of a transposed convolution's operands fit? RuntimeError with all of them if not."""
    if len(x) not in (3, 4):
        raise RuntimeError(f"{op}: x must be (C, H, W) or (N, C, H, W), got {tuple(x)}")
    if len(weight) != 4:
        raise RuntimeError(f"{op}: weight must be (C, O / groups, KH, KW), got {tuple(weight)}")
    if not is_int(groups) or groups < 1:
        raise RuntimeError(f"{op}: groups must be an int of at least 1, got {groups!r}")
    shapes = f"x {tuple(x)}, weight {tuple(weight)}"
    if weight[0] != x[-3]:
        raise RuntimeError(f"{op}: weight takes {weight[0]} channels, x has {x[-3]} ({shapes})")
    if weight[0] % groups:
        raise RuntimeError(f"{op}: channels must be divisible by groups, got {weight[0]} and {groups} ({shapes})")
    if bias is not None and tuple(bias) != (weight[1] * groups,):
        raise RuntimeError(f"{op}: bias must be ({weight[1] * groups},), got {tuple(bias)} ({shapes})")


def normalize_dim(op: str, dim: int, ndim: int) -> int:
    """A possibly negative axis -> 0 ... ndim-1. IndexError out of range (a 0-d tensor takes -1 and 0, as PyTorch's)."""
    if not is_int(dim):
        raise TypeError(f"{op}: dim must be an int, got {dim!r}")
    room = max(ndim, 1)
    if not -room <= dim < room:
        raise IndexError(f"{op}: dim must be in [{-room}, {room - 1}], got {dim}")
    return dim % room


def normalize_dims(op: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """None or () -> every axis; an int or a sequence of ints -> sorted axes. RuntimeError for a repeated one."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    dims = [normalize_dim(op, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{op}: each dim may be named once, got {dim}")
    return tuple(sorted(dims)) if ndim else ()


def numpy_names(function: Callable[P, R]) -> Callable[P, R]:
    """A function that takes NumPy's `axis` and `keepdims` for its `dim` and `keepdim` as well, as PyTorch's do."""

    @functools.wraps(function)
    def renamed(*args: Any, **settings: Any) -> R:
        for given, name in (("axis", "dim"), ("keepdims", "keepdim")):
            if given in settings:
                settings[name] = settings.pop(given)
        return function(*args, **settings)

    return renamed
