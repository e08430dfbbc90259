"""Convolution by tiles on CUDA: its kernels against the matrices, its results against the plain functions.

What the kernels do to pixels and gradients is exact for small whole numbers in float64, and compared bit for bit with the
matrices applied in NumPy; in float32 it may be rounded. Results may differ from the plain function's by their roundings: one
for each product and addition on the way, of what the algorithm sums up if all of its numbers are taken without their signs.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import fake_cublas
import fake_cupy
import numpy as np
import pytest

import minidl
from minidl import shapes
from minidl.kernels.cuda import winograd, workspace
from minidl.kernels.cuda.conv2d import conv2d_backward, conv2d_forward, conv2d_relu_backward, conv2d_relu_forward
from minidl.kernels.winograd import LONGEST, OUTPUTS, block_kernel, tile_numbers, tile_size, transforms
from minidl.ops import conv2d as plain

DTYPES = ["float32", "float64"]
EVERYTHING = (True, True, True)
SQUARE, ONES = ((1, 1), (1, 1)), (1, 1)


class Case(NamedTuple):
    x: tuple[int, ...]  # N, H, W, channels of a group
    filters: int  # of a group
    kernel: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    stride: tuple[int, int] = ONES
    groups: int = 1

    @property
    def settings(self):
        return self.stride, self.padding, ONES, self.groups

    @property
    def corner(self):
        return self.padding[0][0], self.padding[1][0]

    @property
    def out(self):
        return shapes.out_size("conv2d", self.x[1:3], self.kernel, self.stride, self.padding, ONES)

    def arrays(self, rng, dtype, whole_numbers=False):
        """x, w, b and a gy."""
        (n, h, w, group), filters = self.x, self.filters * self.groups
        sizes = (n, h, w, group * self.groups), (filters, *self.kernel, group), (filters,), (n, *self.out, filters)
        draw = (lambda shape: rng.integers(-9, 10, shape)) if whole_numbers else rng.standard_normal
        return [draw(shape).astype(dtype) for shape in sizes]


CASES = {
    "one tile": Case((1, 6, 6, 1), 1, (3, 3)),
    "3 x 3, padded": Case((2, 7, 10, 3), 4, (3, 3), SQUARE),
    "5 x 5 in groups": Case((2, 9, 6, 2), 3, (5, 5), ((2, 2), (2, 2)), groups=2),
    "2 x 2": Case((3, 5, 9, 2), 2, (2, 2), ((0, 1), (1, 0)), groups=3),
    "4 x 4": Case((1, 8, 7, 3), 2, (4, 4), ((2, 1), (1, 2))),
    "more padding than the filter is long": Case((1, 2, 3, 2), 2, (3, 3), ((5, 4), (3, 6))),
    "an output of one row": Case((2, 3, 9, 2), 3, (3, 3), ((0, 0), (1, 1))),
    "11 x 11 with stride 4": Case((2, 27, 23, 3), 4, (11, 11), ((0, 0), (2, 2)), stride=(4, 4), groups=2),
    "whole blocks": Case((2, 17, 16, 2), 2, (6, 4), ((1, 2), (0, 3)), stride=(3, 2)),
    "blocks cut short in one direction": Case((1, 20, 19, 2), 3, (5, 6), ((1, 0), (2, 2)), stride=(2, 2)),
    "pixels that no window sees": Case((1, 14, 11, 2), 2, (3, 3), stride=(2, 2)),
    "no images": Case((0, 7, 6, 2), 3, (3, 3), SQUARE, groups=2),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def _by_tiles(monkeypatch):
    """By tiles goes whatever can, however small."""
    monkeypatch.setattr(winograd, "pays", lambda w_shape, stride, dilation, *_: winograd.fits(w_shape, stride, dilation))


# ---------------------------------------------------------------------------------------- the algorithm, in plain NumPy


def regrouped(x, stride, size):
    """(..., at most size * stride pixels, C) -> (..., *size, SH * SW * C): a block of pixels counts as one."""
    (n, _, _, c), (sh, sw), (rows, columns) = x.shape, stride, size
    whole = np.zeros((n, rows * sh, columns * sw, c), x.dtype)
    part = x[:, : rows * sh, : columns * sw]
    whole[:, : part.shape[1], : part.shape[2]] = part
    return whole.reshape(n, rows, sh, columns, sw, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, sh * sw * c)


def cut(x, matrix, stride, corner, number, apart):
    """Images (N, H, W, C) -> (T * T, tiles, SH * SW * C): matrix @ tile @ matrix^T of tiles so many blocks of pixels apart."""
    size = matrix.shape[1]
    before = ((0, 0), *((max(c, 0), 0) for c in corner), (0, 0))
    inside = np.pad(x, before)[:, max(-corner[0], 0) :, max(-corner[1], 0) :]
    blocks = regrouped(inside, stride, [apart * (k - 1) + size for k in number])
    tiles = [blocks[:, apart * i :, apart * j :][:, :size, :size] for i, j in np.ndindex(*number)]
    values = np.einsum("pa,qb,tnabc->pqntc", matrix, matrix, np.stack(tiles))
    return values.reshape(len(matrix) ** 2, len(x) * len(tiles), blocks.shape[3])


def filters(w, matrix, stride=ONES):
    """(O, KH, KW, C) -> (T * T, O, SH * SW * C)."""
    blocks = regrouped(w, stride, (matrix.shape[1],) * 2)
    return np.einsum("pa,qb,oabk->pqok", matrix, matrix, blocks).reshape(len(matrix) ** 2, len(w), -1)


def correlation(x, w, AT, G, BT, stride, corner, out):
    """One group's convolution: (N, *out, O)."""
    number, apart = tile_numbers(out, G.shape[1:] * 2), len(AT)
    m = cut(x, BT, stride, corner, number, apart) @ filters(w, G, stride).transpose(0, 2, 1)
    m = m.reshape(len(BT), len(BT), len(x), *number, len(w))
    y = np.einsum("ap,bq,pqnijo->niajbo", AT, AT, m).reshape(len(x), apart * number[0], apart * number[1], len(w))
    return y[:, : out[0], : out[1]]


