"""Conversations: found or made for a message, read for a turn."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from botsrt.core import keys
from botsrt.core.messages import InboundMessage
from botsrt.core.ports import HistoryItem
from botsrt.core.states import ChatType, HistoryKind, Role, SessionScope
from botsrt.core.text import one_line
from botsrt.models import BotSession, Contact, HistoryMessage, OutboxMessage

#: History that an agent may see. Notes and dividers are for staff.
_FOR_AGENTS = (HistoryKind.CHAT, HistoryKind.MIRROR, HistoryKind.STAFF)


def for_message(*, message: InboundMessage, contact: Contact, now: datetime) -> BotSession:
    """The session that ``message`` belongs to, made on first sight.

    Direct messages belong to their contact; a group's belong to the chat (or thread) as its members share it.
    """
    fields = {"platform": message.platform, "account": message.account, "created_at": now, "last_activity_at": now}
    if message.chat_type == ChatType.DIRECT:
        session, _ = BotSession.objects.get_or_create(
            session_id=keys.direct_session_id(message.platform, message.sender.user_id),
            defaults={**fields, "scope": SessionScope.PER_USER, "contact": contact},
        )
        return session
    # Found by its chat first: the id keeps the chat's first name when the platform moves the chat. Then by its id: what
    # was written before the move may be delivered after it.
    chat = {"account": message.account, "channel_id": message.channel_id, "thread_id": message.thread_id}
    if moved := BotSession.objects.filter(**chat, scope=SessionScope.PER_CHAT).first():
        return moved
    session, _ = BotSession.objects.get_or_create(
        session_id=keys.group_session_id(message.platform, **chat),
        defaults={**fields, **chat, "scope": SessionScope.PER_CHAT, "chat_name": message.chat_name},
    )
    return session


def chat_migrated(*, account: str, old_channel_id: str, new_channel_id: str) -> None:
    """A chat goes on under another id: its sessions and what waits to be sent follow. Repeating it changes nothing."""
    with transaction.atomic():
        taken = set(
            BotSession.objects.filter(account=account, channel_id=new_channel_id).values_list("thread_id", flat=True)
        )
        moving = BotSession.objects.filter(account=account, channel_id=old_channel_id).exclude(thread_id__in=taken)
        moving.update(channel_id=new_channel_id)
        OutboxMessage.objects.filter(account=account, channel_id=old_channel_id, sent_at=None).update(
            channel_id=new_channel_id
        )


def history(*, session_pk: int, max_messages: int) -> tuple[HistoryItem, ...]:
    """The latest messages that an agent may see, oldest first."""
    if not max_messages:
        return ()
    start = BotSession.objects.values_list("context_start", flat=True).get(pk=session_pk)
    rows = (
        HistoryMessage.objects.filter(session=session_pk, id__gt=start, kind__in=_FOR_AGENTS)
        .order_by("-id")
        .values_list("role", "text", "sender_name", "session__platform")[:max_messages]
    )
    return tuple(
        HistoryItem(role=Role(role), text=text, sender_name=one_line(name), platform=platform)
        for role, text, name, platform in reversed(rows)
    )
