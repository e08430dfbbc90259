"""train.py and evaluate.py with layer and parameter files."""

import json

import data
import evaluate
import pytest
import train
from files import copy_files, files_in, image_profile
from run_checks import STEPS, assert_same_run, checkpoint, killed_after

from minidl.checkpoint import load_checkpoint
from minidl.study.__main__ import main as study

pytestmark = pytest.mark.usefixtures("no_curves")

LAYERS = """
[data]
type=data
dataIdx=0
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
channels=3
filters=4
filterSize=5
stride=3
initW=0.001
neuron=relu
[norm]
type=rnorm
inputs=conv1
channels=4
size=3
[hs]
type=hs
inputs=norm
keep=0.5
[fc2]
type=fc
inputs=hs
outputs=2
initW=0.01
[probs]
type=softmax
inputs=fc2
[logprob]
type=cost.logreg
inputs=labels,probs
"""
PARAMS = """
[conv1]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
[norm]
scale=0.001
pow=0.75
[hs]
enable=1
[fc2]
epsW=0.001
epsB=0.002
momW=0.9
momB=0.9
wc=0.01
[logprob]
coeff=1
"""
SMALL = ["--image-size", "24", "-b", "4", "-j", "0", "-p", "2", "--save-every", "1", "--keep", "99"]  # epochs of 3 steps


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A folder with a net for two classes, its parameters, and other ones for later."""
    folder = tmp_path_factory.mktemp("cfg")
    (folder / "layers.cfg").write_text(LAYERS)
    (folder / "params.cfg").write_text(PARAMS)
    (folder / "later.cfg").write_text(PARAMS.replace("epsW=0.001", "epsW=0.0001").replace("scale=0.001", "scale=1"))
    return folder


def flags(cfg, *later):
    return ["--layers", cfg / "layers.cfg", "--params", cfg / "params.cfg", *later]


def trained(images, cfg, out, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("run.draw_curves", lambda folder: None)
        arguments = [images, *SMALL, "--steps", STEPS, "--out", out, *more]
        assert train.main([str(a) for a in arguments]) == 0
    return out


@pytest.fixture(scope="module")
def whole(images, cfg, tmp_path_factory):
    """A run whose third epoch, the steps 7 and on, has other parameters."""
    return trained(images, cfg, tmp_path_factory.mktemp("files") / "run", *flags(cfg, f"2:{cfg / 'later.cfg'}"))


def rates(folder, step):
    groups = load_checkpoint(checkpoint(folder, step)).optimizer_state["param_groups"]
    return [(group["lr"], group["weight_decay"]) for group in groups]


def test_a_run_keeps_its_files_and_takes_the_later_one_from_its_epoch_on(whole, cfg):
    assert {path.name for path in (whole / "net").iterdir()} == {"layers.cfg", "params.cfg", "params-2.cfg"}
    assert (whole / "net" / "layers.cfg").read_text() == LAYERS
    assert data.load_statistics(whole / "statistics.npz").mean.shape == (32, 32, 3)
    assert rates(whole, 6) == [(0.001, 0), (0.002, 0), (0.001, 0.01), (0.002, 0)]
    assert rates(whole, 7) == [(0.0001, 0), (0.002, 0), (0.0001, 0.01), (0.002, 0)]
    state = load_checkpoint(checkpoint(whole, 7)).model_state
    assert {name: values.shape for name, values in state.items()} == {
        "conv1.weight": (4, 3, 5, 5),
        "conv1.bias": (4,),
        "fc2.weight": (2, 4 * 8 * 8),
        "fc2.bias": (2,),
    }
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in log if "lr" in row] == [0.001, 0.001, 0.001, 0.0001]


@pytest.mark.parametrize("step", [0, 2, 6])
def test_resumed_it_is_the_run_that_never_stopped(whole, copy, call, step):
    """Also where its files are no longer what they were."""
    killed_after(copy, step)
    arguments = json.loads((copy / "arguments.json").read_text())
    arguments["arguments"] |= {"layers": "gone.cfg", "params": ["gone.cfg"]}
    (copy / "arguments.json").write_text(json.dumps(arguments))
    code, _, errors = call("--resume", copy)
    assert code == 0, errors
    assert_same_run(copy, whole)


def test_goes_on_with_another_parameter_file(copy, call, cfg):
    """As was done in 2012. What was saved before keeps its own."""
    killed_after(copy, 2)
    code, _, errors = call("--resume", copy, "--params", cfg / "later.cfg")
    assert code == 0, errors
    assert rates(copy, 2)[0][0] == 0.001 and rates(copy, 3)[0][0] == 0.0001
    assert {path.name for path in (copy / "net-1").iterdir()} == {"layers.cfg", "params.cfg"}
    arguments = json.loads((copy / "arguments.json").read_text())["arguments"]
    assert arguments["files"] == "net-1" and arguments["params"] == [str(cfg / "later.cfg")]
    assert load_checkpoint(checkpoint(copy, 2)).state["arguments"]["files"] == "net"


def test_evaluate_scores_with_the_parameters_of_the_checkpoints_epoch(whole, call_main, call):
    """The norm's scale changes after step 6; train.py's own scores are of the same checkpoints."""
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    for row in (row for row in log if "held_out_loss" in row):
        path = checkpoint(whole, row["step"])
        said = f"loss {row['held_out_loss']:.4f}, top-1 {row['held_out_top1']:.2%} of 4 images"
        code, out, errors = call_main(evaluate.main, path, "--views", 1)
        assert (code, errors) == (0, "") and out == f"{path}, 1 view:\n{said}\n"
        assert f"held out: {said}" in call("--resume", path, "--evaluate")[1]
    assert call_main(evaluate.main, whole, "--views", 10)[0] == 0


def test_what_is_said_first(images, cfg, call):
    code, out, errors = call(images, *SMALL, *flags(cfg), "--dry-run")
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{cfg / 'layers.cfg'} with {cfg / 'params.cfg'}, profile original, images 24 x 24, 818 parameters"
    assert lines[3] == "batch 4, rates, momenta and decays of the parameter file, seed 0"
    assert "one step: loss 0.6" in lines[4]


def test_gradients_are_checked(images, cfg, call):
    code, out, _ = call(images, *SMALL, *flags(cfg), "--check-grads")
    assert code == 0 and out.endswith("every backward agrees with its forward\n") and "\nfc2 " in out


def test_a_net_whose_first_layer_has_no_filters_has_no_picture_of_them(images, cfg, tmp_path, call):
    (tmp_path / "layers.cfg").write_text(LAYERS.replace("type=conv", "type=local"))
    arguments = [*SMALL, "--layers", tmp_path / "layers.cfg", "--params", cfg / "params.cfg", "--out", tmp_path / "run"]
    code, out, errors = call(images, *arguments, "--steps", 1)
    assert code == 0, errors
    assert not (tmp_path / "run" / "conv1.png").exists() and "conv1.png" not in out


def test_the_explorer_shows_the_net(whole, tmp_path, capsys):
    assert study(["explore", "--run", str(whole), "--input", "1x3x24x24", "--out", str(tmp_path / "page")]) in (None, 0)
    assert (tmp_path / "page" / "index.html").is_file()


# ---------------------------------------------------------------------------------------------------------------- the images


def test_images_of_small_nets():
    """Crops of up to 32 pixels come from images of 32, each for itself, without colour noise; larger ones as AlexNet's."""
    small, large = image_profile("original", 24), image_profile("original", 224)
    assert (small.image_size, small.stored_size, small.crop_shared_by, small.color_noise) == (24, 32, 1, 0)
    assert (large.image_size, large.stored_size, large.crop_shared_by, large.color_noise) == (224, 256, 32, 0.1)


