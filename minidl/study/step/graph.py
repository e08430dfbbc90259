"""graph(model, example): the network as a data-flow graph, seen in one training step, and drawn.

    picture = graph(model, images)
    picture.save("net.svg")                             a picture, light or dark as its reader is
    print(picture.mermaid()); print(picture.dot())      the same graph as text, for Mermaid and for Graphviz

A node is an op that ran, an input, a constant or an output; an edge is an array that went from one to the other, and the
gradient that came back along it. Nothing is read from source, and nothing is estimated.
"""

import html
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checkpoint import write_whole
from minidl.device import Array
from minidl.grad_mode import enable_grad
from minidl.nn import Module, Parameter
from minidl.study.models import left_as_it_was
from minidl.study.step.graph_svg import Box, Wire, drawing
from minidl.study.step.table import shape as shape_text
from minidl.study.step.trace import OpRecord, Trace
from minidl.tensor import Tensor

FORMATS = ("svg", "mermaid", "dot")
_FORWARD, _BACKWARD = "#1b5cc2", "#a8410a"  # the explorer's hues


@dataclass(frozen=True)
class Node:
    """What makes an array, or takes the last one.

    kind   : "op", "input", "constant" (an array that no op made) or "output"
    title  : the layer's name, or the op's where it is between layers
    op     : the op's name; "" for what is no op
    lane   : the place of its tower or device in `Graph.lanes`
    shape  : of the array that it gives, the batch's axis included; dtype and nbytes of that array too
    kernel : "48 x 3 x 11 x 11", the weight's shape, or ""
    parameters : elements of parameters that no node before has used
    saved  : bytes kept for backward, as `summary` counts them
    copies : "cpu:1 -> cpu:0, 173,056 B" for a copy between devices, or ""
    """

    number: int
    kind: str
    title: str
    op: str
    device: str
    lane: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    kernel: str = ""
    parameters: int = 0
    saved: int = 0
    copies: str = ""

    def lines(self) -> list[str]:
        """The title, then what else is known, a line each."""
        what = [self.op] if self.op and self.op != self.title else []
        more = [" ".join([*what, *([self.kernel] if self.kernel else [])]), self.copies]
        more += [f"{self.parameters:,} parameters" if self.parameters else "", f"keeps {self.saved:,} B" if self.saved else ""]
        return [self.title, *filter(None, more), f"{shape_text(self.shape)} {self.dtype}"]


