"""Autopsy: its numbers against slow ones by hand, what it looks at and when, planted illnesses in small nets, and its log."""

import errno
import itertools
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.optim import SGD
from minidl.study.health import autopsy as autopsy_module
from minidl.study.health.autopsy import COLUMNS, Autopsy, AutopsyLog
from minidl.study.health.illnesses import Row

CLASSES, FEATURES = 3, 8


class ConvNet(nn.Module):
    """Every kind of op that is looked at; a functional ReLU twice, in the module itself."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.ConvReLU2d(2, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 4, 3, stride=2)
        self.fc1 = nn.Linear(4 * 3 * 3, 10)
        self.tanh = nn.Tanh()
        self.fc2 = nn.Linear(10, 9)
        self.sigmoid = nn.Sigmoid()
        self.fc3 = nn.Linear(9, CLASSES)

    def forward(self, x):
        kept = {"conv1": self.conv1(x)}
        kept["conv2"] = self.conv2(kept["conv1"])
        kept["relu"] = F.relu(kept["conv2"])
        kept["fc1"] = self.fc1(F.flatten(kept["relu"], 1) * 5.0)
        kept["tanh"] = self.tanh(kept["fc1"])
        kept["fc2"] = self.fc2(F.relu(kept["tanh"] + 0.5))
        kept["sigmoid"] = self.sigmoid(kept["fc2"] * 8.0)
        kept["fc3"] = self.fc3(kept["sigmoid"])
        self.kept = kept
        for y in kept.values():
            if y.requires_grad:
                y.retain_grad()
        return kept["fc3"]


def host(tensor):
    return tensor.device.to_host(tensor.data)


@pytest.fixture
def batch(device):
    x = minidl.randn(40, 2, 7, 7, device=device)
    return x, np.arange(40) % CLASSES


def one_step(autopsy, model, batch, lr=0.1, zero_after=False):
    """One step of SGD with the autopsy; returns the loss."""
    optimizer = SGD(model.parameters(), lr=lr)
    images, labels = batch
    optimizer.zero_grad()
    with autopsy:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if zero_after:
            optimizer.zero_grad()
    return loss.item()


# -------------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("block", [1 << 18, 100, 3])
def test_the_numbers_are_those_of_a_slow_computation(batch, device, monkeypatch, block):
    monkeypatch.setattr(autopsy_module, "_BLOCK", block)
    model = ConvNet().to(device)
    with device.active():  # two units dead, one always on
        model.conv1.bias.data[...] = device.asarray(np.array([0, 0, -9, -9, 9, 0], np.float32))
    before = {name: host(p) for name, p in model.named_parameters()}
    autopsy = Autopsy(model)
    loss = one_step(autopsy, model, batch, zero_after=True)
    assert [d.illness.name for d in autopsy.after_step(loss)] == ["saturated units"]
    assert autopsy.step == 1 and autopsy.classes == CLASSES
    after = {name: host(p) for name, p in model.named_parameters()}

    names = ["conv1", "conv2", "relu in ConvNet", "fc1", "tanh", "relu in ConvNet, call 2", "fc2", "sigmoid", "fc3"]
    assert [row.title for row in autopsy.rows] == names
    rows = {row.title: row for row in autopsy.rows}
    assert {name: (row.layer, row.op, row.call) for name, row in rows.items()} == {
        **{name: (name, op, 1) for name, op in (("conv1", "conv2d_relu"), ("conv2", "conv2d"), ("fc1", "linear"))},
        **{
            name: (name, op, 1) for name, op in (("fc2", "linear"), ("fc3", "linear"), ("tanh", "tanh"), ("sigmoid", "sigmoid"))
        },
        "relu in ConvNet": ("ConvNet", "relu", 1),
        "relu in ConvNet, call 2": ("ConvNet", "relu", 2),
    }
    for name, y in model.kept.items():
        row, values = rows["relu in ConvNet" if name == "relu" else name], host(y).astype(np.float64)
        assert row.mean_abs_activation == pytest.approx(np.abs(values).mean(), rel=1e-5)
        assert row.std_over_batch == pytest.approx(values[:32].std(axis=0).mean(), rel=1e-4)
        assert row.mean_abs_gradient == pytest.approx(np.abs(y.grad.numpy()).mean(), rel=1e-5)
        if name in ("conv1", "relu"):
            on = values > 0
            assert row.zeros == pytest.approx(1 - on.mean(), rel=1e-6)
            assert row.dead == pytest.approx(1 - on.any(axis=(0, 2, 3)).mean())
            assert row.always_on == pytest.approx(on.all(axis=(0, 2, 3)).mean())
        else:
            assert (row.zeros, row.dead, row.always_on) == (None, None, None)
    assert rows["conv1"].dead == pytest.approx(1 / 3) and rows["conv1"].always_on == pytest.approx(1 / 6)
    inside = host(model.kept["tanh"])
    assert rows["tanh"].saturated == pytest.approx((1 - inside**2 < 0.1).mean())
    inside = host(model.kept["sigmoid"])
    assert rows["sigmoid"].saturated == pytest.approx((inside * (1 - inside) < 0.025).mean())
    assert 0 < rows["tanh"].saturated < 1 and 0 < rows["sigmoid"].saturated < 1
    assert [name for name, row in rows.items() if row.saturated is not None] == ["tanh", "sigmoid"]
    for name in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        old, new = before[f"{name}.weight"].astype(np.float64), after[f"{name}.weight"].astype(np.float64)
        assert rows[name].update_ratio == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-4)
        assert rows[name].mean_abs_weight_gradient == pytest.approx(np.abs((old - new) / 0.1).mean(), rel=1e-3)
    assert rows["tanh"].update_ratio is None and rows["tanh"].mean_abs_weight_gradient is None


def test_units_are_channels_or_the_last_axis():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    model[0].weight.data[...], model[0].bias.data[...] = 0, np.array([1, 1, 1, -1, -1, 1], np.float32)
    autopsy = Autopsy(model)
    with autopsy:
        model(minidl.randn(2, 5, 4)).sum().backward()
    autopsy.after_step(0.0)
    row = autopsy.rows[1]
    assert (row.units, row.outputs, row.examples) == (6, 30, 2)
    assert (row.zeros, row.dead, row.always_on) == (pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_which_rows_come_before_which():
    """Through ops without weights, and through a sum and a concatenation of two branches."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("first", "left", "right", "last"):
                setattr(self, name, nn.Linear(4, 4))

        def forward(self, x):
            x = F.relu(self.first(x))
            return self.last(F.relu(self.left(x)) + self.right(x) * 2.0)

    model = Branches()
    autopsy = Autopsy(model)
    with autopsy:
        model(minidl.randn(3, 4)).sum().backward()
    rows = {row.title: row for row in autopsy.rows}
    assert rows["first"].before == [] and rows["left"].before == rows["right"].before == [rows["first"]]
    assert {r.title for r in rows["last"].before} == {"left", "right"} and rows["last"].after == []
    assert {r.title for r in rows["first"].after} == {"left", "right"} and rows["left"].after == [rows["last"]]


