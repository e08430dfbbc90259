"""train.py --autopsy: its file and its words, that it changes nothing and survives a resume; and AlexNet's own illness."""

import csv
import shutil

import data as alexnet_data
import numpy as np
import pytest
import train
from model import AlexNet
from run_checks import STEPS, TINY, assert_same_run, checkpoint, killed_after, rows, trained

import minidl
from minidl.checkpoint import load_checkpoint
from minidl.study.health.autopsy import COLUMNS, Autopsy

pytestmark = pytest.mark.usefixtures("no_curves")

# ten times the rate that suits so small a net, so that there is something to say
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "relu6", "fc7", "relu7"]


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that was never stopped, every second step of it looked at."""
    return trained(images, tmp_path_factory.mktemp("autopsy") / "run", "--autopsy", 2)


def table(folder):
    with (folder / "autopsy.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------------------------------------------------------- the file


def test_the_file_has_a_line_for_each_layer_of_each_tower(whole):
    lines = table(whole)
    assert {tuple(line) for line in lines} == {COLUMNS}
    names = [f"tower{i}.{layer}" for layer in LAYERS for i in (0, 1)]
    for step in (1, 2, 4, 6):
        at = [line for line in lines if line["step"] == str(step)]
        assert sorted(line["layer"] for line in at) == sorted([*names, "fc8"]) and at[-1]["layer"] == "fc8"
        assert len({line["loss"] for line in at}) == 1
    assert {line["step"] for line in lines} == {"1", "2", "4", "6"}
    for line in lines:
        weighted, relu = "relu" not in line["layer"], "conv" in line["layer"] or "relu" in line["layer"]
        assert (line["op"], line["call"]) == (
            "conv2d_relu" if "conv" in line["layer"] else "linear" if weighted else "relu",
            "1",
        )
        for name in ("mean_abs_activation", "std_over_batch", "mean_abs_gradient"):
            assert float(line[name]) > 0
        for name in ("mean_abs_weight_gradient", "update_ratio"):
            assert float(line[name]) > 0 if weighted else line[name] == ""
        for name in ("zeros", "dead", "always_on"):
            assert 0 <= float(line[name]) <= 1 if relu else line[name] == ""
        assert line["saturated"] == ""


def test_the_update_ratio_is_that_of_the_checkpoints(whole):
    before, after = (load_checkpoint(checkpoint(whole, step)).model_state for step in (3, 4))
    for line in table(whole):
        if line["step"] == "4" and line["update_ratio"]:
            old, new = (state[f"{line['layer']}.weight"].astype(np.float64) for state in (before, after))
            assert float(line["update_ratio"]) == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-3)


def test_what_is_wrong_is_said_and_logged(images, tmp_path, call):
    """A rate that no net bears: the updates are too large."""
    code, out, _ = call(images, *TINY, "--steps", 1, "--lr", 3, "--autopsy", "--out", tmp_path / "run")
    assert code == 0 and "step 1  updates too large: " in out and "\n    rule: ||change|| / ||weights|| above 0.1;" in out
    (said,) = [row for row in rows(tmp_path / "run") if row.get("illness") == "updates too large"]
    assert list(said) == ["step", "illness", "layers"] and said["step"] == 1
    ratios = {line["layer"]: line["update_ratio"] for line in table(tmp_path / "run")}
    (report,) = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert {line["loss"] for line in table(tmp_path / "run")} == {f"{report['loss']:.6g}"}
    assert said["layers"] and all(f"{float(ratios[name]):.3g}" == ratio for name, ratio in said["layers"].items())
    assert f"{tmp_path / 'run'}: log.jsonl, autopsy.csv, checkpoints/" in out and "no illness" not in out


def test_a_healthy_run_says_so(images, tmp_path, call, monkeypatch):
    monkeypatch.setattr("minidl.study.health.autopsy.Autopsy._new_only", lambda self, diagnoses: [])
    code, out, _ = call(images, *TINY, "--steps", 1, "--autopsy", "--out", tmp_path / "run")
    assert code == 0 and "\nautopsy: no illness was found in the steps that were looked at\nheld out: " in out


# ------------------------------------------------------------------------------------------------------ nothing else changes


def without_diagnoses(folder, target):
    """A copy of the run whose log has no illness."""
    copy = shutil.copytree(folder, target)
    lines = (copy / "log.jsonl").read_text().splitlines()
    (copy / "log.jsonl").write_text("".join(f"{line}\n" for line in lines if '"illness"' not in line))
    return copy


def test_the_run_is_the_same_bits_with_an_autopsy_and_without(images, whole, tmp_path):
    plain = trained(images, tmp_path / "plain")
    assert not (plain / "autopsy.csv").exists()
    assert any("illness" in row for row in rows(whole))
    assert_same_run(without_diagnoses(whole, tmp_path / "copy"), plain)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_has_the_same_file_and_log(whole, copy, call, step):
    code, _, _ = call("--resume", killed_after(copy, step))
    assert code == 0
    assert_same_run(copy, whole)
    assert (copy / "autopsy.csv").read_bytes() == (whole / "autopsy.csv").read_bytes()
    last, other = (load_checkpoint(checkpoint(folder, STEPS)).state["autopsy"] for folder in (copy, whole))
    assert last == other and last["step"] == STEPS and last["classes"] == 2


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_its_file_again(whole, copy, call):
    shutil.rmtree(copy / "checkpoints")
    assert call("--resume", copy)[0] == 0
    assert (copy / "autopsy.csv").read_bytes() == (whole / "autopsy.csv").read_bytes()


def test_an_autopsy_may_begin_later(images, whole, tmp_path, call):
    """Its checkpoints know of none."""
    plain = killed_after(trained(images, tmp_path / "plain"), 3)
    assert call("--resume", plain, "--autopsy", 2)[0] == 0
    late = {"4", "6"}
    assert table(plain) == [line for line in table(whole) if line["step"] in late]


def test_a_step_that_is_not_finite_leaves_no_line(whole, copy, call, monkeypatch):
    step = train.Trainer.train_step

    def failing(self, images, labels):
        if self.step == 5:
            self.model.tower1.conv4.weight.data[0, 0, 0, 0] = np.nan
        step(self, images, labels)

    monkeypatch.setattr(train.Trainer, "train_step", failing)
    code, _, errors = call("--resume", killed_after(copy, 4))
    assert code == 1 and "step 6: " in errors and "tower1.conv4.weight is not finite" in errors
    assert table(copy) == [line for line in table(whole) if line["step"] != "6"]


# ------------------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize("every", ["0", "-3", "2.5", "x", ""])
def test_every_must_be_a_whole_number_of_at_least_1(images, tmp_path, call, every):
    code, _, errors = call(images, *TINY, f"--autopsy={every}", "--out", tmp_path / "run")
    assert code == 2 and f"argument --autopsy: must be an integer of at least 1, got {every!r}" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given, every", [([], None), (["--autopsy"], 10), (["--autopsy", "7"], 7)])
def test_every_is_10_unless_given(given, every):
    args = train.complete(train.parser_().parse_args(["DIR", *given]), None)
    assert args.autopsy == every and args.data == "DIR"
    assert train.complete(train.parser_().parse_args([]), vars(args)).autopsy == every  # resumed, it goes on


# -------------------------------------------------------------------------------------------------------- AlexNet's own illness


@pytest.fixture
def few_patterns(monkeypatch):
    for name, value in (("PATTERNS_TRAIN", 320), ("PATTERNS_HELD_OUT", 2), ("STATISTICS_IMAGES", 100)):
        monkeypatch.setattr(alexnet_data, name, value)


def test_the_default_run_begins_without_a_diagnosis(tmp_path, call, few_patterns):
    code, out, _ = call("--steps", 3, "--autopsy", 1, "--out", tmp_path / "run")
    assert code == 0 and "step 3/3" in out and "rule:" not in out
    assert {line["step"] for line in table(tmp_path / "run")} == {"1", "2", "3"}


@pytest.mark.slow
def test_the_whole_default_run_has_no_diagnosis(tmp_path, call):
    code, out, _ = call("--autopsy", "--out", tmp_path / "run")
    assert code == 0 and "step 500/500" in out and "rule:" not in out


def test_sigma_01_and_bias_1_hold_every_unit_on(tmp_path, call, few_patterns):
    """The paper's printed initialisation: conv4 and conv5 are affine, and what conv5 gives hardly depends on the image."""
    code, _, _ = call("--steps", 1, "--literal-init", "--autopsy", "--out", tmp_path / "run")
    said = {row["illness"]: set(row["layers"]) for row in rows(tmp_path / "run") if "illness" in row}
    convolutions = {f"tower{i}.conv{n}" for i in (0, 1) for n in (4, 5)}
    assert code == 0 and said.keys() == {"every unit on", "examples look alike"}
    assert said["every unit on"] == convolutions
    assert {name.partition(".")[2] for name in said["examples look alike"]} == {"conv5", "fc6", "relu6"}


