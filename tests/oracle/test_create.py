"""Factories: shape, dtype and values are PyTorch's."""

import numpy as np
import pytest

import minidl

from .compare import assert_same

torch = pytest.importorskip("torch")

CALLS = {
    "tensor of ints": lambda m: m.tensor([[1, 2], [3, 4]]),
    "tensor of floats": lambda m: m.tensor([1, 2.5]),
    "tensor of bools": lambda m: m.tensor([True, False]),
    "tensor of a number": lambda m: m.tensor(3),
    "tensor of an array": lambda m: m.tensor(np.ones(2)),
    "tensor with a dtype": lambda m: m.tensor([1, 2], dtype=m.float32),
    "tensor of tensors": lambda m: m.tensor([m.tensor(1.0), m.tensor(2.0)]),
    "tensor of nothing": lambda m: m.tensor([]),
    "as_tensor": lambda m: m.as_tensor(np.ones(2, "float32")) + m.as_tensor([1.0, 2.0]),
    "from_numpy": lambda m: m.from_numpy(np.arange(3)),
    "zeros": lambda m: m.zeros(2, 3),
    "zeros of a tuple": lambda m: m.zeros((2, 3), dtype=m.int64),
    "ones": lambda m: m.ones(()),
    "full": lambda m: m.full((2, 2), 7),
    "full of floats": lambda m: m.full((2,), 0.5),
    "full of bools": lambda m: m.full((2,), True),
    "arange": lambda m: m.arange(5),
    "arange from": lambda m: m.arange(2, 9, 3),
    "arange down": lambda m: m.arange(5, 0, -2),
    "arange of floats": lambda m: m.arange(0, 1, 0.25),
    "arange to a float": lambda m: m.arange(2.5),
    "arange of whole numbers": lambda m: m.arange(-0.9, 5.1, 2.5, dtype=m.int64),
    "arange of tensors": lambda m: m.arange(m.tensor(1), m.tensor(7.5), m.tensor(2)),
    "linspace": lambda m: m.linspace(0, 1, 5),
    "linspace of whole numbers": lambda m: m.linspace(4.3, -3.9, 5, dtype=m.int64),
    "linspace of one": lambda m: m.linspace(3, 4, 1),
    "eye": lambda m: m.eye(3),
    "eye of two sizes": lambda m: m.eye(2, 3, dtype=m.float64),
    "zeros_like": lambda m: m.zeros_like(m.ones(2, 3, dtype=m.float64)),
    "ones_like": lambda m: m.ones_like(m.arange(3)),
    "full_like": lambda m: m.full_like(m.arange(3), 2, dtype=m.float32),
    "functions": lambda m: m.cat([m.stack([m.ones(2), m.zeros(2)]), m.sqrt(m.full((1, 2), 4.0))]),
    "max": lambda m: m.max(m.tensor([[1.0, 3.0], [2.0, 0.0]]), 1).values,
    "max of two": lambda m: m.max(m.tensor([1.0, 3.0]), m.tensor([2.0, 0.0])),
    "sum": lambda m: m.sum(m.ones(2, 3), dim=1) + m.mean(m.ones(3, 2), axis=0)[0],
    "where": lambda m: m.where(m.arange(4) > 1, m.zeros(4), m.ones(4)),
    "flatten": lambda m: m.flatten(m.ones(2, 3, 4), 1),
    "matmul": lambda m: m.matmul(m.ones(2, 3), m.eye(3)),
    "long": lambda m: m.zeros(2, dtype=m.long) + m.ones(2, dtype=m.int),
    "double": lambda m: m.zeros(2, dtype=m.double) + m.ones(2, dtype=m.half),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_factory(name):
    assert_same(name, CALLS[name](minidl), CALLS[name](torch), 1e-7)


RANDOM = {
    "rand": lambda m: m.rand(2, 3),
    "randn": lambda m: m.randn((2, 3), dtype=m.float64),
    "randint": lambda m: m.randint(3, (2, 3)),
    "randint from": lambda m: m.randint(5, 9, (2, 3), dtype=m.float32),
    "randperm": lambda m: m.randperm(7),
    "rand_like": lambda m: m.rand_like(m.zeros(2, 3)),
    "randn_like": lambda m: m.randn_like(m.zeros(2, 3, dtype=m.float64)),
    "empty": lambda m: m.empty(2, 3),
    "empty_like": lambda m: m.empty_like(m.zeros(2, 3)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_factory_of_random_numbers(name):
    mine, theirs = RANDOM[name](minidl), RANDOM[name](torch)
    assert mine.shape == tuple(theirs.shape) and str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")


REFUSED = {
    "negative size": lambda m: m.zeros(-1),
    "arange of 0 steps": lambda m: m.arange(0, 5, 0),
    "arange away": lambda m: m.arange(5, 0),
    "linspace": lambda m: m.linspace(0, 1, -1),
    "linspace between rows": lambda m: m.linspace(m.ones(1), 2, 3),
    "randint of none": lambda m: m.randint(3, 3, (1,)),
    "from_numpy of a list": lambda m: m.from_numpy([1]),
    "stack of two shapes": lambda m: m.stack([m.ones(2), m.ones(3)]),
    "gradient of ints": lambda m: m.tensor([1], requires_grad=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pytorch_refuses_is_refused(name):
    with pytest.raises((RuntimeError, TypeError)) as theirs:
        REFUSED[name](torch)
    with pytest.raises(theirs.type):
        REFUSED[name](minidl)


def test_linspace_between_tensors_has_all_the_digits_of_its_dtype():
    mine, theirs = (m.linspace(m.tensor(-2.0), 3, 50, dtype=m.float64) for m in (minidl, torch))
    assert_same("linspace", mine, theirs, 1e-15)


def test_the_same_names_promote_alike():
    for a, b in (("float32", "int64"), ("uint8", "int8"), ("float16", "float64"), ("bool", "uint8")):
        mine = minidl.promote_types(getattr(minidl, a), getattr(minidl, b))
        assert str(mine) == str(torch.promote_types(getattr(torch, a), getattr(torch, b))).removeprefix("torch.")


def test_devices_and_gpus_are_asked_for_as_in_pytorch():
    for m in (minidl, torch):
        device = m.device("cuda" if m.cuda.is_available() else "cpu")
        assert m.zeros(2, device=device).to(device).sum().item() == 0
        assert isinstance(m.cuda.device_count(), int)


def test_copies_and_shared_memory():
    for m in (minidl, torch):
        a = np.ones(3)
        copy, shared, also = m.tensor(a), m.from_numpy(a), m.as_tensor(a)
        a[0] = 5
        assert (copy[0].item(), shared[0].item(), also[0].item()) == (1, 5, 5)
        shared += 1
        assert a[0] == 6
