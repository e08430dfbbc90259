"""Each type of layer against loops in NumPy that read docs/cfg.md to the letter."""

import math

import numpy as np
import pytest

from minidl import Tensor, manual_seed

WEIGHTS = "epsW={0}\nepsB=1\nmomW={0}\nmomB=0\n"


def weights(inputs=1):
    """The section of a layer with weights."""
    return WEIGHTS.format(",".join(["1"] * inputs))


def assert_close(got, wanted):
    """float64, sums of at most some hundred products of numbers around 1: a thousand roundings of 2^-53 are 1e-13."""
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def side(size, filter_size, stride, padding):
    return math.ceil((size + 2 * padding - filter_size) / stride) + 1


def pixel(image, c, i, j):
    """A pixel, 0 outside."""
    inside = 0 <= i < image.shape[1] and 0 <= j < image.shape[2]
    return image[c, i, j] if inside else 0.0


def filtered(x, weight, stride, padding, groups=1):
    """x (N, C, H, H); weight (O, C/groups, K, K), or (O, C/groups, K, K, OH, OH) with filters for each place."""
    n, channels, size, _ = x.shape
    o, width, k, _, *places = weight.shape
    out = side(size, k, stride, padding)
    y = np.zeros((n, o, out, out))
    for image, f, i, j in np.ndindex(y.shape):
        w = weight[f, :, :, :, i, j] if places else weight[f]
        first = f // (o // groups) * (channels // groups)  # the group's first channel
        y[image, f, i, j] = sum(
            w[c, u, v] * pixel(x[image], first + c, i * stride + u - padding, j * stride + v - padding)
            for c, u, v in np.ndindex(width, k, k)
        )
    return y


# ------------------------------------------------------------------------------------------------------------ conv, local

CONV = "type={}\ninputs=data\nchannels=3\nfilters={}\nfilterSize={}\nstride={}\npadding={}\ninitW=1\n"


@pytest.mark.parametrize("kind", ["conv", "local"])
@pytest.mark.parametrize(
    "filters, size, stride, padding",
    [(2, 3, 1, 1), (2, 2, 1, 0), (1, 3, 2, 0), (1, 4, 3, 1), (1, 6, 1, 0)],  # the third and fourth hang over
)
def test_conv_and_local(run, assert_gradients, kind, filters, size, stride, padding):
    case = run(CONV.format(kind, filters, size, stride, padding), weights())
    bias = case.w["y.bias"] if kind == "local" else case.w["y.bias"][:, None, None]
    assert_close(case.y, filtered(case.x, case.w["y.weight"], stride, padding) + bias)
    assert_gradients(case)


def test_filters_count_those_of_a_group(run):
    case = run(CONV.format("conv", 2, 3, 1, 0) + "groups=3\n", weights())
    assert case.w["y.weight"].shape == (6, 1, 3, 3)
    assert_close(case.y, filtered(case.x, case.w["y.weight"], 1, 0, groups=3) + case.w["y.bias"][:, None, None])


def test_a_bias_for_each_place(run, assert_gradients):
    case = run(CONV.format("conv", 2, 3, 1, 0) + "sharedBiases=0\nneuron=relu\n", weights())
    assert case.w["y.bias"].shape == (2, 4, 4)
    assert_close(case.y, np.maximum(filtered(case.x, case.w["y.weight"], 1, 0) + case.w["y.bias"], 0))
    assert_gradients(case)


def test_relu_after_a_convolution_is_in_its_op(run):
    case = run(CONV.format("conv", 2, 3, 2, 1) + "neuron=relu\n", weights())
    assert_close(case.y, np.maximum(filtered(case.x, case.w["y.weight"], 2, 1) + case.w["y.bias"][:, None, None], 0))


TWO_ABOVE = (
    "[a]\ntype=neuron\ninputs=data\nneuron=square\n[b]\ntype=pool\npool=max\ninputs=data\nchannels=3\nsizeX=2\nstride=2\n"
)


