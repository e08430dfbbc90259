import os
import time
import warnings

import numpy as np
import pytest

from minidl.data import (
    BadImageError,
    CenterCrop,
    Compose,
    ImageFolder,
    Resize,
    SampleKey,
    image_folder,
    read_image,
    read_picture,
)

Image = pytest.importorskip("PIL.Image")


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache folder, where no test finds another's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "minidl"


@pytest.fixture
def color():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def tree(tmp_path, color):
    save(tmp_path / "cat" / "b.png", color)
    save(tmp_path / "cat" / "deep" / "er" / "a.PNG", color)
    save(tmp_path / "Dog" / "x.bmp", color)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "loose.png").write_bytes(b"not in a class folder")
    return tmp_path


def test_the_layout_is_torchvisions(tree, color):
    dataset = ImageFolder(tree)
    assert dataset.classes == ["Dog", "cat"]
    assert dataset.class_to_idx == {"Dog": 0, "cat": 1}
    names = [path.removeprefix(str(tree)).replace("\\", "/") for path, _ in dataset.samples]
    assert names == ["/Dog/x.bmp", "/cat/b.png", "/cat/deep/er/a.PNG"]
    assert dataset.targets == [0, 1, 1] and dataset.imgs == dataset.samples and len(dataset) == 3
    image, label = dataset[2]
    assert image.mode == "RGB" and np.array_equal(image, color) and label == 1
    image, _ = ImageFolder(tree, loader=read_image)[-1]
    assert np.array_equal(image, color) and image.dtype == np.uint8


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "JPEG", "Png"])
def test_every_extension_is_found_and_read(tmp_path, extension):
    save(tmp_path / "a" / f"x.{extension}", np.full((4, 6), 200), mode="L" if extension == "pgm" else "RGB")
    image = read_image(ImageFolder(tmp_path).samples[0][0])
    assert image.shape == (4, 6, 3)
    assert abs(image.astype(int) - 200).max() <= 2  # an even grey comes through JPEG and WebP within rounding


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, color, orientation):
    # What the tag means, from the EXIF 2.3 specification: where row 0 and column 0 of the stored pixels belong.
    stored = {
        1: color,
        2: color[:, ::-1],
        3: color[::-1, ::-1],
        4: color[::-1],
        5: color.transpose(1, 0, 2),
        6: color.transpose(1, 0, 2)[::-1],
        7: color[::-1, ::-1].transpose(1, 0, 2),
        8: color.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("x.png", "x.tif"):
        assert np.array_equal(read_image(save(tmp_path / name, stored, exif=exif)), color)


def test_grey_is_spread_over_three_channels(tmp_path):
    grey = np.arange(35).reshape(5, 7)
    assert np.array_equal(read_image(save(tmp_path / "x.png", grey)), np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path):
    wide = np.array([[0, 128, 129, 257, 256 * 257 // 2, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]  # v / 257, rounded
    for name in ("x.png", "x.tif"):
        Image.fromarray(wide).save(tmp_path / name)
        assert read_image(tmp_path / name)[0, :, 1].tolist() == expected
    (tmp_path / "x.pgm").write_bytes(b"P5 6 1 65535\n" + wide.astype(">u2").tobytes())
    assert read_image(tmp_path / "x.pgm")[0, :, 2].tolist() == expected


def test_palette_and_cmyk_become_rgb(tmp_path):
    flat = np.full((4, 4, 3), [255, 0, 0])
    assert np.array_equal(read_image(save(tmp_path / "x.png", flat, mode="P")), flat)
    cmyk = read_image(save(tmp_path / "x.tif", flat, mode="CMYK"))
    assert np.array_equal(cmyk, flat)


def test_transparent_pixels_are_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]])
    expected = [[10, 20, 30], [255, 255, 255], [204, 204, 204]]  # 255 * (1 - 51 / 255) = 204
    assert read_image(save(tmp_path / "rgba.png", rgba))[0].tolist() == expected
    assert read_image(save(tmp_path / "la.png", rgba[..., 2:]))[0].tolist() == [[30] * 3, [255] * 3, [204] * 3]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert read_image(tmp_path / "p.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_broken_exif_does_not_spoil_a_good_image(tmp_path, color):
    save(tmp_path / "x.jpg", color, exif=b"Exif\0\0no TIFF header here")
    assert read_image(tmp_path / "x.jpg").shape == color.shape


def test_a_truncated_file_is_named_with_size_and_reason(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    path = save(tmp_path / "a" / "half.jpg", pixels)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(
        BadImageError, match=r"half\.jpg \(1500 bytes\) is not a readable image: OSError: .*truncated"
    ) as caught:
        ImageFolder(tmp_path)[0]
    assert caught.value.path == str(path) and caught.value.size == 1500 and "truncated" in caught.value.reason


def test_something_else_under_an_image_name_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"<html>404</html>")
    why = r"x\.png \(16 bytes\) is not a readable image: ValueError: no format that Pillow knows"
    with pytest.raises(BadImageError, match=why):
        read_image(tmp_path / "x.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (3, 3)).save(tmp_path / "x.tif")
    with pytest.raises(BadImageError, match="32-bit floating point pixels have no fixed range"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("limit", [20, 10])
def test_a_decompression_bomb_is_refused(tmp_path, color, monkeypatch, limit):
    # 35 pixels: Pillow only warns up to twice its limit, and raises by itself beyond.
    path = save(tmp_path / "x.png", color)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(BadImageError, match=r"35|limit"):
            read_image(path)


def test_a_missing_file_is_not_called_a_bad_image(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ImageFolder: root must be a folder that exists, got .*nowhere"):
        ImageFolder(tmp_path / "nowhere")


def test_a_file_in_the_place_of_the_root_is_named(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"ImageFolder: root must be a folder, got the file .*photos\.zip"):
        ImageFolder(tmp_path / "photos.zip")


def test_a_root_without_class_folders_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"Couldn't find any class folder in .*test_a_root"):
        ImageFolder(tmp_path)


def test_class_folders_without_images_are_named(tree):
    for name in ("emu", "fox"):
        (tree / name).mkdir()
    (tree / "fox" / "x.gif").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"Found no valid file for the classes emu, fox in .*\.jpg, \.jpeg, "):
        ImageFolder(tree)


@pytest.mark.parametrize("index", [-4, 3])
def test_an_index_outside_is_refused(tree, index):
    with pytest.raises(IndexError, match=rf"ImageFolder: index must be in \[-3, 3\), got {index}"):
        ImageFolder(tree)[index]


# -------------------------------------------------------------------------------------------------------------- listing


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names_of(dataset):
    return [os.path.relpath(path, dataset.root) for path, _ in dataset.samples]


def test_the_order_is_that_of_torchvision(tmp_path):
    # A folder's own files, by name, then the folders below by their whole paths: a-b/ before a/ since "-" comes before "/".
    names = ["k/b.jpg", "k/z.jpg", "k/a-b/x.jpg", "k/a/y.jpg", "k/a/c/x.jpg", "k/é.jpg", "j/x.jpg"]
    expected = [
        (os.path.join(where, file), label)
        for label, top in enumerate(["j", "k"])
        for where, _, files in sorted(os.walk(touch(tmp_path, *names) / top))
        for file in sorted(files)
    ]
    dataset = ImageFolder(tmp_path)
    assert dataset.samples == expected and dataset.targets == [0, 1, 1, 1, 1, 1, 1]


def test_a_custom_loader_gets_the_path(tree):
    dataset = ImageFolder(tree, loader=lambda path: path)
    assert [dataset[i] for i in range(3)] == list(dataset.samples)
    assert dataset.extensions == image_folder.EXTENSIONS and ImageFolder(tree).loader is read_picture


def test_is_valid_file_chooses_instead_of_the_extensions(tree):
    asked = []
    dataset = ImageFolder(tree, is_valid_file=lambda path: asked.append(path) or path.endswith(("x.bmp", "notes.txt")))
    assert names_of(dataset) == [os.path.join("Dog", "x.bmp"), os.path.join("cat", "notes.txt")] and dataset.extensions is None
    assert sorted(asked) == sorted(
        str(tree / name) for name in ("Dog/x.bmp", "cat/b.png", "cat/notes.txt", "cat/deep/er/a.PNG")
    )
    with pytest.raises(FileNotFoundError, match=r"Found no valid file for the classes Dog, cat in [^ ]*$"):
        ImageFolder(tree, is_valid_file=lambda path: False)


def test_empty_classes_are_allowed_on_request(tree):
    (tree / "emu").mkdir()
    dataset = ImageFolder(tree, allow_empty=True)
    assert dataset.classes == ["Dog", "cat", "emu"] and dataset.targets == [0, 1, 1]


def test_a_subclass_may_choose_the_classes(tree):
    class Cats(ImageFolder):
        def find_classes(self, directory):
            return ["cat", "Dog"], {"cat": 7, "Dog": 7}

    dataset = Cats(tree)
    assert dataset.targets == [7, 7, 7] and dataset.classes == ["cat", "Dog"] and dataset.class_to_idx == {"cat": 7, "Dog": 7}
    assert names_of(dataset)[0] == os.path.join("Dog", "x.bmp")  # by name, as in torchvision


def test_arguments_are_in_torchvisions_order(tree):
    dataset = ImageFolder(
        tree, lambda image: image.upper(), lambda label: -label, str, lambda path: path.endswith(".png"), True
    )
    assert [dataset[i] for i in range(len(dataset))] == [(str(tree / "cat" / "b.png").upper(), -1)]


def test_home_is_written_as_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    (tree / "a" / "b").mkdir(parents=True)
    touch(tree / "a", "b/x.jpg")
    assert ImageFolder("~/a").root == tree / "a"


@pytest.fixture
def link(tmp_path):
    def make(name, target):
        try:
            os.symlink(target, tmp_path / name)
        except OSError as error:
            pytest.skip(f"no links here: {error}")

    return make


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path, link):
    touch(tmp_path, "a/x.jpg", "b/y.jpg", "b/c/z.jpg")
    link("a/b", tmp_path / "b")
    link("b/c/up", tmp_path / "b")
    link("b/self", "self")
    link("self", "self")
    link("b/top", tmp_path)
    link("b/gone.jpg", "nowhere")
    assert names_of(ImageFolder(tmp_path)) == [
        *("a/x.jpg", "a/b/gone.jpg", "a/b/y.jpg", "a/b/c/z.jpg"),
        *("b/gone.jpg", "b/y.jpg", "b/c/z.jpg"),
    ]


def test_names_that_are_no_text_are_kept(tmp_path):
    (tmp_path / "a").mkdir()
    path = os.path.join(os.fsencode(tmp_path), b"a", b"\xff\n.jpg")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"such names can't be used here: {error}")
    assert os.fsencode(ImageFolder(tmp_path).samples[0][0]) == path


SYSTEM_FOLDERS = [
    *(".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle"),
    *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "lost+found"),
]


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_folders_that_systems_leave_are_no_classes(tmp_path, name):
    touch(tmp_path, "cat/a.jpg", "cat/deep/b.jpg", f"{name}/x.jpg", f"cat/{name}/y.jpg", f"cat/deep/{name}/below/z.jpg")
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ["cat"] and names_of(dataset) == ["cat/a.jpg", "cat/deep/b.jpg"]
    assert dataset.left_out == (3, [f"{name}/", f"cat/{name}/", f"cat/deep/{name}/"])


