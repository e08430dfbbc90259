"""Counter-based random numbers: the same seed gives the same numbers on every backend, device and machine.

A usual generator carries a long internal state that every draw changes, so the numbers depend on who drew before. A
counter-based one is a pure function from (key, counter) to random words: element i of draw d can be computed by anybody,
in any order, on any device. The whole state is then two integers, the seed and the number of draws so far, which is all that
a checkpoint needs to continue bit for bit.

The function is Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as
NumPy computes it:

    key     = (seed, ids[0])
    counter = (block, draw, ids[1], ids[2])      block = 1, 2, ...: each gives four 64-bit words = eight 32-bit words

Words are made on the host and copied to the device that asks; only dropout's mask is made by a GPU itself, which computes the
same function. Integers and uniforms are exact; normals go through log, cos and sin, whose last bit may differ between machines.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl.parallel import run, slabs

_UINT64_MAX = 2**64 - 1
_WORDS = 8  # of a block
_LONG_ROW = 256  # words: it takes as long to make so many as to begin at another place
_NORMALS_AT_ONCE = 1 << 16  # pairs of normals made at a time: the temporaries stay in cache


class _Philox(threading.local):
    """A generator of NumPy's for each thread, set to each draw's key and counter: a new one takes longer than the draw."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)  # has made no words yet: none of its state's are left over
        self.state: Any = self.bits.state


_philox = _Philox()


