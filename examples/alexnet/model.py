"""The network of Krizhevsky, Sutskever and Hinton (NIPS 2012), in two towers on two devices.

Each tower holds half of the kernels. What a tower computes stays with it, except where the paper draws crossing arrows:

                 tower 0                                tower 1
    layer 1   conv 11x11/4, 48 → relu, norm, pool     the same
    layer 2   conv 5x5, 128    → relu, norm, pool     the same
                      ╲__________exchange__________╱            128 channels of 13x13, each way
    layer 3   conv 3x3, 192    → relu                 the same
    layer 4   conv 3x3, 192    → relu                 the same
    layer 5   conv 3x3, 128    → relu, pool           the same
                      ╲__________exchange__________╱            4608 units, each way
    layer 6   2048 units       → relu, dropout        the same
                      ╲__________exchange__________╱            2048 units, each way
    layer 7   2048 units       → relu, dropout        the same
                      ╲__________gather____________╱            2048 units, from tower 1 to tower 0
    layer 8   1000 scores, with the loss, on tower 0's device

    234,496 bytes an image cross forward, and as many backward.

Where the paper and the code that produced its numbers (config 145 of the released source, computerhistory/AlexNet-Source-Code)
disagree, a `Profile` decides.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

import minidl.nn.functional as F
from minidl import Device, Tensor, memory, nn
from minidl.shapes import ceil_padding

Choice = TypeVar("Choice")

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class Profile:
    """One reading of "AlexNet": the choices about which sources differ."""

    norm_first: bool  # layer 1 is conv, norm, pool, relu (the code) instead of conv, relu, norm, pool (the paper)
    same_map_norm: bool  # layer 2 is normalised a second time, over 5 x 5 pixels of each map
    norm_across_towers: bool  # the window of channels reaches into the other tower
    k: float  # of local response normalisation
    sigma: tuple[float, ...]  # of each layer's initial weights, in the order of LAYERS
    bias: tuple[float, ...]  # each layer's initial biases
    dropout_scale_at: str  # "test" as in 2012, "train" as in Caffe and PyTorch
    image_size: int  # what training crops
    crop_shared_by: int  # consecutive images that share one crop and flip
    color_noise: float  # standard deviation of the colour noise, in units of the principal components'
    noise_divide: float  # the image is divided by it after the noise
    noise_until: float  # the fraction of training after which there is no colour noise
    rate_drops: tuple[float, ...]  # fractions of training after which the learning rate is divided by 10
    stored_size: int = 256  # what all images become before they are cropped
    pool_first: bool = False  # layers 1 and 2 are conv, relu, pool, norm
    mean_color: tuple[float, float, float] | None = None  # subtracted from every pixel instead of the training set's mean image


_PAPER = Profile(
    norm_first=False,
    same_map_norm=False,
    norm_across_towers=False,
    k=2.0,
    sigma=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01),
    bias=(0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    dropout_scale_at="test",
    image_size=224,
    crop_shared_by=1,
    color_noise=0.1,
    noise_divide=1.0,
    noise_until=1.0,
    rate_drops=(0.25, 0.55, 0.85),
)

PROFILES = {
    # the text of the paper, but conv3-5 start at sigma .03 as in the code: with .01 they start with a 15 times weaker signal
    "paper": _PAPER,
    # config 145 to the letter
    "original": replace(_PAPER, norm_first=True, same_map_norm=True, crop_shared_by=32, noise_divide=1.1, noise_until=0.75),
    # Caffe's bvlc_alexnet
    "caffe": replace(
        _PAPER,
        norm_across_towers=True,
        k=1.0,
        sigma=(0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01),
        bias=(0.0, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0),
        dropout_scale_at="train",
        image_size=227,
        color_noise=0.0,
        rate_drops=(2 / 9, 4 / 9, 6 / 9, 8 / 9),
    ),
}
# Caffe's bvlc_reference_caffenet
PROFILES["caffenet"] = replace(PROFILES["caffe"], pool_first=True)
# how torchvision's weights were trained to see images: minus ImageNet's mean colour, 255 times (0.485, 0.456, 0.406)
PROFILES["torchvision"] = replace(_PAPER, dropout_scale_at="train", color_noise=0.0, mean_color=(123.675, 116.28, 103.53))


@dataclass(frozen=True)
class Variant:
    """The shape of the network: what each of its towers holds."""

    towers: int = 2
    channels: tuple[int, ...] = (48, 128, 192, 192, 128)  # of conv1-5, in each tower
    units: int = 2048  # of fc6 and fc7, in each tower
    communicates: bool = True  # conv3, fc6 and fc7 see both towers
    pool: tuple[int, int] = (3, 2)  # window and stride
    conv2_padding: int = 2
    conv5_padding: int = 1
    conv1_padding: int = 0  # with it sizes are rounded down, as in torchvision; without it up, as in 2012
    norm: bool = True
    drop_first: bool = False  # dropout stands before fc6 and fc7, not after them
    std: tuple[float, float, float] | None = None  # the images' colours are divided by 255 times this


VARIANTS = {
    "two_towers": Variant(),
    # one tower with half the kernels in conv1-4, the paper's one-GPU net (section 3.2; config 145-half)
    "half": Variant(towers=1, channels=(48, 128, 192, 192, 256), units=4096),
    # one tower where every kernel sees every channel, the net that many write-ups describe
    "ungrouped": Variant(towers=1, channels=(96, 256, 384, 384, 256), units=4096),
    # pools of 2 x 2 that do not overlap (section 3.4; config 147)
    "non_overlapping": Variant(pool=(2, 2), conv2_padding=1, conv5_padding=0),
    # towers that meet only in fc8 (config 150)
    "no_communication": Variant(channels=(48, 160, 192, 192, 128), units=4096, communicates=False),
    # torchvision's alexnet, after Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014
    "torchvision": Variant(
        towers=1,
        channels=(64, 192, 384, 256, 256),
        units=4096,
        conv1_padding=2,
        norm=False,
        drop_first=True,
        std=(0.229, 0.224, 0.225),
    ),
}


class Tower(nn.Module):
    """Half of the network: layers 1 to 7 on one device. A layer here is a method on that device's tensors.

    conv1 to conv5 have their ReLU in them, but for conv1 where the normalisation comes between.
    """

    def __init__(self, variant: Variant, profile: Profile, device: Device, width: float) -> None:
        super().__init__()
        self.device = device
        self.norm_first = profile.norm_first
        self.same_map_norm = profile.same_map_norm
        self.pool_first, self.drop_first = profile.pool_first, variant.drop_first
        c1, c2, c3, c4, c5 = (_scaled(c, width) for c in variant.channels)
        units = _scaled(variant.units, width)
        seen = variant.towers if variant.communicates else 1  # towers that conv3, fc6 and fc7 see
        first = nn.Conv2d if self.norm_first else nn.ConvReLU2d
        self.conv1 = first(3, c1, 11, stride=4, padding=variant.conv1_padding, device=device)
        self.conv2 = nn.ConvReLU2d(c1, c2, 5, padding=variant.conv2_padding, device=device)
        self.conv3 = nn.ConvReLU2d(seen * c2, c3, 3, padding=1, device=device)
        self.conv4 = nn.ConvReLU2d(c3, c4, 3, padding=1, device=device)
        self.conv5 = nn.ConvReLU2d(c4, c5, 3, padding=variant.conv5_padding, device=device)
        self.fc6 = nn.Linear(seen * c5 * 6 * 6, units, device=device)
        self.fc7 = nn.Linear(seen * units, units, device=device)
        for i in (1, 6, 7) if self.norm_first else (6, 7):
            setattr(self, f"relu{i}", nn.ReLU())
        for i in (1, 2) if variant.norm else ():
            setattr(self, f"norm{i}", nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=profile.k))
        for i in (1, 2, 5):
            setattr(self, f"pool{i}", nn.MaxPool2d(*variant.pool, ceil_mode=not variant.conv1_padding))
        if variant.conv1_padding:
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        for i in (6, 7):
            setattr(self, f"drop{i}", nn.Dropout(0.5, scale_at=profile.dropout_scale_at))

    def layer1_before_norm(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.pool1(x) if self.pool_first else x

    def layer1_after_norm(self, x: Tensor) -> Tensor:
        x = x if self.pool_first else self.pool1(x)
        return self.relu1(x) if self.norm_first else x

    def layer2_before_norm(self, x: Tensor) -> Tensor:
        x = self.conv2(x)
        return self.pool2(x) if self.pool_first else x

    def layer2_after_norm(self, x: Tensor) -> Tensor:
        x = same_map_norm(x) if self.same_map_norm else x
        return x if self.pool_first else self.pool2(x)

    def layer3(self, x: Tensor) -> Tensor:
        return self.conv3(x)

    def layer4(self, x: Tensor) -> Tensor:
        return self.conv4(x)

    def layer5(self, x: Tensor) -> Tensor:
        x = self.pool5(self.conv5(x))
        return F.flatten(self.avgpool(x) if hasattr(self, "avgpool") else x, 1)

    def layer6(self, x: Tensor) -> Tensor:
        return self.relu6(self.fc6(self.drop6(x))) if self.drop_first else self.drop6(self.relu6(self.fc6(x)))

    def layer7(self, x: Tensor) -> Tensor:
        return self.relu7(self.fc7(self.drop7(x))) if self.drop_first else self.drop7(self.relu7(self.fc7(x)))


class AlexNet(nn.Module):
    """AlexNet on one or two devices.

    num_classes : scores for each image.
    devices     : a name or two; tower i lives on the i-th, fc8 and the loss on the first. One name puts everything on it.
    profile     : "paper" (default), "original" (config 145 to the letter), "caffe", "caffenet" or "torchvision" (default of the
                  variant of that name); or a `Profile`.
    width       : scales the channels and units of every hidden layer. Initial weights are divided by sqrt(width) where
                  fewer inputs come in, so that a narrow net starts with signals as strong as the full one's.
    variant     : "two_towers" (default), "half", "ungrouped", "non_overlapping", "no_communication" or "torchvision"; or a
                  `Variant`.
    literal_init : sigma .01 in every layer, as printed in the paper; a good ablation.

    Images are (N, 3, 224, 224), to which the 2012 code's rounding rule adds 3 zero pixels at the right and bottom, or
    (N, 3, 227, 227): a NumPy array, a tensor, or a tensor for each tower. Pixels keep their 0-255 scale, minus the mean. The
    torchvision variant takes sides from 63 on.

    ValueError: unknown profile or variant, a width that leaves a layer empty, images of another shape, three devices.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        devices: str | Device | Sequence[str | Device] = ("cpu:0", "cpu:1"),
        profile: str | Profile | None = None,
        width: float = 1.0,
        *,
        variant: str | Variant = "two_towers",
        literal_init: bool = False,
    ) -> None:
        super().__init__()
        own = "torchvision" if variant == "torchvision" else "paper"
        self.profile = _named("profile", own if profile is None else profile, PROFILES, Profile)
        self.variant = _named("variant", variant, VARIANTS, Variant)
        if num_classes < 1:
            raise ValueError(f"AlexNet: num_classes must be at least 1, got {num_classes}")
        self.devices = _devices(devices)
        n = self.variant.towers
        self.tower0 = Tower(self.variant, self.profile, self.devices[0], width)
        if n == 2:
            self.tower1 = Tower(self.variant, self.profile, self.devices[-1], width)
        units = _scaled(self.variant.units, width)
        self.fc8 = nn.Linear(n * units, num_classes, device=self.devices[0])
        self._initialise(width, literal_init)

    @property
    def towers(self) -> list[Tower]:
        return [self.tower0, self.tower1] if self.variant.towers == 2 else [self.tower0]

    def _initialise(self, width: float, literal: bool) -> None:
        for name, sigma, bias in zip(LAYERS, self.profile.sigma, self.profile.bias, strict=True):
            sigma = 0.01 if literal else sigma
            fewer_inputs = 1.0 if name == "conv1" else math.sqrt(width)
            for layer in self._parts(name):
                nn.init.normal_(layer.weight, 0.0, sigma / fewer_inputs)
                nn.init.constant_(layer.bias, bias)

    def _parts(self, name: str) -> list[nn.Module]:
        """A layer's modules: one for each tower, or fc8 alone."""
        return [self.fc8] if name == "fc8" else [getattr(tower, name) for tower in self.towers]

    # --------------------------------------------------------------------------------------------------------- forward

    def forward(self, images: np.ndarray | Tensor | Sequence[Tensor]) -> Tensor:
        """Scores (N, num_classes) on the first device."""
        x = self._to_towers(images)
        if self.variant.std is not None:
            x = [
                own / Tensor(255 * np.array(self.variant.std).reshape(3, 1, 1), device=own.device, dtype=own.dtype) for own in x
            ]
        x = self._each(Tower.layer1_before_norm, x)
        x = self._each(Tower.layer1_after_norm, self._norm("norm1", x))
        x = self._each(Tower.layer2_before_norm, x)
        x = self._each(Tower.layer2_after_norm, self._norm("norm2", x))
        x = self._each(Tower.layer3, self._exchange(x))
        x = self._each(Tower.layer4, x)
        x = self._each(Tower.layer5, x)
        x = self._each(Tower.layer6, self._exchange(x))
        x = self._each(Tower.layer7, self._exchange(x))
        return self.fc8(_joined(x, self.devices[0]))

    def loss(self, scores: Tensor, labels: np.ndarray) -> Tensor:
        """The mean cross-entropy of scores (N, num_classes) and labels (N,)."""
        return F.cross_entropy(scores, labels)

    def _each(self, layer: Callable[[Tower, Tensor], Tensor], x: Sequence[Tensor]) -> list[Tensor]:
        return [layer(tower, own) for tower, own in zip(self.towers, x, strict=True)]

    def _exchange(self, x: list[Tensor]) -> list[Tensor]:
        """Every tower gets the channels of both, tower 0's first: the other's are copied to its device."""
        return [_joined(x, tower.device) for tower in self.towers] if self.variant.communicates else x

    def _norm(self, name: str, x: list[Tensor]) -> list[Tensor]:
        if not self.variant.norm:
            return x
        norms = [getattr(tower, name) for tower in self.towers]
        if len(x) == 1 or not self.profile.norm_across_towers:
            return [norm(own) for norm, own in zip(norms, x, strict=True)]
        reach = norms[0].size // 2  # the other tower's channels that a window can touch
        low, high = x
        low_and_next = F.cat([low, high[:, :reach].to(low.device)], 1)
        high_and_last = F.cat([low[:, -reach:].to(high.device), high], 1)
        return [norms[0](low_and_next)[:, : low.shape[1]], norms[1](high_and_last)[:, -high.shape[1] :]]

    def _to_towers(self, images: np.ndarray | Tensor | Sequence[Tensor]) -> list[Tensor]:
        """The batch on each tower's device, with the zero pixels that make conv1's output 55 x 55."""
        if isinstance(images, (list, tuple)):
            batches = list(images)
        elif isinstance(images, Tensor):
            batches = [images.to(tower.device) for tower in self.towers]
        else:
            host = np.asarray(images) if self.variant.conv1_padding else _with_zero_pixels(np.asarray(images))  # once for both
            batches = [Tensor(host, device=tower.device, dtype=self.fc8.weight.dtype) for tower in self.towers]
        if len(batches) != len(self.towers):
            raise ValueError(f"AlexNet: one batch for each of {len(self.towers)} towers is needed, got {len(batches)}")
        if self.variant.conv1_padding:
            for x in batches:
                if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 63:
                    raise ValueError(f"AlexNet: images must be (N, 3, H, W) with sides of at least 63, got {x.shape}")
            return batches
        for x in batches:
            _check_images(x.shape)
        more = ceil_padding(batches[0].shape[2], 11, 4)
        return [F.pad(x, (0, more, 0, more)) if more else x for x in batches]

    # ------------------------------------------------------------------------------------------------------ parameters

    def freeze(self, layers: Sequence[str]) -> None:
        """These layers are not trained. ValueError: there is no such layer, or no other is left."""
        _check_layers(layers)
        if set(layers) >= set(LAYERS):
            raise ValueError("AlexNet: at least 1 layer must be trained, got all of them frozen")
        for name in layers:
            for part in self._parts(name):
                part.requires_grad_(False)

    def parameter_groups(
        self, lr: float, weight_decay: float, scales: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """For the optimiser: weights as given; biases at twice the rate, without decay, as in 2012.

        scales : of single layers' rates, {"fc8": 10.0}; each factor has groups of its own, after those of the others
        """
        scales = scales or {}
        _check_layers(list(scales))
        groups = []
        for scale in sorted({1.0, *scales.values()}, key=lambda scale: (scale != 1.0, scale)):
            named = [
                (n, p)
                for n, p in self.named_parameters()
                if p.requires_grad
                and scales.get(n.removeprefix("tower0.").removeprefix("tower1.").partition(".")[0], 1.0) == scale
            ]
            if named:
                weights, biases = ([p for n, p in named if n.endswith(kind)] for kind in ("weight", "bias"))
                groups.append({"params": weights, "lr": scale * lr, "weight_decay": weight_decay})
                groups.append({"params": biases, "lr": scale * 2 * lr, "weight_decay": 0.0})
        return groups

    def first_filters(self) -> list[np.ndarray]:
        """conv1's filters (O, 3, 11, 11), tower by tower."""
        return [_host(tower.conv1.weight) for tower in self.towers]

    def merged_state_dict(self) -> dict[str, np.ndarray]:
        """The parameters as a one-device grouped net's: "conv1.weight" (96, 3, 11, 11), ..., tower 0's channels first.

        That net has groups=2 in conv2, conv4 and conv5, and normalises each half of the channels by itself.
        """
        return {
            f"{name}.{kind}": np.concatenate([_host(getattr(part, kind)) for part in self._parts(name)])
            for name in LAYERS
            for kind in ("weight", "bias")
        }

    def load_merged_state_dict(self, mapping: Mapping[str, np.ndarray]) -> None:
        """The inverse: each parameter is cut between the towers. RuntimeError names every key that doesn't fit."""
        own = {}
        for key, values in mapping.items():
            name, _, kind = key.rpartition(".")
            if name not in LAYERS or name == "fc8":
                own[key] = values
                continue
            if len(values) % len(self.towers):
                raise RuntimeError(f"AlexNet: {key} must split evenly in {len(self.towers)} towers, got {values.shape}")
            for i, part in enumerate(np.split(np.asarray(values), len(self.towers))):
                own[f"tower{i}.{name}.{kind}"] = part
        self.load_state_dict(own)


def _check_layers(names: Sequence[str]) -> None:
    for name in names:
        if name not in LAYERS:
            raise ValueError(f"AlexNet: a layer must be one of {', '.join(LAYERS)}, got {name!r}")


def same_map_norm(x: Tensor) -> Tensor:
    """Config 145's cnorm2: x / (1 + .001/25 * sum of x^2 over 5 x 5 pixels of the same map)^.75, zeros outside."""
    return x * (1 + 0.001 * F.avg_pool2d(x * x, 5, 1, 2)) ** -0.75


def _check_images(shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or shape[1:] not in ((3, 224, 224), (3, 227, 227)):
        raise ValueError(f"AlexNet: images must be (N, 3, 224, 224) or (N, 3, 227, 227), got {shape}")


def _with_zero_pixels(images: np.ndarray) -> np.ndarray:
    """Images on the host with the zero pixels at the right and bottom that conv1 needs, then in channels-last memory."""
    _check_images(images.shape)
    n, channels, height, width = images.shape
    more = ceil_padding(height, 11, 4)
    if not more:
        return images
    padded = memory.empty((n, height + more, width + more, channels), images.dtype)
    padded[:, :height, :width] = images.transpose(0, 2, 3, 1)
    padded[:, height:] = 0
    padded[:, :, width:] = 0
    return padded.transpose(0, 3, 1, 2)


def _joined(x: Sequence[Tensor], device: Device) -> Tensor:
    """Tower 0's channels, then tower 1's, on one device."""
    return F.cat([part.to(device) for part in x], 1) if len(x) > 1 else x[0]


def _scaled(n: int, width: float) -> int:
    scaled = round(n * width)
    if scaled < 1:
        raise ValueError(f"AlexNet: width must leave every layer at least 1 channel, got {width} ({n} channels become 0)")
    return scaled


def _devices(devices: str | Device | Sequence[str | Device]) -> list[Device]:
    names = [devices] if isinstance(devices, (str, Device)) else list(devices)
    if len(names) not in (1, 2):
        raise ValueError(f"AlexNet: 1 or 2 devices are needed, got {len(names)}")
    return [Device(name) for name in names]


def _named(what: str, value: str | Choice, known: Mapping[str, Choice], kind: type[Choice]) -> Choice:
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"AlexNet: {what} must be one of {', '.join(known)}, got {value!r}")
    return known[value]


def _host(parameter: Tensor) -> np.ndarray:
    return np.ascontiguousarray(parameter.device.to_host(parameter.data))
