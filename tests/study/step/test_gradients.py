"""check_layers: every gradient of every op, on what truly arrived; right ones pass, wrong ones fail, kinks are told."""

import dataclasses
import gc
import warnings
import weakref

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, kernels, nn, random
from minidl.ops import arithmetic, conv2d_relu, dropout, linear, local_response_norm, max_pool2d
from minidl.study.step import gradients
from minidl.study.step.gradients import Badge, check_layers, layer_checks


class Net(nn.Module):
    """A small AlexNet: every kind of layer, and an op between layers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.ConvReLU2d(3, 4, 3, stride=2)
        self.norm1 = nn.LocalResponseNorm(3, alpha=1.0)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout()
        self.fc = nn.Linear(6 * 3 * 3, 5)

    def forward(self, x):
        x = self.pool1(self.norm1(self.conv1(x)))
        return self.fc(self.drop(F.flatten(self.relu2(self.conv2(x)), 1)))


@pytest.fixture
def image():
    return minidl.randn(1, 3, 17, 17)


def table(badges):
    return {(b.layer, b.leaf): b for b in badges}


# ------------------------------------------------------------------------------------------------------------------ right


def test_every_gradient_has_a_badge(image):
    badges = check_layers(Net(), image)
    weighted = {("conv1", "weight"), ("conv1", "bias"), ("conv2", "weight"), ("fc", "weight"), ("fc", "bias")}
    inputs = {(name, "input") for name in ("conv1", "norm1", "pool1", "conv2", "relu2", "Net", "drop", "fc")}
    assert {(b.layer, b.leaf) for b in badges} == weighted | inputs and len(badges) == 13
    for badge in badges:
        assert badge.relative_error < 1e-5 and (badge.directions, badge.dtype, badge.failed) == (8, "float64", False)
    ops = [(b.op, b.number) for b in badges if b.leaf == "input"]
    expected = ["conv2d_relu", "local_response_norm", "max_pool2d", "conv2d", "relu", "reshape", "dropout", "linear"]
    assert ops == [(op, i) for i, op in enumerate(expected)]
    assert table(badges)["drop", "input"].note == "draws random numbers: the same ones throughout"
    assert table(badges)["fc", "weight"].note == table(badges)["norm1", "input"].note == ""


def test_the_loss_is_checked_where_it_is_part_of_the_function(image):
    net = Net()
    badges = check_layers(lambda x: F.cross_entropy(net(x), np.array([2])), image)
    assert [(b.layer, b.leaf) for b in badges if b.op == "cross_entropy"] == [("cross_entropy", "input")]
    assert max(b.relative_error for b in badges) < 1e-5
    assert badges[-1].layer == "mul" and badges[-1].number == 12


def test_what_truly_arrives_is_checked(monkeypatch):
    seen = {}
    right = arithmetic.MulFunction.forward

    def forward(ctx, x, y):
        seen.setdefault(x.dtype.name, (x.copy(), y))
        return right(ctx, x, y)

    monkeypatch.setattr(arithmetic.MulFunction, "forward", forward)
    x = minidl.randn(3, 4)
    check_layers(lambda x: F.tanh(x) * 2.0, x)
    np.testing.assert_array_equal(seen["float64"][0], np.tanh(x.data).astype(np.float64))
    assert seen["float64"][1] == 2.0


def test_a_batch_may_be_an_array_and_is_given_the_model_s_dtype():
    net = nn.Linear(3, 2).double()
    for batch in (np.ones((2, 3), np.float32), Tensor(np.ones((2, 3)))):
        badges = check_layers(net, batch)
        assert [(b.layer, b.leaf) for b in badges] == [("Linear", "input"), ("Linear", "weight"), ("Linear", "bias")]
    assert len(check_layers(F.tanh, np.ones((2, 3), np.float32))) == 1


def test_class_ids_can_be_the_batch():
    table = minidl.randn(5, 3, requires_grad=True)
    (badge,) = check_layers(lambda ids: table[ids], Tensor(np.array([0, 3, 3])))
    assert (badge.op, badge.leaf) == ("getitem", "input") and badge.relative_error < 1e-5


def test_several_inputs_have_letters():
    badges = check_layers(lambda x: F.tanh(x) * F.sigmoid(x) + 1.0, minidl.randn(4))
    assert [(b.op, b.leaf) for b in badges] == [
        ("tanh", "input"),
        ("sigmoid", "input"),
        ("mul", "x"),
        ("mul", "y"),
        ("add", "input"),
    ]


def test_a_parameter_alone_beside_the_input_keeps_its_name():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(np.ones(3, np.float32))

        def forward(self, x):
            return self.scale * x

    assert [(b.layer, b.leaf) for b in check_layers(Scaled(), minidl.randn(2, 3))] == [("Scaled", "scale"), ("Scaled", "input")]


def test_each_badge_comes_when_it_is_known(image, monkeypatch):
    checks = layer_checks(Net(), image)
    assert next(checks).layer == "conv1"
    monkeypatch.setattr(gradients, "_compare", None)  # what follows is not computed yet
    with pytest.raises(TypeError):
        next(checks)


def test_the_model_and_the_random_numbers_are_as_before(image):
    net = Net()
    state, before = random.default_generator.state(), {n: p.data.copy() for n, p in net.named_parameters()}
    values = image.data.copy()
    check_layers(net, image)
    assert random.default_generator.state() == state
    for name, p in net.named_parameters():
        np.testing.assert_array_equal(p.data, before[name])
        assert p.grad is None and p.dtype == np.float32
    np.testing.assert_array_equal(image.data, values)
    assert image.grad is None and not image.requires_grad


def test_random_numbers_are_as_before_if_the_model_raises():
    def model(x):
        F.dropout(x)
        raise ArithmeticError("no")

    state = random.default_generator.state()
    with pytest.raises(ArithmeticError, match="no"):
        check_layers(model, minidl.ones(2))
    assert random.default_generator.state() == state


def test_the_mask_that_was_drawn_is_checked(monkeypatch):
    masks = []
    right = dropout.dropout_forward

    def dropout_forward(x, draw, p, scale):
        y, mask = right(x, draw, p, scale)
        masks.append(mask)
        return y, mask

    monkeypatch.setattr(dropout, "dropout_forward", dropout_forward)
    check_layers(lambda x: F.dropout(F.dropout(x)), minidl.randn(50))
    first, second, *others = masks
    assert (first != second).any() and len(others) > 40
    assert all((mask == (first if i < len(others) // 2 else second)).all() for i, mask in enumerate(others))


def test_two_devices():
    net = nn.Linear(3, 2, device="cpu:1")
    badges = check_layers(lambda x: net(x.to("cpu:1")).to("cpu:0"), minidl.randn(2, 3))
    assert [b.op for b in badges] == ["to_device", "linear", "linear", "linear", "to_device"]
    assert all(b.relative_error < 1e-5 for b in badges)


def test_of_a_very_large_layer_the_first_units_are_checked(monkeypatch):
    monkeypatch.setattr(gradients, "LARGEST", 35)
    x = minidl.randn(1, 7)
    for layer, note in (
        (nn.Linear(7, 5), ""),
        (nn.Linear(7, 6), "the first 5 of 6 units"),
        (nn.Linear(7, 6, bias=False), None),
    ):
        badges = check_layers(layer, x)
        assert len(badges) == (2 if layer.bias is None else 3)
        assert {b.note for b in badges} == {"the first 5 of 6 units" if note is None else note}
        assert all(b.relative_error < 1e-5 and not b.failed for b in badges)
    monkeypatch.setattr(gradients, "LARGEST", 3)
    assert check_layers(nn.Linear(7, 6), x)[0].note == "the first 1 of 6 units"
    filters = check_layers(nn.Conv2d(2, 4, 3, groups=2), minidl.randn(1, 2, 4, 4))  # of a group, not of the whole input
    assert {b.note for b in filters} == {""}


def test_a_badge_is_made_of_plain_values(image):
    for badge in check_layers(Net(), image):
        values = dataclasses.asdict(badge)
        assert list(values)[:6] == ["layer", "leaf", "relative_error", "directions", "dtype", "note"]
        assert {type(v) for v in values.values()} <= {str, float, int, bool}


# ------------------------------------------------------------------------------------------------------------------ wrong


def scaled(result, factor):
    return tuple(g if g is None else g * factor for g in result) if isinstance(result, tuple) else result * factor


@pytest.mark.parametrize("module", [conv2d_relu, dropout, linear, local_response_norm, max_pool2d])
def test_a_backward_a_thousandth_too_large_fails(module, image, monkeypatch):
    op = module.__name__.rpartition(".")[2]
    right = getattr(module, f"{op}_backward")
    wrong = lambda *args: scaled(right(*args), 1.001)
    wrong.__name__ = right.__name__
    monkeypatch.setattr(module, right.__name__, wrong)
    monkeypatch.delitem(kernels.REPLACEMENTS, ("cpu", right.__name__), raising=False)
    badges = check_layers(Net(), image)
    assert {b.op for b in badges if b.failed} == {op} and all(b.failed for b in badges if b.op == op)
    for b in badges:
        if b.failed:
            assert (
                b.note.startswith(f"FAILED: {op}: backward disagrees with forward for {b.leaf} (") and "ratio 1.001" in b.note
            )
            assert b.relative_error is None and b.directions == 0


def test_one_wrong_gradient_does_not_spoil_the_others(image, monkeypatch):
    right = conv2d_relu.conv2d_relu_backward

    def conv2d_relu_backward(*args):
        gx, gw, gb = right(*args)
        return gx, gw * 0, gb

    monkeypatch.setattr(conv2d_relu, "conv2d_relu_backward", conv2d_relu_backward)
    monkeypatch.delitem(kernels.REPLACEMENTS, ("cpu", "conv2d_relu_backward"))
    badges = check_layers(Net(), image)
    assert [(b.layer, b.leaf) for b in badges if b.failed] == [("conv1", "weight")]


class Modest(Function):
    """y = 2 x; its gradient is what `factor` says."""

    name = "modest"
    factor = 2

    def forward(ctx, x):
        return x * 2

    def backward(ctx, gy):
        return (gy * ctx.factor,)


def test_the_model_s_graph_is_not_kept():
    nodes = []

    class Seen(Modest):
        name = "seen"

        def forward(ctx, x):
            nodes.append(weakref.ref(ctx))
            return x * 2

    checks = layer_checks(lambda x: Seen.apply(F.tanh(Seen.apply(x))), minidl.randn(5))
    next(checks)  # those that follow are kept until they are checked
    gc.collect()
    assert len(nodes) > 30 and not any(node() for node in nodes)


def test_a_wrong_op_of_the_user_s(monkeypatch):
    (badge,) = check_layers(Modest.apply, minidl.randn(5))
    assert not badge.failed and badge.relative_error < 1e-5
    monkeypatch.setattr(Modest, "factor", 2.001)
    (badge,) = check_layers(Modest.apply, minidl.randn(5))
    assert badge.failed and "kink" not in badge.note


def test_an_op_that_changes_its_input_fails():
    class Greedy(Function):
        name = "greedy"

        def forward(ctx, x):
            x *= 2
            return x * 1

        def backward(ctx, gy):
            return (gy * 2,)

    (badge,) = check_layers(Greedy.apply, minidl.randn(5))
    assert badge.failed and "was modified" in badge.note


def test_a_wrong_smooth_op_is_not_given_other_values(monkeypatch):
    """Wrong for small inputs alone: spread from -2 to 2 it would look right."""
    right = arithmetic.ExpFunction.backward
    monkeypatch.setattr(
        arithmetic.ExpFunction, "backward", lambda ctx, gy: (right(ctx, gy)[0] * np.where(ctx.saved[0] < 0.01, 2, 1),)
    )
    (badge,) = check_layers(lambda x: x.exp(), minidl.randn(5) - 20.0)
    assert badge.failed


# ------------------------------------------------------------------------------------------------------------------ kinks


def test_ties_under_a_pool_are_told_and_broken():
    (badge,) = check_layers(lambda x: F.max_pool2d(x, 2), minidl.zeros(1, 2, 6, 6))
    assert badge.relative_error < 1e-5 and badge.directions == 8 and not badge.failed
    assert badge.note.startswith("a kink or a tie is near what arrived (along input (1, 2, 6, 6) the slope is ")
    assert badge.note.endswith(" behind); checked on values in the same order, evenly from -2 to 2")


def test_a_relu_at_zero():
    (badge,) = check_layers(F.relu, minidl.zeros(4))
    assert "kink" in badge.note and badge.relative_error < 1e-5
    (badge,) = check_layers(F.relu, minidl.ones(4))
    assert badge.note == ""


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_with_a_relu_at_zero(bias):
    """All weights are 0, so every unit is on its kink."""
    layer = nn.ConvReLU2d(2, 3, 3, bias=bias)
    for p in layer.parameters():
        p.data[...] = 0
    badges = table(check_layers(layer, minidl.randn(1, 2, 5, 5)))
    assert len(badges) == (3 if bias else 2) and not any(b.failed for b in badges.values())
    for leaf, shape in [("weight", (3, 2, 3, 3)), ("bias", (3,))][: 1 + bias]:
        badge = badges["ConvReLU2d", leaf]
        assert badge.relative_error < 1e-5
        assert badge.note.startswith(f"a kink or a tie is near what arrived (along {leaf} {shape} the slope is ")
        assert badge.note.endswith("; checked with biases of 1 and -1 in turn")


def test_units_are_on_and_off_by_a_margin():
    layer = nn.ConvReLU2d(2, 4, 3).double()
    x = minidl.randn(1, 2, 5, 5, dtype=np.float64)
    call = gradients._Call(
        conv2d_relu.Conv2dReLUFunction,
        0,
        "",
        (x, layer.weight.detach(), layer.bias.detach()),
        {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1},
        (),
        None,
        ("before",),
    )
    found = gradients._with_units_on_or_off(call, "found")
    y = found.run().detach().numpy()
    before = np.abs(F.conv2d(x, layer.weight.detach()).numpy()).max()
    assert (y[:, ::2] >= before * 0.999).all() and (y[:, 1::2] == 0).all() and y.shape == (1, 4, 3, 3)
    assert found.notes == (
        "before",
        f"found; checked with biases of {2 * before:.3g} and {-2 * before:.3g} in turn",
    )


@pytest.mark.parametrize("op", [F.relu, Modest.apply])
def test_a_faint_kink_that_looks_like_a_wrong_backward(op, monkeypatch):
    """gradcheck may take a kink for a small disagreement: the op is checked beside it before it is called wrong."""
    diagnosis = "it: backward disagrees with forward for input (4,): along a random direction 1; worst"
    answers = [gradients.WrongGradientError(diagnosis)]
    real = gradients.gradcheck_leaves

    def gradcheck_leaves(*args, **settings):
        if answers:
            raise answers.pop()
        return real(*args, **settings)

    monkeypatch.setattr(gradients, "gradcheck_leaves", gradcheck_leaves)
    (badge,) = check_layers(op, minidl.ones(4))
    found = "a kink or a tie is near what arrived (along a random direction 1); checked on"
    assert not badge.failed and badge.note.startswith(found)


def test_a_kink_of_the_user_s_own():
    class Bent(Function):
        """max(x, x / 2)."""

        name = "bent"

        def forward(ctx, x):
            ctx.save(x)
            return np.maximum(x, x / 2)

        def backward(ctx, gy):
            (x,) = ctx.saved
            return (np.where(x > 0, gy, gy / 2),)

    (badge,) = check_layers(Bent.apply, minidl.zeros(6))
    assert not badge.failed and badge.relative_error < 1e-5 and "checked on values in the same order" in badge.note


def test_a_kink_everywhere_is_not_checked():
    class Stairs(Function):
        name = "stairs"

        def forward(ctx, x):
            return np.floor(x * 1e9)

        def backward(ctx, gy):
            return (gy * 0,)

    (badge,) = check_layers(Stairs.apply, minidl.randn(4))
    assert badge.relative_error is None and not badge.failed and badge.directions == 0
    assert badge.note.startswith("not checked: stairs: not differentiable here: along input (4,)")


def test_a_slope_that_is_infinite():
    """sqrt at 0 has no slope, and the values that are spread out have no root: no warning, and no result."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (badge,) = check_layers(lambda x: x.sqrt(), minidl.ones(4) * 1e-12)
    assert badge.relative_error is None and not badge.failed and badge.note.startswith("not checked: sqrt: ")


