"""Close conversations in which nobody has said anything for long.

What was said stays readable for staff; the agent no longer sees it, unless the person goes on with it by /resume. What
is said next opens the conversation again, in a new context. Erasing is another, explicit act.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from botsrt.core import keys
from botsrt.core.states import EntryState, Handler, HistoryKind, Role, TurnState
from botsrt.models import BotSession, HistoryMessage, JournalEntry, Turn
from botsrt.services import news, sessions

#: Sessions closed in one transaction, so that the hot path never waits long for the write lock.
CHUNK = 100


def reap(*, ttl: timedelta, now: datetime) -> int:
    """Archive the sessions that were silent for ``ttl``, in chunks. Returns how many.

    A conversation is left alone as long as any of its sessions is active, something waits or runs there, or a human has
    it in hand. So are the sessions of programs: their ids are there to be resumed.
    """
    before, archived = now - ttl, 0
    seen = (datetime.min.replace(tzinfo=now.tzinfo), 0)
    while True:
        with transaction.atomic():
            rows = _idle(before).filter(Q(last_activity_at__gt=seen[0]) | Q(last_activity_at=seen[0], pk__gt=seen[1]))
            chunk = list(rows.order_by("last_activity_at", "pk").select_for_update(no_key=True, of=("self",))[:CHUNK])
            if not chunk:
                return archived
            archived += _close(chunk, ttl=ttl, now=now)
            seen = (chunk[-1].last_activity_at, chunk[-1].pk)


def _idle(before: datetime) -> QuerySet[BotSession]:
    together = BotSession.objects.filter(lane=OuterRef("lane"))
    is_open = Q(archived_at=None) | Q(archived_at__lt=F("last_activity_at"))
    return BotSession.objects.filter(
        is_open,
        ~Exists(together.filter(Q(last_activity_at__gt=before) | ~Q(handler=Handler.BOT))),
        ~Exists(JournalEntry.objects.filter(lane=OuterRef("lane"), state=EntryState.PENDING)),
        ~Exists(Turn.objects.filter(lane=OuterRef("lane"), state=TurnState.RUNNING)),
        last_activity_at__lte=before,
        handler=Handler.BOT,
    ).exclude(platform=keys.LIBRARY_PLATFORM)


def _close(chunk: list[BotSession], *, ttl: timedelta, now: datetime) -> int:
    said = HistoryMessage.objects.filter(
        session=OuterRef("pk"), id__gt=OuterRef("context_start"), kind__in=HistoryKind.for_agents()
    )
    talked = set(BotSession.objects.filter(Exists(said), pk__in=[one.pk for one in chunk]).values_list("pk", flat=True))
    dividers = HistoryMessage.objects.bulk_create(
        HistoryMessage(
            session=session,
            ordinal=sessions.DIVIDER_ORDINAL,
            role=Role.SYSTEM,
            kind=HistoryKind.DIVIDER,
            text=f"The conversation was archived after {_span(ttl)} of silence.",
            created_at=now,
        )
        for session in chunk
        if session.pk in talked
    )
    starts = {divider.session_id: divider.pk for divider in dividers}
    count = 0
    for session in chunk:
        begins = {"context_start": starts[session.pk], "runtime_state": {}} if session.pk in starts else {}
        unchanged = BotSession.objects.filter(pk=session.pk, last_activity_at=session.last_activity_at)
        count += unchanged.update(archived_at=now, **begins)
    news.changed("people", [session.pk for session in chunk])
    return count


def _span(ttl: timedelta) -> str:
    """In days, or what is exact below one."""
    if ttl < timedelta(days=1):
        return f"{ttl.total_seconds():,.0f} seconds"
    return "1 day" if ttl.days == 1 else f"{ttl.days:,} days"
