"""max_pool2d and avg_pool2d: outputs, indices and gradients equal PyTorch's."""

import itertools

import numpy as np
import pytest

import minidl.nn.functional as F

from .compare import LAYOUTS, arrange, compare

torch = pytest.importorskip("torch")


def check_max(x, *args, **settings):
    compare(lambda t: F.max_pool2d(t, *args, **settings), lambda t: torch.nn.functional.max_pool2d(t, *args, **settings), x)


def check_avg(x, *args, **settings):
    compare(lambda t: F.avg_pool2d(t, *args, **settings), lambda t: torch.nn.functional.avg_pool2d(t, *args, **settings), x)


def distinct(shape, rng):
    """No two elements equal, some of each sign."""
    return rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2


# id: x, arguments, settings
MAX = {
    "2x2": ((2, 3, 6, 8), (2,), {}),
    "3x3/2": ((2, 3, 7, 9), (3, 2), {}),
    "columns left over": ((2, 3, 8, 10), (3, 2), {}),
    "stride over kernel": ((2, 3, 9, 10), (2, 3), {}),
    "stride 1": ((2, 3, 5, 6), (3, 1), {}),
    "rectangle": ((2, 3, 9, 10), ((2, 3), (3, 1)), {"padding": (1, 0)}),
    "padded": ((2, 3, 7, 8), (3, 2), {"padding": 1}),
    "dilated": ((2, 3, 9, 10), (3, 2), {"dilation": 2}),
    "dilated, padded": ((2, 3, 9, 10), ((3, 2), (1, 2)), {"dilation": (3, 2), "padding": 1}),
    "ceil": ((2, 3, 8, 10), (3, 2), {"ceil_mode": True}),
    "ceil, padded": ((2, 3, 6, 7), (3, 2), {"ceil_mode": True, "padding": 1}),
    "ceil, dilated, padded": ((2, 3, 10, 9), (3, 3), {"ceil_mode": True, "padding": 1, "dilation": 2}),
    "whole image": ((2, 3, 5, 4), ((5, 4),), {}),
    "1x1": ((2, 3, 4, 5), (1,), {}),
    "kernel of 17x17": ((1, 2, 18, 19), (17, 1), {}),
    "no image": ((0, 3, 6, 7), (3, 2), {}),
    "unbatched": ((3, 7, 8), (3, 2), {}),
}


@pytest.mark.parametrize("indices", [False, True], ids=["values", "indices"])
@pytest.mark.parametrize("case", MAX)
def test_max_pool2d(case, indices, rng):
    x, args, settings = MAX[case]
    check_max(distinct(x, rng), *args, **settings, return_indices=indices)


@pytest.mark.parametrize("shape", [(2, 96, 55, 55), (2, 128, 27, 27), (2, 256, 13, 13)])
def test_max_pool2d_of_alexnet(shape, rng):
    check_max(rng.standard_normal(shape), 3, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_max_pool2d_in_any_memory(layout, rng):
    check_max(arrange(distinct((2, 3, 7, 8), rng), layout), 3, 2, padding=1, return_indices=True)


@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool2d_ties_go_to_the_first(padding, rng):
    check_max(rng.integers(-1, 2, (3, 4, 8, 9)).astype(float), 3, 2, padding=padding, return_indices=True)


def test_max_pool2d_padding_never_wins(rng):
    check_max(-rng.random((2, 3, 7, 7)) - 5, 3, 2, padding=1, return_indices=True)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_max_pool2d_nan(share, rng):
    x = rng.standard_normal((3, 4, 8, 9))
    x[rng.random(x.shape) < share] = np.nan
    check_max(x, 3, 2, padding=1, return_indices=True)


@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"padding": 1, "dilation": 2}, {"ceil_mode": True}])
@pytest.mark.parametrize("share", [0.8, 1.0])
def test_max_pool2d_minus_infinity(share, settings, rng):
    x = rng.standard_normal((3, 4, 8, 9))
    x[rng.random(x.shape) < share] = -np.inf
    check_max(x, 3, 2, return_indices=True, **settings)


def sizes_that_fit(size, kernel, stride, padding, dilation=1):
    """With ceil_mode PyTorch takes any padding up to half the kernel where at least one window is left.

    A dilation over the size is left out: a window may then step over the image, and PyTorch writes out of bounds.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    windows = -(-room // stride) + 1
    return (
        2 * padding <= kernel and dilation <= size and windows - (windows > 0 and (windows - 1) * stride >= size + padding) >= 1
    )


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool2d_grid_of_sizes(ceil_mode, dilation, rng):
    """Among them stride > kernel with ceil_mode, where a last window that starts beyond the image is dropped."""
    checked = 0
    for size, kernel, stride, padding in itertools.product([1, 2, 5, 8, 9], [1, 2, 3], [1, 2, 3, 4], [0, 1]):
        x = distinct((1, 2, size, size + 1), rng)
        fits = sizes_that_fit(size, kernel, stride, padding, dilation)
        if fits and (ceil_mode or size + 2 * padding > dilation * (kernel - 1)):
            settings = {"padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
            check_max(x, kernel, stride, return_indices=True, **settings)
            checked += 1
    assert checked > 50


AVG = {
    "2x2": ((2, 3, 6, 8), (2,), {}),
    "3x3/2": ((2, 3, 8, 9), (3, 2), {}),
    "rectangle": ((2, 3, 9, 10), ((2, 3), (3, 1)), {"padding": (1, 0)}),
    "stride over kernel": ((2, 3, 9, 10), (2, 3), {}),
    "padded": ((2, 3, 7, 8), (3, 2), {"padding": 1}),
    "padding not counted": ((2, 3, 7, 8), (3, 2), {"padding": 1, "count_include_pad": False}),
    "ceil": ((2, 3, 8, 10), (3, 2), {"ceil_mode": True}),
    "ceil, padded": ((2, 3, 6, 7), (3, 2), {"ceil_mode": True, "padding": 1}),
    "ceil, padding not counted": ((2, 3, 6, 7), (3, 2), {"ceil_mode": True, "padding": 1, "count_include_pad": False}),
    "divisor": ((2, 3, 7, 8), (3, 2), {"divisor_override": 5}),
    "negative divisor": ((2, 3, 7, 8), (3, 2), {"divisor_override": -2, "padding": 1}),
    "divisor, ceil": ((2, 3, 8, 9), (3, 2), {"divisor_override": 5, "ceil_mode": True, "count_include_pad": False}),
    "whole image": ((2, 3, 5, 4), ((5, 4),), {}),
    "no image": ((0, 3, 6, 7), (3, 2), {}),
    "unbatched": ((3, 7, 8), (3, 2), {"padding": 1}),
}


@pytest.mark.parametrize("case", AVG)
def test_avg_pool2d(case, rng):
    x, args, settings = AVG[case]
    check_avg(rng.standard_normal(x), *args, **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_avg_pool2d_in_any_memory(layout, rng):
    check_avg(arrange(rng.standard_normal((2, 3, 7, 8)), layout), 3, 2, padding=1)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_avg_pool2d_grid_of_sizes(ceil_mode, count_include_pad, rng):
    checked = 0
    for size, kernel, stride, padding in itertools.product([1, 2, 5, 8, 9], [1, 2, 3], [1, 2, 3, 4], [0, 1]):
        fits = sizes_that_fit(size, kernel, stride, padding)
        if fits and (ceil_mode or size + 2 * padding >= kernel):
            settings = {"padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
            check_avg(rng.standard_normal((1, 2, size, size + 1)), kernel, stride, **settings)
            checked += 1
    assert checked > 50