def weights(g, x, shape, AT, G, BT, stride, corner):
    """One group's gradient of the weights, of this shape (O, KH, KW, C)."""
    t, r = G.shape
    number, apart = tile_numbers(g.shape[1:3], (r, r)), len(AT)
    gu = cut(g, AT.T, ONES, (0, 0), number, apart).transpose(0, 2, 1) @ cut(x, BT, stride, corner, number, apart)
    blocks = np.einsum("pa,qb,pqok->oabk", G, G, gu.reshape(t, t, *gu.shape[1:]))
    blocks = blocks.reshape(shape[0], r, r, *stride, shape[3]).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(shape[0], r * stride[0], r * stride[1], -1)[:, : shape[1], : shape[2]]


def in_groups(function, groups, *arrays):
    """Along the last axis of images, the first of filters: pairs of an array and which."""
    parts = [np.split(a, groups, axis) for a, axis in arrays]
    return [function(*own) for own in zip(*parts, strict=True)]


def by_matrices(case, signed, gy, x, w, b):
    """y, gx, gw and gb by the algorithm in float64; or, without signs, how large the numbers are that it sums up."""
    form = (lambda a: a.astype(float)) if signed else (lambda a: np.abs(a.astype(float)))
    gy, x, w, b = map(form, (gy, x, w, b))
    matrices = [form(m) for m in transforms(block_kernel(case.kernel, case.stride)[0])]
    y = in_groups(lambda x, w: correlation(x, w, *matrices, case.stride, case.corner, case.out), case.groups, (x, 3), (w, 0))
    turned, corner = w[:, ::-1, ::-1], [k - 1 - c for k, c in zip(case.kernel, case.corner, strict=True)]
    gx = [np.zeros_like(x)]
    if case.stride == ONES:
        gx = in_groups(
            lambda g, w: correlation(g, w.transpose(3, 1, 2, 0), *matrices, ONES, corner, case.x[1:3]),
            case.groups,
            (gy, 3),
            (turned, 0),
        )
    shape = case.filters, *w.shape[1:]
    gw = in_groups(lambda g, x: weights(g, x, shape, *matrices, case.stride, case.corner), case.groups, (gy, 3), (x, 3))
    return np.concatenate(y, 3) + b, np.concatenate(gx, 3), np.concatenate(gw, 0), gy.sum((0, 1, 2))


