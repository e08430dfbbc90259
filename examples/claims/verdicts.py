"""From records to verdicts: which runs are an arm's, what the comparisons give, and what follows for a claim."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from claim import Claim, Comparison, Level
from measures import AT_LEAST, ERRORS, FRACTIONS, MEASURES, Record, wrong
from resampling import Interval, image_covariance, of_seeds, of_seeds_and_images, seeds_needed
from settings import Settings

FEWEST = 5  # seeds that a verdict needs: an interval of fewer is too narrow
SHOWN, PART, OPEN, AGAINST = "shown", "shown in part", "not resolved", "contradicted"
NO_RUNS, NO_QUESTION = "no runs yet", "for information"


class Records:
    """The results by arm. Of each kind of data those of one fingerprint count: the one with the most runs."""

    def __init__(self, records: Iterable[Record]) -> None:
        records = list(records)
        count = Counter((record["settings"].get("data", "cifar10"), record["data"]["fingerprint"]) for record in records)
        most: dict[str, str] = {}
        for (kind, fingerprint), _ in sorted(count.items(), key=lambda item: (item[1], item[0])):
            most[kind] = fingerprint
        self._by_settings: dict[str, dict[int, Record]] = {}
        for record in records:
            if most[record["settings"].get("data", "cifar10")] == record["data"]["fingerprint"]:
                self._by_settings.setdefault(_key(record["settings"]), {})[record["seed"]] = record

    def of(self, settings: Settings) -> dict[int, Record]:
        """{seed: record} of an arm, by seed."""
        return dict(sorted(self._by_settings.get(_key(settings.declared()), {}).items()))


def _key(declared: dict[str, object]) -> str:
    return json.dumps(declared, sort_keys=True)


@dataclass(frozen=True)
class Outcome:
    """What a comparison or a level gives.

    words     : what was compared, for people
    interval  : of worse - better, or worse / better, or of the arm's measure; None without runs
    holds     : 1 the claim's side, -1 the other, 0 neither
    needed    : seeds that would resolve it; None if that can't be said
    unit      : "points", "times" or ""
    at_least  : some run ended before what is measured came: the true value is larger
    published : a level's figure
    shorter   : its run is shorter than the published one
    """

    words: str
    interval: Interval | None
    holds: int
    needed: int | None
    unit: str
    at_least: bool = False
    judged: bool = True
    published: float | None = None
    shorter: bool = False


def compare(comparison: Comparison, claim: Claim, records: Records) -> Outcome:
    """The seeds that both arms have, pair by pair."""
    c = comparison
    better, worse = records.of(claim.arms[c.better]), records.of(claim.arms[c.worse])
    measures = c.measure, c.than or c.measure
    seeds = [s for s in better if s in worse]
    words = f"{c.words}: {c.better} against {c.worse}" if c.better != c.worse else f"{c.words}: {c.better}"
    unit = "times" if c.ratio else ("points" if set(measures) <= FRACTIONS else "")
    images = [(wrong(better[s], measures[0], n), wrong(worse[s], measures[1], n)) for s in seeds for n in [_tested(worse[s])]]
    if seeds and set(measures) <= set(ERRORS) and all(a is not None and b is not None for a, b in images):
        d = np.array([b.astype(np.int8) - a for a, b in images if a is not None and b is not None])
        interval, needed = of_seeds_and_images(d), seeds_needed(d.mean(1), image_covariance(d))
        return Outcome(words, interval, _holds(interval), needed, unit, judged=c.judged)
    values, at_least = _values(better, worse, seeds, measures, c.ratio)
    if not len(values):
        return Outcome(words, None, 0, None, unit, judged=c.judged)
    interval = of_seeds(values)
    i = interval
    shown = Interval(math.exp(i.mean), math.exp(i.low), math.exp(i.high), i.seeds) if c.ratio else i
    return Outcome(words, shown, _holds(i), seeds_needed(values), unit, at_least, c.judged)


def _tested(record: Record) -> int:
    """How many test images there were."""
    return int(record["data"]["test_images"])


def _values(
    better: dict[int, Record], worse: dict[int, Record], seeds: list[int], measures: tuple[str, str], ratio: bool
) -> tuple[np.ndarray, bool]:
    values, at_least = [], False
    for seed in seeds:
        a, b = MEASURES[measures[0]](better[seed]), MEASURES[measures[1]](worse[seed])
        if b is None and measures[1] in AT_LEAST:
            b, at_least = AT_LEAST[measures[1]](worse[seed]), True
        if a is not None and b is not None:
            values.append(math.log(b / a) if ratio else b - a)
    return np.array(values), at_least


def _holds(interval: Interval) -> int:
    return interval.side if interval.seeds >= FEWEST else 0


def level(wanted: Level, claim: Claim, records: Records) -> Outcome:
    """An arm's measure against a published figure. A run that is shorter than the published one contradicts nothing."""
    found = records.of(claim.arms[wanted.arm])
    words = f"{wanted.words}: {wanted.arm}"
    errors = [wrong(record, wanted.measure, _tested(record)) for record in found.values()]
    there = np.array([e for e in errors if e is not None])
    if not len(there):
        return Outcome(words, None, 0, None, "points", published=wanted.published)
    interval = of_seeds_and_images(there)
    holds = 1 if interval.low <= wanted.published else (-1 if wanted.in_full else 0)
    holds = holds if interval.seeds >= FEWEST or not wanted.in_full else 0
    return Outcome(words, interval, holds, None, "points", published=wanted.published, shorter=not wanted.in_full)


def outcomes(claim: Claim, records: Records) -> list[Outcome]:
    return [
        *(level(wanted, claim, records) for wanted in claim.levels),
        *(compare(comparison, claim, records) for comparison in claim.compared),
    ]


def verdict(found: Iterable[Outcome]) -> str:
    """All judged outcomes hold: shown. Some hold: shown in part. None holds and one is against: contradicted."""
    judged = [outcome for outcome in found if outcome.judged]
    sides = [outcome.holds for outcome in judged]
    if not judged:
        return NO_QUESTION
    if all(outcome.interval is None for outcome in judged):
        return NO_RUNS
    if min(sides) > 0:
        return SHOWN
    if max(sides) > 0:
        return PART
    return AGAINST if min(sides) < 0 else OPEN
