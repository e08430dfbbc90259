"""DataLoader, samplers and data sets made of others: what they do; tests/oracle/test_data.py compares them with PyTorch's."""

import threading
from collections import Counter, OrderedDict, namedtuple
from itertools import chain

import numpy as np
import pytest

import minidl
from minidl import Generator, Tensor, nn
from minidl.data import (
    MNIST,
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    Patterns,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    get_worker_info,
    random_split,
)
from minidl.data import (
    workers as workers_module,
)

Point = namedtuple("Point", ["x", "y"])


def numbers(batches):
    return [batch.tolist() for batch in batches]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-loader")]


# ------------------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 4, 3), (1, 28, 28), (32, 32, 3), (5,), ()])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool"])
def test_a_batch_has_the_samples_axes_and_dtype_behind_its_own(shape, dtype):
    x = np.random.default_rng(0).uniform(0, 2, (4, *shape)).astype(dtype)
    for dataset in (x, TensorDataset(Tensor(x)), list(x)):
        batch = next(iter(DataLoader(dataset, batch_size=4)))
        batch = batch[0] if isinstance(batch, list) else batch
        assert isinstance(batch, Tensor) and batch.dtype == dtype and batch.data.flags.c_contiguous
        np.testing.assert_array_equal(batch.numpy(), x)


def test_labels_keep_what_they_are():
    samples = [(np.zeros(2, "float32"), 0.1 + i, i, np.float32(i), np.array([i, 0.5])) for i in range(3)]
    _, floats, ints, float32, vectors = next(iter(DataLoader(samples, 3)))
    assert [str(x.dtype) for x in (floats, ints, float32, vectors)] == ["float64", "int64", "float32", "float64"]
    assert floats.tolist() == [0.1, 1.1, 2.1] and vectors.tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]


def test_batches_can_go_to_a_device():
    (x, y), *_ = DataLoader([(np.zeros(3, "f"), 1)] * 4, 2)
    assert str(x.to("cpu:1").device) == str(y.to("cpu:1").device) == "cpu:1"


def test_samples_of_other_shapes_than_the_first_are_refused():
    with pytest.raises(RuntimeError, match=r"stack: tensors must have one shape, got \(2,\), \(3,\)") as caught:
        list(DataLoader([np.zeros(2), np.zeros(3)], 2))
    assert caught.value.__notes__ == ["DataLoader: while making a batch of samples [0, 1]"]


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (None, "got NoneType; pass collate_fn"),
        (object(), "got object; pass collate_fn"),
        ({1, 2}, "got set; pass collate_fn"),
        (np.array(["a"]), "arrays of numbers, got one of <U1; pass collate_fn"),
        (np.array([None]), "arrays of numbers, got one of object; pass collate_fn"),
        ((1, None), "got NoneType; pass collate_fn"),
    ],
)
def test_what_no_batch_can_hold_is_named(sample, text):
    with pytest.raises(TypeError, match=f"default_collate: takes .*{text}"):
        default_collate([sample, sample])


def test_sequences_of_unequal_lengths():
    with pytest.raises(RuntimeError, match=r"default_collate: sequences of a batch must have one length, got \[1, 2\]"):
        default_collate([[1, 2], [1]])


def test_a_mapping_or_sequence_keeps_its_type_and_what_else_it_holds():
    class Noted(list):
        note = "none"

    samples = [Noted([1, 2]), Noted([3, 4])]
    samples[0].note = "first"
    found = default_collate(samples)
    assert type(found) is Noted and found.note == "first" and numbers(found) == [[1, 3], [2, 4]]
    assert type(samples[0][0]) is int, "the sample itself is left as it was"
    assert type(default_collate([OrderedDict(a=1), OrderedDict(a=2)])) is OrderedDict
    assert type(default_collate([range(2)])) is list


