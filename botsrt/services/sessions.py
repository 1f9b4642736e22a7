"""Conversations: found or made for a message, read for a turn, begun anew.

Linked contacts have one conversation: the sessions of one lane are read together, each stays where it is.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
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
from botsrt.services import identity, lanes, sql

#: Of the dividers at which contexts begin: after everything that the turn itself wrote.
DIVIDER_ORDINAL = 1_000


def said_with(accounts: Collection[str]) -> Q:
    """The messages of the history that belong to these bots: by their route; what has none, such as a note, belongs to
    the bot with which its session began."""
    names = sorted(accounts)
    return Q(route__account__in=names) | Q(route__account__isnull=True, session__account__in=names)


class Home(NamedTuple):
    """Where a message belongs."""

    session_pk: int
    lane: str


#: A message, who wrote it, and when it came.
Said = tuple[InboundMessage, Contact, datetime]


def for_messages(said: Sequence[Said]) -> list[Home]:
    """The sessions of many messages, made on first sight.

    Direct messages belong to their contact; a group's belong to the chat (or thread) as its members share it.
    """
    first = {_place(one[0]): one for one in reversed(said)}
    homes = _direct({place: one for place, one in first.items() if one[0].chat_type == ChatType.DIRECT})
    for place, (message, _, now) in first.items():
        if place not in homes:
            homes[place] = _of_chat(message, now=now)
    return [homes[_place(message)] for message, _, _ in said]


#: The same for messages of one session.
_Place = tuple[str, ...]


def _place(message: InboundMessage) -> _Place:
    if message.chat_type == ChatType.DIRECT:
        return (keys.direct_session_id(message.platform, message.sender.user_id),)
    return message.account, message.channel_id, message.thread_id


def _direct(first: Mapping[_Place, Said]) -> dict[_Place, Home]:
    """The sessions of contacts, each where the contact's person has their lane now."""
    known = _known_direct(first)
    new = {place: one for place, one in first.items() if place not in known}
    # A link moves the sessions that it finds; who says otherwise at any time is asked at any time.
    unsettled = new if identity.external() is None else first
    if not unsettled:
        return known
    lane_by_contact = identity.lanes_of([contact for _, contact, _ in unsettled.values()])
    if new:
        known |= _add_direct(new, lane_by_contact)
    for place, (_, contact, now) in unsettled.items():
        lane = lane_by_contact[contact.pk]
        if known[place].lane != lane:
            lanes.move(contact_ids=[contact.pk], lane=lane, now=now)
            known[place] = known[place]._replace(lane=lane)
    return known


def _known_direct(places: Collection[_Place]) -> dict[_Place, Home]:
    if not places:
        return {}
    wanted = [session_id for (session_id,) in places]
    found = sql.fetch(_DIRECT.format(ids=sql.marks(wanted)), wanted)
    return {(session_id,): Home(pk, lane) for pk, session_id, lane in found}


_DIRECT = "SELECT id, session_id, lane FROM botsrt_botsession WHERE session_id IN ({ids})"


def _add_direct(new: Mapping[_Place, Said], lane_by_contact: Mapping[int, str]) -> dict[_Place, Home]:
    """Make sessions of contacts. Another process may be faster: theirs is the same."""
    rows = [
        {
            "session_id": session_id,
            "scope": SessionScope.PER_USER,
            "contact_id": contact.pk,
            "lane": lane_by_contact[contact.pk],
            "platform": message.platform,
            "account": message.account,
            "created_at": now,
            "last_activity_at": now,
        }
        for (session_id,), (message, contact, now) in sorted(new.items(), key=itemgetter(0))
    ]
    made = sql.insert(BotSession, rows, ignore_conflicts=True, returning=("session_id", "lane"))
    for session_id, lane in made:
        if lane != session_id:  # of somebody who is linked already
            lanes.agree(lane=lane, now=new[session_id,][2])
    return _known_direct(new)


def _of_chat(message: InboundMessage, *, now: datetime) -> Home:
    """The session of a group chat."""
    # Found by its chat first: the id keeps the chat's first name when the platform moves the chat. Then by its id: what
    # was written before the move may be delivered after it.
    chat = {"account": message.account, "channel_id": message.channel_id, "thread_id": message.thread_id}
    session = BotSession.objects.filter(**chat, scope=SessionScope.PER_CHAT).first()
    if session is None:
        session_id = keys.group_session_id(message.platform, **chat)
        session, _ = BotSession.objects.get_or_create(
            session_id=session_id,
            defaults={
                **chat,
                "scope": SessionScope.PER_CHAT,
                "lane": session_id,
                "chat_name": message.chat_name,
                "platform": message.platform,
                "created_at": now,
                "last_activity_at": now,
            },
        )
    return Home(session.pk, session.lane)


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

    asked: int  # the session that was asked for
    pk: int  # one of its lane
    platform: str
    start: int  # the history id after which it begins


def history(*, session_pk: int, max_messages: int) -> tuple[HistoryItem, ...]:
    """The latest messages of the session's lane that an agent may see, in the order in which they were added."""
    return histories({session_pk: max_messages}).get(session_pk, ())


