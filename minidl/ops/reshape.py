"""Ops that move elements without changing them. Each backward moves the gradient the opposite way.

reshape   y = reshape(x)       gx = reshape(gy) to x's shape
permute   y = permute(x)       gx = permute(gy) with the inverse permutation
expand    y = x, repeated      gx = the sum over the copies (y is a view)
repeat    y = x, repeated      gx = the sum over the copies (y is new memory)
flip      y = x backwards      gx = gy backwards
roll      y = x moved on       gx = gy moved back
clone     y = a copy of x      gx = gy
getitem   y = x[index]         gx = 0 everywhere, plus gy at index (added up where an element was taken twice)
cat       y = cat(x1, x2, …)   gx1, gx2, … = the slices of gy
pad       y = pad(x)           gx = the inside of gy

An index has NumPy's parts: integers, slices, None, `...`, boolean masks, integer arrays and lists. One rule is PyTorch's:
integers beside an array select first, so `x[0, :, [0, 1]]` is `x[0][:, [0, 1]]`. NumPy takes such an integer for one more
array, and moves the arrays' axis to the front. So an index is applied in two steps: the basic one (integers, slices, None),
which gives a view, and the arrays.
"""

import functools
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from minidl import shapes
from minidl.device import Array, array_module
from minidl.dtypes import promote_types
from minidl.kernels import fastest
from minidl.layout import is_channels_last, nchw
from minidl.nn.module import Module
from minidl.ops.arithmetic import cast, sum_along, unbroadcast
from minidl.shapes import P, R
from minidl.tensor import Function, Tensor


class ReshapeFunction(Function):
    name = "reshape"
    views = True

    def forward(ctx, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.x_shape = x.shape
        return x.reshape(shape)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (gy.reshape(ctx.x_shape),)


class PermuteFunction(Function):
    name = "permute"
    views = True

    def forward(ctx, x: Array, dims: tuple[int, ...]) -> Array:
        ctx.inverse = tuple(np.argsort(dims).tolist())
        return x.transpose(dims)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (gy.transpose(ctx.inverse),)


class ExpandFunction(Function):
    name = "expand"
    views = True

    def forward(ctx, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.x_shape = x.shape
        return array_module(x).broadcast_to(x, shape)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (unbroadcast(gy, ctx.x_shape),)


class RepeatFunction(Function):
    name = "repeat"

    def forward(ctx, x: Array, times: tuple[int, ...]) -> Array:
        ctx.x_shape = x.shape
        ctx.apart = [size for n, k in zip((1,) * (len(times) - x.ndim) + x.shape, times, strict=True) for size in (k, n)]
        return array_module(x).tile(x, times)

    def backward(ctx, gy: Array) -> tuple[Array]:
        """Each axis of y is its copies, one after the other, of x's: sum over the copies."""
        copies = tuple(range(0, len(ctx.apart), 2))
        return (fastest(sum_along, gy)(gy.reshape(ctx.apart), copies).reshape(ctx.x_shape),)


class FlipFunction(Function):
    name = "flip"

    def forward(ctx, x: Array, axes: tuple[int, ...]) -> Array:
        ctx.axes = axes
        return array_module(x).flip(x, axes).copy()

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (array_module(gy).flip(gy, ctx.axes),)


class RollFunction(Function):
    name = "roll"

    def forward(ctx, x: Array, shifts: tuple[int, ...], axes: tuple[int, ...] | None) -> Array:
        ctx.shifts, ctx.axes = shifts, axes
        return array_module(x).roll(x, shifts if axes else shifts[0], axes)

    def backward(ctx, gy: Array) -> tuple[Array]:
        back = tuple(-n for n in ctx.shifts)
        return (array_module(gy).roll(gy, back if ctx.axes else back[0], ctx.axes),)


class CloneFunction(Function):
    name = "clone"

    def forward(ctx, x: Array, order: str) -> Array:
        return x.copy(order=order)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (gy,)


def add_at(x: Array, index: Any, values: Array) -> None:
    """x[index] += values in place, added up where an element is named more than once, in the order of the values."""
    array_module(x).add.at(x, index, values)


class GetItemFunction(Function):
    name = "getitem"
    views = True

    def forward(ctx, x: Array, basic: Any, arrays: Any) -> Array:
        ctx.x_shape, ctx.basic, ctx.arrays, ctx.channels_last = x.shape, basic, arrays, is_channels_last(x)
        return x[basic] if arrays is None else x[basic][arrays]

    def backward(ctx, gy: Array) -> tuple[Array]:
        xp = array_module(gy)
        gx = _full(xp, ctx.x_shape, 0, gy.dtype, ctx.channels_last)
        if ctx.arrays is None:
            gx[ctx.basic] = gy
        else:
            fastest(add_at, gx)(gx[ctx.basic], ctx.arrays, gy)
        return (gx,)


class CatFunction(Function):
    name = "cat"

    def forward(ctx, *xs: Array, axis: int) -> Array:
        ctx.axis, ctx.sizes = axis, [x.shape[axis] for x in xs]
        xp = array_module(xs[0])
        if not any(is_channels_last(x) for x in xs):
            return xp.concatenate(xs, axis)
        images_last = xp.concatenate([x.transpose(0, 2, 3, 1) for x in xs], {0: 0, 1: 3, 2: 1, 3: 2}[axis])
        return images_last.transpose(0, 3, 1, 2)

    def backward(ctx, gy: Array) -> tuple[Array, ...]:
        ends = np.cumsum(ctx.sizes).tolist()
        before = (slice(None),) * ctx.axis
        return tuple(gy[(*before, slice(end - n, end))] for n, end in zip(ctx.sizes, ends, strict=True))


class PadFunction(Function):
    name = "pad"

    def forward(ctx, x: Array, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        out = [n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)]
        # negative widths crop, as PyTorch's: the inside of y is the part of x that is kept
        ctx.inside = tuple(slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(out, widths, strict=True))
        ctx.kept = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, widths, strict=True))
        ctx.x_shape = x.shape
        xp, ctx.channels_last = array_module(x), is_channels_last(x)
        y = _full(xp, out, value, x.dtype, ctx.channels_last)
        y[ctx.inside] = x[ctx.kept]
        return y

    def backward(ctx, gy: Array) -> tuple[Array]:
        gx = _full(array_module(gy), ctx.x_shape, 0, gy.dtype, ctx.channels_last)
        gx[ctx.kept] = gy[ctx.inside]
        return (gx,)


