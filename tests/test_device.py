"""Devices: names, errors where there is no GPU, transfers; and the GPU's branch, driven by a stand-in for CuPy."""

import inspect
import pickle
import sys
import warnings
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from layer_cases import IMAGES, ROWS, layer_cases, uniform

import minidl
import minidl.nn.functional as F
from minidl import Device, DeviceError, Tensor, count_traffic
from minidl.device import (
    _check_libraries,
    _copy_between_gpus,
    array_module,
    gpu_count,
    memory_order,
    memory_summary,
    pinned_empty,
    transfer,
    watch_gpu_memory,
)
from minidl.gradcheck import gradcheck
from minidl.kernels import plain_kernels
from minidl.ops.operators import METHODS


@pytest.fixture(autouse=True)
def forget_devices(monkeypatch):
    """Devices that a test makes are unknown to the next one."""
    monkeypatch.setattr(Device, "_made", dict(Device._made))
    _check_libraries.cache_clear()


@pytest.fixture
def one_gpu(monkeypatch):
    """The stand-in for CuPy on a machine with one GPU."""
    yield fake_cupy.install(monkeypatch, gpus=1)
    assert fake_cupy.errors == []


@pytest.fixture
def two_gpus(monkeypatch, one_gpu):
    monkeypatch.setattr(fake_cupy, "devices", 2)
    return one_gpu


# ---------------------------------------------------------------------------------------------------------------- names


def test_one_object_per_name():
    assert Device("cpu") is Device("cpu:0") is Device() is Device(Device("cpu:0"))
    assert Device("cpu:1") is not Device("cpu:0")
    assert Device("cpu:1") == Device("cpu:1") and Device("cpu:1") != Device("cpu:0")
    assert {Device("cpu"): 1}[Device("cpu:0")] == 1


def test_str_repr_and_parts():
    d = Device("cpu:3")
    assert (str(d), repr(d), d.kind, d.index) == ("cpu:3", "Device('cpu:3')", "cpu", 3)


def test_pytorchs_ways_to_say_a_device(one_gpu):
    assert Device("cpu", 1) is Device("cpu:1") and Device(0) is Device("cuda", 0) is Device("cuda:0")
    assert (Device("cpu").type, Device(0).type) == ("cpu", "cuda")
    with pytest.raises(DeviceError, match="got 'cpu:0:1'"):
        Device("cpu:0", 1)


def test_to_takes_a_number_none_and_two_flags(one_gpu):
    x = minidl.ones(2)
    assert x.to(0).device is Device("cuda:0") and x.to(None) is x
    assert x.to("cpu", True) is x and x.to("cpu", False, True) is not x  # non_blocking, copy


def test_leading_zeros_name_the_same_device():
    assert Device("cpu:01") is Device("cpu:1")


@pytest.mark.parametrize("name", ["gpu0", "cuda:x", "cpu:-1", "cpu:", "cpu:0 ", "CPU", "", 1.5, None, ("cpu", 0)])
def test_bad_names(name):
    with pytest.raises(DeviceError) as error:
        Device(name)
    rule = "device: a name is cpu, cpu:N, cuda or cuda:N"
    assert str(error.value) == f"{rule}, got {name!r}; cpu:0 and cpu:1 work here"


def test_pickling_gives_the_same_object():
    assert pickle.loads(pickle.dumps(Device("cpu:1"))) is Device("cpu:1")


def test_a_device_error_is_a_runtime_error():
    assert issubclass(DeviceError, RuntimeError)


def test_the_host_has_numpy_no_stream_and_nothing_to_enter():
    d = Device("cpu:1")
    assert d.xp is np and d.stream is None
    with d.active(), d.active():
        pass
    d.synchronize()


# ---------------------------------------------------------------------------------------------------------------- no GPU


def without_known_gpus(monkeypatch, cupy):
    monkeypatch.setattr(Device, "_made", {})
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def message(name="cuda:0"):
    with pytest.raises(DeviceError) as error:
        Device(name)
    text = str(error.value)
    assert "\n" not in text
    assert name not in Device._made  # a later try looks again
    return text


def test_no_cupy(monkeypatch):
    without_known_gpus(monkeypatch, None)
    text = message()
    assert text.startswith("device: cuda needs CuPy, got ModuleNotFoundError: import of cupy halted")
    assert "install minidl with its extra cuda13 (or cuda12 for a CUDA 12 driver); cpu:0 and cpu:1 work here" in text


