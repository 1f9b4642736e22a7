"""The audit: who did what to which object, why, and what it changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.urls import reverse

from botsrt.core import keys
from botsrt.models import AuditEvent
from praisonweb.dashboard import paging
from praisonweb.dashboard.filters import Filters, Key
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of

#: Characters of one changed value that are shown.
_MAX_VALUE_CHARS = 2_000

KEYS = (
    Key(name="who", help="the person, or system"),
    Key(name="what", help="journal.replay, bots.change, or only bots"),
    Key(name="object", help="its kind: bot, journal, dlq, outbox, agent"),
    Key(name="id", help="the object's number or name"),
    Key(name="before", help="2h, 7d, 2026-11-20", is_time=True),
    Key(name="after", help="2h, 7d, 2026-11-20", is_time=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that an act changed; empty: it was, or is, not there."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: int
    at: datetime
    actor: str
    address: str
    verb: str
    object_kind: str
    object_id: str
    url: str  # empty: it has no page
    reason: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    filters: Filters
    page: Page[Row]
    is_empty: bool

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


def read(*, filters: Filters, before: int | None) -> Audit:
    """A page of the acts that ``filters`` describe, newest first."""
    found = _matching(filters)
    rows = found.filter(pk__lt=before) if before is not None else found
    rows, window_end = paging.window(rows) if filters.words else (rows, None)
    for word in filters.words:
        rows = rows.filter(reason__icontains=word)
    listed = list(rows.order_by("-pk")[: PAGE_SIZE + 1])
    return Audit(
        filters=filters,
        page=page_of(
            [_row(event) for event in listed], [event.pk for event in listed], before=before, window_end=window_end
        ),
        is_empty=not listed and not filters and before is None,
    )


def _matching(filters: Filters) -> QuerySet[AuditEvent]:
    rows = AuditEvent.objects.all()
    if filters.problems:
        return rows.none()
    for key, column in (("who", "actor"), ("object", "object_kind"), ("id", "object_id")):
        if values := filters.values(key):
            rows = rows.filter(**{f"{column}__in": values})
    for verb in filters.values("what"):
        rows = rows.filter(verb__startswith=verb)
    if "before" in filters.times:
        rows = rows.filter(at__lt=filters.times["before"])
    if "after" in filters.times:
        rows = rows.filter(at__gte=filters.times["after"])
    return rows


def _row(event: AuditEvent) -> Row:
    return Row(
        id=event.pk,
        at=event.at,
        actor=event.actor,
        address=event.address,
        verb=event.verb,
        object_kind=event.object_kind,
        object_id=event.object_id,
        url=_page_of(event.object_kind, event.object_id),
        reason=event.reason,
        changes=tuple(_changes(event.before, event.after)),
    )


def _page_of(kind: str, object_id: str) -> str:
    """The page of an object; it may be gone by now."""
    numbered = {"journal": "journal_entry", "dlq": "dlq_item", "outbox": "delivery"}
    named = {"bot": "bot", "agent": "agent"}
    if kind in numbered and object_id.isascii() and object_id.isdigit() and len(object_id) <= 18:
        return reverse(numbered[kind], args=[int(object_id)])
    if kind in named and keys.ACCOUNT_NAME.fullmatch(object_id):
        return reverse(named[kind], args=[object_id])
    return ""


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs, in the order in which it was written down."""
    names = list(dict.fromkeys([*before, *after]))
    changes = [Change(name=name, before=_text(before.get(name)), after=_text(after.get(name))) for name in names]
    return [change for change in changes if change.before != change.after]


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text[:_MAX_VALUE_CHARS]
