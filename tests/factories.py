"""A small world to write tests in: one bot, one contact, one clock. Each shortcut takes what a test wants otherwise.

Everything goes through the services, as in production; nothing is written into tables behind their backs.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from botsrt.core.actors import Actor
from botsrt.core.messages import InboundMessage, Sender, SendReceipt
from botsrt.core.pairing_codes import Terms
from botsrt.core.ports import Option
from botsrt.core.states import ChatType, UnknownUserPolicy
from botsrt.models import AgentProfile, Bot, DLQItem, JournalEntry, Pairing
from botsrt.runtime.turn import gate
from botsrt.services import bots, claims, codes, finishing, journal, materials, outbox, reception, turns
from botsrt.services.bots import Changes, Shape
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.finishing import Result
from botsrt.services.outbox import ClaimedSend

#: Now, unless a test says otherwise. In the past, so that what is due then is due for programs with a real clock too.
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

ACCOUNT = "shop"
PLATFORM = "web"
ALICE = Actor(name="alice", address="192.0.2.1")
BOB = Actor(name="bob", address="192.0.2.2")
WORKER = "worker-1"
LEASE = timedelta(seconds=30)
LATE_AFTER = timedelta(hours=6)
TROUBLE = "Sorry, something went wrong."

#: A platform with one of everything.
SHAPE = Shape(
    settings=(Option(name="api_base_url", help="Where the platform is."),),
    credentials=(Option(name="token", help="Proves who the bot is."),),
)

_numbers = itertools.count(1)


def later(**duration: float) -> datetime:
    """``NOW`` plus a duration: ``later(seconds=5)``."""
    return NOW + timedelta(**duration)


# -- the outside world ----


def a_message(
    text: str = "Hello",
    *,
    platform: str = PLATFORM,
    account: str = ACCOUNT,
    channel_id: str = "chat-1",
    message_id: str | None = None,
    user_id: str = "user-1",
    user_name: str = "",
    display_name: str = "",
    **fields: Any,
) -> InboundMessage:
    """A direct message that nobody has sent before, unless ``message_id`` says which one it is."""
    return InboundMessage(
        platform=platform,
        account=account,
        channel_id=channel_id,
        message_id=message_id if message_id is not None else f"m{next(_numbers)}",
        sender=Sender(user_id=user_id, user_name=user_name, display_name=display_name),
        text=text,
        **fields,
    )


def a_group_message(text: str = "Hello", *, channel_id: str = "group-1", **fields: Any) -> InboundMessage:
    """A message in a group chat that mentions the bot."""
    return a_message(text, channel_id=channel_id, chat_type=ChatType.GROUP, is_mentioned=True, **fields)


def a_bot(
    account: str = ACCOUNT,
    *,
    platform: str = PLATFORM,
    policy: UnknownUserPolicy | None = UnknownUserPolicy.ALLOW,
    shape: Shape = SHAPE,
    agent: str | None = None,
    settings: Mapping[str, str] | None = None,
    credentials: Mapping[str, str] | None = None,
    is_enabled: bool | None = None,
    now: datetime = NOW,
) -> Bot:
    """A bot that answers everybody, with the echo agent."""
    changes = Changes(
        agent=agent,
        policy=policy,
        settings=settings or {},
        credentials=credentials or {},
        is_enabled=is_enabled,
    )
    bots.add(account=account, platform=platform, shape=shape, changes=changes, actor=ALICE, now=now)
    return Bot.objects.select_related("agent", "adapter").get(account=account)


def an_agent(name: str = "helper", *, kind: str = "echo", now: datetime = NOW, **fields: Any) -> AgentProfile:
    return AgentProfile.objects.create(name=name, kind=kind, created_at=now, updated_at=now, **fields)


# -- a message's way ----


def receive(
    message: InboundMessage | str | None = None, *, now: datetime = NOW, max_raw_bytes: int = 262_144, **fields: Any
) -> int | None:
    """Store a message (or a new one with this text) and return its entry's id; None for a duplicate."""
    if not isinstance(message, InboundMessage):
        message = a_message(**({"text": message} if message is not None else {}), **fields)
    return journal.receive(message=message, now=now, max_raw_bytes=max_raw_bytes)


def received(message: InboundMessage | str | None = None, **fields: Any) -> JournalEntry:
    """``receive``, as the stored row of a new entry."""
    entry_id = receive(message, **fields)
    assert entry_id is not None, "a duplicate"
    return entry(entry_id)


def entry(entry_id: int) -> JournalEntry:
    """The row as it stands."""
    return JournalEntry.objects.get(pk=entry_id)


