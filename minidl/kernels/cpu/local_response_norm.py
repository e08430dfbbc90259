"""Local response normalisation in slabs of pixels; the mathematics is in minidl/ops/local_response_norm.py.

The window sum is where the plain function loses time: a shift by one channel cuts memory into runs as short as a pixel. Here
each pixel of a slab is surrounded by zeros, so that a shift by one channel is a shift of the whole slab, in one run. Sums of 2
values make sums of 4, those sums of 8: a window of 5 takes three additions.
"""

import math

import numpy as np

from minidl import memory, parallel

SLAB = 1 << 17  # values of x at once; fewer, and the time between NumPy's loops shows


def local_response_norm_forward(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> tuple[np.ndarray, np.ndarray]:
    """x (..., C) -> y and d, both of x's shape."""
    pixels = _pixels(x)
    y, d = (memory.empty(pixels.shape, pixels.dtype) for _ in range(2))

    def work(first: int, stop: int) -> None:
        at_once = _pixels_at_once(pixels)
        wide, inside = _surrounded(at_once, x.shape[-1], size, size // 2, x.dtype)
        for slab in parallel.slabs(first, stop, at_once):
            xs, ds = pixels[slab], d[slab]
            np.multiply(xs, xs, out=inside[: len(xs)])
            np.multiply(_window_sum(wide[: len(xs)], size), alpha / size, out=ds)
            ds += k
            _times_negative_power(xs, ds, beta, y[slab])

    parallel.run(work, len(pixels), parallel.grain(10 * pixels.shape[1]))
    return y.reshape(x.shape), d.reshape(x.shape)


def local_response_norm_backward(
    gy: np.ndarray, x: np.ndarray, d: np.ndarray, size: int, alpha: float, beta: float, k: float = 1.0
) -> np.ndarray:
    """gy, x, d (..., C) -> gx (..., C). k is in d already."""
    upstream, pixels, denominator = _pixels(gy), _pixels(x), _pixels(d)
    gx = memory.empty(pixels.shape, pixels.dtype)

    def work(first: int, stop: int) -> None:
        at_once = _pixels_at_once(pixels)
        wide, inside = _surrounded(at_once, x.shape[-1], size, (size - 1) // 2, x.dtype)
        for slab in parallel.slabs(first, stop, at_once):
            xs, ds, direct = pixels[slab], denominator[slab], gx[slab]
            _times_negative_power(upstream[slab], ds, beta, direct)
            across = parallel.scratch("across", xs.shape, xs.dtype)
            np.multiply(direct, xs, out=across)
            np.divide(across, ds, out=inside[: len(xs)])
            np.multiply(_window_sum(wide[: len(xs)], size), xs, out=across)
            across *= 2 * alpha / size * beta
            direct -= across

    parallel.run(work, len(pixels), parallel.grain(10 * pixels.shape[1]))
    return gx.reshape(x.shape)


def _pixels(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (pixels, C), contiguous."""
    return np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _pixels_at_once(pixels: np.ndarray) -> int:
    return max(SLAB // max(pixels.shape[1], 1), 1)


def _surrounded(pixels: int, channels: int, size: int, before: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Scratch for pixels with `size - 1` zeros around each, `before` of them before it; and the part inside the zeros."""
    wide = parallel.scratch("surrounded", (pixels, channels + size - 1), dtype)
    wide[...] = 0
    return wide, wide[:, before : before + channels]


def _window_sum(wide: np.ndarray, size: int) -> np.ndarray:
    """Sums of `size` neighbours: (pixels, C + size - 1) -> (pixels, C), a view of scratch."""
    total, width, sums = wide, 1, [wide.reshape(-1)]  # sums[i][j] is the sum of 2^i values from the j-th on
    while 2 * width <= size:
        total = parallel.scratch(f"sums of {2 * width}", wide.shape, wide.dtype)
        length = sums[-1].size - width
        sums.append(total.reshape(-1)[:length])
        np.add(sums[-2][:length], sums[-2][width:], out=sums[-1])
        width *= 2
    covered, length = width, wide.size - size + 1
    for part in reversed(sums[:-1]):
        width //= 2
        if covered + width <= size:
            sums[-1][:length] += part[covered : covered + length]
            covered += width
    return total[:, : wide.shape[1] - size + 1]


def _times_negative_power(values: np.ndarray, d: np.ndarray, beta: float, out: np.ndarray) -> None:
    """out = values * d^-beta. The usual 3/4 by two square roots, which are several times faster than a power."""
    power = parallel.scratch("power", d.shape, d.dtype)
    if beta != 0.75:
        np.multiply(values, np.power(d, -beta, out=power), out=out)
        return
    np.sqrt(np.sqrt(d, out=power), out=out)
    power *= out
    np.divide(values, power, out=out)
