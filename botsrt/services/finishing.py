"""The good end of a turn: its result becomes history, messages to send, and the ends of its entries, in one commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.db import transaction

from botsrt.core.states import (
    EntryState,
    HistoryKind,
    OutboxSource,
    OutboxState,
    Outcome,
    Role,
    RunMode,
    Trigger,
    TurnState,
)
from botsrt.core.text import storable
from botsrt.models import BotSession, HistoryMessage, JournalEntry, OutboxMessage, Pairing, Preview
from botsrt.services import dlq, news, nudge, recording, sessions, sql, turns
from botsrt.services.batches import batched, only
from botsrt.services.claimed import ClaimedEntry, ClaimedTurn

#: ``outcome_reason`` of an entry whose reply went to the program that asked, and to no platform.
RETURNED = "returned_to_caller"


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
        did_end = turns.end(turn.id, TurnState.FINISHED, now=now, generation=turn.generation)
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


def _history_rows(ending: _Ending) -> Iterator[dict[str, Any]]:
    """The messages of the turn, then the reply. A message that an earlier turn wrote down already is not repeated."""
    turn, result, entries = ending.turn, ending.result, ending.kept
    known = recording.in_history(turn.entry_ids) if turn.trigger != Trigger.MESSAGE else set()
    for ordinal, entry in enumerate(entries):
        if entry.id not in known:
            yield recording.said(
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
            "route": recording.route_json(turn.platform, turn.account, turn.route),
            "source": result.agent,
            "metadata": dict(result.metadata),
            "created_at": ending.now,
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
