"""Marks that tests of several folders use."""

import pytest

# CuPy's own elementwise functions give their results in C order, so on a GPU only ops with kernels keep channels-last memory
on_host = pytest.mark.parametrize("device", ["cpu:0", "cpu:1"], indirect=True)
