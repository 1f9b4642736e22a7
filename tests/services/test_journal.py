"""The journal: every event is stored once, whatever the platform sends and however often."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.messages import MAX_ID_CHARS, Attachment, InboundMessage
from botsrt.core.states import (
    ChatType,
    DLQReason,
    DLQState,
    EntryState,
    EventKind,
    OutboxState,
    Outcome,
    RunMode,
    SessionScope,
    Trigger,
)
from botsrt.models import AuditEvent, BotSession, Contact, DLQItem, JournalEntry, OutboxMessage
from botsrt.services import identity, journal, sessions
from tests.factories import (
    ACCOUNT,
    ALICE,
    NOW,
    PLATFORM,
    a_bot,
    a_group_message,
    a_message,
    answered,
    claim,
    claim_one,
    entry,
    finish,
    later,
    parked,
    receive,
    received,
    send_all,
)
from tests.services.races import at_once, while_uncommitted

pytestmark = pytest.mark.django_db


# -- new and known ----


def test_a_new_message_is_stored_with_all_that_a_run_needs():
    message = a_message(
        "Hello",
        user_name="ann",
        display_name="Ann",
        thread_id="t",
        reply_to="m0",
        attachments=(Attachment(kind="photo", reference="file-1"),),
    )
    row = received(message)

    assert (row.state, row.outcome, row.attempts, row.available_at) == (EntryState.PENDING, "", 0, NOW)
    assert InboundMessage.from_payload(row.payload) == message
    assert row.lane == "bot_web_user-1"
    assert row.session is not None
    assert row.session.session_id == row.lane
    assert row.contact is not None
    assert row.contact.display_name == "Ann"


def test_a_redelivery_is_dropped_and_counted():
    message = a_message()
    row = received(message)
    assert receive(message, now=later(minutes=5)) is None
    assert receive(message, now=later(minutes=6)) is None

    assert JournalEntry.objects.count() == 1
    assert entry(row.pk).duplicates == 2
    assert entry(row.pk).received_at == NOW


def test_a_redelivery_of_an_answered_message_does_not_run_it_again():
    a_bot()
    message = a_message()
    row = answered(message)
    assert receive(message) is None
    assert claim() == []
    assert entry(row.pk).state == EntryState.COMPLETED


def test_a_redelivery_has_no_other_effect_than_to_be_counted():
    message = a_message(display_name="Ann")
    receive(message)
    Contact.objects.update(is_reachable=False)
    before = Contact.objects.values().get()
    receive(a_message(message_id=message.message_id, display_name="Anna"), now=later(days=1))
    assert Contact.objects.values().get() == before

    receive(a_message(message_id=message.message_id, user_id="stranger"))
    assert Contact.objects.count() == 1
    assert BotSession.objects.count() == 1


def test_a_bot_that_comes_back_finds_its_newest_messages():
    for text in ("one", "two", "three"):
        receive(text, raw={"said": text})
    receive("elsewhere", account="other")
    journal.receive_unreadable(
        platform=PLATFORM,
        account=ACCOUNT,
        event_id="broken",
        raw={},
        error=UnreadableUpdate("?"),
        now=NOW,
        max_raw_bytes=9,
    )
    JournalEntry.objects.filter(payload__text="two").update(raw=None)
    newest = journal.newest(account=ACCOUNT, limit=2)
    assert [(message.text, message.raw) for message in newest] == [("three", {"said": "three"}), ("two", {})]


def test_an_edit_is_a_new_event():
    original = a_message("Helo", message_id="m1")
    assert receive(original)
    edit = a_message("Hello", message_id="m1", revision="1", kind=EventKind.EDIT)
    assert receive(edit)
    assert receive(edit) is None
    assert JournalEntry.objects.count() == 2


@pytest.mark.parametrize("field", ["account", "channel_id", "message_id", "platform"])
def test_the_same_ids_elsewhere_are_another_message(field):
    assert receive(a_message(message_id="m1"))
    assert receive(a_message(**{"message_id": "m1", field: "other"}))
    assert JournalEntry.objects.count() == 2


def test_the_same_id_in_another_thread_is_a_redelivery():
    # A thread is no part of the key: platforms number messages by chat.
    assert receive(a_message(message_id="m1", thread_id="a"))
    assert receive(a_message(message_id="m1", thread_id="b")) is None


# -- what platforms send ----


def test_nul_and_lone_surrogates_are_stored_as_replacement_characters():
    row = received(
        a_message(
            "a\x00b\ud800c",
            channel_id="c\x00",
            message_id="m\udfff",
            user_id="u\x00",
            display_name="n\ud83d",
            chat_name="\x00",
            attachments=(Attachment(kind="file", reference="r\x00", name="\ud800"),),
            raw={"text": "a\x00", "\ud800": ["\x00"]},
        )
    )
    assert row.payload["text"] == "a�b�c"
    assert row.raw == {"text": "a�", "�": ["�"]}
    assert receive(a_message(channel_id="c\x00", message_id="m\udfff")) is None


def test_a_text_of_a_million_characters_is_stored_whole():
    text = "x😀" * 500_000
    assert received(a_message(text)).payload["text"] == text


def test_ids_as_wide_as_they_may_be_are_told_apart_to_the_last_letter():
    wide = "😀" * (MAX_ID_CHARS - 1)
    ids = {"channel_id": wide + "a", "message_id": wide + "a", "user_id": wide + "a", "thread_id": wide + "a"}
    assert receive(a_message(**ids, revision=wide + "a", chat_type=ChatType.GROUP))
    assert receive(a_message(**ids, revision=wide + "b", chat_type=ChatType.GROUP))
    assert receive(a_message(**ids, revision=wide + "a", chat_type=ChatType.GROUP)) is None


@pytest.mark.parametrize(
    "raw",
    [
        {"text": "x" * 2_000},
        {"not": {1, 2}},
        {"cost": float("nan")},
        {"text": "\x00" * 10},
        {"huge": 10**4_000},
    ],
)
def test_a_raw_update_that_cannot_be_kept_does_not_keep_its_message_out(raw):
    row = received(a_message(raw=raw), max_raw_bytes=1_000)
    assert row.raw is None or json.dumps(row.raw, allow_nan=False)


@pytest.mark.parametrize("depth", [100, 300, 490, 700, 960, 5_000])
def test_a_deeply_nested_raw_update_does_not_keep_its_message_out(depth):
    raw: dict[str, object] = {}
    for _ in range(depth):
        raw = {"x": raw}
    assert receive(a_message(raw=raw))


def test_a_raw_update_is_kept_up_to_its_largest_size():
    assert received(a_message(raw={"x": "y"}), max_raw_bytes=10).raw == {"x": "y"}
    assert received(a_message(raw={"x": "y"}), max_raw_bytes=9).raw is None


# -- contacts ----


def test_a_contact_keeps_the_newest_names():
    receive(a_message(user_name="ann", display_name="Ann"))
    receive(a_message(user_name="anna", display_name="Anna"), now=later(seconds=1))
    contact = Contact.objects.get()
    assert (contact.user_name, contact.display_name) == ("anna", "Anna")
    assert contact.first_seen_at == NOW


def test_a_message_without_names_does_not_erase_those_that_are_known():
    receive(a_message(user_name="ann", display_name="Ann"))
    receive(a_message(), now=later(minutes=5))
    assert Contact.objects.get().display_name == "Ann"
    assert Contact.objects.get().last_seen_at == later(minutes=5)


def test_last_seen_moves_once_a_minute_at_most():
    receive()
    receive(now=later(seconds=59))
    assert Contact.objects.get().last_seen_at == NOW
    receive(now=later(seconds=61))
    assert Contact.objects.get().last_seen_at == later(seconds=61)


def test_writing_to_us_proves_that_a_contact_can_be_reached():
    receive()
    Contact.objects.update(is_reachable=False)
    receive(now=later(seconds=1))
    assert Contact.objects.get().is_reachable


def test_one_name_on_two_platforms_is_two_contacts():
    receive(a_message(user_name="ann"))
    receive(a_message(user_name="ann", platform="telegram"))
    assert Contact.objects.count() == 2


# -- sessions ----


def test_direct_messages_belong_to_their_contact_and_keep_the_documented_id():
    assert received(a_message(platform="telegram", user_id="42")).lane == "bot_telegram_42"
    assert received(a_message(platform="telegram", user_id="42", channel_id="other")).lane == "bot_telegram_42"
    assert BotSession.objects.get().scope == SessionScope.PER_USER


def test_a_group_shares_one_session_and_a_thread_has_its_own():
    one = received(a_group_message(user_id="a"))
    two = received(a_group_message(user_id="b"))
    thread = received(a_group_message(user_id="a", thread_id="t"))
    assert one.lane == two.lane == "web:acct:shop:chat:group-1"
    assert thread.lane == "web:acct:shop:chat:group-1:t"


def test_direct_messages_and_groups_never_share_a_session():
    direct = received(a_message(channel_id="c"))
    group = received(a_group_message(channel_id="c"))
    assert direct.session_id != group.session_id


def test_a_group_that_moved_keeps_its_session_under_both_ids():
    before = received(a_group_message(channel_id="old"))
    sessions.chat_migrated(account=ACCOUNT, old_channel_id="old", new_channel_id="new")
    sessions.chat_migrated(account=ACCOUNT, old_channel_id="old", new_channel_id="new")

    assert received(a_group_message(channel_id="new")).session_id == before.session_id
    # A platform may deliver messages of the old chat again, after it has told that the chat moved.
    assert received(a_group_message(channel_id="old")).session_id == before.session_id


def test_a_chat_moves_for_its_own_bot_alone():
    other = received(a_group_message(channel_id="old", account="help"))
    sessions.chat_migrated(account=ACCOUNT, old_channel_id="old", new_channel_id="new")
    assert BotSession.objects.get(entries=other).channel_id == "old"


def test_a_chat_that_moves_to_where_one_exists_leaves_that_alone():
    old = received(a_group_message(channel_id="old"))
    new = received(a_group_message(channel_id="new"))
    sessions.chat_migrated(account=ACCOUNT, old_channel_id="old", new_channel_id="new")
    assert received(a_group_message(channel_id="old")).session_id == old.session_id
    assert received(a_group_message(channel_id="new")).session_id == new.session_id


# -- unreadable ----


def unreadable(event_id: str = "update-1", **fields) -> int | None:
    defaults: dict[str, Any] = {
        "platform": PLATFORM,
        "account": ACCOUNT,
        "raw": {"update_id": 1},
        "error": UnreadableUpdate("channel_id is empty."),
        "now": NOW,
        "max_raw_bytes": 1_000,
    }
    return journal.receive_unreadable(event_id=event_id, **defaults | fields)


def test_an_unreadable_update_is_kept_for_staff_and_never_run():
    a_bot()
    entry_id = unreadable()
    assert entry_id is not None
    assert entry(entry_id).state == EntryState.DEAD
    assert entry(entry_id).raw == {"update_id": 1}
    item = DLQItem.objects.get()
    assert (item.reason, item.state, item.error_text) == (DLQReason.UNREADABLE, DLQState.OPEN, "channel_id is empty.")
    assert claim() == []


def test_an_unreadable_update_is_kept_once():
    assert unreadable()
    assert unreadable() is None
    assert DLQItem.objects.count() == 1
    assert JournalEntry.objects.get().duplicates == 1


@pytest.mark.parametrize("event_id", ["x" * 500, "\x00", "\ud800"])
def test_an_unreadable_update_may_have_an_unreadable_id(event_id):
    assert unreadable(event_id)
    assert unreadable(event_id) is None


def test_two_long_ids_that_begin_alike_are_two_updates():
    assert unreadable("x" * 300 + "a")
    assert unreadable("x" * 300 + "b")


def test_an_unreadable_update_cannot_be_replayed():
    entry_id = unreadable()
    assert entry_id is not None
    with pytest.raises(InvalidInput, match="not readable"):
        journal.replay(entry_id=entry_id, mode=RunMode.SEND, actor=ALICE, reason="", now=NOW)


# -- replay ----


def replay(row: JournalEntry, mode: RunMode = RunMode.SEND, *, now=NOW) -> None:
    journal.replay(entry_id=row.pk, mode=mode, actor=ALICE, reason="wrong answer", now=now)


def test_a_replayed_message_runs_again_and_its_answer_leaves():
    a_bot()
    row = answered(reply="Wrong")
    send_all()
    replay(row)
    turn = claim_one()
    assert (turn.trigger, turn.run_mode) == (Trigger.REPLAY, RunMode.SEND)
    finish(turn, "Right")
    assert send_all() == ["Right"]
    assert entry(row.pk).outcome == Outcome.ANSWERED


def test_a_replay_for_review_holds_its_answer():
    a_bot()
    row = answered()
    send_all()
    replay(row, RunMode.HOLD)
    finish(claim_one(), "To be looked at")
    assert send_all() == []
    assert entry(row.pk).outcome == Outcome.HELD


def test_a_message_that_waits_or_runs_is_not_replayed():
    a_bot()
    row = received()
    with pytest.raises(Conflict, match="pending already: it waits for its turn"):
        replay(row)
    claim()
    with pytest.raises(Conflict, match="claimed already"):
        replay(row)


def test_the_second_replay_is_told_who_was_first():
    a_bot()
    row = answered()
    replay(row)
    with pytest.raises(Conflict, match="requested by alice"):
        replay(row)


def test_a_replay_is_audited_with_its_reason():
    a_bot()
    row = answered()
    replay(row)
    event = AuditEvent.objects.get(verb="journal.replay")
    assert (event.actor, event.reason, event.object_id) == ("alice", "wrong answer", str(row.pk))
    assert (event.before, event.after) == ({"state": "completed"}, {"state": "pending", "mode": "send"})


def test_the_replay_of_a_parked_message_takes_its_case_along():
    a_bot()
    item = parked()
    replay(item.entry)
    item.refresh_from_db()
    assert item.state == DLQState.RETRYING
    finish(claim_one())
    item.refresh_from_db()
    assert item.state == DLQState.RESOLVED


def test_there_is_no_replay_of_nothing():
    with pytest.raises(NotFound, match="no journal entry 999"):
        journal.replay(entry_id=999, mode=RunMode.SEND, actor=ALICE, reason="", now=NOW)


def a_held_reply(*messages: InboundMessage) -> list[JournalEntry]:
    rows = [received(message) for message in messages]
    finish(claim_one(now=later(hours=7)), "Late", now=later(hours=7))
    return [entry(row.pk) for row in rows]


def test_a_replay_withdraws_the_reply_that_was_held():
    a_bot()
    (row,) = a_held_reply(a_message())
    replay(row, now=later(hours=8))
    finish(claim_one(now=later(hours=8)), "Fresh", now=later(hours=8))
    assert list(OutboxMessage.objects.order_by("id").values_list("text", "state")) == [
        ("Late", OutboxState.DEAD),
        ("Fresh", OutboxState.HELD),  # the message is still as old
    ]


def test_a_held_reply_to_several_messages_is_decided_before_one_of_them_is_replayed():
    a_bot()
    rows = a_held_reply(a_message(), a_message())
    with pytest.raises(Conflict, match="1 other message"):
        replay(rows[0])
    assert OutboxMessage.objects.get().state == OutboxState.HELD


# -- at once ----


@pytest.mark.django_db(transaction=True)
def test_one_message_received_twice_at_once_is_stored_once():
    for _ in range(5):
        message = a_message(user_id=a_message().message_id)
        results = at_once(*[partial(receive, message)] * 3)
        assert len([entry_id for entry_id in results if entry_id is not None]) == 1, results
    assert JournalEntry.objects.count() == Contact.objects.count() == 5
    assert set(JournalEntry.objects.values_list("duplicates", flat=True)) == {2}


@pytest.mark.django_db(transaction=True)
def test_a_redelivery_waits_for_the_first_delivery_to_be_committed():
    message = a_message()
    with while_uncommitted(lambda: receive(message), lambda: receive(message)) as (first, second):
        assert first is not None
    assert second.result(20) is None
    assert entry(first).duplicates == 1


@pytest.mark.django_db(transaction=True)
def test_a_redelivery_is_stored_when_the_first_delivery_is_rolled_back():
    message = a_message()
    with (
        pytest.raises(ZeroDivisionError),
        while_uncommitted(lambda: receive(message), lambda: receive(message)) as (_, second),
    ):
        raise ZeroDivisionError
    assert second.result(20) is not None


@pytest.mark.django_db(transaction=True)
def test_first_messages_of_a_group_at_once_share_its_session():
    results = at_once(*(lambda n=n: receive(a_group_message(user_id=f"u{n}")) for n in range(4)))
    assert all(isinstance(entry_id, int) for entry_id in results), results
    assert BotSession.objects.count() == 1


# -- cost ----


def test_receiving_costs_few_queries(django_assert_num_queries):
    message = a_message()
    receive(message)
    with django_assert_num_queries(7):  # what is known, contact, session, entry; settings, bursts, how many lately
        receive(a_message())
    with django_assert_num_queries(2):  # what is known, counted
        receive(message)


def test_a_known_contact_is_read_once(django_assert_num_queries):
    receive(a_message())
    with django_assert_num_queries(1):
        identity.contact_seen(platform=PLATFORM, sender=a_message().sender, now=NOW)
