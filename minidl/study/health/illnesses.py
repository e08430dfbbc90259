"""What can be wrong with a training run, and by which numbers it shows: the rules behind `Autopsy`.

Each `Illness` is a sign, a function of the `Evidence` of one step, with the rule in words, the usual causes and what to try.
Rules are thresholds, each with its reason beside it. They are chosen so that a healthy run is left in peace, and a diagnosis
says its rule and its numbers, so that the reader can disagree. docs/autopsy.md has them in a table.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidl.nn import Parameter

# ----------------------------------------------------------------------------------------------------------- what is known


@dataclass
class Row:
    """What an op did in one step that has weights, or units that rectify or saturate (see `Function`). None: no such number.

    layer, op, call : the innermost module's name, the op's name, and which of its calls in this step it was, from 1
    mean_abs_activation : of the op's output; conv2d_relu's is after the ReLU
    std_over_batch : the standard deviation over the examples of the batch (the first 32), in the mean over units and places:
        the part of the signal that differs from example to example, with dropout's noise. None in a batch of one
    mean_abs_gradient : of dL/d(output), as it arrives; None if none did
    zeros     : of units that rectify, as a ReLU's: the share of outputs that are 0
    dead      : of units that rectify: the share of units that are 0 for every example and place. A unit is a
        channel of (N, C, H, W), or an element of the last axis
    always_on : of units that rectify: the share of units that are above 0 for every example and place
    saturated : of units that saturate, as tanh's: the share of outputs where the slope is below a tenth of its steepest
    mean_abs_weight_gradient : over the op's weights (parameters of two axes or more; biases often start at 0), as backward
        left it
    update_ratio : ||change of the weights|| / ||weights before||, of the optimizer's step; None where they were all 0

    For the rules: `title`, the layer's name for people; `weights`; `units`, and `outputs` of one example, their numbers;
    `examples`, the batch's; `before` and `after`, the rows of ops with weights from which its input comes, and to which its
    output goes.
    """

    layer: str
    op: str
    call: int
    mean_abs_activation: float
    std_over_batch: float | None = None
    mean_abs_gradient: float | None = None
    zeros: float | None = None
    dead: float | None = None
    always_on: float | None = None
    saturated: float | None = None
    mean_abs_weight_gradient: float | None = None
    update_ratio: float | None = None
    title: str = field(default="", kw_only=True)
    weights: list[Parameter] = field(default_factory=list, repr=False, kw_only=True)
    units: int = field(default=1, repr=False, kw_only=True)
    outputs: int = field(default=1, repr=False, kw_only=True)
    examples: int = field(default=1, repr=False, kw_only=True)
    before: list["Row"] = field(default_factory=list, repr=False, kw_only=True)
    after: list["Row"] = field(default_factory=list, repr=False, kw_only=True)


class Losses:
    """The course of the loss, as means over ten steps, of which the last 1000 are kept. What is not finite is left out."""

    STEPS, KEPT = 10, 1000

    def __init__(self, first: float | None = None, means: Iterable[float] = (), present: Iterable[float] = ()) -> None:
        self.first, self.means, self.present = first, list(means), list(present)

    def add(self, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self.first = loss if self.first is None else self.first
        self.present.append(loss)
        if len(self.present) == self.STEPS:
            self.means = [*self.means, sum(self.present) / self.STEPS][-self.KEPT :]
            self.present = []

    def state_dict(self) -> dict[str, Any]:
        """The arguments that make an equal one."""
        return {"first": self.first, "means": list(self.means), "present": list(self.present)}


@dataclass(frozen=True)
class Evidence:
    """What is known after a step. `classes`: None if the loss is no classification's, or was not seen."""

    loss: float
    rows: Sequence[Row]
    losses: Losses
    classes: int | None

    @property
    def start(self) -> float:
        """The loss of a network that knows nothing: ln C where there are C classes, else the run's first."""
        return math.log(self.classes) if self.classes else self.losses.first or 0.0

    @property
    def learned(self) -> bool:
        """Was the mean of ten steps ever below nine tenths of the start? Until then a run is at its beginning."""
        return min(self.losses.means, default=math.inf) < LEARNED * self.start

    @property
    def start_in_words(self) -> str:
        return f"ln C = ln {self.classes} = {self.start:.4g}" if self.classes else f"the first loss was {self.start:.4g}"

    def hidden(self) -> list[Row]:
        """Rows whose output is not the network's: for that, what is an illness inside may be what was asked for."""
        last = max((i for i, row in enumerate(self.rows) if row.weights), default=0)
        return [row for i, row in enumerate(self.rows) if (row.after if row.weights else i < last)]


# -------------------------------------------------------------------------------------------------------------- thresholds

