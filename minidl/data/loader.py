"""DataLoader: batches of samples of any kind, with PyTorch's arguments.

What a batch is, `collate_fn` says: `default_collate` unless another is given. Nothing is guessed from shapes. For images from
files, made ready for a network as fast as the machine can, there is ImageLoader.
"""

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Iteration
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np

from minidl import random
from minidl.data.collate import default_collate, default_convert
from minidl.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from minidl.data.workers import made_ahead, made_when_asked
from minidl.random import Generator

_STREAM = 0x6C6F61646572  # the letters "loader": keeps a batch's draws apart from every other use of the same seed
_AHEAD = 2  # batches for each worker, as PyTorch's prefetch_factor


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker this is: number `id` of `num_workers`, at work for `dataset`, which all of them share.

    seed : for what the worker draws by itself; another one in each worker and each epoch
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Here(threading.local):
    info: WorkerInfo | None = None


_here = _Here()


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a DataLoader, which one it is; elsewhere None."""
    return _here.info


class DataLoader(Iterable[Any]):
    """Batches of a data set with `len(dataset)` and `dataset[i]`.

    batch_size      : samples in a batch, the last one may have fewer. None: single samples, no batches
    shuffle         : a new random order each time the loader is iterated; else 0, 1, 2, ...
    sampler         : an iterable of indices, instead of shuffle
    batch_sampler   : an iterable of lists of indices, instead of batch_size, shuffle, sampler and drop_last
    num_workers     : threads that make batches ahead; 0 makes each batch when it is asked for. dataset[i] and collate_fn are
                      then called from several threads at once.
    collate_fn      : from a list of samples to a batch; default_collate, or without batches default_convert
    drop_last       : leave out a last batch that has fewer samples
    timeout         : seconds to wait for a batch of the workers, 0 for ever; RuntimeError then says which one
    worker_init_fn  : called in each worker with its number, before it makes its first batch; see get_worker_info
    generator       : for the random order and the workers' seeds; minidl's default one (`manual_seed`) if None
    prefetch_factor : at most num_workers * prefetch_factor batches are in the making or waiting; 2 if None
    persistent_workers : worker_init_fn is called for the first epoch alone; the threads are new ones each time

    pin_memory, pin_memory_device, in_order and multiprocessing_context are taken for PyTorch's programs. pin_memory has no
    effect, which a warning says; batches always come in order. A multiprocessing_context with workers is a ValueError, since
    workers are threads.

    What the data set and collate_fn draw from minidl's default generator follows from the seed and the batch's place: it is the
    same for any number of workers. Draws from Python's `random` and NumPy's are not, since threads share those.

    The arguments are attributes; those that say what a batch is can't be changed later. ValueError for arguments out of range
    or that exclude each other; TypeError for a data set without `dataset[i]`. What the data set or collate_fn raise comes with
    a note (PEP 678) that names the sample.
    """

    _FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"DataLoader: takes data sets with dataset[i], got {type(dataset).__name__}; "
                "put what an iterable data set gives into a list"
            )
        _at_least("num_workers", num_workers, 0)
        _at_least("timeout", timeout, 0)
        if num_workers == 0:
            for name, wants_workers in (
                ("timeout", timeout > 0),
                ("prefetch_factor", prefetch_factor is not None),
                ("persistent_workers", persistent_workers),
            ):
                if wants_workers:
                    raise ValueError(f"DataLoader: {name} needs at least 1 worker, got num_workers 0")
        if multiprocessing_context is not None:
            raise ValueError(f"DataLoader: workers are threads, which have no context, got {multiprocessing_context!r}")
        if prefetch_factor is not None:
            _at_least("prefetch_factor", prefetch_factor, 1)
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle exclude each other: the sampler says the order")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        if batch_size is None and drop_last:
            raise ValueError("DataLoader: drop_last needs batches, got batch_size None")
        if pin_memory:
            warnings.warn("DataLoader: pin_memory has no effect here; ImageLoader has one for GPUs", stacklevel=2)
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler: Any = sampler
        self.batch_sampler: Any = batch_sampler
        self.num_workers, self.timeout, self.worker_init_fn = num_workers, timeout, worker_init_fn
        self.prefetch_factor = _AHEAD if prefetch_factor is None and num_workers else prefetch_factor
        self.persistent_workers, self.generator = persistent_workers, generator
        self.pin_memory, self.pin_memory_device, self.in_order = pin_memory, pin_memory_device, in_order
        self.multiprocessing_context = multiprocessing_context
        self.collate_fn: Callable[[Any], Any] = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self._begun = False
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._FIXED and getattr(self, "_ready", False):
            raise ValueError(f"DataLoader: {name} can't be changed after the loader was made; make another one")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """Batches in an epoch; samples if there are no batches. TypeError for a sampler without a length."""
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        """Through the data set once. Dropping the iterator, or its close(), stops the workers."""
        generator = random.default_generator if self.generator is None else self.generator
        return _batches(self, int(generator.words(2).view("<u8")[0] >> np.uint64(1)))


def _batches(loader: DataLoader, seed: int) -> Iteration[Any, None, None]:
    indices = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    jobs = (_Job(loader, seed, number, which) for number, which in enumerate(indices))
    with closing(_made(loader, seed, jobs)) as made:
        for job in made:
            yield job.take()


def _made(loader: DataLoader, seed: int, jobs: "Iterator[_Job]") -> "Iteration[_Job, None, None]":
    if not loader.num_workers:
        return made_when_asked(jobs)
    greet = loader.worker_init_fn if not (loader.persistent_workers and loader._begun) else None
    loader._begun = True
    begin = partial(_begin, loader.num_workers, seed, loader.dataset, greet)
    return made_ahead(jobs, loader.num_workers, loader.prefetch_factor or _AHEAD, loader.timeout, "DataLoader", begin)


def _begin(workers: int, seed: int, dataset: Any, greet: Callable[[int], object] | None, worker: int) -> None:
    """A worker's first steps, in its thread."""
    _here.info = WorkerInfo(worker, workers, seed + worker, dataset)
    if greet is not None:
        greet(worker)


class _Job:
    """One batch in the making, or one sample of a loader without batches."""

    def __init__(self, loader: DataLoader, seed: int, number: int, which: Any) -> None:
        self.loader, self.seed, self.number, self.which = loader, seed, number, which
        self.done: Future[None] = Future()
        self._batch: Any = None
        self._at = f"samples {which}"

    def run(self, worker: int, stop: Event) -> None:
        try:
            with random.standing_in(Generator(self.seed, _STREAM, self.number)):
                samples = self._samples(stop)
                if not stop.is_set():
                    self._batch = self.loader.collate_fn(samples)
        except BaseException as error:  # SystemExit too: it is the consumer that it ends
            error.add_note(f"DataLoader: while making {self._at}")
            raise

    def _samples(self, stop: Event) -> Any:
        dataset = self.loader.dataset
        if self.loader.batch_sampler is None:
            return self._sample(self.which)
        if hasattr(dataset, "__getitems__"):
            return dataset.__getitems__(self.which)
        samples = [self._sample(index) for index in self.which if not stop.is_set()]
        self._at = f"a batch of samples {self.which}"
        return samples

    def _sample(self, index: Any) -> Any:
        self._at = f"sample {index}"
        return self.loader.dataset[index]

    def take(self) -> Any:
        """The batch, which is the caller's alone from now on."""
        batch, self._batch = self._batch, None
        return batch

    def name(self) -> str:
        """The sample in the making."""
        return self._at


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"DataLoader: {name} must be at least {least}, got {value}")
