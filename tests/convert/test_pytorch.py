"""torchvision's weights in and out, and .pth files that are not what torch.save writes."""

import io
import re
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.convert import from_torchvision, load_weights, read_pth, save_weights, to_torchvision, write_pth
from minidl.convert.__main__ import main
from minidl.convert.tables import TORCHVISION
from minidl.data import BadFileError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "alexnet"))

from model import AlexNet

SIZES = {"a": 2, "b": 3, "c": 4, "d": 3, "e": 2, "f": 5, "g": 4, "k": 3}


def theirs(rng, **sizes):
    """A narrow net's parameters under torchvision's names."""
    known = {**SIZES, **sizes}
    shapes = [tuple(n if isinstance(n, int) else n[1] * known[n[0]] for n in row.shape) for row in TORCHVISION]
    return {row.name: rng.standard_normal(shape).astype(np.float32) for row, shape in zip(TORCHVISION, shapes, strict=True)}


@pytest.fixture
def state(rng):
    return theirs(rng)


def same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and a[name].tobytes() == b[name].tobytes()


def packed(entries, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return content.getvalue()


def refused(tmp_path, content, match, name="x.pth"):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=match):
        from_torchvision(tmp_path / name)


# ------------------------------------------------------------------------------------------------------------- as it is


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_names_go_there_and_back(tmp_path, state, suffix):
    path = tmp_path / f"x{suffix}"
    (write_pth if suffix == ".pth" else save_weights)(path, state)
    ours = from_torchvision(path)
    assert list(ours)[:2] == ["conv1.weight", "conv1.bias"] and list(ours)[-1] == "fc8.bias"
    np.testing.assert_array_equal(ours["fc6.weight"], state["classifier.1.weight"])
    same(to_torchvision(path, ours), state)


def test_what_is_written_is_read(tmp_path, rng):
    arrays = {"f2": rng.standard_normal(3).astype(np.float16), "i8": np.arange(6).reshape(2, 3), "b": np.array([True, False])}
    arrays |= {"none": np.zeros((0, 2), np.float32), "one": np.array(3.0), "turned": rng.standard_normal((2, 3)).T}
    write_pth(tmp_path / "x.pth", arrays)
    same(read_pth(tmp_path / "x.pth"), arrays)
    with pytest.raises(TypeError, match=r"write_pth: z must be of float64, .* got complex128"):
        write_pth(tmp_path / "y.pth", {"z": np.array([1j])})
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


# ---------------------------------------------------------------------------------------------------------- what is wrong