LEARNED = 0.9
# AlexNet needs 60 steps for ten classes on small batches of drawn images, without any illness. With more classes each is seen
# less often: 2000 steps for 1000 classes are 256 images of each at the paper's batch of 128.
FLAT_STEPS, FLAT_STEPS_A_CLASS = 100, 2
# Times ln C. A mean of 50 losses with a standard deviation of .2 is known to .03; dropout before the scores adds up to a tenth.
FLAT_BAND = (0.97, 1.15)
EXPLODING_LOSS = 1.5  # times the start. Small initial weights give 1.0 to 1.25 times ln C
NEVER_OFF = 0.05  # zeros: AlexNet's ReLUs have .2 to .5 at the start, and more later. Without zeros a ReLU is the identity
ALIKE = 0.05  # of the mean |activation|: AlexNet's layers have .2 to 1.5
DEAD = 0.5  # of the units: half of the layer's width is lost. AlexNet's fc6 starts with a quarter, in a batch of 32
DEAD_OUTPUTS = 8  # of each unit, at least: of few, all may be 0 by chance
MOSTLY_SATURATED = 0.5
# From a layer with weights to the next. ReLU layers with PyTorch's default weights (uniform, of variance 1 / (3 fan_in)) keep
# sqrt(1/6) = .41, and nets of them train. AlexNet's pools and normalisations take two smaller factors in a row: so three it is.
SHRINKING, IN_A_ROW = 0.3, 3
# "Somewhere around 1e-3": Karpathy, notes to Stanford's course CS231n, "Neural Networks Part 3: Learning and Evaluation",
# "Ratio of weights:updates". A rule of thumb: AlexNet's first and last layer train well at 2e-2.
UPDATE_RATIO, FAR = 1e-3, 100
SATURATED = 0.1  # where the slope is below a tenth of its steepest: tanh's 1 - y^2 beyond |y| = .95, sigmoid's where y is .03

# ------------------------------------------------------------------------------------------------------------------- signs

Found = dict[str, str]  # a layer's title, or "the loss" -> the numbers that are a sign


def not_finite(e: Evidence) -> Found:
    """The first place only: activations in the order of forward, then gradients from the end, then weights."""
    numbers = [(row, "mean |activation|", row.mean_abs_activation) for row in e.rows]
    numbers += [(row, "mean |gradient|", row.mean_abs_gradient or 0.0) for row in reversed(e.rows)]
    numbers += [(row, "mean |gradient| of the weights", row.mean_abs_weight_gradient or 0.0) for row in reversed(e.rows)]
    numbers += [(row, "update ratio", row.update_ratio or 0.0) for row in e.rows]
    for row, what, value in numbers:
        if not math.isfinite(value):
            return {row.title: f"{what} {value}"}
    return {} if math.isfinite(e.loss) else {"the loss": str(e.loss)}


def exploding_loss(e: Evidence) -> Found:
    if len(e.losses.means) < 2:
        return {}
    before, now = e.losses.means[-2:]
    if not before < now > EXPLODING_LOSS * e.start:
        return {}
    return {"the loss": f"{before:.4g}, then {now:.4g} in the mean of {Losses.STEPS} steps; {e.start_in_words}"}


def flat_loss(e: Evidence) -> Found:
    if not e.classes:
        return {}
    wanted = math.ceil(max(FLAT_STEPS, FLAT_STEPS_A_CLASS * e.classes) / Losses.STEPS)
    wanted = min(wanted, Losses.KEPT)
    means = e.losses.means[-wanted:]
    half = wanted // 2
    low, high = (bound * e.start for bound in FLAT_BAND)
    if len(means) < wanted or not all(low < _mean(part) < high for part in (means[:half], means[half:])):
        return {}
    about = f"{_mean(means[:half]):.4g}, then {_mean(means[half:]):.4g} in the halves of the last {wanted * Losses.STEPS} steps"
    return {"the loss": f"{about}; {e.start_in_words}"}


def every_unit_on(e: Evidence) -> Found:
    return {r.title: f"{r.zeros:.1%} zeros" for r in e.rows if r.zeros is not None and r.zeros < NEVER_OFF}


def dead_relus(e: Evidence) -> Found:
    return {r.title: f"{r.dead:.1%} of {r.units} units" for r in e.rows if _is_dead(r)}


def _is_dead(row: Row) -> bool:
    enough = row.examples * row.outputs >= DEAD_OUTPUTS * row.units
    return row.dead is not None and row.dead > DEAD and enough


def saturated_units(e: Evidence) -> Found:
    rows = [r for r in e.hidden() if r.saturated is not None and r.saturated > MOSTLY_SATURATED]
    return {r.title: f"{r.saturated:.1%} of {r.op}'s outputs" for r in rows}


