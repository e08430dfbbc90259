"""Tensors from nothing."""

import numpy as np
import pytest

import minidl
from minidl import Device
from minidl.random import Generator

FACTORIES = [minidl.zeros, minidl.ones, minidl.rand, minidl.randn]


@pytest.mark.parametrize("make", FACTORIES)
def test_shape_dtype_device_and_requires_grad(make, device):
    x = make(2, 3, device=device)
    assert (x.shape, x.dtype, x.device, x.requires_grad) == ((2, 3), np.float32, device, False)
    y = make(2, 3, dtype=np.float64, requires_grad=True, device=str(device))
    assert (y.dtype, y.requires_grad, y.device, y.is_leaf) == (np.float64, True, device, True)


@pytest.mark.parametrize("make", FACTORIES)
@pytest.mark.parametrize("dtype", ["float64", np.dtype("float64"), np.float64])
def test_any_name_of_a_dtype_will_do(make, dtype):
    assert make(2, dtype=dtype).dtype == np.float64


@pytest.mark.parametrize("make", FACTORIES)
def test_sizes_may_be_a_sequence(make):
    assert make((2, 3)).shape == make([2, 3]).shape == (2, 3)
    assert make().shape == make(()).shape == ()
    assert make(0, 3).shape == (0, 3)


def test_values():
    assert np.array_equal(minidl.zeros(2, 2).numpy(), np.zeros((2, 2)))
    assert np.array_equal(minidl.ones(2, 2, dtype=np.int64).numpy(), np.ones((2, 2)))
    minidl.manual_seed(5)
    drawn = [minidl.rand(4).numpy(), minidl.randn(4, dtype=np.float64).numpy()]
    g = Generator(5)
    assert np.array_equal(drawn[0], g.uniform(4)) and np.array_equal(drawn[1], g.normal(4, np.float64))


def test_the_same_numbers_on_every_device(device):
    minidl.manual_seed(5)
    here = minidl.randn(7, device=device).numpy()
    minidl.manual_seed(5)
    assert np.array_equal(here, minidl.randn(7).numpy())


def test_two_tensors_never_share_memory():
    a, b = minidl.zeros(3), minidl.zeros(3)
    a.data[0] = 7
    assert b.data[0] == 0


def test_integers_cannot_require_a_gradient():
    with pytest.raises(RuntimeError) as error:
        minidl.ones(2, dtype=np.int64, requires_grad=True)
    assert str(error.value) == "Tensor: only floats can require a gradient, got int64"


def test_a_device_that_is_not_there():
    with pytest.raises(minidl.DeviceError, match="a name is cpu"):
        minidl.zeros(2, device="tpu")
    assert minidl.zeros(2, device=Device("cpu:1")).device is Device("cpu:1")


def test_numbers_of_a_float64_tensor_keep_all_their_digits():
    for make in (minidl.tensor, minidl.as_tensor, minidl.Tensor):
        assert make([[0.1]], dtype=np.float64).tolist() == [[0.1]] and make(0.1, dtype="float64").item() == 0.1
        assert make([0.1]).dtype == np.float32
