"use strict";
// Why a number is what it is: `Why`. A ref is {op, slot, index}; see layers.js for slots. As text it is "9.y.0.3.5.6".

const Why = (() => {
  const consumers = step.ops.map(() => []); // op -> [[op, place of the input]]
  step.ops.forEach((op) => op.inputs.forEach((x, i) => {
    if (x.from !== null) consumers[x.from].push([op, i]);
  }));

  const text = (ref) => [ref.op.number, ref.slot, ...ref.index].join(".");

  // null for what is no number of this step.
  function parse(words) {
    const [number, slot, ...index] = words.split("."), op = step.ops[number];
    if (!op || !/^(y|gy|[xgd]\d+)$/.test(slot || "")) return null;
    const place = Number(slot.slice(1)), exists = slot === "y" || slot === "gy" || (slot[0] === "d" ? isFirstUse(op, place) : place < op.inputs.length);
    const blob = exists ? Layers.blob(op, slot) : null;
    const ref = { op, slot, index: index.map(Number) };
    return blob && ref.index.every(Number.isInteger) && Index.inside(blob.shape, ref.index) ? ref : null;
  }

  const blobOf = (ref) => Layers.blob(ref.op, ref.slot);

  // What the model was given, where several ops use it: all its uses, and the first one, which stands for it.
  const batchUses = step.of_batch ? step.of_batch.uses : [];
  const isBatch = (op, i) => batchUses.some(([n, k]) => n === op.number && k === i);
  const isFirstUse = (op, i) => batchUses.length > 0 && batchUses[0].join() === [op.number, i].join();

  // Who gave the op's output a gradient.
  const givers = (op) => consumers[op.number].filter(([other, i]) => other.leaving[i]);

  // The number where it was made: an input is another op's output, a gradient that arrives from one consumer is what left that.
  function origin({ op, slot, index }) {
    const x = slot[0] === "x" ? op.inputs[slot.slice(1)] : null;
    if (x && x.from !== null) return { op: step.ops[x.from], slot: "y", index };
    if (x && isBatch(op, Number(slot.slice(1)))) return { op: step.ops[batchUses[0][0]], slot: `x${batchUses[0][1]}`, index };
    if (slot === "gy" && givers(op).length === 1) {
      const [[other, i]] = givers(op);
      return origin({ op: other, slot: `g${i}`, index });
    }
    return { op, slot, index };
  }

  // A number that only was copied to where it is, from where it was made: a path need not stop at every copy.
  const COPIES = ["to_device", "cat", "reshape", "permute", "pad"];
  function beyond(ref) {
    let at = origin(ref);
    for (;;) {
      const { op, slot, index } = at, layer = COPIES.includes(op.op) ? Layers.of(op) : null;
      if (!layer || slot[0] === "x" || slot === "gy" || slot[0] === "d") return at;
      const [source] = slot === "y" ? layer.from(op, index).map(({ slot: x, low }) => ({ op, slot: x, index: low }))
        : layer.reach(op, Number(slot.slice(1)), index).map((out) => ({ op, slot: "gy", index: out }));
      if (!source || !Layers.blob(op, source.slot)) return at;
      at = origin(source);
    }
  }

  const isGradient = (ref) => ref.slot[0] === "g" || ref.slot[0] === "d";

  // The unit whose number or gradient this is: its value's ref.
  function unit({ op, slot, index }) {
    if (slot === "gy") return { op, slot: "y", index };
    return origin({ op, slot: slot.replace(/^[gd]/, "x"), index });
  }

  // The gradient of a unit: of an output what arrived, of a parameter or an input what left; null if none came.
  function gradient(ref) {
    const { op, slot, index } = unit(ref), whole = slot[0] === "x" && isBatch(op, Number(slot.slice(1)));
    const of = slot === "y" ? "gy" : slot.replace("x", whole ? "d" : "g");
    return Layers.blob(op, of) ? origin({ op, slot: of, index }) : null;
  }

  // All arrays that an answer about an op reads.
  function arrays(op) {
    const blobs = [...op.inputs.map((x) => x.blob), op.output, op.arriving, ...op.leaving].filter(Boolean);
    const kept = ["forward", "backward"].flatMap((d) => op.about[d] ? ["places", "factors", "rest"].map((name) => op.about[d][name]) : []);
    if (batchUses.some(([n]) => n === op.number)) blobs.push(step.of_batch.total);
    return [...blobs.flatMap((b) => [b.values, ...("window" in b ? [b.window] : [])]), ...kept, ...("mask" in op.about ? [op.about.mask] : [])];
  }

  // What the terms of a number are made of, and the number itself.
  function needed({ op, slot }) {
    const own = blobOf({ op, slot }), given = slot === "gy" ? givers(op) : slot[0] === "d" ? batchUses.map(([n, i]) => [step.ops[n], i]) : [];
    if (slot === "gy" || slot[0] === "d" || slot[0] === "x") return [own, ...given.map(([other, i]) => other.leaving[i])].map((b) => b.values);
    const inputs = op.inputs.map((x) => x.blob), kept = op.about[slot === "y" ? "forward" : "backward"];
    const blobs = [own, ...inputs, op.output, ...(slot !== "y" && op.arriving ? [op.arriving] : [])];
    return [...blobs.map((b) => b.values), ...blobs.flatMap((b) => "window" in b ? [b.window] : []),
      ...(kept ? [kept.places, kept.factors, kept.rest] : []), ...("mask" in op.about ? [op.about.mask] : [])];
  }

  const load = (ref) => Tensors.load(needed(ref));

  // What the number is made of. {ref, value, kind, ...}:
  //   kind "terms" has formula, terms, notes, sum, and perhaps rest {value, count}, rectified, side {title, terms, sum};
  //   "added" is the same, of the gradients of several consumers; "leaf" nothing made it; "unknown" its terms are not written out.
  async function explain(asked) {
    const ref = origin(asked);
    await load(ref);
    return explained(ref);
  }

  function explained(ref) {
    const { op, slot, index } = ref, value = Tensors.at(blobOf(ref), index), base = { ref, value };
    if (op.op === "tensor" && !op.inputs.length) return { ...base, kind: "leaf", what: "alone" };
    if (slot[0] === "x") return { ...base, kind: "leaf", what: op.inputs[slot.slice(1)].parameter ? "parameter" : "input" };
    if (slot === "gy" || slot[0] === "d") {
      const from = slot === "gy" ? givers(op) : batchUses.map(([n, i]) => [step.ops[n], i]);
      if (!from.length) return { ...base, kind: "leaf", what: "seed" };
      const terms = from.map(([other, i]) => {
        const part = { op: other, slot: `g${i}`, index, value: Tensors.at(other.leaving[i], index), slope: 1 };
        return { name: Ops.title(other), value: part.value, parts: [part] };
      });
      return finished(base, { formula: `${slot === "gy" ? "gy" : "gx"} = the sum of what came back from each op that used the number`, terms, notes: [], over: "ops that used it" }, "added");
    }
    const layer = Layers.of(op), make = layer && layer.terms[slot];
    const found = make && Tensors.has(op.output.values) ? attempted(make, op, index) : null;
    if (!found) return { ...base, kind: "unknown", missing: layer ? missing(op) : [] };
    for (const term of [...found.terms, ...(found.side ? found.side.terms : [])]) {
      term.parts = term.parts.map((part) => ({ op, ...part }));
    }
    return finished(base, found, "terms");
  }

  // Nothing where an array that the terms need was left out.
  function attempted(make, op, index) {
    const needed = [...op.inputs.filter((x) => !x.parameter || op.op !== "linear").map((x) => x.blob), ...(op.arriving ? [op.arriving] : [])];
    return needed.every((blob) => Tensors.has(blob.values)) ? make(op, index) : null;
  }

  const missing = (op) => op.inputs.filter((x) => !Tensors.has(x.blob.values)).map((x) => x.name);

  function finished(base, found, kind) {
    const before = found.terms.reduce((sum, term) => sum + term.value, 0) + (found.rest ? found.rest.value : 0);
    const sum = found.rectified ? Math.max(before, 0) : before;
    const size = (found.stretch || 1) * found.terms.reduce((total, term) => total + Math.abs(term.value), 0) + (found.rest ? Math.abs(found.rest.value) : 0);
    const count = found.terms.length + (found.rest ? found.rest.count : 0);
    const value = base.value === null ? sum : base.value, isCarried = base.value !== null && Tensors.worst(blobOf(base.ref)) === null;
    return { ...base, ...found, kind, value, isCarried, before, sum, count, ...agreement(value, sum, size, count) };
  }

  // To how many digits value and sum are the same, and whether that is what float32 allows: n terms, each product and each addition
  // rounded by at most 2^-24 of it, in an unknown order. Roundings go up and down, so the error is about that of a walk of n steps;
  // twice the root of n is rarely passed. `stretch` is for a term that is more than a product: by how much its roundings grow.
  const MOST_DIGITS = 6;
  function agreement(value, sum, size, count) {
    const bound = 2 * Math.sqrt(count + 4) * 2 ** -24 * size;
    let digits = MOST_DIGITS;
    while (digits > 1 && value.toPrecision(digits) !== sum.toPrecision(digits)) digits--;
    return { digits, bound, agrees: Math.abs(value - sum) <= bound };
  }

  // Can a number be nudged? Not the loss itself: nothing comes after it.
  const canBeNudged = (ref) => Boolean(gradient(ref)) && usesOf(unit(ref)).length > 0;
  const usesOf = ({ op, slot }) => {
    if (slot === "y") return consumers[op.number];
    const i = Number(slot.slice(1));
    return isBatch(op, i) ? batchUses.map(([n, k]) => [step.ops[n], k]) : [[op, i]];
  };

  // Nudges a unit by eps up and down, computes again, in float64, every output that it reaches, and asks by how much the loss
  // changes: sum of gy * dy / 2 eps. That is numeric; analytic is the gradient that backward gave. At a kink, as where two pixels
  // tie under a pool, the slopes upward and downward differ. null: something is not here.
  async function proof(asked) {
    const at = unit(asked), { index } = at;
    const uses = usesOf(at);
    await Tensors.load([at.op, ...uses.map(([other]) => other)].flatMap(arrays));
    const slopeOf = gradient(at), analytic = slopeOf && explainedValue(slopeOf);
    const known = chosen(uses, index);
    if (known) return { ...known, by: "python" };
    const x = Tensors.at(blobOf(at), index), eps = 1e-4 * Math.max(Math.abs(x), 1e-2);
    let up = 0, down = 0, outputs = 0;
    for (const [other, i] of uses) {
      const layer = Layers.of(other);
      if (!layer || !other.arriving || x === null || analytic === null) return null;
      for (const out of layer.reach(other, i, index)) {
        const [below, here, above] = [x - eps, x, x + eps].map((value) => layer.evaluate(other, out, i, index, value));
        if (above === null) return null;
        const gy = Tensors.at(other.arriving, out);
        up += gy * (above - here) / eps;
        down += gy * (here - below) / eps;
        outputs++;
      }
    }
    const kink = Math.abs(up - down) > 1e-2 * Math.max(Math.abs(up), Math.abs(down));
    return { numeric: (up + down) / 2, up, down, kink, analytic, eps, outputs, by: "page" };
  }

  const explainedValue = (ref) => Tensors.at(blobOf(ref), ref.index) ?? explained(ref).value ?? null;

  // What Python computed beforehand, where the page hasn't the weights.
  function chosen(uses, index) {
    for (const [op, i] of uses) {
      const found = (op.about.proofs || []).find((proof) => proof.input === i && proof.index.join() === index.join());
      if (found) return found;
    }
    return null;
  }

  // By how much the first number grows with the second, on the direct way: the slopes of the terms that have it as a part.
  function slope(answer, next) {
    const wanted = text(next), parts = [...(answer.terms || [])].flatMap((term) => term.parts);
    const slopes = parts.filter((part) => text(origin(part)) === wanted || text(beyond(part)) === wanted).map((part) => part.slope);
    return slopes.length && !slopes.includes(null) ? slopes.reduce((a, b) => a + b, 0) : null;
  }

  // Where the number goes: for each op that uses it the outputs that it reaches, as [{op, outputs}].
  function reached(ref) {
    const { index } = unit(ref);
    return usesOf(unit(ref)).filter(([other]) => Layers.of(other)).map(([other, i]) => ({ op: other, outputs: Layers.of(other).reach(other, i, index) }));
  }

  return { valueOf: explainedValue, beyond, givers, isBatch, text, parse, origin, unit, gradient, isGradient, blobOf, load, arrays, explain, explained, proof, slope, reached, canBeNudged };
})();
