"""The two-tower network: its sizes, its traffic, and that it is the merged network cut in two."""

import itertools
import math
from dataclasses import replace
from functools import lru_cache

import model as alexnet
import numpy as np
import pytest
from model import LAYERS, PROFILES, VARIANTS, AlexNet, same_map_norm

import minidl
import minidl.nn.functional as F
from minidl import Tensor, count_traffic, nn
from minidl.random import Generator

MERGED = {
    "conv1.weight": (96, 3, 11, 11),
    "conv2.weight": (256, 48, 5, 5),
    "conv3.weight": (384, 256, 3, 3),
    "conv4.weight": (384, 192, 3, 3),
    "conv5.weight": (256, 192, 3, 3),
    "fc6.weight": (4096, 9216),
    "fc7.weight": (4096, 4096),
    "fc8.weight": (1000, 4096),
}
A_TO_B, B_TO_A = ("cpu:0", "cpu:1"), ("cpu:1", "cpu:0")


@pytest.fixture(scope="module")
def full():
    """full(variant, profile): a full-width net of equal weights; drawing 60 million of them takes seconds."""

    @lru_cache(maxsize=1)
    def get(variant="two_towers", profile="paper"):
        with pytest.MonkeyPatch.context() as patch:
            for layer in (nn.Conv2d, nn.Linear):
                patch.setattr(layer, "reset_parameters", lambda self: None)
            patch.setattr(nn.init, "normal_", lambda tensor, mean, std: nn.init.constant_(tensor, 1e-3))
            return AlexNet(variant=variant, profile=profile)

    return get


def zeros(n, size=224):
    return np.zeros((n, 3, size, size), np.float32)


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("variant", "parameters", "neurons"),
    [
        ("two_towers", 60_965_224, 659_272),
        ("half", 59_798_312, 355_864),
        ("ungrouped", 62_378_344, 659_272),
        ("non_overlapping", 60_965_224, 633_416),
        ("no_communication", 81_591_720, None),
        ("torchvision", 61_100_840, None),
    ],
)
def test_parameters_and_neurons(full, variant, parameters, neurons):
    net = full(variant)
    assert sum(p.numel() for p in net.parameters()) == parameters
    outputs = []
    handles = [
        layer.register_forward_hook(lambda m, inputs, y: outputs.append(y.numel()))
        for layer in net.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    with minidl.no_grad():
        net(zeros(1))
    for handle in handles:
        handle.remove()
    assert len(outputs) == 7 * len(net.towers) + 1
    assert neurons is None or sum(outputs) == neurons


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("two_towers", (34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000)),
        ("ungrouped", (34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000)),
    ],
)
def test_parameters_of_each_layer(full, variant, counts):
    of = dict.fromkeys(LAYERS, 0)
    for name, p in full(variant).named_parameters():
        of[name.split(".")[-2]] += p.numel()
    assert tuple(of.values()) == counts


@pytest.mark.parametrize("variant", VARIANTS)
def test_sizes_on_the_way(variant):
    """55 -> 27 -> 13 -> 13 -> 6, or 55 -> 28 -> 26 -> 13 -> 11 -> 6 where pools don't overlap; 6 x 6 in either."""
    net = AlexNet(5, width=0.05, variant=variant)
    sides = {}
    for name, layer in net.tower0.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            layer.register_forward_hook(lambda m, inputs, y, name=name: sides.update({name: y.shape[2:]}))
    assert net(zeros(1)).shape == (1, 5)
    overlapping = (55, 27, 27, 13, 13, 13, 13, 6)
    expected = (55, 28, 26, 13, 13, 13, 11, 6) if variant == "non_overlapping" else overlapping
    assert [sides[name] for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")] == [
        (side, side) for side in expected
    ]


# --------------------------------------------------------------------------------------------------------- names, merging


def test_names_of_parameters():
    expected = [f"tower{i}.{layer}.{kind}" for i in (0, 1) for layer in LAYERS[:-1] for kind in ("weight", "bias")]
    assert list(AlexNet(5, width=0.05).state_dict()) == [*expected, "fc8.weight", "fc8.bias"]