@each_case
def test_the_algorithm_in_numpy_is_a_convolution(rng, case):
    """The yardstick itself. A thousand roundings of numbers below 10^4."""
    x, w, b, gy = case.arrays(rng, "d")
    y, gx, gw, gb = by_matrices(case, True, gy, x, w, b)
    expected = plain.conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
    np.testing.assert_allclose(y, plain.conv2d_forward(x, w, b, *case.settings), atol=1e-9)
    for got, one in zip((gx, gw, gb)[case.stride != ONES :], expected[case.stride != ONES :], strict=True):
        np.testing.assert_allclose(got, one, atol=1e-9)


def check(case, got, expected, bound):
    """The algorithm's roundings: transforms there and back, sums over channels or windows; a few more for the matrices' own."""
    t = tile_size(block_kernel(case.kernel, case.stride))[0]
    longest = max(np.prod(case.stride) * case.x[3], case.filters, case.x[0] * np.prod(case.out))
    assert got.shape == expected.shape and got.flags.c_contiguous
    assert (np.abs(got - expected) <= (8 * t + longest + 10) * np.finfo(got.dtype).eps * bound).all()


# ----------------------------------------------------------------------------------------------------------- the kernels


@each_dtype
@each_case
def test_tiles_are_cut(gpu, rng, case, dtype):
    """Exactly in float64: elements of BT have at most 14 binary digits behind the point, so that a tile's values have 28. In
    float32 sums of up to 7 products are rounded twice."""
    x, _, _, gy = case.arrays(rng, dtype, whole_numbers=True)
    kernel = block_kernel(case.kernel, case.stride)
    r, number = kernel[0], tile_numbers(case.out, kernel)
    AT, _, BT = transforms(r)

    def compare(got, images, matrix, *settings):
        expected, bound = (
            np.concatenate(in_groups(lambda a, m=m: cut(a, m, *settings, number, OUTPUTS[r]), case.groups, (values, 3)))
            for values, m in ((images.astype(float), matrix), (abs(images.astype(float)), abs(matrix)))
        )
        assert got.dtype == dtype and got.shape == expected.shape
        assert (np.abs(got - expected) <= (dtype == "float32") * 2 * len(BT) * np.finfo(dtype).eps * bound).all()

    got = gpu.get(winograd._cut(gpu.put(x), case.stride, case.corner, case.groups, case.out, r))
    compare(got, x, BT, case.stride, case.corner)
    got = gpu.get(winograd._cut_upstream(gpu.put(gy), case.groups, r))
    compare(got, gy, AT.T, ONES, (0, 0))


@each_dtype
@each_case
def test_filters_are_transformed(gpu, rng, case, dtype):
    """Elements of G are rounded, and so is every sum of up to LONGEST products, twice."""
    w = case.arrays(rng, dtype)[1]
    G = transforms(block_kernel(case.kernel, case.stride)[0]).G
    for turned in (False, True)[: 1 + (case.stride == ONES)]:
        got = gpu.get(winograd._filters(gpu.put(w), case.stride, case.groups, turned))
        seen = (w[:, ::-1, ::-1] if turned else w).astype(float)
        expected, bound = (
            np.concatenate(in_groups(lambda w, G=m: filters(w, G, case.stride), case.groups, (a, 0)))
            for a, m in ((seen, G), (abs(seen), abs(G)))
        )
        assert got.shape == expected.shape and got.dtype == dtype
        assert (np.abs(got - expected) <= (2 * LONGEST + 4) * np.finfo(dtype).eps * bound).all()


# --------------------------------------------------------------------------------------------------------- the functions


