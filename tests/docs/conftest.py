"""The site, for the tests that look at it: in the folder MINIDL_SITE, or built once for them all."""

import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The folder of what `mkdocs build` makes. Skips without mkdocs-material."""
    if "MINIDL_SITE" in os.environ:
        return Path(os.environ["MINIDL_SITE"]).resolve()
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-B", "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    result = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    """docs/mkdocs_hooks.py. Skips without mkdocs."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    spec = util.spec_from_file_location("mkdocs_hooks", ROOT / "docs/mkdocs_hooks.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
