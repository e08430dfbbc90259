"""SourceLines: the lines that ran and no others, and what was traced before is traced again. Equations: every op has them."""

import gc
import importlib.util
import sys
import textwrap
import weakref

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, plain_kernels
from minidl.observer import Observer
from minidl.ops import cross_entropy, relu
from minidl.study.step.source import Equations, SourceLines, equations, find_op

OPS = """\
\"\"\"A module of ops.

    thrice    y = 3 x     gx = 3 gy     (exactly)     gw = 0
    thrice_and_more    y = x     gx = gy

Source: nobody,
never.
\"\"\"
from functools import wraps

import numpy as np

from minidl.tensor import Function


def logged(function):
    @wraps(function)
    def inner(*args):
        return function(*args)

    return inner


def twice(
    x,
):
    \"\"\"Two lines, of which the first is a
    docstring's.\"\"\"
    def add(y):
        return y + y

    # a comment
    return add(
        x
    )


def never(x):
    return x


@logged
def pieces(x):
    for part in [
        1,
        2,
    ]:
        yield part
    else:
        x = 0
    while (
        x < 1
        # why
    ):

        # because
        x += 1


class Outer:
    def make(self):
        class Local(Function):
            name = "local"

            def forward(ctx, x):
                if x is None: return
                return x * 1

            def backward(ctx, gy):
                return gy,

        return Local

    class Thrice(Function):
        name = "thrice"

        def forward(ctx, x):
            with np.errstate(
                all="ignore"
            ):
                y = x * 0
            if x.sum() > 1e9:
                return never(x)
            elif x is None: return x
            for part in pieces(x):
                y = y + part * [x for _ in range(1)][0]
            try:
                ctx.save(
                    y)
            except ValueError:
                raise
            match y.ndim:
                case 7:
                    y = 0
                case _:
                    pass
            twice(x), twice(x)
            return y

        def backward(ctx, gy):
            gx = 3 * gy
            return gx,
"""
THRICE = """\
def forward(ctx, x):
*    with np.errstate(
*        all="ignore"
*    ):
*        y = x * 0
*    if x.sum() > 1e9:
        return never(x)
*    elif x is None: return x
*    for part in pieces(x):
*        y = y + part * [x for _ in range(1)][0]
*    try:
*        ctx.save(
*            y)
    except ValueError:
        raise
*    match y.ndim:
*        case 7:
            y = 0
*        case _:
*            pass
*    twice(x), twice(x)
*    return y
"""
PIECES = """\
@logged
def pieces(x):
*    for part in [
*        1,
*        2,
*    ]:
*        yield part
    else:
*        x = 0
*    while (
*        x < 1
*        # why
*    ):

        # because
*        x += 1
"""
TWICE = """\
def twice(
    x,
):
    \"\"\"Two lines, of which the first is a
    docstring's.\"\"\"
*    def add(y):
*        return y + y

    # a comment
*    return add(
*        x
*    )
"""


