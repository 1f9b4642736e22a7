"""What a platform tells later of messages that it took."""

from __future__ import annotations

import itertools
from datetime import datetime

import pytest

from botsrt.core.messages import DeliveryReport
from botsrt.core.states import Fate, OutboxState
from botsrt.models import Contact, OutboxMessage
from botsrt.services import outbox, receipts
from tests.factories import (
    ACCOUNT,
    NOW,
    WORKER,
    a_bot,
    a_message,
    answered,
    claim_sends,
    later,
    receive,
    sent,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


@pytest.fixture
def row() -> OutboxMessage:
    """An answer that the platform took."""
    answered("Hello", "Hi there")
    sent(claim_sends()[0])
    return OutboxMessage.objects.get()


def a_report(row: OutboxMessage, fate: Fate, *, at: datetime = NOW, **fields: object) -> DeliveryReport:
    return DeliveryReport(
        idempotency_key=row.idempotency_key,
        platform_message_id="wamid.1",
        fate=fate,
        at=at,
        **fields,  # type: ignore[arg-type]
    )


def record(*reports: DeliveryReport, account: str = ACCOUNT) -> int:
    return receipts.record(account=account, reports=reports, now=later(hours=1))


def test_the_furthest_a_message_got_stays_in_whatever_order_it_is_told(row: OutboxMessage) -> None:
    times = {Fate.SENT: later(seconds=1), Fate.DELIVERED: later(seconds=2), Fate.READ: later(seconds=3)}
    for order in itertools.permutations(times):
        OutboxMessage.objects.update(delivered_at=None, read_at=None)
        for fate in (*order, *order):
            assert record(a_report(row, fate, at=times[fate])) == 1
        row.refresh_from_db()
        assert row.state == OutboxState.SENT
        assert row.read_at == times[Fate.READ]
        assert row.delivered_at in (times[Fate.DELIVERED], times[Fate.READ])


def test_a_late_delivered_after_read_changes_nothing(row: OutboxMessage) -> None:
    record(a_report(row, Fate.READ, at=later(seconds=3)))
    before = OutboxMessage.objects.values().get()
    record(a_report(row, Fate.DELIVERED, at=later(seconds=9)), a_report(row, Fate.READ, at=later(seconds=9)))
    record(a_report(row, Fate.FAILED, error="131000"))
    assert OutboxMessage.objects.values().get() == {**before, "platform_message_id": "wamid.1"}


def test_a_failed_message_is_dead_and_says_why(row: OutboxMessage) -> None:
    record(a_report(row, Fate.FAILED, error="More than 24 hours."))
    row.refresh_from_db()
    assert (row.state, row.error) == (OutboxState.DEAD, "More than 24 hours.")
    assert Contact.objects.get().is_reachable
    record(a_report(row, Fate.SENT))
    row.refresh_from_db()
    assert row.state == OutboxState.DEAD, "That it was sent was known before."
    record(a_report(row, Fate.DELIVERED))
    row.refresh_from_db()
    assert (row.state, row.error) == (OutboxState.SENT, ""), "That it is on a device is proof."


def test_who_cannot_be_reached_is_marked_until_something_arrives(row: OutboxMessage) -> None:
    record(a_report(row, Fate.FAILED, error="gone", is_target_gone=True))
    assert not Contact.objects.get().is_reachable
    record(a_report(row, Fate.DELIVERED))
    assert Contact.objects.get().is_reachable


def test_a_report_settles_a_message_whose_call_was_cut() -> None:
    answered("Hello", "Hi there")
    (claim,) = claim_sends()
    outbox.mark_unknown(outbox_id=claim.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    row = OutboxMessage.objects.get()
    assert row.state == OutboxState.UNKNOWN
    record(a_report(row, Fate.SENT, at=later(seconds=5)))
    row.refresh_from_db()
    assert (row.state, row.platform_message_id, row.error) == (OutboxState.SENT, "wamid.1", "")
    assert row.sent_at == later(seconds=5)


def test_a_message_that_would_be_sent_again_is_not_once_it_is_known_to_have_arrived() -> None:
    answered("Hello", "Hi there")
    (claim,) = claim_sends()
    outbox.mark_unknown(outbox_id=claim.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    outbox.resend(outbox_id=claim.message.outbox_id, is_labelled=True, now=NOW)
    record(a_report(OutboxMessage.objects.get(), Fate.SENT))
    assert claim_sends() == []


def test_a_report_may_come_before_the_call_returns() -> None:
    answered("Hello", "Hi there")
    (claim,) = claim_sends()
    record(a_report(OutboxMessage.objects.get(), Fate.DELIVERED))
    sent(claim)
    row = OutboxMessage.objects.get()
    assert (row.state, row.delivered_at) == (OutboxState.SENT, NOW)


def test_reports_of_unknown_messages_and_of_other_bots_are_counted_only(row: OutboxMessage) -> None:
    unknown = DeliveryReport(idempotency_key="nobody:1", platform_message_id="x", fate=Fate.FAILED, at=NOW)
    before = OutboxMessage.objects.values().get()
    assert record(unknown) == 0
    assert record(a_report(row, Fate.READ), account="other") == 0
    assert OutboxMessage.objects.values().get() == before


def test_a_clock_that_is_ahead_does_not_put_receipts_into_the_future(row: OutboxMessage) -> None:
    record(a_report(row, Fate.READ, at=later(days=9)))
    row.refresh_from_db()
    assert row.read_at == later(hours=1)


def test_when_a_chat_last_wrote_is_known_for_its_messages(row: OutboxMessage) -> None:
    assert outbox.heard_at(outbox_id=row.pk) == NOW
    receive(a_message("Once more"), now=later(hours=30))
    receive(a_message("Somebody else", channel_id="chat-2", user_id="user-2"), now=later(hours=40))
    assert outbox.heard_at(outbox_id=row.pk) == later(hours=30)
    assert outbox.heard_at(outbox_id=0) is None
