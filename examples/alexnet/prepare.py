"""Make every image 256 x 256 once, before training: shorter side resized, centre
taken, as train.py would each time.

python examples/alexnet/prepare.py SOURCE OUT    packed bytes, which training
                                                 reads without decoding
python examples/alexnet/prepare.py SOURCE OUT --format jpeg
                                                 a tree of JPEG files, which
                                                 other programs read too

SOURCE has train/<class>/* and val/<class>/* (or test), or is one such split
itself, which becomes OUT/train. With --hold-out FRACTION that fraction of it
becomes OUT/val: the same images that train.py SOURCE --hold-out FRACTION holds
out. Then: python examples/alexnet/train.py OUT

OUT/
  train/, val/, test/   packed: index.json and images-00000.bin, ...
                        (minidl/data/packed.py); jpeg: <class>/<name>
  statistics.npz        mean image and colour components of all training images
                        as OUT has them
  report.json           settings, counts, the files that could not be read, and
                        those of which Pillow warned; written last
  .prepare/             until then: the settings, and a record of each block of
                        images that is done
  .lock                 held by the prepare.py that works here

It may be killed at any moment; the same command then goes on where it stopped.
The listing of SOURCE is cut into blocks of --shard-images. A block's images are
written under temporary names and renamed; once they are on the disk, the
block's record follows. A block with no record is done again. The records have
sums of whole numbers, so OUT has the same bytes however often it was stopped
and however many workers there were.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import checkout  # noqa: F401  before minidl
import numpy as np
import run
from data import (
    REPORT,
    STORED_SIZE,
    UNFINISHED,
    check_classes,
    check_folder,
    check_names,
    check_none_held_out,
    held_out_splits,
    left_out,
    listed,
    save_statistics,
    training_folder,
)
from guards import DiskFullError, locked, megabytes

from minidl.checkpoint import sync
from minidl.data import BadFileError, BadImageError, ImageFolder, Subset, hold_out, image_names, read_image
from minidl.data.color_sums import ColorSums
from minidl.data.errors import npz_arrays
from minidl.data.image_warnings import ImageWarning, told
from minidl.data.packed import INDEX, index_bytes, shard_name
from minidl.pipe import LEFT, ReaderLeft, until_the_reader_leaves

SETTINGS = "settings.json"
SHARD_IMAGES = 4096  # 0.8 GB at 256 x 256: a kill costs less than a minute's work, and ImageNet is 313 files
PIECE = 16  # images that a worker makes at a time
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


# ----------------------------------------------------------------------------------------------------------- what to make


@dataclass(frozen=True)
class Split:
    """Training or held-out images: OUT/<name> is made from the images in `root`."""

    name: str
    dataset: ImageFolder  # of which it is a part, or the whole
    classes: list[str]
    samples: list[tuple[str, int]]  # (path below root, label)

    @property
    def root(self) -> Path:
        return self.dataset.root


@dataclass(frozen=True)
class Block:
    """Consecutive images of a split: a shard, or so many JPEG files. What is done as a whole or done again."""

    split: Split
    number: int
    samples: list[tuple[str, int]]

    @property
    def record(self) -> str:
        """The name of its record in OUT/.prepare."""
        return f"{self.split.name}-{self.number:05d}.npz"


@dataclass
class Result:
    """What became of some images: of a piece, then of a block, then of a split."""

    names: list[str] = field(default_factory=list)  # of the images that are in OUT
    labels: list[int] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)  # path below SOURCE, size in bytes, reason
    warned: list[dict[str, Any]] = field(
        default_factory=list
    )  # path below SOURCE, and why Pillow warned of a file that is in OUT
    shards: list[tuple[int, str]] = field(default_factory=list)  # (images, sha256) of each finished shard
    sums: ColorSums = field(default_factory=ColorSums)  # of the training split only

    def merge(self, other: "Result") -> None:
        """The images of `other`, which come after these."""
        self.names.extend(other.names)
        self.labels.extend(other.labels)
        self.unreadable.extend(other.unreadable)
        self.warned.extend(other.warned)
        self.shards.extend(other.shards)
        self.sums.merge(other.sums)


def splits_of(source: Path, fraction: float | None = None) -> list[Split]:
    """What is in SOURCE: train with val, test or both, or nothing but classes.

    With a fraction, train and val are cut from SOURCE/train or from SOURCE's classes.

    FileNotFoundError: SOURCE is missing or has no image, or no train. ValueError: the splits have different classes, or
    held-out images are there and a fraction is given.
    """
    check_folder(source)
    check_none_held_out(source, fraction)
    held_out, train = held_out_splits(source), training_folder(source)
    whole = ImageFolder(train)
    check_names(train, whole.classes)
    if fraction is not None:
        return [_split(name, whole, part) for name, part in zip(("train", "val"), hold_out(whole, fraction), strict=True)]
    folders = {"train": whole, **{name: ImageFolder(source / name) for name in held_out}}
    splits = [_split(name, folder, folder) for name, folder in folders.items()]
    for other in splits[1:]:
        check_classes(source, splits[0].classes, other.name, other.classes)
    return splits


def _split(name: str, whole: ImageFolder, part: ImageFolder | Subset[Any]) -> Split:
    return Split(name, whole, part.classes, list(zip(image_names(part), part.targets, strict=True)))


def blocks_of(splits: list[Split], size: int) -> list[Block]:
    """All images in their order, in blocks of `size`; the last block of a split may be smaller."""
    return [
        Block(split, number, split.samples[first : first + size])
        for split in splits
        for number, first in enumerate(range(0, len(split.samples), size))
    ]


def settings_of(args: argparse.Namespace, splits: list[Split]) -> dict[str, Any]:
    """What the bytes of OUT follow from, the images' content aside."""
    quality = {"quality": args.quality} if args.format == "jpeg" else {}
    listings = {split.name: f"{len(split.samples)} files, listing {_digest(split.samples)}" for split in splits}
    return {"format": args.format, "size": args.size, **quality, "shard_images": args.shard_images, **listings}


