"""detect_anomaly: the first op that makes NaN or infinity, in forward and in backward, with its layer and the numbers."""

import threading

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import AnomalyError, Function, Tensor, detect_anomaly, nn


class Planted(Function):
    """Identity with what a test puts into its output or gradient."""

    name = "planted"

    def forward(ctx, x, forward=None, backward=None):
        ctx.planted = backward
        return _with(x, forward)

    def backward(ctx, gy):
        return (_with(gy, ctx.planted),)


def _with(array, value):
    if value is None:
        return array.copy()
    changed = array.copy()
    changed[0, 1] = value
    return changed


class Net(nn.Module):
    """Two layers with something planted between them."""

    def __init__(self, **planted):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
        self.planted = planted

    def forward(self, x):
        return self.body(Planted.apply(self.first(x), **self.planted))


@pytest.fixture
def x(device):
    return minidl.randn(5, 4, device=device)


def net(device, **planted):
    return Net(**planted).to(device)


@pytest.mark.parametrize("value, kinds", [(np.nan, "1 NaN, 0 infinite"), (np.inf, "0 NaN, 1 infinite")])
def test_forward_names_the_op_that_made_it(x, device, value, kinds):
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        net(device, forward=value)(x)
    assert (caught.value.op, caught.value.layer, caught.value.phase) == ("planted", "Net", "forward")
    text = str(caught.value)
    assert text.startswith(
        f"planted in Net, forward: 1 of 15 elements of its output are not finite ({kinds}; the first at [0, 1]"
    )
    assert "shape (5, 3)" in text and "x (5, 3) float32 from " in text


@pytest.mark.parametrize("value, kinds", [(np.nan, "1 NaN, 0 infinite"), (-np.inf, "0 NaN, 1 infinite")])
def test_backward_names_the_op_that_made_it(x, device, value, kinds):
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        net(device, backward=value)(x).sum().backward()
    assert (caught.value.op, caught.value.layer, caught.value.phase) == ("planted", "Net", "backward")
    assert f"elements of the gradient of x are not finite ({kinds}; the first at [0, 1]" in str(caught.value)
    assert "the gradient that arrived (5, 3) float32 from " in str(caught.value)


def test_a_parameter_is_called_by_its_name(x, device):
    model = net(device)
    with device.active():
        model.body[1].weight.data[...] = 1e30
        model.body[1].weight.data[1] = -1e30
    with pytest.raises(AnomalyError) as caught, detect_anomaly(), np.errstate(all="ignore"):
        model(abs(x) * 1e9)
    assert (caught.value.op, caught.value.layer) == ("linear", "body.1")
    assert "body.1.weight (2, 3) float32 from -1e+30 to 1e+30, mean magnitude 1e+30" in str(caught.value)
    assert "body.1.bias (2,)" in str(caught.value)


def test_the_gradient_of_a_parameter_is_called_by_its_name(x, device):
    model = net(device)
    model(x)  # the layer's place is known from the forward inside the block, whatever ran before
    with pytest.raises(AnomalyError) as caught, detect_anomaly(), np.errstate(all="ignore"):
        model(x * 1e20).sum().backward(Tensor(np.float32(1e20), device=device))
    assert (caught.value.op, caught.value.layer, caught.value.phase) == ("linear", "body.1", "backward")
    assert "the gradient of body.1.weight are not finite" in str(caught.value)


def test_what_came_in_is_said_to_be_not_finite(device):
    bad = Tensor(np.array([[np.nan, 1.0, np.inf, 3.0]], np.float32), device=device)
    with (
        pytest.raises(AnomalyError, match=r"relu, forward: .*x \(1, 4\) float32, 2 elements not finite from 1 to 3"),
        detect_anomaly(),
    ):
        F.relu(bad)


def test_a_loss_that_is_not_finite(device):
    """A number, as most losses are: it has no place."""
    x = Tensor(np.array([-1.0, 0.0], np.float32), device=device, requires_grad=True)
    at_the_sum = r"log, forward: 1 of 1 elements .* \(0 NaN, 1 infinite; the first at \[\]"
    with pytest.raises(AnomalyError, match=at_the_sum), detect_anomaly(), np.errstate(all="ignore"):
        (x.sum() + 1.0).log()


def test_on_a_gpu(monkeypatch):
    """On the stand-in for CuPy, so that it is tried where there is no GPU."""
    import fake_cupy

    fake_cupy.install(monkeypatch)
    x = Tensor(np.array([[1.0, np.inf]], np.float32), device="cuda:0", requires_grad=True)
    with (
        detect_anomaly(),
        pytest.raises(AnomalyError, match=r"mul, forward: 1 of 2 .*x \(1, 2\) float32, 1 elements not finite from 1"),
    ):
        x * 2.0
    with (
        detect_anomaly(),
        pytest.raises(AnomalyError, match=r"planted, backward: 1 of 2 .* \(1 NaN, 0 infinite; the first at \[0, 1\]"),
    ):
        Planted.apply(
            Tensor(np.ones((1, 2), np.float32), device="cuda:0", requires_grad=True), backward=np.nan
        ).sum().backward()
    assert fake_cupy.errors == []


