"""The terms of a number add up to minidl's number, forward and backward, for every kind of op that has them."""

import itertools

import numpy as np
import pytest
from study_nets import SHAPE, Odd, Towers

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, nn
from minidl.study.step.arrays import Recording
from minidl.study.step.terms import KINDS, MOST_DIGITS, Term, Terms, terms

ASKED = 12  # numbers of each array


def recorded(model, shape, label=1):
    minidl.manual_seed(3)
    x = Tensor(np.random.default_rng(4).normal(size=shape).astype("f4"), requires_grad=True)
    with Recording() as step:
        F.cross_entropy(model(x), np.array([label] * shape[0])).backward()
    return step.ops


@pytest.fixture(scope="module", params=["towers", "odd", "batch"])
def ops(request):
    minidl.manual_seed(2)
    make = {
        "towers": lambda: recorded(Towers(), SHAPE),
        "odd": lambda: recorded(Odd(), (1, 4, 9, 10)),
        "batch": lambda: recorded(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 4)), (3, 2, 4, 4)),
    }
    return make[request.param]()


def places(shape, count=ASKED):
    size = int(np.prod(shape))
    chosen = np.random.default_rng(size).permutation(size)[:count]
    return [tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else () for flat in chosen]


def test_they_add_up_to_minidl_s_number(ops):
    asked = 0
    for op in ops:
        assert op.op in KINDS
        for slot in ("y", *(f"g{i}" for i in range(len(op.inputs)))):
            array = op.array(slot)
            for index in places(array.shape) if array is not None else ():
                found = terms(op, slot, index)
                assert abs(float(array[index]) - found.sum) <= found.bound, (op.op, slot, index)
                asked += 1
    assert asked > 100


def test_factors_are_where_they_say(ops):
    """A term is the product of its factors, where no name or `times` says that it is more."""
    for op, slot in itertools.product(ops, ("y", "g0", "g1", "g2")):
        if slot != "y" and (int(slot[1]) >= len(op.inputs) or op.array(slot) is None):
            continue
        for index in places(op.array(slot).shape, 3):
            for term in terms(op, slot, index).terms:
                assert all(float(op.array(f.slot)[f.index]) == f.value for f in term.factors)
                if not term.times and op.op != "cross_entropy":
                    assert term.value == pytest.approx(np.prod([f.value for f in term.factors]), rel=1e-12)


def test_a_convolution_by_hand():
    x = Tensor(np.arange(9, dtype="f4").reshape(1, 1, 3, 3), requires_grad=True)
    w = Tensor(np.array([[[[1, -2], [0, 3]]]], "f4"), requires_grad=True)
    with Recording() as step:
        F.conv2d(x, w, padding=1).sum().backward()
    conv = step.ops[0]
    corner = terms(conv, "y", (0, 0, 0, 0))  # three of the four lie in the padding
    assert [(t.value, [f.slot for f in t.factors]) for t in corner.terms] == [(0.0, ["x1", "x0"])]
    assert corner.notes == ("3 more meet the padding, where x is 0.",)
    assert sorted(t.value for t in terms(conv, "y", (0, 0, 2, 2)).terms) == [-10.0, 0.0, 4.0, 24.0]
    assert terms(conv, "g0", (0, 0, 1, 1)).sum == 2.0  # 1 - 2 + 0 + 3
    assert terms(conv, "g1", (0, 0, 0, 0)).sum == 36.0  # of all pixels


def test_what_has_no_terms():
    class CubeFunction(Function):
        name = "relu"  # not minidl's

        def forward(ctx, x):
            return x * x * x

    x = Tensor(np.ones(3, "f4"), requires_grad=True)
    with Recording() as step:
        F.tanh(CubeFunction.apply(x))
        x * x
    assert [terms(op, "y", (0,)) for op in step.ops] == [None] * 3


@pytest.mark.parametrize(
    "slot, index, error, message",
    [
        ("x0", (0,), ValueError, "relu made y, g0, g1, ..., got 'x0'"),
        ("g1", (0,), ValueError, "those of 1 inputs, got 'g1'"),
        ("g0", (0,), ValueError, "no gradient left relu at g0"),
        ("y", (3,), IndexError, r"y of relu has the shape \(3,\), got the index \[3\]"),
        ("y", (-1,), IndexError, r"got the index \[-1\]"),
        ("y", (0, 0), IndexError, r"got the index \[0, 0\]"),
    ],
)
def test_what_is_no_number(slot, index, error, message):
    with Recording() as step:
        F.relu(Tensor(np.ones(3, "f4")))
    with pytest.raises(error, match=message):
        terms(step.ops[0], slot, index)


def test_to_how_many_digits_sum_and_value_are_alike():
    found = Terms("", [Term(1.0, ()), Term(0.23456789, ())])
    assert found.digits(1.23456789) == MOST_DIGITS == 6
    assert found.digits(1.2346) == 5 and found.digits(1.2347) == 4  # 1.2346 and 1.2346; 1.235 and 1.235
    assert found.digits(2.0) == 1
    assert Terms("", [Term(-2.0, ())], rectified=True).sum == 0.0
