"""One run: that it can be broken off anywhere, that arms of a seed share what they can, and what its record says."""

import base64
import dataclasses
import signal

import numpy as np
import pytest
from settings import Run
from tiny_runs import BATCH, IMAGES, STEPS, TINY, exit_codes, killed_in_step
from training import Training, colors, packed

from minidl import nn


def comparable(record):
    """A record without its times."""
    return {key: value for key, value in record.items() if key != "seconds"}


def finish(run, pictures, folder):
    record = Training(run, pictures, folder).go(lambda: False)
    return comparable(record)


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory):
    """The record and the weights of a run that never stopped."""
    training = Training(Run(TINY, 0, pictures.fingerprint), pictures, tmp_path_factory.mktemp("unbroken"))
    record = training.go(lambda: False)
    return comparable(record), {name: np.array(value) for name, value in training.model.state_dict().items()}


# -------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(unbroken, tiny, pictures, tmp_path, steps):
    """Within an epoch and at its end."""
    left = iter(range(steps - 1))
    assert Training(tiny, pictures, tmp_path).go(lambda: next(left, None) is None) is None
    training = Training(tiny, pictures, tmp_path)
    assert training.state["step"] == steps
    assert comparable(training.go(lambda: False)) == unbroken[0]
    for name, value in training.model.state_dict().items():
        np.testing.assert_array_equal(value, unbroken[1][name], name)


@pytest.mark.parametrize("step", [1, 6, STEPS])
def test_a_run_that_failed_in_a_step_goes_on_from_its_checkpoint(unbroken, tiny, pictures, tmp_path, step):
    """The clock says that two minutes pass with each step, so that each is saved."""
    seen = []

    def fail(images):
        seen.append(images)
        if len(seen) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(tiny, pictures, tmp_path, clock=iter(range(0, 10**6, 121)).__next__).go(lambda: False, fail)
    assert Training(tiny, pictures, tmp_path).state["step"] == step - 1
    assert finish(tiny, pictures, tmp_path) == unbroken[0]


