"""summary(model, input_shape): a row a layer, measured in one training step rather than estimated.

    print(summary(model, (1, 3, 224, 224)))            text, as wide as the terminal
    summary(model, (1, 3, 224, 224)).text(None)        all columns, however wide
    summary(model, (1, 3, 224, 224)).markdown()        a table for a document
    summary(model, (1, 3, 224, 224)).json()            for programs; all numbers whole

Layers of several towers ("tower0.conv1", "tower1.conv1") share a row. What happens between layers (a copy to another device, a
concatenation, a reshape) has rows of its own, so that the totals are those of the whole step.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from minidl.nn import Module
from minidl.study.models import left_as_it_was, random_batch
from minidl.study.step.table import fitted, number, terminal_width, tight, wrapped
from minidl.study.step.table import shape as shape_text
from minidl.study.step.trace import OpRecord, Trace, alone
from minidl.tensor import Tensor

JSON_VERSION = 1  # it grows when an entry goes or means something else; new entries alone do not change it


@dataclass
class Row:
    """A layer, or what happens between two. Bytes are for the whole batch, neurons and multiply-adds for one image.

    outputs    : the shape that each tower gives, without the batch's axis
    kernel     : "48 x 3 x 11 x 11" for a convolution, "4096 x 9216" for a linear layer: the weight's shape in each tower
    neurons    : outputs of convolutions and linear layers
    macs_*     : multiply-adds of the products, forward; and of the gradients that backward computes
    activation : bytes of new memory that the outputs are in
    saved      : bytes kept for backward that nothing before kept; parameters are not counted
    workspace  : the most that an op of the row needs for a while, forward or backward
    crosses_*  : bytes copied from one device to another; the batch's own way there is Summary.batch_copied
    """

    name: str
    ops: list[str] = field(default_factory=list)
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    kernel: str = ""
    devices: list[str] = field(default_factory=list)
    parameters: int = 0
    neurons: int = 0
    macs_forward: int = 0
    macs_backward: int = 0
    activation: int = 0
    saved: int = 0
    workspace: int = 0
    crosses_forward: int = 0
    crosses_backward: int = 0


HEADINGS = {
    "parameters": "parameters",
    "neurons": "neurons",
    "macs_forward": "MACs fwd",
    "macs_backward": "MACs bwd",
    "activation": "activation B",
    "saved": "saved B",
    "workspace": "workspace B",
    "crosses_forward": "crosses fwd B",
    "crosses_backward": "crosses bwd B",
}
# columns that go where the terminal is too narrow, the first of them first
_EXPENDABLE = (
    *("crosses bwd B", "crosses fwd B", "workspace B", "device", "neurons", "MACs bwd", "activation B", "kernel"),
    *("saved B", "MACs fwd", "parameters"),
)


@dataclass
class Summary:
    """The rows, in the order in which layers first ran, and their totals. `str` of it is a table as wide as the terminal."""

    model: str
    input_shape: tuple[int, ...]
    rows: list[Row]
    batch_copied: int  # bytes of the batch itself that were copied to another device

    @property
    def totals(self) -> dict[str, int]:
        """The sums of all columns that add up, and the largest workspace."""
        sums = {name: sum(getattr(row, name) for row in self.rows) for name in HEADINGS}
        return {**sums, "workspace": max((row.workspace for row in self.rows), default=0)}

    def cells(self) -> list[list[str]]:
        """Heading, rows and totals as text."""
        head = ["layer", "output", "kernel", *HEADINGS.values(), "device"]
        body = [
            [row.name, _shapes(row.outputs), row.kernel, *(number(getattr(row, n)) for n in HEADINGS), " ".join(row.devices)]
            for row in self.rows
        ]
        totals = self.totals
        return [head, *body, ["total", "", "", *(number(totals[n]) for n in HEADINGS), ""]]

    def text(self, width: int | None = None) -> str:
        """A table of at most `width` characters, with a note on what was left out of it; None: all of it."""
        rows = self.cells()
        output, kernel = (lambda cell: tight(cell.split(", ")[-1])), tight
        found = fitted(
            rows, range(3, len(rows[0]) - 1), _EXPENDABLE, width, names=["layer"], compact={"output": output, "kernel": kernel}
        )
        table = found.lines
        line = "-" * max(map(len, table))
        notes = ["B: bytes, for the whole batch. Neurons and multiply-adds (MACs): for one image."]
        if found.compact and any(", " in row[1] for row in rows):
            notes.append("Output: of the last op of a row.")
        if self.batch_copied:
            notes.append(f"{self.batch_copied:,} bytes of the batch itself are copied to another device.")
        notes = [*(wrapped(note, width) for note in notes), *found.note]
        about = f"{self.model}, input {shape_text(self.input_shape)}"
        return "\n".join([about, table[0], line, *table[1:-1], line, table[-1], *notes])

    def __str__(self) -> str:
        return self.text(terminal_width())

    def markdown(self) -> str:
        """A table in Markdown."""
        head, *rest = self.cells()
        rule = [":--" if i in (0, 1, 2, len(head) - 1) else "--:" for i in range(len(head))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rest))

    def json(self) -> str:
        """The rows and totals, as JSON of the version `JSON_VERSION`; docs/summary.md says what each entry is."""
        return json.dumps({"version": JSON_VERSION, **asdict(self), "totals": self.totals}, indent=1)


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """Run one training step on random numbers and say what each layer is, and costs.

    model       : any module whose forward takes one batch and returns one Tensor
    input_shape : of the batch, e.g. (1, 3, 224, 224)

    The step is run as training would run it (`train()`, recording a graph), on one thread, and leaves no trace: gradients,
    modes and random state are put back. ValueError for a shape without axes or with an axis below 1; TypeError if the
    model's output is no Tensor.
    """
    shape = tuple(int(n) for n in input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"summary: input_shape must be a batch's shape, each axis at least 1, got {shape}")
    return summarised(type(model).__name__, shape, _traced_step(model, shape))


def summarised(model: str, input_shape: tuple[int, ...], records: Sequence[OpRecord]) -> Summary:
    """Of a step that was traced. `input_shape`: of a batch; its first axis is that of the images."""
    copied = sum(sum(record.crossing_forward.values()) for record in records if not record.needs_gradient)
    return Summary(model, input_shape, _rows(records, max(1, *input_shape[:1])), copied)


def _traced_step(model: Module, shape: tuple[int, ...]) -> list[OpRecord]:
    """The records of a training step; the model is as before afterwards."""
    with left_as_it_was(model):
        model.train()
        x = random_batch(model, shape)
        _step(model, x)  # what Python and NumPy prepare once is no layer's workspace
        with alone() as meter, Trace(workspace=meter) as trace:
            _step(model, x)
    return trace.records


def _step(model: Module, x: Tensor) -> None:
    model.zero_grad()
    y = model(x)
    if not isinstance(y, Tensor):
        raise TypeError(f"summary: the model must return a Tensor, got {type(y).__name__}")
    if y.requires_grad:
        y.backward(np.ones(y.shape, y.dtype))


def layer_groups(records: Sequence[OpRecord]) -> dict[tuple[str, bool], list[OpRecord]]:
    """(layer, True) -> its records, towers together; (layer, False) -> those of what happens after it, up to the next."""
    groups: dict[tuple[str, bool], list[OpRecord]] = {}
    last = ""
    for record in records:
        if record.is_layer:
            last = re.sub(r"^tower\d+\.", "", str(record.layer))
        groups.setdefault((last, record.is_layer), []).append(record)
    return groups


def _rows(records: Sequence[OpRecord], batch: int) -> list[Row]:
    """A row for each group of records."""
    rows = []
    counted: set[int] = set()
    for (layer, is_layer), group in layer_groups(records).items():
        row = Row(layer if is_layer else "")
        for record in group:
            _add(row, record, batch, counted)
        row.devices.sort()
        row.name = row.name or f"({', '.join(dict.fromkeys(row.ops))})"
        rows.append(row)
    return rows


def _add(row: Row, record: OpRecord, batch: int, counted: set[int]) -> None:
    """One more op of a row. `counted`: the parameters that were counted before."""
    new = {key: size for key, size in record.parameters.items() if key not in counted}
    counted.update(new)
    row.ops.append(record.op)
    row.outputs.append(record.output[1:])
    if record.device not in row.devices:
        row.devices.append(record.device)
    if record.weighted:
        row.kernel = shape_text(record.inputs[1][1])
        row.neurons += math.prod(record.output) // batch
    row.parameters += sum(new.values())
    row.macs_forward += record.macs_forward // batch
    row.macs_backward += record.macs_backward // batch
    row.activation += record.output_bytes
    row.saved += record.saved_bytes
    row.workspace = max(row.workspace, record.workspace_forward, record.workspace_backward)
    row.crosses_forward += sum(record.crossing_forward.values()) if record.needs_gradient else 0
    row.crosses_backward += sum(record.crossing_backward.values())


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """ "48 x 55 x 55 (2)" for two of the same."""
    each = dict.fromkeys(map(shape_text, shapes))
    return ", ".join(s if (n := sum(shape_text(o) == s for o in shapes)) == 1 else f"{s} ({n})" for s in each)
