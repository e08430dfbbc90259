"""What tests/test_every_layer.py does not ask of the layers of minidl.nn: dropout in evaluation, losses, initial values,
errors; PyTorch is the oracle for a whole network."""

import math

import numpy as np
import pytest

import minidl.nn as nn
import minidl.nn.functional as F
from minidl.layout import channels_last, is_channels_last
from minidl.random import default_generator, manual_seed
from minidl.tensor import Tensor


@pytest.fixture(autouse=True)
def _seed():
    before = default_generator.state()
    manual_seed(0)
    yield
    default_generator.set_state(before)


def images(seed=0):
    """(2, 4, 7, 7), channels-last."""
    x = np.random.default_rng(seed).standard_normal((2, 4, 7, 7)).astype(np.float32)
    return Tensor(channels_last(x), requires_grad=True)


def scores(seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal((6, 5)).astype(np.float32), requires_grad=True)


def same(a, b):
    np.testing.assert_array_equal(a.data, b.data)
    assert a.dtype == b.dtype


# ------------------------------------------------------------------------------------- the same as the function's result


@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_dropout_acts_in_training_only(scale_at):
    layer, x = nn.Dropout(0.3, scale_at=scale_at), images()
    manual_seed(1)
    y = layer(x)
    manual_seed(1)
    same(y, F.dropout(x, 0.3, training=True, scale_at=scale_at))
    assert (y.data == 0).any()
    layer.eval()
    same(layer(x), F.dropout(x, 0.3, training=False, scale_at=scale_at))
    assert layer(x).data.all()


def test_losses_are_the_functions():
    ids = Tensor(np.array([0, 4, 2, 1, 3, 3]))
    weight = Tensor(np.arange(1.0, 6.0, dtype=np.float32))
    for reduction in ("mean", "sum", "none"):
        settings = {"weight": weight, "ignore_index": 3, "reduction": reduction}
        same(nn.NLLLoss(**settings)(scores(), ids), F.nll_loss(scores(), ids, **settings))
        smoothed = settings | {"label_smoothing": 0.1}
        same(nn.CrossEntropyLoss(**smoothed)(scores(), ids), F.cross_entropy(scores(), ids, **smoothed))
    same(nn.CrossEntropyLoss()(scores(), ids), F.cross_entropy(scores(), ids))


