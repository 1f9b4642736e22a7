"""What every act that runs an entry again has in common."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from botsrt.core.actors import Actor
from botsrt.core.states import EntryState, RunMode, Trigger
from botsrt.models import JournalEntry
from botsrt.services import news, nudge


def requeue(
    rows: QuerySet[JournalEntry], *, trigger: Trigger, mode: RunMode, actor: Actor, reason: str, now: datetime
) -> int:
    """Make the entries of the queryset ``rows`` pending again, each for a turn of its own. Returns how many were."""
    count = rows.update(
        state=EntryState.PENDING,
        outcome="",
        outcome_reason="",
        available_at=now,
        completed_at=None,
        claimed_at=None,
        runs_alone=True,
        trigger=trigger,
        run_mode=mode,
        requested_by=actor.name,
        request_reason=reason,
    )
    nudge.journal()
    news.changed("journal")
    return count
