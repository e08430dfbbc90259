"""Changes in place: `x += y`, `x.mul_(y)`, `x[index] = y`, `x.zero_()`.

    outside any graph, or under no_grad   the memory of x gets the new values; whoever shares that memory sees them
    x inside a graph                      the same, and from then on x is the output of the op: its gradient goes through it
    x a leaf that requires a gradient     RuntimeError: it would be no leaf any more, and get no `.grad`
    x a view, in a graph                  RuntimeError: the tensor that it is a view of would have to change its place too

An op in place is the plain op, and a copy of its result into x's memory. There is no second formula: `x.exp_()` has the
forward and the backward of exp. Every change is noted (minidl/changes.py), so backward refuses an array that it saved and that
is no longer what it was.

Forward
    z = x, but y at index

Backward
    gx = gz, but 0 at index
    gy = gz at index, summed where y was broadcast
"""

import functools
from collections.abc import Callable
from typing import Any

from minidl import changes
from minidl.device import Array
from minidl.dtypes import kind
from minidl.grad_mode import is_grad_enabled
from minidl.memory import owner
from minidl.ops.arithmetic import cast, unbroadcast
from minidl.ops.reshape import index_steps
from minidl.tensor import Function, Tensor, common_device


class SetItemFunction(Function):
    name = "setitem"

    def forward(ctx, x: Array, y: Array, basic: Any, arrays: Any) -> Array:
        ctx.basic, ctx.arrays, ctx.y_shape = basic, arrays, y.shape
        z = x.copy(order="K")
        put(z, y, basic, arrays)
        return z

    def backward(ctx, gz: Array) -> tuple[Array | None, ...]:
        gx = gy = None
        if ctx.needs_grad[0]:
            gx = gz.copy(order="K")
            put(gx, 0, ctx.basic, ctx.arrays)
        if ctx.needs_grad[1]:
            g = gz[ctx.basic] if ctx.arrays is None else gz[ctx.basic][ctx.arrays]
            gy = unbroadcast(g, ctx.y_shape)
        return gx, gy


def put(x: Array, y: Any, basic: Any, arrays: Any) -> None:
    """x[index] = y, with the index in two steps: see minidl/ops/reshape.py."""
    if arrays is None:
        x[basic] = y
    else:
        x[basic][arrays] = y


def setitem(x: Tensor, index: Any, value: Any) -> None:
    """x[index] = value: a tensor, array or number that broadcasts to x[index], and is cast to x's dtype.

    RuntimeError: x is a leaf that requires a gradient or a view in a graph, a shape that does not broadcast, another device.
    IndexError: as x[index].
    """
    _assign_at("setitem", x, index, value)


def copy_(x: Tensor, other: Any, non_blocking: bool = False) -> Tensor:
    """x <- other, broadcast and cast. RuntimeError as for setitem. `non_blocking` is PyTorch's, and makes no difference."""
    return _assign_at("copy_", x, ..., other)


def fill_(x: Tensor, value: Any) -> Tensor:
    """x <- value everywhere, a number or a 0-d tensor. RuntimeError as for setitem, or for a value with axes."""
    if getattr(value, "ndim", 0):
        raise RuntimeError(f"fill_: value must be a number or a 0-d tensor, got the shape {tuple(value.shape)}")
    return _assign_at("fill_", x, ..., value)


def zero_(x: Tensor) -> Tensor:
    """x <- 0 everywhere. RuntimeError as for setitem."""
    return _assign_at("zero_", x, ..., 0)


def _assign_at(name: str, x: Tensor, index: Any, value: Any) -> Tensor:
    y = value if isinstance(value, Tensor) else Tensor(value, device=x.device, dtype=x.dtype)
    common_device(name, (x, y))
    recording = is_grad_enabled() and (x.requires_grad or y.requires_grad)
    _check_may_change(name, x, y)
    y = cast(y, x.dtype)
    basic, arrays = index_steps(index, x)
    try:
        if recording:
            return replace(name, x, SetItemFunction.apply(x, y, basic=basic, arrays=arrays))
        with x.device.active():
            put(x.data, y.data, basic, arrays)
    except ValueError as error:  # NumPy's and CuPy's word for shapes that don't broadcast
        raise RuntimeError(f"{name}: value {y.shape} must broadcast to the shape of x[index] (x {x.shape}): {error}") from None
    changes.note(x.data, name)
    return x


def in_place(name: str, op: Callable[..., Any]) -> Callable[..., Tensor]:
    """The method that replaces x by op(x, ...), in x's memory: `name` is add_, __iadd__, ..."""

    @functools.wraps(op)
    def change(x: Tensor, *operands: Any, **settings: Any) -> Tensor:
        return replace(name, x, op(x, *operands, **settings))

    change.__name__ = change.__qualname__ = name
    change.__doc__ = (
        f"{op.__name__.rstrip('_')} in place: x gets the result. RuntimeError as for setitem, or if x can't hold it."
    )
    return change


def _check_may_change(name: str, x: Tensor, *operands: Any) -> None:
    """A graph that is being recorded must be able to follow the change."""
    if not is_grad_enabled():
        return
    if x.requires_grad and x.is_leaf:
        raise RuntimeError(
            f"{name}: a leaf that requires a gradient can't be changed in place, got a leaf of shape {x.shape}; do it under "
            "minidl.no_grad(), or make a new tensor"
        )
    if x._is_view and any(isinstance(t, Tensor) and t.requires_grad for t in (x, *operands)):
        raise RuntimeError(
            f"{name}: a view can't be changed in place inside a graph, got one of shape {x.shape}; assign to an index of the "
            "tensor that it is a view of (base[index] = value), or make a new tensor"
        )


def replace(name: str, x: Tensor, result: Tensor) -> Tensor:
    """x becomes `result`, which an op has made of it, in its own memory: relu(x, inplace=True) is replace("relu_", x, relu(x)).

    It costs one copy, and one of x if the op saved that. RuntimeError as for setitem, or if x can't hold the result.
    """
    _check_may_change(name, x, result)
    if result.shape != x.shape:
        raise RuntimeError(f"{name}: the result has the shape {result.shape}, x of shape {x.shape} can't hold it")
    if kind(result.dtype) > kind(x.dtype):
        raise RuntimeError(f"{name}: the result is of {result.dtype}, which can't be cast to x's {x.dtype}")
    result = cast(result, x.dtype)
    if not getattr(x.data.flags, "writeable", True):
        raise RuntimeError(f"{name}: elements of x {x.shape} share memory, or may not be written to; change a copy")
    node = result._node
    if node is not None:  # what it saved of x is to stay as it was
        memory = owner(x.data)
        with x.device.active():
            saved = [a.copy(order="K") if hasattr(a, "base") and owner(a) is memory else a for a in node.saved]
        node.saved = tuple(x.data if a is result.data else a for a in saved)  # and the result is not kept twice
        if x._node is not None:
            node.retained, x._node.retained = x._node.retained, None
        x._node, x.requires_grad = node, True
    with x.device.active():
        x.data[...] = result.data
    changes.note(x.data, name)
    if node is not None:
        node.time = changes.now()
    return x