@pytest.mark.parametrize("kind", ["conv", "local"])
def test_several_inputs_are_added_with_one_bias(run, assert_gradients, kind):
    """6 x 6 with stride 2 and 3 x 3 with stride 1 give the same 3 x 3."""
    text = f"type={kind}\ninputs=a,b\nchannels=3,3\nfilters=2,2\nfilterSize=2,1\nstride=2,1\ninitW=1,1\nneuron=relu\n"
    case = run(text, weights(2), above=TWO_ABOVE)
    b = case.x.reshape(2, 3, 3, 2, 3, 2).max(axis=(3, 5))
    both = filtered(case.x**2, case.w["y.weight0"], 2, 0) + filtered(b, case.w["y.weight1"], 1, 0)
    bias = case.w["y.bias"] if kind == "local" else case.w["y.bias"][:, None, None]
    assert_close(case.y, np.maximum(both + bias, 0))
    assert_gradients(case)


@pytest.mark.parametrize("width, permutations", [(1, 1), (3, 3)])
def test_random_connections_deal_out_all_channels(run, assert_gradients, width, permutations):
    text = CONV.format("conv", 1, 2, 1, 0) + f"groups=3\nrandSparse=1\nfilterChannels={width}\n"
    case = run(text, weights())
    connections = case.net.module.y.connections0.numpy()
    assert all(sorted(part) == [0, 1, 2] for part in connections.reshape(permutations, 3).tolist())
    seen = case.x[:, connections]
    assert_close(case.y, filtered(seen, case.w["y.weight"], 1, 0, groups=3) + case.w["y.bias"][:, None, None])
    assert_gradients(case)
    assert "y.connections0" in case.net.module.state_dict()


def test_units_are_maps_where_a_layer_says_so(run):
    units = "[a]\ntype=fc\ninputs=data\noutputs=32\ninitW=1\n"
    text = "type=conv\ninputs=a\nchannels=2\nfilters=1\nfilterSize=3\ninitW=1\n"
    case = run(text, weights(), size=2, above=units, above_params="[a]\n" + weights())
    a = (case.x.reshape(2, 12) @ case.w["a.weight"].T + case.w["a.bias"]).reshape(2, 2, 4, 4)
    assert_close(case.y, filtered(a, case.w["y.weight"], 1, 0) + case.w["y.bias"])


# -------------------------------------------------------------------------------------------------------------- fc, hs, ...


def test_fc(run, assert_gradients):
    case = run("type=fc\ninputs=data\noutputs=5\ninitW=1\nneuron=logistic\n", weights(), size=2)
    z = case.x.reshape(2, 12) @ case.w["y.weight"].T + case.w["y.bias"]
    assert_close(case.y, 1 / (1 + np.exp(-z)))
    assert_gradients(case)


def test_fc_of_several_inputs(run, assert_gradients):
    case = run("type=fc\ninputs=a,b\noutputs=4\ninitW=1,1\n", weights(2), size=4, above=TWO_ABOVE)
    b = case.x.reshape(2, 3, 2, 2, 2, 2).max(axis=(3, 5)).reshape(2, 12)
    assert_close(case.y, (case.x**2).reshape(2, 48) @ case.w["y.weight0"].T + b @ case.w["y.weight1"].T + case.w["y.bias"])
    assert_gradients(case)


def test_dropout_as_in_2012(run):
    case = run("type=hs\ninputs=data\nkeep=0.25\n", "enable=1\n", size=16)
    assert_close(case.y, case.x * 0.25)
    case.net.module.train()
    y = case.net.module(case.leaf).detach().numpy().reshape(case.x.shape)
    kept = y != 0
    assert np.array_equal(y[kept], case.x[kept])
    assert 0.2 < kept.mean() < 0.3  # of 1536; the deviation is 0.011


def test_dropout_that_is_not_enabled(run):
    case = run("type=hs\ninputs=data\nkeep=0.25\n", "enable=false\n")
    case.net.module.train()
    assert_close(case.net.module(case.leaf).detach().numpy().reshape(case.x.shape), case.x * 0.25)


