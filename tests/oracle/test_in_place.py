"""Changes in place, comparisons, dtypes and indices are PyTorch's: the same lines run in both."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.dtypes import result_type
from minidl.optim import SGD, Adam

from .compare import host

torch = pytest.importorskip("torch")

MINE = SimpleNamespace(
    F=minidl.nn.functional,
    nn=minidl.nn,
    t=lambda a, grad=False: Tensor(np.array(a), requires_grad=grad),
    no_grad=minidl.no_grad,
    SGD=SGD,
    Adam=Adam,
)
THEIRS = SimpleNamespace(
    F=torch.nn.functional,
    nn=torch.nn,
    t=lambda a, grad=False: torch.tensor(np.array(a), requires_grad=grad),
    no_grad=torch.no_grad,
    SGD=torch.optim.SGD,
    Adam=torch.optim.Adam,
)

A, B = np.array([[1.0, 2.0, -3.0], [0.5, -1.5, 4.0]]), np.array([[2.0, -1.0, 0.5], [3.0, 1.0, -2.0]])

# ------------------------------------------------------------------------------------------------------ programs that work


def sgd_by_hand(m):
    w = m.t(A, True)
    (w * w).sum().backward()
    before = w
    with m.no_grad():
        w -= 0.1 * w.grad
    assert w is before
    return w, w.grad


def each_operator_outside_a_graph(m):
    x, y = m.t(A), m.t(B)
    alias = x.detach()
    x += y
    x -= 1
    x *= y
    x /= 2.0
    x **= 2
    return x, alias


def methods_outside_a_graph(m):
    x, y = m.t(abs(A)), m.t(B)
    results = [x.add_(y), x.add_(y, alpha=-0.5), x.sub_(y, alpha=3), x.mul_(2), x.div_(y), x.abs_().sqrt_(), x.exp_(), x.log_()]
    assert all(r is x for r in results)
    return x, x.neg_(), m.t(A).relu_(), m.t(A).tanh_(), m.t(A).sigmoid_()


def values(m):
    x = m.t(A)
    return x.copy_(m.t(B[0])), m.t(A).fill_(3), m.t(A).zero_(), m.t(np.zeros(3, "int64")).copy_(m.t([1.7, -1.7, 2.0]))


def on_a_result(m):
    w = m.t(A, True)
    y = w * 3
    y += w
    y *= m.t(B)
    y.sum().backward()
    return y, w.grad


def into_a_buffer(m):
    """A tensor outside the graph gets into it by what is written there."""
    w, total = m.t(A, True), m.t(np.zeros((2, 3)))
    total += w * w
    total[0, 1:] = w[1, :2] * 5
    total[:, [0, 2]] = 1.5
    total.sum().backward()
    return total, w.grad


def items_in_a_graph(m):
    w = m.t(A, True)
    y = w * 2
    y[0] = m.t(B[1])
    y[1, 1] = y[1, 1] * 3
    y[:, -1] = w[:, 0]
    y[[0, 1], [0, 0]] = w[1, 1]
    y.sum().backward()
    return y, w.grad


def zeroed(m):
    w = m.t(A, True)
    y = w * 2
    y.zero_()
    (y + w).sum().backward()
    return y, w.grad


def views_see_it(m):
    x = m.t(A)
    row, one, turned = x[1], x[0, 1], x.reshape(3, 2)
    x *= 2
    row += 1
    return x, row, one, turned


def items_under_no_grad(m):
    w = m.t(A, True)
    with m.no_grad():
        w[0] -= 1
        w[:, 1] = 7
        w[w > 3] = 0
    (w * w).sum().backward()
    return w, w.grad


def retained(m):
    w = m.t(A, True)
    y = w * 2
    y.retain_grad()
    y += 1
    (y * y).sum().backward()
    return y.grad, w.grad


def a_step_that_changes_nothing_saved(m):
    """sum saves nothing of w, so its gradient is right after the step too."""
    w = m.t(A, True)
    optimizer = m.SGD([w], lr=0.1)
    loss = w.sum()
    w.grad = w.detach() * 0 + 1
    optimizer.step()
    loss.backward()
    return w, w.grad


def numbers_keep_the_dtype(m):
    x = m.t(A.astype("float32"))
    x += 0.1
    x *= m.t(B)
    n = m.t(np.array([1, 2]))
    n *= 3
    return x, n


WORKING = [
    sgd_by_hand,
    each_operator_outside_a_graph,
    methods_outside_a_graph,
    values,
    on_a_result,
    into_a_buffer,
    items_in_a_graph,
    zeroed,
    views_see_it,
    items_under_no_grad,
    retained,
    a_step_that_changes_nothing_saved,
    numbers_keep_the_dtype,
]


@pytest.mark.parametrize("program", WORKING, ids=lambda p: p.__name__)
def test_a_program_gives_the_same(program):
    for mine, theirs in zip(program(MINE), program(THEIRS), strict=True):
        assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(host(mine), host(theirs), rtol=1e-14)


# ------------------------------------------------------------------------------------------------------------ inplace=True

LAYERS = {
    "relu": lambda F, x: F.relu(x, inplace=True),
    "leaky_relu": lambda F, x: F.leaky_relu(x, 0.2, inplace=True),
    "elu": lambda F, x: F.elu(x, 1.5, inplace=True),
    "silu": lambda F, x: F.silu(x, inplace=True),
    "dropout": lambda F, x: F.dropout(x, 1.0, inplace=True),
    "dropout in evaluation": lambda F, x: F.dropout(x, 0.5, training=False, inplace=True),
    "dropout of nothing": lambda F, x: F.dropout(x, 0.0, inplace=True),
    "dropout2d": lambda F, x: F.dropout2d(x, 1.0, inplace=True),
}
IMAGE = np.random.default_rng(0).standard_normal((2, 3, 4, 5))


def outside_a_graph(m, layer):
    x = m.t(IMAGE)
    alias, row = x.detach(), x[1]
    y = layer(m.F, x)
    assert y is x
    return x, alias, row


def in_a_graph(m, layer):
    w = m.t(IMAGE, True)
    x = w * 2
    y = layer(m.F, x)
    assert y is x
    (y * m.t(IMAGE)).sum().backward()
    return x, w.grad


def under_no_grad(m, layer):
    w = m.t(IMAGE, True)
    with m.no_grad():
        assert layer(m.F, w) is w
    return (w,)


def of_a_leaf(m, layer):
    try:
        layer(m.F, m.t(IMAGE, True))
    except RuntimeError:
        return (m.t(np.array(0)),)
    return (m.t(np.array(1)),)


def of_a_saved_input(m, layer):
    """Refused, but for those that change nothing."""
    x = m.t(IMAGE, True) * 1
    y = x * x
    layer(m.F, x)
    try:
        y.sum().backward()
    except RuntimeError:
        return (m.t(np.array(0)),)
    return (m.t(np.array(1)),)


@pytest.mark.parametrize("program", [outside_a_graph, in_a_graph, under_no_grad, of_a_leaf, of_a_saved_input])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_place(name, program):
    for mine, theirs in zip(program(MINE, LAYERS[name]), program(THEIRS, LAYERS[name]), strict=True):
        np.testing.assert_allclose(host(mine), host(theirs), rtol=1e-13)


def network(nn):
    """As torchvision's AlexNet begins and ends."""
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)
    )
    return nn.Sequential(
        features, nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.0), nn.Linear(16, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)
    )


