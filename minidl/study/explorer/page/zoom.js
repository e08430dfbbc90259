"use strict";
// One map, enlarged, with its indices and numbers, and with what makes backward work drawn on it: `Zoom`.

const Zoom = (() => {
  const MOST = 64; // rows and columns at a time
  const AXIS = 34, LEGIBLE = 40; // pixels: of the axes, and of a square that has room for its number
  const SIZES = [6, 8, 12, 16, 24, 32, 44, 60];
  let shown = null; // {figure, tile, top, left, size, cursor, side}

  const dialog = () => byId("zoom");
  const parts = (name) => dialog().querySelector(`[data-part="${name}"]`);

  function open(figure, index = null) {
    const { arranged } = figure, at = index && arranged.place(index);
    const tile = Math.max(0, at ? arranged.tiles.findIndex(({ x, y }) => at[0] >= x && at[0] < x + arranged.w && at[1] >= y && at[1] < y + arranged.h) : 0);
    const grid = gridOf(figure, tile);
    const size = SIZES.findLast((s) => s * Math.min(grid.columns, MOST) + AXIS < innerWidth * 0.85 && s * Math.min(grid.rows, MOST) < innerHeight * 0.62) || SIZES[0];
    shown = { figure, tile, top: 0, left: 0, size, cursor: [0, 0], side: false };
    Tensors.load(Why.arrays(figure.op)).then(() => {
      draw();
      if (!dialog().open) dialog().showModal();
      parts("map").focus();
    });
  }

  // The map as rows and columns: `at(row, column)` is an index. What has no maps is shown as it is arranged.
  function gridOf({ arranged, blob }, tile) {
    const { w, h, every, gap, width, height } = arranged;
    if (!gap) return { rows: height, columns: width, title: arranged.words, at: (row, column) => arranged.at(column, row), maps: 1 };
    const { x, y } = arranged.tiles[tile], lead = arranged.at(x, y).slice(0, -2);
    return { rows: h, columns: w, every, maps: arranged.tiles.length, title: `map ${Words.place(lead)} of ${Words.sizes(blob.shape)}`,
      at: (row, column) => arranged.at(x + column, y + row) };
  }

  // ------------------------------------------------------------------------------------------------------- what is drawn

  // What a layer draws on one of its arrays: {words, cell(index) -> "crossed" | "shut" | null, margin: [top, bottom, left, right],
  // arrows: [[from index, to index]], number(index)}
  function overlay(op, slot) {
    const layer = Layers.of(op), found = { words: [], cell: () => null, margin: [0, 0, 0, 0], arrows: () => [] };
    if (!layer) return found;
    const forward = slot === "y" || slot === "gy" ? "y" : "x0";
    if (op.op === "dropout") {
      const mask = Tensors.get(op.about.mask), { shape } = op.output;
      found.cell = (index) => mask[Index.flat(shape, index)] ? null : "crossed";
      found.words.push("Crossed out: silenced by the mask.");
    }
    if (["relu", "conv2d_relu"].includes(op.op) && (forward === "y" || op.op === "relu") && Tensors.has(op.output.values)) {
      const y = Tensors.get(op.output.values), { shape } = op.output;
      found.cell = (index) => y[Index.flat(shape, index)] > 0 ? null : "shut";
      found.words.push("Struck through: the ReLU's gate is shut, and no gradient passes.");
    }
    if (["conv2d", "conv2d_relu"].includes(op.op) && /^[xg]0$/.test(slot)) {
      const [[top, bottom], [left, right]] = Index.setting(op.settings.padding);
      found.margin = [top, bottom, left, right];
      if (top + bottom + left + right) found.words.push("Hatched around it: the padding, zeros that the kernel meets.");
    }
    if (op.op === "max_pool2d") {
      const won = layer.winners(op), { shape } = op.output, inputs = op.inputs[0].blob.shape, [kernel] = [Index.setting(op.settings.kernel)];
      const [stride, padding] = ["stride", "padding"].map((name) => Index.setting(op.settings[name]));
      if (forward === "x0") {
        found.words.push("Arrows: from the middle of each window to the pixel that won it, where its gradient goes.");
        found.arrows = (lead) => Array.from({ length: shape[2] * shape[3] }, (_, p) => {
          const i = Math.floor(p / shape[3]), j = p % shape[3], best = Index.of(inputs, won[Index.flat(shape, [...lead, i, j])]);
          return [[i * stride[0] - padding[0] + (kernel[0] - 1) / 2, j * stride[1] - padding[1] + (kernel[1] - 1) / 2], best.slice(2)];
        });
      }
    }
    if (op.op === "local_response_norm") {
      found.side = (index) => layer.denominator(op, index);
      found.words.push(`The window of a channel: ${Index.setting(op.settings.size)} channels around it, at the same pixel.`);
    }
    return found;
  }

  function draw() {
    const { figure, tile, top, left, size, side } = shown, { op, slot, blob, scale } = figure, grid = gridOf(figure, tile);
    const { words, cell, margin, arrows, side: sideOf } = overlay(op, slot), canvas = parts("canvas"), ratio = devicePixelRatio || 1;
    const rows = Math.min(MOST, grid.rows - top), columns = Math.min(MOST, grid.columns - left);
    const pad = { top: top ? 0 : margin[0], left: left ? 0 : margin[2], bottom: top + rows < grid.rows ? 0 : margin[1], right: left + columns < grid.columns ? 0 : margin[3] };
    const width = AXIS + size * (columns + pad.left + pad.right), height = AXIS + size * (rows + pad.top + pad.bottom);
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--fg");
    context.scale(ratio, ratio);
    context.font = `${Math.max(9, Math.min(12, size / 4))}px monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const x = (column) => AXIS + size * (column - left + pad.left), y = (row) => AXIS + size * (row - top + pad.top);
    const denominators = side && sideOf ? sideOf : null, range = denominators ? sideRange(grid, top, left, rows, columns, denominators) : scale;
    shown.geometry = { x0: AXIS + size * pad.left, y0: AXIS + size * pad.top, size, top, left, rows, columns };
    for (let row = top; row < top + rows; row++) {
      for (let column = left; column < left + columns; column++) {
        const index = grid.at(row, column), value = index && (denominators ? denominators(index) : Tensors.at(blob, index));
        if (value === null) continue;
        const rgb = Picture.colour(denominators ? value - range.from : value, range);
        context.fillStyle = `rgb(${rgb})`;
        context.fillRect(x(column), y(row), size - (size > 10), size - (size > 10));
        const dark = rgb[0] * 0.3 + rgb[1] * 0.6 + rgb[2] * 0.1 < 110;
        if (size >= LEGIBLE) {
          context.fillStyle = dark ? "#fff" : "#000";
          context.fillText(Words.number(value, 3), x(column) + size / 2, y(row) + size / 2);
        }
        const state = cell(index);
        if (state) strike(context, x(column), y(row), size, state, dark);
      }
    }
    hatch(context, pad, rows, columns, size);
    axes(context, ink, grid, { top, left, rows, columns, size, x, y });
    if (grid.maps > 1 && !denominators) for (const arrow of arrows(grid.at(0, 0).slice(0, 2))) pointer(context, arrow, x, y, shown.geometry);
    outline(context, x, y);
    parts("title").textContent = `${Ops.title(op)}: ${Ops.slot(op, slot)}, ${grid.title}${denominators ? ", its denominators d" : ""}`;
    parts("words").textContent = [...words, size < LEGIBLE ? "Enlarge it to read the numbers." : ""].filter(Boolean).join(" ");
    parts("side").hidden = !sideOf;
    parts("side").setAttribute("aria-pressed", String(side));
    for (const name of ["map-before", "map-after"]) parts(name).hidden = grid.maps === 1;
    parts("parts").hidden = grid.rows <= MOST && grid.columns <= MOST;
    say();
  }

  // Denominators differ little from k: their colours are from the smallest on.
  function sideRange(grid, top, left, rows, columns, value) {
    let low = Infinity, high = -Infinity;
    for (let row = top; row < top + rows; row++) {
      for (let column = left; column < left + columns; column++) {
        const v = value(grid.at(row, column));
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
    }
    return { from: low, limit: high - low || 1, root: false };
  }

  function strike(context, x, y, size, state, dark) {
    context.strokeStyle = dark ? "rgb(255 255 255 / .55)" : "rgb(0 0 0 / .6)";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x + 1, y + size - 1);
    context.lineTo(x + size - 1, y + 1);
    if (state === "crossed") {
      context.moveTo(x + 1, y + 1);
      context.lineTo(x + size - 1, y + size - 1);
    }
    context.stroke();
  }

  function hatch(context, pad, rows, columns, size) {
    context.strokeStyle = "rgb(128 128 128 / .7)";
    const w = columns + pad.left + pad.right, h = rows + pad.top + pad.bottom;
    for (let row = 0; row < h; row++) {
      for (let column = 0; column < w; column++) {
        if (row >= pad.top && row < pad.top + rows && column >= pad.left && column < pad.left + columns) continue;
        context.strokeRect(AXIS + size * column + 0.5, AXIS + size * row + 0.5, size - 2, size - 2);
        strike(context, AXIS + size * column, AXIS + size * row, size, "shut", false);
      }
    }
  }

  function axes(context, ink, grid, { top, left, rows, columns, size, x, y }) {
    const step = [1, 2, 5, 10, 20].find((n) => n * size >= 26) || 50, every = grid.every || 1;
    context.fillStyle = ink;
    context.font = "11px monospace";
    for (let column = left; column < left + columns; column++) if (column % step === 0) context.fillText(column * every, x(column) + size / 2, AXIS - 12);
    for (let row = top; row < top + rows; row++) if (row % step === 0) context.fillText(row * every, AXIS - 16, y(row) + size / 2);
  }

  function pointer(context, [[i, j], [h, k]], x, y, { top, left, rows, columns, size }) {
    if (h < top || h >= top + rows || k < left || k >= left + columns) return;
    const from = [x(j) + size / 2, y(i) + size / 2], to = [x(k) + size / 2, y(h) + size / 2];
    for (const [colour, width] of [["#000", 3], ["#38d66b", 1.5]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
      context.beginPath();
      context.arc(...to, Math.max(1.5, Math.min(4, size / 5)) + (width - 1.5) / 2, 0, 7);
      context.fill();
    }
  }

  function outline(context, x, y) {
    const [column, row] = shown.cursor;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x(column), y(row), shown.size - 1, shown.size - 1);
    }
  }

  function say() {
    const { figure, tile, cursor: [column, row], side } = shown, index = gridOf(figure, tile).at(row, column);
    const sideOf = overlay(figure.op, figure.slot).side;
    parts("said").textContent = !index ? "" : `${Ops.number({ op: figure.op, slot: figure.slot, index })} = ${Words.number(Tensors.at(figure.blob, index), 6)}` +
      `${side && sideOf ? `, d = ${Words.number(sideOf(index), 6)}` : ""}`;
  }

  // ---------------------------------------------------------------------------------------------------------- controls

  function move(by) {
    const { figure, tile, cursor: [column, row] } = shown, grid = gridOf(figure, tile);
    const clip = (i, n) => Math.max(0, Math.min(n - 1, i)), to = [clip(column + by[0], grid.columns), clip(row + by[1], grid.rows)];
    const page = (i) => Math.floor(i / MOST) * MOST;
    Object.assign(shown, { cursor: to, left: page(to[0]), top: page(to[1]) });
    draw();
  }

  function toMap(by) {
    const count = gridOf(shown.figure, shown.tile).maps;
    shown.tile = (shown.tile + by + count) % count;
    draw();
  }

  function resize(by) {
    const at = SIZES.indexOf(shown.size) + by;
    shown.size = SIZES[Math.max(0, Math.min(SIZES.length - 1, at))];
    draw();
  }

  function choose() {
    const { figure, tile, cursor: [column, row] } = shown, index = gridOf(figure, tile).at(row, column);
    if (!index) return;
    dialog().close();
    Ask.ask({ op: figure.op, slot: figure.slot, index });
  }

  function cellAt(event) {
    const box = parts("canvas").getBoundingClientRect(), { x0, y0, size, top, left, rows, columns } = shown.geometry;
    const column = Math.floor((event.clientX - box.left - x0) / size), row = Math.floor((event.clientY - box.top - y0) / size);
    return column >= 0 && row >= 0 && column < columns && row < rows ? [column + left, row + top] : null;
  }

  const KEYS = {
    ArrowRight: () => move([1, 0]), ArrowLeft: () => move([-1, 0]), ArrowDown: () => move([0, 1]), ArrowUp: () => move([0, -1]),
    PageDown: () => toMap(1), PageUp: () => toMap(-1), "+": () => resize(1), "-": () => resize(-1), Enter: choose, " ": choose,
  };

  function start() {
    const map = parts("map");
    map.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    map.addEventListener("pointermove", (event) => {
      const at = event.pointerType === "mouse" && cellAt(event);
      if (!at || at.join() === shown.cursor.join()) return;
      shown.cursor = at;
      draw();
    });
    map.addEventListener("click", (event) => {
      const at = cellAt(event);
      if (!at) return;
      shown.cursor = at;
      choose();
    });
    const on = { "map-before": () => toMap(-1), "map-after": () => toMap(1), larger: () => resize(1), smaller: () => resize(-1),
      side: () => { shown.side = !shown.side; draw(); }, left: () => move([-MOST, 0]), right: () => move([MOST, 0]), up: () => move([0, -MOST]), down: () => move([0, MOST]) };
    for (const [name, act] of Object.entries(on)) parts(name).addEventListener("click", act);
  }

  return { open, start };
})();
