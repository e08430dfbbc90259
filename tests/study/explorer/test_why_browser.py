"""Every number answers: the page has minidl's numbers, and the terms that it writes out add up to them. In Chromium."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from study_nets import Odd

import minidl
from minidl import Function, nn
from minidl.study.step.terms import terms
from minidl.study.step.why import Step

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
      ...op.leaving.flatMap((g, i) => g ? [`g${i}`] : []), ...(step.of_batch?.uses[0][0] === op.number ? ["d0"] : [])];
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
    exact = [entry.how["how"] in whole and "worst" not in entry.how for entry in values.entries]
    there = [i for i, entry in enumerate(values.entries) if entry.array is not None and exact[i]]
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


# Of up to `count` numbers that each op made: where they are, the terms as [[value, [[slot, index, value]]]], and what is said.
TERMS = """async ([count, seed]) => {
  const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, found = [];
  const written = ({ value, parts }) => [value, parts.map((part) => [part.slot, part.index, part.value])];
  for (const op of step.ops) {
    for (const slot of ["y", ...op.leaving.flatMap((g, i) => g && !g.extra ? [`g${i}`] : [])]) {
      const { shape } = Layers.blob(op, slot), size = Index.size(shape);
      for (let k = 0; k < Math.min(count, size); k++) {
        const ref = { op, slot, index: Index.of(shape, Math.floor(random() * size)) };
        await Why.load(ref);
        const { terms, sum, bound, rectified, digits } = Why.explained(ref);
        const said = { sum, bound, rectified: Boolean(rectified), digits };
        found.push([op.number, slot, ref.index, terms ? terms.map(written) : null, said]);
      }
    }
  }
  return found;
}"""


def by_place(written):
    return sorted(written, key=lambda term: (term[0], term[1]))


def terms_are_python_s(found, ops):
    """Each term, its factors and their places, the sum and what is said of it are minidl.study.step.terms'.

    Products of two float32 are exact in float64; powers and exponentials differ in a last bit or two. Returns the kinds of op.
    """
    kinds = set()
    for number, slot, index, written, said in found:
        python = terms(ops[number], slot, index)
        assert (written is None) == (python is None), (ops[number].op, slot)
        if python is None:
            continue
        kinds.add((ops[number].op, slot[0]))
        own = [[term.value, [[f.slot, list(f.index), f.value] for f in term.factors]] for term in python.terms]
        assert len(own) == len(written), (ops[number].op, slot, index)
        for (a, factors), (b, others) in zip(by_place(own), by_place(written), strict=True):
            assert b == pytest.approx(a, rel=1e-13, abs=1e-300) and factors == others, (ops[number].op, slot, index)
        value = float(ops[number].array(slot)[tuple(index)])
        assert said["rectified"] == python.rectified and said["bound"] == pytest.approx(python.bound, rel=1e-9)
        assert said["sum"] == pytest.approx(python.sum, rel=1e-9, abs=1e-12) and said["digits"] == python.digits(value)
    return kinds


@pytest.mark.parametrize("network", ["small", "odd"])
def test_the_terms_are_python_s(open_page, network, request):
    page = request.getfixturevalue(network)
    kinds = terms_are_python_s(open_page(page.folder).evaluate(TERMS, [8, 7]), page.recorded.ops)
    assert {op for op, _ in kinds} == {op["op"] for op in page.data["ops"]}
    assert {"y", "g"} == {slot for _, slot in kinds}


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


# Of answers about outputs: each factor's slope, and the same numerically, by moving the op's input a little.
SLOPES = """async ([count, seed]) => {
  const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, found = [];
  for (const op of step.ops) {
    for (let k = 0; k < count; k++) {
      const size = Index.size(op.output.shape), index = Index.of(op.output.shape, Math.floor(random() * size));
      const answer = await Why.explain({ op, slot: "y", index });
      if (answer.rectified && answer.value === 0) continue; // the ReLU is off: a term's slope is that of the sum before it
      const parts = answer.terms.flatMap((term) => term.parts).filter((part) => part.slope !== null);
      const part = parts[Math.floor(random() * parts.length)];
      if (!part) continue;
      const i = Number(part.slot.slice(1)), eps = 1e-4 * Math.max(Math.abs(part.value), 1e-2);
      const [down, up] = [-eps, eps].map((by) => Layers.of(op).evaluate(op, index, i, part.index, part.value + by));
      if (up === null) continue;
      found.push({ name: `${Ops.number(answer.ref)} with ${part.slot}`, slope: Why.slope(answer, Why.origin({ op, ...part })),
        numeric: (up - down) / (2 * eps) });
    }
  }
  return found;
}"""


@pytest.mark.parametrize("network", ["small", "odd"])
def test_a_slope_is_how_a_number_grows_with_a_factor(open_page, network, request):
    found = open_page(request.getfixturevalue(network).folder).evaluate(SLOPES, [20, 9])
    wrong = [f for f in found if abs(f["slope"] - f["numeric"]) > 1e-5 * max(abs(f["slope"]), 1e-2)]
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


# ---------------------------------------------------------------------------------------------------------------- asking


def answered(window, ref):
    """The panel shows this number's answer."""
    window.wait_for_selector(f"#why[data-answered='{ref}']")
    return window.locator("#why")