def test_hidden_files_are_left_out_and_counted(tmp_path):
    """What is no image by its name is not counted: nobody would miss it."""
    hidden = ["._a.jpg", ".b.jpg", "._.c.PNG"]
    touch(tmp_path, *(f"{name}/{file}" for name in ("cat", "dog") for file in [*hidden, "a.jpg", "-.jpg", ".DS_Store"]))
    touch(tmp_path, "cat/Thumbs.db", "cat/desktop.ini", "._cat")
    dataset = ImageFolder(tmp_path)
    assert names_of(dataset) == ["cat/-.jpg", "cat/a.jpg", "dog/-.jpg", "dog/a.jpg"]
    assert dataset.left_out == (6, ["cat/._.c.PNG", "cat/._a.jpg", "cat/.b.jpg"])
    assert ImageFolder(touch(tmp_path / "cat", "clean/a.jpg")).left_out == (0, [])


def test_is_valid_file_is_not_asked_for_hidden_files(tmp_path):
    touch(tmp_path, "cat/._a.jpg", "cat/a.jpg", "__MACOSX/cat/._b.jpg")
    dataset = ImageFolder(tmp_path, is_valid_file=lambda path: True)
    assert names_of(dataset) == ["cat/a.jpg"] and dataset.left_out == (2, ["__MACOSX/", "cat/._a.jpg"])


