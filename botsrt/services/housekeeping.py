"""Remove what is over and old, each kind after its own period. Nothing unfinished is ever removed: when only that is
left, an alarm is raised.

What another row still needs stays with it: history, answers and turns as long as the entry that they belong to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from botsrt.core.states import BulkState, DLQState, EntryState, OutboxState, PairingState, Role, SessionScope, TurnState
from botsrt.models import (
    AuditEvent,
    BulkOperation,
    DLQItem,
    HistoryMessage,
    JournalEntry,
    OutboxMessage,
    Pairing,
    Turn,
    Worker,
    WrongCodes,
)
from botsrt.services import alerts, figures

#: Rows removed in one transaction, so that the hot path never waits long for the write lock.
CHUNK = 200

#: Much longer than any lock; whoever guesses again begins anew.
_FORGET_WRONG_CODES = timedelta(days=1)

_OVER = (EntryState.COMPLETED, EntryState.DISCARDED)

logger = logging.getLogger(__name__)


class Kind(StrEnum):
    """What is kept for a time of its own."""

    JOURNAL = "journal"  # completed and discarded entries
    DLQ = "dlq"  # closed dead letter items; after them their entries
    TURNS = "turns"  # ended ones that no entry leads to
    OUTBOX = "outbox"  # sent and dead messages
    HISTORY = "history"  # messages of conversations
    PAIRINGS = "pairings"  # requests that came to nothing; who let whom in is kept
    OPERATIONS = "operations"  # bulk operations that do not run
    WORKERS = "workers"  # processes that ended
    AUDIT = "audit"


#: Kind → how long, from its end on; a kind that is missing, or None, is kept for ever.
Periods = Mapping[Kind, timedelta | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did."""

    removed: Mapping[Kind, int]
    is_journal_full: bool  # more unfinished entries than the journal should hold

    @property
    def entries_removed(self) -> int:
        return self.removed[Kind.JOURNAL]

    @property
    def dlq_items_removed(self) -> int:
        return self.removed[Kind.DLQ]

    @property
    def pairings_removed(self) -> int:
        return self.removed[Kind.PAIRINGS]

    @property
    def operations_removed(self) -> int:
        return self.removed[Kind.OPERATIONS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What would go now of one kind."""

    kind: Kind
    period: timedelta | None  # None: it is kept for ever
    count: int
    oldest: datetime | None  # None: nothing is due
    excess: int  # beyond the number of rows that the kind may have, however young


def run(
    *,
    now: datetime,
    max_size: int,
    ttl: timedelta | None,
    dlq_max_size: int,
    dlq_ttl: timedelta | None,
    periods: Periods | None = None,
) -> Report:
    """Remove what is over for longer than the period of its kind, and entries and closed items beyond their number.

    Args:
        ttl: of the journal; of pairings and bulk operations, too, unless ``periods`` says otherwise. None: for ever.
        dlq_ttl: of closed dead letter items. None: for ever.
        periods: of all other kinds.
    """
    rules = _rules(now, {Kind.PAIRINGS: ttl, Kind.OPERATIONS: ttl, **(periods or {}), **_two(ttl, dlq_ttl)})
    removed = dict.fromkeys(Kind, 0)
    for kind, rule in rules:
        removed[kind] = _remove(rule.rows)
    removed[Kind.DLQ] += _remove(_closed().order_by("closed_at"), most=_closed().count() - dlq_max_size)
    completed = _over(EntryState.COMPLETED)
    if (counted := figures.last_counted_entry()) is not None:  # the rest is removed when it has been counted
        completed = completed.filter(pk__lte=counted)
    removed[Kind.JOURNAL] += _remove(completed, most=JournalEntry.objects.count() - max_size)
    WrongCodes.objects.filter(last_at__lte=now - _FORGET_WRONG_CODES).delete()
    if ttl is not None:
        alerts.forget(before=now - ttl)
    unfinished = JournalEntry.objects.exclude(state__in=_OVER).count()
    if unfinished > max_size:
        logger.error("the journal is full: %d unfinished entries, %d are meant to fit", unfinished, max_size)
    return Report(removed=removed, is_journal_full=unfinished > max_size)


def preview(*, now: datetime, max_size: int, dlq_max_size: int, periods: Periods) -> list[Due]:
    """What ``run`` would remove at this moment, by kind. Nothing is changed."""
    rules = dict(_rules(now, periods))
    beyond = {Kind.JOURNAL: JournalEntry.objects.count() - max_size, Kind.DLQ: _closed().count() - dlq_max_size}
    found = []
    for kind in Kind:
        rule = rules.get(kind)
        count = rule.rows.count() if rule else 0
        oldest = rule.rows.aggregate(oldest=models.Min(rule.column))["oldest"] if rule and count else None
        excess = max(beyond.get(kind, 0) - count, 0)
        found.append(Due(kind=kind, period=periods.get(kind), count=count, oldest=oldest, excess=excess))
    return found


def _two(ttl: timedelta | None, dlq_ttl: timedelta | None) -> dict[Kind, timedelta | None]:
    return {Kind.JOURNAL: ttl, Kind.DLQ: dlq_ttl}


# -- what is due ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    rows: QuerySet[Any]  # in the order in which they go
    column: str  # when each was over


def _rules(now: datetime, periods: Periods) -> Iterator[tuple[Kind, _Rule]]:
    """The kinds that are not kept for ever, in an order in which nothing is needed by what comes after it."""
    going = _old_entries(now, periods.get(Kind.JOURNAL))
    makers: dict[Kind, Callable[[datetime], _Rule]] = {
        Kind.DLQ: lambda at: _Rule(rows=_closed().filter(closed_at__lte=at).order_by("closed_at"), column="closed_at"),
        Kind.JOURNAL: lambda at: _Rule(rows=going, column="completed_at"),
        Kind.OUTBOX: lambda at: _Rule(rows=_over_sends(at, going), column="created_at"),
        Kind.HISTORY: lambda at: _Rule(rows=_old_history(at, going), column="created_at"),
        Kind.TURNS: lambda at: _Rule(rows=_old_turns(at, going), column="finished_at"),
        Kind.PAIRINGS: lambda at: _Rule(
            rows=Pairing.objects.filter(
                state__in=(PairingState.EXPIRED, PairingState.DENIED), decided_at__lte=at
            ).order_by("pk"),
            column="decided_at",
        ),
        Kind.OPERATIONS: lambda at: _Rule(
            rows=BulkOperation.objects.exclude(state=BulkState.RUNNING).filter(moved_at__lte=at).order_by("pk"),
            column="moved_at",
        ),
        Kind.WORKERS: lambda at: _Rule(
            rows=Worker.objects.filter(stopped_at__lte=at).order_by("pk"), column="stopped_at"
        ),
        Kind.AUDIT: lambda at: _Rule(rows=_until(AuditEvent.objects.all(), "at", at), column="at"),
    }
    for kind, make in makers.items():
        period = periods.get(kind)
        if period is not None:
            yield kind, make(now - period)


def _closed() -> QuerySet[DLQItem]:
    closed = DLQItem.objects.filter(closed_at__isnull=False)
    return closed.exclude(state__in=(DLQState.OPEN, DLQState.RETRYING))


def _over(*states: EntryState) -> QuerySet[JournalEntry]:
    """Ended entries without a case; the oldest first."""
    return JournalEntry.objects.filter(state__in=states, dlq_item__isnull=True).order_by("completed_at", "id")


def _old_entries(now: datetime, period: timedelta | None) -> QuerySet[JournalEntry]:
    return JournalEntry.objects.none() if period is None else _over(*_OVER).filter(completed_at__lte=now - period)


def _staying(going: QuerySet[JournalEntry], turn: str = "turn") -> Exists:
    """Whose turn answers an entry that stays."""
    return Exists(JournalEntry.objects.filter(turn=OuterRef(turn)).exclude(pk__in=going.order_by().values("pk")))


def _over_sends(at: datetime, going: QuerySet[JournalEntry]) -> QuerySet[OutboxMessage]:
    over = OutboxMessage.objects.filter(state__in=(OutboxState.SENT, OutboxState.DEAD))
    free = Q(entry=None) | Q(entry__in=going.order_by().values("pk"))
    return _until(over.filter(free).filter(~_staying(going)), "created_at", at)


def _old_history(at: datetime, going: QuerySet[JournalEntry]) -> QuerySet[HistoryMessage]:
    free = Q(entry=None) | Q(entry__in=going.order_by().values("pk"))
    return _until(HistoryMessage.objects.filter(free).filter(~_staying(going)), "created_at", at)


def _old_turns(at: datetime, going: QuerySet[JournalEntry]) -> QuerySet[Turn]:
    unsent = OutboxMessage.objects.filter(turn=OuterRef("pk")).exclude(state__in=(OutboxState.SENT, OutboxState.DEAD))
    ended = Turn.objects.exclude(state=TurnState.RUNNING).filter(finished_at__lte=at)
    return ended.filter(~Exists(unsent), ~_staying(going, "pk")).order_by("pk")


def _until(rows: QuerySet[Any], column: str, at: datetime) -> QuerySet[Any]:
    """Those of ``rows`` up to a time, where ids grow with it: found by halving, because no index knows the time.

    A row that is older than its neighbours goes when they do.
    """
    everything = rows.model._default_manager.order_by("pk")
    ends = everything.aggregate(first=models.Min("pk"), last=models.Max("pk"))
    low, high = ends["first"] or 0, ends["last"] or 0  # all below ``low`` are old, all above ``high`` are young
    while low <= high:
        middle = (low + high) // 2
        found = everything.filter(pk__gte=middle).values_list("pk", column).first()
        if found is not None and found[1] <= at:
            low = found[0] + 1
        else:
            high = middle - 1
    return rows.filter(pk__lt=low, **{f"{column}__lte": at}).order_by("pk")


# -- removing it ----


def _remove(rows: QuerySet[Any], *, most: int | None = None) -> int:
    """Delete ``rows`` in chunks, at most ``most`` of them. Returns how many."""
    removed = 0
    while most is None or removed < most:
        size = CHUNK if most is None else min(CHUNK, most - removed)
        with transaction.atomic():
            # Locked: what staff run again in this moment is looked at again, and stays.
            ids = list(rows.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True)[:size])
            if not ids:
                break
            turn_ids = []
            if rows.model is JournalEntry:
                with_turn = JournalEntry.objects.filter(pk__in=ids, turn__isnull=False)
                turn_ids = list(with_turn.values_list("turn", flat=True))
                _keep_who_spoke(ids)
            rows.model._default_manager.filter(pk__in=ids).delete()
            Turn.objects.filter(id__in=turn_ids, entries__isnull=True).delete()
        removed += len(ids)
    return removed


def _keep_who_spoke(entry_ids: Collection[int]) -> None:
    """Note down whose messages in groups these are, before their entries go: they are to be found when somebody is
    erased."""
    said = HistoryMessage.objects.filter(
        entry__in=entry_ids, entry__contact__isnull=False, session__scope=SessionScope.PER_CHAT, role=Role.USER
    )
    rows = list(said.select_related("entry").only("metadata", "entry__contact"))
    for row in rows:
        if row.entry is not None:
            row.metadata["contact"] = row.entry.contact_id
    HistoryMessage.objects.bulk_update(rows, ["metadata"])
