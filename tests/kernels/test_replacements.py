"""Every CPU replacement against its plain twin, on every kind of input; and a small net with and without replacements.

A replacement must give the plain function's values, dtypes, shapes and Nones, in memory that is its own, contiguous where the
plain one's is, and leave its inputs alone. Values agree bit for bit where no sum is reordered. Where one is, the error allowed
is a number of roundings, times the dtype's spacing at 1, times the size of what is summed: the plain function of absolute
values. Scratch memory is filled with NaN before it is handed out, so that nothing can count on what was there.

To enter a function in the table, give it cases here: a test fails otherwise.
"""

import contextlib
import importlib
import itertools
import pkgutil
import sys

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
import minidl.ops
import minidl.optim
from minidl import Tensor, gradcheck, nn, parallel, shapes
from minidl.data.input_step import input_step
from minidl.device import memory_order
from minidl.kernels import REPLACEMENTS, plain_kernels
from minidl.kernels.cpu import winograd
from minidl.ops.avg_pool2d import window_counts
from minidl.ops.local_response_norm import window_sum
from minidl.ops.max_pool2d import max_pool2d_forward
from minidl.random import Draw

THREADS = [1, 2, 3]
DTYPES = ["float32", "float64"]
NEEDS = list(itertools.product([True, False], repeat=3))
LARGE = 300_007  # elements: more than a core's cache, and no multiple of a slab or of a number of threads


def plain_functions():
    """Name -> function, of everything that minidl's ops and optimizers define, and of the input step."""
    found = {"input_step": input_step}
    for package in (minidl.ops, minidl.optim):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= {n: f for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__}
    return found


PLAIN = plain_functions()
REPLACED = {name: replacement for (kind, name), replacement in REPLACEMENTS.items() if kind == "cpu"}


# -------------------------------------------------------------------------------------------------------------- arrays
# A case is a label and the arguments. Some come again in every arrangement of memory.

ARRANGED = ("rich", "3x3, padding 1, groups, as conv4", "AlexNet's", "as ImageNet")  # how their labels start


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def with_odd_values(rng, dtype, *shape):
    """Normal numbers, among them zeros of both signs, infinities, NaN and a number so small that it has no full precision."""
    x = normal(rng, dtype, *shape)
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal], dtype)
    where = rng.random(shape) < 0.4
    x[where] = rng.choice(odd, int(where.sum()))
    return x


def axes_of_c_order(a):
    """The axes of an array (N, H, W, C) in NCHW order; those of another in Fortran order."""
    return (0, 3, 1, 2) if a.ndim == 4 else tuple(range(a.ndim))[::-1]


def transposed(a):
    axes = axes_of_c_order(a)
    return a.transpose(axes).copy().transpose(np.argsort(axes))


def sliced(a):
    if a.ndim == 0:
        return a
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., 1::2] = np.nan if a.dtype.kind == "f" else 1
    wide[..., ::2] = a
    return wide[..., ::2]


def cut_out(a):
    """The inside of an array with one more row and column on each side."""
    wide = np.pad(a, 1, constant_values=np.nan if a.dtype.kind == "f" else 1)
    return wide[(slice(1, -1),) * a.ndim]


def reversed_(a):
    return a[(slice(None, None, -1),) * a.ndim].copy()[(slice(None, None, -1),) * a.ndim]


def all_as_the_first(a):
    """Every image a view of the first one, as the gradient of a sum is."""
    return np.broadcast_to(a[:1], a.shape) if a.ndim > 1 else a


ARRANGEMENTS = {
    "transposed": [transposed],
    "sliced": [sliced],
    "cut out": [cut_out],
    "reversed": [reversed_],
    "all as the first": [all_as_the_first],
    "mixed": [transposed, sliced, np.ascontiguousarray],
}


def first_array(args):
    return next(a for a in args if isinstance(a, np.ndarray))


def arranged(args, arrangement):
    functions = itertools.cycle(ARRANGEMENTS[arrangement])
    return tuple(next(functions)(a) if isinstance(a, np.ndarray) else a for a in args)


# ------------------------------------------------------------------------------------------------------------ the cases


def same(n):
    return (n, n), (n, n)


