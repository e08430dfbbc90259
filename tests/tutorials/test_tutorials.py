"""Programs written for PyTorch run under minidl with nothing changed but their imports.

Each file in programs/ is a whole program with PyTorch's imports. Under minidl its text is changed by `ported`. Under PyTorch it
runs as it is, from the same weights, over the same batches; there `torchvision` is minidl.data, with tensors of PyTorch.
"""

import pickle
import re
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minidl
from minidl import data
from minidl.data import cifar10, datasets, transforms

PROGRAMS = Path(__file__).parent / "programs"
IMPORTS = [
    (r"^import torch$", "import minidl as torch"),
    (r"^(from|import) torch\.utils\.data\b", r"\1 minidl.data"),
    (r"^import torchvision$", "import minidl.data as torchvision"),
    (r"^(from|import) torchvision\b", r"\1 minidl.data"),
    (r"^(from|import) torch\b", r"\1 minidl"),
]
N_TRAIN, N_TEST, IN_A_BATCH = 48, 20, 12


def ported(text):
    """The program, its imports changed and no other line."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        for old, new in IMPORTS:
            line, found = re.subn(old, new, line)
            if found:
                lines[i] = line
                break
    return "\n".join(lines)


def load(name, text):
    """A program's names, as if it had been imported."""
    module = ModuleType(name)
    exec(compile(text, str(PROGRAMS / f"{name}.py"), "exec"), vars(module))
    return module


def under_minidl(name):
    return load(name, ported((PROGRAMS / f"{name}.py").read_text()))


def start_from(program, weights):
    """Every Net that the program makes starts from these weights, and drops nothing out."""
    init = program.Net.__init__

    def started(self):
        init(self)
        self.load_state_dict(weights)
        for module in self.modules():
            if type(module).__name__ == "Dropout":
                module.p = 0.0

    program.Net.__init__ = started


@pytest.fixture
def under_torch(torch, monkeypatch):
    """name -> the program under PyTorch, unchanged."""

    class Compose(transforms.Compose):
        def __call__(self, image, key=None):
            return torch.from_numpy(np.array(super().__call__(image)))

    vision = ModuleType("torchvision")
    vision.datasets, vision.transforms = datasets, ModuleType("torchvision.transforms")
    for name in ("ToTensor", "Normalize"):
        setattr(vision.transforms, name, getattr(transforms, name))
    vision.transforms.Compose = Compose
    monkeypatch.setitem(sys.modules, "torchvision", vision)
    monkeypatch.setitem(sys.modules, "torchvision.transforms", vision.transforms)
    torch.set_num_threads(1)
    return lambda name: load(name, (PROGRAMS / f"{name}.py").read_text())


def test_only_imports_are_changed():
    for path in PROGRAMS.glob("*.py"):
        before, after = path.read_text().splitlines(), ported(path.read_text()).splitlines()
        changed = [line for line, new in zip(before, after, strict=True) if line != new]
        assert changed and all(line.startswith(("import torch", "from torch")) for line in changed)
        assert not any(re.match(r"(import|from) torch", line) for line in after)


# ---------------------------------------------------------------------------------------------------------------- mnist