def test_a_class_of_nothing_but_hidden_images_is_empty(tmp_path):
    touch(tmp_path, "cat/a.jpg", "dog/._a.jpg")
    with pytest.raises(FileNotFoundError, match="Found no valid file for the classes dog in"):
        ImageFolder(tmp_path)


def test_a_subclass_may_take_a_hidden_folder_for_a_class(tmp_path):
    class Hidden(ImageFolder):
        def find_classes(self, directory):
            return [".cat"], {".cat": 0}

    dataset = Hidden(touch(tmp_path, ".cat/a.jpg", ".dog/a.jpg"))
    assert names_of(dataset) == [".cat/a.jpg"] and dataset.left_out == (1, [".dog/"])


def test_a_root_may_lie_in_a_hidden_folder(tmp_path):
    assert len(ImageFolder(touch(tmp_path / ".cache" / "__MACOSX", "cat/a.jpg"))) == 1


def test_samples_are_like_a_list(tmp_path):
    touch(tmp_path, "a/x.jpg", "b/c/y.jpg", "b/e/no", "b/f/z.jpg", "c/w.jpg")
    samples = ImageFolder(tmp_path).samples
    listed = [
        (str(tmp_path / name), label) for name, label in (("a/x.jpg", 0), ("b/c/y.jpg", 1), ("b/f/z.jpg", 1), ("c/w.jpg", 2))
    ]
    assert len(samples) == 4 and list(samples) == listed and samples == listed and listed == samples
    for i in range(-4, 4):
        assert samples[i] == listed[i] and type(samples[i][0]) is str and type(samples[i][1]) is int
    for part in (slice(1, 3), slice(None, None, -2), slice(-1, 9)):
        assert samples[part] == listed[part]
    assert samples.index(listed[2]) == 2 and listed[1] in samples
    assert samples == ImageFolder(tmp_path).samples and samples != listed[:3] and samples != [*listed[:3], ("x", 2)]
    assert samples != tuple(listed)
    assert repr(samples) == "<4 samples>"
    for i in (-5, 4):
        with pytest.raises(IndexError):
            samples[i]


