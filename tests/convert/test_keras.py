"""Keras's two kinds of HDF5 files, made by Keras itself, and made here as Keras lays them out; scores are the same."""

from pathlib import Path

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.convert import from_keras, load_weights
from minidl.convert.__main__ import main
from minidl.data import BadFileError

h5py = pytest.importorskip("h5py")

SHAPES = {"conv2d": (3, 3, 3, 4), "conv2d_1": (2, 2, 4, 5), "dense": (2 * 3 * 5, 6), "dense_1": (6, 2)}


@pytest.fixture
def layers(rng):
    return {name: [rng.standard_normal(shape), rng.standard_normal(shape[-1])] for name, shape in SHAPES.items()}


def write(path, layers, kind="h5", **settings):
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if kind == "model" else file
        if kind == "weights":
            for name, arrays in sorted(layers.items()):
                variables = file.create_group(f"layers/{name}/vars")
                for i, array in enumerate(arrays):
                    variables.create_dataset(str(i), data=array, **settings)
            file.create_group("layers/flatten/vars")
            return path
        root.attrs["layer_names"] = [name.encode() for name in (*list(layers)[:2], "flatten", *list(layers)[2:])]
        for name, arrays in {**layers, "flatten": []}.items():
            group = root.create_group(name)
            names = [f"{name}/{kind}:0" for kind, _ in zip(("kernel", "bias", "c", "d"), arrays, strict=False)]
            group.attrs["weight_names"] = [text.encode() for text in names]
            for key, array in zip(names, arrays, strict=True):
                group.create_dataset(key, data=array, **settings)
    return path


def scores(layers, x):
    """The net with maps (N, H, W, C), in plain NumPy."""
    for kernel, bias in list(layers.values())[:2]:
        kh, kw = kernel.shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (1, 2))
        x = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias, 0)
    x = x.reshape(len(x), -1)
    for kernel, bias in list(layers.values())[2:]:
        x = x @ kernel + bias
    return x


@pytest.mark.parametrize("kind", ["h5", "model", "weights"])
def test_scores_are_those_of_the_channels_last_net(tmp_path, layers, kind, rng):
    got = from_keras(write(tmp_path / "x.h5", layers, kind))
    assert list(got) == [f"{name}.{part}" for name in SHAPES for part in ("weight", "bias")]
    x = rng.standard_normal((2, 5, 6, 3))
    y = Tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    p = {name: Tensor(array) for name, array in got.items()}
    for name in ("conv2d", "conv2d_1"):
        y = F.relu(F.conv2d(y, p[f"{name}.weight"], p[f"{name}.bias"]))
    y = F.flatten(y, 1)
    for name in ("dense", "dense_1"):
        y = F.linear(y, p[f"{name}.weight"], p[f"{name}.bias"])
    np.testing.assert_allclose(y.numpy(), scores(layers, x), rtol=1e-11)


class Net(nn.Module):
    """The net of keras_files/make_files.py under Keras's names."""

    def __init__(self):
        super().__init__()
        self.conv2d, self.conv2d_1 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, (3, 2), 2)
        self.batch_normalization, self.batch_normalization_1 = nn.BatchNorm2d(4, eps=1e-3), nn.BatchNorm2d(5, eps=1e-3)
        self.dense, self.batch_normalization_2, self.dense_1 = nn.Linear(20, 6), nn.BatchNorm1d(6, eps=1e-3), nn.Linear(6, 3)

    def forward(self, x):
        x = self.batch_normalization(F.relu(self.conv2d(x)))
        x = F.max_pool2d(F.relu(self.batch_normalization_1(self.conv2d_1(x))), 2)
        return self.dense_1(self.batch_normalization_2(F.relu(self.dense(F.flatten(x, 1)))))


@pytest.mark.parametrize("name", ["whole.h5", "net.weights.h5"])
def test_files_of_keras_itself_give_its_scores(name):
    """1e-5 beside scores of 2: sums of at most 36 products of float32, through seven layers."""
    folder = Path(__file__).parent / "keras_files"
    net = Net().eval()
    arrays = from_keras(folder / name)
    given = net.load_state_dict(arrays, strict=False)
    assert given.unexpected_keys == [] and {key.rpartition(".")[2] for key in given.missing_keys} == {"num_batches_tracked"}
    with np.load(folder / "scores.npz") as made:
        images, wanted = made["images"], made["scores"]
    got = net(Tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).detach().numpy()
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_the_layers_order_is_the_nets_where_the_file_has_it():
    folder = Path(__file__).parent / "keras_files"
    layers = [
        list(dict.fromkeys(key.partition(".")[0] for key in from_keras(folder / f))) for f in ("whole.h5", "net.weights.h5")
    ]
    norms = [f"batch_normalization{end}" for end in ("", "_1", "_2")]
    assert layers[0] == ["conv2d", norms[0], "conv2d_1", norms[1], "dense", norms[2], "dense_1"]
    assert layers[1] == ["conv2d", "conv2d_1", "dense", "dense_1", *norms]