def test_elementwise_sum_and_maximum(run, assert_gradients):
    above = "[a]\ntype=neuron\ninputs=data\nneuron=square\n[b]\ntype=neuron\ninputs=data\nneuron=linear[-1,0.5]\n"
    for text, wanted in (
        ("type=eltsum\ninputs=a,b,data\ncoeffs=2,-1,0.5\n", lambda x: 2 * x**2 - (0.5 - x) + 0.5 * x),
        ("type=eltsum\ninputs=a,b\n", lambda x: x**2 + 0.5 - x),
        ("type=eltmax\ninputs=a,b,data\n", lambda x: np.maximum(np.maximum(x**2, 0.5 - x), x)),
    ):
        case = run(text, above=above)
        assert_close(case.y, wanted(case.x))
        assert_gradients(case)


def test_a_softmax_that_is_not_the_end(run, assert_gradients):
    case = run("type=neuron\ninputs=p\nneuron=linear[2,1]\n", size=2, above="[p]\ntype=softmax\ninputs=data\n")
    e = np.exp(case.x.reshape(2, 12))
    assert_close(case.y, 2 * e / e.sum(axis=1, keepdims=True) + 1)
    assert_gradients(case)


# ------------------------------------------------------------------------------------------------------------------- pool


@pytest.mark.parametrize("kind, take", [("max", np.max), ("avg", np.mean)])
@pytest.mark.parametrize(
    "size, window, stride, start, out",
    [
        (6, 3, 2, 0, 0),  # hangs over, as the CIFAR nets' do
        (7, 3, 2, 0, 0),
        (6, 2, 2, 1, 0),
        (6, 3, 2, -1, 0),
        (7, 3, 3, -2, 2),
        (6, 3, 1, 0, 6),  # windows of one row and column at the end
        (6, 2, 2, 0, 2),
        (6, 3, 2, 5, 0),
    ],
)
def test_pool(run, assert_gradients, kind, take, size, window, stride, start, out):
    text = f"type=pool\npool={kind}\ninputs=data\nchannels=3\nsizeX={window}\nstride={stride}\nstart={start}\noutputsX={out}\n"
    case = run(text, size=size)
    out = out or max(math.ceil((size - start - window) / stride), 0) + 1
    rows = [slice(max(start + i * stride, 0), min(start + i * stride + window, size)) for i in range(out)]
    wanted = np.stack([np.stack([take(case.x[:, :, r, c], axis=(2, 3)) for c in rows], axis=-1) for r in rows], axis=-2)
    assert_close(case.y, wanted)
    assert_gradients(case)


# ------------------------------------------------------------------------------------------------------------------ norms


