/** A function of each number by itself. formula(x) -> y; slope(gy, y) -> gx, from the output alone. words: what both do, said with the names of their tensors. */
laboratory.layers.elementwise = (formula, slope, words) => ({
  forward: (t, x, name = "y") => t.made(name, x.shape, words.forward(x.name), (place) => formula(x.at(...place))),
  backward: (t, gy, y, x, name = "gx") => t.made(name, x.shape, words.backward(gy.name, y.name), (place) => slope(gy.at(...place), y.at(...place)), { of: x }),
  page(t) {
    const { product, range, sum } = laboratory;
    t.part("forward", `Forward: ${words.forward("x")}`);
    const x = t.given("x", [t.settings.numbers], "the numbers that arrive");
    const y = this.forward(t, x);
    t.part("backward", `Backward: ${words.backward("gy", "y")}`);
    const gy = t.given("gy", x.shape, "the gradient that arrives");
    this.backward(t, gy, y, x);
    return { objective: sum(range(y.size).map((n) => product(gy.at(n), y.at(n)))) };
  },
});