@pytest.mark.usefixtures("_by_tiles")
@each_dtype
@each_case
def test_forward(gpu, rng, case, dtype):
    x, w, b, gy = case.arrays(rng, dtype)
    for bias in (b, None):
        there = [None if a is None else gpu.put(a) for a in (x, w, bias)]
        exact = [None if a is None else a.astype(float) for a in (x, w, bias)]
        before = gpu.get(conv2d_forward(*there, *case.settings))
        bound = by_matrices(case, False, gy, x, w, np.zeros_like(b) if bias is None else b)[0]
        check(case, before, plain.conv2d_forward(*exact, *case.settings), bound)
        assert before.dtype == dtype
        np.testing.assert_array_equal(gpu.get(conv2d_relu_forward(*there, *case.settings)), np.maximum(before, 0))


@pytest.mark.usefixtures("_by_tiles")
@each_dtype
@each_case
def test_backward(gpu, rng, case, dtype):
    x, w, b, gy = case.arrays(rng, dtype)
    there = [gpu.put(a) for a in (gy, x, w)]
    y = np.maximum(rng.standard_normal(gy.shape), 0).astype(dtype)
    for function, masks, masked in ((conv2d_backward, [], gy), (conv2d_relu_backward, [gpu.put(y)], np.where(y > 0, gy, 0))):
        got = [gpu.get(a) for a in function(there[0], *masks, *there[1:], *case.settings, EVERYTHING)]
        expected = plain.conv2d_backward(*(a.astype(float) for a in (masked, x, w)), *case.settings, EVERYTHING)
        bounds = list(by_matrices(case, False, masked, x, w, b)[1:])
        if case.stride != ONES:  # by patches, which sum up what the plain function does
            bounds[0] = plain.conv2d_backward(*(abs(a.astype(float)) for a in (masked, x, w)), *case.settings, EVERYTHING)[0]
        for g, e, bound in zip(got, expected, bounds, strict=True):
            assert g.dtype == dtype
            check(case, g, e, bound)
    for array, before in zip(there, (gy, x, w), strict=True):
        np.testing.assert_array_equal(gpu.get(array), before)


@pytest.mark.usefixtures("_by_tiles")
@pytest.mark.parametrize("case", ["5 x 5 in groups", "11 x 11 with stride 4", "no images"])
def test_only_what_is_needed(gpu, rng, case):
    case = CASES[case]
    x, w, _, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    every = conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
    for needs in itertools.product((False, True), repeat=3):
        got = conv2d_backward(gy, x, w, *case.settings, needs)
        assert [g is not None for g in got] == list(needs)
        for g, e in zip(got, every, strict=True):
            assert g is None or gpu.get(g).tobytes() == gpu.get(e).tobytes()


@pytest.mark.usefixtures("_by_tiles")
def test_inputs_of_any_memory_order(gpu, rng):
    case = CASES["5 x 5 in groups"]
    x, w, b, gy = arrays = case.arrays(rng, "d")
    straight = [gpu.put(a) for a in arrays]
    turned = [gpu.put(np.ascontiguousarray(a.T)).T for a in arrays]
    spread = [gpu.put(np.repeat(a, 2, -1))[..., ::2] for a in arrays]
    results = []
    for x, w, b, gy in (straight, turned, spread):
        y, gradients = conv2d_forward(x, w, b, *case.settings), conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
        results.append([gpu.get(a).tobytes() for a in (y, *gradients)])
    assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("_by_tiles")
@pytest.mark.parametrize("images, pieces", [(1, 7), (2, 4), (4, 2), (7, 1)])
def test_pieces_of_whole_images(gpu, rng, monkeypatch, images, pieces):
    """A workspace for so many images, or a bit more: the 7 images are done in so many pieces."""
    case = Case((7, 5, 6, 2), 3, (3, 3), SQUARE, groups=2)
    x, w, b, gy = case.arrays(rng, "d")
    there = [gpu.put(a) for a in (gy, x, w, b)]
    image = 36 * 4 * 2 * (2 + 3) * 8
    for space in (images * image, images * image + image - 1):
        monkeypatch.setattr(workspace, "WORKSPACE", space)
        fake_cupy.launches.clear()
        y, (gx, gw, _) = conv2d_forward(*there[1:], *case.settings), conv2d_backward(*there[:3], *case.settings, EVERYTHING)
        if isinstance(y, fake_cupy.ndarray):
            assert fake_cupy.launches.count("mdl_winograd_output") == 2 * pieces
            assert fake_cupy.launches.count("mdl_winograd_input") == 3 * pieces
        bounds = by_matrices(case, False, gy, x, w, b)
        expected = plain.conv2d_forward(x, w, b, *case.settings), *plain.conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
        for got, e, bound in zip((y, gx, gw), expected[:3], bounds[:3], strict=True):
            check(case, gpu.get(got), e, bound)


