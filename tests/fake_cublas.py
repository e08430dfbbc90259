"""cuBLAS's products for the stand-in for CuPy (fake_cupy.py): on NumPy, by the addresses and sizes that cuBLAS is given.

Every argument is taken for what it is to cuBLAS: matrices are read by columns, and nothing but an address says where. What
cuBLAS would refuse or silently get wrong raises: sizes that are no C ints, a leading dimension shorter than a column,
addresses of memory that was freed or that ends too early, results that lie in an operand or over one another, unknown codes,
a handle of another GPU, of another thread, or that another stream has used: with that, two runs may differ in bits. Reading
and writing count as a kernel's, for the stream and its events.

`install` hooks it into fake_cupy. `calls` lists what was called, by name.
"""

import ctypes
import threading
import weakref
from types import SimpleNamespace

import numpy as np

calls: list[str] = []
handles: dict[int, "_Handle"] = {}
_memory: dict[int, tuple] = {}  # address -> the whole array and the buffer that it was taken from, weakly

CUDA_R_32F, CUDA_R_64F = 0, 1
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32, COMPUTE_BF16 = 68, 70, 77, 75
COMPUTES = {CUDA_R_32F: (COMPUTE_32F, COMPUTE_TF32, COMPUTE_BF16), CUDA_R_64F: (COMPUTE_64F,)}
DTYPES = {CUDA_R_32F: np.dtype("float32"), CUDA_R_64F: np.dtype("float64")}


class CUBLASError(RuntimeError):
    pass


class _Handle:
    def __init__(self, device):
        self.device, self.thread, self.stream = device, threading.get_ident(), None


def create():
    """A new handle, of the current GPU."""
    handles[1000 + len(handles)] = _Handle(_cupy._here.device)
    return 999 + len(handles)


def _check_handle(number):
    handle, stream = handles.get(number), _cupy._here.streams[-1]
    if handle is None or handle.device != _cupy._here.device or handle.thread != threading.get_ident():
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED: the handle belongs to another GPU or thread")
    if handle.stream not in (None, stream):
        raise CUBLASError(f"a handle of {handle.stream.name} is used on {stream.name}: no workspace of its own")
    handle.stream = stream


def install(cupy):
    """Give the module `cupy` (fake_cupy) what minidl asks of cuBLAS."""
    global _cupy
    _cupy = cupy
    for kept in (calls, handles, _memory):
        kept.clear()
    cupy.ndarray.data = property(lambda array: SimpleNamespace(ptr=_address(array)))
    cupy.cuda.runtime.CUDA_R_32F, cupy.cuda.runtime.CUDA_R_64F = CUDA_R_32F, CUDA_R_64F
    cupy.cuda.cublas = SimpleNamespace(
        create=create,
        gemmEx=gemmEx,
        gemmStridedBatchedEx=gemmStridedBatchedEx,
        CUBLAS_OP_N=0,
        CUBLAS_OP_T=1,
        CUBLAS_GEMM_DEFAULT=-1,
        CUBLAS_COMPUTE_32F=COMPUTE_32F,
        CUBLAS_COMPUTE_64F=COMPUTE_64F,
        CUBLAS_COMPUTE_32F_FAST_TF32=COMPUTE_TF32,
        CUBLAS_COMPUTE_32F_FAST_16BF=COMPUTE_BF16,
    )


def gemmEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, computeType, algo, /):  # noqa: N802
    """C (m, n) = alpha * op(A) (m, k) op(B) (k, n) + beta * C, all by columns."""
    calls.append("gemmEx")
    _gemm(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1, computeType, algo
    )


def gemmStridedBatchedEx(  # noqa: N802
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc, strideC,
    batchCount, computeType, algo, /,
):  # fmt: skip
    """The same for each i < batchCount, whose matrices lie i * stride elements behind A, B, C."""
    calls.append("gemmStridedBatchedEx")
    strides = (strideA, strideB, strideC)
    if not all(type(s) is int and abs(s) < 2**63 for s in strides):
        raise TypeError(f"strides must be ints, got {strides}")
    _gemm(
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc, strideC,
        batchCount, computeType, algo,
    )  # fmt: skip


