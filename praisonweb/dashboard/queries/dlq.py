"""The dead letter queue: groups of like failures, their items, and one item with all that staff need to decide."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet

from botsrt import conf
from botsrt.core.states import DLQReason, DLQState, EntryState, EventKind, HistoryKind
from botsrt.models import AuditEvent, DLQItem, HistoryMessage, JournalEntry, Turn
from botsrt.services import bulk, figures
from botsrt.services.dlq import UNDO_DISCARD
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import Filters, Key, address
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries, journal, limits
from praisonweb.dashboard.queries.journal import Attempt
from praisonweb.dashboard.queries.standing import Standing

#: Messages of the history that are shown; the agent may have had more.
_MAX_HISTORY = 50

_MAX_TITLE_CHARS = 200

#: Newest items whose people are counted; more are shown as "12+".
_COUNTED = 1_000

KEYS = (
    Key(name="bot", help="the bot's name"),
    Key(name="state", help="open unless said", choices=tuple(DLQState)),
    Key(name="reason", help="why it was given up", choices=tuple(DLQReason)),
    Key(name="assignee", help="who looks after it"),
    Key(name="is", help="a view", choices=("snoozed", "unassigned")),
)

VIEWS = {"Open": "", "Unassigned": "is:unassigned", "Snoozed": "is:snoozed", "Discarded": "state:discarded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures that are one failure."""

    fingerprint: str
    title: str
    account: str
    count: int
    people: int  # those of the newest items
    is_people_partial: bool  # there are items beyond, and may be people
    first_at: datetime
    last_at: datetime
    note: str
    assignee: str
    snoozed_until: datetime | None
    newest_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    name: str
    url: str
    is_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    filters: Filters
    page: Page[Group]
    views: tuple[View, ...]
    is_empty: bool

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)

    @property
    def can_act(self) -> bool:
        """What is shown is open."""
        return self.filters.values("state") in ([], [DLQState.OPEN])


def groups(*, filters: Filters, before: int | None, scope: Scope, now: datetime) -> Groups:
    """The groups that ``filters`` describe, the one that failed last first. ``before``: a newest item's id."""
    found = (
        _matching(filters, scope=scope, now=now)
        .order_by()
        .values("fingerprint")
        .annotate(
            count=Count("pk"),
            first_at=Min("first_failed_at"),
            last_at=Max("last_failed_at"),
            newest_id=Max("pk"),
            note=Max("note"),
            assignee=Max("assignee"),
            snoozed_until=Max("snoozed_until"),
        )
    )
    if before is not None:
        found = found.filter(newest_id__lt=before)
    listed = list(found.order_by("-newest_id")[: PAGE_SIZE + 1])
    newest = {item.pk: item for item in DLQItem.objects.filter(pk__in=[row["newest_id"] for row in listed])}
    people = _people(
        _matching(filters, scope=scope, now=now).filter(fingerprint__in=[row["fingerprint"] for row in listed])
    )
    rows = [_group(row, newest[row["newest_id"]], people, now) for row in listed if row["newest_id"] in newest]
    return Groups(
        filters=filters,
        page=page_of(rows, [row.newest_id for row in rows], before=before),
        views=tuple(View(name=name, url=address(text), is_on=filters.text == text) for name, text in VIEWS.items()),
        is_empty=not rows and not filters and before is None and not scope.rows(DLQItem.objects.all()).exists(),
    )


def _matching(filters: Filters, *, scope: Scope, now: datetime) -> QuerySet[DLQItem]:
    rows = scope.rows(DLQItem.objects.all())
    if filters.problems:
        return rows.none()
    rows = rows.filter(state__in=filters.values("state") or [DLQState.OPEN])
    for key, column in (("bot", "account"), ("reason", "reason"), ("assignee", "assignee")):
        if values := filters.values(key):
            rows = rows.filter(**{f"{column}__in": values})
    if filters.has("is", "unassigned"):
        rows = rows.filter(assignee="")
    if filters.has("is", "snoozed"):
        rows = rows.filter(snoozed_until__gt=now)
    elif not filters.values("state"):
        rows = rows.filter(figures.awake(now))
    for word in filters.words:
        rows = rows.filter(Q(error_text__icontains=word) | Q(error_class__icontains=word))
    return rows


