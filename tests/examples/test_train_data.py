"""Data as people have it: what train.py and its companions make of folders that are not as they should be, or not any more."""

import gzip
import json
import shutil
import struct
import subprocess
import sys
from functools import partial

import data
import evaluate
import listing
import numpy as np
import prepare
import pytest
import train
from data import mean_of, open_data
from image_folders import ALEXNET, make_folder, save_image
from model import PROFILES
from run_checks import TINY, assert_same_run, checkpoint, contents, rows

from minidl.checkpoint import load_checkpoint
from minidl.data import ColorStatistics, image_names

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture
def score(call_main):
    """The same of evaluate.py, of one view."""
    return partial(call_main, evaluate.main, "--views", 1, "-j", 0)


@pytest.fixture
def folder(tmp_path):
    """An image folder of the test's own, with train and val."""
    return make_folder(tmp_path / "images")


@pytest.fixture
def classes(folder):
    """A folder of classes: 10 images of cat and dog, of which --hold-out 0.4 takes 4."""
    return folder / "train"


def line_of(error):
    """The one line of an error."""
    code, out, text = error
    assert (code, out) == (2, "") and text.startswith("train.py: error: ") and text.count("\n") == 1
    return text.removeprefix("train.py: error: ").rstrip("\n")


# ------------------------------------------------------------------------------------------------------------------- junk


def test_junk_is_counted_and_named_in_one_line(folder, tmp_path, call):
    (folder / "train" / "cat" / "._0.png").write_bytes(b"\0\5\26\7")
    (folder / "train" / "__MACOSX" / "cat").mkdir(parents=True)
    shutil.copytree(folder / "val" / "dog", folder / "val" / ".ipynb_checkpoints")
    code, out, errors = call(folder, *TINY, "--steps", 1, "--out", tmp_path / "run")
    assert (code, errors) == (0, "") and "10 images of 2 classes, 4 held out\n" in out
    named = "train/__MACOSX/, train/cat/._0.png, val/.ipynb_checkpoints/"
    assert f"\n3 hidden or system names left out: {named}\n" in out
    (folder / "val" / "dog" / "._1.png").write_bytes(b"")
    assert f"\n4 hidden or system names left out: {named}, ...\n" in call(folder, *TINY, "--dry-run")[1]


def test_without_junk_nothing_is_said(folder, call):
    assert "left out" not in call(folder, *TINY, "--dry-run")[1]


def test_prepare_leaves_junk_out_and_names_it(classes, tmp_path, call_main):
    (classes / "cat" / "._0.png").write_bytes(b"\0\5\26\7")
    code, out, _ = call_main(prepare.main, classes, tmp_path / "out", "--size", 32, "--hold-out", 0.4)
    assert code == 0 and out.startswith("1 hidden or system name left out: cat/._0.png\n")
    assert out.endswith(f"{tmp_path / 'out'}: 6 images in train, 4 images in val; 0 unreadable files\n")


# --------------------------------------------------------------------------------------------------------------- hold out


def test_a_run_on_a_folder_of_classes(classes, tmp_path, call, score):
    """Resumed and scored, it has the same cut."""
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    settings = [*TINY, "--steps", 4, "--save-every", 1, "--keep", 9, "--hold-out", 0.4]
    code, out, _ = call(classes, *settings, "--out", whole)
    assert code == 0 and f"data: {classes}: 6 images of 2 classes, 4 held out" in out
    shutil.copytree(whole, copy)
    for step in (3, 4):
        shutil.rmtree(checkpoint(copy, step))
    assert call("--resume", copy)[0] == 0
    assert_same_run(copy, whole, 4)
    expected = rows(whole)[-1]
    for text in (score(whole)[1], score(whole, classes)[1], call("--resume", whole, "-e")[1]):
        assert f"loss {expected['held_out_loss']:.4f}, " in text and text.endswith("of 4 images\n")


