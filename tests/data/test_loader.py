import threading
import warnings
from itertools import islice

import numpy as np
import pytest

from minidl.data import loader as loader_module
from minidl.data.image_folder import BadImageError
from minidl.data.loader import DataLoader
from minidl.data.patterns import Patterns
from minidl.data.transforms import (
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    Compose,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    TenCrop,
)

AUGMENT = Compose([RandomCrop(28), RandomHorizontalFlip(), PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS)])


class Numbers:
    """Image i is filled with i, label i; `bad` indices raise, and what was read is noted."""

    def __init__(self, n, bad=()):
        self.n, self.bad, self.read = n, bad, []
        self.samples = [(f"folder/{i}.png", i) for i in range(n)]

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.bad:
            raise BadImageError(f"folder/{index}.png", 7, "cut off")
        return np.full((2, 3, 3), index, np.uint8), index


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-loader")]


def same(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        np.array_equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    )


# ---- batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_have_the_stated_shapes_types_and_memory(num_workers):
    images, labels = next(iter(DataLoader(Patterns(5, image_size=32), 3, num_workers=num_workers)))
    assert images.shape == (3, 3, 32, 32) and images.dtype == np.float32
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous
    assert labels.tolist() == [0, 1, 2] and labels.dtype == np.int64
    assert np.array_equal(images[1].transpose(1, 2, 0), Patterns(5, image_size=32)[1][0])


def test_ten_views_get_an_axis_of_their_own():
    images, _ = next(iter(DataLoader(Patterns(4, image_size=32), 4, transform=TenCrop(28))))
    assert images.shape == (4, 10, 3, 28, 28)
    assert images.transpose(0, 1, 3, 4, 2).flags.c_contiguous


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_last_batch_is_smaller_or_left_out(drop_last, sizes):
    loader = DataLoader(Numbers(10), 4, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [len(labels) for _, labels in loader] == sizes


def test_an_empty_data_set_has_no_batches():
    assert list(DataLoader(Numbers(0), 4, num_workers=2)) == []


# ---- order, augmentation, resume


def test_shuffling_is_a_permutation_that_changes_with_epoch_and_seed():
    loader = DataLoader(Numbers(50), 50, shuffle=True)
    first, second = (next(loader.epoch_batches(epoch))[1].tolist() for epoch in (0, 1))
    other = next(DataLoader(Numbers(50), 50, shuffle=True, seed=1).epoch_batches(0))[1].tolist()
    assert sorted(first) == sorted(second) == sorted(other) == list(range(50))
    assert len({tuple(order) for order in (first, second, other, range(50))}) == 4
    assert next(DataLoader(Numbers(50), 50).epoch_batches(1))[1].tolist() == list(range(50))


def test_iterating_counts_the_epochs():
    loader = DataLoader(Numbers(6), 4, shuffle=True)
    assert same(loader, loader.epoch_batches(0))
    assert same(loader, loader.epoch_batches(1))
    assert loader.epoch == 2


def test_batches_do_not_depend_on_the_number_of_workers():
    def batches(**options):
        return DataLoader(Patterns(30, image_size=32), 4, True, transform=AUGMENT, seed=5, **options).epoch_batches(3)

    alone = list(batches())
    assert same(alone, batches(num_workers=1, prefetch_factor=1)) and same(alone, batches(num_workers=3))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_bit_for_bit_at_any_batch(num_workers):
    loader = DataLoader(Patterns(22, image_size=32), 4, True, transform=AUGMENT, num_workers=num_workers)
    whole = list(loader.epoch_batches(2))
    for start in range(7):
        assert same(loader.epoch_batches(2, start), whole[start:])


def test_resuming_does_not_read_what_was_seen_before():
    dataset = Numbers(20)
    list(DataLoader(dataset, 4).epoch_batches(0, 3))
    assert dataset.read == list(range(12, 20))


def test_an_image_is_augmented_differently_each_epoch_and_from_its_neighbours():
    class OneImage(Patterns):
        def __getitem__(self, index):
            return super().__getitem__(0)

    loader = DataLoader(OneImage(8, image_size=32), 8, transform=AUGMENT, num_workers=2)
    views = [view.tobytes() for epoch in range(2) for view in next(loader.epoch_batches(epoch))[0]]
    assert len(set(views)) == 16


def test_the_key_of_a_sample_names_seed_epoch_index_and_position():
    seen = []
    loader = DataLoader(Numbers(5), 2, True, transform=lambda image, key: seen.append(key) or image, seed=8)
    labels = np.concatenate([labels for _, labels in loader.epoch_batches(6, 1)])
    assert [(key.seed, key.epoch, key.position) for key in seen] == [(8, 6, 2), (8, 6, 3), (8, 6, 4)]
    assert [key.index for key in seen] == labels.tolist()


# ---- threads


def test_no_thread_is_left_at_the_end_or_when_the_consumer_stops():
    loader = DataLoader(Numbers(40), 2, num_workers=3)
    assert len(list(loader)) == 20
    assert loader_threads() == []
    batches = iter(loader)
    next(batches)
    assert loader_threads()
    batches.close()
    assert loader_threads() == []


def test_closing_does_not_wait_for_the_batches_ahead(monkeypatch):
    # Image 100 is held until the loader says stop; its worker must then leave images 101 to 199 unread.
    reached, stopped = threading.Event(), threading.Event()

    class Stop(threading.Event):
        def set(self):
            super().set()
            stopped.set()

    class Held(Numbers):
        def __getitem__(self, index):
            if index == 100:
                reached.set()
                stopped.wait(10)
            return super().__getitem__(index)

    monkeypatch.setattr(loader_module, "Event", Stop)
    dataset = Held(1000)
    batches = iter(DataLoader(dataset, 100, num_workers=1))
    next(batches)
    assert reached.wait(10)
    batches.close()
    assert stopped.is_set() and loader_threads() == []
    assert dataset.read == list(range(101))


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(1, 1), (2, 3)])
def test_no_more_is_made_ahead_than_allowed(num_workers, prefetch_factor):
    dataset = Numbers(200)
    batches = iter(DataLoader(dataset, 2, num_workers=num_workers, prefetch_factor=prefetch_factor))
    for consumed in range(1, 6):
        next(batches)
        assert len(dataset.read) <= 2 * (consumed + num_workers * prefetch_factor)
    batches.close()


