"""Exported models in onnxruntime: outputs equal minidl's, for batches of other sizes too, and what can't be said is refused.

1e-5 beside outputs of the size of 1: float32 holds 6e-8, and sums of up to 9216 products are added in another order.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layer_cases import layer_cases

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

import onnx  # noqa: E402

import minidl.onnx  # noqa: E402

sys.path.append(str(Path(__file__).parents[2] / "examples" / "alexnet"))
from model import PROFILES, VARIANTS, AlexNet  # noqa: E402

LOSSES = {"binary_cross_entropy_with_logits", "cross_entropy", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss"}
OTHER_REFUSED = {  # case -> why
    "adaptive_avg_pool2d": "parts of one size alone",
    "batch_norm": "the batch's own numbers",
    "batch_norm no bias, the mean of all batches": "the batch's own numbers",
    "batch_norm alone": "the batch's own numbers",
    "dropout": "it drops units",
    "dropout2d": "it drops units",
    "adaptive_avg_pool2d one side only": "parts of one size alone",
    "adaptive_avg_pool2d to more pixels": "parts of one size alone",
    "dropout 2012": "it drops units",
    "max_pool2d indices": "made by no op",
    "relu inplace": "relu_ changed in place",
    "softplus cut": "threshold must be at least 20",
}


class Called(nn.Module):
    """A function as a module, with parameters."""

    def __init__(self, function, *parameters):
        super().__init__()
        self.function = function
        self.held = nn.ParameterList([nn.Parameter(p) for p in parameters])

    def forward(self, *inputs):
        return self.function(*inputs, *self.held)


def run(path, *inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {put.name: x for put, x in zip(session.get_inputs(), inputs, strict=True)})


def close(theirs, ours, within=1e-5):
    ours = ours.detach().numpy()
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    np.testing.assert_allclose(theirs, ours, rtol=within, atol=within)


def check(model, path, *arrays, batches=(1, 2, 5)):
    """Export with a batch of 3, and compare for others."""
    x = [np.concatenate([a] * 3)[:3] for a in arrays]
    minidl.onnx.export(model, tuple(map(Tensor, x)), path)
    model.eval()
    for n in batches:
        given = [np.concatenate([a] * n)[:n] * np.float32(0.9) for a in arrays]
        close(run(path, *given)[0], model(*map(Tensor, given)))


def floats(*shape):
    return np.random.default_rng(3).uniform(-2, 2, shape).astype(np.float32)


@pytest.mark.parametrize("name", layer_cases())
def test_every_layer(name, tmp_path):
    case = layer_cases()[name]
    x, *parameters = (a.astype(np.float32) for a in case.arrays)
    case = replace(case, constants=tuple(c.astype(np.float32) if c.dtype.kind == "f" else c for c in case.constants))
    model = Called(case.ours, *parameters)
    path = tmp_path / "layer.onnx"
    op = name.split()[0]
    why = "has no ONNX form" if op in LOSSES | {"local2d"} else OTHER_REFUSED.get(name)
    if why is not None:
        with pytest.raises(minidl.onnx.OnnxError, match=why):
            minidl.onnx.export(model, x, path, dynamic_batch=False)
        assert not path.exists()
        return
    minidl.onnx.export(model, x, path, dynamic_batch=False)
    close(run(path, x)[0], model(Tensor(x)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_alexnet_in_every_profile_and_variant(profile, variant, tmp_path):
    size = PROFILES[profile].image_size
    x = np.random.default_rng(0).normal(0, 60, (1, 3, size, size)).astype(np.float32)
    check(AlexNet(10, profile=profile, variant=variant, width=0.05), tmp_path / "alexnet.onnx", x, batches=(1, 2))


MOVEMENTS = {
    "flatten": lambda x: F.flatten(x, 1),
    "reshape of the batch": lambda x: x.reshape(x.shape[0], 2, -1),
    "reshape with -1": lambda x: x.reshape(-1, 6),
    "two axes of the batch's size": lambda x: x.reshape(1, x.shape[0], 24) + x.reshape(x.shape[0], 1, 24),
    "permute": lambda x: x.permute(1, 0, 3, 2),
    "expand": lambda x: x[:, :1].expand(x.shape[0], 5, 3, 4),
    "expand to the batch": lambda x: x.sum(0).expand(x.shape[0], 2, 3, 4),
    "repeat": lambda x: x.repeat(2, 1, 1, 1, 3),
    "cat": lambda x: F.cat([x, x * 2], 1),
    "slices": lambda x: x[:, -1:, ::2, 1:-1],
    "integers and new axes": lambda x: x[:, None, -1, ..., 2],
    "an array of positions": lambda x: x[:, :, [2, 0]],
    "half of the batch": lambda x: x[::2],
    "pad": lambda x: F.pad(x, (1, 0, -1, 2), value=1.5),
    "flip": lambda x: x.flip(2, 3),
    "squeeze and unsqueeze": lambda x: x[:, :1].squeeze(1).unsqueeze(-1),
    "reductions": lambda x: x.sum((2, 3)) + x.mean((1, 2))[:, :2] * x.amax(3)[:, :, 0] - x.min(2).values[..., 0],
    "all elements": lambda x: x[:1].sum() + x[:1].norm(),
    "variance": lambda x: x.var((1, 2, 3), keepdim=True) + x.std(3, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "numbers": lambda x: (1 / (x * x + 0.5) - 3) ** 2 - (-x).exp() + x.abs().sqrt().log() + x.sin() * x.cos(),
    "bounds": lambda x: x.clamp(-1, 0.5) + x.clamp(min=0.25) + minidl.maximum(x, 1.0) - minidl.minimum(x, x * x),
    "softmax": lambda x: x.softmax(1) + x.log_softmax(3),
    "whole numbers": lambda x: (x * 3).long().sum(1) / 4,
    "products": lambda x: x @ x.mT + (x @ x[0, 0, 0])[..., None],
    "a line of features": lambda x: F.linear(x, Tensor(floats(5, 4)), Tensor(floats(5))),
    "embedding": lambda x: F.embedding(x.abs().long(), Tensor(floats(3, 2))),
    "even window of norm": lambda x: F.local_response_norm(x, 4, 0.5, 0.6, 2.0),
    "norm of rows": lambda x: F.local_response_norm(x[..., 0], 3, 0.5, 0.6, 2.0),
    "batch norm": lambda x: F.batch_norm(x, Tensor(floats(2)), Tensor(abs(floats(2)))),
    "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "average of parts": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "pool that hangs over": lambda x: F.max_pool2d(x, 2, 3, ceil_mode=True),
    "dilated pool that hangs over": lambda x: F.max_pool2d(x, 2, (2, 5), 1, (2, 3), ceil_mode=True),
    "averages that hang over": lambda x: F.avg_pool2d(x, (3, 2), 2, 1, True),
    "averages without padding": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "averages by another number": lambda x: F.avg_pool2d(x, 2, 1, divisor_override=3),
    "2012's dropout": lambda x: F.dropout(x, 0.3, False, scale_at="test"),
    "detach": lambda x: (x * 2).detach() + x,
    "a copy on another device": lambda x: (x.to("cpu:1") + 1).to("cpu:0"),
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_of_any_batch(name, tmp_path):
    check(Called(MOVEMENTS[name]), tmp_path / "f.onnx", floats(1, 2, 3, 4))


def test_modules_in_place_and_in_training_are_exported_in_evaluation_and_stay_as_they_were(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.BatchNorm1d(3))
    check(model.train(), tmp_path / "net.onnx", floats(1, 4))
    model.train()
    minidl.onnx.export(model, floats(2, 4), tmp_path / "net.onnx")
    assert model.training and model[2].training and model[1].inplace
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert kinds == ["Gemm", "Relu", "BatchNormalization", "Identity"]


def test_two_inputs_and_two_outputs(tmp_path):
    model = Called(lambda x, y: (x + y, x - y))
    minidl.onnx.export(model, (floats(2, 3), floats(2, 1)), tmp_path / "f.onnx")
    x, y = floats(4, 3), floats(4, 1)
    total, difference = run(tmp_path / "f.onnx", x, y)
    assert np.array_equal(total, x + y) and np.array_equal(difference, x - y)


def test_what_the_file_says(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    minidl.onnx.export(model, floats(2, 3, 4, 4), tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx")
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert {t.name for t in proto.graph.initializer} == {name for name, _ in model.named_parameters()}
    dims = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, 4, 4]


def test_weights_in_a_file_of_their_own(tmp_path):
    model, x = nn.Linear(5, 3), floats(2, 5)
    minidl.onnx.export(model, x, tmp_path / "net.onnx", external_data=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert (tmp_path / "net.onnx.data").stat().st_size == 64 + 3 * 4
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
    close(run(tmp_path / "net.onnx", x)[0], model(Tensor(x)))


def test_weights_do_not_stay_without_their_model(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(OSError):
        minidl.onnx.export(nn.Linear(5, 3), floats(2, 5), tmp_path / "net.onnx", external_data=True)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda x: F.dropout(x, 0.5), "dropout .*: it drops units although the model is in evaluation"),
        (lambda x: x.roll(1, 1), "roll .* has no ONNX form"),
        (lambda x: F.relu(x * 1, inplace=True) + 1, "relu_ changed in place"),
        (lambda x: F.relu(x * 1, inplace=True), "the output gets a tensor .* relu_ changed in place"),
        (lambda x: x * Tensor(x.data * 2), "mul .*: input 1 .* made by no op"),
        (lambda x: x / float(x.data.sum()), "div .*: the number .* depends on the batch"),
        (lambda x: x[: x.shape[0] // 2 + 1] if x.shape[0] % 2 else x.exp(), "the ops depend on the batch"),
        (lambda x: x[: x.shape[0] - 1], "getitem .*: basic depends on the batch"),
        (lambda x: x.argmax(1), "the output: input 0 .* made by no op"),
        (lambda x: F.softplus(x, 1, 3), "softplus .*: threshold must be at least 20"),
        (lambda x: F.adaptive_avg_pool2d(x, 2), "adaptive_avg_pool2d .*: .* must divide the input"),
        (lambda x: "scores", "the model must give a tensor"),
    ],
)
def test_what_is_refused_and_leaves_no_file(function, words, tmp_path):
    with pytest.raises(minidl.onnx.OnnxError, match=words):
        minidl.onnx.export(Called(function), floats(2, 2, 3, 4), tmp_path / "f.onnx")
    assert list(tmp_path.iterdir()) == []


def test_examples_of_nothing_are_refused(tmp_path):
    with pytest.raises(minidl.onnx.OnnxError, match=r"at least 1 element in each input, got \(0, 4\)"):
        minidl.onnx.export(nn.ReLU(), floats(0, 4), tmp_path / "f.onnx")
    with pytest.raises(TypeError, match="got str"):
        minidl.onnx.export(nn.ReLU(), "x", tmp_path / "f.onnx")
