"""Fuzzing of everything that reads data files, guided by coverage: no input may do anything but be read or be refused.

    python tests/fuzz/fuzz_readers.py cifar idx checkpoint packed image pth caffe keras onnx --seconds 60
    python tests/fuzz/fuzz_readers.py idx --input crash-0123   run one input, without atheris

Needs atheris: pip install -e ".[fuzz]". A failure is an exception other than those that the reader documents, an assertion
below about what was read, more than 10 seconds for an input, or more than 1 GiB of memory. The input is then kept, its path
printed, and the exit status is 1.

An input is the content of files, after a byte that says which. Where checksums would turn every change into the same
refusal, the input is signed before it is read, so that the code behind them is reached. HDF5 itself does not end on some
edited files, so that of Keras's files the layout is edited, as text, and h5py writes it.
"""

import argparse
import gzip
import hashlib
import io
import json
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

SECONDS_PER_INPUT, MEBIBYTES, LONGEST_INPUT = 10, 1024, 20_000


def import_readers() -> None:
    """Import what is fuzzed; under atheris this is where it is instrumented."""
    import pickletools  # noqa: F401
    import tarfile  # noqa: F401

    import minidl.checkpoint
    import minidl.convert
    import minidl.data  # noqa: F401


def cut(data: bytes, parts: int) -> list[bytes]:
    """`parts` pieces: each but the last after its length in two bytes."""
    pieces = []
    for _ in range(parts - 1):
        length = int.from_bytes(data[:2], "little")
        pieces.append(data[2 : 2 + length])
        data = data[2 + length :]
    return [*pieces, data]


def glue(*pieces: bytes) -> bytes:
    """What `cut` cuts."""
    return b"".join(len(piece).to_bytes(2, "little") + piece for piece in pieces[:-1]) + pieces[-1]


# ---------------------------------------------------------------------------------------------------------------- CIFAR