@dataclass(frozen=True)
class Draw:
    """One draw of a generator: not its numbers, but what says which they are, so that any device can make them.

    seed, ids, number : the generator's seed and ids, and how many draws it had made before; all in [0, 2**64).
    places : where the rows of a part of a batch stand in the whole, see `placed`; None: it is the whole.
    """

    seed: int
    ids: tuple[int, int, int]
    number: int
    places: Sequence[int] | None = None

    def words(self, n: int, first: int = 0) -> np.ndarray:
        """n random 32-bit words of this draw from the first-th on, shape (n,), uint32; every time the same."""
        a, b, c = self.ids
        block, skipped = divmod(first, _WORDS)
        key, counter = _philox.state["state"]["key"], _philox.state["state"]["counter"]
        key[0], key[1] = self.seed, a
        counter[0], counter[1], counter[2], counter[3] = block, self.number, b, c
        _philox.bits.state = _philox.state
        return _philox.bits.random_raw((skipped + n + 1) // 2).astype("<u8", copy=False).view("<u4")[skipped : skipped + n]

    def bernoulli(self, p: float, shape: int | Sequence[int]) -> np.ndarray:
        """Boolean array, True with probability p (to the nearest 2**-32): element i, in C order, if word i is small enough.

        Of a part of a batch, which has its rows along the first axis, each row has the words of its place in the whole.
        """
        if self.places is None or isinstance(shape, int) or len(shape) == 0:
            return _bernoulli(self.words(_size(shape)), p, shape)
        places, row = self.places[: shape[0]], math.prod(shape[1:])
        if len(places) < shape[0]:
            raise ValueError(f"placed: every row of a batch needs its place, got {len(places)} places (x {tuple(shape)})")
        if not len(places):
            return np.empty(shape, bool)
        if row >= _LONG_ROW:
            words = np.concatenate([self.words(row, place * row) for place in places])
        else:  # one draw for all, also for the rows that are not here
            first = min(places)
            stop = max(places) + 1
            words = self.words((stop - first) * row, first * row).reshape(-1, row)[np.asarray(places) - first]
        return _bernoulli(words.reshape(-1), p, shape)


class Generator:
    """A stream of random numbers, keyed by `seed` and up to three `ids`.

    Generators with different (seed, ids) are independent. `Generator(seed, PURPOSE, epoch, index)` is how the data
    pipeline gets the same augmentation for an image whatever the number of workers.

    seed, ids : integers in [0, 2**64); ValueError otherwise.
    """

    def __init__(self, seed: int = 0, *ids: int) -> None:
        if len(ids) > 3:
            raise ValueError(f"Generator: takes at most 3 ids, got {len(ids)} ({ids})")
        for name, value in [("seed", seed), *((f"ids[{i}]", v) for i, v in enumerate(ids))]:
            if not 0 <= value <= _UINT64_MAX:
                raise ValueError(f"Generator: {name} must be in [0, 2**64), got {value}")
        self.seed: int = int(seed)
        a, b, c = (*map(int, ids), 0, 0, 0)[:3]
        self.ids: tuple[int, int, int] = (a, b, c)
        self.draws: int = 0

    def next_draw(self) -> Draw:
        """The next draw, for whoever makes its numbers later or elsewhere."""
        self.draws += 1
        return Draw(self.seed, self.ids, self.draws - 1)

    def words(self, n: int) -> np.ndarray:
        """The next draw: n random 32-bit words, shape (n,), uint32."""
        return self.next_draw().words(n)

    def integers(self, low: int, high: int, shape: int | Sequence[int] = ()) -> np.ndarray:
        """Integers in [low, high), int64. One word each: word * (high - low) >> 32, so a range must be below 2**31."""
        if not 0 < high - low < 2**31:
            raise ValueError(f"integers: high - low must be in [1, 2**31), got low {low}, high {high}")
        words = self.words(_size(shape)).astype(np.uint64)
        return (low + (words * np.uint64(high - low) >> np.uint64(32)).astype(np.int64)).reshape(shape)

    def uniform(self, shape: int | Sequence[int] = (), dtype: Any = np.float32) -> np.ndarray:
        """Uniform numbers in [0, 1), multiples of 2**-24. The same numbers for float32 and float64."""
        words = self.words(_size(shape)) >> np.uint32(8)
        return (words.astype(dtype) * np.dtype(dtype).type(2.0**-24)).reshape(shape)

    def bernoulli(self, p: float, shape: int | Sequence[int]) -> np.ndarray:
        """Boolean array, True with probability p (to the nearest 2**-32)."""
        return _bernoulli(self.words(_size(shape)), p, shape)

    def normal(self, shape: int | Sequence[int] = (), dtype: Any = np.float32) -> np.ndarray:
        """Standard normal numbers by Box and Muller's transform, computed in float64 and rounded to dtype.

        Two words give two normals: r cos(t), r sin(t) with r = sqrt(-2 ln u), u in (0, 1], t in [0, 2 pi).
        Source: Box and Muller, "A note on the generation of random normal deviates", 1958.
        """
        n = _size(shape)
        words = self.words(n + n % 2).reshape(-1, 2)
        out: np.ndarray = np.empty(words.shape, dtype)

        def make(first: int, stop: int) -> None:
            """Blocks first ... stop - 1; they are the same ones for any number of threads."""
            for some in slabs(first * _NORMALS_AT_ONCE, min(stop * _NORMALS_AT_ONCE, len(words)), _NORMALS_AT_ONCE):
                r = np.sqrt(-2.0 * np.log((words[some, 0] + 1.0) * 2.0**-32))
                t = words[some, 1] * (2.0 * math.pi * 2.0**-32)
                out[some, 0] = r * np.cos(t)
                out[some, 1] = r * np.sin(t)

        blocks = -(-len(words) // _NORMALS_AT_ONCE)
        if blocks > 1:  # a small draw is not worth the looking for BLAS's threads
            run(make, blocks)
        else:
            make(0, blocks)
        return out.reshape(-1)[:n].reshape(shape)

    def permutation(self, n: int) -> np.ndarray:
        """A random order of 0 ... n-1, int64: the order that sorts n random 64-bit words."""
        return np.argsort(self.words(2 * n).view("<u8"), kind="stable")

    def manual_seed(self, seed: int) -> "Generator":
        """Begin anew from `seed`; returns the generator, as PyTorch's does."""
        self.set_state(Generator(seed).state())
        return self

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps: the seed and the number of draws so far."""
        return {"seed": self.seed, "draws": self.draws}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue exactly where `state()` was taken."""
        self.seed, self.draws = int(state["seed"]), int(state["draws"])


class _StandIn(threading.local):
    generator: Generator | None = None


_stand_in = _StandIn()


class _Default(Generator):
    """The default generator. In a thread that has one to stand in, its draws are that one's."""

    def next_draw(self) -> Draw:
        return super().next_draw() if _stand_in.generator is None else _stand_in.generator.next_draw()


@contextmanager
def standing_in(generator: Generator) -> Iterator[None]:
    """What this thread draws from the default generator comes from this one: so it does not depend on other threads."""
    before, _stand_in.generator = _stand_in.generator, generator
    try:
        yield
    finally:
        _stand_in.generator = before


class _Places(threading.local):
    rows: Sequence[int] | None = None


_places = _Places()


@contextmanager
def placed(places: Sequence[int]) -> Iterator[None]:
    """What this thread computes inside the block is a part of a batch, whose row j is row places[j] of the whole one.

    Dropout then makes the masks that the whole batch would have there. `range(1, sys.maxsize, 4)` is every fourth row from the
    second on, however many there are.
    """
    before, _places.rows = _places.rows, places
    try:
        yield
    finally:
        _places.rows = before


def places() -> Sequence[int] | None:
    """Where the rows stand, inside `placed`; else None."""
    return _places.rows


def next_mask() -> Draw:
    """The default generator's next draw, for a mask over the rows of the batch that is at work."""
    draw = default_generator.next_draw()
    return draw if _places.rows is None else replace(draw, places=_places.rows)


default_generator: Generator = _Default(0)


def manual_seed(seed: int) -> Generator:
    """Restart the default generator (dropout, initialisation, `randn`) from `seed`; returns it, as PyTorch's does."""
    return default_generator.manual_seed(seed)


def words_below(p: float) -> int:
    """The limit below which a share p of all 2**32 words lies, to the nearest word."""
    return round(p * 2.0**32)


def _bernoulli(words: np.ndarray, p: float, shape: int | Sequence[int]) -> np.ndarray:
    return (words.astype(np.uint64) < np.uint64(words_below(p))).reshape(shape)


def _size(shape: int | Sequence[int]) -> int:
    return int(shape) if isinstance(shape, (int, np.integer)) else math.prod(shape)
