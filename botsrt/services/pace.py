"""When what is said is answered: at once, when a burst of messages is over, or in place of what runs.

All of it happens in the transaction that stores a message, so that nothing of it can be lost or done twice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile

from django.db import transaction
from django.db.models import F, QuerySet

from botsrt.core import commands
from botsrt.core.messages import InboundMessage
from botsrt.core.states import BusyMode, EntryState, EventKind, RunMode, Trigger, TurnState
from botsrt.models import Contact, JournalEntry, Turn
from botsrt.services import bots, entrance, floods, lanes, news, notices, nudge, sql
from botsrt.services.claimed import ClaimedEntry

#: A burst waits for its latest message, but never longer than this many times the bot's debounce.
_LONGEST_BURST = 10

#: How long an album waits for the rest of it, however short the bot's debounce is: its parts come as messages of their
#: own, one behind the other. Source: Telegram Message.media_group_id, which does not tell how many there are.
_ALBUM_WAITS = timedelta(seconds=1)

#: How often a message may be taken from a running turn: from then on what comes waits, so that it is answered at last.
MAX_INTERRUPTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A message that is about to be stored."""

    account: str
    lane: str
    contact_id: int
    command: str
    is_album: bool
    may_be_too_fast: bool  # what programs hand in never is
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a bot's settings say, and what goes on in the lane of the message that comes."""

    debounce: timedelta = timedelta()
    busy: BusyMode = BusyMode.QUEUE
    busy_ack: str = ""  # empty: none
    max_per_minute: int = 0  # 0: any
    is_album: bool = False
    has_burst: bool = False  # messages of the lane wait for the end of their burst
    is_too_fast: bool = False  # the contact wrote as much in the last minute as the bot answers

    @property
    def is_plain(self) -> bool:
        """The message is answered as soon as its lane is free, whatever came just before it and whatever runs."""
        return not (self.debounce or self.is_album or self.has_burst or self.cares_for_runs)

    @property
    def cares_for_runs(self) -> bool:
        """Something happens when a message comes while a turn runs."""
        return self.busy != BusyMode.QUEUE or bool(self.busy_ack)


def of(comings: Sequence[Coming]) -> list[Pace]:
    """The pace of each of these messages, as things are at this moment; the earlier ones of them count."""
    names = sorted({coming.account for coming in comings})
    known = dict(sql.fetch(_SETTINGS.format(accounts=sql.marks(names)), names))
    paces = {account: _pace(known.get(account, "{}")) for account in names}
    bursting = _bursting(comings)
    limited = [one for one in comings if one.may_be_too_fast and paces[one.account].max_per_minute]
    counts = floods.recent({(one.contact_id, one.account, bool(one.command)): one.now for one in limited})
    found = []
    for coming in comings:
        pace = paces[coming.account]
        key = coming.contact_id, coming.account, bool(coming.command)
        is_too_fast = coming.may_be_too_fast and 0 < pace.max_per_minute <= counts[key]
        counts[key] += 1
        if coming.is_album or coming.lane in bursting or is_too_fast:
            pace = replace(pace, is_album=coming.is_album, has_burst=coming.lane in bursting, is_too_fast=is_too_fast)
        found.append(pace)
    return found


_SETTINGS = "SELECT account, settings FROM botsrt_bot WHERE account IN ({accounts})"


@lru_cache(maxsize=1_000)  # of what the row says: every message asks, and it hardly ever changes
def _pace(settings_json: str) -> Pace:
    settings: Mapping[str, str] = json.loads(settings_json)
    return Pace(
        debounce=timedelta(milliseconds=int(bots.setting(settings, "debounce_ms"))),
        busy=BusyMode(bots.setting(settings, "busy")),
        busy_ack=bots.setting(settings, "busy_ack"),
        max_per_minute=int(bots.setting(settings, "max_per_minute")),
    )


def _bursting(comings: Sequence[Coming]) -> set[str]:
    """Those of the lanes in which messages wait for the end of their burst."""
    lanes = sorted({coming.lane for coming in comings})
    now = max(coming.now for coming in comings)
    return {lane for (lane,) in sql.fetch(_BURSTING.format(lanes=sql.marks(lanes)), [*lanes, now])}


