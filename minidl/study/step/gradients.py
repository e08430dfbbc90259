"""Is every backward right, on the tensors that really arrive? Each op of a model by itself, in float64, against numeric slopes.

Each by itself, because end to end a nudge of millions of weights steps over some ReLU's kink, and numeric slopes mean nothing
there. An op is given what it was given in a real forward; a very large fully connected layer has fewer units. Where what
arrived lies on a kink or a tie, or within a nudge of one, the op is checked beside it, and the badge says how.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl import random
from minidl.grad_mode import no_grad
from minidl.gradcheck import (
    Comparison,
    GradcheckError,
    NotDifferentiableError,
    NotFiniteError,
    WrongGradientError,
    gradcheck_leaves,
)
from minidl.nn import Module
from minidl.observer import Observer
from minidl.tensor import Function, Tensor

DIRECTIONS = 8
LARGEST = 1 << 20  # elements of a fully connected layer's weight; of larger ones the first units are checked


@dataclass(frozen=True)
class Badge:
    """What a check of one op's gradient found.

    layer          : the layer's name; outside layers the op's
    leaf           : "input" ("x", "y", ... if there are several), or the parameter's name in its layer, "weight"
    relative_error : of the worst direction, |numeric - analytic| over the larger; None if the check came to no result
    directions     : how many random directions were compared
    dtype          : in which it was computed, "float64"
    note           : "" or what else is to be known: a kink, a mask that was drawn; "FAILED: " and the diagnosis
    op, number     : the op's name, and its place in the order in which the ops ran
    failed         : does backward disagree with forward?
    """

    layer: str
    leaf: str
    relative_error: float | None
    directions: int
    dtype: str
    note: str
    op: str
    number: int
    failed: bool


def check_layers(model: Callable[[Tensor], Any], batch: np.ndarray | Tensor) -> list[Badge]:
    """A badge for each input and parameter of each op that the model runs, in the order of forward.

    model : a module, or any function of a batch. It is left as it was, as are the random numbers.
    batch : what it is given, one image is enough: the time grows with it. In the dtype of the parameters.

    No error is raised for a wrong backward: its badge says so.
    """
    return list(layer_checks(model, batch))


def layer_checks(model: Callable[[Tensor], Any], batch: np.ndarray | Tensor) -> Iterator[Badge]:
    """As `check_layers`, each badge as soon as it is known."""
    with _random_numbers_from(random.default_generator.state()), _Calls() as seen:
        model(_batch_with_gradient(model, batch))
    while seen.calls:
        yield from _check(seen.calls.pop(0))


@contextmanager
def _random_numbers_from(state: Any) -> Iterator[None]:
    """Inside, the default generator goes on from this state; afterwards from where it was."""
    before = random.default_generator.state()
    random.default_generator.set_state(state)
    try:
        yield
    finally:
        random.default_generator.set_state(before)


def _batch_with_gradient(model: Callable[[Tensor], Any], batch: np.ndarray | Tensor) -> Tensor:
    """A tensor of the batch's values, which the first layer's input gradient is asked for."""
    if isinstance(batch, Tensor):
        return Tensor(batch.data, requires_grad=batch.dtype.kind == "f", device=batch.device)
    parameters = model.parameters() if isinstance(model, Module) else iter(())
    first = next(parameters, Tensor(np.float32(0)))
    return Tensor(batch, requires_grad=True, device=first.device, dtype=first.dtype)


# ---------------------------------------------------------------------------------------------------------------- calls


@dataclass(frozen=True)
class _Call:
    """An op as it was called: what it was applied to (tensors without a graph, or constants), and what is to be checked."""

    op: type[Function]
    number: int
    layer: str
    inputs: tuple[Any, ...]
    settings: dict[str, Any]
    leaves: tuple[tuple[str, int], ...]  # (name, place among the inputs)
    random: Any  # the state of the default generator when it was called
    notes: tuple[str, ...] = ()

    def run(self) -> Tensor:
        """The op's output."""
        outputs = self.op.apply(*self.inputs, **self.settings)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def put(self, place: int, x: Tensor, note: str) -> "_Call":
        """The same with another input, and a note about that."""
        inputs = (*self.inputs[:place], x, *self.inputs[place + 1 :])
        return replace(self, inputs=inputs, notes=(*self.notes, note))