def test_the_images_that_are_scored_are_those_that_were_not_trained_on(classes, tmp_path, call, score, monkeypatch):
    seen = {"train": set(), "score": set()}
    make = {"train": train.train_loader, "score": evaluate.test_loader}

    def noting(part, dataset, *args, **settings):
        seen[part].update(image_names(dataset))
        return make[part](dataset, *args, **settings)

    monkeypatch.setattr(train, "train_loader", partial(noting, "train"))
    monkeypatch.setattr(evaluate, "test_loader", partial(noting, "score"))
    assert call(classes, *TINY, "--steps", 1, "--hold-out", 0.4, "--out", tmp_path / "run")[0] == 0
    assert score(tmp_path / "run")[0] == 0
    expected = [set(image_names(part)) for part in open_data(str(classes), 0.4)]
    assert [seen["train"], seen["score"]] == expected and len(seen["score"]) == 4


def test_another_cut_is_refused_on_resume(classes, folder, tmp_path, call):
    run = tmp_path / "run"
    assert call(classes, *TINY, "--steps", 1, "--hold-out", 0.4, "--out", run)[0] == 0
    assert line_of(call("--resume", run, "--hold-out", 0.5)) == (
        f"{run}: was trained with --hold-out 0.4, got 0.5: another cut would hold out images that were trained on"
    )
    assert call("--resume", run, "--hold-out", 0.4)[0] == 0
    assert call(folder, *TINY, "--steps", 1, "--out", tmp_path / "other")[0] == 0
    assert "was trained with --hold-out None, got 0.4" in line_of(call("--resume", tmp_path / "other", "--hold-out", 0.4))


def test_errors_of_hold_out(classes, folder, tmp_path, call):
    assert (
        line_of(call(folder, "--hold-out", 0.4)) == f"{folder}: has val/ with held-out images already, got --hold-out 0.4 too"
    )
    assert line_of(call(classes, "--hold-out", 0.001)) == (
        "hold_out: of 10 images none is held out at fraction 0.001; take a larger one"
    )
    assert line_of(call(classes, "--hold-out", 0.999)) == (
        "hold_out: no image of cat, dog is left for training at fraction 0.999; take a smaller one"
    )
    way_out = "train.py --hold-out 0.1 holds a tenth of the images of its 2 classes out of training"
    assert line_of(call(classes)) == f"{classes}: has no train/ and neither val/ nor test/; {way_out}"
    assert not (tmp_path / "runs").exists()


def test_a_class_without_held_out_images_is_said(classes, call):
    for i in (3, 5, 7, 9):
        (classes / "dog" / f"{i}.png").unlink()
    out = call(classes, *TINY, "--hold-out", 0.4, "--dry-run")[1]
    assert f"data: {classes}: 4 images of 2 classes, 2 held out, none of 1 of the classes\n" in out


def test_a_class_without_held_out_images_has_no_folder_of_jpegs(classes, tmp_path, call_main):
    for i in (3, 5, 7, 9):
        (classes / "dog" / f"{i}.png").unlink()
    arguments = [classes, tmp_path / "out", "--size", 32, "--hold-out", 0.4]
    code, _, errors = call_main(prepare.main, *arguments, "--format", "jpeg")
    assert code == 2 and errors == (
        f"prepare.py: error: {classes}: no image of dog falls to val, and a JPEG tree has no empty classes; "
        "a larger --hold-out or --format packed will do\n"
    )
    assert call_main(prepare.main, *arguments)[0] == 0 and open_data(str(tmp_path / "out"))[1].classes == ["cat", "dog"]


def test_a_run_folder_among_the_classes_is_refused(classes, folder, call, monkeypatch):
    """It would be a class of the next run: it has pictures."""
    monkeypatch.chdir(classes)
    text = line_of(call(".", *TINY, "--hold-out", 0.4))
    assert text.startswith("runs/alexnet-") and text.endswith(
        ": a run folder must lie outside ., whose folders are classes; give another --out"
    )
    assert line_of(call(folder, *TINY, "--out", folder / "val" / "x")).startswith(
        f"{folder / 'val' / 'x'}: a run folder must lie "
    )
    assert not (classes / "runs").exists() and not (folder / "val" / "x").exists()
    assert call(folder, *TINY, "--steps", 1, "--out", folder / "run")[0] == 0  # beside train and val it harms nobody


# ---------------------------------------------------------------------------------------------------------------- one class


