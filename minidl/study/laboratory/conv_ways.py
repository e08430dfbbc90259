"""A convolution's backward in four ways: loops, im2col, an einsum over strided windows, and two more convolutions.

All start from the forward's definition. With u*d the dilated place of kernel element u, and x padded already,

    y[n,i,j,o] = sum over u,v,c of  w[o,u,v,c] * x[n, i*s + u*d, j*s + v*d, c]

it is linear in x and in w, so each product hands gy to one factor times the other:

    gx[n,a,b,c] = sum of gy[n,i,j,o] * w[o,u,v,c]                       over all (i,j,o,u,v) with i*s + u*d = a, j*s + v*d = b
    gw[o,u,v,c] = sum of gy[n,i,j,o] * x[n, i*s + u*d, j*s + v*d, c]    over all (n,i,j)

The ways differ in the order of the sums, in what they copy, and in what they multiply by zero. Every way is a pair of
functions, one for each gradient, for one group of channels:

    <way>_input(gy, w, size, stride, dilation) -> gx           size: H, W of the padded images
    <way>_weight(gy, x, kernel, stride, dilation) -> gw        x: the padded images
    gy (N, OH, OW, O)   w, gw (O, KH, KW, C)   x, gx (N, H, W, C)

Padding and groups are the same for all: `conv2d_backward_by`. PyTorch has such a pair, torch.nn.grad.conv2d_input and
conv2d_weight. These are for reading and comparing; what trains a network is minidl/ops/conv2d.py and its replacements.
Derivations at length, and times: docs/conv2d.md.
Source for the fourth: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minidl.device import Array, array_module
from minidl.ops.conv2d import col2im, conv2d_forward, im2col, pad_images
from minidl.shapes import Padding, Pair, span

# --------------------------------------------------------------------------------------------------------------- loops


def loops_input(gy: Array, w: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """The definition: wherever the forward multiplied a pixel by a weight, the pixel gets the weight times gy."""
    (sh, sw), (dh, dw) = stride, dilation
    gx = array_module(gy).zeros((len(gy), *size, w.shape[3]), gy.dtype)
    for n, i, j, o in np.ndindex(gy.shape):
        for u, v, c in np.ndindex(w.shape[1:]):
            gx[n, i * sh + u * dh, j * sw + v * dw, c] += gy[n, i, j, o] * w[o, u, v, c]
    return gx


def loops_weight(gy: Array, x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """The same loops: wherever the forward multiplied a pixel by a weight, the weight gets the pixel times gy."""
    (sh, sw), (dh, dw) = stride, dilation
    gw = array_module(gy).zeros((gy.shape[3], *kernel, x.shape[3]), gy.dtype)
    for n, i, j, o in np.ndindex(gy.shape):
        for u, v, c in np.ndindex(gw.shape[1:]):
            gw[o, u, v, c] += gy[n, i, j, o] * x[n, i * sh + u * dh, j * sw + v * dw, c]
    return gw


# -------------------------------------------------------------------------------------------------------------- im2col


def im2col_input(gy: Array, w: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """Forward was y = col @ W, W (KH*KW*C, O). So gcol = gy @ W^T; and where im2col copied a pixel, col2im adds.

    That the copies' gradients add up is the chain rule: a pixel that is read in five places changes the loss through all five.
    """
    n, oh, ow, o = gy.shape
    gcol = gy.reshape(-1, o) @ w.reshape(o, -1)
    return col2im(gcol.reshape(n, oh, ow, *w.shape[1:]), (n, *size, w.shape[3]), stride, dilation)


def im2col_weight(gy: Array, x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """Forward was y = col @ W. So the gradient of W is col^T @ gy; of W^T, which is how w lies in memory, gy^T @ col."""
    o = gy.shape[3]
    col = im2col(x, kernel, stride, dilation).reshape(-1, kernel[0] * kernel[1] * x.shape[3])
    return (gy.reshape(-1, o).T @ col).reshape(o, *kernel, x.shape[3])


# --------------------------------------------------------------------------------------------- einsum over strided windows


def einsum_input(gy: Array, w: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """Gather instead of scatter: solve a = i*s + u*d for i, and let every pixel collect what it is owed.

    With zeros between the elements of gy, where (a - u*d) / s is no whole number, and around it, the sum is over u, v, o alone:
        gx[n,a,b,c] = sum over u,v,o of  g[n, a - u*d, b - v*d, o] * w[o,u,v,c]         g: `stretched(gy)`
    The window of g above pixel (a, b) is read backwards, by negative strides. It is a view: nothing is copied.
    """
    windows = im2col(stretched(gy, w, size, stride, dilation), w.shape[1:3], (1, 1), dilation)[:, :, :, ::-1, ::-1]
    return array_module(gy).einsum("nabuvo,ouvc->nabc", windows, w)


def einsum_weight(gy: Array, x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """The formula in einsum's letters: im2col's view without the copy that makes a matrix of it."""
    windows = im2col(x, kernel, stride, dilation)
    return array_module(gy).einsum("nijo,nijuvc->ouvc", gy, windows)


def stretched(gy: Array, w: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """gy (N, OH, OW, O) with stride-1 zeros between neighbours and zeros around: (N, H + span - 1, W + span - 1, O).

    Element (i, j) goes to (span - 1 + i*s, span - 1 + j*s), so that every pixel of `size` (H, W) has a whole window before it.
    Rows and columns of the image that no window reached find zeros at the end.
    """
    (n, oh, ow, o), (sh, sw) = gy.shape, stride
    top, left = span(w.shape[1], dilation[0]) - 1, span(w.shape[2], dilation[1]) - 1
    g = array_module(gy).zeros((n, size[0] + top, size[1] + left, o), gy.dtype)
    g[:, top : top + sh * (oh - 1) + 1 : sh, left : left + sw * (ow - 1) + 1 : sw] = gy
    return g


# -------------------------------------------------------------------------------------------------- transposed convolution


def transposed_input(gy: Array, w: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """einsum_input's formula is itself a convolution: of the stretched gy, with the kernel flipped, stride 1, same dilation.

    Flipped: with u' = KH-1-u, row a - u*d of g is row a + u'*d counted from `span - 1` rows earlier, which is the forward's
    form. Inputs and outputs change places: filter c is the c-th channel of every w. Known as a transposed convolution.
    """
    flipped = w[:, ::-1, ::-1].transpose(3, 1, 2, 0)
    return conv2d_forward(stretched(gy, w, size, stride, dilation), flipped, None, (1, 1), NO_PADDING, dilation, 1)


def transposed_weight(gy: Array, x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """gw's formula is a convolution of x with gy: images are summed like channels, and stride and dilation change places.

    The next element of gw moves d pixels in x, the next of gy moves s: for gy as a kernel that slides over x, d is its stride
    and s its dilation. There is a filter of OH x OW elements for each o, and a batch of C images. If the forward's stride left
    columns over, there is room for more steps than gw has elements; they are cut off.
    """
    images, filters = x.transpose(3, 1, 2, 0), gy.transpose(3, 1, 2, 0)
    gw = conv2d_forward(images, filters, None, dilation, NO_PADDING, stride, 1)
    return gw[:, : kernel[0], : kernel[1]].transpose(3, 1, 2, 0)


# ------------------------------------------------------------------------------------------------------------- all the same

NO_PADDING: Padding = ((0, 0), (0, 0))


class Way(NamedTuple):
    input: Callable[[Array, Array, Pair, Pair, Pair], Array]
    weight: Callable[[Array, Array, Pair, Pair, Pair], Array]


WAYS = {
    "loops": Way(loops_input, loops_weight),
    "im2col": Way(im2col_input, im2col_weight),
    "einsum": Way(einsum_input, einsum_weight),
    "transposed": Way(transposed_input, transposed_weight),
}


def conv2d_backward_by(
    way: str,
    gy: Array,
    x: Array,
    w: Array,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    needs: tuple[bool, ...] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """minidl.ops.conv2d.conv2d_backward in one of the WAYS: gy (N, OH, OW, O) -> gx like x, gw like w, gb (O,).

    x is padded before and gx cut out of the padded gradient after; each group is a convolution of its own.
    ValueError: an unknown way, or no image.
    """
    if way not in WAYS:
        raise ValueError(f"conv2d_backward_by: way must be one of {', '.join(WAYS)}, got {way!r}")
    if len(x) == 0:
        raise ValueError(f"conv2d_backward_by: at least 1 image is needed, got 0 (x {x.shape})")
    xp, padded = array_module(gy), pad_images(x, padding)
    gpadded = xp.empty(padded.shape, x.dtype) if needs[0] else None
    gw = xp.empty(w.shape, w.dtype) if needs[1] else None
    channels, filters = x.shape[3] // groups, len(w) // groups
    for g in range(groups):
        seen, own = slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)
        if gpadded is not None:
            gpadded[..., seen] = WAYS[way].input(gy[..., own], w[own], padded.shape[1:3], stride, dilation)
        if gw is not None:
            gw[own] = WAYS[way].weight(gy[..., own], padded[..., seen], w.shape[1:3], stride, dilation)
    (top, _), (left, _) = padding
    gx = None if gpadded is None else gpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return gx, gw, gy.sum(axis=(0, 1, 2)) if needs[2] else None
