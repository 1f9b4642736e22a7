"""The contexts of a conversation: what was said between two new beginnings, and going on with an earlier one.

Messages never move. Going on is a new beginning that brings back stretches of the history (``models.Recollection``):
they are read before what is said from then on. With the next new beginning that is over.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from operator import itemgetter

from django.db import transaction
from django.db.models import F, QuerySet

from botsrt.core import keys
from botsrt.core.ports import HistoryItem
from botsrt.core.states import HistoryKind, Role, SessionScope
from botsrt.core.text import one_line
from botsrt.models import BotSession, HistoryMessage, IdentityLink, Recollection
from botsrt.services import identity, sessions, sql

#: Earlier contexts that are offered at most, and beginnings that are looked at for them.
OFFERED = 9
_LOOKED_AT = 60

#: Stretches that go on in one context at most; the oldest are left out.
_MAX_STRETCHES = 20

#: Characters of its first words by which a context is known.
_WORDS_CHARS = 60

#: Ids of the history are smaller.
_END = 2**63 - 1

#: How an agent is given a summary: as what it is, never as an instruction.
_SUMMARY = "[What was said before, summed up: {summary}]"

#: After this id, and up to that one.
Stretch = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier context of a conversation."""

    began_at: datetime
    words: str  # the first ones of the person; one line
    stretches: tuple[Stretch, ...]  # oldest first


def earlier(*, session: BotSession) -> list[Earlier]:
    """The earlier contexts of a contact's direct conversation in which they said something, the latest first.

    One that goes on in a later one is not named again: that one stands for both.
    """
    found: list[Earlier] = []
    pks = [one.pk for one in _own(session)]
    begun = [(row.pk, _resumed(row)) for row in _beginnings(pks)]
    if len(begun) < _LOOKED_AT:  # else the oldest ones that were looked at have others before them
        begun.insert(0, (0, ()))
    is_continued = {stretch for _, resumed in begun for stretch in resumed}
    for (after, resumed), (through, _) in reversed(list(pairwise(begun))):
        if (after, through) in is_continued:
            continue
        stretches = (*resumed, (after, through))
        if (first := _first_words(pks, stretches)) is not None:
            words = one_line(first.text, max_chars=_WORDS_CHARS) or "(a file)"
            found.append(Earlier(began_at=first.created_at, words=words, stretches=stretches))
        if len(found) == OFFERED:
            break
    return found


def go_on_with(chosen: Earlier, *, session: BotSession, turn_id: uuid.UUID, now: datetime) -> None:
    """The conversation goes on where it was: the agent sees that context, and what is said from now on."""
    stretches = [list(stretch) for stretch in chosen.stretches[-_MAX_STRETCHES:]]
    with transaction.atomic():
        text = f"The conversation of {chosen.began_at:%Y-%m-%d %H:%M} UTC goes on."
        divider = sessions.start_new(session=session, turn_id=turn_id, now=now, text=text)
        HistoryMessage.objects.filter(pk=divider.pk).update(metadata={"resumed": stretches})
        for own in _own(session):
            Recollection.objects.update_or_create(
                session=own,
                defaults={
                    "context_start": divider.pk,
                    "stretches": stretches,
                    "summary": None,
                    "through": 0,
                    "covers": [],
                },
            )


