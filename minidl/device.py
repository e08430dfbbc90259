"""Devices: where an array lives, and how it gets from one to another.

A `Device` is *logical*. "cpu:0", "cpu:1", ... all compute with NumPy in the same host memory, yet are distinct: an op refuses
operands of two of them, and moving data from one to the other is a real copy that is counted. So a network split over two
devices runs, and is tested, on a machine that has none. "cuda:N" computes with CuPy on a GPU with its own stream. On a
machine with one GPU, "cuda:0" and "cuda:1" are two contexts on it, each with a stream of its own.

This file is the only one, beside minidl/kernels/cuda, that names cupy.
"""

import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray

_ON_HOST = nullcontext()
HOST = "host"  # the name under which copies from plain NumPy arrays are counted
RANKS = "other ranks"  # the name under which what this rank sends to others is counted


class DeviceError(RuntimeError):
    """A device that is not there, or a name that is not a device's. The text is one line."""


class Device:
    """A logical device: `Device("cpu")` (the same as "cpu:0"), `Device("cpu:1")`, `Device("cuda:0")`, also said as
    `Device("cuda", 0)` and `Device(0)`.

    One object per name, so `is` and `==` compare devices. DeviceError if the name is malformed or the GPU is not there.
    """

    _made: ClassVar[dict[str, "Device"]] = {}
    kind: str
    index: int
    physical: int

    def __new__(cls, name: "str | int | Device" = "cpu:0", index: int | None = None) -> "Device":
        if isinstance(name, Device):
            return name
        if index is not None or isinstance(name, int):
            name = f"cuda:{name}" if index is None else f"{name}:{index}"
        known = cls._made.get(name)
        if known is not None:
            return known
        match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", name) if isinstance(name, str) else None
        if match is None:
            raise DeviceError(f"device: a name is cpu, cpu:N, cuda or cuda:N, got {name!r}; cpu:0 and cpu:1 work here")
        kind, number = match[1], int(match[2] or 0)
        device = cls._made.get(f"{kind}:{number}")
        if device is None:
            device = object.__new__(cls)
            device.kind, device.index = kind, number
            device.physical = _physical_gpu(number) if kind == "cuda" else 0
            if kind == "cuda":
                _check_libraries(device.physical)
        cls._made[name] = cls._made[str(device)] = device
        return device

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}"

    def __repr__(self) -> str:
        return f"Device('{self}')"

    def __reduce__(self) -> tuple[type["Device"], tuple[str]]:
        return Device, (str(self),)

    @property
    def type(self) -> str:
        """`kind`, under PyTorch's name."""
        return self.kind

    @property
    def xp(self) -> ModuleType:
        """The array module: numpy, or cupy."""
        return np if self.kind == "cpu" else _import_cupy()

    @cached_property
    def stream(self) -> Any:
        """The CUDA stream on which this logical device computes (None on the host)."""
        return None if self.kind == "cpu" else self._new_stream()

    @cached_property
    def copy_stream(self) -> Any:
        """The CUDA stream on which this logical device gets what other GPUs have, through copies or NCCL (None on the host)."""
        return None if self.kind == "cpu" else self._new_stream()

    def hardware(self) -> str:
        """A GPU's name and what drives it: "NVIDIA H200, CUDA 13.0 by its driver, 13.2 by CuPy 14.2.0". "" for the host."""
        if self.kind == "cpu":
            return ""
        cupy = _import_cupy()
        runtime = cupy.cuda.runtime
        name = runtime.getDeviceProperties(self.physical)["name"].decode()
        driver, own = (f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion()))
        return f"{name}, CUDA {driver} by its driver, {own} by CuPy {cupy.__version__}"

    def _new_stream(self) -> Any:
        cupy = _import_cupy()
        with cupy.cuda.Device(self.physical):
            return cupy.cuda.Stream(non_blocking=True)

    def active(self) -> AbstractContextManager[None]:
        """Make this the device on which arrays are made and kernels run. The engine enters it, ops never do.

        DeviceError if the GPU has too little memory for what is done inside.
        """
        return _ON_HOST if self.kind == "cpu" else _OnGpu(self, self.stream)

    def copying(self) -> AbstractContextManager[None]:
        """As `active`, but on the copy stream; of GPUs only."""
        return _OnGpu(self, self.copy_stream)

    def bus_id(self) -> str:
        """Which GPU of its machine this is, whatever CUDA_VISIBLE_DEVICES shows: "0000:3B:00.0"."""
        return _import_cupy().cuda.Device(self.physical).pci_bus_id

    def asarray(self, host: np.ndarray) -> Array:
        """A NumPy array's values on this device: the array itself on the host, a counted copy on a GPU."""
        if self.kind == "cpu":
            return host
        _traffic[HOST, str(self)] += host.nbytes
        return _upload(host, self)

    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy copy of an array of this device, or of a tensor."""
        if hasattr(array, "numpy"):  # a tensor, which knows its device
            return array.numpy()
        if self.kind == "cpu":
            return array.copy(order="K")
        _traffic[str(self), HOST] += array.nbytes
        return _download(array, self)

    def begin_to_host(self, array: Array) -> "Copying":
        """As `to_host`, but on a GPU the copy is only begun: `wait` on what is returned gives the NumPy array."""
        if self.kind == "cpu":
            return Copying(self.to_host(array))
        _traffic[str(self), HOST] += array.nbytes
        order = memory_order(array)
        with self.active():
            packed = self.xp.ascontiguousarray(array.transpose(order))
            host = pinned_empty(packed.shape, packed.dtype)
            packed.get(out=host, blocking=False)
            return Copying(_unpacked(host, order), self.stream.record())

    def record(self) -> Any:
        """An event that comes when everything asked of this device so far is done (None on the host, where it is)."""
        if self.stream is None:
            return None
        with self.active():
            return self.stream.record()

    def synchronize(self) -> None:
        """Wait until everything asked of this device is done."""
        if self.stream is not None:
            self.stream.synchronize()


class Copying:
    """A NumPy array that a GPU may still be writing."""

    def __init__(self, host: np.ndarray, done: Any = None) -> None:
        self._host, self._done = host, done

    def wait(self) -> np.ndarray:
        """The array, as soon as it is whole."""
        if self._done is not None:
            self._done.synchronize()
            self._done = None
        return self._host


class _OnGpu:
    """A GPU and one of its streams, made current."""

    def __init__(self, device: Device, stream: Any) -> None:
        self._device, self._stream, self._gpu = device, stream, _import_cupy().cuda.Device(device.physical)

    def __enter__(self) -> None:
        self._gpu.__enter__()
        self._stream.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stream.__exit__(kind, error, trace)
        self._gpu.__exit__(kind, error, trace)
        if error is not None and not isinstance(error, DeviceError) and _is_out_of_memory(error):
            raise DeviceError(
                f"device: {self._device} is out of memory: {_first_line(error)} ({memory_summary()}); "
                "a smaller --batch-size needs less"
            ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """CuPy's own error, or one of CUDA's libraries, which report it by name."""
    reports = "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"
    return type(error).__name__ == "OutOfMemoryError" or any(report in str(error) for report in reports)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def memory_summary() -> str:
    """Each GPU that is in use, its memory in GB: in arrays, kept by CuPy's pool for the next arrays, and free."""
    gpus: dict[int, list[str]] = {}
    for device in dict.fromkeys(Device._made.values()):
        if device.kind == "cuda":
            gpus.setdefault(device.physical, []).append(str(device))
    return "; ".join(_gpu_memory(gpu, names) for gpu, names in sorted(gpus.items())) or "no GPU is in use"


