"""Every op through the table of replacements, on the stand-in for a GPU: what it launches, and that it equals NumPy's."""

import fake_cupy
import numpy as np
import pytest
from test_device import OPS, run

# what backward or forward of an op must have launched; other ops have no kernel of their own
LAUNCHED = {
    "conv2d": ["mdl_im2col", "mdl_col2im", "mdl_add_bias", "mdl_column_sums"],
    "conv2d_relu": ["mdl_im2col", "mdl_col2im", "mdl_bias_relu", "mdl_masked_column_sums"],
    "max_pool2d": ["mdl_max_pool2d_forward_uint8", "mdl_max_pool2d_backward_uint8"],
    "local_response_norm": ["mdl_local_response_norm_forward", "mdl_local_response_norm_backward"],
    "relu": ["mdl_relu_forward", "mdl_relu_backward"],
    "dropout": ["mdl_dropout_forward", "mdl_dropout_backward"],
    "linear": ["mdl_add_bias", "mdl_column_sums"],
    "cross_entropy": ["mdl_cross_entropy_forward", "mdl_cross_entropy_backward"],
}


@pytest.mark.parametrize("case", OPS)
def test_an_op_with_its_kernels_equals_numpys(case, gpu):
    """Sums in another order: some hundred float64 roundings of numbers below 100."""
    fake_cupy.launches.clear()
    for here, there in zip(run(case, "cuda:0"), run(case, "cpu:0"), strict=True):
        for a, b in zip(here, there, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            # "to" and "float" compute in float32
            rounding = np.finfo(np.float32 if case in ("to", "float", "double") else a.dtype).eps if a.dtype.kind == "f" else 0
            np.testing.assert_allclose(a, b, rtol=100 * rounding, atol=1e4 * rounding)
    if gpu.device.xp is fake_cupy:
        assert set(LAUNCHED.get(case, [])) <= set(fake_cupy.launches)
