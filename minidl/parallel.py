"""Threads: share the images of a batch among the cores. The only file with compute threads.

A replacement kernel is written for a *share* of the batch, a range of images, and goes through it in *slabs* small enough
that what one pass over a slab leaves is still in the core's cache for the next. `run` cuts the batch into one share for each
thread, always in the same way, so that a result is bit-equal from run to run with the same number of threads, whichever
thread happens to be faster. With another number only sums over images (a weight's gradient) round differently.

NumPy releases the interpreter's lock inside its loops and products, which is where the time goes. But two threads that take it
turn by turn for short loops wait for each other: slabs are large, and little work is not shared at all. BLAS runs on one thread
inside `run`, since every core has a share already, and gets its own number back after it. It keeps to one where all the work is
one share too: OpenBLAS's threads go on spinning for some 20 ms after a product, on the cores of the shares that come next.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import numpy as np

from minidl import memory

R = TypeVar("R")

_VIEWS = 100  # of a scratch buffer, kept because making one takes longer than many a loop

_WORTH_A_THREAD = 1 << 20  # operations on a number: less, and waking a thread and sharing the interpreter's lock cost more


def _default_threads() -> int:
    """OMP_NUM_THREADS, the custom of numerical programs, or as many as the process may use cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number for each level of nesting
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Blas:
    """The number of threads of one BLAS library, for whichever thread asks.

    OpenBLAS's own functions: threadpoolctl's take ten times as long, and (3.8) let one thread alone set the number.
    """

    def __init__(self, controller: Any) -> None:
        self.architecture = getattr(controller, "architecture", None)
        self.get_num_threads, self.set_num_threads = controller.get_num_threads, controller.set_num_threads
        if controller.internal_api == "openblas" and controller.threading_layer != "openmp":
            found = [controller._get_symbol(f"openblas_{verb}_num_threads") for verb in ("get", "set")]
            if None not in found:
                self.get_num_threads, self.set_num_threads = found


