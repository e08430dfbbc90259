"""mypy --strict and pyright read a user's program as it is meant, refuse its mistakes, and know the type of every public name.

What needs the type checkers is marked `types`: make types.
"""

import ast
import builtins
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import minidl
from minidl.ops import operators

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = [HERE / "user_code.py", HERE / "mistakes.py"]
PUBLIC = ["minidl", "minidl.nn", "minidl.nn.functional", "minidl.nn.init", "minidl.optim", "minidl.data", "minidl.study"]
PUBLIC += ["minidl.nn.utils", "minidl.optim.lr_scheduler"]
ANY = {
    "Function.forward": "each op's own",
    "Module.forward": "each module's own",
    "Module.__getattr__": "what was filed under a name that no annotation tells",
    "Device.record": "CuPy's event, or None",
    "load": "what was saved",
    "default_collate": "what the samples are",
    "default_convert": "what the sample is",
    "Compose.__call__": "an image, as the transforms in it give",
    "Lambda.__call__": "what the function gives",
    "TenCrop.__call__": "an array, or a tuple of pictures or tensors",
    "read_picture": "Pillow's image, whose package minidl does not need",
    "Tensor.__array_ufunc__": "a tensor, or the array of NumPy's that was given as `out`",
    "Tensor.__cupy_override_elementwise_kernel__": "CuPy's array",
}

# ------------------------------------------------------------------------------------------------------ the type checkers


def run(arguments: list[str], folder: Path) -> str:
    """What a program prints, in a folder apart from the repository's settings."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    return result.stdout + result.stderr


def mypy(folder: Path) -> list[tuple[str, int]]:
    printed = run(["mypy", "--strict", "--config-file=", "--cache-dir=cache", *map(str, FILES)], folder)
    assert re.search(r"^(Success|Found \d+ error)", printed, re.MULTILINE), printed
    return [(file, int(line)) for file, line in re.findall(r"(\w+\.py):(\d+): error", printed)]


def pyright(folder: Path) -> list[tuple[str, int]]:
    printed = run(["pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, FILES)], folder)
    found = json.loads(printed)["generalDiagnostics"]
    return [(Path(d["file"]).name, d["range"]["start"]["line"] + 1) for d in found if d["severity"] == "error"]


@pytest.fixture(scope="module", params=[mypy, pyright])
def errors(request, tmp_path_factory):
    """File -> the lines in which a type checker finds an error."""
    found = request.param(tmp_path_factory.mktemp("checked"))
    return {file.name: {line for name, line in found if name == file.name} for file in FILES}


@pytest.mark.types
def test_a_program_has_the_types_that_it_says(errors):
    assert errors["user_code.py"] == set()


@pytest.mark.types
def test_each_mistake_is_refused_and_nothing_else(errors):
    lines = (HERE / "mistakes.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# wrong" in line}
    assert len(wrong) > 10 and errors["mistakes.py"] == wrong


@pytest.mark.types
def test_pyright_knows_the_type_of_everything_that_can_be_imported(tmp_path):
    """Attributes that a constructor sets may have the type of what is assigned: those count as ambiguous, not as unknown."""
    report = json.loads(run(["pyright", "--verifytypes", "minidl", "--ignoreexternal", "--outputjson"], tmp_path))
    symbols = report["typeCompleteness"]["symbols"]
    assert len(symbols) > 1000
    assert [s["name"] for s in symbols if not (s["isTypeKnown"] or s["isTypeAmbiguous"])] == []


# ----------------------------------------------------------------------------------------------------- the public names


def public_functions() -> Iterator[tuple[str, typing.Any]]:
    """Every function that can be called by a public name, and the methods of public classes, each once: where it is, itself."""
    seen = set()
    for module in map(importlib.import_module, PUBLIC):
        for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
            value = getattr(module, name)
            owners: tuple[type, ...] = value.__mro__ if inspect.isclass(value) else ()
            methods = {n: m for owner in reversed(owners) for n, m in vars(owner).items() if re.fullmatch("[^_].*|__.*__", n)}
            for function in [value, *methods.values()]:
                function = getattr(function, "__func__", getattr(function, "fget", function))
                if inspect.isfunction(function) and function.__module__.startswith("minidl") and function not in seen:
                    seen.add(function)
                    yield function.__qualname__, function


def test_no_public_function_gives_any():
    """`Array` is Any as well, for it is NumPy's or CuPy's: it says what is meant, and is left."""
    found = {}
    for name, function in public_functions():
        if "<lambda>" in name or not Path(inspect.unwrap(function).__code__.co_filename).is_file():
            continue  # the reflected operators, and what a dataclass makes
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
        assert isinstance(definition, ast.FunctionDef)
        if definition.returns is None or ast.unparse(definition.returns) == "Any":
            found[name] = ast.unparse(definition.args)
    assert found.keys() == ANY.keys()


def test_each_overload_takes_what_the_function_takes():
    overloaded = [function for _, function in public_functions() if typing.get_overloads(function)]
    assert {f.__qualname__ for f in overloaded} >= {"max_pool2d", "max_", "Tensor.size", "ImageLoader.__init__"}
    for function in overloaded:
        names = list(inspect.signature(function).parameters)
        overloads = [list(inspect.signature(one).parameters) for one in typing.get_overloads(function)]
        assert overloads == [names] * len(overloads)


def test_the_methods_that_type_checkers_see_are_those_that_are_bound():
    """The class Operators, which never runs, is made here and compared with METHODS: names, kinds, defaults, annotations."""
    tree = ast.parse(inspect.getsource(operators))
    (declared,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Operators"]
    names = dict(vars(operators))
    exec(compile(ast.Module([declared], []), operators.__file__, "exec"), names)
    methods = {name: value for name, value in vars(names["Operators"]).items() if inspect.isfunction(value)}
    properties = {name for name, value in vars(names["Operators"]).items() if isinstance(value, property)}
    assert list(methods) == list(operators.METHODS) and properties == set(operators.PROPERTIES)
    for name, bound in operators.METHODS.items():
        (_, *seen), (_, *own) = (inspect.signature(f).parameters.values() for f in (methods[name], bound))
        if bound.__name__ == "<lambda>":
            seen = [p.replace(annotation=p.empty) for p in seen]
        else:
            assert inspect.signature(methods[name]).return_annotation == inspect.signature(bound).return_annotation, name
        assert seen == own, name


def test_all_names_of_minidl_are_listed_and_there():
    imported = {name for name, value in vars(minidl).items() if not name.startswith("_") and not inspect.ismodule(value)}
    imported -= set(dir(builtins))  # a star would hide Python's own functions
    assert set(minidl.__all__) == imported | {"nn", "optim", "cuda", "accelerator", "distributed", "utils"} and len(
        set(minidl.__all__)
    ) == len(minidl.__all__)