def test_a_network_with_relus_in_place():
    mine, theirs = network(MINE.nn).double(), network(THEIRS.nn).double()
    mine.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    for m, net in ((MINE, mine), (THEIRS, theirs)):
        (net(m.t(IMAGE)) ** 2).sum().backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12, atol=1e-14)


# -------------------------------------------------------------------------------------------------- programs that must fail


def leaf(m):
    w = m.t(A, True)
    w += 1


def leaf_method(m):
    m.t(A, True).zero_()


def leaf_item(m):
    m.t(A, True)[0] = 1


def saved_output(m):
    w = m.t(A, True)
    y = w.exp()
    y += 1
    y.sum().backward()


def saved_output_of_a_change_in_place(m):
    w = m.t(A, True)
    y = w + 0
    y.exp_()
    y *= w
    y.sum().backward()


def replaced(m):
    w, v = m.t(A, True), m.t(B, True)
    y = w.exp()
    y.copy_(v[0] * 2)
    y.sum().backward()


def saved_input(m):
    w, x = m.t(A, True), m.t(B)
    y = w * x
    x += 1
    y.sum().backward()


def saved_through_an_alias(m):
    w = m.t(A, True)
    y = w.sigmoid()
    y.detach().zero_()
    y.sum().backward()


def saved_through_a_view(m):
    w, x = m.t(A, True), m.t(B)
    y = w * x
    x[0, 0] = 5
    y.sum().backward()


