"""Outgoing messages: claim, and the ways a call to a platform can end.

A row is marked ``sending`` before the call. Each ending is a filtered update, so that a worker that was given up for
dead cannot undo what its successor did; but a receipt is a receipt, whoever holds it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet

from botsrt.core import backoff, keys, redact
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.messages import Button, OutboundMessage, Route, SendReceipt
from botsrt.core.states import WITHOUT_MESSAGE, EntryState, OutboxState, Outcome
from botsrt.models import Contact, JournalEntry, OutboxMessage, Pairing
from botsrt.services import audit, codes, news, nudge, sessions, sql
from botsrt.services.batches import batched, only

#: What staff can say about a message whose fate is open.
RESOLUTIONS = ("arrived", "again", "drop")

_MAX_ERROR_CHARS = 2_000

#: Longest wait between two tries while a platform is away.
_MAX_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedSend:
    """One message that this worker may hand to the platform, until the lease runs out."""

    message: OutboundMessage  # the text as it is stored, with the pairing code in it
    platform: str
    is_resend: bool


def claim(
    *,
    worker_id: str,
    accounts: Collection[str],
    limit: int,
    lease: timedelta,
    late_after: timedelta,
    waits_for_unknown: Collection[str] = (),
    now: datetime,
) -> list[ClaimedSend]:
    """Mark the heads of up to ``limit`` chats of ``accounts`` as being sent, and return them.

    A chat whose head is under way or waits for its next attempt is passed over: its order is strict.

    Args:
        waits_for_unknown: bots whose messages of unknown fate are decided without staff: what comes after such a
            message waits for the decision. Elsewhere it might wait for days, so it goes on.
    """
    if not accounts:
        return []
    with transaction.atomic(savepoint=False):
        names, waiting = sorted(accounts), sorted(waits_for_unknown)
        after_unknown = _AFTER_UNKNOWN.format(accounts=sql.marks(waiting)) if waiting else ""
        statement = _HEADS.format(accounts=sql.marks(names), after_unknown=after_unknown)
        heads = sql.fetch(statement, [now, *names, now - late_after, *waiting, limit])
        if not heads:
            return []
        ids = [pk for (pk,) in heads]
        taken = sql.fetch(_TAKE.format(ids=sql.marks(ids)), [worker_id, now + lease, *ids])
        news.changed("outbox", ids)
        rows = [_Row(*row) for row in sorted(taken, key=itemgetter(0))]
        requests = _requests(rows)
        return [_claimed(row, requests) for row in rows]


#: The first message of each chat, unless the chat waits for one that is under way, or its own time.
_HEADS = """SELECT head.id FROM botsrt_outboxmessage AS head
    WHERE head.state = 'pending' AND head.next_attempt_at <= %s AND head.account IN ({accounts})
        AND (head.created_at > %s OR head.requested_by <> '')
        AND NOT EXISTS (SELECT 1 FROM botsrt_outboxmessage AS earlier
            WHERE earlier.account = head.account AND earlier.channel_id = head.channel_id
                AND earlier.thread_id = head.thread_id AND earlier.state = 'pending' AND earlier.id < head.id)
        AND NOT EXISTS (SELECT 1 FROM botsrt_outboxmessage AS under_way
            WHERE under_way.account = head.account AND under_way.channel_id = head.channel_id
                AND under_way.thread_id = head.thread_id AND under_way.state = 'sending')
        {after_unknown}
    ORDER BY head.next_attempt_at, head.id LIMIT %s"""

_AFTER_UNKNOWN = """AND NOT EXISTS (SELECT 1 FROM botsrt_outboxmessage AS undecided
            WHERE undecided.account = head.account AND undecided.channel_id = head.channel_id
                AND undecided.thread_id = head.thread_id AND undecided.state = 'unknown'
                AND undecided.account IN ({accounts}))"""

#: In the order of ``_Row``.
_TAKE = """UPDATE botsrt_outboxmessage SET state = 'sending', worker_id = %s, lease_expires_at = %s
    WHERE id IN ({ids}) AND state = 'pending'
    RETURNING id, idempotency_key, platform, account, channel_id, thread_id, reply_to, text, attempts, edits, buttons,
        is_resend, pairing_id"""


class _Row(NamedTuple):
    """What is sent, as it is stored."""

    id: int
    idempotency_key: str
    platform: str
    account: str
    channel_id: str
    thread_id: str
    reply_to: str
    text: str
    attempts: int
    edits: str
    buttons: Any
    is_resend: bool
    pairing_id: int | None


def _is_fresh(oldest: datetime) -> Q:
    """Not older than ``oldest``, or released by staff, who know its age."""
    return Q(created_at__gt=oldest) | ~Q(requested_by="")


def _requests(rows: Sequence[_Row]) -> dict[int, Pairing]:
    """The requests whose codes are shown in the messages."""
    ids = [row.pairing_id for row in rows if row.pairing_id is not None]
    return Pairing.objects.in_bulk(ids) if ids else {}


def _claimed(row: _Row, requests: Mapping[int, Pairing]) -> ClaimedSend:
    """The message, with the pairing code in it."""
    request = requests.get(row.pairing_id) if row.pairing_id is not None else None
    return ClaimedSend(
        message=OutboundMessage(
            outbox_id=row.id,
            idempotency_key=row.idempotency_key,
            account=row.account,
            route=Route(channel_id=row.channel_id, thread_id=row.thread_id, reply_to=row.reply_to),
            text=codes.written_in(row.text, request) if request else row.text,
            attempt=row.attempts + 1,
            edits=row.edits,
            buttons=tuple(Button(**button) for button in sql.as_json(row.buttons)),
        ),
        platform=row.platform,
        is_resend=bool(row.is_resend),
    )


def heard_at(*, outbox_id: int) -> datetime | None:
    """When the chat that a message goes to last wrote to its bot; None: it is not known here."""
    row = OutboxMessage.objects.filter(pk=outbox_id).values("platform", "account", "channel_id").first()
    if row is None:
        return None
    came = JournalEntry.objects.filter(**row).exclude(kind__in=WITHOUT_MESSAGE)
    latest: datetime | None = came.exclude(message_id__startswith=keys.SAID).aggregate(at=Max("received_at"))["at"]
    return latest


# -- how a call ends ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A message that a platform took; a call of ``mark_sent``."""

    outbox_id: int
    worker_id: str
    receipt: SendReceipt
    now: datetime


