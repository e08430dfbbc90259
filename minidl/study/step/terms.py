"""What one number of an op is made of, in float64, forward and backward: the terms that add up to it.

    found = terms(op, "y", (0, 5, 3, 3))          op: of minidl/study/step/arrays.py
    found.sum, found.terms[0].factors

It is the mathematics of minidl/ops for one number at a time, written for each kind of op; the explorer's page has the same in
minidl/study/explorer/page/layers.js, and a test compares the two term by term. A term is the product of its factors, and of
what its name or `times` says. Slots name an op's arrays, see minidl/study/step/arrays.py.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.study.step.arrays import RecordedOp

Place = tuple[int, ...]
MOST_DIGITS = 6


@dataclass(frozen=True)
class Factor:
    """A number that a term is made of: of which array, where, and what it is."""

    slot: str
    index: Place
    value: float


@dataclass(frozen=True)
class Term:
    """value : what it adds; name : what it is called, where its factors do not say it; times : what else it is a product of"""

    value: float
    factors: tuple[Factor, ...]
    name: str = ""
    times: str = ""


@dataclass(frozen=True)
class Terms:
    """Of one number.

    rectified : the number is max(0, the sum)
    stretch   : how much more than a product's the rounding of its largest term is
    notes     : sentences, as how many terms were left out because they are 0
    """

    formula: str
    terms: list[Term]
    notes: tuple[str, ...] = ()
    rectified: bool = False
    stretch: float = 1.0

    @property
    def added(self) -> float:
        """The terms' sum."""
        return math.fsum(term.value for term in self.terms)

    @property
    def sum(self) -> float:
        """What the number is by its terms."""
        return max(self.added, 0.0) if self.rectified else self.added

    @property
    def bound(self) -> float:
        """How far float32's number may be from the sum: n terms, each product and each addition rounded by at most 2^-24 of it,
        in an unknown order. Roundings go up and down, so the error is about that of a walk of n steps; twice the root of n is
        rarely passed."""
        size = self.stretch * math.fsum(abs(term.value) for term in self.terms)
        return 2 * math.sqrt(len(self.terms) + 4) * 2**-24 * size

    def digits(self, value: float) -> int:
        """To how many digits, MOST_DIGITS at most, a number and the sum are printed alike; 1 at least."""
        alike = (d for d in range(MOST_DIGITS, 1, -1) if _printed(value, d) == _printed(self.sum, d))
        return next(alike, 1)


def _printed(value: float, digits: int) -> str:
    return f"{value + 0.0:.{digits - 1}e}"


def terms(op: RecordedOp, slot: str, index: Sequence[int]) -> Terms | None:
    """Of the number at `index` of an op's output "y", or of the gradient "g0", "g1", ... that it gives an input.

    None: the op is not minidl's, or of a kind whose terms are not written out here. `KINDS` has the others' names.
    ValueError: no such slot, or x or gy, which the op did not make. IndexError: the array has no such place.
    """
    if slot != "y" and not (slot[:1] == "g" and slot[1:].isdecimal()):
        raise ValueError(f"terms: {op.op} made y, g0, g1, ..., got {slot!r}")
    array = op.array(slot)
    if array is None:
        raise ValueError(f"terms: no gradient left {op.op} at {slot}")
    place = tuple(int(i) for i in index)
    if len(place) != array.ndim or not all(0 <= i < n for i, n in zip(place, array.shape, strict=True)):
        raise IndexError(f"terms: {slot} of {op.op} has the shape {array.shape}, got the index {list(index)}")
    kind = KINDS.get(op.op) if op.minidl else None
    if kind is None:
        return None
    return kind.forward(op, place) if slot == "y" else kind.backward(op, int(slot[1:]), place)


@dataclass(frozen=True)
class _Kind:
    forward: Callable[[RecordedOp, Place], Terms | None]
    backward: Callable[[RecordedOp, int, Place], Terms | None]


def _factor(op: RecordedOp, slot: str, index: Place) -> Factor:
    array = op.array(slot)
    assert array is not None, f"{slot} of {op.op} is there when its backward ran"
    return Factor(slot, index, float(array[index]))


def _product(op: RecordedOp, *factors: tuple[str, Place]) -> Term:
    found = tuple(_factor(op, slot, index) for slot, index in factors)
    return Term(math.prod(factor.value for factor in found), found)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------------------------------------------- convolution


