"""Channels-last memory under NCHW shapes."""

import numpy as np
import pytest

from minidl.layout import center, channels_last, is_channels_last, nchw, nhwc

C_ORDER = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
LAST = np.ascontiguousarray(C_ORDER.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def test_nhwc_of_channels_last_memory_is_a_view():
    y = nhwc(LAST)
    assert y.shape == (2, 4, 5, 3) and y.flags.c_contiguous and np.shares_memory(y, LAST)
    assert np.array_equal(y, C_ORDER.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("x", [C_ORDER, LAST[:, :2], LAST[:, :, ::-1], np.asfortranarray(C_ORDER)])
def test_nhwc_of_other_memory_is_one_contiguous_copy(x):
    y = nhwc(x)
    assert y.flags.c_contiguous and not np.shares_memory(y, x)
    assert np.array_equal(y, x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("x", [C_ORDER, LAST, C_ORDER[:, ::2]])
def test_nchw_is_always_a_view_and_undoes_nhwc(x):
    y = nhwc(x)
    back = nchw(y)
    assert np.shares_memory(back, y) and np.array_equal(back, x)


def test_channels_last_keeps_the_array_or_copies_it():
    same = channels_last(LAST)
    assert np.shares_memory(same, LAST) and same.strides == LAST.strides
    made = channels_last(C_ORDER)
    assert not np.shares_memory(made, C_ORDER) and np.array_equal(made, C_ORDER)
    assert is_channels_last(made) and made.strides == LAST.strides


@pytest.mark.parametrize(
    "x, expected",
    [
        (LAST, True),
        (C_ORDER, False),
        (LAST[:, :2], False),
        (LAST[1:], True),
        (LAST[:, :, 1:], False),
        (C_ORDER[:, :1], False),
        (C_ORDER[:1, :1], True),  # one channel: both orders at once
        (C_ORDER[:, :, :1, :1], False),
        (np.ascontiguousarray(C_ORDER[:, :, :1, :1]), True),  # one pixel: both orders at once
        (np.zeros((0, 3, 4, 5)), True),
        (C_ORDER[0], False),
        (np.zeros(3), False),
        (np.zeros(()), False),
    ],
)
def test_is_channels_last(x, expected):
    assert bool(is_channels_last(x)) is expected


def test_values_dtypes_and_empty_batches_survive():
    for dtype in (np.float32, np.float64, np.int64, bool):
        x = (C_ORDER % 3).astype(dtype)
        assert channels_last(x).dtype == dtype and np.array_equal(channels_last(x), x)
    assert channels_last(np.zeros((0, 3, 4, 5))).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("sides, size, top, left", [((5, 8), (2, 3), 1, 2), ((4, 4), (4, 4), 0, 0), ((6, 5), (3, 5), 1, 0)])
def test_the_center_is_rounded_towards_the_top_left_and_a_view(sides, size, top, left):
    image = np.arange(sides[0] * sides[1] * 3).reshape(*sides, 3)
    middle = center(image, *size)
    np.testing.assert_array_equal(middle, image[top : top + size[0], left : left + size[1]])
    assert np.shares_memory(middle, image)
