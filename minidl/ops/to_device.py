"""to(device): the same values on another device.

Forward
    y = x, copied from the source to the target

Backward
    gx = gy, copied from the target to the source

Each is a real copy, also between two logical devices of one machine, and its bytes are counted for the pair: what two-device
training pays for communication.
"""

from minidl.device import Array, Device, transfer
from minidl.tensor import Function, Tensor


class ToDeviceFunction(Function):
    name = "to_device"

    def forward(ctx, x: Array, target: Device) -> Array:
        ctx.source, ctx.device = ctx.device, target
        return transfer(x, ctx.source, target)

    def backward(ctx, gy: Array) -> tuple[Array]:
        return (transfer(gy, ctx.device, ctx.source),)


def to_device(x: Tensor, device: Device | str | int) -> Tensor:
    """x itself if it is there already, else a copy. DeviceError if there is no such device."""
    target = Device(device)
    return x if x.device is target else ToDeviceFunction.apply(x, target=target)
