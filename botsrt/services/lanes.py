"""Move sessions between lanes: what is one person's runs one after another.

The lane stands on the session. Whoever changes it locks the session's row, and so does whoever claims a turn for it:
on PostgreSQL by ``select_for_update``, on SQLite because every writing transaction is alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from botsrt.core.states import EntryState, Handler, SessionScope, TurnState
from botsrt.models import BotSession, JournalEntry, Turn
from botsrt.services import news, nudge


def move(*, contact_ids: Collection[int], lane: str, now: datetime) -> None:
    """The direct sessions of these contacts go on in ``lane``; what waits goes with them, and no turn is lost.

    A running turn goes along where the lane is free; where it is not, or where the turn has read what is not its own
    any more, it is handed back and runs again.
    """
    direct = BotSession.objects.filter(scope=SessionScope.PER_USER)
    left = set(direct.filter(contact__in=contact_ids).exclude(lane=lane).values_list("lane", flat=True))
    if not left:
        return
    with transaction.atomic():
        touched = direct.select_for_update(no_key=True).filter(Q(contact__in=contact_ids) | Q(lane__in=left))
        rows = list(touched.order_by("pk").values_list("pk", "contact", "lane"))
        moving = [pk for pk, contact, old in rows if contact in contact_ids and old != lane]
        shared = {old for pk, _, old in rows if pk not in moving and old != lane}
        BotSession.objects.filter(lane__in=shared).update(epoch=F("epoch") + 1)
        BotSession.objects.filter(pk__in=moving).update(lane=lane)
        JournalEntry.objects.filter(session__in=moving, state=EntryState.PENDING).exclude(lane=lane).update(lane=lane)
        running = Turn.objects.filter(state=TurnState.RUNNING)
        hand_back(running.filter(lane__in=shared), now=now)
        for turn_id in running.filter(session__in=moving).values_list("id", flat=True):
            if not _take_along(turn_id, lane):
                hand_back(running.filter(id=turn_id), now=now)
        agree(lane=lane, now=now)
        nudge.journal()
        news.changed("people", moving)


def agree(*, lane: str, now: datetime) -> None:
    """Who has one conversation of a person has them all.

    Where sessions of ``lane`` differ, a human comes before a pause, and a pause before the bot, whose turn is handed
    back.
    """
    together = BotSession.objects.filter(lane=lane)
    holders = {row.handler: row for row in together.exclude(handler=Handler.BOT).order_by("handler_since")}
    holder = holders.get(Handler.HUMAN) or holders.get(Handler.PAUSED)
    if holder is None:
        return
    if together.exclude(handler=holder.handler).update(
        handler=holder.handler,
        handler_by=holder.handler_by,
        handler_since=holder.handler_since,
        epoch=F("epoch") + 1,
    ):
        hand_back(Turn.objects.filter(lane=lane, state=TurnState.RUNNING), now=now)


def locked(session_pk: int) -> BotSession:
    """The session, locked together with those of its lane, so that no turn is claimed there before the commit."""
    lane = BotSession.objects.values_list("lane", flat=True).get(pk=session_pk)
    list(BotSession.objects.select_for_update(no_key=True).filter(lane=lane).order_by("pk").values("pk"))
    return BotSession.objects.get(pk=session_pk)


def hand_back(running: QuerySet[Turn], *, now: datetime) -> int:
    """Cancel the turns of the queryset ``running``; their entries wait for another one, without using up an attempt.

    Returns how many turns were cancelled. Their results will be refused; their workers are told to stop.
    """
    turn_ids = list(running.filter(state=TurnState.RUNNING).values_list("id", flat=True))
    if not turn_ids:
        return 0
    count = Turn.objects.filter(id__in=turn_ids, state=TurnState.RUNNING).update(
        state=TurnState.CANCELLED, finished_at=now
    )
    JournalEntry.objects.filter(turn__in=turn_ids, state=EntryState.CLAIMED).update(
        state=EntryState.PENDING, available_at=now
    )
    nudge.journal()
    nudge.control()
    return count


def _take_along(turn_id: uuid.UUID, lane: str) -> bool:
    """The running turn goes on in ``lane``; False where another turn runs there."""
    try:
        with transaction.atomic():
            Turn.objects.filter(id=turn_id, state=TurnState.RUNNING).update(lane=lane)
    except IntegrityError:  # one running turn per lane
        return False
    return True
