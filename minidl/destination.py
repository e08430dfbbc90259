"""What the arguments of `to` say, those of a tensor and of a module: a device, a dtype, or both."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.device import Device
from minidl.tensor import Tensor


def destination(args: Sequence[Any], device: Any, dtype: Any) -> tuple[Device | None, Any, bool]:
    """What `to(*args, device=..., dtype=...)` says: the device and the dtype, None where it stays, and whether to copy anyway.

    An argument in its place is a tensor, which stands for its device and dtype; a device, its name or the number of a GPU;
    a dtype or its name; or, as a bool, first non_blocking and then copy. DeviceError: no such device.
    """
    flags = []
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, bool):
            flags.append(value)
        elif isinstance(value, (Device, int)) or (isinstance(value, str) and not _names_a_dtype(value)):
            device = value
        elif value is not None:
            dtype = value
    return None if device is None else Device(device), dtype, flags[1:2] == [True]


def _names_a_dtype(name: str) -> bool:
    """Is a name one of NumPy's for a dtype? In `to(name)` it is a device's otherwise."""
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True
