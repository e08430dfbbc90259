laboratory.layers.sigmoid = laboratory.layers.elementwise(
  (x) => laboratory.quotient(1, laboratory.sum([1, laboratory.call("exp", Math.exp, laboratory.product(-1, x))])),
  (gy, y) => laboratory.product(gy, y, laboratory.difference(1, y)),
  { forward: (x) => `1 / (1 + exp(−${x}))`, backward: (gy, y) => `${gy}·${y}·(1 − ${y})` },
);
laboratory.pages.sigmoid = (t) => laboratory.layers.sigmoid.page(t);
