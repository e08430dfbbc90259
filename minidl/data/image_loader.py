"""ImageLoader: batches of images in a keyed order, from bytes to what a network takes in, made ahead of time by threads.

Everything about a batch follows from (seed, epoch, place in the epoch): the order is a permutation keyed by the epoch, each
image's augmentation is keyed by epoch and index. So a run that is resumed in the middle of an epoch, or that has another
number of workers, gets the same batches bit for bit.
"""

import os
import sys
import warnings
from collections.abc import Generator as Iteration
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, overload

import numpy as np

from minidl import memory
from minidl.data.errors import BadImageError
from minidl.data.image_warnings import ImageWarning, say, told
from minidl.data.images import array_of
from minidl.data.input_step import InputStep, Views
from minidl.data.transforms import ORDER, SampleKey, Transform
from minidl.data.workers import made_ahead, made_when_asked
from minidl.device import Device, pinned_empty
from minidl.random import Generator
from minidl.tensor import Tensor

if TYPE_CHECKING:  # a loader's images are an array, or with `devices` a list of Tensors
    from typing_extensions import TypeVar

    Images = TypeVar("Images", default=np.ndarray)
else:
    from typing import TypeVar

    Images = TypeVar("Images")
Batch = tuple[Any, np.ndarray]

SLOT = 1024  # bytes for each worker in the file `reading`


