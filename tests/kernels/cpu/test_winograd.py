"""Winograd's tiles on a CPU: where they are used, and how they round."""

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor, get_num_threads, im2col_convolutions, set_num_threads
from minidl.kernels.cpu import conv2d as kernel_module
from minidl.kernels.cpu import winograd
from minidl.kernels.cpu.im2col import Im2col
from minidl.kernels.cpu.winograd import Winograd, blocks, pays, tame, unblocks
from minidl.kernels.winograd import LONGEST
from minidl.ops import conv2d as plain

ALEXNET = {  # filters (O, KH, KW, C) of a tower, stride, output
    "conv1": ((48, 11, 11, 3), (4, 4), (55, 55)),
    "conv2": ((128, 5, 5, 48), (1, 1), (27, 27)),
    "conv3": ((192, 3, 3, 256), (1, 1), (13, 13)),
    "conv4": ((192, 3, 3, 192), (1, 1), (13, 13)),
    "conv5": ((128, 3, 3, 192), (1, 1), (13, 13)),
}


def test_filters_longer_than_the_points_allow():
    assert not pays((32, LONGEST + 1, LONGEST + 1, 32), (1, 1), (1, 1), 64, (40, 40))
    assert pays((32, LONGEST, LONGEST, 32), (1, 1), (1, 1), 64, (40, 40))


def test_longer_filters_pay_in_smaller_batches():
    (conv2, _, out2), (conv3, _, out3) = ALEXNET["conv2"], ALEXNET["conv3"]
    assert pays(conv2, (1, 1), (1, 1), 1, out2) and not pays(conv3, (1, 1), (1, 1), 1, out3)
    assert pays(conv3, (1, 1), (1, 1), 6, out3)  # if the patches cost nothing to gather, they would be faster


@pytest.mark.parametrize("layer", ALEXNET)
def test_every_convolution_of_alexnet_goes_by_tiles_in_a_batch(layer):
    shape, stride, out = ALEXNET[layer]
    assert pays(shape, stride, (1, 1), 128, out)