def test_a_row_that_is_reached_in_two_ways_comes_before_once():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = F.relu(self.first(x))
            return self.last(x + x * 2.0)

    model = Around()
    autopsy = Autopsy(model)
    with autopsy:
        model(minidl.randn(3, 4))
    first, _, last = autopsy.rows
    assert last.before == [first] and first.after == [last]


@pytest.mark.parametrize("axes", [(0, 1), (1,)])
def test_outputs_of_no_axis_or_one(axes):
    class Sum(nn.Module):
        def forward(self, x):
            return F.relu(x.sum(axes))

    model = Sum()
    autopsy = Autopsy(model)
    with autopsy:
        model(Tensor(np.ones((2, 3), np.float32), requires_grad=True)).sum().backward()
    autopsy.after_step(0.0)
    (row,) = autopsy.rows
    assert (row.units, row.outputs, row.examples) == (1, 1, 1 if len(axes) == 2 else 2)
    assert (row.dead, row.always_on, row.std_over_batch) == (0, 1, None if len(axes) == 2 else 0)


def test_several_weights_of_an_op_are_taken_together():
    class TwoWeights(minidl.Function):
        name = "two_weights"

        def forward(ctx, x, a, b):
            ctx.save(x)
            return x @ a + b

        def backward(ctx, gy):
            (x,) = ctx.saved
            return None, x.T @ gy, 3 * gy

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(np.eye(2, dtype=np.float32)), nn.Parameter(np.full((1, 2), 2, np.float32))

        def forward(self, x):
            return TwoWeights.apply(x, self.a, self.b)

    model = Model()
    autopsy = Autopsy(model)
    with autopsy:
        model(minidl.ones(1, 2)).sum().backward()
        model.a.data += 0.5
        model.b.data -= 1.0
    autopsy.after_step(1.0)
    (row,) = autopsy.rows
    assert row.mean_abs_weight_gradient == pytest.approx((4 * 1 + 2 * 3) / 6)
    assert row.update_ratio == pytest.approx(math.sqrt(4 * 0.25 + 2 * 1) / math.sqrt(2 + 2 * 4))