@dataclass(frozen=True)
class Edge:
    """An array on its way from one node to another. nbytes : its bytes; gradient : those of the gradient that came back along
    this way, None if none did."""

    source: int
    target: int
    shape: tuple[int, ...]
    nbytes: int
    gradient: int | None


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of forward, edges, and what stands side by side: the names of towers, or of devices."""

    model: str
    nodes: list[Node]
    edges: list[Edge]
    lanes: list[str]

    def svg(self) -> str:
        """A picture: forward goes down, backward up, towers stand side by side; bytes stand where the lines begin."""
        boxes = [Box(node.lines(), node.lane, node.kind, _beside(node)) for node in self.nodes]
        wires = [Wire(edge.source, edge.target, edge.nbytes, edge.gradient) for edge in self.edges]
        return drawing(f"{self.model}, one step", boxes, wires, self.lanes)

    def _repr_svg_(self) -> str:
        """Notebooks show the picture."""
        return self.svg()

    def mermaid(self) -> str:
        """A Mermaid flowchart: full lines forward, dotted ones backward."""
        rows = ["flowchart TD"]
        for lane, name in enumerate(self.lanes):
            rows.append(f'  subgraph lane{lane}["{_mermaid_text(name)}"]')
            for node in self.nodes:
                if node.lane == lane:
                    left, right = ("[", "]") if node.kind == "op" else ("([", "])")
                    rows.append(f'    n{node.number}{left}"{"<br/>".join(map(_mermaid_text, node.lines()))}"{right}')
            rows.append("  end")
        for edge in self.edges:
            rows.append(f'  n{edge.source} -- "{_arrays(edge)}" --> n{edge.target}')
        back = [edge for edge in self.edges if edge.gradient is not None]
        rows += [f'  n{edge.target} -. "{edge.gradient:,} B" .-> n{edge.source}' for edge in back]
        places = range(len(self.edges), len(self.edges) + len(back))
        if back:
            rows.append(f"  linkStyle {','.join(map(str, places))} stroke:{_BACKWARD}")
        return "\n".join(rows)

    def dot(self) -> str:
        """A digraph for Graphviz: towers as clusters; backward's edges are dashed, and do not move nodes."""
        rows = [
            "digraph {",
            '  rankdir=TB; node [shape=box, style=rounded, fontname="monospace"]; edge [fontname="monospace"];',
        ]
        for lane, name in enumerate(self.lanes):
            rows.append(f"  subgraph cluster_{lane} {{")
            rows.append(f"    label={_dot_text(name)};")
            rows += [f"    n{n.number} [label={_dot_text(chr(10).join(n.lines()))}];" for n in self.nodes if n.lane == lane]
            rows.append("  }")
        for edge in self.edges:
            rows.append(f'  n{edge.source} -> n{edge.target} [label={_dot_text(_arrays(edge))}, color="{_FORWARD}"];')
            if edge.gradient is not None:
                look = f'color="{_BACKWARD}", fontcolor="{_BACKWARD}", style=dashed, constraint=false'
                rows.append(f'  n{edge.target} -> n{edge.source} [label="{edge.gradient:,} B", {look}];')
        return "\n".join([*rows, "}"])

    def text(self, form: str) -> str:
        """The graph as one of `FORMATS`. ValueError: another."""
        if form not in FORMATS:
            raise ValueError(f"graph: the form must be one of {', '.join(FORMATS)}, got {form!r}")
        return {"svg": self.svg, "mermaid": self.mermaid, "dot": self.dot}[form]()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .svg, .mmd (Mermaid) or .dot file, whole or not at all. ValueError: another suffix."""
        path = Path(path)
        forms = {".svg": "svg", ".mmd": "mermaid", ".dot": "dot"}
        if path.suffix not in forms:
            raise ValueError(f"graph: a file must end in {', '.join(forms)}, got {path}")
        write_whole(path, (self.text(forms[path.suffix]) + "\n").encode())


def graph(model: Module, example: Any) -> Graph:
    """Run one training step and return what flowed.

    model   : any module whose forward returns a Tensor, or a tuple or list of them
    example : what it takes, e.g. images (1, 3, 224, 224): a tensor or an array, or a tuple of them; floats are converted to the
              dtype of the model's parameters

    Backward begins with ones at every output that has a gradient. Gradients, modes, buffers and random state are put back.
    TypeError: an example or an output that is none of these.
    """
    inputs = _tensors(model, example)
    with left_as_it_was(model), enable_grad(), _Flow(inputs) as flow:
        model.zero_grad()
        model.train()
        result = model(*inputs)
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        for output in outputs:
            if not isinstance(output, Tensor):
                raise TypeError(f"graph: the model must return a Tensor or a tuple of them, got {type(output).__name__}")
        flow.forward_is_done(outputs)
        totals = [output.sum() for output in outputs if output.requires_grad]
        if totals:
            sum(totals[1:], totals[0]).backward()
    return flow.graph(type(model).__name__)


def _tensors(model: Module, example: Any) -> list[Tensor]:
    first = next(model.parameters(), None)
    found = []
    for x in example if isinstance(example, (tuple, list)) else [example]:
        if not isinstance(x, (Tensor, np.ndarray)):
            raise TypeError(f"graph: example must be a tensor, an array or a tuple of them, got {type(x).__name__}")
        host = x.detach().numpy() if isinstance(x, Tensor) else x
        if first is None:
            found.append(Tensor(host))
        else:
            found.append(Tensor(host, device=first.device, dtype=first.dtype if host.dtype.kind == "f" else host.dtype))
    return found


def lanes_of(records: Sequence[OpRecord]) -> tuple[list[dict[str, Any]], list[int]]:
    """What stands side by side, towers or devices; and for each op the place of its lane among them.

    "tower1.conv2" is in tower 1; an op between the towers is with the tower of its device, in the order of the devices' names.
    """
    devices = sorted({record.device for record in records})
    found = [re.match(r"tower(\d+)\.", record.layer or "") for record in records]
    keys = [int(match[1]) if match else devices.index(record.device) for match, record in zip(found, records, strict=True)]
    lanes = sorted(set(keys))
    on = {lane: sorted({r.device for r, key in zip(records, keys, strict=True) if key == lane}) for lane in lanes}
    names = [f"tower {lane}" if any(found) else " ".join(on[lane]) for lane in lanes]
    about = [{"name": name, "devices": on[lane]} for name, lane in zip(names, lanes, strict=True)]
    return about, [lanes.index(key) for key in keys]


# ------------------------------------------------------------------------------------------------------------ observing


class _Flow(Trace):
    """A Trace that notes which op made each array, and which edges a gradient went along.

    Arrays are known by themselves, not by the Tensor around them: `detach` makes another Tensor of the same array.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.ops: list[tuple[list[Tensor], Tensor]] = []  # of each record: its tensors, its output
        self.returned: list[Tensor] = []
        self.inputs = list(inputs)
        self.gradients: dict[tuple[int, int], int] = {}  # (op, which of its tensors) -> bytes of the gradient

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Tensor) -> None:
        super().forward_ends(node, inputs, settings, out)
        if not self.returned:
            self.ops.append(([x for x in inputs if isinstance(x, Tensor)], out))

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        super().backward_ends(node, gy, gradients)
        record = self._of_node.get(node)
        if record is None or record.number >= len(self.ops):  # of the sum from which backward begins
            return
        of_tensors = [gx for gx, (_, dtype) in zip(gradients, node._inputs, strict=True) if dtype is not None]
        self.gradients |= {(record.number, i): gx.nbytes for i, gx in enumerate(of_tensors) if gx is not None}

    def forward_is_done(self, outputs: Sequence[Tensor]) -> None:
        """What runs from now on is no op of the network."""
        self.returned = list(outputs)

    def graph(self, model: str) -> Graph:
        """What was seen."""
        return _Builder(self, model).graph


