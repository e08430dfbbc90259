"""Why is a number what it is? Of one number of a training step, by its name, the terms that add up to it.

    print(why(model, image, "conv2.weight[5,3,2,2]", gradient=True))

Names are those of parameters, `conv2.weight[5,3,2,2]`; of what a layer was given and made, `conv2.input[0,3,5,6]` and
`conv2.output[0,5,3,3]`; `input[0,2,10,12]`, what the model was given; `loss`; and of any op its place in the step and a slot,
as the explorer's addresses have them: `9.y[0,5,3,3]`, its output; `9.gy[0,5,3,3]`, the gradient that came to it;
`9.x0[0,5,3,3]`, its first input; `9.g0[0,5,3,3]`, the gradient that it gave that.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.kernels import plain_kernels
from minidl.nn import Module
from minidl.study.models import batch_for, left_as_it_was, loss_of
from minidl.study.step.arrays import RecordedOp, Recording
from minidl.study.step.table import aligned, shape
from minidl.study.step.terms import KINDS, Factor, Place, Term, Terms, terms
from minidl.tensor import Tensor

SHOWN = 10  # terms, where it is not said how many
_NUMBER = re.compile(r"\s*(?P<name>[^\[\]\s]+)\s*(?:\[(?P<index>[\d\s,]*)\])?\s*")


@dataclass(frozen=True)
class Answer:
    """A number, and why. `str` of it writes the SHOWN largest terms out; `text` more, or all.

    name   : what was asked, with its index and where it lies
    value  : minidl's number
    found  : its terms; None where nothing made it, or its terms are not written out
    remark : a sentence about it
    legend : what the factors' names stand for
    """

    name: str
    value: float
    found: Terms | None = None
    remark: str = ""
    legend: tuple[str, ...] = ()

    def text(self, shown: int | None = SHOWN) -> str:
        """The answer in lines. shown : how many terms at most, None for all."""
        digits = 6 if self.found is None else self.found.digits(self.value)
        lines = [f"{self.name} = {_shown(self.value, digits)}", *([self.remark] if self.remark else [])]
        if self.found is not None:
            lines += ["", *_body(self.found, self.value, digits, shown)]
        return "\n".join([*lines, *self.legend])

    def __str__(self) -> str:
        return self.text()


def _body(found: Terms, value: float, digits: int, shown: int | None) -> Iterator[str]:
    ordered = sorted(found.terms, key=lambda term: -abs(term.value))
    first, rest = ordered[:shown], ordered[len(ordered[:shown]) :]
    yield found.formula
    yield f"{len(ordered):,} term{'' if len(ordered) == 1 else 's'}{', the largest first' if len(ordered) > 1 else ''}:"
    rows = [[_shown(term.value, digits), _made_of(term)] for term in first]
    if rest:
        rows.append([_shown(sum(term.value for term in rest), digits), f"{len(rest):,} others together"])
    rows.append([_shown(found.added, digits), "sum"])
    if found.rectified:
        rows.append([_shown(found.sum, digits), "max(0, sum)"])
    rows.append([_shown(value, digits), "minidl's number"])
    yield from (f"  {line}" for line in aligned(rows, right=(0,)))
    yield _agreement(found, value, digits)
    yield from found.notes


def _agreement(found: Terms, value: float, digits: int) -> str:
    if abs(value - found.sum) > found.bound:
        return f"They differ by {value - found.sum:.3g}, more than the {found.bound:.2g} that float32's rounding explains."
    how = "1 digit" if digits == 1 else f"{digits} digits"
    return f"Equal to {how}; the sum is in float64, minidl's number in float32, which may differ by {found.bound:.2g}."


def _shown(value: float, digits: int) -> str:
    value += 0.0
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    return f"{value:#.{digits}g}".removesuffix(".") if 1e-3 <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"


def _made_of(term: Term) -> str:
    factors = " * ".join(_factor(factor) for factor in term.factors)
    return " ".join(part for part in (term.name, factors, f"* {term.times}" if term.times else "") if part)


def _gradient_of(slot: re.Match[str]) -> str:
    """ "gradient of 9.y" for 9.gy; what one op gave its input is only a part where others use it too."""
    return f"gradient of {slot[1]}.y" if slot[2] == "y" else f"gradient by op {slot[1]} of {slot[1]}.x{slot[2]}"


def _factor(factor: Factor) -> str:
    return f"{factor.slot}{list(factor.index) if factor.index else ''} {_shown(factor.value, 5)}"


# ------------------------------------------------------------------------------------------------------------- the step


def why(model: Module, image: np.ndarray | Tensor, number: str, *, gradient: bool = False, label: int | None = None) -> Answer:
    """Run a training step on one image and say why a number of it is what it is.

    image    : (1, ...), what the model is given
    number   : its name, with its index in brackets; "" is refused with the names that there are
    gradient : of the loss's gradient to the number, instead of the number itself
    label    : the class whose cross-entropy is the loss; by default the one that the scores favour

    The step is the explorer's: its loss, in training mode, so dropout draws a mask; and the image is given a gradient too. The
    model, its gradients and the random state are as before afterwards.

    ValueError: no such name, or no gradient there. IndexError: an index that the array has not.
    """
    return Step(recorded_step(model, image, label)).why(number, gradient)


def recorded_step(model: Module, image: np.ndarray | Tensor, label: int | None = None) -> Recording:
    """Every array of a training step on one image (1, ...), whose gradient is there too.

    It runs the plain functions of minidl/ops, as the explorer's does: the same numbers.
    """
    x = batch_for(model, image).requires_grad_()
    with left_as_it_was(model), plain_kernels(), Recording() as step:
        model.zero_grad()
        model.train()
        loss, _ = loss_of(model(x), label)
        loss.backward()
    return step


@dataclass(frozen=True)
class _Ref:
    """A number: of which op and slot, and where."""

    op: RecordedOp
    slot: str
    index: Place

    @property
    def value(self) -> float | None:
        array = self.op.array(self.slot)
        return None if array is None else float(array[self.index])


class Step:
    """The numbers of a recorded step by their names, in `names`: name -> [(op, slot)], one a tower."""

    def __init__(self, recording: Recording) -> None:
        self.ops = recording.ops
        self._recording = recording
        self.names: dict[str, list[tuple[RecordedOp, str]]] = {}
        given = next((x.array for op in self.ops for x in op.inputs if x.maker is None and not x.parameter), None)
        for op in self.ops:
            for i, x in enumerate(op.inputs):
                if x.parameter:
                    self._add(x.name, op, f"x{i}")
                elif x.array is given:
                    self.names.setdefault("input", [(op, f"x{i}")])
            if op.is_layer:
                self._add(f"{op.layer}.input", op, "x0")
                self._add(f"{op.layer}.output", op, "y")
        self.names["loss"] = [(self.ops[-1], "y")]

    def _add(self, name: str, op: RecordedOp, slot: str) -> None:
        """By the whole name, and by the name without the tower, which several may have. The last output of a layer counts, and
        the first input."""
        short = re.sub(r"^tower\d+\.", "", name)
        for each in dict.fromkeys((name, short)):
            places = self.names.setdefault(each, [])
            same = [k for k, (other, _) in enumerate(places) if other.layer == op.layer]
            if not same:
                places.append((op, slot))
            elif slot == "y":
                places[same[0]] = (op, slot)

    def why(self, number: str, gradient: bool = False) -> Answer:
        """See `why`."""
        asked, others = self._parsed(number)
        ref = self._gradient(asked, number) if gradient else self._origin(asked)
        note = f"The same name without a tower is also of {', '.join(others)}; this is {asked.op.layer}'s." if others else ""
        return self._answer(number, ref, gradient, note)

    def listing(self) -> str:
        """The names, with shapes, one a line."""
        shapes = {name: op.array(slot) for name, [(op, slot), *_] in self.names.items()}
        rows = [[name, shape(array.shape)] for name, array in shapes.items() if array is not None]
        return "\n".join(aligned([["name", "shape"], *rows]))

    def _parsed(self, number: str) -> tuple[_Ref, list[str]]:
        """The number, and the layers of the others that its name could mean."""
        match = _NUMBER.fullmatch(number)
        if match is None:
            raise ValueError(f"why: a number is a name and an index, as conv2.weight[5,3,2,2], got {number!r}")
        name, index = match["name"], tuple(int(i) for i in re.findall(r"\d+", match["index"] or ""))
        (op, slot), *more = self._places(name)
        array = op.array(slot)
        if array is None:
            raise ValueError(f"why: no gradient came to {name}: nothing before it is trained")
        if len(index) != array.ndim:
            raise IndexError(f"why: {name} has the shape {array.shape}, got the index {list(index)}")
        for axis, (i, size) in enumerate(zip(index, array.shape, strict=True)):
            if i >= size:
                wrong = f"{i} on axis {axis} is not below {size}"
                raise IndexError(f"why: {name} has the shape {array.shape}, got the index {list(index)}: {wrong}")
        return _Ref(op, slot, index), [str(other.layer) for other, _ in more]

    def _places(self, name: str) -> list[tuple[RecordedOp, str]]:
        place, dot, slot = name.partition(".")
        if dot and place.isdecimal() and int(place) < len(self.ops) and re.fullmatch(r"y|gy|[xg]\d+", slot):
            op = self.ops[int(place)]
            op.array(slot)  # refuses a slot that it has not
            return [(op, slot)]
        if name in self.names:
            return self.names[name]
        near = difflib.get_close_matches(name, self.names, n=4, cutoff=0.5)
        near = near or [known for known in self.names if known.startswith(name)][:4]
        known = f"near it: {', '.join(near)}" if near else f"there are {', '.join(list(self.names)[:6])}, ..."
        raise ValueError(f"why: no parameter, input or output has the name {name!r}; {known}")

    # ---------------------------------------------------------------------------------------------- where it comes from

    def _givers(self, op: RecordedOp) -> list[tuple[RecordedOp, int]]:
        """Who gave an op's output a gradient."""
        return [(other, i) for other, i in self._recording.consumers(op.number) if other.array(f"g{i}") is not None]

    def _origin(self, ref: _Ref) -> _Ref:
        """The number where it was made: an input is another op's output, a gradient from one op is what left that."""
        if ref.slot[0] == "x":
            maker = ref.op.inputs[int(ref.slot[1:])].maker
            return ref if maker is None else _Ref(self.ops[maker], "y", ref.index)
        if ref.slot == "gy" and len(givers := self._givers(ref.op)) == 1:
            return _Ref(givers[0][0], f"g{givers[0][1]}", ref.index)
        return ref

    def _gradient(self, ref: _Ref, number: str) -> _Ref:
        """The gradient to a number."""
        unit = self._origin(ref)
        if unit.slot[0] == "g":
            raise ValueError(f"why: {number} is a gradient itself; ask for it without --gradient")
        found = _Ref(unit.op, "gy" if unit.slot == "y" else unit.slot.replace("x", "g"), unit.index)
        if found.value is None:
            raise ValueError(f"why: no gradient came to {number}: nothing before it is trained, or nothing that is uses it")
        return self._origin(found)

    def _uses(self, ref: _Ref) -> list[_Ref]:
        """The gradients that a parameter, or what the model was given, got from each op that used it."""
        leaf = ref.op.inputs[int(ref.slot[1:])] if re.fullmatch(r"g\d+", ref.slot) else None
        if leaf is None or leaf.maker is not None:
            return [ref]
        places = [(op, i) for op in self.ops for i, x in enumerate(op.inputs) if x.array is leaf.array]
        return [_Ref(op, f"g{i}", ref.index) for op, i in places if op.array(f"g{i}") is not None]

    # -------------------------------------------------------------------------------------------------------- the answer

    def _answer(self, number: str, ref: _Ref, gradient: bool, note: str) -> Answer:
        asked = re.sub(r"^(\d+)\.g(y|\d+)", _gradient_of, number.strip())
        name = f"{'gradient of ' if gradient else ''}{asked}, {self._where(ref.op)}"
        parts = self._parts(ref)
        if parts:
            formula = "the sum of what came back from each op that used the number"
            found = Terms(formula, [self._part(part) for part in parts])
            return Answer(name, self._total(ref), found, note, tuple(self._legend_of(part) for part in parts))
        value = ref.value
        assert value is not None, "an origin has a value"
        if ref.slot[0] == "x" or ref.slot == "gy":
            return Answer(name, value, None, " ".join(filter(None, (self._leaf(ref), note))))
        found_terms = terms(ref.op, ref.slot, ref.index)
        if found_terms is None:
            known = f"Written out are those of {', '.join(KINDS)}."
            return Answer(name, value, None, f"The terms of {ref.op.op} are not written out. {known}")
        return Answer(name, value, found_terms, note, self._legend(ref.op, found_terms))

    def _parts(self, ref: _Ref) -> list[_Ref]:
        """The gradients that add up to a number, where it is one that several ops gave; else none."""
        if ref.slot == "gy":
            return [_Ref(op, f"g{i}", ref.index) for op, i in self._givers(ref.op)]
        parts = self._uses(ref)
        return parts if len(parts) > 1 else []

    def _total(self, ref: _Ref) -> float:
        """The number that several gradients add up to, as backward left it."""
        whole = ref.op.gy if ref.slot == "gy" else self._recording.total(ref.op.inputs[int(ref.slot[1:])])
        assert whole is not None, "what several ops gave a gradient has one"
        return float(whole[ref.index])

    def _part(self, part: _Ref) -> Term:
        value = part.value or 0.0
        return Term(value, (Factor(f"{part.op.number}.{part.slot}", part.index, value),))

    def _leaf(self, ref: _Ref) -> str:
        if ref.slot == "gy":
            return "Backward begins here: the loss grows by 1 for each unit of itself."
        if ref.op.inputs[int(ref.slot[1:])].parameter:
            return "It is a parameter: this step reads it. Its gradient is asked with --gradient."
        return "The model was given it: nothing in the step made it. Its gradient is asked with --gradient."

    def _where(self, op: RecordedOp) -> str:
        """ "op 9, conv2d_relu of tower0.conv2"."""
        return f"op {op.number}, {op.op}{f' of {op.layer}' if op.is_layer else ''}"

    def _legend(self, op: RecordedOp, found: Terms) -> tuple[str, ...]:
        slots = dict.fromkeys(factor.slot for term in found.terms for factor in term.factors)
        return tuple(self._meaning(op, slot) for slot in slots)

    def _legend_of(self, part: _Ref) -> str:
        return f"{part.op.number}.{part.slot}: what {self._where(part.op)} gave"

    def _meaning(self, op: RecordedOp, slot: str) -> str:
        """What a slot's name stands for, and how to ask on."""
        if slot == "gy":
            return f"gy: the gradient of the op's output, which is asked as {op.number}.gy[...]"
        x: Any = op.inputs[int(slot[1:])]
        if x.parameter:
            return f"{slot}: {x.name}"
        if x.maker is None:
            return f"{slot}: what the model was given"
        return f"{slot}: the output of {self._where(self.ops[x.maker])}, which is asked as {x.maker}.y[...]"
