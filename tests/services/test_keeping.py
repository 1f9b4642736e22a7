"""Leases on adapters, the ledger, and housekeeping."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from botsrt.core.states import AdapterStatus, DLQState, EntryState, TurnState
from botsrt.models import AdapterState, BotSession, DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import dlq, housekeeping, ledger, workers
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
