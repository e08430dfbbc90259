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
from minidl.kernels import cpu, cuda
from minidl.kernels.winograd import im2col_convolutions as im2col_convolutions

F = TypeVar("F", bound=Callable[..., Any])

# (kind of device, name of the plain function) -> replacement
REPLACEMENTS: dict[tuple[str, str], Callable[..., Any]] = {
    (kind, function.__name__): function
    for kind, functions in (("cpu", cpu.KERNELS), ("cuda", cuda.KERNELS))
    for function in functions
}
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
