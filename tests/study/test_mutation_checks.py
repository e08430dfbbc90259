"""The table of docs/mutations.md: its checks pass right code, its columns are what is computed, its prose says what it shows.

PyTorch's columns are computed in tests/oracle/test_mutations.py.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.study import mutation_checks, mutations
from minidl.study.mutation_checks import (
    CASES,
    CHECKS,
    ERROR,
    FOUND,
    KINK,
    MISSED,
    WITHOUT_TORCH,
    Case,
    MismatchError,
    cases,
    descriptions,
    found_by,
    markdown,
    table,
    train,
    updated,
    verdict,
    with_part,
)
from minidl.study.mutations import GALLERY, find, mutation

PAGE = (Path(__file__).parents[2] / "docs/mutations.md").read_text()
ROWS = [(each.name, case) for each in GALLERY for case in each.cases]


@pytest.fixture(scope="module")
def computed():
    """The columns that need no PyTorch."""
    return table(WITHOUT_TORCH)


@pytest.fixture(scope="module")
def committed():
    """The table of the page, as `table()` gives it."""
    part = PAGE.partition("<!-- table -->")[2].partition("<!-- end of table -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.strip().splitlines()]
    assert lines[0] == ["mutation", "case", *CHECKS]
    rows = lines[2:-1]
    for before, row in zip([None, *rows], rows, strict=False):
        row[0] = row[0].partition("]")[0].strip("[") or before[0]
    return rows


# --------------------------------------------------------------------------------------------------------- the document


def test_the_table_is_what_is_computed(computed, committed):
    own = 2 + len(WITHOUT_TORCH)
    assert [row[:own] for row in committed] == computed


def test_the_other_parts_are_what_is_computed():
    for part, text in (("cases", cases()), ("descriptions", descriptions())):
        assert with_part(PAGE, part, text) == PAGE


def test_the_last_row_counts(committed):
    last = PAGE.partition("<!-- end of table -->")[0].strip().splitlines()[-1]
    counts = [f"{len(found_by(committed, 2 + i))} of {len(GALLERY)}" for i in range(len(CHECKS))]
    assert last == f"| **found** |  | {' | '.join(counts)} |"


def column(check):
    return 2 + list(CHECKS).index(check)


def test_what_the_page_says_of_the_table(committed):
    """Every claim that can be computed, beside the words that make it."""
    found = {check: found_by(committed, column(check)) for check in CHECKS}
    cell = {(row[0], row[1]): row[2:] for row in committed}
    everything = {each.name for each in GALLERY}
    text = " ".join(PAGE.split())
    numbers = {word: n for n, word in enumerate(["three", "four", "five", "six", "seven"], 3)}

    assert text.count("Forty-two mistakes") == 1 and len(GALLERY) == 42 and len(CHECKS) == numbers["seven"]
    stopped = {row[0] for row in committed if row[column("training")] == ERROR}
    assert "Training finds 8 of the 42, five of them because an exception ends it." in text
    assert (len(found["training"]), len(stopped)) == (8, numbers["five"])
    for name in ("conv2d-kernel-flipped", "lrn-cross-term", "softmax-zero", "dropout-mask"):
        assert name not in found["training"]

    ones = {"softmax-zero", "permute-not-inverted", "conv2d-groups-interleaved"}
    missed = {row[0] for row in committed if row[column("gradcheck")] == FOUND and row[column("ones")] == MISSED}
    assert missed == ones
    assert cell["relu-gradient-in-place", "relu"][1] == ERROR

    padding = cell["max-pool2d-zero-padding", "max_pool2d"]
    assert [padding[list(CHECKS).index(c)] for c in ("gradcheck", "ones", "torch gradcheck")] == [MISSED] * 3
    assert "max-pool2d-zero-padding" in found["definition"] & found["PyTorch"]
    kinks = {row[1] for row in committed if KINK in row}
    assert kinks == {"max_pool2d, ties", "amax, ties"}
    assert cell["amax-ties-whole", "amax, ties"] == [KINK, FOUND, FOUND, MISSED, MISSED, FOUND, FOUND]
    assert cell["tanh-factor", "tanh"][-1] == MISSED and "tanh-factor" in found["ones"]
    for name in ("engine-grad-overwritten", "engine-grad-shared"):
        assert [check for check in CHECKS if name in found[check]] == ["twice"]
    assert "relu-gradient-in-place" in found["twice"] - found["torch gradcheck"]

    of_case = [column(check) for check in CHECKS if check != "training"]
    hidden = {row[0] for row in committed if all(row[i] == MISSED for i in of_case)}
    assert f"{len(hidden)} of the mutations have a case on which no check finds them" in text
    assert set(cell["relu-in-place", "relu of tanh"]) == {MISSED, ""}

    assert max(map(len, found.values())) < 42
    assert found["definition"] | found["twice"] == everything
    rest = everything - found["gradcheck"] - found["twice"]
    assert rest == {"max-pool2d-ties-last", "amax-ties-whole", "max-pool2d-zero-padding"} and len(rest) == numbers["three"]


def test_seven_mistakes_cannot_show_in_the_net(committed):
    """As the page says: the losses are the right ones to the last bit."""
    with minidl.plain_kernels():
        right = train(4)
    harmless = set()
    for each in GALLERY:
        if each.name not in {row[0] for row in committed if row[column("training")] == ERROR}:
            with mutation(each.name):
                if train(4) == right:
                    harmless.add(each.name)
    assert harmless == {
        "engine-grad-overwritten",
        "engine-grad-shared",
        "max-pool2d-ties-last",
        "max-pool2d-kernel-height",
        "max-pool2d-zero-padding",
        "relu-in-place",
        "amax-ties-whole",
    }


def test_the_net_runs_every_function_of_the_gallery():
    ran = set()
    sys.setprofile(lambda frame, event, _: ran.add(frame.f_code) if event == "call" else None)
    try:
        with minidl.plain_kernels():
            train(1)
    finally:
        sys.setprofile(None)
    assert [each.name for each in GALLERY if each.function.__code__ not in ran] == []


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
    if case in ties.get(check, ()):
        with pytest.raises((minidl.GradcheckError, MismatchError)):
            CHECKS[check](CASES[case])
    elif check != "training" or case == "linear":  # training knows no cases
        CHECKS[check](CASES[case])


def test_right_code_trains():
    losses = train(30)
    assert losses[0] > np.log(4) * 0.9 and np.mean(losses[-5:]) < 0.1


def test_training_is_repeated_bit_for_bit():
    assert train(3) == train(3)


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
