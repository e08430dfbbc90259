/** A function of each number by itself. formula(x) -> y; slope(gy, y) -> gx, from the output alone. */
laboratory.layers.elementwise = (formula, slope, words) => ({
  forward: (t, x, name = "y") => t.made(name, x.shape, words.forward, (place) => formula(x.at(...place))),
  backward: (t, gy, y, x, name = "gx") => t.made(name, x.shape, words.backward, (place) => slope(gy.at(...place), y.at(...place)), { of: x }),
  page(t) {
    const { product, range, sum } = laboratory;
    t.part("forward", `Forward: ${words.forward}`);
    const x = t.given("x", [t.settings.numbers], "the numbers that arrive");
    const y = this.forward(t, x);
    t.part("backward", `Backward: ${words.backward}`);
    const gy = t.given("gy", x.shape, "the gradient that arrives");
    this.backward(t, gy, y, x);
    return { objective: sum(range(y.size).map((n) => product(gy.at(n), y.at(n)))) };
  },
});