@pytest.mark.usefixtures("_by_tiles")
def test_few_launches(gpu, rng):
    case = CASES["5 x 5 in groups"]
    x, w, b, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    if not isinstance(x, fake_cupy.ndarray):
        pytest.skip("about the stand-in, which counts")
    for function in (conv2d_forward, conv2d_relu_forward):
        fake_cupy.launches.clear(), fake_cublas.calls.clear()
        function(x, w, b, *case.settings)
        assert fake_cupy.launches == ["mdl_winograd_filters", "mdl_winograd_input", "mdl_winograd_output"]
        assert fake_cublas.calls == ["gemmStridedBatchedEx"]
    fake_cupy.launches.clear(), fake_cublas.calls.clear()
    conv2d_relu_backward(gy, gy, x, w, *case.settings, EVERYTHING)
    assert fake_cublas.calls == ["gemmStridedBatchedEx"] * 2
    assert fake_cupy.launches == [
        "mdl_masked_column_sums",
        *("mdl_winograd_filters", "mdl_winograd_input", "mdl_winograd_output"),
        *("mdl_winograd_input", "mdl_winograd_upstream", "mdl_winograd_filter_gradient"),
    ]


@pytest.mark.usefixtures("_by_tiles")
def test_the_same_bits_whatever_the_grid(gpu, rng):
    case = CASES["3 x 3, padded"]
    x, w, _, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    seen = set()
    for threads in (128, 896, 1 << 24):
        gpu.few_threads(threads)
        got = conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
        seen.add(b"".join(gpu.get(a).tobytes() for a in got))
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------------------ where they are used

F32, F64 = np.dtype("float32"), np.dtype("float64")
ALEXNET = {  # filters (O, KH, KW, C / groups) of the whole net, stride, groups, output
    "conv1": ((96, 11, 11, 3), (4, 4), 1, (55, 55)),
    "conv2": ((256, 5, 5, 48), ONES, 2, (27, 27)),
    "conv3": ((384, 3, 3, 256), ONES, 1, (13, 13)),
    "conv4": ((384, 3, 3, 192), ONES, 2, (13, 13)),
    "conv5": ((256, 3, 3, 192), ONES, 2, (13, 13)),
}


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("layer", ALEXNET)
def test_alexnet_goes_by_tiles_unless_products_are_rounded(layer, precision):
    shape, stride, groups, out = ALEXNET[layer]
    assert winograd.pays(shape, stride, ONES, groups, out, F32)
    minidl.set_float32_matmul_precision(precision)
    try:
        assert not winograd.pays(shape, stride, ONES, groups, out, F32)
        assert winograd.pays(shape, stride, ONES, groups, out, F64)
    finally:
        minidl.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "shape, stride, dilation, groups, out",
    [
        ((192, 3, 3, 256), ONES, (2, 2), 1, (13, 13)),
        ((192, 1, 1, 256), ONES, ONES, 1, (13, 13)),
        ((192, 3, 5, 256), ONES, ONES, 1, (13, 13)),
        ((192, LONGEST + 1, LONGEST + 1, 256), ONES, ONES, 1, (13, 13)),
        ((64, 3, 3, 15), ONES, ONES, 1, (40, 40)),
        ((30, 3, 3, 64), ONES, ONES, 2, (40, 40)),
        ((192, 3, 3, 192), (2, 2), ONES, 1, (13, 13)),  # blocks of 2 x 2, with a quarter of zeros
        ((16, 3, 3, 16), ONES, ONES, 1, (5, 5)),  # fewer multiplications, but more to write and read
        ((192, 3, 3, 256), ONES, ONES, 1, (1, 1)),  # of a tile's 16 outputs one is wanted
    ],
)
def test_where_patches_are_better(shape, stride, dilation, groups, out):
    assert not winograd.pays(shape, stride, dilation, groups, out, F32)


