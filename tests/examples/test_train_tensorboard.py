"""train.py --tensorboard: what is written is read back by TensorBoard's own reader; nothing is there twice after a resume."""

import struct
import sys
from collections import Counter

import board
import numpy as np
import pytest
import run as run_module
from run_checks import RUN, assert_same_run, killed_after, rows, trained

from minidl.checkpoint import load_checkpoint
from minidl.study.health.autopsy import COLUMNS

pytest.importorskip("tensorboardX")
loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
from tensorboard.plugins.hparams import plugin_data_pb2  # noqa: E402
from tensorboard.util import tensor_util  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_curves")
TIMED = "train/images_per_second"


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return trained(images, tmp_path_factory.mktemp("board") / "run", "--autopsy", 3, "--tensorboard")


def events(folder):
    """[(step, tag, value)] of all of a run's events, in the file's order."""
    found = []
    for event in loader.EventFileLoader(str(folder / "tensorboard" / board.FILE)).Load():
        found += [(event.step, value.tag, value) for value in event.summary.value]
    return found


def series(folder):
    """tag -> {step: number}, of scalars."""
    found = {}
    for step, tag, value in events(folder):
        if value.metadata.plugin_data.plugin_name == "scalars":
            assert step not in found.setdefault(tag, {})
            found[tag][step] = float(tensor_util.make_ndarray(value.tensor))
    return found


def counted(folder):
    """How often each tag has each step, without what is drawn."""
    return Counter((step, tag) for step, tag, _ in events(folder))


# ----------------------------------------------------------------------------------------------------------- what is there


def test_scalars_are_the_logs(whole):
    got = series(whole)
    for row in rows(whole):
        for name in ("lr", "loss", "top1", "skipped"):
            if name in row:
                assert got[f"train/{name}"][row["step"]] == np.float32(row[name])
        for name in ("loss", "top1", "top5"):
            if f"held_out_{name}" in row:
                assert got[f"held_out/{name}"][row["step"]] == np.float32(row[f"held_out_{name}"])
    assert list(got["train/loss"]) == [2, 4, 6, 7] and list(got["held_out/top1"]) == [3, 6, 7]
    assert set(got[TIMED]) == {2, 4, 6, 7} and min(got[TIMED].values()) > 0


def test_the_autopsys_numbers_are_those_of_its_file(whole):
    got, compared = series(whole), 0
    lines = [line.split(",") for line in (whole / "autopsy.csv").read_text().splitlines()[1:]]
    for line in lines:
        row = dict(zip(COLUMNS, line, strict=True))
        for name in board._AUTOPSY:
            number = got.get(f"autopsy/{name}/{row['layer']}", {}).get(int(row["step"]))
            assert (number is None) == (row[name] == "")
            if number is not None:
                np.testing.assert_allclose(number, float(row[name]), rtol=1e-5)  # the file has six digits
                compared += 1
    assert compared > 100


def test_histograms_are_of_the_weights_and_gradients(whole):
    weights = load_checkpoint(whole / "checkpoints" / "step-000004").model_state
    got = {(step, tag): value for step, tag, value in events(whole) if tag.startswith(("weights/", "gradients/"))}
    assert {step for step, tag in got if tag.startswith("weights/")} == set(range(8))
    assert {step for step, tag in got if tag.startswith("gradients/")} == set(range(1, 8))
    assert {tag for step, tag in got if step == 4} == {
        f"{kind}/{name}" for kind in ("weights", "gradients") for name in weights
    }
    for name, array in weights.items():
        low, high, counts = tensor_util.make_ndarray(got[4, f"weights/{name}"].tensor).T
        np.testing.assert_allclose([low[0], high[-1]], [array.min(), array.max()], rtol=1e-6)
        assert counts.sum() == array.size
        for a, b, count in zip(low, high, counts, strict=True):
            # an element on a limit may be counted on either side of it: limits went through other roundings
            inside = ((array > a + 1e-7) & (array < b - 1e-7)).sum(), ((array >= a - 1e-7) & (array <= b + 1e-7)).sum()
            assert inside[0] <= count <= inside[1]


def test_filters_are_the_picture_of_the_run(whole):
    from io import BytesIO

    from PIL import Image

    pictures = {step: tensor_util.make_ndarray(v.tensor) for step, tag, v in events(whole) if tag == "filters/conv1"}
    assert list(pictures) == list(range(8))
    weights = load_checkpoint(whole / "checkpoints" / "step-000006").model_state
    wanted = run_module.filter_picture([weights[f"tower{i}.conv1.weight"] for i in range(2)])
    width, height, png = pictures[6]
    assert (int(height), int(width)) == wanted.shape[:2]
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png)).convert("RGB")), wanted)


def hparams(folder):
    found = {tag: value.metadata.plugin_data for _, tag, value in events(folder) if tag.startswith("_hparams_/")}
    start, experiment = (
        plugin_data_pb2.HParamsPluginData.FromString(found[f"_hparams_/{name}"].content)
        for name in ("session_start_info", "experiment")
    )
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.session_start_info.hparams.items()}
    return values, [info.name.tag for info in experiment.experiment.metric_infos]


