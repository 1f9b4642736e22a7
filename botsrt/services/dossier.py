"""Everything that is held about some contacts, as one JSON document: for whoever asks what is known about them.

In group chats only their own messages. Left out is what is not about them: hashes of codes, leases, tracebacks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q, QuerySet

from botsrt.core import redact
from botsrt.core.actors import Actor
from botsrt.core.errors import NotFound
from botsrt.models import (
    AuditEvent,
    BotSession,
    Contact,
    DLQItem,
    IdentityLink,
    OutboxMessage,
    Pairing,
    PersonMerge,
    Preview,
    Turn,
)
from botsrt.services import audit, erasing

#: Rows read at a time, so that any amount needs little memory.
_CHUNK = 200

#: Columns that say nothing about a person, or that are secrets of the runtime.
_LEFT_OUT: dict[type[models.Model], frozenset[str]] = {
    Pairing: frozenset({"nonce", "code_hash"}),
    DLQItem: frozenset({"traceback"}),
    Turn: frozenset({"worker_id", "lease_expires_at", "deadline_at"}),
    OutboxMessage: frozenset({"worker_id", "lease_expires_at"}),
}


def export(*, contact_ids: Collection[int], actor: Actor, reason: str = "", now: datetime) -> Iterator[str]:
    """The document, in pieces. Only ASCII: other characters are written as JSON escapes, so that nothing in it can
    be taken for markup, or moves a terminal's cursor.

    Raises:
        NotFound: there are no such contacts (any more).
    """
    names = [str(contact) for contact in Contact.objects.filter(pk__in=contact_ids).order_by("pk")]
    if not names:
        raise NotFound("There is no such contact (any more).")
    for contact_id in contact_ids:
        audit.record(
            actor=actor,
            verb="identity.data",
            object_kind="contact",
            object_id=f"contact {contact_id}",
            reason=reason,
            now=now,
        )
    return _pieces(names, list(contact_ids), now)


def _pieces(names: list[str], contact_ids: list[int], now: datetime) -> Iterator[str]:
    yield f'{{"about": {_json(names)},\n "written_at": {_json(now)}'
    for title, rows in _parts(contact_ids):
        yield f',\n "{title}": ['
        separator = "\n  "
        for row in _in_order(rows):
            yield separator + _json(_fields(row))
            separator = ",\n  "
        yield "]"
    yield "}\n"


def _parts(contact_ids: list[int]) -> Iterator[tuple[str, QuerySet[Any]]]:
    theirs = erasing.Theirs(contact_ids)
    links = IdentityLink.objects.filter(contact__in=contact_ids)
    persons = links.values("person")
    yield "contacts", Contact.objects.filter(pk__in=contact_ids)
    yield "links", links
    yield "merges", PersonMerge.objects.filter(Q(winner__in=persons) | Q(loser__in=persons))
    yield "pairings", theirs.pairings
    yield "conversations", theirs.sessions
    yield "messages", theirs.history
    yield "messages_in_groups", theirs.said_in_groups
    yield "messages_in_groups_before", theirs.said_in_groups_before  # whose journal entries are gone
    yield "journal", theirs.entries
    yield "dead_letters", DLQItem.objects.filter(entry__in=theirs.entries)
    yield "outgoing", theirs.outgoing
    yield "turns", theirs.turns
    yield "previews", Preview.objects.filter(entry__in=theirs.entries)
    yield "files", theirs.files
    sessions = BotSession.objects.filter(pk__in=theirs.sessions).values_list("session_id", flat=True)
    named = [*sessions, *(str(contact) for contact in Contact.objects.filter(pk__in=contact_ids))]
    yield "acts_of_staff", AuditEvent.objects.filter(object_kind__in=("contact", "session"), object_id__in=named)


def _in_order(rows: QuerySet[Any]) -> Iterator[Any]:
    """The rows by their keys, a chunk at a time."""
    last = None
    while True:
        further = rows if last is None else rows.filter(pk__gt=last)
        # Each once, whatever is joined: PostgreSQL cannot compare rows with JSON in them.
        once = rows.model._default_manager.filter(pk__in=further.values("pk"))
        found = list(once.order_by("pk")[:_CHUNK])
        if not found:
            return
        yield from found
        last = found[-1].pk


def _fields(row: models.Model) -> dict[str, Any]:
    left_out = _LEFT_OUT.get(type(row), frozenset())
    return {
        field.name: _clean(field.value_from_object(row))
        for field in row._meta.concrete_fields
        if field.name not in left_out
    }


def _clean(value: Any) -> Any:
    """Without tokens and passwords, wherever somebody put one."""
    if isinstance(value, str):
        return redact.redact(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value


def _json(value: Any) -> str:
    text = json.dumps(value, default=_as_text, ensure_ascii=True)
    # Valid JSON as before, and harmless where a browser takes the file for a page.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