def test_without_batches_samples_come_one_by_one():
    samples = [(np.zeros((2, 3), "uint8"), 1, "a"), {"x": np.float64(2), "y": [np.ones(1)]}, Point(np.ones(2), 3)]
    (array, one, text), mapping, point = DataLoader(samples, batch_size=None)
    assert isinstance(array, Tensor) and array.shape == (2, 3) and array.dtype == np.uint8 and (one, text) == (1, "a")
    assert mapping["x"].item() == 2 and mapping["x"].shape == () and isinstance(mapping["y"][0], Tensor)
    assert type(point) is Point and isinstance(point.x, Tensor) and point.y == 3
    assert len(DataLoader(samples, batch_size=None)) == 3
    assert default_convert(np.array(["a"])).dtype.kind == "U" and default_convert(None) is None


def test_collate_fn_gets_the_samples_in_a_list():
    loader = DataLoader([1, 2, 3], 2, collate_fn=lambda samples: ("mine", samples))
    assert list(loader) == [("mine", [1, 2]), ("mine", [3])]
    assert list(DataLoader([1, 2], batch_size=None, collate_fn=lambda sample: -sample)) == [-1, -2]


def test_a_data_set_may_make_several_samples_at_once():
    class Many(Dataset):
        def __len__(self):
            return 5

        def __getitems__(self, indices):
            return [10 * i for i in indices]

    assert numbers(DataLoader(Many(), 2)) == [[0, 10], [20, 30], [40]]


# -------------------------------------------------------------------------------------------------------------------- order


def epochs(n=2, workers=0, **options):
    loader = DataLoader(range(20), 6, shuffle=True, num_workers=workers, **options)
    return [list(chain(*numbers(loader))) for _ in range(n)]


def test_two_epochs_have_two_orders_and_the_seed_says_which():
    minidl.manual_seed(5)
    first = epochs()
    assert sorted(first[0]) == sorted(first[1]) == list(range(20)) and first[0] != first[1]
    minidl.manual_seed(5)
    assert epochs(workers=2) == first
    minidl.manual_seed(6)
    assert epochs() != first


def test_a_generator_of_its_own_says_the_order():
    state = minidl.random.default_generator.state()
    first = epochs(generator=Generator().manual_seed(7))
    assert epochs(generator=Generator(7)) == first != epochs(generator=Generator(8))
    assert minidl.random.default_generator.state() == state


def test_the_order_is_fixed_when_the_iterator_is_made_whatever_comes_between():
    minidl.manual_seed(5)
    seen = get_seed()
    minidl.manual_seed(5)
    assert get_seed(draws=3) == seen


def get_seed(draws=0):
    batches = iter(DataLoader([0], num_workers=1, collate_fn=lambda _: get_worker_info().seed))
    minidl.randn(draws)
    return next(batches)


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_sampler_says_the_order(drop_last):
    class Backwards(Sampler):
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            return iter(range(self.n - 1, -1, -1))

        def __len__(self):
            return self.n

    loader = DataLoader(range(5), 2, sampler=Backwards(5), drop_last=drop_last)
    assert numbers(loader) == [[4, 3], [2, 1], [0]][: 2 if drop_last else 3] and len(loader) == len(list(loader))


def test_a_batch_sampler_says_the_batches():
    loader = DataLoader("abcdef", batch_sampler=[[5, 0], [1], [2, 3, 4]], num_workers=2)
    assert list(loader) == [["f", "a"], ["b"], ["c", "d", "e"]] and len(loader) == 3 and loader.batch_size is None


def test_random_samplers():
    assert sorted(RandomSampler(range(9))) == list(range(9))
    some = RandomSampler(range(9), num_samples=4, generator=Generator(1))
    assert list(some) == list(RandomSampler(range(9), generator=Generator(1)))[:4]
    rounds = list(RandomSampler(range(5), num_samples=12))
    assert sorted(rounds[:5]) == sorted(rounds[5:10]) == list(range(5)) and len(set(rounds[10:])) == 2
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=3000, generator=Generator(2)))
    # each count is binomial, n 3000, p 1/3: its standard deviation is 25.8
    assert all(abs(n - 1000) < 5 * 25.8 for n in Counter(drawn).values()) and len(set(drawn)) == 3
    assert sorted(SubsetRandomSampler([4, 8, 15])) == [4, 8, 15]


