"""The figures of docs/claims.md: curves with bands on the left, differences with their intervals on the right.

A line is the mean over seeds, its band reaches from the lowest to the highest seed.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claim import Claim
from measures import Record, gradients, tower_colors
from verdicts import Outcome, Records, outcomes

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5f5f5f", "#000000")  # told apart by all eyes
DASHES = ("-", "--", ":")  # with each of the colours again
STYLES = [(color, dash) for dash in DASHES for color in COLORS]
Points = tuple[Sequence[float], Sequence[float]]  # x and y of a curve
STYLE: Any = {
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "svg.hashsalt": "minidl",  # the same ids, so the same file, every time
    "svg.fonttype": "none",
    "figure.facecolor": "white",
}


def draw_all(known: dict[str, Claim], records: Records, folder: Path) -> dict[str, str]:
    """A figure for each claim that has runs: {claim: its path, as docs/claims.md names it}."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, claim in known.items():
        if any(records.of(settings) for settings in claim.arms.values()):
            draw(claim, records, folder / f"{name}.svg")
            drawn[name] = f"figures/claims/{name}.svg"
    return drawn


def draw(claim: Claim, records: Records, file: Path) -> None:
    found = [o for o in outcomes(claim, records) if o.interval is not None and o.unit == "points" and o.published is None]
    runs = {arm: list(records.of(settings).values()) for arm, settings in claim.arms.items()}
    pictures = [f for found_runs in runs.values() for run in found_runs if (f := filters(run)) is not None]
    beside = bool(found) or (claim.curve == "colors" and bool(pictures))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2 if beside else 1, figsize=(8.0 if beside else 5.0, 2.8), squeeze=False, layout="constrained"
        )
        CURVES[claim.curve](axes[0, 0], runs)
        if found:
            _intervals(axes[0, 1], found)
        elif beside:
            _filters(axes[0, 1], pictures[0])
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


# ---------------------------------------------------------------------------------------------------------------- curves


def _bands(axis: Any, runs: dict[str, list[Record]], points: Callable[[Record], Points]) -> None:
    """A line and a band for each arm, over the points that all of its runs have."""
    for (color, dash), (arm, found) in zip(STYLES, runs.items(), strict=False):
        curves = [dict(zip(*points(record), strict=True)) for record in found]
        shared = sorted(set.intersection(*map(set, curves))) if curves else []
        if shared:
            y = np.array([[curve[x] for x in shared] for curve in curves])
            axis.plot(shared, y.mean(0), dash, color=color, label=arm, linewidth=1.2)
            axis.fill_between(shared, y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0)
    axis.legend(frameon=False, fontsize=7)


def _test(axis: Any, runs: dict[str, list[Record]]) -> None:
    def points(record: Record) -> tuple[list[float], list[float]]:
        test = record.get("test", {"epoch": [], "error": []})
        return test["epoch"], [100 * e for e in test["error"]]

    _bands(axis, runs, points)
    axis.set(xlabel="epochs", ylabel="test error, %")


def _train(axis: Any, runs: dict[str, list[Record]]) -> None:
    _bands(axis, runs, lambda record: (record["train"]["step"], [100 * e for e in record["train"]["error"]]))
    axis.set(xlabel="steps", ylabel="training error, %")


def _after_drop(axis: Any, runs: dict[str, list[Record]]) -> None:
    """One arm's losses minus the first arm's, step by step: the batches are the same."""
    first, *others = runs
    base = {record["seed"]: record for record in runs[first]}
    for color, arm in zip(COLORS, others, strict=False):
        pairs = [(record, base[record["seed"]]) for record in runs[arm] if record["seed"] in base]
        if pairs:
            y = np.array([np.subtract(b["after_drop"], a["after_drop"]) for a, b in pairs])
            axis.plot(y.mean(0), color=color, label=f"{first} minus {arm}", linewidth=1.2)
            axis.fill_between(range(y.shape[1]), y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0)
    axis.legend(frameon=False, fontsize=7)
    axis.set(xlabel="steps after the drop", ylabel="difference of the losses")


