"""Turns: claim, finish, fail, release, abandon. Every way a turn can end is one function and one commit.

Each ending is a filtered update on the running turn: a late result of a turn that was abandoned, stopped or overtaken
changes nothing, and its caller is told.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from botsrt.core import backoff, resets
from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.messages import InboundMessage, Route
from botsrt.core.ports import HistoryItem
from botsrt.core.runtime_state import RuntimeState
from botsrt.core.states import (
    DLQReason,
    EntryState,
    Handler,
    HistoryKind,
    OutboxSource,
    OutboxState,
    Outcome,
    Role,
    RunMode,
    Standing,
    Trigger,
    TurnState,
    UnknownUserPolicy,
)
from botsrt.core.text import one_line, storable
from botsrt.models import BotSession, HistoryMessage, JournalEntry, OutboxMessage, Pairing, Preview, Turn
from botsrt.models.turns import new_turn_id
from botsrt.services import bots, contexts, dlq, identity, news, notices, nudge, pairing, sessions, sql
from botsrt.services.batches import batched, only
from botsrt.services.bots import BotView
from botsrt.services.dlq import Failure
from botsrt.services.notices import Address

#: ``outcome_reason`` of an entry whose reply went to the program that asked, and to no platform.
RETURNED = "returned_to_caller"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedEntry:
    """One entry of a claimed turn."""

    id: int
    message: InboundMessage  # with the text that staff edited, where they did
    received_at: datetime
    attempts: int  # failed turns so far
    deaths: int
    contact_id: int
    root_id: int  # the contact that access and links are about: another one where this is an alias
    known_as: tuple[str, ...]  # the other contact's user id, if so
    is_from_blocked: bool
    command: str  # answered by the runtime itself, alone; empty: a message for the agent
    sealed_code: str  # of the code that /link was given; see core.pairing_codes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedTurn:
    """A running turn, as the worker that claimed it sees it."""

    id: uuid.UUID
    lane: str
    session_pk: int
    session_id: str
    generation: int
    platform: str
    account: str
    route: Route  # of its latest entry: all its entries came from this chat
    runs_aside: bool  # beside the lane's own turn: one command that is answered while that runs
    entries: tuple[ClaimedEntry, ...]  # in the order in which they came; at least one
    attempt: int
    trigger: Trigger
    run_mode: RunMode

    @property
    def entry_ids(self) -> list[int]:
        return [entry.id for entry in self.entries]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a turn that ran to its end ended."""

    parts: tuple[str, ...] = ()  # the reply, cut for the platform; none: nothing is sent
    text: str = ""  # the reply, whole
    dropped: Mapping[int, str] = field(default_factory=dict)  # entry id → why the gate dropped it: code of core.access
    held: Mapping[int, str] = field(default_factory=dict)  # entry id → what it waits for
    agent: str = ""
    agent_version: int = 0
    usage: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kind: HistoryKind = HistoryKind.CHAT
    request: Pairing | None = None  # whose code is written into the reply when it leaves
    begins_anew: str = ""  # why the conversation began anew with this turn, for the history; empty: it did not
    preview_id: int | None = None  # the message in the chat that showed the reply while it was written
    runtime_id: str = ""  # whose state it is
    runtime_state: Mapping[str, Any] = field(default_factory=dict)  # to keep of this turn; empty: nothing
    is_returned: bool = False  # whoever asked has the reply: nothing is sent


# -- claim ----


def claim(
    *,
    worker_id: str,
    limit: int,
    aside_limit: int,
    accounts: Collection[str] | None,
    max_entries_per_turn: int,
    lease: timedelta,
    claim_timeout: timedelta,
    now: datetime,
) -> list[ClaimedTurn]:
    """Claim up to ``limit`` lanes that have due entries and no running turn, oldest entry first.

    All due entries of a lane that came from the same chat are claimed together, up to ``max_entries_per_turn``; an
    entry that must run alone is claimed alone. Commands that are answered beside their lane are claimed first, one at
    a time in each lane, whatever runs there.

    Args:
        aside_limit: commands beside their lanes that are claimed at most.
        accounts: only entries of these bots; None: of all enabled bots.
    """
    with transaction.atomic(savepoint=False):
        groups, epochs = _claimable(
            partial(
                _due_groups,
                accounts=accounts,
                limit=limit,
                aside_limit=aside_limit,
                max_entries=max_entries_per_turn,
                now=now,
            )
        )
        if not groups:
            return []
        wanted = {new_turn_id(): group for group in sorted(groups, key=lambda group: group[0].id)}
        # The unique constraint on running lanes decides who wins; a row that lost is simply not there afterwards.
        won = sql.insert(
            Turn,
            [
                {
                    "id": turn_id,
                    "lane": group[0].lane,
                    "runs_aside": group[0].runs_aside,
                    "session_id": group[0].session_pk,
                    "generation": epochs[group[0].session_pk],
                    "worker_id": worker_id,
                    "lease_expires_at": now + lease,
                    "deadline_at": now + claim_timeout,
                    "trigger": group[0].trigger,
                    "run_mode": group[0].run_mode,
                    "requested_by": group[0].requested_by,
                    "request_reason": group[0].request_reason,
                    "attempt": _attempt(group),
                    "started_at": now,
                }
                for turn_id, group in wanted.items()
            ],
            ignore_conflicts=True,
            returning=("id",),
        )
        winners = {pk for (pk,) in won}
        taken = _take({pk: group for pk, group in wanted.items() if sql.written(pk) in winners}, now=now)
        if taken:
            news.changed("journal", [entry.id for group in taken.values() for entry in group])
        found = []
        for turn_id, group in taken.items():
            try:
                found.append(_claimed_turn(turn_id, group, generation=epochs[group[0].session_pk]))
            except UnreadableUpdate as error:
                _set_apart(turn_id, Failure.of(error), now=now)
        return found


