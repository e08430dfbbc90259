"""The explorer: one forward and one backward of one image, as a page to walk through.

    page = explore(model, image, label=3)
    page.save("look")                                   writes look/index.html, which needs no other file and no network

The step is a real one, in training mode, under `plain_kernels()`: the lines that the page shows are those that ran, and those
that minidl/ops is read for. (A test compares the fast twins with them.) Everything on the page was seen by observers of that
step, or is `summary`'s; nothing is estimated.

The page is a template, a style sheet and scripts, in minidl/study/explorer/page, and the step as JSON: `Page.data`. It has the
numbers themselves, so each can be asked where it is from: minidl/study/explorer/values.py says how they come along.
"""

import html
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checkpoint import write_whole
from minidl.device import Array, Device
from minidl.kernels import plain_kernels
from minidl.memory import owner
from minidl.nn import Module, Parameter
from minidl.study.explorer.pictures import distribution, limit, picture
from minidl.study.explorer.recipes import backward_recipe, forward_recipe, kept_terms, nudged
from minidl.study.explorer.values import SIDE, Values, blocks
from minidl.study.laboratory import im2col
from minidl.study.models import batch_for, left_as_it_was, loss_of
from minidl.study.step.arrays import input_names, is_known
from minidl.study.step.explain import saved_because
from minidl.study.step.gradients import check_layers
from minidl.study.step.graph import lanes_of
from minidl.study.step.source import Passage, SourceLines, equations, find_op
from minidl.study.step.summary import HEADINGS, Row, Summary, layer_groups, summary
from minidl.study.step.trace import OpRecord, Trace
from minidl.tensor import Tensor

_ASSETS = Path(__file__).with_name("page")
_FILE = "index.html"
_RESERVED = ("overview", "im2col")  # names of sections of the page, which no layer's may be
# each needs those before it
SCRIPTS = ("tensors", "words", "formulas", "layers", "why", "names", "picture", "ask", "zoom", "loss", "explorer")
_FIGURES = [name for name in HEADINGS if name != "workspace"]  # that depends on which kernels ran


@dataclass
class Page:
    """The page, and what it shows.

    html : the whole document
    data : what the script in it reads, made of dicts, lists, strings and numbers. See `network`.
    file : its name in a folder
    """

    html: str
    data: dict[str, Any]
    file: str = _FILE

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the file into the folder, whole or not at all, and return its path. The folder is made if it is not there.

        NotADirectoryError or FileExistsError: something else has that name. Another OSError: the disk's.
        """
        path = prepare_folder(folder) / self.file
        write_whole(path, self.html.encode())
        return path


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if it is not there. NotADirectoryError if it, or what it would be in, is a file; PermissionError if
    nothing may be written into it."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"explore: {path} must be a folder, it is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"explore: {path} can't be made, since a part of its path is a file") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"explore: {path} can't be written to")
    return path


def explore(
    model: Module,
    image: np.ndarray | Tensor,
    label: int | None = None,
    *,
    pixels: np.ndarray | None = None,
    classes: Sequence[str] = (),
    notes: Sequence[str] = (),
    check_grads: bool = False,
    full: bool = False,
) -> Page:
    """Run a training step on one image and make a page of it.

    model   : any module whose forward takes one batch and returns one Tensor
    image   : (1, ...), what the model is given, e.g. (1, 3, 224, 224); converted to the dtype of the model's parameters
    label   : the class whose cross-entropy is the loss; by default the one that the scores favour
    pixels  : (H, W, 3) uint8, the picture that the image was made from, to be shown
    classes : the classes' names, if they are known
    notes   : sentences about where the model and the image are from, to be shown
    check_grads : check every layer's backward numerically too, in float64, on the tensors that it met. Takes minutes.
    full    : leave no number out, however large the page becomes

    The loss of a model whose output is not (1, classes) is the sum of its output times fixed random numbers; the page says so.
    Gradients, modes and random state are put back. ValueError: more than one image, or a label that is no class; TypeError:
    the model's output is no Tensor.
    """
    x = batch_for(model, image)
    with left_as_it_was(model):
        model.zero_grad()
        model.train()
        seen, loss = _observed_step(model, x, label, Values(full))
        checks = [asdict(badge) for badge in check_layers(model, x)] if check_grads else None
    overall = summary(model, x.shape)
    values, texts = seen.values.packed()
    data = {
        **_about(model, x, loss, classes, notes, pixels),
        **network(seen, overall),
        "checks": checks,
        "values": values,
        "texts": texts,
    }
    convolves = any("conv2d" in op["formulas"] for op in data["ops"])
    more = {"im2col": im2col.section() if convolves else ""}
    return page_of(data, _FILE, _FILE, SCRIPTS, f"{data['model']}: one step, forward and backward", **more)


# ------------------------------------------------------------------------------------------------------------- the step


@dataclass(frozen=True)
class _Loss:
    """What backward began from: cross_entropy of scores (1, classes) with a label; or, with label None, a weighted sum."""

    value: float
    label: int | None
    scores: np.ndarray


def _observed_step(model: Module, x: Tensor, label: int | None, values: Values) -> "tuple[Seen, _Loss]":
    with plain_kernels(), SourceLines() as lines, Seen(lines, values, x) as seen:
        scores = model(x)
        if not isinstance(scores, Tensor):
            raise TypeError(f"explore: the model must return a Tensor, got {type(scores).__name__}")
        loss, label = loss_of(scores, label)
        loss.backward()
    seen.back_to_the_batch()
    return seen, _Loss(loss.item(), label, scores.device.to_host(scores.data))


# ---------------------------------------------------------------------------------------------------------- what is seen


@dataclass
class _Op:
    """An op of the step for the page, beside its OpRecord. Blobs are dicts: see `Seen.blob`."""

    node: Any
    record: OpRecord
    inputs: list[dict[str, Any]]
    output: dict[str, Any]
    saved: list[dict[str, Any]]
    arriving: dict[str, Any] | None = None
    leaving: list[dict[str, Any] | None] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # what else its terms are made of
    tensors: list[Tensor] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # of the tensors among all inputs
    untrained: list[int] = field(default_factory=list)  # places of inputs that are, or are made of, the batch alone


@dataclass(frozen=True)
class _Extra:
    """A gradient that no step needs. worst : how far the page's, which it adds up itself, may be from it."""

    array: Array
    device: Device
    worst: float