def _tile_values(out, kernel):
    """Of an image's tiles, in one channel."""
    return np.prod(tile_numbers(out, kernel)) * np.prod(tile_size(kernel))


@pytest.mark.parametrize("layer", ALEXNET)
def test_what_the_documentation_counts(layer):
    """For an image: multiply-adds, and the values of patches, or of V and M."""
    (filters, *kernel, group), stride, groups, out = ALEXNET[layer]
    page = (Path(__file__).parents[3] / "docs" / "cuda.md").read_text()
    cells = next(line for line in page.splitlines() if line.startswith(f"| {layer}, ")).split("|")[2:-1]
    windows, tiles = np.prod(out), _tile_values(out, block_kernel(kernel, stride))
    depth, patch = np.prod(stride) * group, np.prod(kernel) * group
    counts = windows * patch * filters, tiles * depth * filters, windows * patch * groups, tiles * (depth * groups + filters)
    digits = (1, 1, 2, 2)
    assert [cell.strip() for cell in cells] == [f"{1e-6 * n:.{d}f} M" for n, d in zip(counts, digits, strict=True)]


def test_the_step_that_the_documentation_counts():
    """Three products for each layer, two for conv1, whose input needs no gradient: an image's multiply-adds, in millions."""
    by_tiles = by_patches = 3 * 58_621_952  # the linear layers'
    for name, ((filters, *kernel, group), stride, _, out) in ALEXNET.items():
        products, values = 2 if name == "conv1" else 3, _tile_values(out, block_kernel(kernel, stride))
        by_patches += products * np.prod(out) * np.prod(kernel) * group * filters
        by_tiles += products * values * np.prod(stride) * group * filters
    page = (Path(__file__).parents[3] / "docs" / "cuda.md").read_text()
    assert f"takes {by_tiles / 1e6:,.0f} M multiply-adds an image instead of {by_patches / 1e6:,.0f} M." in page


def test_each_product_is_judged_by_its_own_sizes(gpu, rng, monkeypatch):
    """Forward and the weights' gradient make outputs of w's filters; the input's gradient is as large as the input."""
    case, asked = Case((2, 9, 6, 2), 3, (3, 3), groups=2), []
    monkeypatch.setattr(winograd, "pays", lambda *given: asked.append(given))
    x, w, b, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    conv2d_forward(x, w, b, *case.settings)
    conv2d_backward(gy, x, w, *case.settings, EVERYTHING)
    outputs, inputs = ((6, 3, 3, 2), ONES, ONES, 2, (7, 4), F32), ((4, 3, 3, 3), ONES, ONES, 2, (9, 6), F32)
    assert asked == [outputs, inputs, outputs]


def test_im2col_convolutions_turns_tiles_off():
    assert winograd.fits((1, 2, 2, 1), ONES, ONES)
    with minidl.im2col_convolutions():
        assert not winograd.fits((1, 2, 2, 1), ONES, ONES) and not winograd.pays((64, 3, 3, 16), ONES, ONES, 1, (40, 40), F32)


def test_the_limits_of_where_tiles_are_used():
    assert winograd.pays((64, 3, 3, 16), ONES, ONES, 1, (40, 40), F32)
    assert winograd.pays((64, LONGEST, LONGEST, 16), ONES, ONES, 1, (40, 40), F32)
    assert winograd.fits((1, 2, 2, 1), ONES, ONES) and not winograd.fits((1, 2, 2, 1), (2, 2), ONES)


def test_the_matrices_as_the_compiler_sees_them():
    options = winograd.defines(3)
    assert options[:2] == ("-DMDL_R=3", "-DMDL_TILE=4")
    assert options[4] == "-DMDL_AT={{1.0,1.0,1.0,1.0,1.0,0.0},{0.0,0.75,-0.75,1.5,-1.5,0.0}," + (
        "{0.0,0.5625,0.5625,2.25,2.25,0.0},{0.0,0.421875,-0.421875,3.375,-3.375,1.0}}"
    )
    for option, matrix in zip(options[2:], ("BT", "A", "AT", "G", "GT"), strict=True):
        assert option.startswith(f"-DMDL_{matrix}={{{{") and " " not in option