def relu_then_dropout_in_place(m):
    """The ReLU saved what the dropout changes."""
    net = m.nn.Sequential(m.nn.Linear(3, 3), m.nn.ReLU(), m.nn.Dropout(0.5, inplace=True)).double()
    net(m.t(A)).sum().backward()


def step_before_backward(m):
    w = m.t(A, True)
    w.sum().backward()
    optimizer = m.Adam([w], lr=0.1)
    loss = (w * w).sum()
    optimizer.step()
    loss.backward()


def second_backward_after_a_step(m):
    w = m.t(A, True)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    m.SGD([w], lr=0.1).step()
    loss.backward()


def larger_result(m):
    x = m.t(A[0])
    x += m.t(A)


def float_into_int(m):
    x = m.t(np.array([1, 2]))
    x += 0.5


def float_into_int_division(m):
    x = m.t(np.array([1, 2]))
    x /= 2


def number_into_bool(m):
    x = m.t(np.array([True, False]))
    x += 1


def item_that_does_not_fit(m):
    m.t(A)[0] = m.t(B)


def fill_with_axes(m):
    m.t(A).fill_(m.t(A))


def copy_that_does_not_fit(m):
    m.t(A[0]).copy_(m.t(B))


def bools_subtracted(m):
    m.t(np.array([True])) - m.t(np.array([True]))


def bool_negated(m):
    -m.t(np.array([True]))


def two_dtypes_matmul(m):
    m.t(A) @ m.t(A.T.astype("float32"))


FAILING = [
    leaf,
    leaf_method,
    leaf_item,
    saved_output,
    saved_output_of_a_change_in_place,
    replaced,
    saved_input,
    saved_through_an_alias,
    saved_through_a_view,
    relu_then_dropout_in_place,
    step_before_backward,
    second_backward_after_a_step,
    larger_result,
    float_into_int,
    float_into_int_division,
    number_into_bool,
    item_that_does_not_fit,
    fill_with_axes,
    copy_that_does_not_fit,
    bools_subtracted,
    bool_negated,
    two_dtypes_matmul,
]


@pytest.mark.parametrize("program", FAILING, ids=lambda p: p.__name__)
def test_what_pytorch_refuses_is_refused(program):
    for m in (THEIRS, MINE):
        with pytest.raises(RuntimeError):
            program(m)


# --------------------------------------------------------------------------------------------------- comparisons, dtypes

COMPARISONS = {
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
}
LOGIC = {"&": lambda x, y: x & y, "|": lambda x, y: x | y, "^": lambda x, y: x ^ y}
EDGES = np.array([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 0.1])
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
OPERANDS = [*itertools.product(DTYPES, [(2,), ()]), True, 2, 0.5]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name):
    compare = COMPARISONS[name]
    mine, theirs = MINE.t(EDGES), THEIRS.t(EDGES)
    pairs = [(compare(m[:, None], m), compare(m, 0.1), compare(0, m), compare(m, m[2])) for m in (mine, theirs)]
    for ours, of_torch in zip(*pairs, strict=True):
        assert str(ours.dtype) == "bool"
        np.testing.assert_array_equal(host(ours), host(of_torch))


