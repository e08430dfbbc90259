"""The engine: Tensor, Function, backward, hooks, no_grad, and who owns which memory."""

import gc
import itertools
import sys
import threading
import weakref

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, is_grad_enabled, memory, no_grad, set_grad_enabled

engine = sys.modules["minidl.tensor"]  # minidl.tensor is the factory


class Twice(Function):
    """2x; its backward says when it ran."""

    name = "twice"
    ran: int = 0

    def forward(ctx, x):
        return 2 * x

    def backward(ctx, gy):
        Twice.ran += 1
        return (2 * gy,)


class Same(Function):
    """x itself, copied; its backward returns the array it was given."""

    name = "same"

    def forward(ctx, x):
        return x.copy()

    def backward(ctx, gy):
        return (gy,)


def leaf(*values, dtype=np.float64, device=None):
    return Tensor(np.array(values, dtype), requires_grad=True, device=device)


@pytest.fixture(autouse=True)
def reset():
    Twice.ran = 0
    yield
    set_grad_enabled(True)


# --------------------------------------------------------------------------------------------------- graphs of every form


def test_a_chain_of_20000_nodes_runs_and_goes_away_without_recursion():
    x = leaf(1.5)
    y = x
    for _ in range(20_000):
        y = Same.apply(y)
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y
    z = x
    for _ in range(20_000):
        z = Same.apply(z)
    first = weakref.ref(z._node)
    del z  # never ran backward: the whole chain is let go at once
    gc.collect()
    assert first() is None


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_tensor_used_several_times(times, device):
    x = leaf(1.0, -2.0, device=device)
    y = x * 1.0
    total = y
    for _ in range(times - 1):
        total = total + y
    (total * Tensor(np.array([3.0, 5.0]), device=device)).sum().backward()
    assert x.grad.tolist() == [3.0 * times, 5.0 * times]


def test_the_same_tensor_in_both_places():
    x = leaf(3.0, -2.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [6.0, -4.0]


def test_a_diamond_visits_each_node_once():
    x = leaf(1.0)
    a = Twice.apply(x)
    left, right = Twice.apply(a), Same.apply(a)
    (left * right).backward()  # 4x * 2x: slope 16x
    assert x.grad.tolist() == [16.0] and Twice.ran == 2


def test_many_diamonds_in_a_row_run_in_linear_time():
    x = leaf(1.0)
    y = x
    for _ in range(100):  # 2^100 paths
        y = (Twice.apply(y) + Twice.apply(y)) * 0.25
    y.backward()
    assert x.grad.tolist() == [1.0] and Twice.ran == 200


def test_branches_of_different_length_wait_for_each_other():
    x = leaf(1.0)
    a = Twice.apply(x)
    deep = a
    for _ in range(5):
        deep = Same.apply(deep)
    (a * 10.0 + deep + x).backward()
    assert x.grad.tolist() == [2 * 11.0 + 1.0] and Twice.ran == 1


def test_a_fan_out_of_2000_is_added_up_in_linear_work(monkeypatch):
    counts = {"nodes": 0, "adds": 0}

    def counted(name, function):
        def wrapper(*args):
            counts[name] += 1
            return function(*args)

        return wrapper

    monkeypatch.setattr(engine, "_run_node", counted("nodes", engine._run_node))
    monkeypatch.setattr(engine, "_add", counted("adds", engine._add))
    x = leaf(1.0)
    a = Same.apply(x)
    F.cat([Same.apply(a) for _ in range(2000)]).sum().backward()
    assert x.grad.tolist() == [2000.0]
    assert counts == {"nodes": 2003, "adds": 4002}  # sum, cat, 2000 copies, a; an edge into each, twice 2000 and x


def test_one_output_of_two_is_used():
    x = Tensor(np.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]]), requires_grad=True)
    values, index = x.max(1)
    assert index.data.tolist() == [1, 0] and not index.requires_grad
    values.sum().backward()
    assert x.grad.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_branch_that_gets_no_gradient():
    class First(Function):
        name = "first"

        def forward(ctx, x, y):
            return x.copy()

        def backward(ctx, gz):
            return gz, None

    x, y = leaf(1.0), leaf(2.0)
    inner = Twice.apply(y)
    First.apply(x, inner).backward()
    assert x.grad.tolist() == [1.0] and y.grad is None and Twice.ran == 0
    with pytest.raises(RuntimeError, match="freed"):
        inner.backward()  # its node was part of that graph


def test_only_what_requires_a_gradient_gets_one():
    x, c = leaf(1.0, 2.0), Tensor(np.array([3.0, 4.0]))
    y = x * c
    assert y._node.needs_grad == (True, False) and y._node.saved[0] is None
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0] and c.grad is None
    assert not (c * 2.0).requires_grad and (c * 2.0).is_leaf


