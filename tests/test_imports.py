"""Who may import whom, who may name CuPy, and what `import minidl` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minidl"

# each name stands for a module, or for a package with all its modules; it may import what stands before it, and its own parts
ORDER = ["shapes", "device", "layout", "memory", "changes", "parallel", "random", "observer", "grad_mode", "left_out"]
ORDER += ["tensor", "destination", "dtypes", "kernels", "distributed"]
# what a layer's file takes from nn comes before ops; nn itself, which gathers the layers, after
ORDER += ["nn.init", "nn.module", "nn.containers", "nn.loss", "nn.weighted", "ops", "ops.operators"]
ORDER += [
    "create",
    "nn",
    "optim",
    "cfg",
    "anomaly",
    "gradcheck",
    "data",
    "utils",
    "checkpoint",
    "serialization",
    "onnx",
    "cuda",
]
ORDER += ["accelerator", "pipe", "convert", "study"]
OPTIONAL = [
    "PIL",
    "matplotlib",
    "cupy",
    "safetensors",
    "tqdm",
    "torch",
    "h5py",
    "onnx",
    "onnxruntime",
    "tensorboardX",
    "tensorboard",
    "mpi4py",
]


def modules():
    """Every module of minidl, as a name inside it ("ops.conv2d"; "" is minidl/__init__.py) -> its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def place(name):
    """Where a module stands in the order; minidl itself comes last."""
    if name == "":
        return len(ORDER)
    parts = name.split(".")
    for entry in (".".join(parts[:2]), parts[0]):
        if entry in ORDER:
            return ORDER.index(entry)
    raise LookupError(f"minidl.{name} has no place in the order of imports")


def imported(source):
    """The full names of the modules that a source file imports, wherever in the file but for what only type checkers see."""
    tree = ast.parse(source)
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    unseen = {inner for block in for_types for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise LookupError(f"line {node.lineno}: imports inside minidl are absolute")
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                inner = full.removeprefix("minidl.")
                yield full if full.startswith("minidl.") and inner in MODULES else node.module


def wrong_imports(name, source):
    """The imports of minidl's module `name` that come from its own place in the order or below."""
    wrong = []
    for target in imported(source):
        if target.partition(".")[0] != "minidl":
            continue
        inner = target.removeprefix("minidl").removeprefix(".")
        same_package = name.partition(".")[0] == inner.partition(".")[0] and place(name) == place(inner)
        if place(inner) > place(name) or (place(inner) == place(name) and not same_package):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_only_from_above(name):
    assert wrong_imports(name, MODULES[name].read_text()) == []


@pytest.mark.parametrize(
    "name, source, wrong",
    [
        ("device", "import minidl.tensor", ["minidl.tensor"]),
        ("device", "def f():\n    from minidl import tensor, shapes", ["minidl.tensor"]),
        ("ops.relu", "from minidl.ops.operators import to", ["minidl.ops.operators"]),
        ("ops.relu", "from minidl.ops.reduce import SumFunction\nfrom minidl.kernels import fastest", []),
        ("ops.operators", "from minidl.ops import relu", []),
        ("optim.sgd", "from minidl.optim.optimizer import Optimizer\nfrom minidl import nn", []),
        ("nn.functional", "from minidl.optim import SGD", ["minidl.optim"]),
        ("nn.module", "from minidl.ops.relu import relu", ["minidl.ops.relu"]),
        ("ops.relu", "from minidl.nn.module import Module", []),
        ("ops.relu", "from minidl.nn import functional", ["minidl.nn.functional"]),
        ("gradcheck", "from minidl import gradcheck_leaves", ["minidl"]),
        ("tensor", "import numpy, minidl", ["minidl"]),
        ("tensor", "if TYPE_CHECKING:\n    import minidl.ops\nelse:\n    import minidl.nn", ["minidl.nn"]),
        ("kernels.cpu.conv2d", "from minidl.ops.conv2d import im2col", ["minidl.ops.conv2d"]),
    ],
)
def test_the_check_sees_wrong_imports(name, source, wrong):
    assert wrong_imports(name, source) == wrong


def names_cupy(source):
    tree = ast.parse(source)
    imports = any(target.partition(".")[0] in ("cupy", "cupyx") for target in imported(source))
    names = any(isinstance(node, ast.Name) and node.id in ("cupy", "cupyx") for node in ast.walk(tree))
    words = any(isinstance(node, ast.Constant) and node.value in ("cupy", "cupyx") for node in ast.walk(tree))
    return imports or names or words


def test_only_the_device_and_the_cuda_kernels_name_cupy():
    naming = [name for name, path in MODULES.items() if names_cupy(path.read_text())]
    assert [name for name in naming if not name.startswith("kernels.cuda")] == ["device"]


def test_only_parallel_makes_compute_threads():
    """Threads of other kinds live in data (images) and distributed (messages); thread-local state is no thread."""
    makers = {"ThreadPoolExecutor", "Thread", "ThreadPool", "Pool"}
    found = set()
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            word = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
            if word in makers and not name.startswith(("data", "distributed")):
                found.add(name)
    assert found <= {"parallel"}


def test_shapes_imports_nothing_of_minidl():
    assert not any(target.startswith("minidl") for target in imported(MODULES["shapes"].read_text()))


def run(code):
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_minidl_leaves_optional_things_alone():
    loaded = run("import minidl, minidl.nn.functional, sys; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert [m for m in OPTIONAL if m in loaded] == []
    assert "minidl" in loaded and "numpy" in loaded


def test_importing_minidl_where_optional_things_are_missing():
    block = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in OPTIONAL)
    assert run(f"{block}import minidl; print(float(minidl.Tensor([2.0]).sum()))") == "2.0"


def test_onnx_that_is_missing_is_named_with_what_installs_it():
    code = (
        "import sys; sys.modules['onnx'] = None\ntry:\n    import minidl.onnx\nexcept ImportError as error:\n    print(error)"
    )
    assert run(code) == 'minidl.onnx needs the onnx package: pip install "minidl[onnx]"'


def test_importing_minidl_loads_no_package_but_numpy():
    """It is other packages that make an import slow."""
    code = "import sys, numpy; before = set(sys.modules); import minidl; print(*set(sys.modules) - before)"
    packages = {name.partition(".")[0] for name in run(code).split()} - sys.stdlib_module_names
    assert {name for name in packages if "cython" not in name} == {"minidl", "numpy"}  # NumPy's random loads Cython's own
