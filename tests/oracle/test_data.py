"""Batches, samplers and DataLoader's arguments are PyTorch's (torch.utils.data)."""

import array
import inspect
from collections import OrderedDict, UserDict, UserList, namedtuple
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

import minidl
from minidl import data

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.utils.data")

Point = namedtuple("Point", ["x", "y"])


def assert_same(mine, their):
    """The same kind of container, of the same things; of tensors dtype, shape and values."""
    if isinstance(their, torch.Tensor):
        assert isinstance(mine, minidl.Tensor) and str(mine.dtype) == str(their.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(mine.numpy(), their.numpy(), strict=True)
        return
    assert type(mine) is type(their)
    if isinstance(their, (str, bytes)):
        assert mine == their
    elif hasattr(their, "keys"):
        assert list(mine) == list(their)
        for key in their:
            assert_same(mine[key], their[key])
    elif hasattr(their, "__len__") and not isinstance(their, np.ndarray):
        assert len(mine) == len(their)
        for one, other in zip(mine, their, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(mine, their)


def image(i, shape=(3, 4, 5), dtype="float32"):
    return (np.random.default_rng(i).uniform(0, 200, shape)).astype(dtype)


# sample number i, for minidl and for PyTorch (m)
SAMPLES = {
    **{
        f"{dtype} arrays {shape}": lambda i, m, shape=shape, dtype=dtype: image(i, shape, dtype)
        for shape in [(3, 4, 5), (4, 5, 3), (2,), ()]
        for dtype in ["float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool"]
    },
    "tensors": lambda i, m: m.tensor([i, 2 * i]),
    "float64 tensors": lambda i, m: m.tensor([[i, 0.1]], dtype=m.float64),
    "tensors of two dtypes": lambda i, m: m.ones(2, dtype=m.float32 if i else m.int64),
    "arrays of two dtypes": lambda i, m: np.ones(2, "float32" if i else "int64"),
    "transposed arrays": lambda i, m: image(i).transpose(2, 0, 1),
    "0-d tensors": lambda i, m: m.tensor(0.5 + i),
    "ints": lambda i, m: i,
    "bools": lambda i, m: i > 1,
    "bools and ints": lambda i, m: i if i else True,
    "floats": lambda i, m: 0.1 * i,
    "floats and ints": lambda i, m: i if i else 0.1,
    "ints and floats": lambda i, m: 0.1 if i else 3,
    "float32 scalars": lambda i, m: np.float32(0.1 * i),
    "float64 scalars": lambda i, m: np.float64(0.1 * i),
    "uint8 scalars": lambda i, m: np.uint8(i),
    "bool scalars": lambda i, m: np.bool_(i),
    "strings": lambda i, m: f"file {i}",
    "NumPy's strings": lambda i, m: np.str_(i),
    "bytes": lambda i, m: b"%d" % i,
    "an image and a label": lambda i, m: (image(i), i),
    "an image and a float": lambda i, m: (image(i), 0.5 * i),
    "features and a vector": lambda i, m: (image(i, (7,)), image(i, (2,), "float64")),
    "one tensor in a tuple": lambda i, m: (m.tensor([i]),),
    "three items": lambda i, m: (image(i), i, f"{i}.png"),
    "lists": lambda i, m: [i, [0.5, image(i)]],
    "dicts": lambda i, m: {"image": image(i, dtype="uint8"), "label": i, "about": {"path": str(i), "size": (i, 2)}},
    "dicts with keys of their own": lambda i, m: {"a": i, i: i} if not i else {i: i, "a": i, 0: 0},
    "ordered dicts": lambda i, m: OrderedDict(b=i, a=0.5),
    "mappings that cannot change": lambda i, m: MappingProxyType({"a": i}),
    "mappings of the user's": lambda i, m: UserDict(a=i),
    "sequences of the user's": lambda i, m: UserList([i, 0.5]),
    "ranges": lambda i, m: range(i, i + 3),
    "arrays of the module array": lambda i, m: array.array("i", [i, 1]),
    "namedtuples": lambda i, m: Point(image(i), i),
    "namedtuples of namedtuples": lambda i, m: Point(Point(i, 0.5), "a"),
    "empty tuples": lambda i, m: (),
    "None": lambda i, m: None,
    "None in a tuple": lambda i, m: (i, None),
    "sets": lambda i, m: {i},
    "arrays of strings": lambda i, m: np.array(["a", "b"]),
    "arrays of objects": lambda i, m: np.array([None]),
    "tuples of unequal lengths": lambda i, m: (1,) * (i + 1),
    "arrays of unequal shapes": lambda i, m: np.zeros(i + 1),
    "dicts that lack a key": lambda i, m: {} if i else {"a": 1},
}


def outcome(make):
    """(result, None), or (None, the exception's type)."""
    try:
        return make(), None
    except Exception as error:
        return None, type(error)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_batch(name):
    mine, their = ([SAMPLES[name](i, m) for i in range(3)] for m in (minidl, torch))
    found, error = outcome(lambda: data.default_collate(mine))
    expected, their_error = outcome(lambda: theirs.default_collate(their))
    assert error is their_error
    assert_same(found, expected)


@pytest.mark.parametrize("name", SAMPLES)
def test_one_sample_without_a_batch(name):
    assert_same(data.default_convert(SAMPLES[name](1, minidl)), theirs.default_convert(SAMPLES[name](1, torch)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["three items", "dicts", "namedtuples", "tensors", "floats"])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3},
        {"batch_size": 3, "drop_last": True},
        {"batch_size": None},
        {"batch_size": 2, "sampler": [4, 4, 0]},
        {"batch_size": None, "sampler": [4, 4, 0]},
        {"batch_sampler": [[1], [4, 3, 2]]},
        {"batch_size": 2, "collate_fn": list},
    ],
    ids=str,
)
def test_an_epoch(options, name, workers):
    """PyTorch without workers: those change nothing, and are processes."""
    mine, their = ([SAMPLES[name](i, m) for i in range(5)] for m in (minidl, torch))
    ours, other = data.DataLoader(mine, num_workers=workers, **options), theirs.DataLoader(their, **options)
    assert len(ours) == len(other)
    assert (ours.batch_size, ours.drop_last) == (other.batch_size, other.drop_last)
    for batch, expected in zip(ours, other, strict=True):
        assert_same(batch, expected)


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(
    "name",
    [
        *("DataLoader", "BatchSampler", "RandomSampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler"),
        *("Subset", "TensorDataset", "ConcatDataset", "DistributedSampler"),
    ],
)
def test_arguments_have_pytorchs_names_places_and_defaults(name):
    assert parameters(getattr(data, name)) == parameters(getattr(theirs, name))


