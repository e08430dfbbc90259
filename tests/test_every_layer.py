"""What every layer owes, asked of all that stand in minidl/ops: a new file there fails here until it has it, and each message
says what to add where.

  * its function in minidl.nn.functional and its modules in minidl.nn: a line each
  * a page, and a test file with its LAYER_CASES (tests/layer_cases.py)
From the cases:
  * gradcheck; the same numbers from any memory layout
  * the numbers of PyTorch's function, at edges and NaN too; the signature and the repr of PyTorch's module
  * the module does what the function does, and with PyTorch's state_dict what PyTorch's does
  * `kinked` is True if and only if the slope jumps, at 0 or at a case's `bends_at`: check_layers relies on it
tests/test_device.py and tests/kernels/cuda/test_ops.py run the cases on a GPU's branch, tests/study/step/test_explain.py asks
for a reason for all that an op saves, tests/docs/test_layer_pages.py for what a page must have.
"""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from layer_cases import LayerCase, layer_cases

import minidl
import minidl.nn as nn
import minidl.nn.functional as F
from minidl import Function, Tensor, gradcheck

ROOT = Path(__file__).parent.parent
CASES = layer_cases()
OF_TENSORS = [
    "arithmetic",
    "reduce",
    "reshape",
    "to_device",
    "operators",
    "comparison",
    "in_place",
    "select",
]  # their functions are methods, of which some are layers
FILES = sorted(path.stem for path in (ROOT / "minidl/ops").glob("*.py") if path.stem != "__init__")
LAYERS = [file for file in FILES if file not in OF_TENSORS]
EDGES = np.array([0.0, -0.0, 1e-300, -1e-300, 0.3, -0.3, 40, -40, 800, -800, np.inf, -np.inf, np.nan])


def own(file, kind):
    """The public functions or classes that are defined in a file of minidl/ops."""
    module = importlib.import_module(f"minidl.ops.{file}")
    members = inspect.getmembers(module, kind)
    return [m for name, m in members if m.__module__ == module.__name__ and not name.startswith("_")]


def layer_functions(file):
    """Those that take an input, as PyTorch calls it; the plain functions take arrays, x."""
    return [f for f in own(file, inspect.isfunction) if next(iter(inspect.signature(f).parameters), None) == "input"]


def modules(file):
    return [cls for cls in own(file, inspect.isclass) if issubclass(cls, nn.Module)]


def nodes(y):
    """The ops of the graph behind y."""
    found, ahead = [], [y._node]
    while ahead:
        node = ahead.pop()
        if isinstance(node, Function):
            found.append(node)
            ahead += node._edges
    return found


# ------------------------------------------------------------------------------------------------------------ what is there


@pytest.mark.parametrize("file", LAYERS)
def test_each_op_has_a_function_of_its_name(file):
    names = {f.__name__ for f in layer_functions(file)}
    assert {cls.name for cls in own(file, inspect.isclass) if issubclass(cls, Function)} <= names


def missing_lines(file):
    """What minidl/nn lacks of a file's functions and modules: the lines to add."""
    wanted = [(F, "functional.py", f) for f in layer_functions(file)] + [(nn, "__init__.py", cls) for cls in modules(file)]
    return [
        f"minidl/nn/{where}: from minidl.ops.{file} import {x.__name__} as {x.__name__}"
        for package, where, x in wanted
        if getattr(package, x.__name__, None) is not x
    ]


@pytest.mark.parametrize("file", FILES)
def test_functions_and_modules_are_registered(file):
    missing = missing_lines(file)
    assert not missing, "add these lines:\n" + "\n".join(missing)


def test_a_missing_line_is_said_as_it_is_to_be_written(monkeypatch):
    monkeypatch.delattr(F, "relu")
    monkeypatch.setattr(nn, "ReLU", nn.Tanh)
    assert missing_lines("relu") == [
        "minidl/nn/functional.py: from minidl.ops.relu import relu as relu",
        "minidl/nn/__init__.py: from minidl.ops.relu import ReLU as ReLU",
    ]


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_a_test(file):
    assert (ROOT / f"tests/ops/test_{file}.py").exists()


@pytest.mark.parametrize("name", [name for name in vars(F) if not name.startswith("_")])
def test_a_function_has_a_case(name):
    assert any(case.split()[0] == name for case in CASES), f"LAYER_CASES of its test file has no {name!r}"


