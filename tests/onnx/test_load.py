"""ONNX files as modules: the onnx package's own tests of its operators, what is exported comes back, and bad files."""

import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor, nn, optim

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import minidl.onnx  # noqa: E402
from minidl.onnx import OnnxError  # noqa: E402
from minidl.onnx.load import from_proto  # noqa: E402
from minidl.onnx.read import READERS  # noqa: E402

OPERATORS = (
    *("Conv", "MaxPool", "AveragePool", "LRN", "Relu", "Tanh", "Sigmoid", "Gemm", "MatMul", "Softmax", "LogSoftmax", "Dropout"),
    *("Flatten", "Reshape", "Transpose", "Concat", "Slice", "Pad", "Add", "Mul", "Sub", "Div", "BatchNormalization"),
    *("GlobalAveragePool", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"),
)
OTHERS = sorted(set(READERS) - set(OPERATORS))  # that load knows too


def cases_of_the_onnx_package():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if len(case.model.graph.node) == 1]
    return [case for case in cases if all(_is_real(x) for inputs, _ in case.data_sets for x in inputs)]


def _is_real(x):
    """Strings, sequences and complex numbers are no tensors here."""
    return isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind in "fiub"


def verdict(case):
    """right, wrong, or refused with the operator named."""
    operator = case.model.graph.node[0].op_type
    for inputs, outputs in case.data_sets:
        try:
            results = from_proto(case.model)(*map(Tensor, inputs))
        except OnnxError as error:
            assert re.search(rf" {operator}( \(.*?\))?: ", str(error)), (case.name, error)
            return "refused"
        results = results if isinstance(results, tuple) else (results,)
        for result, wanted in zip(results, outputs, strict=True):
            ours = result.detach().numpy()
            if ours.shape != wanted.shape or ours.dtype != wanted.dtype:
                return "wrong"
            if not np.allclose(ours, wanted, rtol=case.rtol, atol=1e-6, equal_nan=True):
                return "wrong"
    return "right"


def table(verdicts):
    """Operator, then how many of its tests are right, refused, wrong; the last line has the sums."""
    rows = {}
    for (operator, _), found in verdicts.items():
        rows.setdefault(operator, Counter())[found] += 1
    rows["all"] = sum(rows.values(), Counter())
    return "\n".join(f"{name:20}" + "".join(f"{row[v]:9}" for v in ("right", "refused", "wrong")) for name, row in rows.items())


@pytest.mark.parametrize(("operators", "right", "refused"), [(OPERATORS, 210, 30), (OTHERS, 130, 26)])
def test_the_onnx_packages_tests_of_these_operators(operators, right, refused, record_property):
    """What is refused: 3 axes of pixels, second outputs, training inside the graph, dilated averages, other modes of Pad."""
    cases = [(case.model.graph.node[0].op_type, case) for case in cases_of_the_onnx_package()]
    verdicts = {
        (operator, case.name): verdict(case) for operator, case in sorted(cases, key=lambda c: c[0]) if operator in operators
    }
    record_property("counts", f"{'onnx ' + onnx.__version__:20}    right  refused    wrong\n{table(verdicts)}")
    assert [name for (_, name), v in verdicts.items() if v == "wrong"] == []
    counts = Counter(verdicts.values())
    assert counts["right"] >= right and counts["refused"] <= refused, counts


def test_the_page_names_every_operator():
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()
    assert page.split("The operators: ")[1].split(".\n")[0].replace("\n", " ").split(", ") == sorted(READERS)


def test_bvlc_alexnet_of_the_onnx_package():
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    wanted = onnx.TensorProto.FromString((folder / "light_bvlc_alexnet_output_0.pb").read_bytes())
    model = minidl.onnx.load(folder / "light_bvlc_alexnet.onnx")
    assert sum(p.numel() for p in model.parameters()) == 60_965_224
    x = np.arange(3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224) / (3 * 224 * 224)
    session = onnxruntime.InferenceSession(str(folder / "light_bvlc_alexnet.onnx"))
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x})
    ours = model(x).detach().numpy()
    np.testing.assert_allclose(ours, numpy_helper.to_array(wanted), rtol=1e-3)  # the file's own, as the package compares
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.LocalResponseNorm(4, 0.1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2, 1, 1),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(150, 4),
        nn.LogSoftmax(1),
    )


