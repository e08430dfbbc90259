"""What the tests of ops share: leaves on a device, inputs in each kind of memory, one run forward and backward."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Tensor
from minidl.device import Device
from minidl.layout import channels_last, is_channels_last


def upstream(shape: tuple[int, ...]) -> np.ndarray:
    """An incoming gradient: every element different, none small, both signs."""
    n = int(np.prod(shape))
    return ((np.arange(n) % 7 + 1.5) * np.where(np.arange(n) % 3 == 0, -1, 1)).reshape(shape)


@pytest.fixture
def leaves(device: Device, rng: np.random.Generator) -> Callable[..., list[Tensor]]:
    """leaves((2, 3), (3,)): normal float64 tensors of these shapes that require a gradient, for gradcheck."""
    return lambda *shapes: [Tensor(rng.standard_normal(shape), True, device) for shape in shapes]


@pytest.fixture
def run(device: Device) -> Callable[..., tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """y, gy, gradients = run(fn, x, w): forward, and backward from some gy, as NumPy arrays. Inputs must stay as they are."""

    def run(fn: Callable[..., Tensor], *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        tensors = [Tensor(a.copy(order="K"), True, device) for a in arrays]
        y = fn(*tensors)
        assert y.device is device
        gy = upstream(y.shape)
        y.backward(gy)
        for tensor, array in zip(tensors, arrays, strict=True):
            np.testing.assert_array_equal(tensor.detach().numpy(), array, "the op changed its input")
        return y.detach().numpy(), gy, [t.grad.numpy() for t in tensors]

    return run


@pytest.fixture(params=["c_order", "channels_last", "sliced"])
def arrange(request: pytest.FixtureRequest, device: Device) -> Callable[[np.ndarray], Tensor]:
    """arrange(array): a leaf of the same values in C order, in channels-last memory (Fortran order if not 4-d), or as every
    second column of an array whose other columns are NaN."""

    def arrange(array: np.ndarray) -> Tensor:
        axes = (0, 2, 3, 1) if array.ndim == 4 else tuple(range(array.ndim))[::-1]
        with device.active():
            data: Any = Tensor(array, device=device).data
            xp = device.xp
            if request.param == "channels_last":
                data = xp.ascontiguousarray(data.transpose(axes)).transpose(np.argsort(axes).tolist())
            if request.param == "sliced":
                wide = xp.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
                wide[..., ::2] = data
                data = wide[..., ::2]
            return Tensor(data, True, device)

    return arrange


@pytest.fixture
def channels_last_leaf(device: Device, rng: np.random.Generator) -> tuple[Tensor, Any, list[bool]]:
    """A channels-last leaf (2, 3, 4, 5), a gradient of that shape and memory, and a list: was the gradient that reached the
    leaf, before it was copied to `.grad`, channels-last?"""
    with device.active():
        x, gy = (channels_last(Tensor(rng.standard_normal((2, 3, 4, 5)), device=device).data) for _ in range(2))
    leaf, received = Tensor(x, True, device), []
    leaf.register_hook(lambda g: received.append(is_channels_last(g.data)))
    return leaf, gy, received