def test_nothing_finite_came_in(device):
    bad = Tensor(np.full((1, 2), np.nan, np.float32), device=device)
    with pytest.raises(AnomalyError, match=r"x \(1, 2\) float32, 2 elements not finite$"), detect_anomaly():
        F.relu(bad)


def test_outside_modules_there_is_no_layer(x):
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        Planted.apply(x, forward=np.nan)
    assert caught.value.layer is None and str(caught.value).startswith("planted, forward: ")


def test_a_sum_of_gradients_that_overflows_is_named(device):
    """Each is finite; the node that receives their sum did not make it."""
    x = Tensor(np.zeros((2, 2), np.float32), device=device, requires_grad=True)
    y = x * 1.0
    half = Tensor(np.full((2, 2), 3e38, np.float32), device=device)
    twice = r"mul, backward: 4 of 4 .*sum of the gradients that arrive at its output"
    with pytest.raises(AnomalyError, match=twice), detect_anomaly(), np.errstate(all="ignore"):
        (y * half + y * half).sum().backward()
    leaf = r"accumulation, backward: 4 of 4 .*the gradient of a leaf, the sum over its uses are"
    with pytest.raises(AnomalyError, match=leaf), detect_anomaly(), np.errstate(all="ignore"):
        (x * half + x * half).sum().backward()


def test_a_parameter_whose_uses_sum_to_infinity_is_named(device):
    """Where the module that holds it ran inside the block."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(1, 1, device=device)
            self.inner = nn.Linear(1, 1, bias=False, device=device)

        def forward(self, x):
            return self.inner(x) + self.inner(x)

    model, another = Twice(), nn.Linear(1, 1, device=device)
    x = Tensor(np.full((1, 1), 3e38, np.float32), device=device)
    with device.active():
        model.inner.weight.data[...] = 0.1
    with pytest.raises(AnomalyError) as caught, detect_anomaly(), np.errstate(all="ignore"):
        another(x)
        model(x).sum().backward()
    assert (caught.value.op, caught.value.layer, caught.value.phase) == ("accumulation", "inner", "backward")
    assert "1 of 1 elements of the gradient of inner.weight, the sum over its uses are not finite" in str(caught.value)


def test_backward_says_what_forward_saved(device):
    """Most often that is the cause: a root, a logarithm or a quotient at 0."""
    x = Tensor(np.array([4.0, 0.0, 9.0], np.float32), device=device, requires_grad=True)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(), np.errstate(all="ignore"):
        x.sqrt().sum().backward()
    assert caught.value.op == "sqrt" and caught.value.phase == "backward"
    assert "the gradient that arrived (3,) float32 from 1 to 1, mean magnitude 1; saved (3,) float32 from 0 to 3" in str(
        caught.value
    )


def test_a_finite_step_goes_through_unchanged(x, device):
    model = net(device)
    model(x).sum().backward()
    expected = [p.grad.numpy() for p in model.parameters()]
    model.zero_grad()
    with detect_anomaly():
        model(x).sum().backward()
    for p, before in zip(model.parameters(), expected, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), before)


def test_whole_numbers_and_empty_tensors_are_finite(device):
    with detect_anomaly():
        assert F.relu(minidl.zeros(0, 3, device=device)).shape == (0, 3)
        assert Tensor(np.arange(3), device=device).reshape(3, 1).shape == (3, 1)


def test_outside_the_block_nothing_is_looked_at(x, device):
    with detect_anomaly(), detect_anomaly():
        pass
    net(device, forward=np.nan, backward=np.nan)(x).sum().backward()

    @detect_anomaly()
    def inside():
        Planted.apply(x, forward=np.nan)

    with pytest.raises(AnomalyError):
        inside()
    Planted.apply(x, forward=np.nan)


def test_nested_blocks(x):
    with detect_anomaly():
        with detect_anomaly():
            pass
        with pytest.raises(AnomalyError):
            Planted.apply(x, forward=np.nan)


def test_a_block_is_of_its_thread(x):
    failures = []

    def elsewhere():
        try:
            Planted.apply(x, forward=np.nan)
        except AnomalyError as error:
            failures.append(error)

    with detect_anomaly():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert failures == []


def test_the_layers_are_right_after_an_error(x, device):
    """A forward that failed does not leave its module behind."""
    with detect_anomaly():
        with pytest.raises(AnomalyError):
            net(device, forward=np.nan)(x)
        with pytest.raises(AnomalyError) as caught:
            Planted.apply(x, forward=np.nan)
    assert caught.value.layer is None


def test_the_layer_of_an_op_outside_the_block_is_not_known(x, device):
    y = net(device, backward=np.nan)(x).sum()
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        y.backward()
    assert (caught.value.op, caught.value.layer) == ("planted", None)
