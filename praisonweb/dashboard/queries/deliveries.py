"""Outgoing messages: the list, the desk for what nobody knows, what is held, and one message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from botsrt.core.states import OutboxSource, OutboxState
from botsrt.models import AuditEvent, JournalEntry, OutboxMessage
from praisonweb.dashboard import paging
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import Filters, Key, address
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries
from praisonweb.dashboard.queries.standing import Standing

_MAX_EVENTS = 50

#: Rows that a view counts; more are shown as "999+".
_COUNTED = 1_000

KEYS = (
    Key(name="state", help="where it stands", choices=tuple(OutboxState)),
    Key(name="bot", help="the bot's name"),
    Key(name="platform", help="telegram, slack, discord, whatsapp, webhook, web, …"),
    Key(name="source", help="who speaks", choices=tuple(OutboxSource)),
    Key(name="chat", help="the platform's chat id"),
    Key(name="entry", help="the number of the message that is answered"),
    Key(name="before", help="made before: 2h, 7d, 2026-11-20", is_time=True),
    Key(name="after", help="made after", is_time=True),
)

VIEWS = {
    "All": "",
    "Unknown": "state:unknown",
    "Held": "state:held",
    "Waiting": "state:pending state:sending",
    "Dead": "state:dead",
}

#: What each view is for, above its list.
LEADS = {
    "state:unknown": "Sending was cut: nobody here knows whether these arrived. Look into the chat, then decide.",
    "state:held": "Late, or kept for review: nothing of this goes out before somebody says so.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One part of an outgoing message as the list shows it."""

    id: int
    account: str
    platform: str
    channel_id: str
    person: str
    words: str
    source: str
    standing: Standing
    state: str
    attempts: int
    is_resend: bool
    next_attempt_at: datetime | None
    created_at: datetime
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    name: str
    url: str
    is_on: bool
    count: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    filters: Filters
    page: Page[Row]
    views: tuple[View, ...]
    is_empty: bool

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)

    @property
    def lead(self) -> str:
        return LEADS.get(self.filters.text, "")

    @property
    def can_decide(self) -> bool:
        return any(row.state in (OutboxState.UNKNOWN, OutboxState.HELD) for row in self.page.rows)

    @property
    def can_have_arrived(self) -> bool:
        return any(row.state == OutboxState.UNKNOWN for row in self.page.rows)


def read(*, filters: Filters, before: int | None, scope: Scope) -> Deliveries:
    """A page of the outgoing messages that ``filters`` describe, newest first."""
    found = _matching(filters, scope)
    rows = found.filter(pk__lt=before) if before is not None else found
    rows, window_end = paging.window(rows) if filters.words else (rows, None)
    for word in filters.words:
        rows = rows.filter(text__icontains=word)
    listed = list(rows.select_related("session__contact").order_by("-pk")[: PAGE_SIZE + 1])
    return Deliveries(
        filters=filters,
        page=page_of([_row(row) for row in listed], [row.pk for row in listed], before=before, window_end=window_end),
        views=tuple(
            View(name=name, url=address(text), is_on=filters.text == text, count=_count(name, scope))
            for name, text in VIEWS.items()
        ),
        is_empty=not listed and not filters and before is None,
    )


def _count(view: str, scope: Scope) -> str:
    """How many wait for a decision; other views are not counted."""
    states = {"Unknown": OutboxState.UNKNOWN, "Held": OutboxState.HELD}
    if view not in states:
        return ""
    rows = scope.rows(OutboxMessage.objects.filter(state=states[view]))
    count = len(rows.order_by().values_list("pk")[:_COUNTED])
    return "999+" if count >= _COUNTED else str(count)


def _matching(filters: Filters, scope: Scope) -> QuerySet[OutboxMessage]:
    rows = scope.rows(OutboxMessage.objects.all())
    if filters.problems:
        return rows.none()
    columns = {"state": "state", "bot": "account", "platform": "platform", "source": "source", "chat": "channel_id"}
    for key, column in columns.items():
        if values := filters.values(key):
            rows = rows.filter(**({f"{column}__in": values} if len(values) > 1 else {column: values[0]}))
    if wanted := filters.values("entry"):
        numbers = paging.row_ids(wanted)
        turns = JournalEntry.objects.filter(pk__in=numbers, turn__isnull=False).values_list("turn", flat=True)
        rows = rows.filter(Q(entry__in=numbers) | Q(turn__in=list(turns)))
    if "before" in filters.times:
        rows = rows.filter(created_at__lt=filters.times["before"])
    if "after" in filters.times:
        rows = rows.filter(created_at__gte=filters.times["after"])
    return rows


def _row(row: OutboxMessage) -> Row:
    waits = row.state == OutboxState.PENDING and row.attempts > 0
    return Row(
        id=row.pk,
        account=row.account,
        platform=row.platform,
        channel_id=row.channel_id,
        person=_person(row),
        words=entries.line(row.text, max_chars=entries.FIRST_WORDS_CHARS),
        source=row.source,
        standing=entries.send_standing(row),
        state=row.state,
        attempts=row.attempts,
        is_resend=row.is_resend,
        next_attempt_at=row.next_attempt_at if waits else None,
        created_at=row.created_at,
        error=entries.line(row.error, max_chars=120) if row.state != OutboxState.SENT else "",
    )


def _person(row: OutboxMessage) -> str:
    if row.session is None:
        return ""
    return entries.person(row.session.contact) or entries.line(row.session.chat_name, max_chars=60)


# -- one message ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    row: OutboxMessage
    standing: Standing
    person: str
    others: tuple[OutboxMessage, ...]  # the other parts of the same reply
    acts: tuple[AuditEvent, ...]

    @property
    def is_open(self) -> bool:
        return self.row.state in (OutboxState.UNKNOWN, OutboxState.HELD)

    @property
    def obstacle(self) -> str:
        return "" if self.is_open else f"It is {self.row.state}: there is nothing to decide."

    @property
    def arrived_obstacle(self) -> str:
        if self.row.state == OutboxState.HELD:
            return "It was never sent, so it cannot have arrived."
        return self.obstacle


def one(*, outbox_id: int, scope: Scope) -> Delivery | None:
    """One outgoing message; None: there is none (any more)."""
    found = scope.rows(OutboxMessage.objects.select_related("session__contact", "entry", "turn"))
    row = found.filter(pk=outbox_id).first()
    if row is None:
        return None
    together = scope.rows(OutboxMessage.objects.filter(turn=row.turn_id))
    others = together.exclude(pk=row.pk) if row.turn_id else None
    return Delivery(
        row=row,
        standing=entries.send_standing(row),
        person=_person(row),
        others=tuple(others.order_by("pk")[:_MAX_EVENTS]) if others is not None else (),
        acts=tuple(
            AuditEvent.objects.filter(object_kind="outbox", object_id=str(row.pk)).order_by("-id")[:_MAX_EVENTS]
        ),
    )


def parts_of(outbox_id: int, *, scope: Scope) -> int:
    """How many parts one decision about this message decides: a held reply is decided as a whole. 0: there is none
    (any more)."""
    row = scope.rows(OutboxMessage.objects.filter(pk=outbox_id)).first()
    if row is None:
        return 0
    if row.state != OutboxState.HELD or not row.turn_id:
        return 1
    return OutboxMessage.objects.filter(turn=row.turn_id, state=OutboxState.HELD).count()
