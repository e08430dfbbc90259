"""The files of examples/cifar are the nets that cuda-convnet published, by the numbers of their table."""

from pathlib import Path

import numpy as np
import pytest

import minidl.cfg

CIFAR = Path(__file__).parents[2] / "examples" / "cifar"


def read(name, **settings):
    return minidl.cfg.read(CIFAR / f"layers-{name}.cfg", CIFAR / f"params-{name}.cfg", **settings)


# name: (side of the images, parameters, {layer: shape}, {layer: sigma}, {layer: decay})
CONVS = {"conv1": (32, 32, 32), "pool1": (32, 16, 16), "conv2": (32, 16, 16), "pool2": (32, 8, 8), "conv3": (64, 8, 8)}
CONVS |= {"pool3": (64, 4, 4)}
LOCALS = {"conv1": (64, 24, 24), "pool1": (64, 12, 12), "conv2": (64, 12, 12), "pool2": (64, 6, 6), "local4": (32, 6, 6)}
SIGMA = {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}
LOCAL_SIGMA = {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc10": 0.01}
DECAY = {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004}
LOCAL_DECAY = {"conv1": 0, "conv2": 0, "local3": 0.004, "local4": 0.004}
NETS = {
    "80sec": (32, 145_578, CONVS | {"fc64": (64,)}, SIGMA | {"fc64": 0.1, "fc10": 0.1}, DECAY | {"fc64": 0.03, "fc10": 0.03}),
    "19pct": (32, 89_578, CONVS, SIGMA, DECAY | {"fc10": 3}),
    "18pct": (32, 89_578, CONVS | {"rnorm1": (32, 16, 16), "rnorm2": (32, 8, 8)}, SIGMA, DECAY | {"fc10": 1}),
    "13pct": (24, 1_116_490, LOCALS | {"local3": (32, 6, 6)}, LOCAL_SIGMA, LOCAL_DECAY | {"fc10": 0.004}),
    "11pct": (
        24,
        2_112_970,
        LOCALS | {"rnorm1": (64, 12, 12), "rnorm2": (64, 12, 12), "local3": (64, 6, 6)},
        LOCAL_SIGMA,
        LOCAL_DECAY | {"fc10": 0.01},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_table(name):
    size, parameters, shapes, sigma, decay = NETS[name]
    net = read(name, image_size=size)
    assert sum(p.numel() for p in net.module.parameters()) == parameters
    assert {layer: module.shape for layer, module in net.module.named_children()} == {**shapes, "fc10": (10,)}
    assert net.module(np.zeros((2, 3, size, size), np.float32)).shape == (2, 10)
    settings = [(group["lr"], group["momentum"], group["weight_decay"]) for group in net.groups()]
    weights = [(layer, module) for layer, module in net.module.named_children() if hasattr(module, "weight")]
    assert settings == [group for layer, _ in weights for group in ((0.001, 0.9, decay[layer]), (0.002, 0.9, 0))]
    assert sigma.keys() == dict(weights).keys()
    for layer, module in weights:
        # of n >= 640 numbers: the deviation of their deviation is 1 / sqrt(2 n) < 2.8 % of it; 5 of these
        assert abs(module.weight.detach().numpy().std() / sigma[layer] - 1) < 0.14, layer
        assert not module.bias.detach().numpy().any()


def test_the_norms():
    """18pct's are within a map, 11pct's across; what they do, tests/cfg/test_layers.py says."""
    for name, size, scale, kind in (("18pct", 3, 5e-5, "rnorm"), ("11pct", 9, 1e-3, "cmrnorm")):
        net = read(name, image_size=24 if name == "11pct" else 32)
        for norm in (net.module.rnorm1, net.module.rnorm2):
            assert (norm.type, norm.size, norm.scale, norm.pow, norm.min_div) == (kind, size, scale, 0.75, 1)


@pytest.mark.parametrize(
    "name, kinds", [("80sec", "max avg avg"), ("19pct", "max avg avg"), ("13pct", "max max"), ("11pct", "max max")]
)
def test_the_pools(name, kinds):
    net = read(name, image_size=24 if name in ("13pct", "11pct") else 32)
    pools = [module for layer, module in net.module.named_children() if layer.startswith("pool")]
    assert [(pool.pool, pool.size, pool.stride) for pool in pools] == [(kind, 3, 2) for kind in kinds.split()]
