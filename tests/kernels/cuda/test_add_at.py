"""minidl.kernels.cuda.add_at against NumPy's add.at, and indices that repeat or are out of range through the ops."""

import fake_cupy
import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor
from minidl.kernels.cuda.add_at import add_at

SPREAD = 1e8  # between the values, so that another order of summation shows in float32


def values_of(rng, *shape):
    return (rng.standard_normal(shape) * SPREAD ** rng.random(shape)).astype("f")


CASES = {
    "rows": ((7, 5), lambda r: r.integers(0, 7, 300)),
    "rows counted from the end": ((7, 5), lambda r: r.integers(-7, 7, 300)),
    "rows by a table": ((7, 3, 4), lambda r: r.integers(0, 7, (20, 6))),
    "in a tuple": ((7, 5), lambda r: (r.integers(0, 7, 300),)),
    "one element again and again": ((3,), lambda r: np.ones(1000, int)),
    "numbers": ((11,), lambda r: r.integers(0, 11, 500)),
    "two axes": ((4, 5, 3), lambda r: (r.integers(0, 4, 200), r.integers(-5, 5, 200))),
    "the last axis": ((4, 5), lambda r: (slice(None), r.integers(0, 5, 60))),
    "a mask": ((6, 5), lambda r: r.random((6, 5)) > 0.5),
    "a mask of rows": ((6, 5), lambda r: (np.arange(6) % 2 == 0,)),
    "nothing": ((7, 5), lambda r: np.zeros(0, int)),
    "of nothing": ((7, 0), lambda r: r.integers(0, 7, 9)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("index_on_gpu", [True, False])
def test_the_sums_are_numpys_to_the_last_bit(gpu, rng, case, index_on_gpu):
    shape, make = CASES[case]
    index, x = make(rng), values_of(rng, *shape)
    values = values_of(rng, *x[index].shape)
    expected = x.copy()
    np.add.at(expected, index, values)

    def put(part):
        return gpu.put(part) if isinstance(part, np.ndarray) and (index_on_gpu or part.dtype == bool) else part

    there = tuple(map(put, index)) if isinstance(index, tuple) else put(index)
    for _ in range(2):
        target = gpu.put(x)
        add_at(target, there, gpu.put(values))
        np.testing.assert_array_equal(gpu.get(target), expected)


def test_a_view_and_values_that_are_broadcast(gpu, rng):
    wide, ids = values_of(rng, 6, 8, 4), rng.integers(0, 3, 50)
    expected, there = wide.copy(), gpu.put(wide)
    np.add.at(expected[1::2, :, 2], ids, np.float32(0.1))
    view = there[1::2, :, 2]
    add_at(view, gpu.put(ids), gpu.put(np.array(0.1, "f")))
    np.testing.assert_array_equal(gpu.get(there), expected)


def test_integers(gpu):
    x = gpu.put(np.zeros(3, np.int64))
    add_at(x, gpu.put(np.array([0, 2, 2])), gpu.put(np.array([1, 2, 3])))
    assert gpu.get(x).tolist() == [1, 0, 5]


TAKEN = {
    "getitem": lambda x, ids: x[ids],
    "gather": lambda x, ids: x.gather(0, ids[:, None]),
    "embedding": lambda x, ids: F.embedding(ids, x),
}


@pytest.mark.parametrize("name", TAKEN)
def test_gradients_of_repeated_indices_are_the_hosts_to_the_last_bit_in_every_run(gpu, rng, name):
    x, ids = values_of(rng, 7, 5), rng.integers(0, 7, 400)
    found = []
    for device in ("cpu:0", gpu.device, gpu.device):
        leaf, places = Tensor(x, True, device), Tensor(ids, device=device)
        y = TAKEN[name](leaf, places)
        y.backward(Tensor(values_of(np.random.default_rng(7), *y.shape), device=device))
        found.append(leaf.grad.numpy())
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("wrong", [7, -8, 1000])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_positions_out_of_range_are_refused_as_on_the_host(gpu, wrong, as_tensor):
    x = Tensor(np.arange(35.0).reshape(7, 5), device=gpu.device)
    for index, length in ((np.array([0, wrong]), 7), ([0, wrong], 7)):
        part = Tensor(np.asarray(index), device=gpu.device) if as_tensor else index
        with pytest.raises(IndexError, match=rf"getitem: positions must be in \[-{length}, {length - 1}\], got "):
            x[part]
        with pytest.raises(IndexError, match="positions must be in"):
            x[part] = 0
    with pytest.raises(IndexError, match=r"positions must be in \[-5, 4\], got 5 to 5"):
        x[1:, None, np.array([5])]
    np.testing.assert_array_equal(x[np.array([-7, 6])].numpy(), x.numpy()[[-7, 6]])
    assert x[np.zeros(0, int)].shape == (0, 5)


def test_the_stand_in_does_in_silence_what_cupy_does(gpu):
    if gpu.device.xp is not fake_cupy:
        pytest.skip("about the stand-in")
    x = gpu.put(np.arange(6.0).reshape(2, 3))
    assert gpu.get(x[np.array([2, -3])])[:, 0].tolist() == [0, 3]
    assert gpu.get(x[:, None, gpu.put(np.array([4]))]).reshape(-1).tolist() == [1, 4]
    x[gpu.put(np.array([1, 1])), np.array([0, 3])] = gpu.put(np.array([7.0, 8.0]))
    assert gpu.get(x)[1, 0] == 7  # NumPy keeps the last
    sums = set()
    for _ in range(20):
        y = gpu.put(np.zeros(1, "f"))
        fake_cupy.add.at(y, gpu.put(np.zeros(9, int)), gpu.put(np.float32(10) ** np.arange(9)))
        sums.add(gpu.get(y).item())
    assert len(sums) > 1
    small = gpu.put(np.array([1e-39, -1e-39, 2e-38], "f"))
    assert gpu.get(small * 1.0).tolist() == [0, 0, np.float32(2e-38)] and not gpu.get(fake_cupy.sqrt(abs(small)))[:2].any()
    assert gpu.get(fake_cupy.empty(3, "f") + 0).size == 3