_TAKE = """UPDATE botsrt_journalentry SET state = 'claimed', turn_id = taken.column2, claimed_at = %s
    FROM {taken} AS taken WHERE botsrt_journalentry.id = taken.column1 AND botsrt_journalentry.state = 'pending'
    RETURNING botsrt_journalentry.id, botsrt_journalentry.edited_text"""


def _take(groups: Mapping[uuid.UUID, Sequence[_Due]], *, now: datetime) -> dict[uuid.UUID, list[_Due]]:
    """Give the entries to their turns. A turn that gets none, because others took them meanwhile, is not there."""
    if not groups:
        return {}
    taken, parameters = sql.values([(entry.id, turn_id) for turn_id, group in groups.items() for entry in group])
    edits = dict(sql.fetch(_TAKE.format(taken=taken), [now, *parameters]))
    found = {
        turn_id: [entry._replace(edited_text=edits[entry.id]) for entry in group if entry.id in edits]
        for turn_id, group in groups.items()
    }
    if empty := [turn_id for turn_id, group in found.items() if not group]:
        Turn.objects.filter(id__in=empty).delete()
    return {turn_id: group for turn_id, group in found.items() if group}


def _set_apart(turn_id: uuid.UUID, failure: Failure, *, now: datetime) -> None:
    """Park the message that nobody can read any more; of several each goes on alone, so that the right one is found."""
    _end(turn_id, TurnState.FAILED, now=now, error_class=failure.error_class, error_text=failure.error_text)
    claimed = JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED)
    entries = list(claimed)
    if len(entries) > 1:
        claimed.update(state=EntryState.PENDING, runs_alone=True)
        nudge.journal()
        return
    for entry in entries:
        _die(entry, reason=DLQReason.UNREADABLE, failure=failure, now=now)


def _attempt(group: Sequence[_Due]) -> int:
    return max(entry.attempts + entry.deaths for entry in group) + 1


def next_due_at(*, now: datetime) -> datetime | None:
    """When the next of the entries that wait for their time may be claimed; None: none waits for that."""
    found = sql.fetch(_NEXT_DUE, [now])
    return sql.as_moment(found[0][0]) if found else None


_NEXT_DUE = """SELECT available_at FROM botsrt_journalentry
    WHERE state = 'pending' AND available_at > %s ORDER BY available_at, id LIMIT 1"""


def claim_entry(
    *, entry_id: int, worker_id: str, lease: timedelta, claim_timeout: timedelta, lane: str = "", now: datetime
) -> ClaimedTurn | None:
    """Claim one pending entry for a turn of its own, due or not, whether or not its bot is enabled.

    Args:
        lane: where it runs; empty: in the lane of its session.

    Returns:
        None while another turn of its lane runs.

    Raises:
        NotFound: there is no such entry.
        Conflict: it is not pending (any more), or the bot does not have the conversation.
    """
    with transaction.atomic():
        entry = JournalEntry.objects.filter(pk=entry_id).first()
        if entry is None or entry.session_id is None:
            raise NotFound(f"There is no journal entry {entry_id} with a message.")
        session = BotSession.objects.select_for_update(no_key=True).get(pk=entry.session_id)
        if session.handler != Handler.BOT:
            raise Conflict(
                f"The bot does not have the conversation {session.session_id}: {session.handler_by} took it over, or "
                "paused the bot."
            )
        lane = lane or session.lane
        # Looked at before it is tried: on PostgreSQL the try would wait for the end of that turn, which waits for us.
        if Turn.objects.filter(lane=lane, runs_aside=False, state=TurnState.RUNNING).exists():
            return None
        turn = Turn(
            id=new_turn_id(),
            lane=lane,
            session=session,
            generation=session.epoch,
            worker_id=worker_id,
            lease_expires_at=now + lease,
            deadline_at=now + claim_timeout,
            trigger=entry.trigger,
            run_mode=entry.run_mode,
            requested_by=entry.requested_by,
            request_reason=entry.request_reason,
            attempt=entry.attempts + entry.deaths + 1,
            started_at=now,
        )
        Turn.objects.bulk_create([turn], ignore_conflicts=True)
        if not Turn.objects.filter(id=turn.id).exists():
            return None
        taken = JournalEntry.objects.filter(pk=entry_id, state=EntryState.PENDING).update(
            state=EntryState.CLAIMED, turn=turn.id, claimed_at=now, lane=session.lane
        )
        if not taken:
            raise Conflict(f"Journal entry {entry_id} is {entry.state}; somebody else has it.")
        news.changed("journal", [entry_id])
        return _claimed([turn.id])[0]


class _Due(NamedTuple):
    """A due entry, with all that its turn needs to know of it. In the order of ``_DUE``."""

    id: int
    lane: str
    session_pk: int
    session_id: str
    platform: str
    account: str
    channel_id: str
    thread_id: str
    attempts: int
    deaths: int
    runs_alone: bool
    runs_aside: bool
    trigger: str
    run_mode: str
    requested_by: str
    request_reason: str
    command: str
    payload: Any
    edited_text: str | None
    received_at: Any
    contact_id: int
    is_blocked: bool
    root_id: int | None
    root_user_id: str | None
    is_root_blocked: bool | None

    @property
    def chat(self) -> tuple[str, str, str]:
        return self.account, self.channel_id, self.thread_id


