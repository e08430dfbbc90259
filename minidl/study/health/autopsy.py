"""The autopsy: what every layer of a training run does, in numbers, and in plain words where a known illness shows.

    autopsy = Autopsy(model, every=10)
    for images, labels in batches:
        with autopsy:
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        for diagnosis in autopsy.after_step(loss.item()):
            print(diagnosis)

Step 1 and every tenth are looked at; on others the block costs nothing. The numbers of a step that was looked at are in
`autopsy.rows` until the next begins, and an `AutopsyLog` writes them to a CSV file, as `examples/alexnet/train.py --autopsy`
does. Nothing that is computed is changed: a run gives the same bits with an autopsy and without. The rules are in illnesses.py.
"""

import csv
import io
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from minidl.checkpoint import append_whole, write_whole
from minidl.device import Array, array_module, memory_order
from minidl.grad_mode import is_grad_enabled
from minidl.layout import nhwc
from minidl.nn import Module, Parameter
from minidl.observer import Observer
from minidl.shapes import is_int
from minidl.study.health.illnesses import NOT_FINITE, SATURATED, Diagnosis, Evidence, Losses, Row, diagnose
from minidl.tensor import Tensor

SPREAD_EXAMPLES = 32  # of a batch whose standard deviation is taken: enough for two digits
_BLOCK = 1 << 18  # elements that are looked at together, so that what is computed of them stays in the cache