def test_one_class_is_refused_before_anything_is_made(classes, tmp_path, call):
    shutil.rmtree(classes / "dog")
    error = call(classes, *TINY, "--hold-out", 0.4, "--out", tmp_path / "run")
    assert line_of(error) == f"{classes}: has 1 class, cat: there is nothing to learn; at least 2 are needed"
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_a_folder(classes, call):
    file = classes / "cat" / "0.png"
    text = f"{file}: must be a folder of images, got a file; an archive must be unpacked first"
    assert line_of(call(file)) == line_of(call(file, "--hold-out", 0.4)) == text


# ------------------------------------------------------------------------------------------------------------ changed data


@pytest.fixture
def stopped(folder, tmp_path, call):
    """A run of 4 steps on `folder`, with every checkpoint."""
    out = tmp_path / "run"
    assert call(folder, *TINY, "--steps", 4, "--save-every", 1, "--keep", 9, "--out", out)[0] == 0
    return out


def killed(out, step):
    for later in range(step + 1, 5):
        shutil.rmtree(checkpoint(out, later), ignore_errors=True)
    return out


def test_changed_data_stops_a_run_until_it_is_allowed(folder, stopped, call):
    before = contents(killed(stopped, 2))
    save_image(folder / "train" / "cat" / "new.png", 50)
    (folder / "train" / "dog" / "3.png").unlink()
    (folder / "train" / "dog" / "5.png").rename(folder / "train" / "dog" / "55.png")
    (folder / "val" / "cat" / "0.png").unlink()
    what = (
        "of the training images 2 came (cat/new.png, dog/55.png) and 2 went (dog/3.png, dog/5.png), "
        "of the held-out images 1 went (cat/0.png)"
    )
    text = f"{checkpoint(stopped, 2)}: the data changed: {what}; --data-changed goes on with the images that are there now"
    assert line_of(call("--resume", stopped)) == text
    assert {name: data for name, data in contents(stopped).items() if name.name != ".lock"} == {
        name: data for name, data in before.items() if name.name != ".lock"
    }
    code, out, _ = call("--resume", stopped, "--data-changed")
    assert code == 0 and f"the data changed: {what}\n" in out and "10 images of 2 classes, 3 held out" in out
    assert call("--resume", stopped)[0] == 0  # its checkpoints know the new data
    assert len(list((stopped / "listings").iterdir())) == 2
    assert "of the training images 2 came" in line_of(call("--resume", checkpoint(stopped, 2)))


def test_many_changes_are_counted_and_three_of_them_named(folder, stopped, call):
    for i in range(5):
        save_image(folder / "train" / "dog" / "more" / f"{i}.png", 60 + i)
    named = "dog/more/0.png, dog/more/1.png, dog/more/2.png and 2 more"
    assert f": the data changed: of the training images 5 came ({named}); --data-changed" in line_of(call("--resume", stopped))


def test_a_class_that_comes_or_goes_ends_a_run(folder, stopped, call):
    for part in ("train", "val"):
        shutil.copytree(folder / part / "dog", folder / part / "emu")
    text = line_of(call("--resume", stopped, "--data-changed"))
    assert ", of the classes 1 came (emu); a network has an output for each class: train a new one" in text
    assert (
        "of the training images 5 came (emu/1.png, " in text and "of the held-out images 2 came (emu/1.png, emu/3.png)" in text
    )


def test_what_was_best_on_other_held_out_images_is_it_no_more(folder, stopped, call, monkeypatch):
    """Though it was better."""
    (folder / "val" / "cat" / "0.png").unlink()
    killed(stopped, 3)
    monkeypatch.setattr(train.Trainer, "score", lambda self: evaluate.Score(3, 1e9, 0.0, 1.0, 2))
    code, out, _ = call("--resume", stopped, "--data-changed")
    assert code == 0 and "the best was step 3, on other held-out images: it counts no more\n" in out
    assert json.loads((stopped / "best.json").read_text())["step"] == 4


def test_the_best_stays_where_only_training_images_changed(folder, stopped, call):
    save_image(folder / "train" / "cat" / "new.png", 50)
    best = load_checkpoint(checkpoint(killed(stopped, 3), 3)).state["best"]
    code, out, _ = call("--resume", stopped, "--data-changed")
    assert code == 0 and "it counts no more" not in out
    assert load_checkpoint(checkpoint(stopped, 4)).state["best"]["held_out_top1"] >= best["held_out_top1"]


