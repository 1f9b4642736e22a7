"""What the runtime itself tells a contact: rows of the outbox, each written at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from botsrt.core.messages import Button
from botsrt.core.states import ChatType, OutboxSource, OutboxState
from botsrt.core.text import storable
from botsrt.models import Contact, JournalEntry, OutboxMessage, Pairing
from botsrt.services import news, nudge


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a notice goes."""

    platform: str
    account: str
    channel_id: str
    thread_id: str = ""
    reply_to: str = ""
    session_pk: int | None = None


def address_of(entry: JournalEntry) -> Address:
    """Where the message of an entry came from."""
    return Address(
        platform=entry.platform,
        account=entry.account,
        channel_id=entry.channel_id,
        thread_id=entry.thread_id,
        reply_to=entry.payload["reply_to"],
        session_pk=entry.session_id,
    )


def tell(
    address: Address,
    text: str,
    *,
    key: str,
    now: datetime,
    entry_id: int | None = None,
    request: Pairing | None = None,
    buttons: Sequence[Button] = (),
) -> None:
    """Put a notice into the outbox; a second one with the same ``key`` changes nothing.

    Args:
        request: whose code is written into ``text`` when it leaves.
    """
    notice = OutboxMessage(
        idempotency_key=key,
        platform=address.platform,
        account=address.account,
        channel_id=address.channel_id,
        thread_id=address.thread_id,
        reply_to=address.reply_to,
        session_id=address.session_pk,
        entry_id=entry_id,
        pairing=request,
        source=OutboxSource.NOTICE,
        text=storable(text),
        buttons=[{"label": button.label, "data": button.data} for button in buttons],
        next_attempt_at=now,
        created_at=now,
    )
    OutboxMessage.objects.bulk_create([notice], ignore_conflicts=True)
    nudge.outbox()
    news.changed("outbox")


def allow_again(*, key: str, now: datetime) -> None:
    """Let a notice that was sent be told once more: the matter begins anew."""
    OutboxMessage.objects.filter(idempotency_key=key, state=OutboxState.SENT).update(
        idempotency_key=f"{key}:{now.timestamp():.6f}"
    )


def direct_address(*, platform: str, account: str, user_id: str) -> Address:
    """Where this bot writes to a user directly: where they last did, else the user's id, which platforms take too."""
    contact = Contact.objects.filter(platform=platform, platform_user_id=user_id).first()
    last = None
    if contact is not None:
        said = JournalEntry.objects.filter(contact=contact, account=account, chat_type=ChatType.DIRECT)
        last = said.order_by("-received_at", "-id").only("channel_id", "session").first()
    return Address(
        platform=platform,
        account=account,
        channel_id=last.channel_id if last else user_id,
        session_pk=last.session_id if last else None,
    )