def _gpu_memory(gpu: int, names: list[str]) -> str:
    cupy = _import_cupy()
    with cupy.cuda.Device(gpu) as current:
        pool = cupy.get_default_memory_pool()
        sizes = pool.used_bytes(), pool.free_bytes(), *current.mem_info
    used, kept, free, total = (f"{size / 1e9:.2f}" for size in sizes)
    return f"{', '.join(names)}: {used} GB in arrays, {kept} GB kept, {free} of {total} GB free"


class GpuMemory:
    """What was made and dropped on GPUs while it was watched: bytes in use, less those before, and the most since `reset`."""

    def __init__(self) -> None:
        self.in_use: int = 0
        self.peak: int = 0
        self._sizes: dict[tuple[int, int], int] = {}

    def reset(self) -> None:
        """Begin the peak anew."""
        self.peak = self.in_use

    def made(self, gpu: int, pointer: int, size: int) -> None:
        """`size` bytes as they were asked for; CuPy rounds them up."""
        self._sizes[gpu, pointer] = size
        self.in_use += size
        self.peak = max(self.peak, self.in_use)

    def dropped(self, gpu: int, pointer: int, rounded: int) -> None:
        """The memory there, of which no more than a rounded size is known if it was made before."""
        self.in_use -= self._sizes.pop((gpu, pointer), rounded)