def test_data_that_changed_before_the_first_checkpoint(folder, stopped, call):
    killed(stopped, 0)
    save_image(folder / "train" / "cat" / "new.png", 50)
    assert line_of(call("--resume", stopped)).startswith(f"{stopped}: the data changed: of the training images 1 came")
    assert call("--resume", stopped, "--data-changed")[0] == 0


def test_scores_of_changed_data_are_not_stopped(folder, stopped, call, score):
    save_image(folder / "val" / "cat" / "new.png", 50)
    for text in (call("--resume", stopped, "-e")[1], score(stopped)[1]):
        assert text.endswith("of 5 images\n")


def test_a_listing_that_is_gone_or_altered(folder, stopped, call):
    save_image(folder / "train" / "cat" / "new.png", 50)
    (path,) = (stopped / "listings").iterdir()
    whole = path.read_bytes()
    for content in (whole[:-9], gzip.compress(b"{}"), b"", None):
        path.unlink() if content is None else path.write_bytes(content)
        text = line_of(call("--resume", stopped))
        assert ": the data changed: by how much is not known: " in text and str(path) in text
    code, out, _ = call("--resume", stopped, "--data-changed")
    assert code == 0 and "it counts no more" in out


def test_unchanged_data_needs_no_listing(stopped, call):
    shutil.rmtree(stopped / "listings")
    assert call("--resume", stopped)[0] == 0 and len(list((stopped / "listings").iterdir())) == 1


def test_a_run_from_before_listings_goes_on(folder, stopped, call):
    about = json.loads((stopped / "arguments.json").read_text())
    old = {name: about[name] for name in ("arguments", "versions")}
    del old["arguments"]["hold_out"]
    (stopped / "arguments.json").write_text(json.dumps(old))
    killed(stopped, 0)
    save_image(folder / "train" / "cat" / "new.png", 50)
    assert call("--resume", stopped)[0] == 0


def test_a_run_goes_on_with_prepared_images(folder, stopped, tmp_path, call, call_main):
    """The same names; but of another size, or without an image that could not be read, they are others."""
    assert call_main(prepare.main, folder, tmp_path / "256")[0] == 0
    assert call(tmp_path / "256", "--resume", stopped, "--steps", 5)[0] == 0
    assert call_main(prepare.main, folder, tmp_path / "64", "--size", 64)[0] == 0
    text = line_of(call(tmp_path / "64", "--resume", stopped))
    assert ": the data changed: images were 256 x 256, are 64 x 64; --data-changed" in text
    (folder / "train" / "cat" / "0.png").write_bytes(b"")
    assert call_main(prepare.main, folder, tmp_path / "less")[0] == 0
    assert "of the training images 1 went (cat/0.png)" in line_of(call(tmp_path / "less", "--resume", stopped))


def test_the_patterns_are_listed_too(tmp_path, call, monkeypatch):
    monkeypatch.setattr(data, "PATTERNS_TRAIN", 10)
    monkeypatch.setattr(data, "PATTERNS_HELD_OUT", 4)
    assert call(*TINY, "--steps", 1, "--out", tmp_path / "run")[0] == 0
    monkeypatch.setattr(data, "PATTERNS_TRAIN", 12)
    assert "of the training images 2 came (10, 11);" in line_of(call("--resume", tmp_path / "run"))


def test_images_that_go_from_class_to_class_and_ones_in_another_order():
    before = {"shape": [256, 256, 3], "classes": ["a", "b"], "names": [["x", "y"], ["z"]]}
    listings = [
        json.dumps({"training": {**before, "names": names}, "held-out": before}).encode()
        for names in ([["x", "y"], ["z"]], [["x"], ["y", "z"]], [["y", "x"], ["z"]])
    ]
    assert listing.difference(listings[0], listings[1]) == "of the training images 1 came (y) and 1 went (y)"
    assert listing.difference(listings[0], listings[2]) == "the same images are in another order"