@dataclass(frozen=True)
class _Windows:
    """Where the windows of a convolution or a pool lie. `first`: the padding before the first row and column."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    first: tuple[int, int]
    dilation: tuple[int, int]
    inside: tuple[int, int]  # rows and columns of the input
    out: tuple[int, int]

    def pixel(self, i: int, j: int, u: int, v: int) -> tuple[int, int] | None:
        """Where element (u, v) of the kernel lies at output (i, j); None in the padding."""
        h = i * self.stride[0] + u * self.dilation[0] - self.first[0]
        k = j * self.stride[1] + v * self.dilation[1] - self.first[1]
        return (h, k) if 0 <= h < self.inside[0] and 0 <= k < self.inside[1] else None

    def pixels(self, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
        """(u, v, h, k) of the kernel's elements at output (i, j) that lie on a pixel (h, k)."""
        for u, v in itertools.product(*map(range, self.kernel)):
            found = self.pixel(i, j, u, v)
            if found is not None:
                yield u, v, *found

    def outputs(self, h: int, k: int) -> Iterator[tuple[int, int, int, int]]:
        """(i, j, u, v): the outputs whose windows the pixel (h, k) lies under, and the kernel's element that it meets."""
        rows, columns = (list(self._met(axis, at)) for axis, at in enumerate((h, k)))
        for (i, u), (j, v) in itertools.product(rows, columns):
            yield i, j, u, v

    def _met(self, axis: int, at: int) -> Iterator[tuple[int, int]]:
        for u in range(self.kernel[axis]):
            i, left = divmod(at + self.first[axis] - u * self.dilation[axis], self.stride[axis])
            if left == 0 and 0 <= i < self.out[axis]:
                yield i, u


def _conv_windows(op: RecordedOp) -> _Windows:
    (top, _), (left, _) = op.settings["padding"]
    x, w = op.inputs[0].array, op.inputs[1].array
    return _Windows(
        (w.shape[2], w.shape[3]), op.settings["stride"], (top, left), op.settings["dilation"], x.shape[2:], op.y.shape[2:]
    )


def _group(op: RecordedOp, o: int) -> int:
    """The first channel that filter o sees."""
    filters, channels = op.inputs[1].array.shape[:2]
    return o // (filters // op.settings["groups"]) * channels


def _is_on(op: RecordedOp, index: Place) -> bool:
    return op.op != "conv2d_relu" or bool(op.y[index] > 0)


def _gate_note(off: int) -> tuple[str, ...]:
    return (f"{off} more outputs were 0: the ReLU was off, and nothing came back through it.",) if off else ()


def _conv_y(op: RecordedOp, index: Place) -> Terms:
    n, o, i, j = index
    channels, height, width = op.inputs[1].array.shape[1:]
    first, found = _group(op, o), []
    if len(op.inputs) > 2:
        b = _factor(op, "x2", (o,))
        found.append(Term(b.value, (b,), "b"))
    for u, v, h, k in _conv_windows(op).pixels(i, j):
        found += [_product(op, ("x1", (o, c, u, v)), ("x0", (n, first + c, h, k))) for c in range(channels)]
    outside = channels * height * width - len(found) + (len(op.inputs) > 2)
    rectified = op.op == "conv2d_relu"
    formula = "b[o] + sum of w[o,c,u,v] * x[n,c,h,k]"
    notes = (f"{outside} more meet the padding, where x is 0.",) if outside else ()
    return Terms(f"y[n,o,i,j] = {f'max(0, {formula})' if rectified else formula}", found, notes, rectified)


def _conv_gradient(op: RecordedOp, place: int, index: Place) -> Terms:
    return (_conv_gx, _conv_gw, _conv_gb)[place](op, index)


def _conv_gx(op: RecordedOp, index: Place) -> Terms:
    n, c, h, k = index
    filters, channels = op.inputs[1].array.shape[:2]
    each = filters // op.settings["groups"]
    group = c // channels
    found, off = [], 0
    for i, j, u, v in _conv_windows(op).outputs(h, k):
        for o in range(group * each, (group + 1) * each):
            if _is_on(op, (n, o, i, j)):
                found.append(_product(op, ("x1", (o, c - group * channels, u, v)), ("gy", (n, o, i, j))))
            else:
                off += 1
    return Terms("gx[n,c,h,k] = sum of w[o,c,u,v] * gy[n,o,i,j], over the outputs (o,i,j) that it fed", found, _gate_note(off))


