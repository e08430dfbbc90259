laboratory.layers.relu = laboratory.layers.elementwise(
  (x) => laboratory.largest([x, 0]),
  (gy, y) => (y.value > 0 ? laboratory.noted(gy, `${y.tensor.name} is above 0: the gradient passes`) : laboratory.noted(0, `${y.tensor.name} is 0: the gradient stops`)),
  { forward: (x) => `max(${x}, 0)`, backward: (gy, y) => `${gy} where ${y} is above 0, else 0` },
);
laboratory.pages.relu = (t) => laboratory.layers.relu.page(t);