def _full(xp: ModuleType, shape: Sequence[int], value: float, dtype: Any, channels_last: bool) -> Array:
    """A new array filled with `value`, with channels-last memory if asked."""
    if not channels_last:
        return xp.full(shape, value, dtype)
    n, c, h, w = shape
    return nchw(xp.full((n, h, w, c), value, dtype))


def _also_named(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """f(x, 2, 3) and f(x, (2, 3)) are also f(x, name=(2, 3))."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: Any, **settings: Any) -> R:
            return function(*args, settings.pop(name), **settings) if name in settings else function(*args, **settings)

        return called

    return decorate


@_also_named("shape")
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape, in C order of the (N, C, H, W) indices; one size may be -1."""
    sizes = _ints("reshape", shape)
    known = math.prod(n for n in sizes if n != -1)
    guesses = sizes.count(-1)
    fits = known == x.numel() if guesses == 0 else guesses == 1 and known and x.numel() % known == 0
    if not fits or min(sizes, default=0) < -1:
        raise RuntimeError(f"reshape: shape {sizes} is invalid for {x.numel()} elements (x {x.shape})")
    return ReshapeFunction.apply(x, shape=sizes)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim ... end_dim become one. Channels-last memory is copied once, to (C, H, W) order, as PyTorch's weights
    expect."""
    if x.ndim == 0:
        return reshape(x, 1)
    first = shapes.normalize_dim("flatten", start_dim, x.ndim)
    last = shapes.normalize_dim("flatten", end_dim, x.ndim)
    if first > last:
        raise RuntimeError(f"flatten: start_dim must not come after end_dim, got {start_dim} and {end_dim} (x {x.shape})")
    middle = math.prod(x.shape[first : last + 1])
    return ReshapeFunction.apply(x, shape=(*x.shape[:first], middle, *x.shape[last + 1 :]))


@shapes.numpy_names
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Drop axes of length 1: all, or those of `dim`, an int or several, that are."""
    drop = range(x.ndim) if dim is None else shapes.normalize_dims("squeeze", dim, x.ndim) if dim != () else ()
    return ReshapeFunction.apply(x, shape=tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in drop))


