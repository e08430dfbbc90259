"""2-d average pooling, one axis at a time; the mathematics is in minidl/ops/avg_pool2d.py.

The sum of a window is the sum of its columns' sums, so KH + KW additions do instead of KH * KW; backward likewise. Windows that
reach into the padding add what lies in the image, and nothing is padded.
"""

import numpy as np

from minidl import memory, parallel
from minidl.kernels.cpu.windows import Axis
from minidl.shapes import Pair

SLAB = 1 << 18  # values of x at once


def avg_pool2d_forward(x: np.ndarray, counts: np.ndarray, kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """x (N, H, W, C), counts (OH, OW, 1) -> y (N, OH, OW, C)."""
    (n, h, w, c), out = x.shape, counts.shape[:2]
    y = memory.empty((n, *out, c), x.dtype)
    down, across = Axis.pair(kernel, stride, padding, (1, 1), (h, w))
    rows, columns = list(down.groups(0, out[0])), list(across.groups(0, out[1]))
    counts = np.repeat(counts, c, axis=2)  # NumPy divides by an array several times as fast as by a number for each pixel

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, SLAB // max(h * w * c, 1)):
            sums = parallel.scratch("column sums", (images.stop - images.start, out[0], w, c), x.dtype)
            for outputs, elements in rows:
                _sum([x[images, pixels] for _, pixels in elements], sums[:, outputs])
            target = y[images]
            for outputs, elements in columns:
                _sum([sums[:, :, pixels] for _, pixels in elements], target[:, :, outputs])
            target /= counts

    parallel.run(work, n, parallel.grain(4 * h * w * c))
    return y


def _sum(taps: list[np.ndarray], out: np.ndarray) -> None:
    """The sum of arrays of one shape, element by element."""
    if len(taps) < 2:
        out[...] = taps[0] if taps else 0
        return
    np.add(taps[0], taps[1], out=out)
    for tap in taps[2:]:
        out += tap


def avg_pool2d_backward(
    gy: np.ndarray, counts: np.ndarray, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    """gy (N, OH, OW, C) -> gx of x_shape (N, H, W, C)."""
    (n, h, w, c), out = x_shape, counts.shape[:2]
    gx = memory.empty(x_shape, gy.dtype)
    down, across = Axis.pair(kernel, stride, padding, (1, 1), (h, w))
    rows, columns = list(down.groups(0, out[0])), list(across.groups(0, out[1]))
    counts = np.repeat(counts, c, axis=2)

    def work(first: int, stop: int) -> None:
        for images in parallel.slabs(first, stop, SLAB // max(h * w * c, 1)):
            number = images.stop - images.start
            share = np.divide(gy[images], counts, out=parallel.scratch("shares", (number, *out, c), gy.dtype))
            gsums = parallel.scratch("column gradients", (number, out[0], w, c), gy.dtype)
            gsums.fill(0)
            for outputs, elements in columns:
                for _, pixels in elements:
                    gsums[:, :, pixels] += share[:, :, outputs]
            target = gx[images]
            target.fill(0)
            for outputs, elements in rows:
                for _, pixels in elements:
                    target[:, pixels] += gsums[:, outputs]

    parallel.run(work, n, parallel.grain(6 * h * w * c))
    return gx