def test_without_gradient_or_update_there_is_no_such_number():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    model[2].weight.data[...] = 0
    autopsy = Autopsy(model)
    one_step(autopsy, model, (minidl.randn(1, 4), np.array([0])))
    autopsy.after_step(1.0)
    frozen, relu, zeros = autopsy.rows
    assert (frozen.update_ratio, frozen.mean_abs_weight_gradient, frozen.mean_abs_gradient) == (None, None, None)
    assert zeros.update_ratio is None and zeros.mean_abs_weight_gradient > 0  # a change of nothing has no ratio
    assert zeros.std_over_batch is None  # of one example
    assert relu.mean_abs_gradient is None


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype):
    """A float16 sum would overflow at 65504, and a norm of small changes vanish."""
    y = np.full((300, 400), 2.0, dtype)
    assert autopsy_module._mean_abs(y) == pytest.approx(2.0)
    assert autopsy_module._on_and_off(y) == (0.0, 0.0, 1.0)


def test_numbers_that_overflow_are_no_warnings():
    """They are a diagnosis."""
    large = nn.Parameter(np.full((2, 2), 3e38, np.float32))
    infinite = nn.Parameter(np.full((2, 2), np.inf, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert autopsy_module._mean_abs(large.data) == math.inf
        assert math.isnan(autopsy_module._std_over_batch(infinite.data))
        assert math.isnan(autopsy_module._norms(infinite.data.copy(), infinite)[0])
        assert autopsy_module._norms(large.data.copy(), large) == (0.0, math.inf)


def test_on_a_gpu(monkeypatch):
    """On the stand-in for CuPy: arrays stay on their device, and its stream is entered."""
    import fake_cupy

    fake_cupy.install(monkeypatch)
    with minidl.plain_kernels():
        numbers = []
        for name in ("cpu:0", "cuda:0"):
            minidl.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(name)
            autopsy = Autopsy(model)
            with autopsy:
                loss = (model(minidl.randn(6, 4, device=name)) ** 2.0).sum()
                loss.backward()
                for p in model.parameters():
                    with p.device.active():
                        p.data -= p.grad * 0.1
            autopsy.after_step(loss)
            numbers.append([[getattr(row, name) for name in COLUMNS[5:]] for row in autopsy.rows])
            image = Tensor(np.arange(-20, 40, dtype=np.float32).reshape(2, 3, 5, 2), device=name)
            with image.device.active():
                numbers[-1].append(list(autopsy_module._on_and_off(image.data)))
    for ours, theirs in zip(*numbers, strict=True):
        assert [value is None for value in ours] == [value is None for value in theirs]
        np.testing.assert_allclose(*([v for v in row if v is not None] for row in (ours, theirs)), rtol=1e-5)
    assert fake_cupy.errors == []


# --------------------------------------------------------------------------------------------------- what is looked at, when


def small(*layers):
    return nn.Sequential(*layers) if layers else nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def blobs(n=32, seed=1):
    """Points around three centres, standardised, and their numbers."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    x = rng.standard_normal((n, FEATURES)) + 2 * np.eye(CLASSES, FEATURES)[labels]
    return Tensor(((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)), labels


def train(model, steps, lr=0.1, every=10, batch=None, optimizer=None, momentum=0.0):
    """The names of the illnesses that were reported, in order; and the autopsy."""
    autopsy, batch = Autopsy(model, every), batch or blobs()
    optimizer = optimizer or SGD(model.parameters(), lr=lr, momentum=momentum)
    reported = []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            optimizer.zero_grad()
            with autopsy:
                loss = F.cross_entropy(model(batch[0]), batch[1])
                loss.backward()
                optimizer.step()
            reported += autopsy.after_step(loss)
    return [diagnosis.illness.name for diagnosis in reported], autopsy


@pytest.mark.parametrize("every, looked", [(1, list(range(1, 9))), (3, [1, 3, 6]), (100, [1])])
def test_step_1_and_every_so_many_are_looked_at(every, looked):
    model, seen = small(), []
    autopsy = Autopsy(model, every)
    for step in range(1, 9):
        autopsy.after_step(one_step(autopsy, model, blobs()))
        assert autopsy.step == step
        if autopsy.rows:
            seen.append(step)
    assert seen == looked


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "3", None])
def test_every_must_be_a_whole_number_of_at_least_1(every):
    with pytest.raises(ValueError, match=r"Autopsy: every must be an int of at least 1, got "):
        Autopsy(small(), every)


def test_a_step_that_is_not_looked_at_costs_nothing(monkeypatch):
    model = small()
    autopsy = Autopsy(model, 10)
    autopsy.step = 1
    monkeypatch.setattr(Autopsy, "forward_ends", None)  # not called
    monkeypatch.setattr(autopsy_module, "_copied", None)
    autopsy.after_step(one_step(autopsy, model, blobs()))
    assert autopsy.rows == []


def test_only_what_the_model_does_while_it_learns():
    """Not another model's ops, nor those without a graph, nor those of an empty batch."""
    model, other = small(), small()
    autopsy = Autopsy(model)
    with autopsy:
        other(blobs()[0]).sum().backward()
        F.relu(blobs()[0])
        model(minidl.zeros(0, FEATURES))
        with minidl.no_grad():
            model(blobs()[0])
        assert autopsy.rows == []
        model(blobs()[0])
    assert len(autopsy.rows) == 3
    model(blobs()[0])
    assert len(autopsy.rows) == 3


def test_names_are_those_in_the_model_wherever_it_stands():
    inner = small()
    outer = nn.Sequential(nn.Linear(FEATURES, FEATURES), inner)
    autopsy = Autopsy(inner)
    with autopsy:
        outer(blobs()[0])
    assert [row.layer for row in autopsy.rows] == ["0", "1", "2"]


def test_a_step_that_failed_is_none():
    model = small()
    autopsy = Autopsy(model)
    with pytest.raises(ZeroDivisionError), autopsy:
        model(blobs()[0])
        raise ZeroDivisionError
    assert autopsy.rows == [] and autopsy.step == 0
    autopsy.after_step(one_step(autopsy, model, blobs()))
    assert len(autopsy.rows) == 3 and autopsy.step == 1


def test_the_weights_are_the_same_bits_with_an_autopsy_and_without():
    def weights(looked):
        minidl.manual_seed(3)
        model = small(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        autopsy = Autopsy(model, 1)
        for _ in range(5):
            optimizer.zero_grad()
            if looked:
                autopsy.__enter__()
            loss = F.cross_entropy(model(blobs()[0]), blobs()[1])
            loss.backward()
            optimizer.step()
            if looked:
                autopsy.__exit__(None, None, None)
                autopsy.after_step(loss)
        return [host(p) for p in model.parameters()]

    for with_it, without in zip(weights(True), weights(False), strict=True):
        np.testing.assert_array_equal(with_it, without)


# --------------------------------------------------------------------------------------------------------- planted illnesses


def deep(width=32, layers=6, sigma=2.0, unit=nn.ReLU, bias=0.0):
    """Linear layers with weights of variance sigma / fan_in and the unit between them."""
    sizes = [FEATURES, *[width] * layers, CLASSES]
    modules = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, 0.0, math.sqrt(sigma / fan_in))
        nn.init.constant_(linear.bias, bias)
        modules += [linear, unit()]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("model", [small, deep, lambda: deep(unit=nn.Tanh, sigma=1.0), lambda: deep(layers=2, unit=nn.Sigmoid)])
def test_a_healthy_run_has_no_diagnosis(model):
    """From the start to a loss near 0."""
    reported, autopsy = train(model(), 200, lr=0.1, every=1)
    assert reported == []
    assert autopsy._losses.means[-1] < 0.7 * math.log(CLASSES)


def test_a_run_is_healthy_until_an_illness_is_reported():
    _, well = train(small(), 30, lr=0.1, every=1)
    reported, sick = train(small(), 40, lr=4.0, momentum=0.9, every=1)
    assert well.healthy and reported and not sick.healthy
    resumed = Autopsy(small(), 1)
    assert resumed.healthy
    resumed.load_state_dict(json.loads(json.dumps(sick.state_dict())))
    assert not resumed.healthy


def test_a_bias_that_holds_every_unit_on():
    model = deep(layers=2, sigma=0.5)
    nn.init.constant_(model[0].bias, 4.0)
    assert train(model, 1, lr=1e-3)[0] == ["every unit on"]


def test_biases_that_drown_the_signal():
    model = deep(layers=2, sigma=1.0)
    model[1], model[3] = nn.Identity(), nn.Identity()
    nn.init.constant_(model[2].bias, 100.0)
    assert train(model, 1, lr=1e-4)[0] == ["examples look alike"]


def test_initial_weights_too_small():
    assert train(deep(sigma=0.05), 1)[0] == ["vanishing signal", "vanishing gradient"]


def test_deep_sigmoids():
    assert train(deep(sigma=1.0, unit=nn.Sigmoid), 1)[0] == ["examples look alike", "vanishing signal", "vanishing gradient"]


def test_initial_weights_too_large():
    assert train(deep(sigma=50.0, layers=4), 1, lr=1e-12)[0] == ["growing signal", "exploding gradient"]


def test_units_that_died():
    model = deep(layers=2)
    model[0].bias.data[:20] = -8
    reported, autopsy = train(model, 3, every=1)
    assert reported == ["dead ReLUs"]
    assert autopsy.rows[1].dead == 20 / 32


def test_weights_that_saturate_tanh():
    assert train(deep(unit=nn.Tanh, layers=2, sigma=30.0), 1, lr=1e-3)[0] == ["saturated units"]


def test_a_rate_too_large():
    assert train(small(), 40, lr=4.0, momentum=0.9, every=1)[0] == ["updates too large", "exploding loss"]


def test_a_rate_much_too_large():
    """NaN spreads to other layers with every step, and is said once."""
    reported, _ = train(deep(layers=2), 10, lr=4.0, momentum=0.9, every=1)
    assert reported[0] == "updates too large" and reported.count("not finite") == 1


def test_a_rate_too_small():
    assert train(deep(layers=2), 20, lr=1e-6, every=1)[0] == ["updates too small"]


def test_weights_that_the_optimizer_was_not_given():
    model = deep(layers=2, sigma=1.0)
    model[4].weight.data *= 0.1
    optimizer = SGD([*model[0].parameters(), *model[4].parameters()], lr=0.01)
    autopsy = Autopsy(model)
    found = []
    for _ in range(10):
        optimizer.zero_grad()
        with autopsy:
            loss = F.cross_entropy(model(blobs()[0]), blobs()[1])
            loss.backward()
            optimizer.step()
        found += autopsy.after_step(loss)
    assert [(d.illness.name, dict(d.layers)) for d in found] == [("updates too small", {"2": "0"})]


def test_labels_that_have_nothing_to_do_with_their_inputs():
    """New ones in every step; the loss stays where knowing nothing is."""
    model = small()
    nn.init.normal_(model[2].weight, 0, 0.05)
    autopsy, optimizer, found = Autopsy(model), SGD(model.parameters(), lr=0.01), {}
    for step in range(1, 131):
        x, _ = blobs(seed=step)
        optimizer.zero_grad()
        with autopsy:
            loss = F.cross_entropy(model(x), np.random.default_rng(step).integers(0, CLASSES, len(x)))
            loss.backward()
            optimizer.step()
        for diagnosis in autopsy.after_step(loss):
            found[step] = diagnosis
    assert [(step, d.illness.name) for step, d in found.items()] == [(100, "flat loss")]
    assert "ln C = ln 3 = 1.099" in str(found[100])


def test_infinity_in_a_weight():
    model = deep(layers=2)
    model[2].weight.data[0, 0] = np.inf
    reported, autopsy = train(model, 1)
    first = next(row.title for row in autopsy.rows if not math.isfinite(row.mean_abs_activation))
    assert reported == ["not finite"] and first == "2"


def test_a_loss_that_is_not_finite_is_said_at_any_step():
    model = small()
    autopsy = Autopsy(model, 10)
    autopsy.step = 4
    (found,) = autopsy.after_step(math.nan)
    assert found.illness.name == "not finite" and dict(found.layers) == {"the loss": "nan"}
    assert "detect_anomaly" in str(found)
    assert autopsy.after_step(math.nan) == []  # said already


def test_a_step_that_was_not_looked_at_is_not_judged():
    """However its loss explodes."""
    model = small()
    autopsy = Autopsy(model, 30)
    assert [autopsy.after_step(2.0**step) for step in range(29)] == [[]] * 29
    (found,) = autopsy.after_step(one_step(autopsy, model, blobs(), lr=1e-3))
    assert found.illness.name == "exploding loss" and autopsy.step == 30


def test_the_classes_are_those_of_the_loss():
    model = nn.Sequential(nn.Linear(FEATURES, 7), nn.LogSoftmax(1))
    autopsy = Autopsy(model)
    assert autopsy.classes is None
    with autopsy:
        F.nll_loss(model(blobs()[0]), blobs()[1]).backward()
    assert autopsy.classes == 7


def test_an_illness_is_reported_once_for_a_layer():
    model = deep(layers=2, sigma=0.5)
    nn.init.constant_(model[0].bias, 4.0)
    autopsy = Autopsy(model, 1)
    found = [autopsy.after_step(one_step(autopsy, model, blobs(), lr=1e-4)) for _ in range(3)]
    assert [len(diagnoses) for diagnoses in found] == [1, 0, 0]
    nn.init.constant_(model[2].bias, 40.0)
    (again,) = [d for d in autopsy.after_step(one_step(autopsy, model, blobs(), lr=1e-4)) if d.illness.name == "every unit on"]
    assert list(again.layers) == ["1", "3"]  # all that show it
    assert autopsy.after_step(one_step(autopsy, model, blobs(), lr=1e-4)) == []


# ------------------------------------------------------------------------------------------------------ resuming, and the log


def test_a_run_that_goes_on_says_what_the_whole_run_says():
    def run(stop):
        minidl.manual_seed(0)
        model = small()
        nn.init.normal_(model[2].weight, 0, 0.05)
        autopsy, reported = Autopsy(model, 10), []
        for step in range(130):
            if step == stop:
                saved = json.loads(json.dumps(autopsy.state_dict()))
                autopsy = Autopsy(model, 10)
                autopsy.load_state_dict(saved)
            rng = np.random.default_rng(step)
            loss = one_step(autopsy, model, (blobs(seed=step)[0], rng.integers(0, CLASSES, 32)), lr=1e-9)
            reported += [(autopsy.step, d.illness.name) for d in autopsy.after_step(loss)]
        return reported, autopsy.state_dict()

    whole = run(None)
    assert [name for _, name in whole[0]] == ["updates too small", "flat loss"]
    for stop in (0, 3, 10, 47, 105):
        assert run(stop) == whole


def row(**numbers):
    return Row('conv, "1"', "conv2d", 1, 0.123456789, **numbers)


def lines(path):
    return path.read_text().splitlines()


def test_the_log_is_a_csv_file(tmp_path):
    import csv

    log = AutopsyLog(tmp_path / "autopsy.csv")
    log.write(1, 2.25, [row(), row(zeros=0.0, mean_abs_gradient=1e-20, update_ratio=math.nan)])
    log.write(10, 0.5, [])
    with (tmp_path / "autopsy.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
        assert file.newlines == "\n"
    assert tuple(first) == COLUMNS
    given = {"step": "1", "loss": "2.25", "layer": 'conv, "1"', "op": "conv2d", "call": "1", "mean_abs_activation": "0.123457"}
    assert first == {**dict.fromkeys(COLUMNS, ""), **given}
    assert second == {**first, "zeros": "0", "mean_abs_gradient": "1e-20", "update_ratio": "nan"}
    assert set(COLUMNS[2:]) <= set(vars(row()))


def test_a_log_that_goes_on_drops_later_steps_and_a_line_cut_short(tmp_path):
    path = tmp_path / "autopsy.csv"
    log = AutopsyLog(path)
    for step in (1, 10, 20):
        log.write(step, 1.0, [row()])
    whole = lines(path)
    path.write_text(path.read_text() + '30,1.0,"con')
    AutopsyLog(path, 20)
    assert lines(path) == whole
    AutopsyLog(path, 19).write(20, 1.0, [row()])
    assert lines(path) == whole
    AutopsyLog(path, 9)
    assert lines(path) == whole[:2]
    AutopsyLog(path)
    heading = "step,loss,layer,op,call,mean_abs_activation,std_over_batch,mean_abs_gradient,zeros,dead,always_on,saturated,"
    assert lines(path) == whole[:1] == [heading + "mean_abs_weight_gradient,update_ratio"]
    assert [p.name for p in tmp_path.iterdir()] == ["autopsy.csv"]


def test_a_line_cut_short_is_dropped_even_where_it_looks_whole(tmp_path):
    path = tmp_path / "autopsy.csv"
    AutopsyLog(path).write(1, 1.0, [row(), row(zeros=0.25)])
    path.write_text(path.read_text()[:-1])
    AutopsyLog(path, 1)
    assert len(lines(path)) == 2


def test_what_does_not_fit_on_the_disk_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "autopsy.csv"
    log = AutopsyLog(path)
    log.write(1, 1.0, [row()])
    before = path.read_text()

    class Full:
        def __init__(self, file):
            self.file, self.tell, self.truncate, self.fileno = file, file.tell, file.truncate, file.fileno

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.file.close()

        def write(self, content):
            return self.file.write(content[:5])

    path_open = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *args, **settings: Full(path_open(*args, **settings)))
        with pytest.raises(OSError) as caught:
            log.write(10, 1.0, [row()])
    assert caught.value.errno == errno.ENOSPC and path.read_text() == before
    synced, fsync = [], os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (synced.append(path.read_text()), fsync(handle)))
        log.write(10, 1.0, [row()])
    assert synced == [path.read_text()]


def test_an_old_log_stays_where_the_new_one_can_not_be_written(tmp_path, monkeypatch):
    path = tmp_path / "autopsy.csv"
    AutopsyLog(path).write(1, 1.0, [row()])
    before = path.read_text()

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        AutopsyLog(path, 0)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["autopsy.csv"]