def histories(wanted: Mapping[int, int]) -> dict[int, tuple[HistoryItem, ...]]:
    """``history`` for many sessions (by primary key), each with the most messages that are wanted."""
    wanted = {pk: most for pk, most in wanted.items() if most > 0}
    parts = _parts(wanted)
    if not parts:
        return {}
    newest, parameters = sql.values([(part.asked, part.pk, part.start) for part in parts])
    platforms = {(part.asked, part.pk): part.platform for part in parts}
    found: defaultdict[int, list[tuple[int, HistoryItem]]] = defaultdict(list)
    statement = _NEWEST[connection.vendor].format(parts=newest, kinds=_KINDS, most=max(wanted.values()))
    for asked, pk, row_id, role, text, name in sql.fetch(statement, parameters):
        item = HistoryItem(
            role=_ROLES[role], text=text, sender_name=one_line(name) if name else "", platform=platforms[asked, pk]
        )
        found[asked].append((row_id, item))
    return {
        asked: tuple(item for _, item in sorted(items, key=itemgetter(0))[-wanted[asked] :])
        for asked, items in found.items()
    }


_ROLES = {role.value: role for role in Role}

_KINDS = ", ".join(f"'{kind}'" for kind in HistoryKind.for_agents())

#: The newest messages of many sessions, read from the index of each, so that it costs the same however much was said
#: before. The ORM would need a statement for each session; the two databases know different words for it.
_NEWEST = {
    "sqlite": """SELECT part.column1, part.column2, message.id, message.role, message.text, message.sender_name
        FROM {parts} AS part CROSS JOIN botsrt_historymessage AS message WHERE message.id IN (
            SELECT id FROM botsrt_historymessage
            WHERE session_id = part.column2 AND id > part.column3 AND kind IN ({kinds})
            ORDER BY id DESC LIMIT {most})""",
    "postgresql": """SELECT part.column1, part.column2, message.id, message.role, message.text, message.sender_name
        FROM {parts} AS part CROSS JOIN LATERAL (
            SELECT id, role, text, sender_name FROM botsrt_historymessage
            WHERE session_id = part.column2 AND id > part.column3 AND kind IN ({kinds})
            ORDER BY id DESC LIMIT {most}) AS message""",
}

#: The sessions of the lanes of others, each with where it begins and where the link of its contact does.
_OF_LANES = """SELECT asked.column1, session.id, session.platform, session.lane, session.context_start,
        link.context_start
    FROM {asked} AS asked CROSS JOIN botsrt_botsession AS mine CROSS JOIN botsrt_botsession AS session
    LEFT JOIN botsrt_contact AS contact ON contact.id = session.contact_id
    LEFT JOIN botsrt_identitylink AS link
        ON link.contact_id = coalesce(contact.alias_of_id, contact.id) AND link.unlinked_at IS NULL
    WHERE mine.id = asked.column1 AND session.lane = mine.lane"""


def _parts(session_pks: Collection[int]) -> list[_Part]:
    """The sessions that are read together with each of these, which are asked for by their primary keys."""
    if not session_pks:
        return []
    asked, parameters = sql.values([(pk,) for pk in session_pks])
    return [
        _Part(asked_pk, pk, platform, max(start, linked_start or 0) if keys.is_person_lane(lane) else start)
        for asked_pk, pk, platform, lane, start, linked_start in sql.fetch(_OF_LANES.format(asked=asked), parameters)
    ]


def runtime_state(*, session_pk: int) -> RuntimeState:
    """What agents kept of the session."""
    state: RuntimeState = BotSession.objects.values_list("runtime_state", flat=True).get(pk=session_pk)
    return state


def keep_runtime_state(*, session_pk: int, runtime_id: str, turn_id: uuid.UUID, state: Mapping[str, Any]) -> None:
    """Add what a turn that ends now wants to keep; its lane is still its own."""
    current = runtime_state(session_pk=session_pk)
    kept = with_turn(current, runtime_id=runtime_id, turn_id=str(turn_id), state=state)
    BotSession.objects.filter(pk=session_pk).update(runtime_state=storable_json(kept))


def were_active(at: Mapping[int, datetime]) -> None:
    """Somebody spoke in these sessions (by primary key) then."""
    if not at:
        return
    active, parameters = sql.values([(pk, time) for pk, time in sorted(at.items())])
    sql.execute(_ACTIVE.format(active=active), parameters)


_ACTIVE = """UPDATE botsrt_botsession SET last_activity_at = active.column2
    FROM {active} AS active WHERE botsrt_botsession.id = active.column1"""


def last_said_at(*, session_pk: int) -> datetime | None:
    """When somebody last said something in what the agent may see of the session's lane; None: nobody has.

    What a mirror wrote is not counted: a reminder wakes no conversation.
    """
    said = HistoryMessage.objects.filter(kind__in=(HistoryKind.CHAT, HistoryKind.STAFF)).order_by("-id")
    newest = (
        said.filter(session=part.pk, id__gt=part.start).values_list("created_at", flat=True).first()
        for part in _parts([session_pk])
    )
    return max(filter(None, newest), default=None)


def start_new(
    *, session: BotSession, turn_id: uuid.UUID, now: datetime, text: str = "A new conversation begins."
) -> HistoryMessage:
    """The conversation begins anew: the agent no longer sees what was said. Everything stays readable for staff.

    What was said on other platforms is hidden only while the link lasts: ending it restores them. Returns the divider.
    """
    with transaction.atomic():
        divider = HistoryMessage.objects.create(
            session=session,
            turn_id=turn_id,
            ordinal=DIVIDER_ORDINAL,
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
        return divider