class _Builder:
    """From ops and arrays to nodes and edges."""

    def __init__(self, flow: _Flow, model: str) -> None:
        self.records = flow.records[: len(flow.ops)]
        about, self.lanes = lanes_of(self.records)
        names = [_lane_name(lane["name"], lane["devices"]) for lane in about] or ["the model"]
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self._makers: dict[int, int] = {}  # id of an array -> its node
        self._counted: set[int] = set()
        for i, x in enumerate(flow.inputs):
            self._source("input", f"input {i}" if len(flow.inputs) > 1 else "input", x, 0)
        for record, (tensors, out) in zip(self.records, flow.ops, strict=True):
            self._op(record, tensors, out, flow.gradients)
        for i, y in enumerate(flow.returned):
            self._output(f"output {i}" if len(flow.returned) > 1 else "output", y)
        self.graph = Graph(model, self.nodes, self.edges, names)

    def _source(self, kind: str, title: str, x: Tensor, lane: int) -> int:
        number = len(self.nodes)
        self.nodes.append(Node(number, kind, title, "", str(x.device), lane, x.shape, str(x.dtype), x.data.nbytes))
        self._makers[id(x.data)] = number
        return number

    def _op(self, record: OpRecord, tensors: Sequence[Tensor], out: Tensor, gradients: Mapping[tuple[int, int], int]) -> None:
        lane = self.lanes[record.number]
        weights = [x for x in tensors if isinstance(x, Parameter)]
        new = {id(x): x.data.size for x in weights if id(x) not in self._counted}
        self._counted.update(new)
        flowing = [(i, x) for i, x in enumerate(tensors) if not isinstance(x, Parameter)]
        sources = [self._maker(x, lane) for _, x in flowing]
        number = len(self.nodes)
        crossing = [f"{a} -> {b}, {nbytes:,} B" for (a, b), nbytes in record.crossing_forward.items()]
        self.nodes.append(
            Node(
                number,
                "op",
                record.layer if record.is_layer and record.layer else record.op,
                record.op,
                record.device,
                lane,
                out.shape,
                str(out.dtype),
                out.data.nbytes,
                kernel=shape_text(weights[0].shape) if weights and weights[0].ndim > 1 else "",
                parameters=sum(new.values()),
                saved=record.saved_bytes,
                copies="; ".join(crossing),
            )
        )
        for (i, x), source in zip(flowing, sources, strict=True):
            self.edges.append(Edge(source, number, x.shape, x.data.nbytes, gradients.get((record.number, i))))
        self._makers[id(out.data)] = number

    def _maker(self, x: Tensor, lane: int) -> int:
        found = self._makers.get(id(x.data))
        return self._source("constant", "constant", x, lane) if found is None else found

    def _output(self, title: str, y: Tensor) -> None:
        source = self._maker(y, 0)
        number, maker = len(self.nodes), self.nodes[source]
        self.nodes.append(Node(number, "output", title, "", str(y.device), maker.lane, y.shape, str(y.dtype), y.data.nbytes))
        self.edges.append(Edge(source, number, y.shape, y.data.nbytes, y.data.nbytes if y.requires_grad else None))


def _beside(node: Node) -> str:
    """The same for a layer of tower 0 and that of tower 1; "" for what is in no tower."""
    layer = re.sub(r"^tower\d+\.", "", node.title)
    return "" if layer == node.title else layer


def _lane_name(name: str, devices: Sequence[str]) -> str:
    where = ", ".join(devices)
    return name if name == where else f"{name}, on {where}"


def _arrays(edge: Edge) -> str:
    return f"{shape_text(edge.shape)}, {edge.nbytes:,} B"


def _mermaid_text(text: str) -> str:
    """Inside quotes Mermaid has entities of its own for what would end them, and takes HTML's."""
    return html.escape(text, quote=False).replace('"', "#quot;")


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