#: What waits, is due, and may run: its bot is enabled, and has the conversation. What a human has in hand waits for
#: them; commands of the chat go on working.
_WAITING = """FROM botsrt_journalentry AS entry CROSS JOIN botsrt_botsession AS session {joins}
    WHERE {which} AND entry.state = 'pending' AND entry.available_at <= %s AND session.id = entry.session_id
        AND (session.handler = 'bot' OR entry.command <> '')
        AND entry.account IN (SELECT account FROM botsrt_bot WHERE is_enabled {accounts})"""

_IS_FREE = """ AND NOT EXISTS (SELECT 1 FROM botsrt_turn AS turn
        WHERE turn.lane = entry.lane AND turn.runs_aside = entry.runs_aside AND turn.state = 'running')
    ORDER BY entry.available_at, entry.id LIMIT %s"""

_DUE = """SELECT entry.id, entry.lane, session.id, session.session_id, entry.platform, entry.account, entry.channel_id,
    entry.thread_id, entry.attempts, entry.deaths, entry.runs_alone, entry.runs_aside, entry."trigger", entry.run_mode,
    entry.requested_by, entry.request_reason, entry.command, entry.payload, entry.edited_text, entry.received_at,
    contact.id, contact.is_blocked, root.id, root.platform_user_id, root.is_blocked """

_WHO = """LEFT JOIN botsrt_contact AS contact ON contact.id = entry.contact_id
    LEFT JOIN botsrt_contact AS root ON root.id = contact.alias_of_id"""


def _due_groups(
    *, accounts: Collection[str] | None, limit: int, aside_limit: int, max_entries: int, now: datetime
) -> list[list[_Due]]:
    """What the next turns should take: commands beside their lanes, then the entries of each claimable lane."""
    names = sorted(accounts) if accounts is not None else []
    only_these = f"AND account IN ({sql.marks(names)})" if names else ""

    def waiting(
        select: str, which: str, *, joins: str = "", end: str = "", limit: int, values: Sequence[Any] = ()
    ) -> Any:
        statement = select + _WAITING.format(which=which, joins=joins, accounts=only_these) + end
        return sql.fetch(statement, [*values, now, *names, limit])

    if accounts is not None and not names:
        return []
    # A lane may have many due entries, so more rows are read than lanes are wanted.
    asides: dict[str, _Due] = {}
    if aside_limit > 0:
        for row in waiting(_DUE, "entry.runs_aside", joins=_WHO, end=_IS_FREE, limit=aside_limit * 4):
            due = _Due(*row)
            asides.setdefault(due.lane, due)
    first = waiting("SELECT entry.lane ", "NOT entry.runs_aside", end=_IS_FREE, limit=limit * 4) if limit > 0 else []
    lanes = list(dict.fromkeys(lane for (lane,) in first))[:limit]
    by_lane: defaultdict[str, list[_Due]] = defaultdict(list)
    if lanes:
        which = f"entry.lane IN ({sql.marks(lanes)}) AND NOT entry.runs_aside"
        end = " ORDER BY entry.id LIMIT %s"
        for row in waiting(_DUE, which, joins=_WHO, end=end, limit=limit * max_entries, values=lanes):
            due = _Due(*row)
            by_lane[due.lane].append(due)
    return [
        *([due] for due in list(asides.values())[:aside_limit]),
        *(_group(by_lane[lane], max_entries=max_entries) for lane in lanes if by_lane[lane]),
    ]


def _group(due: Sequence[_Due], *, max_entries: int) -> list[_Due]:
    """What the next turn of one lane takes: its first entry, and what belongs with it.

    A command that keeps its place in the lane runs alone, after what was said before it and before what was said after
    it.
    """
    first = due[0]
    if first.runs_alone or first.command:
        return [first]
    before_command = takewhile(lambda entry: not entry.command, due)
    together = [entry for entry in before_command if not entry.runs_alone and entry.chat == first.chat]
    return together[:max_entries]


def _claimable(due_groups: Callable[[], list[list[_Due]]]) -> tuple[list[list[_Due]], dict[int, int]]:
    """The groups that can be claimed, and the epochs of their sessions, which stay as they are until the commit."""
    groups = due_groups()
    held = _locked(groups)
    if any(group[0].session_pk not in held for group in groups):  # some were moved to where they belong
        groups = due_groups()
        held = _locked(groups)
    ours = [
        group
        for group in groups
        if (session := held.get(group[0].session_pk)) and (session.is_bots or group[0].command)
    ]
    return ours, {pk: session.epoch for pk, session in held.items()}


class _Locked(NamedTuple):
    """A session that stays as it is until the commit."""

    epoch: int
    is_bots: bool  # nobody took it over since its entries were looked for


_LOCK = "SELECT id, lane, epoch, handler FROM botsrt_botsession WHERE id IN ({sessions}) ORDER BY id {lock}"


def _locked(groups: Sequence[Sequence[_Due]]) -> dict[int, _Locked]:
    """The sessions of the groups whose entries wait in their session's lane, locked, by their primary keys.

    An entry that was received, or asked for again, while its session moved waits where that had been: it is moved.
    """
    lanes: defaultdict[int, set[str]] = defaultdict(set)
    for group in groups:
        lanes[group[0].session_pk].add(group[0].lane)
    if not lanes:
        return {}
    lock = "FOR NO KEY UPDATE" if connection.features.has_select_for_no_key_update else ""
    statement = _LOCK.format(sessions=sql.marks(list(lanes)), lock=lock)
    found = {}
    for pk, lane, epoch, handler in sql.fetch(statement, list(lanes)):
        if lanes[pk] == {lane}:
            found[pk] = _Locked(epoch, handler == Handler.BOT)
        else:
            JournalEntry.objects.filter(session=pk, state=EntryState.PENDING).update(lane=lane)
            nudge.journal()
    return found


