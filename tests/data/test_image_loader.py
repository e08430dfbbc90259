import itertools
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

from minidl import Device, Tensor
from minidl.data import image_loader
from minidl.data import workers as workers_module
from minidl.data.errors import BadImageError
from minidl.data.image_loader import ImageLoader, last_read
from minidl.data.input_step import InputStep
from minidl.data.patterns import Patterns
from minidl.data.transforms import (
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    Compose,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    SubtractMean,
    TenCrop,
)

MEAN = SubtractMean(np.random.default_rng(0).uniform(90, 140, (32, 32, 3)))
STEPS = [RandomCrop(28), RandomHorizontalFlip(), MEAN, PCAColorNoise(IMAGENET_STDEVS, IMAGENET_COMPONENTS, divide=1.1)]
AUGMENT = Compose(STEPS)


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
    images, labels = next(iter(ImageLoader(Patterns(5, image_size=32), 3, num_workers=num_workers)))
    assert images.shape == (3, 3, 32, 32) and images.dtype == np.float32
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous
    assert labels.tolist() == [0, 1, 2] and labels.dtype == np.int64
    assert np.array_equal(images[1].transpose(1, 2, 0), Patterns(5, image_size=32)[1][0])


def test_ten_views_get_an_axis_of_their_own():
    images, _ = next(iter(ImageLoader(Patterns(4, image_size=32), 4, transform=TenCrop(28))))
    assert images.shape == (4, 10, 3, 28, 28)
    assert images.transpose(0, 1, 3, 4, 2).flags.c_contiguous


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_last_batch_is_smaller_or_left_out(drop_last, sizes):
    loader = ImageLoader(Numbers(10), 4, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [len(labels) for _, labels in loader] == sizes


def test_an_empty_data_set_has_no_batches():
    assert list(ImageLoader(Numbers(0), 4, num_workers=2)) == []


# ---- order, augmentation, resume


def test_shuffling_is_a_permutation_that_changes_with_epoch_and_seed():
    loader = ImageLoader(Numbers(50), 50, shuffle=True)
    first, second = (next(loader.epoch_batches(epoch))[1].tolist() for epoch in (0, 1))
    other = next(ImageLoader(Numbers(50), 50, shuffle=True, seed=1).epoch_batches(0))[1].tolist()
    assert sorted(first) == sorted(second) == sorted(other) == list(range(50))
    assert len({tuple(order) for order in (first, second, other, range(50))}) == 4
    assert next(ImageLoader(Numbers(50), 50).epoch_batches(1))[1].tolist() == list(range(50))


def test_iterating_counts_the_epochs():
    loader = ImageLoader(Numbers(6), 4, shuffle=True)
    assert same(loader, loader.epoch_batches(0))
    assert same(loader, loader.epoch_batches(1))
    assert loader.epoch == 2


def test_batches_do_not_depend_on_the_number_of_workers():
    def batches(**options):
        return ImageLoader(Patterns(30, image_size=32), 4, True, transform=AUGMENT, seed=5, **options).epoch_batches(3)

    alone = list(batches())
    for workers in (1, 2, 4):
        assert same(alone, batches(num_workers=workers, prefetch_factor=workers))


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("steps", [STEPS, [TenCrop(28), None, MEAN]], ids=["training", "ten views"])
def test_a_batch_transform_gives_what_the_transforms_give_one_by_one(steps, workers):
    def batches(**options):
        return ImageLoader(Patterns(22, image_size=32), 4, True, seed=5, **options).epoch_batches(3, 1)

    one_by_one = Compose([step for step in steps if step is not None])
    found = list(batches(batch_transform=InputStep(*steps), num_workers=workers))
    assert same(found, batches(transform=one_by_one)) and len(found) == 5
    for images, _ in found:
        assert images.dtype == np.float32 and np.moveaxis(images, -3, -1).flags.c_contiguous


def test_a_transform_comes_before_the_batch_transform():
    def upside_down(image, key):
        return image[::-1]

    step = InputStep(RandomCrop(28))
    (found,) = ImageLoader(Patterns(4, image_size=32), 4, transform=upside_down, batch_transform=step)
    (expected,) = ImageLoader(Patterns(4, image_size=32), 4, transform=Compose([upside_down, RandomCrop(28)]))
    assert same([found], [expected])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_bit_for_bit_at_any_batch(num_workers):
    loader = ImageLoader(Patterns(22, image_size=32), 4, True, transform=AUGMENT, num_workers=num_workers)
    whole = list(loader.epoch_batches(2))
    for start in range(7):
        assert same(loader.epoch_batches(2, start), whole[start:])


def test_resuming_does_not_read_what_was_seen_before():
    dataset = Numbers(20)
    list(ImageLoader(dataset, 4).epoch_batches(0, 3))
    assert dataset.read == list(range(12, 20))


def test_an_image_is_augmented_differently_each_epoch_and_from_its_neighbours():
    class OneImage(Patterns):
        def __getitem__(self, index):
            return super().__getitem__(0)

    loader = ImageLoader(OneImage(8, image_size=32), 8, transform=AUGMENT, num_workers=2)
    views = [view.tobytes() for epoch in range(2) for view in next(loader.epoch_batches(epoch))[0]]
    assert len(set(views)) == 16


def test_the_key_of_a_sample_names_seed_epoch_index_and_position():
    seen = []
    loader = ImageLoader(Numbers(5), 2, True, transform=lambda image, key: seen.append(key) or image, seed=8)
    labels = np.concatenate([labels for _, labels in loader.epoch_batches(6, 1)])
    assert [(key.seed, key.epoch, key.position) for key in seen] == [(8, 6, 2), (8, 6, 3), (8, 6, 4)]
    assert [key.index for key in seen] == labels.tolist()


# ---- threads


def test_no_thread_is_left_at_the_end_or_when_the_consumer_stops():
    loader = ImageLoader(Numbers(40), 2, num_workers=3)
    assert len(list(loader)) == 20
    assert loader_threads() == []
    batches = iter(loader)
    next(batches)
    assert loader_threads()
    batches.close()
    assert loader_threads() == []
    assert list(batches) == []
    batches = iter(loader)
    next(batches)
    del batches
    assert loader_threads() == []


def test_an_iterator_that_nobody_asks_makes_no_threads():
    batches = iter(ImageLoader(Numbers(40), 2, num_workers=3))
    assert loader_threads() == []
    batches.close()


def test_an_error_of_the_consumer_ends_the_threads():
    with pytest.raises(ZeroDivisionError):
        for _ in ImageLoader(Numbers(40), 2, num_workers=3):
            raise ZeroDivisionError
    assert loader_threads() == []


def test_an_iterator_may_be_dropped_by_its_own_worker():
    held, dropped, failed = [], threading.Event(), []

    class Dropping(Numbers):
        def __getitem__(self, index):
            if index == 2:
                held_by_main.wait(10)
                held.clear()
                dropped.set()
            return super().__getitem__(index)

    held_by_main = threading.Event()
    held.append(iter(ImageLoader(Dropping(100), 1, num_workers=1)))
    next(held[0])
    before, sys.unraisablehook = sys.unraisablehook, failed.append
    try:
        (worker,) = loader_threads()
        held_by_main.set()
        assert dropped.wait(10)
        worker.join(10)
    finally:
        sys.unraisablehook = before
    assert not worker.is_alive() and failed == []


def test_two_iterators_at_once():
    loader = ImageLoader(Patterns(30, image_size=32), 4, True, transform=AUGMENT, num_workers=2)
    first, second = loader.epoch_batches(0), loader.epoch_batches(1)
    mixed = list(zip(first, second, strict=True))
    assert same([pair[0] for pair in mixed], loader.epoch_batches(0))
    assert same([pair[1] for pair in mixed], loader.epoch_batches(1))


@pytest.mark.parametrize("step", [None, InputStep(RandomCrop(28))])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_that_the_consumer_dropped_is_kept_by_nobody(step, num_workers):
    loader = ImageLoader(Patterns(4, image_size=32), 2, batch_transform=step, num_workers=num_workers, prefetch_factor=1)
    batches = iter(loader)
    images, _ = next(batches)
    seen = weakref.ref(images if images.base is None else images.base)
    del images
    assert seen() is None
    assert len(list(batches)) == 1


FORKS = """
import os, signal, warnings
import numpy as np
from minidl.data import ImageLoader
from minidl.data.patterns import Patterns

def same(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(np.array_equal(a[0], b[0]) for a, b in zip(left, right))

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # so it is, and may be at a user's
loader = ImageLoader(Patterns(40, image_size=32), 2, num_workers=2)
expected = list(loader.epoch_batches(0))
batches = loader.epoch_batches(0)
next(batches)
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        next(batches)
    except RuntimeError as error:
        print(error, flush=True)
    batches.close()
    os._exit(0 if same(loader.epoch_batches(0), expected) else 1)
print(os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), same(batches, expected[1:]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_iterates_anew():
    """In a process of its own: pytest's may have threads that hold a lock while it forks."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60)
    refusal, parent = done.stdout.splitlines()
    pid, status, same_in_the_parent = parent.split()
    assert f"threads of process {pid}, which was forked" in refusal
    assert (status, same_in_the_parent, done.stderr) == ("0", "True", "")


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

    monkeypatch.setattr(workers_module, "Event", Stop)
    dataset = Held(1000)
    batches = iter(ImageLoader(dataset, 100, num_workers=1))
    next(batches)
    assert reached.wait(10)
    batches.close()
    assert stopped.is_set() and loader_threads() == []
    assert dataset.read == list(range(101))


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(1, 1), (2, 3)])
def test_no_more_is_made_ahead_than_allowed(num_workers, prefetch_factor):
    dataset = Numbers(200)
    batches = iter(ImageLoader(dataset, 2, num_workers=num_workers, prefetch_factor=prefetch_factor))
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

    assert len(list(ImageLoader(Meeting(4), 1, num_workers=2))) == 4


