"""SECURITY.md is true: what it promises of all files is looked for in all sources, and the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
SOURCES = sorted([*(ROOT / "minidl").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])

UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}
CONNECTING = {"socket", "ssl", "urllib", "http", "ftplib", "smtplib", "asyncio", "requests", "httpx"}
RUNNING = {"eval", "exec", "compile", "__import__"}
# minidl's own texts: an op's source with one mistake, and Python's own `compile` for it
MAY_RUN = {"minidl/study/gallery/mutations.py"}
# ranks that torchrun started, in a program that asks for them
MAY_CONNECT = {"minidl/distributed/rendezvous.py"}


def imports(source: str) -> set[str]:
    """The outermost packages that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def runs(source: str) -> list[str]:
    """Calls that run a text as code, or read arrays with pickles in them."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        if isinstance(call.func, ast.Name) and call.func.id in RUNNING:
            found.append(call.func.id)
        elif ast.unparse(call.func) in ("np.load", "numpy.load"):
            allowed = [k.value for k in call.keywords if k.arg == "allow_pickle"]
            if [ast.unparse(value) for value in allowed] != ["False"]:
                found.append("np.load")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path):
    source = path.read_text()
    assert imports(source) & UNPICKLING == set()
    assert not runs(source) or str(path.relative_to(ROOT)) in MAY_RUN


def test_nothing_opens_a_connection_but_ranks_that_are_asked_to():
    connecting = {str(path.relative_to(ROOT)) for path in SOURCES if imports(path.read_text()) & CONNECTING}
    assert connecting == MAY_CONNECT


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import pickle", True),
        ("def f():\n    from urllib.request import urlopen", True),
        ("import pickletools, json", False),
        ("eval(text)", True),
        ("model.eval()", False),
        ("re.compile(text)", False),
        ("np.load(file)", True),
        ("np.load(file, allow_pickle=True)", True),
        ("np.load(file, allow_pickle=False)", False),
    ],
)
def test_the_search_finds_what_it_looks_for(source, wrong):
    assert bool(imports(source) & (UNPICKLING | CONNECTING) or runs(source)) == wrong


def test_the_tests_that_the_promises_name_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) == TEXT.count("::")
    assert [(file, name) for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()] == []
