"""PyTorch's own samples of modules, `module_db`: each is right, or refused with one clear error. None is wrong.

A module that minidl has gets PyTorch's state dict, and runs forward and backward, in training and in evaluation.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from minidl import nn

from .samples import Converter, Verdict, compared, count, counts_of, difference, error_of, flat, internal, is_clear, torch

module_db = internal("common_modules").module_db

INFO = {info.module_cls.__name__: info for info in module_db}
OURS = [name for name in INFO if hasattr(nn, name)]

# These gradients are small differences of numbers of size 1 and more: of sums, and 1 - y^2 where y is nearly 1.
CANCELS = {"BatchNorm1d", "BatchNorm2d", "LayerNorm", "Tanh"}


def verdicts(name: str) -> Iterator[Verdict]:
    """Of each sample, in training and in evaluation, with floats of 32 and 64 bits."""
    info = INFO[name]
    for dtype, training in itertools.product((torch.float32, torch.float64), (True, False)):
        torch.manual_seed(0)
        samples = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
        for sample in samples:
            if sample.forward_input is not None:
                yield judge(name, sample, dtype, training)


def judge(name: str, sample: Any, dtype: Any, training: bool) -> Verdict:
    """One module of one input: outputs, gradients, and the state dict after them."""
    made, given = sample.constructor_input, sample.forward_input
    their = INFO[name].module_cls(*made.args, **made.kwargs).to(dtype).train(training)
    convert = Converter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where input and target are of two shapes
        try:
            mine = getattr(nn, name)(*convert(made.args), **convert(made.kwargs)).to(str(dtype).removeprefix("torch."))
            mine.train(training).load_state_dict(their.state_dict())
            y = mine(*convert(given.args), **convert(given.kwargs))
        except Exception as error:
            return Verdict("refused" if is_clear(error) else "wrong", f"{type(error).__name__}: {error}")
        t = their(*given.args, **given.kwargs)
    theirs = dict(their.named_parameters())
    leaves = convert.leaves + [(p, theirs[key]) for key, p in mine.named_parameters()]
    verdict = compared(flat(y), flat(t), leaves, random="Dropout" in name, floor=float(name in CANCELS))
    if verdict.result != "right":
        return verdict
    a, b = mine.state_dict(), their.state_dict()
    if list(a) != list(b):
        return Verdict("wrong", f"state_dict has {list(a)}, PyTorch's {list(b)}")
    off = [f"{key}: {why}" for key in a if (why := difference(a[key], b[key]))]
    return Verdict("wrong", f"state_dict: {off}") if off else verdict


COUNTS = counts_of("module_db")


def test_what_there_is():
    """PyTorch's table has the modules that are counted."""
    assert sorted(COUNTS) == sorted(OURS), "`make samples` counts those of what is new"


@pytest.mark.parametrize("name", COUNTS)
def test_samples(name):
    found = list(verdicts(name))
    assert not [verdict for verdict in found if verdict.result == "wrong"]
    assert count(found) == COUNTS[name]


@pytest.mark.parametrize("name", [name for name in OURS if INFO[name].module_error_inputs_func])
def test_errors(name):
    """What PyTorch refuses minidl refuses: as the module is made, or as it runs."""
    info = INFO[name]
    for error in info.module_error_inputs_func(info, "cpu", torch.float32, False, True):
        made, given = error.module_error_input.constructor_input, error.module_error_input.forward_input

        def run(package, convert, made=made, given=given):
            module = getattr(package, name)(*convert(made.args), **convert(made.kwargs))
            return module if given is None else module(*convert(given.args), **convert(given.kwargs))

        for package, convert in ((torch.nn, lambda value: value), (nn, Converter())):
            assert error_of(run, (package, convert), {}), f"{package.__name__}: {error.error_regex}"