def _gradients(axis: Any, runs: dict[str, list[Record]]) -> None:
    """The mean gradient at each weighted layer's output, over the last layer's, after an epoch."""
    names: list[str] = []
    for color, (arm, found) in zip(COLORS, runs.items(), strict=False):
        sizes = [gradients(record, "epoch 1") for record in found if gradients(record, "epoch 1")]
        if sizes:
            names = list(sizes[0])
            y = np.array([[size[name] / size[names[-1]] for name in names] for size in sizes])
            axis.plot(range(len(names)), y.mean(0), "o-", color=color, label=arm, linewidth=1.2, markersize=3)
            axis.fill_between(range(len(names)), y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0)
    axis.set(yscale="log", ylabel="mean gradient over the last layer's", xticks=range(len(names)), xticklabels=names)
    axis.legend(frameon=False, fontsize=7)


def _colors(axis: Any, runs: dict[str, list[Record]]) -> None:
    """Each filter's share of colour: a column for each run, its towers side by side."""
    place, ticks, labels = 0.0, [], []
    for color, (_, found) in zip(COLORS, runs.items(), strict=False):
        for record in found:
            towers = tower_colors(record)
            if towers is not None:
                for i, shares in enumerate(towers):
                    axis.plot(np.full(len(shares), place + 0.3 * i), shares, ".", color=color, alpha=0.6, markersize=4)
                    axis.plot([place + 0.3 * i - 0.1, place + 0.3 * i + 0.1], [shares.mean()] * 2, color="black", linewidth=1)
                ticks.append(place + 0.15)
                labels.append(str(record["seed"]))
                place += 1.0
        place += 0.5
    for color, arm in zip(COLORS, runs, strict=False):
        axis.plot([], [], ".", color=color, label=arm)
    axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=2)
    axis.set(xticks=ticks, xticklabels=labels, xlabel="seeds; tower a left, tower b right", ylabel="filters' shares of colour")


CURVES: dict[str, Callable[[Any, dict[str, list[Record]]], None]] = {
    "test": _test,
    "train": _train,
    "after drop": _after_drop,
    "gradients": _gradients,
    "colors": _colors,
}


# ------------------------------------------------------------------------------------------------------------- intervals


def _intervals(axis: Any, found: Sequence[Outcome]) -> None:
    """A row for each difference; right of 0 is the claim's side."""
    for row, outcome in enumerate(found):
        assert outcome.interval is not None
        i = outcome.interval
        color = {1: COLORS[2], -1: COLORS[1], 0: COLORS[6]}[outcome.holds]
        axis.plot([100 * i.low, 100 * i.high], [row, row], color=color, linewidth=2)
        axis.plot(100 * i.mean, row, "o", color=color, markersize=5)
        words = outcome.words.replace(": ", ":\n", 1)
        axis.annotate(words, (0.02, row - 0.18), xycoords=("axes fraction", "data"), fontsize=6.5, va="bottom")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(yticks=[], ylim=(len(found) - 0.4, -0.9), xlabel="difference, points; right: the claim's side")


def _filters(axis: Any, towers: np.ndarray) -> None:
    """The filters of two towers, 8 in a row; a space between the towers."""
    _, n, height, width, _ = towers.shape
    rows = -(-n // 8)
    canvas = np.ones((2 * rows * (height + 1) + 2, 8 * (width + 1), 3))
    for tower, some in enumerate(towers):
        for i, filter_ in enumerate(some):
            top, left = (tower * rows + i // 8) * (height + 1) + 2 * tower, i % 8 * (width + 1)
            canvas[top : top + height, left : left + width] = filter_
    axis.imshow(canvas, interpolation="nearest")
    axis.grid(False)
    axis.set_axis_off()
    axis.set_title("filters of the first run: tower a above, tower b below", fontsize=7)


def filters(record: Record) -> np.ndarray | None:
    """The first layer's filters in each tower, (T, N, H, W, 3) of 0 to 1, each stretched over its own range."""
    layers = [layer for layer in record.get("filters", {}).values() if "int8" in layer]
    if not layers:
        return None
    weights = np.stack([np.frombuffer(base64.b64decode(x["int8"]), np.int8).reshape(x["shape"]) for x in layers]).astype(float)
    low, high = weights.min((2, 3, 4), keepdims=True), weights.max((2, 3, 4), keepdims=True)
    return ((weights - low) / np.maximum(high - low, 1e-9)).transpose(0, 1, 3, 4, 2)
