"""The pages of "Try it": what the rows say, with and without script."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import AsyncClient, Client
from django.utils import timezone

from botsrt.core.states import AdapterStatus, UnknownUserPolicy
from botsrt.models import AdapterState, Bot, JournalEntry, OutboxMessage
from botsrt.services import journal
from praisonweb.dashboard import webchat
from praisonweb.dashboard.queries import try_it
from tests.factories import (
    NOW,
    a_bot,
    a_failure,
    a_message,
    answered,
    claim_one,
    claim_sends,
    fail,
    finish,
    later,
    received,
    send_all,
)

pytestmark = pytest.mark.django_db(transaction=True)

FORM_ID = "form-message-1"


def mine(staff: User, text: str = "Hello", **fields: Any) -> Any:
    """A message of this member of staff to the shop."""
    user_id = f"staff-{staff.pk}"
    return a_message(text, channel_id=user_id, user_id=user_id, **fields)


def read(staff_client: Client, path: str = "/try/shop/") -> str:
    response = staff_client.get(path)
    assert response.status_code == 200
    return str(response.content.decode())


def words(html: str) -> list[str]:
    """The state of every bubble, oldest first."""
    log = html.partition('id="log"')[2].partition("</ol>")[0]
    return re.findall(r'<span class="badge tone-\w+"[^>]*>([^<]+)</span>', log)


def running(account: str = "shop") -> None:
    AdapterState.objects.filter(bot__account=account).update(
        state=AdapterStatus.RUNNING, lease_expires_at=timezone.now() + timedelta(minutes=1), applied_version=1
    )


# -- choosing a bot ----


def test_without_a_web_bot_it_says_how_to_add_one(staff_client: Client) -> None:
    a_bot("tg", platform="telegram")
    html = read(staff_client, "/try/")
    assert "There is no web bot yet." in html
    assert 'href="/bots/+add/?platform=web"' in html


def test_the_only_web_bot_is_opened_at_once(staff_client: Client, bot: Bot) -> None:
    response = staff_client.get("/try/")
    assert response["Location"] == "/try/shop/"


def test_several_web_bots_are_listed(staff_client: Client, bot: Bot) -> None:
    a_bot("second")
    a_bot("tg", platform="telegram")
    html = read(staff_client, "/try/")
    assert 'href="/try/shop/"' in html
    assert 'href="/try/second/"' in html
    assert "tg" not in re.findall(r"<h3>(.*?)</h3>", html)


@pytest.mark.parametrize("path", ["/try/nobody/", "/try/tg/", "/try/shop/?before=x", "/try/shop/?before=" + "9" * 30])
def test_what_is_not_there_is_said_so(staff_client: Client, bot: Bot, path: str) -> None:
    a_bot("tg", platform="telegram")
    response = staff_client.get(path)
    assert response.status_code == 404
    assert "Nothing here" in response.content.decode()


# -- the conversation ----


def test_an_empty_conversation_invites(staff_client: Client, bot: Bot) -> None:
    running()
    html = read(staff_client)
    assert "Nothing said yet. Say hello." in html
    assert 'role="status">It' not in html


def test_it_shows_what_was_said_in_order(staff_client: Client, staff: User, bot: Bot) -> None:
    answered(mine(staff, "first"), "one", now=NOW)
    answered(mine(staff, "second"), "two", now=later(minutes=1))
    send_all(now=later(minutes=2))
    html = read(staff_client)
    assert re.findall(r'class="bubble-text" dir="auto">([^<]*)<', html.partition("<template")[0]) == [
        "first",
        "one",
        "second",
        "two",
    ]
    assert words(html) == ["answered", "sent", "answered", "sent"]
    assert html.count("15 January 2026, UTC") == 1


def test_it_shows_nobody_elses_messages(staff_client: Client, staff: User, bot: Bot) -> None:
    a_bot("other")
    answered(a_message("of a stranger", channel_id="staff-999", user_id="staff-999"), "to a stranger")
    answered(mine(staff, "to the other bot", account="other"), "from the other bot")
    html = read(staff_client)
    for text in ("of a stranger", "to a stranger", "to the other bot", "from the other bot"):
        assert text not in html


def test_each_state_of_a_message_has_its_word(staff_client: Client, staff: User, bot: Bot) -> None:
    received(mine(staff))
    assert words(read(staff_client)) == ["received"]
    turn = claim_one()
    assert words(read(staff_client)) == ["being answered"]
    fail(turn, a_failure(is_transient=True), notice_after=timedelta(days=1))
    assert words(read(staff_client)) == ["tried again soon"]
    retry = claim_one(now=later(days=1))
    fail(retry, a_failure("The model is <broken>."), notice_after=timedelta(days=1), now=later(days=1))
    html = read(staff_client)
    assert words(html)[0] == "failed"
    assert "AgentError: The model is &lt;broken&gt;." in html


def test_silence_is_explained(staff_client: Client, staff: User, bot: Bot) -> None:
    received(mine(staff))
    finish(claim_one(), "")
    denied = received(mine(staff), now=later(seconds=1))
    finish(claim_one(now=later(seconds=1)), "", dropped={denied.pk: "policy_deny"})
    html = read(staff_client)
    assert words(html) == ["no answer", "no answer"]
    assert "The agent chose to say nothing." in html
    assert "answers only contacts that it knows" in html


def test_a_late_reply_is_shown_as_held(staff_client: Client, staff: User, bot: Bot) -> None:
    received(mine(staff))
    finish(claim_one(), "Hi", now=later(days=1))
    assert words(read(staff_client)) == ["held", "held"]


def test_each_state_of_a_reply_has_its_word(staff_client: Client, staff: User, bot: Bot) -> None:
    answered(mine(staff), "Hi")
    assert words(read(staff_client))[1] == "waits to be sent"
    claim_sends()
    assert words(read(staff_client))[1] == "sending"
    for state, word in (("unknown", "unknown"), ("dead", "not sent"), ("sent", "sent")):
        OutboxMessage.objects.update(state=state, error="<b>why</b>")
        html = read(staff_client)
        assert words(html)[1] == word
        assert ("&lt;b&gt;why&lt;/b&gt;" in html) is (state != "sent")


def test_long_conversations_come_in_pages(staff_client: Client, staff: User, bot: Bot) -> None:
    total = try_it.PAGE_SIZE * 2 + 3
    for number in range(total):
        answered(mine(staff, f"question {number}."), f"answer {number}.", now=later(seconds=number))
    seen: list[str] = []
    path = "/try/shop/"
    while path:
        html = read(staff_client, path)
        said = re.findall(r">((?:question|answer) \d+\.)<", html)
        seen = said + seen
        earlier = re.search(r'href="(\?before=\d+)"', html)
        path = f"/try/shop/{earlier[1]}" if earlier else ""
        assert ('id="composer"' in html) is (said[-1] == f"answer {total - 1}.")
    expected = [f"{kind} {number}." for number in range(total) for kind in ("question", "answer")]
    assert seen == expected


def test_a_page_costs_the_same_however_long_the_conversation(
    staff_client: Client, staff: User, bot: Bot, django_assert_max_num_queries: Any
) -> None:
    for number in range(try_it.PAGE_SIZE):
        answered(mine(staff), "Hi", now=later(seconds=number))
    received(mine(staff), now=later(hours=1))
    fail(claim_one(now=later(hours=1)), a_failure(), now=later(hours=1))
    with django_assert_max_num_queries(7):
        read(staff_client)


def test_foreign_text_is_shown_and_never_run(staff_client: Client, staff: User, bot: Bot) -> None:
    hostile = "<img src=x onerror=alert(1)> </textarea><script>alert(2)</script> evil\u202etxt.exe \"'&"
    answered(mine(staff, hostile), hostile)
    html = read(staff_client)
    assert "<img" not in html
    assert "<script>alert" not in html
    assert html.count("evil\u27e6U+202E\u27e7txt.exe") == 2
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 2


def test_a_script_gets_the_part_it_keeps_fresh(staff_client: Client, staff: User, bot: Bot) -> None:
    answered(mine(staff))
    response = staff_client.get("/try/shop/", headers={"HX-Request": "true"})
    html = response.content.decode()
    assert 'id="log"' in html
    assert "<html" not in html
    assert 'id="composer"' not in html
    assert "HX-Request" in response["Vary"]
    assert response["Cache-Control"] == "no-store"


def test_bubbles_that_did_not_change_look_the_same_later(staff_client: Client, staff: User, bot: Bot) -> None:
    answered(mine(staff))
    send_all()
    part = {"HX-Request": "true"}
    first, second = (staff_client.get("/try/shop/", headers=part).content for _ in range(2))
    assert first == second


# -- what stands in the way of an answer ----


def test_a_bot_that_does_not_run_says_what_becomes_of_a_message(staff_client: Client, bot: Bot) -> None:
    assert "The bot is not running. What you write is kept, and answered when it runs." in read(staff_client)


def test_a_bot_that_would_not_answer_says_so_before(staff_client: Client, staff: User) -> None:
    a_bot("shop", policy=UnknownUserPolicy.DENY)
    running()
    html = read(staff_client)
    assert "It will not answer you." in html
    assert f"add staff-{staff.pk} to its allowed_users" in html


def test_an_allowed_user_hears_no_warning(staff_client: Client, staff: User) -> None:
    a_bot("shop", policy=UnknownUserPolicy.DENY, settings={"allowed_users": f"x, staff-{staff.pk}"})
    running()
    assert "It will not answer you." not in read(staff_client)


def test_a_disabled_bot_takes_nothing(staff_client: Client) -> None:
    a_bot("shop", is_enabled=False)
    html = read(staff_client)
    assert "The bot is paused" in html
    assert re.search(r"<textarea[^>]*disabled", html, re.DOTALL)
    assert "try.js" not in html


# -- without script ----


async def post(browser: AsyncClient, text: str, message_id: str = FORM_ID, path: str = "/try/shop/send/") -> Any:
    return await browser.post(path, {"id": message_id, "text": text})


async def stored() -> list[str]:
    return await sync_to_async(
        lambda: [entry.payload["text"] for entry in JournalEntry.objects.order_by("pk")],
    )()


async def test_the_form_stores_a_message_and_shows_the_conversation(browser: AsyncClient, bot: Bot) -> None:
    response = await post(browser, "Hello\r\nthere")
    assert (response.status_code, response["Location"]) == (302, "/try/shop/")
    assert await stored() == ["Hello\r\nthere"]
    html = (await browser.get("/try/shop/")).content.decode()
    assert words(html) == ["received"]
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in html


async def test_a_form_sent_twice_counts_once(browser: AsyncClient, bot: Bot) -> None:
    for _ in range(2):
        assert (await post(browser, "Hello")).status_code == 302
    assert await stored() == ["Hello"]


async def test_every_form_has_an_id_of_its_own(browser: AsyncClient, bot: Bot) -> None:
    pages = [(await browser.get("/try/shop/")).content.decode() for _ in range(2)]
    ids = {re.findall(r'name="id" value="([^"]+)"', html)[0] for html in pages}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("text", "message_id", "named"),
    [
        ("  ", FORM_ID, "text: is empty"),
        ("x" * (webchat.MAX_TEXT_CHARS + 1), FORM_ID, "text: has 20,001 characters"),
        ("Hello", "<b>", "id: write"),
    ],
)
async def test_a_form_that_cannot_be_used_says_why_and_keeps_the_text(
    browser: AsyncClient, bot: Bot, text: str, message_id: str, named: str
) -> None:
    response = await post(browser, text, message_id)
    assert response.status_code == 400
    html = response.content.decode()
    assert f"Not sent. {named}" in html
    assert f">{text[: webchat.MAX_TEXT_CHARS]}</textarea>" in html
    assert await stored() == []


async def test_a_message_that_was_not_stored_is_not_said_to_be(
    browser: AsyncClient, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(**_: Any) -> None:
        raise OperationalError("gone away")

    monkeypatch.setattr(journal, "receive", lost)
    response = await post(browser, "Hello")
    assert response.status_code == 503
    html = response.content.decode()
    assert "Not sent." in html
    assert ">Hello</textarea>" in html
    assert words(html) == []


async def test_a_form_for_a_bot_that_is_gone_is_refused(browser: AsyncClient, bot: Bot) -> None:
    assert (await post(browser, "Hello", path="/try/nobody/send/")).status_code == 404
    await sync_to_async(a_bot)("tg", platform="telegram")
    assert (await post(browser, "Hello", path="/try/tg/send/")).status_code == 404
    assert await stored() == []


async def test_a_form_from_elsewhere_is_refused(staff: User, bot: Bot, bridge: None) -> None:
    strict = AsyncClient(enforce_csrf_checks=True)
    await strict.aforce_login(staff)
    response = await post(strict, "Hello")
    assert response.status_code == 403
    assert "The form is out of date" in response.content.decode()
    assert await stored() == []


def test_reading_does_not_send(staff_client: Client, bot: Bot) -> None:
    assert staff_client.get("/try/shop/send/").status_code == 405
    assert staff_client.post("/try/shop/").status_code == 405


def test_a_fault_of_ours_has_a_page(staff_client: Client, bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(try_it, "chat", broken)
    staff_client.raise_request_exception = False
    response = staff_client.get("/try/shop/")
    assert response.status_code == 500
    assert "Something broke" in response.content.decode()
    assert "secret detail" not in response.content.decode()
