"""A real browser in a conversation: places in the timeline, what is new, colleagues; and finding things by keyboard."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.acceptance.home import Home
from tests.web.conftest import PASSWORD
from tests.web.test_browser import PATIENCE_MS, WIDE, Site, _context, browser, session

__all__ = ["browser", "session"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: 200 lines of a conversation, one in an hour; and Anna, who may answer.
_SEED = """
from datetime import UTC, datetime, timedelta
from django.contrib.auth.models import Group, User
from botsrt.core.actors import Actor
from botsrt.models import BotSession, HistoryMessage
from botsrt.services import journal
from tests.factories import a_message, answered
answered(a_message("The very first", user_id="ada-1", display_name="Ada Lovelace", user_name="ada"))
talk = BotSession.objects.get()
HistoryMessage.objects.bulk_create(
    HistoryMessage(session=talk, role="user", kind="chat", sender_name="Ada Lovelace", text=f"line {number}.",
                   created_at=datetime(2025, 3, 1, tzinfo=UTC) + timedelta(hours=number))
    for number in range(200)
)
anna = User.objects.create_user("anna", password="PASSWORD", is_staff=True, first_name="Anna")
anna.groups.set(Group.objects.filter(name="operator"))
print(talk.pk)
"""

#: How far down in the box of the timeline a line stands, in pixels.
_TOP_OF = """
(text) => {
  const bubble = [...document.querySelectorAll("#said .bubble-text")].find((one) => one.textContent === text);
  const box = document.getElementById("talk-scroll").getBoundingClientRect();
  return bubble && bubble.getBoundingClientRect().top - box.top;
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = Home(tmp_path_factory.mktemp("home"))
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        ("createsuperuser", "--noinput", "--username", "alice", "--email", ""),
        ("bots", "add", "shop", "--platform", "web", "--policy", "allow"),
        ("shell", "-c", _SEED.replace("PASSWORD", PASSWORD)),
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


@pytest.fixture
def anna(site: Site, browser: Browser) -> Iterator[Page]:
    with _context(browser, viewport=WIDE) as context:
        page = context.new_page()
        page.goto(f"{site.url}/account/sign-in/")
        page.get_by_label("Username").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{site.url}/")
        yield page


def talk(context: BrowserContext, site: Site, rest: str = "") -> Page:
    """Ada's conversation."""
    page = context.new_page()
    page.goto(f"{site.url}/people/1/{rest}")
    expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()
    return page


def arrives(site: Site, *texts: str) -> None:
    """Ada writes, and the bot answers."""
    code = "from tests.factories import a_message, received\n" + "\n".join(
        f"received(a_message({text!r}, user_id='ada-1', message_id='{uuid.uuid4()}'))" for text in texts
    )
    site.home.manage("shell", "-c", code)


# -- the timeline ----


def test_a_date_is_jumped_to_and_read_on_from_in_both_directions_without_a_jump(
    site: Site, alice: BrowserContext
) -> None:
    page = talk(alice, site)
    page.get_by_label("Go to").fill("2025-03-05")
    page.get_by_role("button", name="Go", exact=True).click()
    page.wait_for_url("**?on=2025-03-05")
    expect(page.get_by_text("line 96.", exact=True)).to_be_in_viewport()
    before = page.evaluate(_TOP_OF, "line 96.")
    page.get_by_role("link", name="Earlier messages").click()
    expect(page.get_by_text("line 46.", exact=True)).to_have_count(1)
    assert abs(page.evaluate(_TOP_OF, "line 96.") - before) < 2
    page.get_by_role("link", name="Later messages").scroll_into_view_if_needed()
    before = page.evaluate(_TOP_OF, "line 145.")
    page.get_by_role("link", name="Later messages").click()
    expect(page.get_by_text("line 195.", exact=True)).to_have_count(1)
    assert abs(page.evaluate(_TOP_OF, "line 145.") - before) < 2
    lines = [int(number) for number in re.findall(r"line (\d+)\.", page.locator("#said").inner_text())]
    assert lines == list(range(46, 196))
    days = page.locator("#said .day").all_inner_texts()
    assert len(days) == len(set(days))
    assert page.url.endswith("?on=2025-03-05")
    page.go_back()
    expect(page.get_by_text("line 199.", exact=True)).to_be_in_viewport()


def test_new_messages_do_not_move_a_reader_further_up_and_are_counted(site: Site, alice: BrowserContext) -> None:
    page = talk(alice, site)
    expect(page.locator("#pill")).to_be_hidden()
    page.get_by_text("line 170.", exact=True).scroll_into_view_if_needed()
    page.get_by_role("link", name="Earlier messages").click()
    page.get_by_text("line 165.", exact=True).scroll_into_view_if_needed()
    before = page.evaluate(_TOP_OF, "line 165.")
    arrives(site, "Are you still there?")
    pill = page.locator("#pill")
    expect(pill).to_contain_text("2 new")
    assert abs(page.evaluate(_TOP_OF, "line 165.") - before) < 2
    assert page.get_by_text("line 120.", exact=True).count() == 1, "Pages that were added stay."
    pill.click()
    expect(page.locator(".bubble.other").get_by_text("Are you still there?")).to_be_in_viewport()
    expect(pill).to_be_hidden()
    arrives(site, "At the end you see it at once.")
    expect(page.locator(".bubble.other").get_by_text("At the end you see it at once.")).to_be_in_viewport()
    expect(pill).to_be_hidden()


def test_a_reader_of_an_earlier_page_is_led_to_what_is_new(site: Site, alice: BrowserContext) -> None:
    page = talk(alice, site, "?on=2025-03-02")
    expect(page.get_by_text("line 24.", exact=True)).to_be_in_viewport()
    arrives(site, "Look here")
    expect(page.locator("#pill")).to_contain_text("2 new")
    expect(page.get_by_text("line 24.", exact=True)).to_be_in_viewport()
    page.locator("#pill").click()
    expect(page.locator(".bubble.other").get_by_text("Look here")).to_be_in_viewport()


def test_what_was_typed_stays_when_a_newer_message_came(site: Site, alice: BrowserContext) -> None:
    page = talk(alice, site)
    page.keyboard.press("r")
    expect(page.get_by_role("textbox", name="Reply")).to_be_focused()
    page.keyboard.type("My answer")
    arrives(site, "One more thing")
    expect(page.get_by_text("A newer message came since you began.")).to_be_visible()
    page.get_by_role("button", name="Send reply").click()
    expect(page.get_by_role("alert")).to_contain_text("Read it, then send again.")
    expect(page.get_by_role("textbox", name="Reply")).to_have_value("My answer")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("Your reply is on its way.")).to_be_visible()
    expect(page.locator(".bubble.own").get_by_text("My answer", exact=True)).to_be_in_viewport()