def test_backward_of_a_leaf():
    x = leaf(1.0, 2.0)
    given = np.array([3.0, 4.0])
    x.backward(given)
    assert x.grad.tolist() == [3.0, 4.0] and not np.shares_memory(x.grad, given)


def test_two_roots_share_a_leaf_but_not_a_graph():
    x = leaf(1.0)
    (x * 2.0).backward()
    (x * 3.0).backward()
    assert x.grad.tolist() == [5.0]


# ------------------------------------------------------------------------------------------------------------- aliasing


def test_a_sum_does_not_leave_gradients_that_share_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    given = np.array([5.0, 6.0])
    y = a + b
    y.retain_grad()
    y.backward(given)
    for p, q in itertools.combinations([a.grad.data, b.grad.data, y.grad.data, given, a.data, b.data], 2):
        assert not np.shares_memory(p, q)
    a.grad += 100
    assert b.grad.tolist() == y.grad.tolist() == given.tolist() == [5.0, 6.0]


def test_a_reshaped_or_broadcast_gradient_is_no_view():
    a = Tensor(np.zeros((2, 3)), requires_grad=True)
    b = Tensor(np.zeros(3), requires_grad=True)
    a.reshape(6).sum().backward()
    b.reshape(1, 3).permute(1, 0).sum().backward()
    for grad in (a.grad.data, b.grad.data):
        assert grad.flags.writeable
        grad += 1
        assert (grad == 2).all()


class Gives(Function):
    """Its input's gradient is whatever `make` makes of the output's; it knows `known`."""

    name = "gives"

    def forward(ctx, x, make, known=None):
        ctx.make, ctx.known = make, known
        return x.copy()

    def backward(ctx, gy):
        return (ctx.make(gy),)


FRESH = {
    "an array": lambda gy: gy * 2,
    "a view of one": lambda gy: (gy * 2).T.T,
    "reshaped": lambda gy: (gy * 2).reshape(-1).reshape(gy.shape),
    "leased": lambda gy: memory.empty(gy.shape, gy.dtype),
    "a view of leased memory": lambda gy: memory.empty(gy.shape, gy.dtype).T.T,
}
NOT_FRESH = {
    "the incoming one": lambda gy: gy,
    "a view of it": lambda gy: gy.T.T,
    "repeated": lambda gy: np.broadcast_to(np.ones(gy.shape[1]), gy.shape),
    "a part": lambda gy: np.ones((2 * gy.shape[0], gy.shape[1]))[::2],
    "a buffer's": lambda gy: np.frombuffer(bytearray(gy.nbytes)).reshape(gy.shape),
}


@pytest.mark.parametrize("how", [*FRESH, *NOT_FRESH])
def test_a_leaf_keeps_a_gradient_that_nobody_else_has_and_copies_any_other(how):
    x, given = Tensor(np.zeros((512, 300)), requires_grad=True), []
    make = {**FRESH, **NOT_FRESH}[how]
    Gives.apply(x, make=lambda gy: given.append(make(gy)) or given[0]).backward(np.ones((512, 300)))
    assert np.shares_memory(x.grad.data, given[0]) == (how in FRESH)
    assert x.grad.data.flags.writeable and 0 not in x.grad.data.strides


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T.T, lambda a: a[:1]])
def test_what_a_node_keeps_is_not_given_away(view):
    kept = np.ones((4, 3))
    x = Tensor(np.zeros((4, 3)), requires_grad=True)
    Gives.apply(x, make=lambda gy: kept.T.T, known=view(kept)).backward(np.ones((4, 3)))
    assert not np.shares_memory(x.grad.data, kept)


def test_the_third_gradient_is_added_in_place_but_never_to_somebody_elses_array():
    x = leaf(1.0, 2.0)
    branches = [Same.apply(x) for _ in range(4)]
    for b in branches:
        b.retain_grad()
    given = np.array([1.0, 10.0])
    total = branches[0] + branches[1] + branches[2] + branches[3]
    total.backward(given)
    assert x.grad.tolist() == [4.0, 40.0] and given.tolist() == [1.0, 10.0]
    assert all(b.grad.tolist() == [1.0, 10.0] for b in branches)
    for p, q in itertools.combinations([x.grad.data, given, *(b.grad.data for b in branches)], 2):
        assert not np.shares_memory(p, q)


