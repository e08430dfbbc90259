"""Every number answers: the page has minidl's numbers, and the terms that it writes out add up to them. In Chromium."""

import os

import numpy as np
import pytest

import minidl
from minidl import Function, nn

pytestmark = pytest.mark.browser

ASKED = int(os.environ.get("MINIDL_ASKED", "20"))  # numbers of each array; 200 takes ten times as long

# Of arrays by number: how many elements, and two sums of their bits as integers, one weighted with the place, modulo 2^32.
BITS = """async (numbers) => {
  await Tensors.load(numbers);
  return numbers.map((n) => {
    const words = new Uint32Array(Tensors.get(n).buffer);
    let sum = 0, weighted = 0;
    words.forEach((word, i) => { sum = (sum + word) >>> 0; weighted = (weighted + Math.imul(word, i)) >>> 0; });
    return [words.length, sum, weighted];
  });
}"""

# Asks up to `count` numbers of every array of every op, by what `random` says.
ASK = """async ([count, seed]) => {
  const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, answers = [];
  for (const op of step.ops) {
    const slots = ["y", ...op.inputs.map((_, i) => `x${i}`), ...(op.arriving ? ["gy"] : []),
      ...op.leaving.flatMap((g, i) => g ? [`g${i}`] : [])];
    for (const slot of slots) {
      const { shape, values } = Layers.blob(op, slot), size = Index.size(shape);
      for (let k = 0; k < Math.min(count, size); k++) {
        const place = size <= count ? k : Math.floor(random() * size);
        const { kind, value, sum, agrees, digits } = await Why.explain({ op, slot, index: Index.of(shape, place) });
        answers.push({ op: op.op, slot, values, place, kind, value, sum, agrees, digits });
      }
    }
  }
  return answers;
}"""


def bits(flat):
    """As BITS has it."""
    words, places = flat.view("u4"), np.arange(flat.size, dtype="u4")
    return [words.size, int(words.sum(dtype="u4")), int((words * places).sum(dtype="u4"))]


def numbers_are_minidl_s(window, values):
    """Stored arrays and those that have a recipe, to the bit."""
    whole = ("stored", "forward", "backward", "add")
    there = [i for i, entry in enumerate(values.entries) if entry.array is not None and entry.how["how"] in whole]
    for i, found in zip(there, window.evaluate(BITS, there), strict=True):
        assert found == bits(values.entries[i].array), f"array {i}: {values.entries[i].how}"
    return there


def terms_add_up(answers, values):
    """Each answer's sum is the number that it shows, which is minidl's; returns how many of each kind there were."""
    kinds = {}
    for answer in answers:
        kinds[answer["kind"]] = kinds.get(answer["kind"], 0) + 1
        entry = values.entries[answer["values"]]
        if entry.array is not None:
            close = entry.how.get("worst", 0.0) * 1.01
            assert abs(answer["value"] - float(entry.array[answer["place"]])) <= close, answer
        if answer["kind"] in ("terms", "added"):
            assert answer["agrees"], answer
            value, total = (f"{answer[name] + 0.0:.{answer['digits'] - 1}e}" for name in ("value", "sum"))
            assert value == total, answer
    return kinds


# ------------------------------------------------------------------------------------------------------- small networks