def _claimed_turn(turn_id: uuid.UUID, group: Sequence[_Due], *, generation: int) -> ClaimedTurn:
    """The turn that took the entries of ``group``."""
    first, last = group[0], group[-1]
    entries = tuple(map(_claimed_entry, group))
    return ClaimedTurn(
        id=turn_id,
        lane=first.lane,
        session_pk=first.session_pk,
        session_id=first.session_id,
        generation=generation,
        platform=last.platform,
        account=last.account,
        route=entries[-1].message.route,
        runs_aside=first.runs_aside,
        entries=entries,
        attempt=_attempt(group),
        trigger=Trigger(first.trigger),
        run_mode=RunMode(first.run_mode),
    )


def _claimed_entry(due: _Due) -> ClaimedEntry:
    payload = sql.as_json(due.payload)
    if due.edited_text is not None:
        payload["text"] = due.edited_text
    return ClaimedEntry(
        id=due.id,
        message=InboundMessage.from_payload(payload),
        received_at=sql.as_moment(due.received_at),
        attempts=due.attempts,
        deaths=due.deaths,
        contact_id=due.contact_id,
        root_id=due.root_id or due.contact_id,
        known_as=(due.root_user_id,) if due.root_user_id is not None else (),
        is_from_blocked=bool(due.is_blocked or due.is_root_blocked),
        command=due.command,
        sealed_code=payload.get("sealed_code", ""),
    )


def _claimed(turn_ids: Collection[uuid.UUID]) -> list[ClaimedTurn]:
    """The turns as they stand in the database, with their entries."""
    by_turn: defaultdict[uuid.UUID, list[JournalEntry]] = defaultdict(list)
    rows = JournalEntry.objects.filter(turn__in=turn_ids, state=EntryState.CLAIMED).order_by("id")
    for row in rows.select_related("turn", "session", "contact__alias_of").defer("raw"):
        assert row.turn_id is not None
        by_turn[row.turn_id].append(row)
    return [_as_claimed(rows) for rows in by_turn.values()]


def _as_claimed(rows: Sequence[JournalEntry]) -> ClaimedTurn:
    last = rows[-1]
    turn, session = last.turn, last.session
    assert turn is not None
    assert session is not None
    entries = tuple(as_claimed(row) for row in rows)
    return ClaimedTurn(
        id=turn.id,
        lane=turn.lane,
        session_pk=session.pk,
        session_id=session.session_id,
        generation=turn.generation,
        platform=last.platform,
        account=last.account,
        route=entries[-1].message.route,
        runs_aside=turn.runs_aside,
        entries=entries,
        attempt=turn.attempt,
        trigger=Trigger(turn.trigger),
        run_mode=RunMode(turn.run_mode),
    )


def rehearsal(*, entry_id: int) -> ClaimedTurn:
    """An entry as a turn that does not exist: for running the agent without storing anything.

    Raises:
        NotFound: there is no such entry.
        InvalidInput: it was not readable when it came.
    """
    row = JournalEntry.objects.select_related("session", "contact__alias_of").filter(pk=entry_id).first()
    if row is None:
        raise NotFound(f"There is no journal entry {entry_id}.")
    if row.session is None:
        raise InvalidInput("entry", f"{entry_id} was not readable when it came, so there is nothing to run.")
    entry = as_claimed(row)
    return ClaimedTurn(
        id=new_turn_id(),
        lane=row.lane,
        session_pk=row.session.pk,
        session_id=row.session.session_id,
        generation=row.session.epoch,
        platform=row.platform,
        account=row.account,
        route=entry.message.route,
        runs_aside=row.runs_aside,
        entries=(entry,),
        attempt=row.attempts + 1,
        trigger=Trigger.REPLAY,
        run_mode=RunMode.HOLD,
    )


def as_claimed(row: JournalEntry) -> ClaimedEntry:
    """The entry with its message, as staff edited it; ``row`` with contact and alias selected."""
    payload = dict(row.payload)
    if row.edited_text is not None:
        payload["text"] = row.edited_text
    contact = row.contact
    assert contact is not None  # only what could not be read has none
    root = contact.alias_of or contact
    return ClaimedEntry(
        id=row.pk,
        message=InboundMessage.from_payload(payload),
        received_at=row.received_at,
        attempts=row.attempts,
        deaths=row.deaths,
        contact_id=contact.pk,
        root_id=root.pk,
        known_as=(root.platform_user_id,) if root is not contact else (),
        is_from_blocked=contact.is_blocked or root.is_blocked,
        command=row.command,
        sealed_code=payload.get("sealed_code", ""),
    )


# -- the good end ----


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """How one turn is to end; a call of ``finish``."""

    turn: ClaimedTurn
    result: Result
    late_after: timedelta | None  # None: never too late
    now: datetime

    @cached_property
    def kept(self) -> list[ClaimedEntry]:
        """The entries that the result answers: neither dropped nor held."""
        dropped, held = self.result.dropped, self.result.held
        return [entry for entry in self.turn.entries if entry.id not in dropped and entry.id not in held]

    @cached_property
    def is_returned(self) -> bool:
        """Whoever asked has the reply."""
        return self.result.is_returned and bool(self.result.text)

    @cached_property
    def is_reply_held(self) -> bool:
        """The reply waits for staff."""
        if not self.result.parts:
            return False
        oldest = min(entry.received_at for entry in self.turn.entries)
        is_late = self.late_after is not None and self.now - oldest > self.late_after
        return is_late or self.turn.run_mode == RunMode.HOLD