def _gemm(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc, strideC,
    batch, compute, algo,
):  # fmt: skip
    _check_ints(m, n, k, lda, ldb, ldc, batch)
    _check_handle(handle)
    if not Atype == Btype == Ctype or compute not in COMPUTES[Ctype] or algo != -1 or {transa, transb} - {0, 1}:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE: types, flags or algorithm")
    a_shape, b_shape = (k, m) if transa else (m, k), (n, k) if transb else (k, n)
    if min(m, n, k) < 1 or batch < 1 or lda < a_shape[0] or ldb < b_shape[0] or ldc < m:
        raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE: sizes or leading dimensions")
    dtype = DTYPES[Ctype]
    a, a_buffer = _matrices(A, dtype, a_shape, lda, strideA, batch)
    b, b_buffer = _matrices(B, dtype, b_shape, ldb, strideB, batch)
    c, c_buffer = _matrices(C, dtype, (m, n), ldc, strideC, batch)
    if np.shares_memory(a, c) or np.shares_memory(b, c) or _overlaps_itself(c):
        raise RuntimeError("cuBLAS: a result lies in an operand, or over another result")
    number = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    factor, initial = (dtype.type(number.from_address(address).value) for address in (alpha, beta))
    left, right = (_rounded(x, compute) for x in (a.swapaxes(1, 2) if transa else a, b.swapaxes(1, 2) if transb else b))
    _cupy._launch([_used(a_buffer), _used(b_buffer), *([_used(c_buffer)] if initial else [])], [_used(c_buffer)])
    product = factor * np.matmul(left, right)
    c[...] = product + initial * c if initial else product  # where beta is 0, C is not read: it may hold NaN


def _check_ints(*values):
    for value in values:
        if type(value) is not int:
            raise TypeError(f"an integer is required, got {value!r}")
        if abs(value) >= 2**31:
            raise OverflowError("value too large to convert to int")


def _used(buffer):
    return SimpleNamespace(_buffer=buffer)


def _rounded(x, compute):
    """What tensor cores multiply: all of a number, or its first 10 (TF32) or 7 (bfloat16) bits after the point."""
    if compute not in (COMPUTE_TF32, COMPUTE_BF16):
        return x
    half, kept = (0x1000, 0xFFFFE000) if compute == COMPUTE_TF32 else (0x8000, 0xFFFF0000)
    finite = np.isfinite(x)
    bits = np.where(finite, x, 0).astype(np.float32).view(np.uint32)
    return np.where(finite, ((bits + half) & kept).astype(np.uint32).view(np.float32), x)


def _overlaps_itself(c):
    reach = 0
    for stride, size in sorted(
        (stride // c.itemsize, size) for stride, size in zip(c.strides, c.shape, strict=True) if size > 1
    ):
        if stride <= reach:
            break
        reach += (size - 1) * stride
    else:
        return False  # every step is larger than all that the smaller ones reach together
    places = np.lib.stride_tricks.as_strided(np.arange(_extent(c)), c.shape, [8 * s // c.itemsize for s in c.strides])
    return np.unique(places).size < c.size


def _extent(c):
    return 1 + sum((size - 1) * stride // c.itemsize for size, stride in zip(c.shape, c.strides, strict=True))


# ------------------------------------------------------------------------------------------------------------- memory


def _address(array):
    """The address of a fake array's first element, and a note of the memory that it lies in."""
    address = array._array.ctypes.data
    _memory[address] = weakref.ref(array._buffer.array), weakref.ref(array._buffer)
    return address


def _matrices(address, dtype, shape, leading, stride, batch):
    """A view (batch, rows, columns) of matrices by columns, and the buffer that they lie in."""
    whole, buffer = (reference() for reference in _memory.get(address, (lambda: None, lambda: None)))
    if whole is None or buffer is None:
        raise RuntimeError("cuBLAS: an address of memory that was freed, or that no array has")
    if whole.dtype != dtype or stride < 0:
        raise RuntimeError(f"cuBLAS: {whole.dtype} is read as {dtype}, or backwards")
    flat = whole.ravel(order="K")[(address - whole.ctypes.data) // whole.itemsize :]
    matrices = np.lib.stride_tricks.as_strided(flat, (batch, *shape), [whole.itemsize * s for s in (stride, 1, leading)])
    if _extent(matrices) > flat.size:
        raise RuntimeError("cuBLAS: a matrix reaches beyond the end of its memory")
    return matrices, buffer
