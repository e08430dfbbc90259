"""Mosaics of images: how many tiles they need, and that neighbours don't see each other."""

import itertools

import numpy as np
import pytest

from minidl.kernels import plain_kernels
from minidl.kernels.cpu.tiles import Canvas, Layout, Tiles, layout
from minidl.kernels.cpu.winograd import Winograd
from minidl.kernels.winograd import tile_numbers
from minidl.ops.conv2d import conv2d_backward, conv2d_forward
from minidl.shapes import out_size

SIZES = [(13, 13), (5, 9), (4, 6), (1, 7), (6, 3)]
KERNELS = [(3, 3), (2, 4), (5, 2)]
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 3)), ((0, 2), (4, 1)), ((3, 4), (4, 6))]
CASES = [
    (size, kernel, padding)
    for size, kernel, padding in itertools.product(SIZES, KERNELS, PADDINGS)
    if all(s + sum(p) >= k for s, k, p in zip(size, kernel, padding, strict=True))
]


def test_four_images_of_13_x_13_need_49_tiles_instead_of_64():
    alone, four = layout(3, (13, 13), (1, 1), (3, 3), (13, 13)), layout(4, (13, 13), (1, 1), (3, 3), (13, 13))
    assert alone == Layout(1, (13, 13), (4, 4)) and four == Layout(2, (14, 14), (7, 7))


@pytest.mark.parametrize("images, size", [(1, 13), (2, 13), (6, 13), (8, 12), (4, 27)])
def test_no_mosaic_where_it_saves_no_tile_or_images_are_left_over(images, size):
    assert layout(images, (size, size), (1, 1), (3, 3), (size, size)).side == 1


@pytest.mark.parametrize("size, kernel, padding", CASES)
def test_images_of_a_mosaic_do_not_see_each_other(size, kernel, padding, rng):
    """Forward and the weights' gradient of eight images. Sums of small integers, below 1e4: float64 is exact to 1e-9, after the
    transforms too."""
    out = out_size("conv2d", size, kernel, (1, 1), padding, (1, 1))
    corner = padding[0][0], padding[1][0]
    x = rng.integers(-3, 4, (8, *size, 3)).astype(float)
    w = rng.integers(-3, 4, (5, *kernel, 3)).astype(float)
    b = rng.integers(-3, 4, 5).astype(float)
    gy = rng.integers(-3, 4, (8, *out, 5)).astype(float)
    method = Winograd(w.shape, (1, 1), x.dtype)
    y = np.full((8, *out, 5), np.nan)
    method.forward(x, corner, method.prepare(w), np.tile(b, (out[1], 1)), y)
    gu = method.no_gradient()
    method.add_gradient(gu, x, corner, gy)
    with plain_kernels():
        settings = ((1, 1), padding, (1, 1), 1)
        np.testing.assert_allclose(y, conv2d_forward(x, w, b, *settings), atol=1e-9)
        _, gw, _ = conv2d_backward(gy, x, w, *settings, (False, True, False))
    np.testing.assert_allclose(method.gradient(gu), gw, atol=1e-9)


def test_pixels_that_no_window_reaches(rng):
    """As in the input's gradient of a convolution that is padded by more than its kernel."""
    x, w = rng.standard_normal((4, 9, 11, 3)), rng.standard_normal((5, 3, 3, 3))
    method = Winograd(w.shape, (1, 1), x.dtype)
    y = np.full((4, 5, 5, 5), np.nan)
    method.forward(x, (1, 1), method.prepare(w), None, y)
    with plain_kernels():
        whole = conv2d_forward(x, w, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    np.testing.assert_allclose(y, whole[:, :5, :5], atol=1e-12)
    assert layout(4, (9, 11), (1, 1), (3, 3), (5, 5)) == Layout(2, (7, 7), (3, 3))


def test_the_cases_above_have_mosaics():
    plans = [layout(8, s, (p[0][0], p[1][0]), k, out_size("conv2d", s, k, (1, 1), p, (1, 1))) for s, k, p in CASES]
    assert sum(plan.side == 2 for plan in plans) > len(plans) / 3


def test_a_canvas_keeps_its_zeros_from_piece_to_piece(rng):
    plan = layout(4, (13, 13), (1, 1), (3, 3), (13, 13))
    canvas = Canvas("test", (4, 13, 13, 2), (1, 1), (1, 1), (30, 30), plan, np.dtype(float))
    for _ in range(2):
        x = rng.standard_normal((4, 13, 13, 2))
        canvas.put(x)
        expected = np.zeros((30, 30, 2))
        for i, (row, column) in enumerate(itertools.product((1, 15), repeat=2)):
            expected[row : row + 13, column : column + 13] = x[i]
        np.testing.assert_array_equal(canvas.blocks[:, :, 0], expected)


def test_tiles_are_transformed_along_both_axes(rng):
    down, across = rng.standard_normal((6, 6)), rng.standard_normal((5, 5))
    alone = layout(1, (7, 8), (0, 0), (3, 2), (5, 7))
    assert alone.number == tile_numbers((5, 7), (3, 2)) == (2, 2)
    canvas = Canvas("test", (1, 7, 8, 3), (0, 0), (1, 1), (10, 9), alone, np.dtype(float))
    x = rng.standard_normal((1, 7, 8, 3))
    canvas.put(x)
    found = Tiles("test tiles", canvas, down, across, alone.number, (4, 4)).cut().reshape(6, 5, 2, 2, 3)
    whole = np.pad(x[0], ((0, 3), (0, 1), (0, 0)))
    for i, j in itertools.product(range(2), repeat=2):
        tile = whole[4 * i : 4 * i + 6, 4 * j : 4 * j + 5]
        np.testing.assert_allclose(found[:, :, i, j], np.einsum("ab,bcd,ec->aed", down, tile, across), atol=1e-12)
