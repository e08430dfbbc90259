"""Every op through the table of replacements, on the stand-in for a GPU: what it launches, and that it equals NumPy's."""

import fake_cupy
import numpy as np
import pytest
from emulator import emulator
from test_device import OPS, run

from minidl import kernels
from minidl.kernels.cuda import launch

PRODUCTS_ALONE = {"matrix_product", "linear_forward", "linear_backward"}  # cuBLAS's, where there is no bias


@pytest.fixture
def launched(monkeypatch):
    """Of each of the table's functions for a GPU that was called: how many kernels it launched."""
    counts = {}

    def watched(name, function):
        def call(*args, **kwargs):
            before = len(fake_cupy.launches)
            result = function(*args, **kwargs)
            counts[name] = counts.get(name, 0) + len(fake_cupy.launches) - before
            return result

        return call

    for (kind, name), function in list(kernels.REPLACEMENTS.items()):
        if kind == "cuda":
            monkeypatch.setitem(kernels.REPLACEMENTS, (kind, name), watched(name, function))
    return counts


@pytest.mark.parametrize("case", OPS)
def test_an_op_with_its_kernels_equals_numpys(case, gpu, launched):
    """Sums in another order: some hundred float64 roundings of numbers below 100."""
    fake_cupy.launches.clear()
    for here, there in zip(run(case, "cuda:0"), run(case, "cpu:0"), strict=True):
        for a, b in zip(here, there, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            # "to" and "float" compute in float32
            rounding = np.finfo(np.float32 if case in ("to", "float", "double") else a.dtype).eps if a.dtype.kind == "f" else 0
            np.testing.assert_allclose(a, b, rtol=100 * rounding, atol=1e4 * rounding)
    if gpu.device.xp is fake_cupy:
        op = case.split()[0]
        own = {f"{op}_forward", f"{op}_backward"} & {name for kind, name in kernels.REPLACEMENTS if kind == "cuda"}
        assert own <= set(launched)
        assert {name for name, count in launched.items() if not count} <= PRODUCTS_ALONE


WITH_KERNELS = {name.rsplit("_", 1)[0] for kind, name in kernels.REPLACEMENTS if kind == "cuda" and name.endswith("_forward")}


@pytest.mark.parametrize("case", [case for case in OPS if case.split()[0] in WITH_KERNELS])
def test_kernels_whose_products_are_not_rounded_before_a_sum(case, gpu, monkeypatch):
    """As a GPU computes them: a fused multiply-add rounds once where the plain functions round twice."""
    if gpu.device.xp is not fake_cupy or emulator.missing_fused():
        pytest.skip(f"about the stand-in ({emulator.missing_fused()})")
    monkeypatch.setattr(fake_cupy, "fused", True)
    launch._module.cache_clear(), launch._function.cache_clear()
    try:
        results = run(case, "cuda:0"), run(case, "cpu:0")
    finally:
        launch._module.cache_clear(), launch._function.cache_clear()
    for here, there in zip(*results, strict=True):
        for a, b in zip(here, there, strict=True):
            eps = np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0
            np.testing.assert_allclose(a, b, rtol=100 * eps, atol=1e4 * eps)
