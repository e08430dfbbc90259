"""The site in Chromium, opened from the disk: no errors, nothing fetched from elsewhere, legible on a phone and in the dark."""

import pytest

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
LEFT = "ERR_ABORTED"  # the page was left before the file came

# WCAG 2's contrast of each element with text of its own, against the first opaque background behind it; those below 4.5
LOW_CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const background = (element) => {
    const color = numbers(getComputedStyle(element).backgroundColor);
    return color.length == 3 || color[3] == 1 ? color : background(element.parentElement);
  };
  return [...document.querySelectorAll("article *")].filter((element) => {
    const text = [...element.childNodes].some((node) => node.nodeType == 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.matches(".headerlink")) return false;
    const sides = [numbers(getComputedStyle(element).color), background(element)].map(luminance);
    return (Math.max(...sides) + 0.05) / (Math.min(...sides) + 0.05) < 4.5;
  }).map((element) => `${element.tagName} ${element.className} ${element.textContent}`);
}"""


@pytest.fixture
def open_page(browser):
    """open_page(viewport, scheme) -> (page, the list of what went wrong in it so far)."""
    contexts = []

    def opened(viewport=None, scheme="light"):
        context = browser.new_context(viewport=viewport or {"width": 1280, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
        page.on("requestfailed", lambda request: None if LEFT in request.failure else wrong.append(f"failed: {request.url}"))
        return page, wrong

    yield opened
    for context in contexts:
        context.close()


def addresses(built):
    """Of every page from docs/. The 404 is a server's, who knows where the site's root is."""
    pages = [*built.folder.glob("*.html"), *built.folder.glob("api/*.html"), *built.folder.glob("source/*.html")]
    return [path.as_uri() for path in sorted(pages) if path.name != "404.html"]


in_parts = pytest.mark.parametrize("part", range(3))  # of the pages: one test for all takes too long


@in_parts
def test_every_page_opens_without_errors_and_fits_a_phone(built, open_page, part):
    page, wrong = open_page(PHONE)
    too_wide = []
    for address in addresses(built)[part::3]:
        page.goto(address)
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            too_wide.append(address)
    assert (wrong, too_wide) == ([], [])


@in_parts
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_the_systems_colours(built, open_page, scheme, part):
    page, _ = open_page(scheme=scheme)
    faint = {}
    for address in addresses(built)[part::3]:
        page.goto(address)
        faint[address] = page.evaluate(LOW_CONTRAST)
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == scheme
    assert {address: texts for address, texts in faint.items() if texts} == {}


def test_the_colours_can_be_chosen(built, open_page):
    page, _ = open_page(scheme="dark")
    page.goto((built.folder / "index.html").as_uri())
    schemes = []
    for _ in range(3):
        page.locator("label[for^=__palette]:visible").click()
        schemes.append(page.evaluate("document.body.dataset.mdColorScheme"))
    assert schemes == ["default", "slate", "slate"]  # light, dark, the system's


def test_search_works_without_a_server(built, open_page):
    page, wrong = open_page()
    page.goto((built.folder / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.keyboard.type("gradcheck")
    found = page.locator(".md-search-result__link", has_text="An op of your own")
    found.first.click()
    page.wait_for_url("**/first-hour.html?h=gradcheck#an-op-of-your-own")
    assert wrong == []
