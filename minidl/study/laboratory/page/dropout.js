{
  const { noted, product, range, sum } = laboratory;

  laboratory.pages.dropout = (t) => {
    const { p, training, scale_at: scaleAt } = t.settings;
    const masked = training && p > 0;
    const divided = training && scaleAt === "train" && p < 1;
    const factor = divided ? 1 / (1 - p) : !training && scaleAt === "test" ? 1 - p : 1;

    t.part("forward", "Forward: some units are silent");
    const x = t.given("x", [6], "the numbers that arrive");
    const draw = t.given("u", [6], "drawn evenly between 0 and 1", { least: 0, most: 1 });
    const m = t.made("m", [6], masked ? "the mask: 1 where u is below 1 − p" : "no mask", ([i]) =>
      (masked ? noted(draw.at(i).value < 1 - p ? 1 : 0, `${draw.nameOf(i)} ${draw.at(i).value < 1 - p ? "is" : "is not"} below 1 − p`) : 1));
    const scale = t.made("scale", [], divided ? "1 / (1 − p)" : factor === 1 ? "nothing is scaled" : "1 − p", () => factor);
    const y = t.made("y", [6], "what goes on", ([i]) => product(x.at(i), m.at(i), scale.at()));

    t.part("backward", "Backward: the same mask, the same scale");
    const gy = t.given("gy", [6], "the gradient that arrives");
    t.made("gx", [6], "where the unit spoke", ([i]) => product(gy.at(i), m.at(i), scale.at()), { of: x });
    return { objective: sum(range(6).map((i) => product(gy.at(i), y.at(i)))) };
  };
}
