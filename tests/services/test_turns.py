"""Turns: who may run what, and every way a turn can end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from botsrt.core.states import DLQReason, DLQState, EntryState, OutboxState, Outcome, RunMode, TurnState
from botsrt.models import BotSession, DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import bots, journal, materials, turns
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    SHAPE,
    TROUBLE,
    WORKER,
    a_bot,
    a_group_message,
    a_message,
    abandon,
    answered,
    claim,
    claim_one,
    claim_sends,
    entry,
    fail,
    finish,
    later,
    received,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


# -- claim ----


def test_a_message_is_claimed_once():
    row = received()
    turn = claim_one()
    assert turn.entry_ids == [row.pk]
    assert claim() == []
    assert entry(row.pk).state == EntryState.CLAIMED


def test_messages_that_wait_in_one_chat_are_one_turn():
    ids = [received(text).pk for text in ("one", "two", "three")]
    assert claim_one().entry_ids == ids


def test_a_turn_takes_so_many_and_leaves_the_rest():
    for number in range(5):
        received(str(number))
    turn = claim_one(max_entries_per_turn=3)
    assert [item.message.text for item in turn.entries] == ["0", "1", "2"]
    finish(turn)
    assert [item.message.text for item in claim_one(max_entries_per_turn=3).entries] == ["3", "4"]


def test_two_chats_of_one_lane_are_never_one_turn():
    received(a_message("here", channel_id="c1"))
    received(a_message("there", channel_id="c2"))
    turn = claim_one()
    assert turn.route.channel_id == "c1"
    finish(turn)
    assert claim_one().route.channel_id == "c2"


def test_a_running_lane_waits_and_another_does_not():
    received(a_message(user_id="ann", channel_id="ann"))
    claim_one()
    received(a_message(user_id="ann", channel_id="ann"))
    received(a_message(user_id="bob", channel_id="bob"))
    assert claim_one().lane == "bot_web_bob"


def test_the_oldest_lane_comes_first():
    for number, user in enumerate(["ann", "bob", "cid"]):
        received(a_message(user_id=user, channel_id=user), now=later(seconds=number))
    lanes = [claim_one(limit=1, now=later(seconds=9)).lane for _ in range(3)]
    assert lanes == ["bot_web_ann", "bot_web_bob", "bot_web_cid"]


def test_messages_of_a_disabled_bot_wait():
    received()
    bots.change(account="shop", shape=SHAPE, changes=bots.Changes(is_enabled=False), actor=ALICE, now=NOW)
    assert claim() == []
    bots.change(account="shop", shape=SHAPE, changes=bots.Changes(is_enabled=True), actor=ALICE, now=NOW)
    assert claim_one()


def test_a_worker_of_some_bots_claims_for_those_alone():
    received()
    assert claim(accounts=["other"]) == []
    assert claim(accounts=["shop"])


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_claim_one_lane():
    for number in range(10):
        received(a_message(user_id=f"u{number}", channel_id=f"c{number}"))
    results = at_once(lambda: claim(worker_id="w1"), lambda: claim(worker_id="w2"))
    lanes = [turn.lane for result in results for turn in result]
    assert len(lanes) == len(set(lanes)) == 10


# -- finish ----


def test_an_answer_history_and_outbox_come_together():
    row = answered("Hello", "Hi")
    assert (row.state, row.outcome) == (EntryState.COMPLETED, Outcome.ANSWERED)
    assert list(HistoryMessage.objects.order_by("id").values_list("role", "text")) == [
        ("user", "Hello"),
        ("assistant", "Hi"),
    ]
    assert OutboxMessage.objects.get().channel_id == "chat-1"
    assert Turn.objects.get().state == TurnState.FINISHED


def test_a_late_result_of_an_abandoned_turn_is_refused():
    received()
    turn = claim_one()
    abandon(now=later(seconds=31))
    again = claim_one(now=later(seconds=32))
    assert not finish(turn, "late", now=later(seconds=33))
    assert not HistoryMessage.objects.exists()
    assert finish(again, "good", now=later(seconds=34))
    assert OutboxMessage.objects.get().text == "good"


def test_a_result_is_refused_once_the_session_has_moved_on():
    received()
    turn = claim_one()
    BotSession.objects.update(epoch=2)
    assert not finish(turn)
    assert Turn.objects.get().state == TurnState.RUNNING
    assert turns.release(turn_id=turn.id, available_at=NOW, now=NOW)


def test_saying_nothing_is_silent():
    row = received()
    finish(claim_one(), "")
    assert entry(row.pk).outcome == Outcome.SILENT
    assert not OutboxMessage.objects.exists()


def test_dropped_messages_are_no_part_of_the_conversation():
    kept, dropped = received(a_group_message("kept")), received(a_group_message("dropped"))
    finish(claim_one(), "Hi", dropped={dropped.pk: "not_addressed"})
    assert (entry(kept.pk).outcome, entry(dropped.pk).outcome) == (Outcome.ANSWERED, Outcome.SILENT)
    assert entry(dropped.pk).outcome_reason == "not_addressed"
    assert "dropped" not in HistoryMessage.objects.values_list("text", flat=True)


def test_an_answer_to_an_old_message_is_held():
    row = received()
    finish(claim_one(now=later(hours=7)), now=later(hours=7))
    assert entry(row.pk).state == EntryState.HELD
    assert OutboxMessage.objects.get().state == OutboxState.HELD
    assert claim_sends(now=later(hours=7)) == []


def test_a_reply_for_review_is_held():
    row = answered()
    journal.replay(entry_id=row.pk, mode=RunMode.HOLD, actor=ALICE, reason="", now=NOW)
    finish(claim_one(), "Reviewed")
    assert OutboxMessage.objects.get(text="Reviewed").state == OutboxState.HELD
    # The message itself stands in the history once, however often it is answered.
    assert HistoryMessage.objects.filter(role="user").count() == 1


# -- fail ----


def test_a_transient_failure_is_tried_again_with_growing_waits():
    row = received()
    now, waits = NOW, []
    for _ in range(4):
        assert fail(claim_one(now=now), is_transient=True, now=now)
        waits.append((entry(row.pk).available_at - now).total_seconds())
        now = entry(row.pk).available_at
    for wait, least in zip(waits, (5, 300, 1_800, 7_200), strict=True):
        assert least <= wait <= least * 1.2
    assert fail(claim_one(now=now), is_transient=True, now=now)
    assert entry(row.pk).state == EntryState.DEAD
    assert DLQItem.objects.get().attempts == 5


def test_retry_after_is_honoured():
    row = received()
    fail(claim_one(), is_transient=True, retry_after=timedelta(minutes=10))
    assert entry(row.pk).available_at == later(minutes=10)


def test_a_permanent_failure_is_parked_at_once():
    row = received()
    fail(claim_one())
    assert entry(row.pk).state == EntryState.DEAD
    assert DLQItem.objects.get().reason == DLQReason.FAILED


def test_a_timeout_is_parked_and_says_so():
    received()
    fail(claim_one(), is_timeout=True)
    assert DLQItem.objects.get().reason == DLQReason.TIMED_OUT
    assert Turn.objects.get().state == TurnState.TIMED_OUT


def test_a_person_is_told_once():
    row = received()
    fail(claim_one(), is_transient=True)
    assert not OutboxMessage.objects.exists(), "the next try is 5 s away"
    now = later(seconds=7)
    for _ in range(2):
        fail(claim_one(now=now), is_transient=True, now=now)
        now = entry(row.pk).available_at
    assert OutboxMessage.objects.get().text == TROUBLE


def test_a_failed_turn_over_several_messages_goes_on_one_by_one():
    ids = [received(text).pk for text in ("one", "bad", "three")]
    fail(claim_one())
    assert not DLQItem.objects.exists()
    for entry_id in ids:
        turn = claim_one()
        assert turn.entry_ids == [entry_id]
        if entry_id == ids[1]:
            fail(turn)
        else:
            finish(turn)
    assert [entry(entry_id).outcome for entry_id in ids] == [Outcome.ANSWERED, Outcome.DEAD, Outcome.ANSWERED]


def test_a_waiting_retry_does_not_block_its_lane():
    row = received("first")
    fail(claim_one(), is_transient=True)
    new = received("second", now=later(seconds=1))
    turn = claim_one(now=later(seconds=1))
    assert turn.entry_ids == [new.pk]
    finish(turn, now=later(seconds=2))
    due = later(seconds=8)
    third = received("third", now=due)
    assert claim_one(now=due).entry_ids == [row.pk, third.pk], "the retry is taken along when it is due"


# -- release, renew, abandon ----


def test_handing_back_uses_up_no_attempt():
    row = received()
    assert turns.release(turn_id=claim_one().id, available_at=NOW, now=NOW)
    assert (entry(row.pk).state, entry(row.pk).attempts, entry(row.pk).deaths) == (EntryState.PENDING, 0, 0)
    assert claim_one()


def test_a_renewed_turn_is_not_abandoned_until_its_deadline():
    received()
    turn = claim_one(claim_timeout=timedelta(seconds=60))
    assert turns.renew(worker_id=WORKER, turn_ids=[turn.id], lease=LEASE, now=later(seconds=20)) == set()
    assert abandon(now=later(seconds=31)) == 0
    assert turns.renew(worker_id=WORKER, turn_ids=[turn.id], lease=LEASE, now=later(seconds=61)) == {turn.id}
    assert abandon(now=later(seconds=61)) == 1


def test_a_turn_that_ended_well_is_not_lost():
    received()
    turn = claim_one()
    finish(turn)
    assert turns.renew(worker_id=WORKER, turn_ids=[turn.id], lease=LEASE, now=NOW) == set()


def test_a_message_that_kills_two_workers_is_parked():
    row = received()
    for number in (1, 2):
        now = later(seconds=40 * number)
        claim_one(now=now)
        abandon(now=now + timedelta(seconds=31))
    assert entry(row.pk).state == EntryState.DEAD
    item = DLQItem.objects.get()
    assert (item.reason, item.state) == (DLQReason.POISON, DLQState.OPEN)
    assert claim(now=later(hours=1)) == []


def test_a_dead_worker_takes_no_neighbour_of_the_poison_with_it():
    ids = [received(text).pk for text in ("one", "poison")]
    claim_one()
    abandon(now=later(seconds=31))
    first = claim_one(now=later(seconds=32))
    assert first.entry_ids == ids[:1]
    finish(first, now=later(seconds=33))
    claim_one(now=later(seconds=34))
    abandon(now=later(seconds=70))
    assert [entry(entry_id).state for entry_id in ids] == [EntryState.COMPLETED, EntryState.DEAD]
    assert JournalEntry.objects.count() == 2


# -- cost ----


def test_the_hot_calls_cost_few_queries(django_assert_max_num_queries):
    received()
    with django_assert_max_num_queries(10):
        turn = claim_one()
    with django_assert_max_num_queries(6):
        materials.gather(turn=turn, max_history=100, refused_for=timedelta(days=1), now=later())
    with django_assert_max_num_queries(9):
        finish(turn)
    with django_assert_max_num_queries(5):
        (claimed,) = claim_sends()
    assert claimed