@pytest.mark.parametrize("held_first", [False, True])
@pytest.mark.parametrize("keep", ["saved", "attribute", "input"])
def test_a_gradient_that_the_op_still_holds_is_not_written_to(keep, held_first):
    class Held(Function):
        name = "held"

        def forward(ctx, x):
            array = np.array([7.0, 7.0]) if keep != "input" else x
            ctx.save(array) if keep == "saved" else setattr(ctx, "array", array)
            return x * 7

        def backward(ctx, gy):
            return (ctx.saved[0] if keep == "saved" else ctx.array,)

    x = leaf(7.0, 7.0)
    y = Held.apply(x)
    for _ in range(2):
        (y.sum() + x.sum() if held_first else x.sum() + y.sum()).backward(retain_graph=True)
    assert x.grad.tolist() == [16.0, 16.0] and x.data.tolist() == [7.0, 7.0]
    x.grad = None
    y.sum().backward(retain_graph=True)  # the only gradient: x may not keep it either
    x.grad += 100
    assert x.data.tolist() == [7.0, 7.0]
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_one_array_returned_for_two_inputs():
    class Both(Function):
        name = "both"

        def forward(ctx, x, y):
            return x + y

        def backward(ctx, gz):
            g = gz * 1
            return g, g

    a, b = leaf(1.0), leaf(2.0)
    Both.apply(a, b).backward()
    assert not np.shares_memory(a.grad.data, b.grad.data)
    a, c = leaf(1.0), leaf(2.0)
    (Both.apply(a, c) + a * 5.0 + a * 5.0).backward()
    assert (a.grad.tolist(), c.grad.tolist()) == ([11.0], [1.0])


def test_the_second_gradient_makes_an_array_and_the_third_uses_it():
    x = leaf(0.0)
    arrays = [np.array([v]) for v in (1.0, 10.0, 100.0)]
    grads, owned, seen = {}, set(), []
    for array in arrays:
        engine._add(grads, owned, x, array, own=False)
        seen.append(grads[x])
    assert seen[0] is arrays[0] and seen[1] is not arrays[1] and seen[2] is seen[1]
    assert seen[2].tolist() == [111.0] and [a.tolist() for a in arrays] == [[1.0], [10.0], [100.0]]


def test_a_gradient_has_its_leafs_memory_order():
    memory = np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    x = Tensor(memory, requires_grad=True)
    (x * np.ones(x.shape)).sum().backward()
    assert x.grad.data.strides == memory.strides
    x.grad = None
    (x * 2.0 + x * 3.0).sum().backward()
    assert x.grad.data.strides == memory.strides


# -------------------------------------------------------------------------------------------------- .grad, .data by hand


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (np.ones(2), TypeError, "a gradient must be a Tensor or None, got ndarray; Tensor(array) makes one"),
        (Tensor(np.ones(3)), RuntimeError, "a gradient must have its tensor's shape, (2,), got (3,)"),
        (Tensor([1.0, 1.0]), RuntimeError, "a gradient must have its tensor's dtype, float64, got float32"),
        (Tensor(np.ones(2), device="cpu:1"), RuntimeError, "a gradient must have its tensor's device, cpu:0, got cpu:1"),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(given, error, text):
    x = leaf(1.0, 2.0)
    with pytest.raises(error) as caught:
        x.grad = given
    assert str(caught.value) == f"grad: {text}" and x.grad is None


def test_a_tensor_is_not_its_own_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError) as error:
        x.grad = x
    assert str(error.value) == "grad: a tensor can't be its own gradient, got the one of shape (2,) itself"


def test_data_may_be_assigned_an_array_or_a_tensor_on_the_device(device):
    x = leaf(1.0, 2.0, device=device)
    x.sum().backward()
    x.data = x.data - 0.5 * x.grad
    assert not isinstance(x.data, Tensor) and x.tolist() == [0.5, 1.5] and x.is_leaf and x.requires_grad
    given = Tensor([3.0, 4.0], device=device)
    x.data = given.data
    assert x.data is given.data
    with pytest.raises(RuntimeError, match=rf"^data: x is on {device}, y on cpu:2; move one with"):
        x.data = Tensor(np.ones(2), device="cpu:2")


def test_to_host_takes_a_tensor(device):
    x = leaf(1.0, 2.0, device=device)
    (x * 3).sum().backward()
    copied = device.to_host(x.grad)
    copied += 1
    assert type(copied) is np.ndarray and copied.tolist() == [4.0, 4.0] and x.grad.tolist() == [3.0, 3.0]


# ---------------------------------------------------------------------------------------- accumulating, freeing, retaining


def test_gradients_of_two_backward_calls_add_up(device):
    x = leaf(1.0, 2.0, device=device)
    (x * 3.0).sum().backward()
    first = x.grad
    (x * 3.0).sum().backward()
    assert x.grad.tolist() == [6.0, 6.0] and x.grad is first