def test_merged_shapes(full):
    merged = full().merged_state_dict()
    assert {key: a.shape for key, a in merged.items() if key.endswith("weight")} == MERGED
    assert {key: a.shape for key, a in merged.items() if key.endswith("bias")} == {
        key.replace("weight", "bias"): shape[:1] for key, shape in MERGED.items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_merging_puts_tower_0_first_and_loading_is_its_inverse(variant):
    net, other = AlexNet(5, width=0.05, variant=variant), AlexNet(5, width=0.05, variant=variant)
    for p in net.parameters():
        nn.init.normal_(p)
    merged = net.merged_state_dict()
    half = len(merged["conv3.weight"]) // len(net.towers)
    np.testing.assert_array_equal(merged["conv3.weight"][:half], net.tower0.conv3.weight.data)
    other.load_merged_state_dict(merged)
    for key, values in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], values, key)


def test_loading_merged_names_what_does_not_fit():
    net = AlexNet(5, width=0.05)
    before, merged = net.state_dict(), net.merged_state_dict()

    def error(mapping):
        with pytest.raises(RuntimeError) as caught:
            net.load_merged_state_dict(mapping)
        return str(caught.value)

    assert error({**merged, "conv2.weight": np.zeros((7, 2, 5, 5))}) == (
        "AlexNet: conv2.weight must split evenly in 2 towers, got (7, 2, 5, 5)"
    )
    text = error({**merged, "conv9.weight": np.zeros(3), "fc8.bias": np.zeros(4), "conv3.bias": np.zeros(2)})
    assert 'Unexpected key(s) in state_dict: "conv9.weight".' in text
    assert "size mismatch for fc8.bias: copying a param with shape (4,) from checkpoint" in text
    assert "size mismatch for tower0.conv3.bias" in text and "size mismatch for tower1.conv3.bias" in text
    del merged["fc6.weight"]
    assert 'Missing key(s) in state_dict: "tower0.fc6.weight", "tower1.fc6.weight".' in error(merged)
    for key, values in net.state_dict().items():
        np.testing.assert_array_equal(values, before[key], key)


# ----------------------------------------------------------------------------------- two towers against one merged network


def merged_forward(p, x, profile, masks):
    """The whole network on one device: groups=2 where the towers keep to themselves. `p` are its parameters by name.

    masks : of fc6's and fc7's units, already scaled; or two numbers.
    """

    def conv(x, name, **settings):
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], **settings)

    def norm(x):
        half = x.shape[1] // 2
        parts = [x] if profile.norm_across_towers else [x[:, :half], x[:, half:]]
        return F.cat([F.local_response_norm(part, 5, 1e-4, 0.75, profile.k) for part in parts], 1)

    x = conv(F.pad(x, (0, 227 - x.shape[3], 0, 227 - x.shape[2])), "conv1", stride=4)
    if profile.pool_first:
        x = norm(F.max_pool2d(F.relu(x), 3, 2))
        x = norm(F.max_pool2d(F.relu(conv(x, "conv2", padding=2, groups=2)), 3, 2))
    else:
        x = F.relu(F.max_pool2d(norm(x), 3, 2)) if profile.norm_first else F.max_pool2d(norm(F.relu(x)), 3, 2)
        x = norm(F.relu(conv(x, "conv2", padding=2, groups=2)))
        if profile.same_map_norm:
            x = x * (1 + 0.001 * F.avg_pool2d(x * x, 5, 1, 2)) ** -0.75
        x = F.max_pool2d(x, 3, 2)
    x = F.relu(conv(x, "conv3", padding=1))
    x = F.relu(conv(x, "conv4", padding=1, groups=2))
    x = F.max_pool2d(F.relu(conv(x, "conv5", padding=1, groups=2)), 3, 2)
    x = F.relu(F.linear(F.flatten(x, 1), p["fc6.weight"], p["fc6.bias"])) * masks[0]
    x = F.relu(F.linear(x, p["fc7.weight"], p["fc7.bias"])) * masks[1]
    return F.linear(x, p["fc8.weight"], p["fc8.bias"])


def dropout_masks(seed, n, units, scale):
    """What the towers draw: tower 0's mask of fc6, tower 1's, then fc7's."""
    generator = Generator(seed)
    return [Tensor(np.concatenate([generator.bernoulli(0.5, (n, units)) for _ in range(2)], 1) * scale) for _ in ("fc6", "fc7")]


