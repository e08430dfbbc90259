"""`torch.utils` by its name: `minidl.utils.data` has what programs take from `torch.utils.data`."""

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """`utils.data` is imported when it is first asked for: `import minidl` alone loads no data sets."""
    if name == "data":
        return import_module("minidl.utils.data")
    raise AttributeError(f"module 'minidl.utils' has no attribute {name!r}")
