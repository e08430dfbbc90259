"""Arrays of any memory order as one run of memory, for kernels that do the same to every element."""

from minidl.device import Array, array_module


def flatten(x: Array, order: list[int]) -> Array:
    """x's elements with its axes in this order (see memory_order): x's own memory where that is dense, else a copy."""
    return array_module(x).ascontiguousarray(x.transpose(order)).reshape(-1)


def unflatten(flat: Array, shape: tuple[int, ...], order: list[int]) -> Array:
    """The inverse of `flatten`: a view of this shape."""
    return flat.reshape([shape[axis] for axis in order]).transpose(sorted(range(len(order)), key=order.__getitem__))
