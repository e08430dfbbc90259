"""local_response_norm: outputs and gradients equal PyTorch's."""

import numpy as np
import pytest

import minidl.nn.functional as F

from .compare import LAYOUTS, arrange, compare

torch = pytest.importorskip("torch")

STRONG = {"alpha": 0.9, "beta": 0.75, "k": 1.1}  # every term of the gradient matters
PRODUCTION = {"alpha": 1e-4, "beta": 0.75, "k": 2.0}


def check(x, *args, **settings):
    compare(
        lambda t: F.local_response_norm(t, *args, **settings),
        lambda t: torch.nn.functional.local_response_norm(t, *args, **settings),
        x,
    )


@pytest.mark.parametrize("settings", [STRONG, PRODUCTION, {"alpha": 1.3, "beta": 0.5, "k": 0.8}, {"alpha": 0.7, "beta": 2.0}])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_local_response_norm(size, settings, rng):
    check(rng.standard_normal((2, 6, 3, 4)), size, **settings)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9, 12, 13])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_local_response_norm_window_over_all_channels(channels, size, rng):
    check(rng.standard_normal((2, channels, 2, 3)), size, **STRONG)


@pytest.mark.parametrize("shape", [(3, 7, 4), (2, 7, 3, 4), (2, 7, 2, 3, 2), (0, 7, 2, 3)])
@pytest.mark.parametrize("size", [4, 5])
def test_local_response_norm_of_any_rank(size, shape, rng):
    check(rng.standard_normal(shape), size, **STRONG)


@pytest.mark.parametrize("settings", [STRONG, PRODUCTION], ids=["strong", "production"])
@pytest.mark.parametrize("shape", [(1, 48, 15, 15), (1, 96, 15, 15), (2, 128, 13, 13), (1, 256, 13, 13)])
def test_local_response_norm_of_alexnet(shape, settings, rng):
    check(rng.standard_normal(shape) * 10, 5, **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_local_response_norm_in_any_memory(layout, rng):
    check(arrange(rng.standard_normal((2, 6, 3, 4)), layout), 4, **STRONG)


def test_local_response_norm_defaults(rng):
    check(rng.standard_normal((2, 6, 3, 4)) * 100, 5)


def test_local_response_norm_of_zeros(rng):
    check(np.zeros((2, 6, 3, 4)), 5, **STRONG)