@pytest.mark.parametrize("name", LOGIC)
def test_logic(name):
    logic = LOGIC[name]
    for x, y in (([True, False, True, False], [True, True, False, False]), ([1, 2, 3, -4], [6, 3, 0, 5])):
        for result in zip(
            *((logic(m.t(x), m.t(y)), logic(m.t(x), y[0]), logic(y[2], m.t(x)), ~m.t(x)) for m in (MINE, THEIRS)), strict=True
        ):
            assert str(result[0].dtype) == str(result[1].dtype).removeprefix("torch.")
            np.testing.assert_array_equal(host(result[0]), host(result[1]))


def operand(m, entry):
    return entry if not isinstance(entry, tuple) else m.t(np.ones(entry[1], entry[0]))


PAIRS = [(a, b) for a, b in itertools.product(OPERANDS, repeat=2) if isinstance(a, tuple) or isinstance(b, tuple)]
BINARY = {
    "+": lambda x, y: x + y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": lambda x, y: x**y,
    "-": lambda x, y: x - y,
}


def test_result_type_of_all_pairs():
    wrong = [
        (a, b)
        for a, b in PAIRS
        if str(result_type(operand(MINE, a), operand(MINE, b)))
        != str(torch.result_type(operand(THEIRS, a), operand(THEIRS, b))).removeprefix("torch.")
    ]
    assert wrong == []


@pytest.mark.parametrize("name", BINARY)
def test_the_dtype_and_value_of_an_operation_of_all_pairs(name):
    """But for powers of bools alone: minidl refuses all, PyTorch those of two tensors."""
    wrong = []
    for a, b in PAIRS:
        if name == "**" and all(entry is True or (isinstance(entry, tuple) and entry[0] == "bool") for entry in (a, b)):
            continue
        outcomes = []
        for m in (MINE, THEIRS):
            try:
                result = BINARY[name](operand(m, a), operand(m, b))
                outcomes.append((str(result.dtype).removeprefix("torch."), np.asarray(host(result), "float64").tolist()))
            except RuntimeError:
                outcomes.append("refused")
        if outcomes[0] != outcomes[1]:
            wrong.append((a, b, *outcomes))
    assert wrong == []


@pytest.mark.parametrize("code", ["t + 300", "t * -1", "t == 300", "t < -1", "2 - t"])
def test_integers_that_do_not_fit_wrap_around(code):
    mine, theirs = (eval(code, {"t": m.t(np.array([44, 1], "uint8"))}) for m in (MINE, THEIRS))
    np.testing.assert_array_equal(host(mine), host(theirs))


# --------------------------------------------------------------------------------------------------------------- indices

CUBE = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
PARTS = [
    0,
    -1,
    slice(None),
    slice(1, None),
    None,
    Ellipsis,
    [0, 1],
    np.array([[0, 1], [1, 1]]),
    np.array([True, False, True]),
    np.array([[True, False, True], [False, False, True]]),
    np.array(1),
]


def taken(m, index):
    """x[index] and the gradient of x, or None where it is refused."""
    x = m.t(CUBE, True)
    try:
        y = x[tuple(m.t(part) if isinstance(part, np.ndarray) else part for part in index)]
    except (IndexError, RuntimeError):
        return None
    upstream = np.random.default_rng(0).normal(size=tuple(y.shape))
    y.backward(m.t(upstream))
    return host(y), host(x.grad)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_index_of_these_parts(length):
    """Integers beside arrays too, where NumPy has another rule."""
    wrong = []
    for index in itertools.product(PARTS, repeat=length):
        if sum(part is Ellipsis for part in index) > 1:
            continue
        mine, theirs = taken(MINE, index), taken(THEIRS, index)
        same = (mine is None) == (theirs is None)
        if same and mine is not None:
            same = (
                mine[0].shape == theirs[0].shape
                and (mine[0] == theirs[0]).all()
                and np.allclose(mine[1], theirs[1], rtol=1e-12)
            )
        if not same:
            wrong.append(index)
    assert wrong == []
