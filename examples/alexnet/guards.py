"""What stands between a run and the loss of its work.

- A second process in the same folder is refused (`locked`), and so is a folder that can't be written to (`check_writable`).
- Room for the checkpoints is checked before the first step, and a reserve is kept for the last of them (`Disk`).
- Ctrl-C and SIGTERM end a run between two steps (`Signals`).
- A number that is not finite never reaches the weights, and is traced to where it began (`all_finite`, `first_not_finite`).
"""

import errno
import json
import math
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import AnomalyError, Device, Tensor, nn
from minidl.device import Array, memory_order

LOCK, HOLDER, RESERVE = ".lock", ".lock.json", ".reserve"
MORE_THAN_ARRAYS = 1 << 20  # bytes of a checkpoint that are not arrays, at most: names, state.json, a row of the log
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FINITE_AGAIN = "the step, computed again, was finite: the machine may have made an error"


class RunLockedError(RuntimeError):
    """Another process is at work in this folder."""


class DiskFullError(RuntimeError):
    """The disk has too little room for the run's checkpoints; the text says how much is missing."""


class RankError(Exception):
    """What went wrong on another rank, which the text names. mendable: can the user mend it?"""

    def __init__(self, text: str, mendable: bool) -> None:
        super().__init__(text)
        self.mendable = mendable


class NotFiniteError(ArithmeticError):
    """The loss, a gradient or a weight is NaN or infinite; the text says where that came from."""


# ---------------------------------------------------------------------------------------------------------- the run folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside the block no other process can enter one for this folder. The system frees the lock of a process that dies.

    RunLockedError names the process that is inside.
    """
    from filelock import FileLock, Timeout

    check_writable(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunLockedError(
            f"{folder}: {_holder(folder)} is at work in this folder; wait until it ends, or stop it"
        ) from error
    try:
        (folder / HOLDER).write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError):  # it has the lock, and has not written this yet
        return "another process"


def check_writable(folder: Path) -> None:
    """PermissionError unless files can be made in the folder and in those inside it."""
    for place in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
        probe = place / ".writable"
        try:
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise PermissionError(f"{place}: files must be writable in a run folder, got: {error.strerror}") from error


def disk_full(error: OSError) -> bool:
    """Is there no room left, on the disk or in the user's share of it?"""
    return error.errno in DISK_FULL


class Disk:
    """The room that a run's checkpoints need, and a reserve for the last of them.

    folder     : the run's.
    checkpoint : bytes of the arrays of one checkpoint.
    more       : tells how many checkpoints more than now will lie there at once.

    Inside the block a file, `.reserve`, has the size of a checkpoint. When `write` finds the disk full, it deletes that and
    writes again; `full` then says that the run should end.

    DiskFullError on entering if those checkpoints and the reserve don't fit.
    """

    def __init__(self, folder: Path, checkpoint: int, more: Callable[[], int]) -> None:
        self.folder, self.checkpoint, self.more = folder, checkpoint + MORE_THAN_ARRAYS, more
        self.full = False
        self._reserve = folder / RESERVE

    def __enter__(self) -> None:
        self.release()  # a killed process leaves its reserve
        if self.missing():
            raise DiskFullError(
                f"{self.folder}: {self.more()} checkpoints and a reserve of {megabytes(self.checkpoint)} each need "
                f"{megabytes(self._needed())} free, got {megabytes(self._free())}; --keep 1 needs less"
            )
        try:
            _allocate(self._reserve, self.checkpoint)
        except BaseException:
            self.release()
            raise

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _needed(self) -> int:
        return (self.more() + 1) * self.checkpoint

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def missing(self) -> int:
        """Bytes that must be freed before the run can start, or go on."""
        return max(self._needed() - self._free(), 0)

    def release(self) -> None:
        self._reserve.unlink(missing_ok=True)

    def write(self, action: Callable[[], None]) -> None:
        """action(), which writes or raises OSError and leaves nothing; where the disk is full, again without the reserve."""
        try:
            action()
        except OSError as error:
            if self.full or not disk_full(error):
                raise
            self.full = True
            self.release()
            action()


def _allocate(path: Path, size: int) -> None:
    """A file of so many bytes for which the disk has set blocks aside."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, MORE_THAN_ARRAYS):
                file.write(bytes(min(MORE_THAN_ARRAYS, size - start)))


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


# --------------------------------------------------------------------------------------------------------------- signals


class Signals:
    """Inside the block Ctrl-C and SIGTERM, which clusters send, are noted in `received`; a second Ctrl-C ends the program."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


# --------------------------------------------------------------------------------------------------- numbers not finite


def all_finite(arrays: Iterable[tuple[Device, Array]]) -> bool:
    """Is every element finite? Costs one pass over the arrays, and one number read from each device.

    The sum of squares is finite only if every element is: squares don't cancel. It also overflows where elements reach 1e19
    in float32; then every element is looked at.
    """
    by_device: dict[Device, list[Array]] = {}
    for device, array in arrays:
        by_device.setdefault(device, []).append(array)
    return all(_all_finite(device, arrays) for device, arrays in by_device.items())


def _all_finite(device: Device, arrays: list[Array]) -> bool:
    with device.active(), np.errstate(all="ignore"):
        total = float(sum(_square_sum(array) for array in arrays))
        return math.isfinite(total) or all(bool(device.xp.isfinite(array).all()) for array in arrays)


def _square_sum(array: Array) -> Array:
    """The sum of squares, 0-d and on the array's device; a dot product makes no temporary array."""
    flat = array.transpose(memory_order(array)).reshape(-1)  # a view, whatever the memory order
    return flat @ flat


def first_not_finite(model: nn.Module, images: np.ndarray | Sequence[Tensor], step: Callable[[], Tensor]) -> str:
    """The first thing that is not finite: the images, a parameter, an op's output, or a gradient that it passes back.

    images : a batch, or the same batch on several devices.
    step   : makes the loss again, with the same random numbers; its backward is run too.
    """
    batch = images if isinstance(images, np.ndarray) else images[0].detach().numpy()
    bad = int(batch.size - np.isfinite(batch).sum())
    if bad:
        return f"{bad} of {batch.size} elements of the images are not finite"
    for name, p in model.named_parameters():
        if not all_finite([(p.device, p.data)]):
            return f"{name} is not finite any more"
    model.zero_grad()
    try:
        with minidl.detect_anomaly():
            step().backward()
    except AnomalyError as error:
        return f"it began in {error}"
    return FINITE_AGAIN
