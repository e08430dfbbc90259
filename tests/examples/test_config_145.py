"""Config 145, read from its file, is AlexNet(profile="original")."""

from pathlib import Path

import numpy as np
import pytest
from model import LAYERS, PROFILES, AlexNet

import minidl.cfg
from minidl.nn import init
from minidl.random import Generator

ALEXNET = Path(__file__).parents[2] / "examples" / "alexnet"
WIDTH = 0.125  # where the full net takes too long

# AlexNet's layers in the file, which adds the tower's letter
OWN = {**{f"conv{i}": f"conv{i}" for i in range(1, 6)}, "fc6": "fc2048", "fc7": "fc2048b"}
SEE_BOTH = ("conv3", "fc6", "fc7", "fc8")


def narrowed(width):
    """Overrides that scale the channels and units of the file as AlexNet's `width` does."""
    c1, c2, c3, c4, c5, units = (round(n * width) for n in (48, 128, 192, 192, 128, 2048))
    changes = {}
    for tower in "ab":
        changes |= {f"{name}1{tower}": {"channels": c1} for name in ("rnorm", "pool")}
        changes |= {f"{name}2{tower}": {"channels": c2} for name in ("rnorm", "cnorm", "pool")}
        changes |= {f"fc2048{tower}": {"outputs": units}, f"fc2048b{tower}": {"outputs": units}}
        changes[f"conv1{tower}"] = {"filters": c1}
        changes[f"conv2{tower}"] = {"channels": c1, "filters": c2}
        changes[f"conv3{tower}"] = {"channels": f"{c2},{c2}", "filters": f"{c3},{c3}"}
        changes[f"conv4{tower}"] = {"channels": c3, "filters": c4}
        changes[f"conv5{tower}"] = {"channels": c4, "filters": c5}
        changes[f"pool3{tower}"] = {"channels": c5}
    return changes


def read(width=1.0, **settings):
    overrides = narrowed(width) if width != 1 else {}
    return minidl.cfg.read(
        ALEXNET / "layers-145.cfg", ALEXNET / "params-145.cfg", image_size=224, overrides=overrides, **settings
    )


def in_the_files_names(arrays):
    """{AlexNet's name: array} -> {the file's name: array}. A weight that sees both towers is cut between its two inputs."""
    found = {}
    for key, values in arrays.items():
        tower, _, rest = key.rpartition("tower")[2].partition(".") if key.startswith("tower") else ("0", "", key)
        name, kind = rest.split(".")
        own = "fc1000" if name == "fc8" else OWN[name] + "ab"[int(tower)]
        if kind == "weight" and name in SEE_BOTH:
            halves = np.split(values, 2, axis=1)
            swapped = own == "fc2048bb"  # it reads hs1b,hs1a
            found |= {f"{own}.weight{i}": half for i, half in enumerate(halves[::-1] if swapped else halves)}
        else:
            found[f"{own}.{kind}"] = values
    return found


def assert_close(got, wanted, tolerance):
    """Differences are of the rounding of sums, so they are measured against the largest element."""
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.fixture
def quick_values(monkeypatch):
    """61 million random numbers take seconds; others that are no two alike in a filter do."""

    def fill(tensor, mean=0.0, std=0.01):
        some = Generator(tensor.numel()).normal((65537,), np.float32) * std  # a prime
        return init.copy_(tensor, np.resize(some, tensor.shape))

    monkeypatch.setattr(init, "normal_", fill)
    monkeypatch.setattr(init, "kaiming_uniform_", lambda tensor, a: fill(tensor))
    monkeypatch.setattr(init, "uniform_", lambda tensor, a, b: tensor)


def test_initial_values_and_rates_are_the_profiles():
    """Deviations of at least 1152 numbers: theirs is below 1 / sqrt(2 * 1152) = 2.1 % of it, of which 5 are allowed."""
    net, profile = read(WIDTH), PROFILES["original"]
    for name, sigma, bias in zip(LAYERS, profile.sigma, profile.bias, strict=True):
        for layer in ["fc1000"] if name == "fc8" else [OWN[name] + tower for tower in "ab"]:
            *weights, biases = (p.detach().numpy() for p in getattr(net.module, layer).parameters())
            assert len(weights) == (2 if name in SEE_BOTH else 1)
            assert all(abs(weight.std() / sigma - 1) < 0.1 for weight in weights), layer
            assert np.array_equal(biases, np.full(biases.shape, bias)), layer
    settings = {(g["lr"], g["momentum"], g["weight_decay"], g["params"][0].ndim > 1) for g in net.groups()}
    assert settings == {(0.01, 0.9, 0.0005, True), (0.02, 0.9, 0.0, False)}


def test_scores_and_every_gradient_are_alexnets():
    """In training, with the same masks. Sums of at most some thousand products, through eight layers: 1e-12 leaves room."""
    net, alexnet = read(WIDTH), AlexNet(profile="original", width=WIDTH)
    net.module.double()
    alexnet.double()
    net.module.load_state_dict(in_the_files_names(alexnet.state_dict()))
    images, labels = Generator(1).normal((2, 3, 224, 224), np.float64) * 50, np.array([1, 998])
    scores, gradients = [], []
    for model in (net.module, alexnet):
        minidl.manual_seed(3)
        y = model(images)
        net.loss(y, labels).backward()
        scores.append(y.detach().numpy())
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
    assert_close(scores[0], scores[1], 1e-12)
    wanted = in_the_files_names(gradients[1])
    assert gradients[0].keys() == wanted.keys()
    for name, got in gradients[0].items():
        assert_close(got, wanted[name], 1e-12)


def test_the_full_nets_scores_are_alexnets(quick_values):
    """In float32: sums of up to 9216 products, of which as many roundings of 6e-8 are random, through eight layers."""
    net, alexnet = read(), AlexNet(profile="original")
    assert sum(p.numel() for p in net.module.parameters()) == 60_965_224
    net.module.load_state_dict(in_the_files_names(alexnet.state_dict()))
    images = Generator(1).normal((1, 3, 224, 224), np.float32) * 50
    with minidl.no_grad(), minidl.count_traffic() as traffic:
        got = net.module.eval()(images).numpy()
    assert traffic == {("cpu:0", "cpu:1"): 113_152, ("cpu:1", "cpu:0"): 121_344}  # alexnet's, and the paper's arrows
    assert_close(got, alexnet.eval()(images).detach().numpy(), 1e-4)
    assert net.topk == 5