def _can_be_asked(node: Any) -> bool:
    """Does an op save what any gradient needs? Arithmetic saves only what is asked for."""
    return is_known(node) and not type(node).__module__.endswith(".arithmetic")


class Seen(Trace):
    """A Trace that notes every array's numbers when it passes.

    A step has no use for the gradient of the batch, but one asks for a pixel's: `back_to_the_batch` computes it afterwards, by
    the same backwards. Those blobs have "extra": True.
    """

    def __init__(self, lines: SourceLines, values: Values, batch: Tensor | None = None) -> None:
        super().__init__()
        self.lines = lines
        self._batch = batch
        self._extra: dict[tuple[int, int], _Extra] = {}  # op, place of its input -> the gradient that no step needs
        self.of_batch: dict[str, Any] | None = None  # what it adds up to, where several ops use the batch
        self.ops: list[_Op] = []
        self.values = values
        self._makers: dict[int, tuple[Tensor, int]] = {}  # id of an output -> itself, so that the id stays its own; its op
        self._drawn: dict[int, tuple[Tensor, dict[str, Any]]] = {}  # likewise for what no op made

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        super().forward_ends(node, inputs, settings, out)
        names = input_names(node, inputs)
        named = zip(names, inputs, node.needs_grad, strict=True)
        tensors = [self._input(name, x, needed) for name, x, needed in named if isinstance(x, Tensor)]
        op = _Op(
            node,
            self.records[-1],
            tensors,
            self.blob(out.data, out.device, "activation", forward_recipe(node, settings, len(self.ops))),
            _saved(node, zip([*names, "the output"], [*inputs, out], strict=True)),
            about={"numbers": [float(x) for x in inputs if isinstance(x, (int, float))]},
        )
        op.tensors = [x for x in inputs if isinstance(x, Tensor)]
        op.positions = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]
        of_batch = [not node.needs_grad[i] and self._is_of_batch(inputs[i]) for i in op.positions]
        op.untrained = [place for place, is_so in enumerate(of_batch) if is_so and _can_be_asked(node)]
        if is_known(node, "dropout"):
            op.about["mask"] = self.values.add(node.device.to_host(node.saved[0]))
        self._makers[id(out)] = out, len(self.ops)
        self.ops.append(op)
        self._keep_terms(op, "forward", None)

    def backward_begins(self, node: Any, gy: Array) -> None:
        if node not in self._of_node:
            return  # its forward ran before the step
        op = self._op_of(node)
        op.arriving = self.blob(
            gy, node.device, "gradient", self._added(op, gy)
        )  # before traffic is counted: it copies from a GPU
        super().backward_begins(node, gy)

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        if node not in self._of_node:
            return
        super().backward_ends(node, gy, gradients)
        op = self._op_of(node)
        of_tensors = [gx for gx, (_, dtype) in zip(gradients, node._inputs, strict=True) if dtype is not None]
        op.leaving = [
            None if gx is None else self._gradient(op, i, gx, x, gy)
            for i, (gx, x) in enumerate(zip(of_tensors, op.inputs, strict=True))
        ]
        for place in op.untrained:
            gx = self._untrained_gradient(op, gy, place)
            recipe = backward_recipe(node, op.record, place, gx, gy)
            self._keep_extra(op, place, gx, recipe, (recipe or {}).get("worst", 0.0))
        self._keep_terms(op, "backward", gy)
        if not self.values.full and gradients[0] is not None:
            op.about["proofs"] = nudged(node, gradients[0], gy)

    # ------------------------------------------------------------------------ the batch's gradient, which no step needs

    def _is_of_batch(self, x: Tensor) -> bool:
        maker = self.maker_of(x)
        return x is self._batch or (maker is not None and bool(self.ops[maker].untrained))

    @staticmethod
    def _untrained_gradient(op: _Op, gy: Array, place: int) -> Array:
        """What an op's backward gives an input when it is asked to; it is asked for nothing else."""
        node = op.node
        position = op.positions[place]
        needed, node.needs_grad = node.needs_grad, tuple(i == position for i in range(len(node.needs_grad)))
        try:
            with node.device.active():
                return node.backward(gy)[position]
        finally:
            node.needs_grad = needed

    def _keep_extra(self, op: _Op, place: int, gx: Array, recipe: dict[str, Any] | None, worst: float) -> None:
        device = Device(op.inputs[place]["device"])
        op.leaving = op.leaving or [None] * len(op.inputs)
        op.leaving[place] = {**self.blob(gx, device, "gradient", recipe), "extra": True}
        self._extra[op.record.number, place] = _Extra(gx, device, worst)

    def back_to_the_batch(self) -> None:
        """Through the ops before the first that is trained, the last first; and the sum over those that use the batch."""
        for op in reversed(self.ops):
            given = self._given_to(op)
            if op.arriving is not None or not given or not op.untrained:
                continue
            gy, worst, recipe = self._sum_of(given, op.node.device)
            op.arriving = {**self.blob(gy, op.node.device, "gradient", recipe), "extra": True}
            for place in op.untrained:
                gx = self._untrained_gradient(op, gy, place)
                exact = backward_recipe(op.node, op.record, place, gx, gy)
                self._keep_extra(op, place, gx, exact and {**exact, "worst": worst}, worst)
        uses = [(op.record.number, i) for op in self.ops for i in op.untrained if op.inputs[i]["from"] is None]
        if self._batch is not None and len(uses) > 1 and all(use in self._extra for use in uses):
            total, _, recipe = self._sum_of(uses, self._batch.device)
            blob = self.blob(total, self._batch.device, "gradient", recipe)
            self.of_batch = {"uses": [list(use) for use in uses], "total": {**blob, "extra": True}}

    def _given_to(self, op: _Op) -> list[tuple[int, int]]:
        number = op.record.number
        users = [(other.record.number, i) for other in self.ops for i, x in enumerate(other.inputs) if x["from"] == number]
        return [use for use in users if use in self._extra]

    def _sum_of(self, uses: Sequence[tuple[int, int]], device: Device) -> tuple[Array, float, dict[str, Any] | None]:
        """The sum of extra gradients, how far the page's may be from it, and its recipe; None where it is a copy of one."""
        parts = [self._extra[use] for use in uses]
        total, *others = (part.device.to_host(part.array) for part in parts)
        for other in others:
            total = total + other
        rounded = 2.0**-24 * float(np.abs(total).max(initial=0.0)) * len(others)
        worst = sum(part.worst for part in parts) + rounded
        numbers = [blob["values"] for op, i in uses if (blob := self.ops[op].leaving[i]) is not None]
        return device.asarray(total), worst, {"how": "add", "of": numbers, "worst": worst} if others else None

    # --------------------------------------------------------------------------------------------------------- blobs

    def _gradient(self, op: _Op, place: int, gx: Array, x: Mapping[str, Any], gy: Array) -> dict[str, Any]:
        """The blob of the gradient that an op gives its input at `place`."""
        device = Device(x["device"])
        return self.blob(
            gx, device, "weight gradient" if x["parameter"] else "gradient", backward_recipe(op.node, op.record, place, gx, gy)
        )

    def _added(self, op: _Op, gy: Array) -> dict[str, Any] | None:
        """The recipe of a gradient that is the sum of those of several consumers; None where it is of one."""
        number = op.record.number
        pairs = [(other, i) for other in self.ops for i, x in enumerate(other.inputs) if x["from"] == number and other.leaving]
        parts = [blob["values"] for other, i in reversed(pairs) if (blob := other.leaving[i]) is not None]
        host = op.node.device.to_host(gy)
        return {"how": "add", "of": parts} if len(parts) > 1 and self.values.is_sum(host, parts) else None

    def _keep_terms(self, op: _Op, direction: str, gy: Array | None) -> None:
        """Of a linear layer whose weights do not come along: the largest terms of each sum, and the sum of the others."""
        if not self.values.full:
            kept = kept_terms(op.node, direction, gy)
            if kept is not None:
                arrays = {"places": kept.places, "factors": kept.factors, "rest": kept.rest}
                first_to_go = {"forward": 1, "backward": 2}[direction]
                added = {name: self.values.add(array, expendable=first_to_go) for name, array in arrays.items()}
                op.about[direction] = {**added, "kept": kept.places.shape[1]}

    def maker_of(self, x: Tensor) -> int | None:
        """The number of the op that made a tensor; None if no op of the step did."""
        made = self._makers.get(id(x))
        return None if made is None else made[1]

    def _op_of(self, node: Any) -> _Op:
        return self.ops[self._of_node[node].number]

    def _input(self, name: str, x: Tensor, needed: bool) -> dict[str, Any]:
        """An input as the page has it: whose output it is, or what it holds."""
        maker = self.maker_of(x)
        about = {"name": name, "parameter": isinstance(x, Parameter), "needs_gradient": needed, "device": str(x.device)}
        if maker is not None:
            return {**about, "from": maker, "blob": self.ops[maker].output}
        if id(x) not in self._drawn:
            self._drawn[id(x)] = x, self.blob(x.data, x.device, "filters" if about["parameter"] else "activation")
        return {**about, "from": None, "blob": self._drawn[id(x)][1]}

    def blob(self, array: Array, device: Device, kind: str, recipe: dict[str, Any] | None = None) -> dict[str, Any]:
        """An array's shape, dtype, bytes, distribution, the end of its colours, and where its numbers are."""
        host = array if isinstance(array, np.ndarray) else device.to_host(array)
        spread = {name: _finite(value) for name, value in asdict(distribution(host)).items()}
        place = self.values.add(host, recipe)
        about = {**_measures(host), "kind": kind, "limit": limit(host), "distribution": spread, "values": place}
        if self.values.entries[place].array is None and host.ndim > 1:
            matrix = host.reshape(host.shape[0], -1)
            about["blocks"] = self.values.add(blocks(matrix))
            if recipe is None:
                about["window"] = self.values.add(matrix[:SIDE, :SIDE])
        return about


