"""A real browser at a real ``runbots --web``: looking after messages, by pointer, by keyboard, and without script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.acceptance.home import Home
from tests.web.conftest import PASSWORD
from tests.web.test_browser import (
    _LEAST_CONTRAST,
    _NO_WEBSOCKETS,
    NARROW,
    PATIENCE_MS,
    WIDE,
    Site,
    _context,
    browser,
    say,
    session,
    sign_in,
)

__all__ = ["browser", "session"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = (
    "/",
    "/charts/",
    "/journal/",
    "/journal/?q=state:dead",
    "/journal/1/",
    "/journal/1/?tab=trace",
    "/journal/1/replay/",
    "/dlq/",
    "/dlq/1/",
    "/dlq/1/discard/",
    "/deliveries/",
    "/deliveries/1/",
    "/audit/",
    "/workers/",
    "/bots/",
    "/bots/shop/",
    "/bots/shop/edit/",
    "/bots/+add/",
    "/agents/",
    "/agents/picky/",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An installation whose agent fails on every message with "bad" in it."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        ("createsuperuser", "--noinput", "--username", "alice", "--email", ""),
        ("agents", "add", "picky", "--kind", "python", "--target", "tests.toys.agents:raises_on_bad"),
        ("bots", "add", "shop", "--platform", "web", "--policy", "allow", "--agent", "picky"),
    )
    site = Site(home)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def alice(site: Site, browser: Browser, session: Any) -> Iterator[BrowserContext]:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, storage_state=session, viewport=WIDE) as context:
        yield context


def write(context: BrowserContext, site: Site, *texts: str) -> None:
    """Write to the bot as anybody would, and wait until each message has ended."""
    page = context.new_page()
    page.goto(f"{site.url}/try/shop/")
    expect(page.get_by_text("Connected.")).to_be_visible()
    for text in texts:
        say(page, text)
        bubble = page.locator(".bubble.own").filter(has_text=text)
        expect(bubble.locator(".badge")).to_have_text(re.compile("answered|failed"))
    page.close()


def journal(context: BrowserContext, site: Site, query: str = "") -> Page:
    page = context.new_page()
    page.goto(f"{site.url}/journal/{query}")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    return page


def row(page: Page, text: str) -> Any:
    return page.locator(".row").filter(has_text=text)


def open_item(context: BrowserContext, site: Site, text: str) -> Page:
    """The page of the open case of this message."""
    page = context.new_page()
    page.goto(f"{site.url}/journal/?q=state:dead")
    row(page, text).locator(".row-link").click()
    page.locator("#drawer").get_by_role("link", name=re.compile("Open case")).click()
    expect(page.get_by_role("heading", name=re.compile("Item"))).to_be_visible()
    return page


def test_a_list_shows_new_messages_by_itself(site: Site, alice: BrowserContext) -> None:
    page = journal(alice, site)
    write(alice, site, "out of the blue")
    expect(row(page, "out of the blue").locator(".badge")).to_have_text("answered")


def test_without_websockets_it_polls(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.add_init_script(_NO_WEBSOCKETS)
    page.goto(f"{site.url}/journal/")
    expect(page.get_by_text("Every 10 s")).to_be_visible()
    write(alice, site, "found by polling")
    expect(row(page, "found by polling")).to_be_visible()


def test_updates_pause_while_rows_are_selected(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "chosen one")
    page = journal(alice, site)
    row(page, "chosen one").get_by_role("checkbox").check()
    expect(page.get_by_text("1 selected")).to_be_visible()
    expect(page.get_by_text("Updates paused while rows are selected")).to_be_visible()
    write(alice, site, "while you chose")
    expect(page.get_by_role("button", name="Update now")).to_be_visible()
    expect(row(page, "while you chose")).to_have_count(0)
    page.get_by_role("button", name="Select page").click()
    expect(page.get_by_text(f"{page.locator('.row').count()} selected")).to_be_visible()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(row(page, "while you chose")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_a_row_opens_beside_the_list_with_its_own_address(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "look closer")
    page = journal(alice, site, "?q=closer")
    row(page, "look closer").locator(".row-link").click()
    drawer = page.locator("#drawer")
    expect(drawer.get_by_role("heading", name=re.compile("Message"))).to_be_focused()
    assert re.search(r"/journal/\d+/$", page.url)
    drawer.get_by_role("link", name="Reply").click()
    expect(drawer.get_by_text("fine: look closer")).to_be_visible()
    assert page.url.endswith("?tab=reply")
    page.go_back()
    expect(drawer.get_by_text("bot_web_")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    assert page.url.endswith("/journal/?q=closer")
    expect(row(page, "look closer").locator(".row-link")).to_be_focused()
    page.go_forward()
    expect(drawer).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name=re.compile("Message"))).to_be_visible()
    expect(page.locator("#drawer")).to_have_count(0)


def test_everything_goes_by_keyboard(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "by hand")
    page = alice.new_page()
    page.goto(site.url)
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/journal/")
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Filter")).to_be_focused()
    page.keyboard.type("by hand x j")
    assert page.locator(".row-check input:checked").count() == 0, "Keys rest in fields."
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type('"by hand"')
    page.keyboard.press("Enter")
    page.wait_for_url("**q=*")
    page.keyboard.press("j")
    expect(row(page, "by hand").locator(".row-link")).to_be_focused()
    page.keyboard.press("x")
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer").get_by_role("heading", name=re.compile("Message"))).to_be_focused()
    page.keyboard.press("r")
    question = page.get_by_role("dialog", name="Replay 1 message?")
    expect(question).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_a_replay_is_shown_as_the_database_has_it(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "say it twice")
    page = journal(alice, site)
    row(page, "say it twice").locator(".row-link").click()
    page.locator("#drawer").get_by_role("link", name="Replay").click()
    question = page.get_by_role("dialog", name="Replay 1 message?")
    question.get_by_label("Run again and hold").check()
    question.get_by_label("Reason").fill("to be sure")
    question.get_by_role("button", name="Replay").click()
    expect(page.get_by_text(re.compile("runs again. Its reply will be held"))).to_be_visible()
    expect(page.locator("#drawer .badge").first).to_have_text("held")
    expect(row(page, "say it twice").locator(".badge")).to_have_text("held")
    page.locator("#drawer").get_by_role("link", name="The held reply").click()
    row(page, "fine: say it twice").locator(".row-link").click()
    page.locator("#drawer").get_by_role("link", name="Send", exact=False).click()
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(page.locator("#drawer .badge").first).to_have_text("✓sent")


def test_a_dry_run_is_shown_in_place(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "just pretend")
    page = journal(alice, site)
    row(page, "just pretend").locator(".row-link").click()
    page.locator("#drawer").get_by_role("link", name="Replay").click()
    page.get_by_label("Dry run").check()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.get_by_role("dialog").get_by_text("fine: just pretend")).to_be_visible()
    page.get_by_role("dialog").get_by_text("Close", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_failure_is_edited_and_answered(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "a bad word")
    page = open_item(alice, site, "a bad word")
    page.keyboard.press("e")
    page.get_by_label("What the agent gets").fill("a kind word")
    page.get_by_role("button", name="Retry with this text").click()
    expect(page.locator("#item .badge").first).to_have_text("resolved")
    chat = alice.new_page()
    chat.goto(f"{site.url}/try/shop/")
    expect(chat.get_by_text("fine: a kind word")).to_be_visible()


def test_a_discard_is_undone_from_its_toast(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "bad but needed")
    page = open_item(alice, site, "bad but needed")
    page.get_by_role("link", name="Discard").click()
    question = page.get_by_role("dialog", name="Discard 1 message?")
    expect(question.get_by_label("Reason")).to_be_focused()
    question.get_by_label("Reason").fill("a mistake")
    question.get_by_role("button", name="Discard").click()
    expect(page.locator("#item .badge").first).to_have_text("discarded")
    page.locator(".toast").get_by_role("link", name="Undo").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo the discard").click()
    expect(page.locator("#item .badge").first).to_have_text("open")


def test_the_second_of_two_clicks_is_told_who_was_first(site: Site, alice: BrowserContext) -> None:
    write(alice, site, "bad for two")
    slow = open_item(alice, site, "bad for two")
    slow.get_by_role("link", name="Retry", exact=False).first.click()
    expect(slow.get_by_role("dialog")).to_be_visible()
    quick = alice.new_page()
    quick.goto(slow.url)
    quick.get_by_role("link", name="Discard").click()
    quick.get_by_label("Reason").fill("I was first")
    quick.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(quick.locator("#item .badge").first).to_have_text("discarded")
    slow.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(slow.get_by_role("dialog").get_by_role("alert")).to_contain_text("is discarded already, by alice")
    slow.get_by_role("dialog").get_by_role("link", name="Back").click()
    expect(slow.locator("#item .badge").first).to_have_text("discarded")


def test_a_part_that_cannot_be_loaded_says_so_and_can_be_tried_again(
    site: Site, browser: Browser, session: Any, alice: BrowserContext
) -> None:
    write(alice, site, "hard to get")
    context = browser.new_context(storage_state=session)  # htmx reports the lost request on the console
    page = journal(context, site)
    page.route(re.compile(r"/journal/\d+/"), lambda route: route.abort())
    row(page, "hard to get").locator(".row-link").click()
    expect(page.locator("#drawer").get_by_text("This could not be loaded.")).to_be_visible()
    page.unroute_all()
    page.locator("#drawer").get_by_role("link", name="Try again").click()
    expect(page.locator("#drawer").get_by_role("heading", name=re.compile("Message"))).to_be_visible()
    context.close()


def test_everything_works_without_script(site: Site, browser: Browser, session: Any, alice: BrowserContext) -> None:
    write(alice, site, "bad and scriptless")
    with _context(browser, storage_state=session, java_script_enabled=False, viewport=NARROW) as context:
        page = context.new_page()
        page.goto(f"{site.url}/dlq/")
        page.locator(".group .row-link").first.click()
        row(page, "bad and scriptless").get_by_role("checkbox").check()
        page.get_by_role("group").get_by_role("button", name="Discard").click()
        expect(page.get_by_role("heading", name="Discard 1 message?")).to_be_visible()
        page.get_by_label("Reason").fill("enough")
        page.get_by_role("button", name="Discard 1").click()
        expect(page.get_by_text("1 message discarded.")).to_be_visible()
        page.goto(f"{site.url}/journal/?q=state:discarded+scriptless")
        row(page, "bad and scriptless").locator(".row-link").click()
        expect(page.get_by_role("heading", name=re.compile("Message"))).to_be_visible()


def test_a_bot_is_added_paused_and_removed(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(f"{site.url}/bots/")
    page.get_by_role("link", name="Add a bot").click()
    page.get_by_role("link", name="Web chat").click()
    page.get_by_label("Name").fill("second")
    page.get_by_label("People nobody knows").select_option("allow")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Added second.")).to_be_visible()
    expect(page.locator("#bot .badge").first).to_have_text("running")
    page.get_by_role("link", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.locator("#bot .badge").first).to_have_text("paused")
    page.get_by_role("link", name="Remove").click()
    page.get_by_label("Reason").fill("only a test")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.wait_for_url("**/bots/")
    expect(page.get_by_text("Removed second.")).to_be_visible()


def test_signing_out_elsewhere_leaves_no_page_open(site: Site, browser: Browser) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, viewport=WIDE) as context:
        sign_in(context.new_page(), site)
        page = journal(context, site)
        home = context.new_page()
        home.goto(site.url)
        home.get_by_text("alice").first.click()
        home.get_by_role("button", name="Sign out").click()
        page.locator(".row-link").first.click()
        expect(page).to_have_title("Sign in · PraisonWeb")


@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_can_be_read(
    site: Site, browser: Browser, session: Any, alice: BrowserContext, viewport: Any, scheme: Any
) -> None:
    write(alice, site, f"bad {scheme} {viewport['width']} " + "a_very_long_word_without_any_space" * 5)
    with _context(browser, storage_state=session, viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        for path in PAGES:
            page.goto(f"{site.url}{path}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
            assert page.evaluate(_LEAST_CONTRAST) >= 4.5, path
