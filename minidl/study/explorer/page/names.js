"use strict";
// The numbers' names, those of `python -m minidl.study why`: `Names`. conv2.weight[5, 3, 2, 2], conv2.output[0, 5, 3, 3], input[0, 2, 9, 9],
// loss, tensor for one that is shown alone, and of any op its place in the step and a slot, 9.gy[0, 5, 3, 3]; before each may stand "gradient of".

const Names = (() => {
  const known = new Map(); // name -> [{op, slot}], one a tower

  // By the whole name, and by the name without the tower. The last output of a layer counts, and the first input.
  function add(name, op, slot) {
    for (const each of new Set([name, name.replace(/^tower\d+\./, "")])) {
      const found = known.get(each) || [], same = found.findIndex((other) => other.op.layer === op.layer);
      if (same < 0) found.push({ op, slot });
      else if (slot === "y") found[same] = { op, slot };
      known.set(each, found);
    }
  }

  for (const op of step.ops) {
    op.inputs.forEach((x, i) => {
      if (x.parameter) add(x.name, op, `x${i}`);
      else if (x.from === null && !known.has("input")) known.set("input", [{ op, slot: `x${i}` }]);
    });
    if (op.is_layer) {
      if (op.inputs.length) add(`${op.layer}.input`, op, "x0");
      add(`${op.layer}.output`, op, "y");
    }
  }
  const last = step.ops.at(-1);
  if (last.arriving && last.inputs.length) known.set("loss", [{ op: last, slot: "y" }]);

  for (const op of step.ops.filter((op) => op.op === "tensor" && !op.inputs.length)) known.set("tensor", [{ op, slot: "y" }]); // shown alone

  // Of a unit, without its index.
  function of({ op, slot }) {
    const is = (name) => known.get(name)?.some((place) => place.op === op && place.slot === slot);
    if (slot !== "y" && op.inputs[slot.slice(1)].parameter) return op.inputs[slot.slice(1)].name;
    const name = ["loss", "input", "tensor", `${op.layer}.output`].find(is);
    return name || `${op.number}.${slot}`;
  }

  const FORM = /^\s*(gradient of\s+)?([^[\]\s]+)\s*(?:\[([\d\s,]*)\])?\s*$/;

  // The number of a name, {ref}; or what is wrong with it, {problem}.
  function find(text) {
    const [, asked, name, words = ""] = text.match(FORM) || [], slot = /^(\d+)\.(y|gy|[xg]\d+)$/.exec(name || "");
    const op = slot && step.ops[slot[1]], place = slot ? op && { op, slot: slot[2] } : known.get(name)?.[0];
    const exists = place && (/y$/.test(place.slot) || Number(place.slot.slice(1)) < place.op.inputs.length);
    if (!exists) return { problem: `No number has the name ${name || text}. Names are as conv2.weight[5,3,2,2], conv2.output[0,5,3,3], input[0,2,9,9], loss; or gradient of one of them.` };
    const blob = Layers.blob(place.op, place.slot), none = `No gradient came to ${name}: nothing before it is trained.`;
    if (!blob) return { problem: none };
    const index = (words.match(/\d+/g) || []).map(Number), { shape } = blob, wrong = index.findIndex((i, axis) => i >= shape[axis]);
    if (index.length !== shape.length) return { problem: `${name} has ${Words.plural(shape.length, "index").replace("indexs", "indices")}, its shape is ${Words.sizes(shape)}; here ${index.length === 1 ? "is" : "are"} ${index.length}.` };
    if (wrong >= 0) return { problem: `Index ${wrong} of ${name} goes from 0 to ${shape[wrong] - 1}; here it is ${index[wrong]}. The shape is ${Words.sizes(shape)}.` };
    const ref = Why.origin({ ...place, index }), found = asked ? !Why.isGradient(ref) && Why.gradient(ref) : ref;
    if (!found) return { problem: none };
    return Tensors.carries(Why.blobOf(found), found.index) ? { ref: found } : { problem: missing(found) };
  }

  const missing = (ref) => step.partial ? `${Ops.number(ref)} is not here: the view is of ${step.partial} alone.`
    : `The page does not carry ${Ops.number(ref)}, as it would be too large. With --full it does.`;

  return { of, find, missing, known };
})();
