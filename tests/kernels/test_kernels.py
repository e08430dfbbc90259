"""The table of replacements: which function `fastest` gives."""

import numpy as np
import pytest

from minidl import kernels
from minidl.kernels import REPLACEMENTS, fastest, plain_kernels

HERE = np.zeros(2)


class OnGpu:
    """Not a NumPy array."""


def plain(x):
    return "plain"


def quick(x):
    return "quick"


@pytest.fixture
def replaced(monkeypatch):
    monkeypatch.setitem(REPLACEMENTS, ("cpu", "plain"), quick)


def test_without_an_entry_the_plain_function_runs():
    assert fastest(plain, HERE) is plain and fastest(plain, OnGpu()) is plain


def test_an_entry_replaces_the_plain_function_on_its_kind_of_device_only(replaced):
    assert fastest(plain, HERE) is quick and fastest(plain, OnGpu()) is plain


def test_an_entry_for_the_gpu(monkeypatch):
    monkeypatch.setitem(REPLACEMENTS, ("cuda", "plain"), quick)
    assert fastest(plain, HERE) is plain and fastest(plain, OnGpu()) is quick


def test_plain_kernels_turns_replacements_off_inside_the_block(replaced):
    with plain_kernels():
        assert fastest(plain, HERE) is plain
        with plain_kernels():
            assert fastest(plain, HERE) is plain
        assert fastest(plain, HERE) is plain
    assert fastest(plain, HERE) is quick


def test_plain_kernels_ends_with_an_error(replaced):
    with pytest.raises(KeyError), plain_kernels():
        raise KeyError
    assert fastest(plain, HERE) is quick


def test_an_op_asks_the_table(monkeypatch):
    from minidl import Tensor

    calls = []
    monkeypatch.setitem(REPLACEMENTS, ("cpu", "relu_forward"), lambda x: calls.append("forward") or x * 10)
    monkeypatch.setitem(REPLACEMENTS, ("cpu", "relu_backward"), lambda gy, y: calls.append("backward") or gy * 7)
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x.relu()
    y.sum().backward()
    assert calls == ["forward", "backward"]
    assert y.detach().numpy().tolist() == [10, 20] and x.grad.tolist() == [7, 7]
    with plain_kernels():
        assert x.relu().detach().numpy().tolist() == [1, 2]


def test_every_entry_names_a_kind_of_device_and_has_its_plain_twins_arguments():
    import importlib
    import inspect
    import pkgutil

    import minidl.data
    import minidl.ops
    import minidl.optim

    packages = minidl.ops, minidl.optim, minidl.data
    names = [f"{package.__name__}.{name}" for package in packages for _, name, _ in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(name) for name in names]
    for (kind, name), replacement in kernels.REPLACEMENTS.items():
        twins = [getattr(m, name) for m in modules if hasattr(m, name)]
        assert kind in ("cpu", "cuda") and replacement.__name__ == name and twins, name
        for twin in twins:
            assert list(inspect.signature(replacement).parameters) == list(inspect.signature(twin).parameters), name
