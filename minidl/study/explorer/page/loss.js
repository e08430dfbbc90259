"use strict";
// The loss, class by class: `Loss`.

const Loss = (() => {
  const SHOWN = 10; // of the classes with the highest probabilities; and the true one

  // What cross-entropy did with one row of scores; null where the loss is another.
  async function element() {
    const op = step.ops.find((candidate) => candidate.op === "cross_entropy" && Layers.of(candidate));
    if (!op) return null;
    await Tensors.load(Why.arrays(op));
    const { scores, p, t, shift, sum, logSum } = Layers.of(op).row(op, 0), order = scores.map((_, c) => c).toSorted((a, b) => p[b] - p[a]);
    const classes = [...new Set([...order.slice(0, SHOWN), ...order.filter((c) => t[c] > 0).slice(0, SHOWN)])];
    const most = Math.max(...classes.map((c) => Math.max(p[c], t[c], Math.abs(p[c] - t[c]))));
    const bar = (value) => el("td", {}, el("span", { class: "bar-number" }, Words.number(value, 4)),
      el("i", { "aria-hidden": "true", class: value < 0 ? "below" : "above", style: `width:${100 * Math.abs(value) / most}%` }));
    const ask = (c, value) => el("a", { href: Ask.href([Why.beyond({ op, slot: "x0", index: [0, c] })]) }, Words.number(value, 5));
    const names = step.loss?.names || [];
    return el("div", { class: "loss" },
      el("p", {}, "ln \u03a3 e^x = ", el("b", {}, Words.number(shift, 6)), " + ln ", el("b", {}, Words.number(sum, 6)), " = ", el("b", { "data-key": "lse" }, Words.number(logSum, 6)),
        ": the largest score is the shift, which is taken out so that no e^x overflows. The loss is ln \u03a3 e^x minus the true class's score: ",
        el("a", { href: Ask.href([Why.origin({ op, slot: "y", index: [0] })]) }, Words.number(Tensors.at(op.output, [0]), 5)), "."),
      el("div", { class: "scroll" }, el("table", { class: "classes" },
        el("thead", {}, el("tr", {}, ["class", "score x", "p = softmax(x)", "t", "gradient p \u2212 t"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, classes.map((c) => el("tr", { class: t[c] ? "true" : null },
          el("th", { scope: "row" }, names[c] || `class ${c}`, t[c] ? " (true)" : ""), el("td", {}, ask(c, scores[c])), bar(p[c]), bar(t[c]),
          bar(p[c] - t[c])))))),
      el("p", { class: "muted small" }, `${classes.length} of ${scores.length} classes: those with the highest p, and the true one. All p add up to 1, so all p \u2212 t add up to 0.`));
  }

  return { element };
})();
