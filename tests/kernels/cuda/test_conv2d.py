"""Convolution on CUDA against the plain functions.

Gathering copies, and adding up adds in the plain function's order: both are compared bit for bit. Products are compared with
those of float64, and may differ by their roundings: one for each product and each addition, of the sum of absolute values.
"""

import gc
import math
from typing import NamedTuple

import fake_cublas
import fake_cupy
import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Device, Tensor, shapes
from minidl.device import watch_gpu_memory
from minidl.kernels import REPLACEMENTS
from minidl.kernels.cuda import conv2d as kernels
from minidl.kernels.cuda import workspace as module
from minidl.kernels.cuda.conv2d import conv2d_backward, conv2d_forward, conv2d_relu_backward, conv2d_relu_forward
from minidl.kernels.geometry import Geometry
from minidl.ops import conv2d as plain
from minidl.ops import conv2d_relu as plain_relu

DTYPES = ["float32", "float64"]
NONE = ((0, 0), (0, 0))


class Case(NamedTuple):
    x: tuple[int, ...]  # N, H, W, channels of a group
    filters: int  # of a group
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = NONE
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def settings(self):
        return self.stride, self.padding, self.dilation, self.groups

    def arrays(self, rng, dtype):
        """x, w, b and a gy."""
        (n, h, w, group), filters = self.x, self.filters * self.groups
        out = shapes.out_size("conv2d", (h, w), self.kernel, self.stride, self.padding, self.dilation)
        sizes = (n, h, w, group * self.groups), (filters, *self.kernel, group), (filters,), (n, *out, filters)
        return [rng.standard_normal(shape).astype(dtype) for shape in sizes]


