"""What tests of runs share: a tiny run, and how two runs are compared."""

import json
import shutil

import numpy as np
import pytest
import run
import train

from minidl.checkpoint import load_checkpoint

TINY = ["--width", "0.05", "-b", "4", "-j", "0", "-p", "2"]  # 10 images: epochs of 3 steps, the last with 2 images
STEPS = 7
RUN = [*TINY, "--steps", STEPS, "--save-every", 1, "--keep", 99]
TIMINGS = ("images_per_second", "seconds")


def trained(images, out, *more):
    """A run of STEPS steps that keeps every checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "draw_curves", lambda folder: None)
        assert train.main([str(a) for a in (images, *RUN, "--out", out, *more)]) == 0
    return out


def checkpoint(folder, step):
    return folder / "checkpoints" / f"step-{step:06d}"


def killed_after(folder, step):
    """What a kill leaves: no checkpoint of a later step. The logs may have later lines."""
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(checkpoint(folder, later))
    return folder


def rows(folder):
    """The log without timings."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def assert_same_run(folder, other, step=STEPS):
    """Weights, momentum, random numbers, the best checkpoint and the log, bit for bit."""
    a, b = load_checkpoint(checkpoint(folder, step)), load_checkpoint(checkpoint(other, step))
    assert a.model_state.keys() == b.model_state.keys()
    for name, values in a.model_state.items():
        np.testing.assert_array_equal(values, b.model_state[name], name)
    assert len(a.optimizer_state["state"]) == len(a.model_state)
    for i, state in a.optimizer_state["state"].items():
        np.testing.assert_array_equal(state["momentum_buffer"], b.optimizer_state["state"][i]["momentum_buffer"])
    assert a.optimizer_state["param_groups"] == b.optimizer_state["param_groups"]
    for name in ("step", "random", "meter", "left_out", "best", "architecture", "classes"):
        assert a.state[name] == b.state[name]
    assert (folder / "best.json").read_text() == (other / "best.json").read_text()
    best = json.loads((folder / "best.json").read_text())["checkpoint"]
    assert load_checkpoint(folder / best).state["best"] == load_checkpoint(other / best).state["best"]
    assert rows(folder) == rows(other)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