@pytest.mark.parametrize("layer", [cls for file in FILES for cls in modules(file)])
def test_a_module_has_a_case(layer):
    """One with a target has tests of its own, in tests/nn/test_layers.py."""
    built = {type(case.module(nn)) for case in CASES.values() if case.module}
    alone = "target" not in inspect.signature(layer.forward).parameters
    assert layer in built or not alone, f"no case of LAYER_CASES has module=lambda nn: nn.{layer.__name__}(...)"


# ------------------------------------------------------------------------------------------------------------- its numbers


def leaves(case, arrays=None):
    return [Tensor(a.copy(order="K"), requires_grad=True) for a in (case.arrays if arrays is None else arrays)]


def first(outputs):
    return outputs[0] if isinstance(outputs, tuple) else outputs


def outcome(call, tensors):
    """The outputs and the gradients, from the same upstream gradient and the same random numbers."""
    minidl.manual_seed(3)
    outputs = call(*tensors)
    y = first(outputs)
    y.backward(np.random.default_rng(1).normal(size=y.shape))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [o.detach().numpy() for o in outputs] + [t.grad.data for t in tensors]


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    case = CASES[name]
    minidl.manual_seed(3)
    assert gradcheck(lambda *xs: first(case.ours(*xs)), leaves(case))


@pytest.mark.parametrize("name", CASES)
def test_memory_order_changes_nothing(name):
    """Rounding apart: sums may go another way. The longest here has 100 terms of size about 4."""
    case = CASES[name]
    expected = outcome(case.ours, leaves(case))
    fortran = [np.asfortranarray(a) for a in case.arrays]
    wide = [np.repeat(a[..., None], 2, -1).reshape(*a.shape[:-1], -1)[..., ::2] for a in case.arrays]
    for arrays in (fortran, wide):
        for a, b in zip(outcome(case.ours, [Tensor(a, requires_grad=True) for a in arrays]), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


MODULES = [name for name, case in CASES.items() if case.module]


def module_of(case):
    """The case's module, with the case's parameters and buffers, and the tensors that it takes."""
    module, arrays, constants = case.module(nn).double(), list(case.arrays), list(case.constants)
    buffers = [buffer for buffer in module.buffers() if buffer.dtype.kind == "f"]
    for own, values in ((list(module.parameters()), arrays), (buffers, constants)):
        for tensor in reversed(own):
            nn.init.copy_(tensor, values.pop())
    return module, leaves(case, arrays), [Tensor(c) for c in constants]


def unchanged(inputs):
    """What a module that works in place may change: a leaf that requires a gradient it may not."""
    return [x * 1 for x in inputs]


@pytest.mark.parametrize("name", MODULES)
def test_the_module_does_what_the_function_does(name):
    case = CASES[name]
    module, inputs, constants = module_of(case)
    called = outcome(lambda *_: module(*unchanged(inputs), *constants), [*inputs, *module.parameters()])
    for a, b in zip(called, outcome(case.ours, leaves(case)), strict=True):
        np.testing.assert_array_equal(a, b)


def slopes_differ(case):
    """Is the slope at the case's `bends_at`, by default 0, where a ReLU bends and maxima tie, another one to the left than to
    the right? A smooth function's two differ by the step times its curvature, some 1e-6 here."""
    rng, step = np.random.default_rng(7), 1e-6
    directions = [rng.uniform(0.5, 1, a.shape) * rng.choice([-1, 1], a.shape) for a in case.arrays]

    def value(t):
        minidl.manual_seed(3)
        y = first(case.ours(*(Tensor(case.bends_at + t * d) for d in directions))).numpy()
        return float((y * np.random.default_rng(1).uniform(0.5, 1, y.shape)).sum())

    here = value(0.0)
    return abs((value(step) - here) - (here - value(-step))) / step > 1e-3


ABS = LayerCase(lambda F, x: x.abs(), [np.zeros(5)])
EXTREMES = ("max", "min", "amax", "amin")
TIED = {name: LayerCase(lambda F, x, name=name: getattr(x, name)(dim=0), [np.zeros((3, 4))]) for name in EXTREMES}
BENDING = {**CASES, **TIED, "abs": ABS}


@pytest.mark.parametrize("op", sorted({name.split()[0] for name in BENDING}))
def test_an_op_with_a_kink_says_so(op):
    """With one of its settings at least: an ELU's slope jumps unless alpha is 1."""
    cases = [case for name, case in BENDING.items() if name.split()[0] == op]
    kinked = any(node.kinked for case in cases for node in nodes(first(case.ours(*leaves(case)))))
    differ = any(slopes_differ(case) for case in cases)
    places = sorted({case.bends_at for case in cases})
    assert not differ or kinked, f"the slope jumps at one of {places}: its class needs `kinked = True`"
    assert not kinked or differ, f"kinked, but its slope does not jump at {places}: give a case the `bends_at` where it does"


# ----------------------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("layout", ["c_order", "channels_last", "sliced"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.theirs != ""])
def test_pytorch_has_the_same_numbers(name, layout, torch):
    from oracle.compare import VALUE, arrange, assert_same, compare

    case = CASES[name]
    arrays = [arrange(a, layout) if a.ndim == 4 or layout == "sliced" else a for a in case.arrays]
    mine, their = [Tensor(c.copy()) for c in case.constants], [torch.tensor(c) for c in case.constants]
    theirs = case.theirs or case.call
    compare(lambda *xs: case.call(F, *xs, *mine), lambda *xs: theirs(torch.nn.functional, *xs, *their), *arrays)
    for m, t in zip(mine, their, strict=True):  # which the layer may have changed
        assert_same("constant", m, t, VALUE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.elementwise])