def _conv_gw(op: RecordedOp, index: Place) -> Terms:
    o, c, u, v = index
    windows, channel = _conv_windows(op), _group(op, o) + c
    found, off, outside = [], 0, 0
    for n, i, j in itertools.product(*map(range, (op.y.shape[0], *op.y.shape[2:]))):
        pixel = windows.pixel(i, j, u, v)
        if not _is_on(op, (n, o, i, j)):
            off += 1
        elif pixel is None:
            outside += 1
        else:
            found.append(_product(op, ("gy", (n, o, i, j)), ("x0", (n, channel, *pixel))))
    notes = (*_gate_note(off), *((f"At {outside} places it met the padding, where x is 0.",) if outside else ()))
    return Terms("gw[o,c,u,v] = sum of gy[n,o,i,j] * x[n,c,h,k], over all places (i,j)", found, notes)


def _conv_gb(op: RecordedOp, index: Place) -> Terms:
    (o,) = index
    places = list(itertools.product(*map(range, (op.y.shape[0], *op.y.shape[2:]))))
    on = [(n, o, i, j) for n, i, j in places if _is_on(op, (n, o, i, j))]
    found = [_product(op, ("gy", at)) for at in on]
    return Terms("gb[o] = sum of gy[n,o,i,j], over all places (i,j)", found, _gate_note(len(places) - len(on)))


# --------------------------------------------------------------------------------------------------------------- linear


def _linear_y(op: RecordedOp, index: Place) -> Terms:
    *lead, o = index
    x, found = op.inputs[0].array, []
    if len(op.inputs) > 2:
        b = _factor(op, "x2", (o,))
        found.append(Term(b.value, (b,), "b"))
    products = [_product(op, ("x1", (o, k)), ("x0", (*lead, k))) for k in range(x.shape[-1])]
    there = [term for term in products if term.value != 0]
    zeros = len(products) - len(there)
    notes = (f"{zeros} more are 0, as x is 0 there.",) if zeros else ()
    return Terms("y[o] = b[o] + sum of w[o,k] * x[k]", found + there, notes)


def _linear_gradient(op: RecordedOp, place: int, index: Place) -> Terms:
    rows = list(np.ndindex(op.inputs[0].array.shape[:-1]))
    if place == 0:
        *lead, k = index
        found = [_product(op, ("x1", (o, k)), ("gy", (*lead, o))) for o in range(op.y.shape[-1])]
        return Terms("gx[k] = sum of w[o,k] * gy[o], over the outputs o that it fed", found)
    if place == 1:
        o, k = index
        return Terms("gw[o,k] = gy[o] * x[k]", [_product(op, ("gy", (*row, o)), ("x0", (*row, k))) for row in rows])
    return Terms("gb[o] = gy[o]", [_product(op, ("gy", (*row, index[0]))) for row in rows])


# -------------------------------------------------------------------------------------------------------- normalisation


def _window(op: RecordedOp, c: int, reverse: bool = False) -> range:
    """The channels of the window of channel c; reversed: those whose window has c in it."""
    size, channels = op.settings["size"], op.y.shape[1]
    before = (size - 1) // 2 if reverse else size // 2
    return range(max(0, c - before), min(channels, c - before + size))


def _channel(index: Place, c: int) -> Place:
    return (index[0], c, *index[2:])


def _denominator(op: RecordedOp, index: Place) -> float:
    x = op.inputs[0].array
    squares = (float(x[_channel(index, c)]) ** 2 for c in _window(op, index[1]))
    return float(op.settings["k"] + op.settings["alpha"] / op.settings["size"] * math.fsum(squares))


def _norm_y(op: RecordedOp, index: Place) -> Terms:
    alpha, size, beta, k = (op.settings[name] for name in ("alpha", "size", "beta", "k"))
    x, d, channels = _factor(op, "x0", index), _denominator(op, index), _window(op, index[1])
    over = f"the channels {channels[0]} to {channels[-1]}"
    formula = f"y[n,c] = x[n,c] * d^-{beta}, d = {k} + {alpha}/{size} * sum of x[n,j]^2 over {over}"
    return Terms(formula, [Term(x.value * d**-beta, (x,), times=f"d^-{beta}")], (f"d is {d:.6g}.",))


