"""Memory that is used again: never while anybody can still see it, and not for ever."""

import gc
import threading

import numpy as np
import pytest

from minidl import memory
from minidl.parallel import scratch
from minidl.tensor import Function, Tensor

LARGE = (512, 1024)  # 2 MB of float32


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    memory.release()
    yield
    memory.release()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), LARGE, [2, 512, 1024]])
@pytest.mark.parametrize("dtype", [np.float32, "float64", np.uint8, bool])
def test_an_array_is_as_asked_for(shape, dtype):
    array = memory.empty(shape, dtype)
    assert array.shape == tuple(shape) and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


@pytest.mark.parametrize("make", [memory.empty, lambda shape, dtype: scratch("test", shape, dtype)])
def test_large_arrays_and_scratch_begin_with_a_cache_line(make):
    """Several are held at once, so that the C library cannot happen to give the one fitting place each time."""
    held = [make((512 + i, 1024), np.float32) for i in range(5)]
    assert [address(array) % 64 for array in held] == [0] * 5


def test_memory_is_used_again_when_the_array_is_gone():
    first = memory.empty(LARGE, np.float32)
    place = address(first)
    second = memory.empty(LARGE, np.float32)
    assert address(second) != place
    del first
    assert address(memory.empty(LARGE, np.float32)) == place


@pytest.mark.parametrize("view", [lambda a: a[3:].T, lambda a: a.reshape(-1)[1:], lambda a: a.view(np.uint8), lambda a: a.data])
def test_a_view_keeps_the_memory(view):
    array = memory.empty(LARGE, np.float32)
    place, kept = address(array), view(array)
    del array
    others = [memory.empty(LARGE, np.float32) for _ in range(3)]
    assert place not in [address(other) for other in others]
    del kept
    assert address(memory.empty(LARGE, np.float32)) == place


def test_a_little_smaller_array_takes_the_same_memory_a_much_smaller_one_does_not():
    place = address(memory.empty((1000, 1024), np.float32))
    assert address(memory.empty((990, 1024), np.float32)) == place
    assert address(memory.empty((500, 1024), np.float32)) != place
    assert address(memory.empty((1001, 2048), np.float32)) != place


def idle_bytes():
    return sum(size * len(blocks) for size, blocks in memory.Lease.idle.items())


def test_release_gives_back_what_is_idle_and_nothing_else():
    kept = memory.empty(LARGE, np.float32)
    kept[...] = 7
    memory.empty(LARGE, np.float64)
    assert idle_bytes() >= 4 << 20
    memory.release()
    assert idle_bytes() == 0 and (kept == 7).all()


@pytest.mark.parametrize("before", range(3))
def test_a_block_that_nobody_asks_for_goes_back(before):
    """However many were asked for before."""
    memory.release()
    kept = [memory.empty(LARGE, np.float32) for _ in range(before)]  # an odd number of blocks in use, too
    memory.empty((4096, 1024), np.float32)  # 16 MB, once
    for _ in range(2500):
        memory.empty(LARGE, np.float32)
    assert idle_bytes() == 2 << 20 and len(kept) == before


def test_threads_never_share_memory():
    meeting, wrong = threading.Barrier(4), []

    def work(number):
        meeting.wait(60)
        for _ in range(200):
            array = memory.empty(LARGE, np.uint32)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_engine_keeps_a_gradient_in_such_memory_instead_of_copying_it():
    made = []

    class Double(Function):
        name = "double"

        def forward(ctx, x):
            return x * 2

        def backward(ctx, gy):
            gx = memory.empty(gy.shape, gy.dtype)
            np.multiply(gy, 2, out=gx)
            made.append(address(gx))
            return (gx,)

    x = Tensor(np.ones(LARGE, np.float32), requires_grad=True)
    Double.apply(x).backward(np.ones(LARGE, np.float32))
    assert address(x.grad.data) == made[0] and (x.grad == 2).all()


def test_the_owner_of_a_view_is_what_it_is_a_view_of():
    own, leased, buffer = np.zeros((4, 5)), memory.empty((1 << 20,), np.float32), np.frombuffer(bytes(8), np.uint8)
    for array in (own, leased, buffer):
        assert memory.owner(array) is array
        assert memory.owner(array[1:][::2]) is array
