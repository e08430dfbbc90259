{
  const { difference, noted, power, product, quotient, range, sum } = laboratory;

  laboratory.pages.SGD = (t) => {
    const { rule, lr, momentum, weight_decay: decay, lr_drops_after: drop } = t.settings;
    const [steps, size] = [8, 2];

    t.part("forward", "Forward: a bowl, whose bottom is at a");
    const w = t.given("w", [size], "the parameters before the first step");
    const a = t.given("a", [size], "where the loss is 0");
    const k = t.given("k", [size], "how steep the bowl is along each");
    t.made("loss", [], "half of k times the distance squared", () => sum(range(size).map((i) =>
      quotient(product(k.at(i), power(difference(w.at(i), a.at(i)), 2)), 2))));

    t.part("backward", `Backward and ${steps} steps: a row for each`);
    const rates = t.made("lr", [steps], "a tenth, once it drops", ([s]) => (s < drop ? lr : noted(lr / 10, "it has dropped")));
    const g = t.made("g", [steps, size], "the gradient at each step", ([s, i]) =>
      product(k.at(i), difference(s ? after.at(s - 1, i) : w.at(i), a.at(i))), { of: w });
    const v = t.made("v", [steps, size], "the velocity", ([s, i]) => {
      const before = s ? v.at(s - 1, i) : 0;
      const direction = decay ? sum([g.at(s, i), product(decay, s ? after.at(s - 1, i) : w.at(i))]) : g.at(s, i);
      return rule === "2012" ? difference(product(momentum, before), product(rates.at(s), direction))
        : sum([product(momentum, before), direction]);
    });
    const after = t.made("after", [steps, size], "the parameters after each step", ([s, i]) => {
      const before = s ? after.at(s - 1, i) : w.at(i);
      return rule === "2012" ? sum([before, v.at(s, i)]) : difference(before, product(rates.at(s), v.at(s, i)));
    });
    return { objective: sum(range(size).map((i) => quotient(product(k.at(i), power(difference(w.at(i), a.at(i)), 2)), 2))) };
  };
}
