"""What a program says, for a turn that it runs itself and whose answer it gets: ``sessions resume``, the library.

Such an entry is received and claimed by the same caller (``claims.claim_entry``), in its lane like any other. Nothing
is sent to a platform. Workers leave it alone while its caller may still come for it; what they would answer later is
held for review, because only the caller knew where it should go.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from botsrt.core import keys
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.messages import MAX_ID_CHARS, InboundMessage, Route, Sender
from botsrt.core.ports import AgentConfig
from botsrt.core.states import (
    ChatType,
    DLQReason,
    EntryState,
    EventKind,
    Outcome,
    RunMode,
    SessionScope,
    TurnState,
)
from botsrt.models import BotSession, Contact, DLQItem, JournalEntry, Turn
from botsrt.services import bots, claims, dlq, identity, journal, news, turns
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure

#: How long workers leave such an entry alone: longer than anybody waits for the turns before it.
RESERVED = timedelta(hours=1)

#: ``outcome_reason`` of an entry that a program took and completed.
BY_PROGRAM = "completed_by_program"

#: Ids in one statement at most.
_CHUNK = 500

#: Platform of whoever speaks in a group's session without being on its platform.
_OPERATOR_PLATFORM = "console"


def begin(*, session_id: str, platform: str, account: str, now: datetime) -> bool:
    """Make the session ``session_id``, unless there is one. Returns whether it is new.

    Raises:
        InvalidInput: the id cannot be one.
    """
    if not session_id.strip() or len(session_id) > MAX_ID_CHARS:
        raise InvalidInput("session_id", f"write 1 to {MAX_ID_CHARS} characters.")
    if BotSession.objects.filter(session_id=session_id).exists():
        return False
    with transaction.atomic():
        contact = identity.contact_seen(platform=platform, sender=Sender(user_id=session_id), now=now)
        _, is_new = BotSession.objects.get_or_create(
            session_id=session_id,
            defaults={
                "platform": platform,
                "account": account,
                "scope": SessionScope.PER_USER,
                "contact": contact,
                "lane": identity.lane_of(contact),
                "created_at": now,
                "last_activity_at": now,
            },
        )
        return is_new


def library_profile(*, session_id: str) -> AgentConfig:
    """The profile of the library agent that a session belongs to.

    Raises:
        NotFound: there is none.
    """
    account = BotSession.objects.values_list("account", flat=True).get(session_id=session_id)
    try:
        return bots.agent_config(name=keys.library_profile(account))
    except NotFound:
        raise NotFound(f"The bot of the session {session_id} is gone, and its agent with it.") from None


def say(*, session_id: str, text: str, actor: Actor, sender_name: str = "", now: datetime) -> int:
    """Store ``text`` as the next message of a session, for a turn that its caller runs. Returns the entry's id.

    What an earlier caller left behind in this session, because its process ended, is discarded.

    Args:
        sender_name: who says it, as the history shows it; the contact stays the session's.

    Raises:
        NotFound: there is no such session.
        InvalidInput: the text is empty.
    """
    if not text.strip():
        raise InvalidInput("text", "write something to say.")
    with transaction.atomic():
        session = BotSession.objects.select_related("contact").filter(session_id=session_id).first()
        if session is None:
            raise NotFound(f"There is no session {session_id}; see: sessions list")
        _discard_orphans(session, now=now)
        contact = session.contact or _operator(actor, now=now)
        route = _last_route(session, contact)
        message = InboundMessage(
            platform=session.platform,
            account=session.account,
            channel_id=route.channel_id,
            thread_id=route.thread_id,
            message_id=f"{keys.SAID}{uuid.uuid4().hex}",
            sender=Sender(user_id=contact.platform_user_id, display_name=sender_name),
            text=text,
            chat_type=ChatType.DIRECT if session.scope == SessionScope.PER_USER else ChatType.GROUP,
            is_mentioned=True,
        )
        entry = JournalEntry.objects.create(
            platform=message.platform,
            account=message.account,
            channel_id=message.channel_id,
            message_id=message.message_id,
            thread_id=message.thread_id,
            chat_type=message.chat_type,
            kind=EventKind.MESSAGE,
            lane=session.lane,
            session=session,
            contact=contact,
            payload=message.to_payload(),
            available_at=now + RESERVED,
            runs_alone=True,
            run_mode=RunMode.HOLD,
            requested_by=actor.name,
            received_at=now,
        )
        news.changed("journal", [entry.pk])
        return entry.pk


def receive(*, message: InboundMessage, reserved_for: timedelta, max_raw_bytes: int, now: datetime) -> int | None:
    """``journal.receive``, for a turn that its caller runs: what looks like a command is a message like any other."""
    with transaction.atomic():
        entry_id = journal.receive(message=message, now=now, max_raw_bytes=max_raw_bytes, is_from_program=True)
        if entry_id is not None:
            JournalEntry.objects.filter(pk=entry_id).update(
                command="", available_at=now + reserved_for, runs_alone=True, run_mode=RunMode.HOLD
            )
        return entry_id


def withdraw(*, entry_id: int, reason: str, now: datetime) -> bool:
    """Discard an entry that was never claimed. False: it is not pending (any more)."""
    return bool(_discard(JournalEntry.objects.filter(pk=entry_id), reason=reason, now=now))


def complete(*, entry_id: int, now: datetime) -> bool:
    """A program did with the entry what was to be done. False: it is over already, or staff have it."""
    with transaction.atomic():
        entry = JournalEntry.objects.filter(pk=entry_id)
        Turn.objects.filter(entries__in=entry.filter(state=EntryState.CLAIMED), state=TurnState.RUNNING).update(
            state=TurnState.FINISHED, finished_at=now
        )
        done = entry.filter(state__in=(EntryState.PENDING, EntryState.CLAIMED)).update(
            state=EntryState.COMPLETED, outcome=Outcome.SILENT, outcome_reason=BY_PROGRAM, completed_at=now
        )
        dlq.resolve(entry_ids=[entry_id], now=now)
        news.changed("journal", [entry_id])
        return bool(done)


def release(*, entry_id: int, worker_id: str, now: datetime) -> bool:
    """Hand an entry back that ``worker_id`` claimed and did not complete. False: it holds it no longer."""
    turn = Turn.objects.filter(entries=entry_id, worker_id=worker_id, state=TurnState.RUNNING).first()
    return turn is not None and turns.release(turn_id=turn.pk, available_at=now, now=now)


def waiting(*, platform: str, limit: int, now: datetime) -> list[tuple[int, str]]:
    """The entries of ``platform`` that nobody has in hand, oldest first, each with its session."""
    rows = JournalEntry.objects.filter(
        platform=platform, state=EntryState.PENDING, available_at__lte=now, session__isnull=False
    )
    return list(rows.order_by("pk").values_list("pk", "session__session_id")[:limit])


def replay(*, max_worker_deaths: int, now: datetime) -> int:
    """Free what expired leases hold, as a worker's sweep does. Returns how many entries are pending again."""
    stale = JournalEntry.objects.filter(
        state=EntryState.CLAIMED, turn__state=TurnState.RUNNING, turn__lease_expires_at__lte=now
    )
    with transaction.atomic():
        ids = set(stale.values_list("pk", flat=True))
        while turns.abandon_expired(max_worker_deaths=max_worker_deaths, now=now):
            pass
        return sum(
            JournalEntry.objects.filter(pk__in=chunk, state=EntryState.PENDING).count() for chunk in _chunks(ids)
        )