class ImageLoader(Generic[Images]):
    """Batches of (image, label) from a data set with `len(dataset)` and `dataset[i] -> (image, int)`, the image an array (H, W,
    C) or a picture of Pillow's, which is made one.

    The fast way from files to a network, and one that resumes in the middle of an epoch; for anything else there is DataLoader.
    A batch is (images, labels): images (N, C, H, W) float32 with channels-last memory, labels (N,) int64. If the transform
    makes ten views of each image, images are (N, 10, C, H, W). The last batch of an epoch is smaller, or left out with
    drop_last.

    transform       : called transform(image, SampleKey(seed, epoch, index, position)); see minidl.data.transforms
    batch_transform : an InputStep, which then turns the batch of bytes into floats
    num_workers     : threads that make batches ahead; 0 makes each batch when it is asked for. dataset[i] must then be
                      safe to call from several threads.
    prefetch_factor : at most num_workers * prefetch_factor batches are in the making or waiting
    timeout         : seconds to wait for a batch of the workers, 0 for ever; RuntimeError then names what is being read
    devices         : names of devices, on each of which the batch is wanted: images are then a list of Tensors, the same one
                      for a device that is named twice. To a GPU an InputStep's batch goes as bytes, and the step runs there.
    pin_memory      : for GPUs among `devices`: workers write into page-locked memory, from which the GPU copies by itself
    on_error        : "stop" lets a BadImageError through; "skip" leaves the image out of its batch, which is then smaller,
                      notes (path, reason) in `skipped` and warns, once for each file. A batch that loses all its images
                      is left out of the epoch: see EpochBatches.number.
    reading         : a file in which each worker notes what it is reading, for who comes after a crash: see `last_read`
    num_replicas, rank : of each batch of batch_size, this one of num_replicas processes gets the images at the places rank,
                      rank + num_replicas, ...: what one process alone would see, order and augmentation too, shared out. A
                      share may be empty, images then (0, 3, height, width) of the batch_transform's crop, or (0,) without one;
                      no batch is left out of the epoch. EpochBatches.lost says which images on_error "skip" left out.

    warned : path -> reason, of the files that could be read and of which Pillow warned; each is warned of once

    Iterating runs through epoch `self.epoch`, 0 at first, and counts it up. ValueError for arguments out of range, and for
    images that differ in shape within a batch. What data set or transform raise comes with the image's name: a ValueError in
    its text, anything else in a note (PEP 678).
    """

    @overload
    def __init__(
        self: "ImageLoader[np.ndarray]",
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        transform: Transform | None = None,
        batch_transform: InputStep | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        prefetch_factor: int = 2,
        timeout: float = 0,
        devices: tuple[()] = (),
        pin_memory: bool = False,
        on_error: str = "stop",
        reading: str | os.PathLike[str] | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None: ...
    @overload
    def __init__(
        self: "ImageLoader[list[Tensor]]",
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        transform: Transform | None = None,
        batch_transform: InputStep | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        prefetch_factor: int = 2,
        timeout: float = 0,
        devices: Sequence[Device | str],
        pin_memory: bool = False,
        on_error: str = "stop",
        reading: str | os.PathLike[str] | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None: ...
    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        transform: Transform | None = None,
        batch_transform: InputStep | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        seed: int = 0,
        prefetch_factor: int = 2,
        timeout: float = 0,
        devices: Sequence[Device | str] = (),
        pin_memory: bool = False,
        on_error: str = "stop",
        reading: str | os.PathLike[str] | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        _at_least("num_replicas", num_replicas, 1)
        if not 0 <= rank < num_replicas:
            raise ValueError(f"ImageLoader: rank must be in [0, num_replicas) = [0, {num_replicas}), got {rank}")
        _at_least("batch_size", batch_size, 1)
        _at_least("num_workers", num_workers, 0)
        _at_least("prefetch_factor", prefetch_factor, 1)
        _at_least("timeout", timeout, 0)
        _at_least("seed", seed, 0)
        if timeout and not num_workers:
            raise ValueError(f"ImageLoader: timeout needs at least 1 worker to wait for, got timeout {timeout}, num_workers 0")
        if on_error not in ("stop", "skip"):
            raise ValueError(f"ImageLoader: on_error must be 'stop' or 'skip', got {on_error!r}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.transform, self.batch_transform = transform, batch_transform
        self.num_workers, self.drop_last, self.seed = num_workers, drop_last, seed
        self.prefetch_factor, self.timeout, self.on_error, self.reading = prefetch_factor, timeout, on_error, reading
        self.devices = [Device(name) for name in devices]
        self.pin_memory = bool(pin_memory) and any(device.kind == "cuda" for device in self.devices)
        if pin_memory and not self.pin_memory:
            warnings.warn("ImageLoader: pin_memory is for GPUs in devices, here are none: it has no effect", stacklevel=2)
        self.num_replicas, self.rank = num_replicas, rank
        self.epoch = 0
        self.skipped: list[tuple[str, str]] = []
        self.warned: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> "EpochBatches[Images]":
        self.epoch += 1
        return self.epoch_batches(self.epoch - 1)

    def epoch_batches(self, epoch: int, start_batch: int = 0) -> "EpochBatches[Images]":
        """The batches of one epoch from `start_batch` on: what an uninterrupted run would have seen there, bit for bit."""
        _at_least("epoch", epoch, 0)
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"ImageLoader: start_batch must be in [0, {len(self)}], got {start_batch}")
        return EpochBatches(self, epoch, start_batch)


class EpochBatches(Iterator[tuple[Images, np.ndarray]]):
    """The batches of an epoch. Dropping it, or close(), stops the workers.

    number : the place in the epoch of the batch given last. It grows by more than 1 where a batch lost all its images. To
             resume after that batch, ask for epoch_batches(epoch, number + 1).
    lost   : where in that batch, of all processes, the images would stand that on_error "skip" left out of this one's share
    """

    def __init__(self, loader: ImageLoader[Images], epoch: int, start_batch: int) -> None:
        self.number: int = start_batch - 1
        self.lost: list[int] = []
        self._batches = _epoch_batches(loader, epoch, start_batch)

    def __next__(self) -> tuple[Images, np.ndarray]:
        self.number, self.lost, batch = next(self._batches)
        return batch

    def close(self) -> None:
        """Stop the workers, and wait for them."""
        self._batches.close()


def _epoch_batches(
    loader: ImageLoader[Any], epoch: int, start_batch: int
) -> Iteration[tuple[int, list[int], Batch], None, None]:
    """(number, lost, batch) of an epoch's batches from `start_batch` on."""
    order, uploads, note = _order(loader, epoch), _Uploads(loader), _Note(loader.reading, max(loader.num_workers, 1))
    jobs = (_Job(loader, epoch, order, number, note) for number in range(start_batch, len(loader)))
    with closing(uploads), closing(note), closing(_made(loader, jobs)) as made:
        for job in made:
            _report(loader, job)
            if job.labels or loader.num_replicas > 1:  # no name for the images: the consumer drops them before the next batch
                labels = np.array(job.labels, np.int64)
                yield job.number, job.lost, (uploads.tensors(job) if loader.devices else job.take(), labels)


def _order(loader: ImageLoader[Any], epoch: int) -> np.ndarray:
    n = len(loader.dataset)
    return Generator(loader.seed, ORDER, epoch).permutation(n) if loader.shuffle else np.arange(n)


def _made(loader: ImageLoader[Any], jobs: "Iterator[_Job]") -> "Iteration[_Job, None, None]":
    if not loader.num_workers:
        return made_when_asked(jobs)
    return made_ahead(jobs, loader.num_workers, loader.prefetch_factor, loader.timeout, "ImageLoader")


def _report(loader: ImageLoader[Any], job: "_Job") -> None:
    for warning in job.warned:
        loader.warned.setdefault(warning.path, warning.reason)
        say(warning, stacklevel=5)
    for error in job.bad:
        if error.path not in (path for path, _ in loader.skipped):
            loader.skipped.append((error.path, error.reason))
            warnings.warn(f"ImageLoader: skipped {error.path}: {error.reason}", stacklevel=4)


# --------------------------------------------------------------------------------------------------------------- one batch


class _Job:
    """One batch in the making."""

    def __init__(self, loader: ImageLoader[Any], epoch: int, order: np.ndarray, number: int, note: "_Note") -> None:
        self.loader, self.epoch, self.number, self.note = loader, epoch, number, note
        self.first, part = number * loader.batch_size, slice(loader.rank, None, loader.num_replicas)
        self.indices = order[self.first : self.first + loader.batch_size][part].tolist()
        self.index: int | None = None  # of the image in the making
        self.images: Any = None
        self.drawn: list[Views] = []
        self.labels: list[int] = []
        self.bad: list[BadImageError] = []
        self.lost: list[int] = []
        self.warned: list[ImageWarning] = []
        self.done: Future[None] = Future()

    def run(self, worker: int, stop: Event) -> None:
        places = range(self.first + self.loader.rank, sys.maxsize, self.loader.num_replicas)
        for position, index in zip(places, self.indices, strict=False):
            if stop.is_set():
                return
            self.index = index
            self.note.begin(worker, self)
            self._make(index, position)
            self.note.end(worker)
        if self.images is None and self.loader.num_replicas > 1:
            self._make_none()
        if self.images is not None:
            self._finish()

    def _make(self, index: int, position: int) -> None:
        try:
            with told(self.warned):
                image, label = self.loader.dataset[index]
                image = _as_array(image)
            key = SampleKey(self.loader.seed, self.epoch, index, position)
            if self.loader.transform is not None:
                image = self.loader.transform(image, key)
            self._add(image, label, key)
        except BadImageError as error:
            if self.loader.on_error == "stop":
                raise
            self.bad.append(error)
            self.lost.append(position - self.first)
        except BaseException as error:  # SystemExit too: it is the consumer that it ends
            if type(error) is ValueError:
                raise ValueError(f"{error} ({self.name()})") from error
            error.add_note(f"ImageLoader: while making {self.name()}")
            raise

    def _add(self, image: np.ndarray, label: int, key: SampleKey) -> None:
        step = self.loader.batch_transform
        if step is not None:
            self.drawn.append(step.draw(image, key))
        if self.images is None:
            self.images = self._buffer(image.shape, np.float32 if step is None else np.uint8)
        if image.shape != self.images.shape[1:]:
            raise ValueError(
                f"ImageLoader: images of a batch must have one shape, got {self.images.shape[1:]} and {image.shape}"
            )
        self.images[len(self.labels)] = image
        self.labels.append(label)

    def _make_none(self) -> None:
        """An empty share."""
        step = self.loader.batch_transform
        if step is not None:
            self.drawn.append(step.draw_none())
        self.images = np.empty((0,) if step is None else (0, *step.crop.size, 3), np.float32 if step is None else np.uint8)

    def _buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        make = pinned_empty if self.loader.pin_memory else memory.empty
        return make((len(self.indices), *shape), dtype)

    def _finish(self) -> None:
        """From stacked images to those that are handed over; but a step on devices is the consumer's to begin."""
        self.images, step = self.images[: len(self.labels)], self.loader.batch_transform
        if step is None:
            self.images = np.moveaxis(self.images, -1, -3) if self.images.ndim > 1 else self.images
        elif not self.loader.devices:
            self.images = step(self.images, InputStep.join(self.drawn))

    def take(self) -> np.ndarray:
        """The images, which are the caller's alone from now on."""
        images, self.images = self.images, None
        return images

    def name(self) -> str:
        """The image in the making."""
        samples = getattr(self.loader.dataset, "samples", None)
        return f"sample {self.index}" + ("" if samples is None else f", {os.fspath(samples[self.index][0])}")


class _Uploads:
    """Batches on their way to devices. Page-locked memory, which a GPU may still copy from, is kept until it has."""

    def __init__(self, loader: ImageLoader[Any]) -> None:
        self.devices, self.step = loader.devices, loader.batch_transform
        self.gpus = [device for device in loader.devices if device.kind == "cuda"] if loader.pin_memory else []
        self._kept: np.ndarray | None = None
        self._events: list[Any] = []

    def tensors(self, job: _Job) -> list[Tensor]:
        """The batch on each device."""
        images = job.take()
        if self.step is None:
            make = partial(Tensor, images)
        else:
            make = partial(self._stepped, self.step, images, InputStep.join(job.drawn))
        made = {device: make(device=device) for device in dict.fromkeys(self.devices)}  # once, however often it is named
        self.close()
        self._kept, self._events = images, [device.record() for device in self.gpus]
        return [made[device] for device in self.devices]

    @staticmethod
    def _stepped(step: InputStep, images: np.ndarray, drawn: Views, device: Device) -> Tensor:
        return Tensor(step(images, drawn, device), device=device)

    def close(self) -> None:
        for event in self._events:
            event.synchronize()
        self._kept, self._events = None, []


# ---------------------------------------------------------------------------------------------------- what is being read


class _Note:
    """What each worker is reading, in a file that outlives a process that is killed: SLOT bytes for each, zeros for nothing."""

    def __init__(self, path: str | os.PathLike[str] | None, slots: int) -> None:
        self._process = os.getpid()
        self._file = None if path is None else open(path, "wb", buffering=0)  # noqa: SIM115
        for slot in range(slots):
            self.end(slot)

    def begin(self, slot: int, job: _Job) -> None:
        if self._file is not None:  # only then is the name worth making
            os.pwrite(self._file.fileno(), os.fsencode(job.name())[:SLOT].ljust(SLOT, b"\0"), slot * SLOT)

    def end(self, slot: int) -> None:
        if self._file is not None:
            os.pwrite(self._file.fileno(), bytes(SLOT), slot * SLOT)

    def close(self) -> None:
        if self._file is not None and self._process == os.getpid():  # in a forked child it still is the parent's
            self._file.close()
            os.unlink(self._file.name)


def last_read(path: str | os.PathLike[str]) -> list[str]:
    """What the workers of a process that died were reading, from the file that ImageLoader's `reading` named.

    Nothing if the file is not there, or the loader came to its end, also by an exception.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    names = (content[start : start + SLOT].rstrip(b"\0") for start in range(0, len(content), SLOT))
    return [os.fsdecode(name) for name in names if name]


# --------------------------------------------------------------------------------------------------------------- arguments


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"ImageLoader: {name} must be at least {least}, got {value}")


def _as_array(image: Any) -> Any:
    if isinstance(image, Tensor):
        raise TypeError(
            "ImageLoader: images must be arrays (H, W, C) or pictures of Pillow's, got a Tensor; DataLoader takes Tensors"
        )
    return array_of(image)