def test_a_run_that_failed_while_it_was_tested_at_the_end_is_tested_again(unbroken, tiny, pictures, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Training, "record", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Training(tiny, pictures, tmp_path).go(lambda: False)
    training = Training(tiny, pictures, tmp_path)
    assert training.state["step"] == STEPS
    assert comparable(training.go(lambda: pytest.fail("it was trained on"))) == unbroken[0]


def test_a_killed_process_loses_what_came_after_its_checkpoint_and_no_more(unbroken, tiny, pictures, tmp_path):
    """kill -9 in the second epoch; the first one's end was saved."""
    assert exit_codes((killed_in_step, (6, tiny, pictures, tmp_path))) == [-signal.SIGKILL]
    assert Training(tiny, pictures, tmp_path).state["step"] == 4
    assert finish(tiny, pictures, tmp_path) == unbroken[0]


def test_a_checkpoint_may_be_moved(unbroken, tiny, pictures, tmp_path):
    Training(tiny, pictures, tmp_path / "here").go(lambda: True)
    (tmp_path / "here").rename(tmp_path / "there")
    assert finish(tiny, pictures, tmp_path / "there") == unbroken[0]


# ---------------------------------------------------------------------------------------------------------------- pairing


def seen(settings, pictures, tmp_path, seed=0):
    """The images of each step as the net was given them, and the weights before the first."""
    training = Training(Run(settings, seed, pictures.fingerprint), pictures, tmp_path / f"{len(list(tmp_path.iterdir()))}")
    weights = {name: np.array(value) for name, value in training.model.state_dict().items()}
    images, call = [], training.input.__class__.__call__

    class Noting(type(training.input)):
        def __call__(self, *args):
            images.append(call(self, *args))
            return images[-1]

    training.input.__class__ = Noting
    for _ in range(STEPS):
        training._step()
    return images, weights


def test_arms_of_a_seed_see_the_same_batches_and_begin_with_the_same_weights(pictures, tmp_path):
    plain = TINY.but(changes={"hs": None, "conv2": {"wc": "0"}}, rate=0.1)
    ours, theirs = (seen(settings, pictures, tmp_path) for settings in (TINY, plain))
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours[1].keys() == theirs[1].keys()
    for name in ours[1]:
        np.testing.assert_array_equal(ours[1][name], theirs[1][name])
    other = seen(TINY, pictures, tmp_path, seed=1)
    assert not np.array_equal(ours[0][0], other[0][0])
    assert any(not np.array_equal(ours[1][name], other[1][name]) for name in ours[1])


def test_arms_that_differ_in_mirrors_share_the_places_of_their_crops(pictures, tmp_path):
    flipped, straight = (seen(TINY.but(flips=f, color_noise=0.0), pictures, tmp_path)[0][0] for f in (True, False))
    mean = Training(Run(TINY, 0, ""), pictures, tmp_path).input.one._mean[4:28, 4:28].transpose(2, 0, 1)
    same = [np.array_equal(a, b) for a, b in zip(flipped, straight, strict=True)]
    mirrored = [np.allclose(a + mean, (b + mean)[..., ::-1]) for a, b in zip(flipped, straight, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True)) and any(same) and not all(same)


def test_the_training_images_that_are_tested_are_of_all_classes_though_files_are_in_the_order_of_classes(pictures, tmp_path):
    """32 of 64 images, in the order of ten classes."""
    order = np.argsort(pictures.train_labels, kind="stable")
    ordered = dataclasses.replace(pictures, train=pictures.train[order], train_labels=pictures.train_labels[order])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.TRAIN_TESTED", 32)
        training = Training(Run(TINY, 0, ""), ordered, tmp_path)
        tested = []
        patch.setattr(
            training, "_wrong", lambda images, labels, views=1: tested.append(labels) or (0.0, np.zeros(len(labels), bool))
        )
        training._add_final({})
    assert len(tested[0]) == 32 and len(set(tested[0].tolist())) == 10


def test_a_subset_is_drawn_by_the_seed(pictures, tmp_path):
    subsets = [Training(Run(TINY.but(images=32), seed, ""), pictures, tmp_path).labels for seed in (0, 0, 1)]
    assert len(subsets[0]) == 32
    np.testing.assert_array_equal(subsets[0], subsets[1])
    assert not np.array_equal(subsets[0], subsets[2])


# -------------------------------------------------------------------------------------------------------------- schedule


def test_rates_drop_at_the_end_of_the_epochs_named_and_start_multiplied(pictures, tmp_path):
    training = Training(Run(TINY.but(rate=2.0, epochs=3, drops=(1, 2)), 0, ""), pictures, tmp_path)
    rates = []
    training.go(lambda: False, lambda images: rates.append(training.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.002] * 4 + [0.0002] * 4 + [0.00002] * 4)


def test_training_ends_when_the_error_asked_for_is_reached(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("training.WINDOW", 2)
    record = Training(Run(TINY.but(until=0.99), 0, ""), pictures, tmp_path).go(lambda: False)
    assert record["reached"] == record["steps"] == record["train"]["step"][-1] < STEPS
    assert record["train"]["error"][-1] <= 0.99 and all(error > 0.99 for error in record["train"]["error"][:-1])


def test_a_loss_that_is_not_finite_ends_the_run_and_is_said(pictures, tmp_path):
    record = Training(Run(TINY.but(rate=1e20), 0, ""), pictures, tmp_path).go(lambda: False)
    assert record["diverged"] == record["steps"] and "final" not in record


def test_fewer_images_than_a_batch_are_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="wide: 8 training images are fewer than a batch of 16"):
        Training(Run(TINY.but(images=8), 0, ""), pictures, tmp_path)


# ------------------------------------------------------------------------------------------------------------- the record


def test_the_record_says_what_was_done_and_measured(unbroken, pictures):
    record = unbroken[0]
    assert record["settings"] == TINY.declared() and record["seed"] == 0 and record["steps"] == STEPS
    assert record["data"] == {"name": "embedded patterns", "fingerprint": "patterns-64-32", "test_images": 64}
    assert record["test"]["epoch"] == [1.0, 2.0] and record["final"]["test_error"] == record["test"]["error"][-1]
    assert len(record["after_drop"]) == IMAGES // BATCH
    assert record["signals"].keys() == {"begin", "epoch 1", "end"}
    wrong = np.unpackbits(np.frombuffer(base64.b64decode(record["wrong"]), np.uint8))
    assert wrong.mean() == pytest.approx(record["final"]["test_error"], abs=1e-5)
    assert record["machine"]["threads"] == 1 and {"python", "numpy", "minidl", "blas"} <= record["versions"].keys()


def test_the_running_training_error_is_the_mean_over_a_window(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("training.WINDOW", 3)
    training = Training(Run(TINY, 0, ""), pictures, tmp_path)
    counted = []
    count = training._count
    monkeypatch.setattr(training, "_count", lambda *args: (counted.append(args[:3]), count(*args)))
    record = training.go(lambda: False)
    assert record["train"]["step"] == [3, 6, 8]
    for i, part in enumerate((counted[:3], counted[3:6], counted[6:])):
        images = sum(n for _, _, n in part)
        assert record["train"]["error"][i] == pytest.approx(sum(wrong for _, wrong, _ in part) / images, abs=1e-5)
        assert record["train"]["loss"][i] == pytest.approx(sum(loss * n for loss, _, n in part) / images, abs=1e-5)


def test_ten_views_are_the_mean_of_the_ten_views_probabilities(pictures, tmp_path):
    """Against one view at a time, cut out by slices."""
    import minidl
    import minidl.nn.functional as F

    training = Training(Run(TINY, 0, ""), pictures, tmp_path)
    training.go(lambda: False)
    mean = training.input.one._mean[4:28, 4:28]
    total = 0.0
    with minidl.no_grad():
        for top, left in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
            view = pictures.test[:, top : top + 24, left : left + 24]
            for x in (view, view[:, :, ::-1]):
                scores = training.model(minidl.Tensor((x - mean).astype(np.float32).transpose(0, 3, 1, 2)))
                total = total + F.softmax(scores, 1).numpy()
    _, wrong = training._wrong(pictures.test, pictures.test_labels, views=10)
    np.testing.assert_array_equal(wrong, total.argmax(1) != pictures.test_labels)


def test_bits_are_packed_eight_to_a_byte():
    assert base64.b64decode(packed(np.array([1, 0, 0, 0, 0, 0, 0, 1, 1], bool))) == bytes([0b10000001, 0b10000000])


def test_a_grey_filter_has_no_share_of_colour_and_one_without_grey_has_all():
    layer = nn.Conv2d(3, 3, 2)
    grey, red_green = np.ones((3, 2, 2)), np.array([1.0, -1.0, 0.0])[:, None, None] * np.ones((1, 2, 2))
    red = np.array([1.0, 0.0, 0.0])[:, None, None] * np.ones((1, 2, 2))
    layer.weight.data[:] = np.stack([grey, red_green, red])
    assert colors(nn.Sequential(layer))["0.weight"]["color"] == pytest.approx([0.0, 1.0, 2 / 3], abs=1e-4)


def test_looking_at_the_signals_changes_nothing(unbroken, tiny, pictures, tmp_path, monkeypatch):
    """With dropout in the net, whose masks would be others if the look drew some."""
    monkeypatch.setattr(Training, "_look_at_signals", lambda self, when: None)
    record = finish(tiny, pictures, tmp_path)
    assert {**record, "signals": 0} == {**unbroken[0], "signals": 0}