class _Calls(Observer):
    """Keeps how every op was called that needs a gradient."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self._number = 0
        self._random: Any = None

    def forward_begins(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
        self._random = random.default_generator.state()

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        drew = random.default_generator.state() != self._random
        call = _Call(
            op=type(node),
            number=self._number,
            layer=node.layer.name() or node.name,
            inputs=tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs),
            settings=dict(settings),
            leaves=_leaves(node, inputs),
            random=self._random,
            notes=("draws random numbers: the same ones throughout",) if drew else (),
        )
        if call.leaves:
            self.calls.append(call)
        self._number += 1


def _leaves(node: Any, inputs: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    """Parameters by their names in their layer; an input that is no parameter as "input", several by their letters."""
    named = [(name, i) for i, name in enumerate(node.layer.names_of(inputs)) if node.needs_grad[i]]
    letters = [name for name, _ in named if len(name) == 1]
    return tuple(("input" if [name] == letters else name.rpartition(".")[2], i) for name, i in named)


def _in_float64(call: _Call) -> _Call:
    """With copies in float64 of all float tensors; those to be checked require a gradient."""
    wanted = {place for _, place in call.leaves}
    inputs = (_copy_in_float64(x, i in wanted) for i, x in enumerate(call.inputs))
    return replace(call, inputs=tuple(inputs))


def _copy_in_float64(x: Any, requires_grad: bool) -> Any:
    if not isinstance(x, Tensor) or x.dtype.kind != "f":
        return x
    with x.device.active():
        return Tensor(x.data.astype(np.float64), requires_grad=requires_grad, device=x.device)


def _with_fewer_units(call: _Call) -> _Call:
    """Of a fully connected layer with a very large weight the first units: each computes its output alone."""
    if not call.op.weighted or call.inputs[1].ndim != 2 or call.inputs[1].numel() <= LARGEST:
        return call
    x, weight, bias = call.inputs
    units = max(LARGEST // weight.shape[1], 1)
    note = f"the first {units:,} of {len(weight):,} units"
    with no_grad():
        inputs = (x, weight[:units], None if bias is None else bias[:units])
    return replace(call, inputs=inputs, notes=(*call.notes, note))


# --------------------------------------------------------------------------------------------------------------- checks


def _check(call: _Call) -> Iterator[Badge]:
    call = _in_float64(_with_fewer_units(call))
    for leaf, place in call.leaves:
        checked, outcome = call, _compare(call, leaf, place)
        if _may_be_a_kink(call, outcome):
            beside = _beside_the_kink(call, place, str(outcome))
            second = _compare(beside, leaf, place)
            if isinstance(second, Comparison):
                checked, outcome = beside, second
        yield _badge(checked, leaf, outcome)


def _compare(call: _Call, leaf: str, place: int) -> Comparison | Exception:
    """The worst comparison for one input, or why there is none. Whatever an op's code raises is a finding here."""
    try:
        with _random_numbers_from(call.random), np.errstate(all="ignore"):
            with no_grad():
                y = call.run()
            if y.dtype != np.float64:
                return TypeError(f"{call.op.name}: its output is {y.dtype} for float64, too coarse for numeric slopes")
            random.default_generator.set_state(call.random)
            leaves = {leaf: call.inputs[place]}
            return gradcheck_leaves(call.run, leaves, directions=DIRECTIONS, exhaustive=0, allow_zero=True)[0]
    except Exception as error:
        return error


def _may_be_a_kink(call: _Call, outcome: Comparison | Exception) -> bool:
    """gradcheck finds most kinks; a faint one among many smooth slopes looks like a backward that disagrees a little."""
    smooth = call.op.__module__.startswith("minidl.ops.") and not call.op.kinked
    return isinstance(outcome, NotDifferentiableError) or (isinstance(outcome, WrongGradientError) and not smooth)


def _badge(call: _Call, leaf: str, outcome: Comparison | Exception) -> Badge:
    notes, error, directions, failed = list(call.notes), None, 0, False
    if isinstance(outcome, Comparison):
        error, directions = outcome.relative_error, outcome.comparisons
        if outcome.analytic == 0:
            notes.append("the gradient is 0 here, which proves little")
    else:
        no_slope = isinstance(outcome, (NotDifferentiableError, NotFiniteError))  # backward is not to blame
        failed = isinstance(outcome, GradcheckError) and not no_slope
        notes.insert(0, f"{'FAILED' if failed else 'not checked'}: {outcome}")
    return Badge(
        layer=call.layer,
        leaf=leaf,
        relative_error=error,
        directions=directions,
        dtype="float64",
        note="; ".join(notes),
        op=call.op.name,
        number=call.number,
        failed=failed,
    )


# ---------------------------------------------------------------------------------------------------------------- kinks


def _beside_the_kink(call: _Call, place: int, diagnosis: str) -> _Call:
    """The call with inputs that no nudge moves over a kink or a tie."""
    found = f"a kink or a tie is near what arrived ({_found(diagnosis)})"
    if call.op.weighted and call.op.rectifies:
        return _with_units_on_or_off(call, found)
    x = call.inputs[place]
    values = _spread_out(x.detach().numpy())
    moved = Tensor(values, requires_grad=True, device=x.device)
    return call.put(place, moved, f"{found}; checked on values in the same order, evenly from -2 to 2")


def _found(diagnosis: str) -> str:
    """The slopes in gradcheck's diagnosis."""
    return re.sub(r"^.*?(?=along )|;.*$", "", diagnosis)


def _spread_out(values: np.ndarray) -> np.ndarray:
    """The same order of sizes at even distances, none near 0: no tie and no kink within a nudge's reach."""
    order = np.empty(values.size)
    order[np.argsort(values.reshape(-1), kind="stable")] = np.arange(values.size) - values.size // 2 + 0.5
    return order.reshape(values.shape) * (4.0 / values.size)


def _with_units_on_or_off(call: _Call, found: str) -> _Call:
    """Neurons with a ReLU of which each is on or off by a wide margin: biases see to it."""
    x, weight, _ = call.inputs
    with no_grad():  # of a sum and of its negative one gets through the ReLU
        sums = [call.op.apply(x, w, None, **call.settings).numpy() for w in (weight, -weight)]
    margin = max(2 * float(np.max(sums, initial=0)), 1.0)
    signs = np.where(np.arange(len(weight)) % 2, -1.0, 1.0)
    moved = Tensor(signs * margin, requires_grad=True, device=weight.device)
    return call.put(2, moved, f"{found}; checked with biases of {margin:.3g} and {-margin:.3g} in turn")
