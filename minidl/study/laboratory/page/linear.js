{
  const { product, range, sum } = laboratory;

  laboratory.layers.linear = {
    /** x (N, I), w (O, I), b (O) or null -> y (N, O). */
    forward: ({ made }, x, w, b, name = "y") => made(name, [x.shape[0], w.shape[0]], `a row of ${x.name} times a row of ${w.name}`, ([n, o]) =>
      sum([...range(w.shape[1]).map((i) => product(x.at(n, i), w.at(o, i))), ...(b ? [b.at(o)] : [])])),
    backward({ made }, gy, x, w, b, names = ["gx", "gw", "gb"]) {
      const rows = range(x.shape[0]);
      return {
        gx: made(names[0], x.shape, `a row of ${gy.name} times a column of ${w.name}`, ([n, i]) =>
          sum(range(w.shape[0]).map((o) => product(gy.at(n, o), w.at(o, i)))), { of: x }),
        gw: made(names[1], w.shape, `a column of ${gy.name} times a column of ${x.name}`, ([o, i]) =>
          sum(rows.map((n) => product(gy.at(n, o), x.at(n, i)))), { of: w }),
        gb: b && made(names[2], b.shape, `the sum of each column of ${gy.name}`, ([o]) => sum(rows.map((n) => gy.at(n, o))), { of: b }),
      };
    },
  };

  laboratory.pages.linear = (t) => {
    const { examples, in_features: wide, out_features: out, bias } = t.settings;
    t.part("forward", "Forward: y = x wᵀ + b");
    const x = t.given("x", [examples, wide], "a row for each example");
    const w = t.given("w", [out, wide], "a row of weights for each output");
    const b = bias ? t.given("b", [out], "the bias") : null;
    const y = laboratory.layers.linear.forward(t, x, w, b);
    t.part("backward", "Backward: gx = gy w, gw = gyᵀ x");
    const gy = t.given("gy", y.shape, "the gradient that arrives");
    laboratory.layers.linear.backward(t, gy, x, w, b);
    return { objective: sum(range(y.size).map((n) => product(gy.all()[n], y.all()[n]))) };
  };
}