# -- colleagues ----


def test_colleagues_see_each_other_read_and_type_and_forget(site: Site, alice: BrowserContext, anna: Page) -> None:
    page = talk(alice, site)
    anna.goto(f"{site.url}/people/1/")
    expect(page.locator("#presence")).to_have_text("Anna is reading.")
    expect(anna.locator("#presence")).to_have_text("alice is reading.")
    anna.get_by_role("textbox", name="Reply").press_sequentially("Dear Ada")
    expect(page.locator("#presence")).to_have_text("Anna is typing an answer.")
    expect(page.locator("#presence")).to_have_text("Anna is reading.")
    anna.goto(f"{site.url}/people/")
    expect(page.locator("#presence")).to_be_hidden()


def test_what_a_colleague_does_is_seen_at_once(site: Site, alice: BrowserContext, anna: Page) -> None:
    page = talk(alice, site)
    anna.goto(f"{site.url}/people/1/")
    anna.keyboard.press("n")
    expect(anna.get_by_role("textbox", name="Note")).to_be_focused()
    anna.keyboard.type("Handle with care.")
    anna.get_by_role("button", name="Keep note").click()
    expect(page.locator(".said-note").get_by_text("Handle with care.")).to_be_visible()
    anna.keyboard.press("t")
    anna.get_by_role("dialog").get_by_role("button", name="Take over").click()
    expect(page.locator("#timeline .badge").first).to_have_text("human")
    page.keyboard.press("t")
    page.get_by_role("dialog").get_by_role("button", name="Hand back").click()
    expect(page.locator("#timeline .badge").first).to_have_text("bot")


# -- finding things ----


