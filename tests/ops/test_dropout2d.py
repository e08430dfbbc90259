"""minidl.ops.dropout2d: whole maps, the share that is kept, the mask of every device, evaluation, errors, memory layouts."""

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

import minidl
import minidl.nn as nn
from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.dropout2d import dropout2d
from minidl.random import Generator

LAYER_CASES = {
    "dropout2d": LayerCase(
        lambda F, x: F.dropout2d(x, 0.4),
        IMAGES,
        module=lambda nn: nn.Dropout2d(0.4, True),
        theirs="",  # other random numbers
    ),
}


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_forward_and_backward_against_a_loop(p, run, rng):
    x = rng.standard_normal((4, 3, 2, 5))
    minidl.manual_seed(7)
    y, gy, (gx,) = run(lambda t: dropout2d(t, p), x)
    mask = Generator(7).bernoulli(1 - p, (4, 3))
    for n, c in np.ndindex(4, 3):
        factor = 1 / (1 - p) if mask[n, c] else 0
        np.testing.assert_array_equal(y[n, c], x[n, c] * factor)
        np.testing.assert_array_equal(gx[n, c], gy[n, c] * factor)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_share_of_maps_that_are_kept(p, device):
    y = dropout2d(Tensor(np.ones((100, 1000, 1, 2)), device=device), p).numpy()
    np.testing.assert_array_equal(y[..., 0], y[..., 1])
    assert abs((y != 0).mean() - (1 - p)) < 6 * (p * (1 - p) / 100_000) ** 0.5  # six standard deviations


def test_evaluation_is_the_input_and_draws_nothing(device):
    x = Tensor(np.ones((2, 3, 4, 4)), device=device)
    before = minidl.random.default_generator.state()
    assert dropout2d(x, 0.5, training=False) is x and nn.Dropout2d(0.5).eval()(x) is x
    assert minidl.random.default_generator.state() == before


@pytest.mark.parametrize("shape", [(6, 7), (2, 3, 4), (2, 3, 4, 5, 6)])
def test_other_axes_are_taken_for_n_c_with_a_warning(shape, run):
    with pytest.warns(UserWarning, match=r"^dropout2d: x should be \(N, C, H, W\); \(.*\) is taken for \(N, C, ...\)$"):
        y, _, _ = run(lambda t: dropout2d(t, 0.5), np.ones(shape))
    maps = y.reshape(*shape[:2], -1)
    assert 0 < (maps == 0).mean() < 1 and (maps == maps[..., :1]).all()


@pytest.mark.parametrize("shape", [(6, 7), (2, 3, 4), (2, 3, 4, 5, 6)])
def test_pytorch_takes_other_axes_so_too(shape, torch):
    with pytest.warns(UserWarning):
        maps = torch.nn.functional.dropout2d(torch.ones(shape), 0.5).reshape(*shape[:2], -1)
    assert (maps == maps[..., :1]).all()


def test_empty_batch(run):
    y, _, (gx,) = run(dropout2d, np.zeros((0, 3, 4, 4)))
    assert y.shape == gx.shape == (0, 3, 4, 4)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_is_a_probability(p, device):
    with pytest.raises(ValueError, match=rf"^dropout2d: p must be in \[0, 1\], got {p}$"):
        dropout2d(Tensor(np.ones((1, 1, 1, 1)), device=device), p)
    with pytest.raises(ValueError, match=rf"^Dropout2d: p must be in \[0, 1\], got {p}$"):
        nn.Dropout2d(p)


def test_errors(device):
    with pytest.raises(RuntimeError, match=r"^dropout2d: x must be floats of \(N, C, H, W\), got float64 \(3,\)$"):
        dropout2d(Tensor(np.ones(3), device=device))
    with pytest.raises(RuntimeError, match=r"^dropout2d: x must be floats of .*, got int64 \(1, 1, 1, 1\)$"):
        dropout2d(Tensor(np.ones((1, 1, 1, 1), np.int64), device=device))


@on_host
def test_channels_last_stays_channels_last(channels_last_leaf):
    x, gy, received = channels_last_leaf
    y = dropout2d(x)
    y.backward(gy)
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run):
    y, _, (gx,) = run(dropout2d, np.ones((2, 3, 4, 4), dtype))
    assert y.dtype == gx.dtype == dtype
