"""saved_because: for every op a reason for every array that its source saves, by the names under which backward reads it."""

import ast
import inspect
import textwrap

import pytest

from minidl import Function
from minidl.study.step.explain import _reasons, saved_because
from minidl.study.step.source import equations


def minidl_s_ops():
    def below(base):
        for cls in base.__subclasses__():
            yield cls
            yield from below(cls)

    return sorted({cls for cls in below(Function) if cls.__module__.startswith("minidl.ops.")}, key=lambda cls: cls.name)


OPS = minidl_s_ops()


def tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def saves(cls):
    """The arguments of each `ctx.save(...)` in the op's forward: names, or None for an expression that is none's alone.

    `x if ctx.needs_grad[1] else None` counts as x.
    """

    def name(argument):
        argument = argument.body if isinstance(argument, ast.IfExp) else argument
        return argument.id if isinstance(argument, ast.Name) else None

    calls = [node for node in ast.walk(tree(cls.forward)) if isinstance(node, ast.Call)]
    return [[name(a) for a in call.args] for call in calls if ast.unparse(call.func) == "ctx.save"]


def reads(cls):
    """The names on the left of `... = ctx.saved` in the op's backward."""
    for node in ast.walk(tree(cls.backward)):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "ctx.saved":
            return [name.id for name in node.targets[0].elts]
    return []


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.name)
def test_the_names_are_the_source_s(cls):
    names = list(saved_because(cls.name))
    assert names == reads(cls) == list(saved_because(cls))
    assert all(len(save) == len(names) for save in saves(cls)) and bool(saves(cls)) == bool(names)
    assert all(saved in (None, name) for save in saves(cls) for saved, name in zip(save, names, strict=True))


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.name)
def test_every_reason_is_a_sentence(cls):
    for reason in saved_because(cls.name).values():
        assert reason.endswith(".") and len(reason) > 10 and "  " not in reason


def test_a_reason_may_have_several_lines():
    rows = """What it does.

    Saved
        x     one line.
        mask  two
              lines.

    Source: nobody.
    """
    assert _reasons(rows) == {"x": "one line.", "mask": "two lines."}


def test_what_saves_nothing():
    assert saved_because("add") == saved_because("reshape") == saved_because("to_device") == {}


def test_an_op_of_the_user_s():
    class Scaled(Function):
        name = "scaled_by_two_things"

        def forward(ctx, x, y):
            ctx.save(x * 2, y)
            return x * y

        def backward(ctx, gy):
            saved = 1
            twice, y = ctx.saved
            return gy * y * saved, gy * twice / 2

    class Nothing(Function):
        name = "saves_nothing"

        def backward(ctx, gy):
            return (gy,)

    assert saved_because(Scaled) == saved_because("scaled_by_two_things") == {"twice": "", "y": ""}

    class Relu(Nothing):
        """Has the name of an op of minidl's."""

        name = "relu"

    assert saved_because(Nothing) == saved_because(Relu) == {}


def test_an_op_without_source():
    names = {"Function": Function}
    exec("class Typed(Function):\n name = 'typed'\n def backward(ctx, gy):\n  (x,) = ctx.saved\n  return (x,)", names)
    assert saved_because(names["Typed"]) == {}


def test_an_op_that_is_not():
    with pytest.raises(ValueError, match=r"^find_op: no Function has the name 'rleu'$"):
        saved_because("rleu")


def test_the_formulas_are_those_of_the_ops():
    """Where a reason states a gradient, its op's own docstring has the same right-hand side."""
    formulas = {"div": "gz / y", "pow": "gz * p * x^(p-1)", "exp": "gy * y", "log": "gy / x", "sqrt": "gy / (2 y)"}
    for op, formula in formulas.items():
        assert any(formula in reason for reason in saved_because(op).values()) and formula in equations(op).backward
