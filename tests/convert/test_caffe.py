"""Caffe's files, made here byte by byte, in both forms; and what is none."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor
from minidl.convert import from_caffe, load_weights, mean_from_caffe
from minidl.convert.__main__ import main
from minidl.convert.tables import CAFFE
from minidl.data import BadFileError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "alexnet"))

from model import AlexNet

SIZES = {"a": 2, "b": 2, "c": 2, "d": 2, "e": 2, "f": 2, "g": 2, "k": 5}


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def entry(number, value):
    """A field: an int, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, old=False, double=False, packed=True):
    data = array.astype("<f8" if double else "<f4").tobytes()
    number, width, kind = (8, 8, 1) if double else (5, 4, 5)
    if packed:
        numbers = entry(number, data)
    else:
        numbers = b"".join(varint(number << 3 | kind) + data[i : i + width] for i in range(0, len(data), width))
    if old:
        return b"".join(entry(i + 1, n) for i, n in enumerate((1,) * (4 - array.ndim) + array.shape)) + numbers
    return entry(7, entry(1, b"".join(map(varint, array.shape)))) + numbers


def caffemodel(arrays, v1=False, pool_first=False, **settings):
    """arrays : minidl's names, BGR. Layers without weights stand between, as Caffe writes them."""
    net = entry(1, b"AlexNet")
    layers = ["conv1", "relu1", *(["pool1", "norm1"] if pool_first else ["norm1", "pool1"])]
    layers += ["conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    for name in layers:
        blobs = [blob(arrays[f"{name}.{kind}"], **settings) for kind in ("weight", "bias") if f"{name}.{kind}" in arrays]
        if v1:
            kind = 4 if "conv" in name else 14 if "fc" in name else 18
            layer = entry(4, name.encode()) + entry(5, kind) + b"".join(entry(6, b) for b in blobs)
        else:
            kind = "Convolution" if "conv" in name else "InnerProduct" if "fc" in name else "ReLU"
            layer = entry(1, name.encode()) + entry(2, kind.encode()) + b"".join(entry(7, b) for b in blobs)
        net += entry(2 if v1 else 100, layer)
    return net


@pytest.fixture
def arrays(rng):
    """A narrow net's, as Caffe has them: conv1's channels are blue, green, red."""
    shapes = [tuple(n if isinstance(n, int) else n[1] * SIZES[n[0]] for n in row.shape) for row in CAFFE]
    return {row.ours: rng.standard_normal(shape).astype(np.float32) for row, shape in zip(CAFFE, shapes, strict=True)}


@pytest.mark.parametrize(
    "settings",
    [{}, {"v1": True, "old": True}, {"old": True}, {"double": True}, {"packed": False}, {"double": True, "packed": False}],
)
def test_both_kinds_of_layers_and_all_kinds_of_blobs(tmp_path, arrays, settings):
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(arrays, **settings))
    got, about = from_caffe(tmp_path / "x.caffemodel")
    assert about == {"variant": "two_towers", "profile": "caffe"}
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array[:, ::-1] if name == "conv1.weight" else array)


def test_caffenet_is_known_by_the_order_of_its_layers(tmp_path, arrays):
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(arrays, pool_first=True))
    assert from_caffe(tmp_path / "x.caffemodel")[1]["profile"] == "caffenet"


