"""What programs ask of `torch.cuda`."""

from minidl.device import Device, DeviceError


def is_available() -> bool:
    """Is there a GPU, and CuPy to use it?"""
    try:
        Device("cuda:0")
    except DeviceError:
        return False
    return True


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy."""
    if not is_available():
        return 0
    return int(Device("cuda:0").xp.cuda.runtime.getDeviceCount())


def synchronize(device: Device | str = "cuda:0") -> None:
    """Wait until all that was asked of a GPU is done."""
    Device(device).stream.synchronize()