# x (N, H, W, C), w (O, KH, KW, C / groups), stride, ((top, bottom), (left, right)), dilation, groups
CONVS = {
    "rich": ((5, 9, 8, 4), (6, 3, 2, 2), (2, 1), ((1, 2), (0, 1)), (1, 2), 2),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), same(0), (1, 1), 1),
    "no image": ((0, 6, 5, 16), (8, 3, 3, 16), (1, 1), same(1), (1, 1), 1),
    "no image, strided": ((0, 12, 12, 3), (2, 4, 4, 3), (2, 2), same(0), (1, 1), 1),
    "kernel is the image": ((3, 4, 3, 2), (5, 4, 3, 2), (1, 1), same(0), (1, 1), 1),
    "1x1 kernel": ((3, 5, 4, 20), (7, 1, 1, 20), (1, 1), same(0), (1, 1), 1),
    "1x1 kernel, strided and padded": ((2, 5, 5, 6), (4, 1, 1, 3), (2, 2), same(1), (1, 1), 2),
    "stride leaves columns over": ((2, 8, 9, 2), (3, 3, 3, 2), (2, 4), same(0), (1, 1), 1),
    "stride over kernel": ((2, 8, 7, 2), (3, 2, 2, 2), (3, 3), same(0), (1, 1), 1),
    "dilation": ((2, 9, 10, 3), (4, 3, 3, 3), (1, 1), same(2), (2, 3), 1),
    "dilation and stride": ((2, 11, 9, 4), (4, 3, 3, 2), (2, 2), same(1), (2, 2), 2),
    "groups = channels": ((3, 6, 5, 5), (10, 3, 3, 1), (1, 1), same(1), (1, 1), 5),
    "even kernel, padded as 'same'": ((2, 6, 5, 3), (4, 2, 4, 3), (1, 1), ((0, 1), (1, 2)), (1, 1), 1),
    "padding over the kernel": ((2, 3, 4, 2), (3, 2, 2, 2), (1, 1), ((3, 0), (2, 4)), (1, 1), 1),
    "conv1 of AlexNet, cropped": ((3, 35, 31, 3), (8, 11, 11, 3), (4, 4), same(0), (1, 1), 1),
    "conv1 as in PyTorch, cropped": ((2, 36, 29, 3), (16, 11, 11, 3), (4, 4), same(2), (1, 1), 1),
    "conv2 of AlexNet, cropped": ((4, 11, 9, 32), (24, 5, 5, 16), (1, 1), same(2), (1, 1), 2),
    "3x3, no padding": ((2, 9, 8, 16), (24, 3, 3, 16), (1, 1), same(0), (1, 1), 1),
    "3x3, padding 1, as conv3": ((3, 13, 13, 32), (20, 3, 3, 32), (1, 1), same(1), (1, 1), 1),
    "3x3, groups, four images in a mosaic": ((8, 13, 13, 32), (32, 3, 3, 16), (1, 1), same(1), (1, 1), 2),
    "3x3, padding 1, groups, as conv4": ((5, 13, 13, 34), (32, 3, 3, 17), (1, 1), same(1), (1, 1), 2),
    "3x3, padding 2": ((2, 6, 5, 17), (16, 3, 3, 17), (1, 1), same(2), (1, 1), 1),
    "3x3, uneven padding": ((2, 7, 10, 16), (16, 3, 3, 16), (1, 1), ((0, 1), (2, 1)), (1, 1), 1),
    "3x3, few channels": ((2, 6, 7, 2), (3, 3, 3, 2), (1, 1), same(1), (1, 1), 1),
    "3x3, one channel": ((1, 5, 5, 1), (1, 3, 3, 1), (1, 1), same(1), (1, 1), 1),
    "3x3, one output pixel": ((2, 3, 3, 16), (16, 3, 3, 16), (1, 1), same(0), (1, 1), 1),
    "3x3, one input pixel": ((2, 1, 1, 16), (16, 3, 3, 16), (1, 1), same(1), (1, 1), 1),
    "3x3, one image": ((1, 12, 11, 16), (16, 3, 3, 16), (1, 1), same(1), (1, 1), 1),
    "3x3, flat image": ((4, 1, 20, 18), (16, 3, 3, 18), (1, 1), same(1), (1, 1), 1),
    "3x3, strided": ((3, 9, 8, 16), (16, 3, 3, 16), (2, 2), same(1), (1, 1), 1),
    "5x5, no padding": ((2, 9, 10, 16), (16, 5, 5, 16), (1, 1), same(0), (1, 1), 1),
    "3x5": ((2, 8, 9, 16), (16, 3, 5, 16), (1, 1), ((1, 1), (2, 2)), (1, 1), 1),
}


def conv_arrays(rng, dtype, x_shape, w_shape, stride, padding, dilation):
    """x, w, b, gy of a setting."""
    oh, ow = shapes.out_size("conv2d", x_shape[1:3], w_shape[1:3], stride, padding, dilation)
    gy_shape = (x_shape[0], oh, ow, w_shape[0])
    return (normal(rng, dtype, *shape) for shape in (x_shape, w_shape, w_shape[:1], gy_shape))


def conv2d_forward_cases(rng, dtype):
    for label, (x_shape, w_shape, *settings, groups) in CONVS.items():
        x, w, b, _ = conv_arrays(rng, dtype, x_shape, w_shape, *settings)
        yield label, (x, w, b, *settings, groups)
        yield f"{label}, no bias", (x, w, None, *settings, groups)


def conv2d_backward_cases(rng, dtype):
    for label, (x_shape, w_shape, *settings, groups) in CONVS.items():
        x, w, _, gy = conv_arrays(rng, dtype, x_shape, w_shape, *settings)
        chosen = NEEDS if label in ("rich", "no image", "3x3, padding 1, as conv3", "conv2 of AlexNet, cropped") else NEEDS[:1]
        for needs in chosen:
            yield f"{label}, needs {needs}", (gy, x, w, *settings, groups, needs)


def conv2d_relu_backward_cases(rng, dtype):
    for label, (gy, *rest) in conv2d_backward_cases(rng, dtype):
        yield label, (gy, np.maximum(normal(rng, dtype, *gy.shape), 0), *rest)


LINEARS = {"rich": (5, 7, 3), "no row": (0, 4, 3), "one row": (1, 33, 20), "one number": (1, 1, 1), "many rows": (301, 20, 9)}
LINEARS |= {"wide": (4, 300, 1100), "tall": (7, 1100, 300)}


def linear_forward_cases(rng, dtype):
    for label, (n, i, o) in LINEARS.items():
        x, w, b = normal(rng, dtype, n, i), normal(rng, dtype, o, i), normal(rng, dtype, o)
        yield label, (x, w, b)
        yield f"{label}, no bias", (x, w, None)


def linear_backward_cases(rng, dtype):
    for label, (n, i, o) in LINEARS.items():
        arrays = normal(rng, dtype, n, o), normal(rng, dtype, n, i), normal(rng, dtype, o, i)
        for needs in NEEDS:
            yield f"{label}, needs {needs}", (*arrays, needs)


# x (..., C), size, alpha, beta, k
LRNS = {
    "rich": ((3, 4, 5, 7), 5, 1e-1, 0.75, 2.0),
    "2012": ((5, 9, 7, 48), 5, 1e-4, 0.75, 2.0),
    "even window": ((2, 3, 3, 9), 4, 0.5, 0.75, 1.0),
    "window of two": ((2, 3, 3, 5), 2, 0.5, 0.75, 1.0),
    "window of one": ((2, 3, 3, 5), 1, 0.5, 0.75, 1.0),
    "window over the channels": ((2, 3, 2, 3), 9, 0.5, 0.75, 1.0),
    "even window over the channels": ((2, 3, 2, 3), 8, 0.5, 0.75, 1.0),
    "one channel": ((2, 3, 3, 1), 5, 0.5, 0.75, 1.0),
    "another power": ((2, 3, 4, 6), 3, 0.7, 0.6, 1.5),
    "power 1": ((2, 3, 4, 6), 3, 0.7, 1.0, 1.0),
    "no power": ((2, 3, 4, 6), 3, 0.7, 0.0, 1.0),
    "no alpha": ((2, 3, 4, 6), 5, 0.0, 0.75, 1.0),
    "no image": ((0, 3, 4, 6), 5, 1e-1, 0.75, 2.0),
    "one pixel": ((1, 6), 5, 1e-1, 0.75, 2.0),
    "three axes": ((4, 5, 6), 5, 1e-1, 0.75, 2.0),
    "five axes": ((2, 3, 2, 2, 6), 5, 1e-1, 0.75, 2.0),
    "large": ((3, 31, 33, 96), 5, 1e-4, 0.75, 2.0),
}


