"""Products by cuBLAS, or by the stand-in for it; and what the stand-in refuses."""

import ctypes

import fake_cublas
import fake_cupy
import numpy as np
import pytest

import minidl
from minidl import Device
from minidl.kernels.cuda.gemm import gemm

DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def _precision():
    yield
    minidl.set_float32_matmul_precision("highest")


def check(got, a, b, before=0):
    """K additions and as many products are rounded, each by eps of at most the sum of the absolute values."""
    a, b = a.astype("float64"), b.astype("float64")
    bound = (a.shape[-1] + 2) * np.finfo(got.dtype).eps * (np.abs(a) @ np.abs(b) + np.abs(before))
    assert (np.abs(got - (a @ b + before)) <= bound).all()


def as_is(x):
    return x


def cut_out(x):
    """Columns in the middle of longer rows: what is around them is NaN."""
    wide = np.full((*x.shape[:-1], x.shape[-1] + 5), np.nan, x.dtype)
    wide[..., 2:-3] = x
    return wide


def put(gpu, x, form):
    """x on the GPU in a memory layout, and the array that it is a view of."""
    if form == "turned":
        whole = gpu.put(np.ascontiguousarray(np.swapaxes(x, -1, -2)))
        return whole.swapaxes(x.ndim - 1, x.ndim - 2), whole
    if form == "cut":
        whole = gpu.put(cut_out(x))
        return whole[..., 2:-3], whole
    if form == "turned cut":
        whole = gpu.put(cut_out(np.swapaxes(x, -1, -2)))
        return whole[..., 2:-3].swapaxes(x.ndim - 1, x.ndim - 2), whole
    if form == "every second":
        whole = gpu.put(np.repeat(x, 2, -1))
        return whole[..., ::2], whole
    if form == "backwards":
        whole = gpu.put(np.ascontiguousarray(x[..., ::-1, :]))
        return whole[..., ::-1, :], whole
    if form == "interleaved":  # what a row of one matrix is followed by is the same row of the next matrix
        whole = gpu.put(np.ascontiguousarray(x.swapaxes(0, 1)))
        return whole.swapaxes(0, 1), whole
    whole = gpu.put(x)
    return whole, whole


SIZES = [(3, 5, 4), (1, 1, 1), (1, 7, 3), (7, 1, 3), (5, 3, 1), (1, 1, 5), (1, 4, 1), (4, 1, 1), (13, 17, 11)]  # M, N, K
FORMS = ["rows", "turned", "cut", "turned cut", "every second", "backwards"]


@pytest.mark.parametrize("form_b", FORMS)
@pytest.mark.parametrize("form_a", FORMS)
def test_operands_of_every_layout(gpu, rng, form_a, form_b):
    for m, n, k in SIZES:
        for dtype in DTYPES:
            a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
            out = gpu.put(np.full((m, n), np.nan, dtype))
            gemm(put(gpu, a, form_a)[0], put(gpu, b, form_b)[0], out)
            check(gpu.get(out), a, b)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("form", ["rows", "cut"])
def test_a_result_inside_longer_rows(gpu, rng, form, accumulate):
    for m, n, k in SIZES:
        for dtype in DTYPES:
            a, b, before = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n)))
            out, whole = put(gpu, before if accumulate else np.full_like(before, np.nan), form)
            gemm(gpu.put(a), gpu.put(b), out, accumulate)
            check(gpu.get(out), a, b, before if accumulate else 0)
            assert np.isnan(gpu.get(whole)).sum() == whole.size - out.size  # nothing is written beside it


@pytest.mark.parametrize("form_b", [*FORMS, "interleaved"])
@pytest.mark.parametrize("form_a", [*FORMS, "interleaved"])
def test_several_products_at_once(gpu, rng, form_a, form_b):
    for groups, (m, n, k) in zip((1, 2, 3, 5, 2, 2, 3, 2, 2), SIZES, strict=True):
        a, b = (rng.standard_normal((groups, *shape)).astype("f") for shape in ((m, k), (k, n)))
        for form in ("rows", "cut", "interleaved"):
            out = put(gpu, np.full((groups, m, n), np.nan, "f"), form)[0]
            gemm(put(gpu, a, form_a)[0], put(gpu, b, form_b)[0], out)
            check(gpu.get(out), a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_products_are_added(gpu, rng, dtype):
    a, b, before = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 4, 6), (3, 6, 5), (3, 4, 5)))
    out = put(gpu, before, "interleaved")[0]
    gemm(gpu.put(a), gpu.put(b), out, accumulate=True)
    check(gpu.get(out), a, b, before)


