"""prepare.py: the pixels, each kind of image, the statistics, and that nothing that happens to it can spoil what it makes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial

import data
import numpy as np
import prepare
import pytest
from guards import locked
from image_folders import ALEXNET, make_folder, save_image

from minidl.data import ImageFolder, PackedImages, color_statistics, read_image

Image = pytest.importorskip("PIL.Image")
SIZE = 32
FORMATS = ("packed", "jpeg")


@pytest.fixture
def call(call_main):
    """call(arguments) -> exit code, standard output, standard error."""
    return partial(call_main, prepare.main)


def fitted(path, size=SIZE):
    """As training reads it: the centre of what Resize makes, which tests/data/test_image_folder.py checks."""
    return read_image(path, size)


def content(folder):
    """Every file below the folder -> its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def noise(height, width, *channels):
    return np.random.default_rng(7).integers(0, 256, (height, width, *channels), np.uint8)


# ----------------------------------------------------------------------------------------------------------- what it makes


def test_packed_images_are_what_training_makes_of_the_originals(call, images, tmp_path):
    """Bit for bit, in the same order, at the size that training uses."""
    code, out, err = call(images, tmp_path / "out", "--shard-images", 3)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'out'}: 10 images in train, 4 images in val; 0 unreadable files\n"
    for split in ("train", "val"):
        originals, packed = ImageFolder(images / split), PackedImages(tmp_path / "out" / split)
        packed.verify()
        assert packed.shape == (256, 256, 3) and packed.classes == originals.classes
        assert [f"{images}/{split}/{name}" for name, _ in packed.samples] == [path for path, _ in originals.samples]
        assert packed.targets == originals.targets
        for i, (path, _) in enumerate(originals.samples):
            assert np.array_equal(packed[i][0], fitted(path, 256))
    shards = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert shards == [*(f"images-0000{k}.bin" for k in range(4)), "index.json"]
    assert os.listdir(tmp_path / "out" / "train") and not (tmp_path / "out" / ".prepare").exists()


def test_jpeg_has_the_same_tree(call, tmp_path):
    source, out = make_folder(tmp_path / "source"), tmp_path / "out"
    save(source / "train" / "cat" / "deep" / "photo.JPEG", noise(40, 50, 3))
    assert call(source, out, "--format", "jpeg", "--size", SIZE, "--shard-images", 4)[0] == 0
    for split in ("train", "val"):
        originals, made = ImageFolder(source / split), ImageFolder(out / split)
        assert made.classes == originals.classes and made.targets == originals.targets
        for (before, _), (after, _) in zip(originals.samples, made.samples, strict=True):
            name = before.removeprefix(str(source))
            assert after.removeprefix(str(out)) == (name if name.endswith(".JPEG") else f"{name}.jpg")
            with Image.open(after) as image:
                assert image.format == "JPEG" and image.size == (SIZE, SIZE) and image.mode == "RGB"
            if not name.endswith(".JPEG"):  # smooth
                assert abs(read_image(after).astype(int) - fitted(before)).mean() < 8


def test_the_quality_of_jpeg(call, images, tmp_path):
    """The file is the one that Pillow writes at that quality, 95 if none is given."""
    for quality, arguments in ((95, []), (40, ["--quality", 40])):
        out = tmp_path / str(quality)
        assert call(images, out, "--format", "jpeg", "--size", SIZE, *arguments)[0] == 0
        path, _ = ImageFolder(images / "val").samples[0]
        save(tmp_path / "expected.jpg", fitted(path), quality=quality)
        assert (out / "val" / "cat" / "0.png.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_statistics_are_of_all_training_images_as_training_reads_them(call, images, tmp_path, form):
    assert call(images, tmp_path / "out", "--format", form, "--size", SIZE, "--shard-images", 3)[0] == 0
    train = (PackedImages if form == "packed" else ImageFolder)(tmp_path / "out" / "train")
    expected = color_statistics(train[i][0] for i in range(len(train)))
    found = data.load_statistics(tmp_path / "out" / "statistics.npz")
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMATS)
def test_the_bytes_do_not_depend_on_the_workers(call, images, tmp_path, form):
    for workers in (1, 3):
        arguments = ["--format", form, "--size", SIZE, "--shard-images", 4, "-j", workers]
        assert call(images, tmp_path / str(workers), *arguments)[0] == 0
    assert content(tmp_path / "1") == content(tmp_path / "3")