def _finish_all(endings: Sequence[_Ending]) -> list[bool]:
    """``finish``, for many turns."""
    with transaction.atomic(savepoint=False):
        did_end = _end_all(endings)
        _write_down([ending for ending, did in zip(endings, did_end, strict=True) if did])
        return did_end


@batched(_Ending, _finish_all)
def finish(*, turn: ClaimedTurn, result: Result, late_after: timedelta, now: datetime) -> bool:
    """End a turn: history, outbox, the turn's result and its entries' completion, in one commit.

    A reply to a message older than ``late_after``, or of a turn that was asked to, is held for staff instead of sent.

    Returns:
        False when the turn is no longer running or its session moved on: nothing was changed, the result is refused.
    """
    return only(_finish_all([_Ending(turn=turn, result=result, late_after=late_after, now=now)]))


def conclude(*, turn: ClaimedTurn, act: Callable[[], Result], now: datetime) -> bool:
    """End a turn without an agent, then ``act``: what it changes and what it answers is one commit with the end.

    Returns:
        False when the turn is no longer running: ``act`` was not called.
    """
    with transaction.atomic():
        did_end = _end(turn.id, TurnState.FINISHED, now=now, generation=turn.generation)
        if did_end:
            _write_down([_Ending(turn=turn, result=act(), late_after=None, now=now)])
        return did_end


#: ``_end`` for many turns. The state is a condition on the row itself, which PostgreSQL looks at again after it waited
#: for another end.
_FINISH = """UPDATE botsrt_turn SET state = %s, finished_at = ends.column3, agent = ends.column4,
    agent_version = ends.column5, usage = {usage}
    FROM {ends} AS ends WHERE botsrt_turn.id = ends.column1 AND botsrt_turn.state = %s AND EXISTS (
        SELECT 1 FROM botsrt_botsession AS session
        WHERE session.id = botsrt_turn.session_id AND session.epoch = ends.column2)
    RETURNING botsrt_turn.id"""


def _end_all(endings: Sequence[_Ending]) -> list[bool]:
    """Finish the turns that still run; returns which did."""
    ends, parameters = sql.values(
        [
            (
                ending.turn.id,
                ending.turn.generation,
                ending.now,
                ending.result.agent,
                ending.result.agent_version,
                dict(ending.result.usage),
            )
            # One order for all who end turns, so that two of them never wait for each other.
            for ending in sorted(endings, key=lambda ending: ending.turn.id)
        ]
    )
    statement = _FINISH.format(ends=ends, usage=sql.cast("ends.column6", "jsonb"))
    ended = {pk for (pk,) in sql.fetch(statement, [TurnState.FINISHED, *parameters, TurnState.RUNNING])}
    return [sql.written(ending.turn.id) in ended for ending in endings]


def _write_down(endings: Sequence[_Ending]) -> None:
    """Everything that the results mean for the entries, the history and the outbox."""
    if not endings:
        return
    for ending in endings:
        _set_aside(ending)
    answered = [ending for ending in endings if ending.kept]
    _complete(answered)
    for ending in answered:
        if ending.result.begins_anew:
            _begin_anew(ending)
    sql.insert(HistoryMessage, [row for ending in answered for row in _history_rows(ending)])
    sessions.were_active({ending.turn.session_pk: ending.now for ending in answered})
    for ending in endings:
        turn, result = ending.turn, ending.result
        if result.runtime_state:
            sessions.keep_runtime_state(
                session_pk=turn.session_pk, runtime_id=result.runtime_id, turn_id=turn.id, state=result.runtime_state
            )
        if turn.attempt > 1 or turn.trigger != Trigger.MESSAGE:
            dlq.resolve(entry_ids=turn.entry_ids, now=ending.now)
    if replies := [row for ending in endings for row in _outbox_rows(ending)]:
        sql.insert(OutboxMessage, replies)
        nudge.outbox()
        news.changed("outbox")
    news.changed("journal", [entry_id for ending in endings for entry_id in ending.turn.entry_ids])


def _set_aside(ending: _Ending) -> None:
    """End the entries that no answer is for."""
    if not ending.result.dropped and not ending.result.held:
        return
    claimed = JournalEntry.objects.filter(turn=ending.turn.id, state=EntryState.CLAIMED)
    for entry_id, reason in ending.result.dropped.items():
        claimed.filter(pk=entry_id).update(
            state=EntryState.COMPLETED, outcome=Outcome.SILENT, outcome_reason=reason, completed_at=ending.now
        )
    for entry_id, reason in ending.result.held.items():
        claimed.filter(pk=entry_id).update(state=EntryState.HELD, outcome=Outcome.HELD, outcome_reason=reason)


_COMPLETE = """UPDATE botsrt_journalentry SET state = ends.column2, outcome = ends.column3,
    outcome_reason = ends.column4, completed_at = ends.column5
    FROM {ends} AS ends WHERE botsrt_journalentry.turn_id = ends.column1 AND botsrt_journalentry.state = %s
    RETURNING botsrt_journalentry.turn_id"""


def _complete(endings: Sequence[_Ending]) -> None:
    """The entries that the results answer have their outcomes."""
    if not endings:
        return
    ends, parameters = sql.values(
        [
            (
                ending.turn.id,
                *_outcome(ending),
                RETURNED if ending.is_returned else "",
                ending.now,
            )
            for ending in endings
        ]
    )
    done = sql.fetch(_COMPLETE.format(ends=ends), [*parameters, EntryState.CLAIMED])
    counts = Counter(turn_id for (turn_id,) in done)
    for ending in endings:
        if counts[sql.written(ending.turn.id)] > len(ending.kept):
            _let_go(ending.turn)


