"use strict";
// The step, and its numbers: `Tensors`. How they come along is said in minidl/study/explorer/values.py.

const byId = (id) => document.getElementById(id);
const step = JSON.parse(byId("data").textContent);
// An input that an op made is in the data once, as that op's output.
step.ops.forEach((op) => op.inputs.forEach((x) => { x.blob ??= step.ops[x.from].output; }));

// Places in arrays: indices are lists, flat places are those of C order.
const Index = {
  size: (shape) => shape.reduce((product, n) => product * n, 1),
  flat: (shape, index) => index.reduce((place, i, axis) => place * shape[axis] + i, 0),
  of(shape, place) {
    const index = new Array(shape.length);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = place % shape[axis];
      place = Math.floor(place / shape[axis]);
    }
    return index;
  },
  inside: (shape, index) => index.length === shape.length && index.every((i, axis) => i >= 0 && i < shape[axis]),
  // A setting as Python writes it: "((2, 2), (2, 2))", "(0,)", "True".
  setting: (text) => JSON.parse(text.replace(/\(/g, "[").replace(/,?\)/g, "]").toLowerCase()),
};

const Tensors = (() => {
  const arrays = new Map(); // number -> Float32Array, or a Float64Array of sums
  const waiting = new Map(); // number -> Promise of its text, read
  const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
  const DIGIT = new Uint8Array(128);
  [...ALPHABET].forEach((character, value) => { DIGIT[character.charCodeAt(0)] = value; });

  // Base85: 5 characters for 4 bytes; r characters at the end for r - 1.
  function bytesOf(text) {
    const whole = Math.floor(text.length / 5), left = text.length % 5;
    const bytes = new Uint8Array(4 * whole + Math.max(left - 1, 0));
    let at = 0;
    const word = (digits) => digits.reduce((sum, digit) => sum * 85 + digit, 0);
    for (let i = 0; i < 5 * whole; i += 5) {
      let value = DIGIT[text.charCodeAt(i)];
      for (let k = 1; k < 5; k++) value = value * 85 + DIGIT[text.charCodeAt(i + k)];
      bytes[at++] = value >>> 24;
      bytes[at++] = value >>> 16;
      bytes[at++] = value >>> 8;
      bytes[at++] = value;
    }
    if (left) {
      const value = word([0, 1, 2, 3, 4].map((k) => k < left ? DIGIT[text.charCodeAt(5 * whole + k)] : 84));
      for (let k = 0; k < left - 1; k++) bytes[at++] = value >>> (24 - 8 * k);
    }
    return bytes;
  }

  async function inflated(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // A bit an element, then four planes of bytes of those that are there.
  function unpacked(raw, size) {
    const bits = Math.ceil(size / 8), count = (raw.length - bits) / 4;
    const values = new Float32Array(size), words = new Uint32Array(values.buffer);
    for (let i = 0, at = bits; i < size; i++) {
      if (raw[i >> 3] >> (i & 7) & 1) {
        words[i] = raw[at] | raw[at + count] << 8 | raw[at + 2 * count] << 16 | raw[at + 3 * count] << 24;
        at++;
      }
    }
    return values;
  }

  // How many elements: the recipes have no shapes, since arrays of different shapes share their numbers.
  const sizes = new Map();
  const note = (blob) => {
    if (!blob) return;
    sizes.set(blob.values, Index.size(blob.shape));
    if ("blocks" in blob) {
      const [rows, columns] = Tensors.matrix(blob.shape).map((n) => Math.min(n, 64));
      sizes.set(blob.blocks, rows * columns);
      if ("window" in blob) sizes.set(blob.window, rows * columns);
    }
  };

  // What must be there before number n can be computed.
  function needs(n) {
    const recipe = step.values[n];
    if (recipe.how === "add") return recipe.of;
    if (!("op" in recipe)) return [];
    const op = step.ops[recipe.op], inputs = op.inputs.map((x) => x.blob.values);
    const mask = "mask" in op.about ? [op.about.mask] : [];
    if (recipe.how === "forward") return [...inputs, ...mask];
    const met = recipe.how === "backward" ? inputs : inputs.slice(0, recipe.input === 0 ? 2 : 1);
    return [...met, op.output.values, op.arriving.values, ...mask];
  }

  const known = new Map();
  // Does the page have this array's every number?
  function has(n) {
    if (n === undefined || n === null) return false;
    if (!known.has(n)) {
      const { how } = step.values[n];
      known.set(n, false);
      known.set(n, how === "stored" || (how !== "left out" && needs(n).every(has)));
    }
    return known.get(n);
  }

  // The texts come last in the page: what is shown first need not wait for them.
  const texts = new Promise((done) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done);
    else done();
  });

  // Everything that these need, read; from then on `get` answers.
  async function load(numbers) {
    await texts;
    const all = new Set(), visit = (n) => {
      if (all.has(n) || !has(n)) return;
      all.add(n);
      if (!arrays.has(n)) needs(n).forEach(visit);
    };
    numbers.forEach(visit);
    await Promise.all([...all].filter((n) => "text" in step.values[n] && !arrays.has(n)).map((n) => {
      if (!waiting.has(n)) {
        waiting.set(n, inflated(bytesOf(byId(`text-${step.values[n].text}`).textContent)).then((raw) => {
          arrays.set(n, unpacked(raw, sizes.get(n)));
        }));
      }
      return waiting.get(n);
    }));
  }

  // The array of a number that was loaded; null if the page has none.
  function get(n) {
    if (arrays.has(n)) return arrays.get(n);
    if (!has(n)) return null;
    const recipe = step.values[n];
    if (recipe.how === "stored") throw new Error(`array ${n} was not loaded`);
    const made = recipe.how === "add" ? sum(recipe.of.map(get)) : Layers.made(step.ops[recipe.op], recipe);
    arrays.set(n, made);
    return made;
  }

  function sum([first, ...others]) {
    const total = Float32Array.from(first);
    for (const other of others) for (let i = 0; i < total.length; i++) total[i] += other[i];
    return total;
  }

  // What a picture needs of an array, at its flat places: the array itself, or one that has only the tiles' elements.
  function numbers(blob, tiles, w, h, every, stride) {
    const { how, input } = step.values[blob.values];
    if (how !== "product" && (how !== "sums" || input === 0 || arrays.has(blob.values)) && has(blob.values)) return get(blob.values);
    const sparse = {};
    for (const { from } of tiles) {
      for (let j = 0; j < h; j++) {
        for (let k = 0; k < w; k++) {
          const place = from + j * stride + k * every;
          sparse[place] = at(blob, Index.of(blob.shape, place));
        }
      }
    }
    return sparse;
  }

  // One number of an array; null if the page hasn't it.
  function at(blob, index) {
    const recipe = step.values[blob.values], place = Index.flat(blob.shape, index);
    if (recipe.how === "product" || (recipe.how === "sums" && !arrays.has(blob.values))) {
      return needs(blob.values).every(has) ? Layers.one(step.ops[recipe.op], recipe, index) : null;
    }
    if (has(blob.values)) return get(blob.values)[place];
    const inside = inWindow(blob, place);
    return inside === null ? null : get(blob.window)[inside];
  }

  // Where a flat place is in the window of a matrix that did not come along; null outside.
  function inWindow(blob, place) {
    if (!("window" in blob)) return null;
    const [rows, columns] = Tensors.matrix(blob.shape), [i, j] = [Math.floor(place / columns), place % columns];
    const shown = Math.min(columns, 64);
    return i < Math.min(rows, 64) && j < shown ? i * shown + j : null;
  }

  // Has the page this number, or what it is computed from?
  const carries = (blob, index) => has(blob.values) || inWindow(blob, Index.flat(blob.shape, index)) !== null;

  function start() {
    for (const op of step.ops) {
      op.inputs.forEach((x) => note(x.blob));
      [op.output, op.arriving, ...op.leaving, step.of_batch?.total].forEach(note);
      if ("mask" in op.about) sizes.set(op.about.mask, Index.size(op.output.shape));
      for (const [direction, count] of [["forward", op.output], ["backward", op.inputs[0]?.blob]]) {
        const terms = op.about[direction];
        if (!terms) continue;
        const rows = Index.size(count.shape);
        sizes.set(terms.places, rows * terms.kept).set(terms.factors, rows * terms.kept).set(terms.rest, rows);
      }
    }
  }

  return {
    load, get, has, carries, at, numbers, note, start,
    matrix: (shape) => [shape[0], Index.size(shape.slice(1))],
    // Arrays that may differ from minidl's in their last bits, by at most this; null for the others.
    worst: (blob) => step.values[blob.values].worst ?? null,
  };
})();
Tensors.start();
