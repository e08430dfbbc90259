"""data.py: which folders are taken, the statistics, and what the loaders do to an image, in which order."""

import shutil
from dataclasses import replace

import data
import fake_cupy
import numpy as np
import prepare
import pytest
from data import load_statistics, measure, open_data, save_statistics, train_loader
from model import PROFILES

from minidl import Device
from minidl.data import (
    BadFileError,
    BadImageError,
    ColorStatistics,
    ImageFolder,
    PackedImages,
    Patterns,
    SampleKey,
    Subset,
    color_statistics,
    image_names,
    last_read,
    transforms,
)
from minidl.random import Generator

SETTINGS = {"batch_size": 2, "workers": 0, "on_error": "stop"}


class Drawn:
    """A data set in memory: `n` random images of one size."""

    def __init__(self, n, height=256, width=256):
        self.images = np.random.default_rng(5).integers(0, 256, (n, height, width, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index


@pytest.fixture
def statistics(rng):
    """A mean image and components that leave no mistake unseen."""
    mean = rng.uniform(90, 160, (256, 256, 3)).astype(np.float32)
    return ColorStatistics(mean, np.array([10.0, 20.0, 50.0]), np.linalg.qr(rng.standard_normal((3, 3)))[0])


def only_batch(loader, epoch=0):
    (batch,) = list(loader.epoch_batches(epoch))
    return batch


# ------------------------------------------------------------------------------------------------------------- open_data


def test_without_a_folder_the_patterns():
    train, held_out = open_data(None)
    assert isinstance(train, Patterns) and (len(train), len(held_out)) == (data.PATTERNS_TRAIN, data.PATTERNS_HELD_OUT)
    assert (train.train, held_out.train) == (True, False)


@pytest.mark.parametrize("name", ["val", "test"])
def test_train_and_val_or_test(name, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    if name == "test":
        shutil.move(folder / "val", folder / "test")
    train, held_out = open_data(str(folder))
    assert (len(train), len(held_out)) == (10, 4) and train.classes == held_out.classes == ["cat", "dog"]
    assert held_out.root == folder / name


def test_val_goes_before_test(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    shutil.copytree(folder / "train", folder / "test")
    assert len(open_data(str(folder))[1]) == 4


def test_errors_of_open_data(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    shutil.rmtree(folder / "val" / "cat")
    with pytest.raises(ValueError) as caught:
        open_data(str(folder))
    assert str(caught.value) == f"{folder}: train and val must have the same classes, only one has cat"
    shutil.rmtree(folder / "val")
    with pytest.raises(FileNotFoundError) as caught:
        open_data(str(folder))
    way_out = "neither val/ nor test/; train.py --hold-out 0.1 holds a tenth of the images of its 2 classes out of training"
    assert str(caught.value) == f"{folder}: has train/ and {way_out}"
    with pytest.raises(FileNotFoundError) as caught:
        open_data(str(folder / "train"))
    assert str(caught.value) == f"{folder / 'train'}: has no train/ and {way_out}"
    with pytest.raises(FileNotFoundError, match=r"nowhere: must be a folder of images, got nothing by that name"):
        open_data(str(tmp_path / "nowhere"))
    with pytest.raises(
        NotADirectoryError, match=r"0\.png: must be a folder of images, got a file; an archive must be unpacked"
    ):
        open_data(str(folder / "train" / "cat" / "0.png"))
    for name in ("cat", "dog"):
        shutil.move(folder / "train" / name, folder / {"cat": "Training", "dog": "valid"}[name])
    shutil.rmtree(folder / "train")
    for fraction in (None, 0.5):
        with pytest.raises(
            ValueError, match=r"images: Training, valid look like splits, not like classes; call them train and"
        ):
            open_data(str(folder), fraction)


def test_one_class_alone_is_nothing_to_learn(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "dog")
    for root, place in ((folder, folder / "train"), (folder / "train", folder / "train")):
        with pytest.raises(ValueError) as caught:
            open_data(str(root), 0.5)
        assert str(caught.value) == f"{place}: has 1 class, cat: there is nothing to learn; at least 2 are needed"


# ---------------------------------------------------------------------------------------------------------------- hold out


def names_of(part):
    return sorted(image_names(part))


def test_held_out_of_train_alone_or_of_the_classes_alone(images, tmp_path):
    """Paths count from the folder of the classes, so both are the same cut."""
    folder = shutil.copytree(images, tmp_path / "images")
    shutil.rmtree(folder / "val")
    train, held_out = open_data(str(folder), 0.3)
    assert names_of(Subset(train.dataset, range(10))) == sorted(names_of(train) + names_of(held_out))
    again = open_data(str(folder / "train"), 0.3)
    assert [names_of(part) for part in again] == [names_of(train), names_of(held_out)]
    assert train[0][0].shape == (256, 256, 3) and held_out.classes == ["cat", "dog"]


def test_held_out_images_that_are_there_go_before_a_cut(images):
    """A run with --hold-out may go on in a folder where prepare.py has made that cut."""
    assert [len(part) for part in open_data(str(images), 0.3)] == [10, 4]


@pytest.mark.parametrize("form", ["packed", "jpeg"])
def test_prepare_makes_the_cut_of_training(images, tmp_path, form):
    source = images / "train"
    expected = [names_of(part) for part in open_data(str(source), 0.4)]
    out = str(prepared(source, tmp_path / "out", "--size", 64, "--format", form, "--hold-out", 0.4))
    found = [[name.removesuffix(".jpg") for name in names_of(part)] for part in open_data(out)]
    assert found == expected


def test_packed_images_without_held_out_ones_are_cut_like_their_originals(images, tmp_path):
    source = images / "train"
    out = prepared(source, tmp_path / "out", "--size", 64)
    assert [names_of(p) for p in open_data(str(out), 0.4)] == [names_of(p) for p in open_data(str(source), 0.4)]
    assert measure(open_data(str(out), 0.4)[0], "stop").mean.shape == (256, 256, 3)  # not of OUT/statistics.npz, 64 x 64


def test_statistics_of_a_part_are_measured_without_the_held_out_images(images, tmp_path):
    train, _ = open_data(str(prepared(images / "train", tmp_path / "out")), 0.4)
    for a, b in zip(measure(train, "stop"), color_statistics(train[i][0] for i in range(len(train))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)  # float32 of the same sums in another order


# -------------------------------------------------------------------------------------------------------- prepared folders


def prepared(images, out, *arguments):
    """What prepare.py makes of an image folder."""
    assert prepare.main([str(argument) for argument in (images, out, *arguments)]) == 0
    return out


@pytest.mark.parametrize("form", ["packed", "jpeg"])
def test_a_prepared_folder_with_the_statistics_of_all_its_images(images, tmp_path, form, monkeypatch):
    monkeypatch.setattr(data, "STATISTICS_IMAGES", 3)
    train, held_out = open_data(str(prepared(images, tmp_path / "out", "--format", form)))
    assert type(train) is type(held_out) is (PackedImages if form == "packed" else ImageFolder)
    assert (len(train), len(held_out)) == (10, 4) and train.classes == held_out.classes == ["cat", "dog"]
    expected = color_statistics(train[i][0] for i in range(10))
    for a, b in zip(measure(train, "stop"), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_on_packed_images_is_training_on_the_originals(images, tmp_path):
    """Bit for bit, given the same statistics."""
    folders = [str(images), str(prepared(images, tmp_path / "out", "--shard-images", 3))]
    statistics = measure(open_data(folders[0])[0], "stop")
    for a, b in zip(measure(open_data(folders[1])[0], "stop"), statistics, strict=True):
        np.testing.assert_array_equal(a, b)  # since the originals are fewer than STATISTICS_IMAGES
    batches = []
    for folder in folders:
        train, held_out = open_data(folder)
        loader = train_loader(train, PROFILES["paper"], statistics, batch_size=4, workers=2, seed=1, on_error="stop")
        tests = data.test_loader(held_out, PROFILES["paper"], statistics, ten_views=True, **SETTINGS)
        batches.append([*loader.epoch_batches(1), *tests.epoch_batches(0)])
    assert len(batches[0]) == 5
    for (x, labels), (expected, expected_labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(labels, expected_labels)


def test_statistics_of_another_size_are_measured_anew(images, tmp_path):
    train, _ = open_data(str(prepared(images, tmp_path / "out", "--size", 64)))
    assert train.shape == (64, 64, 3) and measure(train, "stop").mean.shape == (256, 256, 3)


def test_a_folder_that_is_not_prepared_to_the_end(images, tmp_path):
    """Its JPEG files would pass for a whole data set."""
    out = prepared(images, tmp_path / "out", "--format", "jpeg", "--size", 64)
    (out / ".prepare").mkdir()
    open_data(str(out))  # killed while it tidied up
    (out / "report.json").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        open_data(str(out))
    assert str(caught.value) == f"{out}: prepare.py has not finished here; the same command goes on where it stopped"


def test_a_prepared_folder_that_was_altered(images, tmp_path):
    out = prepared(images, tmp_path / "out", "--size", 64)
    (out / "val" / "images-00000.bin").write_bytes(b"")
    with pytest.raises(BadFileError, match=r"val/images-00000\.bin \(0 bytes\)"):
        open_data(str(out))
    (out / "statistics.npz").write_bytes(b"")
    with pytest.raises(BadFileError, match=r"statistics\.npz \(0 bytes\)"):
        measure(PackedImages(out / "train"), "stop")


# --------------------------------------------------------------------------------------------------------------- measure


def test_statistics_of_all_images():
    dataset = Drawn(5)
    found = measure(dataset, "stop")
    pixels = dataset.images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.mean, dataset.images.mean(axis=0), rtol=1e-6)  # float32
    covariance = (found.components * found.stdevs**2) @ found.components.T
    np.testing.assert_allclose(covariance, np.cov(pixels.T, bias=True), rtol=1e-9, atol=1e-6)


def test_statistics_are_of_resized_and_centred_images():
    found = measure(Drawn(1, 256, 300), "stop")
    np.testing.assert_array_equal(found.mean, Drawn(1, 256, 300).images[0, :, 22:278])
    assert measure(Drawn(1, 100, 80), "stop").mean.shape == (256, 256, 3)


def test_statistics_of_a_large_set_are_of_a_sample(monkeypatch):
    monkeypatch.setattr(data, "STATISTICS_IMAGES", 3)
    dataset = Drawn(8)
    chosen = Generator(0, data.STATISTICS_STREAM).permutation(8)[:3]
    np.testing.assert_allclose(measure(dataset, "stop").mean, dataset.images[chosen].mean(axis=0), rtol=1e-6)


def test_statistics_with_an_unreadable_image(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images") / "train"
    readable = measure(ImageFolder(folder), "stop")
    (folder / "dog" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(BadImageError, match=r"bad\.png"):
        measure(ImageFolder(folder), "stop")
    for a, b in zip(measure(ImageFolder(folder), "skip"), readable, strict=True):
        np.testing.assert_array_equal(a, b)


def test_statistics_come_back_from_their_file(statistics, tmp_path):
    save_statistics(tmp_path / "statistics.npz", statistics)
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.npz"]
    for a, b in zip(load_statistics(tmp_path / "statistics.npz"), statistics, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        load_statistics(tmp_path / "missing.npz")


def test_altered_statistics(statistics, tmp_path):
    path = tmp_path / "statistics.npz"
    save_statistics(path, statistics)
    good = path.read_bytes()
    for content in (b"", b"no zip", good[: len(good) // 2], good[:5000] + b"\xff" + good[5001:]):
        path.write_bytes(content)
        with pytest.raises(BadFileError) as caught:
            load_statistics(path)
        assert (caught.value.path, caught.value.size) == (str(path), len(content))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": np.zeros((256, 256))},
        {"mean": np.zeros((256, 256, 1))},
        {"mean": np.full((2, 2, 3), np.nan)},
        {"mean": np.zeros((2, 2, 3), np.uint8)},
        {"stdevs": np.zeros(4)},
        {"stdevs": np.array(["a", "b", "c"])},
        {"components": np.zeros((3, 2))},
        {"components": np.full((3, 3), np.inf)},
    ],
)
def test_statistics_of_wrong_shapes_or_kinds(statistics, tmp_path, change):
    save_statistics(tmp_path / "statistics.npz", statistics._replace(**change))
    with pytest.raises(BadFileError, match=r"mean must be \(H, W, 3\), stdevs \(3,\), components \(3, 3\), all finite, got"):
        load_statistics(tmp_path / "statistics.npz")


# --------------------------------------------------------------------------------------------------------------- loaders


def mean_of(profile, statistics):
    """(256, 256, 3): of the training images, or the colour that the profile has."""
    return statistics.mean if profile.mean_color is None else np.full((256, 256, 3), profile.mean_color, np.float32)


def expected_training_image(image, key, profile, statistics, noise):
    """Crop, mirror, minus the mean image's centre (never mirrored), plus noise, divided."""
    size, shared = profile.image_size, profile.crop_shared_by
    crop = key.generator(transforms.CROP, shared)
    top, left = (int(crop.integers(0, 256 - size + 1)) for _ in range(2))
    x = image[top : top + size, left : left + size]
    if key.generator(transforms.FLIP, shared).bernoulli(0.5, 1)[0]:
        x = x[:, ::-1]
    margin = (256 - size) // 2
    x = x.astype(np.float64) - mean_of(profile, statistics)[margin : margin + size, margin : margin + size]
    if not noise:
        return x
    z = key.generator(transforms.NOISE).normal(3)
    return (x + profile.color_noise * statistics.components @ (z * statistics.stdevs)) / profile.noise_divide


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("name", PROFILES)
def test_what_training_does_to_an_image(name, noise, statistics):
    dataset, profile = Drawn(4), PROFILES[name]
    loader = train_loader(dataset, profile, statistics, noise=noise, batch_size=4, workers=0, seed=3, on_error="stop")
    images, labels = only_batch(loader, epoch=2)
    assert images.shape == (4, 3, profile.image_size, profile.image_size) and images.dtype == np.float32
    assert sorted(labels) == [0, 1, 2, 3] and list(labels) == list(Generator(3, transforms.ORDER, 2).permutation(4))
    for position, (x, index) in enumerate(zip(images, labels, strict=True)):
        key = SampleKey(3, 2, int(index), position)
        with_noise = noise and profile.color_noise > 0
        expected = expected_training_image(dataset.images[index], key, profile, statistics, with_noise)
        # float32 of values up to 300: half of 3e-5 for each of three operations
        np.testing.assert_allclose(x.transpose(1, 2, 0), expected, rtol=0, atol=1e-4)


def test_original_shares_a_crop_and_a_flip_among_32_images(statistics):
    """Every image the same, so that equal results are equal crops."""
    dataset = Drawn(1)
    dataset.images = np.broadcast_to(dataset.images, (40, 256, 256, 3))
    for name, distinct in (("original", 2), ("paper", 40)):
        profile = replace(PROFILES[name], image_size=64)
        loader = train_loader(dataset, profile, statistics, noise=False, batch_size=40, workers=0, seed=0, on_error="stop")
        images, _ = only_batch(loader)
        assert len({x.tobytes() for x in images}) == distinct
        if name == "original":
            assert all(np.array_equal(x, images[0]) for x in images[:32])
            assert all(np.array_equal(x, images[32]) for x in images[32:])


@pytest.mark.filterwarnings("ignore:cuda.1 is a second context")
def test_gpus_get_tensors_and_cpus_share_an_array(statistics, monkeypatch):
    fake_cupy.install(monkeypatch)
    settings = {"batch_size": 2, "workers": 0, "seed": 0, "on_error": "stop"}
    gpus, cpus = [Device("cuda:0"), Device("cuda:1")], [Device("cpu:0"), Device("cpu:1")]
    for towers, devices in ((gpus, gpus), (cpus, [])):
        loader = train_loader(Drawn(4), PROFILES["paper"], statistics, devices=towers, **settings)
        assert loader.devices == devices and loader.pin_memory == bool(devices)


def test_training_notes_what_it_reads(statistics, tmp_path):
    seen = []

    class Looking(Drawn):
        def __getitem__(self, index):
            seen.extend(last_read(tmp_path / "reading"))
            return super().__getitem__(index)

    settings = {"batch_size": 2, "workers": 1, "seed": 0, "on_error": "stop"}
    list(train_loader(Looking(2), PROFILES["paper"], statistics, reading=tmp_path / "reading", **settings))
    assert sorted(seen) == ["sample 0", "sample 1"] and last_read(tmp_path / "reading") == []


def test_testing_takes_the_centre(statistics):
    dataset = Drawn(3)
    batches = list(data.test_loader(dataset, PROFILES["paper"], statistics, **SETTINGS).epoch_batches(0))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2]]
    expected = dataset.images[2, 16:240, 16:240] - statistics.mean[16:240, 16:240]
    np.testing.assert_array_equal(batches[1][0][0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("name", PROFILES)
def test_testing_with_ten_views(name, statistics):
    dataset, size = Drawn(2), PROFILES[name].image_size
    images, _ = only_batch(data.test_loader(dataset, PROFILES[name], statistics, ten_views=True, **SETTINGS))
    assert images.shape == (2, 10, 3, size, size)
    far, middle = 256 - size, (256 - size) // 2
    mean = mean_of(PROFILES[name], statistics)[middle : middle + size, middle : middle + size]
    for v, (top, left) in enumerate([(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]):
        view = dataset.images[1, top : top + size, left : left + size]
        np.testing.assert_array_equal(images[1, v].transpose(1, 2, 0), view - mean)
        np.testing.assert_array_equal(images[1, v + 5].transpose(1, 2, 0), view[:, ::-1] - mean)


def test_images_of_any_size_become_256(statistics, images):
    train, held_out = open_data(str(images))
    x, _ = next(iter(train_loader(train, PROFILES["paper"], statistics, batch_size=3, workers=1, seed=0, on_error="stop")))
    assert x.shape == (3, 3, 224, 224)
    x, _ = next(iter(data.test_loader(held_out, PROFILES["caffe"], statistics, **SETTINGS)))
    assert x.shape == (2, 3, 227, 227)
