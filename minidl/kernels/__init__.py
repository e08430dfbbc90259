"""The table of replacements: faster functions that stand in for the plain ones of minidl/ops.

A plain function is the mathematics that a student reads, on arrays, for NumPy and CuPy alike. Where a benchmark shows that
it loses, a replacement with the same name, arguments, results and dtypes is entered here for one kind of device. Ops ask with
`fastest(plain, x)`, so the readable function is named where it is used. One test compares every entry with its plain twin.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from minidl.device import Array
from minidl.kernels.cpu import conv2d, cross_entropy, elementwise, linear, local_response_norm, max_pool2d, relu

F = TypeVar("F", bound=Callable[..., Any])

_CPU = (
    conv2d.conv2d_forward,
    conv2d.conv2d_backward,
    conv2d.conv2d_relu_forward,
    conv2d.conv2d_relu_backward,
    cross_entropy.cross_entropy_forward,
    elementwise.apply_elementwise,
    linear.linear_forward,
    linear.linear_backward,
    local_response_norm.local_response_norm_forward,
    local_response_norm.local_response_norm_backward,
    max_pool2d.max_pool2d_forward,
    max_pool2d.max_pool2d_backward,
    relu.relu_forward,
    relu.relu_backward,
)

# (kind of device, name of the plain function) -> replacement
REPLACEMENTS: dict[tuple[str, str], Callable[..., Any]] = {("cpu", function.__name__): function for function in _CPU}
_plain_only = False


def fastest(plain: F, x: Array) -> F:
    """The replacement for `plain` on the kind of device where x lives, or `plain` itself if there is none."""
    kind = "cpu" if isinstance(x, np.ndarray) else "cuda"
    return plain if _plain_only else REPLACEMENTS.get((kind, plain.__name__), plain)  # type: ignore[return-value]


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Inside the block every op runs its plain function."""
    global _plain_only
    before, _plain_only = _plain_only, True
    try:
        yield
    finally:
        _plain_only = before
