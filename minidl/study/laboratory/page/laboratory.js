/* What every page of the laboratory shares: numbers that know how they were made, tables of them, and what answers to a reader.

A layer's file says how each number follows from others, once; its value, the sum that is written out, the cells that are marked
and the numeric check all come from that. */
const laboratory = (() => {
  "use strict";

  // ---------------------------------------------------------------------------------------------------------- numbers

  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const shown = (v) => String(Number.isInteger(v) ? v : Number(v.toPrecision(5))).replaceAll("-", "−");

  // A number and how it was made: { value, kind, parts }. Operands may be plain numbers.
  const node = (operand) => (typeof operand === "number" ? { kind: "number", value: operand, parts: [] } : operand);
  const made = (kind, operands, compute, more = {}) => {
    const parts = operands.map(node);
    return { kind, parts, value: compute(...parts.map((part) => part.value)), ...more };
  };
  const sum = (operands) => made("sum", operands, (...v) => v.reduce((a, b) => a + b, 0));
  const product = (...operands) => made("product", operands, (...v) => v.reduce((a, b) => a * b, 1));
  const difference = (a, b) => made("difference", [a, b], (v, w) => v - w);
  const quotient = (a, b) => made("quotient", [a, b], (v, w) => v / w);
  const power = (a, b) => made("power", [a, b], Math.pow);
  const call = (name, compute, ...operands) => made("call", operands, compute, { name });
  const largest = (operands) => made("call", operands, Math.max, { name: "max" });
  const noted = (operand, note) => ({ ...node(operand), note });

  const LEVELS = { sum: 1, difference: 1, product: 2, quotient: 2, power: 3 };
  const SIGNS = { sum: " + ", difference: " − ", product: "·", quotient: " / ", power: "^" };
  const MOST_TERMS = 9;

  /** A formula in names, or in numbers. */
  function write(it, names) {
    if (it.kind === "ref") return names ? it.tensor.nameOf(it.n) : shown(it.value);
    if (it.kind === "number") return shown(it.value);
    if (it.kind === "call") return `${it.name}(${join(it.parts.map((part) => write(part, names)), ", ", "numbers")})`;
    if (it.parts.length === 0) return "0";
    if (it.parts.length === 1) return write(it.parts[0], names);
    return join(it.parts.map((part, place) => wrapped(it.kind, part, place, names)), SIGNS[it.kind], it.kind === "sum" ? "terms" : "factors");
  }

  function join(written, sign, what) {
    if (written.length <= MOST_TERMS) return written.join(sign);
    return `${written.slice(0, MOST_TERMS).join(sign)}${sign}… (${written.length} ${what})`;
  }

  function wrapped(kind, part, place, names) {
    const written = write(part, names);
    const simple = part.parts.length === 1 && part.kind !== "call" ? part.parts[0] : part;
    const level = LEVELS[simple.kind] ?? (written.startsWith("−") ? 0 : 4);
    const sameIsClear = kind === "sum" || (kind === "difference" && place === 0) || (kind === "product" && simple.kind === "product");
    const clear = level > LEVELS[kind] || (level === LEVELS[kind] && sameIsClear) || (level === 0 && place === 0 && LEVELS[kind] === 1);
    return clear ? written : `(${written})`;
  }

  /** The cells that a number is made of: [tensor's name, place]. */
  const uses = (it) => (it.kind === "ref" ? [[it.tensor.name, it.n]] : it.parts.flatMap(uses));

  function sentence(tensor, n) {
    const it = tensor.cell(n);
    const steps = [tensor.nameOf(n)];
    if (!tensor.given) steps.push(write(it, true), write(it, false));
    steps.push(shown(it.value));
    const text = steps.filter((step, i) => step !== steps[i - 1]).join(" = ");
    return `${text}${it.note ? `: ${it.note}` : tensor.given ? ", given" : ""}.`;
  }

  // ---------------------------------------------------------------------------------------------------------- tensors

  const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);

  function placeOf(n, shape) {
    const place = [];
    for (const size of shape.toReversed()) {
      place.unshift(n % size);
      n = Math.floor(n / size);
    }
    return place;
  }

  /** A table of numbers. compute(place) -> the number at that place, asked for once, when it is needed. */
  function tensor(name, shape, compute, more) {
    const cells = [];
    const index = (place) => place.reduce((n, i, axis) => n * shape[axis] + i, 0);
    const self = {
      name, shape, size: sizeOf(shape), ...more,
      cell: (n) => (cells[n] ??= node(compute(placeOf(n, shape)))),
      at: (...place) => ({ kind: "ref", tensor: self, n: index(place), parts: [], value: self.cell(index(place)).value }),
      nameOf: (n) => (shape.length ? `${name}[${placeOf(n, shape).join(",")}]` : name),
      all: () => range(self.size).map((n) => self.at(...placeOf(n, shape))),
    };
    return self;
  }

  class Refusal extends Error {}

  /** One example: what a page's function is given to say its tensors with. */
  function example(page, settings, values) {
    const tensors = {};
    let part;
    const add = (name, shape, compute, more) => (tensors[name] = tensor(name, shape, compute, { ...more, part }));
    const found = page({
      settings,
      part: (tone, title) => { part = { tone, title }; },
      given: (name, shape, caption, limits = {}) => add(name, shape, (place) => place.reduce((v, i) => v[i], values[name]),
        { caption, given: { least: -1000, most: 1000, whole: false, ...limits } }),
      made: (name, shape, caption, compute, more = {}) => add(name, shape, compute, { caption, ...more }),
      refuse: (text) => { throw new Refusal(text); },
    });
    return { tensors: Object.values(tensors), ...found };
  }

  // ---------------------------------------------------------------------------------------------------- numeric check

  const STEP = 1e-5; // times the number, if that is above 1
  const TOLERANCE = 1e-7; // times the sizes of what the objective adds, if they are above 1
  const BEND = 1e-4; // slopes to the left and to the right that differ by more, likewise

  /** For each tensor that is the gradient of another: the slope of the objective at each number, measured. */
  function measure(page, settings, values) {
    const now = example(page, settings, values);
    const scale = Math.max(1, now.objective.parts.reduce((a, part) => a + Math.abs(part.value), 0));
    return now.tensors.filter((t) => t.of?.given).map((gradient) => ({
      gradient,
      numbers: range(gradient.of.size).map((n) => {
        const place = placeOf(n, gradient.of.shape);
        const start = gradient.of.cell(n).value;
        const h = STEP * Math.max(1, Math.abs(start));
        const f = (times) => example(page, settings, withNumber(values, gradient.of.name, place, start + times * h)).objective.value;
        const [a, b, c, d, e] = [-2, -1, 0, 1, 2].map(f);
        const slope = (8 * (d - b) - (e - a)) / (12 * h);
        const off = Math.abs(slope - gradient.cell(n).value);
        const sides = [(c - b) / h, (d - c) / h].sort((left, right) => left - right);
        const near = BEND * scale;
        const between = gradient.cell(n).value >= sides[0] - near && gradient.cell(n).value <= sides[1] + near;
        const bent = sides[1] - sides[0] > near && between;
        return { slope, off, state: off <= TOLERANCE * scale ? "agrees" : bent ? "bends" : "differs" };
      }),
    })).map((found) => ({ ...found, scale }));
  }

  function withNumber(values, name, place, value) {
    const set = (nested, [first, ...rest]) => (first === undefined ? value : nested.map((v, i) => (i === first ? set(v, rest) : v)));
    return { ...values, [name]: set(values[name], place) };
  }

  // ------------------------------------------------------------------------------------------------------------- page

  function element(tag, text = "", ...classes) {
    const it = document.createElement(tag);
    it.textContent = text;
    it.classList.add(...classes);
    return it;
  }

  function start() {
    const root = document.getElementById("laboratory");
    const find = (selector) => root.querySelector(selector);
    const data = JSON.parse(find("[data-numbers]").textContent);
    const page = laboratory.pages[data.name];
    const settings = { ...data.settings };
    const field = find("[data-field]");
    let values = data.values;
    let now; // the example
    let cells; // "x" -> its table cells
    let chosen = null; // [tensor's name, place]
    let held = false; // by a click, a key or a finger: pointing elsewhere changes nothing
    let losses = [];

    const tensorOf = (name) => now.tensors.find((t) => t.name === name);
    const cellOf = (event) => event.target.closest?.("td");

    // ---- tables

    function cell(t, n) {
      const td = element("td", "", ...(t.given ? ["given"] : []));
      td.append(element("span", shown(t.cell(n).value), "number"));
      td.dataset.value = t.cell(n).value;
      td.tabIndex = n === 0 ? 0 : -1; // one stop for Tab; arrows move inside
      td.pick = [t.name, n];
      cells[t.name].push(td);
      return td;
    }

    const heading = (text, scope) => Object.assign(element("th", text), { scope });

    /** Rows along the last axis but one, columns along the last; of more axes, a table for each plane. */
    function tables(t) {
      const [rows, columns] = [t.shape.at(-2) ?? 1, t.shape.at(-1) ?? 1];
      cells[t.name] = [];
      return range(t.size / (rows * columns)).map((plane) => {
        const table = element("table");
        table.setAttribute("role", "grid");
        table.setAttribute("aria-label", t.shape.length > 2 ? `${t.name}[${plane}]` : t.name);
        const head = table.createTHead().insertRow();
        if (t.shape.length) head.append(element("th"), ...range(columns).map((j) => heading(j, "col")));
        const body = table.createTBody();
        for (const i of range(rows)) {
          const row = body.insertRow();
          if (t.shape.length) row.append(heading(t.shape.length > 1 ? i : "", "row"));
          row.append(...range(columns).map((j) => cell(t, (plane * rows + i) * columns + j)));
        }
        if (t.shape.length > 2) table.append(Object.assign(element("caption", `${t.name}[${plane}]`)));
        return table;
      });
    }

    function figure(t) {
      const it = element("figure");
      const caption = element("figcaption");
      caption.append(element("b", t.name), t.shape.length ? ` ${t.shape.join(" × ")}: ${t.caption}` : ` ${t.caption}`);
      const box = element("div", "", "planes");
      box.dataset.tensor = t.name;
      box.append(...tables(t));
      it.append(caption, box);
      return it;
    }

    function draw() {
      cells = {};
      const parts = [...new Set(now.tensors.map((t) => t.part))];
      find("[data-parts]").replaceChildren(...parts.map((part) => {
        const section = element("section");
        section.dataset.tone = part.tone;
        const row = element("div", "", "row");
        row.append(...now.tensors.filter((t) => t.part === part).map(figure));
        section.append(element("h2", part.title), row);
        return section;
      }));
    }

    // ---- what is chosen

    function readers(name, n) {
      return now.tensors.filter((t) => !t.given).flatMap((t) => range(t.size)
        .filter((m) => uses(t.cell(m)).some(([a, b]) => a === name && b === n)).map((m) => [t.name, m]));
    }

    function choose(pick) {
      unmark();
      chosen = pick;
      const [name, n] = pick;
      const t = tensorOf(name);
      const mark = (places, kind) => places.forEach(([a, b]) => cells[a][b].classList.add(kind));
      const into = readers(name, n);
      mark(uses(t.cell(n)), "source");
      mark(into, "reader");
      mark([pick], "chosen");
      find("[data-say=made]").textContent = sentence(t, n);
      const names = into.map(([a, b]) => tensorOf(a).nameOf(b));
      find("[data-say=used]").textContent = names.length ? `It goes into ${join(names, " ", "numbers")}.` : "Nothing is made of it here.";
      find("[data-edit]").hidden = !t.given;
      if (t.given) offer(t, n);
    }

    function offer(t, n) {
      find("[data-edited]").textContent = t.nameOf(n);
      if (document.activeElement !== field) field.value = t.cell(n).value;
      Object.assign(field, { min: t.given.least, max: t.given.most, step: t.given.whole ? 1 : "any" });
      valid(true);
    }

    function unmark() {
      root.querySelectorAll(".chosen, .source, .reader").forEach((td) => td.classList.remove("chosen", "source", "reader"));
    }

    function letGo() {
      unmark();
      [chosen, held] = [null, false];
      find("[data-say=made]").textContent = "Point at a number: here is how it was made.";
      find("[data-say=used]").textContent = "A click or a tap holds it, Escape lets go. Numbers with a dotted line can be changed.";
      find("[data-edit]").hidden = true;
    }

    // ---- changes

    function valid(yes) {
      field.setAttribute("aria-invalid", !yes);
      const { least, most, whole } = tensorOf(chosen[0]).given;
      find("[data-limits]").textContent = yes ? "" : `${whole ? "a whole number" : "a number"} from ${shown(least)} to ${shown(most)}`;
    }

    function edit() {
      const t = tensorOf(chosen[0]);
      const value = field.valueAsNumber;
      const fits = value >= t.given.least && value <= t.given.most && (!t.given.whole || Number.isInteger(value));
      if (fits) {
        values = withNumber(values, t.name, placeOf(chosen[1], t.shape), value);
        losses = [];
        update();
      }
      valid(fits);
    }

    function agrees() {
      const near = (a, b) => Math.abs(a - b) <= 1e-12 * Math.max(1, Math.abs(b));
      return Object.entries(data.python).every(([name, rows]) => {
        const numbers = [rows].flat(Infinity);
        return numbers.length === tensorOf(name)?.size && numbers.every((v, n) => near(tensorOf(name).cell(n).value, v));
      });
    }

    function checked() {
      const same = values === data.values && Object.entries(data.settings).every(([name, value]) => settings[name] === value);
      if (!same) return `Computed on this page, by the rules of ${data.source}.`;
      return agrees() ? `These numbers were computed in Python by ${data.source}; this page computed them again and got the same.`
        : `This page computes other numbers than ${data.source} did in Python: do not trust it.`;
    }

    function compute() {
      now = example(page, settings, values);
      now.tensors.forEach((t) => range(t.size).forEach(t.cell));
      return "";
    }

    function refusal() {
      try {
        return compute();
      } catch (error) {
        if (error instanceof Refusal) return error.message;
        throw error;
      }
    }

    function update() {
      const focused = document.activeElement.pick;
      const refused = refusal();
      find("[data-refused]").hidden = !refused;
      find("[data-refused]").textContent = refused;
      find("[data-all]").hidden = find("[data-checked]").hidden = Boolean(refused);
      if (refused) return;
      draw();
      find("[data-checked]").textContent = checked();
      find("[data-measured]").replaceChildren();
      if (now.steps) showSteps();
      if (!chosen || !(chosen[1] < tensorOf(chosen[0])?.size)) return letGo();
      choose(chosen);
      if (focused) cells[chosen[0]][chosen[1]].focus();
    }

    const rounded = (x) => x.toExponential(0).replace("-", "−");

    function showMeasured() {
      if (!Number.isFinite(now.objective.value)) {
        find("[data-measured]").replaceChildren(element("p", `It is ${shown(now.objective.value)}: there is no slope to measure.`));
        return;
      }
      const lines = measure(page, settings, values).map(({ gradient, numbers, scale }) => {
        numbers.forEach(({ slope, state }, n) => {
          const td = cells[gradient.name][n];
          td.querySelector("small")?.remove();
          td.append(element("small", `≈ ${shown(slope)}`));
          td.classList.add(state);
        });
        const count = (state) => numbers.filter((it) => it.state === state).length;
        const most = Math.max(...numbers.map((it) => (it.state === "bends" ? 0 : it.off)));
        const smooth = numbers.length - count("bends"), kinks = count("bends");
        const bends = kinks ? ` At ${kinks} of them, a tie or a corner, the function has a kink: its slopes below and above differ. ` +
          "What is measured is their mean; the gradient may be any value from one to the other." : "";
        const verdict = count("differs") ? `${count("differs")} of ${numbers.length} numbers differ`
          : kinks ? `${smooth} of ${numbers.length} numbers agree` : "agrees";
        return `${gradient.name}: ${verdict}. The largest difference is ${rounded(most)}; up to ${rounded(TOLERANCE * scale)} counts as equal.${bends}`;
      });
      find("[data-measured]").replaceChildren(...lines.map((line) => element("p", line)));
    }

    // ---- steps of a training

    const SMALL = 0.05;
    const MOST_STEPS = 500;

    function advance() {
      losses.push(now.objective.value);
      for (const [parameter, next] of now.steps) {
        range(next.size).forEach((n) => {
          values = withNumber(values, parameter.name, placeOf(n, next.shape), next.cell(n).value);
        });
      }
      compute();
    }

    const TAKE = {
      one: () => advance(),
      ten: () => range(10).forEach(advance),
      small: () => { for (let left = MOST_STEPS; left && now.objective.value >= SMALL; left -= 1) advance(); },
    };

    function showSteps() {
      const loss = now.objective.value;
      const taken = losses.length ? ` Before: ${losses.slice(-8).map(shown).join(", ")}.` : "";
      find("[data-progress]").textContent =
        `After ${losses.length} step${losses.length === 1 ? "" : "s"} the loss is ${shown(loss)}${loss < SMALL ? ", which is small" : ""}.${taken}`;
    }

    // ---- what a reader does

    const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

    function moveFocus(td, [rows, columns]) {
      const next = td.closest("table").rows[td.parentNode.rowIndex + rows]?.cells[td.cellIndex + columns];
      if (next?.tagName !== "TD") return;
      td.closest("[data-tensor]").querySelectorAll("td").forEach((other) => { other.tabIndex = -1; });
      next.tabIndex = 0;
      next.focus();
    }

    root.addEventListener("pointerover", (event) => {
      const td = event.pointerType === "mouse" && !held && cellOf(event);
      if (td) choose(td.pick);
    });
    root.addEventListener("focusin", (event) => {
      const td = cellOf(event);
      if (!td) return;
      held = true;
      choose(td.pick);
    });
    root.addEventListener("click", (event) => {
      const td = cellOf(event);
      if (td) { // a cell that Escape let go has the focus still
        held = true;
        choose(td.pick);
      } else if (!event.target.closest("button, select, label, [data-says]")) letGo();
    });
    root.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const inField = event.target === field;
      if (inField && (event.key === "Enter" || event.key === "Escape")) {
        event.preventDefault();
        cells[chosen[0]][chosen[1]].focus();
        return event.key === "Escape" ? letGo() : undefined;
      }
      if (event.key === "Escape") return letGo();
      const td = cellOf(event);
      if (!td) return;
      if (ARROWS[event.key]) {
        event.preventDefault();
        moveFocus(td, ARROWS[event.key]);
      } else if (/^(Enter|[-.\d])$/.test(event.key) && tensorOf(td.pick[0]).given) {
        if (event.key === "Enter") event.preventDefault(); // a digit goes into the field
        choose(td.pick);
        field.focus();
        field.select();
      }
    });
    field.addEventListener("input", edit);
    field.addEventListener("blur", () => { if (chosen) choose(chosen); });
    find("[data-do=measure]").addEventListener("click", showMeasured);
    root.querySelectorAll("[data-take]").forEach((button) => button.addEventListener("click", () => {
      TAKE[button.dataset.take]();
      update();
    }));
    root.querySelectorAll("[data-do=again]").forEach((button) => button.addEventListener("click", () => {
      [values, losses] = [data.values, []];
      update();
    }));

    for (const [name, choices] of Object.entries(data.choices)) {
      const label = element("label", `${name} `);
      const select = element("select");
      select.dataset.setting = name;
      select.append(...choices.map((choice, i) => new Option(shownChoice(choice), i)));
      select.value = choices.indexOf(settings[name]);
      select.addEventListener("change", () => {
        settings[name] = choices[select.value];
        losses = [];
        update();
      });
      label.append(select);
      find("[data-controls]").append(label);
    }
    update();
  }

  const shownChoice = (choice) => (choice === true ? "yes" : choice === false ? "no" : choice === null ? "none" : typeof choice === "number" ? shown(choice) : choice);

  return { range, sum, product, difference, quotient, power, call, largest, noted, layers: {}, pages: {}, start };
})();
