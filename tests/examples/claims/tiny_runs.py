"""Runs of two epochs of 64 drawn images, with dropout, crops, mirrors, colour noise, a drop of the rate and ten views: all that
a resumed run must continue."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pictures import Pictures
from queue_of_runs import Worker
from settings import Run, Settings
from store import Results
from training import Training

CLAIMS = Path(__file__).parents[3] / "examples" / "claims"

IMAGES, BATCH, EPOCHS = 64, 16, 2
STEPS = EPOCHS * IMAGES // BATCH

TINY = Settings(
    "wide",
    epochs=EPOCHS,
    data="patterns",
    batch_size=BATCH,
    crop=24,
    random_crops=True,
    flips=True,
    color_noise=0.1,
    ten_views=True,
    drops=(1,),
)


def nothing(*message: Any) -> None:
    """For a worker with nobody to tell."""


def never() -> bool:
    return False


def worker(runs: list[Run], pictures: Pictures, folder: Path, tell: Callable[..., None] = nothing) -> Worker:
    return Worker(runs, {"patterns": pictures}, folder / "work", Results(folder / "results"), never, tell)


def killed_in_step(number: int, run: Run, pictures: Pictures, folder: Path) -> None:
    """Train, and end this process by kill -9 in a step."""
    left = iter(range(number - 1))
    Training(run, pictures, folder).go(never, lambda images: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))


def exit_codes(*calls: tuple[Callable[..., None], tuple[Any, ...]]) -> list[int | None]:
    """Those of processes that each make a call, all at once."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=function, args=arguments) for function, arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]