def local_response_norm_forward_cases(rng, dtype):
    for label, (shape, *settings) in LRNS.items():
        yield label, (2 * normal(rng, dtype, *shape), *settings)
    yield "an image of zeros", (np.zeros((2, 3, 3, 6), dtype), 5, 1e-1, 0.75, 2.0)


def local_response_norm_backward_cases(rng, dtype):
    for label, (shape, size, alpha, beta, k) in LRNS.items():
        x = 2 * normal(rng, dtype, *shape)
        d = (k + alpha / size * window_sum(x * x, size // 2, (size - 1) // 2)).astype(dtype)
        yield label, (normal(rng, dtype, *shape), x, d, size, alpha, beta)


# x (N, H, W, C), kernel, stride, padding, dilation, ceil_mode
POOLS = {
    "rich": ((5, 8, 9, 3), (3, 2), (2, 1), (1, 1), (1, 2), True),
    "AlexNet's": ((4, 13, 13, 16), (3, 3), (2, 2), (0, 0), (1, 1), True),
    "AlexNet's, even size": ((2, 12, 14, 16), (3, 3), (2, 2), (0, 0), (1, 1), True),
    "large": ((3, 31, 33, 96), (3, 3), (2, 2), (0, 0), (1, 1), True),
    "one pixel": ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    "no image": ((0, 7, 6, 4), (3, 3), (2, 2), (1, 1), (1, 1), False),
    "one image": ((1, 7, 6, 4), (2, 2), (2, 2), (0, 0), (1, 1), False),
    "whole image": ((3, 4, 5, 2), (4, 5), (4, 5), (0, 0), (1, 1), False),
    "stride leaves columns over": ((2, 9, 8, 3), (2, 3), (3, 4), (0, 0), (1, 1), False),
    "stride 1": ((2, 6, 5, 3), (3, 3), (1, 1), (1, 1), (1, 1), False),
    "stride over kernel": ((2, 9, 9, 2), (2, 2), (3, 3), (1, 1), (1, 1), False),
    "last window hangs over": ((2, 6, 8, 3), (3, 3), (2, 3), (1, 1), (1, 1), True),
    "last window has one pixel": ((2, 7, 7, 3), (3, 3), (3, 3), (0, 0), (1, 1), True),
    "dilation": ((2, 9, 8, 3), (3, 2), (1, 2), (1, 1), (2, 3), False),
    "dilation hangs over": ((2, 9, 8, 3), (3, 3), (2, 2), (1, 1), (2, 2), True),
    "1x3": ((2, 5, 9, 3), (1, 3), (1, 2), (0, 1), (1, 1), False),
    "16x16": ((2, 18, 17, 2), (16, 16), (1, 1), (8, 8), (1, 1), False),
    "17x17, too many elements for a byte": ((2, 20, 19, 2), (17, 17), (2, 2), (3, 8), (1, 1), True),
}


def pool_out(shape, kernel, stride, padding, dilation, ceil_mode):
    return shapes.pool_out_size("pool", shape[1:3], kernel, stride, padding, dilation, ceil_mode)


def pool_values(rng, dtype, shape):
    yield "normal", normal(rng, dtype, *shape)
    yield "ties", rng.integers(-1, 2, shape).astype(dtype)
    yield "as after a ReLU", np.maximum(normal(rng, dtype, *shape), 0)
    yield "negative", -1 - rng.random(shape).astype(dtype)
    yield "odd values", with_odd_values(rng, dtype, *shape)
    yield "NaN here and there", np.where(rng.random(shape) < 0.1, np.nan, normal(rng, dtype, *shape)).astype(dtype)
    yield "mostly -infinity", np.where(rng.random(shape) < 0.9, -np.inf, normal(rng, dtype, *shape)).astype(dtype)
    yield "nothing but -infinity", np.full(shape, -np.inf, dtype)


def max_pool2d_forward_cases(rng, dtype):
    for label, (shape, *settings, ceil_mode) in POOLS.items():
        for kind, x in pool_values(rng, dtype, shape):
            yield f"{label}, {kind}", (x, *settings, pool_out(shape, *settings, ceil_mode))


def max_pool2d_backward_cases(rng, dtype):
    for label, (shape, *settings, ceil_mode) in POOLS.items():
        for kind, x in itertools.islice(pool_values(rng, dtype, shape), 3):
            y, argmax = max_pool2d_forward(x, *settings, pool_out(shape, *settings, ceil_mode))
            yield f"{label}, {kind}", (normal(rng, dtype, *y.shape), argmax, shape, *settings)
    gy = normal(rng, dtype, *y.shape)
    gy[0, 0, 0], gy[1, -1, -1] = np.inf, np.nan
    yield "a gradient that is not finite", (gy, argmax, shape, *settings)


def avg_pools(rng, dtype):
    """Label, x, counts, kernel, stride, padding, counting the padding and not."""
    for label, (shape, kernel, stride, padding, dilation, ceil_mode) in POOLS.items():
        if dilation != (1, 1):
            continue
        x, out = normal(rng, dtype, *shape), pool_out(shape, kernel, stride, padding, dilation, ceil_mode)
        for include_pad in (True, False):
            counts = window_counts(x, out, kernel, stride, padding, include_pad, None)
            yield f"{label}, padding {include_pad}", x, counts, kernel, stride, padding


def avg_pool2d_forward_cases(rng, dtype):
    for label, x, counts, *settings in avg_pools(rng, dtype):
        yield label, (x, counts, *settings)


def avg_pool2d_backward_cases(rng, dtype):
    for label, x, counts, *settings in avg_pools(rng, dtype):
        gy = normal(rng, dtype, x.shape[0], *counts.shape[:2], x.shape[3])
        yield label, (gy, counts, x.shape, *settings)


SHAPES = {"rich": (3, 4, 5, 6), "number": (), "empty": (0,), "no image": (0, 3, 3, 2), "one": (1,), "vector": (1001,)}
SHAPES |= {"rows": (7, 13), "one image": (1, 5, 5, 3), "large": (LARGE,), "large rows": (7, LARGE // 7)}
SHAPES |= {"large images": (5, 25, 31, 96)}


def relu_forward_cases(rng, dtype):
    for label, shape in SHAPES.items():
        yield label, (normal(rng, dtype, *shape),)
        yield f"{label}, odd values", (with_odd_values(rng, dtype, *shape),)


def relu_backward_cases(rng, dtype):
    for label, shape in SHAPES.items():
        yield label, (normal(rng, dtype, *shape), np.maximum(normal(rng, dtype, *shape), 0))
        yield f"{label}, odd values", (with_odd_values(rng, dtype, *shape), np.maximum(with_odd_values(rng, dtype, *shape), 0))


def dropout_forward_cases(rng, dtype):
    for label, shape in SHAPES.items():
        for number, (p, scale) in enumerate(((0.5, 2.0), (0.3, 1 / 0.7), (0.5, 1.0), (0.0, 1.0), (1.0, 1.0))):
            yield f"{label}, p {p}, scale {scale}", (normal(rng, dtype, *shape), Draw(7, (0, 0, 0), number), p, scale)
        yield f"{label}, odd values", (with_odd_values(rng, dtype, *shape), Draw(2**63, (1, 2, 3), 4), 0.5, 2.0)


def dropout_backward_cases(rng, dtype):
    for label, shape in SHAPES.items():
        for p, scale in ((0.5, 2.0), (0.3, 1 / 0.7), (0.5, 1.0), (0.0, 1.0), (1.0, 1.0)):
            yield f"{label}, p {p}, scale {scale}", (normal(rng, dtype, *shape), rng.random(shape) >= p, scale)
        yield f"{label}, odd values", (with_odd_values(rng, dtype, *shape), rng.random(shape) >= 0.5, 2.0)


ROWS = {
    "rich": (6, 5),
    "no row": (0, 5),
    "one row": (1, 10),
    "one class": (4, 1),
    "as ImageNet": (128, 1000),
    "many": (3001, 7),
}


def targets(rng, dtype, rows, classes):
    hot = np.zeros((rows, classes), dtype)
    hot[np.arange(rows), rng.integers(0, classes, rows)] = 1
    yield "classes", hot
    yield "smoothed", (0.9 * hot + 0.1 / classes).astype(dtype)
    yield "weighted", (hot * rng.random(classes)).astype(dtype)
    yield "some ignored", hot * (rng.random((rows, 1)) < 0.5).astype(dtype)
    yield "probabilities", rng.random((rows, classes)).astype(dtype)


def cross_entropy_forward_cases(rng, dtype):
    for label, (rows, classes) in ROWS.items():
        for kind, t in targets(rng, dtype, rows, classes):
            yield f"{label}, {kind}", (3 * normal(rng, dtype, rows, classes), t)
    x, t = normal(rng, dtype, 5, 4), np.eye(5, 4, dtype=dtype)
    yield "large scores", (1000 * x, t)
    yield "equal scores", (np.full_like(x, 7), t)
    yield "impossible classes", (np.where(t == 0, -np.inf, x).astype(dtype)[:4], t[:4])
    yield "NaN in a row", (np.where(np.arange(5)[:, None] == 2, np.nan, x).astype(dtype), t)


def cross_entropy_backward_cases(rng, dtype):
    for label, (x, t) in cross_entropy_forward_cases(rng, dtype):
        with np.errstate(all="ignore"):
            _, logp = PLAIN["cross_entropy_forward"](x, t)
        yield label, (normal(rng, dtype, len(x)), logp, t)


# momentum is None where there is no velocity: lr, momentum, dampening, weight_decay, nesterov, maximize
# shape, axes; the first is longer than two levels of blocks, and no multiple of a block
SUMS = {
    "rich": ((301, 5, 4), (0,)),
    "AlexNet's, a bias's gradient": ((5, 7, 9, 6), (0, 1, 2)),
    "as ImageNet, apart": ((20, 3, 21, 5), (0, 2)),
    "the last axis": ((3, 200), (1,)),
    "a negative axis": ((40, 3), (-2,)),
    "everything": ((40, 3, 7), (0, 1, 2)),
    "no axis": ((40, 3), ()),
    "fewer than a block": ((7, 3), (0,)),
    "a wide row": ((100, 5000), (0,)),
    "no row": ((0, 3), (0,)),
    "rows of nothing": ((40, 0), (0,)),
    "number": ((), ()),
}


def sum_along_cases(rng, dtype):
    for label, (shape, axes) in SUMS.items():
        yield label, (normal(rng, dtype, *shape), axes, False)
        yield f"{label}, kept", (normal(rng, dtype, *shape), axes, True)
    yield "an int for the axis", (normal(rng, dtype, 40, 3), 0)


UPDATES = {
    "rich": (0.01, 0.9, 0.1, 5e-4, False, False),
    "plain": (0.1, None, 0.0, 0.0, False, False),
    "decay": (0.1, None, 0.0, 0.01, False, False),
    "maximize": (0.1, None, 0.0, 0.0, False, True),
    "decay, maximize": (0.1, None, 0.0, 0.01, False, True),
    "momentum": (0.01, 0.9, 0.0, 0.0, False, False),
    "momentum, decay": (0.01, 0.9, 0.0, 5e-4, False, False),
    "momentum, maximize": (0.01, 0.9, 0.0, 0.0, False, True),
    "momentum, dampening, decay, maximize": (0.01, 0.9, 0.5, 5e-4, False, True),
    "nesterov": (0.01, 0.9, 0.0, 0.0, True, False),
    "nesterov, decay": (0.01, 0.9, 0.0, 5e-4, True, False),
    "nesterov, decay, maximize": (0.01, 0.9, 0.0, 5e-4, True, True),
    "no step": (0.0, 0.9, 0.0, 5e-4, False, False),
}


def update_shapes(label):
    return SHAPES.items() if label in ("rich", "plain") else [("rich", SHAPES["rich"]), ("large", SHAPES["large"])]


def update_arrays(rng, dtype, shape, momentum):
    w, g, v = (normal(rng, dtype, *shape) for _ in range(3))
    return w, g, None if momentum is None else v


def sgd_update_cases(rng, dtype):
    for label, (lr, momentum, *settings) in UPDATES.items():
        for size, shape in update_shapes(label):
            yield f"{label}, {size}", (*update_arrays(rng, dtype, shape, momentum), lr, momentum or 0.0, *settings)
    w, g = with_odd_values(rng, dtype, 60), normal(rng, dtype, 60)
    yield "weights that are not finite, without decay", (w, g, None, 0.1, 0.0, 0.0, 0.0, False, False)


def sgd_update_2012_cases(rng, dtype):
    for label, (lr, momentum, _, decay, nesterov, maximize) in UPDATES.items():
        for size, shape in update_shapes(label):
            if not (nesterov or maximize):
                yield f"{label}, {size}", (*update_arrays(rng, dtype, shape, momentum), lr, momentum or 0.0, decay)
    w, g = with_odd_values(rng, dtype, 60), normal(rng, dtype, 60)
    yield "weights that are not finite, without decay", (w, g, None, 0.1, 0.0, 0.0)


def two_steps(w, g, v):
    """An update of the kind that optimizers make; v may be None."""
    w -= 0.1 * g
    if v is not None:
        v *= 0.9
        v += w * g


def apply_elementwise_cases(rng, dtype):
    for label, shape in SHAPES.items():
        w, g, v = (normal(rng, dtype, *shape) for _ in range(3))
        yield f"{label}, all", (two_steps, w, g, v)
        yield f"{label}, without the last", (two_steps, w, g, None)
    yield "large", (two_steps, *(normal(rng, dtype, LARGE) for _ in range(3)))
    for order, turned in (("turned", (0, 2, 1)), ("one after the other", (2, 0, 1))):
        w, g, v = (normal(rng, dtype, 70, 61, 64) for _ in range(3))
        yield (
            f"large, {order}",
            (two_steps, w.transpose(turned), np.ascontiguousarray(g.transpose(turned)), v.transpose(turned)),
        )


# images (M, H, W), crops of each, their size, divide
INPUT_STEPS = {
    "rich": ((4, 9, 8), 1, (6, 5), 1.1),
    "three crops of each image": ((3, 7, 9), 3, (4, 6), 1.0),
    "the whole image": ((2, 5, 6), 1, (5, 6), 1.3),
    "no image": ((0, 5, 6), 1, (3, 2), 1.1),
    "one pixel": ((1, 1, 1), 1, (1, 1), 1.0),
}


def input_step_cases(rng, dtype):
    for label, ((m, h, w), views, (oh, ow), divide) in INPUT_STEPS.items():
        tops, lefts = rng.integers(0, h - oh + 1, m * views), rng.integers(0, w - ow + 1, m * views)
        drawn = tops, lefts, rng.random(m * views) < 0.5
        images, noise = rng.integers(0, 256, (m, h, w, 3), np.uint8), normal(rng, dtype, m * views, 3)
        for kind, shape in (("a mean image", (oh + 3, ow + 2, 3)), ("a colour", (3,))):
            mean = rng.uniform(0, 255, shape).astype(dtype)
            yield f"{label}, {kind}", (images, *drawn, mean, noise, divide, (oh, ow), np.dtype(dtype))


CASES = {
    "apply_elementwise": apply_elementwise_cases,
    "input_step": input_step_cases,
    "conv2d_forward": conv2d_forward_cases,
    "conv2d_backward": conv2d_backward_cases,
    "conv2d_relu_forward": conv2d_forward_cases,
    "conv2d_relu_backward": conv2d_relu_backward_cases,
    "linear_forward": linear_forward_cases,
    "linear_backward": linear_backward_cases,
    "local_response_norm_forward": local_response_norm_forward_cases,
    "local_response_norm_backward": local_response_norm_backward_cases,
    "max_pool2d_forward": max_pool2d_forward_cases,
    "max_pool2d_values": max_pool2d_forward_cases,
    "max_pool2d_backward": max_pool2d_backward_cases,
    "avg_pool2d_forward": avg_pool2d_forward_cases,
    "avg_pool2d_backward": avg_pool2d_backward_cases,
    "relu_forward": relu_forward_cases,
    "relu_backward": relu_backward_cases,
    "sum_along": sum_along_cases,
    "dropout_forward": dropout_forward_cases,
    "dropout_backward": dropout_backward_cases,
    "cross_entropy_forward": cross_entropy_forward_cases,
    "cross_entropy_backward": cross_entropy_backward_cases,
    "sgd_update": sgd_update_cases,
    "sgd_update_2012": sgd_update_2012_cases,
}
IN_PLACE = {
    "apply_elementwise": (1, 3),
    "sgd_update": (0, 2),
    "sgd_update_2012": (0, 2),
}  # positions of the arrays that are changed
KEEP_ORDER = {"relu_forward", "relu_backward", "dropout_forward", "dropout_backward"}
KNOWN = [name for name in CASES if name in PLAIN]  # an op may still be on its way


def all_cases(name, dtype):
    rng = np.random.default_rng(7)
    cases = list(CASES[name](rng, dtype))
    for arrangement in ARRANGEMENTS:
        if not (name in IN_PLACE and arrangement == "all as the first"):  # memory that is written to is not shared
            chosen = [(label, args) for label, args in cases if label.startswith(ARRANGED) and first_array(args).ndim > 0]
            cases += [(f"{arrangement}: {label}", arranged(args, arrangement)) for label, args in chosen]
    return cases


# -------------------------------------------------------------------------------------------------- the errors allowed
# Each takes the arguments, and returns an array or number for each result, to be multiplied by the dtype's spacing at 1.


def exact(*args):
    return 0


# A sum of K products, in any order, errs by sqrt(K) roundings in practice, which for K = 1100 is 33, and twice that for two of
# them.
SUM = 70

# Winograd's algorithm mixes the pixels of a tile and the elements of a filter, so what it sums is as large as the largest ones,
# and that is what a convolution's errors are measured by. Roundings of a plain sum have random signs, and add up to less than
# the dtype's spacing times that; Winograd's to ten times a plain sum's.
CONV = 10


def largest(a, axes):
    """Absolute values, each the largest along these axes."""
    return np.broadcast_to(np.abs(a).max(axis=axes, keepdims=True, initial=0), a.shape)


PIXELS = (1, 2)


def conv2d_forward_error(x, w, b, *settings):
    y = PLAIN["conv2d_forward"](largest(x, PIXELS), largest(w, PIXELS), None if b is None else np.abs(b), *settings)
    return [CONV * largest(y, PIXELS)]


def conv2d_backward_error(gy, x, w, *settings):
    args = [largest(a, PIXELS) for a in (gy, x, w)]
    gx, gw, _ = PLAIN["conv2d_backward"](*args, *settings)
    gb = np.abs(gy).sum(axis=(0, 1, 2))
    return [None if a is None else CONV * largest(a, PIXELS) for a in (gx, gw)] + [SUM * gb]


def conv2d_relu_backward_error(gy, y, *rest):
    return conv2d_backward_error(gy, *rest)


def linear_forward_error(x, w, b):
    return [SUM * PLAIN["linear_forward"](np.abs(x), np.abs(w), None if b is None else np.abs(b))]


def linear_backward_error(gy, x, w, needs):
    return [SUM * g for g in PLAIN["linear_backward"](np.abs(gy), np.abs(x), np.abs(w), (True, True, True))]


def sum_along_error(x, *rest):
    return [SUM * PLAIN["sum_along"](np.abs(x), *rest)]


# d sums `size` squares, all positive, and takes 4 more roundings, so that is its relative error. A power passes it on times
# beta and adds a few of its own. Twice, for the two functions.
def local_response_norm_forward_error(x, size, alpha, beta, k):
    y, d = PLAIN["local_response_norm_forward"](x, size, alpha, beta, k)
    return [2 * (beta * (size + 4) + 8) * np.abs(y), 2 * (size + 4) * d]


# Here d is given. With -alpha and absolute values both terms of the difference add up. Each is `size` terms and some ten
# roundings, of the power, its division and products.
def local_response_norm_backward_error(gy, x, d, size, alpha, beta):
    return [2 * (size + 10) * PLAIN["local_response_norm_backward"](np.abs(gy), np.abs(x), d, size, -alpha, beta)]


# Sums over the windows' elements: one rounding each at most, for each of the two functions, and the division.
def max_pool2d_backward_error(gy, argmax, x_shape, kernel, *settings):
    sums = PLAIN["max_pool2d_backward"](np.abs(gy), argmax, x_shape, kernel, *settings)
    return [2 * kernel[0] * kernel[1] * sums]


def avg_pool2d_forward_error(x, counts, kernel, *settings):
    return [2 * (kernel[0] * kernel[1] + 1) * PLAIN["avg_pool2d_forward"](np.abs(x), counts, kernel, *settings)]


def avg_pool2d_backward_error(gy, counts, x_shape, kernel, *settings):
    return [2 * (kernel[0] * kernel[1] + 1) * PLAIN["avg_pool2d_backward"](np.abs(gy), counts, x_shape, kernel, *settings)]


# A score's distance from the largest has the rounding of the two, the logarithm of the sum of exponentials a few more and the
# sum's own; then a loss sums them, weighted.
def cross_entropy_forward_error(x, t):
    _, logp = PLAIN["cross_entropy_forward"](x, t)
    finite = np.where(np.isfinite(x), np.abs(x), 0), np.where(np.isfinite(logp), np.abs(logp), 0)
    errors = SUM * (1 + largest(finite[0], (1,)) + finite[1])
    return [(np.abs(t) * errors).sum(axis=1), errors]


def cross_entropy_backward_error(gy, logp, t):
    return [SUM * np.abs(gy)[:, None] * (np.exp(logp) * np.abs(t).sum(axis=1, keepdims=True) + np.abs(t))]


# Some eight products and sums, each rounded, and none larger than their sizes added up.
def sgd_update_error(w, g, v, lr, momentum, dampening, weight_decay, nesterov, maximize):
    step = np.abs(g) + weight_decay * np.abs(w)
    velocity = step if v is None else step + momentum * np.abs(v)
    return [16 * (np.abs(w) + lr * (step + (1 + momentum) * velocity)), 16 * velocity]


def sgd_update_2012_error(w, g, v, lr, momentum, weight_decay):
    velocity = lr * (np.abs(g) + weight_decay * np.abs(w)) + (0 if v is None else momentum * np.abs(v))
    return [16 * (np.abs(w) + velocity), 16 * velocity]


ERRORS = {
    "apply_elementwise": exact,
    "input_step": exact,
    "conv2d_forward": conv2d_forward_error,
    "conv2d_backward": conv2d_backward_error,
    "conv2d_relu_forward": conv2d_forward_error,
    "conv2d_relu_backward": conv2d_relu_backward_error,
    "linear_forward": linear_forward_error,
    "linear_backward": linear_backward_error,
    "local_response_norm_forward": local_response_norm_forward_error,
    "local_response_norm_backward": local_response_norm_backward_error,
    "max_pool2d_forward": exact,
    "max_pool2d_values": exact,
    "max_pool2d_backward": max_pool2d_backward_error,
    "avg_pool2d_forward": avg_pool2d_forward_error,
    "avg_pool2d_backward": avg_pool2d_backward_error,
    "relu_forward": exact,
    "relu_backward": exact,
    "sum_along": sum_along_error,
    "dropout_forward": exact,
    "dropout_backward": exact,
    "cross_entropy_forward": cross_entropy_forward_error,
    "cross_entropy_backward": cross_entropy_backward_error,
    "sgd_update": sgd_update_error,
    "sgd_update_2012": sgd_update_2012_error,
}


# ------------------------------------------------------------------------------------------------------------ comparing


def copy_of(args, changed):
    """The arguments, those that a function may change copied with the memory around them, the others read-only."""
    copies = []
    for i, a in enumerate(args):
        if isinstance(a, np.ndarray) and i in changed:
            a = with_its_surroundings(a)
        elif isinstance(a, np.ndarray):
            a = a.view()
            a.flags.writeable = False
        copies.append(a)
    return tuple(copies)


def with_its_surroundings(a):
    """A copy of an array that is a view of the copy of what it is a view of."""
    if a.base is None:
        return a.copy(order="K")
    base = a.base.copy(order="K")
    assert base.strides == a.base.strides
    offset = a.ctypes.data - a.base.ctypes.data
    return np.ndarray(a.shape, a.dtype, base, offset, a.strides)


def surroundings(a):
    return a if a.base is None else a.base


def call(function, name, args):
    """The results as a list: what is returned, or the arrays changed."""
    changed = IN_PLACE.get(name, ())
    with np.errstate(all="ignore") if not finite(args) else np.errstate(divide="raise", over="raise", invalid="raise"):
        results = function(*args)
    if changed:
        assert results is None, "it returns something"
        return [args[i] for i in changed]
    return list(results) if isinstance(results, tuple) else [results]


def finite(args):
    return all(np.isfinite(a).all() for a in args if isinstance(a, np.ndarray))


def bits(results):
    return [None if r is None else np.asarray(r).tobytes() for r in results]


def check_values(got, expected, error):
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    where = np.isfinite(expected)
    np.testing.assert_array_equal(got[~where], expected[~where])
    difference = np.abs(got[where].astype("float64") - expected[where].astype("float64"))
    allowed = np.broadcast_to(error, expected.shape)[where]
    if not (difference <= allowed).all():
        worst = np.argmax(difference - allowed)
        raise AssertionError(f"differs by {difference[worst]:.3g}, allowed are {allowed[worst]:.3g}")


def check_memory(name, got, expected, args, changed):
    inputs = [a for i, a in enumerate(args) if isinstance(a, np.ndarray) and i not in changed]
    assert got.size == 0 or not any(np.may_share_memory(got, a) for a in inputs), "the result is in an input's memory"
    orders = {tuple(memory_order(a)) for a in inputs if a.shape == got.shape}
    repeated = any(0 in a.strides for a in inputs)
    if changed or len(orders) > 1 or (repeated and name in KEEP_ORDER):  # inputs that leave the order open
        return
    assert got.flags.c_contiguous or not expected.flags.c_contiguous, "the result is not C-contiguous"
    if name in KEEP_ORDER and got.size > 1:
        assert memory_order(got) == memory_order(expected), "the result has another memory order"


def check_case(name, replacement, plain, args):
    """Compares one call, and returns its results and their bits, to be looked at again after other calls."""
    changed = IN_PLACE.get(name, ())
    ours, theirs, again = (copy_of(args, changed) for _ in range(3))
    inputs = bits(a for i, a in enumerate(args) if isinstance(a, np.ndarray) and i not in changed)
    got = call(replacement, name, ours)
    with plain_kernels():
        expected = call(plain, name, theirs)
    untouched = bits(a for i, a in enumerate(args) if isinstance(a, np.ndarray) and i not in changed) == inputs
    assert untouched, "an input has changed"
    assert [r is None for r in got] == [r is None for r in expected], "None in the wrong place"
    spacing = max(np.finfo(a.dtype).eps for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f")
    with np.errstate(all="ignore"):
        errors = ERRORS[name](*args)
    for g, e, error in zip(got, expected, errors if isinstance(errors, list) else itertools.repeat(0), strict=False):
        if e is not None:
            g, e = np.asarray(g), np.asarray(e)
            assert (g.shape, g.dtype) == (e.shape, e.dtype), "the result has another shape or dtype"
            check_values(g, e, error * spacing)
            check_memory(name, g, e, ours, changed)
    for i in changed:
        if ours[i] is not None:
            check_around(ours[i], theirs[i])
    repeated = bits(call(replacement, name, again)) == bits(got)
    assert repeated, "two runs differ"
    return got, bits(got)


def check_around(ours, theirs):
    """Outside of the view that was changed, its memory is as after the plain function."""
    ours[...] = theirs
    np.testing.assert_array_equal(surroundings(ours), surroundings(theirs), "memory around the array has changed")


def check(name, replacement, dtype):
    kept = []
    for label, args in all_cases(name, dtype):
        try:
            kept.append((label, *check_case(name, replacement, PLAIN[name], args)))
        except Exception as error:
            error.add_note(f"{name}, {dtype}, {parallel.get_num_threads()} threads: {label}")
            raise
    if name not in IN_PLACE:
        for label, results, before in kept:
            kept_its_bits = bits(results) == before
            assert kept_its_bits, f"{name}: later calls have changed the result of: {label}"


# ------------------------------------------------------------------------------------------------------------ the tests


@contextlib.contextmanager
def threads(number):
    before = parallel.get_num_threads()
    parallel.set_num_threads(number)
    try:
        yield
    finally:
        parallel.set_num_threads(before)


@pytest.fixture(autouse=True)
def _every_share_is_worth_a_thread(monkeypatch):
    """The arrays here are small, and would stay on one thread."""
    monkeypatch.setattr(parallel, "_WORTH_A_THREAD", 1)


@pytest.fixture(autouse=True)
def _tiles_wherever_they_save_multiplications(monkeypatch):
    """The arrays here are small, and patches would be faster."""
    for name in ("_FILTER_VALUE", "_TILE_VALUE", "_PATCH_VALUE"):
        monkeypatch.setattr(winograd, name, 0)


@pytest.fixture
def _stale_scratch(monkeypatch):
    """Scratch memory comes full of NaN, or of the largest integers."""
    original = parallel.scratch

    def stale(name, shape, dtype):
        array = original(name, shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max if array.dtype.kind in "iu" else True)
        return array

    for module in [m for n, m in sys.modules.items() if n == "minidl.parallel" or n.startswith("minidl.kernels.cpu.")]:
        if getattr(module, "scratch", None) is original:
            monkeypatch.setattr(module, "scratch", stale)


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_every_replacement_has_a_plain_twin_and_cases(name):
    assert name in PLAIN, f"{name}: no plain function of this name in minidl.ops or minidl.optim"
    assert name in CASES, f"{name}: no cases in this file"


@pytest.mark.usefixtures("_stale_scratch")
@pytest.mark.parametrize("number", THREADS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in sorted(REPLACED) if name in KNOWN])
def test_a_replacement_equals_its_plain_twin(name, dtype, number):
    with threads(number):
        check(name, REPLACED[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KNOWN)
def test_the_plain_functions_themselves_pass(name, dtype):
    check(name, PLAIN[name], dtype)


def off_in_one_element(f):
    """Wrong in the last element of the last result, by a thousandth of it (or by 1, if it is a whole number)."""

    def replacement(*args):
        results = f(*args)
        changed = [a for a in (results if isinstance(results, tuple) else [results]) if a is not None and a.size]
        changed = changed if results is not None else [first_array(args)]
        for a in changed[-1:]:
            if a.size:
                a[(-1,) * a.ndim] += 1 if a.dtype.kind in "iu" else 1e-3 * (a.dtype.type(1) + abs(a[(-1,) * a.ndim]))
        return results

    return replacement


def wrong_dtype(f):
    return lambda *args: widened(f(*args))


def widened(results):
    if isinstance(results, tuple):
        return tuple(None if r is None else widened(r) for r in results)
    return results.astype("float64" if results.dtype == "float32" else "float32")


def fortran_order(f):
    return lambda *args: (lambda r: tuple(map(np.asfortranarray, r)) if isinstance(r, tuple) else np.asfortranarray(r))(
        f(*args)
    )


def c_order(f):
    return lambda *args: f(*args).copy(order="C")


def into_one_buffer(f):
    """The result is in memory that the next call uses again."""
    buffer = np.empty(10_000_000)

    def replacement(*args):
        result = f(*args)
        kept = buffer[: result.size].view(result.dtype)[: result.size].reshape(result.shape)
        kept[...] = result
        return kept

    return replacement


def changes_its_input(f):
    def replacement(*args):
        args[0].flags.writeable = args[0].base.flags.writeable
        result = f(*args)
        args[0][...] = 1
        return result

    return replacement


def all_results(f):
    return lambda *args: f(*args[:-1], (True, True, True))


def not_twice_the_same(f):
    count = itertools.count()
    return lambda *args: f(*args) * (1 + next(count) * np.finfo("float32").eps)


def returns_its_input(f):
    return lambda x, draw, p, scale: (x, f(x, draw, p, scale)[1]) if p == 0 and scale == 1 else f(x, draw, p, scale)


def masks_by_multiplying(f):
    return lambda gy, y: np.where(np.isnan(y), gy, gy * (y > 0))


def without_nan(f):
    return lambda x, *args: f(np.where(np.isnan(x), 0, x).astype(x.dtype), *args)


def last_of_ties(f):
    def replacement(x, kernel, stride, padding, dilation, out):
        _, argmax = f(x[:, ::-1, ::-1].copy(), kernel, stride, padding, dilation, out)
        return f(x, kernel, stride, padding, dilation, out)[0], argmax

    return replacement


def first_array_alone(f):
    return lambda update, w, g, v: f(update, w, g, None if v is None else v.copy())


def last_element_left_out(f):
    return lambda update, *arrays: f(update, *(None if a is None else a[..., :-1] for a in arrays))


def velocity_left_alone(f):
    return lambda w, g, v, *args: f(w, g, None if v is None else v.copy(), *args)


def writes_around_its_view(f):
    def replacement(w, *args):
        f(w, *args)
        if w.base is not None and w.base.size > w.size:
            w.base[...] = np.where(np.isnan(w.base), 0, w.base)

    return replacement


FAULTS = [(name, off_in_one_element) for name in KNOWN]
FAULTS += [(name, wrong_dtype) for name in ("conv2d_forward", "relu_forward", "linear_backward", "max_pool2d_forward")]
FAULTS += [(name, fortran_order) for name in ("conv2d_forward", "local_response_norm_forward", "max_pool2d_forward")]
FAULTS += [(name, into_one_buffer) for name in ("avg_pool2d_forward", "conv2d_forward")]
FAULTS += [(name, changes_its_input) for name in ("dropout_forward", "conv2d_backward", "cross_entropy_forward")]
FAULTS += [("conv2d_backward", all_results), ("linear_backward", all_results)]
FAULTS += [("conv2d_forward", not_twice_the_same), ("avg_pool2d_backward", not_twice_the_same)]
FAULTS += [("relu_forward", c_order), ("dropout_backward", c_order)]
FAULTS += [("dropout_forward", returns_its_input), ("relu_backward", masks_by_multiplying)]
FAULTS += [(name, without_nan) for name in ("relu_forward", "max_pool2d_forward", "cross_entropy_forward")]
FAULTS += [("max_pool2d_forward", last_of_ties)]
FAULTS += [(n, f) for n in ("sgd_update", "sgd_update_2012") for f in (velocity_left_alone, writes_around_its_view)]

FAULTS += [("apply_elementwise", first_array_alone), ("apply_elementwise", last_element_left_out)]


REASONS = {
    wrong_dtype: "another shape or dtype",
    fortran_order: "not C-contiguous",
    c_order: "another memory order",
    into_one_buffer: "later calls have changed the result",
    changes_its_input: "an input has changed",
    all_results: "None in the wrong place",
    not_twice_the_same: "two runs differ",
    returns_its_input: "in an input's memory",
    writes_around_its_view: "memory around the array",
}


@pytest.mark.parametrize("name, fault", FAULTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_the_comparison_finds_a_planted_fault(name, fault):
    for dtype in DTYPES:
        with pytest.raises(AssertionError, match=REASONS.get(fault, "differs by|not equal")):
            check(name, fault(PLAIN[name]), dtype)


# ------------------------------------------------------------------------------------------------------------- the net


@pytest.fixture(params=["replacements", "plain"])
def _mode(request):
    with plain_kernels() if request.param == "plain" else contextlib.nullcontext():
        yield


def small_net(x, w, b, fc_w, fc_b):
    """conv - ReLU - LRN - pool - linear - dropout - cross-entropy."""
    h = F.relu(F.conv2d(x, w, b, padding=1, groups=2))
    h = F.local_response_norm(h, 3, alpha=0.8, beta=0.75, k=1.0)
    h = F.max_pool2d(h, 3, 2, ceil_mode=True)
    h = F.dropout(F.linear(F.flatten(h, 1), fc_w, fc_b), 0.3)
    return F.cross_entropy(h, np.array([1, 0, 4, 2]), label_smoothing=0.1)


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("number", [1, 3])
def test_gradcheck_of_a_small_net(rng, number):
    sizes = [(4, 4, 6, 7), (6, 2, 3, 3), (6,), (5, 6 * 3 * 3), (5,)]
    leaves = [Tensor(rng.standard_normal(shape), True) for shape in sizes]
    with threads(number):
        assert gradcheck(small_net, leaves, directions=3, exhaustive=10)


def convolutional_net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.1, k=2.0),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(16, 32, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 3 * 3, 20),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(20, 4),
    ).double()


def trained(number, rule="pytorch", mode=contextlib.nullcontext):
    """The parameters after 5 steps."""
    minidl.manual_seed(3)
    data = np.random.default_rng(5)
    net = convolutional_net()
    optimizer = minidl.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, rule=rule)
    with threads(number), mode():
        for _ in range(5):
            x, ids = Tensor(data.standard_normal((7, 3, 24, 26))), data.integers(0, 4, 7)
            optimizer.zero_grad()
            F.cross_entropy(net(x), ids).backward()
            optimizer.step()
    return np.concatenate([p.data.reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("rule", ["pytorch", "2012"])
def test_training_gives_the_same_with_any_number_of_threads_and_without_replacements(rule):
    # a rounding is 1e-16 of a weight, and grows with each of 5 steps and 9 layers; another mask or a lost image is 1e-3
    close = {"rtol": 1e-10, "atol": 1e-10}
    plain = trained(1, rule, plain_kernels)
    start = trained_nothing()
    assert np.abs(plain - start).max() > 1e-3
    for number in THREADS:
        once = trained(number, rule)
        assert once.tobytes() == trained(number, rule).tobytes(), f"two runs differ with {number} threads"
        np.testing.assert_allclose(once, plain, **close)


def trained_nothing():
    minidl.manual_seed(3)
    return np.concatenate([p.data.reshape(-1) for p in convolutional_net().parameters()])
