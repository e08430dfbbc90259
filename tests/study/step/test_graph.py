"""graph: nodes and edges as they were seen, the three forms of them, and what is refused."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.study import graph
from minidl.study.models import load_model
from minidl.study.step.graph import FORMATS
from minidl.study.step.graph_svg import Box, Wire, drawing

FLOAT = 4  # bytes


class Skip(nn.Module):
    """A convolution, and a sum with what went around it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        y = F.relu(x * 2)
        return self.fc((y + self.conv(y)).mean((2, 3)))


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower0 = nn.Sequential(nn.Linear(6, 4))
        self.tower1 = nn.Sequential(nn.Linear(6, 4, device="cpu:1"))

    def forward(self, x):
        low, high = self.tower0(x), self.tower1(x.to("cpu:1"))
        return F.cat([low, high.to("cpu:0")], 1)


def images(*shape):
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.fixture
def skip():
    return graph(Skip(), images(5, 2, 4, 4))


def test_nodes_and_edges_are_what_ran(skip):
    assert [(n.kind, n.title, n.op) for n in skip.nodes] == [
        ("input", "input", ""),
        ("op", "mul", "mul"),
        ("op", "relu", "relu"),
        ("op", "conv", "conv2d"),
        ("op", "add", "add"),
        ("op", "mean", "mean"),
        ("op", "fc", "linear"),
        ("output", "output", ""),
    ]
    maps, rows = 5 * 2 * 4 * 4 * FLOAT, 5 * 2 * FLOAT
    assert [(e.source, e.target, e.shape, e.nbytes, e.gradient) for e in skip.edges] == [
        (0, 1, (5, 2, 4, 4), maps, None),  # the images need no gradient
        (1, 2, (5, 2, 4, 4), maps, None),  # nor what is made of them alone
        (2, 3, (5, 2, 4, 4), maps, None),
        (2, 4, (5, 2, 4, 4), maps, None),
        (3, 4, (5, 2, 4, 4), maps, maps),
        (4, 5, (5, 2, 4, 4), maps, maps),
        (5, 6, (5, 2), rows, rows),
        (6, 7, (5, 3), 5 * 3 * FLOAT, 5 * 3 * FLOAT),
    ]
    conv, fc = skip.nodes[3], skip.nodes[6]
    assert (conv.kernel, conv.parameters, conv.shape, conv.nbytes) == ("2 x 2 x 3 x 3", 2 * 2 * 9 + 2, (5, 2, 4, 4), maps)
    assert (conv.saved, fc.kernel, fc.parameters, fc.saved) == (maps, "3 x 2", 9, rows)


def test_towers_are_lanes_and_copies_say_their_bytes():
    seen = graph(Towers(), images(1, 6))
    assert seen.lanes == ["tower 0, on cpu:0", "tower 1, on cpu:1"]
    there, back = (node for node in seen.nodes if node.op == "to_device")
    assert (there.copies, there.lane, back.copies, back.lane) == ("cpu:0 -> cpu:1, 24 B", 1, "cpu:1 -> cpu:0, 16 B", 0)
    assert [node.lane for node in seen.nodes if node.op in ("linear", "cat")] == [0, 1, 0]


def test_alexnet_has_the_papers_numbers_and_is_in_the_docs_as_it_is():
    seen = graph(load_model("alexnet"), np.zeros((1, 3, 224, 224), np.float32))
    assert (Path(__file__).parents[3] / "docs/figures/alexnet.svg").read_text() == seen.svg() + "\n"
    assert sum(node.parameters for node in seen.nodes) == 60_965_224
    crossing = [node for node in seen.nodes if node.copies and seen.edges[_edge_to(seen, node)].gradient is not None]
    assert sum(node.nbytes for node in crossing) == 234_496
    assert [len([n for n in seen.nodes if re.search(rf"conv{i}$", n.title)]) for i in range(1, 6)] == [2] * 5


def _edge_to(seen, node):
    return next(i for i, edge in enumerate(seen.edges) if edge.target == node.number)


def test_shared_parameters_are_counted_once_and_detached_arrays_are_one():
    layer = nn.Linear(3, 3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, y):
            return self.layer(self.layer(x)), y.detach() * Tensor(np.float32(2))

    seen = graph(Twice(), (images(2, 3), images(2, 1)))
    assert [node.parameters for node in seen.nodes if node.op == "linear"] == [12, 0]
    assert [node.title for node in seen.nodes] == [
        *("input 0", "input 1", "layer", "layer", "constant", "mul", "output 0", "output 1")
    ]
    assert [(e.source, e.target) for e in seen.edges] == [(0, 2), (2, 3), (1, 5), (4, 5), (3, 6), (5, 7)]
    assert seen.edges[-1].gradient is None


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    model[0].weight.grad = Tensor(np.ones((4, 3), np.float32))
    before = {name: values.copy() for name, values in model.state_dict().items()}
    state = minidl.random.default_generator.state()
    with minidl.no_grad():
        seen = graph(model, images(4, 3))
    assert any(edge.gradient for edge in seen.edges)
    assert all(np.array_equal(values, before[name]) for name, values in model.state_dict().items())
    assert not model.training and (model[0].weight.grad.data == 1).all()
    assert minidl.random.default_generator.state() == state


@pytest.mark.parametrize(
    ("model", "example", "words"),
    [
        (nn.ReLU(), "x", "example must be a tensor, an array or a tuple of them, got str"),
        (type("Odd", (nn.Module,), {"forward": lambda self, x: {"y": x}})(), images(1), "must return a Tensor .* got dict"),
    ],
)
def test_what_is_no_network_is_refused(model, example, words):
    with pytest.raises(TypeError, match=f"^graph: .*{words}"):
        graph(model, example)


