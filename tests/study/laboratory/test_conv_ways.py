"""Four ways of a convolution's backward: all give what conv2d's own backward gives, whatever the shapes and settings."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import shapes
from minidl.ops.conv2d import conv2d_backward
from minidl.study.laboratory import conv_ways
from minidl.study.laboratory.conv_ways import WAYS, conv2d_backward_by, stretched

ZERO = ((0, 0), (0, 0))

# x (N, H, W, C), weight (O, KH, KW, C / groups), stride, padding, dilation, groups
CASES = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), ZERO, (1, 1), 1),
    "odd sizes": ((2, 7, 5, 3), (4, 3, 2, 3), (1, 1), ZERO, (1, 1), 1),
    "stride leaves rows and columns over": ((2, 8, 9, 2), (3, 3, 3, 2), (2, 4), ZERO, (1, 1), 1),
    "stride over kernel": ((1, 7, 8, 2), (3, 2, 2, 2), (3, 4), ZERO, (1, 1), 1),
    "leftover of a kernel's width": ((1, 9, 9, 1), (2, 2, 3, 1), (5, 4), ZERO, (1, 1), 1),
    "padding over kernel": ((1, 3, 3, 2), (2, 2, 2, 2), (1, 1), ((4, 4), (3, 3)), (1, 1), 1),
    "uneven padding": ((2, 4, 5, 2), (3, 2, 4, 2), (1, 1), ((0, 1), (1, 2)), (1, 1), 1),
    "dilation": ((1, 7, 8, 2), (3, 2, 3, 2), (1, 1), ZERO, (3, 2), 1),
    "all at once": ((2, 9, 8, 4), (6, 3, 2, 2), (2, 3), ((2, 2), (1, 1)), (2, 3), 2),
    "groups = channels": ((2, 5, 4, 3), (6, 3, 3, 1), (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    "kernel = image": ((3, 4, 3, 2), (5, 4, 3, 2), (1, 1), ZERO, (1, 1), 1),
}


def arguments(case, fill):
    """gy, x, w and the settings, made by fill(shape)."""
    x, w, stride, padding, dilation, groups = case
    oh, ow = shapes.out_size("conv2d", x[1:3], w[1:3], stride, padding, dilation)
    return fill((x[0], oh, ow, w[0])), fill(x), fill(w), stride, padding, dilation, groups


def check(way, case, rng):
    """Every element within the rounding of its own sum.

    A sum of m products, in any order, differs from the exact one by at most m u / (1 - m u) times the sum of the products'
    sizes, u = 2^-53 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Both sides may be off by that. Where
    no product falls, both must be 0.
    """
    given = arguments(case, rng.standard_normal)
    expected = conv2d_backward(*given, (True, True, True))
    magnitudes = conv2d_backward(*(np.abs(a) for a in given[:3]), *given[3:], (True, True, True))
    got = conv2d_backward_by(way, *given)
    gy, _, w, *_ = given
    products = w.size // w.shape[3], gy.size // gy.shape[3], gy.size // gy.shape[3]  # sums over o,u,v at most; over n,i,j
    for own, other, size, m in zip(got, expected, magnitudes, products, strict=True):
        assert own.shape == other.shape and own.dtype == other.dtype
        assert np.all(np.abs(own - other) <= 2.01 * m * 2.0**-53 * size)


# ------------------------------------------------------------------------------------------------------------- equal


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_every_way_gives_the_ops_gradients(way, case, rng):
    check(way, CASES[case], rng)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_with_whole_numbers_they_are_equal_to_the_bit(way, case, rng):
    """Sums of whole numbers below 2^53 have no rounding."""
    given = arguments(CASES[case], lambda shape: rng.integers(-9, 10, shape).astype(np.float64))
    for own, other in zip(conv2d_backward_by(way, *given), conv2d_backward(*given, (True, True, True)), strict=True):
        np.testing.assert_array_equal(own, other)


@st.composite
def sides(draw):
    """Size, kernel, stride, (before, after) and dilation of one side, with room for a patch."""
    kernel, stride, dilation = (draw(st.integers(1, 3)) for _ in range(3))
    padding = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    size = max(shapes.span(kernel, dilation) - sum(padding), 1) + draw(st.integers(0, 4))
    return size, kernel, stride, padding, dilation


@settings(max_examples=50)
@given(rows=sides(), columns=sides(), channels=st.tuples(*[st.integers(1, 2)] * 4))
def test_any_shape(rows, columns, channels):
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    n, groups, cg, og = channels
    case = (n, *size, groups * cg), (groups * og, *kernel, cg), stride, padding, dilation, groups
    for way in WAYS:
        check(way, case, np.random.default_rng(0))


@pytest.mark.parametrize("way", WAYS)
def test_by_hand(way):
    """The example of docs/conv2d.md: a 3 x 3 image, a 2 x 2 kernel."""
    x, w = np.arange(1.0, 10).reshape(1, 3, 3, 1), np.array([1.0, 2, 3, -1]).reshape(1, 2, 2, 1)
    gy = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    gx, gw, gb = conv2d_backward_by(way, gy, x, w, (1, 1), ZERO, (1, 1), 1)
    assert gx.reshape(3, 3).tolist() == [[1, 4, 4], [6, 15, 6], [9, 9, -4]]
    assert gw.reshape(2, 2).tolist() == [[37, 47], [67, 77]]
    assert gb.tolist() == [10]


@pytest.mark.parametrize("way", WAYS)
def test_dtype_stays_and_inputs_are_left_alone(way, rng):
    given = arguments(CASES["all at once"], lambda shape: rng.standard_normal(shape, np.float32))
    before = [a.copy() for a in given[:3]]
    gradients = conv2d_backward_by(way, *given)
    assert [g.dtype for g in gradients] == [np.float32] * 3
    gy, x, w = (np.ones(shape, np.float32) for shape in ((1, 3, 3, 2), (1, 4, 4, 3), (2, 2, 2, 3)))
    assert WAYS[way].input(gy, w, (4, 4), (1, 1), (1, 1)).dtype == np.float32
    assert WAYS[way].weight(gy, x, (2, 2), (1, 1), (1, 1)).dtype == np.float32
    for array, copy in zip(given[:3], before, strict=True):
        np.testing.assert_array_equal(array, copy)


# --------------------------------------------------------------------------------------------------- how they are different


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_what_is_not_needed_is_not_computed(way, needs, rng, monkeypatch):
    def refuse(*given):
        raise AssertionError("a gradient that nobody needs was computed")

    pair = WAYS[way]
    refusing = {name: refuse for name, need in zip(pair._fields, needs, strict=False) if not need}
    monkeypatch.setitem(WAYS, way, pair._replace(**refusing))
    gradients = conv2d_backward_by(way, *arguments(CASES["groups = channels"], rng.standard_normal), needs)
    assert tuple(g is not None for g in gradients) == needs


def test_stretched_gradients_have_zeros_between_and_around():
    gy = np.array([1.0, 2]).reshape(1, 1, 2, 1)
    g = stretched(gy, np.ones((1, 2, 2, 1)), (4, 7), (1, 3), (1, 2))
    assert g.reshape(5, 9).tolist() == [[0] * 9, [0, 0, 1, 0, 0, 2, 0, 0, 0], *[[0] * 9] * 3]


def test_transposed_is_made_of_the_forward_pass_alone(rng, monkeypatch):
    for name in ("im2col", "col2im"):
        monkeypatch.setattr(conv_ways, name, None)
    check("transposed", CASES["all at once"], rng)


def test_einsum_copies_no_patches(rng):
    """Its memory stays below that of the patches, 25 times an image; im2col's does not."""
    gy, x, w = (rng.standard_normal(shape) for shape in ((1, 24, 24, 2), (1, 28, 28, 4), (2, 5, 5, 4)))
    patches = 24 * 24 * 25 * 4 * x.itemsize
    assert peak(lambda: WAYS["einsum"].weight(gy, x, (5, 5), (1, 1), (1, 1))) < 0.2 * patches
    assert peak(lambda: WAYS["einsum"].input(gy, w, (28, 28), (1, 1), (1, 1))) < 0.5 * patches
    assert peak(lambda: WAYS["im2col"].weight(gy, x, (5, 5), (1, 1), (1, 1))) > patches


def peak(call):
    """The bytes of memory that a call holds when it holds most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -------------------------------------------------------------------------------------------------------------- errors


def test_an_unknown_way(rng):
    with pytest.raises(ValueError, match=re.escape("way must be one of loops, im2col, einsum, transposed, got 'fft'")):
        conv2d_backward_by("fft", *arguments(CASES["one pixel"], rng.standard_normal))


def test_no_image():
    x, w, gy = np.ones((0, 3, 3, 1)), np.ones((1, 2, 2, 1)), np.ones((0, 2, 2, 1))
    with pytest.raises(ValueError, match=re.escape("conv2d_backward_by: at least 1 image is needed, got 0 (x (0, 3, 3, 1))")):
        conv2d_backward_by("loops", gy, x, w, (1, 1), ZERO, (1, 1), 1)