# -- what the agent gets ----


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an agent may see of a lane, when something is recalled there."""

    begins: Mapping[int, int]  # session → the id of the history after which it begins
    platforms: Mapping[int, str]
    stretches: Mapping[int, Sequence[Sequence[int]]]  # session → what goes on there
    summary: HistoryMessage | None  # of what was said up to ``through`` in the sessions ``covers``
    through: int
    covers: frozenset[int]

    def rows(self, *, limit: int) -> list[tuple[int, HistoryItem]]:
        """The newest messages beside the summary, in order, with their ids."""
        found: list[tuple[int, HistoryItem]] = []
        for pk, begin in self.begins.items():
            is_covered = pk in self.covers
            found.extend(self._read(pk, max(begin, self.through) if is_covered else begin, _END, limit=limit))
            for after, through in () if is_covered else self.stretches.get(pk, ()):
                found.extend(self._read(pk, after, through, limit=limit))
        return sorted(found, key=itemgetter(0))[-limit:]

    def _read(self, session_pk: int, after: int, through: int, *, limit: int) -> Iterator[tuple[int, HistoryItem]]:
        rows = HistoryMessage.objects.filter(session=session_pk, kind__in=HistoryKind.for_agents()).order_by("-id")
        read = rows.filter(id__gt=after, id__lte=through).values_list("id", "role", "text", "sender_name")[:limit]
        for pk, role, text, name in read:
            item = HistoryItem(
                role=Role(role), text=text, sender_name=one_line(name), platform=self.platforms[session_pk]
            )
            yield pk, item


def recalling(lanes: Collection[str]) -> set[str]:
    """Those of the lanes in whose present contexts something is recalled. One statement: every turn asks."""
    names = list(lanes)
    return {lane for (lane,) in sql.fetch(_RECALLING.format(lanes=sql.marks(names)), names)} if names else set()


_RECALLING = """SELECT session.lane FROM botsrt_botsession AS session
    JOIN botsrt_recollection AS recollection ON recollection.session_id = session.id
        AND recollection.context_start = session.context_start
    WHERE session.lane IN ({lanes})"""


def recalled(history: tuple[HistoryItem, ...], *, lane: str, max_messages: int) -> tuple[HistoryItem, ...]:
    """``history``, which is that of the present contexts of the lane, with what is recalled in it."""
    found = _recollections(lane)
    if not found or not max_messages:
        return history
    seen = _view(lane, found)
    if seen.summary is None:
        return tuple(item for _, item in seen.rows(limit=max_messages))
    said = HistoryItem(role=Role.USER, text=_SUMMARY.format(summary=seen.summary.text))
    return (said, *(item for _, item in seen.rows(limit=max_messages - 1))) if max_messages > 1 else (said,)


def view(*, lane: str) -> View:
    """What an agent may see of the lane."""
    return _view(lane, _recollections(lane))


def _recollections(lane: str) -> list[Recollection]:
    rows = Recollection.objects.filter(session__lane=lane, context_start=F("session__context_start"))
    return list(rows.select_related("summary"))


def _view(lane: str, found: Sequence[Recollection]) -> View:
    together = BotSession.objects.filter(lane=lane).select_related("contact")
    begins = {session.pk: session.context_start for session in together}
    hidden: set[int] = set()
    if keys.is_person_lane(lane):
        roots = {session.contact.root_id for session in together if session.contact is not None}
        links = dict(
            IdentityLink.objects.filter(identity.ACTIVE, contact__in=roots).values_list("contact", "context_start")
        )
        for session in together:
            linked = links.get(session.contact.root_id, 0) if session.contact is not None else 0
            if linked > begins[session.pk]:  # it began anew on another platform since, for as long as the link lasts
                begins[session.pk] = linked
                hidden.add(session.pk)
    fitting = (one for one in found if _fits(one, begins))
    summed_up = max(fitting, key=lambda one: one.through, default=None)
    return View(
        begins=begins,
        platforms={session.pk: session.platform for session in together},
        stretches={one.session_id: one.stretches for one in found if one.session_id not in hidden},
        summary=summed_up.summary if summed_up else None,
        through=summed_up.through if summed_up else 0,
        covers=frozenset(summed_up.covers if summed_up else ()),
    )


def _fits(one: Recollection, begins: Mapping[int, int]) -> bool:
    """Whether its summary stands for what may be seen: not when a link ended, nor after a new beginning."""
    if one.summary_id is None:
        return False
    return all(pk in begins and begins[pk] < one.summary_id for pk in one.covers)


# -- where contexts begin ----


def _own(session: BotSession) -> QuerySet[BotSession]:
    """The direct sessions of the contact and its aliases, which begin anew together."""
    if session.contact is None:
        return BotSession.objects.filter(pk=session.pk)
    group = identity.ids_of(session.contact.root_id)
    return BotSession.objects.filter(contact__in=group, scope=SessionScope.PER_USER)


def _beginnings(session_pks: Collection[int]) -> list[HistoryMessage]:
    """The latest dividers at which contexts of these sessions began, in order."""
    rows = HistoryMessage.objects.filter(
        session__in=session_pks, kind=HistoryKind.DIVIDER, ordinal=sessions.DIVIDER_ORDINAL
    )
    return list(reversed(rows.order_by("-id")[:_LOOKED_AT]))


def _resumed(divider: HistoryMessage) -> tuple[Stretch, ...]:
    """The stretches that go on in the context that begins here."""
    return tuple((after, through) for after, through in divider.metadata.get("resumed", ()))


def _first_words(session_pks: Collection[int], stretches: Sequence[Stretch]) -> HistoryMessage | None:
    said = HistoryMessage.objects.filter(session__in=session_pks, kind=HistoryKind.CHAT, role=Role.USER).order_by("id")
    for after, through in stretches:
        if first := said.filter(id__gt=after, id__lte=through).first():
            return first
    return None
