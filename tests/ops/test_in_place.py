"""minidl.ops.in_place and minidl.changes: what is changed, what is refused, and with which words.

tests/oracle/test_in_place.py runs the same programs in PyTorch.
"""

import re
import threading

import numpy as np
import pytest
from layer_cases import layer_cases

import minidl
from minidl import Tensor, changes, no_grad
from minidl.memory import owner
from minidl.optim import SGD
from minidl.tensor import Function

A = np.array([[1.0, 2.0, -3.0], [0.5, -1.5, 4.0]])


@pytest.fixture
def w(device):
    return Tensor(A.copy(), True, device)


def fails_with(text, call):
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        call()


# ------------------------------------------------------------------------------------------------------------- who is named


def test_backward_names_the_op_the_shape_and_who_changed_it(w):
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    SGD([w], lr=0.1).step()
    fails_with(
        "mul: backward needs an array (2, 3) as forward saved it, but SGD.step changed it in place since: "
        "one of the variables needed for gradient computation has been modified by an inplace operation",
        loss.backward,
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda w: w.detach().mul_(2), "mul_"),
        (lambda w: w.detach().__iadd__(1), "__iadd__"),
        (lambda w: w.detach().__setitem__(0, 1), "setitem"),
        (lambda w: w.detach()[1].zero_(), "zero_"),
        (lambda w: w.detach().copy_(w), "copy_"),
        (lambda w: minidl.nn.init.ones_(w), "nn.init"),
        (lambda w: minidl.nn.init.normal_(w), "nn.init"),
    ],
)
def test_every_way_to_change_is_noted(w, change, name):
    loss = (w * w).sum()
    change(w)
    with pytest.raises(RuntimeError, match=f"but {name} changed it in place"):
        loss.backward()


def test_loading_weights_is_noted(device):
    net = minidl.nn.Linear(3, 2).to(device)
    loss = net(Tensor(A.astype("float32"), True, device)).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match=r"linear: .* but load_state_dict changed it"):
        loss.backward()


def test_changes_of_other_memory_are_no_matter(w, device):
    loss = (w * w).sum()
    Tensor(A.copy(), device=device).mul_(2)
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), 2 * A)


def test_memory_that_is_gone_is_forgotten():
    x = Tensor(np.ones(3))
    x.zero_()
    key = id(owner(x.data))
    assert key in changes._last
    del x
    assert key not in changes._last


def test_changes_on_many_threads_all_count():
    before, tensors = changes.now(), [Tensor(np.ones(3)) for _ in range(4)]
    threads = [threading.Thread(target=lambda t=t: [t.add_(1) for _ in range(500)]) for t in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert changes.now() == before + 2000
    assert all(changes.changed_since(t.data, before) == "add_" for t in tensors)


# ------------------------------------------------------------------------------------------------------------ in a graph


def test_what_the_op_itself_saved_stays_as_it_was(w, device):
    """mul saves its factors, and one of them is what it changes."""
    y = w + 0
    y.mul_(w)
    y.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * A, rtol=1e-14)


def test_an_output_that_is_saved_is_kept_once(w):
    y = w + 0
    y.exp_()
    assert y._node.saved[0] is y.data


def test_a_view_of_memory_that_was_changed_behind_it_is_refused(w):
    y = w * 1
    row = y[0]
    y *= 2
    fails_with(
        "mul: an input of shape (3,) is a view, made by getitem, of memory that __imul__ changed in place later; "
        "take the view again after the change",
        lambda: row * 3,
    )
    (y[0] * 3).sum().backward()


def test_one_element_is_a_view_too(device):
    x = Tensor(np.zeros(3), device=device)
    one = x[1]
    x += 1
    assert one.item() == 1
    one += 1
    assert x[1].item() == 2


def test_refusals_say_what_to_do(w):
    fails_with(
        "__iadd__: a leaf that requires a gradient can't be changed in place, got a leaf of shape (2, 3); do it under "
        "minidl.no_grad(), or make a new tensor",
        lambda: w.__iadd__(1),
    )
    row = (w * 1)[0]
    text = (
        "a view can't be changed in place inside a graph, got one of shape (3,); assign to an index of the "
        "tensor that it is a view of (base[index] = value), or make a new tensor"
    )
    fails_with(f"__imul__: {text}", lambda: row.__imul__(2))
    outside = Tensor(A.copy(), device=w.device)[0]
    fails_with(f"add_: {text}", lambda: outside.add_(w[0]))
    x = Tensor(A[0].copy(), device=w.device)
    fails_with("add_: the result has the shape (2, 3), x of shape (3,) can't hold it", lambda: x.add_(w.detach()))
    n = Tensor(np.arange(3), device=w.device)
    fails_with("add_: the result is of float32, which can't be cast to x's int64", lambda: n.add_(0.5))
    fails_with("fill_: value must be a number or a 0-d tensor, got the shape (3,)", lambda: x.fill_(n))


def test_a_refused_change_changes_nothing(w, device):
    before = device.to_host(w.data)
    for call in (lambda: w.add_(1), lambda: w.zero_(), lambda: w.__setitem__(0, 1), lambda: w.detach().add_(np.ones(7))):
        with pytest.raises(RuntimeError):
            call()
    np.testing.assert_array_equal(device.to_host(w.data), before)


def test_memory_that_may_not_be_written_to_is_refused():
    x = Tensor(np.broadcast_to(np.ones(3), (2, 3)))
    for call in (lambda: x.add_(1), lambda: x.zero_()):
        with pytest.raises(RuntimeError, match=r"read-only|may not be written to"):
            call()


def test_a_change_keeps_the_memory(w):
    with no_grad():
        data = w.data
        w -= 1
        w[0] = 3
    assert w.data is data and w.is_leaf and w.requires_grad


# ----------------------------------------------------------------------------------------------------------- which are views


def test_an_op_whose_output_shares_memory_with_an_input_says_so():
    """`views` of the Function: changes in place rely on it. Asked of every op that the layers' cases and the methods run."""
    seen = {}

    class Look(minidl.observer.Observer):
        def forward_ends(self, node, inputs, settings, out):
            shares = any(isinstance(x, Tensor) and np.shares_memory(x.data, out.data) for x in inputs)
            seen[type(node)] = seen.get(type(node), False) or shares

    with Look():
        for case in layer_cases().values():
            case.ours(*(Tensor(a.copy(order="K"), True) for a in case.arrays))
        x = Tensor(np.ones((2, 3)), True)
        x.T, x[0], x[[0]], x.reshape(3, 2), x.squeeze(), x.unsqueeze(0), x.to("cpu:1"), x.float(), x.sum(0), x.max(0), -x
        Tensor(np.ones(()), True).max(0)
    unsaid = [op.__name__ for op, shares in seen.items() if shares and not op.views]
    assert unsaid == [] and len(seen) > 20
    assert all(issubclass(op, Function) for op in seen)
