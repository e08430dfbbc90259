"""conv2d: outputs and all three gradients equal PyTorch's."""

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor
from minidl.kernels.cpu.winograd import pays

from .compare import LAYOUTS, arrange, compare, host

torch = pytest.importorskip("torch")

# id: x, weight, settings
CASES = {
    "plain": ((2, 3, 7, 8), (4, 3, 3, 3), {}),
    "five images": ((5, 3, 6, 6), (4, 3, 3, 3), {"padding": 1}),
    "nine images, groups": ((9, 4, 5, 6), (6, 2, 3, 2), {"padding": 1, "groups": 2}),
    "1x1": ((2, 5, 4, 3), (6, 5, 1, 1), {}),
    "1x1 stride 2": ((2, 5, 5, 6), (6, 5, 1, 1), {"stride": 2}),
    "1x1 padded": ((2, 3, 4, 4), (2, 3, 1, 1), {"padding": 2}),
    "even kernel": ((2, 3, 6, 7), (4, 3, 2, 4), {"padding": (1, 2)}),
    "kernel as large as the image": ((2, 3, 4, 5), (4, 3, 4, 5), {}),
    "kernel as large as the padded image": ((2, 3, 4, 5), (4, 3, 6, 7), {"padding": 1}),
    "columns left over": ((2, 3, 10, 11), (4, 3, 3, 3), {"stride": 4}),
    "rows and columns left over, padded": ((2, 3, 9, 12), (4, 3, 2, 3), {"stride": (3, 4), "padding": (1, 0)}),
    "stride over kernel": ((2, 3, 9, 9), (4, 3, 2, 2), {"stride": 5}),
    "padding over kernel": ((1, 2, 3, 3), (2, 2, 2, 2), {"padding": 4}),
    "padding and stride": ((2, 3, 8, 9), (4, 3, 3, 5), {"stride": (2, 3), "padding": (2, 1)}),
    "valid": ((2, 3, 6, 7), (4, 3, 3, 2), {"padding": "valid", "stride": 2}),
    "same, odd": ((2, 3, 6, 7), (4, 3, 3, 5), {"padding": "same"}),
    "same, even": ((2, 3, 6, 7), (4, 3, 2, 4), {"padding": "same"}),
    "same, dilated": ((2, 3, 6, 7), (4, 3, 3, 2), {"padding": "same", "dilation": (2, 3)}),
    "dilation": ((2, 3, 9, 10), (4, 3, 3, 3), {"dilation": 2}),
    "dilation, stride, padding": ((2, 3, 11, 12), (4, 3, 3, 2), {"dilation": (2, 3), "stride": (2, 1), "padding": (3, 2)}),
    "groups": ((2, 6, 6, 7), (9, 2, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((2, 4, 6, 7), (8, 1, 3, 3), {"groups": 4, "stride": 2}),
    "groups, dilation, stride": ((2, 4, 9, 9), (4, 2, 3, 3), {"groups": 2, "dilation": 2, "stride": 3, "padding": 2}),
    "no image": ((0, 3, 6, 7), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "one image, unbatched": ((3, 6, 7), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "unbatched, groups": ((4, 6, 7), (6, 2, 3, 3), {"groups": 2}),
    "one pixel": ((2, 3, 1, 1), (4, 3, 1, 1), {}),
    "settings as lists": ((2, 3, 7, 8), (4, 3, 3, 3), {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 2]}),
}

# The convolutions of the two-tower net (both towers together and one tower) and of the single-tower net of 2014.
ALEXNET = {
    "conv1": ((1, 3, 227, 227), (96, 3, 11, 11), {"stride": 4}),
    "conv1, one tower": ((2, 3, 227, 227), (48, 3, 11, 11), {"stride": 4}),
    "conv1, 2014": ((1, 3, 224, 224), (64, 3, 11, 11), {"stride": 4, "padding": 2}),
    "conv2": ((2, 96, 27, 27), (256, 48, 5, 5), {"padding": 2, "groups": 2}),
    "conv2, one tower": ((1, 48, 27, 27), (128, 48, 5, 5), {"padding": 2}),
    "conv3": ((2, 256, 13, 13), (384, 256, 3, 3), {"padding": 1}),
    "conv4": ((2, 384, 13, 13), (384, 192, 3, 3), {"padding": 1, "groups": 2}),
    "conv5": ((2, 384, 13, 13), (256, 192, 3, 3), {"padding": 1, "groups": 2}),
    "conv5, one tower": ((1, 192, 13, 13), (128, 192, 3, 3), {"padding": 1}),
}


def check(arrays, settings):
    compare(lambda *t: F.conv2d(*t, **settings), lambda *t: torch.nn.functional.conv2d(*t, **settings), *arrays)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch on its own speed
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("case", CASES)
def test_conv2d(case, bias, rng):
    x, w, settings = CASES[case]
    check([rng.standard_normal(shape) for shape in ([x, w, w[:1]] if bias else [x, w])], settings)


@pytest.mark.parametrize("case", ALEXNET)
def test_conv2d_of_alexnet(case, rng):
    x, w, settings = ALEXNET[case]
    check([rng.standard_normal(shape) for shape in (x, w, w[:1])], settings)


@pytest.mark.parametrize("w_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_conv2d_in_any_memory(x_layout, w_layout, rng):
    x, w = arrange(rng.standard_normal((2, 4, 7, 8)), x_layout), arrange(rng.standard_normal((6, 2, 3, 3)), w_layout)
    check([x, w, rng.standard_normal(6)], {"stride": 2, "padding": 1, "groups": 2})


def test_conv2d_grid_of_sizes(rng):
    for size in range(3, 10):
        for kernel, stride, padding, dilation in [
            (1, 2, 0, 1),
            (2, 1, 1, 2),
            (2, 3, 0, 1),
            (3, 2, 1, 1),
            (3, 4, 2, 1),
            (3, 3, 3, 3),
        ]:
            settings = {"stride": stride, "padding": padding, "dilation": dilation}
            shapes = [(2, 2, size, size + 1), (2, 2, kernel, kernel), (2,)]
            check([rng.standard_normal(shape) for shape in shapes], settings)


@pytest.mark.parametrize("wanted", range(3))
def test_conv2d_gradient_of_one_operand_alone(wanted, rng):
    """A frozen operand changes nothing in the others' gradients."""
    arrays = [rng.standard_normal(shape) for shape in [(2, 4, 6, 7), (6, 2, 3, 3), (6,)]]

    def run(convolve, constant):
        def with_constants(operand):
            operands = [constant(a) for a in arrays]
            operands[wanted] = operand
            return convolve(*operands, stride=2, padding=1, groups=2)

        return with_constants

    compare(run(F.conv2d, Tensor), run(torch.nn.functional.conv2d, torch.tensor), arrays[wanted])


# What goes by Winograd's tiles, with filters of every length that do, and AlexNet's: batch, image, filters, settings
ROUNDED = {
    "2x2": (16, (128, 17, 17), (128, 128, 2, 2), {}),
    "3x3": (32, (64, 13, 13), (64, 64, 3, 3), {"padding": 1}),
    "4x4": (16, (64, 20, 20), (64, 64, 4, 4), {"padding": 1}),
    "5x5": (16, (48, 27, 27), (64, 48, 5, 5), {"padding": 2}),
    "11x11, stride 4": (16, (3, 83, 83), (48, 3, 11, 11), {"stride": 4}),
}


def rms(a):
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


@pytest.mark.parametrize("after_relu", [False, True], ids=["random", "after a ReLU"])
@pytest.mark.parametrize("case", ROUNDED)
def test_tiles_round_at_most_three_times_as_much(case, after_relu, rng):
    """As PyTorch in float32, where it rounds more: with contiguous or with channels-last memory. Against float64."""
    batch, image, w_shape, settings = ROUNDED[case]
    x, w = rng.standard_normal((batch, *image), np.float32), rng.standard_normal(w_shape, np.float32)
    if after_relu:
        x = np.maximum(x, 0)
    grid = [(size + 2 * settings.get("padding", 0) - w_shape[2]) // settings.get("stride", 1) + 1 for size in image[1:]]
    gy = rng.standard_normal((batch, w_shape[0], *grid), np.float32)
    stride = (settings.get("stride", 1),) * 2
    assert pays((w_shape[0], *w_shape[2:], w_shape[1]), stride, (1, 1), batch, tuple(grid)), "or the case is of patches"

    def results(convolve, tensor, layout, dtype="float32"):
        operands = [tensor(arrange(a.astype(dtype), layout)) for a in (x, w)]
        for operand in operands:
            operand.requires_grad_()
        y = convolve(*operands, **settings)
        y.backward(tensor(arrange(gy.astype(dtype), layout)))
        return [host(a) for a in (y, *(operand.grad for operand in operands))]

    theirs = torch.nn.functional.conv2d, torch.from_numpy
    exact = results(*theirs, "c_order", "float64")
    peers = [results(*theirs, layout) for layout in ("c_order", "channels_last")]
    for name, mine, right, *their in zip(
        ("y", "gx", "gw"), results(F.conv2d, Tensor, "channels_last"), exact, *peers, strict=True
    ):
        allowed = 3 * max(rms(a - right) for a in their)
        assert rms(mine - right) <= allowed, f"{name}: {rms(mine - right):.1e}, allowed {allowed:.1e}"