# ---------------------------------------------------------------------------------------------------------------- forms


class Odd(nn.Module):
    """Names with everything that ends a string somewhere."""

    def __init__(self):
        super().__init__()
        self.add_module('a"<b>&\\[x]|{y}#', nn.Linear(2, 2))

    def forward(self, x):
        return next(self.children())(x)


def odd():
    return graph(Odd(), images(1, 2))


@pytest.mark.filterwarnings("ignore:.* deprecated - use:DeprecationWarning")
def test_dot_is_read_by_a_parser():
    pydot = pytest.importorskip("pydot")
    for seen in (graph(Towers(), images(1, 6)), odd()):
        (read,) = pydot.graph_from_dot_data(seen.dot())
        nodes = [node for part in read.get_subgraphs() for node in part.get_nodes()]
        assert {node.get_name() for node in nodes} == {f"n{node.number}" for node in seen.nodes}
        labels = {node.get_name(): node.get("label")[1:-1] for node in nodes}
        for node in seen.nodes:
            text = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], labels[f"n{node.number}"])
            assert text.split("\n") == node.lines()
        edges = [(edge.get_source(), edge.get_destination()) for edge in read.get_edges()]
        forward = [(f"n{e.source}", f"n{e.target}") for e in seen.edges]
        backward = [(f"n{e.target}", f"n{e.source}") for e in seen.edges if e.gradient is not None]
        assert sorted(edges) == sorted(forward + backward)


# the part of Mermaid's flowchart syntax that is used: https://mermaid.js.org/syntax/flowchart.html
TEXT = r'"[^"\n]*"'
MERMAID = [
    r"flowchart TD",
    rf"  subgraph lane\d+\[{TEXT}\]",
    rf"    n\d+(\[{TEXT}\]|\(\[{TEXT}\]\))",
    r"  end",
    rf"  n\d+ -- {TEXT} --> n\d+",
    rf"  n\d+ -\. {TEXT} \.-> n\d+",
    r"  linkStyle \d+(,\d+)* stroke:#[0-9a-f]{6}",
]


def test_mermaid_keeps_to_its_syntax():
    for seen in (graph(Towers(), images(1, 6)), odd()):
        lines = seen.mermaid().split("\n")
        assert [line for line in lines if not any(re.fullmatch(rule, line) for rule in MERMAID)] == []
        assert lines[0] == "flowchart TD" and lines.count("  end") == len(seen.lanes)
        defined = {int(n) for n in re.findall(r"^    n(\d+)[\[(]", "\n".join(lines), re.MULTILINE)}
        assert defined == {node.number for node in seen.nodes}
        down = re.findall(r"^  n(\d+) -- .* --> n(\d+)$", "\n".join(lines), re.MULTILINE)
        up = re.findall(r"^  n(\d+) -\. .* \.-> n(\d+)$", "\n".join(lines), re.MULTILINE)
        assert down == [(str(e.source), str(e.target)) for e in seen.edges]
        assert up == [(str(e.target), str(e.source)) for e in seen.edges if e.gradient is not None]
        (styled,) = re.findall(r"linkStyle ([\d,]+) ", lines[-1])
        assert styled == ",".join(str(len(down) + i) for i in range(len(up)))


def texts_of(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_is_xml_with_every_nodes_text():
    for seen in (graph(Towers(), images(1, 6)), odd()):
        texts = texts_of(seen.svg())
        wanted = [line for node in seen.nodes for line in node.lines()] + seen.lanes
        assert [line for line in wanted if texts.count(line) < wanted.count(line)] == []
        bytes_down = {edge.source: f"{edge.nbytes:,} B" for edge in seen.edges}
        assert [text for text in bytes_down.values() if text not in texts] == []
        assert seen._repr_svg_() == seen.svg()


def test_layers_of_two_towers_stand_in_one_row():
    """Although tower 1 gets its input a copy later."""
    tops = {}
    for element in ET.fromstring(graph(Towers(), images(1, 6)).svg()).iter("{http://www.w3.org/2000/svg}text"):
        tops.setdefault(element.text, float(element.get("y")))
    assert tops["tower0.0"] == tops["tower1.0"] > tops["to_device"] > tops["input"]


def test_boxes_that_would_wait_for_each_other_stand_in_rows_of_their_own():
    boxes = [Box(["a"], 0, "op", "same"), Box(["b"], 0, "op"), Box(["c"], 0, "op", "same")]
    drawn = drawing("x", boxes, [Wire(0, 1, 1, None), Wire(1, 2, 1, None)], ["l"])
    tops = [float(y) for y in re.findall(r'<rect class="box op" x="[\d.]+" y="([\d.]+)"', drawn)]
    assert len(set(tops)) == 3


@pytest.mark.parametrize(("name", "first"), [("x.svg", "<svg "), ("x.mmd", "flowchart TD"), ("x.dot", "digraph {")])
def test_it_is_saved_in_the_form_of_its_name(skip, tmp_path, name, first):
    skip.save(tmp_path / name)
    assert (tmp_path / name).read_text().startswith(first)


def test_other_forms_are_refused(skip, tmp_path):
    with pytest.raises(ValueError, match=r"graph: a file must end in .svg, .mmd, .dot, got .*x.png"):
        skip.save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="graph: the form must be one of svg, mermaid, dot, got 'png'"):
        skip.text("png")
    assert [skip.text(form) for form in FORMATS] == [skip.svg(), skip.mermaid(), skip.dot()]
    assert list(tmp_path.iterdir()) == []