@pytest.mark.parametrize("form", FORMATS)
def test_a_second_run_does_nothing_and_says_so(call, images, tmp_path, form, monkeypatch):
    out = tmp_path / "out"
    assert call(images, out, "--format", form, "--size", SIZE)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr(prepare, "read_image", None)
    monkeypatch.setattr(prepare, "locked", None)  # OUT may be read-only by now
    code, text, _ = call(images, out, "--format", form, "--size", SIZE, "-j", 5, "--on-error", "stop")
    assert code == 0 and text.splitlines()[0] == f"{out} is complete already"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_one_split_alone_becomes_train(call, images, tmp_path):
    assert call(images / "val", tmp_path / "out", "--size", SIZE)[0] == 0
    assert len(PackedImages(tmp_path / "out" / "train")) == 4 and not (tmp_path / "out" / "val").exists()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"] == str(images / "val") and report["images"] == {"train": 4}


def test_val_and_test_are_both_made(call, tmp_path):
    source = make_folder(tmp_path / "source")
    shutil.copytree(source / "val", source / "test")
    assert call(source, tmp_path / "out", "--size", SIZE)[0] == 0
    assert [len(PackedImages(tmp_path / "out" / split)) for split in ("train", "val", "test")] == [10, 4, 4]


# ---------------------------------------------------------------------------------------------------------- kinds of images


def exif_rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF 2.3, tag Orientation: row 0 of the file is the right side of the picture
    return save(path, noise(40, 60, 3), exif=exif)


def kinds(root):
    """Name -> (path, the upright RGB pixels that it stands for)."""
    grey, rgb, alpha = noise(40, 60), noise(40, 60, 3), noise(40, 60, 4)
    wide = np.random.default_rng(3).integers(0, 65536, (40, 60)).astype(np.uint16)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    over_white = (alpha[..., :3] * (alpha[..., 3:] / 255.0) + 255.0 * (1.0 - alpha[..., 3:] / 255.0)).round()
    stack = partial(np.stack, axis=-1)
    files = {
        "grey": (save(root / "grey.png", grey), stack([grey] * 3)),
        "cmyk": (save(root / "cmyk.tif", cmyk), rgb),
        "alpha": (save(root / "alpha.png", alpha), over_white),
        "16-bit": (save(root / "16-bit.png", wide), stack([np.round(wide / 257)] * 3)),
        "palette": (save(root / "palette.png", Image.fromarray(grey).convert("P")), stack([grey] * 3)),
        "rotated": (exif_rotated(root / "rotated.png"), np.rot90(noise(40, 60, 3), -1)),
        "tiny": (save(root / "tiny.png", noise(1, 2, 3)), noise(1, 2, 3)),
        "huge": (save(root / "huge.png", noise(33, 4000, 3)), noise(33, 4000, 3)),
    }
    return files


def test_every_kind_of_image(call, tmp_path):
    """Each becomes what its upright RGB pixels become."""
    files = kinds(tmp_path / "source" / "all")
    assert call(tmp_path / "source", tmp_path / "out", "--size", SIZE)[0] == 0
    packed = PackedImages(tmp_path / "out" / "train")
    assert len(packed) == len(files)
    place = {name: i for i, (name, _) in enumerate(packed.samples)}
    for name, (path, pixels) in files.items():
        expected = fitted(save(tmp_path / "upright.png", np.ascontiguousarray(pixels.astype(np.uint8))))
        error = abs(packed[place[f"all/{path.name}"]][0].astype(int) - expected)
        assert error.max() <= (1 if name == "alpha" else 0), name  # Pillow rounds alpha's product twice
        assert expected.std() > 20


