"""Bulk operations: every row once, whoever does the work and whoever dies doing it."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from botsrt import tasks
from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.states import BulkItemState, BulkState, BulkVerb, DLQState, EntryState, OutboxState, RunMode
from botsrt.models import AuditEvent, BulkItem, BulkOperation, DLQItem, JournalEntry, OutboxMessage
from botsrt.services import bulk, dlq, housekeeping, journal
from botsrt.services.bulk import CANARY_STEPS, LEASE, MAX_ITEMS, PATIENCE, Progress
from botsrt.services.claimed import ClaimedTurn
from tests.factories import ALICE, BOB, NOW, a_bot, a_message, answered, claim, claim_one, fail, finish, later, parked
from tests.services.races import at_once

pytestmark = pytest.mark.django_db

ME, OTHER = "host:1:me", "host:2:other"


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def dead(count: int) -> list[int]:
    """Items of ``count`` people."""
    return [parked(a_message(f"m{number}", user_id=f"u{number}")).pk for number in range(count)]


def begun(ids: list[int], verb: BulkVerb = BulkVerb.RETRY, **fields: Any) -> int:
    return bulk.begin(verb=verb, object_ids=ids, actor=ALICE, now=NOW, **fields)


def work(operation_id: int, *, runner: str = ME, rows: int = 1_000, now=NOW) -> Progress:
    """Go on until nothing moves, at most ``rows`` times."""
    progress = Progress.MOVED
    while progress is Progress.MOVED and rows:
        progress, rows = bulk.advance(operation_id=operation_id, runner_id=runner, now=now), rows - 1
    return progress


def states(operation_id: int) -> Counter[str]:
    return Counter(BulkItem.objects.filter(operation=operation_id).values_list("state", flat=True))


def row(operation_id: int) -> BulkOperation:
    return BulkOperation.objects.get(pk=operation_id)


def answer(count: int) -> None:
    turns = claim(limit=100)
    assert len(turns) == count
    answer_all(turns)


def answer_all(turns: list[ClaimedTurn]) -> None:
    for turn in turns:
        assert finish(turn, "Hi")


# -- what it does ----


def test_each_row_is_done_by_its_service_with_its_own_event_and_those_that_cannot_say_why():
    one, two, three = dead(3)
    dlq.discard(item_id=three, actor=BOB, reason="spam", now=NOW)
    operation = begun([one, two, three, 999], reason="mended")
    assert DLQItem.objects.filter(state=DLQState.RETRYING).count() == 0, "Nothing is done by beginning."
    assert work(operation) is Progress.OVER
    assert row(operation).state == BulkState.FINISHED
    assert states(operation) == {BulkItemState.DONE: 2, BulkItemState.SKIPPED: 2}
    why = dict(BulkItem.objects.filter(state=BulkItemState.SKIPPED).values_list("object_id", "detail"))
    assert "discarded already, by bob" in why[three]
    assert why[999] == "There is no dead letter item 999."
    events = AuditEvent.objects.filter(verb="dlq.retry").values_list("object_id", "actor", "reason")
    assert set(events) == {(str(one), "alice", "mended"), (str(two), "alice", "mended")}
    assert list(AuditEvent.objects.filter(object_kind="operation").order_by("id").values_list("verb", flat=True)) == [
        "bulk.begin",
        "bulk.finish",
    ]


def test_what_was_never_readable_can_only_be_discarded():
    journal.receive_unreadable(
        platform="web", account="shop", event_id="e", raw={}, error=UnreadableUpdate("x"), now=NOW, max_raw_bytes=10
    )
    ids = list(DLQItem.objects.values_list("pk", flat=True))
    work(retry := begun(ids))
    work(discard := begun(ids, BulkVerb.DISCARD, reason="junk"))
    assert (states(retry), states(discard)) == ({BulkItemState.SKIPPED: 1}, {BulkItemState.DONE: 1})


def test_entries_are_replayed_in_the_mode_that_was_asked_for():
    entries = [answered(a_message("a", user_id="a")), answered(a_message("b", user_id="b"))]
    work(begun([entry.pk for entry in entries], BulkVerb.REPLAY, options={"mode": RunMode.HOLD}))
    rows = JournalEntry.objects.filter(state=EntryState.PENDING)
    assert set(rows.values_list("run_mode", "requested_by")) == {(RunMode.HOLD, "alice")}
    assert rows.count() == 2


def test_outgoing_messages_are_decided():
    answered("a")
    OutboxMessage.objects.update(state=OutboxState.UNKNOWN)
    ids = list(OutboxMessage.objects.values_list("pk", flat=True))
    work(begun(ids, BulkVerb.ARRIVED))
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {OutboxState.SENT}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"object_ids": []}, "select at least one"),
        ({"object_ids": list(range(MAX_ITEMS + 1))}, "10,001 are too many; 10,000 are possible"),
        ({"verb": BulkVerb.DISCARD, "reason": "  "}, "say why the messages are given up"),
        ({"verb": BulkVerb.REPLAY}, "mode: is one of send, hold"),
        ({"verb": BulkVerb.REPLAY, "options": {"mode": "burn"}}, "mode: is one of send, hold"),
        ({"verb": BulkVerb.DISCARD, "reason": "x", "is_canary": True}, "only retries can go step by step"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_stored(fields: dict[str, Any], says: str):
    asked: dict[str, Any] = {"verb": BulkVerb.RETRY, "object_ids": [1], "actor": ALICE, "now": NOW} | fields
    with pytest.raises(InvalidInput, match=says):
        bulk.begin(**asked)
    assert not BulkOperation.objects.exists()


def test_a_row_that_is_named_twice_is_one_row():
    (one,) = dead(1)
    assert row(begun([one, one])).total == 1


# -- a canary ----


def test_a_canary_takes_1_5_25_and_the_rest_and_waits_for_the_answers_of_each_step():
    ids = dead(40)
    operation = begun(ids, is_canary=True)
    assert row(operation).steps == [1, 5, 25, 9]
    for size in CANARY_STEPS:
        assert work(operation) is Progress.WAITS
        running = DLQItem.objects.filter(state=DLQState.RETRYING).count()
        assert running == size, "The next step waits for the answers of this one."
        answer(size)
    assert work(operation) is Progress.OVER
    assert (row(operation).state, states(operation)) == (BulkState.FINISHED, {BulkItemState.DONE: 40})


def test_a_canary_stops_when_a_step_fails_the_same_way_and_leaves_the_rest_alone():
    ids = dead(40)
    operation = begun(ids, is_canary=True)
    work(operation)
    answer(1)
    work(operation)
    one, *others = claim(limit=100)
    fail(one)
    answer_all(others)
    assert work(operation) is Progress.OVER
    assert row(operation).state == BulkState.STOPPED
    assert row(operation).note == "1 of the 5 in this step failed the same way again."
    assert states(operation) == {BulkItemState.DONE: 6, BulkItemState.WAITING: 34}
    assert DLQItem.objects.filter(state=DLQState.OPEN).count() == 35
    assert AuditEvent.objects.get(verb="bulk.halt").after["why"] == row(operation).note


def test_a_canary_goes_on_when_one_of_a_step_fails_in_another_way_and_stops_when_all_do():
    operation = begun(dead(12), is_canary=True)
    work(operation)
    fail(claim_one(), text="quite another trouble", error_class="OtherError")
    assert work(operation) is Progress.OVER
    assert row(operation).note == "All 1 in this step failed, in another way than before."
    bulk.resume(operation_id=operation, actor=BOB, now=NOW)
    assert work(operation) is Progress.WAITS
    one, *others = claim(limit=100)
    fail(one, text="quite another trouble", error_class="OtherError")
    answer_all(others)
    assert work(operation) is Progress.OVER
    assert (row(operation).state, row(operation).note) == (BulkState.FINISHED, "")


def test_a_canary_does_not_wait_for_ever():
    operation = begun(dead(3), is_canary=True)
    assert work(operation) is Progress.WAITS
    assert work(operation, now=later(seconds=PATIENCE.total_seconds() - 1)) is Progress.WAITS
    assert work(operation, now=later(seconds=PATIENCE.total_seconds() + 1)) is Progress.OVER
    assert row(operation).note == "1 of the 1 in this step has no result after 10 min."


# -- stopping and going on ----


def test_it_stops_between_two_rows_and_goes_on_with_the_rest():
    operation = begun(dead(5))
    work(operation, rows=2)
    bulk.stop(operation_id=operation, actor=BOB, now=NOW)
    assert work(operation) is Progress.OVER
    assert states(operation) == {BulkItemState.DONE: 2, BulkItemState.WAITING: 3}
    with pytest.raises(Conflict, match="stopped already, by bob"):
        bulk.stop(operation_id=operation, actor=ALICE, now=NOW)
    bulk.resume(operation_id=operation, actor=ALICE, now=NOW)
    with pytest.raises(Conflict, match="running already"):
        bulk.resume(operation_id=operation, actor=BOB, now=NOW)
    work(operation, runner=OTHER)
    assert (row(operation).state, states(operation)) == (BulkState.FINISHED, {BulkItemState.DONE: 5})
    with pytest.raises(Conflict, match="finished already"):
        bulk.stop(operation_id=operation, actor=BOB, now=NOW)
    with pytest.raises(NotFound, match="no bulk operation 4711"):
        bulk.stop(operation_id=4711, actor=BOB, now=NOW)


# -- runners ----


def test_one_runner_holds_it_until_its_lease_runs_out_or_it_lets_go():
    operation = begun(dead(4))
    work(operation, runner=ME, rows=1)
    assert work(operation, runner=OTHER) is Progress.OVER
    assert work(operation, runner=OTHER, rows=1, now=NOW + LEASE + timedelta(seconds=1)) is Progress.MOVED
    assert work(operation, runner=ME, now=NOW + LEASE + timedelta(seconds=1)) is Progress.OVER, "It came back too late."
    bulk.release(runner_id=OTHER)
    work(operation, runner=ME)
    assert states(operation) == {BulkItemState.DONE: 4}


def test_a_row_whose_transaction_is_cut_is_done_again_and_only_once(monkeypatch: pytest.MonkeyPatch):
    operation = begun(dead(3))
    real, cut = dlq.retry, iter([False, True, False, False])

    def retry(**fields: Any) -> None:
        real(**fields)
        if next(cut):
            raise OperationalError("the connection was cut")

    monkeypatch.setattr(dlq, "retry", retry)
    work(operation, rows=1)
    with pytest.raises(OperationalError):
        work(operation)
    assert states(operation) == {BulkItemState.DONE: 1, BulkItemState.WAITING: 2}
    work(operation)
    assert states(operation) == {BulkItemState.DONE: 3}
    assert AuditEvent.objects.filter(verb="dlq.retry").count() == 3


def test_an_unexpected_error_of_one_row_is_told_and_hurts_no_other(monkeypatch: pytest.MonkeyPatch):
    ids = dead(3)
    operation = begun(ids)
    real = dlq.retry

    def retry(*, item_id: int, **fields: Any) -> None:
        if item_id == ids[1]:
            raise ZeroDivisionError
        real(item_id=item_id, **fields)

    monkeypatch.setattr(dlq, "retry", retry)
    work(operation)
    assert states(operation) == {BulkItemState.DONE: 2, BulkItemState.SKIPPED: 1}
    assert "unexpected ZeroDivisionError" in BulkItem.objects.get(object_id=ids[1]).detail


@pytest.mark.django_db(transaction=True)
def test_two_runners_and_two_operations_over_the_same_rows_at_once():
    ids = dead(12)
    one, two = begun(ids), begun(ids)

    def run(runner: str) -> None:
        for _ in range(200):
            for operation in (one, two):
                with suppress(OperationalError):  # busy; the same row is tried again
                    bulk.advance(operation_id=operation, runner_id=runner, now=NOW)

    assert at_once(lambda: run(ME), lambda: run(OTHER)) == [None, None]
    assert states(one) + states(two) == {BulkItemState.DONE: 12, BulkItemState.SKIPPED: 12}
    assert AuditEvent.objects.filter(verb="dlq.retry").count() == 12, "No item was retried twice."


@pytest.mark.parametrize("seed", range(10))
def test_whoever_dies_and_stops_and_resumes_each_row_is_done_once_in_order(seed: int):
    dice = random.Random(seed)
    ids = dead(15)
    operation, now = begun(ids), NOW
    while row(operation).state != BulkState.FINISHED:
        work(operation, runner=f"r{dice.randrange(3)}", rows=dice.randrange(1, 5), now=now)
        now += timedelta(seconds=dice.choice([1, 40]))
        if dice.random() < 0.3 and row(operation).state == BulkState.RUNNING:
            bulk.stop(operation_id=operation, actor=BOB, now=now)
            bulk.resume(operation_id=operation, actor=BOB, now=now)
    events = AuditEvent.objects.filter(verb="dlq.retry").order_by("id").values_list("object_id", flat=True)
    assert list(events) == [str(pk) for pk in ids]


# -- the task ----


def test_a_small_one_is_over_with_the_click_and_the_rest_of_a_large_one_is_left_to_the_cluster():
    from django_q.models import OrmQ

    small = tasks.begin_bulk(verb=BulkVerb.RETRY, object_ids=dead(3), actor=ALICE)
    assert row(small).state == BulkState.FINISHED
    assert not OrmQ.objects.exists()
    large = tasks.begin_bulk(verb=BulkVerb.DISCARD, reason="old", object_ids=dead(tasks.ROWS_AT_ONCE + 10), actor=ALICE)
    assert row(large).state == BulkState.RUNNING
    assert OrmQ.objects.count() == 1
    assert tasks.run_bulk() == 9, "26 were done with the click."
    assert row(large).state == BulkState.FINISHED


def test_the_task_looks_for_operations_whose_runner_died(monkeypatch: pytest.MonkeyPatch):
    operation = begun(dead(2))
    BulkOperation.objects.update(runner_id="dead", lease_expires_at=NOW)
    assert tasks.run_bulk() == 2
    assert row(operation).state == BulkState.FINISHED


def test_old_operations_are_forgotten_and_open_ones_stay():
    over, open_ = begun(dead(2)), begun([1])
    work(over)
    removed = housekeeping.run(
        now=later(days=31), max_size=100, ttl=timedelta(days=30), dlq_max_size=100, dlq_ttl=timedelta(days=60)
    )
    assert removed.operations_removed == 1
    assert list(BulkOperation.objects.values_list("pk", flat=True)) == [open_]