class Odd(nn.Module):
    """What AlexNet has not: uneven strides and padding, dilation, groups, even windows, several rows, a number used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
        self.norm = nn.LocalResponseNorm(4, alpha=0.3, k=1.5)
        self.pool = nn.MaxPool2d(3, 2, padding=1, dilation=2, ceil_mode=True)
        self.linear = nn.Linear(6, 3, bias=False)
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)))
        rows = self.linear(x.permute(0, 2, 3, 1).reshape(-1, 6))
        twice = self.drop(rows.relu())
        return (minidl.cat([twice, rows], 1) * 0.5).reshape(1, -1)


@pytest.fixture(scope="module")
def odd(explored):
    minidl.manual_seed(1)
    return explored(Odd(), np.random.default_rng(2).normal(size=(1, 4, 9, 10)).astype(np.float32))


def test_the_small_network_s_numbers(open_page, small):
    there = numbers_are_minidl_s(open_page(small.folder), small.values)
    assert {small.values.entries[i].how["how"] for i in there} == {"stored", "forward", "backward", "add"}


def test_the_small_network_s_terms(open_page, small):
    kinds = terms_add_up(open_page(small.folder).evaluate(ASK, [ASKED, 3]), small.values)
    assert set(kinds) == {"terms", "added", "leaf"} and kinds["terms"] > 1000


def test_other_settings_numbers_and_terms(open_page, odd):
    window = open_page(odd.folder)
    numbers_are_minidl_s(window, odd.values)
    answers = window.evaluate(ASK, [ASKED, 4])
    kinds = terms_add_up(answers, odd.values)
    assert set(kinds) == {"terms", "added", "leaf"}
    assert {answer["op"] for answer in answers} >= {"conv2d", "linear", "relu", "dropout", "cat", "mul", "permute", "reshape"}


# Nudges up to `count` numbers of each output and parameter.
PROVE = """async ([count, seed]) => {
  const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, found = [];
  for (const op of step.ops) {
    for (const slot of ["y", ...op.inputs.map((_, i) => `x${i}`)]) {
      const { shape } = Layers.blob(op, slot), size = Index.size(shape);
      for (let k = 0; k < count; k++) {
        const ref = { op, slot, index: Index.of(shape, Math.floor(random() * size)) };
        if (!Why.canBeNudged(ref)) continue;
        found.push({ name: Ops.number(ref), ...await Why.proof(ref) });
      }
    }
  }
  return found;
}"""


@pytest.mark.parametrize("network", ["small", "odd"])
def test_a_nudge_finds_the_gradient(open_page, network, request):
    """Numeric slopes in float64, of float32 data: gradients were rounded 2^-24 a few times, and so were the loss's."""
    found = open_page(request.getfixturevalue(network).folder).evaluate(PROVE, [6, 5])
    largest = max(abs(proof["analytic"]) for proof in found)

    def differs(proof):
        sides = [proof["up"], proof["down"]] if proof["kink"] else [proof["numeric"]]
        off = min(abs(slope - proof["analytic"]) for slope in sides)
        return off > 1e-5 * max(abs(proof["analytic"]), largest / 100)

    wrong = [proof for proof in found if differs(proof)]
    assert len(found) > 100
    assert not wrong, str(wrong[0])


class CubeFunction(Function):
    """The third power."""

    name = "cube"

    def forward(ctx, x):
        ctx.save(x)
        return x * x * x

    def backward(ctx, gy):
        (x,) = ctx.saved
        return (3 * gy * x * x,)


class Imposter(CubeFunction):
    """An op of one's own with the name of minidl's."""

    name = "relu"


class Cube(nn.Module):
    def __init__(self, op):
        super().__init__()
        self.op = op
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.op.apply(x * 2.0))


@pytest.mark.parametrize("op", [CubeFunction, Imposter])
def test_an_op_of_one_s_own_has_no_terms_and_no_wrong_ones(open_page, explored, op):
    page = explored(Cube(op), np.ones((1, 4), np.float32), 1)
    number = next(i for i, o in enumerate(page.data["ops"]) if o["op"] == op.name)
    window = open_page(page.folder)
    assert window.evaluate(f"Why.explain(Why.parse('{number}.y.0.2')).then((answer) => answer.kind)") == "unknown"
    window.evaluate(f"Ask.ask(Why.parse('{number}.y.0.2'))")
    window.wait_for_selector("#why .unknown")
    assert "terms are not written out" in window.locator("#why .unknown").inner_text()


# ------------------------------------------------------------------------------------------------------ the full AlexNet


def test_alexnet_s_numbers(open_page, full_alexnet):
    """Every activation, gradient and weight of a convolution that the page has or computes is minidl's to the bit."""
    there = numbers_are_minidl_s(open_page(full_alexnet.folder), full_alexnet.values)
    assert sum(full_alexnet.values.entries[i].array.size for i in there) > 5_000_000


def test_alexnet_s_terms(open_page, full_alexnet):
    kinds = terms_add_up(open_page(full_alexnet.folder).evaluate(ASK, [ASKED, 6]), full_alexnet.values)
    assert set(kinds) == {"terms", "added", "leaf"}
