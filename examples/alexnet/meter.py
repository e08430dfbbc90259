"""What a run says while it goes: loss, accuracy and speed, in lines or beside a bar."""

import math
import sys
import time


class Meter:
    """Loss, accuracy and speed since the last report."""

    def __init__(self, step: int, last_step: int, sums: dict[str, float] | None = None) -> None:
        self.first_step, self.last_step = step, last_step
        self.started = self.since = time.monotonic()
        self.sums = sums or {"loss": 0.0, "right": 0.0, "images": 0.0}  # what a checkpoint keeps
        self.images_here = 0.0  # since the last report, in this process
        self.loss = math.nan

    def add(self, loss: float, right: int, images: int) -> None:
        self.loss = loss
        self.sums["loss"] += loss * images
        self.sums["right"] += right
        self.sums["images"] += images
        self.images_here += images

    def now(self) -> str:
        """The last step's loss, and accuracy and speed since the last report."""
        speed = self.images_here / (time.monotonic() - self.since)
        return f"loss {self.loss:.4f}, top-1 {self.sums['right'] / max(self.sums['images'], 1):.1%}, {speed:.1f} images/s"

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """The means since the last call; the speed, which differs from run to run."""
        now = time.monotonic()
        images = self.sums["images"]
        means = {"loss": self.sums["loss"] / images, "top1": self.sums["right"] / images}
        speed = {"images_per_second": self.images_here / (now - self.since), "seconds": now - self.started}
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.images_here = 0.0
        self.since = now
        return means, speed

    def leave_out(self, seconds: float) -> None:
        """Time that was spent on something else."""
        self.started += seconds
        self.since += seconds

    def seconds_left(self, step: int) -> float:
        """At the mean speed of this run."""
        return (time.monotonic() - self.started) / (step - self.first_step) * (self.last_step - step)


class Progress:
    """A bar on a terminal; elsewhere only the lines."""

    def __init__(self, step: int, last_step: int) -> None:
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(initial=step, total=last_step, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, meter: Meter) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(meter.now(), refresh=False)
            self.bar.update()

    def write(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
