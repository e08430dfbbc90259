"""How ranks add up, on threads that stand for processes."""

import threading

import numpy as np
import pytest
from rank_threads import on_ranks

import minidl.distributed as dist
from minidl import Tensor, count_traffic
from minidl.distributed.group import share

RANKS = pytest.mark.parametrize("size", [1, 2, 3, 4])


@RANKS
@pytest.mark.parametrize("n", [0, 1, 3, 17])
def test_shares_are_in_order_and_differ_by_one_at_most(n, size):
    shares = [share(n, rank, size) for rank in range(size)]
    assert [a for a, _ in shares] == [0, *(b for _, b in shares[:-1])] and shares[-1][1] == n
    sizes = [b - a for a, b in shares]
    assert max(sizes) - min(sizes) <= 1


def in_order(arrays, op=np.add):
    total = arrays[0]
    for array in arrays[1:]:
        total = op(total, array)
    return total


@RANKS
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_a_sum_is_in_the_order_of_the_ranks_to_the_bit(size, dtype):
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(1001) * 10.0 ** rng.integers(-3, 3, 1001)).astype(dtype) for _ in range(size)]

    def run(group):
        own = arrays[group.rank].copy()
        assert group.all_reduce(own).wait()
        return own

    for result in on_ranks(size, run):
        np.testing.assert_array_equal(result, in_order(arrays))


def test_the_order_matters_in_that_test():
    """Other orders round otherwise, or the test above would not see them."""
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(1001) * 10.0 ** rng.integers(-3, 3, 1001)).astype("f4") for _ in range(3)]
    assert (in_order(arrays) != in_order(arrays[::-1])).any()


@pytest.mark.parametrize(
    "op, expected", [(dist.ReduceOp.PRODUCT, np.multiply), (dist.ReduceOp.MIN, np.minimum), (dist.ReduceOp.MAX, np.maximum)]
)
def test_other_ways_to_put_together(op, expected):
    def run(group):
        x = Tensor(np.arange(5.0) - 2 * group.rank)
        dist.all_reduce(x, op, group)
        return x.numpy()

    for result in on_ranks(3, run):
        np.testing.assert_array_equal(result, in_order([np.arange(5.0) - 2 * rank for rank in range(3)], expected))


def test_all_reduce_of_a_tensor_whose_memory_is_not_in_c_order():
    def run(group):
        x = Tensor(np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1) + group.rank)
        work = dist.all_reduce(x, group=group, async_op=True)
        work.wait()
        assert work.is_completed()
        return x.numpy()

    for result in on_ranks(2, run):
        np.testing.assert_array_equal(result, 2 * np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1) + 1)


def test_broadcast_and_gather():
    def run(group):
        x = Tensor([float(group.rank), 5.0])
        dist.broadcast(x, 2, group)
        places = [None] * 3
        dist.all_gather_object(places, {"rank": group.rank}, group)
        dist.barrier(group)
        return x.tolist(), places, dist.get_rank(group), dist.get_world_size(group)

    for rank, result in enumerate(on_ranks(3, run)):
        assert result == ([2.0, 5.0], [{"rank": 0}, {"rank": 1}, {"rank": 2}], rank, 3)


def test_a_graph_sees_that_all_reduce_changed_its_tensor():
    def run(group):
        x = Tensor([2.0], requires_grad=True)
        y = x * x
        dist.all_reduce(x.detach(), group=group)
        with pytest.raises(RuntimeError, match="all_reduce changed it in place"):
            y.backward()

    on_ranks(2, run)


def test_exchanges_run_in_the_order_in_which_they_were_begun():
    def run(group):
        arrays = [np.full(3, float(i + group.rank)) for i in range(20)]
        works = [group.all_reduce(array) for array in arrays]
        works[-1].wait()
        return [work.is_completed() for work in works], arrays

    for done, arrays in on_ranks(3, run):
        assert all(done)
        np.testing.assert_array_equal(arrays, [np.full(3, 3.0 * i + 3) for i in range(20)])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_rank_sends_twice_its_arrays_but_for_its_own_part(size):
    n = 12 * 1000
    with count_traffic() as traffic:
        on_ranks(size, lambda group: group.all_reduce(np.zeros(n, np.float32)).wait())
    assert traffic == {("host", "other ranks"): size * (2 * (size - 1) / size * 4 * n)}


def test_after_an_exchange_that_failed_all_later_ones_fail_likewise():
    def run(group):
        def fail(payload):
            raise dist.DistributedError("rank 1 on here did not come", [1])

        group._gather_bytes = fail
        for _ in range(2):
            with pytest.raises(dist.DistributedError, match="rank 1 on here did not come"):
                dist.barrier(group)
        with pytest.raises(dist.DistributedError, match="rank 1 on here did not come"):
            group.all_reduce(np.zeros(3)).wait()

    on_ranks(1, run)


def test_the_thread_ends_with_the_group():
    on_ranks(2, lambda group: dist.barrier(group))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("minidl-rank-")]


def test_errors():
    with pytest.raises(RuntimeError, match="there is no process group yet; call init_process_group first"):
        dist.get_rank()
    with pytest.raises(ValueError, match="backend must be 'mpi', 'nccl' or None, got 'smoke'"):
        dist.init_process_group("smoke")
    assert not dist.is_initialized()

    def run(group):
        with pytest.raises(ValueError, match=r"src must be a rank in \[0, 1\), got 1"):
            dist.broadcast(Tensor([1.0]), 1, group)
        with pytest.raises(ValueError, match="object_list must have 1 places, one a rank, got 2"):
            dist.all_gather_object([None, None], 1, group)

    on_ranks(1, run)


def test_local_ranks_count_on_their_host():
    from rank_threads import Meeting, ThreadGroup

    group = ThreadGroup(Meeting(1), 0, 1)
    group.close()
    group.hosts, group.size, group.rank = ["a", "b", "a", "b", "b"], 5, 3
    assert (group.local_rank, group.local_size, group.name(2)) == (1, 3, "rank 2 on a")