def test_spread_out_keeps_the_order():
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 3, (3, 5, 7)).astype(float)
    spread = gradients._spread_out(values)
    assert spread.shape == values.shape
    flat, found = values.reshape(-1), spread.reshape(-1)
    order = np.argsort(found)
    assert (np.diff(flat[order]) >= 0).all()
    np.testing.assert_allclose(np.diff(found[order]), 4 / 105, rtol=1e-9)
    assert np.abs(found).min() > 0.01 and np.abs(found).max() < 2.01


# --------------------------------------------------------------------------------------------------------- other findings


def test_a_gradient_of_zero_is_said_to_prove_little():
    (badge,) = check_layers(F.relu, minidl.ones(4) * -1.0)
    assert badge.relative_error == 0 and badge.note == "the gradient is 0 here, which proves little" and not badge.failed


def test_what_is_not_finite_is_not_checked():
    x = minidl.ones(4)
    x.data[1] = np.nan
    (badge,) = check_layers(F.tanh, x)
    assert not badge.failed and badge.relative_error is None
    assert badge.note == "not checked: tanh: input (4,) must be finite, got 1 elements that are not"


def test_an_output_that_is_not_float64_is_not_checked():
    (badge,) = check_layers(lambda x: x.to(np.float16), minidl.ones(4))
    assert (badge.op, badge.failed, badge.relative_error) == ("cast", False, None)
    assert badge.note == "not checked: cast: its output is float16 for float64, too coarse for numeric slopes"


