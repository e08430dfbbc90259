"""Data as people have it: what train.py and its companions make of folders that are not as they should be, or not any more."""

import shutil
from functools import partial

import evaluate
import prepare
import pytest
import train
from conftest import make_folder
from data import open_data
from run_checks import TINY, assert_same_run, checkpoint, rows

from minidl.data import image_names

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture
def call(call_main):
    """call(arguments) -> exit code, standard output, standard error, of train.py."""
    return partial(call_main, train.main)


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
