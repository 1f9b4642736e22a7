"""When what is said is answered: at once, when a burst of messages is over, or in place of what runs.

All of it happens in the transaction that stores a message, so that nothing of it can be lost or done twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from django.db import transaction
from django.db.models import F, QuerySet, Subquery

from botsrt.core import commands
from botsrt.core.messages import InboundMessage
from botsrt.core.states import BusyMode, EntryState, EventKind, RunMode, Trigger, TurnState
from botsrt.models import Bot, BotSession, Contact, JournalEntry, Turn
from botsrt.services import bots, entrance, lanes, news, notices, nudge, turns
from botsrt.services.notices import Address
from botsrt.services.turns import ClaimedEntry

#: A burst waits for its latest message, but never longer than this many times the bot's debounce.
_LONGEST_BURST = 10

#: How often a message may be taken from a running turn: from then on what comes waits, so that it is answered at last.
MAX_INTERRUPTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a bot's settings say, and what runs in the lane of the message that came."""

    debounce: timedelta = timedelta()
    busy: BusyMode = BusyMode.QUEUE
    busy_ack: str = ""  # empty: none
    running: uuid.UUID | None = None  # the lane's turn


def of(*, account: str, lane: str) -> Pace:
    """The pace of a bot in a lane, as they are at this moment. One statement: every message asks."""
    running = Turn.objects.filter(lane=lane, runs_aside=False, state=TurnState.RUNNING).values("id")[:1]
    rows = Bot.objects.filter(account=account).annotate(running=Subquery(running))
    settings, turn_id = rows.values_list("settings", "running").first() or ({}, None)
    return Pace(
        debounce=timedelta(milliseconds=int(bots.setting(settings, "debounce_ms"))),
        busy=BusyMode(bots.setting(settings, "busy")),
        busy_ack=bots.setting(settings, "busy_ack"),
        running=turn_id,
    )


def due_at(
    pace: Pace, *, message: InboundMessage, command: str, session: BotSession, contact: Contact, now: datetime
) -> datetime:
    """When the message that is being stored may be answered; the burst that it belongs to waits with it, or ends.

    A burst is what one contact writes in one chat. What is no plain text ends it, and is answered with it; ``/new``
    ends those of the whole lane, so that it comes after what was said before it.
    """
    if not pace.debounce or commands.runs_aside(command):
        return now
    waiting = _waiting(session.lane, now=now)
    burst = waiting.filter(
        account=message.account, channel_id=message.channel_id, thread_id=message.thread_id, contact=contact
    )
    if command:
        waiting.update(available_at=now)
        return now
    if message.attachments or message.kind not in (EventKind.MESSAGE, EventKind.EDIT):
        burst.update(available_at=now)
        return now
    began_at = burst.order_by("id").values_list("received_at", flat=True).first() or now
    until = min(now + pace.debounce, began_at + _LONGEST_BURST * pace.debounce)
    burst.update(available_at=until)
    return until


def arrived(pace: Pace, *, entry: JournalEntry, now: datetime) -> None:
    """A message was stored while the turn of its lane runs: say so, or let it take part, as the bot's settings want.

    Nothing happens for a message that would get no answer.
    """
    if pace.running is None or entry.command or (pace.busy == BusyMode.QUEUE and not pace.busy_ack):
        return
    running = list(JournalEntry.objects.filter(turn=pace.running, state=EntryState.CLAIMED).order_by("pk"))
    if not running or running[0].command or not entrance.allowed([entry], now=now):
        return
    if pace.busy_ack:
        # Of a run that begins again it is still the first message: so this is said once.
        notices.tell(_address(entry), pace.busy_ack, key=f"busy:{running[0].pk}", entry_id=entry.pk, now=now)
    if pace.busy == BusyMode.INTERRUPT and all(
        _go_together(row, entry) and row.interruptions < MAX_INTERRUPTIONS for row in running
    ):
        _interrupt(pace.running, running, until=entry.available_at, now=now)
    if pace.busy == BusyMode.STEER:
        nudge.control()


def _go_together(one: JournalEntry, other: JournalEntry) -> bool:
    """Whether one turn may take both messages."""
    chats = {(row.account, row.channel_id, row.thread_id) for row in (one, other)}
    is_free = not one.runs_alone and one.trigger == Trigger.MESSAGE and one.run_mode == RunMode.SEND
    return len(chats) == 1 and is_free


def _interrupt(turn_id: uuid.UUID, running: list[JournalEntry], *, until: datetime, now: datetime) -> None:
    """Cancel the turn: the next one takes its messages and the new one together, in the order in which they came."""
    if lanes.hand_back(Turn.objects.filter(id=turn_id), now=now):
        JournalEntry.objects.filter(pk__in=[row.pk for row in running], state=EntryState.PENDING).update(
            available_at=until, interruptions=F("interruptions") + 1
        )


# -- steering ----


def join(*, turn_id: uuid.UUID, now: datetime) -> list[ClaimedEntry]:
    """Let what waits behind a running turn join it: due messages of its chat, up to one that must run alone.

    Returns:
        The entries that joined, in order; empty as well when the turn is over.
    """
    with transaction.atomic():
        # Locked, so that it does not end before the commit.
        turn = Turn.objects.select_for_update(no_key=True).filter(pk=turn_id, state=TurnState.RUNNING).first()
        first = JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED).order_by("pk").first()
        if turn is None or first is None:
            return []
        due = JournalEntry.objects.filter(
            lane=turn.lane, state=EntryState.PENDING, runs_aside=False, available_at__lte=now
        )
        rows = due.select_related("contact__alias_of").order_by("pk")
        behind = list(takewhile(lambda row: not row.command and _go_together(row, first), rows))
        ids = [row.pk for row in entrance.allowed(behind, now=now)]
        if not ids:
            return []
        due.filter(pk__in=ids).update(state=EntryState.CLAIMED, turn=turn_id, claimed_at=now)
        news.changed("journal", ids)
        return [turns.as_claimed(row) for row in behind if row.pk in ids]


def leave(*, turn_id: uuid.UUID, entry_ids: Collection[int]) -> None:
    """What joined the turn and was not taken waits for the next one."""
    with transaction.atomic():
        JournalEntry.objects.filter(pk__in=entry_ids, turn=turn_id, state=EntryState.CLAIMED).update(
            state=EntryState.PENDING
        )
        nudge.journal()
        news.changed("journal", entry_ids)


def _waiting(lane: str, *, now: datetime) -> QuerySet[JournalEntry]:
    """Messages that wait for the end of their burst. What waits for its next attempt keeps its time."""
    return JournalEntry.objects.filter(
        lane=lane, state=EntryState.PENDING, runs_aside=False, attempts=0, deaths=0, available_at__gt=now
    )


def _address(entry: JournalEntry) -> Address:
    return Address(
        platform=entry.platform,
        account=entry.account,
        channel_id=entry.channel_id,
        thread_id=entry.thread_id,
        reply_to=entry.payload["reply_to"],
        session_pk=entry.session_id,
    )