def test_random_split_takes_pytorchs_arguments():
    assert list(inspect.signature(data.random_split).parameters) == list(inspect.signature(theirs.random_split).parameters)


WRONG = [
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"persistent_workers": True},
    {"multiprocessing_context": "fork"},
    {"sampler": [0], "shuffle": True},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "sampler": [0]},
    {"batch_sampler": [[0]], "drop_last": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": 1.5},
    {"drop_last": 1},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_what_pytorch_refuses_is_refused(options):
    for module in (data, theirs):
        with pytest.raises(ValueError):
            module.DataLoader([1, 2], **options)


def _shared_out(d, n, ranks, drop_last):
    samplers = [d.DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=drop_last) for rank in range(ranks)]
    return [(list(sampler), len(sampler), sampler.num_samples, sampler.total_size, sampler.epoch) for sampler in samplers]


CALLS = {
    **{
        f"{n} samples on {ranks} ranks{', whole' * drop_last}": partial(_shared_out, n=n, ranks=ranks, drop_last=drop_last)
        for n in (0, 1, 7, 12, 13)
        for ranks in (1, 2, 3, 5)
        for drop_last in (False, True)
    },
    "a rank too many": lambda d: d.DistributedSampler(range(3), 2, 2),
    "lengths": lambda d: [len(part) for part in d.random_split(range(10), [3, 7])],
    "fractions": lambda d: [len(part) for part in d.random_split(range(11), [0.3, 0.3, 0.4])],
    "lengths that do not add up": lambda d: d.random_split(range(10), [3, 3]),
    "fractions that do not add up": lambda d: d.random_split(range(10), [0.5, 0.4]),
    "a part of fractions": lambda d: d.random_split(range(10), [1.5, -0.5]),
    "subset": lambda d: [*d.Subset("abc", [2, 0, -1]), len(d.Subset("abc", [1])), d.Subset("abc", [0, 1])[-1]],
    "past a subset": lambda d: d.Subset("abc", [1])[1],
    "concat": lambda d: [*d.ConcatDataset(["abc", "", "d"]), d.ConcatDataset(["ab", "c"])[-3]],
    "past a concat": lambda d: d.ConcatDataset(["abc"])[3],
    "before a concat": lambda d: d.ConcatDataset(["abc"])[-4],
    "no concat": lambda d: d.ConcatDataset([]),
    "no sampler": lambda d: iter(d.Sampler()),
    "no data set": lambda d: d.Dataset()[0],
    "batches": lambda d: list(d.BatchSampler(range(7), 3, False)) + list(d.BatchSampler(range(7), 3, True)),
    "numbers of batches": lambda d: [len(d.BatchSampler(range(n), 3, last)) for n in range(8) for last in (False, True)],
    "sequence": lambda d: list(d.SequentialSampler("abcd")),
    "nothing to shuffle": lambda d: d.RandomSampler([]),
    "how many": lambda d: [len(list(d.RandomSampler("abc", num_samples=n))) for n in (1, 3, 8)],
    "replacement 1": lambda d: d.RandomSampler([1], replacement=1),
    "weights of two dimensions": lambda d: d.WeightedRandomSampler([[1.0]], 1),
    "weighted, one left": lambda d: list(d.WeightedRandomSampler([0, 1, 0], 4)),
    "weights below 0": lambda d: list(d.WeightedRandomSampler([1, -1], 1)),
    "too few weights": lambda d: list(d.WeightedRandomSampler([1, 1], 3, replacement=False)),
    "setting batch_size": lambda d: setattr(d.DataLoader([1]), "batch_size", 2),
    "length without one": lambda d: len(d.DataLoader([1], sampler=iter([0]))),
    "attributes": lambda d: [
        (loader.batch_size, loader.num_workers, loader.drop_last, loader.timeout, loader.prefetch_factor, loader.pin_memory)
        for loader in (d.DataLoader([1], num_workers=1), d.DataLoader([1]), d.DataLoader([1], batch_sampler=[[0]]))
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_the_rest(name):
    found, error = outcome(lambda: CALLS[name](data))
    expected, their_error = outcome(lambda: CALLS[name](theirs))
    assert error is their_error and found == expected