def test_an_operand_repeated_for_every_product(gpu, rng):
    a, b = rng.standard_normal((4, 6)), rng.standard_normal((3, 6, 5))
    out = gpu.put(np.empty((3, 4, 5)))
    gemm(gpu.device.xp.broadcast_to(gpu.put(a), (3, 4, 6)), gpu.put(b), out)
    check(gpu.get(out), a, b)


def test_operands_whose_rows_or_matrices_overlap_or_go_backwards(gpu, rng):
    xp = gpu.device.xp
    series, b = rng.standard_normal(9), rng.standard_normal((2, 3, 4))
    windows = np.lib.stride_tricks.sliding_window_view(series, 3)
    on_gpu = xp.lib.stride_tricks.as_strided(gpu.put(series), (7, 3), (8, 8))
    out = gpu.put(np.empty((7, 4)))
    gemm(on_gpu, gpu.put(b[0]), out)
    check(gpu.get(out), windows, b[0])
    several = gpu.put(np.empty((2, 4, 4)))
    gemm(gpu.put(b)[::-1].swapaxes(1, 2), gpu.put(b), several)
    check(gpu.get(several), b[::-1].swapaxes(1, 2), b)


def test_a_column_among_others(gpu, rng):
    """Its elements are far apart, whichever way the one column is cut out."""
    a, b, whole = rng.standard_normal((5, 4)), rng.standard_normal((4, 1)), gpu.put(np.zeros((5, 2)))
    for out in (whole[:, ::2], whole[:, 1:]):
        gemm(gpu.put(a), gpu.put(b), out)
        check(gpu.get(out), a, b)


@pytest.mark.parametrize("sizes", [(3, 4, 0), (0, 4, 2), (3, 0, 2), (0, 0, 0)])
@pytest.mark.parametrize("groups", [(), (2,), (0,)])
def test_nothing_to_multiply(gpu, groups, sizes):
    m, n, k = sizes
    a, b = gpu.put(np.ones((*groups, m, k))), gpu.put(np.ones((*groups, k, n)))
    for before, accumulate, after in ((np.nan, False, 0), (7.0, True, 7)):
        out = gpu.put(np.full((*groups, m, n), before))
        gemm(a, b, out, accumulate)
        np.testing.assert_array_equal(gpu.get(out), np.full((*groups, m, n), after))


@pytest.mark.parametrize("form", ["rows", "turned", "cut", "turned cut", "interleaved"])
def test_one_call_for_all_products_and_no_copies(gpu, rng, form):
    a, b = (put(gpu, rng.standard_normal(shape), form)[0] for shape in ((2, 3, 4), (2, 4, 5)))
    out = put(gpu, np.zeros((2, 3, 5)), form if "turned" not in form else "rows")[0]
    if not isinstance(out, fake_cupy.ndarray):
        pytest.skip("about the stand-in, which counts")
    before = gpu.device.stream.time
    gemm(a, b, out)
    gemm(a[:1], b[:1], out[:1])
    gemm(a[0], b[0], out[0])
    assert fake_cublas.calls == ["gemmStridedBatchedEx", "gemmEx", "gemmEx"]
    assert gpu.device.stream.time == before + 3


# ----------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("precision, bits", [("high", 11), ("medium", 8)])
def test_high_precision_may_round_the_factors(gpu, rng, precision, bits):
    a, b = rng.standard_normal((20, 300)).astype("f"), rng.standard_normal((300, 30)).astype("f")
    out = gpu.put(np.empty((20, 30), "f"))
    minidl.set_float32_matmul_precision(precision)
    gemm(gpu.put(a), gpu.put(b), out)
    error = np.abs(gpu.get(out) - a.astype("d") @ b) / (np.abs(a) @ np.abs(b))
    assert error.max() < 2.0 ** (1 - bits) * 1.01  # each factor is off by 2^-11, or 2^-8, of itself at most
    if isinstance(out, fake_cupy.ndarray):
        assert error.max() > 2.0**-bits / 50  # a GPU without such tensor cores does as before