def test_what_is_written_of_several_nodes_comes_back_too(tmp_path):
    """gelu is made of Erf; a transposed convolution, sums along an axis and gathered elements are operators of their own."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.gelu = nn.ConvTranspose2d(3, 2, 3, 2, 1, 1), nn.GELU()

        def forward(self, x):
            y = self.gelu(self.up(x)).cumsum(3)
            return y.gather(1, Tensor(np.ones((1, 1, 16, 16), np.int64)).expand(len(x), -1, -1, -1)) + y

    model = Odd()
    minidl.onnx.export(model, images(2), tmp_path / "net.onnx")
    loaded = minidl.onnx.load(tmp_path / "net.onnx")
    x, y = Tensor(images(5)), Tensor(images(5))
    x.requires_grad = y.requires_grad = True
    ours, theirs = model(x), loaded(y)
    np.testing.assert_allclose(theirs.detach().numpy(), ours.detach().numpy(), atol=1e-5)
    ours.sum().backward()
    theirs.sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), x.grad.numpy(), atol=1e-4)  # sums of up to 16 x 2 x 9 terms of the size of 1


def images(n):
    return np.random.default_rng(n).normal(size=(n, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("external", [False, True])
def test_what_was_exported_comes_back(external, tmp_path):
    model = small_net()
    for _ in range(3):
        model(Tensor(images(9)))
    minidl.onnx.export(model, images(2), tmp_path / "net.onnx", external_data=external)
    loaded = minidl.onnx.load(tmp_path / "net.onnx")
    assert {n for n, _ in loaded.named_parameters()} == {n for n, _ in model.named_parameters()}
    assert {n for n, _ in loaded.named_buffers()} == {"1.running_mean", "1.running_var"}
    model.eval()
    for n in (1, 5):
        np.testing.assert_allclose(loaded(images(n)).detach().numpy(), model(Tensor(images(n))).detach().numpy(), atol=1e-5)


def test_it_trains_as_the_model_does(tmp_path):
    """One step of SGD, without dropout, moves weights and running means alike."""
    model = small_net()
    model[6].p = 0.0
    minidl.onnx.export(model, images(2), tmp_path / "net.onnx")
    loaded = minidl.onnx.load(tmp_path / "net.onnx")
    for net in (model.train(), loaded.train()):
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        (-net(Tensor(images(6)))[:, 1].mean()).backward()
        optimizer.step()
    theirs = dict(loaded.state_dict())
    for name, values in model.state_dict().items():
        if name != "1.num_batches_tracked":
            np.testing.assert_allclose(theirs[name], values, rtol=1e-5, atol=1e-6)


def test_a_trained_net_makes_the_same_decisions_in_onnxruntime(tmp_path):
    """Bars that lie or stand, in noise: trained on 300, then 500 others, which are judged alike, and nearly all rightly."""
    rng = np.random.default_rng(7)

    def bars(n):
        labels = rng.integers(0, 2, n)
        x = rng.normal(0, 0.5, (n, 1, 8, 8)).astype(np.float32)
        for image, label, at in zip(x, labels, rng.integers(0, 8, n), strict=True):
            image[0][(at, slice(None)) if label else (slice(None), at)] += 2
        return x, labels

    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 2))
    x, labels = bars(300)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(Tensor(x)), labels).backward()
        optimizer.step()
    x, labels = bars(500)
    minidl.onnx.export(model, x[:2], tmp_path / "net.onnx")
    (theirs,) = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"input": x})
    ours = model.eval()(Tensor(x)).detach().numpy()
    assert np.array_equal(theirs.argmax(1), ours.argmax(1))
    assert (ours.argmax(1) == labels).mean() > 0.95


def graph(nodes, weights=(), opset=18):
    put = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    made = helper.make_graph(nodes, "g", [put], [out], list(weights))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def node(op, inputs="x", outputs="y", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def external(location, **more):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return graph([node("Add", "x w")], [tensor])


@pytest.mark.parametrize(
    "proto, words",
    [
        (graph([node("Relu")], opset=6), r"opset must be from 7 to 28, got \[6\]"),
        (graph([node("Relu")], opset=99), r"got \[99\]"),
        (graph([node("Loop")]), "operator Loop is not known"),
        (graph([node("Relu", domain="com.example")]), "operator com.example.Relu"),
        (graph([node("Relu", slope=2)]), "Relu: attribute slope is not known"),
        (graph([node("Relu", "z"), node("Relu", "y", "z")]), "'z' is made by no node before it"),
        (graph([node("Relu", "x", "z")]), "output 'y' is made by no node"),
        (
            graph([node("Add", "x w")], [TensorProto(name="w", data_type=1, dims=[9, 9], raw_data=b"1234")]),
            r"'w' of shape \[9, 9\]",
        ),
        (graph([node("Add", "x w")], [TensorProto(name="w", data_type=1, dims=[2**40], raw_data=b"1234")]), "can't be read"),
        (external("../w.bin"), "must lie in the folder"),
        (external("/etc/passwd"), "must lie in the folder"),
        (external("link/w.bin"), "must lie in the folder"),
        (external("none.bin"), "no file 'none.bin'"),
        (external("w.bin", offset=8), r"takes 16 bytes, got 16 at 8 of a file of 16"),
        (external("w.bin", length=4), r"takes 16 bytes, got 4 at 0"),
        (external("w.bin", offset="x"), "invalid literal"),
    ],
)
def test_bad_files_are_refused(proto, words, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path)
    (folder / "f.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(OnnxError, match=words):
        minidl.onnx.load(folder / "f.onnx")


@pytest.mark.parametrize("sizes", [[2**40], [2**14, 2**15], [2**27, 1], [-5]])
def test_shapes_alone_take_bounded_memory(sizes):
    """One too large, and two of the half."""
    shape = helper.make_tensor("s", TensorProto.INT64, [len(sizes)], sizes)
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])
    nodes = [node("ConstantOfShape", "s", f"w{i}", value=value) for i in range(3)] + [node("Relu")]
    with pytest.raises(OnnxError, match=r"ConstantOfShape: (a shape|shapes|sizes)"):
        from_proto(graph(nodes, [shape]))


def test_names_that_are_no_text_are_refused(tmp_path):
    """Protobuf hands them over as bytes. Each in turn: a domain, an operator, an input, an attribute, an output, a weight."""
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "WWWW")
    whole = graph([node("NNNN", "x WWWW IIII", "y", AAAA=1, domain="DDDD")], [weight]).SerializeToString()
    for name in (b"NNNN", b"WWWW", b"IIII", b"AAAA", b"DDDD"):
        (tmp_path / "f.onnx").write_bytes(whole.replace(name, b"\xff\xfe\xff\xfe"))
        with pytest.raises(OnnxError, match=r"names must be text|must be an ONNX file"):
            minidl.onnx.load(tmp_path / "f.onnx")


@pytest.mark.parametrize(
    ("operator", "numbers"),
    [("Tile", [2**20, 2**20]), ("Pad", [0, 0, 2**40, 0]), ("Expand", [2**20, 2**20, 2, 2]), ("Tile", [2**20, 2**9])],
)
def test_outputs_that_a_files_numbers_make_large_are_refused(operator, numbers):
    """Before their memory is asked for."""
    model = from_proto(graph([node(operator, "x s")], [helper.make_tensor("s", TensorProto.INT64, [len(numbers)], numbers)]))
    with pytest.raises(OnnxError, match=rf"{operator}: a shape by itself may ask for at most 268435456 elements"):
        model(np.ones((2, 2), np.float32))


@pytest.mark.parametrize("content", [b"", b"no ONNX file", b"\x08"])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    (tmp_path / "f.onnx").write_bytes(content)
    with pytest.raises(OnnxError, match="must be an ONNX file"):
        minidl.onnx.load(tmp_path / "f.onnx")


def test_every_truncation_of_a_file_is_refused(tmp_path):
    minidl.onnx.export(nn.Linear(2, 2), np.ones((1, 2), np.float32), tmp_path / "f.onnx")
    whole = (tmp_path / "f.onnx").read_bytes()
    for n in range(len(whole)):
        (tmp_path / "f.onnx").write_bytes(whole[:n])
        with pytest.raises(OnnxError):
            minidl.onnx.load(tmp_path / "f.onnx")(np.ones((1, 2), np.float32))


def test_inputs_that_do_not_fit_name_the_operator():
    model = from_proto(graph([node("MatMul", "x x")]))
    with pytest.raises(OnnxError, match=r"MatMul: matmul: x has 3 columns"):
        model(np.ones((2, 3), np.float32))
    with pytest.raises(OnnxError, match=r"1 inputs are needed \(\['x'\]\), got 2"):
        model(1.0, 2.0)


def test_files_with_changed_bytes_are_read_or_refused(tmp_path):
    """Never another error."""
    minidl.onnx.export(small_net(), images(1), tmp_path / "f.onnx")
    whole = (tmp_path / "f.onnx").read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for at in rng.integers(len(content), size=3):
            content[at] = rng.integers(256)
        (tmp_path / "f.onnx").write_bytes(content)
        try:
            with np.errstate(all="ignore"):
                minidl.onnx.load(tmp_path / "f.onnx")(images(1))
        except OnnxError:
            refused += 1
    assert 0 < refused < 300
