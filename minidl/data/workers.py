"""Threads that make batches ahead.

Threads, not processes: decoding (Pillow) and array work (NumPy) release the interpreter's lock, nothing is pickled or copied
between processes, and an error keeps its traceback. A worker makes a whole batch.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Generator as Iteration
from concurrent.futures import Future, wait
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from threading import Event, Thread, current_thread
from typing import Generic, Protocol, TypeVar

PATIENCE = 2.0  # seconds that a worker has to finish its sample when the loader stops; one that hangs is left behind


class Job(Protocol):
    """One batch in the making. `number` is its place in the epoch, `done` says that run() came to its end."""

    number: int
    done: Future[None]

    def run(self, worker: int, stop: Event) -> None:
        """Make it, in worker number `worker`; leave off when `stop` is set."""

    def name(self) -> str:
        """The sample that is in the making."""


SomeJob = TypeVar("SomeJob", bound=Job)


def made_when_asked(jobs: Iterator[SomeJob]) -> Iteration[SomeJob, None, None]:
    """The jobs, done, each when it is asked for."""
    for job in jobs:
        job.run(0, Event())
        yield job


def made_ahead(
    jobs: Iterator[SomeJob], workers: int, ahead: int, timeout: float, loader: str, begin: Callable[[int], object] | None = None
) -> Iteration[SomeJob, None, None]:
    """The jobs, done, in their order; meanwhile at most `ahead` for each worker wait or are in the making.

    begin : called in each worker with its number, before its first job
    RuntimeError if a job takes longer than `timeout` seconds (0: for ever), in the name of `loader`.
    """
    with closing(_Workers[SomeJob](workers, timeout, loader, begin)) as made:
        pending = deque(made.begin(job) for job in islice(jobs, workers * ahead))
        while pending:
            made.wait_for(pending[0])
            pending.extend(made.begin(job) for job in islice(jobs, 1))
            yield pending.popleft()


class _Workers(Generic[SomeJob]):
    """The threads. They are daemons: one that hangs in a decoder cannot keep the program from ending."""

    def __init__(self, workers: int, timeout: float, loader: str, begin: Callable[[int], object] | None) -> None:
        self.process, self.timeout, self.loader = os.getpid(), timeout, loader
        self.stop, self._begin = Event(), begin
        self.jobs: SimpleQueue[SomeJob | None] = SimpleQueue()
        self.threads = [
            Thread(target=self._work, args=(worker,), name=f"minidl-loader-{worker}", daemon=True) for worker in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    def begin(self, job: SomeJob) -> SomeJob:
        self.jobs.put(job)
        return job

    def wait_for(self, job: SomeJob) -> None:
        """Until the job is done; what stopped it is raised here."""
        if self.process != os.getpid():
            raise RuntimeError(
                f"{self.loader}: the workers of this iterator are threads of process {self.process}, which was forked; "
                "iterate anew in the child"
            )
        if not wait([job.done], self.timeout or None).done:
            raise RuntimeError(
                f"{self.loader}: a batch must come within {self.timeout} seconds (timeout); "
                f"batch {job.number} is at {job.name()}"
            )
        job.done.result()

    def _work(self, worker: int) -> None:
        failed = self._failure_of_begin(worker)
        while (job := self.jobs.get()) is not None:
            try:
                if failed is not None:
                    raise failed
                job.run(worker, self.stop)
            except BaseException as error:
                job.done.set_exception(error)
            else:
                job.done.set_result(None)
            del job  # or the batch would live until the next one comes

    def _failure_of_begin(self, worker: int) -> BaseException | None:
        try:
            if self._begin is not None:
                self._begin(worker)
        except BaseException as error:  # it is the consumer that shall see it, with the first batch
            return error
        return None

    def close(self) -> None:
        if self.process != os.getpid():
            return
        self.stop.set()
        for _ in self.threads:
            self.jobs.put(None)
        until = time.monotonic() + PATIENCE
        for thread in self.threads:
            if thread is not current_thread():  # a dropped iterator may be collected in a worker
                thread.join(max(until - time.monotonic(), 0))