def test_no_samples_are_a_list_too(tmp_path):
    (tmp_path / "a").mkdir()
    dataset = ImageFolder(tmp_path, allow_empty=True)
    assert dataset.samples == [] and len(dataset) == 0 and dataset.targets == [] and repr(dataset.samples) == "[]"


def test_listing_asks_for_no_details_of_files(tmp_path, monkeypatch):
    touch(tmp_path, *(f"a/{i}.jpg" for i in range(50)))
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, *args, **kwargs: asked.append(path) or stat(path, *args, **kwargs))
    assert len(ImageFolder(tmp_path)) == 50 and not any(str(path).endswith(".jpg") for path in asked)


# ---------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A tree that counts as large, and is old enough for its times to be trusted."""
    monkeypatch.setattr(image_folder, "_CACHED_FROM", 4)
    monkeypatch.setattr(image_folder, "_SETTLED_NS", -(10**18))
    return touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg")


@pytest.fixture
def listings(monkeypatch):
    """How often a tree was listed."""
    done = []
    whole = image_folder._list
    monkeypatch.setattr(image_folder, "_list", lambda *args: done.append(args) or whole(*args))
    return done


def test_the_second_listing_comes_from_the_cache(large, listings, cache):
    first, second = ImageFolder(large), ImageFolder(large)
    assert len(listings) == 1 and len(list(cache.iterdir())) == 1
    assert second.samples == first.samples and second.targets == first.targets == [0, 0, 1, 1]
    assert names_of(second) == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg"]


