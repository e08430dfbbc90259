"""What a data set is, and data sets made of tensors and of other data sets, by PyTorch's rules."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Generic, TypeVar

from minidl.tensor import Tensor

Sample = TypeVar("Sample", covariant=True)


class Dataset(Generic[Sample]):
    """Base of data sets, for which `dataset[i]` is a sample; most have `len(dataset)` too. `a + b` is one after the other.

    A data set need not be a Dataset: DataLoader takes whatever has these two. With workers, `dataset[i]` is called from several
    threads. To make several samples at once, write `__getitems__(indices) -> list`: DataLoader then calls that.
    """

    def __getitem__(self, index: Any) -> Sample:
        raise NotImplementedError(f"{type(self).__name__}: subclasses of Dataset must have __getitem__")

    def __add__(self, other: "Dataset[Sample]") -> "ConcatDataset[Sample]":
        return ConcatDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """`dataset[i]` is (tensor[i], ...), of tensors with one length along their first axis. AssertionError if they differ."""

    def __init__(self, *tensors: Tensor) -> None:
        lengths = [tensor.size(0) for tensor in tensors]
        if len(set(lengths)) > 1:
            raise AssertionError(f"TensorDataset: tensors must have one length along their first axis, got {lengths}")
        self.tensors = tensors

    def __len__(self) -> int:
        return self.tensors[0].size(0)

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)


class ConcatDataset(Dataset[Sample]):
    """Data sets one after the other; negative indices count from the end.

    datasets         : a list of them
    cumulative_sizes : where each one ends

    AssertionError for none. ValueError for an index before the first; past the end, what the last data set raises.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets: list[Any] = list(datasets)
        if not self.datasets:
            raise AssertionError("ConcatDataset: at least 1 data set is needed, got 0")
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Sample:
        if index < -len(self):
            raise ValueError(f"ConcatDataset: index must be at least -{len(self)}, the length, got {index}")
        index += len(self) if index < 0 else 0
        which = min(bisect_right(self.cumulative_sizes, index), len(self.datasets) - 1)
        begin = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - begin]
