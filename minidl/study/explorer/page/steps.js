"use strict";
// A run's steps side by side. The data is `steps_page`'s, in minidl/study/explorer/steps.py.
(() => {
  const view = byId("view"), pictures = [];

  function cell(row, blob, column) {
    const arranged = Picture.arrangement(blob.shape, blob.kind), canvas = el("canvas", { role: "img" }), legend = el("div", {});
    canvas.setAttribute("aria-label", `${row.layer}, ${row.what}, ${column.name}: ${arranged.words}`);
    const picture = { row, blob, arranged, canvas, legend };
    pictures.push(picture);
    return el("td", {}, canvas, legend);
  }

  function draw({ row, blob, arranged, canvas, legend }) {
    const shared = byId("shared").checked, limit = shared ? Math.max(...row.blobs.map((other) => other.limit)) : blob.limit;
    const scale = { limit, root: blob.kind.endsWith("gradient") }, counts = Picture.draw(canvas, blob, arranged, scale);
    canvas.style.aspectRatio = `${arranged.width} / ${arranged.height}`;
    legend.replaceChildren(
      limit && !arranged.inRgb ? el("div", { class: "ramp" }, blob.signed ? Words.short(-limit) : "0", Picture.ramp(blob.signed), Words.short(limit)) : "",
      el("span", { class: "numbers" }, [limit ? "" : "0 everywhere", scale.root ? "by the signed root" : "",
        arranged.inRgb ? `\u00b1${Words.short(limit)}` : "", counts.beyond ? `${Words.percent(counts.beyond, counts.count)} beyond` : ""].filter(Boolean).join("; ")));
  }

  async function start() {
    const { columns, rows } = step;
    view.append(
      step.notes.map((note) => el("p", { class: "muted" }, note)).reduce((all, note) => (all.append(note), all), el("div", {})),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Steps" }, el("table", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"), columns.map((column) =>
          el("th", { scope: "col" }, column.name, el("div", { class: "muted" }, `loss ${Words.number(column.loss, 5)}`))))),
        el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.layer, el("div", { class: "muted" }, row.what)),
          row.blobs.map((blob, i) => cell(row, blob, columns[i]))))))));
    rows.forEach((row) => row.blobs.forEach(Tensors.note));
    await Tensors.load(rows.flatMap((row) => row.blobs.map((blob) => blob.values)));
    pictures.forEach(draw);
    byId("shared").addEventListener("change", () => pictures.forEach(draw));
    view.dataset.drawn = "true";
  }

  start();
})();
