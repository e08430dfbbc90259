"""The picture of a graph in Chromium: no text lies on another, on a wire or beyond its box, in light and in dark."""

import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import nn
from minidl.study import graph
from minidl.study.models import load_model

pytestmark = pytest.mark.browser

# Every pair of texts that touch; every text beyond the panel, or cut by its box's edge; every text within 3 px of a wire,
# which is followed point by point.
FAULTS = """() => {
  const boxes = [...document.querySelectorAll('rect.box, rect.panel')].map((r) => r.getBBox());
  const texts = [...document.querySelectorAll('text')].map((t) => [t.textContent, t.getBBox()]);
  const apart = (a, b) => a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
  const within = (a, b) => a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width && a.y + a.height <= b.y + b.height;
  const found = [];
  texts.forEach(([one, a], i) => {
    texts.slice(0, i).forEach(([other, b]) => { if (!apart(a, b)) found.push(`${one} on ${other}`); });
    boxes.forEach((b) => { if (!apart(a, b) && !within(a, b)) found.push(`${one} beyond its box`); });
  });
  boxes.slice(1).forEach((a, i) => boxes.slice(1, i + 1).forEach((b) => { if (!apart(a, b)) found.push('a box on a box'); }));
  for (const wire of document.querySelectorAll('path.forward, path.backward')) {
    const length = wire.getTotalLength();
    for (let at = 0; at <= length; at += 6) {
      const p = wire.getPointAtLength(at), dot = { x: p.x - 3, y: p.y - 3, width: 6, height: 6 };
      texts.forEach(([text, a]) => { if (!apart(a, dot)) found.push(`a wire on ${text}`); });
      boxes.slice(1).forEach((b) => { if (within(dot, b)) found.push('a wire in a box'); });
    }
  }
  return { texts: texts.length, wires: document.querySelectorAll('path.forward').length, found: [...new Set(found)] };
}"""

# The contrast of each text with what is below it: WCAG's ratio.
CONTRASTS = """() => {
  const part = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (css) => {
    const [r, g, b] = css.match(/\\d+/g).map((v) => part(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const fills = ['panel', 'lane', 'box'].map((name) => light(getComputedStyle(document.querySelector(`rect.${name}`)).fill));
  return [...document.querySelectorAll('text')].map((text) => {
    const own = light(getComputedStyle(text).fill);
    return Math.min(...fills.map((f) => (Math.max(own, f) + 0.05) / (Math.min(own, f) + 0.05)));
  });
}"""


class Many(nn.Module):
    """Ways around, ways side by side, and several inputs at one place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3, 5))
        self.a_name_that_is_longer_than_all_that_stands_below_it = nn.ReLU()

    def forward(self, x):
        y = self.a_name_that_is_longer_than_all_that_stands_below_it(self.stem(x))
        z = F.cat([self.a(y), self.b(y), self.c(y), y], 1)
        return F.cat([z, y, F.relu(self.b(self.a(y)))], 1) + F.cat([z, z.relu()], 1)[:, :24]


MODELS = {
    "alexnet": lambda: (load_model("alexnet"), (1, 3, 224, 224)),
    "small": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 2)), (7, 3, 2, 2)),
    "many": lambda: (Many(), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_lies_on_anything(browser, tmp_path, name, scheme):
    model, shape = MODELS[name]()
    seen = graph(model, np.zeros(shape, np.float32))
    seen.save(tmp_path / "x.svg")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto((tmp_path / "x.svg").as_uri())
    drawn = page.evaluate(FAULTS)
    assert drawn["found"] == []
    assert drawn["wires"] == len(seen.edges) and drawn["texts"] > sum(len(node.lines()) for node in seen.nodes)
    assert min(page.evaluate(CONTRASTS)) >= 4.5  # WCAG's AA
    context.close()
