"""The table of docs/mutations.md: its checks pass right code, its columns are what is computed, its prose says what it shows.

PyTorch's columns are computed in tests/oracle/test_mutations.py.
"""

import re
import sys

import numpy as np
import pytest
from mutation_page import AGAIN, PAGE, check_columns, committed

import minidl
from minidl import Tensor
from minidl.study.gallery import mutation_checks, mutations
from minidl.study.gallery.mutation_checks import (
    CASES,
    CHECKS,
    ERROR,
    FOUND,
    KINK,
    MISSED,
    WITHOUT_TORCH,
    Case,
    MismatchError,
    descriptions,
    fewest,
    found_by,
    harmless,
    markdown,
    train,
    updated,
    verdict,
    with_part,
)
from minidl.study.gallery.mutations import GALLERY, find, mutation

ROWS = [(each.name, case) for each in GALLERY for case in each.cases]


# --------------------------------------------------------------------------------------------------------- the document


@pytest.mark.parametrize("check", WITHOUT_TORCH)
def test_the_column_is_what_is_computed(check):
    check_columns([check])


def test_the_rest_of_the_page_is_what_is_computed(monkeypatch):
    monkeypatch.setattr(mutation_checks, "table", committed)
    assert updated(PAGE) == PAGE, AGAIN
    old = PAGE
    for part in ("table", "summary", "cases", "descriptions"):
        old = with_part(old, part, "something old")
    assert updated(old) == PAGE


def test_a_page_that_is_not_up_to_date_says_what_to_do(monkeypatch):
    monkeypatch.setitem(CHECKS, "twice", lambda case: None)
    with pytest.raises(AssertionError, match=r"make it again: python -m minidl\.study mutations --update ") as error:
        check_columns(["twice"])
    assert "computed: ['relu-in-place', 'relu', '—']" in str(error.value)
    assert "the page: ['relu-in-place', 'relu', 'found']" in str(error.value)


def test_what_the_page_says_of_the_table():
    """Its prose counts nothing, so that a further mutation changes nothing of it; what it says of one is so."""
    rows = committed()
    found = {check: found_by(rows, column) for column, check in enumerate(CHECKS, 2)}
    cell = {(name, case, check): verdict for name, case, *line in rows for check, verdict in zip(CHECKS, line, strict=True)}
    everything = {each.name for each in GALLERY}

    assert len(found["training"]) < len(GALLERY) / 2
    assert any(cell[name, case, "training"] == ERROR for name, case in ROWS)
    for name in ("conv2d-kernel-flipped", "lrn-cross-term", "dropout-mask"):
        assert name not in found["training"]
    assert cell["softmax-zero", "softmax", "training"] == FOUND

    for name in ("softmax-zero", "permute-not-inverted", "conv2d-groups-interleaved"):
        cases = [case for mistake, case in ROWS if mistake == name]
        assert any(cell[name, case, "gradcheck"] == FOUND and cell[name, case, "ones"] == MISSED for case in cases)
    assert cell["relu-gradient-in-place", "relu", "ones"] == ERROR

    padding = {check: cell["max-pool2d-zero-padding", "max_pool2d", check] for check in CHECKS}
    assert padding["gradcheck"] == padding["ones"] == padding["torch gradcheck"] == MISSED
    assert padding["definition"] == padding["PyTorch"] == FOUND
    assert all("ties" in row[1] for row in rows if KINK in row)
    ties = [cell["amax-ties-whole", "amax, ties", check] for check in ("gradcheck", "ones", "torch gradcheck")]
    assert ties == [KINK, FOUND, FOUND]
    assert cell["tanh-factor", "tanh", "torch gradcheck"] == MISSED and "tanh-factor" in found["ones"]
    for name in ("engine-grad-overwritten", "engine-grad-shared"):
        assert [check for check in CHECKS if name in found[check]] == ["twice"]
    assert "relu-gradient-in-place" in found["twice"] - found["torch gradcheck"]
    assert all(cell["relu-in-place", "relu of tanh", check] == MISSED for check in CHECKS)

    assert all(names < everything for names in found.values())
    assert found["definition"] | found["twice"] == found["PyTorch"] | found["twice"] == everything


def test_the_fewest_checks():
    found = {"a": {1, 2}, "b": {2, 3}, "c": {3}, "d": set()}
    assert fewest(found) == [("a", "b"), ("a", "c")]
    assert fewest({"a": {1}, "b": {1, 2}}) == [("b",)]
    assert fewest({"a": {1}, "b": {2}}) == [("a", "b")]


def test_mistakes_that_change_no_loss():
    """One backward after another from gradients of zero: an engine that overwrites them shows nothing."""
    names = ("engine-grad-overwritten", "relu-in-place", "tanh-factor")
    rows = [row for row in committed() if row[0] in names]
    assert harmless(rows) == ["engine-grad-overwritten", "relu-in-place"]


