{
  const { call, difference, power, product, quotient, range, sum } = laboratory;

  laboratory.pages.batch_norm = (t) => {
    const { training, affine, momentum, eps } = t.settings;
    const [m, channels] = [4, 2];
    const rows = range(m);

    t.part("forward", "Forward: mean 0 and variance 1, then a scale and a shift");
    const x = t.given("x", [m, channels], `m = ${m} rows, one for each example; a column for each channel`);
    const w = affine ? t.given("w", [channels], "the scale") : null;
    const b = affine ? t.given("b", [channels], "the shift") : null;
    const runningMean = t.given("running_mean", [channels], "of the batches before");
    const runningVar = t.given("running_var", [channels], "of the batches before", { least: 0 });
    const mean = t.made("mean", [channels], training ? "of the batch" : "the running one", ([c]) =>
      (training ? quotient(sum(rows.map((r) => x.at(r, c))), m) : runningMean.at(c)));
    const variance = t.made("var", [channels], training ? "of the batch" : "the running one", ([c]) =>
      (training ? quotient(sum(rows.map((r) => power(difference(x.at(r, c), mean.at(c)), 2))), m) : runningVar.at(c)));
    const inverse = t.made("inverse", [channels], "1 over the standard deviation", ([c]) => quotient(1, call("sqrt", Math.sqrt, sum([variance.at(c), eps]))));
    const z = t.made("z", x.shape, "x with mean 0 and variance 1", ([r, c]) => product(difference(x.at(r, c), mean.at(c)), inverse.at(c)));
    const y = t.made("y", x.shape, affine ? "z scaled and shifted" : "z as it is", ([r, c]) =>
      (affine ? sum([product(w.at(c), z.at(r, c)), b.at(c)]) : z.at(r, c)));
    const follow = (old, now) => sum([product(1 - momentum, old), product(momentum, now)]);
    t.made("next_mean", [channels], training ? "the running mean after this batch" : "evaluation changes nothing", ([c]) =>
      (training ? follow(runningMean.at(c), mean.at(c)) : runningMean.at(c)));
    t.made("next_var", [channels], training ? "the running variance, of m − 1 in place of m" : "evaluation changes nothing", ([c]) =>
      (training ? follow(runningVar.at(c), product(variance.at(c), quotient(m, m - 1))) : runningVar.at(c)));

    t.part("backward", training ? "Backward: mean and variance are functions of x too" : "Backward: mean and variance are constants");
    const gy = t.given("gy", x.shape, "the gradient that arrives");
    const gb = t.made("gb", [channels], "the sum of gy", ([c]) => sum(rows.map((r) => gy.at(r, c))), b ? { of: b } : {});
    const gw = t.made("gw", [channels], "the sum of gy·z", ([c]) => sum(rows.map((r) => product(gy.at(r, c), z.at(r, c)))), w ? { of: w } : {});
    t.made("gx", x.shape, training ? "gy without its mean and without what is along z" : "gy, scaled", ([r, c]) => {
      const slope = w ? [w.at(c), inverse.at(c)] : [inverse.at(c)];
      if (!training) return product(...slope, gy.at(r, c));
      const rest = difference(difference(gy.at(r, c), quotient(gb.at(c), m)), product(z.at(r, c), quotient(gw.at(c), m)));
      return product(...slope, rest);
    }, { of: x });
    return { objective: sum(range(y.size).map((n) => product(gy.all()[n], y.all()[n]))) };
  };
}
