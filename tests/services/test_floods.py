"""Who writes faster than the bot answers: turned away, told once, and nobody else waits for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from botsrt.core.access import Reason
from botsrt.core.errors import InvalidInput
from botsrt.core.states import ChatType, EntryState, Outcome, RunMode, Trigger, UnknownUserPolicy
from botsrt.models import JournalEntry, OutboxMessage, Turn
from botsrt.services import bots, inline, journal, ledger
from botsrt.services.bots import Changes
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    SHAPE,
    a_bot,
    a_group_message,
    a_message,
    claim,
    claim_one,
    entry,
    finish,
    later,
    received,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db

NOTICE = (
    "You write faster than I can answer. I have not read your last message; please wait a minute, then send it again."
)


def set_bot(policy: UnknownUserPolicy | None = None, **settings: str) -> None:
    bots.change(account="shop", shape=SHAPE, changes=Changes(policy=policy, settings=settings), actor=ALICE, now=NOW)


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot(settings={"max_per_minute": "3"})


def assert_balanced() -> None:
    report = ledger.check(since=None, lease=LEASE, now=NOW)
    assert report.is_balanced, report


def flood(count: int, *, every_seconds: float = 0, start: float = 0, **fields: str) -> list[JournalEntry]:
    return [
        received(a_message(f"m{number}", **fields), now=later(seconds=start + every_seconds * number))
        for number in range(count)
    ]


def turned_away(rows: list[JournalEntry]) -> list[bool]:
    return [entry(row.pk).outcome_reason == Reason.RATE_LIMITED for row in rows]


def test_what_is_too_much_ends_without_a_turn_and_is_told_once():
    rows = flood(6)
    assert turned_away(rows) == [False] * 3 + [True] * 3
    last = entry(rows[-1].pk)
    assert (last.state, last.outcome, last.attempts) == (EntryState.COMPLETED, Outcome.SILENT, 0)
    turn = claim_one()
    assert turn.entry_ids == [row.pk for row in rows[:3]]
    finish(turn)
    assert claim() == []
    assert send_all() == [NOTICE, "Hi"]
    assert_balanced()


def test_what_programs_say_in_somebodys_session_is_not_counted():
    flood(1)
    for number in range(5):
        inline.say(session_id="bot_web_user-1", text=f"from a shell {number}", actor=ALICE, now=NOW)
        inline.receive(message=a_message("from a program"), reserved_for=timedelta(hours=1), max_raw_bytes=0, now=NOW)
    assert turned_away(flood(2)) == [False, False]
    assert turned_away(flood(1)) == [True]


def test_a_flood_is_over_when_the_person_pauses_and_the_next_one_is_told_again():
    assert turned_away(flood(5)) == [False] * 3 + [True] * 2
    assert turned_away(flood(2, start=59)) == [True, True]
    assert turned_away(flood(4, start=200)) == [False] * 3 + [True]
    assert send_all(now=later(seconds=201)) == [NOTICE, NOTICE]


def test_a_flood_that_goes_on_for_minutes_is_told_once():
    flood(60, every_seconds=5)
    assert OutboxMessage.objects.filter(text=NOTICE).count() == 1


def test_a_flood_of_one_person_delays_nobody():
    loud = flood(200, user_id="loud", channel_id="loud")
    quiet = received(a_message(user_id="quiet", channel_id="quiet"))
    claimed = claim(limit=2)
    assert sorted(turn.entry_ids for turn in claimed) == [[row.pk for row in loud[:3]], [quiet.pk]]
    assert JournalEntry.objects.filter(state=EntryState.PENDING).count() == 0
    assert Turn.objects.count() == 2


def test_who_is_too_fast_can_still_stop_what_runs_and_commands_have_their_own_limit():
    flood(4)
    commands = [received("/stop") for _ in range(4)]
    assert turned_away(commands) == [False] * 3 + [True]


def test_owners_are_never_limited():
    set_bot(owners="user-1")
    assert turned_away(flood(10)) == [False] * 10


def test_nought_limits_nobody_and_the_default_is_generous():
    set_bot(max_per_minute="0")
    assert turned_away(flood(10)) == [False] * 10
    set_bot(max_per_minute="")
    assert turned_away(flood(51, user_id="user-2")) == [False] * 51
    assert turned_away(flood(10, user_id="user-2"))[-1]


@pytest.mark.parametrize("value", ["601", "-1", "many"])
def test_a_rate_that_is_no_number_is_refused(value):
    with pytest.raises(InvalidInput, match="max_per_minute"):
        set_bot(max_per_minute=value)


def test_strangers_hear_nothing():
    set_bot(UnknownUserPolicy.DENY)
    rows = flood(5)
    assert turned_away(rows) == [False] * 5, "the gate drops them, for its own reason"
    assert not OutboxMessage.objects.exists()


def test_chatter_among_the_members_of_a_group_is_nobody_s_flood():
    for number in range(5):
        chatter = a_message(f"c{number}", channel_id="group-1", chat_type=ChatType.GROUP)
        assert received(chatter).outcome_reason == ""
    assert not OutboxMessage.objects.exists()
    finish(claim_one(), dropped={row.pk: Reason.NOT_ADDRESSED for row in JournalEntry.objects.all()}, reply="")
    assert turned_away([received(a_group_message())]) == [False]


def test_members_of_a_group_are_limited_each_for_themselves():
    ann = [received(a_group_message(user_id="ann")) for _ in range(5)]
    bob = [received(a_group_message(user_id="bob")) for _ in range(2)]
    assert turned_away(ann) == [False] * 3 + [True] * 2
    assert turned_away(bob) == [False] * 2


def test_another_bot_counts_for_itself():
    a_bot("other", settings={"max_per_minute": "3"})
    assert turned_away(flood(3)) == [False] * 3
    assert turned_away(flood(3, account="other")) == [False] * 3


def test_what_was_turned_away_interrupts_nobody():
    set_bot(busy="interrupt", busy_ack="Again.")
    flood(3)
    running = claim_one()
    late = received()
    assert turned_away([late]) == [True]
    assert finish(running)
    assert send_all() == [NOTICE, "Hi"]


def test_staff_can_replay_what_was_turned_away():
    late = flood(4)[-1]
    finish(claim_one())
    journal.replay(entry_id=late.pk, mode=RunMode.SEND, actor=ALICE, reason="they are right", now=NOW)
    turn = claim_one()
    assert (turn.entry_ids, turn.trigger) == ([late.pk], Trigger.REPLAY)
    assert finish(turn)
    assert_balanced()


def test_what_a_program_hands_in_is_never_too_fast():
    for number in range(5):
        message = a_message(message_id=f"p{number}")
        entry_id = inline.receive(message=message, reserved_for=LEASE, max_raw_bytes=0, now=NOW)
        assert entry_id is not None
        assert entry(entry_id).state == EntryState.PENDING


def test_a_redelivery_does_not_count():
    for _ in range(5):
        journal.receive(message=a_message(message_id="same"), now=NOW, max_raw_bytes=0)
    assert turned_away(flood(2)) == [False] * 2


@pytest.mark.django_db(transaction=True)
def test_messages_that_come_at_once_are_told_once():
    flood(3)
    at_once(*([lambda: received()] * 4))
    assert OutboxMessage.objects.filter(text=NOTICE).count() == 1
    assert JournalEntry.objects.filter(outcome_reason=Reason.RATE_LIMITED).count() >= 1