def test_a_second_backward_names_the_op_and_retain_graph():
    x = leaf(1.0)
    y = Twice.apply(x)
    y.backward()
    with pytest.raises(RuntimeError) as error:
        y.backward()
    assert str(error.value) == (
        "backward: the graph behind twice was freed by an earlier backward; call that one with retain_graph=True to run "
        "it twice"
    )
    assert x.grad.tolist() == [2.0]


def test_a_graph_that_is_freed_in_part_gives_no_gradients_at_all():
    x, w = leaf(1.0), leaf(1.0)
    shared = Twice.apply(x)
    shared.backward()
    with pytest.raises(RuntimeError, match="behind twice was freed"):
        (shared * w).backward()
    assert w.grad is None and x.grad.tolist() == [2.0]


def test_retain_graph_twice_doubles():
    x = leaf(3.0)
    y = (x * x).exp() * 0.0 + x * x
    y.backward(retain_graph=True)
    assert x.grad.tolist() == [6.0]
    y.backward()
    assert x.grad.tolist() == [12.0]
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_saved_arrays_are_dropped_after_backward():
    x = leaf(*range(10))
    y = x.exp()
    saved = weakref.ref(y._node.saved[0])
    z = y.sum()
    del y
    assert saved() is not None
    z.backward(retain_graph=True)
    assert saved() is not None
    z.backward()
    assert saved() is None and z._node.saved == () and z._node._edges == ()


def test_arrays_that_no_op_saved_are_freed_during_forward():
    x = leaf(*range(10))
    a = x + 1.0
    inner = weakref.ref(a.data)
    b = a + 1.0
    del a
    assert inner() is None and b.requires_grad


def test_gradients_are_freed_during_backward():
    alive = weakref.WeakSet()
    most = 0

    class Watched(Function):
        name = "watched"

        def forward(ctx, x):
            return x + 0

        def backward(ctx, gy):
            nonlocal most
            gx = np.asarray(gy * 1.0).view(Weak)
            alive.add(gx)
            most = max(most, len(alive))
            return (gx,)

    class Weak(np.ndarray):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    y = leaf(*range(10))
    for _ in range(50):
        y = Watched.apply(y)
    y.sum().backward()
    assert most <= 3  # the one that came in, the one being made, the one on its way


def test_no_reference_cycles():
    """Whatever is dropped goes at once, without the garbage collector: it may be a gigabyte."""
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (x * x).exp()
        y.retain_grad()
        y.register_hook(lambda g: g)
        z = y.sum()
        z.backward()
        refs = [weakref.ref(o) for o in (x, y, z, y._node, z._node)]
        del x, y, z
        assert [r() for r in refs] == [None] * 5
    finally:
        gc.enable()


def test_retain_grad_keeps_an_inner_gradient_and_adds_up():
    x = leaf(1.0, 2.0)
    y, other = x * 2.0, x * 1.0
    y.retain_grad()
    z = (y * y + other).sum()
    z.backward(retain_graph=True)
    assert y.grad.tolist() == [4.0, 8.0] and other.grad is None and z.grad is None
    z.backward()
    assert y.grad.tolist() == [8.0, 16.0]


def test_retain_grad_on_the_root_and_on_a_leaf():
    x = leaf(1.0)
    x.retain_grad()
    y = x * 2.0
    y.retain_grad()
    y.backward(np.array([3.0]))
    assert (x.grad.tolist(), y.grad.tolist()) == ([6.0], [3.0])


def test_retain_grad_does_not_keep_the_tensor_alive():
    x = leaf(1.0)
    y = x * 2.0
    y.retain_grad()
    ref, z = weakref.ref(y), y * 3.0
    del y
    assert ref() is None
    z.backward()
    assert x.grad.tolist() == [6.0]


def test_retain_grad_without_a_gradient():
    with pytest.raises(RuntimeError) as error:
        Tensor([1.0]).retain_grad()
    assert str(error.value) == "retain_grad: the tensor does not require a gradient"


# ---------------------------------------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("inner", [False, True])
def test_a_hook_sees_the_total_gradient_once(inner, device):
    x = leaf(1.0, 2.0, device=device)
    y = x * 1.0 if inner else x
    seen = []
    y.register_hook(lambda g: seen.append(g))
    (y + y * 2.0 + y * 3.0).sum().backward()
    assert len(seen) == 1
    assert isinstance(seen[0], Tensor) and seen[0].device is device and seen[0].numpy().tolist() == [6.0, 6.0]
    assert x.grad.tolist() == [6.0, 6.0]


@pytest.mark.parametrize("inner", [False, True])
def test_hooks_run_in_order_and_replace_the_gradient(inner):
    x = leaf(1.0)
    y = x * 1.0 if inner else x
    seen = []
    y.register_hook(lambda g: g + 1.0)
    y.register_hook(lambda g: seen.append(g.item()))
    y.register_hook(lambda g: g * 10.0)
    (y * 2.0).backward()
    assert seen == [3.0] and x.grad.tolist() == [30.0]


