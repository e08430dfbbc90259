"""What a program does when the reader of its output leaves, as in `train.py | head -3`: it ends, without a traceback.

Python raises BrokenPipeError at the write that finds nobody, or reports it at the very end, when it writes what it still holds.
Here that write sends all further output nowhere and ends the program; inside `going_on` it is only noted, for a program that
has something to save first.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEFT = 141  # the exit code of a program that SIGPIPE, the signal 13, ended: 128 + 13


class ReaderLeft(SystemExit):
    """Nobody reads the output any more. Like SystemExit it ends the program in silence."""


@dataclass
class _Program:
    """Has the reader of its output left, and does it go on then?"""

    left: bool = False
    goes_on: bool = False


_program = _Program()


class _Output:
    """A text stream whose reader may leave; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[..., Any], *arguments: Any) -> None:
        try:
            action(*arguments)
        except BrokenPipeError:
            _send_nowhere(self._stream)
            _program.left = True
            if not _program.goes_on:
                raise ReaderLeft(LEFT) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _send_nowhere(stream: Any) -> None:
    """Also what the stream still holds, which the interpreter would try to write at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def reader_left() -> bool:
    """Did the reader of the program's output leave?"""
    return _program.left


@contextmanager
def going_on() -> Iterator[None]:
    """Inside the block the program does not end when the reader leaves; it asks `reader_left`, and ends when it is ready."""
    _program.goes_on = True
    try:
        yield
    finally:
        _program.goes_on = False


def until_the_reader_leaves(main: Callable[[], int]) -> int:
    """The exit code of main(); LEFT if the reader of its output, or of its errors, left, unless main() failed.

    What can't be printed in the output's encoding, such as a file name that is no text, is printed with escapes.
    """
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = map(_Output, streams)
    try:
        try:
            code = main()
        finally:  # also where argparse ends the program
            for output in (sys.stdout, sys.stderr):
                output.flush()
    finally:
        sys.stdout, sys.stderr = streams
    return code or (LEFT if _program.left else 0)
