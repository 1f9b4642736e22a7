"""Deliveries: the list, the desk for unknown sends, and held replies."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from botsrt.core.states import EntryState, OutboxState
from botsrt.models import AuditEvent, Bot, JournalEntry, OutboxMessage
from botsrt.services import outbox
from tests.factories import (
    ALICE,
    BOB,
    NOW,
    WORKER,
    a_message,
    answered,
    claim_one,
    claim_sends,
    finish,
    later,
    received,
    send_all,
)
from tests.web.acting import HARMLESS, HOSTILE, badges, do, problem, read, rows, said, title

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _shop(bot: Bot) -> None:
    pass


def unknown(text: str = "Hi", user_id: str = "u1") -> OutboxMessage:
    """A message whose sending was cut."""
    answered(a_message(user_id=user_id, channel_id=f"chat-{user_id}"), text)
    (claimed,) = claim_sends()
    outbox.mark_unknown(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    return OutboxMessage.objects.get(pk=claimed.message.outbox_id)


def held(*parts: str) -> OutboxMessage:
    """A reply that came too late."""
    received(a_message(user_id="late"))
    finish(claim_one(now=later(hours=7)), parts or ("late",), now=later(hours=7))
    row = OutboxMessage.objects.filter(state=OutboxState.HELD).first()
    assert row is not None
    return row


def state(row: OutboxMessage) -> str:
    row.refresh_from_db()
    return row.state


def test_without_messages_it_says_so(staff_client: Client) -> None:
    assert "Nothing has gone out yet." in read(staff_client, "/deliveries/")


def test_the_list_and_its_filters(staff_client: Client, django_assert_max_num_queries: Any) -> None:
    answered(a_message(user_id="u0", display_name="Ann"), "first words")
    send_all()
    cut = unknown("second words")
    with django_assert_max_num_queries(7):
        html = read(staff_client, "/deliveries/")
    assert len(rows(html)) == 2
    assert "Ann" in html
    assert 'Unknown <span class="count">1</span>' in html

    def found(query: str) -> list[str]:
        return rows(read(staff_client, f"/deliveries/?q={query}"))

    assert found("state:unknown") == found("chat:chat-u1") == found("SECOND") == [str(cut.pk)]
    assert found(f"entry:{cut.entry_id}") == [str(cut.pk)]
    assert found("source:staff") == found("bot:other") == found("platform:slack") == []
    assert len(found("source:reply")) == 2
    assert found("entry:x") == [], "What cannot be a number matches nothing."
    assert problem(read(staff_client, "/deliveries/?q=state:lost")).startswith("state: 'lost'")


def test_hostile_text_is_shown_as_what_it_is(staff_client: Client) -> None:
    row = unknown(HOSTILE, user_id=HOSTILE)
    for path in ("/deliveries/", f"/deliveries/{row.pk}/"):
        html = read(staff_client, path)
        assert "<script>alert" not in html
        assert "\u202e" not in html
    assert HARMLESS in read(staff_client, f"/deliveries/{row.pk}/")


def test_a_message_that_is_gone_says_so(staff_client: Client) -> None:
    assert "There is no outgoing message 99" in read(staff_client, "/deliveries/99/", status=404)
    assert staff_client.get("/deliveries/99/burn/").status_code == 404


@pytest.mark.parametrize(
    ("resolution", "becomes"),
    [("arrived", OutboxState.SENT), ("again", OutboxState.PENDING), ("drop", OutboxState.DEAD)],
)
def test_the_desk_decides_about_an_unknown_send(staff_client: Client, resolution: str, becomes: OutboxState) -> None:
    row = unknown()
    html = read(staff_client, f"/deliveries/{row.pk}/")
    assert badges(html) == ["unknown"]
    assert f"/deliveries/{row.pk}/{resolution}/" in html
    path = f"/deliveries/{row.pk}/{resolution}/"
    assert "1 message" in title(read(staff_client, path))
    assert do(staff_client, path, reason="looked") == f"/deliveries/{row.pk}/"
    assert state(row) == becomes
    assert AuditEvent.objects.get(verb="outbox.resolve").after == {"resolution": resolution}


def test_a_click_too_late_says_what_happened(staff_client: Client) -> None:
    row = unknown()
    outbox.resolve(outbox_id=row.pk, resolution="arrived", actor=BOB, now=NOW)
    html = do(staff_client, f"/deliveries/{row.pk}/again/", status=409)
    assert problem(html) == f"Outgoing message {row.pk} is sent already; its fate is not open."
    assert "there is nothing to decide" in read(staff_client, f"/deliveries/{row.pk}/")


def test_a_held_reply_is_decided_with_all_its_parts(staff_client: Client) -> None:
    row = held("one", "two")
    html = read(staff_client, f"/deliveries/{row.pk}/")
    assert "It was never sent, so it cannot have arrived." in html
    assert "two" in html
    assert title(read(staff_client, f"/deliveries/{row.pk}/again/")) == "Send 1 reply of 2 parts now?"
    do(staff_client, f"/deliveries/{row.pk}/again/")
    assert list(OutboxMessage.objects.values_list("state", flat=True)) == [OutboxState.PENDING] * 2
    assert JournalEntry.objects.get().state == EntryState.COMPLETED


def test_a_held_reply_can_be_dropped(staff_client: Client) -> None:
    row = held()
    do(staff_client, f"/deliveries/{row.pk}/drop/", reason="no longer true")
    assert state(row) == OutboxState.DEAD
    assert JournalEntry.objects.get().state == EntryState.DISCARDED


def test_selected_messages_are_decided_together(staff_client: Client) -> None:
    one, two = unknown(user_id="u1"), unknown(user_id="u2")
    outbox.resolve(outbox_id=two.pk, resolution="drop", actor=ALICE, now=NOW)
    assert title(read(staff_client, f"/deliveries/resolve/again/?id={one.pk}&id={two.pk}")) == "Send 2 messages now?"
    ids = f"{one.pk},{two.pk}"
    assert do(staff_client, "/deliveries/resolve/again/", ids=ids) == "/deliveries/"
    assert said(staff_client)[0].startswith("1 message set to go out. 1 was skipped: ")
    assert state(one) == OutboxState.PENDING
    html = do(staff_client, "/deliveries/resolve/again/", ids=ids, status=409)
    assert "already" in problem(html)
    assert problem(read(staff_client, "/deliveries/resolve/drop/")) == "No message is selected."


def test_the_desk_says_what_it_is_for(staff_client: Client) -> None:
    unknown()
    assert "They arrived" in read(staff_client, "/deliveries/?q=state:unknown")
    held()
    html = read(staff_client, "/deliveries/?q=state:held")
    assert "nothing of this goes out before somebody says so" in html
    assert "They arrived" not in html
