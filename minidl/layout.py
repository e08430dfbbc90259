"""Channels-last memory under NCHW shapes, and the middle of an image.

Every 4-D array of minidl has the shape (N, C, H, W) that PyTorch's users expect, and wants the memory of (N, H, W, C): the
channels of a pixel lie side by side. The only evidence is the strides. A convolution's patches are then long runs of memory,
which makes gathering them several times faster than from C-ordered (N, C, H, W) memory. Weights (O, C, KH, KW) have the memory
of (O, KH, KW, C) for the same reason.
"""

from minidl.device import Array, array_module


def nhwc(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), C-contiguous: a view when the memory is channels-last already, else one copy."""
    return array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(y: Array) -> Array:
    """(N, H, W, C) -> (N, C, H, W): always a view."""
    return y.transpose(0, 3, 1, 2)


def channels_last(x: Array) -> Array:
    """The same (N, C, H, W) array with channels-last memory: itself if it has it, else a copy."""
    return nchw(nhwc(x))


def channels_to_end(x: Array) -> Array:
    """(N, C, ...) -> (N, ..., C), C-contiguous: a view where the memory is so already, else one copy."""
    return array_module(x).ascontiguousarray(array_module(x).moveaxis(x, 1, -1))


def channels_from_end(y: Array) -> Array:
    """(N, ..., C) -> (N, C, ...): always a view."""
    return array_module(y).moveaxis(y, -1, 1)


def center(image: Array, height: int, width: int) -> Array:
    """(H, W, ...) -> (height, width, ...): the middle, rounded towards the top left. A view."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def is_channels_last(x: Array) -> bool:
    """Does this (N, C, H, W) array have channels-last memory?"""
    return x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous
