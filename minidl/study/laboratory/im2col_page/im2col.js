(() => {
  "use strict";

  const root = document.getElementById("im2col");
  const find = (selector) => root.querySelector(selector);
  const data = JSON.parse(find("[data-numbers]").textContent);
  const settings = { ...data.settings };

  // ------------------------------------------------------------------------------------------------ the mathematics

  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const span = (s) => s.dilation * (s.kernel - 1) + 1;
  const outSize = (n, s) => Math.floor((n + 2 * s.padding - span(s)) / s.stride) + 1;

  /** Everything that the tables show. A pixel is numbered as in memory: row, column, channel of the padded image. */
  function compute(s) {
    const [oh, ow] = [outSize(s.height, s), outSize(s.width, s)];
    const [ph, pw] = [s.height + 2 * s.padding, s.width + 2 * s.padding];
    const pixels = range(ph * pw * s.channels).map((n) => {
      const [row, column, c] = [Math.floor(n / s.channels / pw), Math.floor(n / s.channels) % pw, n % s.channels];
      const [a, b] = [row - s.padding, column - s.padding];
      const inside = a >= 0 && a < s.height && b >= 0 && b < s.width;
      return { row, column, c, a, b, inside, value: inside ? data.image[a][b][c] : 0 };
    });
    const taps = range(s.kernel * s.kernel * s.channels).map((k) => {
      const [u, v, c] = [Math.floor(k / s.channels / s.kernel), Math.floor(k / s.channels) % s.kernel, k % s.channels];
      return { u, v, c, weight: data.weight[u][v][c] };
    });
    const outputs = range(oh * ow).map((r) => ({ i: Math.floor(r / ow), j: r % ow }));
    const source = outputs.map(({ i, j }) =>
      taps.map(({ u, v, c }) => ((i * s.stride + u * s.dilation) * pw + j * s.stride + v * s.dilation) * s.channels + c));
    const col = source.map((row) => row.map((n) => pixels[n].value));
    const y = col.map((row) => sum(row.map((value, k) => value * taps[k].weight)));
    const gy = outputs.map(({ i, j }) => data.gy[i][j]);
    const gcol = gy.map((g) => taps.map(({ weight }) => g * weight));
    const gw = taps.map((_, k) => sum(col.map((row, r) => row[k] * gy[r])));
    const copies = pixels.map(() => []);
    source.forEach((row, r) => row.forEach((n, k) => copies[n].push([r, k])));
    const gx = copies.map((entries) => sum(entries.map(([r, k]) => gcol[r][k])));
    return { oh, ow, ph, pw, pixels, taps, outputs, source, col, y, gy, gcol, gw, copies, gx };
  }

  /** Does this page compute what Python did? */
  function agrees(now, python) {
    const counts = now.copies.map((entries) => entries.length);
    return ["col", "y", "gcol", "gw", "gx"].every((name) => String(now[name]) === String(python[name])) &&
      String(counts) === String(python.copies);
  }

  // ----------------------------------------------------------------------------------------------------------- text

  const signed = (n) => String(n).replace("-", "−");
  const factor = (n) => (n < 0 ? `(${signed(n)})` : String(n));
  const comma = (...numbers) => numbers.map(signed).join(",");
  const withChannel = (c) => (settings.channels > 1 ? [c] : []);
  const pixelName = (p) => `[${comma(p.a, p.b, ...withChannel(p.c))}]`;
  const tapName = (t) => `[${comma(t.u, t.v, ...withChannel(t.c))}]`;
  const outputName = (o) => `[${comma(o.i, o.j)}]`;
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  function total(terms, result) {
    const shown = terms.slice(0, 9).join(" + ") + (terms.length > 9 ? ` + … (${terms.length} terms)` : "");
    return terms.length === 1 && shown === signed(result) ? shown : `${shown || "nothing"} = ${signed(result)}`;
  }

  const say = {
    output({ r, k }) {
      const name = outputName(now.outputs[r]);
      const sums = total(now.col[r].map((value, t) => `${factor(value)}·${factor(now.taps[t].weight)}`), now.y[r]);
      const g = signed(now.gy[r]);
      if (k === undefined) {
        return [`y${name} = ${sums}: row ${r} of col, the patch under y${name}, times w.`,
          `Row ${r} of gcol is gy${name} = ${g} times w: a gradient for each number of the patch.`];
      }
      const pixel = now.pixels[now.source[r][k]];
      const weight = `w${tapName(now.taps[k])}`;
      return [`col[${r},${k}] is a copy of x${pixelName(pixel)} = ${signed(pixel.value)}${pixel.inside ? "" : ", padding"}; it meets ` +
        `${weight}. y${name} = ${sums}.`,
        `gcol[${r},${k}] = gy${name}·${weight} = ${factor(now.gy[r])}·${factor(now.taps[k].weight)} = ${signed(now.gcol[r][k])}, ` +
        `added to gx${pixelName(pixel)}${pixel.inside ? "" : ", padding: cut off at the end"}.`];
    },
    pixel({ n }) {
      const pixel = now.pixels[n];
      const name = pixelName(pixel);
      const entries = now.copies[n];
      const where = entries.map(([r]) => `y${outputName(now.outputs[r])}`).join(" ");
      const copied = entries.length ? `copied into ${plural(entries.length, "row")} of col, for ${where}` : "in no patch: no output reads it";
      const sums = total(entries.map(([r, k]) => factor(now.gcol[r][k])), now.gx[n]);
      return [`x${name} = ${signed(pixel.value)}${pixel.inside ? "" : " (padding)"} is ${copied}.`,
        `gx${name} = ${sums}${entries.length ? ": one term for each copy" : ""}.${pixel.inside ? "" : " Padding: cut off at the end."}`];
    },
    tap({ k }) {
      const name = tapName(now.taps[k]);
      const sums = total(now.col.map((row, r) => `${factor(row[k])}·${factor(now.gy[r])}`), now.gw[k]);
      return [`Column ${k} of col: for every output pixel the pixel that meets w${name} = ${signed(now.taps[k].weight)}.`,
        `gw${name} = ${sums}: column ${k} of col times gy. And column ${k} of gcol is gy times w${name}.`];
    },
  };

  // --------------------------------------------------------------------------------------------------------- tables

  let now; // what compute() gave for the present settings
  let cells; // "x", "col", ... -> for each place the table cells that show it

  function element(tag, text = "", ...classes) {
    const made = document.createElement(tag);
    made.textContent = text;
    made.classList.add(...classes);
    return made;
  }

  /** A cell that shows a number; `pick` is what pointing at it chooses. */
  function cell(name, place, value, pick, tone, ...classes) {
    const td = element("td", "", ...classes);
    const shown = element("span", signed(value), "ic-v");
    td.append(shown);
    td.tabIndex = -1;
    td.dataset.tone = tone;
    td.pick = pick;
    ((cells[name] ??= {})[place] ??= []).push(td);
    return td;
  }

  function tr(...children) {
    const row = element("tr");
    row.append(...children);
    return row;
  }

  const heading = (text, scope) => Object.assign(element("th", text), { scope });
  const corner = (text = "") => element("th", text);

  function table(label, head, body) {
    const made = element("table");
    made.setAttribute("role", "grid");
    made.setAttribute("aria-label", label);
    made.createTHead().append(...head);
    made.createTBody().append(...body);
    const first = made.querySelector("td");
    if (first) first.tabIndex = 0; // one stop for Tab; arrows move inside
    return made;
  }

  /** An image as tables, one for each channel. items: { row, column, c, a, b, make } in rows. */
  function planes(name, items, channels, tableLabel) {
    const made = range(channels).map((c) => {
      const mine = items.filter((item) => item.c === c);
      const rows = [...new Set(mine.map((item) => item.row))].map((row) => mine.filter((item) => item.row === row));
      const head = tr(corner(), ...rows[0].map((item) => heading(signed(item.b), "col")));
      const body = rows.map((row) => tr(heading(signed(row[0].a), "row"), ...row.map((item) => item.make())));
      const one = table(channels > 1 ? `${tableLabel}, channel ${c}` : tableLabel, [head], body);
      if (channels > 1) one.append(element("caption", `channel ${c}`));
      return one;
    });
    find(`[data-planes="${name}"]`).replaceChildren(...made);
  }

  function imagePlanes(name, values, tone) {
    const items = now.pixels.map((p, n) => ({ ...p, make: () =>
      cell(name, n, values[n], { kind: "pixel", n }, tone, ...(p.inside ? [] : ["ic-outside"])) }));
    planes(name, items, settings.channels, `${name}, with padding`);
  }

  /** Above the sum what the last step added, below it the copies. */
  function gradientOfPixels() {
    imagePlanes("gx", now.gx, "backward");
    for (const [td] of Object.values(cells.gx)) {
      td.prepend(element("small", "", "ic-change"));
      td.append(element("small", "", "ic-copies"));
    }
  }

  function outputPlanes(name, tone) {
    const items = now.outputs.map(({ i, j }, r) => ({ row: i, column: j, c: 0, a: i, b: j, make: () =>
      cell(name, r, now[name][r], { kind: "output", r }, tone) }));
    planes(name, items, 1, name);
  }

  function gradientOfWeights() {
    const items = now.taps.map(({ u, v, c }, k) => ({ row: u, column: v, c, a: u, b: v, make: () =>
      cell("gw", k, now.gw[k], { kind: "tap", k }, "backward") }));
    planes("gw", items, settings.channels, "gw");
  }

  /** col with w above and y beside it; gcol with w above and gy before it. */
  function matrix(name, tone) {
    const forward = name === "col";
    const tapsHead = now.taps.map((t) => heading(comma(t.u, t.v, ...withChannel(t.c)), "col"));
    const weights = now.taps.map((t, k) => cell("w", k, t.weight, { kind: "tap", k }, tone));
    const first = [corner(settings.channels > 1 ? "u,v,c" : "u,v")];
    const second = [corner("w")];
    const head = forward ? [tr(...first, ...tapsHead, corner()), tr(...second, ...weights, corner("y"))]
      : [tr(...first, corner(), ...tapsHead), tr(...second, corner("gy"), ...weights)];
    head[1].className = "ic-weights";
    const body = now.outputs.map((o, r) => {
      const entries = now.taps.map((_, k) => {
        const outside = forward && !now.pixels[now.source[r][k]].inside;
        return cell(name, `${r},${k}`, now[name][r][k], { kind: "output", r, k }, tone, ...(outside ? ["ic-outside"] : []));
      });
      const pick = { kind: "output", r };
      const beside = forward ? cell("y", r, now.y[r], pick, tone, "ic-equals") : cell("gy", r, now.gy[r], pick, tone, "ic-given");
      return tr(heading(`${r}: ${comma(o.i, o.j)}`, "row"), ...(forward ? [...entries, beside] : [beside, ...entries]));
    });
    find(`[data-table="${name}"]`).replaceChildren(table(name, head, body));
  }

  function caption(name, text) {
    find(`[data-caption="${name}"]`).textContent = text;
  }

  function captions() {
    const rows = `${now.outputs.length} × ${now.taps.length}`;
    const size = `${now.ph} × ${now.pw}${settings.channels > 1 ? ` × ${settings.channels}` : ""}`;
    caption("x", settings.padding ? `${size}, padding hatched` : size);
    caption("col", `${rows}: a row for each output pixel (number: i,j), a column for each kernel element; w above, y beside`);
    caption("y", `${now.oh} × ${now.ow}, the last column of the matrix as an image`);
    caption("gy", `${now.oh} × ${now.ow}, the gradient that arrives`);
    caption("gw", "= colᵀ @ gy");
    caption("gcol", `= gy @ wᵀ, ${rows}: each is its gy times its w`);
    caption("gx", `sums so far; small: copies added of all${settings.padding ? "; the hatched ones are cut off at the end" : ""}`);
  }

  function draw() {
    cells = {};
    imagePlanes("x", now.pixels.map((p) => p.value), "forward");
    matrix("col", "forward");
    outputPlanes("y", "forward");
    outputPlanes("gy", "backward");
    gradientOfWeights();
    matrix("gcol", "backward");
    gradientOfPixels();
    captions();
  }

  // ------------------------------------------------------------------------------------------------------ selection

  const all = (name, place) => cells[name]?.[place] ?? [];

  /** The entries (row, column) of col that a choice touches. */
  function touched({ kind, r, k, n }) {
    if (kind === "pixel") return now.copies[n];
    if (kind === "tap") return now.outputs.map((_, row) => [row, k]);
    return now.taps.map((_, column) => [r, column]);
  }

  /** Every cell of one entry's way: its pixel, its place in both matrices, its output and its weight. */
  function way([r, k]) {
    const n = now.source[r][k];
    return [["x", n], ["gx", n], ["col", `${r},${k}`], ["gcol", `${r},${k}`], ["y", r], ["gy", r], ["w", k], ["gw", k]];
  }

  function heart({ kind, r, k, n }) {
    if (kind === "pixel") return [["x", n], ["gx", n]];
    if (kind === "tap") return [["w", k], ["gw", k]];
    return k === undefined ? [["y", r], ["gy", r]] : way([r, k]).filter(([name]) => ["x", "gx", "col", "gcol"].includes(name));
  }

  function unmark(...classes) {
    for (const name of classes) root.querySelectorAll(`.${name}`).forEach((td) => td.classList.remove(name));
  }

  function choose(pick, from = null) {
    unmark("ic-on", "ic-chosen");
    for (const entry of touched(pick)) {
      for (const place of way(entry)) all(...place).forEach((td) => td.classList.add("ic-on"));
    }
    for (const place of heart(pick)) all(...place).forEach((td) => td.classList.add("ic-on", "ic-chosen"));
    const [forward, backward] = say[pick.kind](pick);
    find(".ic-say-forward").textContent = `Forward: ${forward}`;
    find(".ic-say-backward").textContent = `Backward: ${backward}`;
    root.querySelectorAll(".ic-scroll").forEach((box) => from?.closest(".ic-scroll") === box || reveal(box));
  }

  function letGo() {
    unmark("ic-on", "ic-chosen");
    find(".ic-say-forward").textContent = "Forward: point at a number of x, col or y.";
    find(".ic-say-backward").textContent = "Backward: point at a number of gy, gw, gcol or gx.";
  }

  /** Scroll a matrix, and only it, so that its first marked cell shows. */
  function reveal(box) {
    const marked = box.querySelector("tbody .ic-on");
    if (!marked) return;
    const head = box.querySelector("thead").offsetHeight;
    const top = marked.parentNode.offsetTop;
    if (top - head < box.scrollTop) box.scrollTop = top - head;
    else if (top + marked.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + marked.offsetHeight - box.clientHeight;
  }

  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  function moveFocus(td, [rows, columns]) {
    const row = td.closest("table").rows[td.parentNode.rowIndex + rows];
    const next = row?.cells[td.cellIndex + columns];
    if (next?.tagName !== "TD") return;
    td.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  const cellOf = (event) => event.target.closest?.("td");

  root.addEventListener("pointerover", (event) => {
    const td = event.pointerType === "mouse" && cellOf(event);
    if (td) choose(td.pick, td);
  });
  for (const kind of ["click", "focusin"]) {
    root.addEventListener(kind, (event) => {
      const td = cellOf(event);
      if (td) choose(td.pick, td);
    });
  }
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return letGo();
    const td = cellOf(event);
    if (!td || !ARROWS[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // the page around may have its own use for arrows
    moveFocus(td, ARROWS[event.key]);
  });

  // --------------------------------------------------------------------------------------------------- col2im's steps

  const steps = find(".ic-steps");
  const order = find("[data-order]");
  const button = (name) => find(`[data-step="${name}"]`);
  let parts; // for each step the entries that it adds
  let done; // steps taken
  let timer = null;

  function cut() {
    const rows = range(now.outputs.length);
    const columns = range(now.taps.length);
    const elements = range(settings.kernel ** 2).map((e) => columns.slice(e * settings.channels, (e + 1) * settings.channels));
    if (order.value === "tap") return elements.map((some) => rows.flatMap((r) => some.map((k) => [r, k])));
    const patches = rows.map((r) => columns.map((k) => [r, k]));
    return order.value === "patch" ? patches : patches.flat().map((entry) => [entry]);
  }

  function slice(first, count) {
    const stop = first + settings.stride * (count - 1) + 1;
    return `${first}:${stop}${settings.stride > 1 ? `:${settings.stride}` : ""}`;
  }

  function describe(part) {
    const [r, k] = part[0];
    const { u, v } = now.taps[k];
    const pixel = `gx${pixelName(now.pixels[now.source[r][k]])}`;
    if (order.value === "number") return `${pixel} += gcol[${r},${k}], which is ${signed(now.gcol[r][k])}`;
    if (order.value === "patch") return `row ${r} of gcol goes to the patch under y${outputName(now.outputs[r])}`;
    const [top, left] = [u * settings.dilation, v * settings.dilation];
    return `gx[:, ${slice(top, now.oh)}, ${slice(left, now.ow)}] += gcol[:, :, :, ${u}, ${v}], rows and columns counted with the padding`;
  }

  /** What each pixel has after the steps taken: its sum, how many copies, what the last step added. */
  function soFar() {
    const state = now.pixels.map(() => ({ sum: 0, copies: 0, last: null }));
    parts.slice(0, done).forEach((part, step) => part.forEach(([r, k]) => {
      const pixel = state[now.source[r][k]];
      pixel.sum += now.gcol[r][k];
      pixel.copies += 1;
      if (step === done - 1) pixel.last = now.gcol[r][k];
    }));
    return state;
  }

  function showSums() {
    soFar().forEach(({ sum: value, copies, last }, n) => all("gx", n).forEach((td) => {
      td.querySelector(".ic-v").textContent = signed(value);
      const adds = last !== null && done < parts.length;
      td.querySelector(".ic-change").textContent = adds ? (last < 0 ? signed(last) : `+${last}`) : "";
      td.querySelector(".ic-copies").textContent = `${copies}/${now.copies[n].length}`;
      td.classList.toggle("ic-now", adds);
    }));
  }

  function showEntries() {
    parts.forEach((part, step) => part.forEach(([r, k]) => all("gcol", `${r},${k}`).forEach((td) => {
      td.classList.toggle("ic-added", step < done && done < parts.length);
      td.classList.toggle("ic-now", step === done - 1 && done < parts.length);
    })));
  }

  function showProgress() {
    const at = `Step ${done} of ${parts.length}`;
    const most = Math.max(...now.copies.map((entries) => entries.length));
    const least = Math.min(...now.copies.map((entries) => entries.length));
    const counts = most === least ? `Every pixel was copied ${plural(most, "time")}` : `A pixel was copied ${least} to ${plural(most, "time")}`;
    const text = done === 0 ? `${at}: gx is zero.`
      : done === parts.length ? `${at}: all ${now.outputs.length * now.taps.length} numbers of gcol are added. ${counts}.`
      : `${at}: ${describe(parts[done - 1])}.`;
    find(".ic-progress").textContent = text;
    // aria-disabled, as a disabled button would lose the focus, and with it the keys
    for (const name of ["first", "back"]) button(name).setAttribute("aria-disabled", done === 0);
    for (const name of ["last", "next"]) button(name).setAttribute("aria-disabled", done === parts.length);
  }

  function showSteps() {
    showSums();
    showEntries();
    showProgress();
    const current = find('[data-table="gcol"] tbody .ic-now');
    const box = find('[data-table="gcol"]');
    if (current && order.value !== "tap") box.scrollTop = current.parentNode.offsetTop - box.clientHeight / 2;
  }

  function go(step) {
    done = Math.max(0, Math.min(parts.length, step));
    showSteps();
  }

  function pause() {
    clearTimeout(timer);
    timer = null;
    button("play").textContent = "play";
  }

  function tick() {
    go(done + 1);
    if (done === parts.length) pause();
    else timer = setTimeout(tick, parts.length > 60 ? 150 : 900);
  }

  function play() {
    if (timer !== null) return pause();
    button("play").textContent = "pause";
    if (done === parts.length) go(0);
    timer = setTimeout(tick, 300);
  }

  const STEP = { first: () => go(0), back: () => go(done - 1), next: () => go(done + 1), last: () => go(parts.length) };
  const STEP_KEYS = { Home: "first", ArrowLeft: "back", ArrowRight: "next", End: "last" };

  function step(name) {
    pause();
    STEP[name]();
  }

  steps.addEventListener("click", (event) => {
    const name = event.target.closest("[data-step]")?.dataset.step;
    if (name) name === "play" ? play() : step(name);
  });
  steps.addEventListener("keydown", (event) => {
    if (event.target === order || !STEP_KEYS[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    step(STEP_KEYS[event.key]);
  });
  order.addEventListener("change", () => {
    pause();
    parts = cut();
    go(0);
  });

  // ------------------------------------------------------------------------------------------------------- settings

  function refusal() {
    const short = [["H", settings.height], ["W", settings.width]].find(([, n]) => outSize(n, settings) < 1);
    return short && `conv2d: the kernel spans ${span(settings)} along ${short[0]}, the padded input has ${short[1] + 2 * settings.padding}.`;
  }

  function checked() {
    const same = Object.entries(data.settings).every(([name, value]) => settings[name] === value);
    if (!same) return "Computed on this page, by the rules of minidl.ops.conv2d.";
    return agrees(now, data.python)
      ? "These numbers were computed in Python by minidl.ops.conv2d; this page computed them again and got the same."
      : "This page computes other numbers than minidl.ops.conv2d did in Python: do not trust it.";
  }

  function update() {
    pause();
    const refused = refusal();
    find(".ic-none").hidden = !refused;
    find(".ic-none").textContent = refused ?? "";
    find(".ic-all").hidden = Boolean(refused);
    find(".ic-checked").hidden = Boolean(refused);
    if (refused) return;
    now = compute(settings);
    draw();
    letGo();
    parts = cut();
    go(parts.length);
    find(".ic-checked").textContent = checked();
  }

  root.querySelectorAll("[data-setting]").forEach((select) => {
    const name = select.dataset.setting;
    const [least, most] = data.ranges[name];
    select.append(...range(most - least + 1).map((i) => new Option(least + i)));
    select.value = settings[name];
    select.addEventListener("change", () => {
      settings[name] = Number(select.value);
      update();
    });
  });
  update();
})();
