"""Conversations: found or made for a message, read for a turn, begun anew.

Linked contacts have one conversation: the sessions of one lane are read together, each stays where it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Q

from botsrt.core import keys
from botsrt.core.messages import InboundMessage
from botsrt.core.ports import HistoryItem
from botsrt.core.runtime_state import RuntimeState, with_turn
from botsrt.core.states import ChatType, HistoryKind, Role, SessionScope
from botsrt.core.text import one_line, storable_json
from botsrt.models import BotSession, Contact, HistoryMessage, IdentityLink, OutboxMessage, Preview
from botsrt.services import identity, lanes

#: After everything that the turn itself wrote.
_DIVIDER_ORDINAL = 1_000


def said_with(accounts: Collection[str]) -> Q:
    """The messages of the history that belong to these bots: by their route; what has none, such as a note, belongs to
    the bot with which its session began."""
    names = sorted(accounts)
    return Q(route__account__in=names) | Q(route__account__isnull=True, session__account__in=names)


def for_message(*, message: InboundMessage, contact: Contact, now: datetime) -> BotSession:
    """The session that ``message`` belongs to, made on first sight.

    Direct messages belong to their contact; a group's belong to the chat (or thread) as its members share it.
    """
    fields = {"platform": message.platform, "account": message.account, "created_at": now, "last_activity_at": now}
    if message.chat_type == ChatType.DIRECT:
        return _direct(message=message, contact=contact, fields=fields, now=now)
    # Found by its chat first: the id keeps the chat's first name when the platform moves the chat. Then by its id: what
    # was written before the move may be delivered after it.
    chat = {"account": message.account, "channel_id": message.channel_id, "thread_id": message.thread_id}
    if moved := BotSession.objects.filter(**chat, scope=SessionScope.PER_CHAT).first():
        return moved
    session_id = keys.group_session_id(message.platform, **chat)
    session, _ = BotSession.objects.get_or_create(
        session_id=session_id,
        defaults={
            **fields,
            **chat,
            "scope": SessionScope.PER_CHAT,
            "lane": session_id,
            "chat_name": message.chat_name,
        },
    )
    return session


def _direct(*, message: InboundMessage, contact: Contact, fields: Mapping[str, Any], now: datetime) -> BotSession:
    session_id = keys.direct_session_id(message.platform, message.sender.user_id)
    session = BotSession.objects.filter(session_id=session_id).first()
    if session is None:
        lane = identity.lane_of(contact)
        session, is_new = BotSession.objects.get_or_create(
            session_id=session_id,
            defaults={**fields, "scope": SessionScope.PER_USER, "contact": contact, "lane": lane},
        )
        if is_new and lane != session_id:  # of somebody who is linked already
            lanes.agree(lane=lane, now=now)
    elif identity.external() is not None and (lane := identity.lane_of(contact)) != session.lane:
        lanes.move(contact_ids=[contact.pk], lane=lane, now=now)
        session.lane = lane
    return session


def chat_migrated(*, account: str, old_channel_id: str, new_channel_id: str) -> None:
    """A chat goes on under another id: its sessions and what waits to be sent follow. Repeating it changes nothing."""
    with transaction.atomic():
        taken = set(
            BotSession.objects.filter(account=account, channel_id=new_channel_id).values_list("thread_id", flat=True)
        )
        moving = BotSession.objects.filter(account=account, channel_id=old_channel_id).exclude(thread_id__in=taken)
        moving.update(channel_id=new_channel_id)
        # Messages stay behind, and their ids mean others in the new chat.
        OutboxMessage.objects.filter(account=account, channel_id=old_channel_id, sent_at=None).update(
            channel_id=new_channel_id, edits=""
        )
        Preview.objects.filter(account=account, channel_id=old_channel_id).delete()


class _Part(NamedTuple):
    """What one session contributes to the history of its lane."""

    platform: str
    start: int
    """The history id after which it begins."""


def history(*, session_pk: int, max_messages: int) -> tuple[HistoryItem, ...]:
    """The latest messages of the session's lane that an agent may see, in the order in which they were added."""
    parts = _parts(session_pk) if max_messages else {}
    if not parts:
        return ()
    return tuple(
        HistoryItem(role=Role(role), text=text, sender_name=one_line(name), platform=parts[pk].platform)
        for _, pk, role, text, name in reversed(_latest(parts, max_messages))
    )


