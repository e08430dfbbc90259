"""What train.py --tensorboard writes: a file of events that TensorBoard shows.

It needs tensorboardX, which makes the messages (pip install "minidl[tensorboard]"). The file is written here, as the log is:
each record is on the disk when a call returns, and a resumed run drops those of later steps, which it will write again. So
nothing is there twice, whichever program reads it.

A record is the length of a message (8 bytes), a checksum of that (4), the message, an `Event`, and its checksum (4).
Source: TensorFlow's tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
"""

import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checkpoint import append_whole, write_whole
from minidl.nn import Module
from minidl.study.health.illnesses import Row

FILE = "events.out.tfevents.minidl"  # TensorBoard looks for "tfevents" in names
_BINS = 64
_HPARAMS = "_hparams_/"
_AUTOPSY = (
    *("mean_abs_activation", "std_over_batch", "mean_abs_gradient", "zeros", "dead", "always_on", "saturated"),
    *("mean_abs_weight_gradient", "update_ratio"),
)


def check_installed() -> None:
    """ValueError if tensorboardX is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ValueError('--tensorboard needs tensorboardX: pip install "minidl[tensorboard]"') from error


def check_new(folder: Path) -> None:
    """FileExistsError if the folder has another run's events."""
    if (folder / FILE).exists():
        raise FileExistsError(f"{folder / FILE}: has the events of another run; give --tensorboard another folder")


class Board:
    """The file of events in a folder, which is made if it is not there.

    step    : the steps done by a run that goes on: its records of later steps go, and one that was cut short. With 0 the file
              begins anew.
    hparams : what the run was asked for, for TensorBoard's table of hyper-parameters; None in it is left out
    """

    def __init__(self, folder: Path, step: int, hparams: Mapping[str, Any]) -> None:
        from tensorboardX import summary

        self._summary = summary
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        kept = [record for record, event in self._records() if step and event.step <= step and not _is_heading(event)]
        asked = {name: _plain(value) for name, value in hparams.items()}
        about = [self._record(0, summary=part) for part in summary.hparams(asked, {"held_out/top1": 0, "held_out/loss": 0})]
        write_whole(self.path, b"".join([self._record(0, file_version="brain.Event:2"), *about, *kept]))

    # ---------------------------------------------------------------------------------------------------------- writing

    def scalars(self, step: int, part: str, values: Mapping[str, float | None]) -> None:
        """One number each, "train/loss"; None is left out."""
        made = (self._summary.scalar(f"{part}/{name}", value) for name, value in values.items() if value is not None)
        self._append(step, made)

    def autopsy(self, step: int, rows: Iterable[Row]) -> None:
        """The numbers of every op that the autopsy looked at: "autopsy/dead/tower0.conv1"."""
        self.scalars(step, "autopsy", {f"{name}/{_tag(row.title)}": getattr(row, name) for row in rows for name in _AUTOPSY})

    def arrays(self, step: int, model: Module, filters: np.ndarray | None) -> None:
        """Histograms of every parameter and its gradient, and the first layer's filters (H, W, 3) uint8 as a picture."""
        made = []
        for name, p in model.named_parameters():
            made.append(self._histogram(f"weights/{_tag(name)}", p.device.to_host(p.data)))
            if p.grad is not None:
                made.append(self._histogram(f"gradients/{_tag(name)}", p.device.to_host(p.grad.data)))
        if filters is not None:
            made.append(self._summary.image("filters/conv1", filters, dataformats="HWC"))
        self._append(step, (part for part in made if part is not None))

    def drop(self, step: int, part: str) -> None:
        """The records of this step whose tags begin so go: a finished run that is resumed is scored again."""

        def goes(event: Any) -> bool:
            return event.step == step and any(value.tag.startswith(f"{part}/") for value in event.summary.value)

        records = list(self._records())
        if any(goes(event) for _, event in records):
            write_whole(self.path, b"".join(record for record, event in records if not goes(event)))

    def _append(self, step: int, parts: Iterable[Any]) -> None:
        append_whole(self.path, b"".join(self._record(step, summary=part) for part in parts))

    def _histogram(self, tag: str, array: np.ndarray) -> Any:
        """Of the finite numbers; None if there are none."""
        flat = array.ravel(order="K")
        flat = flat if np.isfinite(flat).all() else flat[np.isfinite(flat)]
        if not flat.size:
            return None
        counts, limits = np.histogram(flat, _BINS)
        squares = float(np.square(flat, dtype=np.float64).sum())
        about = float(flat.min()), float(flat.max()), flat.size, float(flat.sum(dtype=np.float64)), squares
        return self._summary.histogram_raw(tag, *about, limits[1:].tolist(), counts.tolist())

    # ---------------------------------------------------------------------------------------------------------- records

    def _record(self, step: int, **content: Any) -> bytes:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        message = Event(wall_time=time.time(), step=step, **content).SerializeToString()
        length = struct.pack("<Q", len(message))
        return b"".join([length, struct.pack("<I", masked_crc32c(length)), message, struct.pack("<I", masked_crc32c(message))])

    def _records(self) -> Iterator[tuple[bytes, Any]]:
        """(the record, its event), of the whole ones in the file. ValueError: it is no file of events."""
        from google.protobuf.message import DecodeError
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        content = self.path.read_bytes() if self.path.exists() else b""
        place = 0
        while place + 16 <= len(content):
            head = content[place : place + 8]
            end = place + 16 + struct.unpack("<Q", head)[0]
            if struct.unpack("<I", content[place + 8 : place + 12])[0] != masked_crc32c(head):
                raise ValueError(f"{self.path}: must be a file of events that train.py wrote, got other bytes at {place}")
            if end > len(content):
                return
            record, event = content[place:end], Event()
            try:
                event.ParseFromString(record[12:-4])
            except DecodeError as error:
                raise ValueError(
                    f"{self.path}: must be a file of events that train.py wrote, got at {place}: {error}"
                ) from error
            yield record, event
            place = end


def _is_heading(event: Any) -> bool:
    """What every opening writes anew: the version, the hyper-parameters."""
    return bool(event.file_version) or any(value.tag.startswith(_HPARAMS) for value in event.summary.value)


def _tag(name: str) -> str:
    """Tags have letters, digits and few other signs."""
    return re.sub(r"[^\w.\-/]+", "_", name)


def _plain(value: Any) -> Any:
    """As TensorBoard takes it: a number, a truth value or a text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
