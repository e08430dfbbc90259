"""The numbers of a step in a form that a page can carry: each different array once, in float32, deflated, as text.

An array is stored as one bit an element, is it other than +0, and the bytes of those that are: first all first bytes, then all
second ones, and so on, as like bytes deflate better. The text is base85 with a comma for its "<": 5 characters for 4 bytes
where base64 takes 5.3, and nothing in it can be a tag.

What the page can compute to the bit is not stored: it has the recipe instead. Those are ops that copy, compare, or do a few
roundings for each element in an order that is known: "forward" of an op, "backward" to one of its inputs, "add" of others.
A gradient of weights may be a "product" of one output's gradient and one input, or "sums" of such products, which are near
minidl's, but not its bits: how far from it is measured, and said. What does not fit is "left out".
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 14_300_000  # characters of all texts, so that a page stays under 15 MB
SIDE = 64  # of a left out matrix: blocks in each direction, and rows and columns of its window
FORWARD, BACKWARD = 6, 2  # terms that are kept for each output, and for each input, of a left out matrix
CARRIED = 1 << 20  # elements: a larger array does not come along


@dataclass
class _Entry:
    """An array: its recipe, or its text."""

    how: dict[str, Any]
    array: np.ndarray | None  # float32, while it may have to be compared
    deflated: bytes = b""
    expendable: int = 0  # if not everything fits the highest goes first, of equal ones the largest

    @property
    def characters(self) -> int:
        return -(-len(self.deflated) * 5 // 4)


class Values:
    """Arrays by number, in `entries`. full : nothing is left out, nor replaced by sums."""

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.entries: list[_Entry] = []
        self._known: dict[bytes, int] = {}

    def add(self, array: np.ndarray, recipe: dict[str, Any] | None = None, expendable: int = 0) -> int:
        """The number of an array: the one it had if it was here before, in whatever shape. With a recipe nothing is stored."""
        if array.size > CARRIED and not self.full:
            return self._new(recipe or {"how": "left out", "bytes": array.nbytes}, None)
        flat = np.ascontiguousarray(array, np.float32).reshape(-1)
        key = hashlib.blake2b(flat.tobytes(), digest_size=16).digest() + flat.size.to_bytes(8, "little")
        if key not in self._known:
            exact = recipe is not None and (recipe["how"] != "sums" or not self.full)
            self._known[key] = self._new(recipe if exact and recipe else {"how": "stored"}, flat, expendable)
        return self._known[key]

    def _new(self, how: dict[str, Any], array: np.ndarray | None, expendable: int = 0) -> int:
        deflated = deflate(array) if array is not None and how["how"] == "stored" else b""
        self.entries.append(_Entry(how, array, deflated, expendable))
        return len(self.entries) - 1

    def is_sum(self, whole: np.ndarray, parts: Sequence[int]) -> bool:
        """Is the array the sum, in this order, of others, to the bit?"""
        arrays = [self.entries[i].array for i in parts]
        if any(part is None for part in arrays):
            return False
        total = arrays[0]
        for part in arrays[1:]:
            total = total + part  # type: ignore[operator]
        flat = np.ascontiguousarray(whole, np.float32).reshape(-1)
        return total is not None and total.shape == flat.shape and bool(np.array_equal(total.view("u4"), flat.view("u4")))

    def packed(self, most: int = MOST) -> tuple[list[dict[str, Any]], list[str]]:
        """Each array's recipe as the page reads it, and the texts: {"how": "stored", "text": place of the text}."""
        self._leave_out(most)
        recipes: list[dict[str, Any]] = []
        texts: list[str] = []
        for entry in self.entries:
            recipe = dict(entry.how)
            if entry.deflated:
                recipe |= {"text": len(texts), "bytes": len(entry.deflated)}
                texts.append(as_text(entry.deflated))
            recipes.append(recipe)
        return recipes, texts

    def _leave_out(self, most: int) -> None:
        """Until the rest fits. Then what was to be computed from those is left out too."""
        excess = sum(entry.characters for entry in self.entries) - most
        for entry in sorted(self.entries, key=lambda entry: (entry.expendable, entry.characters), reverse=True):
            if excess <= 0 or self.full:
                return
            if entry.deflated and entry.array is not None:
                excess -= entry.characters
                entry.how, entry.deflated = {"how": "left out", "bytes": entry.array.nbytes}, b""


