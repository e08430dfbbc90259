"""train.py, as a user runs it: the run folder, resuming, Ctrl-C, and what it says when something is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import data as alexnet_data
import numpy as np
import pytest
import run as run_module
import train
from model import AlexNet

import minidl
from minidl.checkpoint import load_checkpoint

TINY = ["--width", "0.05", "-b", "4", "-j", "0", "-p", "2"]  # 10 images: epochs of 3 steps, the last with 2 images
STEPS = 7
DRAW_CURVES = run_module.draw_curves
TIMINGS = ("images_per_second", "seconds")


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Drawing curves takes longer than these runs; the tests about them bring it back."""
    monkeypatch.setattr(run_module, "draw_curves", lambda folder: None)


@pytest.fixture
def call(call_main):
    """call(arguments) -> exit code, standard output, standard error."""
    return partial(call_main, train.main)


def trained(images, out, *more):
    """A run of STEPS steps that keeps every checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "KEPT_CHECKPOINTS", 99)
        patch.setattr(run_module, "draw_curves", lambda folder: None)
        arguments = [images, *TINY, "--steps", STEPS, "--save-every", 1, "--out", out, *more]
        assert train.main([str(a) for a in arguments]) == 0
    return out


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that was never stopped."""
    return trained(images, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def copy(whole, tmp_path):
    """The same run in a folder of its own."""
    return shutil.copytree(whole, tmp_path / "copy")


def checkpoint(folder, step):
    return folder / "checkpoints" / f"step-{step:06d}"


def killed_after(folder, step):
    """What a kill leaves: no checkpoint of a later step. (The log may have later rows.)"""
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(checkpoint(folder, later))
    return folder


def rows(folder):
    """The log without timings."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def assert_same_run(folder, other, step=STEPS):
    """Weights, momentum, random numbers and log, bit for bit."""
    a, b = load_checkpoint(checkpoint(folder, step)), load_checkpoint(checkpoint(other, step))
    assert a.model_state.keys() == b.model_state.keys()
    for name, values in a.model_state.items():
        np.testing.assert_array_equal(values, b.model_state[name], name)
    assert len(a.optimizer_state["state"]) == len(a.model_state)
    for i, state in a.optimizer_state["state"].items():
        np.testing.assert_array_equal(state["momentum_buffer"], b.optimizer_state["state"][i]["momentum_buffer"])
    assert a.optimizer_state["param_groups"] == b.optimizer_state["param_groups"]
    for name in ("step", "random", "meter", "architecture", "classes"):
        assert a.state[name] == b.state[name]
    assert rows(folder) == rows(other)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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
    expected = {"arguments.json", "log.jsonl", "statistics.npz", "checkpoints", "curves.png", "conv1.png"}
    assert {path.name for path in out.iterdir()} == expected
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000003", "step-000004", "step-000005"]
    about = json.loads((out / "arguments.json").read_text())
    assert about["arguments"]["width"] == 0.05 and about["arguments"]["data"] == str(images)
    assert about["versions"].keys() == {"minidl", "python", "numpy", "blas", "threads", "machine"}
    assert about["versions"]["minidl"] == minidl.__version__
    assert Image.open(out / "conv1.png").size == (5 * (2 * 12 + 1), 5 * (2 * 13 + 4))  # 2 filters of 11 x 11 a tower
    assert Image.open(out / "curves.png").size == (1200, 480)
    assert f"run folder: {out}" in text and f"{out}: log.jsonl, checkpoints/, conv1.png, curves.png" in text
    assert "AlexNet at width 0.05 of the paper's" in text and "10 images of 2 classes, 4 held out" in text
    assert "on cpu:0 and cpu:1; float32; NumPy" in text and "seed 0" in text


def test_rows_of_the_log(whole):
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    reports = [row for row in log if "loss" in row]
    scores = [row for row in log if "loss" not in row]
    assert [(row["step"], row["epoch"]) for row in reports] == [(2, 0), (4, 1), (6, 1), (7, 2)]
    for row in reports:
        assert list(row) == ["step", "epoch", "lr", "loss", "top1", *TIMINGS]
        assert 0 < row["loss"] < 10 and 0 <= row["top1"] <= 1 and row["images_per_second"] > 0
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


def test_without_matplotlib_a_line_says_what_is_missing(copy, call, monkeypatch):
    monkeypatch.setattr(run_module, "draw_curves", DRAW_CURVES)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, text, _ = call("--resume", killed_after(copy, 6))
    assert code == 0 and text.endswith("conv1.png, curves.png needs matplotlib: pip install minidl[plot]\n")
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


def test_resuming_with_other_workers(whole, copy, call):
    assert call("--resume", killed_after(copy, 2), "-j", 3)[0] == 0
    assert_same_run(copy, whole)


@pytest.mark.parametrize("profile", ["original", "caffe"])
def test_resuming_in_other_profiles(profile, images, tmp_path, call):
    """In config 145's the colour noise ends within an epoch."""
    whole = trained(images, tmp_path / "whole", "--profile", profile)
    copy = shutil.copytree(whole, tmp_path / "copy")
    assert call("--resume", killed_after(copy, 4))[0] == 0
    assert_same_run(copy, whole)


def test_resuming_from_a_checkpoint_drops_what_came_later(whole, copy, call, monkeypatch):
    monkeypatch.chdir(copy)
    seen = []
    before_each_step(monkeypatch, lambda trainer: seen.append((trainer.step, len(rows(copy)))))
    assert call("--resume", "checkpoints/step-000003")[0] == 0
    assert seen[0] == (3, 2)  # the row of step 2, the score of step 3
    assert_same_run(copy, whole)


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
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000005"]
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


# ---------------------------------------------------------------------------------------------------- training nothing


def test_evaluate_scores_and_writes_nothing(copy, call):
    before = contents(copy)
    code, text, _ = call("--resume", copy, "--evaluate")
    assert code == 0 and contents(copy) == before
    score = rows(copy)[-1]
    assert text.splitlines()[-1] == (
        f"held out: loss {score['held_out_loss']:.4f}, top-1 {score['held_out_top1']:.2%}, top-5 100.00% of 4 images"
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
        (["nowhere"], "ImageFolder: root must be a folder that exists, got nowhere/train"),
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
        (lambda d: shutil.rmtree(d / "train"), "ImageFolder: root must be a folder that exists, got {d}/train"),
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
            "Couldn't find val or test in {d}; held-out images are needed beside train",
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

    (folder / "train" / "cat" / "0.png").unlink()
    path = folder / "train" / "cat" / "0.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)).save(path)
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
    assert f"DataLoader: skipped {path}: " in errors


def test_a_batch_without_a_readable_image_does_not_hold_up_the_epoch(images, tmp_path, call):
    folder = shutil.copytree(images, tmp_path / "images")
    truncated_jpeg(folder)
    settings = ["--width", 0.05, "-b", 1, "-j", 0, "-p", 1, "--epochs", 2, "--on-error", "skip"]
    code, _, _ = call(folder, *settings, "--out", tmp_path / "run")
    reports = [row for row in rows(tmp_path / "run") if "epoch" in row]
    assert code == 0 and [row["epoch"] for row in reports] == [0] * 9 + [1] * 9
    assert checkpoint(tmp_path / "run", 20).is_dir()


def test_another_architecture(copy, call):
    before = contents(copy)
    code, out, errors = call("--resume", copy, "--width", 0.06, "--profile", "caffe")
    text = "is a checkpoint of another architecture: profile 'paper' (here 'caffe'), width 0.05 (here 0.06)"
    assert (code, out, errors) == (2, "", f"train.py: error: {checkpoint(copy, 7)}: {text}\n")
    assert contents(copy) == before


def test_a_truncated_checkpoint(copy, call):
    path = checkpoint(copy, 7) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    before = contents(copy)
    code, out, errors = call("--resume", checkpoint(copy, 7))
    text = f"train.py: error: {path}: must have {len(content)} bytes, got {len(content) - 100}\n"
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
    assert code == 2 and f"{path}: altered: its SHA-256 must be" in errors


def test_a_run_goes_on_from_its_newest_whole_checkpoint(whole, copy, call):
    (checkpoint(copy, 7) / "state.json").unlink()
    code, text, _ = call("--resume", copy)
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
        f"the last checkpoint is {checkpoint(out, 2)}; a lower --lr than 0.01 may help\n"
    )
    (kept,) = (out / "checkpoints").iterdir()
    assert all(np.isfinite(values).all() for values in load_checkpoint(kept).model_state.values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of infinity minus infinity
def test_infinity_before_the_first_checkpoint(images, tmp_path, call, monkeypatch):
    before_each_step(monkeypatch, lambda trainer: trainer.model.fc8.bias.data.fill(np.inf))
    code, _, errors = call(images, *TINY, "--steps", STEPS, "--out", tmp_path / "run")
    assert code == 1 and "fc8.bias is not finite any more; no checkpoint was saved yet;" in errors


def test_what_is_not_finite_is_found_in_images_parameters_and_layers():
    net, images = AlexNet(5, width=0.05).eval(), np.ones((2, 3, 224, 224), np.float32)
    assert train.first_not_finite(net, images) == "every layer's output is finite, the scores are too far apart"
    broken = images.copy()
    broken[1, 2, 3, 4] = np.nan
    assert train.first_not_finite(net, broken) == "the images have 1 elements that are not finite"
    with np.errstate(all="ignore"):
        net.tower1.conv4.weight.data[...] = 3e38
        expected = "tower1.conv4 was the first layer to give something that is not finite"
        assert train.first_not_finite(net, images) == expected
    assert not any(module._forward_hooks for module in net.modules())


def test_clock():
    assert [train.clock(s) for s in (0, 59.4, 61, 3725)] == ["0:00", "0:59", "1:01", "1:02:05"]


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
    assert f"none of its {STEPS} checkpoints is whole, the newest is step-{STEPS:06d}" in err
    assert len(list((copy / "checkpoints").iterdir())) == STEPS


def test_a_broken_newest_checkpoint_is_named(copy, call):
    (checkpoint(copy, STEPS) / "state.json").unlink()
    _, out, _ = call("--resume", copy, "--evaluate")
    assert f"step-{STEPS:06d} is not whole; the newest whole checkpoint is {checkpoint(copy, STEPS - 1)}" in out


def test_resuming_on_other_classes(images, copy, tmp_path, call):
    other = shutil.copytree(images, tmp_path / "other")
    for split in ("train", "val"):
        os.rename(other / split / "cat", other / split / "cow")
    code, _, err = call(other, "--resume", copy)
    assert code == 2 and "was trained on the classes ['cat', 'dog'], got ['cow', 'dog']" in err


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


def test_tf32_is_off_by_default_and_said_where_it_is_used(call, images):
    code, out, _ = call(images, *TINY, "--dry-run")
    assert code == 0 and "; float32; NumPy" in out and minidl.get_float32_matmul_precision() == "highest"
    try:
        code, out, _ = call(images, *TINY, "--dry-run", "--tf32")
        assert code == 0 and "; float32; NumPy" in out  # nothing on a CPU multiplies in TF32
        assert minidl.get_float32_matmul_precision() == "high"
        on_gpu = train.complete(train.parser_().parse_args([str(images), "--tf32", "--device", "cuda:0"]), None)
        data = train.open_data(str(images))
        assert "; float32, products in TF32; NumPy" in train.header(on_gpu, AlexNet(10, width=0.05), data)
    finally:
        minidl.set_float32_matmul_precision("highest")
