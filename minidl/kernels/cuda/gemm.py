"""Matrix products by cuBLAS, written where the result belongs: no operand is copied to be turned round or cut out.

cuBLAS reads memory by columns (Fortran's order). A row-major matrix A (M, K) is, read by columns, its transpose A^T (K, M).
So it is asked for the transpose of the product,

    C^T = (A B)^T = B^T A^T        the operands exchanged, and M and N too:

B's memory read by columns is B^T already, A's is A^T, and C^T written by columns is C by rows. An operand that is itself a
transposed view of row-major memory is passed with the flag "transpose".

The leading dimension of a matrix is the distance, in elements, from one row's start to the next one's. So the columns of one
group, in a matrix of all groups' columns, are a matrix too, whose leading dimension is longer than its rows.
"""

import threading
from types import ModuleType

import numpy as np

from minidl.device import Array, array_module, get_float32_matmul_precision

# 0 and 1 in each dtype: cuBLAS reads its factors from the host's memory, when it is called
_SCALARS = {dtype: np.array([0, 1], dtype) for dtype in (np.dtype("float32"), np.dtype("float64"))}


class _Handles(threading.local):
    """This thread's handles of cuBLAS, by device and stream."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], int] = {}


_handles = _Handles()


def gemm(a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
    """out (M, N) = a (M, K) @ b (K, N), or out += that; or G such products: a (G, M, K), b (G, K, N), out (G, M, N).

    a, b : of any strides; one is copied only if neither its rows nor its columns are runs of memory.
    out  : its rows are runs of memory, at any distance from each other and from one product to the next; not in a's or b's
           memory.

    All have one dtype, float32 or float64; minidl.set_float32_matmul_precision says how float32 is multiplied. Where K is 0
    the product is zeros.
    """
    m, n, k = _sizes(a, b, out)
    if out.size == 0 or k == 0:
        if not accumulate:
            out[...] = 0
        return
    xp = array_module(out)
    cublas = xp.cuda.cublas
    a, b = _readable(a), _readable(b)
    (lda, transpose_a), (ldb, transpose_b), (ldc, _) = (_leading(x) for x in (a, b, out))
    kind, compute = _types(xp, out.dtype)
    one, initial = (_SCALARS[out.dtype][i:].ctypes.data for i in (1, int(accumulate)))
    sizes = _handle(xp), int(transpose_b), int(transpose_a), n, m, k
    how = compute, cublas.CUBLAS_GEMM_DEFAULT
    pa, pb, pc = (x.data.ptr for x in (a, b, out))
    if out.ndim == 2 or len(out) == 1:
        cublas.gemmEx(*sizes, one, pb, kind, ldb, pa, kind, lda, initial, pc, kind, ldc, *how)
        return
    sa, sb, sc = (x.strides[0] // x.dtype.itemsize for x in (a, b, out))
    cublas.gemmStridedBatchedEx(*sizes, one, pb, kind, ldb, sb, pa, kind, lda, sa, initial, pc, kind, ldc, sc, len(out), *how)


def _handle(xp: ModuleType) -> int:
    """cuBLAS's handle for the current device and stream, of this thread.

    CuPy's own is one for all streams of a device. With several streams at work NVIDIA promises the same bits in every run only
    if each has a handle, and so a workspace, to itself (cuBLAS's documentation, "Results Reproducibility"); a resumed run and
    two contexts on one GPU need that.
    """
    place = xp.cuda.Device().id, xp.cuda.get_current_stream().ptr
    known = _handles.known
    if place not in known:
        known[place] = xp.cuda.cublas.create()
    return known[place]


def _sizes(a: Array, b: Array, out: Array) -> tuple[int, int, int]:
    """M, N, K. RuntimeError unless shapes and dtypes fit."""
    if not a.ndim == b.ndim == out.ndim or out.ndim not in (2, 3) or not a.dtype == b.dtype == out.dtype:
        raise RuntimeError(f"gemm: a, b and out must be matrices, or stacks of them, of one dtype, got {_given(a, b, out)}")
    (m, k), n = a.shape[-2:], b.shape[-1]
    if a.shape[:-2] != out.shape[:-2] or b.shape[:-1] != (*out.shape[:-2], k) or out.shape[-2:] != (m, n):
        raise RuntimeError(f"gemm: shapes must be (M, K), (K, N), (M, N), got {_given(a, b, out)}")
    if out.size and (_leading(out)[0] == 0 or _leading(out)[1]):
        raise RuntimeError(f"gemm: out's rows must be runs of memory, got strides {out.strides} ({_given(a, b, out)})")
    return m, n, k


def _given(*matrices: Array) -> str:
    return ", ".join(f"{name} {x.shape} {x.dtype}" for name, x in zip(("a", "b", "out"), matrices, strict=True))


def _leading(x: Array) -> tuple[int, bool]:
    """The leading dimension of a matrix or a stack of them, 0 if there are no runs; and whether the columns are the runs."""
    rows, columns = x.shape[-2:]
    down, across = (stride // x.dtype.itemsize for stride in x.strides[-2:])
    for lines, length, to_next, inside, transposed in (
        (rows, columns, down, across, False),
        (columns, rows, across, down, True),
    ):
        if (inside == 1 or length == 1) and (to_next >= length or lines == 1):
            return length if lines == 1 else to_next, transposed
    return 0, False


def _readable(x: Array) -> Array:
    """x, or a copy if cuBLAS cannot read it where it is."""
    backwards = any(stride < 0 for stride in x.strides)
    return array_module(x).ascontiguousarray(x) if backwards or _leading(x)[0] == 0 else x


def _types(xp: ModuleType, dtype: np.dtype) -> tuple[int, int]:
    """The codes of an array's dtype, and of how it is multiplied."""
    cublas, runtime = xp.cuda.cublas, xp.cuda.runtime
    if dtype == np.float64:
        return runtime.CUDA_R_64F, cublas.CUBLAS_COMPUTE_64F
    how = {"highest": "CUBLAS_COMPUTE_32F", "high": "CUBLAS_COMPUTE_32F_FAST_TF32", "medium": "CUBLAS_COMPUTE_32F_FAST_16BF"}
    return runtime.CUDA_R_32F, getattr(cublas, how[get_float32_matmul_precision()])
