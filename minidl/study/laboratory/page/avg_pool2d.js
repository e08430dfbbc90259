{
  const { noted, product, quotient, range, sum } = laboratory;
  const { windows, where } = laboratory.layers;

  laboratory.pages.avg_pool2d = (t) => {
    const { kernel, stride, padding, count_include_pad: includePad, divisor_override: divisor } = t.settings;
    const [height, width] = [5, 5];
    const { out, inside } = windows(t.refuse, "avg_pool2d", [height, width], t.settings);
    const length = (i, size) => Math.min(i * stride - padding + kernel, size + padding) - (i * stride - padding);

    t.part("forward", "Forward: the mean of each window");
    const x = t.given("x", [height, width], "an image");
    const m = t.made("m", out, "what each sum is divided by", ([i, j]) => {
      if (divisor !== null) return noted(divisor, "divisor_override");
      if (!includePad) return noted(inside(i, j).length, "pixels of the image in the window");
      return noted(product(length(i, height), length(j, width)), "rows and columns of the window, padding counted");
    });
    const y = t.made("y", out, "the mean of each window", ([i, j]) => quotient(sum(inside(i, j).map(([, a, b]) => x.at(a, b))), m.at(i, j)));

    t.part("backward", "Backward: each pixel gets its share");
    const gy = t.given("gy", out, "the gradient that arrives");
    t.made("gx", x.shape, "the shares of all windows that hold the pixel", ([a, b]) => {
      const holding = where(out, (i, j) => inside(i, j).some(([, row, column]) => row === a && column === b));
      const shares = sum(holding.map(([i, j]) => quotient(gy.at(i, j), m.at(i, j))));
      return noted(shares, holding.length ? "of the windows that hold it" : "no window holds it");
    }, { of: x });
    return { objective: sum(range(y.size).map((n) => product(gy.all()[n], y.all()[n]))) };
  };
}
