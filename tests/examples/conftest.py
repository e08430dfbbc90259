"""The example's files import each other by name, as they do when train.py is run; the tests import them so too."""

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from image_folders import ALEXNET, make_folder

sys.path.insert(0, str(ALEXNET))


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than a tiny run; the tests about them bring it back."""
    import run

    monkeypatch.setattr(run, "draw_curves", lambda folder: None)


@pytest.fixture
def call_main(capsys, monkeypatch):
    """call_main(main, arguments) -> exit code, standard output, standard error: as on a terminal that breaks no line."""
    monkeypatch.setenv("COLUMNS", "1000")

    def call(main, *arguments):
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def call(call_main):
    """call(arguments) -> exit code, standard output, standard error: of train.py, unless a file has its own."""
    import train

    return partial(call_main, train.main)


@pytest.fixture
def copy(whole, tmp_path):
    """A file's `whole`, a run that was never stopped, in a folder of its own."""
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder to read; a test that changes files makes its own with `make_folder`."""
    return make_folder(tmp_path_factory.mktemp("images"))
