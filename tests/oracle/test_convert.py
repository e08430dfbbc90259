"""torchvision's AlexNet: PyTorch's own files are read, minidl's are read by PyTorch; scores are the same, Caffe's too."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor
from minidl.convert import from_caffe, from_torchvision, read_pth, to_torchvision, write_pth
from minidl.convert.tables import CAFFE

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "alexnet"))

from model import AlexNet

ROOT = Path(__file__).parents[2]
torch = pytest.importorskip("torch")


def definition():
    """AlexNet of the tutorial, as torchvision defines it."""
    path = ROOT / "tests" / "tutorials" / "programs" / "alexnet.py"
    spec = importlib.util.spec_from_file_location("torchvision_alexnet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AlexNet


def test_scores_are_those_of_torchvisions_net(tmp_path, rng):
    """The full net in float64. A score is a sum of products through eight layers; 1e-12 of the largest is thousands of
    roundings. 256 pixels: here the adaptive pool has something to do, maps of 7 x 7. In and out again, all is bit-equal."""
    torch.manual_seed(0)
    net = definition()().double().eval()
    torch.save(net.state_dict(), tmp_path / "x.pth")
    ours = from_torchvision(tmp_path / "x.pth")
    mine = AlexNet(devices="cpu:0", variant="torchvision").double().eval()
    mine.load_merged_state_dict(ours)
    mean = 255 * np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = 255 * np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    np.testing.assert_allclose(np.array(mine.profile.mean_color), mean.ravel(), rtol=1e-15)
    for size in (224, 256):
        pixels = rng.integers(0, 256, (2, 3, size, size)).astype(np.float64)
        with torch.no_grad():
            wanted = net(torch.tensor((pixels - mean) / std)).numpy()
        got = mine(Tensor(pixels - mean)).detach().numpy()
        assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()
    write_pth(tmp_path / "y.pth", to_torchvision(tmp_path, mine.merged_state_dict()))
    back = torch.load(tmp_path / "y.pth", weights_only=True)
    assert list(back) == list(net.state_dict())
    assert all(torch.equal(value, back[name]) for name, value in net.state_dict().items())


def test_what_training_programs_save_is_read(tmp_path):
    """A state dict inside other things; parameters, views, and tensors that share a storage or have channels-last memory."""
    whole = torch.arange(24.0).reshape(2, 3, 2, 2)
    content = {
        "epoch": 3,
        "best": 0.5,
        "names": ["a", ("b", None, True)],
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}},
        "state_dict": {"p": torch.nn.Parameter(whole), "row": whole[1], "nhwc": whole.to(memory_format=torch.channels_last)},
    }
    torch.save(content, tmp_path / "x.pth")
    got = read_pth(tmp_path / "x.pth")
    assert (got["epoch"], got["best"], got["names"]) == (3, 0.5, ["a", ("b", None, True)])
    assert got["optimizer"]["state"][0]["step"] == 7
    for name, value in content["state_dict"].items():
        np.testing.assert_array_equal(got["state_dict"][name], value.detach().numpy())


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_each_kind_of_number(tmp_path, kind):
    value = torch.tensor([[0, 1], [1, 1]]).to(getattr(torch, kind))
    torch.save({"x": value}, tmp_path / "x.pth")
    got = read_pth(tmp_path / "x.pth")["x"]
    assert str(got.dtype) == kind
    np.testing.assert_array_equal(got, value.numpy())
    write_pth(tmp_path / "y.pth", {"x": got})
    assert torch.equal(torch.load(tmp_path / "y.pth", weights_only=True)["x"], value)


def test_the_old_format_and_whole_modules_are_refused_by_name(tmp_path):
    torch.save({"x": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="is a bare pickle, as PyTorch wrote before"):
        read_pth(tmp_path / "old.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(RuntimeError, match=r"names 'torch.nn.modules.linear Linear'"):
        read_pth(tmp_path / "module.pth")


@pytest.mark.parametrize("pool_first", [False, True])
def test_scores_of_a_caffemodel_are_those_of_caffes_net_in_pytorch(tmp_path, rng, pool_first):
    """bvlc_alexnet and bvlc_reference_caffenet at an eighth of the width: groups, BGR images, norm over all channels. PyTorch
    computes with the file's own numbers, minidl with what from_caffe makes of them, both in float64."""
    spec = importlib.util.spec_from_file_location("caffe_files", ROOT / "tests" / "convert" / "test_caffe.py")
    files = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(files)
    sizes = {"a": 6, "b": 16, "c": 24, "d": 24, "e": 16, "f": 256, "g": 256, "k": 10}
    shapes = {row.ours: tuple(n if isinstance(n, int) else n[1] * sizes[n[0]] for n in row.shape) for row in CAFFE}
    # deviations that keep the signals of the size of 1: sqrt(2 / inputs)
    p = {
        name: (rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else rng.standard_normal(shape))
        for name, shape in shapes.items()
    }
    p = {name: array.astype(np.float32) for name, array in p.items()}
    (tmp_path / "x.caffemodel").write_bytes(files.caffemodel(p, pool_first=pool_first))
    x = rng.standard_normal((2, 3, 227, 227))

    t = {name: torch.from_numpy(array).double() for name, array in p.items()}
    f = torch.nn.functional

    def layer(x, name, **settings):
        function = f.conv2d if name.startswith("conv") else f.linear
        return function(x, t[f"{name}.weight"], t[f"{name}.bias"], **settings)

    def after(x):
        pool, norm = (lambda x: f.max_pool2d(x, 3, 2, ceil_mode=True)), (lambda x: f.local_response_norm(x, 5, 1e-4, 0.75, 1.0))
        return norm(pool(x)) if pool_first else pool(norm(x))

    y = after(f.relu(layer(torch.from_numpy(x), "conv1", stride=4)))
    y = after(f.relu(layer(y, "conv2", padding=2, groups=2)))
    for name, groups in (("conv3", 1), ("conv4", 2), ("conv5", 2)):
        y = f.relu(layer(y, name, padding=1, groups=groups))
    y = f.max_pool2d(y, 3, 2, ceil_mode=True).flatten(1)
    wanted = layer(f.relu(layer(f.relu(layer(y, "fc6")), "fc7")), "fc8").numpy()

    ours, about = from_caffe(tmp_path / "x.caffemodel")
    net = AlexNet(10, width=1 / 8, **about).double().eval()
    net.load_merged_state_dict(ours)
    got = net(Tensor(np.ascontiguousarray(x[:, ::-1]))).detach().numpy()
    assert np.abs(wanted).max() > 0.1
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()  # thousands of roundings
    back = net.merged_state_dict()
    assert all(np.array_equal(back[name], array) for name, array in ours.items())  # out of the towers again
