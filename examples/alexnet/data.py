"""What the network is trained on: image folders, or the embedded patterns, with the augmentation of 2012.

Every image becomes 256 x 256 (shorter side resized, centre taken), then
    in training    a random crop, a random mirror, minus the mean image, plus colour noise
    in testing     the centre crop, or ten views, minus the mean image
Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, sections 2 and 4.1.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from model import Profile
from run import write_whole

from minidl.data import (
    CenterCrop,
    ColorStatistics,
    Compose,
    DataLoader,
    ImageFolder,
    Patterns,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SampleKey,
    SubtractMean,
    TenCrop,
    color_statistics,
)
from minidl.data.image_folder import BadImageError
from minidl.data.transforms import Transform
from minidl.random import Generator

STORED_SIZE = 256
PATTERNS_TRAIN, PATTERNS_HELD_OUT = 8000, 500
STATISTICS_IMAGES = 1024  # a pixel's mean over them has a standard error of 1/32 of that pixel's standard deviation
STATISTICS_STREAM = 5  # the purpose under which that sample is drawn


def open_data(folder: str | None) -> tuple[Any, Any]:
    """Training and held-out sets: `folder`/train and `folder`/val (or /test), or the embedded patterns for None.

    FileNotFoundError: a folder is missing or has no image. ValueError: the two sets have different classes.
    """
    if folder is None:
        return Patterns(PATTERNS_TRAIN, train=True), Patterns(PATTERNS_HELD_OUT, train=False)
    train = ImageFolder(os.path.join(folder, "train"))
    names = [name for name in ("val", "test") if os.path.isdir(os.path.join(folder, name))]
    if not names:
        raise FileNotFoundError(f"Couldn't find val or test in {folder}; held-out images are needed beside train")
    held_out = ImageFolder(os.path.join(folder, names[0]))
    if train.classes != held_out.classes:
        odd = sorted(set(train.classes) ^ set(held_out.classes))
        raise ValueError(f"{folder}: train and {names[0]} must have the same classes, only one has {', '.join(odd)}")
    return train, held_out


def measure(dataset: Any, on_error: str) -> ColorStatistics:
    """The mean image and colour components of up to 1024 training images; unreadable ones don't count with "skip"."""

    def images() -> Iterator[np.ndarray]:
        to_stored = Compose([Resize(STORED_SIZE), CenterCrop(STORED_SIZE)])
        for index in Generator(0, STATISTICS_STREAM).permutation(len(dataset))[:STATISTICS_IMAGES].tolist():
            try:
                image, _ = dataset[index]
            except BadImageError:
                if on_error == "stop":
                    raise
                continue
            yield to_stored(image, SampleKey(0, 0, index, index))

    return color_statistics(images())


def train_loader(
    dataset: Any,
    profile: Profile,
    statistics: ColorStatistics,
    *,
    noise: bool = True,
    batch_size: int,
    workers: int,
    seed: int,
    on_error: str,
) -> DataLoader:
    """Augmented batches in an order keyed by (seed, epoch)."""
    steps: list[Transform] = [
        Resize(STORED_SIZE),
        CenterCrop(STORED_SIZE),
        RandomCrop(profile.image_size, shared_by=profile.crop_shared_by),
        RandomHorizontalFlip(shared_by=profile.crop_shared_by),
        SubtractMean(statistics.mean),
    ]
    if noise and profile.color_noise:
        steps.append(PCAColorNoise(statistics.stdevs, statistics.components, profile.color_noise, profile.noise_divide))
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        transform=Compose(steps),
        num_workers=workers,
        seed=seed,
        on_error=on_error,
    )


def test_loader(
    dataset: Any,
    profile: Profile,
    statistics: ColorStatistics,
    *,
    ten_views: bool = False,
    batch_size: int,
    workers: int,
    on_error: str,
) -> DataLoader:
    """The held-out set in its order: the centre crop of each image, or its four corners and centre with their mirrors."""
    crop = TenCrop(profile.image_size) if ten_views else CenterCrop(profile.image_size)
    steps: list[Transform] = [Resize(STORED_SIZE), CenterCrop(STORED_SIZE), crop, SubtractMean(statistics.mean)]
    return DataLoader(dataset, batch_size, transform=Compose(steps), num_workers=workers, on_error=on_error)


def save_statistics(path: Path, statistics: ColorStatistics) -> None:
    """Write them beside the run, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, **statistics._asdict())
    write_whole(path, content.getvalue())


def load_statistics(path: Path) -> ColorStatistics:
    """What `save_statistics` wrote. FileNotFoundError names the file."""
    with np.load(path, allow_pickle=False) as arrays:
        return ColorStatistics(**{name: arrays[name] for name in ColorStatistics._fields})
