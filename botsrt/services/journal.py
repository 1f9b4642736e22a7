"""The inbound journal: receive and replay. Claiming and completing belong to turns (``services.turns``)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

from botsrt.core import commands
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.messages import MAX_ID_CHARS, InboundMessage
from botsrt.core.states import (
    WITHOUT_MESSAGE,
    ChatType,
    DLQReason,
    EntryState,
    EventKind,
    OutboxState,
    Outcome,
    RunMode,
    Trigger,
)
from botsrt.core.text import storable, storable_json
from botsrt.models import Contact, JournalEntry, OutboxMessage
from botsrt.services import audit, codes, dlq, entries, identity, news, nudge, pace, sessions, sql
from botsrt.services.batches import batched, only
from botsrt.services.dlq import Failure
from botsrt.services.pace import Coming, Pace
from botsrt.services.sessions import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """One inbound event; a call of ``receive``."""

    message: InboundMessage
    now: datetime
    max_raw_bytes: int
    is_from_program: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        message = self.message
        return message.platform, message.account, message.channel_id, message.message_id, message.revision


def _receive_all(arrivals: Sequence[_Arrival]) -> list[int | Exception | None]:
    """``receive``, for many events."""
    with transaction.atomic(savepoint=False):
        again = _known(arrivals)
        fresh: dict[tuple[str, ...], _Arrival] = {}
        for arrival in arrivals:
            if arrival.key in again or arrival.key in fresh:
                again[arrival.key] += 1
            else:
                fresh[arrival.key] = arrival
        stored = _store(_new(list(fresh.values())))
        again.update(key for key in fresh if key not in stored)  # another process was faster
        _count_duplicates(again)
        if stored:
            nudge.journal()
            news.changed("journal", stored.values())
        return [stored.get(arrival.key) if fresh.get(arrival.key) is arrival else None for arrival in arrivals]


@batched(_Arrival, _receive_all)
def receive(*, message: InboundMessage, now: datetime, max_raw_bytes: int, is_from_program: bool = False) -> int | None:
    """Store one inbound event, unless it is stored already.

    Args:
        is_from_program: it is never too fast.

    Returns:
        The entry's id; None for a redelivery, which is counted on its row and has no other effect.
    """
    arrival = _Arrival(message=message, now=now, max_raw_bytes=max_raw_bytes, is_from_program=is_from_program)
    return only(_receive_all([arrival]))


_KEY = ("platform", "account", "channel_id", "message_id", "revision")

_KNOWN = """SELECT arrival.column1, arrival.column2, arrival.column3, arrival.column4, arrival.column5
    FROM {arrivals} AS arrival CROSS JOIN botsrt_journalentry AS entry
    WHERE entry.platform = arrival.column1 AND entry.account = arrival.column2
        AND entry.channel_id = arrival.column3 AND entry.message_id = arrival.column4
        AND entry.revision = arrival.column5"""


def _known(arrivals: Sequence[_Arrival]) -> Counter[tuple[str, ...]]:
    """Keys of those that are stored already, each counted zero times."""
    keys, parameters = sql.values([arrival.key for arrival in arrivals])
    return Counter(dict.fromkeys(sql.fetch(_KNOWN.format(arrivals=keys), parameters), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _New:
    """An event that is not stored yet, and where it belongs."""

    arrival: _Arrival
    contact: Contact
    home: Home
    command: str

    @property
    def coming(self) -> Coming:
        return Coming(
            account=self.arrival.message.account,
            lane=self.home.lane,
            contact_id=self.contact.pk,
            command=self.command,
            is_album=bool(self.arrival.message.album),
            may_be_too_fast=not self.arrival.is_from_program,
            now=self.arrival.now,
        )


def _new(arrivals: Sequence[_Arrival]) -> list[_New]:
    """The events with their contacts and sessions, made on first sight."""
    if not arrivals:
        return []
    contacts = identity.contacts_seen([(one.message.platform, one.message.sender, one.now) for one in arrivals])
    pairs = list(zip(arrivals, contacts, strict=True))
    homes = sessions.for_messages([(arrival.message, contact, arrival.now) for arrival, contact in pairs])
    return [
        _New(arrival=arrival, contact=contact, home=home, command=_command(arrival.message))
        for (arrival, contact), home in zip(pairs, homes, strict=True)
    ]


def _store(events: Sequence[_New]) -> dict[tuple[str, ...], int]:
    """Store new events; returns their entries' ids by key.

    Where what came before in a lane, or what runs there, says when a message is answered, one is stored after the
    other; all others are stored together.
    """
    if not events:
        return {}
    paces = pace.of([event.coming for event in events])
    paced = {event.home.lane for event, tempo in zip(events, paces, strict=True) if not tempo.is_plain}
    stored = _insert([pair for pair in zip(events, paces, strict=True) if pair[0].home.lane not in paced])
    for event in events:
        if event.home.lane in paced:
            (tempo,) = pace.of([event.coming])
            stored |= _insert([(event, tempo)])
    return stored


def _insert(events: Sequence[tuple[_New, Pace]]) -> dict[tuple[str, ...], int]:
    rows = [_row(event, tempo) for event, tempo in events]
    found = sql.insert(JournalEntry, rows, ignore_conflicts=True, returning=("id", *_KEY))
    stored = {tuple(key): entry_id for entry_id, *key in found}
    for event, tempo in events:
        if (tempo.is_too_fast or tempo.cares_for_runs) and (entry_id := stored.get(event.arrival.key)):
            pace.arrived(tempo, entry=JournalEntry.objects.get(pk=entry_id), now=event.arrival.now)
    return stored


def _row(event: _New, tempo: Pace) -> dict[str, Any]:
    """One event, as a row of the journal."""
    arrival, contact, home = event.arrival, event.contact, event.home
    message, now = arrival.message, arrival.now
    words = codes.without_codes(message.text, contact_id=contact.pk)
    return {
        **dict(zip(_KEY, arrival.key, strict=True)),
        "thread_id": message.thread_id,
        "chat_type": message.chat_type,
        "kind": message.kind,
        "lane": home.lane,
        "session_id": home.session_pk,
        "command": event.command,
        "runs_aside": commands.runs_aside(event.command),
        "contact_id": contact.pk,
        "payload": {**message.to_payload(), "text": words.text, "sealed_code": words.sealed},
        "raw": None if words.had_code else _raw(message.raw, max_bytes=arrival.max_raw_bytes),
        "available_at": pace.due_at(
            tempo, message=message, command=event.command, lane=home.lane, contact=contact, now=now
        ),
        "received_at": now,
    }


def receive_unreadable(
    *,
    platform: str,
    account: str,
    event_id: str,
    raw: Mapping[str, Any],
    error: UnreadableUpdate,
    now: datetime,
    max_raw_bytes: int,
) -> int | None:
    """Keep an update that no adapter could read, parked in the dead letter queue from the start.

    Returns:
        The entry's id; None for a redelivery.
    """
    key = {"platform": platform, "account": account, "channel_id": "unreadable", "message_id": _event_key(event_id)}
    try:
        with transaction.atomic():
            entry = JournalEntry.objects.create(
                **key,
                chat_type=ChatType.DIRECT,
                kind=EventKind.UNREADABLE,
                payload={},
                raw=_raw(raw, max_bytes=max_raw_bytes),
                state=EntryState.DEAD,
                outcome=Outcome.DEAD,
                available_at=now,
                received_at=now,
                completed_at=now,
            )
            dlq.park(entry=entry, reason=DLQReason.UNREADABLE, failure=Failure.of(error), now=now)
            news.changed("journal", [entry.pk])
            return entry.pk
    except IntegrityError:
        if not JournalEntry.objects.filter(**key).update(duplicates=F("duplicates") + 1):
            raise  # it was no redelivery
        return None


def newest(*, account: str, limit: int) -> list[InboundMessage]:
    """The latest messages of a bot, newest first, each with its platform's own update where that is still kept."""
    rows = JournalEntry.objects.filter(account=account).exclude(kind__in=WITHOUT_MESSAGE).order_by("-id")
    found = []
    for payload, raw in rows.values_list("payload", "raw")[:limit]:
        with suppress(UnreadableUpdate):  # written by another version
            found.append(replace(InboundMessage.from_payload(payload), raw=raw or {}))
    return found