def test_the_net_around_its_first_case_runs_the_line_of_every_mutation():
    for each in GALLERY:
        ran = set()
        sys.setprofile(lambda frame, event, _, ran=ran: ran.add(frame.f_code) if event == "call" else None)
        try:
            with minidl.plain_kernels():
                train(CASES[each.cases[0]], 1)
        finally:
            sys.setprofile(None)
        assert each.function.__code__ in ran, each.name


# ------------------------------------------------------------------------------------------------------- cases and rows


def tie_of(n):
    """amax of n numbers that are all 0 at the case's inputs."""
    inputs = Case("", np.add, ((1, n),), np.add).arrays()[0]
    return Case("", lambda F, x: (x - inputs).amax(1), ((1, n),), lambda x: mutation_checks.amax(x - inputs))


def test_central_differences_at_a_tie():
    """The slope on one side is 1, on the other 0, their mean one half: the share of two that tie, not of three."""
    CHECKS["definition"](tie_of(2))
    CHECKS["ones"](tie_of(2))
    CHECKS["definition"](tie_of(3))
    with pytest.raises(MismatchError, match=r"expected \[\[0.5 0.5 0.5\]\], got \[\[0.3333"):
        CHECKS["ones"](tie_of(3))


def test_every_case_is_used_and_known():
    assert {case for _, case in ROWS} == set(CASES)
    assert len(ROWS) == len(set(ROWS))


@pytest.mark.parametrize("check", WITHOUT_TORCH)
@pytest.mark.parametrize("case", CASES)
def test_right_code_passes(check, case):
    ties = {"gradcheck": {"max_pool2d, ties", "amax, ties"}, "ones": {"max_pool2d, ties"}}
    expected = FOUND if case in ties.get(check, ()) else MISSED
    assert mutation_checks._verdict_on_right_code(check, case) == expected


def test_training_is_repeated_bit_for_bit():
    assert train(CASES["dropout"], 3) == train(CASES["dropout"], 3)


def test_training_needs_half_the_loss(monkeypatch):
    for factor, passes in ((0.51, False), (0.49, True)):
        monkeypatch.setattr(mutation_checks, "train", lambda case, factor=factor: [2.0, 9.0, *[2 * factor] * 5])
        if passes:
            CHECKS["training"](CASES["tanh"])
        else:
            with pytest.raises(MismatchError, match=r"^the loss went from 2.000 to 1.020$"):
                CHECKS["training"](CASES["tanh"])


def test_definitions_take_what_they_are_given():
    """The same result for real numbers, and for complex ones with nothing imaginary."""
    for case in CASES.values():
        arrays = case.arrays()
        np.testing.assert_allclose(case.definition(*(a + 0j for a in arrays)), case.definition(*arrays), rtol=1e-14)


# ------------------------------------------------------------------------------------------------------------- verdicts


def wrong_by(factor):
    """A case whose definition is not what is computed."""
    return Case("", lambda F, x: x * 1.0, ((2, 3),), lambda x: factor * x)


def test_the_definition_check_compares_outputs_and_slopes():
    CHECKS["definition"](wrong_by(1.0))
    with pytest.raises(MismatchError, match=r"^output: expected "):
        CHECKS["definition"](wrong_by(1.0 + 1e-8))
    with pytest.raises(MismatchError, match=r"^slope: expected "):
        CHECKS["definition"](Case("", lambda F, x: x * 1.0, ((2, 3),), lambda x: x.real + 1.00000001j * x.imag))


class Scribbling(minidl.Function):
    """x -> x + 0, with a backward that does what the test says."""

    name = "scribbling"

    def forward(ctx, x, y, what):
        ctx.what = what
        ctx.save(x)
        return x + 0 * y

    def backward(ctx, gy):
        return ctx.what(ctx, gy)


def halved(ctx, gy):
    gy /= 2
    return gy.copy(), gy.copy()


def input_cleared(ctx, gy):
    ctx.saved[0][...] = 0
    return gy.copy(), gy.copy()


def each_time_more(ctx, gy):
    ctx.times = getattr(ctx, "times", 0) + 1
    return ctx.times * gy, gy.copy()


@pytest.mark.parametrize(
    "what, message",
    [
        (halved, "^gradient after two backwards"),
        (each_time_more, "^gradient after two backwards"),
        (input_cleared, "^input after backward"),
    ],
)
def test_what_the_check_twice_sees(what, message):
    case = Case("", lambda F, x, y: Scribbling.apply(x, y, what=what), ((2, 3), (2, 3)), np.add)
    with pytest.raises(MismatchError, match=message):
        CHECKS["twice"](case)


def test_the_check_twice_sees_an_incoming_gradient_that_is_modified_afterwards():
    def overwritten(ctx, gy):
        given = gy.copy()
        gy[...] = given  # the same numbers, so that both backwards agree
        gy[0, 0] = ctx.first = getattr(ctx, "first", given[0, 0] + 1)
        given[0, 0] = 0
        return given, given.copy()

    case = Case("", lambda F, x, y: Scribbling.apply(x, y, what=overwritten), ((2, 3), (2, 3)), np.add)
    with pytest.raises(MismatchError, match=r"^incoming gradient after backward"):
        CHECKS["twice"](case)


