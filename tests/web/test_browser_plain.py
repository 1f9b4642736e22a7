"""A real browser without script: every main page is read, every main form is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.home import Home
from tests.web.conftest import PASSWORD
from tests.web.test_browser import NARROW, PATIENCE_MS, Site, _context, browser, session, sign_in

__all__ = ["browser", "session"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Page → a heading on it.
PAGES = {
    "/": "Needs attention",
    "/charts/": "The last 24 hours",
    "/find/": "Find",
    "/journal/": "Journal",
    "/journal/1/": "Message 1",
    "/people/": "Conversations",
    "/people/1/": "alice",
    "/pairings/": "Pairings",
    "/pairings/verify/": "Verify a code",
    "/dlq/": "Dead letters",
    "/dlq/1/": "Item 1",
    "/deliveries/": "Deliveries",
    "/deliveries/1/": "Outgoing message 1",
    "/bots/": "Bots",
    "/bots/shop/": "shop",
    "/bots/+add/?platform=web": "Add a web bot",
    "/agents/": "Agents",
    "/agents/picky/": "picky",
    "/workers/": "Workers",
    "/audit/": "Audit",
    "/account/password/": "password",
    "/account/second-factor/": "econd factor",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A bot whose agent fails on every message with "bad" in it, and one that strangers ask for access."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        ("createsuperuser", "--noinput", "--username", "alice", "--email", ""),
        ("agents", "add", "picky", "--kind", "python", "--target", "tests.toys.agents:raises_on_bad"),
        ("bots", "add", "shop", "--platform", "web", "--policy", "allow", "--agent", "picky"),
        ("bots", "add", "gate", "--platform", "web", "--policy", "pair"),
    )
    site = Site(home)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def written(site: Site, browser: Browser, session: Any) -> None:
    """Alice has tried the bot: one answer, two failures."""
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, storage_state=session, java_script_enabled=False) as context:
        page = context.new_page()
        for text in ("hello there", "bad one", "bad two"):
            write(page, site, "shop", text)
        expect(page.locator(".bubble.own").get_by_text("failed", exact=True)).to_have_count(2)


@pytest.fixture
def page(site: Site, browser: Browser, session: Any, written: None) -> Iterator[Page]:
    with _context(browser, storage_state=session, java_script_enabled=False, viewport=NARROW) as context:
        yield context.new_page()


def write(page: Page, site: Site, account: str, text: str) -> None:
    """Write to a bot and wait for what becomes of it; the page fetches itself again while it waits."""
    page.goto(f"{site.url}/try/{account}/")
    page.get_by_role("textbox").fill(text)
    page.get_by_role("button", name="Send").click()
    bubble = page.locator(".bubble.own").filter(has_text=text)
    expect(bubble.locator(".badge")).to_have_text(re.compile("answered|failed|held|no answer|waits"))


def told(page: Page, words: str) -> None:
    """The next page says that it was done."""
    expect(page.locator("#main > .note").first).to_contain_text(words)


def test_every_main_page_reads(site: Site, page: Page) -> None:
    for path, heading in PAGES.items():
        response = page.goto(f"{site.url}{path}")
        assert response is not None
        assert response.status == 200, path
        expect(page.get_by_role("heading", level=1).filter(has_text=heading), path).to_be_visible()
        assert page.locator("[aria-busy=true]").count() == 0, path


def test_a_conversation_is_read_answered_noted_and_taken_over(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/people/")
    page.locator(".row-link").first.click()
    expect(page.locator("#pill")).to_be_hidden()
    expect(page.locator("#presence")).to_be_hidden()
    page.get_by_label("Go to").fill("2020-01-01")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_text("Nothing was said on 2020-01-01. This came next.")).to_be_visible()
    page.get_by_role("textbox", name="Reply").fill("a human says hello")
    page.get_by_role("button", name="Send reply").click()
    told(page, "Your reply is on its way.")
    page.get_by_text("Write a note for colleagues").click()
    page.get_by_role("textbox", name="Note").fill("be kind")
    page.get_by_role("button", name="Keep note").click()
    told(page, "The note is kept.")
    expect(page.locator(".said-staff").get_by_text("a human says hello")).to_be_visible()
    expect(page.locator(".said-note").get_by_text("be kind")).to_be_visible()
    page.get_by_role("link", name="Take over").click()
    page.get_by_label("Reason").fill("it is complicated")
    page.get_by_role("button", name="Take over").click()
    told(page, "You have the conversation now.")
    page.get_by_role("link", name="Hand back").click()
    page.get_by_role("button", name="Hand back").click()
    told(page, "The bot has the conversation again.")


def test_a_code_is_verified_and_contacts_are_linked(site: Site, page: Page) -> None:
    write(page, site, "gate", "may I come in?")
    expect(page.locator(".bubble.other").first).to_be_visible()
    code = re.search(r"\b[A-Z0-9]{4}-?[A-Z0-9]{4}\b", page.locator(".bubble.other").last.inner_text())
    assert code, page.locator(".bubble.other").last.inner_text()
    page.goto(f"{site.url}/people/")
    expect(page.locator(".row").filter(has_text="may I come in?").get_by_text("held")).to_be_visible()
    page.goto(f"{site.url}/pairings/")
    page.get_by_role("link", name="Verify code").click()
    page.get_by_label("Code", exact=True).fill(code[0])
    page.get_by_role("button", name="Let them in").click()
    told(page, "has access to gate now")
    page.goto(f"{site.url}/people/1/")
    page.get_by_role("link", name="Link to a person").first.click()
    page.get_by_role("combobox", name="Person").fill("alice-ng")
    page.get_by_role("button", name="Show what would be joined").click()
    page.get_by_label("Reason").fill("she told me")
    page.get_by_role("button", name=re.compile("^Link ")).click()
    told(page, "is alice-ng now.")
    expect(page.get_by_text("asserted by staff", exact=False).first).to_be_visible()


def test_failures_are_retried_and_discarded(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/dlq/1/")
    page.get_by_role("link", name="Retry", exact=False).first.click()
    page.get_by_role("button", name="Retry").click()
    told(page, "runs again")
    page.goto(f"{site.url}/dlq/2/")
    page.get_by_role("link", name="Discard").click()
    page.get_by_label("Reason").fill("spam")
    page.get_by_role("button", name="Discard").click()
    told(page, "discarded")


def test_an_export_asks_for_the_password_and_is_a_file(site: Site, browser: Browser, written: None) -> None:
    with _context(browser, java_script_enabled=False, viewport=NARROW) as context:
        page = context.new_page()
        sign_in(page, site)  # a confirmation gives the session another key
        page.goto(f"{site.url}/people/1/")
        page.get_by_role("link", name="Export").click()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm").click()
        page.get_by_label("CSV, for a spreadsheet").check()
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        assert "hello there" in download.value.path().read_text()


def test_things_are_found_without_script(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.get_by_role("link", name="Find").click()
    page.get_by_role("searchbox").fill("alice")
    page.get_by_role("button", name="Find").click()
    page.locator(".find-page").get_by_role("link", name="alice", exact=False).first.click()
    expect(page.get_by_role("region", name="Timeline")).to_be_visible()
    page.goto(f"{site.url}/people/")
    page.get_by_role("combobox", name="Filter").fill("hello kind:user")
    page.get_by_role("button", name="Filter").click()
    page.locator(".row-link").first.click()
    expect(page.locator(".bubble.is-wanted mark")).to_have_text("hello")