def _norm_gradient(op: RecordedOp, place: int, index: Place) -> Terms:
    alpha, size, beta = (op.settings[name] for name in ("alpha", "size", "beta"))
    x, direct = float(op.inputs[0].array[index]), _factor(op, "gy", index)
    found = [Term(direct.value * _denominator(op, index) ** -beta, (direct,), "direct", f"d^-{beta}")]
    for c in _window(op, index[1], reverse=True):
        there = _channel(index, c)
        g, v = _factor(op, "gy", there), _factor(op, "x0", there)
        slope = -2 * alpha / size * beta * x * v.value * _denominator(op, there) ** (-beta - 1)
        found.append(Term(g.value * slope, (g, v), f"across, channel {c}", "-2 alpha beta/size * x[a] * d[c]^(-beta-1)"))
    across = "sum of 2 alpha beta/size * x[a] * gy[c] * x[c] * d[c]^(-beta-1), over the c whose window has a"
    formula = f"gx[a] = gy[a] * d[a]^-beta - {across}"
    return Terms(formula, found)


# ----------------------------------------------------------------------------------------------------------------- pool


def _pool_windows(op: RecordedOp) -> _Windows:
    kernel, stride, padding, dilation = (op.settings[name] for name in ("kernel", "stride", "padding", "dilation"))
    return _Windows(kernel, stride, padding, dilation, op.inputs[0].array.shape[2:], op.y.shape[2:])


def _winner(op: RecordedOp, index: Place) -> tuple[Place, int]:
    """The pixel that won a window, the first of the largest; and how many competed."""
    n, c, i, j = index
    x = op.inputs[0].array
    pixels = [(n, c, h, k) for _, _, h, k in _pool_windows(op).pixels(i, j)]
    odd = [at for at in pixels if np.isnan(x[at])]
    return odd[-1] if odd else max(pixels, key=lambda at: x[at]), len(pixels)


def _pool_y(op: RecordedOp, index: Place) -> Terms:
    best, competed = _winner(op, index)
    won = _factor(op, "x0", best)
    notes = (f"{competed} competed. The first of the largest wins; the others get no gradient.",)
    return Terms("y[n,c,i,j] = the largest x[n,c,h,k] under its window", [Term(won.value, (won,), "winner")], notes)


def _pool_gradient(op: RecordedOp, place: int, index: Place) -> Terms:
    n, c, h, k = index
    windows = list(dict.fromkeys((n, c, i, j) for i, j, _, _ in _pool_windows(op).outputs(h, k)))
    mine = [out for out in windows if _winner(op, out)[0] == index]
    lost = tuple(
        f"In window {list(out[2:])} the pixel {list(_winner(op, out)[0][2:])} won: its gradient goes there."
        for out in windows
        if out not in mine
    )
    notes = (f"It lies under {_plural(len(windows), 'window')} and won {len(mine)}.", *lost)
    found = [_product(op, ("gy", out)) for out in mine]
    return Terms("gx[n,c,h,k] = sum of gy[n,c,i,j], over the windows that it won", found, notes)


# ------------------------------------------------------------------------------------------------- one number from one


@dataclass(frozen=True)
class _One:
    """y = factor * x at another place.

    source : op, index of y -> (number of the input, index of x), or None where y has a margin
    target : op, number of the input, index of x -> index of y, or None where x was cut off; the inverse of source
    factor : op, index of y -> the factor
    """

    source: Callable[[RecordedOp, Place], tuple[int, Place] | None]
    target: Callable[[RecordedOp, int, Place], Place | None]
    formulas: tuple[str, str]
    factor: Callable[[RecordedOp, Place], float] = lambda op, index: 1.0
    times: Callable[[RecordedOp], str] = lambda op: ""
    note: Callable[[RecordedOp, Place], tuple[str, ...]] = lambda op, index: ()
    fits: Callable[[RecordedOp], bool] = lambda op: True

    def forward(self, op: RecordedOp, index: Place) -> Terms | None:
        found = self.source(op, index)
        if not self.fits(op):
            return None
        if found is None:
            return Terms(self.formulas[0], [], ("It lies in the padding.",))
        x = _factor(op, f"x{found[0]}", found[1])
        term = Term(x.value * self.factor(op, index), (x,), times=self.times(op))
        return Terms(self.formulas[0], [term], self.note(op, index))

    def backward(self, op: RecordedOp, place: int, index: Place) -> Terms | None:
        out = self.target(op, place, index)
        if not self.fits(op):
            return None
        if out is None:
            return Terms(self.formulas[1], [], ("It was cut off.",))
        gy = _factor(op, "gy", out)
        term = Term(gy.value * self.factor(op, out), (gy,), times=self.times(op))
        return Terms(self.formulas[1], [term], self.note(op, out))