@pytest.mark.parametrize("pool_first", [False, True])
def test_scores_are_those_of_the_grouped_net_on_bgr(tmp_path, arrays, pool_first, rng):
    """The net in Caffe's own terms: groups, BGR, norm over all channels. The towers' net gets the same image as RGB."""
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(arrays, pool_first=pool_first, double=True))
    _, about = from_caffe(tmp_path / "x.caffemodel")
    net = AlexNet(5, width=1 / 64, **about)
    sizes = {name: array.shape for name, array in net.merged_state_dict().items()}
    x = rng.standard_normal((2, 3, 227, 227)) * 50
    p = {name: rng.standard_normal(shape) * 0.1 for name, shape in sizes.items()}
    net.double().eval().load_merged_state_dict({**p, "conv1.weight": p["conv1.weight"][:, ::-1]})

    def conv(x, name, **settings):
        return F.relu(F.conv2d(x, Tensor(p[f"{name}.weight"]), Tensor(p[f"{name}.bias"]), **settings))

    def after(x):
        norm = lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        return norm(F.max_pool2d(x, 3, 2)) if pool_first else F.max_pool2d(norm(x), 3, 2)

    y = after(conv(after(conv(Tensor(x), "conv1", stride=4)), "conv2", padding=2, groups=2))
    y = conv(conv(conv(y, "conv3", padding=1), "conv4", padding=1, groups=2), "conv5", padding=1, groups=2)
    y = F.flatten(F.max_pool2d(y, 3, 2), 1)
    for name in ("fc6", "fc7", "fc8"):
        y = F.linear(y, Tensor(p[f"{name}.weight"]), Tensor(p[f"{name}.bias"]))
        y = F.relu(y) if name != "fc8" else y
    got = net(Tensor(np.ascontiguousarray(x[:, ::-1]))).detach().numpy()
    np.testing.assert_allclose(got, y.numpy(), rtol=0, atol=1e-12 * np.abs(got).max())


# ---------------------------------------------------------------------------------------------------------- what is wrong


def refused(tmp_path, content, match, deploy=None):
    (tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(BadFileError, match=match):
        from_caffe(tmp_path / "x.caffemodel", deploy)


def test_every_cut_of_a_file_is_refused(tmp_path, arrays):
    content = caffemodel({name: array for name, array in arrays.items() if name.startswith("conv1.b")})
    for end in range(len(content)):
        refused(tmp_path, content[:end], "not a whole .caffemodel|must have 16 tensors")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80" * 20, "a number has more than 10 bytes"),
        (b"\xa2\x06\xff\xff\xff\xff\x0f", "field 100 has 4294967295 bytes, of which 0 are there"),
        (b"\x0b", "field 1 is of the kind 3, which Caffe does not use"),
        (varint(100 << 3) + b"\x01", "field 100 must be of the kind 2, got 0"),
        (entry(100, entry(7, entry(7, entry(1, varint(2**60))))), r"a blob of the shape \(1152921504606846976,\) has 0 bytes"),
        (
            entry(100, entry(7, entry(1, 0) + entry(2, 2**62))),
            r"a blob of the shape \(0, 4611686018427387904, 0, 0\) has 0 bytes",
        ),
        (entry(100, entry(7, entry(7, entry(1, b"\x01" * 40)))), "a blob has 40 dimensions"),
        (entry(100, entry(7, entry(1, 2) + entry(5, bytes(8)))), r"a blob of the shape \(2, 0, 0, 0\) has 8 bytes"),
        (2 * entry(100, entry(1, b"conv1") + entry(7, blob(np.zeros(1)))), "names of their own, got 'conv1' twice"),
        (b"", r"must have 16 tensors, 16 are missing: conv1 blob 0 \(-> conv1.weight\)"),
    ],
)
def test_bytes_that_are_no_net_are_refused(tmp_path, content, match):
    refused(tmp_path, content, match)


def test_another_net_is_refused(tmp_path, arrays):
    wrong = {**arrays, "fc6.weight": arrays["fc6.weight"][:, :-1]}
    refused(tmp_path, caffemodel(wrong), r"fc6 blob 0 \(-> fc6.weight\) must have the shape \(4, 144\), got \(4, 143\)")
    content = caffemodel(arrays).replace(b"Convolution", b"Deconvolut2")
    refused(tmp_path, content, "conv1 must be of the type Convolution, got 'Deconvolut2'")


# -------------------------------------------------------------------------------------------------------------- prototxt


def deploy_text(arrays):
    text = "name: 'AlexNet' # of 2012\ninput: \"data\"\ninput_shape { dim: 10 dim: 3 dim: 227, dim: 227 }\n"
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        weight = arrays[f"{name}.weight"]
        if weight.ndim == 4:
            group = " group: 2" if name in ("conv2", "conv4", "conv5") else ""
            inner = f"convolution_param {{ num_output: {len(weight)} kernel_size: {weight.shape[2]}{group} }}"
        else:
            inner = f"inner_product_param {{ num_output: {len(weight)} }}"
        text += f'layer {{\n  name: "{name}"\n  {inner}\n}}\n'
    return text