def examples_look_alike(e: Evidence) -> Found:
    found = {}
    for row in e.hidden():
        spread, size = row.std_over_batch, row.mean_abs_activation
        if spread is not None and spread < ALIKE * size and not _is_dead(row):
            found[row.title] = f"standard deviation {spread:.2g} over the batch, mean |activation| {size:.2g}"
    return found


def vanishing_signal(e: Evidence) -> Found:
    return _forwards(e, _shrinks)


def growing_signal(e: Evidence) -> Found:
    return _forwards(e, _grows)


def vanishing_gradient(e: Evidence) -> Found:
    return _backwards(e, _shrinks)


def exploding_gradient(e: Evidence) -> Found:
    return _backwards(e, _grows)


def _shrinks(factor: float) -> bool:
    return factor < SHRINKING


def _grows(factor: float) -> bool:
    return factor > 1 / SHRINKING


def _forwards(e: Evidence, far: Callable[[float], bool]) -> Found:
    return _in_a_row(e.rows, _signal, "before", far)


def _backwards(e: Evidence, far: Callable[[float], bool]) -> Found:
    return _in_a_row(reversed(e.rows), _gradient, "after", far)


def _signal(row: Row) -> float:
    return row.mean_abs_activation if row.std_over_batch is None else row.std_over_batch


def _gradient(row: Row) -> float:
    """As the norm of an example's gradient goes, which fitting weights keep from layer to layer, of many outputs or few."""
    return (row.mean_abs_gradient or 0.0) * math.sqrt(row.outputs)


def _in_a_row(rows: Iterable[Row], value: Callable[[Row], float], side: str, far: Callable[[float], bool]) -> Found:
    """The rows at which the value has changed by a `far` factor for the third time in a row, or more.

    side : "before" or "after", the rows from which a row's value comes. They are earlier in `rows`.
    """
    lengths: dict[int, int] = {}  # by a row's id
    found = {}
    for row in rows:
        sources = getattr(row, side)
        came = _mean([value(source) for source in sources]) if sources else 0.0
        factor = value(row) / came if came else 1.0
        length = lengths[id(row)] = 1 + min(lengths[id(source)] for source in sources) if far(factor) else 0
        if length >= IN_A_ROW:
            found[row.title] = f"{value(row):.2g}, {factor:.2g} times that of the layer {side}, {length} in a row"
    return found


def updates_too_large(e: Evidence) -> Found:
    return {r.title: f"{r.update_ratio:.3g}" for r in e.rows if (r.update_ratio or 0.0) > UPDATE_RATIO * FAR}


def updates_too_small(e: Evidence) -> Found:
    """Only at the beginning of a run, but after ten steps: rates may start from 0, and later small steps are meant."""
    if e.learned or not e.losses.means:
        return {}
    ratios = {row.title: row.update_ratio for row in e.rows if row.update_ratio is not None}
    return {title: f"{ratio:.3g}" for title, ratio in ratios.items() if ratio < UPDATE_RATIO / FAR}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# --------------------------------------------------------------------------------------------------------------- illnesses


@dataclass(frozen=True)
class Illness:
    """A name; its sign, as a function and as a rule in words; what usually causes it, and what to try."""

    name: str
    sign: Callable[[Evidence], Found]
    rule: str
    causes: str
    cures: str


NOT_FINITE = Illness(
    "not finite",
    not_finite,
    "NaN and infinity spread; this is the first place that was seen",
    "a rate too large; a logarithm, root or division at 0; an exponential of a large number; inputs that are not finite",
    "`with minidl.detect_anomaly():` around forward and backward: it names the op that made it, its layer and what came in",
)

_IN_A_ROW = f"{IN_A_ROW} layers in a row or more"

