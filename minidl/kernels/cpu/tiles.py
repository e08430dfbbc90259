"""Images cut into tiles, and tiles put together to images: how winograd.py's arrays lie in memory.

Images lie on a *canvas*, among zeros, and tiles are views of it that overlap. A convolution does the same with piece after
piece of the batch. So everything about a piece's memory is prepared once, and done for every piece by `Canvas.put`,
`Tiles.cut` and `Assembly.write`: preparing the views takes the interpreter longer than NumPy needs for many a loop over them.

Where tiles would hang far over an image's end, 2 x 2 images share a *mosaic*: they lie side by side with the zeros of their
padding between them. 13 x 13 outputs need 4 x 4 tiles of 4 x 4, but four times as many need 7 x 7, 12.25 for each image.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.kernels.winograd import tile_numbers
from minidl.parallel import scratch
from minidl.shapes import Pair


class Layout(NamedTuple):
    """How images share mosaics."""

    side: int  # images along each axis of a mosaic
    pitch: Pair  # from one image's first pixel to the next one's, of inputs and of outputs
    number: Pair  # tiles along each axis of a mosaic


def layout(images: int, size: Pair, corner: Pair, kernel: Pair, out: Pair) -> Layout:
    """The layout with fewer tiles for images of `size`, `corner` zeros before them, and a kernel that gives `out` outputs."""
    alone = Layout(1, out, tile_numbers(out, kernel))
    if images % 4 != 0:
        return alone
    pitch = _pitch(size[0], corner[0], kernel[0], out[0]), _pitch(size[1], corner[1], kernel[1], out[1])
    number = tile_numbers((pitch[0] + out[0], pitch[1] + out[1]), kernel)
    return Layout(2, pitch, number) if math.prod(number) < 4 * math.prod(alone.number) else alone


def _pitch(size: int, corner: int, kernel: int, out: int) -> int:
    """From one image to the next along an axis, so that no window of one reaches the other's pixels.

    If there is so much padding that their outputs overlap, those are of zeros alone, and equal.
    """
    reach = out + kernel - 1 - corner  # where an image's last window ends
    return max(reach, min(size, reach) + corner)


class Canvas:
    """Scratch for images (n, H, W, C) among zeros, with `corner` zeros before them: `blocks` (rows, columns of `size`, mosaics,
    SH * SW * C), where a block of SH x SW pixels, the stride, counts as one."""

    def __init__(
        self, name: str, shape: tuple[int, ...], corner: Pair, stride: Pair, size: Pair, plan: Layout, dtype: np.dtype
    ) -> None:
        (n, h, w, c), (sh, sw), (rows, columns), side = shape, stride, size, plan.side
        mosaics = n // side**2
        self.blocks = scratch(f"{name} blocks", (rows, columns, mosaics, sh * sw * c), dtype)
        if stride == (1, 1):
            pixels, self._regrouped = self.blocks.transpose(2, 0, 1, 3), None
        else:
            pixels = scratch(f"{name} pixels", (mosaics, rows * sh, columns * sw, c), dtype)
            by_block = pixels.reshape(mosaics, rows, sh, columns, sw, c).transpose(1, 3, 0, 2, 4, 5)
            self._regrouped = self.blocks.reshape(by_block.shape), by_block
        pixels[...] = 0
        # the last pixels may be ones that no window reaches, and in the way of the next image
        space = plan.pitch if side > 1 else (rows * sh, columns * sw)
        self._reached = min(h, space[0] - corner[0]), min(w, space[1] - corner[1])
        mosaic, row, column, element = pixels.strides
        self._inside = as_strided(
            pixels[:, corner[0] :, corner[1] :],
            (mosaics, side, side, *self._reached, c),
            (mosaic, plan.pitch[0] * row, plan.pitch[1] * column, row, column, element),
        )

    def put(self, x: np.ndarray) -> None:
        """Write images (n, H, W, C) among the zeros."""
        images = x[:, : self._reached[0], : self._reached[1]]
        self._inside[...] = images.reshape(self._inside.shape)  # a view: only the first axis is split
        if self._regrouped is not None:
            blocks, by_block = self._regrouped
            blocks[...] = by_block


class Tiles:
    """down @ tile @ across^T for every tile of a canvas: `values` (t * t, tiles, C).

    down, across (t, pixels of a tile along the axis). Tiles start `apart` pixels from each other, and may overlap.
    """

    def __init__(self, name: str, canvas: Canvas, down: np.ndarray, across: np.ndarray, number: Pair, apart: Pair) -> None:
        (nh, nw), blocks = number, canvas.blocks
        _, columns, n, c = blocks.shape
        row, column, _, element = blocks.strides
        th, tw = len(down), len(across)
        half = scratch("tiles half", (nh, th, columns * n * c), blocks.dtype)
        whole = scratch(name, (th, tw, nh, nw, n * c), blocks.dtype)
        by_row = as_strided(blocks, (nh, down.shape[1], columns * n * c), (apart[0] * row, row, element))
        shape = (nh, th, nw, across.shape[1], n * c)
        by_column = as_strided(half, shape, (*half.strides[:2], apart[1] * column, column, element))
        self._products = [(down, by_row, half), (across, by_column, whole.transpose(2, 0, 3, 1, 4))]
        self.values = whole.reshape(th * tw, nh * nw * n, c)

    def cut(self) -> np.ndarray:
        """The values of what lies on the canvas now."""
        for matrix, images, result in self._products:
            np.matmul(matrix, images, out=result)
        return self.values


class Assembly:
    """down @ M @ across^T for every tile's `values` M (t * t, tiles, O), put together to images (n, OH, OW, O)."""

    def __init__(
        self, down: np.ndarray, across: np.ndarray, plan: Layout, shape: tuple[int, ...], whole_rows: bool, dtype: np.dtype
    ) -> None:
        """whole_rows : are the images' rows contiguous, OW * O values each?"""
        (n, oh, ow, out), (nh, nw), side = shape, plan.number, plan.side
        (mh, th), (mw, tw), mosaics = down.shape, across.shape, n // side**2
        values = scratch("assembly values", (th, tw, nh * nw * mosaics * out), dtype)
        half = scratch("assembly half", (mh, tw, values.shape[2]), dtype)
        whole = scratch("assembly whole", (mh, mw, nh, nw, mosaics, out), dtype)
        flat = whole.reshape(mh, mw, values.shape[2])
        self._products = [(down, values.swapaxes(0, 1), half.swapaxes(0, 1)), (across, half, flat)]
        self.values = values.reshape(th * tw, nh * nw * mosaics, out)
        pixels = scratch("assembly pixels", (mosaics, mh * nh, mw * nw, out), dtype)
        self._by_tile = whole.transpose(4, 2, 0, 3, 1, 5)
        self._pixels = pixels.reshape(self._by_tile.shape)
        mosaic, row, column, element = pixels.strides
        line, line_strides = ((ow * out,), (element,)) if whole_rows else ((ow, out), (column, element))
        pitches = plan.pitch[0] * row, plan.pitch[1] * column
        self._images = as_strided(pixels, (mosaics, side, side, oh, *line), (mosaic, *pitches, row, *line_strides))

    def write(self, bias: np.ndarray | None, y: np.ndarray) -> None:
        """The images that `values` make, and the bias (OW, O) added, into y (n, OH, OW, O)."""
        for matrix, tiles, result in self._products:
            np.matmul(matrix, tiles, out=result)
        self._pixels[...] = self._by_tile
        target = y.reshape(self._images.shape)
        if bias is None:
            target[...] = self._images
        else:
            np.add(self._images, bias.reshape(self._images.shape[4:]), out=target)
