"use strict";
// Asking: pictures that answer to the pointer, to touch and to keys, and the panel with the terms. `Ask`.

const Ask = (() => {
  const { number, short, whole, plural, percent, sizes, place } = Words;
  const FIRST = 8, MORE = 24; // terms that are shown, and how many more at a time
  let figures = []; // those on the page: {op, slot, blob, arranged, canvas, marks, scale}
  let trail = []; // refs, the last is the number that is asked

  // -------------------------------------------------------------------------------------------------------- addresses

  const directionOf = (ref) => Why.isGradient(ref) ? "backward" : "forward";
  function href(refs) {
    const last = refs.at(-1);
    return `#${Ops.stationOf[last.op.number].id}/${directionOf(last)}/${last.op.number}/why/${refs.map(Why.text).join("/")}`;
  }
  const parse = (words) => words.map(Why.parse);
  const ask = (ref) => { location.hash = href([Why.origin(ref)]); };
  const follow = (ref) => href([...trail, Why.beyond(ref)]);

  // --------------------------------------------------------------------------------------------------------- pictures

  // A picture that answers. `limit`: the end of its colours; `corner`: of a window into a matrix that did not come along.
  function picture(op, slot, blob, label, scale, corner = null) {
    const arranged = Picture.arrangement(blob.shape, blob.kind, corner);
    const canvas = el("canvas", { class: "numbers-drawn" }), marks = el("canvas", { class: "marks" });
    const said = el("p", { class: "said", "aria-live": "polite" });
    const holder = el("div", {
      class: "picture", tabindex: 0, role: "application", "aria-label": `${label}: arrow keys go from number to number, Enter asks why`,
      "data-width": arranged.width, "data-height": arranged.height, "data-slot": `${op.number}.${slot}`,
    }, canvas, marks);
    const figure = { op, slot, blob, arranged, canvas, marks, holder, said, scale, cursor: null };
    figure.drawn = inSight(holder).then(() => Tensors.load([blob.values, ...("window" in blob ? [blob.window] : []), ...needed(op, slot, blob)]))
      .then(idle).then(() => {
        figure.counts = Picture.draw(canvas, blob, arranged, scale);
        holder.dataset.drawn = "true";
        if (marked && marked.op === op) mark(marked.op, marked.slot, marked.index);
      });
    holder.addEventListener("pointermove", (event) => point(figure, pixel(figure, event)));
    holder.addEventListener("pointerleave", () => clear());
    holder.addEventListener("click", (event) => choose(figure, pixel(figure, event)));
    holder.addEventListener("keydown", (event) => onKey(figure, event));
    holder.addEventListener("focus", () => { if (holder.matches(":focus-visible")) point(figure, figure.cursor || [0, 0]); });
    figure.zoom = el("button", { type: "button", class: "zoom", onclick: () => Zoom.open(figure, figure.cursor && arranged.at(...figure.cursor)) },
      "Zoom", el("span", { class: "sr" }, `: ${label}`));
    figures.push(figure);
    return figure;
  }

  // An element is drawn when it is nearly in sight, and when nothing else is to be done: answers come first.
  const waiting = new Map();
  const observer = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    observer.unobserve(target);
    waiting.get(target)();
    waiting.delete(target);
  }), { rootMargin: "300px" });
  const inSight = (element) => new Promise((done) => {
    waiting.set(element, done);
    observer.observe(element);
  });
  const idle = () => new Promise((done) => { if (window.requestIdleCallback) requestIdleCallback(done, { timeout: 100 }); else setTimeout(done); });
  const drawRest = () => waiting.forEach((done) => done());

  // Of a gradient that is computed number by number, what it is computed from.
  const needed = (op, slot, blob) =>
    ["sums", "product"].includes(step.values[blob.values].how) ? Why.arrays(op) : [];

  function pixel({ canvas, arranged }, event) {
    const box = canvas.getBoundingClientRect();
    return [Math.floor((event.clientX - box.left) / box.width * arranged.width), Math.floor((event.clientY - box.top) / box.height * arranged.height)];
  }

  function indexAt(figure, [x, y]) {
    const { arranged } = figure;
    if (x < 0 || y < 0 || x >= arranged.width || y >= arranged.height) return null;
    const index = arranged.at(x, y);
    if (!index || !arranged.inRgb) return index;
    // Of a coloured pixel the channel that is farthest from 0.
    const channels = [0, 1, 2].map((c) => [index[0], c, ...index.slice(2)]);
    return channels.reduce((a, b) => Math.abs(Tensors.at(figure.blob, b)) > Math.abs(Tensors.at(figure.blob, a)) ? b : a);
  }

  function point(figure, at) {
    const index = indexAt(figure, at);
    if (!index || !figure.holder.dataset.drawn) return;
    figure.cursor = at;
    figure.said.textContent = `${Ops.number({ op: figure.op, slot: figure.slot, index })} = ${number(Tensors.at(figure.blob, index), 6)}`;
    mark(figure.op, figure.slot, index);
  }

  function choose(figure, at) {
    const index = indexAt(figure, at);
    if (index) ask({ op: figure.op, slot: figure.slot, index });
  }

  const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  function onKey(figure, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { arranged } = figure, [x, y] = figure.cursor || [0, 0];
    if (event.key === "z") Zoom.open(figure, arranged.at(x, y));
    else if (event.key === "Enter" || event.key === " ") choose(figure, [x, y]);
    else if (event.key in STEPS || event.key === "PageDown" || event.key === "PageUp") {
      const by = event.key in STEPS ? STEPS[event.key] : [(event.key === "PageDown" ? 1 : -1) * (arranged.w + arranged.gap), 0];
      let to = [x + by[0], y + by[1]];
      if (!(event.key in STEPS)) { // the next map may be in another row of maps
        if (to[0] >= arranged.width) to = [to[0] % (arranged.w + 1), to[1] + arranged.h + 1];
        if (to[0] < 0) to = [arranged.width - arranged.w + x % (arranged.w + 1), to[1] - arranged.h - 1];
      } else if (!indexAt(figure, to)) to = [to[0] + by[0], to[1] + by[1]]; // over a gap
      point(figure, to);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ------------------------------------------------------------------------------------------------------------ marks

  let marked = null; // {op, slot, index}

  function clear() {
    marked = null;
    for (const { marks } of figures) marks.getContext("2d").clearRect(0, 0, marks.width, marks.height);
  }

  // The number itself, the same unit in the other direction, what it was made of, and what it reaches.
  function mark(op, slot, index) {
    clear();
    marked = { op, slot, index };
    const layer = Layers.of(op), forward = { y: "y", gy: "y" }[slot] || slot.replace(/[gd]/, "x"), rank = forward === "y" ? null : Number(forward.slice(1));
    const both = (name) => name === "y" ? ["y", "gy"] : [name, name.replace("x", "g")];
    for (const name of both(forward)) outline(op, name, index, index, "self");
    if (!layer) return;
    if (rank === null) {
      for (const { slot: source, low, high } of layer.from(op, index)) for (const name of both(source)) outline(op, name, low, high, "other");
    } else {
      for (const [low, high] of bounds(layer.reach(op, rank, index))) for (const name of both("y")) outline(op, name, low, high, "other");
    }
  }

  // Outputs as boxes: one for each map.
  function bounds(outputs) {
    const boxes = new Map();
    for (const out of outputs) {
      const key = out.length > 2 ? out.slice(0, -2).join() : "all";
      const box = boxes.get(key);
      if (!box) boxes.set(key, [out.slice(), out.slice()]);
      else out.forEach((i, axis) => { box[0][axis] = Math.min(box[0][axis], i); box[1][axis] = Math.max(box[1][axis], i); });
    }
    return [...boxes.values()];
  }

  function outline(op, slot, low, high, which) {
    for (const figure of figures) {
      if (figure.op !== op || figure.slot !== slot || !figure.holder.dataset.drawn) continue;
      const { arranged, marks, canvas, blob } = figure, ratio = devicePixelRatio || 1;
      const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
      if (marks.width !== width || marks.height !== height) Object.assign(marks, { width, height });
      const context = marks.getContext("2d"), fx = width / arranged.width, fy = height / arranged.height;
      const style = getComputedStyle(document.documentElement);
      const strokes = [["#000", which === "self" ? 5 : 4], [which === "self" ? "#fff" : style.getPropertyValue("--mark"), 2]];
      const boxes = rectangles(blob.shape, arranged, low, high).map(([[x1, y1], [x2, y2]]) => [x1 * fx, y1 * fy, (x2 - x1 + 1) * fx, (y2 - y1 + 1) * fy]);
      for (const [colour, thick] of strokes) {
        context.strokeStyle = colour;
        context.lineWidth = thick * ratio / 1.5;
        for (const [x, y, w, h] of boxes) context.strokeRect(x, y, w, h);
      }
    }
  }

  // A box of indices in a picture: its corners in each map, cut at the map's border; of a vector the places one by one.
  function rectangles(shape, arranged, low, high) {
    if (shape.length < 3 && arranged.gap === 0) {
      if (shape.length === 2 && Math.min(...shape) > 1) {
        const corners = [[low[0], low[1]], [high[0], Math.min(high[1], shape[1] - 1)]].map((index) => arranged.place(index));
        return corners[0] ? [[corners[0], corners[1] || [arranged.width - 1, corners[0][1]]]] : [];
      }
      const found = [], first = Index.flat(shape, low), last = Index.flat(shape, high);
      if (last - first > 64) return [];
      for (let p = first; p <= last; p++) {
        const at = arranged.place(Index.of(shape, p));
        if (at) found.push([at, at]);
      }
      return found;
    }
    const found = [], clip = (i, n) => Math.max(0, Math.min(n - 1, i)), [H, W] = shape.slice(-2);
    const a = [clip(low.at(-2), H), clip(low.at(-1), W)], b = [clip(high.at(-2), H), clip(high.at(-1), W)];
    const lead = (prefix, axis) => {
      if (axis === shape.length - 2) {
        const from = arranged.place([...prefix, ...a]), to = arranged.place([...prefix, ...b]);
        if (from && to) found.push([from, to]);
        return;
      }
      for (let i = low[axis]; i <= high[axis]; i++) lead([...prefix, i], axis + 1);
    };
    lead([], 0);
    return found;
  }

  // ------------------------------------------------------------------------------------------------------------ panel

  const panel = () => byId("why");

  async function show(refs) {
    trail = refs;
    panel().hidden = refs.length === 0;
    document.documentElement.classList.toggle("asking", refs.length > 0);
    if (!refs.length) return;
    const answers = [];
    for (const ref of refs) answers.push(await Why.explain(ref));
    if (trail !== refs) return; // asked again meanwhile
    byId("why-content").replaceChildren(...content(answers).filter(Boolean));
    reachable(panel());
    panel().dataset.answered = Why.text(answers.at(-1).ref);
    panel().scrollTop = 0;
    remark();
  }

  const figureOf = ({ op, slot }) => figures.find((figure) => figure.op === op && figure.slot === slot);

  // Marks the number that is asked in the pictures that there are.
  function remark() {
    const last = trail.length ? Why.origin(trail.at(-1)) : null;
    if (!last) return;
    const figure = figureOf(last), at = figure && figure.arranged.place(last.index);
    if (at) figure.cursor = at;
    mark(last.op, last.slot, last.index);
  }

  // The picture that a number is in, where the page has one now.
  const pictureOf = (ref) => figureOf(Why.origin(ref))?.holder || null;

  // Scrolls to the picture of the number that is asked; where it is higher than there is room, to the number in it.
  function bringIntoSight() {
    const figure = trail.length ? figureOf(Why.origin(trail.at(-1))) : null;
    if (!figure) return;
    const box = figure.holder.getBoundingClientRect(), answer = panel().getBoundingClientRect(), margin = 16;
    const top = byId("content").offsetTop + margin, bottom = (answer.left > 0 ? innerHeight : answer.top) - margin;
    if (box.top >= top && box.bottom <= bottom) return;
    const at = figure.cursor ? box.top + box.height * figure.cursor[1] / figure.arranged.height : box.top;
    scrollBy(0, box.height <= bottom - top ? box.top - top : at - (top + bottom) / 2);
  }

  const close = () => { location.hash = location.hash.split("/why/")[0]; };

  function content(answers) {
    const answer = answers.at(-1), { ref } = answer, digits = answer.digits || 6;
    return [
      path(answers),
      el("p", { class: "asked" }, el("b", {}, Ops.number(ref)),
        answer.value === null && !Tensors.carries(Why.blobOf(ref), ref.index) ? null : [" = ", el("output", { class: "answer" }, number(answer.value, digits, true))]),
      aliases(ref),
      ...explanation(answer),
      neighbours(ref),
      proofPart(answer),
    ];
  }

  // The layer that made a number calls its gradient gy, and the one that used it gx.
  function aliases(ref) {
    const unit = Why.unit(ref), from = Why.isGradient(ref) && unit.slot === "y" ? Why.givers(unit.op) : [];
    if (from.length !== 1) return null;
    const [[user, i]] = from;
    return el("p", { class: "muted small" }, `In the formulas of ${Ops.title(unit.op)} it is called gy, in those of ${Ops.title(user)} ${Ops.slot(user, `g${i}`)}.`);
  }

  // The trail, with the slopes along it and their product.
  function path(answers) {
    if (answers.length < 2) return null;
    const slopes = answers.slice(1).map((next, i) => Why.slope(answers[i], next.ref));
    const product = slopes.reduce((a, b) => a === null || b === null ? null : a * b, 1);
    return el("details", { class: "trail", open: true },
      el("summary", {}, `Path of ${answers.length} numbers`,
        product === null ? "" : [", slopes' product ", el("b", { class: "product" }, number(product, 5))]),
      el("ol", {}, answers.map(({ ref, value }, i) => el("li", {},
        i ? el("span", { class: "muted" }, slopes[i - 1] === null ? "not one factor: " : `slope ${number(slopes[i - 1], 5)}: `) : null,
        el("a", { href: href(answers.slice(0, i + 1).map((a) => a.ref)) }, Ops.number(ref)), ` = ${number(value, 5)}`))),
      el("p", { class: "muted small" }, "The product says by how much the first number grows for each unit of the last, on this path alone."));
  }

  const LEAVES = {
    input: "It is a number that the network was given. Nothing in the step made it.",
    parameter: "It is a parameter: this step reads it and computes its gradient; the optimizer would change it afterwards.",
    seed: "Backward begins here: the loss grows by 1 for each unit of itself.",
    alone: "It is shown alone: how it was made was not watched.",
  };

  function explanation(answer) {
    if (answer.value === null && !Tensors.carries(Why.blobOf(answer.ref), answer.ref.index)) return [el("p", { class: "unknown" }, Names.missing(answer.ref))];
    if (answer.kind === "leaf") return [el("p", {}, LEAVES[answer.what])];
    if (answer.kind === "unknown") {
      const without = `The page was made without ${answer.missing.join(", ")}; with --full it has all.`;
      const why = step.partial ? `The view is of ${step.partial} alone.` : answer.missing.length ? without : "";
      return [el("p", { class: "unknown" }, `This op's terms are not written out. ${why}`)];
    }
    const { terms, rest, count, sum, before, digits, side, rectified, over } = answer;
    const sorted = terms.toSorted((a, b) => Math.abs(b.value) - Math.abs(a.value));
    return [
      el("div", { class: "formula-asked" }, Formulas.element(answer.formula), el("p", { class: "mono" }, answer.formula)),
      el("p", { class: "muted small" }, `${plural(count, "term")}${over ? `: ${over}` : ""}.${count > 1 ? " The largest first." : ""}`),
      table(sorted, rest, digits),
      el("dl", { class: "totals" },
        rectified ? line("sum", number(before, digits, true)) : null,
        rectified ? line("max(0, sum)", number(sum, digits, true), "sum") : line("sum", number(sum, digits, true), "sum"),
        answer.isCarried ? line("minidl's number", number(answer.value, digits, true)) : null),
      el("p", { class: answer.agrees ? "muted small" : "bad small" }, agreementWords(answer)),
      ...answer.notes.map((note) => el("p", { class: "muted small" }, note)),
      side ? el("h3", {}, side.title) : null,
      side ? table(side.terms, null, 5, side.terms.length) : null,
      side && side.sum !== null ? el("dl", { class: "totals" }, line("d", number(side.sum, 6, true))) : null,
    ].filter(Boolean);
  }

  const line = (name, value, key) => el("div", {}, el("dt", {}, name), el("dd", { "data-key": key }, value));

  function agreementWords({ ref, digits, agrees, bound, value, sum, isCarried }) {
    const worst = Tensors.worst(Why.blobOf(ref));
    if (!isCarried) {
      return `Only the sum is known here: the page does not carry minidl's number, with --full it does.${worst === null ? "" : ` Over the whole array such sums differ from minidl's by ${number(worst, 2)} at most.`}`;
    }
    if (!agrees) return `They differ by ${number(value - sum, 3)}, more than float32's rounding explains (${number(bound, 2)}).`;
    return `Equal to ${plural(digits, "digit")}. The sum is in float64, minidl's in float32, which may differ by ${number(bound, 2)}.`;
  }

  function table(terms, rest, digits, first = FIRST) {
    const body = el("tbody", {}), largest = Math.max(...terms.map(({ value }) => Math.abs(value)), 1e-300);
    const foot = el("tfoot", {}), more = el("button", { type: "button" }, "");
    let shown = 0;
    const others = () => {
      const left = terms.slice(shown), sum = left.reduce((total, { value }) => total + value, 0) + (rest ? rest.value : 0);
      const count = left.length + (rest ? rest.count : 0);
      foot.replaceChildren(...(count ? [el("tr", {}, el("td", {}, `${whole(count)} others`), el("td", {}, number(sum, digits)), el("td", {}))] : []));
      more.hidden = !left.length;
      more.textContent = `Show ${Math.min(MORE, left.length)} more`;
    };
    const show = (n) => {
      body.append(...terms.slice(shown, shown + n).map((term) => row(term, digits, largest)));
      shown = Math.min(terms.length, shown + n);
      others();
    };
    more.addEventListener("click", () => show(MORE));
    show(first);
    const left = rest ? el("p", { class: "muted small" }, "The weights of the others are not in the page; Python added them up.") : null;
    return el("div", { class: "scroll terms-holder" }, el("table", { class: "terms" },
      el("thead", { class: "sr" }, el("tr", {}, ["term", "value", "size"].map((name) => el("th", { scope: "col" }, name)))), body, foot), more, left);
  }

  function row({ name, value, parts, times }, digits, largest) {
    const factors = parts.map((part) => el("a", { href: follow(part) },
      `${Ops.slot(part.op, part.slot).split(".").slice(-2).join(".")}${place(part.index)}`, el("span", { class: "muted" }, ` ${number(part.value, 5)}`)));
    const product = factors.flatMap((factor, i) => i ? [name && !times ? " " : " · ", factor] : [factor]);
    return el("tr", {},
      el("td", {}, name ? el("b", {}, `${name} `) : null, product, times ? el("span", { class: "muted" }, ` · ${times}`) : null),
      el("td", {}, number(value, digits)),
      el("td", { "aria-hidden": "true" }, el("i", { class: value < 0 ? "below" : "above", style: `width:${Math.max(2, 40 * Math.abs(value) / largest)}px` })));
  }

  // The same unit in the other direction, and where it goes. The value of the first comes when its array is there.
  function neighbours(ref) {
    const unit = Why.unit(ref), gradient = Why.gradient(ref), items = [];
    const other = (called, asked) => {
      const value = el("span", {}), blob = Why.blobOf(asked);
      Tensors.load([blob.values]).then(() => {
        if (Tensors.has(blob.values)) return;
        return Why.load(asked);
      }).then(() => {
        const found = Why.valueOf(asked), known = found !== null || Tensors.carries(blob, asked.index);
        value.textContent = known ? ` = ${number(found, 5)}` : ", which the page does not carry";
      });
      items.push([called, el("a", { href: follow(asked) }, Ops.number(asked)), value]);
    };
    if (Why.isGradient(ref)) other("Its number", unit);
    else if (gradient) other("Its gradient", gradient);
    else items.push(["Its gradient", "none came here: nothing before it is trained."]);
    for (const { op, outputs } of Why.reached(ref)) {
      if (!outputs.length) continue;
      const first = { op, slot: "y", index: outputs[0] }, last = { op, slot: "y", index: outputs.at(-1) };
      const links = [first, ...(outputs.length > 1 ? [last] : [])].map((out) => el("a", { href: href([out]) }, `y${place(out.index)}`));
      items.push(["It reaches", `${plural(outputs.length, "output")} of ${Ops.title(op)}: `, links[0], links.length > 1 ? [" to ", links[1]] : null]);
    }
    return el("ul", { class: "neighbours" }, items.map(([name, ...rest]) => el("li", {}, el("b", {}, `${name}: `), rest)));
  }

  // Numeric against analytic slope, when the button is pressed.
  function proofPart({ ref }) {
    if (!Why.canBeNudged(ref)) return null;
    const result = el("p", { class: "proof-result", role: "status" });
    const button = el("button", { type: "button", class: "prove", onclick: () => prove(ref, result) }, "Nudge it: is the gradient right?");
    return el("div", { class: "proof" }, button, result);
  }

  async function prove(ref, result) {
    const found = await Why.proof(ref), unit = Ops.number(Why.unit(ref));
    if (!found) {
      const checked = Why.reached(ref).flatMap(({ op }) => (op.about.proofs || []).map((proof) => Why.origin({ op, slot: `x${proof.input}`, index: proof.index })));
      result.replaceChildren("The page hasn't the weights that this needs; with --full it has.",
        ...(checked.length ? [" Of these Python nudged the inputs with the largest gradients: ",
          ...checked.flatMap((other, i) => [i ? ", " : "", el("a", { href: href([other]) }, place(other.index))])] : []));
      return;
    }
    const { numeric, analytic, eps, outputs, by, kink, up, down } = found, error = Math.abs(numeric - analytic) / Math.max(Math.abs(numeric), Math.abs(analytic), 1e-30);
    result.replaceChildren(
      `${unit} by ±${number(eps, 2)}${by === "python" ? ", in Python beforehand" : ""}: the loss changes by `, el("b", { class: "numeric" }, number(numeric, 6, true)),
      " for each unit (numeric). Backward says ", el("b", { class: "analytic" }, number(analytic, 6, true)), ` (analytic). Relative difference ${number(error, 2)}.`,
      kink ? el("b", {}, ` A kink lies here: ${number(up, 5)} upward, ${number(down, 5)} downward. Backward takes one side.`) : "",
      el("span", { class: "muted small" }, ` ${plural(outputs, "output")} that it reaches ${outputs === 1 ? "was" : "were"} computed again in float64, and weighted with ${outputs === 1 ? "its gradient" : "their gradients"}.`));
  }

  function drop(figure) {
    figures = figures.filter((other) => other !== figure);
    observer.unobserve(figure.holder);
    waiting.delete(figure.holder);
  }

  function forget() {
    figures = [];
    observer.disconnect();
    waiting.clear();
  }

  return { picture, idle, drawRest, remark, pictureOf, bringIntoSight, drop, show, close, parse, ask, href, forget, clear, get figures() { return figures; } };
})();
