"""DataLoader: batches in a keyed order, made ahead of time by threads.

Everything about a batch follows from (seed, epoch, place in the epoch): the order is a permutation keyed by the epoch, each
image's augmentation is keyed by epoch and index. So a run that is resumed in the middle of an epoch, or that has another
number of workers, gets the same batches bit for bit.

The workers are threads, not processes: decoding (Pillow) and array work (NumPy) release the interpreter's lock, nothing is
pickled or copied between processes, and an error keeps its traceback. A worker makes a whole batch.
"""

import os
import warnings
from collections import deque
from collections.abc import Generator as Iteration
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import Any

import numpy as np

from minidl.data.image_folder import BadImageError
from minidl.data.transforms import ORDER, SampleKey, Transform
from minidl.random import Generator

Batch = tuple[np.ndarray, np.ndarray]


class DataLoader:
    """Batches of (image, label) from a data set with `len(dataset)` and `dataset[i] -> (array (H, W, C), int)`.

    A batch is (images, labels): images (N, C, H, W) float32 with channels-last memory, labels (N,) int64. If the transform
    makes ten views of each image, images are (N, 10, C, H, W). The last batch of an epoch is smaller, or left out with
    drop_last.

    transform       : called transform(image, SampleKey(seed, epoch, index, position)); see minidl.data.transforms
    num_workers     : threads that make batches ahead; 0 makes each batch when it is asked for. dataset[i] must then be
                      safe to call from several threads.
    prefetch_factor : at most num_workers * prefetch_factor batches are in the making or waiting
    on_error        : "stop" lets a BadImageError through; "skip" leaves the image out of its batch, which is then smaller,
                      notes (path, reason) in `skipped` and warns, once for each file. A batch that loses all its images
                      is left out of the epoch.

    Iterating runs through epoch `self.epoch`, 0 at first, and counts it up. ValueError for arguments out of range, and for
    images that differ in shape within a batch; a ValueError from data set or transform comes with the image's name.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        transform: Transform | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        prefetch_factor: int = 2,
        on_error: str = "stop",
    ) -> None:
        _at_least("batch_size", batch_size, 1)
        _at_least("num_workers", num_workers, 0)
        _at_least("prefetch_factor", prefetch_factor, 1)
        _at_least("seed", seed, 0)
        if on_error not in ("stop", "skip"):
            raise ValueError(f"DataLoader: on_error must be 'stop' or 'skip', got {on_error!r}")
        self.dataset, self.batch_size, self.shuffle, self.transform = dataset, batch_size, shuffle, transform
        self.num_workers, self.drop_last, self.seed = num_workers, drop_last, seed
        self.prefetch_factor, self.on_error = prefetch_factor, on_error
        self.epoch = 0
        self.skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return self.epoch_batches(self.epoch - 1)

    def epoch_batches(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_batch` on: what an uninterrupted run would have seen there, bit for bit."""
        _at_least("epoch", epoch, 0)
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"DataLoader: start_batch must be in [0, {len(self)}], got {start_batch}")
        return self._epoch_batches(epoch, start_batch)

    def _epoch_batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        order = self._order(epoch)
        stop = Event()
        jobs = (_Job(self, epoch, order, number, stop) for number in range(start_batch, len(self)))
        if self.num_workers == 0:
            made = (job.run() for job in jobs)
        else:
            made = _made_ahead(jobs, self.num_workers, self.num_workers * self.prefetch_factor, stop)
        with closing(made):  # stops the threads at once when the consumer drops this iterator
            for job in made:
                self._report(job.bad)
                batch = job.batch()
                if batch is not None:
                    yield batch

    def _order(self, epoch: int) -> np.ndarray:
        n = len(self.dataset)
        return Generator(self.seed, ORDER, epoch).permutation(n) if self.shuffle else np.arange(n)

    def _report(self, bad: list[BadImageError]) -> None:
        for error in bad:
            if error.path not in (path for path, _ in self.skipped):
                self.skipped.append((error.path, error.reason))
                warnings.warn(f"DataLoader: skipped {error.path}: {error.reason}", stacklevel=3)


@dataclass
class _Job:
    """One batch in the making."""

    loader: DataLoader
    epoch: int
    order: np.ndarray
    number: int
    stop: Event
    images: np.ndarray | None = None
    labels: list[int] = field(default_factory=list)
    bad: list[BadImageError] = field(default_factory=list)

    def run(self) -> "_Job":
        size = self.loader.batch_size
        for position in range(self.number * size, min((self.number + 1) * size, len(self.order))):
            if self.stop.is_set():
                break
            self._take(int(self.order[position]), position)
        return self

    def _take(self, index: int, position: int) -> None:
        try:
            image, label = self.loader.dataset[index]
            if self.loader.transform is not None:
                image = self.loader.transform(image, SampleKey(self.loader.seed, self.epoch, index, position))
            self._add(image, label)
        except BadImageError as error:
            if self.loader.on_error == "stop":
                raise
            self.bad.append(error)
        except ValueError as error:
            raise ValueError(f"{error} ({_name_of(self.loader.dataset, index)})") from error

    def _add(self, image: np.ndarray, label: int) -> None:
        if self.images is None:
            self.images = np.empty((self.loader.batch_size, *image.shape), np.float32)
        if image.shape != self.images.shape[1:]:
            raise ValueError(
                f"DataLoader: images of a batch must have one shape, got {self.images.shape[1:]} and {image.shape}"
            )
        self.images[len(self.labels)] = image
        self.labels.append(label)

    def batch(self) -> Batch | None:
        """(images, labels), or None when no image could be read."""
        if self.images is None:
            return None
        return np.moveaxis(self.images[: len(self.labels)], -1, -3), np.array(self.labels, np.int64)


def _made_ahead(jobs: Iterator[_Job], workers: int, ahead: int, stop: Event) -> Iteration[_Job, None, None]:
    """The jobs, done, in their order; at most `ahead` are waiting or in the making while the consumer works."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minidl-loader")
    try:
        pending = deque(pool.submit(job.run) for job in islice(jobs, ahead))
        while pending:
            done = pending.popleft().result()
            pending.extend(pool.submit(job.run) for job in islice(jobs, 1))
            yield done
    finally:  # reached at the end, after an error, and when the consumer drops the iterator
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _name_of(dataset: Any, index: int) -> str:
    samples = getattr(dataset, "samples", None)
    return f"sample {index}" if samples is None else f"sample {index}, {os.fspath(samples[index][0])}"


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"DataLoader: {name} must be at least {least}, got {value}")
