"""The updates of SGD, each parameter in one launch and one pass; the mathematics is in minidl/optim/sgd.py.

w and v may lie in any memory order. Where one is not dense, the kernel works on a copy, which is then copied back.
"""

from minidl.device import Array, memory_order
from minidl.kernels.cuda.flat import flatten, unflatten
from minidl.kernels.cuda.launch import launch

BATCH = 4  # elements for each thread, as in sgd.cu


def sgd_update(
    w: Array,
    g: Array,
    v: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    found: Array | None = None,
) -> None:
    """As the plain function in minidl/optim/sgd.py."""
    direction = float(weight_decay), -1.0 if maximize else 1.0
    if v is None:
        _launch("mdl_sgd_descent", w, g, None, found, *direction, float(lr))
    else:
        options = float(lr), float(momentum), float(1 - dampening), int(nesterov)
        _launch("mdl_sgd_update", w, g, v, found, *direction, *options)


def sgd_update_2012(
    w: Array, g: Array, v: Array | None, lr: float, momentum: float, weight_decay: float, found: Array | None = None
) -> None:
    """As the plain function in minidl/optim/sgd.py."""
    if v is None:
        _launch("mdl_sgd_descent", w, g, None, found, float(weight_decay), 1.0, float(lr))
    else:
        _launch("mdl_sgd_update_2012", w, g, v, found, float(weight_decay), float(lr), float(momentum))


def _launch(kernel: str, w: Array, g: Array, v: Array | None, found: Array | None, *options: float) -> None:
    """Run the kernel on w, g and v as runs of memory, in the order of w's."""
    order = memory_order(w)
    arrays = [flatten(a, order) for a in (w, g, v) if a is not None]
    launch("sgd", kernel, -(-w.size // BATCH), *arrays, 0 if found is None else found, w.size, *options, real=w.dtype)
    for array, flat in ((w, arrays[0]), (v, arrays[-1])):
        if array is not None and not array.transpose(order).flags.c_contiguous:
            array[...] = unflatten(flat, array.shape, order)
