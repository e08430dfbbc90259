"""What PyTorch's programs reach through `torch.`, and minidl has elsewhere."""

import importlib
import subprocess
import sys

import pytest

import minidl


def test_utils_data_is_minidl_data_by_another_name():
    from minidl import data

    names = minidl.utils.data
    assert names is importlib.import_module("minidl.utils.data") and len(names.__all__) == 16
    assert all(getattr(names, name) is getattr(data, name) for name in names.__all__)
    with pytest.raises(AttributeError, match=r"module 'minidl\.utils' has no attribute 'tensorboard'"):
        minidl.utils.tensorboard  # noqa: B018


def test_utils_data_is_loaded_when_it_is_asked_for():
    code = "import sys, minidl; before = 'minidl.data' in sys.modules; minidl.utils.data.DataLoader; print(before)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_accelerator_is_the_first_gpu():
    there = minidl.accelerator.is_available()
    assert minidl.accelerator.current_accelerator() == (minidl.device("cuda:0") if there else None)


def test_without_a_gpu_there_is_no_accelerator(monkeypatch):
    monkeypatch.setattr("minidl.accelerator.is_available", lambda: False)
    assert minidl.accelerator.current_accelerator() is None