def test_an_op_that_can_t_run_in_float64_is_not_checked():
    class Single(Function):
        name = "single"

        def forward(ctx, x):
            if x.dtype != np.float32:
                raise TypeError("single: x must be float32")
            return x * 1

        def backward(ctx, gy):
            return (gy,)

    (badge,) = check_layers(Single.apply, minidl.ones(4))
    assert badge == Badge("single", "input", None, 0, "float64", "not checked: single: x must be float32", "single", 0, False)


def test_integers_stay_integers():
    class Taken(Function):
        name = "taken"

        def forward(ctx, x, places):
            ctx.x_shape = x.shape
            ctx.save(places)
            return x[places]

        def backward(ctx, gy):
            (places,) = ctx.saved
            gx = np.zeros(ctx.x_shape, gy.dtype)
            np.add.at(gx, places, gy)
            return gx, None

    (badge,) = check_layers(lambda x: Taken.apply(x, Tensor(np.array([2, 0, 2]))), minidl.randn(4))
    assert badge.relative_error < 1e-5 and not badge.failed


def test_the_model_s_own_memory_is_never_nudged():
    layer, shared = nn.Linear(3, 2).double(), []

    class Watched(Function):
        name = "watched"

        def forward(ctx, w):
            shared.append(np.shares_memory(w, layer.weight.data))
            return w * 1

        def backward(ctx, gy):
            return (gy,)

    check_layers(lambda x: Watched.apply(layer.weight) * x, np.ones((2, 3)))
    assert shared[0] and not any(shared[1:]) and len(shared) > 30


def test_what_needs_no_gradient_is_left_out():
    net = nn.Linear(3, 2)
    net.weight.requires_grad = False
    badges = check_layers(lambda ids: net(ids.to(np.float32)), Tensor(np.ones((1, 3), np.int64)))
    assert [(b.op, b.leaf, b.number) for b in badges] == [("linear", "bias", 1)]