def initial_numbers(**settings):
    """The rows of a first forward without dropout on four images whose spectrum is 1 / frequency, as that of photographs is."""
    minidl.manual_seed(0)
    model = AlexNet(**settings).eval()
    autopsy = Autopsy(model)
    with autopsy:
        model(_coloured_noise())
    return {row.layer: row for row in autopsy.rows}


def _coloured_noise():
    """Four images (4, 3, 224, 224) of mean 0 and standard deviation 60."""
    rng = np.random.default_rng(0)
    frequencies = np.hypot(np.fft.fftfreq(224)[:, None], np.fft.rfftfreq(224))
    frequencies[0, 0] = 1 / 224
    waves = rng.standard_normal((4, 3, 224, 113)) + 1j * rng.standard_normal((4, 3, 224, 113))
    images = np.fft.irfft2(waves / frequencies)
    return (60 * (images - images.mean()) / images.std()).astype(np.float32)


@pytest.mark.parametrize("width", [0.25, pytest.param(1, marks=pytest.mark.slow)])
def test_with_sigma_01_the_scores_differ_fifteen_times_less_between_images(width):
    """Caffe's readme reports a flat loss from bias 1; minidl's default has sigma .03 in conv3-5, as the 2012 program."""
    ours, literal = initial_numbers(width=width), initial_numbers(width=width, literal_init=True)
    for name in ("conv4", "conv5"):
        on = [1 - numbers[f"tower{i}.{name}"].zeros for numbers in (ours, literal) for i in (0, 1)]
        assert min(on[:2]) > 0.55 and max(on[:2]) < 0.85 and min(on[2:]) > 0.98
    assert ours["fc8"].std_over_batch == pytest.approx(0.035, rel=0.3)
    assert ours["fc8"].std_over_batch / literal["fc8"].std_over_batch == pytest.approx(15, rel=0.3)