@pytest.mark.parametrize("size, drawn", [(32, 1), (24, 40)])
def test_a_net_that_takes_the_whole_image_gets_it_as_it_is(size, drawn):
    """Of one image in many epochs: once, or as many crops and mirrors as 9 x 9 x 2 of them make likely in 50 draws."""
    train_set, _ = data.open_data(None, size=32)
    assert train_set[0][0].shape == (32, 32, 3)
    profile = image_profile("paper", size)
    statistics = data.measure([train_set[i] for i in range(8)], "stop", 32)
    assert statistics.mean.shape == (32, 32, 3)
    loader = data.train_loader(_First(train_set), profile, statistics, batch_size=1, workers=0, seed=0, on_error="stop")
    seen = {next(iter(loader.epoch_batches(epoch)))[0].tobytes() for epoch in range(50)}
    assert len(seen) >= drawn and (drawn > 1 or len(seen) == 1)


class _First:
    """The first image of a data set alone."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.dataset[0]


# -------------------------------------------------------------------------------------------------------------------- errors


def test_flags_that_do_not_go_together(cfg, call, copy):
    files = flags(cfg)
    for arguments, said in (
        (["--params", cfg / "params.cfg"], "--params needs --layers: which net?"),
        (["--image-size", 24], "--image-size needs --layers: which net?"),
        (["--layers", cfg / "layers.cfg"], "--layers needs --params: which rates?"),
        ([*files, "--lr", 1], "--lr can't be given with --layers: the files say that"),
        ([*files, "--lr-drops", ".5"], "--lr-drops can't be given with --layers: the files say that"),
        ([*files, "--width", 1], "--width can't be given with --layers: the files say that"),
        ([*files, "--image-size", 300], "--image-size must be at most 256, the images' side before they are cropped, got 300"),
        (
            ["--resume", copy, *files[:2]],
            "--layers can't be given with --resume: a run keeps its layers; --params may be other ones",
        ),
        (["--resume", copy, "--wd", 1], "--wd can't be given with --layers: the files say that"),
        (["--resume", copy, "-e", *files[2:]], "--params can't be given with --evaluate"),
    ):
        code, _, errors = call(*arguments)
        assert code == 2 and f"train.py: error: {said}" in errors, arguments


def test_errors_of_files_are_one_line(images, cfg, tmp_path, call):
    broken = tmp_path / "broken.cfg"
    broken.write_text(LAYERS.replace("filters=4", "filters=four"))
    code, _, errors = call(images, "--layers", broken, "--params", cfg / "params.cfg", "--out", tmp_path / "run")
    assert code == 2 and errors == f"train.py: error: {broken} [conv1] filters: must be an integer of at least 1, got four\n"


def test_names_that_the_program_needs(images, cfg, tmp_path, call):
    (tmp_path / "layers.cfg").write_text(LAYERS.replace("[hs]", "[profile]").replace("inputs=hs", "inputs=profile"))
    (tmp_path / "params.cfg").write_text(PARAMS.replace("[hs]", "[profile]"))
    files = ["--layers", tmp_path / "layers.cfg", "--params", tmp_path / "params.cfg"]
    code, _, errors = call(images, *SMALL, *files, "--dry-run")
    said = f"{tmp_path / 'layers.cfg'} [profile]: a layer needs a name that no attribute of FileNet has"
    assert code == 2 and errors == f"train.py: error: {said}\n"


def test_as_many_scores_as_classes(images, cfg, tmp_path, call):
    (tmp_path / "layers.cfg").write_text(LAYERS.replace("outputs=2", "outputs=3"))
    code, _, errors = call(images, *SMALL, "--layers", tmp_path / "layers.cfg", "--params", cfg / "params.cfg", "--dry-run")
    assert code == 2
    assert (
        errors
        == f"train.py: error: {tmp_path / 'layers.cfg'} [fc2]: must give a score for each of the data's 2 classes, got 3\n"
    )


def test_other_parameters_that_do_not_fit_leave_the_run_alone(copy, cfg, tmp_path, call):
    (tmp_path / "other.cfg").write_text(PARAMS.replace("epsW=0.001\n", "", 1))
    code, _, errors = call("--resume", copy, "--params", tmp_path / "other.cfg")
    assert code == 2 and errors == f"train.py: error: {tmp_path / 'other.cfg'} [conv1] epsW: is missing\n"
    assert not (copy / "net-1").exists()


def test_copies_are_numbered(cfg, tmp_path):
    files = [str(cfg / "params.cfg"), f"10:{cfg / 'later.cfg'}", f"9:{cfg / 'params.cfg'}"]
    names = [copy_files(tmp_path, cfg / "layers.cfg", files[:1]), copy_files(tmp_path, cfg / "layers.cfg", files)]
    assert names == ["net", "net-1"]
    folder = tmp_path / "net-1"
    assert files_in(folder) == (
        folder / "layers.cfg",
        [f"{folder}/params.cfg", f"9:{folder}/params-9.cfg", f"10:{folder}/params-10.cfg"],
    )