def test_hyper_parameters(whole):
    values, metrics = hparams(whole)
    assert (values["lr"], values["width"], values["batch_size"], values["profile"]) == (0.01, 0.05, 4, "paper")
    assert (values["literal_init"], values["autopsy"], "data" in values) == (False, 3, False)
    assert metrics == ["held_out/top1", "held_out/loss"] and set(metrics) <= set(series(whole))


def test_nothing_that_is_computed_changes(whole, images, tmp_path):
    other = trained(images, tmp_path / "without", "--autopsy", 3)
    assert_same_run(whole, other)
    assert not (other / "tensorboard").exists()


# ----------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("step", [2, 6])
def test_a_resumed_run_has_everything_once(call, whole, copy, step):
    killed_after(copy, step)
    assert call("--resume", copy)[0] == 0
    assert counted(copy) == counted(whole) and set(counted(whole).values()) == {1}
    got, wanted = series(copy), series(whole)
    assert {tag: got[tag] for tag in got if tag != TIMED} == {tag: wanted[tag] for tag in wanted if tag != TIMED}


def test_a_finished_run_that_is_resumed_is_scored_once(call, whole, copy):
    assert call("--resume", copy)[0] == 0
    assert counted(copy) == counted(whole)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(call, whole, copy):
    killed_after(copy, 0)
    assert call("--resume", copy)[0] == 0
    assert counted(copy) == counted(whole)


def test_a_record_that_was_cut_short_goes(call, whole, copy):
    path = killed_after(copy, 4) / "tensorboard" / board.FILE
    path.write_bytes(path.read_bytes()[:-3])
    assert call("--resume", copy)[0] == 0
    assert counted(copy) == counted(whole)


def test_a_resumed_run_with_another_rate_says_so(call, copy):
    killed_after(copy, 4)
    assert call("--resume", copy, "--lr", 0.002)[0] == 0
    assert hparams(copy)[0]["lr"] == 0.002


def test_it_can_begin_with_a_resume_and_elsewhere(call, images, tmp_path):
    run = trained(images, tmp_path / "run")
    killed_after(run, 4)
    assert call("--resume", run, "--tensorboard", tmp_path / "board")[0] == 0
    moved = [(step, tag) for step, tag, _ in events_in(tmp_path / "board") if tag == "train/loss"]
    assert moved == [(6, "train/loss"), (7, "train/loss")]
    killed_after(run, 6)
    assert call("--resume", run)[0] == 0  # it is part of what the run is
    moved = [(step, tag) for step, tag, _ in events_in(tmp_path / "board") if tag == "train/loss"]
    assert moved == [(6, "train/loss"), (7, "train/loss")]


def events_in(folder):
    for event in loader.EventFileLoader(str(folder / board.FILE)).Load():
        yield from ((event.step, value.tag, value) for value in event.summary.value)


# ------------------------------------------------------------------------------------------------------------------ errors


def test_without_the_package_one_line_names_the_extra_and_nothing_begins(call, images, tmp_path, monkeypatch, copy):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    wanted = 'train.py: error: --tensorboard needs tensorboardX: pip install "minidl[tensorboard]"\n'
    assert call(images, *RUN, "--out", tmp_path / "run", "--tensorboard")[::2] == (2, wanted)
    assert not (tmp_path / "run").exists()
    assert call("--resume", copy)[::2] == (2, wanted)


def test_another_runs_events_are_not_overwritten(call, whole, images, tmp_path):
    code, _, errors = call(images, *RUN, "--out", tmp_path / "run", "--tensorboard", whole / "tensorboard")
    assert code == 2 and "has the events of another run" in errors and not (tmp_path / "run").exists()


def test_a_folder_among_the_classes_is_refused(call, images, tmp_path):
    code, _, errors = call(images, *RUN, "--out", tmp_path / "run", "--tensorboard", images / "train" / "board")
    assert code == 2 and "must lie outside" in errors and "another --tensorboard" in errors


@pytest.mark.parametrize("content", [b"no events at all, by no means", struct.pack("<QI", 5, 0) + bytes(30)])
def test_a_file_that_is_something_else_is_not_overwritten(call, copy, content):
    path = copy / "tensorboard" / board.FILE
    path.write_bytes(content)
    code, _, errors = call("--resume", copy)
    assert code == 2 and "must be a file of events that train.py wrote" in errors and errors.count("\n") == 1
    assert path.read_bytes() == content


def test_numbers_that_are_not_finite_are_left_out_of_a_histogram(tmp_path):
    made = board.Board(tmp_path, 0, {})
    part = made._histogram("x", np.array([1.0, np.nan, 2.0, np.inf], np.float32))
    assert (part.value[0].histo.num, part.value[0].histo.max) == (2, 2.0)
    assert made._histogram("x", np.array([np.nan])) is None