def picture(window, slot):
    window.locator(f".picture[data-slot='{slot}']").scroll_into_view_if_needed()
    found = window.locator(f".picture[data-slot='{slot}'][data-drawn]")
    found.wait_for()
    return found


def conv1(small):
    """The number of tower 0's conv1."""
    return next(i for i, op in enumerate(small.data["ops"]) if op["layer"] == "tower0.conv1")


def middle_of(found, x, y):
    """Where element (x, y) of a picture is drawn."""
    box = found.bounding_box()
    width, height = (float(found.get_attribute(f"data-{side}")) for side in ("width", "height"))
    return {"x": (x + 0.5) * box["width"] / width, "y": (y + 0.5) * box["height"] / height}


def test_the_pointer_says_index_and_value_and_marks_the_patch(open_page, small):
    window, op = open_page(small.folder, "#conv1"), conv1(small)
    picture(window, f"{op}.x0")
    output = picture(window, f"{op}.y")
    output.hover(position=middle_of(output, 9 + 2, 3))  # map 1, which is to the right of map 0 and a gap
    said = output.locator("xpath=following-sibling::p").inner_text()
    value = small.values.entries[small.data["ops"][op]["output"]["values"]].array.reshape(1, 4, 8, 8)[0, 1, 3, 2]
    assert said.startswith("tower0.conv1.output[0, 1, 3, 2] = ")
    assert float(said.split("= ")[1].replace("\u2212", "-")) == pytest.approx(float(value), rel=1e-5, abs=1e-9)
    marked = """(slot) => {
      const marks = document.querySelector(`.picture[data-slot='${slot}'] .marks`);
      const pixels = marks.getContext("2d").getImageData(0, 0, marks.width, marks.height).data;
      let top = 1e9, bottom = -1;
      for (let p = 3; p < pixels.length; p += 4) if (pixels[p]) {
        const y = Math.floor(p / 4 / marks.width);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
      return [top / marks.height, bottom / marks.height];
    }"""
    window.mouse.move(0, 0)
    output.hover(position=middle_of(output, 9 + 2, 3))
    top, bottom = window.evaluate(marked, f"{op}.x0")
    assert bottom > top >= 0  # the patch, in the input


def test_a_click_asks(open_page, small):
    window, op = open_page(small.folder, "#conv1"), conv1(small)
    output = picture(window, f"{op}.y")
    output.click(position=middle_of(output, 9 + 2, 3))
    panel = answered(window, f"{op}.y.0.1.3.2")
    text = panel.inner_text()
    assert "28 terms" in text and "max(0, sum)" in text and "tower0.conv1.output[0, 1, 3, 2]" in text
    assert panel.locator("[data-key=sum]").inner_text() == panel.locator(".answer").inner_text()
    assert window.evaluate("document.activeElement.id") == "why"
    window.locator("#why-close").click()
    panel.wait_for(state="hidden")
    assert "/why/" not in window.evaluate("location.hash")


def test_the_whole_way_by_keyboard(open_page, small):
    window, op = open_page(small.folder, "#conv1"), conv1(small)
    picture(window, f"{op}.y").focus()
    for key in ("ArrowRight", "ArrowDown", "PageDown", "Enter"):
        window.keyboard.press(key)
    panel = answered(window, f"{op}.y.0.1.1.1")
    assert panel.locator(".terms tbody tr").count() == 8
    panel.get_by_role("button", name="Show").focus()
    window.keyboard.press("Enter")
    assert panel.locator(".terms tbody tr").count() == 28
    panel.get_by_role("button", name="Nudge").focus()
    window.keyboard.press("Enter")
    window.wait_for_selector("#why .analytic")
    window.keyboard.press("Escape")
    window.wait_for_selector("#why", state="hidden")


