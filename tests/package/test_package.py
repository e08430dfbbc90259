"""What people install: an sdist and the wheel made from it have what they should, and the wheel works alone, elsewhere.

Marked `package`, since building and installing ask the package index: make package.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_readme import README, blocks

import minidl

ROOT = Path(__file__).parents[2]
ALEXNET = {"model.py", "files.py", "run.py", "data.py", "guards.py"}
pytestmark = pytest.mark.package

TRAINING = """
import numpy as np
import minidl.nn.functional as F
from minidl import Tensor, data, manual_seed, nn, optim

manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 10))
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scale = data.Normalize((128.0,) * 3, (64.0,) * 3)
losses = []
for _ in range(5):
    for images, labels in data.ImageLoader(data.Patterns(160, image_size=64), 32, transform=scale):
        loss = F.cross_entropy(model(Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5]), losses
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a program prints, which must end well. It looks for minidl in no other place than its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout


def tracked(*where: str) -> set[str]:
    """What a clone has there, with what is not yet committed."""
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *where, cwd=ROOT).split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist and the wheel made from it; of a copy, so that nothing is written into the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", target, source, cwd=target)
    return target


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of a new environment that has the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", wheel, cwd=folder)
    return folder / "bin" / "python"


def test_the_sdist_has_what_a_build_needs_and_what_says_whose_it_is(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if name.count("/")}
    made = {"PKG-INFO", "setup.cfg"}
    files = {name for name in names if "." in Path(name).name and not name.endswith("minidl.egg-info")}
    files -= {name for name in files if name.startswith("minidl.egg-info/")}
    alone = {name for name in tracked() if "/" not in name and name.endswith((".md", ".toml", ".cfg", ".in", ".py"))}
    assert files - made == tracked("minidl", "examples/alexnet", "examples/cifar") | (alone - made)
    assert "LICENSE" in names and {"README.md", "pyproject.toml", "setup.py", "setup.cfg"} <= files


def test_the_wheel_has_the_package_whole_and_of_the_examples_the_alexnet_that_study_shows(wheel):
    expected = tracked("minidl") | {f"minidl/study/alexnet/{name}" for name in ALEXNET}
    about = f"minidl-{minidl.__version__}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if not name.startswith(about)} == expected
        assert f"{about}licenses/LICENSE" in archive.namelist()
        for name in ALEXNET:
            assert archive.read(f"minidl/study/alexnet/{name}") == (ROOT / "examples" / "alexnet" / name).read_bytes()


def test_the_wheel_s_metadata_is_valid(wheel):
    """By the rules for packages' metadata, as the index that takes a package in applies them."""
    metadata = pytest.importorskip("packaging.metadata")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"minidl-{minidl.__version__}.dist-info/METADATA")
    about = metadata.Metadata.from_email(text)
    assert str(about.version) == minidl.__version__ and about.license_expression == "MIT" and about.license_files == ["LICENSE"]
    assert about.description.strip() == README.read_text().strip() and about.description_content_type == "text/markdown"


def test_the_wheel_alone_is_what_is_imported_and_has_its_types(installed, tmp_path):
    printed = run(installed, "-c", "import minidl; print(minidl.__file__, minidl.__version__)", cwd=tmp_path)
    file, version = printed.split()
    assert Path(file).is_relative_to(installed.parents[1]) and version == minidl.__version__
    assert Path(file).with_name("py.typed").is_file()


def test_the_readme_s_python_runs_with_the_wheel_alone(installed, tmp_path):
    program = "\n".join(block.body for block in blocks(README.read_text()) if block.kind == "python")
    assert "(16, 3, 5, 5)" in run(installed, "-c", program, cwd=tmp_path)


def test_a_net_trains_with_the_wheel_alone(installed, tmp_path):
    run(installed, "-c", TRAINING, cwd=tmp_path)


def test_the_explorer_shows_alexnet_with_the_wheel_alone(installed, tmp_path):
    run(installed, "-m", "minidl.study", "explore", "--out", "look", cwd=tmp_path)
    page = (tmp_path / "look" / "index.html").read_text()
    assert "tower0.conv1" in page and "minidl/ops/conv2d.py" in page


def test_what_reads_a_run_of_alexnet_is_in_the_wheel_whole(installed, tmp_path):
    """`explore --run` imports these three from their file names."""
    program = """
    from minidl.study.models import ALEXNET_FILE, module_from
    run, data, model = (module_from(ALEXNET_FILE.with_name(f"{part}.py")) for part in ("run", "data", "model"))
    print(run.find_run.__name__, data.load_statistics.__name__, model.AlexNet.__name__)
    """
    assert run(installed, "-c", "if True:" + program, cwd=tmp_path).split() == ["find_run", "load_statistics", "AlexNet"]
