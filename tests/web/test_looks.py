"""Every page with demo data, in a real browser: nothing sticks out, and axe finds nothing that shuts anybody out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.web.showcase import PAGES, SCHEMES, WIDTHS, Browsing, Showcase, Shown, open_showcase
from tests.web.test_browser import browser as browser  # the fixture

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")

#: Widths of a small laptop and of a phone. What fits there fits.
_WIDTHS = (1024, 360)

_SERIOUS = ("serious", "critical")

#: What reaches beyond the page on the right, with its width; so that a failure names it.
_STICKS_OUT = """
() => {
  const edge = document.scrollingElement.clientWidth;
  if (document.scrollingElement.scrollWidth <= innerWidth) return [];
  const cuts = (element) => /auto|scroll|hidden|clip/.test(getComputedStyle(element).overflowX);
  const scrolls = (element) => element && (cuts(element) || scrolls(element.parentElement));
  return [...document.querySelectorAll("main, main *")]
    .filter((element) => element.getBoundingClientRect().right > edge + 1 && !scrolls(element.parentElement))
    .map((element) => `${element.tagName.toLowerCase()}.${element.className}`)
    .slice(0, 10)
    .concat(`the page is ${document.scrollingElement.scrollWidth} px wide`);
}
"""


@pytest.fixture(scope="module")
def showcase() -> Iterator[Showcase]:
    with open_showcase() as showcase:
        yield showcase


@pytest.fixture(scope="module")
def browsing(showcase: Showcase, browser: Browser) -> Iterator[Browsing]:
    with showcase.browsing(browser, "light", is_still=True) as browsing:
        yield browsing


@pytest.mark.parametrize("shown", PAGES, ids=lambda shown: shown.name)
def test_a_page_fits_and_shuts_nobody_out(shown: Shown, browsing: Browsing) -> None:
    page = browsing.go(shown, width=_WIDTHS[0])
    page.evaluate(_AXE)
    is_ours = not shown.path.startswith("/admin/")  # Django's own
    for width in _WIDTHS:
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        assert page.evaluate(_STICKS_OUT) == [], f"at {width} px"
        assert not is_ours or _violations(page) == [], f"at {width} px"
    page.emulate_media(color_scheme="dark")
    try:
        assert not is_ours or _violations(page, rules=("color-contrast",)) == [], "in the dark"
    finally:
        page.emulate_media(color_scheme="light")


def test_what_sticks_out_is_noticed(browsing: Browsing) -> None:
    page = browsing.go(PAGES[0], width=360)
    page.evaluate("document.querySelector('h1').style.minWidth = '500px'")
    assert "h1." in page.evaluate(_STICKS_OUT)


def test_what_cannot_be_read_is_noticed(browsing: Browsing) -> None:
    page = browsing.go(PAGES[0], width=1024)
    page.evaluate(_AXE)
    page.evaluate("document.querySelector('h1').style.color = 'rgb(128 128 128 / 40%)'")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = _violations(page, rules=("color-contrast",))
        assert any(line.startswith("color-contrast") for line in found), scheme
    page.emulate_media(color_scheme="light")


def _violations(page: Page, *, rules: tuple[str, ...] = ()) -> list[str]:
    """Serious and critical ones, as the rule and the elements. ``rules``: these alone; axe is in the page already."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    found = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{one['id']}: {', '.join(str(node['target']) + ' ' + node['html'][:160] for node in one['nodes'][:5])}"
        for one in found["violations"]
        if one["impact"] in _SERIOUS
    ]
