"""The reference of the API: every public name of minidl's packages is on its package's page, with its docstring, as Markdown
that shows what the docstring says.

What builds the site is marked `docs`, as in test_site.py.
"""

import importlib
import inspect
import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = {path.stem: re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE) for path in (DOCS / "api").glob("*.md")}
MODULES = sorted(module for modules in PACKAGES.values() for module in modules)


def public(module: str) -> list[str]:
    """The public names of a module that are no modules: those in __all__, or else all that do not begin with _, of a package
    that gathers them, or that the module defines."""
    members = vars(importlib.import_module(module))
    gathers = "__path__" in members or module == "minidl.nn.functional"
    names = [name for name, x in members.items() if gathers or getattr(x, "__module__", None) == module]
    return [name for name in members.get("__all__", names) if name[0] != "_" and not _is_elsewhere(name, members)]


def _is_elsewhere(name: str, members: Mapping[str, Any]) -> bool:
    """A module, which has a page; NumPy's, as the dtypes are; a second name, as device is of Device."""
    member = members[name]
    own = getattr(member, "__name__", name)
    second = own != name and members.get(own) is member
    return inspect.ismodule(member) or second or str(getattr(member, "__module__", "")).startswith("numpy")


def methods(cls: type) -> dict[str, object]:
    """Name -> function of a class's own public methods and properties."""
    functions = {
        name: member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        for name, member in vars(cls).items()
        if name[0] != "_"
    }
    return {name: function for name, function in functions.items() if inspect.isfunction(function)}


NAMES = [(module, name) for module in MODULES for name in public(module)]
CLASSES = [pair for pair in NAMES if inspect.isclass(getattr(importlib.import_module(pair[0]), pair[1]))]


def test_every_package_has_a_page():
    packages = {"cfg", "convert", "data", "distributed", "nn", "optim", "optim.lr_scheduler", "study"}
    packages |= {f"nn.{name}" for name in ("functional", "init", "parallel", "utils")}
    assert {"minidl", *(f"minidl.{name}" for name in packages)} == set(MODULES)
    assert {"minidl.Tensor", "minidl.gradcheck", "minidl.nn.functional.relu", "minidl.nn.ReLU"} <= {".".join(n) for n in NAMES}


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_public_method_has_a_docstring(module, name):
    """Its own, or that of the base's method for which it stands."""
    cls = getattr(importlib.import_module(module), name)
    bare = [key for key, f in methods(cls).items() if not (f.__doc__ or inspect.getdoc(getattr(cls, key)))]
    assert bare == []


# -------------------------------------------------------------------------------------------------------------- the pages


def described(html: str) -> set[str]:
    """What has a heading on a page of the reference, and a sentence below it."""
    parts = re.split(r'<h\d id="(minidl\.[\w.]+)"', html)
    return {name for name, body in zip(parts[1::2], parts[2::2], strict=True) if re.search(r"<(?:p|li)>\s*\S", body)}


@pytest.fixture(scope="module")
def on_pages(built):
    return set().union(*(described(path.read_text()) for path in (built / "api").glob("*.html")))


@pytest.mark.docs
def test_every_public_name_is_described(on_pages):
    assert [".".join(pair) for pair in NAMES if ".".join(pair) not in on_pages] == []


@pytest.mark.docs
def test_tensors_methods_are_described_wherever_they_are_defined(on_pages):
    import minidl

    assert [name for name in methods(minidl.Tensor) if f"minidl.Tensor.{name}" not in on_pages] == []


def test_what_has_no_sentence_is_not_described():
    page = '<h2 id="minidl.a">a</h2><pre>a()</pre><div><p>Words.</p></div><h2 id="minidl.b">b</h2><pre>b()</pre><div></div>'
    assert described(page) == {"minidl.a"}
    assert described(page.replace("<div></div>", "<div><ul><li>Words</li></ul></div>")) == {"minidl.a", "minidl.b"}


# ----------------------------------------------------------------------------------------------------------- the extension


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("griffe", reason="mkdocstrings is not installed: pip install -e '.[docs]'")
    spec = util.spec_from_file_location("griffe_docstrings", DOCS / "griffe_docstrings.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.docs
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two lines\nof prose.\n\nAnother.", "Two lines\nof prose.\n\nAnother."),
        ("x    : what\n       it is\ny, *z : (N,)", "- `x`: what\n    it is\n- `y`, `*z`: (N,)"),
        ('"high"    : fast\n"highest" : exact', '- `"high"`: fast\n- `"highest"`: exact'),
        ("Words.\nx : after words", "Words.\n\n- `x`: after words"),
        ("x : a row\nAfter it.", "- `x`: a row\n\nAfter it."),
        ("ValueError: a.\nTypeError: b.", "`ValueError`: a.\n\n`TypeError`: b."),
        ("Words, ValueError: not\na line of its own.", "Words, `ValueError`: not\na line of its own."),
        ("See:\n\n    x = 1\n\n    y = 2\n\nWords.", "See:\n\n```python\nx = 1\n\ny = 2\n```\n\nWords."),
        ("    n = sum over i of z_i", "```\nn = sum over i of z_i\n```"),
        ("a * b, __init__, x[i] < 2, `x[i] < 2`", r"a \* b, \_\_init\_\_, x\[i\] &lt; 2, `x[i] < 2`"),
    ],
)
def test_prose_as_markdown(extension, text, expected):
    assert extension.markdown(text) == expected
