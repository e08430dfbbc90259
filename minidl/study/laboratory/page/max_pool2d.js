{
  const { largest, noted, range, sum } = laboratory;

  /** The windows of a pool: their count along a side, and the pixels that each meets, as [element of the kernel, row, column]. */
  const windows = (refuse, op, [height, width], s) => {
    const { kernel, stride, padding, ceil_mode: ceil, dilation = 1 } = s;
    if (2 * padding > kernel) refuse(`${op}: padding must be at most half the kernel, got padding ${padding}, kernel ${kernel}.`);
    const span = dilation * (kernel - 1) + 1;
    const count = (size) => {
      const room = (size + 2 * padding - span) / stride;
      const most = (ceil ? Math.ceil(room) : Math.floor(room)) + 1;
      return ceil && (most - 1) * stride >= size + padding ? most - 1 : most;
    };
    const [oh, ow] = [count(height), count(width)];
    if (Math.min(oh, ow) < 1) refuse(`${op}: the kernel spans ${span}, the padded image has ${Math.min(height, width) + 2 * padding}.`);
    const pixels = (i, j) => range(kernel * kernel).map((element) => [element,
      i * stride - padding + Math.floor(element / kernel) * dilation, j * stride - padding + (element % kernel) * dilation]);
    const inside = (i, j) => pixels(i, j).filter(([, a, b]) => a >= 0 && a < height && b >= 0 && b < width);
    return { out: [oh, ow], inside };
  };

  /** The windows, as places of the output, that answer yes. */
  const where = ([oh, ow], yes) => range(oh * ow).map((n) => [Math.floor(n / ow), n % ow]).filter(([i, j]) => yes(i, j));

  laboratory.layers.windows = windows;
  laboratory.layers.where = where;
  laboratory.layers.max_pool2d = {
    /** x: (planes..., H, W) -> y and winner, tensors of (planes..., OH, OW). */
    forward({ made, refuse }, x, s, names = ["y", "winner"]) {
      const { out, inside } = windows(refuse, "max_pool2d", x.shape.slice(-2), s);
      const shape = [...x.shape.slice(0, -2), ...out];
      const pixels = (place) => inside(...place.slice(-2)).map(([element, a, b]) => [element, x.at(...place.slice(0, -2), a, b)]);
      const y = made(names[0], shape, "the largest pixel of each window", (place) => largest(pixels(place).map(([, pixel]) => pixel)));
      const winner = made(names[1], shape, "which element of its window that was, counted in rows; of equal ones the first", (place) => {
        const [element] = pixels(place).find(([, pixel]) => pixel.value === y.at(...place).value);
        return noted(element, `the first pixel of its window that is as large as ${y.nameOf(y.at(...place).n)}`);
      });
      return { y, winner };
    },
    backward({ made, refuse }, gy, winner, x, s, name = "gx") {
      const { out, inside } = windows(refuse, "max_pool2d", x.shape.slice(-2), s);
      return made(name, x.shape, "each gradient goes to the pixel that won", (place) => {
        const [plane, [a, b]] = [place.slice(0, -2), place.slice(-2)];
        const won = where(out, (i, j) => inside(i, j).some(([element, row, column]) =>
          row === a && column === b && element === winner.at(...plane, i, j).value));
        return noted(sum(won.map(([i, j]) => gy.at(...plane, i, j))), won.length ? "of the windows that it won" : "it won no window");
      }, { of: x });
    },
  };

  laboratory.pages.max_pool2d = (t) => {
    const layer = laboratory.layers.max_pool2d;
    t.part("forward", "Forward: the largest pixel of each window");
    const x = t.given("x", [5, 5], "an image");
    const { y, winner } = layer.forward(t, x, t.settings);
    t.part("backward", "Backward: only the winner gets the gradient");
    const gy = t.given("gy", y.shape, "the gradient that arrives");
    layer.backward(t, gy, winner, x, t.settings);
    return { objective: sum(y.all().map((value, n) => laboratory.product(gy.all()[n], value))) };
  };
}