def test_high_precision_leaves_float64_alone(gpu, rng):
    a, b = rng.standard_normal((5, 30)), rng.standard_normal((30, 6))
    minidl.set_float32_matmul_precision("medium")
    out = gpu.put(np.empty((5, 6)))
    gemm(gpu.put(a), gpu.put(b), out)
    check(gpu.get(out), a, b)


# ------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_two_streams_at_work_give_the_bits_of_one(gpu, rng):
    """Products that need a workspace, few rows of many terms, again and again on both logical devices of one GPU: a handle for
    each stream makes NVIDIA's promise hold. On the stand-in one handle for two streams is an error."""
    there = Device("cuda:1")
    m, n, k, times = (128, 1000, 4096, 50) if gpu.device.xp is not fake_cupy else (3, 5, 40, 2)
    a, b = rng.standard_normal((m, k)).astype("f"), rng.standard_normal((k, n)).astype("f")
    operands, alone, both = {}, [], []
    for device in (gpu.device, there):
        with device.active():
            operands[device] = device.asarray(a), device.asarray(b), device.xp.empty((m, n), np.float32)
            gemm(*operands[device])
            alone.append(device.to_host(operands[device][2]))
            device.synchronize()
    for _ in range(times):
        for device, (x, y, out) in operands.items():
            with device.active():
                gemm(x, y, out)
        both.append([device.begin_to_host(out) for device, (_, _, out) in operands.items()])
    np.testing.assert_array_equal(*alone)
    for copies in both:
        for copy, expected in zip(copies, alone, strict=True):
            np.testing.assert_array_equal(copy.wait(), expected)


def test_a_stream_keeps_its_handle(gpu):
    x, out = gpu.put(np.ones((2, 2))), gpu.put(np.ones((2, 2)))
    if gpu.device.xp is not fake_cupy:
        pytest.skip("about the stand-in")
    before = len(fake_cublas.handles)
    for _ in range(3):
        gemm(x, x, out)
    assert len(fake_cublas.handles) == before + 1


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "a, b, out, message",
    [
        ((3, 4), (5, 2), (3, 2), r"shapes must be \(M, K\), \(K, N\), \(M, N\), got a \(3, 4\) float64, b \(5, 2\) float64"),
        ((3, 4), (4, 2), (2, 3), "shapes must be"),
        ((3, 4), (4, 2), (3, 3), "shapes must be"),
        ((2, 3, 4), (1, 4, 2), (2, 3, 2), "shapes must be"),
        ((1, 3, 4), (2, 4, 2), (2, 3, 2), "shapes must be"),
        ((2, 3, 4), (4, 2), (2, 3, 2), "must be matrices"),
        ((4,), (4,), (4,), "must be matrices"),
        ((1, 1, 3, 4), (1, 1, 4, 2), (1, 1, 3, 2), "must be matrices"),
    ],
)
def test_shapes_that_do_not_fit(gpu, a, b, out, message):
    with pytest.raises(RuntimeError, match=message):
        gemm(*(gpu.put(np.ones(shape)) for shape in (a, b, out)))


def test_dtypes_that_differ(gpu):
    arrays = [np.ones((2, 2), dtype) for dtype in ("float32", "float64", "float32")]
    with pytest.raises(RuntimeError, match=r"of one dtype, got a .* float32, b .* float64, out .* float32"):
        gemm(*map(gpu.put, arrays))


def test_a_result_that_cublas_cannot_write(gpu):
    a, wide = gpu.put(np.ones((3, 3))), gpu.put(np.ones((3, 6)))
    for out in (wide[:, ::2], wide[:, :3].T):
        with pytest.raises(RuntimeError, match="out's rows must be runs of memory, got strides"):
            gemm(a, a, out)


# -------------------------------------------------------------------------------------------- what the stand-in refuses