def deflate(flat: np.ndarray) -> bytes:
    """A vector of float32 in the form that the page reads."""
    there = flat.view(np.uint32) != 0
    planes = flat[there].astype("<f4").view(np.uint8).reshape(-1, 4).T
    return zlib.compress(np.packbits(there, bitorder="little").tobytes() + planes.tobytes(), 9)


def inflate(data: bytes, size: int) -> np.ndarray:
    """The vector of `size` elements that `deflate` was given."""
    raw = np.frombuffer(zlib.decompress(data), np.uint8)
    bits = -(-size // 8)
    there = np.unpackbits(raw[:bits], count=size, bitorder="little").astype(bool)
    flat = np.zeros(size, np.float32)
    flat[there] = np.ascontiguousarray(raw[bits:].reshape(4, -1).T).view("<f4").reshape(-1)
    return flat


def as_text(data: bytes) -> str:
    return base64.b85encode(data).replace(b"<", b",").decode("ascii")


def from_text(text: str) -> bytes:
    return base64.b85decode(text.encode("ascii").replace(b",", b"<"))


# ------------------------------------------------------------------------------------------- what stands for a large matrix


@dataclass(frozen=True)
class LargestTerms:
    """Of sums of products, a row each: the largest terms, and what the others add up to.

    places, factors : (rows, kept) of the terms in a row, largest first, and the matrix's elements there
    rest            : (rows,) the sum of the others, in float64
    """

    places: np.ndarray
    factors: np.ndarray
    rest: np.ndarray


def largest_terms(matrix: np.ndarray, vector: np.ndarray, kept: int) -> LargestTerms:
    """Of each row of `matrix` (rows, n) @ `vector` (n,), `kept` terms at most."""
    rows, n = matrix.shape
    kept = min(kept, n)
    places, factors, rest = np.empty((rows, kept), np.int64), np.empty((rows, kept), matrix.dtype), np.empty(rows)
    each = max(1, CARRIED // n)
    for start in range(0, rows, each):
        part = slice(start, start + each)
        some = np.ascontiguousarray(matrix[part])
        terms = some * vector
        sizes = np.abs(terms)
        largest = np.argpartition(-sizes, kept - 1, axis=1)[:, :kept]
        largest = np.take_along_axis(largest, np.argsort(-np.take_along_axis(sizes, largest, 1), 1, kind="stable"), 1)
        places[part], factors[part] = largest, np.take_along_axis(some, largest, 1)
        shown = factors[part].astype(np.float64) * vector[largest]
        rest[part] = some @ vector.astype(np.float64) - shown.sum(axis=1)
    return LargestTerms(places, factors, rest)


def blocks(matrix: np.ndarray) -> np.ndarray:
    """The root mean square of each of at most SIDE x SIDE blocks of a matrix, float16."""
    by_row = np.linspace(0, matrix.shape[0], min(SIDE, matrix.shape[0]) + 1).astype(int)[:-1]
    by_column = np.linspace(0, matrix.shape[1], min(SIDE, matrix.shape[1]) + 1).astype(int)[:-1]
    counts = np.outer(np.diff([*by_row, matrix.shape[0]]), np.diff([*by_column, matrix.shape[1]]))
    squares = np.stack(
        [np.add.reduceat(np.square(rows, dtype=np.float64).sum(axis=0), by_column) for rows in np.split(matrix, by_row[1:])]
    )
    return np.sqrt(squares / counts).astype(np.float16)  # for a picture
