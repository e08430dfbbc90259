"""ReLU in one pass over memory, whatever its order; the mathematics is in minidl/ops/relu.py."""

from minidl.device import Array, array_module, memory_order
from minidl.kernels.cuda.flat import flatten, unflatten
from minidl.kernels.cuda.launch import launch

BATCH = 4  # elements for each thread, as in relu.cu


def relu_forward(x: Array) -> Array:
    """x of any shape -> y in x's memory order; NaN stays NaN. Integers are CuPy's."""
    if x.dtype.kind != "f":
        return array_module(x).maximum(x, 0)
    order = memory_order(x)
    flat = flatten(x, order)
    y = array_module(x).empty(flat.shape, x.dtype)
    launch("relu", "mdl_relu_forward", -(-y.size // BATCH), flat, y, y.size, real=x.dtype)
    return unflatten(y, x.shape, order)


def relu_backward(gy: Array, y: Array) -> Array:
    """gy, y of any shape -> gx in y's memory order."""
    order = memory_order(y)
    upstream, outputs = flatten(gy, order), flatten(y, order)
    gx = array_module(gy).empty(upstream.shape, gy.dtype)
    launch("relu", "mdl_relu_backward", -(-gx.size // BATCH), upstream, outputs, gx, gx.size, real=gy.dtype)
    return unflatten(gx, gy.shape, order)


def bias_relu(rows: Array, bias: Array | None) -> None:
    """In place: rows (number, O), contiguous, become max(rows + bias, 0); bias (O,) or None for 0."""
    xp = array_module(rows)
    if bias is None:
        xp.maximum(rows, 0, out=rows)
        return
    arrays = rows, xp.ascontiguousarray(bias)
    launch("relu", "mdl_bias_relu", -(-rows.size // BATCH), *arrays, rows.size, rows.shape[-1], real=rows.dtype)
