"""A plugin for pytest: what it says of a failed comparison stays short, and takes no time.

With CI set, or with -v, pytest hands both sides to difflib, whose time grows with the cube of the lines: two arrays' bytes keep
it busy for half an hour. Sides of more than LARGEST characters are named here by kind and size, with the place where they first
differ, and difflib never sees them.
"""

import itertools
import reprlib
from collections.abc import Generator, Mapping, Sequence, Set
from typing import Any
from unittest import mock

import numpy as np
import pytest

LARGEST = 4000  # characters of both sides together: fifty lines of words on each side take difflib two seconds
AROUND = 40  # characters of a text shown on each side of the first difference


@pytest.hookimpl(wrapper=True)
def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> Generator[None, list, list]:
    """The lines under a failed `assert left op right`."""
    if _size(left) + _size(right) <= LARGEST:
        return (yield)
    with mock.patch("_pytest.assertion.util.assertrepr_compare", return_value=[]):  # no option of pytest leaves it out
        yield
    return [[f"{_kind(left)} {op} {_kind(right)}", *_first_difference(left, right)]]


def _size(value: Any) -> int:
    """About how many characters pytest would write."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(entry) for key, entry in value.items())
    if isinstance(value, Sequence | Set):
        return sum(1 + _size(entry) for entry in value)
    return _size(vars(value)) if hasattr(type(value), "__dataclass_fields__") else 10


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if hasattr(type(value), "__len__") else ""
    return f"<{type(value).__name__}{size}>"


def _first_difference(left: Any, right: Any) -> list[str]:
    if not (isinstance(left, Sequence) and isinstance(right, Sequence)):
        return []
    pairs = enumerate(itertools.zip_longest(left, right))
    place = next((i for i, (a, b) in pairs if a is not b and a != b), None)
    if place is None:
        return []
    text = isinstance(left, str | bytes | bytearray)
    part = slice(max(place - AROUND, 0), place + AROUND) if text else slice(place, place + 1)
    shown = [repr(side[part]) if text else " ".join(map(reprlib.repr, side[part])) for side in (left, right)]
    return [f"they first differ at {place}:", *shown]