# ---- devices


def test_devices_get_a_tensor_each():
    def batches(**options):
        return ImageLoader(Patterns(6, image_size=32), 4, num_workers=2, **options)

    for options in ({"transform": AUGMENT}, {"batch_transform": InputStep(*STEPS)}):
        for (tensors, labels), (images, same_labels) in zip(
            batches(devices=("cpu:0", "cpu:1"), **options), batches(**options), strict=True
        ):
            assert [str(tensor.device) for tensor in tensors] == ["cpu:0", "cpu:1"]
            assert all(isinstance(tensor, Tensor) and np.array_equal(tensor.numpy(), images) for tensor in tensors)
            assert np.array_equal(labels, same_labels)


def test_a_device_that_is_named_twice_gets_one_tensor():
    (tensors, _), *_ = ImageLoader(Patterns(4, image_size=32), 4, devices=("cpu:1", "cpu:0", "cpu:1"))
    assert [str(tensor.device) for tensor in tensors] == ["cpu:1", "cpu:0", "cpu:1"]
    assert tensors[0] is tensors[2] and tensors[0] is not tensors[1]


class Block(bytearray):
    """Memory that can be seen to be gone."""


class PinnedMemory:
    """What the stand-in for CuPy lacks: page-locked memory, and events that can be waited for."""

    def __init__(self, monkeypatch):
        self.blocks, self.waits, self._copied = [], 0, []
        self._record, self._asarray = fake_cupy._Stream.record, fake_cupy.asarray
        monkeypatch.setattr(fake_cupy.cuda, "alloc_pinned_memory", self._allocate, raising=False)
        monkeypatch.setattr(fake_cupy._Stream, "record", lambda stream, event=None: self._event(stream, event))
        monkeypatch.setattr(fake_cupy, "asarray", self._copy)

    def _allocate(self, size):
        block = Block(size)
        self.blocks.append(weakref.ref(block))
        return block

    def _copy(self, a, *args, **kwargs):
        root = a
        while isinstance(root, np.ndarray):
            root = root.base
        if isinstance(root, Block):
            self._copied.append(weakref.ref(root))
        return self._asarray(a, *args, **kwargs)

    def _event(self, stream, event=None):
        copied, self._copied = self._copied, []
        return SimpleNamespace(seen=self._record(stream, event).seen, synchronize=lambda: self._wait(copied))

    def _wait(self, copied):
        assert all(block() is not None for block in copied), "page-locked memory is gone before its copies are done"
        self.waits += 1


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_gpus_get_bytes_and_make_the_floats(num_workers, gpus, monkeypatch):
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    fake_cupy.install(monkeypatch, gpus)
    memory = PinnedMemory(monkeypatch)

    def batches(**options):
        dataset = Patterns(18, image_size=32)
        return ImageLoader(dataset, 4, True, batch_transform=InputStep(*STEPS), num_workers=num_workers, **options)

    found = batches(devices=("cuda:0", "cuda:1"), pin_memory=True)
    for (tensors, labels), (images, same_labels) in zip(found, batches(), strict=True):
        assert [tensor.device for tensor in tensors] == [Device("cuda:0"), Device("cuda:1")]
        assert all(tensor.numpy().tobytes() == images.tobytes() for tensor in tensors)
        assert np.array_equal(labels, same_labels)
    assert len(memory.blocks) == 5 and memory.waits == 10, "for each batch, and each device"
    assert all(block() is None for block in memory.blocks)
    assert fake_cupy.errors == [] and fake_cupy.launches == ["mdl_input_step"] * 10


