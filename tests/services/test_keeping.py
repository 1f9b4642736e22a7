"""Leases on adapters, the ledger, and housekeeping."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from botsrt.core.states import AdapterStatus, DLQState, EntryState, RunMode, TurnState
from botsrt.models import AdapterState, BotSession, DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import dlq, housekeeping, journal, ledger, workers
from botsrt.services.housekeeping import Kind
from botsrt.services.ledger import Ledger
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    a_bot,
    answered,
    claim_one,
    claim_sends,
    later,
    parked,
    received,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


# -- leases ----


def lease(worker_id: str, *, now=NOW, accounts=None) -> list[str]:
    leased = workers.lease_adapters(worker_id=worker_id, accounts=accounts, lease=LEASE, now=now)
    return [bot.account for bot in leased]


def test_one_worker_holds_a_bot_until_its_lease_runs_out():
    assert lease("w1") == ["shop"]
    assert lease("w2") == []
    assert lease("w1", now=later(seconds=20)) == ["shop"]
    assert lease("w2", now=later(seconds=40)) == []
    assert lease("w2", now=later(seconds=51)) == ["shop"]
    assert lease("w1", now=later(seconds=52)) == []


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_at_once_one_gets_the_bot():
    results = at_once(partial(lease, "w1"), partial(lease, "w2"))
    assert sorted(results) == [[], ["shop"]]


def test_a_lease_that_is_given_back_is_free_at_once():
    lease("w1")
    workers.release_adapter(worker_id="w1", account="shop", now=NOW)
    assert lease("w2") == ["shop"]


def test_the_dead_of_this_host_leave_everything_at_once():
    workers.register(worker_id="w1", host="h", pid=1, version="1", lease=LEASE, now=NOW)
    lease("w1")
    received()
    claim_one(worker_id="w1")
    assert workers.peers_on(host="h", except_worker_id="w2") == {"w1": 1}
    workers.bury(worker_ids=["w1"], now=later(seconds=1))
    assert lease("w2", now=later(seconds=1)) == ["shop"]
    assert Turn.objects.get().lease_expires_at == later(seconds=1)
    assert workers.peers_on(host="h", except_worker_id="w2") == {}


def test_reports_of_a_worker_that_lost_the_lease_are_ignored():
    lease("w1")
    workers.report_adapter(worker_id="w2", account="shop", state=AdapterStatus.FAILED, now=NOW)
    assert AdapterState.objects.get().state == AdapterStatus.STOPPED
    workers.report_adapter(worker_id="w1", account="shop", state=AdapterStatus.RUNNING, now=NOW)
    assert AdapterState.objects.get().state == AdapterStatus.RUNNING


# -- ledger ----


def check(*, now=NOW) -> Ledger:
    return ledger.check(since=None, lease=LEASE, now=now)


def _without_outbox() -> None:
    OutboxMessage.objects.all().delete()


def _without_history() -> None:
    HistoryMessage.objects.all().delete()


def _without_case() -> None:
    DLQItem.objects.all().delete()


def _of_a_removed_bot() -> None:
    received()
    JournalEntry.objects.filter(state=EntryState.PENDING).update(account="gone")


def _claimed_without_turn() -> None:
    received()
    claim_one()
    Turn.objects.filter(state=TurnState.RUNNING).update(state=TurnState.FAILED)


def _turn_without_entry() -> None:
    received()
    claim_one()
    JournalEntry.objects.filter(state=EntryState.CLAIMED).update(state=EntryState.PENDING)


def _two_owners() -> None:
    JournalEntry.objects.filter(state=EntryState.DEAD).update(state=EntryState.PENDING, outcome="")


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (_without_outbox, "answered entries without a reply"),
        (_without_history, "answered entries that the history does not have"),
        (_without_case, "dead entries without an open dead letter item"),
        (_two_owners, "open dead letter items whose entry is not dead"),
        (_of_a_removed_bot, "pending entries of a bot that does not exist"),
        (_claimed_without_turn, "claimed entries without a running turn"),
        (_turn_without_entry, "running turns without an entry"),
    ],
)
def test_every_leak_is_named(plant: Callable[[], None], rule: str):
    answered("one")
    parked("two")
    assert check().is_balanced
    plant()
    report = check()
    assert not report.is_balanced
    assert rule in [leak.rule for leak in report.leaks]


def test_an_outcome_that_does_not_fit_is_a_leak():
    answered()
    JournalEntry.objects.update(outcome="dead")
    assert not check().is_balanced


def test_leases_that_ran_out_long_ago_are_leaks():
    received()
    claim_one()
    assert check(now=later(seconds=59)).is_balanced
    assert not check(now=later(seconds=61)).is_balanced


def test_sends_that_hang_are_leaks():
    answered()
    claim_sends()
    assert not check(now=later(seconds=61)).is_balanced


# -- housekeeping ----


def keep_house(*, now=NOW, max_size=50_000, dlq_max_size=10_000) -> housekeeping.Report:
    return housekeeping.run(
        now=now, max_size=max_size, ttl=timedelta(days=30), dlq_max_size=dlq_max_size, dlq_ttl=timedelta(days=7)
    )


def test_completed_entries_are_removed_when_they_are_old():
    answered()
    assert keep_house(now=later(days=29)).entries_removed == 0
    assert keep_house(now=later(days=31)).entries_removed == 1
    assert HistoryMessage.objects.count() == 2, "the conversation stays"
    assert BotSession.objects.count() == 1


def test_nothing_unfinished_is_ever_removed():
    parked("failed")
    received("waits")
    assert keep_house(now=later(days=999), max_size=1).entries_removed == 0
    assert JournalEntry.objects.count() == 2
    assert DLQItem.objects.count() == 1


def test_beyond_its_size_the_journal_loses_the_oldest_completed_ones():
    rows = [answered(str(number), now=later(seconds=number)) for number in range(5)]
    assert keep_house(now=later(minutes=1), max_size=2).entries_removed == 3
    assert list(JournalEntry.objects.order_by("id").values_list("pk", flat=True)) == [row.pk for row in rows[3:]]


def test_what_is_kept_for_ever_is_still_no_more_than_fits():
    for _ in range(5):
        answered()
    send_all()
    report = housekeeping.run(now=later(minutes=1), max_size=2, ttl=None, dlq_max_size=10, dlq_ttl=None)
    assert report.entries_removed == 3


def test_a_journal_full_of_unfinished_work_raises_an_alarm(caplog):
    for number in range(3):
        received(str(number))
    assert keep_house(max_size=2).is_journal_full
    assert "the journal is full: 3 unfinished entries" in caplog.text


def test_closed_items_are_removed_and_open_ones_stay():
    closed, still_open = parked("one"), parked("two")
    dlq.discard(item_id=closed.pk, actor=ALICE, reason="spam", now=NOW)
    assert keep_house(now=later(days=8)).dlq_items_removed == 1
    assert DLQItem.objects.get().pk == still_open.pk
    assert DLQItem.objects.get().state == DLQState.OPEN


# -- retention: each kind after its own period ----

DAYS = {kind: timedelta(days=30) for kind in Kind}


def due(*, now=NOW, periods=DAYS, max_size=50_000) -> dict[str, int]:
    found = housekeeping.preview(now=now, max_size=max_size, dlq_max_size=10_000, periods=periods)
    return {str(one.kind): one.count for one in found if one.count}


def purge(*, now=NOW, periods=DAYS, **sizes) -> dict[str, int]:
    report = housekeeping.run(
        now=now,
        max_size=sizes.get("max_size", 50_000),
        ttl=periods.get(Kind.JOURNAL),
        dlq_max_size=10_000,
        dlq_ttl=periods.get(Kind.DLQ),
        periods=periods,
    )
    return {str(kind): count for kind, count in report.removed.items() if count}


def a_month_of_rows() -> None:
    answered("one")
    send_all()
    item = parked("two")
    dlq.discard(item_id=item.pk, actor=ALICE, reason="spam", now=NOW)
    workers.register(worker_id="w1", host="h", pid=1, version="1", lease=LEASE, now=NOW)
    workers.bury(worker_ids=["w1"], now=NOW)


def test_the_preview_says_what_goes_and_the_rest_stays():
    a_month_of_rows()
    received("waits")
    assert due(now=later(days=29)) == {}
    expected = due(now=later(days=31))
    assert expected == {"journal": 1, "dlq": 1, "turns": 1, "outbox": 1, "history": 2, "workers": 1, "audit": 2}
    assert JournalEntry.objects.count() == 3
    removed = purge(now=later(days=31))
    # The entry of the closed item is free once that is gone, and turns go with their last entry.
    assert removed == {kind: 2 if kind == "journal" else expected[kind] for kind in expected if kind != "turns"}
    assert not Turn.objects.filter(entries=None).exists()
    assert JournalEntry.objects.get().state == EntryState.PENDING
    assert not HistoryMessage.objects.exists()
    assert not OutboxMessage.objects.filter(state="sent").exists()
    assert due(now=later(days=31)) == {}
    assert check(now=later(days=31)).is_balanced


def test_history_and_answers_stay_as_long_as_the_entry_that_they_belong_to():
    answered("one")
    send_all()
    periods = {Kind.HISTORY: timedelta(days=1), Kind.OUTBOX: timedelta(days=1), Kind.TURNS: timedelta(days=1)}
    assert due(now=later(days=9), periods=periods) == {}
    assert purge(now=later(days=9), periods=periods) == {}
    assert check(now=later(days=9)).is_balanced


def test_what_is_kept_for_ever_is_never_due():
    a_month_of_rows()
    assert due(now=later(days=9_999), periods={}) == {}
    assert purge(now=later(days=9_999), periods={}) == {}


def test_messages_that_were_not_sent_are_never_removed():
    answered("one")
    assert "outbox" not in due(now=later(days=99))
    purge(now=later(days=99))
    assert OutboxMessage.objects.get().state == "pending"


def test_what_is_beyond_the_size_is_told_apart():
    for number in range(5):
        answered(str(number), now=later(seconds=number))
    found = {one.kind: one for one in housekeeping.preview(now=NOW, max_size=2, dlq_max_size=10, periods=DAYS)}
    assert (found[Kind.JOURNAL].count, found[Kind.JOURNAL].excess) == (0, 3)


def test_old_ids_are_found_by_halving():
    for number in range(40):
        answered(str(number), now=later(days=number))
    assert due(now=later(days=50), periods={Kind.JOURNAL: timedelta(days=30), Kind.HISTORY: timedelta(days=30)}) == {
        "journal": 21,
        "history": 42,
    }


@pytest.mark.django_db(transaction=True)
def test_an_entry_that_staff_run_again_meanwhile_stays():
    row = answered("one")
    journal.replay(entry_id=row.pk, mode=RunMode.SEND, actor=ALICE, reason="again", now=later(days=31))
    assert purge(now=later(days=62)).get("journal") is None
    assert JournalEntry.objects.get().state == EntryState.PENDING
