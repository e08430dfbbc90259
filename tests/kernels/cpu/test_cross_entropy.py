"""minidl.kernels.cpu.cross_entropy against the plain function."""

import numpy as np
import pytest

from minidl.kernels.cpu.cross_entropy import cross_entropy_forward
from minidl.ops import cross_entropy as plain


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (0, 4), (90, 1000)])
def test_losses_and_log_probabilities(shape, dtype, rng):
    x = (10 * rng.standard_normal(shape)).astype(dtype)
    t = rng.random(shape).astype(dtype)
    losses, logp = cross_entropy_forward(x[:, ::-1], t)
    expected, expected_logp = plain.cross_entropy_forward(x[:, ::-1], t)
    np.testing.assert_array_equal(logp, expected_logp)  # the same sums in the same order
    # a sum of C products of one sign, in another order: at most C roundings
    np.testing.assert_allclose(losses, expected, rtol=shape[1] * np.finfo(dtype).eps)
    assert losses.dtype == logp.dtype == dtype


def test_an_impossible_class_counts_only_where_it_is_the_target():
    x, t = np.array([[0.0, -np.inf, 0.0], [0.0, -np.inf, 0.0]]), np.array([[1.0, 0, 0], [0, 1.0, 0]])
    losses, _ = cross_entropy_forward(x, t)
    np.testing.assert_allclose(losses, [np.log(2), np.inf], rtol=1e-15)  # a rounding or two