def _digest(samples: list[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps(samples).encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------------- one image


def jpeg_name(name: str) -> str:
    """cat/a.JPEG -> cat/a.JPEG, cat/b.png -> cat/b.png.jpg: no two files of a folder get one name unless they ask for it."""
    return name if name.lower().endswith((".jpg", ".jpeg")) else f"{name}.jpg"


def check_jpeg_names(splits: list[Split]) -> None:
    """ValueError if two images would become one file, or a class no folder."""
    for split in splits:
        labels = {label for _, label in split.samples}
        empty = [name for label, name in enumerate(split.classes) if label not in labels]
        if empty:
            raise ValueError(
                f"{split.root}: no image of {listed(empty)} falls to {split.name}, and a JPEG tree has no empty classes; "
                "a larger --hold-out or --format packed will do"
            )
        first: dict[str, str] = {}
        for name, _ in split.samples:
            other = first.setdefault(jpeg_name(name), name)
            if other != name:
                raise ValueError(f"{split.root}: {other} and {name} would both become {jpeg_name(name)}; rename one")


# ----------------------------------------------------------------------------------------------------------- many images


class Maker:
    """Turns SOURCE into OUT, block by block; `workers` threads read, resize and encode ahead of the one that writes shards."""

    def __init__(self, args: argparse.Namespace, splits: list[Split]) -> None:
        self.source, self.out, self.splits = Path(args.source), Path(args.out), splits
        self.packed, self.size, self.quality = args.format == "packed", args.size, args.quality
        self.workers, self.stop = args.workers, args.on_error == "stop"
        self.blocks = blocks_of(splits, args.shard_images)

    def make(self) -> None:
        """Everything that is not there yet. DiskFullError, before any work, if that is more than the disk has room for."""
        left = [block for block in self.blocks if self.record_of(block) is None]
        check_room(self.out, sum(len(block.samples) for block in left) * self.size**2 * 3 if self.packed else 0)
        for split in self.splits:
            (self.out / split.name).mkdir(exist_ok=True)
        total = sum(len(block.samples) for block in self.blocks)
        with Progress(total, total - sum(len(block.samples) for block in left)) as progress:
            jobs = (partial(self.make_piece, block.split, piece) for block in left for piece in _pieces(block.samples, PIECE))
            with _made_ahead(jobs, self.workers) as made:
                for block in left:
                    count = -(-len(block.samples) // PIECE)
                    self.make_block(block, progress.watched(islice(made, count)))

    def make_piece(self, split: Split, samples: list[tuple[str, int]]) -> tuple[Result, list[np.ndarray]]:
        """What a worker does: what became of the samples, and the images that are to be written to a shard."""
        result, images = Result(), []
        warned: list[ImageWarning] = []
        for name, label in samples:
            try:
                with told(warned):
                    image = read_image(split.root / name, self.size)
            except BadImageError as error:
                if self.stop:
                    raise
                path = os.path.relpath(error.path, self.source)
                result.unreadable.append({"path": path, "size": error.size, "reason": error.reason})
                continue
            if not self.packed:
                image = self.write_jpeg(self.out / split.name / jpeg_name(name), image)
            else:
                images.append(image)
            result.names.append(name)
            result.labels.append(label)
            if split.name == "train":
                result.sums.add(image)
        result.warned = [{"path": os.path.relpath(each.path, self.source), "reason": each.reason} for each in warned]
        return result, images

    def write_jpeg(self, path: Path, image: np.ndarray) -> np.ndarray:
        """Write the file; the image as a reader will see it."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            Image.fromarray(image).save(file, "JPEG", quality=self.quality)
        return read_image(path)

    def make_block(self, block: Block, pieces: Iterable[tuple[Result, list[np.ndarray]]]) -> None:
        """Its shard, unless the workers have written JPEG files; then its record."""
        result = Result()
        if self.packed:
            with whole_file(self.files_of(block, [])[0]) as file:
                digest = hashlib.sha256()
                for part, images in pieces:
                    result.merge(part)
                    for image in images:
                        file.write(image.data)
                        digest.update(image.data)
            result.shards = [(len(result.names), digest.hexdigest())]
        else:
            for part, _ in pieces:
                result.merge(part)
        self.sync(self.files_of(block, result.names))
        run.write_whole(self.out / UNFINISHED / block.record, record_bytes(result))

    def files_of(self, block: Block, names: list[str]) -> list[Path]:
        """The shard of a block, or the JPEG files of those of its images that could be read."""
        files = [shard_name(block.number)] if self.packed else [jpeg_name(name) for name in names]
        return [self.out / block.split.name / file for file in files]

    def sync(self, files: list[Path]) -> None:
        """Wait until the disk has them, and their names. All at once: a file at a time is two to three times slower."""
        folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.out)}
        for path in (*files, *folders):
            sync(path)

    def record_of(self, block: Block) -> Result | None:
        """What became of a block; None if it must be done, or done again since its files are not what its record says."""
        try:
            result = read_record(self.out / UNFINISHED / block.record)
            sizes = [path.stat().st_size for path in self.files_of(block, result.names)]
        except (FileNotFoundError, BadFileError):
            return None
        whole = not self.packed or sizes == [len(result.names) * self.size**2 * 3]
        return result if whole else None

    def finish(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The indexes, the statistics and, last, the report, which is returned."""
        results = {split.name: self.result_of(split) for split in self.splits}
        for split in self.splits if self.packed else ():
            r = results[split.name]
            content = index_bytes((self.size, self.size, 3), split.classes, r.shards, r.labels, r.names)
            run.write_whole(self.out / split.name / INDEX, content)
        save_statistics(self.out / run.STATISTICS, results["train"].sums.statistics())
        report = {
            "source": str(self.source.resolve()),
            "settings": settings,
            "images": {name: len(r.names) for name, r in results.items()},
            "unreadable": [row for r in results.values() for row in r.unreadable],
            "warned": [row for r in results.values() for row in r.warned],
        }
        run.write_json(self.out / REPORT, report)
        return report

    def result_of(self, split: Split) -> Result:
        """All its blocks together. BadFileError if a record was lost since it was written."""
        whole = Result()
        for block in self.blocks:
            if block.split is split:
                whole.merge(read_record(self.out / UNFINISHED / block.record))
        return whole


def record_bytes(result: Result) -> bytes:
    """A record: a .npz file; the same bytes for the same result."""
    content = io.BytesIO()
    about = {name: getattr(result, name) for name in ("names", "labels", "unreadable", "warned", "shards")}
    sums = result.sums
    np.savez(content, about=np.array(json.dumps(about)), count=sums.count, total=sums.total, products=sums.products)
    return content.getvalue()


def read_record(path: Path) -> Result:
    """What record_bytes made. FileNotFoundError: not there yet. BadFileError: altered."""
    content = path.read_bytes()
    try:
        arrays = npz_arrays(content, ("about", "count", "total", "products"))
        sums = ColorSums(int(arrays["count"]), arrays["total"], arrays["products"])
        return Result(**json.loads(str(arrays["about"])), sums=sums)
    except Exception as error:  # zipfile, NumPy and JSON each have their own
        raise BadFileError(path, len(content), f"must be a record of prepare.py, got {error!r}") from error


def _pieces(samples: list[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    return (samples[first : first + size] for first in range(0, len(samples), size))


@contextmanager
def _made_ahead(jobs: Iterable[Callable[[], Any]], workers: int) -> Iterator[Iterator[Any]]:
    """The jobs' results in their order, made by threads, three jobs a thread at most ahead of what was taken."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")

    def results() -> Iterator[Any]:
        pending: deque[Any] = deque()
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) >= 3 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield results()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which gets its name when it is complete."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        yield file
    os.replace(temporary, path)


class Progress:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.first = total, done, done
        self.started = self.said = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(initial=done, total=total, unit="image", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def watched(self, pieces: Iterable[tuple[Result, Any]]) -> Iterator[tuple[Result, Any]]:
        """The same pieces, counted."""
        for piece in pieces:
            self._add(len(piece[0].names) + len(piece[0].unreadable))
            yield piece

    def _add(self, images: int) -> None:
        self.done += images
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(images)
        elif now - self.said >= 10:
            self.said = now
            speed = (self.done - self.first) / (now - self.started)
            print(f"{self.done}/{self.total} images, {speed:.1f} images/s", flush=True)


# --------------------------------------------------------------------------------------------------------- the OUT folder


def check_room(out: Path, needed: int) -> None:
    """DiskFullError if the disk has less than `needed` bytes free."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise DiskFullError(f"{out}: the images still to be made take {megabytes(needed)}, got {megabytes(free)} free")


def begin(out: Path, settings: dict[str, Any]) -> None:
    """Take an empty OUT, or go on in one that was begun with these settings; ValueError or FileExistsError for any other."""
    saved = out / UNFINISHED / SETTINGS
    if saved.exists():
        check_settings(out, read_json(saved), settings)
        return
    strange = sorted(name for name in os.listdir(out) if not name.startswith("."))
    if strange:
        raise FileExistsError(f"{out}: must be empty or made by prepare.py, got {', '.join(strange[:3])}")
    (out / UNFINISHED).mkdir(exist_ok=True)
    run.write_json(saved, settings)


def report_of(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The report of an OUT that is complete. ValueError if it was made with other settings."""
    if not (out / REPORT).exists():
        return None
    report = read_json(out / REPORT)
    check_settings(out, report.get("settings", {}), settings)
    return report


def check_settings(out: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError names what differs."""
    names = [name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name)]
    differ = [f"{name} {saved.get(name)!r} (here {wanted.get(name)!r})" for name in names]
    if differ:
        raise ValueError(f"{out}: was made with {', '.join(differ)}; give another OUT")


def read_json(path: Path) -> dict[str, Any]:
    """BadFileError if it is not a JSON object."""
    content = path.read_bytes()
    try:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError(f"must be a JSON object, got {type(found).__name__}")
    except ValueError as error:
        raise BadFileError(path, len(content), str(error)) from error
    return found


# ---------------------------------------------------------------------------------------------------------- command line


def parser_() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="prepare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", help="folder with train/<class>/* and val/<class>/* or test/<class>/*, or with <class>/*")
    p.add_argument("out", help="new folder, or one where this command was stopped before")
    p.add_argument("--format", choices=("packed", "jpeg"), default="packed", help="of the images in OUT, default packed")
    p.add_argument(
        "--hold-out",
        type=run.fraction,
        metavar="FRACTION",
        help="hold out this fraction of the images for scoring, the same ones as train.py does; they become OUT/val",
    )
    p.add_argument(
        "--size", type=run.at_least_one, default=STORED_SIZE, help=f"side of the square images, default {STORED_SIZE}"
    )
    p.add_argument(
        "-j",
        "--workers",
        type=run.at_least_one,
        default=os.cpu_count() or 1,
        help="threads that make images, default one a core",
    )
    p.add_argument("--quality", type=run.at_least_one, default=95, help="quality of the JPEG files, 1 to 100, default 95")
    p.add_argument(
        "--shard-images",
        type=run.at_least_one,
        default=SHARD_IMAGES,
        help=f"images in a block, which is a file if packed; default {SHARD_IMAGES}",
    )
    p.add_argument(
        "--on-error", choices=("skip", "stop"), default="skip", help="at an unreadable file: skip it (default), or stop"
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    parser = parser_()
    args = parser.parse_args(arguments)
    if args.quality > 100:
        parser.error(f"--quality must be at most 100, got {args.quality}")
    with run.errors_in_one_line(parser, sys.argv[1:] if arguments is None else arguments):
        try:
            print(summary(args.out, prepare(args)))
        except (KeyboardInterrupt, ReaderLeft) as end:
            print("prepare.py: stopped; the same command goes on from here", file=sys.stderr)
            return LEFT if isinstance(end, ReaderLeft) else INTERRUPTED
    return 0


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Make OUT, or what is missing of it; its report."""
    source, out = Path(args.source), Path(args.out)
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: must lie outside {source}")
    splits = splits_of(source, args.hold_out)
    if args.format == "jpeg":
        check_jpeg_names(splits)
    settings = settings_of(args, splits)
    report = report_of(out, settings)
    if report is not None and not (out / UNFINISHED).exists():
        print(f"{out} is complete already")
        return report
    aside = left_out(source, {id(split.dataset): split.dataset for split in splits}.values())
    if aside:
        print(aside, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        report = report_of(out, settings) or make(args, splits, settings)
        shutil.rmtree(out / UNFINISHED)
    return report


def make(args: argparse.Namespace, splits: list[Split], settings: dict[str, Any]) -> dict[str, Any]:
    """The work itself."""
    from threadpoolctl import threadpool_limits

    begin(Path(args.out), settings)
    maker = Maker(args, splits)
    with threadpool_limits(1, "blas"):  # the workers are the threads; BLAS's own would only wait for each other
        maker.make()
    return maker.finish(settings)


def summary(out: str, report: dict[str, Any]) -> str:
    """What OUT has, and the first of the files that could not be read, or of which Pillow warned."""
    counts = ", ".join(f"{images} images in {name}" for name, images in report["images"].items())
    unreadable = report["unreadable"]
    lines = [f"{out}: {counts}; {len(unreadable)} unreadable files"]
    lines += [f"  {row['path']} ({row['size']} bytes): {row['reason']}" for row in unreadable[:3]]
    if len(unreadable) > 3:
        lines.append(f"  and {len(unreadable) - 3} more: {Path(out) / REPORT}")
    if warned := report.get("warned"):
        lines.append(f"of {len(warned)} readable files Pillow warns, the first is {warned[0]['path']}: {warned[0]['reason']}")
    return "\n".join(lines).encode(errors="backslashreplace").decode()  # names need not be Unicode, what is printed must


if __name__ == "__main__":
    sys.exit(until_the_reader_leaves(main))
