"""Remove what is over and old. Nothing unfinished is ever removed: when only that is left, an alarm is raised."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import models

from botsrt.core.states import BulkState, DLQState, EntryState, PairingState
from botsrt.models import BulkOperation, DLQItem, JournalEntry, Pairing, Turn, WrongCodes

#: Rows removed in one transaction, so that the hot path never waits long for the write lock.
CHUNK = 200

#: Much longer than any lock; whoever guesses again begins anew.
_FORGET_WRONG_CODES = timedelta(days=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did."""

    entries_removed: int
    dlq_items_removed: int
    pairings_removed: int
    operations_removed: int
    is_journal_full: bool  # more unfinished entries than the journal should hold


def run(*, now: datetime, max_size: int, ttl: timedelta, dlq_max_size: int, dlq_ttl: timedelta) -> Report:
    """Evict ended entries that are older than ``ttl`` or beyond ``max_size``, and closed DLQ items likewise."""
    items = _remove_closed_items(now - dlq_ttl, keep=dlq_max_size)
    entries = _remove_ended_entries(now - ttl, keep=max_size)
    pairings = _remove_old_pairings(now - ttl)
    operations = _remove(
        BulkOperation, BulkOperation.objects.exclude(state=BulkState.RUNNING).filter(moved_at__lte=now - ttl)
    )
    WrongCodes.objects.filter(last_at__lte=now - _FORGET_WRONG_CODES).delete()
    unfinished = JournalEntry.objects.exclude(state__in=(EntryState.COMPLETED, EntryState.DISCARDED)).count()
    if unfinished > max_size:
        logger.error("the journal is full: %d unfinished entries, %d are meant to fit", unfinished, max_size)
    return Report(
        entries_removed=entries,
        dlq_items_removed=items,
        pairings_removed=pairings,
        operations_removed=operations,
        is_journal_full=unfinished > max_size,
    )


def _remove_closed_items(oldest: datetime, *, keep: int) -> int:
    closed = DLQItem.objects.filter(closed_at__isnull=False).exclude(state__in=(DLQState.OPEN, DLQState.RETRYING))
    removed = _remove(DLQItem, closed.filter(closed_at__lte=oldest))
    excess = closed.count() - keep
    return removed + (_remove(DLQItem, closed.order_by("closed_at"), most=excess) if excess > 0 else 0)


def _remove_old_pairings(oldest: datetime) -> int:
    """Requests that came to nothing. Approved, revoked and blocked ones stay: they say who let whom in."""
    ended = Pairing.objects.filter(state__in=(PairingState.EXPIRED, PairingState.DENIED), decided_at__lte=oldest)
    return _remove(Pairing, ended)


def _remove_ended_entries(oldest: datetime, *, keep: int) -> int:
    removed = 0
    for state in (EntryState.COMPLETED, EntryState.DISCARDED):
        ended = JournalEntry.objects.filter(state=state, dlq_item__isnull=True).order_by("completed_at", "id")
        removed += _remove(JournalEntry, ended.filter(completed_at__lte=oldest))
    excess = JournalEntry.objects.count() - keep
    if excess > 0:
        completed = JournalEntry.objects.filter(state=EntryState.COMPLETED, dlq_item__isnull=True)
        removed += _remove(JournalEntry, completed.order_by("completed_at", "id"), most=excess)
    return removed


def _remove(model: type[models.Model], rows: models.QuerySet[models.Model], *, most: int | None = None) -> int:
    """Delete ``rows`` in chunks, at most ``most`` of them. Returns how many."""
    removed = 0
    while most is None or removed < most:
        size = CHUNK if most is None else min(CHUNK, most - removed)
        ids = list(rows.values_list("pk", flat=True)[:size])
        if not ids:
            break
        turn_ids = []
        if model is JournalEntry:
            turn_ids = list(JournalEntry.objects.filter(pk__in=ids, turn__isnull=False).values_list("turn", flat=True))
        model._default_manager.filter(pk__in=ids).delete()
        Turn.objects.filter(id__in=turn_ids, entries__isnull=True).delete()
        removed += len(ids)
    return removed