@cache
def cifar_seeds() -> list[bytes]:
    import tarfile

    import numpy as np

    pixels, names = np.arange(3072, dtype=np.uint8)[None], [str(i).encode() for i in range(10)]
    batch = {b"batch_label": b"x", b"labels": [3], b"data": pixels, b"filenames": ["a"], b"fine": (True, 300, 1 << 20)}
    pickles = [pickle.dumps(batch, protocol) for protocol in (2, 3, 4, 5)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("x/test_batch.bin")
        entry.size = 3073
        tar.addfile(entry, io.BytesIO(bytes(3073)))
    return [
        *(bytes([0]) + content for content in pickles),
        bytes([1]) + bytes(3073),
        bytes([2]) + pickle.dumps({b"label_names": names}, 2),
        bytes([3]) + b"\n".join(names),
        bytes([4]) + archive.getvalue(),
    ]


def read_cifar(folder: Path, data: bytes) -> None:
    import numpy as np

    from minidl.data import CIFAR10, cifar10

    files = [{"test_batch": data[1:]}, {"test_batch.bin": data[1:]}]
    files.append({"test_batch": cifar_seeds()[0][1:], "batches.meta": data[1:]})
    files.append({"test_batch.bin": bytes(3073), "batches.meta.txt": data[1:]})
    files.append({"cifar-10-binary.tar.gz": gzip.compress(data[1:], 1)})
    for name, content in files[data[0] % len(files)].items():
        (folder / name).write_bytes(content)
    with patch.object(cifar10, "_BATCH_IMAGES", 1):
        dataset = CIFAR10(folder, train=False)
    assert dataset.data.shape == (1, 32, 32, 3) and dataset.data.dtype == np.uint8
    assert len(dataset.targets) == 1 and type(dataset.targets[0]) is int and 0 <= dataset.targets[0] < 10
    assert len(dataset.class_to_idx) == 10 and all(type(name) is str for name in dataset.classes)


# ------------------------------------------------------------------------------------------------------------------ idx


def idx_seeds() -> list[bytes]:
    return [
        bytes([0, 0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]),
        bytes([0, 0, 0, 11, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4]),
        bytes([0, 0, 0, 14, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]),
        bytes([1]) + gzip.compress(bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0])),
        bytes([2, 0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(784),
        bytes([3, 0, 0, 8, 1, 0, 0, 0, 1, 5]),
    ]


def read_idx(folder: Path, data: bytes) -> None:
    import minidl.data

    kind, content = data[0] % 4, data[1:]
    if kind < 2:
        path = folder / ("x.gz" if kind else "x")
        path.write_bytes(content)
        assert minidl.data.read_idx(path).flags.writeable
        return
    images, labels = (seed[1:] for seed in idx_seeds()[-2:])
    (folder / "t10k-images-idx3-ubyte").write_bytes(content if kind == 2 else images)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(content if kind == 3 else labels)
    dataset = minidl.data.MNIST(folder, train=False)
    assert dataset.data.shape == (1, 28, 28) and len(dataset.targets) == 1 and 0 <= dataset.targets[0] < 10


# ----------------------------------------------------------------------------------------------------------- checkpoint


def checkpoint_seeds() -> list[bytes]:
    import numpy as np

    from minidl.checkpoint import save_checkpoint

    optimizer = {"state": {0: {"velocity": np.ones(2, np.float32), "step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (model, state) in enumerate(
            [({"w": np.ones((2, 3))}, optimizer), ({"b": np.zeros(4, np.int8)}, None), ({}, None)]
        ):
            path = Path(folder, str(i))
            save_checkpoint(path, model, state, step=i, name="x", nested={"a": [1.5, None, True]})
            names = ("state.json", "model.safetensors", "optimizer.safetensors")
            files = glue(*((path / name).read_bytes() if (path / name).exists() else b"" for name in names))
            seeds += [bytes([0]) + files, bytes([1]) + files]
    return seeds


def read_checkpoint(folder: Path, data: bytes) -> None:
    from minidl.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint

    state, model, optimizer = cut(data[1:], 3)
    tensors = {"model.safetensors": model, "optimizer.safetensors": optimizer}
    path = folder / "step-1"
    path.mkdir()
    for name, content in tensors.items():
        (path / name).write_bytes(content)
    (path / "state.json").write_bytes(signed_state(state, tensors) if data[0] % 2 else state)
    latest_checkpoint(folder)
    found = load_checkpoint(path)
    assert isinstance(found, Checkpoint) and isinstance(found.model_state, dict) and isinstance(found.state, dict)


def signed_state(state: bytes, tensors: dict[str, bytes]) -> bytes:
    """The state with the right lengths and checksums, if it is JSON with a place for them."""
    from minidl.checkpoint import _render

    try:
        content: Any = json.loads(state)
        for name in content["files"]:
            file = tensors.get(name, b"")
            content["files"][name] = {"bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
        content.pop("sha256", None)
        return _render(content)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return state


# --------------------------------------------------------------------------------------------------------------- packed


def packed_seeds() -> list[bytes]:
    from minidl.data.packed import index_bytes

    shards = [(2, hashlib.sha256(bytes(24)).hexdigest()), (1, hashlib.sha256(bytes(12)).hexdigest())]
    bodies = [index_bytes([2, 2, 3], ["a", "b"], shards, [0, 1, 1], ["x", "y", "z"]), index_bytes([1, 1, 3], ["a"], [], [], [])]
    return [bytes([signed]) + body.rpartition(b'"sha256"')[0] for body in bodies for signed in (1, 0)]


def read_packed(folder: Path, data: bytes) -> None:
    import numpy as np

    from minidl.data import PackedImages

    body = data[1:]
    signature = hashlib.sha256(body).hexdigest() if data[0] % 2 else "0" * 64
    (folder / "index.json").write_bytes(body + f'"sha256": "{signature}"}}\n'.encode())
    (folder / "images-00000.bin").write_bytes(bytes(24))
    (folder / "images-00001.bin").write_bytes(bytes(12))
    dataset = PackedImages(folder)
    dataset.verify()
    for i in range(len(dataset)):
        image, label = dataset[i]
        assert image.dtype == np.uint8 and image.shape == tuple(dataset.shape) and 0 <= label < len(dataset.classes)
    assert len(dataset.samples) == len(dataset.targets) == len(dataset)


# ---------------------------------------------------------------------------------------------------------------- image


def image_seeds() -> list[bytes]:
    from PIL import Image

    seeds = []
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"):
        for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"):
            content = io.BytesIO()
            try:
                Image.new(mode, (5, 3)).save(content, kind)
            except (OSError, KeyError):  # this kind has no such pixels
                continue
            seeds.append(content.getvalue())
    return seeds


def read_image(folder: Path, data: bytes) -> None:
    import numpy as np
    from PIL import Image

    import minidl.data

    (folder / "x").write_bytes(data)
    with patch.object(Image, "MAX_IMAGE_PIXELS", 1_000_000), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = minidl.data.read_image(folder / "x")
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size <= 3_000_000


# ------------------------------------------------------------------------------------------------------------------ pth


def pth_seeds() -> list[bytes]:
    import numpy as np

    from minidl.convert import write_pth

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.pth")
        write_pth(path, {"a": np.ones((2, 3), np.float32), "b": np.arange(4), "c": np.zeros((0, 1)), "d": np.array(True)})
        content = path.read_bytes()
    pickled = zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl")
    return [bytes([0]) + content, bytes([1]) + pickled]


def read_pth(folder: Path, data: bytes) -> None:
    """A whole file, or its pickle alone, in a whole archive: checksums of the archive would hide what is in it."""
    import numpy as np

    from minidl.convert import read_pth

    content = data[1:]
    if data[0] % 2:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a/data.pkl", content)
            for key, size in enumerate((24, 32, 0, 1)):
                archive.writestr(f"a/data/{key}", bytes(size))
        content = packed.getvalue()
    (folder / "x.pth").write_bytes(content)
    for value in read_pth(folder / "x.pth").values():
        assert not isinstance(value, np.ndarray) or value.size <= max(len(content), 32)


# ---------------------------------------------------------------------------------------------------------------- caffe


def caffe_seeds() -> list[bytes]:
    """A net of one channel in everything, cut down to what is small: the table's sizes are too many for the longest input."""
    data = bytes([7 << 3 | 2, 3, 1 << 3 | 2, 1, 2, 5 << 3 | 2, 8]) + bytes(8)
    old = bytes([1 << 3, 1, 2 << 3, 3, 3 << 3, 1, 4 << 3, 2, 5 << 3 | 2, 24]) + bytes(24)
    new = b"\x0a\x05conv1\x12\x0bConvolution" + bytes([7 << 3 | 2, len(data)]) + data
    v1 = b"\x22\x05conv1\x28\x04" + bytes([6 << 3 | 2, len(old)]) + old
    net = b"\xa2\x06" + bytes([len(new)]) + new + b"\x12" + bytes([len(v1)]) + v1
    text = b'name: "x" # y\nlayer { name: "conv1" convolution_param { num_output: 2 kernel_size: 11, group: 1 } }\n'
    return [bytes([0]) + net, bytes([1]) + old, bytes([2]) + text]


def read_caffe(folder: Path, data: bytes) -> None:
    from minidl.convert import from_caffe, mean_from_caffe
    from minidl.convert.caffe import _parse

    path = folder / "x"
    path.write_bytes(data[1:])
    if data[0] % 3 == 0:
        from_caffe(path)
    elif data[0] % 3 == 1:
        mean = mean_from_caffe(path)
        assert mean.ndim == 3 and mean.nbytes <= len(data)
    else:
        assert isinstance(_parse(path), dict)


# ---------------------------------------------------------------------------------------------------------------- keras

_MOST_KERAS = 1 << 14  # elements of an array


def keras_seeds() -> list[bytes]:
    """Layouts: a line for an array (path, sizes, dtype), for an attribute (path, "@" and its name, values), or a link."""
    names = "model_weights @layer_names c n d\n"
    arrays = "".join(
        f"model_weights/{layer} @weight_names {' '.join(f'{layer}/{part}' for part in parts)}\n"
        + "".join(f"model_weights/{layer}/{layer}/{part} {sizes} f4\n" for part, sizes in parts.items())
        for layer, parts in {
            "c": {"k": "3,2,3,4", "b": "4"},
            "n": {"gamma": "4", "beta": "4", "mean": "4", "var": "4"},
            "d": {"k": "24,5", "b": "5"},
        }.items()
    )
    loose = "layers/c/vars/0 1,1,2,3 f4\nlayers/c/vars/1 3 f4\nlayers/d_1/vars/0 6,2 f2\nlayers/flatten/vars/ \n"
    return [
        (names + arrays).encode(),
        (names + arrays).replace("model_weights/", "").replace("model_weights", "/").encode(),
        loose.encode(),
    ]


def read_keras(folder: Path, data: bytes) -> None:
    import h5py
    import numpy as np

    from minidl.convert import from_keras

    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        for line in data.decode("latin-1").splitlines()[:40]:
            where, *rest = line.split(" ")
            try:
                if rest and rest[0].startswith("@"):
                    file.require_group(where).attrs[rest[0][1:]] = [value.encode("latin-1") for value in rest[1:]]
                elif rest and rest[0] in ("->", "=>"):
                    file[where] = h5py.SoftLink(rest[1]) if rest[0] == "->" else h5py.ExternalLink("y.h5", rest[1])
                elif rest and rest[0]:
                    sizes = [int(n) for n in rest[0].split(",")]
                    if 0 <= np.prod(np.array(sizes, float)) <= _MOST_KERAS:
                        file[where] = np.zeros(sizes, rest[1] if len(rest) > 1 else "f4")
                else:
                    file.require_group(where)
            except (ValueError, TypeError, OSError, KeyError, RuntimeError, IndexError, OverflowError, SyntaxError):
                continue  # no such layout
    for name, array in from_keras(path).items():
        assert "." in name and array.dtype.kind == "f" and array.nbytes <= path.stat().st_size


# ----------------------------------------------------------------------------------------------------------------- onnx


def onnx_seeds() -> list[bytes]:
    """Small nets, each as bytes; what they need has the operators' usual attributes."""
    import numpy as np

    import minidl.onnx
    from minidl import nn

    nets = [
        (nn.Linear(2, 3), (1, 2)),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            (1, 1, 4, 4),
        ),
        (nn.Sequential(nn.LocalResponseNorm(3), nn.AvgPool2d(2), nn.Softmax(1)), (1, 3, 4, 4)),
    ]
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for net, shape in nets:
            minidl.onnx.export(net, np.ones(shape, np.float32), Path(folder, "x"))
            seeds.append(bytes([len(shape)]) + Path(folder, "x").read_bytes())
            minidl.onnx.export(net, np.ones(shape, np.float32), Path(folder, "y"), external_data=True)
            seeds.append(bytes([len(shape)]) + Path(folder, "y").read_bytes())
    return seeds


def read_onnx(folder: Path, data: bytes) -> None:
    """Load it, and run it on ones of the first of the shapes that it takes. Its weights may be in a file of 4096 bytes."""
    import numpy as np

    import minidl.onnx
    from minidl.onnx import load, read

    (folder / "x").write_bytes(data[1:])
    (folder / "y.data").write_bytes(bytes(4096))
    shapes = {2: [(1, 2)], 4: [(1, 1, 4, 4), (1, 3, 4, 4)]}.get(data[0] % 5, [(2, 3)])
    with patch.object(read, "MOST_ELEMENTS", 1 << 18), patch.object(sys.modules[load.__module__], "MOST_ELEMENTS", 1 << 18):
        model = minidl.onnx.load(folder / "x")
        weights = sum(p.data.nbytes for p in model.parameters())
        assert weights <= 8 * (1 << 18) + len(data) + 4096 * (1 + len(model.state_dict()))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for shape in shapes:
                try:
                    model(*[np.ones(shape, np.float32)] * len(model.input_names))
                except minidl.onnx.OnnxError:
                    if shape == shapes[-1]:
                        raise
                else:
                    break


# -------------------------------------------------------------------------------------------------------------- running


class Target(NamedTuple):
    """What is fuzzed: valid inputs to start from, and the reader of one."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[Path, bytes], None]


TARGETS = {
    "cifar": Target(cifar_seeds, read_cifar),
    "idx": Target(idx_seeds, read_idx),
    "checkpoint": Target(checkpoint_seeds, read_checkpoint),
    "packed": Target(packed_seeds, read_packed),
    "image": Target(image_seeds, read_image),
    "pth": Target(pth_seeds, read_pth),
    "caffe": Target(caffe_seeds, read_caffe),
    "keras": Target(keras_seeds, read_keras),
    "onnx": Target(onnx_seeds, read_onnx),
}


def try_input(target: str, data: bytes, work: Path) -> bool:
    """Whether an input was read (True) or refused as documented (False). Anything else is raised."""
    from minidl.checkpoint import CheckpointError
    from minidl.data import BadFileError

    refusals: list[type[Exception]] = [BadFileError, CheckpointError, FileNotFoundError]
    if target == "onnx":
        from minidl.onnx import OnnxError

        refusals.append(OnnxError)
    folder = work / "input"
    folder.mkdir(parents=True)
    try:
        TARGETS[target].read(folder, data or b"\0")
    except tuple(refusals):
        return False
    finally:
        shutil.rmtree(folder)
    return True


def fuzz(target: str, seconds: int, folder: Path) -> None:
    """Runs in a process of its own, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["minidl", "pickletools", "tarfile"]):
        import_readers()
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEBIBYTES << 20,) * 2)  # memory that is taken and not touched counts too
    options = [f"-max_total_time={seconds}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={MEBIBYTES}"]
    options += [f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={folder}/", "-print_final_stats=1", str(folder / "corpus")]

    def one_input(data: bytes) -> None:
        try_input(target, data, folder)

    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def run(target: str, seconds: int) -> bool:
    """Whether a target was fuzzed without a failure."""
    folder = Path(tempfile.mkdtemp(prefix=f"minidl-fuzz-{target}-"))
    (folder / "corpus").mkdir()
    for number, seed in enumerate(TARGETS[target].seeds()):
        (folder / "corpus" / f"seed-{number}").write_bytes(seed)
    command = [sys.executable, __file__, target, "--seconds", str(seconds), "--folder", str(folder)]
    good = subprocess.run(command).returncode == 0
    print(f"{target}: {'no failure' if good else f'FAILED; the input is in {folder}'}", flush=True)
    if good:
        shutil.rmtree(folder)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="+", choices=TARGETS, metavar="|".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="run this input once instead")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        fuzz(args.targets[0], args.seconds, args.folder)
    if args.input:
        with tempfile.TemporaryDirectory() as work:
            read = try_input(args.targets[0], args.input.read_bytes(), Path(work))
        print("read" if read else "refused")
        return 0
    return 0 if all([run(target, args.seconds) for target in args.targets]) else 1


if __name__ == "__main__":
    sys.exit(main())
