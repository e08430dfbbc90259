"""What every test can use."""

import gc
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Small products gain nothing from BLAS's threads, which wait for each other where cores are shared. Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Tests press Ctrl-C in programs that they start, which inherit from a job in a shell's background that it is ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from short_explanations import pytest_assertrepr_compare  # noqa: F401

import minidl
from minidl.device import Device, DeviceError

# The same examples everywhere, however long they take: Hypothesis's own settings change where CI is set. Fixtures of tests with
# examples are the same for every example.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("minidl", derandomize=True, deadline=None, database=None, suppress_health_check=UNCHECKED)
settings.load_profile("minidl")


def _use_the_stand_in() -> None:
    """`import cupy` finds a copy of the stand-in, apart from the one that tests install, and so there is a GPU: `make stand-in`
    runs the tests that are for a GPU."""
    for name, file in (("fake_cublas", "fake_cublas.py"), ("cupy", "fake_cupy.py")):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    sys.modules.pop("fake_cublas").install(sys.modules["cupy"])


if "MINIDL_STAND_IN" in os.environ:
    _use_the_stand_in()


def _gpu_reason() -> str | None:
    try:
        Device("cuda:0")
    except DeviceError as error:
        return str(error)
    return None


TESTS = Path(__file__).parent

# Where the Makefile looks for the tests of a mark, so as not to collect all others each time.
MARKED = {
    "nvrtc": ["kernels/cuda", "test_device.py"],
    "browser": ["docs", "study"],
    "docs": ["docs"],
    "package": ["package"],
    "types": ["typed"],
    "onnx": ["onnx"],
}

NO_GPU = _gpu_reason()
needs_gpu = pytest.mark.skipif(NO_GPU is not None, reason=str(NO_GPU))


@pytest.fixture(params=["cpu:0", "cpu:1", pytest.param("cuda:0", marks=needs_gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """Each kind of device in turn; cuda:0 is skipped with the reason where there is no GPU."""
    return Device(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same random numbers, whichever ran before it."""
    minidl.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy's generator, for test data."""
    return np.random.default_rng(1234)


@pytest.fixture
def torch() -> ModuleType:
    """PyTorch, as an oracle."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by Playwright. It asks the network for nothing of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[browser]'")
    chromium = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("there is no chromium-headless-shell and no chromium: install one with the system's packages")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync"]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


def pytest_collection_finish() -> None:
    """What the suite consists of stays to the end: no collection of garbage goes through it, for half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """What `-n auto` is: no worker for a few files, which are done before workers have started."""
    named = config.getoption("file_or_dir")
    return 0 if named and all(name.partition("::")[0].endswith(".py") for name in named) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what compares with PyTorch: everything in tests/oracle, and whatever asks for the torch fixture. And what a fixture
    puts on a GPU. Slow tests have half an hour."""
    for item in items:
        for mark, places in MARKED.items():
            if item.get_closest_marker(mark) and not any(item.path.is_relative_to(TESTS / each) for each in places):
                raise pytest.UsageError(f"{item.nodeid}: `make {mark}` looks for its tests in {', '.join(places)} alone")
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))
        values = getattr(getattr(item, "callspec", None), "params", {}).values()
        if any(isinstance(value, str) and value == "cuda:0" for value in values):
            item.add_marker("gpu")
        if "torch" in getattr(item, "fixturenames", ()) or TESTS / "oracle" in item.path.parents:
            item.add_marker("oracle")
