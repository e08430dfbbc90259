"""The files of examples/claims import each other by name; so do the tests. They come last on the path: examples/alexnet has a
run.py, too, which other tests import."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "examples" / "claims"))

from pictures import Pictures, patterns
from settings import Run
from tiny_runs import IMAGES, TINY


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return patterns(IMAGES, 32)


@pytest.fixture
def tiny(pictures: Pictures) -> Run:
    return Run(TINY, 0, pictures.fingerprint)