def replay(*, entry_id: int, mode: RunMode, actor: Actor, reason: str, now: datetime) -> None:
    """Run an ended entry again, from its stored payload, and send its answer (or hold it for review).

    Raises:
        NotFound: there is no such entry.
        InvalidInput: it has no readable message.
        Conflict: it is pending or running already.
    """
    with transaction.atomic():
        entry = JournalEntry.objects.filter(pk=entry_id).first()
        if entry is None:
            raise NotFound(f"There is no journal entry {entry_id}.")
        if entry.kind in WITHOUT_MESSAGE:
            why = "was erased" if entry.kind == EventKind.ERASED else "was not readable when it came"
            raise InvalidInput("entry", f"{entry_id} {why}, so there is nothing to run.")
        before = entry.state
        if before == EntryState.HELD:
            _withdraw_held_reply(entry, actor=actor)
        rows = JournalEntry.objects.filter(
            pk=entry_id, state__in=(EntryState.COMPLETED, EntryState.HELD, EntryState.DEAD, EntryState.DISCARDED)
        )
        if not entries.requeue(rows, trigger=Trigger.REPLAY, mode=mode, actor=actor, reason=reason, now=now):
            raise Conflict(f"Journal entry {entry_id} is {before} already: {_who(entry)}.")
        dlq.retrying(entry_ids=[entry_id])
        audit.record(
            actor=actor,
            verb="journal.replay",
            object_kind="journal",
            object_id=entry_id,
            reason=reason,
            before={"state": before},
            after={"state": EntryState.PENDING, "mode": mode},
            now=now,
        )