def _people(items: QuerySet[DLQItem]) -> Mapping[str, Counter[int | None]]:
    """Group → the contacts of its newest items, with how many each has. One query, bounded however many failed."""
    found: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    newest = items.order_by("-pk").values_list("fingerprint", "entry__contact")[:_COUNTED]
    for fingerprint, contact in newest:
        found[fingerprint][contact] += 1
    return found


def _group(row: Mapping[str, Any], newest: DLQItem, people: Mapping[str, Counter[int | None]], now: datetime) -> Group:
    snoozed_until = row["snoozed_until"]
    counted = people.get(row["fingerprint"], Counter())
    return Group(
        fingerprint=row["fingerprint"],
        title=title_of(newest),
        account=newest.account,
        count=row["count"],
        people=len(counted.keys() - {None}),
        is_people_partial=counted.total() < row["count"],
        first_at=row["first_at"],
        last_at=row["last_at"],
        note=row["note"],
        assignee=row["assignee"],
        snoozed_until=snoozed_until if snoozed_until and snoozed_until > now else None,
        newest_id=row["newest_id"],
    )


def title_of(item: DLQItem) -> str:
    return entries.line(f"{item.error_class}: {item.error_text}", max_chars=_MAX_TITLE_CHARS)


# -- one group ----


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """One item as its group lists it."""

    id: int
    entry_id: int
    person: str
    platform: str
    account: str
    words: str
    error: str
    standing: Standing
    attempts: int
    last_failed_at: datetime
    assignee: str
    is_readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPage:
    group: Group | None  # None: none of its items is open any more
    fingerprint: str
    title: str
    page: Page[ItemRow]
    state: str

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


def group(*, fingerprint: str, state: str, before: int | None, scope: Scope, now: datetime) -> GroupPage | None:
    """The items of one group in one state, newest first; None: there never was such a group (or it was removed)."""
    everything = scope.rows(DLQItem.objects.filter(fingerprint=fingerprint))
    some = everything.order_by("-pk").first()
    if some is None:
        return None
    in_state = everything.filter(state=state)
    rows = in_state if before is None else in_state.filter(pk__lt=before)
    listed = list(
        rows.select_related("entry", "entry__contact").defer("traceback", "entry__raw").order_by("-pk")[: PAGE_SIZE + 1]
    )
    open_items = everything.filter(state=DLQState.OPEN)
    sums = open_items.aggregate(
        count=Count("pk"),
        first_at=Min("first_failed_at"),
        last_at=Max("last_failed_at"),
        newest_id=Max("pk"),
        note=Max("note"),
        assignee=Max("assignee"),
        snoozed_until=Max("snoozed_until"),
    )
    return GroupPage(
        group=_group({**sums, "fingerprint": fingerprint}, some, _people(open_items), now) if sums["count"] else None,
        fingerprint=fingerprint,
        title=title_of(some),
        page=page_of([_item_row(item) for item in listed], [item.pk for item in listed], before=before),
        state=state,
    )


def _item_row(item: DLQItem) -> ItemRow:
    return ItemRow(
        id=item.pk,
        entry_id=item.entry_id,
        person=entries.person(item.entry.contact),
        platform=item.entry.platform,
        account=item.account,
        words=entries.first_words(item.entry.payload),
        error=entries.line(item.error_text, max_chars=160),
        standing=entries.item_standing(item),
        attempts=item.attempts,
        last_failed_at=item.last_failed_at,
        assignee=item.assignee,
        is_readable=item.entry.kind != EventKind.UNREADABLE,
    )