def test_what_was_left_out_comes_from_the_cache_too(large, listings):
    touch(large, "a/._1.jpg", "b/@eaDir/3.jpg", "__MACOSX/x.jpg")
    expected = (3, ["__MACOSX/", "a/._1.jpg", "b/@eaDir/"])
    assert ImageFolder(large).left_out == ImageFolder(large).left_out == expected and len(listings) == 1
    touch(large, "lost+found/y.jpg")  # no class folder changes by that
    assert ImageFolder(large).left_out == (4, ["__MACOSX/", "lost+found/", "a/._1.jpg"]) and len(listings) == 1


def test_other_extensions_make_another_listing(large, monkeypatch):
    assert len(ImageFolder(large)) == 4
    monkeypatch.setattr(image_folder, "EXTENSIONS", (".gif",))
    assert len(ImageFolder(large, allow_empty=True)) == 0


def test_names_with_line_ends_come_from_the_cache_too(large, listings):
    try:
        touch(large, "a/1\n2\n.jpg")
    except OSError as error:
        pytest.skip(f"such names can't be used here: {error}")
    assert ImageFolder(large).samples == ImageFolder(large).samples and len(listings) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_the_cache_is_the_users_own(large, cache):
    ImageFolder(large)
    assert os.stat(cache).st_mode & 0o077 == 0


def test_the_path_may_be_written_in_another_way(large, listings, monkeypatch):
    ImageFolder(large)
    monkeypatch.chdir(large)
    assert ImageFolder(".").samples[0] == (os.path.join(".", "a", "1.jpg"), 0) and len(listings) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: touch(root, "a/5.jpg"),
        lambda root: touch(root, "b/c/5.jpg"),
        lambda root: touch(root, "c/5.jpg"),
        lambda root: (root / "a" / "1.jpg").unlink(),
        lambda root: (root / "a" / "1.jpg").rename(root / "a" / "9.jpg"),
        lambda root: (root / "b" / "c" / "4.jpg").rename(root / "b" / "4.jpg"),
        lambda root: (root / "b").rename(root / "d"),
        lambda root: (root / "b" / "c").rename(root / "b" / "d"),
        lambda root: ((root / "b" / "c" / "4.jpg").unlink(), (root / "b" / "c").rmdir()),
    ],
)
def test_every_change_of_the_tree_is_seen(large, listings, change):
    ImageFolder(large)
    change(large)
    assert ImageFolder(large).samples == ImageFolder(large, cache=False).samples and len(listings) == 3