# --------------------------------------------------------------------------------------------------------------- moved data


def test_a_run_started_with_a_relative_path_goes_on_from_elsewhere(folder, tmp_path, call, score, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert call("images", *TINY, "--steps", 2, "--out", "run")[0] == 0
    assert json.loads((tmp_path / "run" / "arguments.json").read_text())["arguments"]["data"] == str(folder)
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, _ = call("--resume", "../run")
    assert code == 0 and f"data: {folder}: 10 images" in out
    assert score("../run")[1].endswith("of 4 images\n")


def test_run_and_data_that_moved_together(tmp_path, call, score):
    make_folder(tmp_path / "project" / "images")
    run = tmp_path / "project" / "runs" / "a"
    assert call(tmp_path / "project" / "images", *TINY, "--steps", 2, "--out", run)[0] == 0
    (tmp_path / "project").rename(tmp_path / "moved")
    run, images = tmp_path / "moved" / "runs" / "a", tmp_path / "moved" / "images"
    assert score(run)[1].endswith("of 4 images\n")
    code, out, _ = call("--resume", run)
    assert code == 0 and f"data: {images}: 10 images" in out
    assert json.loads((run / "arguments.json").read_text())["arguments"]["data"] == str(images)


def test_data_that_moved_alone_is_given_once(folder, stopped, tmp_path, call, call_main, monkeypatch):
    folder.rename(tmp_path / "photos")
    text = f"{stopped}: its data is not in {folder}; if it moved: python train.py NEW_DIR --resume {stopped}"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert line_of(call("--resume", stopped)) == text
    code, _, errors = call_main(evaluate.main, stopped)
    assert code == 2 and errors.endswith(f": its data is not in {folder}; if it moved: evaluate.py {stopped} NEW_DIR\n")
    monkeypatch.chdir(tmp_path)
    assert call("photos", "--resume", stopped, "--steps", 5)[0] == 0
    assert call("--resume", stopped, "--steps", 6)[0] == 0  # it is known from now on
    assert load_checkpoint(checkpoint(stopped, 6)).state["arguments"]["data"] == str(tmp_path / "photos")
    assert len(list((stopped / "listings").iterdir())) == 1


def test_data_that_is_in_neither_place(folder, stopped, tmp_path, call):
    stopped.rename(tmp_path / "other-run")
    (tmp_path / "deep").mkdir()
    (tmp_path / "other-run").rename(tmp_path / "deep" / "run")
    shutil.rmtree(folder)
    text = line_of(call("--resume", tmp_path / "deep" / "run"))
    assert f"its data is neither in {folder} nor in {tmp_path / 'deep' / 'images'}; if it moved: " in text


# ------------------------------------------------------------------------------------------------- a reader that leaves


PROGRAM = """
import sys
sys.path.insert(0, {alexnet!r})
import train
train.run.draw_curves = lambda folder: None
from minidl.pipe import until_the_reader_leaves
sys.exit(until_the_reader_leaves(train.main))
"""


def piped(command, lines, with_errors=False):
    """The exit code, what was read, and the standard error of a program whose reader leaves after so many lines."""
    errors = subprocess.STDOUT if with_errors else subprocess.PIPE
    with subprocess.Popen([str(a) for a in command], stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        read = [process.stdout.readline() for _ in range(lines)]
        process.stdout.close()
        text = "" if with_errors else process.stderr.read()
        return process.wait(timeout=120), read, text


@pytest.mark.parametrize("with_errors", [False, True])
def test_a_reader_that_leaves_ends_a_run_as_ctrl_c_does(folder, tmp_path, call, with_errors):
    """As `train.py | head -6` does, and `train.py 2>&1 | head -6`: after the header, the run folder and a step."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    settings = [folder, "--width", 0.05, "-b", 4, "-j", 0, "-p", 1, "--save-every", 100]
    assert call(*settings, "--steps", 12, "--out", whole)[0] == 0
    program = [sys.executable, "-c", PROGRAM.format(alexnet=str(ALEXNET))]
    code, read, errors = piped([*program, *settings, "--steps", 12, "--out", out], 6, with_errors)
    assert code == 141 and read[-1].startswith("step 1/12  epoch 1  loss ")
    (step,) = {load_checkpoint(path).state["step"] for path in (out / "checkpoints").iterdir()} - {3, 6, 9}
    assert 1 <= step < 12
    if not with_errors:
        assert errors == f"saved {checkpoint(out, step)}; continue with: python -c --resume {out}\n"
    assert call("--resume", out)[0] == 0
    assert_same_run(out, whole, 12)


def test_a_reader_that_leaves_at_once_leaves_a_run_that_can_go_on(folder, tmp_path, call):
    out = tmp_path / "run"
    program = [sys.executable, "-c", PROGRAM.format(alexnet=str(ALEXNET))]
    code, _, errors = piped([*program, folder, *TINY, "--steps", 2, "--out", out], 0)
    assert code == 141 and errors == f"saved {checkpoint(out, 0)}; continue with: python -c --resume {out}\n"
    assert call("--resume", out)[0] == 0


@pytest.mark.parametrize("program", ["train", "evaluate", "prepare"])
def test_a_reader_that_leaves_before_anything_was_said(program, classes, stopped, tmp_path):
    arguments = {
        "train": [train.__file__, "--resume", stopped, "--evaluate"],
        "evaluate": [evaluate.__file__, stopped, "--views", 1],
        "prepare": [prepare.__file__, classes, tmp_path / "out", "--size", 32],
    }[program]
    code, _, errors = piped([sys.executable, *arguments], 0)
    stopped_in = "prepare.py: stopped; the same command goes on from here\n" if program == "prepare" else ""
    assert code == 141 and errors in ("", stopped_in)
    assert piped([sys.executable, arguments[0], "--help"], 0) == (141, [], "")


# ------------------------------------------------------------------------------------------------------- Pillow's warnings


def warned_of(path):
    """The file becomes an image of which Pillow warns."""
    from PIL import Image

    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 3) + bytes(5)  # three entries, and not half of one
    Image.new("RGB", (70, 60), "red").save(path, "JPEG", exif=exif)
    return path


WHY = "Corrupt EXIF data. Expecting to read 12 bytes but only got 5."


def test_a_file_of_which_pillow_warns_is_named_once_a_run(folder, tmp_path, call, score):
    paths = [warned_of(folder / name) for name in ("train/cat/0.png", "train/dog/1.png", "val/cat/0.png")]
    code, out, errors = call(folder, *TINY, "--epochs", 3, "--out", tmp_path / "run")
    assert code == 0 and sorted(errors.splitlines()) == [f"{path}: Pillow warns: {WHY}" for path in paths]
    reports = [line for line in out.splitlines() if "Pillow" in line]
    assert len(reports) == 2  # of the first epoch, and of its score
    assert reports[0] in {f"of 2 readable images Pillow warns, the first is {path}: {WHY}" for path in paths[:2]}
    assert reports[1] == f"of 1 readable images Pillow warns, the first is {paths[2]}: {WHY}"
    assert score(tmp_path / "run")[1].endswith(f"of 4 images\n{reports[1]}\n")


@pytest.mark.parametrize("form", ["packed", "jpeg"])
def test_prepare_lists_the_files_of_which_pillow_warns(folder, tmp_path, call_main, form):
    for name in ("train/dog/1.png", "val/cat/0.png"):
        warned_of(folder / name)
    code, out, errors = call_main(prepare.main, folder, tmp_path / "out", "--size", 32, "--format", form)
    assert (code, errors) == (0, "")
    assert out.endswith(f"; 0 unreadable files\nof 2 readable files Pillow warns, the first is train/dog/1.png: {WHY}\n")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["warned"] == [{"path": path, "reason": WHY} for path in ("train/dog/1.png", "val/cat/0.png")]


def test_a_profile_may_subtract_a_colour_and_not_the_mean_image():
    statistics = ColorStatistics(np.ones((4, 5, 3), np.float32), np.ones(3), np.eye(3))
    assert mean_of(PROFILES["paper"], statistics) is statistics.mean
    mean = mean_of(PROFILES["torchvision"], statistics)
    assert mean.shape == (4, 5, 3) and (mean == np.float32([123.675, 116.28, 103.53])).all()
