"""Every op through the table of replacements, on the stand-in for a GPU: what it launches, and that it equals NumPy's."""

import fake_cupy
import numpy as np
import pytest
from test_device import OPS, run

from minidl import kernels

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
