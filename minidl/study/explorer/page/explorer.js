"use strict";
// The explorer's page. The step is in #data (its form: `network` in minidl/study/explorer/explore.py).
// The address says what is shown: #overview, #conv2, #conv2/backward, #conv2/backward/10 (the op of that number), #im2col;
// #conv2/backward/10/g0 the picture of that op's array; and #conv2/forward/9/why/9.y.0.3.5.6 the number that is asked, or the path to
// it (why.js). A number's name is an address too: #conv2.weight[5,3,2,2] (names.js).
(() => {
  const { whole, bytes, plural, sizes, short, percent } = Words;
  const { stationOf, severalLanes, title: opTitle, place: placeName } = Ops;
  const view = byId("view"), extra = byId("extra");
  const hasIm2col = extra.childElementCount > 0;

  const eventOf = { forward: {}, backward: {} }; // direction, op -> place among the events
  step.events.forEach(([n, direction], i) => { eventOf[direction][n] = i; });
  const opsOf = (station) => station.ops.map((n) => step.ops[n]);

  let shown = { section: "overview", station: null, direction: "forward", event: -1, trail: [], look: null };
  let displayed = null; // what the page has of it: the answer to a question comes before the layer that it is about

  const onDevices = (lane) => severalLanes ? `${lane.name} on ${lane.devices.join(", ")}` : lane.devices.join(", ");

  const muted = (...text) => el("p", { class: "muted" }, text);
  const small = (...text) => el("p", { class: "muted small" }, text);
  const mono = (text, more = "") => el("span", { class: `mono ${more}` }, text);
  const sign = (text) => el("span", { class: "to", "aria-hidden": "true" }, text);
  const section = (title, ...children) => el("section", { "data-part": title.split(/[, ]/)[0] }, el("h2", {}, title), children);
  const breakable = (name) => name.split(/(?<=[_.])/).flatMap((part) => [part, el("wbr", {})]);
  const laneGrid = (more, ...cells) => el("div", { class: `lanes ${more}`, style: `--lanes:${step.lanes.length}` }, cells);
  const im2colLink = () => el("a", { href: "#im2col" }, "im2col, number by number");

  // Figures by name; those of both directions side by side. What is 0 is left out.
  const FACTS = [
    ["parameters", whole, "parameters"],
    ["neurons", whole, "neurons"],
    ["multiply-adds", whole, "macs_forward", "macs_backward"],
    ["new memory in outputs", bytes, "activation"],
    ["saved for backward", bytes, "saved"],
    ["between devices", bytes, "crosses_forward", "crosses_backward"],
  ];

  function facts(figures) {
    const words = (format, key, both) => el("span", { class: "whole" },
      el("span", { "data-figure": key }, format(figures[key])),
      both ? el("small", {}, key.endsWith("forward") ? " forward" : " backward") : null);
    const rows = FACTS.map(([name, format, ...keys]) => [name, format, keys.filter((key) => figures[key]), keys.length > 1]);
    return el("dl", { class: "facts" }, rows.filter(([, , present]) => present.length).map(([name, format, present, both]) =>
      el("div", {}, el("dt", {}, name),
        el("dd", {}, present.map((key, i) => [i ? ", " : null, words(format, key, both)])))));
  }

  // ---------------------------------------------------------------------------------------------------------- overview

  function overview() {
    return [
      el("h1", { tabindex: -1 }, `${step.model}, one step`),
      el("div", { class: "intro" },
        el("div", {},
          el("p", {}, wentThrough(),
            "What follows was recorded while the step ran: every shape, every byte, every picture and the lines of code."),
          step.notes.map((note) => muted(note)),
          lossText(step.loss)),
        el("figure", {}, step.image ? el("img", { alt: "The image that was given to the network", src: step.image.src }) : null, batchLink(), pixelLink())),
      facts(step.totals),
      section("Data flow",
        muted("Down: ", el("b", {}, "forward"), ", arrays. Up: ", el("b", {}, "backward"), ", gradients. ",
          "Each box is a layer and what it gives; choose one to look inside. Figures are for the one image."),
        networkHead(),
        el("ol", { class: "network" }, step.stations.map(networkRow))),
      hasIm2col
        ? el("p", {}, im2colLink(), ": how a convolution becomes a product of matrices, and the way back of its gradient.")
        : null,
    ];
  }

  const isWatched = () => step.loss?.op !== undefined; // a step of the user's own, for `minidl.study.show`

  function wentThrough() {
    if (!step.loss) return "";
    if (!isWatched()) return "One image went through the network, and the gradient of its loss came back. ";
    return `A batch of ${sizes(step.input)} went through the network, and the gradient of its loss came back. `;
  }

  function lossText(loss) {
    if (!loss) return null;
    const value = el("b", { "data-figure": "loss" }, loss.value === null ? "not finite" : short(loss.value));
    if (isWatched()) {
      const op = step.ops[loss.op];
      return el("p", {}, "The loss is ", el("a", { href: Ask.href([Why.origin({ op, slot: "y", index: op.output.shape.map(() => 0) })]) }, value), ".");
    }
    if (loss.label === null) {
      return el("p", {}, "The model's output is not one row of class scores, so the loss is the sum of the output times " +
        "fixed random numbers: ", value, ". Its gradients test every layer, but mean nothing else.");
    }
    const name = (c) => c.name || `class ${c.label}`;
    const favourites = loss.best.map((c) => `${name(c)} (${percent(c.probability, 1)})`).join(", ");
    return el("p", {}, `The loss is the cross-entropy of its scores with ${name(loss)}: `, value,
      ` = \u2212ln ${short(loss.probability)}. The network's favourites are ${favourites}.`);
  }

  // To what the model was given, where no picture of it is at hand.
  function batchLink() {
    if (step.image || !isWatched()) return null;
    const [op, slot] = step.ops.flatMap((op) => op.inputs.flatMap((x, i) => x.from === null && !x.parameter ? [[op.number, `x${i}`]] : []))[0] || [];
    return slot ? el("a", { class: "small", href: `#${stationOf[op].id}/forward/${op}/${slot}` }, "What the network was given") : null;
  }

  // To the gradient of what the model was given.
  function pixelLink() {
    const given = step.ops.flatMap((op) => op.inputs.flatMap((x, i) => x.from === null && !x.parameter && op.leaving[i] ? [[op.number, `g${i}`]] : []));
    const [op, slot] = step.of_batch ? [step.of_batch.uses[0][0], `d${step.of_batch.uses[0][1]}`] : given[0] || [];
    return slot ? el("a", { class: "small", href: `#${stationOf[op].id}/backward/${op}/${slot}` }, "Its gradient, pixel by pixel") : null;
  }

  const METERS = [["parameters", whole], ["macs_forward", whole], ["saved", bytes]];

  function networkHead() {
    const headings = ["parameters", "multiply-adds forward", "saved for backward"];
    return el("div", { class: "network-head", "aria-hidden": "true" },
      laneGrid("", step.lanes.map((lane) => el("span", {}, onDevices(lane)))),
      headings.map((name) => el("span", { class: "meter" }, name)));
  }

  function networkRow(station, i) {
    const lanes = [...step.lanes.keys()];
    const boxes = isCrossing(station)
      ? [crossingLink(station), lanes.map((lane) => el("span", { class: "mono muted after" }, laneShape(station, lane)))]
      : lanes.map((lane) => networkBox(station, lane));
    return el("li", {},
      laneGrid("", i ? lanes.map((lane) => wires(station, lane)) : null, boxes),
      METERS.map(([key, format]) => meter(station, key, format)));
  }

  const inLane = (station, lane) => opsOf(station).filter((op) => op.lane === lane);
  const lastOf = (station, lane) => inLane(station, lane).at(-1);
  const isCrossing = (station) => opsOf(station).some((op) => op.crossing.forward.length);
  const isBetween = (station) => !step.ops[station.ops[0]].is_layer;

  // The shape that a lane has after a station, without the axis of images.
  function laneShape(station, lane) {
    const last = lastOf(station, lane);
    return last ? sizes(last.output.shape.length > 1 ? last.output.shape.slice(1) : last.output.shape) : "";
  }

  function networkBox(station, lane) {
    const last = lastOf(station, lane);
    if (!last) return el("span", {});
    const where = severalLanes ? `, ${step.lanes[lane].name}` : "";
    const label = `${station.title}${where}: ${sizes(last.output.shape)}, ${bytes(last.output.bytes)}`;
    return el("a", { class: "box", href: `#${station.id}`, "aria-label": label },
      thumb(last), el("b", {}, breakable(station.title)), mono(laneShape(station, lane)));
  }

  // A small picture of an op's output, drawn when there is time.
  function thumb(op) {
    const canvas = el("canvas", { class: "blank", "aria-hidden": "true" });
    thumbs.push([op, canvas]);
    return canvas;
  }

  let thumbs = [], drawing = 0;
  async function drawThumbs() {
    const mine = ++drawing, all = thumbs;
    thumbs = [];
    for (const [op, canvas] of all) {
      await Tensors.load([op.output.values]);
      await Ask.idle();
      if (mine !== drawing || !canvas.isConnected) return;
      if (Tensors.has(op.output.values)) Picture.draw(canvas, op.output, Picture.arrangement(op.output.shape, "activation"), scaleOf(op, "y"));
    }
  }

  // The arrows above a box: one down, and one up where a gradient went back.
  function wires(station, lane) {
    if (!inLane(station, lane).length && !sourcesIn(station, lane).length) return el("span", {});
    const back = opsOf(station).some((op) => op.inputs.some((x, i) => !x.parameter && op.leaving[i] && !op.leaving[i].extra));
    return el("span", { class: "wires", "aria-hidden": "true" },
      el("i", { class: "wire" }), back ? el("i", { class: "wire up" }) : null);
  }

  function meter(station, key, format) {
    const value = station[key], most = Math.max(...step.stations.map((other) => other[key]));
    if (!value) return el("span", { class: "meter" });
    return el("span", { class: "meter" }, format(value), el("i", { style: `width:${Math.max(1, 100 * value / most)}%` }));
  }

  // -------------------------------------------------------------------------------------------- crossing between devices

  // Ops outside the station, in a lane, whose output the station uses.
  function sourcesIn(station, lane) {
    const from = opsOf(station).flatMap((op) => op.inputs.map((x) => x.from));
    const outside = [...new Set(from)].filter((n) => n !== null && !station.ops.includes(n));
    return outside.map((n) => step.ops[n]).filter((op) => op.lane === lane);
  }

  // Copies between devices as [{from, to, bytes}], from lane to lane.
  function crossings(station, direction) {
    const laneOn = (device) => step.lanes.findIndex((lane) => lane.devices.includes(device));
    const copies = opsOf(station).flatMap((op) => op.crossing[direction]);
    return copies.map((c) => ({ from: laneOn(c.from), to: laneOn(c.to), bytes: c.bytes }));
  }

  const total = (copies) => copies.reduce((sum, c) => sum + c.bytes, 0);

  // Does an op in the lane take what was in the lane before?
  function goesStraight(station, lane) {
    const own = (x) => x.from === null ? !x.parameter : !station.ops.includes(x.from) && step.ops[x.from].lane === lane;
    return inLane(station, lane).some((op) => !op.crossing.forward.length && op.inputs.some(own));
  }

  function crossingLink(station) {
    const forward = total(crossings(station, "forward")), backward = total(crossings(station, "backward"));
    const name = isBetween(station) ? station.title.split(" ")[0] : station.title;
    const label = `${station.title}: ${bytes(forward)} forward between devices, ${bytes(backward)} backward`;
    return el("a", { class: "crossing", href: `#${station.id}`, style: "grid-column:1/-1", "aria-label": label },
      el("span", { class: "drawing", "data-station": station.id, "data-direction": "both" }),
      el("span", { class: "caption" }, el("span", {}, `${name} ${bytes(forward)}${backward ? " each way" : ""}`)));
  }

  // Fills every .drawing, for the width that there is.
  function drawCrossings() {
    for (const holder of document.querySelectorAll(".drawing")) {
      const station = step.stations.find(({ id }) => id === holder.dataset.station);
      holder.replaceChildren(crossingDrawing(station, holder.dataset.direction, holder.clientWidth));
    }
  }

  // Arrows from lane to lane, straight ones too where the lane goes on. Both directions are drawn side by side.
  function crossingDrawing(station, direction, width) {
    const both = direction === "both", height = both ? 72 : 84, gap = 16, n = step.lanes.length;
    const center = (lane) => (width + gap) * (lane + 0.5) / n - gap / 2;
    const going = [...step.lanes.keys()].filter((lane) => goesStraight(station, lane));
    const straight = going.map((lane) => ({ from: lane, to: lane }));
    const backward = crossings(station, "backward"), shapes = [];
    if (direction !== "backward") {
      const shift = both ? -6 : 0;
      for (const { from, to } of [...straight, ...crossings(station, "forward")]) {
        shapes.push(arrow("f", center(from) + shift, 3, center(to) + shift, height - 3));
      }
    }
    if (direction !== "forward" && backward.length) {
      const shift = both ? 6 : 0;
      for (const { from, to } of [...straight, ...backward]) {
        shapes.push(arrow("b", center(from) + shift, height - 3, center(to) + shift, 3));
      }
    }
    return svg(width, height, shapes.join(""));
  }

  function arrow(hue, x1, y1, x2, y2) {
    const length = Math.hypot(x2 - x1, y2 - y1), ux = (x2 - x1) / length, uy = (y2 - y1) / length;
    const bx = x2 - 8 * ux, by = y2 - 8 * uy; // where the head begins
    const head = [[x2, y2], [bx - 4 * uy, by + 4 * ux], [bx + 4 * uy, by - 4 * ux]];
    const points = head.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
    return `<line class="${hue}" x1="${x1}" y1="${y1}" x2="${bx}" y2="${by}" stroke-width="2"/>` +
      `<polygon class="${hue}" points="${points}"/>`;
  }

  // The station's way from tower to tower in one direction: what is there before, the arrows with their bytes, what is after.
  function exchange(station, direction) {
    const copies = crossings(station, direction), lanes = [...step.lanes.keys()], forward = direction === "forward";
    if (!copies.length) return null;
    const box = (op, of) => forward
      ? blobBox(`output of ${of}`, op.output, op.device)
      : op.arriving && !op.arriving.extra && blobBox(`gradient of output of ${of}`, op.arriving, op.device);
    const before = lanes.map((lane) => sourcesIn(station, lane).map((op) => box(op, placeName(op))));
    const after = lanes.map((lane) => lastOf(station, lane)).map((op) => op ? box(op, op.op) : []);
    const row = (cells) => laneGrid("", cells.map((boxes) => el("div", {}, boxes)));
    return el("div", { class: `exchange ${direction[0]}-row` },
      laneGrid("muted small", step.lanes.map((lane) => el("span", {}, onDevices(lane)))),
      row(before),
      el("div", { class: "crossing" },
        el("span", { class: "drawing", "data-station": station.id, "data-direction": direction }),
        copies.map((copy) => crossingLabel(copy, direction))),
      row(after));
  }

  // The bytes of a copy, on its arrow a quarter of the way.
  function crossingLabel({ from, to, bytes: n }, direction) {
    const center = (lane) => (lane + 0.5) / step.lanes.length;
    const left = center(from) + 0.24 * (center(to) - center(from)), top = direction === "forward" ? 0.24 : 0.76;
    return el("span", { class: "label", style: `left:${100 * left}%;top:${100 * top}%` },
      el("span", { class: "sr" }, `${step.lanes[from].name} to ${step.lanes[to].name}: `), bytes(n));
  }

  // --------------------------------------------------------------------------------------------------------- a station

  function stationView(station, direction) {
    const figures = {
      ...station,
      crosses_forward: total(crossings(station, "forward")),
      crosses_backward: total(crossings(station, "backward")),
    };
    return [
      el("div", { class: "head" }, el("h1", { tabindex: -1 }, breakable(station.title)), directions(station, direction)),
      muted(kinds(computing(opsOf(station)))),
      facts(figures),
      lossSection(station),
      section("Data flow",
        exchange(station, "forward"),
        exchange(station, "backward"),
        panels(station, (ops) => folded(ops, flow))),
      section(`Formula, and the lines that ran ${direction}`, formulas(station, direction)),
      section(direction === "forward" ? "Tensors" : "Gradients", tensors(station, direction)),
      section("Saved for backward", saved(station)),
      section("Gradient check", checks(station)),
      onward(station),
    ];
  }

  // Ops that leave every number as it is take a line, between those that compute.
  function folded(ops, content) {
    const runs = [];
    for (const op of ops) {
      const plumbing = Ops.isPlumbing(op) && ops.some((other) => !Ops.isPlumbing(other));
      if (plumbing && runs.at(-1)?.plumbing) runs.at(-1).ops.push(op);
      else runs.push({ plumbing, ops: [op] });
    }
    return runs.map(({ plumbing, ops: some }) => !plumbing ? some.map(content) : el("details", { class: "plumbing" },
      el("summary", {}, `${some.map((op) => op.op === "mul" ? "mul by 1" : op.op === "sum" ? "sum of one number" : op.op).join(", ")}: the numbers stay as they are`),
      some.map(content)));
  }

  function lossSection(station) {
    if (!opsOf(station).some((op) => op.op === "cross_entropy")) return null;
    const holder = section("Classes");
    Loss.element().then((element) => { if (element) holder.append(element); });
    return holder;
  }

  function directions(station, direction) {
    const current = (name) => name === direction ? "true" : null;
    const link = (name, text) => el("a", { href: `#${station.id}/${name}`, "aria-current": current(name) }, text);
    return el("div", { class: "direction", role: "group", "aria-label": "Direction" },
      link("forward", "forward \u2192"), link("backward", "\u2190 backward"));
  }

  // Without those that leave every number as it is, where there are others.
  function computing(ops) {
    const some = ops.filter((op) => !Ops.isPlumbing(op));
    return some.length ? some : ops;
  }

  // "conv2d_relu, stride (1, 1), groups 1": each kind of op once, with the settings that all of them share.
  function kinds(ops) {
    return [...new Set(ops.map((op) => op.op))].map((kind) => {
      const [first, ...others] = ops.filter((op) => op.op === kind);
      const isShared = ([name, value]) => others.every((op) => op.settings[name] === value);
      return [kind, ...Object.entries(first.settings).filter(isShared).map((setting) => setting.join(" "))].join(", ");
    }).join("; ");
  }

  function onward(station) {
    const i = step.stations.indexOf(station);
    const link = (other, text) => other ? el("a", { href: `#${other.id}/${shown.direction}` }, text) : el("span", {});
    const [before, after] = [step.stations[i - 1], step.stations[i + 1]];
    return el("nav", { class: "onward", "aria-label": "Neighbouring layers" },
      link(before, `\u2190 ${before?.title}`), link(after, `${after?.title} \u2192`));
  }

  // The lanes side by side, each with what `content` makes of its ops.
  function panels(station, content) {
    return el("div", { class: "panels" }, step.lanes.map((lane, i) => {
      const ops = inLane(station, i);
      if (!ops.length) return null;
      const name = severalLanes ? lane.name : station.title;
      return el("div", { class: "panel" },
        el("h3", {}, name, el("span", { class: "muted" }, `on ${lane.devices.join(", ")}`)), content(ops));
    }));
  }

  // --------------------------------------------------------------------------------------------------------- data flow

  // An op as a diagram: forward to the right and, under it, backward to the left. Parameters come from below.
  function flow(op) {
    const main = op.inputs.filter((x) => !x.parameter), parameters = op.inputs.filter((x) => x.parameter);
    const gradient = (x) => op.leaving[op.inputs.indexOf(x)];
    const row = (direction, ...cells) => cells.map((cell) => el("div", { class: `${direction}-row` }, cell));
    const forward = row("f",
      main.map((x) => blobBox(inputName(x), x.blob, x.device)), sign("\u2192"),
      [opBox(op, "forward"), feeds("\u2191", parameters.map((x) => blobBox(shortName(x), x.blob, x.device)))], sign("\u2192"),
      blobBox("y", op.output, op.device));
    if (op.arriving === null) {
      const none = el("div", { class: "nothing all" }, "No gradient came here: nothing before it is trained.");
      return el("div", { class: "flow" }, forward, none);
    }
    const grads = parameters.filter(gradient).map((x) => blobBox(`gradient of ${shortName(x)}`, gradient(x), x.device));
    const backward = row("b",
      main.map((x) => gradient(x) ? blobBox(`g${x.name}`, gradient(x), x.device) : notComputed(x)), sign("\u2190"),
      [opBox(op, "backward"), feeds("\u2193", grads)], sign("\u2190"),
      blobBox("gy", op.arriving, op.device));
    return el("div", { class: "flow" }, forward, el("div", { class: "all gap" }), backward);
  }

  function opBox(op, direction) {
    const event = eventOf[direction][op.number], name = el("b", {}, breakable(Ops.kind(op)));
    if (event === undefined) return el("div", { class: "op" }, name, mono("after the step"));
    const attributes = { class: "op", href: address(event), "data-event": event, "aria-label": `${Ops.kind(op)}, ${direction}, step ${event + 1}` };
    return el("a", attributes, name, op.op === "cat" ? el("span", { class: "small" }, `of ${Ops.joined(op)}`) : null, mono(`step ${event + 1}`));
  }

  // Outlines the op that the timeline is at.
  function showNow() {
    for (const box of view.querySelectorAll("[data-event]")) {
      const now = Number(box.dataset.event) === shown.event;
      box.classList.toggle("now", now);
      if (now) box.setAttribute("aria-current", "step");
      else box.removeAttribute("aria-current");
    }
  }

  const feeds = (arrowSign, boxes) => boxes.length ? [sign(arrowSign), boxes] : [];
  const shortName = (x) => x.name.split(".").at(-1);

  function inputName(x) {
    if (x.from === null) return x.name;
    return [`${x.name}, from `, el("a", { href: `#${stationOf[x.from].id}` }, placeName(step.ops[x.from]))];
  }

  const NOT_COMPUTED = "not computed: nothing asks for it";
  const notComputed = (x) => el("div", { class: "nothing" }, el("b", {}, `g${x.name}`), `: ${NOT_COMPUTED}`);

  function blobBox(name, blob, device) {
    return el("div", { class: "blob" }, el("b", {}, typeof name === "string" ? breakable(name) : name),
      mono(sizes(blob.shape)), mono(bytes(blob.bytes), "muted"), mono(device, "muted"));
  }

  // -------------------------------------------------------------------------------------------------- formula and code

  // A part for each kind of op and each way in which it ran; towers mostly run the same lines.
  function formulas(station, direction) {
    const alike = new Map();
    for (const op of opsOf(station)) {
      const key = JSON.stringify([op.op, op.source[direction]]);
      alike.set(key, [...(alike.get(key) || []), op]);
    }
    return [
      small("Marked lines ran in this step. The fast twins of these functions were switched off, so that what ran is what ",
        "you read."),
      folded([...alike.values()].map(([op]) => op), (op) => formula([...alike.values()].find(([first]) => first === op), direction)),
    ];
  }

  function formula(ops, direction) {
    const [op] = ops;
    return el("div", { class: "beside" },
      el("div", { class: "formula" },
        op.formulas.map((name) => equation(name, direction)),
        hasIm2col && op.formulas.includes("conv2d") ? el("p", { class: "small" }, im2colLink()) : null),
      el("div", {},
        code(op, direction),
        ops.length > 1 ? small(`The same lines ran for ${ops.map(opTitle).join(" and ")}.`) : null));
  }

  function equation(name, direction) {
    const { source, file, [direction]: text } = step.equations[name];
    return el("div", {},
      el("h3", {}, `${name === "cat" ? "concat" : name}, ${direction}`),
      el("div", { class: "mono" }, text ? reflowed(text) : "Its file states no formula."),
      small(`From ${file}.`, source ? ` Source: ${source}` : ""));
  }

  // A docstring for a narrower column: prose that was broken at the margin is joined, and a remark that stands far to the right
  // of a formula goes under it.
  function reflowed(text) {
    const brokenAtMargin = (line) => line.length > 85 && !/\S\s{3,}\S/.test(line);
    const goesOn = (line) => /^\S/.test(line) && !/^\S+ +=/.test(line);
    const lines = [];
    for (const line of text.split("\n")) {
      if (lines.length && brokenAtMargin(lines.at(-1)) && goesOn(line)) lines.push(`${lines.pop()} ${line}`);
      else lines.push(line);
    }
    return lines.map((line) => {
      const [, indent, formula, remark] = line.match(/^(\s*)(.*?)(?:\s{3,}([^\s=].*))?$/);
      return el("span", { class: "formula-line", style: `--indent:${indent.length}ch` },
        (formula && Formulas.element(formula)) || null, formula || "\u00a0", remark ? el("span", { class: "muted remark" }, remark) : null);
    });
  }

  function code(op, direction) {
    const passages = op.source[direction].map((n) => step.passages[n]);
    if (direction === "backward" && op.arriving === null) return muted("Its backward did not run: no gradient came here.");
    if (direction === "backward" && op.arriving.extra) return muted("In the step its backward did not run: training needs no gradient of the image. It ran after the step, so no lines are marked.");
    if (!passages.length) return muted("No line of Python ran for it.");
    const own = op.formulas.map((name) => `${name}_${direction}`);
    return [
      passages.filter((passage) => own.includes(passage.function)).map(keyLines),
      passages.map((passage) => el("details", { class: "code" },
        el("summary", {}, el("b", {}, passage.function), ` ${passage.file}, line ${passage.first_line}`),
        el("pre", {}, passage.lines.map((text, i) => codeLine(text, passage.first_line + i, passage.ran))))),
    ];
  }

  // The lines of a plain function that carry its formula: of those that ran the ones with most arithmetic, three at most.
  const KEY_LINES = 3;
  function keyLines(passage) {
    const weight = (line) => weighed(line.replace(/\[[^[\]]*\]/g, "[]")); // indices are no arithmetic
    const weighed = (text) => 3 * (text.match(/ @ /g) || []).length + (text.match(/ [-+*\/]=? |\*\*|maximum|exp\(|where\(|\.sum\(|copyto/g) || []).length +
      (/^\s*return /.test(text) ? 0.5 : 0);
    const ran = passage.lines.map((text, i) => [text, passage.first_line + i]).filter(([, number]) => passage.ran.includes(number));
    const best = ran.filter(([text]) => weight(text) >= 0.5 && !/^\s*def /.test(text)).toSorted((a, b) => weight(b[0]) - weight(a[0])).slice(0, KEY_LINES);
    if (!best.length) return null;
    return el("figure", { class: "code key" }, el("figcaption", {}, el("b", {}, passage.function), " in short"),
      el("pre", {}, ran.filter((line) => best.includes(line)).map(([text, number]) => codeLine(text.trim(), number, passage.ran))));
  }

  function codeLine(text, number, ranLines) {
    const ran = ranLines.includes(number), source = text.trimStart();
    const arrowsWhole = source.split(/(->)/).map((part) => part === "->" ? el("span", { class: "whole" }, part) : part);
    return el("span", { class: ran ? "line ran" : "line", style: `--indent:${text.length - source.length}ch` },
      el("i", { "aria-hidden": "true" }, `${ran ? "\u25b8 " : ""}${number}`), source ? arrowsWhole : " ");
  }

  // ----------------------------------------------------------------------------------------------------------- tensors

  function tensors(station, direction) {
    const each = direction === "forward" ? forwardTensors : backwardTensors;
    return [
      small("One square is one number: choose it, and it says why it is what it is. Dark grey is 0, orange above, blue below, ",
        "brighter the farther from 0; the range is written under the picture. Filters that see an RGB image are in colour, ",
        "around mid grey. The bars of a distribution have logarithmic heights; the dashed line is 0."),
      panels(station, (ops) => folded(ops, (op) => each(op, ops.length > 1))),
    ];
  }

  // `several`: the op is not alone in its panel. What one of them makes is not shown again as another's input.
  function forwardTensors(op, several) {
    const inputs = op.inputs.map((x, i) => [x, i]).filter(([x]) => !several || x.from === null);
    return [
      inputs.map(([x, i]) => tensor(op, `x${i}`, inputTitle(x))),
      tensor(op, "y", several ? `Output of ${Ops.kind(op)}` : "Output y"),
    ];
  }

  function inputTitle(x) {
    if (x.parameter) return x.blob.shape.length === 4 ? `Filters, ${x.name}` : x.name;
    return x.from === null ? `Input ${x.name}` : `Input ${x.name}, from ${placeName(step.ops[x.from])}`;
  }

  const EXTRA = "Training has no use for the gradient of the image. It is here because one asks for a pixel's: the same " +
    "backwards were asked for it after the step.";
  function backwardTensors(op, several) {
    if (op.arriving === null) return muted("No gradient came here.");
    const whole = step.of_batch?.uses[0][0] === op.number ? step.of_batch : null;
    const leaving = op.inputs.map((x, i) => {
      const title = x.parameter ? `Gradient of ${x.name}` : `Gradient that leaves, g${x.name}`;
      if (op.leaving[i]) return tensor(op, `g${i}`, title);
      return el("div", { class: "tensor" }, el("h4", {}, title), small(`${NOT_COMPUTED}.`));
    });
    return [
      op.arriving.extra ? small(EXTRA) : null,
      whole ? tensor(op, `d${whole.uses[0][1]}`, "Gradient of the input: the sum over all ops that use it") : null,
      tensor(op, "gy", several ? `Arrives at ${Ops.kind(op)}` : "Gradient that arrives, gy"),
      !op.arriving.extra && op.leaving.some((g) => g?.extra) ? small(EXTRA) : null,
      leaving,
    ].filter(Boolean);
  }

  // The colours of an array: of a gradient by the signed root. Towers share one scale, so that they can be compared.
  function scaleOf(op, slot) {
    const peers = stationOf[op.number].ops.map((n) => step.ops[n]).filter((other) => other.op === op.op && other.inputs.length === op.inputs.length);
    const blobs = peers.map((other) => Layers.blob(other, slot)).filter(Boolean), blob = Layers.blob(op, slot);
    return { limit: Math.max(...blobs.map(({ limit }) => limit)), root: blob.kind.endsWith("gradient"), signed: blobs.some((b) => b.distribution.low < 0), shared: blobs.length };
  }

  function tensor(op, slot, title) {
    const blob = Layers.blob(op, slot);
    return el("figure", { class: "tensor" },
      el("h4", {}, title),
      el("span", { class: "numbers" }, `${sizes(blob.shape)}, ${blob.dtype}, ${bytes(blob.bytes)}`),
      "blocks" in blob ? largeMatrix(op, slot, title, blob) : wholePicture(op, slot, title, blob),
      histogram(title, blob.distribution));
  }

  function wholePicture(op, slot, title, blob) {
    if (!Tensors.has(blob.values)) return small(leftOut(blob));
    const scale = scaleOf(op, slot), figure = Ask.picture(op, slot, blob, title, scale), legend = el("figcaption", {});
    figure.drawn.then(() => legend.append(...legendOf(figure)));
    return [figure.holder, figure.said, legend, figure.zoom];
  }

  const leftOut = (blob) => step.partial ? `Not here: the view is of ${step.partial} alone.`
    : `Left out, as the page would be too large: ${bytes(blob.bytes)}. With --full it is here.`;

  // A matrix that did not come along: all of it by blocks, and a window of numbers. Where the numbers can be computed the window moves,
  // by buttons, or to where the blocks are clicked.
  const WINDOW = 64;
  function largeMatrix(op, slot, title, blob) {
    const blocks = el("canvas", { role: "img", "aria-label": `${title}, by blocks`, class: "blocks" }), about = el("figcaption", {});
    Tensors.load([blob.blocks]).then(() => {
      const { limit } = Picture.drawBlocks(blocks, blob), [rows, columns] = Tensors.matrix(blob.shape);
      about.append(ramp({ limit, signed: false }), small(`All of it: each square is the root mean square of a block of ${Math.ceil(rows / 64)} × ${Math.ceil(columns / 64)}.`));
    });
    const holder = el("div", {}), [rows, columns] = Tensors.matrix(blob.shape), whole = Tensors.has(blob.values);
    let corner = [0, 0];
    const clip = (i, n) => Math.max(0, Math.min(i, n - WINDOW));
    function move(top, left) {
      const before = Ask.figures.find((other) => holder.contains(other.holder));
      if (before) Ask.drop(before);
      corner = [clip(top, rows), clip(left, columns)];
      const figure = Ask.picture(op, slot, blob, title, scaleOf(op, slot), corner), legend = el("figcaption", {});
      figure.drawn.then(() => legend.append(...legendOf(figure)));
      holder.replaceChildren(figure.holder, figure.said, legend, figure.zoom);
      if (before) fitPictures();
    }
    move(0, 0);
    const button = (name, sign, down, right) => el("button", { type: "button", "aria-label": `${title}: window ${name}`,
      onclick: () => move(corner[0] + down * WINDOW, corner[1] + right * WINDOW) }, sign);
    if (whole) {
      blocks.addEventListener("click", (event) => {
        const box = blocks.getBoundingClientRect();
        move(Math.floor((event.clientY - box.top) / box.height * rows) - WINDOW / 2, Math.floor((event.clientX - box.left) / box.width * columns) - WINDOW / 2);
      });
    }
    return [blocks, about, whole ? el("div", { class: "zoom-controls" }, button("up", "\u2191", -1, 0), button("down", "\u2193", 1, 0),
      button("left", "\u2190", 0, -1), button("right", "\u2192", 0, 1)) : small("Of its numbers this window came along."), holder];
  }

  function legendOf({ arranged, blob, scale, counts }) {
    const beyond = counts.beyond ? `; ${percent(counts.beyond, counts.count)} beyond, in the end's colour` : "";
    const odd = counts.notFinite ? `; ${plural(counts.notFinite, "number")} not finite (magenta)` : "";
    const zero = blob.limit === 0 && !counts.notFinite ? "; 0 (grey) everywhere" : "";
    return [
      arranged.inRgb || !scale.limit ? null : ramp(scale),
      el("span", { class: "numbers" }, `${arranged.words}${zero}${scale.limit && scale.root ? "; colours by the signed root" : ""}${beyond}${odd}` +
        `${scale.shared > 1 ? "; one scale for both towers".replace("both", scale.shared > 2 ? "all" : "both") : ""}`),
    ].filter(Boolean);
  }

  function ramp({ limit, signed }) {
    return el("div", { class: "ramp" }, signed ? short(-limit) : "0", Picture.ramp(signed), short(limit));
  }

  // Enlarges pictures by whole factors, to the width that there is and a moderate height.
  function fitPictures() {
    reachable(view);
    for (const element of view.querySelectorAll(".picture")) {
      const width = Number(element.dataset.width), height = Number(element.dataset.height);
      const room = element.closest(".panel").clientWidth - 34;
      const factor = Math.max(1, Math.floor(Math.min(room / width, 420 / height, 24)));
      element.style.width = `${Math.min(room, width * factor)}px`;
      element.style.aspectRatio = `${width} / ${height}`;
    }
  }

  function histogram(title, d) {
    const words = d.size === 0 ? "empty" : [
      `min ${short(d.low)}`, `mean ${short(d.mean)}`, `max ${short(d.high)}`, `std ${short(d.std)}`,
      `${percent(d.zeros, d.size)} zeros`, d.nonfinite ? `${plural(d.nonfinite, "number")} not finite` : "",
    ].filter(Boolean).join(", ");
    const text = el("div", { class: "numbers" }, words);
    if (d.low === d.high) return text;
    const drawing = svg(10 * d.counts.length, 52, bars(d), `Distribution of ${title}: ${words}`);
    drawing.setAttribute("class", "histogram");
    drawing.setAttribute("preserveAspectRatio", "none");
    const zero = -d.low / (d.high - d.low);
    const ticks = [[0, d.low], ...(zero > 0.15 && zero < 0.85 ? [[zero, 0]] : []), [1, d.high]];
    return el("div", { class: "distribution" },
      el("span", { class: "count", "aria-hidden": "true" }, `${whole(Math.max(...d.counts))} in the tallest bar`), drawing,
      el("div", { class: "ticks", "aria-hidden": "true" }, ticks.map(([at, value]) => el("span", { style: `left:${100 * at}%` }, short(value)))), text);
  }

  // Bars 10 wide on a line at 50.5, and a line at 0 if the numbers have both signs.
  function bars({ counts, low, high }) {
    const width = 10 * counts.length, tallest = Math.log1p(Math.max(...counts));
    const heights = counts.map((count) => 48 * Math.log1p(count) / tallest);
    const rectangles = heights.map((h, i) => `<rect x="${10 * i + 0.5}" y="${50 - h}" width="9" height="${h}"/>`);
    const shapes = [...rectangles, `<line x1="0" x2="${width}" y1="50.5" y2="50.5"/>`];
    const zero = -low / (high - low) * width;
    if (low < 0 && high > 0) shapes.push(`<line class="zero" x1="${zero}" x2="${zero}" y1="0" y2="50"/>`);
    return shapes.join("");
  }

  // --------------------------------------------------------------------------------------------------- saved, and checks

  function saved(station) {
    const rows = opsOf(station).flatMap((op) => op.saved.map((array) => [op, array]));
    if (!rows.length) return muted("Nothing: backward needs only the gradient that arrives, and shapes.");
    const headings = ["array", "shape", "bytes", "why", "in memory"];
    const channelsLast = rows.some(([, array]) => array.shape.length === 4);
    return [
      el("table", {},
        el("thead", {}, el("tr", {}, headings.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map(([op, array]) => savedRow(op, array, headings)))),
      small(freed(opsOf(station)),
        channelsLast ? " Arrays of four axes have the shapes that the op computes with, channels last." : ""),
    ];
  }

  function savedRow(op, array, headings) {
    const cells = [
      [el("b", {}, array.name), el("span", { class: "muted" }, ` ${opTitle(op)}`)],
      el("code", {}, `${sizes(array.shape)} ${array.dtype}`),
      bytes(array.bytes),
      array.why || "the op keeps it",
      array.shared_with ? `that of ${array.shared_with}` : "of its own",
    ];
    return el("tr", {}, cells.map((cell, i) => el("td", { "data-label": headings[i] }, cell)));
  }

  // Until when the ops keep what they saved.
  function freed(ops) {
    const kept = ops.filter((op) => op.saved.length && op.freed_after !== null);
    const words = kept.map((op) => `${opTitle(op)} from step ${eventOf.forward[op.number] + 1} to ${op.freed_after + 1}`);
    return words.length ? `Kept until the op's own backward is done, then dropped: ${words.join("; ")}.` : "";
  }

  function checks(station) {
    if (step.checks === null) {
      if (!step.loss) return muted("Not asked for.");
      return muted("Not asked for. ", el("code", {}, "python -m minidl.study explore --check-grads"),
        " compares each layer's backward with numeric slopes, in float64, on these tensors.");
    }
    const found = step.checks.filter((badge) => station.ops.includes(badge.number));
    if (!found.length) return muted("There is no check of what happens here.");
    return el("ul", { class: "badges" }, found.map(badgeItem));
  }

  function badgeItem(badge) {
    const open = badge.relative_error === null, kind = badge.failed ? "failed" : open ? "open" : "passed";
    const result = open ? null : [
      ": relative error ", el("span", { class: "whole" }, badge.relative_error.toExponential(0)),
      `, ${plural(badge.directions, "direction")}, ${badge.dtype}`,
    ];
    return el("li", { class: kind }, { failed: "\u2717 ", open: "", passed: "\u2713 " }[kind],
      el("b", {}, leafName(badge)), result, badge.note ? el("div", { class: "muted small" }, badge.note) : null);
  }

  // "tower0.conv2.weight"; of an op between layers "cat, tower 0: x2".
  function leafName(badge) {
    const op = step.ops[badge.number], place = "xyzuvw".indexOf(badge.leaf);
    if (op.is_layer) return `${badge.layer}.${badge.leaf}`;
    return `${opTitle(op)}: ${place < 0 ? badge.leaf : op.inputs.filter((x) => !x.parameter)[place].name}`;
  }

  // --------------------------------------------------------------------------------------------------------- navigation

  function navigation() {
    const item = (id, title, kind) => el("li", { class: kind }, el("a", { href: `#${id}` }, title));
    return el("ol", {},
      item("overview", "overview"),
      step.stations.map((station) => item(station.id, station.title, isBetween(station) ? "between" : null)),
      hasIm2col ? item("im2col", "im2col") : null);
  }

  function decoded(hash) {
    try {
      return decodeURIComponent(hash);
    } catch {
      return hash; // a % that is no code
    }
  }

  // The layers as a list to search, by their names, their ops' and their parameters'.
  function findLayers() {
    const words = (station) => [station.title, ...opsOf(station).flatMap((op) => [Ops.kind(op), op.op, ...op.inputs.map((x) => x.name)])];
    const all = [["overview", "overview", ["start loss image"]], ...step.stations.map((s) => [s.id, s.title, words(s)]),
      ...(hasIm2col ? [["im2col", "im2col", ["patches columns"]]] : [])];
    const text = byId("find-text").value, asked = text.split("[")[0].replace("gradient of ", "").trim().toLowerCase();
    const found = all.filter(([, title, texts]) => [title, ...texts].some((text) => text.toLowerCase().includes(asked)));
    const { ref, problem } = Names.find(text), isNumber = ref && (text.includes("[") || Names.known.has(text.trim()));
    const number = isNumber ? [el("li", {}, el("a", { href: Ask.href([ref]), onclick: () => byId("find").close() }, el("b", {}, Ops.number(ref)), el("span", { class: "muted small" }, " why this number?")))] : [];
    byId("find-problem").hidden = !problem || !text.includes("[");
    byId("find-problem").textContent = problem || "";
    byId("find-list").replaceChildren(...number, ...(text.includes("[") ? [] : found).map(([id, title, texts]) => el("li", {},
      el("a", { href: `#${id}${id === shown.section || !shown.station ? "" : `/${shown.direction}`}`.replace(/#(overview|im2col)\/.*/, "#$1"), onclick: () => byId("find").close() },
        el("b", {}, title), el("span", { class: "muted small" }, ` ${[...new Set(texts)].filter((text) => asked && text.toLowerCase().includes(asked)).join(", ")}`)))));
    byId("find-none").hidden = found.length > 0 || text.includes("[");
  }

  function find() {
    byId("find-text").value = "";
    findLayers();
    byId("find").showModal();
  }

  // Light, dark, or what the system says.
  const THEMES = ["system", "light", "dark"];
  function setTheme(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    byId("theme").setAttribute("aria-label", `Colours: ${name}`);
    byId("theme").title = `Colours: ${name}`;
  }
  const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3]);

  // What an address shows; null for an address of something else.
  function parse(hash) {
    const [place, asked] = decoded(hash).replace(/^#/, "").split("/why/"), trail = asked ? Ask.parse(asked.split("/")) : [];
    const [name, direction = "forward", number, slot] = place.split("/");
    const page = { section: name || "overview", station: null, direction: "forward", event: -1, trail: [], look: null };
    if (trail.includes(null)) return null;
    if (page.section === "overview" || (page.section === "im2col" && hasIm2col)) return page;
    const station = step.stations.find(({ id }) => id === name);
    if (!station || !(direction in eventOf)) return null;
    const events = station.ops.map((n) => eventOf[direction][n]).filter((event) => event !== undefined);
    const event = number === undefined ? Math.min(...events) : eventOf[direction][number];
    return { section: "station", station, direction, event: events.includes(event) ? event : -1, trail, look: slot ? `${number}.${slot}` : null };
  }

  function address(event) {
    if (event < 0) return "#overview";
    const [op, direction] = step.events[event];
    return `#${stationOf[op].id}/${direction}/${op}`;
  }

  // To another address without an entry in the history: steps are many. In a frame of a notebook an address by itself would be
  // the notebook's.
  function go(hash) {
    history.replaceState(null, "", location.href.split("#")[0] + hash);
    show();
  }

  // In such a frame a link to a place in the page would lead to the notebook's page.
  function onLink(event) {
    const link = event.target.closest("a[href^='#']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    location.hash = link.getAttribute("href");
  }

  // What a page opens with that was asked for one array: its layer, with the array in sight.
  const opening = () => {
    if (!step.look) return "";
    const [op, slot] = step.look.split(".");
    return `#${stationOf[op].id}/forward/${op}/${slot}`;
  };
  function toLook() {
    const picture = view.querySelector(`[data-slot="${shown.look}"]`);
    if (picture) scrollTo(0, picture.closest(".tensor").getBoundingClientRect().top + scrollY - byId("content").offsetTop - 16);
  }

  // The section that is being read: stepping keeps it, gradients come beside gradients.
  const PEERS = { Tensors: "Gradients", Gradients: "Tensors" };
  function partInSight() {
    const above = [...view.querySelectorAll("section")].filter((part) => part.getBoundingClientRect().top < innerHeight / 3);
    return above.length > 1 ? above.at(-1).dataset.part : null; // the first one follows the heading, which stays in sight
  }
  function toPart(name) {
    const find = (part) => view.querySelector(`section[data-part="${part}"]`), part = find(name) || find(PEERS[name]);
    if (part) scrollTo(0, part.getBoundingClientRect().top + scrollY - byId("content").offsetTop - 16);
    return Boolean(part);
  }

  function show() {
    const first = view.childElementCount === 0, found = parse(location.hash || opening()), next = found || (first ? shown : null);
    const named = found ? {} : Names.find(decoded(location.hash).slice(1));
    if (named.ref) return go(Ask.href([named.ref]));
    byId("unknown").hidden = Boolean(found);
    byId("unknown").textContent = location.hash.includes("[") ? named.problem : `Nothing here has the address ${decoded(location.hash)}.`;
    if (!next) return;
    const same = !first && isAt(shown, next) && (next.event === shown.event || next.trail.length > 0);
    const before = shown.trail;
    shown = same ? { ...next, event: shown.event } : next;
    if (first || !shown.trail.length) {
      if (!same || !isAt(displayed, shown)) display();
      keepingInPlace(before, () => Ask.show([]));
      if (same && shown.look) toLook();
      if (!shown.trail.length) return;
    }
    if (!same) showPlace();
    keepingInPlace(shown.trail, () => Ask.show(shown.trail)).then(painted).then(() => {
      if (!isAt(displayed, shown)) display();
      showNow();
      Ask.bringIntoSight();
    });
  }

  // What opens or closes the answer narrows or widens the page. The picture that the last of these numbers is in stays where it was.
  function keepingInPlace(refs, act) {
    const holder = refs.length ? Ask.pictureOf(refs.at(-1)) : null, top = holder?.getBoundingClientRect().top;
    const done = act();
    fitPictures();
    if (holder) scrollBy(0, holder.getBoundingClientRect().top - top);
    return done;
  }

  const isAt = (place, other) => place.section === other.section && place.station === other.station && place.direction === other.direction;
  const painted = () => new Promise((done) => {
    requestAnimationFrame(() => setTimeout(done));
    setTimeout(done, 100); // a page that is not in sight has no frames
  });

  function display() {
    const first = displayed === null, stays = !first && displayed.section === shown.section && displayed.station === shown.station;
    const part = first || (stays && displayed.direction === shown.direction) ? null : partInSight(), scroll = scrollY;
    displayed = shown;
    Ask.forget();
    delete view.dataset.prepared;
    document.documentElement.dataset.direction = shown.direction;
    view.hidden = shown.section === "im2col";
    extra.hidden = !view.hidden;
    const content = shown.station ? stationView(shown.station, shown.direction) : overview();
    view.replaceChildren(...content.filter(Boolean));
    drawCrossings();
    fitPictures();
    drawThumbs();
    if (shown.station) prepare(shown.station);
    if (!part || !toPart(part)) scrollTo(0, stays ? scroll : 0);
    if (shown.look) toLook();
    showNow();
    showPlace();
    Ask.remark();
  }

  // So that the first answer doesn't wait: what answers about this layer read.
  async function prepare(station) {
    const numbers = opsOf(station).flatMap(Why.arrays), i = step.stations.indexOf(station);
    await Ask.idle();
    if (shown.station !== station) return;
    await Tensors.load(numbers);
    const compute = (n) => Tensors.has(n) && "op" in step.values[n] && !["sums", "product"].includes(step.values[n].how) && Tensors.get(n);
    for (const n of numbers) {
      await Ask.idle();
      if (shown.station !== station) return;
      compute(n);
    }
    Ask.drawRest();
    view.dataset.prepared = station.id;
    // A path mostly leads to a neighbour, so that the nearest come first.
    const nearest = [...step.stations.keys()].toSorted((a, b) => Math.abs(a - i) - Math.abs(b - i));
    for (const n of nearest.flatMap((other) => opsOf(step.stations[other]).flatMap(Why.arrays))) {
      await Ask.idle();
      if (shown.station !== station) return;
      await Tensors.load([n]);
      compute(n);
    }
  }

  // The title, the timeline and the list of layers say where we are.
  function showPlace() {
    const { station, direction, event, section: name } = shown, timeline = byId("timeline");
    const title = station ? `${station.title}, ${direction}` : name;
    document.title = `${title} \u00b7 ${step.model} \u00b7 minidl explorer`;
    timeline.value = event + 1;
    timeline.setAttribute("aria-valuetext", event < 0 ? title : `step ${event + 1}, ${title}`);
    byId("where").textContent = whereText(event, title);
    byId("previous").disabled = event < 0;
    byId("next").disabled = event === step.events.length - 1;
    for (const link of byId("stations").querySelectorAll("a")) {
      const here = link.hash === `#${station ? station.id : name}`;
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (here) bringIntoList(link);
    }
  }

  function whereText(event, title) {
    if (event < 0) return shown.station ? title : `${step.events.length} steps`;
    const [op, direction] = step.events[event];
    return `${event + 1} of ${step.events.length}: ${opTitle(step.ops[op])}, ${direction}`;
  }

  // Scrolls the list of layers alone, not the page.
  function bringIntoList(link) {
    const list = byId("stations"), top = link.offsetTop;
    if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 40) list.scrollTop = top - list.clientHeight / 2;
  }

  function toEvent(event) {
    if (event >= -1 && event < step.events.length) go(address(event));
  }

  // A step on or back; the overview is before the first one.
  const stepBy = (by) => toEvent(shown.event + by);

  function stationBy(by) {
    const station = step.stations[shown.station ? step.stations.indexOf(shown.station) + by : 0];
    if (station) go(`#${station.id}/${shown.direction}`);
  }

  function toDirection(direction) {
    if (!shown.station) return;
    const op = shown.event < 0 ? null : step.events[shown.event][0];
    const number = op !== null && op in eventOf[direction] ? `/${op}` : "";
    go(`#${shown.station.id}/${direction}${number}`);
  }

  const KEYS = {
    ArrowRight: () => stepBy(1),
    ArrowLeft: () => stepBy(-1),
    f: () => toDirection("forward"),
    b: () => toDirection("backward"),
    "]": () => stationBy(1),
    "[": () => stationBy(-1),
    o: () => go("#overview"),
    "/": find,
    "?": () => byId("help").showModal(),
    Escape: () => { if (shown.trail.length) Ask.close(); },
  };

  // Keys belong to what has the focus where that uses them: the timeline, im2col's tables, a dialog.
  function onKey(event) {
    const taken = event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey;
    const used = event.target.closest("input, select, textarea, #extra, .picture") || document.querySelector("dialog[open]");
    if (taken || used || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  function start() {
    const timeline = byId("timeline"), backward = step.events.findIndex(([, direction]) => direction === "backward");
    const turn = backward < 0 ? step.events.length : backward;
    byId("stations").append(navigation());
    timeline.max = step.events.length;
    timeline.style.setProperty("--turn", `${100 * turn / step.events.length}%`);
    timeline.addEventListener("input", () => toEvent(Number(timeline.value) - 1));
    byId("previous").addEventListener("click", () => stepBy(-1));
    byId("next").addEventListener("click", () => stepBy(1));
    byId("keys").addEventListener("click", KEYS["?"]);
    byId("layers").addEventListener("click", find);
    byId("find-text").addEventListener("input", findLayers);
    byId("find-text").addEventListener("keydown", (event) => { if (event.key === "Enter") byId("find-list").querySelector("a")?.click(); });
    byId("theme").addEventListener("click", nextTheme);
    setTheme("system");
    Zoom.start();
    addEventListener("keydown", onKey);
    addEventListener("click", onLink);
    byId("why-close").addEventListener("click", Ask.close);
    addEventListener("hashchange", () => {
      const before = shown;
      show();
      if (shown.trail.length) byId("why").focus({ preventScroll: true });
      else if (before.station !== shown.station || before.direction !== shown.direction || !before.trail.length) {
        view.querySelector("h1").focus({ preventScroll: true });
      }
    });
    addEventListener("resize", () => {
      drawCrossings();
      fitPictures();
    });
    show();
  }

  start();
})();
