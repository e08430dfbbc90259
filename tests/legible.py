"""Is text legible? The contrast of WCAG 2, in a page that is open in Chromium."""

from typing import Any

# Of each element with text of its own its contrast with what is behind it, where that is below 4.5. Translucent colours are
# painted one over the other, as the browser paints them.
_LOW_CONTRAST = """([within, but]) => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colours) => {
    for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const kept = (compute, found = new Map()) => (key) => {  // a page has thousands of elements and a few colours
    if (!found.has(key)) found.set(key, compute(key));
    return found.get(key);
  };
  const light = kept((colours) => {
    const [r, g, b] = rgb(colours.split(';')).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  });
  const grounds = kept((e) => e ? `${grounds(e.parentElement)};${getComputedStyle(e).backgroundColor}` : '#ffffff');
  const speaks = (e) => e.checkVisibility() && !e.closest(`script, style, option, noscript, ${but}`)
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll(within)].filter(speaks).map((e) => {
    const [a, b] = [`${grounds(e)};${getComputedStyle(e).color}`, grounds(e)].map(light);
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 200)];
  }).filter(([contrast]) => contrast < 4.5);
}"""


def low_contrast(page: Any, within: str = "body *", but: str = "button:disabled") -> list[tuple[float, str]]:
    """(contrast, HTML) of elements that are hard to read. within, but : selectors of what is looked at, and what is not."""
    found: list[tuple[float, str]] = page.evaluate(_LOW_CONTRAST, [within, but])
    return found
