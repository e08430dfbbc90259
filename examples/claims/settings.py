"""What is declared: the settings of a training run, and the claims that compare runs.

A run is known by its *identity*, a hash of everything that decides its numbers: its settings, its seed and its data. Two claims
that need the same run share it. Only declared values are hashed, and of these only what differs from the defaults: the
program may be rewritten, and a new setting may be added, without finished runs losing their names. So a default must never be
changed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Changes = Mapping[str, Mapping[str, str] | None]  # section -> key -> value; None leaves the layer out


@dataclass(frozen=True)
class Settings:
    """One training run, but for its seed.

    net          : a name in networks.py
    epochs       : passes over the training images. Batches are whole: images that fill none are left out of that epoch
    changes      : what differs from the net's files, section by section, as `minidl.cfg.read` takes `overrides`
    data         : "cifar10", "photographs" or "patterns"
    images       : so many training images, drawn by the seed; 0 for all
    crop         : side of the square that the net sees, from the image's centre; 0 for the whole image
    random_crops : in training the square lies anywhere in the image
    flips        : in training half of the images are mirrored
    color_noise  : standard deviation of the colour noise, in units of the principal components'
    ten_views    : at the end test the mean of ten views too
    drops        : the epochs at whose end all rates are divided by 10
    rate         : all rates of the net's files are multiplied by it
    rule         : of the optimizer, "2012" or "pytorch"
    until        : training ends when the running training error is at most this; 0 for never
    test_every   : epochs between two tests; the end is always tested
    batch_size   : images in a step
    """

    net: str
    epochs: int
    changes: Changes = field(default_factory=dict)
    data: str = "cifar10"
    images: int = 0
    crop: int = 0
    random_crops: bool = False
    flips: bool = False
    color_noise: float = 0.0
    ten_views: bool = False
    drops: Sequence[int] = ()
    rate: float = 1.0
    rule: str = "2012"
    until: float = 0.0
    test_every: int = 1
    batch_size: int = 128

    def declared(self) -> dict[str, Any]:
        """What differs from the defaults, and the net and the epochs, which have none. JSON can hold it."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        return {f.name: values[f.name] for f in dataclasses.fields(self) if values[f.name] != _default(f)}

    def but(self, **others: Any) -> "Settings":
        """The same settings with some others."""
        return dataclasses.replace(self, **others)


def _default(f: "dataclasses.Field[Any]") -> Any:
    """A field's default as JSON has it."""
    value = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
    return None if value is dataclasses.MISSING else json.loads(json.dumps(value))


@dataclass(frozen=True)
class Run:
    """Settings, a seed, and the fingerprint of the data; `label` is for people, and no part of the identity."""

    settings: Settings
    seed: int
    fingerprint: str
    label: str = ""

    @property
    def identity(self) -> str:
        """16 hexadecimal digits."""
        what = {"settings": self.settings.declared(), "seed": self.seed, "data": self.fingerprint}
        return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