@shapes.numpy_names
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """A new axis of length 1 at `dim`."""
    axis = shapes.normalize_dim("unsqueeze", dim, x.ndim + 1)
    return ReshapeFunction.apply(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


@_also_named("dims")
def permute(x: Tensor, *dims: Any) -> Tensor:
    """Axes in another order: y.shape[i] = x.shape[dims[i]]."""
    given = _ints("permute", dims)
    order = tuple(shapes.normalize_dim("permute", d, x.ndim) for d in given)
    if sorted(order) != list(range(x.ndim)):
        raise RuntimeError(f"permute: dims must name each of {x.ndim} axes once, got {given}")
    return PermuteFunction.apply(x, dims=order)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes swapped."""
    order = list(range(x.ndim))
    i, j = (shapes.normalize_dim("transpose", d, x.ndim) for d in (dim0, dim1))
    if x.ndim:
        order[i], order[j] = order[j], order[i]
    return PermuteFunction.apply(x, dims=tuple(order))


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]: integers, slices, None, ..., boolean masks and integer arrays, lists or tensors.

    IndexError: out of range, too many parts, a mask of another size, an index of uint8 (PyTorch takes it for a mask).
    """
    basic, arrays = index_steps(index, x)
    return GetItemFunction.apply(x, basic=basic, arrays=arrays)


def index_steps(index: Any, x: Tensor) -> tuple[Any, Any]:
    """An index of x as two: the basic one (integers, slices, None, ...), and then the arrays' (None if there are none)."""
    parts = [_index_part(part, x) for part in (index if isinstance(index, tuple) else (index,))]
    if not any(hasattr(part, "dtype") for part in parts):
        return (*parts, *(() if Ellipsis in parts else (...,))), None  # with `...` a single element is a view too
    if any(isinstance(part, bool) or (hasattr(part, "dtype") and not part.ndim) for part in parts):
        return ..., tuple(parts)  # a mask without axes
    basic, arrays = [], []
    for part in _without_ellipsis(parts, x.ndim):
        if hasattr(part, "dtype"):
            basic += [slice(None)] * _axes(part)
            arrays.append(part)
        else:
            basic.append(part)
            arrays += [] if shapes.is_int(part) else [slice(None)]
    _check_positions(x, tuple(basic), arrays)
    return tuple(basic), tuple(arrays)


def _check_positions(x: Tensor, basic: tuple[Any, ...], arrays: list[Any]) -> None:
    """IndexError for an array's position out of range, which NumPy refuses itself, and CuPy takes for another one in silence.

    One that is on the GPU is waited for.
    """
    if isinstance(x.data, np.ndarray):
        return
    axis, lengths = 0, x.data[basic].shape
    for part in arrays:
        if hasattr(part, "dtype") and part.dtype.kind != "b" and part.size:
            with x.device.active():
                low, high = int(part.min()), int(part.max())
            if low < -lengths[axis] or high >= lengths[axis]:
                raise IndexError(
                    f"getitem: positions must be in [{-lengths[axis]}, {lengths[axis] - 1}], got {low} to {high} (x {x.shape})"
                )
        axis += _axes(part)


def _without_ellipsis(parts: list[Any], ndim: int) -> list[Any]:
    """The parts with whole axes in place of `...`."""
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), None)
    if at is None:
        return parts
    rest = parts[:at] + parts[at + 1 :]
    return parts[:at] + [slice(None)] * (ndim - sum(map(_axes, rest))) + parts[at + 1 :]


def _axes(part: Any) -> int:
    """How many axes a part of an index takes."""
    if part is None:
        return 0
    return part.ndim if hasattr(part, "dtype") and part.dtype.kind == "b" else 1


def _index_part(part: Any, x: Tensor) -> Any:
    """A part of an index as the device has it: lists and tensors become arrays, an integer array without axes an int."""
    if isinstance(part, list):
        part = np.asarray(part, dtype=None if part else np.int64)  # an empty list would make floats
    if isinstance(part, Tensor):
        if part.device is not x.device:
            raise RuntimeError(f"getitem: x is on {x.device}, index on {part.device}; move one with .to(device)")
        part = part.data
    if hasattr(part, "dtype"):
        if part.dtype == np.uint8:
            raise IndexError("getitem: an index of uint8 may be meant as a mask or as positions; convert it to bool or int64")
        if part.ndim == 0 and part.dtype.kind == "i":
            with x.device.active():
                return int(part)
    return part


