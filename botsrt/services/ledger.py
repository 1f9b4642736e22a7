"""Check that every message has one owner and one end: received = answered + silent + held + dead + discarded + open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from botsrt.core.states import DLQState, EntryState, OutboxState, Outcome, TurnState
from botsrt.models import Bot, DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import finishing, handling

#: Ids named per kind of leak; the count tells the rest.
_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Entries or rows that break a rule."""

    rule: str
    count: int
    ids: tuple[str, ...]  # the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    received: int
    duplicates: int  # redeliveries, counted on their entries
    ends: dict[str, int]  # outcome → entries
    open: int  # pending or claimed
    leaks: tuple[Leak, ...]

    @property
    def is_balanced(self) -> bool:
        return self.received == sum(self.ends.values()) + self.open and not self.leaks


def check(*, since: datetime | None, lease: timedelta, now: datetime) -> Ledger:
    """Count the entries received since ``since`` (None: all) and look for leaks.

    Args:
        lease: a lease that ran out longer ago than this should have been noticed by a worker.
    """
    entries = JournalEntry.objects.all() if since is None else JournalEntry.objects.filter(received_at__gte=since)
    counts = {
        (row["state"], row["outcome"]): row["count"]
        for row in entries.order_by().values("state", "outcome").annotate(count=Count("id"))
    }
    ends = {
        outcome.value: sum(count for (_, ended), count in counts.items() if ended == outcome) for outcome in Outcome
    }
    open_states = (EntryState.PENDING, EntryState.CLAIMED)
    leaks = (
        Leak(rule=rule, count=rows.count(), ids=tuple(str(pk) for pk in rows.values_list("pk", flat=True)[:_NAMED]))
        for rule, rows in _rules(entries, overdue=now - lease)
        if rows.exists()
    )
    return Ledger(
        received=sum(counts.values()),
        duplicates=sum(entries.filter(duplicates__gt=0).values_list("duplicates", flat=True)),
        ends=ends,
        open=sum(count for (state, _), count in counts.items() if state in open_states),
        leaks=tuple(leaks),
    )


def _rules(entries: QuerySet[JournalEntry], *, overdue: datetime) -> Iterator[tuple[str, QuerySet]]:  # type: ignore[type-arg]
    """What must not exist, as a sentence and a query each."""
    fitting: dict[EntryState, list[str]] = {
        EntryState.PENDING: [""],
        EntryState.CLAIMED: [""],
        EntryState.COMPLETED: [Outcome.ANSWERED, Outcome.SILENT],
        EntryState.HELD: [Outcome.HELD],
        EntryState.DEAD: [Outcome.DEAD],
        EntryState.DISCARDED: [Outcome.DISCARDED],
    }
    for state, outcomes in fitting.items():
        yield f"{state} entries whose outcome does not fit", entries.filter(state=state).exclude(outcome__in=outcomes)
    running = Turn.objects.filter(id=OuterRef("turn"), state=TurnState.RUNNING)
    yield "claimed entries without a running turn", entries.filter(~Exists(running), state=EntryState.CLAIMED)
    yield (
        "running turns without an entry",
        Turn.objects.filter(
            ~Exists(JournalEntry.objects.filter(turn=OuterRef("pk"), state=EntryState.CLAIMED)), state=TurnState.RUNNING
        ),
    )
    yield (
        "running turns whose lease ran out long ago (does a worker run?)",
        Turn.objects.filter(state=TurnState.RUNNING, lease_expires_at__lt=overdue),
    )
    without_sending = Q(outcome_reason__in=(handling.BY_STAFF, finishing.RETURNED))
    answered = entries.filter(outcome=Outcome.ANSWERED)
    replies = OutboxMessage.objects.filter(turn=OuterRef("turn"))
    yield "answered entries without a reply", answered.filter(~without_sending, ~Exists(replies))
    spoken = HistoryMessage.objects.filter(Q(turn=OuterRef("turn")) | Q(entry=OuterRef("pk")))
    yield "answered entries that the history does not have", answered.filter(~Exists(spoken))
    cases = DLQItem.objects.filter(entry=OuterRef("pk"), state=DLQState.OPEN)
    yield "dead entries without an open dead letter item", entries.filter(~Exists(cases), state=EntryState.DEAD)
    items = DLQItem.objects.filter(entry__in=entries)
    yield (
        "open dead letter items whose entry is not dead",
        items.filter(state=DLQState.OPEN).exclude(entry__state=EntryState.DEAD),
    )
    yield (
        "retrying dead letter items whose entry is not under way",
        items.filter(state=DLQState.RETRYING).exclude(entry__state__in=(EntryState.PENDING, EntryState.CLAIMED)),
    )
    yield (
        "pending entries of a bot that does not exist",
        entries.filter(state=EntryState.PENDING).exclude(account__in=Bot.objects.values("account")),
    )
    yield (
        "messages being sent whose lease ran out long ago (does a worker run?)",
        OutboxMessage.objects.filter(state=OutboxState.SENDING, lease_expires_at__lt=overdue),
    )