def test_a_tap_asks(open_page, small):
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    window, op = open_page(small.folder, "#conv1/backward", **phone), conv1(small)
    weights = picture(window, f"{op}.g1")
    weights.tap(position=middle_of(weights, 1, 2))
    panel = answered(window, f"{op}.g1.0.0.2.1")
    assert panel.bounding_box()["width"] == 390
    assert window.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    assert window.evaluate("byId('why').scrollWidth - byId('why').clientWidth") == 0


# Of an answer: a factor among its first terms that is a number further down, and the slope to it; null at the image.
NEXT = """(words) => {
  const answer = Why.explained(Why.parse(words));
  if (answer.kind === "leaf") return null;
  const size = (term) => Math.abs(term.value);
  const parts = answer.terms.toSorted((a, b) => size(b) - size(a)).slice(0, 8).flatMap((term) => term.parts);
  const next = parts.map(Why.beyond).find((ref) => ref.slot === "y" || ref.slot === "x0");
  return [Why.text(next), Why.slope(answer, next)];
}"""


def test_a_path_from_a_score_to_a_pixel(open_page, small):
    """Each step is a link; the product of the slopes is by how much the score grows with the pixel on that path."""
    last = next(i for i, op in enumerate(small.data["ops"]) if op["layer"] == "fc3")
    refs, product = [f"{last}.y.0.1"], 1.0
    window = open_page(small.folder, f"#fc3/forward/{last}/why/{refs[0]}")
    panel = answered(window, refs[0])
    while (found := window.evaluate(NEXT, refs[-1])) is not None:
        refs.append(found[0])
        product *= found[1]
        panel.locator(f".terms a[href$='/{found[0]}']").first.click()
        answered(window, found[0])
    assert len(refs) >= 5 and refs[-1].split(".")[1] == "x0"  # the image
    shown = panel.locator(".product").inner_text().replace("\u2212", "-")
    assert float(shown) == pytest.approx(product, rel=1e-2)
    assert panel.locator(".trail li").count() == len(refs)
    address = window.url
    window.go_back()
    answered(window, refs[-2])
    again = open_page(small.folder, address.partition("index.html")[2])
    answered(again, refs[-1])
    assert again.locator(".trail li").count() == len(refs)
    assert again.locator(".product").inner_text().replace("\u2212", "-") == shown


def test_why_is_this_gradient_negative_in_four_clicks(open_page, small):
    """From the first page to the factor that is negative."""
    window, op = open_page(small.folder), conv1(small)
    window.locator('#view .network a[href="#conv1"]').first.click()
    window.locator(".direction a").nth(1).click()
    gradient = small.values.entries[small.data["ops"][op]["leaving"][1]["values"]].array.reshape(4, 3, 3, 3)
    o, c, u, v = (int(i) for i in np.argwhere(gradient < 0)[0])
    tile = f"Ask.figures.find((f) => f.op.number === {op} && f.slot === 'g1').arranged.place([{o}, {c}, {u}, {v}])"
    weights = picture(window, f"{op}.g1")
    weights.click(position=middle_of(weights, *window.evaluate(tile)))
    panel = answered(window, f"{op}.g1.{o}.{c}.{u}.{v}")
    assert panel.locator(".answer").inner_text().startswith("\u2212")
    first = panel.locator(".terms tbody tr").first
    negative = first.locator("a", has_text="\u2212").first if first.locator("i.below").count() else first.locator("a").first
    negative.click()
    window.wait_for_selector("#why .trail")


def test_why_is_this_pixel_s_gradient_negative_in_four_clicks(open_page, small):
    """From the first page: the image's gradient, the pixel, the tower that made it negative, the factor that did."""
    window, batch = open_page(small.folder), small.data["of_batch"]
    window.locator(".intro a").click()
    gradient = small.values.entries[batch["total"]["values"]].array.reshape(3, 10, 10)
    c, h, k = (int(i) for i in np.argwhere(gradient == gradient.min())[0])
    (op, _), *_ = batch["uses"]
    tile = f"Ask.figures.find((f) => f.op.number === {op} && f.slot === 'd0').arranged.place([0, {c}, {h}, {k}])"
    pixels = picture(window, f"{op}.d0")
    pixels.click(position=middle_of(pixels, *window.evaluate(tile)))
    panel = answered(window, f"{op}.d0.0.{c}.{h}.{k}")
    assert panel.locator(".answer").inner_text().startswith("\u2212") and "gradient of input[0, " in panel.inner_text()
    panel.locator(".terms tr", has=window.locator("i.below")).first.locator("a").click()
    window.wait_for_selector("#why .trail")
    towers = panel.inner_text()
    assert "sum of w" in towers or "\u03a3 w" in towers
    first = panel.locator(".terms tr", has=window.locator("i.below")).first
    first.locator("a", has_text="\u2212").first.click()
    panel.locator(".trail li").nth(2).wait_for()