def park(*, message: InboundMessage, failure: Failure, now: datetime) -> int:
    """Put a message whose agent failed elsewhere into the dead letter queue. Parked again, it is the same item.

    Returns:
        The item's id.
    """
    key = {
        "platform": message.platform,
        "account": message.account,
        "channel_id": message.channel_id,
        "message_id": message.message_id,
        "revision": message.revision,
    }
    with transaction.atomic():
        journal.receive(message=message, now=now, max_raw_bytes=0, is_from_program=True)
        entry = JournalEntry.objects.get(**key)
        entry.state, entry.outcome, entry.completed_at = EntryState.DEAD, Outcome.DEAD, now
        entry.attempts += 1
        entry.save(update_fields=["state", "outcome", "completed_at", "attempts"])
        dlq.park(entry=entry, reason=DLQReason.FAILED, failure=failure, now=now)
        return entry.dlq_item.pk


def retake(*, item_id: int, worker_id: str, lease: timedelta, actor: Actor, now: datetime) -> ClaimedTurn | None:
    """Take the entry of an open dead letter item for another try of the caller's own.

    Returns:
        None when the item is not open any more.

    Raises:
        NotFound: there is no such item.
        InvalidInput: its entry has no readable message.
    """
    with transaction.atomic():
        try:
            dlq.retry(item_id=item_id, actor=actor, now=now)
        except Conflict:
            return None
        entry_id = DLQItem.objects.values_list("entry", flat=True).get(pk=item_id)
        return claims.claim_entry(
            entry_id=entry_id,
            worker_id=worker_id,
            lease=lease,
            claim_timeout=lease,
            lane=own_lane(entry_id),
            now=now,
        )


def own_lane(entry_id: int) -> str:
    """The lane of an entry that a program works on by itself. No session id looks like it."""
    return f"entry:{entry_id}"


def _discard(rows: QuerySet[JournalEntry], *, reason: str, now: datetime) -> int:
    return rows.filter(state=EntryState.PENDING).update(
        state=EntryState.DISCARDED, outcome=Outcome.DISCARDED, outcome_reason=reason, completed_at=now
    )


def _discard_orphans(session: BotSession, *, now: datetime) -> None:
    orphans = JournalEntry.objects.filter(
        lane=session.lane, session=session, message_id__startswith=keys.SAID, available_at__lte=now
    )
    _discard(orphans, reason="Whoever said this went away before the answer.", now=now)


def _chunks(ids: set[int]) -> Iterator[list[int]]:
    """``ids`` in lists that a statement can hold."""
    rest = sorted(ids)
    while rest:
        yield rest[:_CHUNK]
        rest = rest[_CHUNK:]


def _operator(actor: Actor, *, now: datetime) -> Contact:
    return identity.contact_seen(platform=_OPERATOR_PLATFORM, sender=Sender(user_id=actor.name), now=now)


def _last_route(session: BotSession, contact: Contact) -> Route:
    """Where the conversation takes place: staff who answer in it later still answer there."""
    if session.scope == SessionScope.PER_CHAT:
        return Route(channel_id=session.channel_id, thread_id=session.thread_id)
    last = JournalEntry.objects.filter(session=session).order_by("-id").values("channel_id", "thread_id").first()
    return Route(**last) if last else Route(channel_id=contact.platform_user_id)