@shapes.numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along `dim`; all other sizes must agree. The dtype is PyTorch's (minidl/dtypes.py).

    A tensor of the shape (0,) adds nothing but its dtype, whatever the others' shapes: a list can begin with an empty one.
    """
    if not tensors:
        raise ValueError("cat: at least 1 tensor is needed, got 0")
    dtype = functools.reduce(promote_types, (t.dtype for t in tensors))
    first = next((t for t in tensors if t.shape != (0,)), tensors[0])
    axis = shapes.normalize_dim("cat", dim, first.ndim)
    tensors = [t if t.shape != (0,) else reshape(t, (*first.shape[:axis], 0, *first.shape[axis + 1 :])) for t in tensors]
    rest = {t.shape[:axis] + t.shape[axis + 1 :] for t in tensors}
    if not first.ndim:
        raise RuntimeError("cat: tensors need at least 1 axis, got ()")
    if len(rest) > 1 or any(t.ndim != first.ndim for t in tensors):
        raise RuntimeError(f"cat: sizes must agree except along dim {dim}, got {', '.join(str(t.shape) for t in tensors)}")
    return CatFunction.apply(*(cast(t, dtype) for t in tensors), axis=axis)


@shapes.numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape, one after the other along a new axis `dim`."""
    if len({t.shape for t in tensors}) > 1:
        raise RuntimeError(f"stack: tensors must have one shape, got {', '.join(str(t.shape) for t in tensors)}")
    if not tensors:
        raise RuntimeError("stack: at least 1 tensor is needed, got 0")
    axis = shapes.normalize_dim("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(t, axis) for t in tensors], axis)


@shapes.numpy_names
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of x, one after the other along `dim`: each of `split_size`, the last one maybe less, or of these sizes.

    RuntimeError for a size below 1, or sizes that do not add up.
    """
    axis = shapes.normalize_dim("split", dim, x.ndim)
    length = x.shape[axis] if x.ndim else 0
    if isinstance(split_size, Sequence):
        sizes = list(split_size)
        if sum(sizes) != length or min(sizes, default=0) < 0:
            raise RuntimeError(f"split: sizes must add up to {length} along dim {dim}, got {sizes} (x {x.shape})")
    else:
        if split_size < 1:
            raise RuntimeError(f"split: split_size must be at least 1, got {split_size}")
        sizes = [min(split_size, length - at) for at in range(0, max(length, 1), split_size)]
    ends = np.cumsum(sizes).tolist()
    before = (slice(None),) * axis
    return tuple(getitem(x, (*before, slice(end - n, end))) for n, end in zip(sizes, ends, strict=True))


@shapes.numpy_names
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of x along `dim`, of one size but for the last. RuntimeError for chunks below 1."""
    if chunks < 1:
        raise RuntimeError(f"chunk: chunks must be at least 1, got {chunks}")
    length = x.shape[shapes.normalize_dim("chunk", dim, x.ndim)]
    return split(x, max(-(-length // chunks), 1), dim)


@_also_named("size")
def expand(x: Tensor, *size: Any) -> Tensor:
    """A view of x in a larger shape: axes of size 1 are repeated, new ones stand in front; -1 leaves a size as it is."""
    wanted = _ints("expand", size)
    known = (None,) * (len(wanted) - x.ndim) + x.shape
    sizes = tuple(n if want == -1 else want for n, want in zip(known, wanted, strict=False))
    if len(known) != len(wanted) or any(
        s is None or (n is not None and n not in (1, s)) or s < 0 for n, s in zip(known, sizes, strict=True)
    ):
        raise RuntimeError(f"expand: only axes of size 1 can be repeated, and new ones need a size, got {wanted} (x {x.shape})")
    return ExpandFunction.apply(x, shape=sizes)


@_also_named("repeats")
def repeat(x: Tensor, *sizes: Any) -> Tensor:
    """x repeated so often along each axis, in new memory; more numbers than axes make new ones in front."""
    times = _ints("repeat", sizes)
    if len(times) < x.ndim or min(times, default=0) < 0:
        raise RuntimeError(f"repeat: a number of at least 0 for each axis is needed, got {times} (x {x.shape})")
    return RepeatFunction.apply(x, times=times)


@_also_named("dims")
def flip(x: Tensor, *dims: Any) -> Tensor:
    """x backwards along these axes, in new memory."""
    given = _ints("flip", dims)
    axes = tuple(shapes.normalize_dim("flip", d, x.ndim) for d in given)
    if len(set(axes)) < len(axes):
        raise RuntimeError(f"flip: each axis may be named once, got {given}")
    return FlipFunction.apply(x, axes=axes if x.ndim else ())


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """x moved on by `shifts` along `dims`; what leaves at the end comes in at the front. Without dims x counts as flat."""
    by = (shifts,) if shapes.is_int(shifts) else tuple(shifts)  # type: ignore[arg-type]
    given = () if dims is None else (dims,) if shapes.is_int(dims) else tuple(dims)  # type: ignore[arg-type]
    if len(by) != max(len(given), 1):
        raise RuntimeError(f"roll: a shift for each of dims is needed, got {by} and {given}")
    axes = tuple(shapes.normalize_dim("roll", d, x.ndim) for d in given)  # type: ignore[arg-type]
    return RollFunction.apply(x, shifts=by, axes=axes or None)


def clone(x: Tensor) -> Tensor:
    """A copy in the same memory order, through which the gradient passes."""
    return CloneFunction.apply(x, order="K")


def contiguous(x: Tensor) -> Tensor:
    """x in C order of its indices: itself if its memory is, else a copy. Images in minidl are channels-last, so not."""
    return x if x.data.flags.c_contiguous else CloneFunction.apply(x, order="C")


def t(x: Tensor) -> Tensor:
    """A matrix transposed; fewer axes stay as they are. RuntimeError for more than two."""
    if x.ndim > 2:
        raise RuntimeError(f"t: at most 2 axes can be swapped, got x {x.shape}; use .mT or permute")
    return transpose(x, 0, 1) if x.ndim == 2 else x


def matrices_transposed(x: Tensor) -> Tensor:
    """The last two axes swapped. RuntimeError for fewer."""
    if x.ndim < 2:
        raise RuntimeError(f"mT: at least 2 axes are needed, got x {x.shape}")
    return transpose(x, -2, -1)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last axes: (left, right), then (top, bottom), ... as PyTorch's; negative widths crop.

    mode : "constant" only. ValueError for others, for an odd number of widths or more than two for each axis.
    """
    if mode != "constant":
        raise ValueError(f"pad: mode must be 'constant', got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: widths come in pairs, at most {input.ndim} of them, got {len(pad)} widths (x {input.shape})")
    pairs = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    widths = ((0, 0),) * (input.ndim - len(pairs)) + tuple(reversed(pairs))
    if any(n + min(before, 0) + min(after, 0) < 0 for n, (before, after) in zip(input.shape, widths, strict=True)):
        raise RuntimeError(f"pad: sizes must not become negative, got x {input.shape}, pad {tuple(pad)}")
    return PadFunction.apply(input, widths=widths, value=0.0 if value is None else value)


def _ints(op: str, values: tuple[Any, ...]) -> tuple[int, ...]:
    """reshape(x, 2, 3) and reshape(x, (2, 3)) are the same."""
    flat = tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values
    if not all(shapes.is_int(v) for v in flat):
        raise TypeError(f"{op}: sizes must be ints, got {flat}")
    return tuple(int(v) for v in flat)


class Flatten(Module):
    """flatten; by default everything but the first axis: (N, C, H, W) -> (N, C * H * W), in (C, H, W) order."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class ZeroPad2d(Module):
    """pad with zeros: one int for all four sides, or (left, right, top, bottom)."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        sides = (padding,) * 4 if shapes.is_int(padding) else padding
        if not isinstance(sides, (tuple, list)) or len(sides) != 4 or not all(shapes.is_int(side) for side in sides):
            raise ValueError(f"ZeroPad2d: padding must be an int or (left, right, top, bottom), got {padding!r}")
        self.padding = tuple(sides)

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding)

    def extra_repr(self) -> str:
        return str(self.padding)