def test_without_pin_memory_no_page_is_locked(monkeypatch):
    fake_cupy.install(monkeypatch)
    memory = PinnedMemory(monkeypatch)
    for tensors, _ in ImageLoader(Numbers(6), 3, devices=["cuda:0"], pin_memory=False):
        assert tensors[0].shape == (3, 3, 2, 3)
    assert memory.blocks == [] and memory.waits == 0
    ((tensors, _),) = ImageLoader(Numbers(3), 3, devices=["cuda:0"], pin_memory=True)
    assert np.array_equal(tensors[0].numpy()[:, 0, 0, 0], [0, 1, 2]) and len(memory.blocks) == 1


@pytest.mark.parametrize("devices", [(), ("cpu:0",)])
def test_pin_memory_without_a_gpu_warns_and_goes_on(devices):
    with pytest.warns(
        UserWarning, match="ImageLoader: pin_memory is for GPUs in devices, here are none: it has no effect"
    ) as w:
        loader = ImageLoader(Numbers(4), 2, devices=devices, pin_memory=True)
    assert w[0].filename == __file__ and len(list(loader)) == 2


# ---- errors


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_stops_the_run_with_its_name(num_workers):
    dataset = Numbers(1000, bad={5})
    batches = iter(ImageLoader(dataset, 2, num_workers=num_workers))
    assert [labels.tolist() for _, labels in islice(batches, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(BadImageError, match=r"folder/5\.png \(7 bytes\) is not a readable image: cut off"):
        next(batches)
    assert loader_threads() == []
    assert len(dataset.read) <= 2 * (3 + num_workers * 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_leaves_bad_images_out_notes_and_warns_once(num_workers):
    loader = ImageLoader(Numbers(8, bad={1, 6, 7}), 2, num_workers=num_workers, on_error="skip")
    with pytest.warns(UserWarning) as caught:
        batches = list(loader)
    assert [labels.tolist() for _, labels in batches] == [[0], [2, 3], [4, 5]]
    assert batches[0][0].shape == (1, 3, 2, 3)
    assert loader.skipped == [(f"folder/{i}.png", "cut off") for i in (1, 6, 7)]
    assert [str(warning.message) for warning in caught] == [f"ImageLoader: skipped folder/{i}.png: cut off" for i in (1, 6, 7)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(loader)) == 3
    assert len(loader.skipped) == 3
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_numbered_so_that_one_that_lost_all_its_images_counts(num_workers):
    loader = ImageLoader(Numbers(12, bad={0, 1, 4, 6, 7, 8, 9}), 2, num_workers=num_workers, on_error="skip")
    with pytest.warns(UserWarning, match="skipped"):
        batches = loader.epoch_batches(0)
        assert batches.number == -1
        found = [(batches.number, labels.tolist()) for _, labels in batches]
    assert found == [(1, [2, 3]), (2, [5]), (5, [10, 11])]
    resumed = loader.epoch_batches(0, 2 + 1)
    assert resumed.number == 2
    assert [labels.tolist() for _, labels in resumed] == [[10, 11]]


def test_skipping_leaves_the_views_of_a_bad_image_out_too():
    class Torn(Patterns):
        def __getitem__(self, index):
            if index == 1:
                raise BadImageError("1.png", 7, "cut off")
            return super().__getitem__(index)

    def batches(**options):
        return ImageLoader(Torn(4, image_size=32), 4, on_error="skip", **options)

    with pytest.warns(UserWarning, match="skipped"):
        ((images, labels),) = found = list(batches(batch_transform=InputStep(*STEPS)))
        assert labels.shape == (3,) and images.shape == (3, 3, 28, 28)
        assert same(found, batches(transform=AUGMENT))


def test_skipping_is_for_bad_images_only():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise KeyError("a mistake in the program")

    with pytest.raises(KeyError):
        list(ImageLoader(Broken(4), 2, num_workers=1, on_error="skip"))


def test_an_error_in_a_transform_names_the_file():
    text = r"size must be at most the image's sides 2 x 3, got 28 x 28 \(sample 0, folder/0\.png\)"
    for step in ({"transform": RandomCrop(28)}, {"batch_transform": InputStep(RandomCrop(28))}):
        with pytest.raises(ValueError, match=text):
            list(ImageLoader(Numbers(4), 2, **step))
    with pytest.raises(ValueError, match=r"32 x 32, got 33 x 33 \(sample 0\)$"):
        list(ImageLoader(Patterns(4, image_size=32), 2, transform=RandomCrop(33)))


def test_a_batch_transform_takes_bytes():
    class Floats(Numbers):
        def __getitem__(self, index):
            return np.zeros((2, 3, 3), np.float32), index

    with pytest.raises(ValueError, match=r"InputStep: takes \(H, W, 3\) uint8 images, got \(2, 3, 3\) float32 \(sample 0, "):
        list(ImageLoader(Floats(4), 2, batch_transform=InputStep(RandomCrop(2))))


class OwnError(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("a mistake"),
        MemoryError(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OwnError(1, 2),
        TimeoutError("of the disk"),
        UnicodeDecodeError("ascii", b"", 0, 1, "a ValueError of its own kind"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_worker_raises_reaches_the_consumer_with_the_images_name(error, num_workers):
    class Raising(Numbers):
        def __getitem__(self, index):
            if index == 3:
                raise error
            return super().__getitem__(index)

    vars(error).pop("__notes__", None)
    batches = iter(ImageLoader(Raising(1000), 2, num_workers=num_workers, timeout=60 if num_workers else 0))
    assert next(batches)[1].tolist() == [0, 1]
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert caught.value is error
    assert error.__notes__ == ["ImageLoader: while making sample 3, folder/3.png"]
    assert loader_threads() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stray_stop_iteration_does_not_end_the_epoch(num_workers):
    class Exhausted(Numbers):
        def __getitem__(self, index):
            return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(ImageLoader(Exhausted(4), 2, num_workers=num_workers))


class Hanging(Numbers):
    """Image 5 hangs until `go` is set."""

    def __init__(self, n):
        super().__init__(n)
        self.go, self.hangs = threading.Event(), threading.Event()

    def __getitem__(self, index):
        if index == 5:
            self.hangs.set()
            self.go.wait(60)
        return super().__getitem__(index)


def test_a_worker_that_hangs_is_named_and_left_behind(monkeypatch):
    monkeypatch.setattr(workers_module, "PATIENCE", 0.01)
    dataset, wait, waits = Hanging(100), workers_module.wait, itertools.count()

    def wait_for_what_hangs(futures, timeout):
        """The time begins when image 5 is reached; the batches before have as long as they need."""
        return wait(futures, timeout if next(waits) == 2 and dataset.hangs.wait(60) else 60)

    monkeypatch.setattr(workers_module, "wait", wait_for_what_hangs)
    batches = iter(ImageLoader(dataset, 2, num_workers=2, timeout=0.1))
    assert [labels.tolist() for _, labels in islice(batches, 2)] == [[0, 1], [2, 3]]
    with pytest.raises(RuntimeError) as caught:
        next(batches)
    where = "batch 2 is at sample 5, folder/5.png"
    assert str(caught.value) == f"ImageLoader: a batch must come within 0.1 seconds (timeout); {where}"
    (left,) = loader_threads()
    assert left.daemon
    dataset.go.set()
    left.join(10)
    assert not left.is_alive() and len(dataset.read) < 100


def test_a_batch_in_time_is_no_timeout():
    dataset = Hanging(8)
    batches = iter(ImageLoader(dataset, 2, num_workers=1, timeout=60))
    next(batches)
    assert dataset.hangs.wait(10)
    dataset.go.set()
    assert len(list(batches)) == 3


def test_images_of_different_sizes_do_not_make_a_batch():
    class Growing(Numbers):
        def __getitem__(self, index):
            return np.zeros((2 + index, 3, 3), np.uint8), index

    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3, 3\) and \(3, 3, 3\) \(sample 1, folder/1\.png\)"):
        list(ImageLoader(Growing(4), 2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"prefetch_factor": 0}, "prefetch_factor must be at least 1, got 0"),
        ({"timeout": -1}, "timeout must be at least 0, got -1"),
        ({"timeout": 5}, "timeout needs at least 1 worker to wait for, got timeout 5, num_workers 0"),
        ({"seed": -5}, "seed must be at least 0, got -5"),
        ({"on_error": "ignore"}, "on_error must be 'stop' or 'skip', got 'ignore'"),
    ],
)
def test_a_bad_argument_is_named(options, text):
    with pytest.raises(ValueError, match="ImageLoader: " + text):
        ImageLoader(Numbers(4), **options)


def test_a_place_outside_the_run_is_refused_at_once():
    loader = ImageLoader(Numbers(10), 4)
    with pytest.raises(ValueError, match=r"ImageLoader: epoch must be at least 0, got -1"):
        loader.epoch_batches(-1)
    with pytest.raises(ValueError, match=r"ImageLoader: start_batch must be in \[0, 3\], got 4"):
        loader.epoch_batches(0, 4)


# ---- processes that die


PROGRAM = """
import ctypes, os, sys
from minidl.data import ImageLoader
from minidl.data.patterns import Patterns

class Deadly(Patterns):
    def __init__(self, n):
        super().__init__(n, image_size=32)
        self.samples = [(f"folder/{i}.png", 0) for i in range(n)]

    def __getitem__(self, index):
        if index == 21:
            {what}
        return super().__getitem__(index)

"""


def run_program(what, then, *arguments):
    code = PROGRAM.replace("{what}", what) + then
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("death", "status"),
    [("ctypes.string_at(0)", -signal.SIGSEGV), ("os._exit(7)", 7)],
    ids=["SIGSEGV", "exit"],
)
def test_what_was_read_when_the_process_died_is_on_disk(death, status, workers, tmp_path):
    note = tmp_path / "reading"
    then = f"for _ in ImageLoader(Deadly(40), 4, num_workers={workers}, reading=sys.argv[1]): pass"
    assert run_program(death, then, note).returncode == status
    found = last_read(note)
    assert "sample 21, folder/21.png" in found and len(found) <= max(workers, 1)
    # the next run begins, and ends well
    assert len(list(ImageLoader(Numbers(10), 2, num_workers=1, reading=note))) == 5
    assert last_read(note) == [] and not note.exists()


@pytest.mark.parametrize("num_workers", [0, 3])
def test_the_note_says_what_is_being_read(num_workers, tmp_path):
    note, seen = tmp_path / "reading", {}

    class Looking(Numbers):
        def __getitem__(self, index):
            seen[index] = last_read(note)
            if index == 9:
                raise KeyError
            return super().__getitem__(index)

    batches = iter(ImageLoader(Looking(10), 2, num_workers=num_workers, reading=note))
    with pytest.raises(KeyError):
        list(batches)
    assert all(f"sample {index}, folder/{index}.png" in seen[index] for index in range(10))
    assert max(map(len, seen.values())) <= max(num_workers, 1)
    assert last_read(note) == []


def test_a_note_of_long_and_odd_names(tmp_path):
    note, seen = tmp_path / "reading", []

    class Looking(Numbers):
        def __getitem__(self, index):
            seen.extend(last_read(note))
            return super().__getitem__(index)

    dataset = Looking(2)
    dataset.samples = [("a" * 5000, 0), (os.fsdecode(b"\xff.png"), 1)]
    list(ImageLoader(dataset, 2, reading=note))
    assert seen == ["sample 0, " + "a" * (image_loader.SLOT - 10), "sample 1, " + os.fsdecode(b"\xff.png")]
    assert last_read(tmp_path / "none") == []


@contextmanager
def started(code):
    """A program of this code, which ends with the block at the latest."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def test_ctrl_c_ends_the_program_at_once_and_leaves_nothing():
    """In the middle of an epoch, while the main thread waits for workers that would be busy for a minute."""
    then = """
import threading
class Slow(Deadly):
    def __getitem__(self, index):
        if index == 12:
            print("busy", os.getpid(), flush=True)
        if index >= 12:
            threading.Event().wait(0.2)
        return super().__getitem__(index)

for images, labels in ImageLoader(Slow(2000), 4, num_workers=2):
    pass
"""
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.is_dir() else set()
    code = PROGRAM.replace("{what}", "pass") + then
    with started(code) as program:
        assert program.stdout.readline().startswith("busy")
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        assert not children.exists() or children.read_text() == ""
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)
    assert program.returncode == -signal.SIGINT  # which a shell shows as 130
    assert errors.rstrip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1
    assert (set(shared.iterdir()) if shared.is_dir() else set()) <= before


def test_ctrl_c_does_not_wait_for_a_worker_that_hangs():
    then = """
import threading
from minidl.data import workers
workers.PATIENCE = 0.1
for images, labels in ImageLoader(Deadly(2000), 4, num_workers=2):
    pass
"""
    code = PROGRAM.replace("{what}", 'print("hangs", flush=True); __import__("threading").Event().wait()') + then
    with started(code) as program:
        assert program.stdout.readline() == "hangs\n"
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=20)
    assert program.returncode == -signal.SIGINT


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_out_what_one_process_sees(ranks):
    settings = {"shuffle": True, "batch_transform": InputStep(*STEPS), "seed": 4}
    whole = list(ImageLoader(Patterns(22, image_size=32), 8, **settings))
    parts = [list(ImageLoader(Patterns(22, image_size=32), 8, **settings, num_replicas=ranks, rank=r)) for r in range(ranks)]
    for number, (images, labels) in enumerate(whole):
        for rank, part in enumerate(parts):
            np.testing.assert_array_equal(part[number][0], images[rank::ranks])
            np.testing.assert_array_equal(part[number][1], labels[rank::ranks])
    assert {len(part) for part in parts} == {3}


@pytest.mark.parametrize("step", [None, InputStep(RandomCrop(28))])
def test_a_share_may_be_empty(step):
    loader = ImageLoader(Patterns(9, image_size=32), 8, batch_transform=step, num_replicas=4, rank=2)
    images, labels = list(loader)[1]
    assert len(images) == len(labels) == 0
    assert step is None or images.shape == (0, 3, 28, 28)


def test_the_places_of_lost_images_are_those_in_the_whole_batch():
    loader = ImageLoader(Numbers(12, bad={3, 7, 9, 11}), 6, on_error="skip", num_replicas=2, rank=1)
    batches, seen = loader.epoch_batches(0), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, labels in batches:
            seen.append((batches.number, batches.lost, labels.tolist()))
    assert seen == [(0, [3], [1, 5]), (1, [1, 3, 5], [])]


def test_a_rank_must_be_one_of_them():
    with pytest.raises(ValueError, match=r"rank must be in \[0, num_replicas\) = \[0, 2\), got 2"):
        ImageLoader(Numbers(3), num_replicas=2, rank=2)
