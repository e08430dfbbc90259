"""What programs ask of `torch.accelerator`: the GPU, by whatever name."""

from minidl.cuda import device_count, is_available, synchronize
from minidl.device import Device

__all__ = ["current_accelerator", "device_count", "is_available", "synchronize"]


def current_accelerator(check_available: bool = False) -> Device | None:
    """The first GPU; None where there is none. PyTorch names the kind of device that it was built for, without a number.

    check_available : makes no difference: what is not available is never named
    """
    return Device("cuda:0") if is_available() else None