def test_a_deploy_file_is_compared(tmp_path, arrays):
    deploy, text = tmp_path / "deploy.prototxt", deploy_text(arrays)
    deploy.write_text(text)
    (tmp_path / "y.caffemodel").write_bytes(caffemodel(arrays))
    from_caffe(tmp_path / "y.caffemodel", deploy)
    for old, new, match in (
        ("kernel_size: 5", "kernel_size: 7", "conv2: kernel_size must be 5 as in the weights, got 7"),
        (" group: 2", "", "conv2: group must be 2 as in the weights, got 1"),
        ('"fc8"', '"score"', "must have the layer fc8, got conv1, .*, score"),
        ("num_output: 5", "", "fc8: num_output must be 5 as in the weights, got None"),
        ("layer {\n", "layer {{\n", r"line 4: \{ needs a name before it"),
        ("input:", "input: :", "line 2: a colon needs a name before it"),
        ("name: ", "name ", "line 1: a colon must stand after 'name', got"),
        ("}\n", "", r"1 \{ are not closed"),
    ):
        before, _, after = text.rpartition(old) if old == "}\n" else text.partition(old)
        deploy.write_text(before + new + after)
        refused(tmp_path, caffemodel(arrays), match, deploy)


def test_braces_have_a_deepest_level(tmp_path, arrays):
    (tmp_path / "deploy.prototxt").write_text("a {" * 1000)
    refused(tmp_path, caffemodel(arrays), "at most 50 others around it", tmp_path / "deploy.prototxt")


# -------------------------------------------------------------------------------------------------------- the mean image


def test_the_mean_image(tmp_path, rng, capsys):
    mean = rng.standard_normal((3, 4, 5)).astype(np.float32)
    for old in (False, True):
        (tmp_path / "m.binaryproto").write_bytes(blob(mean, old=old))
        np.testing.assert_array_equal(mean_from_caffe(tmp_path / "m.binaryproto"), mean[::-1].transpose(1, 2, 0))
    assert main([str(tmp_path / "m.binaryproto"), str(tmp_path / "m.safetensors")]) == 0
    assert load_weights(tmp_path / "m.safetensors")[0]["mean"].shape == (4, 5, 3)
    (tmp_path / "m.binaryproto").write_bytes(blob(mean[:2]))
    with pytest.raises(BadFileError, match=r"must have the shape \(3, H, W\), got \(2, 4, 5\)"):
        mean_from_caffe(tmp_path / "m.binaryproto")


def test_the_mean_image_goes_with_the_weights(tmp_path, arrays, rng, capsys):
    mean = rng.standard_normal((3, 4, 5)).astype(np.float32)
    (tmp_path / "m.binaryproto").write_bytes(blob(mean))
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(arrays))
    names = [str(tmp_path / name) for name in ("x.caffemodel", "x.safetensors", "m.binaryproto")]
    assert main([*names[:2], "--mean", names[2]]) == 0
    got, about = load_weights(names[1])
    np.testing.assert_array_equal(got.pop("mean"), mean[::-1].transpose(1, 2, 0))
    assert len(got) == 16 and about["profile"] == "caffe"
    with pytest.raises(SystemExit):
        main([names[2], names[1], "--mean", names[2]])
    assert "--mean is for a .caffemodel" in capsys.readouterr().err


def test_the_command(tmp_path, arrays, capsys):
    (tmp_path / "x.caffemodel").write_bytes(caffemodel(arrays, pool_first=True))
    (tmp_path / "d.prototxt").write_text(deploy_text(arrays))
    files = [str(tmp_path / name) for name in ("x.caffemodel", "x.safetensors", "d.prototxt")]
    assert main([*files[:2], "--deploy", files[2]]) == 0
    got, about = load_weights(files[1])
    assert about["profile"] == "caffenet"
    np.testing.assert_array_equal(got["conv1.weight"], arrays["conv1.weight"][:, ::-1])
    with pytest.raises(SystemExit):
        main([*files[:2], "--deploy", files[0]])
    assert re.fullmatch(r"minidl.convert: error: .* not a .prototxt: .*\n", capsys.readouterr().err)
