import hashlib

import numpy as np
import pytest

from minidl.data import patterns
from minidl.data.patterns import SHAPES, Patterns
from minidl.random import Generator


def test_images_and_labels_have_the_stated_types():
    dataset = Patterns(25, image_size=64)
    image, label = dataset[13]
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert label == 3 and type(label) is int
    assert len(dataset) == 25 and len(list(dataset)) == 25


def test_labels_are_balanced_and_have_names():
    dataset = Patterns(30, image_size=32)
    assert dataset.targets == [label for _, label in dataset]
    assert np.bincount(dataset.targets).tolist() == [3] * 10
    assert dataset.classes[0] == "striped disc" and dataset.classes[9] == "checkered cross"
    assert len(set(dataset.classes)) == 10
    assert [dataset.classes[dataset.class_to_idx[name]] for name in dataset.classes] == dataset.classes


def test_asking_for_the_labels_draws_nothing(monkeypatch):
    monkeypatch.setattr(patterns, "_draw", None)
    assert len(Patterns(10_000).targets) == 10_000


def test_the_same_bytes_on_every_machine():
    # No tolerance: every operation is defined exactly by IEEE 754. Odd and small sizes take the edges of the arithmetic.
    digest = hashlib.sha256()
    for size in (32, 57, 64, 256):
        for train in (True, False):
            dataset = Patterns(20, train=train, seed=3, image_size=size)
            for i in range(20):
                digest.update(dataset[i][0].tobytes())
    assert digest.hexdigest() == "b652cec95e505bfefa2e8585b7fcbe6c4704943b39c462f8de7928dfa81260d9"


def test_an_image_depends_on_seed_split_and_index_only():
    image = Patterns(100, image_size=32)[37][0]
    assert np.array_equal(image, Patterns(38, image_size=32)[37][0])
    for other in (Patterns(100, train=False, image_size=32)[37], Patterns(100, seed=1, image_size=32)[37]):
        assert not np.array_equal(image, other[0])
    assert not np.array_equal(image, Patterns(100, image_size=32)[47][0])  # same class


@pytest.mark.parametrize("size", [32, 33, 47, 64, 256])
def test_the_shape_keeps_clear_of_what_a_crop_can_cut_off(size):
    margin = size - size * 7 // 8
    for seed in range(60):
        generator = Generator(seed)
        x0, y0, radius = patterns._place(size, generator)
        columns, rows = patterns._span(x0, radius), patterns._span(y0, radius)
        assert margin <= min(columns.start, rows.start) and max(columns.stop, rows.stop) <= size - margin
        assert 0.22 * size < radius < 0.36 * size


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_is_drawn_whole_inside_its_circle(shape):
    # Drawn on a canvas with 20 pixels more on every side, it must cover nothing outside the pixels that _span names.
    for seed in range(20):
        circle = (100.3, 90.6, 50.7)
        columns, rows = patterns._span(circle[0], circle[2]), patterns._span(circle[1], circle[2])
        wide = [slice(s.start - 20, s.stop + 20) for s in (columns, rows)]
        cover = patterns._cover(shape, *wide, circle, Generator(seed))
        inner = cover[20:-20, 20:-20].copy()
        cover[20:-20, 20:-20] = 0.0
        assert cover.max() == 0.0
        assert inner.min() == 0.0 and inner.max() == 1.0
        # The smallest shape, the cross, covers 0.64 of the square of the radius less the ramps; the largest, the disc, pi.
        assert 1.2 < inner.sum() / 50.7**2 < 3.2


def test_colour_alone_does_not_tell_the_class():
    # Nearest class mean of the mean colour. Chance is 10 %; 25 % is 7 standard errors (sqrt(.1 * .9 / 200) = 2.1 %) above it.
    def mean_colors(train, n):
        dataset = Patterns(n, train=train, image_size=64)
        return np.array([dataset[i][0].mean(axis=(0, 1)) for i in range(n)]), np.array(dataset.targets)

    x, y = mean_colors(True, 600)
    centers = np.array([x[y == label].mean(axis=0) for label in range(10)])
    x, y = mean_colors(False, 200)
    nearest = ((x[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == y).mean() < 0.25


def test_shape_and_texture_both_change_the_image():
    # The same draws with another label: neighbours differ in texture, labels two apart in shape; the ground stays.
    images = [patterns._draw(label, 64, Generator(5)).astype(int) for label in range(10)]
    for a in range(10):
        for b in range(a):
            assert (abs(images[a] - images[b]).max(axis=2) > 40).mean() > 0.02
    assert all(np.array_equal(image[:8], images[0][:8]) for image in images)


def test_a_bad_argument_is_named():
    with pytest.raises(ValueError, match=r"Patterns: length must be at least 0, got -1"):
        Patterns(-1)
    with pytest.raises(ValueError, match=r"Patterns: image_size must be at least 32, got 31"):
        Patterns(image_size=31)
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*64\), got -1"):
        Patterns(seed=-1)


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=rf"Patterns: index must be in \[0, 10\), got {index}"):
        Patterns(10)[index]
