"""train.py, as a user runs it: the run folder, resuming, Ctrl-C, and what it says when something is wrong."""

import importlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import data as alexnet_data
import guards
import numpy as np
import pytest
import run as run_module
import train
from evaluate import Score
from model import AlexNet
from run_checks import STEPS, TIMINGS, TINY, assert_same_run, checkpoint, contents, killed_after, rows, trained

import minidl
from minidl.checkpoint import load_checkpoint
from minidl.data.transforms import ORDER
from minidl.ops.dropout import DropoutFunction
from minidl.random import Generator

pytestmark = pytest.mark.usefixtures("no_curves")
DRAW_CURVES = run_module.draw_curves


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that was never stopped."""
    return trained(images, tmp_path_factory.mktemp("whole") / "run")


def before_each_step(monkeypatch, act):
    """Call act(trainer) before every training step."""
    step = train.Trainer.train_step
    monkeypatch.setattr(train.Trainer, "train_step", lambda self, *batch: (act(self), step(self, *batch))[1])


# ----------------------------------------------------------------------------------------------------------- run folder


def test_a_run_leaves_its_folder(images, tmp_path, call, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(run_module, "draw_curves", DRAW_CURVES)
    out = tmp_path / "deep" / "run"
    code, text, errors = call(images, *TINY, "--steps", 5, "--save-every", 1, "--out", out)
    assert code == 0 and errors == ""
    expected = {"arguments.json", "log.jsonl", "statistics.npz", "listings", "checkpoints", "best.json"}
    expected |= {"curves.png", "conv1.png", ".lock"}
    assert {path.name for path in out.iterdir()} == expected
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000003", "step-000004", "step-000005"]
    about = json.loads((out / "arguments.json").read_text())
    assert about["arguments"]["width"] == 0.05 and about["arguments"]["data"] == str(images)
    assert about["versions"].keys() == {"minidl", "python", "numpy", "blas", "threads", "machine"}
    assert about["versions"]["minidl"] == minidl.__version__
    assert Image.open(out / "conv1.png").size == (5 * (2 * 12 + 1), 5 * (2 * 13 + 4))  # 2 filters of 11 x 11 a tower
    assert Image.open(out / "curves.png").size == (1200, 480)
    assert f"run folder: {out}" in text and f"{out}: log.jsonl, checkpoints/, best.json, conv1.png, curves.png" in text
    assert "conv1.png: the first filters, a block of rows a tower; one may lead by chance\n" in text
    assert "AlexNet at width 0.05 of the paper's" in text and "10 images of 2 classes, 4 held out" in text
    assert "on cpu:0 and cpu:1; float32; NumPy" in text and "seed 0" in text


def test_rows_of_the_log(whole):
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    reports = [row for row in log if "loss" in row]
    scores = [row for row in log if "loss" not in row]
    assert [(row["step"], row["epoch"]) for row in reports] == [(2, 0), (4, 1), (6, 1), (7, 2)]
    for row in reports:
        assert list(row) == ["step", "epoch", "lr", "loss", "top1", "skipped", *TIMINGS]
        assert row["skipped"] == 0 and 0 < row["loss"] < 10 and 0 <= row["top1"] <= 1 and row["images_per_second"] > 0
    assert all(list(row) == ["step", "held_out_loss", "held_out_top1", "held_out_top5"] for row in scores)
    assert [row["step"] for row in scores] == [3, 6, STEPS]  # after each epoch, and at the end
    assert all(row["held_out_top5"] == 1 for row in scores)  # of two classes


def test_an_epoch_whose_score_was_cut_off_by_a_kill_is_scored_on_resume(whole, copy, call):
    killed_after(copy, 3)
    log = (copy / "log.jsonl").read_text().splitlines()
    kept = [line for line in log if json.loads(line)["step"] <= 3 and "held_out_loss" not in line]
    (copy / "log.jsonl").write_text("".join(f"{line}\n" for line in kept))
    code, out, _ = call("--resume", copy)
    assert code == 0 and "epoch 1  held out: loss " in out
    assert_same_run(copy, whole)


def test_old_checkpoints_go_also_where_a_kill_came_before_their_turn(copy):
    """After the last step was saved: the resumed run has nothing left to save."""
    assert train.main(["--resume", str(copy), "--keep", "2"]) == 0
    best = json.loads((copy / "best.json").read_text())["checkpoint"]
    kept = {f"checkpoints/{path.name}" for path in (copy / "checkpoints").iterdir()}
    assert kept == {f"checkpoints/step-{STEPS - 1:06d}", f"checkpoints/step-{STEPS:06d}", best}


def test_without_matplotlib_a_line_says_what_is_missing(copy, call, monkeypatch):
    monkeypatch.setattr(run_module, "draw_curves", DRAW_CURVES)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, text, _ = call("--resume", killed_after(copy, 6))
    assert code == 0 and text.endswith("conv1.png, curves.png needs matplotlib: pip install matplotlib\n")
    assert not (copy / "curves.png").exists()


def test_the_embedded_patterns_are_the_default(tmp_path, call, monkeypatch):
    monkeypatch.setattr(alexnet_data, "PATTERNS_TRAIN", 6)
    monkeypatch.setattr(alexnet_data, "PATTERNS_HELD_OUT", 2)
    monkeypatch.chdir(tmp_path)
    code, text, _ = call()
    (folder,) = (tmp_path / "runs").iterdir()
    last = checkpoint(folder, train.EMBEDDED["epochs"])  # epochs of one batch
    assert code == 0 and folder.name.startswith("alexnet-")
    assert "the embedded patterns: 6 drawn images of 10 classes, 2 held out" in text
    assert f"batch 16, rate {train.EMBEDDED['lr']:g} (biases {2 * train.EMBEDDED['lr']:g}), momentum 0.9" in text
    assert len(load_checkpoint(last).model_state["tower0.conv1.weight"]) == 48 * train.EMBEDDED["width"]


def test_defaults_on_images_are_the_papers():
    args = train.complete(train.parser_().parse_args(["DIR"]), None)
    assert (args.width, args.batch_size, args.epochs, args.lr, args.momentum, args.wd) == (1.0, 128, 90, 0.01, 0.9, 0.0005)
    assert (args.profile, args.variant, args.literal_init, args.lr_drops) == ("paper", "two_towers", False, None)


def test_arguments_of_a_resumed_run():
    saved = vars(train.complete(train.parser_().parse_args(["DIR", "--lr", ".02", "--steps", "9"]), None))
    again = train.complete(train.parser_().parse_args(["--resume", "x"]), saved)
    assert vars(again) == saved
    longer = train.complete(train.parser_().parse_args(["--resume", "x", "--epochs", "3"]), saved)
    assert (longer.epochs, longer.steps, longer.lr) == (3, None, 0.02)


def test_as_a_user_runs_it(images, tmp_path):
    command = [sys.executable, train.__file__, str(images), *TINY, "--steps", "2", "-j", "1", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    assert "step 2/2  epoch 1  loss " in done.stdout and "held out: loss " in done.stdout
    assert (tmp_path / "run" / "curves.png").is_file()


# ------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_resuming_is_never_having_stopped(step, whole, copy, call):
    """After step 3 an epoch ends; the others are in the middle of one; 1, 3 and 5 are between two reports."""
    code, text, _ = call("--resume", killed_after(copy, step))
    assert code == 0 and f"resumed {checkpoint(copy, step)}, {step} of 7 steps done" in text
    assert_same_run(copy, whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_resuming_with_other_workers(workers, whole, copy, call):
    assert call("--resume", killed_after(copy, 2), "-j", workers)[0] == 0
    assert_same_run(copy, whole)


def test_resuming_after_every_step_of_a_run_whose_noise_ends_in_an_epoch(images, tmp_path, call):
    """In config 145's the colour noise ends after 5 of 7 steps; each time another number of workers goes on."""
    whole = trained(images, tmp_path / "whole", "--profile", "original")
    for step in range(1, STEPS):
        copy = killed_after(shutil.copytree(whole, tmp_path / f"copy-{step}"), step)
        assert call("--resume", copy, "-j", (0, 1, 3)[step % 3])[0] == 0
        assert_same_run(copy, whole)


