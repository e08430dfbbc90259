"""Observers: what they are told of, in which order, on which thread, and where an op says that it was called."""

import threading

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.observer import NOWHERE, Observer, inside, observers, present_layer


class Recorder(Observer):
    """Everything that it is told, as rows that begin with the method's name."""

    def __init__(self):
        self.told = []

    def forward_begins(self, node, inputs, settings):
        shapes = [getattr(getattr(x, "data", x), "shape", ()) for x in inputs]
        self.told.append(("forward_begins", node.name, shapes, dict(settings)))

    def forward_ends(self, node, inputs, settings, out):
        saved = [getattr(a, "shape", None) for a in node.saved]
        self.told.append(("forward_ends", node.name, out.shape, saved, node.layer.name()))

    def backward_begins(self, node, gy):
        self.told.append(("backward_begins", node.name, gy.shape, node.layer.name()))

    def backward_ends(self, node, gy, gradients):
        self.told.append(("backward_ends", node.name, [None if gx is None else gx.shape for gx in gradients]))

    def saved_is_freed(self, node):
        self.told.append(("saved_is_freed", node.name, len(node.saved)))

    def leaf_has_gradient(self, tensor):
        self.told.append(("leaf_has_gradient", tensor.shape, tensor.grad.numpy().sum()))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def x(device):
    return Tensor(np.array([[1.0, -2.0, 3.0]], np.float32), device=device, requires_grad=True)


def test_a_step_is_told_op_by_op(x, recorder):
    with recorder:
        F.relu(x).sum(1).backward()
    assert recorder.told == [
        ("forward_begins", "relu", [(1, 3)], {}),
        ("forward_ends", "relu", (1, 3), [(1, 3)], None),
        ("forward_begins", "sum", [(1, 3)], {"axes": (1,), "keepdim": False}),
        ("forward_ends", "sum", (1,), [], None),
        ("backward_begins", "sum", (1,), None),
        ("backward_ends", "sum", [(1, 3)]),
        ("saved_is_freed", "sum", 0),
        ("backward_begins", "relu", (1, 3), None),
        ("backward_ends", "relu", [(1, 3)]),
        ("saved_is_freed", "relu", 1),
        ("leaf_has_gradient", (1, 3), 2.0),
    ]


def test_what_is_retained_is_not_freed(x, recorder):
    y = F.relu(x).sum(1)
    with recorder:
        y.backward(retain_graph=True)
    assert "saved_is_freed" not in {row[0] for row in recorder.told}


def test_an_op_says_in_which_layer_it_was_called(device, recorder):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

        def forward(self, x):
            return self.body(x) * 2.0

    model = Net().to(device)
    with recorder:
        model(minidl.randn(4, 3, device=device)).sum().backward()
    layers = {row[1]: row[-1] for row in recorder.told if row[0] == "forward_ends"}
    assert layers == {"linear": "body.0", "relu": "body.1", "mul": "Net", "sum": None}
    assert [row[3] for row in recorder.told if row[0] == "backward_begins"] == [None, "Net", "body.1", "body.0"]


def test_inputs_are_called_by_their_names():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    other = minidl.randn(2, 2)
    with Observer(), inside(model), inside(model[1]):
        layer = present_layer()
    assert layer.name() == "1"
    assert layer.names_of([other, model[1].weight, 3.0, model[0].bias]) == ["x", "1.weight", "z", "0.bias"]
    assert len(layer.names_of([other] * 9)) == 9
    assert NOWHERE.name() is None and NOWHERE.names_of([other]) == ["x"]


def test_a_module_that_fails_is_left():
    class Failing(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    with Observer():
        with pytest.raises(ValueError, match="no"):
            Failing()(1)
        assert present_layer().modules == ()


def test_several_observers_are_told_in_turn(x):
    order = []

    class Named(Observer):
        def __init__(self, name):
            self.name = name

        def forward_ends(self, node, inputs, settings, out):
            order.append(self.name)

    with Named("outer"), Named("inner"):
        F.relu(x)
    assert order == ["outer", "inner"]


def test_outside_the_block_nothing_is_told(x, recorder):
    with recorder:
        assert observers() == (recorder,)
    assert observers() == ()
    y = F.relu(x)
    y.sum().backward()
    assert recorder.told == [] and y._node.layer is NOWHERE


def test_an_error_ends_the_block(recorder):
    with pytest.raises(ValueError), recorder:
        raise ValueError
    assert observers() == ()


def test_a_decorated_function_is_observed(x, recorder):
    @recorder
    def step():
        F.relu(x)

    step()
    step()
    assert [row[0] for row in recorder.told] == ["forward_begins", "forward_ends"] * 2


def test_an_observer_is_of_its_thread(x, recorder):
    def elsewhere():
        F.relu(x)

    with recorder:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert recorder.told == []


def test_observing_without_recording_a_graph(x, recorder):
    with minidl.no_grad(), recorder:
        F.relu(x)
    assert [row[0] for row in recorder.told] == ["forward_begins", "forward_ends"]


def test_what_an_observer_does_not_override_does_nothing(x):
    with Observer():
        F.relu(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 1.0]]
