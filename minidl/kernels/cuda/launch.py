"""How a kernel of a .cu file of this folder is compiled and run.

The files include nothing and know two macros: `real`, float or double, and `index`, the integer that counts elements: int,
whose arithmetic is several times faster on a GPU, or long long if an array is too long for that. Scalars are passed as long
long or double.
"""

import operator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minidl.device import Array, array_module

FOLDER = Path(__file__).parent
MOST_THREADS = 1 << 22  # of a grid, many times what a GPU runs at once; each does elements i, i + threads, ...
MOST_FOR_INT = 2**31 - 4 * MOST_THREADS  # elements, so that an i up to four steps beyond the end is still an int


def launch(
    file: str,
    kernel: str,
    count: int,
    *args: Array | int | float,
    real: Any,
    block: int = 256,
    blocks: int | None = None,
    defines: tuple[str, ...] = (),
) -> None:
    """Run `kernel` of `<file>.cu` on the current device and stream.

    count  : how much work there is; one thread is started for each, up to MOST_THREADS.
    args   : C-contiguous arrays, ints and floats, as the kernel's parameters are; the first is an array. An int, which CuPy
             passes in eight bytes, may be 0 for a null pointer.
    real   : float32 or float64.
    block  : threads of a block.
    blocks : blocks of the grid, instead of those that `count` needs; MOST_THREADS is the limit here too.
    defines : options "-Dname=value" for macros of the file's own.

    RuntimeError: an array that is not C-contiguous.
    """
    cupy = array_module(args[0])
    arguments = [a if type(a) is int or type(a) is float else _argument(kernel, a) for a in args]
    largest = max(count, *[a.size for a in arguments if not isinstance(a, (int, float))])
    index = "int" if largest < MOST_FOR_INT else "long long"
    function = _function(cupy, file, kernel, (np.dtype(real).char, index, *defines), cupy.cuda.Device().id)
    needed = -(-count // block) if blocks is None else blocks
    function((max(min(needed, MOST_THREADS // block), 1),), (block,), tuple(arguments))


def _argument(kernel: str, value: Any) -> Any:
    """Nothing checks a kernel's arguments: a bool would be passed as one byte, a NumPy number as so many as it has."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, np.generic) or not hasattr(value, "flags"):
        return int(operator.index(value))
    if not value.flags.c_contiguous:
        raise RuntimeError(f"{kernel}: arrays must be C-contiguous, got strides {value.strides} (shape {value.shape})")
    return value


@cache
def _function(cupy: ModuleType, file: str, kernel: str, macros: tuple[str, ...], device: int) -> Any:
    return _module(cupy, file, macros, device).get_function(kernel)


@cache
def _module(cupy: ModuleType, file: str, macros: tuple[str, ...], device: int) -> Any:
    """Compiled for this device's GPU, and loaded there: a function of it belongs to one device."""
    real, index, *defines = macros
    c_type = {"f": "float", "d": "double"}[real]
    source = (FOLDER / f"{file}.cu").read_text()
    return cupy.RawModule(code=source, options=(f"-Dreal={c_type}", f"-Dindex={index}", *defines))
