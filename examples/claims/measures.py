"""What is measured of a run, from its record. Each measure is a number of which the claim wants less, or None."""

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Record = dict[str, Any]
Measure = Callable[[Record], float | None]

SPLITS = 20_000  # random pairs of towers


def _final(name: str) -> Measure:
    return lambda record: record.get("final", {}).get(name)


def _gap(record: Record) -> float | None:
    final = record.get("final", {})
    return final["test_error"] - final["train_error"] if "test_error" in final else None


def crossing(x: list[float], y: list[float], level: float) -> float | None:
    """Where y first comes down to a level, on straight lines between its points; None if it never does."""
    for i, value in enumerate(y):
        if value <= level:
            if i == 0 or y[i - 1] <= value:
                return float(x[i])
            return float(x[i - 1] + (x[i] - x[i - 1]) * (y[i - 1] - level) / (y[i - 1] - value))
    return None


def _steps_to(error: float) -> Measure:
    """Steps until the running training error is so low."""
    return lambda record: crossing(record["train"]["step"], record["train"]["error"], error)


def _epochs_to_test(error: float) -> Measure:
    return lambda record: crossing(record["test"]["epoch"], record["test"]["error"], error)


def _train_error_at(step: int) -> Measure:
    """The running training error of the window that ends with a step."""

    def measure(record: Record) -> float | None:
        steps = record["train"]["step"]
        return record["train"]["error"][steps.index(step)] if step in steps else None

    return measure


def _after_drop(record: Record) -> float | None:
    losses = record["after_drop"]
    return sum(losses) / len(losses) if losses else None


def gradients(record: Record, when: str) -> dict[str, float]:
    """The mean size of the loss's gradient with respect to each weighted layer's output, by the layer's name."""
    weighted = [row for row in record.get("signals", {}).get(when, []) if row[4] is not None]
    return {row[0]: row[3] for row in weighted}


def _gradient_loss(record: Record) -> float | None:
    """The last layer's gradient over the first's, after an epoch: how much is lost on the way down."""
    sizes = list(gradients(record, "epoch 1").values())
    return sizes[-1] / sizes[0] if sizes and sizes[0] else (math.inf if sizes else None)


def _saturated(record: Record) -> float | None:
    """The share of outputs whose slope is below a tenth of its steepest, in the mean over the layers that saturate."""
    shares = [row[5] for row in record.get("signals", {}).get("epoch 1", []) if row[5] is not None]
    return sum(shares) / len(shares) if shares else None


def tower_colors(record: Record) -> tuple[np.ndarray, np.ndarray] | None:
    """Each tower's shares of colour, one for each filter of its first layer; None unless there are two towers."""
    found = [np.array(layer["color"]) for layer in record.get("filters", {}).values()]
    return (found[0], found[1]) if len(found) == 2 else None


def _color_apart(record: Record) -> float | None:
    """How far the towers' mean shares of colour are from each other."""
    towers = tower_colors(record)
    return None if towers is None else abs(float(towers[0].mean() - towers[1].mean()))


def color_by_chance(record: Record) -> np.ndarray | None:
    """The same of SPLITS random pairs of towers, made of the run's own filters."""
    towers = tower_colors(record)
    if towers is None:
        return None
    both, half = np.concatenate(towers), len(towers[0])
    order = np.random.default_rng(0).permuted(np.tile(both, (SPLITS, 1)), axis=1)
    return np.abs(order[:, :half].mean(1) - order[:, half:].mean(1))


def _mean_by_chance(record: Record) -> float | None:
    chance = color_by_chance(record)
    return None if chance is None else float(chance.mean())


def chance_of(record: Record) -> float | None:
    """The share of random pairs that are at least as far apart as the run's towers."""
    chance, apart = color_by_chance(record), _color_apart(record)
    return None if chance is None or apart is None else float((chance >= apart - 1e-12).mean())


MEASURES: dict[str, Measure] = {
    "test_error": _final("test_error"),
    "ten_views_error": _final("ten_views_error"),
    "train_error": _final("train_error"),
    "gap": _gap,
    "steps_to_25": _steps_to(0.25),
    "steps_to_50": _steps_to(0.5),
    "epochs_to_test_40": _epochs_to_test(0.4),
    "train_error_at_392": _train_error_at(392),
    "loss_after_drop": _after_drop,
    "gradient_loss": _gradient_loss,
    "saturated": _saturated,
    "color_apart": _color_apart,
    "color_by_chance": _mean_by_chance,
}

HEADINGS = {
    "test_error": "test error, %",
    "ten_views_error": "ten views, %",
    "train_error": "training error, %",
    "steps_to_25": "steps to 25 %",
    "steps_to_50": "steps to 50 %",
    "epochs_to_test_40": "epochs to 40 % test error",
    "gradient_loss": "last layer's gradient over the first's",
    "saturated": "saturated outputs, %",
    "loss_after_drop": "loss after the drop",
    "color_apart": "towers apart",
    "color_by_chance": "random pairs apart",
}
FRACTIONS = {"test_error", "ten_views_error", "train_error", "gap", "train_error_at_392", "saturated"}

ERRORS = {"test_error": "wrong", "ten_views_error": "wrong_ten_views"}  # the measures that are means over test images

# what a run that ended by its number of epochs has at least, where the measure asks when something happened
AT_LEAST: dict[str, Measure] = {name: lambda record: record["steps"] for name in ("steps_to_25", "steps_to_50")}


def wrong(record: Record, measure: str, images: int) -> np.ndarray | None:
    """Which of the test images are wrong, (images,) bool, for a measure that is a mean over them."""
    text = record.get(ERRORS.get(measure, ""))
    return None if text is None else np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:images].astype(bool)
