"""Sums in blocks: how they round. tests/kernels/test_replacements.py compares them with NumPy's on all kinds of arrays."""

import math

import numpy as np
import pytest

from minidl.kernels.cpu.sum_along import BLOCK, sum_along

LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "sliced": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape, axis", [((200_003, 2), 0), ((2, 200_003), 1), ((3, 50_001, 2), 1), ((60, 3, 70, 50), (0, 2))])
def test_roundings_are_few(shape, axis, layout):
    """0.1 has no end in binary, and all of these round in the same direction. Added one by one, 200,003 of them in float32 are
    off by a thousandth. A term goes through fewer than 2 * BLOCK additions on each level, and NumPy's pairwise ones, some
    log2(n), each of which is off by half a spacing of the total at most."""
    x = LAYOUTS[layout](np.full(shape, 0.1, np.float32))
    terms = x.size // np.sum(x, axis).size
    roundings = 2 * BLOCK * math.ceil(math.log(terms, BLOCK))
    exact = terms * float(np.float32(0.1))
    bound = roundings * np.finfo(np.float32).eps / 2
    assert bound < 1e-5 and np.abs(sum_along(x, axis) / exact - 1).max() < bound


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "bool"])
def test_ints_are_summed_exactly_in_the_dtype_that_numpy_takes(dtype):
    x = np.full((3000, 2), 200, np.int64).astype(dtype)
    y = sum_along(x, 0)
    assert y.dtype == x.sum(0).dtype and y.tolist() == [3000 * int(x[0, 0])] * 2


def test_an_axis_that_is_not_there():
    with pytest.raises(np.exceptions.AxisError):
        sum_along(np.zeros((3, 4), np.float32), 2)
