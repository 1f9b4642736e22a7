"""Claim what waits: who runs which entries is decided here, by constraints and row counts."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

from django.db import connection, transaction

from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.states import EntryState, Handler, RunMode, Trigger, TurnState
from botsrt.models import BotSession, JournalEntry, Turn
from botsrt.models.turns import new_turn_id
from botsrt.services import claimed, news, nudge, sql, turns
from botsrt.services.claimed import ClaimedTurn, EntryRow
from botsrt.services.dlq import Failure


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
        won = _begin(wanted, epochs, worker_id=worker_id, lease=lease, claim_timeout=claim_timeout, now=now)
        taken = _take({turn_id: group for turn_id, group in wanted.items() if turn_id in won}, now=now)
        if taken:
            news.changed("journal", [entry.id for group in taken.values() for entry in group])
        found = []
        for turn_id, group in taken.items():
            try:
                found.append(claimed.turn_of(turn_id, group, generation=epochs[group[0].session_pk]))
            except UnreadableUpdate as error:
                turns.set_apart(turn_id, Failure.of(error), now=now)
        return found


def _begin(
    groups: Mapping[uuid.UUID, Sequence[EntryRow]],
    epochs: Mapping[int, int],
    *,
    worker_id: str,
    lease: timedelta,
    claim_timeout: timedelta,
    now: datetime,
) -> set[uuid.UUID]:
    """Begin a turn over each group, in the lane of its entries. Returns those that run: where another turn of the lane
    runs, the unique constraint on running lanes leaves a new one out."""
    begun = sql.insert(
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
                "attempt": claimed.attempt(group),
                "started_at": now,
            }
            for turn_id, group in groups.items()
        ],
        ignore_conflicts=True,
        returning=("id",),
    )
    ids = {pk for (pk,) in begun}
    return {turn_id for turn_id in groups if sql.written(turn_id) in ids}


_TAKE = """UPDATE botsrt_journalentry SET state = 'claimed', turn_id = taken.column2, claimed_at = %s
    FROM {taken} AS taken WHERE botsrt_journalentry.id = taken.column1 AND botsrt_journalentry.state = 'pending'
    RETURNING botsrt_journalentry.id, botsrt_journalentry.edited_text"""


def _take(groups: Mapping[uuid.UUID, Sequence[EntryRow]], *, now: datetime) -> dict[uuid.UUID, list[EntryRow]]:
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
        found = claimed.rows([entry_id])
        if not found:
            raise NotFound(f"There is no journal entry {entry_id} with a message.")
        session = BotSession.objects.select_for_update(no_key=True).get(pk=found[0].session_pk)
        if session.handler != Handler.BOT:
            raise Conflict(
                f"The bot does not have the conversation {session.session_id}: {session.handler_by} took it over, or "
                "paused the bot."
            )
        # It may wait where its session was before, and it runs in a turn of the lane, whatever it is.
        group = [found[0]._replace(lane=lane or session.lane, runs_aside=False)]
        # Looked at before it is tried: on PostgreSQL the try would wait for the end of that turn, which waits for us.
        if Turn.objects.filter(lane=group[0].lane, runs_aside=False, state=TurnState.RUNNING).exists():
            return None
        turn_id = new_turn_id()
        epochs = {session.pk: session.epoch}
        if not _begin({turn_id: group}, epochs, worker_id=worker_id, lease=lease, claim_timeout=claim_timeout, now=now):
            return None
        taken = _take({turn_id: group}, now=now)
        entry = JournalEntry.objects.filter(pk=entry_id)
        if not taken:
            raise Conflict(f"Journal entry {entry_id} is {entry.get().state}; somebody else has it.")
        entry.update(lane=session.lane)
        news.changed("journal", [entry_id])
        return claimed.turn_of(turn_id, taken[turn_id], generation=session.epoch)


def rehearsal(*, entry_id: int) -> ClaimedTurn:
    """An entry as a turn that does not exist: for running the agent without storing anything.

    Raises:
        NotFound: there is no such entry.
        InvalidInput: it was not readable when it came.
    """
    found = claimed.rows([entry_id])
    if not found:
        if JournalEntry.objects.filter(pk=entry_id).exists():
            raise InvalidInput("entry", f"{entry_id} was not readable when it came, so there is nothing to run.")
        raise NotFound(f"There is no journal entry {entry_id}.")
    turn = claimed.turn_of(new_turn_id(), found, generation=0)  # it ends nowhere, so no epoch is looked at
    return replace(turn, trigger=Trigger.REPLAY, run_mode=RunMode.HOLD)


# -- what is due ----


#: What waits, is due, and may run: its bot is enabled, and has the conversation. What a human has in hand waits for
#: them; commands of the chat go on working.
_WAITING = """FROM botsrt_journalentry AS entry CROSS JOIN botsrt_botsession AS session {joins}
    WHERE {which} AND entry.state = 'pending' AND entry.available_at <= %s AND session.id = entry.session_id
        AND (session.handler = 'bot' OR entry.command <> '')
        AND entry.account IN (SELECT account FROM botsrt_bot WHERE is_enabled {accounts})"""

#: The running turns are few, and read once: PostgreSQL, asked for each entry whether there is none, would read them all
#: each time.
_IS_FREE = """ AND (entry.lane, entry.runs_aside) NOT IN (
        SELECT turn.lane, turn.runs_aside FROM botsrt_turn AS turn WHERE turn.state = 'running')
    ORDER BY entry.available_at, entry.id LIMIT %s"""


def _due_groups(
    *, accounts: Collection[str] | None, limit: int, aside_limit: int, max_entries: int, now: datetime
) -> list[list[EntryRow]]:
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
    asides: dict[str, EntryRow] = {}
    if aside_limit > 0:
        for row in waiting(claimed.SELECT, "entry.runs_aside", joins=claimed.WHO, end=_IS_FREE, limit=aside_limit * 4):
            entry = EntryRow(*row)
            asides.setdefault(entry.lane, entry)
    first = waiting("SELECT entry.lane ", "NOT entry.runs_aside", end=_IS_FREE, limit=limit * 4) if limit > 0 else []
    lanes = list(dict.fromkeys(lane for (lane,) in first))[:limit]
    by_lane: defaultdict[str, list[EntryRow]] = defaultdict(list)
    if lanes:
        which = f"entry.lane IN ({sql.marks(lanes)}) AND NOT entry.runs_aside"
        end = " ORDER BY entry.id LIMIT %s"
        for row in waiting(claimed.SELECT, which, joins=claimed.WHO, end=end, limit=limit * max_entries, values=lanes):
            entry = EntryRow(*row)
            by_lane[entry.lane].append(entry)
    return [
        *([due] for due in list(asides.values())[:aside_limit]),
        *(_group(by_lane[lane], max_entries=max_entries) for lane in lanes if by_lane[lane]),
    ]


def _group(due: Sequence[EntryRow], *, max_entries: int) -> list[EntryRow]:
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


def _claimable(due_groups: Callable[[], list[list[EntryRow]]]) -> tuple[list[list[EntryRow]], dict[int, int]]:
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


def _locked(groups: Sequence[Sequence[EntryRow]]) -> dict[int, _Locked]:
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