def test_scores_between_the_ends_of_epochs_and_resuming_after_every_step(images, tmp_path, call):
    """Epochs end after 3 and 6 of 7 steps. Scores change nothing that is trained."""
    whole = trained(images, tmp_path / "whole", "--score-every", 2)
    scored = [row["step"] for row in rows(whole) if "held_out_loss" in row]
    assert scored == [2, 3, 4, 6, 7]
    plain = trained(images, tmp_path / "plain")
    states = [load_checkpoint(checkpoint(folder, STEPS)).model_state for folder in (whole, plain)]
    assert all(np.array_equal(values, states[1][name]) for name, values in states[0].items())
    for step in range(1, STEPS):
        copy = killed_after(shutil.copytree(whole, tmp_path / f"copy-{step}"), step)
        assert call("--resume", copy, "-j", (0, 1, 3)[step % 3])[0] == 0
        assert_same_run(copy, whole)


def test_a_score_says_at_which_step_it_was_made(images, tmp_path, call):
    text = call(images, *TINY, "--steps", 4, "--score-every", 2, "--out", tmp_path / "run")[1]
    assert [line.split("  held out")[0] for line in text.splitlines() if "  held out: loss " in line] == ["step 2", "epoch 1"]


def test_the_run_on_the_patterns_has_several_scores(tmp_path):
    """Its one epoch has 500 steps."""
    defaults = train.complete(train.parser_().parse_args([]), None)
    steps = math.ceil(alexnet_data.PATTERNS_TRAIN / defaults.batch_size)
    assert defaults.epochs * steps // defaults.score_every >= 4
    assert train.complete(train.parser_().parse_args(["DIR"]), None).score_every is None