def test_pytorch_has_the_same_edges(name, dtype, torch):
    """0 and -0, saturation, infinities and NaN, forward and backward. NumPy warns of infinity times 0; nothing may overflow.

    PyTorch gets one number at a time: at infinity its vector code has another answer than its scalar code, for gelu in float32.
    """
    from oracle.compare import compare

    case = CASES[name]
    close = {"value": 1e-6, "gradient": 1e-6} if dtype == np.float32 else {}

    def one_by_one(x):
        return torch.cat([case.call(torch.nn.functional, number) for number in x.split(1)])

    with np.errstate(invalid="ignore"):
        compare(case.ours, one_by_one, EDGES.astype(dtype), **close)


def built(case, torch):
    """The case's module in both, of float64."""
    ours = case.module(nn).double()
    if not hasattr(torch.nn, type(ours).__name__):
        pytest.skip(f"PyTorch has no {type(ours).__name__}")
    return ours, case.module(torch.nn).double()


@pytest.mark.parametrize("name", [name for name in MODULES if CASES[name].theirs != ""])
def test_pytorchs_state_dict_gives_pytorchs_module(name, torch):
    """From where it stands after a call; in a second one, which may change buffers, and in evaluation."""
    from oracle.compare import GRADIENT, VALUE, assert_same, compare

    case = CASES[name]
    ours, theirs = built(case, torch)
    _, inputs, constants = module_of(case)
    inputs, constants = [x.detach().numpy() for x in inputs], [c.numpy() for c in constants]
    for parameter, values in zip(theirs.parameters(), case.arrays[len(inputs) :], strict=True):
        parameter.data = torch.tensor(values)
    theirs(*map(torch.tensor, [*inputs, *constants]))
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for _ in range(2):
        compare(
            lambda *xs: ours(*unchanged(xs), *map(Tensor, constants)),
            lambda *xs: theirs(*unchanged(xs), *map(torch.tensor, constants)),
            *inputs,
        )
        for (key, m), (their_key, t) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
            assert key == their_key
            assert_same(key, m, t, VALUE)
        for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_same("gradient", mine.grad, their.grad, GRADIENT)
        ours.eval(), theirs.eval()


@pytest.mark.parametrize("name", MODULES)
def test_the_repr_is_pytorchs(name, torch):
    ours, theirs = built(CASES[name], torch)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("layer", [cls for file in FILES for cls in modules(file)])
def test_constructors_have_pytorchs_signature(layer, torch):
    if not hasattr(torch.nn, layer.__name__):
        pytest.skip(f"PyTorch has no {layer.__name__}")
    ours, theirs = (inspect.signature(cls).parameters.values() for cls in (layer, getattr(torch.nn, layer.__name__)))
    settings = [(p.name, p.default) for p in theirs if p.kind is not p.VAR_POSITIONAL and p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.default) for p in ours if p.name != "scale_at"] == settings