def test_weighted_samples_come_in_proportion():
    weights = [1.0, 0.0, 2.0, 5.0]
    drawn = Counter(WeightedRandomSampler(weights, 8000, generator=Generator(1)))
    for index, weight in enumerate(weights):
        p = weight / 8
        assert abs(drawn[index] - 8000 * p) <= 5 * (8000 * p * (1 - p)) ** 0.5
    firsts, generator = Counter(), Generator(2)
    for _ in range(4000):
        order = list(WeightedRandomSampler(weights, 3, replacement=False, generator=generator))
        assert sorted(order) == [0, 2, 3]
        firsts[tuple(order)] += 1
    for order, p in {(3, 2, 0): 5 / 8 * 2 / 3, (0, 2, 3): 1 / 8 * 2 / 7}.items():
        assert abs(firsts[order] - 4000 * p) <= 5 * (4000 * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: RandomSampler([]), ValueError, "RandomSampler: num_samples must be an int of 1 or more, got 0"),
        (lambda: RandomSampler([1], num_samples=2.0), ValueError, "must be an int of 1 or more, got 2.0"),
        (lambda: RandomSampler([1], replacement=1), TypeError, "replacement must be True or False, got 1"),
        (lambda: BatchSampler([1], 0, False), ValueError, "BatchSampler: batch_size must be an int of 1 or more, got 0"),
        (lambda: BatchSampler([1], True, False), ValueError, "batch_size must be an int of 1 or more, got True"),
        (lambda: BatchSampler([1], 1, None), ValueError, "drop_last must be True or False, got None"),
        (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, r"weights must be one-dimensional, got \(1, 1\)"),
        (lambda: WeightedRandomSampler([1.0], 0), ValueError, "num_samples must be an int of 1 or more, got 0"),
        (lambda: WeightedRandomSampler([1.0], 1, 0), ValueError, "replacement must be True or False, got 0"),
        (lambda: WeightedRandomSampler([1.0, -1.0], 1), RuntimeError, "weights must be finite and not negative"),
        (lambda: WeightedRandomSampler([1.0, 0.0], 2, False), RuntimeError, "at least 2 weights must be above 0, got 1"),
        (lambda: iter(Sampler()), NotImplementedError, "Sampler: subclasses of Sampler must have __iter__"),
        (lambda: Dataset()[0], NotImplementedError, "Dataset: subclasses of Dataset must have __getitem__"),
        (lambda: TensorDataset(minidl.ones(2), minidl.ones(3)), AssertionError, r"one length along .*, got \[2, 3\]"),
        (lambda: ConcatDataset([]), AssertionError, "ConcatDataset: at least 1 data set is needed, got 0"),
        (lambda: ConcatDataset([[1]])[-2], ValueError, "ConcatDataset: index must be at least -1, the length, got -2"),
        (lambda: ConcatDataset([[1]])[1], IndexError, "list index out of range"),
    ],
)
def test_a_bad_argument_is_named(make, error, text):
    with pytest.raises(error, match=text):
        make()


# ---------------------------------------------------------------------------------------------------------------- data sets


def test_data_sets_one_after_the_other():
    both = TensorDataset(minidl.arange(3)) + TensorDataset(minidl.arange(10, 12))
    assert isinstance(both, ConcatDataset) and both.cumulative_sizes == [3, 5]
    assert [int(x) for (x,) in both] == [0, 1, 2, 10, 11] and int(both[-1][0]) == 11 and int(both[-5][0]) == 0
    assert len(Patterns(3) + Patterns(4)) == 7 and issubclass(MNIST, Dataset)


def test_a_random_split_takes_each_sample_once():
    minidl.manual_seed(1)
    parts = random_split(range(100, 110), [3, 7])
    minidl.manual_seed(1)
    assert [part.indices for part in random_split(range(100, 110), [3, 7])] == [part.indices for part in parts]
    assert [len(part) for part in parts] == [3, 7] and sorted(chain(*parts)) == list(range(100, 110))
    by_share = random_split(range(11), [0.5, 0.25, 0.25], generator=Generator(1))
    assert [len(part) for part in by_share] == [6, 3, 2] and sorted(chain(*by_share)) == list(range(11))