class Autopsy(Observer):
    """Looks at step 1 and at every `every`-th step of a model's training, and says what is wrong.

    model : the module that is trained; ops inside it are looked at where they record a graph
    every : ValueError unless an int of at least 1

    Attributes: `step`, the number of steps done, which a loop that leaves steps out may set; `rows`, a Row for each op of the
    last step, in the order of forward, empty if that step was not looked at; `classes`, how many scores the loss was given for
    an example, None as long as no cross_entropy or nll_loss was seen.

    A step that is looked at needs a copy of the weights, and a few passes over every activation and gradient.
    """

    def __init__(self, model: Module, every: int = 10) -> None:
        if not is_int(every) or every < 1:
            raise ValueError(f"Autopsy: every must be an int of at least 1, got {every!r}")
        self.model, self.every = model, every
        self.step = 0
        self.classes: int | None = None
        self._losses = Losses()
        self._told: dict[str, list[str]] = {}  # an illness's name -> the layers that it was reported for
        self._looking = False
        self._forget_step()

    def _forget_step(self) -> None:
        self.rows: list[Row] = []
        self._row_of: weakref.WeakKeyDictionary[Any, Row] = weakref.WeakKeyDictionary()
        self._calls: dict[tuple[str, str], int] = {}
        self._weights_before: dict[Parameter, Array] = {}
        self._gradients: dict[Parameter, float] = {}

    def __enter__(self) -> Self:
        """Step number `step + 1` begins: before its forward, and before the optimizer's step."""
        self._forget_step()
        number = self.step + 1
        self._looking = number == 1 or number % self.every == 0
        if self._looking:
            self._names = {id(module): name for name, module in self.model.named_modules()}
            self._weights_before = {p: _copied(p) for p in self.model.parameters() if p.requires_grad}
            super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._looking:
            super().__exit__(*exc)
            self._looking = False
        if any(exc):  # a step that failed is none
            self._forget_step()

    # ----------------------------------------------------------------------------------------------- while the step runs

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        if node.scores:
            self.classes = inputs[0].shape[1]
        weights = [x for x in inputs if isinstance(x, Parameter) and x.ndim > 1]
        of_interest = weights or node.rectifies or node.relative_slope
        in_model = any(module is self.model for module in node.layer.modules)
        if of_interest and in_model and out.data.size and is_grad_enabled():
            row = self._new_row(node, weights, out.data)
            self.rows.append(row)
            self._row_of[node] = row

    def backward_begins(self, node: Any, gy: Array) -> None:
        row = self._row_of.get(node)
        if row is not None:
            row.mean_abs_gradient = _mean_abs(gy)

    def leaf_has_gradient(self, tensor: Any) -> None:
        if tensor in self._weights_before:
            self._gradients[tensor] = _mean_abs(tensor.grad.data)

    def _new_row(self, node: Any, weights: list[Parameter], y: Array) -> Row:
        """What is known of an op after its forward."""
        innermost = node.layer.modules[-1]
        layer = self._names.get(id(innermost)) or type(innermost).__name__
        call = self._calls[layer, node.name] = self._calls.get((layer, node.name), 0) + 1
        row = Row(layer, node.name, call, _mean_abs(y), _std_over_batch(y))
        is_layer = next(innermost.children(), None) is None
        row.title = (layer if is_layer else f"{node.name} in {layer}") + (f", call {call}" if call > 1 else "")
        row.examples = y.shape[0] if y.ndim else 1
        row.outputs, row.units = y.size // row.examples, _units(y)
        if node.rectifies:
            row.zeros, row.dead, row.always_on = _on_and_off(y)
        if node.relative_slope:
            row.saturated = float((node.relative_slope(y) < SATURATED).mean())
        if weights:
            row.weights, row.before = weights, self._rows_before(node)
            for earlier in row.before:
                earlier.after.append(row)
        return row

    def _rows_before(self, node: Any) -> list[Row]:
        """Of the ops with weights that reach this one through the graph without another in between."""
        found: list[Row] = []
        ahead, met = list(node._edges), set()
        while ahead:
            source = ahead.pop()
            if source is None or isinstance(source, Tensor) or source in met:
                continue
            met.add(source)
            row = self._row_of.get(source)
            if row is not None and row.weights:
                found.append(row)
            else:
                ahead += source._edges
        return found

    # ------------------------------------------------------------------------------------------------- when it is done

    def after_step(self, loss: float | Tensor) -> list[Diagnosis]:
        """The step is done, the optimizer's part too: complete the rows, and return what is new to say.

        loss : this step's. Every step must be told of, looked at or not.

        An illness is reported once for a layer. A step that was not looked at is judged only where its loss is not finite.
        """
        loss = float(loss)
        self.step += 1
        self._losses.add(loss)
        norms = {p: _norms(before, p) for p, before in self._weights_before.items()}
        self._weights_before = {}
        for row in self.rows:
            self._complete(row, norms)
        if not self.rows and math.isfinite(loss):
            return []
        return self._new_only(diagnose(Evidence(loss, self.rows, self._losses, self.classes)))

    def _complete(self, row: Row, norms: Mapping[Parameter, tuple[float, float]]) -> None:
        """What is known of an op's weights after the optimizer's step."""
        gradients = [(self._gradients[p], p.data.size) for p in row.weights if p in self._gradients]
        if gradients:
            row.mean_abs_weight_gradient = sum(g * n for g, n in gradients) / sum(n for _, n in gradients)
        pairs = [norms[p] for p in row.weights if p in norms]
        before = math.hypot(*(norm for _, norm in pairs))
        if before:
            row.update_ratio = math.hypot(*(change for change, _ in pairs)) / before

    def _new_only(self, diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
        """Those that name a layer for the first time; what is not finite spreads, and is said once."""
        new = []
        for diagnosis in diagnoses:
            told = self._told.setdefault(diagnosis.illness.name, [])
            more = [title for title in diagnosis.layers if title not in told]
            if more and not (told and diagnosis.illness is NOT_FINITE):
                told += more
                new.append(diagnosis)
        return new

    @property
    def healthy(self) -> bool:
        """Whether no illness was reported so far."""
        return not self._told

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if it had never stopped; JSON can hold it."""
        told = {name: list(layers) for name, layers in self._told.items()}
        return {"step": self.step, "classes": self.classes, "losses": self._losses.state_dict(), "told": told}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.step, self.classes = state_dict["step"], state_dict["classes"]
        self._losses = Losses(**state_dict["losses"])
        self._told = {name: list(layers) for name, layers in state_dict["told"].items()}


# --------------------------------------------------------------------------------------------------- numbers of an array


def _copied(p: Parameter) -> Array:
    with p.device.active():
        return p.data.copy(order="K")


def _flat(array: Array) -> Array:
    """One axis, in memory order: a view of most arrays."""
    return array.transpose(memory_order(array)).reshape(-1)


@np.errstate(all="ignore")
def _mean_abs(array: Array) -> float:
    flat = _flat(array)
    dtype = np.promote_types(flat.dtype, np.float32)  # float16 can't hold a sum
    return sum(float(abs(flat[i : i + _BLOCK]).sum(dtype=dtype)) for i in range(0, flat.size, _BLOCK)) / flat.size


@np.errstate(all="ignore")
def _std_over_batch(y: Array) -> float | None:
    if y.ndim == 0 or len(y) < 2:
        return None
    some = y[:SPREAD_EXAMPLES]
    off = some - some.mean(axis=0)
    return float(((off * off).mean(axis=0) ** 0.5).mean())


def _units(y: Array) -> int:
    """Channels of (N, C, H, W), else the length of the last axis."""
    return y.shape[1] if y.ndim == 4 else y.shape[-1] if y.ndim > 1 else 1


def _on_and_off(y: Array) -> tuple[float, float, float]:
    """Of a ReLU's output: the share of zeros, of units that are never on, and of units that are always on."""
    places = (nhwc(y) if y.ndim == 4 else y).reshape(-1, _units(y))
    xp, rows = array_module(y), max(_BLOCK // _units(y), 1)
    ones = xp.ones(min(rows, len(places)), np.float32)
    on = xp.zeros(_units(y), np.float64)
    for i in range(0, len(places), rows):
        part = (places[i : i + rows] > 0).astype(np.float32)
        on += ones[: len(part)] @ part  # exact, as a block has fewer than 2^24 rows; and faster than a sum along axis 0
    return 1 - float(on.sum()) / y.size, float((on == 0).mean()), float((on == len(places)).mean())


@np.errstate(all="ignore")
def _norms(before: Array, p: Parameter) -> tuple[float, float]:
    """Of the change of the weights, and of the weights before. The array is overwritten."""
    with p.device.active():
        norm = _norm(before)
        before -= p.data
        return _norm(before), norm


def _norm(array: Array) -> float:
    flat = _flat(array)
    return float(flat @ flat) ** 0.5


# ------------------------------------------------------------------------------------------------------------------ the log

COLUMNS = (
    *("step", "loss", "layer", "op", "call", "mean_abs_activation", "std_over_batch", "mean_abs_gradient", "zeros", "dead"),
    *("always_on", "saturated", "mean_abs_weight_gradient", "update_ratio"),
)


class AutopsyLog:
    """A CSV file with a line for each Row of the steps that were looked at; the columns are `COLUMNS`.

    path : the file; its folder must be there.
    step : the steps done by a run that goes on. Lines of later steps, which it will write again, are dropped, and so is a
           last line that was cut short. With 0 the file is empty but for its heading.
    """

    def __init__(self, path: str | Path, step: int = 0) -> None:
        self.path = Path(path)
        kept = [line for line in _whole_lines(self.path) if int(line[0]) <= step]
        write_whole(self.path, _csv([COLUMNS, *kept]))

    def write(self, step: int, loss: float, rows: Iterable[Row]) -> None:
        """The lines of one step, on the disk when this returns; or OSError and none of them."""
        lines = ([step, _text(loss), *(_text(getattr(row, name)) for name in COLUMNS[2:])] for row in rows)
        append_whole(self.path, _csv(lines))


def _whole_lines(path: Path) -> list[list[str]]:
    """The cells of each line but the heading."""
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    return list(csv.reader(line for line in lines if line.endswith("\n")))


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _text(value: Any) -> str:
    """Six digits of a float; nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
