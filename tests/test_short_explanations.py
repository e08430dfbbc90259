"""A failed comparison of large values is explained in a few lines and at once, in CI too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BYTES = "[draws.bytes(200_000)]"
PAIRS = {  # two sides, and what is said of them
    "bytes": (BYTES, BYTES, ["<list of 1> == <list of 1>", "they first differ at 0:"]),
    "text": ("text(2000)", "text(2000)", ["<str of ", "they first differ at "]),
    "numbers": ("[*range(50_000), 1]", "[*range(50_000), 2]", ["<list of 50001>", "they first differ at 50000:"]),
    "shorter": ("'a' * 9000", "'a' * 9001", ["they first differ at 9000:", repr("a" * 40), repr("a" * 41)]),
    "mapping": ("{1: text(2000)}", "{1: text(2000)}", ["<dict of 1> == <dict of 1>"]),
    "set": ("set(range(90_000))", "{1}", ["<set of 90000> == <set of 1>"]),
    "dataclass": ("Note([], text(2000))", "Note([], text(2000))", ["<Note> == <Note>"]),
    "array": ("[1, np.zeros(9000)]", "[2, np.zeros(9000)]", ["<list of 2> == <list of 2>", "they first differ at 0:"]),
    "small": ("'a'", "'b'", ["- b"]),  # as ever
}
FAIL = """
import dataclasses
import numpy as np

draws = np.random.default_rng(0)

@dataclasses.dataclass
class Note:
    numbers: list
    words: str

def text(lines):
    return "\\n".join(" ".join(draws.choice(["the", "shape", "of", "an", "array"], 20)) for _ in range(lines))
"""


@pytest.fixture(scope="module")
def explanations(tmp_path_factory):
    """Name -> what pytest writes after the E of its explanation."""
    folder = tmp_path_factory.mktemp("failing")
    tests = [f"def test_{n}():\n    a, b = {a}, {b}\n    assert a == b, 'words'\n" for n, (a, b, _) in PAIRS.items()]
    (folder / "test_it.py").write_text("\n".join([FAIL, *tests]))
    command = [sys.executable, "-m", "pytest", "-p", "short_explanations", "-p", "no:cacheprovider", "-vv", "test_it.py"]
    environment = {**os.environ, "CI": "true", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=60)
    parts = re.split(r"^_+ test_(\w+) _+$", done.stdout, flags=re.MULTILINE)[1:]
    assert parts[::2] == list(PAIRS), done.stdout[-3000:]
    said = [[line[1:].strip() for line in part.splitlines() if line.startswith("E ")] for part in parts[1::2]]
    return dict(zip(PAIRS, said, strict=True))


@pytest.mark.parametrize("name", PAIRS)
def test_large_values_are_named(explanations, name):
    lines = explanations[name]
    assert lines[0] == "AssertionError: words"
    text = "\n".join(lines)
    assert [part for part in PAIRS[name][2] if part not in text] == []
    assert len(lines) < 7 and len(text) < 700
