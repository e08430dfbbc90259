"""minidl.ops.to_device: a real copy each way, its bytes, gradcheck across devices, errors, memory layouts."""

import re

import numpy as np
import pytest

import minidl
from minidl import Device, DeviceError, Tensor, gradcheck
from minidl.device import memory_order
from minidl.layout import channels_last, is_channels_last
from minidl.ops.reshape import cat
from minidl.ops.to_device import to_device


def other(device):
    return Device("cpu:1" if device is Device("cpu:0") else "cpu:0")


# -------------------------------------------------------------------------------------------------------- against x + 0


def test_forward_and_backward_move_the_values_and_change_nothing(device, rng):
    x, gy = Tensor(rng.standard_normal((3, 4)), True, device), rng.standard_normal((3, 4))
    y = to_device(x, other(device))
    assert y.device is other(device)
    np.testing.assert_array_equal(y.detach().numpy(), x.detach().numpy())
    y.backward(gy)
    np.testing.assert_array_equal(x.grad.numpy(), gy)


def test_the_copy_shares_no_memory_in_either_direction(rng):
    x, gy = Tensor(rng.standard_normal((3, 4)), True, "cpu:0"), rng.standard_normal((3, 4))
    received = []
    x.register_hook(lambda g: received.append(g.data))
    y = to_device(x, "cpu:1")
    assert not np.shares_memory(y.data, x.data)
    y.backward(gy)
    assert not np.shares_memory(received[0], gy)


def test_a_tensor_that_is_there_already_comes_back_itself(device):
    x = Tensor(np.zeros(3), device=device)
    assert to_device(x, device) is x
    assert to_device(x, str(device)) is x


def test_bytes_are_counted_for_each_pair_and_direction(device):
    here, there = str(device), str(other(device))
    x = Tensor(np.zeros((3, 5), np.float32), True, device)
    with minidl.count_traffic() as forward:
        y = to_device(x, there)
    assert forward == {(here, there): 60}
    gy = Tensor(np.ones((3, 5), np.float32), device=there)
    with minidl.count_traffic() as backward:
        y.backward(gy)
    assert backward == {(there, here): 60}


def test_nothing_is_counted_where_nothing_is_copied(device):
    x = Tensor(np.zeros(3), True, device)
    with minidl.count_traffic() as traffic:
        to_device(x, device).sum()
    assert not traffic


def test_ints_and_tensors_without_gradients_move_too(device):
    y = to_device(Tensor(np.arange(3), device=device), other(device))
    assert y.device is other(device) and y.dtype == np.int64 and not y.requires_grad
    assert y.numpy().tolist() == [0, 1, 2]


def test_gradients_meet_again_on_the_device_they_came_from(device):
    """A diamond: one way stays, the other crosses to the other device and back."""
    x = Tensor(np.array([2.0, 3.0]), True, device)
    crossed = (x.to(other(device)) * 5.0).to(device)
    (crossed * x).sum().backward()
    assert x.grad.tolist() == [20, 30]


# ----------------------------------------------------------------------------------------------------------- gradcheck


def test_gradcheck_across_devices(device, leaves):
    there = other(device)
    gradcheck(lambda x, y: (x.to(there) * y.to(there)).to(device) + x, leaves((3, 4), (4,)))


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_device_has_a_devices_name(device):
    text = "device: a name is cpu, cpu:N, cuda or cuda:N, got 'tpu'; cpu:0 and cpu:1 work here"
    with pytest.raises(DeviceError, match=f"^{re.escape(text)}$"):
        to_device(Tensor([1.0], device=device), "tpu")


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda x, y: x + y, "add"),
        (lambda x, y: x - y, "sub"),
        (lambda x, y: x * y, "mul"),
        (lambda x, y: x / y, "div"),
        (lambda x, y: x**y, "pow"),
        (lambda x, y: x @ y, "matmul"),
        (lambda x, y: cat([x, y]), "cat"),
    ],
)
def test_ops_refuse_tensors_of_two_devices(op, name):
    x, y = Tensor(np.ones(3), device="cpu:0"), Tensor(np.ones(3), device="cpu:1")
    text = f"{name}: x is on cpu:0, y on cpu:1; move one with .to(device)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        op(x, y)


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_is_kept_both_ways(arrange, device, rng):
    array = rng.standard_normal((2, 3, 4, 5))
    x, received = arrange(array), []
    x.register_hook(lambda g: received.append(g.data))
    y = to_device(x, other(device))
    np.testing.assert_array_equal(y.detach().numpy(), array)
    assert memory_order(y.data) == memory_order(x.data)
    gy = Tensor(channels_last(Tensor(array, device=y.device).data), device=y.device)
    y.backward(gy)
    np.testing.assert_array_equal(x.grad.numpy(), array)
    assert is_channels_last(received[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, device):
    x = Tensor(np.ones(3, dtype), True, device)
    y = to_device(x, other(device))
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