#: Also a row that was given up as unknown meanwhile: the receipt is proof.
_SENT = """UPDATE botsrt_outboxmessage SET state = 'sent', platform_message_id = sent.column3, sent_at = sent.column4,
        lease_expires_at = NULL, error = ''
    FROM {sent} AS sent WHERE botsrt_outboxmessage.id = sent.column1 AND (
        (botsrt_outboxmessage.state = 'sending' AND botsrt_outboxmessage.worker_id = sent.column2)
        OR botsrt_outboxmessage.state IN ('unknown', 'pending', 'held'))
    RETURNING botsrt_outboxmessage.id"""


def _mark_all_sent(calls: Sequence[_Sent]) -> list[bool]:
    """``mark_sent``, for many messages."""
    sent, parameters = sql.values(
        [
            (call.outbox_id, call.worker_id, call.receipt.platform_message_id[:200], call.now)
            for call in sorted(calls, key=lambda call: call.outbox_id)
        ]
    )
    with transaction.atomic(savepoint=False):
        done = {pk for (pk,) in sql.fetch(_SENT.format(sent=sent), parameters)}
        nudge.outbox()  # the next of these chats
        news.changed("outbox", [call.outbox_id for call in calls])
        return [call.outbox_id in done for call in calls]


@batched(_Sent, _mark_all_sent)
def mark_sent(*, outbox_id: int, worker_id: str, receipt: SendReceipt, now: datetime) -> bool:
    """The platform took it. Also takes a row back that was given up as unknown meanwhile: the receipt is proof.

    Returns:
        False when another worker is sending the row by now, or it is over.
    """
    return only(_mark_all_sent([_Sent(outbox_id=outbox_id, worker_id=worker_id, receipt=receipt, now=now)]))


