"""The inbound journal: receive and replay. Claiming and completing belong to turns (``services.turns``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

from botsrt.core import commands
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.messages import MAX_ID_CHARS, InboundMessage
from botsrt.core.states import ChatType, DLQReason, EntryState, EventKind, OutboxState, Outcome, RunMode, Trigger
from botsrt.core.text import storable, storable_json
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.services import audit, codes, dlq, entries, identity, news, nudge, pace, sessions
from botsrt.services.dlq import Failure


def receive(*, message: InboundMessage, now: datetime, max_raw_bytes: int) -> int | None:
    """Store one inbound event, unless it is stored already.

    Returns:
        The entry's id; None for a redelivery, which is counted on its row and has no other effect.
    """
    key = {
        "platform": message.platform,
        "account": message.account,
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "revision": message.revision,
    }
    command = _command(message)
    try:
        with transaction.atomic():  # a redelivery undoes what the message would have changed of contact and session
            contact = identity.contact_seen(platform=message.platform, sender=message.sender, now=now)
            session = sessions.for_message(message=message, contact=contact, now=now)
            words = codes.without_codes(message.text, contact_id=contact.pk)
            tempo = pace.of(account=message.account, lane=session.lane)
            entry = JournalEntry.objects.create(
                **key,
                thread_id=message.thread_id,
                chat_type=message.chat_type,
                kind=message.kind,
                lane=session.lane,
                session=session,
                command=command,
                runs_aside=commands.runs_aside(command),
                contact=contact,
                payload={**message.to_payload(), "text": words.text, "sealed_code": words.sealed},
                raw=None if words.had_code else _raw(message.raw, max_bytes=max_raw_bytes),
                available_at=pace.due_at(
                    tempo, message=message, command=command, session=session, contact=contact, now=now
                ),
                received_at=now,
            )
            pace.arrived(tempo, entry=entry, now=now)
            nudge.journal()
            news.changed("journal", [entry.pk])
            return entry.pk
    except IntegrityError:
        _count_duplicate(key)
        return None


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
        _count_duplicate(key)
        return None


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
        if entry.kind == EventKind.UNREADABLE:
            raise InvalidInput("entry", f"{entry_id} was not readable when it came, so there is nothing to run.")
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


def _count_duplicate(key: Mapping[str, str]) -> None:
    """Count a redelivery on its row. Raises the error being handled when no such row exists: it was another one."""
    if not JournalEntry.objects.filter(**key).update(duplicates=F("duplicates") + 1):
        raise


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
