"""A run's folder, and what train.py and evaluate.py share on the command line.

runs/alexnet/
  arguments.json     what was asked for, the versions that ran it, and where the data is
  log.jsonl          a line every few steps: step, epoch, lr, loss, top1, skipped, images_per_second, seconds; with --autopsy
                     also: step, illness, layers
  autopsy.csv        with --autopsy: a line for each layer and each step that was looked at
  tensorboard/       with --tensorboard: what TensorBoard shows
  statistics.npz     the mean image and colour components of the training set
  listings/          the names of the images that it is trained on
  checkpoints/       step-000400/ and so on: the last few and the best one
  best.json          which is the best one, and its score on the held-out set
  .reading           while training: which images its workers are reading
  set-aside/         checkpoints of later steps than the one that the run was resumed from
  curves.png         loss and accuracy
  conv1.png          the first layer's filters, tower by tower
"""

import argparse
import errno
import io
import json
import os
import platform
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from guards import DISK_FULL, DiskFullError, RankError, RunLockedError

import minidl
from minidl import Device, DeviceError
from minidl.checkpoint import Checkpoint, CheckpointError, append_whole, load_checkpoint
from minidl.checkpoint import write_whole as write_whole
from minidl.data import BadFileError, ImageLoader, last_read

ARGUMENTS, LOG, STATISTICS, CHECKPOINTS = "arguments.json", "log.jsonl", "statistics.npz", "checkpoints"
BEST, SET_ASIDE, READING = "best.json", "set-aside", ".reading"
MENDABLE = (*DISK_FULL, errno.EROFS, errno.EIO)  # of the disk


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


def fraction(text: str) -> float:
    """A number between 0 and 1, neither of the two."""
    return _number(text, "between 0 and 1", lambda value: 0 < value < 1)


def fractions(text: str) -> list[float]:
    """ ".25,.55" -> [.25, .55], each between 0 and 1, ascending."""
    values = [fraction(part) for part in text.split(",")]
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
    except Exception as error:
        if not is_mendable(error):
            raise
        text = "; ".join([str(error), *getattr(error, "__notes__", ())])  # the loader notes which image it was
        parser.exit(2, f"{parser.prog}: error: {text}\n")


def is_mendable(error: Exception) -> bool:
    """Is this about what was given, or about the disk, and not a fault of the program's?"""
    if isinstance(error, RankError):
        return error.mendable
    about_names = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
    if isinstance(error, OSError) and not isinstance(error, about_names):
        return error.errno in MENDABLE
    known = (CheckpointError, BadFileError, RunLockedError, DiskFullError, OSError)
    return isinstance(error, known) or type(error) is ValueError


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


def warnings_in_one_line() -> None:
    """From now on, on standard error, without the line of the program that they come from."""
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr, flush=True)


def report_skipped(loader: ImageLoader[Any], reported: set[str] | None = None) -> None:
    """How many unreadable images were left out, of how many Pillow warned, and the first of each.

    reported : files of whose warnings it was said before; these join them
    """
    if loader.skipped:
        path, reason = loader.skipped[0]
        print(f"{len(loader.skipped)} unreadable images were skipped, the first is {path}: {reason}")
    new = {path: reason for path, reason in loader.warned.items() if reported is None or path not in reported}
    if new:
        path, reason = next(iter(new.items()))
        print(f"of {len(new)} readable images Pillow warns, the first is {path}: {reason}")
    if reported is not None:
        reported.update(new)


def report_last_read(folder: Path) -> None:
    """What a run that was killed was reading: an image whose decoder crashes the process can't be reported otherwise."""
    names = last_read(folder / READING)
    if names:
        print(f"when the run was killed, its workers were reading {' and '.join(names)}")


# --------------------------------------------------------------------------------------------------------- the run folder


def create(folder: Path) -> None:
    """A new run folder. FileExistsError if it holds a run already."""
    if (folder / ARGUMENTS).exists():
        raise FileExistsError(f"{folder} holds a run; continue it with --resume {folder}, or give another --out")
    folder.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def find_run(path: str) -> Path:
    """A run folder, or a checkpoint in it -> the run folder. FileNotFoundError: neither."""
    given = Path(path)
    if (given / ARGUMENTS).is_file():
        return given
    folder = given.absolute().parent.parent
    if given.is_dir() and (folder / ARGUMENTS).is_file():
        return folder
    raise FileNotFoundError(f"{path}: is neither a run folder (with {ARGUMENTS}) nor a checkpoint in one")


def arguments_of(folder: Path) -> dict[str, Any]:
    """What the run in this folder was asked for."""
    return _about(folder)["arguments"]


def _about(folder: Path) -> dict[str, Any]:
    """What arguments.json holds. CheckpointError: not what train.py wrote."""
    try:
        about = json.loads((folder / ARGUMENTS).read_text())
        about["arguments"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / ARGUMENTS}: must be the JSON that train.py wrote, got {error!r}") from error
    return about


def remember(folder: Path, arguments: dict[str, Any], listing: str, versions: dict[str, str] | None = None) -> None:
    """Write arguments.json, unless it says this already; without versions, those that it has stay.

    listing : the SHA-256 of the names of the images, see listing.py
    """
    known = _about(folder) if versions is None else {}
    versions = known.get("versions", {}) if versions is None else versions
    about: dict[str, Any] = {"arguments": arguments, "versions": versions, "listing": listing}
    if arguments["data"] is not None:
        about["data_from_here"] = _relative(arguments["data"], folder)
    if about != known:
        write_json(folder / ARGUMENTS, about)


