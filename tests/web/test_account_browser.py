"""The account pages and the admin in a real browser: nothing that the content security policy would stop."""

from __future__ import annotations

import re
from base64 import b32decode
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.conftest import PASSWORD
from tests.web.test_browser import NARROW, PATIENCE_MS, Site, _context, browser, sign_in, site
from tests.web.test_second_factor import code

pytestmark = [pytest.mark.browser, pytest.mark.slow]

__all__ = ["browser", "site"]

CONFIRM = re.compile(r"/account/confirm/")


@pytest.fixture
def page(site: Site, browser: Browser) -> Iterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, viewport=NARROW) as context:
        page = context.new_page()
        sign_in(page, site)
        yield page


def confirm(page: Page, app_code: str = "") -> None:
    page.wait_for_url(CONFIRM)
    page.get_by_label("Password").fill(PASSWORD)
    if app_code:
        page.get_by_label("Code").fill(app_code)
    page.get_by_role("button", name="Confirm").click()


def test_a_second_factor_from_the_menu_to_the_next_sign_in_and_off_again(page: Page, site: Site) -> None:
    page.locator(".menu summary").click()
    page.get_by_role("link", name="Second factor").click()
    page.get_by_role("link", name="Set up").click()
    confirm(page)
    picture = page.get_by_alt_text("QR code of the secret")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    secret = page.locator(".account-secret").inner_text().replace(" ", "")
    key = _hexadecimal(secret)
    page.get_by_label("Code").fill(code(key))
    page.get_by_role("button", name="Turn on").click()
    expect(page.locator(".account-codes li")).to_have_count(10)
    recovery = page.locator(".account-codes li").all_inner_texts()
    page.get_by_role("link", name="I have kept them").click()

    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Code").fill(code(key, steps=1))  # the one before was taken
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Needs attention")).to_be_visible()

    page.goto(f"{site.url}/account/second-factor/off/")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Code").fill(recovery[0])
    page.get_by_role("button", name="Turn off").click()
    expect(page.get_by_text("The second factor is off.")).to_be_visible()


def test_the_admin_works_under_the_content_security_policy(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{site.url}/admin/")
    expect(page.get_by_role("heading", name="Raw tables")).to_be_visible()
    page.get_by_role("link", name="Bots", exact=True).first.click()
    page.locator("#result_list tbody a").first.click()
    expect(page.get_by_role("heading", name=re.compile(r"Bot \d+"))).to_be_visible()
    page.goto(f"{site.url}/admin/auth/user/")
    confirm(page)
    page.get_by_role("link", name="alice").click()
    expect(page.locator("#id_username")).to_have_value("alice")
    page.goto(f"{site.url}/admin/auth/group/add/")
    page.get_by_label("Name").fill("night shift")
    page.get_by_label("May retry failed messages").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()


def _hexadecimal(secret: str) -> str:
    return b32decode(secret).hex()