def with_unreadable(root):
    """Three good images and four that are not; the good ones' names, and the bad ones' with what their reason says."""
    good = [save(root / f"{name}.png", noise(*size, 3)) for name, size in (("a", (40, 60)), ("f", (60, 40)), ("z", (1, 97)))]
    whole = save(root / "b.jpg", noise(200, 200, 3)).read_bytes()
    (root / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "c.png").write_bytes(b"GIF, they said")
    (root / "d.jpeg").write_bytes(b"")
    save(root / "e.png", Image.new("1", (500, 400)))
    save(root / "g.png", noise(98, 1, 3))
    reasons = {
        "b.jpg": "image file is truncated",
        "c.png": "no format that Pillow knows",
        "d.jpeg": "no format that Pillow knows",
        "e.png": "an image may have at most 100000 pixels, got 500 x 400 = 200000",
        "g.png": "a resized image may have at most 100000 pixels, 98 x 1 at size 32 has 100352",
    }
    return [path.name for path in good], reasons


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("form", FORMATS)
def test_unreadable_files_are_left_out_and_reported(call, tmp_path, monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    source, out = tmp_path / "source", tmp_path / "out"
    good, reasons = with_unreadable(source / "x")
    code, text, _ = call(source, out, "--format", form, "--size", SIZE, "--shard-images", 2)
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["images"] == {"train": 3}
    assert [row["path"] for row in report["unreadable"]] == [f"x/{name}" for name in reasons]
    for row in report["unreadable"]:
        path = source / row["path"]
        assert row["size"] == path.stat().st_size and reasons[path.name] in row["reason"] and "0x" not in row["reason"]
    lines = text.splitlines()
    assert lines[0] == f"{out}: 3 images in train; 5 unreadable files"
    first = report["unreadable"][0]
    assert lines[1] == f"  x/b.jpg ({first['size']} bytes): {first['reason']}" and len(lines) == 5
    assert lines[4] == f"  and 2 more: {out / 'report.json'}"
    if form == "packed":
        packed = PackedImages(out / "train")
        packed.verify()
        assert [name for name, _ in packed.samples] == [f"x/{name}" for name in good]
        assert all(np.array_equal(packed[i][0], fitted(source / "x" / name)) for i, name in enumerate(good))
    else:
        assert sorted(os.listdir(out / "train" / "x")) == [f"{name}.jpg" for name in good]


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_on_error_stop_names_the_file_and_can_go_on(call, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    source, out = tmp_path / "source", tmp_path / "out"
    with_unreadable(source / "x")
    code, text, err = call(source, out, "--size", SIZE, "--on-error", "stop", "--shard-images", 1, "-j", 1)
    assert (code, text) == (2, "")
    assert err.startswith(f"prepare.py: error: BadImageError: {source}/x/b.jpg (") and err.count("\n") == 1
    assert not (out / "report.json").exists() and sorted(os.listdir(out / ".prepare")) == ["settings.json", "train-00000.npz"]
    assert call(source, out, "--size", SIZE, "--shard-images", 1)[0] == 0
    assert call(source, tmp_path / "other", "--size", SIZE, "--shard-images", 1)[0] == 0
    assert content(out) == content(tmp_path / "other")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
@pytest.mark.parametrize("form", FORMATS)
def test_names_that_are_not_unicode(call, tmp_path, form):
    folder = tmp_path / "source" / "x"
    save(folder / "a.jpg", noise(40, 60, 3))
    (folder / "a.jpg").rename(folder / os.fsdecode(b"\xff.jpg"))
    (folder / os.fsdecode(b"\xfe.jpg")).write_bytes(b"no image")
    code, out, _ = call(tmp_path / "source", tmp_path / "out", "--format", form, "--size", SIZE)
    assert code == 0 and out.splitlines()[1].startswith("  x/\\udcfe.jpg (8 bytes): ")
    if form == "packed":
        assert PackedImages(tmp_path / "out" / "train").samples == [(os.fsdecode(b"x/\xff.jpg"), 0)]
    else:
        assert os.listdir(os.fsencode(tmp_path / "out" / "train" / "x")) == [b"\xff.jpg"]


def test_no_readable_training_image(call, tmp_path):
    (tmp_path / "source" / "x").mkdir(parents=True)
    (tmp_path / "source" / "x" / "a.png").write_bytes(b"nothing")
    code, _, err = call(tmp_path / "source", tmp_path / "out")
    assert code == 2 and err == "prepare.py: error: color_statistics: takes at least 1 image, got 0\n"
    assert not (tmp_path / "out" / "report.json").exists()


# -------------------------------------------------------------------------------------------------------------- what it refuses


def refused(call, *arguments):
    """The one line of the refusal."""
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("prepare.py: error: "), (code, out, err)
    return err.removeprefix("prepare.py: error: ").rstrip("\n")


@pytest.fixture
def made(call, images, tmp_path):
    """A complete OUT."""
    assert call(images, tmp_path / "out", "--size", SIZE)[0] == 0
    return tmp_path / "out"


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", 33], "size 32 (here 33)"),
        (["--shard-images", 7], "shard_images 4096 (here 7)"),
        (["--format", "jpeg"], "format 'packed' (here 'jpeg'), quality None (here 95)"),
    ],
)
def test_an_out_of_other_settings(call, images, made, complete, arguments, text):
    if not complete:
        unfinish(made)
    before = content(made)
    assert refused(call, images, made, "--size", SIZE, *arguments) == f"{made}: was made with {text}; give another OUT"
    assert {name: data for name, data in content(made).items() if name != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }


