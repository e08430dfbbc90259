"""From samples to a batch, by PyTorch's rules."""

from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from copy import copy
from typing import Any

import numpy as np

from minidl.create import as_tensor
from minidl.ops.reshape import stack
from minidl.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """A list of samples -> one batch, in which tensors have a first axis more, that of the samples.

        arrays, tensors     a Tensor; the dtype stays
        Python's floats     a Tensor of float64
        ints, bools         a Tensor of int64, of bool
        strings, bytes      as they are, a list or tuple of them
        dicts               a dict of batches, one for each key of the first sample
        namedtuples         the same kind of namedtuple, of batches
        tuples              a list of batches, one for each place
        lists               the same, for samples of one length

    The first sample says which of these it is. RuntimeError for sequences of unequal lengths; TypeError for anything else, such
    as None, Pillow's images, and arrays of strings or objects; what `minidl.stack` raises for tensors of unequal shapes.
    """
    first = batch[0]
    match first:
        case Tensor():
            return stack(list(batch))
        case np.ndarray():
            return _stacked(batch)
        case np.generic() if _holds_numbers(first.dtype):
            return as_tensor(np.array(batch))
        case float():
            return as_tensor(np.array(batch, np.float64))
        case int():
            return as_tensor(list(batch))
        case str() | bytes():
            return batch
        case Mapping():
            return _mapping_like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
        case Sequence():
            if len({len(sample) for sample in batch}) > 1:
                lengths = sorted({len(sample) for sample in batch})
                raise RuntimeError(f"default_collate: sequences of a batch must have one length, got {lengths}")
            return _sequence_like(first, [default_collate(items) for items in zip(*batch, strict=True)])
    raise TypeError(
        f"default_collate: takes tensors, arrays, numbers, strings, dicts, tuples and lists, got {type(first).__name__}; "
        "pass collate_fn for others"
    )


def default_convert(data: Any) -> Any:
    """One sample, its arrays made Tensors: what a DataLoader without batches gives."""
    match data:
        case np.ndarray() | np.generic() if _holds_numbers(data.dtype):
            return as_tensor(data)
        case str() | bytes():
            return data
        case Mapping():
            return _mapping_like(data, {key: default_convert(value) for key, value in data.items()})
        case Sequence():
            return _sequence_like(data, [default_convert(item) for item in data])
    return data


def _stacked(arrays: Sequence[Any]) -> Tensor:
    for array in arrays:
        if not _holds_numbers(array.dtype):
            raise TypeError(f"default_collate: takes arrays of numbers, got one of {array.dtype}; pass collate_fn for others")
    if len({(array.shape, array.dtype) for array in arrays}) == 1:  # one step of NumPy's
        return as_tensor(np.stack(arrays))
    return stack([as_tensor(array) for array in arrays])


def _holds_numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "biuf"


def _mapping_like(first: Any, content: dict[Any, Any]) -> Any:
    """A mapping of the first one's type: a changed copy of it, since it may hold more than its items."""
    return _like(first, content, MutableMapping, lambda new: new.update(content))


def _sequence_like(first: Any, items: list[Any]) -> Any:
    if isinstance(first, tuple):  # PyTorch's tuples come out as lists, but for namedtuples
        return type(first)(*items) if hasattr(first, "_fields") else items

    def fill(new: Any) -> None:
        for i, item in enumerate(items):
            new[i] = item

    return _like(first, items, MutableSequence, fill)


def _like(first: Any, content: Any, mutable: type, fill: Callable[[Any], None]) -> Any:
    """`content` in the first one's type; as it is where that type cannot be made so (a range, an array.array)."""
    try:
        if not isinstance(first, mutable):
            return type(first)(content)
        new = copy(first)
        fill(new)
    except TypeError:
        return content
    return new