@contextmanager
def watch_gpu_memory() -> Iterator[GpuMemory]:
    """Inside the block, the memory that this thread takes from CuPy's pools and gives back; zeros where no GPU is in use."""
    seen = GpuMemory()
    if all(device.kind == "cpu" for device in Device._made.values()):
        yield seen
        return

    class Hook(_import_cupy().cuda.MemoryHook):  # type: ignore[misc]
        name = f"minidl {id(seen)}"  # CuPy refuses a second of the same name

        def malloc_postprocess(self, **call: int) -> None:
            if call["mem_ptr"]:  # else there was too little memory
                seen.made(call["device_id"], call["mem_ptr"], call["size"])

        def free_postprocess(self, **call: int) -> None:
            seen.dropped(call["device_id"], call["mem_ptr"], call["mem_size"])

    with Hook():
        yield seen


def array_module(array: Array) -> ModuleType:
    """numpy for a NumPy array or a number, cupy for a CuPy array. What the plain functions of ops/ call `xp`."""
    if isinstance(array, (np.ndarray, np.generic, int, float)):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def memory_order(array: Array) -> list[int]:
    """The axes from the longest stride to the shortest: `array.transpose(memory_order(array))` is in memory order."""
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]) if array.shape[axis] > 1 else 0)


# ---------------------------------------------------------------------------------------------------------- transfers

_traffic: Counter[tuple[str, str]] = Counter()


@contextmanager
def count_traffic() -> Iterator[Counter[tuple[str, str]]]:
    """Count what is copied between devices inside the block: `{("cpu:0", "cpu:1"): bytes, ...}`, filled at its end.

    What all-reduces send to other ranks is under ("host", "other ranks"): see minidl/distributed/group.py.
    """
    before = _traffic.copy()
    seen: Counter[tuple[str, str]] = Counter()
    try:
        yield seen
    finally:
        seen.update(_traffic - before)


def count_exchange(sent: int) -> None:
    """So many bytes went to other ranks."""
    _traffic[HOST, RANKS] += sent


def transfer(array: Array, source: Device, target: Device) -> Array:
    """A copy of `array` (on `source`) that lives on `target`; always a real one, counted in bytes. Memory order is kept."""
    _traffic[str(source), str(target)] += array.nbytes
    if source.kind == "cpu":
        return array.copy(order="K") if target.kind == "cpu" else _upload(array, target)
    return _download(array, source) if target.kind == "cpu" else _copy_between_gpus(array, source, target)


def _upload(host: np.ndarray, target: Device) -> Array:
    order = memory_order(host)
    with target.active():
        packed = target.xp.asarray(np.asarray(host.transpose(order), order="C"))
    return _unpacked(packed, order)


def pinned_empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An uninitialised NumPy array in C order, in page-locked memory from CuPy's pool. DeviceError without CuPy.

    From such memory a GPU copies by itself, while the host goes on: it must be left as it is until the copy is done.
    """
    block = _import_cupy().cuda.alloc_pinned_memory(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(block, dtype, math.prod(shape)).reshape(shape)


def _download(array: Array, source: Device) -> np.ndarray:
    order = memory_order(array)
    with source.active():
        packed = source.xp.asnumpy(array.transpose(order))
    return _unpacked(packed, order)


def _unpacked(packed: Array, order: list[int]) -> Array:
    return packed.transpose(sorted(range(len(order)), key=order.__getitem__))


def _copy_between_gpus(array: Array, source: Device, target: Device) -> Array:
    """On the target's copy stream. The copy waits for the array's producer, and for whoever may still use the memory that it is
    given; both devices then wait for the copy, so that CuPy's pool hands out neither memory while it is read or written."""
    order = memory_order(array)
    with source.active():
        packed = source.xp.asarray(array.transpose(order), order="C")
        produced = source.stream.record()
    with target.active():
        copied = target.xp.empty(packed.shape, packed.dtype)
        given = target.stream.record()
    with target.copying():
        target.copy_stream.wait_event(produced)
        target.copy_stream.wait_event(given)
        target.xp.copyto(copied, packed)
        done = target.copy_stream.record()
    for device in (source, target):
        with device.active():
            device.stream.wait_event(done)
    return _unpacked(copied, order)


