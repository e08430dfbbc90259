"""minidl.nn.init: statistics, independence of layout, dtype and device, PyTorch's gains and fans, errors.

Tolerances: the mean of n independent numbers of standard deviation s has standard deviation s / sqrt(n); the standard
deviation of n normal numbers is known to about s / sqrt(2 n), of uniform ones more closely. Five of these are allowed.
"""

import math

import numpy as np
import pytest

from minidl.layout import channels_last, is_channels_last
from minidl.nn import init
from minidl.random import Generator, default_generator, manual_seed
from minidl.tensor import Tensor

SHAPE = (64, 16, 5, 5)  # 25,600 numbers; fan_in 400, fan_out 1600
N = math.prod(SHAPE)

FILLS = {
    "normal_": lambda t, g: init.normal_(t, 0.5, 2.0, generator=g),
    "uniform_": lambda t, g: init.uniform_(t, -1.0, 3.0, generator=g),
    "kaiming_normal_": lambda t, g: init.kaiming_normal_(t, generator=g),
    "kaiming_uniform_": lambda t, g: init.kaiming_uniform_(t, generator=g),
    "xavier_normal_": lambda t, g: init.xavier_normal_(t, generator=g),
    "xavier_uniform_": lambda t, g: init.xavier_uniform_(t, generator=g),
}
EXPECTED = {  # mean, standard deviation
    "normal_": (0.5, 2.0),
    "uniform_": (1.0, 4 / math.sqrt(12)),
    "kaiming_normal_": (0.0, math.sqrt(2 / 400)),
    "kaiming_uniform_": (0.0, math.sqrt(2 / 400)),
    "xavier_normal_": (0.0, math.sqrt(2 / 2000)),
    "xavier_uniform_": (0.0, math.sqrt(2 / 2000)),
}


def zeros(shape=SHAPE, dtype=np.float32, device="cpu:0"):
    return Tensor(np.zeros(shape, dtype), device=device)


@pytest.mark.parametrize("name", FILLS)
def test_mean_and_standard_deviation(name):
    x = FILLS[name](zeros(dtype=np.float64), Generator(3)).data
    mean, std = EXPECTED[name]
    assert abs(x.mean() - mean) < 5 * std / math.sqrt(N)
    assert abs(x.std() - std) < 5 * std / math.sqrt(2 * N)


@pytest.mark.parametrize("name", ["uniform_", "kaiming_uniform_", "xavier_uniform_"])
def test_uniform_numbers_fill_their_range_and_stay_inside(name):
    # of N numbers none falls into the last 1e-3 of the range with probability (1 - 1e-3)^25600 = 8e-12
    x = FILLS[name](zeros(dtype=np.float64), Generator(4)).data
    mean, std = EXPECTED[name]
    bound = std * math.sqrt(3)
    low, high = mean - bound, mean + bound
    assert low - 1e-12 <= x.min() < low + 2e-3 * bound
    assert high - 2e-3 * bound < x.max() < high + 1e-12


def test_normal_numbers_have_normal_tails():
    # P(|z| > 2) = 0.0455; the share of N has standard deviation sqrt(p (1 - p) / N) = 0.0013
    z = init.normal_(zeros(dtype=np.float64), generator=Generator(5)).data
    assert abs((abs(z) > 2).mean() - 0.0455) < 5 * 0.0013


@pytest.mark.parametrize("name", FILLS)
def test_values_do_not_depend_on_memory_layout(name):
    plain = zeros()
    nhwc = Tensor(channels_last(np.zeros(SHAPE, np.float32)))
    sliced = Tensor(np.zeros((*SHAPE[:3], 10), np.float32)[..., ::2])
    for tensor in (plain, nhwc, sliced):
        FILLS[name](tensor, Generator(1))
    np.testing.assert_array_equal(nhwc.data, plain.data)
    np.testing.assert_array_equal(sliced.data, plain.data)
    assert is_channels_last(nhwc.data)


@pytest.mark.parametrize("name", FILLS)
def test_narrow_values_are_rounded_float64_values(name):
    exact = FILLS[name](zeros(dtype=np.float64), Generator(2)).data
    for dtype in (np.float32, np.float16):
        tensor = FILLS[name](zeros(dtype=dtype), Generator(2))
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor.data, exact.astype(dtype))


@pytest.mark.parametrize("name", FILLS)
def test_values_do_not_depend_on_device(name):
    other = FILLS[name](zeros(device="cpu:1"), Generator(1))
    assert str(other.device) == "cpu:1"
    np.testing.assert_array_equal(other.data, FILLS[name](zeros(), Generator(1)).data)


@pytest.mark.parametrize("name", FILLS)
def test_written_in_place_and_returned(name):
    tensor = zeros()
    array = tensor.data
    assert FILLS[name](tensor, Generator(1)) is tensor
    assert tensor.data is array
    assert array.any()