@pytest.fixture
def product(gpu):
    """Calls cuBLAS's stand-in for a product of 2 x 2 matrices, with some arguments changed."""
    arrays = [gpu.put(np.ones((2, 2))) for _ in range(3)]
    if not isinstance(arrays[0], fake_cupy.ndarray):
        pytest.skip("about the stand-in")
    one = ctypes.c_double(1)
    names = ["h", "ta", "tb", "m", "n", "k", "alpha", "a", "at", "lda", "b", "bt", "ldb", "beta", "c", "ct", "ldc", "compute"]
    pa, pb, pc = (x.data.ptr for x in arrays)
    alpha = ctypes.addressof(one)
    usual = dict(
        zip(
            [*names, "algo"],
            (fake_cublas.create(), 0, 0, 2, 2, 2, alpha, pa, 1, 2, pb, 1, 2, alpha, pc, 1, 2, 70, -1),
            strict=True,
        )
    )
    usual["kept"] = arrays, one

    def call(**changed):
        fake_cublas.gemmEx(*({**usual, **changed}[name] for name in (*names, "algo")))
        return arrays[2]._array

    call.usual = usual
    return call


def test_the_stand_in_multiplies_and_adds(product):
    np.testing.assert_array_equal(product(), np.full((2, 2), 3))


@pytest.mark.parametrize(
    "changed, error",
    [
        ({"m": 2.0}, TypeError),
        ({"lda": np.int64(2)}, TypeError),
        ({"ldb": 2**31}, OverflowError),
        ({"h": 1001}, fake_cublas.CUBLASError),
        ({"ta": 2}, fake_cublas.CUBLASError),
        ({"at": 0}, fake_cublas.CUBLASError),
        ({"compute": 68}, fake_cublas.CUBLASError),
        ({"algo": 0}, fake_cublas.CUBLASError),
        ({"k": 0}, fake_cublas.CUBLASError),
        ({"lda": 1}, fake_cublas.CUBLASError),
        ({"ldb": 1}, fake_cublas.CUBLASError),
        ({"ldc": 1}, fake_cublas.CUBLASError),
        ({"lda": 3}, RuntimeError),
        ({"n": 3}, RuntimeError),
        ({"a": 64}, RuntimeError),
        ({"at": 0, "bt": 0, "ct": 0, "compute": 68}, RuntimeError),
    ],
    ids=str,
)
def test_the_stand_in_refuses(product, changed, error):
    with pytest.raises(error):
        product(**changed)


def test_the_stand_in_refuses_a_result_in_an_operand(product):
    for operand in "ab":
        with pytest.raises(RuntimeError, match="a result lies in an operand"):
            product(c=product.usual[operand])


def test_the_stand_in_refuses_one_handle_for_two_streams(product):
    product()
    with fake_cupy.cuda.Stream(), pytest.raises(fake_cublas.CUBLASError, match="no workspace of its own"):
        product()


def test_the_stand_in_refuses_freed_memory(product):
    del product.usual["kept"][0][1]
    with pytest.raises(RuntimeError, match="memory that was freed"):
        product()


def test_the_stand_in_refuses_results_over_one_another(gpu):
    if not isinstance(gpu.put(np.ones(1)), fake_cupy.ndarray):
        pytest.skip("about the stand-in")
    a, out = gpu.put(np.ones((2, 2, 2))), gpu.put(np.ones((3, 2)))
    both = gpu.device.xp.lib.stride_tricks.as_strided(out, (2, 2, 2), (16, 16, 8))
    with pytest.raises(RuntimeError, match="over another result"):
        gemm(a, a, both)
    gemm(a, a, gpu.device.xp.lib.stride_tricks.as_strided(gpu.put(np.ones((4, 2))), (2, 2, 2), (32, 16, 8)))


def test_the_stand_in_waits_for_other_streams(gpu):
    x = gpu.put(np.ones((2, 2)))
    if not isinstance(x, fake_cupy.ndarray):
        pytest.skip("about the stand-in")
    y = x + 1
    other = fake_cupy.cuda.Stream()
    with other, pytest.raises(RuntimeError, match="with no event in between"):
        gemm(y, y, fake_cupy.empty((2, 2)))
    other.wait_event(gpu.device.stream.record())
    with other:
        gemm(y, y, fake_cupy.empty((2, 2)))
    gpu.device.stream.wait_event(other.record())