def _relative(path: str, folder: Path) -> str | None:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return None


def listing_at_start(folder: Path) -> str | None:
    """The SHA-256 of the names that the run began with; None if it is older than that is kept."""
    return _about(folder).get("listing")


def find_data(folder: Path, advice: str) -> str | None:
    """Where the run's data is: in the folder that was given, or, if all was moved together, as seen from the run folder.

    None for the embedded patterns. FileNotFoundError, with the advice, if it is in neither place.
    """
    data, from_here = arguments_of(folder).get("data"), _about(folder).get("data_from_here")
    if data is None or os.path.exists(data):
        return data
    moved = None if from_here is None else os.path.abspath(folder / from_here)
    if moved is not None and os.path.exists(moved):
        return moved
    where = f"not in {data}" if moved in (None, data) else f"neither in {data} nor in {moved}"
    raise FileNotFoundError(f"{folder}: its data is {where}; {advice}")


def versions(devices: Iterable[Device]) -> dict[str, str]:
    """What computed the numbers: "gpu" too, if a device is one."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads" for pool in pools]
    gpus = "; ".join(dict.fromkeys(filter(None, (device.hardware() for device in devices))))
    return {
        "minidl": minidl.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": "; ".join(blas) or "unknown",
        "threads": str(minidl.get_num_threads()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **({"gpu": gpus} if gpus else {}),
    }


# ----------------------------------------------------------------------------------------------------------- checkpoints


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / f"step-{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run by step, whole or not."""
    found = {}
    for entry in (folder / CHECKPOINTS).glob("*step-*"):
        name = re.fullmatch(r"(step-(\d+))|\.(step-(\d+))\.old", entry.name)  # the second waits to be replaced
        if name:
            found[int(name[2] or name[4])] = entry.with_name(name[1] or name[3])
    return [path for _, path in sorted(found.items())]


def find_checkpoint(path: str) -> Path | None:
    """A run folder's newest checkpoint, None if none was saved yet; or the checkpoint itself that was given."""
    folder = find_run(path)
    if folder != Path(path):
        return Path(path)
    return next(reversed(list_checkpoints(folder)), None)


def read_checkpoint(path: Path, advice: str) -> Checkpoint:
    """What was saved. CheckpointError if that is damaged, with the newest earlier checkpoint that is not.

    advice : what to do with that one; "{}" becomes its path.
    """
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        earlier = [other for other in list_checkpoints(find_run(str(path))) if _step_of(other) < _step_of(path)]
        whole = next((other for other in reversed(earlier) if _is_whole(other)), None)
        if whole is None:
            raise CheckpointError(f"{error}; of {len(earlier)} earlier checkpoints none is whole") from error
        raise CheckpointError(f"{error}; the previous whole checkpoint is {whole}: {advice.format(whole)}") from error


def _step_of(path: Path) -> int:
    """The number in a checkpoint's name, 0 in that of another folder."""
    number = re.fullmatch(r"step-(\d+)", path.absolute().name)
    return int(number[1]) if number else 0


def _is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def set_aside_later(folder: Path, step: int) -> list[Path]:
    """Move checkpoints of later steps out of the way of a run that goes on from `step`; returns where they are now."""
    later = [path for path in list_checkpoints(folder) if _step_of(path) > step]
    for path in reversed(later):  # cut short, this leaves the first of them, which follow the step
        target = folder / SET_ASIDE / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(path, target)
    return [folder / SET_ASIDE / path.name for path in later]


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint that best.json names. FileNotFoundError: there is none. CheckpointError: best.json is something else."""
    file = folder / BEST
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no checkpoint was scored yet, so none is the best")
    try:
        return folder / json.loads(file.read_text())["checkpoint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: must be the JSON that train.py wrote, got {error!r}") from error


def write_best(folder: Path, best: dict[str, Any] | None) -> None:
    """best.json about the checkpoint of best["step"]; without one the file goes."""
    if best is None:
        (folder / BEST).unlink(missing_ok=True)
    else:
        name = checkpoint_path(folder, best["step"]).relative_to(folder).as_posix()
        write_json(folder / BEST, {"checkpoint": name, **best})


# -------------------------------------------------------------------------------------------------------------- the log


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
        """One more row, on the disk when this returns; or OSError and no part of it."""
        append_whole(self.path, (json.dumps(row) + "\n").encode())


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
        return "curves.png needs matplotlib: pip install matplotlib"
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
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write_whole(folder / "curves.png", picture.getvalue())
    return None


def draw_filters(folder: Path, towers: list[np.ndarray], scale: int = 5) -> None:
    """conv1.png: each tower's filters (O, 3, KH, KW) as a block of pictures, tower 0 on top.

    Each filter is stretched so that its largest weight is white or black; grey is 0.
    """
    from PIL import Image

    picture = filter_picture(towers)
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    content = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).save(content, "PNG")
    write_whole(folder / "conv1.png", content.getvalue())


def filter_picture(towers: list[np.ndarray]) -> np.ndarray:
    """The towers' blocks as one picture (H, W, 3) uint8, a pixel for each weight, tower 0 on top."""
    blocks = [_filter_block(filters) for filters in towers]
    gap = np.full((4, blocks[0].shape[1], 3), 255, np.uint8)
    rows = [part for block in blocks for part in (block, gap)][:-1]
    return np.concatenate(rows)


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
