"""What Pillow warns of: with the file's name, once for each file, in many threads, and without touching others' warnings."""

import os
import pickle
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from minidl.data import BadImageError, ImageFolder, ImageLoader, ImageWarning, image_folder, read_image
from minidl.data.image_warnings import named, told

Image = pytest.importorskip("PIL.Image")
SOURCE = os.path.join("site-packages", "PIL", "Some.py")
WHY = "Corrupt EXIF data. Expecting to read 12 bytes but only got 5."


def corrupt(path):
    """An image whose EXIF data ends in the second of its three entries."""
    whole = struct.pack("<HHI4s", 0x0112, 3, 1, b"\1\0\0\0")  # EXIF 2.3: the orientation, one short, 1
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 3) + whole + bytes(5)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(path, "JPEG", exif=exif)
    return path


def good(path):
    Image.new("RGB", (40, 30), "blue").save(path, "JPEG")
    return path


def test_the_file_is_named(tmp_path):
    path = corrupt(tmp_path / "a.jpg")
    with pytest.warns(ImageWarning) as caught:
        assert read_image(path).shape == (30, 40, 3)
    (warning,) = caught
    assert str(warning.message) == f"{path}: Pillow warns: {WHY}" and warning.filename == __file__
    assert (warning.message.path, warning.message.reason) == (str(path), WHY)
    copy = pickle.loads(pickle.dumps(warning.message))
    assert (str(copy), copy.path, copy.reason) == (str(warning.message), str(path), WHY)


def test_each_file_is_named_once_though_the_text_is_the_same(tmp_path):
    paths = [corrupt(tmp_path / f"{i}.jpg") for i in range(3)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in [*paths, *paths]:
            read_image(path)
    assert [each.message.path for each in caught] == [str(path) for path in paths]


def test_several_warnings_of_a_file_are_one(tmp_path):
    with pytest.warns(ImageWarning) as caught, named("x.tif"):
        for text in ("Tag  1 is odd.", WHY, "Tag  1 is odd."):
            warnings.warn_explicit(text, UserWarning, SOURCE, 1, "PIL.Some")
    assert [str(each.message) for each in caught] == [f"x.tif: Pillow warns: Tag 1 is odd.; {WHY}"]


def test_a_file_that_cannot_be_read_is_an_error_and_no_warning(tmp_path, monkeypatch):
    """Pillow warns of a picture between one and two times its limit; here it is refused."""
    path = good(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError, match="an image may have at most 1000 pixels, got 40 x 30 = 1200"):
            read_image(path)


def test_other_warnings_go_their_usual_way(tmp_path):
    """Of other code inside, and of Pillow outside: shown once for a text, or an error if the user says so."""

    def pillow(text):
        warnings.warn_explicit(text, UserWarning, SOURCE, 1, "PIL.Some", registry)

    read_image(good(tmp_path / "a.jpg"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        read_image(tmp_path / "a.jpg")
        registry = {}
        with named("x.jpg"):
            warnings.warn("of somebody else", RuntimeWarning, stacklevel=1)
        for _ in range(2):
            pillow("of Pillow, by somebody else")
    assert [str(each.message) for each in caught] == ["of somebody else", "of Pillow, by somebody else"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(good(tmp_path / "a.jpg"))
        registry = {}
        with pytest.raises(UserWarning, match="of Pillow"):
            pillow("of Pillow")


def test_an_error_filter_of_the_users_makes_an_error_of_the_named_warning(tmp_path):
    path = corrupt(tmp_path / "a.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageWarning, match=r"a\.jpg: Pillow warns: Corrupt"):
            read_image(path)


def test_threads_keep_their_warnings_apart(tmp_path, monkeypatch):
    """All decode at the same moment, again and again; each is told of its own files and of nothing else."""
    n, rounds = 4, 20
    start = Barrier(n)
    decode = image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda *arguments: (start.wait(10), decode(*arguments))[1])
    paths = [[(corrupt if i % 2 else good)(tmp_path / f"{i}-{j}.jpg") for j in range(rounds)] for i in range(n)]

    def read(mine):
        found = []
        with told(found):
            for path in mine:
                read_image(path)
        return [each.path for each in found]

    with ThreadPoolExecutor(n) as pool:
        found = list(pool.map(read, paths))
    assert found == [[str(path) for path in mine] if i % 2 else [] for i, mine in enumerate(paths)]


@pytest.mark.parametrize("action", ["default", "once", "module", "ignore"])
def test_filters_of_the_users_that_come_later_hide_no_file(tmp_path, action):
    """Those would show the text for the first file alone, or not at all. The named warning is theirs to ignore."""
    paths, found = [corrupt(tmp_path / f"{i}.jpg") for i in range(2)], []
    read_image(good(tmp_path / "a.jpg"))
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with told(found):
            for path in paths:
                read_image(path)
    assert [each.path for each in found] == [str(path) for path in paths]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_lists_the_files_and_warns_of_each_once(tmp_path, workers):
    paths = [corrupt(tmp_path / "a" / f"{i}.jpg") for i in range(3)]
    good(tmp_path / "a" / "9.jpg")
    loader = ImageLoader(ImageFolder(tmp_path), 2, num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert sum(len(labels) for _, labels in loader) == 4
    assert loader.warned == {str(path): WHY for path in paths} and loader.skipped == []
    assert [(each.message.path, each.filename) for each in caught] == [(str(path), __file__) for path in paths]


def test_the_hook_comes_back_after_catch_warnings(tmp_path):
    """As pytest does around each test: what was put in since goes away with it."""
    for i in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            read_image(corrupt(tmp_path / f"{i}.jpg"))
        assert len(caught) == 1 and isinstance(caught[0].message, ImageWarning)


def test_reading_many_images_leaves_one_filter_and_one_hook(tmp_path):
    """In a program of its own, with a hook of the user's under it."""
    path = corrupt(tmp_path / "a.jpg")
    program = f"""
import warnings
warnings.showwarning = lambda message, *_: print(message)
from minidl.data import read_image
before = len(warnings.filters)
for _ in range(5):
    read_image({str(path)!r})
    with warnings.catch_warnings():
        read_image({str(path)!r})
print(len(warnings.filters) - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{path}: Pillow warns: {WHY}\n1\n", "")