@pytest.mark.parametrize("inner", [False, True])
def test_a_removed_hook_does_not_run(inner):
    x = leaf(1.0)
    y = x * 1.0 if inner else x
    handles = [y.register_hook(lambda g, k=k: g + k) for k in (1.0, 10.0, 100.0)]
    handles[1].remove()
    handles[1].remove()
    (y * 1.0).backward()
    assert x.grad.tolist() == [102.0]


def test_a_hook_may_remove_itself_while_it_runs():
    x = leaf(1.0)
    handle = x.register_hook(lambda g: handle.remove())
    x.register_hook(lambda g: g * 5.0)
    for _ in range(2):
        (x * 1.0).backward()
    assert x.grad.tolist() == [10.0]


@pytest.mark.parametrize("inner", [False, True])
def test_a_hook_of_another_shape_or_device(inner):
    x = leaf(1.0, 2.0)
    y = x * 1.0 if inner else x
    handle = y.register_hook(lambda g: g.sum())
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    assert str(error.value) == "register_hook: the hook must return the shape (2,), got ()"
    handle.remove()
    x = leaf(1.0, 2.0)
    y = x * 1.0 if inner else x
    y.register_hook(lambda g: g.to("cpu:1"))
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    assert str(error.value) == "register_hook: the hook must return a tensor on cpu:0, got one on cpu:1"


def test_a_gradient_kept_by_a_hook_does_not_change_later():
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g))
    for _ in range(2):
        (x + x + x).backward()
    assert [g.item() for g in seen] == [3.0, 3.0] and x.grad.tolist() == [6.0]


def test_a_hook_and_a_retained_gradient_agree():
    x = leaf(1.0)
    y = x * 1.0
    y.register_hook(lambda g: g * 10.0)
    y.retain_grad()
    y.backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([10.0], [10.0])


def test_a_hook_without_a_gradient():
    with pytest.raises(RuntimeError) as error:
        Tensor([1.0]).register_hook(print)
    assert str(error.value) == "register_hook: the tensor does not require a gradient"


# -------------------------------------------------------------------------------------------------------------- no_grad


def test_no_grad_records_and_saves_nothing():
    x = leaf(1.0)
    with no_grad():
        y = x.exp()
    assert not y.requires_grad and y.is_leaf and y._node is None
    assert (x * 2.0).requires_grad


def test_no_grad_as_a_decorator_also_of_a_recursive_function():
    @no_grad()
    def countdown(n):
        return [is_grad_enabled(), *(countdown(n - 1) if n else [])]

    assert countdown(3) == [False] * 4
    assert is_grad_enabled()


def test_no_grad_nests_also_one_object_in_itself():
    outer = no_grad()
    with outer:
        with no_grad(), outer:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_no_grad_ends_with_an_error():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_no_grad_is_of_one_thread_only():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_decorated_function_runs_in_two_threads_at_once():
    inside, leave, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    @no_grad()
    def step(begun, end):
        begun.set()
        end.wait(10)

    def other():
        step(inside, leave)
        seen.append(is_grad_enabled())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with no_grad():
        step(leave, done)  # begun while the other thread is inside, ended after it
    thread.join()
    assert seen == [True] and is_grad_enabled()


# -------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize(
    "op, text",
    [
        (lambda x, y: x + y, "add: x is on cpu:0, y on cpu:1; move one with .to(device)"),
        (lambda x, y: y @ x, "matmul: x is on cpu:1, y on cpu:0; move one with .to(device)"),
        (lambda x, y: F.linear(x, y), "linear: x is on cpu:0, y on cpu:1; move one with .to(device)"),
    ],
)
def test_mixed_devices_are_refused(op, text):
    x, y = Tensor(np.eye(2)), Tensor(np.eye(2), device="cpu:1")
    with pytest.raises(RuntimeError) as error:
        op(x, y)
    assert str(error.value) == text


def test_an_array_or_number_goes_to_the_tensors_device():
    x = Tensor(np.ones(2), device="cpu:1")
    assert all(y.device is x.device for y in (x + np.ones(2), np.ones(2) * x, 2.0 - x, x / np.float64(2)))


def test_gradients_stay_on_their_leafs_device():
    x, y = leaf(1.0, device="cpu:1"), leaf(2.0)
    (x.to("cpu:0") * y).backward()
    assert x.grad.tolist() == [2.0] and y.grad.tolist() == [1.0] and x.device is minidl.Device("cpu:1")


