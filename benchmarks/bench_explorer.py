"""How fast the explorer's page of AlexNet opens and answers in Chromium, at full speed and on a processor slowed fourfold.

    python benchmarks/bench_explorer.py [--page look/index.html] [--rates 1 4] [--layers conv1 ...] [--opens 3] [--asked 3]

Without --page it is made first. Chromium's own switch slows the processor (Emulation.setCPUThrottlingRate). Times are taken in
the page, with its clock:

opens    : from the address to the first picture of it (first contentful paint), and to where every number is at hand
answers  : from a new address, as a click on a number gives it, to the frame after the panel has its terms. Numbers of the
           outputs and gradients of a layer's ops are asked, by a fixed seed: `on the layer's page`, where the layer is shown
           already; `from another layer`, where its neighbour is shown, as at a step along a path; `for the first time` in a
           page that never showed the layer, just when its neighbour is there.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import machine_line, print_table
from playwright.sync_api import Page, sync_playwright

from minidl.study.__main__ import main as study

LAYERS = ["conv1", "norm1", "pool1", "conv2", "exchange-after-pool2", "conv3", "fc6", "loss"]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# Addresses of up to `count` numbers of each station, as [station, direction, address of the question].
QUESTIONS = """(count) => {
  let seed = 7;
  const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, found = [];
  for (const station of step.stations) {
    const slots = station.ops.flatMap((n) => {
      const op = step.ops[n];
      return [[op, "y"], ...op.leaving.flatMap((g, i) => g ? [[op, `g${i}`]] : [])];
    });
    for (let k = 0; k < count; k++) {
      const [op, slot] = slots[Math.floor(random() * slots.length)], { shape } = Layers.blob(op, slot);
      const ref = Why.origin({ op, slot, index: Index.of(shape, Math.floor(random() * Index.size(shape))) });
      if (!Layers.of(ref.op)) continue;
      const address = Ask.href([ref]), [id, direction] = address.slice(1).split("/");
      found.push([id, direction, address]);
    }
  }
  return found;
}"""

# Milliseconds from a new address to the frame after its answer.
ASK = """(address) => new Promise((done) => {
  const panel = byId("why"), began = performance.now();
  delete panel.dataset.answered;
  new MutationObserver((_, observer) => {
    if (!panel.dataset.answered) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  }).observe(panel, { attributes: true });
  location.hash = address;
})"""

# Until the layer's pictures are drawn.
SHOW = """(address) => new Promise((done) => {
  const view = byId("view"), [id] = address.slice(1).split("/");
  const ready = () => view.dataset.prepared === id ? done() : setTimeout(ready, 10);
  location.hash = address;
  setTimeout(ready, 10);
})"""

OPENED = """() => {
  const [paint] = performance.getEntriesByName("first-contentful-paint"), [page] = performance.getEntriesByType("navigation");
  return [paint.startTime, page.domContentLoadedEventEnd];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="an explorer's page of AlexNet")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 4.0], help="how many times slower")
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="by their addresses")
    parser.add_argument("--opens", type=int, default=3, help="how often the page is opened")
    parser.add_argument("--asked", type=int, default=3, help="numbers of each layer, 2 at least")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.page is None:
            study(["explore", "--out", folder])
        page = args.page or Path(folder) / "index.html"
        print(machine_line())
        with sync_playwright() as playwright:
            name = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))))
            browser = playwright.chromium.launch(executable_path=name, args=ARGUMENTS)
            print(f"Chromium {browser.version}; {page.stat().st_size / 1e6:.1f} MB")
            print(f"{args.asked} numbers of each of {', '.join(args.layers)}\n")
            columns = [measured(lambda: window_of(browser), page, rate, args) for rate in args.rates]
            browser.close()
    header = [
        "ms: median, 95 of 100 below, worst",
        *("full speed" if rate == 1 else f"{rate:g} times slower" for rate in args.rates),
    ]
    print_table(header, [[name, *(spread(column[name]) for column in columns)] for name in columns[0]])


def window_of(browser: Any) -> Page:
    window: Page = browser.new_page(viewport={"width": 1280, "height": 900})
    return window


def measured(make: Callable[[], Page], page: Path, rate: float, args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds by what is measured."""
    times: dict[str, list[float]] = {"opens: first picture": [], "opens: every number": []}
    for _ in range(args.opens):
        window = opened(make, page, rate)
        for name, found in zip(list(times), window.evaluate(OPENED), strict=True):
            times[name].append(found)
        window.close()
    window = opened(make, page, rate)
    questions = window.evaluate(QUESTIONS, args.asked)
    window.close()
    own, other, first = ("answers on the layer's page", "answers from another layer", "for the first time")
    times |= {own: [], other: [], first: []}
    stations = list(dict.fromkeys(station for station, _, _ in questions))
    for station in args.layers:
        neighbour = f"#{stations[stations.index(station) - 1]}/forward"
        window = opened(make, page, rate)
        asked_here = [(direction, address) for name, direction, address in questions if name == station]
        for i, (direction, address) in enumerate(asked_here):
            window.evaluate(SHOW, neighbour)
            times[other if i else first].append(window.evaluate(ASK, address))
            if i:
                window.evaluate(SHOW, f"#{station}/{direction}")
                times[own].append(window.evaluate(ASK, asked_here[i - 1][1]))
        window.close()
    return times


def opened(make: Callable[[], Page], page: Path, rate: float) -> Page:
    window = make()
    window.context.new_cdp_session(window).send("Emulation.setCPUThrottlingRate", {"rate": rate})
    window.goto(page.resolve().as_uri())
    window.locator("#view h1").wait_for()
    return window


def spread(times: Sequence[float]) -> str:
    ordered = sorted(times)
    return f"{statistics.median(ordered):.0f}, {ordered[int(0.95 * len(ordered))]:.0f}, {ordered[-1]:.0f}"


if __name__ == "__main__":
    main()