def test_ten_layers_of_a_kind_stand_in_the_order_of_their_numbers(tmp_path):
    layers = {f"dense{f'_{i}' if i else ''}": [np.full((3, 3), float(i))] for i in range(11)}
    got = from_keras(write(tmp_path / "x.weights.h5", layers, "weights"))
    assert [array[0, 0] for array in got.values()] == list(range(11))


def refused(path, match):
    with pytest.raises(BadFileError, match=match):
        from_keras(path)


@pytest.mark.parametrize(
    ("name", "arrays", "match"),
    [
        ("conv2d_1", [np.zeros((2, 2, 3, 5))], r"conv2d_1 must take the 4 outputs of the layer before, got \(2, 2, 3, 5\)"),
        ("dense", [np.zeros((31, 6))], r"dense must take the 5 outputs of the layer before, got \(31, 6\)"),
        ("dense_1", [np.zeros((7, 2))], r"dense_1 must take the 6 outputs of the layer before, got \(7, 2\)"),
        ("dense", [np.zeros((30, 6)), np.zeros(5)], r"dense must be a Conv2D, a Dense or .* got \(30, 6\), \(5,\)"),
        ("conv2d", [np.zeros(4)] * 2, "conv2d must be a Conv2D, a Dense or"),
        ("dense", [np.zeros(6)] * 4, r"dense must have the 5 outputs of the layer before, got 6 channels"),
        (
            "dense",
            [np.zeros(5)] * 3,
            r"dense must be a Conv2D, a Dense or a whole BatchNormalization, got \(5,\), \(5,\), \(5,\)",
        ),
        ("dense", [np.zeros((30, 6), int)], "must be an array of floating point numbers"),
    ],
)
def test_layers_that_do_not_fit_are_named(tmp_path, layers, name, arrays, match):
    refused(write(tmp_path / "x.h5", {**layers, name: arrays}), match)


def test_arrays_that_are_packed_or_elsewhere_are_refused(tmp_path, layers):
    refused(write(tmp_path / "x.h5", layers, compression="gzip"), "must be stored as it is in this file")
    write(tmp_path / "secret.h5", layers)
    for link in (h5py.ExternalLink(str(tmp_path / "secret.h5"), "/conv2d"), h5py.SoftLink("/conv2d_1")):
        path = write(tmp_path / "x.h5", layers)
        with h5py.File(path, "a") as file:
            del file["conv2d"]
            file["conv2d"] = link
        refused(path, "'conv2d' must lie in this file, got a link to elsewhere")


def test_a_bomb_takes_no_memory(tmp_path):
    """A data set of which nothing was written: 8 TB of zeros in two kilobytes."""
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), "f8")
    refused(tmp_path / "x.weights.h5", "must be stored as it is in this file")


def test_one_array_under_many_names_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((200, 200))
        for i in range(1, 50):
            file[f"layers/dense_{i}/vars/0"] = file["layers/dense/vars/0"]
    refused(tmp_path / "x.weights.h5", "arrays must lie in the .* bytes of the file")


def test_other_files_are_refused(tmp_path, layers):
    (tmp_path / "x.h5").write_bytes(b"PK\x03\x04")
    refused(tmp_path / "x.h5", "not a whole HDF5 file of Keras")
    path = write(tmp_path / "y.h5", layers)
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "not a whole HDF5 file of Keras")
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["x"] = np.zeros(3)
    refused(tmp_path / "z.h5", "must have layer_names or a group layers")
    with h5py.File(write(tmp_path / "y.h5", layers), "a") as file:
        file.attrs["model_config"] = '{"data_format": "channels_first"}'
    refused(tmp_path / "y.h5", "must be in channels_last order")
    refused(write(tmp_path / "e.h5", {}), "must have layers with weights, got none")


def test_the_command(tmp_path, layers):
    write(tmp_path / "x.weights.h5", layers, "weights")
    assert main([str(tmp_path / "x.weights.h5"), str(tmp_path / "y.safetensors")]) == 0
    assert set(load_weights(tmp_path / "y.safetensors")[0]) == {f"{n}.{k}" for n in SHAPES for k in ("weight", "bias")}
