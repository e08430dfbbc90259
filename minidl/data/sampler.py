"""Samplers: in which order a DataLoader takes the samples, by PyTorch's rules.

Random ones draw when they are iterated, each time anew: from `generator`, or from minidl's default one (`manual_seed`). The
numbers are not PyTorch's.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from minidl import distributed, random
from minidl.data.transforms import ORDER
from minidl.random import Generator
from minidl.shapes import is_int

Item = TypeVar("Item", covariant=True)


class Sampler(Generic[Item]):
    """Base of samplers, which are iterables of indices, or of lists of them; most have a length too."""

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError(f"{type(self).__name__}: subclasses of Sampler must have __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, ... len(data_source) - 1."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices of data_source in a random order, or with `replacement` each drawn from all of them.

    num_samples : how many; of more than there are, without replacement, each index comes in every round of them

    TypeError if replacement is no bool; ValueError unless num_samples is an int of 1 or more, also of an empty data_source.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        if not isinstance(replacement, bool):
            raise TypeError(f"RandomSampler: replacement must be True or False, got {replacement!r}")
        _check_positive("RandomSampler", "num_samples", self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices it gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, left, generator = len(self.data_source), self.num_samples, _generator(self.generator)
        if self.replacement:
            yield from generator.integers(0, n, left).tolist()
            return
        while left > 0:
            yield from generator.permutation(n)[:left].tolist()
            left -= n

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """These indices in a random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in _generator(self.generator).permutation(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """num_samples indices of weights, each drawn with a probability in proportion to its weight.

    weights     : a sequence of numbers, 0 or more; an index of weight 0 is never drawn
    replacement : whether an index may come again; without, the weights of those that are left decide

    ValueError: num_samples is no int of 1 or more, replacement no bool, weights not one-dimensional. RuntimeError: a negative
    or infinite weight, all of them 0, or, without replacement, fewer weights above 0 than num_samples.
    Source: without replacement, Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the num_samples
    smallest of e_i / weight_i, e_i exponentially distributed.
    """

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True, generator: Generator | None = None) -> None:
        _check_positive("WeightedRandomSampler", "num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(f"WeightedRandomSampler: replacement must be True or False, got {replacement!r}")
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"WeightedRandomSampler: weights must be one-dimensional, got {self.weights.shape}")
        if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise RuntimeError(f"WeightedRandomSampler: weights must be finite and not negative, got {self.weights}")
        needed, above = 1 if replacement else num_samples, int((self.weights > 0).sum())
        if above < needed:
            raise RuntimeError(f"WeightedRandomSampler: at least {needed} weights must be above 0, got {above}")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        generator = _generator(self.generator)
        if self.replacement:
            ends = np.cumsum(self.weights)
            drawn = np.searchsorted(ends, _uniform(generator, self.num_samples) * ends[-1], side="right")
        else:
            (candidates,) = np.nonzero(self.weights)
            waits = -np.log1p(-_uniform(generator, len(candidates))) / self.weights[candidates]
            drawn = candidates[np.argsort(waits, kind="stable")[: self.num_samples]]
        yield from drawn.tolist()

    def __len__(self) -> int:
        return self.num_samples


class DistributedSampler(Sampler[int]):
    """This rank's share of a data set: the indices at the places rank, rank + num_replicas, ... of the epoch's order.

    num_replicas, rank : of minidl.distributed's group if None
    shuffle   : another order in each epoch, which is the same on all ranks; else 0, 1, 2, ...
    seed      : of the order. ImageLoader with this seed has the same order
    drop_last : leave out the last indices, so that all ranks get as many. Else some of the first come again at the end, so many
                times as it takes

    Call set_epoch before each epoch, or all have the same order. ValueError: a rank outside [0, num_replicas).
    RuntimeError: None, and there is no group.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
        rank = distributed.get_rank() if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank must be in [0, num_replicas) = [0, {num_replicas}), got {rank}")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        whole, rest = divmod(len(dataset), num_replicas)
        self.num_samples = whole + (rest > 0 and not drop_last)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        order = Generator(self.seed, ORDER, self.epoch).permutation(n) if self.shuffle else np.arange(n)
        if n:
            order = np.resize(order, self.total_size)  # the first come again, or the last go
        yield from order[self.rank :: self.num_replicas].tolist()

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of."""
        self.epoch = epoch


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of a sampler; the last one is shorter, or left out with drop_last.

    ValueError unless batch_size is an int of 1 or more, and drop_last a bool.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        _check_positive("BatchSampler", "batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"BatchSampler: drop_last must be True or False, got {drop_last!r}")
        self.sampler: Any = sampler  # len(self) needs len(sampler), iterating does not
        self.batch_size, self.drop_last = batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


def _generator(generator: Generator | None) -> Generator:
    return random.default_generator if generator is None else generator


def _uniform(generator: Generator, n: int) -> np.ndarray:
    """(n,) float64 in [0, 1), multiples of 2**-53: among millions of weights, those of Generator.uniform would be equal."""
    return (generator.words(2 * n).view("<u8") >> np.uint64(11)) * 2.0**-53


def _check_positive(owner: str, name: str, value: Any) -> None:
    if not is_int(value) or value <= 0:
        raise ValueError(f"{owner}: {name} must be an int of 1 or more, got {value!r}")
