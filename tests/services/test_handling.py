"""A human takes a conversation over, answers in it, and hands it back."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.states import DLQState, EntryState, Handler, HistoryKind, OutboxState, Proof, Role, TurnState
from botsrt.models import AuditEvent, BotSession, HistoryMessage, OutboxMessage, Turn
from botsrt.services import dlq, handling, identity, ledger, sessions
from tests.factories import (
    ALICE,
    BOB,
    LEASE,
    NOW,
    a_bot,
    a_message,
    answered,
    claim,
    claim_one,
    entry,
    finish,
    later,
    parked,
    received,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db(transaction=True)

SESSION = "bot_web_user-1"


@pytest.fixture(autouse=True)
def _shop():
    a_bot()


def take(actor: Actor = ALICE, handler: Handler = Handler.HUMAN, **fields: Any) -> None:
    handling.hand_to(session_id=SESSION, handler=handler, actor=actor, now=NOW, **fields)


def say(text: str = "I am human.", key: str = "form-1", **fields: Any) -> bool:
    return handling.reply(
        session_id=SESSION, text=text, parts=[text], idempotency_key=key, actor=ALICE, now=NOW, **fields
    )


def link(*users: str) -> None:
    for user in users:
        identity.link(
            platform="web", user_id=user, unified_user_id="ada", proof=Proof.STAFF, reason="known", actor=ALICE, now=NOW
        )


def spoken() -> list[tuple[str, str, str]]:
    rows = HistoryMessage.objects.order_by("id").values_list("role", "kind", "text")
    return [row for row in rows if row[1] != HistoryKind.DIVIDER]


def test_what_comes_while_a_human_has_it_waits_and_is_answered_by_their_reply():
    answered("Hello", "Hi")
    take()
    waiting = [received("Are you there?"), received("Hello??")]
    assert claim(now=later(seconds=1)) == []
    assert say()
    assert [entry(row.pk).state for row in waiting] == [EntryState.COMPLETED] * 2
    assert [entry(row.pk).outcome_reason for row in waiting] == [handling.BY_STAFF] * 2
    assert spoken()[2:] == [
        (Role.USER, HistoryKind.CHAT, "Are you there?"),
        (Role.USER, HistoryKind.CHAT, "Hello??"),
        (Role.ASSISTANT, HistoryKind.STAFF, "I am human."),
    ]
    assert send_all() == ["Hi", "I am human."]
    assert ledger.check(since=None, lease=LEASE, now=NOW).is_balanced


def test_a_retry_that_waits_for_a_human_is_over_with_their_reply():
    item = parked("Hello")
    take()
    dlq.retry(item_id=item.pk, actor=BOB, now=NOW)
    assert say()
    item.refresh_from_db()
    assert item.state == DLQState.RESOLVED
    assert ledger.check(since=None, lease=LEASE, now=NOW).is_balanced


def test_the_late_answer_of_the_bot_is_refused():
    row = received("Hello")
    turn = claim_one()
    take()
    assert Turn.objects.get(pk=turn.id).state == TurnState.CANCELLED
    assert not finish(turn, "Too late")
    assert entry(row.pk).state == EntryState.PENDING
    assert not OutboxMessage.objects.exists()


def test_handed_back_the_bot_answers_what_is_left_with_what_the_human_said():
    received("Hello")
    take()
    say("I am human.")
    received("And now?")
    take(handler=Handler.BOT)
    turn = claim_one(now=later(seconds=1))
    history = sessions.history(session_pk=turn.session_pk, max_messages=10)
    assert [item.text for item in history] == ["Hello", "I am human."]
    assert [item.message.text for item in turn.entries] == ["And now?"]


def test_a_reply_while_the_bot_has_it_ends_nothing():
    row = received("Hello")
    assert say()
    assert entry(row.pk).state == EntryState.PENDING


def test_a_form_that_is_sent_twice_is_one_reply():
    received("Hello")
    assert say()
    assert not say()
    assert OutboxMessage.objects.count() == 1


def test_two_forms_at_once_with_the_same_key_are_one_reply():
    received("Hello")
    assert sorted(at_once(say, say)) == [False, True]
    assert OutboxMessage.objects.count() == 1


def test_a_newer_message_stops_a_reply_that_did_not_see_it():
    first = received("Hello")
    received("Wait!")
    with pytest.raises(Conflict, match="newer message"):
        say(seen_entry_id=first.pk)
    assert not OutboxMessage.objects.exists()


def test_the_second_who_takes_over_is_told_who_was_first():
    received("Hello")
    take(actor=BOB)
    with pytest.raises(Conflict, match="with a human already, by bob at 12:00:00"):
        take(actor=ALICE)


def test_a_page_that_is_old_takes_nothing_over():
    received("Hello")
    epoch = BotSession.objects.get().epoch
    take(handler=Handler.PAUSED)
    with pytest.raises(Conflict):
        take(handler=Handler.HUMAN, seen_epoch=epoch)


def test_commands_go_on_working():
    received("Hello")
    take()
    received("/new")
    assert [item.command for turn in claim(now=later(seconds=1)) for item in turn.entries] == ["new"]


def test_a_paused_bot_says_nothing_and_loses_nothing():
    take_me = received("Hello")
    take(handler=Handler.PAUSED)
    assert claim(now=later(days=1)) == []
    take(handler=Handler.BOT)
    assert claim_one(now=later(days=1)).entry_ids == [take_me.pk]


def test_who_has_a_conversation_has_what_is_linked_to_it_later():
    received(a_message("Hello"))
    received(a_message("Hi", user_id="user-2"))
    take()
    assert [turn.lane for turn in claim()] == ["bot_web_user-2"], "Another person; the bot is answering."
    link("user-1", "user-2")
    assert set(BotSession.objects.values_list("handler", "handler_by")) == {(Handler.HUMAN, "alice")}
    assert not Turn.objects.filter(state=TurnState.RUNNING).exists(), "The bot's late answer will be refused."
    assert claim() == []


def test_who_has_a_conversation_has_what_begins_in_it_later():
    received(a_message("Hello"))
    take()
    link("user-1", "user-9")
    received(a_message("From my other account", user_id="user-9"))
    assert claim() == []
    handling.hand_to(session_id="bot_web_user-9", handler=Handler.BOT, actor=BOB, now=NOW)
    assert len(claim()) == 1, "One lane: they run one after another."


def test_a_note_reaches_nobody_and_the_database_sees_to_that():
    answered("Hello", "Hi")
    handling.note(session_id=SESSION, text="Careful with this one.", actor=ALICE, now=NOW)
    session = BotSession.objects.get()
    assert [item.text for item in sessions.history(session_pk=session.pk, max_messages=10)] == ["Hello", "Hi"]
    assert send_all() == ["Hi"]
    for wrong in ({"route": {"channel_id": "chat-1"}}, {"role": Role.ASSISTANT}, {"turn_id": Turn.objects.get().pk}):
        fields = {"role": Role.SYSTEM, "ordinal": 99, **wrong}
        with pytest.raises(IntegrityError), transaction.atomic():
            HistoryMessage.objects.create(session=session, kind=HistoryKind.NOTE, text="x", created_at=NOW, **fields)


def test_what_is_empty_or_nowhere_is_refused():
    received("Hello")
    with pytest.raises(InvalidInput):
        handling.reply(session_id=SESSION, text=" ", parts=[], idempotency_key="k", actor=ALICE, now=NOW)
    with pytest.raises(InvalidInput):
        handling.note(session_id=SESSION, text=" ", actor=ALICE, now=NOW)
    with pytest.raises(NotFound):
        handling.note(session_id="bot_web_nobody", text="x", actor=ALICE, now=timezone.now())


def test_every_act_is_audited():
    received("Hello")
    take()
    say()
    handling.note(session_id=SESSION, text="x", actor=ALICE, now=NOW)
    assert list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))[-3:] == [
        "sessions.hand_to",
        "sessions.reply",
        "sessions.note",
    ]


def test_a_reply_goes_where_the_person_wrote_last():
    received(a_message("One", channel_id="chat-1"))
    received(a_message("Two", channel_id="chat-2"))
    say()
    assert OutboxMessage.objects.get().channel_id == "chat-2"
    assert OutboxMessage.objects.get().state == OutboxState.PENDING