def run(net, x, labels, seed=7):
    """Scores, and the gradient of the loss for the images and every parameter, merged."""
    minidl.manual_seed(seed)
    net.zero_grad()
    x = Tensor(x, requires_grad=True)
    scores = net(x)
    F.cross_entropy(scores, labels).backward()
    gradients = {
        f"{name}.{kind}": np.concatenate([getattr(part, kind).grad.data for part in net._parts(name)])
        for name in LAYERS
        for kind in ("weight", "bias")
    }
    return scores.detach().numpy(), {"images": x.grad.data, **gradients}


def pixels(rng, n, size, dtype=np.float64):
    return (rng.standard_normal((n, 3, size, size)) * 50).astype(dtype)


# float64 keeps 16 digits. Both networks do the same sums, in another order: up to 9075 terms (conv1's weight gradient, 3 images
# of 55 x 55), whose rounding errors add up like a random walk to 1.1e-16 * sqrt(9075) = 1e-14 of the largest element at each of
# eight layers, forward and backward. 1e-12 leaves a factor of ten, and a missing channel of a window changes 1e-5 and more.
RELATIVE = 1e-12


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("profile", PROFILES)
def test_two_towers_are_the_merged_network(profile, mode, rng):
    net = AlexNet(10, width=0.125, profile=profile).double().train(mode == "train")
    settings, labels = net.profile, np.array([3, 8, 3])
    x = pixels(rng, len(labels), settings.image_size)
    scores, gradients = run(net, x, labels)

    p = {name: Tensor(values, requires_grad=True) for name, values in net.merged_state_dict().items()}
    x_merged = Tensor(x, requires_grad=True)
    trains = settings.dropout_scale_at == "train"
    masks = [1.0 if trains else 0.5] * 2
    if mode == "train":
        masks = dropout_masks(7, len(labels), 256, 2.0 if trains else 1.0)
    merged_scores = merged_forward(p, x_merged, settings, masks)
    F.cross_entropy(merged_scores, labels).backward()

    np.testing.assert_allclose(scores, merged_scores.data, rtol=0, atol=RELATIVE * np.abs(scores).max())
    assert gradients.keys() == {"images", *p}
    for name, gradient in gradients.items():
        expected = (x_merged if name == "images" else p[name]).grad.data
        largest = np.abs(expected).max()
        assert largest > 0, f"{name}: nothing flows"
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=RELATIVE * largest, err_msg=name)


@pytest.mark.parametrize("profile", PROFILES)
def test_one_device_or_two_give_equal_bits(profile, rng):
    labels = np.array([1, 4])
    x = pixels(rng, 2, PROFILES[profile].image_size, np.float32)
    results = []
    for devices in ("cpu:0", "cpu:1", ("cpu:0", "cpu:1"), ["cpu:3", "cpu:2"], ("cpu:1", "cpu:1")):
        minidl.manual_seed(0)
        results.append(run(AlexNet(5, devices, profile, 0.125), x, labels))
    for scores, gradients in results[1:]:
        np.testing.assert_array_equal(scores, results[0][0])
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(gradient, results[0][1][name], name)


def test_caffe_with_one_channel_in_each_tower():
    """The other tower then has fewer channels than the window reaches for."""
    net = AlexNet(5, width=0.02, profile="caffe").double().eval()
    assert net.tower0.conv1.out_channels == 1
    p = {name: Tensor(values) for name, values in net.merged_state_dict().items()}
    x = pixels(np.random.default_rng(0), 1, 227)
    expected = merged_forward(p, Tensor(x), net.profile, [1.0, 1.0]).numpy()
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gradient_flows_to_every_parameter(variant, profile, rng):
    net = AlexNet(10, width=0.1, variant=variant, profile=profile)
    F.cross_entropy(net(pixels(rng, 2, net.profile.image_size, np.float32)), np.array([0, 9])).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and np.isfinite(p.grad).all() and np.abs(p.grad).max() > 0, name


