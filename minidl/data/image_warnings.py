"""Pillow's warnings about a file, with the file's name, once.

Pillow warns of damage that it can pass over, such as EXIF data that ends too early, by Python's warnings: without the file's
name, once for each text whatever file it is about, and in the thread that decodes. `warnings.catch_warnings` would catch those
of all threads. So one hook is put into `warnings`: while a thread is inside `named`, what Pillow warns of in this thread is
kept, and everything else goes its usual way.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import local
from typing import Any


class ImageWarning(UserWarning):
    """A file that could be read, of which Pillow warned. `path` and `reason` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: Pillow warns: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type["ImageWarning"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class _Thread(local):
    """Of this thread: what Pillow warns of in the file that it decodes, and who is told of that when the file is read."""

    texts: list[str] | None = None
    told: list[ImageWarning] | None = None


_thread = _Thread()


class _Decoding:
    """In the place of a pattern for the text of warnings: all, in a thread that decodes a file."""

    def match(self, text: str) -> bool:
        return _thread.texts is not None


_said: set[tuple[str, str]] = set()
_FILTER: Any = ("always", _Decoding(), Warning, re.compile(r"PIL\."), 0)  # "always": other files may have the same text


@contextmanager
def named(path: str) -> Iterator[None]:
    """What Pillow warns of inside the block, in this thread, becomes one ImageWarning with the path, at the block's end.

    It goes to `told`'s list if the thread is in such a block, else to Python's warnings, as `say` does. An exception says by
    itself what is wrong with the file: then there is no warning.
    """
    _install()
    texts = _thread.texts = []
    try:
        yield
    finally:
        _thread.texts = None
    if texts:
        warning = ImageWarning(path, "; ".join(dict.fromkeys(" ".join(text.split()) for text in texts)))
        if _thread.told is None:
            say(warning, stacklevel=6)  # the line that asked for the image
        else:
            _thread.told.append(warning)


def say(warning: ImageWarning, stacklevel: int) -> None:
    """Give it to Python's warnings, unless that was done before: each epoch reads the same files."""
    key = warning.path, warning.reason
    if key not in _said:
        _said.add(key)
        warnings.warn(warning, stacklevel=stacklevel)


@contextmanager
def told(to: list[ImageWarning]) -> Iterator[None]:
    """Inside the block, in this thread, the files of which Pillow warns are listed instead."""
    before, _thread.told = _thread.told, to
    try:
        yield
    finally:
        _thread.told = before


def _install() -> None:
    """Again where it is gone, as after `catch_warnings`, or where another filter came before it."""
    if not warnings.filters or warnings.filters[0] is not _FILTER:
        with suppress(ValueError):
            warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
        warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
    if not hasattr(warnings.showwarning, "keeps_texts"):
        warnings.showwarning = _keeping_texts(warnings.showwarning)


def _keeping_texts(show: Any) -> Any:
    """`show`, a function such as warnings.showwarning, but for what Pillow says of the file that a thread decodes."""

    def keep_or_show(message: Any, category: Any, filename: str, *others: Any, **more: Any) -> None:
        if _thread.texts is not None and re.search(r"[/\\]PIL[/\\]", filename):
            _thread.texts.append(str(message))
        else:
            show(message, category, filename, *others, **more)

    keep_or_show.keeps_texts = True  # type: ignore[attr-defined]
    return keep_or_show