def test_cupy_without_a_driver(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def no_driver():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    runtime = SimpleNamespace(getDeviceCount=no_driver, CUDARuntimeError=CUDARuntimeError)
    without_known_gpus(monkeypatch, SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    assert message() == (
        "device: cuda needs an NVIDIA GPU and its driver, CuPy found none (cudaErrorInsufficientDriver: CUDA driver "
        "version is insufficient); cpu:0 and cpu:1 work here"
    )


def test_no_gpu_at_all(monkeypatch):
    without_known_gpus(monkeypatch, fake_cupy.install(monkeypatch, gpus=0))
    assert message() == "device: cuda needs an NVIDIA GPU, CuPy found 0; cpu:0 and cpu:1 work here"


def test_too_large_an_index(one_gpu):
    assert message("cuda:2") == "device: cuda:2 needs 3 GPUs, found 1; cuda:0, cpu:0 and cpu:1 work here"


def test_too_large_an_index_for_two_gpus(two_gpus):
    assert message("cuda:2") == "device: cuda:2 needs 3 GPUs, found 2; cuda:0, cpu:0 and cpu:1 work here"


def test_two_logical_devices_on_one_gpu_warn_once(one_gpu):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        first, second = Device("cuda"), Device("cuda:1")
        assert Device("cuda:1") is second and Device("cuda:0") is first
    assert [str(w.message) for w in seen] == ["cuda:1 is a second context on cuda:0's GPU: this machine has one"]
    assert seen[0].filename == __file__
    assert first is not second and first.stream is not second.stream
    assert (first.physical, second.physical) == (0, 0)


def test_two_gpus_do_not_warn(two_gpus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (Device("cuda:0").physical, Device("cuda:1").physical) == (0, 1)
    assert gpu_count() == 2


@pytest.mark.parametrize(
    "what, error",
    [
        ("matmul", ImportError("libcublas.so.13: cannot open shared object file")),
        ("matmul", RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED")),
        ("add", RuntimeError("Failed to find CUDA headers.\nPlease install nvidia-cuda-runtime")),
        ("add", RuntimeError('Failure finding "libnvrtc.so.13"')),
    ],
)
def test_cupy_that_cannot_compile_or_multiply(what, error, one_gpu, monkeypatch):
    def fails(*given):
        raise error

    monkeypatch.setattr(fake_cupy.ndarray, f"__{what}__", fails)
    first = str(error).splitlines()[0]
    assert message() == (
        f"device: CuPy finds GPU 0, but cannot compute on it ({first}); minidl's extra cuda13 (or cuda12) installs what it "
        "needs of CUDA: compiler, headers and cuBLAS; cpu:0 and cpu:1 work here"
    )
    monkeypatch.undo()


def test_out_of_memory_is_said_once(one_gpu):
    device = Device("cuda:0")
    with pytest.raises(DeviceError) as error, device.active(), device.active():
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
    assert str(error.value).count("is out of memory: CUBLAS_STATUS_ALLOC_FAILED (cuda:0: ") == 1
    assert str(error.value).count("out of memory") == 1


def test_out_of_memory(one_gpu, monkeypatch):
    monkeypatch.setattr(fake_cupy, "memory", 2_000_000_000)
    device = Device("cuda:0")
    with device.active():
        held = device.xp.zeros(150_000_000, "float64")
    with pytest.raises(DeviceError) as error, device.active(), device.active():
        device.xp.zeros(125_000_000, "float64")
    assert str(error.value) == (
        "device: cuda:0 is out of memory: Out of memory allocating 1,000,000,000 bytes (allocated so far: 1,200,000,000 "
        "bytes). (cuda:0: 1.20 GB in arrays, 0.00 GB kept, 0.80 of 2.00 GB free); a smaller --batch-size needs less"
    )
    assert held.size and isinstance(error.value.__cause__, MemoryError)
    with device.active():
        device.xp.zeros(90_000_000, "float64")  # the device goes on working


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation: out of memory"])
def test_a_library_that_is_out_of_memory(text, one_gpu):
    with pytest.raises(DeviceError, match=f"cuda:0 is out of memory: {text}"), Device("cuda:0").active():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match=r"^other$") as error, Device("cuda:0").active():
        raise RuntimeError("other")
    assert not isinstance(error.value, DeviceError)


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_memory_summary(one_gpu, monkeypatch):
    assert memory_summary() == "no GPU is in use"
    monkeypatch.setattr(fake_cupy, "memory", 10**10)
    first = Device("cuda:0")
    Device("cuda:1")
    held = first.asarray(np.zeros(10**8))
    assert memory_summary() == "cuda:0, cuda:1: 0.80 GB in arrays, 0.00 GB kept, 9.20 of 10.00 GB free" and held.size


# ------------------------------------------------------------------------------------------------------------- transfers


def layouts():
    c_order = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    return {
        "C order": c_order,
        "channels-last": np.ascontiguousarray(c_order.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "Fortran": np.asfortranarray(c_order[0]),
        "sliced": c_order[:, ::2, 1:3, ::-1],
        "0-d": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "size-1 axes": np.ascontiguousarray(c_order[:1, :, :, :1].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "bool": c_order > 7,
        "broadcast": np.broadcast_to(np.float32(3), (2, 3)),
    }


def order_of(a):
    """Axes from slow to fast, those of length 1 left out as they have no order."""
    axes = [i for i, n in enumerate(a.shape) if n > 1]
    return sorted(axes, key=lambda i: -abs(a.strides[i]))


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("pair", [("cpu:0", "cpu:1"), ("cpu:1", "cuda:0"), ("cuda:0", "cuda:1")])
def test_a_transfer_is_a_real_copy_that_keeps_memory_order_and_is_counted(name, pair, two_gpus):
    array = layouts()[name]
    source, target = map(Device, pair)
    placed = source.asarray(array)
    with count_traffic() as traffic:
        moved = transfer(placed, source, target)
    assert traffic == ({pair: array.nbytes} if array.nbytes else {})
    back = target.to_host(moved)
    assert np.array_equal(back, array) and back.dtype == array.dtype and back.shape == array.shape
    if name != "broadcast":
        assert order_of(moved) == order_of(back) == order_of(array)
    before = source.to_host(placed)
    with target.active():
        moved[...] = 0 if array.dtype != bool else False
    assert np.array_equal(source.to_host(placed), before)


def test_asarray_on_the_host_is_the_array_itself_and_on_a_gpu_a_counted_copy(one_gpu):
    array = np.ones((3, 4), np.float32)
    with count_traffic() as traffic:
        assert Device("cpu:1").asarray(array) is array
        placed = Device("cuda:0").asarray(array)
        Device("cuda:0").to_host(placed)
        Device("cpu:0").to_host(array)
    assert traffic == {("host", "cuda:0"): 48, ("cuda:0", "host"): 48}


def test_to_host_copies_on_the_host_too():
    array = layouts()["channels-last"]
    copy = Device("cpu:0").to_host(array)
    assert not np.shares_memory(copy, array) and copy.strides == array.strides


def test_traffic_of_nested_blocks_and_after_an_error():
    a, cpu0, cpu1 = np.zeros(10), Device("cpu:0"), Device("cpu:1")
    with count_traffic() as outer:
        transfer(a, cpu0, cpu1)
        with pytest.raises(KeyError), count_traffic() as inner:
            transfer(a, cpu1, cpu0)
            raise KeyError
    assert inner == {("cpu:1", "cpu:0"): 80}
    assert outer == {("cpu:0", "cpu:1"): 80, ("cpu:1", "cpu:0"): 80}


def test_to_device_counts_both_directions_and_keeps_the_layout():
    x = Tensor(layouts()["channels-last"], requires_grad=True)
    with count_traffic() as traffic:
        y = x.to("cpu:1")
        (y * 2.0).sum().backward()
    assert traffic == {("cpu:0", "cpu:1"): 480, ("cpu:1", "cpu:0"): 480}
    assert y.device is Device("cpu:1") and y.data.strides == x.data.strides
    assert x.to("cpu:0") is x
    assert np.array_equal(x.grad, np.full(x.shape, 2)) and x.grad.data.strides == x.data.strides


def test_memory_order():
    assert memory_order(np.zeros((2, 3, 4))) == [0, 1, 2]
    assert memory_order(np.zeros((2, 3, 4)).transpose(2, 0, 1)) == [1, 2, 0]
    assert memory_order(np.zeros((2, 3, 4))[:, ::-1]) == [0, 1, 2]
    assert memory_order(np.zeros(())) == []
    one = np.zeros((1, 5, 4, 1), np.float32).transpose(0, 3, 1, 2)  # channels-last, one channel
    assert memory_order(one) == [2, 3, 0, 1]  # an axis of length 1 has no place in memory, so it comes last


def test_array_module(one_gpu):
    for value in (np.zeros(2), np.float32(1), 1, 2.5):
        assert array_module(value) is np
    assert array_module(Device("cuda:0").asarray(np.zeros(2))) is fake_cupy


# ---------------------------------------------------------------------------------------------- the GPU's branch, in order


def test_active_enters_the_gpu_and_its_stream_and_leaves_both(two_gpus):
    d = Device("cuda:1")
    with d.active():
        assert fake_cupy._here.device == 1 and fake_cupy._here.streams[-1] is d.stream
        with Device("cuda:0").active():
            assert fake_cupy._here.device == 0
        assert fake_cupy._here.device == 1
    assert fake_cupy._here.device == 0 and fake_cupy._here.streams == [None]
    assert d.stream.non_blocking


def test_synchronize_waits_for_the_stream(one_gpu):
    d = Device("cuda:0")
    fake_cupy.history.clear()
    d.synchronize()
    assert fake_cupy.history == [("synchronize", d.stream.name)]


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_a_copy_between_gpus_waits_for_its_source_and_the_source_waits_for_it(one_gpu):
    source, target = Device("cuda:0"), Device("cuda:1")
    a = source.asarray(np.arange(6.0).reshape(2, 3).T)
    fake_cupy.history.clear()
    b = _copy_between_gpus(a, source, target)
    s, t, c = source.stream.name, target.stream.name, target.copy_stream.name
    assert len({s, t, c}) == 3
    before, after = [("record", s), ("record", t), ("wait", c), ("wait", c)], [("record", c), ("wait", s), ("wait", t)]
    assert fake_cupy.history == [*before, *after]
    assert np.array_equal(target.to_host(b), source.to_host(a)) and b.strides == a.strides
    del a  # the stand-in notes it if the target may still be reading


def test_the_stand_in_notices_what_a_gpu_would_not_forgive(one_gpu):
    warnings.simplefilter("ignore")
    d, other = Device("cuda:0"), Device("cuda:1")
    a = d.asarray(np.ones(3))
    ones = np.ones(3)
    for wrong in (np.asarray, np.exp, np.sum, lambda x: x + ones, lambda x: ones + x, lambda x: x.__iadd__(ones)):
        with pytest.raises(TypeError), d.active():
            wrong(a)
    with pytest.raises(RuntimeError, match="null stream"):
        a + 1
    with pytest.raises(RuntimeError, match="no event in between"), other.active():
        a + 1
    with pytest.raises(TypeError), d.active():
        a.max(initial=0)
    with pytest.raises(TypeError), d.active():
        fake_cupy.exp(a, where=a > 0)
    with other.active():
        fake_cupy.history.clear()
        other.stream.wait_event(d.stream.record())
        a + 1
    del a
    assert fake_cupy.errors == [f"memory of {d.stream.name} was freed while another stream used it"]
    fake_cupy.errors.clear()


def test_a_copy_to_the_host_that_is_only_begun(one_gpu):
    """It goes to page-locked memory, keeps the memory order, is counted, and is there when it has been waited for."""
    host = np.arange(24.0).reshape(2, 3, 4).transpose(0, 2, 1)
    for name in ("cpu:0", "cuda:0"):
        d = Device(name)
        array = d.asarray(host)
        fake_cupy.history.clear()
        with count_traffic() as traffic:
            copying = d.begin_to_host(array)
        if name == "cuda:0":
            assert [event[0] for event in fake_cupy.history] == ["d2h begun", "record"]
            assert traffic == {("cuda:0", "host"): host.nbytes} and np.isnan(copying._host).all()
        got = copying.wait()
        np.testing.assert_array_equal(got, host)
        assert got.strides == host.strides and copying.wait() is got and not np.shares_memory(got, host)
    assert [event[0] for event in fake_cupy.history].count("synchronize event") == 1


def test_the_stand_in_hands_out_memory_with_what_was_in_it(one_gpu, monkeypatch):
    """To the stream that it was of, and no other; it counts as kept until then."""
    d, other = Device("cuda:0"), fake_cupy.cuda.Stream()
    with d.active():
        array = d.xp.full((2, 300), 7, np.float32)
        size = array.nbytes
        with other:
            assert np.isnan(fake_cupy.empty(600, "f")._array).all()
        del array
        pool = d.xp.get_default_memory_pool()
        assert pool.free_bytes() >= size and pool.used_bytes() == 0
        with other:
            assert not (fake_cupy.empty((600,), "i")._array == np.float32(7).view("i")).any()
        again = d.xp.empty_like(d.xp.zeros((20, 30), "f"))
        assert (again._array == 7).all() and again.shape == (20, 30)
        del again
        monkeypatch.setattr(fake_cupy, "stale", False)
        assert np.isnan(d.xp.empty(600, "f")._array).all()


def test_the_stand_in_copies_when_the_host_has_waited_and_no_sooner(one_gpu):
    d = Device("cuda:0")
    host = pinned_empty((3,), "f")
    host[:] = 1, 2, 3
    with d.active():
        array = d.asarray(host)
        first = d.stream.record()
        again = d.asarray(host)
    host[0] = 4  # the second copy may not have come to it
    first.synchronize()
    assert fake_cupy.errors == [f"page-locked memory was overwritten while {d.stream.name} copied from it"] * 2
    fake_cupy.errors.clear()
    host[:] = 5, 6, 7
    d.synchronize()
    assert len(fake_cupy.errors) == 1
    fake_cupy.errors.clear()
    with d.active():
        d.asarray(host)
        d.synchronize()
        host[:] = 8  # the copy is done
        d.asarray(host)
        float(again[0])  # which waits for all that came before
        host[:] = 9
        d.synchronize()
        early, late = pinned_empty((3,), "f"), pinned_empty((3,), "f")
        array.get(out=early, blocking=False)
        event = d.stream.record()
        array.get(out=late, blocking=False)
        assert np.isnan(early).all() and np.isnan(late).all()
        event.synchronize()
        assert early.tolist() == [1, 2, 3] and np.isnan(late).all()
        with pytest.raises(RuntimeError, match="page-locked"):
            array.get(out=np.empty(3, "f"), blocking=False)


@pytest.mark.nvrtc  # where CuPy is installed
def test_the_stand_in_has_the_real_signatures():
    cupy = pytest.importorskip("cupy")
    for name, parameters in fake_cupy.signatures().items():
        assert parameters == list(inspect.signature(getattr(cupy, name)).parameters), name


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.nvrtc
def test_the_stand_in_has_nothing_that_cupy_lacks(monkeypatch):
    """What runs on the stand-in finds on a GPU every function, method and constant that it names. Without cuBLAS, whose library
    CuPy loads before it says what is in it."""
    cupy = pytest.importorskip("cupy")
    helpers = {"install", "signatures", "history", "errors", "launches", "devices", "memory", "in_use", "order"}
    helpers |= {"in_flight", "stale", "fused"}
    imported = {name for name in public(fake_cupy) if inspect.ismodule(getattr(fake_cupy, name))}
    helpers |= imported | {"Counter", "SimpleNamespace", "Device", "UFUNCS", "NOT_CUPYS", "OPERATORS", "OVERRIDE"}
    helpers |= {
        "calls_of_at",
        "CUDARuntimeError",
        "OutOfMemoryError",
        "cublas",
    }  # which CuPy has elsewhere, or not without its library
    fake_cupy.install(monkeypatch)  # gives it cuBLAS
    pairs = [(fake_cupy, cupy), (fake_cupy.cuda, cupy.cuda), (fake_cupy.lib.stride_tricks, cupy.lib.stride_tricks)]
    pairs += [(getattr(fake_cupy.cuda, name), getattr(cupy.cuda, name)) for name in ("runtime", "MemoryHook")]
    pairs += [(fake_cupy.ndarray, cupy.ndarray), (fake_cupy.ufunc, cupy.ufunc), (fake_cupy.RawModule, cupy.RawModule)]
    for ours, theirs in pairs:
        assert public(ours) - helpers <= public(theirs), theirs
    attributes = {"device_id", "non_blocking", "time", "seen", "name", "made", "knows", "ptr"}  # of the stand-in's own streams
    assert public(fake_cupy.cuda.Stream(non_blocking=True)) - attributes <= public(cupy.cuda.Stream)
    assert public(fake_cupy.cuda.Device()) <= public(cupy.cuda.Device)
    assert {"malloc_postprocess", "free_postprocess"} <= public(cupy.cuda.MemoryHook)


def test_hardware(one_gpu):
    assert Device("cuda:0").hardware() == "a stand-in, CUDA 13.0 by its driver, 13.2 by CuPy 14.2.0"
    assert Device("cpu:1").hardware() == ""


# ------------------------------------------------------------------------------------------------- memory that is watched


def test_memory_that_is_watched(one_gpu):
    device = Device("cuda:0")

    def made(size):
        with device.active():
            return device.xp.empty(size, "uint8")

    before = made(600)
    with watch_gpu_memory() as seen:
        assert (seen.in_use, seen.peak) == (0, 0)
        a, b = made(1000), made(30)
        assert (seen.in_use, seen.peak) == (1030, 1030)
        del a
        made(5)
        assert (seen.in_use, seen.peak) == (30, 1030)
        seen.reset()
        assert (seen.in_use, seen.peak) == (30, 30)
        c = made(70)
        del before, b, c  # 600 bytes were taken as 1024, and nothing else is known of them now
        assert (seen.in_use, seen.peak) == (-1024, 100)
    made(5)
    assert (seen.in_use, seen.peak) == (-1024, 100)


def test_two_may_watch_and_memory_that_was_refused_is_none(one_gpu, monkeypatch):
    device = Device("cuda:0")
    with watch_gpu_memory() as outer, watch_gpu_memory() as inner, device.active():
        array = device.xp.empty(10, "uint8")
        for hook in one_gpu._here.hooks:  # CuPy tells its hooks of a failure with an address of 0
            hook.malloc_postprocess(device_id=0, size=50, mem_size=512, mem_ptr=0, pmem_id=0)
    assert outer.in_use == inner.in_use == array.nbytes == 10


def test_without_a_gpu_in_use_no_memory_is_watched(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(Device, "_made", {})
    Device("cpu:0")
    with watch_gpu_memory() as seen:
        assert (seen.in_use, seen.peak) == (0, 0)


# ------------------------------------------------------------------------------- every op on the GPU's branch, bit for bit


PAIR = uniform((3, 4), (4,))
POSITIVE = uniform((3, 4), (3, 4), low=0.5)


COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]
LOGIC = ["__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__"]
IN_PLACE_WITH = ["add_", "sub_", "mul_", "div_", "pow_", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"]
IN_PLACE = ["neg_", "abs_", "exp_", "log_", "sqrt_", "relu_", "tanh_", "sigmoid_"]


def _with_an_item(x, y):
    x[1, :2] = y[2:] * 3
    return x


OPS = {
    **{name: (case.ours, case.arrays) for name, case in layer_cases().items()},
    "__add__": (lambda x, y: x + y, PAIR),
    "__radd__": (lambda x: 2.0 + x, ROWS),
    "__sub__": (lambda x, y: x - y, PAIR),
    "__rsub__": (lambda x: 2.0 - x, ROWS),
    "__mul__": (lambda x, y: x * y, PAIR),
    "__rmul__": (lambda x: np.float64(2) * x, ROWS),
    "__truediv__": (lambda x, y: x / y, POSITIVE),
    "__rtruediv__": (lambda x: 2.0 / x, POSITIVE[:1]),
    "__pow__": (lambda x, y: x**y, POSITIVE),
    "pow by a number": (lambda x: x**3 + x**0, ROWS),
    "__rpow__": (lambda x: 2.0**x, ROWS),
    "__matmul__": (lambda x, y: x @ y, uniform((2, 3, 4), (4, 5))),
    "matmul of vectors": (lambda x, y, z: x @ y @ z, uniform((4,), (4, 5), (5,))),
    "__rmatmul__": (lambda x: np.ones((2, 5)) @ x, ROWS),
    "matmul": (lambda x, y: x.matmul(y), uniform((3, 4), (4, 5))),
    "__neg__": (lambda x: -x, ROWS),
    "__abs__": (lambda x: abs(x), ROWS),
    "__getitem__": (lambda x: x[1:, None, ::2], ROWS),
    "getitem by integers": (lambda x: x[np.array([0, 2, 2])], ROWS),
    "getitem by a mask": (lambda x: x[np.arange(5) > 2], ROWS),
    "getitem one": (lambda x: x[1, -1], ROWS),
    "sin": (lambda x: x.sin(), ROWS),
    "cos": (lambda x: x.cos(), ROWS),
    "clamp": (lambda x: x.clamp(-0.5, 1), ROWS),
    "where": (lambda x, y: x.where(x > y, y), PAIR),
    "clamp by tensors": (lambda x, y: x.clamp(y, y + 1), PAIR),
    "div rounded": (lambda x, y: x.div(y, rounding_mode="floor") + x.div(y, rounding_mode="trunc") + x, POSITIVE),
    "integers rounded": (lambda x: (x * 1, x.detach().long().div(-2, rounding_mode="trunc")), POSITIVE[:1]),
    "nonzero by axes": (lambda x: (x * 1, (x > 0).nonzero(as_tuple=True)[1]), ROWS),
    "maximum": (lambda x, y: x.maximum(y), PAIR),
    "minimum": (lambda x, y: x.minimum(y), PAIR),
    "remainder": (lambda x, y: x.remainder(y), POSITIVE),
    "norm": (lambda x: x.norm(dim=1), IMAGES),
    "var": (lambda x: x.var(1), IMAGES),
    "std": (lambda x: x.std((0, 2, 3), keepdim=True), IMAGES),
    "cumsum": (lambda x: x.cumsum(1), ROWS),
    "gather": (lambda x: x.gather(0, Tensor(np.array([[0, 1, 1, 4]]), device=x.device)), ROWS),
    "sort": (lambda x: x.sort(0, descending=True), ROWS),
    "topk": (lambda x: x.topk(2), ROWS),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1.0), ROWS),
    "expand": (lambda x: x.expand(3, -1, -1) * 1, ROWS),
    "repeat": (lambda x: x.repeat(2, 3), ROWS),
    "flip": (lambda x: x.flip(0, 1), ROWS),
    "roll": (lambda x: x.roll((1, -1), (0, 1)), ROWS),
    "split": (lambda x: x.split(2)[1], ROWS),
    "clone": (lambda x: x.clone(), IMAGES),
    "contiguous": (lambda x: x.contiguous(), uniform((2, 3, 4, 4), channels_last=True)),
    "__setitem__": (lambda x, y: _with_an_item(x * 1, y), PAIR),
    **{name: (lambda x, y, name=name: (x + y, getattr(x, name)(y)), PAIR) for name in COMPARISONS},
    **{name: (lambda x, name=name: (x * 1, getattr(x > 0, name)(x < 1)), ROWS) for name in LOGIC},
    "__invert__": (lambda x: (x * 1, ~(x > 0)), ROWS),
    **{name: (lambda x, y, name=name: getattr(x * 1, name)(y), POSITIVE) for name in IN_PLACE_WITH},
    **{name: (lambda x, name=name: getattr(x * 1, name)(), POSITIVE[:1]) for name in IN_PLACE},
    "clamp_": (lambda x: (x * 1).clamp_(-1, 1), ROWS),
    "masked_fill_": (lambda x: (x * 1).masked_fill_(x > 0, 2), ROWS),
    "copy_": (lambda x, y: (x * 1).copy_(y), PAIR),
    "fill_": (lambda x: (x * 1).fill_(3), ROWS),
    "zero_": (lambda x: (x * 1).zero_(), ROWS),
    **{name: (lambda x, y, name=name: getattr(x, name)(y), POSITIVE) for name in ("add", "sub", "mul", "div", "pow")},
    "neg": (lambda x: x.neg(), ROWS),
    "__mod__": (lambda x, y: x % y, POSITIVE),
    "__rmod__": (lambda x: (x * 1, 3.0 % x.detach()), POSITIVE[:1]),
    **{
        name: (lambda x, name=name: (x * 1, getattr(x.detach(), name)(2)), POSITIVE[:1])
        for name in ("floor_divide", "__floordiv__", "__rfloordiv__")
    },
    **{name: (lambda x, name=name: (x * 1, getattr(x > 0, name)(1)), ROWS) for name in ("any", "all")},
    "argmin": (lambda x: (x * 1, x.argmin(1)), ROWS),
    "argsort": (lambda x: (x * 1, x.argsort(0)), ROWS),
    "nonzero": (lambda x: (x * 1, (x > 0).nonzero()), ROWS),
    "t": (lambda x: x.t(), ROWS),
    "chunk": (lambda x: x.chunk(2, 1)[1], ROWS),
    **{name: (lambda x, y, name=name: getattr(x, name)(y) * y, POSITIVE) for name in ("view_as", "expand_as", "type_as")},
    "cpu": (lambda x: (x * 1, x.cpu().to(x.device)), ROWS),
    **{name: (lambda x, name=name: (x * 1, getattr(x, name)()), ROWS) for name in ("long", "int", "bool", "half")},
    "cuda": (lambda x: x * 1, ROWS),  # moving itself is tested above
    "abs": (lambda x: x.abs(), ROWS),
    "exp": (lambda x: x.exp(), ROWS),
    "log": (lambda x: x.log(), POSITIVE[:1]),
    "sqrt": (lambda x: x.sqrt(), POSITIVE[:1]),
    "sum": (lambda x: x.sum((0, 2), keepdim=True), IMAGES),
    "sum of all": (lambda x: x.sum(), IMAGES),
    "mean": (lambda x: x.mean(1), IMAGES),
    "max": (lambda x: x.max(), ROWS),
    "max along": (lambda x: x.max(1, keepdim=True), ROWS),
    "min": (lambda x: x.min(), ROWS),
    "min along": (lambda x: x.min(0), ROWS),
    "amax": (lambda x: x.amax((0, 1)), IMAGES),
    "amin": (lambda x: x.amin(1, keepdim=True), ROWS),
    "argmax": (lambda x: (x.sum(), x.argmax(1)), ROWS),
    "softmax method": (lambda x: x.softmax(0), ROWS),
    "log_softmax method": (lambda x: x.log_softmax(1), ROWS),
    "reshape": (lambda x: x.reshape(2, -1), uniform((2, 3, 4, 4), channels_last=True)),
    "view": (lambda x: x.view(10, 2), ROWS),
    "squeeze": (lambda x: x.squeeze(), uniform((3, 1, 2))),
    "unsqueeze": (lambda x: x.unsqueeze(1), ROWS),
    "permute": (lambda x: x.permute(0, 2, 3, 1), IMAGES),
    "transpose": (lambda x: x.transpose(0, 1), ROWS),
    "T": (lambda x: x.T, ROWS),
    "to": (lambda x: x.to("float32"), ROWS),
    "float": (lambda x: x.float() * 3.0, ROWS),
    "double": (lambda x: x.float().double(), ROWS),
    "used three times": (lambda x: x * x + x + x.sum(), ROWS),
    "detour": (lambda x: x.to("cpu:1").tanh().to(x.device) * x, ROWS),
}


def run(case, device):
    """The outputs and gradients of one op, as NumPy arrays."""
    minidl.manual_seed(3)
    function, arrays = OPS[case]
    leaves = [Tensor(a.copy(order="K"), requires_grad=True, device=device) for a in arrays]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = np.random.default_rng(1).normal(size=outputs[0].shape).astype(outputs[0].dtype)
    outputs[0].backward(weights)
    assert all(y.device is leaves[0].device for y in outputs)
    results = [y.detach().numpy() for y in outputs]
    return results, [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("case", OPS)
def test_every_op_runs_on_a_gpu_as_on_numpy(case, one_gpu):
    """Bit for bit: the plain functions are the same code; but CuPy's own `add.at` adds up in any order, with some roundings."""
    before = fake_cupy.ufunc.calls_of_at
    with plain_kernels():
        results = run(case, "cuda:0"), run(case, "cpu:0")
    roundings = 10 if fake_cupy.ufunc.calls_of_at > before else 0
    for here, there in zip(*results, strict=True):
        for a, b in zip(here, there, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            eps = np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0
            np.testing.assert_allclose(a, b, rtol=0, atol=roundings * eps, equal_nan=True)
            assert order_of(a) == order_of(b)


def test_no_method_was_forgotten():
    assert {name for name in METHODS if not any(case.split()[0] == name for case in OPS)} == set()


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
@pytest.mark.parametrize("gpus", [1, 2])
def test_two_towers_on_two_gpus(gpus, one_gpu, monkeypatch):
    monkeypatch.setattr(fake_cupy, "devices", gpus)
    x, w = uniform((2, 2, 6, 6), (3, 2, 3, 3))

    def train(first, second):
        weights = [Tensor(w * k, requires_grad=True, device=d) for k, d in ((1, first), (2, second))]
        halves = [F.relu(F.conv2d(Tensor(x, device=v.device), v)) for v in weights]
        crossed = [F.cat([halves[0], halves[1].to(first)], 1), F.cat([halves[0].to(second), halves[1]], 1)]
        pooled = [F.max_pool2d(h, 2).flatten(1) for h in crossed]
        loss = (pooled[0].sum() + (pooled[1] * pooled[1]).sum().to(first)) * 0.5
        loss.backward()
        return [loss.item(), *(v.grad.numpy() for v in weights)]

    for a, b in zip(train("cuda:0", "cuda:1"), train("cpu:0", "cpu:1"), strict=True):
        assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()  # sums of 72 products, in an order that is BLAS's
    assert fake_cupy.errors == []


def test_looking_at_a_tensor_on_a_gpu(one_gpu):
    x = Tensor(np.array([[1.5]], np.float32), device="cuda:0")
    assert (x.item(), float(x), int(x), bool(x)) == (1.5, 1.5, 1, True)
    assert repr(x) == "tensor([[1.5]], device='cuda:0')"
    assert np.array_equal(np.asarray(x), [[1.5]]) and isinstance(x.numpy(), np.ndarray)
    assert np.array_equal(Tensor([1, 2], device="cuda:0", dtype="float64").numpy(), [1, 2])
    assert Tensor(x.data, device="cuda:0", dtype="float64").dtype == np.float64


def test_a_gpu_array_does_not_become_a_host_tensor_unasked(one_gpu):
    array = Device("cuda:0").asarray(np.ones(2))
    with pytest.raises(TypeError) as error:
        Tensor(array)
    assert str(error.value) == "Tensor: cpu:0 takes NumPy arrays, got ndarray; copy it to the host first"


def test_factories_on_a_gpu(one_gpu):
    for made in (minidl.zeros(2, 3, device="cuda:0"), minidl.randn(2, 3, device="cuda:0")):
        assert made.device is Device("cuda:0") and made.shape == (2, 3)


def test_gradcheck_on_a_gpu(one_gpu):
    x, w = (Tensor(a, requires_grad=True, device="cuda:0") for a in uniform((1, 2, 5, 5), (2, 2, 3, 3)))
    assert gradcheck(lambda x, w: F.tanh(F.conv2d(x, w)), [x, w])


def test_accumulating_and_retaining_on_a_gpu(one_gpu):
    x = Tensor(np.arange(3.0), requires_grad=True, device="cuda:0")
    for _ in range(2):
        y = x * 2.0
        y.retain_grad()
        y.sum().backward()
    assert np.array_equal(x.grad.numpy(), [4, 4, 4])
    assert np.array_equal(y.grad.numpy(), [1, 1, 1])


# ------------------------------------------------------------------------------------------------- products on a GPU


@pytest.fixture
def _precision():
    yield
    minidl.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_precision")
def test_the_precision_of_products_is_the_highest_until_set():
    assert minidl.get_float32_matmul_precision() == "highest"
    for precision in ("high", "highest", "medium", "high"):
        minidl.set_float32_matmul_precision(precision)
        assert minidl.get_float32_matmul_precision() == precision


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("precision", ["bf16", "tf32", "", None, 1])
def test_other_precisions_are_refused(precision):
    minidl.set_float32_matmul_precision("high")
    with pytest.raises(ValueError) as error:
        minidl.set_float32_matmul_precision(precision)
    rule = "set_float32_matmul_precision: precision must be 'highest', 'high' or 'medium'"
    assert str(error.value) == f"{rule}, got {precision!r}"
    assert minidl.get_float32_matmul_precision() == "high"
