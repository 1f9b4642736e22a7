"""Commands beside the lane, and what they do to it: stop, status, retry."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from botsrt.core.access import Decision, Reason, Verdict
from botsrt.core.pairing_codes import Terms
from botsrt.core.states import (
    ChatType,
    DLQState,
    EntryState,
    Handler,
    HistoryKind,
    Outcome,
    Proof,
    Role,
    RunMode,
    TurnState,
)
from botsrt.models import DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import bots, handling, identity, journal, ledger, reception, sessions, turns
from botsrt.services.claimed import ClaimedTurn
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    TROUBLE,
    a_bot,
    a_group_message,
    a_message,
    abandon,
    answered,
    claim,
    claim_one,
    entry,
    fail,
    finish,
    later,
    parked,
    received,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db(transaction=True)

DECISION = Decision(verdict=Verdict.ALLOW, reason=Reason.POLICY_ALLOW)


@pytest.fixture(autouse=True)
def _bots() -> None:
    a_bot()
    a_bot("desk", platform="slack")


def answer(turn: ClaimedTurn) -> bool:
    bot = bots.views(accounts=[turn.account])[turn.account]
    return reception.answer(turn=turn, bot=bot, decision=DECISION, terms=Terms(), now=NOW)


def command(text: str, **fields: Any) -> str:
    """Send a command, have it answered beside its lane, and return the answer."""
    row = received(a_message(text, **fields))
    turn = claim_one(limit=0)
    assert turn.entry_ids == [row.pk]
    assert answer(turn)
    return OutboxMessage.objects.get(turn=turn.id).text


def link(*contacts: tuple[str, str]) -> None:
    for platform, user_id in contacts:
        identity.link(
            platform=platform,
            user_id=user_id,
            unified_user_id="ada",
            proof=Proof.STAFF,
            reason="known",
            actor=ALICE,
            now=NOW,
        )


def assert_balanced() -> None:
    report = ledger.check(since=None, lease=LEASE, now=NOW)
    assert report.is_balanced, report


def stopped(row: JournalEntry) -> bool:
    row.refresh_from_db()
    return (row.state, row.outcome, row.outcome_reason) == (EntryState.COMPLETED, Outcome.SILENT, "stopped")


# -- beside the lane ----


@pytest.mark.parametrize("text", ["/help", "/status", "/stop", "/whoami", "/link", "/retry"])
def test_a_command_is_answered_while_its_lane_runs(text):
    received("a long story")
    running = claim_one()
    assert command(text)
    assert_balanced()
    assert finish(running) is (text != "/stop")


def test_a_new_conversation_begins_after_what_was_said_before():
    received("one")
    running = claim_one()
    received("/new")
    assert claim() == []
    finish(running)
    assert [item.command for item in claim_one().entries] == ["new"]


def test_commands_of_one_conversation_are_answered_one_by_one():
    ids = [received(text).pk for text in ("/status", "/help")]
    first = claim_one()
    assert first.entry_ids == ids[:1]
    assert claim() == []
    answer(first)
    assert claim_one().entry_ids == ids[1:]


def test_commands_need_no_room_and_do_not_wait_for_messages_before_them():
    for number in range(20):
        received(a_message(user_id=f"u{number}", channel_id=f"c{number}"))
    row = received(a_message("/status", user_id="u9", channel_id="c9"))
    assert claim_one(limit=0).entry_ids == [row.pk]


def test_a_worker_full_of_commands_takes_none():
    received("/status")
    assert claim(limit=5, aside_limit=0) == []
    assert claim(limit=5, aside_limit=1)


def test_messages_around_a_command_are_one_turn():
    ids = [received(text).pk for text in ("one", "/status", "two")]
    answer(claim_one(limit=0))
    assert claim_one().entry_ids == [ids[0], ids[2]]


def test_a_command_of_a_dead_worker_is_answered_once():
    received("/help")
    first = claim_one()
    abandon(now=later(seconds=31))
    second = claim_one(now=later(seconds=32))
    assert answer(second)
    assert not answer(first)
    assert OutboxMessage.objects.count() == 1
    assert_balanced()


def test_a_command_goes_along_when_its_conversation_moves():
    received(a_message("hello", user_id="u1", channel_id="c1"))
    running = claim_one()
    received(a_message("/status", user_id="u1", channel_id="c1"))
    aside = claim_one()
    link(("web", "u1"))
    assert set(Turn.objects.filter(state=TurnState.RUNNING).values_list("lane", flat=True)) == {"person:ada"}
    assert answer(aside)
    assert finish(running)
    assert_balanced()


def test_two_workers_never_answer_a_command_twice():
    for number in range(10):
        received(a_message("/help", user_id=f"u{number}", channel_id=f"c{number}"))
    results = at_once(lambda: claim(worker_id="w1"), lambda: claim(worker_id="w2"))
    lanes = [turn.lane for result in results for turn in result]
    assert len(lanes) == len(set(lanes)) == 10


# -- stop ----


def test_stop_ends_what_runs_and_its_late_result_is_refused():
    row = received("a long story")
    running = claim_one()
    assert command("/stop") == "Stopped."
    assert stopped(row)
    assert Turn.objects.get(pk=running.id).state == TurnState.CANCELLED
    assert turns.renew(worker_id="worker-1", turn_ids=[running.id], lease=LEASE, now=NOW) == {running.id}
    assert not finish(running, "once upon a time")
    assert not fail(running)
    assert claim(now=later(hours=1)) == []
    assert send_all() == ["Stopped."]
    assert_balanced()


def test_what_was_stopped_stays_said():
    row = received("a long story")
    claim_one()
    command("/stop")
    said = HistoryMessage.objects.order_by("id").values_list("role", "kind", "text")
    assert list(said) == [
        (Role.USER, HistoryKind.CHAT, "a long story"),
        (Role.USER, HistoryKind.COMMAND, "/stop"),
        (Role.ASSISTANT, HistoryKind.COMMAND, "Stopped."),
    ]
    assert row.session_id
    shown = sessions.history(session_pk=row.session_id, max_messages=10)
    assert [item.text for item in shown] == ["a long story"]


def test_what_waits_behind_is_stopped_too_and_what_comes_after_goes_on():
    rows = [received("one")]
    claim_one()
    rows += [received(text) for text in ("two", "three")]
    asked = received("/stop")
    after = received("four")
    assert answer(claim_one(limit=0))
    assert entry(asked.pk).outcome == Outcome.ANSWERED
    assert all(stopped(row) for row in rows)
    assert claim_one().entry_ids == [after.pk]
    assert_balanced()


def test_a_turn_that_began_after_stop_was_said_keeps_what_was_said_after():
    first = received("one")
    received("/stop")
    second = received("two")
    together = claim_one(aside_limit=0)
    assert together.entry_ids == [first.pk, second.pk]
    answer(claim_one(limit=0))
    assert stopped(first)
    assert not finish(together)
    assert claim_one().entry_ids == [second.pk]


def test_stop_while_nothing_runs_says_so():
    answered("hello")
    assert command("/stop") == "Nothing is running."
    assert command("/stop") == "Nothing is running."


def test_the_second_stop_finds_nothing():
    received("a long story")
    claim_one()
    assert command("/stop") == "Stopped."
    assert command("/stop") == "Nothing is running."


def test_a_waiting_retry_is_stopped():
    row = received("hello")
    fail(claim_one(), is_transient=True)
    assert command("/stop") == "Stopped."
    assert stopped(row)


def test_stop_reaches_the_run_that_was_started_on_another_platform():
    for message in (a_message("hi", user_id="u1"), a_message("hi", platform="slack", account="desk", user_id="U1")):
        answered(message)
    link(("web", "u1"), ("slack", "U1"))
    row = received(a_message("a long story", user_id="u1"))
    running = claim_one()
    assert command("/stop", platform="slack", account="desk", user_id="U1") == "Stopped."
    assert stopped(row)
    assert not finish(running)


def test_stop_touches_nobody_else():
    received(a_message("mine", user_id="u1", channel_id="c1"))
    running = claim_one()
    assert command("/stop", user_id="u2", channel_id="c2") == "Nothing is running."
    assert finish(running)


def test_what_the_gate_would_drop_is_left_to_it():
    spoken = received(a_group_message("@bot hello"))
    chatter = received(a_message("what a day", channel_id="group-1", chat_type=ChatType.GROUP))
    running = claim_one()
    assert running.entry_ids == [spoken.pk, chatter.pk]
    received(a_group_message("/stop"))
    answer(claim_one(limit=0))
    assert stopped(spoken)
    assert entry(chatter.pk).state == EntryState.PENDING
    assert "what a day" not in HistoryMessage.objects.values_list("text", flat=True)


def test_what_a_human_has_in_hand_is_left_to_them():
    answered("hello")
    handling.hand_to(session_id="bot_web_user-1", handler=Handler.HUMAN, actor=ALICE, now=NOW)
    row = received("are you there?")
    assert command("/stop") == "Nothing is running."
    assert entry(row.pk).state == EntryState.PENDING


def test_a_run_that_staff_look_at_first_is_not_the_persons_to_stop():
    row = answered("hello")
    journal.replay(entry_id=row.pk, mode=RunMode.HOLD, actor=ALICE, reason="", now=NOW)
    running = claim_one()
    assert command("/stop") == "Nothing is running."
    assert finish(running)


def test_a_stopped_retry_closes_its_case():
    item = parked("hello")
    assert command("/retry") == "I try your last failed message again."
    running = claim_one()
    assert command("/stop") == "Stopped."
    assert DLQItem.objects.get(pk=item.pk).state == DLQState.RESOLVED
    assert not finish(running)
    assert_balanced()


def test_a_turn_ends_or_is_stopped_and_never_both():
    for number in range(8):
        user = {"user_id": f"u{number}", "channel_id": f"c{number}"}
        row = received(a_message("a long story", **user))
        running = claim_one(limit=10, aside_limit=0)
        received(a_message("/stop", **user))
        aside = claim_one(limit=0)
        did_end, did_answer = at_once(partial(finish, running, "the end"), partial(answer, aside))
        assert did_answer is True
        ended = Turn.objects.get(pk=running.id).state
        assert did_end is (ended == TurnState.FINISHED)
        assert stopped(row) is (ended == TurnState.CANCELLED)
    assert_balanced()


def test_a_message_is_stopped_or_runs_and_is_never_half_claimed():
    for number in range(8):
        user = {"user_id": f"u{number}", "channel_id": f"c{number}"}
        row = received(a_message("a long story", **user))
        received(a_message("/stop", **user))
        aside = claim_one(limit=0)
        at_once(partial(claim, aside_limit=0), partial(answer, aside))
        assert stopped(row)
        assert not Turn.objects.filter(state=TurnState.RUNNING).exists()
    assert_balanced()


# -- status ----


def test_status_says_what_runs_and_what_waits():
    assert command("/status") == "Nothing is running."
    received("one")
    claim_one()
    assert command("/status") == "I have been working on an answer for 0 s."
    received("two")
    assert command("/status") == "I have been working on an answer for 0 s. 1 message waits."
    received("three")
    assert command("/status") == "I have been working on an answer for 0 s. 2 messages wait."


@pytest.mark.parametrize(("handler", "words"), [(Handler.HUMAN, "member of the team"), (Handler.PAUSED, "paused")])
def test_status_says_who_has_the_conversation(handler, words):
    answered("hello")
    handling.hand_to(session_id="bot_web_user-1", handler=handler, actor=ALICE, now=NOW)
    assert words in command("/status")


# -- who and what ----


def test_help_names_what_can_be_used_here():
    direct = command("/help")
    assert all(f"/{name} – " in direct for name in ("help", "new", "stop", "status", "retry", "whoami", "link"))
    received(a_group_message("/help"))
    turn = claim_one()
    answer(turn)
    in_group = OutboxMessage.objects.get(turn=turn.id).text
    assert "/stop" in in_group
    assert "/link" not in in_group


def test_whoami_names_the_contact_and_in_private_the_person():
    ada = {"user_id": "u1", "channel_id": "c1"}
    assert command("/whoami", **ada) == "You are web:u1."
    assert command("/whoami", display_name="Ada\nLove", **ada) == "You are Ada Love (web:u1)."
    link(("web", "u1"))
    assert command("/whoami", **ada) == "You are web:u1. Your accounts are connected as ada."
    received(a_group_message("/whoami", user_id="u1"))
    turn = claim_one()
    answer(turn)
    assert "ada" not in OutboxMessage.objects.get(turn=turn.id).text


# -- retry ----


def test_retry_runs_the_last_failed_message_as_staff_would():
    older, newer = parked("one"), parked("two")
    assert command("/retry") == "I try your last failed message again."
    turn = claim_one()
    assert turn.entry_ids == [newer.entry_id]
    finish(turn, "there you are")
    newer.refresh_from_db()
    assert (newer.state, entry(newer.entry_id).outcome) == (DLQState.RESOLVED, Outcome.ANSWERED)
    assert entry(newer.entry_id).requested_by == "contact:web:user-1"
    older.refresh_from_db()
    assert older.state == DLQState.OPEN
    assert_balanced()


def test_retry_is_for_ones_own_messages():
    parked(a_message("mine", user_id="u1", channel_id="c1"))
    assert command("/retry", user_id="u2", channel_id="c2") == "Nothing of yours has failed."
    group = parked(a_group_message("hers", user_id="u1"))
    received(a_group_message("/retry", user_id="u2"))
    turn = claim_one(limit=0)
    answer(turn)
    assert OutboxMessage.objects.get(turn=turn.id).text == "Nothing of yours has failed."
    assert DLQItem.objects.get(pk=group.pk).state == DLQState.OPEN


def test_a_message_that_kills_workers_is_not_the_persons_to_retry():
    received("poison")
    for number in (1, 2):
        now = later(seconds=40 * number)
        claim_one(now=now)
        abandon(now=now + timedelta(seconds=31))
    assert command("/retry") == "Nothing of yours has failed."


def test_who_retries_in_vain_hears_of_it_again():
    parked("hello")
    assert send_all() == [TROUBLE]
    command("/retry")
    fail(claim_one())
    assert send_all() == ["I try your last failed message again.", TROUBLE]
    assert DLQItem.objects.get().state == DLQState.OPEN
    assert_balanced()