def claim(
    *,
    worker_id: str = WORKER,
    limit: int = 10,
    aside_limit: int = 10,
    accounts: Collection[str] | None = None,
    max_entries_per_turn: int = 50,
    lease: timedelta = LEASE,
    claim_timeout: timedelta = timedelta(seconds=360),
    now: datetime = NOW,
) -> list[ClaimedTurn]:
    return claims.claim(
        worker_id=worker_id,
        limit=limit,
        aside_limit=aside_limit,
        accounts=accounts,
        max_entries_per_turn=max_entries_per_turn,
        lease=lease,
        claim_timeout=claim_timeout,
        now=now,
    )


def claim_one(**options: Any) -> ClaimedTurn:
    """Claim, where exactly one lane has work."""
    (turn,) = claim(**options)
    return turn


def finish(
    turn: ClaimedTurn,
    reply: str | tuple[str, ...] = "Hi",
    *,
    late_after: timedelta = LATE_AFTER,
    now: datetime = NOW,
    **fields: Any,
) -> bool:
    """End a turn with a reply; "" says nothing, a tuple is a reply in parts."""
    parts = (reply,) if isinstance(reply, str) else reply
    known: dict[str, Any] = {"parts": tuple(filter(None, parts)), "text": "".join(parts), "agent": "echo"}
    result = Result(**known | fields)
    return finishing.finish(turn=turn, result=result, late_after=late_after, now=now)


def a_failure(text: str = "The agent broke.", **fields: Any) -> Failure:
    """A permanent failure, unless ``is_transient`` or ``is_timeout``."""
    return Failure(error_class=fields.pop("error_class", "AgentError"), error_text=text, **fields)


def fail(
    turn: ClaimedTurn,
    failure: Failure | None = None,
    *,
    max_attempts: int = 5,
    notice_after: timedelta = timedelta(seconds=10),
    notice_text: str = TROUBLE,
    now: datetime = NOW,
    **fields: Any,
) -> bool:
    return turns.fail(
        turn=turn,
        failure=failure or a_failure(**fields),
        max_attempts=max_attempts,
        notice_after=notice_after,
        notice_text=notice_text,
        now=now,
    )


def abandon(*, max_worker_deaths: int = 2, now: datetime) -> int:
    return turns.abandon_expired(max_worker_deaths=max_worker_deaths, now=now)


def answered(message: InboundMessage | str | None = None, reply: str = "Hi", *, now: datetime = NOW) -> JournalEntry:
    """A message whose turn has ended with a reply; the reply waits in the outbox."""
    row = received(message, now=now)
    finish(claim_one(now=now), reply, now=now)
    return entry(row.pk)


def parked(message: InboundMessage | str | None = None, *, now: datetime = NOW, **failure: Any) -> DLQItem:
    """The open dead letter item of a message whose turn failed for good."""
    row = received(message, now=now)
    fail(claim_one(now=now), a_failure(**failure), now=now)
    return DLQItem.objects.select_related("entry").get(entry=row.pk)


# -- who may write ----


def asks(user_id: str = "stranger", text: str = "May I?", *, terms: Terms = Terms(), **fields: Any) -> Pairing:  # noqa: B008  frozen
    """The request of a stranger who writes directly, as the runtime makes it of a bot with policy pair."""
    now = fields.pop("now", None) or timezone.now()
    receive(a_message(text, user_id=user_id, channel_id=f"dm-{user_id}", **fields), now=now)
    turn = claim_one(now=now)
    found = materials.gather(turn=turn, max_history=10, refused_for=terms.refused_for, now=now)
    assert found.bot is not None
    reasons = {pk: decision.reason.value for pk, decision in gate(turn, found, found.bot).items()}
    assert reception.ask(turn=turn, bot=found.bot, reasons=reasons, terms=terms, now=now)
    return Pairing.objects.latest("id")


def code_of(request: Pairing) -> str:
    """What only the requester has seen."""
    return codes.keyring().of(request.nonce)


# -- out again ----


def claim_sends(
    *,
    worker_id: str = WORKER,
    accounts: Collection[str] = (ACCOUNT,),
    limit: int = 10,
    lease: timedelta = LEASE,
    late_after: timedelta = LATE_AFTER,
    now: datetime = NOW,
) -> list[ClaimedSend]:
    return outbox.claim(
        worker_id=worker_id, accounts=accounts, limit=limit, lease=lease, late_after=late_after, now=now
    )


def sent(claimed: ClaimedSend, *, receipt: str = "p-1", worker_id: str = WORKER, now: datetime = NOW) -> bool:
    """The platform took it."""
    return outbox.mark_sent(
        outbox_id=claimed.message.outbox_id,
        worker_id=worker_id,
        receipt=SendReceipt(platform_message_id=receipt),
        now=now,
    )


def send_all(*, accounts: Collection[str] = (ACCOUNT,), now: datetime = NOW) -> list[str]:
    """Send whatever can be sent; the texts in the order in which they left."""
    texts = []
    while claims := claim_sends(accounts=accounts, now=now):
        for claimed in claims:
            assert sent(claimed, now=now)
            texts.append(claimed.message.text)
    return texts