CASES = {
    "one value": Case((1, 1, 1, 1), 1, (1, 1)),
    "3 x 3, padded": Case((2, 7, 6, 3), 4, (3, 3), padding=((1, 1), (1, 1))),
    "two groups": Case((3, 5, 9, 3), 2, (3, 2), padding=((1, 1), (0, 0)), groups=2),
    "depthwise": Case((2, 6, 5, 1), 1, (3, 3), padding=((1, 1), (1, 1)), groups=7),
    "wider than a batch of loads": Case((1, 11, 13, 2), 3, (5, 9), padding=((2, 2), (4, 4))),
    "more at the end than at the start": Case((2, 4, 5, 2), 3, (2, 4), padding=((0, 1), (1, 2))),
    "columns left over": Case((2, 10, 11, 3), 2, (3, 3), stride=(2, 3)),
    "pixels that no window sees": Case((2, 9, 8, 2), 3, (1, 2), stride=(4, 3)),
    "11 x 11 with stride 4": Case((1, 23, 27, 3), 5, (11, 11), stride=(4, 4), padding=((2, 2), (2, 2))),
    "dilated": Case((2, 9, 10, 2), 3, (3, 3), padding=((2, 2), (3, 3)), dilation=(2, 3)),
    "stride and dilation with a common divisor": Case(
        (1, 14, 19, 2), 2, (4, 5), stride=(4, 6), padding=((3, 3), (1, 2)), dilation=(2, 4), groups=2
    ),
    "stride and dilation without one": Case(
        (1, 13, 17, 1), 2, (5, 4), stride=(2, 3), padding=((2, 1), (3, 0)), dilation=(3, 2)
    ),
    "dilation equal to the stride": Case((2, 9, 9, 2), 2, (3, 3), stride=(2, 3), padding=((2, 2), (3, 3)), dilation=(2, 3)),
    "dilated, wider than a batch of loads": Case((1, 3, 15, 2), 2, (2, 7), padding=((0, 1), (5, 4)), dilation=(1, 2)),
    "more lines than a small grid has threads": Case((3, 15, 3, 6), 2, (2, 2), groups=2),
    "windows outside of the image": Case((1, 2, 1, 2), 2, (2, 2), padding=((4, 5), (6, 4))),
    "as large as the image": Case((3, 4, 5, 2), 3, (4, 5)),
    "1 x 1": Case((3, 5, 4, 3), 4, (1, 1)),
    "1 x 1 in groups": Case((3, 5, 4, 3), 2, (1, 1), groups=3),
    "1 x 1 with a stride": Case((2, 5, 4, 3), 2, (1, 1), stride=(2, 1)),
    "1 x 1, padded": Case((2, 3, 4, 3), 2, (1, 1), padding=((1, 0), (0, 2)), groups=2),
    "1 x 1, padded to the same size": Case((2, 3, 1, 3), 2, (1, 1), stride=(2, 1), padding=((1, 1), (0, 0))),
    "no images": Case((0, 5, 4, 3), 2, (3, 3), padding=((1, 1), (1, 1))),
    "no images, 1 x 1": Case((0, 5, 4, 3), 2, (1, 1)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def exact(array):
    return None if array is None else array.astype("float64")


def size(array):
    return None if array is None else np.abs(exact(array))


def check(got, expected, bound, additions):
    assert got.dtype == bound.dtype or got.dtype != "float64"
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert (np.abs(got - expected) <= (additions + 3) * np.finfo(got.dtype).eps * bound).all()


def check_forward(got, x, w, b, settings):
    expected = plain.conv2d_forward(exact(x), exact(w), exact(b), *settings)
    check(got, expected, plain.conv2d_forward(size(x), size(w), size(b), *settings), w[0].size)


def check_backward(got, gy, x, w, settings):
    arrays, everything = [gy, x, w], (True, True, True)
    expected = plain.conv2d_backward(*map(exact, arrays), *settings, everything)
    bounds = plain.conv2d_backward(*map(size, arrays), *settings, everything)
    windows = gy[..., 0].size
    additions = w[..., 0].size, windows, windows
    for one in zip(got, expected, bounds, additions, strict=True):
        check(*one)


# ----------------------------------------------------------------------------------------------------------- the kernels


def padded(x, padding):
    return np.pad(x, ((0, 0), *padding, (0, 0)))


def patches_of(case, x, w):
    """The stand-in's workspace is full of NaN: what isn't written shows."""
    out = shapes.out_size("conv2d", x.shape[1:3], case.kernel, case.stride, case.padding, case.dilation)
    return kernels._Patches(x, w, out, Geometry.of(*case.settings)), out


@each_dtype
@each_case
def test_patches_are_gathered_exactly(gpu, rng, case, dtype):
    x, w = case.arrays(rng, dtype)[:2]
    patches, out = patches_of(case, gpu.put(x), w.shape)
    got = gpu.get(patches.gather(slice(0, len(x))))
    assert got.shape == (case.groups, len(x) * out[0] * out[1], patches.length)
    assert not got[..., w[0].size :].any()
    for g in range(case.groups):
        part = padded(x[..., g * case.x[3] : (g + 1) * case.x[3]], case.padding)
        expected = plain.im2col(part, case.kernel, case.stride, case.dilation).reshape(got.shape[1], w[0].size)
        np.testing.assert_array_equal(got[g, :, : w[0].size], expected)


@each_dtype
@each_case
def test_patches_are_added_up_exactly(gpu, rng, case, dtype):
    x, w = case.arrays(rng, dtype)[:2]
    patches, out = patches_of(case, gpu.put(x), w.shape)
    gx = gpu.put(np.full_like(x, np.nan))
    gcol = patches.gradients(gx)
    values = rng.standard_normal(gcol.shape).astype(dtype)
    gcol[...] = gpu.put(values)
    patches.add_up(gcol, gx)
    (top, _), (left, _) = case.padding
    for g in range(case.groups):
        part = slice(g * case.x[3], (g + 1) * case.x[3])
        shape = padded(x[..., part], case.padding).shape
        own = values[g, :, : w[0].size].reshape(len(x), *out, *case.kernel, case.x[3])
        whole = plain.col2im(own, shape, case.stride, case.dilation)
        expected = whole[:, top : top + x.shape[1], left : left + x.shape[2]]
        np.testing.assert_array_equal(gpu.get(gx)[..., part], expected)


@pytest.mark.parametrize(
    "patch, dtype, length",
    [
        (363, "f", 364),
        (363, "d", 364),
        (27, "f", 28),
        (1200, "f", 1200),
        (25, "f", 25),
        (9, "d", 9),
        (3, "f", 3),
        (26, "d", 26),
    ],
)
def test_rows_begin_at_multiples_of_16_bytes_where_that_costs_little(patch, dtype, length):
    assert kernels._length(patch, np.dtype(dtype).itemsize) == length


def test_products_of_conv1_read_and_write_aligned_rows(gpu, rng, monkeypatch):
    """Rows, the filters' too, are 364 numbers apart and as long; the gradient of the filters has none of the zeros."""
    seen, product = [], kernels.gemm
    monkeypatch.setattr(kernels, "gemm", lambda a, b, out, **more: (seen.append((a, b, out)), product(a, b, out, **more))[1])
    case = CASES["11 x 11 with stride 4"]
    x, w, b, gy = (gpu.put(a) for a in case.arrays(rng, "float32"))
    conv2d_forward(x, w, b, *case.settings)
    gx, gw, _ = conv2d_backward(gy, x, w, *case.settings, (True, True, False))
    windows = math.prod(gy.shape[1:3])
    assert [tuple(m.shape[1:] for m in call) for call in seen] == [
        ((windows, 364), (364, 5), (windows, 5)),
        ((5, windows), (windows, 364), (5, 364)),
        ((windows, 5), (5, 364), (windows, 364)),
    ]
    assert gw.shape == w.shape and gx.shape == x.shape


# --------------------------------------------------------------------------------------------------------- the functions


@each_dtype
@each_case
def test_forward(gpu, rng, case, dtype):
    x, w, b, _ = case.arrays(rng, dtype)
    for bias in (b, None):
        there = [None if a is None else gpu.put(a) for a in (x, w, bias)]
        check_forward(gpu.get(conv2d_forward(*there, *case.settings)), x, w, bias, case.settings)
        got = gpu.get(conv2d_relu_forward(*there, *case.settings))
        before = gpu.get(conv2d_forward(*there, *case.settings))
        np.testing.assert_array_equal(got, np.maximum(before, 0))


@each_dtype
@each_case
def test_backward(gpu, rng, case, dtype):
    x, w, _, gy = case.arrays(rng, dtype)
    there = [gpu.put(a) for a in (gy, x, w)]
    got = conv2d_backward(*there, *case.settings, (True, True, True))
    check_backward([gpu.get(a) for a in got], gy, x, w, case.settings)
    y = np.maximum(rng.standard_normal(gy.shape), 0).astype(dtype)
    got = conv2d_relu_backward(there[0], gpu.put(y), *there[1:], *case.settings, (True, True, True))
    check_backward([gpu.get(a) for a in got], np.where(y > 0, gy, 0).astype(dtype), x, w, case.settings)
    for array, before in zip(there, (gy, x, w), strict=True):
        np.testing.assert_array_equal(gpu.get(array), before)


@pytest.mark.parametrize("case", ["two groups", "1 x 1 in groups", "no images", "no images, 1 x 1"])
def test_only_what_is_needed(gpu, rng, case):
    case = CASES[case]
    x, w, _, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    y = gpu.put(rng.standard_normal(gy.shape).astype("f"))
    every = conv2d_backward(gy, x, w, *case.settings, (True, True, True))
    every_relu = conv2d_relu_backward(gy, y, x, w, *case.settings, (True, True, True))
    for needs in np.ndindex(2, 2, 2):
        for function, arrays, expected in (
            (conv2d_backward, (gy, x, w), every),
            (conv2d_relu_backward, (gy, y, x, w), every_relu),
        ):
            got = function(*arrays, *case.settings, tuple(map(bool, needs)))
            assert [g is not None for g in got] == list(map(bool, needs))
            for g, e in zip(got, expected, strict=True):
                assert g is None or gpu.get(g).tobytes() == gpu.get(e).tobytes()


@pytest.mark.parametrize("case", ["two groups", "3 x 3, padded", "1 x 1 in groups"])
def test_inputs_of_any_memory_order(gpu, rng, case):
    case = CASES[case]
    x, w, b, gy = case.arrays(rng, "d")
    y = rng.standard_normal(gy.shape)

    def turned(a):
        return gpu.put(np.ascontiguousarray(a.T)).T

    def every_second(a):
        return gpu.put(np.repeat(a, 2, -1))[..., ::2]

    for form in (turned, every_second):
        there = {name: form(a) for name, a in {"x": x, "w": w, "b": b, "gy": gy, "y": y}.items()}
        got = conv2d_forward(there["x"], there["w"], there["b"], *case.settings)
        check_forward(gpu.get(got), x, w, b, case.settings)
        masked = np.where(y > 0, gy, 0)
        got = conv2d_backward(there["gy"], there["x"], there["w"], *case.settings, (True, True, True))
        check_backward([gpu.get(a) for a in got], gy, x, w, case.settings)
        got = conv2d_relu_backward(there["gy"], there["y"], there["x"], there["w"], *case.settings, (True, True, True))
        check_backward([gpu.get(a) for a in got], masked, x, w, case.settings)


def test_a_gradient_that_repeats_one_value(gpu, rng):
    case = CASES["two groups"]
    x, w, _, gy = case.arrays(rng, "d")
    one = gpu.device.xp.broadcast_to(gpu.put(np.full((1, 1, 1, 1), 0.5)), gy.shape)
    got = conv2d_backward(one, gpu.put(x), gpu.put(w), *case.settings, (True, True, True))
    check_backward([gpu.get(a) for a in got], np.full_like(gy, 0.5), x, w, case.settings)


def test_what_is_no_number_passes_the_relu(gpu):
    x, w = np.array([np.nan, np.inf, -np.inf, -0.0, 2.0]).reshape(1, 1, 5, 1), np.ones((1, 1, 1, 1))
    for b in (None, np.zeros(1)):
        settings = CASES["1 x 1"].settings
        y = conv2d_relu_forward(gpu.put(x), gpu.put(w), None if b is None else gpu.put(b), *settings)
        np.testing.assert_array_equal(gpu.get(y).ravel(), [np.nan, np.inf, 0, 0, 2])
        gy = np.arange(1.0, 6).reshape(x.shape)
        needs = True, False, True
        got = conv2d_relu_backward(gpu.put(gy), y, gpu.put(x), gpu.put(w), *settings, needs)
        expected = plain_relu.conv2d_relu_backward(gy, gpu.get(y), x, w, *settings, needs)
        np.testing.assert_array_equal(gpu.get(got[0]), expected[0])
        np.testing.assert_array_equal(gpu.get(got[2]), expected[2])


# ------------------------------------------------------------------------------------------------------- pieces, launches


@pytest.mark.parametrize("images, pieces", [(1, 7), (2, 4), (3, 3), (4, 2), (6, 2), (7, 1)])
def test_pieces_of_whole_images(gpu, rng, monkeypatch, images, pieces):
    """A workspace for so many images, or a bit more: the 7 images are done in so many pieces."""
    assert module.WORKSPACE == 2**30
    case = Case((7, 5, 6, 2), 3, (3, 3), padding=((1, 1), (1, 1)), groups=2)
    x, w, b, gy = case.arrays(rng, "d")
    image = 2 * 5 * 6 * w[0].nbytes
    for workspace in (images * image, images * image + image - 1, *([1] if images == 1 else [])):
        monkeypatch.setattr(module, "WORKSPACE", workspace)
        patches, _ = patches_of(case, gpu.put(x), w.shape)
        assert len(patches.pieces) == pieces and [i for s in patches.pieces for i in range(7)[s]] == list(range(7))
        assert patches.workspace.nbytes <= max(workspace, image)
        got = conv2d_forward(*map(gpu.put, (x, w, b)), *case.settings)
        check_forward(gpu.get(got), x, w, b, case.settings)
        got = conv2d_backward(*map(gpu.put, (gy, x, w)), *case.settings, (True, True, True))
        check_backward([gpu.get(a) for a in got], gy, x, w, case.settings)


def launched(gpu, function, *args):
    fake_cupy.launches.clear()
    fake_cublas.calls.clear()
    function(*args)
    return fake_cupy.launches, fake_cublas.calls


def test_few_launches(gpu, rng):
    case, everything = CASES["two groups"], (True, True, True)
    x, w, b, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    if not isinstance(x, fake_cupy.ndarray):
        pytest.skip("about the stand-in, which counts")
    several = ["gemmStridedBatchedEx"]
    assert launched(gpu, conv2d_forward, x, w, b, *case.settings) == (["mdl_im2col", "mdl_add_bias"], several)
    assert launched(gpu, conv2d_relu_forward, x, w, b, *case.settings) == (["mdl_im2col", "mdl_bias_relu"], several)
    assert launched(gpu, conv2d_forward, x, w, None, *case.settings) == (["mdl_im2col"], several)
    kernels_run, calls = launched(gpu, conv2d_relu_backward, gy, gy, x, w, *case.settings, everything)
    assert kernels_run == ["mdl_masked_column_sums", "mdl_im2col", "mdl_col2im"] and calls == several * 2
    kernels_run, calls = launched(gpu, conv2d_backward, gy, x, w, *case.settings, (False, True, False))
    assert kernels_run == ["mdl_im2col"] and calls == several
    kernels_run, calls = launched(gpu, conv2d_backward, gy, x, w, *case.settings, (False, False, True))
    assert kernels_run == ["mdl_column_sums"] and calls == []


def test_patches_take_no_memory_where_no_product_needs_them(gpu, rng):
    case = CASES["3 x 3, padded"]
    x, w, _, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    gc.collect()  # what earlier tests left in cycles shall not be given back while this one is watched
    with watch_gpu_memory() as seen:
        conv2d_backward(gy, x, w, *case.settings, (False, False, True))
    assert 0 < seen.peak < 100 < gy[..., 0].nbytes


def test_a_1_x_1_convolution_gathers_nothing(gpu, rng):
    for name, call in (("1 x 1", "gemmEx"), ("1 x 1 in groups", "gemmStridedBatchedEx")):
        case = CASES[name]
        x, w, b, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
        if not isinstance(x, fake_cupy.ndarray):
            pytest.skip("about the stand-in, which counts")
        assert launched(gpu, conv2d_forward, x, w, b, *case.settings) == (["mdl_add_bias"], [call])
        kernels_run, calls = launched(gpu, conv2d_backward, gy, x, w, *case.settings, (True, True, True))
        assert (kernels_run, calls) == (["mdl_column_sums"], [call] * 2)


def test_the_same_bits_whatever_the_grid(gpu, rng):
    case = CASES["11 x 11 with stride 4"]
    x, w, _, gy = (gpu.put(a) for a in case.arrays(rng, "f"))
    seen = set()
    for threads in (256, 1536, 1 << 24):
        gpu.few_threads(threads)
        got = conv2d_backward(gy, x, w, *case.settings, (True, True, True))
        seen.add(b"".join(gpu.get(a).tobytes() for a in got))
    assert len(seen) == 1


def test_float32_at_high_precision(gpu, rng):
    """Factors are rounded to 2^-11 of themselves, both: 2^-10 of the sum of absolute values."""
    case = CASES["3 x 3, padded"]
    x, w, b, _ = case.arrays(rng, "f")
    minidl.set_float32_matmul_precision("high")
    try:
        got = gpu.get(conv2d_forward(gpu.put(x), gpu.put(w), gpu.put(b), *case.settings))
    finally:
        minidl.set_float32_matmul_precision("highest")
    expected = plain.conv2d_forward(exact(x), exact(w), exact(b), *case.settings)
    bound = plain.conv2d_forward(size(x), size(w), size(b), *case.settings)
    assert (np.abs(got - expected) <= (2.0**-10 + 1e-5) * bound).all()
    if isinstance(gpu.put(x), fake_cupy.ndarray):  # a GPU without such tensor cores does as before
        assert (np.abs(got - expected) > 1e-5 * bound).any()


@pytest.mark.parametrize("name", ["conv2d", "conv2d_relu"])
def test_an_op_with_these_kernels(gpu, rng, monkeypatch, name):
    for function in (conv2d_forward, conv2d_backward, conv2d_relu_forward, conv2d_relu_backward):
        monkeypatch.setitem(REPLACEMENTS, ("cuda", function.__name__), function)
    case = Case((3, 7, 8, 2), 3, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), groups=2)
    host = [a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for a in case.arrays(rng, "d")]
    results = []
    for device in map(Device, ("cpu:0", "cuda:0")):
        x, w, b, gy = (Tensor(a).to(device) for a in host)
        leaves = [leaf.requires_grad_() for leaf in (x, w, b)]
        y = getattr(F, name)(*leaves, stride=2, padding=1, groups=2)
        (y * gy).sum().backward()
        results.append([y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    if isinstance(gpu.put(host[0]), fake_cupy.ndarray):
        assert "mdl_im2col" in fake_cupy.launches
