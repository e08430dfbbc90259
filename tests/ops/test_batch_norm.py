"""minidl.ops.batch_norm against a loop over channels, running values, large means, empty batches, errors, memory layouts."""

import numpy as np
import pytest
from layer_cases import LayerCase, uniform
from marks import on_host

import minidl.nn as nn
from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.batch_norm import batch_norm

IMAGES = uniform((3, 4, 3, 2), (4,), (4,))
RUNNING = tuple(uniform((4,), (4,), low=0.5))
LAYER_CASES = {
    "batch_norm": LayerCase(
        lambda F, x, w, b, m, v: F.batch_norm(x, m, v, w, b, True, 0.3, 0.5),
        IMAGES,
        RUNNING,
        module=lambda nn: nn.BatchNorm2d(4, 0.5, 0.3),
    ),
    "batch_norm evaluation": LayerCase(
        lambda F, x, w, b, m, v: F.batch_norm(x, m, v, w, b, eps=0.5),
        IMAGES,
        RUNNING,
        module=lambda nn: nn.BatchNorm2d(4, 0.5, 0.3).eval(),
    ),
    "batch_norm no bias, the mean of all batches": LayerCase(
        lambda F, x, w, m, v: F.batch_norm(x, m, v, w, training=True, momentum=1.0, eps=0.5),
        uniform((3, 4, 5), (4,)),
        RUNNING,
        module=lambda nn: nn.BatchNorm1d(4, 0.5, momentum=None, bias=False),
    ),
    "batch_norm alone": LayerCase(
        lambda F, x: F.batch_norm(x, None, None, training=True),
        uniform((5, 4)),
        module=lambda nn: nn.BatchNorm1d(4, affine=False, track_running_stats=False),
    ),
}


def loop(x, w, b, gy, eps, mean=None, var=None):
    """y, gx, gw, gb: each channel's by the chain rule through every value of its mean and variance."""
    y, gx, gw, gb = np.empty_like(x), np.empty_like(x), np.empty_like(w), np.empty_like(b)
    for c in range(x.shape[1]):
        v, g = x[:, c].ravel(), gy[:, c].ravel()
        mu, sigma2 = (v.mean(), v.var()) if mean is None else (mean[c], var[c])
        z = (v - mu) / np.sqrt(sigma2 + eps)
        dz = np.eye(len(v)) / np.sqrt(sigma2 + eps)  # dz[i] / dx[j]
        if mean is None:
            dmu = np.full(len(v), 1 / len(v))
            dsigma2 = 2 * (v - mu) / len(v)
            dz -= dmu / np.sqrt(sigma2 + eps) + np.outer((v - mu) / 2 / (sigma2 + eps) ** 1.5, dsigma2)
        y[:, c] = (w[c] * z + b[c]).reshape(y[:, c].shape)
        gx[:, c] = (w[c] * g @ dz).reshape(y[:, c].shape)
        gw[c], gb[c] = g @ z, g.sum()
    return y, gx, gw, gb


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 2), (2, 3, 2, 1, 3)])
def test_forward_and_backward_against_a_loop(shape, training, run, device, rng):
    x, w, b = 3 + rng.standard_normal(shape), rng.standard_normal(3), rng.standard_normal(3)
    mean, var = np.array([1.0, 0.0, -2.0]), np.array([0.5, 1.0, 2.0])
    running = Tensor(mean.copy(), device=device), Tensor(var.copy(), device=device)
    y, gy, gradients = run(lambda x, w, b: batch_norm(x, *running, w, b, training, eps=0.1), x, w, b)
    expected = loop(x, w, b, gy, 0.1, *(() if training else (mean, var)))
    for got, wanted in zip((y, *gradients), expected, strict=True):  # sums of at most 24 terms below 20
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_running_values_follow_the_batch(device):
    x = Tensor(np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 9.0]]), device=device)
    mean, var = Tensor(np.array([8.0, 0.0]), device=device), Tensor(np.array([1.0, 1.0]), device=device)
    batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), [0.75 * 8 + 0.25 * 3, 0.25 * 3], rtol=1e-15)
    np.testing.assert_allclose(var.numpy(), [0.75 + 0.25 * 4, 0.75 + 0.25 * 27], rtol=1e-15)  # 8/2 and 54/2, not over 3


def test_backward_notices_that_a_running_value_it_needs_has_moved():
    layer, x = nn.BatchNorm1d(2), Tensor(np.eye(2, dtype=np.float32), requires_grad=True)
    y = x * layer.running_var
    layer(x)
    with pytest.raises(RuntimeError, match="batch_norm"):
        y.sum().backward()


def test_evaluation_leaves_running_values_alone(device):
    running = [Tensor(np.array([0.5, 2.0]), device=device) for _ in range(2)]
    batch_norm(Tensor(np.array([[1.0, 2.0]]), device=device), *running)
    assert all(r.numpy().tolist() == [0.5, 2.0] for r in running)