def unfinish(out):
    """OUT as it is when a kill came before the first image."""
    settings = json.loads((out / "report.json").read_text())["settings"]
    shutil.rmtree(out)
    (out / ".prepare").mkdir(parents=True)
    (out / ".prepare" / "settings.json").write_text(json.dumps(settings))


def test_an_out_of_another_listing(call, tmp_path):
    source, out = make_folder(tmp_path / "source"), tmp_path / "out"
    assert call(source, out, "--size", SIZE)[0] == 0
    (source / "val" / "cat" / "0.png").rename(source / "val" / "cat" / "00.png")
    text = refused(call, source, out, "--size", SIZE)
    assert text.startswith(f"{out}: was made with val '4 files, listing ") and "train" not in text
    save_image(source / "train" / "dog" / "new.png", 1)
    assert "train '10 files, listing " in refused(call, source, out, "--size", SIZE)
    shutil.rmtree(source / "val")
    assert "(here None); give another OUT" in refused(call, source, out, "--size", SIZE)


def test_an_out_that_holds_something_else(call, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    text = refused(call, images, tmp_path / "out")
    assert text == f"{tmp_path / 'out'}: must be empty or made by prepare.py, got thesis.tex"
    assert content(tmp_path / "out")["thesis.tex"] == b"all of it"


def test_an_out_inside_the_source(call, tmp_path):
    source = make_folder(tmp_path / "source")
    for out in (source, source / "train" / "out"):
        assert refused(call, source, out) == f"{out}: must lie outside {source}"
    assert sorted(os.listdir(source)) == ["train", "val"]


def test_an_out_in_which_another_prepare_works(call, images, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        text = refused(call, images, tmp_path / "out")
    assert text.startswith(f"{tmp_path / 'out'}: process {os.getpid()} on ")
    assert call(images, tmp_path / "out", "--size", SIZE)[0] == 0


def test_an_out_that_cannot_be_written(call, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(call, images, tmp_path / "file")

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(prepare.Path, "touch", read_only)
    monkeypatch.setattr(prepare, "read_image", None)
    assert str(tmp_path / "out") in refused(call, images, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_too_small_a_disk(call, images, tmp_path, monkeypatch):
    """Refused before any image is read, unless what is still to be made fits."""
    arguments = [images, tmp_path / "out", "--size", SIZE, "--shard-images", 10]  # a block of 10 images, one of 4
    free = 14 * SIZE * SIZE * 3 - 1
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "read_image", None)
        text = refused(call, *arguments)
        assert text == f"{tmp_path / 'out'}: the images still to be made take 0.0 MB, got 0.0 MB free"
    free += 1
    with monkeypatch.context() as patch:
        stop_at(patch, "val-00000.npz")
        assert call(*arguments)[0] == 130
    free = 4 * SIZE * SIZE * 3 - 1
    refused(call, *arguments)
    free += 1
    assert call(*arguments)[0] == 0
    free = 0
    assert call(images, tmp_path / "jpeg", "--format", "jpeg", "--size", SIZE)[0] == 0  # whose size is not known


def test_a_full_disk_in_the_middle(call, images, tmp_path, monkeypatch):
    out, write_whole = tmp_path / "out", prepare.run.write_whole

    def full(path, content):
        if path.name == "train-00002.npz":
            raise OSError(28, "No space left on device", str(path))
        write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(prepare.run, "write_whole", full)
        assert "No space left on device" in refused(call, images, out, "--size", SIZE, "--shard-images", 3)
    assert call(images, out, "--size", SIZE, "--shard-images", 3)[0] == 0
    assert call(images, tmp_path / "other", "--size", SIZE, "--shard-images", 3)[0] == 0
    assert content(out) == content(tmp_path / "other")


def test_two_images_that_would_become_one_file(call, tmp_path):
    source = tmp_path / "source"
    for name in ("a.png", "a.png.jpg"):
        save(source / "x" / name, noise(40, 40, 3))
    text = refused(call, source, tmp_path / "out", "--format", "jpeg")
    assert text == f"{source}: x/a.png and x/a.png.jpg would both become x/a.png.jpg; rename one"
    assert not (tmp_path / "out").exists() and call(source, tmp_path / "out", "--size", SIZE)[0] == 0


def test_a_source_that_is_missing_or_odd(call, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert refused(call, nowhere, tmp_path / "out") == f"{nowhere}: must be a folder of images, got nothing by that name"
    source = make_folder(tmp_path / "source")
    shutil.rmtree(source / "val" / "cat")
    text = refused(call, source, tmp_path / "out")
    assert text == f"{source}: train and val must have the same classes, only one has cat"
    shutil.rmtree(source / "train")
    text = refused(call, source, tmp_path / "out")
    assert text == f"Couldn't find train in {source}; training images are needed beside val"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", 0], "argument --size: must be an integer of at least 1, got '0'"),
        (["-j", 0], "argument -j/--workers: must be an integer of at least 1, got '0'"),
        (["--shard-images", 0], "argument --shard-images: must be an integer of at least 1, got '0'"),
        (["--quality", 0], "argument --quality: must be an integer of at least 1, got '0'"),
        (["--quality", 101], "--quality must be at most 100, got 101"),
    ],
)
def test_arguments_out_of_range(call, images, tmp_path, arguments, text):
    code, _, err = call(images, tmp_path / "out", *arguments)
    assert code == 2 and err.splitlines()[-1] == f"prepare.py: error: {text}"


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_report(call, images, made, text):
    (made / "report.json").write_text(text, encoding="latin-1")
    assert refused(call, images, made, "--size", SIZE).startswith(f"BadFileError: {made / 'report.json'} ({len(text)} bytes)")


# ------------------------------------------------------------------------------------------------------- stopped and resumed


def stop_at(monkeypatch, name):
    """Ctrl-C when a file of this name is about to be written."""
    write_whole = prepare.run.write_whole

    def write(path, content):
        if path.name == name:
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr(prepare.run, "write_whole", write)


STOPS = ["settings.json", "train-00000.npz", "val-00001.npz", "statistics.npz", "report.json"]


@pytest.mark.parametrize(("form", "name"), [*((form, name) for form in FORMATS for name in STOPS), ("packed", "index.json")])
def test_ctrl_c(call, images, tmp_path, monkeypatch, form, name):
    arguments = ["--format", form, "--size", SIZE, "--shard-images", 3]
    with monkeypatch.context() as patch:
        stop_at(patch, name)
        if name == "statistics.npz":  # which data.py writes
            patch.setattr(data, "write_whole", prepare.run.write_whole)
        code, out, err = call(images, tmp_path / "out", *arguments)
    assert (code, out, err) == (130, "", "prepare.py: stopped; the same command goes on from here\n")
    with pytest.raises(FileNotFoundError, match=r"prepare\.py has not finished here"):
        data.open_data(str(tmp_path / "out"))
    assert call(images, tmp_path / "out", *arguments)[0] == 0
    assert call(images, tmp_path / "other", *arguments)[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "other")


def stopped(call, images, tmp_path, form="packed"):
    """An OUT with all records, but no statistics and no report; the arguments that made it."""
    arguments = [images, tmp_path / "out", "--format", form, "--size", SIZE, "--shard-images", 3]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "report.json")
        assert call(*arguments)[0] == 130
    return arguments


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_done_is_not_done_again(call, images, tmp_path, monkeypatch, form):
    arguments = stopped(call, images, tmp_path, form)
    (tmp_path / "out" / ".prepare" / "train-00001.npz").unlink()
    read = []

    def noted(path, size=None):
        if size is not None:  # without, it is a JPEG file that was written and is read back
            read.append(path.name)
        return read_image(path, size)

    monkeypatch.setattr(prepare, "read_image", noted)
    assert call(*arguments)[0] == 0
    names = [path for path, _ in ImageFolder(images / "train").samples]
    assert sorted(read) == sorted(os.path.basename(name) for name in names[3:6])


@pytest.mark.parametrize("form", FORMATS)
def test_a_block_whose_files_or_record_were_damaged_is_done_again(call, images, tmp_path, form):
    assert call(images, tmp_path / "other", "--format", form, "--size", SIZE, "--shard-images", 3)[0] == 0
    arguments = stopped(call, images, tmp_path, form)
    work, train = tmp_path / "out" / ".prepare", tmp_path / "out" / "train"
    good = (work / "train-00000.npz").read_bytes()
    for damaged in (b"", good[:-20], b"x" * 300):
        (work / "train-00000.npz").write_bytes(damaged)
        (work / "train-00002.npz").write_bytes(damaged)
    (train / ("images-00001.bin" if form == "packed" else "cat/8.png.jpg")).unlink()
    if form == "packed":
        (train / "images-00003.bin").write_bytes(b"short")
    assert call(*arguments)[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "other")


def test_a_shard_has_its_name_when_it_is_complete(images, tmp_path, monkeypatch):
    def broken_at_the_sixth(path, size):
        return read_image(path, size) if path.name != "1.png" else 1 // 0

    monkeypatch.setattr(prepare, "PIECE", 1)
    monkeypatch.setattr(prepare, "read_image", broken_at_the_sixth)
    with pytest.raises(ZeroDivisionError):
        prepare.main([str(argument) for argument in (images, tmp_path / "out", "--size", SIZE, "--shard-images", 3, "-j", 1)])
    assert [path.name for path in (tmp_path / "out" / "train").glob("images-*")] == ["images-00000.bin"]


def test_a_kill_after_the_report_leaves_only_tidying(call, images, made, monkeypatch):
    before = content(made)
    (made / ".prepare").mkdir()
    (made / ".prepare" / "train-00000.npz").write_bytes(b"whatever")
    data.open_data(str(made))
    monkeypatch.setattr(prepare, "read_image", None)
    assert call(images, made, "--size", SIZE)[0] == 0
    assert content(made) == before and not (made / ".prepare").exists()


def test_records_are_the_same_bytes_for_the_same_result():
    result = prepare.Result(["a\udcff", "b"], [0, 1], [{"path": "c", "size": 3, "reason": "r"}], [(2, "ab")])
    result.sums.add(noise(4, 5, 3))
    assert prepare.record_bytes(result) == prepare.record_bytes(result)


def test_a_worker_is_never_far_ahead():
    """Three jobs a worker wait at most, or memory would fill with images."""
    begun = []
    with prepare._made_ahead((partial(begun.append, i) for i in range(1000)), 2) as made:
        for i, _ in enumerate(made):
            assert len(begun) <= i + 1 + 6
    assert sorted(begun) == list(range(1000))


def test_an_error_ends_the_workers(monkeypatch):
    """What was begun ends, what was not is not begun, and no thread is left."""
    begun, ended, release = [], [], threading.Event()

    class Pool(prepare.ThreadPoolExecutor):
        def shutdown(self, wait=True, **settings):
            super().shutdown(wait=False, **settings)
            release.set()
            super().shutdown(wait=wait)

    def job(i):
        if i == 0:
            raise ZeroDivisionError
        begun.append(i)
        release.wait(60)
        ended.append(i)

    monkeypatch.setattr(prepare, "ThreadPoolExecutor", Pool)
    with pytest.raises(ZeroDivisionError), prepare._made_ahead((partial(job, i) for i in range(100)), 2) as made:
        list(made)
    assert sorted(begun) == sorted(ended) and len(begun) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_lines_where_there_is_no_terminal(call, images, tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(prepare.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(prepare, "PIECE", 1)
    _, out, _ = call(images, tmp_path / "out", "--size", SIZE, "-j", 1)
    assert out.splitlines()[:2] == ["3/14 images, 0.2 images/s", "6/14 images, 0.2 images/s"]


def test_a_bar_on_a_terminal(call, images, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with prepare.Progress(10, 4) as progress:
        list(progress.watched([(prepare.Result(["a"]), None), (prepare.Result(unreadable=[{}]), None)]))
        assert (progress.bar.n, progress.bar.total) == (6, 10)
    assert progress.bar.disable


# -------------------------------------------------------------------------------------------------------------------- kill -9


# A point is a call of C that changes a file or the file system. Before `write` and `__exit__` a file is there and half of it is
# not. A run without an end says how many points it passed.
KILLED = f"""
import itertools, os, signal, sys, threading
sys.path.insert(0, {str(ALEXNET)!r})
import prepare

POINTS = ("open", "write", "writelines", "flush", "close", "__exit__", "fsync", "replace", "unlink", "mkdir", "rmdir")
count, at = itertools.count(1), int(sys.argv.pop(1))

def look(frame, event, argument):
    if event == "c_call" and argument.__name__ in POINTS and next(count) == at:
        os.kill(os.getpid(), signal.SIGKILL)

threading.setprofile(look)
sys.setprofile(look)
code = prepare.main(sys.argv[1:])
sys.setprofile(None)
print(next(count))
sys.exit(code)
"""


def run_until(point, *arguments):
    """prepare.py in a process that is killed at point number `point`, if it comes there: how many points it passed, or None."""
    command = [sys.executable, "-B", "-c", KILLED, str(point), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stdout
    return None if done.returncode else int(done.stdout.split()[-1])


def killed_until_done(out, arguments, kills, points, draw):
    """Kill it at random points, at most `kills` times, then let it end. How many kills came while it worked."""
    hits = 0
    for _ in range(kills):
        hits += run_until(draw.randint(1, points // 2), *arguments) is None
        check_whole(out)
        if (out / "report.json").exists():
            shutil.rmtree(out)  # the next kills begin anew
    assert run_until(0, *arguments)
    return hits


def check_whole(out):
    """Whatever has its final name is whole."""
    for path in out.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix == ".bin":
            assert path.stat().st_size % (64 * 64 * 3) == 0 and path.stat().st_size > 0
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix in (".jpg", ".png"):
            read_image(path)
        elif path.suffix == ".npz":
            np.load(path)


def kill_test(tmp_path, form, kills, seed):
    source = tmp_path / "source"
    for i in range(60):
        save_image(source / "train" / "cat" / f"{i}.png", i)
        save_image(source / "val" / "cat" / f"{i}.png", 100 + i)
    (source / "train" / "cat" / "7.png").write_bytes(b"no image")
    arguments = ["--format", form, "--size", 64, "--shard-images", 4, "-j", 2]
    points = run_until(0, source, tmp_path / "expected", *arguments)
    hits = killed_until_done(tmp_path / "out", [source, tmp_path / "out", *arguments], kills, points, random.Random(seed))
    assert content(tmp_path / "out") == content(tmp_path / "expected")
    return hits


@pytest.mark.parametrize("form", FORMATS)
def test_killed_at_random_points(tmp_path, form):
    assert kill_test(tmp_path, form, 4, 11) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_killed_at_many_random_points(tmp_path, form):
    assert kill_test(tmp_path, form, 40, 12) >= 30
