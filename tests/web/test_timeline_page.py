"""The timeline of a conversation: dates, pages in both directions, what is new, edits; and who waits in the list."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from botsrt.core.messages import DeliveryReport
from botsrt.core.states import EventKind, Fate, Handler, HistoryKind
from botsrt.models import Bot, BotSession, HistoryMessage, OutboxMessage
from botsrt.services import handling, identity, receipts
from praisonweb.dashboard.paging import PAGE_SIZE
from tests.factories import (
    ALICE,
    NOW,
    a_bot,
    a_message,
    answered,
    asks,
    claim_one,
    finish,
    later,
    parked,
    received,
    send_all,
)
from tests.web.acting import HARMLESS, HOSTILE, read

pytestmark = pytest.mark.django_db(transaction=True)

#: Days of a conversation that was written into the table at once, one line in an hour.
_FIRST = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture
def talk(bot: Bot) -> BotSession:
    """A conversation of 240 lines, in ten days."""
    answered("The latest")
    session = BotSession.objects.get()
    HistoryMessage.objects.all().delete()
    HistoryMessage.objects.bulk_create(
        HistoryMessage(
            session=session,
            role="user",
            kind=HistoryKind.CHAT,
            text=f"line {number}.",
            created_at=_FIRST + timedelta(hours=number),
        )
        for number in range(240)
    )
    return session


def lines(html: str) -> list[int]:
    return [int(number) for number in re.findall(r"line (\d+)\.", html)]


def link_to(html: str, which: str) -> str:
    found = re.search(rf'<a href="([^"]+)" data-more="{which}"', html)
    return found[1].replace("&amp;", "&") if found else ""


def pill(html: str) -> str:
    """What the pill says; empty while it is hidden."""
    found = re.search(r'id="pill" href="[^"]+"( hidden)?><span data-pill>(.*?)</span>', html)
    assert found
    return "" if found[1] else found[2]


# -- dates and pages ----


def test_a_date_leads_to_its_first_message_and_on_in_both_directions(staff_client: Client, talk: BotSession) -> None:
    html = read(staff_client, f"/people/{talk.pk}/?on=2025-03-05")
    assert lines(html) == list(range(96, 96 + PAGE_SIZE))
    assert "from-start" in html
    assert 'value="2025-03-05"' in html
    earlier = read(staff_client, link_to(html, "earlier"))
    assert lines(earlier) == list(range(96 - PAGE_SIZE, 96))
    html = read(staff_client, link_to(html, "later"))
    assert lines(html) == list(range(96 + PAGE_SIZE, 96 + 2 * PAGE_SIZE))
    assert lines(read(staff_client, link_to(html, "earlier"))) == list(range(96, 96 + PAGE_SIZE))
    html = read(staff_client, link_to(html, "later"))
    assert lines(html)[-1] == 239
    assert link_to(html, "later") == ""


def test_the_first_page_has_nothing_earlier_and_the_last_nothing_later(staff_client: Client, talk: BotSession) -> None:
    html = read(staff_client, f"/people/{talk.pk}/?on=2020-01-01")
    assert lines(html)[0] == 0
    assert link_to(html, "earlier") == ""
    assert "Nothing was said on 2020-01-01. This came next." in html
    html = read(staff_client, f"/people/{talk.pk}/")
    assert lines(html)[-1] == 239
    assert link_to(html, "later") == ""


def test_a_date_after_everything_is_the_end(staff_client: Client, talk: BotSession) -> None:
    html = read(staff_client, f"/people/{talk.pk}/?on=2030-01-01")
    assert lines(html)[-1] == 239
    assert "Nothing was said on 2030-01-01 or later." in html


@pytest.mark.parametrize("day", ["tomorrow", "2025-13-01", "%3Cscript%3E", "2025-03-05T00:00"])
def test_what_is_no_date_is_said(staff_client: Client, talk: BotSession, day: str) -> None:
    html = read(staff_client, f"/people/{talk.pk}/?on={day}")
    assert "is no date; write 2026-11-20." in html
    assert lines(html)[-1] == 239


@pytest.mark.parametrize("query", ["before=x", "after=-1", "at=9e9", "after=" + "9" * 30])
def test_what_is_no_id_is_no_page(staff_client: Client, talk: BotSession, query: str) -> None:
    read(staff_client, f"/people/{talk.pk}/?{query}", status=404)


def test_pages_over_two_platforms_keep_the_platform(staff_client: Client, talk: BotSession) -> None:
    a_bot("desk", platform="slack")
    answered(a_message("From Slack", platform="slack", account="desk", user_id="U1"))
    for platform, user_id in (("web", "user-1"), ("slack", "U1")):
        identity.link(
            platform=platform,
            user_id=user_id,
            unified_user_id="ada",
            proof="staff",  # type: ignore[arg-type]
            actor=ALICE,
            reason="one human",
            now=NOW,
        )
    html = read(staff_client, f"/people/{talk.pk}/?platform=web&on=2025-03-05")
    for which in ("earlier", "later"):
        assert "platform=web" in link_to(html, which)
        assert "on=" not in link_to(html, which)
    assert "From Slack" not in read(staff_client, f"/people/{talk.pk}/?platform=web")
    assert "From Slack" in read(staff_client, f"/people/{talk.pk}/")


def test_every_place_costs_the_same(staff_client: Client, talk: BotSession, django_assert_max_num_queries: Any) -> None:
    for query in ("", "?on=2025-03-05", "?after=1", f"?before={HistoryMessage.objects.latest('id').pk}"):
        with django_assert_max_num_queries(26):
            read(staff_client, f"/people/{talk.pk}/{query}")


# -- what is new ----


def refresh_of(html: str) -> str:
    found = re.search(r'id="timeline" data-refresh="([^"]+)"', html)
    assert found
    return found[1].replace("&amp;", "&")


def test_a_reader_of_earlier_messages_is_told_how_many_are_new(staff_client: Client, talk: BotSession) -> None:
    url = refresh_of(read(staff_client, f"/people/{talk.pk}/?on=2025-03-05"))
    assert pill(read(staff_client, url, part=True)) == ""
    received("One")
    turn = claim_one()
    assert pill(read(staff_client, url, part=True)) == "1 new"
    finish(turn, "Two")
    handling.note(session_id=talk.session_id, text="Three", actor=ALICE, now=NOW)
    handling.hand_to(session_id=talk.session_id, handler=Handler.HUMAN, actor=ALICE, now=NOW)
    html = read(staff_client, url, part=True)
    assert pill(html) == "3 new", "A divider is no message."
    assert refresh_of(html) == url, "The reader's mark stays until the page is opened anew."


def test_what_waited_when_the_page_was_opened_is_not_new_when_it_is_answered(
    staff_client: Client, talk: BotSession
) -> None:
    received("Waits")
    url = refresh_of(read(staff_client, f"/people/{talk.pk}/?on=2025-03-05"))
    finish(claim_one(), "Answered")
    assert pill(read(staff_client, url, part=True)) == "1 new"


def test_a_composer_is_told_of_a_newer_message_and_of_the_running_bot(staff_client: Client, talk: BotSession) -> None:
    url = refresh_of(read(staff_client, f"/people/{talk.pk}/"))
    assert "A newer message came" not in read(staff_client, url, part=True)
    received("Wait!")
    claim_one()
    html = read(staff_client, url, part=True)
    assert 'id="desk-warnings" role="status" hx-swap-oob="true"' in html
    assert "A newer message came since you began." in html
    assert "The bot is writing an answer." in html
    whole = read(staff_client, f"/people/{talk.pk}/")
    assert "A newer message came" not in whole
    assert "hx-swap-oob" not in whole


def test_a_refused_reply_leads_back_to_pages_that_there_are(staff_client: Client, talk: BotSession) -> None:
    received("Newer")
    fields = {"text": "Mine", "key": str(uuid.uuid4()), "seen": "1"}
    response = staff_client.post(f"/people/{talk.pk}/reply/", fields)
    html = response.content.decode()
    assert response.status_code == 409
    assert "Read it, then send again." in html
    assert "Mine</textarea>" in html
    assert ">Send again</button>" in html
    assert refresh_of(html).startswith(f"/people/{talk.pk}/?seen=")
    assert link_to(html, "earlier").startswith(f"/people/{talk.pk}/?before=")
    seen = re.search(r'name="seen" value="(\d+)"', html)
    assert seen
    again = staff_client.post(f"/people/{talk.pk}/reply/", {**fields, "seen": seen[1]}, follow=True)
    assert "Your reply is on its way." in again.content.decode()


# -- edits ----


def test_an_edit_shows_what_it_was_before(staff_client: Client, bot: Bot) -> None:
    answered(a_message(f"Where is order 1? {HOSTILE}", message_id="m-1"), "There.")
    answered(a_message("Where is order 2?", message_id="m-1", revision="2", kind=EventKind.EDIT), "And there.")
    html = read(staff_client, f"/people/{BotSession.objects.get().pk}/")
    bubbles = html.split('<li class="bubble ')[1:]
    edit = next(bubble for bubble in bubbles if ">Where is order 2?</p>" in bubble.split("<details")[0])
    assert "Edited: 1 other version" in edit
    assert "before, " in edit
    assert f"Where is order 1? {HARMLESS}" in edit
    first = bubbles[0]
    assert "later, " in first
    assert "Where is order 2?" in first
    assert sum("Edited:" in bubble for bubble in bubbles) == 2


# -- the list ----


def row_of(html: str) -> str:
    return " ".join(html.split('<ol class="rows"')[1].split("</ol>")[0].split())


def test_a_stranger_who_waits_is_listed_with_their_first_words(staff_client: Client, transactional_db: None) -> None:
    a_bot(policy="pair")  # type: ignore[arg-type]
    asks(text="May I <b>come in</b>?")
    html = row_of(read(staff_client, "/people/"))
    assert ">held</span> May I &lt;b&gt;come in&lt;/b&gt;?" in html
    assert "nothing said yet" not in html


def test_a_first_message_that_waits_is_shown_as_such(staff_client: Client, bot: Bot) -> None:
    received("Hello there")
    assert ">pending</span> Hello there" in row_of(read(staff_client, "/people/"))


def test_a_first_message_that_failed_is_shown_as_such(staff_client: Client, bot: Bot) -> None:
    parked("Does it break?")
    assert ">dead</span> Does it break?" in row_of(read(staff_client, "/people/"))


def test_what_waits_after_a_conversation_is_its_last_line(staff_client: Client, bot: Bot) -> None:
    answered("Hello", "Hi")
    assert "we: </span>Hi" in row_of(read(staff_client, "/people/"))
    received("And now?", now=later(minutes=5))
    assert ">pending</span> And now?" in row_of(read(staff_client, "/people/"))


def test_the_list_costs_the_same_however_many_wait(
    staff_client: Client, bot: Bot, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        received(a_message("Hello", user_id=f"u-{number}", channel_id=f"c-{number}"))
    with django_assert_max_num_queries(11):
        assert row_of(read(staff_client, "/people/")).count("pending") == 12


# -- ticks ----


def tell(fate: Fate, number: int = 0, error: str = "") -> None:
    """The platform tells what became of a part of the answer."""
    row = OutboxMessage.objects.order_by("id")[number]
    report = DeliveryReport(
        idempotency_key=row.idempotency_key, platform_message_id="wamid.1", fate=fate, at=later(minutes=1), error=error
    )
    assert receipts.record(account=row.account, reports=[report], now=later(hours=1)) == 1


def ticks(client: Client) -> list[tuple[str, str]]:
    """What the eye sees and what is read aloud, of each message that went out."""
    html = read(client, f"/people/{BotSession.objects.get().pk}/")
    return re.findall(r'<span class="ticks" aria-hidden="true">(.*?)</span>(.*?)</span>', html)


def test_what_became_of_an_answer_is_shown_as_ticks(bot: Bot, staff_client: Client) -> None:
    answered("Hello", "Hi there")
    assert ticks(staff_client) == []
    send_all()
    assert ticks(staff_client) == [("✓", "sent")]
    tell(Fate.DELIVERED)
    assert ticks(staff_client) == [("✓✓", "delivered")]
    tell(Fate.READ)
    assert ticks(staff_client) == [("✓✓", "read")]
    html = read(staff_client, f"/people/{BotSession.objects.get().pk}/")
    assert 'title="The person read it, at 2026-01-15 12:01:00 UTC."' in html
    tell(Fate.DELIVERED)
    assert ticks(staff_client) == [("✓✓", "read")]


def test_an_answer_in_parts_got_as_far_as_its_last_part(bot: Bot, staff_client: Client) -> None:
    received("Hello")
    finish(claim_one(), ("one", "two"))
    send_all()
    tell(Fate.READ, 0)
    assert ticks(staff_client) == [("✓", "sent")]
    tell(Fate.DELIVERED, 1)
    assert ticks(staff_client) == [("✓✓", "delivered")]


def test_an_answer_that_failed_on_the_way_says_why(bot: Bot, staff_client: Client) -> None:
    answered("Hello", "Hi there")
    send_all()
    tell(Fate.FAILED, error="More than 24 hours have passed.")
    html = read(staff_client, f"/people/{BotSession.objects.get().pk}/")
    assert "More than 24 hours have passed." in html
    assert ticks(staff_client) == []
    row = OutboxMessage.objects.get()
    assert "More than 24 hours have passed." in read(staff_client, f"/deliveries/{row.pk}/")


def test_receipts_are_on_the_pages_of_a_delivery_and_of_its_message(bot: Bot, staff_client: Client) -> None:
    entry = answered("Hello", "Hi there")
    send_all()
    tell(Fate.READ)
    html = read(staff_client, f"/deliveries/{OutboxMessage.objects.get().pk}/")
    assert "<dt>Delivered</dt>" in html
    assert "<dt>Read</dt>" in html
    assert " read</" in read(staff_client, f"/journal/{entry.pk}/?tab=trace")