def test_what_the_module_counts(device):
    layer = nn.BatchNorm1d(2, device=device)
    x = Tensor(np.eye(2, dtype=np.float32), device=device)
    for _ in range(3):
        layer(x)
    layer.eval()(x)
    assert layer.num_batches_tracked.numpy() == 3 and layer.num_batches_tracked.dtype == np.int64
    layer.reset_running_stats()
    state = layer.state_dict()
    assert [state[key].tolist() for key in ("running_mean", "running_var", "num_batches_tracked")] == [[0, 0], [1, 1], 0]


def test_initial_values():
    state = nn.BatchNorm2d(2).state_dict()
    assert {name: values.tolist() for name, values in state.items()} == {
        "weight": [1, 1],
        "bias": [0, 0],
        "running_mean": [0, 0],
        "running_var": [1, 1],
        "num_batches_tracked": 0,
    }


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"affine": False}, {"track_running_stats": False}])
def test_it_begins_as_pytorchs(settings, torch):
    ours, theirs = (nn.BatchNorm2d(3, **settings).state_dict() for nn in (nn, torch.nn))
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values.numpy(), strict=True)


def test_momentum_none_is_the_mean_of_all_batches(device, rng):
    layer = nn.BatchNorm1d(3, momentum=None, device=device, dtype="float64")
    batches = rng.standard_normal((4, 5, 3))
    for batch in batches:
        layer(Tensor(batch, device=device))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean(axis=(0, 1)), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(layer.running_var.numpy(), batches.var(axis=1, ddof=1).mean(axis=0), rtol=1e-12)


def test_training_that_does_not_track_leaves_the_running_values(device):
    """PyTorch's rule for a layer that is told so after it was made: evaluation goes on with what there is."""
    layer = nn.BatchNorm1d(2, device=device)
    layer.track_running_stats = False
    x = Tensor(np.array([[0.0, 4.0], [2.0, 8.0]], np.float32), device=device)
    np.testing.assert_allclose(layer(x).detach().numpy(), [[-1, -1], [1, 1]], rtol=1e-5)
    assert layer.running_mean.numpy().tolist() == [0, 0] and layer.num_batches_tracked.item() == 0
    np.testing.assert_allclose(layer.eval()(x).detach().numpy(), x.numpy(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)])
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_changes_nothing(shape, training, run, device):
    running = [Tensor(np.array([0.5, 2.0, 3.0]), device=device) for _ in range(2)]
    y, _, gradients = run(lambda x, w, b: batch_norm(x, *running, w, b, training), np.zeros(shape), np.ones(3), np.ones(3))
    assert y.shape == gradients[0].shape == shape
    assert all(g.tolist() == [0, 0, 0] for g in gradients[1:])
    assert all(r.numpy().tolist() == [0.5, 2.0, 3.0] for r in running)


def test_nan_and_infinity_stay_in_their_channel(device):
    x = np.zeros((3, 3))
    x[:, 2], x[1, 0], x[2, 1] = [1, 2, 3], np.nan, np.inf
    with np.errstate(invalid="ignore"):
        y = batch_norm(Tensor(x, device=device), None, None, training=True).numpy()
    np.testing.assert_array_equal(np.isnan(y), [[True, True, False]] * 3)


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("shape", [(100_000, 2), (16, 4, 40, 40)])
def test_large_means_cost_no_digits(shape, device, rng):
    """1e4 + noise in float32: the values that are normalised are exact, so the result has float32's own rounding: a few times
    2^-24 of numbers up to 6, though the mean itself is known to 5e-4 only."""
    x = (1e4 + rng.standard_normal(shape)).astype(np.float32)
    axes = (0, *range(2, x.ndim))
    exact = x.astype(np.float64)
    mean, var = exact.mean(axis=axes, keepdims=True), exact.var(axis=axes, keepdims=True)
    running = [Tensor(np.zeros(shape[1], np.float32), device=device) for _ in range(2)]
    y = batch_norm(Tensor(x, device=device), *running, training=True, momentum=1.0)
    np.testing.assert_allclose(y.numpy(), (exact - mean) / np.sqrt(var + 1e-5), rtol=0, atol=1e-6)
    np.testing.assert_allclose(running[0].numpy(), mean.ravel(), rtol=1e-7)
    unbiased = exact.var(axis=axes, ddof=1)
    np.testing.assert_allclose(running[1].numpy(), unbiased, rtol=3e-7)  # the squares' and the last rounding


