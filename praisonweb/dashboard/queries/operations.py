"""Bulk operations: the list, and one with its progress and what became of each of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, QuerySet
from django.urls import reverse

from botsrt.core.states import BulkItemState, BulkState, BulkVerb, EntryState
from botsrt.models import BulkItem, BulkOperation, Contact, DLQItem, JournalEntry, OutboxMessage
from botsrt.services import bulk
from praisonweb.dashboard.access import Act, Scope
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries
from praisonweb.dashboard.queries.standing import Standing, Tone

#: A running operation of which nothing moves for longer than this has nobody who goes on with it.
STUCK_AFTER = timedelta(minutes=2)

#: What each verb needs.
ACTS: Mapping[BulkVerb, Act] = {
    BulkVerb.RETRY: Act.RETRY,
    BulkVerb.DISCARD: Act.DISCARD,
    BulkVerb.REPLAY: Act.REPLAY,
    BulkVerb.ARRIVED: Act.DECIDE_DELIVERIES,
    BulkVerb.AGAIN: Act.DECIDE_DELIVERIES,
    BulkVerb.DROP: Act.DECIDE_DELIVERIES,
    BulkVerb.ERASE: Act.PURGE,
}

#: What the rows of each verb are.
_MODELS: Mapping[BulkVerb, type[DLQItem] | type[JournalEntry] | type[OutboxMessage] | type[Contact]] = {
    BulkVerb.RETRY: DLQItem,
    BulkVerb.DISCARD: DLQItem,
    BulkVerb.REPLAY: JournalEntry,
    BulkVerb.ARRIVED: OutboxMessage,
    BulkVerb.AGAIN: OutboxMessage,
    BulkVerb.DROP: OutboxMessage,
    BulkVerb.ERASE: Contact,
}

_TITLES: Mapping[BulkVerb, str] = {
    BulkVerb.RETRY: "Retry of {}",
    BulkVerb.DISCARD: "Discard of {}",
    BulkVerb.REPLAY: "Replay of {}",
    BulkVerb.ARRIVED: "Noting that {} arrived",
    BulkVerb.AGAIN: "Sending of {}",
    BulkVerb.DROP: "Dropping of {}",
    BulkVerb.ERASE: "Erasing of {}",
}

_STANDINGS: Mapping[BulkState, Standing] = {
    BulkState.RUNNING: Standing(word="running", tone=Tone.BUSY),
    BulkState.STOPPED: Standing(word="stopped", tone=Tone.WARN, text="The rest is left as it was."),
    BulkState.FINISHED: Standing(word="finished", tone=Tone.GOOD),
}

_ITEMS: Mapping[BulkItemState, Standing] = {
    BulkItemState.WAITING: Standing(word="waiting", tone=Tone.IDLE),
    BulkItemState.DONE: Standing(word="done", tone=Tone.GOOD),
    BulkItemState.SKIPPED: Standing(word="skipped", tone=Tone.WARN),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a canary."""

    size: int
    word: str  # "done", "under way", "waiting"
    is_now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation with how far it is."""

    row: BulkOperation
    title: str
    standing: Standing
    done: int
    skipped: int
    waiting: int
    steps: tuple[Step, ...]  # of a canary; empty: all at once
    is_stuck: bool

    @property
    def over(self) -> int:
        return self.done + self.skipped

    @property
    def percent(self) -> int:
        return 100 * self.over // max(self.row.total, 1)

    @property
    def is_running(self) -> bool:
        return self.row.state == BulkState.RUNNING

    @property
    def act(self) -> Act:
        return ACTS[BulkVerb(self.row.verb)]

    @property
    def stop_obstacle(self) -> str:
        return "" if self.is_running else f"It is {self.row.state} already."

    @property
    def can_resume(self) -> bool:
        return self.row.state == BulkState.STOPPED and self.waiting > 0


def theirs(scope: Scope) -> QuerySet[BulkOperation]:
    """The operations that somebody sees: all, or, limited to some bots, those that they asked for."""
    rows = BulkOperation.objects.all()
    return rows.filter(asked_by=scope.name) if scope.is_limited else rows


def foreign_obstacle(row: BulkOperation, *, scope: Scope) -> str:
    """Why the operation does not go on: some of its rows belong to bots that its asker does not see any more."""
    if not scope.is_limited:
        return ""
    if row.verb == BulkVerb.ERASE:
        return "It is about people, whom all bots may know."
    waiting = row.items.filter(state=BulkItemState.WAITING).values("object_id")
    rows = _MODELS[BulkVerb(row.verb)]._default_manager.filter(pk__in=waiting)
    is_foreign = rows.exclude(pk__in=scope.rows(rows).values("pk")).exists()
    return "Some of its messages belong to bots that are not among yours." if is_foreign else ""


def read(*, before: int | None, scope: Scope, now: datetime) -> Page[Operation]:
    """A page of the operations, newest first."""
    rows = theirs(scope).order_by("-pk")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    listed = list(rows[: PAGE_SIZE + 1])
    return page_of(operations(listed, now=now), [row.pk for row in listed], before=before)


def operations(rows: Sequence[BulkOperation], *, now: datetime) -> list[Operation]:
    counts = bulk.counts(operation_ids=[row.pk for row in rows])
    return [_operation(row, counts[row.pk], now=now) for row in rows]


def _operation(row: BulkOperation, counts: Mapping[str, int], *, now: datetime) -> Operation:
    noun = "contact" if row.verb == BulkVerb.ERASE else "message"
    messages = f"{row.total:,} {noun}{'' if row.total == 1 else 's'}"
    is_running = row.state == BulkState.RUNNING
    return Operation(
        row=row,
        title=_TITLES[BulkVerb(row.verb)].format(messages),
        standing=_STANDINGS[BulkState(row.state)],
        done=counts[BulkItemState.DONE],
        skipped=counts[BulkItemState.SKIPPED],
        waiting=counts[BulkItemState.WAITING],
        steps=_steps(row) if len(row.steps) > 1 else (),
        is_stuck=is_running and row.step_ends_at is None and now - row.moved_at > STUCK_AFTER,
    )


def _steps(row: BulkOperation) -> tuple[Step, ...]:
    is_over = row.state == BulkState.FINISHED
    words = [
        "done" if number < row.step or is_over else "under way" if number == row.step else "waiting"
        for number in range(len(row.steps))
    ]
    return tuple(
        Step(size=size, word=word, is_now=word == "under way") for size, word in zip(row.steps, words, strict=True)
    )


# -- one operation ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a row stands for, as it is at this moment."""

    url: str
    platform: str
    person: str
    words: str
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of an operation."""

    object_id: int
    standing: Standing  # what the operation did
    detail: str
    done_at: datetime | None
    message: Message | None  # None: removed meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How many of the messages that ran again stand how."""

    standing: Standing
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPage:
    operation: Operation
    results: tuple[Result, ...]
    page: Page[Line]
    state: str  # of the rows that are shown; empty: all

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