def test_images_as_array_tensor_or_a_tensor_for_each_tower(rng):
    net = AlexNet(5, width=0.05).eval()
    x = pixels(rng, 2, 224, np.float32)
    expected = net(x).detach().numpy()
    for images in (Tensor(x), [Tensor(x, device="cpu:0"), Tensor(x, device="cpu:1")], x.astype(np.float64)):
        np.testing.assert_array_equal(net(images).detach().numpy(), expected)


@pytest.mark.parametrize("profile", PROFILES)
def test_224_pixels_are_227_with_three_zero_pixels_at_the_right_and_bottom(profile, rng):
    net = AlexNet(5, width=0.1, profile=profile).eval()
    x = pixels(rng, 2, 224, np.float32)
    wider = zeros(2, 227)
    wider[:, :, :224, :224] = x
    scores = net(x).detach().numpy()
    np.testing.assert_array_equal(scores, net(wider).detach().numpy())
    shifted = zeros(2, 227)
    shifted[:, :, 3:, 3:] = x
    assert not np.array_equal(scores, net(shifted).detach().numpy())


# -------------------------------------------------------------------------------------------------------------- traffic


def forward_and_backward(net, n, size=224):
    with count_traffic() as forward:
        total = net(zeros(n, size)).sum()
    with count_traffic() as backward:
        total.backward()
    net.zero_grad()
    return dict(forward), dict(backward)


@pytest.mark.parametrize("n", [1, 2])
def test_traffic_between_the_towers(full, n):
    forward, backward = forward_and_backward(full(), n)
    assert forward == {A_TO_B: 113_152 * n, B_TO_A: 121_344 * n}
    assert backward == {A_TO_B: 121_344 * n, B_TO_A: 113_152 * n}
    assert sum(forward.values()) == sum(backward.values()) == 234_496 * n


def test_no_traffic_on_one_device():
    assert forward_and_backward(AlexNet(5, "cpu:1", width=0.05), 2) == ({}, {})
    assert forward_and_backward(AlexNet(5, width=0.05, variant="half"), 2) == ({}, {})


def test_traffic_without_communication_is_fc8s_input_alone(full):
    assert forward_and_backward(full("no_communication"), 2) == ({B_TO_A: 4096 * 4 * 2}, {A_TO_B: 4096 * 4 * 2})


def test_traffic_of_norms_across_towers_is_two_more_channels_each_way(full):
    forward, backward = forward_and_backward(full(profile="caffe"), 1, 227)
    channels = 2 * (55 * 55 + 27 * 27) * 4
    assert forward == {A_TO_B: 113_152 + channels, B_TO_A: 121_344 + channels}
    assert backward == {A_TO_B: 121_344 + channels, B_TO_A: 113_152 + channels}


# ---------------------------------------------------------------------------------------------------------- layer orders


def plain_norm(x, k):
    """Over 5 channels of (N, C, H, W), one output at a time."""
    y = np.empty_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        window = x[n, max(c - 2, 0) : c + 3, i, j]
        y[n, c, i, j] = x[n, c, i, j] / (k + 1e-4 / 5 * (window**2).sum()) ** 0.75
    return y


def plain_pool(x):
    """3 x 3, stride 2, a last window that hangs over the end."""
    side = math.ceil((x.shape[2] - 3) / 2) + 1
    y = np.empty((*x.shape[:2], side, side))
    for i, j in itertools.product(range(side), repeat=2):
        y[:, :, i, j] = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(2, 3))
    return y


