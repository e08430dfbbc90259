"""PyTorch's own samples of settings, `optim_db`: each is right, refused with one clear error, or missing. None is wrong.

The samples are those for all devices, each also with PyTorch's choices of an implementation.
"""

import collections
import warnings

import numpy as np
import pytest

from minidl import optim
from minidl.tensor import Tensor

from .samples import internal, torch

common_optimizers = internal("common_optimizers")

SHAPES = [(3, 4), (5,), ()]
STEPS = 20
INFO = {info.optim_cls.__name__: info for info in common_optimizers.optim_db}
OURS = [name for name in INFO if hasattr(optim, name)]
# right, refused
COUNTS = {"Adadelta": (12, 15), "Adagrad": (21, 7), "Adam": (18, 26), "AdamW": (18, 26), "RMSprop": (16, 17), "SGD": (27, 9)}


def settings(name):
    """Label -> arguments."""
    info, found = INFO[name], {}
    for device in ("cuda", "mps"):  # those of the CPU are among them
        for sample in info.optim_inputs_func(device):
            for flag in ("", *info.supported_impls):
                on = {flag: True} if flag else {}
                found[", ".join([sample.desc, *on])] = {**sample.kwargs, **on}
    return found


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def ours(value):
    """PyTorch's tensors of an option -> minidl's."""
    if isinstance(value, tuple):
        return tuple(map(ours, value))
    return Tensor(value.numpy()) if is_tensor(value) else value


def outcome(name, options):
    """What becomes of a sample: "right", "wrong", or the type of the error."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    mine, their = [Tensor(w.copy(), requires_grad=True) for w in start], [torch.nn.Parameter(torch.tensor(w)) for w in start]
    try:
        a = getattr(optim, name)(mine, **{key: ours(value) for key, value in options.items()})
    except Exception as error:
        return type(error).__name__
    plain = {key: value for key, value in options.items() if key not in ("foreach", "fused")}  # the same numbers
    b = getattr(torch.optim, name)(their, **plain)
    for _ in range(STEPS):
        for p, q in zip(mine, their, strict=True):
            g = rng.standard_normal(p.shape)
            p.grad, q.grad = Tensor(g), torch.tensor(g)
        a.step()
        b.step()
    # 20 steps of float64; PyTorch rounds a rate that is a tensor, and what it makes of it, to the tensor's float32
    rough = any(map(is_tensor, options.values()))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if rough else {"rtol": 1e-12, "atol": 1e-13}
    same = all(np.allclose(p.data, q.detach().numpy(), **tolerance) for p, q in zip(mine, their, strict=True))
    return "right" if same else "wrong"


@pytest.mark.parametrize("name", OURS)
def test_samples(name):
    """capturable and differentiable are refused, everything else is right."""
    found = {label: (options, outcome(name, options)) for label, options in settings(name).items()}
    for label, (options, result) in found.items():
        refused = options.get("capturable") or options.get("differentiable")
        assert result == ("NotImplementedError" if refused else "right"), label
    counts = collections.Counter(result for _, result in found.values())
    assert (counts["right"], counts["NotImplementedError"]) == COUNTS[name]


def test_what_is_missing():
    assert sorted(set(INFO) - set(OURS)) == [
        "ASGD",
        "Adafactor",
        "Adamax",
        "LBFGS",
        "Muon",
        "NAdam",
        "RAdam",
        "Rprop",
        "SparseAdam",
    ]


# of PyTorch's errors: where the paths that they are about do not exist in minidl
ACCEPTED = {
    "lr as Tensor doesn't work with foreach & not capturable",
    "betas must be either both floats or both Tensors",
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True",
}


@pytest.mark.parametrize("name", OURS)
def test_errors(name):
    """The type of each error is PyTorch's, but for the warning of a parameter twice, which is an error here."""
    seen = collections.Counter()
    for sample in INFO[name].optim_error_inputs_func("cpu", torch.float64):
        given, known = sample.optimizer_error_input, {}

        def convert(value, known=known):
            if is_tensor(value):
                return known.setdefault(id(value), Tensor(value.detach().numpy(), requires_grad=value.requires_grad))
            if isinstance(value, (list, tuple)):
                return type(value)(convert(v) for v in value)
            return {k: convert(v) for k, v in value.items()} if isinstance(value, dict) else value

        params = [torch.nn.Parameter(torch.ones(2))] if given.params is None else given.params
        expected = ValueError if sample.error_type is UserWarning else sample.error_type
        if given.desc in ACCEPTED:
            getattr(optim, name)(convert(params), **convert(given.kwargs))
            seen["accepted"] += 1
            continue
        with pytest.raises(expected), warnings.catch_warnings():
            getattr(optim, name)(convert(params), **convert(given.kwargs))
        seen["refused"] += 1
    assert dict(seen) == ({"refused": 8, "accepted": 4} if name in ("Adam", "AdamW") else {"refused": 7})
