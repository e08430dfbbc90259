"""A network of layer files, for `train.py --layers X.cfg --params Y.cfg`: what minidl.cfg reads, with AlexNet's methods.

A run keeps copies of its files, so that it goes on and is scored wherever its folder is:

    net/layers.cfg  net/params.cfg  net/params-120.cfg     the last counts from epoch 120 on
    net-1/                                                 after --resume RUN --params ...
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from model import PROFILES, AlexNet, Profile
from run import write_whole

from minidl import Device, Tensor, cfg, nn
from minidl.cfg.layers import Conv, Layer

SMALL = 32  # the side of CIFAR-10's images; nets for crops of up to so much are trained on images of this size, not of 256
OF_THE_FILES = ("lr", "lr_drops", "momentum", "wd", "width", "variant", "literal_init")  # flags that would have no effect


class FileNet(nn.Module):
    """The layers of a file, with the methods of AlexNet that train.py and evaluate.py call.

    num_classes : of the data. ValueError if the file has another number of scores.
    profile     : how images are made: its name, for crops of image_size.
    """

    def __init__(
        self,
        layers: Path,
        params: Sequence[str | Path],
        num_classes: int,
        profile: str,
        image_size: int,
        devices: Sequence[str | Device],
    ) -> None:
        super().__init__()
        self.profile = image_profile(profile, image_size)
        self.net = cfg.read(layers, params, image_size=image_size, devices=devices)
        if self.net.cost.classes != num_classes:
            scores, classes = self.net.cost.classes, f"{num_classes} classes"
            raise ValueError(
                f"{layers} [{self.net.cost.scores}]: must give a score for each of the data's {classes}, got {scores}"
            )
        for name, layer in self.net.module.named_children():
            if hasattr(self, name):
                raise ValueError(f"{layers} [{name}]: a layer needs a name that no attribute of {type(self).__name__} has")
            self.add_module(name, layer)

    def forward(self, images: np.ndarray | Tensor | Sequence[Tensor]) -> Tensor:
        return self.net.module.forward(images)

    def loss(self, scores: Tensor, labels: np.ndarray) -> Tensor:
        return self.net.loss(scores, labels)

    @property
    def towers(self) -> list[Layer]:
        """The layers that read the images, each on a device."""
        return self.net.module.first_layers

    def first_filters(self) -> list[np.ndarray]:
        """Of each convolution of the images: (O, 3, KH, KW)."""
        return [layer.device.to_host(layer.weights[0].data) for layer in self.towers if isinstance(layer, Conv)]


def image_profile(name: str, image_size: int) -> Profile:
    """A profile of model.py for crops of this side.

    Crops of up to 32 pixels are taken from images of 32, as cuda-convnet's for CIFAR-10 were: each for itself, and without
    colour noise. A net that takes the whole image gets it as it is, not mirrored.
    """
    known = PROFILES[name]
    if image_size > known.stored_size:
        raise ValueError(
            f"--image-size must be at most {known.stored_size}, the images' side before they are cropped, got {image_size}"
        )
    if image_size > SMALL:
        return replace(known, image_size=image_size)
    return replace(
        known,
        image_size=image_size,
        stored_size=SMALL,
        crop_shared_by=1,
        color_noise=0.0,
        noise_divide=1.0,
        noise_until=1.0,
    )


def open_network(
    architecture: Mapping[str, Any], files: Path | None = None, devices: Sequence[str | Device] = ("cpu:0", "cpu:1")
) -> AlexNet | FileNet:
    """The network of a run: of the files in that folder, or AlexNet if there is none."""
    if files is None:
        return AlexNet(**architecture, devices=devices)
    return FileNet(*files_in(files), **architecture, devices=devices)


# ------------------------------------------------------------------------------------------------------------- the copies


def copy_files(folder: Path, layers: str | Path, params: Sequence[str | Path]) -> str:
    """Copy a run's files into a new folder in its own, whose name is returned."""
    number = len(list(folder.glob("net*")))
    name = f"net-{number}" if number else "net"
    (folder / name).mkdir()
    write_whole(folder / name / "layers.cfg", Path(layers).read_bytes())
    for i, entry in enumerate(params):
        epoch, _, path = os.fspath(entry).partition(":") if i else ("", "", entry)
        write_whole(folder / name / (f"params-{epoch}.cfg" if i else "params.cfg"), Path(path).read_bytes())
    return name


def files_in(folder: Path) -> tuple[Path, list[str]]:
    """The layer file in a folder of copies, and the parameter files as `minidl.cfg.read` takes them."""
    later = {int(path.stem.partition("-")[2]): path for path in folder.glob("params-*.cfg")}
    return folder / "layers.cfg", [str(folder / "params.cfg"), *(f"{epoch}:{later[epoch]}" for epoch in sorted(later))]
