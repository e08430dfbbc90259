"""The site in Chromium, opened from the disk: no errors, nothing fetched from elsewhere, legible on a phone and in the dark."""

import pytest
from legible import low_contrast

pytestmark = pytest.mark.browser

SCREEN = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
AT_ONCE = "* { transition: none !important }"  # a new colour comes at once
LEFT = "ERR_ABORTED"  # the page was left before the file came


@pytest.fixture
def open_page(browser):
    """open_page(scheme) -> (page, the list of what went wrong in it so far)."""
    contexts = []

    def opened(scheme="light"):
        context = browser.new_context(viewport=SCREEN, color_scheme=scheme)
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
    pages = [*built.glob("*.html"), *built.glob("api/*.html"), *built.glob("source/*.html")]
    return [path.as_uri() for path in sorted(pages) if path.name != "404.html"]


PARTS = 6  # of the pages: one test for all takes too long


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_opens_without_errors_is_legible_in_both_colours_and_fits_a_phone(built, open_page, part):
    """The colours are the system's, the light ones and then the dark ones."""
    page, wrong = open_page()
    faint, too_wide = {}, []
    for address in addresses(built)[part::PARTS]:
        page.set_viewport_size(SCREEN)
        page.goto(address)
        page.add_style_tag(content=AT_ONCE)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(f"getComputedStyle(document.body).colorScheme == '{scheme}'")
            faint[address, scheme] = low_contrast(page, "article *", ".headerlink")
        page.set_viewport_size(PHONE)
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            too_wide.append(address)
    assert (wrong, too_wide) == ([], [])
    assert {place: texts for place, texts in faint.items() if texts} == {}


def test_the_colours_can_be_chosen(built, open_page):
    page, _ = open_page(scheme="dark")
    page.goto((built / "index.html").as_uri())
    schemes = []
    for _ in range(3):
        page.locator("label[for^=__palette]:visible").click()
        schemes.append(page.evaluate("document.body.dataset.mdColorScheme"))
    assert schemes == ["default", "slate", "slate"]  # light, dark, the system's


def test_search_works_without_a_server(built, open_page):
    page, wrong = open_page()
    page.goto((built / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.keyboard.type("gradcheck")
    found = page.locator(".md-search-result__link", has_text="An op of your own")
    found.first.click()
    page.wait_for_url("**/first-hour.html?h=gradcheck#an-op-of-your-own")
    assert wrong == []