def test_a_gradient_from_another_device():
    with pytest.raises(RuntimeError) as error:
        (leaf(1.0) * 2.0).backward(Tensor(np.ones(1), device="cpu:1"))
    assert str(error.value) == "backward: the tensor is on cpu:0, gradient on cpu:1; move one with .to(device)"


# ------------------------------------------------------------------------------------------------------------ Functions


def misbehaving(returned):
    class Wrong(Function):
        name = "wrong"

        def forward(ctx, x, y):
            return x + y

        def backward(ctx, gz):
            return returned

    return Wrong.apply(leaf(1.0, 2.0), leaf(3.0, 4.0)).sum()


@pytest.mark.parametrize(
    "returned, text",
    [
        ((np.zeros(2),), "wrong: backward must return 2 gradients, got 1"),
        ((np.zeros(2),) * 3, "wrong: backward must return 2 gradients, got 3"),
        ((np.zeros(2), np.zeros(3)), "wrong: gradient 1 must have its input's shape (2,), got (3,)"),
        ((np.zeros((1, 2)), np.zeros(2)), "wrong: gradient 0 must have its input's shape (2,), got (1, 2)"),
    ],
)
def test_wrong_gradients_of_a_function(returned, text):
    with pytest.raises(RuntimeError) as error:
        misbehaving(returned).backward()
    assert str(error.value) == text


def test_a_function_without_forward_or_backward():
    class Nothing(Function):
        name = "nothing"

    class Half(Function):
        name = "half"

        def forward(ctx, x):
            return x / 2

    with pytest.raises(NotImplementedError, match=r"^Nothing: forward is missing$"):
        Nothing.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match=r"^Half: backward is missing$"):
        Half.apply(leaf(1.0)).backward()


def test_a_function_of_no_tensor():
    with pytest.raises(TypeError) as error:
        F.relu(np.ones(3))
    assert str(error.value) == "relu: at least 1 input must be a Tensor, got ndarray"


def test_constants_among_the_inputs_get_no_gradient():
    class Scale(Function):
        name = "scale"

        def forward(ctx, x, factor, *, shift):
            ctx.factor = factor
            return x * factor + shift

        def backward(ctx, gy):
            assert ctx.needs_grad == (True, False)
            return gy * ctx.factor, np.zeros(99)  # what is not asked for is not looked at

    x = leaf(1.0)
    y = Scale.apply(x, 3.0, shift=1.0)
    y.backward()
    assert y.detach().numpy().tolist() == [4.0] and x.grad.tolist() == [3.0]


def test_the_gradients_dtype_follows_its_input(device):
    x = leaf(1.0, 2.0, dtype=np.float32, device=device)
    y = x.to("float64") * Tensor(np.array([3.0, 4.0]), device=device)
    assert y.dtype == np.float64
    inner = x * 2.0
    seen = []
    inner.register_hook(lambda g: seen.append(g.dtype))
    inner.to("float64").sum().backward()
    assert seen == [np.float32]
    x.grad = None
    y.sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3.0, 4.0]
    a, b = leaf(1.0, dtype=np.float32), leaf(2.0)
    (a * b).backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_numbers_that_numpy_returns_become_0d_arrays():
    x = leaf(1.0, 2.0)
    for y in (x.sum(), x[0], x.mean(), x.max(), x @ x, Tensor(np.float32(2.5)), Tensor(2.5)):
        assert isinstance(y.data, np.ndarray) and y.shape == () and y.numel() == 1
    x.sum().backward()
    assert isinstance(x.grad.data, np.ndarray)
    s = Tensor(np.float64(3.0), requires_grad=True)
    (s * s + s).backward()
    assert isinstance(s.grad.data, np.ndarray) and s.grad.shape == () and s.grad == 7.0
    s.grad += 1
    (s * 1.0).backward()
    assert s.grad == 9.0


# ------------------------------------------------------------------------------------------------------------- backward


def test_gradient_may_be_an_array_a_tensor_a_list_or_of_another_dtype():
    for given in (np.array([1.0, 2.0]), Tensor(np.array([1.0, 2.0])), [1.0, 2.0], np.array([1, 2], np.float32)):
        x = leaf(0.0, 0.0)
        (x * 3.0).backward(given)
        assert x.grad.tolist() == [3.0, 6.0] and x.grad.dtype == np.float64


@pytest.mark.parametrize("given", [np.ones(3), np.ones((1, 2)), np.float64(1.0)])
def test_a_gradient_of_another_shape(given):
    x = leaf(0.0, 0.0)
    with pytest.raises(RuntimeError) as error:
        (x * 3.0).backward(given)
    assert str(error.value) == f"backward: gradient must have the shape (2,), got {np.shape(given)}"
    assert x.grad is None