def _measures(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": array.nbytes}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for them."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _saved(node: Any, arrays: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """What the op keeps for backward: each array's name, why it is kept, and which of the named arrays is in the same memory,
    "" if none is."""
    reasons = list(saved_because(type(node)).items())
    reasons += [(f"array {i}", "") for i in range(len(reasons), len(node.saved))]
    memory = {id(owner(x.data)): name for name, x in arrays if isinstance(x, Tensor)}
    return [
        {"name": name, "why": why, "shared_with": memory.get(id(owner(array)), ""), **_measures(array)}
        for (name, why), array in zip(reasons, node.saved, strict=False)
        if hasattr(array, "nbytes")
    ]


# ---------------------------------------------------------------------------------------------------- the network as data


def _about(
    model: Module,
    x: Tensor,
    loss: _Loss,
    classes: Sequence[str],
    notes: Sequence[str],
    pixels: np.ndarray | None,
) -> dict[str, Any]:
    """The model, the image and the loss."""
    return {
        "model": type(model).__name__,
        "input": list(x.shape),
        "dtype": str(x.dtype),
        "notes": list(notes),
        "image": None if pixels is None else picture(pixels),
        "loss": {"value": _finite(loss.value), "label": loss.label, **_chances(loss, classes)},
    }


def _chances(loss: _Loss, names: Sequence[str]) -> dict[str, Any]:
    """What the softmax of the scores gives the label and the favourites; nothing where there is no label."""
    if loss.label is None:
        return {}
    scores = loss.scores[0].astype(np.float64)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    name_of = dict(enumerate(names))

    def chance(label: int) -> dict[str, Any]:
        return {"label": label, "name": name_of.get(label, ""), "probability": _finite(float(p[label]))}

    return {
        "classes": p.size,
        "names": list(names),
        **chance(loss.label),
        "best": [chance(i) for i in np.argsort(-p, kind="stable")[:3].tolist()],
    }


def network(seen: Seen, overall: Summary) -> dict[str, Any]:
    """The step as the page's script reads it.

    lanes    : what stands side by side: towers, or devices. [{"name", "devices"}]
    stations : layers, towers together, and what happens between them, in the order in which they first ran; with summary's
               figures, and "ops": the places of their ops
    ops      : every op in the order of forward: names, settings, arrays ("blobs"), bytes that crossed, passages of source
    events   : [op, "forward" | "backward"] in the order in which they ran
    passages : each different passage of source once
    equations : of each op that some op names in its "formulas"
    of_batch : {"uses": [[op, place of the input]], "total"}: the batch's gradient, where several ops use it; else None

    A gradient with "extra" is one that the step did not compute: of the batch, and of what is made of it alone.
    """
    passages = _Passages()
    lanes, lane_of = lanes_of(seen.records)
    ops = [{**_op_data(op, seen, passages), "lane": lane} for op, lane in zip(seen.ops, lane_of, strict=True)]
    return {
        "lanes": lanes,
        "stations": _stations(seen.records, overall.rows),
        "ops": ops,
        "events": _events(seen.records, len(seen.events)),
        "passages": passages.different,
        "equations": _equations(seen.ops, ops),
        "totals": {**overall.totals, "batch_copied": overall.batch_copied},
        "of_batch": seen.of_batch,
    }


class _Passages:
    """Each different passage of source once, in `different`."""

    def __init__(self) -> None:
        self.different: list[dict[str, Any]] = []

    def places(self, passages: Sequence[Passage]) -> list[int]:
        """Of passages in `different`, to which they are added if they are new."""
        found = []
        for passage in passages:
            entry = {
                "file": passage.file,
                "function": passage.function,
                "first_line": passage.first_line,
                "lines": passage.lines,
                "ran": sorted(passage.ran),
            }
            if entry not in self.different:
                self.different.append(entry)
            found.append(self.different.index(entry))
        return found


def _op_data(op: _Op, seen: Seen, passages: _Passages) -> dict[str, Any]:
    record = op.record
    forward, backward = seen.lines.of(op.node)
    return {
        "op": record.op,
        "minidl": is_known(op.node),
        "layer": record.layer,
        "is_layer": record.is_layer,
        "device": record.device,
        "settings": {name: str(value) for name, value in record.settings.items()},
        "inputs": op.inputs,
        "output": op.output,
        "arriving": op.arriving,
        "leaving": op.leaving,
        "saved": op.saved,
        "about": op.about,
        "saved_bytes": record.saved_bytes,
        "freed_after": record.freed_event,
        "crossing": {
            "forward": _crossings(record.crossing_forward),
            "backward": _crossings(record.crossing_backward),
        },
        "formulas": _formulas(op, [*forward, *backward]),
        "source": {"forward": passages.places(forward), "backward": passages.places(backward)},
    }


def _formulas(op: _Op, passages: Sequence[Passage]) -> list[str]:
    """The op's name, and those of the ops whose plain functions it called: conv2d_relu is conv2d and then relu."""
    called = (re.sub("_(forward|backward)$", "", passage.function) for passage in passages)
    return list(dict.fromkeys([op.record.op, *filter(_is_op, called)]))


def _is_op(name: str) -> bool:
    try:
        return bool(find_op(name))
    except ValueError:
        return False


def _equations(seen: Sequence[_Op], ops: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of every op that is named in a "formulas"; one of the model's own is known by its class."""
    of: dict[str, Any] = {name: name for op in ops for name in op["formulas"]}
    of |= {op.record.op: type(op.node) for op in seen}
    return {name: asdict(equations(op)) for name, op in of.items()}


def _crossings(crossing: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [{"from": source, "to": target, "bytes": nbytes} for (source, target), nbytes in crossing.items()]


def _events(records: Sequence[OpRecord], count: int) -> list[list[Any]]:
    """(op, direction) of every event of the trace, in order."""
    events: list[list[Any]] = [[]] * count
    for record in records:
        events[record.forward_event] = [record.number, "forward"]
        if record.backward_event is not None:
            events[record.backward_event] = [record.number, "backward"]
    return events


def _stations(records: Sequence[OpRecord], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The ops in the groups of summary's rows, with their figures; and the loss, of which summary knows nothing."""
    loss = [record for record in records if record.layer is None]
    groups = layer_groups([record for record in records if record.layer is not None])
    stations = [
        {"title": _title(*key, group), "ops": [r.number for r in group], **{name: getattr(row, name) for name in _FIGURES}}
        for (key, group), row in zip(groups.items(), rows, strict=True)
    ]
    if loss:
        stations.append({"title": "loss", "ops": [r.number for r in loss], **dict.fromkeys(_FIGURES, 0)})
    for station, name in zip(stations, _unique(str(s["title"]) for s in stations), strict=True):
        station["id"] = name
    return stations


def _title(layer: str, is_layer: bool, group: Sequence[OpRecord]) -> str:
    """A layer's name; of ops between layers what they do: "exchange after pool2" between devices, or "reshape after pool5"."""
    if is_layer:
        return layer
    if not layer:
        return "input"
    targets = {record.device for record in group if record.crossing_forward}
    what = ", ".join(dict.fromkeys("concat" if r.op == "cat" else r.op for r in group))
    return f"{('gather' if len(targets) == 1 else 'exchange') if targets else what} after {layer}"


def _unique(titles: Iterable[str]) -> list[str]:
    """A name for each title that a link can have, no two the same, none of a section's that every page has."""
    names: list[str] = []
    for title in titles:
        name = stem = re.sub(r"[^\w.]+", "-", title).strip("-")
        for n in itertools.count(2):
            if name not in names and name not in _RESERVED:
                break
            name = f"{stem}-{n}"
        names.append(name)
    return names


# ----------------------------------------------------------------------------------------------------------------- html


def page_of(data: dict[str, Any], file: str, template: str, scripts: Sequence[str], title: str, **more: str) -> Page:
    """A template of minidl/study/explorer/page with the title, the style sheet, scripts, the data and more in their places."""
    pieces = {
        "title": html.escape(title),
        "style": _asset("explorer.css"),
        "script": "\n".join(f"<script>\n{_asset(f'{name}.js')}</script>" for name in scripts),
        "data": _json(_once(data)),
        "texts": "\n".join(f'<script type="text/plain" id="text-{i}">{text}</script>' for i, text in enumerate(data["texts"])),
        **more,
    }
    pieces["head"] = _filled(_asset("head.html"), pieces)
    return Page(_filled(_asset(template), pieces), data, file)


def _filled(template: str, pieces: Mapping[str, str]) -> str:
    """The template with a piece for each {{name}}; what pieces hold is not looked at."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: pieces[place[1]], template)


def _once(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data without its texts, and with each op's output once: not again as an input of other ops."""

    def input_of(x: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in x.items() if name != "blob" or x["from"] is None}

    ops = [{**op, "inputs": [input_of(x) for x in op["inputs"]]} for op in data["ops"]]
    return {**{name: value for name, value in data.items() if name != "texts"}, "ops": ops}


def _asset(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that may stand in a script element: no tag can end it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