# -- one item ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message of the history, as the agent had it."""

    role: str
    sender: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item with its message, attempts and history."""

    row: DLQItem
    standing: Standing
    person: str
    words: str
    attempts: tuple[Attempt, ...]
    history: tuple[Said, ...]
    acts: tuple[AuditEvent, ...]
    is_snoozed: bool
    can_undo: bool

    @property
    def entry(self) -> JournalEntry:
        return self.row.entry

    @property
    def text(self) -> str:
        return str(self.entry.payload.get("text") or "")

    @property
    def retry_obstacle(self) -> str:
        if self.entry.kind == EventKind.UNREADABLE:
            return "It could not be read when it came, so it can only be discarded."
        return self.closed_obstacle

    @property
    def closed_obstacle(self) -> str:
        if self.row.state == DLQState.OPEN:
            return ""
        who = self.row.closed_by or self.entry.requested_by
        return f"It is {self.row.state} already{f', by {who}' if who else ''}."


def item(*, item_id: int, scope: Scope, now: datetime) -> Item | None:
    """One item; None: there is none (any more)."""
    found = DLQItem.objects.select_related("entry", "entry__contact", "entry__session").defer("entry__raw")
    row = scope.rows(found).filter(pk=item_id).first()
    if row is None:
        return None
    return Item(
        row=row,
        standing=entries.item_standing(row),
        person=entries.person(row.entry.contact),
        words=entries.first_words(row.entry.payload, max_chars=80),
        attempts=tuple(journal.attempts_of(row.entry, scope=scope)),
        history=_history(row, scope=scope),
        acts=tuple(AuditEvent.objects.filter(object_kind="dlq", object_id=str(row.pk)).order_by("-id")[:_MAX_HISTORY]),
        is_snoozed=row.snoozed_until is not None and row.snoozed_until > now,
        can_undo=row.state == DLQState.DISCARDED
        and row.closed_at is not None
        and row.closed_at > now - UNDO_DISCARD
        and row.entry.state == EntryState.DISCARDED,
    )


def _history(row: DLQItem, *, scope: Scope) -> tuple[Said, ...]:
    """What the agent was given beside the message when it last failed: what had been written before that run began."""
    session = row.entry.session
    if session is None:
        return ()
    latest = Turn.objects.filter(entries=row.entry).values_list("started_at", flat=True)
    before = latest.first() or row.last_failed_at
    written = Q(turn__finished_at__lte=before) | Q(turn__isnull=True, created_at__lte=before)
    found = (
        limits.said(HistoryMessage.objects.filter(written, session=session, pk__gt=session.context_start), scope)
        .exclude(kind__in=(HistoryKind.NOTE, HistoryKind.DIVIDER))
        .order_by("-pk")[: min(_MAX_HISTORY, conf.load().max_history)]
    )
    said = [
        Said(role=message.role, sender=message.sender_name, text=message.text, at=message.created_at)
        for message in found
    ]
    return tuple(reversed(said))


# -- before an act ----


def row_of(*, item_id: int, scope: Scope) -> DLQItem | None:
    """One item as it stands; None: there is none (any more)."""
    return scope.rows(DLQItem.objects.select_related("entry").defer("entry__raw")).filter(pk=item_id).first()


def has_group(*, fingerprint: str, scope: Scope) -> bool:
    """Whether there is, or was, such a group."""
    return scope.rows(DLQItem.objects.filter(fingerprint=fingerprint)).exists()


def open_ids(*, fingerprint: str, readable_only: bool, scope: Scope) -> list[int]:
    """The items of a group that an act would take now, the oldest first: who has waited longest is helped first."""
    rows = scope.rows(DLQItem.objects.filter(fingerprint=fingerprint, state=DLQState.OPEN))
    if readable_only:
        rows = rows.exclude(entry__kind=EventKind.UNREADABLE)
    return list(rows.order_by("pk").values_list("pk", flat=True)[: bulk.MAX_ITEMS])


def matching_ids(*, filters: Filters, scope: Scope, now: datetime) -> list[int]:
    """The open items that ``filters`` show, the oldest first, at most as many as one operation takes."""
    rows = _matching(filters, scope=scope, now=now).filter(state=DLQState.OPEN)
    return list(rows.order_by("pk").values_list("pk", flat=True)[: bulk.MAX_ITEMS])


def consequence(ids: Sequence[int], *, scope: Scope, now: datetime) -> str:
    """What running the entries of these items again means for people."""
    items = DLQItem.objects.filter(pk__in=ids).order_by("entry")
    return journal.consequence(list(items.values_list("entry", flat=True)), scope=scope, now=now)
