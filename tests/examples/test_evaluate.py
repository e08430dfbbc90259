"""evaluate.py: ten views against a slow loop, ranks against brute force, and the command line."""

import math
import shutil
import subprocess
import sys
from functools import partial

import evaluate as evaluation
import numpy as np
import pytest
import train
from evaluate import Score, evaluate, mean_probabilities

import minidl.nn.functional as F
from minidl import Tensor, is_grad_enabled


@pytest.fixture
def call(call_main):
    """call(arguments) -> exit code, standard output, standard error."""
    return partial(call_main, evaluation.main)


@pytest.fixture(scope="module")
def run_folder(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.run, "draw_curves", lambda folder: None)
        settings = ["--width", "0.05", "-b", "4", "-j", "0", "--steps", "3", "--save-every", "1"]
        assert train.main([str(images), *settings, "--out", str(out)]) == 0
    return out


def linear_model(rng, pixels, classes):
    w = rng.standard_normal((pixels, classes))
    return lambda images: F.flatten(Tensor(images), 1) @ Tensor(w)


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


# ----------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("channels_last", [False, True])
def test_views_are_averaged_after_the_softmax(channels_last, rng):
    views = rng.standard_normal((3, 10, 2, 4, 5))
    if channels_last:  # as the loader makes them
        views = np.moveaxis(np.ascontiguousarray(np.moveaxis(views, 2, -1)), -1, 2)
    model = linear_model(rng, 40, 6)
    expected = np.zeros((3, 6))
    for n in range(3):
        for v in range(10):
            expected[n] += softmax(model(views[n, v][None]).numpy()[0]) / 10
    found = mean_probabilities(model, views)
    assert found.dtype == np.float64
    # float64, sums of 40 and 10 terms of like size: 1e-14 of each, and exp turns that into as many relative
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_one_view_is_a_plain_softmax(rng):
    images, model = rng.standard_normal((3, 2, 4, 5)), linear_model(rng, 40, 6)
    expected = [softmax(row) for row in model(images).numpy()]
    np.testing.assert_allclose(mean_probabilities(model, images), expected, rtol=1e-12)


def brute_force(scores, labels):
    """Loss and ranks by sorting: of equal scores the first counts as larger."""
    loss = top1 = top5 = 0.0
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        loss -= math.log(softmax(row)[label])
        top1 += order[0] == label
        top5 += label in order[:5]
    return loss / len(labels), top1 / len(labels), top5 / len(labels)


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_loss_top_1_and_top_5_by_brute_force(levels, rng):
    """With 2 or 3 levels of score most are tied."""
    scores = rng.integers(0, levels, (60, 12)).astype(np.float64) * 3 / levels
    labels = rng.integers(0, 12, 60)
    batches = [(scores[i : i + 25], labels[i : i + 25]) for i in range(0, 60, 25)]  # the last is smaller
    found = evaluate(lambda images: Tensor(images), batches)
    assert (found.images, found.classes) == (60, 12)
    np.testing.assert_allclose((found.loss, found.top1, found.top5), brute_force(scores, labels), rtol=1e-12)


def test_all_scores_equal():
    found = evaluate(lambda images: Tensor(images), [(np.zeros((7, 7)), np.arange(7))])
    assert (found.top1, found.top5) == (1 / 7, 5 / 7) and math.isclose(found.loss, math.log(7), rel_tol=1e-12)


def test_a_certain_mistake_has_an_infinite_loss():
    found = evaluate(lambda images: Tensor(images), [(np.array([[0.0, 1e6]]), np.array([0]))])
    assert found.loss == math.inf and found.top1 == 0 and found.top5 == 1


def test_no_graph_is_recorded():
    recording = []

    def model(images):
        recording.append(is_grad_enabled())
        return Tensor(images)

    evaluate(model, [(np.zeros((1, 3)), np.array([0]))])
    assert recording == [False]


def test_no_image():
    with pytest.raises(ValueError) as caught:
        evaluate(lambda images: Tensor(images), [])
    assert str(caught.value) == "evaluate: at least 1 image is needed, got 0"


def test_a_score_in_words():
    assert str(Score(50, 1.23456, 0.5, 0.98, 6)) == "loss 1.2346, top-1 50.00%, top-5 98.00% of 50 images"