@pytest.fixture
def ops(tmp_path):
    """The module OPS, from a file of its own."""
    path = tmp_path / "some_ops.py"
    path.write_text(OPS)
    spec = importlib.util.spec_from_file_location("some_ops_of_a_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Nodes(Observer):
    """Keeps every node."""

    def __init__(self):
        self.nodes = []

    def forward_ends(self, node, inputs, settings, out):
        self.nodes.append(node)


def step(function, *inputs):
    """(lines, nodes) of function(inputs), and of the backward of its sum."""
    with Nodes() as nodes, SourceLines() as lines:
        function(*inputs).sum().backward()
    return lines, nodes.nodes


def functions(passages):
    return [(p.file, p.function) for p in passages]


def starred(passage):
    """The passage's text, a star before each line that ran."""
    numbers = range(passage.first_line, passage.first_line + len(passage.lines))
    assert passage.ran <= set(numbers)
    return [("*" if number in passage.ran else "") + line for number, line in zip(numbers, passage.lines, strict=True)]


# ----------------------------------------------------------------------------------------------------------------- lines


def test_the_lines_that_ran_and_no_others(ops):
    lines, nodes = step(ops.Outer.Thrice.apply, minidl.ones(2, requires_grad=True))
    forward, backward = lines.of(nodes[0])
    expected = ["Outer.Thrice.forward", "inner", "pieces", "twice"]  # `inner` is around pieces, and `logged` ran long before
    assert functions(forward) == [("some_ops.py", name) for name in expected]
    by_name = {p.function: p for p in forward}
    assert starred(by_name["Outer.Thrice.forward"]) == THRICE.splitlines()
    assert starred(by_name["pieces"]) == PIECES.splitlines()
    assert starred(by_name["twice"]) == TWICE.splitlines()
    assert functions(backward) == [("some_ops.py", "Outer.Thrice.backward")]
    assert starred(backward[0]) == ["def backward(ctx, gy):", "*    gx = 3 * gy", "*    return gx,"]
    source = OPS.split("\n")
    for p in (*forward, *backward):
        assert p.lines == textwrap.dedent("\n".join(source[p.first_line - 1 :][: len(p.lines)])).split("\n")


def test_a_class_in_a_function(ops):
    lines, nodes = step(ops.Outer().make().apply, minidl.ones(2, requires_grad=True))
    (forward,), (backward,) = lines.of(nodes[0])
    assert (forward.function, backward.function) == ("Local.forward", "Local.backward")
    assert starred(forward) == ["def forward(ctx, x):", "*    if x is None: return", "*    return x * 1"]


def test_a_convolution_by_its_plain_functions():
    x, w, b = minidl.randn(1, 2, 5, 5), minidl.randn(3, 2, 3, 3, requires_grad=True), minidl.zeros(3, requires_grad=True)
    with plain_kernels():
        lines, (conv, _) = step(lambda: F.conv2d(x, w, b, padding=1))
    forward, backward = lines.of(conv)
    file = "minidl/ops/conv2d.py"
    expected = ["Conv2dFunction.forward", "conv2d_forward", "pad_images", "_pieces", "im2col"]
    assert functions(forward) == [(file, name) for name in expected]
    expected = ["Conv2dFunction.backward", "conv2d_backward", "pad_images", "_pieces", "im2col"]
    assert functions(backward) == [(file, name) for name in expected]
    text = "\n".join(starred(backward[1]))
    assert "*        if gw is not None:\n*            col = im2col" in text
    assert "*        if gpadded is not None:\n            gcol = " in text  # x needs no gradient: col2im does not run


def test_functions_of_other_ops_files_are_seen():
    x = minidl.randn(1, 2, 4, 4, requires_grad=True)
    with plain_kernels():
        lines, (pool, _) = step(lambda: F.max_pool2d(x, 2, padding=1))
    files = {p.function: p.file for p in lines.of(pool)[0]}
    assert files["max_pool2d_forward"] == "minidl/ops/max_pool2d.py"
    assert files["pad_images"] == files["tap"] == "minidl/ops/conv2d.py"
    assert not {"pool_padding", "nhwc", "fastest"} & set(files)


def test_replacements_where_they_run():
    x = minidl.randn(1, 2, 4, 4, requires_grad=True)
    lines, (relu_node, _) = step(F.relu, x)
    assert functions(lines.of(relu_node)[0])[:2] == [
        ("minidl/ops/relu.py", "ReLUFunction.forward"),
        ("minidl/kernels/cpu/relu.py", "relu_forward"),
    ]


def test_each_node_has_its_own_lines():
    def both(x):
        return F.relu(x) + F.tanh(x)

    with plain_kernels():
        lines, (relu_node, tanh_node, add, _) = step(both, minidl.randn(3, requires_grad=True))
    assert [p.function for p in lines.of(relu_node)[1]] == ["ReLUFunction.backward", "relu_backward"]
    assert [p.function for p in lines.of(tanh_node)[0]] == ["TanhFunction.forward", "tanh_forward"]
    assert [p.function for p in lines.of(add)[1]] == ["AddFunction.backward", "unbroadcast"]


def test_lines_outside_an_op_are_not_its(ops):
    def called_between(x):
        y = ops.Outer.Thrice.apply(x)
        ops.never(y)
        return y

    lines, nodes = step(called_between, minidl.ones(2, requires_grad=True))
    assert all(p.function != "never" for passages in lines.of(nodes[0]) for p in passages)


def test_what_did_not_run_here_has_no_lines():
    x = minidl.ones(2, requires_grad=True)
    with Nodes() as nodes:
        y = F.relu(x)
    with SourceLines() as lines:
        y.sum().backward()
    forward, backward = lines.of(nodes.nodes[0])
    assert forward == [] and backward[0].function == "ReLUFunction.backward"
    with Nodes() as nodes, SourceLines() as lines:
        F.relu(x)
    assert lines.of(nodes.nodes[0])[1] == []


def test_an_op_without_a_source_file_has_no_lines():
    names = {"Function": Function}
    methods = " def forward(ctx, x): return x * 1\n def backward(ctx, gy): return gy,"
    exec(f"class Typed(Function):\n name = 'typed'\n{methods}", names)
    lines, nodes = step(names["Typed"].apply, minidl.ones(2, requires_grad=True))
    assert lines.of(nodes[0]) == ([], [])


def test_nodes_are_not_kept():
    with SourceLines() as lines:
        y = F.relu(minidl.ones(2, requires_grad=True))
        y.sum().backward()
        node = weakref.ref(y._node)
        del y
        gc.collect()
    assert node() is None and not lines._forward and not lines._backward


def test_numbers_are_the_same():
    x = minidl.randn(2, 3, 8, 8)
    w = minidl.randn(4, 3, 3, 3, requires_grad=True)
    y = F.conv2d(x, w)
    y.sum().backward()
    expected, w.grad = w.grad, None
    with SourceLines():
        again = F.conv2d(x, w)
        again.sum().backward()
    np.testing.assert_array_equal(again.data, y.data)
    np.testing.assert_array_equal(w.grad, expected)


# ------------------------------------------------------------------------------------------------- the trace function before


class Broken(Function):
    """Raises where it is told to."""

    name = "broken"

    def forward(ctx, x, where):
        ctx.where = where
        if where == "forward":
            raise ArithmeticError(where)
        return x * 1

    def backward(ctx, gy):
        if ctx.where == "backward":
            raise ArithmeticError(ctx.where)
        return gy, None


@pytest.fixture
def tracer():
    """A trace function that is set during the test; it notes the names of what is called."""
    called = []

    def trace(frame, event, arg):
        called.append(frame.f_code.co_name)

    trace.called = called
    before = sys.gettrace()
    sys.settrace(trace)
    yield trace
    sys.settrace(before)


@pytest.mark.parametrize("where", ["nowhere", "forward", "backward"])
def test_the_trace_function_is_put_back(tracer, where):
    x = minidl.ones(2, requires_grad=True)
    with SourceLines():
        try:
            y = Broken.apply(x, where)
            assert sys.gettrace() is tracer
            y.sum().backward()
            assert where == "nowhere"
        except ArithmeticError as error:
            assert str(error) == where
        assert sys.gettrace() is tracer
    assert sys.gettrace() is tracer
    assert "forward" not in tracer.called and "apply" in tracer.called


def test_the_trace_function_is_put_back_where_no_method_ran(tracer):
    class Refuses(Observer):
        def forward_begins(self, node, inputs, settings):
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"), SourceLines(), Refuses():
        F.relu(minidl.ones(2))
    assert sys.gettrace() is tracer


def test_a_trace_function_that_the_op_sets_stays():
    def own(frame, event, arg):
        return None

    class SetsOne(Function):
        name = "sets_one"

        def forward(ctx, x):
            sys.settrace(own)
            return x * 1

    before = sys.gettrace()
    try:
        with SourceLines():
            SetsOne.apply(minidl.ones(2))
            assert sys.gettrace() is own
    finally:
        sys.settrace(before)


# ------------------------------------------------------------------------------------------------------------- equations


def minidl_s_ops():
    def below(base):
        for cls in base.__subclasses__():
            yield cls
            yield from below(cls)

    return sorted({cls.name for cls in below(Function) if cls.__module__.startswith("minidl.ops.")})


def test_there_are_all_ops():
    assert len(minidl_s_ops()) > 30 and {"conv2d", "cross_entropy", "add", "getitem", "max", "to_device"} < set(minidl_s_ops())


@pytest.mark.parametrize("op", minidl_s_ops())
def test_every_op_has_equations(op):
    found = equations(op)
    assert "=" in found.forward and "=" in found.backward and found.file.startswith("minidl/ops/")
    lines = [*found.forward.split("\n"), *found.backward.split("\n")]
    assert all(line == line.rstrip() for line in lines)
    assert not any(line.startswith(f"{name}  ") for name in minidl_s_ops() for line in lines)


def test_equations_of_a_file_of_one_op():
    found = equations("tanh")
    assert found == Equations(
        "y = tanh x",
        "gx = gy * (1 - y^2)          vanishes where |y| is near 1: the unit is saturated",
        "",
        "minidl/ops/tanh.py",
    )
    found = equations("conv2d")
    assert found.forward.startswith("y[n,o,i,j] = b[o] + sum") and found.forward.endswith("y = col @ w + b.")
    assert "\n\nThe patch under" in found.forward
    assert found.backward.startswith("differentiate that product, and undo the gather\ngb   = sum of gy")
    assert found.backward.endswith("so it adds where im2col copied") and found.source.startswith("Chellapilla, Puri")
    assert equations("dropout").source.endswith("section 4.2; the 2012 code's layer.cu (DropoutLayer).")  # of two lines


def test_equations_of_one_op_among_several():
    softmax, log_softmax = equations("softmax"), equations("log_softmax")
    assert softmax.forward.split("\n")[0] == "y[i] = e^x[i] / sum over j of e^x[j]"
    assert log_softmax.forward.split("\n")[0] == "y[i] = x[i] - ln sum over j of e^x[j]"
    assert softmax.forward.split("\n")[1:] == log_softmax.forward.split("\n")[1:] != []
    assert "log_softmax" not in softmax.forward + softmax.backward
    assert (equations("nll_loss").forward, equations("nll_loss").backward) == (
        "loss = - sum over c of t[c] * x[c]",
        "gx[c] = - gloss * t[c]",
    )
    assert equations("nll_loss").source == equations("cross_entropy").source != ""


def test_equations_of_a_row_in_a_table(ops):
    mul = equations("mul")
    assert (mul.forward, mul.backward) == ("z = x * y", "gx = gz * y\ngy = gz * x")
    assert equations("abs").backward == "gx = gy * sign(x)       (0 at 0 and at NaN)"
    assert equations("sqrt").forward == "y = sqrt(x)"
    found = equations(ops.Outer.Thrice)
    assert found == Equations("y = 3 x", "gx = 3 gy     (exactly)\ngw = 0", "nobody, never.", "some_ops.py")


def test_equations_of_an_op_s_own_class():
    class Stated(Function):
        """What it is.

        Forward: first, and
            y = x

            for all x
        Backward
            gx = gy
        Not that.
        Source: Me.
        """

        name = "stated"

        def forward(ctx, x):
            return x

    class Told(Function):
        """y = x, more or less."""

        name = "told"

        def forward(ctx, x):
            return x

    class Untold(Function):
        name = "untold"

        def forward(ctx, x):
            return x

    assert equations("stated") == Equations("first, and\ny = x\n\nfor all x", "gx = gy", "Me.", "test_source.py")
    assert equations(Told) == Equations("y = x, more or less.", "", "", "test_source.py")
    assert equations(Untold) == Equations("", "", "", "test_source.py")


def test_an_op_is_found_by_its_name():
    class Relu(Function):
        name = "relu"

    class First(Function):
        name = "one_of_two"

    class Second(First):
        name = "one_of_two"

    assert find_op("relu") is relu.ReLUFunction and find_op("nll_loss") is cross_entropy.NLLLossFunction
    assert find_op("one_of_two") is Second
    with pytest.raises(ValueError, match=r"^find_op: no Function has the name 'rleu'$"):
        equations("rleu")