def _same(op: RecordedOp, index: Place) -> tuple[int, Place]:
    return 0, index


def _same_output(op: RecordedOp, place: int, index: Place) -> Place:
    return index


def _unraveled(index: Place, shape: Place, other: Place) -> Place:
    """The index of the same element, in C order, in another shape."""
    flat = int(np.ravel_multi_index(index, shape)) if shape else 0
    return tuple(int(i) for i in np.unravel_index(flat, other)) if other else ()


def _cat_source(op: RecordedOp, index: Place) -> tuple[int, Place]:
    axis, left = op.settings["axis"], index[op.settings["axis"]]
    for i, x in enumerate(op.inputs):
        if left < x.array.shape[axis]:
            return i, (*index[:axis], left, *index[axis + 1 :])
        left -= x.array.shape[axis]
    raise IndexError(f"cat: no input has the output's index {index}")


def _cat_target(op: RecordedOp, place: int, index: Place) -> Place:
    axis = op.settings["axis"]
    before = sum(x.array.shape[axis] for x in op.inputs[:place])
    return (*index[:axis], index[axis] + before, *index[axis + 1 :])


def _moved(index: Place, widths: Sequence[tuple[int, int]], sign: int, shape: Place) -> Place | None:
    there = tuple(i + sign * before for i, (before, _) in zip(index, widths, strict=True))
    return there if all(0 <= i < n for i, n in zip(there, shape, strict=True)) else None


def _pad_source(op: RecordedOp, index: Place) -> tuple[int, Place] | None:
    there = _moved(index, op.settings["widths"], -1, op.inputs[0].array.shape)
    return None if there is None else (0, there)


def _permute_source(op: RecordedOp, index: Place) -> tuple[int, Place]:
    there = dict(zip(op.settings["dims"], index, strict=True))
    return 0, tuple(there[axis] for axis in range(len(index)))


def _gate(op: RecordedOp, index: Place) -> float:
    return 1.0 if op.y[index] > 0 else 0.0


def _kept(op: RecordedOp, index: Place) -> float:
    assert op.mask is not None, "a dropout that ran has a mask"
    return float(op.mask[index]) * float(op.settings["scale"])


_COPIES = {
    "relu": _One(
        _same,
        _same_output,
        ("y = max(x, 0)", "gx = gy where y > 0, else 0"),
        _gate,
        lambda op: "gate",
        lambda op, index: ("The gate is open: x is above 0." if _gate(op, index) else "The gate is shut: x is not above 0.",),
    ),
    "dropout": _One(
        _same,
        _same_output,
        ("y = x * mask * scale", "gx = gy * mask * scale, with the same mask"),
        _kept,
        lambda op: f"mask * {op.settings['scale']:g}",
        lambda op, index: ("The mask lets it through." if _kept(op, index) else "The mask silences it.",),
        fits=lambda op: op.mask is not None,
    ),
    "cat": _One(
        _cat_source, _cat_target, ("y = the inputs, one after the other: a copy", "gx = the part of gy at its place: a copy")
    ),
    "pad": _One(
        _pad_source,
        lambda op, place, index: _moved(index, op.settings["widths"], 1, op.y.shape),
        ("y = x, with a margin of zeros: a copy", "gx = the inside of gy: a copy"),
        fits=lambda op: op.settings["value"] == 0,
    ),
    "to_device": _One(_same, _same_output, ("y = x, copied to another device", "gx = gy, copied back")),
    "reshape": _One(
        lambda op, index: (0, _unraveled(index, op.y.shape, op.inputs[0].array.shape)),
        lambda op, place, index: _unraveled(index, op.inputs[0].array.shape, op.y.shape),
        ("y = x, with other indices", "gx = gy, with x's indices"),
    ),
    "permute": _One(
        _permute_source,
        lambda op, place, index: tuple(index[axis] for axis in op.settings["dims"]),
        ("y = x, with its axes in another order", "gx = gy, with x's axes"),
    ),
    "mul": _One(
        _same,
        _same_output,
        ("y = x * a number", "gx = gy * the same number"),
        lambda op, index: op.numbers[0],
        lambda op: f"{op.numbers[0]:g}",
        fits=lambda op: len(op.inputs) == 1 and len(op.numbers) == 1,
    ),
}

