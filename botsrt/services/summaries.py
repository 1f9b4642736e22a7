"""Summaries of long conversations: written by an agent, kept beside the messages that they stand for.

The originals stay where they are, readable for staff. A summary is kept only if, when it is written, everything is
still as it was read: what was said meanwhile is never hidden by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from botsrt.core.ports import HistoryItem
from botsrt.core.states import HistoryKind, Role
from botsrt.core.text import storable, storable_json
from botsrt.models import BotSession, HistoryMessage, Recollection
from botsrt.services import contexts, lanes, news
from botsrt.services.contexts import View

#: Messages that are read for a summary, in multiples of those after which one is due. What is older was out of the
#: agent's sight before.
_WINDOW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is to be summed up."""

    session_pk: int
    lane: str
    items: tuple[HistoryItem, ...]
    earlier: str  # the summary that stands now, which the new one takes the place of; empty: none
    ids: tuple[int, ...]  # of the messages
    seen: View


def due(*, session_pk: int, after: int) -> Draft | None:
    """The older messages of the conversation, when there are more than ``after`` beside its summary.

    The newer half stays as it is.
    """
    lane = BotSession.objects.values_list("lane", flat=True).get(pk=session_pk)
    seen = contexts.view(lane=lane)
    rows = seen.rows(limit=_WINDOW * after)
    if len(rows) <= after:
        return None
    old = rows[: -(after // 2)]
    return Draft(
        session_pk=session_pk,
        lane=lane,
        items=tuple(item for _, item in old),
        earlier=seen.summary.text if seen.summary else "",
        ids=tuple(pk for pk, _ in old),
        seen=seen,
    )


def keep(*, draft: Draft, text: str, agent: str, usage: Mapping[str, Any], now: datetime) -> bool:
    """Let ``text`` stand for the messages of the draft from now on.

    Returns:
        False when something changed since they were read: a new beginning, a link, another summary, or a message that
        came to stand among them. Nothing was changed.
    """
    if not text.strip():
        return False
    with transaction.atomic():
        session = lanes.locked(draft.session_pk)
        seen = contexts.view(lane=session.lane)
        rows = seen.rows(limit=_WINDOW * len(draft.ids) + 1_000)
        among = tuple(pk for pk, _ in rows if draft.ids[0] <= pk <= draft.ids[-1])
        if session.lane != draft.lane or seen != draft.seen or among != draft.ids:
            return False
        metadata: dict[str, Any] = {
            "originals": list(draft.ids),
            "usage": dict(usage),
            "sessions": _with_those_of(seen.summary, "sessions", seen.begins),
            "contacts": _with_those_of(seen.summary, "contacts", _contacts(draft.ids)),
        }
        if seen.summary is not None:
            metadata["replaces"] = seen.summary.pk
        row = HistoryMessage.objects.create(
            session=session,
            role=Role.SYSTEM,
            kind=HistoryKind.SUMMARY,
            text=storable(text),
            source=agent[:60],
            route={"account": _account(session, seen, draft.ids)},
            metadata=storable_json(metadata),
            created_at=now,
        )
        Recollection.objects.update_or_create(
            session=session,
            defaults={
                "context_start": session.context_start,
                "stretches": seen.stretches.get(session.pk, []),
                "summary": row,
                "through": draft.ids[-1],
                "covers": sorted(seen.begins),
            },
        )
        news.changed("people", [session.pk])
        return True


def _account(session: BotSession, seen: View, ids: Collection[int]) -> str:
    """The bot that the summary belongs to, for staff who see some bots only; empty: to several, so to none of them."""
    routes = list(HistoryMessage.objects.filter(pk__in=ids).values_list("route", flat=True))
    routes += [seen.summary.route] if seen.summary is not None else []
    accounts = {route.get("account", session.account) for route in routes}
    return accounts.pop() if len(accounts) == 1 else ""


def _contacts(ids: Collection[int]) -> set[int]:
    """Who said these messages, as far as it is known: from their entries, or as housekeeping noted it down."""
    said = HistoryMessage.objects.filter(pk__in=ids, role=Role.USER).values_list("entry__contact", "metadata")
    found = {contact_id or metadata.get("contact") for contact_id, metadata in said}
    return {contact_id for contact_id in found if isinstance(contact_id, int)}


def _with_those_of(folded: HistoryMessage | None, name: str, ids: Iterable[int]) -> list[int]:
    """``ids``, and those of the summary that the new one is made of, too."""
    return sorted({*ids, *(folded.metadata.get(name, ()) if folded is not None else ())})


def forget(*, session_pks: Collection[int], contact_ids: Collection[int]) -> int:
    """Erase the summaries of which these sessions, or messages of these contacts, are a part: wherever they stand, and
    whether they are still read or not. Agents read the originals again.

    Returns how many summaries were erased.
    """
    sessions, contacts = set(session_pks), set(contact_ids)
    summed_up = Recollection.objects.values("session")  # few are
    rows = HistoryMessage.objects.filter(session__in=summed_up, kind=HistoryKind.SUMMARY)
    with transaction.atomic():
        ids = [
            pk
            for pk, session_pk, metadata in rows.values_list("pk", "session_id", "metadata").iterator()
            if session_pk in sessions
            or not sessions.isdisjoint(metadata.get("sessions", ()))
            or not contacts.isdisjoint(metadata.get("contacts", ()))
        ]
        return _erase(HistoryMessage.objects.filter(pk__in=ids))


def forget_in(*, session_pks: Collection[int]) -> int:
    """Erase the summaries that stand in these sessions; none that is being written is kept before the commit.

    Returns how many summaries were erased.
    """
    with transaction.atomic():
        locked = BotSession.objects.select_for_update(no_key=True).filter(pk__in=session_pks)
        pks = list(locked.order_by("pk").values_list("pk", flat=True))
        return _erase(HistoryMessage.objects.filter(session__in=pks, kind=HistoryKind.SUMMARY))


def _erase(rows: QuerySet[HistoryMessage]) -> int:
    ids = list(rows.values_list("pk", flat=True))
    Recollection.objects.filter(summary__in=ids).update(summary=None, through=0, covers=[])
    return HistoryMessage.objects.filter(pk__in=ids).delete()[0]