@pytest.mark.parametrize("name", FILLS)
def test_default_generator_is_used_and_repeats_after_manual_seed(name):
    before = default_generator.state()
    try:
        manual_seed(11)
        first, second = FILLS[name](zeros(), None).data, FILLS[name](zeros(), None).data
        manual_seed(11)
        np.testing.assert_array_equal(FILLS[name](zeros(), None).data, first)
        assert (first != second).any()
    finally:
        default_generator.set_state(before)


def test_constants():
    tensor = zeros((2, 3))
    assert init.constant_(tensor, 0.25) is tensor
    np.testing.assert_array_equal(tensor.data, np.full((2, 3), 0.25))
    np.testing.assert_array_equal(init.ones_(tensor).data, np.ones((2, 3)))
    np.testing.assert_array_equal(init.zeros_(tensor).data, np.zeros((2, 3)))
    ids = zeros((3,), np.int64)
    np.testing.assert_array_equal(init.ones_(ids).data, [1, 1, 1])
    assert ids.dtype == np.int64


def test_copy_casts_and_keeps_layout():
    values = np.arange(24.0).reshape(2, 3, 2, 2)
    tensor = Tensor(channels_last(np.zeros(values.shape, np.float32)))
    assert init.copy_(tensor, values) is tensor
    np.testing.assert_array_equal(tensor.data, values)
    assert tensor.dtype == np.float32
    assert is_channels_last(tensor.data)


def test_fans_of_linear_and_grouped_convolution():
    assert init.fan_in_and_fan_out((4096, 9216)) == (9216, 4096)
    assert init.fan_in_and_fan_out((256, 48, 5, 5)) == (48 * 25, 256 * 25)


def test_kaiming_fan_out_and_gain():
    # mode and nonlinearity change the scale of the same numbers; 1e-15: two roundings of float64
    def fill(**settings):
        return init.kaiming_normal_(zeros(dtype=np.float64), generator=Generator(1), **settings).data

    base = fill(nonlinearity="linear")
    np.testing.assert_allclose(fill(nonlinearity="linear", mode="fan_out"), base * math.sqrt(400 / 1600), rtol=1e-15)
    np.testing.assert_allclose(fill(nonlinearity="tanh"), base * 5 / 3, rtol=1e-15)
    np.testing.assert_allclose(fill(a=2.0), base * math.sqrt(2 / 5), rtol=1e-15)


def test_empty_tensors_are_left_alone():
    for fill in FILLS.values():
        assert fill(zeros((0, 0)), Generator(1)).shape == (0, 0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: init.normal_(zeros(), std=-1.0), ValueError, "normal_: std must be at least 0, got -1.0"),
        (lambda: init.normal_(zeros(), std=math.nan), ValueError, "normal_: std must be at least 0, got nan"),
        (lambda: init.uniform_(zeros(), 2, 1), ValueError, "uniform_: a must be at most b, got a 2, b 1"),
        (
            lambda: init.normal_(zeros(dtype=np.int64)),
            TypeError,
            "normal_: the tensor must hold floats, got int64",
        ),
        (
            lambda: init.uniform_(zeros(dtype=np.uint8)),
            TypeError,
            "uniform_: the tensor must hold floats, got uint8",
        ),
        (
            lambda: init.kaiming_normal_(zeros((5,))),
            ValueError,
            "fan_in_and_fan_out: a weight needs at least 2 dimensions, got (5,)",
        ),
        (
            lambda: init.kaiming_uniform_(zeros(), mode="fan"),
            ValueError,
            "kaiming: mode must be 'fan_in' or 'fan_out', got 'fan'",
        ),
        (
            lambda: init.calculate_gain("swish"),
            ValueError,
            "calculate_gain: nonlinearity must be one of "
            "['linear', 'conv2d', 'sigmoid', 'tanh', 'relu', 'leaky_relu'], got 'swish'",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "param"),
    [
        *((name, None) for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu")),
        ("leaky_relu", 0),
        ("leaky_relu", math.sqrt(5)),
    ],
)
def test_gains_are_pytorchs(name, param, torch):
    assert init.calculate_gain(name, param) == pytest.approx(torch.nn.init.calculate_gain(name, param), rel=1e-15)


@pytest.mark.parametrize("shape", [(7, 3), (8, 2, 5, 3)])
def test_fans_are_pytorchs(shape, torch):
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert init.fan_in_and_fan_out(shape) == expected


@pytest.mark.parametrize("name", ["kaiming_uniform_", "xavier_uniform_"])
@pytest.mark.parametrize("shape", [(300, 200), (64, 16, 5, 5)])
def test_uniform_bounds_are_pytorchs(name, shape, torch):
    # both ranges are filled to within 1e-3 (see above), so their ends agree to 2e-3
    torch.manual_seed(0)
    expected = getattr(torch.nn.init, name)(torch.empty(shape, dtype=torch.float64)).abs().max().item()
    actual = abs(getattr(init, name)(zeros(shape, np.float64), generator=Generator(6)).data).max()
    assert actual == pytest.approx(expected, rel=2e-3)
