"""An optimizer's update in blocks that stay in cache, shared by threads: every array is read and written once.

Blocks follow the order of the first array's memory. They are as large as the outer cache allows, because NumPy takes the
interpreter's lock between two loops: in small blocks, threads mostly wait for each other.
"""

import math
from collections.abc import Callable

import numpy as np

from minidl.device import memory_order
from minidl.parallel import grain, run, slabs

_SMALL = 1 << 14  # elements that are not worth looking for blocks
_BLOCK = 1 << 17  # elements: SGD's parameter, gradient, velocity and one temporary array fill two megabytes


def apply_elementwise(update: Callable[..., None], *arrays: np.ndarray | None) -> None:
    """As the plain function in minidl/optim/elementwise.py."""
    present = [array for array in arrays if array is not None]
    if present[0].size <= _SMALL:
        update(*arrays)
        return
    order = memory_order(present[0])
    present = [array.transpose(order) for array in present]
    if all(array.flags.c_contiguous for array in present):
        present = [array.reshape(-1) for array in present]
    row = math.prod(present[0].shape[1:])

    def work(first: int, stop: int) -> None:
        for part in slabs(first, stop, max(_BLOCK // max(row, 1), 1)):
            blocks = iter([array[part] for array in present])
            update(*(None if array is None else next(blocks) for array in arrays))

    run(work, len(present[0]), grain(6 * row))
