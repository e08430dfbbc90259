"use strict";
// Formulas as mathematics, from the plain text in which docstrings have them: `Formulas`. What it can't read stays text.
// The site's formulas are made by the same rules, in docs/formulas.py.

const Formulas = (() => {
  const GREEK = { alpha: "\u03b1", beta: "\u03b2", gamma: "\u03b3", sigma: "\u03c3", pi: "\u03c0", infinity: "\u221e" };
  const SIGNS = { "*": "\u00b7", "-": "\u2212", "@": "\u00b7", "==": "=", "<-": "\u2190", "'": "\u2032", "...": "\u2026" };
  const WORDS = ["where", "if", "else"];
  const FUNCTIONS = ["max", "min", "exp", "ln", "tanh", "softmax", "floor", "ceil", "sqrt", "erf", "sign", "len"];
  const LARGE = { sum: "\u2211", integral: "\u222b", max: "max", mean: "mean" }; // what runs over indices
  const TOKEN = /\s*((?:sum|max|mean|integral) over .*? of |(?:sum|mean) of |[A-Za-z_]+\d*|\d+(?:\.\d+)?(?:e[-+]?\d+)?|[\u03a3\u03b1\u03b2]|\u2212|\.\.\.|<=|>=|==|<-|->|[-+*\/^=()[\],.<>@|'\u00b7\u00b2])/uy;

  const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const mi = (name) => `<mi>${GREEK[name] || escape(name)}</mi>`;
  const fixed = (sign) => ("()[]|".includes(sign) ? ' stretchy="false"' : ""); // a sum would make them taller than what they hold
  const mo = (sign) => `<mo${fixed(sign)}>${escape(SIGNS[sign] || sign)}</mo>`;
  // A power; over the indices if the base has some.
  const raised = (base, power) => (base.startsWith("<msub>") ? `<msubsup>${base.slice(6, -7)}${power}</msubsup>` : `<msup>${base}${power}</msup>`);

  function tokens(text) {
    const found = [];
    TOKEN.lastIndex = 0;
    while (TOKEN.lastIndex < text.trimEnd().length) {
      const match = TOKEN.exec(text);
      if (!match) return null;
      found.push(match[1]);
    }
    return found;
  }

  // MathML of one formula; null if it is not one. Two words side by side are prose.
  function mathml(text) {
    const all = tokens(text.replace(/sum of (.+?) over (?:the )?(.+)$/, "sum over $2 of $1"));
    if (!all || !(all.includes("=") || all.includes("<-"))) return null;
    let at = 0;
    const isName = (token) => /^[A-Za-z_\u03b1\u03b2]/u.test(token || "") && !/ of $/.test(token);
    const row = (ends) => {
      const parts = [];
      while (at < all.length && !ends.includes(all[at])) {
        const next = item();
        if (next === null) return null;
        parts.push(next);
      }
      return `<mrow>${parts.join("")}</mrow>`;
    };
    const group = (open, close) => {
      at++;
      const inside = row([close]);
      if (inside === null || all[at] !== close) return null;
      at++;
      return `<mrow>${open ? mo(open) : ""}${inside}${open ? mo(close) : ""}</mrow>`;
    };
    function item() {
      const base = atom();
      if (base === null) return null;
      if (all[at] === "\u00b2") {
        at++;
        return raised(base, "<mn>2</mn>");
      }
      if (all[at] !== "^") return base;
      at++;
      if (["-", "\u2212"].includes(all[at])) {
        at++;
        const power = atom();
        return power && raised(base, `<mrow>${mo("-")}${power}</mrow>`);
      }
      const power = all[at] === "(" ? group("", ")") : atom();
      return power && raised(base, power);
    }
    function atom() {
      const token = all[at];
      if (token === undefined) return null;
      if (/ of $/.test(token)) {
        at++;
        const [, kind, indices] = token.match(/^(\w+)(?: over (.*?))? of $/), sign = `<mo>${LARGE[kind]}</mo>`;
        return indices ? `<munder>${sign}<mtext>${escape(indices)}</mtext></munder>` : sign;
      }
      if (token === "(") return group("(", ")");
      if (token === "[") return group("[", "]");
      at++;
      if (token === "\u03a3") return "<mo>\u2211</mo>";
      if (/^\d/.test(token)) return `<mn>${token}</mn>`;
      if (!isName(token)) return mo(token);
      if (WORDS.includes(token)) return `<mtext>\u00a0${token}\u00a0</mtext>`;
      if (isName(all[at]) && !WORDS.includes(all[at]) && !FUNCTIONS.includes(token)) return null; // prose
      if (FUNCTIONS.includes(token)) return `<mo>${token}</mo>`;
      if (all[at] !== "[") return mi(token);
      const indices = group("", "]");
      return indices && `<msub>${mi(token)}${indices}</msub>`;
    }
    const whole = row([]);
    return whole === null || at < all.length ? null : `<math display="block">${whole}</math>`;
  }

  // A formula as an element: mathematics where it can be read, with the text it is from below it.
  function element(text) {
    const [formula, ...remarks] = text.split(/,\s{2,}|, over the |  \u2212  (?=\u03a3)/), found = mathml(text) || (remarks.length ? null : mathml(formula));
    if (!found) return null;
    const holder = el("div", { class: "math" });
    holder.innerHTML = found; // made of escaped parts above
    return holder;
  }

  return { mathml, element };
})();