def test_no_implied_gradient_for_several_elements():
    with pytest.raises(RuntimeError) as error:
        (leaf(1.0, 2.0) * 2.0).backward()
    assert str(error.value) == (
        "backward: only a tensor of one element has an implied gradient, got shape (2,); pass gradient="
    )
    x = Tensor(np.ones((1, 1)), requires_grad=True)
    (x * 2.0).backward()  # one element in any shape will do
    assert x.grad.tolist() == [[2.0]]


@pytest.mark.parametrize("make", [lambda: Tensor([1.0]), lambda: leaf(1.0).detach() * 2.0])
def test_backward_without_a_graph(make):
    with pytest.raises(RuntimeError) as error:
        make().backward()
    assert str(error.value) == "backward: the tensor does not require a gradient and has no graph"


def test_an_empty_batch():
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    (x * 2.0).sum().backward()
    assert x.grad.shape == (0, 3)


def test_detach_cuts_the_graph_and_shares_the_memory():
    x = leaf(2.0)
    y = x * 3.0
    cut = y.detach()
    assert cut.is_leaf and not cut.requires_grad and np.shares_memory(cut.data, y.data)
    (cut * x).backward()
    assert x.grad.tolist() == [6.0]  # as if y were a constant


# ------------------------------------------------------------------------------------------------- making and looking at


def test_dtypes_of_what_a_tensor_is_made_from():
    lists = [2.5, [1, 2], (1.0, 2.0), [[True]], range(3), [np.float64(1)]]
    assert [str(Tensor(m).dtype) for m in lists] == ["float32"] * len(lists)  # PyTorch's Tensor, too, makes floats of them
    arrays = [np.float64(1), np.zeros(2, np.int8), np.zeros(2, np.float64), np.zeros(2, np.bool_)]
    assert [Tensor(m).dtype for m in arrays] == [m.dtype for m in arrays]
    assert Tensor([1, 2], dtype="float64").dtype == np.float64
    assert Tensor([1, 2], dtype="int64").dtype == np.int64


@pytest.mark.parametrize("size", [3, True])
def test_a_number_alone_would_be_a_size_in_pytorch(size):
    with pytest.raises(TypeError, match=rf"Tensor: PyTorch takes {size} for a size; minidl.tensor\({size}\) is a number"):
        Tensor(size)


def test_an_array_is_not_copied_and_a_tensor_keeps_its_device():
    a = np.zeros(3)
    assert Tensor(a).data is a
    assert Tensor(Tensor(a, device="cpu:1")).device is minidl.Device("cpu:1")


@pytest.mark.parametrize("data", ["text", [None], [{}], [1j]])
def test_what_is_not_a_number(data):
    with pytest.raises(TypeError, match=r"^Tensor: the dtype must be of real numbers, got "):
        Tensor(data)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_cannot_require_a_gradient(dtype):
    with pytest.raises(RuntimeError) as error:
        Tensor(np.zeros(2, dtype), requires_grad=True)
    assert str(error.value) == f"Tensor: only floats can require a gradient, got {np.dtype(dtype)}"
    with pytest.raises(RuntimeError) as error:
        Tensor(np.zeros(2, dtype)).requires_grad_()
    assert str(error.value) == f"requires_grad_: only floats can require a gradient, got {np.dtype(dtype)}"


def test_requires_grad_can_be_switched_on_leaves_only():
    x = Tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad
    y = x * 2.0
    with pytest.raises(RuntimeError) as error:
        y.requires_grad_(False)
    assert str(error.value) == "requires_grad_: only a leaf can be switched, this tensor was made by mul"
    assert not x.requires_grad_(False).requires_grad


def test_sizes():
    x = Tensor(np.zeros((2, 3)))
    assert (x.shape, x.size(), x.size(1), x.size(-1), x.ndim, x.numel(), len(x)) == ((2, 3), (2, 3), 3, 3, 2, 6, 2)
    assert [row.shape for row in x] == [(3,), (3,)]
    for use in (len, list):
        with pytest.raises(TypeError, match=r"^Tensor: len\(\) of a 0-d tensor$"):
            use(Tensor(1.0))


def test_numpy_is_a_copy_in_the_same_memory_order():
    memory = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    x = Tensor(memory)
    copy = x.numpy()
    assert np.array_equal(copy, memory) and copy.strides == memory.strides and not np.shares_memory(copy, memory)


def test_numpy_of_a_tensor_with_a_gradient():
    for use in (lambda x: x.numpy(), np.asarray):
        with pytest.raises(RuntimeError) as error:
            use(leaf(1.0))
        assert str(error.value) == (
            "numpy: the tensor requires a gradient, which a NumPy array can't carry; use .detach().numpy()"
        )