def _begin_anew(ending: _Ending) -> None:
    session = BotSession.objects.select_related("contact").get(pk=ending.turn.session_pk)
    first_at = min(entry.message.sent_at or entry.received_at for entry in ending.kept)  # the divider stands before it
    sessions.start_new(session=session, turn_id=ending.turn.id, now=first_at, text=ending.result.begins_anew)


def _let_go(turn: ClaimedTurn) -> None:
    """What joined the turn and was not taken by its agent is answered by the next one."""
    JournalEntry.objects.filter(turn=turn.id).exclude(pk__in=turn.entry_ids).update(
        state=EntryState.PENDING, outcome="", completed_at=None
    )
    nudge.journal()


def _outcome(ending: _Ending) -> tuple[EntryState, Outcome]:
    if ending.is_reply_held:
        return EntryState.HELD, Outcome.HELD
    has_reply = bool(ending.result.parts) or ending.is_returned
    return EntryState.COMPLETED, Outcome.ANSWERED if has_reply else Outcome.SILENT


def _said(
    entry: ClaimedEntry,
    *,
    session_pk: int,
    platform: str,
    account: str,
    turn_id: uuid.UUID | None = None,
    ordinal: int = 0,
    kind: HistoryKind = HistoryKind.CHAT,
) -> dict[str, Any]:
    """What a person wrote, as a row of the history."""
    message = entry.message
    return {
        "session_id": session_pk,
        "turn_id": turn_id,
        "ordinal": ordinal,
        "entry_id": entry.id,
        "role": Role.USER,
        "kind": kind,
        "sender_name": one_line(message.sender.display_name or message.sender.user_name),
        "text": message.text,
        "attachments": message.attachments_payload(),
        "route": _route_json(platform, account, message.route),
        "source": "",
        "metadata": {},
        "created_at": message.sent_at or entry.received_at,
    }


def write_down_said(entries: Sequence[JournalEntry]) -> None:
    """Make the messages of entries that no turn will answer part of their conversations, unless they are already.

    Args:
        entries: with contact and alias selected.
    """
    known = _in_history([row.pk for row in entries])
    sql.insert(
        HistoryMessage,
        [
            _said(as_claimed(row), session_pk=row.session_id, platform=row.platform, account=row.account)
            for row in entries
            if row.pk not in known and row.session_id is not None
        ],
    )


def _in_history(entry_ids: Collection[int]) -> set[int]:
    found = HistoryMessage.objects.filter(entry__in=entry_ids, role=Role.USER).values_list("entry", flat=True)
    return {pk for pk in found if pk is not None}


def _history_rows(ending: _Ending) -> Iterator[dict[str, Any]]:
    """The messages of the turn, then the reply. A message that an earlier turn wrote down already is not repeated."""
    turn, result, entries = ending.turn, ending.result, ending.kept
    known = _in_history(turn.entry_ids) if turn.trigger != Trigger.MESSAGE else set()
    for ordinal, entry in enumerate(entries):
        if entry.id not in known:
            yield _said(
                entry,
                session_pk=turn.session_pk,
                platform=turn.platform,
                account=turn.account,
                turn_id=turn.id,
                ordinal=ordinal,
                kind=result.kind,
            )
    if result.text:
        yield {
            "session_id": turn.session_pk,
            "turn_id": turn.id,
            "ordinal": len(entries),
            "entry_id": None,
            "role": Role.ASSISTANT,
            "kind": result.kind,
            "sender_name": "",
            "text": storable(result.text),
            "attachments": [],
            "route": _route_json(turn.platform, turn.account, turn.route),
            "source": result.agent,
            "metadata": dict(result.metadata),
            "created_at": ending.now,
        }


def _route_json(platform: str, account: str, route: Route) -> dict[str, str]:
    return {
        "platform": platform,
        "account": account,
        "channel_id": route.channel_id,
        "thread_id": route.thread_id,
    }


def _outbox_rows(ending: _Ending) -> list[dict[str, Any]]:
    """The parts of the reply."""
    turn, result, is_held = ending.turn, ending.result, ending.is_reply_held
    found = [
        {
            "idempotency_key": f"turn:{turn.id}:{number}",
            "platform": turn.platform,
            "account": turn.account,
            "channel_id": turn.route.channel_id,
            "thread_id": turn.route.thread_id,
            "reply_to": turn.route.reply_to if number == 0 else "",
            "session_id": turn.session_pk,
            "turn_id": turn.id,
            "entry_id": turn.entries[-1].id,
            "pairing_id": result.request.pk if result.request else None,
            "source": OutboxSource.REPLY,
            "text": storable(part),
            "state": OutboxState.HELD if is_held else OutboxState.PENDING,
            "edits": "",
            "is_resend": False,
            "next_attempt_at": ending.now,
            "created_at": ending.now,
        }
        for number, part in enumerate(result.parts)
    ]
    if found and result.preview_id is not None and not is_held:
        found[0] |= _in_place_of(result.preview_id, turn)
    return found


def _in_place_of(preview_id: int, turn: ClaimedTurn) -> dict[str, Any]:
    """What lets a message replace the preview. Where nobody knows whether that stands in the chat, it is labelled."""
    preview = Preview.objects.filter(pk=preview_id, turn=turn.id, is_leaving=False).first()
    if preview is None:
        return {}
    preview.delete()
    return {"edits": preview.platform_message_id, "is_resend": not preview.platform_message_id}


# -- the other ends ----


