"""The journal: a list that is bounded whatever is asked for, and one entry with all that happened to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet

from botsrt import conf
from botsrt.core.states import (
    ENDED_ENTRY_STATES,
    WITHOUT_MESSAGE,
    DLQState,
    EntryState,
    EventKind,
    OutboxState,
    TurnState,
)
from botsrt.models import AuditEvent, Contact, DLQItem, JournalEntry, OutboxMessage, Turn
from botsrt.services import bulk
from praisonweb.dashboard import paging
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import Facet, Filters, Key, address, facet
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries
from praisonweb.dashboard.queries.standing import REASONS, Standing, Tone

#: A message that waits longer than this is stuck: home says so, too.
STUCK_AFTER = timedelta(minutes=2)

#: Newest rows whose facets are counted; more are shown as "2,000+". Looked for among the newest of the journal.
_COUNTED = 2_000
_LOOKED_AT = 20_000

#: Contacts that one ``from:`` can mean.
_MAX_CONTACTS = 200

#: Running turns that are looked at: more than several workers run together.
_MAX_RUNNING = 500

#: Turns and events on the page of one entry.
_MAX_TURNS = 50
_MAX_EVENTS = 100

#: Entries whose people are counted before an act; of more it is said how many there are at least.
_MAX_COUNTED = 2_000

#: Characters of JSON that are shown.
MAX_JSON_CHARS = 100_000

KEYS = (
    Key(name="bot", help="the bot's name"),
    Key(name="platform", help="telegram, slack, discord, whatsapp, webhook, web, …"),
    Key(name="state", help="where it stands", choices=tuple(EntryState)),
    Key(name="kind", help="what it is", choices=tuple(EventKind)),
    Key(name="from", help="the person's id, handle or name"),
    Key(name="has", help="something special", choices=("duplicates", "failures", "edit", "reply", "raw")),
    Key(name="is", help="a view", choices=("stuck", "failing")),
    Key(name="before", help="received before: 2h, 7d, 2026-11-20", is_time=True),
    Key(name="after", help="received after", is_time=True),
)

#: Saved views: name → filter.
VIEWS = {"All": "", "Stuck": "is:stuck", "Failing": "is:failing", "Held": "state:held"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry as the list shows it."""

    id: int
    received_at: datetime
    account: str
    platform: str
    kind: str
    person: str
    words: str
    standing: Standing
    attempts: int
    next_try_at: datetime | None
    duplicates: int
    worker: str

    @property
    def is_plain(self) -> bool:
        return self.kind == EventKind.MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    name: str
    url: str
    is_on: bool
    count: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The list."""

    filters: Filters
    page: Page[Row]
    facets: tuple[Facet, ...]
    views: tuple[View, ...]
    is_empty: bool  # there is no entry at all

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


def read(*, filters: Filters, before: int | None, scope: Scope, now: datetime) -> Journal:
    """A page of the entries that ``filters`` describe, newest first."""
    found = _matching(filters, scope=scope, now=now)
    rows = found.filter(pk__lt=before) if before is not None else found
    rows, window_end = paging.window(rows) if filters.words else (rows, None)
    for word in filters.words:
        rows = rows.filter(payload__text__icontains=word)
    listed = list(rows.select_related("contact", "turn").defer("raw", "edited_text").order_by("-pk")[: PAGE_SIZE + 1])
    return Journal(
        filters=filters,
        page=page_of(
            [_row(entry) for entry in listed],
            [entry.pk for entry in listed],
            before=before,
            window_end=window_end,
        ),
        facets=_facets(filters, scope=scope, now=now),
        views=_views(filters, scope=scope, now=now),
        is_empty=not listed and not filters and before is None,
    )


def _matching(filters: Filters, *, scope: Scope, now: datetime, but: Sequence[str] = ()) -> QuerySet[JournalEntry]:
    """The entries that the tokens describe. Tokens of ``but`` do not count, and free words never do."""
    rows = scope.rows(JournalEntry.objects.all())
    if filters.problems:
        return rows.none()
    for key, column in (("bot", "account"), ("platform", "platform"), ("state", "state"), ("kind", "kind")):
        values = filters.values(key)
        if values and key not in but:
            rows = rows.filter(**{f"{column}__in": values} if len(values) > 1 else {column: values[0]})
    if names := filters.values("from"):
        rows = rows.filter(contact__in=[pk for name in names for pk in _contacts(name)])
    for name in filters.values("has"):
        rows = _having(rows, name)
    for name in filters.values("is"):
        rows = rows.filter(_is(name, now=now))
    if "before" in filters.times:
        rows = rows.filter(received_at__lt=filters.times["before"])
    if "after" in filters.times:
        rows = rows.filter(received_at__gte=filters.times["after"])
    return rows


def _contacts(name: str) -> list[int]:
    bare = name.removeprefix("@")
    same = Q(platform_user_id=name) | Q(user_name__iexact=bare) | Q(display_name__icontains=name)
    return list(Contact.objects.filter(same).values_list("pk", flat=True)[:_MAX_CONTACTS])


def _having(rows: QuerySet[JournalEntry], what: str) -> QuerySet[JournalEntry]:
    match what:
        case "duplicates":
            return rows.filter(duplicates__gt=0)
        case "failures":
            return rows.filter(Q(attempts__gt=0) | Q(deaths__gt=0))
        case "edit":
            return rows.filter(edited_text__isnull=False)
        case "raw":
            return rows.filter(raw__isnull=False)
        case _:
            return rows.filter(Exists(OutboxMessage.objects.filter(entry=OuterRef("pk"))))


def _is(view: str, *, now: datetime) -> Q:
    if view == "stuck":
        # Claimed ones are found through their turns: few run, and there is no index of what is claimed.
        running = Turn.objects.filter(state=TurnState.RUNNING).order_by("lease_expires_at")
        claimed = Q(state=EntryState.CLAIMED, turn__in=list(running.values_list("pk", flat=True)[:_MAX_RUNNING]))
        return (Q(state=EntryState.PENDING) | claimed) & Q(received_at__lt=now - STUCK_AFTER)
    return Q(state=EntryState.DEAD) | Q(state=EntryState.PENDING, attempts__gt=0)


def _facets(filters: Filters, *, scope: Scope, now: datetime) -> tuple[Facet, ...]:
    """Counts of the newest rows by state, bot, platform and kind; each facet leaves its own filter out."""
    keys = {"state": "state", "bot": "account", "platform": "platform", "kind": "kind"}
    last = scope.rows(JournalEntry.objects.all()).order_by("-pk").values_list("pk", flat=True).first() or 0
    matching = _matching(filters, scope=scope, now=now, but=tuple(keys)).filter(pk__gt=last - _LOOKED_AT)
    groups = _counted(matching.order_by("-pk").values_list(*keys.values())[:_COUNTED])
    is_partial = last > _LOOKED_AT or sum(group[-1] for group in groups) >= _COUNTED
    counts: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for *values, count in groups:
        by_key = dict(zip(keys, values, strict=True))
        for key in keys:
            others = (other for other in keys if other != key)
            if all(not (on := filters.values(other)) or by_key[other] in on for other in others):
                counts[key][by_key[key]] += count
    titles = {"state": "State", "bot": "Bot", "platform": "Platform", "kind": "Kind"}
    orders: dict[str, tuple[str, ...]] = {"state": tuple(EntryState), "kind": tuple(EventKind)}
    return tuple(
        facet(titles[key], key, counts[key], filters, is_partial=is_partial, order=orders.get(key, ())) for key in keys
    )


def _counted(rows: QuerySet[JournalEntry, Any]) -> list[Any]:
    """How often each combination of values is there: counted by the database, since the ORM cannot group a slice."""
    try:
        statement, parameters = rows.query.sql_with_params()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT newest.*, count(*) FROM ({statement}) AS newest GROUP BY 1, 2, 3, 4", parameters)  # noqa: S608
        return list(cursor.fetchall())


def _views(filters: Filters, *, scope: Scope, now: datetime) -> tuple[View, ...]:
    """The saved views. Their rows are few when all is well; more than 999 are not counted."""
    piles = {
        "Stuck": JournalEntry.objects.filter(_is("stuck", now=now)),
        "Failing": JournalEntry.objects.filter(_is("failing", now=now)),
        "Held": JournalEntry.objects.filter(state=EntryState.HELD),
    }
    counts = {
        name: len(scope.rows(rows).order_by().values_list("pk", flat=True)[:1_000]) for name, rows in piles.items()
    }
    return tuple(
        View(name=name, url=address(text), is_on=filters.text == text, count=_count(counts.get(name)))
        for name, text in VIEWS.items()
    )


def _count(count: int | None) -> str:
    if count is None:
        return ""
    return "999+" if count >= 1_000 else str(count)


def _row(entry: JournalEntry) -> Row:
    waits = entry.state == EntryState.PENDING and bool(entry.attempts or entry.deaths)
    return Row(
        id=entry.pk,
        received_at=entry.received_at,
        account=entry.account,
        platform=entry.platform,
        kind=entry.kind,
        person=entries.person(entry.contact),
        words=entries.first_words(entry.payload),
        standing=entries.standing(entry),
        attempts=entry.attempts + entry.deaths,
        next_try_at=entry.available_at if waits else None,
        duplicates=entry.duplicates,
        worker=entry.turn.worker_id if entry.turn and entry.state == EntryState.CLAIMED else "",
    )


# -- one entry ----

TABS = {"message": "Message", "raw": "Raw", "reply": "Reply", "attempts": "Attempts", "trace": "Trace"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of what goes out for an entry."""

    id: int
    text: str
    source: str
    standing: Standing
    error: str
    at: datetime
    platform_message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of the agent."""

    id: str
    standing: Standing
    number: int
    trigger: str
    is_latest: bool
    agent: str
    worker: str
    started_at: datetime
    finished_at: datetime | None
    error: str
    requested_by: str
    reason: str
    usage: str

    @property
    def seconds(self) -> float | None:
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One thing that happened to an entry."""

    at: datetime
    tone: Tone
    title: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry; of the tabs only the one that is looked at is filled."""

    row: JournalEntry
    standing: Standing
    person: str
    item_id: int | None  # its case in the dead letter queue
    is_item_open: bool
    tab: str
    raw: str = ""
    is_raw_cut: bool = False
    parts: tuple[Part, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    trace: tuple[Station, ...] = ()

    @property
    def text(self) -> str:
        return str(self.row.payload.get("text") or "")

    @property
    def attachments(self) -> list[dict[str, Any]]:
        return [item for item in self.row.payload.get("attachments") or () if isinstance(item, dict)]

    @property
    def words(self) -> str:
        return entries.first_words(self.row.payload, max_chars=80)

    @property
    def can_replay(self) -> bool:
        return self.row.state in ENDED_ENTRY_STATES and self.row.kind not in WITHOUT_MESSAGE

    @property
    def replay_obstacle(self) -> str:
        if self.row.kind == EventKind.UNREADABLE:
            return "It was not readable when it came, so there is nothing to run."
        if self.row.kind == EventKind.ERASED:
            return "It was erased, so there is nothing to run."
        return "" if self.can_replay else f"It is {self.row.state}: it runs, or is about to."

    @property
    def outcome_reason(self) -> str:
        return REASONS.get(self.row.outcome_reason, self.row.outcome_reason)

    @property
    def waits_until(self) -> datetime | None:
        return self.row.available_at if self.row.state == EntryState.PENDING else None


def entry(*, entry_id: int, tab: str, scope: Scope) -> Entry | None:
    """One entry with one of its tabs; None: there is none (any more)."""
    found = JournalEntry.objects.select_related("contact", "session", "turn", "dlq_item")
    if tab != "raw":
        found = found.defer("raw")
    row = scope.rows(found).filter(pk=entry_id).first()
    if row is None:
        return None
    item: DLQItem | None = getattr(row, "dlq_item", None)
    content: dict[str, Any] = {}
    match tab:
        case "raw":
            content["raw"], content["is_raw_cut"] = shown_json(row.raw)
        case "reply":
            content["parts"] = tuple(_part(part) for part in _parts(row))
        case "attempts":
            content["attempts"] = tuple(attempts_of(row, scope=scope))
        case "trace":
            content["trace"] = tuple(sorted(_trace(row, item, scope=scope), key=lambda station: station.at))
    return Entry(
        row=row,
        standing=entries.standing(row),
        person=entries.person(row.contact),
        item_id=item.pk if item else None,
        is_item_open=item is not None and item.state == DLQState.OPEN,
        tab=tab,
        **content,
    )


def is_there(*, entry_id: int, scope: Scope) -> bool:
    """Whether there is such an entry."""
    return scope.rows(JournalEntry.objects.filter(pk=entry_id)).exists()


def shown_json(value: object) -> tuple[str, bool]:
    """``value`` as indented JSON, and whether it had to be cut; empty for None."""
    if value is None:
        return "", False
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False)
    return text[:MAX_JSON_CHARS], len(text) > MAX_JSON_CHARS


def _parts(row: JournalEntry) -> QuerySet[OutboxMessage]:
    """What goes out for an entry: a turn over several entries has its reply at the last of them."""
    mine = Q(entry=row.pk)
    if row.turn_id:
        mine |= Q(turn=row.turn_id)
    return OutboxMessage.objects.filter(mine).order_by("id")[:_MAX_EVENTS]


def _part(part: OutboxMessage) -> Part:
    return Part(
        id=part.pk,
        text=part.text,
        source=part.source,
        standing=entries.send_standing(part),
        error=part.error,
        at=part.sent_at or part.created_at,
        platform_message_id=part.platform_message_id,
    )


def _turns(row: JournalEntry, *, scope: Scope) -> list[Turn]:
    """The runs that can have been of this entry: a row knows its latest turn only, so that earlier ones are those of
    its conversation since it came that ended with no entry of their own."""
    if row.session_id is None:
        return []
    since = Turn.objects.filter(session=row.session_id, started_at__gte=row.received_at)
    others = JournalEntry.objects.filter(turn=OuterRef("pk")).exclude(pk=row.pk)
    mine = Q(pk=row.turn_id) if row.turn_id else Q(pk=None)
    alone = Q(~Exists(others))
    if scope.accounts is not None:  # a run knows no bot: where others were spoken with too, it may have been for them
        together = JournalEntry.objects.filter(session=OuterRef("session"))
        alone &= Q(~Exists(together.exclude(account__in=sorted(scope.accounts))))
    found = since.filter(mine | alone).order_by(F("started_at").desc(), "-id")
    return list(found[:_MAX_TURNS])


def attempts_of(row: JournalEntry, *, scope: Scope) -> Iterator[Attempt]:
    """The runs of an entry, the latest first."""
    for turn in _turns(row, scope=scope):
        yield Attempt(
            id=str(turn.pk),
            standing=entries.turn_standing(turn),
            number=turn.attempt,
            trigger=turn.trigger,
            is_latest=turn.pk == row.turn_id,
            agent=f"{turn.agent} version {turn.agent_version}" if turn.agent else "",
            worker=turn.worker_id,
            started_at=turn.started_at,
            finished_at=turn.finished_at,
            error=f"{turn.error_class}: {turn.error_text}" if turn.error_class else "",
            requested_by=turn.requested_by,
            reason=turn.request_reason,
            usage=", ".join(f"{name} {value}" for name, value in turn.usage.items()),
        )


def _trace(row: JournalEntry, item: DLQItem | None, *, scope: Scope) -> Iterator[Station]:
    """Every station of an entry that the database knows."""
    sent_at = str(row.payload.get("sent_at") or "")
    yield Station(
        at=row.received_at,
        tone=Tone.IDLE,
        title="Received and stored",
        text=f"The platform's own time is {sent_at}." if sent_at else "",
    )
    for turn in _turns(row, scope=scope):
        standing = entries.turn_standing(turn)
        yield Station(at=turn.started_at, tone=Tone.IDLE, title=f"Turn started, on {turn.worker_id}")
        if turn.finished_at:
            error = f"{turn.error_class}: {turn.error_text}" if turn.error_class else ""
            yield Station(at=turn.finished_at, tone=standing.tone, title=f"Turn {standing.word}", text=error)
    for part in _parts(row):
        yield Station(at=part.created_at, tone=Tone.IDLE, title=f"{part.source.capitalize()} {part.pk} stored")
        if part.sent_at and part.state == OutboxState.SENT:
            yield Station(
                at=part.sent_at,
                tone=Tone.GOOD,
                title=f"{part.source.capitalize()} {part.pk} sent",
                text=f"The platform calls it {part.platform_message_id}." if part.platform_message_id else "",
            )
        for at, word in ((part.delivered_at, "delivered"), (part.read_at, "read")):
            if at:
                yield Station(at=at, tone=Tone.GOOD, title=f"{part.source.capitalize()} {part.pk} {word}")
    if item is not None:
        yield Station(
            at=item.first_failed_at, tone=Tone.BAD, title="Put into the dead letter queue", text=item.error_class
        )
        if item.closed_at:
            who = f" by {item.closed_by}" if item.closed_by else ""
            yield Station(at=item.closed_at, tone=Tone.IDLE, title=f"Case {item.state}{who}", text=item.close_reason)
    yield from _audited(row, item)
    if row.completed_at:
        standing = entries.standing(row)
        yield Station(at=row.completed_at, tone=standing.tone, title=f"Entry {standing.word}", text=standing.text)


def _audited(row: JournalEntry, item: DLQItem | None) -> Iterator[Station]:
    about = Q(object_kind="journal", object_id=str(row.pk))
    if item is not None:
        about |= Q(object_kind="dlq", object_id=str(item.pk))
    for event in AuditEvent.objects.filter(about).order_by("id")[:_MAX_EVENTS]:
        yield Station(at=event.at, tone=Tone.BUSY, title=f"{event.actor}: {event.verb}", text=event.reason)


# -- before an act ----


def matching_ids(*, filters: Filters, scope: Scope, now: datetime) -> list[int]:
    """The entries that ``filters`` show and that can be replayed, the oldest first; of more than one operation takes,
    the newest."""
    rows = _matching(filters, scope=scope, now=now).filter(state__in=ENDED_ENTRY_STATES)
    rows = rows.exclude(kind__in=WITHOUT_MESSAGE)
    if filters.words:
        rows, _ = paging.window(rows)
    for word in filters.words:
        rows = rows.filter(payload__text__icontains=word)
    return sorted(rows.order_by("-pk").values_list("pk", flat=True)[: bulk.MAX_ITEMS])


def consequence(ids: Sequence[int], *, scope: Scope, now: datetime) -> str:
    """What replaying these entries means for people; of many, what the first mean at least."""
    rows = scope.rows(JournalEntry.objects.filter(pk__in=ids[:_MAX_COUNTED]))
    found = rows.aggregate(
        people=Count("contact", distinct=True),
        late=Count("pk", filter=Q(received_at__lt=now - timedelta(seconds=conf.load().late_reply_seconds))),
    )
    people, at_least = found["people"], "at least " if len(ids) > _MAX_COUNTED else ""
    text = f"{at_least}{people} {'person' if people == 1 else 'people'} may get an answer now.".capitalize()
    if found["late"]:
        hours = conf.load().late_reply_seconds / 3_600
        verb = "is" if found["late"] == 1 else "are"
        text += (
            f" {at_least.capitalize()}{found['late']} {verb} older than {hours:g} h: replies to those are held for you."
        )
    return text
