"use strict";
// Pictures of arrays, drawn from their numbers: `Picture`. One number is one pixel, enlarged. 0 is dark grey, numbers above are
// orange and those below blue, and both grow brighter with distance: the eye finds large gradients of either sign at once. Grey is
// neither the white of a page nor its black.

const Picture = (() => {
  const LEVELS = 63; // of brightness on each side of 0: more are hard to tell apart
  const MAPS = 256, PIXELS = 300000, SIDE = 256; // in a mosaic at most: maps, their pixels, a map's side
  const GREY = [46, 46, 50], MAGENTA = [255, 0, 255];
  const ORANGE = [GREY, [158, 68, 12], [243, 148, 42], [255, 243, 205]]; // from 0 to the end of the range, at even distances
  const BLUE = [GREY, [22, 90, 158], [74, 164, 240], [215, 241, 255]];

  function between(stops, position) {
    const at = position * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2), t = at - i;
    return stops[i].map((v, k) => Math.round(v + t * (stops[i + 1][k] - v)));
  }
  const COLOURS = Array.from({ length: 2 * LEVELS + 1 }, (_, i) =>
    i < LEVELS ? between(BLUE, (LEVELS - i) / LEVELS) : between(ORANGE, (i - LEVELS) / LEVELS));

  // A scale: {limit, root}. From a number to -1 ... 1; with `root` by the signed square root, for numbers of many sizes.
  const level = (value, { limit, root }) => {
    const share = Math.min(1, Math.abs(value) / (limit || 1));
    return Math.sign(value) * (root ? Math.sqrt(share) : share);
  };
  const colour = (value, scale) =>
    Number.isFinite(value) ? COLOURS[LEVELS + Math.round(LEVELS * level(value, scale))] : MAGENTA;

  // ------------------------------------------------------------------------------------------------------ arrangement

  // In how many columns n tiles of h x w form about a square; or something wider, if fewer places are empty then.
  function columnsOf(n, h, w) {
    const square = Math.sqrt(n * h / w), narrowest = Math.min(Math.ceil(square), n);
    const widest = Math.max(narrowest, Math.min(Math.floor(1.5 * square), n));
    let best = narrowest;
    for (let c = narrowest; c <= widest; c++) if ((c - n % c) % c < (best - n % best) % best) best = c;
    return best;
  }

  // Which maps of (rows, columns) to show, `most` at most: as square a part as there is.
  function firstFew(rows, columns, most) {
    const side = Math.floor(Math.sqrt(most));
    if (columns <= side) return [Math.min(rows, Math.max(Math.floor(most / columns), 1)), columns];
    const few = Math.min(rows, side);
    return [few, Math.min(columns, Math.floor(most / few))];
  }

  // Where each element is: {width, height, at(x, y) -> index or null, place(index) -> [x, y] or null, words, inRgb}, and as tiles of
  // w x h elements, `gap` apart: [{x, y, from}], the first element's flat place; the next is `every` on, the next row `stride`.
  function arrangement(shape, kind, corner = null) {
    const ones = shape.filter((n) => n === 1).length;
    if (corner) return matrix(shape, corner);
    if (shape.length > 2 && shape.length - ones > 1 && !(shape.length > 3 && shape.at(-1) === 1 && shape.at(-2) === 1)) {
      return maps(shape, kind);
    }
    const wide = shape.length > 2 ? shape.slice(0, -2) : shape;
    return wide.length === 2 && Math.min(...wide) > 1 ? matrix(shape, [0, 0], SIDE) : vector(shape);
  }

  function matrix(shape, [top, left], most = 64) {
    const [rows, columns] = Tensors.matrix(shape), height = Math.min(most, rows - top), width = Math.min(most, columns - left);
    const all = height === rows && width === columns;
    return {
      width, height, w: width, h: height, gap: 0, every: 1, stride: columns, tiles: [{ x: 0, y: 0, from: top * columns + left }],
      at: (x, y) => Index.of(shape, (y + top) * columns + x + left),
      place(index) {
        const place = Index.flat(shape, index), y = Math.floor(place / columns) - top, x = place % columns - left;
        return x >= 0 && x < width && y >= 0 && y < height ? [x, y] : null;
      },
      words: `${all ? "a" : `rows ${top} to ${top + height - 1} and columns ${left} to ${left + width - 1} of a`} matrix of ${rows} × ${columns}`,
    };
  }

  function vector(shape) {
    const size = Index.size(shape), shown = Math.min(size, SIDE * SIDE), width = Math.max(1, columnsOf(shown, 1, 1));
    return {
      width, height: Math.max(1, Math.ceil(shown / width)), w: 1, h: 1, gap: 0, every: 1, stride: width,
      tiles: Array.from({ length: shown }, (_, i) => ({ x: i % width, y: Math.floor(i / width), from: i })),
      at: (x, y) => y * width + x < shown ? Index.of(shape, y * width + x) : null,
      place(index) {
        const place = Index.flat(shape, index);
        return place < shown ? [place % width, Math.floor(place / width)] : null;
      },
      words: `${shown < size ? `${shown} of ` : ""}${size} element${size === 1 ? "" : "s"}${shown > width ? ` in rows of ${width}` : ""}`,
    };
  }

  function maps(shape, kind) {
    const [H, W] = shape.slice(-2), lead = shape.slice(0, -2), count = Index.size(lead), each = lead.length > 1 ? count / lead[0] : count;
    const every = Math.ceil(Math.max(H, W) / SIDE), h = Math.ceil(H / every), w = Math.ceil(W / every);
    const most = Math.min(MAPS, Math.max(Math.floor(PIXELS / (h * w)), 1)), inRgb = kind === "filters" && shape.length === 4 && shape[1] === 3;
    let shown, columns; // places of the maps among all
    if (inRgb) {
      shown = Array.from({ length: Math.min(lead[0], most) }, (_, o) => 3 * o);
      columns = columnsOf(shown.length, h, w);
    } else if (kind === "activation" || lead.length < 2 || lead[0] === 1) {
      shown = Array.from({ length: Math.min(each, most) }, (_, i) => i);
      columns = columnsOf(shown.length, h, w);
    } else {
      const [rows, few] = firstFew(lead[0], each, most);
      shown = Array.from({ length: rows * few }, (_, i) => Math.floor(i / few) * each + i % few);
      columns = few * columnsOf(rows, h, few * w);
    }
    const number = new Map(shown.map((map, i) => [map, i]));
    const rows = Math.ceil(shown.length / columns), noun = inRgb ? "filter" : "map", of = inRgb ? lead[0] : count;
    return {
      width: columns * (w + 1) - 1, height: rows * (h + 1) - 1, w, h, gap: 1, every, stride: W * every, inRgb, columns,
      tiles: shown.map((map, i) => ({ x: (i % columns) * (w + 1), y: Math.floor(i / columns) * (h + 1), from: map * H * W })),
      at(x, y) {
        const column = Math.floor(x / (w + 1)), row = Math.floor(y / (h + 1)), i = row * columns + column;
        const k = x - column * (w + 1), j = y - row * (h + 1);
        return k < w && j < h && column < columns && i < shown.length ? [...Index.of(lead, shown[i]), j * every, k * every] : null;
      },
      place(index) {
        const map = Index.flat(lead, index.slice(0, -2)), i = number.get(inRgb ? map - map % 3 : map);
        if (i === undefined) return null;
        return [(i % columns) * (w + 1) + Math.floor(index.at(-1) / every), Math.floor(i / columns) * (h + 1) + Math.floor(index.at(-2) / every)];
      },
      words: `${shown.length < of ? `${shown.length} of ` : ""}${of} ${noun}${of === 1 ? "" : "s"} of ${H} × ${W}` +
        `${every > 1 ? `, one of ${every} × ${every} pixels` : ""}${shown.length > columns ? ` in rows of ${columns}` : ""}${inRgb ? ", in RGB" : ""}`,
    };
  }

  // ---------------------------------------------------------------------------------------------------------- drawing

  const packed = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0; // as a little-endian word of a canvas
  const WORDS = Uint32Array.from(COLOURS, packed), ODD = packed(MAGENTA);

  // Draws an array that is loaded. Returns {beyond, notFinite, count}: how many of the drawn numbers lie beyond the scale.
  function draw(canvas, blob, arranged, scale) {
    const { width, height, w, h, every, stride, tiles, inRgb } = arranged, context = canvas.getContext("2d");
    canvas.width = width;
    canvas.height = height;
    const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const counts = { beyond: 0, notFinite: 0, count: 0 }, { limit, root } = scale, most = limit || 1;
    const values = Tensors.numbers(blob, tiles, w, h, every, stride), plane = inRgb ? blob.shape[2] * blob.shape[3] : 0;
    const word = (value) => {
      if (value - value !== 0) {
        counts.notFinite++;
        return ODD;
      }
      let share = Math.abs(value) / most;
      if (share > 1) {
        share = 1;
        counts.beyond++;
      }
      if (root) share = Math.sqrt(share);
      return WORDS[LEVELS + Math.round(value < 0 ? -LEVELS * share : LEVELS * share)];
    };
    for (const { x, y, from } of tiles) {
      for (let j = 0; j < h; j++) {
        let place = from + j * stride, to = (y + j) * width + x;
        for (let k = 0; k < w; k++, place += every, to++) pixels[to] = inRgb ? rgb(values, place, plane, most) : word(values[place]);
      }
    }
    counts.count = tiles.length * w * h;
    context.putImageData(image, 0, 0);
    return counts;
  }

  // A pixel of a filter that sees red, green and blue: 0 is mid grey.
  function rgb(values, place, plane, most) {
    return packed([0, 1, 2].map((c) => Math.round(127.5 * (1 + Math.max(-1, Math.min(1, values[place + c * plane] / most))))));
  }

  // The root mean square of each block of a matrix that did not come along.
  function drawBlocks(canvas, blob) {
    const [rows, columns] = Tensors.matrix(blob.shape).map((n) => Math.min(n, 64)), values = Tensors.get(blob.blocks);
    const scale = { limit: Math.max(...values), root: false }, context = canvas.getContext("2d");
    canvas.width = columns;
    canvas.height = rows;
    const image = context.createImageData(columns, rows);
    values.forEach((value, i) => image.data.set([...colour(value, scale), 255], 4 * i));
    context.putImageData(image, 0, 0);
    return scale;
  }

  // The colours of a scale, from one end to the other.
  function ramp(signed) {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), steps = signed ? 2 * LEVELS + 1 : LEVELS + 1;
    canvas.width = steps;
    canvas.height = 1;
    const image = context.createImageData(steps, 1);
    for (let i = 0; i < steps; i++) image.data.set([...COLOURS[signed ? i : LEVELS + i], 255], 4 * i);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  return { LEVELS, COLOURS, level, colour, arrangement, draw, drawBlocks, ramp };
})();
