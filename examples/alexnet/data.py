"""What the network is trained on: image folders, as they are or prepared, or the embedded patterns; the augmentation of 2012.

Every image becomes 256 x 256 (shorter side resized, centre taken), then
    in training    a random crop, a random mirror, minus the mean image, plus colour noise
    in testing     the centre crop, or ten views, minus the mean image
Source: Krizhevsky, Sutskever and Hinton, NIPS 2012, sections 2 and 4.1.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from model import Profile
from run import STATISTICS, write_whole

from minidl.data import (
    BadFileError,
    BadImageError,
    CenterCrop,
    ColorStatistics,
    Compose,
    ImageFolder,
    ImageLoader,
    InputStep,
    PackedImages,
    Patterns,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SampleKey,
    SubtractMean,
    TenCrop,
    color_statistics,
    read_image,
)
from minidl.data import hold_out as cut
from minidl.data.errors import npz_arrays
from minidl.data.packed import INDEX
from minidl.device import Device
from minidl.random import Generator

STORED_SIZE = 256
LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}  # in lower case
REPORT, UNFINISHED = "report.json", ".prepare"  # in a folder that prepare.py made: its last file; what it removes after that
PATTERNS_TRAIN, PATTERNS_HELD_OUT = 8000, 500
STATISTICS_IMAGES = 1024  # a pixel's mean over them has a standard error of 1/32 of that pixel's standard deviation
STATISTICS_STREAM = 5  # the purpose under which that sample is drawn


def open_data(folder: str | None, hold_out: float | None = None, size: int = STORED_SIZE) -> tuple[Any, Any]:
    """Training and held-out sets: `folder`/train and `folder`/val (or /test), or the embedded patterns for None.

    Each is a folder of classes, or what prepare.py made of one. Where there is no val and no test, the fraction `hold_out` of
    the images of `folder`/train is held out; or of `folder` itself, if there is no train either. Photographs
    are read, and patterns drawn, as squares of this size.

    FileNotFoundError: a folder is missing or has no image, or prepare.py has not finished there. NotADirectoryError: a file in
    its place. BadFileError: a prepared file is not what was written. ValueError: the two sets have different classes, or one
    class, or `hold_out` leaves one of them empty.
    """
    if folder is None:
        return Patterns(PATTERNS_TRAIN, True, image_size=size), Patterns(PATTERNS_HELD_OUT, False, image_size=size)
    root = Path(folder)
    check_folder(root)
    if (root / UNFINISHED).exists() and not (root / REPORT).exists():
        raise FileNotFoundError(f"{folder}: prepare.py has not finished here; the same command goes on where it stopped")
    place, names = training_folder(root), held_out_splits(root)
    whole = _open_split(place, size)
    check_names(place, whole.classes)
    if len(whole.classes) == 1:
        raise ValueError(f"{place}: has 1 class, {whole.classes[0]}: there is nothing to learn; at least 2 are needed")
    if not names and hold_out is not None:
        return cut(whole, hold_out)
    if not names:
        has = "train/ and" if place != root else "no train/ and"
        raise FileNotFoundError(
            f"{folder}: has {has} neither val/ nor test/; train.py --hold-out 0.1 holds a tenth of the images of its "
            f"{len(whole.classes)} classes out of training"
        )
    held_out = _open_split(root / names[0], size)
    check_classes(root, whole.classes, names[0], held_out.classes)
    return whole, held_out


def _open_split(folder: Path, size: int) -> ImageFolder | PackedImages:
    return PackedImages(folder) if (folder / INDEX).exists() else ImageFolder(folder, loader=partial(read_image, size=size))


def check_folder(root: Path) -> None:
    """FileNotFoundError if there is nothing, NotADirectoryError if it is a file."""
    if root.is_file():
        raise NotADirectoryError(f"{root}: must be a folder of images, got a file; an archive must be unpacked first")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: must be a folder of images, got nothing by that name")


def training_folder(root: Path) -> Path:
    """Where the training images are: `root`/train, or `root` itself if no split is there.

    FileNotFoundError: there are held-out images, and no train.
    """
    names = held_out_splits(root)
    if names and not (root / "train").is_dir():
        raise FileNotFoundError(f"Couldn't find train in {root}; training images are needed beside {names[0]}")
    return root / "train" if (root / "train").is_dir() else root


def held_out_splits(root: Path) -> list[str]:
    """Which folders of held-out images there are, the one that open_data takes first."""
    return [name for name in ("val", "test") if (root / name).is_dir()]


def check_none_held_out(folder: str | os.PathLike[str] | None, fraction: float | None) -> None:
    """ValueError if a fraction is to be held out, and held-out images are there already."""
    if fraction is not None and folder is None:
        raise ValueError("--hold-out needs a folder of images; the embedded patterns have a held-out set of their own")
    if fraction is not None and folder is not None and (there := held_out_splits(Path(folder))):
        raise ValueError(f"{folder}: has {there[0]}/ with held-out images already, got --hold-out {fraction} too")


def check_outside(folder: Path, datasets: Iterable[Any], flag: str = "--out") -> None:
    """ValueError if a folder that a run makes lies among the classes: it would be a class itself the next time."""
    for source in (getattr(part, "dataset", part) for part in datasets):
        if hasattr(source, "root") and folder.resolve().is_relative_to(Path(source.root).resolve()):
            raise ValueError(
                f"{folder}: a run folder must lie outside {source.root}, whose folders are classes; give another {flag}"
            )


def check_names(root: Path, classes: list[str]) -> None:
    """ValueError if the classes are called as splits are."""
    if all(name.lower() in LIKE_SPLITS for name in classes):
        raise ValueError(f"{root}: {listed(classes)} look like splits, not like classes; call them train and val")


def check_classes(root: Path, train: list[str], name: str, held_out: list[str]) -> None:
    """ValueError if they differ."""
    if train != held_out:
        odd = sorted(set(train) ^ set(held_out))
        raise ValueError(f"{root}: train and {name} must have the same classes, only one has {listed(odd)}")


def other_classes(trained: list[str], got: list[str]) -> str:
    """What differs between the classes that a run was trained on and those of the data."""
    came, went = ([name for name in these if name not in set(those)] for these, those in ((got, trained), (trained, got)))
    differ = [f"{verb} {listed(names)}" for verb, names in (("there is now", came), ("there is no longer", went)) if names]
    return f"was trained on other classes: {', '.join(differ) or 'their order is another'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def left_out(folder: Path, datasets: Iterable[Any]) -> str | None:
    """Which hidden and system names below `folder` are no part of the data sets, in one line; None if there are none."""
    names, count = [], 0
    for source in {id(source): source for source in (getattr(part, "dataset", part) for part in datasets)}.values():
        if hasattr(source, "left_out"):
            names += [os.path.join(source.root, name).removeprefix(os.path.join(folder, "")) for name in source.left_out.first]
            count += source.left_out.total
    some = ", ".join(names[:3]) + (", ..." if count > 3 else "")
    return f"{count} hidden or system name{'s' * (count > 1)} left out: {some}" if count else None


def to_stored(size: int) -> Compose:
    """What an image becomes before it is cropped: a square of this side, from its centre."""
    return Compose([Resize(size), CenterCrop(size)])


def measure(dataset: Any, on_error: str, size: int = STORED_SIZE) -> ColorStatistics:
    """The mean image and colour components of a training set, of images of this size.

    Of all images where prepare.py has summed them at it; not of a part of them, since the sums have the held-out
    images too. Else of up to 1024 images; unreadable ones don't count with "skip".
    """
    if hasattr(dataset, "root") and (Path(dataset.root).parent / STATISTICS).exists():
        prepared = load_statistics(Path(dataset.root).parent / STATISTICS)
        if prepared.mean.shape == (size, size, 3):
            return prepared

    def images() -> Iterator[np.ndarray]:
        for index in Generator(0, STATISTICS_STREAM).permutation(len(dataset))[:STATISTICS_IMAGES].tolist():
            try:
                image, _ = dataset[index]
            except BadImageError:
                if on_error == "stop":
                    raise
                continue
            yield to_stored(size)(image, SampleKey(0, 0, index, index))

    return color_statistics(images())


def mean_of(profile: Profile, statistics: ColorStatistics) -> np.ndarray:
    """What is subtracted from the images, (H, W, 3): the mean image of the training set, or the profile's colour."""
    if profile.mean_color is None:
        return statistics.mean
    return np.broadcast_to(np.array(profile.mean_color, np.float32), statistics.mean.shape)


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
    devices: Sequence[Device] = (),
    reading: Path | None = None,
    ranks: int = 1,
    rank: int = 0,
) -> ImageLoader[Any]:
    """Augmented batches in an order keyed by (seed, epoch). Where the crop is the whole image, nothing is drawn.

    devices : the towers'. If they are GPUs, images are a list of Tensors, one on each; NumPy arrays otherwise.
    reading : the loader's note of what it reads, for who comes after a crash
    rank    : whose share of each batch, of so many ranks
    """
    with_noise = noise and profile.color_noise
    shared_by, mirrored = profile.crop_shared_by, profile.image_size < profile.stored_size
    step = InputStep(
        RandomCrop(profile.image_size, shared_by=shared_by),
        RandomHorizontalFlip(shared_by=shared_by) if mirrored else None,
        SubtractMean(mean_of(profile, statistics)),
        PCAColorNoise(*statistics[1:], profile.color_noise, profile.noise_divide) if with_noise else None,
    )
    gpus = [device for device in devices if device.kind == "cuda"]
    return ImageLoader(
        dataset,
        batch_size,
        shuffle=True,
        transform=to_stored(profile.stored_size),
        batch_transform=step,
        num_workers=workers,
        seed=seed,
        devices=gpus,
        pin_memory=bool(gpus),
        on_error=on_error,
        reading=reading,
        num_replicas=ranks,
        rank=rank,
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
    ranks: int = 1,
    rank: int = 0,
) -> ImageLoader[np.ndarray]:
    """The held-out set in its order: the centre crop of each image, or its four corners and centre with their mirrors."""
    crop = TenCrop(profile.image_size) if ten_views else CenterCrop(profile.image_size)
    step = InputStep(crop, mean=SubtractMean(mean_of(profile, statistics)))
    return ImageLoader(
        dataset,
        batch_size,
        transform=to_stored(profile.stored_size),
        batch_transform=step,
        num_workers=workers,
        on_error=on_error,
        num_replicas=ranks,
        rank=rank,
    )


def save_statistics(path: Path, statistics: ColorStatistics) -> None:
    """Write them beside the run, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, **statistics._asdict())
    write_whole(path, content.getvalue())


def load_statistics(path: Path) -> ColorStatistics:
    """What `save_statistics` wrote. FileNotFoundError names the file; BadFileError: it is not what was written."""
    content = path.read_bytes()
    try:
        statistics = ColorStatistics(**npz_arrays(content, ColorStatistics._fields))
        _check_statistics(statistics)
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise BadFileError(path, len(content), f"{type(error).__name__}: {error}") from error
    return statistics


def _check_statistics(statistics: ColorStatistics) -> None:
    mean, stdevs, components = statistics
    shapes = mean.ndim == 3 and mean.shape[2] == 3 and stdevs.shape == (3,) and components.shape == (3, 3)
    if not shapes or any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in statistics):
        raise ValueError(
            "mean must be (H, W, 3), stdevs (3,), components (3, 3), all finite, got "
            + ", ".join(f"{array.shape} {array.dtype}" for array in statistics)
        )
