{
  const { call, difference, largest, noted, product, quotient, range, sum } = laboratory;

  laboratory.layers.cross_entropy = {
    /** x (N, C), target (N) of class ids, weight (C) or null -> the loss and what backward needs. */
    forward({ made }, x, target, weight, s) {
      const [n, classes] = x.shape;
      const rows = range(n);
      const counts = (r) => target.at(r).value !== s.ignore_index;
      const most = (r) => largest(range(classes).map((c) => x.at(r, c)));
      const e = made("e", x.shape, `exp(${x.name} − the row's largest): nothing overflows`, ([r, c]) => call("exp", Math.exp, difference(x.at(r, c), most(r))));
      const p = made("p", x.shape, "softmax: e over the sum of its row", ([r, c]) => quotient(e.at(r, c), sum(range(classes).map((j) => e.at(r, j)))));
      const logp = made("logp", x.shape, "ln p, as a difference", ([r, c]) =>
        difference(difference(x.at(r, c), most(r)), call("ln", Math.log, sum(range(classes).map((j) => e.at(r, j))))));
      const weighted = (q, c) => (weight ? product(weight.at(c), q) : q);
      const t = made("t", x.shape, "what the row should have said", ([r, c]) => {
        if (!counts(r)) return noted(0, `${target.nameOf(r)} is ignore_index`);
        const [share, smooth] = [target.at(r).value === c ? 1 : 0, s.label_smoothing];
        return weighted(smooth ? sum([product(1 - smooth, share), quotient(smooth, classes)]) : share, c);
      });
      const losses = made("losses", [n], "− the sum of t·logp", ([r]) => product(-1, sum(range(classes).map((c) => product(t.at(r, c), logp.at(r, c))))));
      if (s.reduction === "none") return { p, t, losses, total: null };
      const divisor = s.reduction === "sum" ? null : made("divisor", [], "the mean's: rows that count, by their weight", () =>
        sum(rows.filter(counts).map((r) => (weight ? weight.at(target.at(r).value) : 1))));
      const total = made("loss", [], s.reduction === "sum" ? "the sum" : "the mean", () =>
        (divisor ? quotient(sum(losses.all()), divisor.at()) : sum(losses.all())));
      return { p, t, losses, total, divisor };
    },
    /** gloss (N) for each row, or (); without one it is 1. */
    backward({ made }, gloss, { p, t, divisor }, x, name = "gx") {
      const classes = x.shape[1];
      return made(name, x.shape, "what was believed minus what was so", ([r, c]) => {
        const off = difference(product(p.at(r, c), sum(range(classes).map((j) => t.at(r, j)))), t.at(r, c));
        if (divisor && divisor.at().value === 0) return noted(0, "no row counts");
        const arrived = gloss ? product(gloss.shape.length ? gloss.at(r) : gloss.at(), off) : off;
        return divisor ? quotient(arrived, divisor.at()) : arrived;
      }, { of: x });
    },
  };

  laboratory.pages.cross_entropy = (page) => {
    const s = page.settings;
    const layer = laboratory.layers.cross_entropy;
    page.part("forward", "Forward: how wrong are the scores?");
    const x = page.given("x", [3, 4], "scores: a row for each example, a column for each class");
    const target = page.given("target", [3], "the class of each", { least: 0, most: 3, whole: true });
    const weight = s.weight ? page.given("weight", [4], "how much each class counts", { least: 0 }) : null;
    const found = layer.forward(page, x, target, weight, s);
    page.part("backward", "Backward: what was believed minus what was so");
    const gloss = page.given(found.total ? "gloss" : "glosses", found.total ? [] : [3], "the gradient that arrives");
    layer.backward(page, gloss, found, x);
    const terms = found.total ? [product(gloss.at(), found.total.at())] : range(3).map((r) => product(gloss.at(r), found.losses.at(r)));
    return { objective: sum(terms) };
  };
}
