"""Convolution by gathered patches: any kernel, stride and dilation. See minidl/ops/conv2d.py for the mathematics."""

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.kernels.cpu.product import add_sum_of_products, rows_at_once, tall_product
from minidl.parallel import scratch
from minidl.shapes import Pair, span

AT_ONCE = 6 << 20  # bytes that stay in the outer cache


class Im2col:
    """The convolution of one group by a product of patches and filters: the same methods as `Winograd`.

    shape (O, KH, KW, C) : of the group's filters.
    """

    unit = 1  # rows of output that go together

    def __init__(self, shape: tuple[int, ...], stride: Pair, dilation: Pair, dtype: np.dtype) -> None:
        self.shape, self.stride, self.dilation, self.dtype = shape, stride, dilation, dtype

    def units_at_once(self, out: Pair) -> int:
        """As many rows of output as leave their patches in the outer cache."""
        return max(AT_ONCE // (out[1] * math.prod(self.shape[1:]) * self.dtype.itemsize), 1)

    def prepare(self, w: np.ndarray) -> np.ndarray:
        """Filters (O, KH, KW, C) -> (KH * KW * C, O): a view, or a copy where that is multiplied faster."""
        matrix = w.reshape(len(w), -1).T
        return np.ascontiguousarray(matrix) if rows_at_once(matrix.size, matrix.dtype) else matrix

    def forward(self, x: np.ndarray, corner: Pair, matrix: np.ndarray, bias: np.ndarray | None, y: np.ndarray) -> None:
        """Images (n, H, W, C), with `corner` rows and columns of zeros before them, and bias (OW, O) into y (n, OH, OW, O)."""
        tall_product(self.patches(x, corner, y.shape[1:3]), matrix, pixels(y))
        if bias is not None:
            y += bias

    def no_gradient(self) -> np.ndarray:
        """Zeros for `add_gradient`: gw (O, KH * KW * C)."""
        return np.zeros((self.shape[0], math.prod(self.shape[1:])), self.dtype)

    def add_gradient(self, gw: np.ndarray, x: np.ndarray, corner: Pair, gy: np.ndarray) -> None:
        """gw += what images x (n, H, W, C) and gy (n, OH, OW, O) add."""
        col = self.patches(x, corner, gy.shape[1:3])
        add_sum_of_products(gy.reshape(-1, gy.shape[3]), col, gw)

    def gradient(self, gw: np.ndarray) -> np.ndarray:
        """The sum of gw -> (O, KH, KW, C)."""
        return gw.reshape(self.shape)

    def patches(self, x: np.ndarray, corner: Pair, out: Pair) -> np.ndarray:
        """The patch under every output pixel: (n * OH * OW, KH * KW * C)."""
        (_, kh, kw, c), (sh, sw), (dh, dw), (oh, ow) = self.shape, self.stride, self.dilation, out
        padded = pad(x, corner, self.padded_size(out))
        (image, row, column, _), element = padded.strides, padded.itemsize
        shape: tuple[int, ...] = (len(x), oh, ow, kh, kw, c)
        col = scratch("im2col col", (len(x) * oh * ow, kh * kw * c), self.dtype)
        strides: tuple[int, ...] = (image, sh * row, sw * column, dh * row, dw * column, element)
        if dw * column == c * element:  # a row of the window is one run of memory
            shape, strides = (len(x), oh, ow, kh, kw * c), (*strides[:4], element)
        run = np.dtype((np.void, shape[-1] * element))  # NumPy copies one long item faster than many short ones
        if padded.flags.c_contiguous:
            windows = np.ndarray(shape[:-1], run, padded, 0, strides[:-1])
        else:
            windows = as_strided(padded, shape, strides).view(run)[..., 0]
        np.copyto(col.view(run).reshape(shape[:-1]), windows)
        return col

    def padded_size(self, out: Pair) -> Pair:
        """Rows and columns that the windows reach."""
        (_, kh, kw, _), (sh, sw), (dh, dw), (oh, ow) = self.shape, self.stride, self.dilation, out
        return sh * (oh - 1) + span(kh, dh), sw * (ow - 1) + span(kw, dw)

    def add_taps(self, gcol: np.ndarray, gx: np.ndarray) -> None:
        """gx (n, rows, columns, C), padded, += patches' gradients gcol (n, OH, OW, KH, KW, C): the transpose of `patches`."""
        (_, oh, ow, kh, kw, _), (sh, sw), (dh, dw) = gcol.shape, self.stride, self.dilation
        for u in range(kh):
            for v in range(kw):
                gx[:, u * dh : u * dh + sh * (oh - 1) + 1 : sh, v * dw : v * dw + sw * (ow - 1) + 1 : sw] += gcol[:, :, :, u, v]


def pixels(y: np.ndarray) -> np.ndarray:
    """(n, OH, OW, O) -> (n * OH * OW, O), a view: of whole images, or of some rows of one image; maybe some of the channels."""
    view = y.reshape(math.prod(y.shape[:3]), y.shape[3])
    if y.size and not np.may_share_memory(view, y):  # reshape copies in silence, and what is written there would be lost
        raise ValueError(f"im2col: pixels of shape {y.shape} with strides {y.strides} are not evenly spaced")
    return view


def pad(x: np.ndarray, corner: Pair, size: Pair) -> np.ndarray:
    """x (n, H, W, C) among zeros: `corner` before it, `size` rows and columns in all; rows and columns beyond are left out."""
    n, h, w, c = x.shape
    (top, left), (rows, columns) = corner, size
    if top == left == 0 and rows <= h and columns <= w:
        return x
    padded = scratch("im2col padded", (n, rows, columns, c), x.dtype)
    padded[...] = 0
    inside = padded[:, top : top + h, left : left + w]
    inside[...] = x[:, : inside.shape[1], : inside.shape[2]]  # the last pixels may be ones that no window reaches
    return padded
