"""The dead letter queue: one owner per message, whoever clicks."""

from __future__ import annotations

import pytest

from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.states import DLQState, EntryState, Outcome
from botsrt.models import AuditEvent, DLQItem, HistoryMessage, JournalEntry, OutboxMessage
from botsrt.services import dlq
from tests.factories import ALICE, BOB, NOW, a_bot, claim_one, fail, finish, later, parked, send_all
from tests.services.races import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def retry(item: DLQItem, actor=ALICE, **fields) -> None:
    dlq.retry(item_id=item.pk, actor=actor, now=NOW, **fields)


def test_a_retry_answers_in_the_real_session():
    item = parked("Hello")
    retry(item, reason="mended")
    assert finish(claim_one(), "Hi")
    item.refresh_from_db()
    assert (item.state, item.entry.outcome) == (DLQState.RESOLVED, Outcome.ANSWERED)
    assert send_all() == ["Sorry, something went wrong.", "Hi"]
    assert HistoryMessage.objects.count() == 2


def test_ten_passes_leave_no_extra_row():
    item = parked("Hello")
    for _ in range(10):
        retry(item)
        fail(claim_one())
    item.refresh_from_db()
    assert (item.state, item.attempts) == (DLQState.OPEN, 11)
    assert (DLQItem.objects.count(), JournalEntry.objects.count(), OutboxMessage.objects.count()) == (1, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_of_two_staff_at_once_one_wins_and_the_other_is_told():
    item = parked("Hello")
    results = at_once(lambda: retry(item, ALICE), lambda: retry(item, BOB))
    (loser,) = [result for result in results if result is not None]
    assert isinstance(loser, Conflict)
    assert "retrying already, by " in str(loser)
    assert AuditEvent.objects.filter(verb="dlq.retry").count() == 1


def test_an_edited_retry_gives_the_agent_the_edited_text():
    item = parked("Helo")
    retry(item, edited_text="Hello")
    turn = claim_one()
    assert turn.entries[0].message.text == "Hello"
    assert JournalEntry.objects.get().payload["text"] == "Helo"


def test_a_discard_needs_a_reason_and_can_be_undone_for_30_days():
    item = parked()
    with pytest.raises(InvalidInput, match="reason"):
        dlq.discard(item_id=item.pk, actor=ALICE, reason=" ", now=NOW)
    dlq.discard(item_id=item.pk, actor=ALICE, reason="spam", now=NOW)
    assert JournalEntry.objects.get().state == EntryState.DISCARDED
    with pytest.raises(Conflict, match="discarded already, by alice"):
        retry(item, BOB)
    with pytest.raises(Conflict, match="30 days"):
        dlq.undo_discard(item_id=item.pk, actor=ALICE, now=later(days=31))
    dlq.undo_discard(item_id=item.pk, actor=ALICE, now=later(days=29))
    assert JournalEntry.objects.get().state == EntryState.DEAD
    assert DLQItem.objects.get().state == DLQState.OPEN


def test_failures_that_differ_in_numbers_are_one_group():
    one, two = parked("a", text="order 17 not found"), parked("b", text="order 99 not found")
    other = parked("c", text="something else")
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_notes_assignees_and_snoozes_are_kept_and_audited():
    item = parked()
    dlq.annotate(item_id=item.pk, actor=ALICE, note="known", assignee="bob", snoozed_until=later(hours=1), now=NOW)
    item.refresh_from_db()
    assert (item.note, item.assignee, item.snoozed_until) == ("known", "bob", later(hours=1))
    assert AuditEvent.objects.get(verb="dlq.annotate").after["assignee"] == "bob"


def test_unknown_items_are_named():
    with pytest.raises(NotFound, match="no dead letter item 4711"):
        dlq.retry(item_id=4711, actor=ALICE, now=NOW)


def test_a_group_is_annotated_as_a_whole():
    one, two = parked("a"), parked("b")
    dlq.discard(item_id=two.pk, actor=BOB, reason="spam", now=NOW)
    count = dlq.annotate_group(
        fingerprint=one.fingerprint, actor=ALICE, note="down", assignee="bob", snoozed_until=later(hours=1), now=NOW
    )
    assert count == 1, "Closed items stay as they are."
    one.refresh_from_db()
    assert (one.note, one.assignee, one.snoozed_until) == ("down", "bob", later(hours=1))
    event = AuditEvent.objects.get(verb="dlq.annotate")
    assert (event.object_kind, event.object_id, event.after["items"]) == ("dlq_group", one.fingerprint, 1)
    dlq.retry(item_id=one.pk, actor=ALICE, now=NOW)
    with pytest.raises(NotFound):
        dlq.annotate_group(fingerprint=one.fingerprint, actor=ALICE, note="x", now=NOW)
