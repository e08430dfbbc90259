{
  const { difference, product, range, sum } = laboratory;

  /** x (H, W), w (filters, K, K), b (filters): no padding, stride 1. */
  const conv2d = {
    forward: ({ made }, x, w, b, name) => {
      const [filters, kernel] = w.shape;
      return made(name, [filters, ...x.shape.map((n) => n - kernel + 1)], `conv2d: the patch of ${x.name} times the filter of ${w.name}`, ([f, i, j]) =>
        sum([...range(kernel * kernel).map((e) => [Math.floor(e / kernel), e % kernel]).map(([u, v]) =>
          product(x.at(i + u, j + v), w.at(f, u, v))), b.at(f)]));
    },
    backward: ({ made }, gy, x, w, b, names) => {
      const [, oh, ow] = gy.shape;
      const places = range(oh * ow).map((n) => [Math.floor(n / ow), n % ow]);
      return {
        gw: made(names[0], w.shape, `each number of ${gy.name} times the pixel of ${x.name} that it met`, ([f, u, v]) =>
          sum(places.map(([i, j]) => product(gy.at(f, i, j), x.at(i + u, j + v)))), { of: w }),
        gb: made(names[1], b.shape, `the sum of a map of ${gy.name}`, ([f]) => sum(places.map(([i, j]) => gy.at(f, i, j))), { of: b }),
      };
    },
  };

  const flat = ({ made }, x, name, more) => made(name, [1, x.size], `the numbers of ${x.name} in a row`, ([, n]) => x.all()[n], more);

  laboratory.pages.chain = (t) => {
    const { filters, target, lr } = t.settings;
    const { relu, max_pool2d: pool, linear, cross_entropy: loss } = laboratory.layers;
    const window = { kernel: 2, stride: 2, padding: 0, ceil_mode: false };
    const wide = filters * 4;

    t.part("forward", "Forward");
    const x = t.given("x", [6, 6], "the image");
    const w1 = t.given("w1", [filters, 3, 3], "conv2d's filters");
    const b1 = t.given("b1", [filters], "their biases");
    const a = conv2d.forward(t, x, w1, b1, "a");
    const r = relu.forward(t, a, "r");
    const { y: p, winner } = pool.forward(t, r, window, ["m", "winner"]);
    const h = flat(t, p, "h");
    const w2 = t.given("w2", [3, wide], "linear's weights: a row for each class");
    const b2 = t.given("b2", [3], "its biases");
    const s = linear.forward(t, h, w2, b2, "s");
    const label = t.made("target", [1], "the image's class", () => target);
    const found = loss.forward(t, s, label, null, { reduction: "sum", label_smoothing: 0, ignore_index: -100 });

    t.part("backward", "Backward");
    const gs = loss.backward(t, null, found, s, "gs");
    const { gx: gh, gw: gw2, gb: gb2 } = linear.backward(t, gs, h, w2, b2, ["gh", "gw2", "gb2"]);
    const gm = t.made("gm", p.shape, "gh, in the shape of m", ([f, i, j]) => gh.at(0, (f * 2 + i) * 2 + j));
    const gr = pool.backward(t, gm, winner, r, window, "gr");
    const ga = relu.backward(t, gr, r, a, "ga");
    const { gw: gw1, gb: gb1 } = conv2d.backward(t, ga, x, w1, b1, ["gw1", "gb1"]);

    t.part("backward", "The step: w − lr·gw");
    const next = (w, gw) => [w, t.made(`next_${w.name}`, w.shape, "after one step", (place) => difference(w.at(...place), product(lr, gw.at(...place))))];
    return { objective: sum([found.total.at()]), steps: [next(w1, gw1), next(b1, gb1), next(w2, gw2), next(b2, gb2)] };
  };
}
