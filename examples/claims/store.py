"""The results: a file of JSON lines for each net, a line for each run that ended. Several processes may append."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from minidl.checkpoint import append_whole


class Results:
    """The lines in a folder.

    ValueError: a line that is no JSON object with a "run", with the file and the line's number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: dict[str, Any]) -> None:
        """Append a run's record, whole or not at all; nothing if its line is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{record['settings']['net']}.jsonl"
        with FileLock(self.folder / ".lock"):
            if record["run"] in {old["run"] for old in self._lines(file)}:
                return
            _cut_torn_line(file)
            append_whole(file, (json.dumps(record, separators=(",", ":")) + "\n").encode())

    def all(self) -> dict[str, dict[str, Any]]:
        """{identity: record} of every run that ended."""
        return {record["run"]: record for file in sorted(self.folder.glob("*.jsonl")) for record in self._lines(file)}

    def _lines(self, file: Path) -> Iterator[dict[str, Any]]:
        if not file.exists():
            return
        lines = file.read_text().split("\n")
        for number, line in enumerate(lines[:-1], 1):  # after the last line's end is nothing, or a line that was not finished
            try:
                record = json.loads(line)
                record["run"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file}:{number}: must be the record of a run, got {line[:60]!r}") from error
            yield record


def _cut_torn_line(file: Path) -> None:
    """A process that was killed, or a machine that lost its power, may have left the beginning of a line."""
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with file.open("r+b") as f:
                f.truncate(whole)
