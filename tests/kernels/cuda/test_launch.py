"""minidl.kernels.cuda.launch: grids, types of kernels, arguments, and how often a file is compiled."""

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minidl.kernels.cuda import launch as module
from minidl.kernels.cuda.launch import launch


@pytest.fixture
def cupy(monkeypatch):
    """A CuPy that only notes what it is asked for: `calls` of kernels, and `compiled` modules."""

    class RawModule:
        def __init__(self, code, options):
            self.options = options
            cupy.compiled.append((code, options))

        def get_function(self, name):
            return lambda grid, block, args: cupy.calls.append((name, self.options, grid, block, args))

    cupy = ModuleType("cupy")
    cupy.RawModule, cupy.calls, cupy.compiled, cupy.device = RawModule, [], [], SimpleNamespace(id=0)
    cupy.cuda = SimpleNamespace(Device=lambda: cupy.device)
    monkeypatch.setattr(module, "array_module", lambda array: cupy)
    return cupy


def array(size, c_contiguous=True):
    return SimpleNamespace(size=size, shape=(size,), strides=(8,), flags=SimpleNamespace(c_contiguous=c_contiguous))


@pytest.mark.parametrize(
    "count, settings, grid, block",
    [
        (0, {}, 1, 256),
        (1, {}, 1, 256),
        (256, {}, 1, 256),
        (257, {}, 2, 256),
        (257, {"block": 128}, 3, 128),
        (2**40, {}, 2**22 // 256, 256),
        (2**40, {"block": 1024}, 2**22 // 1024, 1024),
        (5, {"blocks": 7}, 7, 256),
        (5, {"blocks": 0}, 1, 256),
        (5, {"blocks": 2**30, "block": 64}, 2**22 // 64, 64),
    ],
)
def test_the_grid(cupy, count, settings, grid, block):
    launch("relu", "mdl_relu_forward", count, array(1), real="float32", **settings)
    assert cupy.calls[0][2:4] == ((grid,), (block,))


@pytest.mark.parametrize("real, c_type", [("float32", "float"), (np.float64, "double"), (np.dtype("float32"), "float")])
def test_the_type_of_numbers(cupy, real, c_type):
    launch("relu", "mdl_relu_forward", 1, array(1), real=real)
    assert cupy.calls[0][1] == (f"-Dreal={c_type}", "-Dindex=int")
    with pytest.raises(KeyError):
        launch("relu", "mdl_relu_forward", 1, array(1), real="float16")


@pytest.mark.parametrize(
    "count, sizes, index",
    [
        (1, [1, 2**31 - 2**24 - 1], "int"),
        (1, [2**31 - 2**24, 1], "long long"),
        (1, [1, 2**31 - 2**24], "long long"),
        (2**31 - 2**24, [1, 1], "long long"),
    ],
)
def test_the_type_of_counters(cupy, count, sizes, index):
    launch("relu", "mdl_relu_forward", count, *map(array, sizes), 2**40, real="float32")
    assert cupy.calls[0][1][1] == f"-Dindex={index}"


def test_a_file_is_compiled_once_for_each_type_and_gpu(cupy):
    for _ in range(2):
        launch("relu", "mdl_relu_forward", 1, array(1), real="float32")
        launch("relu", "mdl_relu_backward", 1, array(1), real="float32")
    assert len(cupy.compiled) == 1 and [name for name, *_ in cupy.calls] == ["mdl_relu_forward", "mdl_relu_backward"] * 2
    assert "mdl_relu_forward" in cupy.compiled[0][0]
    launch("relu", "mdl_relu_forward", 1, array(1), real="float64")
    launch("relu", "mdl_relu_forward", 1, array(2**31), real="float64")
    launch("max_pool2d", "mdl_max_pool2d_forward_uint8", 1, array(1), real="float64")
    assert len(cupy.compiled) == 4
    cupy.device.id = 1
    launch("max_pool2d", "mdl_max_pool2d_forward_uint8", 1, array(1), real="float64")
    assert len(cupy.compiled) == 5


def test_scalars_become_what_cupy_passes_as_long_long_and_double(cupy):
    x = array(1)
    launch("relu", "mdl_relu_forward", 1, x, True, np.int32(7), 8, np.float64(0.5), 1.5, real="float32")
    args = cupy.calls[0][4]
    assert args == (x, 1, 7, 8, 0.5, 1.5) and [type(a) for a in args[1:]] == [int, int, int, float, float]


@pytest.mark.parametrize("wrong", [None, np.float32(1), "1"])
def test_scalars_that_no_kernel_takes(cupy, wrong):
    with pytest.raises(TypeError):
        launch("relu", "mdl_relu_forward", 1, array(1), wrong, real="float32")


def test_arrays_must_be_contiguous(cupy):
    with pytest.raises(RuntimeError) as error:
        launch("relu", "mdl_relu_forward", 1, array(1), array(3, c_contiguous=False), real="float32")
    assert str(error.value) == "mdl_relu_forward: arrays must be C-contiguous, got strides (8,) (shape (3,))"
    assert cupy.calls == []


def test_a_launch_on_the_gpu(gpu, rng):
    x = rng.standard_normal(7)
    on_gpu = gpu.put(x)
    y = gpu.device.xp.empty((7,), "float64")
    launch("relu", "mdl_relu_forward", x.size, on_gpu, y, x.size, real=x.dtype)
    np.testing.assert_array_equal(gpu.get(y), np.maximum(x, 0))
