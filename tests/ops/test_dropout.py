"""minidl.ops.dropout: the share that is kept, the mask in backward and on every device, both scalings, gradcheck, errors,
memory layouts."""

import re

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase

import minidl
from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.dropout import dropout
from minidl.random import Generator

LAYER_CASES = {
    "dropout": LayerCase(lambda F, x: F.dropout(x, 0.4), IMAGES, module=lambda nn: nn.Dropout(0.4), theirs=""),  # other numbers
    "dropout 2012": LayerCase(lambda F, x: F.dropout(x, 0.4, scale_at="test"), IMAGES, theirs=""),
}

P = [0.1, 0.5, 0.8]
N = 100_000


def bound(p):
    """Six standard deviations of the share of N units that are kept: missed twice in a thousand million draws."""
    return 6 * (p * (1 - p) / N) ** 0.5


# ------------------------------------------------------------------------------------------------------ against a loop


@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_forward_and_backward_against_a_loop(p, scale_at, run, rng):
    x = rng.standard_normal((2, 3, 4, 5))
    minidl.manual_seed(7)
    y, gy, (gx,) = run(lambda t: dropout(t, p, scale_at=scale_at), x)
    mask = Generator(7).bernoulli(1 - p, x.shape)
    for at in np.ndindex(x.shape):
        factor = 0 if not mask[at] else 1 / (1 - p) if scale_at == "train" else 1
        assert y[at] == x[at] * factor
        assert gx[at] == gy[at] * factor


@pytest.mark.parametrize("p", P)
def test_the_share_that_is_kept(p, device):
    y = dropout(Tensor(np.ones(N), device=device), p).numpy()
    assert abs((y != 0).mean() - (1 - p)) < bound(p)


@pytest.mark.parametrize("p", P)
def test_both_scalings_have_the_expectation_of_their_evaluation(p, device):
    x = Tensor(np.full(N, 3.0), device=device)
    for scale_at, expected in (("train", 3.0), ("test", 3.0 * (1 - p))):
        evaluated = dropout(x, p, training=False, scale_at=scale_at).numpy()
        np.testing.assert_allclose(evaluated, expected, rtol=1e-15)
        trained = dropout(x, p, scale_at=scale_at).numpy()
        largest = 3 / (1 - p) if scale_at == "train" else 3
        assert abs(trained.mean() - expected) < largest * bound(p)


@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_backward_uses_the_mask_of_forward(scale_at, device):
    x = Tensor(np.ones(1000), True, device)
    y = dropout(x, 0.5, scale_at=scale_at)
    dropout(x, 0.5)  # another draw in between
    y.backward(np.ones(1000))
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_the_same_seed_gives_the_same_mask_on_every_device(device):
    masks = []
    for where in ("cpu:0", device):
        minidl.manual_seed(3)
        masks.append([dropout(Tensor(np.ones((4, 50)), device=where), 0.5).numpy() for _ in range(2)])
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0][0] != masks[0][1]).any()  # the next draw is another


def test_p_0_keeps_everything_and_p_1_nothing(run, rng):
    x = rng.standard_normal((5, 6))
    for scale_at in ("train", "test"):
        y, gy, (gx,) = run(lambda t: dropout(t, 0.0, scale_at=scale_at), x)  # noqa: B023  used at once
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(gx, gy)
        y, _, (gx,) = run(lambda t: dropout(t, 1.0, scale_at=scale_at), x)  # noqa: B023
        assert not y.any() and not gx.any()


def test_evaluation_draws_nothing(device, rng):
    x = Tensor(rng.standard_normal((3, 4)), device=device)
    before = minidl.random.default_generator.state()
    assert dropout(x, 0.5, training=False) is x
    scaled = dropout(x, 0.25, training=False, scale_at="test")
    np.testing.assert_array_equal(scaled.numpy(), 0.75 * x.numpy())
    assert minidl.random.default_generator.state() == before


def test_empty_batch(run):
    y, _, (gx,) = run(dropout, np.zeros((0, 4)))
    assert y.shape == gx.shape == (0, 4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_in_place_it_is_the_same_in_the_input(training, scale_at):
    results = []
    for inplace in (True, False):
        minidl.manual_seed(3)
        x = Tensor(np.ones(100))
        y = dropout(x, 0.3, training, inplace, scale_at=scale_at)
        assert (y is x) == (inplace or (scale_at == "train" and not training))
        results.append(y.data)
    np.testing.assert_array_equal(*results)


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", P)
def test_gradcheck(p, training, scale_at, leaves):
    gradcheck(lambda x: dropout(x, p, training, scale_at=scale_at) * 1.0, leaves((4, 6)))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_is_a_probability(p, device):
    with pytest.raises(ValueError, match=f"^{re.escape(f'dropout: p must be in [0, 1], got {p}')}$"):
        dropout(Tensor([1.0], device=device), p)


def test_scale_at_is_one_of_two(device):
    text = "dropout: scale_at must be 'train' or 'test', got 'both'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        dropout(Tensor([1.0], device=device), scale_at="both")


# -------------------------------------------------------------------------------------------------------------- layout


def test_memory_order_of_the_input_changes_nothing(arrange, device, rng):
    array, gy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    results = []
    for x in (Tensor(array, True, device), arrange(array)):
        minidl.manual_seed(5)
        y = dropout(x)
        y.backward(gy)
        results.append((y.detach().numpy(), x.grad.numpy()))
    np.testing.assert_array_equal(results[0], results[1])


def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = dropout(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_dtype_stays(dtype, training, scale_at, device, rng):
    x = Tensor(rng.standard_normal((3, 4)).astype(dtype), True, device)
    y = dropout(x, 0.3, training, scale_at=scale_at)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