class _Threads:
    """The pool of threads, and BLAS's number of threads while it is held."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.RLock()  # a signal's handler may fork while its thread holds it
        self.pool: ThreadPoolExecutor | None = None
        self.blas: list[_Blas] | None = None  # looked up once
        self.blas_before: list[int] = []
        self.blas_holders = 0

    def submit(self, share: Callable[[], R]) -> "Future[R]":
        with self.lock:
            if self.pool is None:
                self.pool = ThreadPoolExecutor(max(self.number - 1, 1), thread_name_prefix="minidl")
            try:
                return self.pool.submit(share)
            except RuntimeError as error:
                if "shutdown" not in str(error):
                    raise
        # the main thread has ended, and all pools with it: the thread that still computes does so alone
        alone: Future[R] = Future()
        alone.set_result(share())
        return alone

    def resize(self, number: int) -> None:
        with self.lock:
            self.number, pool, self.pool = number, self.pool, None
        if pool is not None:
            pool.shutdown(wait=False)  # shares already submitted still run

    def blas_libraries(self) -> list[_Blas]:
        with self.lock:
            if self.blas is None:
                from threadpoolctl import ThreadpoolController

                self.blas = [_Blas(found) for found in ThreadpoolController().select(user_api="blas").lib_controllers]
            return self.blas

    def hold_blas(self) -> None:
        """BLAS on one thread, until all holders have released it."""
        with self.lock:
            if self.blas_holders == 0:
                libraries = self.blas_libraries()
                self.blas_before = [library.get_num_threads() for library in libraries]
                for library, number in zip(libraries, self.blas_before, strict=True):
                    if number > 1:
                        library.set_num_threads(1)
            self.blas_holders += 1

    def release_blas(self) -> None:
        with self.lock:
            self.blas_holders -= 1
            if self.blas_holders == 0:
                self._give_blas_back()

    def _give_blas_back(self) -> None:
        for library, number in zip(self.blas or [], self.blas_before, strict=True):
            if number > 1:
                library.set_num_threads(number)

    def forget_parent(self) -> None:
        """In a forked child, which has only the thread that forked: the pool is gone, and nobody holds BLAS."""
        self.lock, self.pool = threading.RLock(), None
        if self.blas_holders:
            self.blas_holders = 0
            self._give_blas_back()
        _thread.inside = False


class _Thread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.inside = False  # is it working on a share?
        self.buffers: dict[str, np.ndarray] = {}
        self.views: dict[str, dict[tuple[tuple[int, ...], str], np.ndarray]] = {}  # of the buffers, by shape and dtype


_threads = _Threads(_default_threads())
_thread = _Thread()
if hasattr(os, "register_at_fork"):
    # never between BLAS's number being changed and that being noted
    os.register_at_fork(
        before=lambda: _threads.lock.acquire(),
        after_in_parent=lambda: _threads.lock.release(),
        after_in_child=_threads.forget_parent,
    )


def blas_architectures() -> set[str]:
    """Whose kernels OpenBLAS multiplies with: {"SkylakeX"}; empty for another BLAS."""
    return {library.architecture for library in _threads.blas_libraries() if library.architecture}


def get_num_threads() -> int:
    """How many threads minidl computes with."""
    return _threads.number


def set_num_threads(n: int) -> None:
    """Compute with n threads from now on. At first it is OMP_NUM_THREADS, or the number of cores this process may use.

    TypeError if n is not an int, ValueError if it is below 1.
    """
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool):
        raise TypeError(f"set_num_threads: n must be an int, got {n!r}")
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    if n != _threads.number:
        _threads.resize(int(n))


def shares(n: int, at_least: int = 1) -> list[tuple[int, int]]:
    """0 ... n-1 in consecutive ranges (first, last + 1) whose sizes differ by at most 1: one for each thread, fewer if each
    would have less than `at_least`; none if n is 0."""
    number = min(get_num_threads(), max(n // at_least, 1), n)
    return [(n * i // number, n * (i + 1) // number) for i in range(number)]


def grain(cost: int) -> int:
    """How many items are worth a thread, `at_least` for `run`. `cost` of one item: numbers times passes over them, where ten
    multiply-adds of a product count as one."""
    return max(_WORTH_A_THREAD // max(cost, 1), 1)


def run(work: Callable[[int, int], R], n: int, at_least: int = 1) -> list[R]:
    """work(first, stop) for every share of range(n), each on a thread of its own; the results in order.

    The calling thread takes the last share. From inside a share all of the inner shares run on that thread, one after the
    other. If shares fail, all are waited for and one's error is raised: the calling thread's, else the first. So is Ctrl-C's.
    Shares see the caller's context variables, `np.errstate` among them.
    """
    if n <= 0:
        return []
    parts = shares(n, at_least) if n > at_least else [(0, n)]
    if _thread.inside:
        return [_work_on(work, part) for part in parts]
    _threads.hold_blas()
    try:
        return _work_together(work, parts)
    finally:
        _threads.release_blas()


def _work_together(work: Callable[[int, int], R], parts: list[tuple[int, int]]) -> list[R]:
    """All shares but the last on other threads."""
    if len(parts) == 1:
        return [_work_on(work, parts[0])]
    others: list[Future[R]] = []
    try:
        for part in parts[:-1]:
            others.append(_threads.submit(partial(copy_context().run, _work_on, work, part)))
        last = _work_on(work, parts[-1])
    finally:
        _wait_for(others)
    return [*(other.result() for other in others), last]


def _wait_for(others: "list[Future[R]]") -> None:
    """Shares write into the caller's arrays, so they are waited for even if Ctrl-C is pressed (twice is too often)."""
    try:
        wait(others)
    except BaseException:
        wait(others)
        raise


def _work_on(work: Callable[[int, int], R], part: tuple[int, int]) -> R:
    before, _thread.inside = _thread.inside, True
    try:
        return work(*part)
    finally:
        _thread.inside = before


def slabs(first: int, stop: int, size: int) -> Iterator[slice]:
    """first ... stop-1 in slices of `size` (the last may be shorter)."""
    for start in range(first, stop, max(size, 1)):
        yield slice(start, min(start + max(size, 1), stop))


def scratch(name: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An uninitialised array that belongs to this thread, the same memory each time for a name; valid until the next call.

    Fresh memory costs a page fault for every few kilobytes, several times what a pass over it in cache costs.
    """
    shape, dtype = tuple(shape), np.dtype(dtype)
    views = _thread.views.setdefault(name, {})
    view = views.get((shape, dtype.char))  # a dtype's own hash takes longer than all the rest
    if view is None:
        size = math.prod(shape) * dtype.itemsize
        buffer = _thread.buffers.get(name)
        if buffer is None or buffer.nbytes < size:
            buffer = _thread.buffers[name] = memory.aligned(size)
            views.clear()
        elif len(views) == _VIEWS:
            views.clear()
        view = views[shape, dtype.char] = buffer[:size].view(dtype).reshape(shape)
    return view


def release_scratch() -> None:
    """Give this thread's scratch memory back."""
    _thread.views.clear()
    _thread.buffers.clear()
