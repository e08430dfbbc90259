"use strict";
// Elements, and how numbers and ops are called.

const Words = (() => {
  const minus = (text) => text.replaceAll("-", "\u2212");
  return {
    whole: (n) => n.toLocaleString("en-US"),
    bytes: (n) => `${Words.whole(n)} B`,
    plural: (n, what) => `${Words.whole(n)} ${what}${n === 1 ? "" : "s"}`,
    sizes: (shape) => shape.length ? shape.join("\u00d7") : "1 number",
    // To some digits; "not finite" for what JSON can't hold.
    number(v, digits = 4, fixed = false) {
      if (v === null || v === undefined) return "not finite";
      if (!Number.isFinite(v)) return String(v);
      const plain = v === 0 || (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6);
      if (fixed) return minus(v === 0 ? "0" : plain ? v.toPrecision(digits) : v.toExponential(digits - 1));
      return minus(plain ? String(Number(v.toPrecision(digits))) : v.toExponential(digits > 4 ? digits - 1 : 2));
    },
    short: (v) => Words.number(v),
    // 0 and 100 % are said only of what is none and all.
    percent(part, all) {
      const p = 100 * part / all, near = p < 10 || p >= 99.5;
      if (part === 0 || part === all) return `${p.toFixed(0)} %`;
      return `${p < 0.1 ? "<0.1" : p > 99.9 ? ">99.9" : p.toFixed(near ? 1 : 0)} %`;
    },
    place: (index) => index.length ? `[${index.join(", ")}]` : "",
  };
})();

// An element: el("a", { href: "#conv1", class: "box" }, "text", child). Children may be nested lists; null is left out.
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// What does not fit and scrolls can be reached by keys; what fits is no stop on their way.
function reachable(root) {
  const parts = [...root.querySelectorAll(".math, .formula")]; // all are measured before one is changed: one layout
  const scroll = parts.map((part) => part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1);
  const attributes = Object.entries({ tabindex: "0", role: "region", "aria-label": "Formula" });
  parts.forEach((part, i) => attributes.forEach(([name, value]) => {
    if (scroll[i]) part.setAttribute(name, value);
    else part.removeAttribute(name);
  }));
}

// A drawing, from the text of its shapes. Without a label it is decoration.
function svg(width, height, shapes, label) {
  const holder = el("div", {});
  holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${shapes}</svg>`;
  const drawing = holder.firstChild;
  if (label) drawing.setAttribute("role", "img");
  drawing.setAttribute(label ? "aria-label" : "aria-hidden", label || "true");
  return drawing;
}

// Which layer an op belongs to, and the names that a reader knows.
const Ops = (() => {
  const stationOf = []; // op -> its station
  step.stations.forEach((station) => station.ops.forEach((n) => { stationOf[n] = station; }));
  step.ops.forEach((op, n) => { op.number = n; });
  const severalLanes = step.lanes.length > 1;
  const withoutTower = (name) => name.replace(/^tower\d+\./, "");
  const lane = (op) => severalLanes ? `, ${step.lanes[op.lane].name}` : "";
  return {
    stationOf,
    severalLanes,
    // "conv2, tower 1"; the op's name where it is no layer's.
    title: (op) => (op.is_layer ? withoutTower(op.layer) : Ops.kind(op)) + lane(op),
    place: (op) => op.is_layer ? stationOf[op.number].title : Ops.kind(op),
    kind: (op) => op.op === "cat" ? "concat" : op.op,
    // What a concat joins: "pool2, tower 0, and pool2, tower 1"; copies between devices are looked through.
    joined(op) {
      const maker = (x) => {
        let from = x.from === null ? null : step.ops[x.from];
        while (from && !from.is_layer && from.inputs.length === 1 && from.inputs[0].from !== null) from = step.ops[from.inputs[0].from];
        return from ? Ops.title(from) : x.name;
      };
      return op.op === "cat" ? op.inputs.map(maker).join(" and ") : "";
    },
    // Does it leave every number as it is, one by one? Then it is told in a line.
    isPlumbing: (op) => op.minidl && (["permute", "reshape"].includes(op.op) || (op.op === "sum" && Index.size(op.inputs[0].blob.shape) === 1) ||
      (op.op === "mul" && op.inputs.length === 1 && op.about.numbers.join() === "1")),
    // What the op's formula calls an array: "y", "gy", "x"; of a parameter its name.
    slot(op, slot) {
      if (slot === "y" || slot === "gy") return slot;
      const x = op.inputs[slot.slice(1)], name = x.parameter ? withoutTower(x.name) : x.name;
      if (slot[0] === "x") return name;
      return x.parameter ? `gradient of ${name}` : `g${name}`;
    },
    // "tower0.conv2.output[0, 3, 5, 6]", as in a terminal. A gradient is named after the number that it is of, wherever it is met.
    number: (asked) => {
      const ref = Why.origin(asked), { op } = ref;
      if (Why.isGradient(ref)) {
        const unit = Why.unit(ref), whole = Why.gradient(unit), of = `gradient of ${Ops.number(unit)}`;
        return whole && Why.text(whole) !== Why.text(ref) ? `part of the ${of}, through ${Ops.title(op)}` : of;
      }
      const name = Names.of(ref);
      return `${name}${Words.place(ref.index)}${/^\d+\.([xy]\d*)$/.test(name) ? ` (${Ops.title(op)})` : ""}`;
    },
  };
})();
