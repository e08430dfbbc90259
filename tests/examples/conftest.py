"""The example's files import each other by name, as they do when train.py is run; the tests import them so too."""

import sys
from pathlib import Path

import numpy as np
import pytest

ALEXNET = Path(__file__).parents[2] / "examples" / "alexnet"
sys.path.insert(0, str(ALEXNET))

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


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than a tiny run; the tests about them bring it back."""
    import run

    monkeypatch.setattr(run, "draw_curves", lambda folder: None)


@pytest.fixture
def call_main(capsys):
    """call_main(main, arguments) -> exit code, standard output, standard error."""

    def call(main, *arguments):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder to read; a test that changes files makes its own with `make_folder`."""
    return make_folder(tmp_path_factory.mktemp("images"))