def test_a_change_is_seen_although_the_time_was_set_back(large, listings):
    ImageFolder(large)
    stat = os.stat(large / "a")
    touch(large, "a/5.jpg")
    os.utime(large / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(ImageFolder(large)) == 5


def test_a_folder_in_the_place_of_another_is_seen(large, listings, tmp_path_factory):
    ImageFolder(large)
    listing = image_folder._list(str(large), ["a", "b"])
    other = listing.folders[0]._replace(state=[*listing.folders[0].state[:2], 0])
    assert image_folder._is_current(listing, str(large), ["a", "b"])
    assert not image_folder._is_current(listing._replace(folders=[other, *listing.folders[1:]]), str(large), ["a", "b"])


def test_a_tree_that_changed_just_before_is_not_cached(large, monkeypatch, cache):
    # A further change could come within the same tick of the file system's clock, and leave the same time stamp.
    monkeypatch.setattr(image_folder, "_SETTLED_NS", 2_000_000_000)
    changed = max(max(os.stat(path).st_mtime_ns, os.stat(path).st_ctime_ns) for path in [large, *large.rglob("*")])
    monkeypatch.setattr(time, "time_ns", lambda: changed + 1_999_999_999)
    ImageFolder(large)
    assert not cache.exists()
    monkeypatch.setattr(time, "time_ns", lambda: changed + 2_000_000_000)
    ImageFolder(large)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("times", [(5, 7), (7, 5)])
def test_settled_means_that_two_seconds_have_passed_for_every_folder(times):
    folder = image_folder._Folder("a", "a", 1, [*(time * 10**9 for time in times), 1])
    listing = image_folder._Listing([folder._replace(state=[0, 0, 1]), folder], b"", image_folder.LeftOut(0, []))
    assert image_folder._is_settled(listing, 9_000_000_000)
    assert not image_folder._is_settled(listing, 8_999_999_999)


def test_small_trees_are_not_cached(large, cache, monkeypatch):
    monkeypatch.setattr(image_folder, "_CACHED_FROM", 5)
    ImageFolder(large)
    assert not cache.exists()
    ImageFolder(touch(large, "a/5.jpg"))
    assert cache.exists()


def test_what_is_small_and_what_is_settled():
    assert image_folder._CACHED_FROM == 50_000 and image_folder._SETTLED_NS == 2 * 10**9


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_cache_is_made_anew(large, listings, cache, damage):
    ImageFolder(large)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    file.write_bytes({"cut": whole[:-5], "flipped": flipped, "empty": b"", "other": b"\0\1"}[damage])
    assert names_of(ImageFolder(large)) == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg"] and len(listings) == 2
    assert file.read_bytes() == whole


def test_the_cache_may_lie_elsewhere_or_nowhere(large, listings, cache, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "new" / "deep"
    ImageFolder(large, cache=elsewhere)
    ImageFolder(large, cache=str(elsewhere))
    assert len(listings) == 1 and len(list(elsewhere.iterdir())) == 1
    ImageFolder(large, cache=False)
    ImageFolder(large, is_valid_file=lambda path: True)
    assert len(listings) == 3 and not cache.exists()


def test_a_folder_that_is_gone_behind_a_link_is_seen(large, listings, link, tmp_path_factory):
    elsewhere = touch(tmp_path_factory.mktemp("elsewhere"), "x/5.jpg")
    link("b/there", elsewhere / "x")
    assert len(ImageFolder(large)) == 5
    (elsewhere / "x").rename(elsewhere / "y")
    assert names_of(ImageFolder(large)) == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/c/4.jpg"]


def test_without_a_cache_folder_nothing_is_cached(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert image_folder._cache_folder(True) is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert str(image_folder._cache_folder(True)) == "/home/x/.cache/minidl"
    assert str(image_folder._cache_folder("~/mine")) == "/home/x/mine"


def test_a_cache_that_cannot_be_written_is_no_error(large, cache, listings):
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(b"a file in its place")
    assert len(ImageFolder(large)) == len(ImageFolder(large)) == 4 and len(listings) == 2


def test_a_listing_that_is_cut_short_by_a_kill_leaves_no_cache(large, cache, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ImageFolder(large)
    assert list(cache.iterdir()) == []


def made_in_two_steps(path, size):
    return Compose([Resize(size), CenterCrop(size)])(read_image(path), SampleKey(0, 0, 0, 0))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (16, 16), (16, 33), (33, 16), (40, 40)])
def test_a_size_gives_what_resize_and_center_crop_make(shape, mode, rng, tmp_path):
    """Bit for bit where the image grows, keeps its size, or is needed whole."""
    path = tmp_path / "image.jpg"
    Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).convert(mode).save(path)
    assert np.array_equal(read_image(path, size=16), made_in_two_steps(path, 16))


@pytest.mark.parametrize("shape", [(17, 18), (40, 61), (61, 40), (375, 500), (1000, 33)])
def test_of_an_image_that_shrinks_the_centre_is_the_same_but_for_roundings(shape, rng, tmp_path):
    """Only the pass along the longer side is cut short. Its weights move by some 1e-7, so a sum moves by 1e-4 of a level and
    rounds to another one only from next to the middle between two: one level, and of noise's evenly spread sums few."""
    path = tmp_path / "image.png"
    Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    difference = abs(read_image(path, size=16).astype(int) - made_in_two_steps(path, 16))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02
