"""minidl.ops.adaptive_avg_pool2d against a loop over parts, outputs larger than the image, errors, memory layouts."""

import re

import numpy as np
import pytest
from layer_cases import IMAGES, LayerCase
from marks import on_host

from minidl import Tensor
from minidl.layout import is_channels_last
from minidl.ops.adaptive_avg_pool2d import adaptive_avg_pool2d
from minidl.ops.avg_pool2d import avg_pool2d

LAYER_CASES = {
    "adaptive_avg_pool2d": LayerCase(
        lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGES, module=lambda nn: nn.AdaptiveAvgPool2d((3, 4))
    ),
    "adaptive_avg_pool2d one side only": LayerCase(
        lambda F, x: F.adaptive_avg_pool2d(x, (None, 4)), IMAGES, module=lambda nn: nn.AdaptiveAvgPool2d((None, 4))
    ),
    "adaptive_avg_pool2d of the whole image": LayerCase(
        lambda F, x: F.adaptive_avg_pool2d(x, 1), IMAGES, module=lambda nn: nn.AdaptiveAvgPool2d(1)
    ),
    "adaptive_avg_pool2d to more pixels": LayerCase(lambda F, x: F.adaptive_avg_pool2d(x, (9, 15)), IMAGES),
}
OUTPUTS = [(1, 1), (2, 3), (3, 2), (7, 5), (4, 1), (7, 9), (14, 10), (16, 7)]


@pytest.mark.parametrize("out", OUTPUTS)
def test_forward_and_backward_against_a_loop(out, run, rng):
    x = rng.standard_normal((2, 3, 7, 5))
    y, gy, (gx,) = run(lambda t: adaptive_avg_pool2d(t, out), x)
    expected = np.zeros_like(x)
    for i, j in np.ndindex(out):
        # a part holds the pixels that it covers by any bit: part i of the side covers the stretch from i/out to (i+1)/out
        rows, columns = (
            [p for p in range(n) if (p + 1) * o > k * n and p * o < (k + 1) * n]
            for n, o, k in zip((7, 5), out, (i, j), strict=True)
        )
        under = np.ix_(range(2), range(3), rows, columns)
        np.testing.assert_allclose(y[:, :, i, j], x[under].mean(axis=(2, 3)), rtol=1e-13, atol=1e-14)
        expected[under] += gy[:, :, i, j, None, None] / (len(rows) * len(columns))
    np.testing.assert_allclose(gx, expected, rtol=1e-13, atol=1e-14)


def test_parts_of_equal_size_are_the_windows_of_avg_pool2d(run, rng):
    x = rng.standard_normal((2, 3, 6, 8))
    for ours, windows in zip(
        run(lambda t: adaptive_avg_pool2d(t, (3, 2)), x), run(lambda t: avg_pool2d(t, (2, 4)), x), strict=True
    ):
        np.testing.assert_allclose(ours, windows, rtol=1e-13, atol=1e-14)


def test_nan_stays_in_its_parts(device):
    x = Tensor(np.array([np.nan, 1, 2, 3, 5]).reshape(1, 1, 1, 5), device=device)
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, (1, 2)).numpy().ravel(), [np.nan, 10 / 3])


def test_long_sums_cost_no_digits(device, rng):
    """A million rows of about 1; float32 sums of one after the other would be off by some 1e-5."""
    x = rng.uniform(0.5, 1.5, (1, 2, 1_000_000, 1)).astype(np.float32)
    y = adaptive_avg_pool2d(Tensor(x, device=device), 1).numpy()
    np.testing.assert_allclose(y.ravel(), x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-7)  # rounded once


def test_one_image_without_a_batch_axis(run, rng):
    x = rng.standard_normal((3, 7, 5))
    y, _, (gx,) = run(lambda t: adaptive_avg_pool2d(t, 2), x)
    batched, _, (batched_gx,) = run(lambda t: adaptive_avg_pool2d(t, 2), x[None])
    np.testing.assert_array_equal(y, batched[0])
    np.testing.assert_array_equal(gx, batched_gx[0])


@pytest.mark.parametrize(
    ("shape", "out", "expected"),
    [((0, 3, 4, 4), 2, (0, 3, 2, 2)), ((2, 0, 4, 4), 2, (2, 0, 2, 2)), ((2, 3, 4, 4), (0, 2), (2, 3, 0, 2))],
)
def test_what_is_empty(shape, out, expected, run):
    y, _, (gx,) = run(lambda t: adaptive_avg_pool2d(t, out), np.ones(shape))
    assert y.shape == expected and gx.shape == shape and not gx.any()


ERRORS = [
    ((5, 5, 5, 5, 5), 2, "x must be floats of (C, H, W) or (N, C, H, W), got float64 (5, 5, 5, 5, 5)"),
    ((2, 3, 0, 5), 2, "x must have at least 1 pixel, got (2, 3, 0, 5)"),
    ((3, 5, 5), -1, "output_size must be two sizes of at least 0, got -1"),
    ((3, 5, 5), (2, -1), "output_size must be two sizes of at least 0, got (2, -1)"),
    ((3, 5, 5), (2,), "output_size must be two sizes of at least 0, got (2,)"),
    ((1, 3, 5, 5), (2, 2, 2), "output_size must be two sizes of at least 0, got (2, 2, 2)"),
    ((3, 5, 5), None, "output_size must be an int, or two of int and None, got None"),
    ((3, 5, 5), 2.5, "output_size must be an int, or two of int and None, got 2.5"),
    ((3, 5, 5), True, "output_size must be an int, or two of int and None, got True"),
]


@pytest.mark.parametrize(("shape", "out", "text"), ERRORS)
def test_errors(shape, out, text):
    with pytest.raises((RuntimeError, TypeError), match=f"^{re.escape(f'adaptive_avg_pool2d: {text}')}$"):
        adaptive_avg_pool2d(Tensor(np.ones(shape)), out)


@pytest.mark.parametrize(("shape", "out"), [(shape, out) for shape, out, _ in ERRORS])
def test_errors_are_pytorchs(shape, out, torch):
    with pytest.raises((RuntimeError, TypeError)) as ours:
        adaptive_avg_pool2d(Tensor(np.ones(shape)), out)
    with pytest.raises(ours.type):
        torch.nn.functional.adaptive_avg_pool2d(torch.ones(shape), out)


def test_ints_are_refused(device):
    with pytest.raises(RuntimeError, match=r"^adaptive_avg_pool2d: x must be floats of .*, got int64 \(1, 4, 4\)$"):
        adaptive_avg_pool2d(Tensor(np.ones((1, 4, 4), np.int64), device=device), 2)


@on_host
def test_results_are_channels_last(channels_last_leaf):
    x, _, received = channels_last_leaf
    y = adaptive_avg_pool2d(x, (2, 3))
    y.backward(np.ones(y.shape))
    assert is_channels_last(y.data) and received == [True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(dtype, run, rng):
    y, _, (gx,) = run(lambda t: adaptive_avg_pool2d(t, 2), rng.standard_normal((1, 2, 5, 4)).astype(dtype))
    assert y.dtype == gx.dtype == dtype