@pytest.mark.parametrize("lengths", [[3, 8], [0.5, 0.4], [11, -1]])
def test_lengths_that_do_not_add_up(lengths):
    with pytest.raises(ValueError, match="random_split: lengths must"):
        random_split(range(10), lengths)


def test_a_fraction_that_leaves_nothing_is_warned_of():
    with pytest.warns(UserWarning, match=r"random_split: subset 1 is empty, of fractions \[0.99, 0.01\] of 1"):
        assert [len(part) for part in random_split([5], [0.99, 0.01])] == [1, 0]


def test_a_subset_of_anything():
    part = Subset("abc", [2, -3])
    assert list(part) == ["c", "a"] and part[-1] == "a" and part.indices == [2, -3] and not hasattr(part, "targets")


# ------------------------------------------------------------------------------------------------------------------ workers


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_but_who_makes_a_batch(workers):
    samples = [(np.full(3, i), i, str(i)) for i in range(10)]
    for (x, y, text), (x0, y0, text0) in zip(DataLoader(samples, 3, num_workers=workers), DataLoader(samples, 3), strict=True):
        assert x.tolist() == x0.tolist() and y.tolist() == y0.tolist() and text == text0
    assert loader_threads() == []


class Noisy(Dataset):
    """Samples that a draw from the default generator is added to, as a random transform's."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index + minidl.rand(2)


def test_what_samples_draw_does_not_depend_on_the_workers():
    found = {}
    for workers in (0, 1, 4):
        minidl.manual_seed(3)
        loader = DataLoader(
            Noisy(), 2, shuffle=True, num_workers=workers, collate_fn=lambda s: minidl.stack(s) + minidl.rand(1)
        )
        found[workers] = [numbers(loader), numbers(loader), minidl.rand(1).item()]
    assert found[0] == found[1] == found[4]
    first, second, _ = found[0]
    drawn = [x % 1 for batch in first + second for row in batch for x in row]
    assert len(set(drawn)) == len(drawn)


def test_the_consumer_draws_its_own_numbers_between_batches():
    minidl.manual_seed(3)
    batches = iter(DataLoader(Noisy(), 2))
    mine = [minidl.rand(1).item() for _ in batches]
    minidl.manual_seed(3)
    iter(DataLoader([0]))  # one draw, the loader's seed
    assert mine == [minidl.rand(1).item() for _ in range(6)]


@pytest.mark.parametrize(("persistent", "calls"), [(False, [0, 0, 1, 1]), (True, [0, 1])])
def test_workers_begin_with_worker_init_fn(persistent, calls):
    begun, dataset = [], [0, 1, 2]

    def begin(worker):
        info = get_worker_info()
        assert (info.id, info.num_workers) == (worker, 2) and info.dataset is dataset
        begun.append((worker, info.seed))

    loader = DataLoader(dataset, num_workers=2, worker_init_fn=begin, persistent_workers=persistent)
    assert numbers(loader) == numbers(loader) == [[0], [1], [2]] and get_worker_info() is None
    assert sorted(worker for worker, _ in begun) == calls and len({seed for _, seed in begun}) == len(calls)


def test_what_worker_init_fn_raises_reaches_the_consumer():
    def fail(worker):
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        list(DataLoader([1, 2], num_workers=2, worker_init_fn=fail))
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sample_raises_comes_with_its_number(workers):
    class Broken(Noisy):
        def __getitem__(self, index):
            return {}[index] if index == 3 else super().__getitem__(index)

    batches = iter(DataLoader(Broken(), 2, num_workers=workers))
    next(batches)
    with pytest.raises(KeyError) as caught:
        next(batches)
    assert caught.value.__notes__ == ["DataLoader: while making sample 3"] and loader_threads() == []


def test_a_batch_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(workers_module, "PATIENCE", 0.01)
    go = threading.Event()

    class Hanging(Noisy):
        def __getitem__(self, index):
            return go.wait(60) if index == 3 else index

    batches = iter(DataLoader(Hanging(), 2, num_workers=1, timeout=0.1))
    try:
        with pytest.raises(RuntimeError, match=r"DataLoader: a batch must come within 0.1 seconds .*; batch 1 is at sample 3"):
            list(batches)
    finally:
        go.set()
        for thread in loader_threads():
            thread.join(10)


def test_no_more_is_made_ahead_than_prefetch_factor_allows():
    made = []
    batches = iter(DataLoader(range(50), 1, num_workers=1, prefetch_factor=3, collate_fn=made.append))
    for taken in range(1, 6):
        next(batches)
        assert len(made) <= taken + 3
    batches.close()


# ---------------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"timeout": -1}, "timeout must be at least 0, got -1"),
        ({"timeout": 1}, "timeout needs at least 1 worker, got num_workers 0"),
        ({"prefetch_factor": 2}, "prefetch_factor needs at least 1 worker, got num_workers 0"),
        ({"persistent_workers": True}, "persistent_workers needs at least 1 worker, got num_workers 0"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor must be at least 1, got 0"),
        ({"multiprocessing_context": "fork", "num_workers": 1}, "workers are threads, which have no context, got 'fork'"),
        ({"sampler": [0], "shuffle": True}, "sampler and shuffle exclude each other"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler excludes batch_size, shuffle, sampler and drop_last"),
        ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler excludes"),
        ({"batch_sampler": [[0]], "sampler": [0]}, "batch_sampler excludes"),
        ({"batch_sampler": [[0]], "drop_last": True}, "batch_sampler excludes"),
        ({"batch_size": None, "drop_last": True}, "drop_last needs batches, got batch_size None"),
    ],
)
def test_arguments_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=f"DataLoader: {text}"):
        DataLoader([1, 2], **options)


def test_a_data_set_without_indices_is_refused():
    with pytest.raises(TypeError, match=r"DataLoader: takes data sets with dataset\[i\], got generator; put what"):
        DataLoader(x for x in range(3))


def test_what_says_the_batches_cannot_change_later():
    loader = DataLoader([1, 2])
    with pytest.raises(ValueError, match="DataLoader: batch_size can't be changed after the loader was made"):
        loader.batch_size = 2
    loader.collate_fn = list
    assert list(loader) == [[1], [2]]


def test_pin_memory_says_that_it_has_no_effect():
    with pytest.warns(UserWarning, match="DataLoader: pin_memory has no effect here") as caught:
        DataLoader([1], pin_memory=True)
    assert caught[0].filename == __file__


def test_a_tutorials_loop():
    minidl.manual_seed(0)
    x = minidl.randn(64, 1, 8, 8)
    train = TensorDataset(x, (x.sum((1, 2, 3)) > 0).long())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    optimizer = minidl.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(10):
        for data, target in DataLoader(train, batch_size=16, shuffle=True):
            data, target = data.to("cpu:0"), target.to("cpu:0")
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
    right = sum((model(data).argmax(1) == target).sum().item() for data, target in DataLoader(train, 64))
    assert right >= 60


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("n, ranks", [(12, 3), (13, 3), (2, 5), (0, 2)])
def test_distributed_samplers_share_out_one_order(n, ranks, drop_last):
    samplers = [DistributedSampler(range(n), ranks, rank, seed=5, drop_last=drop_last) for rank in range(ranks)]
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])}
        order = [index for together in zip(*shares, strict=True) for index in together]
        epoch_order = Generator(5, 1, epoch).permutation(n).tolist()  # ImageLoader's too
        assert order == (epoch_order * ranks)[: len(order)]
        assert drop_last or set(order) == set(range(n))


def test_a_distributed_samplers_rank_must_be_one_of_them():
    with pytest.raises(ValueError, match=r"rank must be in \[0, num_replicas\) = \[0, 2\), got 2"):
        DistributedSampler(range(3), 2, 2)
    with pytest.raises(RuntimeError, match="call init_process_group first"):
        DistributedSampler(range(3))