@pytest.mark.parametrize(("profile", "k"), [("paper", 2.0), ("original", 2.0), ("caffe", 1.0)])
def test_order_of_layer_1(profile, k, rng):
    tower = AlexNet(5, width=0.15, profile=profile).double().tower0
    x = Tensor(pixels(rng, 2, 31))
    y = tower.layer1_after_norm(tower.norm1(tower.layer1_before_norm(x))).detach().numpy()
    convolved = F.conv2d(x, tower.conv1.weight, tower.conv1.bias, 4).detach().numpy()
    assert (convolved < 0).any() and convolved.shape[1] == 7
    if profile == "original":
        expected = np.maximum(plain_pool(plain_norm(convolved, k)), 0)
    else:
        expected = plain_pool(plain_norm(np.maximum(convolved, 0), k))
    # a few roundings for each element, and d^-3/4 by two square roots
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_same_map_norm_is_a_sum_over_25_pixels(rng):
    x = pixels(rng, 2, 7)
    expected = np.empty_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        window = x[n, c, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
        expected[n, c, i, j] = x[n, c, i, j] / (1 + 0.001 / 25 * (window**2).sum()) ** 0.75
    np.testing.assert_allclose(same_map_norm(Tensor(x)).numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("profile", PROFILES)
def test_order_of_layer_2(profile, rng):
    """relu, norm, then the second norm in config 145 alone, then the pool; CaffeNet has the pool before the norm."""
    tower = AlexNet(5, width=0.06, profile=profile).double().tower0
    x = Tensor(np.abs(rng.standard_normal((1, 3, 9, 9))) * 300)
    y = tower.layer2_after_norm(tower.norm2(tower.layer2_before_norm(x))).detach().numpy()
    expected = np.maximum(tower.conv2(x).detach().numpy(), 0)
    if profile == "caffenet":
        np.testing.assert_allclose(y, plain_norm(plain_pool(expected), tower.norm2.k), rtol=1e-13)
        return
    expected = plain_norm(expected, tower.norm2.k)
    if profile == "original":
        expected = same_map_norm(Tensor(expected)).numpy()
    np.testing.assert_allclose(y, plain_pool(expected), rtol=1e-13)


# ------------------------------------------------------------------------------------------------------- initial weights

SIGMA_AND_BIAS = {
    "paper": ((0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), (0, 1, 0, 1, 1, 1, 1, 0)),
    "original": ((0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), (0, 1, 0, 1, 1, 1, 1, 0)),
    "caffe": ((0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01), (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)),
}
SIGMA_AND_BIAS |= {"caffenet": SIGMA_AND_BIAS["caffe"], "torchvision": SIGMA_AND_BIAS["paper"]}


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize(("width", "profile"), [(1, "paper"), (1, "original"), (1, "caffe"), (0.25, "paper")])
def test_initial_weights_are_drawn_with_the_sigma_of_the_profile(width, profile, literal, monkeypatch):
    drawn = {}
    for layer in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    monkeypatch.setattr(nn.init, "normal_", lambda tensor, mean, std: drawn.update({tensor: (mean, std)}))
    net = AlexNet(profile=profile, width=width, literal_init=literal)
    sigmas, biases = SIGMA_AND_BIAS[profile]
    for name, sigma, bias in zip(LAYERS, sigmas, biases, strict=True):
        sigma = 0.01 if literal else sigma
        scaled = sigma * (2 if width == 0.25 and name != "conv1" else 1)
        for part in net._parts(name):
            assert drawn[part.weight] == (0.0, scaled), name
            assert (part.bias.data == np.float32(bias)).all(), name


@pytest.mark.parametrize("profile", PROFILES)
def test_initial_weights_have_that_sigma(profile):
    net = AlexNet(100, width=0.25, profile=profile)
    for name, sigma in zip(LAYERS, SIGMA_AND_BIAS[profile][0], strict=True):
        sigma *= 1 if name == "conv1" else 2
        for part in net._parts(name):
            w = part.weight.data.astype(np.float64)
            # the standard error of a sample's mean is sigma / sqrt(n), of its standard deviation sigma / sqrt(2n)
            assert abs(w.mean()) < 5 * sigma / math.sqrt(w.size), name
            assert abs(w.std() - sigma) < 5 * sigma / math.sqrt(2 * w.size), name
    for name in LAYERS[:-1]:
        a, b = (part.weight.data for part in net._parts(name))
        assert not np.array_equal(a, b), f"{name}: both towers start equal"


def test_the_seed_decides_the_weights():
    def built(seed):
        minidl.manual_seed(seed)
        return AlexNet(5, width=0.05).merged_state_dict()

    a, again, other = built(3), built(3), built(4)
    for name in a:
        np.testing.assert_array_equal(a[name], again[name])
    assert not np.array_equal(a["fc7.weight"], other["fc7.weight"])


def test_parameter_groups():
    net = AlexNet(5, width=0.05)
    weights, biases = net.parameter_groups(0.01, 0.0005)
    assert (weights["lr"], weights["weight_decay"]) == (0.01, 0.0005)
    assert (biases["lr"], biases["weight_decay"]) == (0.02, 0.0)
    assert {p.ndim for p in weights["params"]} == {2, 4} and {p.ndim for p in biases["params"]} == {1}
    assert {*weights["params"], *biases["params"]} == set(net.parameters())
    assert len(weights["params"]) == len(biases["params"]) == 15


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("shape", [(1, 3, 200, 200), (1, 1, 224, 224), (3, 224, 224), (1, 3, 224, 227)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError) as caught:
        AlexNet(5, width=0.05)(np.zeros(shape, np.float32))
    assert str(caught.value) == f"AlexNet: images must be (N, 3, 224, 224) or (N, 3, 227, 227), got {shape}"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"devices": ["cpu:0", "cpu:1", "cpu:2"]}, "AlexNet: 1 or 2 devices are needed, got 3"),
        ({"devices": []}, "AlexNet: 1 or 2 devices are needed, got 0"),
        (
            {"width": 0.001},
            "AlexNet: width must leave every layer at least 1 channel, got 0.001 (48 channels become 0)",
        ),
        ({"profile": "vgg"}, "AlexNet: profile must be one of paper, original, caffe, caffenet, torchvision, got 'vgg'"),
        (
            {"variant": "third"},
            "AlexNet: variant must be one of two_towers, half, ungrouped, non_overlapping, no_communication, torchvision, "
            "got 'third'",
        ),
        ({"num_classes": 0}, "AlexNet: num_classes must be at least 1, got 0"),
    ],
)
def test_errors_of_the_constructor(settings, text):
    with pytest.raises(ValueError) as caught:
        AlexNet(**{"num_classes": 5, "width": 0.05, **settings})
    assert str(caught.value) == text


