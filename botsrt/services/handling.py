"""Who answers in a conversation: the bot, a human, or for the time being nobody. And what staff say in it.

While the bot does not have it, messages are stored as ever and wait. What staff answer ends those that waited in the
same chat; what is left when the conversation is handed back, the bot answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F

from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.states import (
    EntryState,
    Handler,
    HistoryKind,
    OutboxSource,
    Outcome,
    Role,
    TurnState,
)
from botsrt.core.text import storable
from botsrt.models import BotSession, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import audit, dlq, lanes, news, nudge, recording

#: ``outcome_reason`` of an entry that staff answered.
BY_STAFF = "answered_by_staff"

_DIVIDERS = {
    Handler.HUMAN: "{who} took the conversation over.",
    Handler.PAUSED: "{who} paused the bot.",
    Handler.BOT: "{who} handed the conversation back to the bot.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRoute:
    """Where a reply of staff would go: where the person wrote last."""

    platform: str
    account: str
    channel_id: str
    thread_id: str
    last_entry_id: int


def hand_to(
    *, session_id: str, handler: Handler, seen_epoch: int | None = None, actor: Actor, reason: str = "", now: datetime
) -> None:
    """Let ``handler`` answer from now on, in all sessions of the conversation. A running turn is cancelled.

    Args:
        seen_epoch: the session's epoch on the page that was acted on; None: whatever it is.

    Raises:
        NotFound: there is no such session.
        Conflict: it is so already, or somebody acted meanwhile; says who.
    """
    with transaction.atomic():
        session = _locked(session_id)
        if session.handler == handler or (seen_epoch is not None and session.epoch != seen_epoch):
            who = f", by {session.handler_by} at {session.handler_since:%H:%M:%S} UTC" if session.handler_since else ""
            raise Conflict(f"The conversation is with {_NAMES[Handler(session.handler)]} already{who}.")
        together = BotSession.objects.filter(lane=session.lane)
        together.update(handler=handler, handler_by=actor.name, handler_since=now, epoch=F("epoch") + 1)
        lanes.hand_back(Turn.objects.filter(lane=session.lane, state=TurnState.RUNNING), now=now)
        HistoryMessage.objects.create(
            session=session,
            role=Role.SYSTEM,
            kind=HistoryKind.DIVIDER,
            text=_DIVIDERS[handler].format(who=actor.name),
            source=actor.name[:60],
            created_at=now,
        )
        audit.record(
            actor=actor,
            verb="sessions.hand_to",
            object_kind="session",
            object_id=session_id,
            reason=reason,
            before={"handler": session.handler},
            after={"handler": handler},
            now=now,
        )
        nudge.journal()
        news.changed("people", [session.pk])


_NAMES = {Handler.BOT: "the bot", Handler.HUMAN: "a human", Handler.PAUSED: "nobody: the bot is paused"}


def reply_route(*, session_id: str) -> ReplyRoute:
    """Where a reply would go.

    Raises:
        NotFound: there is no such session, or nobody has written in it (that the journal still knows).
    """
    session = _session(session_id)
    last = JournalEntry.objects.filter(session=session).order_by("-id").first()
    if last is None:
        raise NotFound("The journal has no message of this conversation any more, so there is no route to answer on.")
    return ReplyRoute(
        platform=last.platform,
        account=last.account,
        channel_id=last.channel_id,
        thread_id=last.thread_id,
        last_entry_id=last.pk,
    )


def reply(
    *,
    session_id: str,
    text: str,
    parts: Sequence[str],
    idempotency_key: str,
    seen_entry_id: int | None = None,
    actor: Actor,
    now: datetime,
) -> bool:
    """Answer as staff, where the person wrote last. Unless the bot has the conversation, this answers what waits there.

    Args:
        parts: ``text``, cut for the platform.
        idempotency_key: of the form that was sent; sending it twice is one reply.
        seen_entry_id: the newest message that was on the page; None: whatever there is.

    Returns:
        False when this form was sent already.

    Raises:
        NotFound: there is no such session, or no route.
        InvalidInput: the text is empty.
        Conflict: a newer message came meanwhile.
    """
    if not parts:
        raise InvalidInput("text", "write something to send.")
    with transaction.atomic():
        session = _locked(session_id)
        route = reply_route(session_id=session_id)
        if seen_entry_id is not None and route.last_entry_id > seen_entry_id:
            raise Conflict("A newer message came while you wrote. Read it, then send again.")
        key = f"staff:{idempotency_key}"[:180]
        if HistoryMessage.objects.filter(mirror_key=key).exists():
            return False
        if session.handler != Handler.BOT:
            _end_waiting(session, route, now=now)
        try:
            with transaction.atomic():
                HistoryMessage.objects.create(
                    session=session,
                    role=Role.ASSISTANT,
                    kind=HistoryKind.STAFF,
                    text=storable(text),
                    source=actor.name[:60],
                    mirror_key=key,
                    route={
                        "platform": route.platform,
                        "account": route.account,
                        "channel_id": route.channel_id,
                        "thread_id": route.thread_id,
                    },
                    created_at=now,
                )
        except IntegrityError:  # the same form, in this moment
            return False
        OutboxMessage.objects.bulk_create(
            OutboxMessage(
                idempotency_key=f"{key}:{number}",
                platform=route.platform,
                account=route.account,
                channel_id=route.channel_id,
                thread_id=route.thread_id,
                session=session,
                source=OutboxSource.STAFF,
                requested_by=actor.name,
                text=storable(part),
                next_attempt_at=now,
                created_at=now,
            )
            for number, part in enumerate(parts)
        )
        BotSession.objects.filter(pk=session.pk).update(last_activity_at=now)
        audit.record(
            actor=actor,
            verb="sessions.reply",
            object_kind="session",
            object_id=session_id,
            after={"account": route.account, "channel_id": route.channel_id, "characters": len(text)},
            now=now,
        )
        nudge.outbox()
        news.changed("people", [session.pk])
        return True


def _end_waiting(session: BotSession, route: ReplyRoute, *, now: datetime) -> None:
    """The messages that waited in this chat are answered by what staff say now, and are part of the conversation."""
    waiting = JournalEntry.objects.filter(
        session=session,
        state=EntryState.PENDING,
        command="",
        account=route.account,
        channel_id=route.channel_id,
        thread_id=route.thread_id,
    )
    ids = list(waiting.values_list("pk", flat=True))
    recording.write_down_said(ids)
    waiting.filter(pk__in=ids).update(
        state=EntryState.COMPLETED, outcome=Outcome.ANSWERED, outcome_reason=BY_STAFF, completed_at=now
    )
    dlq.resolve(entry_ids=ids, now=now)  # those that were to be retried


def note(*, session_id: str, text: str, actor: Actor, now: datetime) -> None:
    """Write something down for colleagues. It reaches no agent and no platform: the tables have no way for it.

    Raises:
        NotFound: there is no such session.
        InvalidInput: the text is empty.
    """
    if not text.strip():
        raise InvalidInput("text", "write something to keep.")
    with transaction.atomic():
        session = _session(session_id)
        HistoryMessage.objects.create(
            session=session,
            role=Role.SYSTEM,
            kind=HistoryKind.NOTE,
            text=storable(text),
            source=actor.name[:60],
            created_at=now,
        )
        audit.record(actor=actor, verb="sessions.note", object_kind="session", object_id=session_id, now=now)
        news.changed("people", [session.pk])


def _locked(session_id: str) -> BotSession:
    """The session, with its lane, so that no turn is claimed in between."""
    return lanes.locked(_session(session_id).pk)


def _session(session_id: str) -> BotSession:
    session = BotSession.objects.filter(session_id=session_id).first()
    if session is None:
        raise NotFound(f"There is no session {session_id}; see: sessions list")
    return session