def test_the_check_twice_sees_shared_memory():
    with mutation("engine-grad-overwritten"), pytest.raises(MismatchError, match=r"^gradient after two backwards"):
        CHECKS["twice"](CASES["add"])
    alone = Case("", lambda F, x: x + 0.0, ((2, 3),), np.copy)  # with the incoming gradient
    for case in (CASES["add"], alone):
        with mutation("engine-grad-shared"), pytest.raises(MismatchError, match=r"^two gradients share memory$"):
            CHECKS["twice"](case)


def test_a_gradient_that_never_came_is_zeros():
    with pytest.raises(MismatchError, match=r"^slope: "):
        CHECKS["definition"](Case("", lambda F, x, y: x + y.detach(), ((2, 3), (2, 3)), np.add))


@pytest.mark.parametrize(
    "error, expected",
    [(MismatchError, FOUND), (minidl.GradcheckError, FOUND), (RuntimeError, ERROR), (TypeError, ERROR), (None, MISSED)],
)
def test_verdicts(error, expected, monkeypatch):
    def check(case):
        minidl.rand(3)
        if error is not None and mutations._present is not None:
            raise error("on purpose")

    monkeypatch.setitem(CHECKS, "fake", check)
    mutation_checks._verdict_on_right_code.cache_clear()
    before = minidl.random.default_generator.state()
    assert verdict("fake", "tanh", find("tanh-factor")) == expected
    assert minidl.random.default_generator.state() == before


def test_a_check_that_right_code_fails_says_nothing(monkeypatch):
    def check(case):
        assert mutations._present is None, "it must not be asked again"
        raise MismatchError("always")

    monkeypatch.setitem(CHECKS, "always", check)
    assert verdict("always", "tanh", find("tanh-factor")) == KINK


def test_warnings_are_no_errors(monkeypatch):
    monkeypatch.setitem(CHECKS, "log", lambda case: np.log(np.zeros(1)))
    assert verdict("log", "tanh", find("tanh-factor")) == MISSED


def test_without_pytorch_its_columns_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    mutation_checks._verdict_on_right_code.cache_clear()
    with pytest.raises(ImportError):
        verdict("PyTorch", "tanh", find("tanh-factor"))
    with pytest.raises(ImportError):
        updated(PAGE)


def test_fast_twins_do_not_run():
    """A wrong kernel would blame right code."""
    seen = []

    def note(case):
        seen.append(minidl.kernels.fastest(minidl.ops.relu.relu_forward, np.zeros(1)) is minidl.ops.relu.relu_forward)

    CHECKS["note"] = note
    try:
        verdict("note", "relu", find("relu-in-place"))
    finally:
        del CHECKS["note"]
    assert seen == [True, True]


# --------------------------------------------------------------------------------------------------------- the document


def test_markdown():
    rows = [["a", "x", FOUND, MISSED], ["a", "y", MISSED, ERROR], ["b", "y", KINK, MISSED]]
    assert found_by(rows, 2) == found_by(rows, 3) == {"a"}
    assert markdown(rows, ["one", "two"]).splitlines() == [
        "| mutation | case | one | two |",
        "| :-- | :-- | :-- | :-- |",
        "| [a](#a) | x | found | — |",
        "|  | y | — | error |",
        "| [b](#b) | y | kink | — |",
        f"| **found** |  | 1 of {len(GALLERY)} | 1 of {len(GALLERY)} |",
    ]


def test_descriptions():
    text = descriptions()
    assert len(re.findall(r"^#### ", text, re.MULTILINE)) == len(GALLERY)
    expected = (
        "#### dropout-mask\n\n"
        "The mask is forgotten: silent units learn too. In `minidl/ops/dropout.py`, `dropout_backward`. Seen in\n"
        "[ddbourgin/numpy-ml#94](https://github.com/ddbourgin/numpy-ml/issues/94).\n\n"
        "```diff\n- return gy * mask * gy.dtype.type(scale)\n+ return gy * gy.dtype.type(scale)\n```\n"
    )
    assert expected in text


def test_with_part():
    page = "a\n<!-- t -->\nold\n<!-- end of t -->\nb\n"
    new = "a\n<!-- t -->\n\nnew\n\n<!-- end of t -->\nb\n"
    assert with_part(page, "t", "new") == with_part(new, "t", "new") == new
    for wrong in ("a", "<!-- t -->", "<!-- end of t -->", page + page):
        with pytest.raises(
            ValueError, match=r"^with_part: the page must have <!-- t --> and <!-- end of t --> once each, got "
        ):
            with_part(wrong, "t", "new")


def test_tensors_are_float64_and_require_a_gradient():
    for case in CASES.values():
        for x, array in zip(case.tensors(), case.arrays(), strict=True):
            assert isinstance(x, Tensor) and x.requires_grad and x.dtype == np.float64
            assert np.array_equal(x.data, array)
            assert not case.whole or np.array_equal(array, np.round(array))