# ------------------------------------------------------------------------------------------------------- finding a GPU


def _import_cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device: cuda needs CuPy, got {type(error).__name__}: {error}; install minidl with its extra cuda13 (or cuda12 "
            "for a CUDA 12 driver); cpu:0 and cpu:1 work here"
        ) from error
    return cupy


def load_nccl() -> ModuleType:
    """cupy.cuda.nccl. DeviceError: there is no GPU, or no NCCL."""
    gpu_count()
    try:
        with warnings.catch_warnings(action="ignore"):  # CuPy warns where the library is missing
            nccl = import_module("cupy.cuda.nccl")
    except ImportError:
        nccl = None
    if nccl is None or not nccl.available:
        raise DeviceError("device: CuPy finds no NCCL, libnccl.so.2; pip install nvidia-nccl-cu13 (cu12 for a CUDA 12 driver)")
    return nccl


def _physical_gpu(index: int) -> int:
    """The GPU that serves logical device cuda:index; DeviceError where there is none."""
    count = gpu_count()
    if index < count:
        return index
    if index == 1:
        warnings.warn("cuda:1 is a second context on cuda:0's GPU: this machine has one", stacklevel=3)
        return 0
    raise DeviceError(f"device: cuda:{index} needs {index + 1} GPUs, found {count}; cuda:0, cpu:0 and cpu:1 work here")


@cache
def _check_libraries(gpu: int) -> None:
    """CuPy compiles its kernels when they are first used, and loads cuBLAS for the first product: better now than later."""
    cupy = _import_cupy()
    try:
        with cupy.cuda.Device(gpu), cupy.cuda.Stream(non_blocking=True):
            ones = cupy.ones((2, 2), "float32")
            float(((ones + ones) @ ones).sum())
    except (ImportError, RuntimeError, OSError) as error:
        raise DeviceError(
            f"device: CuPy finds GPU {gpu}, but cannot compute on it ({_first_line(error)}); minidl's extra cuda13 (or cuda12) "
            "installs what it needs of CUDA: compiler, headers and cuBLAS; cpu:0 and cpu:1 work here"
        ) from error


def gpu_count() -> int:
    """How many GPUs CuPy sees, at least 1; DeviceError that says what was looked for and found where there is none."""
    runtime = _import_cupy().cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device: cuda needs an NVIDIA GPU and its driver, CuPy found none ({error}); cpu:0 and cpu:1 work here"
        ) from error
    if count == 0:
        raise DeviceError("device: cuda needs an NVIDIA GPU, CuPy found 0; cpu:0 and cpu:1 work here")
    return count


# ------------------------------------------------------------------------------------------------ products on a GPU

_float32_matmul_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """How the CUDA kernels multiply float32 matrices, in convolutions too. The default is "highest".

    "highest" : float32 throughout.
    "high"    : tensor cores may round the factors to TF32, whose fraction has 10 bits instead of 23, and add in float32: an
                error of about 2^-11 of each product, several times faster. GPUs without such cores ignore it.
    "medium"  : the same with bfloat16, whose fraction has 7 bits: 2^-8. What is kept, and what is added up, stays float32.

    The name and the words are PyTorch's, which has a setting of its own for convolutions. ValueError for another word.
    """
    global _float32_matmul_precision
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"set_float32_matmul_precision: precision must be 'highest', 'high' or 'medium', got {precision!r}")
    _float32_matmul_precision = precision


def get_float32_matmul_precision() -> str:
    """What set_float32_matmul_precision was given last: "highest", "high" or "medium"."""
    return _float32_matmul_precision