#: The newest messages of one session. Read from its index, so that it costs the same however much was said before.
_OF_ONE_SESSION = """SELECT * FROM (
    SELECT id, session_id, role, text, sender_name FROM botsrt_historymessage
    WHERE session_id = %s AND id > %s AND kind IN (%s, %s, %s)
    ORDER BY id DESC LIMIT %s) AS newest"""


def _latest(parts: Mapping[int, _Part], max_messages: int) -> list[tuple[int, int, str, str, str]]:
    """The newest messages of all these sessions, newest first, in one statement: the ORM would need one for each."""
    parameters: list[Any] = [
        value for pk, part in parts.items() for value in (pk, part.start, *HistoryKind.for_agents(), max_messages)
    ]
    statement = " UNION ALL ".join([_OF_ONE_SESSION] * len(parts)) + " ORDER BY 1 DESC LIMIT %s"
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, max_messages])
        rows: list[tuple[int, int, str, str, str]] = cursor.fetchall()
    return rows


#: The sessions of one lane, each with where it begins and where the link of its contact does. One statement: with the
#: ORM it would be two, and building them would take longer than running them.
_OF_ONE_LANE = """SELECT session.id, session.platform, session.lane, session.context_start, link.context_start
    FROM botsrt_botsession AS session
    LEFT JOIN botsrt_contact AS contact ON contact.id = session.contact_id
    LEFT JOIN botsrt_identitylink AS link
        ON link.contact_id = coalesce(contact.alias_of_id, contact.id) AND link.unlinked_at IS NULL
    WHERE session.lane = (SELECT lane FROM botsrt_botsession WHERE id = %s)"""


def _parts(session_pk: int) -> dict[int, _Part]:
    """The sessions that are read together with this one, by their primary keys."""
    with connection.cursor() as cursor:
        cursor.execute(_OF_ONE_LANE, [session_pk])  # a group's lane is its own
        rows: list[tuple[int, str, str, int, int | None]] = cursor.fetchall()
    return {
        pk: _Part(platform, max(start, linked_start or 0) if keys.is_person_lane(lane) else start)
        for pk, platform, lane, start, linked_start in rows
    }


def runtime_state(*, session_pk: int) -> RuntimeState:
    """What agents kept of the session."""
    state: RuntimeState = BotSession.objects.values_list("runtime_state", flat=True).get(pk=session_pk)
    return state


def keep_runtime_state(*, session_pk: int, runtime_id: str, turn_id: uuid.UUID, state: Mapping[str, Any]) -> None:
    """Add what a turn that ends now wants to keep; its lane is still its own."""
    current = runtime_state(session_pk=session_pk)
    kept = with_turn(current, runtime_id=runtime_id, turn_id=str(turn_id), state=state)
    BotSession.objects.filter(pk=session_pk).update(runtime_state=storable_json(kept))


def last_said_at(*, session_pk: int) -> datetime | None:
    """When somebody last said something in what the agent may see of the session's lane; None: nobody has.

    What a mirror wrote is not counted: a reminder wakes no conversation.
    """
    said = HistoryMessage.objects.filter(kind__in=(HistoryKind.CHAT, HistoryKind.STAFF)).order_by("-id")
    newest = (
        said.filter(session=pk, id__gt=part.start).values_list("created_at", flat=True).first()
        for pk, part in _parts(session_pk).items()
    )
    return max(filter(None, newest), default=None)


def start_new(
    *, session: BotSession, turn_id: uuid.UUID, now: datetime, text: str = "A new conversation begins."
) -> None:
    """The conversation begins anew: the agent no longer sees what was said. Everything stays readable for staff.

    What was said on other platforms is hidden only while the link lasts: ending it restores them.
    """
    with transaction.atomic():
        divider = HistoryMessage.objects.create(
            session=session,
            turn_id=turn_id,
            ordinal=_DIVIDER_ORDINAL,
            role=Role.SYSTEM,
            kind=HistoryKind.DIVIDER,
            text=text,
            created_at=now,
        )
        begun = BotSession.objects.filter(pk=session.pk)
        if session.contact is not None:
            group = identity.ids_of(session.contact.root_id)
            begun = BotSession.objects.filter(contact__in=group, scope=SessionScope.PER_USER)
            together = IdentityLink.objects.filter(identity.ACTIVE, contact__sessions__lane=session.lane)
            together.update(context_start=divider.pk)
            if identity.external() is not None:
                begun = BotSession.objects.filter(lane=session.lane, scope=SessionScope.PER_USER)
        begun.update(context_start=divider.pk, runtime_state={})
