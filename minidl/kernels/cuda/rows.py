"""What layers do with rows of pixels or examples, (number, O): add the bias, and sum up its gradient."""

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch

BATCH = 4  # rows for each thread, as in rows.cu
WIDE, BLOCK = 32, 256  # columns and threads of a block, as in rows.cu
CHUNK = 256  # the fewest rows that are worth a chunk of their own, and the most chunks: a second launch adds up all of them


def add_bias(rows: Array, bias: Array) -> None:
    """rows (number, O), contiguous, += bias (O,)."""
    number, columns = rows.shape
    count = -(-number // BATCH) * columns
    launch("rows", "mdl_add_bias", count, rows, array_module(rows).ascontiguousarray(bias), number, columns, real=rows.dtype)


def column_sums(rows: Array) -> Array:
    """rows (number, O), contiguous -> their sum (O,)."""
    return _sums("mdl_column_sums", rows)


def rectified_gradient(gy: Array, y: Array) -> tuple[Array, Array]:
    """gy, y (number, O), contiguous -> g = 0 where y <= 0, else gy; and the sum of g's rows (O,)."""
    g = array_module(gy).empty(gy.shape, gy.dtype)
    return g, _sums("mdl_masked_column_sums", gy, y, g)


def _sums(kernel: str, rows: Array, *more: Array) -> Array:
    """Sums of chunks of rows, each by a block for every WIDE columns; then the sum of those."""
    number, columns = rows.shape
    chunk = max(-(-number // CHUNK), CHUNK)
    chunks = max(-(-number // chunk), 1)  # one at least, so that no rows have a sum too
    sums = array_module(rows).empty((chunks, columns), rows.dtype)
    blocks, sizes = -(-columns // WIDE) * chunks, (number, columns, chunk, chunks)
    launch("rows", kernel, blocks * BLOCK, rows, *more, sums, *sizes, real=rows.dtype, block=BLOCK, blocks=blocks)
    return sums.reshape(columns) if chunks == 1 else column_sums(sums)
