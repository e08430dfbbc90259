"""Adding up where indices repeat, in their order; the plain function is in minidl/ops/reshape.py.

CuPy's own adds with atomics, in an order that differs from run to run: so do the last bits of the sums. Here equal indices are
brought side by side by a stable sort, and one thread adds up all that belongs to one of them.
"""

from typing import Any

import numpy as np

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch


def add_at(x: Array, index: Any, values: Array) -> None:
    """As the plain function. Of integers any order gives the same sum, and they are CuPy's."""
    xp = array_module(x)
    if x.dtype.char not in "fd":
        xp.add.at(x, index, values)
        return
    target = xp.ascontiguousarray(x)
    index = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if getattr(index, "dtype", np.dtype(bool)).kind in "iu":  # rows
        places, width = xp.asarray(index).reshape(-1) % len(x), x.size // max(len(x), 1)
        values = xp.broadcast_to(values, (*index.shape, *x.shape[1:]))
    else:
        places, width = xp.arange(x.size).reshape(x.shape)[index], 1
        values = xp.broadcast_to(values, places.shape)
        places = places.reshape(-1)
    if not places.size or not width:
        return
    order = xp.argsort(places, kind="stable")
    arrays = (xp.ascontiguousarray(a) for a in (values.astype(x.dtype, copy=False), order, places[order].astype(np.int64)))
    launch("add_at", "mdl_add_at", places.size * width, target, *arrays, places.size, width, real=x.dtype)
    if target is not x:
        x[...] = target