@pytest.mark.parametrize(
    "shape, stride, dilation, images, out",
    [
        ((192, 3, 3, 256), (1, 1), (1, 1), 4, (13, 13)),  # 64 tiles do not repay the filters' transform
        ((192, 3, 3, 256), (1, 1), (2, 2), 64, (13, 13)),
        ((192, 1, 1, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 1, 5, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((4, 3, 3, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 3, 3, 4), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 3, 3, 256), (2, 2), (1, 1), 64, (13, 13)),  # over blocks it saves too little
        ((192, 3, 3, 256), (1, 1), (1, 1), 64, (5, 5)),  # 2 x 2 tiles, most of which hang over
    ],
)
def test_where_patches_are_better(shape, stride, dilation, images, out):
    assert not pays(shape, stride, dilation, images, out)


@pytest.mark.parametrize("stride", [(1, 1), (4, 4), (2, 3)])
def test_blocks_and_back(stride, rng):
    w = rng.standard_normal((5, 11, 7, 3))
    b = blocks(w, stride)
    assert b.shape == (-(-11 // stride[0]), -(-7 // stride[1]), 5, stride[0] * stride[1] * 3)
    np.testing.assert_array_equal(unblocks(b, w.shape, stride), w)


# ------------------------------------------------------------------------------------------------------------- rounding


def rms(a):
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


def error_of_a_sum(terms, rng):
    """The relative error of sums of so many products in float32, one after the other."""
    a, b = rng.standard_normal((2, 2000, terms)).astype(np.float32)
    exact = (a.astype(float) * b).sum(1)
    return rms(np.add.accumulate(a * b, axis=1)[:, -1] - exact) / rms(exact)


@pytest.mark.parametrize("r, factor", [(2, 4), (3, 7), (4, 7), (5, 12)])
def test_tiles_round_like_a_sum_over_the_channels_times_a_factor(r, factor, rng):
    """The factors that were measured, 3, 5, 5 and 10, and a sixth more; with the points 0, 1, -1, 2, -2, 1/2, -1/2 and four
    outputs a side it would be 7, 11, 17 and 20."""
    channels = 64
    x, w = rng.standard_normal((1, 30, 30, channels), np.float32), rng.standard_normal((32, r, r, channels), np.float32)
    method = Winograd(w.shape, (1, 1), x.dtype)
    y = np.full((1, 31 - r, 31 - r, 32), np.nan, np.float32)
    method.forward(x, (0, 0), method.prepare(w), None, y)
    exact = plain.conv2d_forward(x.astype(float), w.astype(float), None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    assert rms(y - exact) / rms(exact) < factor * error_of_a_sum(channels, rng)


def test_short_sums_of_the_gradient_of_long_filters(rng, monkeypatch):
    """Of 64 tiles at a time, a quarter of the piece's 256: errors grow as the square root of the number of terms."""
    x, gy = rng.standard_normal((1, 52, 52, 16), np.float32), rng.standard_normal((1, 48, 48, 16), np.float32)
    exact = plain.conv2d_backward(
        gy.astype(float), x.astype(float), np.zeros((16, 5, 5, 16)), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, (False, True, False)
    )[1]

    def error():
        method = Winograd((16, 5, 5, 16), (1, 1), x.dtype)
        total = method.no_gradient()
        method.add_gradient(total, x, (0, 0), gy)
        return rms(method.gradient(total) - exact)

    short = error()
    monkeypatch.setattr(winograd, "_TILES_AT_ONCE", 256)
    assert short < 0.7 * error()


# -------------------------------------------------------------------------------------------------- numbers that are not tame

NAN, INF = np.nan, np.inf
KINDS = [(3, 1, 1), (5, 2, 1), (3, 1, 2), (6, 0, 1)]  # kernel, padding, groups; blocks of 2 x 2 for the last


def arrays(kernel, padding, groups, rng):
    stride = 2 if kernel == 6 else 1
    settings = (stride, stride), ((padding, padding), (padding, padding)), (1, 1), groups
    x = np.maximum(rng.standard_normal((5, 18, 16, 16 * groups), np.float32), 0)
    w = rng.standard_normal((16 * groups, kernel, kernel, 16), np.float32)
    gy = rng.standard_normal(plain.conv2d_forward(x, w, None, *settings).shape, np.float32)
    return {"x": x, "w": w, "gy": gy}, settings


def results(functions, x, w, gy, settings):
    return functions.conv2d_forward(x, w, None, *settings), *functions.conv2d_backward(gy, x, w, *settings, (True,) * 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["x", "w", "gy"])
@pytest.mark.parametrize("bad", [NAN, -NAN, INF, -INF, 1e30, 1e6])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_wild_number_spoils_only_what_sees_it(kind, where, bad, rng, monkeypatch):
    """Wherever the definition has a number, NaN or infinity, there is the same, but for roundings of a few hundred products of
    ordinary numbers: those that see no 1e6 have no digit of it."""
    monkeypatch.setattr(kernel_module, "pays", lambda *given: True)
    given, settings = arrays(*kind, rng)
    before = results(kernel_module, **given, settings=settings)
    given[where] = given[where].copy()
    given[where][3, 2, 2, 5] = np.copysign(np.float32(np.abs(bad)), np.float32(bad))
    found, expected = (results(m, **given, settings=settings) for m in (kernel_module, plain))
    for clean, got, right in zip(before, found, expected, strict=True):
        assert (np.isnan(got) == np.isnan(right)).all()
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=2e-3)
        unseen = np.isfinite(right) & (np.abs(right - clean) < 1)
        assert unseen.any()
        np.testing.assert_allclose(got[unseen], clean[unseen], rtol=1e-4, atol=2e-3)


def test_tame_images_go_by_tiles_beside_a_wild_one(rng, monkeypatch):
    """What is computed for the pieces of the other images is the same to the last bit."""
    monkeypatch.setattr(kernel_module, "pays", lambda *given: True)
    monkeypatch.setattr(Winograd, "units_at_once", lambda self, out: 5)  # an image
    given, settings = arrays(3, 1, 1, rng)
    before = results(kernel_module, **given, settings=settings)
    given["x"][3, 0, 0, 0] = given["gy"][3, 0, 0, 0] = NAN
    y, gx, _, _ = results(kernel_module, **given, settings=settings)
    others = [0, 1, 2, 4]
    assert y[others].tobytes() == before[0][others].tobytes() and gx[others].tobytes() == before[1][others].tobytes()
    assert np.isnan(y[3]).sum() == np.isnan(gx[3]).sum() == 4 * 16


@pytest.mark.parametrize("images", [[0], [4], [0, 4], [0, 1, 2, 3, 4]])
def test_what_came_by_patches_is_added_up_over_the_threads(images, rng, monkeypatch):
    """Threads have some of the images each. Sums of 1e5 products, mostly of ordinary numbers, in any order."""
    monkeypatch.setattr(kernel_module, "pays", lambda *given: True)
    monkeypatch.setattr(kernel_module, "grain", lambda cost: 1)
    given, settings = arrays(3, 1, 1, rng)
    given["x"][images, 2, 2, 5] = 1e6
    expected = plain.conv2d_backward(given["gy"], given["x"], given["w"], *settings, (False, True, False))[1]
    before = get_num_threads()
    set_num_threads(3)
    try:
        found = kernel_module.conv2d_backward(given["gy"], given["x"], given["w"], *settings, (False, True, False))[1]
    finally:
        set_num_threads(before)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "wild", [NAN, -NAN, INF, -INF, 1.1e12, -1.1e12, 1e5, -1e5], ids=lambda value: f"{np.copysign(1, value):+.0f} {value}"
)
@pytest.mark.parametrize("place", [0, 1234, 4095])
def test_one_wild_number(wild, place, dtype, rng):
    for values in (rng.standard_normal((4, 32, 32)), np.zeros((4, 32, 32)), rng.random(4096), -rng.random(4096)):
        values = values.astype(dtype)
        assert tame(values)
        values.reshape(-1)[place] = wild
        assert not tame(values) or (abs(wild) == 1e5 and np.count_nonzero(values) == 1)


@pytest.mark.parametrize("scale", [1, 1e-30, 1e-20, 1e11])
def test_any_scale_is_tame(scale, rng):
    assert tame((rng.standard_normal(5000) * scale).astype(np.float32))
    assert tame(np.full(5000, -scale, np.float32))


def test_how_few_large_numbers_are_wild(rng):
    """One in a thousand of those that are not 0 may be a thousand times as large, and not one less."""
    values = np.zeros(10_000, np.float32)
    values[:4000] = rng.uniform(0.5, 0.9, 4000)
    values[1000:1004] = 1000
    assert not tame(values) and not tame(-values)
    values[0] = 0
    assert tame(values) and tame(-values)


def test_sparse_numbers_are_tame(rng):
    """As a gradient after max-pooling: one in 2000 is not 0, so the largest is far above the root mean square."""
    values = np.zeros(100_000, np.float32)
    values[::2000] = rng.standard_normal(50)
    assert np.abs(values).max() > 30 * rms(values) and tame(values)


def test_nothing_is_tame():
    assert tame(np.zeros((0, 3), np.float32)) and tame(np.zeros(5, np.float32)) and tame(np.full(5, -0.0, np.float32))


# ------------------------------------------------------------------------------------------------------------- the switch


def test_im2col_convolutions_gather_patches(rng, monkeypatch):
    """Forward and backward, on the fast kernels' own patches: no tile is cut, and the plain function doesn't run."""
    x, w = (Tensor(rng.standard_normal(shape, np.float32), True) for shape in ((32, 64, 13, 13), (64, 64, 3, 3)))
    assert pays((64, 3, 3, 64), (1, 1), (1, 1), 32, (13, 13))
    calls = []
    for name in ("forward", "add_gradient"):
        monkeypatch.setattr(Winograd, name, lambda *given: calls.append("tiles"))
        wrapped = getattr(Im2col, name)
        monkeypatch.setattr(Im2col, name, lambda *given, wrapped=wrapped: calls.append("patches") or wrapped(*given))
    with im2col_convolutions():
        y = F.conv2d(x, w, padding=1)
        y.backward(Tensor(np.ones_like(y.data)))
    assert set(calls) == {"patches"}
    F.conv2d(x, w, padding=1)
    assert calls[-1] == "tiles"