def fail(
    *, turn: ClaimedTurn, failure: Failure, max_attempts: int, notice_after: timedelta, notice_text: str, now: datetime
) -> bool:
    """End a turn whose agent failed: its entries are tried again later, or parked in the dead letter queue.

    Entries of a turn over several are tried again one by one, so that one bad message takes no other with it. The
    person is told once, when the next try is more than ``notice_after`` away.

    Args:
        notice_text: what they are told; empty: nothing.

    Returns:
        False when the turn is no longer running: nothing was changed.
    """
    state = TurnState.TIMED_OUT if failure.is_timeout else TurnState.FAILED
    with transaction.atomic():
        if not _end(turn.id, state, now=now, error_class=failure.error_class, error_text=failure.error_text):
            return False
        claimed = JournalEntry.objects.filter(turn=turn.id, state=EntryState.CLAIMED)
        entries = list(claimed)
        if len(entries) > 1:
            claimed.update(state=EntryState.PENDING, attempts=F("attempts") + 1, runs_alone=True, available_at=now)
            nudge.journal()
            news.changed("journal", turn.entry_ids)
            return True
        for entry in entries:
            entry.attempts += 1
            if failure.is_transient and not failure.is_timeout and entry.attempts < max_attempts:
                wait = max(backoff.before_turn(entry.attempts + 1), failure.retry_after or timedelta())
                _wait(entry, until=now + wait)
                is_far = wait > notice_after
            else:
                _die(
                    entry,
                    reason=DLQReason.TIMED_OUT if failure.is_timeout else DLQReason.FAILED,
                    failure=failure,
                    now=now,
                )
                is_far = True
            if is_far and notice_text:
                _tell_of_trouble(turn, entry, text=notice_text, now=now)
        nudge.journal()
        news.changed("journal", turn.entry_ids)
        return True


def give_up(*, turn: ClaimedTurn, failure: Failure, now: datetime) -> bool:
    """End a turn that failed, where whoever asked has heard why and nobody else waits: its entries are discarded.

    Returns:
        False when the turn is no longer running: nothing was changed.
    """
    state = TurnState.TIMED_OUT if failure.is_timeout else TurnState.FAILED
    with transaction.atomic():
        if not _end(turn.id, state, now=now, error_class=failure.error_class, error_text=failure.error_text):
            return False
        JournalEntry.objects.filter(turn=turn.id, state=EntryState.CLAIMED).update(
            state=EntryState.DISCARDED,
            outcome=Outcome.DISCARDED,
            outcome_reason=f"{failure.error_class}: {failure.error_text}",
            attempts=F("attempts") + 1,
            completed_at=now,
        )
        news.changed("journal", turn.entry_ids)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What a turn needs beside its entries, as it is at this moment."""

    bot: BotView | None  # None: removed meanwhile
    standings: Mapping[int, Standing]  # root contact → what staff decided; none: unknown
    persons: Mapping[int, str]  # root contact → unified user id, where linked
    history: tuple[HistoryItem, ...]
    begins_anew: str  # why the conversation begins anew with this turn; empty: it goes on
    runtime_state: RuntimeState = field(default_factory=dict)  # where the bot mirrors it, or there is no bot


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """Whose materials are asked for; a call of ``materials``."""

    turn: ClaimedTurn
    max_history: int
    refused_for: timedelta
    now: datetime

    @property
    def contact_ids(self) -> set[int]:
        return {entry.root_id for entry in self.turn.entries}


def _materials_all(needs: Sequence[_Need]) -> list[Materials]:
    """``materials``, for many turns."""
    for need in needs:
        identity.refresh(lane=need.turn.lane, now=need.now)
    views = bots.views(accounts={need.turn.account for need in needs})
    standings = _standings(needs, views)
    persons = identity.persons_of({contact_id for need in needs for contact_id in need.contact_ids})
    anew = {need.turn.id: _why_anew(need.turn, views.get(need.turn.account)) for need in needs}
    histories = _histories([need for need in needs if not anew[need.turn.id]])
    found = []
    for need in needs:
        turn, bot = need.turn, views.get(need.turn.account)
        found.append(
            Materials(
                bot=bot,
                standings=standings.get(turn.account, {}),
                persons={pk: persons[pk] for pk in need.contact_ids if pk in persons},
                history=() if anew[turn.id] else histories.get(turn.session_pk, ()),
                begins_anew=anew[turn.id],
                runtime_state=(
                    sessions.runtime_state(session_pk=turn.session_pk)
                    if bot is None or bot.mirrors_runtime_state
                    else {}
                ),
            )
        )
    return found


@batched(_Need, _materials_all)
def materials(*, turn: ClaimedTurn, max_history: int, refused_for: timedelta, now: datetime) -> Materials:
    """Read the bot's rules and agent, who writes, and the conversation so far."""
    return only(_materials_all([_Need(turn=turn, max_history=max_history, refused_for=refused_for, now=now)]))


def _histories(needs: Sequence[_Need]) -> dict[int, tuple[HistoryItem, ...]]:
    """What the agents may see, by session: that of the present contexts, with what is recalled in them."""
    found = sessions.histories({need.turn.session_pk: need.max_history for need in needs})
    recalling = contexts.recalling({need.turn.lane for need in needs})
    for need in needs:
        if need.turn.lane in recalling:
            history = found.get(need.turn.session_pk, ())
            found[need.turn.session_pk] = contexts.recalled(history, lane=need.turn.lane, max_messages=need.max_history)
    return found


def _standings(needs: Sequence[_Need], views: Mapping[str, BotView]) -> dict[str, Mapping[int, Standing]]:
    """By account: what staff decided about those who wrote, where the bot does not answer everybody anyway."""
    asked: defaultdict[str, list[_Need]] = defaultdict(list)
    for need in needs:
        bot = views.get(need.turn.account)
        if bot is not None and bot.rules.policy != UnknownUserPolicy.ALLOW:
            asked[bot.account].append(need)
    return {
        account: pairing.standings(
            account=account,
            contact_ids={contact_id for need in these for contact_id in need.contact_ids},
            refused_for=these[0].refused_for,
            now=these[0].now,
        )
        for account, these in asked.items()
    }


