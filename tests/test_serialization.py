"""minidl.save and minidl.load: what comes back, what is refused, and that no pickle is ever read."""

import io
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minidl
from minidl import Tensor, nn
from minidl.optim import SGD


def test_a_tensor_comes_back(tmp_path):
    for x in (Tensor(np.arange(6.0).reshape(2, 3).T), Tensor(np.array(3)), Tensor(np.zeros((0, 2), bool))):
        minidl.save(x, tmp_path / "x.safetensors")
        y = minidl.load(tmp_path / "x.safetensors")
        assert type(y) is Tensor and y.dtype == x.dtype and y.shape == x.shape
        np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    minidl.save(net.state_dict(), str(tmp_path / "net.pt"))
    assert load_file(tmp_path / "net.pt").keys() == net.state_dict().keys()
    assert list(minidl.load(tmp_path / "net.pt")) == list(net.state_dict())  # in its order, which the format does not keep
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other.load_state_dict(minidl.load(tmp_path / "net.pt", weights_only=True))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


def test_a_dict_of_everything_comes_back_through_a_file_object():
    net = nn.Linear(3, 2)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(Tensor(np.ones((4, 3), "float32"))).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 3,
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "a": {"b": Tensor([1.0])},
        "a.b": Tensor([2.0]),
        "rest": [None, True, 0.5, "word", np.float32(2)],
    }
    file = io.BytesIO()
    minidl.save(saved, file)
    file.seek(0)
    loaded = minidl.load(file, map_location="cpu:1")
    assert loaded.keys() == saved.keys() and loaded["rest"] == [None, True, 0.5, "word", 2.0] and loaded["epoch"] == 3
    assert loaded["a"]["b"].item() == 1 and loaded["a.b"].item() == 2 and str(loaded["a.b"].device) == "cpu:1"
    again = SGD(net.parameters(), lr=0.5, momentum=0.9)
    state = {i: {name: t.cpu().numpy() for name, t in entries.items()} for i, entries in loaded["optimizer"]["state"].items()}
    again.load_state_dict({**loaded["optimizer"], "state": state})
    assert again.param_groups[0]["lr"] == 0.1 and set(state) == {0, 1}


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_unread(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    (tmp_path / "zip.pt").write_bytes(b"PK\x03\x04rest")
    for name in ("model.pt", "zip.pt"):
        with pytest.raises(ValueError, match=r"it is a pickle .* can run any code; .*save_file"):
            minidl.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="weights_only=False asks for arbitrary objects"):
        minidl.load(tmp_path / "model.pt", weights_only=False)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    for content in (b"", b"hello", b"\xff" * 64):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=r"load: .*x: must be in the safetensors format"):
            minidl.load(tmp_path / "x")


def test_objects_are_refused_with_their_place_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"got Linear at the top; of a model save its state_dict\(\)"):
        minidl.save(nn.Linear(2, 2), tmp_path / "x")
    with pytest.raises(TypeError, match=r"got set at a\.1"):
        minidl.save({"a": [1, {2}]}, tmp_path / "x")
    with pytest.raises(TypeError, match="keys must be words or numbers"):
        minidl.save({(1, 2): 3}, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_other_programs_files_give_their_tensors(tmp_path):
    save_file({"w": np.ones((2, 2), "float32")}, tmp_path / "w.safetensors", {"format": "pt"})
    loaded = minidl.load(tmp_path / "w.safetensors")
    assert loaded.keys() == {"w"} and loaded["w"].shape == (2, 2)
