"""Winograd's tiles on a CPU: where they are used, and how they round."""

import numpy as np
import pytest

from minidl.kernels import plain_kernels
from minidl.kernels.cpu.winograd import Winograd, blocks, pays, unblocks
from minidl.kernels.winograd import LONGEST, tile_numbers
from minidl.ops.conv2d import conv2d_forward

ALEXNET = {  # filters (O, KH, KW, C) of a tower, stride, output
    "conv1": ((48, 11, 11, 3), (4, 4), (55, 55)),
    "conv2": ((128, 5, 5, 48), (1, 1), (27, 27)),
    "conv3": ((192, 3, 3, 256), (1, 1), (13, 13)),
    "conv4": ((192, 3, 3, 192), (1, 1), (13, 13)),
    "conv5": ((128, 3, 3, 192), (1, 1), (13, 13)),
}


def test_filters_longer_than_the_points_allow():
    assert not pays((32, LONGEST + 1, LONGEST + 1, 32), (1, 1), (1, 1), 64, (40, 40))
    assert pays((32, LONGEST, LONGEST, 32), (1, 1), (1, 1), 64, (40, 40))


def test_longer_filters_pay_in_smaller_batches():
    (conv2, _, out2), (conv3, _, out3) = ALEXNET["conv2"], ALEXNET["conv3"]
    assert pays(conv2, (1, 1), (1, 1), 1, out2) and not pays(conv3, (1, 1), (1, 1), 1, out3)
    assert pays(conv3, (1, 1), (1, 1), 6, out3)  # if the patches cost nothing to gather, they would be faster


@pytest.mark.parametrize("layer", ALEXNET)
def test_every_convolution_of_alexnet_goes_by_tiles_in_a_batch(layer):
    shape, stride, out = ALEXNET[layer]
    assert pays(shape, stride, (1, 1), 128, out)


@pytest.mark.parametrize(
    "shape, stride, dilation, images, out",
    [
        ((192, 3, 3, 256), (1, 1), (1, 1), 4, (13, 13)),  # 64 tiles do not repay the filters' transform
        ((192, 3, 3, 256), (1, 1), (2, 2), 64, (13, 13)),
        ((192, 1, 1, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 1, 5, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((4, 3, 3, 256), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 3, 3, 4), (1, 1), (1, 1), 64, (13, 13)),
        ((192, 3, 3, 256), (2, 2), (1, 1), 64, (13, 13)),  # over blocks it saves too little
        ((192, 3, 3, 256), (1, 1), (1, 1), 64, (5, 5)),  # 2 x 2 tiles, most of which hang over
    ],
)
def test_where_patches_are_better(shape, stride, dilation, images, out):
    assert not pays(shape, stride, dilation, images, out)


@pytest.mark.parametrize("stride", [(1, 1), (4, 4), (2, 3)])
def test_blocks_and_back(stride, rng):
    w = rng.standard_normal((5, 11, 7, 3))
    b = blocks(w, stride)
    assert b.shape == (-(-11 // stride[0]), -(-7 // stride[1]), 5, stride[0] * stride[1] * 3)
    np.testing.assert_array_equal(unblocks(b, w.shape, stride), w)


@pytest.mark.parametrize("layer", ALEXNET)
def test_rounding_at_alexnet_shapes(layer, rng):
    """Against float64, in units of eps * (|w| convolved with |x|), the unit in which a plain product has about 1. The points
    0, 1, -1, 2, -2 (and 1/2, -1/2) amplify a rounding by at most the norms of the matrices, in two dimensions 100."""
    shape, stride, out = ALEXNET[layer]
    out_of_2 = 2 * tile_numbers(out)[0], out[1]
    rows = tuple((o - 1) * s + k for o, s, k in zip(out_of_2, stride, shape[1:3], strict=True))
    x = np.maximum(rng.standard_normal((1, *rows, shape[3])), 0)  # as after a ReLU
    w = rng.standard_normal(shape)
    method = Winograd(shape, stride, np.dtype(np.float32))
    y = np.full((1, *out_of_2, shape[0]), np.nan, np.float32)
    method.forward(x.astype(np.float32), (0, 0), method.prepare(w.astype(np.float32)), None, y)
    with plain_kernels():
        settings = (stride, ((0, 0), (0, 0)), (1, 1), 1)
        exact = conv2d_forward(x.astype(np.float32).astype(float), w.astype(np.float32).astype(float), None, *settings)
        size = conv2d_forward(abs(x), abs(w), None, *settings)
    error = abs(y - exact) / (np.finfo(np.float32).eps * size)
    assert error.max() < 100
    assert np.sqrt((abs(y - exact) ** 2).mean() / (exact**2).mean()) < 1e-5