def test_workers_work_at_the_same_time():
    # Each of the two first images waits for the other: one worker alone would break the barrier.
    barrier = threading.Barrier(2, timeout=30)

    class Meeting(Numbers):
        def __getitem__(self, index):
            barrier.wait()
            return super().__getitem__(index)

    assert len(list(DataLoader(Meeting(4), 1, num_workers=2))) == 4


# ---- errors


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_stops_the_run_with_its_name(num_workers):
    dataset = Numbers(1000, bad={5})
    batches = iter(DataLoader(dataset, 2, num_workers=num_workers))
    assert [labels.tolist() for _, labels in islice(batches, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(BadImageError, match=r"folder/5\.png \(7 bytes\) is not a readable image: cut off"):
        next(batches)
    assert loader_threads() == []
    assert len(dataset.read) <= 2 * (3 + num_workers * 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_leaves_bad_images_out_notes_and_warns_once(num_workers):
    loader = DataLoader(Numbers(8, bad={1, 6, 7}), 2, num_workers=num_workers, on_error="skip")
    with pytest.warns(UserWarning) as caught:
        batches = list(loader)
    assert [labels.tolist() for _, labels in batches] == [[0], [2, 3], [4, 5]]
    assert batches[0][0].shape == (1, 3, 2, 3)
    assert loader.skipped == [(f"folder/{i}.png", "cut off") for i in (1, 6, 7)]
    assert [str(warning.message) for warning in caught] == [f"DataLoader: skipped folder/{i}.png: cut off" for i in (1, 6, 7)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(loader)) == 3
    assert len(loader.skipped) == 3


def test_skipping_is_for_bad_images_only():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise KeyError("a mistake in the program")

    with pytest.raises(KeyError):
        list(DataLoader(Broken(4), 2, num_workers=1, on_error="skip"))


def test_an_error_in_a_transform_names_the_file():
    with pytest.raises(ValueError, match=r"size must be at most the image's sides 2 x 3, got 28 \(sample 0, folder/0\.png\)"):
        list(DataLoader(Numbers(4), 2, transform=RandomCrop(28)))
    with pytest.raises(ValueError, match=r"32 x 32, got 33 \(sample 0\)$"):
        list(DataLoader(Patterns(4, image_size=32), 2, transform=RandomCrop(33)))


def test_images_of_different_sizes_do_not_make_a_batch():
    class Growing(Numbers):
        def __getitem__(self, index):
            return np.zeros((2 + index, 3, 3), np.uint8), index

    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3, 3\) and \(3, 3, 3\) \(sample 1, folder/1\.png\)"):
        list(DataLoader(Growing(4), 2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"prefetch_factor": 0}, "prefetch_factor must be at least 1, got 0"),
        ({"seed": -5}, "seed must be at least 0, got -5"),
        ({"on_error": "ignore"}, "on_error must be 'stop' or 'skip', got 'ignore'"),
    ],
)
def test_a_bad_argument_is_named(options, text):
    with pytest.raises(ValueError, match="DataLoader: " + text):
        DataLoader(Numbers(4), **options)


def test_a_place_outside_the_run_is_refused_at_once():
    loader = DataLoader(Numbers(10), 4)
    with pytest.raises(ValueError, match=r"DataLoader: epoch must be at least 0, got -1"):
        loader.epoch_batches(-1)
    with pytest.raises(ValueError, match=r"DataLoader: start_batch must be in \[0, 3\], got 4"):
        loader.epoch_batches(0, 4)