def test_a_batch_for_each_tower():
    with pytest.raises(ValueError) as caught:
        AlexNet(5, width=0.05)([Tensor(zeros(1))])
    assert str(caught.value) == "AlexNet: one batch for each of 2 towers is needed, got 1"


def test_a_profile_and_a_variant_of_ones_own():
    net = AlexNet(5, width=0.05, profile=replace(PROFILES["paper"], k=3.0), variant=replace(VARIANTS["half"], units=1000))
    assert net.tower0.norm1.k == 3.0 and net.tower0.fc7.out_features == 50 and len(net.towers) == 1


def test_devices_by_name_or_object():
    assert [str(d) for d in AlexNet(5, minidl.Device("cpu:2"), width=0.05).devices] == ["cpu:2"]
    net = AlexNet(5, ["cpu:1", minidl.Device("cpu:0")], width=0.05)
    assert {str(p.device) for p in net.tower0.parameters()} == {"cpu:1"} == {str(net.fc8.bias.device)}
    assert {str(p.device) for p in net.tower1.parameters()} == {"cpu:0"}


def test_the_docstrings_numbers(full):
    assert f"{sum(forward_and_backward(full(), 1)[0].values()):,} bytes" in alexnet.__doc__


@pytest.mark.parametrize(("variant", "expected"), [("torchvision", 1.0), ("ungrouped", 0.0)])
def test_where_dropout_stands(variant, expected):
    """Where all is dropped before fc6, its bias of 1 is left; after it, nothing."""
    tower = AlexNet(5, "cpu:0", variant=variant, profile="torchvision", width=0.02).tower0
    for layer in (tower.drop6, tower.drop7):
        layer.p = 1.0
    x = Tensor(np.ones((1, tower.fc6.in_features), np.float32))
    for y in (tower.layer6(x), tower.layer7(tower.layer6(x))):
        np.testing.assert_array_equal(y.detach().numpy(), expected)


def test_images_of_the_torchvision_variant():
    net = AlexNet(5, "cpu:0", variant="torchvision", width=0.02)
    assert net.profile is PROFILES["torchvision"] and net(zeros(1, 63)).shape == (1, 5)
    with pytest.raises(
        ValueError, match=r"AlexNet: images must be \(N, 3, H, W\) with sides of at least 63, got \(1, 3, 62, 62\)"
    ):
        net(zeros(1, 62))