def _why_anew(turn: ClaimedTurn, bot: BotView | None) -> str:
    """Why the bot's policy wants a new conversation: seen from when the message came, however long it waited since."""
    if bot is None or (bot.resets.idle is None and bot.resets.daily_at is None):
        return ""
    last_at = sessions.last_said_at(session_pk=turn.session_pk)
    came_at = min(entry.received_at for entry in turn.entries)
    return resets.why(bot.resets, last_at=last_at, now=came_at) if last_at is not None else ""


def release(*, turn_id: uuid.UUID, available_at: datetime, reason: Failure | None = None, now: datetime) -> bool:
    """Hand a running turn back without using up an attempt: drain, a stopped bot, an agent that cannot run now.

    Args:
        reason: what the agent said, for staff.

    Returns:
        False when the turn is no longer running.
    """
    with transaction.atomic():
        said: dict[str, Any] = {"error_class": reason.error_class, "error_text": reason.error_text} if reason else {}
        if not _end(turn_id, TurnState.CANCELLED, now=now, **said):
            return False
        JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED).update(
            state=EntryState.PENDING, available_at=available_at
        )
        nudge.journal()
        news.changed("journal")
        return True


def renew(*, worker_id: str, turn_ids: Collection[uuid.UUID], lease: timedelta, now: datetime) -> set[uuid.UUID]:
    """Keep the claims of running turns. Returns the ids that this worker has lost, and must stop running: abandoned,
    cancelled by somebody else, or past their deadline. Turns that ended well are not among them."""
    with transaction.atomic():
        turns = Turn.objects.filter(id__in=turn_ids)
        running = turns.filter(worker_id=worker_id, state=TurnState.RUNNING)
        running.filter(deadline_at__gt=now).update(lease_expires_at=now + lease)
        is_taken = Q(state__in=(TurnState.ABANDONED, TurnState.CANCELLED))
        is_too_late = Q(state=TurnState.RUNNING, deadline_at__lte=now)
        return set(turns.filter(is_taken | is_too_late).values_list("id", flat=True))


def abandon_expired(*, max_worker_deaths: int, now: datetime) -> int:
    """End the turns whose workers fell silent; their entries become pending again, or poison. Returns how many turns.

    Entries of a turn over several go on one by one, so that the one that kills workers is found.
    """
    with transaction.atomic():
        expired = Turn.objects.filter(state=TurnState.RUNNING, lease_expires_at__lte=now)
        ids = list(expired.values_list("id", flat=True)[:500])
        ended = [turn_id for turn_id in ids if _end(turn_id, TurnState.ABANDONED, now=now)]
        for turn_id in ended:
            _give_back_or_poison(
                JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED),
                max_worker_deaths=max_worker_deaths,
                now=now,
            )
        if ended:
            nudge.journal()
            news.changed("journal")
        return len(ended)


def _give_back_or_poison(entries: QuerySet[JournalEntry], *, max_worker_deaths: int, now: datetime) -> None:
    rows = list(entries)
    for entry in rows:
        entry.deaths += 1
        if entry.deaths >= max_worker_deaths and len(rows) == 1:
            failure = Failure(
                error_class="WorkerDied",
                error_text=f"{entry.deaths} workers died or fell silent while they ran this message.",
            )
            _die(entry, reason=DLQReason.POISON, failure=failure, now=now)
        else:
            entry.runs_alone = entry.runs_alone or len(rows) > 1
            _wait(entry, until=now)


def _end(turn_id: uuid.UUID, state: TurnState, *, now: datetime, generation: int | None = None, **fields: Any) -> bool:
    """Move a running turn to its end. The row count says who won."""
    running = Turn.objects.filter(id=turn_id, state=TurnState.RUNNING)
    if generation is not None:
        # No join: Django would put all conditions into a subquery, which PostgreSQL looks at only once. After it waited
        # for another end of the turn it would find it running still.
        session = BotSession.objects.filter(pk=OuterRef("session"), epoch=generation)
        running = running.filter(Exists(session))
    return bool(running.update(state=state, finished_at=now, **fields))


def _wait(entry: JournalEntry, *, until: datetime) -> None:
    entry.state, entry.available_at = EntryState.PENDING, until
    entry.save(update_fields=["state", "available_at", "attempts", "deaths", "runs_alone"])


def _die(entry: JournalEntry, *, reason: DLQReason, failure: Failure, now: datetime) -> None:
    entry.state, entry.outcome, entry.completed_at = EntryState.DEAD, Outcome.DEAD, now
    entry.save(update_fields=["state", "outcome", "completed_at", "attempts", "deaths"])
    dlq.park(entry=entry, reason=reason, failure=failure, now=now)


def _tell_of_trouble(turn: ClaimedTurn, entry: JournalEntry, *, text: str, now: datetime) -> None:
    """One notice for an entry, however often it fails: the key sees to that."""
    address = Address(
        platform=entry.platform,
        account=entry.account,
        channel_id=entry.channel_id,
        thread_id=entry.thread_id,
        reply_to=turn.route.reply_to,
        session_pk=turn.session_pk,
    )
    notices.tell(address, text, key=trouble_key(entry.pk), entry_id=entry.pk, now=now)


def trouble_key(entry_id: int) -> str:
    """The key of the one notice that tells a person of trouble with their message."""
    return f"trouble:{entry_id}"
