"""A process that watches over each rank, so that there is somebody to say how a rank died.

mpiexec starts `train.py` once for each rank, and kills all of them at once when one ends badly: none has the time to say which
it was, and where, and how to go on. So what mpiexec starts only forks, before anything heavy is imported. The child trains. The
parent waits for it, hands signals on to it, and says what killed it before mpiexec kills the rest. A child whose parent is
killed dies with it.

This file imports nothing but the standard library.
"""

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn

RANK = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # MPICH and Intel MPI, PRRTE, Open MPI
SIZE = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
HANDED_ON = (signal.SIGINT, signal.SIGTERM)
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_SAID = 0.2  # seconds for mpiexec to take what was printed, before it kills everything; and for what the child said to come

_advice: int | None = None  # a child's end of the pipe to its parent


def launched_ranks() -> int:
    """How many ranks mpiexec started; 1 without it."""
    return _of_environment(SIZE, 1)


def launched_rank() -> int:
    """Which of them this process is; 0 without it."""
    return _of_environment(RANK, 0)


def _of_environment(names: tuple[str, ...], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), default)


@contextmanager
def first_rank_speaks() -> Iterator[None]:
    """Inside the block, what all ranks would say alike is said by rank 0."""
    if launched_rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def supervise() -> None:
    """Under mpiexec, on Linux: go on in a child, and end with its exit code. Else do nothing."""
    if launched_ranks() == 1 or sys.platform != "linux":
        return
    global _advice
    reading, _advice = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)  # a Ctrl-C comes from the parent alone
        _die_with_parent()
        return
    os.close(_advice)
    _watch(child, reading)


def advise(text: str) -> None:
    """What the parent says if this rank dies: what is saved, and how to go on. The last one counts."""
    if _advice is not None:
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(_advice, False)  # a parent that was stopped does not read
            os.write(_advice, text.replace("\n", " ").encode() + b"\n")


def _die_with_parent() -> None:
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _watch(child: int, reading: int) -> NoReturn:
    for number in HANDED_ON:
        signal.signal(number, lambda number, frame: os.kill(child, number))
    advice = [b""]
    reader = threading.Thread(target=_read, args=(reading, advice), daemon=True)
    reader.start()
    _, status = os.waitpid(child, 0)
    reader.join(_SAID)  # it ends with the pipe, unless a process that the child began holds the pipe open
    if os.WIFSIGNALED(status):
        killed = os.WTERMSIG(status)
        who = f"rank {launched_rank()} on {platform.node()} was killed by signal {killed} ({signal.Signals(killed).name})"
        last = advice[0].decode(errors="replace").rstrip("\n").rpartition("\n")[2]
        os.write(2, f"train.py: stopped: {who}{'; ' + last if last else ''}\n".encode())
        time.sleep(_SAID)
        _end_all(128 + killed)
        os._exit(128 + killed)
    os._exit(os.waitstatus_to_exitcode(status))


def _read(pipe: int, advice: list[bytes]) -> None:
    """Keep the last that comes in advice[0]."""
    while part := os.read(pipe, 1 << 16):
        advice[0] = (advice[0] + part)[-(1 << 16) :]


def _end_all(code: int) -> None:
    """Tell MPICH's launcher to end all ranks, in the words of MPI_Abort (PMI version 1).

    By itself it notices a rank's end only where no other process holds the rank's socket, as one does that the rank had begun.
    """
    place = os.environ.get("PMI_FD", "")
    if place.isdecimal():
        with contextlib.suppress(OSError):  # the launcher is gone, or knows already
            os.write(int(place), f"cmd=abort exitcode={code}\n".encode())
