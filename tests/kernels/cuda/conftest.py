"""The GPU on which the kernels' tests run: a stand-in whose kernels the CPU runs, and a real one where there is one."""

import os
from collections.abc import Iterator

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

from minidl.device import Array, Device, DeviceError
from minidl.kernels.cuda import launch

SANITIZED = "MINIDL_EMULATOR" in os.environ  # test_sanitizer.py runs the other tests again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where guards surround the arrays, only tests with kernels are worth running again."""
    if SANITIZED:
        items[:] = [item for item in items if "gpu" in getattr(item, "fixturenames", ())]


def _ways() -> list[str]:
    """How to run each test. Without a GPU its name is left out, or every test here would also be one that is skipped."""
    if SANITIZED:
        return ["shuffled"]
    try:
        return ["forward", "shuffled", str(Device("cuda:0"))]
    except DeviceError:
        return ["forward", "shuffled"]


class Gpu:
    """cuda:0, which is active during the test: `get(wrapper(put(x)))`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self._monkeypatch = Device("cuda:0"), monkeypatch

    def put(self, array: np.ndarray) -> Array:
        """A copy on the GPU: in the same memory order, but dense. For a slice, slice what `put` gives."""
        return self.device.asarray(array)

    def get(self, array: Array) -> np.ndarray:
        """A copy on the host."""
        assert not isinstance(array, np.ndarray)
        return self.device.to_host(array)

    def order(self, order: str) -> None:
        """From now on threads and blocks run "forward", "reverse" or "shuffled"; a real GPU does as it likes."""
        self._monkeypatch.setattr(fake_cupy, "order", order)

    def few_threads(self, threads: int) -> None:
        """From now on grids have at most this many threads (or one block): they go over their elements more than once."""
        self._monkeypatch.setattr(launch, "MOST_THREADS", threads)

    def long_index(self) -> None:
        """From now on kernels count in long long, as for arrays of 2^31 elements."""
        self._monkeypatch.setattr(launch, "MOST_FOR_INT", 0)


@pytest.fixture(params=_ways())
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """The emulator with threads in order, in grids as large as they like; then shuffled, in small grids that count in long
    long; and a real GPU where there is one."""
    if request.param == "cuda:0":
        yield from _active(Gpu(monkeypatch))
        return
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch)
    gpu = Gpu(monkeypatch)
    gpu.order(request.param)
    monkeypatch.setattr(fake_cupy, "stale", request.param == "shuffled")  # else new memory is full of NaN
    if request.param == "shuffled":
        gpu.few_threads(512)
        gpu.long_index()
    yield from _active(gpu)
    assert fake_cupy.errors == []


def _active(gpu: Gpu) -> Iterator[Gpu]:
    with gpu.device.active():
        yield gpu