def test_anything_is_found_by_keyboard_from_anywhere(site: Site, alice: BrowserContext) -> None:
    page = talk(alice, site)
    page.get_by_role("textbox", name="Reply").focus()
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Find anything")
    expect(field).to_be_focused()
    expect(page.get_by_role("option", name="Home")).to_have_attribute("aria-selected", "true")
    page.keyboard.type("dead")
    first = page.get_by_role("option").first
    expect(first).to_have_text(re.compile("Dead letters"))
    expect(field).to_have_attribute("aria-expanded", "true")
    assert field.get_attribute("aria-activedescendant") == first.get_attribute("id")
    page.keyboard.press("ArrowDown")
    second = page.get_by_role("option").nth(1)
    expect(second).to_have_attribute("aria-selected", "true")
    expect(first).to_have_attribute("aria-selected", "false")
    assert field.get_attribute("aria-activedescendant") == second.get_attribute("id")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    expect(page.get_by_role("textbox", name="Reply")).to_be_focused()
    page.keyboard.press("Control+k")
    page.keyboard.type("lovelace")
    page.keyboard.press("Enter")  # before anything was found
    page.wait_for_url("**/people/1/")
    page.go_back()


def test_the_button_of_the_palette_works_by_pointer(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(site.url)
    page.get_by_role("link", name="Find").click()
    page.get_by_role("option", name="Workers").click()
    page.wait_for_url("**/workers/")
    page.keyboard.press("/")  # there is nothing to filter on this page
    expect(page.get_by_role("combobox", name="Find anything")).to_be_focused()
    page.get_by_role("button", name="Close").first.click()
    expect(page.get_by_role("combobox", name="Find anything")).to_be_hidden()


def test_the_palette_says_when_it_cannot_find(site: Site, browser: Browser, session: Any) -> None:
    context = browser.new_context(storage_state=session)  # htmx reports the lost request on the console
    page = context.new_page()
    page.goto(site.url)
    page.route("**/find/**", lambda route: route.abort())
    page.keyboard.press("Control+k")
    expect(page.locator("#find-status")).to_contain_text("The server did not answer")
    page.unroute_all()
    page.keyboard.type("jour")
    expect(page.get_by_role("option").first).to_have_text(re.compile("Journal"))
    context.close()


# -- keys and tokens ----


def test_every_key_of_the_help_leads_where_it_says(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(site.url)
    places = {"h": "/", "c": "/people/", "p": "/pairings/", "j": "/journal/", "d": "/dlq/", "o": "/deliveries/"}
    places |= {"b": "/bots/", "e": "/agents/", "w": "/workers/", "a": "/audit/", "t": "/try/shop/"}
    for key, path in places.items():
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"{site.url}{path}")
        link = page.locator(f'[data-go="g {key}"]')
        expect(link).to_be_visible()
        expect(link).to_have_attribute("aria-current", "page")
    page.goto(site.url)
    page.get_by_role("button", name="Keys").click()
    told = page.locator("#keys dt").evaluate_all("all => all.map((dt) => dt.innerText.replace(/\\s+/g, ' ').trim())")
    assert {f"g {key}" for key in places} <= set(told)
    assert {"j k", "x", "/", "r", "e", "n", "t", "?", "Ctrl k"} <= set(told)


def test_keys_move_between_conversations_and_act_in_one(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(f"{site.url}/people/")
    page.keyboard.press("j")
    expect(page.locator(".row-link").first).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator(".row-link").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/people/1/")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search in conversations")).to_be_focused()
    expect(page.get_by_role("searchbox", name="Search in conversations")).to_have_value("from:ada-1 platform:web ")
    page.keyboard.type("jkxrnte?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("region", name="Timeline").focus()
    page.keyboard.press("n")
    expect(page.get_by_role("textbox", name="Note")).to_be_focused()
    page.get_by_role("region", name="Timeline").focus()
    page.keyboard.press("t")
    expect(page.get_by_role("dialog", name="Take this conversation over?")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.wait_for_url("**/account/confirm/**")


def test_a_hit_is_shown_in_its_place_and_the_way_back_keeps_the_query(site: Site, alice: BrowserContext) -> None:
    page = talk(alice, site)
    page.keyboard.press("/")
    page.keyboard.type("line 57")
    page.keyboard.press("Enter")
    page.wait_for_url("**/people/?q=**")
    expect(page.locator("mark").first).to_have_text("line")
    page.locator(".row-link").first.click()
    expect(page.locator(".bubble.is-wanted")).to_be_in_viewport()
    expect(page.locator(".bubble.is-wanted mark")).to_have_text(["line", "57"])
    expect(page.get_by_text("line 40.", exact=True)).to_have_count(1)
    page.reload()
    expect(page.locator(".bubble.is-wanted")).to_have_count(1)
    page.go_back()
    field = page.get_by_role("combobox", name="Filter")
    expect(field).to_have_value("from:ada-1 platform:web line 57")
    field.fill("form:ada-1 line")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("There is no filter form: here")
    expect(field).to_have_value("form:ada-1 line")
