"""Trace: the bytes of an op that is made for it, to which its memory is known; views; and nothing kept afterwards."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, memory, nn, parallel
from minidl.memory import owner
from minidl.study.step.trace import Trace, alone

SLACK = 6_000  # bytes of Python's own objects


class Greedy(Function):
    """Identity. Forward needs 400,000 bytes for a while and saves 80,000; backward needs 240,000 for a while."""

    name = "greedy"

    def forward(ctx, x):
        needed = np.ones(100_000, np.float32)
        ctx.save(np.full(20_000, needed[0], np.float32))
        return x * 1

    def backward(ctx, gy):
        needed = np.ones(60_000, np.float32)
        return (gy * needed[0],)


class PassedOn(Function):
    """Identity, whose gradient is a view of the one that arrives; backward needs 240,000 bytes for a while."""

    name = "passed_on"

    def forward(ctx, x):
        return x * 1

    def backward(ctx, gy):
        np.ones(60_000, np.float32)
        return (gy[:],)


@pytest.fixture
def x():
    return minidl.randn(10_000, dtype=np.float32).requires_grad_()


def traced(function, *inputs):
    """The records of function(inputs), and of its backward."""
    with alone() as meter, Trace(workspace=meter) as trace:
        y = function(*inputs)
        y.backward(np.ones(y.shape, y.dtype))
    return trace.records


def test_workspace_is_all_that_an_op_takes_beside_what_it_leaves(x):
    (record,) = traced(Greedy.apply, x)
    assert (record.output_bytes, record.saved_bytes) == (40_000, 80_000)
    assert 400_000 <= record.workspace_forward < 400_000 + SLACK
    assert 240_000 <= record.workspace_backward < 240_000 + SLACK


def test_a_gradient_that_is_passed_on_is_no_new_memory(x):
    (record,) = traced(PassedOn.apply, x)
    assert 240_000 <= record.workspace_backward < 240_000 + SLACK


def test_workspace_is_the_same_whatever_ran_before_and_with_any_threads():
    """Scratch memory is kept between ops and between steps, which would hide it."""
    x, w = minidl.randn(4, 8, 30, 30), minidl.randn(16, 8, 3, 3, requires_grad=True)
    before = minidl.get_num_threads()
    found = []
    for threads in (1, 1, 2):
        minidl.set_num_threads(threads)
        try:
            records = traced(lambda: F.conv2d(x, w) + F.conv2d(x, w))
            assert minidl.get_num_threads() == threads
        finally:
            minidl.set_num_threads(before)
        found += [(r.workspace_forward, r.workspace_backward) for r in records if r.op == "conv2d"]
    assert min(min(pair) for pair in found[2:]) > 100_000
    np.testing.assert_allclose(found[3:], [found[2]] * 3, atol=SLACK)


def test_large_memory_that_was_used_before_counts():
    """Blocks of large results are kept for the next ones; here they are workspace."""

    class Large(Function):
        name = "large"

        def forward(ctx, x):
            memory.empty((500_000,), np.float32)
            return x * 1

    for _ in range(2):
        with alone() as meter, Trace(workspace=meter) as trace:
            Large.apply(minidl.ones(3))
        assert trace.records[0].workspace_forward >= 2_000_000


def test_workspace_counts_from_the_op_s_own_beginning(x):
    """A large array before and a peak before are not the op's."""
    kept = []

    def step():
        kept.append(np.ones(1_000_000))
        np.ones(2_000_000)
        return PassedOn.apply(x)

    (record,) = traced(step)
    assert record.workspace_forward < SLACK


def test_views_are_no_new_memory(x):
    rows = traced(lambda: x.reshape(100, 100).permute(1, 0).reshape(10_000) * 2.0)
    assert [r.op for r in rows] == ["reshape", "permute", "reshape", "mul"]
    assert [r.output_bytes for r in rows] == [0, 0, 40_000, 40_000]


def test_products_are_counted():
    x, y = minidl.randn(3, 4, requires_grad=True), minidl.randn(4, 5)
    (record,) = traced(lambda: x @ y)
    assert (record.macs_forward, record.macs_backward) == (60, 60)  # y needs no gradient
    (record,) = traced(lambda: F.linear(x, minidl.randn(7, 4, requires_grad=True)))
    assert (record.macs_forward, record.macs_backward) == (84, 168)


def test_what_an_op_is_and_where():
    model = nn.Sequential(nn.Linear(4, 3))
    with Trace() as trace:
        (model(minidl.randn(2, 4)) * 2.0).sum()
    linear, mul, _ = trace.records
    assert (linear.number, linear.op, linear.layer, linear.is_layer, linear.output) == (0, "linear", "0", True, (2, 3))
    assert linear.inputs == [("x", (2, 4)), ("0.weight", (3, 4)), ("0.bias", (3,))]
    assert sorted(linear.parameters.values()) == [3, 12] and linear.needs_gradient
    assert (mul.number, mul.layer, mul.is_layer, mul.parameters) == (1, None, False, {})


def test_copies_to_other_devices():
    x = minidl.randn(3, 4, requires_grad=True)
    (there,) = traced(lambda: x.to("cpu:1"))
    assert there.crossing_forward == {("cpu:0", "cpu:1"): 48} and there.crossing_backward == {("cpu:1", "cpu:0"): 48}
    assert there.device == "cpu:1" and there.output_bytes == 48


def test_nothing_is_kept_after_the_block():
    x = Tensor(np.ones(10, np.float32))
    with Trace() as trace:
        y = F.relu(x)
    gone = weakref.ref(owner(y.data))
    del y
    gc.collect()
    assert gone() is None and len(trace.records) == 1


def test_backward_of_what_was_not_traced():
    x = minidl.ones(3).requires_grad_()
    y = x * 2.0
    with Trace() as trace:
        y.sum().backward()
    assert [r.op for r in trace.records] == ["sum"]


def test_alone_puts_back_what_it_changed():
    threads = minidl.get_num_threads()
    with alone():
        assert tracemalloc.is_tracing() and parallel.get_num_threads() == 1
        with alone():
            pass
        assert tracemalloc.is_tracing()
    assert not tracemalloc.is_tracing() and minidl.get_num_threads() == threads