def wait(
    *, outbox_id: int, worker_id: str, error: str, until: datetime | None, is_attempt: bool, now: datetime
) -> bool:
    """The platform certainly did not take it: it goes again.

    Args:
        until: not before then; None: after a backoff that grows with the failures.
        is_attempt: count a failure. Rate limits and missing credentials are none.
    """
    with transaction.atomic():
        row = _under_way(outbox_id, worker_id).first()
        if row is None:
            return False
        attempts = row.attempts + 1 if is_attempt else row.attempts
        return _leave(
            outbox_id,
            worker_id,
            state=OutboxState.PENDING,
            error=error,
            attempts=attempts,
            next_attempt_at=until
            or now + backoff.exponential(max(attempts, 1), first_seconds=1.0, max_seconds=_MAX_RETRY_SECONDS),
        )


def mark_unknown(*, outbox_id: int, worker_id: str, error: str, now: datetime) -> bool:
    """The call was cut: nobody here knows whether it arrived. An edit is simply made again: twice is as once."""
    with transaction.atomic():
        nudge.outbox()
        if _under_way(outbox_id, worker_id).exclude(edits="").exists():
            return wait(outbox_id=outbox_id, worker_id=worker_id, error=error, until=None, is_attempt=True, now=now)
        return _leave(outbox_id, worker_id, state=OutboxState.UNKNOWN, error=error, next_attempt_at=now)


def send_anew(*, outbox_id: int, worker_id: str, error: str, now: datetime) -> bool:
    """The message that it was to replace is gone: it goes out as a message of its own."""
    with transaction.atomic():
        nudge.outbox()
        return _leave(outbox_id, worker_id, state=OutboxState.PENDING, error=error, edits="", next_attempt_at=now)


def mark_dead(*, outbox_id: int, worker_id: str, error: str) -> bool:
    """The platform will never take it."""
    with transaction.atomic():
        nudge.outbox()
        return _leave(outbox_id, worker_id, state=OutboxState.DEAD, error=error)


def mark_gone(*, outbox_id: int, worker_id: str, error: str) -> bool:
    """The chat cannot be written to: this message is dead, and its contact counts as out of reach until they write."""
    with transaction.atomic():
        Contact.objects.filter(sessions__outbox=outbox_id).update(is_reachable=False)
        return mark_dead(outbox_id=outbox_id, worker_id=worker_id, error=error)


def mark_migrated(*, outbox_id: int, worker_id: str, new_channel_id: str, now: datetime) -> bool:
    """The chat moved: this message and the others that wait go to its new id."""
    with transaction.atomic():
        row = _under_way(outbox_id, worker_id).first()
        if row is None:
            return False
        old_channel_id = row.channel_id
        _leave(outbox_id, worker_id, state=OutboxState.PENDING, error="The chat moved.", next_attempt_at=now)
        sessions.chat_migrated(account=row.account, old_channel_id=old_channel_id, new_channel_id=new_channel_id)
        nudge.outbox()
        return True


def _under_way(outbox_id: int, worker_id: str) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(pk=outbox_id, state=OutboxState.SENDING, worker_id=worker_id)


def _leave(outbox_id: int, worker_id: str, *, state: OutboxState, error: str, **fields: object) -> bool:
    error = redact.redact(error)[:_MAX_ERROR_CHARS]
    news.changed("outbox", [outbox_id])
    return bool(_under_way(outbox_id, worker_id).update(state=state, error=error, lease_expires_at=None, **fields))


# -- leases and age ----


def renew(*, worker_id: str, outbox_ids: Collection[int], lease: timedelta, now: datetime) -> None:
    """Keep the rows whose calls are still under way."""
    OutboxMessage.objects.filter(id__in=outbox_ids, state=OutboxState.SENDING, worker_id=worker_id).update(
        lease_expires_at=now + lease
    )