def _command(message: InboundMessage) -> str:
    """What the runtime answers itself, and alone: the name of a command of the chat, or of a press."""
    if message.kind == EventKind.CALLBACK and commands.parse_press(message.text):
        return commands.BUTTON
    command = commands.parse(message.text) if message.kind == EventKind.MESSAGE else None
    return command.name if command else ""


def _count_duplicates(again: Mapping[tuple[str, ...], int]) -> None:
    """Count redeliveries on their rows."""
    for key, count in again.items():
        JournalEntry.objects.filter(**dict(zip(_KEY, key, strict=True))).update(duplicates=F("duplicates") + count)


def _event_key(event_id: str) -> str:
    """``event_id`` as a message id: storable, and no longer than the column, yet distinct."""
    clean = storable(event_id)
    if len(clean) <= MAX_ID_CHARS:
        return clean
    return clean[: MAX_ID_CHARS - 17] + "~" + hashlib.sha256(clean.encode()).hexdigest()[:16]


def _withdraw_held_reply(entry: JournalEntry, *, actor: Actor) -> None:
    """A new answer takes the place of the one that waits for review.

    Raises:
        Conflict: that one answers other messages too.
    """
    others = JournalEntry.objects.filter(turn=entry.turn_id, state=EntryState.HELD).exclude(pk=entry.pk).count()
    if others:
        raise Conflict(
            f"The held reply answers {others} other message{'s' if others > 1 else ''} too; "
            "decide about it first: outbox list --state held"
        )
    OutboxMessage.objects.filter(turn=entry.turn_id, state=OutboxState.HELD).update(
        state=OutboxState.DEAD, error=f"Withdrawn: {actor.name} replayed the message.", requested_by=actor.name
    )


def _raw(raw: Mapping[str, Any], *, max_bytes: int) -> object | None:
    """The platform's own update, or None when it is too large or too deep to keep beside the message."""
    if not raw:
        return None
    try:
        return storable_json(raw) if len(json.dumps(raw)) <= max_bytes else None
    except (TypeError, ValueError, RecursionError):  # not JSON, or nested deeper than can be walked
        return None


def _who(entry: JournalEntry) -> str:
    return f"requested by {entry.requested_by}" if entry.requested_by else "it waits for its turn"