def test_a_gradient_has_one_name_wherever_it_is_met(open_page, small):
    """What norm1 calls gx is conv1's gy."""
    op = conv1(small)
    window = open_page(small.folder, f"#norm1/backward/{op + 1}/why/{op + 1}.g0.0.1.2.3")
    panel = answered(window, f"{op + 1}.g0.0.1.2.3")
    assert panel.locator(".asked b").inner_text() == "gradient of tower0.conv1.output[0, 1, 2, 3]"
    assert "In the formulas of conv1, tower 0 it is called gy, in those of norm1, tower 0 gx." in panel.inner_text()
    shared = window.evaluate(f"Ops.number(Why.parse('{op + 2}.gy.0.1.2.3'))")
    assert shared == "gradient of tower0.pool1.output[0, 1, 2, 3]"
    assert "part of the gradient of tower0.pool1" in window.evaluate("Ops.number(Why.parse('8.g0.0.1.2.3'))")


def test_a_name_is_the_same_number_as_in_a_terminal(open_page, small):
    """All names and their places are Python's; each is found in the search, and a gradient of it where one came."""
    step = Step(SimpleNamespace(ops=small.recorded.ops[: len(small.data["ops"])]))  # the check of gradients comes after it
    names = {name: [[op.number, slot] for op, slot in places] for name, places in step.names.items()}
    window = open_page(small.folder)
    known = window.evaluate(
        "Object.fromEntries([...Names.known].map(([name, places]) => [name, places.map(({op, slot}) => [op.number, slot])]))"
    )
    assert known == names and "conv1.weight" in known and "tower1.fc2.output" in known
    finds = "([name]) => { const {ref, problem} = Names.find(name); return problem || Why.text(ref); }"
    assert window.evaluate(finds, ["conv1.weight[3,2,1,0]"]) == window.evaluate(
        f"Why.text(Why.origin(Why.parse('{conv1(small)}.x1.3.2.1.0')))"
    )
    assert window.evaluate(finds, ["gradient of conv1.weight[3, 2, 1, 0]"]) == f"{conv1(small)}.g1.3.2.1.0"
    for wrong, said in (
        ("conv1.weight[3,3,1,0]", "Index 1 of conv1.weight goes from 0 to 2; here it is 3."),
        ("conv1.weight[3]", "conv1.weight has 4 indices, its shape is 4\u00d73\u00d73\u00d73; here is 1."),
        ("conv9.weight[0]", "No number has the name conv9.weight."),
    ):
        assert said in window.evaluate(finds, [wrong])


def test_a_number_s_name_is_an_address_and_can_be_searched(open_page, small):
    window = open_page(small.folder, "#conv1.weight[3,2,1,0]")
    window.wait_for_selector("#why[data-answered]")
    assert "conv1.weight[3, 2, 1, 0]" in window.locator("#why .asked b").inner_text()
    window = open_page(small.folder)
    window.keyboard.press("/")
    window.locator("#find-text").fill("gradient of conv1.weight[3,2,1,9]")
    assert "goes from 0 to 2; here it is 9" in window.locator("#find-problem").inner_text()
    window.locator("#find-text").fill("gradient of conv1.weight[3,2,1,0]")
    window.locator("#find-list a").first.click()
    window.wait_for_selector("#why[data-answered]")
    assert window.locator("#why .asked b").inner_text() == "gradient of tower0.conv1.weight[3, 2, 1, 0]"


def test_a_path_does_not_stop_at_copies(open_page, small):
    """From fc2's first input to pool1 of its own tower, and from one of the other tower's through the exchange."""
    number = next(i for i, op in enumerate(small.data["ops"]) if op["layer"] == "tower0.fc2")
    window = open_page(small.folder)
    names = window.evaluate(f"[0, 127].map((k) => Ops.number(Why.beyond(Why.parse('{number}.x0.0.' + k))))")
    assert names == ["tower0.pool1.output[0, 0, 0, 0]", "tower1.pool1.output[0, 3, 3, 3]"]


def test_an_address_of_no_number_is_no_answer(open_page, small):
    for wrong in ("99.y.0", "3.y.0.99.0.0", "3.y.0.0", "3.z.0.0.0.0", "3.x9.0", "3.y.0.0.0.a", "3"):
        window = open_page(small.folder, f"#conv1/forward/3/why/{wrong}")
        assert not window.locator("#why").is_visible()