#: As ``_waiting``.
_BURSTING = """SELECT DISTINCT lane FROM botsrt_journalentry
    WHERE lane IN ({lanes}) AND state = 'pending' AND NOT runs_aside AND attempts = 0 AND deaths = 0
        AND available_at > %s"""


def due_at(
    pace: Pace, *, message: InboundMessage, command: str, lane: str, contact: Contact, now: datetime
) -> datetime:
    """When the message that is being stored may be answered; the burst that it belongs to waits with it, or ends.

    A burst is what one contact writes in one chat. What is no plain text ends it, and is answered with it; ``/new``
    ends those of the whole lane, so that it comes after what was said before it. An album is a burst of a bot without
    debounce, too, and so is what is said before the whole of it is there.
    """
    wait = max(pace.debounce, _ALBUM_WAITS) if pace.is_album else pace.debounce
    if not (wait or pace.has_burst) or commands.runs_aside(command):
        return now
    waiting = _waiting(lane, now=now)
    burst = waiting.filter(
        account=message.account, channel_id=message.channel_id, thread_id=message.thread_id, contact=contact
    )
    if command:
        waiting.update(available_at=now)
        return now
    if (message.attachments and not message.album) or message.kind not in (EventKind.MESSAGE, EventKind.EDIT):
        burst.update(available_at=now)
        return now
    began_at = burst.order_by("id").values_list("received_at", flat=True).first()
    if began_at is None and not wait:
        return now
    wait = wait or _ALBUM_WAITS
    until = min(now + wait, (began_at or now) + _LONGEST_BURST * wait)
    burst.update(available_at=until)
    return until


def arrived(pace: Pace, *, entry: JournalEntry, now: datetime) -> None:
    """A message was stored while the turn of its lane runs: say so, or let it take part, as the bot's settings want.

    Nothing happens for a message that would get no answer. One of a contact who writes too fast is turned away.
    """
    if pace.is_too_fast and floods.turn_away(entry, now=now):
        return
    if entry.command or not pace.cares_for_runs:
        return
    turn_id = (
        Turn.objects.filter(lane=entry.lane, runs_aside=False, state=TurnState.RUNNING).values_list("id", flat=True)
    ).first()
    if turn_id is None:
        return
    running = list(JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED).order_by("pk"))
    if not running or running[0].command or not entrance.allowed([entry.pk], now=now):
        return
    if pace.busy_ack:
        # Of a run that begins again it is still the first message: so this is said once.
        notices.tell(notices.address_of(entry), pace.busy_ack, key=f"busy:{running[0].pk}", entry_id=entry.pk, now=now)
    if pace.busy == BusyMode.INTERRUPT and all(
        _go_together(row, entry) and row.interruptions < MAX_INTERRUPTIONS for row in running
    ):
        _interrupt(turn_id, running, until=entry.available_at, now=now)
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
        behind = takewhile(lambda row: not row.command and _go_together(row, first), due.order_by("pk"))
        joining = entrance.allowed([row.pk for row in behind], now=now)
        if not joining:
            return []
        ids = [entry.id for entry in joining]
        due.filter(pk__in=ids).update(state=EntryState.CLAIMED, turn=turn_id, claimed_at=now)
        news.changed("journal", ids)
        return joining


def leave(*, turn_id: uuid.UUID, entry_ids: Collection[int]) -> None:
    """What joined the turn and was not taken waits for the next one."""
    with transaction.atomic():
        JournalEntry.objects.filter(pk__in=entry_ids, turn=turn_id, state=EntryState.CLAIMED).update(
            state=EntryState.PENDING
        )
        nudge.journal()
        news.changed("journal", entry_ids)


def _waiting(lane: str, *, now: datetime) -> QuerySet[JournalEntry]:
    """Messages that wait for the end of their burst. What waits for another attempt, or a program, keeps its time."""
    return JournalEntry.objects.filter(
        lane=lane,
        state=EntryState.PENDING,
        runs_aside=False,
        runs_alone=False,
        attempts=0,
        deaths=0,
        available_at__gt=now,
    )
