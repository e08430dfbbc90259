"""Subset and hold_out: which images, in which order, and that the cut is a function of each image's path alone."""

import hashlib
import math
import os
import unicodedata

import numpy as np
import pytest

from minidl.data import ImageFolder, ImageLoader, PackedImages, Patterns, Subset, hold_out, image_names
from minidl.data.packed import INDEX, index_bytes, shard_name


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def tree(root, images=100):
    return touch(root, *(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(images)))


def names_of(part):
    return [os.path.relpath(path, part.dataset.root) for path, _ in part.samples]


# ---------------------------------------------------------------------------------------------------------------- Subset


def test_a_subset_is_its_indices_in_their_order():
    whole = Patterns(20, image_size=32)
    part = Subset(whole, [7, 3, 3, 19])
    assert len(part) == 4 and part.targets == [7, 3, 3, 9]
    assert part.classes == whole.classes and part.class_to_idx == whole.class_to_idx
    for i, index in enumerate([7, 3, 3, 19]):
        np.testing.assert_array_equal(part[i][0], whole[index][0])
        assert part[i][1] == whole[index][1]
    np.testing.assert_array_equal(part[-1][0], whole[19][0])
    for outside in (-5, 4):
        with pytest.raises(IndexError, match=rf"Subset: index must be in \[-4, 4\), got {outside}"):
            part[outside]


@pytest.mark.parametrize("outside", [-21, 20])
def test_an_index_that_the_data_set_has_not(outside):
    with pytest.raises(IndexError, match=rf"Subset: indices must be in \[-20, 20\), got {outside}"):
        Subset(Patterns(20), [0, outside])


def test_samples_of_a_subset_and_the_name_that_a_loader_gives(tmp_path):
    part = Subset(ImageFolder(tree(tmp_path, 3)), [5, 0])
    assert names_of(part) == ["dog/2.jpg", "cat/0.jpg"] and part.samples[:1] == [(str(tmp_path / "dog" / "2.jpg"), 1)]
    assert list(image_names(part)) == ["dog/2.jpg", "cat/0.jpg"]
    with pytest.raises(RuntimeError, match=r"cat.0\.jpg \(0 bytes\)"):
        next(iter(ImageLoader(Subset(part, [1]))))


def test_a_subset_of_images_without_paths_has_no_samples():
    part = Subset(Patterns(20), [3, 4])
    assert not hasattr(part, "samples") and list(image_names(part)) == ["3", "4"]


# --------------------------------------------------------------------------------------------------------------- hold_out


def test_the_cut_is_by_the_hash_of_each_path(tmp_path):
    train, held_out = hold_out(ImageFolder(tree(tmp_path)), 0.25)
    expected = [
        name
        for name in (f"{folder}/{i}.jpg" for folder in ("cat", "dog") for i in range(100))
        if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < 2**62
    ]
    assert sorted(names_of(held_out)) == sorted(expected)
    assert sorted(names_of(train) + names_of(held_out)) == sorted(names_of(Subset(train.dataset, range(200))))
    assert names_of(train) == sorted(names_of(train)) and len(train) + len(held_out) == 200
    assert abs(len(held_out) - 50) < 5 * math.sqrt(200 * 0.25 * 0.75)  # five standard deviations


def test_the_cut_is_the_same_wherever_the_folder_lies(tmp_path, monkeypatch):
    for name in ("a", "b/cat"):
        tree(tmp_path / name)
    monkeypatch.chdir(tmp_path / "a")
    cuts = [names_of(hold_out(ImageFolder(root), 0.1)[1]) for root in (tmp_path / "a", tmp_path / "b" / "cat", ".", "../a/")]
    assert cuts[0] == cuts[1] == cuts[2] == cuts[3]


def test_an_image_that_is_added_moves_no_other(tmp_path):
    before = {
        part: set(names_of(part_set)) for part, part_set in zip("th", hold_out(ImageFolder(tree(tmp_path)), 0.3), strict=True)
    }
    touch(tmp_path, *(f"{name}/new-{i}.jpg" for name in ("ant", "cat") for i in range(50)))
    train, held_out = hold_out(ImageFolder(tmp_path), 0.3)
    assert before["t"] < set(names_of(train)) and before["h"] < set(names_of(held_out))


