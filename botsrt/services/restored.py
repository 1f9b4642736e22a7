"""After the database was restored from a backup: nobody here knows what was sent since that was made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from botsrt.core.actors import Actor
from botsrt.core.states import EntryState, OutboxState, RunMode
from botsrt.models import JournalEntry, OutboxMessage, Turn, Worker
from botsrt.services import audit, lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    unknown: int  # messages that may have been sent since
    open: int  # entries that may have been answered since


def settle(*, made_at: datetime, holds_replies: bool, actor: Actor, now: datetime) -> Restored:
    """What waited to be sent is of unknown fate, as if the process had died while it was sent; nothing runs any more.

    Args:
        made_at: when the backup was made.
        holds_replies: replies to what was open are kept for staff, because people may have got one already.
    """
    with transaction.atomic():
        Worker.objects.filter(stopped_at=None).update(stopped_at=now, accounts=[], running_turns=0)
        lanes.hand_back(Turn.objects.all(), now=now)
        waiting_sends = OutboxMessage.objects.filter(state__in=(OutboxState.PENDING, OutboxState.SENDING))
        # An edit is simply made again: twice is as once.
        waiting_sends.exclude(edits="").update(state=OutboxState.PENDING, worker_id="", lease_expires_at=None)
        unknown = waiting_sends.filter(edits="").update(
            state=OutboxState.UNKNOWN,
            worker_id="",
            lease_expires_at=None,
            next_attempt_at=now,
            error="Restored from a backup: it may have been sent since that was made.",
        )
        waiting = JournalEntry.objects.filter(state=EntryState.PENDING)
        count = waiting.update(run_mode=RunMode.HOLD, runs_alone=True) if holds_replies else waiting.count()
        audit.record(
            actor=actor,
            verb="backup.restore",
            object_kind="database",
            object_id="all",
            after={"made_at": made_at.isoformat(), "unknown": unknown, "open": count, "holds_replies": holds_replies},
            now=now,
        )
        return Restored(unknown=unknown, open=count)
