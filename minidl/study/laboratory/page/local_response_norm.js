{
  const { difference, power, product, quotient, range, sum } = laboratory;

  laboratory.pages.local_response_norm = (t) => {
    const { size, alpha, beta, k } = t.settings;
    const [channels, pixels] = [6, 2];
    const within = (first, last) => range(channels).filter((c) => c >= first && c <= last);
    const half = (n) => Math.floor(n / 2);

    t.part("forward", "Forward: each number over a power of what its neighbours have");
    const x = t.given("x", [channels, pixels], "a row for each channel, a column for each pixel");
    const d = t.made("d", x.shape, "k and the window's squares", ([c, p]) => {
      const squares = within(c - half(size), c + half(size - 1)).map((j) => power(x.at(j, p), 2));
      return sum([k, product(quotient(alpha, size), sum(squares))]);
    });
    const y = t.made("y", x.shape, "x over d to the power beta", ([c, p]) => product(x.at(c, p), power(d.at(c, p), -beta)));

    t.part("backward", "Backward: directly, and across the window turned round");
    const gy = t.given("gy", x.shape, "the gradient that arrives");
    const direct = t.made("direct", x.shape, "through the numerator", ([c, p]) => product(gy.at(c, p), power(d.at(c, p), -beta)));
    const across = t.made("across", x.shape, "from all whose window holds the channel", ([a, p]) =>
      sum(within(a - half(size - 1), a + half(size)).map((c) => quotient(product(direct.at(c, p), x.at(c, p)), d.at(c, p)))));
    t.made("gx", x.shape, "direct, less what it costs the others", (place) =>
      difference(direct.at(...place), product(quotient(product(2, alpha, beta), size), x.at(...place), across.at(...place))), { of: x });
    return { objective: sum(range(y.size).map((n) => product(gy.all()[n], y.all()[n]))) };
  };
}
