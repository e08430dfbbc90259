"""The input step: a batch of images, from bytes to what a network takes in. On a GPU it is one kernel.

    y[n,c,i,j] = (image[n, top[n] + i, left[n] + j, c] - mean[i,j,c] + noise[n,c]) / divide

where a mirrored image has width - 1 - j in place of its j: the crop is mirrored, the mean is not. That is what the transforms
RandomCrop, RandomHorizontalFlip, SubtractMean and PCAColorNoise do to an image, in this order and with the same roundings; here
for all images of a batch at once. Images that go to a device as bytes, whole at 256 x 256, are a third of the floats that would
go there if they were made ready on the host at 224 x 224.

Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, sections 2 and 4.1; the 2012 program's convdata_jpeg.py.
"""

from typing import Any

from minidl.device import Array, array_module


def input_step(
    images: Array,
    tops: Array,
    lefts: Array,
    flips: Array,
    mean: Array,
    noise: Array,
    divide: float,
    size: tuple[int, int],
    dtype: Any,
) -> Array:
    """Crop, mirror, subtract the mean, add each image's colour, divide.

    images      : (N, H, W, 3) uint8
    tops, lefts : (N,) ints, where each crop begins; it must lie in the image, which nothing checks on a GPU
    flips       : (N,) bool, which crops are mirrored
    mean        : (Hm, Wm, 3), whose centre of the crops' size is subtracted, wherever a crop was taken; or (3,), a colour
    noise       : (N, 3), a colour for each image; zeros for none
    divide      : 1.0 to leave the scale alone
    size        : (height, width) of the crops
    dtype       : in which everything is computed

    -> (N, 3, height, width) of dtype, in channels-last memory.
    """
    xp, (height, width) = array_module(images), size
    rows = tops[:, None] + xp.arange(height)  # (N, height)
    across = xp.where(flips[:, None], xp.arange(width - 1, -1, -1), xp.arange(width))
    columns = lefts[:, None] + across  # (N, width)
    numbers = xp.arange(len(images))[:, None, None]
    y = images[numbers, rows[:, :, None], columns[:, None, :]].astype(dtype)  # (N, height, width, 3)
    y -= _center(mean, height, width).astype(dtype)
    y += noise.astype(dtype)[:, None, None, :]
    y /= divide
    return y.transpose(0, 3, 1, 2)


def _center(mean: Array, height: int, width: int) -> Array:
    """(Hm, Wm, 3) -> (height, width, 3), rounded towards the top left; a colour (3,) as it is."""
    if mean.ndim == 1:
        return mean
    top, left = (mean.shape[0] - height) // 2, (mean.shape[1] - width) // 2
    return mean[top : top + height, left : left + width]
