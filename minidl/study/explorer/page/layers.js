"use strict";
// What each op computes, one number at a time and in float64, and in which order: `Layers`. It is the mathematics of minidl/ops, once
// more and only here. Of an op that is not here the page says that its terms are not written out.
//
// Slots name an op's arrays: x0, x1, ... its inputs, y its output, gy the gradient that arrived, g0, g1, ... those that left; and d0
// the whole gradient of what the model was given, where several ops used it.
// A term is {value, parts: [{slot, index, value, slope}]}: the value is the product of the parts' values and of what its name says,
// and the slope is by how much the sum grows for each unit of the part. A slope of null: it is not one factor.

const Layers = (() => {
  const round = Math.fround;
  const shapeOf = (op, slot) => Layers.blob(op, slot).shape;
  const values = (op, slot) => Tensors.get(Layers.blob(op, slot).values);
  const part = (slot, index, value, slope) => ({ slot, index, value, slope });
  const at = (op, slot, index) => Tensors.at(Layers.blob(op, slot), index);
  const read = new Map(); // "op.name" -> a setting
  function setting(op, name) {
    const key = `${op.number}.${name}`;
    if (!read.has(key)) read.set(key, Index.setting(op.settings[name]));
    return read.get(key);
  }

  // Output places i and kernel elements u with i*stride + u*dilation - padding = h: [[i, u], ...].
  function places(h, out, kernel, stride, padding, dilation) {
    const found = [];
    for (let u = 0; u < kernel; u++) {
      const first = h + padding - u * dilation;
      if (first >= 0 && first % stride === 0 && first / stride < out) found.push([first / stride, u]);
    }
    return found;
  }

  // The pixels under the window at output (i, j), in the order of the kernel's elements: visit(u, v, h, k).
  function under(g, i, j, visit) {
    for (let u = 0; u < g.KH; u++) {
      const h = i * g.sh + u * g.dh - g.top;
      if (h < 0 || h >= g.H) continue;
      for (let v = 0; v < g.KW; v++) {
        const k = j * g.sw + v * g.dw - g.left;
        if (k >= 0 && k < g.W) visit(u, v, h, k);
      }
    }
  }

  const range = (n) => [...Array(n).keys()];
  const product = (...lists) => lists.reduce((rows, list) => rows.flatMap((row) => list.map((item) => [...row, item])), [[]]);

  // ----------------------------------------------------------------------------------------------------- convolution

  const geometries = new Map();
  function geometry(op) {
    if (!geometries.has(op.number)) {
      const [, C, H, W] = shapeOf(op, "x0"), [O, cg, KH, KW] = shapeOf(op, "x1"), [, , OH, OW] = shapeOf(op, "y");
      const [[top], [left]] = setting(op, "padding"), [sh, sw] = setting(op, "stride"), [dh, dw] = setting(op, "dilation");
      const groups = setting(op, "groups");
      geometries.set(op.number, { C, H, W, O, cg, KH, KW, OH, OW, top, left, sh, sw, dh, dw, each: O / groups });
    }
    return geometries.get(op.number);
  }

  const isOn = (op, y, place) => op.op !== "conv2d_relu" || y[place] > 0;

  // Before the ReLU, if there is one, with input number `i` at flat place `changed` replaced.
  function convolved(op, [n, o, i, j], which = -1, changed = -1, replaced = 0) {
    const g = geometry(op), x = values(op, "x0"), w = values(op, "x1"), first = Math.floor(o / g.each) * g.cg;
    let sum = 0;
    if (op.inputs.length > 2) sum = which === 2 && changed === o ? replaced : values(op, "x2")[o];
    under(g, i, j, (u, v, h, k) => {
      for (let c = 0; c < g.cg; c++) {
        const atX = ((n * g.C + first + c) * g.H + h) * g.W + k, atW = ((o * g.cg + c) * g.KH + u) * g.KW + v;
        sum += (which === 0 && atX === changed ? replaced : x[atX]) * (which === 1 && atW === changed ? replaced : w[atW]);
      }
    });
    return sum;
  }

  function convolutionTerms(op, [n, o, i, j]) {
    const g = geometry(op), x = values(op, "x0"), w = values(op, "x1"), first = Math.floor(o / g.each) * g.cg, terms = [];
    under(g, i, j, (u, v, h, k) => {
      for (let c = 0; c < g.cg; c++) {
        const a = w[((o * g.cg + c) * g.KH + u) * g.KW + v], b = x[((n * g.C + first + c) * g.H + h) * g.W + k];
        terms.push({ value: a * b, parts: [part("x1", [o, c, u, v], a, b), part("x0", [n, first + c, h, k], b, a)] });
      }
    });
    const outside = g.cg * g.KH * g.KW - terms.length;
    if (op.inputs.length > 2) {
      const b = values(op, "x2")[o];
      terms.push({ name: "b", value: b, parts: [part("x2", [o], b, 1)] });
    }
    const notes = outside ? [`${outside} more meet the padding, where x is 0.`] : [];
    const rectified = op.op === "conv2d_relu";
    return { formula: rectified ? "y[n,o,i,j] = max(0, b[o] + Σ w[o,c,u,v] · x[n,c,h,k])" : "y[n,o,i,j] = b[o] + Σ w[o,c,u,v] · x[n,c,h,k]",
      terms, notes, rectified };
  }

  function convolutionInputTerms(op, [n, c, h, k]) {
    const g = geometry(op), w = values(op, "x1"), gy = values(op, "gy"), y = values(op, "y"), terms = [];
    const group = Math.floor(c / g.cg);
    let off = 0;
    for (const [i, u] of places(h, g.OH, g.KH, g.sh, g.top, g.dh)) {
      for (const [j, v] of places(k, g.OW, g.KW, g.sw, g.left, g.dw)) {
        for (let o = group * g.each; o < (group + 1) * g.each; o++) {
          const to = ((n * g.O + o) * g.OH + i) * g.OW + j;
          if (!isOn(op, y, to)) {
            off++;
            continue;
          }
          const a = w[((o * g.cg + c - group * g.cg) * g.KH + u) * g.KW + v];
          terms.push({ value: a * gy[to], parts: [part("x1", [o, c - group * g.cg, u, v], a, gy[to]), part("gy", [n, o, i, j], gy[to], a)] });
        }
      }
    }
    return { formula: "gx[n,c,h,k] = Σ w[o,c,u,v] · gy[n,o,i,j], over the outputs (o,i,j) that it fed",
      terms, notes: gateNote(off), over: "outputs that it fed" };
  }

  const gateNote = (off) => off ? [`${off} more outputs were 0: the ReLU was off, and nothing came back through it.`] : [];

  function convolutionWeightTerms(op, [o, c, u, v]) {
    const g = geometry(op), x = values(op, "x0"), gy = values(op, "gy"), y = values(op, "y"), terms = [];
    const channel = Math.floor(o / g.each) * g.cg + c, images = shapeOf(op, "x0")[0];
    let off = 0, outside = 0;
    for (const [n, i, j] of product(range(images), range(g.OH), range(g.OW))) {
      const h = i * g.sh + u * g.dh - g.top, k = j * g.sw + v * g.dw - g.left;
      const to = ((n * g.O + o) * g.OH + i) * g.OW + j;
      if (!isOn(op, y, to)) off++;
      else if (h < 0 || h >= g.H || k < 0 || k >= g.W) outside++;
      else {
        const b = x[((n * g.C + channel) * g.H + h) * g.W + k];
        terms.push({ value: gy[to] * b, parts: [part("gy", [n, o, i, j], gy[to], b), part("x0", [n, channel, h, k], b, gy[to])] });
      }
    }
    const notes = [...gateNote(off), ...(outside ? [`At ${outside} places it met the padding, where x is 0.`] : [])];
    return { formula: "gw[o,c,u,v] = Σ gy[n,o,i,j] · x[n,c,h,k], over all places (i,j)", terms, notes, over: "places" };
  }

  function convolutionBiasTerms(op, [o]) {
    const g = geometry(op), gy = values(op, "gy"), y = values(op, "y"), images = shapeOf(op, "x0")[0], terms = [];
    let off = 0;
    for (const [n, i, j] of product(range(images), range(g.OH), range(g.OW))) {
      const to = ((n * g.O + o) * g.OH + i) * g.OW + j;
      if (isOn(op, y, to)) terms.push({ value: gy[to], parts: [part("gy", [n, o, i, j], gy[to], 1)] });
      else off++;
    }
    return { formula: "gb[o] = Σ gy[n,o,i,j], over all places (i,j)", terms, notes: gateNote(off), over: "places" };
  }

  // One element of gx, added up in float64.
  function convolutionInput(op, [n, c, h, k]) {
    const g = geometry(op), w = values(op, "x1"), gy = values(op, "gy"), y = values(op, "y"), gated = op.op === "conv2d_relu";
    const group = Math.floor(c / g.cg), own = c - group * g.cg, plane = g.OH * g.OW, each = g.cg * g.KH * g.KW;
    const columns = places(k, g.OW, g.KW, g.sw, g.left, g.dw);
    let sum = 0;
    for (const [i, u] of places(h, g.OH, g.KH, g.sh, g.top, g.dh)) {
      for (const [j, v] of columns) {
        let to = ((n * g.O + group * g.each) * g.OH + i) * g.OW + j, at = ((group * g.each * g.cg + own) * g.KH + u) * g.KW + v;
        for (let o = 0; o < g.each; o++, to += plane, at += each) if (!gated || y[to] > 0) sum += w[at] * gy[to];
      }
    }
    return sum;
  }

  // All of gx, added up in float64: where the ReLU is off, and most are, nothing is added.
  function convolutionInputs(op) {
    const g = geometry(op), w = values(op, "x1"), gy = values(op, "gy"), y = values(op, "y"), gated = op.op === "conv2d_relu";
    const [N, , H, W] = shapeOf(op, "x0"), gx = new Float64Array(Index.size(shapeOf(op, "x0")));
    for (let to = 0; to < N * g.O * g.OH * g.OW; to++) {
      const slope = gy[to];
      if (slope === 0 || (gated && y[to] <= 0)) continue;
      const j = to % g.OW, i = Math.floor(to / g.OW) % g.OH, map = Math.floor(to / (g.OW * g.OH)), o = map % g.O;
      const first = (Math.floor(map / g.O) * g.C + Math.floor(o / g.each) * g.cg) * H, h = i * g.sh - g.top, k = j * g.sw - g.left;
      const low = Math.max(0, Math.ceil(-k / g.dw)), high = Math.min(g.KW, Math.ceil((W - k) / g.dw));
      for (let c = 0; c < g.cg; c++) {
        for (let u = 0; u < g.KH; u++) {
          const row = h + u * g.dh, from = ((o * g.cg + c) * g.KH + u) * g.KW, at = (first + c * H + row) * W + k;
          if (row < 0 || row >= H) continue;
          for (let v = low; v < high; v++) gx[at + v * g.dw] += slope * w[from + v];
        }
      }
    }
    return gx;
  }

  // One element of gw, added up in float64.
  function convolutionWeight(op, [o, c, u, v]) {
    const g = geometry(op), x = values(op, "x0"), gy = values(op, "gy"), y = values(op, "y");
    const channel = Math.floor(o / g.each) * g.cg + c, images = shapeOf(op, "x0")[0], gated = op.op === "conv2d_relu";
    let sum = 0;
    for (let n = 0; n < images; n++) {
      for (let i = 0; i < g.OH; i++) {
        const h = i * g.sh + u * g.dh - g.top;
        if (h < 0 || h >= g.H) continue;
        let to = ((n * g.O + o) * g.OH + i) * g.OW, k = v * g.dw - g.left;
        const row = ((n * g.C + channel) * g.H + h) * g.W;
        for (let j = 0; j < g.OW; j++, to++, k += g.sw) {
          if (k >= 0 && k < g.W && (!gated || y[to] > 0)) sum += gy[to] * x[row + k];
        }
      }
    }
    return sum;
  }

  const convolution = {
    terms: {
      y: convolutionTerms,
      g0: convolutionInputTerms,
      g1: convolutionWeightTerms,
      g2: convolutionBiasTerms,
    },
    one: [convolutionInput, convolutionWeight],
    sums: convolutionInputs,
    reach(op, i, index) {
      const g = geometry(op), images = shapeOf(op, "x0")[0];
      if (i > 0) return product(range(images), [index[0]], range(g.OH), range(g.OW));
      const [n, c, h, k] = index, group = Math.floor(c / g.cg), filters = range(g.each).map((o) => group * g.each + o);
      const rows = places(h, g.OH, g.KH, g.sh, g.top, g.dh), columns = places(k, g.OW, g.KW, g.sw, g.left, g.dw);
      return product([n], filters, rows.map(([a]) => a), columns.map(([a]) => a));
    },
    from(op, [n, o, i, j]) {
      const g = geometry(op), first = Math.floor(o / g.each) * g.cg, h = i * g.sh - g.top, k = j * g.sw - g.left;
      return [
        { slot: "x0", low: [n, first, h, k], high: [n, first + g.cg - 1, h + (g.KH - 1) * g.dh, k + (g.KW - 1) * g.dw] },
        { slot: "x1", low: [o, 0, 0, 0], high: [o, g.cg - 1, g.KH - 1, g.KW - 1] },
        ...(op.inputs.length > 2 ? [{ slot: "x2", low: [o], high: [o] }] : []),
      ];
    },
    evaluate(op, index, i, changed, value) {
      const sum = convolved(op, index, i, Index.flat(shapeOf(op, `x${i}`), changed), value);
      return op.op === "conv2d_relu" ? Math.max(sum, 0) : sum;
    },
  };

  // ---------------------------------------------------------------------------------------------------------- linear

  const rowsOf = (op) => Index.size(shapeOf(op, "x0")) / shapeOf(op, "x0").at(-1);

  // Terms of a sum over a matrix that did not come along: the largest, and what the others add up to.
  function keptTerms(op, direction, row, other, makeParts) {
    const kept = op.about[direction];
    if (!kept || ![kept.places, kept.factors, kept.rest].every(Tensors.has)) return null;
    const places = Tensors.get(kept.places), factors = Tensors.get(kept.factors), rest = Tensors.get(kept.rest);
    const terms = range(kept.kept).map((k) => {
      const place = places[row * kept.kept + k], factor = factors[row * kept.kept + k];
      return { value: factor * other[place], parts: makeParts(place, factor, other[place]) };
    });
    const count = other.reduce((n, v) => n + (v !== 0 ? 1 : 0), 0) - terms.filter(({ value }) => value !== 0).length;
    return { terms: terms.filter(({ value }) => value !== 0), rest: { value: rest[row], count } };
  }

  function linearTerms(op, index) {
    const x = values(op, "x0"), I = shapeOf(op, "x0").at(-1), o = index.at(-1), lead = index.slice(0, -1);
    const row = Math.floor(Index.flat(shapeOf(op, "y"), index) / shapeOf(op, "y").at(-1));
    const parts = (k, a, b) => [part("x1", [o, k], a, b), part("x0", [...lead, k], b, a)];
    let found = { terms: [], rest: null };
    if (Tensors.has(op.inputs[1].blob.values)) {
      const w = values(op, "x1");
      found.terms = range(I).map((k) => ({ value: w[o * I + k] * x[row * I + k], parts: parts(k, w[o * I + k], x[row * I + k]) }));
    } else found = keptTerms(op, "forward", o, x, parts);
    if (!found) return null;
    const b = op.inputs.length > 2 ? values(op, "x2")[o] : null;
    const bias = b === null ? [] : [{ name: "b", value: b, parts: [part("x2", [o], b, 1)] }];
    const all = found.rest ? null : found.terms.filter(({ value }) => value !== 0);
    const zeros = found.terms.length - (all || found.terms).length;
    return { formula: "y[o] = b[o] + Σ w[o,k] · x[k]", terms: [...bias, ...(all || found.terms)], rest: found.rest,
      notes: zeros ? [`${zeros} more are 0, as x is 0 there.`] : [] };
  }

  function linearInputTerms(op, index) {
    const gy = values(op, "gy"), [O, I] = shapeOf(op, "x1"), k = index.at(-1), lead = index.slice(0, -1);
    const row = Math.floor(Index.flat(shapeOf(op, "x0"), index) / I);
    const parts = (o, a, b) => [part("x1", [o, k], a, b), part("gy", [...lead, o], b, a)];
    let found = { terms: [], rest: null };
    if (Tensors.has(op.inputs[1].blob.values)) {
      const w = values(op, "x1");
      found.terms = range(O).map((o) => ({ value: w[o * I + k] * gy[row * O + o], parts: parts(o, w[o * I + k], gy[row * O + o]) }));
    } else found = keptTerms(op, "backward", k, gy, parts);
    return found && { formula: "gx[k] = Σ w[o,k] · gy[o], over the outputs o that it fed", notes: [], over: "outputs that it fed", ...found };
  }

  const linear = {
    terms: {
      y: linearTerms,
      g0: linearInputTerms,
      g1(op, [o, k]) {
        const x = values(op, "x0"), gy = values(op, "gy"), [O, I] = shapeOf(op, "x1"), shape = shapeOf(op, "x0").slice(0, -1);
        const terms = range(rowsOf(op)).map((row) => {
          const lead = Index.of(shape, row), a = gy[row * O + o], b = x[row * I + k];
          return { value: a * b, parts: [part("gy", [...lead, o], a, b), part("x0", [...lead, k], b, a)] };
        });
        return { formula: "gw[o,k] = gy[o] · x[k]", terms, notes: [] };
      },
      g2(op, [o]) {
        const gy = values(op, "gy"), O = shapeOf(op, "x1")[0], shape = shapeOf(op, "x0").slice(0, -1);
        const terms = range(rowsOf(op)).map((row) =>
          ({ value: gy[row * O + o], parts: [part("gy", [...Index.of(shape, row), o], gy[row * O + o], 1)] }));
        return { formula: "gb[o] = gy[o]", terms, notes: [] };
      },
    },
    one: [null, (op, [o, k]) => {
      const x = values(op, "x0"), gy = values(op, "gy"), [O, I] = shapeOf(op, "x1"), rows = rowsOf(op);
      if (rows === 1) return round(gy[o] * x[k]);
      let sum = 0;
      for (let row = 0; row < rows; row++) sum += gy[row * O + o] * x[row * I + k];
      return sum;
    }],
    reach(op, i, index) {
      const shape = shapeOf(op, "x0").slice(0, -1), O = shapeOf(op, "x1")[0];
      if (i === 0) return range(O).map((o) => [...index.slice(0, -1), o]);
      return range(rowsOf(op)).map((row) => [...Index.of(shape, row), index[0]]);
    },
    from(op, index) {
      const o = index.at(-1), lead = index.slice(0, -1), I = shapeOf(op, "x0").at(-1);
      return [
        { slot: "x0", low: [...lead, 0], high: [...lead, I - 1] },
        { slot: "x1", low: [o, 0], high: [o, I - 1] },
        ...(op.inputs.length > 2 ? [{ slot: "x2", low: [o], high: [o] }] : []),
      ];
    },
    evaluate(op, index, i, changed, value) {
      if (!Tensors.has(op.inputs[1].blob.values)) return null;
      const x = values(op, "x0"), w = values(op, "x1"), I = shapeOf(op, "x0").at(-1), o = index.at(-1);
      const row = Math.floor(Index.flat(shapeOf(op, "y"), index) / shapeOf(op, "y").at(-1));
      const place = Index.flat(shapeOf(op, `x${i}`), changed);
      let sum = op.inputs.length < 3 ? 0 : i === 2 && place === o ? value : values(op, "x2")[o];
      for (let k = 0; k < I; k++) {
        sum += (i === 0 && place === row * I + k ? value : x[row * I + k]) * (i === 1 && place === o * I + k ? value : w[o * I + k]);
      }
      return sum;
    },
  };

  // --------------------------------------------------------------------------------------------------- normalisation

  const lrn = (op) => ({ size: setting(op, "size"), alpha: setting(op, "alpha"), beta: setting(op, "beta"), k: setting(op, "k") });

  // Channels of the window of channel c: [first, last]; reversed: those whose window has c in it.
  function window(op, c, reversed = false) {
    const { size } = lrn(op), C = shapeOf(op, "x0")[1], before = reversed ? (size - 1) >> 1 : size >> 1;
    return [Math.max(0, c - before), Math.min(C - 1, c - before + size - 1)];
  }

  // The element of another channel at the same pixel, and the denominator d, in float64.
  const inChannel = (index, c) => [index[0], c, ...index.slice(2)];
  function denominator(op, index, changed = null, value = 0) {
    const { size, alpha, k } = lrn(op), x = values(op, "x0"), shape = shapeOf(op, "x0"), [first, last] = window(op, index[1]);
    let sum = 0;
    for (let c = first; c <= last; c++) {
      const place = Index.flat(shape, inChannel(index, c)), v = place === changed ? value : x[place];
      sum += v * v;
    }
    return k + alpha / size * sum;
  }

  const norm = {
    terms: {
      y(op, index) {
        const { size, alpha, beta, k } = lrn(op), x = at(op, "x0", index), d = denominator(op, index), [first, last] = window(op, index[1]);
        const squares = range(last - first + 1).map((a) => {
          const there = inChannel(index, first + a), v = at(op, "x0", there);
          const across = -2 * alpha / size * beta * x * v * d ** (-beta - 1);
          return { value: alpha / size * v * v, parts: [part("x0", there, v, there[1] === index[1] ? d ** -beta + across : across)] };
        });
        return {
          formula: `y[n,c] = x[n,c] · d^−${beta},   d = ${k} + ${alpha}/${size} · Σ x[n,j]² over the channels ${first} to ${last}`,
          terms: [{ value: x * d ** -beta, parts: [part("x0", index, x, squares[index[1] - first].parts[0].slope)], times: `d^−${beta}`, factor: d ** -beta }],
          side: { title: `The denominator d = ${k} + the sum of these`, terms: squares, sum: d, start: k },
          notes: [],
        };
      },
      g0(op, index) {
        const { size, alpha, beta } = lrn(op), a = index[1], x = at(op, "x0", index), d = denominator(op, index);
        const direct = at(op, "gy", index), [first, last] = window(op, a, true);
        const terms = [{ name: "direct", value: direct * d ** -beta, times: `d^−${beta}`, factor: d ** -beta,
          parts: [part("gy", index, direct, d ** -beta)] }];
        for (let c = first; c <= last; c++) {
          const there = inChannel(index, c), g = at(op, "gy", there), v = at(op, "x0", there);
          const slope = -2 * alpha / size * beta * x * v * denominator(op, there) ** (-beta - 1);
          terms.push({ name: `across, channel ${c}`, value: g * slope, times: "−2αβ/size · x[a] · d[c]^(−β−1)", factor: slope,
            parts: [part("gy", there, g, slope), part("x0", there, v, null)] });
        }
        return { formula: "gx[a] = gy[a] · d[a]^−β  −  Σ 2αβ/size · x[a] · gy[c] · x[c] · d[c]^(−β−1), over the c whose window has a",
          terms, notes: [] };
      },
    },
    reach(op, i, index) {
      const [first, last] = window(op, index[1], true);
      return range(last - first + 1).map((c) => inChannel(index, first + c));
    },
    from(op, index) {
      const [first, last] = window(op, index[1]);
      return [{ slot: "x0", low: inChannel(index, first), high: inChannel(index, last) }];
    },
    denominator,
    evaluate(op, index, i, changed, value) {
      const shape = shapeOf(op, "x0"), place = Index.flat(shape, changed), own = Index.flat(shape, index);
      return (own === place ? value : values(op, "x0")[own]) * denominator(op, index, place, value) ** -lrn(op).beta;
    },
    // In float32 and in minidl's order, so that the bits are minidl's.
    forward(op) {
      const { x, d, power } = normalised(op), y = new Float32Array(x.length);
      for (let p = 0; p < x.length; p++) y[p] = x[p] * power(d[p]);
      return y;
    },
    backward(op) {
      const { size, alpha, beta } = lrn(op), { x, d, power } = normalised(op), gy = values(op, "gy");
      const direct = new Float32Array(x.length), ratio = new Float32Array(x.length), gx = new Float32Array(x.length);
      for (let p = 0; p < x.length; p++) {
        direct[p] = gy[p] * power(d[p]);
        ratio[p] = round(direct[p] * x[p]) / d[p];
      }
      const across = windowSums(op, ratio, (size - 1) >> 1, size >> 1), factor = round(2 * alpha / size * beta);
      for (let p = 0; p < x.length; p++) gx[p] = direct[p] - round(round(factor * x[p]) * across[p]);
      return gx;
    },
  };

  function normalised(op) {
    const { size, alpha, k } = lrn(op), x = values(op, "x0"), squares = new Float32Array(x.length);
    for (let p = 0; p < x.length; p++) squares[p] = x[p] * x[p];
    const d = windowSums(op, squares, size >> 1, (size - 1) >> 1), scale = round(alpha / size), start = round(k);
    for (let p = 0; p < d.length; p++) d[p] = round(d[p] * scale) + start;
    const power = (v) => {
      const root = round(Math.sqrt(v));
      return round(1 / round(root * round(Math.sqrt(root))));
    };
    return { x, d, power };
  }

  // window_sum of minidl/ops/local_response_norm.py: own value first, then the shifts one after the other.
  function windowSums(op, source, before, after) {
    const [N, C, ...rest] = shapeOf(op, "x0"), plane = Index.size(rest), sums = Float32Array.from(source);
    const add = (shift) => {
      for (let n = 0; n < N; n++) {
        for (let c = Math.max(0, -shift); c < C - Math.max(0, shift); c++) {
          const to = (n * C + c) * plane, from = (n * C + c + shift) * plane;
          for (let p = 0; p < plane; p++) sums[to + p] += source[from + p];
        }
      }
    };
    for (let shift = 1; shift <= Math.min(before, C - 1); shift++) add(-shift);
    for (let shift = 1; shift <= Math.min(after, C - 1); shift++) add(shift);
    return sums;
  }

  // ------------------------------------------------------------------------------------------------------------ pool

  function poolGeometry(op) {
    const [KH, KW] = setting(op, "kernel"), [sh, sw] = setting(op, "stride"), [dh, dw] = setting(op, "dilation");
    const [top, left] = setting(op, "padding"), [, , H, W] = shapeOf(op, "x0"), [, , OH, OW] = shapeOf(op, "y");
    return { KH, KW, sh, sw, dh, dw, top, left, H, W, OH, OW };
  }

  // The pixels under a window, in the order in which they compete; the winner is the first of the largest.
  function competitors(op, [n, c, i, j], changed = -1, value = 0) {
    const g = poolGeometry(op), x = values(op, "x0"), C = shapeOf(op, "x0")[1], all = [];
    under(g, i, j, (u, v, h, k) => {
      const place = ((n * C + c) * g.H + h) * g.W + k;
      all.push({ index: [n, c, h, k], place, value: place === changed ? value : x[place] });
    });
    return all;
  }

  const winner = (all) => all.reduce((best, other) => other.value > best.value || Number.isNaN(other.value) ? other : best);

  const winnersOf = new Map(); // op -> for each output the flat place of its winner
  function winners(op) {
    if (!winnersOf.has(op.number)) {
      const g = poolGeometry(op), x = values(op, "x0"), [N, C] = shapeOf(op, "x0"), won = new Int32Array(N * C * g.OH * g.OW);
      let to = 0;
      for (let map = 0; map < N * C; map++) {
        for (let i = 0; i < g.OH; i++) {
          for (let j = 0; j < g.OW; j++, to++) {
            let best = -1;
            under(g, i, j, (u, v, h, k) => {
              const place = (map * g.H + h) * g.W + k;
              if (best < 0 || x[place] > x[best] || x[place] !== x[place]) best = place;
            });
            won[to] = best;
          }
        }
      }
      winnersOf.set(op.number, won);
    }
    return winnersOf.get(op.number);
  }

  const pool = {
    terms: {
      y(op, index) {
        const all = competitors(op, index), best = winner(all);
        return {
          formula: "y[n,c,i,j] = the largest x[n,c,h,k] under its window",
          terms: [{ name: "winner", value: best.value, parts: [part("x0", best.index, best.value, 1)] }],
          side: { title: "Who competed", terms: all.map((other) => ({ value: other.value, name: other === best ? "won" : "",
            parts: [part("x0", other.index, other.value, other === best ? 1 : 0)] })), sum: null },
          notes: ["The first of the largest wins. The others get no gradient."],
        };
      },
      g0(op, index) {
        const place = Index.flat(shapeOf(op, "x0"), index), won = winners(op), shape = shapeOf(op, "y"), gy = values(op, "gy");
        const windows = pool.reach(op, 0, index), mine = windows.filter((out) => won[Index.flat(shape, out)] === place);
        const terms = mine.map((out) => ({ value: gy[Index.flat(shape, out)], parts: [part("gy", out, gy[Index.flat(shape, out)], 1)] }));
        const lost = windows.filter((out) => !mine.includes(out)).map((out) => {
          const best = Index.of(shapeOf(op, "x0"), won[Index.flat(shape, out)]);
          return `In window [${out.slice(2).join(",")}] the pixel [${best.slice(2).join(",")}] won: its gradient goes there.`;
        });
        return { formula: "gx[n,c,h,k] = Σ gy[n,c,i,j], over the windows that it won", terms, over: "windows that it won",
          notes: [`It lies under ${windows.length} window${windows.length === 1 ? "" : "s"} and won ${mine.length}.`, ...lost] };
      },
    },
    reach(op, i, [n, c, h, k]) {
      const g = poolGeometry(op);
      const rows = places(h, g.OH, g.KH, g.sh, g.top, g.dh), columns = places(k, g.OW, g.KW, g.sw, g.left, g.dw);
      return product([n], [c], rows.map(([a]) => a), columns.map(([a]) => a));
    },
    from(op, [n, c, i, j]) {
      const g = poolGeometry(op), h = i * g.sh - g.top, k = j * g.sw - g.left;
      return [{ slot: "x0", low: [n, c, h, k], high: [n, c, h + (g.KH - 1) * g.dh, k + (g.KW - 1) * g.dw] }];
    },
    evaluate: (op, index, i, changed, value) => winner(competitors(op, index, Index.flat(shapeOf(op, "x0"), changed), value)).value,
    winners,
    forward(op) {
      const won = winners(op), x = values(op, "x0");
      return Float32Array.from(won, (place) => x[place]);
    },
    // The windows' gradients are added in the order of the kernel's elements, as in minidl.
    backward(op) {
      const g = poolGeometry(op), won = winners(op), gy = values(op, "gy"), gx = new Float32Array(Index.size(shapeOf(op, "x0")));
      for (let u = 0; u < g.KH; u++) {
        for (let v = 0; v < g.KW; v++) {
          for (let to = 0; to < won.length; to++) {
            const i = Math.floor(to / g.OW) % g.OH, j = to % g.OW, h = Math.floor(won[to] / g.W) % g.H, k = won[to] % g.W;
            if (i * g.sh + u * g.dh - g.top === h && j * g.sw + v * g.dw - g.left === k) gx[won[to]] += gy[to];
          }
        }
      }
      return gx;
    },
  };

  // ------------------------------------------------------------------------------------- one number from one number

  // y = factor * x at another place. `from(op, index of y)` -> [input, index] or null; `to` is its inverse.
  function elementwise({ from, to, factor = () => 1, formula, exact = false, note = () => [], times = null }) {
    const one = {
      terms: {
        y(op, index) {
          const source = from(op, index);
          if (!source) return { formula: formula.y, terms: [], notes: ["It lies in the padding."] };
          const [i, there] = source, x = at(op, `x${i}`, there), f = factor(op, index, "y");
          return { formula: formula.y, notes: note(op, index, "y"),
            terms: [{ value: x * f, times: times && times(op), factor: f, parts: [part(`x${i}`, there, x, f)] }] };
        },
      },
      reach: (op, i, index) => [to(op, i, index)].filter(Boolean),
      from(op, index) {
        const source = from(op, index);
        return source ? [{ slot: `x${source[0]}`, low: source[1], high: source[1] }] : [];
      },
    };
    const gradient = (i) => (op, index) => {
      const there = to(op, i, index);
      if (!there) return { formula: formula.g, terms: [], notes: ["It was cut off."] };
      const gy = at(op, "gy", there), f = factor(op, there, "g");
      return { formula: formula.g, notes: note(op, there, "g"),
        terms: [{ value: gy * f, times: times && times(op), factor: f, parts: [part("gy", there, gy, f)] }] };
    };
    for (let i = 0; i < 16; i++) one.terms[`g${i}`] = gradient(i);
    one.evaluate = (op, index, i, changed, value) => {
      const [j, there] = from(op, index), same = i === j && there.join() === changed.join();
      return (same ? value : at(op, `x${j}`, there)) * factor(op, index, "y");
    };
    if (exact) {
      one.forward = (op) => filled(shapeOf(op, "y"), (index) => {
        const source = from(op, index);
        return source ? round(at(op, `x${source[0]}`, source[1]) * round(factor(op, index, "y"))) : 0;
      });
      one.backward = (op, i) => filled(shapeOf(op, `x${i}`), (index) => {
        const there = to(op, i, index);
        return there ? round(at(op, "gy", there) * round(factor(op, there, "g"))) : 0;
      });
    }
    return one;
  }

  function filled(shape, value) {
    const made = new Float32Array(Index.size(shape));
    for (let p = 0; p < made.length; p++) made[p] = value(Index.of(shape, p));
    return made;
  }

  const straight = { from: (op, index) => [0, index], to: (op, i, index) => index };
  const reshaped = {
    from: (op, index) => [0, Index.of(shapeOf(op, "x0"), Index.flat(shapeOf(op, "y"), index))],
    to: (op, i, index) => Index.of(shapeOf(op, "y"), Index.flat(shapeOf(op, "x0"), index)),
  };

  const relu = elementwise({
    ...straight,
    factor: (op, index) => at(op, "y", index) > 0 ? 1 : 0,
    formula: { y: "y = max(x, 0)", g: "gx = gy where y > 0, else 0" },
    times: () => "gate",
    note: (op, index) => [at(op, "y", index) > 0 ? "The gate is open: x is above 0." : "The gate is shut: x is not above 0."],
  });
  relu.evaluate = (op, index, i, changed, value) => Math.max(index.join() === changed.join() ? value : at(op, "x0", index), 0);
  relu.forward = (op) => values(op, "x0").map((x) => x > 0 || x !== x ? x : 0);
  relu.backward = (op) => {
    const y = values(op, "y");
    return values(op, "gy").map((gy, p) => y[p] <= 0 ? 0 : gy);
  };

  const mask = (op, index) => Tensors.get(op.about.mask)[Index.flat(shapeOf(op, "y"), index)];
  const dropout = elementwise({
    ...straight,
    factor: (op, index) => mask(op, index) * setting(op, "scale"),
    formula: { y: "y = x · mask · scale", g: "gx = gy · mask · scale, with the same mask" },
    times: (op) => `mask · ${setting(op, "scale")}`,
    note: (op, index) => [mask(op, index) ? "The mask lets it through." : "The mask silences it."],
  });
  const masked = (op, slot) => {
    const keep = Tensors.get(op.about.mask), scale = round(setting(op, "scale"));
    return values(op, slot).map((v, p) => round(v * keep[p]) * scale);
  };
  dropout.forward = (op) => masked(op, "x0");
  dropout.backward = (op) => masked(op, "gy");

  const axisOf = (op) => setting(op, "axis");
  const cat = elementwise({
    from(op, index) {
      const axis = axisOf(op);
      let left = index[axis];
      for (let i = 0; i < op.inputs.length; i++) {
        const n = shapeOf(op, `x${i}`)[axis];
        if (left < n) return [i, index.with(axis, left)];
        left -= n;
      }
      return null;
    },
    to(op, i, index) {
      const axis = axisOf(op), before = range(i).reduce((sum, k) => sum + shapeOf(op, `x${k}`)[axis], 0);
      return index.with(axis, index[axis] + before);
    },
    formula: { y: "y = the inputs, one after the other: a copy", g: "gx = the part of gy at its place: a copy" },
    exact: true,
  });
  const pad = elementwise({
    from(op, index) {
      const there = index.map((i, axis) => i - setting(op, "widths")[axis][0]);
      return Index.inside(shapeOf(op, "x0"), there) ? [0, there] : null;
    },
    to(op, i, index) {
      const there = index.map((k, axis) => k + setting(op, "widths")[axis][0]);
      return Index.inside(shapeOf(op, "y"), there) ? there : null;
    },
    formula: { y: "y = x, with a margin of zeros: a copy", g: "gx = the inside of gy: a copy" },
    exact: true,
  });
  pad.fits = (op) => setting(op, "value") === 0;
  const copy = elementwise({ ...straight, formula: { y: "y = x, copied to another device", g: "gx = gy, copied back" } });
  const reshape = elementwise({ ...reshaped, formula: { y: "y = x, with other indices", g: "gx = gy, with x's indices" } });
  const permute = elementwise({
    from(op, index) {
      const dims = setting(op, "dims"), there = [];
      dims.forEach((axis, i) => { there[axis] = index[i]; });
      return [0, there];
    },
    to: (op, i, index) => setting(op, "dims").map((axis) => index[axis]),
    formula: { y: "y = x, with its axes in another order", g: "gx = gy, with x's axes" },
  });

  // A product with a number that is written in the code; of two arrays it is not here.
  const scale = elementwise({
    ...straight,
    factor: (op) => op.about.numbers[0],
    times: (op) => `${op.about.numbers[0]}`,
    formula: { y: "y = x · a number", g: "gx = gy · the same number" },
  });
  scale.fits = (op) => op.inputs.length === 1 && op.about.numbers.length === 1;

  // The sum of everything, or over some axes.
  const summedTo = (op, index) => {
    const axes = setting(op, "axes"), kept = setting(op, "keepdim");
    return index.flatMap((i, axis) => axes.includes(axis) ? (kept ? [0] : []) : [i]);
  };
  const total = {
    terms: {
      y(op, index) {
        const shape = shapeOf(op, "x0"), terms = [];
        values(op, "x0").forEach((value, p) => {
          const there = Index.of(shape, p);
          if (summedTo(op, there).join() === index.join()) terms.push({ value, parts: [part("x0", there, value, 1)] });
        });
        return { formula: "y = Σ x", terms, notes: [] };
      },
      g0(op, index) {
        const there = summedTo(op, index), gy = at(op, "gy", there);
        return { formula: "gx = gy: each part of a sum counts once", terms: [{ value: gy, parts: [part("gy", there, gy, 1)] }], notes: [] };
      },
    },
    reach: (op, i, index) => [summedTo(op, index)],
    from: (op) => [{ slot: "x0", low: shapeOf(op, "x0").map(() => 0), high: shapeOf(op, "x0").map((n) => n - 1) }],
    evaluate(op, index, i, changed, value) {
      const shape = shapeOf(op, "x0");
      return values(op, "x0").reduce((sum, v, p) => {
        const there = Index.of(shape, p);
        return summedTo(op, there).join() !== index.join() ? sum : sum + (there.join() === changed.join() ? value : v);
      }, 0);
    },
  };

  // ------------------------------------------------------------------------------------------------------------ loss

  // Of row r: the scores, the largest, ln Σ e^(x − largest), the probabilities, the targets.
  function row(op, r, changed = -1, value = 0) {
    const C = shapeOf(op, "x0")[1], scores = Array.from(values(op, "x0").subarray(r * C, (r + 1) * C));
    if (changed >= 0) scores[changed] = value;
    const t = values(op, "x1").subarray(r * C, (r + 1) * C), shift = Math.max(...scores);
    const exponentials = scores.map((x) => Math.exp(x - shift)), sum = exponentials.reduce((a, b) => a + b, 0);
    return { C, scores, t, shift, sum, logSum: shift + Math.log(sum), p: exponentials.map((e) => e / sum), all: t.reduce((a, b) => a + b, 0) };
  }

  const crossEntropy = {
    terms: {
      y(op, [r]) {
        const { scores, t, p, logSum, shift, sum, all } = row(op, r), places = range(scores.length);
        const favourites = places.toSorted((a, b) => p[b] - p[a]).slice(0, 5), shown = [...new Set([...favourites, ...places.filter((c) => t[c])])];
        const terms = [{ name: "ln Σ e^x", value: all * logSum, parts: shown.map((c) => part("x0", [r, c], scores[c], p[c] * all)) }];
        for (const c of places) {
          if (t[c]) terms.push({ name: `−t[${c}] · x[${c}]`, value: -t[c] * scores[c], parts: [part("x0", [r, c], scores[c], -t[c])] });
        }
        return { formula: "loss = ln Σ e^x[c] − Σ t[c] · x[c]", terms,
          notes: [`ln Σ e^x is ${shift.toPrecision(6)} + ln ${sum.toPrecision(6)}: the largest score is taken out first, so that no e^x overflows.`,
            "A score's slopes add up to p − t: p by the first term, −t by the other."] };
      },
      g0(op, [r, c]) {
        const { p, t, all, scores, shift, logSum } = row(op, r), gy = at(op, "gy", [r]);
        // p is e^(x − ln Σ e^x): what is rounded in the exponent, at its size, p has as a share of itself.
        const stretch = 1 + Math.abs(scores[c] - shift) + Math.abs(scores[c] - logSum);
        return { formula: "gx[c] = gloss · (p[c] − t[c]),   p = softmax(x)", stretch,
          terms: [
            { name: `p[${c}]`, value: gy * p[c] * all, factor: p[c] * all, times: `p[${c}]`, parts: [part("gy", [r], gy, p[c] * all - t[c]), part("x0", [r, c], at(op, "x0", [r, c]), null)] },
            { name: `−t[${c}]`, value: -gy * t[c], factor: -t[c], times: `−t[${c}]`, parts: [part("x1", [r, c], t[c], null)] },
          ],
          notes: [t[c] ? "It is the true class: p − t is below 0, so a higher score lowers the loss." : "It is not the true class: p − t is above 0, so a higher score raises the loss."] };
      },
    },
    reach: (op, i, index) => [[index[0]]],
    from: (op, [r]) => range(2).map((i) => ({ slot: `x${i}`, low: [r, 0], high: [r, shapeOf(op, `x${i}`)[1] - 1] })),
    evaluate(op, [r], i, changed, value) {
      if (i !== 0) return null;
      const { scores, t, logSum, all } = row(op, r, changed[1], value);
      return all * logSum - t.reduce((sum, target, c) => target ? sum + target * scores[c] : sum, 0);
    },
    row,
  };

  // -------------------------------------------------------------------------------------------------------- together

  const OPS = {
    conv2d: convolution, conv2d_relu: convolution, linear, local_response_norm: norm, max_pool2d: pool, relu, dropout, cat, pad,
    to_device: copy, reshape, permute, mul: scale, sum: total, cross_entropy: crossEntropy,
  };
  const of = (op) => {
    const found = Object.hasOwn(OPS, op.op) && op.minidl ? OPS[op.op] : null;
    return found && (!found.fits || found.fits(op)) ? found : null;
  };

  return {
    of,
    // An array of an op.
    blob(op, slot) {
      if (slot === "y") return op.output;
      if (slot === "gy") return op.arriving;
      if (slot[0] === "d") return step.of_batch.total;
      return slot[0] === "x" ? op.inputs[slot.slice(1)].blob : op.leaving[slot.slice(1)];
    },
    // An array by its recipe, in minidl's float32; sums in float64.
    made(op, recipe) {
      if (recipe.how === "forward") return of(op).forward(op);
      if (recipe.how === "backward") return of(op).backward(op, recipe.input);
      if (recipe.input === 0) return of(op).sums(op);
      const one = of(op).one[recipe.input], shape = shapeOf(op, `x${recipe.input}`);
      return Float64Array.from({ length: Index.size(shape) }, (_, p) => one(op, Index.of(shape, p)));
    },
    // A number of a gradient that is a product or a sum of them, without the others.
    one: (op, recipe, index) => of(op).one[recipe.input](op, index),
  };
})();
