"""minidl.kernels.cuda.finite, and its plain function on the same arrays."""

import fake_cupy
import numpy as np
import pytest

from minidl.kernels import fastest, plain_kernels
from minidl.kernels.cuda import finite as kernels
from minidl.optim.finite import note_not_finite

SIZES = [0, 1, 255, 256, 257, 1023, 1024, 1025, 5003]  # a block has 256 threads, each with 4 elements
PLACES = [0, 255, 256, 1024, 5002]


def found_in(gpu, function, *arrays):
    found = gpu.put(np.zeros(1, np.int32))
    for array in arrays:
        function(array, found)
    (number,) = gpu.get(found)
    return int(number)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("plain", [False, True])
def test_one_bad_number_is_noted_wherever_it_is(gpu, rng, dtype, plain):
    function = note_not_finite if plain else kernels.note_not_finite
    for size in SIZES:
        assert found_in(gpu, function, gpu.put(rng.standard_normal(size).astype(dtype))) == 0
    good = gpu.put(rng.standard_normal(5003).astype(dtype))
    for bad in (np.nan, np.inf, -np.inf):
        for place in PLACES:
            array = rng.standard_normal(5003).astype(dtype)
            array[place] = bad
            # and a note stays, whatever comes after
            assert found_in(gpu, function, good, gpu.put(array), good) == 1


@pytest.mark.parametrize("plain", [False, True])
def test_large_numbers_are_finite(gpu, plain):
    function = note_not_finite if plain else kernels.note_not_finite
    assert found_in(gpu, function, gpu.put(np.full(300, -3e38, np.float32))) == 0  # whose squares are not
    assert found_in(gpu, function, gpu.put(np.full(300, 1e-42, np.float32))) == 0  # so small that a kernel may take them for 0


def test_any_memory_order_and_a_number(gpu, rng):
    wide = rng.standard_normal((2, 5, 3, 4)).astype("f")
    wide[1, 4, 2, 3] = np.nan
    view = gpu.put(wide).transpose(0, 3, 1, 2)
    for array, expected in ((view, 1), (view[:, ::2], 0), (view[::-1, 1:], 1), (view[1, 3, 4, 2], 1), (view[0, 0, 0, 0], 0)):
        assert found_in(gpu, kernels.note_not_finite, array) == expected


def test_it_is_in_the_table_and_asks_the_gpu_for_nothing(gpu):
    array = gpu.put(np.ones(10, np.float32))
    assert fastest(note_not_finite, array) is kernels.note_not_finite
    with plain_kernels():
        assert fastest(note_not_finite, array) is note_not_finite
    if gpu.device.xp is fake_cupy:
        found = gpu.put(np.zeros(1, np.int32))
        fake_cupy.history.clear()
        kernels.note_not_finite(array, found)
        assert fake_cupy.history == [] and fake_cupy.launches[-1] == "mdl_note_not_finite"