def test_tensors_that_do_not_fit_are_named_with_what_they_would_become(tmp_path, state):
    path = tmp_path / "x.pth"

    def refused(match, **changes):
        write_pth(path, {name: array for name, array in {**state, **changes}.items() if array is not None})
        with pytest.raises(BadFileError, match=match):
            from_torchvision(path)

    refused(r"16 tensors, 1 are missing: features.3.weight \(-> conv2.weight\)", **{"features.3.weight": None})
    refused("16 tensors, 1 are too many: head.bias", **{"head.bias": np.zeros(2, np.float32)})
    wrong = {"features.3.weight": np.zeros((3, 1, 5, 5), np.float32)}
    refused(r"features.3.weight \(-> conv2.weight\) must have the shape \(3, 2, 5, 5\), got \(3, 1, 5, 5\)", **wrong)
    wrong = {"classifier.1.weight": np.zeros((5, 71), np.float32)}
    refused(r"classifier.1.weight \(-> fc6.weight\) must have the shape \(5, 72\), got \(5, 71\)", **wrong)
    refused("must be of floating point numbers, got int64", **{"features.0.bias": np.zeros(2, np.int64)})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a bare pickle, as PyTorch wrote before 1.6"),
        (b"\x89HDF", "must be the zip archive that torch.save writes"),
        (b"", "must be the zip archive"),
        (b"PK\x03\x04 and no more", "not a whole zip archive"),
        (packed({"constants.pkl": b"", "code/x.py": b""}), "must have an entry data.pkl, got TorchScript, which is a program"),
        (packed({"x": b""}), "must have an entry data.pkl, got no file of torch.save"),
        (packed({"data.pkl": bytes(1000)}, zipfile.ZIP_DEFLATED), "must be stored as they are, got 'archive/data.pkl' packed"),
        (packed({"data.pkl": b"\x80\x02}.", "byteorder": b"big"}), "byteorder must be little, got b'big'"),
        (packed({"data.pkl": b"\x80\x02]."}), "a dictionary must be pickled in it, got list"),
        (packed({"data.pkl": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."}), "a container in it holds itself"),
        (packed({"data.pkl": b"\x80\x02}X\x01\x00\x00\x00aK\x01s."}), "must be a state dict, of tensors by name, got 'a': int"),
    ],
)
def test_other_files_are_refused(tmp_path, content, match):
    refused(tmp_path, content, match)


def test_two_entries_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("a/data.pkl", b"")
            archive.writestr("a/data.pkl", b"")
    refused(tmp_path, content.getvalue(), "must have names of their own, got 'data.pkl' twice")


@pytest.mark.parametrize(
    ("name", "args"), [("os system", b"X\x02\x00\x00\x00ls\x85"), ("builtins eval", b")"), ("torch._utils _rebuild_xla", b")")]
)
def test_a_call_of_anything_else_is_refused_by_name_and_not_made(tmp_path, name, args):
    pickled = b"\x80\x02}X\x01\x00\x00\x00ac" + name.replace(" ", "\n").encode() + b"\n" + args + b"Rs."
    refused(
        tmp_path,
        packed({"data.pkl": pickled}),
        f"names '{name}', which is not a tensor or a plain container; nothing of it was run",
    )


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word


def tensor(key=b"0", count=6, offset=0, shape=(2, 3), strides=(3, 1), kind=b"FloatStorage"):
    """What torch.save writes for a tensor; each number as it is given."""

    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t"

    storage = (
        b"("
        + text(b"storage")
        + b"ctorch\n"
        + kind
        + b"\n"
        + text(key)
        + text(b"cpu")
        + b"J"
        + struct.pack("<i", count)
        + b"tQ"
    )
    rest = b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"key": b"1"}, "needs the storage data/1, got no such entry"),
        ({"key": b"../../etc/passwd"}, "got no such entry"),
        ({"count": 7}, "needs 7 numbers of 4 bytes in data/0, got 24 bytes"),
        ({"count": -1}, "needs -1 numbers"),
        ({"offset": 1}, r"needs a tensor \(2, 3\) inside its storage of 6 numbers, got the place 6"),
        ({"offset": -1}, "needs a shape, strides and an offset"),
        ({"strides": (3, -1)}, "needs a shape, strides and an offset"),
        ({"strides": (3,)}, "needs a shape, strides and an offset"),
        ({"strides": (2**31 - 1, 1)}, "got the place 2147483649"),
        ({"shape": (2**31 - 1, 2**31 - 1), "strides": (0, 0)}, "inside its storage of 6 numbers"),
        ({"kind": b"ComplexFloatStorage"}, "names 'torch ComplexFloatStorage'"),
    ],
)
def test_sizes_that_lie_are_refused(tmp_path, changes, match):
    entries = {"data.pkl": b"\x80\x02}" + text(b"a") + tensor(**changes) + b"s.", "data/0": bytes(24)}
    refused(tmp_path, packed(entries), match)


def test_a_view_is_read_as_it_lies(tmp_path):
    numbers = np.arange(6, dtype=np.float32)
    entries = {
        "data.pkl": b"\x80\x02}" + text(b"a") + tensor(shape=(2, 2), strides=(1, 2), offset=1) + b"s.",
        "data/0": numbers,
    }
    (tmp_path / "x.pth").write_bytes(packed({name: bytes(data) for name, data in entries.items()}))
    np.testing.assert_array_equal(read_pth(tmp_path / "x.pth")["a"], [[1, 3], [2, 4]])


# ------------------------------------------------------------------------------------------------------- the command line


def call(*arguments):
    try:
        return main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code


def test_the_command_there_and_back(tmp_path, state, capsys):
    source, ours, back = tmp_path / "a.pth", tmp_path / "b.safetensors", tmp_path / "c.pth"
    write_pth(source, state)
    assert call(source, ours) == 0
    numbers = sum(array.size for array in state.values())
    assert capsys.readouterr().out == f"{ours}: 16 tensors, {numbers:,} numbers\n"
    assert load_weights(ours)[1] == {"variant": "torchvision", "profile": "torchvision"}
    assert call("--to", "torchvision", ours, back) == 0
    assert back.read_bytes() == source.read_bytes()


def test_a_checkpoint_goes_out(tmp_path):
    net = AlexNet(3, "cpu:0", variant="torchvision", width=1 / 64)
    minidl.checkpoint.save_checkpoint(tmp_path / "step-1", net.state_dict())
    assert call("--to", "torchvision", tmp_path / "step-1", tmp_path / "x.safetensors") == 0
    got = load_weights(tmp_path / "x.safetensors")[0]
    np.testing.assert_array_equal(got["features.3.weight"], net.tower0.conv2.weight.detach().numpy())


@pytest.mark.parametrize(
    ("source", "target", "match"),
    [
        ("x.pth", "y.pth", "DST must end in .safetensors, got"),
        ("x.jpg", "y.safetensors", "SRC must end in .pth, .pt, .safetensors, .caffemodel, .binaryproto, .h5, got"),
        ("none.pth", "y.safetensors", "No such file"),
        ("x.pth", "y.safetensors", "x.pth .* must be the zip archive"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(tmp_path, capsys, source, target, match):
    (tmp_path / "x.pth").write_bytes(b"no zip")
    assert call(tmp_path / source, tmp_path / target) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("minidl.convert: error: ")
    assert re.search(match, error)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