def expire_sending(*, now: datetime) -> int:
    """Rows whose worker fell silent in the call become unknown; edits are made again. Returns how many."""
    with transaction.atomic():
        expired = OutboxMessage.objects.filter(state=OutboxState.SENDING, lease_expires_at__lte=now)
        count = expired.exclude(edits="").update(
            state=OutboxState.PENDING, lease_expires_at=None, next_attempt_at=now, error="The process died in an edit."
        )
        count += expired.filter(edits="").update(
            state=OutboxState.UNKNOWN,
            lease_expires_at=None,
            next_attempt_at=now,
            error="The process died during the call: whether the message arrived is not known.",
        )
        if count:
            nudge.outbox()
            news.changed("outbox")
        return count


def hold_late(*, late_after: timedelta, now: datetime) -> int:
    """Messages that could not be sent for so long wait for staff instead of surprising people. Returns how many."""
    return (
        OutboxMessage.objects.filter(state=OutboxState.PENDING)
        .exclude(_is_fresh(now - late_after))
        .update(state=OutboxState.HELD, error="Too old to be sent without being looked at.")
    )


# -- unknown outcomes ----


def unknown(
    *,
    accounts: Collection[str],
    limit: int,
    made_before: datetime | None = None,
    patience: timedelta = timedelta(),
    now: datetime,
) -> list[ClaimedSend]:
    """Messages of ``accounts`` whose fate is open and due to be looked into.

    Args:
        made_before: younger ones are not among them: ``repeat`` takes those.
        patience: they are due only so long after: the platform may tell by itself.
    """
    due = OutboxMessage.objects.filter(
        state=OutboxState.UNKNOWN, account__in=accounts, next_attempt_at__lte=now - patience
    )
    if made_before is not None:
        due = due.filter(created_at__lte=made_before)
    rows = [_Row(*row) for row in due.order_by("id").values_list(*_Row._fields)[:limit]]
    requests = _requests(rows)
    return [_claimed(row, requests) for row in rows]


def repeat(*, accounts: Collection[str], made_after: datetime, now: datetime) -> int:
    """Send messages of unknown fate again, without a label, that are younger than ``made_after``.

    For bots of platforms that know a message by its key for a while: there, it is no second message. The age counts
    from when the message was made, because the first call cannot be older. Returns how many.
    """
    with transaction.atomic():
        count = OutboxMessage.objects.filter(
            state=OutboxState.UNKNOWN, account__in=accounts, next_attempt_at__lte=now, created_at__gt=made_after
        ).update(state=OutboxState.PENDING, next_attempt_at=now)
        if count:
            nudge.outbox()
            news.changed("outbox")
        return count


def resend(*, outbox_id: int, is_labelled: bool, now: datetime) -> bool:
    """Send a message of unknown fate again: labelled by policy, without a label where the platform denies having it."""
    with transaction.atomic():
        nudge.outbox()
        return bool(
            OutboxMessage.objects.filter(pk=outbox_id, state=OutboxState.UNKNOWN).update(
                state=OutboxState.PENDING,
                is_resend=F("is_resend") if not is_labelled else True,
                next_attempt_at=now,
            )
        )


def look_again(*, outbox_id: int, at: datetime) -> None:
    """The platform could not say whether it has the message; ask again then."""
    OutboxMessage.objects.filter(pk=outbox_id, state=OutboxState.UNKNOWN).update(next_attempt_at=at)


# -- acts of staff ----