def test_what_is_said_fits_80_columns(tmp_path, call, monkeypatch):
    monkeypatch.setattr(alexnet_data, "PATTERNS_TRAIN", 6)
    monkeypatch.setattr(alexnet_data, "PATTERNS_HELD_OUT", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for more in (["--dry-run"], ["--lr", 3, "--steps", 1, "--autopsy", "--out", "run"]):
        code, text, _ = call("--width", 0.05, "-b", 4, "-j", 0, *more)
        assert code == 0 and max(map(len, text.splitlines())) <= 80
    assert "updates too large" in text and "\nthe best checkpoint is run/checkpoints/step-000001\n" in text


@pytest.mark.parametrize("program", ["train", "evaluate", "prepare", "minidl.convert.__main__"])
def test_the_help_fits_80_columns_and_says_what_each_option_does(program, call_main, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = call_main(importlib.import_module(program).main, "--help")
    assert code == 0 and max(map(len, text.splitlines())) <= 80
    options = re.findall(r"^  -.*\n(?:   .*\n)*", text, re.MULTILINE)
    assert options and all(len(re.findall(r"[a-z]{2,}", re.sub(r"--?[\w-]+", "", each))) > 2 for each in options)


def test_resuming_on_the_patterns(tmp_path, call, monkeypatch):
    monkeypatch.setattr(alexnet_data, "PATTERNS_TRAIN", 10)
    monkeypatch.setattr(alexnet_data, "PATTERNS_HELD_OUT", 4)
    settings = [*TINY, "--steps", 5, "--save-every", 1, "--keep", 9]
    assert call(*settings, "--out", tmp_path / "whole")[0] == 0
    copy = shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    shutil.rmtree(checkpoint(copy, 5))
    assert call("--resume", copy, "-j", 2)[0] == 0
    assert_same_run(copy, tmp_path / "whole", 5)


def test_resuming_in_caffes_profile(images, tmp_path, call):
    whole = trained(images, tmp_path / "whole", "--profile", "caffe")
    copy = shutil.copytree(whole, tmp_path / "copy")
    assert call("--resume", killed_after(copy, 4))[0] == 0
    assert_same_run(copy, whole)


def test_resuming_from_a_checkpoint_drops_what_came_later(whole, copy, call, monkeypatch):
    monkeypatch.chdir(copy)
    seen = []
    before_each_step(monkeypatch, lambda trainer: seen.append((trainer.step, len(rows(copy)))))
    code, text, _ = call("--resume", "checkpoints/step-000003")
    assert code == 0 and seen[0] == (3, 2)  # the row of step 2, the score of step 3
    names = [f"step-00000{step}" for step in (4, 5, 6, 7)]
    assert f"the checkpoints of later steps are in {copy / 'set-aside'} now: {', '.join(names)}\n" in text
    for name in names:
        before, after = (load_checkpoint(folder / name).model_state for folder in (copy / "set-aside", whole / "checkpoints"))
        np.testing.assert_array_equal(before["fc8.weight"], after["fc8.weight"])
    assert_same_run(copy, whole)


def test_what_was_set_aside_makes_room_for_what_comes_later(copy, call):
    for step in (5, 3):
        assert call("--resume", checkpoint(copy, step), "--steps", 6)[0] == 0
    assert sorted(path.name for path in (copy / "set-aside").iterdir()) == [f"step-00000{step}" for step in (4, 5, 6, 7)]


def test_resuming_a_run_that_was_killed_before_its_first_checkpoint(whole, copy, call):
    shutil.rmtree(copy / "checkpoints")
    code, text, _ = call("--resume", copy)
    assert code == 0 and f"{copy} has no checkpoint yet: it starts from the beginning" in text
    assert_same_run(copy, whole)


def test_a_log_line_cut_short_by_a_kill(whole, copy, call):
    with (copy / "log.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    assert call("--resume", killed_after(copy, 6))[0] == 0
    assert_same_run(copy, whole)


def test_what_a_killed_process_left_is_cleared_on_resume(whole, copy, call):
    killed_after(copy, 3)
    os.rename(checkpoint(copy, 3), copy / "checkpoints" / ".step-000003.old")  # killed while it was replaced
    (copy / "checkpoints" / ".step-000001.tmp-99").mkdir()  # killed while it was deleted
    (copy / ".reserve").write_bytes(bytes(1000))
    assert call("--resume", copy)[0] == 0
    assert_same_run(copy, whole)
    assert not [path.name for path in (copy / "checkpoints").iterdir() if path.name.startswith(".")]
    assert not (copy / ".reserve").exists()


def test_a_run_goes_on_in_one_process_at_a_time(copy, call):
    with guards.locked(copy):
        before = contents(copy)
        code, text, errors = call("--resume", copy, "--epochs", 9)
        assert (code, text) == (2, "") and contents(copy) == before
        assert f"{copy}: process {os.getpid()} on " in errors and errors.count("\n") == 1
        assert call("--resume", copy, "--evaluate")[0] == 0


def test_a_new_run_is_refused_where_one_begins(images, tmp_path, call):
    out = tmp_path / "run"
    out.mkdir()
    with guards.locked(out):
        code, _, errors = call(images, *TINY, "--out", out)
    assert code == 2 and f"train.py: error: {out}: process {os.getpid()} on " in errors


# ------------------------------------------------------------------------------------------------------ the best checkpoint


def scored(monkeypatch, **top1):
    """Held-out scores in the place of the network's: step_3=0.5, or (0.5, loss); 0 at steps that are not named."""

    def score(self):
        value = top1.get(f"step_{self.step}", 0.0)
        fraction, loss = value if isinstance(value, tuple) else (value, 1.0)
        return Score(4, loss, fraction, 1.0, 2)

    monkeypatch.setattr(train.Trainer, "score", score)


def kept(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


def test_the_last_ones_and_the_best_are_kept(images, tmp_path, call, monkeypatch):
    scored(monkeypatch, step_3=0.25, step_6=0.75, step_9=0.5, step_11=0.5)
    out = tmp_path / "run"
    code, text, _ = call(images, *TINY, "--steps", 11, "--save-every", 1, "--keep", 2, "--out", out)
    assert code == 0 and f"\nthe best checkpoint is {checkpoint(out, 6)}\n" in text
    assert kept(out) == [6, 10, 11]
    about = json.loads((out / "best.json").read_text())
    assert about == {"checkpoint": "checkpoints/step-000006", "step": 6, "held_out_top1": 0.75, "held_out_loss": 1.0}
    best = {"step": 6, "held_out_top1": 0.75, "held_out_loss": 1.0}
    assert [load_checkpoint(checkpoint(out, step)).state["best"] for step in (6, 10, 11)] == [best] * 3


@pytest.mark.parametrize(
    ("scores", "step"),
    [
        ({"step_3": 0.5, "step_6": 0.5, "step_7": 0.5}, 3),  # of equal ones the first
        ({"step_3": (0.5, 2.0), "step_6": (0.5, 1.0), "step_7": (0.25, 0.1)}, 6),  # then the loss counts
        ({"step_3": (0.5, math.nan), "step_6": (0.25, math.inf), "step_7": (0.25, 9.0)}, 7),
        ({"step_3": 0.5, "step_6": 0.25, "step_7": 0.75}, 7),  # the last score counts too
    ],
)
def test_which_is_the_best(scores, step, images, tmp_path, call, monkeypatch):
    scored(monkeypatch, **scores)
    out = tmp_path / "run"
    assert call(images, *TINY, "--steps", STEPS, "--keep", 1, "--out", out)[0] == 0
    assert kept(out) == sorted({step, STEPS})  # saved though --save-every is 200
    assert json.loads((out / "best.json").read_text())["step"] == step
    assert load_checkpoint(checkpoint(out, step)).state["best"]["step"] == step


def test_the_best_survives_resuming(images, tmp_path, call, monkeypatch):
    scored(monkeypatch, step_3=0.5, step_6=0.25)
    out = trained(images, tmp_path / "run")
    killed_after(out, 5)
    (out / "best.json").unlink()
    assert call("--resume", out, "--keep", 1)[0] == 0
    assert kept(out) == [3, 7] and json.loads((out / "best.json").read_text())["step"] == 3


def test_a_best_checkpoint_that_is_gone_is_the_best_no_more(images, tmp_path, call, monkeypatch):
    scored(monkeypatch, step_3=0.5, step_6=0.25)
    out = trained(images, tmp_path / "run")
    killed_after(out, 5)
    shutil.rmtree(checkpoint(out, 3))
    assert call("--resume", out)[0] == 0
    assert json.loads((out / "best.json").read_text())["step"] == 6


def test_going_back_before_the_first_score_there_is_no_best(whole, copy, call, monkeypatch):
    seen = []
    before_each_step(monkeypatch, lambda trainer: seen.append((copy / "best.json").exists()))
    assert call("--resume", checkpoint(copy, 2))[0] == 0
    assert seen[:2] == [False, True]
    assert_same_run(copy, whole)


# ----------------------------------------------------------------------------------------------------------- more resuming


def test_training_longer(whole, copy, call):
    code, _, _ = call("--resume", copy, "--epochs", 3)
    assert code == 0 and checkpoint(copy, 9).is_dir()
    assert [row["step"] for row in rows(copy)] == [2, 3, 4, 6, 6, 7, 7, 8, 9, 9]


def test_ctrl_c_saves_and_says_how_to_go_on(images, whole, tmp_path, call, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_each_step(patch, lambda trainer: trainer.step == 4 and os.kill(os.getpid(), signal.SIGINT))
        code, text, _ = call(images, *TINY, "--steps", STEPS, "--save-every", 100, "--out", out)
    assert code == 130 and signal.getsignal(signal.SIGINT) is handler
    assert f"saved {checkpoint(out, 5)}; continue with: python {sys.argv[0]} --resume {out}\n" in text
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "step-000003",
        "step-000005",
    ]  # the first is the best
    assert call("--resume", out)[0] == 0
    assert_same_run(out, whole)


def test_sigterm_is_ctrl_c_with_an_exit_code_of_its_own(images, whole, tmp_path, call, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_each_step(patch, lambda trainer: trainer.step == 4 and os.kill(os.getpid(), signal.SIGTERM))
        code, text, _ = call(images, *TINY, "--steps", STEPS, "--out", out)
    assert code == 143 and f"saved {checkpoint(out, 5)}; continue with: " in text
    assert call("--resume", out)[0] == 0
    assert_same_run(out, whole)


@pytest.mark.parametrize(("scored", "saved"), [(1, 3), (3, 7)])
def test_ctrl_c_does_not_wait_for_a_score(scored, saved, images, whole, tmp_path, call, monkeypatch):
    """The score of an epoch, and the last one, are left for the resumed run."""
    out, score, scores = tmp_path / "run", train.Trainer.score, []

    def interrupted(self):
        scores.append(self.step)
        if len(scores) == scored:
            os.kill(os.getpid(), signal.SIGINT)
        return score(self)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "score", interrupted)
        code, text, _ = call(images, *TINY, "--steps", STEPS, "--out", out)
    assert code == 130 and f"saved {checkpoint(out, saved)}; continue with: " in text
    assert not any(row["step"] == saved and "held_out_loss" in row for row in rows(out))
    assert call("--resume", out)[0] == 0
    assert_same_run(out, whole)


def test_a_second_ctrl_c_ends_at_once(images, tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    before_each_step(monkeypatch, lambda trainer: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        train.main([str(images), *TINY, "--steps", "3", "--out", str(tmp_path / "run")])
    assert signal.getsignal(signal.SIGINT) is handler and not (tmp_path / "run" / "checkpoints").exists()


def test_the_seed_decides_everything(images, whole, tmp_path):
    assert_same_run(trained(images, tmp_path / "again", "-j", 2), whole)
    other = trained(images, tmp_path / "other", "--seed", 1)
    a, b = (load_checkpoint(checkpoint(folder, 1)).model_state["fc8.weight"] for folder in (whole, other))
    assert not np.array_equal(a, b)


def test_one_device_gives_the_same_run(images, whole, tmp_path):
    assert_same_run(trained(images, tmp_path / "one", "--device", "cpu:0"), whole)


# ------------------------------------------------------------------------------------------------------------- schedules


def test_rates_drop_at_fractions_of_the_run(images, tmp_path, call, monkeypatch):
    used = []
    before_each_step(monkeypatch, lambda trainer: used.append([group["lr"] for group in trainer.optimizer.param_groups]))
    out = tmp_path / "run"
    assert call(images, "--width", 0.05, "-b", 1, "-j", 0, "-p", 1, "--steps", 20, "--lr", 0.008, "--out", out)[0] == 0
    expected = [0.008] * 5 + [0.0008] * 6 + [0.00008] * 6 + [0.000008] * 3  # the paper's .25, .55, .85
    np.testing.assert_allclose(used, [[lr, 2 * lr] for lr in expected], rtol=1e-12)
    assert [row["lr"] for row in rows(out) if "lr" in row] == [lr for lr, _ in used]


def test_rate_drops_of_ones_own(images, tmp_path, call, monkeypatch):
    used = []
    before_each_step(monkeypatch, lambda trainer: used.append(trainer.optimizer.param_groups[0]["lr"]))
    assert call(images, *TINY, "--steps", 4, "--lr-drops", ".5,.75", "--out", tmp_path / "run")[0] == 0
    np.testing.assert_allclose(used, [0.01, 0.01, 0.001, 0.0001], rtol=1e-12)


@pytest.mark.parametrize(("profile", "with_noise"), [("paper", 10), ("original", 8), ("caffe", 10)])
def test_colour_noise_ends_with_the_profile(profile, with_noise, images, tmp_path, call, monkeypatch):
    """Three quarters of 10 steps, which is in the middle of an epoch."""
    loader, asked, used = train.train_loader, [], []

    def watched(*args, **settings):
        asked.append(settings["noise"])
        return loader(*args, **settings)

    monkeypatch.setattr(train, "train_loader", watched)
    before_each_step(monkeypatch, lambda trainer: used.append(asked[-1]))
    assert call(images, *TINY, "--steps", 10, "--profile", profile, "--out", tmp_path / "run")[0] == 0
    assert used == [True] * with_noise + [False] * (10 - with_noise)


def test_colour_noise_ends_where_it_should_though_the_batch_before_is_lost(images, tmp_path, call, monkeypatch):
    """After 15 of 20 steps; the image of step 15 can't be read."""
    folder = shutil.copytree(images, tmp_path / "images")
    samples = sorted((folder / "train").rglob("*.png"))
    samples[Generator(0, ORDER, 1).permutation(len(samples))[4]].write_bytes(b"")
    loader, asked, used = train.train_loader, [], {}

    def watched(*args, **settings):
        asked.append(settings["noise"])
        return loader(*args, **settings)

    monkeypatch.setattr(train, "train_loader", watched)
    before_each_step(monkeypatch, lambda trainer: used.update({trainer.step: asked[-1]}))
    settings = ["--width", 0.05, "-b", 1, "-j", 0, "--epochs", 2, "--on-error", "skip", "--profile", "original"]
    assert call(folder, *settings, "--out", tmp_path / "run")[0] == 0
    assert 14 not in used and used[13] is True and used[15] is False


# ---------------------------------------------------------------------------------------------------- training nothing


def test_evaluate_scores_and_writes_nothing(copy, call):
    before = contents(copy)
    code, text, _ = call("--resume", copy, "--evaluate")
    assert code == 0 and contents(copy) == before
    score = rows(copy)[-1]
    assert text.splitlines()[-1] == (
        f"held out: loss {score['held_out_loss']:.4f}, top-1 {score['held_out_top1']:.2%} of 4 images"
    )


def test_evaluate_without_a_checkpoint(copy, call):
    shutil.rmtree(copy / "checkpoints")
    code, _, errors = call("--resume", copy, "-e")
    assert (code, errors) == (2, f"train.py: error: {copy}: no checkpoint was saved yet\n")


def test_dry_run_writes_nothing(images, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, _ = call(images, *TINY, "--epochs", 2, "--dry-run")
    assert code == 0 and list(tmp_path.iterdir()) == []
    assert "one step: loss " in text and "(ln 2 is 0.6931)" in text and "; 6 steps would take about " in text
    assert text.endswith("dry run: nothing was written\n")


def test_check_grads_of_a_tiny_net(images, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, _ = call(images, "--width", 0.03, "--check-grads")
    assert code == 0 and list(tmp_path.iterdir()) == []
    table = [line.split()[:2] for line in text.splitlines()]
    assert ["tower0.conv1", "weight"] in table and ["fc8", "bias"] in table
    assert text.endswith("every backward agrees with its forward\n")


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-b", "0"], "argument -b/--batch-size: must be an integer of at least 1, got '0'"),
        (["--steps", "2.5"], "argument --steps: must be an integer of at least 1, got '2.5'"),
        (["-j", "-1"], "argument -j/--workers: must be an integer of at least 0, got '-1'"),
        (["--lr", "-1"], "argument --lr: must be a number above 0, got '-1'"),
        (["--lr", "nan"], "argument --lr: must be a number above 0, got 'nan'"),
        (["--lr", "inf"], "argument --lr: must be a number above 0, got 'inf'"),
        (["--lr", "fast"], "argument --lr: must be a number above 0, got 'fast'"),
        (["--wd", "-0.1"], "argument --wd/--weight-decay: must be a number at least 0, got '-0.1'"),
        (["--width", "0"], "argument --width: must be a number above 0, got '0'"),
        (["--lr-drops", ".5,.2"], "argument --lr-drops: must ascend, got '.5,.2'"),
        (["--lr-drops", ".5,2"], "argument --lr-drops: must be a number between 0 and 1, got '2'"),
        (["--data-changed"], "--data-changed needs --resume RUN: a new run takes the data as it is"),
        (["--evaluate"], "--evaluate needs --resume RUN: which checkpoint?"),
        (["--resume", "x", "--out", "y"], "--out can't be given with --resume: a run goes on in its own folder"),
        (["--resume", "x", "--dry-run"], "--check-grads and --dry-run can't be given with --resume: they train nothing"),
        (["--resume", "x"], "x: is neither a run folder (with arguments.json) nor a checkpoint in one"),
        (
            ["--device", "gpu0"],
            "device: a name is cpu, cpu:N, cuda or cuda:N, got 'gpu0'; cpu:0 and cpu:1 work here: "
            "python examples/alexnet/train.py --device cpu:0,cpu:1",
        ),
        (["--device", "cpu:0,cpu:1,cpu:2"], "AlexNet: 1 or 2 devices are needed, got 3"),
        (["--width", "0.001"], "AlexNet: width must leave every layer at least 1 channel, got 0.001 (48 channels become 0)"),
        (["nowhere"], "nowhere: must be a folder of images, got nothing by that name"),
        (["nowhere", "--hold-out", "1"], "argument --hold-out: must be a number between 0 and 1, got '1'"),
        (
            ["--hold-out", "0.1"],
            "--hold-out needs a folder of images; the embedded patterns have a held-out set of their own",
        ),
    ],
)
def test_wrong_arguments(arguments, text, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, errors = call(*arguments)
    assert (code, out) == (2, "")
    assert errors.endswith(f"train.py: error: {text}\n") and "Traceback" not in errors
    assert not list(tmp_path.rglob("arguments.json"))


def test_a_gpu_that_is_not_there(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        minidl.Device("cuda:0")
    except minidl.DeviceError as error:
        works = "python examples/alexnet/train.py --seed 3 --device cpu:0,cpu:1"
        assert call("--device", "cuda:0", "--seed", 3) == (2, "", f"train.py: error: {error}: {works}\n")
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("this machine has a GPU")


def test_a_folder_that_holds_a_run(images, copy, call):
    before = contents(copy)
    code, _, errors = call(images, *TINY, "--out", copy)
    text = f"train.py: error: {copy} holds a run; continue it with --resume {copy}, or give another --out\n"
    assert (code, errors) == (2, text) and contents(copy) == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda d: shutil.rmtree(d / "train"),
            "Couldn't find train in {d}; training images are needed beside val",
        ),
        (
            lambda d: [shutil.rmtree(path) for path in (d / "train").iterdir()],
            "Couldn't find any class folder in {d}/train.",
        ),
        (
            lambda d: (d / "train" / "emu").mkdir(),
            "Found no valid file for the classes emu in {d}/train. Supported extensions are: "
            ".jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp",
        ),
        (
            lambda d: shutil.rmtree(d / "val"),
            "{d}: has train/ and neither val/ nor test/; train.py --hold-out 0.1 holds a tenth of the images of its 2 classes "
            "out of training",
        ),
        (
            lambda d: shutil.move(d / "val" / "dog", d / "val" / "emu"),
            "{d}: train and val must have the same classes, only one has dog, emu",
        ),
    ],
    ids=["no train", "no class", "no image", "no val", "other classes"],
)
def test_data_that_cannot_be_used(change, text, images, tmp_path, call):
    folder = shutil.copytree(images, tmp_path / "images")
    change(folder)
    code, out, errors = call(folder, *TINY, "--steps", 1, "--out", tmp_path / "run")
    assert (code, out, errors) == (2, "", f"train.py: error: {text.format(d=folder)}\n")


def truncated_jpeg(folder):
    """One training image of the class cat becomes half a JPEG."""
    from PIL import Image

    path = folder / "train" / "cat" / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])
    return path


def test_a_truncated_image_stops_the_run_by_name(images, tmp_path, call):
    folder = shutil.copytree(images, tmp_path / "images")
    run = trained(folder, tmp_path / "run")
    killed_after(run, 3)
    path = truncated_jpeg(folder)
    before = contents(run / "checkpoints")
    code, _, errors = call("--resume", run)
    assert code == 2 and errors.startswith(f"train.py: error: BadImageError: {path} (2000 bytes) is not a readable image: ")
    assert errors.count("\n") == 1 and contents(run / "checkpoints") == before
    fresh = call(folder, *TINY, "--steps", 1, "--out", tmp_path / "fresh")
    assert fresh[0] == 2 and str(path) in fresh[2]


def test_a_truncated_image_is_skipped_by_name(images, tmp_path, call):
    folder = shutil.copytree(images, tmp_path / "images")
    path = truncated_jpeg(folder)
    code, text, errors = call(folder, *TINY, "--steps", 3, "--on-error", "skip", "--out", tmp_path / "run")
    assert code == 0 and f"1 unreadable images were skipped, the first is {path}: " in text
    assert f"ImageLoader: skipped {path}: " in errors


def test_a_batch_without_a_readable_image_does_not_hold_up_the_epoch(images, tmp_path, call):
    folder = shutil.copytree(images, tmp_path / "images")
    truncated_jpeg(folder)
    settings = ["--width", 0.05, "-b", 1, "-j", 0, "-p", 1, "--epochs", 2, "--on-error", "skip"]
    code, _, _ = call(folder, *settings, "--out", tmp_path / "run")
    reports = [row for row in rows(tmp_path / "run") if "epoch" in row]
    assert code == 0 and [row["epoch"] for row in reports] == [0] * 9 + [1] * 9
    assert checkpoint(tmp_path / "run", 20).is_dir()


@pytest.mark.parametrize("batch", [1, 4])
def test_skipped_images_are_counted_in_the_log_and_survive_resuming(batch, images, tmp_path, call):
    """With batches of 1 a batch is lost whole: the steps after it are resumed at the right image all the same."""
    folder = shutil.copytree(images, tmp_path / "images")
    truncated_jpeg(folder)
    (folder / "train" / "dog" / "5.png").write_bytes(b"")
    settings = ["--width", 0.05, "-b", batch, "-j", 0, "-p", 1, "--epochs", 2, "--on-error", "skip", "--save-every", 1]
    whole = tmp_path / "whole"
    code, text, _ = call(folder, *settings, "--profile", "original", "--keep", 99, "--out", whole)
    last = 2 * math.ceil(10 / batch)
    assert code == 0 and "4 times an unreadable image was left out of training\n" in text
    counts = [row["skipped"] for row in rows(whole) if "skipped" in row]
    assert counts == sorted(counts) and {row["skipped"] for row in rows(whole) if row.get("epoch") == 0} <= {0, 1, 2}
    assert load_checkpoint(checkpoint(whole, last)).state["left_out"] == 4
    for step in [step for step in kept(whole) if step < last][:: 7 if batch == 1 else 2]:
        copy = shutil.copytree(whole, tmp_path / f"copy-{step}")
        for later in [later for later in kept(whole) if later > step]:
            shutil.rmtree(checkpoint(copy, later))
        assert call("--resume", copy, "-j", 2)[0] == 0
        assert_same_run(copy, whole, last)


def test_another_architecture(copy, call):
    before = contents(copy)
    code, out, errors = call("--resume", copy, "--width", 0.06, "--profile", "caffe")
    text = "is a checkpoint of another architecture: profile 'paper' (here 'caffe'), width 0.05 (here 0.06)"
    assert (code, out, errors) == (2, "", f"train.py: error: {checkpoint(copy, 7)}: {text}\n")
    assert contents(copy) == before


def offer(folder, step):
    path = checkpoint(folder, step)
    return f"the previous whole checkpoint is {path}: continue from it with --resume {path}"


def test_a_truncated_checkpoint(copy, call):
    path = checkpoint(copy, 7) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    before = contents(copy)
    code, out, errors = call("--resume", checkpoint(copy, 7))
    text = f"train.py: error: {path}: must have {len(content)} bytes, got {len(content) - 100}; {offer(copy, 6)}\n"
    assert (code, out, errors) == (2, "", text) and contents(copy) == before


def test_a_half_written_checkpoint(copy, call):
    (checkpoint(copy, 7) / "state.json").unlink()
    code, _, errors = call("--resume", checkpoint(copy, 7))
    assert code == 2 and f"{checkpoint(copy, 7)}: half-written: state.json must be there" in errors
    assert errors.count("\n") == 1


def test_a_changed_byte_in_a_checkpoint(copy, call):
    path = checkpoint(copy, 7) / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, _, errors = call("--resume", copy)
    assert code == 2 and f"{path}: altered: its SHA-256 must be" in errors and errors.endswith(f"; {offer(copy, 6)}\n")


@pytest.mark.parametrize("more", [[], ["--evaluate"]])
def test_a_damaged_newest_checkpoint_is_refused_and_the_previous_whole_one_offered(more, whole, copy, call):
    (checkpoint(copy, 7) / "state.json").unlink()
    model = checkpoint(copy, 6) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\x01")
    code, text, errors = call("--resume", copy, *more)
    assert (code, text) == (2, "") and errors.startswith(f"train.py: error: {checkpoint(copy, 7)}: half-written: ")
    assert errors.endswith(f"; {offer(copy, 5)}\n") and errors.count("\n") == 1


def test_the_offer_can_be_taken(whole, copy, call):
    (checkpoint(copy, 7) / "state.json").unlink()
    code, text, _ = call("--resume", checkpoint(copy, 6))
    assert code == 0 and f"resumed {checkpoint(copy, 6)}, 6 of 7 steps done" in text
    assert_same_run(copy, whole)


def test_arguments_that_are_not_json(copy, call):
    (copy / "arguments.json").write_text("{")
    code, _, errors = call("--resume", copy)
    assert code == 2 and f"{copy / 'arguments.json'}: must be the JSON that train.py wrote" in errors


# ----------------------------------------------------------------------------------------------------------- not finite


def test_nan_in_a_weight_stops_the_run_and_is_named(images, tmp_path, call, monkeypatch):
    def plant(trainer):
        if trainer.step == 3:
            trainer.model.tower1.conv3.weight.data[1, 0, 2, 2] = np.nan

    before_each_step(monkeypatch, plant)
    out = tmp_path / "run"
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--save-every", 2, "--out", out)
    assert code == 1 and errors.endswith(
        "train.py: stopped: step 4: the loss is nan; tower1.conv3.weight is not finite any more; "
        f"the last checkpoint is {checkpoint(out, 3)}; a lower --lr than 0.01 may help\n"
    )
    for kept in (out / "checkpoints").iterdir():
        assert all(np.isfinite(values).all() for values in load_checkpoint(kept).model_state.values())


def overflowing_conv3(trainer):
    """From step 4 on, tower 1's conv3 has weights that are finite, and outputs that are not."""
    if trainer.step == 3:
        trainer.model.tower1.conv3.weight.data[...] = 3e38


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_first_op_that_overflows_is_named(images, tmp_path, call, monkeypatch):
    before_each_step(monkeypatch, overflowing_conv3)
    out = tmp_path / "run"
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--out", out)
    assert code == 1 and re.search(
        r"stopped: step 4: the loss is (nan|inf); it began in conv2d\w* in tower1\.conv3, forward: ", errors
    )
    assert f"; the last checkpoint is {checkpoint(out, 3)}; a lower --lr than 0.01 may help\n" in errors


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_gradient_that_is_not_finite_stops_before_the_update_and_its_op_is_named(images, tmp_path, call, monkeypatch):
    """The op goes wrong only with the dropout mask of step 5: the step is computed again with the same random numbers."""
    backward, dropped, out = DropoutFunction.backward, [], tmp_path / "run"

    def note(trainer):
        if trainer.step == 4:
            dropped.append(None)

    def spoiled(ctx, gy):
        (mask,) = (array for array in ctx.saved if getattr(array, "dtype", None) == np.dtype(bool))
        if dropped and dropped[0] is None:
            dropped[0] = mask.copy()
        (gx,) = backward(ctx, gy)
        same = dropped and mask.shape == dropped[0].shape and (mask == dropped[0]).all()
        return (gx + np.float32(np.inf),) if same else (gx,)

    monkeypatch.setattr(DropoutFunction, "backward", spoiled)
    before_each_step(monkeypatch, note)
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--save-every", 1, "--keep", 9, "--out", out)
    assert code == 1 and errors.startswith("train.py: stopped: step 5: a gradient is not finite; it began in dropout in tower")
    assert ", backward: " in errors and f"; the last checkpoint is {checkpoint(out, 4)}; a lower" in errors
    assert kept(out) == [1, 2, 3, 4]


def test_an_update_that_overflows_is_not_saved(images, tmp_path, call, monkeypatch):
    step, out = train.SGD.step, tmp_path / "run"

    def overflow(self):
        step(self)
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 4:
            self.param_groups[0]["params"][2].data[0] = np.inf

    monkeypatch.setattr(train.SGD, "step", overflow)
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--save-every", 1, "--keep", 9, "--out", out)
    text = "step 4: its update made a parameter that is not finite; the last checkpoint is"
    assert (code, errors) == (1, f"train.py: stopped: {text} {checkpoint(out, 3)}; a lower --lr than 0.01 may help\n")
    assert kept(out) == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of infinity minus infinity
def test_infinity_before_the_first_checkpoint(images, tmp_path, call, monkeypatch):
    before_each_step(monkeypatch, lambda trainer: trainer.model.fc8.bias.data.fill(np.inf))
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--out", tmp_path / "run")
    assert code == 1 and "fc8.bias is not finite any more; no checkpoint was saved yet;" in errors


def test_a_finished_run_that_is_resumed_has_one_score(copy, call):
    before = rows(copy)
    code, out, _ = call("--resume", copy)
    assert code == 0 and "held out" in out
    assert rows(copy) == before


def test_a_run_whose_checkpoints_are_all_broken_is_not_started_again(copy, call):
    for folder in (copy / "checkpoints").iterdir():
        (folder / "state.json").unlink()
    code, _, err = call("--resume", copy)
    assert code == 2
    assert f"{checkpoint(copy, STEPS)}: half-written: " in err and err.endswith("; of 6 earlier checkpoints none is whole\n")
    assert len(list((copy / "checkpoints").iterdir())) == STEPS


def test_resuming_on_other_classes(images, copy, tmp_path, call):
    other = shutil.copytree(images, tmp_path / "other")
    for split in ("train", "val"):
        os.rename(other / split / "cat", other / split / "cow")
    code, _, err = call(other, "--resume", copy)
    assert (
        code == 2
        and "of the classes 1 came (cow) and 1 went (cat); a network has an output for each class: train a new one" in err
    )


def test_a_mistyped_data_folder_leaves_no_run_folder(tmp_path, call):
    code, _, _ = call(tmp_path / "nothing", "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()


def test_a_resumed_run_takes_the_rate_it_is_given(whole, copy, call):
    killed_after(copy, 5)
    code, _, _ = call("--resume", copy, "--lr", 0.003, "--wd", 0.0, "--momentum", 0.5, "--lr-drops", 0.99)
    assert code == 0
    assert [row["lr"] for row in rows(copy) if "lr" in row][-1] == 0.003
    groups = load_checkpoint(checkpoint(copy, STEPS)).optimizer_state["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.003, 0.006]
    assert [(group["momentum"], group["weight_decay"]) for group in groups] == [(0.5, 0.0), (0.5, 0.0)]


def test_tf32_and_bf16_are_off_by_default_and_said_where_they_are_used(call, images):
    code, out, _ = call(images, *TINY, "--dry-run")
    assert code == 0 and "; float32; NumPy" in out and minidl.get_float32_matmul_precision() == "highest"
    try:
        code, out, _ = call(images, *TINY, "--dry-run", "--tf32")
        assert code == 0 and "; float32; NumPy" in out  # nothing on a CPU multiplies in TF32
        assert minidl.get_float32_matmul_precision() == "high"
        on_gpu = train.complete(train.parser_().parse_args([str(images), "--tf32", "--device", "cuda:0"]), None)
        data = train.open_data(str(images))
        assert "; float32, products in TF32; NumPy" in train.header(on_gpu, AlexNet(10, width=0.05), data)
        code, out, _ = call(images, *TINY, "--dry-run", "--amp", "bf16")
        assert code == 0 and "; float32; NumPy" in out and minidl.get_float32_matmul_precision() == "medium"
        on_gpu = train.complete(train.parser_().parse_args([str(images), "--amp", "bf16", "--device", "cuda:0"]), None)
        assert "; float32, products in bfloat16; NumPy" in train.header(on_gpu, AlexNet(10, width=0.05), data)
    finally:
        minidl.set_float32_matmul_precision("highest")