def digits(n, seed):
    """(n, 28, 28) uint8 and labels: a bright square whose place says the label, on a dark noise."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 60, (n, 28, 28), np.uint8), rng.integers(0, 10, n)
    for image, label in zip(images, labels, strict=True):
        top, left = 3 + 12 * (label // 5), 1 + 5 * (label % 5)
        image[top : top + 9, left : left + 5] = 250
    return images, labels.astype(np.uint8)


@pytest.fixture
def mnist_root(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        images, labels = digits(n, seed=n)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels.tobytes())
    return tmp_path / "data"


def test_mnist(mnist_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = under_minidl("mnist")
    options = ["--root", "data", "--batch-size", "8", "--epochs", "8", "--lr", "0.5", "--log-interval", "3", "--save-model"]
    history = program.main(options)
    assert history[-1][2] == N_TEST  # all are right: the squares are easy
    out = capsys.readouterr().out
    assert re.search(r"^epoch 2 \[24/48 \(50%\)\] loss \d\.\d{6}$", out, re.MULTILINE)
    assert re.search(rf"^test: loss \d\.\d{{4}}, {N_TEST}/{N_TEST} right \(100%\)$", out, re.MULTILINE)

    saved = program.Net()
    saved.load_state_dict(minidl.load("digits.pt", weights_only=True))
    images, labels = digits(N_TEST, seed=N_TEST)
    x = minidl.tensor(images[:, None] / np.float32(255))
    assert (saved.eval()((x - 0.1307) / 0.3081).argmax(1).numpy() == labels).all()


def test_mnist_repeats_itself_and_a_dry_run_is_short(mnist_root, tmp_path, capsys):
    options = ["--root", str(mnist_root), "--batch-size", "16", "--no-accel", "--epochs", "1"]
    first, again = (under_minidl("mnist").main(options) for _ in range(2))
    assert first == again and len(first[0][0]) == 3
    ((losses, *_),) = under_minidl("mnist").main([*options, "--dry-run"])
    assert losses == first[0][0][:1]
    assert under_minidl("mnist").main([*options, "--seed", "2"]) != first


def test_mnist_without_its_files_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing is downloaded: put the four files of .* into .*MNIST/raw"):
        under_minidl("mnist").main(["--root", str(tmp_path)])


def test_mnist_has_pytorchs_losses(mnist_root, under_torch, torch, capsys):
    options = ["--root", str(mnist_root), "--batch-size", "8", "--epochs", "2", "--lr", "0.5", "--no-accel"]
    ours, theirs = under_minidl("mnist"), under_torch("mnist")
    minidl.manual_seed(3)
    weights = {name: np.array(x) for name, x in ours.Net().state_dict().items()}
    start_from(ours, {name: minidl.tensor(x) for name, x in weights.items()})
    start_from(theirs, {name: torch.tensor(x) for name, x in weights.items()})
    printed = []
    results = []
    for program in (ours, theirs):
        results.append(program.main(options))
        printed.append(capsys.readouterr().out)
    # 12 steps in float32: a step's rounding, some 1e-7 of a loss near 2, grows by the steps after it
    for (losses, loss, correct), (their_losses, their_loss, their_correct) in zip(*results, strict=True):
        np.testing.assert_allclose([*losses, loss], [*their_losses, their_loss], rtol=1e-4)
        assert correct == their_correct
    assert printed[0].split()[:4] == printed[1].split()[:4] and len(printed[0].splitlines()) == len(printed[1].splitlines())


# -------------------------------------------------------------------------------------------------------------- cifar10


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_BATCH_IMAGES", IN_A_BATCH)
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*cifar10.TRAIN, *cifar10.TEST]):
        rng = np.random.default_rng(number)
        pixels, labels = rng.integers(0, 256, (IN_A_BATCH, 3072), np.uint8), rng.integers(0, 10, IN_A_BATCH).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, 2))
    return tmp_path / "data"


def test_cifar10(cifar_root, tmp_path, capsys):
    path = tmp_path / "net.pth"
    means, correct, right, all_of = under_minidl("cifar10").main(root=str(cifar_root), path=path)
    assert len(means) == 6 and all(abs(mean - np.log(10)) < 0.2 for mean in means)  # ten classes, hardly trained
    assert sum(right.values()) == correct <= sum(all_of.values()) == IN_A_BATCH
    out = capsys.readouterr().out
    assert re.search(r"^\[2,    15\] loss: 2\.\d{3}$", out, re.MULTILINE) and "(32, 32, 3)" in out
    names = data.CIFAR10(cifar_root, train=False).targets[:4]
    assert " ".join(f"{under_minidl('cifar10').classes[label]:5s}" for label in names) in out
    assert minidl.load(path)["fc3.weight"].shape == (10, 84)


def test_cifar10_has_pytorchs_losses(cifar_root, tmp_path, under_torch, torch, capsys):
    ours, theirs = under_minidl("cifar10"), under_torch("cifar10")
    minidl.manual_seed(3)
    weights = {name: np.array(x) for name, x in ours.Net().state_dict().items()}
    results = []
    for program, tensor, name in ((ours, minidl.tensor, "ours"), (theirs, torch.tensor, "theirs")):
        start_from(program, {name: tensor(x) for name, x in weights.items()})
        results.append(program.main(str(cifar_root), tmp_path / name, shuffle=False, workers=0))
    (means, *counts), (their_means, *their_counts) = results
    np.testing.assert_allclose(means, their_means, rtol=1e-5)  # 30 small steps in float32
    assert counts == their_counts
    ours_saved, theirs_saved = minidl.load(tmp_path / "ours"), torch.load(tmp_path / "theirs")
    assert list(ours_saved) == list(theirs_saved)
    for name, x in ours_saved.items():
        np.testing.assert_allclose(x.numpy(), theirs_saved[name].numpy(), rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- alexnet


LAYERS = ["features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1", "classifier.4", "classifier.6"]
NAMES = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]


def test_alexnet():
    model = under_minidl("alexnet").alexnet()
    assert list(model.state_dict()) == NAMES
    assert sum(p.numel() for p in model.parameters()) == 61_100_840
    assert model.eval()(minidl.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_alexnet_has_pytorchs_numbers(under_torch, torch):
    """From PyTorch's own state dict, on images of other sides than 224. In float64, where no rounding
    decides which of two nearly equal pixels a pool takes."""
    torch.manual_seed(0)
    theirs = under_torch("alexnet").alexnet(num_classes=10).double().eval()
    ours = under_minidl("alexnet").alexnet(num_classes=10).double().eval()
    ours.load_state_dict(theirs.state_dict())
    for side in (64, 160):
        x = np.random.default_rng(side).standard_normal((1, 3, side, side))
        y, z = ours(minidl.tensor(x)), theirs(torch.tensor(x))
        expected = z.detach().numpy()
        # eight layers of sums of up to 9216 products: their rounding is some 1e-14 of the largest
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=1e-12 * abs(expected).max())
        ours.zero_grad()
        theirs.zero_grad()
        y.sum().backward()
        z.sum().backward()
        for name in ("features.0.weight", "classifier.1.bias"):
            grad, expected = ours.get_parameter(name).grad, theirs.get_parameter(name).grad.numpy()
            np.testing.assert_allclose(np.asarray(grad), expected, rtol=0, atol=1e-12 * abs(expected).max())