def test_a_loss_s_weight_is_a_buffer():
    loss = nn.CrossEntropyLoss(weight=Tensor(np.ones(5, np.float32)))
    assert list(loss.state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    assert str(loss.to("cpu:1").weight.device) == "cpu:1"


# ------------------------------------------------------------------------------------------------------- initial values


@pytest.mark.parametrize(("layer", "fan_in"), [(nn.Conv2d(32, 200, 5, groups=2), 16 * 25), (nn.Linear(400, 200), 400)])
def test_initial_values_fill_their_range(layer, fan_in):
    # 80,000 weights miss the last 1e-3 of one side with probability e^-40, 200 biases the last tenth of one with e^-10
    bound = 1 / math.sqrt(fan_in)
    for values, filled in ((layer.weight.data, 0.999), (layer.bias.data, 0.9)):
        assert filled * bound < values.max() <= np.float32(bound)
        assert filled * bound < -values.min() <= np.float32(bound)


def test_initial_values_follow_the_seed_on_every_device_and_dtype():
    def weights(**settings):
        manual_seed(5)
        layer = nn.Conv2d(3, 8, 3, **settings)
        return layer.weight.data, layer.bias.data

    for actual, exact in zip(weights(device="cpu:1"), weights(dtype=np.float64), strict=True):
        np.testing.assert_array_equal(actual, exact.astype(np.float32))
    assert (weights()[0] != nn.Conv2d(3, 8, 3).weight.data).any()


def test_devices_dtypes_and_layout():
    for layer in (nn.Conv2d(3, 8, 3, device="cpu:1", dtype="float64"), nn.Linear(3, 2, device="cpu:1", dtype="float64")):
        assert layer.weight.dtype == layer.bias.dtype == np.float64
        assert str(layer.weight.device) == str(layer.bias.device) == "cpu:1"
    assert nn.Linear(3, 2).weight.dtype == nn.Conv2d(3, 8, 3).bias.dtype == np.float32
    layer = nn.Conv2d(6, 9, (3, 2), groups=3)
    assert layer.weight.shape == (9, 2, 3, 2)
    assert is_channels_last(layer.weight.data)


def test_reset_parameters_draws_anew():
    layer = nn.Linear(4, 4)
    weight, before = layer.weight, layer.weight.data.copy()
    layer.reset_parameters()
    assert layer.weight is weight
    assert (weight.data != before).all()


def test_layers_without_inputs_get_zero_sized_weights():
    layer = nn.Linear(0, 3)
    assert layer.weight.shape == (3, 0)
    assert np.isfinite(layer.bias.data).all()


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: nn.Conv2d(3, 4, 3, groups=2),
            ValueError,
            "Conv2d: in_channels must be divisible by groups, got 3 and 2",
        ),
        (
            lambda: nn.Conv2d(4, 3, 3, groups=2),
            ValueError,
            "Conv2d: out_channels must be divisible by groups, got 3 and 2",
        ),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, "Conv2d: groups must be an int of at least 1, got 0"),
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "Conv2d: in_channels must be an int of at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4.0, 3), ValueError, "Conv2d: out_channels must be an int of at least 1, got 4.0"),
        (
            lambda: nn.Conv2d(3, 4, 3, padding_mode="reflect"),
            ValueError,
            "Conv2d: padding_mode must be 'zeros', got 'reflect'",
        ),
        (
            lambda: nn.Conv2d(3, 4, 3, padding="full"),
            ValueError,
            "Conv2d: padding must be an int, two ints, 'valid' or 'same', got 'full'",
        ),
        (lambda: nn.Conv2d(3, 4, 0), RuntimeError, "Conv2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), RuntimeError, "Conv2d: stride must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), RuntimeError, "Conv2d: padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=0), RuntimeError, "Conv2d: dilation must be at least 1, got 0"),
        (lambda: nn.Linear(-1, 2), ValueError, "Linear: in_features must be an int of at least 0, got -1"),
        (lambda: nn.Linear(1, 2.5), ValueError, "Linear: out_features must be an int of at least 0, got 2.5"),
        (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must be in [0, 1], got 1.5"),
        (
            lambda: nn.Dropout(scale_at="both"),
            ValueError,
            "Dropout: scale_at must be 'train' or 'test', got 'both'",
        ),
        (
            lambda: nn.ZeroPad2d((1, 2)),
            ValueError,
            "ZeroPad2d: padding must be an int or (left, right, top, bottom), got (1, 2)",
        ),
        (
            lambda: nn.CrossEntropyLoss(weight=[1.0]),
            TypeError,
            "CrossEntropyLoss: buffer 'weight' must be a Tensor or None, got list",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


# --------------------------------------------------------------------------------------------------------------- PyTorch


def build_all(nn):
    return [
        nn.NLLLoss(),
        nn.CrossEntropyLoss(),
        nn.Identity(),
    ]


def test_reprs_are_pytorchs(torch):
    for ours, theirs in zip(build_all(nn), build_all(torch.nn), strict=True):
        assert repr(ours) == repr(theirs)
    assert repr(nn.Dropout(scale_at="test")) == "Dropout(p=0.5, inplace=False, scale_at='test')"


def build_net(nn):
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1.0, k=2.0),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(8, 6, 2),
        nn.Tanh(),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.LogSoftmax(dim=1),
    )


def test_a_whole_network_is_pytorchs(torch):
    # float64: a sum of a few hundred terms near 1 is exact to about 1e-13; 1e-10 leaves room for cancellation
    theirs, ours = build_net(torch.nn).double(), build_net(nn).double()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x, target = images().data.astype(np.float64), np.array([1, 4])
    loss = nn.NLLLoss()(ours(Tensor(x)), Tensor(target))
    expected = torch.nn.NLLLoss()(theirs(torch.tensor(x)), torch.tensor(target))
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    for (name, ours_p), (their_name, their_p) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == their_name
        np.testing.assert_allclose(ours_p.grad, their_p.grad.numpy(), rtol=1e-10, atol=1e-10)