def resolve(*, outbox_id: int, resolution: str, actor: Actor, reason: str = "", now: datetime) -> None:
    """Decide about a message of unknown fate, or one that is held.

    Args:
        resolution: ``arrived`` (unknown only), ``again`` (send it), ``drop`` (give it up). A held reply is decided as
            a whole, with all its parts.

    Raises:
        NotFound: there is no such message.
        InvalidInput: the resolution is not one of these, or does not fit.
        Conflict: its fate is not open (any more).
    """
    if resolution not in RESOLUTIONS:
        raise InvalidInput("as", f"{resolution!r} is not one of {', '.join(RESOLUTIONS)}.")
    with transaction.atomic():
        row = OutboxMessage.objects.filter(pk=outbox_id).first()
        if row is None:
            raise NotFound(f"There is no outgoing message {outbox_id}.")
        if row.state not in (OutboxState.UNKNOWN, OutboxState.HELD):
            raise Conflict(f"Outgoing message {outbox_id} is {row.state} already; its fate is not open.")
        if resolution == "arrived" and row.state == OutboxState.HELD:
            raise InvalidInput("as", "a held message was never sent, so it cannot have arrived; use again or drop.")
        _decide(row, resolution, actor=actor, reason=reason, now=now)
        audit.record(
            actor=actor,
            verb="outbox.resolve",
            object_kind="outbox",
            object_id=outbox_id,
            reason=reason,
            before={"state": row.state},
            after={"resolution": resolution},
            now=now,
        )
        nudge.outbox()
        news.changed("outbox", [outbox_id])
        news.changed("journal")


def _decide(row: OutboxMessage, resolution: str, *, actor: Actor, reason: str, now: datetime) -> None:
    rows = OutboxMessage.objects.filter(pk=row.pk, state=row.state)
    if row.state == OutboxState.HELD and row.turn_id:
        rows = OutboxMessage.objects.filter(turn=row.turn_id, state=OutboxState.HELD)
    match resolution:
        case "arrived":
            count = rows.update(state=OutboxState.SENT, sent_at=now, requested_by=actor.name)
        case "again":
            count = rows.update(
                state=OutboxState.PENDING,
                is_resend=row.state == OutboxState.UNKNOWN,
                next_attempt_at=now,
                requested_by=actor.name,
            )
        case _:
            count = rows.update(
                state=OutboxState.DEAD, error=f"Given up by {actor.name}. {reason}".strip(), requested_by=actor.name
            )
    if not count:
        raise Conflict(f"Outgoing message {row.pk} was decided by somebody else in this moment.")
    if row.state == OutboxState.HELD and row.turn_id:
        _end_held_entries(row.turn_id, is_dropped=resolution == "drop", reason=reason, now=now)


def _end_held_entries(turn_id: uuid.UUID, *, is_dropped: bool, reason: str, now: datetime) -> None:
    entries = JournalEntry.objects.filter(turn=turn_id, state=EntryState.HELD)
    if is_dropped:
        entries.update(state=EntryState.DISCARDED, outcome=Outcome.DISCARDED, outcome_reason=reason, completed_at=now)
    else:
        entries.update(state=EntryState.COMPLETED, outcome=Outcome.ANSWERED, completed_at=now)


def send_reply_again(*, entry_id: int, actor: Actor, reason: str, now: datetime) -> int:
    """Send the stored reply of an answered entry once more, on the same route. Returns the number of parts.

    Raises:
        NotFound: there is no such entry, or no reply of it is stored.
    """
    with transaction.atomic():
        turn_id = JournalEntry.objects.values_list("turn", flat=True).filter(pk=entry_id).first()
        parts = list(OutboxMessage.objects.filter(turn=turn_id).order_by("id")) if turn_id else []
        if not parts:
            raise NotFound(f"No reply of journal entry {entry_id} is stored.")
        again = uuid.uuid4()
        OutboxMessage.objects.bulk_create(
            OutboxMessage(
                idempotency_key=f"again:{again}:{number}",
                platform=part.platform,
                account=part.account,
                channel_id=part.channel_id,
                thread_id=part.thread_id,
                reply_to=part.reply_to,
                session_id=part.session_id,
                entry_id=entry_id,
                source=part.source,
                requested_by=actor.name,
                text=part.text,
                is_resend=True,
                next_attempt_at=now,
                created_at=now,
            )
            for number, part in enumerate(parts)
        )
        audit.record(
            actor=actor,
            verb="journal.send_again",
            object_kind="journal",
            object_id=entry_id,
            reason=reason,
            after={"parts": len(parts)},
            now=now,
        )
        nudge.outbox()
        news.changed("outbox")
        return len(parts)