def test_top_5_of_five_classes_is_not_said():
    assert str(Score(50, 1.23456, 0.5, 1.0, 5)) == "loss 1.2346, top-1 50.00% of 50 images"


# ------------------------------------------------------------------------------------------------------ the command line


def test_one_view_gives_the_score_of_the_training_run(run_folder, call):
    score = train.run.read_log(run_folder)[-1]
    code, text, errors = call(run_folder, "--views", 1, "-b", 3)
    assert (code, errors) == (0, "")
    start = f"{run_folder / 'checkpoints' / 'step-000003'}, 1 view:\nloss {score['held_out_loss']:.4f}, "
    assert text == f"{start}top-1 {score['held_out_top1']:.2%} of 4 images\n"


def test_ten_views_of_a_checkpoint_on_one_device(run_folder, call):
    path = run_folder / "checkpoints" / "step-000002"
    code, text, _ = call(path, "-b", 2, "-j", 0)
    assert code == 0 and text.startswith(f"{path}, 10 views:\nloss ") and text.endswith("of 4 images\n")
    assert call(path, "--device", "cpu:0")[1] == text


def test_the_best_checkpoint(run_folder, tmp_path, call):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    for step in (1, 3):
        train.run.write_best(copy, {"step": step, "held_out_top1": 0.5, "held_out_loss": 1.0})
        code, text, _ = call(copy, "--best", "--views", 1, "-j", 0)
        assert code == 0 and text.startswith(f"{copy / 'checkpoints' / f'step-00000{step}'}, 1 view:\nloss ")
    (copy / "best.json").unlink()
    code, _, errors = call(copy, "--best")
    assert code == 2 and errors.endswith(f": error: {copy}: no checkpoint was scored yet, so none is the best\n")


def test_a_damaged_checkpoint_is_refused_and_the_previous_one_offered(run_folder, tmp_path, call):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    newest, previous = (copy / "checkpoints" / f"step-00000{step}" for step in (3, 2))
    content = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(content[:-1] + b"\x7f")
    code, text, errors = call(copy)
    assert (code, text) == (2, "") and f"error: {newest / 'model.safetensors'}: altered: " in errors
    assert errors.endswith(f"; the previous whole checkpoint is {previous}: evaluate.py {previous} scores that\n")
    assert errors.count("\n") == 1 and call(previous, "--views", 1, "-j", 0)[0] == 0


def test_as_a_user_runs_it(run_folder, images, tmp_path):
    command = [sys.executable, evaluation.__file__, str(run_folder), str(images), "--views", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and ", 1 view:\nloss " in done.stdout


def test_other_classes(run_folder, images, tmp_path, call):
    other = shutil.copytree(images, tmp_path / "images")
    for split in ("train", "val"):
        shutil.move(other / split / "dog", other / split / "emu")
    code, _, errors = call(run_folder, other)
    path = run_folder / "checkpoints" / "step-000003"
    text = f"{path}: was trained on other classes: there is now emu, there is no longer dog"
    assert code == 2 and errors.endswith(f": error: {text}\n") and errors.count("\n") == 1


def test_unreadable_images(run_folder, images, tmp_path, call):
    other = shutil.copytree(images, tmp_path / "images")
    bad = other / "val" / "cat" / "0.png"
    bad.write_bytes(b"nothing")
    code, _, errors = call(run_folder, other, "--views", 1)
    assert code == 2 and f"error: BadImageError: {bad} (7 bytes) is not a readable image: " in errors
    code, text, errors = call(run_folder, other, "--views", 1, "--on-error", "skip")
    assert code == 0 and errors.startswith(f"ImageLoader: skipped {bad}: ") and errors.count("\n") == 1
    assert "of 3 images\n1 unreadable images were skipped, the first is " in text


def test_no_run_and_no_checkpoint(run_folder, tmp_path, call):
    assert call(tmp_path)[2].endswith(
        f"error: {tmp_path}: is neither a run folder (with arguments.json) nor a checkpoint in one\n"
    )
    empty = shutil.copytree(run_folder, tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    code, _, errors = call(empty)
    assert code == 2 and errors.endswith(f": error: {empty}: no checkpoint was saved yet\n")
