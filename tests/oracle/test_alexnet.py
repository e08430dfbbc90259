"""The two-tower AlexNet: scores, loss, every gradient and five training steps equal those of one merged PyTorch network."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor
from minidl.optim import SGD
from minidl.random import Generator

from .compare import GRADIENT, VALUE, assert_same

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "alexnet"))

from model import LAYERS, PROFILES, VARIANTS, AlexNet

torch = pytest.importorskip("torch")
T = torch.nn.functional

# The full convolutions with few units above them, the full dense layers over few channels, and everything at a quarter.
NETS = {
    "full convolutions": {"variant": replace(VARIANTS["two_towers"], units=24)},
    "full dense layers": {"variant": replace(VARIANTS["two_towers"], channels=(4, 4, 4, 4, 4))},
    "a quarter": {"width": 0.25},
}


def scores_of(p, x, profile, masks=(0.5, 0.5)):
    """The merged network in PyTorch: groups=2 where the towers keep to themselves. p : its parameters by name."""

    def conv(x, name, **settings):
        return T.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], **settings)

    def norm(x):
        parts = [x] if profile.norm_across_towers else x.chunk(2, 1)
        return torch.cat([T.local_response_norm(part, 5, 1e-4, 0.75, profile.k) for part in parts], 1)

    x = conv(T.pad(x, (0, 227 - x.shape[3], 0, 227 - x.shape[2])), "conv1", stride=4)

    def pool_and_norm(x):
        return norm(T.max_pool2d(x, 3, 2)) if profile.pool_first else T.max_pool2d(norm(x), 3, 2)

    x = T.relu(pool_and_norm(x)) if profile.norm_first else pool_and_norm(T.relu(x))
    x = T.relu(conv(x, "conv2", padding=2, groups=2))
    if profile.same_map_norm:
        x = norm(x)
        x = T.max_pool2d(x / (1 + 0.001 * T.avg_pool2d(x * x, 5, 1, 2)) ** 0.75, 3, 2)
    else:
        x = pool_and_norm(x)
    x = T.relu(conv(x, "conv3", padding=1))
    x = T.relu(conv(x, "conv4", padding=1, groups=2))
    x = T.max_pool2d(T.relu(conv(x, "conv5", padding=1, groups=2)), 3, 2).flatten(1)
    x = T.relu(T.linear(x, p["fc6.weight"], p["fc6.bias"])) * masks[0]
    x = T.relu(T.linear(x, p["fc7.weight"], p["fc7.bias"])) * masks[1]
    return T.linear(x, p["fc8.weight"], p["fc8.bias"])


def dropout_masks(seed, n, units):
    """What the towers draw: tower 0's mask of fc6, tower 1's, then fc7's."""
    generator = Generator(seed)
    return [torch.tensor(np.concatenate([generator.bernoulli(0.5, (n, units)) for _ in range(2)], 1)) for _ in range(2)]


def merged_gradient(net, key):
    name, kind = key.split(".")
    layers = [net.fc8] if name == "fc8" else [getattr(tower, name) for tower in net.towers]
    return np.concatenate([getattr(layer, kind).grad.data for layer in layers])


def parameters_for_torch(net):
    return {key: torch.tensor(values, requires_grad=True) for key, values in net.merged_state_dict().items()}


def batch(rng, n, profile):
    """Noise with the scale of pixels minus their mean."""
    size = profile.image_size
    return rng.standard_normal((n, 3, size, size)) * 50, rng.integers(0, 10, n)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("which", NETS)
def test_scores_and_gradients(which, profile, rng):
    net = AlexNet(10, profile=profile, **NETS[which]).double().eval()
    images, labels = batch(rng, 1 if which == "full convolutions" else 3, net.profile)
    p = parameters_for_torch(net)
    x, their_x = Tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    scale = 1.0 if net.profile.dropout_scale_at == "train" else 0.5

    scores, their_scores = net(x), scores_of(p, their_x, net.profile, (scale, scale))
    assert_same("scores", scores, their_scores, VALUE)
    loss, their_loss = F.cross_entropy(scores, labels), T.cross_entropy(their_scores, torch.tensor(labels))
    assert_same("loss", loss, their_loss, VALUE)
    loss.backward()
    their_loss.backward()
    assert_same("gradient of images", x.grad, their_x.grad, GRADIENT)
    for key, parameter in p.items():
        assert float(parameter.grad.abs().max()) > 0, key
        assert_same(f"gradient of {key}", merged_gradient(net, key), parameter.grad, GRADIENT)
    assert len(p) == 2 * len(LAYERS)


@pytest.mark.parametrize("profile", PROFILES)
def test_five_training_steps(profile, rng):
    """At a constant rate the rule of 2012 takes PyTorch's steps, dropout included (given its masks)."""
    net = AlexNet(10, profile=profile, width=0.125).double()
    p = parameters_for_torch(net)
    rate, decay = 0.002, 0.0005
    ours = SGD(net.parameter_groups(rate, decay), lr=rate, momentum=0.9, rule="2012")
    groups = [
        {"params": [v for key, v in p.items() if key.endswith("weight")], "weight_decay": decay},
        {"params": [v for key, v in p.items() if key.endswith("bias")], "lr": 2 * rate},
    ]
    theirs = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    images, labels = batch(rng, 4, net.profile)
    scale = 2.0 if net.profile.dropout_scale_at == "train" else 1.0
    losses = []
    for step in range(5):
        minidl.manual_seed(step)
        loss = F.cross_entropy(net(images), labels)
        masks = [mask * scale for mask in dropout_masks(step, len(labels), 256)]
        their_loss = T.cross_entropy(scores_of(p, torch.tensor(images), net.profile, masks), torch.tensor(labels))
        assert_same(f"loss of step {step}", loss, their_loss, VALUE)
        ours.zero_grad()
        theirs.zero_grad()
        loss.backward()
        their_loss.backward()
        ours.step()
        theirs.step()
        losses.append(loss.item())
    assert len(set(losses)) == 5
    for key, values in net.merged_state_dict().items():
        assert_same(f"{key} after 5 steps", values, p[key], VALUE)
