"""The rules one by one: each sign on either side of its threshold, and in other conditions; and the text of a diagnosis."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from minidl import nn
from minidl.study.health.illnesses import ILLNESSES, Evidence, Losses, Row, diagnose

DOCUMENT = Path(__file__).parents[3] / "docs" / "autopsy.md"
WEIGHT = nn.Parameter(np.ones((2, 2), np.float32))
LN10 = math.log(10)


def row(title="conv", **numbers):
    """A healthy layer with weights, but for what is given."""
    healthy = {
        "mean_abs_activation": 1.0,
        "std_over_batch": 1.0,
        "mean_abs_gradient": 1.0,
        "examples": 100,
        "weights": [WEIGHT],
    }
    return Row(title, "conv2d_relu", 1, title=title, **{**healthy, **numbers})


def chain(*rows):
    """Each hears the one before."""
    for earlier, later in itertools.pairwise(rows):
        earlier.after.append(later)
        later.before.append(earlier)
    return rows


def losses(*means):
    return Losses(means[0], means) if means else Losses()


def found(*rows, loss=1.0, means=(), classes=None):
    """Illness -> layers and their numbers."""
    evidence = Evidence(loss, rows, losses(*means), classes)
    return {diagnosis.illness.name: dict(diagnosis.layers) for diagnosis in diagnose(evidence)}


def test_a_healthy_layer_has_none():
    whole = {
        "zeros": 0.5,
        "dead": 0.0,
        "always_on": 0.1,
        "saturated": 0.1,
        "update_ratio": 1e-3,
        "mean_abs_weight_gradient": 1.0,
    }
    assert found(*chain(*(row(f"{i}", **whole) for i in range(5))), means=[LN10, 2.0], classes=10) == {}


@pytest.mark.parametrize("zeros, ill", [(0.0, True), (0.0499, True), (0.05, False), (None, False)])
def test_every_unit_on(zeros, ill):
    expected = {"every unit on": {"conv": f"{zeros:.1%} zeros"}} if ill else {}
    assert found(row(zeros=zeros)) == expected


@pytest.mark.parametrize("dead, ill", [(0.51, True), (1.0, True), (0.5, False), (None, False)])
def test_dead_relus(dead, ill):
    expected = {"dead ReLUs": {"conv": f"{dead:.1%} of 4 units"}} if ill else {}
    assert found(row(dead=dead, units=4, outputs=4)) == expected


@pytest.mark.parametrize("examples, outputs, ill", [(8, 4, True), (7, 4, False), (2, 16, True), (1, 31, False)])
def test_few_outputs_of_a_unit_may_all_be_0_by_chance(examples, outputs, ill):
    assert bool(found(row(dead=0.9, units=4, examples=examples, outputs=outputs))) == ill


@pytest.mark.parametrize("saturated, ill", [(0.51, True), (0.5, False), (None, False)])
def test_saturated_units(saturated, ill):
    hidden = Row("tanh", "tanh", 1, 1.0, 1.0, saturated=saturated, title="tanh")
    expected = {"saturated units": {"tanh": f"{saturated:.1%} of tanh's outputs"}} if ill else {}
    assert found(hidden, row()) == expected
    assert found(row(), hidden) == {}  # the network's output may be sure of itself


@pytest.mark.parametrize("spread, ill", [(0.0999, True), (0.1, False), (0.0, True), (None, False)])
def test_examples_look_alike(spread, ill):
    rows = chain(row("a", std_over_batch=spread, mean_abs_activation=2.0), row("b"))
    expected = (
        {"examples look alike": {"a": f"standard deviation {spread:.2g} over the batch, mean |activation| 2"}} if ill else {}
    )
    assert found(*rows) == expected
    assert found(row("c", std_over_batch=spread, mean_abs_activation=2.0)) == {}  # an output


def test_where_most_units_are_dead_that_is_what_is_said():
    rows = chain(row("a", std_over_batch=0.0, dead=1.0), row("b"))
    assert list(found(*rows)) == ["dead ReLUs"]


def numbers_of(values, **same):
    return chain(*(row(f"{i}", std_over_batch=value, **same) for i, value in enumerate(values)))


@pytest.mark.parametrize(
    "values, name, titles",
    [
        ([1, 0.29, 0.08, 0.023], "vanishing signal", ["3"]),
        ([1, 0.29, 0.08, 0.023, 0.0066], "vanishing signal", ["3", "4"]),
        ([1, 0.29, 0.08, 0.025], None, []),  # .31 in the end
        ([1, 0.29, 0.29, 0.08, 0.02], None, []),  # not in a row
        ([1, 0.29, 0.08], None, []),  # two
        ([1, 3.4, 12, 41], "growing signal", ["3"]),
        ([1, 3.4, 12, 38], None, []),
        ([0, 1, 4, 16, 64], "growing signal", ["4"]),  # there is no factor from nothing
    ],
)
def test_a_signal_that_vanishes_or_grows(values, name, titles):
    result = found(*numbers_of(values, mean_abs_activation=0.0))
    assert {illness: list(layers) for illness, layers in result.items()} == ({name: titles} if name else {})


def test_numbers_of_a_vanishing_signal():
    result = found(*numbers_of([1, 0.2, 0.04, 0.01, 0.001], mean_abs_activation=0.0))
    assert result == {
        "vanishing signal": {
            "3": "0.01, 0.25 times that of the layer before, 3 in a row",
            "4": "0.001, 0.1 times that of the layer before, 4 in a row",
        }
    }


def test_in_a_batch_of_one_the_signal_is_the_activation():
    rows = chain(*(row(f"{i}", std_over_batch=None, mean_abs_activation=0.1**i) for i in range(4)))
    assert list(found(*rows)) == ["vanishing signal"]


@pytest.mark.parametrize(
    "values, name, titles",
    [
        ([0.023, 0.08, 0.29, 1], "vanishing gradient", ["0"]),
        ([0.025, 0.08, 0.29, 1], None, []),
        ([41, 12, 3.4, 1], "exploding gradient", ["0"]),
        ([38, 12, 3.4, 1], None, []),
    ],
)
def test_a_gradient_that_vanishes_or_explodes_on_its_way_back(values, name, titles):
    rows = chain(*(row(f"{i}", mean_abs_gradient=value) for i, value in enumerate(values)))
    result = found(*rows)
    assert {illness: list(layers) for illness, layers in result.items()} == ({name: titles} if name else {})


def test_numbers_of_a_vanishing_gradient():
    rows = chain(*(row(f"{i}", mean_abs_gradient=10.0 ** (i - 3), outputs=4) for i in range(4)))
    assert found(*rows) == {"vanishing gradient": {"0": "0.002, 0.1 times that of the layer after, 3 in a row"}}


def test_a_layer_of_many_outputs_has_a_smaller_gradient_in_each():
    rows = chain(*(row(f"{i}", mean_abs_gradient=0.1 ** (3 - i), outputs=100 ** (3 - i)) for i in range(4)))
    assert found(*rows) == {}


def test_layers_without_a_gradient_have_no_chain():
    assert found(*chain(*(row(f"{i}", mean_abs_gradient=None) for i in range(5)))) == {}


def test_where_branches_meet_their_mean_counts_and_the_shorter_chain():
    def meeting(side):
        rows = {
            name: row(name, std_over_batch=v, mean_abs_activation=0.0)
            for name, v in zip("abce", (1, 0.2, 0.04, 0.005), strict=True)
        }
        branch = row("side", std_over_batch=side, mean_abs_activation=0.0)
        chain(*rows.values())
        chain(rows["b"], branch, rows["e"])
        return list(found(rows["a"], rows["b"], rows["c"], branch, rows["e"]))

    assert meeting(0.04) == ["vanishing signal"]
    assert meeting(0.1) == []  # this branch keeps half of the signal: its chain ends there


def test_the_factor_is_from_the_mean_of_the_branches():
    first, second, left, right = (row(name, std_over_batch=v) for name, v in zip("fslr", (1, 0.2, 0.05, 0.01), strict=True))
    last = row("last", std_over_batch=0.008, mean_abs_activation=0.0)
    chain(first, second, left, last)
    chain(second, right, last)
    expected = {"last": "0.008, 0.27 times that of the layer before, 3 in a row"}
    assert found(first, second, left, right, last)["vanishing signal"] == expected


@pytest.mark.parametrize("ratio, ill", [(0.11, True), (0.1, False), (None, False)])
def test_updates_too_large(ratio, ill):
    assert found(row(update_ratio=ratio)) == ({"updates too large": {"conv": f"{ratio:.3g}"}} if ill else {})


@pytest.mark.parametrize("ratio, ill", [(0.9e-5, True), (0.0, True), (1e-5, False), (None, False)])
def test_updates_too_small(ratio, ill):
    layer = row(update_ratio=ratio)
    expected = {"updates too small": {"conv": f"{ratio:.3g}"}} if ill else {}
    assert found(layer, means=[LN10], classes=10) == expected
    assert found(layer, means=[], classes=10) == {}  # rates may start from 0
    assert found(layer, means=[LN10, 0.89 * LN10, LN10], classes=10) == {}  # learned once: small steps are meant
    assert found(layer, means=[5.0, 4.6]) == expected and found(layer, means=[5.0, 4.4]) == {}  # other losses


@pytest.mark.parametrize(
    "before, now, ill",
    [(1.6, 1.7, True), (1.4, 1.51, True), (1.4, 1.49, False), (1.7, 1.6, False), (1.6, 1.6, False)],
)
def test_exploding_loss(before, now, ill):
    """Times ln C, or times the first loss."""
    result = found(means=[LN10 * before, LN10 * now], classes=10)
    about = f"{LN10 * before:.4g}, then {LN10 * now:.4g} in the mean of 10 steps; ln C = ln 10 = 2.303"
    assert result == ({"exploding loss": {"the loss": about}} if ill else {})
    result = found(means=[4.0, 4.0 * before, 4.0 * now])
    about = f"{4 * before:.4g}, then {4 * now:.4g} in the mean of 10 steps; the first loss was 4"
    assert result == ({"exploding loss": {"the loss": about}} if ill else {})
    assert found(means=[9.9], classes=10) == {}  # one mean does not rise


@pytest.mark.parametrize(
    "means, ill",
    [
        ([1.0] * 10, True),
        ([1.0] * 9, False),  # 90 steps
        ([5.0, *[1.0] * 10], True),  # whatever was before
        ([0.98] * 5 + [1.14] * 5, True),
        ([0.96] * 5 + [1.0] * 5, False),
        ([1.0] * 5 + [0.96] * 5, False),  # it falls
        ([1.0] * 5 + [1.16] * 5, False),
        ([1.16] * 5 + [1.0] * 5, False),
        ([0.8, *[1.0] * 9], False),  # a half's mean is .96
        ([0.9, *[1.0] * 9], True),  # .98
    ],
)
def test_flat_loss(means, ill):
    result = found(means=[LN10 * mean for mean in means], classes=10)
    assert list(result) == (["flat loss"] if ill else [])


def test_flat_loss_takes_longer_with_more_classes():
    for means, ill in ((199, []), (200, ["flat loss"])):
        assert list(found(means=[math.log(1000)] * means, classes=1000)) == ill
    assert list(found(means=[math.log(50000)] * Losses.KEPT, classes=50000)) == ["flat loss"]  # no more are kept
    (about,) = found(means=[math.log(1000)] * 300, classes=1000)["flat loss"].values()
    assert about == "6.908, then 6.908 in the halves of the last 2000 steps; ln C = ln 1000 = 6.908"


def test_a_loss_without_classes_is_never_flat():
    assert found(means=[1.0] * 50) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named_where_it_began(bad):
    def where(*rows, loss=1.0):
        return found(*rows, loss=loss)["not finite"]

    spread = [row("a"), row("b", mean_abs_activation=bad), row("c", mean_abs_activation=bad, mean_abs_gradient=bad)]
    assert where(*spread, loss=bad) == {"b": f"mean |activation| {bad}"}
    back = [row("a", mean_abs_gradient=bad, mean_abs_weight_gradient=bad), row("b", mean_abs_gradient=bad), row("c")]
    assert where(*back) == {"b": f"mean |gradient| {bad}"}
    weights = [row("a", mean_abs_weight_gradient=bad), row("b", mean_abs_weight_gradient=bad, update_ratio=bad), row("c")]
    assert where(*weights) == {"b": f"mean |gradient| of the weights {bad}"}
    assert where(row("a", update_ratio=bad)) == {"a": f"update ratio {bad}"}
    assert where(row("a"), loss=bad) == {"the loss": str(bad)}
    assert list(found(row("a", mean_abs_activation=bad, zeros=0.0))) == ["not finite"]  # and nothing else


def test_losses_are_kept_as_means_of_ten():
    course = Losses()
    for i in range(25):
        course.add(float(i))
        course.add(math.nan)
    assert (course.first, course.means, course.present) == (0.0, [4.5, 14.5], [20.0, 21.0, 22.0, 23.0, 24.0])
    again = Losses(**course.state_dict())
    course.add(1.0)
    assert again.state_dict() == {"first": 0.0, "means": [4.5, 14.5], "present": [20.0, 21.0, 22.0, 23.0, 24.0]}
    for _ in range(20_000):
        again.add(1.0)
    assert len(again.means) == 1000 and again.first == 0.0


def test_a_diagnosis_says_what_where_by_which_rule_and_what_to_do():
    (diagnosis,) = diagnose(Evidence(1.0, [row(f"{i}", zeros=0.01) for i in range(10)], Losses(), None))
    first, *more = str(diagnosis).split("\n")
    named = ", ".join(f"{i} (1.0% zeros)" for i in range(8))
    assert first == f"every unit on: {named} and 2 more"
    illness = diagnosis.illness
    assert more == [f"    rule: {illness.rule}", f"    likely: {illness.causes}", f"    try: {illness.cures}"]
    (few,) = diagnose(Evidence(1.0, [row(f"{i}", zeros=0.01) for i in range(8)], Losses(), None))
    assert "more" not in str(few).split("\n")[0]


def test_every_rule_says_its_thresholds():
    """In the words of the rule, as they stand in the code."""
    said = {illness.name: illness.rule for illness in ILLNESSES}
    assert (
        "1.5 times" in said["exploding loss"]
        and "0.97 and 1.15" in said["flat loss"]
        and "100 steps (2 for" in said["flat loss"]
    )
    assert "5%" in said["every unit on"] and "5%" in said["examples look alike"] and "50%" in said["dead ReLUs"]
    assert "50%" in said["saturated units"] and "above 0.1;" in said["updates too large"]
    assert "below 1e-05" in said["updates too small"] and "CS231n" in said["updates too small"]
    for name in ("vanishing signal", "vanishing gradient"):
        assert "less than 0.3 times" in said[name] and "3 layers in a row" in said[name]
    for name in ("growing signal", "exploding gradient"):
        assert "more than 3.3 times" in said[name] and "3 layers in a row" in said[name]


def test_the_document_has_every_illness():
    text = DOCUMENT.read_text()
    for illness in ILLNESSES:
        assert f"| **{illness.name}** |" in text
