laboratory.layers.tanh = laboratory.layers.elementwise(
  (x) => laboratory.call("tanh", Math.tanh, x),
  (gy, y) => laboratory.product(gy, laboratory.difference(1, laboratory.power(y, 2))),
  { forward: (x) => `tanh(${x})`, backward: (gy, y) => `${gy}·(1 − ${y}^2)` },
);
laboratory.pages.tanh = (t) => laboratory.layers.tanh.page(t);