def window_sum(x, size):
    """Of size x size pixels of the same map, from size // 2 above and left of the pixel on."""
    y = np.zeros_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        rows, columns = (slice(max(at - size // 2, 0), at - size // 2 + size) for at in (i, j))
        y[n, c, i, j] = x[n, c, rows, columns].sum()
    return y


@pytest.mark.parametrize("size", [1, 3, 4, 5])
@pytest.mark.parametrize("power", [0.75, 0.5])
def test_rnorm(run, assert_gradients, size, power):
    case = run(f"type=rnorm\ninputs=data\nchannels=3\nsize={size}\n", f"scale=2\npow={power}\nminDiv=0.5\n")
    assert_close(case.y, case.x * (0.5 + 2 / size**2 * window_sum(case.x**2, size)) ** -power)
    assert_gradients(case)


@pytest.mark.parametrize("size", [3, 4])
def test_cnorm_divides_by_the_squares_of_what_differs_from_the_mean(run, assert_gradients, size):
    case = run(f"type=cnorm\ninputs=data\nchannels=3\nsize={size}\n", "scale=2\npow=0.75\n")
    mean = window_sum(case.x, size) / window_sum(np.ones_like(case.x), size)
    assert_close(case.y, case.x * (1 + 2 / size**2 * window_sum((case.x - mean) ** 2, size)) ** -0.75)
    assert_gradients(case)


@pytest.mark.parametrize("size", [2, 3])
def test_cmrnorm(run, assert_gradients, size):
    case = run(f"type=cmrnorm\ninputs=data\nchannels=3\nsize={size}\nneuron=relu\n", "scale=2\npow=0.6\nminDiv=2\n")
    d = np.full_like(case.x, 2.0)
    for c in range(3):
        d[:, c] += 2 / size * (case.x[:, max(c - size // 2, 0) : c - size // 2 + size] ** 2).sum(axis=1)
    assert_close(case.y, np.maximum(case.x * d**-0.6, 0))
    assert_gradients(case)


# ---------------------------------------------------------------------------------------------------------------- sharing


def test_shared_weights_are_one_parameter(run, assert_gradients):
    """The same filters on the images and on their squares."""
    above = "[a]\ntype=conv\ninputs=data\nchannels=3\nfilters=3\nfilterSize=3\npadding=1\ninitW=1\n"
    text = "type=conv\ninputs=a,data\nchannels=3,3\nfilters=3,3\nfilterSize=3,3\npadding=1,1\ninitW=1,1\nweightSource=a,y[0]\n"
    case = run(text, weights(2), above=above, above_params="[a]\n" + weights())
    module = case.net.module
    assert module.y.weight0 is module.a.weight and module.y.weight1 is module.a.weight
    assert list(case.w) == ["a.weight", "a.bias", "y.bias"]
    w = case.w["a.weight"]
    a = filtered(case.x, w, 1, 1) + case.w["a.bias"][:, None, None]
    assert_close(case.y, filtered(a, w, 1, 1) + filtered(case.x, w, 1, 1) + case.w["y.bias"][:, None, None])
    assert_gradients(case)
    assert [id(group["params"][0]) for group in case.net.groups()] == [id(p) for p in module.parameters()]


def test_shared_random_connections(run):
    sparse = "channels=3\nfilters=1\nfilterSize=1\ninitW=1\ngroups=3\nrandSparse=1\n"
    above = f"[a]\ntype=conv\ninputs=data\n{sparse}"
    case = run(f"type=conv\ninputs=a\n{sparse}weightSource=a[0]\n", weights(), above=above, above_params="[a]\n" + weights())
    assert case.net.module.y.connections0 is case.net.module.a.connections0


# --------------------------------------------------------------------------------------------------------- initial values


def test_initial_weights_are_normal_and_biases_constant(read):
    manual_seed(5)
    text = "[y]\ntype=fc\ninputs=data,data\noutputs=40\ninitW=0.5,0.01\ninitB=-2\n"
    net = read(text, "[y]\n" + weights(2), image_size=8)
    first, second, bias = (p.detach().numpy() for p in net.module.parameters())
    for weight, deviation in ((first, 0.5), (second, 0.01)):
        # of 7680 numbers: the deviation of their mean is 0.011, that of their deviation 0.008 of it; 5 of these
        assert abs(weight.mean()) < 0.06 * deviation and abs(weight.std() / deviation - 1) < 0.04
    assert np.array_equal(bias, np.full(40, -2.0)) and bias.dtype == np.float32
    manual_seed(5)
    again = read(text, "[y]\n" + weights(2), image_size=8)
    assert np.array_equal(again.module.y.weight1.detach().numpy(), second)


def test_images_of_another_dtype_are_cast_to_that_of_the_weights(run):
    case = run("type=fc\ninputs=data\noutputs=2\ninitW=1\n", weights(), size=2)
    got = case.net.module(case.x.astype(np.float32))
    assert got.dtype == np.float64 and isinstance(got, Tensor)


def test_weights_may_be_put_in_place_by_load_state_dict(run):
    """Its `assign` makes other parameters."""
    case = run("type=fc\ninputs=data\noutputs=2\ninitW=1\n", weights(), size=2)
    zeros = {name: Tensor(np.zeros_like(values), device=case.leaf.device) for name, values in case.w.items()}
    case.net.module.load_state_dict(zeros, assign=True)
    assert not case.net.module(case.leaf).detach().numpy().any()
    assert case.net.groups()[0]["params"][0] is case.net.module.y.weight