def test_as_a_numpy_array():
    x = Tensor([1.5, 2.5], device="cpu:1")
    assert np.asarray(x).tolist() == [1.5, 2.5] and np.array(x, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.asarray(x), x.data)
    with pytest.raises(ValueError) as error:
        np.array(x, copy=False)
    assert str(error.value) == "Tensor: a NumPy array of a tensor is always a copy, got copy=False"


def test_a_numpy_number_on_the_left_asks_the_tensor():
    y = np.float64(3) + leaf(1.0, 2.0)
    assert isinstance(y, Tensor) and y.requires_grad and y.tolist() == [4.0, 5.0]


def test_numpys_functions_compute_on_the_values():
    x = Tensor([4.0, 9.0], device="cpu:1")
    for y, values in ((np.sqrt(x), [2, 3]), (np.maximum(5, x), [5, 9]), (np.add(x, 1), [5, 10]), (np.add.reduce(x), 13)):
        assert isinstance(y, Tensor) and y.device is x.device and y.tolist() == values
    fractions, whole = np.modf(x)
    assert fractions.tolist() == [0, 0] and whole.tolist() == [4, 9]
    np.testing.assert_allclose(x, [4, 9])
    with pytest.raises(RuntimeError) as error:
        np.sqrt(leaf(4.0))
    assert str(error.value) == "sqrt: a tensor requires a gradient, which an array can't carry; use its .detach()"
    with pytest.raises(TypeError, match="__array_ufunc__"):
        np.add(np.ones(2), 1, out=x)


def test_one_element_as_a_number():
    x = Tensor([[2.5]], requires_grad=True)
    assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
    assert type(x.item()) is float and type(minidl.tensor([3]).item()) is int and minidl.tensor([False]).item() is False
    for use in (Tensor.item, float, int, bool):
        with pytest.raises(RuntimeError) as error:
            use(Tensor([1.0, 2.0]))
        assert str(error.value) == "item: a tensor of one element is needed, got 2 (x (2,))"


def test_the_hash_is_by_identity_so_tensors_are_keys():
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert {a: 1, b: 2}[b] == 2 and len({a, b, a}) == 2


def test_the_engine_compares_no_tensors(monkeypatch):
    """A comparison is an op on elements: as a question about identity its answer would be wrong, or an error."""

    def refuse(*operands):
        raise AssertionError("a tensor was compared")

    for name in ("__eq__", "__ne__"):
        monkeypatch.setattr(Tensor, name, refuse)
    w, x = Tensor([[1.0, 2.0]], True), Tensor([[3.0, 4.0]], True)
    y = w * x + w
    y.retain_grad()
    y.register_hook(lambda g: g)
    (y * y + y[0]).sum().backward(retain_graph=True)
    optimizer = minidl.optim.SGD([{"params": [w]}, {"params": [x]}], lr=0.1, momentum=0.9)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    net = minidl.nn.Sequential(minidl.nn.Linear(2, 2), minidl.nn.ReLU())
    net[0].weight = net[0].weight
    net.load_state_dict(net.state_dict())
    minidl.gradcheck(lambda t: t * t, [Tensor(np.ones(2), True)])


def test_repr():
    assert repr(Tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert repr(minidl.tensor([1, 2])) == "tensor([1, 2], dtype=int64)"
    x = Tensor([[1.0]], requires_grad=True, device="cpu:1")
    assert repr(x) == "tensor([[1.]], device='cpu:1', requires_grad=True)"
    assert repr(x * 2.0) == "tensor([[2.]], device='cpu:1', made by mul)"
    assert "..." in repr(Tensor(np.zeros(1000)))


def test_a_post_accumulate_grad_hook_sees_the_gradient_in_place():
    x = Tensor([2.0], requires_grad=True)
    seen = []
    handle = x.register_post_accumulate_grad_hook(lambda leaf: seen.append((leaf is x, leaf.grad.item())))
    (x * x).backward()
    (x * x).backward()
    handle.remove()
    (x * x).backward()
    assert seen == [(True, 4.0), (True, 8.0)]


def test_post_accumulate_grad_hooks_are_for_leaves():
    x = Tensor([2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="only a leaf has one, this was made by mul"):
        (x * x).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        Tensor([2.0]).register_post_accumulate_grad_hook(print)


def test_the_end_of_backward_comes_after_every_leaf():
    from minidl.tensor import at_end_of_backward

    x, y = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    seen = []
    for leaf in (x, y):
        leaf.register_post_accumulate_grad_hook(lambda leaf: at_end_of_backward(lambda: seen.append((x.grad, y.grad))))
    (x * y).backward()
    assert seen == [(x.grad, y.grad)] * 2 and None not in seen[0]
    with pytest.raises(RuntimeError, match="must be called while a backward runs"):
        at_end_of_backward(print)
