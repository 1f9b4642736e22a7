"""Turns: claim, finish, fail, release, abandon. Every way a turn can end is one function and one commit.

Each ending is a filtered update on the running turn: a late result of a turn that was abandoned, stopped or overtaken
changes nothing, and its caller is told.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from botsrt.core import backoff, resets
from botsrt.core.errors import Conflict, InvalidInput, NotFound
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
from botsrt.models import Bot, BotSession, HistoryMessage, JournalEntry, OutboxMessage, Pairing, Preview, Turn
from botsrt.models.turns import new_turn_id
from botsrt.services import bots, dlq, identity, news, notices, nudge, pairing, sessions
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
    with transaction.atomic():
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
        wanted = [
            Turn(
                id=new_turn_id(),
                lane=group[0].lane,
                runs_aside=group[0].runs_aside,
                session_id=group[0].session_id,
                generation=epochs[group[0].session_id],
                worker_id=worker_id,
                lease_expires_at=now + lease,
                deadline_at=now + claim_timeout,
                trigger=group[0].trigger,
                run_mode=group[0].run_mode,
                requested_by=group[0].requested_by,
                request_reason=group[0].request_reason,
                attempt=max(entry.attempts + entry.deaths for entry in group) + 1,
                started_at=now,
            )
            for group in groups
        ]
        # The unique constraint on running lanes decides who wins; a row that lost is simply not there afterwards.
        Turn.objects.bulk_create(wanted, ignore_conflicts=True)
        won = set(Turn.objects.filter(id__in=[turn.id for turn in wanted]).values_list("id", flat=True))
        for turn, group in zip(wanted, groups, strict=True):
            if turn.id not in won:
                continue
            taken = JournalEntry.objects.filter(id__in=[entry.id for entry in group], state=EntryState.PENDING).update(
                state=EntryState.CLAIMED, turn=turn.id, claimed_at=now
            )
            if not taken:
                Turn.objects.filter(id=turn.id).delete()
        claimed = _claimed(won)
        news.changed("journal", [entry_id for turn in claimed for entry_id in turn.entry_ids])
        return claimed


def next_due_at(*, now: datetime) -> datetime | None:
    """When the next of the entries that wait for their time may be claimed; None: none waits for that."""
    waiting = JournalEntry.objects.filter(state=EntryState.PENDING, available_at__gt=now)
    return waiting.order_by("available_at", "id").values_list("available_at", flat=True).first()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    id: int
    lane: str
    session_id: int
    account: str
    channel_id: str
    thread_id: str
    attempts: int
    deaths: int
    runs_alone: bool
    runs_aside: bool
    trigger: Trigger
    run_mode: RunMode
    requested_by: str
    request_reason: str
    command: str

    @property
    def chat(self) -> tuple[str, str, str]:
        return self.account, self.channel_id, self.thread_id


_DUE_FIELDS = (
    "id",
    "lane",
    "session_id",
    "account",
    "channel_id",
    "thread_id",
    "attempts",
    "deaths",
    "runs_alone",
    "runs_aside",
    "trigger",
    "run_mode",
    "requested_by",
    "request_reason",
    "command",
)


def _due_groups(
    *, accounts: Collection[str] | None, limit: int, aside_limit: int, max_entries: int, now: datetime
) -> list[list[_Due]]:
    """What the next turns should take: commands beside their lanes, then the entries of each claimable lane."""
    enabled = Bot.objects.filter(is_enabled=True)
    if accounts is not None:
        enabled = enabled.filter(account__in=accounts)
    # What a human has in hand waits for them; commands of the chat go on working.
    is_ours = Q(session__handler=Handler.BOT) | ~Q(command="")
    pending = JournalEntry.objects.filter(
        is_ours, state=EntryState.PENDING, available_at__lte=now, account__in=enabled.values("account")
    )
    running = Turn.objects.filter(lane=OuterRef("lane"), runs_aside=OuterRef("runs_aside"), state=TurnState.RUNNING)
    free = pending.filter(~Exists(running)).order_by("available_at", "id")
    # A lane may have many due entries, so more rows are read than lanes are wanted.
    first_asides: dict[str, _Due] = {}
    for row in free.filter(runs_aside=True).values(*_DUE_FIELDS)[: aside_limit * 4]:
        first_asides.setdefault(row["lane"], _Due(**row))
    first_rows = free.filter(runs_aside=False).values_list("lane", flat=True)[: limit * 4]
    lanes = list(dict.fromkeys(first_rows))[:limit]
    by_lane: defaultdict[str, list[_Due]] = defaultdict(list)
    if lanes:
        rows = pending.filter(lane__in=lanes, runs_aside=False).order_by("id")
        for row in rows.values(*_DUE_FIELDS)[: limit * max_entries]:
            by_lane[row["lane"]].append(_Due(**row))
    return [
        *([first] for first in list(first_asides.values())[:aside_limit]),
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
    """The groups that can be claimed, and the epochs of their sessions, which stay in their lanes until the commit."""
    groups = due_groups()
    epochs = _locked_epochs(groups)
    if any(group[0].session_id not in epochs for group in groups):  # some were moved to where they belong
        groups = due_groups()
        epochs = _locked_epochs(groups)
    return [group for group in groups if group[0].session_id in epochs], epochs


def _locked_epochs(groups: Sequence[Sequence[_Due]]) -> dict[int, int]:
    """Session → epoch, of the groups whose entries wait in their session's lane. The sessions stay there until commit.

    An entry that was received, or asked for again, while its session moved waits where that had been: it is moved.
    """
    lanes: defaultdict[int, set[str]] = defaultdict(set)
    for group in groups:
        lanes[group[0].session_id].add(group[0].lane)
    locked = BotSession.objects.select_for_update(no_key=True).filter(pk__in=lanes).order_by("pk")
    epochs = {}
    for pk, lane, epoch in locked.values_list("pk", "lane", "epoch"):
        if lanes[pk] == {lane}:
            epochs[pk] = epoch
        else:
            JournalEntry.objects.filter(session=pk, state=EntryState.PENDING).update(lane=lane)
            nudge.journal()
    return epochs


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


def finish(*, turn: ClaimedTurn, result: Result, late_after: timedelta, now: datetime) -> bool:
    """End a turn: history, outbox, the turn's result and its entries' completion, in one commit.

    A reply to a message older than ``late_after``, or of a turn that was asked to, is held for staff instead of sent.

    Returns:
        False when the turn is no longer running or its session moved on: nothing was changed, the result is refused.
    """
    with transaction.atomic():
        did_end = _end(
            turn.id,
            TurnState.FINISHED,
            now=now,
            generation=turn.generation,
            agent=result.agent,
            agent_version=result.agent_version,
            usage=dict(result.usage),
        )
        if did_end:
            _write_down(turn, result, late_after=late_after, now=now)
        return did_end


def conclude(*, turn: ClaimedTurn, act: Callable[[], Result], now: datetime) -> bool:
    """End a turn without an agent, then ``act``: what it changes and what it answers is one commit with the end.

    Returns:
        False when the turn is no longer running: ``act`` was not called.
    """
    with transaction.atomic():
        did_end = _end(turn.id, TurnState.FINISHED, now=now, generation=turn.generation)
        if did_end:
            _write_down(turn, act(), late_after=None, now=now)
        return did_end


def _write_down(turn: ClaimedTurn, result: Result, *, late_after: timedelta | None, now: datetime) -> None:
    """Everything that ``result`` means for the entries, the history and the outbox."""
    is_late = late_after is not None and now - min(entry.received_at for entry in turn.entries) > late_after
    is_held = bool(result.parts) and (is_late or turn.run_mode == RunMode.HOLD)
    is_returned = result.is_returned and bool(result.text)
    state, outcome = _ending(has_reply=bool(result.parts) or is_returned, is_held=is_held)
    claimed = JournalEntry.objects.filter(turn=turn.id, state=EntryState.CLAIMED)
    for entry_id, reason in result.dropped.items():
        claimed.filter(pk=entry_id).update(
            state=EntryState.COMPLETED, outcome=Outcome.SILENT, outcome_reason=reason, completed_at=now
        )
    for entry_id, reason in result.held.items():
        claimed.filter(pk=entry_id).update(state=EntryState.HELD, outcome=Outcome.HELD, outcome_reason=reason)
    kept = [entry for entry in turn.entries if entry.id not in result.dropped and entry.id not in result.held]
    if kept:
        reason = RETURNED if is_returned else ""
        if claimed.update(state=state, outcome=outcome, outcome_reason=reason, completed_at=now) > len(kept):
            _let_go(turn)
        if result.begins_anew:
            session = BotSession.objects.select_related("contact").get(pk=turn.session_pk)
            first_at = min(entry.message.sent_at or entry.received_at for entry in kept)  # the divider stands before it
            sessions.start_new(session=session, turn_id=turn.id, now=first_at, text=result.begins_anew)
        HistoryMessage.objects.bulk_create(_history_rows(turn, kept, result, now=now))
        BotSession.objects.filter(pk=turn.session_pk).update(last_activity_at=now)
    if result.runtime_state:
        sessions.keep_runtime_state(
            session_pk=turn.session_pk, runtime_id=result.runtime_id, turn_id=turn.id, state=result.runtime_state
        )
    if result.parts:
        rows = _outbox_rows(turn, result, state=OutboxState.HELD if is_held else OutboxState.PENDING, now=now)
        if result.preview_id is not None and not is_held:
            _take_the_place_of(result.preview_id, turn, rows[0])
        OutboxMessage.objects.bulk_create(rows)
        nudge.outbox()
        news.changed("outbox")
    news.changed("journal", turn.entry_ids)
    if turn.attempt > 1 or turn.trigger != Trigger.MESSAGE:
        dlq.resolve(entry_ids=turn.entry_ids, now=now)


def _let_go(turn: ClaimedTurn) -> None:
    """What joined the turn and was not taken by its agent is answered by the next one."""
    JournalEntry.objects.filter(turn=turn.id).exclude(pk__in=turn.entry_ids).update(
        state=EntryState.PENDING, outcome="", completed_at=None
    )
    nudge.journal()


def _ending(*, has_reply: bool, is_held: bool) -> tuple[EntryState, Outcome]:
    if is_held:
        return EntryState.HELD, Outcome.HELD
    return EntryState.COMPLETED, Outcome.ANSWERED if has_reply else Outcome.SILENT


def said(
    entry: ClaimedEntry,
    *,
    session_pk: int,
    platform: str,
    account: str,
    turn_id: uuid.UUID | None = None,
    ordinal: int = 0,
    kind: HistoryKind = HistoryKind.CHAT,
) -> HistoryMessage:
    """What a person wrote, as a row of the history."""
    message = entry.message
    return HistoryMessage(
        session_id=session_pk,
        turn_id=turn_id,
        ordinal=ordinal,
        entry_id=entry.id,
        role=Role.USER,
        kind=kind,
        sender_name=one_line(message.sender.display_name or message.sender.user_name),
        text=message.text,
        attachments=message.to_payload()["attachments"],
        route=_route_json(platform, account, message.route),
        created_at=message.sent_at or entry.received_at,
    )


def write_down_said(rows: Sequence[JournalEntry]) -> None:
    """Make the messages of entries that no turn will answer part of their conversations, unless they are already.

    Args:
        rows: with contact and alias selected.
    """
    known = _in_history([row.pk for row in rows])
    HistoryMessage.objects.bulk_create(
        said(as_claimed(row), session_pk=row.session_id, platform=row.platform, account=row.account)
        for row in rows
        if row.pk not in known and row.session_id is not None
    )


def _in_history(entry_ids: Collection[int]) -> set[int]:
    rows = HistoryMessage.objects.filter(entry__in=entry_ids, role=Role.USER).values_list("entry", flat=True)
    return {pk for pk in rows if pk is not None}


def _history_rows(
    turn: ClaimedTurn, entries: Sequence[ClaimedEntry], result: Result, *, now: datetime
) -> list[HistoryMessage]:
    """The messages of the turn, then the reply. A message that an earlier turn wrote down already is not repeated."""
    known = _in_history(turn.entry_ids) if turn.trigger != Trigger.MESSAGE else set()
    rows = [
        said(
            entry,
            session_pk=turn.session_pk,
            platform=turn.platform,
            account=turn.account,
            turn_id=turn.id,
            ordinal=ordinal,
            kind=result.kind,
        )
        for ordinal, entry in enumerate(entries)
        if entry.id not in known
    ]
    if result.text:
        rows.append(
            HistoryMessage(
                session_id=turn.session_pk,
                turn_id=turn.id,
                ordinal=len(entries),
                role=Role.ASSISTANT,
                kind=result.kind,
                text=storable(result.text),
                route=_route_json(turn.platform, turn.account, turn.route),
                source=result.agent,
                metadata=dict(result.metadata),
                created_at=now,
            )
        )
    return rows


def _route_json(platform: str, account: str, route: Route) -> dict[str, str]:
    return {
        "platform": platform,
        "account": account,
        "channel_id": route.channel_id,
        "thread_id": route.thread_id,
    }


def _outbox_rows(turn: ClaimedTurn, result: Result, *, state: OutboxState, now: datetime) -> list[OutboxMessage]:
    return [
        OutboxMessage(
            idempotency_key=f"turn:{turn.id}:{number}",
            platform=turn.platform,
            account=turn.account,
            channel_id=turn.route.channel_id,
            thread_id=turn.route.thread_id,
            reply_to=turn.route.reply_to if number == 0 else "",
            session_id=turn.session_pk,
            turn_id=turn.id,
            entry_id=turn.entries[-1].id,
            pairing=result.request,
            source=OutboxSource.REPLY,
            text=storable(part),
            state=state,
            next_attempt_at=now,
            created_at=now,
        )
        for number, part in enumerate(result.parts)
    ]


def _take_the_place_of(preview_id: int, turn: ClaimedTurn, row: OutboxMessage) -> None:
    """Let ``row`` replace the preview. Where nobody knows whether that stands in the chat, it is labelled."""
    preview = Preview.objects.filter(pk=preview_id, turn=turn.id, is_leaving=False).first()
    if preview is not None:
        row.edits, row.is_resend = preview.platform_message_id, not preview.platform_message_id
        preview.delete()


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


def materials(*, turn: ClaimedTurn, max_history: int, refused_for: timedelta, now: datetime) -> Materials:
    """Read the bot's rules and agent, who writes, and the conversation so far."""
    identity.refresh(lane=turn.lane, now=now)
    contacts = {entry.root_id for entry in turn.entries}
    bot = bots.views(accounts=[turn.account]).get(turn.account)
    standings: Mapping[int, Standing] = {}
    if bot is not None and bot.rules.policy != UnknownUserPolicy.ALLOW:
        standings = pairing.standings(account=turn.account, contact_ids=contacts, refused_for=refused_for, now=now)
    begins_anew = _why_anew(turn, bot) if bot is not None else ""
    return Materials(
        bot=bot,
        standings=standings,
        persons=identity.persons_of(contacts),
        history=() if begins_anew else sessions.history(session_pk=turn.session_pk, max_messages=max_history),
        begins_anew=begins_anew,
        runtime_state=(
            sessions.runtime_state(session_pk=turn.session_pk) if bot is None or bot.mirrors_runtime_state else {}
        ),
    )


def _why_anew(turn: ClaimedTurn, bot: BotView) -> str:
    """Why the bot's policy wants a new conversation: seen from when the message came, however long it waited since."""
    if bot.resets.idle is None and bot.resets.daily_at is None:
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
