"""Folders of small images, for the tests of the example."""

from pathlib import Path

import numpy as np

ALEXNET = Path(__file__).parents[2] / "examples" / "alexnet"

CLASSES = ("cat", "dog")
TRAIN_IMAGES, HELD_OUT_IMAGES = 10, 4  # of each set, both classes together


def save_image(path: Path, seed: int) -> None:
    """A small image of smooth noise; no two alike."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    Image.fromarray(coarse).resize((70, 60), Image.Resampling.BICUBIC).save(path)


def make_folder(root: Path) -> Path:
    """root/train and root/val with two classes of PNG images."""
    for split, images, first_seed in (("train", TRAIN_IMAGES, 0), ("val", HELD_OUT_IMAGES, 100)):
        for i in range(images):
            save_image(root / split / CLASSES[i % 2] / f"{i}.png", first_seed + i)
    return root
