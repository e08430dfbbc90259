"""The input pipeline against PyTorch's and against bare Pillow: images/s from JPEG files to training batches.

    python benchmarks/bench_input.py [--data TAR | FOLDER] [--workers 0 1 2 4] [--batch 128] [--batches 8] [--repeats 3]
                                     [--names 1281167]

Every image is decoded, its shorter side resized to 256, its centre taken, then a random crop of 224, a random mirror, minus the
mean image, plus colour noise: float32 batches as the paper trains on. --data has one folder of images for each class; without
it 64 photographs are drawn, about as hard to decode as ImageNet's. They are repeated up to `--batches` batches.

PyTorch's loader has the same number of worker processes, which live on from epoch to epoch. It does the same with Pillow, crops
and mirrors bytes, and does the arithmetic in place with NumPy, into batches of the same memory layout. Pillow alone decodes and
resizes, in as many processes at once as there are workers, or cores if these are fewer. All programs run in turn, `--repeats`
times, each with one thread for arithmetic; medians are compared. Needs PyTorch unless --no-torch is given.

The last table is ImageFolder on as many names as ImageNet has, of empty files, each time in a new process: the first listing,
and the next one, which finds the names in the cache. --names 0 leaves it out.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import cores, in_turn, machine_line, print_table, seconds, use_threads
from PIL import Image

from minidl.data import (
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    ImageFolder,
    ImageLoader,
    InputStep,
    Patterns,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    SubtractMean,
    read_image,
)

STORED, SIZE = 256, 224
DRAWN = 64
MEAN = np.random.default_rng(0).uniform(90.0, 140.0, (STORED, STORED, 3)).astype(np.float32)

READ = partial(read_image, size=STORED)

LISTING = """
import sys, time
from common import resident_bytes
from minidl.data import ImageFolder
before = resident_bytes()
started = time.perf_counter()
images = ImageFolder(sys.argv[1], cache=sys.argv[2])
taken = time.perf_counter() - started
print(taken, len(images), resident_bytes() - before)
"""


class Repeated:
    """A data set over and over, up to n images."""

    def __init__(self, dataset: Any, n: int) -> None:
        self.dataset, self.n = dataset, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


# -------------------------------------------------------------------------------------------------------------- programs


def images_per_second(n: int, batches: Iterable[Any]) -> float:
    def exhaust() -> None:
        for _ in batches:
            pass

    return n / seconds(exhaust)


def minidl_program(paths: ImageFolder, n: int, batch: int, workers: int) -> Callable[[], float]:
    loader = ImageLoader(
        Repeated(paths, n),
        batch,
        shuffle=True,
        batch_transform=InputStep(
            RandomCrop(SIZE),
            RandomHorizontalFlip(),
            SubtractMean(MEAN),
            PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS),
        ),
        num_workers=workers,
    )
    return lambda: images_per_second(n, loader)


class TorchImages:
    """What a careful user of PyTorch writes: a data set that gives ((224, 224, 3) float32, label)."""

    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self.samples = samples
        margin = (STORED - SIZE) // 2
        self.mean = np.ascontiguousarray(MEAN[margin : margin + SIZE, margin : margin + SIZE])
        self.axes = (0.1 * IMAGENET_COMPONENTS * IMAGENET_STDEVS).astype(np.float32)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        path, label = self.samples[index]
        stored = resized(path)
        left, top = (stored.width - STORED) // 2, (stored.height - STORED) // 2
        down, across = torch.randint(0, STORED - SIZE + 1, (2,)).tolist()
        left, top = left + across, top + down
        crop = stored.crop((left, top, left + SIZE, top + SIZE))
        if torch.rand(()) < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = np.subtract(crop, self.mean, dtype=np.float32)
        x += np.tile(self.axes @ torch.randn(3).numpy(), (SIZE, 1))
        return torch.from_numpy(x), label


def torch_program(paths: ImageFolder, n: int, batch: int, workers: int) -> Callable[[], float]:
    from torch.utils.data import DataLoader as TorchLoader

    samples = [paths.samples[i % len(paths)] for i in range(n)]
    loader: Any = TorchLoader(TorchImages(samples), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: images_per_second(n, (images.permute(0, 3, 1, 2) for images, _ in loader))


def resized(path: str) -> Image.Image:
    """Decoded, the shorter side 256: as minidl's Resize does it."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    short = min(image.size)
    resample = Image.Resampling.BICUBIC if short < STORED else Image.Resampling.BILINEAR
    return image.resize((image.width * STORED // short, image.height * STORED // short), resample)


def resize_all(paths: list[str]) -> None:
    for path in paths:
        resized(path)


def pillow_program(paths: ImageFolder, n: int, processes: int) -> Callable[[], float]:
    names = [paths.samples[i % len(paths)][0] for i in range(n)]
    shares = [names[i::processes] for i in range(processes)]
    pool = multiprocessing.get_context("fork").Pool(processes)
    return lambda: images_per_second(n, pool.imap_unordered(resize_all, shares))


# ---------------------------------------------------------------------------------------------------------------- images


def find_images(data: str | None, folder: Path) -> ImageFolder:
    """Those of a tar file or a folder, or drawn ones."""
    if data is None:
        draw(folder / "drawn")
        return ImageFolder(folder, loader=READ, cache=False)
    if not os.path.isdir(data):
        with tarfile.open(data) as archive:
            archive.extractall(folder, filter="data")
        data = str(folder)
    root = Path(data)
    while len(inside := list(root.iterdir())) == 1 and not any(path.is_file() for path in inside[0].iterdir()):
        root = inside[0]
    return ImageFolder(root, loader=READ, cache=False)


def draw(folder: Path) -> None:
    """JPEGs of 500 x 375, of about 110 kB, ImageNet's mean."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, (image, _) in enumerate(Patterns(DRAWN, image_size=500)[j] for j in range(DRAWN)):
        noisy = np.clip(image[:375] + rng.normal(0.0, 12.0, (375, 500, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.jpg", quality=90)


# ---------------------------------------------------------------------------------------------------------------- tables


def compare(paths: ImageFolder, workers: list[int], batch: int, batches: int, repeats: int, with_torch: bool) -> None:
    n = batch * batches
    used = {w: min(max(w, 1), cores()) for w in workers}
    programs = {f"Pillow {k}": pillow_program(paths, n, k) for k in sorted(set(used.values()))}
    for w in workers:
        programs[f"minidl {w}"] = minidl_program(paths, n, batch, w)
        if with_torch:
            programs[f"PyTorch {w}"] = torch_program(paths, n, batch, w)
    rate = {name: statistics.median(found) for name, found in in_turn(programs, repeats).items()}
    rows = []
    for w in workers:
        own, bare = rate[f"minidl {w}"], rate[f"Pillow {used[w]}"]
        theirs = rate.get(f"PyTorch {w}")
        peer = ["", ""] if theirs is None else [f"{theirs:.0f}", f"{own / theirs:.2f}"]
        rows.append([f"{w} worker{'s' * (w != 1)}", f"{own:.0f}", *peer, f"{bare:.0f}", f"{own / bare:.2f}"])
    header = [f"images/s, batch {batch}", "minidl", "PyTorch", "minidl / PyTorch", "bare Pillow", "minidl / bare"]
    print_table(header, rows)


def list_names(names: int, folder: Path) -> None:
    """Time and memory of ImageFolder on a tree of empty files, 1300 for each class."""
    for first in range(0, names, 1300):
        of_class = folder / "names" / f"n{first:08d}"
        of_class.mkdir(parents=True)
        for i in range(first, min(first + 1300, names)):
            (of_class / f"{of_class.name}_{i}.JPEG").touch()
    time.sleep(3.0)  # a listing of folders that changed within the last two seconds is not kept
    rows = []
    for label in ("first", "again"):
        command = [sys.executable, "-c", LISTING, str(folder / "names"), str(folder / "cache")]
        done = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
        taken, found, held = done.stdout.split()
        rows.append([f"{int(found):,} names, {label}", f"{float(taken):.2f}", f"{1e-6 * int(held):.0f}"])
    print_table(["ImageFolder", "seconds", "MB held"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a tar file or folder with a folder of images for each class; default: drawn images")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--names", type=int, default=1_281_167)
    parser.add_argument("--no-torch", action="store_true")
    args = parser.parse_args()
    use_threads(1)
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        compare(find_images(args.data, images), args.workers, args.batch, args.batches, args.repeats, not args.no_torch)
        if args.names:
            list_names(args.names, Path(folder))


if __name__ == "__main__":
    main()