def test_long_channels_cost_the_gradients_no_digits(device, rng):
    """A million float32 terms, whose sum in float32, one after the other, is off by some 1e-5. With gy = x they add up."""
    x = rng.uniform(0, 1, (1_000_000, 2)).astype(np.float32)
    leaf, w, b = (Tensor(a, True, device) for a in (x, np.ones(2, np.float32), np.zeros(2, np.float32)))
    batch_norm(leaf, None, None, w, b, training=True).backward(x)
    exact = x.astype(np.float64)
    z = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)
    np.testing.assert_allclose(b.grad.numpy(), exact.sum(axis=0), rtol=1.2e-7)
    # 1 / sqrt(var + eps) and the sum are rounded, each by 6e-8; what every z is rounded by cancels
    np.testing.assert_allclose(w.grad.numpy(), (exact * z).sum(axis=0), rtol=2e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 3, 2, 2), (3,), (3,)))
    y, _, gradients = run(lambda x, w, b: batch_norm(x, None, None, w, b, training=True), x, w, b)
    assert y.dtype == dtype and all(g.dtype == dtype for g in gradients)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_gradcheck_of_one_operand(needed, leaves):
    tensors = leaves((3, 2, 2), (2,), (2,))
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i == needed)
    gradcheck(lambda x, w, b: batch_norm(x, None, None, w, b, training=True), tensors)


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "1 axis": ({"input": (3,)}, "x must be floats of (N, C) or (N, C, ...), got float64 (3,)"),
    "ints": ({"dtype": np.int64}, "x must be floats of (N, C) or (N, C, ...), got int64 (4, 3)"),
    "one row": ({"input": (1, 3), "training": True}, "in training each channel must have more than 1 value, got 1 (x (1, 3))"),
    "one pixel": (
        {"input": (1, 3, 1, 1), "training": True},
        "in training each channel must have more than 1 value, got 1 (x (1, 3, 1, 1))",
    ),
    "eps 0 in training": ({"training": True, "eps": 0.0}, "eps must be above 0, got 0.0"),
    "eps below 0": ({"eps": -0.5}, "eps must be at least 0, got -0.5"),
    "no running values": (
        {"running_mean": None, "running_var": None},
        "evaluation needs running_mean and running_var, got no running_mean and no running_var",
    ),
    "no running mean": ({"running_mean": None}, "evaluation needs running_mean and running_var, got no running_mean"),
    "one running value in training": (
        {"running_var": None, "training": True},
        "running_mean and running_var must be given both or neither, got no running_var",
    ),
    "another length": ({"running_var": (4,)}, "running_var must be (3,), got (4,) (x (4, 3))"),
    "weight of another length": ({"weight": (2,)}, "weight must be (3,), got (2,) (x (4, 3))"),
    "bias of another dtype": ({"bias": np.float32}, "bias must have x's dtype float64, got float32"),
    "running mean of another dtype": ({"running_mean": np.float32}, "running_mean must have x's dtype float64, got float32"),
    "a trained running value": ({"running_var": "trained"}, "running_var has no gradient, but requires one"),
}


def call(case, tensor, function):
    """The function with the arguments of an error, all right where the case says nothing."""
    given = {"input": (4, 3), "running_mean": (3,), "running_var": (3,), "dtype": np.float64, **ERRORS[case][0]}
    dtype = given.pop("dtype")
    made = {"input": tensor(np.ones(given.pop("input"), dtype), False)}
    for name in ("running_mean", "running_var", "weight", "bias"):
        value = given.pop(name, None)
        if value is not None:
            shape = value if isinstance(value, tuple) else (3,)
            made[name] = tensor(np.ones(shape, value if isinstance(value, type) else np.float64), value == "trained")
        else:
            made[name] = None
    return function(**made, **given)


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    with pytest.raises((ValueError, RuntimeError)) as error:
        call(case, Tensor, batch_norm)
    assert str(error.value) == f"batch_norm: {ERRORS[case][1]}"


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_pytorchs(case, torch):
    with pytest.raises((ValueError, RuntimeError)) as ours:
        call(case, Tensor, batch_norm)
    with pytest.raises(ours.type):
        call(case, lambda a, grad: torch.tensor(a, requires_grad=grad), torch.nn.functional.batch_norm)


def test_operands_are_on_one_device():
    x, running = Tensor(np.ones((2, 3))), [Tensor(np.ones(3), device="cpu:1") for _ in range(2)]
    with pytest.raises(RuntimeError, match=r"^batch_norm: x is on cpu:0, y on cpu:1, z on cpu:1; move one with .to\(device\)$"):
        batch_norm(x, *running, training=True)


def test_the_modules_errors(device):
    images = Tensor(np.ones((2, 3, 4, 4), np.float32), device=device)
    with pytest.raises(ValueError, match=r"^BatchNorm1d: x must have 2 or 3 axes, got 4 \(x \(2, 3, 4, 4\)\)$"):
        nn.BatchNorm1d(3, device=device)(images)
    with pytest.raises(ValueError, match=r"^BatchNorm2d: x must have 4 axes, got 3 \(x \(3, 4, 4\)\)$"):
        nn.BatchNorm2d(3, device=device)(images[0])
    with pytest.raises(RuntimeError, match=r"^batch_norm: running_mean must be \(3,\), got \(5,\) \(x \(2, 3, 4, 4\)\)$"):
        nn.BatchNorm2d(5, device=device)(images)
    with pytest.raises(RuntimeError, match=r"^BatchNorm1d: num_features must be at least 0, got -1$"):
        nn.BatchNorm1d(-1)
    with pytest.raises(TypeError, match=r"^BatchNorm2d: num_features must be an int, got 2.5$"):
        nn.BatchNorm2d(2.5)


# -------------------------------------------------------------------------------------------------------------- layout


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = batch_norm(x, None, None, training=True)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]