def test_a_larger_fraction_holds_out_the_same_images_and_more(tmp_path):
    whole = ImageFolder(tree(tmp_path))
    cuts = [set(names_of(hold_out(whole, fraction)[1])) for fraction in (0.1, 0.2, 0.5, 0.9)]
    assert cuts[0] < cuts[1] < cuts[2] < cuts[3]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_cut_is_the_same_in_each_of_unicodes_forms(tmp_path, form):
    names = [unicodedata.normalize(form, f"k\u00fche/{i}\u00e9.jpg") for i in range(40)]
    _, held_out = hold_out(ImageFolder(touch(tmp_path, *names)), 0.5)
    numbers = [int(os.path.basename(name)[: -len(unicodedata.normalize(form, "\u00e9.jpg"))]) for name in names_of(held_out)]
    expected = [i for i in range(40) if hashlib.sha256(f"k\u00fche/{i}\u00e9.jpg".encode()).digest()[0] < 128]
    assert sorted(numbers) == expected


def test_names_that_are_no_text_are_cut_too(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"a")
    os.mkdir(folder)
    try:
        for i in range(20):
            os.close(os.open(os.path.join(folder, b"\xff%d.jpg" % i), os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"such names can't be used here: {error}")
    train, held_out = hold_out(ImageFolder(tmp_path), 0.5)
    assert len(train) + len(held_out) == 20


def test_packed_images_are_cut_as_the_files_that_they_were_made_from(tmp_path):
    """Also where the packed folder has the name of a class."""
    source, packed = ImageFolder(tree(tmp_path / "source", 20)), tmp_path / "cat"
    packed.mkdir()
    (packed / shard_name(0)).write_bytes(bytes(40 * 3))
    digest = hashlib.sha256(bytes(40 * 3)).hexdigest()
    content = index_bytes((1, 1, 3), source.classes, [(40, digest)], source.targets, list(image_names(source)))
    (packed / INDEX).write_bytes(content)
    dataset = PackedImages(packed)
    for part, original in zip(hold_out(dataset, 0.3), hold_out(source, 0.3), strict=True):
        assert [name for name, _ in part.samples] == names_of(original) == list(image_names(part))
        assert part.targets == original.targets


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_fractions_that_are_none(tmp_path, fraction):
    with pytest.raises(ValueError, match=f"hold_out: fraction must be between 0 and 1, got {fraction}"):
        hold_out(ImageFolder(tree(tmp_path, 1)), fraction)


def test_images_without_paths_cannot_be_cut():
    with pytest.raises(ValueError, match=r"hold_out: the images must have paths \(samples\), got a Patterns"):
        hold_out(Patterns(20), 0.5)


def test_a_class_of_which_no_image_is_left_is_named(tmp_path):
    touch(tmp_path, "cat/0.jpg", *(f"dog/{i}.jpg" for i in range(30)))
    place = int(hashlib.sha256(b"cat/0.jpg").hexdigest()[:16], 16) / 2**64
    with pytest.raises(ValueError) as caught:
        hold_out(ImageFolder(tmp_path), place + 0.01)
    assert str(caught.value).startswith("hold_out: no image of cat is left for training at fraction 0.")
    assert str(caught.value).endswith("; take a smaller one")
    train, held_out = hold_out(ImageFolder(tmp_path), place - 0.01)
    assert train.targets.count(0) == 1 and held_out.targets.count(0) == 0  # a class may have no held-out image


def test_of_many_such_classes_five_are_named(tmp_path):
    touch(tmp_path, *(f"{letter}/{i}.jpg" for letter in "abcdefghi" for i in range(2)))
    with pytest.raises(ValueError, match=r"hold_out: no image of a, b, c, d, e and 4 more is left for training"):
        hold_out(ImageFolder(tmp_path), 1 - 1e-9)


def test_a_class_without_images_is_not_missed(tmp_path):
    (tree(tmp_path) / "emu").mkdir()
    train, _ = hold_out(ImageFolder(tmp_path, allow_empty=True), 0.5)
    assert train.classes == ["cat", "dog", "emu"] and set(train.targets) == {0, 1}


def test_not_one_image_held_out(tmp_path):
    with pytest.raises(ValueError, match=r"hold_out: of 4 images none is held out at fraction 1e-09; take a larger one"):
        hold_out(ImageFolder(tree(tmp_path, 2)), 1e-9)