def one(*, operation_id: int, state: str, after: int | None, scope: Scope, now: datetime) -> OperationPage | None:
    """One operation, and its rows in their order; None: there is none (any more).

    Args:
        after: the ordinal after which the page begins; None: the first page.
    """
    row = theirs(scope).filter(pk=operation_id).first()
    if row is None:
        return None
    (operation,) = operations([row], now=now)
    items = row.items.order_by("ordinal")
    if state:
        items = items.filter(state=state)
    if after is not None:
        items = items.filter(ordinal__gt=after)
    listed = list(items[: PAGE_SIZE + 1])
    return OperationPage(
        operation=operation,
        results=_results(row, scope=scope),
        page=page_of(_lines(row, listed, scope=scope), [item.ordinal for item in listed], before=after),
        state=state,
    )


def _results(row: BulkOperation, *, scope: Scope) -> tuple[Result, ...]:
    """What came of the messages that ran again."""
    done = BulkItem.objects.filter(operation=row, state=BulkItemState.DONE).values("object_id")
    match BulkVerb(row.verb):
        case BulkVerb.RETRY:
            found = JournalEntry.objects.filter(dlq_item__in=done)
        case BulkVerb.REPLAY:
            found = JournalEntry.objects.filter(pk__in=done)
        case _:
            return ()
    counts = {
        state: count
        for state, count in scope.rows(found).values_list("state").annotate(count=Count("pk")).order_by()
        if count
    }
    return tuple(Result(standing=_RESULTS[state], count=counts[state]) for state in EntryState if state in counts)


_RESULTS: Mapping[EntryState, Standing] = {
    EntryState.PENDING: Standing(word="wait", tone=Tone.BUSY),
    EntryState.CLAIMED: Standing(word="run", tone=Tone.BUSY),
    EntryState.COMPLETED: Standing(word="answered", tone=Tone.GOOD),
    EntryState.HELD: Standing(word="held", tone=Tone.WARN),
    EntryState.DEAD: Standing(word="failed again", tone=Tone.BAD),
    EntryState.DISCARDED: Standing(word="discarded", tone=Tone.IDLE),
}


def _lines(row: BulkOperation, items: Sequence[BulkItem], *, scope: Scope) -> list[Line]:
    messages = _messages(BulkVerb(row.verb), [item.object_id for item in items], scope=scope)
    return [
        Line(
            object_id=item.object_id,
            standing=_ITEMS[BulkItemState(item.state)],
            detail=item.detail,
            done_at=item.done_at,
            message=messages.get(item.object_id),
        )
        for item in items
    ]


def _messages(verb: BulkVerb, ids: Sequence[int], *, scope: Scope) -> Mapping[int, Message]:
    match verb:
        case BulkVerb.RETRY | BulkVerb.DISCARD:
            items = DLQItem.objects.select_related("entry__contact").defer("traceback", "entry__raw")
            return {pk: _of_item(item) for pk, item in scope.rows(items).in_bulk(ids).items()}
        case BulkVerb.REPLAY:
            rows = scope.rows(JournalEntry.objects.select_related("contact").defer("raw")).in_bulk(ids)
            return {pk: _of_entry(entry, url=reverse("journal_entry", args=[pk])) for pk, entry in rows.items()}
        case BulkVerb.ERASE:
            return {}  # nothing is left to show
        case _:
            sends = scope.rows(OutboxMessage.objects.select_related("session__contact")).in_bulk(ids)
            return {pk: _of_send(send) for pk, send in sends.items()}


def _of_item(item: DLQItem) -> Message:
    return _of_entry(item.entry, url=reverse("dlq_item", args=[item.pk]))


def _of_entry(entry: JournalEntry, *, url: str) -> Message:
    return Message(
        url=url,
        platform=entry.platform,
        person=entries.person(entry.contact),
        words=entries.first_words(entry.payload),
        standing=entries.standing(entry),
    )


def _of_send(row: OutboxMessage) -> Message:
    return Message(
        url=reverse("delivery", args=[row.pk]),
        platform=row.platform,
        person=entries.person(row.session.contact) if row.session else "",
        words=entries.line(row.text, max_chars=entries.FIRST_WORDS_CHARS),
        standing=entries.send_standing(row),
    )
