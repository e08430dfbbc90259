"""What is measured of records, and the rule from intervals to verdicts."""

import numpy as np
import pytest
from claim import Claim, Comparison, Level
from measures import MEASURES, chance_of, crossing, gradients
from resampling import Interval
from settings import Settings
from training import packed
from verdicts import AGAINST, NO_QUESTION, NO_RUNS, OPEN, PART, SHOWN, Outcome, Records, compare, level, verdict

ARMS = {"a": Settings("80sec", 1), "b": Settings("80sec", 2)}


def record(arm, seed, test=None, train=None, wrong=None, fingerprint="f", **others):
    final = {"test_error": test, "train_error": train}
    made = {
        "settings": ARMS[arm].declared(),
        "seed": seed,
        "data": {"name": "n", "fingerprint": fingerprint, "test_images": 8},
        "diverged": None,
    }
    made |= {"final": {k: v for k, v in final.items() if v is not None}, "steps": 1000}
    if wrong is not None:
        made["wrong"], made["data"]["test_images"] = packed(np.array(wrong, bool)), len(wrong)
        made["final"]["test_error"] = float(np.mean(wrong))
    return made | others


def claim(**others):
    return Claim("", "", "", "", "", ARMS, **others)


def of(records, **how):
    return compare(Comparison("a", "b", how.pop("measure", "train_error"), "words", **how), claim(), Records(records))


# --------------------------------------------------------------------------------------------------------------- measures


def test_a_curve_crosses_a_level_between_its_points():
    assert crossing([98, 196, 294], [0.7, 0.5, 0.3], 0.4) == pytest.approx(245)
    assert crossing([98, 196], [0.2, 0.5], 0.4) == 98
    assert crossing([98, 196], [0.7, 0.5], 0.4) is None


def test_measures_of_a_record():
    made = record("a", 0, 0.3, 0.2, train_curve=0) | {
        "train": {"step": [98, 392], "error": [0.6, 0.5]},
        "after_drop": [1.0, 2.0],
    }
    values = {
        name: MEASURES[name](made) for name in ("test_error", "gap", "steps_to_50", "train_error_at_392", "loss_after_drop")
    }
    assert values == pytest.approx(
        {"test_error": 0.3, "gap": 0.1, "steps_to_50": 392, "train_error_at_392": 0.5, "loss_after_drop": 1.5}
    )


def test_what_a_run_has_not_measured_is_none():
    made = record("a", 0) | {"train": {"step": [], "error": []}, "test": {"epoch": [], "error": []}, "after_drop": []}
    assert {name for name, measure in MEASURES.items() if measure(made) is not None} == set()


def test_gradients_are_those_at_weighted_layers():
    rows = [
        ["conv1", "conv2d", 1.0, 0.002, 0.1, None, None],
        ["pool1", "relu", 1.0, 5.0, None, None, 0.0],
        ["fc10", "linear", 1.0, 0.1, 0.1, None, None],
    ]
    made = {"signals": {"epoch 1": rows}}
    assert gradients(made, "epoch 1") == {"conv1": 0.002, "fc10": 0.1}
    assert MEASURES["gradient_loss"](made) == pytest.approx(50)


def towers(a, b):
    return {"filters": {"conv1a.weight": {"color": a}, "conv1b.weight": {"color": b}}}


def test_towers_that_divide_colour_are_rarer_than_any_by_chance():
    """Of 8 filters 4 with colour: two of the 70 ways to choose a tower divide them so."""
    made = towers([1.0] * 4, [0.0] * 4)
    assert MEASURES["color_apart"](made) == 1.0
    assert chance_of(made) == pytest.approx(2 / 70, abs=4 * (2 / 70 / 20_000) ** 0.5)
    alike = towers([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0])
    assert MEASURES["color_apart"](alike) == 0 and chance_of(alike) == 1.0
    assert MEASURES["color_by_chance"](alike) == pytest.approx((2 * 1.0 + 32 * 0.5) / 70, abs=0.01)


# ------------------------------------------------------------------------------------------------------------ comparisons


def test_a_difference_is_between_runs_of_the_same_seed():
    """The seeds differ much, the arms by 0.01 in each; seeds 8 and 9 have one arm."""
    records = [record(arm, s, train=0.1 * s + (0.01 if arm == "b" else 0.0)) for s in range(6) for arm in "ab"]
    found = of([*records, record("a", 9, train=0.9), record("b", 8, train=0.9)])
    assert found.interval.seeds == 6 and found.holds == 1 and found.unit == "points"
    assert (found.interval.low, found.interval.mean, found.interval.high) == pytest.approx((0.01, 0.01, 0.01))


def test_a_ratio_is_of_the_geometric_means_and_says_where_it_is_a_bound():
    curve = {"step": [100, 200], "error": [0.6, 0.2]}
    fast = [record("a", s, train_=0) | {"train": curve, "steps": 200} for s in range(5)]
    slow = [record("b", s) | {"train": {"step": [100], "error": [0.9]}, "steps": 1250} for s in range(5)]
    found = of(fast + slow, measure="steps_to_50", ratio=True)
    assert found.interval.mean == pytest.approx(1250 / 125) and found.at_least and found.unit == "times" and found.holds == 1


def test_the_images_widen_the_interval_of_a_difference_of_test_errors():
    wrong = {"a": [1, 0, 0, 0] * 25, "b": [1, 1, 0, 0] * 25}
    found = of([record(arm, s, wrong=wrong[arm]) for s in range(5) for arm in "ab"], measure="test_error")
    assert found.interval.mean == pytest.approx(0.25) and 0.05 < found.interval.low < 0.2


def test_too_few_seeds_hold_nothing():
    records = [record(arm, s, train=0.1 + (arm == "b")) for s in range(4) for arm in "ab"]
    assert of(records).holds == 0 and of([]).interval is None


def test_a_measure_may_be_set_against_another_of_the_same_run():
    records = [record("a", s, 0.3, 0.2) for s in range(5)]
    found = compare(Comparison("a", "a", "train_error", "words", than="gap"), claim(), Records(records))
    assert found.interval.mean == pytest.approx(0.1 - 0.2) and found.holds == -1


def test_runs_of_other_data_are_left_out():
    records = [record("a", s, train=0.1, fingerprint=f) for f, n in (("f", 3), ("g", 2)) for s in range(n)]
    assert set(Records(records).of(ARMS["a"])) == {0, 1, 2}


@pytest.mark.parametrize(
    ("published", "in_full", "holds"), [(0.3, True, 1), (0.25, True, 1), (0.1, True, -1), (0.1, False, 0), (0.3, False, 1)]
)
def test_a_published_error_is_reached_if_it_lies_in_the_interval_or_above(published, in_full, holds):
    """25 % of 100 images: the interval of five equal seeds reaches from 12 to 38 %."""
    records = Records([record("a", s, wrong=[1, 0, 0, 0] * 25) for s in range(5)])
    assert level(Level("a", "test_error", published, "words", in_full), claim(), records).holds == holds


def outcome(holds, judged=True):
    return Outcome("", Interval(0, 0, 0, 5), holds, None, "", judged=judged)


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([1, 1], SHOWN),
        ([1, 0], PART),
        ([1, -1], PART),
        ([0, 0], OPEN),
        ([0, -1], AGAINST),
        ([-1, -1], AGAINST),
        ([], NO_QUESTION),
    ],
)
def test_the_rule_of_verdicts(holds, expected):
    assert verdict([*map(outcome, holds), outcome(-1, judged=False)]) == expected


def test_a_claim_without_runs_has_no_verdict():
    assert verdict([Outcome("", None, 0, None, "")]) == NO_RUNS
