"""A run's folder, and what train.py and evaluate.py share on the command line.

runs/alexnet/
  arguments.json     what was asked for, and the versions that ran it
  log.jsonl          a line every few steps: step, epoch, loss, top1, lr, images_per_second, seconds
  statistics.npz     the mean image and colour components of the training set
  checkpoints/       step-000400/ and so on
  curves.png         loss and accuracy
  conv1.png          the first layer's filters, tower by tower
"""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import DeviceError
from minidl.checkpoint import CheckpointError, latest_checkpoint
from minidl.data import BadImageError, DataLoader

ARGUMENTS, LOG, STATISTICS, CHECKPOINTS = "arguments.json", "log.jsonl", "statistics.npz", "checkpoints"


# ---------------------------------------------------------------------------------------------------------- command line


def at_least_one(text: str) -> int:
    return _integer(text, 1)


def at_least_zero(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, "above 0", lambda value: 0 < value < float("inf"))


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, "at least 0", lambda value: 0 <= value < float("inf"))


def _number(text: str, rule: str, holds: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not holds(value):
        raise argparse.ArgumentTypeError(f"must be a number {rule}, got {text!r}")
    return value


def fractions(text: str) -> list[float]:
    """ ".25,.55" -> [.25, .55], each between 0 and 1, ascending."""
    values = [_number(part, "between 0 and 1", lambda value: 0 < value < 1) for part in text.split(",")]
    if values != sorted(values):
        raise argparse.ArgumentTypeError(f"must ascend, got {text!r}")
    return values


def device_names(text: str) -> list[str]:
    """ "cpu:0,cpu:1" -> ["cpu:0", "cpu:1"]."""
    return [name.strip() for name in text.split(",")]


@contextmanager
def errors_in_one_line(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Iterator[None]:
    """What a user can mend ends the program with one line and exit code 2; anything else keeps its traceback.

    A device that is not there: the line ends with the command that works.
    """
    try:
        yield
    except DeviceError as error:
        command = shlex.join(["python", f"examples/alexnet/{parser.prog}", *_on_cpu(arguments)])
        parser.exit(2, f"{parser.prog}: error: {error}: {command}\n")
    except (CheckpointError, BadImageError, FileNotFoundError, FileExistsError, PermissionError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def _on_cpu(arguments: Sequence[str]) -> list[str]:
    """The same arguments with --device cpu:0,cpu:1."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--device"):
            kept.append(argument)
        skip = argument == "--device"
    return [*kept, "--device", "cpu:0,cpu:1"]


def with_progress(batches: Iterable[Any], total: int) -> Iterable[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return batches
    from tqdm import tqdm

    return tqdm(batches, total=total, unit="batch", leave=False)


def report_skipped(loader: DataLoader) -> None:
    """How many unreadable images were left out, and the first of them."""
    if loader.skipped:
        path, reason = loader.skipped[0]
        print(f"{len(loader.skipped)} unreadable images were skipped, the first is {path}: {reason}")


# --------------------------------------------------------------------------------------------------------- the run folder


def create(folder: Path) -> None:
    """A new run folder. FileExistsError if it holds a run already."""
    if (folder / ARGUMENTS).exists():
        raise FileExistsError(f"{folder} holds a run; continue it with --resume {folder}, or give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def find_checkpoint(path: str) -> tuple[Path, Path | None]:
    """A run folder, or a checkpoint in it -> the run folder and the (newest) checkpoint, None if none was saved yet.

    FileNotFoundError: neither.
    """
    given = Path(path)
    if (given / ARGUMENTS).is_file():
        return given, _newest_whole(given / CHECKPOINTS)
    folder = given.absolute().parent.parent
    if given.is_dir() and (folder / ARGUMENTS).is_file():
        return folder, given
    raise FileNotFoundError(f"{path}: is neither a run folder (with {ARGUMENTS}) nor a checkpoint in one")


def _newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that can be used; says so if that is not the newest there is. CheckpointError if none can."""
    there = sorted(checkpoints.glob("step-*"))
    found = latest_checkpoint(checkpoints)
    if there and found is None:
        raise CheckpointError(f"{checkpoints}: none of its {len(there)} checkpoints is whole, the newest is {there[-1].name}")
    if there and found != there[-1]:
        print(f"{there[-1]} is not whole; the newest whole checkpoint is {found}")
    return found


def arguments_of(folder: Path) -> dict[str, Any]:
    """What the run in this folder was asked for."""
    try:
        return json.loads((folder / ARGUMENTS).read_text())["arguments"]
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / ARGUMENTS}: must be the JSON that train.py wrote, got {error!r}") from error


def versions() -> dict[str, str]:
    """What computed the numbers."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads" for pool in pools]
    return {
        "minidl": minidl.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": "; ".join(blas) or "unknown",
        "threads": str(minidl.get_num_threads()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


class Log:
    """log.jsonl: one JSON object a line. Opening it for a run resumed at `step` drops lines from later steps."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.folder, self.path = folder, folder / LOG
        self._rewrite([row for row in read_log(folder) if row["step"] <= step])

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def has_score(self, step: int) -> bool:
        """Was the held-out set scored after this step?"""
        return any(row["step"] == step and "held_out_loss" in row for row in read_log(self.folder))

    def drop_scores(self, step: int) -> None:
        """The score after this step goes: a finished run that is resumed is scored again."""
        self._rewrite([row for row in read_log(self.folder) if row["step"] != step or "held_out_loss" not in row])

    def write(self, **row: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl; a last line that was cut short by a kill is left out."""
    path, rows = folder / LOG, []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


# --------------------------------------------------------------------------------------------------------------- pictures


def draw_curves(folder: Path) -> str | None:
    """curves.png from log.jsonl; a line that says what is missing where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "curves.png needs matplotlib: pip install minidl[plot]"
    rows = read_log(folder)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    for axes, key, held_out, title in (
        (loss, "loss", "held_out_loss", "loss"),
        (accuracy, "top1", "held_out_top1", "top-1 accuracy"),
    ):
        for name, label, style in ((key, "training", "-"), (held_out, "held out", "o--")):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(folder / "curves.png", dpi=120)
    return None


def draw_filters(folder: Path, towers: list[np.ndarray], scale: int = 5) -> None:
    """conv1.png: each tower's filters (O, 3, KH, KW) as a block of pictures, tower 0 on top.

    Each filter is stretched so that its largest weight is white or black; grey is 0.
    """
    from PIL import Image

    blocks = [_filter_block(filters) for filters in towers]
    gap = np.full((4, blocks[0].shape[1], 3), 255, np.uint8)
    rows = [part for block in blocks for part in (block, gap)][:-1]
    picture = np.concatenate(rows)
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).save(folder / "conv1.png")


def _filter_block(filters: np.ndarray, columns: int = 16) -> np.ndarray:
    """(O, 3, KH, KW) -> one RGB picture, filters in rows of 16 with a white line between them."""
    n, _, kh, kw = filters.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    block = np.full((rows * (kh + 1) + 1, columns * (kw + 1) + 1, 3), 255, np.uint8)
    for i, weights in enumerate(filters):
        largest = np.abs(weights).max() or 1.0
        top, left = (i // columns) * (kh + 1) + 1, (i % columns) * (kw + 1) + 1
        block[top : top + kh, left : left + kw] = np.rint(127.5 + 127.5 * weights / largest).transpose(1, 2, 0)
    return block