# ----------------------------------------------------------------------------------------------------- sums, and the loss


def _summed_to(op: RecordedOp, index: Place) -> Place:
    axes, keep = op.settings["axes"], op.settings["keepdim"]
    return tuple(0 if axis in axes else i for axis, i in enumerate(index) if axis not in axes or keep)


def _sum_y(op: RecordedOp, index: Place) -> Terms:
    places = (at for at in np.ndindex(op.inputs[0].array.shape) if _summed_to(op, at) == index)
    return Terms("y = sum of x", [_product(op, ("x0", at)) for at in places])


def _sum_gradient(op: RecordedOp, place: int, index: Place) -> Terms:
    return Terms("gx = gy: each part of a sum counts once", [_product(op, ("gy", _summed_to(op, index)))])


def _row(op: RecordedOp, r: int) -> tuple[np.ndarray, np.ndarray, float, float, np.ndarray]:
    """Of a row of scores, in float64: the scores, the targets, the largest score, ln of the sum of e^x, the probabilities."""
    x, t = (op.inputs[i].array[r].astype(np.float64) for i in (0, 1))
    shift = float(x.max())
    powers = np.exp(x - shift)
    return x, t, shift, shift + math.log(powers.sum()), powers / powers.sum()


def _loss_y(op: RecordedOp, index: Place) -> Terms:
    (r,) = index
    x, t, shift, log_sum, p = _row(op, r)
    true, everything = [int(c) for c in np.flatnonzero(t)], float(t.sum())
    shown = list(dict.fromkeys([*np.argsort(-p, kind="stable")[:5].tolist(), *true]))
    found = [Term(everything * log_sum, tuple(_factor(op, "x0", (r, c)) for c in shown), "ln sum e^x")]
    found += [Term(-t[c] * x[c], (_factor(op, "x0", (r, c)),), f"-t[{c}] * x[{c}]") for c in true]
    shifted = (
        f"ln sum e^x is {shift:.6g} + {log_sum - shift:.6g}: the largest score is taken out first, so that no e^x overflows."
    )
    return Terms("loss = ln sum e^x[c] - sum of t[c] * x[c]", found, (shifted,))


def _loss_gradient(op: RecordedOp, place: int, index: Place) -> Terms | None:
    if place:
        return None
    r, c = index
    x, t, shift, log_sum, p = _row(op, r)
    gy, everything = _factor(op, "gy", (r,)), float(t.sum())
    # p is e^(x - ln sum e^x): what is rounded in the exponent, at its size, p has as a share of itself
    stretch = 1 + abs(x[c] - shift) + abs(x[c] - log_sum)
    found = [
        Term(gy.value * p[c] * everything, (gy, _factor(op, "x0", (r, c))), f"p[{c}]", f"p[{c}]"),
        Term(-gy.value * t[c], (_factor(op, "x1", (r, c)),), f"-t[{c}]", f"-t[{c}]"),
    ]
    above = "It is not the true class: p - t is above 0, so a higher score raises the loss."
    below = "It is the true class: p - t is below 0, so a higher score lowers the loss."
    return Terms("gx[c] = gloss * (p[c] - t[c]), p = softmax(x)", found, (below if t[c] else above,), stretch=stretch)


KINDS: dict[str, Any] = {
    "conv2d": _Kind(_conv_y, _conv_gradient),
    "conv2d_relu": _Kind(_conv_y, _conv_gradient),
    "linear": _Kind(_linear_y, _linear_gradient),
    "local_response_norm": _Kind(_norm_y, _norm_gradient),
    "max_pool2d": _Kind(_pool_y, _pool_gradient),
    "sum": _Kind(_sum_y, _sum_gradient),
    "cross_entropy": _Kind(_loss_y, _loss_gradient),
    **_COPIES,
}
