"""What platforms tell later of messages that they took: delivered, read, failed.

Reports may come late, twice and in any order; the furthest a message got is what stays. A report that a platform has a
message is proof: it also settles a row whose own call was cut, so that it is not sent a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models.functions import Coalesce

from botsrt.core import redact
from botsrt.core.messages import DeliveryReport
from botsrt.core.states import Fate, OutboxState
from botsrt.models import Contact, OutboxMessage
from botsrt.services import news, nudge

_MAX_ERROR_CHARS = 2_000

#: Rows that a report proves to have arrived. A dead one was given up, or failed on the way: that it is on somebody's
#: device is stronger, that it was once sent is not.
_PROVED_BY = {
    Fate.SENT: (OutboxState.SENDING, OutboxState.UNKNOWN, OutboxState.PENDING, OutboxState.HELD),
    Fate.DELIVERED: tuple(OutboxState),
    Fate.READ: tuple(OutboxState),
}

#: Rows of messages that a platform took and can still fail with.
_MAY_FAIL = (OutboxState.SENDING, OutboxState.SENT, OutboxState.UNKNOWN)


def record(*, account: str, reports: Sequence[DeliveryReport], now: datetime) -> int:
    """Write down what became of messages of a bot. Returns how many of the reports are of messages known here."""
    with transaction.atomic():
        known = 0
        for report in reports:
            row = OutboxMessage.objects.filter(account=account, idempotency_key=report.idempotency_key).first()
            if row is None:
                continue
            known += 1
            if report.fate is Fate.FAILED:
                _failed(row, report)
            else:
                _arrived(row, report, now=now)
            news.changed("outbox", [row.pk])
        if known:
            nudge.outbox()  # what waited for a decision about such a message
        return known


def _arrived(row: OutboxMessage, report: DeliveryReport, *, now: datetime) -> None:
    rows = OutboxMessage.objects.filter(pk=row.pk)
    rows.filter(state__in=_PROVED_BY[report.fate]).update(
        state=OutboxState.SENT,
        platform_message_id=report.platform_message_id[:200],
        sent_at=Coalesce("sent_at", report.at),
        lease_expires_at=None,
        error="",
    )
    at = min(report.at, now)  # a platform's clock may be ahead of ours
    if report.fate in (Fate.DELIVERED, Fate.READ):
        rows.update(delivered_at=Coalesce("delivered_at", at))
        Contact.objects.filter(sessions__outbox=row.pk, is_reachable=False).update(is_reachable=True)
    if report.fate is Fate.READ:
        rows.update(read_at=Coalesce("read_at", at))


def _failed(row: OutboxMessage, report: DeliveryReport) -> None:
    """A message that is on a device did not fail; nor does one that is being sent again already."""
    failed = OutboxMessage.objects.filter(pk=row.pk, state__in=_MAY_FAIL, delivered_at=None)
    error = redact.redact(report.error)[:_MAX_ERROR_CHARS]
    if failed.update(state=OutboxState.DEAD, error=error, lease_expires_at=None) and report.is_target_gone:
        Contact.objects.filter(sessions__outbox=row.pk).update(is_reachable=False)
