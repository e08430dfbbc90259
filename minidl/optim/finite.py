"""Numbers that are not finite, noted where the arrays are: the host waits for no GPU, and an update can ask the note itself."""

import math

import numpy as np

from minidl.device import Array, array_module, memory_order


def note_not_finite(x: Array, found: Array) -> None:
    """found (1,) int32 becomes 1 if an element of x is NaN or infinite, else it stays.

    The sum of squares is finite only if every element is: squares don't cancel. It also overflows where elements reach 1e19 in
    float32; then every element is looked at.
    """
    flat = x.transpose(memory_order(x)).reshape(-1)  # a view, whatever the memory order
    with np.errstate(all="ignore"):
        finite = math.isfinite(float(flat @ flat)) or bool(array_module(x).isfinite(flat).all())  # a product makes no temporary
    if not finite:
        found[0] = 1