ILLNESSES = (
    NOT_FINITE,
    Illness(
        "exploding loss",
        exploding_loss,
        f"the mean of ten steps above {EXPLODING_LOSS} times the loss of knowing nothing, and above that of the ten before",
        "a rate too large",
        "a tenth of the rate, or gradients of limited size",
    ),
    Illness(
        "flat loss",
        flat_loss,
        f"both halves of the last {FLAT_STEPS} steps ({FLAT_STEPS_A_CLASS} for each class, if that is more) between "
        f"{FLAT_BAND[0]} and {FLAT_BAND[1]} times ln C, the loss of giving each of C classes the same chance",
        "initial weights so small that no layer hears the input; a rate too small, or too large; labels shuffled against "
        "their inputs",
        "to overfit one batch: if that works, look at labels and data; if not, at the initial weights and the rate",
    ),
    Illness(
        "every unit on",
        every_unit_on,
        f"a ReLU with fewer than {NEVER_OFF:.0%} zeros: it is the identity, and its layer and the next are one linear map",
        "a bias too large beside the weights, as bias 1 beside sigma .01 in AlexNet's conv4 and conv5",
        "larger initial weights (sigma sqrt(2 / fan_in) keeps a ReLU layer's signal; AlexNet's program has .03), or bias 0",
    ),
    Illness(
        "examples look alike",
        examples_look_alike,
        f"a hidden layer whose outputs differ over the batch by less than {ALIKE:.0%} of their size",
        "biases that drown the signal; initial weights too small; inputs with a large common part",
        "larger initial weights, smaller biases, the mean subtracted from the inputs",
    ),
    Illness(
        "vanishing signal",
        vanishing_signal,
        f"the part of the output that differs over the batch is less than {SHRINKING} times that of the layer before, "
        f"{_IN_A_ROW}",
        "initial weights too small; sigmoids, whose slope is 1/4 at most",
        "weights of sigma sqrt(2 / fan_in) before a ReLU, sqrt(1 / fan_in) before a tanh; ReLUs instead of sigmoids",
    ),
    Illness(
        "growing signal",
        growing_signal,
        f"the part of the output that differs over the batch is more than {1 / SHRINKING:.1f} times that of the layer before, "
        f"{_IN_A_ROW}",
        "initial weights too large",
        "weights of sigma sqrt(2 / fan_in) before a ReLU, sqrt(1 / fan_in) before a tanh",
    ),
    Illness(
        "vanishing gradient",
        vanishing_gradient,
        f"mean |gradient| times the root of the number of outputs is less than {SHRINKING} times that of the layer after, "
        f"{_IN_A_ROW}",
        "initial weights too small; sigmoids or saturated units, whose slopes multiply",
        "larger initial weights; ReLUs instead of sigmoids",
    ),
    Illness(
        "exploding gradient",
        exploding_gradient,
        f"mean |gradient| times the root of the number of outputs is more than {1 / SHRINKING:.1f} times that of the layer "
        f"after, {_IN_A_ROW}",
        "weights too large",
        "smaller initial weights; gradients of limited size",
    ),
    Illness(
        "dead ReLUs",
        dead_relus,
        f"more than {DEAD:.0%} of the units are 0 for every example and place of the batch: no gradient passes them",
        "a step so large that it pushed the biases far below 0; a rate too large; biases that start below 0",
        "a smaller rate from the start (the dead seldom come back); biases of 0 or a little above",
    ),
    Illness(
        "saturated units",
        saturated_units,
        f"more than {MOSTLY_SATURATED:.0%} of a hidden tanh's or sigmoid's outputs lie where the slope is below a tenth of its "
        "steepest",
        "weights or inputs too large; a rate too large",
        "inputs of mean 0 and standard deviation 1; weights of sigma sqrt(1 / fan_in); ReLUs",
    ),
    Illness(
        "updates too large",
        updates_too_large,
        f"||change|| / ||weights|| above {UPDATE_RATIO * FAR:g}; Karpathy's rule of thumb (CS231n) is about {UPDATE_RATIO:g}",
        "a rate too large; initial weights very small",
        "a smaller rate",
    ),
    Illness(
        "updates too small",
        updates_too_small,
        f"||change|| / ||weights|| below {UPDATE_RATIO / FAR:g} before anything is learned; Karpathy's rule of thumb (CS231n) "
        f"is about {UPDATE_RATIO:g}",
        "a rate too small; a gradient that vanished on its way; if 0 exactly, weights that the optimizer was not given",
        "a larger rate; what is said of the gradients; comparing the optimizer's parameters with the model's",
    ),
)


@dataclass(frozen=True)
class Diagnosis:
    """An illness and the layers that show it: a layer's title, or "the loss" -> the numbers. `str` of it is four lines."""

    illness: Illness
    layers: Mapping[str, str]

    SHOWN = 8  # layers

    def __str__(self) -> str:
        named = [f"{title} ({numbers})" for title, numbers in self.layers.items()]
        more = f" and {len(named) - self.SHOWN} more" if len(named) > self.SHOWN else ""
        where = ", ".join(named[: self.SHOWN]) + more
        about = self.illness
        return f"{about.name}: {where}\n    rule: {about.rule}\n    likely: {about.causes}\n    try: {about.cures}"


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """Every illness whose sign is there. If a number is not finite, that alone: it makes nonsense of the others."""
    found = []
    for illness in ILLNESSES:
        layers = illness.sign(evidence)
        if layers:
            found.append(Diagnosis(illness, layers))
            if illness is NOT_FINITE:
                break
    return found
