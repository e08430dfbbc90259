"""Text -> sections: `[name]`, then `key=value` a line; `#` begins a comment. And the checks of a single key.

An error names the file, the section, the key, the rule and what is there:

    layers.cfg [conv2] stride: must be an integer of at least 1, got 0
"""

import configparser
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FilePath = str | os.PathLike[str]
Overrides = Mapping[str, Mapping[str, Any] | None]

# the keys of parameter files; all others stand in layer files
PARAMETER_KEYS = {"epsW", "epsB", "momW", "momB", "wc", "wball", "superEps", "superMom"}
PARAMETER_KEYS |= {"scale", "pow", "minDiv", "enable", "coeff", "topk"}

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Section:
    """One section. It notes which keys are asked for, so that `done` finds those that nobody reads."""

    def __init__(self, file: str, name: str, values: Mapping[str, str]) -> None:
        self.file, self.name = file, name
        self.values = dict(values)
        self.asked: dict[str, None] = {}  # the keys that were asked for, in this order

    def error(self, key: str, rule: str, got: object = None) -> ValueError:
        """The error about a key, to be raised."""
        return ValueError(f"{self.file} [{self.name}] {key}: {rule}" + ("" if got is None else f", got {got}"))

    def done(self) -> None:
        """ValueError for a key that nobody asked for."""
        for key in self.values:
            if key not in self.asked:
                raise self.error(key, f"is no key of this section, which has {', '.join(self.asked)}")

    # ------------------------------------------------------------------------------------------------------ one value

    def has(self, key: str) -> bool:
        self.asked[key] = None
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str:
        """The value as it stands there. ValueError if there is none, and no default."""
        if self.has(key):
            return self.values[key]
        if default is None:
            raise self.error(key, "is missing")
        return default

    def choice(self, key: str, among: Sequence[str]) -> str:
        value = self.text(key)
        if value not in among:
            raise self.error(key, f"must be {' or '.join(among)}", value)
        return value

    def integer(self, key: str, default: int | None = None, least: int | None = None) -> int:
        return self._integer(key, self.text(key, _written(default)), least)

    def number(self, key: str, default: float | None = None, least: float | None = None) -> float:
        return self.as_number(key, self.text(key, _written(default)), least)

    def flag(self, key: str, default: bool | None = None) -> bool:
        return self._flag(key, self.text(key, _written(default)))

    def zero(self, key: str) -> None:
        """ValueError unless the key is left out or 0, for each input."""
        for entry in self.text(key, "0").split(","):
            if self.as_number(key, entry.strip()) != 0:
                raise self.error(key, "must be 0, nothing else is read", self.values[key])

    # --------------------------------------------------------------------------------- lists: an entry for each input

    def texts(self, key: str, n: int, default: str | None = None) -> list[str]:
        """n entries between commas; the default counts for each of them."""
        if default is not None and not self.has(key):
            return [default] * n
        entries = [entry.strip() for entry in self.text(key).split(",")]
        if len(entries) != n:
            raise self.error(key, f"must have an entry for each of {n} inputs", f"{len(entries)}: {self.values[key]}")
        return entries

    def integers(self, key: str, n: int, default: int | None = None, least: int | None = None) -> list[int]:
        return [self._integer(key, entry, least) for entry in self.texts(key, n, _written(default))]

    def numbers(self, key: str, n: int, default: float | None = None, least: float | None = None) -> list[float]:
        return [self.as_number(key, entry, least) for entry in self.texts(key, n, _written(default))]

    def flags(self, key: str, n: int, default: bool | None = None) -> list[bool]:
        return [self._flag(key, entry) for entry in self.texts(key, n, _written(default))]

    # ------------------------------------------------------------------------------------------------ text -> a value

    def _integer(self, key: str, text: str, least: int | None) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or (least is not None and value < least):
            raise self.error(key, f"must be an integer{'' if least is None else f' of at least {least}'}", text)
        return value

    def as_number(self, key: str, text: str, least: float | None = None) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (least is not None and value < least):
            raise self.error(key, f"must be a number{'' if least is None else f' of at least {least:g}'}", text)
        return value

    def _flag(self, key: str, text: str) -> bool:
        if text.lower() not in YES + NO:
            raise self.error(key, "must be 0 or 1, or false or true", text)
        return text.lower() in YES


def _written(default: float | bool | None) -> str | None:
    return None if default is None else str(default)


Sections = dict[str, Section]


def read_sections(path: FilePath) -> Sections:
    """The sections of a file in their order. ValueError: not of this form. FileNotFoundError: no such file."""
    parser = configparser.ConfigParser(
        delimiters=("=",),
        comment_prefixes=("#",),
        inline_comment_prefixes=("#",),
        empty_lines_in_values=False,
        interpolation=None,
        default_section="",  # "DEFAULT" would be a name as others are
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their capitals
    file = os.fspath(path)
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8"), source=file)
    except configparser.Error as error:
        raise ValueError(f"{file}: must be [name] lines with key=value lines below them: {_one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: must be a text in UTF-8: {error}") from error
    return {name: Section(file, name, parser[name]) for name in parser.sections()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def override(name: str, changes: Mapping[str, Any] | None, layers: Sections, files: Sequence[Sections]) -> None:
    """Change keys of a layer, in place: those that parameter files have there, in each of them, any other in the layer file.

    A value is written as in the file; None takes the key out. None for all changes takes the layer out: those that read it
    read its input instead.

    ValueError: there is no such layer, or one that is taken out has not one input.
    """
    if name not in layers:
        raise ValueError(f"overrides: must name layers of the file, {', '.join(layers)}, got {name}")
    if changes is None:
        _take_out(name, layers)
        for params in files:
            params.pop(name, None)
        return
    for key, value in changes.items():
        for section in [params[name] for params in files if name in params] if key in PARAMETER_KEYS else [layers[name]]:
            section.values.pop(key, None)
            if value is not None:
                section.values[key] = str(value)


def _take_out(name: str, layers: Sections) -> None:
    inputs = layers[name].values.get("inputs", "")
    if not inputs or "," in inputs:
        raise layers[name].error("inputs", "must be one layer if this layer is to be taken out", inputs or "none")
    del layers[name]
    for section in layers.values():
        read = [entry.strip() for entry in section.values.get("inputs", "").split(",")]
        if name in read:
            section.values["inputs"] = ",".join(inputs if entry == name else entry for entry in read)
