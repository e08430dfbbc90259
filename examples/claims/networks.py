"""The networks of the experiments, by name: the 2012 program's files, and the narrow AlexNet.

Each comes with the optimizer's groups. What the settings change is changed here, so a run's net is made in one place.
"""

from pathlib import Path
from typing import Any, NamedTuple

from settings import Settings

import minidl
from minidl import cfg, nn

HERE = Path(__file__).parent
CIFAR, ALEXNET = HERE.parent / "cifar", HERE.parent / "alexnet"

PUBLISHED = ("80sec", "19pct", "18pct", "13pct", "11pct")  # cuda-convnet's nets, from examples/cifar


class Net(NamedTuple):
    """A network that gives scores before softmax, and the optimizer's groups, each with its `lr`."""

    module: nn.Module
    groups: list[dict[str, Any]]


def files_of(name: str) -> tuple[Path, Path]:
    """The layer file and the parameter file of a net."""
    folder = CIFAR if name in PUBLISHED else HERE / "nets"
    return folder / f"layers-{name}.cfg", folder / f"params-{name}.cfg"


def build(settings: Settings, seed: int, image_size: int, classes: int) -> Net:
    """The net with its initial weights, which follow from the seed.

    image_size : of the whole images; the net is made for settings.crop if that is given
    """
    minidl.manual_seed(seed)
    net = cfg.read(*files_of(settings.net), overrides=dict(settings.changes), image_size=settings.crop or image_size)
    groups = net.groups()
    for group in groups:
        group["lr"] *= settings.rate
    return Net(net.module, groups)


_COST = {"18pct": 1.3, "13pct": 2.0, "11pct": 2.4}  # of an image of 32 x 32, where 80sec is 1; only for the time that is left


def cost(settings: Settings) -> float:
    """About how long an image takes in training, where one of 80sec's takes 1."""
    return _COST.get(settings.net, 1.0) * ((settings.crop or 32) / 32) ** 2
