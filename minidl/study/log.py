"""A run's log as a table: `python -m minidl.study log RUN`, with --csv for other programs.

The rows are those of log.jsonl in the run's folder: reports of training, scores of the held-out images, and what the autopsy
said.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from minidl.study.step.table import fitted

# every table has these, in this order; what else a row has follows
COLUMNS = (
    *("step", "epoch", "lr", "loss", "top1", "skipped", "images_per_second", "seconds"),
    *("held_out_loss", "held_out_top1", "held_out_top5", "illness", "layers"),
)


# columns that go where the terminal is too narrow, the first of them first; what is not among COLUMNS goes before
_EXPENDABLE = (
    *("layers", "seconds", "skipped", "held_out_top5", "epoch", "images_per_second", "lr", "illness"),
    *("held_out_loss", "top1", "held_out_top1"),
)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated, a heading and a line for each row; what a row has not is empty. Numbers have all their digits, and what
    is neither number nor text is JSON."""
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(_cells(rows, COLUMNS, _whole))
    return content.getvalue().removesuffix("\n")


def as_text(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """A table to read: numbers have six digits, and only columns that some row fills are there.

    width : in characters; columns that do not fit are left out, and a note says which. None: all of them
    """
    used = [name for name in COLUMNS if any(name in row for row in rows)]
    cells = _cells(rows, used, _short)
    found = fitted(cells, range(len(used)), [*cells[0][len(used) :], *_EXPENDABLE], width, rest="--wide shows all")
    return "\n".join([*found.lines, *found.note])


def _cells(rows: Sequence[Mapping[str, Any]], known: Sequence[str], text: Any) -> list[list[str]]:
    others = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    columns = [*known, *others]
    return [columns, *([text(row.get(name)) for name in columns] for row in rows)]


def _whole(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _whole(value)
